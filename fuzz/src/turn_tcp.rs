//! TURN's peers over TCP (RFC 6062): clients and peers in any order beside a model, which must agree with the server on every answer;
//! and a stream thread that does what it is asked, and fails when it is asked for what makes no sense.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringmain_dataplane::io::{Link, Path, SocketIndex};
use ringmain_dataplane::packet::stun::{Class, Message, MessageWriter, attribute, method};
use ringmain_dataplane::stream::StreamId;
use ringmain_dataplane::turn::{Client, ConnectionKey, PeerRequest, RelayKey};
use ringmain_shared::DropReason;
use ringmain_shared::turn::{TurnFeatures, TurnTransport};

use crate::input::Input;
use crate::turn::{Host, Sent, code, forbidden, foreign, media, peer, spec};

/// Steps of one input.
const STEPS_MAX: usize = 512;

/// The stream thread, as far as the server knows of it.
#[derive(Default)]
pub(crate) struct PeerSide {
    listeners: BTreeMap<RelayKey, SocketAddr>,
    connecting: BTreeMap<ConnectionKey, SocketAddr>,
    /// Peers' connections, and what is left of the credit of those that are joined.
    streams: BTreeMap<StreamId, Option<u64>>,
    joined: HashSet<Path>,
    next: u64,
    /// The last answer that went with an order to join.
    answer: Option<Vec<u8>>,
}

impl PeerSide {
    fn open(&mut self) -> StreamId {
        self.next += 1;
        self.streams.insert(StreamId(self.next), None);
        StreamId(self.next)
    }

    fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.connecting.is_empty() && self.streams.is_empty()
    }
}

impl Host {
    /// Does what the server asks of the stream thread.
    pub(crate) fn settle_peer_side(&mut self) {
        while !self.turn.peer_requests().is_empty() {
            for request in std::mem::take(self.turn.peer_requests()) {
                let side = &mut self.peer_side;
                match request {
                    PeerRequest::Listen { relay, address } => {
                        assert!(side.listeners.values().all(|other| *other != address), "a port twice");
                        assert_eq!(side.listeners.insert(relay, address), None);
                        let (_, out) = self.link.parts();
                        self.turn.handle_listening(relay, true, self.now, out);
                    }
                    PeerRequest::StopListening { relay } => assert!(side.listeners.remove(&relay).is_some()),
                    PeerRequest::Connect { connection, local, peer, relayed } => {
                        assert!(side.listeners.values().any(|address| *address == local), "from a relayed address");
                        assert!(!relayed && peer != media() && forbidden(peer).is_none(), "{peer}");
                        assert_eq!(side.connecting.insert(connection, peer), None);
                    }
                    PeerRequest::StopConnecting { connection } => {
                        assert!(side.connecting.remove(&connection).is_some());
                    }
                    PeerRequest::Join { client, peer, answer } => {
                        assert_eq!(side.streams.insert(peer, Some(0)), Some(None), "one that waits");
                        assert!(side.joined.insert(client), "once");
                        side.answer = Some(answer);
                    }
                    PeerRequest::Grant { peer, bytes } => {
                        let credit = side.streams.get_mut(&peer).expect("open").as_mut().expect("joined");
                        *credit += u64::from(bytes);
                        assert!(*credit <= 1 << 20, "credit without end");
                    }
                    PeerRequest::Cut { peer } => assert!(side.streams.remove(&peer).is_some(), "open"),
                }
            }
        }
    }

