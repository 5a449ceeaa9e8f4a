//! Start and end of the process: sockets are bound and certificates read before the data plane starts, so that what is
//! wrong is said at once; SIGTERM and SIGINT end it in order, SIGHUP reads the certificate again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use ringmain_shared::command::Command;
use ringmain_shared::event::Hello;
use ringmain_shared::turn::TurnCommand;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use super::actor::Actor;
use super::connection::{Door, door};
use super::descriptors;
use super::greeting::{self, Line};
use super::host;
use super::parts::{DataPlane, Rooms};
use crate::config::{Config, TlsMode};
use crate::http::Routes;
use crate::http::gate::Gate;
use crate::http::listen::{HANDSHAKES_MAX, Listener, bind};
use crate::http::socket::Liveness;
use crate::http::tls::{self, Identity};
use crate::turn;

/// How the two halves are made; the halves themselves need not know of each other's start.
pub trait Start {
    /// The data plane.
    type Plane: DataPlane;
    /// The rooms.
    type Rooms: Rooms;

    /// Starts the workers, with media on these local addresses and TURN where it is to listen.
    fn plane(&self, config: &Config, bind: Vec<IpAddr>, turn: turn::Listeners) -> anyhow::Result<(Self::Plane, Hello)>;

    /// Makes the rooms: `candidates` are what the SDP announces, by worker; `turn` what peers are lent; `epoch` differs from start to start.
    fn rooms(
        &self,
        config: &Config,
        hello: Hello,
        candidates: Vec<Vec<SocketAddr>>,
        turn: Option<turn::Offer>,
        epoch: u32,
    ) -> Self::Rooms;
}

/// Runs until a signal ends it.
pub async fn run(config: Config, start: impl Start) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    if let Some(hint) = descriptors::raise(descriptors::wanted(&config)) {
        tracing::warn!("{hint}");
    }
    let host = host::addresses().context("cannot list the addresses of this host")?;
    let host: Vec<IpAddr> = bounded(host);
    let identity = identity(&config, &host)?;
    let page = match config.turn_only {
        true => Vec::new(),
        false => bind_all(&config, "listen", &config.endpoints(config.listen))?,
    };
    let metrics = match config.metrics {
        Some(metrics) => bind_all(&config, "metrics", &config.endpoints(metrics))?,
        None => Vec::new(),
    };

    let began = Instant::now();
    // A server of TURN alone has no media; but a worker without any socket could not be.
    let mut media = config.media_binds(&host);
    let turn = turn::listeners(&config, &media, &host)?;
    if config.turn_only {
        media = if turn.udp.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { Vec::new() };
    }
    let offer = turn::offer(&config, &turn, &host, epoch().into());
    let told = greeting::turn_lines(&config, &turn, offer.as_ref());
    let (mut plane, hello) = start.plane(&config, media, turn)?;
    let candidates: Vec<Vec<SocketAddr>> =
        hello.workers.iter().map(|worker| config.candidates(&worker.addresses, &host)).collect();
    let fingerprint = identity.as_ref().map(|identity| identity.fingerprint.as_str());
    if config.turn.enabled {
        let spec = turn::spec(&config, &hello, &candidates, &host)?;
        let configured = plane.send(Command::Turn(TurnCommand::Configure(Box::new(spec))));
        configured.map_err(|_| anyhow::anyhow!("the data plane takes no commands"))?;
    }
    let lines = match config.turn_only {
        true => Vec::new(),
        false => greeting::lines(&config, &hello.workers, &candidates, &host, fingerprint),
    };
    for line in lines.into_iter().chain(told) {
        match line {
            Line::Info(text) => tracing::info!("{text}"),
            Line::Warn(text) => tracing::warn!("{text}"),
        }
    }
    let worker_count = hello.workers.len();
    let rooms = start.rooms(&config, hello, candidates, offer, epoch());

    let (door, inbox) = door();
    if let Some(path) = &config.admin_socket {
        turn::listen(path, door.clone(), stop.clone())?;
    }
    let certificate = reload_on_hangup(&config, identity.map(|identity| identity.config))?;
    serve(&config, door, page, metrics, certificate, &stop);
    let actor = Actor::new(rooms, plane, worker_count, began).run(inbox, stop);
    tokio::spawn(actor).await?.context("the control plane's event loop")?;
    tracing::info!("ended");
    Ok(())
}

