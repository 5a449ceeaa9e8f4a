//! What a relayed packet costs beside a loop that only receives and sends: over sockets, on each link, and without a kernel. And a
//! subscriber's packet through TURN's shortcut beside a direct subscriber's.
//!
//! Over sockets every client and every peer sends one datagram, and then the server takes them all in: no trains, which clients of TURN
//! seldom form. Beside coturn, as processes and under a steady load, it is measured by the bench `turn`.

#![allow(missing_docs)]

use std::net::SocketAddr;
use std::time::Duration;

use ringmain_benches::bare::Bare;
use ringmain_benches::floor::Carrier;
use ringmain_benches::measure::{Args, cpu_of, pin, take_turns};
use ringmain_benches::pairs::{CHANNEL, PASSWORD, Pairs, REALM, Speech, USER};
use ringmain_benches::relay_server::{RelayServer, spec};
use ringmain_benches::report::{Report, Row};
use ringmain_benches::shortcut::Shortcut;
use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::io::{Link, LinkChoice, Path, SocketIndex};
use ringmain_dataplane::packet::stun::{Class, IntegrityKey, Message, MessageWriter, TransactionId, attribute, method};
use ringmain_dataplane::turn::{Client, SocketRequest, Turn, derive_keys};
use ringmain_shared::Now;
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::turn::TurnTransport;

/// Clients, each with one peer.
const CLIENTS: u16 = 100;
/// Datagrams of one client in one batch: a frame's worth.
const RUN: usize = 2;

fn main() {
    let args = Args::read();
    let mut report = Report::new("relay", &args);
    pin(0);
    for carrier in Carrier::ALL.into_iter().filter(|carrier| args.wants(carrier.name())) {
        for (speech, name) in [(Speech::Channel, "ChannelData"), (Speech::Send, "Send")] {
            for size in [100, 1100] {
                let what = format!("{size} bytes, {name}, {}", carrier.name());
                if let Err(reason) = over_sockets(&args, &mut report, carrier, speech, size, &what) {
                    report.skip(format!("{what}: {reason}"));
                }
            }
        }
    }
    if args.wants("kernel") {
        without_a_kernel(&args, &mut report);
    }
    if args.wants("shortcut") {
        shortcut(&args, &mut report);
    }
    report.finish();
}

/// A worker that relays beside a bare loop on the same link.
fn over_sockets(
    args: &Args,
    report: &mut Report,
    carrier: Carrier,
    speech: Speech,
    size: usize,
    what: &str,
) -> Result<(), String> {
    let choice = if carrier == Carrier::IoUring { LinkChoice::IoUring } else { LinkChoice::Mmsg };
    let (mut bare, at) = Bare::open(choice, SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let bare_pairs = Pairs::new(at, usize::from(CLIENTS), Speech::Bare, size, &mut || _ = bare.turn(Duration::ZERO))?;
    let (mut server, at) = RelayServer::open(choice)?;
    let pairs = Pairs::new(at, usize::from(CLIENTS), speech, size, &mut || _ = server.turn(Duration::ZERO))?;
    let mut contenders: [(Box<dyn FnMut() -> usize>, Pairs); 2] = [
        (Box::new(move || bare.turn(Duration::ZERO)), bare_pairs),
        (Box::new(move || server.turn(Duration::ZERO)), pairs),
    ];
    let results = take_turns(&mut contenders, args.pick(2, 200, 1_000), |(turn, pairs)| {
        let sent = pairs.send();
        let spent = cpu_of(|| {
            let mut missing = sent as usize;
            while missing > 0 {
                missing -= turn();
            }
            // io_uring sends in the turn after.
            turn();
        });
        assert_eq!(pairs.receive(), sent, "nothing is lost");
        spent.as_nanos() as f64 / sent as f64
    });
    let row = Row::new(what, results[1].median(), "ns");
    report.row(row.beside_by("a bare loop", results[0].median(), results[1].ratio(&results[0])).ratio_at_most(1.2));
    Ok(())
}

fn without_a_kernel(args: &Args, report: &mut Report) {
    for size in [100, 1100] {
        let mut contenders: Vec<Relaying> =
            [Way::Bare, Way::ToPeers, Way::ToClients].map(|way| Relaying::new(way, size)).into();
        let results = take_turns(&mut contenders, args.pick(2, 60, 400), Relaying::cost);
        for (name, result) in [("to a peer", &results[1]), ("to a client", &results[2])] {
            let row = Row::new(format!("{size} bytes {name}, no kernel"), result.median(), "ns");
            report.row(row.beside_by("a bare loop", results[0].median(), result.ratio(&results[0])));
        }
    }
}

fn shortcut(args: &Args, report: &mut Report) {
    for sizes in [[1100; 8], [100; 8]] {
        let mut contenders = [false, true].map(|through| Shortcut::new(through, sizes));
        let results = take_turns(&mut contenders, args.pick(2, 60, 400), Shortcut::cost);
        let row =
            Row::new(format!("{} bytes to a subscriber through TURN's shortcut", sizes[0]), results[1].median(), "ns");
        report.row(row.beside_by("direct", results[0].median(), results[1].ratio(&results[0])).ratio_at_most(1.15));
    }
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
        let mut turn =
            Turn::new(WorkerIndex(0), spec([198, 51, 100, 1].into(), ([198, 51, 100, 1], 3478).into()), 0, [7; 32]);
        let mut link = MemoryLink::new();
        let now = Now::from_millis(1_000);
        let mut datagrams = Vec::new();
        for number in 0..CLIENTS {
            let client = Client { path: client_path(number), transport: TurnTransport::Udp };
            let socket = allocate(&mut turn, &mut link, client, number, now);
            let data = vec![number as u8; size];
            let (path, bytes) = match way {
                Way::ToPeers => {
                    (client.path, [&CHANNEL.to_be_bytes()[..], &(size as u16).to_be_bytes(), &data].concat())
                }
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
        message.attribute(attribute::CHANNEL_NUMBER, &(u32::from(CHANNEL) << 16).to_be_bytes());
        message.xor_address(attribute::XOR_PEER_ADDRESS, peer(number));
        if !nonce.is_empty() {
            message.attribute(attribute::USERNAME, USER.as_bytes());
            message.attribute(attribute::REALM, REALM.as_bytes());
            message.attribute(attribute::NONCE, &nonce);
            message.integrity(&IntegrityKey::new(&derive_keys(USER, REALM, PASSWORD).md5));
        }
        let len = message.finish().expect("room");
        let (_, out) = link.parts();
        turn.handle_client(client, &bytes[..len], now, out).expect("an answer");
        for request in std::mem::take(turn.socket_requests()) {
            let SocketRequest::Open { relay, address, .. } = request else { continue };
            socket = SocketIndex(address.port() - 20_000 + 8);
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

fn client_path(number: u16) -> Path {
    Path { socket: SocketIndex(1), remote: SocketAddr::from(([192, 0, 2, 1], 20_000 + number)) }
}

fn peer(number: u16) -> SocketAddr {
    ([8, 8, 8, 8], 30_000 + number).into()
}
