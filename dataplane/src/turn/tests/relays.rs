//! What is relayed, and what is not: channels, indications, shared ports, links to our own media. RFC 8656 §10–§12.

use std::net::SocketAddr;

use ringmain_shared::DropReason;
use ringmain_shared::turn::{RelayMode, TurnCommand, TurnEvent, TurnSpec};

use super::world::*;
use crate::io::Link;
use crate::packet::stun::{Class, Message, attribute, method};

const PEER: &str = "8.8.8.8:9000";

fn allocated(world: &mut World, number: u16) -> (Caller, std::net::SocketAddr) {
    let mut caller = Caller::new(number, "alice");
    let answer = caller.allocate(world);
    assert_eq!(answer.code(), 0);
    (caller, answer.relayed())
}

#[test]
fn channel_data_goes_to_the_peer_and_comes_back_by_its_number() {
    let mut world = World::new(spec());
    let (mut alice, relayed) = allocated(&mut world, 1);
    assert_eq!(world.opened, 0, "no peer, no socket");
    assert_eq!(alice.bind(&mut world, 0x4001, PEER), 0);
    assert_eq!(world.opened, 1);
    assert_eq!(alice.channel_data(&mut world, 0x4001, b"hello"), Ok(None));
    let (path, bytes) = world.take().pop().unwrap();
    assert_eq!((path.remote.to_string().as_str(), &bytes[..]), (PEER, &b"hello"[..]));
    assert_eq!(world.sockets[&path.socket].1, relayed);
    assert_eq!(world.peer_says(relayed, PEER, b"there"), Ok(()));
    assert_eq!(world.take(), [(alice.client.path, b"\x40\x01\x00\x05there".to_vec())]);
    // Padding that came along is not data.
    let padded = b"\x40\x01\x00\x05hello\xa5\xa5\xa5";
    world.say(alice.client, padded).unwrap();
    assert_eq!(world.take().pop().unwrap().1, b"hello");
    for (bytes, reason) in [
        (&b"\x40\x01\x00\x06hello"[..], DropReason::TurnMalformed),
        (b"\x40\x01\x00\x00", DropReason::TurnMalformed),
        (b"\x40\x01\x00", DropReason::TurnMalformed),
        (b"\x40", DropReason::TurnMalformed),
        (b"\x40\x02\x00\x05hello", DropReason::TurnNoChannel),
    ] {
        assert_eq!(world.say(alice.client, bytes), Err(reason));
    }
    assert_eq!(world.say(client(9), b"\x40\x01\x00\x05hello"), Err(DropReason::TurnNoAllocation));
    assert!(world.take().is_empty());
}

#[test]
fn indications_go_both_ways_and_have_no_byte_that_is_not_ours() {
    let mut world = World::new(spec());
    let (mut alice, relayed) = allocated(&mut world, 1);
    assert_eq!(alice.send(&mut world, PEER, b"x"), Err(DropReason::TurnNoPermission));
    assert_eq!(alice.permit(&mut world, &["8.8.8.8:1"]), 0, "the port does not count");
    assert_eq!(alice.send(&mut world, PEER, b"hello"), Ok(None));
    assert_eq!(world.take().pop().unwrap().1, b"hello");
    world.peer_says(relayed, PEER, &[0xa5; 300]).unwrap();
    world.take();
    for size in 1..9 {
        world.peer_says(relayed, "8.8.8.8:77", &vec![b'y'; size]).unwrap();
        let (path, bytes) = world.take().pop().unwrap();
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(path, alice.client.path);
        assert_eq!((message.class(), message.method()), (Class::Indication, method::DATA));
        assert_eq!(message.attribute(attribute::DATA), Some(&vec![b'y'; size][..]));
        assert_eq!(message.xor_address(attribute::XOR_PEER_ADDRESS), Some("8.8.8.8:77".parse().unwrap()));
        assert!(!bytes.contains(&0xa5) || message.transaction_id().0.contains(&0xa5), "{bytes:x?}");
    }
    assert_eq!(world.peer_says(relayed, "8.8.4.4:9000", b"x"), Err(DropReason::TurnNoPermission));
    assert_eq!(world.peer_says(relayed, PEER, b""), Err(DropReason::TurnMalformed));
    let row = world.turn.row(world.turn.clients[&alice.client.path], world.now).unwrap();
    assert_eq!((row.traffic.to_peers, row.traffic.to_peers_bytes), (1, 5));
    assert_eq!((row.traffic.to_clients, row.traffic.to_clients_bytes), (9, 336));
}

