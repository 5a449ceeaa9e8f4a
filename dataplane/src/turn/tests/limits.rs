//! Every limit, exceeded; every verb, tried on peers that nobody may reach.

use std::time::Duration;

use ringmain_shared::DropReason;
use ringmain_shared::id::TurnAllocationId;
use ringmain_shared::turn::{IpRange, TurnCommand, TurnEnd, TurnEvent};

use super::world::*;
use crate::io::Path;
use crate::packet::stun::{attribute, method};

const PEER: &str = "8.8.8.8:9000";

#[test]
fn a_user_has_four_allocations_from_however_many_addresses() {
    let mut world = World::new(spec());
    let mut granted = Vec::new();
    for number in 0..10_000 {
        world.now = world.now + Duration::from_millis(1);
        let mut alice = Caller::new(number, "alice");
        // Her nonces are good at each address; strangers' budget is not what is tried here.
        let features = crate::turn::nonce::Features { algorithms: false };
        alice.nonce = world.turn.nonces.make(alice.client.path.remote, features, world.now).to_vec();
        match alice.allocate(&mut world).code() {
            0 => granted.push(alice),
            code => assert_eq!(code, 486),
        }
    }
    assert_eq!((granted.len(), world.turn.ports.free()), (4, 96));
    assert_eq!(Caller::new(20_000, "bob").allocate(&mut world).code(), 0, "another user has her own");
    granted[0].refresh(&mut world, 0);
    assert_eq!(Caller::new(20_001, "alice").allocate(&mut world).code(), 0);
    // A pair takes two.
    granted[1].refresh(&mut world, 0);
    let pair = [udp(), (attribute::EVEN_PORT, vec![0x80])];
    assert_eq!(Caller::new(20_002, "alice").ask(&mut world, method::ALLOCATE, &pair).code(), 486);
}

#[test]
fn all_together_have_no_more_than_there_is() {
    let mut few = spec();
    few.quotas.allocations = 3;
    few.quotas.allocations_per_user = 0;
    let mut world = World::new(few.clone());
    let codes: Vec<u16> = (0..5).map(|number| Caller::new(number, "alice").allocate(&mut world).code()).collect();
    assert_eq!(codes, [0, 0, 0, 508, 508]);
    few.quotas.allocations = 0;
    (few.relay.port_min, few.relay.port_max) = (10_000, 10_003);
    let mut world = World::new(few);
    let codes: Vec<u16> = (0..6).map(|number| Caller::new(number, "alice").allocate(&mut world).code()).collect();
    assert_eq!(codes, [0, 0, 0, 0, 508, 508], "four ports");
    world.turn.handle_command(TurnCommand::Drain(true), world.now);
    world.turn.handle_command(TurnCommand::Kill { allocation: TurnAllocationId(2) }, world.now);
    assert!(matches!(world.events().last(), Some(TurnEvent::Ended { reason: TurnEnd::Killed, .. })));
    assert_eq!(Caller::new(7, "alice").allocate(&mut world).code(), 508, "while draining");
    world.turn.handle_command(TurnCommand::Drain(false), world.now);
    assert_eq!(Caller::new(8, "alice").allocate(&mut world).code(), 0);
    world.turn.handle_command(TurnCommand::Snapshot { request: 5 }, world.now);
    assert!(
        matches!(world.events().last(), Some(TurnEvent::Snapshot { request: 5, allocations, .. }) if allocations.len() == 4)
    );
}

#[test]
fn an_allocation_has_its_permissions_and_channels_and_no_more() {
    let mut small = spec();
    (small.quotas.permissions, small.quotas.channels) = (5, 3);
    let mut world = World::new(small);
    let mut alice = Caller::new(1, "alice");
    alice.allocate(&mut world);
    for number in 0..3 {
        assert_eq!(alice.bind(&mut world, 0x4000 + number, &format!("8.8.8.{number}:1")), 0);
    }
    assert_eq!(alice.bind(&mut world, 0x4003, "8.8.8.1:2"), 508);
    assert_eq!(alice.bind(&mut world, 0x4001, "8.8.8.1:1"), 0, "again");
    assert_eq!(alice.permit(&mut world, &["8.8.8.3:1", "8.8.8.4:1", "8.8.8.5:1"]), 508);
    assert_eq!(alice.permit(&mut world, &["8.8.8.3:1", "8.8.8.3:2", "8.8.8.4:1", "8.8.8.0:1"]), 0);
    assert_eq!(alice.permit(&mut world, &["8.8.8.5:1"]), 508);
    let row = world.turn.row(world.turn.clients[&alice.client.path], world.now).unwrap();
    assert_eq!((row.permissions, row.channels), (5, 3));
    world.wait(Duration::from_secs(301));
    assert_eq!(alice.permit(&mut world, &["8.8.8.5:1"]), 0, "those of before are over");
    // More peers than a request may have.
    let many: Vec<String> = (0..65).map(|n| format!("8.8.9.{n}:1")).collect();
    assert_eq!(alice.permit(&mut world, &many.iter().map(String::as_str).collect::<Vec<_>>()), 508);
}

