//! Coming, going, and what is refused at the door.

use super::*;
use client::camera;

#[test]
fn the_reply_comes_before_the_first_offer_and_the_commands_before_both() {
    let mut world = World::new(Settings::default());
    world.rooms.handle_message(
        ALICE,
        &format!(
            r#"{{"method":"join","params":{{"sid":"room","uid":"alice","offer":{{"type":"offer","sdp":{}}}}},"id":7}}"#,
            Value::from(client::offer("abcd", &camera("s"), &[]))
        ),
        world.now,
    );
    let mut order = Vec::new();
    while let Some(output) = world.rooms.poll_output() {
        order.push(match output {
            Output::Command(Command::OpenTransport { spec, .. }) => format!("open {:?}", spec.side),
            Output::Command(Command::SetRemote { .. }) => "remote".to_owned(),
            Output::Command(Command::Receive { spec, .. }) => format!("receive {}", spec.tracks.len()),
            Output::Send { text, .. } => {
                let text: Value = serde_json::from_str(&text).expect("JSON");
                if text["id"] == 7 { "reply".to_owned() } else { text["method"].as_str().expect("one").to_owned() }
            }
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(order, ["open Publisher", "remote", "receive 2", "open Subscriber", "reply", "offer"]);
}

#[test]
fn the_first_offer_has_the_channel_and_every_track_that_is_there() {
    let mut world = World::new(Settings::default());
    world.join(ALICE, "room", "alice", &camera("a"));
    let offers = world.offers(ALICE);
    assert_eq!(offers.len(), 1, "an empty room gets an offer too");
    assert!(offers[0].contains("m=application") && !offers[0].contains("m=audio"));
    world.join(BOB, "room", "bob", &camera("b"));
    assert_eq!(client::msids(&world.offers(BOB)[0]), ["a a-audio", "a a-video"]);
}

#[test]
fn channels_of_others_come_to_the_subscribers_side_only() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    for (side, expected) in [(Side::Publisher, false), (Side::Subscriber, true)] {
        let id = world.transport(ALICE, side);
        let opened = world.commands.iter().find_map(|command| match command {
            Command::OpenTransport { spec, .. } if spec.id == id => spec.channels.as_ref(),
            _ => None,
        });
        assert_eq!(opened.map(|channels| channels.fan_out), Some(expected), "{side:?}");
    }
}

#[test]
fn everyone_gets_the_tracks_of_the_others_and_never_their_own() {
    let mut world = World::new(Settings::default());
    for (connection, uid) in [(ALICE, "alice"), (BOB, "bob"), (CAROL, "carol")] {
        world.joined(connection, uid);
    }
    assert_eq!(world.gets(ALICE).len(), 4);
    assert!(world.gets(ALICE).iter().all(|track| !track.starts_with("alice")));
    assert_eq!(world.rooms.stats().subscriptions, 12);
}

#[test]
fn rooms_hear_nothing_of_each_other() {
    let mut world = World::new(Settings::default());
    world.join(ALICE, "one", "same", &camera("s"));
    world.join(BOB, "two", "same", &camera("s"));
    world.settle();
    assert!(world.gets(ALICE).is_empty() && world.gets(BOB).is_empty());
    assert_eq!(world.request(BOB, "tracks", json!({}))["result"]["tracks"].as_array().map(Vec::len), Some(2));
    assert_eq!(world.rooms.stats().rooms, 2);
}

#[test]
fn a_closed_websocket_frees_everything() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    world.joined(BOB, "bob");
    world.leave(BOB);
    assert!(world.gets(ALICE).is_empty());
    assert_eq!(world.heard(ALICE, "peerevent").last().map(|event| event["state"].clone()), Some("join".into()));
    world.settle();
    let last = world.heard(ALICE, "peerevent").pop().expect("news");
    assert_eq!(last, json!({"state": "leave", "peers": [{"uid": "bob", "info": null}]}));
    world.leave(ALICE);
    world.check_empty();
    assert_eq!(world.rooms.poll_timeout(), None);
}

#[test]
fn no_publish_needs_no_offer_and_may_not_make_one() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    for key in ["NoPublish", "nopublish", "noPublish"] {
        let reply = world.request(BOB, "join", json!({"sid": "room", "uid": "bob", "config": {key: true}}));
        assert_eq!(reply["result"], json!({"uid": "bob"}));
        world.settle();
        assert_eq!(world.gets(BOB).len(), 2);
        let desc = json!({"type": "offer", "sdp": client::offer("abcd", &camera("b"), &[])});
        assert_eq!(world.error(BOB, "offer", json!({"desc": desc})), -32004);
        world.notify(BOB, "trickle", json!({"target": 0, "candidate": {"candidate": ""}}));
        world.leave(BOB);
    }
}

