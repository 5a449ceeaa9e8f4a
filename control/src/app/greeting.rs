//! What the log says at start, for someone who runs this for the first time: where the page is, where media flows,
//! what moves it, and how to get there from another device.

use std::net::{IpAddr, SocketAddr};

use ringmain_shared::event::WorkerInfo;

use super::run::Candidates;
use crate::config::{Config, Link, TlsMode, TurnTransport};
use crate::turn::{Listeners, Obstacle, Offer, alternates};

/// One line of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// Good to know.
    Info(String),
    /// Probably not as wanted.
    Warn(String),
}

/// The lines, in order. `fingerprint` is that of the TLS certificate.
pub fn lines(
    config: &Config,
    workers: &[WorkerInfo],
    candidates: &Candidates,
    host: &[IpAddr],
    fingerprint: Option<&str>,
) -> Vec<Line> {
    let mut lines = Vec::new();
    let urls = urls(config, host);
    lines.push(Line::Info(format!("page: {}", urls.join("  "))));
    lines.push(Line::Info(format!("signalling for clients of ion-sfu: {}", websocket_url(&urls))));
    if let Some(fingerprint) = fingerprint {
        lines.push(Line::Info(format!("TLS certificate, SHA-256: {fingerprint}")));
    }
    let first = config.media.base_port;
    let last = first.saturating_add((workers.len() as u16).saturating_sub(1));
    let ports = if first == last { first.to_string() } else { format!("{first} to {last}") };
    let told: Vec<String> =
        candidates.udp.first().into_iter().flatten().map(|socket| socket.ip().to_string()).collect();
    let tcp = candidates.tcp.first().map_or_else(String::new, |at| format!("TCP {}, ", at.port()));
    lines.push(Line::Info(format!(
        "media: UDP {ports}, {tcp}{} workers; clients are told {}",
        workers.len(),
        told.join(", ")
    )));
    if let Some(worker) = workers.first() {
        lines.push(link_line(config.media.link, &worker.link));
    }
    if let Some(metrics) = config.metrics {
        let at = config.endpoints(metrics).first().map_or_else(String::new, |at| reachable(*at, host));
        lines.push(Line::Info(format!("metrics: http://{at}/metrics")));
    }
    lines.extend(hints(config, &candidates.udp));
    lines.extend(low_port_hint(candidates));
    lines
}

/// What is said of TURN.
pub fn turn_lines(config: &Config, listeners: &Listeners, offer: Option<&Offer>) -> Vec<Line> {
    let Some(offer) = offer else { return Vec::new() };
    let turn = &config.turn;
    let mut lines = vec![Line::Info(format!(
        "TURN: {}; realm {:?}, relay ports {} to {}",
        offer.urls.join("  "),
        turn.realm,
        turn.min_port,
        turn.max_port
    ))];
    let wants_tls = turn.transports.iter().any(|what| matches!(what, TurnTransport::Tls | TurnTransport::Dtls));
    if wants_tls && listeners.streams.certificates.is_none() {
        let hint = "TURN over TLS and DTLS: off, for want of certificate files (turn.tls_cert, turn.tls_key)";
        lines.push(Line::Info(hint.into()));
    }
    if !config.turn_only {
        lines.extend(nameless_tls_hint(&offer.urls));
    }
    if turn.nat_discovery {
        lines.push(discovery_line(config.turn_only, alternates(config, listeners)));
    }
    let server_name = turn.server_name.as_ref().unwrap_or(&turn.realm);
    let padded = |name: &str| name.len().next_multiple_of(4);
    let (what, size) = match turn.oauth_keys {
        Some(_) => ("turn.realm and turn.server_name have", padded(&turn.realm) + 4 + padded(server_name)),
        None => ("turn.realm has", turn.realm.len()),
    };
    if size > REALM_SIZE_GOOD {
        lines.push(Line::Warn(format!(
            "{what} {size} bytes in every answer to strangers: up to {REALM_SIZE_GOOD} make those no more than twice as long as what \
             is asked, which is of little use to who would have others flooded"
        )));
        if turn.oauth_keys.is_some() {
            let hint = "so turn.server_name is told to nobody by UDP who has proved nothing: shorten it if clients need to be told";
            lines.push(Line::Warn(hint.into()));
        }
    }
    let files = [&turn.users_file, &turn.oauth_keys];
    let is_for_nobody =
        turn.users.is_empty() && turn.shared_secrets.is_empty() && files.into_iter().all(Option::is_none);
    if config.turn_only && is_for_nobody {
        let hint = "nobody can use TURN: set turn.users, turn.users_file, turn.shared_secret or turn.oauth_keys";
        lines.push(Line::Warn(hint.into()));
    }
    lines
}

