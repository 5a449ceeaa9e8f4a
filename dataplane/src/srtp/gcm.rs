//! AES-GCM as SRTP uses it (RFC 7714): the tag covers header and ciphertext, encryption and tag are one pass.

use aws_lc_rs::aead::{self, AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, UnboundKey};
use ringmain_shared::drop_reason::DropReason;
use ringmain_shared::limits::DATAGRAM_SIZE_MAX;

use super::cipher::Nonce;
use super::keys::SessionKey;
use super::multi_buffer::GcmKey;
use super::profile::Profile;
use crate::buf::prefetch_behind;

/// An expanded key and its salt.
pub(crate) struct Gcm {
    key: LessSafeKey,
    salt: u128,
    /// Seals in place of `key`, where the multi-buffer backend is.
    quick: Option<GcmKey>,
}

impl Gcm {
    pub(super) fn new(session: &SessionKey) -> Self {
        let algorithm = match session.profile {
            Profile::AeadAes256Gcm => &AES_256_GCM,
            Profile::AeadAes128Gcm | Profile::Aes128CmHmacSha1_80 => &AES_128_GCM,
        };
        let key = UnboundKey::new(algorithm, session.key()).expect("a session key is as long as its profile says");
        Self { key: LessSafeKey::new(key), salt: session.salt(), quick: None }
    }

    /// A key for the packets that are sent.
    pub(super) fn sealing(session: &SessionKey) -> Self {
        Self { quick: GcmKey::new(session), ..Self::new(session) }
    }

    /// Something is sealed soon.
    #[inline]
    pub(super) fn expect_schedule(&self) {
        if self.quick.is_none() {
            prefetch_behind(&self.key, SCHEDULE_AT, SCHEDULE_SIZE);
        }
    }

    /// Whether packets may wait to be sealed together.
    #[inline]
    pub(super) fn gathers(&self) -> bool {
        self.quick.is_some()
    }

    pub(super) fn seal(
        &self,
        nonce: Nonce,
        header: &[u8],
        payload: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), DropReason> {
        if let Some(quick) = &self.quick {
            quick.seal(self.iv(nonce), header, payload, tag.try_into().map_err(|_| DropReason::SrtpLength)?);
            return Ok(());
        }
        self.key
            .seal_in_place_scatter(self.aead_nonce(nonce), Aad::from(header), payload, &[], tag)
            .map_err(|_| DropReason::SrtpLength)
    }

    pub(super) fn seal_from(
        &self,
        nonce: Nonce,
        header: &[u8],
        clear: &[u8],
        payload: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), DropReason> {
        if let Some(quick) = &self.quick {
            let tag = tag.try_into().map_err(|_| DropReason::SrtpLength)?;
            quick.seal_from(self.iv(nonce), header, clear, payload, tag);
            return Ok(());
        }
        self.key
            .seal_out_of_place_scatter(self.aead_nonce(nonce), Aad::from(header), clear, payload, &[], tag)
            .map_err(|_| DropReason::SrtpLength)
    }

    pub(super) fn open(&self, nonce: Nonce, header: &[u8], payload: &mut [u8], tag: &[u8]) -> Result<(), DropReason> {
        self.key
            .open_in_place_separate_tag(self.aead_nonce(nonce), Aad::from(header), tag, payload)
            .map(|_| ())
            .map_err(|_| DropReason::SrtpAuth)
    }

    /// Decrypts into scratch: in place, a wrong nonce would have destroyed the packet.
    pub(super) fn would_open(&self, nonce: Nonce, header: &[u8], payload: &[u8], tag: &[u8]) -> bool {
        let mut scratch = [0; DATAGRAM_SIZE_MAX];
        let Some(clear) = scratch.get_mut(..payload.len()) else { return false };
        self.key.open_separate_gather(self.aead_nonce(nonce), Aad::from(header), payload, tag, clear).is_ok()
    }

    /// RFC 7714 §8.1: two zero bytes, SSRC, ROC, SEQ; §9.1: two zero bytes, SSRC, two zero bytes, 31-bit index; XOR the salt.
    fn iv(&self, nonce: Nonce) -> u128 {
        self.salt ^ u128::from(nonce.ssrc) << 48 ^ u128::from(nonce.index)
    }

    fn aead_nonce(&self, nonce: Nonce) -> aead::Nonce {
        let mut bytes = [0; NONCE_LEN];
        bytes.copy_from_slice(&self.iv(nonce).to_be_bytes()[16 - NONCE_LEN..]);
        aead::Nonce::assume_unique_for_key(bytes)
    }
}

/// The word of a key that points at its schedule. The others are the algorithm, which is the same for all keys, and which kind it is.
const SCHEDULE_AT: usize = 1;
/// Bytes of a round-key schedule and a hash key, as aws-lc keeps them behind a pointer.
const SCHEDULE_SIZE: usize = 640;

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::buf::word_of;

    /// The compiler lays keys out as it likes; what is looked for elsewhere is only fetched too late.
    #[test]
    fn a_schedule_is_behind_the_word_where_it_is_looked_for() {
        for (algorithm, size) in [(&AES_128_GCM, 16), (&AES_256_GCM, 32)] {
            let key = |byte| LessSafeKey::new(UnboundKey::new(algorithm, &[byte; 32][..size]).expect("a key"));
            let keys: Vec<LessSafeKey> = (0..8).map(key).collect();
            let is_own = |&at: &usize| {
                let mut words: Vec<usize> = keys.iter().map(|key| word_of(key, at)).collect();
                words.sort_unstable();
                words.dedup();
                words.len() == keys.len() && words.iter().all(|word| word % align_of::<usize>() == 0)
            };
            let own: Vec<usize> = (0..size_of::<LessSafeKey>() / size_of::<usize>()).filter(is_own).collect();
            assert_eq!(own, [SCHEDULE_AT]);
        }
    }
}
