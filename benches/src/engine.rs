//! A worker between real sockets: a publisher sends over loopback, and what it forwards goes out by a [`Wire`](crate::wire::Wire).
//! Time is virtual, a frame's period for each frame; consent is renewed as it comes due, by answers that come in past the kernel.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::io::{Link, LinkChoice, Path, SocketIndex, open};
use ringmain_shared::Now;

use crate::answer;
use crate::floor::Carrier;
use crate::measure::cpu_of;
use crate::room::{Media, Room, Tap, forget};
use crate::wire::socket;

/// A worker with its way to the network.
pub struct Engine {
    pub room: Room,
    way: Box<dyn Way>,
    publisher: UdpSocket,
    server: SocketAddr,
    peers: HashMap<Path, u64>,
    checks: Vec<(Path, Vec<u8>)>,
    subscribers: usize,
    frames: u64,
}

/// Takes in what has come, lets the worker take its turn and sends what comes of it.
pub trait Way {
    /// Waits for a datagram, but not longer than `timeout`. How many came.
    fn turn(&mut self, room: &mut Room, checks: &mut Vec<(Path, Vec<u8>)>, timeout: Duration) -> usize;

    /// Datagrams sent, and the sends that they took.
    fn sent(&mut self) -> (u64, u64);
}

impl Engine {
    /// One publisher, heard at all remotes, on a link of ours. The error says why there is no such link.
    pub fn new(carrier: Carrier, remotes: &[SocketAddr], media: Media) -> Result<Self, String> {
        let choice = if carrier == Carrier::IoUring { LinkChoice::IoUring } else { LinkChoice::Mmsg };
        let socket = socket();
        let server = here(&socket);
        let link = open(choice, vec![socket]).map_err(|error| error.to_string())?.link;
        Ok(Self::over(Box::new(OnLink(link)), server, remotes, media))
    }

    /// The same over any way from and to the socket at `server`.
    pub fn over(way: Box<dyn Way>, server: SocketAddr, remotes: &[SocketAddr], media: Media) -> Self {
        let publisher = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let first = publisher.local_addr().expect("bound");
        let paths: Vec<Path> = std::iter::once(&first).chain(remotes).map(|&remote| path(remote)).collect();
        let mut room = Room::at(&paths, |peer| peer == 0, |_, _| true, media);
        room.link = MemoryLink::counting();
        let peers = paths.into_iter().zip(0..).collect();
        Self { room, way, publisher, server, peers, checks: Vec::new(), subscribers: remotes.len(), frames: 0 }
    }

    /// Forwards one frame. The CPU time that the worker took for it.
    pub fn frame(&mut self) -> Duration {
        self.frames += 1;
        let Self { room, publisher, server, .. } = self;
        room.film(|_, _, packet| {
            publisher.send_to(packet, *server).expect("loopback");
        });
        room.now = room.now + room.media.period;
        let mut missing = self.room.media.sizes.len();
        let mut spent = Duration::ZERO;
        for _ in 0..PATIENCE {
            spent += self.serve(Duration::from_millis(1), &mut missing);
            if missing == 0 {
                // The run loop goes back to the link at once, which sends what it still has in its queue.
                return spent + self.settle();
            }
        }
        panic!("{missing} datagrams of the publisher never came");
    }

    /// Sends what io_uring still has in its queue. The CPU time of it.
    fn settle(&mut self) -> Duration {
        self.serve(Duration::ZERO, &mut 0)
    }

    /// One turn, and another one if consent came due in it.
    pub fn serve(&mut self, timeout: Duration, missing: &mut usize) -> Duration {
        let Self { room, way, checks, peers, .. } = self;
        let mut spent = cpu_of(|| {
            *missing = missing.saturating_sub(way.turn(room, checks, timeout));
        });
        if !checks.is_empty() {
            for (path, check) in checks.drain(..) {
                if let Some(answer) = peers.get(&path).and_then(|&peer| answer(peer, &check)) {
                    room.link.push(path, &answer);
                }
            }
            spent += cpu_of(|| room.turn());
        }
        spent
    }

    /// Packets that one frame becomes.
    pub fn datagrams(&self) -> usize {
        self.subscribers * self.room.media.sizes.len()
    }

    /// Makes sure that nothing was left out: everybody got every packet. Datagrams for each send.
    pub fn finish(&mut self) -> f64 {
        let stats = self.room.worker.stats(&self.room.link.counters());
        assert_eq!(stats.rtp_forwarded, self.frames * self.datagrams() as u64, "every packet went to everybody");
        let (datagrams, sends) = self.way.sent();
        assert!(datagrams >= stats.rtp_forwarded, "{datagrams} datagrams for {} packets", stats.rtp_forwarded);
        datagrams as f64 / sends.max(1) as f64
    }
}

struct OnLink(Box<dyn Link>);

impl Way for OnLink {
    fn turn(&mut self, room: &mut Room, checks: &mut Vec<(Path, Vec<u8>)>, timeout: Duration) -> usize {
        self.0.receive(Some(timeout)).expect("works");
        let (rx, out) = self.0.parts();
        let came = rx.len();
        let mut out = Tap { out, checks };
        room.worker.turn(room.now, rx, &mut out);
        ringmain_dataplane::io::Transmit::end_turn(&mut out);
        forget(&mut room.worker);
        came
    }

    fn sent(&mut self) -> (u64, u64) {
        let counters = self.0.counters();
        assert_eq!(counters.send_failed, 0, "the kernel took everything");
        (counters.sent, counters.trains)
    }
}

/// Where this socket is found over loopback.
pub fn here(socket: &UdpSocket) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, socket.local_addr().expect("bound").port()).into()
}

/// The path of a worker with one socket.
pub fn path(remote: SocketAddr) -> Path {
    Path { socket: SocketIndex(0), remote }
}

/// The time of a worker that runs by the clock.
pub fn now(start: std::time::Instant) -> Now {
    Now::from_millis(1_000) + start.elapsed()
}

/// Turns in which a frame must have come.
const PATIENCE: usize = 1_000;
