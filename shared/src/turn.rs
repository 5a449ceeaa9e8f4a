//! TURN (RFC 8656) as both planes speak of it: what a server is, who may use it, what allocations there are.
//!
//! Control reads the configuration and hands out credentials; the data plane checks them, relays, and tells what became of it.
//! A password never gets here: keys are derived from it once, at the edge.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::id::{PeerId, RoomId, TurnAllocationId, WorkerIndex};

/// Everything a TURN server is told, but where it listens: sockets are opened by the plane.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TurnSpec {
    /// REALM of the long-term credentials (RFC 8489 §9.2), 1–127 bytes. It is in every reply to a stranger: keep it short.
    pub realm: String,
    /// Users known from the start; [`TurnCommand::Add`] adds others.
    pub users: Vec<TurnCredential>,
    /// Secrets of time-limited credentials; the first that fits counts, so that one can follow another.
    pub secrets: Vec<TurnSecret>,
    /// Whose word is taken for clients that are no users here.
    pub third_party: Option<ThirdParty>,
    /// Answer STUN Binding requests of anyone, within the budget for strangers.
    pub binding: bool,
    /// Listeners over UDP, in the order in which the plane opened them; those by which clients can find out what their NAT does (RFC 5780)
    /// know of each other.
    pub discovery: Vec<Option<DiscoveryListener>>,
    /// When to offer SHA-256 keys.
    pub password_algorithms: PasswordAlgorithms,
    /// Whom clients may reach.
    pub peers: PeerPolicy,
    /// Where clients' peers see them.
    pub relay: RelaySpec,
    /// How much of it one user, and all together, may have, whichever workers they come to.
    pub quotas: TurnQuotas,
    /// For how long.
    pub lifetimes: TurnLifetimes,
    /// What is off unless wanted.
    pub features: TurnFeatures,
}

/// A listener, and the numbers of those from which its answers leave when a client wants that (RFC 5780 §6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiscoveryListener {
    /// As clients know it.
    pub announce: SocketAddr,
    /// It has another address and the same port.
    pub other_address: u16,
    /// It has the same address and another port.
    pub other_port: u16,
    /// It has another address and another port: OTHER-ADDRESS.
    pub other: u16,
}

/// When PASSWORD-ALGORITHMS and the nonce cookie that goes with them (RFC 8489 §9.2) are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum PasswordAlgorithms {
    /// Never: MD5 keys only.
    Never,
    /// Over streams, and over UDP where the reply stays within 1.6 times the request, so that strangers are no use as reflectors.
    #[default]
    WhenCheap,
    /// In every challenge.
    Always,
}

/// The long-term key of one user in both forms of RFC 8489 §18.5.1. It is as good as the password within its realm.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnKeys {
    /// MD5 of `username:realm:password`.
    pub md5: [u8; 16],
    /// SHA-256 of the same.
    pub sha256: [u8; 32],
}

impl fmt::Debug for TurnKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TurnKeys(…)")
    }
}

impl Drop for TurnKeys {
    fn drop(&mut self) {
        self.md5.zeroize();
        self.sha256.zeroize();
    }
}

/// The secret of time-limited credentials: the username is `expiry:user`, the password base64 of HMAC-SHA1 over it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnSecret(pub Vec<u8>);

impl fmt::Debug for TurnSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TurnSecret(…)")
    }
}

impl Drop for TurnSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Third-party authorization (RFC 7635): an authorization server gives its users tokens that it seals with a key which we share.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ThirdParty {
    /// THIRD-PARTY-AUTHORIZATION, 1–127 bytes: our name, for which tokens are made. It is in every challenge: keep it short.
    pub server_name: String,
    /// What they are sealed with.
    pub keys: Vec<TurnTokenKey>,
}

/// A key that seals tokens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TurnTokenKey {
    /// USERNAME of those who bring such a token, 1–508 bytes. Quotas are each token's own; in events all are the user `oauth:KID`.
    pub kid: String,
    /// The key itself.
    pub secret: TokenSecret,
    /// Nothing that was allocated by its tokens goes on from this moment on, seconds since 1970.
    pub expires: Option<u64>,
}

/// The algorithm of RFC 7635 §6.2, with its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenSecret {
    /// AEAD_AES_128_GCM (RFC 5116 §5.1).
    Aes128Gcm([u8; 16]),
    /// AEAD_AES_256_GCM (RFC 5116 §5.2).
    Aes256Gcm([u8; 32]),
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

