//! Tokens (RFC 7635): who comes by one that an authorization server has made, for how long, and who does not.

use std::time::Duration;

use ringmain_shared::DropReason;
use ringmain_shared::turn::{
    PasswordAlgorithms, ThirdParty, TokenSecret, TurnCommand, TurnCredential, TurnEnd, TurnEvent, TurnSecret, TurnSpec,
    TurnTokenKey, TurnTransport,
};

use super::world::*;
use crate::packet::stun::{Message, attribute, method};
use crate::turn::{AccessToken, Client, MacKey, TokenCipher};

const SERVER: &str = "turn.example";

fn secret(kid: &str) -> TokenSecret {
    match kid {
        "north" => TokenSecret::Aes256Gcm([1; 32]),
        "union" => TokenSecret::Aes128Gcm([2; 16]),
        _ => TokenSecret::Aes256Gcm([3; 32]),
    }
}

fn spec_with(kids: &[&str]) -> TurnSpec {
    let key = |kid: &&str| TurnTokenKey { kid: (*kid).into(), secret: secret(kid), expires: None };
    let keys = kids.iter().map(key).collect();
    TurnSpec { third_party: Some(ThirdParty { server_name: SERVER.into(), keys }), ..spec() }
}

fn world() -> World {
    World::new(spec_with(&["north", "union"]))
}

/// A token as it may be, unless it is changed.
struct Recipe<'a> {
    kid: &'static str,
    server: &'a str,
    key: Vec<u8>,
    /// Seconds since it was made.
    age: i64,
    lifetime: u64,
}

fn recipe(number: u8) -> Recipe<'static> {
    Recipe { kid: "north", server: SERVER, key: vec![number; 20], age: 0, lifetime: 1800 }
}

impl Recipe<'_> {
    fn token(&self, world: &World) -> Vec<u8> {
        let unix = UNIX.checked_add_signed(world.now.as_millis() as i64 / 1000 - self.age).unwrap();
        let (timestamp, lifetime) = (Duration::from_secs(unix), Duration::from_secs(self.lifetime));
        let token = AccessToken { mac_key: MacKey::new(&self.key).unwrap(), timestamp, lifetime };
        TokenCipher::new(&secret(self.kid)).seal(self.server, &token, [self.key[0]; 12])
    }

    fn bearer(&self, world: &World) -> Option<Bearer> {
        Some(Bearer { token: Some(self.token(world)), key: self.key.clone() })
    }

    fn caller(&self, world: &World, number: u16) -> Caller {
        Caller { bearer: self.bearer(world), ..Caller::new(number, self.kid) }
    }
}

#[test]
fn a_challenge_names_the_server_and_a_token_is_taken() {
    for kid in ["north", "union"] {
        for proof in [Proof::Md5, Proof::Sha256] {
            let mut world = world();
            let mut caller = Caller { proof, ..Recipe { kid, ..recipe(7) }.caller(&world, 1) };
            let request = raw(method::ALLOCATE, world.transaction(), &[udp()]);
            world.say(caller.client, &request).unwrap();
            let (_, challenge) = world.take().pop().unwrap();
            let challenge = Message::parse(&challenge).unwrap();
            assert_eq!(challenge.error_code(), Some(401));
            assert_eq!(challenge.attribute(attribute::THIRD_PARTY_AUTHORIZATION), Some(SERVER.as_bytes()));
            let answer = caller.allocate(&mut world);
            assert_eq!((answer.code(), answer.lifetime()), (0, 600), "{kid} {proof:?}");
            assert!(matches!(&world.events()[..], [TurnEvent::Opened(row)] if row.user == format!("oauth:{kid}")));
            // From here on without the token, until it is refreshed.
            assert_eq!(caller.permit(&mut world, &["8.8.8.8:9"]), 0);
            assert_eq!(caller.bind(&mut world, 0x4000, "8.8.8.8:9"), 0);
            assert_eq!(caller.refresh(&mut world, 600).code(), 0);
            assert_eq!(caller.refresh(&mut world, 0).code(), 0);
        }
    }
}

