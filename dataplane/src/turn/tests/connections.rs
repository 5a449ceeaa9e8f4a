//! Peers over TCP (RFC 6062): who may have which connections, for how long, and how many bytes they relay.

use std::net::SocketAddr;
use std::time::Duration;

use ringmain_shared::DropReason;
use ringmain_shared::turn::{RelayMode, RelayProtocol, TurnCommand, TurnEvent, TurnFeatures, TurnSpec, TurnTransport};

use super::world::*;
use crate::io::Link;
use crate::packet::stun::{Class, Message, attribute, error, method};
use crate::stream::StreamId;
use crate::turn::{ConnectionKey, PeerRequest};

const PEER: &str = "8.8.8.8:9000";

fn caller(number: u16, username: &str) -> Caller {
    Caller { client: stream_client(number), ..Caller::new(number, username) }
}

/// A client with an allocation of TCP.
fn allocated(world: &mut World, number: u16, username: &str) -> Caller {
    let mut caller = caller(number, username);
    assert_eq!(caller.ask(world, method::ALLOCATE, &[tcp()]).code(), 0);
    caller
}

impl World {
    /// What a Connect comes to at once: 0 when it waits for the peer.
    fn connect(&mut self, caller: &Caller, peer: &str) -> u16 {
        let id = self.transaction();
        let bytes = caller.request(method::CONNECT, id, &[caller.peer(peer, id)]);
        self.say(caller.client, &bytes).expect("a request");
        self.take().pop().map_or(0, |(_, bytes)| Answer { bytes, client: caller.client }.code())
    }

    /// The connection that the stream thread was asked for.
    fn asked_connection(&mut self) -> ConnectionKey {
        let Some(PeerRequest::Connect { connection, .. }) = self.peer_requests.pop() else { panic!("no connect") };
        connection
    }

    /// What the client hears of its peer's answer: the CONNECTION-ID, or an error.
    fn peer_answers(&mut self, connection: ConnectionKey, stream: Option<StreamId>) -> Result<Vec<u8>, u16> {
        let (_, out) = self.link.parts();
        self.turn.handle_connected(connection, stream, self.now, out);
        self.settle();
        let (_, bytes) = self.take().pop().expect("an answer");
        let message = Message::parse(&bytes).expect("ours are right");
        assert_eq!(message.method(), method::CONNECT);
        match message.attribute(attribute::CONNECTION_ID) {
            Some(id) => Ok(id.to_vec()),
            None => Err(message.error_code().expect("which")),
        }
    }

    /// A connection to the peer, and its name.
    fn connected(&mut self, caller: &Caller, peer: &str, stream: StreamId) -> Vec<u8> {
        assert_eq!(self.connect(caller, peer), 0);
        let connection = self.asked_connection();
        self.peer_answers(connection, Some(stream)).expect("it connects")
    }

    /// A ConnectionBind by a connection of its own. 0 when the two are joined.
    fn bind(&mut self, caller: &mut Caller, id: &[u8]) -> u16 {
        if caller.nonce.is_empty() {
            caller.learn(self);
        }
        let id = [(attribute::CONNECTION_ID, id.to_vec())];
        let bytes = caller.request(method::CONNECTION_BIND, self.transaction(), &id);
        self.say(caller.client, &bytes).expect("a request");
        self.take().pop().map_or(0, |(_, bytes)| Answer { bytes, client: caller.client }.code())
    }

    fn cuts(&mut self) -> Vec<StreamId> {
        let cut = |request: PeerRequest| match request {
            PeerRequest::Cut { peer } => Some(peer),
            _ => None,
        };
        std::mem::take(&mut self.peer_requests).into_iter().filter_map(cut).collect()
    }

    /// Where the peers of the only allocation connect to.
    fn relayed(&self) -> SocketAddr {
        *self.listeners.values().next().expect("one listens")
    }
}

