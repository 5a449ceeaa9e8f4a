//! DTLS 1.3 from the end of the handshake on, where `dimpl` is let go of: against a `dimpl` that stays, and with what is lost, late or
//! repeated just then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::crypto::Dtls13CipherSuite as Suite;
use dimpl::{Config, Dtls, DtlsCertificate, Output};

use super::dtls12::{data, datagrams, hear, is_connected};
use crate::handshake::Identity;
use crate::handshake::dtls::{Datagram, Engine, Engines, Produced};

/// A `dimpl` client that does all of it itself.
struct Client {
    dtls: Dtls,
    connected: bool,
    closed: bool,
}

impl Client {
    /// With these suites, and new keys every so many records.
    fn new(suites: &[Suite], update_at: u64, now: Instant) -> Self {
        let identity = Identity::generate().expect("a certificate");
        let config = Config::builder()
            .dtls13_cipher_suites(suites)
            .aead_encryption_limit(update_at)
            .flight_start_rto(Duration::from_millis(200))
            .flight_retries(64)
            .build()
            .expect("sound");
        let (certificate, private_key) = (identity.certificate().to_vec(), identity.private_key().to_vec());
        let mut dtls = Dtls::new_13(Arc::new(config), DtlsCertificate { certificate, private_key }, now);
        dtls.set_active(true);
        Self { dtls, connected: false, closed: false }
    }

    fn plain(now: Instant) -> Self {
        Self::new(&[Suite::AES_128_GCM_SHA256], 1 << 20, now)
    }

    /// Takes datagrams; what it has to say, and what it has read.
    fn exchange(&mut self, arriving: &[Datagram], now: Instant) -> (Vec<Datagram>, Vec<Vec<u8>>) {
        let (mut leaving, mut read) = (Vec::new(), Vec::new());
        for bytes in arriving.iter().map(Some).chain([None]) {
            self.dtls.handle_timeout(now).expect("alive");
            if let Some(bytes) = bytes {
                self.dtls.handle_packet(bytes).expect("sound");
            }
            let mut buffer = [0; 2048];
            loop {
                match self.dtls.poll_output(&mut buffer) {
                    Output::Packet(bytes) => leaving.push(Datagram::try_from(bytes as &[u8]).expect("fits")),
                    Output::ApplicationData(data) => read.push(data.to_vec()),
                    Output::Connected => self.connected = true,
                    Output::CloseNotify => self.closed = true,
                    Output::Timeout(_) => break,
                    _ => {}
                }
            }
        }
        (leaving, read)
    }

    fn say(&mut self, data: &[u8], now: Instant) -> Vec<Datagram> {
        self.dtls.send_application_data(data).expect("connected");
        self.exchange(&[], now).0
    }
}

fn server(now: Instant) -> Engine {
    Engines::dtls13_server(&Identity::generate().expect("a certificate"), false, now)
}

/// Up to the client's last flight, which comes back undelivered.
fn up_to_the_last_flight(client: &mut Client, server: &mut Engine, now: Instant) -> Vec<Datagram> {
    let mut flight = client.exchange(&[], now).0;
    for _ in 0..5 {
        let answers: Vec<_> =
            flight.iter().flat_map(|bytes| datagrams(&hear(server, bytes, now).expect("sound"))).collect();
        flight = client.exchange(&answers, now).0;
        if client.connected {
            return flight;
        }
    }
    panic!("no end to the handshake");
}

/// What the server says to datagrams.
fn deliver(server: &mut Engine, flight: &[Datagram], now: Instant) -> Vec<Produced> {
    flight.iter().flat_map(|bytes| hear(server, bytes, now).expect("sound")).collect()
}

fn connect(client: &mut Client, server: &mut Engine, now: Instant) {
    let flight = up_to_the_last_flight(client, server, now);
    let produced = deliver(server, &flight, now);
    assert!(is_connected(&produced));
    assert!(client.exchange(&datagrams(&produced), now).0.is_empty());
}

fn say(server: &mut Engine, data: &[u8], now: Instant) -> Vec<Datagram> {
    let mut out = Vec::new();
    server.send(data, now, &mut out).expect("connected");
    datagrams(&out)
}

