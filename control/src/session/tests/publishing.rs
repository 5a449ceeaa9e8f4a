//! A publisher's offers, from the first to the last.

use super::*;
use client::camera;

/// Makes the next offer of a publisher connection.
fn offer(world: &mut World, ufrag: &str, media: &[Media], mids: &[(usize, &str)]) -> String {
    let desc = json!({"type": "offer", "sdp": client::offer(ufrag, media, mids)});
    let reply = world.request(ALICE, "offer", json!({"desc": desc}));
    reply["result"]["sdp"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
}

#[test]
fn a_track_that_stays_keeps_its_id_while_others_come_and_go() {
    let mut world = World::new(Settings::default());
    let alice = world.joined(ALICE, "alice");
    world.joined(BOB, "bob");
    let before: Vec<_> = world.plane.tracks_of(alice).iter().map(|track| track.id).collect();

    let mut media = camera("alice-stream");
    media.push(Media::Video("screen".to_owned(), "screen-video".to_owned()));
    offer(&mut world, "abcd", &media, &[]);
    world.settle();
    let ids: Vec<_> = world.plane.tracks_of(alice).iter().map(|track| track.id).collect();
    assert_eq!(ids[..2], before[..]);
    assert_eq!(world.gets(BOB).len(), 3);

    media[3] = Media::Ended("video");
    offer(&mut world, "abcd", &media, &[]);
    assert_eq!(world.gets(BOB).len(), 2, "forwarding ends with the track, not with the next answer");
    world.settle();
    assert_eq!(client::msids(world.offers(BOB).last().expect("an offer")).len(), 2);
    let removed = world.heard(BOB, "trackevent").pop().expect("news");
    assert_eq!((&removed["state"], &removed["tracks"][0]["trackId"]), (&"remove".into(), &"screen-video".into()));

    // The place is used again under a new mid.
    media[3] = Media::Video("second".to_owned(), "second-video".to_owned());
    offer(&mut world, "abcd", &media, &[(3, "9")]);
    world.settle();
    assert_eq!(world.gets(BOB).last().map(String::as_str), Some("second second-video"));
}

#[test]
fn another_msid_under_the_same_mid_is_another_track() {
    let mut world = World::new(Settings::default());
    let alice = world.joined(ALICE, "alice");
    world.joined(BOB, "bob");
    let before = world.plane.tracks_of(alice)[1].id;
    let mut media = camera("alice-stream");
    media[2] = Media::Video("alice-stream".to_owned(), "other".to_owned());
    offer(&mut world, "abcd", &media, &[]);
    assert_ne!(world.plane.tracks_of(alice)[1].id, before);
    world.settle();
    assert_eq!(world.gets(BOB), ["alice-stream alice-stream-audio", "alice-stream other"]);
}

#[test]
fn an_offer_with_new_credentials_restarts_ice_and_disturbs_no_track() {
    let mut world = World::new(Settings::default());
    let alice = world.joined(ALICE, "alice");
    world.joined(BOB, "bob");
    let tracks: Vec<_> = world.plane.tracks_of(alice).iter().map(|track| track.id).collect();
    let transport = world.transport(ALICE, Side::Publisher);
    let ufrag = world.plane.transports[&transport].local.ufrag.clone();
    let (offers, commands) = (world.offers(BOB).len(), world.commands.len());

    let same = offer(&mut world, "abcd", &camera("alice-stream"), &[]);
    assert_eq!(client::attribute(&same, "ice-ufrag"), Some(ufrag.as_str()), "no restart, no new credentials");
    assert_eq!(world.commands.len(), commands, "nothing changed");

    let restarted = offer(&mut world, "wxyz", &camera("alice-stream"), &[]);
    let transport = &world.plane.transports[&transport];
    assert_eq!((transport.restarts, transport.remote_ufrag.as_deref()), (1, Some("wxyz")));
    assert_ne!(transport.local.ufrag, ufrag);
    assert_eq!(client::attribute(&restarted, "ice-ufrag"), Some(transport.local.ufrag.as_str()));
    world.settle();
    assert_eq!(world.plane.tracks_of(alice).iter().map(|track| track.id).collect::<Vec<_>>(), tracks);
    assert_eq!(world.offers(BOB).len(), offers);
}

#[test]
fn a_refused_offer_leaves_the_connection_as_it_was() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    let commands = world.commands.len();
    for sdp in ["", "v=0\r\n", &client::offer("abcd", &camera("s")[..1], &[])] {
        assert_eq!(world.error(ALICE, "offer", json!({"desc": {"type": "offer", "sdp": sdp}})), -32003, "{sdp:?}");
    }
    assert_eq!(world.commands.len(), commands);
    offer(&mut world, "abcd", &camera("alice-stream"), &[]);
}

#[test]
fn copies_of_a_stream_are_told_apart() {
    let mut world = World::new(Settings::default());
    world.join(ALICE, "room", "alice", &camera("same"));
    world.join(BOB, "room", "bob", &camera("same"));
    world.join(CAROL, "room", "carol", &camera("other"));
    world.settle();
    let gets = world.gets(CAROL);
    assert_eq!(gets[..2], ["same same-audio", "same same-video"], "the first one's ids are kept");
    let (audio, video) = (gets[2].split_once(' ').expect("msid"), gets[3].split_once(' ').expect("msid"));
    assert!(audio.0 != "same" && audio.0.starts_with("same-") && audio.0.len() <= 64, "{audio:?}");
    assert_eq!(audio.0, video.0, "one stream to one stream");
    assert!(audio.1 != "same-audio" && video.1 != "same-video");
    world.leave(ALICE);
    world.settle();
    assert_eq!(world.gets(CAROL), gets[2..], "names do not change while they are shown");
}

