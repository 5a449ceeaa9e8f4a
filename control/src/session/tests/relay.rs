//! Credentials for TURN: one for each connection, and no longer than it.

use ringmain_shared::turn::{TurnCommand, TurnCredential};

use super::*;
use crate::turn::Offer;

fn world() -> World {
    let offer = Offer {
        realm: "r".into(),
        urls: vec!["turn:192.0.2.1:3478?transport=udp".into()],
        lifetime: Duration::from_secs(600),
        unix_seconds: 1_000_000,
    };
    World::new(Settings { turn: Some(offer), ..Settings::default() })
}

impl World {
    fn turn_commands(&mut self) -> Vec<TurnCommand> {
        let all = std::mem::take(&mut self.commands).into_iter();
        all.filter_map(|command| if let Command::Turn(command) = command { Some(command) } else { None }).collect()
    }

    fn added(&mut self) -> TurnCredential {
        match &self.turn_commands()[..] {
            [TurnCommand::Add(credential)] => credential.clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_credential_is_lent_before_the_join_bound_by_it_and_revoked_with_the_connection() {
    let mut world = world();
    let lent = world.request(ALICE, "iceServers", Value::Null)["result"].clone();
    let server = &lent["iceServers"][0];
    let early = world.added();
    assert_eq!((server["username"].as_str(), early.bound), (Some(early.username.as_str()), None));
    assert_eq!(early.expires, Some(1_000_001 + 120), "who has not joined gets little time");

    let alice = world.joined(ALICE, "alice");
    let bound = world.added();
    assert_eq!((&bound.username, &bound.keys), (&early.username, &early.keys));
    assert_eq!(bound.bound.map(|bound| bound.peer), Some(alice));
    assert!(bound.expires > early.expires);

    // Asked again, the same lasts longer.
    world.pass(Duration::from_secs(300));
    let again = world.request(ALICE, "iceServers", Value::Null)["result"].clone();
    assert_eq!((&again["iceServers"], &again["ttl"]), (&lent["iceServers"], &json!(600)));
    assert!(world.added().expires >= bound.expires.map(|expires| expires + 299));

    world.rooms.handle_closed(ALICE, world.now);
    world.drain();
    assert_eq!(world.turn_commands(), [TurnCommand::Revoke { username: early.username }]);
}

#[test]
fn two_peers_have_nothing_in_common_and_the_replaced_one_loses_its_own() {
    let mut world = world();
    let lent = [ALICE, BOB].map(|who| world.request(who, "iceServers", Value::Null)["result"]["iceServers"][0].clone());
    assert!(lent[0]["username"] != lent[1]["username"] && lent[0]["credential"] != lent[1]["credential"]);
    world.joined(ALICE, "same");
    world.turn_commands();
    world.joined(BOB, "same");
    let revoked = TurnCommand::Revoke { username: lent[0]["username"].as_str().expect("a name").to_owned() };
    assert!(world.turn_commands().contains(&revoked), "4001 ends the first connection's credential at once");
}

#[test]
fn a_server_without_turn_lends_nothing() {
    let mut world = World::new(Settings::default());
    let lent = world.request(ALICE, "iceServers", Value::Null);
    assert_eq!(lent["result"], json!({"iceServers": []}));
    assert!(world.turn_commands().is_empty());
}
