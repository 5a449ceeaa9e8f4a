//! Peers that reach the worker's media through its TURN server: the same media, the same rules, and no relay socket.

use std::net::SocketAddr;
use std::time::Duration;

use ringmain_dataplane::packet::stun::{Class, IntegrityKey, Message, MessageWriter, TransactionId, attribute, method};
use ringmain_dataplane::stream::{FromStream, StreamClient, StreamId, ToStream};
use ringmain_dataplane::turn::derive_keys;
use ringmain_shared::command::Command;
use ringmain_shared::event::Event;
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::transport::Side;
use ringmain_shared::turn::{
    OwnMedia, PasswordAlgorithms, PeerPolicy, RelayAddress, RelayMode, RelaySpec, TurnCommand, TurnCredential, TurnEnd,
    TurnEvent, TurnFeatures, TurnLifetimes, TurnQuotas, TurnSpec, TurnTransport,
};
use ringmain_shared::{DropReason, Now};

use crate::media::*;
use crate::world::World;

/// Of the first worker, and of the second.
pub const MEDIA: [&str; 2] = ["198.51.100.1:5000", "198.51.100.1:5001"];
const CHANNEL: u16 = 0x4000;

pub fn wrap(data: &[u8]) -> Vec<u8> {
    [&CHANNEL.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}

/// Whether it is what TURN says to a client, rather than media or a check.
pub fn is_for_client(bytes: &[u8]) -> bool {
    matches!(bytes, [0x40..=0x7f, ..]) || Message::parse(bytes).is_ok_and(|message| message.method() != method::BINDING)
}

/// The data of ChannelData or of a Data indication; `None` for anything else.
pub fn unwrap(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.starts_with(&CHANNEL.to_be_bytes()) {
        assert_eq!(usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), bytes.len() - 4);
        return Some(bytes[4..].to_vec());
    }
    let message = Message::parse(bytes).expect("a sound message");
    (message.class() == Class::Indication).then(|| message.attribute(attribute::DATA).expect("data").to_vec())
}

pub fn spec(workers: u16) -> TurnSpec {
    let keys = derive_keys("guest", "r", "pass");
    let credential =
        TurnCredential { username: "guest".into(), keys, user: "guest".into(), bound: None, expires: None };
    let relay = "198.51.100.1".parse().unwrap();
    TurnSpec {
        realm: "r".into(),
        users: vec![credential],
        secrets: Vec::new(),
        third_party: None,
        binding: false,
        discovery: Vec::new(),
        password_algorithms: PasswordAlgorithms::Never,
        peers: PeerPolicy {
            own_media: (0..workers).zip(MEDIA).map(|(index, address)| own_media(address, index)).collect(),
            ..PeerPolicy::default()
        },
        relay: RelaySpec {
            addresses: vec![RelayAddress { bind: relay, announce: relay }],
            port_min: 10_000,
            port_max: 10_999,
            workers,
            mode: RelayMode::PerAllocation,
        },
        quotas: TurnQuotas { allocations_per_user: 0, replies_per_source: 0, replies: 0, ..TurnQuotas::default() },
        lifetimes: TurnLifetimes::default(),
        features: TurnFeatures { even_port: true, mobility: true, ..TurnFeatures::default() },
    }
}

fn own_media(address: &str, worker: u16) -> OwnMedia {
    OwnMedia { address: address.parse().unwrap(), worker: WorkerIndex(worker) }
}

