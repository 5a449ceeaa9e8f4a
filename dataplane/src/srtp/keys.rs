//! Master keys, with their direction in the type, and the session keys derived from them (RFC 3711 §4.3, RFC 7714 §11).
//! Everything here is wiped when dropped, and nothing here can be printed.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use ringmain_shared::transport::DtlsRole;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::profile::Profile;

/// A master key and its salt (RFC 3711 §3.2.1). Behind a pointer, so that moving it leaves no copy of the secret.
pub struct MasterKey {
    profile: Profile,
    secret: Box<Secret>,
}

impl MasterKey {
    /// `None` when a length is not the profile's.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Option<Self> {
        if key.len() != profile.key_len() || salt.len() != profile.salt_len() {
            return None;
        }
        let mut secret = Box::new(Secret::default());
        secret.key.get_mut(..key.len())?.copy_from_slice(key);
        secret.salt.get_mut(..salt.len())?.copy_from_slice(salt);
        Some(Self { profile, secret })
    }

    /// Which algorithms it is for.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// What SRTP is protected with.
    pub(super) fn rtp_session(&self) -> SessionKey {
        self.session(LABEL_RTP)
    }

    /// What SRTCP is protected with.
    pub(super) fn rtcp_session(&self) -> SessionKey {
        self.session(LABEL_RTCP)
    }

    /// Labels follow each other: encryption key, authentication key, salt (RFC 3711 §4.3.1, §4.3.2).
    fn session(&self, first_label: u8) -> SessionKey {
        let mut session = SessionKey::new(self.profile);
        self.derive(first_label, &mut session.secret.key[..self.profile.key_len()]);
        self.derive(first_label + 1, &mut session.secret.auth);
        self.derive(first_label + 2, &mut session.secret.salt[..self.profile.salt_len()]);
        session
    }

    /// AES-CM as the pseudo-random function (RFC 3711 §4.3.3), under AES-256 where the master key has 256 bits (RFC 7714 §11).
    fn derive(&self, label: u8, out: &mut [u8]) {
        let Secret { key, salt, .. } = &*self.secret;
        // A salt of 96 bits is padded at its end to the 112 bits that the derivation works on (RFC 7714 §11).
        let mut iv = [0; 16];
        iv[..salt.len()].copy_from_slice(salt);
        // The key derivation rate is zero, so the label is all that is added to the salt (RFC 3711 §4.3.1).
        iv[7] ^= label;
        out.fill(0);
        let algorithm = match self.profile {
            Profile::AeadAes128Gcm | Profile::Aes128CmHmacSha1_80 => &AES_128,
            Profile::AeadAes256Gcm => &AES_256,
        };
        let key =
            UnboundCipherKey::new(algorithm, &key[..self.profile.key_len()]).expect("a key of its profile's length");
        let cipher = EncryptingKey::ctr(key).expect("AES has a counter mode");
        cipher.less_safe_encrypt(out, EncryptionContext::Iv128(iv.into())).expect("counter mode takes any length");
        iv.zeroize();
    }
}

/// Opens what the peer sends.
pub struct InboundKeys(pub(super) MasterKey);

impl InboundKeys {
    /// `key` is the one that the peer protects with.
    pub fn new(key: MasterKey) -> Self {
        Self(key)
    }
}

/// Protects what we send.
pub struct OutboundKeys(pub(super) MasterKey);

impl OutboundKeys {
    /// `key` is the one that the peer opens with. One [`Outbound`](super::Outbound) for each: two would repeat nonces.
    pub fn new(key: MasterKey) -> Self {
        Self(key)
    }
}

/// Cuts what DTLS exported under `EXTRACTOR-dtls_srtp` into the keys of each direction. `role` is ours; `None` when the
/// length is not the profile's. The caller wipes `material`.
pub fn split_keying_material(profile: Profile, material: &[u8], role: DtlsRole) -> Option<(InboundKeys, OutboundKeys)> {
    if material.len() != profile.keying_material_len() {
        return None;
    }
    // RFC 5764 §4.2: client key, server key, client salt, server salt. Each end protects with its own.
    let (keys, salts) = material.split_at_checked(2 * profile.key_len())?;
    let (client_key, server_key) = keys.split_at_checked(profile.key_len())?;
    let (client_salt, server_salt) = salts.split_at_checked(profile.salt_len())?;
    let client = MasterKey::new(profile, client_key, client_salt)?;
    let server = MasterKey::new(profile, server_key, server_salt)?;
    Some(match role {
        DtlsRole::Client => (InboundKeys(server), OutboundKeys(client)),
        DtlsRole::Server => (InboundKeys(client), OutboundKeys(server)),
    })
}

/// What one cipher works with (RFC 3711 §4.3).
pub(super) struct SessionKey {
    pub(super) profile: Profile,
    secret: Box<Secret>,
}

impl SessionKey {
    fn new(profile: Profile) -> Self {
        Self { profile, secret: Box::default() }
    }

    /// Of given keys instead of derived ones, as test vectors have them.
    #[cfg(test)]
    pub(super) fn from_parts(profile: Profile, key: &[u8], auth: &[u8], salt: &[u8]) -> Self {
        let mut session = Self::new(profile);
        session.secret.key[..profile.key_len()].copy_from_slice(key);
        session.secret.auth[..auth.len()].copy_from_slice(auth);
        session.secret.salt[..profile.salt_len()].copy_from_slice(salt);
        session
    }

    /// The encryption key, as long as the profile says.
    pub(super) fn key(&self) -> &[u8] {
        &self.secret.key[..self.profile.key_len()]
    }

    /// The authentication key; AES-GCM has no use for it.
    pub(super) fn auth(&self) -> &[u8; AUTH_KEY_LEN] {
        &self.secret.auth
    }

    /// The salt as a number, as long as the profile says.
    pub(super) fn salt(&self) -> u128 {
        self.secret.salt[..self.profile.salt_len()].iter().fold(0, |salt, &byte| salt << 8 | u128::from(byte))
    }
}

#[derive(Default, Zeroize, ZeroizeOnDrop)]
struct Secret {
    key: [u8; KEY_LEN_MAX],
    auth: [u8; AUTH_KEY_LEN],
    salt: [u8; SALT_LEN_MAX],
}

const KEY_LEN_MAX: usize = 32;
const SALT_LEN_MAX: usize = 14;
/// HMAC-SHA1's (RFC 3711 §5.2).
const AUTH_KEY_LEN: usize = 20;

/// RFC 3711 §4.3.1 and §4.3.2.
const LABEL_RTP: u8 = 0;
const LABEL_RTCP: u8 = 3;
