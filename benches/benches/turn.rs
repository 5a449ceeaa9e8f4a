//! One turn of a worker over a link without a kernel: what our own code costs per forwarded packet, beside the cipher alone.
//!
//! Each iteration is one video frame of 8 datagrams of 1100 bytes from each publisher, and the turn that forwards them.
//! `seal` is the bare AES-128-GCM of as many bytes in the same run. Allocations are counted after warm-up and must be none.

#![allow(missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmain_benches::{Camera, address, answer, check, open, publish, secure, subscribe, worker};
use ringmain_dataplane::io::Link;
use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::worker::Worker;
use ringmain_shared::Now;
use ringmain_shared::transport::Side;

const PACKETS: usize = 8;
const SIZE: usize = 1100;
const FRAME: Duration = Duration::from_millis(33);

struct Room {
    worker: Worker,
    link: MemoryLink,
    cameras: Vec<(u64, Camera)>,
    frame: Vec<u8>,
    now: Now,
}

impl Room {
    /// Everybody who publishes is heard by all others.
    fn new(publishers: u64, peers: u64) -> Self {
        let (mut worker, mut link, now) = (worker(), MemoryLink::new(), Now::from_millis(1_000));
        for peer in 0..peers {
            open(&mut worker, peer, if peer < publishers { Side::Publisher } else { Side::Subscriber }, now);
            link.push(address(peer), &check(peer));
            for _ in 0..2 {
                turn(&mut worker, &mut link, now);
                for (path, bytes) in link.take() {
                    if let Some(answer) = answer(peer, &bytes) {
                        link.push(path, &answer);
                    }
                }
            }
            secure(&mut worker, peer, link.parts().1);
        }
        (0..publishers).for_each(|publisher| publish(&mut worker, publisher, now));
        for peer in 0..peers {
            for publisher in (0..publishers).filter(|&publisher| publisher != peer) {
                subscribe(&mut worker, peer, publisher, now);
            }
        }
        // A link that counts what it sends and keeps nothing.
        let cameras = (0..publishers).map(|publisher| (publisher, Camera::new(publisher))).collect();
        let mut room = Self { worker, link: MemoryLink::counting(), cameras, frame: Vec::new(), now };
        (0..100).for_each(|_| room.frames());
        room
    }

    fn push(&mut self) {
        for (peer, camera) in &mut self.cameras {
            camera.frame(PACKETS, SIZE, &mut self.frame);
            self.frame.chunks_exact(SIZE).for_each(|packet| self.link.push(address(*peer), packet));
        }
        // Consent is not renewed here, so time goes slowly.
        self.now = self.now + FRAME / 1_000;
    }

    fn frames(&mut self) {
        self.push();
        self.turn();
    }

    fn turn(&mut self) {
        turn(&mut self.worker, &mut self.link, self.now);
    }
}

fn turn(worker: &mut Worker, link: &mut MemoryLink, now: Now) {
    link.receive(None).expect("works");
    let (rx, out) = link.parts();
    worker.turn(now, rx, out);
    out.flush();
    worker.outbox().events.clear();
    worker.outbox().handshakes.clear();
}

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
        let mut room = Room::new(publishers, peers);
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
                    let began = std::time::Instant::now();
                    room.turn();
                    spent += began.elapsed();
                }
                spent.mul_f64(iterations as f64 / (turns * forwarded) as f64)
            })
        });
    }
    group.finish();
}

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts what this thread allocates.
struct Counting;

// SAFETY: all calls go to the system's allocator as they come.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

criterion_group!(benches, bench);
criterion_main!(benches);