pub fn ask(
    world: &mut World,
    worker: usize,
    client: SocketAddr,
    method: u16,
    nonce: &[u8],
    rest: impl FnOnce(&mut MessageWriter<'_>),
) -> Vec<u8> {
    let id = world.chance() as u8;
    let bytes = signed(method, nonce, id, rest);
    world.push_turn(worker, client, &bytes);
    world.settle();
    world.turn_replies.pop().expect("an answer")
}

pub fn udp(message: &mut MessageWriter<'_>) {
    message.attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
}

/// A nonce for the client at this address.
pub fn learn(world: &mut World, worker: usize, client: SocketAddr) -> Vec<u8> {
    let challenge = ask(world, worker, client, method::ALLOCATE, &[], udp);
    Message::parse(&challenge).unwrap().attribute(attribute::NONCE).expect("a nonce").to_vec()
}

pub fn bind(world: &mut World, worker: usize, client: SocketAddr, nonce: &[u8], peer: &str) {
    let bound = ask(world, worker, client, method::CHANNEL_BIND, nonce, |message| {
        message.attribute(attribute::CHANNEL_NUMBER, &[0x40, 0, 0, 0]);
        message.xor_address(attribute::XOR_PEER_ADDRESS, peer.parse().unwrap());
    });
    assert_eq!(Message::parse(&bound).unwrap().class(), Class::Success);
}

/// Has the peer an allocation on a worker, and a channel to the media of its own. The relayed address.
fn go_through_turn(world: &mut World, worker: usize, peer: usize) -> SocketAddr {
    let client = SocketAddr::from(([10, 9, 0, peer as u8], 50_000));
    let nonce = learn(world, worker, client);
    let allocated = ask(world, worker, client, method::ALLOCATE, &nonce, udp);
    let relayed = Message::parse(&allocated).unwrap().xor_address(attribute::XOR_RELAYED_ADDRESS).expect("an address");
    bind(world, worker, client, &nonce, MEDIA[world.peers[peer].worker]);
    world.turned.insert(relayed, (worker, client));
    relayed
}

/// Every worker is the server.
pub fn configure(world: &mut World) {
    configure_as(world, |_| {});
}

/// The same by other rules.
pub fn configure_as(world: &mut World, change: impl Fn(&mut TurnSpec)) {
    let workers = world.workers.len();
    for worker in 0..workers {
        let mut spec = spec(workers as u16);
        change(&mut spec);
        world.command(worker, Command::Turn(TurnCommand::Configure(Box::new(spec))));
    }
}

/// A peer of a worker's media that comes by an allocation on the first worker.
fn turned(world: &mut World, worker: usize, side: Side) -> usize {
    let peer = world.open(worker, side);
    let relayed = go_through_turn(world, 0, peer);
    world.move_to(peer, relayed);
    world.connect(peer);
    world.secure(peer);
    peer
}

#[test]
fn media_through_turn_is_the_same_media_and_takes_no_socket() {
    media_through_turn(World::new(1), 0);
}

#[test]
fn so_is_that_of_another_worker() {
    media_through_turn(World::new(2), 1);
}

#[test]
fn turn_at_the_port_of_media_is_the_same_turn() {
    media_through_turn(World::with_turn_on_media(1), 0);
}

#[test]
fn turn_at_the_port_of_one_worker_s_media_reaches_another_s() {
    media_through_turn(World::with_turn_on_media(2), 1);
}

#[test]
fn what_came_to_the_port_of_media_goes_to_turn_only_if_it_is_turns() {
    let mut world = World::with_turn_on_media(1);
    let client = SocketAddr::from(([10, 9, 0, 1], 50_000));
    let binding = |username: Option<&[u8]>| {
        let mut bytes = vec![0; 100];
        let mut message = MessageWriter::new(&mut bytes, Class::Request, method::BINDING, TransactionId([5; 12]));
        if let Some(username) = username {
            message.attribute(attribute::USERNAME, username);
        }
        let len = message.finish().expect("room");
        bytes.truncate(len);
        bytes
    };
    // Without a TURN server nobody answers any of it.
    for bytes in [binding(None), request(&[], 1), wrap(b"data"), vec![0x7f; 8]] {
        world.push_turn(0, client, &bytes);
    }
    world.settle();
    assert_eq!(world.drops(), [(DropReason::UnknownProtocol, 4)]);
    let spec = TurnSpec { binding: true, ..spec(1) };
    world.command(0, Command::Turn(TurnCommand::Configure(Box::new(spec))));
    assert_eq!(world.workers[0].dropped(DropReason::StunUnknownUfrag), 0);
    world.push_turn(0, client, &binding(Some(b"nobody:them")));
    world.settle();
    assert_eq!(
        world.workers[0].dropped(DropReason::StunUnknownUfrag),
        1,
        "a check of ICE, for a transport that is gone"
    );
    world.push_turn(0, client, &wrap(b"data"));
    world.settle();
    assert_eq!(world.workers[0].dropped(DropReason::TurnNoAllocation), 1);
    // The same address both ways, as browsers have one socket for them.
    let peer = world.open(0, Side::Publisher);
    go_through_turn(&mut world, 0, peer);
    let client = SocketAddr::from(([10, 9, 0, peer as u8], 50_000));
    world.move_to(peer, client);
    world.connect(peer);
    world.secure(peer);
    assert_eq!(world.peers[peer].responses, 1, "the check was answered by ICE");
    world.receive(peer, receive_spec(10_000, &[]));
    let viewer = world.join(Side::Subscriber);
    subscribe(&mut world, viewer, 10_000, VIDEO);
    Camera::new(10_000, 0).send(&mut world, peer, true, 4);
    world.run_ms(10);
    assert_eq!(world.peers[viewer].rtp.len(), 4);
}

#[test]
fn what_is_longer_than_any_datagram_of_ours_is_a_padded_binding_request_or_nothing() {
    let mut world = World::new(1);
    configure(&mut world);
    let padded = |class| {
        let mut bytes = vec![0; 1524];
        let mut message = MessageWriter::new(&mut bytes, class, method::BINDING, TransactionId([1; 12]));
        message.attribute(attribute::PADDING, &[0; 1500]);
        assert_eq!(message.finish_bare(), Some(1524));
        bytes
    };
    let client = SocketAddr::from(([10, 9, 0, 9], 50_000));
    world.push(0, client, &padded(Class::Request));
    for bytes in [padded(Class::Indication), wrap(&[0; 1500])] {
        world.push_turn(0, client, &bytes);
    }
    world.settle();
    assert_eq!(world.drops(), [(DropReason::RxTruncated, 3)]);
    // This server answers none, but it has looked.
    world.push_turn(0, client, &padded(Class::Request));
    world.settle();
    assert_eq!(world.drops(), [(DropReason::RxTruncated, 3), (DropReason::TurnMalformed, 1)]);
}

/// A room on this worker, whose peers come by the first.
fn media_through_turn(mut world: World, worker: usize) {
    configure(&mut world);
    let publisher = turned(&mut world, worker, Side::Publisher);
    let direct = world.join_on(worker, Side::Subscriber);
    let through = turned(&mut world, worker, Side::Subscriber);
    world.receive(publisher, receive_spec(10_000, &[]));
    for peer in [direct, through] {
        subscribe(&mut world, peer, 10_000, VIDEO);
    }
    let mut camera = Camera::new(10_000, 0);
    for frame in 0..30 {
        camera.send(&mut world, publisher, frame % 10 == 0, 4);
    }
    world.run_ms(100);
    for peer in [direct, through] {
        assert_eq!(world.peers[peer].rtp.len(), 120);
    }
    assert_eq!(world.drops(), []);
    world.command(0, Command::Turn(TurnCommand::Snapshot { request: 4 }));
    world.run_ms(1);
    let rows = world.events.iter().find_map(|event| match event {
        Event::Turn(event) => match &**event {
            TurnEvent::Snapshot { request: 4, allocations, .. } => Some(allocations.clone()),
            _ => None,
        },
        _ => None,
    });
    let rows = rows.expect("an answer");
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!((row.sockets, row.channels), (0, 1));
        assert_eq!(row.traffic.shortcut, row.traffic.to_peers + row.traffic.to_clients);
        assert!(row.traffic.to_peers + row.traffic.to_clients >= 120);
    }
    // The client goes: its transport has no way any more, so nothing is even tried, and the others do not notice.
    let camera_at = world.join_on(worker, Side::Publisher);
    world.receive(camera_at, receive_spec(20_000, &[]));
    for peer in [direct, through] {
        subscribe(&mut world, peer, 20_000, VIDEO);
    }
    let mut camera = Camera::new(20_000, 0);
    camera.send(&mut world, camera_at, true, 4);
    world.run_ms(10);
    let before = [direct, through].map(|peer| world.peers[peer].rtp.len());
    assert_eq!(before, [124, 124]);
    world.command(0, Command::Turn(TurnCommand::Revoke { username: "guest".into() }));
    world.run_ms(1);
    camera.send(&mut world, camera_at, false, 4);
    world.run_ms(10);
    assert_eq!([direct, through].map(|peer| world.peers[peer].rtp.len()), [before[0] + 4, before[1]]);
    assert_eq!(world.dropped(DropReason::TxFull), 0);
}

