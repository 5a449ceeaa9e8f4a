//! What one peer connection is made of: ICE credentials, DTLS identity, channels.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::id::{PeerId, RoomId, TransportId};

/// Which of a peer's two connections (the ion dialect's `target`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Side {
    /// Carries the peer's own media to us; the peer offers. `target` 0.
    Publisher,
    /// Carries others' media to the peer; we offer. `target` 1.
    Subscriber,
}

/// An ICE user fragment and password (RFC 8445 §5.3).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceCredentials {
    /// 4–256 ice-chars.
    pub ufrag: String,
    /// 22–256 ice-chars; a secret.
    pub pwd: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IceCredentials({}, …)", self.ufrag)
    }
}

impl Drop for IceCredentials {
    fn drop(&mut self) {
        self.pwd.zeroize();
    }
}

/// Hash functions that a certificate fingerprint may use (RFC 8122; sha-1 and md5 are refused).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum FingerprintHash {
    /// `sha-256`
    Sha256,
    /// `sha-384`
    Sha384,
    /// `sha-512`
    Sha512,
}

/// The hash of a certificate (RFC 8122).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Which hash.
    pub hash: FingerprintHash,
    /// Its value: 32, 48 or 64 bytes.
    pub value: Vec<u8>,
}

/// Our part in the DTLS handshake (RFC 5763 §5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DtlsRole {
    /// `a=setup:active`: we send the ClientHello.
    Client,
    /// `a=setup:passive`: we wait for it.
    Server,
}

/// What the peer told us of itself in SDP.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemotePeer {
    /// Its ICE credentials, for the checks that we send.
    pub ice: IceCredentials,
    /// At least one; the certificate must match one of each hash named.
    pub fingerprints: Vec<Fingerprint>,
    /// Our role, as its `a=setup` leaves it.
    pub role: DtlsRole,
}

/// The data channels of a transport (`m=application`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChannelSpec {
    /// A label whose messages go to control instead of to the room. On the subscriber's side we open it ourselves
    /// (ordered, reliable) as soon as SCTP is up; on the publisher's side, one that the peer opens is ignored.
    pub api_label: Option<String>,
    /// User channels of the room are opened towards, and fanned out to, this transport.
    pub fan_out: bool,
}

/// A new peer connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TransportSpec {
    /// Its name from here on.
    pub id: TransportId,
    /// Whose it is.
    pub peer: PeerId,
    /// Where its data channels fan out.
    pub room: RoomId,
    /// Which way its media flows.
    pub side: Side,
    /// Our credentials; the data plane answers checks for this `ufrag`, and no other.
    pub local: IceCredentials,
    /// `None` until the peer has answered; DTLS waits for it, since the fingerprint is in it.
    pub remote: Option<RemotePeer>,
    /// `None`: no `m=application` on this transport, SCTP is not served.
    pub channels: Option<ChannelSpec>,
}