#[test]
fn tcp_is_relayed_for_those_who_come_by_it_and_ask_for_nothing_else() {
    let mut world = World::new(spec());
    let ask = |world: &mut World, mut caller: Caller, more: &[Attribute]| {
        caller.ask(world, method::ALLOCATE, &[&[tcp()], more].concat()).code()
    };
    assert_eq!(ask(&mut world, Caller::new(1, "alice"), &[]), 400, "over UDP");
    let mut dtls = caller(2, "alice");
    dtls.client.transport = TurnTransport::Dtls;
    assert_eq!(ask(&mut world, dtls, &[]), 400);
    for (attribute, value, code) in [
        (attribute::DONT_FRAGMENT, vec![], 400),
        (attribute::EVEN_PORT, vec![0], 400),
        (attribute::RESERVATION_TOKEN, vec![7; 8], 400),
        (attribute::MOBILITY_TICKET, vec![], 405),
    ] {
        assert_eq!(ask(&mut world, caller(3, "alice"), &[(attribute, value)]), code, "{attribute:x}");
    }
    let sctp = (attribute::REQUESTED_TRANSPORT, vec![132, 0, 0, 0]);
    assert_eq!(caller(3, "alice").ask(&mut world, method::ALLOCATE, &[sctp]).code(), 442);
    let mut tls = caller(4, "alice");
    tls.client.transport = TurnTransport::Tls;
    let answer = tls.ask(&mut world, method::ALLOCATE, &[tcp()]);
    assert_eq!((answer.code(), answer.relayed()), (0, world.relayed()));
    let Some(TurnEvent::Opened(row)) = world.events().pop() else { panic!("control hears of it") };
    assert_eq!((row.protocol, row.sockets, row.connections), (RelayProtocol::Tcp, 1, 0));
    assert_eq!(Caller::bind(&mut tls, &mut world, 0x4000, PEER), 400, "channels are for datagrams");
    assert_eq!(tls.permit(&mut world, &[PEER]), 0);
    assert_eq!(tls.send(&mut world, PEER, b"data"), Err(DropReason::TurnNoRelay));
    tls.refresh(&mut world, 0);
    assert!(world.listeners.is_empty() && world.sockets.is_empty());
}

#[test]
fn without_the_feature_there_is_none_of_it() {
    let mut world = World::new(TurnSpec { features: TurnFeatures::default(), ..spec() });
    let mut alice = caller(1, "alice");
    assert_eq!(alice.ask(&mut world, method::ALLOCATE, &[tcp()]).code(), 442);
    assert_eq!(world.connect(&alice, PEER), 437);
    assert_eq!(world.bind(&mut alice, &[1, 2, 3, 4]), 400);
    assert_eq!(alice.allocate(&mut world).code(), 0);
    assert_eq!(world.connect(&alice, PEER), 400, "an allocation of UDP");
}

#[test]
fn a_port_that_cannot_be_listened_on_is_left_for_another() {
    let mut shared = spec();
    shared.relay.mode = RelayMode::Shared(2);
    let mut world = World::new(shared);
    world.foreign = (10_000..=10_099).collect();
    let mut alice = caller(1, "alice");
    assert_eq!(alice.ask(&mut world, method::ALLOCATE, &[tcp()]).code(), 508);
    assert_eq!((world.asked, world.listeners.len()), (8, 0));
    world.foreign = (10_000..10_050).collect();
    // It has a port of its own, though datagrams share theirs.
    for number in 2..6 {
        let mut bob = caller(number, "bob");
        let answer = bob.ask(&mut world, method::ALLOCATE, &[tcp()]);
        assert!(answer.code() == 0 && answer.relayed().port() >= 10_050, "{}", answer.code());
    }
}

