//! TURN over real sockets: a whole data plane on loopback, on both links, with a client and a peer that are plain UDP sockets.

#![allow(missing_docs, reason = "a test has no readers but itself")]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ringmain_dataplane::io::LinkChoice;
use ringmain_dataplane::packet::stun::{
    BindingRequest, Class, IntegrityKey, Message, MessageWriter, Role, TransactionId, attribute, method,
    write_binding_request, write_binding_success,
};
use ringmain_dataplane::plane::{Plane, Settings};
use ringmain_dataplane::turn::derive_keys;
use ringmain_shared::Command;
use ringmain_shared::id::{PeerId, RoomId, TransportId, WorkerIndex};
use ringmain_shared::transport::{
    DtlsRole, Fingerprint, FingerprintHash, IceCredentials, RemotePeer, Side, TransportSpec,
};
use ringmain_shared::turn::{
    IpRange, OwnMedia, PasswordAlgorithms, PeerPolicy, RelayAddress, RelayMode, RelaySpec, TurnCommand, TurnCredential,
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

const OWN_CHANNEL: [u8; 2] = [0x40, 3];
const PASSWORD: &str = "a password of 22 chars";

fn credentials(ufrag: &str) -> IceCredentials {
    IceCredentials { ufrag: ufrag.into(), pwd: PASSWORD.into() }
}

impl Caller {
    fn send_on_channel(&self, data: &[u8]) {
        let framed = [&OWN_CHANNEL[..], &(data.len() as u16).to_be_bytes(), data].concat();
        self.socket.send(&framed).expect("loopback");
    }

    /// Sends a check to our media and takes what comes from there until its answer, answering the media's own checks, which are
    /// counted. False if it is not answered.
    fn is_answered(&self, number: u8, checks_seen: &mut usize) -> bool {
        let id = TransactionId([number; 12]);
        let request = BindingRequest {
            transaction_id: id,
            remote_ufrag: "ours",
            local_ufrag: "them",
            priority: 1,
            role: Role::Controlling(1, true),
        };
        let key = IntegrityKey::new(PASSWORD.as_bytes());
        let mut bytes = [0; 1500];
        let len = write_binding_request(&mut bytes, &request, &key).expect("room");
        self.send_on_channel(&bytes[..len]);
        let mut framed = [0; 1500];
        while let Ok(len) = self.socket.recv(&mut framed) {
            assert_eq!(framed[..2], OWN_CHANNEL);
            let Ok(message) = Message::parse(&framed[4..len]) else { continue };
            match message.class() {
                Class::Success if message.transaction_id() == id => return true,
                Class::Request => {
                    *checks_seen += 1;
                    let from = self.socket.local_addr().expect("bound");
                    let len = write_binding_success(&mut bytes, message.transaction_id(), from, &key).expect("room");
                    self.send_on_channel(&bytes[..len]);
                }
                _ => {}
            }
        }
        false
    }
}

#[test]
fn clients_reach_our_own_media_both_ways_on_every_link() {
    for (link, port_min) in [(LinkChoice::Auto, 43_000), (LinkChoice::Mmsg, 44_000)] {
        let listener = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback");
        let settings =
            Settings { workers: 1, pin: false, base_port: 0, link, turn: vec![listener], ..Settings::default() };
        let (mut plane, hello) = Plane::start(settings).expect("starts");
        let media = hello.workers[0].addresses[0];
        let mut spec = spec(port_min);
        spec.relay.workers = 1;
        spec.peers.own_media = vec![OwnMedia { address: media, worker: WorkerIndex(0) }];
        assert!(plane.send(Command::Turn(TurnCommand::Configure(Box::new(spec)))).is_ok());
        let remote = RemotePeer {
            ice: credentials("them"),
            fingerprints: vec![Fingerprint { hash: FingerprintHash::Sha256, value: vec![0; 32] }],
            role: DtlsRole::Client,
        };
        let transport = TransportSpec {
            id: TransportId(1),
            peer: PeerId(1),
            room: RoomId(1),
            side: Side::Publisher,
            local: credentials("ours"),
            remote: Some(remote),
            channels: None,
        };
        let order = Command::OpenTransport { worker: WorkerIndex(0), spec: Box::new(transport) };
        assert!(plane.send(order).is_ok());
        let mut caller = Caller::new(listener);
        caller.allocate();
        let answer = caller.ask(method::CHANNEL_BIND, |message| {
            message.attribute(attribute::CHANNEL_NUMBER, &[OWN_CHANNEL[0], OWN_CHANNEL[1], 0, 0]);
            message.xor_address(attribute::XOR_PEER_ADDRESS, media);
        });
        assert_eq!(Message::parse(&answer).expect("sound").class(), Class::Success);
        let mut checks_seen = 0;
        let answered = (0..20).filter(|&number| caller.is_answered(number, &mut checks_seen)).count();
        assert_eq!(answered, 20, "{link:?}");
        assert!(checks_seen > 0, "{link:?}: media proves the address by a check of its own");
    }
}
