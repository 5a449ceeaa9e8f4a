//! The certificate of page and signalling, which TURN over TLS has too unless it is given one of its own: PEM files that are read again
//! when they change, or one made at start.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aws_lc_rs::digest::{SHA256, digest};
use ringmain_dataplane::plane::CertificateFiles;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;

use crate::config::{Config, TlsMode};

/// What a TLS listener proves itself with. Clones are the same certificate.
#[derive(Clone, Debug)]
pub enum Certificate {
    /// From files. A handshake gets what they held at most a moment ago; connections that exist stay as they are.
    Files(Arc<CertificateFiles>),
    /// Made at start.
    Made(Arc<CertifiedKey>),
}

impl Certificate {
    /// That of the page, on a host with these addresses; `None` where it is served without TLS.
    pub fn of_page(config: &Config, host: &[IpAddr]) -> anyhow::Result<Option<Self>> {
        match config.tls.mode() {
            TlsMode::Off => Ok(None),
            TlsMode::Files { cert, key } => Self::from_files(cert, key).context("tls.cert and tls.key").map(Some),
            TlsMode::SelfSigned => {
                let addresses: Vec<IpAddr> = host.iter().chain(&config.announce).chain(&config.bind).copied().collect();
                Self::self_signed(&addresses).context("tls.self_signed").map(Some)
            }
        }
    }

    /// Reads a certificate chain and its key. Fails when they do not belong together.
    pub fn from_files(cert: &Path, key: &Path) -> anyhow::Result<Self> {
        let files = CertificateFiles::open(cert, key, LOOK_INTERVAL).map_err(anyhow::Error::msg)?;
        Ok(Self::Files(Arc::new(files)))
    }

    /// Makes a certificate for `localhost` and `addresses`.
    pub fn self_signed(addresses: &[IpAddr]) -> anyhow::Result<Self> {
        let names = std::iter::once("localhost".to_string()).chain(addresses.iter().map(IpAddr::to_string));
        let made = rcgen::generate_simple_self_signed(names.collect::<Vec<_>>())?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let pair = CertifiedKey::new(vec![made.cert.der().clone()], any_supported_type(&key)?);
        Ok(Self::Made(Arc::new(pair)))
    }

    /// How HTTP is served inside TLS.
    pub fn server_config(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// SHA-256 of the present certificate, as browsers show it.
    pub fn fingerprint(&self) -> String {
        let pair = self.pair();
        let hash = pair.cert.first().map(|certificate| digest(&SHA256, certificate));
        let bytes = hash.iter().flat_map(|hash| hash.as_ref());
        bytes.map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }

    /// Reads files now rather than in a moment, and says what came of it. False where there are none.
    pub fn read_again(&self) -> bool {
        match self {
            Certificate::Files(files) => files.read_again(),
            Certificate::Made(_) => return false,
        }
        true
    }

    fn pair(&self) -> Arc<CertifiedKey> {
        match self {
            Certificate::Files(files) => files.present(),
            Certificate::Made(pair) => pair.clone(),
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pair())
    }
}

/// Renewed files are found by then.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(2);