#[test]
fn users_of_passwords_come_as_before() {
    let mut world = world();
    for proof in [Proof::Md5, Proof::Sha256, Proof::Algorithm, Proof::Hash] {
        let mut alice = Caller { proof, ..Caller::new(1, "alice") };
        // The offer of algorithms may cost more than the first request pays for.
        alice.client = stream_client(1);
        assert_eq!((alice.allocate(&mut world).code(), alice.refresh(&mut world, 0).code()), (0, 0), "{proof:?}");
    }
}

#[test]
fn coturns_clients_prove_themselves_with_the_first_sixteen_bytes() {
    let mut world = world();
    let mut caller = Recipe { key: (0..20).collect(), ..recipe(7) }.caller(&world, 1);
    caller.bearer.as_mut().unwrap().key.truncate(16);
    assert_eq!(caller.allocate(&mut world).code(), 0);
    assert_eq!(caller.permit(&mut world, &["8.8.8.8:9"]), 0);
    assert_eq!(caller.refresh(&mut world, 600).code(), 0);
    // Not of longer keys, of which it would be a part that nobody speaks of.
    let mut caller = Recipe { key: (0..32).collect(), ..recipe(7) }.caller(&world, 2);
    caller.bearer.as_mut().unwrap().key.truncate(16);
    assert_eq!(caller.allocate(&mut world).code(), 401);
}

#[test]
fn an_allocation_ends_with_its_token_and_goes_on_with_the_next() {
    let mut world = world();
    let short = |number| Recipe { lifetime: 100, ..recipe(number) };
    let mut caller = short(1).caller(&world, 1);
    let mut other = short(2).caller(&world, 2);
    for caller in [&mut caller, &mut other] {
        let answer = caller.ask(&mut world, method::ALLOCATE, &[udp(), lifetime(3600)]);
        assert_eq!((answer.code(), answer.lifetime()), (0, 100));
    }
    world.wait(Duration::from_secs(60));
    let answer = caller.refresh(&mut world, 3600);
    assert_eq!((answer.code(), answer.lifetime()), (0, 45), "RFC 7635 §9: lifetime + Delta - age");
    let old = caller.clone();
    caller.bearer = recipe(3).bearer(&world);
    let answer = caller.refresh(&mut world, 3600);
    assert_eq!((answer.code(), answer.lifetime()), (0, 1800));
    assert_eq!(caller.permit(&mut world, &["8.8.8.8:9"]), 0);
    assert_eq!(old.clone().permit(&mut world, &["8.8.8.8:9"]), 401, "that key is no more");
    world.events();
    world.wait(Duration::from_secs(60));
    assert!(
        matches!(&world.events()[..], [TurnEvent::Ended { allocation, reason: TurnEnd::Expired }] if allocation.client == other.client.path.remote)
    );
    assert_eq!(old.clone().refresh(&mut world, 600).code(), 401, "that token is over");
}

#[test]
fn a_refresh_that_comes_late_or_once_more_does_not_bring_an_older_token_back() {
    let mut world = world();
    let mut old = Recipe { lifetime: 1000, age: 10, ..recipe(1) }.caller(&world, 1);
    assert_eq!(old.allocate(&mut world).code(), 0);
    let mut caller = Caller { bearer: recipe(2).bearer(&world), ..old.clone() };
    assert_eq!(caller.refresh(&mut world, 1800).lifetime(), 1800);
    assert_eq!(old.refresh(&mut world, 700).lifetime(), 700, "as its token says");
    assert_eq!(old.permit(&mut world, &["8.8.8.8:9"]), 401, "its key is not the allocation's");
    assert_eq!(caller.permit(&mut world, &["8.8.8.8:9"]), 0);
    assert_eq!(world.turn.held_until(caller.client.path), Some(world.now + Duration::from_secs(1800)));
    // Another token of the same moment is the next one.
    let mut equal = Caller { bearer: recipe(3).bearer(&world), ..caller.clone() };
    assert_eq!(equal.refresh(&mut world, 1800).lifetime(), 1800);
    assert_eq!((equal.permit(&mut world, &["8.8.8.8:9"]), caller.permit(&mut world, &["8.8.8.8:9"])), (0, 401));
    let mut caller = equal;
    assert_eq!(caller.refresh(&mut world, 600).lifetime(), 600, "the same one once more");
    assert_eq!(world.turn.held_until(caller.client.path), Some(world.now + Duration::from_secs(600)));
}

