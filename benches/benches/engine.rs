//! A worker on real sockets over loopback: one publisher, frames of 8 packets of 1100 bytes, 100 subscribers, one core.
//!
//! Prints the CPU time of the worker's thread per forwarded packet, beside the floor in the same run: the same trains to the same
//! sockets, sealed with AES-128-GCM and sent by the same link, with no server in between. Both take turns, so that what else
//! runs on the machine hurts both. Receivers are drained by a thread on another core. `--test` runs a few frames of each.

#![allow(missing_docs)]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ringmain_benches::{Camera, answer, check, open as open_transport, publish, secure, subscribe, worker};
use ringmain_dataplane::io::{Link, LinkChoice, Path, SocketIndex, open, socket};
use ringmain_dataplane::worker::Worker;
use ringmain_shared::Now;
use ringmain_shared::transport::Side;

const SUBSCRIBERS: usize = 100;
const PACKETS: usize = 8;
const SIZE: usize = 1100;
const FORWARDED: usize = SUBSCRIBERS * PACKETS;
const HEADER: usize = 24;
const TAG: usize = 16;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--test" || argument == "--quick");
    let (rounds, frames) = if std::env::args().any(|argument| argument == "--test") {
        (1, 5)
    } else if quick {
        (20, 50)
    } else {
        (100, 50)
    };
    pin(0);
    for choice in [LinkChoice::IoUring, LinkChoice::Mmsg] {
        let peers: Vec<UdpSocket> =
            (0..=SUBSCRIBERS).map(|_| UdpSocket::bind("127.0.0.1:0").expect("loopback")).collect();
        let mut engine = Engine::new(choice, &peers);
        let mut floor = Floor::new(choice, &peers);
        let done = Arc::new(AtomicBool::new(false));
        let sinks: Vec<UdpSocket> = peers.iter().map(|peer| peer.try_clone().expect("a descriptor")).collect();
        let drain = std::thread::spawn({
            let done = done.clone();
            move || drain(&sinks, &done)
        });
        (0..10).for_each(|_| drop((engine.frame(), floor.frame())));
        let (mut ratios, mut ours, mut bare) = (Vec::new(), Duration::ZERO, Duration::ZERO);
        for _ in 0..rounds {
            let of_engine: Duration = (0..frames).map(|_| engine.frame()).sum();
            let of_floor: Duration = (0..frames).map(|_| floor.frame()).sum();
            ratios.push(of_engine.as_nanos() as f64 / of_floor.as_nanos() as f64);
            ours += of_engine;
            bare += of_floor;
        }
        done.store(true, Ordering::Relaxed);
        drain.join().expect("drained");
        ratios.sort_by(f64::total_cmp);
        let packets = (rounds * frames * FORWARDED) as f64;
        let counters = engine.link.counters();
        println!(
            "engine/{}: {:.0} ns CPU per forwarded packet, floor {:.0} ns, ratio {:.2} (median of rounds), trains of {:.1}",
            engine.link.name(),
            ours.as_nanos() as f64 / packets,
            bare.as_nanos() as f64 / packets,
            ratios[ratios.len() / 2],
            counters.sent as f64 / counters.trains as f64,
        );
        let expected = (rounds * frames + 10) as u64 * FORWARDED as u64;
        let stats = engine.worker.stats(&counters);
        assert_eq!(stats.rtp_forwarded, expected, "every packet was forwarded to everybody");
        assert_eq!(counters.send_failed, 0, "the kernel took everything");
    }
}

struct Engine {
    worker: Worker,
    link: Box<dyn Link>,
    camera: Camera,
    publisher: UdpSocket,
    server: SocketAddr,
    frame: Vec<u8>,
    start: Instant,
}

