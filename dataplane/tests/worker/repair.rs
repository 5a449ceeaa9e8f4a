//! Loss on both ways: what subscribers ask for again, what publishers are asked for, and how little a storm of requests does.

use std::time::Duration;

use ringmain_shared::DropReason;
use ringmain_shared::transport::Side;
use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtcp::receiver_report::ReceiverReport;
use rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
use rtcp::transport_feedbacks::transport_layer_nack::{NackPair, TransportLayerNack};

use crate::forwarding::requests;
use crate::media::*;
use crate::world::{Heard, World};

/// A publisher, a subscriber of its video, and the SSRC under which that goes out.
fn pair() -> (World, usize, usize, u32, Camera) {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    world.receive(publisher, receive_spec(10_000, &[]));
    let peer = world.join(Side::Subscriber);
    let ssrc = subscribe(&mut world, peer, 10_000, VIDEO);
    (world, publisher, peer, ssrc, Camera::new(10_000, 0))
}

fn nack(world: &mut World, peer: usize, ssrc: u32, sequences: &[u16]) {
    let nacks = sequences.iter().map(|&packet_id| NackPair { packet_id, lost_packets: 0 }).collect();
    world.send_rtcp(peer, &TransportLayerNack { sender_ssrc: 1, media_ssrc: ssrc, nacks });
    world.settle();
}

fn asked_again(world: &World, publisher: usize) -> Vec<u16> {
    let nacks = world.peers[publisher].rtcp_of::<TransportLayerNack>();
    nacks.iter().flat_map(|(_, nack)| nack.nacks.iter().flat_map(|pair| pair.packet_list())).collect()
}

#[test]
fn a_subscriber_gets_again_what_it_asks_for_on_the_rtx_stream() {
    let (mut world, publisher, peer, ssrc, mut camera) = pair();
    for frame in 0..30 {
        camera.send(&mut world, publisher, frame == 0, 4);
    }
    let wanted: Vec<Heard> =
        world.peers[peer].rtp_of(ssrc).iter().rev().step_by(7).take(10).map(|&heard| heard.clone()).collect();
    let sequences: Vec<u16> = wanted.iter().map(|heard| heard.packet.header.sequence_number).collect();
    nack(&mut world, peer, ssrc, &sequences);
    let again = world.peers[peer].rtp_of(ssrc + 1);
    assert_eq!(again.len(), 10);
    assert_gapless(&again);
    for (first, again) in wanted.iter().zip(again) {
        let (was, is) = (&first.packet.header, &again.packet.header);
        assert_eq!(is.payload_type, OUT_RTX);
        assert_eq!((is.timestamp, is.marker), (was.timestamp, was.marker));
        assert_eq!(again.packet.payload[..2], was.sequence_number.to_be_bytes(), "the original sequence number");
        assert_eq!(again.packet.payload[2..], first.packet.payload[..]);
        assert_eq!(header_extension(again, OUT_MID).as_deref(), Some(&b"v7"[..]));
    }
}

#[test]
fn one_datagram_makes_us_look_for_no_more_packets_than_one_full_request_names() {
    let (mut world, publisher, peer, ssrc, mut camera) = pair();
    camera.send(&mut world, publisher, true, 4);
    let first = world.peers[peer].rtp_of(ssrc)[0].packet.header.sequence_number;
    let pair = |at: u16| NackPair { packet_id: first.wrapping_add(5_000 + 17 * at), lost_packets: 0xffff };
    let nack = TransportLayerNack { sender_ssrc: 1, media_ssrc: ssrc, nacks: (0..64).map(pair).collect() };
    world.send_compound(peer, &[&nack as &dyn rtcp::packet::Packet; 5]);
    world.settle();
    assert_eq!(world.dropped(DropReason::RtxMissed), 17 * 64);
    assert_eq!(world.dropped(DropReason::RtxBudget), 4 * 17 * 64);
    // The next datagram begins anew.
    world.send_compound(peer, &[&nack]);
    world.settle();
    assert_eq!(world.dropped(DropReason::RtxMissed), 2 * 17 * 64);
}

