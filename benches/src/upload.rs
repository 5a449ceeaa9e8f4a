//! A publisher's datagrams on their way to its room: straight, by TURN's shortcut on the room's own worker, or by another worker and the
//! ring between the two.

use std::net::SocketAddr;
use std::time::Duration;

use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::io::{Link, Path, SocketIndex};
use ringmain_dataplane::packet::stun::{Class, IntegrityKey, Message, MessageWriter, TransactionId, attribute, method};
use ringmain_dataplane::turn::derive_keys;
use ringmain_dataplane::worker::relay::RelayItem;
use ringmain_dataplane::worker::{Worker, WorkerCommand};
use ringmain_shared::Now;
use ringmain_shared::command::Command;
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::limits::RELAY_RING;
use ringmain_shared::media::Kind;
use ringmain_shared::transport::Side;
use ringmain_shared::turn::{OwnMedia, TurnCommand, TurnSpec};
use rtrb::{Consumer, Producer, RingBuffer};

use crate::measure::cpu_of;
use crate::peers::{self, Camera, address, worker_of};

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Without TURN.
    Direct,
    /// The room is on the worker that the client comes to.
    Near,
    /// It is on another one.
    Far,
}

/// A publisher in full use.
#[derive(Debug)]
pub struct Upload {
    way: Way,
    workers: Vec<Worker>,
    links: Vec<MemoryLink>,
    /// To each worker.
    rings: Vec<(Producer<RelayItem>, Consumer<RelayItem>)>,
    camera: Camera,
    sizes: [usize; 8],
    now: Now,
}

impl Upload {
    /// A publisher of frames of so many bytes by a server of these rules; a user of theirs is `guest`, whose password is `pass`.
    pub fn new(way: Way, sizes: [usize; 8], mut spec: TurnSpec) -> Self {
        let count = if way == Way::Far { 2 } else { 1 };
        spec.relay.workers = count;
        spec.peers.own_media = vec![OwnMedia { address: media(), worker: WorkerIndex(count - 1) }];
        let mut upload = Self {
            way,
            workers: (0..count).map(worker_of).collect(),
            links: (0..count).map(|_| MemoryLink::new()).collect(),
            rings: (0..count).map(|_| RingBuffer::new(RELAY_RING)).collect(),
            camera: Camera::new(0, Kind::Video),
            sizes,
            now: Now::from_millis(1_000),
        };
        for worker in &mut upload.workers {
            let configure = TurnCommand::Configure(Box::new(spec.clone()));
            worker.handle_command(WorkerCommand::Control(Command::Turn(configure)), upload.now);
        }
        upload.connect();
        upload
    }

    /// Nanoseconds per datagram, of all workers together.
    pub fn cost(&mut self) -> f64 {
        let mut frame = Vec::new();
        self.camera.frame(&self.sizes, &mut frame);
        let mut at = 0;
        for size in self.sizes {
            self.push(&frame[at..at + size]);
            at += size;
        }
        // Consent is not renewed here, so time goes slowly.
        self.now = self.now + Duration::from_micros(33);
        self.links.iter_mut().for_each(|link| drop(link.receive(None)));
        let spent = cpu_of(|| self.pass());
        self.links.iter_mut().for_each(|link| drop(link.take()));
        self.workers.iter_mut().for_each(|worker| worker.outbox().events.clear());
        spent.as_nanos() as f64 / self.sizes.len() as f64
    }

    /// Media packets that the room's worker took in.
    pub fn taken(&mut self) -> u64 {
        let (worker, link) = (self.workers.last().expect("one"), self.links.last_mut().expect("one"));
        worker.stats(&link.counters()).rtp_received
    }

    fn connect(&mut self) {
        if self.way != Way::Direct {
            let mut nonce = Vec::new();
            for (at, method) in [method::ALLOCATE, method::ALLOCATE, method::CHANNEL_BIND].into_iter().enumerate() {
                let answer = self.ask(method, at as u8, &nonce);
                let message = Message::parse(&answer).expect("sound");
                assert_eq!(message.class(), if at == 0 { Class::Error } else { Class::Success });
                nonce = message.attribute(attribute::NONCE).map(<[u8]>::to_vec).unwrap_or(nonce);
            }
        }
        let now = self.now;
        peers::open(self.workers.last_mut().expect("one"), 0, Side::Publisher, now);
        self.push(&peers::check(0));
        for _ in 0..4 {
            self.step();
            let sent: Vec<Vec<u8>> = self.links.iter_mut().flat_map(MemoryLink::take).map(|(_, bytes)| bytes).collect();
            for bytes in sent {
                let bytes = bytes.strip_prefix(&CHANNEL).map_or(&bytes[..], |data| &data[2..]);
                if let Some(answer) = peers::answer(0, bytes) {
                    self.push(&answer);
                }
            }
            self.now = self.now + Duration::from_millis(1);
        }
        let (worker, link) = (self.workers.last_mut().expect("one"), self.links.last_mut().expect("one"));
        peers::secure(worker, 0, self.now, link.parts().1);
        peers::publish(worker, 0, Kind::Video, self.now);
        self.step();
    }

    fn ask(&mut self, method: u16, number: u8, nonce: &[u8]) -> Vec<u8> {
        let mut bytes = [0; 500];
        let mut message = MessageWriter::new(&mut bytes, Class::Request, method, TransactionId([number; 12]));
        message.attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        message.attribute(attribute::CHANNEL_NUMBER, &[CHANNEL[0], CHANNEL[1], 0, 0]);
        message.xor_address(attribute::XOR_PEER_ADDRESS, media());
        if !nonce.is_empty() {
            message.attribute(attribute::USERNAME, b"guest");
            message.attribute(attribute::REALM, b"r");
            message.attribute(attribute::NONCE, nonce);
            message.integrity(&IntegrityKey::new(&derive_keys("guest", "r", "pass").md5));
        }
        let len = message.finish().expect("room");
        self.links[0].push(client(), &bytes[..len]);
        self.step();
        self.links[0].take().pop().expect("an answer").1
    }

    /// The publisher sends.
    fn push(&mut self, bytes: &[u8]) {
        match self.way {
            Way::Direct => self.links[0].push(address(0), bytes),
            Way::Near | Way::Far => {
                self.links[0].push(client(), &[&CHANNEL[..], &(bytes.len() as u16).to_be_bytes(), bytes].concat());
            }
        }
    }

    fn step(&mut self) {
        self.links.iter_mut().for_each(|link| drop(link.receive(None)));
        self.pass();
    }

    /// One turn of each worker, with what they have for each other.
    fn pass(&mut self) {
        for at in 0..self.workers.len() {
            let (rx, out) = self.links[at].parts();
            while let Ok(item) = self.rings[at].1.pop() {
                self.workers[at].handle_relay(item, self.now, out);
            }
            self.workers[at].turn(self.now, rx, out);
            out.flush();
            for (to, item) in self.workers[at].outbox().relays.drain(..) {
                let _ = self.rings[usize::from(to.0)].0.push(item);
            }
        }
    }
}

const CHANNEL: [u8; 2] = [0x40, 0];

fn media() -> SocketAddr {
    ([198, 51, 100, 1], 5000).into()
}

fn client() -> Path {
    Path { socket: SocketIndex(1), remote: SocketAddr::from(([192, 0, 2, 1], 20_000)) }
}
