//! What the data plane tells control. Events are facts; nothing waits for an answer to one.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::command::{ReceiveSpec, SubscriptionSpec};
use crate::drop_reason::DropReason;
use crate::id::{RoomId, SubscriptionId, TrackId, TransportId, WorkerIndex};
use crate::media::{SpatialLayer, TemporalLayer};
use crate::transport::{Fingerprint, Side};
use crate::turn::{TurnEvent, TurnStats};

/// One fact from the data plane.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Event {
    /// ICE of a transport moved (RFC 8445 terms as browsers show them).
    IceState {
        /// Which connection.
        transport: TransportId,
        /// Where to.
        state: IceState,
    },
    /// DTLS is done and its fingerprint matched: media can flow.
    Secured {
        /// Which connection.
        transport: TransportId,
    },
    /// A transport ended by itself; everything on it is gone. Control need not close it.
    Closed {
        /// Which connection.
        transport: TransportId,
        /// Why.
        reason: CloseReason,
    },
    /// The set of layers of a track that carry media changed.
    LayersActive {
        /// Which track.
        track: TrackId,
        /// Bit n: spatial layer n is alive.
        layers: u8,
    },
    /// A subscriber now gets this layer.
    LayerForwarded {
        /// Which subscription.
        subscription: SubscriptionId,
        /// Simulcast layer.
        spatial: SpatialLayer,
        /// Highest temporal layer.
        temporal: TemporalLayer,
    },
    /// Loudness of the tracks that were heard in the interval (`audiolevelinterval`); none heard, none listed.
    AudioActivity {
        /// Whose port the publishers are on.
        worker: WorkerIndex,
        /// One row for each track heard.
        levels: Vec<AudioActivity>,
    },
    /// A message came in on a transport's API channel.
    ApiMessage {
        /// A subscriber's transport.
        transport: TransportId,
        /// As sent, at most `limits::CHANNEL_MESSAGE_SIZE_MAX` bytes.
        text: String,
    },
    /// Counters of TCP and TLS connections since the start; told when they have changed.
    Streams(StreamStats),
    /// The API channel of a transport is open.
    ApiOpen {
        /// A subscriber's transport.
        transport: TransportId,
    },
    /// Counters of one worker, about once a second.
    Stats(Box<WorkerStats>),
    /// Counters of one handshake thread, about once a second.
    HandshakeStats {
        /// Which thread, from 0.
        thread: u16,
        /// Since it started.
        stats: HandshakeStats,
    },
    /// A thread of the data plane has not turned for too long: what goes through it stands still. Told once.
    Stalled {
        /// Its name, as the system shows it.
        thread: String,
        /// For how long, milliseconds.
        silent_ms: u64,
    },
    /// A thread that was told to have stalled turns again.
    Recovered {
        /// Its name.
        thread: String,
    },
    /// The answer to `Command::Snapshot`.
    Snapshot {
        /// As asked.
        request: u64,
        /// Who answers.
        worker: WorkerIndex,
        /// Every live flow.
        flows: Vec<Flow>,
    },
    /// Something about TURN.
    Turn(Box<TurnEvent>),
}

/// What a data plane is, told once before any event.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Fingerprint of the certificate of every DTLS association.
    pub fingerprint: Fingerprint,
    /// Its workers, by index.
    pub workers: Vec<WorkerInfo>,
}

/// One worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// The addresses that its sockets are bound to; unspecified addresses when bound to all.
    pub addresses: Vec<SocketAddr>,
    /// Where it listens for TURN over UDP.
    pub turn: Vec<SocketAddr>,
    /// What moves its packets: `io_uring`, `mmsg` or `memory`.
    pub link: String,
}

/// State of ICE as `RTCPeerConnection.iceConnectionState` names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum IceState {
    /// No valid check yet.
    New,
    /// A check came; our own is under way.
    Checking,
    /// A pair is proved both ways.
    Connected,
    /// Consent is late (RFC 7675): nothing heard for `limits::ICE_DISCONNECTED`.
    Disconnected,
    /// Consent is lost: nothing is sent any more until a restart.
    Failed,
}

/// Why a transport ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CloseReason {
    /// The peer said close_notify.
    PeerClosed,
    /// The certificate does not have the fingerprint that the SDP named.
    FingerprintMismatch,
    /// The handshake was not done in time.
    HandshakeTimeout,
    /// The peer's DTLS offered nothing that we accept.
    HandshakeFailed,
    /// The worker has no room for another transport.
    Full,
    /// Never connected, or stayed disconnected, for too long.
    Abandoned,
}

/// How loud one audio track was in an interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AudioActivity {
    /// Which track.
    pub track: TrackId,
    /// Packets at least as loud as the threshold.
    pub count: u32,
    /// Sum of their levels in −dBov (RFC 6464): less is louder.
    pub level_sum: u32,
}