#[test]
fn ipv6_is_relayed_as_ipv4_is_and_families_do_not_mix() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    let peer = "[2600::9]:9000";
    let answer =
        alice.ask(&mut world, method::ALLOCATE, &[udp(), (attribute::REQUESTED_ADDRESS_FAMILY, vec![2, 0, 0, 0])]);
    assert_eq!((answer.code(), answer.relayed().ip().to_string().as_str()), (0, RELAY_V6));
    assert_eq!(alice.permit(&mut world, &[PEER]), 443);
    assert_eq!(alice.bind(&mut world, 0x4000, PEER), 443);
    assert_eq!(alice.permit(&mut world, &[peer]), 0);
    world.peer_says(answer.relayed(), peer, b"abc").unwrap();
    let (_, bytes) = world.take().pop().unwrap();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.xor_address(attribute::XOR_PEER_ADDRESS), Some(peer.parse().unwrap()));
    assert_eq!(message.attribute(attribute::DATA), Some(&b"abc"[..]));
    assert_eq!(alice.bind(&mut world, 0x4000, peer), 0);
    alice.channel_data(&mut world, 0x4000, b"to").unwrap();
    assert_eq!(world.take().pop().unwrap().0.remote, peer.parse().unwrap());
}

#[test]
fn one_allocation_may_have_an_address_of_each_family() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    let both = [udp(), (attribute::ADDITIONAL_ADDRESS_FAMILY, vec![2, 0, 0, 0])];
    let answer = alice.ask(&mut world, method::ALLOCATE, &both);
    let relayed: Vec<_> = answer.message().xor_addresses(attribute::XOR_RELAYED_ADDRESS).flatten().collect();
    assert_eq!(relayed.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>(), [RELAY_V4, RELAY_V6]);
    assert_eq!(alice.permit(&mut world, &[PEER, "[2600::9]:1"]), 0);
    assert_eq!(world.opened, 2);
    // One of them is given up (RFC 8656 §8.2).
    let drop_v4 = [lifetime(0), (attribute::REQUESTED_ADDRESS_FAMILY, vec![1, 0, 0, 0])];
    assert_eq!(alice.ask(&mut world, method::REFRESH, &drop_v4).code(), 0);
    assert_eq!(world.sockets.len(), 1);
    assert_eq!(alice.permit(&mut world, &[PEER]), 443);
    assert_eq!(alice.ask(&mut world, method::REFRESH, &drop_v4).code(), 443);
    assert_eq!(alice.permit(&mut world, &["[2600::9]:1"]), 0);
    // Where there is only one, it is had, and the other one is named.
    let mut one = spec();
    one.relay.addresses.truncate(1);
    let mut world = World::new(one);
    let mut alice = Caller::new(1, "alice");
    let answer = alice.ask(&mut world, method::ALLOCATE, &both);
    assert_eq!((answer.code(), answer.relayed().ip().to_string().as_str()), (0, RELAY_V4));
    assert_eq!(answer.message().attribute(attribute::ADDRESS_ERROR_CODE), Some(&[2, 0, 4, 40][..]));
    let v6 = [udp(), (attribute::REQUESTED_ADDRESS_FAMILY, vec![2, 0, 0, 0])];
    assert_eq!(Caller::new(2, "alice").ask(&mut world, method::ALLOCATE, &v6).code(), 440);
}

