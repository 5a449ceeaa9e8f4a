//! How long things last, what is repeated and what moves. RFC 8656 §7–§9, §12; RFC 8016.

use std::time::Duration;

use ringmain_shared::DropReason;
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::turn::{TurnEnd, TurnEvent, TurnLifetimes, TurnSpec, TurnTransport};

use super::world::*;
use crate::packet::stun::{attribute, method};
use crate::turn::between::EXPECTED_MAX;

const PEER: &str = "8.8.8.8:9000";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn an_allocation_lasts_as_long_as_it_asks_within_bounds() {
    let mut world = World::new(spec());
    for (number, asked, granted) in [(1, None, 600), (2, Some(1), 600), (3, Some(900), 900), (4, Some(u32::MAX), 3600)]
    {
        let mut alice = Caller::new(number, "alice");
        let attributes: Vec<Attribute> = [udp()].into_iter().chain(asked.map(lifetime)).collect();
        assert_eq!(alice.ask(&mut world, method::ALLOCATE, &attributes).lifetime(), granted);
    }
    world.events();
    for (after, left) in [(599, 4), (1, 2), (300, 1), (2700, 0)] {
        world.wait(seconds(after));
        assert_eq!(world.turn.stats().allocations, left, "{after} s later");
    }
    let ended = world.events();
    assert!(ended.iter().all(|event| matches!(event, TurnEvent::Ended { reason: TurnEnd::Expired, .. })));
    assert_eq!(
        (ended.len(), world.turn.ports.free(), world.turn.accounts.len(), world.turn.timers.len()),
        (4, 100, 0, 0)
    );
}

#[test]
fn an_operator_may_have_allocations_end_sooner_than_the_default() {
    let mut world =
        World::new(TurnSpec { lifetimes: TurnLifetimes { allocation_max: seconds(60), ..spec().lifetimes }, ..spec() });
    for (number, asked) in [(1, None), (2, Some(30)), (3, Some(600))] {
        let mut alice = Caller::new(number, "alice");
        let attributes: Vec<Attribute> = [udp()].into_iter().chain(asked.map(lifetime)).collect();
        assert_eq!(alice.ask(&mut world, method::ALLOCATE, &attributes).lifetime(), 60, "{asked:?} at first");
        world.wait(seconds(59));
        let attributes: Vec<Attribute> = asked.map(lifetime).into_iter().collect();
        assert_eq!(alice.ask(&mut world, method::REFRESH, &attributes).lifetime(), 60, "{asked:?} again");
        world.wait(seconds(60));
        assert_eq!(world.turn.stats().allocations, 0);
    }
}

#[test]
fn permissions_end_after_five_minutes_and_channels_after_ten() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    let relayed = alice.ask(&mut world, method::ALLOCATE, &[udp(), lifetime(3600)]).relayed();
    assert_eq!(alice.bind(&mut world, 0x4000, PEER), 0);
    world.wait(seconds(299));
    assert_eq!(world.peer_says(relayed, PEER, b"x"), Ok(()));
    world.wait(seconds(1));
    assert_eq!(world.peer_says(relayed, PEER, b"x"), Err(DropReason::TurnNoPermission));
    assert_eq!(alice.send(&mut world, PEER, b"x"), Err(DropReason::TurnNoPermission));
    assert_eq!(alice.channel_data(&mut world, 0x4000, b"x"), Ok(None));
    assert_eq!(alice.permit(&mut world, &[PEER]), 0);
    assert_eq!(world.peer_says(relayed, PEER, b"x"), Ok(()));
    world.wait(seconds(299));
    assert_eq!(alice.channel_data(&mut world, 0x4000, b"x"), Ok(None));
    world.take();
    world.wait(seconds(1));
    assert_eq!(alice.channel_data(&mut world, 0x4000, b"x"), Err(DropReason::TurnNoChannel));
    // The number is free for another peer, and the peer for another number.
    alice.learn(&mut world);
    assert_eq!(alice.bind(&mut world, 0x4000, "8.8.4.4:1"), 0);
    assert_eq!(alice.bind(&mut world, 0x4001, PEER), 0);
}