#[test]
fn a_connection_is_made_named_bound_and_relays_within_its_credit() {
    let mut world = World::new(spec());
    let mut alice = allocated(&mut world, 1, "alice");
    assert_eq!(world.connect(&alice, PEER), 0);
    let Some(PeerRequest::Connect { connection, local, peer, relayed: false }) = world.peer_requests.pop() else {
        panic!("no connect")
    };
    assert_eq!((local, peer), (world.relayed(), PEER.parse().unwrap()));
    assert_eq!(world.connect(&alice, PEER), 446, "on its way");
    let id = world.peer_answers(connection, Some(StreamId(5))).expect("it connects");
    assert_eq!(world.connect(&alice, PEER), 446, "not bound yet");
    // The nonce of the first connection does for the others.
    let mut data = Caller { client: stream_client(2), ..alice.clone() };
    assert_eq!(world.bind(&mut data, &id), 0);
    let mut requests = std::mem::take(&mut world.peer_requests).into_iter();
    let Some(PeerRequest::Join { client, peer: StreamId(5), answer }) = requests.next() else { panic!("joined") };
    assert_eq!(client, data.client.path);
    assert_eq!(Answer { bytes: answer, client: data.client }.code(), 0);
    let Some(PeerRequest::Grant { peer: StreamId(5), bytes: 1000.. }) = requests.next() else { panic!("credit") };
    assert_eq!(world.connect(&alice, PEER), 446, "bound");
    assert_eq!(world.bind(&mut caller(3, "alice"), &id), 400, "once");
    // What follows on that connection is no message, whatever it looks like.
    let bytes = data.request(method::ALLOCATE, world.transaction(), &[udp()]);
    assert_eq!(world.say(data.client, &bytes), Err(DropReason::TurnMalformed));
    world.turn.handle_relayed(StreamId(5), 700, 300, world.now);
    world.settle();
    assert_eq!(world.peer_requests, [PeerRequest::Grant { peer: StreamId(5), bytes: 1000 }]);
    alice.refresh(&mut world, 700);
    let Some(TurnEvent::Refreshed(row)) = world.events().pop() else { panic!("refreshed") };
    assert_eq!((row.connections, row.traffic.to_peers_bytes, row.traffic.to_clients_bytes), (1, 700, 300));
    world.turn.handle_peer_closed(StreamId(5));
    assert_eq!((world.turn.stats().connections, world.turn.stats().connected), (0, 1));
    assert_eq!(world.connect(&alice, PEER), 0, "over, so that there may be another");
}

#[test]
fn a_peer_that_does_not_answer_is_told_of() {
    let mut world = World::new(spec());
    let alice = allocated(&mut world, 1, "alice");
    assert_eq!(world.connect(&alice, PEER), 0);
    let connection = world.asked_connection();
    assert_eq!(world.peer_answers(connection, None), Err(error::CONNECTION_FAILED));
    assert_eq!(world.connect(&alice, PEER), 0, "it may be tried again");
}

#[test]
fn no_connection_leads_or_comes_where_datagrams_may_not() {
    let mut open = spec();
    open.peers.relayed = true;
    let mut world = World::new(open);
    let mut alice = allocated(&mut world, 1, "alice");
    let relayed = world.relayed();
    // Every address is permitted by the client, as far as the rules for addresses go.
    for peer in [
        "10.0.0.1:80",
        "127.0.0.1:22",
        "169.254.169.254:80",
        "8.8.8.8:0",
        "[::ffff:10.0.0.1]:80",
        "[::1]:80",
        "[64:ff9b::a00:1]:80",
        MEDIA,
        "198.51.100.1:3478",
        "198.51.100.1:22",
    ] {
        assert_eq!(world.connect(&alice, peer), 403, "{peer}");
        alice.permit(&mut world, &[peer]);
        assert!(world.peer_connects(relayed, peer, StreamId(9)).is_err(), "{peer}");
        assert_eq!(world.cuts(), [StreamId(9)]);
    }
    assert_eq!(world.connect(&alice, &relayed.to_string()), 403, "itself");
    assert_eq!(world.connect(&alice, "[2600::9]:80"), 443);
    let bytes = alice.request(method::CONNECT, world.transaction(), &[]);
    world.say(alice.client, &bytes).expect("a request");
    assert_eq!(Answer { bytes: world.take().pop().unwrap().1, client: alice.client }.code(), 400);
    // Another relayed address is reached as what it is.
    let other = SocketAddr::new(relayed.ip(), if relayed.port() == 10_000 { 10_001 } else { 10_000 });
    assert_eq!(world.connect(&alice, &other.to_string()), 0);
    assert!(matches!(world.peer_requests.pop(), Some(PeerRequest::Connect { relayed: true, .. })));
}

