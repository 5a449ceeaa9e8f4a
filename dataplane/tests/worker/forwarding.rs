//! Media of a publisher reaches its subscribers, under their numbers, and nobody else.

use ringmain_shared::DropReason;
use ringmain_shared::command::Command;
use ringmain_shared::event::{Event, IceState};
use ringmain_shared::transport::Side;
use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtcp::transport_feedbacks::transport_layer_nack::{NackPair, TransportLayerNack};

use crate::media::*;
use crate::world::World;

#[test]
fn media_reaches_each_subscriber_under_its_own_names_and_nothing_else_does() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    let stranger = world.join(Side::Subscriber);
    world.receive(publisher, receive_spec(10_000, &[]));
    let subscribers = [world.join(Side::Subscriber), world.join(Side::Subscriber)];
    let (mut camera, mut microphone) = (Camera::new(10_000, 0), Microphone::new(10_000));
    for peer in subscribers {
        subscribe(&mut world, peer, 10_000, AUDIO);
        subscribe(&mut world, peer, 10_000, VIDEO);
    }
    for frame in 0..30 {
        camera.send(&mut world, publisher, frame % 10 == 0, 4);
        let packet = microphone.packet(&mut world);
        world.send_rtp(publisher, &packet);
    }
    world.run_ms(100);
    for peer in subscribers {
        let (audio, video) = (subscription(&world, peer, 10_000, AUDIO), subscription(&world, peer, 10_000, VIDEO));
        let peer = &world.peers[peer];
        assert_eq!(peer.rtp.len(), 30 * 4 + 30, "all of it, and nothing else");
        let (heard_audio, heard_video) = (peer.rtp_of(audio.ssrc.0), peer.rtp_of(video.ssrc.0));
        assert_eq!((heard_audio.len(), heard_video.len()), (30, 120));
        for (heard, payload_type, mid) in [(&heard_audio, OUT_OPUS, "a7"), (&heard_video, OUT_VP8, "v7")] {
            assert_gapless(heard);
            let serials: Vec<u64> = heard.iter().map(|heard| serial(heard)).collect();
            assert!(serials.windows(2).all(|pair| pair[1] == pair[0] + 1), "in order and unmixed");
            for heard in heard.iter() {
                assert_eq!(heard.packet.header.payload_type, payload_type);
                assert_eq!(header_extension(heard, OUT_MID).as_deref(), Some(mid.as_bytes()));
                assert!(header_extension(heard, OUT_TRANSPORT_CC).is_some());
            }
        }
        assert!(heard_audio.iter().all(|heard| header_extension(heard, OUT_LEVEL) == Some(vec![0x80 | 20])));
        let markers = heard_video.iter().filter(|heard| heard.packet.header.marker).count();
        assert_eq!(markers, 30, "one for each frame");
        let wide: Vec<u16> = peer.rtp.iter().map(wide_number).collect();
        assert!(wide.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "{wide:?}");
        let pictures: Vec<u16> = heard_video.iter().map(|heard| picture(heard)).collect();
        assert!(pictures.windows(2).all(|pair| matches!(pair[1].wrapping_sub(pair[0]) & 0x7fff, 0 | 1)));
    }
    assert!(world.peers[stranger].rtp.is_empty());
    assert!(world.peers[publisher].rtp.is_empty());
    assert_eq!(world.drops(), []);
}

#[test]
fn packets_of_a_frame_that_differ_by_a_byte_leave_as_one_train() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    world.receive(publisher, receive_spec(10_000, &[]));
    let peer = world.join(Side::Subscriber);
    let ssrc = subscribe(&mut world, peer, 10_000, VIDEO);
    let mut camera = Camera::new(10_000, 0);
    // As libwebrtc cuts a frame: the longer ones last.
    let mut frame = camera.frame(&mut world, true, 8);
    frame.iter_mut().skip(3).for_each(|packet| packet.push(7));
    for packet in &frame {
        world.send_rtp(publisher, packet);
    }
    let before = world.trains(0);
    world.settle();
    let (trains, datagrams) = world.trains(0);
    assert_eq!((datagrams - before.1 >= 8, trains - before.0 <= datagrams - before.1 - 7), (true, true));
    let heard = world.peers[peer].rtp_of(ssrc);
    assert_gapless(&heard);
    let sizes: Vec<usize> = heard.iter().map(|heard| heard.packet.payload.len()).collect();
    assert_eq!(sizes, [200, 200, 200, 201, 201, 201, 201, 201], "padding is no payload");
    let padded: Vec<bool> = heard.iter().map(|heard| heard.packet.header.padding).collect();
    assert_eq!(padded, [true, true, true, false, false, false, false, false]);
    assert!(heard.iter().skip(3).all(|heard| heard.packet.payload.last() == Some(&7)));
    let missed = heard[1].packet.header.sequence_number;
    let nacks = vec![NackPair { packet_id: missed, lost_packets: 0 }];
    world.send_rtcp(peer, &TransportLayerNack { sender_ssrc: 1, media_ssrc: ssrc, nacks });
    world.settle();
    let again = &world.peers[peer].rtp_of(ssrc + 1)[0].packet;
    assert!(!again.header.padding, "RFC 4588 §4: what is sent again has none");
    assert_eq!(again.payload[2..], world.peers[peer].rtp_of(ssrc)[1].packet.payload[..]);
}

