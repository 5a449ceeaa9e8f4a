//! The settings of the TURN server (RFC 8656), and the values that only it has: ranges of addresses, and secrets, which are never
//! shown again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use ringmain_shared::turn::IpRange;

use super::value::Value;

/// Settings of the TURN server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Turn {
    /// Serve TURN at all.
    pub enabled: bool,
    /// Local addresses to listen on; empty is where media listens.
    pub listen: Vec<IpAddr>,
    /// UDP and TCP port.
    pub port: u16,
    /// Port of TLS (TCP) and DTLS (UDP), where there is a certificate.
    pub tls_port: u16,
    /// What clients may come by.
    pub transports: Vec<TurnTransport>,
    /// Realm of the credentials.
    pub realm: String,
    /// Users that do not expire.
    pub users: Vec<User>,
    /// A file with more of them.
    pub users_file: Option<PathBuf>,
    /// Secrets that time-limited credentials are made with; the first is for those that we make.
    pub shared_secrets: Vec<Secret>,
    /// A file with the keys of tokens (RFC 7635).
    pub oauth_keys: Option<PathBuf>,
    /// What tokens are made for; `None` is the realm.
    pub server_name: Option<String>,
    /// Name or address in the URLs that clients are told; `None` is an announced address, or a local one.
    pub host: Option<String>,
    /// What clients are told instead of relay addresses; empty is what `announce` says.
    pub external: Vec<External>,
    /// Local addresses that relay, at most one of each family; empty chooses from where TURN listens.
    pub relay_addresses: Vec<IpAddr>,
    /// Lowest relay port.
    pub min_port: u16,
    /// Highest relay port.
    pub max_port: u16,
    /// Ports that all allocations share; 0 is a port for each.
    pub shared_ports: u16,
    /// Whom clients may reach.
    pub peers: TurnPeers,
    /// Peers that are allowed whatever `peers` says.
    pub allow_peers: Vec<PeerRange>,
    /// Peers that are denied whatever else allows them.
    pub deny_peers: Vec<PeerRange>,
    /// Allocations of one user; 0 is no limit.
    pub user_allocations: u32,
    /// Allocations that one user may make in a second; 0 is no limit.
    pub user_allocations_per_second: u32,
    /// Allocations of all; 0 is no limit.
    pub allocations: u32,
    /// Bits a second of one user, both ways; 0 is no limit.
    pub user_rate_bps_max: u64,
    /// Bits a second of all, both ways; 0 is no limit.
    pub rate_bps_max: u64,
    /// How long a credential that signalling hands out may be used for new allocations.
    pub credential_lifetime: Duration,
    /// The most that an allocation may ask for.
    pub allocation_lifetime_max: Duration,
    /// Of a permission.
    pub permission_lifetime: Duration,
    /// Of a channel.
    pub channel_lifetime: Duration,
    /// Of a nonce.
    pub nonce_lifetime: Duration,
    /// Answer STUN Binding requests of strangers.
    pub binding: bool,
    /// Let clients find out what their NAT does (RFC 5780), by Binding requests.
    pub nat_discovery: bool,
    /// The other UDP port for that; 0 is the one after `port`.
    pub alt_port: u16,
    /// EVEN-PORT and RESERVATION-TOKEN.
    pub even_port: bool,
    /// RFC 8016.
    pub mobility: bool,
    /// Relay TCP to peers (RFC 6062).
    pub tcp_relay: bool,
    /// TCP connections of one user with peers; 0 is no limit.
    pub user_connections: u32,
    /// Certificate of TLS and DTLS; `None` is the page's.
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: Vec::new(),
            port: 3478,
            tls_port: 5349,
            transports: TURN_TRANSPORTS.iter().map(|(_, transport)| *transport).collect(),
            realm: "ringmain".into(),
            users: Vec::new(),
            users_file: None,
            shared_secrets: Vec::new(),
            oauth_keys: None,
            server_name: None,
            host: None,
            external: Vec::new(),
            relay_addresses: Vec::new(),
            min_port: 49_152,
            max_port: 65_535,
            shared_ports: 0,
            peers: TurnPeers::Own,
            allow_peers: Vec::new(),
            deny_peers: Vec::new(),
            // A browser makes one for each connection, URL and network: two connections, three URLs, Wi-Fi and cable are twelve.
            user_allocations: 16,
            user_allocations_per_second: 32,
            allocations: 0,
            user_rate_bps_max: 0,
            rate_bps_max: 0,
            credential_lifetime: Duration::from_secs(600),
            allocation_lifetime_max: Duration::from_secs(3600),
            permission_lifetime: Duration::from_secs(300),
            channel_lifetime: Duration::from_secs(600),
            nonce_lifetime: Duration::from_secs(600),
            binding: false,
            nat_discovery: false,
            alt_port: 0,
            even_port: false,
            mobility: false,
            tcp_relay: false,
            user_connections: 64,
            tls_cert: None,
            tls_key: None,
        }
    }
}