impl Engine {
    fn new(choice: LinkChoice, peers: &[UdpSocket]) -> Self {
        let socket = socket::bind("127.0.0.1:0".parse().expect("an address")).expect("loopback");
        let server = socket.local_addr().expect("bound");
        let (mut worker, mut link) = (worker(), open(choice, vec![socket]).expect("a link").link);
        let start = Instant::now() - Duration::from_secs(1);
        for (number, peer) in (0..).zip(peers) {
            let side = if number == 0 { Side::Publisher } else { Side::Subscriber };
            peer.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
            open_transport(&mut worker, number, side, now(start));
            peer.send_to(&check(number), server).expect("loopback");
            let mut proved = false;
            while !proved {
                turn(&mut worker, &mut *link, start);
                let mut datagram = [0; 1500];
                let Ok(size) = peer.recv(&mut datagram) else { continue };
                if let Some(answer) = answer(number, &datagram[..size]) {
                    peer.send_to(&answer, server).expect("loopback");
                    turn(&mut worker, &mut *link, start);
                    proved = true;
                }
            }
            secure(&mut worker, number, now(start), link.parts().1);
        }
        publish(&mut worker, 0, now(start));
        (1..peers.len() as u64).for_each(|peer| subscribe(&mut worker, peer, 0, now(start)));
        let publisher = peers[0].try_clone().expect("a descriptor");
        Self { worker, link, camera: Camera::new(0), publisher, server, frame: Vec::new(), start }
    }

    /// Forwards one frame. The CPU time that the worker took for it.
    fn frame(&mut self) -> Duration {
        self.camera.frame(PACKETS, SIZE, &mut self.frame);
        for packet in self.frame.chunks_exact(SIZE) {
            self.publisher.send_to(packet, self.server).expect("loopback");
        }
        let began = cpu_time();
        turn(&mut self.worker, &mut *self.link, self.start);
        cpu_time() - began
    }
}

fn turn(worker: &mut Worker, link: &mut dyn Link, start: Instant) {
    link.receive(Some(Duration::from_millis(1))).expect("works");
    let (rx, out) = link.parts();
    worker.turn(now(start), rx, out);
    out.flush();
    worker.outbox().events.clear();
    worker.outbox().handshakes.clear();
}

struct Floor {
    link: Box<dyn Link>,
    remotes: Vec<SocketAddr>,
    key: LessSafeKey,
    number: u64,
}

impl Floor {
    fn new(choice: LinkChoice, peers: &[UdpSocket]) -> Self {
        let socket = socket::bind("127.0.0.1:0".parse().expect("an address")).expect("loopback");
        Self {
            link: open(choice, vec![socket]).expect("a link").link,
            remotes: peers[1..].iter().map(|peer| peer.local_addr().expect("bound")).collect(),
            key: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("16 bytes")),
            number: 0,
        }
    }

    fn frame(&mut self) -> Duration {
        let began = cpu_time();
        self.link.receive(Some(Duration::ZERO)).expect("works");
        let (_, out) = self.link.parts();
        for &remote in &self.remotes {
            let path = Path { socket: SocketIndex(0), remote };
            for _ in 0..PACKETS {
                if !out.batch().has_room(SIZE) {
                    out.flush();
                }
                let mut slot = out.batch().reserve(path, SIZE).expect("a flushed batch has room");
                self.number += 1;
                let mut nonce = [0; 12];
                nonce[4..].copy_from_slice(&self.number.to_be_bytes());
                let (header, rest) = slot.bytes_mut().split_at_mut(HEADER);
                let (payload, tag) = rest.split_at_mut(SIZE - HEADER - TAG);
                let nonce = Nonce::assume_unique_for_key(nonce);
                let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload).expect("short");
                tag.copy_from_slice(sealed.as_ref());
                slot.commit(SIZE);
            }
        }
        out.flush();
        cpu_time() - began
    }
}

/// Takes in whatever comes, until told to stop.
fn drain(sinks: &[UdpSocket], done: &AtomicBool) {
    pin(1);
    sinks.iter().for_each(|sink| sink.set_nonblocking(true).expect("a socket"));
    let mut buffer = [0; 2048];
    while !done.load(Ordering::Relaxed) {
        for sink in sinks {
            while sink.recv(&mut buffer).is_ok() {}
        }
    }
}

fn now(start: Instant) -> Now {
    Now(start.elapsed().as_nanos() as u64)
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call, which writes nothing else.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "this clock exists");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Stays on one core, where there are several.
fn pin(core: usize) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // SAFETY: all zeros is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the core is one of this machine's, so inside the set.
    unsafe { libc::CPU_SET(core % cores, &mut set) };
    // SAFETY: the set outlives the call; zero is this thread.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
}
