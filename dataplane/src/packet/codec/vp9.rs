//! The VP9 payload descriptor (RFC 9628 §4.2).

use super::{Description, PictureId, Tl0PicIdx};
use crate::packet::bytes::u16_at;

/// The descriptor of one payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vp9 {
    /// P: predicted from other pictures.
    pub inter_predicted: bool,
    /// F: references are told per frame.
    pub flexible: bool,
    /// B: begins a frame of one spatial layer.
    pub start_of_frame: bool,
    /// E: ends a frame of one spatial layer.
    pub end_of_frame: bool,
    /// Z: no higher spatial layer refers to this frame.
    pub not_for_upper_spatial: bool,
    /// Counts pictures.
    pub picture_id: Option<PictureId>,
    /// Counts pictures of the base temporal layer; not in flexible mode.
    pub tl0_pic_idx: Option<Tl0PicIdx>,
    /// TID.
    pub temporal: Option<u8>,
    /// SID.
    pub spatial: Option<u8>,
    /// U: from here a receiver may go up to this temporal layer.
    pub switching_up: bool,
    /// D: refers to the spatial layer below.
    pub inter_layer: bool,
    /// Width and height of the highest spatial layer, where the scalability structure tells.
    pub resolution: Option<(u16, u16)>,
    /// Spatial layers, where the scalability structure tells.
    pub spatial_count: Option<u8>,
    /// Bytes of the descriptor.
    pub header_len: usize,
}

impl Vp9 {
    /// Reads the descriptor; `None` when it is cut, or nothing follows it.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let flag = |bit: u8| first & bit != 0;
        let mut vp9 = Self {
            inter_predicted: flag(0x40),
            flexible: flag(0x10),
            start_of_frame: flag(0x08),
            end_of_frame: flag(0x04),
            not_for_upper_spatial: flag(0x01),
            picture_id: None,
            tl0_pic_idx: None,
            temporal: None,
            spatial: None,
            switching_up: false,
            inter_layer: false,
            resolution: None,
            spatial_count: None,
            header_len: 1,
        };
        if flag(0x80) {
            let (id, end) = PictureId::read(payload, vp9.header_len)?;
            vp9.picture_id = Some(id);
            vp9.header_len = end;
        }
        if flag(0x20) {
            vp9.layer(payload)?;
        }
        if vp9.flexible && vp9.inter_predicted {
            vp9.references(payload)?;
        }
        if flag(0x02) {
            vp9.scalability(payload)?;
        }
        (vp9.header_len < payload.len()).then_some(vp9)
    }

    /// Begins a picture that needs no other: not predicted, and of the lowest spatial layer.
    pub fn keyframe(&self) -> bool {
        self.start_of_frame && !self.inter_predicted && self.spatial.unwrap_or(0) == 0
    }

    /// In the terms of all codecs.
    pub fn describe(&self) -> Description {
        Description {
            keyframe: self.keyframe(),
            start_of_frame: self.start_of_frame,
            temporal: self.temporal,
            spatial: self.spatial,
            switching_point: self.switching_up,
        }
    }

    fn layer(&mut self, payload: &[u8]) -> Option<()> {
        let layer = *payload.get(self.header_len)?;
        self.temporal = Some(layer >> 5);
        self.switching_up = layer & 0x10 != 0;
        self.spatial = Some(layer >> 1 & 7);
        self.inter_layer = layer & 1 != 0;
        self.header_len += 1;
        if !self.flexible {
            self.tl0_pic_idx = Some(Tl0PicIdx { value: *payload.get(self.header_len)?, at: self.header_len });
            self.header_len += 1;
        }
        Some(())
    }

    /// At most three, each but the last with its N bit set.
    fn references(&mut self, payload: &[u8]) -> Option<()> {
        for _ in 0..3 {
            let reference = *payload.get(self.header_len)?;
            self.header_len += 1;
            if reference & 1 == 0 {
                return Some(());
            }
        }
        None
    }

    /// RFC 9628 §4.2.1.
    fn scalability(&mut self, payload: &[u8]) -> Option<()> {
        let head = *payload.get(self.header_len)?;
        self.header_len += 1;
        let spatial_count = (head >> 5) + 1;
        self.spatial_count = Some(spatial_count);
        if head & 0x10 != 0 {
            let last = self.header_len + 4 * usize::from(spatial_count - 1);
            self.resolution = Some((u16_at(payload, last)?, u16_at(payload, last + 2)?));
            self.header_len = last + 4;
        }
        if head & 0x08 != 0 {
            let pictures = *payload.get(self.header_len)?;
            self.header_len += 1;
            for _ in 0..pictures {
                let references = *payload.get(self.header_len)? >> 2 & 3;
                self.header_len += 1 + usize::from(references);
            }
        }
        Some(())
    }
}