#[test]
fn peers_that_are_permitted_may_connect_and_no_others() {
    let mut world = World::new(spec());
    let mut alice = allocated(&mut world, 1, "alice");
    let relayed = world.relayed();
    assert_eq!(world.peer_connects(relayed, PEER, StreamId(4)), Err(DropReason::TurnNoPermission));
    assert_eq!((world.cuts(), world.take().len()), (vec![StreamId(4)], 0));
    assert_eq!(alice.permit(&mut world, &[PEER]), 0);
    assert_eq!(world.peer_connects(relayed, "8.8.8.8:5", StreamId(5)), Ok(()));
    let (path, bytes) = world.take().pop().expect("told");
    let message = Message::parse(&bytes).expect("ours are right");
    assert_eq!((path, message.class()), (alice.client.path, Class::Indication));
    assert_eq!(message.method(), method::CONNECTION_ATTEMPT);
    assert_eq!(message.xor_address(attribute::XOR_PEER_ADDRESS), Some("8.8.8.8:5".parse().unwrap()));
    let id = message.attribute(attribute::CONNECTION_ID).expect("a name").to_vec();
    // Not by the connection that has the allocation, nor over UDP, nor by somebody else.
    assert_eq!(world.bind(&mut alice, &id), 400);
    assert_eq!(world.bind(&mut Caller::new(7, "alice"), &id), 400);
    assert_eq!(world.bind(&mut caller(8, "bob"), &id), 441);
    assert_eq!(world.bind(&mut caller(9, "alice"), &[id[0], id[1], id[2], !id[3]]), 400);
    assert_eq!(world.bind(&mut caller(9, "alice"), &id[..3]), 400);
    assert_eq!(world.bind(&mut caller(9, "alice"), &id), 0);
    // A permission ends; what came in time stays.
    world.wait(Duration::from_secs(301));
    assert_eq!(world.peer_connects(relayed, PEER, StreamId(6)), Err(DropReason::TurnNoPermission));
    assert_eq!((world.cuts(), world.turn.stats().connections), (vec![StreamId(6)], 1));
}

#[test]
fn what_is_not_bound_in_thirty_seconds_is_closed() {
    let mut world = World::new(spec());
    let alice = allocated(&mut world, 1, "alice");
    let id = world.connected(&alice, PEER, StreamId(5));
    world.wait(Duration::from_millis(29_900));
    assert!(world.cuts().is_empty());
    world.wait(Duration::from_millis(200));
    assert_eq!(world.cuts(), [StreamId(5)]);
    assert_eq!(world.bind(&mut caller(2, "alice"), &id), 400);
    let id = world.connected(&alice, PEER, StreamId(6));
    assert_eq!(world.bind(&mut caller(2, "alice"), &id), 0);
    world.wait(Duration::from_secs(60));
    assert!(world.cuts().is_empty());
}

