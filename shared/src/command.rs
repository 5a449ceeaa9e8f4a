//! What control asks of the data plane. Every command is whole in itself, names things by id, and may be sent twice.

use serde::{Deserialize, Serialize};

use crate::id::{SubscriptionId, TrackId, TransportId, WorkerIndex};
use crate::media::{
    ExtensionIds, Kind, Mid, ReceiveCodec, RidLayer, SendCodec, SpatialLayer, Ssrc, SsrcLayer, TemporalLayer,
};
use crate::transport::{IceCredentials, RemotePeer, TransportSpec};
use crate::turn::TurnCommand;

/// One order to the data plane. About an unknown id it does nothing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Answer ICE checks for a new peer connection, on this worker's port.
    OpenTransport {
        /// Whose port the SDP names.
        worker: WorkerIndex,
        /// The connection.
        spec: Box<TransportSpec>,
    },
    /// The peer has answered: checks may be verified, DTLS may begin. Also ends an ICE restart that we offered.
    SetRemote {
        /// Which connection.
        transport: TransportId,
        /// What the peer's SDP said.
        remote: RemotePeer,
    },
    /// New local credentials (RFC 8445 §9). The old ones hold until the first valid check with the new ones.
    RestartIce {
        /// Which connection.
        transport: TransportId,
        /// The next generation of our credentials.
        local: IceCredentials,
        /// The peer's, when it was the peer that restarted; otherwise `SetRemote` brings them.
        remote: Option<RemotePeer>,
    },
    /// End a connection and everything on it. Says close_notify to the peer.
    CloseTransport {
        /// Which connection.
        transport: TransportId,
    },
    /// Everything that this transport may send us, replacing what was said before: an absent track has ended.
    Receive {
        /// A publisher's transport.
        transport: TransportId,
        /// What it may send.
        spec: ReceiveSpec,
    },
    /// Forward a track to a subscriber. Repeated with the same id, it replaces.
    Subscribe(Box<SubscriptionSpec>),
    /// Change what of a track is forwarded.
    Adjust {
        /// Which.
        subscription: SubscriptionId,
        /// Send nothing; sequence numbers and timestamps continue afterwards.
        muted: bool,
        /// The highest layer wanted.
        spatial_max: SpatialLayer,
        /// The highest temporal layer wanted.
        temporal_max: TemporalLayer,
    },
    /// Stop forwarding and forget.
    Unsubscribe {
        /// Which.
        subscription: SubscriptionId,
    },
    /// Send text on the transport's API channel (`ChannelSpec::api_label`); held until the channel is open.
    SendApi {
        /// A subscriber's transport.
        transport: TransportId,
        /// One message.
        text: String,
    },
    /// List every live flow, answered by one `Event::Snapshot` per worker.
    Snapshot {
        /// Comes back in the answer.
        request: u64,
    },
    /// To the TURN server of every worker.
    Turn(TurnCommand),
}

/// What a publisher's transport may send.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReceiveSpec {
    /// Ids of its header extensions.
    pub extensions: ExtensionIds,
    /// Answer with transport-wide feedback (needs the extension).
    pub transport_cc: bool,
    /// Answer with REMB (where there is no transport-wide feedback).
    pub remb: bool,
    /// Its tracks.
    pub tracks: Vec<TrackSpec>,
}

/// One published track.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TrackSpec {
    /// Its name.
    pub id: TrackId,
    /// The m-section it came in.
    pub mid: Mid,
    /// Audio or video.
    pub kind: Kind,
    /// Its payload types.
    pub codecs: Vec<ReceiveCodec>,
    /// SSRCs that the SDP announced; empty when streams are to be found by mid and rid.
    pub ssrcs: Vec<SsrcLayer>,
    /// Simulcast layers by rid; empty when there is one layer.
    pub rids: Vec<RidLayer>,
}

/// One track on its way to one subscriber.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubscriptionSpec {
    /// Its name.
    pub id: SubscriptionId,
    /// The subscriber's connection.
    pub transport: TransportId,
    /// What is forwarded.
    pub track: TrackId,
    /// Audio or video.
    pub kind: Kind,
    /// The m-section it goes in.
    pub mid: Mid,
    /// The SSRC it goes under; never one of a publisher's.
    pub ssrc: Ssrc,
    /// The SSRC of its retransmissions.
    pub rtx_ssrc: Option<Ssrc>,
    /// The CNAME of its source description (RFC 3550 §6.5.1): one per publisher, so that its audio and video are synchronised.
    pub cname: String,
    /// Payload types, publisher's to subscriber's.
    pub codecs: Vec<SendCodec>,
    /// Ids of the header extensions at the subscriber.
    pub extensions: ExtensionIds,
    /// Begin muted.
    pub muted: bool,
    /// The highest layer wanted.
    pub spatial_max: SpatialLayer,
    /// The highest temporal layer wanted.
    pub temporal_max: TemporalLayer,
}
