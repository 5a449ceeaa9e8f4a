//! TURN over real sockets: a whole data plane on loopback, on both links, with a client and a peer that are plain UDP sockets.

#![allow(missing_docs, reason = "a test has no readers but itself")]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ringmain_dataplane::io::LinkChoice;
use ringmain_dataplane::packet::stun::{Class, IntegrityKey, Message, MessageWriter, TransactionId, attribute, method};
use ringmain_dataplane::plane::{Plane, Settings};
use ringmain_dataplane::turn::derive_keys;
use ringmain_shared::Command;
use ringmain_shared::turn::{
    IpRange, PasswordAlgorithms, PeerPolicy, RelayAddress, RelayMode, RelaySpec, TurnCommand, TurnCredential,
    TurnFeatures, TurnLifetimes, TurnQuotas, TurnSpec,
};

fn spec(port_min: u16) -> TurnSpec {
    let here = "127.0.0.1".parse().expect("an address");
    let keys = derive_keys("guest", "r", "pass");
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
        binding: true,
        password_algorithms: PasswordAlgorithms::Never,
        peers: PeerPolicy { allow: vec![IpRange::network(here, 32).expect("a range")], ..PeerPolicy::default() },
        relay: RelaySpec {
            addresses: vec![RelayAddress { bind: here, announce: here }],
            port_min,
            port_max: port_min + 99,
            workers: 2,
            mode: RelayMode::PerAllocation,
        },
        quotas: TurnQuotas { allocations_per_user: 0, ..TurnQuotas::default() },
        lifetimes: TurnLifetimes::default(),
        features: TurnFeatures::default(),
    }
}

struct Caller {
    socket: UdpSocket,
    nonce: Vec<u8>,
    transactions: u8,
}

impl Caller {
    fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        socket.connect(server).expect("loopback");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("any socket has one");
        Self { socket, nonce: Vec::new(), transactions: 0 }
    }

    fn ask(&mut self, method: u16, rest: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
        let mut bytes = [0; 500];
        self.transactions += 1;
        let mut message =
            MessageWriter::new(&mut bytes, Class::Request, method, TransactionId([self.transactions; 12]));
        rest(&mut message);
        if !self.nonce.is_empty() {
            message.attribute(attribute::USERNAME, b"guest");
            message.attribute(attribute::REALM, b"r");
            message.attribute(attribute::NONCE, &self.nonce);
            message.integrity(&IntegrityKey::new(&derive_keys("guest", "r", "pass").md5));
        }
        let len = message.finish().expect("room");
        let mut answer = vec![0; 1500];
        for _ in 0..5 {
            self.socket.send(&bytes[..len]).expect("loopback");
            if let Ok(len) = self.socket.recv(&mut answer) {
                answer.truncate(len);
                return answer;
            }
        }
        panic!("no answer");
    }

    fn allocate(&mut self) -> SocketAddr {
        let udp = |message: &mut MessageWriter<'_>| message.attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        let challenge = self.ask(method::ALLOCATE, udp);
        self.nonce = Message::parse(&challenge).expect("sound").attribute(attribute::NONCE).expect("a nonce").to_vec();
        let answer = self.ask(method::ALLOCATE, udp);
        Message::parse(&answer).expect("sound").xor_address(attribute::XOR_RELAYED_ADDRESS).expect("an address")
    }
}

#[test]
fn clients_reach_peers_through_every_worker_on_every_link() {
    for (link, port_min) in [(LinkChoice::Auto, 41_000), (LinkChoice::Mmsg, 42_000)] {
        let listener = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback");
        let settings =
            Settings { workers: 2, pin: false, base_port: 0, link, turn: vec![listener], ..Settings::default() };
        let (mut plane, hello) = Plane::start(settings).expect("starts");
        assert!(hello.workers.iter().all(|worker| worker.turn == [listener]));
        // A port of the range that somebody else has.
        let occupied = UdpSocket::bind(("127.0.0.1", port_min + 4)).expect("free");
        assert!(plane.send(Command::Turn(TurnCommand::Configure(Box::new(spec(port_min))))).is_ok());
        let peer = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        peer.set_read_timeout(Some(Duration::from_secs(2))).expect("any socket has one");
        let mut callers: Vec<Caller> = (0..4).map(|_| Caller::new(listener)).collect();
        let mut ports = Vec::new();
        for caller in &mut callers {
            let relayed = caller.allocate();
            assert_ne!(relayed.port(), occupied.local_addr().expect("bound").port());
            ports.push(relayed.port());
            let answer = caller.ask(method::CHANNEL_BIND, |message| {
                message.attribute(attribute::CHANNEL_NUMBER, &[0x40, 7, 0, 0]);
                message.xor_address(attribute::XOR_PEER_ADDRESS, peer.local_addr().expect("bound"));
            });
            assert_eq!(Message::parse(&answer).expect("sound").class(), Class::Success);
            for size in [1usize, 100, 1100, 1400] {
                let data = vec![size as u8; size];
                let sent = [&[0x40, 7][..], &(size as u16).to_be_bytes(), &data].concat();
                caller.socket.send(&sent).expect("loopback");
                let mut bytes = [0; 1500];
                let (len, from) = peer.recv_from(&mut bytes).expect("relayed");
                assert_eq!((&bytes[..len], from), (&data[..], relayed));
                peer.send_to(&data, relayed).expect("loopback");
                let len = caller.socket.recv(&mut bytes).expect("relayed");
                assert_eq!(bytes[..len], sent);
            }
        }
        ports.dedup();
        assert_eq!(ports.len(), 4);
        // What is over gives its port back to the host.
        for caller in &mut callers {
            caller.ask(method::REFRESH, |message| message.attribute(attribute::LIFETIME, &[0; 4]));
        }
        let is_free = |port: &u16| {
            (0..100).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                UdpSocket::bind(("127.0.0.1", *port)).is_ok()
            })
        };
        assert!(ports.iter().all(is_free), "{ports:?}");
    }
}
