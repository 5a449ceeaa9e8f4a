//! A room on two workers: packets are copied once to the other worker, wishes go back. The test carries the items, as rings do.

use ringmain_dataplane::worker::WorkerCommand;
use ringmain_shared::command::Command;
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::transport::Side;
use rtcp::sender_report::SenderReport;
use rtcp::transport_feedbacks::transport_layer_nack::{NackPair, TransportLayerNack};

use crate::forwarding::{assert_steady, requests};
use crate::media::*;
use crate::world::World;

/// A publisher on the first worker whose tracks the second one mirrors.
fn spread(layers: &[&str]) -> (World, usize) {
    let mut world = World::new(2);
    let publisher = world.join_on(0, Side::Publisher);
    let spec = receive_spec(10_000, layers);
    world.receive(publisher, spec.clone());
    for track in spec.tracks {
        let id = track.id;
        world.order(1, WorkerCommand::Mirror { track, from: WorkerIndex(0) });
        world.order(0, WorkerCommand::MirrorTo { track: id, to: WorkerIndex(1) });
    }
    (world, publisher)
}

#[test]
fn subscribers_of_both_workers_get_the_same_at_the_same_time() {
    let (mut world, publisher) = spread(&[]);
    let peers = [world.join_on(0, Side::Subscriber), world.join_on(1, Side::Subscriber)];
    let ssrcs =
        peers.map(|peer| (subscribe(&mut world, peer, 10_000, AUDIO), subscribe(&mut world, peer, 10_000, VIDEO)));
    let (mut camera, mut microphone) = (Camera::new(10_000, 0), Microphone::new(10_000));
    for frame in 0..60 {
        let packet = microphone.packet(&mut world);
        world.send_rtp(publisher, &packet);
        camera.send(&mut world, publisher, frame == 0, 8);
        if frame % 5 == 0 {
            let padding = camera.padding(&mut world);
            world.send_rtp(publisher, &padding);
        }
    }
    let [here, there] = [0, 1].map(|at| {
        let (audio, video) = (world.peers[peers[at]].rtp_of(ssrcs[at].0), world.peers[peers[at]].rtp_of(ssrcs[at].1));
        assert_gapless(&audio);
        assert_gapless(&video);
        assert_steady(&video);
        audio.into_iter().chain(video).map(|heard| (heard.at, serial(heard))).collect::<Vec<_>>()
    });
    assert_eq!(here.len(), 60 + 480);
    assert_eq!(here, there);
    assert_eq!(requests(&world, publisher), 0, "both began with the keyframe that came by itself");
}

#[test]
fn a_wish_for_a_keyframe_is_never_lost_on_the_way_back() {
    let (mut world, publisher) = spread(&[]);
    let mut camera = Camera::new(10_000, 0);
    for frame in 0..30 {
        camera.send(&mut world, publisher, frame == 0, 2);
    }
    for wait_ms in [1, 10, 20, 40, 80, 160] {
        // The second joins a little after the keyframe that the first had asked for.
        let first = world.join_on(1, Side::Subscriber);
        subscribe(&mut world, first, 10_000, VIDEO);
        world.run_ms(1);
        for packet in camera.frame(&mut world, true, 2) {
            world.send_rtp(publisher, &packet);
        }
        world.run_ms(wait_ms);
        let asked = requests(&world, publisher);
        let second = world.join_on(1, Side::Subscriber);
        let ssrc = subscribe(&mut world, second, 10_000, VIDEO);
        for _ in 0..20 {
            camera.send(&mut world, publisher, false, 2);
        }
        assert!(requests(&world, publisher) > asked, "{wait_ms} ms after the keyframe");
        camera.send(&mut world, publisher, true, 2);
        assert_eq!(world.peers[second].rtp_of(ssrc).len(), 2);
    }
}

#[test]
fn the_other_worker_switches_layers_and_resends_by_itself() {
    let (mut world, publisher) = spread(&["q", "h", "f"]);
    let peer = world.join_on(1, Side::Subscriber);
    let ssrc = subscribe(&mut world, peer, 10_000, VIDEO);
    adjust(&mut world, peer, 10_000, VIDEO, false, 0, 3);
    let mut cameras: Vec<Camera> =
        ["q", "h", "f"].iter().enumerate().map(|(layer, rid)| Camera::with_rid(10_000, layer, rid)).collect();
    let mut answered = 0;
    for frame in 0..90 {
        if frame == 30 {
            adjust(&mut world, peer, 10_000, VIDEO, false, 2, 3);
        }
        // The publisher answers a request with its next frame.
        let keyframe = frame == 0 || requests(&world, publisher) > answered;
        answered = requests(&world, publisher);
        for camera in &mut cameras {
            for packet in camera.frame(&mut world, keyframe, 3) {
                world.send_rtp(publisher, &packet);
            }
        }
        world.run_ms(33);
    }
    let heard = world.peers[peer].rtp_of(ssrc);
    assert_eq!(heard.len(), 273, "the frame of the switch comes in both layers");
    assert_gapless(&heard);
    assert_steady(&heard);
    assert_eq!(serial(heard[272]) % 1_000_000_000 / 100_000_000, 2);
    assert_eq!(answered, 1);
    let packet_id = heard[260].packet.header.sequence_number;
    let nack = NackPair { packet_id, lost_packets: 0 };
    world.send_rtcp(peer, &TransportLayerNack { sender_ssrc: 1, media_ssrc: ssrc, nacks: vec![nack] });
    world.settle();
    let again = world.peers[peer].rtp_of(ssrc + 1);
    assert_eq!((again.len(), &again[0].packet.payload[..2]), (1, &packet_id.to_be_bytes()[..]));
}

#[test]
fn sender_reports_reach_the_other_worker() {
    let (mut world, publisher) = spread(&[]);
    let peer = world.join_on(1, Side::Subscriber);
    let ssrc = subscribe(&mut world, peer, 10_000, VIDEO);
    let mut camera = Camera::new(10_000, 0);
    for frame in 0..90 {
        camera.send(&mut world, publisher, frame == 0, 1);
        if frame == 10 {
            let report = SenderReport {
                ssrc: camera.ssrc,
                ntp_time: 77 << 32,
                rtp_time: camera.timestamp,
                ..Default::default()
            };
            world.send_rtcp(publisher, &report);
        }
    }
    let reports = world.peers[peer].rtcp_of::<SenderReport>();
    assert!(reports.len() >= 2 && reports.iter().all(|(_, report)| report.ssrc == ssrc));
}

#[test]
fn an_unmirrored_track_is_sent_over_no_more() {
    let (mut world, publisher) = spread(&[]);
    let peer = world.join_on(1, Side::Subscriber);
    let ssrc = subscribe(&mut world, peer, 10_000, VIDEO);
    let mut camera = Camera::new(10_000, 0);
    camera.send(&mut world, publisher, true, 2);
    let track = ringmain_shared::id::TrackId(10_000 + VIDEO);
    world.order(0, WorkerCommand::UnmirrorTo { track, to: WorkerIndex(1) });
    world.order(1, WorkerCommand::Unmirror { track });
    camera.send(&mut world, publisher, true, 2);
    assert_eq!(world.peers[peer].rtp_of(ssrc).len(), 2);
    world.command(1, Command::Snapshot { request: 1 });
    world.settle();
    let flows = world.events.iter().find_map(|event| match event {
        ringmain_shared::Event::Snapshot { flows, .. } => Some(flows),
        _ => None,
    });
    assert!(flows.expect("an answer")[0].subscriptions.is_empty());
}