#[test]
fn our_own_media_is_reached_without_a_socket() {
    let mut world = World::new(spec());
    let (mut alice, relayed) = allocated(&mut world, 1);
    assert_eq!(alice.permit(&mut world, &[MEDIA]), 0);
    let media = alice.send(&mut world, MEDIA, b"check").unwrap().expect("for our media");
    assert_eq!(media.path.remote, relayed);
    assert!(media.path.socket.is_link());
    assert_eq!(world.media.pop(), Some((media.path, b"check".to_vec())));
    // Without a channel answers are indications, with one they are ChannelData; equal sizes make one train.
    world.media_says(media.path, b"answer");
    let (path, bytes) = world.take().pop().unwrap();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((path, message.attribute(attribute::DATA)), (alice.client.path, Some(&b"answer"[..])));
    assert_eq!(message.xor_address(attribute::XOR_PEER_ADDRESS), Some(MEDIA.parse().unwrap()));
    assert_eq!(alice.bind(&mut world, 0x4abc, MEDIA), 0);
    let again = alice.channel_data(&mut world, 0x4abc, b"media").unwrap().expect("for our media");
    assert_eq!((again.path, again.payload), (media.path, 4..9));
    world.media_says(media.path, b"packet");
    assert_eq!(world.take(), [(alice.client.path, b"\x4a\xbc\x00\x06packet".to_vec())]);
    assert_eq!((world.opened, world.turn.stats().sockets), (0, 0));
    let row = world.turn.row(world.turn.clients[&alice.client.path], world.now).unwrap();
    assert_eq!((row.traffic.to_peers, row.traffic.to_clients, row.traffic.shortcut, row.sockets), (2, 2, 4, 0));
    // The link ends with the allocation: what still comes from our media goes nowhere.
    alice.refresh(&mut world, 0);
    world.media_says(media.path, b"late");
    assert!(world.take().is_empty() && world.links.is_empty());
    assert_eq!(world.turn.links.count(), 0);
}

#[test]
fn two_clients_never_share_a_way_to_our_media() {
    for mode in [RelayMode::PerAllocation, RelayMode::Shared(1)] {
        let mut spec = spec();
        spec.relay.mode = mode;
        let mut world = World::new(spec);
        let mut paths = Vec::new();
        for number in 0..3 {
            let (mut caller, _) = allocated(&mut world, number);
            assert_eq!(caller.bind(&mut world, 0x4000, MEDIA), 0, "{mode:?}");
            let path = caller.channel_data(&mut world, 0x4000, b"x").unwrap().unwrap().path;
            world.media_says(path, b"y");
            assert_eq!(world.take().pop().unwrap().0, caller.client.path);
            assert!(!paths.contains(&path));
            paths.push(path);
        }
    }
}

#[test]
fn on_a_shared_port_peers_tell_their_clients_apart() {
    let mut spec = TurnSpec { ..spec() };
    spec.relay.mode = RelayMode::Shared(1);
    let mut world = World::new(spec);
    let (mut alice, relayed) = allocated(&mut world, 1);
    let (mut second, also) = allocated(&mut world, 2);
    assert_eq!(relayed, also);
    assert_eq!(alice.bind(&mut world, 0x4000, "8.8.8.8:1"), 0);
    assert_eq!(second.bind(&mut world, 0x4000, "8.8.8.8:2"), 0);
    assert_eq!(world.opened, 1);
    world.peer_says(relayed, "8.8.8.8:1", b"one").unwrap();
    world.peer_says(relayed, "8.8.8.8:2", b"two").unwrap();
    let sent: Vec<_> = world.take().into_iter().map(|(path, bytes)| (path, bytes[4..].to_vec())).collect();
    assert_eq!(sent, [(alice.client.path, b"one".to_vec()), (second.client.path, b"two".to_vec())]);
    // A peer that both permit, and neither has talked to, cannot be told apart; one that is taken is refused.
    assert_eq!(world.peer_says(relayed, "8.8.8.8:3", b"three"), Err(DropReason::TurnNoPermission));
    assert_eq!(second.bind(&mut world, 0x4001, "8.8.8.8:1"), 508);
    assert_eq!(second.send(&mut world, "8.8.8.8:1", b"x"), Err(DropReason::TurnNoPermission));
    alice.refresh(&mut world, 0);
    assert_eq!(world.peer_says(relayed, "8.8.8.8:3", b"three"), Ok(()), "now there is only one");
    assert_eq!(second.bind(&mut world, 0x4001, "8.8.8.8:1"), 0);
    second.refresh(&mut world, 0);
    assert_eq!(world.sockets.len(), 1, "a shared port stays");
}

