//! What the data plane is told of TURN: where to listen, and the rules. And what clients are told: the URLs.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use ringmain_dataplane::plane::{DtlsCertificateFiles, DtlsSettings, Protocols, StreamListener, StreamSettings};
use ringmain_shared::event::Hello;
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::turn::{
    OwnMedia, PasswordAlgorithms, PeerPolicy, RelayAddress, RelayMode, RelaySpec, TurnFeatures, TurnLifetimes,
    TurnQuotas, TurnSecret, TurnSpec,
};

use super::tokens::third_party;
use super::users::credentials;
use super::{Offer, discovery};
use crate::config::{Config, TcpPort, TlsMode, Turn, TurnPeers, TurnTransport};
use crate::http::tls::{Certificate, LOOK_INTERVAL};

/// Where TURN listens.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    /// Plain UDP; behind the addresses at TURN's port those at the other port of NAT behaviour discovery, if there is any.
    pub udp: Vec<SocketAddr>,
    /// Plain UDP, at the ports of media.
    pub on_media: bool,
    /// TCP, TLS and DTLS.
    pub streams: StreamSettings,
}

/// What TURN over TLS proves itself with: its own files, or what the page has.
pub fn certificate(config: &Config, page: Option<&Certificate>) -> anyhow::Result<Option<Certificate>> {
    match (&config.turn.tls_cert, &config.turn.tls_key) {
        (Some(cert), Some(key)) if config.turn.enabled => {
            Certificate::from_files(cert, key).context("turn.tls_cert and turn.tls_key").map(Some)
        }
        _ => Ok(page.cloned()),
    }
}

/// Where TURN is to listen, on a host with these addresses whose media is bound to `media`.
pub fn listeners(
    config: &Config,
    certificate: Option<&Certificate>,
    media: &[IpAddr],
    host: &[IpAddr],
) -> anyhow::Result<Listeners> {
    let turn = &config.turn;
    if !turn.enabled {
        return Ok(Listeners::default());
    }
    let has = |transport| turn.transports.contains(&transport);
    let certificate = certificate.filter(|_| has(TurnTransport::Tls));
    let only_turn = Protocols { turn: true, ..Protocols::NONE };
    let listen = |address| StreamListener {
        address,
        clear: if has(TurnTransport::Tcp) { only_turn } else { Protocols::NONE },
        tls: if certificate.is_some() { only_turn } else { Protocols::NONE },
    };
    let certificates = certificate.map(|certificate| Arc::new(certificate.clone()) as _);
    if config.one_port.is_some() {
        let listeners = config.endpoints(config.listen).into_iter().map(listen).collect();
        let streams = StreamSettings { listeners, certificates, ..StreamSettings::default() };
        return Ok(Listeners { udp: Vec::new(), on_media: has(TurnTransport::Udp), streams });
    }
    let addresses = addresses(turn, media, host);
    if addresses.is_empty() {
        anyhow::bail!("turn.listen: this host has no address to listen on");
    }
    let at = |port: u16| addresses.iter().map(move |&address| SocketAddr::new(address, port)).collect::<Vec<_>>();
    // As with coturn, either port takes either: the first byte tells TLS from TURN.
    let tcp_port = Some(turn.port).filter(|_| has(TurnTransport::Tcp));
    let ports = [tcp_port, certificate.map(|_| turn.tls_port)];
    let dtls = certificate_files(config).filter(|_| has(TurnTransport::Dtls)).map(|(cert, key)| {
        let files = DtlsCertificateFiles::open(&cert, &key, LOOK_INTERVAL).map_err(anyhow::Error::msg);
        files.context("DTLS has no certificate").map(Arc::new)
    });
    let streams = StreamSettings {
        listeners: ports.into_iter().flatten().flat_map(at).map(listen).collect(),
        certificates,
        dtls: dtls.transpose()?.map(|certificate| DtlsSettings { addresses: at(turn.tls_port), certificate }),
        ..StreamSettings::default()
    };
    let udp = if has(TurnTransport::Udp) { at(turn.port) } else { Vec::new() };
    let media = if config.turn_only { 0 } else { media.len() };
    let others = discovery::addresses(config, &addresses, media + udp.len());
    let others = others.into_iter().map(|address| SocketAddr::new(address, turn.alt_port()));
    let udp = udp.iter().copied().chain(others.filter(|_| !udp.is_empty())).collect();
    Ok(Listeners { udp, on_media: false, streams })
}

