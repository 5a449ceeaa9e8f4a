//! One peer connection on a worker: its ICE agent ([`ice`]), its SRTP keys, and its two halves.
//!
//! The [`publisher`] half knows the streams that come in; the subscriber half what goes out. Both may exist on one transport,
//! though the ion dialect uses one connection for each. Never sees a socket: the worker owns those.

pub mod bucket;
pub mod ice;
pub mod publisher;
pub mod repairs;
pub mod subscriber;

use ringmain_shared::Now;
use ringmain_shared::event::IceState;
use ringmain_shared::id::{PeerId, RoomId, TransportId};
use ringmain_shared::transport::Side;

pub use bucket::TokenBucket;
pub use ice::{Claim, IceAgent, Reaction};
pub use publisher::{Publisher, PublisherSettings};
pub use subscriber::Subscriber;

use crate::buf::{prefetch, prefetch_whole};
use crate::srtp::{Inbound, Outbound};

slotmap::new_key_type! {
    /// A transport of this worker, with its generation.
    pub struct TransportKey;
}

/// One peer connection.
#[derive(Debug)]
pub struct Transport {
    /// Control's name for it.
    pub id: TransportId,
    /// Whose it is.
    pub peer: PeerId,
    /// Where it belongs.
    pub room: RoomId,
    /// Which way its media flows.
    pub side: Side,
    /// Who it talks to, and where.
    pub ice: IceAgent,
    /// ICE's state as control was last told.
    pub ice_told: IceState,
    /// The number in its STUN transaction ids.
    pub number: u32,
    /// Control ended it; only DTLS may still say so to the peer.
    pub closing: bool,
    /// How often it may send RTCP.
    pub rtcp_budget: TokenBucket,
    /// How often it may send DTLS.
    pub dtls_budget: TokenBucket,
    /// SRTP keys, once the handshake is done.
    pub keys: Option<Keys>,
    /// Our user fragment before the last ICE restart.
    pub former_ufrag: Option<String>,
    /// The handshake threads know that an address is proved.
    pub validated: bool,
    /// What it sends us.
    pub publisher: Option<Box<Publisher>>,
    /// What we send it.
    pub subscriber: Subscriber,
    /// The earliest timer that is set for it.
    pub timer: Option<Now>,
    /// When it has been without a connection for too long.
    pub abandoned_at: Option<Now>,
}

/// Both directions of SRTP.
#[derive(Debug)]
pub struct Keys {
    /// Theirs.
    pub inbound: Inbound,
    /// Ours.
    pub outbound: Outbound,
}

impl Transport {
    /// ICE has found the peer, and DTLS its keys.
    pub fn can_send(&self) -> bool {
        self.keys.is_some() && self.ice.selected().is_some()
    }

    /// Media goes out to it, or reports about its own.
    pub fn sends_media(&self) -> bool {
        let reports = self.publisher.as_deref().and_then(|publisher| publisher.report_at);
        self.subscriber.report_at.or(reports).is_some()
    }

    /// A packet is forwarded to it soon: brings what that needs into the caches.
    #[inline]
    pub fn expect(&self) {
        prefetch(&self.subscriber.transport_sequence);
        prefetch(&self.subscriber.report_at);
        self.ice.expect();
        prefetch_whole(&self.keys);
    }

    /// A message of ICE is handled soon, or a timer.
    #[inline]
    pub fn expect_ice(&self) {
        prefetch_whole(&self.ice);
        prefetch(&self.subscriber.report_at);
        prefetch(&self.timer);
        prefetch(&self.ice_told);
    }

    /// Brings what its keys need, once what leads to them is there.
    #[inline]
    pub fn expect_keys(&self) {
        if let Some(keys) = &self.keys {
            keys.outbound.expect();
        }
    }
}
