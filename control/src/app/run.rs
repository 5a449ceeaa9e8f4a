//! Start and end of the process: sockets are bound and certificates read before the data plane starts, so that what is
//! wrong is said at once; SIGTERM and SIGINT end it in order. SIGHUP reads the users and keys of TURN again, and the certificates without
//! waiting for their time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ringmain_dataplane::plane::DtlsCertificateFiles;
use ringmain_shared::command::Command;
use ringmain_shared::event::Hello;
use ringmain_shared::turn::{TurnCommand, TurnSpec};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use super::actor::Actor;
use super::connection::{Door, door};
use super::descriptors;
use super::greeting::{self, Line};
use super::host;
use super::listeners;
use super::parts::{DataPlane, Rooms};
use crate::config::Config;
use crate::http::Routes;
use crate::http::gate::Gate;
use crate::http::listen::{HANDSHAKES_MAX, Handed, Listener, bind, handover};
use crate::http::socket::Liveness;
use crate::http::tls::Certificate;
use crate::turn;

/// How the two halves are made; the halves themselves need not know of each other's start.
pub trait Start {
    /// The data plane.
    type Plane: DataPlane;
    /// The rooms.
    type Rooms: Rooms;

    /// Starts the workers, with media on these local addresses, and TURN and what else comes by TCP where it is to listen.
    fn plane(
        &self,
        config: &Config,
        bind: Vec<IpAddr>,
        listeners: turn::Listeners,
    ) -> anyhow::Result<(Self::Plane, Hello)>;

    /// Makes the rooms: `turn` is what peers are lent; `epoch` differs from start to start.
    fn rooms(
        &self,
        config: &Config,
        hello: Hello,
        candidates: Candidates,
        turn: Option<turn::Offer>,
        epoch: u32,
    ) -> Self::Rooms;
}

/// Where the SDP says that media may go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidates {
    /// By worker.
    pub udp: Vec<Vec<SocketAddr>>,
    /// For all of them.
    pub tcp: Vec<SocketAddr>,
}

/// Runs until a signal ends it.
pub async fn run(config: Config, start: impl Start) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    if let Some(hint) = descriptors::raise(descriptors::wanted(&config)) {
        tracing::warn!("{hint}");
    }
    let host = host::addresses().context("cannot list the addresses of this host")?;
    let host: Vec<IpAddr> = bounded(host);
    let certificate = Certificate::of_page(&config, &host)?;
    let certificate_of_turn = turn::certificate(&config, certificate.as_ref())?;
    let page = match config.turn_only || config.one_port.is_some() {
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
    let mut listeners = turn::listeners(&config, certificate_of_turn.as_ref(), &media, &host)?;
    let offer = turn::offer(&config, &listeners, &host, epoch().into());
    let told = greeting::turn_lines(&config, &listeners, offer.as_ref());
    listeners.streams.limits = listeners::limits(&config);
    let tcp_port = listeners::ice_port(&config);
    if let Some(port) = tcp_port {
        listeners::add_ice(&mut listeners, &config, port);
    }
    let (sink, handed) = handover();
    if config.one_port.is_some() {
        listeners::add_page(&mut listeners, &config, certificate.as_ref(), sink);
    }
    if config.turn_only {
        media = if listeners.udp.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { Vec::new() };
    }
    let dtls = listeners.streams.dtls.as_ref().map(|dtls| dtls.certificate.clone());
    let (mut plane, hello) = start.plane(&config, media, listeners)?;
    let udp: Vec<Vec<SocketAddr>> =
        hello.workers.iter().map(|worker| config.candidates(&worker.addresses, &host)).collect();
    let tcp = tcp_port.zip(udp.first()).map_or_else(Vec::new, |(port, udp)| config.tcp_candidates(udp, port));
    let candidates = Candidates { udp, tcp };
    let fingerprint = certificate.as_ref().map(Certificate::fingerprint);
    if config.turn.enabled {
        let spec = turn::spec(&config, &hello, &candidates.udp, &host)?;
        let is_told = |public: IpAddr| spec.relay.addresses.iter().any(|relay| relay.announce == public);
        for external in config.turn.external.iter().filter(|external| !is_told(external.public)) {
            tracing::warn!("turn.external {external} is told to nobody: no relay address is meant by it");
        }
        let configured = plane.send(Command::Turn(TurnCommand::Configure(Box::new(spec))));
        configured.map_err(|_| anyhow::anyhow!("the data plane takes no commands"))?;
    }
    let lines = match config.turn_only {
        true => Vec::new(),
        false => greeting::lines(&config, &hello.workers, &candidates, &host, fingerprint.as_deref()),
    };
    for line in lines.into_iter().chain(told) {
        match line {
            Line::Info(text) => tracing::info!("{text}"),
            Line::Warn(text) => tracing::warn!("{text}"),
        }
    }
    let worker_count = hello.workers.len();
    let (udp, told_hello) = (candidates.udp.clone(), hello.clone());
    let rooms = start.rooms(&config, hello, candidates, offer, epoch());

    let (door, inbox) = door();
    let of_turn = TurnFiles { config: config.clone(), hello: told_hello, candidates: udp, host, door: door.clone() };
    if let Some(path) = &config.admin_socket {
        turn::listen(path, door.clone(), stop.clone())?;
    }
    let page = Page { sockets: page, handed, certificate };
    let of_its_own = certificate_of_turn.filter(|_| config.turn.tls_cert.is_some());
    read_again_on_hangup([page.certificate.clone(), of_its_own], dtls, of_turn)?;
    serve(&config, door, page, metrics, &stop)?;
    let actor = Actor::new(rooms, plane, worker_count, began).run(inbox, stop);
    tokio::spawn(actor).await?.context("the control plane's event loop")?;
    tracing::info!("ended");
    Ok(())
}

