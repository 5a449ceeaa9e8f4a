//! What a relayed packet costs, without a kernel: ChannelData to a peer and a peer's datagram to a client, beside a loop that only
//! receives and sends as many bytes; and a subscriber's packet through TURN's shortcut, beside a direct subscriber's; and a publisher's,
//! whose room is on the worker that it comes to or on another.

#![allow(missing_docs)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringmain_benches::measure::{Args, cpu_of, take_turns};
use ringmain_benches::peers::{self, Camera, address, worker};
use ringmain_benches::report::{Report, Row};
use ringmain_benches::upload::{self, Upload};

use ringmain_dataplane::buf::Prefix;
use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::io::{Link, Path, SocketIndex};
use ringmain_dataplane::packet::stun::{Class, IntegrityKey, Message, MessageWriter, TransactionId, attribute, method};
use ringmain_dataplane::turn::{Client, Ledger, SocketRequest, Turn, derive_keys};
use ringmain_dataplane::worker::Worker;
use ringmain_shared::Now;
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::media::Kind;
use ringmain_shared::transport::Side;
use ringmain_shared::turn::{
    PasswordAlgorithms, PeerPolicy, RelayAddress, RelayMode, RelaySpec, TurnCredential, TurnFeatures, TurnLifetimes,
    TurnQuotas, TurnSpec, TurnTransport,
};

/// Clients, each with one peer.
const CLIENTS: u16 = 100;
/// Datagrams of one client in one batch: a frame's worth.
const RUN: usize = 2;
const CHANNEL: [u8; 2] = [0x40, 0];
const SUBSCRIBERS: u64 = 20;
/// More than there is time for.
const BITS_PER_SECOND: u64 = 1_000_000_000_000;

fn main() {
    let args = Args::read();
    let mut report = Report::new("relay", &args);
    let rounds = args.pick(2, 60, 400);
    for size in [100, 1100] {
        let mut contenders: Vec<Relaying> =
            [Way::Bare, Way::ToPeers, Way::ToClients].map(|way| Relaying::new(way, size)).into();
        let results = take_turns(&mut contenders, rounds, Relaying::cost);
        for (name, result) in [("to a peer", &results[1]), ("to a client", &results[2])] {
            let row = Row::new(format!("{size} bytes {name}"), result.median(), "ns");
            report.row(row.beside_by("a bare loop", results[0].median(), result.ratio(&results[0])));
        }
    }
    for sizes in [[1100; 8], [100; 8]] {
        let mut contenders = [Road::Direct, Road::Link, Road::Metered].map(|road| Room::new(road, sizes));
        let results = take_turns(&mut contenders, rounds, Room::cost);
        for (name, result) in [("through TURN", &results[1]), ("through TURN with a bound", &results[2])] {
            let row = Row::new(format!("{} bytes to a subscriber {name}", sizes[0]), result.median(), "ns");
            report.row(row.beside_by("direct", results[0].median(), result.ratio(&results[0])).ratio_at_most(1.15));
        }
    }
    for sizes in [[1100; 8], [100; 8]] {
        let mut contenders =
            [upload::Way::Direct, upload::Way::Near, upload::Way::Far].map(|way| Upload::new(way, sizes, spec()));
        let results = take_turns(&mut contenders, rounds, Upload::cost);
        assert!(contenders.iter_mut().all(|upload| upload.taken() > 0), "media arrives by every way");
        for (name, result) in [("through TURN", &results[1]), ("through TURN on another worker", &results[2])] {
            let row = Row::new(format!("{} bytes of a publisher {name}", sizes[0]), result.median(), "ns");
            report.row(row.beside_by("direct", results[0].median(), result.ratio(&results[0])));
        }
    }
    report.finish();
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Bare,
    ToPeers,
    ToClients,
}

/// A relay in full use.
struct Relaying {
    way: Way,
    turn: Turn,
    link: MemoryLink,
    /// What arrives in each batch.
    datagrams: Vec<(Path, Vec<u8>)>,
    now: Now,
}

