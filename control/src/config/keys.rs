//! Every setting, declared once: its name in the file, its flag, its environment variable, its words in `--help`,
//! how it is read and how it is shown.

use std::time::Duration;

use super::value::{Value, show_duration};
use super::{Config, Link, LogFormat, TcpPort};

/// One setting.
pub(super) struct Key {
    /// Its place in the file: `section.name`, or `name` above all sections.
    pub(super) path: &'static str,
    /// Its flag, without the dashes; upper-case with underscores behind `RINGMAIN_` it is the environment variable.
    pub(super) flag: &'static str,
    /// A one-letter flag.
    pub(super) short: Option<char>,
    /// What stands for the value in `--help`.
    pub(super) placeholder: &'static str,
    /// What it is for.
    pub(super) doc: &'static str,
    /// Puts a value into the configuration, or says why not.
    pub(super) set: fn(&mut Config, &Value) -> Result<(), String>,
    /// The value in TOML.
    pub(super) show: fn(&Config) -> String,
}

impl Key {
    /// The environment variable.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.flag.to_uppercase().replace('-', "_"))
    }

    /// The section of the file that it is in, empty above all sections.
    pub(super) fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The setting at a path of the file.
    pub(super) fn at(path: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.path == path)
    }
}

/// What the names of our environment variables begin with.
pub(super) const PREFIX: &str = "RINGMAIN_";

macro_rules! key {
    ($path:literal, $flag:literal $(/ $short:literal)?, $placeholder:literal, $doc:literal, $set:expr, $show:expr $(,)?) => {
        Key {
            path: $path,
            flag: $flag,
            short: [$($short,)? '\0'].first().copied().filter(|short| *short != '\0'),
            placeholder: $placeholder,
            doc: $doc,
            set: $set,
            show: $show,
        }
    };
}
pub(super) use key;

/// Every setting, in the order of `--help` and `ringmain config`: those of no section first.
pub(super) static KEYS: std::sync::LazyLock<Vec<Key>> =
    std::sync::LazyLock::new(|| [general(), super::turn_keys::keys(), logs()].into_iter().flatten().collect());

