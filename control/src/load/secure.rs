//! DTLS-SRTP of one connection (RFC 5763, RFC 5764): `dimpl` for the handshake, `webrtc-srtp` for media. It shares no code with
//! the data plane, so that a fault of one is seen by the other.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use bytes::Bytes;
use dimpl::{Dtls, DtlsCertificate, Output, SrtpProfile};
use ringmain_shared::Now;
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

/// Which DTLS a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Version {
    /// 1.2, where the server chooses the SRTP profile.
    #[value(name = "1.2")]
    V12,
    /// 1.3.
    #[value(name = "1.3")]
    V13,
    /// Either, as the server likes.
    Auto,
}

/// What all connections of a run share: one certificate, as a browser's peer connections may.
pub(super) struct Identity {
    certificate: DtlsCertificate,
    config: Arc<dimpl::Config>,
    version: Version,
    /// `sha-256 …`, as SDP has it.
    pub(super) fingerprint: String,
    /// The clock of the run began here.
    pub(super) base: Instant,
}

impl Identity {
    pub(super) fn new(version: Version, base: Instant) -> anyhow::Result<Arc<Self>> {
        let certificate = dimpl::certificate::generate_self_signed_certificate()?;
        // libwebrtc's 50 ms: a flight that overtakes the answer on the signalling's way is lost.
        let config = dimpl::Config::builder().flight_start_rto(Duration::from_millis(50)).flight_retries(8).build()?;
        let fingerprint = format!("sha-256 {}", certificate.fingerprint_str());
        Ok(Arc::new(Self { certificate, config: Arc::new(config), version, fingerprint, base }))
    }

    /// The present moment by the clock of the run.
    pub(super) fn now(&self) -> Now {
        Now(u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn instant(&self, now: Now) -> Instant {
        self.base + Duration::from_nanos(now.0)
    }
}

/// A handshake, and its connection afterwards.
pub(super) struct Secure {
    identity: Arc<Identity>,
    dtls: Box<Dtls>,
    is_client: bool,
    /// Of the server, as its SDP has them: algorithm and value.
    fingerprints: Vec<(String, Vec<u8>)>,
    is_proven: bool,
    is_connected: bool,
    /// What came for whoever is above DTLS.
    application: Vec<Bytes>,
    deadline: Option<Now>,
}

/// Media's keys.
pub(super) struct Srtp {
    local: Context,
    remote: Context,
    profile: &'static str,
}

impl fmt::Debug for Srtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Srtp(…)")
    }
}

impl Secure {
    pub(super) fn new(
        identity: Arc<Identity>,
        is_client: bool,
        fingerprints: Vec<(String, Vec<u8>)>,
        now: Now,
    ) -> Self {
        let (config, certificate) = (identity.config.clone(), identity.certificate.clone());
        let instant = identity.instant(now);
        let mut dtls = match identity.version {
            Version::V12 => Dtls::new_12(config, certificate, instant),
            Version::V13 => Dtls::new_13(config, certificate, instant),
            Version::Auto => Dtls::new_auto(config, certificate, instant),
        };
        dtls.set_active(is_client);
        Self {
            identity,
            dtls: Box::new(dtls),
            is_client,
            fingerprints,
            is_proven: false,
            is_connected: false,
            application: Vec::new(),
            deadline: Some(now),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Now> {
        self.deadline
    }

    pub(super) fn handle_timeout(&mut self, now: Now, send: &mut dyn FnMut(&[u8])) -> Result<Option<Srtp>, String> {
        self.dtls.handle_timeout(self.identity.instant(now)).map_err(|error| format!("DTLS: {error}"))?;
        self.poll(now, send)
    }

    /// A datagram of DTLS.
    pub(super) fn handle_datagram(
        &mut self,
        bytes: &[u8],
        now: Now,
        send: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<Srtp>, String> {
        self.dtls.handle_packet(bytes).map_err(|error| format!("DTLS: {error}"))?;
        self.poll(now, send)
    }

    /// The peer has proved itself, and data may flow.
    pub(super) fn is_connected(&self) -> bool {
        self.is_connected && self.is_proven
    }

    /// Takes the data that has come.
    pub(super) fn take_application(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.application)
    }

    /// Sends data.
    pub(super) fn send_application(
        &mut self,
        bytes: &[u8],
        now: Now,
        send: &mut dyn FnMut(&[u8]),
    ) -> Result<(), String> {
        self.dtls.send_application_data(bytes).map_err(|error| format!("DTLS: {error}"))?;
        self.poll(now, send).map(drop)
    }

    /// Says goodbye (RFC 8446 §6.1), so that the server need not wait for consent to run out.
    pub(super) fn close(&mut self, now: Now, send: &mut dyn FnMut(&[u8])) {
        if self.dtls.close().is_ok() {
            let _ = self.poll(now, send);
        }
    }

    /// Gives the keys once, when the handshake is done.
    fn poll(&mut self, now: Now, send: &mut dyn FnMut(&[u8])) -> Result<Option<Srtp>, String> {
        let mut buffer = [0; 4096];
        let mut srtp = None;
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => send(packet),
                Output::Timeout(at) => {
                    let nanos = at.saturating_duration_since(self.identity.base).as_nanos();
                    let at = Now(u64::try_from(nanos).unwrap_or(u64::MAX));
                    // A timer in the past would be due again at once, for ever.
                    self.deadline = Some(at.max(Now(now.0 + 1_000_000)));
                    return Ok(srtp);
                }
                Output::PeerCert(certificate) => {
                    self.is_proven =
                        self.fingerprints.iter().any(|(algorithm, value)| is_of(algorithm, value, certificate));
                    if !self.is_proven {
                        return Err("the server's certificate is not the one of its SDP".into());
                    }
                }
                Output::KeyingMaterial(material, profile) if self.is_proven => {
                    srtp = Some(Srtp::new(&material, profile, self.is_client)?);
                }
                Output::KeyingMaterial(..) => return Err("the server has shown no certificate".into()),
                Output::Connected => self.is_connected = true,
                Output::ApplicationData(bytes) => self.application.push(Bytes::copy_from_slice(bytes)),
                Output::CloseNotify => return Err("the server has closed the connection".into()),
                Output::BufferTooSmall { needed } => return Err(format!("a DTLS datagram of {needed} bytes")),
                _ => {}
            }
        }
    }
}