#[test]
fn one_missing_packet_does_not_wait_behind_somebodys_thousand() {
    let (mut world, publisher, greedy, ssrc, mut camera) = pair();
    let modest = world.join(Side::Subscriber);
    subscribe(&mut world, modest, 10_000, VIDEO);
    for frame in 0..150 {
        camera.send(&mut world, publisher, frame == 0, 6);
    }
    let last = |world: &World, peer: usize| {
        world.peers[peer].rtp_of(ssrc).last().expect("media").packet.header.sequence_number
    };
    let first = last(&world, greedy).wrapping_sub(17 * 40);
    let nacks = (0..40).map(|at| NackPair { packet_id: first.wrapping_add(17 * at), lost_packets: 0xffff }).collect();
    let missing = last(&world, modest);
    world.log.clear();
    world.send_rtcp(greedy, &TransportLayerNack { sender_ssrc: 1, media_ssrc: ssrc, nacks });
    nack(&mut world, modest, ssrc, &[missing]);
    let to = |peer: usize| format!("{}", world.peers[peer].address);
    let (greedys, modests) = (to(greedy), to(modest));
    let place = world.log.iter().position(|(to, _)| to.contains(&modests)).expect("it came");
    let all = world.log.iter().filter(|(to, _)| to.contains(&greedys)).count();
    assert!(place <= 16 && all > 50, "behind {place} of {all}");
    // They leave in the order in which they were asked for, whatever the number of turns.
    let again = world.peers[greedy].rtp_of(ssrc + 1);
    let original = |heard: &Heard| u16::from_be_bytes([heard.packet.payload[0], heard.packet.payload[1]]);
    assert_gapless(&again);
    let expected = (0..).map(|at| first.wrapping_add(at));
    assert!(again.iter().map(|heard| original(heard)).eq(expected.take(again.len())));
}

#[test]
fn what_is_asked_for_is_sent_again_three_times_and_once_a_round_trip() {
    let (mut world, publisher, peer, ssrc, mut camera) = pair();
    for frame in 0..30 {
        camera.send(&mut world, publisher, frame == 0, 4);
    }
    let sequence = world.peers[peer].rtp_of(ssrc)[100].packet.header.sequence_number;
    for _ in 0..100 {
        nack(&mut world, peer, ssrc, &[sequence]);
        world.run_ms(10);
    }
    assert_eq!(world.peers[peer].rtp_of(ssrc + 1).len(), 3);
    assert_eq!(world.dropped(DropReason::RtxMissed), 97);
}

#[test]
fn a_subscriber_that_asks_for_everything_gets_a_quarter_more_and_a_floor() {
    let (mut world, publisher, peer, ssrc, mut camera) = pair();
    let began = world.now;
    for frame in 0..300 {
        camera.send(&mut world, publisher, frame == 0, 4);
        let heard = world.peers[peer].rtp_of(ssrc);
        let sequences: Vec<u16> =
            heard.iter().rev().take(30).map(|heard| heard.packet.header.sequence_number).collect();
        nack(&mut world, peer, ssrc, &sequences);
    }
    let bytes =
        |ssrc| world.peers[peer].rtp_of(ssrc).iter().map(|heard| heard.packet.payload.len() + 48).sum::<usize>();
    let floor = 8_000 * (world.now.since(began).as_secs() as usize + 2);
    assert!(bytes(ssrc + 1) <= bytes(ssrc) / 4 + floor, "{} for {}", bytes(ssrc + 1), bytes(ssrc));
    assert!(bytes(ssrc + 1) >= bytes(ssrc) / 8, "and yet something");
    assert!(world.dropped(DropReason::RtxBudget) > 0);
}

#[test]
fn what_the_budget_refused_can_be_asked_for_later() {
    let (mut world, publisher, peer, ssrc, mut camera) = pair();
    for frame in 0..20 {
        camera.send(&mut world, publisher, frame == 0, 8);
    }
    let all: Vec<u16> =
        world.peers[peer].rtp_of(ssrc).iter().map(|heard| heard.packet.header.sequence_number).collect();
    let mut missing = all.clone();
    for _ in 0..40 {
        for some in missing.clone().chunks(60) {
            nack(&mut world, peer, ssrc, some);
        }
        let original = |heard: &&Heard| u16::from_be_bytes([heard.packet.payload[0], heard.packet.payload[1]]);
        let come: Vec<u16> = world.peers[peer].rtp_of(ssrc + 1).iter().map(original).collect();
        missing.retain(|sequence| !come.contains(sequence));
        world.run_ms(300);
    }
    assert!(world.dropped(DropReason::RtxBudget) > 100);
    assert_eq!(missing, [], "all came in the end, since a refusal is no resend");
}