#[test]
fn a_refresh_without_the_token_does_not_outlive_it() {
    let mut world = world();
    let mut caller = Recipe { lifetime: 100, ..recipe(1) }.caller(&world, 1);
    assert_eq!(caller.allocate(&mut world).lifetime(), 100);
    world.wait(Duration::from_secs(50));
    caller.bearer.as_mut().unwrap().token = None;
    let answer = caller.refresh(&mut world, 3600);
    assert_eq!((answer.code(), answer.lifetime()), (0, 50));
    world.wait(Duration::from_secs(51));
    assert_eq!((caller.refresh(&mut world, 3600).code(), world.turn.stats().allocations), (401, 0));
}

#[test]
fn the_next_token_may_be_of_another_key_and_the_first_one_s_quota_stays_used() {
    let mut world = world();
    world.now = world.now + Duration::from_secs(1);
    let recipe = |number| Recipe { age: i64::from(number == 1), ..recipe(number) };
    let mut caller = recipe(1).caller(&world, 1);
    assert_eq!(caller.allocate(&mut world).code(), 0);
    let rolled = Recipe { kid: "union", ..recipe(2) }.caller(&world, 1);
    caller = Caller { nonce: caller.nonce, ..rolled };
    assert_eq!(caller.refresh(&mut world, 600).code(), 0);
    assert_eq!(caller.permit(&mut world, &["8.8.8.8:9"]), 0);
    assert_eq!(world.turn.accounts.len(), 1);
    for number in 3..=6 {
        let code = recipe(1).caller(&world, number).allocate(&mut world).code();
        assert_eq!(code, if number < 6 { 0 } else { 486 }, "{number}: one of four was made before");
    }
    for number in 7..=10 {
        let mut other = Recipe { kid: "union", ..recipe(2) }.caller(&world, number);
        assert_eq!(other.allocate(&mut world).code(), 0);
        assert_eq!(other.refresh(&mut world, 0).code(), 0);
    }
    for number in 3..=5 {
        assert_eq!(recipe(1).caller(&world, number).refresh(&mut world, 0).code(), 0);
    }
    assert_eq!(caller.refresh(&mut world, 0).code(), 0);
    assert_eq!(world.turn.accounts.len(), 0);
}

#[test]
fn a_token_has_quotas_of_its_own() {
    let mut world = world();
    for number in 1..=6 {
        let code = recipe(1).caller(&world, number).allocate(&mut world).code();
        assert_eq!(code, if number <= 4 { 0 } else { 486 }, "{number}");
    }
    // Nobody else is locked out: not another bearer of the same kid, not the same key in a token of another kid.
    assert_eq!(recipe(2).caller(&world, 7).allocate(&mut world).code(), 0);
    assert_eq!(Recipe { kid: "union", ..recipe(1) }.caller(&world, 8).allocate(&mut world).code(), 0);
    // Another token with the same key is the same bearer's.
    let again = Recipe { age: 1, lifetime: 900, ..recipe(1) };
    assert_eq!(again.caller(&world, 9).allocate(&mut world).code(), 486);
    assert_eq!(world.turn.accounts.len(), 3);
}

