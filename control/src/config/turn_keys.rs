//! The settings of the TURN server, as [`keys`](super::keys) has those of the others.

use std::time::Duration;

use super::keys::{Key, key, list, name_of, path, quoted};
use super::turn::{SET, TURN_TRANSPORTS, TurnPeers, external, host, range, realm, secret, server_name, user};
use super::value::{Value, show_duration};

/// In the order of `--help`.
pub(super) fn keys() -> Vec<Key> {
    vec![
        key!(
            "turn.enabled",
            "turn",
            "BOOL",
            "Serve TURN and hand out its credentials, for clients that reach nothing else than one UDP or TCP port.",
            |config, value| value.boolean().map(|yes| config.turn.enabled = yes),
            |config| config.turn.enabled.to_string(),
        ),
        key!(
            "turn.listen",
            "turn-listen",
            "ADDR,…",
            "Local addresses that TURN listens on; empty for those of media.",
            |config, value| value.list(Value::address).map(|addresses| config.turn.listen = addresses),
            |config| list(&config.turn.listen),
        ),
        key!(
            "turn.port",
            "turn-port",
            "PORT",
            "Port of TURN, UDP and TCP.",
            |config, value| value.port().map(|port| config.turn.port = port),
            |config| config.turn.port.to_string(),
        ),
        key!(
            "turn.tls_port",
            "turn-tls-port",
            "PORT",
            "Port of TURN over TLS (TCP), served where there is a certificate, and DTLS (UDP), where that is in files.",
            |config, value| value.port().map(|port| config.turn.tls_port = port),
            |config| config.turn.tls_port.to_string(),
        ),
        key!(
            "turn.transports",
            "turn-transports",
            "WORD,…",
            "What clients may come by: udp, tcp, tls, dtls (which `one_port` has not).",
            |config, value| {
                value.list(|word| word.word(TURN_TRANSPORTS)).map(|transports| config.turn.transports = transports)
            },
            |config| {
                let names = config.turn.transports.iter().map(|transport| name_of(TURN_TRANSPORTS, *transport));
                list(&names.collect::<Vec<_>>())
            },
        ),
        key!(
            "turn.realm",
            "turn-realm",
            "NAME",
            "Realm of TURN's credentials. Part of every key: with another realm, passwords are the same and keys are not.",
            |config, value| realm(value).map(|realm| config.turn.realm = realm),
            |config| quoted(&config.turn.realm),
        ),
        key!(
            "turn.users",
            "turn-users",
            "NAME:PASSWORD,…",
            "Users that do not expire. Others can read a command line: better name them in a file.",
            |config, value| value.list(user).map(|users| config.turn.users = users),
            |config| list(&config.turn.users.iter().map(|_| SET).collect::<Vec<_>>()),
        ),
        key!(
            "turn.users_file",
            "turn-users-file",
            "FILE",
            "File of such users, one NAME:PASSWORD a line, for its owner's eyes only.",
            |config, value| path(value).map(|file| config.turn.users_file = file),
            |config| quoted(
                &config.turn.users_file.as_ref().map_or_else(String::new, |file| file.display().to_string())
            ),
        ),
        key!(
            "turn.shared_secret",
            "turn-shared-secret",
            "SECRET,…",
            "Secret of time-limited credentials, as coturn's static-auth-secret. Several while one follows another.",
            |config, value| value.list(secret).map(|secrets| config.turn.shared_secrets = secrets),
            |config| list(&config.turn.shared_secrets.iter().map(|_| SET).collect::<Vec<_>>()),
        ),
        key!(
            "turn.oauth_keys",
            "turn-oauth-keys",
            "FILE",
            "File of keys that authorization servers seal tokens with (RFC 7635), one KID:ALGORITHM:KEY a line: A128GCM or A256GCM, and the key in base64.",
            |config, value| path(value).map(|file| config.turn.oauth_keys = file),
            |config| quoted(
                &config.turn.oauth_keys.as_ref().map_or_else(String::new, |file| file.display().to_string())
            ),
        ),
        key!(
            "turn.server_name",
            "turn-server-name",
            "NAME",
            "Name of this server that tokens are made for; empty for the realm.",
            |config, value| server_name(value).map(|name| config.turn.server_name = name),
            |config| quoted(config.turn.server_name.as_deref().unwrap_or_default()),
        ),
        key!(
            "turn.host",
            "turn-host",
            "NAME",
            "Name or address in the URLs that clients are told: the certificate's name, without which Firefox takes no TURN over TLS; empty for an address.",
            |config, value| host(value).map(|host| config.turn.host = host),
            |config| quoted(config.turn.host.as_deref().unwrap_or_default()),
        ),
        key!(
            "turn.external",
            "turn-external",
            "PUBLIC[/PRIVATE],…",
            "What clients are told instead of relay addresses, behind a one-to-one NAT; empty for what `announce` says.",
            |config, value| value.list(external).map(|external| config.turn.external = external),
            |config| list(&config.turn.external),
        ),
        key!(
            "turn.relay_addresses",
            "turn-relay-addresses",
            "ADDR,…",
            "Local addresses that relay to peers, at most one of each family; empty to choose among those that TURN listens on.",
            |config, value| value.list(Value::address).map(|addresses| config.turn.relay_addresses = addresses),
            |config| list(&config.turn.relay_addresses),
        ),
        key!(
            "turn.min_port",
            "turn-min-port",
            "PORT",
            "Lowest relay port.",
            |config, value| value.port().map(|port| config.turn.min_port = port),
            |config| config.turn.min_port.to_string(),
        ),
        key!(
            "turn.max_port",
            "turn-max-port",
            "PORT",
            "Highest relay port. Peers must reach these; for this server's own media none is opened.",
            |config, value| value.port().map(|port| config.turn.max_port = port),
            |config| config.turn.max_port.to_string(),
        ),
        key!(
            "turn.shared_ports",
            "turn-shared-ports",
            "COUNT",
            "Relay ports per worker that all allocations share, told apart by their peers; 0 for a port each.",
            |config, value| value.number(0, 1024).map(|count| config.turn.shared_ports = count),
            |config| config.turn.shared_ports.to_string(),
        ),
        key!(
            "turn.peers",
            "turn-peers",
            "WHOM",
            "Whom clients may reach: \"own\", this server's media, or \"open\", any public address but this host's own.",
            |config, value| value.word(PEERS).map(|peers| config.turn.peers = peers),
            |config| quoted(name_of(PEERS, config.turn.peers)),
        ),
        key!(
            "turn.allow_peers",
            "turn-allow-peers",
            "RANGE,…",
            "Peers that clients may reach besides, special ranges included: \"10.1.0.0/16\" or \"10.1.0.1-10.1.0.9\".",
            |config, value| value.list(range).map(|ranges| config.turn.allow_peers = ranges),
            |config| list(&config.turn.allow_peers),
        ),
        key!(
            "turn.deny_peers",
            "turn-deny-peers",
            "RANGE,…",
            "Peers that clients may not reach, whatever allows them.",
            |config, value| value.list(range).map(|ranges| config.turn.deny_peers = ranges),
            |config| list(&config.turn.deny_peers),
        ),
        key!(
            "turn.user_allocations",
            "turn-user-allocations",
            "COUNT",
            "Allocations of one user; 0 for no limit. A browser makes one for each connection, URL and network.",
            |config, value| value.number(0, 1_000_000).map(|count| config.turn.user_allocations = count),
            |config| config.turn.user_allocations.to_string(),
        ),
        key!(
            "turn.user_allocations_per_second",
            "turn-user-allocations-per-second",
            "COUNT",
            "Allocations that one user may make in a second, whatever becomes of them; 0 for no limit.",
            |config, value| value.number(0, 1_000_000).map(|count| config.turn.user_allocations_per_second = count),
            |config| config.turn.user_allocations_per_second.to_string(),
        ),
        key!(
            "turn.allocations",
            "turn-allocations",
            "COUNT",
            "Allocations of all users; 0 for no other limit than the ports.",
            |config, value| value.number(0, 1_000_000).map(|count| config.turn.allocations = count),
            |config| config.turn.allocations.to_string(),
        ),
        key!(
            "turn.user_rate_bps_max",
            "turn-user-rate-bps-max",
            "BITS",
            "What one user may relay, both ways together, this server's own media included, bits per second; what is above is dropped. 0 for no limit.",
            |config, value| value.number(0, 100_000_000_000).map(|rate| config.turn.user_rate_bps_max = rate),
            |config| config.turn.user_rate_bps_max.to_string(),
        ),
        key!(
            "turn.rate_bps_max",
            "turn-rate-bps-max",
            "BITS",
            "What all may relay, both ways together, bits per second. 0 for no limit.",
            |config, value| value.number(0, 1_000_000_000_000).map(|rate| config.turn.rate_bps_max = rate),
            |config| config.turn.rate_bps_max.to_string(),
        ),
        key!(
            "turn.credential_lifetime",
            "turn-credential-lifetime",
            "TIME",
            "How long the credential of a peer allows new allocations; those that exist go on until the peer leaves.",
            |config, value| {
                value.duration(MINUTE, MINUTE * 60 * 24).map(|lifetime| config.turn.credential_lifetime = lifetime)
            },
            |config| quoted(&show_duration(config.turn.credential_lifetime)),
        ),
        key!(
            "turn.allocation_lifetime_max",
            "turn-allocation-lifetime-max",
            "TIME",
            "The longest that an allocation may last without a refresh.",
            |config, value| {
                value.duration(MINUTE, MINUTE * 1440).map(|lifetime| config.turn.allocation_lifetime_max = lifetime)
            },
            |config| quoted(&show_duration(config.turn.allocation_lifetime_max)),
        ),
        key!(
            "turn.permission_lifetime",
            "turn-permission-lifetime",
            "TIME",
            "How long a permission lasts without a refresh (RFC 8656 §9: 5 minutes).",
            |config, value| {
                value.duration(MINUTE, MINUTE * 1440).map(|lifetime| config.turn.permission_lifetime = lifetime)
            },
            |config| quoted(&show_duration(config.turn.permission_lifetime)),
        ),
        key!(
            "turn.channel_lifetime",
            "turn-channel-lifetime",
            "TIME",
            "How long a channel lasts without a refresh (RFC 8656 §12: 10 minutes).",
            |config, value| {
                value.duration(MINUTE, MINUTE * 1440).map(|lifetime| config.turn.channel_lifetime = lifetime)
            },
            |config| quoted(&show_duration(config.turn.channel_lifetime)),
        ),
        key!(
            "turn.nonce_lifetime",
            "turn-nonce-lifetime",
            "TIME",
            "How long a nonce is good for; clients get the next one by themselves.",
            |config, value| {
                value.duration(MINUTE, MINUTE * 1440).map(|lifetime| config.turn.nonce_lifetime = lifetime)
            },
            |config| quoted(&show_duration(config.turn.nonce_lifetime)),
        ),
        key!(
            "turn.binding",
            "turn-binding",
            "BOOL",
            "Answer STUN Binding requests of anyone, for clients that list this server as \"stun:\".",
            |config, value| value.boolean().map(|yes| config.turn.binding = yes),
            |config| config.turn.binding.to_string(),
        ),
        key!(
            "turn.nat_discovery",
            "turn-nat-discovery",
            "BOOL",
            "Let clients find out what their NAT does (RFC 5780); needs two addresses of a kind to listen on, and answers Binding requests at more length.",
            |config, value| value.boolean().map(|yes| config.turn.nat_discovery = yes),
            |config| config.turn.nat_discovery.to_string(),
        ),
        key!(
            "turn.alt_port",
            "turn-alt-port",
            "PORT",
            "The other UDP port for that; 0 for the one after TURN's.",
            |config, value| value.number(0, 65_535).map(|port| config.turn.alt_port = port),
            |config| config.turn.alt_port.to_string(),
        ),
        key!(
            "turn.even_port",
            "turn-even-port",
            "BOOL",
            "Serve EVEN-PORT and RESERVATION-TOKEN, which only RTP without multiplexing needs.",
            |config, value| value.boolean().map(|yes| config.turn.even_port = yes),
            |config| config.turn.even_port.to_string(),
        ),
        key!(
            "turn.mobility",
            "turn-mobility",
            "BOOL",
            "Let allocations follow their client to another address (RFC 8016).",
            |config, value| value.boolean().map(|yes| config.turn.mobility = yes),
            |config| config.turn.mobility.to_string(),
        ),
        key!(
            "turn.tcp_relay",
            "turn-tcp-relay",
            "BOOL",
            "Relay TCP to peers too (RFC 6062), for clients that come by TCP or TLS; browsers never ask for it.",
            |config, value| value.boolean().map(|yes| config.turn.tcp_relay = yes),
            |config| config.turn.tcp_relay.to_string(),
        ),
        key!(
            "turn.user_connections",
            "turn-user-connections",
            "COUNT",
            "TCP connections of one user with peers; 0 for no other limit than 32 for each allocation.",
            |config, value| value.number(0, 1_000_000).map(|count| config.turn.user_connections = count),
            |config| config.turn.user_connections.to_string(),
        ),
        key!(
            "turn.tls_cert",
            "turn-tls-cert",
            "FILE",
            "PEM file with the certificate chain of TURN over TLS and DTLS; empty for that of HTTPS.",
            |config, value| path(value).map(|file| config.turn.tls_cert = file),
            |config| quoted(&config.turn.tls_cert.as_ref().map_or_else(String::new, |file| file.display().to_string())),
        ),
        key!(
            "turn.tls_key",
            "turn-tls-key",
            "FILE",
            "PEM file with its private key.",
            |config, value| path(value).map(|file| config.turn.tls_key = file),
            |config| quoted(&config.turn.tls_key.as_ref().map_or_else(String::new, |file| file.display().to_string())),
        ),
    ]
}

const PEERS: &[(&str, TurnPeers)] = &[("own", TurnPeers::Own), ("open", TurnPeers::Open)];
const MINUTE: Duration = Duration::from_secs(60);