/// The rules, for a data plane that said `hello` and whose media clients know as `candidates`, by worker.
pub fn spec(
    config: &Config,
    hello: &Hello,
    candidates: &[Vec<SocketAddr>],
    host: &[IpAddr],
) -> anyhow::Result<TurnSpec> {
    let turn = &config.turn;
    let media: Vec<IpAddr> = hello.workers.iter().flat_map(|worker| &worker.addresses).map(SocketAddr::ip).collect();
    let own_media = hello.workers.iter().zip(candidates).zip(0..).flat_map(|((worker, candidates), index)| {
        let all: BTreeSet<SocketAddr> = worker.addresses.iter().chain(candidates).copied().collect();
        all.into_iter().map(move |address| OwnMedia { address, worker: WorkerIndex(index) })
    });
    let (users, keys_only) = credentials(turn)?;
    let third_party = third_party(turn)?;
    let relay = relay_addresses(config, &addresses(turn, &media, host));
    let discovery = discovery::listeners(config, hello.workers.first().map_or(&[], |worker| &worker.turn));
    Ok(TurnSpec {
        realm: turn.realm.clone(),
        users,
        secrets: turn.shared_secrets.iter().map(|secret| TurnSecret(secret.0.clone().into_bytes())).collect(),
        third_party,
        binding: turn.binding || discovery.iter().any(Option::is_some),
        discovery,
        // Whoever is known by an MD5 key alone could not answer an offer of SHA-256.
        password_algorithms: if keys_only { PasswordAlgorithms::Never } else { PasswordAlgorithms::default() },
        peers: PeerPolicy {
            own_media: if config.turn_only { Vec::new() } else { own_media.collect() },
            listeners: own_listeners(config, hello, candidates, host, &relay),
            host: own_addresses(config, host, &relay).into_iter().collect(),
            open: turn.peers == TurnPeers::Open,
            relayed: turn.peers == TurnPeers::Open,
            allow: turn.allow_peers.iter().filter_map(|range| range.in_shared()).collect(),
            deny: turn.deny_peers.iter().filter_map(|range| range.in_shared()).collect(),
        },
        relay: RelaySpec {
            addresses: relay,
            port_min: turn.min_port,
            port_max: turn.max_port,
            workers: hello.workers.len() as u16,
            mode: match turn.shared_ports {
                0 => RelayMode::PerAllocation,
                count => RelayMode::Shared(count),
            },
        },
        quotas: TurnQuotas {
            allocations_per_user: turn.user_allocations,
            allocates_per_user_second: turn.user_allocations_per_second,
            allocations: turn.allocations,
            connections_per_user: turn.user_connections,
            user_bps: turn.user_rate_bps_max,
            total_bps: turn.rate_bps_max,
            ..TurnQuotas::default()
        },
        lifetimes: TurnLifetimes {
            allocation_max: turn.allocation_lifetime_max,
            permission: turn.permission_lifetime,
            channel: turn.channel_lifetime,
            nonce: turn.nonce_lifetime,
            ..TurnLifetimes::default()
        },
        features: TurnFeatures { even_port: turn.even_port, mobility: turn.mobility, tcp_relay: turn.tcp_relay },
    })
}

/// What signalling offers to peers; `None` without TURN. `unix_seconds` is the time at `Now(0)`.
pub fn offer(config: &Config, listeners: &Listeners, host: &[IpAddr], unix_seconds: u64) -> Option<Offer> {
    let turn = &config.turn;
    if !turn.enabled {
        return None;
    }
    let name = announced_host(config, listeners, host)?;
    let mut urls = Vec::new();
    // With `one_port`, TURN over UDP is for those who ask for it by themselves. It gets no further than media at the same port, and
    // Chromium, once it knows a port as a TURN server's, takes no media from there directly: it goes by the relay, or by TCP.
    if !listeners.udp.is_empty() {
        urls.push(format!("turn:{name}:{}?transport=udp", turn.port));
    }
    if turn.transports.contains(&TurnTransport::Tcp) {
        urls.push(format!("turn:{name}:{}?transport=tcp", turn.port));
    }
    // Browsers speak no TURN over DTLS.
    if listeners.streams.listeners.iter().any(|listener| listener.tls.turn) {
        urls.push(format!("turns:{name}:{}?transport=tcp", turn.tls_port));
    }
    let realm = turn.realm.clone();
    Some(Offer { realm, urls, lifetime: turn.credential_lifetime, unix_seconds })
}

