//! Two workers that are one TURN server: quotas and ports are counted together, clients reach the media of either, and move between
//! them. The test carries what they tell each other, as rings do.

use std::net::SocketAddr;
use std::time::Duration;

use ringmain_dataplane::packet::stun::{Class, Message, MessageWriter, attribute, method};
use ringmain_dataplane::stream::{FromStream, StreamClient, StreamId, ToStream};
use ringmain_shared::DropReason;
use ringmain_shared::command::Command;
use ringmain_shared::transport::Side;
use ringmain_shared::turn::{TurnCommand, TurnSpec, TurnTransport};

use crate::turn::{MEDIA, ask, bind, configure, configure_as, learn, spec, udp, unwrap, wrap};
use crate::world::World;

fn client(number: u8) -> SocketAddr {
    ([10, 9, 1, number], 50_000).into()
}

/// 0 is success.
fn code(answer: &[u8]) -> u16 {
    Message::parse(answer).unwrap().error_code().unwrap_or(0)
}

fn port(answer: &[u8]) -> u16 {
    Message::parse(answer).unwrap().xor_address(attribute::XOR_RELAYED_ADDRESS).expect("an address").port()
}

fn attribute_of(answer: &[u8], attribute: u16) -> Vec<u8> {
    Message::parse(answer).unwrap().attribute(attribute).expect("it is there").to_vec()
}

/// An Allocate with one more attribute.
fn allocate(world: &mut World, worker: usize, client: SocketAddr, more: &[(u16, &[u8])]) -> Vec<u8> {
    let nonce = learn(world, worker, client);
    ask(world, worker, client, method::ALLOCATE, &nonce, |message| {
        udp(message);
        more.iter().for_each(|(attribute, value)| message.attribute(*attribute, value));
    })
}

fn release(world: &mut World, worker: usize, client: SocketAddr) {
    let nonce = learn(world, worker, client);
    let over = ask(world, worker, client, method::REFRESH, &nonce, |message| lifetime(message, 0));
    assert_eq!(code(&over), 0);
}

fn lifetime(message: &mut MessageWriter<'_>, seconds: u32) {
    message.attribute(attribute::LIFETIME, &seconds.to_be_bytes());
}

fn configured(change: impl Fn(&mut TurnSpec)) -> World {
    let mut world = World::new(2);
    configure_as(&mut world, change);
    world
}

#[test]
fn a_user_has_its_quota_once_and_not_on_each_worker() {
    let mut world = configured(|spec| spec.quotas.allocations_per_user = 4);
    let codes: Vec<u16> = (0..8).map(|n| code(&allocate(&mut world, usize::from(n % 2), client(n), &[]))).collect();
    assert_eq!(codes, [0, 0, 0, 0, 486, 486, 486, 486]);
    release(&mut world, 1, client(1));
    assert_eq!(code(&allocate(&mut world, 0, client(8), &[])), 0, "what one gives back the other may give");
    assert_eq!(code(&allocate(&mut world, 1, client(9), &[])), 486);
    world.run(Duration::from_secs(601));
    assert_eq!(code(&allocate(&mut world, 1, client(10), &[])), 0, "and what is over is given back");
}

#[test]
fn a_user_allocates_so_often_in_a_second_at_all_workers_together() {
    let mut world = configured(|spec| spec.quotas.allocates_per_user_second = 4);
    let codes: Vec<u16> = (0..8).map(|n| code(&allocate(&mut world, usize::from(n % 2), client(n), &[]))).collect();
    assert_eq!(codes, [0, 0, 0, 0, 486, 486, 486, 486]);
    world.run(Duration::from_secs(1));
    assert_eq!(code(&allocate(&mut world, 1, client(9), &[])), 0);
}

#[test]
fn all_together_have_what_all_may_have() {
    let mut world = configured(|spec| spec.quotas.allocations = 3);
    let codes: Vec<u16> = (0..6).map(|n| code(&allocate(&mut world, usize::from(n % 2), client(n), &[]))).collect();
    assert_eq!(codes, [0, 0, 0, 508, 508, 508]);
}

#[test]
fn every_port_may_be_any_worker_s_and_is_one_s_at_a_time() {
    let mut world = configured(|spec| spec.relay.port_max = spec.relay.port_min + 9);
    let mut ports: Vec<u16> =
        (0..10).map(|n| port(&allocate(&mut world, usize::from(n > 7), client(n), &[]))).collect();
    ports.sort_unstable();
    assert!(ports.iter().copied().eq(10_000..10_010), "{ports:?}");
    assert_eq!(code(&allocate(&mut world, 1, client(10), &[])), 508);
    release(&mut world, 0, client(0));
    assert_eq!(code(&allocate(&mut world, 1, client(11), &[])), 0);
}

