//! A server in a test: clients that speak as RFC 8656 has it, peers, and sockets that open when asked for.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ringmain_shared::id::WorkerIndex;
use ringmain_shared::turn::{
    OwnMedia, PasswordAlgorithms, PeerPolicy, RelayAddress, RelayMode, RelaySpec, TurnCredential, TurnEvent,
    TurnFeatures, TurnLifetimes, TurnQuotas, TurnSecret, TurnSpec, TurnTransport,
};
use ringmain_shared::{DropReason, Now};

use crate::io::memory::MemoryLink;
use crate::io::{Link, Path, SocketIndex};
use crate::packet::stun::{
    Class, IntegrityKey, IntegrityKey256, Message, MessageWriter, TransactionId, attribute, method,
};
use crate::stream::StreamId;
use crate::turn::{Client, ForMedia, Ledger, LinkChange, PeerRequest, RelayKey, SocketRequest, Turn, derive_keys};

pub(super) const UNIX: u64 = 1_800_000_000;
pub(super) const RELAY_V4: &str = "198.51.100.1";
pub(super) const RELAY_V6: &str = "2001:db8::1";
pub(super) const MEDIA: &str = "198.51.100.1:5000";

pub(super) fn spec() -> TurnSpec {
    let address = |ip: &str| RelayAddress { bind: ip.parse().unwrap(), announce: ip.parse().unwrap() };
    TurnSpec {
        realm: "ring".into(),
        users: ["alice", "bob"].map(|user| credential(user, user)).into(),
        secrets: vec![TurnSecret(b"north".to_vec())],
        third_party: None,
        binding: true,
        discovery: Vec::new(),
        password_algorithms: PasswordAlgorithms::WhenCheap,
        peers: PeerPolicy {
            own_media: vec![OwnMedia { address: MEDIA.parse().unwrap(), worker: WorkerIndex(0) }],
            listeners: vec!["198.51.100.1:3478".parse().unwrap()],
            open: true,
            ..PeerPolicy::default()
        },
        relay: RelaySpec {
            addresses: vec![address(RELAY_V4), address(RELAY_V6)],
            port_min: 10_000,
            port_max: 10_099,
            workers: 1,
            mode: RelayMode::PerAllocation,
        },
        quotas: TurnQuotas::default(),
        lifetimes: TurnLifetimes::default(),
        features: TurnFeatures { even_port: true, mobility: true, tcp_relay: true },
    }
}

pub(super) fn credential(username: &str, user: &str) -> TurnCredential {
    let keys = derive_keys(username, "ring", &format!("{username}'s"));
    TurnCredential { username: username.into(), keys, user: user.into(), bound: None, expires: None }
}

pub(super) struct World {
    pub(super) turn: Turn,
    pub(super) link: MemoryLink,
    pub(super) now: Now,
    pub(super) sent: Vec<(Path, Vec<u8>)>,
    pub(super) sockets: HashMap<SocketIndex, (RelayKey, SocketAddr)>,
    /// Sockets that were asked for, and those that were to be had.
    pub(super) asked: usize,
    pub(super) opened: usize,
    /// Ports that somebody else has.
    pub(super) foreign: HashSet<u16>,
    pub(super) links: HashMap<SocketIndex, usize>,
    pub(super) media: Vec<(Path, Vec<u8>)>,
    /// Where peers may connect.
    pub(super) listeners: HashMap<RelayKey, SocketAddr>,
    /// What else the stream thread was asked.
    pub(super) peer_requests: Vec<PeerRequest>,
    next_socket: u16,
    transactions: u64,
}

impl World {
    pub(super) fn new(spec: TurnSpec) -> Self {
        let seed = [1; 32];
        Self {
            turn: Turn::new(Arc::new(Ledger::new(seed)), WorkerIndex(0), spec, UNIX * 1_000_000_000, seed),
            link: MemoryLink::new(),
            now: Now::from_millis(1_000_000),
            sent: Vec::new(),
            sockets: HashMap::new(),
            asked: 0,
            opened: 0,
            foreign: HashSet::new(),
            links: HashMap::new(),
            media: Vec::new(),
            listeners: HashMap::new(),
            peer_requests: Vec::new(),
            next_socket: 8,
            transactions: 0,
        }
    }

