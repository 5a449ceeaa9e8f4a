//! SDP offers and answers (RFC 8866, RFC 3264, JSEP RFC 8829): text from peers in, typed facts and text out.
//!
//! Contents, along the way of an offer: `text` checks limits and grammar, `section` reads one m-section, `identity`
//! finds who the peer is, `format` says what a payload type means, `layers` orders simulcast, `offer` puts them
//! together, `answerer` replies to a publisher; `offerer` offers to a subscriber and reads what it replies;
//! `emit` writes all that we send. Nothing here reads a clock, draws a random number or knows of rooms.
//!
//! One transport carries everything: BUNDLE (RFC 8843) and rtcp-mux (RFC 5761) are required. A peer's candidates are never
//! read: an ICE-lite server learns addresses from authenticated checks alone, so an offer cannot aim it at anybody.

mod answerer;
mod emit;
mod error;
mod format;
mod identity;
mod layers;
mod offer;
mod offerer;
mod section;
mod text;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use ringmain_shared::media::{Codec, Extension, Kind, Mid, PayloadType, ReceiveCodec, RidLayer, SsrcLayer};
use ringmain_shared::transport::{Fingerprint, IceCredentials};

pub use answerer::{Answer, Answerer};
pub use error::SdpError;
pub use offer::{Offer, SessionName};
pub use offerer::{AcceptedTrack, Answered, OfferedTrack, Offerer};

/// What our side of a connection says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Local {
    /// The credentials that the data plane answers checks for.
    pub ice: IceCredentials,
    /// Of the data plane's certificate.
    pub fingerprint: Fingerprint,
    /// Host candidates of the transport's worker, the preferred one first.
    pub candidates: Vec<SocketAddr>,
    /// Where peers may come by TCP (RFC 6544), the preferred one first; the same for all workers.
    pub tcp_candidates: Vec<SocketAddr>,
}

/// A track that a publisher sends now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublishedTrack {
    /// Its m-section.
    pub mid: Mid,
    /// Audio or video.
    pub kind: Kind,
    /// Id of its MediaStream (RFC 8830), `-` when it is in none; visible ASCII.
    pub stream_id: String,
    /// Id of its MediaStreamTrack; visible ASCII.
    pub track_id: String,
    /// Its payload types, the preferred one first.
    pub codecs: Vec<ReceiveCodec>,
    /// The same payload types, as a subscriber's offer describes them.
    pub formats: Vec<CodecFormat>,
    /// Announced SSRCs; empty where `rids` are not.
    pub ssrcs: Vec<SsrcLayer>,
    /// Simulcast layers by rid (RFC 8853), in the order of the publisher's `a=simulcast`.
    pub rids: Vec<RidLayer>,
}

/// One payload format with its parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CodecFormat {
    /// As the publisher numbers it.
    pub payload_type: PayloadType,
    /// Which payload format.
    pub codec: Codec,
    /// RTP clock, Hz.
    pub clock_rate: u32,
    /// Channels that `a=rtpmap` names.
    pub channels: Option<u8>,
    /// The `a=fmtp` parameters that matter to a receiver, in a canonical order.
    pub fmtp: String,
}

/// The header extensions that are worth offering to a subscriber.
pub const fn extensions_of(kind: Kind) -> &'static [Extension] {
    match kind {
        Kind::Audio => &[Extension::Mid, Extension::TransportCc, Extension::AbsSendTime, Extension::AudioLevel],
        Kind::Video => &[
            Extension::Mid,
            Extension::TransportCc,
            Extension::AbsSendTime,
            Extension::VideoOrientation,
            Extension::PlayoutDelay,
            Extension::DependencyDescriptor,
        ],
    }
}
