//! A TURN server: any bytes to its three doors; and a conversation of clients and peers beside a model that is as simple as RFC 8656
//! allows, which must agree with it on every answer and on where every datagram goes.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::io::{Link, Path, SocketIndex};
use ringmain_dataplane::packet::stun::{Class, IntegrityKey, Message, MessageWriter, TransactionId, attribute, method};
use ringmain_dataplane::turn::{Client, ForMedia, Ledger, LinkChange, SocketRequest, Turn, derive_keys};
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::turn::{
    DiscoveryListener, OwnMedia, PasswordAlgorithms, PeerPolicy, RelayAddress, RelayMode, RelaySpec, TurnCredential,
    TurnFeatures, TurnLifetimes, TurnQuotas, TurnSpec, TurnTransport,
};
use ringmain_shared::{DropReason, Now};

use crate::input::Input;
use crate::turn_tcp::PeerSide;

/// Steps of one input.
const STEPS_MAX: usize = 512;
/// Seconds since 1970 at the start.
pub(crate) const UNIX: u64 = 1_800_000_000;
const MEDIA: &str = "198.51.100.1:5000";
pub(crate) const USERS: [&str; 2] = ["alice", "bob"];
/// Allocations that a user may make in a second.
const ALLOCATES_PER_SECOND: u32 = 3;
/// A user's bandwidth, which a few datagrams use up.
const MS_PER_BYTE: u64 = 20;

/// Any bytes, from one client and one peer, to a server with every feature.
pub fn turn(data: &[u8]) {
    let mut input = Input::new(data);
    let mut spec = spec(TurnFeatures { even_port: true, mobility: true, tcp_relay: true });
    spec.discovery = discovery().into();
    let mut host = Host::new(spec);
    host.turn.share_sockets(1..5);
    let mut nonce = Vec::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            return;
        }
        let op = input.u8();
        let mut from = client(op >> 6);
        if op >> 7 == 1 {
            from = crate::turn_tcp::client(op >> 6);
        }
        match op & 7 {
            0..=2 => {
                let bytes = input.chunk();
                let sent = host.say(from, bytes).1;
                if host.turn.stats().allocations == 0 {
                    let replies: usize = sent.iter().map(|(_, bytes)| bytes.len()).sum();
                    assert!(replies <= bytes.len().max(20) * 8, "{replies} bytes for {}", bytes.len());
                    let is_answer = |path: &Path| {
                        let (to, asked_from) = (path.remote, from.path.remote);
                        to == asked_from || to.ip() == asked_from.ip() && to.port() >= 1024
                    };
                    assert!(sent.iter().all(|(path, _)| is_answer(path)), "{sent:?} for {from:?}");
                }
            }
            // The fuzzer's attributes under a proof that is right.
            3..=5 => {
                if nonce.is_empty() {
                    nonce = host.learn(from);
                }
                let method = [
                    method::ALLOCATE,
                    method::REFRESH,
                    method::CREATE_PERMISSION,
                    method::CHANNEL_BIND,
                    method::CONNECT,
                    method::CONNECTION_BIND,
                ][usize::from(op >> 3 & 7) % 6];
                let count = input.u8() % 6;
                let attributes: Vec<(u16, &[u8])> = (0..count).map(|_| (input.u16(), input.chunk())).collect();
                let bytes = host.request(method, 0, &nonce, |message| {
                    attributes.iter().for_each(|(attribute, value)| message.attribute(*attribute, value));
                });
                let _ = host.say(from, &bytes).0;
            }
            6 if op & 8 != 0 => host.peer_side_acts(input.u8(), input.u8()),
            6 => {
                let relayed = host.sockets.keys().next().copied();
                let bytes = input.chunk();
                if let Some(relayed) = relayed {
                    let _ = host.peer_says(relayed, foreign(op >> 3), bytes);
                }
            }
            _ => host.wait(Duration::from_secs(u64::from(input.u16()))),
        }
    }
}