#[test]
fn a_dimpl_that_stays_reads_what_we_write_and_we_what_it_writes() {
    for suite in [Suite::AES_128_GCM_SHA256, Suite::AES_256_GCM_SHA384, Suite::CHACHA20_POLY1305_SHA256] {
        for retries in [false, true] {
            let now = Instant::now();
            let mut client = Client::new(&[suite], 1 << 20, now);
            let mut server = Engines::dtls13_server(&Identity::generate().expect("a certificate"), retries, now);
            connect(&mut client, &mut server, now);
            assert_eq!(server.deadline(), None);
            for round in 0..100u8 {
                let words = vec![round; usize::from(round) + 1];
                let arrived = deliver(&mut server, &client.say(&words, now), now);
                assert_eq!((data(&arrived), datagrams(&arrived)), (vec![words.clone()], vec![]), "{suite:?}");
                assert_eq!(client.exchange(&say(&mut server, &words, now), now), (vec![], vec![words]), "{suite:?}");
            }
            let mut out = Vec::new();
            server.close(&mut out);
            client.exchange(&datagrams(&out), now);
            assert!(client.closed, "{suite:?}");
        }
    }
}

#[test]
fn forged_records_take_no_place_from_data_that_comes_before_the_handshake_is_done() {
    let now = Instant::now();
    let (mut client, mut server) = (Client::plain(now), server(now));
    let flight = up_to_the_last_flight(&mut client, &mut server, now);
    let early = client.say(b"early", now);
    let mut forged = early[0].clone();
    for change in 1..=64 {
        let last = forged.len() - 1;
        forged[last] = early[0][last] ^ change;
        assert!(deliver(&mut server, std::slice::from_ref(&forged), now).is_empty());
    }
    for _ in 0..32 {
        assert!(deliver(&mut server, &early, now).is_empty(), "not before it is done");
    }
    assert_eq!(data(&deliver(&mut server, &flight, now)), [b"early".to_vec()]);
}

#[test]
fn a_close_notify_of_the_client_is_heard() {
    let now = Instant::now();
    let (mut client, mut server) = (Client::plain(now), server(now));
    connect(&mut client, &mut server, now);
    client.dtls.close().expect("connected");
    let produced = deliver(&mut server, &client.exchange(&[], now).0, now);
    assert!(matches!(produced[..], [Produced::CloseNotify]), "{produced:?}");
}

/// The client asks for new keys of both ends every few records, over the whole round of what a header tells of an epoch and beyond; with
/// losses, updates and their ACKs are said again.
#[test]
fn keys_are_changed_as_often_as_the_client_likes() {
    for suite in [Suite::AES_128_GCM_SHA256, Suite::AES_256_GCM_SHA384, Suite::CHACHA20_POLY1305_SHA256] {
        for (retries, loss) in [(false, 0), (true, 0), (false, 20)] {
            let mut now = Instant::now();
            let mut client = Client::new(&[suite], 8, now);
            let mut server = Engines::dtls13_server(&Identity::generate().expect("a certificate"), retries, now);
            connect(&mut client, &mut server, now);
            let (mut epochs, mut heard, mut read, mut chance) = ([0; 4], 0, 0, 1u64);
            let mut lost = || {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                chance >> 33 < loss * (1 << 31) / 100
            };
            for _ in 0..300 {
                now += Duration::from_millis(300);
                let (mut to_server, mut to_client) = (client.say(b"up", now), say(&mut server, b"down", now));
                let mut out = Vec::new();
                server.handle_timeout(now, &mut out).expect("alive");
                to_client.extend(datagrams(&out));
                while !to_server.is_empty() || !to_client.is_empty() {
                    to_server.retain(|_| !lost());
                    to_client.retain(|_| !lost());
                    to_client.iter().for_each(|bytes| epochs[usize::from(bytes[0] & 3)] += 1);
                    let arrived = deliver(&mut server, &to_server, now);
                    heard += data(&arrived).len();
                    let (answers, words) = client.exchange(&to_client, now);
                    read += words.len();
                    (to_server, to_client) = (answers, datagrams(&arrived));
                }
            }
            let most = if loss == 0 { 300 } else { 180 };
            assert!(heard >= most && read >= most, "{suite:?} {loss}: {heard} up, {read} down");
            assert!(epochs.iter().all(|&count| count >= 10), "{suite:?} {loss}: {epochs:?}");
        }
    }
}

