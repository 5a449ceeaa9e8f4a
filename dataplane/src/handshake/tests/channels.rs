//! Data channels between peers of one room, over SCTP associations of their own.

use ringmain_shared::event::Event;
use ringmain_shared::id::TransportId;
use ringmain_shared::limits::{
    API_BURST, CHANNEL_BUFFER_SIZE_MAX, CHANNEL_MESSAGE_SIZE_MAX, CHANNELS_PER_TRANSPORT_MAX,
};
use ringmain_shared::transport::{DtlsRole, Side};
use sctp_proto::PayloadProtocolIdentifier as Ppid;

use super::world::{Dialect, World, spec};
use crate::handshake::{Limit, Reliability, ToHandshake};

/// A peer's publisher is transport 10·peer, its subscriber 10·peer + 1.
fn room(seed: u64, loss: u64, peers: std::ops::RangeInclusive<u64>) -> World {
    let mut world = World::new(seed, loss);
    for peer in peers {
        enter(&mut world, peer);
    }
    world
}

fn enter(world: &mut World, peer: u64) {
    // OpenSSL as a client needs real time to recover from loss, and here time is virtual.
    let (even, role) = match world.loss_percent {
        0 if peer.is_multiple_of(3) => (Dialect::Openssl, DtlsRole::Client),
        0 => (Dialect::Openssl, DtlsRole::Server),
        _ => (Dialect::Dimpl12, DtlsRole::Server),
    };
    let dialect = if peer.is_multiple_of(2) { even } else { Dialect::DimplAuto };
    world.join_plainly(spec(10 * peer, peer, Side::Publisher, true), dialect, role);
    world.join_plainly(spec(10 * peer + 1, peer, Side::Subscriber, true), dialect, role);
    let (publisher, subscriber) = (10 * peer, 10 * peer + 1);
    // The peers' SCTP starts with a retransmission timer of three seconds and doubles it: a minute is five attempts, which loss
    // sometimes takes all of.
    let ready = world.run(600_000, |world| world.peer(publisher).up && world.peer(subscriber).has("ion-sfu"));
    assert!(ready, "peer {peer}: {:?}", world.closed);
}

fn heard(world: &World, id: u64, label: &str, ppid: Ppid, message: &[u8]) -> usize {
    let wanted = (label.to_owned(), ppid, message.to_vec());
    world.peer(id).inbox.iter().filter(|&item| *item == wanted).count()
}

#[test]
fn the_api_channel_opens_by_itself_and_carries_text_both_ways() {
    let mut world = World::new(1, 10);
    world.join_plainly(spec(11, 1, Side::Subscriber, true), Dialect::DimplAuto, DtlsRole::Server);
    let early = "sent before the channel was open".to_owned();
    world.input(ToHandshake::SendApi { transport: TransportId(11), text: early.clone() });
    assert!(world.run(60_000, |world| !world.peer(11).inbox.is_empty()));
    assert_eq!(heard(&world, 11, "ion-sfu", Ppid::String, early.as_bytes()), 1);
    assert_eq!(world.events, [Event::ApiOpen { transport: TransportId(11) }]);
    world.say(11, "ion-sfu", Ppid::String, b"{\"streamId\":\"x\"}");
    world.say(11, "ion-sfu", Ppid::Binary, b"not text");
    world.say(11, "ion-sfu", Ppid::String, b"\xff\xfe");
    world.say(11, "ion-sfu", Ppid::StringEmpty, b"\0");
    world.run(5_000, |world| world.events.len() >= 3);
    let text = |text: &str| Event::ApiMessage { transport: TransportId(11), text: text.to_owned() };
    assert_eq!(world.events[1..], [text("{\"streamId\":\"x\"}"), text("")]);
}

