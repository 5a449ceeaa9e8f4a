//! Who asks: RFC 8489 §9.2, with its test vectors; what strangers get (nothing that is kept, and little that is sent).

use std::time::Duration;

use ringmain_shared::DropReason;
use ringmain_shared::turn::{
    PasswordAlgorithms, TurnCommand, TurnCredential, TurnEnd, TurnEvent, TurnSecret, TurnTransport,
};

use super::world::*;
use crate::io::Link;
use crate::packet::stun::{IntegrityKey, IntegrityKey256, Message, attribute, method};
use crate::turn::{derive_keys, timed_password};

/// RFC 5769 §2.4.
const LONG_TERM: &[u8] = b"\x00\x01\x00\x60\x21\x12\xa4\x42\x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e\
    \x00\x06\x00\x12\xe3\x83\x9e\xe3\x83\x88\xe3\x83\xaa\xe3\x83\x83\xe3\x82\xaf\xe3\x82\xb9\x00\x00\
    \x00\x15\x00\x1cf//499k954d6OL34oL9FSTvy64sA\x00\x14\x00\x0bexample.org\x00\
    \x00\x08\x00\x14\xf6\x70\x24\x65\x6d\xd6\x4a\x3e\x02\xb8\xe0\x71\x2e\x85\xc9\xa2\x8c\xa8\x96\x66";
/// RFC 8489 §B.1, with the length and the tag that its errata correct.
const LONG_TERM_SHA256: &[u8] = b"\x00\x01\x00\x90\x21\x12\xa4\x42\x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e\
    \x00\x1e\x00\x20\x4a\x3c\xf3\x8f\xef\x69\x92\xbd\xa9\x52\xc6\x78\x04\x17\xda\x0f\x24\x81\x94\x15\x56\x9e\x60\xb2\x05\xc4\x6e\x41\x40\x7f\x17\x04\
    \x00\x15\x00\x29obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA\x00\x00\x00\
    \x00\x14\x00\x0bexample.org\x00\x00\x1d\x00\x04\x00\x02\x00\x00\
    \x00\x1c\x00\x20\xb5\xc7\xbf\x00\x5b\x6c\x52\xa2\x1c\x51\xc5\xe8\x92\xf8\x19\x24\x13\x62\x96\xcb\x92\x7c\x43\x14\x93\x09\x27\x8c\xc6\x51\x8e\x65";

#[test]
fn the_long_term_vectors_are_right_under_our_keys() {
    let keys = derive_keys("マトリックス", "example.org", "TheMatrIX");
    let message = Message::parse(LONG_TERM).unwrap();
    assert_eq!(message.verify_integrity(&IntegrityKey::new(&keys.md5)), Ok(()));
    let message = Message::parse(LONG_TERM_SHA256).unwrap();
    assert_eq!(message.verify_integrity_sha256(&IntegrityKey256::new(&keys.sha256)), Ok(()));
    assert!(message.verify_integrity_sha256(&IntegrityKey256::new(&keys.md5)).is_err());
    for bit in 0..LONG_TERM_SHA256.len() * 8 {
        let mut changed = LONG_TERM_SHA256.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let key = IntegrityKey256::new(&keys.sha256);
        assert!(
            Message::parse(&changed).is_ok_and(|message| message.verify_integrity_sha256(&key).is_err())
                || Message::parse(&changed).is_err()
        );
    }
}

#[test]
fn every_kind_of_proof_is_taken_and_answered_in_kind() {
    for proof in [Proof::Md5, Proof::Sha256, Proof::Algorithm, Proof::Hash] {
        for fingerprint in [false, true] {
            let mut world = World::new(spec());
            let mut alice = Caller { proof, fingerprint, ..Caller::new(1, "alice") };
            let answer = alice.allocate(&mut world);
            assert_eq!(answer.code(), 0, "{proof:?}");
            let message = answer.message();
            assert_eq!(message.has_integrity(), proof == Proof::Md5);
            assert_eq!(message.xor_mapped_address(), Some(answer.client.path.remote));
            assert_eq!(answer.relayed().ip().to_string(), RELAY_V4);
            assert_eq!(answer.lifetime(), 600);
            assert!(matches!(&world.events()[..], [TurnEvent::Opened(row)] if row.user == "alice"));
        }
    }
}