#[test]
fn no_subscribe_gets_nothing_and_still_publishes() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    let offer = json!({"type": "offer", "sdp": client::offer("abcd", &camera("b"), &[])});
    let params = json!({"sid": "room", "uid": "bob", "offer": offer, "config": {"NOSUBSCRIBE": true}});
    assert_eq!(world.request(BOB, "join", params)["result"]["type"], "answer");
    world.settle();
    assert!(world.offers(BOB).is_empty());
    assert_eq!(world.gets(ALICE), ["b b-audio", "b b-video"]);
    assert_eq!(world.error(BOB, "subscribe", json!({"tracks": [{"streamId": "alice-stream"}]})), -32004);
    assert_eq!(world.request(BOB, "trickle", json!({"target": 1, "candidate": null}))["result"], Value::Null);
    // A peer without a subscriber connection is no obstacle to those who talk of layers.
    let alice = world.transport(ALICE, Side::Subscriber);
    world.event(Event::ApiMessage { transport: alice, text: r#"{"streamId":"alice-stream","layers":["low"]}"#.into() });
}

#[test]
fn no_auto_subscribe_gets_what_it_names() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    let config = json!({"NoPublish": true, "NoAutoSubscribe": true});
    world.request(BOB, "join", json!({"sid": "room", "uid": "bob", "config": config}));
    world.settle();
    assert!(world.gets(BOB).is_empty() && world.offers(BOB).len() == 1, "the channel is offered all the same");
    let added = world.heard(BOB, "trackevent");
    assert_eq!(added[0]["tracks"].as_array().map(Vec::len), Some(2), "what is there is listed");

    let audio = json!({"streamId": "alice-stream", "trackId": "alice-stream-audio"});
    let reply = world.request(BOB, "subscribe", json!({"tracks": [audio]}));
    assert_eq!(reply["result"]["tracks"], json!([audio]));
    world.settle();
    assert_eq!(world.gets(BOB), ["alice-stream alice-stream-audio"]);
    world.request(BOB, "subscribe", json!({"tracks": [{"streamId": "alice-stream"}]}));
    world.settle();
    assert_eq!(world.gets(BOB).len(), 2, "the stream's other track too, the first one not twice");
    world.request(BOB, "unsubscribe", json!({"tracks": [audio, {"streamId": "long gone"}]}));
    assert_eq!(world.gets(BOB), ["alice-stream alice-stream-video"], "at once");
    for unknown in [json!({"streamId": "x"}), json!({"streamId": "alice-stream", "trackId": "x"})] {
        assert_eq!(world.error(BOB, "subscribe", json!({"tracks": [audio, unknown]})), -32005);
    }
    assert_eq!(world.gets(BOB).len(), 1, "all or none");
    assert_eq!(world.error(ALICE, "subscribe", json!({"tracks": [audio]})), -32005, "not one's own");
}

#[test]
fn what_an_automatic_subscriber_turns_down_stays_away_until_asked_for() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    world.joined(BOB, "bob");
    let alice = json!({"tracks": [{"streamId": "alice-stream"}]});
    world.request(BOB, "unsubscribe", alice.clone());
    world.joined(CAROL, "carol");
    assert_eq!(world.gets(BOB), ["carol-stream carol-stream-audio", "carol-stream carol-stream-video"]);
    world.request(BOB, "subscribe", alice);
    world.settle();
    assert_eq!(world.gets(BOB).len(), 4);
}

