//! The API channel: layers, mutes and speakers.

use ringmain_shared::event::AudioActivity;
use ringmain_shared::id::{TrackId, WorkerIndex};

use super::*;

impl World {
    /// A client's API channel opens.
    fn api_open(&mut self, connection: ConnectionId) {
        let transport = self.transport(connection, Side::Subscriber);
        self.event(Event::ApiOpen { transport });
    }

    fn api_say(&mut self, connection: ConnectionId, text: &str) {
        let transport = self.transport(connection, Side::Subscriber);
        self.event(Event::ApiMessage { transport, text: text.to_owned() });
    }

    /// What a client wants of the audio and of the video that it gets: muted, spatial, temporal.
    fn wishes(&self, connection: ConnectionId) -> Vec<(bool, u8, u8)> {
        let transport = self.transport(connection, Side::Subscriber);
        let subs = self.plane.subscriptions_of(transport);
        subs.iter().map(|sub| (sub.muted, sub.spatial_max, sub.temporal_max)).collect()
    }

    /// Alice with a microphone and three layers of video; Bob sees her.
    fn simulcast() -> Self {
        let mut world = Self::new(Settings::default());
        let media = [
            Media::Channels,
            Media::Audio("s".to_owned(), "s-audio".to_owned()),
            Media::Simulcast("s".to_owned(), "s-video".to_owned()),
        ];
        world.join(ALICE, "room", "alice", &media);
        world.join(BOB, "room", "bob", &[Media::Channels]);
        world.settle();
        world.api_open(ALICE);
        world.api_open(BOB);
        world
    }

    fn video_of(&self, connection: ConnectionId) -> TrackId {
        self.plane.tracks_of(self.peer(connection))[1].id
    }

    fn audio_of(&self, connection: ConnectionId) -> TrackId {
        self.plane.tracks_of(self.peer(connection))[0].id
    }

    fn hear(&mut self, worker: u16, levels: &[(TrackId, u32, u32)]) {
        let levels =
            levels.iter().map(|&(track, count, level_sum)| AudioActivity { track, count, level_sum }).collect();
        self.event(Event::AudioActivity { worker: WorkerIndex(worker), levels });
    }
}