/// Clients and peers that keep to the protocol, in any order.
pub fn turn_model(data: &[u8]) {
    let mut input = Input::new(data);
    let mut spec = spec(TurnFeatures::default());
    spec.quotas.allocates_per_user_second = ALLOCATES_PER_SECOND;
    spec.quotas.user_bps = 8000 / MS_PER_BYTE;
    spec.peers.relayed = true;
    let mut scene = Scene {
        host: Host::new(spec),
        clients: Default::default(),
        nonces: HashMap::new(),
        links: HashMap::new(),
        made: [(0, 0); 2],
        owed_ms: [0; 2],
    };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        scene.step(&mut input);
    }
    scene.host.wait(Duration::from_secs(4000));
    assert!(scene.host.sockets.is_empty(), "what is over has no socket");
    assert_eq!(scene.host.turn.stats().allocations, 0);
}

/// What an allocation is.
#[derive(Default)]
struct Model {
    user: usize,
    relayed: Option<SocketAddr>,
    expires: u64,
    permissions: BTreeMap<IpAddr, u64>,
    channels: BTreeMap<u16, (SocketAddr, u64)>,
    has_socket: bool,
}

struct Scene {
    host: Host,
    clients: [Option<Model>; 4],
    nonces: HashMap<u8, (u64, Vec<u8>)>,
    /// Which client our media hears by a path.
    links: HashMap<Path, u8>,
    /// The second of each user's last Allocate, and how many there were in it.
    made: [(u64, u32); 2],
    /// How long it takes until what each user has relayed is paid for.
    owed_ms: [u64; 2],
}

impl Scene {
    fn step(&mut self, input: &mut Input<'_>) {
        let (op, who) = (input.u8(), input.u8());
        let (number, user) = (who % 4, usize::from(who >> 2 & 1));
        match op % 8 {
            0 => self.allocate(number, user),
            1 => self.refresh(number, user, u32::from(input.u8()) * 20),
            2 => {
                let peers: Vec<SocketAddr> = (0..input.u8() % 4).map(|_| self.peer(input.u8())).collect();
                self.permit(number, user, &peers);
            }
            3 => self.bind(number, user, 0x4000 + u16::from(input.u8() % 4), self.peer(input.u8())),
            4 => self.send(number, self.peer(input.u8())),
            5 => self.channel_data(number, 0x4000 + u16::from(input.u8() % 4)),
            6 => self.peer_says(number, self.peer(input.u8())),
            _ => {
                let seconds = u64::from(input.u8()) * 3;
                self.host.wait(Duration::from_secs(seconds));
                self.owed_ms = self.owed_ms.map(|owed| owed.saturating_sub(seconds * 1000));
                let now = self.now();
                for client in &mut self.clients {
                    client.take_if(|model| model.expires <= now);
                }
            }
        }
        let live = self.clients.iter().flatten().count();
        assert_eq!(self.host.turn.stats().allocations, live as u64);
        assert_eq!(self.host.sockets.len(), self.clients.iter().flatten().filter(|model| model.has_socket).count());
    }

    fn now(&self) -> u64 {
        self.host.now.as_millis() / 1000
    }

    /// Those that there always are, and the clients' own relayed addresses.
    fn peer(&self, which: u8) -> SocketAddr {
        let client = self.clients[usize::from(which >> 3 & 3)].as_ref().filter(|_| which & 7 == 5);
        client.and_then(|client| client.relayed).unwrap_or_else(|| peer(which))
    }

