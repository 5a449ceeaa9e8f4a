//! Sender reports towards subscribers: what was in sync at the publisher stays so.

use std::time::Duration;

use ringmain_shared::Now;
use ringmain_shared::event::Event;
use ringmain_shared::id::TrackId;
use ringmain_shared::transport::Side;
use rtcp::sender_report::SenderReport;
use rtcp::source_description::SourceDescription;

use crate::media::*;
use crate::world::{UNIX_NANOS_AT_START, World};

/// The publisher's wall clock is years off, and not a whole number of seconds.
const THEIRS: u64 = 0x1234_5678_9abc_def0;

/// NTP time at the publisher, microseconds after the beginning.
fn theirs(micros: u64) -> u64 {
    THEIRS + ((u128::from(micros) << 32) / 1_000_000) as u64
}

#[test]
fn audio_and_video_of_a_publisher_stay_in_sync_within_five_milliseconds() {
    for way_ms in [0..1, 5..60] {
        let mut world = World::new(1);
        let publisher = world.join(Side::Publisher);
        world.receive(publisher, receive_spec(10_000, &[]));
        let peer = world.join(Side::Subscriber);
        let ssrcs = [AUDIO, VIDEO].map(|kind| subscribe(&mut world, peer, 10_000, kind));
        let (mut camera, mut microphone) = (Camera::new(10_000, 0), Microphone::new(10_000));
        let began = world.now;
        // (when it arrives, stream, wall clock at the publisher, media clock)
        let mut under_way: Vec<(Now, SenderReport)> = Vec::new();
        for step in 0..1_000u64 {
            let micros = world.now.since(began).as_micros() as u64;
            if step % 3 == 0 {
                // The camera's clock is where it should be at this moment: 90 kHz from some beginning.
                camera.timestamp = 0x7700_0000 + (micros * 9 / 100) as u32 - 3_000;
                for packet in camera.frame(&mut world, step == 0, 2) {
                    world.send_rtp(publisher, &packet);
                }
            }
            microphone.timestamp = 0xffff_f000u32.wrapping_add((micros * 48 / 1_000) as u32).wrapping_sub(960);
            let packet = microphone.packet(&mut world);
            world.send_rtp(publisher, &packet);
            // Reports of the two streams come at different times, each after another time on the way.
            let way = Duration::from_millis(way_ms.start + world.chance() % (way_ms.end - way_ms.start));
            let report =
                |ssrc, rtp_time| SenderReport { ssrc, ntp_time: theirs(micros), rtp_time, ..Default::default() };
            match step % 100 {
                20 => under_way.push((world.now + way, report(camera.ssrc, 0x7700_0000 + (micros * 9 / 100) as u32))),
                70 => {
                    let rtp_time = 0xffff_f000u32.wrapping_add((micros * 48 / 1_000) as u32);
                    under_way.push((world.now + way, report(microphone.ssrc, rtp_time)));
                }
                _ => {}
            }
            for (_, report) in under_way.extract_if(.., |(at, _)| *at <= world.now).collect::<Vec<_>>() {
                world.send_rtcp(publisher, &report);
            }
            world.run_ms(10);
        }
        // A player maps each stream's timestamps to wall-clock time by the latest report of each, as in RFC 3550 §6.4.1. The
        // same moment at the publisher must be the same wall-clock time in both.
        let mut latest = [None, None];
        let mut compared = 0;
        for (at, report) in world.peers[peer].rtcp_of::<SenderReport>() {
            let stream = ssrcs.iter().position(|&ssrc| ssrc == report.ssrc).expect("one of them");
            latest[stream] = Some(report);
            let ours = (u128::from(UNIX_NANOS_AT_START + at.0) << 32) / 1_000_000_000 + (2_208_988_800u128 << 32);
            assert!(report.ntp_time.abs_diff(ours as u64) < 1 << 12, "our wall clock");
            let [Some(audio), Some(video)] = latest else { continue };
            if audio.ntp_time != video.ntp_time {
                continue; // the other one is behind it in the same datagram
            }
            let shift = |ssrc: u32, inbound: fn(u64) -> u32| {
                // What the subscriber's numbering adds to the publisher's, from the first packet.
                let first = world.peers[peer].rtp_of(ssrc)[0];
                first.packet.header.timestamp.wrapping_sub(inbound(first.at.since(began).as_micros() as u64))
            };
            let video_shift = shift(ssrcs[1], |micros| 0x7700_0000 + (micros * 9 / 100) as u32);
            let audio_shift = shift(ssrcs[0], |micros| 0xffff_f000u32.wrapping_add((micros * 48 / 1_000) as u32));
            // The wall-clock time that a player gives to the publisher's beginning, by each stream.
            let origin = |report: &SenderReport, clock_rate: u64, at_beginning: u32| {
                let ticks = u64::from(report.rtp_time.wrapping_sub(at_beginning));
                report.ntp_time.wrapping_sub((u128::from(ticks) << 32).div_euclid(u128::from(clock_rate)) as u64)
            };
            let by_video = origin(video, 90_000, video_shift.wrapping_add(0x7700_0000));
            let by_audio = origin(audio, 48_000, audio_shift.wrapping_add(0xffff_f000));
            let apart_ms = by_video.abs_diff(by_audio) as f64 / (1u64 << 32) as f64 * 1_000.0;
            assert!(apart_ms < 5.0, "{apart_ms} ms apart at {at:?}");
            compared += 1;
        }
        assert!(compared >= 8, "{compared}");
        let descriptions = world.peers[peer].rtcp_of::<SourceDescription>();
        assert!(descriptions.iter().all(|(_, description)| description.chunks[0].items[0].text == "publisher10000"));
    }
}

