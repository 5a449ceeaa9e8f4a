//! What is listened for on TCP, and how many may come.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use rustls::server::ResolvesServerCert;

use crate::plane::DtlsCertificateFiles;
use crate::stream::admission::StreamLimits;
use crate::stream::classify::Protocols;

/// What is listened for on TCP.
#[derive(Clone, Default)]
pub struct StreamSettings {
    /// Where. Without any, and without DTLS, there is no thread.
    pub listeners: Vec<StreamListener>,
    /// Certificates for the listeners with TLS, asked for at each handshake.
    pub certificates: Option<Arc<dyn ResolvesServerCert>>,
    /// Who serves HTTP, for the listeners that have it.
    pub http: Option<HttpSink>,
    /// TURN over DTLS.
    pub dtls: Option<DtlsSettings>,
    /// How many connections, and how fast.
    pub limits: StreamLimits,
}

/// TURN over DTLS 1.2.
#[derive(Clone, Debug)]
pub struct DtlsSettings {
    /// UDP addresses, none unspecified: answers leave from the address that was asked.
    pub addresses: Vec<SocketAddr>,
    /// Asked for at each handshake.
    pub certificate: Arc<DtlsCertificateFiles>,
}

/// One address, and what may be spoken there. All of it may share a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamListener {
    /// An unspecified IPv6 address takes IPv4 as well.
    pub address: SocketAddr,
    /// As it comes; HTTP is for the sink.
    pub clear: Protocols,
    /// Inside TLS.
    pub tls: Protocols,
}

/// A connection that turned out to speak HTTP, for whoever serves that.
#[derive(Debug)]
pub struct HttpStream {
    /// Its bytes, TLS taken off. Does not block.
    pub stream: StdUnixStream,
    /// The client.
    pub remote: SocketAddr,
    /// It came by TLS.
    pub tls: bool,
}

/// Takes HTTP connections. Must not block.
pub type HttpSink = Arc<dyn Fn(HttpStream) + Send + Sync>;

impl StreamSettings {
    /// Nothing is listened for.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.dtls.as_ref().is_none_or(|dtls| dtls.addresses.is_empty())
    }
}

impl fmt::Debug for StreamSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listeners, dtls, limits, .. } = self;
        let mut out = f.debug_struct("StreamSettings");
        out.field("listeners", listeners).field("dtls", dtls).field("limits", limits).finish_non_exhaustive()
    }
}