    fn ask(
        &mut self,
        number: u8,
        user: usize,
        method: u16,
        attributes: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Vec<u8> {
        let now = self.now();
        if self.nonces.get(&number).is_none_or(|(made, _)| made + 500 < now) {
            let nonce = self.host.learn(client(number));
            self.nonces.insert(number, (now, nonce));
        }
        let nonce = self.nonces[&number].1.clone();
        let bytes = self.host.request(method, user, &nonce, attributes);
        let (result, mut sent) = self.host.say(client(number), &bytes);
        assert_eq!(result, Ok(None));
        let (path, answer) = sent.pop().expect("every request is answered");
        assert_eq!((path, sent.len()), (client(number).path, 0));
        let message = Message::parse(&answer).expect("ours are right");
        let key = IntegrityKey::new(&derive_keys(USERS[user], "r", "pass").md5);
        assert_eq!(message.verify_integrity(&key), Ok(()));
        answer
    }

    fn allocate(&mut self, number: u8, user: usize) {
        let held = self.clients.iter().flatten().filter(|model| model.user == user).count();
        let now = self.now();
        let (second, made) = self.made[user];
        let made = if second == now { made } else { 0 };
        let expected = match &self.clients[usize::from(number)] {
            Some(_) => 437,
            None if held >= 2 || made >= ALLOCATES_PER_SECOND => 486,
            None => 0,
        };
        let answer = self.ask(number, user, method::ALLOCATE, udp);
        assert_eq!(code(&answer), expected);
        if expected == 0 {
            self.made[user] = (now, made + 1);
            let message = Message::parse(&answer).expect("sound");
            let relayed = message.xor_address(attribute::XOR_RELAYED_ADDRESS);
            assert!(relayed.is_some() && self.clients.iter().flatten().all(|model| model.relayed != relayed));
            self.clients[usize::from(number)] =
                Some(Model { user, relayed, expires: self.now() + 600, ..Model::default() });
        }
    }

    /// What there is to refuse before a request's own rules.
    fn refused(&self, number: u8, user: usize) -> Option<u16> {
        match &self.clients[usize::from(number)] {
            None => Some(437),
            Some(model) if model.user != user => Some(441),
            Some(_) => None,
        }
    }

    fn refresh(&mut self, number: u8, user: usize, seconds: u32) {
        let answer = self.ask(number, user, method::REFRESH, |message| {
            message.attribute(attribute::LIFETIME, &seconds.to_be_bytes())
        });
        assert_eq!(code(&answer), self.refused(number, user).unwrap_or(0));
        if self.refused(number, user).is_none() {
            let now = self.now();
            let place = &mut self.clients[usize::from(number)];
            match seconds {
                0 => *place = None,
                _ => place.iter_mut().for_each(|model| model.expires = now + u64::from(seconds.clamp(600, 3600))),
            }
        }
    }

    fn permit(&mut self, number: u8, user: usize, peers: &[SocketAddr]) {
        let answer = self.ask(number, user, method::CREATE_PERMISSION, |message| {
            peers.iter().for_each(|&peer| message.xor_address(attribute::XOR_PEER_ADDRESS, peer));
        });
        let now = self.now();
        let expected = self.refused(number, user).unwrap_or_else(|| {
            let model = self.clients[usize::from(number)].as_mut().expect("not refused");
            if let Some(code) = peers.iter().find_map(|&peer| forbidden(peer)) {
                return code;
            }
            if peers.is_empty() {
                return 400;
            }
            model.permissions.retain(|_, until| *until > now);
            let mut after = model.permissions.clone();
            after.extend(peers.iter().map(|peer| (peer.ip(), now + 300)));
            if after.len() > 3 {
                return 508;
            }
            model.permissions = after;
            model.has_socket |= peers.iter().any(|&peer| peer != media());
            0
        });
        assert_eq!(code(&answer), expected, "{peers:?}");
    }

    fn bind(&mut self, number: u8, user: usize, channel: u16, peer: SocketAddr) {
        let answer = self.ask(number, user, method::CHANNEL_BIND, |message| {
            let [high, low] = channel.to_be_bytes();
            message.attribute(attribute::CHANNEL_NUMBER, &[high, low, 0, 0]);
            message.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        });
        let now = self.now();
        let expected = self.refused(number, user).unwrap_or_else(|| {
            let model = self.clients[usize::from(number)].as_mut().expect("not refused");
            if let Some(code) = forbidden(peer) {
                return code;
            }
            model.channels.retain(|_, (_, until)| *until > now);
            model.permissions.retain(|_, until| *until > now);
            let conflicts = |(&other, &(bound, _)): (&u16, &(SocketAddr, u64))| (other == channel) != (bound == peer);
            if model.channels.iter().any(conflicts) {
                return 400;
            }
            let is_new = !model.channels.contains_key(&channel);
            if is_new && model.channels.len() >= 2 {
                return 508;
            }
            if !model.permissions.contains_key(&peer.ip()) && model.permissions.len() >= 3 {
                return 508;
            }
            model.channels.insert(channel, (peer, now + 600));
            model.permissions.insert(peer.ip(), now + 300);
            model.has_socket |= peer != media();
            0
        });
        assert_eq!(code(&answer), expected, "{channel:x} {peer}");
    }

    /// Whether the user of a client may relay so many bytes; if so, they are owed for.
    fn spend(&mut self, number: u8, bytes: u64) -> bool {
        let Some(model) = &self.clients[usize::from(number)] else { return false };
        let owed = &mut self.owed_ms[model.user];
        let granted = *owed <= 200;
        *owed += if granted { bytes * MS_PER_BYTE } else { 0 };
        granted
    }

    fn send(&mut self, number: u8, peer: SocketAddr) {
        let now = self.now();
        let expected = match &self.clients[usize::from(number)] {
            None => Err(DropReason::TurnNoAllocation),
            Some(_) if forbidden(peer) == Some(403) => Err(DropReason::TurnPeerForbidden),
            Some(model) if model.permissions.get(&peer.ip()).is_none_or(|until| *until <= now) => {
                Err(DropReason::TurnNoPermission)
            }
            // Our media has an address that others could have permissions for: its socket may come with the first datagram.
            Some(_) => Ok(peer),
        };
        let mut bytes = vec![0; 200];
        let mut message = MessageWriter::new(&mut bytes, Class::Indication, method::SEND, TransactionId([3; 12]));
        message.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        message.attribute(attribute::DATA, b"data");
        let len = message.finish_bare().expect("room");
        self.expect(number, &bytes[..len], expected);
    }

    fn channel_data(&mut self, number: u8, channel: u16) {
        let now = self.now();
        let expected = match &self.clients[usize::from(number)] {
            None => Err(DropReason::TurnNoAllocation),
            Some(model) => match model.channels.get(&channel) {
                Some(&(peer, until)) if until > now => Ok(peer),
                _ => Err(DropReason::TurnNoChannel),
            },
        };
        let [high, low] = channel.to_be_bytes();
        self.expect(number, &[high, low, 0, 4, b'd', b'a', b't', b'a'], expected);
    }

    /// A datagram of a client's goes where it should, or ends as it should.
    fn expect(&mut self, number: u8, bytes: &[u8], expected: Result<SocketAddr, DropReason>) {
        let now = self.now();
        let model = self.clients[usize::from(number)].as_ref();
        let relayed = model.and_then(|model| model.relayed);
        // RFC 8656 §12: a channel lasts longer than the permission that comes with it, and carries data to the peer only.
        let permitted = model.and_then(|model| model.permissions.get(&media().ip())).is_some_and(|until| *until > now);
        let expected = match expected {
            Ok(_) if !self.spend(number, 4) => Err(DropReason::TurnBandwidth),
            expected => expected,
        };
        let (result, sent) = self.host.say(client(number), bytes);
        match expected {
            Err(reason) => assert_eq!((result, sent.len()), (Err(reason), 0)),
            Ok(peer) if peer == media() => {
                let link = result.expect("permitted").expect("our media");
                assert_eq!((&bytes[link.payload], Some(link.path.remote)), (&b"data"[..], relayed));
                let known = *self.links.entry(link.path).or_insert(number);
                // A path that is used again belongs to another client's relayed address only after the former is gone.
                let former = self.clients[usize::from(known)].as_ref().and_then(|model| model.relayed);
                assert!(known == number || former != Some(link.path.remote));
                self.links.insert(link.path, number);
                let back = self.host.media_says(link.path);
                let paths: Option<Vec<_>> = back.map(|back| back.iter().map(|(path, _)| *path).collect());
                let goes = permitted && self.spend(number, 3);
                assert_eq!(
                    paths,
                    goes.then(|| vec![client(number).path]),
                    "a way back while it is permitted and paid for"
                );
            }
            // A permission for our media's address is one for relayed addresses, and asks for no socket: what is sent to them does.
            Ok(_) if let Some(model) = self.clients[usize::from(number)].as_mut().filter(|model| !model.has_socket) => {
                assert_eq!((result, sent.len()), (Err(DropReason::TurnNoRelay), 0));
                model.has_socket = true;
            }
            Ok(peer) if let Some(receiver) = self.client_at(peer) => {
                let from = relayed.expect("a client that may send has an address");
                self.arrives(receiver, from, b"data", result.map(|link| assert_eq!(link, None)), &sent);
            }
            Ok(peer) => {
                assert_eq!(result, Ok(None));
                let [(path, data)] = &sent[..] else { panic!("one datagram, not {sent:?}") };
                assert_eq!((path.remote, &data[..]), (peer, &b"data"[..]));
                assert_eq!(Some(self.host.sockets[&path.socket]), relayed, "from the client's own address");
            }
        }
    }

    /// Whose relayed address this is, if there is a socket.
    fn client_at(&self, relayed: SocketAddr) -> Option<u8> {
        self.host.sockets.values().find(|&&address| address == relayed)?;
        (0..)
            .zip(&self.clients)
            .find(|(_, model)| model.as_ref().is_some_and(|model| model.relayed == Some(relayed)))
            .map(|(number, _)| number)
    }

    fn peer_says(&mut self, number: u8, from: SocketAddr) {
        let Some(model) = &self.clients[usize::from(number)] else { return };
        let Some((&socket, _)) = self.host.sockets.iter().find(|(_, address)| Some(**address) == model.relayed) else {
            return;
        };
        let (result, sent) = self.host.peer_says(socket, from, b"reply");
        self.arrives(number, from, b"reply", result, &sent);
    }

    /// What came to a client's relayed address goes to the client, or ends as it should.
    fn arrives(&mut self, number: u8, from: SocketAddr, data: &[u8], result: Result<(), DropReason>, sent: &Sent) {
        let now = self.now();
        let Some(model) = &self.clients[usize::from(number)] else { return };
        let channel = model.channels.iter().find(|(_, (peer, until))| *peer == from && *until > now);
        let permitted = model.permissions.get(&from.ip()).is_some_and(|until| *until > now);
        if !permitted {
            assert_eq!((result, sent.len()), (Err(DropReason::TurnNoPermission), 0));
            return;
        }
        let channel = channel.map(|(number, _)| *number);
        if !self.spend(number, data.len() as u64) {
            assert_eq!((result, sent.len()), (Err(DropReason::TurnBandwidth), 0));
            return;
        }
        assert_eq!(result, Ok(()));
        let [(path, bytes)] = &sent[..] else { panic!("one datagram, not {sent:?}") };
        assert_eq!(*path, client(number).path);
        match channel {
            Some(number) => {
                let size = (data.len() as u16).to_be_bytes();
                assert_eq!(bytes[..], [&number.to_be_bytes()[..], &size, data].concat());
            }
            None => {
                let message = Message::parse(bytes).expect("ours are right");
                assert_eq!((message.class(), message.method()), (Class::Indication, method::DATA));
                assert_eq!(message.attribute(attribute::DATA), Some(data));
                assert_eq!(message.xor_address(attribute::XOR_PEER_ADDRESS), Some(from));
            }
        }
    }
}

/// Datagrams that left, and by which path.
pub(crate) type Sent = Vec<(Path, Vec<u8>)>;

/// A server, with sockets that open when asked for.
pub(crate) struct Host {
    pub(crate) turn: Turn,
    pub(crate) link: MemoryLink,
    pub(crate) now: Now,
    pub(crate) peer_side: PeerSide,
    sockets: BTreeMap<SocketIndex, SocketAddr>,
    next: u16,
    transactions: u64,
}

impl Host {
    pub(crate) fn new(spec: TurnSpec) -> Self {
        let ledger = Arc::new(Ledger::new([4; 32]));
        let turn = Turn::new(ledger, WorkerIndex(0), spec, UNIX * 1_000_000_000, [4; 32]);
        let now = Now::from_millis(1_000);
        let (link, peer_side) = (MemoryLink::new(), PeerSide::default());
        Self { turn, link, now, peer_side, sockets: BTreeMap::new(), next: 8, transactions: 0 }
    }

