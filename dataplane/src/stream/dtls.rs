//! A client of TURN over DTLS 1.2 (RFC 7350), from its proved ClientHello on, by OpenSSL over a pipe of datagrams: certificates may be
//! RSA, and clients' libraries are old.
//!
//! OpenSSL insists on seeing a cookie come and go itself, so it is shown the first ClientHello again, and its challenge is thrown away.
//! Our records without encryption get the numbers that the client expects (RFC 6347 §4.2.1), its own get numbers of ours: nobody
//! vouches for those, and one forged high number would move the replay window past everything that is yet to come.

use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslSessionCacheMode, SslStream, SslVersion,
};
use openssl::x509::X509;
use ringmain_shared::Now;

use super::connection::{End, FIRST_MESSAGE, IDLE_MAX};
use super::cookie::Hello;
use crate::handshake::pipe::{Pipe, is_patient};

/// What the sessions of a listener share: certificate and rules.
pub struct Context(SslContext);

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Context(…)")
    }
}

/// One client.
#[derive(Debug)]
pub struct Session {
    stream: SslStream<Pipe<Vec<u8>, FLIGHT_DATAGRAMS_MAX>>,
    connected: bool,
    random: [u8; 32],
    /// What our plaintext records are numbered from.
    shift: u64,
    /// Plaintext records of the client's.
    plain_records: u64,
    /// Our last flight, until the handshake is done.
    flight: Vec<Vec<u8>>,
    interval: Duration,
    again_at: Now,
    began: Now,
    /// When its last record came that could be decrypted; anybody can send others in its name.
    heard: Now,
    /// It may be silent until then.
    held_until: Now,
}

