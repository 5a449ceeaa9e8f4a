//! The subscriber connection: offers, answers, and their absence.

use std::collections::BTreeSet;

use super::super::media::{RESTART_DELAY, RESTART_INTERVAL, RESTARTS_MAX};
use super::super::negotiate::{ANSWER_TIMEOUT, OFFERS_UNANSWERED_MAX};
use super::*;
use client::camera;

#[test]
fn changes_are_gathered_and_wait_for_the_open_answer() {
    let mut world = World::new(Settings::default());
    world.join(ALICE, "room", "alice", &camera("a"));
    for number in 0..20 {
        world.join(ConnectionId(100 + number), "room", &format!("peer {number}"), &camera(&format!("s{number}")));
        world.pass(Duration::from_millis(1));
    }
    world.pass(Duration::from_secs(1));
    assert_eq!(world.offers(ALICE).len(), 1, "the first is not answered yet");
    world.answer_next(ALICE, &[]);
    assert!(world.gets(ALICE).is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.offers(ALICE).len(), 2, "all the rest in one");
    assert!(world.gets(ALICE).is_empty(), "nothing flows before it is accepted");
    world.answer_next(ALICE, &[]);
    assert_eq!(world.gets(ALICE).len(), 40);
}

#[test]
fn a_burst_of_joins_is_at_most_two_offers() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    for number in 0..10 {
        world.join(ConnectionId(100 + number), "room", &format!("peer {number}"), &camera(&format!("s{number}")));
    }
    let before = world.offers(ALICE).len();
    world.settle();
    assert!(world.offers(ALICE).len() - before <= 2);
    assert_eq!(world.gets(ALICE).len(), 20);
}

#[test]
fn a_track_that_ends_while_on_offer_is_never_forwarded() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    world.join(BOB, "room", "bob", &camera("b"));
    world.pass(Duration::from_millis(100));
    assert_eq!(client::msids(world.offers(ALICE).last().expect("an offer")).len(), 2);
    world.leave(BOB);
    world.answer_next(ALICE, &[]);
    assert!(world.gets(ALICE).is_empty());
    world.settle();
    assert!(client::msids(world.offers(ALICE).last().expect("an offer")).is_empty());
}

#[test]
fn a_refused_m_section_is_not_forwarded_and_not_offered_for_ever() {
    let mut world = World::new(Settings::default());
    world.joined(BOB, "bob");
    world.join(ALICE, "room", "alice", &camera("a"));
    let offer = world.offers(ALICE).pop().expect("an offer");
    let audio = offer.split("\r\nm=").find(|part| part.starts_with("audio")).expect("bob's microphone").to_owned();
    let mid = client::attribute(&audio, "mid").expect("a mid").to_owned();
    world.answer_next(ALICE, &[&mid]);
    assert_eq!(world.gets(ALICE), ["bob-stream bob-stream-video"]);
    world.settle();
    assert!(world.offers(ALICE).len() <= 2);
}

#[test]
fn an_answer_that_does_not_come_is_asked_for_again_a_few_times() {
    let mut world = World::new(Settings::default());
    world.joined(BOB, "bob");
    world.join(ALICE, "room", "alice", &camera("a"));
    world.pass(ANSWER_TIMEOUT * 20);
    assert_eq!(world.offers(ALICE).len() as u32, OFFERS_UNANSWERED_MAX);
    assert!(world.gets(ALICE).is_empty());
    world.answer_next(ALICE, &[]);
    assert_eq!(world.gets(ALICE).len(), 2, "better late than never");
    world.joined(CAROL, "carol");
    assert_eq!(world.gets(ALICE).len(), 4);
}

#[test]
fn a_tracks_change_during_a_lost_answer_is_in_the_next_offer() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    world.join(BOB, "room", "bob", &camera("b"));
    world.pass(Duration::from_secs(1));
    world.join(CAROL, "room", "carol", &camera("c"));
    world.pass(ANSWER_TIMEOUT);
    assert_eq!(client::msids(world.offers(ALICE).last().expect("an offer")).len(), 4);
    world.settle();
    assert_eq!(world.gets(ALICE).len(), 4);
}