#[test]
fn the_same_uid_takes_the_old_peers_place() {
    let mut world = World::new(Settings { peers_per_room_max: 2, ..Settings::default() });
    world.joined(ALICE, "alice");
    world.joined(BOB, "bob");
    world.joined(CAROL, "bob");
    assert_eq!(world.clients[&BOB].closed, Some(super::super::CLOSE_REPLACED));
    assert_eq!(world.rooms.stats().peers, 2);
    assert_eq!(
        world.gets(ALICE),
        ["bob-stream bob-stream-audio", "bob-stream bob-stream-video"],
        "the ids are free again"
    );
    let states: Vec<Value> = world.heard(ALICE, "peerevent").iter().map(|event| event["state"].clone()).collect();
    assert_eq!(states, ["join", "join", "leave", "join"]);
    world.say(BOB, r#"{"method":"tracks","id":1}"#);
    world.leave(BOB);
    assert_eq!(world.rooms.stats().peers, 2, "the old connection's end does not touch the new peer");
}

#[test]
fn a_refused_join_harms_nobody() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    let offer = json!({"type": "offer", "sdp": "v=0\r\nnonsense"});
    assert_eq!(world.error(BOB, "join", json!({"sid": "room", "uid": "alice", "offer": offer})), -32003);
    assert_eq!((world.rooms.stats().peers, world.clients[&ALICE].closed), (1, None));
    world.joined(BOB, "bob");
}

#[test]
fn an_answer_is_nothing_but_an_answer_for_who_has_named_itself() {
    let mut world = World::new(Settings::default());
    let offer = json!({"type": "offer", "sdp": client::offer("abcd", &camera("s"), &[])});
    let members =
        |reply: &Value| -> Vec<String> { reply["result"].as_object().expect("joined").keys().cloned().collect() };
    let named = world.request(ALICE, "join", json!({"sid": "room", "uid": "alice", "offer": offer}));
    assert_eq!(members(&named), ["sdp", "type"]);
    let nameless = world.request(BOB, "join", json!({"sid": "room", "offer": offer}));
    assert_eq!(members(&nameless), ["sdp", "type", "uid"]);
}

#[test]
fn names_and_info_are_shown_to_the_others() {
    let mut world = World::new(Settings::default());
    let join = |uid: Value, name: &str| json!({"sid": "room", "uid": uid, "info": {"name": name}, "config": {"NoPublish": true}});
    world.request(ALICE, "join", join("alice".into(), "Alice"));
    world.settle();
    let made_up = world.request(BOB, "join", join("".into(), "Bob"))["result"]["uid"].clone();
    assert!(made_up.as_str().is_some_and(|uid| uid.len() == 20), "{made_up}");
    let present = &world.heard(BOB, "peerevent")[0];
    assert_eq!(*present, json!({"state": "join", "peers": [{"uid": "alice", "info": {"name": "Alice"}}]}));
    world.settle();
    let news = world.heard(ALICE, "peerevent").pop().expect("news of Bob");
    assert_eq!(news["peers"][0], json!({"uid": made_up, "info": {"name": "Bob"}}));
    let too_long = json!({"sid": "room", "config": {"NoPublish": true}, "info": "x".repeat(1100)});
    assert_eq!(world.error(CAROL, "join", too_long), -32602);
}

#[test]
fn a_crowd_is_announced_in_a_few_messages() {
    let mut world = World::new(Settings::default());
    world.request(ALICE, "join", json!({"sid": "room", "uid": "alice", "config": {"NoPublish": true}}));
    world.pass(Duration::from_secs(1));
    for number in 0..96 {
        let params = json!({"sid": "room", "config": {"NoPublish": true}});
        world.request(ConnectionId(100 + number), "join", params);
    }
    world.pass(Duration::from_secs(1));
    let events = world.heard(ALICE, "peerevent");
    assert_eq!(events.len(), 1 + 3, "32 rows in a message");
    let rows: usize = events.iter().map(|event| event["peers"].as_array().map_or(0, Vec::len)).sum();
    assert_eq!(rows, 97);
}

