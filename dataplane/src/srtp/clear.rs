//! Clear packets. Only `unprotect` makes them, so whoever holds one knows that its bytes were authenticated and are new.

use ringmain_shared::media::Ssrc;

/// Describes an RTP packet that was unprotected in place: to be kept beside its buffer, when the bytes are read later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClearRtp {
    pub(super) ssrc: Ssrc,
    pub(super) index: u64,
    pub(super) header_len: u16,
    pub(super) len: u16,
}

impl ClearRtp {
    /// Its source.
    pub fn ssrc(self) -> Ssrc {
        self.ssrc
    }

    /// Its sequence number.
    pub fn seq(self) -> u16 {
        self.index as u16
    }

    /// Its extended sequence number: rollover counter and sequence number, 48 bits (RFC 3711 §3.3.1).
    pub fn index(self) -> u64 {
        self.index
    }

    /// Bytes of fixed header, CSRCs and extensions; at least 12.
    pub fn header_len(self) -> usize {
        usize::from(self.header_len)
    }

    /// Bytes of header and payload; at least `header_len`. What follows in the buffer is the spent tag.
    #[allow(clippy::len_without_is_empty, reason = "a packet has a header")]
    pub fn len(self) -> usize {
        usize::from(self.len)
    }

    /// Back to the packet, in the buffer where it was unprotected. `None` when that has become too short.
    pub fn view(self, buffer: &mut [u8]) -> Option<RtpClear<'_>> {
        Some(RtpClear { bytes: buffer.get_mut(..self.len())?, described: self })
    }
}

/// An RTP packet, authenticated, new and decrypted.
pub struct RtpClear<'a> {
    bytes: &'a mut [u8],
    described: ClearRtp,
}

impl<'a> RtpClear<'a> {
    /// Its place and name, to keep when the bytes go out of sight.
    pub fn describe(&self) -> ClearRtp {
        self.described
    }

    /// Header and payload.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Header and payload, to be changed in place.
    pub fn into_bytes(self) -> &'a mut [u8] {
        self.bytes
    }

    /// Fixed header, CSRCs and extensions.
    pub fn header(&self) -> &[u8] {
        self.bytes.get(..self.described.header_len()).unwrap_or_default()
    }

    /// What follows the header, with its padding if there is any.
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(self.described.header_len()..).unwrap_or_default()
    }
}

/// Describes an RTCP packet that was unprotected in place: to be kept beside its buffer, when the bytes are read later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClearRtcp {
    pub(super) ssrc: Ssrc,
    pub(super) index: u32,
    pub(super) len: u16,
}

impl ClearRtcp {
    /// Who sends it: the SSRC of the first packet of the compound.
    pub fn ssrc(self) -> Ssrc {
        self.ssrc
    }

    /// Its SRTCP index, 31 bits.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Bytes of the compound packet; at least 8. What follows in the buffer is the spent tag and index.
    #[allow(clippy::len_without_is_empty, reason = "a packet has a header")]
    pub fn len(self) -> usize {
        usize::from(self.len)
    }

    /// Back to the packet, in the buffer where it was unprotected. `None` when that has become too short.
    pub fn view(self, buffer: &mut [u8]) -> Option<RtcpClear<'_>> {
        Some(RtcpClear { bytes: buffer.get_mut(..self.len())?, described: self })
    }
}

/// A compound RTCP packet, authenticated, new and decrypted.
pub struct RtcpClear<'a> {
    bytes: &'a mut [u8],
    described: ClearRtcp,
}

impl<'a> RtcpClear<'a> {
    /// Its place and name, to keep when the bytes go out of sight.
    pub fn describe(&self) -> ClearRtcp {
        self.described
    }

    /// All of the compound.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// All of the compound, to be changed in place.
    pub fn into_bytes(self) -> &'a mut [u8] {
        self.bytes
    }
}
