//! What the peer sends: lengths and header → replay peek → authenticate → decrypt → replay commit.
//! Owns a window for each SSRC. A packet seen before is still authenticated, so that whoever counts [`DropReason::Replayed`]
//! counts packets of the peer (senders repeat old packets to probe for bandwidth) and not a stranger's.

use ringmain_shared::drop_reason::DropReason;
use ringmain_shared::media::Ssrc;

use super::cipher::{Cipher, Nonce};
use super::clear::{ClearRtcp, ClearRtp, RtcpClear, RtpClear};
use super::header::{RtcpHeader, RtpHeader};
use super::index;
use super::keys::InboundKeys;
use super::profile::Profile;
use super::streams::Streams;

/// Opens the SRTP and SRTCP of one peer. After an error, the packet's payload means nothing.
pub struct Inbound {
    rtp: Cipher,
    rtcp: Cipher,
    rtp_streams: Streams<RTP_WINDOW_WORDS>,
    rtcp_streams: Streams<RTCP_WINDOW_WORDS>,
}

impl Inbound {
    /// Nothing heard yet.
    pub fn new(keys: InboundKeys) -> Self {
        Self::from_ciphers(Cipher::new(&keys.0.rtp_session()), Cipher::new(&keys.0.rtcp_session()))
    }

    pub(super) fn from_ciphers(rtp: Cipher, rtcp: Cipher) -> Self {
        Self { rtp, rtcp, rtp_streams: Streams::new(), rtcp_streams: Streams::new() }
    }

    /// Which algorithms.
    pub fn profile(&self) -> Profile {
        self.rtp.profile()
    }

    /// Authenticates and decrypts one SRTP packet in place. [`DropReason::Replayed`] (seen before), [`DropReason::TooOld`]
    /// (behind the window) and [`DropReason::TooManySsrcs`] are said of packets whose tag is right.
    pub fn unprotect_rtp<'a>(&mut self, packet: &'a mut [u8]) -> Result<RtpClear<'a>, DropReason> {
        let header = RtpHeader::parse(packet, self.rtp.profile())?;
        let ssrc = header.ssrc;
        let index = match self.rtp_streams.window(ssrc) {
            Some(window) => {
                let index = index::guess(window.highest(), header.seq).ok_or(DropReason::KeyExhausted)?;
                let new = window.peek(index);
                let authenticated = self.rtp.open_rtp(Nonce { ssrc, index }, packet, &header)?;
                new?;
                window.commit(index, authenticated);
                index
            }
            None => {
                let index = self.first_index(packet, &header);
                let authenticated = self.rtp.open_rtp(Nonce { ssrc, index }, packet, &header)?;
                self.rtp_streams.insert(ssrc, index, authenticated)?;
                index
            }
        };
        // `parse` bounds both by `limits::DATAGRAM_SIZE_MAX`.
        let (header_len, len) = (header.header_len as u16, header.clear_len as u16);
        let described = ClearRtp { ssrc: Ssrc(ssrc), index, header_len, len };
        described.view(packet).ok_or(DropReason::SrtpLength)
    }

    /// Authenticates and decrypts one compound SRTCP packet in place. Errors as in [`unprotect_rtp`](Self::unprotect_rtp),
    /// and [`DropReason::SrtcpPlain`] for a packet that does not claim to be encrypted.
    pub fn unprotect_rtcp<'a>(&mut self, packet: &'a mut [u8]) -> Result<RtcpClear<'a>, DropReason> {
        let header = RtcpHeader::parse(packet, self.rtcp.profile())?;
        let ssrc = header.ssrc;
        let index = u64::from(header.index);
        match self.rtcp_streams.window(ssrc) {
            Some(window) => {
                let new = window.peek(index);
                let authenticated = self.rtcp.open_rtcp(Nonce { ssrc, index }, packet, &header)?;
                new?;
                window.commit(index, authenticated);
            }
            None => {
                let authenticated = self.rtcp.open_rtcp(Nonce { ssrc, index }, packet, &header)?;
                self.rtcp_streams.insert(ssrc, index, authenticated)?;
            }
        }
        let described = ClearRtcp { ssrc: Ssrc(ssrc), index: header.index, len: header.clear_len as u16 };
        described.view(packet).ok_or(DropReason::SrtpLength)
    }

    /// Makes room for another SSRC: `ssrc` belongs to a track that has ended. Until the keys change, its old packets would be
    /// accepted once more; nothing may be mapped to it any longer.
    pub fn forget(&mut self, ssrc: Ssrc) {
        self.rtp_streams.remove(ssrc.0);
        self.rtcp_streams.remove(ssrc.0);
    }

    /// After [`DropReason::TooManySsrcs`]: forgets the oldest SSRC that is not to be kept, for the next packet. The others stay, since
    /// senders come back under an SSRC with the rollover counter that it had.
    pub fn make_room(&mut self, keep: impl Fn(Ssrc) -> bool) {
        self.rtp_streams.make_room(|ssrc| keep(Ssrc(ssrc)));
        self.rtcp_streams.make_room(|ssrc| keep(Ssrc(ssrc)));
    }

    /// The index of a stream's first packet, by trying: costs a second pass over one packet of each SSRC.
    fn first_index(&self, packet: &[u8], header: &RtpHeader) -> u64 {
        let ssrc = header.ssrc;
        match index::first(header.seq) {
            (index, Some(rolled)) if !self.rtp.would_open_rtp(Nonce { ssrc, index }, packet, header) => rolled,
            (index, _) => index,
        }
    }

    #[cfg(test)]
    pub(super) fn stream_counts(&self) -> (usize, usize) {
        (self.rtp_streams.len(), self.rtcp_streams.len())
    }
}

/// 1024 packets: more than a second of the fastest layer, so that nothing that was asked for again is taken for a replay.
const RTP_WINDOW_WORDS: usize = 1 + 1024 / 64;
/// 128 packets.
const RTCP_WINDOW_WORDS: usize = 1 + 128 / 64;

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inbound({:?})", self.profile())
    }
}
