//! What we send. Owns the SRTCP index of its key; the SRTP index is the caller's, who allocates it with the sequence number:
//! for one SSRC each index is sealed at most once (the same bytes again are harmless), or AES-GCM gives its key away.

use ringmain_shared::drop_reason::DropReason;

use super::cipher::{Cipher, Nonce};
use super::header::{RTCP_FIXED_LEN, RTP_FIXED_LEN, rtcp_ssrc, rtp_ssrc};
use super::index::{INDEX_MAX, RTCP_INDEX_MAX};
use super::keys::OutboundKeys;
use super::profile::Profile;
use crate::buf::TxSlot;

/// Protects SRTP and SRTCP towards one peer.
pub struct Outbound {
    rtp: Cipher,
    rtcp: Cipher,
    rtcp_index: u32,
}

impl Outbound {
    /// Nothing sent yet.
    pub fn new(keys: OutboundKeys) -> Self {
        // RFC 3711 §3.4: zero before the first packet.
        Self::from_ciphers(Cipher::sealing(&keys.0.rtp_session()), Cipher::new(&keys.0.rtcp_session()), 0)
    }

    pub(super) fn from_ciphers(rtp: Cipher, rtcp: Cipher, rtcp_index: u32) -> Self {
        Self { rtp, rtcp, rtcp_index }
    }

    /// Which algorithms.
    pub fn profile(&self) -> Profile {
        self.rtp.profile()
    }

    /// Something is protected soon.
    #[inline]
    pub fn expect(&self) {
        self.rtp.expect();
    }

    /// What [`expect`](Self::expect) asked for is there: what it points at is needed as well.
    #[inline]
    pub fn expect_schedule(&self) {
        self.rtp.expect_schedule();
    }

    /// Protects in place: `packet` holds header and payload in its first `clear_len` bytes and has room for
    /// [`Profile::rtp_overhead`] behind them. `index` is rollover counter and sequence number, as in the header. Gives the
    /// protected length; [`DropReason::SrtpLength`] when there is no room, [`DropReason::KeyExhausted`] beyond 48 bits.
    pub fn protect_rtp(
        &self,
        index: u64,
        packet: &mut [u8],
        header_len: usize,
        clear_len: usize,
    ) -> Result<usize, DropReason> {
        let nonce = rtp_nonce(index, packet, header_len)?;
        self.rtp.seal_rtp(nonce, packet, header_len, clear_len)
    }

    /// Like [`protect_rtp`](Self::protect_rtp), with the payload read from elsewhere: `packet` holds the header, and room.
    #[cfg(test)]
    pub(crate) fn protect_rtp_from(
        &self,
        index: u64,
        payload: &[u8],
        packet: &mut [u8],
        header_len: usize,
    ) -> Result<usize, DropReason> {
        let nonce = rtp_nonce(index, packet, header_len)?;
        self.rtp.seal_rtp_from(nonce, payload, packet, header_len)
    }

    /// Like [`protect_rtp`](Self::protect_rtp) in a slot of the transmit batch, to be committed with the length that is given. The
    /// packet is sealed at once or, where many are sealed together, before the batch is sent.
    pub fn protect_rtp_slot(
        &self,
        index: u64,
        slot: &mut TxSlot<'_>,
        header_len: usize,
        clear_len: usize,
    ) -> Result<usize, DropReason> {
        let nonce = rtp_nonce(index, slot.bytes_mut(), header_len)?;
        self.rtp.seal_rtp_slot(nonce, slot, header_len, clear_len)
    }

    /// Like [`protect_rtp_slot`](Self::protect_rtp_slot), with the payload read from elsewhere: the slot holds the header, and room.
    /// Saves copying a payload that goes out unchanged.
    pub fn protect_rtp_slot_from(
        &self,
        index: u64,
        payload: &[u8],
        slot: &mut TxSlot<'_>,
        header_len: usize,
    ) -> Result<usize, DropReason> {
        let nonce = rtp_nonce(index, slot.bytes_mut(), header_len)?;
        self.rtp.seal_rtp_slot_from(nonce, payload, slot, header_len)
    }

    /// Protects a compound packet in place: it is the first `clear_len` bytes of `packet`, with room for
    /// [`Profile::rtcp_overhead`] behind them. Gives the protected length; [`DropReason::SrtpLength`] when there is no room,
    /// [`DropReason::KeyExhausted`] when all 2^31 indices are used up (RFC 3711 §9.2).
    pub fn protect_rtcp(&mut self, packet: &mut [u8], clear_len: usize) -> Result<usize, DropReason> {
        if self.rtcp_index > RTCP_INDEX_MAX {
            return Err(DropReason::KeyExhausted);
        }
        let ssrc = rtcp_ssrc(packet).filter(|_| clear_len >= RTCP_FIXED_LEN).ok_or(DropReason::SrtpLength)?;
        let total = self.rtcp.seal_rtcp(Nonce { ssrc, index: u64::from(self.rtcp_index) }, packet, clear_len)?;
        self.rtcp_index += 1;
        Ok(total)
    }
}

fn rtp_nonce(index: u64, packet: &[u8], header_len: usize) -> Result<Nonce, DropReason> {
    if index > INDEX_MAX {
        return Err(DropReason::KeyExhausted);
    }
    let ssrc = rtp_ssrc(packet).filter(|_| header_len >= RTP_FIXED_LEN).ok_or(DropReason::SrtpLength)?;
    debug_assert_eq!(packet.get(2..4), Some(&(index as u16).to_be_bytes()[..]), "the index is not the header's");
    Ok(Nonce { ssrc, index })
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbound({:?})", self.profile())
    }
}