#[test]
fn wrong_proofs_are_challenged_and_nothing_comes_of_them() {
    let mut world = World::new(spec());
    let mut good = Caller::new(1, "alice");
    good.learn(&mut world);
    let mallory = Caller { username: "mallory".into(), ..good.clone() };
    let wrong = Caller { password: "guess".into(), ..good.clone() };
    let as_bob = Caller { username: "bob".into(), password: "alice's".into(), ..good.clone() };
    let old_nonce = Caller { nonce: b"00000000000".to_vec(), ..good.clone() };
    let no_nonce = Caller { nonce: Vec::new(), ..good.clone() };
    // The choice of an algorithm without its offer having been repeated is a downgrade.
    for (mut caller, code) in [(mallory, 401), (wrong, 401), (as_bob, 401), (old_nonce, 438), (no_nonce, 438)] {
        let id = world.transaction();
        let answer = caller.ask_as(&mut world, method::ALLOCATE, id, &[udp()]);
        assert_eq!(answer.code(), code);
        let message = answer.message();
        assert!(message.attribute(attribute::NONCE).is_some() && message.attribute(attribute::REALM).is_some());
        assert_eq!(world.turn.stats().allocations, 0);
    }
    // Without a name, a realm or a nonce the request makes no sense.
    for missing in [attribute::USERNAME, attribute::REALM, attribute::NONCE] {
        let id = world.transaction();
        let whole = good.request(method::ALLOCATE, id, &[udp()]);
        let message = Message::parse(&whole).unwrap();
        let rest: Vec<Attribute> = message
            .attributes()
            .filter(|(this, _)| *this != missing)
            .map(|(this, value)| (this, value.to_vec()))
            .collect();
        let mut bytes = raw(method::ALLOCATE, id, &rest);
        let tag = [&attribute::MESSAGE_INTEGRITY.to_be_bytes()[..], &[0, 20], &[0; 20]].concat();
        bytes.extend(tag);
        let length = (bytes.len() - 20) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        world.now = world.now + Duration::from_secs(1);
        world.say(good.client, &bytes).unwrap();
        let (_, answer) = world.take().pop().unwrap();
        assert_eq!(Message::parse(&answer).unwrap().error_code(), Some(400), "{missing:#x}");
    }
}

#[test]
fn an_offer_that_is_not_repeated_as_it_was_is_refused() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    alice.learn(&mut world);
    assert!(alice.nonce.starts_with(b"obMatJos2"));
    for (offer, choice) in [
        (Some(&[0, 1, 0, 0][..]), Some(&[0, 1, 0, 0][..])),
        (None, Some(&[0, 1, 0, 0][..])),
        (Some(&[0, 2, 0, 0, 0, 1, 0, 0][..]), None),
        (Some(&[0, 2, 0, 0, 0, 1, 0, 0][..]), Some(&[0, 3, 0, 0][..])),
    ] {
        world.now = world.now + Duration::from_secs(1);
        let id = world.transaction();
        let mut attributes = vec![udp()];
        attributes.extend(offer.map(|value| (attribute::PASSWORD_ALGORITHMS, value.to_vec())));
        attributes.extend(choice.map(|value| (attribute::PASSWORD_ALGORITHM, value.to_vec())));
        assert_eq!(alice.ask_as(&mut world, method::ALLOCATE, id, &attributes).code(), 400, "{offer:?} {choice:?}");
    }
}