impl Context {
    /// From a chain and its key in PEM. The error says what is wrong with them.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let build = || -> Result<Option<SslContext>, ErrorStack> {
            let mut context = SslContextBuilder::new(SslMethod::dtls())?;
            context.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
            context.set_cipher_list(SUITES)?;
            let mut chain = X509::stack_from_pem(chain)?.into_iter();
            let Some(leaf) = chain.next() else { return Ok(None) };
            context.set_certificate(&leaf)?;
            chain.try_for_each(|issuer| context.add_extra_chain_cert(issuer))?;
            context.set_private_key(&*PKey::private_key_from_pem(key)?)?;
            context.check_private_key()?;
            context.set_session_cache_mode(SslSessionCacheMode::OFF);
            context.set_options(
                SslOptions::COOKIE_EXCHANGE
                    | SslOptions::NO_QUERY_MTU
                    | SslOptions::NO_TICKET
                    | SslOptions::NO_RENEGOTIATION
                    | SslOptions::NO_COMPRESSION
                    | SslOptions::CIPHER_SERVER_PREFERENCE,
            );
            // The cookie was checked before there was a session.
            context.set_cookie_generate_cb(|_, room| {
                room.iter_mut().take(1).for_each(|byte| *byte = 0);
                Ok(1)
            });
            context.set_cookie_verify_cb(|_, _| true);
            Ok(Some(context.build()))
        };
        match build() {
            Ok(Some(context)) => Ok(Self(context)),
            Ok(None) => Err("there is no certificate".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Session {
    /// For a client that has proved its address; its ClientHello comes to `handle` next. `None` when there is no memory.
    pub fn new(context: &Context, hello: &Hello, now: Now) -> Option<Self> {
        let mut ssl = Ssl::new(&context.0).ok()?;
        ssl.set_mtu(MTU).ok()?;
        ssl.set_accept_state();
        let mut session = Self {
            stream: SslStream::new(ssl, Pipe::default()).ok()?,
            connected: false,
            random: hello.random,
            shift: hello.sequence,
            plain_records: 0,
            flight: Vec::new(),
            interval: RETRANSMIT_FIRST,
            again_at: now,
            began: now,
            heard: now,
            held_until: Now(0),
        };
        session.handle(&hello.first, now, &mut |_| {}).ok()?;
        session.stream.get_mut().outgoing.clear();
        session.flight.clear();
        Some(session)
    }

    /// Whether a ClientHello is the one that it began with.
    pub fn is_of(&self, hello: &Hello) -> bool {
        self.random == hello.random
    }

    /// Takes in a datagram and hands out the messages in it.
    pub fn handle(&mut self, datagram: &[u8], now: Now, message: &mut dyn FnMut(&[u8])) -> Result<(), End> {
        let mut datagram = datagram.to_vec();
        for header in plain_records(&mut datagram) {
            set_number(header, self.plain_records);
            self.plain_records += 1;
        }
        self.stream.get_mut().incoming = Some(datagram.into());
        if !self.connected {
            match self.stream.do_handshake() {
                Ok(()) => {
                    self.connected = true;
                    self.heard = now;
                    self.flight = Vec::new();
                }
                Err(error) if is_patient(&error) => {
                    let outgoing = &self.stream.get_ref().outgoing;
                    if !outgoing.is_empty() {
                        self.flight.clone_from(outgoing);
                        (self.interval, self.again_at) = (RETRANSMIT_FIRST, now + RETRANSMIT_FIRST);
                    }
                    return Ok(());
                }
                // What refuses the ClientHello itself is told, for the client to try another version: it has proved its address. Later
                // a forged datagram must not make us tell the true client that all is lost: what OpenSSL has to say is dropped.
                Err(_) => {
                    if !self.flight.is_empty() {
                        self.stream.get_mut().outgoing.clear();
                    }
                    return Err(End::Tls);
                }
            }
        }
        let mut buffer = [0; RECORD_SIZE_MAX];
        for _ in 0..RECORDS_MAX {
            match self.stream.ssl_read(&mut buffer) {
                Ok(size) => {
                    self.heard = now;
                    message(buffer.get(..size).unwrap_or_default());
                }
                Err(error) if error.code() == ErrorCode::ZERO_RETURN => return Err(End::Closed),
                Err(error) if is_patient(&error) => break,
                Err(_) => return Err(End::Tls),
            }
        }
        Ok(())
    }

    /// Encrypts a message as one record. False before the handshake is done, or when it is too long.
    pub fn send(&mut self, message: &[u8]) -> bool {
        self.connected && !message.is_empty() && self.stream.ssl_write(message).is_ok()
    }

    /// Sends the last flight again when that is due.
    pub fn handle_timeout(&mut self, now: Now) {
        if !self.connected && !self.flight.is_empty() && self.again_at <= now {
            let flight = self.flight.clone();
            self.stream.get_mut().outgoing.extend(flight);
            self.interval = (self.interval * 2).min(RETRANSMIT_LAST);
            self.again_at = now + self.interval;
        }
    }

    /// Says goodbye.
    pub fn close(&mut self) {
        if self.connected {
            // It is over whether or not that can be said.
            let _ = self.stream.shutdown();
        }
    }

    /// Datagrams to be sent.
    pub fn take_outgoing(&mut self) -> Vec<Vec<u8>> {
        let mut outgoing = std::mem::take(&mut self.stream.get_mut().outgoing);
        for header in outgoing.iter_mut().flat_map(|datagram| plain_records(datagram)) {
            let number = header.iter().skip(5).take(6).fold(0, |number, &byte| number << 8 | u64::from(byte));
            set_number(header, number + self.shift);
        }
        outgoing
    }

    /// It may be silent until then, as it has an allocation for so long.
    pub fn hold(&mut self, until: Now) {
        self.held_until = until;
    }

    /// Why it should end now, if it should.
    pub fn overdue(&self, now: Now) -> Option<End> {
        let late = !self.connected && now.since(self.began) > FIRST_MESSAGE;
        let is_silent = now.since(self.heard) > IDLE_MAX && self.held_until <= now;
        (late || is_silent).then_some(End::Silent)
    }

    /// Whether the handshake goes on, with its timer.
    pub fn is_handshaking(&self) -> bool {
        !self.connected
    }
}

/// The headers of the records that are not encrypted.
fn plain_records(datagram: &mut [u8]) -> Vec<&mut [u8; RECORD_HEADER_SIZE]> {
    let mut headers = Vec::new();
    let mut rest = datagram;
    while let Some((header, body)) = rest.split_first_chunk_mut::<RECORD_HEADER_SIZE>() {
        let size = usize::from(u16::from_be_bytes([header[11], header[12]]));
        if header[3..5] == [0, 0] {
            headers.push(header);
        }
        rest = body.get_mut(size..).unwrap_or_default();
    }
    headers
}

fn set_number(header: &mut [u8; RECORD_HEADER_SIZE], number: u64) {
    header[5..11].copy_from_slice(&number.to_be_bytes()[2..]);
}

/// Forward secrecy and AEAD only.
const SUITES: &str = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL";
/// Below IPv6's least MTU, with IPv6 and UDP headers.
const MTU: u32 = 1200;
const RETRANSMIT_FIRST: Duration = Duration::from_millis(200);
const RETRANSMIT_LAST: Duration = Duration::from_secs(2);
/// A chain of certificates takes a few.
const FLIGHT_DATAGRAMS_MAX: usize = 32;
const RECORDS_MAX: usize = 64;
/// Plaintext of one record.
const RECORD_SIZE_MAX: usize = 16 * 1024;
const RECORD_HEADER_SIZE: usize = 13;