#[test]
fn tracks_without_a_stream_are_shown_in_one_of_their_own() {
    let mut world = World::new(Settings::default());
    let media = [Media::Channels, Media::Audio("-".to_owned(), "t1".to_owned())];
    world.join(ALICE, "room", "alice", &media);
    world.join(BOB, "room", "bob", &media);
    world.join(CAROL, "room", "carol", &[Media::Channels]);
    world.settle();
    let gets = world.gets(CAROL);
    assert!(gets.iter().all(|msid| msid.starts_with("peer-")) && gets[0] != gets[1], "{gets:?}");
}

#[test]
fn a_publisher_connection_that_ended_takes_its_tracks_and_may_be_made_anew() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    world.joined(BOB, "bob");
    let old = world.transport(ALICE, Side::Publisher);
    world.close(old);
    assert_eq!(world.heard(ALICE, "iceconnectionstate"), [json!({"target": 0, "state": "closed"})]);
    assert!(world.gets(BOB).is_empty());
    world.settle();
    assert!(client::msids(world.offers(BOB).last().expect("an offer")).is_empty());
    let try_again = |world: &mut World, sdp: String| {
        let reply = world.request(ALICE, "offer", json!({"desc": {"type": "offer", "sdp": sdp}}));
        reply["error"].clone()
    };
    let again = client::offer("abcd", &camera("alice-stream"), &[]);
    let restarted = client::offer("next", &camera("alice-stream"), &[]);
    let no_session = again.replace(client::SESSION, "7");
    for sdp in [again, restarted.clone(), no_session] {
        let error = try_again(&mut world, sdp);
        assert_eq!(error["code"], -32004, "of the connection that has ended: {error}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("new RTCPeerConnection")), "{error}");
    }
    assert_eq!(try_again(&mut world, restarted.replace(client::SESSION, "7")), Value::Null, "another connection");
    world.settle();
    assert_eq!(world.gets(BOB).len(), 2);
    assert_ne!(world.transport(ALICE, Side::Publisher), old);
}

#[test]
fn chromiums_own_offers_lead_through_a_connections_life() {
    macro_rules! captured {
        ($name:literal) => {
            include_str!(concat!("../../sdp/testdata/chromium_renegotiate_", $name, ".sdp"))
        };
    }
    let mut world = World::new(Settings::default());
    world.join(BOB, "room", "bob", &[Media::Channels]);
    let first = json!({"type": "offer", "sdp": captured!("2_add")});
    let reply = world.request(ALICE, "join", json!({"sid": "room", "uid": "alice", "offer": first}));
    assert_eq!(reply["result"]["type"], "answer", "{reply}");
    world.settle();
    assert_eq!(world.gets(BOB).len(), 2);
    let audio = "a76da5a3-c21b-4d87-b66f-2108aa654257";
    let table: [(&str, &[&str], u32); 4] = [
        (captured!("3_stop"), &[audio], 0),
        (captured!("4_reuse"), &[audio, "ed6fe998-4f1d-4c6a-8992-00714c69742e"], 0),
        (captured!("5_inactive"), &["ed6fe998-4f1d-4c6a-8992-00714c69742e"], 0),
        (captured!("6_ice_restart"), &["ed6fe998-4f1d-4c6a-8992-00714c69742e"], 1),
    ];
    for (sdp, tracks, restarts) in table {
        let reply = world.request(ALICE, "offer", json!({"desc": {"type": "offer", "sdp": sdp}}));
        assert_eq!(reply["result"]["type"], "answer", "{reply}");
        world.settle();
        let mut gets = world.gets(BOB);
        gets.iter_mut().for_each(|msid| *msid = msid.split(' ').next_back().unwrap_or_default().to_owned());
        gets.sort();
        assert_eq!(gets, tracks, "after {} bytes of offer", sdp.len());
        assert_eq!(world.plane.transports[&world.transport(ALICE, Side::Publisher)].restarts, restarts);
    }
}

#[test]
fn every_captured_offer_can_join_and_be_seen() {
    let captured = [
        (include_str!("../../sdp/testdata/chromium_audio_video.sdp"), 2),
        (include_str!("../../sdp/testdata/chromium_channel_only.sdp"), 0),
        (include_str!("../../sdp/testdata/chromium_ion_sdk.sdp"), 2),
        (include_str!("../../sdp/testdata/chromium_simulcast.sdp"), 1),
    ];
    for (sdp, count) in captured {
        let mut world = World::new(Settings::default());
        world.join(BOB, "room", "bob", &[Media::Channels]);
        let offer = json!({"type": "offer", "sdp": sdp});
        world.request(ALICE, "join", json!({"sid": "room", "uid": "alice", "offer": offer}));
        world.settle();
        assert!(world.gets(BOB).len() >= count, "{count} of {:?}", world.gets(BOB));
    }
}

#[test]
fn offers_have_a_budget_of_their_own_since_each_may_concern_the_whole_room() {
    let mut world = World::new(Settings::default());
    world.joined(ALICE, "alice");
    let offer = |world: &mut World| {
        let sdp = client::offer("abcd", &camera("alice-stream"), &[]);
        world.request(ALICE, "offer", json!({"desc": {"type": "offer", "sdp": sdp}}))
    };
    for number in 0..20 {
        assert_eq!(offer(&mut world)["result"]["type"], "answer", "offer {number}");
    }
    assert_eq!(offer(&mut world)["error"]["code"], -32029);
    assert!(world.request(ALICE, "tracks", json!({}))["result"].is_object(), "other requests are served");
    world.pass(Duration::from_secs(1));
    assert_eq!(offer(&mut world)["result"]["type"], "answer");
}
