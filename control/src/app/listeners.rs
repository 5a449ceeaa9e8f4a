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

/// As many connections as control has places for signalling. Who has shown nothing yet has the few that are the data plane's default.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};
    use crate::turn;

    /// What is spoken where, in words.
    fn spoken(text: &str, certificate: Option<&Certificate>) -> Vec<String> {
        let file = Some(("f".into(), text.into()));
        let config = load(&Sources { file, cpu_count: 1, ..Sources::default() }).expect("sound").config;
        let host = ["192.0.2.1".parse().expect("an address")];
        let mut listeners = turn::listeners(&config, certificate, &host, &host).expect("sound");
        let TcpPort::At(port) = config.media.tcp_port else { panic!("the test names one") };
        add_ice(&mut listeners, &config, port);
        if config.one_port.is_some() {
            add_page(&mut listeners, &config, certificate, Arc::new(drop));
        }
        let words = |all: Protocols| {
            let words = [(all.turn, "turn "), (all.ice, "ice "), (all.http, "http ")];
            words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect::<String>()
        };
        let listeners = listeners.streams.listeners.iter();
        listeners
            .map(|listener| format!("{} {}| {}", listener.address, words(listener.clear), words(listener.tls)))
            .collect()
    }

    #[test]
    fn what_has_the_same_port_has_one_listener() {
        let certificate = Certificate::self_signed(&[]).expect("made");
        let one_port = "one_port = 443\n[turn]\nenabled = true\n";
        assert_eq!(spoken(one_port, None), ["[::]:443 turn ice http | "]);
        assert_eq!(spoken(one_port, Some(&certificate)), ["[::]:443 turn ice | turn http "]);
        let inside = format!("{one_port}transports = \"tls\"");
        assert_eq!(spoken(&inside, Some(&certificate)), ["[::]:443 ice | turn http "], "no TURN outside TLS");
        let apart = "[media]\ntcp_port = 5000\n[turn]\nenabled = true\n";
        assert_eq!(spoken(apart, None), ["192.0.2.1:3478 turn | ", "[::]:5000 ice | "]);
        let with_turn = "[media]\ntcp_port = 5349\n[turn]\nenabled = true\n";
        let expected = ["192.0.2.1:3478 turn | turn ", "192.0.2.1:5349 turn ice | turn "];
        assert_eq!(spoken(with_turn, Some(&certificate)), expected);
        let bound = "bind = [\"192.0.2.1\", \"127.0.0.1\"]\n[media]\ntcp_port = 5000\n";
        assert_eq!(spoken(bound, None), ["192.0.2.1:5000 ice | ", "127.0.0.1:5000 ice | "]);
    }
}