    pub(super) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while self.turn.next_deadline() <= until {
            self.now = self.now.max(self.turn.next_deadline());
            self.turn.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
    }

    /// A datagram of a client's. What is sent for it is in `sent`.
    pub(super) fn say(&mut self, client: Client, bytes: &[u8]) -> Result<Option<ForMedia>, DropReason> {
        let (_, out) = self.link.parts();
        let result = self.turn.handle_client(client, bytes, self.now, out);
        if let Ok(Some(media)) = &result {
            self.media.push((media.path, bytes[media.payload.clone()].to_vec()));
        }
        self.settle();
        result
    }

    /// A datagram of a peer's to a relayed address.
    pub(super) fn peer_says(&mut self, relayed: SocketAddr, from: &str, bytes: &[u8]) -> Result<(), DropReason> {
        let socket = self.sockets.iter().find(|(_, (_, address))| *address == relayed).map(|(&socket, _)| socket);
        let (_, out) = self.link.parts();
        let socket = socket.ok_or(DropReason::TurnNoRelay)?;
        let result = self.turn.handle_peer(socket, from.parse().unwrap(), bytes, self.now, out);
        self.settle();
        result
    }

    /// A peer connects to a relayed address.
    pub(super) fn peer_connects(
        &mut self,
        relayed: SocketAddr,
        from: &str,
        stream: StreamId,
    ) -> Result<(), DropReason> {
        let listener = self.listeners.iter().find(|(_, address)| **address == relayed);
        let (&relay, _) = listener.ok_or(DropReason::TurnNoRelay)?;
        let (_, out) = self.link.parts();
        let result = self.turn.handle_arrived(relay, stream, from.parse().unwrap(), self.now, out);
        self.settle();
        result
    }

    /// Our own media sends to where it heard from, if it can.
    pub(super) fn media_says(&mut self, path: Path, bytes: &[u8]) -> Option<DropReason> {
        let (_, out) = self.link.parts();
        out.batch().links().begin_turn(self.now);
        let sent = out.batch().reserve(path, bytes.len()).map(|mut slot| {
            slot.bytes_mut().copy_from_slice(bytes);
            slot.commit(bytes.len());
        });
        self.settle();
        sent.err()
    }

    pub(super) fn settle(&mut self) {
        loop {
            self.settle_peers();
            let requests = std::mem::take(self.turn.socket_requests());
            if requests.is_empty() && self.turn.peer_requests().is_empty() {
                break;
            }
            for request in requests {
                match request {
                    SocketRequest::Open { relay, address, .. } => {
                        self.asked += 1;
                        let socket = (!self.foreign.contains(&address.port())).then(|| {
                            self.next_socket += 1;
                            self.opened += 1;
                            SocketIndex(self.next_socket)
                        });
                        if let Some(socket) = socket {
                            self.sockets.insert(socket, (relay, address));
                        }
                        let (_, out) = self.link.parts();
                        self.turn.handle_socket(relay, socket, self.now, out);
                    }
                    SocketRequest::Close(socket) => assert!(self.sockets.remove(&socket).is_some(), "it was open"),
                }
            }
        }
        let (_, out) = self.link.parts();
        for change in self.turn.link_changes().drain(..) {
            match change {
                LinkChange::Limit(link, budgets) => out.batch().links().limit(link, budgets),
                LinkChange::Set(path, prefix) => {
                    *self.links.entry(path.socket).or_default() += 1;
                    out.batch().links().set(path, prefix);
                }
                LinkChange::Closed(path) => {
                    self.links.remove(&path.socket);
                    out.batch().links().set(path, None);
                }
            }
        }
        out.batch().links().drain_traffic(|socket, datagrams, bytes| self.turn.count_link(socket, datagrams, bytes));
        out.flush();
        let sent = &mut self.sent;
        out.diverted().drain(|path, bytes| sent.push((path, bytes.to_vec())));
        self.sent.extend(self.link.take());
    }