#[test]
fn the_address_behind_a_nat_is_announced_and_mapped_back() {
    let mut spec = spec();
    spec.relay.addresses[0].bind = "10.1.1.1".parse().unwrap();
    spec.peers.relayed = true;
    let mut world = World::new(spec);
    let (mut alice, relayed) = allocated(&mut world, 1);
    let (mut second, other) = allocated(&mut world, 2);
    assert_eq!(relayed.ip().to_string(), RELAY_V4);
    assert_eq!(alice.bind(&mut world, 0x4000, &other.to_string()), 0);
    assert_eq!(second.permit(&mut world, &[&relayed.to_string()]), 0);
    let inner = |outer: SocketAddr| SocketAddr::new("10.1.1.1".parse().unwrap(), outer.port());
    let heard = |world: &mut World| {
        let (_, bytes) = world.take().pop().unwrap();
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.xor_address(attribute::XOR_PEER_ADDRESS), Some(relayed), "as it was told to clients");
    };
    // With the kernel between them, and without.
    world.peer_says(inner(other), &inner(relayed).to_string(), b"hi").unwrap();
    heard(&mut world);
    alice.channel_data(&mut world, 0x4000, b"hi").unwrap();
    heard(&mut world);
    assert_eq!(alice.bind(&mut world, 0x4001, "10.1.1.1:10099"), 0);
    alice.channel_data(&mut world, 0x4001, b"hi").unwrap();
    assert_eq!(world.take().pop().unwrap().0.remote.to_string(), "10.1.1.1:10099", "nobody here has it");
}

#[test]
fn two_clients_who_relay_both_reach_each_other_without_a_socket() {
    let mut spec = spec();
    spec.peers.relayed = true;
    let mut world = World::new(spec);
    let (mut alice, hers) = allocated(&mut world, 1);
    let mut bob = Caller { client: stream_client(2), ..Caller::new(2, "bob") };
    let his = bob.allocate(&mut world).relayed();
    assert_eq!(alice.bind(&mut world, 0x4001, &his.to_string()), 0);
    assert_eq!(bob.permit(&mut world, &[PEER]), 0);
    assert_eq!(alice.channel_data(&mut world, 0x4001, b"hello"), Err(DropReason::TurnNoPermission));
    assert_eq!(bob.permit(&mut world, &[&hers.to_string()]), 0);
    assert_eq!(alice.channel_data(&mut world, 0x4001, b"hello"), Ok(None));
    let (path, bytes) = world.take().pop().unwrap();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((path, message.xor_address(attribute::XOR_PEER_ADDRESS)), (bob.client.path, Some(hers)));
    assert_eq!(message.attribute(attribute::DATA), Some(&b"hello"[..]));
    assert_eq!(bob.send(&mut world, &hers.to_string(), b"hi"), Ok(None));
    assert_eq!(world.take(), [(alice.client.path, b"\x40\x01\x00\x02hi".to_vec())]);
    assert_eq!(bob.bind(&mut world, 0x4002, &hers.to_string()), 0);
    alice.channel_data(&mut world, 0x4001, b"again").unwrap();
    bob.channel_data(&mut world, 0x4002, b"too").unwrap();
    let both = [(bob.client.path, &b"\x40\x02\x00\x05again"[..]), (alice.client.path, b"\x40\x01\x00\x03too")];
    let sent = world.take();
    assert_eq!(sent.len(), both.len());
    for ((path, bytes), (expected, begin)) in sent.into_iter().zip(both) {
        assert!(path == expected && bytes.starts_with(begin), "{bytes:x?}");
    }
    for (caller, sent, got) in [(&alice, 3, 2), (&bob, 2, 2)] {
        let row = world.turn.row(world.turn.clients[&caller.client.path], world.now).unwrap();
        assert_eq!((row.traffic.to_peers, row.traffic.to_clients, row.traffic.shortcut), (sent, got, sent + got));
    }
    // What is over is over for both.
    bob.refresh(&mut world, 0);
    world.take();
    alice.channel_data(&mut world, 0x4001, b"gone").unwrap();
    assert_eq!(world.take().pop().unwrap().0.remote, his, "the kernel knows of nobody there either");
}

