//! The configuration: one [`Config`], read once at start from flags, environment and file, and then never changed.
//!
//! Precedence: flag > `RINGMAIN_…` > file > default. What is not understood is refused with the key named, because a typing
//! error that is skipped over is a door left open. [`keys`] declares every setting once, [`ion`] translates ion-sfu's
//! `config.toml` and [`coturn`] a `turnserver.conf`, [`file`] knows TOML, [`load`] joins the sources, [`show`] prints the outcome.

mod coturn;
mod file;
mod flags;
mod ion;
mod keys;
mod load;
mod show;
mod turn;
mod turn_keys;
mod value;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use flags::{Invocation, command, read};
pub use load::{ConfigError, Loaded, Origin, Problem, Sources, load};
pub use turn::{External, PeerRange, Secret, Turn, TurnPeers, TurnTransport, User, user_of};

/// Everything that an operator may choose.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Where the page and the signalling are served (TCP).
    pub listen: Listen,
    /// The TCP port of everything, and the first UDP port; `None` gives each its own. [`load`] has made the other ports follow it.
    pub one_port: Option<u16>,
    /// Where `/metrics` is served (TCP); `None` is off.
    pub metrics: Option<Listen>,
    /// Serve `/metrics` beside the page as well.
    pub metrics_on_listen: bool,
    /// Local addresses to listen on, for media and signalling; empty is all of them.
    pub bind: Vec<IpAddr>,
    /// Addresses that clients are told instead of the local ones.
    pub announce: Vec<IpAddr>,
    /// Origins whose pages may open the WebSocket; empty is any.
    pub allow_origin: Vec<String>,
    /// Certificates for HTTPS.
    pub tls: Tls,
    /// The data plane.
    pub media: Media,
    /// Who is speaking.
    pub audio: AudioLevel,
    /// How much of everything.
    pub limits: Limits,
    /// Liveness of signalling connections.
    pub websocket: WebSocket,
    /// The TURN server.
    pub turn: Turn,
    /// Serve TURN and nothing else: `ringmain turn`.
    pub turn_only: bool,
    /// Unix socket for operators.
    pub admin_socket: Option<PathBuf>,
    /// Logs.
    pub log: Log,
}

/// An endpoint to listen on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listen {
    /// `None`: every address, IPv6 and IPv4.
    pub address: Option<IpAddr>,
    /// TCP port.
    pub port: u16,
}

/// Certificates for HTTPS and secure WebSockets. Only [`Tls::mode`] tells which of the three states it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// PEM file with the certificate chain.
    pub cert: Option<PathBuf>,
    /// PEM file with its private key.
    pub key: Option<PathBuf>,
    /// Make a certificate at start.
    pub self_signed: bool,
}

/// What [`Tls`] amounts to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsMode<'a> {
    /// Plain HTTP.
    Off,
    /// A certificate from PEM files.
    Files {
        /// The chain.
        cert: &'a PathBuf,
        /// The private key.
        key: &'a PathBuf,
    },
    /// A certificate made at start.
    SelfSigned,
}

impl Tls {
    /// Which way TLS is served. [`load`] has refused every other combination.
    pub fn mode(&self) -> TlsMode<'_> {
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => TlsMode::Files { cert, key },
            _ if self.self_signed => TlsMode::SelfSigned,
            _ => TlsMode::Off,
        }
    }
}

/// Settings of the data plane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Media {
    /// UDP port of worker 0; worker n has the n-th after it.
    pub base_port: u16,
    /// Where clients come that UDP does not reach (ICE-TCP, RFC 6544).
    pub tcp_port: TcpPort,
    /// Threads that move packets; 0 is one per core.
    pub workers: u16,
    /// Keep each worker on one core.
    pub pin: bool,
    /// The cores to use, by number; empty is all that the process may use.
    pub cpus: Vec<usize>,
    /// What moves packets between socket and worker.
    pub link: Link,
    /// Threads for DTLS handshakes and data channels.
    pub handshake_threads: u16,
    /// Media that one publisher may send, bits per second; more is dropped. 0 is no limit.
    pub publisher_rate_bps_max: u64,
}