impl Relaying {
    fn new(way: Way, size: usize) -> Self {
        let mut turn = Turn::new(Arc::new(Ledger::new([7; 32])), WorkerIndex(0), spec(), 0, [7; 32]);
        let mut link = MemoryLink::new();
        let now = Now::from_millis(1_000);
        let mut datagrams = Vec::new();
        for number in 0..CLIENTS {
            let client = Client { path: client_path(number), transport: TurnTransport::Udp };
            let socket = allocate(&mut turn, &mut link, client, number, now);
            let data = vec![number as u8; size];
            let (path, bytes) = match way {
                Way::ToPeers => (client.path, [&CHANNEL[..], &(size as u16).to_be_bytes(), &data].concat()),
                Way::Bare | Way::ToClients => (Path { socket, remote: peer(number) }, data),
            };
            datagrams.extend(std::iter::repeat_n((path, bytes), RUN));
        }
        Self { way, turn, link: MemoryLink::counting(), datagrams, now }
    }

    /// Nanoseconds per packet.
    fn cost(&mut self) -> f64 {
        self.datagrams.iter().for_each(|(path, bytes)| self.link.push(*path, bytes));
        self.link.receive(None).expect("works");
        let (rx, out) = self.link.parts();
        let spent = cpu_of(|| {
            for index in 0..rx.len() {
                let (path, bytes) = (rx.path(index), rx.bytes(index));
                match self.way {
                    Way::Bare => {
                        let mut slot = out.batch().reserve(path, bytes.len()).expect("room");
                        slot.bytes_mut().copy_from_slice(bytes);
                        slot.commit(bytes.len());
                    }
                    Way::ToPeers => {
                        let client = Client { path, transport: TurnTransport::Udp };
                        self.turn.handle_client(client, bytes, self.now, out).expect("relayed");
                    }
                    Way::ToClients => {
                        self.turn.handle_peer(path.socket, path.remote, bytes, self.now, out).expect("relayed");
                    }
                }
            }
            out.flush();
        });
        spent.as_nanos() as f64 / self.datagrams.len() as f64
    }
}

/// An allocation with a channel to its peer. The socket of its relayed address.
fn allocate(turn: &mut Turn, link: &mut MemoryLink, client: Client, number: u16, now: Now) -> SocketIndex {
    let mut nonce = Vec::new();
    let mut socket = SocketIndex(0);
    for (at, method) in [method::ALLOCATE, method::ALLOCATE, method::CHANNEL_BIND].into_iter().enumerate() {
        let mut bytes = [0; 500];
        let mut message = MessageWriter::new(&mut bytes, Class::Request, method, TransactionId([at as u8; 12]));
        message.attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        message.attribute(attribute::CHANNEL_NUMBER, &[CHANNEL[0], CHANNEL[1], 0, 0]);
        message.xor_address(attribute::XOR_PEER_ADDRESS, peer(number));
        if !nonce.is_empty() {
            message.attribute(attribute::USERNAME, b"guest");
            message.attribute(attribute::REALM, b"r");
            message.attribute(attribute::NONCE, &nonce);
            message.integrity(&IntegrityKey::new(&derive_keys("guest", "r", "pass").md5));
        }
        let len = message.finish().expect("room");
        let (_, out) = link.parts();
        turn.handle_client(client, &bytes[..len], now, out).expect("an answer");
        for request in std::mem::take(turn.socket_requests()) {
            let SocketRequest::Open { relay, address, .. } = request else { continue };
            socket = SocketIndex(address.port() - PORT_MIN + 8);
            turn.handle_socket(relay, Some(socket), now, out);
        }
        out.flush();
        let (_, answer) = link.take().pop().expect("an answer");
        let message = Message::parse(&answer).expect("sound");
        assert_eq!(message.class(), if at == 0 { Class::Error } else { Class::Success });
        nonce = message.attribute(attribute::NONCE).map(<[u8]>::to_vec).unwrap_or(nonce);
    }
    socket
}