impl Drop for TokenSecret {
    fn drop(&mut self) {
        match self {
            Self::Aes128Gcm(key) => key.zeroize(),
            Self::Aes256Gcm(key) => key.zeroize(),
        }
    }
}

/// One name that may allocate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TurnCredential {
    /// USERNAME, 1–508 bytes.
    pub username: String,
    /// What proves it.
    pub keys: TurnKeys,
    /// Whose quotas it uses up, and the name in events: several credentials may be one user's.
    pub user: String,
    /// The participant that it was made for.
    pub bound: Option<TurnBinding>,
    /// No Allocate after this moment, seconds since 1970; what is allocated may be refreshed until it is revoked.
    pub expires: Option<u64>,
}

/// Whom a credential was made for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct TurnBinding {
    /// In this room.
    pub room: RoomId,
    /// This participant.
    pub peer: PeerId,
}

/// Whom clients may reach. Our own listeners never.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PeerPolicy {
    /// Our own media addresses: always allowed, and reached without a socket.
    pub own_media: Vec<OwnMedia>,
    /// Where we listen for TURN, as clients name it: never allowed as a peer.
    pub listeners: Vec<SocketAddr>,
    /// Our host's addresses, as it has them and as it is known: what is behind them is no business of clients, unless `allow` says so.
    pub host: Vec<IpAddr>,
    /// Anyone who is not in a special-purpose range (RFC 6890 and its registries) may be a peer.
    pub open: bool,
    /// Relayed addresses of this server may be peers of each other (two clients that both relay).
    pub relayed: bool,
    /// Allowed even where `open` or the special ranges say no.
    pub allow: Vec<IpRange>,
    /// Denied whatever else says yes, but our own media.
    pub deny: Vec<IpRange>,
}

/// One of our own media addresses, as clients name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OwnMedia {
    /// As in our candidates.
    pub address: SocketAddr,
    /// Whose port it is.
    pub worker: WorkerIndex,
}

/// Addresses from the first to the last, of one family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct IpRange {
    first: IpAddr,
    last: IpAddr,
}

impl IpRange {
    /// `None` when the families differ or the last is before the first.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self { first, last })
    }

    /// The network of `prefix` bits that `address` is in. `None` when there are not so many bits.
    pub fn network(address: IpAddr, prefix: u8) -> Option<Self> {
        match address {
            IpAddr::V4(ip) if prefix <= 32 => {
                let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
                let bits = ip.to_bits();
                Self::new(IpAddr::V4((bits & !host).into()), IpAddr::V4((bits | host).into()))
            }
            IpAddr::V6(ip) if prefix <= 128 => {
                let host = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
                let bits = ip.to_bits();
                Self::new(IpAddr::V6((bits & !host).into()), IpAddr::V6((bits | host).into()))
            }
            _ => None,
        }
    }

    /// Whether the address is in it. An IPv4 address is in no range of IPv6, whatever its form.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && self.first <= address && address <= self.last
    }
}

/// Where relayed addresses come from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RelaySpec {
    /// At most one of each family is used: the first.
    pub addresses: Vec<RelayAddress>,
    /// The lowest relay port.
    pub port_min: u16,
    /// The highest.
    pub port_max: u16,
    /// Workers that are this server together, numbered from 0. Each may take any of the ports.
    pub workers: u16,
    /// One port for each allocation, or few for all.
    pub mode: RelayMode,
}

/// An address that relays, and what the world calls it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RelayAddress {
    /// Sockets are bound to it.
    pub bind: IpAddr,
    /// Clients are told it; differs from `bind` behind a 1:1 NAT.
    pub announce: IpAddr,
}

/// How allocations get their relayed addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RelayMode {
    /// A port each.
    PerAllocation,
    /// So many ports of each worker for all, told apart by their peers' addresses: of the allocations on one port, one at a time may talk
    /// to the same address and port. Fits few peers per client, and firewalls that open few ports.
    Shared(u16),
}