#[test]
fn a_kid_and_users_of_its_name_are_strangers_to_each_other() {
    let mut spec = spec_with(&["north"]);
    spec.users.push(credential("north", "north"));
    let mut world = World::new(spec);
    for number in 1..=4 {
        assert_eq!(recipe(1).caller(&world, number).allocate(&mut world).code(), 0);
    }
    let mut user = Caller::new(5, "north");
    assert_eq!(user.allocate(&mut world).code(), 0);
    let username = format!("{}:north", UNIX + 5000);
    let password = crate::turn::timed_password(&username, &TurnSecret(b"north".to_vec()));
    let mut timed = Caller { username, password, ..Caller::new(6, "") };
    assert_eq!(timed.allocate(&mut world).code(), 0, "the configured user and this one are one");
    let users = world.events().into_iter().filter_map(|event| match event {
        TurnEvent::Opened(row) => Some(row.user),
        _ => None,
    });
    assert_eq!(users.collect::<Vec<_>>(), [&["oauth:north"; 4][..], &["north"; 2]].concat());
    assert_eq!((world.turn.accounts.held("north"), world.turn.ledger.held("north")), (2, 2));
}

#[test]
fn refused_tokens_are_counted_by_what_is_wrong_with_them() {
    let mut world = world();
    let refused = [
        Recipe { age: 4000, ..recipe(1) },
        Recipe { age: -4000, ..recipe(1) },
        Recipe { server: "turn.example.org", ..recipe(1) },
        Recipe { kid: "west", ..recipe(1) },
        Recipe { kid: "west", ..recipe(1) },
        Recipe { kid: "west", ..recipe(1) },
    ];
    for (number, recipe) in (1..).zip(refused) {
        world.now = world.now + Duration::from_secs(1);
        assert_eq!(recipe.caller(&world, number).allocate(&mut world).code(), 401);
    }
    let stats = world.turn.stats();
    assert_eq!((stats.tokens_over, stats.tokens_not_ours, stats.tokens_of_unknown_keys), (2, 1, 3));
}

#[test]
fn what_is_wrong_with_a_token_is_answered_by_a_challenge_and_leaves_nothing() {
    let mut world = world();
    let mut good = recipe(1).caller(&world, 1);
    good.learn(&mut world);
    let bearer = |recipe: Recipe<'_>| Caller { bearer: recipe.bearer(&world), ..good.clone() };
    let right = recipe(1).token(&world);
    let token =
        |token: Vec<u8>| Caller { bearer: Some(Bearer { token: Some(token), key: vec![1; 20] }), ..good.clone() };
    let flipped = |bit: usize| {
        let mut token = right.clone();
        token[bit / 8] ^= 1 << (bit % 8);
        token
    };
    let mut wrong: Vec<(String, Caller)> = vec![
        ("over".into(), bearer(Recipe { age: 1805, ..recipe(1) })),
        ("of the future".into(), bearer(Recipe { age: -1900, ..recipe(1) })),
        ("without a lifetime".into(), bearer(Recipe { lifetime: 0, ..recipe(1) })),
        ("for another server".into(), bearer(Recipe { server: "turn.example.org", ..recipe(1) })),
        ("of another kid".into(), bearer(Recipe { kid: "union", ..recipe(1) })),
        ("replayed for another kid".into(), Caller { username: "union".into(), ..good.clone() }),
        ("of nobody".into(), Caller { username: "west".into(), ..bearer(Recipe { kid: "west", ..recipe(1) }) }),
        ("with a user's name".into(), Caller { username: "alice".into(), ..good.clone() }),
        ("empty".into(), token(Vec::new())),
        ("of zeros".into(), token(vec![0; 64])),
        ("long".into(), token(vec![0; 1000])),
    ];
    let mut stolen = good.clone();
    stolen.bearer.as_mut().unwrap().key = vec![9; 20];
    wrong.push(("stolen without its key".into(), stolen));
    wrong.extend((0..right.len() * 8).map(|bit| (format!("bit {bit}"), token(flipped(bit)))));
    wrong.extend((0..right.len()).map(|cut| (format!("{cut} bytes"), token(right[..cut].to_vec()))));
    for (what, mut caller) in wrong {
        // Nobody runs out of answers here.
        world.now = world.now + Duration::from_millis(110);
        let id = world.transaction();
        let answer = caller.ask_as(&mut world, method::ALLOCATE, id, &[udp()]);
        assert_eq!(answer.code(), 401, "{what}");
        assert!(answer.message().attribute(attribute::THIRD_PARTY_AUTHORIZATION).is_some());
        assert_eq!((world.turn.stats().allocations, world.turn.accounts.len()), (0, 0), "{what}");
    }
    assert_eq!(good.allocate(&mut world).code(), 0, "and this is right");
    // A nonce that is not ours is found out before the token is looked at.
    let mut stale = Caller { nonce: b"00000000000".to_vec(), ..recipe(2).caller(&world, 2) };
    assert_eq!(stale.allocate(&mut world).code(), 438);
}

