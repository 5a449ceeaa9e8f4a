//! One session cipher: one direction, one of SRTP and SRTCP. Knows keys and bytes, not which packets were seen.

use std::sync::Arc;

use ringmain_shared::drop_reason::DropReason;

use super::cm::{Cm, roc};
use super::gcm::Gcm;
use super::header::{E_BIT, RTCP_FIXED_LEN, RtcpHeader, RtpHeader};
use super::keys::SessionKey;
use super::profile::{INDEX_LEN, Profile};
use crate::buf::{TxSlot, prefetch_whole};

/// Proof that a packet's tag was right, good for one change of state.
pub(super) struct Authenticated(());

/// What makes a nonce (RFC 3711 §4.1.1, RFC 7714 §8.1 and §9.1).
#[derive(Clone, Copy)]
pub(crate) struct Nonce {
    pub(super) ssrc: u32,
    /// 48 bits of SRTP, 31 bits of SRTCP.
    pub(super) index: u64,
}

/// The algorithms of a [`Profile`], with their keys expanded, which are shared with packets that wait in the transmit batch.
pub(super) enum Cipher {
    Gcm(Arc<Gcm>, Profile),
    Cm(Arc<Cm>, Profile),
}

impl Cipher {
    pub(super) fn new(session: &SessionKey) -> Self {
        match session.profile {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => Self::Gcm(Arc::new(Gcm::new(session)), session.profile),
            Profile::Aes128CmHmacSha1_80 => Self::Cm(Arc::new(Cm::new(session)), session.profile),
        }
    }

    /// For the packets that are sent: on the multi-buffer backend where it is.
    pub(super) fn sealing(session: &SessionKey) -> Self {
        match session.profile {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => {
                Self::Gcm(Arc::new(Gcm::sealing(session)), session.profile)
            }
            Profile::Aes128CmHmacSha1_80 => Self::Cm(Arc::new(Cm::sealing(session)), session.profile),
        }
    }

    pub(super) fn profile(&self) -> Profile {
        match self {
            Self::Gcm(_, profile) | Self::Cm(_, profile) => *profile,
        }
    }

    /// Brings the key into the caches.
    #[inline]
    pub(super) fn expect(&self) {
        match self {
            Self::Gcm(gcm, _) => prefetch_whole(&**gcm),
            Self::Cm(cm, _) => prefetch_whole(&**cm),
        }
    }

    /// Brings into the caches what the key points at, once it is there itself.
    #[inline]
    pub(super) fn expect_schedule(&self) {
        if let Self::Gcm(gcm, _) = self {
            gcm.expect_schedule();
        }
    }

    /// Encrypts the payload in place and writes the tag behind it; gives the length of it all.
    pub(super) fn seal_rtp(
        &self,
        nonce: Nonce,
        packet: &mut [u8],
        header_len: usize,
        clear_len: usize,
    ) -> Result<usize, DropReason> {
        let total = clear_len + self.profile().rtp_overhead();
        match self {
            Self::Gcm(gcm, _) => {
                let (header, payload, tag) = parts(packet, header_len, clear_len, total)?;
                gcm.seal(nonce, header, payload, tag)?;
            }
            Self::Cm(cm, _) => {
                cm.seal(nonce, packet, header_len, clear_len)?;
            }
        }
        Ok(total)
    }

    /// Like [`seal_rtp`](Self::seal_rtp), with the payload read from elsewhere.
    pub(super) fn seal_rtp_from(
        &self,
        nonce: Nonce,
        clear: &[u8],
        packet: &mut [u8],
        header_len: usize,
    ) -> Result<usize, DropReason> {
        let clear_len = header_len + clear.len();
        let total = clear_len + self.profile().rtp_overhead();
        let (header, payload, tag) = parts(packet, header_len, clear_len, total)?;
        match self {
            Self::Gcm(gcm, _) => gcm.seal_from(nonce, header, clear, payload, tag)?,
            Self::Cm(..) => {
                payload.copy_from_slice(clear);
                self.seal_rtp(nonce, packet, header_len, clear_len)?;
            }
        }
        Ok(total)
    }