#[test]
fn answers_out_of_place_change_nothing() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    let sdp = client::answer(&world.offers(ALICE)[0], "efgh", &[]);
    let commands = world.commands.len();
    let desc = json!({"desc": {"type": "answer", "sdp": sdp}});
    assert_eq!(world.error(ALICE, "answer", desc.clone()), -32004);
    world.notify(ALICE, "answer", desc);
    world.join(BOB, "room", "bob", &camera("b"));
    world.pass(Duration::from_secs(1));
    let wrong = json!({"desc": {"type": "answer", "sdp": "v=0\r\n"}});
    assert_eq!(world.error(ALICE, "answer", wrong), -32003);
    assert_eq!(world.gets(ALICE).len(), 0);
    world.answer_next(ALICE, &[]);
    assert_eq!(world.gets(ALICE).len(), 2, "the offer was still open");
    assert!(world.commands.len() > commands);
}

#[test]
fn a_subscriber_that_was_lost_is_restarted_by_us() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    world.joined(BOB, "bob");
    let transport = world.transport(ALICE, Side::Subscriber);
    let ufrag = world.plane.transports[&transport].local.ufrag.clone();
    let (offers, gets) = (world.offers(ALICE).len(), world.gets(ALICE));

    world.ice(transport, IceState::Connected);
    world.ice(transport, IceState::Disconnected);
    world.ice(transport, IceState::Connected);
    world.pass(RESTART_INTERVAL);
    assert_eq!(world.offers(ALICE).len(), offers, "it came back by itself");

    world.ice(transport, IceState::Disconnected);
    world.pass(RESTART_DELAY);
    let offer = world.offers(ALICE).pop().expect("an offer");
    assert_eq!(world.offers(ALICE).len(), offers + 1);
    let local = world.plane.transports[&transport].local.ufrag.clone();
    assert!(local != ufrag && client::attribute(&offer, "ice-ufrag") == Some(&local));
    assert_eq!(client::attribute(&world.offers(ALICE)[0], "ice-ufrag"), Some(ufrag.as_str()));
    let remotes = |world: &World| {
        let set = |command: &&Command| matches!(command, Command::SetRemote { transport: to, .. } if *to == transport);
        world.commands.iter().filter(set).count()
    };
    let before = remotes(&world);
    world.answer_next(ALICE, &[]);
    assert_eq!(remotes(&world), before + 1, "the answer ends the restart, its credentials new or not");
    world.ice(transport, IceState::Connected);
    world.pass(RESTART_INTERVAL * 10);
    assert_eq!(world.plane.transports[&transport].restarts, 1);
    assert_eq!(world.gets(ALICE), gets);
    let states: Vec<Value> =
        world.heard(ALICE, "iceconnectionstate").iter().map(|event| event["state"].clone()).collect();
    assert_eq!(states, ["connected", "disconnected", "connected", "disconnected", "connected"]);
}

#[test]
fn a_late_answer_from_before_a_restart_is_refused_and_the_true_one_is_taken() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    let transport = world.transport(ALICE, Side::Subscriber);
    world.ice(transport, IceState::Connected);
    // An offer that the client takes too long to answer, so that it is given up, and the connection is lost meanwhile.
    world.join(BOB, "room", "bob", &camera("b"));
    world.pass(Duration::from_secs(1));
    world.ice(transport, IceState::Failed);
    world.pass(ANSWER_TIMEOUT);
    let offers = world.offers(ALICE);
    let [.., given_up, restart] = &offers[..] else { panic!("{}", offers.len()) };
    assert_ne!(client::attribute(given_up, "ice-ufrag"), client::attribute(restart, "ice-ufrag"));
    assert_eq!(world.plane.transports[&transport].restarts, 1);
    let answer = |world: &mut World, offer: &str, ufrag: &str| {
        let desc = json!({"type": "answer", "sdp": client::answer(offer, ufrag, &[])});
        world.request(ALICE, "answer", json!({"desc": desc}))["error"].clone()
    };
    let error = answer(&mut world, given_up, "efgh");
    assert_eq!(error["code"], -32003, "{error}");
    assert_eq!(world.plane.transports[&transport].remote_ufrag.as_deref(), Some("efgh"));
    assert!(world.gets(ALICE).is_empty(), "nothing of it counts");
    assert_eq!(answer(&mut world, restart, "new1"), Value::Null);
    assert_eq!(world.plane.transports[&transport].remote_ufrag.as_deref(), Some("new1"));
    assert_eq!(world.gets(ALICE).len(), 2);
}