/// Counters of one worker since it started.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Which worker.
    pub worker: u16,
    /// Datagrams received.
    pub received: u64,
    /// Bytes of UDP payload received.
    pub received_bytes: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Bytes of UDP payload sent.
    pub sent_bytes: u64,
    /// Sends (trains of datagrams, or single ones): `sent / trains` is what GSO saves.
    pub trains: u64,
    /// Media packets from publishers, authenticated.
    pub rtp_received: u64,
    /// Media packets expected from publishers (RFC 3550 §A.3).
    pub rtp_expected: u64,
    /// Media packets forwarded to subscribers, one for each.
    pub rtp_forwarded: u64,
    /// Packets resent to subscribers.
    pub rtx_sent: u64,
    /// Packets that publishers were asked to resend.
    pub nacks_sent: u64,
    /// Keyframes that publishers were asked for.
    pub keyframe_requests: u64,
    /// Interarrival jitter (RFC 3550 §6.4.1) averaged over the live streams, microseconds.
    pub jitter_us: u64,
    /// Wall clock against media clock, averaged over the live streams, milliseconds.
    pub drift_ms: i64,
    /// Live transports.
    pub transports: u64,
    /// Live published audio tracks.
    pub audio_tracks: u64,
    /// Live published video tracks.
    pub video_tracks: u64,
    /// Live subscriptions.
    pub subscriptions: u64,
    /// Turns of the run loop.
    pub turns: u64,
    /// TURN.
    pub turn: TurnStats,
    /// How packets ended that were not used, by `DropReason as usize`.
    pub drops: Vec<u64>,
}

impl WorkerStats {
    /// How many packets ended for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or(0)
    }
}

/// Counters of one handshake thread since it started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HandshakeStats {
    /// Handshakes done, their fingerprints matching.
    pub secured: u64,
    /// Engines that failed during a handshake.
    pub failed: u64,
    /// Certificates that were not the promised ones.
    pub mismatched: u64,
    /// Datagrams before the peer's address was proved and its fingerprint known, save the ClientHello that waits for both;
    /// or that no engine was there for.
    pub early: u64,
    /// Plaintext alerts, malformed ClientHellos and the like, passed over.
    pub junk: u64,
    /// ClientHellos dropped for too many handshakes at once, or too many by one transport.
    pub refused: u64,
    /// Data channel messages delivered, one for each receiver.
    pub messages: u64,
    /// Data channel messages not delivered to a reader that is too slow.
    pub messages_dropped: u64,
    /// Reliable channels closed because their reader is too slow.
    pub channels_dropped: u64,
    /// Messages on API channels beyond a transport's budget.
    pub api_flooded: u64,
    /// Messages on API channels that found the ring to control full.
    pub api_lost: u64,
    /// Datagrams for a worker that does not take them.
    pub datagrams_lost: u64,
}

/// One live peer connection with what flows on it, as `Command::Snapshot` lists them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Flow {
    /// The connection.
    pub transport: TransportId,
    /// Its room.
    pub room: RoomId,
    /// Which way its media flows.
    pub side: Side,
    /// Our ICE user fragment.
    pub ufrag: String,
    /// Where ICE stands.
    pub ice: IceState,
    /// SRTP keys exist.
    pub secured: bool,
    /// The peer's address that media goes to.
    pub remote: Option<SocketAddr>,
    /// What it publishes.
    pub receive: ReceiveSpec,
    /// What is forwarded to it.
    pub subscriptions: Vec<SubscriptionSpec>,
}

/// What became of TCP and TLS connections since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StreamStats {
    /// Connections that are open.
    pub connections: u64,
    /// Of those, clients of ICE-TCP.
    pub ice: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections over the bounds, in all or of one address.
    pub refused: u64,
    /// TLS and DTLS handshakes that had to wait, because there were too many in that second, in all or of one address. One of DTLS
    /// counts each time that its client asks.
    pub handshakes_put_off: u64,
    /// Times that there was no descriptor for a connection.
    pub out_of_descriptors: u64,
    /// Connections that spoke nothing that their listener does.
    pub unknown_protocol: u64,
    /// Connections on which TLS failed.
    pub tls_failed: u64,
    /// Connections whose bytes were no frames.
    pub desynchronised: u64,
    /// Connections closed for silence, before or after their first message.
    pub silent: u64,
    /// Connections closed because nobody read.
    pub stuck: u64,
    /// Messages for a reader too slow for them.
    pub queue_full: u64,
    /// Messages for which a worker had no room.
    pub lost: u64,
    /// Messages and bytes of or for a connection that could not use them any more.
    pub ignored: u64,
}