/// Firefox reaches for TURN over TLS by a name only: with an address in the URL it does not even connect.
fn nameless_tls_hint(urls: &[String]) -> Option<Line> {
    let is_address =
        |host: &str| host.starts_with('[') || host.split(':').next().is_some_and(|ip| ip.parse::<IpAddr>().is_ok());
    let hint = "TURN over TLS: clients are told an address, by which Firefox does not come; set turn.host to the certificate's name";
    urls.iter().filter_map(|url| url.strip_prefix("turns:")).any(is_address).then(|| Line::Warn(hint.into()))
}

/// Whether NATs can be discovered, and by which addresses.
fn discovery_line(turn_only: bool, alternates: Result<Vec<SocketAddr>, Obstacle>) -> Line {
    const WHAT: &str = "NAT behaviour discovery (RFC 5780)";
    match alternates {
        Ok(also) => {
            let also: Vec<String> = also.iter().map(SocketAddr::to_string).collect();
            Line::Info(format!("{WHAT}: also at {} (UDP)", also.join(", ")))
        }
        // A file of coturn's wants it without saying so, on hosts of one address as well.
        Err(none @ Obstacle::NoPair) if turn_only => Line::Info(format!("{WHAT}: off; {none}")),
        Err(obstacle) => Line::Warn(format!("{WHAT}: off; {obstacle}")),
    }
}

fn link_line(asked: Link, got: &str) -> Line {
    match (asked, got) {
        (Link::Auto, "mmsg") => Line::Warn(
            "link: mmsg, because this kernel or container does not allow io_uring; more CPU per packet".into(),
        ),
        (Link::Auto, got) => Line::Info(format!("link: {got}, the best that this kernel allows")),
        (_, got) => Line::Info(format!("link: {got}, as configured")),
    }
}

fn hints(config: &Config, candidates: &[Vec<SocketAddr>]) -> Vec<Line> {
    let mut lines = Vec::new();
    let told = || candidates.iter().flatten().map(|socket| socket.ip());
    if told().next().is_none() {
        lines.push(Line::Warn("this host has no address that clients could be told: set announce".into()));
    } else if told().all(|address| address.is_loopback()) {
        lines.push(Line::Warn(
            "only this host can connect: all media addresses are loopback; see bind and announce".into(),
        ));
    }
    if config.tls.mode() == TlsMode::Off {
        let hint = "from another device: browsers give camera and microphone to HTTPS pages only; \
            start with --tls-self-signed to try, or with --tls-cert and --tls-key";
        lines.push(Line::Info(hint.into()));
    }
    if config.announce.is_empty() && told().all(is_private) {
        let hint = "from the internet: forward the TCP and UDP ports above to this host and start with --announce <public address>";
        lines.push(Line::Info(hint.into()));
    }
    lines
}

/// libwebrtc, and so every browser but Firefox, passes over candidates below 1024 but for 80 and 443, and over these where the address
/// is a private one.
fn low_port_hint(candidates: &Candidates) -> Option<Line> {
    let is_passed_over = |at: &&SocketAddr| at.port() < 1024 && (!matches!(at.port(), 80 | 443) || is_private(at.ip()));
    let at = candidates.udp.iter().flatten().chain(&candidates.tcp).find(is_passed_over)?;
    Some(Line::Warn(format!(
        "Chromium and Safari send no media to {at}: of the ports below 1024 they take 80 and 443, and at public addresses only"
    )))
}