#[test]
fn what_a_user_may_not_relay_is_not_sent_to_it_and_is_counted() {
    send_more_than_may_be_relayed(0);
}

#[test]
fn nor_is_it_by_another_worker() {
    send_more_than_may_be_relayed(1);
}

/// To a client of the first worker, from a room on this one.
fn send_more_than_may_be_relayed(worker: usize) {
    let mut world = World::new(worker + 1);
    // What the publisher sends is three times as much.
    configure_as(&mut world, |spec| spec.quotas.user_bps = 80_000);
    let publisher = world.join_on(worker, Side::Publisher);
    let direct = world.join_on(worker, Side::Subscriber);
    let through = turned(&mut world, worker, Side::Subscriber);
    world.receive(publisher, receive_spec(10_000, &[]));
    for peer in [direct, through] {
        subscribe(&mut world, peer, 10_000, VIDEO);
    }
    let mut camera = Camera::new(10_000, 0);
    for frame in 0..300 {
        camera.send(&mut world, publisher, frame == 0, 4);
    }
    world.run_ms(100);
    let [all, some] = [direct, through].map(|peer| world.peers[peer].rtp.len());
    let dropped = world.dropped(DropReason::TurnBandwidth) as usize;
    assert_eq!(all, 1200);
    assert!((all / 8..all / 2).contains(&some), "{some}");
    // Beside media, a report now and then.
    assert!((all - some..all - some + 40).contains(&dropped), "{dropped} of {all} with {some} through");
    assert_eq!(world.dropped(DropReason::TxFull), 0);
}