#[test]
fn clocks_may_differ_by_a_little() {
    for (age, expected) in [(-5, 600), (-3, 600), (1803, 2)] {
        let mut world = world();
        let answer = Recipe { age, ..recipe(1) }.caller(&world, 1).allocate(&mut world);
        assert_eq!((answer.code(), answer.lifetime()), (0, expected), "{age}");
    }
}

#[test]
fn a_clock_that_is_set_right_is_gone_by() {
    for behind in [7200, -7200] {
        let mut world = world();
        let guest = TurnCredential { expires: Some(UNIX + 1060), ..credential("guest", "room") };
        world.turn.handle_command(TurnCommand::Add(guest), world.now);
        let codes = |world: &mut World, number: u16| {
            let right = Recipe { age: -behind, ..recipe(1) }.caller(world, number).allocate(world).code();
            let wrong = recipe(2).caller(world, number + 1).allocate(world).code();
            // A minute from now, by the right clock.
            let username = format!("{}:carol", UNIX.checked_add_signed(1060 + behind).unwrap());
            let password = crate::turn::timed_password(&username, &TurnSecret(b"north".to_vec()));
            let mut timed = Caller { username, password, ..Caller::new(number + 2, "") };
            let timed = timed.allocate(world).code();
            [right, wrong, timed, Caller::new(number + 3, "guest").allocate(world).code()]
        };
        assert_eq!(codes(&mut world, 1), [401, 0, if behind > 0 { 0 } else { 401 }, 0]);
        let unix_nanos_at_start = UNIX.checked_add_signed(behind).unwrap() * 1_000_000_000;
        world.turn.handle_command(TurnCommand::Clock { unix_nanos_at_start }, world.now);
        world.wait(Duration::from_secs(1));
        // Control goes by its own clock.
        assert_eq!(codes(&mut world, 11), [0, 401, 0, 0], "{behind}");
    }
}

#[test]
fn a_token_that_nobody_asked_for_is_an_unknown_attribute() {
    let mut world = World::new(spec());
    let mut caller = recipe(1).caller(&world, 1);
    let answer = caller.allocate(&mut world);
    assert_eq!(answer.code(), 420);
    assert_eq!(answer.message().attribute(attribute::UNKNOWN_ATTRIBUTES), Some(&[0, 0x1b][..]));
    assert_eq!(world.turn.stats().allocations, 0);
}

#[test]
fn tokens_and_passwords_do_not_open_each_other_s_allocations() {
    let mut world = world();
    let mut alice = Caller::new(1, "alice");
    assert_eq!(alice.allocate(&mut world).code(), 0);
    let mut bearer = Caller { nonce: alice.nonce.clone(), ..recipe(1).caller(&world, 1) };
    assert_eq!(bearer.refresh(&mut world, 0).code(), 441);
    assert_eq!(bearer.permit(&mut world, &["8.8.8.8:9"]), 401, "there is no such user");
    assert_eq!(bearer.allocate(&mut world).code(), 437);
    let mut bearer = recipe(2).caller(&world, 2);
    assert_eq!(bearer.allocate(&mut world).code(), 0);
    let mut alice = Caller { client: bearer.client, nonce: bearer.nonce.clone(), ..alice };
    assert_eq!(alice.refresh(&mut world, 0).code(), 441);
    assert_eq!(alice.permit(&mut world, &["8.8.8.8:9"]), 441);
    assert_eq!(world.turn.stats().allocations, 2);
}