#[test]
fn bandwidth_is_a_users_and_everybodys() {
    for (user, total) in [(800_000, 0), (0, 800_000)] {
        let mut narrow = spec();
        (narrow.quotas.user_bps, narrow.quotas.total_bps) = (user, total);
        let mut world = World::new(narrow);
        let mut alice = Caller::new(1, "alice");
        let relayed = alice.allocate(&mut world).relayed();
        assert_eq!(alice.bind(&mut world, 0x4000, PEER), 0);
        let mut passed = 0;
        for n in 0..10_000 {
            world.now = world.now + Duration::from_millis(1);
            let result = match n % 2 {
                0 => alice.channel_data(&mut world, 0x4000, &[0; 1000]).map(|_| ()),
                _ => world.peer_says(relayed, PEER, &[0; 1000]),
            };
            match result {
                Ok(()) => passed += 1,
                Err(reason) => assert_eq!(reason, DropReason::TurnBandwidth),
            }
        }
        assert_eq!(world.take().len(), passed);
        // 100 kB/s for ten seconds, and a fifth of a second's worth at first.
        assert!((1000..=1025).contains(&passed), "{passed}");
        // Another user has her own, unless all of it is used up.
        let mut bob = Caller::new(2, "bob");
        bob.allocate(&mut world);
        assert_eq!(bob.bind(&mut world, 0x4000, PEER), 0);
        while world.peer_says(relayed, PEER, &[0; 1000]).is_ok() {}
        assert_eq!(bob.channel_data(&mut world, 0x4000, &[0; 1000]).is_ok(), total == 0);
    }
}

#[test]
fn our_own_media_sends_out_of_the_same_bandwidth_as_everybody() {
    for (user, total) in [(800_000, 0), (0, 800_000)] {
        let mut narrow = spec();
        (narrow.quotas.user_bps, narrow.quotas.total_bps) = (user, total);
        let mut world = World::new(narrow.clone());
        let (mut alice, mut bob) = (Caller::new(1, "alice"), Caller::new(2, "bob"));
        let path_of = |world: &mut World, caller: &mut Caller| {
            caller.allocate(world);
            assert_eq!(caller.bind(world, 0x4000, MEDIA), 0);
            caller.channel_data(world, 0x4000, b"x").unwrap().expect("our media").path
        };
        let [hers, his] = [&mut alice, &mut bob].map(|caller| path_of(&mut world, caller));
        world.take();
        let mut passed = 0;
        for n in 0..10_000 {
            world.now = world.now + Duration::from_millis(1);
            // Her own datagrams compete with those for her.
            let refused = match n % 4 {
                0 => alice.channel_data(&mut world, 0x4000, &[0; 1000]).err(),
                _ => world.media_says(hers, &[0; 1000]),
            };
            assert!(matches!(refused, None | Some(DropReason::TurnBandwidth)), "{refused:?}");
            passed += usize::from(refused.is_none());
        }
        assert!((1000..=1025).contains(&passed), "{passed}");
        while world.media_says(hers, &[0; 1000]).is_none() {}
        assert_eq!(world.media_says(his, &[0; 1000]).is_none(), total == 0, "another user has his own");
        // A new rule holds for links that there are.
        (narrow.quotas.user_bps, narrow.quotas.total_bps) = (0, 0);
        world.turn.configure(narrow, world.now);
        world.settle();
        assert!((0..1000).all(|_| world.media_says(hers, &[0; 1000]).is_none()));
        // A number that is used again has its new user's budget.
        assert_eq!(
            world.media_says(Path { remote: PEER.parse().unwrap(), ..hers }, &[0]),
            Some(DropReason::TurnNoPermission)
        );
    }
}

