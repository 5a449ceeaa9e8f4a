//! The RTP header (RFC 3550 §5.1) and its extensions (RFC 8285), read once and written afresh.
//! An [`RtpHeader`] holds offsets, not bytes, so that it outlives decryption in place. The length of the padding is encrypted,
//! so `payload` is asked for afterwards. CSRCs are read over and not forwarded: nothing is mixed here.

use std::ops::Range;

use ringmain_shared::DropReason;
use ringmain_shared::media::{PayloadType, Ssrc};

use super::bytes::{u8_at, u16_at, u32_at};

pub use write::{HeaderFields, pad};

#[cfg(test)]
mod tests;
mod write;

/// The header of one RTP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RtpHeader {
    /// Ends a frame, or begins a talkspurt.
    pub marker: bool,
    /// Which codec.
    pub payload_type: PayloadType,
    /// Counts packets.
    pub sequence: u16,
    /// In the clock of the codec.
    pub timestamp: u32,
    /// Which stream.
    pub ssrc: Ssrc,
    /// Contributing sources listed, 0–15.
    pub csrc_count: u8,
    /// The last byte tells how much padding there is.
    pub has_padding: bool,
    /// Bytes before the payload: fixed part, CSRCs, extension.
    pub header_len: usize,
    form: Form,
    /// Where the extension's elements begin; they end at `header_len`.
    extension_at: usize,
}

impl RtpHeader {
    /// Reads the header of a packet, encrypted or clear.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, DropReason> {
        Self::read(packet).ok_or(DropReason::RtpMalformed)
    }

    #[inline]
    fn read(packet: &[u8]) -> Option<Self> {
        let fixed: &[u8; FIXED_LEN] = packet.first_chunk()?;
        let [first, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *fixed;
        if first >> 6 != VERSION {
            return None;
        }
        let csrc_count = first & 0x0f;
        let mut header_len = FIXED_LEN + 4 * usize::from(csrc_count);
        let mut extension_at = header_len;
        let mut form = Form::None;
        if first & 0x10 != 0 {
            form = Form::of(u16_at(packet, header_len)?);
            extension_at = header_len + 4;
            header_len = extension_at + 4 * usize::from(u16_at(packet, header_len + 2)?);
        }
        if header_len > packet.len() {
            return None;
        }
        Some(Self {
            marker: second & 0x80 != 0,
            payload_type: PayloadType(second & 0x7f),
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: Ssrc(u32::from_be_bytes([c0, c1, c2, c3])),
            csrc_count,
            has_padding: first & 0x20 != 0,
            header_len,
            form,
            extension_at,
        })
    }

    /// Where the payload is in the clear packet, without padding. Empty when there is only padding.
    #[inline]
    pub fn payload(&self, clear: &[u8]) -> Result<Range<usize>, DropReason> {
        let padding = match clear.last() {
            // RFC 3550 §5.1: the last byte counts the padding, itself included.
            Some(0) if self.has_padding => return Err(DropReason::RtpMalformed),
            Some(&count) if self.has_padding => usize::from(count),
            _ => 0,
        };
        match clear.len().checked_sub(padding) {
            Some(end) if end >= self.header_len => Ok(self.header_len..end),
            _ => Err(DropReason::RtpMalformed),
        }
    }

    /// The contributing sources of the packet that this header was read from.
    pub fn csrcs<'a>(&self, packet: &'a [u8]) -> impl Iterator<Item = Ssrc> + use<'a> {
        let list = packet.get(FIXED_LEN..FIXED_LEN + 4 * usize::from(self.csrc_count)).unwrap_or_default();
        list.chunks_exact(4).filter_map(|chunk| u32_at(chunk, 0)).map(Ssrc)
    }

    /// The header extensions of the packet that this header was read from; none if their profile is not RFC 8285's.
    #[inline]
    pub fn extensions<'a>(&self, packet: &'a [u8]) -> Extensions<'a> {
        let rest = match self.form {
            Form::None => &[],
            _ => packet.get(self.extension_at..self.header_len).unwrap_or_default(),
        };
        Extensions { form: self.form, rest }
    }
}

/// Iterates over id and value of each element (RFC 8285 §4). Ends at the first that makes no sense.
#[derive(Clone, Debug)]
pub struct Extensions<'a> {
    form: Form,
    rest: &'a [u8],
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let first = u8_at(self.rest, 0)?;
            if first == 0 {
                self.rest = self.rest.get(1..)?;
                continue;
            }
            let (id, value_at, value_len) = match self.form {
                Form::None => return None,
                // RFC 8285 §4.2: id 15, and id 0 with a length, end the processing.
                Form::OneByte => match first >> 4 {
                    0 | 15 => return None,
                    id => (id, 1, usize::from(first & 0x0f) + 1),
                },
                Form::TwoByte => (first, 2, usize::from(u8_at(self.rest, 1)?)),
            };
            let value = self.rest.get(value_at..value_at + value_len)?;
            self.rest = self.rest.get(value_at + value_len..)?;
            return Some((id, value));
        }
    }
}

/// How the elements of an extension are framed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    None,
    OneByte,
    TwoByte,
}

impl Form {
    fn of(profile: u16) -> Self {
        match profile {
            ONE_BYTE_PROFILE => Self::OneByte,
            // RFC 8285 §4.3: the lower four bits are the application's.
            profile if profile & 0xfff0 == TWO_BYTE_PROFILE => Self::TwoByte,
            _ => Self::None,
        }
    }
}

/// Bytes of a header without CSRCs and extensions.
pub const FIXED_LEN: usize = 12;
const VERSION: u8 = 2;
const ONE_BYTE_PROFILE: u16 = 0xbede;
const TWO_BYTE_PROFILE: u16 = 0x1000;