#[test]
fn every_bound_on_connections_holds_when_it_is_exceeded() {
    let mut narrow = spec();
    (narrow.quotas.connections, narrow.quotas.connections_per_user) = (3, 5);
    let mut world = World::new(narrow);
    let mut callers = [1, 2].map(|number| allocated(&mut world, number, "alice"));
    let mut granted = Vec::new();
    for caller in &callers {
        for port in 1..=10 {
            match world.connect(caller, &format!("8.8.8.8:{port}")) {
                0 => {
                    let (connection, stream) = (world.asked_connection(), StreamId(granted.len() as u64));
                    world.peer_answers(connection, Some(stream)).expect("it connects");
                    granted.push(stream);
                }
                code => assert_eq!(code, 508),
            }
        }
    }
    assert_eq!(granted.len(), 3 + 2, "three of an allocation, five of a user");
    // Those that arrive count as well.
    for caller in &mut callers {
        assert_eq!(caller.permit(&mut world, &[PEER]), 0);
    }
    for at in world.listeners.values().copied().collect::<Vec<_>>() {
        assert_eq!(world.peer_connects(at, PEER, StreamId(99)), Err(DropReason::TurnConnections));
        assert_eq!(world.cuts(), [StreamId(99)]);
    }
    let bob = allocated(&mut world, 3, "bob");
    assert_eq!(world.connect(&bob, PEER), 0, "another user has his own");
    // An end to the allocation is an end to all of it.
    world.peer_requests.clear();
    callers[0].refresh(&mut world, 0);
    assert_eq!(world.cuts(), granted[..3]);
    assert_eq!(world.connect(&callers[1], "8.8.8.8:9"), 0);
}

#[test]
fn whoever_looks_for_open_ports_is_slow() {
    let mut world = World::new(spec());
    let alice = allocated(&mut world, 1, "alice");
    world.wait(Duration::from_secs(1));
    for _ in 0..3 {
        let mut asked = 0;
        for port in 1..=100 {
            match world.connect(&alice, &format!("8.8.8.8:{port}")) {
                0 => {
                    asked += 1;
                    let connection = world.asked_connection();
                    assert_eq!(world.peer_answers(connection, None), Err(error::CONNECTION_FAILED));
                }
                code => assert_eq!(code, 508),
            }
        }
        assert_eq!(asked, 16);
        world.wait(Duration::from_secs(1));
    }
}

#[test]
fn peers_that_come_and_go_are_slow_as_well() {
    let mut world = World::new(spec());
    let mut alice = allocated(&mut world, 1, "alice");
    let relayed = world.relayed();
    assert_eq!(alice.permit(&mut world, &[PEER]), 0);
    for _ in 0..3 {
        world.wait(Duration::from_secs(1));
        let come = |port| {
            let stream = StreamId(port);
            let told = world.peer_connects(relayed, &format!("8.8.8.8:{port}"), stream);
            world.turn.handle_peer_closed(stream);
            told.is_ok()
        };
        assert_eq!((1..=100).map(come).filter(|&let_in| let_in).count(), 16);
        assert_eq!(world.connect(&alice, PEER), 508, "both ways count");
    }
}

#[test]
fn connections_end_with_their_allocation_however_that_ends() {
    for way in ["killed", "revoked", "disconnected", "expired"] {
        let mut world = World::new(spec());
        let alice = allocated(&mut world, 1, "alice");
        let Some(TurnEvent::Opened(row)) = world.events().pop() else { panic!("opened") };
        let id = world.connected(&alice, PEER, StreamId(1));
        assert_eq!(world.bind(&mut caller(2, "alice"), &id), 0);
        if way == "expired" {
            world.wait(Duration::from_secs(590));
        }
        world.connected(&alice, "8.8.8.8:1", StreamId(2));
        assert_eq!(world.connect(&alice, "8.8.8.8:2"), 0);
        let connection = world.asked_connection();
        world.peer_requests.clear();
        match way {
            "killed" => world.turn.handle_command(TurnCommand::Kill { allocation: row.id }, world.now),
            "revoked" => world.turn.handle_command(TurnCommand::Revoke { username: "alice".into() }, world.now),
            "disconnected" => world.turn.handle_disconnected(alice.client.path, world.now),
            _ => world.wait(Duration::from_secs(11)),
        }
        world.settle();
        let requests = world.peer_requests.clone();
        assert!(requests.contains(&PeerRequest::StopConnecting { connection }), "{way}: {requests:?}");
        assert_eq!(world.cuts(), [StreamId(1), StreamId(2)], "{way}");
        assert_eq!((world.turn.stats().connections, world.listeners.len()), (0, 0), "{way}");
        // A connection that was made at the same moment is nobody's.
        let (_, out) = world.link.parts();
        world.turn.handle_connected(connection, Some(StreamId(3)), world.now, out);
        world.settle();
        assert_eq!((world.cuts(), world.take().len()), (vec![StreamId(3)], 0), "{way}");
    }
}

