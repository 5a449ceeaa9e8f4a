//! Handshakes: every dialect and role under loss, junk before and in them, certificates that are not the promised ones.

use std::sync::Arc;
use std::time::Duration;

use dimpl::{Config, Dtls, DtlsCertificate};
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{Ssl, SslContextBuilder, SslMethod};
use openssl::x509::{X509Builder, X509NameBuilder};
use ringmain_shared::event::CloseReason;
use ringmain_shared::id::TransportId;
use ringmain_shared::limits::HANDSHAKES_MAX;
use ringmain_shared::transport::{DtlsRole, FingerprintHash, Side};

use super::world::{Dialect, PeerDtls, World, sha, spec};
use crate::handshake::dtls::{Datagram, Produced};
use crate::handshake::{Identity, ToHandshake};
use crate::srtp::Profile;

const ONE: TransportId = TransportId(1);

fn certificate_over(key: &PKey<Private>, name: &str) -> Identity {
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut serial = BigNum::new().unwrap();
    serial.rand(127, MsbOption::MAYBE_ZERO, false).unwrap();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(&subject).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(30).unwrap()).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.sign(key, MessageDigest::sha256()).unwrap();
    Identity::from_parts(builder.build().to_der().unwrap(), key.private_key_to_pkcs8().unwrap())
}

fn rsa(bits: u32) -> Identity {
    certificate_over(&PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap(), "webrtcbin")
}

fn assert_same_keys(world: &World, id: TransportId, seed: u64) {
    let (ours, theirs) = (&world.keys[&id], &world.peers[&id]);
    assert_eq!(ours.material.as_slice(), theirs.material.as_slice(), "seed {seed}");
    assert_eq!(ours.material.len(), ours.profile.keying_material_len());
    assert!(world.largest <= 1200, "{} bytes, seed {seed}", world.largest);
}

#[test]
fn every_dialect_and_role_agrees_on_keys_whatever_the_loss() {
    for dialect in [Dialect::DimplAuto, Dialect::Dimpl12, Dialect::Dimpl13, Dialect::Openssl] {
        for role in [DtlsRole::Server, DtlsRole::Client] {
            let openssl_client = dialect == Dialect::Openssl || role == DtlsRole::Client;
            for (loss, seeds) in [(0, 1), (5, 4), (20, 6), (40, 6)] {
                if openssl_client && loss == 40 {
                    continue; // seconds of real time
                }
                for seed in 0..if openssl_client { 1 } else { seeds } {
                    let mut world = World::new(seed, loss);
                    world.real_time = openssl_client && loss > 0;
                    world.join_plainly(spec(1, 1, Side::Publisher, false), dialect, role);
                    let both = |world: &World| world.keys.contains_key(&ONE) && world.peers[&ONE].connected;
                    let context = format!("{dialect:?}, we are {role:?}, loss {loss} %, seed {seed}");
                    // Much loss may be too much for fifteen seconds, now and then, but not for keys to differ.
                    let done = world.run(14_900, both);
                    assert!(done || loss >= 20, "{context}: {:?} failed={}", world.closed, world.peers[&ONE].failed);
                    if done {
                        assert_same_keys(&world, ONE, seed);
                        assert_eq!(world.keys[&ONE].role, role);
                    }
                }
            }
        }
    }
}

#[test]
fn four_in_ten_lost_still_joins_mostly() {
    let joined = (0..20)
        .filter(|&seed| {
            let mut world = World::new(100 + seed, 40);
            let dialect = if seed.is_multiple_of(2) { Dialect::Dimpl12 } else { Dialect::DimplAuto };
            world.join_plainly(spec(1, 1, Side::Publisher, false), dialect, DtlsRole::Server);
            world.run(14_900, |world| world.keys.contains_key(&ONE) && world.peers[&ONE].connected)
        })
        .count();
    assert!(joined >= 12, "{joined} of 20");
}