#[test]
fn a_client_that_says_its_last_word_again_is_answered_again() {
    let mut now = Instant::now();
    let (mut client, mut server) = (Client::plain(now), server(now));
    let flight = up_to_the_last_flight(&mut client, &mut server, now);
    let lost = deliver(&mut server, &flight, now);
    assert!(is_connected(&lost) && !datagrams(&lost).is_empty());
    assert!(
        deliver(&mut server, &flight, now).len() <= flight.len(),
        "whoever repeats it byte for byte gets no more than that"
    );
    assert!(deliver(&mut server, &flight, now).is_empty(), "and only once");
    let mut rounds = 0;
    let again = loop {
        now += Duration::from_millis(500);
        let again = client.exchange(&[], now).0;
        if !again.is_empty() {
            break again;
        }
        rounds += 1;
        assert!(rounds < 10, "the client waits for our ACK");
    };
    let answers = deliver(&mut server, &again, now);
    assert!(!is_connected(&answers) && data(&answers).is_empty());
    assert!(!answers.is_empty() && answers.len() <= again.len());
    client.exchange(&datagrams(&answers), now);
    for _ in 0..20 {
        now += Duration::from_secs(2);
        assert!(client.exchange(&[], now).0.is_empty(), "the client has what it waited for");
    }
    // And its data was never held up.
    assert_eq!(data(&deliver(&mut server, &client.say(b"words", now), now)), [b"words"]);
}

#[test]
fn data_that_overtakes_the_end_of_the_handshake_waits_for_it() {
    let now = Instant::now();
    let (mut client, mut server) = (Client::plain(now), server(now));
    let flight = up_to_the_last_flight(&mut client, &mut server, now);
    let words = client.say(b"words", now);
    assert!(deliver(&mut server, &words, now).is_empty());
    let produced = deliver(&mut server, &flight, now);
    let connected = produced.iter().position(|item| matches!(item, Produced::Connected(_)));
    let heard = produced.iter().position(|item| matches!(item, Produced::Data(_)));
    assert!(connected.is_some() && connected < heard, "{produced:?}");
    assert_eq!(data(&produced), [b"words"]);
    assert!(deliver(&mut server, &words, now).is_empty(), "it is said once");
}

#[test]
fn data_in_the_datagram_of_the_last_flight_is_heard() {
    let now = Instant::now();
    let (mut client, mut server) = (Client::plain(now), server(now));
    let mut flight = up_to_the_last_flight(&mut client, &mut server, now);
    let words = client.say(b"words", now).remove(0);
    let last = flight.last_mut().expect("a flight");
    last.try_extend_from_slice(&words).expect("fits");
    assert_eq!(data(&deliver(&mut server, &flight, now)), [b"words"]);
}

#[test]
fn repetitions_and_plaintext_do_nothing() {
    let now = Instant::now();
    let (mut client, mut server) = (Client::plain(now), server(now));
    let hello = client.exchange(&[], now).0;
    let answers: Vec<_> = datagrams(&deliver(&mut server, &hello, now));
    let flight = client.exchange(&answers, now).0;
    let produced = deliver(&mut server, &flight, now);
    client.exchange(&datagrams(&produced), now);
    let words = client.say(b"words", now);
    assert_eq!(data(&deliver(&mut server, &words, now)), [b"words"]);
    let alert = Datagram::try_from(&[21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40][..]).expect("fits");
    for bytes in words.iter().chain(&hello).chain([&alert]) {
        for size in 0..=bytes.len() {
            let cut = Datagram::try_from(&bytes[..size]).expect("shorter");
            assert!(deliver(&mut server, &[cut], now).is_empty());
        }
    }
    assert_eq!(data(&deliver(&mut server, &client.say(b"more", now), now)), [b"more"]);
}