#[test]
fn credit_costs_what_was_relayed_with_it_however_the_connection_ends() {
    let mut slow = spec();
    (slow.quotas.total_bps, slow.quotas.connects_per_second) = (8_000_000, 0);
    let used_up = |relayed: u32, cut: bool| {
        let mut world = World::new(slow.clone());
        let mut granted = 0;
        for number in 2..22 {
            let mut alice = allocated(&mut world, number, "alice");
            let stream = StreamId(number.into());
            let id = world.connected(&alice, PEER, stream);
            world.peer_requests.clear();
            assert_eq!(world.bind(&mut caller(number + 100, "alice"), &id), 0);
            granted += world.peer_requests.iter().filter(|it| matches!(it, PeerRequest::Grant { .. })).count();
            if cut {
                alice.refresh(&mut world, 0);
                world.turn.handle_relayed(stream, relayed, 0, world.now);
            } else {
                world.turn.handle_relayed(stream, relayed, 0, world.now);
                alice.refresh(&mut world, 0);
            }
            world.turn.handle_peer_closed(stream);
            world.settle();
        }
        assert!(world.turn.connections.cut.is_empty());
        granted < 20
    };
    for cut in [true, false] {
        assert!(!used_up(0, cut), "twenty credits are a second's worth, and more than a burst");
        assert!(used_up(50_000, cut));
    }
}

#[test]
fn who_waits_for_credit_gets_it_whoever_else_is_refused_meanwhile() {
    let mut slow = spec();
    slow.quotas.user_bps = 800_000;
    let mut world = World::new(slow);
    for (number, username) in [(1, "alice"), (2, "bob")] {
        let client = allocated(&mut world, number, username);
        let id = world.connected(&client, PEER, StreamId(number.into()));
        assert_eq!(world.bind(&mut caller(number + 2, username), &id), 0);
    }
    let relays = |world: &mut World, stream, bytes| {
        world.peer_requests.clear();
        world.turn.handle_relayed(StreamId(stream), bytes, 0, world.now);
        world.settle();
        !world.peer_requests.is_empty()
    };
    // Bob owes for much longer than alice.
    while relays(&mut world, 1, 20_000) {}
    while relays(&mut world, 2, 1_000_000) {}
    let mut granted = 0;
    for _ in 0..200 {
        assert!(!relays(&mut world, 2, 1));
        world.wait(Duration::from_millis(10));
        let is_granted = |it: &&PeerRequest| matches!(it, PeerRequest::Grant { peer: StreamId(1), .. });
        granted += world.peer_requests.iter().filter(is_granted).count();
    }
    assert_eq!(granted, 1);
}

#[test]
fn bytes_over_tcp_are_held_back_by_the_same_budget_as_datagrams() {
    let mut slow = spec();
    slow.quotas.user_bps = 800_000;
    let mut world = World::new(slow);
    let alice = allocated(&mut world, 1, "alice");
    let id = world.connected(&alice, PEER, StreamId(1));
    assert_eq!(world.bind(&mut caller(2, "alice"), &id), 0);
    // Whoever relays all that is granted at once relays ten seconds of it in ten seconds, and a burst.
    let mut relayed = 0;
    for _ in 0..1000 {
        for request in std::mem::take(&mut world.peer_requests) {
            if let PeerRequest::Grant { peer, bytes } = request {
                relayed += bytes;
                world.turn.handle_relayed(peer, bytes / 2, bytes - bytes / 2, world.now);
            }
        }
        world.settle();
        world.wait(Duration::from_millis(10));
    }
    assert!((980_000..=1_040_000).contains(&relayed), "{relayed}");
    let traffic = world.turn.stats().traffic;
    assert_eq!(traffic.to_peers_bytes + traffic.to_clients_bytes, u64::from(relayed));
}
