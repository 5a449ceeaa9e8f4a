//! coturn's `turnserver.conf`, for `ringmain turn --coturn-config`: every key of coturn 4.6 is applied, or has nothing to do here, or is
//! refused because the server would then do something else than the file says. What is refused is told in one go.
//!
//! Where the two differ: private addresses are no peers unless `allowed-peer-ip` says so.

use std::time::Duration;

use super::load::{Origin, Problem};
use super::turn::{PeerRange, TurnPeers, TurnTransport, external, range, realm, secret, server_name, user};
use super::value::Value;
use super::{Config, Listen};

/// What a file of coturn's amounts to.
#[derive(Debug)]
pub(super) struct Translated {
    pub(super) config: Config,
    pub(super) warnings: Vec<Problem>,
    pub(super) problems: Vec<Problem>,
    /// Where tokens are wanted, whose keys no such file has.
    pub(super) oauth: Option<Origin>,
}

/// Reads a `turnserver.conf`. Settings that it does not have are coturn's defaults, or ours where it has no say.
pub(super) fn translate(name: &str, text: &str) -> Translated {
    let mut reader = Reader::new();
    // As of any key of one value, the last word counts; the name of the server depends on it.
    let wants_tokens = text.lines().enumerate().filter_map(|(index, line)| Some((index, entry(line)?)));
    let last = wants_tokens.filter(|(_, (key, _))| *key == "oauth").last().filter(|(_, (_, value))| is_on(value));
    reader.oauth = last.map(|(index, _)| Origin::File { name: name.into(), line: index + 1 });
    for (index, line) in text.lines().enumerate() {
        let Some((key, value)) = entry(line) else { continue };
        let origin = Origin::File { name: name.into(), line: index + 1 };
        match reader.take(key, value) {
            Ok(Verdict::Applied) => {}
            Ok(Verdict::Nothing(why)) => {
                let message = format!("has nothing to do here: {why}");
                reader.warnings.push(Problem { key: key.into(), origin, message });
            }
            Err(message) => reader.problems.push(Problem { key: key.into(), origin, message }),
        }
    }
    reader.finish(name)
}

/// `key`, `key=value` or `key value`; comments and blank lines are none.
fn entry(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|letter: char| letter == '=' || letter.is_whitespace()).unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let value = rest.trim_start_matches(|letter: char| letter == '=' || letter.is_whitespace());
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some((key, unquoted.unwrap_or(value)))
}

enum Verdict {
    Applied,
    Nothing(&'static str),
}

struct Reader {
    config: Config,
    warnings: Vec<Problem>,
    problems: Vec<Problem>,
    denied: Vec<PeerRange>,
    metrics_port: u16,
    metrics: bool,
    tls_wanted: bool,
    /// Clients of RFC 3489 are to be answered.
    old_stun: bool,
    oauth: Option<Origin>,
}

impl Reader {
    fn new() -> Self {
        let mut config = Config { metrics: None, turn_only: true, ..Config::default() };
        let turn = &mut config.turn;
        turn.enabled = true;
        turn.peers = TurnPeers::Open;
        // coturn has no such limits, and whoever moves here may have many clients behind one name or one address.
        turn.user_allocations = 0;
        turn.user_allocations_per_second = 0;
        config.limits.connections_per_ip = config.limits.connections;
        config.limits.handshakes_per_second_per_ip = 0;
        // What coturn does unless told otherwise.
        turn.binding = true;
        turn.even_port = true;
        turn.tcp_relay = true;
        turn.nat_discovery = true;
        turn.user_connections = 0;
        Self {
            config,
            warnings: Vec::new(),
            problems: Vec::new(),
            denied: Vec::new(),
            metrics_port: 9641,
            metrics: false,
            tls_wanted: false,
            old_stun: true,
            oauth: None,
        }
    }