#[test]
fn time_limited_credentials_hold_until_their_time_and_their_allocations_longer() {
    let mut world = World::new(spec());
    let secret = TurnSecret(b"north".to_vec());
    let timed = |number: u16, expires: u64, who: &str| {
        let username = format!("{expires}:{who}");
        let password = timed_password(&username, &secret);
        Caller { username, password, ..Caller::new(number, "") }
    };
    let now = UNIX + 1000;
    assert_eq!(timed(1, now + 120, "carol").allocate(&mut world).code(), 0);
    assert_eq!(timed(2, now + 1, "carol").allocate(&mut world).code(), 0);
    assert_eq!(timed(3, now, "carol").allocate(&mut world).code(), 401);
    assert_eq!(timed(4, now - 120, "carol").allocate(&mut world).code(), 401);
    // Another one's name with the password of one's own.
    let mut stolen = Caller { username: format!("{}:dave", now + 120), ..timed(5, now + 120, "carol") };
    assert_eq!(stolen.allocate(&mut world).code(), 401);
    let mut other_secret = timed(6, now + 120, "carol");
    other_secret.password = timed_password(&other_secret.username, &TurnSecret(b"south".to_vec()));
    assert_eq!(other_secret.allocate(&mut world).code(), 401);
    // Both secrets hold while one follows the other.
    let mut both = spec();
    both.secrets.insert(0, TurnSecret(b"south".to_vec()));
    world.turn.handle_command(TurnCommand::Configure(Box::new(both)), world.now);
    world.wait(Duration::from_secs(1));
    assert_eq!(other_secret.allocate(&mut world).code(), 0);
    assert_eq!(timed(7, now + 120, "carol").allocate(&mut world).code(), 0);
    // All of them were carol's.
    assert_eq!(timed(8, now + 3600, "carol").allocate(&mut world).code(), 486);
    let mut first = timed(9, now + 10, "erin");
    assert_eq!(first.allocate(&mut world).code(), 0);
    world.wait(Duration::from_secs(300));
    assert_eq!(first.refresh(&mut world, 600).code(), 0, "what is allocated may be refreshed");
}

#[test]
fn what_is_revoked_ends_at_once_and_comes_back_no_more() {
    let mut world = World::new(spec());
    world.turn.handle_command(TurnCommand::Add(credential("guest-7", "room")), world.now);
    let mut guest = Caller::new(1, "guest-7");
    let mut alice = Caller::new(2, "alice");
    assert_eq!((guest.allocate(&mut world).code(), alice.allocate(&mut world).code()), (0, 0));
    // Another configuration leaves what was added.
    world.turn.handle_command(TurnCommand::Configure(Box::new(spec())), world.now);
    assert_eq!(guest.refresh(&mut world, 600).code(), 0);
    world.events();
    world.turn.handle_command(TurnCommand::Revoke { username: "guest-7".into() }, world.now);
    assert!(matches!(&world.events()[..], [TurnEvent::Ended { reason: TurnEnd::Revoked, .. }]));
    assert_eq!(guest.refresh(&mut world, 600).code(), 401);
    assert_eq!(guest.allocate(&mut world).code(), 401);
    assert_eq!(alice.refresh(&mut world, 600).code(), 0);
}

#[test]
fn credentials_that_expire_are_refused_and_forgotten() {
    let mut world = World::new(spec());
    let expiring = |seconds: u64| {
        let mut credential = credential("guest", "room");
        credential.expires = Some(UNIX + 1000 + seconds);
        TurnCommand::Add(credential)
    };
    world.turn.handle_command(expiring(0), world.now);
    let mut guest = Caller::new(1, "guest");
    assert_eq!(guest.allocate(&mut world).code(), 401);
    world.turn.handle_command(expiring(600), world.now);
    assert_eq!(guest.allocate(&mut world).code(), 0);
    world.wait(Duration::from_secs(4000));
    assert!(world.turn.credentials.find("guest").is_none());
    assert!(world.turn.credentials.find("alice").is_some());
}

#[test]
fn another_users_allocation_is_not_touched() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    assert_eq!(alice.allocate(&mut world).code(), 0);
    // From her very address, by somebody who has a right to be here.
    let mut bob = Caller { username: "bob".into(), password: "bob's".into(), ..alice.clone() };
    assert_eq!(bob.refresh(&mut world, 0).code(), 441);
    assert_eq!(bob.permit(&mut world, &["8.8.8.8:9"]), 441);
    assert_eq!(bob.bind(&mut world, 0x4000, "8.8.8.8:9"), 441);
    assert_eq!(bob.allocate(&mut world).code(), 437);
    assert_eq!(world.turn.stats().allocations, 1);
}