#[test]
fn a_flood_on_an_api_channel_ends_before_control_and_spares_other_transports() {
    let mut world = room(1, 0, 1..=2);
    world.events.clear();
    let said = |world: &World, id: u64| {
        let own = TransportId(id);
        let is_own = |event: &&Event| matches!(event, Event::ApiMessage { transport, .. } if *transport == own);
        world.events.iter().filter(is_own).count()
    };
    for _ in 0..2 * API_BURST {
        world.say(11, "ion-sfu", Ppid::String, b"ping");
        world.run(1, |_| false);
    }
    world.say(21, "ion-sfu", Ppid::String, b"ping");
    world.run(100, |_| false);
    let flooded = world.handshaker.stats().api_flooded as usize;
    assert_eq!(said(&world, 11) + flooded, 2 * API_BURST as usize);
    // Four hundred milliseconds and more have passed: so much the rate allowed beside the burst.
    assert!(said(&world, 11) >= API_BURST as usize && flooded >= 100, "{} {flooded}", said(&world, 11));
    assert_eq!(said(&world, 21), 1, "the other peer is heard");
    world.run(5_000, |_| false);
    let before = said(&world, 11);
    for _ in 0..5 {
        world.say(11, "ion-sfu", Ppid::String, &vec![b'x'; CHANNEL_MESSAGE_SIZE_MAX]);
        world.run(500, |_| false);
    }
    let long = said(&world, 11) - before;
    assert!((2..=4).contains(&long), "long messages are bounded by their bytes: {long}");
    world.run(5_000, |_| false);
    world.say(11, "ion-sfu", Ppid::String, b"ping");
    assert!(world.run(1_000, |world| said(world, 11) == before + long + 1), "and afterwards it is heard again");
}

#[test]
fn a_publisher_channel_under_the_api_label_is_accepted_and_ignored() {
    let mut world = room(1, 0, 1..=2);
    world.run(2_000, |_| false);
    world.events.clear();
    world.open(10, 0, "ion-sfu", Reliability::FULL);
    world.say(10, "ion-sfu", Ppid::String, b"anybody?");
    world.run(2_000, |_| false);
    assert!(world.peer(10).resets.is_empty());
    assert!(world.events.is_empty());
    assert!(world.peer(21).inbox.is_empty());
}

#[test]
fn messages_reach_every_other_peer_as_they_were_sent() {
    for (seed, loss) in [(1, 0), (2, 15)] {
        let mut world = room(seed, loss, 1..=3);
        world.open(10, 2, "chat", Reliability::FULL);
        assert!(world.run(60_000, |world| world.peer(21).has("chat") && world.peer(31).has("chat")));
        assert!(!world.peer(11).has("chat"), "the creator has its own");
        let long = vec![b'x'; 50_000];
        let messages: [(Ppid, &[u8]); 4] = [
            (Ppid::String, "grüß".as_bytes()),
            (Ppid::Binary, &long),
            (Ppid::StringEmpty, b"\0"),
            (Ppid::BinaryEmpty, b"\0"),
        ];
        for (ppid, message) in messages {
            world.say(10, "chat", ppid, message);
        }
        assert!(world.run(60_000, |world| [21, 31].iter().all(|&id| world.peer(id).inbox.len() == 4)), "seed {seed}");
        for id in [21, 31] {
            let inbox: Vec<_> = world.peer(id).inbox.iter().map(|(_, ppid, bytes)| (*ppid, bytes.as_slice())).collect();
            assert_eq!(inbox, messages, "seed {seed}");
        }
        // An answer from a subscriber's side reaches the creator on the channel that it created, and the third peer.
        world.say(21, "chat", Ppid::String, b"answer");
        world.run(60_000, |world| {
            heard(world, 10, "chat", Ppid::String, b"answer") + heard(world, 31, "chat", Ppid::String, b"answer") == 2
        });
        assert_eq!(heard(&world, 10, "chat", Ppid::String, b"answer"), 1);
        assert_eq!(heard(&world, 31, "chat", Ppid::String, b"answer"), 1);
        assert_eq!(heard(&world, 21, "chat", Ppid::String, b"answer"), 0, "nobody hears himself");
        assert!(world.largest <= 1200, "{}", world.largest);
    }
}

#[test]
fn who_has_a_channel_of_his_own_hears_it_there() {
    let mut world = room(1, 0, 1..=2);
    world.open(10, 2, "chat", Reliability::FULL);
    assert!(world.run(5_000, |world| world.peer(21).has("chat")));
    world.open(20, 4, "chat", Reliability::FULL);
    world.run(1_000, |_| false);
    world.say(10, "chat", Ppid::String, b"hello");
    world.run(1_000, |_| false);
    assert_eq!(heard(&world, 20, "chat", Ppid::String, b"hello"), 1);
    assert!(world.peer(21).inbox.is_empty());
    assert!(!world.peer(11).has("chat"));
}