    pub(crate) fn say(&mut self, from: Client, bytes: &[u8]) -> (Result<Option<ForMedia>, DropReason>, Sent) {
        let (_, out) = self.link.parts();
        let result = self.turn.handle_client(from, bytes, self.now, out);
        (result, self.settle())
    }

    fn peer_says(&mut self, socket: SocketIndex, from: SocketAddr, bytes: &[u8]) -> (Result<(), DropReason>, Sent) {
        let (_, out) = self.link.parts();
        let result = self.turn.handle_peer(socket, from, bytes, self.now, out);
        (result, self.settle())
    }

    /// `None` when the link leads nowhere.
    fn media_says(&mut self, path: Path) -> Option<Sent> {
        let (_, out) = self.link.parts();
        out.batch().links().begin_turn(self.now);
        let mut slot = out.batch().reserve(path, 100).ok()?;
        slot.bytes_mut()[..3].copy_from_slice(b"abc");
        slot.commit(3);
        Some(self.settle())
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        for round in 0.. {
            let at = self.turn.next_deadline();
            if at > until {
                break;
            }
            assert!(round < 10_000, "deadlines without end");
            self.now = self.now.max(at);
            self.turn.handle_timeout(self.now);
            assert!(self.turn.next_deadline() > self.now, "a deadline stays behind");
            self.settle();
        }
        self.now = until;
    }