    fn take(&mut self, key: &str, text: &str) -> Result<Verdict, String> {
        let value = Value::Raw(text.into());
        let on = is_on(text);
        let turn = &mut self.config.turn;
        match key {
            "realm" => turn.realm = realm(&value)?,
            "server-name" => match server_name(&value) {
                Ok(name) => turn.server_name = name,
                Err(why) if self.oauth.is_some() => return Err(why),
                Err(_) => {
                    return Ok(Verdict::Nothing("it is told with `oauth` only, and would be too long or strange then"));
                }
            },
            "listening-ip" => turn.listen.push(value.address()?),
            "relay-ip" => turn.relay_addresses.push(value.address()?),
            "external-ip" => turn.external.push(external(&value)?),
            "listening-port" => turn.port = value.port()?,
            // Zero is the port after `listening-port`.
            "alt-listening-port" => turn.alt_port = value.number(0, 65_535)?,
            "tls-listening-port" => {
                turn.tls_port = value.port()?;
                self.tls_wanted = true;
            }
            "min-port" => turn.min_port = value.port()?,
            "max-port" => turn.max_port = value.port()?,
            "user" => turn.users.push(user(&value)?),
            "static-auth-secret" => turn.shared_secrets.push(secret(&value)?),
            "cert" => turn.tls_cert = Some(text.into()),
            "pkey" => turn.tls_key = Some(text.into()),
            "no-udp" if on => turn.transports.retain(|transport| *transport != TurnTransport::Udp),
            "no-tcp" if on => turn.transports.retain(|transport| *transport != TurnTransport::Tcp),
            "no-tls" if on => turn.transports.retain(|transport| *transport != TurnTransport::Tls),
            "no-dtls" if on => turn.transports.retain(|transport| *transport != TurnTransport::Dtls),
            "no-stun" => turn.binding = !on,
            // Binding requests must prove themselves there; here they are answered to nobody then.
            "secure-stun" => turn.binding = !on,
            "no-stun-backward-compatibility" => self.old_stun = !on,
            "no-rfc5780" => turn.nat_discovery = !on,
            "mobility" => turn.mobility = on,
            "user-quota" => turn.user_allocations = value.number(0, 1_000_000)?,
            "total-quota" => turn.allocations = value.number(0, 1_000_000)?,
            // coturn's are bytes a second.
            "max-bps" => turn.user_rate_bps_max = value.number::<u64>(0, 10_000_000_000)? * 8,
            "bps-capacity" => turn.rate_bps_max = value.number::<u64>(0, 100_000_000_000)? * 8,
            "stale-nonce" => turn.nonce_lifetime = seconds(text, turn.nonce_lifetime)?,
            "max-allocate-lifetime" => {
                turn.allocation_lifetime_max = seconds(text, turn.allocation_lifetime_max)?;
            }
            "channel-lifetime" => turn.channel_lifetime = seconds(text, turn.channel_lifetime)?,
            "permission-lifetime" => turn.permission_lifetime = seconds(text, turn.permission_lifetime)?,
            "allow-loopback-peers" if on => {
                turn.allow_peers.extend(["127.0.0.0/8", "::1"].into_iter().filter_map(PeerRange::parse));
            }
            "allowed-peer-ip" => turn.allow_peers.push(range(&value)?),
            "denied-peer-ip" => self.denied.push(range(&value)?),
            "relay-threads" => self.config.media.workers = value.number(0, 1024)?,
            "no-tcp-relay" => turn.tcp_relay = !on,
            "prometheus" => self.metrics = on,
            "prometheus-port" => self.metrics_port = value.port()?,
            "verbose" | "Verbose" if on => self.config.log.filter = "info,ringmain_control=debug".into(),
            "log-file" if !NO_LOG_FILES.contains(&text) => self.config.log.file = Some(text.into()),
            "rest-api-separator" if text != ":" => {
                return Err("time-limited usernames are `expiry:user`, with a colon".into());
            }
            _ => return verdict(key, on),
        }
        Ok(Verdict::Applied)
    }

