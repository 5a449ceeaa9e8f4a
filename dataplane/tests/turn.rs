//! TURN over real sockets: a whole data plane on loopback, on both links, with a client and a peer that are plain UDP sockets.

#![allow(missing_docs, reason = "a test has no readers but itself")]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ringmain_dataplane::io::LinkChoice;
use ringmain_dataplane::packet::stun::{
    BindingRequest, Class, IntegrityKey, Message, MessageWriter, Role, TransactionId, attribute, method,
    write_binding_request, write_binding_success,
};
use ringmain_dataplane::plane::{Plane, Settings};
use ringmain_dataplane::turn::derive_keys;
use ringmain_shared::id::{PeerId, RoomId, TransportId, WorkerIndex};
use ringmain_shared::transport::{
    DtlsRole, Fingerprint, FingerprintHash, IceCredentials, RemotePeer, Side, TransportSpec,
};
use ringmain_shared::turn::{
    IpRange, OwnMedia, PasswordAlgorithms, PeerPolicy, RelayAddress, RelayMode, RelaySpec, TurnAllocation, TurnCommand,
    TurnCredential, TurnEvent, TurnFeatures, TurnLifetimes, TurnQuotas, TurnSpec,
};
use ringmain_shared::{Command, Event};

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
        third_party: None,
        binding: true,
        discovery: Vec::new(),
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

/// Takes in a datagram. The kernel's work for a ring that this thread once opened interrupts a wait without any signal.
fn receive(socket: &UdpSocket, bytes: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
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
        for _ in 0..5 {
            self.socket.send(&bytes[..len]).expect("loopback");
            let mut answer = vec![0; 1500];
            while let Ok((len, _)) = receive(&self.socket, &mut answer) {
                // On a busy host an answer may come after its request was repeated; media may send besides.
                let is_it = |message: Message<'_>| message.transaction_id() == TransactionId([self.transactions; 12]);
                if Message::parse(&answer[..len]).is_ok_and(is_it) {
                    answer.truncate(len);
                    return answer;
                }
            }
        }
        panic!("no answer");
    }

    fn allocate(&mut self) -> SocketAddr {
        let answer = self.allocate_with(&[]);
        Message::parse(&answer).expect("sound").xor_address(attribute::XOR_RELAYED_ADDRESS).expect("an address")
    }

    fn allocate_with(&mut self, more: &[(u16, &[u8])]) -> Vec<u8> {
        let udp = |message: &mut MessageWriter<'_>| message.attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        let challenge = self.ask(method::ALLOCATE, udp);
        self.nonce = Message::parse(&challenge).expect("sound").attribute(attribute::NONCE).expect("a nonce").to_vec();
        self.ask(method::ALLOCATE, |message| {
            udp(message);
            more.iter().for_each(|(attribute, value)| message.attribute(*attribute, value));
        })
    }
}