#[test]
fn a_subscriber_cannot_ask_for_what_others_get() {
    let (mut world, publisher, peer, ssrc, mut camera) = pair();
    let other = world.join(Side::Subscriber);
    let mut foreign = subscription(&world, other, 10_000, VIDEO);
    foreign.ssrc.0 += 0x100;
    foreign.rtx_ssrc = None;
    let other_ssrc = foreign.ssrc.0;
    world.command(0, ringmain_shared::Command::Subscribe(Box::new(foreign)));
    for frame in 0..10 {
        camera.send(&mut world, publisher, frame == 0, 4);
    }
    let sequence = world.peers[other].rtp_of(other_ssrc)[20].packet.header.sequence_number;
    nack(&mut world, peer, other_ssrc, &[sequence]);
    let pli = PictureLossIndication { sender_ssrc: 1, media_ssrc: other_ssrc };
    let before = requests(&world, publisher);
    world.send_rtcp(peer, &pli);
    world.run_ms(600);
    assert_eq!(world.dropped(DropReason::ForeignFeedback), 2);
    assert_eq!(requests(&world, publisher), before);
    assert!(world.peers[peer].rtp_of(ssrc + 1).is_empty() && world.peers[other].rtp_of(other_ssrc + 1).is_empty());
}

#[test]
fn lost_packets_are_asked_for_and_repaired_over_either_stream() {
    for over_rtx in [true, false] {
        let (mut world, publisher, peer, ssrc, mut camera) = pair();
        let mut lost = Vec::new();
        for frame in 0..60 {
            for (at, packet) in camera.frame(&mut world, frame == 0, 5).into_iter().enumerate() {
                if frame > 0 && frame < 50 && (frame + at) % 6 == 0 {
                    lost.push((u16::from_be_bytes([packet[2], packet[3]]), packet));
                } else {
                    world.send_rtp(publisher, &packet);
                }
            }
            world.run_ms(33);
            let asked = asked_again(&world, publisher);
            for (_, packet) in lost.extract_if(.., |(sequence, _)| asked.contains(sequence)) {
                let packet = if over_rtx { camera.repair(&packet) } else { packet };
                world.send_rtp(publisher, &packet);
            }
        }
        assert!(lost.is_empty(), "all were asked for");
        let asked = asked_again(&world, publisher);
        assert_eq!(asked.len(), 40, "each once: {asked:?}");
        let mut heard = world.peers[peer].rtp_of(ssrc);
        assert_eq!(heard.len(), 300, "over RTX: {over_rtx}; {:?}", world.drops());
        heard.sort_by_key(|heard| heard.packet.header.sequence_number);
        assert_gapless(&heard);
        let serials: Vec<u64> = heard.iter().map(|heard| serial(heard)).collect();
        assert!(serials.windows(2).all(|pair| pair[1] == pair[0] + 1), "each at its place");
        assert_eq!(requests(&world, publisher), 0);
    }
}

#[test]
fn what_is_repaired_though_it_had_come_is_forwarded_once() {
    let (mut world, publisher, peer, ssrc, mut camera) = pair();
    for frame in 0..20 {
        for packet in camera.frame(&mut world, frame == 0, 2) {
            world.send_rtp(publisher, &packet);
            let again = camera.repair(&packet);
            world.send_rtp(publisher, &again);
        }
        world.run_ms(33);
    }
    assert_eq!(world.peers[peer].rtp_of(ssrc).len(), 40);
    assert_eq!(world.dropped(DropReason::Duplicate), 40);
}

#[test]
fn five_hundred_subscribers_that_press_for_keyframes_cause_two_requests_a_second() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    world.receive(publisher, receive_spec(10_000, &[]));
    let mut camera = Camera::new(10_000, 0);
    camera.send(&mut world, publisher, true, 1);
    let peers: Vec<(usize, u32)> = (0..500)
        .map(|_| {
            let peer = world.join(Side::Subscriber);
            (peer, subscribe(&mut world, peer, 10_000, VIDEO))
        })
        .collect();
    let began = world.now;
    for frame in 0..60 {
        for (peer, ssrc) in &peers {
            world.send_rtcp(*peer, &PictureLossIndication { sender_ssrc: 1, media_ssrc: *ssrc });
        }
        camera.send(&mut world, publisher, frame % 10 == 5, 1);
    }
    let seconds = world.now.since(began).as_millis() as usize / 1_000;
    let asked = requests(&world, publisher);
    assert!((seconds..=2 * seconds + 2).contains(&asked), "{asked} requests in {seconds} s");
    let times: Vec<_> = world.peers[publisher].rtcp_of::<PictureLossIndication>().iter().map(|(at, _)| *at).collect();
    assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) >= Duration::from_millis(500)));
}

