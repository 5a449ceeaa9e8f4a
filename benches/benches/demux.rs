//! The first look at a datagram: which protocol it is, what its header says, and a header written anew.

#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringmain_benches::{Camera, check};
use ringmain_dataplane::forward::header::{HEADER_SIZE_MAX, HeaderTemplate, HeaderValues};
use ringmain_dataplane::forward::packet::MediaPacket;
use ringmain_dataplane::packet::demux::classify;
use ringmain_dataplane::packet::rtcp::{Compound, CompoundWriter, ReportBlock};
use ringmain_dataplane::packet::rtp::RtpHeader;
use ringmain_dataplane::packet::stun::{IntegrityKey, Message};
use ringmain_shared::media::{Extension, ExtensionIds, Kind, Mid, PayloadType, Ssrc};

fn demux(c: &mut Criterion) {
    let mut group = c.benchmark_group("demux");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1)).sample_size(20);
    group.throughput(Throughput::Elements(1));

    let mut rtp = Vec::new();
    Camera::new(1, Kind::Video).frame(&[1100], &mut rtp);
    group.bench_function("rtp", |b| {
        b.iter(|| {
            let datagram = black_box(&rtp[..]);
            let header = RtpHeader::parse(datagram).expect("sound");
            (classify(datagram), header.ssrc, header.extensions(datagram).count())
        })
    });

    let mut rtcp = [0; 200];
    let block = ReportBlock {
        ssrc: Ssrc(1),
        fraction_lost: 0,
        cumulative_lost: 0,
        highest_sequence: 1,
        jitter: 0,
        last_sr: 0,
        delay_since_last_sr: 0,
    };
    let mut writer = CompoundWriter::new(&mut rtcp);
    writer.receiver_report(Ssrc(1), &[block; 2]).expect("room");
    writer.nack(Ssrc(1), Ssrc(2), &[1, 5, 40]).expect("room");
    let len = writer.len();
    let rtcp = &rtcp[..len];
    group.bench_function("rtcp", |b| {
        b.iter(|| {
            let datagram = black_box(rtcp);
            (classify(datagram), Compound::parse(datagram).expect("sound").filter(Result::is_ok).count())
        })
    });

    let stun = check(1);
    group.bench_function("stun", |b| {
        b.iter(|| {
            let datagram = black_box(&stun[..]);
            (classify(datagram), Message::parse(datagram).expect("sound").username().is_some())
        })
    });
    let wrong = IntegrityKey::new(b"another password");
    group.bench_function("stun/wrong integrity", |b| {
        b.iter(|| Message::parse(black_box(&stun)).expect("sound").verify_integrity(&wrong).is_err())
    });
    group.bench_function("unknown", |b| b.iter(|| classify(black_box(&[0xff; 100]))));

    let mut ids = ExtensionIds::default();
    for (extension, id) in [(Extension::TransportCc, 3), (Extension::Mid, 4), (Extension::AudioLevel, 1)] {
        ids.set(extension, id);
    }
    let template = HeaderTemplate::new(ids, Mid::from("0").expect("short"));
    let packet = MediaPacket::default();
    let mut out = [0; HEADER_SIZE_MAX];
    group.bench_function("header", |b| {
        b.iter(|| {
            let values = HeaderValues {
                marker: false,
                payload_type: PayloadType(96),
                sequence: black_box(1),
                timestamp: 2,
                ssrc: Ssrc(3),
                transport_sequence: 4,
                abs_send_time: [0; 3],
                descriptor: &[],
            };
            template.write(black_box(&mut out), &values, black_box(&packet))
        })
    });
    group.finish();
}

criterion_group!(benches, demux);
criterion_main!(benches);