    /// Like [`seal_rtp`](Self::seal_rtp) in a slot of the transmit batch: at once, or together with others before the batch is sent.
    pub(super) fn seal_rtp_slot(
        &self,
        nonce: Nonce,
        slot: &mut TxSlot<'_>,
        header_len: usize,
        clear_len: usize,
    ) -> Result<usize, DropReason> {
        let total = clear_len + self.profile().rtp_overhead();
        if header_len >= clear_len || !slot.gathers() {
            return self.seal_rtp(nonce, slot.bytes_mut(), header_len, clear_len);
        }
        let room = slot.bytes_mut().get_mut(clear_len..total).ok_or(DropReason::SrtpLength)?;
        let key = match self {
            Self::Cm(cm, _) if cm.gathers() => {
                room.get_mut(..4).ok_or(DropReason::SrtpLength)?.copy_from_slice(&roc(nonce));
                Waiting::Cm(cm)
            }
            Self::Gcm(gcm, _) if gcm.gathers() => Waiting::Gcm(gcm),
            _ => return self.seal_rtp(nonce, slot.bytes_mut(), header_len, clear_len),
        };
        slot.seal_later(key, nonce, header_len, clear_len);
        Ok(total)
    }

    /// Like [`seal_rtp_slot`](Self::seal_rtp_slot), with the payload read from elsewhere.
    pub(super) fn seal_rtp_slot_from(
        &self,
        nonce: Nonce,
        clear: &[u8],
        slot: &mut TxSlot<'_>,
        header_len: usize,
    ) -> Result<usize, DropReason> {
        let waits = slot.gathers() && (matches!(self, Self::Cm(..)) || clear.len() <= COPIED_TO_WAIT_MAX);
        if !waits {
            return self.seal_rtp_from(nonce, clear, slot.bytes_mut(), header_len);
        }
        let clear_len = header_len + clear.len();
        let payload = slot.bytes_mut().get_mut(header_len..clear_len).ok_or(DropReason::SrtpLength)?;
        payload.copy_from_slice(clear);
        self.seal_rtp_slot(nonce, slot, header_len, clear_len)
    }

    /// Authenticates, then decrypts in place. When the tag is wrong, the payload may have been wiped.
    pub(super) fn open_rtp(
        &self,
        nonce: Nonce,
        packet: &mut [u8],
        at: &RtpHeader,
    ) -> Result<Authenticated, DropReason> {
        let len = packet.len();
        match self {
            Self::Gcm(gcm, _) => {
                let (header, payload, tag) = parts(packet, at.header_len, at.clear_len, len)?;
                gcm.open(nonce, header, payload, tag)?;
            }
            Self::Cm(cm, _) => {
                let (clear, tag) = halves(packet, at.clear_len, len)?;
                cm.verify(clear, &roc(nonce), tag)?;
                cm.apply_keystream(nonce, clear.get_mut(at.header_len..).ok_or(DropReason::SrtpLength)?)?;
            }
        }
        Ok(Authenticated(()))
    }

    /// Whether [`open_rtp`](Self::open_rtp) would succeed; leaves the packet as it is.
    pub(super) fn would_open_rtp(&self, nonce: Nonce, packet: &[u8], at: &RtpHeader) -> bool {
        let Some((clear, tag)) = packet.split_at_checked(at.clear_len) else { return false };
        let Some((header, payload)) = clear.split_at_checked(at.header_len) else { return false };
        match self {
            Self::Gcm(gcm, _) => gcm.would_open(nonce, header, payload, tag),
            Self::Cm(cm, _) => cm.verify(clear, &roc(nonce), tag).is_ok(),
        }
    }