    /// Something that the stream thread may tell at any time.
    pub(crate) fn peer_side_acts(&mut self, op: u8, which: u8) {
        let side = &mut self.peer_side;
        let (_, out) = self.link.parts();
        let nth = |count: usize| usize::from(which).checked_rem(count);
        match op % 4 {
            0 => {
                let Some(relay) = nth(side.listeners.len()).and_then(|at| side.listeners.keys().nth(at)).copied()
                else {
                    return;
                };
                let stream = side.open();
                let _ = self.turn.handle_arrived(relay, stream, foreign(op >> 2 & 3), self.now, out);
            }
            1 => {
                let chosen = nth(side.connecting.len()).and_then(|at| side.connecting.keys().nth(at)).copied();
                let Some(connection) = chosen else { return };
                side.connecting.remove(&connection);
                let stream = (op & 4 == 0).then(|| side.open());
                self.turn.handle_connected(connection, stream, self.now, out);
            }
            other => {
                let Some(stream) = nth(side.streams.len()).and_then(|at| side.streams.keys().nth(at)).copied() else {
                    return;
                };
                if other == 2 {
                    side.streams.remove(&stream);
                    self.turn.handle_peer_closed(stream);
                } else if let Some(Some(credit)) = side.streams.get_mut(&stream) {
                    let used = *credit * u64::from(op) / 255;
                    *credit -= used;
                    self.turn.handle_relayed(stream, (used / 3) as u32, (used - used / 3) as u32, self.now);
                }
            }
        }
        self.settle();
    }
}

/// Clients that keep to the protocol, and their peers, in any order.
pub fn turn_tcp_model(data: &[u8]) {
    let mut input = Input::new(data);
    let mut scene = Scene {
        host: Host::new(spec(TurnFeatures { tcp_relay: true, ..TurnFeatures::default() })),
        clients: Default::default(),
        data_clients: 0,
        ids: BTreeSet::new(),
    };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        scene.step(&mut input);
    }
    scene.host.wait(Duration::from_secs(4000));
    assert!(scene.host.peer_side.is_empty(), "what is over has no socket");
    let stats = scene.host.turn.stats();
    assert_eq!((stats.allocations, stats.connections, stats.sockets), (0, 0, 0));
}

/// An allocation of TCP.
#[derive(Default)]
struct Model {
    user: usize,
    relayed: Option<SocketAddr>,
    expires: u64,
    permissions: BTreeMap<IpAddr, u64>,
    connections: Vec<Connection>,
}

struct Connection {
    peer: SocketAddr,
    stage: Stage,
}

#[derive(Clone, PartialEq, Eq)]
enum Stage {
    Connecting,
    Unbound { id: Vec<u8>, stream: StreamId, until: u64 },
    Bound { stream: StreamId },
}

impl Stage {
    fn stream(&self) -> Option<StreamId> {
        match self {
            Stage::Connecting => None,
            Stage::Unbound { stream, .. } | Stage::Bound { stream } => Some(*stream),
        }
    }
}

struct Scene {
    host: Host,
    clients: [Option<Model>; 3],
    data_clients: u16,
    /// Every CONNECTION-ID that there ever was.
    ids: BTreeSet<Vec<u8>>,
}

impl Scene {
    fn step(&mut self, input: &mut Input<'_>) {
        let (op, who, what) = (input.u8(), input.u8(), input.u8());
        let (number, user) = (who % 3, usize::from(who >> 2 & 1));
        match op % 10 {
            0 => self.allocate(number, user),
            1 => self.refresh(number, user, u32::from(what % 3) * 600),
            2 => self.permit(number, user, peer(what)),
            3 | 4 => self.connect(number, user, peer(what)),
            5 => self.peer_answers(what, op & 16 == 0),
            6 => self.peer_arrives(number, foreign(what & 3)),
            7 => self.bind(what, user),
            8 => self.ends(what, op & 16 == 0),
            _ => self.wait(u64::from(what)),
        }
        let live: Vec<&Connection> = self.clients.iter().flatten().flat_map(|model| &model.connections).collect();
        assert_eq!(self.host.turn.stats().connections, live.len() as u64);
        let streams: BTreeSet<StreamId> = live.iter().filter_map(|connection| connection.stage.stream()).collect();
        assert!(streams.iter().eq(self.host.peer_side.streams.keys()), "every socket is somebody's");
        assert_eq!(self.host.peer_side.connecting.len(), live.len() - streams.len());
        assert_eq!(self.host.peer_side.listeners.len(), self.clients.iter().flatten().count());
    }

    fn now(&self) -> u64 {
        self.host.now.as_millis() / 1000
    }