#[test]
fn the_latest_wish_of_each_kind_holds() {
    let mut world = World::simulcast();
    assert_eq!(world.wishes(BOB), [(false, 2, 2), (false, 2, 2)]);
    let table = [
        (r#"{"streamId":"s","video":"medium","audio":true,"framerate":"high"}"#, (false, (false, 1, 2))),
        (r#"{"streamId":"s","video":"low","audio":false,"framerate":"low"}"#, (true, (false, 0, 0))),
        (r#"{"streamId":"s","video":"none","audio":true,"framerate":"medium"}"#, (false, (true, 0, 1))),
        (r#"{"streamId":"s","video":"blurry","audio":"loud","framerate":7}"#, (false, (true, 0, 1))),
        (r#"{"streamId":"s"}"#, (false, (true, 0, 1))),
        (r#"{"streamId":"s","layers":[],"video":"high"}"#, (false, (false, 2, 1))),
        (r#"{"streamId":"another","video":"none","audio":false}"#, (false, (false, 2, 1))),
        (r#"{"streamId":"s","framerate":"high","video":null}"#, (false, (false, 2, 2))),
    ];
    for (text, (audio_muted, video)) in table {
        world.api_say(BOB, text);
        let wishes = world.wishes(BOB);
        assert_eq!((wishes[0].0, wishes[1]), (audio_muted, video), "{text}");
    }
}

#[test]
fn what_makes_no_sense_is_passed_over() {
    let mut world = World::simulcast();
    let (commands, wishes) = (world.commands.len(), world.wishes(BOB));
    let deep = "[".repeat(40_000);
    for text in ["", "{", "[]", "7", "\0", r#"{"streamId":7}"#, r#"{"video":"low"}"#, "PING", &deep] {
        world.api_say(BOB, text);
    }
    let publisher = world.transport(ALICE, Side::Publisher);
    world.event(Event::ApiMessage { transport: publisher, text: "ping".to_owned() });
    world.event(Event::ApiMessage { transport: TransportId(9), text: "ping".to_owned() });
    assert_eq!((world.commands.len(), world.wishes(BOB)), (commands, wishes));
    world.api_say(BOB, "ping");
    assert_eq!(world.api(BOB).last(), Some(&"pong".into()));
}

#[test]
fn a_wish_before_the_answer_is_what_the_subscription_begins_with() {
    let mut world = World::simulcast();
    world.join(CAROL, "room", "carol", &client::camera("c"));
    world.pass(Duration::from_millis(100));
    world.api_say(BOB, r#"{"streamId":"c","video":"low","audio":false}"#);
    assert_eq!(world.wishes(BOB).len(), 2);
    world.answer_all();
    assert_eq!(world.wishes(BOB)[2..], [(true, 2, 2), (false, 0, 2)]);
}

#[test]
fn enabled_layers_hold_every_subscriber_and_are_told_to_each() {
    let mut world = World::simulcast();
    let told = |world: &World| world.api(BOB).last().map(|message| message["params"].clone());
    let first = json!({"streamId": "s", "activeLayer": "high", "availableLayers": ["high", "medium", "low"]});
    assert_eq!(told(&world), Some(first), "as soon as its channel is open");
    let table = [
        (r#"["medium","low"]"#, "medium", 1, json!(["medium", "low"])),
        (r#"["low"]"#, "low", 0, json!(["low"])),
        (r#"["low","tiny"]"#, "low", 0, json!(["low"])),
        (r#"["high","medium","low"]"#, "high", 2, json!(["high", "medium", "low"])),
    ];
    for (layers, active, spatial_max, available) in table {
        let before = world.api(BOB).len();
        world.api_say(ALICE, &format!(r#"{{"streamId":"s","layers":{layers}}}"#));
        let expected = json!({"streamId": "s", "activeLayer": active, "availableLayers": available});
        assert_eq!((world.api(BOB).len(), told(&world)), (before + 1, Some(expected)), "{layers}");
        assert_eq!(world.wishes(BOB)[1].1, spatial_max);
    }
    // The wish outlives what was enabled in between.
    world.api_say(BOB, r#"{"streamId":"s","video":"medium"}"#);
    world.api_say(ALICE, r#"{"streamId":"s","layers":["high"]}"#);
    assert_eq!(world.wishes(BOB)[1].1, 2, "the least that there is");
    world.api_say(ALICE, r#"{"streamId":"s","layers":["high","medium"]}"#);
    assert_eq!(world.wishes(BOB)[1].1, 1);
    let before = world.commands.len();
    world.api_say(BOB, r#"{"streamId":"s","layers":["low"]}"#);
    world.api_say(ALICE, r#"{"streamId":"s","layers":["tiny"]}"#);
    assert_eq!(world.commands.len(), before, "only the publisher speaks for its stream, and in known words");
    assert!(world.api(ALICE).is_empty());
}

#[test]
fn layers_that_come_and_go_by_themselves_are_told_once() {
    let mut world = World::simulcast();
    let track = world.video_of(ALICE);
    let subscriber = world.transport(BOB, Side::Subscriber);
    let subscription = world.plane.subscriptions_of(subscriber)[1].id;
    let before = world.api(BOB).len();
    world.event(Event::LayersActive { track, layers: 0b011 });
    world.event(Event::LayersActive { track, layers: 0b011 });
    world.event(Event::LayerForwarded { subscription, spatial: 0, temporal: 1 });
    world.event(Event::LayerForwarded { subscription, spatial: 0, temporal: 2 });
    world.event(Event::LayersActive { track: TrackId(3), layers: 1 });
    let told: Vec<Value> = world.api(BOB)[before..].iter().map(|message| message["params"].clone()).collect();
    assert_eq!(
        told,
        [
            json!({"streamId": "s", "activeLayer": "medium", "availableLayers": ["medium", "low"]}),
            json!({"streamId": "s", "activeLayer": "low", "availableLayers": ["medium", "low"]}),
        ]
    );
}

#[test]
fn speakers_are_listed_by_how_long_then_how_loud_and_only_on_change() {
    let mut world = World::new(Settings::default());
    for (connection, uid) in [(ALICE, "a"), (BOB, "b"), (CAROL, "c")] {
        world.joined(connection, uid);
        world.api_open(connection);
    }
    let (a, b, c) = (world.audio_of(ALICE), world.audio_of(BOB), world.audio_of(CAROL));
    type Row<'r> = (&'r [(TrackId, u32, u32)], Option<&'r [&'r str]>);
    let table: &[Row<'_>] = &[
        (&[(a, 9, 90)], None),
        (&[(a, 10, 100)], Some(&["a-stream"])),
        (&[(a, 12, 500)], None),
        (&[(a, 12, 500), (b, 50, 900), (c, 50, 800)], Some(&["c-stream", "b-stream", "a-stream"])),
        (&[(c, 20, 1), (b, 21, 999), (TrackId(5), 50, 0)], Some(&["b-stream", "c-stream"])),
        (&[], Some(&[])),
        (&[], None),
    ];
    for (levels, expected) in table {
        let before = [ALICE, BOB, CAROL].map(|connection| world.api(connection).len());
        world.hear(0, levels);
        for (connection, before) in [ALICE, BOB, CAROL].into_iter().zip(before) {
            let told = &world.api(connection)[before..];
            let expected: Vec<Value> =
                expected.iter().map(|ids| json!({"method": "audioLevels", "params": ids})).collect();
            assert_eq!(told, expected, "{levels:?}");
        }
    }
}

#[test]
fn a_late_comer_is_told_who_speaks_and_a_leaver_speaks_no_more() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "a");
    let audio = world.audio_of(ALICE);
    world.hear(0, &[(audio, 50, 100)]);
    world.joined(BOB, "b");
    assert!(world.api(BOB).is_empty(), "its channel is not open");
    world.api_open(BOB);
    world.api_open(BOB);
    assert_eq!(world.api(BOB), [json!({"method": "audioLevels", "params": ["a-stream"]})]);
    world.leave(ALICE);
    assert_eq!(world.api(BOB).last(), Some(&json!({"method": "audioLevels", "params": []})));
}

#[test]
fn workers_are_added_up_and_one_that_falls_silent_is_forgotten() {
    let mut world = World::new(Settings { spread_after: 2, ..Settings::default() });
    world.joined(ALICE, "a");
    world.joined(BOB, "b");
    world.api_open(ALICE);
    let (a, b) = (world.audio_of(ALICE), world.audio_of(BOB));
    world.hear(0, &[(a, 20, 1)]);
    world.hear(1, &[(b, 30, 1)]);
    let told = |world: &World| world.api(ALICE).last().map(|message| message["params"].clone());
    assert_eq!(told(&world), Some(json!(["b-stream", "a-stream"])));
    world.pass(Duration::from_secs(2));
    world.hear(0, &[(a, 20, 1)]);
    world.pass(Duration::from_secs(2));
    assert_eq!(told(&world), Some(json!(["a-stream"])));
    world.pass(Duration::from_secs(4));
    assert_eq!(told(&world), Some(json!([])));
    assert_eq!(world.rooms.poll_timeout(), None);
}

#[test]
fn a_speaker_whose_stream_was_renamed_reads_its_own_name() {
    let mut world = World::new(Settings::default());
    for (connection, uid) in [(ALICE, "alice"), (BOB, "bob")] {
        world.join(connection, "room", uid, &client::camera("same"));
        world.settle();
        world.api_open(connection);
    }
    let audio = world.audio_of(BOB);
    world.hear(0, &[(audio, 50, 1)]);
    assert_eq!(world.api(BOB)[0]["params"], json!(["same"]));
    let shown = world.api(ALICE)[0]["params"][0].as_str().map(str::to_owned).expect("a stream");
    assert!(shown.starts_with("same-"));
    world.api_say(ALICE, &json!({"streamId": shown, "audio": false}).to_string());
    assert!(world.wishes(ALICE)[0].0);
}

#[test]
fn a_flood_on_the_api_channel_is_held_to_the_rate() {
    let mut world = World::simulcast();
    let before = world.api(BOB).len();
    for _ in 0..1000 {
        world.api_say(BOB, "ping");
    }
    assert_eq!(world.api(BOB).len() - before, 100);
}

#[test]
fn what_a_publisher_enables_counts_as_there_until_a_worker_knows_better() {
    let mut world = World::simulcast();
    let track = world.video_of(ALICE);
    let available = |world: &World| world.api(BOB).last().map(|message| message["params"]["availableLayers"].clone());
    world.event(Event::LayersActive { track, layers: 0b001 });
    assert_eq!(available(&world), Some(json!(["low"])));
    world.api_say(ALICE, r#"{"streamId":"s","layers":["medium","low"]}"#);
    assert_eq!(available(&world), Some(json!(["medium", "low"])));
    world.event(Event::LayersActive { track, layers: 0b010 });
    assert_eq!(available(&world), Some(json!(["medium"])));
    world.event(Event::LayersActive { track, layers: 0b100 });
    assert_eq!(available(&world), Some(json!(["medium", "low"])), "none of those that were announced");
}

#[test]
fn layers_that_a_later_offer_adds_are_told() {
    let mut world = World::new(Settings::default());
    let (stream, track) = ("s".to_owned(), "s-video".to_owned());
    let mut media = vec![
        Media::Channels,
        Media::Audio("s".to_owned(), "a".to_owned()),
        Media::Video(stream.clone(), track.clone()),
    ];
    world.join(ALICE, "room", "alice", &media);
    world.join(BOB, "room", "bob", &[Media::Channels]);
    world.settle();
    world.api_open(BOB);
    let before = world.video_of(ALICE);
    media[2] = Media::Simulcast(stream, track);
    let sdp = client::offer("abcd", &media, &[]);
    world.request(ALICE, "offer", json!({"desc": {"type": "offer", "sdp": sdp}}));
    assert!(world.video_of(ALICE) == before && world.api(BOB).is_empty());
    world.event(Event::LayersActive { track: before, layers: 0b011 });
    let expected = json!({"streamId": "s", "activeLayer": "medium", "availableLayers": ["medium", "low"]});
    assert_eq!(world.api(BOB).last().map(|message| message["params"].clone()), Some(expected));
}
