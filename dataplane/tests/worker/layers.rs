//! Simulcast and temporal layers: switches happen at keyframes only, and numbers run on through them.

use ringmain_shared::event::Event;
use ringmain_shared::transport::Side;
use rtcp::sender_report::SenderReport;

use crate::forwarding::assert_steady;
use crate::media::*;
use crate::world::{Heard, World};

const RIDS: [&str; 3] = ["q", "h", "f"];

struct Simulcast {
    world: World,
    publisher: usize,
    peer: usize,
    ssrc: u32,
    cameras: Vec<Camera>,
}

impl Simulcast {
    fn new(spatial_max: u8) -> Self {
        let mut world = World::new(1);
        let publisher = world.join(Side::Publisher);
        world.receive(publisher, receive_spec(10_000, &RIDS));
        let peer = world.join(Side::Subscriber);
        let ssrc = subscribe(&mut world, peer, 10_000, VIDEO);
        adjust(&mut world, peer, 10_000, VIDEO, false, spatial_max, 3);
        let cameras = RIDS.iter().enumerate().map(|(layer, rid)| Camera::with_rid(10_000, layer, rid)).collect();
        Self { world, publisher, peer, ssrc, cameras }
    }

    /// A frame of each layer; `keyframe` says which layer's is a keyframe.
    fn frame(&mut self, keyframe: impl Fn(usize) -> bool) {
        self.frame_of(0..3, keyframe);
    }

    fn frame_of(&mut self, layers: std::ops::Range<usize>, keyframe: impl Fn(usize) -> bool) {
        for layer in layers {
            for packet in self.cameras[layer].frame(&mut self.world, keyframe(layer), 2 + layer) {
                self.world.send_rtp(self.publisher, &packet);
            }
        }
        self.world.run_ms(33);
    }

    fn report(&mut self, layer: usize, ahead_ticks: u32) {
        let camera = &self.cameras[layer];
        // All layers show the same moment; each clock began elsewhere.
        let ntp_time = (self.world.now.as_millis() << 32) / 1_000 + (77 << 32);
        let rtp_time = camera.timestamp.wrapping_add(ahead_ticks);
        let report = SenderReport { ssrc: camera.ssrc, ntp_time, rtp_time, ..SenderReport::default() };
        self.world.send_rtcp(self.publisher, &report);
    }

    fn heard(&self) -> Vec<&Heard> {
        self.world.peers[self.peer].rtp_of(self.ssrc)
    }

    /// Which layer each packet came from, without repetitions.
    fn layers(&self) -> Vec<u64> {
        let mut layers: Vec<u64> =
            self.heard().iter().map(|heard| serial(heard) % 1_000_000_000 / 100_000_000).collect();
        layers.dedup();
        layers
    }

    fn pictures(&self) -> Vec<u16> {
        let id = |heard: &&Heard| u16::from_be_bytes([heard.packet.payload[2], heard.packet.payload[3]]) & 0x7fff;
        let mut pictures: Vec<u16> = self.heard().iter().map(id).collect();
        pictures.dedup();
        pictures
    }
}

