//! From an accepted TCP connection to a request: limits, TLS, and an HTTP head that is small and quick or refused.
//!
//! With `one_port` it is the data plane that accepts, and hands over what turned out to be HTTP with TLS taken off ([`handover`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ringmain_dataplane::plane::{HttpSink, HttpStream};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::gate::{Gate, Permit};

/// What a listener serves, and to how many.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What to serve.
    pub router: Router,
    /// How TLS is made; `None` serves plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// Counts connections, over all listeners that share it.
    pub gate: Arc<Gate>,
    /// Bounds the TLS handshakes at a time, over all listeners that share it.
    pub handshakes: Arc<Semaphore>,
}

/// A listening socket. An unspecified IPv6 address takes IPv4 as well.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait for the connections of its predecessor to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl Listener {
    /// Accepts until `stop` turns true.
    pub async fn serve(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, remote)) => self.handle_accepted(stream, remote, &stop),
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    // Out of file descriptors or memory: existing connections go on, new ones wait in the backlog.
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Takes over what the data plane has accepted, until `stop` turns true.
    pub async fn serve_handed(self, mut handed: Handed, mut stop: watch::Receiver<bool>) {
        loop {
            let http = tokio::select! {
                http = handed.0.recv() => http,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let Some(HttpStream { stream, remote, .. }) = http else { return };
            // The client's address is the one that is known to the data plane: limits and logs go by it.
            let Some(permit) = self.admit(remote) else { continue };
            match UnixStream::from_std(stream) {
                Ok(stream) => spawn(serve_http(stream, self.router.clone(), permit), &stop),
                Err(error) => tracing::warn!(%error, "cannot take over connections"),
            }
        }
    }

    fn handle_accepted(&self, stream: TcpStream, remote: SocketAddr, stop: &watch::Receiver<bool>) {
        let Some(permit) = self.admit(remote) else { return };
        // Signalling is small messages that someone waits for. A failure here fails the first read as well.
        let _ = stream.set_nodelay(true);
        spawn(self.clone().handle_stream(stream, permit), stop);
    }

    fn admit(&self, remote: SocketAddr) -> Option<Permit> {
        let permit = self.gate.admit(remote.ip());
        if permit.is_none() {
            // Once in a while: who is refused may come again thousands of times a second.
            let refused = self.gate.refused();
            if refused.is_power_of_two() {
                tracing::warn!(
                    refused,
                    "connections are refused: see limits.connections and limits.connections_per_ip"
                );
            }
            tracing::debug!(%remote, "refused: too many connections");
        }
        permit
    }

    async fn handle_stream(self, stream: TcpStream, permit: Permit) {
        let Some(tls) = &self.tls else { return serve_http(stream, self.router, permit).await };
        let acceptor = TlsAcceptor::from(tls.clone());
        let handshake = async {
            let _turn = self.handshakes.acquire().await.ok()?;
            acceptor.accept(stream).await.ok()
        };
        if let Ok(Some(stream)) = tokio::time::timeout(HANDSHAKE_TIME, handshake).await {
            serve_http(stream, self.router, permit).await;
        }
    }
}

/// The way from the data plane to [`Listener::serve_handed`]. What finds it full is closed: as many wait as would in a listener's backlog.
pub fn handover() -> (HttpSink, Handed) {
    let (sender, receiver) = mpsc::channel(BACKLOG as usize);
    let sink = move |http| {
        let _ = sender.try_send(http);
    };
    (Arc::new(sink), Handed(receiver))
}

/// The end of a handover that HTTP is served at.
#[derive(Debug)]
pub struct Handed(mpsc::Receiver<HttpStream>);

/// Serves a connection until it ends or `stop` turns true. Upgraded ones live in tasks of their own and are closed by the actor.
fn spawn(serving: impl Future<Output = ()> + Send + 'static, stop: &watch::Receiver<bool>) {
    let mut stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = serving => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    });
}

async fn serve_http<S>(stream: S, router: Router, permit: Permit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        // An upgraded connection keeps its place.
        request.extensions_mut().insert(permit.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // Errors are the client's: a head that is too long, too slow or no HTTP. hyper has answered what can be answered.
    if tokio::time::timeout(CONNECTION_TIME, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(CONNECTION_GRACE, connection).await;
    }
}

fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Bytes of a request line with its header fields.
const HEAD_SIZE_MAX: usize = 8 * 1024;
/// Time for a request's head, from its first byte or from the connection's start.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Time for a TLS handshake, the wait for its turn included.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// TLS handshakes at a time: a few hundred microseconds of CPU each, so beyond this they only wait for each other.
pub const HANDSHAKES_MAX: usize = 256;
/// Time that a connection may go on without becoming a WebSocket.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// Time to finish the response under way after that.
const CONNECTION_GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