/// Where a browser finds the page: on this host first, then from others.
fn urls(config: &Config, host: &[IpAddr]) -> Vec<String> {
    let scheme = if config.tls.mode() == TlsMode::Off { "http" } else { "https" };
    let port = config.listen.port;
    let mut urls = Vec::new();
    for endpoint in config.endpoints(config.listen) {
        if endpoint.ip().is_unspecified() {
            urls.push(format!("{scheme}://localhost:{port}/"));
            let others = host.iter().filter(|address| !address.is_loopback());
            urls.extend(others.map(|&address| format!("{scheme}://{}/", SocketAddr::new(address, port))));
        } else {
            urls.push(format!("{scheme}://{endpoint}/"));
        }
    }
    urls.dedup();
    urls.truncate(URLS_MAX);
    urls
}

fn websocket_url(urls: &[String]) -> String {
    urls.first().map_or_else(String::new, |url| format!("{}ws", url.replacen("http", "ws", 1)))
}

fn reachable(endpoint: SocketAddr, host: &[IpAddr]) -> String {
    if !endpoint.ip().is_unspecified() {
        return endpoint.to_string();
    }
    let outer = host.iter().find(|address| !address.is_loopback());
    outer.map_or_else(
        || format!("localhost:{}", endpoint.port()),
        |&ip| SocketAddr::new(ip, endpoint.port()).to_string(),
    )
}

/// RFC 1918, RFC 4193, loopback and IPv4 link-local: of no use beyond the local network.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_loopback(),
    }
}

/// With IPv4 and UDP headers, a bare Allocate is 56 bytes and its challenge 76 without the realm.
const REALM_SIZE_GOOD: usize = 36;
/// A host with many addresses need not fill the screen.
const URLS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Sources, load};

    #[test]
    fn whether_nats_can_be_discovered_is_told_and_why_not() {
        let told = |text: &str, udp: &[&str]| {
            let text = format!("[turn]\nenabled = true\nnat_discovery = true\n{text}");
            let sources = Sources { file: Some(("f".into(), text)), cpu_count: 1, ..Sources::default() };
            let config = load(&sources).expect("sound").config;
            let udp = udp.iter().map(|at| at.parse().expect("a socket")).collect();
            let offer = Offer { realm: "r".into(), urls: Vec::new(), lifetime: Duration::ZERO, unix_seconds: 0 };
            let lines = turn_lines(&config, &Listeners { udp, ..Listeners::default() }, Some(&offer));
            let line = |line: &Line| match line {
                Line::Info(text) | Line::Warn(text) => text.starts_with("NAT behaviour"),
            };
            lines.into_iter().find(line).expect("a line")
        };
        let four = ["192.0.2.1:3478", "192.0.2.2:3478", "192.0.2.1:3479", "192.0.2.2:3479"];
        let on = "NAT behaviour discovery (RFC 5780): also at 192.0.2.1:3479, 192.0.2.2:3479 (UDP)";
        assert_eq!(told("", &four), Line::Info(on.into()));
        assert!(matches!(told("", &four[..1]), Line::Warn(text) if text.contains("off; of one family")));
        let of_coturn = discovery_line(true, Err(Obstacle::NoPair));
        assert!(matches!(of_coturn, Line::Info(text) if text.contains("off; of one family")));
        assert!(matches!(told("transports = [\"tcp\"]\n", &[]), Line::Warn(text) if text.contains("turn.transports")));
        let behind = told("external = [\"203.0.113.1\"]\n", &["10.0.0.1:3478", "10.0.0.2:3478"]);
        assert!(
            matches!(behind, Line::Warn(text) if text.contains("10.0.0.1 and 10.0.0.2 are both known as 203.0.113.1"))
        );
    }

    #[test]
    fn whoever_hands_out_turn_over_tls_by_an_address_is_warned() {
        let hint = |url: &str| nameless_tls_hint(&["turn:192.0.2.1:3478?transport=udp".into(), url.into()]);
        for url in ["turns:192.0.2.1:5349?transport=tcp", "turns:[2001:db8::1]:5349?transport=tcp"] {
            assert!(matches!(hint(url), Some(Line::Warn(_))), "{url}");
        }
        for url in ["turns:sfu.example:5349?transport=tcp", "turn:192.0.2.1:3478?transport=tcp"] {
            assert_eq!(hint(url), None, "{url}");
        }
    }
}