    fn ask(&mut self, from: Client, user: usize, method: u16, rest: impl FnOnce(&mut MessageWriter<'_>)) -> Sent {
        let nonce = self.host.learn(from);
        let bytes = self.host.request(method, user, &nonce, rest);
        let (result, sent) = self.host.say(from, &bytes);
        assert_eq!(result, Ok(None));
        sent
    }

    fn asked(&mut self, number: u8, user: usize, method: u16, rest: impl FnOnce(&mut MessageWriter<'_>)) -> u16 {
        let sent = self.ask(client(number), user, method, rest);
        let [(path, answer)] = &sent[..] else { panic!("one answer, not {sent:?}") };
        assert_eq!(*path, client(number).path);
        code(answer)
    }

    fn refused(&self, number: u8, user: usize) -> Option<u16> {
        match &self.clients[usize::from(number)] {
            None => Some(437),
            Some(model) if model.user != user => Some(441),
            Some(_) => None,
        }
    }

    fn allocate(&mut self, number: u8, user: usize) {
        let held = self.clients.iter().flatten().filter(|model| model.user == user).count();
        let expected = match &self.clients[usize::from(number)] {
            Some(_) => 437,
            None if held >= 2 => 486,
            None => 0,
        };
        let tcp = |message: &mut MessageWriter<'_>| message.attribute(attribute::REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
        let sent = self.ask(client(number), user, method::ALLOCATE, tcp);
        let [(_, answer)] = &sent[..] else { panic!("one answer, not {sent:?}") };
        assert_eq!(code(answer), expected);
        if expected == 0 {
            let relayed = Message::parse(answer).expect("ours are right").xor_address(attribute::XOR_RELAYED_ADDRESS);
            let expires = self.now() + 600;
            self.clients[usize::from(number)] = Some(Model { user, relayed, expires, ..Model::default() });
        }
    }

    fn refresh(&mut self, number: u8, user: usize, seconds: u32) {
        let expected = self.refused(number, user);
        let lifetime = |message: &mut MessageWriter<'_>| {
            message.attribute(attribute::LIFETIME, &seconds.to_be_bytes());
        };
        assert_eq!(self.asked(number, user, method::REFRESH, lifetime), expected.unwrap_or(0));
        let now = self.now();
        let place = &mut self.clients[usize::from(number)];
        match (expected, seconds) {
            (Some(_), _) => {}
            (None, 0) => *place = None,
            (None, _) => place.iter_mut().for_each(|model| model.expires = now + u64::from(seconds)),
        }
    }

    fn permit(&mut self, number: u8, user: usize, peer: SocketAddr) {
        let now = self.now();
        let expected = self.refused(number, user).or_else(|| forbidden(peer)).unwrap_or_else(|| {
            let model = self.clients[usize::from(number)].as_mut().expect("not refused");
            model.permissions.retain(|_, until| *until > now);
            if model.permissions.len() >= 3 && !model.permissions.contains_key(&peer.ip()) {
                return 508;
            }
            model.permissions.insert(peer.ip(), now + 300);
            0
        });
        let named = |message: &mut MessageWriter<'_>| message.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        assert_eq!(self.asked(number, user, method::CREATE_PERMISSION, named), expected, "{peer}");
    }

    /// Whether one more connection is too many for an allocation.
    fn is_full(&self, number: u8) -> bool {
        let Some(model) = &self.clients[usize::from(number)] else { return true };
        let same_user = self.clients.iter().flatten().filter(|other| other.user == model.user);
        model.connections.len() >= 2 || same_user.map(|other| other.connections.len()).sum::<usize>() >= 3
    }

    fn connect(&mut self, number: u8, user: usize, peer: SocketAddr) {
        let has = |model: &Model| model.connections.iter().any(|connection| connection.peer == peer);
        let expected = self.refused(number, user).or_else(|| forbidden(peer)).unwrap_or_else(|| {
            let model = self.clients[usize::from(number)].as_ref().expect("not refused");
            match () {
                () if peer == media() => 403,
                () if has(model) => 446,
                () if self.is_full(number) => 508,
                () => 0,
            }
        });
        let named = |message: &mut MessageWriter<'_>| message.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        if expected != 0 {
            return assert_eq!(self.asked(number, user, method::CONNECT, named), expected, "{peer}");
        }
        let sent = self.ask(client(number), user, method::CONNECT, named);
        assert!(sent.is_empty(), "it waits for the peer, not {sent:?}");
        let model = self.clients[usize::from(number)].as_mut().expect("not refused");
        model.connections.push(Connection { peer, stage: Stage::Connecting });
    }

