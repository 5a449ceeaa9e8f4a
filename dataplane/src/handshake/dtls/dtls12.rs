//! DTLS 1.2 (RFC 6347) as client or server, by OpenSSL over a pipe of datagrams.
//!
//! OpenSSL keeps a clock of its own for retransmission. So that time comes in from outside here as everywhere, the last flight
//! is kept and sent again, byte for byte, when our timer says so: a peer that has the records already drops them as replays,
//! one that lost them takes them. What this cannot do is ask a server again for its lost last flight, which takes records with
//! new numbers: where we are the client, that waits for OpenSSL's own timer, a second.
//!
//! OpenSSL makes the handshake and nothing else. Of an association that is done it would keep 54 KiB: room for one record of the
//! largest size in each direction and for a handshake message, of which `SSL_MODE_RELEASE_BUFFERS` frees none in DTLS. So its
//! secrets go to [`records`], which goes on where it stopped, and it is freed. Of the time of a handshake, OpenSSL 3.0 takes a
//! third to prepare for the key in the client's certificate.

use std::time::{Duration, Instant};

use bytes::Bytes;
use openssl::pkey::{Id, PKey};
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslSessionCacheMode, SslStream, SslVerifyMode,
    SslVersion,
};
use openssl::x509::X509;
use ringmain_shared::limits::{CERTIFICATE_SIZE_MAX, DATAGRAM_SIZE_MAX};
use ringmain_shared::transport::DtlsRole;
use zeroize::Zeroizing;

use super::pipe::{Pipe, is_patient};
use super::records::{self, ALERT, APPLICATION_DATA, HANDSHAKE, HEADER_SIZE, Numbers, Opened, Records, Suite};
use super::{DTLS_MTU, Datagram, Fatal, Produced, Proof, SrtpKeys};
use crate::handshake::identity::{Identity, SetupError};
use crate::srtp::Profile;

/// Configuration that all associations share.
pub(in crate::handshake) struct Setup {
    context: SslContext,
}

impl Setup {
    pub(super) fn new(identity: &Identity) -> Result<Self, SetupError> {
        Self::with_profiles(identity, SRTP_PROFILES)
    }

    pub(super) fn with_profiles(identity: &Identity, profiles: &str) -> Result<Self, SetupError> {
        let build = || -> Result<SslContext, openssl::error::ErrorStack> {
            let mut context = SslContextBuilder::new(SslMethod::dtls())?;
            context.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
            context.set_cipher_list(SUITES)?;
            context.set_sigalgs_list(SIGNATURES)?;
            context.set_groups_list("X25519:P-256:P-384")?;
            context.set_tlsext_use_srtp(profiles)?;
            context.set_certificate(&*X509::from_der(identity.certificate())?)?;
            context.set_private_key(&*PKey::private_key_from_der(identity.private_key())?)?;
            context.set_session_cache_mode(SslSessionCacheMode::OFF);
            context.set_options(
                SslOptions::NO_QUERY_MTU
                    | SslOptions::NO_TICKET
                    | SslOptions::NO_RENEGOTIATION
                    | SslOptions::NO_COMPRESSION
                    | SslOptions::CIPHER_SERVER_PREFERENCE,
            );
            // Certificates are self-signed: what counts is the fingerprint, and only our caller knows that. Here only what
            // would be expensive to verify is refused, before its signature is.
            context.set_verify_callback(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT, |_, chain| {
                chain.current_cert().is_none_or(is_affordable)
            });
            Ok(context.build())
        };
        build().map(|context| Self { context }).map_err(SetupError::new)
    }

    /// A new association; `None` when OpenSSL is out of memory.
    pub(super) fn start(&self, role: DtlsRole) -> Option<Dtls12> {
        let mut ssl = Ssl::new(&self.context).ok()?;
        ssl.set_mtu(DTLS_MTU as u32).ok()?;
        match role {
            DtlsRole::Client => ssl.set_connect_state(),
            DtlsRole::Server => ssl.set_accept_state(),
        }
        Dtls12::over(ssl, role)
    }
}

