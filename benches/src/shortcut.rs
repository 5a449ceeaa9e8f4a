//! A subscriber's packet through TURN's shortcut to our own media, and the same directly, without a kernel.

use std::time::Duration;

use ringmain_dataplane::buf::Prefix;
use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::io::{Link, Path, SocketIndex};
use ringmain_dataplane::worker::Worker;
use ringmain_shared::Now;
use ringmain_shared::media::Kind;
use ringmain_shared::transport::Side;

use crate::measure::cpu_of;
use crate::pairs::CHANNEL;
use crate::peers::{self, Camera, address, worker};
use crate::room;

const SUBSCRIBERS: u64 = 20;

/// One publisher, whose subscribers are direct, or behind links of TURN.
pub struct Shortcut {
    worker: Worker,
    link: MemoryLink,
    camera: Camera,
    sizes: [usize; 8],
    now: Now,
}

impl Shortcut {
    pub fn new(through: bool, sizes: [usize; 8]) -> Self {
        let mut now = Now::from_millis(1_000);
        let (mut worker, mut link) = (worker(), MemoryLink::new());
        let path = |peer: u64| match through && peer > 0 {
            true => Path { socket: SocketIndex(SocketIndex::LINK_FIRST + peer as u16), remote: address(peer).remote },
            false => address(peer),
        };
        let set_links = |link: &mut MemoryLink| {
            for peer in (1..=SUBSCRIBERS).filter(|_| through) {
                let prefix = Prefix::channel(address(peer), CHANNEL);
                link.parts().1.batch().links().set(path(peer), Some(prefix));
            }
        };
        set_links(&mut link);
        for peer in 0..=SUBSCRIBERS {
            peers::open(&mut worker, peer, if peer == 0 { Side::Publisher } else { Side::Subscriber }, now);
            link.push(path(peer), &peers::check(peer));
            for _ in 0..4 {
                room::turn(&mut worker, &mut link, now);
                for (_, bytes) in link.take() {
                    let bytes = bytes.strip_prefix(&CHANNEL.to_be_bytes()).map_or(&bytes[..], |data| &data[2..]);
                    if let Some(answer) = peers::answer(peer, bytes) {
                        link.push(path(peer), &answer);
                    }
                }
                now = now + Duration::from_millis(1);
            }
            peers::secure(&mut worker, peer, now, link.parts().1);
            link.take();
        }
        peers::publish(&mut worker, 0, Kind::Video, now);
        (1..=SUBSCRIBERS).for_each(|peer| peers::subscribe(&mut worker, peer, 0, Kind::Video, now));
        let mut link = MemoryLink::counting();
        set_links(&mut link);
        Self { worker, link, camera: Camera::new(0, Kind::Video), sizes, now }
    }

    /// Nanoseconds per packet and subscriber.
    pub fn cost(&mut self) -> f64 {
        let mut frame = Vec::new();
        self.camera.frame(&self.sizes, &mut frame);
        let mut at = 0;
        for size in self.sizes {
            self.link.push(address(0), &frame[at..at + size]);
            at += size;
        }
        // Consent is not renewed here, so time goes slowly.
        self.now = self.now + Duration::from_micros(33);
        self.link.receive(None).expect("works");
        let before = self.link.counters().sent;
        let (rx, out) = self.link.parts();
        let spent = cpu_of(|| {
            self.worker.turn(self.now, rx, out);
            out.flush();
        });
        self.worker.outbox().events.clear();
        let sent = self.link.counters().sent - before;
        spent.as_nanos() as f64 / sent.max(1) as f64
    }
}
