//! Joins the sources into one [`Config`], remembers where each value came from, and collects everything that is wrong
//! before it gives up, so that one start shows all of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::keys::{KEYS, Key, PREFIX};
use super::value::Value;
use super::{Config, TcpPort, TlsMode, TurnTransport, coturn, file, ion};

/// Where configuration comes from, each already read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Name and text of the file.
    pub file: Option<(String, String)>,
    /// Environment variables; those of others are passed over.
    pub environment: Vec<(String, String)>,
    /// Name and text of a `turnserver.conf`, in place of the file.
    pub coturn: Option<(String, String)>,
    /// Serve TURN and nothing else.
    pub turn_only: bool,
    /// Flags by their long names, without the dashes.
    pub flags: Vec<(String, String)>,
    /// Cores that the process may use.
    pub cpu_count: u16,
}

/// A configuration that may be run.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What was said that changes nothing.
    pub warnings: Vec<Problem>,
    origins: BTreeMap<&'static str, Origin>,
}

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of the file.
    File {
        /// As given to `--config`.
        name: String,
        /// From 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag, with its dashes.
    Flag(String),
}

/// One thing that is wrong, or without effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The key as it was written; empty when the file as a whole is meant.
    pub key: String,
    /// Where.
    pub origin: Origin,
    /// What, and what to do.
    pub message: String,
}

/// Why a configuration is not run: every problem found, for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError(pub Vec<Problem>);

/// Joins `sources`.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut loader = Loader::default();
    if let Some((name, text)) = &sources.coturn {
        let coturn::Translated { config, warnings, problems, oauth } = coturn::translate(name, text);
        loader = Loader { config, warnings, problems, coturn: Some((name.clone(), oauth)), ..loader };
    }
    if sources.turn_only {
        loader.config.turn_only = true;
        loader.config.turn.enabled = true;
    }
    if let Some((name, text)) = &sources.file {
        loader.take_file(name, text);
    }
    for (variable, text) in &sources.environment {
        loader.take_variable(variable, text);
    }
    for (flag, text) in &sources.flags {
        loader.take_flag(flag, text);
    }
    loader.fit_one_port();
    loader.fit_ports(sources.cpu_count.max(1));
    loader.check(sources.cpu_count.max(1));
    if loader.problems.is_empty() {
        Ok(Loaded { config: loader.config, warnings: loader.warnings, origins: loader.origins })
    } else {
        Err(ConfigError(loader.problems))
    }
}

impl Loaded {
    /// Where the value of the setting at `path` came from.
    pub fn origin(&self, path: &str) -> &Origin {
        self.origins.get(path).unwrap_or(&Origin::Default)
    }
}

#[derive(Default)]
struct Loader {
    config: Config,
    origins: BTreeMap<&'static str, Origin>,
    warnings: Vec<Problem>,
    problems: Vec<Problem>,
    /// The last media port that ion-sfu's keys allow, and which of them said so.
    last_port: Option<(u16, String, Origin)>,
    /// coturn's file, and where in it tokens are wanted.
    coturn: Option<(String, Option<Origin>)>,
}

impl Loader {
    fn take_file(&mut self, name: &str, text: &str) {
        let at = |line| Origin::File { name: name.into(), line };
        let entries = match file::entries(text) {
            Ok(entries) => entries,
            Err((line, message)) => return self.problem("", at(line), message),
        };
        for entry in entries {
            let (path, origin) = (entry.path.as_str(), at(entry.line));
            let Some(value) = entry.value else {
                let known = KEYS.iter().any(|key| key.section() == path) || ion::SECTIONS.contains(&path);
                if !known {
                    self.problem(path, origin, format!("there is no such section{}", suggestion(path)));
                }
                continue;
            };
            if let Some(key) = Key::at(path) {
                self.set(key, path, origin, &value);
            } else if let Some(verdict) = ion::verdict(path, &value) {
                self.take_verdict(path, origin, verdict);
            } else if KEYS.iter().any(|key| key.section() == path) {
                self.problem(path, origin, format!("this is a section; write it as [{path}]"));
            } else {
                self.problem(path, origin, format!("there is no such key{}", suggestion(path)));
            }
        }
    }