#[test]
fn a_link_to_our_media_lasts_as_long_as_its_permission_or_channel() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    alice.ask(&mut world, method::ALLOCATE, &[udp(), lifetime(3600)]);
    assert_eq!(alice.bind(&mut world, 0x4000, MEDIA), 0);
    let path = alice.channel_data(&mut world, 0x4000, b"x").unwrap().unwrap().path;
    world.wait(seconds(300));
    assert_eq!(alice.permit(&mut world, &[MEDIA]), 0);
    world.wait(seconds(299));
    world.media_says(path, b"y");
    assert_eq!(world.take().pop().unwrap().1, b"\x40\x00\x00\x01y");
    world.wait(seconds(1));
    // Both ended in this second.
    assert_eq!(alice.channel_data(&mut world, 0x4000, b"x"), Err(DropReason::TurnNoChannel));
    assert_eq!(world.turn.links.count(), 0);
    world.media_says(path, b"y");
    assert!(world.take().is_empty());
}

#[test]
fn numbers_and_peers_are_bound_to_each_other_only() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    alice.allocate(&mut world);
    assert_eq!(alice.bind(&mut world, 0x4000, PEER), 0);
    assert_eq!(alice.bind(&mut world, 0x4000, PEER), 0);
    assert_eq!(alice.bind(&mut world, 0x4000, "8.8.8.8:9001"), 400);
    assert_eq!(alice.bind(&mut world, 0x4001, PEER), 400);
    for number in [0, 0x3fff, 0x8000, 0xffff] {
        assert_eq!(alice.bind(&mut world, number, "8.8.8.8:9001"), 400, "{number:#x}");
    }
    assert_eq!(alice.bind(&mut world, 0x7fff, "8.8.8.8:9001"), 0);
    let id = world.transaction();
    for attributes in [
        vec![],
        vec![channel(0x4002)],
        vec![alice.peer(PEER, id)],
        vec![channel(0x4002), (attribute::XOR_PEER_ADDRESS, vec![0; 3])],
    ] {
        assert_eq!(alice.ask_as(&mut world, method::CHANNEL_BIND, id, &attributes).code(), 400);
    }
    assert_eq!(alice.permit(&mut world, &[]), 400);
}

#[test]
fn an_allocate_that_is_sent_again_gets_the_same_answer() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    alice.learn(&mut world);
    let id = world.transaction();
    let first = alice.ask_as(&mut world, method::ALLOCATE, id, &[udp()]);
    let again = alice.ask_as(&mut world, method::ALLOCATE, id, &[udp()]);
    assert_eq!((first.code(), first.relayed()), (0, again.relayed()));
    assert_eq!((world.turn.stats().allocations, world.turn.stats().allocated, world.events().len()), (1, 1, 1));
    assert_eq!(alice.allocate(&mut world).code(), 437, "another one");
    assert_eq!(alice.refresh(&mut world, 0).code(), 0);
    assert_eq!(alice.refresh(&mut world, 0).code(), 437);
    assert_eq!(alice.permit(&mut world, &[PEER]), 437);
    assert_eq!(alice.bind(&mut world, 0x4000, PEER), 437);
    assert_eq!(alice.allocate(&mut world).code(), 0);
}

#[test]
fn what_an_allocate_may_not_ask_is_refused_by_its_number() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    let family = |family: u8| (attribute::REQUESTED_ADDRESS_FAMILY, vec![family, 0, 0, 0]);
    let additional = |family: u8| (attribute::ADDITIONAL_ADDRESS_FAMILY, vec![family, 0, 0, 0]);
    let token = || (attribute::RESERVATION_TOKEN, vec![1; 8]);
    let even = |flags: u8| (attribute::EVEN_PORT, vec![flags]);
    for (attributes, code) in [
        (vec![], 400),
        (vec![(attribute::REQUESTED_TRANSPORT, vec![17])], 400),
        (vec![tcp()], 400),
        (vec![(attribute::REQUESTED_TRANSPORT, vec![132, 0, 0, 0])], 442),
        (vec![udp(), family(3)], 440),
        (vec![udp(), family(1), additional(2)], 400),
        (vec![udp(), additional(1)], 400),
        (vec![udp(), additional(2), even(0x80)], 400),
        (vec![udp(), token(), even(0)], 400),
        (vec![udp(), token(), family(1)], 400),
        (vec![udp(), (attribute::RESERVATION_TOKEN, vec![1; 7])], 400),
        (vec![udp(), token()], 508),
        (vec![udp(), (attribute::LIFETIME, vec![1])], 400),
        (vec![udp(), (0x7fff, vec![])], 420),
        (vec![udp(), (attribute::MOBILITY_TICKET, vec![1; 16])], 400),
    ] {
        let answer = alice.ask(&mut world, method::ALLOCATE, &attributes);
        assert_eq!(answer.code(), code, "{attributes:x?}");
        assert_eq!(answer.message().attribute(attribute::UNKNOWN_ATTRIBUTES).is_some(), code == 420);
    }
    assert_eq!((world.turn.stats().allocations, world.turn.ports.free()), (0, 100));
    let mut plain = spec();
    plain.features = Default::default();
    let mut world = World::new(plain);
    for (attributes, code) in [
        (vec![udp(), even(0)], 420),
        (vec![udp(), token()], 420),
        (vec![udp(), (attribute::MOBILITY_TICKET, vec![])], 405),
    ] {
        assert_eq!(alice.clone().ask_fresh(&mut world, &attributes).code(), code);
    }
}