fn general() -> Vec<Key> {
    vec![
        key!(
            "listen",
            "listen" / 'a',
            "ADDR:PORT",
            "Where the page and the signalling are served (TCP): \":7000\" for every address, or one \"ADDR:PORT\".",
            |config, value| value.listen().map(|listen| config.listen = listen),
            |config| quoted(&config.listen.to_string()),
        ),
        key!(
            "one_port",
            "one-port",
            "PORT|off",
            "One TCP port for all: page, signalling, media by TCP, TURN over TCP and TLS. UDP media and TURN over UDP share the ports from there on, one for each worker.",
            |config, value| {
                config.one_port = if is_off(value) { None } else { Some(value.port()?) };
                Ok(())
            },
            |config| config.one_port.map_or_else(|| quoted("off"), |port| port.to_string()),
        ),
        key!(
            "metrics",
            "metrics" / 'm',
            "ADDR:PORT|off",
            "Where /metrics is served (TCP), for Prometheus; \"off\" for nowhere.",
            |config, value| {
                config.metrics = if is_off(value) { None } else { Some(value.listen()?) };
                Ok(())
            },
            |config| quoted(&config.metrics.map_or_else(|| "off".into(), |listen| listen.to_string())),
        ),
        key!(
            "metrics_on_listen",
            "metrics-on-listen",
            "BOOL",
            "Serve /metrics beside the page as well. Whoever reaches the page can then read it.",
            |config, value| value.boolean().map(|yes| config.metrics_on_listen = yes),
            |config| config.metrics_on_listen.to_string(),
        ),
        key!(
            "bind",
            "bind",
            "ADDR,…",
            "Local addresses to listen on, for media and signalling; empty for all that the host has at start. 0.0.0.0 and :: take those that come later too, but may answer from another address than was asked.",
            |config, value| value.list(Value::address).map(|bind| config.bind = bind),
            |config| list(&config.bind),
        ),
        key!(
            "announce",
            "announce",
            "ADDR,…",
            "Addresses that clients are told instead of the local ones: the public address, when this host is behind NAT.",
            |config, value| value.list(Value::address).map(|announce| config.announce = announce),
            |config| list(&config.announce),
        ),
        key!(
            "allow_origin",
            "allow-origin",
            "ORIGIN,…",
            "Pages that may open the WebSocket, as \"https://example.org\"; empty for any page, as in ion-sfu.",
            |config, value| value.list(origin).map(|origins| config.allow_origin = origins),
            |config| list(&config.allow_origin),
        ),
        key!(
            "admin_socket",
            "admin-socket",
            "FILE",
            "Unix socket for `ringmain admin`, open to its owner only; empty for none.",
            |config, value| path(value).map(|file| config.admin_socket = file),
            |config| quoted(&config.admin_socket.as_ref().map_or_else(String::new, |file| file.display().to_string())),
        ),
        key!(
            "tls.cert",
            "tls-cert",
            "FILE",
            "PEM file with the certificate chain, read again when it has changed. Browsers allow camera and microphone only over HTTPS or on localhost.",
            |config, value| path(value).map(|file| config.tls.cert = file),
            |config| quoted(&config.tls.cert.as_ref().map_or_else(String::new, |file| file.display().to_string())),
        ),
        key!(
            "tls.key",
            "tls-key",
            "FILE",
            "PEM file with the private key of the certificate.",
            |config, value| path(value).map(|file| config.tls.key = file),
            |config| quoted(&config.tls.key.as_ref().map_or_else(String::new, |file| file.display().to_string())),
        ),
        key!(
            "tls.self_signed",
            "tls-self-signed",
            "BOOL",
            "Make a certificate at start, to try HTTPS from another device; browsers ask before they trust it.",
            |config, value| value.boolean().map(|yes| config.tls.self_signed = yes),
            |config| config.tls.self_signed.to_string(),
        ),
        key!(
            "media.base_port",
            "base-port",
            "PORT",
            "UDP port of the first worker; each further worker has the next one.",
            |config, value| value.port().map(|port| config.media.base_port = port),
            |config| config.media.base_port.to_string(),
        ),
        key!(
            "media.tcp_port",
            "tcp-port",
            "PORT|auto|off",
            "TCP port of media for clients that UDP does not reach (ICE-TCP): \"auto\" for the number of the first UDP port if it is free, \"off\" for none.",
            |config, value| {
                config.media.tcp_port = match value {
                    value if is_off(value) => TcpPort::Off,
                    Value::Raw(text) | Value::Text(text) if text == "auto" => TcpPort::Auto,
                    value => TcpPort::At(value.port().map_err(|error| format!("{error}, nor \"auto\" or \"off\""))?),
                };
                Ok(())
            },
            |config| match config.media.tcp_port {
                TcpPort::Auto => quoted("auto"),
                TcpPort::Off => quoted("off"),
                TcpPort::At(port) => port.to_string(),
            },
        ),
        key!(
            "media.workers",
            "workers",
            "COUNT",
            "Threads that move packets; 0 for one per core.",
            |config, value| value.number(0, 1024).map(|workers| config.media.workers = workers),
            |config| config.media.workers.to_string(),
        ),
        key!(
            "media.pin",
            "pin",
            "BOOL",
            "Keep each worker on one core. Turn it off (--pin=false) where other busy programs share the host.",
            |config, value| value.boolean().map(|pin| config.media.pin = pin),
            |config| config.media.pin.to_string(),
        ),
        key!(
            "media.cpus",
            "cpus",
            "NUMBER,…",
            "The cores that workers are pinned to, by number; empty for all that the process may use.",
            |config, value| value.list(|cpu| cpu.number(0, 4095)).map(|cpus| config.media.cpus = cpus),
            |config| format!("{:?}", config.media.cpus),
        ),
        key!(
            "media.link",
            "link",
            "LINK",
            "How packets get in and out: \"io_uring\", \"mmsg\", or \"auto\" for io_uring where the kernel allows it.",
            |config, value| value.word(LINKS).map(|link| config.media.link = link),
            |config| quoted(name_of(LINKS, config.media.link)),
        ),
        key!(
            "media.handshake_threads",
            "handshake-threads",
            "COUNT",
            "Threads for DTLS handshakes and data channels, so that joins do not stall packets.",
            |config, value| value.number(1, 256).map(|threads| config.media.handshake_threads = threads),
            |config| config.media.handshake_threads.to_string(),
        ),
        key!(
            "media.publisher_rate_bps_max",
            "publisher-rate-bps-max",
            "BITS",
            "Media that one publisher may send, bits per second; what is above is dropped. 0 for no limit.",
            |config, value| {
                value.number(0, 100_000_000_000).map(|rate| config.media.publisher_rate_bps_max = rate)?;
                match config.media.publisher_rate_bps_max {
                    1..32_000 => Err(format!("{value} bit/s is too little for one voice; the least is 32000")),
                    _ => Ok(()),
                }
            },
            |config| config.media.publisher_rate_bps_max.to_string(),
        ),
        key!(
            "audio.threshold",
            "audio-threshold",
            "LEVEL",
            "Audio this loud counts as speech, in -dBov: 0 is the loudest, 127 silence.",
            |config, value| value.number(0, 127).map(|level| config.audio.threshold = level),
            |config| config.audio.threshold.to_string(),
        ),
        key!(
            "audio.interval",
            "audio-interval",
            "TIME",
            "How often clients are told who speaks.",
            |config, value| {
                let interval = value.duration(Duration::from_millis(100), Duration::from_secs(60))?;
                config.audio.interval = interval;
                Ok(())
            },
            |config| quoted(&show_duration(config.audio.interval)),
        ),
        key!(
            "audio.filter",
            "audio-filter",
            "PERCENT",
            "Part of an interval that must be loud enough for its track to be listed, percent.",
            |config, value| value.number(0, 100).map(|filter| config.audio.filter = filter),
            |config| config.audio.filter.to_string(),
        ),
        key!(
            "limits.connections",
            "connections",
            "COUNT",
            "Open TCP connections of page and signalling together, and as many again of TURN and media by TCP.",
            |config, value| value.number(1, 1_000_000).map(|count| config.limits.connections = count),
            |config| config.limits.connections.to_string(),
        ),
        key!(
            "limits.connections_per_ip",
            "connections-per-ip",
            "COUNT",
            "Open TCP connections from one IPv4 address or one IPv6 /64. Behind a reverse proxy all come from one: raise it.",
            |config, value| value.number(1, 1_000_000).map(|count| config.limits.connections_per_ip = count),
            |config| config.limits.connections_per_ip.to_string(),
        ),
        key!(
            "limits.handshakes_per_second",
            "handshakes-per-second",
            "COUNT",
            "TLS and DTLS handshakes that begin in a second on the ports of TURN and of one_port; others wait. 0 for no limit.",
            |config, value| value.number(0, 1_000_000).map(|count| config.limits.handshakes_per_second = count),
            |config| config.limits.handshakes_per_second.to_string(),
        ),
        key!(
            "limits.handshakes_per_second_per_ip",
            "handshakes-per-second-per-ip",
            "COUNT",
            "The same from one IPv4 address or one IPv6 /64; 0 for no limit.",
            |config, value| value.number(0, 1_000_000).map(|count| config.limits.handshakes_per_second_per_ip = count),
            |config| config.limits.handshakes_per_second_per_ip.to_string(),
        ),
        key!(
            "limits.websockets_per_ip",
            "websockets-per-ip",
            "COUNT",
            "Signalling connections (WebSockets, one for each peer) from one IPv4 address or one IPv6 /64; for a reverse proxy as well.",
            |config, value| value.number(1, 1_000_000).map(|count| config.limits.websockets_per_ip = count),
            |config| config.limits.websockets_per_ip.to_string(),
        ),
        key!(
            "limits.joins_per_second",
            "joins-per-second",
            "COUNT",
            "Peers that may join per second, and twice as many at once; others are told when to try again.",
            |config, value| value.number(1, 1_000_000).map(|count| config.limits.joins_per_second = count),
            |config| config.limits.joins_per_second.to_string(),
        ),
        key!(
            "limits.joins_per_second_per_ip",
            "joins-per-second-per-ip",
            "COUNT",
            "Peers that may join per second from one IPv4 address or one IPv6 /64. Behind a reverse proxy all come from one: raise it.",
            |config, value| value.number(1, 1_000_000).map(|count| config.limits.joins_per_second_per_ip = count),
            |config| config.limits.joins_per_second_per_ip.to_string(),
        ),
        key!(
            "limits.rooms",
            "rooms",
            "COUNT",
            "Rooms at a time; whoever would open another is refused.",
            |config, value| value.number(1, 1_000_000).map(|count| config.limits.rooms = count),
            |config| config.limits.rooms.to_string(),
        ),
        key!(
            "limits.peers_per_room",
            "peers-per-room",
            "COUNT",
            "Peers of one room; further ones are refused.",
            |config, value| value.number(1, 100_000).map(|count| config.limits.peers_per_room = count),
            |config| config.limits.peers_per_room.to_string(),
        ),
        key!(
            "limits.tracks_per_peer",
            "tracks-per-peer",
            "COUNT",
            "Tracks that one peer may publish: a microphone, a camera and a screen are three.",
            |config, value| value.number(1, 64).map(|count| config.limits.tracks_per_peer = count),
            |config| config.limits.tracks_per_peer.to_string(),
        ),
        key!(
            "limits.subscriptions_per_peer",
            "subscriptions-per-peer",
            "COUNT",
            "Tracks that one peer gets at a time; others wait until one ends. A page's answer to many more might not fit a message.",
            |config, value| value.number(1, 256).map(|count| config.limits.subscriptions_per_peer = count),
            |config| config.limits.subscriptions_per_peer.to_string(),
        ),
        key!(
            "limits.spread_after",
            "spread-after",
            "COUNT",
            "Connections of one room on one worker, beyond which the room spreads to the next worker.",
            |config, value| value.number(1, 16_384).map(|count| config.limits.spread_after = count),
            |config| config.limits.spread_after.to_string(),
        ),
        key!(
            "websocket.ping_interval",
            "ping-interval",
            "TIME",
            "Time between the server's pings on a signalling connection.",
            |config, value| {
                let interval = value.duration(Duration::from_secs(1), Duration::from_secs(600))?;
                config.websocket.ping_interval = interval;
                Ok(())
            },
            |config| quoted(&show_duration(config.websocket.ping_interval)),
        ),
        key!(
            "websocket.dead_after",
            "dead-after",
            "TIME",
            "Silence after which a signalling connection is closed and its peer leaves the room.",
            |config, value| {
                config.websocket.dead_after = value.duration(Duration::from_secs(2), Duration::from_secs(1800))?;
                Ok(())
            },
            |config| quoted(&show_duration(config.websocket.dead_after)),
        ),
    ]
}