#[test]
fn reports_count_what_was_sent() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    world.receive(publisher, receive_spec(10_000, &[]));
    let peer = world.join(Side::Subscriber);
    let ssrc = subscribe(&mut world, peer, 10_000, VIDEO);
    let mut camera = Camera::new(10_000, 0);
    for frame in 0..90 {
        camera.send(&mut world, publisher, frame == 0, 3);
        if frame % 10 == 3 {
            let ntp_time = theirs(world.now.as_micros());
            let report = SenderReport { ssrc: camera.ssrc, ntp_time, rtp_time: camera.timestamp, ..Default::default() };
            world.send_rtcp(publisher, &report);
        }
    }
    let reports = world.peers[peer].rtcp_of::<SenderReport>();
    assert!((2..=4).contains(&reports.len()));
    for (at, report) in reports {
        let before: Vec<_> = world.peers[peer].rtp_of(ssrc).into_iter().filter(|heard| heard.at <= at).collect();
        assert_eq!(report.ssrc, ssrc);
        let octets: usize = before.iter().map(|heard| heard.packet.payload.len()).sum();
        let (packets, sent) = (before.len() as u32, octets as u32);
        assert!(report.packet_count == packets && report.octet_count == sent, "{report:?}: {packets} {sent}");
    }
}

#[test]
fn who_speaks_is_told_once_an_interval() {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    world.receive(publisher, receive_spec(10_000, &[]));
    let mut microphone = Microphone::new(10_000);
    for _ in 0..500 {
        let packet = microphone.packet(&mut world);
        world.send_rtp(publisher, &packet);
        world.run_ms(20);
    }
    world.run_ms(3_000);
    let told: Vec<_> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::AudioActivity { levels, .. } => Some(levels),
            _ => None,
        })
        .collect();
    assert!((11..=13).contains(&told.len()), "{}", told.len());
    assert!(told.iter().flat_map(|levels| levels.iter()).all(|level| level.track == TrackId(10_000 + AUDIO)));
    let heard: u32 = told.iter().flat_map(|levels| levels.iter()).map(|level| level.count).sum();
    assert_eq!(heard, 500);
    assert!(told.last().expect("some").is_empty(), "silence is told once");
}