#[test]
fn a_port_that_one_worker_reserved_is_had_of_another_and_given_back_once() {
    let mut world = configured(|spec| {
        spec.quotas.allocations_per_user = 2;
        spec.relay.port_max = spec.relay.port_min + 3;
    });
    let pair = allocate(&mut world, 0, client(1), &[(attribute::EVEN_PORT, &[0x80])]);
    let token = attribute_of(&pair, attribute::RESERVATION_TOKEN);
    assert_eq!(code(&allocate(&mut world, 1, client(2), &[])), 486, "a reserved port counts");
    let wrong: Vec<u8> = token.iter().map(|byte| byte ^ 1).collect();
    assert_eq!(code(&allocate(&mut world, 1, client(3), &[(attribute::RESERVATION_TOKEN, &wrong)])), 508);
    let second = allocate(&mut world, 1, client(4), &[(attribute::RESERVATION_TOKEN, &token)]);
    assert_eq!(port(&second), port(&pair) + 1);
    assert_eq!(code(&allocate(&mut world, 0, client(5), &[(attribute::RESERVATION_TOKEN, &token)])), 508, "once");
    // The time of the reservation passes at the worker that made it: the port is another's now.
    world.run(Duration::from_secs(31));
    assert_eq!(code(&allocate(&mut world, 0, client(6), &[])), 486);
    release(&mut world, 1, client(4));
    release(&mut world, 0, client(1));
    // One that nobody comes for is free again.
    let pair = allocate(&mut world, 1, client(7), &[(attribute::EVEN_PORT, &[0x80])]);
    assert_eq!(code(&pair), 0);
    let token = attribute_of(&pair, attribute::RESERVATION_TOKEN);
    world.run(Duration::from_secs(31));
    assert_eq!(code(&allocate(&mut world, 0, client(8), &[(attribute::RESERVATION_TOKEN, &token)])), 508, "too late");
    assert_eq!(code(&allocate(&mut world, 0, client(9), &[])), 0);
}

#[test]
fn a_client_on_a_connection_reaches_another_worker_s_media_and_is_reached_by_it() {
    let mut world = World::new(2);
    configure(&mut world);
    let peer = world.open(1, Side::Publisher);
    let (remote, local) = (client(1), SocketAddr::from(([198, 51, 100, 1], 5349)));
    let id = StreamId(1);
    world.stream(FromStream::Opened { id, client: StreamClient { remote, local, transport: TurnTransport::Tls } });
    let (_, challenge, _) = world.say_on_stream(id, &crate::turn::request(&[], 1));
    let nonce = attribute_of(&challenge, attribute::NONCE);
    let (_, answer, _) = world.say_on_stream(id, &crate::turn::request(&nonce, 2));
    assert_eq!(code(&answer), 0);
    let bind = crate::turn::signed(method::CHANNEL_BIND, &nonce, 3, |message| {
        message.attribute(attribute::CHANNEL_NUMBER, &[0x40, 0, 0, 0]);
        message.xor_address(attribute::XOR_PEER_ADDRESS, MEDIA[1].parse().unwrap());
    });
    let (_, answer, _) = world.say_on_stream(id, &bind);
    assert_eq!(code(&answer), 0);
    let check = world.request(peer, false);
    world.stream(FromStream::Message { id, bytes: wrap(&check) });
    world.settle();
    let answers: Vec<Vec<u8>> = std::mem::take(&mut world.workers[0].outbox().streams)
        .into_iter()
        .map(|item| match item {
            ToStream::Message { id: StreamId(1), bytes, .. } => unwrap(&bytes).expect("data"),
            other => panic!("{other:?}"),
        })
        .collect();
    let classes: Vec<Class> = answers.iter().map(|answer| Message::parse(answer).unwrap().class()).collect();
    assert!(classes.contains(&Class::Success), "the answer to the check: {classes:?}");
    assert_eq!(world.drops(), []);
    // The connection ends; the media knows nobody there any more.
    world.stream(FromStream::Closed { id });
    world.settle();
    world.run(Duration::from_secs(1));
    assert!(world.workers[0].outbox().streams.is_empty());
}

#[test]
fn a_worker_that_becomes_a_server_later_asks_for_the_links_that_there_are() {
    let mut world = World::new(2);
    let configure = |world: &mut World, worker| {
        world.command(worker, Command::Turn(TurnCommand::Configure(Box::new(spec(2)))));
    };
    configure(&mut world, 0);
    let answer = allocate(&mut world, 0, client(1), &[]);
    let relayed = Message::parse(&answer).unwrap().xor_address(attribute::XOR_RELAYED_ADDRESS).expect("an address");
    let nonce = learn(&mut world, 0, client(1));
    bind(&mut world, 0, client(1), &nonce, MEDIA[1]);
    let peer = world.open(1, Side::Publisher);
    world.move_to(peer, relayed);
    world.turned.insert(relayed, (0, client(1)));
    configure(&mut world, 1);
    world.connect(peer);
    assert_eq!((world.peers[peer].responses, world.dropped(DropReason::TurnNoRelay)), (0, 1));
    world.connect(peer);
    assert_eq!(world.peers[peer].responses, 1);
}