#[test]
fn limits_are_kept_and_named() {
    let settings = Settings { rooms_max: 1, peers_per_room_max: 2, tracks_per_peer_max: 2, ..Settings::default() };
    let mut world = World::new(settings);
    world.joined(ALICE, "alice");
    assert_eq!(world.error(BOB, "join", viewer("another")), -32007);
    world.request(BOB, "join", viewer("room"));
    assert_eq!(world.error(CAROL, "join", viewer("room")), -32006);
    assert_eq!(world.error(BOB, "join", viewer("room")), -32001);
    assert_eq!(world.error(CAROL, "tracks", json!({})), -32002);
    world.leave(BOB);
    let mut media = camera("c");
    media.push(Media::Audio("c".to_owned(), "second".to_owned()));
    assert_eq!(world.join(CAROL, "room", "carol", &media)["error"]["code"], -32008);
    let desc = json!({"type": "offer", "sdp": client::offer("abcd", &[camera("a"), camera("b")].concat(), &[])});
    assert_eq!(world.error(ALICE, "offer", json!({"desc": desc})), -32008);
    let desc = json!({"type": "offer", "sdp": client::offer("abcd", &camera("alice-stream"), &[])});
    assert_eq!(
        world.request(ALICE, "offer", json!({"desc": desc}))["result"]["type"],
        "answer",
        "the refusal left no trace"
    );
    assert_eq!(world.rooms.stats().peers, 1);
}

#[test]
fn too_many_requests_are_refused_and_a_flood_ends_the_connection() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    world.pass(Duration::from_secs(10));
    let codes: Vec<Value> =
        (0..150).map(|_| world.request(ALICE, "tracks", json!({}))["error"]["code"].clone()).collect();
    assert_eq!(codes.iter().filter(|code| code.is_null()).count(), 100, "the burst");
    assert_eq!(codes.iter().filter(|code| **code == -32029).count(), 50);
    let before = world.clients[&ALICE].heard.len();
    world.notify(ALICE, "trickle", json!({"target": 0}));
    assert_eq!(world.clients[&ALICE].heard.len(), before, "a notification gets no reply");
    world.pass(Duration::from_secs(1));
    assert!(world.request(ALICE, "tracks", json!({}))["error"].is_null(), "it may go on");
    for _ in 0..2000 {
        world.say(ALICE, "[");
    }
    assert_eq!(world.clients[&ALICE].closed, Some(1008));
    world.leave(ALICE);
    world.check_empty();
}

fn viewer(sid: &str) -> Value {
    json!({"sid": sid, "config": {"NoPublish": true}})
}

/// Connects from an address and joins; the reply.
fn come(world: &mut World, number: u64, from: [u8; 4]) -> Value {
    let connection = ConnectionId(number);
    world.rooms.handle_opened(connection, std::net::IpAddr::from(from).into(), world.now);
    world.request(connection, "join", viewer(&format!("room {}", number % 50)))
}

#[test]
fn joins_from_one_address_are_bounded_and_others_are_let_in() {
    let mut world = World::new(Settings::default());
    let (office, elsewhere) = ([192, 0, 2, 7], [198, 51, 100, 1]);
    for number in 0..1000 {
        assert!(come(&mut world, number, office)["error"].is_null(), "an office of a thousand: {number}");
    }
    let refused = come(&mut world, 1000, office)["error"].clone();
    assert_eq!(refused["code"], -32029);
    assert_eq!(refused["data"], json!({"limit": "limits.joins_per_second_per_ip", "retry_after": 1.0}));
    assert!(
        refused["message"].as_str().is_some_and(|text| text.contains("500 a second and 1000 at once")),
        "{refused}"
    );
    assert!(come(&mut world, 1001, elsewhere)["error"].is_null());
    assert_eq!((world.rooms.stats().peers, world.rooms.stats().joins_refused), (1001, 1));
    world.pass(Duration::from_secs(1));
    assert!(world.request(ConnectionId(1000), "join", viewer("room"))["error"].is_null(), "on the same connection");
}