    fn settle_peers(&mut self) {
        for request in std::mem::take(self.turn.peer_requests()) {
            match request {
                PeerRequest::Listen { relay, address } => {
                    self.asked += 1;
                    let listens = !self.foreign.contains(&address.port());
                    if listens {
                        assert_eq!(self.listeners.insert(relay, address), None, "once");
                    }
                    let (_, out) = self.link.parts();
                    self.turn.handle_listening(relay, listens, self.now, out);
                }
                PeerRequest::StopListening { relay } => _ = self.listeners.remove(&relay),
                other => self.peer_requests.push(other),
            }
        }
    }

    /// What was sent since this was last asked.
    pub(super) fn take(&mut self) -> Vec<(Path, Vec<u8>)> {
        std::mem::take(&mut self.sent)
    }

    pub(super) fn events(&mut self) -> Vec<TurnEvent> {
        std::mem::take(self.turn.events())
    }

    pub(super) fn transaction(&mut self) -> TransactionId {
        self.transactions += 1;
        let mut id = [7; 12];
        id[4..].copy_from_slice(&self.transactions.to_be_bytes());
        TransactionId(id)
    }
}

pub(super) fn client(number: u16) -> Client {
    Client {
        path: Path { socket: SocketIndex(3), remote: ([192, 0, 2, 1], 20_000 + number).into() },
        transport: TurnTransport::Udp,
    }
}

/// One that comes by TCP.
pub(super) fn stream_client(number: u16) -> Client {
    let path = Path { socket: SocketIndex(SocketIndex::TURN_STREAM_FIRST + number), ..client(number).path };
    Client { path, transport: TurnTransport::Tcp }
}

/// How a request proves who it is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Proof {
    Md5,
    /// MESSAGE-INTEGRITY-SHA256 under the MD5 key.
    Sha256,
    /// The same under the SHA-256 key, with PASSWORD-ALGORITHM.
    Algorithm,
    /// With the hash of the name besides.
    Hash,
}

/// One client, and what it knows.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) client: Client,
    pub(super) username: String,
    pub(super) password: String,
    pub(super) nonce: Vec<u8>,
    pub(super) proof: Proof,
    pub(super) fingerprint: bool,
    /// What it brings instead of a password.
    pub(super) bearer: Option<Bearer>,
}

/// A token, unless it keeps that to itself, and the key that its messages are proved with.
#[derive(Clone, Debug)]
pub(super) struct Bearer {
    pub(super) token: Option<Vec<u8>>,
    pub(super) key: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    pub(super) client: Client,
}

impl Answer {
    pub(super) fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).expect("ours are right")
    }

    /// 0 is success.
    pub(super) fn code(&self) -> u16 {
        match self.message().class() {
            Class::Success => 0,
            Class::Error => self.message().error_code().expect("an error says which"),
            class => panic!("{class:?} is no answer"),
        }
    }

    pub(super) fn relayed(&self) -> SocketAddr {
        self.message().xor_address(attribute::XOR_RELAYED_ADDRESS).expect("an address")
    }

    pub(super) fn lifetime(&self) -> u32 {
        u32::from_be_bytes(self.message().attribute(attribute::LIFETIME).expect("one").try_into().expect("four bytes"))
    }
}

pub(super) type Attribute = (u16, Vec<u8>);

impl Caller {
    pub(super) fn new(number: u16, username: &str) -> Self {
        Self {
            client: client(number),
            username: username.into(),
            password: format!("{username}'s"),
            nonce: Vec::new(),
            proof: Proof::Md5,
            fingerprint: false,
            bearer: None,
        }
    }