/// How subscribers are reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Road {
    Direct,
    Link,
    /// A link with a bandwidth of its own, and one that it shares with all.
    Metered,
}

/// One publisher, whose subscribers are direct, or behind links of TURN.
struct Room {
    worker: Worker,
    link: MemoryLink,
    camera: Camera,
    sizes: [usize; 8],
    now: Now,
}

impl Room {
    fn new(road: Road, sizes: [usize; 8]) -> Self {
        let through = road != Road::Direct;
        let mut now = Now::from_millis(1_000);
        let (mut worker, mut link) = (worker(), MemoryLink::new());
        let path = |peer: u64| match through && peer > 0 {
            true => Path { socket: SocketIndex(SocketIndex::LINK_FIRST + peer as u16), remote: address(peer).remote },
            false => address(peer),
        };
        let ledger = Arc::new(Ledger::new([7; 32]));
        let all = ledger.bandwidth_of_all(BITS_PER_SECOND);
        let set_links = |link: &mut MemoryLink| {
            for peer in (1..=SUBSCRIBERS).filter(|_| through) {
                let prefix = Prefix::channel(address(peer), u16::from_be_bytes(CHANNEL));
                let links = link.parts().1.batch().links();
                links.set(path(peer), Some(prefix));
                if road == Road::Metered {
                    let user = ledger.user(&peer.to_string());
                    let budgets = [ledger.bandwidth_of(user, BITS_PER_SECOND), all.clone()];
                    links.limit(path(peer).socket, budgets.map(Some));
                }
            }
        };
        set_links(&mut link);
        for peer in 0..=SUBSCRIBERS {
            peers::open(&mut worker, peer, if peer == 0 { Side::Publisher } else { Side::Subscriber }, now);
            link.push(path(peer), &peers::check(peer));
            for _ in 0..4 {
                turn(&mut worker, &mut link, now);
                for (_, bytes) in link.take() {
                    let bytes = bytes.strip_prefix(&CHANNEL).map_or(&bytes[..], |data| &data[2..]);
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
    fn cost(&mut self) -> f64 {
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
            // As a worker with a TURN server does.
            out.batch().links().begin_turn(self.now);
            self.worker.turn(self.now, rx, out);
            out.flush();
        });
        self.worker.outbox().events.clear();
        let sent = self.link.counters().sent - before;
        spent.as_nanos() as f64 / sent.max(1) as f64
    }
}

fn turn(worker: &mut Worker, link: &mut MemoryLink, now: Now) {
    link.receive(None).expect("works");
    let (rx, out) = link.parts();
    worker.turn(now, rx, out);
    out.flush();
}

const PORT_MIN: u16 = 10_000;

fn spec() -> TurnSpec {
    let keys = derive_keys("guest", "r", "pass");
    let relay = "198.51.100.1".parse().expect("an address");
    TurnSpec {
        realm: "r".into(),
        users: vec![TurnCredential {
            username: "guest".into(),
            keys,
            user: "guest".into(),
            bound: None,
            expires: None,
        }],
        secrets: Vec::new(),
        third_party: None,
        binding: false,
        discovery: Vec::new(),
        password_algorithms: PasswordAlgorithms::Never,
        peers: PeerPolicy { open: true, ..PeerPolicy::default() },
        relay: RelaySpec {
            addresses: vec![RelayAddress { bind: relay, announce: relay }],
            port_min: PORT_MIN,
            port_max: PORT_MIN + 999,
            workers: 1,
            mode: RelayMode::PerAllocation,
        },
        quotas: TurnQuotas { allocations_per_user: 0, replies_per_source: 0, replies: 0, ..TurnQuotas::default() },
        lifetimes: TurnLifetimes::default(),
        features: TurnFeatures::default(),
    }
}

fn client_path(number: u16) -> Path {
    Path { socket: SocketIndex(1), remote: SocketAddr::from(([192, 0, 2, 1], 20_000 + number)) }
}

fn peer(number: u16) -> SocketAddr {
    ([8, 8, 8, 8], 30_000 + number).into()
}
