//! The private key, for `dimpl`. It would copy the key for each association, and never wipe the copies: so it gets a name that
//! stands for the key, and comes here to have something signed. Handshake threads only; one look-up for each association.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use dimpl::crypto::{
    Buf, CryptoProvider, HashAlgorithm, KeyProvider, SignatureAlgorithm, SigningKey, aws_lc_rs as backend,
};
use dimpl::{CryptoError, CryptoOperation};

/// A key that can be named, as long as this lives. The key itself is wiped by aws-lc when it is freed.
pub(super) struct NamedKey {
    name: u64,
    /// Held for the weak one among [`KEYS`]. `None` for a key that `dimpl` could not use either.
    _key: Option<Arc<EcdsaKeyPair>>,
}

impl NamedKey {
    /// Names a P-256 key in PKCS#8 DER.
    pub(super) fn new(private_key: &[u8]) -> Self {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, private_key).ok().map(Arc::new);
        let name = NEXT_NAME.fetch_add(1, Ordering::Relaxed);
        if let Some(key) = &key {
            KEYS.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::downgrade(key));
        }
        Self { name, _key: key }
    }

    /// What `dimpl` takes for the private key.
    pub(super) fn name(&self) -> Vec<u8> {
        self.name.to_be_bytes().to_vec()
    }
}

impl Drop for NamedKey {
    fn drop(&mut self) {
        KEYS.write().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// `dimpl`'s cryptography by aws-lc, with keys by their names.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider { key_provider: &Keys, ..backend::default_provider() }
}

#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, name: &[u8]) -> Result<Box<dyn SigningKey>, CryptoError> {
        let keys = KEYS.read().unwrap_or_else(PoisonError::into_inner);
        let name = name.try_into().ok().map(u64::from_be_bytes);
        let key = name.and_then(|name| keys.get(&name)?.upgrade());
        key.map(|key| Box::new(Signer(key)) as Box<dyn SigningKey>)
            .ok_or(CryptoError::OperationFailed(CryptoOperation::Sign))
    }
}

struct Signer(Arc<EcdsaKeyPair>);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(…)")
    }
}

impl SigningKey for Signer {
    fn sign(&mut self, data: &[u8], hash: HashAlgorithm, out: &mut Buf) -> Result<(), CryptoError> {
        if hash != HashAlgorithm::SHA256 {
            return Err(CryptoError::SigningKeyHashMismatch { key_hash: HashAlgorithm::SHA256, requested: hash });
        }
        let failed = |_| CryptoError::OperationFailed(CryptoOperation::Sign);
        let signature = self.0.sign(&SystemRandom::new(), data).map_err(failed)?;
        out.clear();
        out.extend_from_slice(signature.as_ref());
        Ok(())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        HashAlgorithm::SHA256
    }

    fn supported_hash_algorithms(&self) -> &[HashAlgorithm] {
        &[HashAlgorithm::SHA256]
    }
}

/// Every key that has a name now.
static KEYS: RwLock<BTreeMap<u64, Weak<EcdsaKeyPair>>> = RwLock::new(BTreeMap::new());
static NEXT_NAME: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_its_key_while_that_lives_and_is_not_the_key() {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        let document = document.expect("the host has cryptography");
        let key = NamedKey::new(document.as_ref());
        let name = key.name();
        assert_eq!(name.len(), 8);
        let mut signer = Keys.load_private_key(&name).expect("named");
        let mut out = Buf::new();
        assert!(signer.sign(b"words", HashAlgorithm::SHA256, &mut out).is_ok() && !out.is_empty());
        assert!(signer.sign(b"words", HashAlgorithm::SHA384, &mut out).is_err());
        drop(key);
        assert!(Keys.load_private_key(&name).is_err());
        assert!(Keys.load_private_key(document.as_ref()).is_err(), "keys themselves are not taken");
    }
}
