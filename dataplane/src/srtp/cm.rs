//! AES in counter mode with HMAC-SHA1 (RFC 3711 §4.1.1, §4.2.1). Both keys are expanded once, none per packet.
//!
//! HMAC-SHA1 on the CPU's SHA extensions is four fifths of the time, with any library; ours is at what both ciphers take by
//! themselves (`cargo bench --bench srtp`). Counter mode of `aws-lc-rs` takes 72 ns of 100 bytes and 185 of 1200, `aes` and `ctr` take
//! 42 and 206: for audio they would save a tenth of a packet's cost, for a second expanded key. What did not pay: hashing several packets
//! in turns (1 %), encrypting and hashing by chunks (slower), `HmacCore` fed whole blocks (slower). HMAC put together by hand from SHA-1's
//! blocks would save 40 ns a packet, and is not ours to write.

use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use hmac::{Hmac, KeyInit, Mac};
use ringmain_shared::drop_reason::DropReason;
use sha1::Sha1;
use subtle::ConstantTimeEq;

use super::cipher::Nonce;
use super::keys::SessionKey;
use super::multi_buffer::CmKey;

/// Expanded keys and the salt.
pub(crate) struct Cm {
    aes: EncryptingKey,
    hmac: Hmac<Sha1>,
    salt: u128,
    /// For sealing many packets at once.
    burst: Option<CmKey>,
}

impl Cm {
    pub(super) fn new(session: &SessionKey) -> Self {
        let key = UnboundCipherKey::new(&AES_128, session.key()).expect("a session key is as long as its profile says");
        Self {
            aes: EncryptingKey::ctr(key).expect("AES-128 has a counter mode"),
            hmac: Hmac::new_from_slice(session.auth()).expect("HMAC takes keys of any length"),
            salt: session.salt(),
            burst: None,
        }
    }

    /// Keys that only seal, with those for bursts where there are bursts.
    pub(super) fn sealing(session: &SessionKey) -> Self {
        Self { burst: CmKey::new(session), ..Self::new(session) }
    }

    /// The same keys for a burst.
    #[cfg(feature = "multi-buffer")]
    pub(super) fn burst_key(&self) -> Option<&CmKey> {
        self.burst.as_ref()
    }

    /// Whether packets may wait for a burst.
    #[inline]
    pub(super) fn gathers(&self) -> bool {
        self.burst.is_some()
    }

    /// Encrypts the payload of an RTP packet in place and writes the tag behind it.
    pub(super) fn seal(
        &self,
        nonce: Nonce,
        packet: &mut [u8],
        header_len: usize,
        clear_len: usize,
    ) -> Result<(), DropReason> {
        let (clear, rest) = packet.split_at_mut_checked(clear_len).ok_or(DropReason::SrtpLength)?;
        let tag = rest.first_chunk_mut::<TAG_LEN>().ok_or(DropReason::SrtpLength)?;
        self.apply_keystream(nonce, clear.get_mut(header_len..).ok_or(DropReason::SrtpLength)?)?;
        *tag = self.tag(clear, &roc(nonce));
        Ok(())
    }

    /// Encrypts or decrypts.
    pub(super) fn apply_keystream(&self, nonce: Nonce, payload: &mut [u8]) -> Result<(), DropReason> {
        let context = EncryptionContext::Iv128(self.iv(nonce).into());
        self.aes.less_safe_encrypt(payload, context).map(|_| ()).map_err(|_| DropReason::SrtpLength)
    }

    /// The first 80 bits of HMAC-SHA1 over `covered`, then `more`.
    pub(super) fn tag(&self, covered: &[u8], more: &[u8]) -> [u8; TAG_LEN] {
        let mut hmac = self.hmac.clone();
        hmac.update(covered);
        hmac.update(more);
        let full = hmac.finalize().into_bytes();
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&full[..TAG_LEN]);
        tag
    }

    /// Whether `tag` is that of `covered` and `more`, in constant time.
    pub(super) fn verify(&self, covered: &[u8], more: &[u8], tag: &[u8]) -> Result<(), DropReason> {
        if bool::from(self.tag(covered, more).as_slice().ct_eq(tag)) { Ok(()) } else { Err(DropReason::SrtpAuth) }
    }

    /// RFC 3711 §4.1.1: the counter begins at `(salt * 2^16) XOR (SSRC * 2^64) XOR (index * 2^16)` and goes up in the low 16 bits.
    pub(super) fn iv(&self, nonce: Nonce) -> [u8; 16] {
        (self.salt << 16 ^ u128::from(nonce.ssrc) << 64 ^ u128::from(nonce.index) << 16).to_be_bytes()
    }
}

/// The rollover counter, which HMAC covers though it is not sent (RFC 3711 §4.2).
pub(super) fn roc(nonce: Nonce) -> [u8; 4] {
    ((nonce.index >> 16) as u32).to_be_bytes()
}

pub(super) const TAG_LEN: usize = 10;
