//! DTLS 1.3 (RFC 9147) by `dimpl`: a server of it, and a client that takes DTLS 1.2 as well. A server is `dimpl`'s up to the end of its
//! handshake only: see [`established`](super::established).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dimpl::{Config, Dtls, DtlsCertificate, Output};
use ringmain_shared::limits::{self, DATAGRAM_SIZE_MAX};
use ringmain_shared::transport::DtlsRole;
use zeroize::Zeroizing;

use super::established::{APPLICATION_EPOCH, Established};
use super::records::{HANDSHAKE, HEADER_SIZE};
use super::records13::{Reading, epoch_bits, split};
use super::secrets::{self, Overheard};
use super::signing::NamedKey;
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
        // The address is proved by ICE before DTLS begins; another round trip would prove nothing more.
        Self::with_cookie(identity, false)
    }

    pub(super) fn with_cookie(identity: &Identity, use_cookie: bool) -> Result<Self, SetupError> {
        let config = Config::builder()
            .with_crypto_provider(secrets::provider())
            .mtu(DTLS_MTU)
            // What goes on after the handshake counts on one message more of ours and two more of the client's.
            .require_client_certificate(true)
            .use_server_cookie(use_cookie)
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
pub(in crate::handshake) enum Dtls13 {
    /// In its handshake; where we are the client, for as long as it lives.
    Whole(Box<Whole>),
    /// What is left of a server after its handshake.
    Established(Box<Established>),
}

/// As long as `dimpl` is needed.
pub(in crate::handshake) struct Whole {
    dtls: Dtls,
    role: DtlsRole,
    certificate: Vec<u8>,
    keys: Option<SrtpKeys>,
    connected: bool,
    deadline: Option<Instant>,
    overheard: Overheard,
    /// Which message our ServerHello was.
    hello: Option<u16>,
    /// Records of epoch 3 that went out already: the ACK of the client's last flight.
    sent: Vec<Box<[u8]>>,
    /// What reads the client's records of epoch 3 once their keys are known.
    reading: Option<Box<Reading>>,
    /// Those that came in already.
    early: Vec<Box<[u8]>>,
}

impl Dtls13 {
    fn over(dtls: Dtls, role: DtlsRole) -> Self {
        Self::Whole(Box::new(Whole {
            dtls,
            role,
            certificate: Vec::new(),
            keys: None,
            connected: false,
            deadline: None,
            overheard: Overheard::default(),
            hello: None,
            sent: Vec::new(),
            reading: None,
            early: Vec::new(),
        }))
    }

    pub(super) fn handle_datagram(&mut self, bytes: &[u8], now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        match self {
            Self::Whole(whole) => {
                whole.handle_datagram(bytes, now, out)?;
                self.establish(now, out)
            }
            Self::Established(established) => established.handle_datagram(bytes, now, out),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        match self {
            Self::Whole(whole) => {
                whole.handle_timeout(now, out)?;
                self.establish(now, out)
            }
            Self::Established(established) => established.handle_timeout(now, out),
        }
    }

    pub(super) fn send(&mut self, data: &[u8], now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        match self {
            Self::Whole(whole) => whole.send(data, now, out),
            Self::Established(established) => established.send(data, now, out),
        }
    }

    pub(super) fn close(&mut self, out: &mut Vec<Produced>) {
        match self {
            Self::Whole(whole) => whole.close(out),
            Self::Established(established) => established.close(out),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Whole(whole) => whole.deadline,
            Self::Established(established) => established.deadline(),
        }
    }

    /// Lets go of `dimpl`, once the handshake of a server is done.
    fn establish(&mut self, now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        let Self::Whole(whole) = self else { return Ok(()) };
        if whole.role == DtlsRole::Client || !whole.connected {
            return Ok(());
        }
        let secrets = std::mem::take(&mut whole.overheard).into_secrets().ok_or(Fatal)?;
        let sent = whole.sent.iter().map(|record| &**record);
        let mut established = Established::new(&secrets, whole.hello.ok_or(Fatal)?, sent).ok_or(Fatal)?;
        let early = std::mem::take(&mut whole.early);
        let heard = early.iter().try_for_each(|record| established.handle_datagram(record, now, out));
        *self = Self::Established(Box::new(established));
        heard
    }
}

impl Whole {
    fn handle_datagram(&mut self, bytes: &[u8], now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        self.handle_timeout(now, out)?;
        match self.role {
            DtlsRole::Client => self.dtls.handle_packet(bytes).map_err(|_| Fatal)?,
            DtlsRole::Server => {
                let datagram = self.put_by(bytes);
                if !datagram.is_empty() {
                    self.overhear(|dtls| dtls.handle_packet(&datagram))?;
                }
            }
        }
        self.drain(out)
    }

    /// What is `dimpl`'s of a datagram. Records of epoch 3 that are authentic are kept for whoever goes on after it.
    fn put_by(&mut self, bytes: &[u8]) -> Datagram {
        let mut plaintext = [0; DATAGRAM_SIZE_MAX];
        let mut rest = Datagram::new();
        self.reading = self.reading.take().or_else(|| self.overheard.client().map(Reading::new).map(Box::new));
        for record in split(bytes) {
            match &mut self.reading {
                Some(reading) if is_application(record) => {
                    let is_new = reading.open(record, &mut plaintext).is_some_and(|(_, is_new)| is_new);
                    if is_new && self.early.len() < EARLY_MAX {
                        self.early.push(record.into());
                    }
                }
                // It is a part of a datagram.
                _ => _ = rest.try_extend_from_slice(record),
            }
        }
        rest
    }

    /// Has `dimpl` act; the secrets that a server of it derives are overheard.
    fn overhear<T>(&mut self, act: impl FnOnce(&mut Dtls) -> Result<T, dimpl::Error>) -> Result<T, Fatal> {
        let Self { dtls, overheard, .. } = self;
        let result = match self.role {
            DtlsRole::Server => secrets::overhear(overheard, || act(dtls)),
            DtlsRole::Client => act(dtls),
        };
        result.map_err(|_| Fatal)
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        self.overhear(|dtls| dtls.handle_timeout(now))?;
        self.drain(out)
    }

    fn send(&mut self, data: &[u8], now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        self.dtls.handle_timeout(now).map_err(|_| Fatal)?;
        self.dtls.send_application_data(data).map_err(|_| Fatal)?;
        self.drain(out)
    }

    fn close(&mut self, out: &mut Vec<Produced>) {
        if self.dtls.close().is_ok() {
            // The association is over whether or not its last word can be said.
            let _ = self.drain(out);
        }
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
                    // What a client sends after its handshake is nobody's to keep.
                    for record in split(bytes).filter(|_| !self.connected) {
                        if self.role == DtlsRole::Server && is_application(record) {
                            self.sent.push(record.into());
                        }
                        self.hello = server_hello(record).or(self.hello);
                    }
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

/// Whether a record is of epoch 3, as long as there is no later one.
fn is_application(record: &[u8]) -> bool {
    epoch_bits(record).is_some_and(|bits| u64::from(bits) == APPLICATION_EPOCH)
}

/// Which message of the handshake the ServerHello is that a record of plaintext begins with (RFC 9147 §5.2).
fn server_hello(record: &[u8]) -> Option<u16> {
    let (&[content, ..], message) = record.split_first_chunk::<HEADER_SIZE>()?;
    let &[kind, _, _, _, high, low] = message.first_chunk()?;
    (content == HANDSHAKE && kind == SERVER_HELLO).then_some(u16::from_be_bytes([high, low]))
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
/// Records of data that may come before the handshake is done.
const EARLY_MAX: usize = 16;
/// Handshake message (RFC 8446 §4.1.3).
const SERVER_HELLO: u8 = 2;
/// Outputs of one step. A datagram in makes a flight out at most.
const OUTPUTS_MAX: usize = 512;
/// The most that an output may ask for: a record of the largest size.
const BUFFER_SIZE_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn datagrams(out: Vec<Produced>) -> Vec<Datagram> {
        let of = |item| if let Produced::Datagram(bytes) = item { Some(bytes) } else { None };
        out.into_iter().filter_map(of).collect()
    }

    #[test]
    fn a_client_keeps_nothing_of_what_it_sends() {
        let [ours, theirs] =
            [(); 2].map(|()| Setup::new(&Identity::generate().expect("a certificate")).expect("sound"));
        let now = Instant::now();
        let (mut client, mut server) = (ours.client(now), theirs.server(now));
        let mut out = Vec::new();
        client.handle_timeout(now, &mut out).expect("begins");
        for _ in 0..6 {
            let mut answers = Vec::new();
            for bytes in datagrams(std::mem::take(&mut out)) {
                server.handle_datagram(&bytes, now, &mut answers).expect("sound");
            }
            for bytes in datagrams(answers) {
                client.handle_datagram(&bytes, now, &mut out).expect("sound");
            }
        }
        assert!(matches!(server, Dtls13::Established(_)), "the handshake is done");
        for _ in 0..100 {
            client.send(&[7; 1000], now, &mut out).expect("connected");
        }
        let Dtls13::Whole(whole) = client else { panic!("a client stays as it is") };
        assert!(whole.connected && whole.sent.is_empty() && whole.early.is_empty());
    }
}