    fn take_verdict(&mut self, path: &str, origin: Origin, verdict: ion::Verdict) {
        match verdict {
            ion::Verdict::Always => {}
            ion::Verdict::NoEffect(why) => {
                let message = format!("has no effect: {why}");
                self.warnings.push(Problem { key: path.into(), origin, message });
            }
            ion::Verdict::Refused(why) => self.problem(path, origin, why),
            ion::Verdict::Means(settings) => {
                for (ours, value) in settings {
                    let key = Key::at(ours).expect("ion keys map to keys of the table");
                    self.set(key, path, origin.clone(), &value);
                }
            }
            ion::Verdict::Ports { first, last } => {
                let key = Key::at("media.base_port").expect("a key of the table");
                self.set(key, path, origin.clone(), &Value::Integer(first.into()));
                self.last_port = Some((last, path.into(), origin));
            }
        }
    }

    fn take_variable(&mut self, variable: &str, text: &str) {
        let Some(name) = variable.strip_prefix(PREFIX) else { return };
        // Which file to read was decided before.
        if name == "CONFIG" || text.is_empty() {
            return;
        }
        let origin = Origin::Environment(variable.into());
        match KEYS.iter().find(|key| key.variable() == variable) {
            Some(key) => self.set(key, key.path, origin, &Value::Raw(text.into())),
            // Kubernetes sets these for a service that is called "ringmain".
            None if name.starts_with("SERVICE_") || name == "PORT" || name.starts_with("PORT_") => {
                let message = "is passed over: Kubernetes sets it for a service of this name".into();
                self.warnings.push(Problem { key: variable.into(), origin, message });
            }
            None => {
                let near = nearest(variable, KEYS.iter().map(Key::variable));
                let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
                self.problem(variable, origin, format!("there is no such variable{near}"));
            }
        }
    }

    fn take_flag(&mut self, flag: &str, text: &str) {
        let origin = Origin::Flag(format!("--{flag}"));
        match KEYS.iter().find(|key| key.flag == flag) {
            Some(key) => self.set(key, key.path, origin, &Value::Raw(text.into())),
            None => self.problem(flag, origin, "there is no such flag".into()),
        }
    }

    /// Sets `key`, which the operator wrote as `written`. A file may say a thing once, in our words or in ion-sfu's.
    fn set(&mut self, key: &'static Key, written: &str, origin: Origin, value: &Value) {
        if let (Some(Origin::File { line, .. }), Origin::File { .. }) = (self.origins.get(key.path), &origin) {
            let message = format!("this was said already in line {line}; keep one of them");
            return self.problem(written, origin, message);
        }
        match (key.set)(&mut self.config, value) {
            Ok(()) => {
                self.origins.insert(key.path, origin);
            }
            Err(message) => self.problem(written, origin, message),
        }
    }

