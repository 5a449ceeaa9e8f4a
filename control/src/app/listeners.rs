//! What the data plane listens for on TCP: TURN, media of those whom UDP does not reach (ICE-TCP), and with `one_port` the page as well.
//! What is to be spoken at the same port is spoken by the same listener.

use std::net::SocketAddr;
use std::sync::Arc;

use ringmain_dataplane::plane::{HttpSink, Protocols, StreamLimits, StreamListener};

use super::run::bind_all;
use crate::config::{Config, TcpPort};
use crate::http::tls::Certificate;
use crate::turn::Listeners;

/// The TCP port of media, if there is to be one: an operator's choice is tried when the data plane starts, ours is tried here, because
/// whoever has said nothing about it does not want the start to fail for it.
pub(super) fn ice_port(config: &Config) -> Option<u16> {
    match config.media.tcp_port {
        _ if config.turn_only => None,
        TcpPort::Off => None,
        TcpPort::At(port) => Some(port),
        TcpPort::Auto => {
            let port = config.media.base_port;
            let free = bind_all(config, "media.tcp_port", &config.tcp_endpoints(port));
            free.inspect_err(|error| tracing::warn!("no media by TCP, for clients that UDP does not reach: {error}"))
                .ok()?;
            Some(port)
        }
    }
}

/// Listens for media by TCP at this port.
pub(super) fn add_ice(listeners: &mut Listeners, config: &Config, port: u16) {
    let ice = Protocols { ice: true, ..Protocols::NONE };
    add(listeners, &config.tcp_endpoints(port), ice, Protocols::NONE);
}

/// Listens for page and signalling, inside TLS only where there is a certificate.
pub(super) fn add_page(listeners: &mut Listeners, config: &Config, certificate: Option<&Certificate>, sink: HttpSink) {
    let http = Protocols { http: true, ..Protocols::NONE };
    let (clear, tls) = if certificate.is_some() { (Protocols::NONE, http) } else { (http, Protocols::NONE) };
    add(listeners, &config.endpoints(config.listen), clear, tls);
    let streams = &mut listeners.streams;
    streams.certificates = certificate.map(|certificate| Arc::new(certificate.clone()) as _);
    streams.http = Some(sink);
}

/// As many connections as control has places for signalling.
pub(super) fn limits(config: &Config) -> StreamLimits {
    let limits = &config.limits;
    StreamLimits {
        connections_max: limits.connections,
        per_address_max: limits.connections_per_ip,
        handshakes_per_second: limits.handshakes_per_second,
        handshakes_per_address: limits.handshakes_per_second_per_ip,
        ..StreamLimits::default()
    }
}

fn add(listeners: &mut Listeners, endpoints: &[SocketAddr], clear: Protocols, tls: Protocols) {
    let listeners = &mut listeners.streams.listeners;
    let is_there = |listener: &StreamListener| endpoints.iter().any(|at| at.port() == listener.address.port());
    if !listeners.iter().any(is_there) {
        listeners.extend(endpoints.iter().map(|&address| StreamListener { address, clear, tls }));
        return;
    }
    for listener in listeners.iter_mut().filter(|listener| is_there(listener)) {
        (listener.clear, listener.tls) = (listener.clear.and(clear), listener.tls.and(tls));
    }
}
