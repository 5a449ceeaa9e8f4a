//! A room on one worker over a memory link, everybody connected and secured, every publisher heard by all others.

use std::time::Duration;

use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::io::{Link, Path};
use ringmain_dataplane::worker::Worker;
use ringmain_shared::Now;
use ringmain_shared::transport::Side;

use crate::{Camera, address, answer, check, open, publish, secure, subscribe, worker};

/// Datagrams of a frame.
pub const PACKETS: usize = 8;
/// Bytes of each.
pub const SIZE: usize = 1100;
const FRAME: Duration = Duration::from_millis(33);

/// Publishers and subscribers of one worker.
pub struct Room {
    pub worker: Worker,
    pub link: MemoryLink,
    cameras: Vec<(u64, Camera)>,
    frame: Vec<u8>,
    now: Now,
}

impl Room {
    /// Everybody who publishes is heard by all others.
    pub fn new(publishers: u64, peers: u64) -> Self {
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
            secure(&mut worker, peer, now, link.parts().1);
        }
        (0..publishers).for_each(|publisher| publish(&mut worker, publisher, now));
        for peer in 0..peers {
            for publisher in (0..publishers).filter(|&publisher| publisher != peer) {
                subscribe(&mut worker, peer, publisher, now);
            }
        }
        let cameras = (0..publishers).map(|publisher| (publisher, Camera::new(publisher))).collect();
        let mut room = Self { worker, link, cameras, frame: Vec::new(), now };
        room.frames();
        room
    }

    /// Takes what the last turns sent. From now on it is only counted.
    pub fn last_sent(&mut self) -> Vec<(Path, Vec<u8>)> {
        std::mem::replace(&mut self.link, MemoryLink::counting()).take()
    }

    /// The next frame of each publisher arrives.
    pub fn push(&mut self) {
        for (peer, camera) in &mut self.cameras {
            camera.frame(PACKETS, SIZE, &mut self.frame);
            self.frame.chunks_exact(SIZE).for_each(|packet| self.link.push(address(*peer), packet));
        }
        // Consent is not renewed here, so time goes slowly.
        self.now = self.now + FRAME / 1_000;
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

fn turn(worker: &mut Worker, link: &mut MemoryLink, now: Now) {
    link.receive(None).expect("works");
    let (rx, out) = link.parts();
    worker.turn(now, rx, out);
    out.flush();
    worker.outbox().events.clear();
    worker.outbox().handshakes.clear();
}