#[test]
fn a_nonce_of_601_seconds_is_stale_and_one_of_60_is_not() {
    let mut world = World::new(spec());
    let mut alice = Caller::new(1, "alice");
    assert_eq!(alice.allocate(&mut world).code(), 0);
    world.wait(Duration::from_secs(60));
    assert_eq!(alice.refresh(&mut world, 3600).code(), 0);
    world.wait(Duration::from_secs(541));
    let answer = alice.refresh(&mut world, 3600);
    assert_eq!(answer.code(), 438);
    alice.nonce = answer.message().attribute(attribute::NONCE).unwrap().to_vec();
    assert_eq!(alice.refresh(&mut world, 3600).code(), 0);
}

#[test]
fn strangers_get_ten_replies_a_second_and_no_more_than_they_paid_for() {
    let mut world = World::new(spec());
    let (mut bytes_in, mut bytes_out, mut replies) = (0, 0, 0);
    for n in 0..100_000u64 {
        world.now = world.now + Duration::from_micros(50);
        let mut from = client(0);
        from.path.remote.set_port(n as u16 | 1);
        let request = raw(method::ALLOCATE, world.transaction(), &[udp()]);
        let result = world.say(from, &request);
        assert!(matches!(result, Ok(None) | Err(DropReason::TurnReplyBudget)));
        bytes_in += request.len() + 28;
        for (path, reply) in world.take() {
            assert_eq!(path, from.path);
            assert!((reply.len() + 28) * 10 <= (request.len() + 28) * 16, "{} for {}", reply.len(), request.len());
            bytes_out += reply.len() + 28;
            replies += 1;
        }
    }
    // Five seconds; they may begin within one.
    assert!((50..=60).contains(&replies), "{replies}");
    assert!(bytes_out * 100 <= bytes_in);
    assert_eq!(world.turn.stats().challenges, replies);
}

#[test]
fn binding_answers_are_short_and_can_be_turned_off() {
    let mut world = World::new(spec());
    let request = raw(method::BINDING, world.transaction(), &[]);
    world.say(client(1), &request).unwrap();
    let (_, reply) = world.take().pop().unwrap();
    assert_eq!(Message::parse(&reply).unwrap().xor_mapped_address(), Some(client(1).path.remote));
    assert!((reply.len() + 28) * 100 <= (request.len() + 28) * 125);
    let unknown = raw(method::BINDING, world.transaction(), &[(0x0003, vec![0, 0, 0, 2])]);
    world.say(client(2), &unknown).unwrap();
    let (_, reply) = world.take().pop().unwrap();
    let reply = Message::parse(&reply).unwrap();
    assert_eq!((reply.error_code(), reply.attribute(attribute::UNKNOWN_ATTRIBUTES)), (Some(420), Some(&[0, 3][..])));
    let mut off = spec();
    off.binding = false;
    world.turn.configure(off, world.now);
    assert_eq!(world.say(client(3), &request), Err(DropReason::TurnMalformed));
}

#[test]
fn algorithms_are_offered_where_they_cost_little_or_the_address_is_proved() {
    let challenge = |spec, transport, attributes: &[Attribute]| {
        let mut world = World::new(spec);
        let mut from = client(1);
        from.transport = transport;
        let request = raw(method::ALLOCATE, world.transaction(), attributes);
        world.say(from, &request).unwrap();
        let (_, reply) = world.take().pop().unwrap();
        Message::parse(&reply).unwrap().attribute(attribute::PASSWORD_ALGORITHMS).is_some()
    };
    assert!(!challenge(spec(), TurnTransport::Udp, &[udp()]));
    assert!(challenge(spec(), TurnTransport::Udp, &[udp(), padding()]));
    for transport in [TurnTransport::Tcp, TurnTransport::Tls, TurnTransport::Dtls] {
        assert!(challenge(spec(), transport, &[udp()]));
    }
    let with = |password_algorithms| ringmain_shared::turn::TurnSpec { password_algorithms, ..spec() };
    assert!(challenge(with(PasswordAlgorithms::Always), TurnTransport::Udp, &[udp()]));
    assert!(!challenge(with(PasswordAlgorithms::Never), TurnTransport::Tls, &[udp(), padding()]));
}