#[test]
fn a_client_that_keeps_its_credentials_in_a_restart_is_not_refused_for_ever() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    let transport = world.transport(ALICE, Side::Subscriber);
    world.ice(transport, IceState::Connected);
    world.join(BOB, "room", "bob", &camera("b"));
    world.pass(Duration::from_secs(1));
    world.ice(transport, IceState::Failed);
    world.pass(ANSWER_TIMEOUT);
    world.answer_next(ALICE, &[]);
    assert!(world.gets(ALICE).is_empty(), "taken for a late one");
    world.pass(ANSWER_TIMEOUT);
    world.answer_next(ALICE, &[]);
    assert_eq!(world.gets(ALICE).len(), 2);
}

#[test]
fn a_restart_that_is_not_answered_keeps_its_credentials() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    let transport = world.transport(ALICE, Side::Subscriber);
    world.ice(transport, IceState::Connected);
    world.ice(transport, IceState::Failed);
    world.pass(RESTART_INTERVAL * 3);
    let offers = world.offers(ALICE);
    assert!(offers.len() >= 4, "made again until it is answered: {}", offers.len());
    let local = world.plane.transports[&transport].local.ufrag.clone();
    assert!(offers[1..].iter().all(|offer| client::attribute(offer, "ice-ufrag") == Some(&local)));
    assert_eq!(world.plane.transports[&transport].restarts, 1);
    world.answer_next(ALICE, &[]);
    world.ice(transport, IceState::Failed);
    world.pass(RESTART_INTERVAL);
    assert_eq!(world.plane.transports[&transport].restarts, 2, "and after that ICE may restart again");
}

#[test]
fn restarts_are_bounded_in_number_and_in_rate() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    let transport = world.transport(ALICE, Side::Subscriber);
    world.ice(transport, IceState::Connected);
    let start = world.now;
    world.ice(transport, IceState::Failed);
    for _ in 0..1000 {
        world.answer_all();
        world.pass(Duration::from_millis(200));
        world.ice(transport, IceState::Disconnected);
        world.ice(transport, IceState::Failed);
        let elapsed = world.now.since(start);
        let restarts = world.plane.transports[&transport].restarts;
        assert!(restarts <= 1 + (elapsed.as_millis() / RESTART_INTERVAL.as_millis()) as u32);
    }
    assert_eq!(world.plane.transports[&transport].restarts, RESTARTS_MAX);
}

#[test]
fn a_restart_waits_for_the_open_answer() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    let transport = world.transport(ALICE, Side::Subscriber);
    world.join(BOB, "room", "bob", &camera("b"));
    world.pass(Duration::from_millis(100));
    world.ice(transport, IceState::Failed);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.plane.transports[&transport].restarts, 0);
    world.answer_next(ALICE, &[]);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.plane.transports[&transport].restarts, 1);
    world.settle();
    assert_eq!(world.gets(ALICE).len(), 2);
}

#[test]
fn a_peer_is_sent_away_when_its_last_connection_ended() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    world.joined(BOB, "bob");
    let (publisher, subscriber) = (world.transport(ALICE, Side::Publisher), world.transport(ALICE, Side::Subscriber));
    world.close(subscriber);
    assert_eq!(world.clients[&ALICE].closed, None);
    assert_eq!(world.gets(BOB).len(), 2, "it still publishes");
    assert_eq!(world.error(ALICE, "answer", json!({"desc": {"type": "answer", "sdp": ""}})), -32004);
    world.close(publisher);
    assert_eq!(world.clients[&ALICE].closed, Some(super::super::CLOSE_MEDIA_ENDED));
    assert_eq!(world.rooms.stats().peers, 1);
    world.close(publisher);
    world.ice(subscriber, IceState::Failed);
    world.leave(ALICE);
    world.leave(BOB);
    world.check_empty();
}