    /// Asks without a proof, and takes the nonce of the answer.
    pub(super) fn learn(&mut self, world: &mut World) {
        let bytes = raw(
            method::ALLOCATE,
            world.transaction(),
            &[(attribute::REQUESTED_TRANSPORT, vec![17, 0, 0, 0]), padding()],
        );
        world.say(self.client, &bytes).expect("within the budget");
        let (path, bytes) = world.take().pop().expect("a challenge");
        assert_eq!(path, self.client.path);
        let message = Message::parse(&bytes).expect("ours are right");
        assert_eq!(message.attribute(attribute::REALM), Some(&b"ring"[..]));
        self.nonce = message.attribute(attribute::NONCE).expect("a nonce").to_vec();
    }

    /// What its messages, and the answers to them, are proved with.
    fn key(&self) -> Vec<u8> {
        let keys = derive_keys(&self.username, "ring", &self.password);
        match (&self.bearer, self.proof) {
            (Some(bearer), _) => bearer.key.clone(),
            (None, Proof::Md5 | Proof::Sha256) => keys.md5.to_vec(),
            (None, Proof::Algorithm | Proof::Hash) => keys.sha256.to_vec(),
        }
    }

    /// A whole request.
    pub(super) fn request(&self, method: u16, id: TransactionId, attributes: &[Attribute]) -> Vec<u8> {
        let mut bytes = vec![0; 1400];
        let mut message = MessageWriter::new(&mut bytes, Class::Request, method, id);
        attributes.iter().for_each(|(attribute, value)| message.attribute(*attribute, value));
        if self.proof == Proof::Hash {
            let hash =
                aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("{}:ring", self.username).as_bytes());
            message.attribute(attribute::USERHASH, hash.as_ref());
        } else {
            message.attribute(attribute::USERNAME, self.username.as_bytes());
        }
        message.attribute(attribute::REALM, b"ring");
        message.attribute(attribute::NONCE, &self.nonce);
        if matches!(self.proof, Proof::Algorithm | Proof::Hash) {
            message.attribute(attribute::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0]);
            message.attribute(attribute::PASSWORD_ALGORITHM, &[0, 2, 0, 0]);
        }
        let token = self.bearer.as_ref().and_then(|bearer| bearer.token.as_ref());
        if let Some(token) = token.filter(|_| matches!(method, method::ALLOCATE | method::REFRESH)) {
            message.attribute(attribute::ACCESS_TOKEN, token);
        }
        match self.proof {
            Proof::Md5 => message.integrity(&IntegrityKey::new(&self.key())),
            _ => message.integrity_sha256(&IntegrityKey256::new(&self.key())),
        }
        let len = if self.fingerprint { message.finish() } else { message.finish_bare() }.expect("room");
        bytes.truncate(len);
        bytes
    }

    /// Asks, and hands out the answer, which proves that it is the server's.
    pub(super) fn ask(&mut self, world: &mut World, method: u16, attributes: &[Attribute]) -> Answer {
        if self.nonce.is_empty() {
            self.learn(world);
        }
        let id = world.transaction();
        self.ask_as(world, method, id, attributes)
    }

    pub(super) fn ask_as(
        &mut self,
        world: &mut World,
        method: u16,
        id: TransactionId,
        attributes: &[Attribute],
    ) -> Answer {
        let bytes = self.request(method, id, attributes);
        world.say(self.client, &bytes).expect("an answer");
        let (path, bytes) = world.take().pop().expect("an answer");
        assert_eq!(path, self.client.path);
        let answer = Answer { bytes, client: self.client };
        let message = answer.message();
        assert_eq!((message.method(), message.transaction_id()), (method, id));
        assert_eq!(message.has_fingerprint(), self.fingerprint);
        if message.has_integrity() {
            message.verify_integrity(&IntegrityKey::new(&self.key())).expect("the server's");
        } else if message.has_integrity_sha256() {
            message.verify_integrity_sha256(&IntegrityKey256::new(&self.key())).expect("the server's");
        } else {
            assert!(
                matches!(answer.code(), 400 | 401 | 420 | 438),
                "only strangers get answers without a proof: {}",
                answer.code()
            );
        }
        answer
    }

    pub(super) fn allocate(&mut self, world: &mut World) -> Answer {
        self.ask(world, method::ALLOCATE, &[udp()])
    }

    pub(super) fn permit(&mut self, world: &mut World, peers: &[&str]) -> u16 {
        let id = world.transaction();
        let peers: Vec<Attribute> = peers.iter().map(|peer| self.peer(peer, id)).collect();
        self.ask_as(world, method::CREATE_PERMISSION, id, &peers).code()
    }

    pub(super) fn bind(&mut self, world: &mut World, number: u16, peer: &str) -> u16 {
        let id = world.transaction();
        let attributes = [channel(number), self.peer(peer, id)];
        self.ask_as(world, method::CHANNEL_BIND, id, &attributes).code()
    }

    pub(super) fn refresh(&mut self, world: &mut World, seconds: u32) -> Answer {
        self.ask(world, method::REFRESH, &[lifetime(seconds)])
    }

    /// A Send indication.
    pub(super) fn send(&self, world: &mut World, peer: &str, data: &[u8]) -> Result<Option<ForMedia>, DropReason> {
        let id = world.transaction();
        let mut bytes = vec![0; 1600];
        let mut message = MessageWriter::new(&mut bytes, Class::Indication, method::SEND, id);
        message.attribute(attribute::XOR_PEER_ADDRESS, &self.peer(peer, id).1);
        message.attribute(attribute::DATA, data);
        let len = message.finish_bare().expect("room");
        world.say(self.client, &bytes[..len])
    }

    pub(super) fn channel_data(
        &self,
        world: &mut World,
        number: u16,
        data: &[u8],
    ) -> Result<Option<ForMedia>, DropReason> {
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
        world.say(self.client, &bytes)
    }

    /// XOR-PEER-ADDRESS, which depends on the transaction; IPv4-mapped addresses stay IPv6.
    pub(super) fn peer(&self, peer: &str, id: TransactionId) -> Attribute {
        (attribute::XOR_PEER_ADDRESS, xor_peer(peer.parse().unwrap_or_else(|_| panic!("{peer}")), id))
    }
}