/// A TCP port for media (ICE-TCP).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcpPort {
    /// The number of the first UDP port, if that is free.
    Auto,
    /// None.
    Off,
    /// This one.
    At(u16),
}

/// How packets get in and out of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// io_uring where the kernel allows it, else `recvmmsg`/`sendmmsg`.
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// `recvmmsg`/`sendmmsg`.
    Mmsg,
}

/// When a track counts as heard (RFC 6464 levels), as ion-sfu does it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AudioLevel {
    /// Packets at this level or louder count, −dBov: 0 is the loudest, 127 silence.
    pub threshold: u8,
    /// Time over which packets are counted.
    pub interval: Duration,
    /// Part of an interval's packets that must count, percent.
    pub filter: u8,
}

/// How much of anything there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Open TCP connections of page and signalling together.
    pub connections: usize,
    /// The same from one IPv4 address or one IPv6 /64.
    pub connections_per_ip: usize,
    /// TLS and DTLS handshakes that may begin in a second on the data plane's ports; 0 is no limit.
    pub handshakes_per_second: usize,
    /// The same from one IPv4 address or one IPv6 /64.
    pub handshakes_per_second_per_ip: usize,
    /// WebSockets of one address, or one IPv6 /64.
    pub websockets_per_ip: usize,
    /// Peers that may join per second.
    pub joins_per_second: u32,
    /// The same from one address.
    pub joins_per_second_per_ip: u32,
    /// Rooms.
    pub rooms: usize,
    /// Peers of a room.
    pub peers_per_room: usize,
    /// Published tracks of a peer.
    pub tracks_per_peer: usize,
    /// Tracks that a peer gets at a time.
    pub subscriptions_per_peer: usize,
    /// Transports of a room on its first worker before further ones go to the next worker.
    pub spread_after: usize,
}

/// Liveness of signalling connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WebSocket {
    /// Time between the server's pings.
    pub ping_interval: Duration,
    /// Time without a sign of life after which a connection is closed and its peer leaves.
    pub dead_after: Duration,
}

/// Logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// Levels, as `info` or `info,ringmain_control::session=debug`.
    pub filter: String,
    /// For people or for machines.
    pub format: LogFormat,
    /// Lines are added to this file; `None` is the standard error. Only a file of coturn's names one.
    pub file: Option<PathBuf>,
}

/// The shape of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Listen { address: None, port: 7000 },
            one_port: None,
            metrics: Some(Listen { address: None, port: 8100 }),
            metrics_on_listen: false,
            bind: Vec::new(),
            announce: Vec::new(),
            allow_origin: Vec::new(),
            tls: Tls::default(),
            media: Media {
                base_port: 5000,
                tcp_port: TcpPort::Auto,
                workers: 0,
                pin: true,
                cpus: Vec::new(),
                link: Link::Auto,
                handshake_threads: 1,
                publisher_rate_bps_max: 50_000_000,
            },
            audio: AudioLevel { threshold: 40, interval: Duration::from_secs(1), filter: 20 },
            limits: Limits {
                connections: 16_384,
                // An office of five hundred behind one address, each with its page and a few files of it on the way.
                connections_per_ip: 4096,
                // Half of a core's time with keys of RSA, a tenth with elliptic curves.
                handshakes_per_second: 500,
                // An office behind one address, each of its browsers by a few connections, is in within seconds.
                handshakes_per_second_per_ip: 200,
                websockets_per_ip: 2048,
                joins_per_second: 1000,
                joins_per_second_per_ip: 500,
                rooms: 10_000,
                peers_per_room: 1000,
                tracks_per_peer: 32,
                subscriptions_per_peer: 64,
                spread_after: 500,
            },
            websocket: WebSocket { ping_interval: Duration::from_secs(15), dead_after: Duration::from_secs(40) },
            turn: Turn::default(),
            turn_only: false,
            admin_socket: None,
            log: Log { filter: "info".into(), format: LogFormat::Text, file: None },
        }
    }
}

