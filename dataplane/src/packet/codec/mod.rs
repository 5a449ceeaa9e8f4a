//! The descriptors at the front of RTP payloads, read as far as forwarding needs: where a keyframe starts, and which layer a
//! packet is of. What is inside of the pictures is never read, except for the few bits that tell a keyframe.

use ringmain_shared::media::{Codec, TemporalLayer};

pub use av1::Av1;
pub use dependency_descriptor::{DependencyDescriptor, Structure, Template};
pub use h264::H264;
pub use h265::H265;
pub use vp8::Vp8;
pub use vp9::Vp9;

mod av1;
mod bits;
mod dependency_descriptor;
mod h264;
mod h265;
#[cfg(test)]
mod tests;
mod vp8;
mod vp9;

/// What forwarding needs to know of a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Description {
    /// Begins a picture that needs no other: a decoder can start here. Never for audio, which needs no start.
    pub keyframe: bool,
    /// Begins a frame, as far as the payload tells. Always for audio.
    pub start_of_frame: bool,
    /// The temporal layer, if told.
    pub temporal: Option<TemporalLayer>,
    /// The spatial layer within the stream (VP9, AV1), if told.
    pub spatial: Option<u8>,
    /// From here a receiver may go up to this temporal layer (VP8's Y, VP9's U).
    pub switching_point: bool,
}

/// Reads the descriptor of `payload`. One that does not parse is described by the default: no keyframe, nothing known.
pub fn describe(codec: Codec, payload: &[u8]) -> Description {
    match codec {
        Codec::Vp8 => Vp8::parse(payload).map(|vp8| vp8.describe()),
        Codec::Vp9 => Vp9::parse(payload).map(|vp9| vp9.describe()),
        Codec::H264 => H264::parse(payload).map(|h264| h264.describe()),
        Codec::H265 => H265::parse(payload).map(|h265| h265.describe()),
        Codec::Av1 => Av1::parse(payload).map(|av1| av1.describe()),
        Codec::Opus | Codec::Pcmu | Codec::Pcma | Codec::G722 => {
            Some(Description { start_of_frame: true, ..Description::default() })
        }
    }
    .unwrap_or_default()
}

/// A picture id and where it is, to be rewritten in its own width (RFC 7741 §4.2, RFC 9628 §4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PictureId {
    /// 7 or 15 bits.
    pub value: u16,
    /// 15 bits.
    pub wide: bool,
    /// Offset in the payload.
    pub at: usize,
}

impl PictureId {
    /// Reads the id at `at`, and says where it ends.
    fn read(payload: &[u8], at: usize) -> Option<(Self, usize)> {
        let first = *payload.get(at)?;
        if first & 0x80 == 0 {
            return Some((Self { value: u16::from(first), wide: false, at }, at + 1));
        }
        let value = u16::from(first & 0x7f) << 8 | u16::from(*payload.get(at + 1)?);
        Some((Self { value, wide: true, at }, at + 2))
    }

    /// Writes the lower 7 or 15 bits of `value` where this id was read. `None` when `payload` is another, shorter one.
    pub fn rewrite(&self, payload: &mut [u8], value: u16) -> Option<()> {
        if self.wide {
            *payload.get_mut(self.at..)?.first_chunk_mut()? = (value | 0x8000).to_be_bytes();
        } else {
            *payload.get_mut(self.at)? = value as u8 & 0x7f;
        }
        Some(())
    }
}

/// A TL0PICIDX and where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tl0PicIdx {
    /// Counts frames of the base temporal layer.
    pub value: u8,
    /// Offset in the payload.
    pub at: usize,
}

impl Tl0PicIdx {
    /// Writes `value` where this index was read. `None` when `payload` is another, shorter one.
    pub fn rewrite(&self, payload: &mut [u8], value: u8) -> Option<()> {
        *payload.get_mut(self.at)? = value;
        Some(())
    }
}
