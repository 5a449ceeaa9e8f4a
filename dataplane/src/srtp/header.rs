//! As much of the RTP and RTCP headers as SRTP needs to find its way (RFC 3550 §5.1, §6.4): lengths are checked once, here.

use ringmain_shared::drop_reason::DropReason;
use ringmain_shared::limits;

use super::profile::{INDEX_LEN, Profile};

/// Where the parts of an SRTP packet are.
#[derive(Clone, Copy)]
pub(super) struct RtpHeader {
    pub(super) ssrc: u32,
    pub(super) seq: u16,
    /// Fixed header, CSRCs and extensions: authenticated, not encrypted.
    pub(super) header_len: usize,
    /// Header and payload, without the tag. At least `header_len`.
    pub(super) clear_len: usize,
}

impl RtpHeader {
    /// Reads the header of a protected packet.
    pub(super) fn parse(packet: &[u8], profile: Profile) -> Result<Self, DropReason> {
        let clear_len = clear_len(packet, profile.rtp_overhead(), RTP_FIXED_LEN)?;
        let &[first, _, seq_high, seq_low, _, _, _, _, s0, s1, s2, s3, ..] = packet else {
            return Err(DropReason::SrtpLength);
        };
        if first >> 6 != VERSION {
            return Err(DropReason::RtpMalformed);
        }
        let mut header_len = RTP_FIXED_LEN + 4 * usize::from(first & 0x0F);
        if first & 0x10 != 0 {
            // RFC 3550 §5.3.1: a profile's word, a length in words, and so many words.
            let Some(&[high, low]) = packet.get(header_len + 2..header_len + 4) else {
                return Err(DropReason::RtpMalformed);
            };
            header_len += 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
        }
        if header_len > clear_len {
            return Err(DropReason::RtpMalformed);
        }
        let ssrc = u32::from_be_bytes([s0, s1, s2, s3]);
        Ok(Self { ssrc, seq: u16::from_be_bytes([seq_high, seq_low]), header_len, clear_len })
    }
}

/// Where the parts of an SRTCP packet are.
#[derive(Clone, Copy)]
pub(super) struct RtcpHeader {
    pub(super) ssrc: u32,
    /// The packet's own index, 31 bits.
    pub(super) index: u32,
    /// All of the compound packet, without tag and index. At least [`RTCP_FIXED_LEN`].
    pub(super) clear_len: usize,
}

impl RtcpHeader {
    /// Reads the header and the trailer of a protected packet.
    pub(super) fn parse(packet: &[u8], profile: Profile) -> Result<Self, DropReason> {
        let clear_len = clear_len(packet, profile.rtcp_overhead(), RTCP_FIXED_LEN)?;
        let &[first, _, _, _, s0, s1, s2, s3, ..] = packet else {
            return Err(DropReason::SrtpLength);
        };
        if first >> 6 != VERSION {
            return Err(DropReason::RtcpMalformed);
        }
        // AES-GCM puts the tag before the index (RFC 7714 §9.2), HMAC puts it behind (RFC 3711 §3.4).
        let at = match profile {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => clear_len + profile.tag_len(),
            Profile::Aes128CmHmacSha1_80 => clear_len,
        };
        let Some(&[i0, i1, i2, i3]) = packet.get(at..at + INDEX_LEN) else {
            return Err(DropReason::SrtpLength);
        };
        let word = u32::from_be_bytes([i0, i1, i2, i3]);
        if word & E_BIT == 0 {
            return Err(DropReason::SrtcpPlain);
        }
        Ok(Self { ssrc: u32::from_be_bytes([s0, s1, s2, s3]), index: word & !E_BIT, clear_len })
    }
}

/// What remains of `packet` without `overhead`, when that can hold a header.
fn clear_len(packet: &[u8], overhead: usize, header_len_min: usize) -> Result<usize, DropReason> {
    if packet.len() > limits::DATAGRAM_SIZE_MAX {
        return Err(DropReason::SrtpLength);
    }
    packet.len().checked_sub(overhead).filter(|&clear| clear >= header_len_min).ok_or(DropReason::SrtpLength)
}

/// The SSRC in a clear RTP header.
pub(super) fn rtp_ssrc(header: &[u8]) -> Option<u32> {
    header.get(8..RTP_FIXED_LEN)?.try_into().ok().map(u32::from_be_bytes)
}

/// The SSRC of the first packet of a clear compound RTCP packet.
pub(super) fn rtcp_ssrc(packet: &[u8]) -> Option<u32> {
    packet.get(4..RTCP_FIXED_LEN)?.try_into().ok().map(u32::from_be_bytes)
}

/// RTP without CSRCs and extensions.
pub(super) const RTP_FIXED_LEN: usize = 12;
/// What SRTCP leaves in clear: the first header and its SSRC (RFC 3711 §3.4).
pub(super) const RTCP_FIXED_LEN: usize = 8;
/// Set when SRTCP is encrypted (RFC 3711 §3.4).
pub(super) const E_BIT: u32 = 1 << 31;

const VERSION: u8 = 2;