/// The name in URLs: as configured, else an announced address, else one that is listened on.
fn announced_host(config: &Config, listeners: &Listeners, host: &[IpAddr]) -> Option<String> {
    if let Some(name) = &config.turn.host {
        return Some(name.clone());
    }
    let streams = listeners.streams.listeners.iter().map(|listener| &listener.address);
    let listened: Vec<IpAddr> = listeners.udp.iter().chain(streams).map(SocketAddr::ip).collect();
    let external = config.turn.external.iter().map(|external| external.public);
    let told: Vec<IpAddr> = config.announce.iter().copied().chain(external).collect();
    // An unspecified address stands for all of the host's.
    let is_everywhere = listened.is_empty() || listened.iter().any(IpAddr::is_unspecified);
    let local = if is_everywhere { host } else { &listened };
    let first = told.first().or_else(|| local.iter().find(|address| !address.is_loopback())).or(local.first())?;
    Some(if first.is_ipv6() { format!("[{first}]") } else { first.to_string() })
}

/// The addresses to listen on, none of them unspecified: an answer must leave from the address that was asked.
fn addresses(turn: &Turn, media: &[IpAddr], host: &[IpAddr]) -> Vec<IpAddr> {
    let wanted = if turn.listen.is_empty() { media } else { &turn.listen };
    let wanted = if wanted.is_empty() { host } else { wanted };
    let mut addresses: Vec<IpAddr> = Vec::new();
    for &address in wanted {
        let same_family = host.iter().copied().filter(|other| other.is_ipv4() == address.is_ipv4());
        let meant: Vec<IpAddr> = if address.is_unspecified() { same_family.collect() } else { vec![address] };
        addresses.extend(meant.into_iter().filter(|address| !addresses.contains(address)).collect::<Vec<_>>());
    }
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

/// At most one of each family, with what the world calls it.
fn relay_addresses(config: &Config, listened: &[IpAddr]) -> Vec<RelayAddress> {
    let turn = &config.turn;
    let candidates = if turn.relay_addresses.is_empty() { listened } else { &turn.relay_addresses };
    let family = |v4: bool| {
        let those = || candidates.iter().copied().filter(move |address| address.is_ipv4() == v4);
        let bind = those().find(|address| !address.is_loopback()).or_else(|| those().next())?;
        Some(RelayAddress { bind, announce: announced(config, bind) })
    };
    [true, false].into_iter().filter_map(family).collect()
}

/// What the world calls an address that TURN has.
pub(super) fn announced(config: &Config, bind: IpAddr) -> IpAddr {
    let external = &config.turn.external;
    let mapped = external.iter().find(|external| external.private == Some(bind)).or_else(|| {
        external.iter().find(|external| external.private.is_none() && external.public.is_ipv4() == bind.is_ipv4())
    });
    let told = || config.announce.iter().copied().filter(|address| address.is_ipv4() == bind.is_ipv4());
    let announced = || told().find(|&address| address == bind).or_else(|| told().next());
    mapped.map(|external| external.public).or_else(announced).unwrap_or(bind)
}

/// Every address that this host may be known by.
fn own_addresses(config: &Config, host: &[IpAddr], relay: &[RelayAddress]) -> BTreeSet<IpAddr> {
    let turn = &config.turn;
    let external = turn.external.iter().flat_map(|external| [Some(external.public), external.private]).flatten();
    let known = host.iter().chain(&config.bind).chain(&turn.listen).chain(&config.announce).copied();
    let known = known.chain(external).chain(relay.iter().flat_map(|relay| [relay.bind, relay.announce]));
    known.filter(|address| !address.is_unspecified()).collect()
}

/// Everything that this process listens on but media, by every address that it may be known by.
fn own_listeners(
    config: &Config,
    hello: &Hello,
    candidates: &[Vec<SocketAddr>],
    host: &[IpAddr],
    relay: &[RelayAddress],
) -> Vec<SocketAddr> {
    let turn = &config.turn;
    let addresses = own_addresses(config, host, relay);
    let page = Some(config.listen.port).filter(|_| !config.turn_only);
    let tcp = match config.media.tcp_port {
        TcpPort::At(port) => Some(port),
        TcpPort::Off | TcpPort::Auto => None,
    };
    let metrics = config.metrics.map(|metrics| metrics.port);
    let other = Some(turn.alt_port()).filter(|_| turn.nat_discovery);
    let ports: BTreeSet<u16> =
        [Some(turn.port), other, Some(turn.tls_port), page, tcp, metrics].into_iter().flatten().collect();
    let media: BTreeSet<&SocketAddr> =
        hello.workers.iter().flat_map(|worker| &worker.addresses).chain(candidates.iter().flatten()).collect();
    let all = addresses.iter().flat_map(|&address| ports.iter().map(move |&port| SocketAddr::new(address, port)));
    // With `one_port` media has such a port too, and is what clients are here for.
    all.filter(|address| !media.contains(address)).collect()
}

/// Where the certificate of TURN is, or that of the page.
fn certificate_files(config: &Config) -> Option<(PathBuf, PathBuf)> {
    match (&config.turn.tls_cert, &config.turn.tls_key, config.tls.mode()) {
        (Some(cert), Some(key), _) | (_, _, TlsMode::Files { cert, key }) => Some((cert.clone(), key.clone())),
        _ => None,
    }
}

/// Addresses of this host that TURN listens on without being told which.
const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};
    use ringmain_shared::event::WorkerInfo;
    use ringmain_shared::transport::{Fingerprint, FingerprintHash};

    fn config(text: &str) -> Config {
        load(&Sources { file: Some(("f".into(), text.into())), cpu_count: 1, ..Sources::default() })
            .expect("sound")
            .config
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn turn_is_off_unless_wanted() {
        let listeners = listeners(&config(""), None, &[], &ips(&["192.0.2.1"])).expect("sound");
        assert!(listeners.udp.is_empty() && listeners.streams.is_empty());
        assert_eq!(offer(&config(""), &listeners, &[], 0), None);
    }

    #[test]
    fn an_unspecified_address_stands_for_those_of_its_family() {
        let config = config("[turn]\nenabled = true\nlisten = \"0.0.0.0\"\n");
        let host = ips(&["192.0.2.1", "2001:db8::1", "127.0.0.1"]);
        let listeners = listeners(&config, None, &[], &host).expect("sound");
        let at = ["192.0.2.1:3478", "127.0.0.1:3478"].map(|text| text.parse().expect("an address"));
        assert_eq!(listeners.udp, at);
        assert_eq!(listeners.streams.listeners.len(), 2, "TCP, and no TLS without a certificate");
        let urls = offer(&config, &listeners, &host, 0).expect("on").urls;
        assert_eq!(urls, ["turn:192.0.2.1:3478?transport=udp", "turn:192.0.2.1:3478?transport=tcp"]);
    }

    #[test]
    fn urls_name_an_address_that_is_listened_on() {
        let config = config("[turn]\nenabled = true\nlisten = \"127.0.0.1\"\n");
        let host = ips(&["192.0.2.1", "127.0.0.1"]);
        let listeners = listeners(&config, None, &[], &host).expect("sound");
        let urls = offer(&config, &listeners, &host, 0).expect("on").urls;
        assert_eq!(urls, ["turn:127.0.0.1:3478?transport=udp", "turn:127.0.0.1:3478?transport=tcp"]);
    }

    #[test]
    fn with_one_port_urls_name_it_and_media_there_is_a_peer() {
        let config =
            config("one_port = 443\nannounce = \"203.0.113.7\"\n[turn]\nenabled = true\nhost = \"sfu.example\"\n");
        let (bare, host) = (listeners(&config, None, &[], &[]).expect("sound"), ips(&["192.0.2.1"]));
        assert_eq!(offer(&config, &bare, &host, 0).expect("on").urls, ["turn:sfu.example:443?transport=tcp"]);
        let certificate = Certificate::self_signed(&[]).expect("made");
        let secure = listeners(&config, Some(&certificate), &[], &host).expect("sound");
        let urls = ["turn:sfu.example:443?transport=tcp", "turns:sfu.example:443?transport=tcp"];
        assert_eq!(offer(&config, &secure, &host, 0).expect("on").urls, urls);
        assert!(secure.on_media && secure.udp.is_empty() && secure.streams.dtls.is_none());
        let [listener] = &secure.streams.listeners[..] else { panic!("{:?}", secure.streams) };
        let turn = Protocols { turn: true, ..Protocols::NONE };
        assert_eq!((listener.address.port(), listener.clear, listener.tls), (443, turn, turn));
        let media = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        let worker = |port| WorkerInfo { addresses: vec![media(port)], turn: Vec::new(), link: String::new() };
        let hello = Hello {
            fingerprint: Fingerprint { hash: FingerprintHash::Sha256, value: vec![0; 32] },
            workers: vec![worker(443), worker(444)],
        };
        let told = |port: u16| vec![SocketAddr::from(([203, 0, 113, 7], port))];
        let listeners = spec(&config, &hello, &[told(443), told(444)], &host).expect("sound").peers.listeners;
        assert!(!listeners.contains(&media(443)) && !listeners.contains(&told(443)[0]), "{listeners:?}");
        assert!(listeners.contains(&media(8100)), "{listeners:?}");
    }

    #[test]
    fn a_key_of_tokens_may_have_the_name_of_a_user() {
        let hello = Hello {
            fingerprint: Fingerprint { hash: FingerprintHash::Sha256, value: vec![0; 32] },
            workers: Vec::new(),
        };
        let file = std::env::temp_dir().join(format!("ringmain-names-{}", std::process::id()));
        std::fs::write(&file, "a:A128GCM:MTIzNDU2Nzg5MDEyMzQ1Ng==\n").expect("a file");
        let text = format!("[turn]\nenabled = true\nusers = [\"a:b\"]\noauth_keys = {file:?}\n");
        let spec = spec(&config(&text), &hello, &[], &[]).expect("sound");
        let third_party = spec.third_party.expect("keys");
        assert_eq!((third_party.server_name.as_str(), third_party.keys[0].kid.as_str()), ("ringmain", "a"));
        assert_eq!(spec.users[0].username, "a");
        std::fs::remove_file(file).expect("ours");
    }

    #[test]
    fn nats_are_discovered_by_the_sockets_that_the_data_plane_has() {
        let config = config("[turn]\nenabled = true\nnat_discovery = true\nlisten = [\"192.0.2.1\", \"192.0.2.2\"]\n");
        let host = ips(&["192.0.2.1", "192.0.2.2", "127.0.0.1"]);
        let listeners = listeners(&config, None, &host, &host).expect("sound");
        let texts: Vec<String> = listeners.udp.iter().map(SocketAddr::to_string).collect();
        assert_eq!(texts, ["192.0.2.1:3478", "192.0.2.2:3478", "192.0.2.1:3479", "192.0.2.2:3479"]);
        assert_eq!(listeners.streams.listeners.len(), 2, "TCP has the one port");
        let hello = Hello {
            fingerprint: Fingerprint { hash: FingerprintHash::Sha256, value: vec![0; 32] },
            workers: vec![WorkerInfo { addresses: Vec::new(), turn: listeners.udp.clone(), link: String::new() }],
        };
        let spec = spec(&config, &hello, &[], &host).expect("sound");
        assert!(spec.binding, "by Binding requests");
        let told: Vec<SocketAddr> = spec.discovery.iter().flatten().map(|listener| listener.announce).collect();
        assert_eq!(told, listeners.udp);
        assert!(told.iter().all(|listener| spec.peers.listeners.contains(listener)), "none of them is a peer");
        let alone = Hello {
            workers: vec![WorkerInfo { turn: told[..1].to_vec(), ..hello.workers[0].clone() }],
            fingerprint: hello.fingerprint,
        };
        let spec = super::spec(&config, &alone, &[], &host).expect("sound");
        assert!(!spec.binding && spec.discovery == [None], "strangers are told nothing for nothing");
    }

    #[test]
    fn peers_are_our_own_media_and_never_our_listeners() {
        let config = config("announce = \"203.0.113.7\"\n[turn]\nenabled = true\nusers = [\"a:b\"]\n");
        let media: SocketAddr = "192.0.2.1:5000".parse().expect("an address");
        let told: SocketAddr = "203.0.113.7:5000".parse().expect("an address");
        let hello = Hello {
            fingerprint: Fingerprint { hash: FingerprintHash::Sha256, value: vec![0; 32] },
            workers: vec![WorkerInfo { addresses: vec![media], turn: Vec::new(), link: String::new() }],
        };
        let spec = spec(&config, &hello, &[vec![told]], &ips(&["192.0.2.1", "2001:db8::1"])).expect("sound");
        assert_eq!(spec.peers.host, ips(&["192.0.2.1", "203.0.113.7", "2001:db8::1"]));
        let own: Vec<SocketAddr> = spec.peers.own_media.iter().map(|own| own.address).collect();
        assert_eq!(own, [media, told]);
        assert!(!spec.peers.open && !spec.peers.relayed);
        for listener in ["192.0.2.1:3478", "203.0.113.7:3478", "192.0.2.1:5349", "192.0.2.1:7000", "192.0.2.1:8100"] {
            assert!(spec.peers.listeners.contains(&listener.parse().expect("an address")), "{listener}");
        }
        let relay = RelayAddress { bind: media.ip(), announce: told.ip() };
        assert_eq!(spec.relay.addresses, [relay]);
        assert_eq!(spec.users.len(), 1);
    }
}