#[test]
fn beyond_the_limit_tracks_wait_until_others_end() {
    let mut world = World::new(Settings { subscriptions_per_peer_max: 3, ..Settings::default() });
    world.request(ALICE, "join", json!({"sid": "room", "uid": "alice", "config": {"NoPublish": true}}));
    world.joined(BOB, "bob");
    world.joined(CAROL, "carol");
    assert_eq!(world.gets(ALICE).len(), 3);
    assert_eq!(world.error(ALICE, "subscribe", json!({"tracks": [{"streamId": "carol-stream"}]})), -32008);
    world.leave(BOB);
    world.settle();
    assert_eq!(world.gets(ALICE), ["carol-stream carol-stream-audio", "carol-stream carol-stream-video"]);
}

#[test]
fn a_room_of_six_hundred_publishers_that_come_and_go_costs_a_subscriber_a_bounded_number_of_m_sections() {
    let mut world = World::new(Settings::default());
    world.extras = ConnectionId(1_000);
    let join = |world: &mut World, number: u64| {
        let sdp = client::offer("abcd", &camera(&format!("s{number}")), &[]);
        let params = json!({"sid": "room", "offer": {"type": "offer", "sdp": sdp}, "config": {"NoSubscribe": true}});
        world.notify(ConnectionId(1_000 + number), "join", params);
    };
    world.request(ALICE, "join", json!({"sid": "room", "uid": "alice", "config": {"NoPublish": true}}));
    (0..600).for_each(|number| join(&mut world, number));
    world.settle();
    assert_eq!((world.gets(ALICE).len(), world.rooms.stats().subscriptions_waiting), (64, 1200 - 64));
    // The oldest leave, twenty at a time, and others come: each round those who wait longest take the places.
    for round in 0..10 {
        (20 * round..20 * (round + 1)).for_each(|number| world.leave(ConnectionId(1_000 + number)));
        (20 * round..20 * (round + 1)).for_each(|number| join(&mut world, 600 + number));
        world.settle();
        assert_eq!((world.gets(ALICE).len(), world.rooms.stats().subscriptions_waiting), (64, 1200 - 64), "{round}");
    }
    let number = |msid: &String| msid.split([' ', '-']).next()?.strip_prefix('s')?.parse::<u64>().ok();
    let numbers: BTreeSet<Option<u64>> = world.gets(ALICE).iter().map(number).collect();
    assert_eq!(numbers, (200..232).map(Some).collect(), "those who came first");
    let sections = world.offers(ALICE).iter().map(|offer| offer.matches("\r\nm=").count()).max();
    assert!(
        sections.is_some_and(|sections| sections <= 64 + 40 + 32 + 1),
        "ended m-sections are used again: {sections:?}"
    );
}

#[test]
fn a_connection_that_comes_back_may_be_restarted_again_but_not_at_once() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    let transport = world.transport(ALICE, Side::Subscriber);
    for restarts in 1..=RESTARTS_MAX + 3 {
        world.ice(transport, IceState::Connected);
        world.ice(transport, IceState::Disconnected);
        if restarts > 1 {
            world.pass(RESTART_INTERVAL - Duration::from_millis(1));
            assert_eq!(world.plane.transports[&transport].restarts, restarts - 1, "too soon");
        }
        world.pass(RESTART_DELAY);
        assert_eq!(world.plane.transports[&transport].restarts, restarts);
        // Back to the moment of the restart, so that the next round begins with it.
        world.now = world.rooms.timers.next().map_or(world.now, |next| next - RESTART_INTERVAL);
        world.answer_all();
    }
}

#[test]
fn ssrcs_are_neither_used_twice_nor_a_publishers() {
    let mut chance = Chance(3);
    let narrow = move |bytes: &mut [u8]| match bytes.len() {
        4 => bytes.copy_from_slice(&(1_000_000 + chance.below(12) as u32).to_be_bytes()),
        _ => bytes.fill_with(|| chance.next() as u8),
    };
    let mut world = World::with_random(Settings::default(), Box::new(narrow));
    for (connection, uid) in [(ALICE, "alice"), (BOB, "bob"), (CAROL, "carol")] {
        world.joined(connection, uid);
    }
    // The data plane has compared each with those of the publishers and of its connection.
    assert_eq!(world.gets(ALICE).len(), 4);
}