#[test]
fn a_relayed_address_without_a_socket_is_reached_by_nobody() {
    let mut spec = spec();
    spec.peers.relayed = true;
    let mut world = World::new(spec);
    let (mut alice, hers) = allocated(&mut world, 1);
    let mut bob = Caller::new(2, "bob");
    let his = bob.allocate(&mut world).relayed();
    // Our media is at the address of relays, and permissions are by address: this one lets in whoever relays, but not without a socket.
    assert_eq!(bob.permit(&mut world, &[MEDIA]), 0);
    assert_eq!(alice.bind(&mut world, 0x4001, &his.to_string()), 0);
    alice.channel_data(&mut world, 0x4001, b"hello").unwrap();
    assert_eq!(world.take().pop().unwrap().0.remote, his, "it is the kernel's: somebody else may be there");
    // Nor does anything come from an address that is somebody else's.
    world.foreign.insert(his.port());
    assert_eq!(bob.permit(&mut world, &[&hers.to_string()]), 508);
    assert_eq!(bob.send(&mut world, &hers.to_string(), b"x"), Err(DropReason::TurnNoRelay));
    world.foreign.clear();
    assert_eq!(bob.permit(&mut world, &[&hers.to_string()]), 0);
    assert_eq!(bob.send(&mut world, &hers.to_string(), b"x"), Ok(None));
    assert_eq!(world.take(), [(alice.client.path, b"\x40\x01\x00\x01x".to_vec())]);
    // What sockets would cut off does not pass either, whichever way it came.
    assert_eq!(bob.bind(&mut world, 0x4002, &hers.to_string()), 0);
    bob.channel_data(&mut world, 0x4002, &[1; 1501]).unwrap();
    assert_eq!(world.take().pop().unwrap().0.remote, hers);
}

#[test]
fn clients_who_share_a_port_reach_each_other_as_peers_tell_them_apart() {
    let mut shared = TurnSpec { ..spec() };
    shared.relay.mode = RelayMode::Shared(2);
    shared.peers.relayed = true;
    let mut world = World::new(shared);
    let mut callers: Vec<(Caller, SocketAddr)> = (1..=3).map(|number| allocated(&mut world, number)).collect();
    let (mut third, also_one) = callers.pop().unwrap();
    let (mut second, two) = callers.pop().unwrap();
    let (mut first, one) = callers.pop().unwrap();
    assert!(one == also_one && one != two);
    assert_eq!(first.bind(&mut world, 0x4001, &two.to_string()), 0);
    assert_eq!(second.bind(&mut world, 0x4002, &one.to_string()), 0);
    second.channel_data(&mut world, 0x4002, b"x").unwrap();
    assert_eq!(world.take(), [(first.client.path, b"\x40\x01\x00\x01x".to_vec())], "whose peer it is");
    assert_eq!(third.bind(&mut world, 0x4003, &two.to_string()), 508, "the peer is taken");
    first.channel_data(&mut world, 0x4001, b"y").unwrap();
    assert_eq!(world.take(), [(second.client.path, b"\x40\x02\x00\x01y".to_vec())]);
}

