//! AES in counter mode with HMAC-SHA1 (RFC 3711 §4.1.1, §4.2.1). Both keys are expanded once, none per packet.

use aes::Aes128;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipherCore};
use ctr::CtrCore;
use ctr::flavors::Ctr64BE;
use hmac::{Hmac, Mac};
use ringmain_shared::drop_reason::DropReason;
use sha1::Sha1;
use subtle::ConstantTimeEq;

use super::cipher::Nonce;
use super::keys::SessionKey;

/// Expanded keys and the salt.
pub(super) struct Cm {
    aes: Aes128,
    hmac: Hmac<Sha1>,
    salt: u128,
}

impl Cm {
    pub(super) fn new(session: &SessionKey) -> Self {
        Self {
            aes: Aes128::new_from_slice(session.key()).expect("a session key is as long as its profile says"),
            hmac: Hmac::new_from_slice(session.auth()).expect("HMAC takes keys of any length"),
            salt: session.salt(),
        }
    }

    /// Encrypts or decrypts. RFC 3711 §4.1.1: the counter begins at `(salt * 2^16) XOR (SSRC * 2^64) XOR (index * 2^16)` and
    /// goes up in the low 16 bits. A packet has fewer than 2^16 blocks, so counting in 64 bits is the same, and faster than in
    /// 128.
    pub(super) fn apply_keystream(&self, nonce: Nonce, payload: &mut [u8]) {
        let iv = self.salt << 16 ^ u128::from(nonce.ssrc) << 64 ^ u128::from(nonce.index) << 16;
        CtrCore::<_, Ctr64BE>::inner_iv_init(&self.aes, &iv.to_be_bytes().into())
            .apply_keystream_partial(payload.into());
    }

    /// The first 80 bits of HMAC-SHA1 over all of `parts`.
    pub(super) fn tag(&self, parts: &[&[u8]]) -> [u8; TAG_LEN] {
        let mut hmac = self.hmac.clone();
        for part in parts {
            hmac.update(part);
        }
        let full = hmac.finalize().into_bytes();
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&full[..TAG_LEN]);
        tag
    }

    /// Whether `tag` is that of `parts`, in constant time.
    pub(super) fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> Result<(), DropReason> {
        if bool::from(self.tag(parts).as_slice().ct_eq(tag)) { Ok(()) } else { Err(DropReason::SrtpAuth) }
    }
}

const TAG_LEN: usize = 10;
