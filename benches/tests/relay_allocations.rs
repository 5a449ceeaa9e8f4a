//! Relaying allocates nothing once the tables have their size: ChannelData and Send both ways, to foreign peers and to our own media.

#![allow(missing_docs)]

use std::net::SocketAddr;
use std::time::Duration;

use ringmain_benches::counting::{Counting, allocations};
use ringmain_benches::room::turn;
use ringmain_benches::{Camera, answer, check, open, publish, secure, subscribe, worker};
use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::io::{Link, Path, SocketIndex};
use ringmain_dataplane::packet::stun::{Class, IntegrityKey, Message, MessageWriter, TransactionId, attribute, method};
use ringmain_dataplane::turn::{SocketRequest, derive_keys};
use ringmain_dataplane::worker::{Worker, WorkerCommand};
use ringmain_shared::Now;
use ringmain_shared::command::Command;
use ringmain_shared::event::WorkerStats;
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::media::Kind;
use ringmain_shared::transport::Side;
use ringmain_shared::turn::{
    OwnMedia, PasswordAlgorithms, PeerPolicy, RelayAddress, RelayMode, RelaySpec, TurnCommand, TurnCredential,
    TurnFeatures, TurnLifetimes, TurnQuotas, TurnSpec,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The first is the publisher, the next two its subscribers, all by way of TURN; the last two talk to foreign peers.
const CLIENTS: u64 = 5;
const PUBLISHER: u64 = 0;
const SIZES: [usize; 8] = [1100; 8];
const MEDIA: &str = "198.51.100.1:5000";
const CHANNEL: u16 = 0x4000;

/// Even ones have a channel, the others use indications.
fn has_channel(client: u64) -> bool {
    client.is_multiple_of(2)
}

struct World {
    worker: Worker,
    link: MemoryLink,
    now: Now,
    camera: Camera,
    /// Relay sockets of the last two clients.
    relays: Vec<Path>,
}

impl World {
    fn new() -> Self {
        let (worker, link, now) = (worker(), MemoryLink::new(), Now::from_millis(1_000));
        let mut world = Self { worker, link, now, camera: Camera::new(PUBLISHER, Kind::Video), relays: Vec::new() };
        let configure = Command::Turn(TurnCommand::Configure(Box::new(spec())));
        world.worker.handle_command(WorkerCommand::Control(configure), now);
        for client in 0..CLIENTS {
            world.allocate(client);
        }
        for client in 0..3 {
            open(&mut world.worker, client, if client == PUBLISHER { Side::Publisher } else { Side::Subscriber }, now);
            world.say(client, &check(client));
            for _ in 0..2 {
                for bytes in world.heard(client) {
                    if let Some(answer) = answer(client, &bytes) {
                        world.say(client, &answer);
                    }
                }
                world.turn();
            }
            secure(&mut world.worker, client, now, world.link.parts().1);
        }
        publish(&mut world.worker, PUBLISHER, Kind::Video, now);
        (1..3).for_each(|client| subscribe(&mut world.worker, client, PUBLISHER, Kind::Video, now));
        world.link = {
            let links = std::mem::take(world.link.parts().1.batch().links());
            let mut counting = MemoryLink::counting();
            *counting.parts().1.batch().links() = links;
            counting
        };
        world
    }

    fn allocate(&mut self, client: u64) {
        let mut nonce = Vec::new();
        let last = if has_channel(client) { method::CHANNEL_BIND } else { method::CREATE_PERMISSION };
        for (at, method) in [method::ALLOCATE, method::ALLOCATE, last].into_iter().enumerate() {
            let mut bytes = [0; 500];
            let mut message = MessageWriter::new(&mut bytes, Class::Request, method, TransactionId([at as u8; 12]));
            match method {
                method::ALLOCATE => message.attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
                _ => message.xor_address(attribute::XOR_PEER_ADDRESS, peer_of(client)),
            }
            if method == method::CHANNEL_BIND {
                let [high, low] = CHANNEL.to_be_bytes();
                message.attribute(attribute::CHANNEL_NUMBER, &[high, low, 0, 0]);
            }
            if !nonce.is_empty() {
                message.attribute(attribute::USERNAME, b"guest");
                message.attribute(attribute::REALM, b"r");
                message.attribute(attribute::NONCE, &nonce);
                message.integrity(&IntegrityKey::new(&derive_keys("guest", "r", "pass").md5));
            }
            let len = message.finish().expect("room");
            self.link.push(client_path(client), &bytes[..len]);
            self.turn();
            for request in std::mem::take(&mut self.worker.outbox().sockets) {
                let SocketRequest::Open { relay, .. } = request else { continue };
                let path = Path { socket: SocketIndex(2 + self.relays.len() as u16), remote: peer_of(client) };
                self.worker.handle_relay_socket(relay, Some(path.socket), self.now, self.link.parts().1);
                self.relays.push(path);
            }
            self.link.parts().1.flush();
            let (_, answer) = self.link.take().pop().expect("an answer");
            let message = Message::parse(&answer).expect("sound");
            assert_eq!(message.class(), if at == 0 { Class::Error } else { Class::Success });
            nonce = message.attribute(attribute::NONCE).map(<[u8]>::to_vec).unwrap_or(nonce);
        }
    }

    /// A client sends to its peer.
    fn say(&mut self, client: u64, data: &[u8]) {
        let bytes = if has_channel(client) {
            [&CHANNEL.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
        } else {
            let mut bytes = vec![0; data.len() + 100];
            let mut message = MessageWriter::new(&mut bytes, Class::Indication, method::SEND, TransactionId([9; 12]));
            message.xor_address(attribute::XOR_PEER_ADDRESS, peer_of(client));
            message.attribute(attribute::DATA, data);
            let len = message.finish_bare().expect("room");
            bytes.truncate(len);
            bytes
        };
        self.link.push(client_path(client), &bytes);
    }

    /// What its peer has sent to a client.
    fn heard(&mut self, client: u64) -> Vec<Vec<u8>> {
        self.turn();
        let sent = self.link.take().into_iter().filter(|(path, _)| *path == client_path(client));
        sent.map(|(_, bytes)| match has_channel(client) {
            true => bytes[4..].to_vec(),
            false => Message::parse(&bytes).expect("sound").attribute(attribute::DATA).expect("data").to_vec(),
        })
        .collect()
    }

    fn turn(&mut self) {
        turn(&mut self.worker, &mut self.link, self.now);
    }

    /// A frame through all of it. The allocations of the turn.
    fn frame(&mut self) -> u64 {
        let mut frame = Vec::new();
        self.camera.frame(&SIZES, &mut frame);
        for packet in frame.chunks(SIZES[0]) {
            self.say(PUBLISHER, packet);
        }
        for client in 3..CLIENTS {
            self.say(client, &[7; 1000]);
        }
        for &relay in &self.relays {
            self.link.push(relay, &[8; 1000]);
        }
        self.now = self.now + Duration::from_millis(1);
        self.link.receive(None).expect("works");
        let (rx, out) = self.link.parts();
        let before = allocations();
        self.worker.turn(self.now, rx, out);
        out.flush();
        let allocated = allocations() - before;
        ringmain_benches::room::forget(&mut self.worker);
        allocated
    }

    fn stats(&mut self) -> WorkerStats {
        let counters = self.link.counters();
        self.worker.stats(&counters)
    }
}

#[test]
fn relaying_allocates_nothing_after_warm_up() {
    let mut world = World::new();
    (0..200).for_each(|_| _ = world.frame());
    let before = world.stats();
    let allocated: u64 = (0..500).map(|_| world.frame()).sum();
    let after = world.stats();
    let [then, now] = [before, after].map(|stats| (stats.turn.traffic, stats.drops.iter().sum::<u64>()));
    let frames = 500 * SIZES.len() as u64;
    // The publisher's packets in, both subscribers' out; a datagram of each foreign pair each way.
    assert_eq!(now.0.to_peers - then.0.to_peers, frames + 1000);
    let to_clients = now.0.to_clients - then.0.to_clients;
    let shortcut = now.0.shortcut - then.0.shortcut;
    assert!((2 * frames + 1000..2 * frames + 1100).contains(&to_clients), "{to_clients}: media, and some reports");
    assert_eq!(shortcut, frames + to_clients - 1000);
    assert_eq!(now.1, then.1, "nothing was dropped");
    assert_eq!(allocated, 0);
}

fn client_path(client: u64) -> Path {
    Path { socket: SocketIndex(1), remote: SocketAddr::from(([192, 0, 2, 1], 20_000 + client as u16)) }
}

fn peer_of(client: u64) -> SocketAddr {
    match client {
        0..3 => MEDIA.parse().expect("an address"),
        _ => ([8, 8, 8, 8], 30_000 + client as u16).into(),
    }
}

fn spec() -> TurnSpec {
    let relay = "198.51.100.1".parse().expect("an address");
    let own = OwnMedia { address: MEDIA.parse().expect("an address"), worker: WorkerIndex(0) };
    TurnSpec {
        realm: "r".into(),
        users: vec![TurnCredential {
            username: "guest".into(),
            keys: derive_keys("guest", "r", "pass"),
            user: "guest".into(),
            bound: None,
            expires: None,
        }],
        secrets: Vec::new(),
        third_party: None,
        binding: false,
        discovery: Vec::new(),
        password_algorithms: PasswordAlgorithms::Never,
        peers: PeerPolicy { own_media: vec![own], open: true, ..PeerPolicy::default() },
        relay: RelaySpec {
            addresses: vec![RelayAddress { bind: relay, announce: relay }],
            port_min: 10_000,
            port_max: 10_999,
            workers: 1,
            mode: RelayMode::PerAllocation,
        },
        // Wide enough, and asked for every datagram.
        quotas: TurnQuotas {
            allocations_per_user: 0,
            user_bps: 100_000_000_000,
            total_bps: 100_000_000_000,
            replies_per_source: 0,
            replies: 0,
            ..TurnQuotas::default()
        },
        lifetimes: TurnLifetimes::default(),
        features: TurnFeatures::default(),
    }
}