impl Caller {
    fn ask_fresh(mut self, world: &mut World, attributes: &[Attribute]) -> Answer {
        self.nonce.clear();
        self.ask(world, method::ALLOCATE, attributes)
    }
}

#[test]
fn a_pair_of_ports_is_reserved_and_had_by_its_token() {
    let mut world = World::new(spec());
    let mut rtp = Caller::new(1, "alice");
    let answer = rtp.ask(&mut world, method::ALLOCATE, &[udp(), (attribute::EVEN_PORT, vec![0x80])]);
    let token = answer.message().attribute(attribute::RESERVATION_TOKEN).expect("one").to_vec();
    assert!(answer.relayed().port().is_multiple_of(2));
    assert_eq!(world.turn.ledger.held("alice"), 2, "a reserved port counts");
    let with_token = [udp(), (attribute::RESERVATION_TOKEN, token)];
    assert_eq!(Caller::new(2, "bob").ask(&mut world, method::ALLOCATE, &with_token).code(), 508, "another one's");
    let mut rtcp = Caller::new(3, "alice");
    let second = rtcp.ask(&mut world, method::ALLOCATE, &with_token);
    assert_eq!((second.code(), second.relayed().port()), (0, answer.relayed().port() + 1));
    assert_eq!(world.turn.ledger.held("alice"), 2);
    assert_eq!(Caller::new(4, "alice").ask(&mut world, method::ALLOCATE, &with_token).code(), 508, "once");
    // One that is not used is free again after half a minute.
    let answer = Caller::new(5, "bob").ask(&mut world, method::ALLOCATE, &[udp(), (attribute::EVEN_PORT, vec![0x80])]);
    assert_eq!((answer.code(), world.turn.ports.free(), world.turn.ledger.held("bob")), (0, 96, 2));
    world.wait(seconds(31));
    assert_eq!((world.turn.ports.free(), world.turn.ledger.held("bob")), (97, 1));
    let even = Caller::new(6, "bob").ask(&mut world, method::ALLOCATE, &[udp(), (attribute::EVEN_PORT, vec![0])]);
    assert!(
        even.relayed().port().is_multiple_of(2) && even.message().attribute(attribute::RESERVATION_TOKEN).is_none()
    );
}

#[test]
fn a_client_that_moved_shows_its_ticket_and_its_name() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    let answer = alice.ask(&mut world, method::ALLOCATE, &[udp(), (attribute::MOBILITY_TICKET, vec![])]);
    let ticket = answer.message().attribute(attribute::MOBILITY_TICKET).expect("one").to_vec();
    assert_eq!(alice.bind(&mut world, 0x4000, MEDIA), 0);
    assert_eq!(alice.bind(&mut world, 0x4001, PEER), 0);
    let path = alice.channel_data(&mut world, 0x4000, b"x").unwrap().unwrap().path;
    let show = |ticket: &[u8]| [lifetime(600), (attribute::MOBILITY_TICKET, ticket.to_vec())];
    assert_eq!(Caller::new(2, "bob").ask(&mut world, method::REFRESH, &show(&ticket)).code(), 441);
    assert_eq!(Caller::new(3, "alice").ask(&mut world, method::REFRESH, &show(&[9; 16])).code(), 437);
    let mut moved = Caller::new(4, "alice");
    let answer = moved.ask(&mut world, method::REFRESH, &show(&ticket));
    assert_eq!(answer.code(), 0);
    let next = answer.message().attribute(attribute::MOBILITY_TICKET).expect("another one").to_vec();
    assert_ne!(next, ticket);
    assert_eq!(
        Caller::new(5, "alice").ask(&mut world, method::REFRESH, &show(&ticket)).code(),
        437,
        "a ticket is good once"
    );
    // It goes on where it is now, by both ways, and is one allocation still.
    assert_eq!(alice.channel_data(&mut world, 0x4001, b"x"), Err(DropReason::TurnNoAllocation));
    assert_eq!(moved.channel_data(&mut world, 0x4001, b"x"), Ok(None));
    world.take();
    world.media_says(path, b"media");
    assert_eq!(world.take().pop().unwrap().0, moved.client.path);
    assert_eq!((world.turn.stats().allocations, world.turn.ledger.held("alice")), (1, 1));
    assert_eq!(moved.refresh(&mut world, 0).code(), 0);
    assert!(world.turn.tickets.is_empty());
}

