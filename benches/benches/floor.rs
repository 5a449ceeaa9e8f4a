//! The floor under a forwarded packet: what the cipher and the kernel cost by themselves, with no server in between.
//!
//! Each iteration is one turn: 48 datagrams of 1100 bytes in trains, to as many destinations as there are trains. The sink is a bound
//! socket that nobody reads, whose receive buffer is soon full: the sender's CPU pays for the route and the delivery, not for a reader.
//! `seal` is AES-128-GCM alone; `seal+send` is both, as a forwarder does them: seal straight into the transmit arena, then flush.

#![allow(missing_docs)]

use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmain_dataplane::io::{Link, LinkChoice, Path, SocketIndex, open, socket};

const DATAGRAMS: usize = 48;
const SIZE: usize = 1100;
const TAG: usize = 16;
const HEADER: usize = 12;

fn floor(c: &mut Criterion) {
    let mut group = c.benchmark_group("floor");
    group.throughput(Throughput::Elements(DATAGRAMS as u64)).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2)).sample_size(30);

    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("16 bytes"));
    let mut bytes = vec![0; SIZE];
    group.bench_function("seal", |b| {
        b.iter(|| (0..DATAGRAMS).for_each(|number| seal(&key, number as u64, black_box(&mut bytes))))
    });

    let sinks: Vec<UdpSocket> = (0..DATAGRAMS).map(|_| UdpSocket::bind("127.0.0.1:0").expect("loopback")).collect();
    let remotes: Vec<SocketAddr> = sinks.iter().map(|sink| sink.local_addr().expect("bound")).collect();
    for choice in [LinkChoice::IoUring, LinkChoice::Mmsg] {
        for train in [1, 3, 8, 16] {
            for sealed in [false, true] {
                let socket = socket::bind("127.0.0.1:0".parse().expect("an address")).expect("loopback");
                let mut link = open(choice, vec![socket]).expect("a link").link;
                let what = if sealed { "seal+send" } else { "send" };
                let id = BenchmarkId::new(format!("{what}/{}", link.name()), format!("train{train}"));
                let key = sealed.then_some(&key);
                group.bench_function(id, |b| b.iter(|| turn(&mut *link, &remotes, train, key)));
                let counters = link.counters();
                assert_eq!(counters.send_failed + counters.gso_fallbacks, 0, "the kernel took every train");
                assert_eq!(counters.sent, counters.trains * train as u64, "trains are as long as they should be");
            }
        }
    }
    group.finish();
}

fn turn(link: &mut dyn Link, remotes: &[SocketAddr], train: usize, key: Option<&LessSafeKey>) {
    let (_, out) = link.parts();
    for (index, &remote) in remotes.iter().enumerate().take(DATAGRAMS / train) {
        let path = Path { socket: SocketIndex(0), remote };
        for number in 0..train {
            let mut slot = out.batch().reserve(path, SIZE).expect("a turn fits an arena");
            if let Some(key) = key {
                seal(key, (index * train + number) as u64, slot.bytes_mut());
            }
            slot.commit(SIZE);
        }
    }
    out.flush();
    link.receive(Some(Duration::ZERO)).expect("works");
}

/// As SRTP does it (RFC 7714): the header is authenticated, the rest encrypted in place, the tag behind it.
fn seal(key: &LessSafeKey, number: u64, bytes: &mut [u8]) {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    let (header, rest) = bytes.split_at_mut(HEADER);
    let (payload, tag) = rest.split_at_mut(SIZE - HEADER - TAG);
    let sealed = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&*header), payload)
        .expect("far below the cipher's bound");
    tag.copy_from_slice(sealed.as_ref());
}

criterion_group!(benches, floor);
criterion_main!(benches);