#[test]
fn a_million_strangers_leave_nothing_behind() {
    let mut world = World::new(spec());
    let (_, out) = world.link.parts();
    let request = raw(method::ALLOCATE, crate::packet::stun::TransactionId([1; 12]), &[udp()]);
    let size = |turn: &crate::turn::Turn| {
        (
            turn.clients.capacity(),
            turn.allocations.capacity(),
            turn.accounts.len(),
            turn.timers.len(),
            turn.relays.requests.capacity(),
        )
    };
    let before = size(&world.turn);
    let mut answered = 0;
    for n in 0..1_000_000u32 {
        let mut from = client(0);
        from.path.remote = (std::net::Ipv4Addr::from_bits(0x7f00_0000 + n), 4000 + n as u16 % 1000).into();
        answered += usize::from(world.turn.handle_client(from, &request, world.now, out).is_ok());
        if n % 64 == 0 {
            out.flush();
            world.now = world.now + Duration::from_micros(64);
        }
    }
    assert!((1..=20_000).contains(&answered), "the budget of all, in one or two seconds: {answered}");
    assert_eq!(size(&world.turn), before);
}

#[test]
fn a_header_alone_is_not_answered_and_a_clients_first_allocate_always_is() {
    for realm_len in [1, 4, 12, 48, 127] {
        let mut spec = spec();
        spec.realm = "r".repeat(realm_len);
        let mut world = World::new(spec);
        for method in [method::ALLOCATE, method::REFRESH, method::CREATE_PERMISSION, method::CHANNEL_BIND] {
            let request = raw(method, world.transaction(), &[]);
            assert_eq!(request.len(), 20);
            assert_eq!(world.say(client(1), &request), Err(DropReason::TurnReplyBudget), "{method:#x} {realm_len}");
            assert!(world.take().is_empty());
            // An address that is proved gets its answer.
            let proved = crate::turn::Client { transport: TurnTransport::Tcp, ..client(2) };
            world.say(proved, &request).unwrap();
            assert_eq!(world.take().len(), 1);
        }
        // 28 bytes, the least that browsers send.
        let request = raw(method::ALLOCATE, world.transaction(), &[udp()]);
        world.say(client(1), &request).unwrap();
        assert_eq!(world.take().len(), 1, "{realm_len}");
    }
}

#[test]
fn a_user_who_is_configured_no_more_or_has_another_password_holds_nothing() {
    for is_there in [false, true] {
        let mut world = World::new(spec());
        let (mut alice, mut bob) = (Caller::new(1, "alice"), Caller::new(2, "bob"));
        assert_eq!((alice.allocate(&mut world).code(), bob.allocate(&mut world).code()), (0, 0));
        world.events();
        let mut other = spec();
        other.users.retain(|user| user.username != "alice");
        let keys = derive_keys("alice", "ring", "another");
        other.users.extend(is_there.then(|| TurnCredential { keys, ..credential("alice", "alice") }));
        world.turn.handle_command(TurnCommand::Configure(Box::new(other)), world.now);
        let [TurnEvent::Ended { allocation, reason: TurnEnd::Revoked }] = &world.events()[..] else { panic!("one") };
        assert_eq!(allocation.user, "alice");
        assert_eq!((alice.refresh(&mut world, 600).code(), bob.refresh(&mut world, 600).code()), (401, 0));
        alice.password = "another".into();
        assert_eq!(alice.allocate(&mut world).code(), if is_there { 0 } else { 401 });
    }
}
