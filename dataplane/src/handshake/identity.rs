//! Our DTLS identity: one self-signed P-256 certificate, made when the data plane starts and never written down (RFC 8827 §6.5).
//! Peers know it by the fingerprint in the SDP; it names nobody. Every copy of its key is wiped when it goes: ours, and those
//! that aws-lc and OpenSSL sign with. `dimpl`, which wipes none, never has one.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rcgen::{CertificateParams, DistinguishedName, DnType, SerialNumber, date_time_ymd};
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
        // By rcgen itself this would leave the key behind in memory that is freed.
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(SetupError::new)?;
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref()).map_err(SetupError::new)?;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut serial = [0; 16];
        aws_lc_rs::rand::fill(&mut serial).map_err(SetupError::new)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "WebRTC");
        // From before any peer's clock, and for longer than the process lives; peers look at the fingerprint alone.
        let year = 1970 + (unix.as_secs() / SECONDS_PER_YEAR) as i32;
        params.not_before = date_time_ymd(year - 1, 1, 1);
        params.not_after = date_time_ymd(year + 10, 1, 1);
        // Some browsers confuse certificates with the same issuer and number.
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = params.self_signed(&Signer(key)).map_err(SetupError::new)?.der().to_vec();
        Ok(Self { certificate, private_key: Zeroizing::new(document.as_ref().to_vec()) })
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

/// Of the Gregorian calendar, on average.
const SECONDS_PER_YEAR: u64 = 31_556_952;

/// Signs the certificate with a key that stays where it is.
struct Signer(EcdsaKeyPair);

impl rcgen::PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.sign(&SystemRandom::new(), message).map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
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