#[test]
fn a_user_allocates_so_often_in_a_second_whatever_becomes_of_it() {
    let mut slow = spec();
    slow.quotas.allocates_per_user_second = 5;
    let mut world = World::new(slow);
    let (mut alice, mut bob) = (Caller::new(1, "alice"), Caller::new(2, "bob"));
    for second in 1..4 {
        let codes: Vec<u16> = (0..20)
            .map(|_| {
                let code = alice.allocate(&mut world).code();
                // Also by a client that keeps nothing: nobody is forgotten before the second is over.
                if code == 0 {
                    assert_eq!(alice.refresh(&mut world, 0).code(), 0);
                }
                code
            })
            .collect();
        assert_eq!(codes, [[0; 5].as_slice(), &[486; 15]].concat());
        assert_eq!((bob.allocate(&mut world).code(), bob.refresh(&mut world, 0).code()), (0, 0));
        assert_eq!(world.turn.stats().hasty, 15 * second);
        world.wait(Duration::from_secs(1));
        assert_eq!(world.turn.accounts.len(), 0, "and no longer");
    }
    // The answer that was lost is sent again, and counts once.
    let id = world.transaction();
    for _ in 0..20 {
        assert_eq!(alice.ask_as(&mut world, method::ALLOCATE, id, &[udp()]).code(), 0);
    }
}

/// Every verb that could reach a peer.
fn reaches(world: &mut World, alice: &mut Caller, peer: &str) -> bool {
    let permit = alice.permit(world, &[peer]);
    let bind = alice.bind(world, 0x4000, peer);
    assert!(permit != 0 || world.turn.peers.permit_ip(peer.parse::<std::net::SocketAddr>().unwrap().ip()));
    let send = alice.send(world, peer, b"x").is_ok();
    let channel = alice.channel_data(world, 0x4000, b"x").is_ok();
    assert_eq!(bind == 0, channel, "{peer}");
    if bind != 0 {
        assert!(matches!(bind, 403 | 443), "{peer}: {bind}");
        assert!(!send, "{peer}");
    }
    bind == 0 || send
}

#[test]
fn no_verb_reaches_a_forbidden_peer() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    alice.ask(&mut world, method::ALLOCATE, &[udp(), (attribute::ADDITIONAL_ADDRESS_FAMILY, vec![2, 0, 0, 0])]);
    for forbidden in [
        "127.0.0.1:53",
        "10.0.0.1:80",
        "169.254.169.254:80",
        "[::1]:53",
        "[::ffff:127.0.0.1]:53",
        "[::127.0.0.1]:53",
        "[2002:7f00:1::1]:53",
        "[64:ff9b::10.0.0.1]:53",
        "[64:ff9b:1::10.0.0.1]:53",
        "[fe80::1]:53",
        "[fd00:ec2::254]:80",
        "224.0.0.1:5353",
        "255.255.255.255:9",
        "0.0.0.0:9",
        "8.8.8.8:0",
        // Our own listener, and another relayed address of ours.
        "198.51.100.1:3478",
        "198.51.100.1:10007",
    ] {
        assert!(!reaches(&mut world, &mut alice, forbidden), "{forbidden}");
    }
    assert!(world.take().iter().all(|(path, _)| *path == alice.client.path), "nothing left but answers");
    assert!(world.media.is_empty());
    assert!(reaches(&mut world, &mut alice, PEER));
    // A permission for an address is none for its forbidden ports.
    let mut narrow = spec();
    narrow.peers.open = false;
    let mut world = World::new(narrow);
    let mut alice = Caller::new(2, "alice");
    let relayed = alice.allocate(&mut world).relayed();
    assert_eq!(alice.permit(&mut world, &["198.51.100.1:1"]), 0, "our media has this address");
    assert_eq!(alice.send(&mut world, "198.51.100.1:5001", b"x"), Err(DropReason::TurnPeerForbidden));
    assert_eq!(world.peer_says(relayed, "198.51.100.1:53", b"x"), Err(DropReason::TurnPeerForbidden));
    assert!(alice.send(&mut world, MEDIA, b"x").unwrap().is_some());
    assert_eq!(alice.permit(&mut world, &[PEER]), 403);
}

