//! The VP8 payload descriptor (RFC 7741 §4.2) and the frame tag behind it (RFC 6386 §9.1).

use super::{Description, PictureId, Tl0PicIdx};

/// The descriptor of one payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vp8 {
    /// N: no other frame refers to this one.
    pub non_reference: bool,
    /// S with PID 0: the payload begins a frame.
    pub start_of_frame: bool,
    /// Counts frames.
    pub picture_id: Option<PictureId>,
    /// Counts frames of the base temporal layer.
    pub tl0_pic_idx: Option<Tl0PicIdx>,
    /// TID.
    pub temporal: Option<u8>,
    /// Y: depends on the base layer only.
    pub layer_sync: bool,
    /// KEYIDX, 5 bits.
    pub key_idx: Option<u8>,
    /// Begins a keyframe.
    pub keyframe: bool,
    /// Width and height, told where a keyframe begins.
    pub resolution: Option<(u16, u16)>,
    /// Bytes of the descriptor.
    pub header_len: usize,
}

impl Vp8 {
    /// Reads the descriptor; `None` when it is cut, or nothing follows it.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let mut at = 1;
        let mut picture_id = None;
        let mut tl0_pic_idx = None;
        let mut layer = None;
        let mut flags = 0;
        if first & 0x80 != 0 {
            flags = *payload.get(at)?;
            at += 1;
        }
        if flags & 0x80 != 0 {
            let (id, end) = PictureId::read(payload, at)?;
            picture_id = Some(id);
            at = end;
        }
        if flags & 0x40 != 0 {
            tl0_pic_idx = Some(Tl0PicIdx { value: *payload.get(at)?, at });
            at += 1;
        }
        if flags & 0x30 != 0 {
            layer = Some(*payload.get(at)?);
            at += 1;
        }
        let frame = payload.get(at..).filter(|frame| !frame.is_empty())?;
        let start_of_frame = first & 0x17 == 0x10;
        // RFC 6386 §9.1: the lowest bit of the frame tag is zero in keyframes.
        let keyframe = start_of_frame && frame.first().is_some_and(|tag| tag & 1 == 0);
        let temporal = layer.filter(|_| flags & 0x20 != 0);
        Some(Self {
            non_reference: first & 0x20 != 0,
            start_of_frame,
            picture_id,
            tl0_pic_idx,
            temporal: temporal.map(|layer| layer >> 6),
            // RFC 7741 §4.2: Y means something only beside a TID.
            layer_sync: temporal.is_some_and(|layer| layer & 0x20 != 0),
            key_idx: layer.filter(|_| flags & 0x10 != 0).map(|layer| layer & 0x1f),
            keyframe,
            resolution: if keyframe { resolution(frame) } else { None },
            header_len: at,
        })
    }

    /// In the terms of all codecs.
    pub fn describe(&self) -> Description {
        Description {
            keyframe: self.keyframe,
            start_of_frame: self.start_of_frame,
            temporal: self.temporal,
            spatial: None,
            switching_point: self.layer_sync,
        }
    }
}

/// RFC 6386 §9.1: start code, then 14 bits each, little-endian, under two bits of scaling.
fn resolution(frame: &[u8]) -> Option<(u16, u16)> {
    let [0x9d, 0x01, 0x2a, w0, w1, h0, h1] = *frame.get(3..)?.first_chunk()? else { return None };
    Some((u16::from_le_bytes([w0, w1]) & 0x3fff, u16::from_le_bytes([h0, h1]) & 0x3fff))
}