    fn finish(mut self, name: &str) -> Translated {
        let turn = &mut self.config.turn;
        // Without Binding there is nothing to discover a NAT by. And one public address for all leaves no second one; coturn does not
        // look whether there is another beside it.
        let has_one_name = turn.external.iter().any(|external| external.private.is_none());
        let is_off_by_name = turn.nat_discovery && turn.binding && has_one_name && turn.listen.len() > 1;
        turn.nat_discovery &= turn.binding && !has_one_name;
        // An address that is both allowed and denied is allowed there, and denied here.
        let denied = std::mem::take(&mut self.denied);
        turn.deny_peers = turn
            .allow_peers
            .iter()
            .fold(denied, |ranges, allowed| ranges.iter().flat_map(|range| range.without(allowed)).collect());
        if self.metrics {
            self.config.metrics = Some(Listen { address: None, port: self.metrics_port });
        }
        let at_all = |message: &str| {
            let origin = Origin::File { name: name.into(), line: 0 };
            Problem { key: String::new(), origin, message: message.into() }
        };
        if self.tls_wanted && (turn.tls_cert.is_none() || turn.tls_key.is_none()) {
            self.warnings.push(at_all(
                "nothing listens on `tls-listening-port`: TLS and DTLS need a certificate, named by `cert` and `pkey`",
            ));
        }
        if is_off_by_name {
            self.warnings.push(at_all(
                "NAT behaviour discovery (RFC 5780) is off, as in coturn, by an `external-ip` for all addresses; give each of them \
                 its own, as PUBLIC/PRIVATE",
            ));
        }
        if turn.binding && self.old_stun {
            self.warnings.push(at_all(
                "unlike coturn without `no-stun-backward-compatibility`, Ringmain gives STUN clients of RFC 3489 no answer",
            ));
        }
        if turn.allow_peers.is_empty() {
            self.warnings.push(at_all(
                "unlike coturn, Ringmain relays to no private or otherwise special address; if peers have such, name them \
                 by `allowed-peer-ip`",
            ));
        }
        if let [.., last] = &turn.external[..] {
            let unmapped = turn.external.iter().filter(|external| external.private.is_none()).count();
            if unmapped > 2 {
                self.problems.push(at_all(&format!("external-ip {last}: of several, each needs its private address")));
            }
        }
        Translated { config: self.config, warnings: self.warnings, problems: self.problems, oauth: self.oauth }
    }
}

/// What is to be said about a key that sets nothing.
fn verdict(key: &str, on: bool) -> Result<Verdict, String> {
    let nothing = |why| Ok(Verdict::Nothing(why));
    match key {
        // They say what is so here anyway.
        "lt-cred-mech"
        | "use-auth-secret"
        | "no-multicast-peers"
        | "no-loopback-peers"
        | "no-cli"
        | "no-tlsv1"
        | "no-tlsv1_1"
        | "no-software-attribute"
        | "response-origin-only-with-rfc5780"
        | "log-file"
        | "no-udp"
        | "no-tcp"
        | "no-tls"
        | "no-dtls"
        | "verbose"
        | "Verbose"
        | "allow-loopback-peers"
        | "rest-api-separator"
        | "simple-log"
        | "no-auth-pings"
        | "no-dynamic-ip-list"
        | "no-dynamic-realms"
        // Its keys come by another way, which is looked at when everything has been said.
        | "oauth"
        | "fingerprint" => Ok(Verdict::Applied),
        _ if !on && REFUSED_WHEN_ON.contains(&key) => Ok(Verdict::Applied),
        "listening-device" | "relay-device" => nothing("addresses are chosen by `listening-ip` and `relay-ip`"),
        "alt-tls-listening-port" => nothing("NAT behaviour discovery (RFC 5780) is served over UDP only"),
        "aux-server" | "alternate-server" | "tls-alternate-server" => nothing("clients are not sent to other servers"),
        "tcp-proxy-port" => nothing("the PROXY protocol is not spoken"),
        "udp-self-balance" | "ne" => nothing("the kernel spreads clients over the workers"),
        "syslog"
        | "syslog-facility"
        | "no-stdout-log"
        | "new-log-timestamp"
        | "new-log-timestamp-format"
        | "log-binding" => {
            nothing("logs go to `log-file`, or to the standard error and from there to the journal, with the time")
        }
        "pidfile" => nothing("the service manager knows the process"),
        "proc-user" | "proc-group" => nothing("start it as that user: systemd's User= and Group="),
        "cipher-list" | "ec-curve-name" | "dh-file" | "dh566" | "dh1066" | "dh2066" | "no-tlsv1_2" => {
            nothing("TLS 1.2 and 1.3 are served with what is safe in them")
        }
        "keep-address-family" | "allocation-default-address-family" => {
            nothing("a client that asks for no family gets IPv4 (RFC 8656 §7.2)")
        }
        "max-allocate-timeout" => nothing("nothing is kept for clients that have not proved themselves"),
        "cli-ip"
        | "cli-port"
        | "cli-password"
        | "cli-max-output-sessions"
        | "web-admin"
        | "web-admin-ip"
        | "web-admin-port"
        | "web-admin-listen-on-workers" => nothing("`ringmain admin` takes their place"),
        "acme-redirect" => nothing("HTTP is not answered on TURN's ports"),
        "check-origin-consistency" | "secret-key-file" => nothing("there is one realm, and no database"),
        "prometheus-username-labels" => nothing("users are told apart in /metrics, up to a bound"),
        "server-relay" => nothing("relayed addresses may be reached by anyone who is permitted"),
        "no-udp-relay" => Err("relaying over UDP is what this server is for; there is no way to turn it off".into()),
        "stun-only" => Err("a server without TURN is not this one".into()),
        "no-auth" => Err("an open relay is not served; give users or a secret".into()),
        "CA-file" => Err("certificates of clients are not checked".into()),
        "pkey-pwd" => Err("encrypted keys are not read; decrypt it: openssl pkey -in FILE -out FILE".into()),
        "userdb" | "psql-userdb" | "mysql-userdb" | "mongo-userdb" | "redis-userdb" | "redis-statsdb" => {
            Err("databases are not read; name users by `user`, or use `static-auth-secret`".into())
        }
        _ => Err("is no key of coturn 4.6 that is known here".into()),
    }
}

/// What `log-file` means by words: then lines go to the standard error, and from there to the journal.
const NO_LOG_FILES: &[&str] = &["stdout", "-", "syslog"];

/// Refused, but not when they are said to be off.
const REFUSED_WHEN_ON: &[&str] = &["no-udp-relay", "stun-only", "no-auth"];

/// coturn takes a key without a value, and every value but these, for "on".
fn is_on(text: &str) -> bool {
    !matches!(text.to_ascii_lowercase().as_str(), "0" | "off" | "no" | "false" | "n" | "f")
}

/// Seconds; none or zero leaves what is.
fn seconds(text: &str, present: Duration) -> Result<Duration, String> {
    if text.is_empty() {
        return Ok(present);
    }
    match Value::Raw(text.into()).number(0, 86_400)? {
        0 => Ok(present),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let translated = translate("turnserver.conf", &format!("user=a:b\n{text}"));
        translated.problems.iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn the_file_of_a_host_beside_its_sfu_is_applied_as_it_is() {
        let text = "realm=a\nserver-name=b\nfingerprint\nlistening-ip=0.0.0.0\nexternal-ip=172.16.101.126\n\
                    listening-port=3478\nmin-port=10000\nmax-port=20000\nlog-file=/var/log/turnserver.log\nverbose\n\
                    user=test:test123\nlt-cred-mech\n#cert=/etc/cert.pem\n#pkey=/etc/pkey.pem\n#tls-listening-port=443\n";
        let Translated { config, problems, .. } = translate("turnserver.conf", text);
        assert_eq!(problems, []);
        let turn = config.turn;
        assert!(config.turn_only && turn.enabled && turn.binding && turn.peers == TurnPeers::Open);
        assert_eq!((turn.realm.as_str(), turn.port, turn.min_port, turn.max_port), ("a", 3478, 10_000, 20_000));
        assert_eq!(turn.listen, [std::net::IpAddr::from([0, 0, 0, 0])]);
        assert_eq!(turn.external.iter().map(ToString::to_string).collect::<Vec<_>>(), ["172.16.101.126"]);
        assert_eq!((turn.users[0].name.as_str(), turn.users[0].password.0.as_str()), ("test", "test123"));
        assert_eq!(config.log.file.as_deref(), Some("/var/log/turnserver.log".as_ref()));
        assert!(turn.tls_cert.is_none());
    }

    #[test]
    fn what_would_be_another_server_than_the_file_says_is_refused_all_at_once() {
        let told =
            refused("no-auth\nuserdb=/var/db\nlisten-port=1\nmin-port=70000\ndenied-peer-ip=10.0.0.0/40\nCA-file=x\n");
        for (line, key) in
            ["no-auth", "userdb", "listen-port", "min-port", "denied-peer-ip", "CA-file"].iter().enumerate()
        {
            assert!(told.contains(&format!("`{key}` (turnserver.conf, line {})", line + 2)), "{key}: {told}");
        }
        assert_eq!(refused("no-auth=0\noauth=false\n"), "");
    }

    #[test]
    fn tokens_need_a_file_of_keys_beside_the_one_of_coturn() {
        let load = |text: &str, keys: Option<&str>| {
            let flags = keys.map(|file| ("turn-oauth-keys".into(), file.into())).into_iter().collect();
            let coturn = Some(("turnserver.conf".into(), format!("realm=a\n{text}")));
            super::super::load(&super::super::Sources { coturn, flags, cpu_count: 1, ..Default::default() })
        };
        let told = load("oauth\n", None).expect_err("no keys").to_string();
        assert!(told.contains("`oauth` (turnserver.conf, line 2)") && told.contains("--turn-oauth-keys"), "{told}");
        let turn = load("oauth\nserver-name=b\n", Some("keys")).expect("with keys").config.turn;
        assert_eq!((turn.oauth_keys, turn.server_name.as_deref()), (Some("keys".into()), Some("b")));
        assert!(load("oauth=0\nuser=a:b\n", None).is_ok_and(|loaded| loaded.config.turn.oauth_keys.is_none()));
        // The last word counts.
        assert!(load("oauth\noauth=0\nuser=a:b\n", None).is_ok() && load("oauth=0\noauth\nuser=a:b\n", None).is_err());
        // Keys alone let somebody in; nothing at all lets in nobody.
        assert!(load("", Some("keys")).is_ok());
        for text in ["", "oauth\noauth=0\n"] {
            let told = load(text, None).expect_err("for nobody").to_string();
            assert!(told.contains("nobody could use this server"), "{told}");
        }
        // A name that is never told may be any.
        let long = format!("user=a:b\nserver-name={}\n", "n".repeat(128));
        assert!(load(&long, None).is_ok_and(|loaded| loaded.warnings.iter().any(|it| it.key == "server-name")));
        let told = load(&format!("{long}oauth\n"), Some("keys")).expect_err("too long").to_string();
        assert!(told.contains("`server-name` (turnserver.conf, line 3)"), "{told}");
    }

    #[test]
    fn a_log_file_is_a_file_and_a_port_without_a_certificate_is_told() {
        let logs = |text: &str| translate("t", &format!("user=a:b\n{text}\n")).config.log.file;
        assert_eq!(logs("log-file=/var/log/turn.log"), Some("/var/log/turn.log".into()));
        for word in ["stdout", "-", "syslog"] {
            assert_eq!(logs(&format!("log-file={word}")), None);
        }
        let warned = |text: &str| {
            let warnings = translate("t", &format!("user=a:b\ntls-listening-port=443\n{text}")).warnings;
            warnings.iter().any(|warning| warning.message.contains("TLS"))
        };
        assert!(warned("") && warned("cert=c.pem\n") && !warned("cert=c.pem\npkey=k.pem\n"));
    }

    #[test]
    fn every_key_of_the_package_s_example_is_known() {
        let keys = include_str!("coturn_keys.txt").split_whitespace();
        let mut count = 0;
        for key in keys {
            count += 1;
            assert!(!refused(&format!("{key}=1\n")).contains("is no key"), "{key}");
        }
        assert!(count > 100, "{count}");
    }

    #[test]
    fn nats_are_discovered_as_coturn_does_it_unless_the_file_says_no() {
        let turn = |text: &str| translate("t", &format!("user=a:b\n{text}\n")).config.turn;
        let ports = |text: &str| (turn(text).nat_discovery, turn(text).alt_port());
        assert_eq!(ports(""), (true, 3479));
        assert_eq!(ports("alt-listening-port=0\nlistening-port=5000"), (true, 5001));
        assert_eq!(ports("alt-listening-port=3500"), (true, 3500));
        // The next port is the one of TLS and DTLS.
        assert_eq!(ports("tls-listening-port=3479"), (true, 3480));
        assert_eq!(ports("listening-port=65535"), (true, 65_534));
        for no in ["no-rfc5780", "no-stun", "secure-stun", "external-ip=203.0.113.1"] {
            assert!(!turn(no).nat_discovery, "{no}");
        }
        assert!(turn("external-ip=203.0.113.1/10.0.0.1\nexternal-ip=203.0.113.2/10.0.0.2").nat_discovery);
        assert!(refused("alt-listening-port=x").contains("alt-listening-port"));
    }

    #[test]
    fn what_is_not_as_in_coturn_is_told() {
        let told = |text: &str, what: &str| {
            let warnings = translate("t", &format!("user=a:b\n{text}\n")).warnings;
            warnings.iter().any(|warning| warning.message.contains(what))
        };
        assert!(told("", "RFC 3489") && told("no-stun-backward-compatibility=0", "RFC 3489"));
        assert!(!told("no-stun-backward-compatibility", "RFC 3489") && !told("no-stun", "RFC 3489"));
        let two = "listening-ip=10.0.0.1\nlistening-ip=10.0.0.2\n";
        assert!(told(&format!("{two}external-ip=203.0.113.1"), "RFC 5780"));
        assert!(!told(two, "RFC 5780") && !told("external-ip=203.0.113.1", "RFC 5780"));
    }

    #[test]
    fn what_is_allowed_is_not_denied() {
        let text =
            "user=a:b\ndenied-peer-ip=10.0.0.0-10.255.255.255\nallowed-peer-ip=10.0.0.5\nstale-nonce\nmax-bps=1000\n";
        let turn = translate("t", text).config.turn;
        let shown: Vec<String> = turn.deny_peers.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.0-10.0.0.4", "10.0.0.6-10.255.255.255"]);
        assert_eq!((turn.user_rate_bps_max, turn.nonce_lifetime), (8000, Duration::from_secs(600)));
    }

    #[test]
    fn keys_may_be_written_with_spaces_quotes_and_without_values() {
        assert_eq!(entry("  realm = \"a b\"  "), Some(("realm", "a b")));
        assert_eq!(entry("realm x"), Some(("realm", "x")));
        assert_eq!(entry("verbose"), Some(("verbose", "")));
        assert_eq!(entry("# realm=x"), None);
        assert_eq!(entry("user=name:pa=ss"), Some(("user", "name:pa=ss")));
    }
}
