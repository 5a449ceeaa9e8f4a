//! Two DTLS engines behind one door. `dimpl` speaks DTLS 1.3 (as a client, 1.2 with those who want it); OpenSSL speaks DTLS 1.2, with RSA
//! certificates too, which some peers (GStreamer's `webrtcbin`) bring and `dimpl` leaves out. What an engine proves, [`Proof`], is for its
//! caller to believe: no engine knows a fingerprint. Both end with the handshake, and hand over to what is small: [`records`] of DTLS 1.2,
//! [`established`] of DTLS 1.3.

mod dtls12;
mod dtls13;
mod established;
pub(crate) mod pipe;
pub mod records;
mod records13;
mod secrets;
mod signing;

use std::fmt;
use std::time::Instant;

use arrayvec::ArrayVec;
use bytes::Bytes;
use ringmain_shared::limits::DATAGRAM_SIZE_MAX;
use ringmain_shared::transport::DtlsRole;
use zeroize::Zeroizing;

use super::client_hello::ClientHello;
use super::identity::{Identity, SetupError};
use crate::srtp::Profile;

/// One DTLS datagram, in or out.
pub type Datagram = ArrayVec<u8, DATAGRAM_SIZE_MAX>;

/// What a finished handshake gives SRTP. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct SrtpKeys {
    /// Which transform.
    pub profile: Profile,
    /// `profile.keying_material_len()` bytes: client key, server key, client salt, server salt (RFC 5764 §4.2).
    pub material: Zeroizing<Vec<u8>>,
    /// Which half is ours.
    pub role: DtlsRole,
}

impl fmt::Debug for SrtpKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SrtpKeys({:?}, {:?}, …)", self.profile, self.role)
    }
}

/// What both engines are made with.
pub(super) struct Engines {
    dtls12: dtls12::Setup,
    dtls13: dtls13::Setup,
}

impl Engines {
    pub(super) fn new(identity: &Identity) -> Result<Self, SetupError> {
        Ok(Self { dtls12: dtls12::Setup::new(identity)?, dtls13: dtls13::Setup::new(identity)? })
    }

    /// The engine that can answer `hello`, best one first; `None` when nothing that it offers is acceptable.
    ///
    /// DTLS 1.3 answers with the client's first SRTP profile, and some clients (libwebrtc) put AES-CM-SHA1 before AES-GCM, which
    /// costs several times as much for each packet of media. Such a client gets DTLS 1.2, where the choice is ours.
    pub(super) fn server(&self, hello: &ClientHello, now: Instant) -> Option<Engine> {
        let mut profiles = hello.srtp_profiles.iter().filter_map(|&id| Profile::from_id(id));
        let first = profiles.next()?;
        let loses_gcm = first == Profile::Aes128CmHmacSha1_80 && profiles.next().is_some();
        if hello.dtls13 && !(hello.dtls12 && loses_gcm) {
            Some(Engine::Dtls13(self.dtls13.server(now)))
        } else if hello.dtls12 {
            self.dtls12.start(DtlsRole::Server).map(|engine| Engine::Dtls12(Box::new(engine)))
        } else {
            None
        }
    }

    /// An engine that begins the handshake itself: DTLS 1.2, which every WebRTC peer speaks, whatever its certificate.
    pub(super) fn client(&self) -> Option<Engine> {
        self.dtls12.start(DtlsRole::Client).map(|engine| Engine::Dtls12(Box::new(engine)))
    }

    /// The same for a peer that does not answer that: DTLS 1.3 is offered beside 1.2, for certificates of ECDSA.
    pub(super) fn client_of_both(&self, now: Instant) -> Engine {
        Engine::Dtls13(self.dtls13.client(now))
    }
}

#[cfg(test)]
impl Engines {
    /// A DTLS 1.2 server without a look at the ClientHello: a peer for tests.
    pub(super) fn dtls12_server(&self) -> Option<Engine> {
        self.dtls12.start(DtlsRole::Server).map(|engine| Engine::Dtls12(Box::new(engine)))
    }

    /// A DTLS 1.3 server, with a HelloRetryRequest or without.
    pub(super) fn dtls13_server(identity: &Identity, retries: bool, now: Instant) -> Engine {
        Engine::Dtls13(dtls13::Setup::with_cookie(identity, retries).unwrap().server(now))
    }

    /// Engines with other SRTP profiles, in OpenSSL's spelling.
    pub(super) fn with_profiles(identity: &Identity, profiles: &str) -> Self {
        let dtls12 = dtls12::Setup::with_profiles(identity, profiles).unwrap();
        Self { dtls12, dtls13: dtls13::Setup::new(identity).unwrap() }
    }
}

#[cfg(test)]
impl Engine {
    /// A DTLS 1.2 client of any making.
    pub(super) fn bare_client(ssl: openssl::ssl::Ssl) -> Self {
        Engine::Dtls12(Box::new(dtls12::Dtls12::over(ssl, DtlsRole::Client).unwrap()))
    }
}

/// One DTLS association. After an `Err` it is of no more use.
pub(super) enum Engine {
    Dtls12(Box<dtls12::Dtls12>),
    Dtls13(dtls13::Dtls13),
}

/// What an engine has to say.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "datagrams are the common case, and lie in place instead of on the heap")]
pub(super) enum Produced {
    /// Send this.
    Datagram(Datagram),
    /// The handshake is done. Comes once, before any data.
    Connected(Box<Proof>),
    /// Application data of one record.
    Data(Bytes),
    /// The peer has said close_notify.
    CloseNotify,
}

/// What the handshake proved: the peer holds the key of `certificate`.
#[derive(Debug)]
pub(super) struct Proof {
    /// The peer's certificate in DER.
    pub(super) certificate: Vec<u8>,
    /// `None` when no SRTP profile was agreed on.
    pub(super) keys: Option<SrtpKeys>,
}

/// The association has failed.
#[derive(Debug)]
pub(super) struct Fatal;

impl Engine {
    /// Sends the first flight, where that is ours.
    pub(super) fn begin(&mut self, now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        match self {
            Self::Dtls12(engine) => engine.advance(now, out),
            Self::Dtls13(engine) => engine.handle_timeout(now, out),
        }
    }

    pub(super) fn handle_datagram(&mut self, bytes: &[u8], now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        match self {
            Self::Dtls12(engine) => engine.handle_datagram(bytes, now, out),
            Self::Dtls13(engine) => engine.handle_datagram(bytes, now, out),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        match self {
            Self::Dtls12(engine) => engine.handle_timeout(now, out),
            Self::Dtls13(engine) => engine.handle_timeout(now, out),
        }
    }

    /// Sends application data as one record.
    pub(super) fn send(&mut self, data: &[u8], now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        match self {
            Self::Dtls12(engine) => engine.send(data, out),
            Self::Dtls13(engine) => engine.send(data, now, out),
        }
    }

    /// Says close_notify.
    pub(super) fn close(&mut self, out: &mut Vec<Produced>) {
        match self {
            Self::Dtls12(engine) => engine.close(out),
            Self::Dtls13(engine) => engine.close(out),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Dtls12(engine) => engine.deadline(),
            Self::Dtls13(engine) => engine.deadline(),
        }
    }
}

/// Bytes of the largest DTLS datagram that we send: with IPv6 and UDP headers still below IPv6's least MTU of 1280.
const DTLS_MTU: usize = 1200;