fn is_affordable(certificate: &openssl::x509::X509Ref) -> bool {
    let Ok(key) = certificate.public_key() else { return false };
    match key.id() {
        Id::RSA | Id::RSA_PSS => key.bits() <= RSA_BITS_MAX,
        Id::EC => key.bits() <= EC_BITS_MAX,
        Id::ED25519 => true,
        _ => false,
    }
}

/// One association.
pub(in crate::handshake) struct Dtls12 {
    role: DtlsRole,
    stage: Stage,
}

enum Stage {
    Handshaking(Box<Handshake>),
    Connected(Box<Connected>),
}

/// As long as OpenSSL is needed.
struct Handshake {
    stream: SslStream<Pipe<Datagram, FLIGHT_DATAGRAMS_MAX>>,
    /// The last flight that we sent.
    flight: Vec<Datagram>,
    interval: Duration,
    deadline: Option<Instant>,
    /// Records of epoch 0 that came in.
    plain_records: u64,
    /// Protected records that came in: one of them is the end of the handshake, and data may be among them already.
    protected: Vec<Box<[u8]>>,
    /// Numbers of the last protected record that OpenSSL sent.
    sent: Option<Numbers>,
}

struct Connected {
    records: Records,
    /// The end of the handshake, for a peer that it was lost to: with a server, the last flight is ours (RFC 6347 §4.2.4).
    last_flight: Vec<Box<[u8]>>,
}

impl Dtls12 {
    pub(super) fn over(ssl: Ssl, role: DtlsRole) -> Option<Self> {
        let handshake = Handshake {
            stream: SslStream::new(ssl, Pipe::default()).ok()?,
            flight: Vec::new(),
            interval: RETRANSMIT_FIRST,
            deadline: None,
            plain_records: 0,
            protected: Vec::new(),
            sent: None,
        };
        Some(Self { role, stage: Stage::Handshaking(Box::new(handshake)) })
    }

