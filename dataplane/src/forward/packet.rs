//! One authenticated media packet as forwarding sees it: where it stands in its stream and what it means, without its bytes.
//! Only [`Rewrite`](super::rewrite::Rewrite) makes an [`OutboundSeq`] of an [`InboundSeq`].

use ringmain_shared::media::{PayloadType, TemporalLayer};

use crate::packet::codec::Vp8;

pub use crate::receive::InboundSeq;

/// An extended sequence number towards a subscriber: the 48-bit SRTP index (RFC 3711 §3.3.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct OutboundSeq(pub u64);

impl OutboundSeq {
    /// What stands in the RTP header.
    pub const fn header(self) -> u16 {
        self.0 as u16
    }
}

/// A media packet, without its bytes. Those are kept apart: the dependency descriptor first, then the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MediaPacket {
    /// Its place in the publisher's stream.
    pub sequence: InboundSeq,
    /// RTP timestamp of the publisher.
    pub timestamp: u32,
    /// Payload type of the publisher.
    pub payload_type: PayloadType,
    /// RTP marker bit.
    pub marker: bool,
    /// Bytes kept: `descriptor_len` and then the RTP payload.
    pub payload_len: u16,
    /// Bytes of the dependency descriptor extension in front of the payload; zero when there is none.
    pub descriptor_len: u8,
    /// A decoder can begin here.
    pub keyframe: bool,
    /// First packet of a frame.
    pub frame_start: bool,
    /// Temporal layer, where the codec says.
    pub temporal: Option<TemporalLayer>,
    /// From this frame on a higher temporal layer may be added.
    pub switching_up: bool,
    /// Where VP8 numbers its frames.
    pub vp8: Option<Vp8Numbers>,
    /// RFC 6464 extension as received: voice flag and −dBov.
    pub audio_level: Option<u8>,
    /// Coordination of video orientation as received.
    pub orientation: Option<u8>,
    /// Playout delay as received.
    pub playout_delay: Option<[u8; 3]>,
}

impl MediaPacket {
    /// It has header extensions that not every packet of its track has, the dependency descriptor aside.
    #[inline]
    pub fn has_extensions(&self) -> bool {
        self.audio_level.is_some() || self.orientation.is_some() || self.playout_delay.is_some()
    }
}

/// The numbers in a VP8 payload descriptor that must stay gapless at the subscriber (RFC 7741 §4.2), and where they stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vp8Numbers {
    /// PictureID.
    pub picture_id: u16,
    /// Where it stands in the payload.
    pub picture_id_at: u8,
    /// It has 15 bits, otherwise 7.
    pub picture_id_long: bool,
    /// TL0PICIDX and where it stands.
    pub tl0: Option<(u8, u8)>,
}

impl Vp8Numbers {
    /// The numbers of a descriptor; `None` when it has no picture id, so that nothing needs to be gapless.
    pub fn of(vp8: &Vp8) -> Option<Self> {
        let picture_id = vp8.picture_id?;
        let tl0 = vp8.tl0_pic_idx.and_then(|tl0| Some((tl0.value, u8::try_from(tl0.at).ok()?)));
        Some(Self {
            picture_id: picture_id.value,
            picture_id_at: u8::try_from(picture_id.at).ok()?,
            picture_id_long: picture_id.wide,
            tl0,
        })
    }
}

impl Default for MediaPacket {
    fn default() -> Self {
        Self {
            sequence: InboundSeq(0),
            timestamp: 0,
            payload_type: PayloadType(0),
            marker: false,
            payload_len: 0,
            descriptor_len: 0,
            keyframe: false,
            frame_start: false,
            temporal: None,
            switching_up: false,
            vp8: None,
            audio_level: None,
            orientation: None,
            playout_delay: None,
        }
    }
}
