//! TLS for page and signalling: from PEM files, or with a certificate made at start.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What a TLS listener serves, and how to recognise it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// For the acceptor.
    pub config: Arc<ServerConfig>,
    /// SHA-256 of the certificate, as browsers show it.
    pub fingerprint: String,
}

/// Reads a certificate chain and its key. Fails when they do not belong together.
pub fn from_files(cert: &Path, key: &Path) -> anyhow::Result<Identity> {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("tls.cert: cannot read certificates from {}", cert.display()))?;
    anyhow::ensure!(!chain.is_empty(), "tls.cert: there is no certificate in {}", cert.display());
    let key_der = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("tls.key: cannot read a private key from {}", key.display()))?;
    identity(chain, key_der)
        .with_context(|| format!("tls.cert and tls.key: {} and {} cannot be used", cert.display(), key.display()))
}

/// Makes a certificate for `localhost` and `addresses`.
pub fn self_signed(addresses: &[IpAddr]) -> anyhow::Result<Identity> {
    let names = std::iter::once("localhost".to_string()).chain(addresses.iter().map(IpAddr::to_string));
    let made = rcgen::generate_simple_self_signed(names.collect::<Vec<_>>()).context("tls.self_signed")?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    identity(vec![made.cert.der().clone()], key)
}

fn identity(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> anyhow::Result<Identity> {
    let fingerprint = chain.first().map_or_else(String::new, |certificate| fingerprint(certificate));
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Identity { config: Arc::new(config), fingerprint })
}

fn fingerprint(certificate: &[u8]) -> String {
    let hex: Vec<String> = digest(&SHA256, certificate).as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    hex.join(":")
}