#[test]
fn a_late_joiner_causes_one_request_and_begins_with_the_keyframe() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    world.receive(publisher, receive_spec(10_000, &[]));
    let mut camera = Camera::new(10_000, 0);
    for frame in 0..30 {
        camera.send(&mut world, publisher, frame == 0, 3);
    }
    assert_eq!(requests(&world, publisher), 0, "nobody watches");
    let late = world.join(Side::Subscriber);
    let ssrc = subscribe(&mut world, late, 10_000, VIDEO);
    camera.send(&mut world, publisher, false, 3);
    assert_eq!(requests(&world, publisher), 1);
    for _ in 0..5 {
        camera.send(&mut world, publisher, false, 3);
    }
    assert!(world.peers[late].rtp.is_empty(), "nothing before the keyframe");
    let keyframe = camera.frame(&mut world, true, 3);
    let first = camera.serial - 2;
    for packet in keyframe {
        world.send_rtp(publisher, &packet);
    }
    world.run_ms(33);
    camera.send(&mut world, publisher, false, 3);
    world.run_ms(3_000);
    let heard = world.peers[late].rtp_of(ssrc);
    assert_eq!((heard.len(), serial(heard[0])), (6, first));
    assert_gapless(&heard);
    assert_eq!(requests(&world, publisher), 1);
    assert!(world.events.iter().any(|event| matches!(event, Event::LayerForwarded { spatial: 0, .. })));
}

#[test]
fn a_keyframe_that_came_by_itself_is_not_asked_for() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    world.receive(publisher, receive_spec(10_000, &[]));
    let early = world.join(Side::Subscriber);
    let ssrc = subscribe(&mut world, early, 10_000, VIDEO);
    let mut camera = Camera::new(10_000, 0);
    for frame in 0..60 {
        camera.send(&mut world, publisher, frame == 0, 3);
    }
    assert_eq!(world.peers[early].rtp_of(ssrc).len(), 180);
    assert_eq!(requests(&world, publisher), 0);
}

#[test]
fn a_subscriber_that_is_secured_late_has_its_keyframe_asked_for_then_and_at_once() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    world.receive(publisher, receive_spec(10_000, &[]));
    let late = world.open(0, Side::Subscriber);
    let ssrc = subscribe(&mut world, late, 10_000, VIDEO);
    let mut camera = Camera::new(10_000, 0);
    for frame in 0..5 {
        camera.send(&mut world, publisher, frame == 0, 2);
    }
    assert_eq!(requests(&world, publisher), 0, "the keyframe would be lost, and hold up the next");
    world.connect(late);
    world.secure(late);
    camera.send(&mut world, publisher, false, 2);
    assert_eq!(requests(&world, publisher), 1, "it waits for a keyframe that came before its keys");
    camera.send(&mut world, publisher, true, 2);
    assert_eq!(world.peers[late].rtp_of(ssrc).len(), 2);
}

#[test]
fn muting_stops_at_once_and_unmuting_continues_without_a_gap() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    world.receive(publisher, receive_spec(10_000, &[]));
    let peer = world.join(Side::Subscriber);
    let (audio, video) = (subscribe(&mut world, peer, 10_000, AUDIO), subscribe(&mut world, peer, 10_000, VIDEO));
    let (mut camera, mut microphone) = (Camera::new(10_000, 0), Microphone::new(10_000));
    let mut second = |world: &mut World, keyframe: bool| {
        for frame in 0..30 {
            let packet = microphone.packet(world);
            world.send_rtp(publisher, &packet);
            camera.send(world, publisher, keyframe && frame == 0, 2);
        }
    };
    second(&mut world, true);
    let before = world.peers[peer].rtp.len();
    for kind in [AUDIO, VIDEO] {
        adjust(&mut world, peer, 10_000, kind, true, 2, 3);
    }
    second(&mut world, false);
    assert_eq!(world.peers[peer].rtp.len(), before, "muted");
    let asked = requests(&world, publisher);
    for kind in [AUDIO, VIDEO] {
        adjust(&mut world, peer, 10_000, kind, false, 2, 3);
    }
    world.run_ms(1);
    assert_eq!(requests(&world, publisher), asked + 1);
    second(&mut world, true);
    for (ssrc, count, clock_rate) in [(audio, 60, 48_000), (video, 120, 90_000)] {
        let heard = world.peers[peer].rtp_of(ssrc);
        assert_eq!(heard.len(), count);
        assert_gapless(&heard);
        // The publisher's clock ran on during the pause, and so does the subscriber's.
        let (first, last) = (heard[0], heard[count - 1]);
        let frames = if ssrc == audio { 89 * 960 } else { 89 * 3_000 };
        assert_eq!(last.packet.header.timestamp.wrapping_sub(first.packet.header.timestamp), frames, "{clock_rate}");
    }
}