#[test]
fn a_late_joiner_gets_the_labels_and_they_outlive_their_creator() {
    let mut world = room(1, 0, 1..=2);
    let unordered = Reliability { ordered: false, limit: Limit::Retransmits(2) };
    world.open(10, 2, "chat", unordered);
    assert!(world.run(5_000, |world| world.peer(21).has("chat")));
    for transport in [10, 11] {
        world.input(ToHandshake::Close { transport: TransportId(transport) });
    }
    enter(&mut world, 3);
    assert!(world.run(5_000, |world| world.peer(31).has("chat")));
    assert!(world.peer(31).channels.values().any(|channel| *channel == ("chat".to_owned(), unordered)));
    world.say(21, "chat", Ppid::String, b"still here");
    assert!(world.run(5_000, |world| heard(world, 31, "chat", Ppid::String, b"still here") == 1));
    for transport in [20, 21, 30, 31] {
        world.input(ToHandshake::Close { transport: TransportId(transport) });
    }
    assert!(world.handshaker.rooms.is_empty() && world.handshaker.transports.is_empty());
    assert_eq!(world.handshaker.next_deadline(), None);
}

#[test]
fn a_channel_that_a_peer_closes_is_closed_for_it_alone() {
    let mut world = room(1, 0, 1..=3);
    world.open(10, 2, "chat", Reliability::FULL);
    assert!(world.run(5_000, |world| world.peer(21).has("chat") && world.peer(31).has("chat")));
    let stream = *world.peer(21).channels.iter().find(|(_, (label, _))| label == "chat").unwrap().0;
    world.peer_step(TransportId(21), |peer, _| {
        peer.association.as_mut().unwrap().stream(stream).unwrap().close().unwrap();
    });
    world.run(2_000, |_| false);
    world.say(10, "chat", Ppid::String, b"two left");
    world.run(2_000, |_| false);
    assert_eq!(heard(&world, 31, "chat", Ppid::String, b"two left"), 1);
    assert_eq!(heard(&world, 21, "chat", Ppid::String, b"two left"), 0);
}

#[test]
fn an_unreliable_channel_loses_instead_of_waiting() {
    let mut world = room(1, 0, 1..=2);
    world.open(10, 2, "pose", Reliability { ordered: false, limit: Limit::Retransmits(0) });
    assert!(world.run(5_000, |world| world.peer(21).has("pose")));
    world.say(21, "pose", Ppid::String, b"confirms");
    world.run(1_000, |_| false);
    world.loss_percent = 30;
    for n in 0..100u8 {
        world.say(10, "pose", Ppid::Binary, &[n; 100]);
        world.run(20, |_| false);
    }
    world.loss_percent = 0;
    world.run(20_000, |_| false);
    let got = world.peer(21).inbox.len();
    assert!((20..100).contains(&got), "{got} of 100 arrived over two lossy ways without retransmission");
}

#[test]
fn a_slow_reader_costs_bounded_memory_and_stalls_nobody() {
    let mut world = room(1, 0, 1..=3);
    world.open(10, 2, "files", Reliability::FULL);
    world.open(10, 4, "pose", Reliability { ordered: true, limit: Limit::LifetimeMs(60_000) });
    assert!(
        world.run(5_000, |world| [21, 31].iter().all(|&id| world.peer(id).has("files") && world.peer(id).has("pose")))
    );
    world.say(21, "pose", Ppid::String, b"confirms");
    world.run(1_000, |_| false);
    world.deaf.insert(TransportId(21));
    let message = vec![7; 60_000];
    for round in 0..30 {
        for label in ["pose", "files"] {
            world.say(10, label, Ppid::Binary, &message);
        }
        let arrived = |world: &World| heard(world, 31, "files", Ppid::Binary, &message) == round + 1;
        assert!(world.run(5_000, arrived), "round {round}");
        assert!(world.handshaker.buffered(TransportId(21)) <= CHANNEL_BUFFER_SIZE_MAX);
    }
    let stats = world.handshaker.stats();
    assert_eq!(stats.channels_dropped, 1, "the reliable channel of the slow reader");
    assert!(stats.messages_dropped > 5, "{stats:?}");
    assert_eq!(heard(&world, 31, "pose", Ppid::Binary, &message), 30);
    assert!(world.closed.is_empty());
}

#[test]
fn a_peer_cannot_have_more_channels_than_its_share() {
    let mut world = room(1, 0, 1..=2);
    for n in 0..CHANNELS_PER_TRANSPORT_MAX as u16 + 8 {
        world.open(10, 2 * n, &format!("label {n}"), Reliability::FULL);
        world.run(100, |_| false);
    }
    world.run(5_000, |_| false);
    assert!(world.peer(10).resets.len() >= 8, "{:?}", world.peer(10).resets);
    assert!(world.peer(21).channels.len() <= CHANNELS_PER_TRANSPORT_MAX);
    world.say(10, "label 3", Ppid::String, b"still works");
    assert!(world.run(5_000, |world| heard(world, 21, "label 3", Ppid::String, b"still works") == 1));
}
