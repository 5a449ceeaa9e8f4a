//! H.265 NAL units in RTP (RFC 7798 §4.4): single, aggregated (AP), fragmented (FU). Without decoding order numbers, which
//! WebRTC does not negotiate.

use super::Description;
use crate::packet::bytes::u16_at;

/// What one payload begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct H265 {
    /// Holds a video or sequence parameter set, or the start of an intra random access point.
    pub keyframe: bool,
    /// Holds the start of a frame's first slice, or what precedes it.
    pub start_of_frame: bool,
    /// TemporalId.
    pub temporal: u8,
}

impl H265 {
    /// Reads the NAL unit headers; `None` when they are cut or of a kind that is not used in WebRTC.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let header = u16_at(payload, 0)?;
        // RFC 7798 §1.1.4: the lower three bits are TemporalId plus one.
        let temporal = (header as u8 & 7).checked_sub(1)?;
        let whole = Self { keyframe: false, start_of_frame: false, temporal };
        match kind(payload)? {
            AGGREGATION => whole.aggregated(payload.get(2..)?),
            FRAGMENTATION => {
                let fragment = *payload.get(2)?;
                let first = *payload.get(3)?;
                match fragment & FU_START {
                    0 => Some(whole),
                    _ => Some(whole.with(fragment & TYPE, Some(first))),
                }
            }
            kind @ 0..AGGREGATION => Some(whole.with(kind, payload.get(2).copied())),
            _ => None,
        }
    }

    /// In the terms of all codecs.
    pub fn describe(&self) -> Description {
        Description {
            keyframe: self.keyframe,
            start_of_frame: self.start_of_frame,
            temporal: Some(self.temporal),
            ..Description::default()
        }
    }

    fn aggregated(mut self, mut rest: &[u8]) -> Option<Self> {
        while !rest.is_empty() {
            let (unit, after) = rest.get(2..)?.split_at_checked(usize::from(u16_at(rest, 0)?))?;
            self = self.with(kind(unit)?, unit.get(2).copied());
            rest = after;
        }
        Some(self)
    }

    /// Adds a NAL unit by its type and the first byte behind its header.
    fn with(self, kind: u8, first: Option<u8>) -> Self {
        // A slice begins with first_slice_segment_in_pic_flag.
        let first_slice = first.is_some_and(|byte| byte & 0x80 != 0);
        let (keyframe, start_of_frame) = match kind {
            IRAP_FIRST..=IRAP_LAST => (first_slice, first_slice),
            0..VPS => (false, first_slice),
            VPS | SPS => (true, true),
            PPS | DELIMITER | SEI_PREFIX => (false, true),
            _ => (false, false),
        };
        Self {
            keyframe: self.keyframe || keyframe,
            start_of_frame: self.start_of_frame || start_of_frame,
            temporal: self.temporal,
        }
    }
}

fn kind(unit: &[u8]) -> Option<u8> {
    Some(unit.first()? >> 1 & TYPE)
}

const TYPE: u8 = 0x3f;
const IRAP_FIRST: u8 = 16;
const IRAP_LAST: u8 = 23;
const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
const DELIMITER: u8 = 35;
const SEI_PREFIX: u8 = 39;
const AGGREGATION: u8 = 48;
const FRAGMENTATION: u8 = 49;
const FU_START: u8 = 0x80;
