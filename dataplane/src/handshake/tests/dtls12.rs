//! DTLS 1.2 from the end of the handshake on, where OpenSSL is let go of: against an OpenSSL that stays, and with what is lost,
//! late or repeated just then.

use std::time::{Duration, Instant};

use openssl::ssl::{Ssl, SslContextBuilder, SslMethod, SslStream, SslVerifyMode};
use openssl::x509::X509;

use crate::handshake::Identity;
use crate::handshake::dtls::pipe::{Pipe, is_patient};
use crate::handshake::dtls::{Datagram, Engine, Engines, Fatal, Produced};

/// An OpenSSL client that does all of it itself.
struct Client(SslStream<Pipe<Datagram, 16>>);

impl Client {
    fn new(suite: &str) -> Self {
        let identity = Identity::generate().expect("a certificate");
        let mut context = SslContextBuilder::new(SslMethod::dtls_client()).expect("OpenSSL");
        context.set_cipher_list(suite).expect("a suite");
        context.set_tlsext_use_srtp("SRTP_AEAD_AES_128_GCM").expect("a profile");
        context.set_certificate(&X509::from_der(identity.certificate()).expect("DER")).expect("a certificate");
        let key = openssl::pkey::PKey::private_key_from_der(identity.private_key()).expect("DER");
        context.set_private_key(&key).expect("its key");
        context.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        let mut ssl = Ssl::new(&context.build()).expect("OpenSSL");
        ssl.set_connect_state();
        ssl.set_mtu(1200).expect("a size");
        Self(SslStream::new(ssl, Pipe::default()).expect("OpenSSL"))
    }

    /// Takes datagrams one by one; what it has to say, and what it has read.
    fn exchange(&mut self, datagrams: Vec<Datagram>) -> (Vec<Datagram>, Vec<Vec<u8>>) {
        let mut read = Vec::new();
        for datagram in datagrams.iter().map(Some).chain([None]) {
            self.0.get_mut().incoming = datagram.map(|bytes| bytes.as_slice().into());
            if !self.0.ssl().is_init_finished() {
                let result = self.0.do_handshake();
                assert!(result.as_ref().err().is_none_or(is_patient), "{result:?}");
            }
            let mut buffer = [0; 2048];
            while let Ok(size) = self.0.ssl_read(&mut buffer) {
                if size == 0 {
                    break;
                }
                read.push(buffer[..size].to_vec());
            }
        }
        (std::mem::take(&mut self.0.get_mut().outgoing), read)
    }
}

/// What an engine says to a datagram.
pub(super) fn hear(engine: &mut Engine, bytes: &[u8], now: Instant) -> Result<Vec<Produced>, Fatal> {
    let mut out = Vec::new();
    engine.handle_datagram(bytes, now, &mut out).map(|()| out)
}

pub(super) fn datagrams(produced: &[Produced]) -> Vec<Datagram> {
    let of = |item: &Produced| match item {
        Produced::Datagram(bytes) => Some(bytes.clone()),
        _ => None,
    };
    produced.iter().filter_map(of).collect()
}

pub(super) fn data(produced: &[Produced]) -> Vec<Vec<u8>> {
    let of = |item: &Produced| match item {
        Produced::Data(bytes) => Some(bytes.to_vec()),
        _ => None,
    };
    produced.iter().filter_map(of).collect()
}

pub(super) fn is_connected(produced: &[Produced]) -> bool {
    produced.iter().any(|item| matches!(item, Produced::Connected(_)))
}

fn engines() -> Engines {
    Engines::new(&Identity::generate().expect("a certificate")).expect("DTLS")
}

/// Our engines up to the server's last flight, which comes back unsent.
fn up_to_the_last_flight(now: Instant) -> (Engine, Engine, Vec<Datagram>) {
    let mut client = engines().client().expect("OpenSSL");
    let mut server = engines().dtls12_server().expect("OpenSSL");
    let mut produced = Vec::new();
    client.begin(now, &mut produced).expect("begins");
    let mut to_server = datagrams(&produced);
    for _ in 0..10 {
        let mut to_client = Vec::new();
        for bytes in to_server.drain(..) {
            let produced = hear(&mut server, &bytes, now).expect("sound");
            to_client.extend(datagrams(&produced));
            if is_connected(&produced) {
                return (client, server, to_client);
            }
        }
        for bytes in to_client {
            to_server.extend(datagrams(&hear(&mut client, &bytes, now).expect("sound")));
        }
    }
    panic!("no end to the handshake");
}