#[test]
fn clients_reach_peers_through_every_worker_on_every_link() {
    for (link, port_min) in [(LinkChoice::Auto, 15_100), (LinkChoice::Mmsg, 15_200)] {
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
                let (len, from) = receive(&peer, &mut bytes).expect("relayed");
                assert_eq!((&bytes[..len], from), (&data[..], relayed));
                peer.send_to(&data, relayed).expect("loopback");
                let (len, _) = receive(&caller.socket, &mut bytes).expect("relayed");
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

const PASSWORD: &str = "a password of 22 chars";

fn credentials(ufrag: &str) -> IceCredentials {
    IceCredentials { ufrag: ufrag.into(), pwd: PASSWORD.into() }
}

/// The number of a channel.
fn channel(place: u16) -> [u8; 2] {
    (0x4003 + place).to_be_bytes()
}

impl Caller {
    fn bind(&mut self, place: u16, peer: SocketAddr) {
        let answer = self.ask(method::CHANNEL_BIND, |message| {
            let [high, low] = channel(place);
            message.attribute(attribute::CHANNEL_NUMBER, &[high, low, 0, 0]);
            message.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        });
        assert_eq!(Message::parse(&answer).expect("sound").class(), Class::Success);
    }

    fn send_on_channel(&self, place: u16, data: &[u8]) {
        let framed = [&channel(place)[..], &(data.len() as u16).to_be_bytes(), data].concat();
        self.socket.send(&framed).expect("loopback");
    }

    /// Sends a check to a worker's media and takes what comes from there until its answer, answering the media's own checks, which are
    /// counted. False if it is not answered.
    fn is_answered(&self, worker: u16, ufrag: &str, number: u8, checks_seen: &mut [usize; 2]) -> bool {
        let id = TransactionId([number; 12]);
        let request = BindingRequest {
            transaction_id: id,
            remote_ufrag: ufrag,
            local_ufrag: "them",
            priority: 1,
            role: Role::Controlling(1, true),
        };
        let key = IntegrityKey::new(PASSWORD.as_bytes());
        let mut bytes = [0; 1500];
        let len = write_binding_request(&mut bytes, &request, &key).expect("room");
        self.send_on_channel(worker, &bytes[..len]);
        let mut framed = [0; 1500];
        while let Ok((len, _)) = receive(&self.socket, &mut framed) {
            let Ok(message) = Message::parse(&framed[4..len]) else { continue };
            let from_worker = u16::from_be_bytes([framed[0], framed[1]]) - 0x4003;
            match message.class() {
                Class::Success if message.transaction_id() == id => return from_worker == worker,
                Class::Request => {
                    checks_seen[usize::from(from_worker)] += 1;
                    let from = self.socket.local_addr().expect("bound");
                    let len = write_binding_success(&mut bytes, message.transaction_id(), from, &key).expect("room");
                    self.send_on_channel(from_worker, &bytes[..len]);
                }
                _ => {}
            }
        }
        false
    }

    /// From here on it is at another address. Its ticket from there on.
    fn move_on(&mut self, ticket: &[u8]) -> Vec<u8> {
        let server = self.socket.peer_addr().expect("connected");
        self.socket = Self::new(server).socket;
        let show = |message: &mut MessageWriter<'_>| message.attribute(attribute::MOBILITY_TICKET, ticket);
        let stale = self.ask(method::REFRESH, show);
        let stale = Message::parse(&stale).expect("sound");
        assert_eq!(stale.error_code(), Some(438), "a nonce is good at its address");
        self.nonce = stale.attribute(attribute::NONCE).expect("a nonce").to_vec();
        let moved = self.ask(method::REFRESH, show);
        let moved = Message::parse(&moved).expect("sound");
        assert_eq!(moved.error_code(), None);
        moved.attribute(attribute::MOBILITY_TICKET).expect("another one").to_vec()
    }
}

/// Two workers, a listener for both, and a transport on each of them for each caller. Where their media is.
fn with_media(link: LinkChoice, port_min: u16, listener: SocketAddr, callers: u64) -> (Plane, Vec<SocketAddr>) {
    let settings = Settings { workers: 2, pin: false, base_port: 0, link, turn: vec![listener], ..Settings::default() };
    let (mut plane, hello) = Plane::start(settings).expect("starts");
    let media: Vec<SocketAddr> = hello.workers.iter().map(|worker| worker.addresses[0]).collect();
    let mut spec = spec(port_min);
    spec.features = TurnFeatures { even_port: true, mobility: true, ..TurnFeatures::default() };
    spec.peers.own_media =
        media.iter().zip(0..).map(|(&address, index)| OwnMedia { address, worker: WorkerIndex(index) }).collect();
    assert!(plane.send(Command::Turn(TurnCommand::Configure(Box::new(spec)))).is_ok());
    for (worker, caller) in (0..2).flat_map(|worker| (0..callers).map(move |caller| (worker, caller))) {
        let remote = RemotePeer {
            ice: credentials("them"),
            fingerprints: vec![Fingerprint { hash: FingerprintHash::Sha256, value: vec![0; 32] }],
            role: DtlsRole::Client,
        };
        let id = 1 + 100 * u64::from(worker) + caller;
        let spec = TransportSpec {
            id: TransportId(id),
            peer: PeerId(id),
            room: RoomId(id),
            side: Side::Publisher,
            local: credentials(&format!("ours{caller}")),
            remote: Some(remote),
            channels: None,
        };
        let order = Command::OpenTransport { worker: WorkerIndex(worker), spec: Box::new(spec) };
        assert!(plane.send(order).is_ok());
    }
    // Each answers after what it was told before.
    assert!(allocations(&mut plane).is_empty());
    (plane, media)
}

/// Every allocation, as the workers list them.
fn allocations(plane: &mut Plane) -> Vec<TurnAllocation> {
    assert!(plane.send(Command::Turn(TurnCommand::Snapshot { request: 77 })).is_ok());
    let (mut rows, mut answers) = (Vec::new(), 0);
    for _ in 0..1000 {
        while let Some(event) = plane.try_recv() {
            if let Event::Turn(event) = event
                && let TurnEvent::Snapshot { request: 77, allocations, .. } = *event
            {
                rows.extend(allocations);
                answers += 1;
            }
        }
        if answers == 2 {
            return rows;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{answers} of two workers answered");
}

#[test]
fn clients_reach_the_media_of_every_worker_both_ways_on_every_link() {
    for (link, port_min) in [(LinkChoice::Auto, 15_300), (LinkChoice::Mmsg, 15_400)] {
        let listener = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback");
        let (mut plane, media) = with_media(link, port_min, listener, 6);
        let mut callers: Vec<Caller> = (0..6).map(|_| Caller::new(listener)).collect();
        for (caller, index) in callers.iter_mut().zip(0..) {
            let ufrag = format!("ours{index}");
            caller.allocate();
            (0..).zip(&media).for_each(|(worker, &media)| caller.bind(worker, media));
            let mut checks_seen = [0; 2];
            // Turn and turn about, so that whatever a way out has two of is tried.
            for number in 0..20 {
                let worker = u16::from(number % 2);
                let answered = caller.is_answered(worker, &ufrag, number, &mut checks_seen);
                assert!(answered, "{link:?}: {number} of caller {index}");
            }
            assert!(
                checks_seen.iter().all(|&seen| seen > 0),
                "{link:?}: media proves the address by checks of its own"
            );
        }
        let rows = allocations(&mut plane);
        assert_eq!(rows.len(), 6);
        for row in rows {
            assert_eq!((row.sockets, row.channels), (0, 2), "{link:?}: our own media takes no relay socket");
            assert_eq!(row.traffic.shortcut, row.traffic.to_peers + row.traffic.to_clients);
            assert!(row.traffic.to_peers >= 20 && row.traffic.to_clients >= 20, "{link:?}: {:?}", row.traffic);
        }
        plane.shutdown();
    }
}

/// So many that not all are of one worker.
const CALLERS: usize = 20;

#[test]
fn clients_reach_each_other_whichever_workers_they_are_on_on_every_link() {
    for (link, port_min) in [(LinkChoice::Auto, 15_800), (LinkChoice::Mmsg, 15_900)] {
        let listener = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback");
        let settings =
            Settings { workers: 2, pin: false, base_port: 0, link, turn: vec![listener], ..Settings::default() };
        let (mut plane, _) = Plane::start(settings).expect("starts");
        let mut spec = spec(port_min);
        spec.peers.relayed = true;
        assert!(plane.send(Command::Turn(TurnCommand::Configure(Box::new(spec)))).is_ok());
        // The kernel gives each to a worker by its port.
        let mut callers: Vec<Caller> = (0..CALLERS).map(|_| Caller::new(listener)).collect();
        let relayed: Vec<SocketAddr> = callers.iter_mut().map(Caller::allocate).collect();
        for caller in &mut callers {
            (0..).zip(&relayed).for_each(|(place, &peer)| caller.bind(place, peer));
        }
        for (from, sender) in callers.iter().enumerate() {
            for (to, receiver) in callers.iter().enumerate() {
                for size in [1usize, 100, 1400] {
                    let data = vec![(16 * from + to) as u8; size];
                    sender.send_on_channel(to as u16, &data);
                    let mut bytes = [0; 1500];
                    let (len, _) = receive(&receiver.socket, &mut bytes).expect("handed over");
                    let header = [&channel(from as u16)[..], &(size as u16).to_be_bytes()].concat();
                    assert_eq!(bytes[..len], [header, data].concat(), "{link:?}: from {from} to {to}");
                }
            }
        }
        let rows = allocations(&mut plane);
        assert_eq!(rows.len(), CALLERS);
        // The worker is in front in an allocation's number.
        assert!((0..2).all(|worker| rows.iter().any(|row| row.id.0 >> 48 == worker)), "{rows:?}");
        for row in rows {
            assert_eq!((row.traffic.to_peers, row.traffic.to_clients), (3 * CALLERS as u64, 3 * CALLERS as u64));
            assert_eq!(row.traffic.shortcut, 6 * CALLERS as u64, "{link:?}: none of it took a relay socket");
        }
        plane.shutdown();
    }
}

#[test]
fn clients_that_move_are_found_whichever_worker_they_come_to_on_every_link() {
    for (link, port_min) in [(LinkChoice::Auto, 15_500), (LinkChoice::Mmsg, 15_600)] {
        let listener = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback");
        let (mut plane, media) = with_media(link, port_min, listener, 1);
        let mut caller = Caller::new(listener);
        let answer = caller.allocate_with(&[(attribute::MOBILITY_TICKET, &[])]);
        let ticket = Message::parse(&answer).expect("sound").attribute(attribute::MOBILITY_TICKET).map(<[u8]>::to_vec);
        let mut ticket = ticket.expect("one");
        (0..).zip(&media).for_each(|(worker, &media)| caller.bind(worker, media));
        let mut checks_seen = [0; 2];
        for number in 0..10 {
            ticket = caller.move_on(&ticket);
            for worker in 0..2 {
                let answered = caller.is_answered(worker, "ours0", 2 * number + worker as u8, &mut checks_seen);
                assert!(answered, "{link:?}: worker {worker} after move {number}");
            }
        }
        let rows = allocations(&mut plane);
        assert_eq!((rows.len(), rows[0].client), (1, caller.socket.local_addr().expect("bound")));
        caller.ask(method::REFRESH, |message| message.attribute(attribute::LIFETIME, &[0; 4]));
        assert!(allocations(&mut plane).is_empty());
        plane.shutdown();
    }
}

#[test]
fn pairs_of_ports_are_had_whichever_worker_the_second_client_comes_to() {
    let listener = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback");
    let (plane, _) = with_media(LinkChoice::Auto, 15_700, listener, 0);
    for _ in 0..10 {
        let pair = Caller::new(listener).allocate_with(&[(attribute::EVEN_PORT, &[0x80])]);
        let pair = Message::parse(&pair).expect("sound");
        let token = pair.attribute(attribute::RESERVATION_TOKEN).expect("one");
        let second = Caller::new(listener).allocate_with(&[(attribute::RESERVATION_TOKEN, token)]);
        let port = |message: &Message<'_>| message.xor_address(attribute::XOR_RELAYED_ADDRESS).map(|to| to.port());
        let (first, second) = (port(&pair), port(&Message::parse(&second).expect("sound")));
        assert_eq!(second, first.map(|port| port + 1));
    }
    plane.shutdown();
}
