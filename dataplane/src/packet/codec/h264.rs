//! H.264 NAL units in RTP (RFC 6184 §5): single, aggregated (STAP-A), fragmented (FU-A).

use super::Description;
use crate::packet::bytes::u16_at;

/// What one payload begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct H264 {
    /// Holds a sequence parameter set, or the start of an IDR slice.
    pub keyframe: bool,
    /// Holds the start of a frame's first slice, or what precedes it.
    pub start_of_frame: bool,
}

impl H264 {
    /// Reads the NAL unit headers; `None` when they are cut or of a kind that is not used in WebRTC.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        match payload.first()? & TYPE {
            1..=23 => Some(Self::of(payload)),
            STAP_A => Self::aggregated(payload.get(1..)?),
            FU_A => {
                let header = *payload.get(1)?;
                let data = payload.get(2..).filter(|data| !data.is_empty())?;
                if header & FU_START == 0 {
                    return Some(Self { keyframe: false, start_of_frame: false });
                }
                Some(Self::of(&[header & TYPE, *data.first()?]))
            }
            _ => None,
        }
    }

    /// In the terms of all codecs.
    pub fn describe(&self) -> Description {
        Description { keyframe: self.keyframe, start_of_frame: self.start_of_frame, ..Description::default() }
    }

    fn aggregated(mut rest: &[u8]) -> Option<Self> {
        let mut whole = Self { keyframe: false, start_of_frame: false };
        while !rest.is_empty() {
            let (unit, after) = rest.get(2..)?.split_at_checked(usize::from(u16_at(rest, 0)?))?;
            if unit.is_empty() {
                return None;
            }
            let this = Self::of(unit);
            whole.keyframe |= this.keyframe;
            whole.start_of_frame |= this.start_of_frame;
            rest = after;
        }
        Some(whole)
    }

    /// Of a NAL unit from its start.
    fn of(unit: &[u8]) -> Self {
        let kind = unit.first().map_or(0, |header| header & TYPE);
        // The slice header begins with first_mb_in_slice, whose zero is written as a single one bit.
        let first_slice = unit.get(1).is_some_and(|byte| byte & 0x80 != 0);
        Self {
            keyframe: matches!(kind, IDR | SPS),
            start_of_frame: match kind {
                SLICE..=IDR => first_slice,
                SEI..=DELIMITER => true,
                _ => false,
            },
        }
    }
}

const TYPE: u8 = 0x1f;
const SLICE: u8 = 1;
const IDR: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const DELIMITER: u8 = 9;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const FU_START: u8 = 0x80;