#[test]
fn two_clients_reach_each_other_through_their_relays_only_if_that_is_wanted() {
    for relayed in [false, true] {
        let mut spec = spec();
        spec.peers.relayed = relayed;
        // The relay's address may itself be in a special range.
        spec.peers.deny = vec![IpRange::network("9.9.9.0".parse().unwrap(), 24).unwrap()];
        let mut world = World::new(spec);
        let (mut alice, mut bob) = (Caller::new(1, "alice"), Caller::new(2, "bob"));
        let (a, b) = (alice.allocate(&mut world).relayed(), bob.allocate(&mut world).relayed());
        let codes = (alice.bind(&mut world, 0x4000, &b.to_string()), bob.bind(&mut world, 0x4000, &a.to_string()));
        assert_eq!(codes, if relayed { (0, 0) } else { (403, 403) });
        // Through the relay to a listener of ours would be a loop, whatever is wanted.
        assert_eq!(alice.bind(&mut world, 0x4001, "198.51.100.1:3478"), 403);
        assert_eq!(alice.bind(&mut world, 0x4002, "9.9.9.9:1"), 403);
    }
}

#[test]
fn a_million_allocations_later_everything_is_as_it_was() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    alice.learn(&mut world);
    let once = |world: &mut World, alice: &mut Caller, n: u32| {
        let id = world.transaction();
        let bytes = alice.request(
            method::ALLOCATE,
            id,
            &[udp(), (attribute::EVEN_PORT, vec![0x80]), (attribute::MOBILITY_TICKET, vec![])],
        );
        world.say(alice.client, &bytes).unwrap();
        if n.is_multiple_of(3) {
            assert_eq!(alice.bind(world, 0x4000, PEER), 0);
        }
        if n.is_multiple_of(5) {
            assert_eq!(alice.bind(world, 0x4001, MEDIA), 0);
        }
        assert_eq!(alice.refresh(world, 0).code(), 0);
        world.wait(Duration::from_secs(31));
        world.take();
        world.events();
    };
    // A thousand here; the ports' own test does the million.
    for n in 0..1000 {
        alice.learn(&mut world);
        once(&mut world, &mut alice, n);
    }
    let turn = &world.turn;
    assert_eq!((turn.ports.free(), turn.allocations.len(), turn.accounts.len(), turn.clients.len()), (100, 0, 0, 0));
    assert_eq!((turn.tickets.len(), turn.reservations.len(), turn.relays.open(), turn.links.count()), (0, 0, 0, 0));
    assert!(world.sockets.is_empty() && world.links.is_empty());
}

#[test]
fn a_client_that_comes_and_goes_leaves_no_timers_behind() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    for _ in 0..3000 {
        assert_eq!(alice.ask(&mut world, method::ALLOCATE, &[udp(), lifetime(3600)]).code(), 0);
        assert_eq!(alice.refresh(&mut world, 0).code(), 0);
    }
    assert!(world.turn.timers.len() <= 2 + crate::turn::upkeep::TIMERS_SPARE, "{}", world.turn.timers.len());
    // Those that are left alone end when they should.
    assert_eq!(alice.allocate(&mut world).code(), 0);
    world.wait(Duration::from_secs(599));
    assert_eq!(world.turn.allocations.len(), 1);
    world.wait(Duration::from_secs(2));
    assert_eq!(world.turn.allocations.len(), 0);
}

#[test]
fn who_allocates_anew_owes_what_they_owed() {
    let mut narrow = spec();
    narrow.quotas.user_bps = 800_000;
    let mut world = World::new(narrow);
    let mut alice = Caller::new(1, "alice");
    let mut passed = 0;
    for _ in 0..20 {
        assert_eq!(alice.allocate(&mut world).code(), 0);
        assert_eq!(alice.bind(&mut world, 0x4000, PEER), 0);
        passed += (0..30).filter(|_| alice.channel_data(&mut world, 0x4000, &[0; 1000]).is_ok()).count();
        assert_eq!(alice.refresh(&mut world, 0).code(), 0);
        assert_eq!(world.turn.ledger.held("alice"), 0);
    }
    // A fifth of a second's worth of 100 kB/s, and the step that it ended with.
    assert!((20..=24).contains(&passed), "{passed}");
    assert_eq!(world.turn.accounts.len(), 0, "the debt is remembered, and the user is not");
    world.wait(Duration::from_secs(1));
    assert_eq!(alice.allocate(&mut world).code(), 0);
    assert_eq!(alice.bind(&mut world, 0x4000, PEER), 0);
    assert!(alice.channel_data(&mut world, 0x4000, &[0; 1000]).is_ok());
}