    fn peer_answers(&mut self, which: u8, well: bool) {
        let connecting = &self.host.peer_side.connecting;
        let at = usize::from(which).checked_rem(connecting.len());
        let Some((&key, &peer)) = at.and_then(|at| connecting.iter().nth(at)) else { return };
        self.host.peer_side.connecting.remove(&key);
        let stream = well.then(|| self.host.peer_side.open());
        let (_, out) = self.host.link.parts();
        self.host.turn.handle_connected(key, stream, self.host.now, out);
        let sent = self.host.settle();
        let [(path, answer)] = &sent[..] else { panic!("one answer, not {sent:?}") };
        let number = (0..3).find(|&number| client(number).path == *path).expect("a client");
        let until = self.now() + 30;
        let model = self.clients[usize::from(number)].as_mut().expect("it has an allocation");
        let is_it = |it: &Connection| it.peer == peer && it.stage == Stage::Connecting;
        let at = model.connections.iter().position(is_it).expect("asked for");
        match stream {
            None => {
                assert_eq!(code(answer), 447);
                model.connections.remove(at);
            }
            Some(stream) => {
                let id = connection_id(answer);
                assert!(self.ids.insert(id.clone()), "a name twice");
                model.connections[at].stage = Stage::Unbound { id, stream, until };
            }
        }
    }

    fn peer_arrives(&mut self, number: u8, from: SocketAddr) {
        let now = self.now();
        let is_full = self.is_full(number);
        let Some(model) = &self.clients[usize::from(number)] else { return };
        // The kernel makes no second connection between the same two addresses.
        if model.connections.iter().any(|connection| connection.peer == from) {
            return;
        }
        let permitted = model.permissions.get(&from.ip()).is_some_and(|until| *until > now);
        let expected = match () {
            () if !permitted => Err(DropReason::TurnNoPermission),
            () if is_full => Err(DropReason::TurnConnections),
            () => Ok(()),
        };
        let listeners = &self.host.peer_side.listeners;
        let relay = listeners.iter().find(|(_, address)| Some(**address) == model.relayed).map(|(&relay, _)| relay);
        let relay = relay.expect("every allocation has a listener");
        let stream = self.host.peer_side.open();
        let (_, out) = self.host.link.parts();
        assert_eq!(self.host.turn.handle_arrived(relay, stream, from, self.host.now, out), expected);
        let sent = self.host.settle();
        if expected.is_err() {
            return assert!(sent.is_empty() && !self.host.peer_side.streams.contains_key(&stream));
        }
        let [(path, told)] = &sent[..] else { panic!("one indication, not {sent:?}") };
        let message = Message::parse(told).expect("ours are right");
        assert_eq!((*path, message.class()), (client(number).path, Class::Indication));
        assert_eq!(message.method(), method::CONNECTION_ATTEMPT);
        assert_eq!(message.xor_address(attribute::XOR_PEER_ADDRESS), Some(from));
        let id = connection_id(told);
        assert!(self.ids.insert(id.clone()), "a name twice");
        let model = self.clients[usize::from(number)].as_mut().expect("it has an allocation");
        model.connections.push(Connection { peer: from, stage: Stage::Unbound { id, stream, until: now + 30 } });
    }

