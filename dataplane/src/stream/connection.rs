//! One accepted connection, from its first byte: what it speaks, TLS, framing, deadlines, and what waits to be written to it.
//!
//! TLS ends here and what it carries is looked at anew: TURN (ALPN `stun.turn`, RFC 7443), ICE or HTTP. Bytes come in as they were read
//! and go out as they are to be written; sockets belong to the run loop.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use ringmain_shared::Now;
use rustls::server::ResolvesServerCert;
use rustls::{ServerConfig, ServerConnection};

use super::classify::{FIRST_BYTES_MAX, Protocol, Protocols, Verdict, classify};
use super::frame::{Deframer, Framing};
use super::queue::SendQueue;

/// What a listener speaks.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// As it comes. HTTP is carried elsewhere.
    pub clear: Protocols,
    /// Inside TLS, and how that is made.
    pub tls: Option<(Protocols, Arc<ServerConfig>)>,
}

/// Why a connection is over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum End {
    /// The other side said so.
    Closed,
    /// It speaks nothing that this listener does.
    Unknown,
    /// TLS failed.
    Tls,
    /// Its bytes are no frames.
    Desynchronised,
    /// No message came in time, the first or any.
    Silent,
    /// It does not read.
    Stuck,
}

/// What bytes that were read turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrived<'a> {
    /// The connection is now known to speak this. Comes once, before anything else.
    Speaks(Protocol),
    /// A whole message.
    Message(&'a [u8]),
    /// Bytes, of a connection without frames.
    Bytes(&'a [u8]),
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    offer: Arc<Offer>,
    tls: Option<Box<ServerConnection>>,
    stage: Stage,
    queue: SendQueue,
    began: Now,
    heard: Now,
    /// A message has come.
    proved: bool,
    /// It may be silent until then.
    held_until: Now,
}

#[derive(Debug)]
enum Stage {
    /// The first bytes are not enough to tell.
    New(Vec<u8>),
    Framed(Protocol, Deframer),
    Bytes,
}

impl Connection {
    /// One that was just accepted.
    pub fn new(offer: Arc<Offer>, now: Now) -> Self {
        let stage = Stage::New(Vec::new());
        let (queue, held_until) = (SendQueue::default(), Now(0));
        Self { offer, tls: None, stage, queue, began: now, heard: now, proved: false, held_until }
    }

    /// One that we opened or accepted for a relay: bytes, from the start.
    pub fn bytes_only(now: Now) -> Self {
        let mut connection = Self::new(Arc::default(), now);
        (connection.stage, connection.proved) = (Stage::Bytes, true);
        connection
    }

    /// Takes in what was read; none is the other side's end.
    pub fn handle(&mut self, bytes: &[u8], now: Now, out: &mut dyn FnMut(Arrived<'_>)) -> Result<(), End> {
        if bytes.is_empty() {
            return Err(End::Closed);
        }
        self.heard = now;
        if self.tls.is_some() {
            return self.handle_tls(bytes, now, out);
        }
        let Stage::New(first) = &mut self.stage else { return self.handle_plain(bytes, out) };
        if first.is_empty() && matches!(classify(bytes), Verdict::Is(Protocol::Tls)) {
            let (_, config) = self.offer.tls.clone().ok_or(End::Unknown)?;
            self.tls = Some(Box::new(ServerConnection::new(config).map_err(|_| End::Tls)?));
            return self.handle_tls(bytes, now, out);
        }
        if self.offer.clear.is_empty() {
            return Err(End::Unknown);
        }
        self.handle_plain(bytes, out)
    }

    /// Puts a message into the queue. False when it has no room, or the connection has no messages.
    pub fn send(&mut self, message: &[u8], now: Now) -> bool {
        let framing = match &self.stage {
            Stage::Framed(Protocol::Ice, _) => Framing::Length,
            Stage::Framed(..) => Framing::Turn,
            _ => return false,
        };
        if !self.queue.has_room(message.len() + FRAME_OVERHEAD) {
            return false;
        }
        if self.tls.is_none() {
            return framing.write(message, self.queue.append(now));
        }
        let mut frame = Vec::with_capacity(message.len() + FRAME_OVERHEAD);
        framing.write(message, &mut frame) && self.send_bytes(&frame, now)
    }

    /// Puts bytes into the queue as they are, under TLS if there is any. False when it has no room.
    pub fn send_bytes(&mut self, bytes: &[u8], now: Now) -> bool {
        if !self.queue.has_room(bytes.len() + FRAME_OVERHEAD) {
            return false;
        }
        match &mut self.tls {
            None => self.queue.append(now).extend_from_slice(bytes),
            Some(tls) => {
                for part in bytes.chunks(TLS_PART_SIZE) {
                    if tls.writer().write_all(part).is_err() {
                        return false;
                    }
                    pull(tls, &mut self.queue, now);
                }
            }
        }
        true
    }

    /// From here on there are no frames. What came of a frame before is lost, so that is for the end of a request. Deadlines are
    /// somebody else's.
    pub fn become_bytes(&mut self) {
        (self.stage, self.proved) = (Stage::Bytes, true);
    }

    /// Says goodbye, where TLS has a word for it.
    pub fn close(&mut self, now: Now) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            pull(tls, &mut self.queue, now);
        }
    }

    /// What is to be written to the socket.
    pub fn pending(&self) -> &[u8] {
        self.queue.pending()
    }

    /// So much of it was.
    pub fn consume(&mut self, size: usize, now: Now) {
        self.queue.consume(size, now);
    }

    /// So many bytes more can be sent.
    pub fn has_room(&self, size: usize) -> bool {
        self.queue.has_room(size + FRAME_OVERHEAD)
    }

    /// Whether nothing has come, and what comes may be TLS.
    pub fn may_become_tls(&self) -> bool {
        let is_new = matches!(&self.stage, Stage::New(first) if first.is_empty());
        is_new && self.tls.is_none() && self.offer.tls.is_some()
    }

    /// Whether it comes by TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// It may be silent until then, as it has an allocation for so long.
    pub fn hold(&mut self, until: Now) {
        self.held_until = until;
    }

    /// Why it should end now, if it should.
    pub fn overdue(&self, now: Now) -> Option<End> {
        let late = !self.proved && now.since(self.began) > FIRST_MESSAGE;
        if late || now.since(self.heard) > IDLE_MAX && self.held_until <= now {
            return Some(End::Silent);
        }
        self.queue.is_stuck(now).then_some(End::Stuck)
    }

    fn handle_tls(&mut self, mut bytes: &[u8], now: Now, out: &mut dyn FnMut(Arrived<'_>)) -> Result<(), End> {
        let mut clear = [0; CLEAR_SIZE];
        while !bytes.is_empty() {
            let Some(tls) = &mut self.tls else { return Ok(()) };
            if !matches!(tls.read_tls(&mut bytes), Ok(1..)) {
                return Err(End::Tls);
            }
            let progress = tls.process_new_packets();
            pull(tls, &mut self.queue, now);
            // A handshake has nothing that needs so much; who asks for it again and again wants our memory.
            if progress.is_err() || !self.queue.has_room(0) {
                return Err(End::Tls);
            }
            loop {
                let Some(tls) = &mut self.tls else { return Ok(()) };
                match tls.reader().read(&mut clear) {
                    Ok(0) => return Err(End::Closed),
                    Ok(size) => self.handle_plain(clear.get(..size).unwrap_or_default(), out)?,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(_) => return Err(End::Closed),
                }
            }
        }
        Ok(())
    }

    /// Bytes that are not, or no longer, encrypted.
    fn handle_plain(&mut self, bytes: &[u8], out: &mut dyn FnMut(Arrived<'_>)) -> Result<(), End> {
        let spoken = self.spoken();
        match &mut self.stage {
            Stage::Bytes => out(Arrived::Bytes(bytes)),
            Stage::Framed(_, deframer) => {
                let mut proved = self.proved;
                let result = deframer.handle(bytes, |message| {
                    proved = true;
                    out(Arrived::Message(message));
                });
                self.proved = proved;
                result.map_err(|_| End::Desynchronised)?;
            }
            Stage::New(first) => {
                let missing = FIRST_BYTES_MAX.saturating_sub(first.len()).min(bytes.len());
                let (taken, rest) = bytes.split_at(missing);
                first.extend_from_slice(taken);
                let protocol = match classify(first) {
                    Verdict::More => return Ok(()),
                    Verdict::Is(protocol) if spoken.has(protocol) => protocol,
                    _ => return Err(End::Unknown),
                };
                let first = std::mem::take(first);
                self.stage = match protocol {
                    Protocol::Turn => Stage::Framed(protocol, Deframer::new(Framing::Turn)),
                    Protocol::Ice => Stage::Framed(protocol, Deframer::new(Framing::Length)),
                    // Whoever it is carried to has deadlines of its own.
                    Protocol::Http | Protocol::Tls => {
                        self.proved = true;
                        Stage::Bytes
                    }
                };
                out(Arrived::Speaks(protocol));
                self.handle_plain(&first, out)?;
                if !rest.is_empty() {
                    self.handle_plain(rest, out)?;
                }
            }
        }
        Ok(())
    }

    /// What may be spoken now.
    fn spoken(&self) -> Protocols {
        let (Some(tls), Some((inside, _))) = (&self.tls, &self.offer.tls) else { return self.offer.clear };
        match tls.alpn_protocol() {
            None => *inside,
            // RFC 7301 §3.2: what was agreed on is what is spoken. A browser that was led here for a page cannot be made to talk to TURN.
            Some(ALPN_HTTP) => Protocols { http: inside.http, ..Protocols::NONE },
            Some(_) => Protocols { turn: inside.turn, ..Protocols::NONE },
        }
    }
}

/// What a TLS listener says for these protocols. Certificates are asked for at each handshake, so that new ones are used as soon as
/// they are there; a client's SNI is not looked at.
pub fn tls_config(
    certificates: Arc<dyn ResolvesServerCert>,
    inside: Protocols,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    if inside.turn {
        config.alpn_protocols.extend(ALPN_STUN.map(<[u8]>::to_vec));
    }
    if inside.http {
        config.alpn_protocols.push(ALPN_HTTP.to_vec());
    }
    Ok(Arc::new(config))
}

/// Moves what TLS wants to write into the queue.
fn pull(tls: &mut ServerConnection, queue: &mut SendQueue, now: Now) {
    while tls.wants_write() {
        let out = queue.append(now);
        if tls.write_tls(out).is_err() {
            return;
        }
    }
}

/// RFC 7443.
const ALPN_STUN: [&[u8]; 2] = [b"stun.turn", b"stun.nat-discovery"];
const ALPN_HTTP: &[u8] = b"http/1.1";
/// Time from a connection's start to its first whole message, TLS included.
pub const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// Time without a byte from a client without an allocation: one of ICE, which checks for consent every few seconds (RFC 7675), or of
/// TURN, which may be anybody until it has proved that it is a user.
pub const IDLE_MAX: Duration = Duration::from_secs(60);
/// Framing, padding and what TLS puts around a record.
const FRAME_OVERHEAD: usize = 64;
/// Plaintext of one TLS record.
const TLS_PART_SIZE: usize = 16 * 1024;
/// Plaintext looked at in one go.
const CLEAR_SIZE: usize = 4096;