#[test]
fn a_publisher_hears_when_each_packet_came() {
    let (mut world, publisher, _, _, mut camera) = pair();
    let mut sent = Vec::new();
    for frame in 0..60 {
        for packet in camera.frame(&mut world, frame == 0, 3) {
            let number = world.wide_sequence.wrapping_sub(2).wrapping_add(sent.len() as u16 % 3);
            let lost = frame > 0 && world.chance() % 10 == 0;
            sent.push((number, (!lost).then_some(world.now)));
            if !lost {
                world.send_rtp(publisher, &packet);
            }
            world.run_ms(1);
        }
        world.run_ms(30);
    }
    world.run_ms(100);
    let mut told = std::collections::BTreeMap::new();
    for (number, (at, feedback)) in world.peers[publisher].rtcp_of::<TransportLayerCc>().into_iter().enumerate() {
        assert_eq!(usize::from(feedback.fb_pkt_count), number % 256);
        let mut time_us = i64::from(feedback.reference_time) * 64_000;
        let mut deltas = feedback.recv_deltas.iter();
        let mut number = feedback.base_sequence_number;
        let symbols = symbols(feedback);
        assert!(symbols.len() >= usize::from(feedback.packet_status_count));
        for came in symbols.into_iter().take(feedback.packet_status_count.into()) {
            if came {
                time_us += deltas.next().expect("a delta").delta;
                told.insert(number, time_us);
                assert!(time_us / 1_000 <= at.as_millis() as i64);
            }
            number = number.wrapping_add(1);
        }
    }
    let (mut come, mut offset) = (0, None);
    for (number, at) in sent {
        assert_eq!(told.contains_key(&number), at.is_some(), "number {number}");
        if let Some(at) = at {
            come += 1;
            // The reference time may begin anywhere; all differences must be right, to a quarter of a millisecond.
            let difference = told[&number] - at.as_micros() as i64;
            let offset = *offset.get_or_insert(difference);
            assert!((difference - offset).abs() <= 250, "{difference} {offset}");
        }
    }
    assert!(come > 140 && come < 180);
}

/// Whether each packet of a feedback came.
fn symbols(feedback: &TransportLayerCc) -> Vec<bool> {
    use rtcp::transport_feedbacks::transport_layer_cc::{PacketStatusChunk, SymbolTypeTcc};
    let came = |symbol: &SymbolTypeTcc| *symbol != SymbolTypeTcc::PacketNotReceived;
    let mut all = Vec::new();
    for chunk in &feedback.packet_chunks {
        match chunk {
            PacketStatusChunk::RunLengthChunk(run) => {
                all.extend(std::iter::repeat_n(came(&run.packet_status_symbol), run.run_length.into()));
            }
            PacketStatusChunk::StatusVectorChunk(vector) => all.extend(vector.symbol_list.iter().map(came)),
        }
    }
    all
}

#[test]
fn a_publisher_hears_of_its_losses_in_reports() {
    let (mut world, publisher, _, _, mut camera) = pair();
    for frame in 0..90 {
        for (at, packet) in camera.frame(&mut world, frame == 0, 4).into_iter().enumerate() {
            if frame == 0 || at != 2 {
                world.send_rtp(publisher, &packet);
            }
        }
        world.run_ms(33);
    }
    let reports = world.peers[publisher].rtcp_of::<ReceiverReport>();
    assert!((2..=4).contains(&reports.len()), "one a second: {}", reports.len());
    let (_, last) = reports.last().expect("some");
    let block = last.reports.iter().find(|block| block.ssrc == camera.ssrc).expect("a block");
    assert!((60..=68).contains(&block.fraction_lost), "a quarter of 256: {}", block.fraction_lost);
}