#[test]
fn a_peer_with_an_rsa_certificate_connects_in_both_roles() {
    let identity = rsa(2048);
    for role in [DtlsRole::Server, DtlsRole::Client] {
        for (seed, loss) in [(0, 0), (1, 20)] {
            let mut world = World::new(seed, loss);
            world.real_time = loss > 0;
            let fingerprint = identity.fingerprint();
            world.join(spec(1, 1, Side::Publisher, false), Dialect::Openssl, role, &identity, vec![fingerprint]);
            assert!(world.run(14_900, |world| world.keys.contains_key(&ONE) && world.peers[&ONE].connected));
            assert_same_keys(&world, ONE, seed);
            assert_eq!(world.keys[&ONE].profile, Profile::AeadAes128Gcm);
        }
    }
}

#[test]
fn a_certificate_that_costs_too_much_to_verify_is_refused() {
    let key = Rsa::private_key_from_der(include_bytes!("rsa_4104.der")).unwrap();
    let identity = certificate_over(&PKey::from_rsa(key).unwrap(), "expensive");
    let mut world = World::new(1, 0);
    let fingerprint = identity.fingerprint();
    world.join(spec(1, 1, Side::Publisher, false), Dialect::Openssl, DtlsRole::Server, &identity, vec![fingerprint]);
    world.run(16_000, |world| !world.closed.is_empty());
    assert_eq!(world.closed.get(&ONE), Some(&CloseReason::HandshakeFailed));
    assert!(world.keys.is_empty());
}