    /// With `one_port` all other ports follow it. Whoever names a second port for what is on the first has misunderstood one of them.
    fn fit_one_port(&mut self) {
        let Some(port) = self.config.one_port else { return };
        if self.config.turn_only {
            let message = "`ringmain turn` serves neither page nor media; set `turn.port` and `turn.tls_port`";
            return self.problem_at("one_port", message.into());
        }
        let config = &self.config;
        let tcp_port = match config.media.tcp_port {
            TcpPort::At(tcp_port) => Some(tcp_port),
            TcpPort::Off | TcpPort::Auto => None,
        };
        let given = [
            ("listen", Some(config.listen.port)),
            ("media.tcp_port", tcp_port),
            ("turn.port", Some(config.turn.port)),
            ("turn.tls_port", Some(config.turn.tls_port)),
        ];
        for (path, given) in given {
            if given.is_some_and(|given| given != port) && self.origin(path) != Origin::Default {
                self.problem_at(path, format!("names another port than `one_port`, which is {port}; keep one of them"));
            }
        }
        if !self.config.turn.listen.is_empty() {
            self.problem_at(
                "turn.listen",
                "with `one_port`, TURN listens where page and media do; leave it out".into(),
            );
        }
        if self.config.turn.nat_discovery {
            let message = "needs two ports; with `one_port`, leave it out";
            self.problem_at("turn.nat_discovery", message.into());
        }
        if self.config.turn.tls_cert.is_some() {
            let message = "one port has one certificate: with `one_port`, set `tls.cert` and `tls.key`";
            self.problem_at("turn.tls_cert", message.into());
        }
        let Config { listen, media, turn, .. } = &mut self.config;
        (listen.port, turn.port, turn.tls_port) = (port, port, port);
        let mut following = vec!["listen", "turn.port", "turn.tls_port"];
        if media.tcp_port != TcpPort::Off {
            media.tcp_port = TcpPort::At(port);
            following.push("media.tcp_port");
        }
        // Another service may have the UDP port, as HTTP/3 has 443.
        if !self.origins.contains_key("media.base_port") {
            media.base_port = port;
            following.push("media.base_port");
        }
        let origin = self.origin("one_port");
        for path in following {
            self.origins.entry(path).or_insert_with(|| origin.clone());
        }
    }

    /// Where ion-sfu's keys bound the media ports, as many workers as there are ports.
    fn fit_ports(&mut self, cpu_count: u16) {
        let Some((last, written, origin)) = self.last_port.take() else { return };
        let base = self.config.media.base_port;
        // A flag or a variable has moved the ports away: the bound is no longer meant.
        if self.origins.get("media.base_port") != Some(&origin) {
            return;
        }
        let ports = last.saturating_sub(base).saturating_add(1);
        let workers = self.config.media.workers;
        if workers > ports {
            let message = format!("{workers} workers need {workers} ports, one each, and {written} leaves {ports}");
            return self.problem("media.workers", self.origin("media.workers"), message);
        }
        if workers == 0 && ports < cpu_count {
            self.config.media.workers = ports;
            self.origins.insert("media.workers", origin.clone());
            let message = format!(
                "leaves room for {ports} of {cpu_count} workers, which have one port each; for one per core set \
                 `media.base_port` instead and open UDP {base} to {}",
                base.saturating_add(cpu_count - 1)
            );
            self.warnings.push(Problem { key: written, origin, message });
        }
    }