    /// Encrypts all but the first header and writes tag and index behind it; gives the length of it all.
    pub(super) fn seal_rtcp(&self, nonce: Nonce, packet: &mut [u8], clear_len: usize) -> Result<usize, DropReason> {
        let total = clear_len + self.profile().rtcp_overhead();
        let word = index_word(nonce);
        match self {
            Self::Gcm(gcm, profile) => {
                let (header, payload, trailer) = parts(packet, RTCP_FIXED_LEN, clear_len, total)?;
                let (tag, index) = trailer.split_at_mut_checked(profile.tag_len()).ok_or(DropReason::SrtpLength)?;
                gcm.seal(nonce, &rtcp_associated_data(header, word)?, payload, tag)?;
                index.copy_from_slice(&word);
            }
            Self::Cm(cm, _) => {
                let (covered, tag) = halves(packet, clear_len + INDEX_LEN, total)?;
                let (clear, index) = covered.split_at_mut_checked(clear_len).ok_or(DropReason::SrtpLength)?;
                cm.apply_keystream(nonce, clear.get_mut(RTCP_FIXED_LEN..).ok_or(DropReason::SrtpLength)?)?;
                index.copy_from_slice(&word);
                tag.copy_from_slice(&cm.tag(covered, &[]));
            }
        }
        Ok(total)
    }

    /// Authenticates, then decrypts in place. When the tag is wrong, the payload may have been wiped.
    pub(super) fn open_rtcp(
        &self,
        nonce: Nonce,
        packet: &mut [u8],
        at: &RtcpHeader,
    ) -> Result<Authenticated, DropReason> {
        let len = packet.len();
        match self {
            Self::Gcm(gcm, profile) => {
                let (header, payload, trailer) = parts(packet, RTCP_FIXED_LEN, at.clear_len, len)?;
                let (tag, _) = trailer.split_at_checked(profile.tag_len()).ok_or(DropReason::SrtpLength)?;
                gcm.open(nonce, &rtcp_associated_data(header, index_word(nonce))?, payload, tag)?;
            }
            Self::Cm(cm, _) => {
                let (covered, tag) = halves(packet, at.clear_len + INDEX_LEN, len)?;
                cm.verify(covered, &[], tag)?;
                let payload = covered.get_mut(RTCP_FIXED_LEN..at.clear_len).ok_or(DropReason::SrtpLength)?;
                cm.apply_keystream(nonce, payload)?;
            }
        }
        Ok(Authenticated(()))
    }
}

/// What a packet in the transmit batch is to be sealed with.
#[cfg_attr(not(feature = "multi-buffer"), expect(dead_code, reason = "nothing waits in a build without the backend"))]
#[derive(Clone, Copy)]
pub(crate) enum Waiting<'a> {
    Cm(&'a Arc<Cm>),
    Gcm(&'a Arc<Gcm>),
}

/// AES-GCM seals a longer payload while it copies it, which is worth more than what waiting saves.
const COPIED_TO_WAIT_MAX: usize = 256;

/// The clear part of a packet and what follows it up to `total`.
#[inline]
fn halves(packet: &mut [u8], clear_len: usize, total: usize) -> Result<(&mut [u8], &mut [u8]), DropReason> {
    let packet = packet.get_mut(..total).ok_or(DropReason::SrtpLength)?;
    packet.split_at_mut_checked(clear_len).ok_or(DropReason::SrtpLength)
}

type Parts<'a> = (&'a [u8], &'a mut [u8], &'a mut [u8]);

/// Header, what is encrypted, and what follows it up to `total`.
#[inline]
fn parts(packet: &mut [u8], header_len: usize, clear_len: usize, total: usize) -> Result<Parts<'_>, DropReason> {
    let (clear, trailer) = halves(packet, clear_len, total)?;
    let (header, payload) = clear.split_at_mut_checked(header_len).ok_or(DropReason::SrtpLength)?;
    Ok((header, payload, trailer))
}

/// E bit and index as they are sent.
fn index_word(nonce: Nonce) -> [u8; INDEX_LEN] {
    (nonce.index as u32 | E_BIT).to_be_bytes()
}

/// The first header with the index behind it (RFC 7714 §9.2).
fn rtcp_associated_data(
    header: &[u8],
    index_word: [u8; INDEX_LEN],
) -> Result<[u8; RTCP_FIXED_LEN + INDEX_LEN], DropReason> {
    let header: [u8; RTCP_FIXED_LEN] = header.try_into().map_err(|_| DropReason::SrtpLength)?;
    let mut data = [0; RTCP_FIXED_LEN + INDEX_LEN];
    data[..RTCP_FIXED_LEN].copy_from_slice(&header);
    data[RTCP_FIXED_LEN..].copy_from_slice(&index_word);
    Ok(data)
}