fn logs() -> Vec<Key> {
    vec![
        key!(
            "log.filter",
            "log",
            "FILTER",
            "What is logged: error, warn, info, debug or trace, also by module as \"info,ringmain_control::session=debug\".",
            |config, value| log_filter(value.text()?).map(|filter| config.log.filter = filter),
            |config| quoted(&config.log.filter),
        ),
        key!(
            "log.format",
            "log-format",
            "FORMAT",
            "\"text\" for people, \"json\" for machines.",
            |config, value| value.word(FORMATS).map(|format| config.log.format = format),
            |config| quoted(name_of(FORMATS, config.log.format)),
        ),
    ]
}

const LINKS: &[(&str, Link)] = &[("auto", Link::Auto), ("io_uring", Link::IoUring), ("mmsg", Link::Mmsg)];
const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

fn is_off(value: &Value) -> bool {
    matches!(value, Value::Raw(text) | Value::Text(text) if text == "off")
}

/// An empty text is no file, as `ringmain config` shows it.
pub(super) fn path(value: &Value) -> Result<Option<std::path::PathBuf>, String> {
    value.text().map(|text| Some(text).filter(|text| !text.is_empty()).map(Into::into))
}

/// A web origin as browsers send it (RFC 6454 §6.2): scheme, host, and the port unless it is the scheme's own.
fn origin(value: &Value) -> Result<String, String> {
    let text = value.text()?;
    let wrong =
        || format!("{value} is not an origin; write it as \"https://example.org\" or \"http://localhost:8080\"");
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(wrong)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    if authority.is_empty() || !authority.bytes().all(plain) {
        return Err(wrong());
    }
    Ok(text.to_ascii_lowercase())
}

/// A filter of `tracing-subscriber`, which itself would take a misspelt level for the name of a module and log nothing.
fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',').map(str::trim) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            return Err(format!("`{directive}` has no level; known are {}", LEVELS.join(", ")));
        }
    }
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.into()),
        Err(error) => Err(format!("`{text}` is not a filter: {error}")),
    }
}

pub(super) fn name_of<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, meaning)| *meaning == value).map_or("", |(word, _)| word)
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}

pub(super) fn list<T: ToString>(items: &[T]) -> String {
    toml::Value::Array(items.iter().map(|item| toml::Value::String(item.to_string())).collect()).to_string()
}