#[test]
fn subscribers_through_turn_have_trains_as_direct_ones_have() {
    for through in [false, true] {
        let mut world = World::new(1);
        world.command(0, Command::Turn(TurnCommand::Configure(Box::new(spec(1)))));
        let publisher = world.join(Side::Publisher);
        world.receive(publisher, receive_spec(10_000, &[]));
        let peers: Vec<usize> = (0..20)
            .map(|_| if through { turned(&mut world, 0, Side::Subscriber) } else { world.join(Side::Subscriber) })
            .collect();
        for &peer in &peers {
            subscribe(&mut world, peer, 10_000, VIDEO);
        }
        let mut camera = Camera::new(10_000, 0);
        camera.send(&mut world, publisher, true, 4);
        world.run_ms(50);
        let before = world.sends(0);
        for _ in 0..10 {
            camera.send(&mut world, publisher, false, 8);
            world.settle();
        }
        let (sent, trains) = world.sends(0);
        assert!((sent - before.0) >= 3 * (trains - before.1), "{through}: {sent} in {trains} from {before:?}");
    }
}

#[test]
fn a_client_on_a_connection_has_a_path_of_its_own_until_it_ends() {
    let mut world = World::new(1);
    let remote = SocketAddr::from(([192, 0, 2, 7], 50_000));
    let local = SocketAddr::from(([198, 51, 100, 1], 5349));
    let client = StreamClient { remote, local, transport: TurnTransport::Tls };
    let streams = [1, 2].map(StreamId);
    // Without a server the connection is closed.
    world.stream(FromStream::Opened { id: StreamId(9), client });
    assert_eq!(std::mem::take(&mut world.workers[0].outbox().streams), [ToStream::Close { id: StreamId(9) }]);
    world.command(0, Command::Turn(TurnCommand::Configure(Box::new(spec(1)))));
    // The same address twice, as two of our addresses may see it.
    for id in streams {
        world.stream(FromStream::Opened { id, client });
    }
    let nonces = streams.map(|stream| {
        let (id, answer, held_until) = world.say_on_stream(stream, &request(&[], 1));
        assert_eq!((id, held_until), (stream, Now(0)), "a stranger's connection is not held");
        Message::parse(&answer).unwrap().attribute(attribute::NONCE).expect("a nonce").to_vec()
    });
    for stream in streams {
        let (id, answer, held_until) = world.say_on_stream(stream, &request(&nonces[0], 2));
        assert_eq!((id, held_until), (stream, world.now + Duration::from_secs(600)), "as long as the allocation");
        assert!(Message::parse(&answer).unwrap().xor_address(attribute::XOR_RELAYED_ADDRESS).is_some());
    }
    world.settle();
    world.stream(FromStream::Closed { id: streams[0] });
    world.stream(FromStream::Closed { id: streams[0] });
    world.settle();
    let ended = |event: &&Event| matches!(event, Event::Turn(event) if matches!(**event, TurnEvent::Ended { reason: TurnEnd::Disconnected, .. }));
    assert_eq!(world.events.iter().filter(ended).count(), 1);
    // The other one's credential is revoked: its connection ends too, and what comes of it until then is nobody's.
    world.command(0, Command::Turn(TurnCommand::Revoke { username: "guest".into() }));
    world.run_ms(1);
    assert_eq!(std::mem::take(&mut world.workers[0].outbox().streams), [ToStream::Close { id: streams[1] }]);
    let before = world.dropped(DropReason::TurnNoAllocation);
    world.stream(FromStream::Message { id: streams[1], bytes: request(&nonces[1], 3) });
    world.stream(FromStream::Closed { id: streams[1] });
    world.settle();
    assert_eq!(world.dropped(DropReason::TurnNoAllocation), before + 1);
    assert!(world.workers[0].outbox().streams.is_empty());
}

/// An Allocate.
pub fn request(nonce: &[u8], id: u8) -> Vec<u8> {
    signed(method::ALLOCATE, nonce, id, udp)
}

/// A request, with a proof where there is a nonce.
pub fn signed(method: u16, nonce: &[u8], id: u8, rest: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut bytes = vec![0; 500];
    let mut message = MessageWriter::new(&mut bytes, Class::Request, method, TransactionId([id; 12]));
    rest(&mut message);
    if !nonce.is_empty() {
        message.attribute(attribute::USERNAME, b"guest");
        message.attribute(attribute::REALM, b"r");
        message.attribute(attribute::NONCE, nonce);
        message.integrity(&IntegrityKey::new(&derive_keys("guest", "r", "pass").md5));
    }
    let len = message.finish().expect("room");
    bytes.truncate(len);
    bytes
}