/// The value of XOR-PEER-ADDRESS, of IPv6 if the address has that form.
pub(super) fn xor_peer(address: SocketAddr, id: TransactionId) -> Vec<u8> {
    let mut mask = 0x2112_a442u32.to_be_bytes().to_vec();
    mask.extend(id.0);
    let (family, octets) = match address.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let mut value = vec![0, family];
    value.extend((address.port() ^ 0x2112).to_be_bytes());
    value.extend(octets.iter().zip(&mask).map(|(octet, mask)| octet ^ mask));
    value
}

/// A message without a proof.
pub(super) fn raw(method: u16, id: TransactionId, attributes: &[Attribute]) -> Vec<u8> {
    let mut bytes = vec![0; 16 * 1024];
    let mut message = MessageWriter::new(&mut bytes, Class::Request, method, id);
    attributes.iter().for_each(|(attribute, value)| message.attribute(*attribute, value));
    let len = message.finish_bare().expect("room");
    bytes.truncate(len);
    bytes
}

pub(super) fn udp() -> Attribute {
    (attribute::REQUESTED_TRANSPORT, vec![17, 0, 0, 0])
}

pub(super) fn tcp() -> Attribute {
    (attribute::REQUESTED_TRANSPORT, vec![6, 0, 0, 0])
}

pub(super) fn lifetime(seconds: u32) -> Attribute {
    (attribute::LIFETIME, seconds.to_be_bytes().to_vec())
}

pub(super) fn channel(number: u16) -> Attribute {
    let [high, low] = number.to_be_bytes();
    (attribute::CHANNEL_NUMBER, vec![high, low, 0, 0])
}

/// SOFTWARE as clients have it, which makes a request long enough for a full challenge.
pub(super) fn padding() -> Attribute {
    (attribute::SOFTWARE, vec![b'x'; 32])
}