/// Starts the listeners; they end with `stop`.
fn serve(
    config: &Config,
    door: Door,
    page: Vec<TcpListener>,
    metrics: Vec<TcpListener>,
    certificate: Option<watch::Receiver<Arc<ServerConfig>>>,
    stop: &watch::Receiver<bool>,
) {
    let routes = Routes {
        door,
        allow_origin: config.allow_origin.clone().into(),
        liveness: Liveness { ping_interval: config.websocket.ping_interval, dead_after: config.websocket.dead_after },
        metrics: config.metrics_on_listen,
        connections: Gate::new(config.limits.connections, config.limits.connections_per_ip),
        websockets: Gate::new(config.limits.connections, config.limits.websockets_per_ip),
    };
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let on_metrics = Listener {
        router: routes.clone().metrics_router(),
        tls: None,
        // Places of its own: a crowd on the page must not blind the monitoring.
        gate: Gate::new(METRICS_CONNECTIONS_MAX, METRICS_CONNECTIONS_MAX),
        handshakes: handshakes.clone(),
    };
    let on_page = Listener { gate: routes.connections.clone(), router: routes.router(), tls: certificate, handshakes };
    for socket in page {
        tokio::spawn(on_page.clone().serve(socket, stop.clone()));
    }
    for socket in metrics {
        tokio::spawn(on_metrics.clone().serve(socket, stop.clone()));
    }
}

fn bind_all(config: &Config, key: &str, endpoints: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    let bind_one = |endpoint: &SocketAddr| match bind(*endpoint) {
        // A host without IPv6 has no [::]; there, every address is every IPv4 address.
        Err(_) if endpoint.ip().is_unspecified() && endpoint.is_ipv6() && config.bind.is_empty() => {
            bind(SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), endpoint.port()))
        }
        other => other,
    };
    endpoints
        .iter()
        .map(|endpoint| {
            bind_one(endpoint).map_err(|error| {
                anyhow::anyhow!("{key}: cannot listen on TCP {endpoint}: {error}{}", bind_hint(error.kind()))
            })
        })
        .collect()
}

/// What to do about an address that cannot be listened on.
fn bind_hint(kind: std::io::ErrorKind) -> &'static str {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    match kind {
        AddrInUse => "; another program listens there, perhaps another ringmain: end it or choose another port",
        AddrNotAvailable => {
            "; this host has no such address. Behind NAT, leave it out here and give the public address to --announce"
        }
        PermissionDenied => "; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

fn identity(config: &Config, host: &[IpAddr]) -> anyhow::Result<Option<Identity>> {
    match config.tls.mode() {
        TlsMode::Off => Ok(None),
        TlsMode::Files { cert, key } => tls::from_files(cert, key).map(Some),
        TlsMode::SelfSigned => {
            let addresses: Vec<IpAddr> = host.iter().chain(&config.announce).chain(&config.bind).copied().collect();
            tls::self_signed(&addresses).map(Some)
        }
    }
}

/// The present certificate, if TLS is served; on SIGHUP read again, and kept as it is when that fails. The signal is taken
/// where there is nothing to read as well: a service manager that says "reload" must not end every call.
fn reload_on_hangup(
    config: &Config,
    first: Option<Arc<ServerConfig>>,
) -> anyhow::Result<Option<watch::Receiver<Arc<ServerConfig>>>> {
    let (sender, receiver) = first.map(watch::channel).unzip();
    let files = match config.tls.mode() {
        TlsMode::Files { cert, key } => Some((cert.clone(), key.clone())),
        TlsMode::Off | TlsMode::SelfSigned => None,
    };
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            let (Some((cert, key)), Some(sender)) = (&files, &sender) else {
                tracing::info!("nothing to read again: there are no TLS files, and settings hold until the end");
                continue;
            };
            match tls::from_files(cert, key) {
                Ok(identity) => {
                    tracing::info!(fingerprint = identity.fingerprint, "TLS certificate read again");
                    sender.send_replace(identity.config);
                }
                Err(error) => tracing::error!("the old TLS certificate stays: {error:#}"),
            }
        }
    });
    Ok(receiver)
}

/// Turns true at the first SIGTERM or SIGINT; a second one ends the process there and then.
fn stop_on_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if sender.send_replace(true) {
                std::process::exit(130);
            }
            tracing::info!("ending: clients are told; signal again to end at once");
        }
    });
    Ok(receiver)
}

/// A worker has a socket for each address, and an SDP a candidate: a host with hundreds of addresses must choose.
fn bounded(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    if addresses.len() > ADDRESSES_MAX {
        tracing::warn!(
            "this host has {} addresses, media uses the first {ADDRESSES_MAX}; choose with bind",
            addresses.len()
        );
        addresses.truncate(ADDRESSES_MAX);
    }
    addresses
}

/// Seconds of the wall clock: the ids of this start differ from those of the last (see `ringmain_shared::id::IdSource`).
fn epoch() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as u32)
}

/// Addresses of this host that media uses without being told which.
const ADDRESSES_MAX: usize = 16;
/// Connections to the metrics listener.
const METRICS_CONNECTIONS_MAX: usize = 64;