#[test]
fn switches_up_and_down_complete_with_a_keyframe_and_numbers_run_on() {
    for with_reports in [false, true] {
        let mut story = Simulcast::new(0);
        let report_all = |story: &mut Simulcast| {
            if with_reports {
                (0..3).for_each(|layer| story.report(layer, 3_000));
            }
        };
        (0..10).for_each(|frame| story.frame(|_| frame == 0));
        report_all(&mut story);
        assert_eq!(story.layers(), [0]);
        // Up: nothing changes before the keyframe of the wanted layer.
        adjust(&mut story.world, story.peer, 10_000, VIDEO, false, 2, 3);
        (0..5).for_each(|_| story.frame(|layer| layer == 1));
        assert_eq!(story.layers(), [0], "a keyframe of another layer is none");
        story.frame(|layer| layer == 2);
        assert_eq!(story.layers(), [0, 2]);
        (0..10).for_each(|_| story.frame(|_| false));
        report_all(&mut story);
        // Down.
        adjust(&mut story.world, story.peer, 10_000, VIDEO, false, 1, 3);
        (0..5).for_each(|_| story.frame(|_| false));
        story.frame(|layer| layer == 1);
        (0..10).for_each(|_| story.frame(|_| false));
        assert_eq!(story.layers(), [0, 2, 1]);
        let heard = story.heard();
        assert_gapless(&heard);
        assert_steady(&heard);
        if with_reports {
            // With the sender reports of both layers the timestamps are those of one clock, to a tick or so.
            let first = heard[0];
            for heard in &heard {
                let ticks = heard.packet.header.timestamp.wrapping_sub(first.packet.header.timestamp);
                let off = ticks % 3_000;
                assert!(off <= 2 || off >= 2_998, "{ticks}");
            }
        }
        let pictures = story.pictures();
        assert!(pictures.windows(2).all(|pair| pair[1] == (pair[0] + 1) & 0x7fff), "{pictures:?}");
        let told: Vec<u8> = story
            .world
            .events
            .iter()
            .filter_map(|event| match event {
                Event::LayerForwarded { spatial, .. } => Some(*spatial),
                _ => None,
            })
            .collect();
        assert_eq!(told, [0, 2, 1]);
    }
}

#[test]
fn a_layer_that_dies_is_replaced_and_comes_back() {
    let mut story = Simulcast::new(2);
    (0..10).for_each(|frame| story.frame(|_| frame == 0));
    let at_once = story.layers();
    assert_eq!(at_once.last(), Some(&2));
    // The best layer stops without a word.
    for frame in 0..90 {
        story.frame_of(0..2, |_| frame % 30 == 29);
    }
    assert_eq!(story.layers().last(), Some(&1));
    (0..10).for_each(|frame| story.frame(|_| frame == 5));
    assert_eq!(story.layers().last(), Some(&2));
    assert_gapless(&story.heard());
    assert_steady(&story.heard());
}

#[test]
fn what_no_layer_of_a_subscriber_wants_is_not_asked_for() {
    let mut story = Simulcast::new(0);
    (0..60).for_each(|frame| story.frame(|_| frame == 0));
    let pli = crate::forwarding::requests(&story.world, story.publisher);
    assert_eq!(pli, 0, "every layer began with its keyframe");
}

#[test]
fn higher_temporal_layers_are_left_out_without_a_gap() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    world.receive(publisher, receive_spec(10_000, &[]));
    let peer = world.join(Side::Subscriber);
    let ssrc = subscribe(&mut world, peer, 10_000, VIDEO);
    let mut camera = Camera::new(10_000, 0);
    for frame in 0..120 {
        match frame {
            40 => adjust(&mut world, peer, 10_000, VIDEO, false, 2, 0),
            80 => adjust(&mut world, peer, 10_000, VIDEO, false, 2, 2),
            _ => {}
        }
        let temporal = [0, 2, 1, 2][frame % 4];
        for packet in camera.layered_frame(&mut world, frame == 0, 2, temporal) {
            world.send_rtp(publisher, &packet);
        }
        world.run_ms(33);
    }
    let heard = world.peers[peer].rtp_of(ssrc);
    assert_eq!(heard.len(), 2 * (40 + 10 + 40), "all, then one in four, then all");
    assert_gapless(&heard);
    assert_steady_but_for_steps(&heard);
    let mut pictures: Vec<u16> =
        heard.iter().map(|heard| u16::from_be_bytes([heard.packet.payload[2], heard.packet.payload[3]])).collect();
    pictures.dedup();
    assert!(pictures.windows(2).all(|pair| pair[1] & 0x7fff == (pair[0] + 1) & 0x7fff), "{pictures:?}");
}

/// Timestamps move in whole frames.
fn assert_steady_but_for_steps(heard: &[&Heard]) {
    for pair in heard.windows(2) {
        let ticks = pair[1].packet.header.timestamp.wrapping_sub(pair[0].packet.header.timestamp);
        assert!(ticks % 3_000 == 0 && ticks <= 4 * 3_000, "{ticks}");
    }
}