    /// What no single value shows.
    fn check(&mut self, cpu_count: u16) {
        let config = self.config.clone();
        let workers = if config.media.workers == 0 { cpu_count } else { config.media.workers };
        if u32::from(config.media.base_port) + u32::from(workers) - 1 > 65_535 {
            let base = config.media.base_port;
            let message =
                format!("{workers} workers need as many ports, and {base} leaves {}", 65_536 - u32::from(base));
            self.problem_at("media.base_port", message);
        }
        if config.tls.cert.is_some() != config.tls.key.is_some() {
            let (given, missing) =
                if config.tls.cert.is_some() { ("tls.cert", "tls.key") } else { ("tls.key", "tls.cert") };
            self.problem_at(given, format!("needs `{missing}` beside it"));
        } else if config.tls.cert.is_some() && config.tls.self_signed {
            self.problem_at("tls.self_signed", "`tls.cert` gives a certificate already; keep one of them".into());
        }
        if let Some(metrics) = config.metrics {
            let same_address = match (metrics.address, config.listen.address) {
                (Some(a), Some(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
                _ => true,
            };
            if metrics.port == config.listen.port && same_address {
                let message = "is where `listen` is; set \"off\" and `metrics_on_listen = true` to serve both there";
                self.problem_at("metrics", message.into());
            }
        }
        if config.one_port.is_none() && !config.turn_only && config.media.tcp_port == TcpPort::At(config.listen.port) {
            self.problem_at("media.tcp_port", "is the port of `listen`; `one_port` serves both there".into());
        }
        if let Some(metrics) = config.metrics
            && config.one_port.is_none()
            && config.media.tcp_port == TcpPort::At(metrics.port)
        {
            self.problem_at("media.tcp_port", "is the port of `metrics`".into());
        }
        self.check_addresses("bind", &config.bind, |address| match address {
            address if address.is_multicast() => Some("is a multicast address"),
            address if is_link_local_v6(address) => {
                Some("is an IPv6 link-local address, which has no meaning off its link")
            }
            _ => None,
        });
        self.check_addresses("announce", &config.announce, |address| match address {
            address if address.is_unspecified() => Some("is no address that a client could send to"),
            address if address.is_multicast() => Some("is a multicast address"),
            address if is_link_local_v6(address) => {
                Some("is an IPv6 link-local address, which has no meaning off its link")
            }
            IpAddr::V4(address) if address.is_broadcast() => Some("is the broadcast address"),
            _ => None,
        });
        if config.bind.len() > 1 && config.bind.iter().any(IpAddr::is_unspecified) {
            let v4 = config.bind.iter().filter(|address| address.is_ipv4());
            let v6 = config.bind.iter().filter(|address| address.is_ipv6());
            if v4.clone().count() > 1 && v4.into_iter().any(IpAddr::is_unspecified)
                || v6.clone().count() > 1 && v6.into_iter().any(IpAddr::is_unspecified)
            {
                self.problem_at("bind", "an unspecified address already stands for all of its family".into());
            }
        }
        if config.websocket.dead_after <= config.websocket.ping_interval {
            self.problem_at("websocket.dead_after", "must be longer than `websocket.ping_interval`".into());
        }
        if config.limits.connections_per_ip > config.limits.connections {
            match self.origin("limits.connections_per_ip") {
                // Whoever sets one of the two need not know of the other.
                Origin::Default => self.config.limits.connections_per_ip = config.limits.connections,
                _ => self.problem_at("limits.connections_per_ip", "is more than `limits.connections`".into()),
            }
        }
        let turn = &config.turn;
        if turn.min_port > turn.max_port {
            self.problem_at("turn.min_port", "is above `turn.max_port`".into());
        }
        if turn.tls_cert.is_some() != turn.tls_key.is_some() {
            self.problem_at("turn.tls_cert", "`turn.tls_cert` and `turn.tls_key` need each other".into());
        }
        if turn.enabled && turn.transports.is_empty() {
            self.problem_at("turn.transports", "is empty: nobody could come".into());
        }
        if turn.enabled && turn.port == turn.tls_port && config.one_port.is_none() {
            self.problem_at("turn.tls_port", "is `turn.port`; UDP and DTLS need ports of their own".into());
        }
        self.check_alt_port();
        if let Some((name, oauth)) = self.coturn.clone().filter(|_| turn.oauth_keys.is_none()) {
            let is_for_nobody = turn.users.is_empty() && turn.users_file.is_none() && turn.shared_secrets.is_empty();
            if let Some(origin) = oauth {
                let message = "needs the keys of tokens, which coturn has in its database: name a file of them by --turn-oauth-keys";
                self.problem("oauth", origin, message.into());
            } else if is_for_nobody {
                let message = "nobody could use this server: give it a `user` or a `static-auth-secret`";
                self.problem("", Origin::File { name, line: 0 }, message.into());
            }
        }
        self.check_addresses("turn.listen", &turn.listen, |address| {
            address.is_multicast().then_some("is a multicast address")
        });
        self.check_addresses("turn.relay_addresses", &turn.relay_addresses, |address| match address {
            address if address.is_multicast() => Some("is a multicast address"),
            address if address.is_unspecified() => Some("is no address that relays could have"),
            _ => None,
        });
        let cpus = &config.media.cpus;
        if !cpus.is_empty() && !config.media.pin {
            self.problem_at("media.cpus", "needs `media.pin = true`".into());
        }
        if (1..cpus.len()).any(|index| cpus[..index].contains(&cpus[index])) {
            self.problem_at("media.cpus", "names a core twice".into());
        }
        if !cpus.is_empty() && usize::from(config.media.workers) > cpus.len() {
            let message = format!("{} cores for {} workers; give one each", cpus.len(), config.media.workers);
            self.problem_at("media.cpus", message);
        }
    }

    /// NAT discovery needs a UDP port that TURN does not have already.
    fn check_alt_port(&mut self) {
        let (turn, tls) = (&self.config.turn, &self.config.tls);
        let has = |transport| turn.transports.contains(&transport);
        let dtls = has(TurnTransport::Dtls) && (turn.tls_cert.is_some() || matches!(tls.mode(), TlsMode::Files { .. }));
        let port = turn.alt_port();
        let is_taken = port == turn.port || dtls && port == turn.tls_port;
        if !(turn.enabled && turn.nat_discovery && has(TurnTransport::Udp) && is_taken) {
            return;
        }
        // Whoever has a file of coturn's need not know of this; without it, what was served before goes on.
        match (&self.coturn, self.origin("turn.nat_discovery")) {
            (Some((name, _)), Origin::Default) => {
                let origin = Origin::File { name: name.clone(), line: 0 };
                let message = format!(
                    "NAT behaviour discovery (RFC 5780) is off: its port, {port}, is TURN's already; set another by `alt-listening-port`"
                );
                self.config.turn.nat_discovery = false;
                self.warnings.push(Problem { key: String::new(), origin, message });
            }
            _ => {
                let message = "is a port of TURN's already; NAT discovery needs one of its own";
                self.problem_at("turn.alt_port", message.into());
            }
        }
    }

    fn check_addresses(&mut self, path: &str, addresses: &[IpAddr], wrong: impl Fn(IpAddr) -> Option<&'static str>) {
        for (index, &address) in addresses.iter().enumerate() {
            if let Some(why) = wrong(address) {
                self.problem_at(path, format!("{address} {why}"));
            } else if addresses[..index].contains(&address) {
                self.problem_at(path, format!("{address} is named twice"));
            }
        }
        if addresses.len() > ADDRESSES_MAX {
            self.problem_at(path, format!("{} addresses are too many; the most is {ADDRESSES_MAX}", addresses.len()));
        }
    }

    fn origin(&self, path: &str) -> Origin {
        self.origins.get(path).cloned().unwrap_or(Origin::Default)
    }

    fn problem_at(&mut self, path: &str, message: String) {
        self.problem(path, self.origin(path), message);
    }

    fn problem(&mut self, key: &str, origin: Origin, message: String) {
        self.problems.push(Problem { key: key.into(), origin, message });
    }
}

/// Addresses that a worker has a socket on, and that an SDP lists.
pub(super) const ADDRESSES_MAX: usize = 16;

fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// `; did you mean …?` for the key or section that was probably meant.
fn suggestion(path: &str) -> String {
    let leaf = |path: &str| path.rsplit('.').next().unwrap_or_default().replace('-', "_");
    // The right name in the wrong section, or a flag's name in the file.
    let moved = KEYS.iter().find(|key| leaf(key.path) == leaf(path) || key.flag.replace('-', "_") == leaf(path));
    let sections = KEYS.iter().map(|key| key.section().to_string()).filter(|section| !section.is_empty());
    let near = match moved {
        Some(key) => Some(key.path.to_string()),
        None => nearest(path, KEYS.iter().map(|key| key.path.to_string()).chain(sections)),
    };
    near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

/// The candidate that differs from `word` in a third of its letters or less.
fn nearest(word: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    candidates
        .map(|candidate| (distance(word, &candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 4))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters to add, take away or change (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(128).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().take(128).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { name, line: 0 } => f.write_str(name),
            Origin::File { name, line } => write!(f, "{name}, line {line}"),
            Origin::Environment(variable) => write!(f, "environment {variable}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.as_str(), &self.origin) {
            ("", origin) => write!(f, "{origin}: {}", self.message),
            (key, Origin::Environment(variable)) if key == variable => write!(f, "{variable}: {}", self.message),
            (key, origin) => write!(f, "`{key}` ({origin}): {}", self.message),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is refused:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for ConfigError {}
