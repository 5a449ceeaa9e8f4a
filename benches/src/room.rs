//! A room on one worker over a memory link, everybody connected and secured, every publisher heard by all others.

use std::time::Duration;

use ringmain_dataplane::buf::TxBatch;
use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::io::{Diverted, Link, Path, Transmit, WakeHandle};
use ringmain_dataplane::worker::Worker;
use ringmain_shared::Now;
use ringmain_shared::media::Kind;
use ringmain_shared::transport::Side;

use crate::{Camera, address, answer, check, open, publish, secure, subscribe, worker};

/// What publishers send.
#[derive(Clone, Copy)]
pub struct Media {
    pub kind: Kind,
    /// Bytes of each datagram of a frame.
    pub sizes: &'static [usize],
    /// Between two frames.
    pub period: Duration,
}

/// Video as libwebrtc packs it: a frame's packets differ by a byte, the last ones being the larger.
pub const VIDEO: Media =
    Media { kind: Kind::Video, sizes: &[1100, 1100, 1100, 1100, 1100, 1101, 1101, 1101], period: millis(33) };
/// Video of a sender that paces its packets apart.
pub const SPACED: Media = Media { kind: Kind::Video, sizes: &[1100], period: Duration::from_micros(1_500) };
/// Opus: 50 packets a second.
pub const AUDIO: Media = Media { kind: Kind::Audio, sizes: &[100], period: millis(20) };

/// Publishers and subscribers of one worker.
pub struct Room {
    pub worker: Worker,
    pub link: MemoryLink,
    pub now: Now,
    pub media: Media,
    pub cameras: Vec<(Path, Camera)>,
    frame: Vec<u8>,
}

impl Room {
    /// Everybody who publishes is heard by all others.
    pub fn new(publishers: u64, peers: u64, media: Media) -> Self {
        let paths: Vec<Path> = (0..peers).map(address).collect();
        let mut room = Self::at(&paths, |peer| peer < publishers, |_, _| true, media);
        room.frames();
        room
    }

    /// A peer at each path: who publishes, and who (the first) hears which publisher. No frame has been sent yet.
    pub fn at(paths: &[Path], publishes: impl Fn(u64) -> bool, hears: impl Fn(u64, u64) -> bool, media: Media) -> Self {
        let (mut worker, mut link, now) = (worker(), MemoryLink::new(), Now::from_millis(1_000));
        for (peer, &path) in (0..).zip(paths) {
            open(&mut worker, peer, if publishes(peer) { Side::Publisher } else { Side::Subscriber }, now);
            link.push(path, &check(peer));
            for _ in 0..2 {
                turn(&mut worker, &mut link, now);
                for (path, bytes) in link.take() {
                    if let Some(answer) = answer(peer, &bytes) {
                        link.push(path, &answer);
                    }
                }
            }
            secure(&mut worker, peer, now, link.parts().1);
        }
        let publishers: Vec<u64> = (0..paths.len() as u64).filter(|&peer| publishes(peer)).collect();
        publishers.iter().for_each(|&publisher| publish(&mut worker, publisher, media.kind, now));
        for peer in 0..paths.len() as u64 {
            for &publisher in publishers.iter().filter(|&&publisher| publisher != peer && hears(peer, publisher)) {
                subscribe(&mut worker, peer, publisher, media.kind, now);
            }
        }
        let camera = |&peer: &u64| (paths[peer as usize], Camera::new(peer, media.kind));
        let cameras = publishers.iter().map(camera).collect();
        Self { worker, link, now, media, cameras, frame: Vec::new() }
    }

    /// Takes what the last turns sent. From now on it is only counted.
    pub fn last_sent(&mut self) -> Vec<(Path, Vec<u8>)> {
        std::mem::replace(&mut self.link, MemoryLink::counting()).take()
    }

    /// The next frame of each publisher, datagram by datagram.
    pub fn film(&mut self, mut carry: impl FnMut(&mut MemoryLink, Path, &[u8])) {
        for (path, camera) in &mut self.cameras {
            camera.frame(self.media.sizes, &mut self.frame);
            let mut rest = self.frame.as_slice();
            for &size in self.media.sizes {
                let (packet, after) = rest.split_at(size);
                carry(&mut self.link, *path, packet);
                rest = after;
            }
        }
    }

    /// The next frame of each publisher arrives.
    pub fn push(&mut self) {
        self.film(|link, path, packet| link.push(path, packet));
        // Consent is not renewed here, so time goes slowly.
        self.now = self.now + self.media.period / 1_000;
    }

    /// The next frame of each publisher arrives and is forwarded.
    pub fn frames(&mut self) {
        self.push();
        self.turn();
    }

    /// One turn.
    pub fn turn(&mut self) {
        turn(&mut self.worker, &mut self.link, self.now);
    }
}

/// One turn over a link, as the run loop does it.
pub fn turn(worker: &mut Worker, link: &mut dyn Link, now: Now) {
    link.receive(None).expect("works");
    let (rx, out) = link.parts();
    worker.turn(now, rx, out);
    out.end_turn();
    forget(worker);
}

/// Nobody waits for what the worker has to say to other threads.
pub fn forget(worker: &mut Worker) {
    worker.outbox().events.clear();
    worker.outbox().handshakes.clear();
}

/// A way out that keeps a copy of the connectivity checks that go there, since sinks do not answer them.
pub struct Tap<'a> {
    pub out: &'a mut dyn Transmit,
    pub checks: &'a mut Vec<(Path, Vec<u8>)>,
}

impl Tap<'_> {
    fn keep_checks(&mut self) {
        let batch = self.out.batch();
        for train in batch.trains() {
            let bytes = batch.bytes(train);
            // RFC 7983 §7: STUN.
            if bytes.first().is_some_and(|&first| first < 4) {
                self.checks.push((train.path, bytes.to_vec()));
            }
        }
    }
}

impl Transmit for Tap<'_> {
    fn batch(&mut self) -> &mut TxBatch {
        self.out.batch()
    }

    fn flush(&mut self) {
        self.keep_checks();
        self.out.flush();
    }

    fn end_turn(&mut self) {
        self.keep_checks();
        self.out.end_turn();
    }

    fn diverted(&mut self) -> &mut Diverted {
        self.out.diverted()
    }

    fn wake(&mut self, peer: &WakeHandle) {
        self.out.wake(peer);
    }
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