impl Config {
    /// The sockets that `listen` stands for: its own address, else each of `bind`, else every address.
    pub fn endpoints(&self, listen: Listen) -> Vec<SocketAddr> {
        match listen.address {
            Some(address) => vec![SocketAddr::new(address, listen.port)],
            None if self.bind.is_empty() => vec![SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), listen.port)],
            // An unspecified IPv6 address takes every IPv4 address as well, so that a second socket would find it in use.
            None if self.bind.contains(&Ipv6Addr::UNSPECIFIED.into()) => {
                vec![SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), listen.port)]
            }
            None => self.bind.iter().map(|&address| SocketAddr::new(address, listen.port)).collect(),
        }
    }

    /// The addresses that media sockets are bound to, given those of the `host`.
    ///
    /// Without `bind` each address of the host gets its own socket, so that an answer leaves from the address that was
    /// asked; ICE fails otherwise (RFC 8445 §7.2.5.2.1), and a NAT would not know the answer. A socket for all addresses
    /// would answer from the one that the routing table prefers. It is used where the host has no address yet but those it
    /// announces, at boot before the network is up.
    pub fn media_binds(&self, host: &[IpAddr]) -> Vec<IpAddr> {
        let announces_others = !self.announce.is_empty() && !self.announce.iter().any(|told| host.contains(told));
        let is_up = host.iter().any(|address| !address.is_loopback());
        if !self.bind.is_empty() {
            self.bind.clone()
        } else if host.is_empty() || announces_others && !is_up {
            let v6 = host.is_empty() || host.iter().any(IpAddr::is_ipv6);
            let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            if v6 { vec![v4, Ipv6Addr::UNSPECIFIED.into()] } else { vec![v4] }
        } else {
            host.to_vec()
        }
    }

    /// What the SDP announces for a worker whose sockets are bound to `bound`; an unspecified address stands for
    /// those of the `host`.
    pub fn candidates(&self, bound: &[SocketAddr], host: &[IpAddr]) -> Vec<SocketAddr> {
        let Some(port) = bound.first().map(SocketAddr::port) else { return Vec::new() };
        if !self.announce.is_empty() {
            return self.announce.iter().map(|&address| SocketAddr::new(address, port)).collect();
        }
        let mut candidates: Vec<SocketAddr> = Vec::new();
        for socket in bound {
            if socket.ip().is_unspecified() {
                let family = host.iter().filter(|address| address.is_ipv4() == socket.is_ipv4());
                candidates.extend(family.map(|&address| SocketAddr::new(address, socket.port())));
            } else {
                candidates.push(*socket);
            }
        }
        candidates
    }

    /// Where ICE-TCP is listened for at this port: with `one_port` where the page is, else wherever media is.
    pub fn tcp_endpoints(&self, port: u16) -> Vec<SocketAddr> {
        let address = self.listen.address.filter(|_| self.one_port.is_some());
        self.endpoints(Listen { address, port })
    }

    /// What the SDP announces for ICE-TCP at this port, given the candidates of a worker: the same addresses, as far as TCP is
    /// listened on there.
    pub fn tcp_candidates(&self, udp: &[SocketAddr], port: u16) -> Vec<SocketAddr> {
        let endpoints = self.tcp_endpoints(port);
        let is_reached = |ip: IpAddr| {
            !self.announce.is_empty() || endpoints.iter().any(|at| at.ip().is_unspecified() || at.ip() == ip)
        };
        udp.iter().map(SocketAddr::ip).filter(|&ip| is_reached(ip)).map(|ip| SocketAddr::new(ip, port)).collect()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => SocketAddr::new(address, self.port).fmt(f),
            None => write!(f, ":{}", self.port),
        }
    }
}
