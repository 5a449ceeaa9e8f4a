//! The way to a server's signalling: TCP, and TLS around it where the address says `wss`.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A byte stream to the server.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for S {}

/// TLS towards one server.
#[derive(Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// `host` must prove itself by a certificate that this system trusts, unless `is_any_trusted`.
    pub(super) fn new(host: &str, is_any_trusted: bool) -> anyhow::Result<Self> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|_| anyhow::anyhow!("{host} is no name that a certificate could be for"))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let config = if is_any_trusted {
            config.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        } else {
            config.with_root_certificates(trusted()?)
        };
        Ok(Self { config: Arc::new(config.with_no_client_auth()), name })
    }

    pub(super) async fn wrap(&self, stream: TcpStream) -> Result<Box<dyn Wire>, String> {
        let connected = TlsConnector::from(self.config.clone()).connect(self.name.clone(), stream).await;
        let stream = connected.map_err(|error| format!("{error}; --insecure takes any certificate"))?;
        Ok(Box::new(stream))
    }
}

/// The authorities that this system trusts, from where its other programs have them.
fn trusted() -> anyhow::Result<RootCertStore> {
    let wanted = std::env::var_os("SSL_CERT_FILE");
    let path = wanted.as_deref().map_or(Path::new(SYSTEM_CERTIFICATES), Path::new);
    let mut store = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(path)
        .map_err(|error| anyhow::anyhow!("cannot read {}: {error}; --insecure needs none", path.display()))?;
    store.add_parsable_certificates(found.filter_map(Result::ok));
    anyhow::ensure!(!store.is_empty(), "{} has no certificate; --insecure needs none", path.display());
    Ok(store)
}

/// Debian's, and of those who follow it; `SSL_CERT_FILE` names another.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Believes whoever holds the key of the certificate that it shows.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
