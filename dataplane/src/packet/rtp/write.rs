//! Writes the header of an outgoing packet, and padding behind its payload.

use ringmain_shared::media::{PayloadType, Ssrc};

use super::{FIXED_LEN, ONE_BYTE_PROFILE, TWO_BYTE_PROFILE, VERSION};

/// What an outgoing header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderFields {
    /// Ends a frame, or begins a talkspurt.
    pub marker: bool,
    /// As negotiated with the receiver.
    pub payload_type: PayloadType,
    /// Of the outgoing stream.
    pub sequence: u16,
    /// Of the outgoing stream.
    pub timestamp: u32,
    /// Of the outgoing stream.
    pub ssrc: Ssrc,
}

impl HeaderFields {
    /// Writes the header with `extensions`, given as id and value, to the start of `out`: in one-byte form, or in two-byte form
    /// when an id or a length asks for it (RFC 8285 §4). The header's length, or `None` for want of room or for an id of zero.
    #[inline]
    pub fn write(&self, extensions: &[(u8, &[u8])], out: &mut [u8]) -> Option<usize> {
        let (fixed, rest) = out.split_first_chunk_mut::<FIXED_LEN>()?;
        let [s0, s1] = self.sequence.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [c0, c1, c2, c3] = self.ssrc.0.to_be_bytes();
        let first = VERSION << 6 | u8::from(!extensions.is_empty()) << 4;
        let second = u8::from(self.marker) << 7 | self.payload_type.0 & 0x7f;
        *fixed = [first, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3];
        if extensions.is_empty() {
            return Some(FIXED_LEN);
        }
        Some(FIXED_LEN + write_extensions(extensions, rest)?)
    }
}

/// Makes the last `count` bytes of a clear packet its padding (RFC 3550 §5.1). `None` when there are not as many after the
/// fixed header, or `count` is zero.
pub fn pad(packet: &mut [u8], count: u8) -> Option<()> {
    let at = packet.len().checked_sub(usize::from(count)).filter(|&at| at >= FIXED_LEN)?;
    let (last, zeros) = packet.get_mut(at..)?.split_last_mut()?;
    zeros.fill(0);
    *last = count;
    *packet.first_mut()? |= 0x20;
    Some(())
}

#[inline]
fn write_extensions(extensions: &[(u8, &[u8])], out: &mut [u8]) -> Option<usize> {
    let one_byte = extensions.iter().all(|(id, value)| *id < 15 && (1..=16).contains(&value.len()));
    let (head, elements) = out.split_first_chunk_mut::<4>()?;
    let mut len = 0;
    for &(id, value) in extensions {
        if id == 0 {
            return None;
        }
        let slot = elements.get_mut(len..)?;
        let value_at = if one_byte {
            *slot.first_mut()? = id << 4 | (value.len() as u8).wrapping_sub(1) & 0x0f;
            1
        } else {
            *slot.first_chunk_mut()? = [id, u8::try_from(value.len()).ok()?];
            2
        };
        slot.get_mut(value_at..value_at + value.len())?.copy_from_slice(value);
        len += value_at + value.len();
    }
    let padded = len.next_multiple_of(4);
    elements.get_mut(len..padded)?.fill(0);
    let [p0, p1] = if one_byte { ONE_BYTE_PROFILE } else { TWO_BYTE_PROFILE }.to_be_bytes();
    let [l0, l1] = u16::try_from(padded / 4).ok()?.to_be_bytes();
    *head = [p0, p1, l0, l1];
    Some(4 + padded)
}