#[test]
fn clients_with_each_other_go_on_when_the_address_is_another() {
    let mut spec = spec();
    spec.peers.relayed = true;
    spec.relay.addresses[0].bind = "10.1.1.1".parse().unwrap();
    let mut world = World::new(spec.clone());
    let (mut alice, hers) = allocated(&mut world, 1);
    let mut bob = Caller::new(2, "bob");
    let his = bob.allocate(&mut world).relayed();
    assert_eq!(alice.bind(&mut world, 0x4001, &his.to_string()), 0);
    assert_eq!(bob.bind(&mut world, 0x4001, &hers.to_string()), 0);
    spec.relay.addresses[0].bind = "10.1.1.2".parse().unwrap();
    world.turn.handle_command(TurnCommand::Configure(Box::new(spec)), world.now);
    assert_eq!(alice.channel_data(&mut world, 0x4001, b"x"), Ok(None));
    assert_eq!(world.take(), [(bob.client.path, b"\x40\x01\x00\x01x".to_vec())]);
}

#[test]
fn both_clients_pay_for_what_one_sends_to_the_other() {
    for poor in [None, Some("alice"), Some("bob")] {
        let mut spec = spec();
        spec.peers.relayed = true;
        spec.quotas.user_bps = 80_000;
        let mut world = World::new(spec);
        let (mut alice, hers) = allocated(&mut world, 1);
        let mut bob = Caller::new(2, "bob");
        let his = bob.allocate(&mut world).relayed();
        assert_eq!(alice.bind(&mut world, 0x4001, &his.to_string()), 0);
        assert_eq!(bob.bind(&mut world, 0x4001, &hers.to_string()), 0);
        for caller in [&mut alice, &mut bob].into_iter().filter(|caller| Some(&caller.username[..]) == poor) {
            assert_eq!(caller.bind(&mut world, 0x4002, PEER), 0);
            while caller.channel_data(&mut world, 0x4002, &[1; 1000]).is_ok() {}
        }
        let expected = if poor.is_none() { Ok(None) } else { Err(DropReason::TurnBandwidth) };
        assert_eq!(alice.channel_data(&mut world, 0x4001, b"x"), expected, "{poor:?} has nothing left");
    }
}

#[test]
fn a_port_that_somebody_else_has_is_passed_over() {
    let mut eager = spec();
    eager.peers.own_media.clear();
    let mut world = World::new(eager.clone());
    world.foreign = (10_000..10_090).filter(|port| port % 2 == 0).collect();
    for number in 0..4 {
        let (_, relayed) = allocated(&mut world, number);
        assert!(!world.foreign.contains(&relayed.port()));
    }
    assert_eq!((world.opened, world.sockets.len()), (4, 4));
    // None is to be had: the client hears it, and nothing stays.
    let mut world = World::new(eager);
    world.foreign = (10_000..=10_099).collect();
    assert_eq!(Caller::new(1, "alice").allocate(&mut world).code(), 508);
    assert_eq!((world.turn.allocations.len(), world.turn.accounts.len(), world.turn.clients.len()), (0, 0, 0));
    assert!(world.events().is_empty());
    world.wait(std::time::Duration::from_secs(61));
    assert_eq!(world.turn.ports.free(), 100);
    // Where the socket is opened later, it is the permission that fails.
    let mut world = World::new(spec());
    world.foreign = (10_000..=10_099).collect();
    let (mut alice, _) = allocated(&mut world, 1);
    assert_eq!(alice.permit(&mut world, &[PEER]), 508);
    assert_eq!(alice.permit(&mut world, &[MEDIA]), 0);
    // What is only sent asks for no socket again; the next request does.
    let asked = world.asked;
    for _ in 0..10 {
        assert_eq!(alice.send(&mut world, PEER, b"x"), Err(DropReason::TurnNoRelay));
    }
    assert_eq!(world.asked, asked);
    world.foreign.clear();
    assert_eq!(alice.bind(&mut world, 0x4000, PEER), 0);
}