#[test]
fn a_publisher_that_begins_again_is_followed_with_numbers_that_run_on() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    world.receive(publisher, receive_spec(10_000, &[]));
    let peer = world.join(Side::Subscriber);
    let ssrc = subscribe(&mut world, peer, 10_000, VIDEO);
    let mut camera = Camera::new(10_000, 0);
    for frame in 0..30 {
        camera.send(&mut world, publisher, frame == 0, 2);
    }
    camera.sequence = camera.sequence.wrapping_add(30_000);
    camera.timestamp = 17;
    camera.picture = 9_000;
    let asked = requests(&world, publisher);
    camera.send(&mut world, publisher, false, 2);
    camera.send(&mut world, publisher, false, 2);
    assert!(requests(&world, publisher) > asked, "what comes now fits nothing of before");
    let before = world.peers[peer].rtp_of(ssrc).len();
    assert_eq!(before, 60);
    for frame in 0..30 {
        camera.send(&mut world, publisher, frame == 0, 2);
    }
    let heard = world.peers[peer].rtp_of(ssrc);
    assert_eq!(heard.len(), 120);
    assert_gapless(&heard);
    assert_steady(&heard);
}

#[test]
fn a_publisher_that_begins_again_while_muted_does_not_throw_the_clock() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    world.receive(publisher, receive_spec(10_000, &[]));
    let peer = world.join(Side::Subscriber);
    let ssrc = subscribe(&mut world, peer, 10_000, VIDEO);
    let mut camera = Camera::new(10_000, 0);
    for frame in 0..10 {
        camera.send(&mut world, publisher, frame == 0, 2);
    }
    adjust(&mut world, peer, 10_000, VIDEO, true, 2, 3);
    camera.sequence = camera.sequence.wrapping_add(30_000);
    camera.timestamp = 17;
    for _ in 0..10 {
        camera.send(&mut world, publisher, false, 2);
    }
    adjust(&mut world, peer, 10_000, VIDEO, false, 2, 3);
    for frame in 0..10 {
        camera.send(&mut world, publisher, frame == 0, 2);
    }
    let heard = world.peers[peer].rtp_of(ssrc);
    assert_eq!(heard.len(), 40);
    assert_gapless(&heard);
    assert_steady(&heard);
}

#[test]
fn padding_leaves_no_gap() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    world.receive(publisher, receive_spec(10_000, &[]));
    let peer = world.join(Side::Subscriber);
    let ssrc = subscribe(&mut world, peer, 10_000, VIDEO);
    let mut camera = Camera::new(10_000, 0);
    for frame in 0..60 {
        camera.send(&mut world, publisher, frame == 0, 2);
        for _ in 0..frame % 7 {
            let padding = camera.padding(&mut world);
            world.send_rtp(publisher, &padding);
        }
    }
    let heard = world.peers[peer].rtp_of(ssrc);
    assert_eq!(heard.len(), 120);
    assert_gapless(&heard);
    assert!(world.dropped(DropReason::PaddingOnly) > 100);
    assert_eq!(world.drops().len(), 1, "{:?}", world.drops());
}

#[test]
fn a_payload_type_that_a_subscriber_did_not_take_leaves_no_gap() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    let mut spec = receive_spec(10_000, &[]);
    let mut other = spec.tracks[1].codecs[0].clone();
    other.payload_type = ringmain_shared::media::PayloadType(50);
    spec.tracks[1].codecs.push(other);
    world.receive(publisher, spec);
    let peer = world.join(Side::Subscriber);
    let ssrc = subscribe(&mut world, peer, 10_000, VIDEO);
    let mut camera = Camera::new(10_000, 0);
    for frame in 0..20 {
        for (at, mut packet) in camera.frame(&mut world, frame == 0, 3).into_iter().enumerate() {
            if frame > 0 && at == 1 {
                packet[1] = packet[1] & 0x80 | 50;
            }
            world.send_rtp(publisher, &packet);
        }
        world.run_ms(33);
    }
    let heard = world.peers[peer].rtp_of(ssrc);
    assert_eq!(heard.len(), 41);
    assert_gapless(&heard);
    assert_eq!(world.dropped(DropReason::UnknownPayloadType), 19);
}

