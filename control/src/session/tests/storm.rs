//! Everything at once, by seed: the data plane's checks hold at every step, and nothing is left when all have gone.

use super::*;

#[test]
fn storms_of_joins_leaves_and_losses_leave_nothing_behind() {
    for seed in 1..=60 {
        let result = std::panic::catch_unwind(|| storm(seed));
        assert!(result.is_ok(), "the storm of seed {seed} failed; what failed is above");
    }
}

fn storm(seed: u64) {
    let settings = Settings {
        peers_per_room_max: 5,
        subscriptions_per_peer_max: 6,
        spread_after: 4,
        requests_per_second: 1_000_000,
        requests_burst: 1_000_000,
        offers_per_second: 1_000_000,
        offers_burst: 1_000_000,
        ..Settings::default()
    };
    let mut world = World::seeded(settings, seed);
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut next_connection = 100;
    let mut media: BTreeMap<ConnectionId, (Vec<Media>, String)> = BTreeMap::new();
    for step in 0..300 {
        let known: Vec<ConnectionId> = world.clients.keys().copied().collect();
        let someone = known.get(chance.below(known.len().max(1))).copied().unwrap_or(ALICE);
        let transports: Vec<TransportId> = world.plane.transports.keys().copied().collect();
        let transport = transports.get(chance.below(transports.len().max(1))).copied().unwrap_or(TransportId(1));
        match chance.below(16) {
            0..=3 => {
                let connection = ConnectionId(next_connection);
                next_connection += 1;
                let offered = some_media(&mut chance);
                let sdp = client::offer("abcd", &offered, &[]);
                let mut params = json!({
                    "sid": format!("room {}", chance.below(3)),
                    "uid": format!("uid {}", chance.below(8)),
                    "offer": {"type": "offer", "sdp": sdp},
                });
                let flag = ["NoPublish", "NoSubscribe", "NoAutoSubscribe", "x", "y", "z"][chance.below(6)];
                params["config"] = json!({flag: true});
                world.request(connection, "join", params);
                media.insert(connection, (offered, "abcd".to_owned()));
            }
            4 | 5 => world.leave(someone),
            6..=8 if world.clients.get(&someone).is_some_and(|client| client.closed.is_none()) => {
                world.answer_next(someone, [&[][..], &["1"], &["2"]][chance.below(3)]);
            }
            9 => {
                if let Some((offered, ufrag)) = media.get_mut(&someone) {
                    change(offered, &mut chance, step);
                    if chance.below(3) == 0 {
                        *ufrag = format!("frag{step}");
                    }
                    let sdp = client::offer(ufrag, offered, &[]);
                    world.request(someone, "offer", json!({"desc": {"type": "offer", "sdp": sdp}}));
                }
            }
            10 => {
                let method = ["subscribe", "unsubscribe"][chance.below(2)];
                let tracks = world.request(someone, "tracks", json!({}))["result"]["tracks"].clone();
                let named: Vec<Value> = tracks.as_array().into_iter().flatten().take(3).cloned().collect();
                world.request(someone, method, json!({"tracks": named}));
            }
            11 if !transports.is_empty() => world.close(transport),
            12 => {
                let states = [IceState::Checking, IceState::Connected, IceState::Disconnected, IceState::Failed];
                world.ice(transport, states[chance.below(4)]);
            }
            13 => {
                let text =
                    [r#"{"streamId":"s1","video":"low","audio":false}"#, r#"{"streamId":"s1","layers":["low"]}"#];
                world.event(Event::ApiMessage { transport, text: text[chance.below(2)].to_owned() });
            }
            14 => world.pass(Duration::from_secs(chance.below(12) as u64)),
            _ => world.pass(Duration::from_millis(chance.below(60) as u64)),
        }
        world.drain();
        assert_eq!(world.rooms.stats().transports, world.plane.transports.len());
        check_records(&world);
    }
    world.settle();
    check_complete(&world);
    for connection in world.clients.keys().copied().collect::<Vec<_>>() {
        world.leave(connection);
    }
    world.check_empty();
    world.pass(Duration::from_secs(100));
    assert_eq!(world.rooms.poll_timeout(), None);
}

/// What is written in two places says the same in both.
fn check_records(world: &World) {
    let mut pairs = 0;
    for (peer_id, peer) in &world.rooms.peers {
        let Some(subscriber) = &peer.subscriber else { continue };
        pairs += subscriber.by_track.len();
        for (track, subscription) in &subscriber.by_track {
            assert_eq!(subscriber.subscriptions[subscription].track, *track);
            assert!(world.rooms.tracks[track].subscribers.contains(peer_id));
            assert_eq!(world.rooms.subscriptions[subscription], *peer_id);
        }
    }
    assert_eq!(world.rooms.tracks.values().map(|track| track.subscribers.len()).sum::<usize>(), pairs);
    assert_eq!(world.rooms.subscriptions.len(), pairs);
}

/// When all is quiet, whoever takes everything has as much as it may have of what it did not turn down or refuse.
fn check_complete(world: &World) {
    for peer in world.rooms.peers.values() {
        let Some(subscriber) = &peer.subscriber else { continue };
        let others = world.rooms.rooms[&peer.room].tracks.iter().filter(|track| {
            let publisher = world.rooms.tracks[track].peer;
            world.rooms.peers[&publisher].connection != peer.connection && !subscriber.unwanted.contains(track)
        });
        if subscriber.auto {
            assert_eq!(subscriber.subscriptions.len(), others.count().min(6));
        }
    }
}

fn some_media(chance: &mut Chance) -> Vec<Media> {
    let stream = format!("s{}", chance.below(4));
    let mut media = client::camera(&stream);
    match chance.below(4) {
        0 => media.truncate(1),
        1 => media[2] = Media::Simulcast(stream.clone(), format!("{stream}-video")),
        2 => media.push(Media::Video("-".to_owned(), format!("screen{}", chance.below(3)))),
        _ => {}
    }
    media
}

/// Stops, renames or adds a track.
fn change(media: &mut Vec<Media>, chance: &mut Chance, step: usize) {
    let index = chance.below(media.len());
    match (&media[index], chance.below(3)) {
        (Media::Audio(stream, _), 0) => media[index] = Media::Audio(stream.clone(), format!("renamed{step}")),
        (Media::Video(stream, _), 0) => media[index] = Media::Video(format!("{stream}x"), format!("renamed{step}")),
        (Media::Audio(..), 1) if index > 0 => media[index] = Media::Ended("audio"),
        (Media::Video(..) | Media::Simulcast(..), 1) => media[index] = Media::Ended("video"),
        _ if media.len() < 8 => media.push(Media::Audio("s1".to_owned(), format!("added{step}"))),
        _ => {}
    }
}