#[test]
fn what_control_hears_is_what_happened() {
    let mut world = World::new(spec());
    let (mut alice, relayed) = allocated(&mut world, 1);
    alice.bind(&mut world, 0x4000, PEER);
    alice.channel_data(&mut world, 0x4000, b"12345").unwrap();
    alice.refresh(&mut world, 900);
    alice.refresh(&mut world, 0);
    let events = world.events();
    let [TurnEvent::Opened(opened), TurnEvent::Refreshed(refreshed), TurnEvent::Ended { allocation, .. }] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(
        (&opened.relayed[..], opened.client, opened.lifetime_s),
        (&[relayed][..], alice.client.path.remote, 600)
    );
    assert_eq!((refreshed.id, refreshed.lifetime_s), (opened.id, 900));
    assert_eq!((allocation.channels, allocation.permissions, allocation.sockets), (1, 1, 1));
    assert_eq!((allocation.traffic.to_peers, allocation.traffic.to_peers_bytes), (1, 5));
}

#[test]
fn a_shared_address_that_is_given_out_no_more_goes_with_the_last_who_drops_it() {
    let mut shared = TurnSpec { ..spec() };
    shared.relay.mode = RelayMode::Shared(1);
    let mut world = World::new(shared);
    let mut alice = Caller::new(1, "alice");
    let both = [udp(), (attribute::ADDITIONAL_ADDRESS_FAMILY, vec![2, 0, 0, 0])];
    assert_eq!(alice.ask(&mut world, method::ALLOCATE, &both).code(), 0);
    assert_eq!(alice.permit(&mut world, &[PEER, "[2600::9]:1"]), 0);
    assert_eq!(world.sockets.len(), 2);
    world.turn.handle_command(TurnCommand::Configure(Box::new(spec())), world.now);
    let drop_v4 = [lifetime(0), (attribute::REQUESTED_ADDRESS_FAMILY, vec![1, 0, 0, 0])];
    assert_eq!(alice.ask(&mut world, method::REFRESH, &drop_v4).code(), 0);
    assert_eq!(world.sockets.len(), 1);
    alice.refresh(&mut world, 0);
    assert_eq!(world.sockets.len(), 0);
}

#[test]
fn a_request_that_waits_for_a_dropped_address_is_refused() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    let both = [udp(), (attribute::ADDITIONAL_ADDRESS_FAMILY, vec![2, 0, 0, 0])];
    assert_eq!(alice.ask(&mut world, method::ALLOCATE, &both).code(), 0);
    let (permit, drop) = (world.transaction(), world.transaction());
    let drop_v4 = [lifetime(0), (attribute::REQUESTED_ADDRESS_FAMILY, vec![1, 0, 0, 0])];
    let requests = [
        alice.request(method::CREATE_PERMISSION, permit, &[alice.peer(PEER, permit)]),
        alice.request(method::REFRESH, drop, &drop_v4),
    ];
    // Both come before the socket does.
    for bytes in &requests {
        let (_, out) = world.link.parts();
        world.turn.handle_client(alice.client, bytes, world.now, out).expect("a request");
    }
    world.settle();
    let answers = world.take();
    let answers = answers.iter().map(|(_, bytes)| Message::parse(bytes).expect("ours are right"));
    let answers: Vec<_> = answers.map(|message| (message.transaction_id(), message.error_code())).collect();
    assert_eq!(answers, [(permit, Some(443)), (drop, None)]);
    assert!(world.sockets.is_empty());
}