    pub(super) fn handle_datagram(&mut self, bytes: &[u8], now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        match &mut self.stage {
            Stage::Handshaking(handshake) => {
                handshake.take_in(bytes);
                self.advance(now, out)
            }
            Stage::Connected(connected) => {
                let mut datagram = [0; DATAGRAM_SIZE_MAX];
                let Some(datagram) = datagram.get_mut(..bytes.len()) else { return Ok(()) };
                datagram.copy_from_slice(bytes);
                connected.hear(datagram, true, out)
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        let Stage::Handshaking(handshake) = &mut self.stage else { return Ok(()) };
        if handshake.deadline.is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        let interval = (handshake.interval * 2).min(RETRANSMIT_LAST);
        // OpenSSL may retransmit by its own clock; then that is the flight.
        self.advance(now, out)?;
        let Stage::Handshaking(handshake) = &mut self.stage else { return Ok(()) };
        if handshake.deadline.is_some_and(|deadline| deadline <= now) {
            out.extend(handshake.flight.iter().cloned().map(Produced::Datagram));
        }
        handshake.interval = interval;
        handshake.deadline = Some(now + interval);
        Ok(())
    }

    pub(super) fn send(&mut self, data: &[u8], out: &mut Vec<Produced>) -> Result<(), Fatal> {
        let Stage::Connected(connected) = &mut self.stage else { return Err(Fatal) };
        // Datagrams may be lost, so one that does not fit is.
        out.extend(connected.records.seal(APPLICATION_DATA, data).map(Produced::Datagram));
        Ok(())
    }

    pub(super) fn close(&mut self, out: &mut Vec<Produced>) {
        if let Stage::Connected(connected) = &mut self.stage {
            out.extend(connected.records.seal(ALERT, &CLOSE_NOTIFY).map(Produced::Datagram));
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Handshaking(handshake) => handshake.deadline,
            Stage::Connected(_) => None,
        }
    }

    /// Goes on with the handshake.
    pub(super) fn advance(&mut self, now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        let Stage::Handshaking(handshake) = &mut self.stage else { return Ok(()) };
        match handshake.stream.do_handshake() {
            Ok(()) => {
                let flight = handshake.flush(out);
                let last_flight = match self.role {
                    DtlsRole::Client => Vec::new(),
                    DtlsRole::Server => flight.iter().map(|datagram| datagram.as_slice().into()).collect(),
                };
                let proof = handshake.proof(self.role)?;
                let mut connected = Connected { records: handshake.records(self.role).ok_or(Fatal)?, last_flight };
                let protected = std::mem::take(&mut handshake.protected);
                out.push(Produced::Connected(Box::new(proof)));
                let heard = protected.into_iter().try_for_each(|mut record| connected.hear(&mut record, false, out));
                self.stage = Stage::Connected(Box::new(connected));
                heard
            }
            Err(error) if is_patient(&error) => {
                let flight = handshake.flush(out);
                if !flight.is_empty() {
                    handshake.flight = flight;
                    handshake.interval = RETRANSMIT_FIRST;
                    handshake.deadline = Some(now + handshake.interval);
                }
                Ok(())
            }
            // What OpenSSL wanted to say about it (an alert) is dropped with it: a forged ClientHello must not make us
            // tell the true peer that all is lost.
            Err(_) => Err(Fatal),
        }
    }
}

impl Connected {
    /// Acts on the records of a datagram, or of the handshake's own, which ask for nothing.
    fn hear(&mut self, datagram: &mut [u8], mut is_late: bool, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        for at in records::split(datagram) {
            let Some(Opened { content, plaintext, is_new }) = self.records.open(datagram, at) else { continue };
            match (content, datagram.get(plaintext).unwrap_or_default()) {
                // A client that says its last word again has not heard ours. It may do so byte for byte, and gets one answer to
                // a datagram, whoever has put how many copies into it.
                (HANDSHAKE, _) if is_late => {
                    is_late = false;
                    let flight = self.last_flight.iter().filter_map(|bytes| Datagram::try_from(&**bytes).ok());
                    out.extend(flight.map(Produced::Datagram));
                }
                (APPLICATION_DATA, data) if is_new => out.push(Produced::Data(Bytes::copy_from_slice(data))),
                (ALERT, [_, 0]) if is_new => {
                    out.push(Produced::CloseNotify);
                    return Ok(());
                }
                (ALERT, [2, _]) if is_new => return Err(Fatal),
                // A warning, a replay, or a HelloRequest, which RFC 5246 §7.4.1.1 lets a client pass over.
                _ => {}
            }
        }
        Ok(())
    }
}

impl Handshake {
    /// A datagram for OpenSSL. Of the protected records a few are kept, as it does not tell which it has seen.
    fn take_in(&mut self, bytes: &[u8]) {
        let mut datagram: Box<[u8]> = bytes.into();
        for at in records::split(bytes) {
            let record = bytes.get(at).unwrap_or_default();
            let is_protected = records::numbers(record).is_some_and(|(epoch, _)| epoch == records::EPOCH);
            if is_protected && self.protected.len() < PROTECTED_MAX {
                self.protected.push(record.into());
            }
        }
        self.renumber(&mut datagram);
        self.stream.get_mut().incoming = Some(datagram);
    }

    /// Gives records of epoch 0 numbers of our own. Nothing authenticates those they came with, and one forged high number
    /// would move the replay window (RFC 6347 §4.1.2.6) past everything that the true peer has yet to send.
    fn renumber(&mut self, datagram: &mut [u8]) {
        let mut rest = datagram;
        while let Some((header, body)) = rest.split_first_chunk_mut::<HEADER_SIZE>() {
            if header[3..5] == [0, 0] {
                header[5..11].copy_from_slice(&self.plain_records.to_be_bytes()[2..]);
                self.plain_records += 1;
            }
            let size = usize::from(u16::from_be_bytes([header[11], header[12]]));
            rest = body.get_mut(size..).unwrap_or_default();
        }
    }

    /// Hands on what OpenSSL has written, and notes how far it has numbered.
    fn flush(&mut self, out: &mut Vec<Produced>) -> Vec<Datagram> {
        let flight = std::mem::take(&mut self.stream.get_mut().outgoing);
        for datagram in &flight {
            for (epoch, numbers) in records::split(datagram).filter_map(|at| records::numbers(datagram.get(at)?)) {
                if epoch == records::EPOCH {
                    self.sent = Some(numbers);
                }
            }
        }
        out.extend(flight.iter().cloned().map(Produced::Datagram));
        flight
    }

    /// What goes on where OpenSSL stops.
    fn records(&self, role: DtlsRole) -> Option<Records> {
        let ssl = self.stream.ssl();
        let suite = Suite::of(ssl.current_cipher()?.protocol_id())?;
        let mut master = Zeroizing::new([0; MASTER_SECRET_SIZE]);
        if ssl.session()?.master_key(&mut *master) != MASTER_SECRET_SIZE {
            return None;
        }
        let (mut client, mut server) = ([0; RANDOM_SIZE], [0; RANDOM_SIZE]);
        if ssl.client_random(&mut client) != RANDOM_SIZE || ssl.server_random(&mut server) != RANDOM_SIZE {
            return None;
        }
        // Each end's Finished is protected, so there was one.
        Records::new(suite, role, &*master, (&client, &server), self.sent?.next())
    }

    fn proof(&self, role: DtlsRole) -> Result<Proof, Fatal> {
        let ssl = self.stream.ssl();
        // RFC 7627 §5.2: without the extended master secret, keys are not bound to this handshake.
        if ssl.extms_support() != Some(true) {
            return Err(Fatal);
        }
        let certificate = ssl.peer_certificate().and_then(|x509| x509.to_der().ok()).ok_or(Fatal)?;
        if certificate.len() > CERTIFICATE_SIZE_MAX {
            return Err(Fatal);
        }
        let profile = ssl.selected_srtp_profile().and_then(|profile| {
            Profile::ALL
                .into_iter()
                .find(|ours| profile.id() == openssl::srtp::SrtpProfileId::from_raw(ours.id().into()))
        });
        let keys = match profile {
            None => None,
            Some(profile) => {
                let mut material = Zeroizing::new(vec![0; profile.keying_material_len()]);
                // RFC 5764 §4.2: no context.
                ssl.export_keying_material(&mut material, "EXTRACTOR-dtls_srtp", None).map_err(|_| Fatal)?;
                Some(SrtpKeys { profile, material, role })
            }
        };
        Ok(Proof { certificate, keys })
    }
}

/// Forward secrecy and AEAD only (RFC 8827 §6.5). Our certificate is ECDSA; a server that we call may have an RSA one.
const SUITES: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:\
                      ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-CHACHA20-POLY1305";
/// No SHA-1.
const SIGNATURES: &str = "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:ed25519:RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:\
                          RSA+SHA256:RSA+SHA384:RSA+SHA512";
/// As `Profile::ALL`; a server takes the first of these that the client has too.
const SRTP_PROFILES: &str = "SRTP_AEAD_AES_128_GCM:SRTP_AEAD_AES_256_GCM:SRTP_AES128_CM_SHA1_80";
/// Verifying a signature of more costs milliseconds.
const RSA_BITS_MAX: u32 = 4096;
/// P-521.
const EC_BITS_MAX: u32 = 521;
/// First retransmission of a flight; then doubling.
const RETRANSMIT_FIRST: Duration = Duration::from_millis(200);
/// The longest wait for a retransmission.
const RETRANSMIT_LAST: Duration = Duration::from_secs(2);
/// Datagrams of one flight: ours are one or two.
const FLIGHT_DATAGRAMS_MAX: usize = 16;
/// Protected records that may come before the handshake is done: Finished, again and again, and data behind it.
const PROTECTED_MAX: usize = 16;
/// RFC 5246 §8.1.
const MASTER_SECRET_SIZE: usize = 48;
/// RFC 5246 §7.4.1.2.
const RANDOM_SIZE: usize = 32;
/// A warning (RFC 5246 §7.2.1).
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
