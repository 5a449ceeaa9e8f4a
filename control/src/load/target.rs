//! Which server is loaded, and whether that is allowed: a load generator that is aimed at somebody else's host is a weapon,
//! so it takes addresses of this host (or of the network namespace that it runs in) only, unless told otherwise.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use crate::app::host;

/// A server's signalling.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    /// As given, for the HTTP request.
    pub(super) url: String,
    pub(super) address: SocketAddr,
    /// The name that its certificate must be for, when the address asks for TLS.
    pub(super) tls_name: Option<String>,
    allowed: Allowed,
}

/// Who may be sent to.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Allowed {
    Everyone,
    /// These, and loopback.
    Own(Vec<IpAddr>),
}

impl Target {
    /// Looks up where `url` (`ws://HOST[:PORT]/PATH`, or `wss://`) is, and refuses what is not on this host.
    pub(super) fn find(url: &str, is_foreign_allowed: bool) -> anyhow::Result<Self> {
        let plain = url.strip_prefix("ws://").map(|rest| (rest, false));
        let (rest, is_tls) = plain
            .or_else(|| url.strip_prefix("wss://").map(|rest| (rest, true)))
            .ok_or_else(|| anyhow::anyhow!("{url}: give the address as ws://HOST:PORT/ws or wss://HOST:PORT/ws"))?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let host = authority.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map(|(host, _)| host);
        let with_port = match host {
            Some(_) => authority.to_owned(),
            None => format!("{authority}:{}", if is_tls { 443 } else { 80 }),
        };
        let found =
            with_port.to_socket_addrs().map_err(|error| anyhow::anyhow!("cannot look up {authority}: {error}"))?;
        let found: Vec<SocketAddr> = found.collect();
        let allowed = if is_foreign_allowed { Allowed::Everyone } else { Allowed::Own(host::addresses()?) };
        // A name with a local and a foreign address is not a local name.
        if let Some(foreign) = found.iter().find(|address| !allowed.has(address.ip())) {
            anyhow::bail!("{}", refusal(foreign.ip()));
        }
        let v4_first = found.iter().find(|address| address.is_ipv4()).or(found.first());
        let address = *v4_first.ok_or_else(|| anyhow::anyhow!("{authority} has no address"))?;
        let url = if rest.contains('/') { url.to_owned() } else { format!("{url}/ws") };
        let tls_name = is_tls.then(|| host.unwrap_or(authority).to_owned());
        Ok(Self { url, address, tls_name, allowed })
    }

    /// Sorts a server's candidates: the address of its signalling first. Foreign ones are left out; when nothing remains of
    /// some, that is said.
    pub(super) fn candidates(&self, offered: &[SocketAddr]) -> Result<Vec<SocketAddr>, String> {
        let reachable = |candidate: &&SocketAddr| candidate.is_ipv4() == self.address.is_ipv4();
        let allowed = |candidate: &&SocketAddr| self.allowed.has(candidate.ip());
        let mut candidates: Vec<SocketAddr> = offered.iter().filter(reachable).filter(allowed).copied().collect();
        candidates.sort_by_key(|candidate| candidate.ip() != self.address.ip());
        match offered.iter().find(|candidate| !allowed(candidate)) {
            Some(foreign) if candidates.is_empty() => {
                Err(format!("the server wants media sent elsewhere: {}", refusal(foreign.ip())))
            }
            _ => Ok(candidates),
        }
    }

    /// The address that client `number` comes from. On loopback they are spread over many, so that limits per address and
    /// the number of ports do not bound the load; elsewhere the route decides.
    pub(super) fn source(&self, number: u32) -> Option<IpAddr> {
        match self.address.ip() {
            IpAddr::V4(address) if address.is_loopback() => {
                Some(IpAddr::from([127, 0, 0, 1 + (number % SOURCE_ADDRESSES) as u8]))
            }
            _ => None,
        }
    }
}

impl Allowed {
    /// Every address of 127.0.0.0/8 is this host's.
    fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self {
            Self::Everyone => true,
            Self::Own(own) => address.is_loopback() || own.contains(&address),
        }
    }
}

fn refusal(address: IpAddr) -> String {
    format!(
        "{address} is not an address of this host, and load on other people's hosts is an attack. Run this where the server \
         runs, or in a network namespace beside it; if that host is yours and may be flooded, say --yes-really"
    )
}

const SOURCE_ADDRESSES: u32 = 250;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_targets_are_refused_unless_really_meant() {
        for url in ["ws://192.0.2.1:7000/ws", "ws://[2001:db8::1]:7000/ws", "ws://192.0.2.1"] {
            let error = Target::find(url, false).expect_err(url).to_string();
            assert!(error.contains("--yes-really") && error.contains("not an address of this host"), "{error}");
            assert!(Target::find(url, true).is_ok(), "{url}");
        }
    }

    #[test]
    fn targets_on_this_host_are_found_with_port_and_path() {
        for (url, address, full) in [
            ("ws://127.0.0.1:7000/ws", "127.0.0.1:7000", "ws://127.0.0.1:7000/ws"),
            ("ws://127.9.8.7:1", "127.9.8.7:1", "ws://127.9.8.7:1/ws"),
            ("ws://[::1]:7000/other?x", "[::1]:7000", "ws://[::1]:7000/other?x"),
            ("ws://localhost/ws", "127.0.0.1:80", "ws://localhost/ws"),
            ("wss://localhost", "127.0.0.1:443", "wss://localhost/ws"),
            ("wss://[::1]:7000/ws", "[::1]:7000", "wss://[::1]:7000/ws"),
        ] {
            let target = Target::find(url, false).expect(url);
            assert_eq!((target.address.to_string().as_str(), target.url.as_str()), (address, full));
            let name = url.strip_prefix("wss://").map(|rest| if rest.starts_with('[') { "[::1]" } else { "localhost" });
            assert_eq!(target.tls_name.as_deref(), name);
        }
        assert!(Target::find("https://127.0.0.1:7000/ws", false).is_err());
        assert!(Target::find("ws://:7000", false).is_err());
    }

    #[test]
    fn a_servers_foreign_candidates_are_not_sent_to() {
        let target = Target::find("ws://127.0.0.1:7000/ws", false).expect("loopback");
        let parse = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let mixed = [parse("192.0.2.1:5000"), parse("127.0.0.9:5000"), parse("[::1]:5000"), parse("127.0.0.1:5000")];
        assert_eq!(target.candidates(&mixed), Ok(vec![parse("127.0.0.1:5000"), parse("127.0.0.9:5000")]));
        assert!(target.candidates(&mixed[..1]).is_err_and(|error| error.contains("--yes-really")));
        assert_eq!(target.candidates(&[]), Ok(Vec::new()), "they may be trickled");
    }

    #[test]
    fn clients_on_loopback_are_spread_over_addresses() {
        let target = Target::find("ws://127.0.0.1:7000/ws", false).expect("loopback");
        let source = |number| target.source(number).map(|address| address.to_string());
        assert_eq!(source(0).as_deref(), Some("127.0.0.1"));
        assert_eq!(source(249).as_deref(), Some("127.0.0.250"));
        assert_eq!(source(250).as_deref(), Some("127.0.0.1"));
    }
}
