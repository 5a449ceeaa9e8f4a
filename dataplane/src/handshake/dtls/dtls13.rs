//! DTLS 1.3 (RFC 9147) by `dimpl`: a server of it, and a client that takes DTLS 1.2 as well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dimpl::{Config, Dtls, DtlsCertificate, Output};
use ringmain_shared::limits;
use ringmain_shared::transport::DtlsRole;
use zeroize::Zeroizing;

use super::signing::{self, NamedKey};
use super::{DTLS_MTU, Datagram, Fatal, Produced, Proof, SrtpKeys};
use crate::handshake::identity::{Identity, SetupError};
use crate::srtp::Profile;

/// Configuration that all associations share.
pub(in crate::handshake) struct Setup {
    config: Arc<Config>,
    certificate: DtlsCertificate,
    /// What `certificate` has in the place of a private key.
    _key: NamedKey,
}

impl Setup {
    pub(super) fn new(identity: &Identity) -> Result<Self, SetupError> {
        let config = Config::builder()
            .with_crypto_provider(signing::provider())
            .mtu(DTLS_MTU)
            // The address is proved by ICE before DTLS begins; another round trip would prove nothing more.
            .use_server_cookie(false)
            .flight_start_rto(RETRANSMIT_FIRST)
            .flight_retries(RETRIES)
            .handshake_timeout(limits::HANDSHAKE)
            .build()
            .map_err(|error| SetupError::new(format!("{error:?}")))?;
        let key = NamedKey::new(identity.private_key());
        let certificate = DtlsCertificate { certificate: identity.certificate().to_vec(), private_key: key.name() };
        Ok(Self { config: Arc::new(config), certificate, _key: key })
    }

    pub(super) fn server(&self, now: Instant) -> Dtls13 {
        Dtls13::over(Dtls::new_13(self.config.clone(), self.certificate.clone(), now), DtlsRole::Server)
    }

    pub(super) fn client(&self, now: Instant) -> Dtls13 {
        let mut dtls = Dtls::new_auto(self.config.clone(), self.certificate.clone(), now);
        dtls.set_active(true);
        Dtls13::over(dtls, DtlsRole::Client)
    }
}

/// One association.
pub(in crate::handshake) struct Dtls13 {
    dtls: Dtls,
    role: DtlsRole,
    certificate: Vec<u8>,
    keys: Option<SrtpKeys>,
    connected: bool,
    deadline: Option<Instant>,
}

impl Dtls13 {
    fn over(dtls: Dtls, role: DtlsRole) -> Self {
        Self { dtls, role, certificate: Vec::new(), keys: None, connected: false, deadline: None }
    }

    pub(super) fn handle_datagram(&mut self, bytes: &[u8], now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        self.handle_timeout(now, out)?;
        self.dtls.handle_packet(bytes).map_err(|_| Fatal)?;
        self.drain(out)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        self.dtls.handle_timeout(now).map_err(|_| Fatal)?;
        self.drain(out)
    }

    pub(super) fn send(&mut self, data: &[u8], now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        self.dtls.handle_timeout(now).map_err(|_| Fatal)?;
        self.dtls.send_application_data(data).map_err(|_| Fatal)?;
        self.drain(out)
    }

    pub(super) fn close(&mut self, out: &mut Vec<Produced>) {
        if self.dtls.close().is_ok() {
            // The association is over whether or not its last word can be said.
            let _ = self.drain(out);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn drain(&mut self, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        let mut small = [0; 2048];
        let mut large = Vec::new();
        let mut buffer = small.as_mut_slice();
        let mut after = Vec::new();
        let mut connected = false;
        for _ in 0..OUTPUTS_MAX {
            match self.dtls.poll_output(buffer) {
                Output::Packet(bytes) => {
                    out.extend(Datagram::try_from(bytes as &[u8]).ok().map(Produced::Datagram));
                }
                Output::BufferTooSmall { needed } => {
                    large.resize(needed.min(BUFFER_SIZE_MAX), 0);
                    buffer = &mut large;
                }
                Output::Connected => connected = true,
                Output::PeerCert(certificate) => self.certificate = certificate.to_vec(),
                Output::KeyingMaterial(material, profile) => self.keys = keys(&material, profile, self.role),
                Output::ApplicationData(data) => after.push(Produced::Data(Bytes::copy_from_slice(data))),
                Output::CloseNotify => after.push(Produced::CloseNotify),
                Output::Timeout(at) => {
                    self.deadline = Some(at);
                    if connected && !self.connected {
                        self.connected = true;
                        let certificate = std::mem::take(&mut self.certificate);
                        out.push(Produced::Connected(Box::new(Proof { certificate, keys: self.keys.take() })));
                    }
                    out.append(&mut after);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(Fatal)
    }
}

fn keys(material: &[u8], profile: dimpl::SrtpProfile, role: DtlsRole) -> Option<SrtpKeys> {
    let profile = match profile {
        dimpl::SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
        dimpl::SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
        dimpl::SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128CmHmacSha1_80,
        _ => return None,
    };
    let material = Zeroizing::new(material.to_vec());
    (material.len() == profile.keying_material_len()).then_some(SrtpKeys { profile, material, role })
}

/// First retransmission of a flight; then doubling.
const RETRANSMIT_FIRST: Duration = Duration::from_millis(200);
/// More than fit into `limits::HANDSHAKE`: the deadline ends a handshake, not the count.
const RETRIES: usize = 64;
/// Outputs of one step. A datagram in makes a flight out at most.
const OUTPUTS_MAX: usize = 512;
/// The most that an output may ask for: a record of the largest size.
const BUFFER_SIZE_MAX: usize = 64 * 1024;