impl Srtp {
    fn new(material: &[u8], profile: SrtpProfile, is_client: bool) -> Result<Self, String> {
        let (profile, name) = match profile {
            SrtpProfile::AES128_CM_SHA1_80 => (ProtectionProfile::Aes128CmHmacSha1_80, "AES128_CM_SHA1_80"),
            SrtpProfile::AEAD_AES_128_GCM => (ProtectionProfile::AeadAes128Gcm, "AEAD_AES_128_GCM"),
            SrtpProfile::AEAD_AES_256_GCM => (ProtectionProfile::AeadAes256Gcm, "AEAD_AES_256_GCM"),
            other => return Err(format!("SRTP profile {other:?}")),
        };
        let short = || "too little keying material".to_owned();
        // RFC 5764 §4.2: both keys, then both salts, the client's first.
        let (client_key, rest) = material.split_at_checked(profile.key_len()).ok_or_else(short)?;
        let (server_key, rest) = rest.split_at_checked(profile.key_len()).ok_or_else(short)?;
        let (client_salt, rest) = rest.split_at_checked(profile.salt_len()).ok_or_else(short)?;
        let server_salt = rest.get(..profile.salt_len()).ok_or_else(short)?;
        // Without replay protection: duplicates are counted, not hidden, and most packets are never opened.
        let context =
            |key, salt| Context::new(key, salt, profile, None, None).map_err(|error| format!("SRTP: {error}"));
        let client = context(client_key, client_salt)?;
        let server = context(server_key, server_salt)?;
        let (local, remote) = if is_client { (client, server) } else { (server, client) };
        Ok(Self { local, remote, profile: name })
    }

    /// As RFC 5764 and RFC 7714 name it.
    pub(super) fn profile(&self) -> &'static str {
        self.profile
    }

    pub(super) fn protect_rtp(&mut self, packet: &[u8]) -> Option<Bytes> {
        self.local.encrypt_rtp(packet).ok()
    }

    pub(super) fn protect_rtcp(&mut self, packet: &[u8]) -> Option<Bytes> {
        self.local.encrypt_rtcp(packet).ok()
    }

    pub(super) fn unprotect_rtp(&mut self, packet: &[u8]) -> Option<Bytes> {
        self.remote.decrypt_rtp(packet).ok()
    }

    pub(super) fn unprotect_rtcp(&mut self, packet: &[u8]) -> Option<Bytes> {
        self.remote.decrypt_rtcp(packet).ok()
    }
}

fn is_of(algorithm: &str, value: &[u8], certificate: &[u8]) -> bool {
    let algorithm = match algorithm.to_ascii_lowercase().as_str() {
        "sha-256" => &digest::SHA256,
        "sha-384" => &digest::SHA384,
        "sha-512" => &digest::SHA512,
        _ => return false,
    };
    digest::digest(algorithm, certificate).as_ref() == value
}