/// How much. Zero means no bound of this kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TurnQuotas {
    /// Allocations of one user; a reserved port counts as one.
    pub allocations_per_user: u32,
    /// Allocations that one user may make in a second, whatever becomes of them.
    pub allocates_per_user_second: u32,
    /// Allocations of all.
    pub allocations: u32,
    /// Peers' addresses that one allocation may have permissions for.
    pub permissions: u32,
    /// Channels of one allocation.
    pub channels: u32,
    /// Peers' TCP connections of one allocation, those on their way included.
    pub connections: u32,
    /// The same of all allocations of one user.
    pub connections_per_user: u32,
    /// Connections that one allocation may ask for or get in a second, lest it look for open ports with them, or peers keep us busy.
    pub connects_per_second: u32,
    /// Bits a second, both ways together, that one user's allocations relay.
    pub user_bps: u64,
    /// Bits a second, both ways together, that all relay.
    pub total_bps: u64,
    /// Replies a second to requests of one address that has proved nothing; ports do not count.
    pub replies_per_source: u32,
    /// Replies a second to all who have proved nothing.
    pub replies: u32,
}

impl Default for TurnQuotas {
    fn default() -> Self {
        Self {
            allocations_per_user: 4,
            allocates_per_user_second: 0,
            allocations: 0,
            permissions: 64,
            channels: 32,
            connections: 32,
            connections_per_user: 64,
            connects_per_second: 16,
            user_bps: 0,
            total_bps: 0,
            replies_per_source: 10,
            replies: 10_000,
        }
    }
}

/// How long things last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TurnLifetimes {
    /// An allocation that asks for nothing else (RFC 8656 §3.2: 600 s).
    pub allocation: Duration,
    /// The most that it may ask for.
    pub allocation_max: Duration,
    /// A permission (RFC 8656 §9: 300 s).
    pub permission: Duration,
    /// A channel (RFC 8656 §12: 600 s).
    pub channel: Duration,
    /// A nonce (RFC 8489 §9.2.4 leaves it open).
    pub nonce: Duration,
    /// A reserved port (RFC 8656 §7.2: 30 s).
    pub reservation: Duration,
}

impl Default for TurnLifetimes {
    fn default() -> Self {
        Self {
            allocation: Duration::from_secs(600),
            allocation_max: Duration::from_secs(3600),
            permission: Duration::from_secs(300),
            channel: Duration::from_secs(600),
            nonce: Duration::from_secs(600),
            reservation: Duration::from_secs(30),
        }
    }
}

/// Parts of TURN that few need.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TurnFeatures {
    /// EVEN-PORT and RESERVATION-TOKEN (RFC 8656 §7).
    pub even_port: bool,
    /// Allocations that follow their client to another address (RFC 8016).
    pub mobility: bool,
    /// Relayed addresses of TCP, for clients that come by TCP or TLS (RFC 6062).
    pub tcp_relay: bool,
}

/// How a client reaches us.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum TurnTransport {
    /// `turn:…?transport=udp`
    Udp,
    /// `turn:…?transport=tcp`
    Tcp,
    /// `turns:…?transport=tcp`
    Tls,
    /// `turns:…?transport=udp`
    Dtls,
}

/// What is spoken between a relayed address and its peers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum RelayProtocol {
    /// Datagrams (RFC 8656).
    Udp,
    /// Connections (RFC 6062).
    Tcp,
}

/// One order to the TURN server.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum TurnCommand {
    /// Be a server, or be another one from now on. Allocations that exist go on under the new rules; those of users and keys of tokens
    /// that are gone, or are others of the same name, end.
    Configure(Box<TurnSpec>),
    /// Accept a credential; one of the same username is replaced.
    Add(TurnCredential),
    /// Accept a username no longer, and end what it has allocated.
    Revoke {
        /// USERNAME.
        username: String,
    },
    /// End an allocation.
    Kill {
        /// Which.
        allocation: TurnAllocationId,
    },
    /// The wall clock has been set right: what others say of time is judged by it from now on. What control says of time, in
    /// [`TurnCredential::expires`], goes by the clock of the start, which control has too.
    Clock {
        /// Nanoseconds since 1970 at `Now(0)`.
        unix_nanos_at_start: u64,
    },
    /// Refuse new allocations with 508, let the others end; or accept again.
    Drain(bool),
    /// List every allocation, answered by one [`TurnEvent::Snapshot`] per worker.
    Snapshot {
        /// Comes back in the answer.
        request: u64,
    },
}