    pub(crate) fn settle(&mut self) -> Sent {
        self.settle_peer_side();
        while !self.turn.socket_requests().is_empty() {
            for request in std::mem::take(self.turn.socket_requests()) {
                match request {
                    SocketRequest::Open { relay, address, .. } => {
                        self.next += 1;
                        assert!(self.sockets.values().all(|open| *open != address), "a port twice");
                        self.sockets.insert(SocketIndex(self.next), address);
                        let (_, out) = self.link.parts();
                        self.turn.handle_socket(relay, Some(SocketIndex(self.next)), self.now, out);
                    }
                    SocketRequest::Close(socket) => assert!(self.sockets.remove(&socket).is_some()),
                }
            }
        }
        let (_, out) = self.link.parts();
        for change in self.turn.link_changes().drain(..) {
            match change {
                LinkChange::Limit(link, budgets) => out.batch().links().limit(link, budgets),
                LinkChange::Set(path, prefix) => out.batch().links().set(path, prefix),
                LinkChange::Closed(path) => out.batch().links().set(path, None),
            }
        }
        out.batch().links().drain_traffic(|link, datagrams, bytes| self.turn.count_link(link, datagrams, bytes));
        self.turn.events().clear();
        out.flush();
        let mut sent = self.link.take();
        let (_, out) = self.link.parts();
        out.diverted().drain(|path, bytes| sent.push((path, bytes.to_vec())));
        sent
    }

