//! Feedback about single packets and pictures (RFC 4585 §6, RFC 5104 §4.3.1), and REMB.

use ringmain_shared::limits::{RTCP_BLOCKS_MAX, RTCP_NACK_ENTRIES_MAX};
use ringmain_shared::media::Ssrc;

use crate::packet::bytes::{Writer, u8_at, u16_at, u32_at};

/// Packets that are missing (RFC 4585 §6.2.1).
#[derive(Clone, Debug)]
pub struct Nack<'a> {
    /// Who misses them.
    pub sender_ssrc: Ssrc,
    /// The stream they are of.
    pub media_ssrc: Ssrc,
    entries: &'a [u8],
}

impl<'a> Nack<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (sender_ssrc, media_ssrc) = ssrcs(body)?;
        let entries = body.get(8..)?;
        (!entries.is_empty() && entries.len() <= 4 * RTCP_NACK_ENTRIES_MAX).then_some(Self {
            sender_ssrc,
            media_ssrc,
            entries,
        })
    }

    /// Entries in their order, at most 64: a sequence number, and a bit for each of the sixteen behind it, the lowest for the next.
    pub fn entries(&self) -> impl Iterator<Item = (u16, u16)> + use<'a> {
        let word = |entry: &[u8], at| u16_at(entry, at).unwrap_or_default();
        self.entries.chunks_exact(4).map(move |entry| (word(entry, 0), word(entry, 2)))
    }

    /// Sequence numbers in the order named; at most 17 per entry and 64 entries.
    #[cfg(test)]
    pub(crate) fn sequences(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.entries().flat_map(|(first, bits)| {
            let following = (0..16u16).filter(move |bit| bits >> bit & 1 != 0);
            std::iter::once(first).chain(following.map(move |bit| first.wrapping_add(bit + 1)))
        })
    }
}

/// Appends entries for `sequences`, which ascend (modulo 2¹⁶), at most `entries_max`. How many sequences they cover.
pub(super) fn write_nack_entries(out: &mut Writer<'_>, sequences: &[u16], entries_max: usize) -> usize {
    let mut rest = sequences;
    for _ in 0..entries_max {
        let Some((&first, after)) = rest.split_first() else { break };
        rest = after;
        let mut bits = 0u16;
        while let Some((&next, after)) = rest.split_first() {
            match next.wrapping_sub(first) {
                0 => {}
                distance @ 1..=16 => bits |= 1 << (distance - 1),
                _ => break,
            }
            rest = after;
        }
        out.put_u16(first);
        out.put_u16(bits);
    }
    sequences.len() - rest.len()
}

/// A decoder lost track (RFC 4585 §6.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pli {
    /// Whose decoder.
    pub sender_ssrc: Ssrc,
    /// Of which stream it wants a keyframe.
    pub media_ssrc: Ssrc,
}

impl Pli {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        ssrcs(body).map(|(sender_ssrc, media_ssrc)| Self { sender_ssrc, media_ssrc })
    }
}

/// A keyframe is needed, though nothing was lost (RFC 5104 §4.3.1).
#[derive(Clone, Debug)]
pub struct Fir<'a> {
    /// Who needs it.
    pub sender_ssrc: Ssrc,
    entries: &'a [u8],
}

impl<'a> Fir<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (sender_ssrc, _) = ssrcs(body)?;
        let entries = body.get(8..)?;
        let right = !entries.is_empty() && entries.len() % 8 == 0 && entries.len() <= 8 * RTCP_BLOCKS_MAX;
        right.then_some(Self { sender_ssrc, entries })
    }

    /// At most 31.
    pub fn entries(&self) -> impl Iterator<Item = FirEntry> + use<'a> {
        self.entries
            .chunks_exact(8)
            .filter_map(|entry| Some(FirEntry { ssrc: Ssrc(u32_at(entry, 0)?), sequence: u8_at(entry, 4)? }))
    }
}

/// One stream of a FIR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FirEntry {
    /// The stream.
    pub ssrc: Ssrc,
    /// Counts requests; the same number is the same request.
    pub sequence: u8,
}

/// A receiver's estimate of the rate that it can take (draft-alvestrand-rmcat-remb-03).
#[derive(Clone, Debug)]
pub struct Remb<'a> {
    /// The receiver.
    pub sender_ssrc: Ssrc,
    /// For all streams together, bits per second.
    pub rate_bps: u64,
    ssrcs: &'a [u8],
}

impl<'a> Remb<'a> {
    /// Whether an application layer feedback is one.
    pub(super) fn is(body: &[u8]) -> bool {
        body.get(8..12) == Some(REMB)
    }

    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (sender_ssrc, _) = ssrcs(body)?;
        let count = usize::from(u8_at(body, 12)?);
        let word = u32_at(body, 12)? & 0x00ff_ffff;
        let (exponent, mantissa) = (word >> 18, u64::from(word & 0x3_ffff));
        let rate_bps = if mantissa.leading_zeros() >= exponent { mantissa << exponent } else { u64::MAX };
        Some(Self { sender_ssrc, rate_bps, ssrcs: body.get(16..16 + 4 * count)? })
    }

    /// The streams it is about, at most 255.
    pub fn ssrcs(&self) -> impl Iterator<Item = Ssrc> + use<'a> {
        self.ssrcs.chunks_exact(4).filter_map(|chunk| u32_at(chunk, 0)).map(Ssrc)
    }
}

/// Appends what follows the two SSRCs of a REMB; `ssrcs` beyond 255 are left out. The rate is rounded down to 18 bits.
pub(super) fn write_remb(out: &mut Writer<'_>, rate_bps: u64, ssrcs: &[Ssrc]) {
    let ssrcs = ssrcs.get(..255).unwrap_or(ssrcs);
    let exponent = (64 - rate_bps.leading_zeros()).saturating_sub(18);
    out.put(REMB);
    out.put_u8(ssrcs.len() as u8);
    out.put_u24(exponent << 18 | (rate_bps >> exponent) as u32);
    ssrcs.iter().for_each(|ssrc| out.put_u32(ssrc.0));
}

/// The sender's and the media's SSRC, with which all feedback begins (RFC 4585 §6.1).
fn ssrcs(body: &[u8]) -> Option<(Ssrc, Ssrc)> {
    Some((Ssrc(u32_at(body, 0)?), Ssrc(u32_at(body, 4)?)))
}

const REMB: &[u8] = b"REMB";
