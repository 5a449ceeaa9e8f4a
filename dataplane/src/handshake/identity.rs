//! Our DTLS identity: one self-signed P-256 certificate, made when the data plane starts and never written down (RFC 8827 §6.5).
//! Peers know it by the fingerprint in the SDP; it names nobody.

use std::fmt;

use aws_lc_rs::digest;
use ringmain_shared::transport::{Fingerprint, FingerprintHash};
use zeroize::Zeroizing;

/// A certificate and its private key.
#[derive(Clone)]
pub struct Identity {
    certificate: Vec<u8>,
    private_key: Zeroizing<Vec<u8>>,
}

impl Identity {
    /// A new key and a certificate over it.
    pub fn generate() -> Result<Self, SetupError> {
        let made = dimpl::certificate::generate_self_signed_certificate().map_err(SetupError::new)?;
        Ok(Self { certificate: made.certificate, private_key: Zeroizing::new(made.private_key) })
    }

    /// An identity made elsewhere: DER of the certificate and of the private key.
    #[cfg(test)]
    pub(super) fn from_parts(certificate: Vec<u8>, private_key: Vec<u8>) -> Self {
        Self { certificate, private_key: Zeroizing::new(private_key) }
    }

    /// The sha-256 of the certificate, as `a=fingerprint` carries it (RFC 8122).
    pub fn fingerprint(&self) -> Fingerprint {
        let value = digest::digest(&digest::SHA256, &self.certificate).as_ref().to_vec();
        Fingerprint { hash: FingerprintHash::Sha256, value }
    }

    /// The certificate in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The private key in PKCS#8 DER.
    pub(super) fn private_key(&self) -> &[u8] {
        &self.private_key
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

/// Whether `certificate` is the one that the SDP promised: for each hash function named, one of its fingerprints must be the
/// certificate's (RFC 8122 §5). No fingerprint at all promises nothing, so nothing matches it.
pub(super) fn matches(certificate: &[u8], fingerprints: &[Fingerprint]) -> bool {
    let agrees = |fingerprint: &Fingerprint| {
        let algorithm = match fingerprint.hash {
            FingerprintHash::Sha256 => &digest::SHA256,
            FingerprintHash::Sha384 => &digest::SHA384,
            FingerprintHash::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, certificate).as_ref() == fingerprint.value.as_slice()
    };
    !fingerprints.is_empty()
        && fingerprints
            .iter()
            .all(|named| fingerprints.iter().any(|candidate| candidate.hash == named.hash && agrees(candidate)))
}

/// Why DTLS could not be set up at all: the host's cryptography refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetupError(String);

impl SetupError {
    pub(super) fn new(cause: impl fmt::Display) -> Self {
        Self(cause.to_string())
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DTLS cannot be set up: {}", self.0)
    }
}

impl std::error::Error for SetupError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(hash: FingerprintHash, certificate: &[u8]) -> Fingerprint {
        let algorithm = match hash {
            FingerprintHash::Sha256 => &digest::SHA256,
            FingerprintHash::Sha384 => &digest::SHA384,
            FingerprintHash::Sha512 => &digest::SHA512,
        };
        Fingerprint { hash, value: digest::digest(algorithm, certificate).as_ref().to_vec() }
    }

    #[test]
    fn every_hash_function_that_is_named_must_agree_once() {
        use FingerprintHash::{Sha256, Sha384, Sha512};
        let ours = |hash| fingerprint(hash, b"certificate");
        let other = |hash| fingerprint(hash, b"another");
        for (expected, offered) in [
            (true, vec![ours(Sha256)]),
            (true, vec![ours(Sha384)]),
            (true, vec![ours(Sha512)]),
            (true, vec![other(Sha256), ours(Sha256)]),
            (true, vec![ours(Sha256), other(Sha256), ours(Sha512)]),
            (false, vec![]),
            (false, vec![other(Sha256)]),
            (false, vec![ours(Sha256), other(Sha512)]),
            (false, vec![Fingerprint { hash: Sha384, value: ours(Sha256).value }]),
            (false, vec![Fingerprint { hash: Sha256, value: ours(Sha256).value[..31].to_vec() }]),
            (false, vec![Fingerprint { hash: Sha256, value: vec![] }]),
        ] {
            assert_eq!(matches(b"certificate", &offered), expected, "{offered:?}");
        }
    }
}