#[test]
fn no_keys_for_a_certificate_that_was_not_promised() {
    use FingerprintHash::{Sha256, Sha384, Sha512};
    for dialect in [Dialect::DimplAuto, Dialect::Openssl] {
        for role in [DtlsRole::Server, DtlsRole::Client] {
            let (ours, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
            let of = |identity: &Identity, hash| sha(hash, identity.certificate());
            for (good, fingerprints) in [
                (true, vec![of(&ours, Sha256)]),
                (true, vec![of(&other, Sha256), of(&ours, Sha256), of(&ours, Sha512)]),
                (false, vec![of(&other, Sha256)]),
                (false, vec![of(&ours, Sha256), of(&other, Sha384)]),
                (false, vec![of(&other, Sha256), of(&other, Sha512)]),
                (false, vec![]),
            ] {
                let mut world = World::new(1, 0);
                let context = format!("{dialect:?} {role:?} {fingerprints:?}");
                world.join(spec(1, 1, Side::Publisher, true), dialect, role, &ours, fingerprints);
                world.run(2_000, |world| world.closed.contains_key(&ONE));
                assert_eq!(world.keys.contains_key(&ONE), good, "{context}");
                let expected = (!good).then_some(CloseReason::FingerprintMismatch);
                assert_eq!(world.closed.get(&ONE).copied(), expected, "{context}");
            }
        }
    }
}

#[test]
fn a_client_without_a_certificate_gets_no_keys() {
    let mut context = SslContextBuilder::new(SslMethod::dtls_client()).unwrap();
    context.set_tlsext_use_srtp("SRTP_AEAD_AES_128_GCM").unwrap();
    let mut ssl = Ssl::new(&context.build()).unwrap();
    ssl.set_connect_state();
    let mut world = World::new(1, 0);
    world.next_dtls = Some(PeerDtls::Engine(Box::new(crate::handshake::dtls::Engine::bare_client(ssl))));
    world.join_plainly(spec(1, 1, Side::Publisher, false), Dialect::Openssl, DtlsRole::Server);
    world.run(16_000, |world| !world.closed.is_empty());
    assert_eq!(world.closed.get(&ONE), Some(&CloseReason::HandshakeFailed));
    assert!(world.keys.is_empty());
}

#[test]
fn who_prefers_sha1_but_knows_gcm_gets_gcm() {
    // OpenSSL as client in our order is the plain case; libwebrtc's order is the one that needs the choice to be ours.
    for (order, expected) in [
        ("SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_256_GCM:SRTP_AEAD_AES_128_GCM", Profile::AeadAes128Gcm),
        ("SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_256_GCM", Profile::AeadAes256Gcm),
        ("SRTP_AES128_CM_SHA1_80", Profile::Aes128CmHmacSha1_80),
    ] {
        let identity = Identity::generate().unwrap();
        let engines = crate::handshake::dtls::Engines::with_profiles(&identity, order);
        let mut world = World::new(1, 0);
        let fingerprint = identity.fingerprint();
        world.next_dtls = Some(PeerDtls::Engine(Box::new(engines.client().unwrap())));
        let spec = spec(1, 1, Side::Publisher, false);
        world.join(spec, Dialect::Openssl, DtlsRole::Server, &identity, vec![fingerprint]);
        assert!(world.run(5_000, |world| world.keys.contains_key(&ONE)));
        assert_eq!(world.keys[&ONE].profile, expected);
    }
}

/// Datagrams that nobody vouches for.
fn junk(world: &mut World, round: usize) -> Vec<u8> {
    let record = |kind: u8, body: &[u8]| {
        let mut record = vec![kind, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0x30, round as u8];
        record.extend((body.len() as u16).to_be_bytes());
        record.extend(body);
        record
    };
    match round % 8 {
        0 => record(21, &[2, 40]),
        1 => record(21, &[1, 0]),
        2 => record(22, &[1, 0, 0, 44, 0, 0, 0, 0, 0, 0, 0, 44, 0xfe, 0xfd]),
        3 => {
            // A ClientHello in form, with the NULL cipher and a profile of ours.
            let mut body = vec![0xfe, 0xfd];
            body.extend((0..32).map(|_| world.random() as u8));
            body.extend([0, 0, 0, 2, 0, 0, 1, 0, 0, 9, 0, 14, 0, 5, 0, 2, 0, 7, 0]);
            let mut message = vec![1, 0, 0, body.len() as u8, 0, 0, 0, 0, 0, 0, 0, body.len() as u8];
            message.extend(body);
            record(22, &message)
        }
        4 => record(23, &[0; 40]),
        5 => record(20, &[1]),
        6 => (0..60).map(|_| world.random() as u8).collect(),
        _ => record(22, &[]),
    }
}

#[test]
fn junk_before_and_during_a_handshake_does_not_end_it() {
    for dialect in [Dialect::DimplAuto, Dialect::Dimpl12, Dialect::Openssl] {
        for seed in 0..4 {
            let mut world = World::new(seed, 0);
            for round in 0..40 {
                let bytes = junk(&mut world, round);
                world.carry(true, ONE, bytes);
            }
            world.join_plainly(spec(1, 1, Side::Publisher, true), dialect, DtlsRole::Server);
            for round in 0..200 {
                let bytes = junk(&mut world, round);
                world.carry(true, ONE, bytes);
                world.run(2, |_| false);
            }
            let done = world.run(14_000, |world| world.keys.contains_key(&ONE) && world.peers[&ONE].connected);
            assert!(done, "{dialect:?} seed {seed}: {:?} {:?}", world.closed, world.handshaker.stats());
            assert_same_keys(&world, ONE, seed);
            assert_eq!(world.alerts, 0, "a forged datagram made us send an alert");
            for round in 0..40 {
                let bytes = junk(&mut world, round);
                world.carry(true, ONE, bytes);
            }
            assert!(world.run(5_000, |world| world.peers[&ONE].up), "{dialect:?} seed {seed}");
            assert!(world.closed.is_empty());
        }
    }
}

#[test]
fn a_handshake_that_nobody_takes_up_ends_at_its_deadline() {
    for role in [DtlsRole::Server, DtlsRole::Client] {
        let mut world = World::new(1, 100);
        world.join_plainly(spec(1, 1, Side::Publisher, false), Dialect::Openssl, role);
        world.run(20_000, |world| !world.closed.is_empty());
        assert_eq!(world.closed.get(&ONE), Some(&CloseReason::HandshakeTimeout));
        assert_eq!(world.now.as_millis(), 15_000);
        assert_eq!(world.handshaker.next_deadline(), None);
    }
}

#[test]
fn close_notify_goes_both_ways() {
    for dialect in [Dialect::DimplAuto, Dialect::Openssl] {
        let mut world = World::new(1, 0);
        for id in [1, 2] {
            world.join_plainly(spec(id, id, Side::Publisher, true), dialect, DtlsRole::Server);
        }
        assert!(world.run(5_000, |world| world.peers.values().all(|peer| peer.up)));
        world.input(ToHandshake::Close { transport: ONE });
        assert!(world.run(1_000, |world| world.peer(1).closed));
        assert!(world.closed.is_empty());
        world.peer_step(TransportId(2), |peer, out| match &mut peer.dtls {
            PeerDtls::Dimpl(dtls) => dtls.close().unwrap(),
            PeerDtls::Engine(engine) => engine.close(out),
        });
        assert!(world.run(1_000, |world| !world.closed.is_empty()));
        assert_eq!(world.closed.get(&TransportId(2)), Some(&CloseReason::PeerClosed));
        assert_eq!(world.handshaker.next_deadline(), None);
    }
}

#[test]
fn records_of_any_size_leave_the_association_alive() {
    for dialect in [Dialect::DimplAuto, Dialect::Openssl] {
        let mut world = World::new(1, 0);
        world.join_plainly(spec(1, 1, Side::Publisher, true), dialect, DtlsRole::Server);
        assert!(world.run(5_000, |world| world.peer(1).up));
        for size in [1, 2, 11, 12, 13, 16, 100, 999, 1100, 1400] {
            for fill in [0, 1, 0xff] {
                world.peer_step(ONE, |peer, out| peer.send_raw(&vec![fill; size], out));
                world.run(50, |_| false);
            }
        }
        assert!(world.closed.is_empty(), "{dialect:?}: {:?}", world.closed);
        assert!(world.peer(1).up);
    }
}

#[test]
fn nothing_is_answered_before_the_fingerprint_is_known() {
    let mut world = World::new(1, 0);
    world.input(ToHandshake::Open {
        worker: super::super::WorkerIndex(3),
        spec: Box::new(spec(1, 1, Side::Publisher, false)),
    });
    let mut first = Vec::new();
    let engines = crate::handshake::dtls::Engines::new(&Identity::generate().unwrap()).unwrap();
    engines.client().unwrap().begin(std::time::Instant::now(), &mut first).unwrap();
    let Some(Produced::Datagram(hello)) = first.pop() else { panic!() };
    for _ in 0..1000 {
        let bytes = Datagram::try_from(hello.as_slice()).unwrap();
        let mut out = Vec::new();
        world.handshaker.handle(ToHandshake::Datagram { transport: ONE, bytes }, world.now, &mut out);
        assert!(out.is_empty());
    }
    // All but the last, which waits.
    assert_eq!((world.handshaker.stats().early, world.handshaker.held), (999, 1));
}

#[test]
fn a_hello_that_came_first_is_answered_once_address_and_fingerprint_are_known() {
    for dialect in [Dialect::Dimpl12, Dialect::Dimpl13, Dialect::Openssl] {
        for validated_first in [true, false] {
            let mut world = World::new(7, 0);
            let identity = Identity::generate().unwrap();
            let spec = spec(1, 1, Side::Publisher, false);
            world.open_unknown(spec.clone());
            world.add_peer(spec, dialect, DtlsRole::Server, &identity);
            world.run(50, |world| world.handshaker.held == 1);
            for validated in [validated_first, !validated_first] {
                assert_eq!((world.handshaker.held, world.largest), (1, 0), "{dialect:?}");
                if validated {
                    world.input(ToHandshake::Validated { transport: ONE });
                } else {
                    world.set_remote(ONE, vec![identity.fingerprint()], DtlsRole::Server);
                }
            }
            assert_eq!(world.handshaker.held, 0, "{dialect:?}");
            // Two trips of 25 ms at most; the client repeats nothing before 100 ms.
            assert!(world.run(51, |world| world.keys.contains_key(&ONE)), "{dialect:?}: at {:?}", world.now);
            assert!(world.run(30, |world| world.peers[&ONE].connected), "{dialect:?}");
            assert_same_keys(&world, ONE, 7);
        }
    }
}

#[test]
fn a_hello_in_two_datagrams_waits_as_a_whole_and_goes_with_its_transport() {
    let identity = Identity::generate().unwrap();
    let clients = crate::handshake::dtls::Engines::new(&identity).unwrap();
    let mut first = Vec::new();
    clients.client().unwrap().begin(std::time::Instant::now(), &mut first).unwrap();
    let Some(Produced::Datagram(whole)) = first.pop() else { panic!() };
    let (record, message, body) = (&whole[..13], &whole[13..25], &whole[25..]);
    // The same record and message headers, with the lengths and the offset of a fragment.
    let datagram = |offset: usize, fragment: &[u8]| {
        let size = fragment.len() as u16;
        let lengths = [&[0][..], &(offset as u16).to_be_bytes(), &[0], &size.to_be_bytes()].concat();
        let bytes = [&record[..11], &(size + 12).to_be_bytes(), &message[..6], &lengths, fragment].concat();
        ToHandshake::Datagram { transport: ONE, bytes: Datagram::try_from(bytes.as_slice()).unwrap() }
    };
    let (head, tail) = body.split_at(100);
    for ends in [false, true] {
        let mut world = World::new(1, 0);
        world.open_unknown(spec(1, 1, Side::Publisher, false));
        world.set_remote(ONE, vec![identity.fingerprint()], DtlsRole::Server);
        for _ in 0..3 {
            world.input(datagram(100, tail));
            world.input(datagram(0, head));
        }
        assert_eq!((world.handshaker.held, world.handshaker.stats().early), (1, 2));
        if ends {
            world.input(ToHandshake::Close { transport: ONE });
        }
        world.input(ToHandshake::Validated { transport: ONE });
        assert_eq!((world.handshaker.held, world.largest > 0), (0, !ends));
    }
}

#[test]
fn a_handshake_too_many_waits_for_room() {
    let mut world = World::new(1, 0);
    let identity = Identity::generate().unwrap();
    let clients = crate::handshake::dtls::Engines::new(&identity).unwrap();
    let hello = |world: &mut World, id: u64| {
        let mut first = Vec::new();
        clients.client().unwrap().begin(std::time::Instant::now(), &mut first).unwrap();
        let Some(Produced::Datagram(bytes)) = first.pop() else { panic!() };
        world.input(ToHandshake::Datagram { transport: TransportId(id), bytes });
    };
    let count = HANDSHAKES_MAX as u64;
    for id in 0..=count {
        world.loss_percent = 100;
        let fingerprint = identity.fingerprint();
        world.join(
            spec(id, id, Side::Publisher, false),
            Dialect::Dimpl13,
            DtlsRole::Server,
            &identity,
            vec![fingerprint],
        );
        hello(&mut world, id);
    }
    assert_eq!(world.handshaker.stats().refused, 1);
    world.input(ToHandshake::Close { transport: TransportId(7) });
    hello(&mut world, count);
    assert_eq!(world.handshaker.stats().refused, 1);
    assert!(world.closed.is_empty());
}

#[test]
fn a_hello_in_parts_is_put_together() {
    for auto in [true, false] {
        for (seed, loss) in [(0, 0), (1, 10), (2, 10)] {
            let identity = Identity::generate().unwrap();
            let (certificate, private_key) = (identity.certificate().to_vec(), identity.private_key().to_vec());
            let certificate = DtlsCertificate { certificate, private_key };
            let config = Config::builder().mtu(128).flight_start_rto(Duration::from_millis(100)).flight_retries(20);
            let config = Arc::new(config.max_queue_tx(100).build().unwrap());
            let mut world = World::new(seed, loss);
            let new = if auto { Dtls::new_auto } else { Dtls::new_12 };
            let mut dtls = new(config, certificate, world.instant());
            dtls.set_active(true);
            world.next_dtls = Some(PeerDtls::Dimpl(Box::new(dtls)));
            let fingerprint = identity.fingerprint();
            let spec = spec(1, 1, Side::Publisher, false);
            world.join(spec, Dialect::DimplAuto, DtlsRole::Server, &identity, vec![fingerprint]);
            let done = world.run(14_900, |world| world.keys.contains_key(&ONE) && world.peers[&ONE].connected);
            assert!(done, "auto {auto}, loss {loss}: {:?}", world.handshaker.stats());
            assert_same_keys(&world, ONE, seed);
        }
    }
}