#[test]
fn a_load_generator_may_ramp_up_a_thousand_peers_from_one_address() {
    let mut world = World::new(Settings::default());
    for number in 0..1000 {
        assert!(come(&mut world, number, [127, 0, 0, 1])["error"].is_null(), "{number}");
        world.pass(Duration::from_millis(2));
    }
}

#[test]
fn joins_in_all_are_bounded_wherever_they_come_from() {
    let mut world = World::new(Settings { joins_per_second: 10, ..Settings::default() });
    let replies: Vec<Value> = (0..40).map(|number| come(&mut world, number, [10, 0, 0, number as u8])).collect();
    assert!(replies[..20].iter().all(|reply| reply["error"].is_null()));
    for reply in &replies[20..] {
        assert_eq!(
            (&reply["error"]["code"], &reply["error"]["data"]["limit"]),
            (&json!(-32029), &json!("limits.joins_per_second"))
        );
    }
}

#[test]
fn a_loaded_rooms_transports_go_to_the_next_worker() {
    let mut world = World::new(Settings { spread_after: 3, ..Settings::default() });
    for number in 0..3 {
        world.join(ConnectionId(number), "room", &format!("peer {number}"), &camera("s"));
    }
    world.settle();
    let on = |worker| world.plane.transports.values().filter(|transport| transport.worker.0 == worker).count();
    assert_eq!((on(0), on(1)), (3, 3));
    for (index, transport) in world.plane.transports.values().enumerate() {
        let port = 5000 + transport.worker.0;
        assert!(index < 6 && transport.local.ufrag.len() == 12, "{port}");
    }
    assert_eq!(world.gets(ConnectionId(2)).len(), 4, "tracks of either worker");
}

#[test]
fn the_same_seed_gives_the_same_commands() {
    let run = |seed| {
        let mut world = World::seeded(Settings::default(), seed);
        world.joined(ALICE, "alice");
        world.joined(BOB, "bob");
        world.leave(ALICE);
        world.commands
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn who_came_and_went_unannounced_is_not_mentioned() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    let events = |world: &World| world.heard(ALICE, "peerevent").len() + world.heard(ALICE, "trackevent").len();
    let before = events(&world);
    world.join(BOB, "room", "bob", &camera("b"));
    world.pass(Duration::from_millis(10));
    world.leave(BOB);
    world.settle();
    assert_eq!(events(&world), before);
}

#[test]
fn a_newcomer_to_a_large_room_is_told_of_it_in_pages() {
    const CROWD: u64 = 300;
    let mut world = World::new(Settings::default());
    for number in 1..=CROWD {
        let info = "i".repeat(1000);
        let config = json!({"noPublish": true, "noSubscribe": true});
        let params = json!({"sid": "room", "uid": format!("u{number}"), "info": info, "config": config});
        world.request(ConnectionId(number), "join", params);
    }
    world.pass(Duration::from_secs(10));
    let newcomer = ConnectionId(CROWD + 1);
    world.join(newcomer, "room", "new", &camera("n"));
    let told = |world: &World| -> usize {
        let events = world.heard(newcomer, "peerevent");
        let joins = events.iter().filter(|event| event["state"] == "join");
        joins.map(|event| event["peers"].as_array().map_or(0, Vec::len)).sum()
    };
    let at_once = told(&world);
    assert!((32..100).contains(&at_once), "{at_once} peers of a kilobyte each: about 32 KiB at a time");
    world.leave(ConnectionId(CROWD));
    world.pass(Duration::from_secs(5));
    assert_eq!(told(&world) as u64, CROWD - 1 + 1, "each once, oneself too, and not the one who left in the meantime");
    for number in 1..=newcomer.0 {
        world.leave(ConnectionId(number));
    }
    world.check_empty();
    assert_eq!(world.rooms.poll_timeout(), None);
}