impl Turn {
    /// The other UDP port of NAT behaviour discovery.
    pub fn alt_port(&self) -> u16 {
        let mut following = (self.port..=u16::MAX)
            .chain((1..self.port).rev())
            .filter(|port| ![self.port, self.tls_port].contains(port));
        match self.alt_port {
            0 => following.next().unwrap_or_default(),
            port => port,
        }
    }
}

/// What a client may come by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TurnTransport {
    /// Plain UDP.
    Udp,
    /// Plain TCP.
    Tcp,
    /// TLS.
    Tls,
    /// DTLS.
    Dtls,
}

/// Their names.
pub(super) const TURN_TRANSPORTS: &[(&str, TurnTransport)] = &[
    ("udp", TurnTransport::Udp),
    ("tcp", TurnTransport::Tcp),
    ("tls", TurnTransport::Tls),
    ("dtls", TurnTransport::Dtls),
];

/// Whom clients may reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TurnPeers {
    /// This server's own media.
    Own,
    /// Anyone on the internet.
    Open,
}

/// A user that does not expire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// USERNAME.
    pub name: String,
    /// What it proves itself with.
    pub password: Secret,
}

/// A text that is not for others: it has no form in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a relay address is called outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct External {
    /// As clients are told.
    pub public: IpAddr,
    /// As sockets are bound; `None` is the relay address of the same family.
    pub private: Option<IpAddr>,
}

impl fmt::Display for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.private {
            Some(private) => write!(f, "{}/{private}", self.public),
            None => self.public.fmt(f),
        }
    }
}

/// Addresses from the first to the last, of one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerRange {
    /// The lowest.
    pub first: IpAddr,
    /// The highest.
    pub last: IpAddr,
}

impl PeerRange {
    /// `10.0.0.0/8`, `10.0.0.1-10.0.0.9` or `10.0.0.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let address = |text: &str| text.trim().parse::<IpAddr>().ok();
        if let Some((first, last)) = text.split_once('-') {
            let range = Self { first: address(first)?, last: address(last)? };
            return range.in_shared().map(|_| range);
        }
        let Some((network, prefix)) = text.split_once('/') else {
            return address(text).map(|address| Self { first: address, last: address });
        };
        let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u32 = prefix.parse().ok().filter(|_| digits)?;
        match address(network)? {
            IpAddr::V4(network) if prefix <= 32 => {
                let host = u32::MAX.checked_shr(prefix).unwrap_or(0);
                let bits = network.to_bits();
                Some(Self {
                    first: Ipv4Addr::from_bits(bits & !host).into(),
                    last: Ipv4Addr::from_bits(bits | host).into(),
                })
            }
            IpAddr::V6(network) if prefix <= 128 => {
                let host = u128::MAX.checked_shr(prefix).unwrap_or(0);
                let bits = network.to_bits();
                Some(Self {
                    first: Ipv6Addr::from_bits(bits & !host).into(),
                    last: Ipv6Addr::from_bits(bits | host).into(),
                })
            }
            _ => None,
        }
    }

    /// In the words of both planes.
    pub fn in_shared(&self) -> Option<IpRange> {
        IpRange::new(self.first, self.last)
    }

    /// What of this range is not in the other: nothing, one range or two.
    pub fn without(&self, other: &Self) -> Vec<Self> {
        if self.first.is_ipv4() != other.first.is_ipv4() || other.last < self.first || other.first > self.last {
            return vec![*self];
        }
        let mut rest = Vec::new();
        if let Some(last) = neighbour(other.first, false).filter(|last| *last >= self.first) {
            rest.push(Self { first: self.first, last });
        }
        if let Some(first) = neighbour(other.last, true).filter(|first| *first <= self.last) {
            rest.push(Self { first, last: self.last });
        }
        rest
    }
}

/// The next address, or the one before; `None` at the end of the family.
fn neighbour(address: IpAddr, up: bool) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            let bits = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
            bits.map(|bits| Ipv4Addr::from_bits(bits).into())
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let bits = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
            bits.map(|bits| Ipv6Addr::from_bits(bits).into())
        }
    }
}

impl fmt::Display for PeerRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// What stands where a secret would.
pub(super) const SET: &str = "set";

/// `NAME:PASSWORD`. The text itself is in no message.
pub(super) fn user(value: &Value) -> Result<User, String> {
    let text = secret_text(value)?;
    user_of(text).ok_or_else(|| "a user is written as \"NAME:PASSWORD\"".into())
}

/// The two halves of `NAME:PASSWORD`.
pub fn user_of(text: &str) -> Option<User> {
    let (name, password) = text.split_once(':')?;
    // RFC 8489 §14.3: a USERNAME is of at most 508 bytes.
    let fits = !name.is_empty() && name.len() <= 508 && !password.is_empty();
    fits.then(|| User { name: name.into(), password: Secret(password.into()) })
}