    fn bind(&mut self, which: u8, user: usize) {
        let ids: Vec<Vec<u8>> = self.ids.iter().cloned().chain([vec![1, 2, 3, 4], vec![1]]).collect();
        let id = ids[usize::from(which) % ids.len()].clone();
        self.data_clients += 1;
        let from = data_client(self.data_clients);
        let sent = self.ask(from, user, method::CONNECTION_BIND, |message| {
            message.attribute(attribute::CONNECTION_ID, &id);
        });
        let pending = self.clients.iter_mut().flatten().find_map(|model| {
            let is_it = |it: &&mut Connection| matches!(&it.stage, Stage::Unbound { id: other, .. } if *other == id);
            model.connections.iter_mut().find(is_it).map(|connection| (model.user, connection))
        });
        let refusal = sent.first().map(|(_, answer)| code(answer));
        match pending {
            None => assert_eq!(refusal, Some(400)),
            Some((owner, _)) if owner != user => assert_eq!(refusal, Some(441)),
            Some((_, connection)) => {
                assert_eq!(refusal, None, "the answer goes with the order to join");
                assert_eq!(code(&self.host.peer_side.answer.take().expect("one")), 0);
                assert!(self.host.peer_side.joined.contains(&from.path));
                let stream = connection.stage.stream().expect("there");
                connection.stage = Stage::Bound { stream };
                // Nothing that comes by it is a message any more.
                let bytes = self.host.request(method::REFRESH, user, b"any", |_| {});
                assert_eq!(self.host.say(from, &bytes).0, Err(DropReason::TurnMalformed));
            }
        }
    }

    /// A peer's connection ends, or relays.
    fn ends(&mut self, which: u8, closed: bool) {
        let streams = &mut self.host.peer_side.streams;
        let at = usize::from(which).checked_rem(streams.len());
        let Some((&stream, credit)) = at.and_then(|at| streams.iter_mut().nth(at)) else { return };
        if closed {
            streams.remove(&stream);
            self.host.turn.handle_peer_closed(stream);
            for model in self.clients.iter_mut().flatten() {
                model.connections.retain(|connection| connection.stage.stream() != Some(stream));
            }
        } else if let Some(credit) = credit {
            let before = self.host.turn.stats().traffic;
            let used = std::mem::take(credit);
            assert!(used > 0, "credit comes back while there is no bound on bandwidth");
            self.host.turn.handle_relayed(stream, 1, used as u32 - 1, self.host.now);
            self.host.settle();
            let after = self.host.turn.stats().traffic;
            assert_eq!(
                after.to_peers_bytes + after.to_clients_bytes,
                before.to_peers_bytes + before.to_clients_bytes + used
            );
        }
        self.host.settle();
    }

    fn wait(&mut self, seconds: u64) {
        self.host.wait(Duration::from_secs(seconds));
        let now = self.now();
        for client in &mut self.clients {
            client.take_if(|model| model.expires <= now);
            if let Some(model) = client {
                let is_live = |it: &Connection| !matches!(it.stage, Stage::Unbound { until, .. } if until <= now);
                model.connections.retain(is_live);
            }
        }
    }
}

fn connection_id(message: &[u8]) -> Vec<u8> {
    let message = Message::parse(message).expect("ours are right");
    message.attribute(attribute::CONNECTION_ID).expect("a name").to_vec()
}

/// A client by TCP.
pub(crate) fn client(number: u8) -> Client {
    let path = Path { socket: SocketIndex(SocketIndex::TURN_STREAM_FIRST), remote: ([192, 0, 2, number], 5000).into() };
    Client { path, transport: TurnTransport::Tcp }
}

/// Another connection of anybody's.
fn data_client(number: u16) -> Client {
    let path = Path {
        socket: SocketIndex(SocketIndex::TURN_STREAM_FIRST + 1),
        remote: ([198, 51, 100, 7], 6000 + number).into(),
    };
    Client { path, transport: TurnTransport::Tls }
}

#[cfg(test)]
mod tests {
    /// Random conversations in plain `cargo test`; the fuzzer goes on from here.
    #[test]
    fn the_server_does_as_the_model() {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        for _ in 0..500 {
            let bytes: Vec<u8> = (0..600)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state >> 24) as u8
                })
                .collect();
            super::turn_tcp_model(&bytes);
        }
    }
}