#[test]
fn an_allocation_moves_for_its_own_token_only() {
    let ticket = |ticket: &[u8]| (attribute::MOBILITY_TICKET, ticket.to_vec());
    let mut world = world();
    let mut caller = recipe(1).caller(&world, 1);
    let answer = caller.ask(&mut world, method::ALLOCATE, &[udp(), ticket(&[])]);
    let held = answer.message().attribute(attribute::MOBILITY_TICKET).unwrap().to_vec();
    // Somebody with a right to be here has seen the ticket.
    let mut thief = recipe(2).caller(&world, 2);
    assert_eq!(thief.ask(&mut world, method::REFRESH, &[ticket(&held), lifetime(600)]).code(), 441);
    let mut moved = recipe(1).caller(&world, 3);
    assert_eq!(moved.ask(&mut world, method::REFRESH, &[ticket(&held), lifetime(600)]).code(), 0);
    assert_eq!(moved.permit(&mut world, &["8.8.8.8:9"]), 0);
}

#[test]
fn a_key_that_is_taken_away_or_is_another_one_takes_along_what_its_tokens_hold() {
    let another = || {
        let mut spec = spec_with(&["north", "union"]);
        spec.third_party.as_mut().unwrap().keys[0].secret = secret("west");
        spec
    };
    for (without, brings_token) in
        [(spec_with(&["union"]), false), (spec_with(&["union"]), true), (another(), false), (another(), true)]
    {
        let mut world = world();
        // A token that says 136 years.
        let mut caller = Recipe { lifetime: u32::MAX.into(), ..recipe(1) }.caller(&world, 1);
        let mut other = Recipe { kid: "union", ..recipe(2) }.caller(&world, 2);
        let mut alice = Caller::new(3, "alice");
        for caller in [&mut caller, &mut other, &mut alice] {
            assert_eq!(caller.allocate(&mut world).code(), 0);
        }
        world.events();
        world.turn.handle_command(TurnCommand::Configure(Box::new(without)), world.now);
        let [TurnEvent::Ended { allocation, reason: TurnEnd::Revoked }] = &world.events()[..] else { panic!("one") };
        assert_eq!(allocation.client, caller.client.path.remote);
        if !brings_token {
            caller.bearer.as_mut().unwrap().token = None;
        }
        assert_eq!(caller.refresh(&mut world, 600).code(), 401, "with a token: {brings_token}");
        assert_eq!(caller.allocate(&mut world).code(), 401);
        assert_eq!((other.refresh(&mut world, 600).code(), alice.refresh(&mut world, 600).code()), (0, 0));
    }
    // Without any key, nobody comes by tokens.
    let mut world = world();
    assert_eq!(recipe(1).caller(&world, 1).allocate(&mut world).code(), 0);
    world.turn.handle_command(TurnCommand::Configure(Box::new(spec())), world.now);
    assert_eq!(world.turn.stats().allocations, 0);
}

#[test]
fn nothing_outlives_the_key_that_its_token_was_sealed_with() {
    let ending = |after: u64| {
        let mut spec = spec_with(&["north"]);
        spec.third_party.as_mut().unwrap().keys[0].expires = Some(UNIX + 1000 + after);
        spec
    };
    for brings_token in [false, true] {
        // The clock begins at 1000 seconds.
        let mut world = World::new(ending(900));
        let mut caller = Recipe { lifetime: 86_400, ..recipe(1) }.caller(&world, 1);
        let answer = caller.ask(&mut world, method::ALLOCATE, &[udp(), lifetime(3600)]);
        assert_eq!((answer.code(), answer.lifetime()), (0, 900));
        if !brings_token {
            caller.bearer.as_mut().unwrap().token = None;
        }
        world.wait(Duration::from_secs(300));
        assert_eq!(caller.refresh(&mut world, 3600).lifetime(), 600);
        // It is to end so late that no clock of ours counts as far, and then earlier.
        let mut later = ending(0);
        later.third_party.as_mut().unwrap().keys[0].expires = Some(u64::MAX);
        world.turn.handle_command(TurnCommand::Configure(Box::new(later)), world.now);
        assert_eq!(world.turn.held_until(caller.client.path), Some(world.now + Duration::from_secs(600)));
        world.turn.handle_command(TurnCommand::Configure(Box::new(ending(400))), world.now);
        assert_eq!(caller.refresh(&mut world, 3600).lifetime(), 100);
        world.events();
        world.wait(Duration::from_secs(100));
        assert!(matches!(&world.events()[..], [TurnEvent::Ended { reason: TurnEnd::Expired, .. }]));
        assert_eq!(caller.refresh(&mut world, 600).code(), 401);
        assert_eq!(caller.refresh(&mut world, 0).code(), 401);
    }
}