#[test]
fn a_client_that_comes_to_another_worker_than_before_keeps_what_it_has() {
    let mut world = World::new(2);
    configure(&mut world);
    let peer = world.open(0, Side::Publisher);
    let (before, after) = (client(1), client(2));
    let answer = allocate(&mut world, 0, before, &[(attribute::MOBILITY_TICKET, &[])]);
    let relayed = Message::parse(&answer).unwrap().xor_address(attribute::XOR_RELAYED_ADDRESS).expect("an address");
    let ticket = attribute_of(&answer, attribute::MOBILITY_TICKET);
    let nonce = learn(&mut world, 0, before);
    bind(&mut world, 0, before, &nonce, MEDIA[0]);
    world.move_to(peer, relayed);
    world.turned.insert(relayed, (0, before));
    world.connect(peer);
    assert_eq!(world.peers[peer].responses, 1);
    // It shows the ticket to the second worker, first with the nonce of its former address.
    let show = |message: &mut MessageWriter<'_>| {
        lifetime(message, 600);
        message.attribute(attribute::MOBILITY_TICKET, &ticket);
    };
    let stale = ask(&mut world, 1, after, method::REFRESH, &nonce, show);
    assert_eq!(code(&stale), 438);
    let nonce = attribute_of(&stale, attribute::NONCE);
    let moved = ask(&mut world, 1, after, method::REFRESH, &nonce, show);
    assert_eq!(code(&moved), 0);
    assert_ne!(attribute_of(&moved, attribute::MOBILITY_TICKET), ticket);
    // All that it sends there reaches its allocation, and what it is sent reaches it there.
    world.turned.insert(relayed, (1, after));
    world.check(peer, relayed, true);
    world.settle();
    assert_eq!(world.peers[peer].responses, 2);
    let permitted = ask(&mut world, 1, after, method::CREATE_PERMISSION, &nonce, |message| {
        message.xor_address(attribute::XOR_PEER_ADDRESS, MEDIA[1].parse().unwrap());
    });
    assert_eq!(code(&permitted), 0);
    // Where it was it is a stranger.
    world.push_turn(0, before, &wrap(b"x"));
    world.settle();
    assert_eq!(world.dropped(DropReason::TurnNoAllocation), 1);
    // After the end the second worker forgets where it belonged.
    let over = ask(&mut world, 1, after, method::REFRESH, &nonce, |message| lifetime(message, 0));
    assert_eq!(code(&over), 0);
    world.push_turn(1, after, &wrap(b"x"));
    world.settle();
    assert_eq!(world.dropped(DropReason::TurnNoAllocation), 2);
    assert_eq!(world.workers[1].dropped(DropReason::TurnNoAllocation), 1, "at the worker that it came to");
    // A ticket that nobody made is refused, wherever it says that it comes from.
    for worker in [0, 1, 7] {
        let forged = [&[0, worker][..], &[9; 14]].concat();
        let nonce = learn(&mut world, 1, client(3));
        let refused = ask(&mut world, 1, client(3), method::REFRESH, &nonce, |message| {
            message.attribute(attribute::MOBILITY_TICKET, &forged);
        });
        assert_eq!(code(&refused), 437, "{worker}");
    }
}

#[test]
fn what_all_may_relay_is_bounded_whichever_workers_relay_it() {
    let mut world = configured(|spec| spec.quotas.total_bps = 800_000);
    let clients: Vec<SocketAddr> = (0..2).map(|n| client(n as u8)).collect();
    for (worker, &client) in clients.iter().enumerate() {
        assert_eq!(code(&allocate(&mut world, worker, client, &[])), 0);
        let nonce = learn(&mut world, worker, client);
        bind(&mut world, worker, client, &nonce, MEDIA[worker]);
    }
    for round in 0..1000 {
        if round % 10 == 0 {
            world.run_ms(10);
        }
        for (worker, &client) in clients.iter().enumerate() {
            world.push_turn(worker, client, &wrap(&[0; 1000]));
        }
        world.settle();
    }
    let passed = 2000 - world.dropped(DropReason::TurnBandwidth);
    // A second's worth, the burst, and a step for each worker.
    assert!((100..=127).contains(&passed), "{passed}");
}