#[test]
fn whoever_does_not_hear_the_next_ticket_asks_for_it_again() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    let answer = alice.ask(&mut world, method::ALLOCATE, &[udp(), (attribute::MOBILITY_TICKET, vec![])]);
    let ticket = answer.message().attribute(attribute::MOBILITY_TICKET).expect("one").to_vec();
    let mut moved = Caller::new(2, "alice");
    moved.learn(&mut world);
    let show = [lifetime(600), (attribute::MOBILITY_TICKET, ticket)];
    let request = moved.request(method::REFRESH, world.transaction(), &show);
    let [first, second] = [(); 2].map(|()| {
        world.say(moved.client, &request).expect("a request");
        let (_, bytes) = world.take().pop().expect("an answer");
        let answer = Answer { bytes, client: moved.client };
        assert_eq!(answer.code(), 0);
        answer.message().attribute(attribute::MOBILITY_TICKET).expect("the next one").to_vec()
    });
    assert_eq!(first, second);
    // It is the one that is good.
    let mut again = Caller::new(3, "alice");
    let show = [lifetime(600), (attribute::MOBILITY_TICKET, second)];
    assert_eq!(again.ask(&mut world, method::REFRESH, &show).code(), 0);
}

#[test]
fn clients_that_no_worker_tells_of_are_forgotten_and_the_others_are_not() {
    let mut turn = World::new(spec()).turn;
    let path = |number: u16| client(number).path;
    for number in 1..=5000 {
        turn.expect(path(number), WorkerIndex(1));
        if number % 50 == 0 {
            turn.handle_moved(WorkerIndex(1), path(number), true);
        }
    }
    assert!(turn.moved.len() <= EXPECTED_MAX + 100 && turn.expected.len() == EXPECTED_MAX, "{}", turn.moved.len());
    assert!(turn.moved.contains_key(&path(50)) && turn.moved.contains_key(&path(4999)));
    assert!(!turn.moved.contains_key(&path(51)));
    for number in 1..=5000 {
        turn.handle_moved(WorkerIndex(1), path(number), false);
    }
    assert!(turn.moved.is_empty());
}

#[test]
fn a_connection_that_ends_takes_its_allocation_along() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    alice.client.transport = TurnTransport::Tls;
    alice.allocate(&mut world);
    world.events();
    world.turn.handle_disconnected(alice.client.path, world.now);
    world.turn.handle_disconnected(alice.client.path, world.now);
    assert!(matches!(&world.events()[..], [TurnEvent::Ended { reason: TurnEnd::Disconnected, .. }]));
    assert_eq!(world.turn.ports.free(), 100);
}

#[test]
fn our_own_media_reaches_a_client_no_longer_than_its_permission_holds() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    alice.ask(&mut world, method::ALLOCATE, &[udp(), lifetime(3600)]);
    assert_eq!(alice.bind(&mut world, 0x4000, MEDIA), 0);
    let path = alice.channel_data(&mut world, 0x4000, b"x").unwrap().expect("for our media").path;
    let heard = |world: &mut World| {
        world.take();
        world.media_says(path, b"y");
        world.take().len()
    };
    world.wait(seconds(299));
    assert_eq!(heard(&mut world), 1);
    world.wait(seconds(1));
    assert_eq!(heard(&mut world), 0, "the channel lasts, its permission does not");
    assert_eq!(alice.permit(&mut world, &[MEDIA]), 0);
    assert_eq!(heard(&mut world), 1);
    assert_eq!(alice.channel_data(&mut world, 0x4000, b"x").unwrap().expect("for our media").path, path);
}