#[test]
fn a_token_of_many_years_holds_for_a_day() {
    let mut world = world();
    let mut caller = Recipe { lifetime: u32::MAX.into(), ..recipe(1) }.caller(&world, 1);
    assert_eq!(caller.allocate(&mut world).code(), 0);
    for _ in 0..48 {
        caller.learn(&mut world);
        assert_eq!(caller.refresh(&mut world, 3600).code(), 0);
        world.wait(Duration::from_secs(1801));
    }
    caller.learn(&mut world);
    assert_eq!((caller.refresh(&mut world, 3600).code(), world.turn.stats().allocations), (401, 0));
}

#[test]
fn the_name_of_the_server_makes_nobody_a_reflector() {
    // Beside a realm of four bytes there is room for 28 in answers to the shortest Allocate.
    for (name, is_told) in [(1, true), (12, true), (28, true), (29, false), (127, false)] {
        let mut spec = spec_with(&["north"]);
        spec.third_party.as_mut().unwrap().server_name = "n".repeat(name);
        spec.password_algorithms = PasswordAlgorithms::WhenCheap;
        let mut world = World::new(spec);
        let first = raw(method::ALLOCATE, world.transaction(), &[udp()]);
        let plain = [method::ALLOCATE, method::REFRESH].into_iter().flat_map(|it| [(it, 0), (it, 60), (it, 200)]);
        let plain: Vec<Vec<u8>> = plain
            .map(|(method, size)| raw(method, world.transaction(), &[(attribute::SOFTWARE, vec![b'x'; size])]))
            .collect();
        for request in plain.iter().chain([&first]) {
            world.now = world.now + Duration::from_secs(1);
            match world.say(client(1), request) {
                Ok(_) => {
                    let (_, reply) = world.take().pop().unwrap();
                    // A client's first request is answered anyway.
                    let tenths = if *request == first { 20 } else { 16 };
                    let (size, asked) = (reply.len() + 28, request.len() + 28);
                    assert!(size * 10 <= asked * tenths, "{size} for {asked}, name of {name}");
                    if *request == first {
                        let reply = Message::parse(&reply).unwrap();
                        let told = reply.attribute(attribute::THIRD_PARTY_AUTHORIZATION).map(<[u8]>::len);
                        assert_eq!((reply.error_code(), told), (Some(401), is_told.then_some(name)));
                    }
                }
                Err(reason) => assert!(reason == DropReason::TurnReplyBudget && *request != first),
            }
        }
        // A client that has a token comes all the same.
        assert_eq!(Recipe { server: &"n".repeat(name), ..recipe(1) }.caller(&world, 2).allocate(&mut world).code(), 0);
        // A client on a connection gets all of it.
        let proved = Client { transport: TurnTransport::Tcp, ..client(3) };
        let request = raw(method::REFRESH, world.transaction(), &[]);
        world.say(proved, &request).unwrap();
        let (_, reply) = world.take().pop().unwrap();
        let reply = Message::parse(&reply).unwrap();
        assert_eq!(reply.attribute(attribute::THIRD_PARTY_AUTHORIZATION).map(<[u8]>::len), Some(name));
    }
}