#[test]
fn an_openssl_that_stays_reads_what_we_write_and_we_what_it_writes() {
    for suite in ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"] {
        let (mut client, mut server, now) =
            (Client::new(suite), engines().dtls12_server().expect("OpenSSL"), Instant::now());
        let (mut to_client, mut connected) = (Vec::new(), false);
        for _ in 0..10 {
            let (to_server, _) = client.exchange(std::mem::take(&mut to_client));
            for bytes in to_server {
                let produced = hear(&mut server, &bytes, now).expect("sound");
                connected |= is_connected(&produced);
                to_client.extend(datagrams(&produced));
            }
        }
        assert!(connected && client.0.ssl().is_init_finished(), "{suite}");
        assert_eq!(client.0.ssl().current_cipher().map(|cipher| cipher.name()), Some(suite));
        for round in 0..100u8 {
            let words = vec![round; 1 + usize::from(round) * 11];
            let mut produced = Vec::new();
            server.send(&words, now, &mut produced).expect("open");
            assert_eq!(client.exchange(datagrams(&produced)).1, std::slice::from_ref(&words), "{suite} round {round}");
            assert_eq!(client.0.ssl_write(&words).ok(), Some(words.len()));
            let (sent, _) = client.exchange(Vec::new());
            assert_eq!(sent.len(), 1);
            assert_eq!(data(&hear(&mut server, &sent[0], now).expect("sound")), [words], "{suite} round {round}");
            assert_eq!(hear(&mut server, &sent[0], now).expect("sound").len(), 0, "a replay, {suite}");
        }
        let mut produced = Vec::new();
        server.close(&mut produced);
        client.exchange(datagrams(&produced));
        assert!(client.0.get_shutdown().contains(openssl::ssl::ShutdownState::RECEIVED), "{suite}");
        let _ = client.0.shutdown();
        let (sent, _) = client.exchange(Vec::new());
        let heard = hear(&mut server, &sent[0], now).expect("sound");
        assert!(matches!(heard[..], [Produced::CloseNotify]), "{suite}: {heard:?}");
    }
}

#[test]
fn a_last_flight_that_was_lost_is_sent_again() {
    let now = Instant::now();
    let (mut client, mut server, lost) = up_to_the_last_flight(now);
    let mut produced = Vec::new();
    client.handle_timeout(now + Duration::from_millis(200), &mut produced).expect("sound");
    let again: Vec<Datagram> = datagrams(&produced)
        .iter()
        .flat_map(|bytes| datagrams(&hear(&mut server, bytes, now).expect("sound")))
        .collect();
    assert_eq!(again, lost);
    let heard: Vec<Produced> = again.iter().flat_map(|bytes| hear(&mut client, bytes, now).expect("sound")).collect();
    assert!(is_connected(&heard));
    // And then no more, whoever repeats what.
    for bytes in &lost {
        assert_eq!(hear(&mut client, bytes, now).expect("sound").len(), 0);
    }
}

#[test]
fn data_that_overtakes_the_end_of_the_handshake_waits_for_it() {
    let now = Instant::now();
    for together in [false, true] {
        let (mut client, mut server, last) = up_to_the_last_flight(now);
        let mut produced = Vec::new();
        server.send(b"one", now, &mut produced).expect("open");
        server.send(b"two", now, &mut produced).expect("open");
        let early = datagrams(&produced);
        let heard: Vec<Produced> = if together {
            let bytes: Vec<u8> = last.iter().chain(&early).flat_map(|datagram| datagram.to_vec()).collect();
            hear(&mut client, &bytes, now).expect("sound")
        } else {
            early.iter().chain(&last).flat_map(|bytes| hear(&mut client, bytes, now).expect("sound")).collect()
        };
        assert!(matches!(heard[0], Produced::Connected(_)), "{heard:?}");
        assert_eq!(data(&heard), [b"one", b"two"], "together: {together}");
        // They were not heard twice, nor are they again.
        for bytes in &early {
            assert_eq!(hear(&mut client, bytes, now).expect("sound").len(), 0);
        }
    }
}

#[test]
fn a_forged_record_changes_nothing() {
    let now = Instant::now();
    let (_, mut server, _) = up_to_the_last_flight(now);
    for content in [20, 21, 22, 23, 24] {
        for epoch in [0, 1, 2] {
            let mut record = vec![content, 0xfe, 0xfd, 0, epoch, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 26];
            record.extend([2; 26]);
            assert_eq!(hear(&mut server, &record, now).expect("passed over").len(), 0);
        }
    }
}
