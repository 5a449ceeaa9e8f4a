//! The words of RTP media: kinds, codecs, payload types, header extensions, layers.

use arrayvec::ArrayString;
use serde::{Deserialize, Serialize};

/// Audio or video.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// Sound: never switched between layers, forwarded before video when there is too little room.
    Audio,
    /// Pictures.
    Video,
}

/// The codecs that are forwarded; all but the descriptors of their RTP payload formats pass through unread.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Codec {
    /// RFC 7587.
    Opus,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// RFC 6184.
    H264,
    /// RFC 7798.
    H265,
    /// The AV1 RTP payload format of the Alliance for Open Media.
    Av1,
    /// G.711 µ-law (RFC 3551).
    Pcmu,
    /// G.711 A-law (RFC 3551).
    Pcma,
    /// G.722 (RFC 3551).
    G722,
}

/// An RTP synchronisation source (RFC 3550 §3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Ssrc(pub u32);

/// An RTP payload type, 0–127.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PayloadType(pub u8);

/// The identification tag of an m-section (RFC 8843), at most as long as a one-byte header extension holds.
pub type Mid = ArrayString<16>;

/// The id of a simulcast layer (RFC 8852).
pub type Rid = ArrayString<16>;

/// What a payload type means on a publisher's transport.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReceiveCodec {
    /// As negotiated with the publisher.
    pub payload_type: PayloadType,
    /// Which payload format it carries.
    pub codec: Codec,
    /// RTP clock, Hz.
    pub clock_rate: u32,
    /// The payload type of its retransmissions (RFC 4588), if negotiated.
    pub rtx: Option<PayloadType>,
    /// Generic NACK (RFC 4585) was negotiated.
    pub nack: bool,
    /// Picture Loss Indication (RFC 4585) was negotiated.
    pub pli: bool,
    /// Full Intra Request (RFC 5104) was negotiated.
    pub fir: bool,
}

/// What a published payload type becomes on a subscriber's transport.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SendCodec {
    /// The publisher's payload type.
    pub from: PayloadType,
    /// The subscriber's.
    pub to: PayloadType,
    /// The subscriber's payload type for retransmissions (RFC 4588), if negotiated.
    pub rtx: Option<PayloadType>,
    /// Which payload format it carries.
    pub codec: Codec,
    /// RTP clock, Hz.
    pub clock_rate: u32,
}

/// A header extension that Ringmain reads or rewrites (RFC 8285).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum Extension {
    /// RFC 8843.
    Mid,
    /// RFC 8852, `rtp-stream-id`.
    Rid,
    /// RFC 8852, `repaired-rtp-stream-id`.
    RepairedRid,
    /// draft-holmer-rmcat-transport-wide-cc-extensions-01.
    TransportCc,
    /// Absolute send time, 6.18 fixed-point seconds.
    AbsSendTime,
    /// RFC 6464.
    AudioLevel,
    /// 3GPP TS 26.114 coordination of video orientation.
    VideoOrientation,
    /// libwebrtc's playout-delay.
    PlayoutDelay,
    /// The AV1 dependency descriptor, also sent with other codecs.
    DependencyDescriptor,
}

impl Extension {
    /// How many there are.
    pub const COUNT: usize = 9;

    /// Every extension, in the order of their discriminants.
    pub const ALL: [Extension; Self::COUNT] = [
        Extension::Mid,
        Extension::Rid,
        Extension::RepairedRid,
        Extension::TransportCc,
        Extension::AbsSendTime,
        Extension::AudioLevel,
        Extension::VideoOrientation,
        Extension::PlayoutDelay,
        Extension::DependencyDescriptor,
    ];

    /// The URI that names it in `a=extmap` (RFC 8285 §5).
    pub const fn uri(self) -> &'static str {
        match self {
            Extension::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Extension::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Extension::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Extension::TransportCc => "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            Extension::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Extension::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Extension::VideoOrientation => "urn:3gpp:video-orientation",
            Extension::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            Extension::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
        }
    }

    /// The extension that `uri` names, if it is one of ours.
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|extension| extension.uri() == uri)
    }
}

/// The negotiated id (1–14 or, in two-byte headers, to 255) of each extension on one transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ExtensionIds([u8; Extension::COUNT]);

impl ExtensionIds {
    /// The id of `extension`, if negotiated.
    pub fn id(&self, extension: Extension) -> Option<u8> {
        Some(self.0[extension as usize]).filter(|&id| id != 0)
    }

    /// Sets the id of `extension`; zero takes it out.
    pub fn set(&mut self, extension: Extension, id: u8) {
        self.0[extension as usize] = id;
    }

    /// The extension that goes by `id` here.
    pub fn extension(&self, id: u8) -> Option<Extension> {
        Extension::ALL.into_iter().find(|&extension| id != 0 && self.0[extension as usize] == id)
    }
}

/// A simulcast layer, 0 the smallest: `q`, `h`, `f` of `ion-sdk-js` are 0, 1, 2.
pub type SpatialLayer = u8;

/// A temporal layer, 0 the base.
pub type TemporalLayer = u8;

/// One simulcast layer of a published track.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RidLayer {
    /// Its `a=rid`.
    pub rid: Rid,
    /// Its place in the order of quality.
    pub spatial: SpatialLayer,
}

/// SSRCs that a publisher's SDP announced for one layer of a track.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SsrcLayer {
    /// The media stream.
    pub ssrc: Ssrc,
    /// Its retransmissions (`a=ssrc-group:FID`).
    pub rtx: Option<Ssrc>,
    /// Its place in the order of quality (`a=ssrc-group:SIM`), 0 when there is no group.
    pub spatial: SpatialLayer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_extension_is_found_by_its_uri_and_by_its_id() {
        let mut ids = ExtensionIds::default();
        for (index, extension) in Extension::ALL.into_iter().enumerate() {
            assert_eq!(extension as usize, index);
            assert_eq!(Extension::from_uri(extension.uri()), Some(extension));
            ids.set(extension, index as u8 + 1);
            assert_eq!(ids.extension(index as u8 + 1), Some(extension));
        }
        assert_eq!(ids.extension(0), None);
    }
}
