//! DTLS 1.2 (RFC 6347) as client or server, by OpenSSL over a pipe of datagrams.
//!
//! OpenSSL keeps a clock of its own for retransmission. So that time comes in from outside here as everywhere, the last flight
//! is kept and sent again, byte for byte, when our timer says so: a peer that has the records already drops them as replays,
//! one that lost them takes them. What this cannot do is ask a server again for its lost last flight, which takes records with
//! new numbers: where we are the client, that waits for OpenSSL's own timer, a second.
//!
//! What stays of an association is large, 54 KiB of it OpenSSL's buffers: room for one record of the largest size in each direction,
//! and for a handshake message. `SSL_MODE_RELEASE_BUFFERS` frees none of it in DTLS. Of the time of a handshake, OpenSSL 3.0
//! takes a third to prepare for the key in the client's certificate.

use std::time::{Duration, Instant};

use bytes::Bytes;
use openssl::pkey::{Id, PKey};
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslSessionCacheMode, SslStream,
    SslVerifyMode, SslVersion,
};
use openssl::x509::X509;
use ringmain_shared::limits::{CERTIFICATE_SIZE_MAX, DATAGRAM_SIZE_MAX};
use ringmain_shared::transport::DtlsRole;
use zeroize::Zeroizing;

use super::pipe::{Pipe, is_patient};
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
    stream: SslStream<Pipe<Datagram, FLIGHT_DATAGRAMS_MAX>>,
    role: DtlsRole,
    connected: bool,
    /// The last flight that we sent, until the handshake is done.
    flight: Vec<Datagram>,
    interval: Duration,
    deadline: Option<Instant>,
    /// Records of epoch 0 that came in.
    plain_records: u64,
}

impl Dtls12 {
    pub(super) fn over(ssl: Ssl, role: DtlsRole) -> Option<Self> {
        let stream = SslStream::new(ssl, Pipe::default()).ok()?;
        Some(Self {
            stream,
            role,
            connected: false,
            flight: Vec::new(),
            interval: RETRANSMIT_FIRST,
            deadline: None,
            plain_records: 0,
        })
    }

    pub(super) fn handle_datagram(&mut self, bytes: &[u8], now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        let mut datagram: Box<[u8]> = bytes.into();
        if !self.connected {
            self.renumber(&mut datagram);
        }
        self.stream.get_mut().incoming = Some(datagram);
        self.advance(now, out)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        if self.connected || self.deadline.is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        let interval = (self.interval * 2).min(RETRANSMIT_LAST);
        // OpenSSL may retransmit by its own clock; then that is the flight.
        self.advance(now, out)?;
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            out.extend(self.flight.iter().cloned().map(Produced::Datagram));
        }
        if !self.connected {
            self.interval = interval;
            self.deadline = Some(now + interval);
        }
        Ok(())
    }

    pub(super) fn send(&mut self, data: &[u8], out: &mut Vec<Produced>) -> Result<(), Fatal> {
        if !self.connected || self.stream.ssl_write(data).is_err() {
            return Err(Fatal);
        }
        self.flush(out);
        Ok(())
    }

    pub(super) fn close(&mut self, out: &mut Vec<Produced>) {
        if self.connected {
            // The association is over whether or not its last word can be said.
            let _ = self.stream.shutdown();
            self.flush(out);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Goes on with the handshake, or with the records that came after it.
    pub(super) fn advance(&mut self, now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        if !self.connected {
            match self.stream.do_handshake() {
                Ok(()) => {
                    self.connected = true;
                    self.deadline = None;
                    self.flight = Vec::new();
                    let proof = Box::new(self.proof()?);
                    self.flush(out);
                    out.push(Produced::Connected(proof));
                }
                Err(error) if is_patient(&error) => {
                    let outgoing = &self.stream.get_ref().outgoing;
                    if !outgoing.is_empty() {
                        self.flight.clone_from(outgoing);
                        self.interval = RETRANSMIT_FIRST;
                        self.deadline = Some(now + self.interval);
                    }
                    self.flush(out);
                    return Ok(());
                }
                // What OpenSSL wanted to say about it (an alert) is dropped with it: a forged ClientHello must not make us
                // tell the true peer that all is lost.
                Err(_) => return Err(Fatal),
            }
        }
        let read = self.read(out);
        self.flush(out);
        read
    }

    /// Gives records of epoch 0 numbers of our own. Nothing authenticates those they came with, and one forged high number
    /// would move the replay window (RFC 6347 §4.1.2.6) past everything that the true peer has yet to send.
    fn renumber(&mut self, datagram: &mut [u8]) {
        let mut rest = datagram;
        while let Some((header, body)) = rest.split_first_chunk_mut::<RECORD_HEADER_SIZE>() {
            if header[3..5] == [0, 0] {
                header[5..11].copy_from_slice(&self.plain_records.to_be_bytes()[2..]);
                self.plain_records += 1;
            }
            let size = usize::from(u16::from_be_bytes([header[11], header[12]]));
            rest = body.get_mut(size..).unwrap_or_default();
        }
    }

    fn read(&mut self, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        let mut buffer = [0; DATAGRAM_SIZE_MAX];
        for _ in 0..RECORDS_MAX {
            match self.stream.ssl_read(&mut buffer) {
                Ok(size) => out.push(Produced::Data(Bytes::copy_from_slice(&buffer[..size]))),
                Err(error) if error.code() == ErrorCode::ZERO_RETURN => {
                    out.push(Produced::CloseNotify);
                    return Ok(());
                }
                Err(error) if is_patient(&error) => return Ok(()),
                Err(_) => return Err(Fatal),
            }
        }
        Ok(())
    }

    /// Hands on what OpenSSL has written, and keeps no room for more of it: an idle association shall be small.
    fn flush(&mut self, out: &mut Vec<Produced>) {
        let outgoing = std::mem::take(&mut self.stream.get_mut().outgoing);
        out.extend(outgoing.into_iter().map(Produced::Datagram));
    }

    fn proof(&self) -> Result<Proof, Fatal> {
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
                Some(SrtpKeys { profile, material, role: self.role })
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
/// Content type, version, epoch, sequence number, length (RFC 6347 §4.1).
const RECORD_HEADER_SIZE: usize = 13;
/// Records of one datagram that carry data.
const RECORDS_MAX: usize = 128;