/// One fact of the TURN server.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum TurnEvent {
    /// An allocation was made.
    Opened(TurnAllocation),
    /// It will last longer.
    Refreshed(TurnAllocation),
    /// It is over.
    Ended {
        /// As it was at the end.
        allocation: TurnAllocation,
        /// Why.
        reason: TurnEnd,
    },
    /// The answer to [`TurnCommand::Snapshot`].
    Snapshot {
        /// As asked.
        request: u64,
        /// Who answers.
        worker: WorkerIndex,
        /// Every allocation.
        allocations: Vec<TurnAllocation>,
    },
}

/// Why an allocation ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum TurnEnd {
    /// Its client said so.
    Released,
    /// It was not refreshed.
    Expired,
    /// Its credential was revoked.
    Revoked,
    /// An order of control.
    Killed,
    /// The client's TCP, TLS or DTLS connection ended.
    Disconnected,
}

/// One allocation as it stands.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TurnAllocation {
    /// Its name.
    pub id: TurnAllocationId,
    /// Whose quotas it uses.
    pub user: String,
    /// The participant, for credentials that are made for one.
    pub bound: Option<TurnBinding>,
    /// Where its client is.
    pub client: SocketAddr,
    /// How it reaches us.
    pub transport: TurnTransport,
    /// How its peers reach it.
    pub protocol: RelayProtocol,
    /// What its peers see, as announced; one or one of each family.
    pub relayed: Vec<SocketAddr>,
    /// Seconds until it ends unless refreshed.
    pub lifetime_s: u32,
    /// Addresses that it may talk to now.
    pub permissions: u32,
    /// Channels that it has now.
    pub channels: u32,
    /// Relay sockets that are open for it; none while it talks to our own media only.
    pub sockets: u32,
    /// Peers' TCP connections, those on their way included.
    pub connections: u32,
    /// What it relayed.
    pub traffic: TurnTraffic,
}

/// What was relayed: payload, without TURN's headers. Over TCP there are bytes and no datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TurnTraffic {
    /// Datagrams from clients to peers.
    pub to_peers: u64,
    /// Their bytes.
    pub to_peers_bytes: u64,
    /// Datagrams from peers to clients.
    pub to_clients: u64,
    /// Their bytes.
    pub to_clients_bytes: u64,
    /// Datagrams of both ways that took no relay socket, because the peer was our own media or another client of ours.
    pub shortcut: u64,
}

/// Counters of one worker's TURN server since it started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TurnStats {
    /// Live allocations.
    pub allocations: u64,
    /// Allocations ever made.
    pub allocated: u64,
    /// Allocates refused because their user had made too many in that second.
    pub hasty: u64,
    /// Relay sockets open.
    pub sockets: u64,
    /// Peers' TCP connections, those on their way included.
    pub connections: u64,
    /// Such connections that were ever made, by either side.
    pub connected: u64,
    /// What was relayed.
    pub traffic: TurnTraffic,
    /// Binding requests answered.
    pub bindings: u64,
    /// Challenges and refusals sent to those who had proved nothing.
    pub challenges: u64,
    /// Tokens of keys that are not there, or are over.
    pub tokens_of_unknown_keys: u64,
    /// Tokens that their key did not seal, or not for this server.
    pub tokens_not_ours: u64,
    /// Tokens that are over, or of the future.
    pub tokens_over: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_first_and_last_address_and_none_beside_them() {
        let range = IpRange::network("10.1.2.3".parse().unwrap(), 8).unwrap();
        for (address, inside) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("9.255.255.255", false),
            ("11.0.0.0", false),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(range.contains(address.parse().unwrap()), inside, "{address}");
        }
        assert!(IpRange::network("::".parse().unwrap(), 0).unwrap().contains("ff::1".parse().unwrap()));
        assert_eq!(IpRange::network("1.2.3.4".parse().unwrap(), 33), None);
        assert_eq!(IpRange::new("2.0.0.0".parse().unwrap(), "1.0.0.0".parse().unwrap()), None);
        assert_eq!(IpRange::new("1.0.0.0".parse().unwrap(), "::2".parse().unwrap()), None);
    }

    #[test]
    fn what_is_secret_is_not_printed() {
        let keys = TurnKeys { md5: [7; 16], sha256: [7; 32] };
        assert_eq!(format!("{keys:?} {:?}", TurnSecret(b"hush".to_vec())), "TurnKeys(…) TurnSecret(…)");
        assert_eq!(format!("{:?}", TokenSecret::Aes128Gcm([7; 16])), "TokenSecret(…)");
    }
}