/// How clients of the page come.
struct Page {
    /// By listeners of its own,
    sockets: Vec<TcpListener>,
    /// or from the data plane.
    handed: Handed,
    certificate: Option<Certificate>,
}

/// Starts the listeners; they end with `stop`.
fn serve(
    config: &Config,
    door: Door,
    page: Page,
    metrics: Vec<TcpListener>,
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
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
    let tls = page.certificate.map(|certificate| certificate.server_config()).transpose()?;
    let on_page = Listener { gate: routes.connections.clone(), router: routes.router(), tls, handshakes };
    tokio::spawn(on_page.clone().serve_handed(page.handed, stop.clone()));
    for socket in page.sockets {
        tokio::spawn(on_page.clone().serve(socket, stop.clone()));
    }
    for socket in metrics {
        tokio::spawn(on_metrics.clone().serve(socket, stop.clone()));
    }
    Ok(())
}

pub(super) fn bind_all(config: &Config, key: &str, endpoints: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
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

/// Certificates, users and keys in files are read again at SIGHUP. The signal is taken where there is nothing to read as well: a
/// service manager that says "reload" must not end every call.
fn read_again_on_hangup(
    certificates: [Option<Certificate>; 2],
    dtls: Option<Arc<DtlsCertificateFiles>>,
    of_turn: TurnFiles,
) -> anyhow::Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            let read = certificates.iter().flatten().filter(|certificate| certificate.read_again()).count();
            dtls.iter().for_each(|files| files.read_again());
            if !of_turn.read_again().await && read == 0 && dtls.is_none() {
                tracing::info!("nothing to read again: there are no TLS files, and settings hold until the end");
            }
        }
    });
    Ok(())
}

/// What files say of TURN, and what else its rules are made of.
struct TurnFiles {
    config: Config,
    hello: Hello,
    candidates: Vec<Vec<SocketAddr>>,
    host: Vec<IpAddr>,
    door: Door,
}

impl TurnFiles {
    /// Reads them, and tells the data plane. False where there are none.
    async fn read_again(&self) -> bool {
        let turn = &self.config.turn;
        if !turn.enabled || turn.users_file.is_none() && turn.oauth_keys.is_none() {
            return false;
        }
        turn::warnings(&self.config, None).iter().for_each(|warning| tracing::warn!("{warning}"));
        let spec = match turn::spec(&self.config, &self.hello, &self.candidates, &self.host) {
            Ok(spec) => spec,
            Err(error) => {
                tracing::error!("users and keys of TURN stay as they were: {error:#}");
                return true;
            }
        };
        match tokio::time::timeout(TOLD_WITHIN, self.tell(spec)).await {
            Ok(Some(_)) => tracing::info!("users and keys of TURN have been read again"),
            Ok(None) => {
                tracing::error!("users and keys of TURN may be as they were: the data plane could not be asked")
            }
            Err(_) => {
                tracing::error!("users and keys of TURN have been read again, and a worker has not said that it heard")
            }
        }
        true
    }

    /// Returns when every worker goes by it. Each does what it is told in order: once it has listed its allocations, it has heard.
    async fn tell(&self, spec: TurnSpec) -> Option<turn::AdminAnswer> {
        self.door.ask(turn::AdminQuestion::Configure(Box::new(spec))).await?;
        self.door.ask(turn::AdminQuestion::Allocations).await
    }
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
/// Time for workers to hear of new rules.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// Connections to the metrics listener.
const METRICS_CONNECTIONS_MAX: usize = 64;
