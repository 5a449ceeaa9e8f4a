//! One participant and its two connections.

use std::collections::{BTreeMap, BTreeSet};

use ringmain_shared::Now;
use ringmain_shared::command::{ReceiveSpec, SubscriptionSpec};
use ringmain_shared::event::IceState;
use ringmain_shared::id::{RoomId, SubscriptionId, TrackId, TransportId, WorkerIndex};
use ringmain_shared::media::{Mid, SpatialLayer, Ssrc, TemporalLayer};
use ringmain_shared::transport::RemotePeer;
use serde_json::Value;

use super::ConnectionId;
use super::news::Untold;
use crate::rpc::TokenBucket;
use crate::sdp::{Answerer, Local, Offerer, SessionName};

/// Someone in a room.
pub(super) struct Peer {
    pub(super) room: RoomId,
    /// Its WebSocket.
    pub(super) connection: ConnectionId,
    pub(super) uid: String,
    /// For the others to see.
    pub(super) info: Option<Value>,
    /// Of all its tracks, so that subscribers play its audio and video in time with each other (RFC 3550 §6.5.1).
    pub(super) cname: String,
    /// It did not join with `NoPublish`.
    pub(super) may_publish: bool,
    /// `None` too after the connection ended by itself; the next offer of another RTCPeerConnection opens another.
    pub(super) publisher: Option<Box<Publisher>>,
    /// The session that ended by itself.
    pub(super) ended: Option<SessionName>,
    /// `None` too after the connection ended by itself.
    pub(super) subscriber: Option<Subscriber>,
    /// Its streams: its own id of each, what subscribers see, and how many tracks it has.
    pub(super) streams: BTreeMap<String, ShownStream>,
    /// What of the room it came into it has not been told yet.
    pub(super) untold: Untold,
}

/// A stream's name in the room, for as long as it has tracks.
pub(super) struct ShownStream {
    pub(super) shown: String,
    pub(super) tracks: usize,
}

/// The connection that carries a peer's own media.
pub(super) struct Publisher {
    pub(super) transport: TransportId,
    pub(super) worker: WorkerIndex,
    pub(super) answerer: Answerer,
    pub(super) local: Local,
    pub(super) remote: RemotePeer,
    /// The peer's end of it.
    pub(super) session: SessionName,
    /// What the data plane was last told.
    pub(super) receive: ReceiveSpec,
    /// What is published, by m-section.
    pub(super) tracks: BTreeMap<Mid, TrackId>,
}

/// The connection that carries others' media to a peer.
pub(super) struct Subscriber {
    pub(super) transport: TransportId,
    pub(super) worker: WorkerIndex,
    pub(super) offerer: Offerer,
    pub(super) local: Local,
    /// `None` until the first answer.
    pub(super) remote: Option<RemotePeer>,
    /// Every track of the room is wanted.
    pub(super) auto: bool,
    /// Tracks that were unsubscribed by name: automatism leaves them alone.
    pub(super) unwanted: BTreeSet<TrackId>,
    /// The log has heard that it has as many tracks as it may.
    pub(super) full_told: bool,
    pub(super) subscriptions: BTreeMap<SubscriptionId, Subscription>,
    pub(super) by_track: BTreeMap<TrackId, SubscriptionId>,
    /// An offer is owed even if no track changed: the first, a restart, or one that was not answered.
    pub(super) offer_owed: bool,
    /// Offers in a row that were not answered in time.
    pub(super) unanswered: u32,
    /// The next offer restarts ICE.
    pub(super) restart_owed: bool,
    /// An offer with new credentials awaits its answer.
    pub(super) restarting: bool,
    /// Answers that may yet come to offers from before the restart, which were given up.
    pub(super) late_answers: u32,
    /// Restarts since ICE was last connected.
    pub(super) restarts: u32,
    pub(super) restarted_at: Option<Now>,
    pub(super) ice: IceState,
    /// Its API channel is open.
    pub(super) api_open: bool,
    /// How often it may speak on the API channel.
    pub(super) api_rate: TokenBucket,
}

/// A track on its way to a subscriber.
pub(super) struct Subscription {
    pub(super) track: TrackId,
    pub(super) ssrc: Ssrc,
    pub(super) rtx_ssrc: Option<Ssrc>,
    pub(super) wish: Wish,
    /// What the data plane was last told; `None` before the peer has accepted the track.
    pub(super) live: Option<SubscriptionSpec>,
    /// The layer that arrives.
    pub(super) forwarded: Option<SpatialLayer>,
    /// Active layer and available layers that the peer was last told.
    pub(super) told: Option<(SpatialLayer, u8)>,
}

/// What of a track a subscriber wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wish {
    pub(super) muted: bool,
    pub(super) spatial_max: SpatialLayer,
    pub(super) temporal_max: TemporalLayer,
}

impl Default for Wish {
    /// The best there is.
    fn default() -> Self {
        Self { muted: false, spatial_max: 2, temporal_max: 2 }
    }
}

impl Subscriber {
    /// An SSRC is in use on this connection.
    pub(super) fn uses(&self, ssrc: Ssrc) -> bool {
        self.subscriptions.values().any(|sub| sub.ssrc == ssrc || sub.rtx_ssrc == Some(ssrc))
    }
}
