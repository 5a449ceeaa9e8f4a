//! One turn of a worker over a link without a kernel: what our own code costs per forwarded packet, beside the cipher alone.
//!
//! Each iteration is one video frame of 8 datagrams of 1100 bytes from each publisher, and the turn that forwards them.
//! `seal` is the bare AES-128-GCM of as many bytes in the same run. Allocations are counted after warm-up and must be none.

#![allow(missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmain_benches::counting::{Counting, allocations};
use ringmain_benches::room::{Room, VIDEO};
use ringmain_dataplane::io::Link;

const PACKETS: usize = VIDEO.sizes.len();
const SIZE: usize = VIDEO.sizes[0];

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("turn");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2)).sample_size(20);
    group.throughput(Throughput::Elements(1));
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("16 bytes"));
    let mut bytes = vec![0; SIZE - 16 - 24];
    group.bench_function("seal", |b| {
        b.iter(|| {
            let nonce = Nonce::assume_unique_for_key([1; 12]);
            black_box(key.seal_in_place_separate_tag(nonce, Aad::from([0; 24]), black_box(&mut bytes)).expect("short"))
        })
    });
    for (publishers, peers) in [(1, 3), (1, 51), (1, 501), (20, 20)] {
        let mut room = Room::new(publishers, peers, VIDEO);
        drop(room.last_sent());
        (0..100).for_each(|_| room.frames());
        let forwarded = publishers * (peers - 1) * PACKETS as u64;
        let before = (room.link.counters().sent, allocations());
        (0..20).for_each(|_| room.frames());
        let (sent, allocated) = (room.link.counters().sent - before.0, allocations() - before.1);
        assert!(sent >= 20 * forwarded, "{sent} datagrams for {forwarded} a frame");
        assert_eq!(allocated, 0, "a turn allocates nothing");
        // The time is that of the turn alone, per forwarded packet.
        group.bench_function(BenchmarkId::new("forward", format!("{publishers}x{}", peers - 1)), |b| {
            b.iter_custom(|iterations| {
                let turns = iterations.div_ceil(forwarded).max(1);
                let mut spent = Duration::ZERO;
                for _ in 0..turns {
                    room.push();
                    let began = Instant::now();
                    room.turn();
                    spent += began.elapsed();
                }
                spent.mul_f64(iterations as f64 / (turns * forwarded) as f64)
            })
        });
    }
    group.finish();
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

criterion_group!(benches, bench);
criterion_main!(benches);