/// A shared secret.
pub(super) fn secret(value: &Value) -> Result<Secret, String> {
    match secret_text(value)? {
        short if short.len() < SECRET_SIZE_MIN => {
            Err(format!("a shared secret has at least {SECRET_SIZE_MIN} characters"))
        }
        text => Ok(Secret(text.into())),
    }
}

fn secret_text(value: &Value) -> Result<&str, String> {
    match value {
        Value::Raw(text) | Value::Text(text) if text == SET => {
            Err("\"set\" is how a secret is shown; write the secret itself".into())
        }
        Value::Raw(text) | Value::Text(text) => Ok(text),
        _ => Err("is not text; put it in quotes".into()),
    }
}

/// What can be tried out is no secret; coturn's own examples use five letters, and files for coturn are taken as they are.
const SECRET_SIZE_MIN: usize = 5;

/// A range of peers.
pub(super) fn range(value: &Value) -> Result<PeerRange, String> {
    PeerRange::parse(value.text()?).ok_or_else(|| {
        format!(
            "{value} is no range of addresses; write it as \"10.0.0.0/8\", \"10.0.0.1-10.0.0.9\" or \"2001:db8::/32\""
        )
    })
}

/// `PUBLIC` or `PUBLIC/PRIVATE`.
pub(super) fn external(value: &Value) -> Result<External, String> {
    let text = value.text()?;
    let (public, private) = text.split_once('/').map_or((text, None), |(public, private)| (public, Some(private)));
    let address = |text: &str| text.trim().parse::<IpAddr>();
    let wrong = |_| format!("{value} is neither an address nor \"PUBLIC/PRIVATE\"; names are not looked up");
    let external =
        External { public: address(public).map_err(wrong)?, private: private.map(address).transpose().map_err(wrong)? };
    match external.private {
        Some(private) if private.is_ipv4() != external.public.is_ipv4() => {
            Err(format!("{value} names addresses of two families"))
        }
        _ => Ok(external),
    }
}

/// A realm goes to strangers in every reply, and between quotes on its way through some clients.
pub(super) fn realm(value: &Value) -> Result<String, String> {
    let text = value.text()?;
    let fits = (1..=127).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"');
    if fits {
        Ok(text.into())
    } else {
        Err(format!("{value} is no realm: 1 to 127 printable ASCII characters, no quotes"))
    }
}

/// The name of this server, empty for the realm. It goes to strangers as well.
pub(super) fn server_name(value: &Value) -> Result<Option<String>, String> {
    if value.text()?.is_empty() {
        return Ok(None);
    }
    realm(value).map(Some).map_err(|why| why.replace("is no realm", "is no name of a server"))
}

/// A name or an address, as it stands in a URL (RFC 7065 §3.1).
pub(super) fn host(value: &Value) -> Result<Option<String>, String> {
    let text = value.text()?;
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Ok(Some(format!("[{address}]")));
    }
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte)) && text.len() <= 253 {
        return Ok(Some(text).filter(|text| !text.is_empty()).map(Into::into));
    }
    Err(format!("{value} is neither a host name nor an address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> PeerRange {
        PeerRange::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn ranges_are_networks_pairs_or_single_addresses_and_nothing_else() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0-10.255.255.255"),
            ("0.0.0.0/0", "0.0.0.0-255.255.255.255"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("192.0.2.7-192.0.2.9", "192.0.2.7-192.0.2.9"),
            ("2001:db8::/127", "2001:db8::-2001:db8::1"),
        ] {
            assert_eq!(range(text).to_string(), shown);
        }
        for text in
            ["10.0.0.0/33", "10.0.0.0/+8", "10/8", "2::/129", "2.0.0.0-1.0.0.0", "1.1.1.1-::1", "", "/8", "localhost"]
        {
            assert_eq!(PeerRange::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_taken_out_of_a_range_leaves_the_rest() {
        let without = |a: &str, b: &str| {
            range(a).without(&range(b)).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(without("10.0.0.0/8", "10.0.0.9"), "10.0.0.0-10.0.0.8 10.0.0.10-10.255.255.255");
        assert_eq!(without("10.0.0.0/8", "10.0.0.0/9"), "10.128.0.0-10.255.255.255");
        assert_eq!(without("10.0.0.0/8", "0.0.0.0/0"), "");
        assert_eq!(without("0.0.0.0/0", "255.255.255.255"), "0.0.0.0-255.255.255.254");
        assert_eq!(without("10.0.0.0/8", "11.0.0.1"), "10.0.0.0-10.255.255.255");
        assert_eq!(without("10.0.0.0/8", "::/0"), "10.0.0.0-10.255.255.255");
    }
}