#[test]
fn after_bye_another_source_takes_the_place_at_once() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    let mut spec = receive_spec(10_000, &[]);
    // No SSRCs are announced: streams are found by mid.
    spec.tracks.iter_mut().for_each(|track| track.ssrcs.clear());
    world.receive(publisher, spec);
    let peer = world.join(Side::Subscriber);
    let ssrc = subscribe(&mut world, peer, 10_000, VIDEO);
    let mut camera = Camera::new(10_000, 0);
    for frame in 0..10 {
        camera.send(&mut world, publisher, frame == 0, 2);
    }
    let bye = rtcp::goodbye::Goodbye { sources: vec![camera.ssrc], reason: Default::default() };
    world.send_rtcp(publisher, &bye);
    world.run_ms(10);
    assert!(world.events.iter().any(|event| matches!(event, Event::LayersActive { layers: 0, .. })));
    let mut next = Camera { ssrc: 77, sequence: camera.sequence.wrapping_sub(400), timestamp: 9, ..camera };
    for frame in 0..10 {
        next.send(&mut world, publisher, frame == 0, 2);
    }
    let heard = world.peers[peer].rtp_of(ssrc);
    assert_eq!(heard.len(), 40, "{:?}", world.drops());
    assert_gapless(&heard);
    assert_steady(&heard);
}

#[test]
fn a_snapshot_lists_what_flows() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    let spec = receive_spec(10_000, &[]);
    world.receive(publisher, spec.clone());
    let peer = world.join(Side::Subscriber);
    subscribe(&mut world, peer, 10_000, AUDIO);
    subscribe(&mut world, peer, 10_000, VIDEO);
    adjust(&mut world, peer, 10_000, VIDEO, true, 1, 0);
    world.command(0, Command::Snapshot { request: 77 });
    world.settle();
    let flows = world.events.iter().find_map(|event| match event {
        Event::Snapshot { request: 77, flows, .. } => Some(flows),
        _ => None,
    });
    let flows = flows.expect("an answer");
    assert_eq!(flows.len(), 2);
    for (flow, peer) in flows.iter().zip(&world.peers) {
        assert_eq!((flow.transport, flow.ice, flow.secured), (peer.transport, IceState::Connected, true));
        assert_eq!((flow.remote, &flow.ufrag), (Some(peer.address), &peer.server.ufrag));
    }
    assert_eq!(flows[0].receive, spec);
    assert_eq!(flows[1].subscriptions.len(), 2);
    let video = &flows[1].subscriptions[1];
    assert!(video.muted && video.spatial_max == 1 && video.temporal_max == 0, "the latest wishes");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let story = |seed| {
        let mut world = World::with_seed(1, seed);
        let publisher = world.join(Side::Publisher);
        world.receive(publisher, receive_spec(10_000, &[]));
        let peers: Vec<usize> = (0..5).map(|_| world.join(Side::Subscriber)).collect();
        for &peer in &peers {
            subscribe(&mut world, peer, 10_000, AUDIO);
            subscribe(&mut world, peer, 10_000, VIDEO);
        }
        let (mut camera, mut microphone) = (Camera::new(10_000, 0), Microphone::new(10_000));
        for frame in 0..150 {
            let packet = microphone.packet(&mut world);
            world.send_rtp(publisher, &packet);
            for packet in camera.frame(&mut world, frame % 30 == 0, 5) {
                if !world.chance().is_multiple_of(10) {
                    world.send_rtp(publisher, &packet);
                }
            }
            world.run_ms(33);
        }
        world.run_ms(20_000);
        world.log
    };
    let (first, second) = (story(3), story(3));
    assert!(first.len() > 4_000, "{}", first.len());
    assert!(first == second, "the first difference is at {:?}", first.iter().zip(&second).position(|(a, b)| a != b));
    assert!(story(4) != first, "another seed, other numbers");
}

/// Timestamps never go back, and differ as the times do by at most 50 ms.
#[track_caller]
pub fn assert_steady(heard: &[&crate::world::Heard]) {
    for pair in heard.windows(2) {
        let ticks = pair[1].packet.header.timestamp.wrapping_sub(pair[0].packet.header.timestamp) as i32;
        let expected = pair[1].at.since(pair[0].at).as_millis() as i32 * 90;
        assert!(ticks >= 0 && (ticks - expected).abs() <= 50 * 90, "{ticks} ticks in {} ms", expected / 90);
    }
}

pub fn requests(world: &World, publisher: usize) -> usize {
    world.peers[publisher].rtcp_of::<PictureLossIndication>().len()
}

fn wide_number(heard: &crate::world::Heard) -> u16 {
    let value = header_extension(heard, OUT_TRANSPORT_CC).expect("negotiated");
    u16::from_be_bytes([value[0], value[1]])
}

fn picture(heard: &crate::world::Heard) -> u16 {
    u16::from_be_bytes([heard.packet.payload[2], heard.packet.payload[3]])
}