    pub(crate) fn request(
        &mut self,
        method: u16,
        user: usize,
        nonce: &[u8],
        attributes: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Vec<u8> {
        self.transactions += 1;
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.transactions.to_be_bytes());
        let mut bytes = vec![0; 512 * 1024];
        let mut message = MessageWriter::new(&mut bytes, Class::Request, method, TransactionId(id));
        attributes(&mut message);
        if !nonce.is_empty() {
            message.attribute(attribute::USERNAME, USERS[user].as_bytes());
            message.attribute(attribute::REALM, b"r");
            message.attribute(attribute::NONCE, nonce);
            message.integrity(&IntegrityKey::new(&derive_keys(USERS[user], "r", "pass").md5));
        }
        let len = message.finish_bare().expect("room");
        bytes.truncate(len);
        bytes
    }

    pub(crate) fn learn(&mut self, from: Client) -> Vec<u8> {
        let bytes = self.request(method::ALLOCATE, 0, &[], udp);
        let (_, answer) = self.say(from, &bytes).1.pop().expect("a challenge");
        let message = Message::parse(&answer).expect("ours are right");
        message.attribute(attribute::NONCE).expect("a nonce").to_vec()
    }
}

/// A server with two users.
pub(crate) fn spec(features: TurnFeatures) -> TurnSpec {
    let address =
        |ip: &str| RelayAddress { bind: ip.parse().expect("an address"), announce: ip.parse().expect("an address") };
    let user = |name: &&str| TurnCredential {
        username: (*name).into(),
        keys: derive_keys(name, "r", "pass"),
        user: (*name).into(),
        bound: None,
        expires: None,
    };
    TurnSpec {
        realm: "r".into(),
        users: USERS.iter().map(user).collect(),
        secrets: Vec::new(),
        third_party: None,
        binding: true,
        discovery: Vec::new(),
        password_algorithms: PasswordAlgorithms::Never,
        peers: PeerPolicy {
            own_media: vec![OwnMedia { address: media(), worker: WorkerIndex(0) }],
            open: true,
            ..PeerPolicy::default()
        },
        relay: RelaySpec {
            addresses: vec![address("198.51.100.1")],
            port_min: 10_000,
            port_max: 10_099,
            workers: 1,
            mode: RelayMode::PerAllocation,
        },
        quotas: TurnQuotas {
            allocations_per_user: 2,
            permissions: 3,
            channels: 2,
            connections: 2,
            connections_per_user: 3,
            connects_per_second: 0,
            replies_per_source: 0,
            replies: 0,
            ..TurnQuotas::default()
        },
        lifetimes: TurnLifetimes::default(),
        features,
    }
}

/// Two ports of two addresses (RFC 5780).
fn discovery() -> [Option<DiscoveryListener>; 4] {
    [0u8, 1, 2, 3].map(|number| {
        Some(DiscoveryListener {
            announce: ([198, 51, 100, 1 + number % 2], 3478 + u16::from(number / 2)).into(),
            other_address: u16::from(number ^ 1),
            other_port: u16::from(number ^ 2),
            other: u16::from(number ^ 3),
        })
    })
}

pub(crate) fn media() -> SocketAddr {
    MEDIA.parse().expect("an address")
}

/// Four that may be reached, our media, one that may not, and one of the other family.
pub(crate) fn peer(which: u8) -> SocketAddr {
    match which % 8 {
        index @ 0..=3 => foreign(index),
        4 | 5 => media(),
        6 => ([10, 0, 0, 1], 9).into(),
        _ => ([0x2600, 0, 0, 0, 0, 0, 0, 1], 9).into(),
    }
}

pub(crate) fn foreign(index: u8) -> SocketAddr {
    ([8, 8, 8, index / 2], 9000 + u16::from(index % 2)).into()
}

/// Why no client of IPv4 gets a permission or channel for this peer.
pub(crate) fn forbidden(peer: SocketAddr) -> Option<u16> {
    match peer.ip() {
        IpAddr::V4(ip) => (ip.octets()[0] == 10).then_some(403),
        IpAddr::V6(_) => Some(443),
    }
}

fn client(number: u8) -> Client {
    let path = Path { socket: SocketIndex(1), remote: ([192, 0, 2, number], 4000).into() };
    Client { path, transport: TurnTransport::Udp }
}

fn udp(message: &mut MessageWriter<'_>) {
    message.attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
}

pub(crate) fn code(answer: &[u8]) -> u16 {
    Message::parse(answer).expect("ours are right").error_code().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    /// Random conversations in plain `cargo test`; the fuzzer goes on from here.
    #[test]
    fn the_server_does_as_the_model() {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        for _ in 0..500 {
            let bytes: Vec<u8> = (0..400)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state >> 24) as u8
                })
                .collect();
            super::turn_model(&bytes);
            super::turn(&bytes);
        }
    }
}
