//! Whom clients may reach. Every way to a peer passes [`Peers::permit`], which alone makes a [`PermittedPeer`]; nothing else can be
//! sent to.
//!
//! An address is judged in all its meanings: one that holds another (IPv4-mapped, 6to4, NAT64, ISATAP, …) is as bad as the worst of
//! them. Of IPv6, only what is surely a unicast address of the internet passes without the operator's word.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use arrayvec::ArrayVec;
use foldhash::fast::RandomState;
use ringmain_shared::DropReason;
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::turn::{IpRange, PeerPolicy, RelaySpec};

/// A peer that the rules allow, in the one form that we send to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct PermittedPeer {
    address: SocketAddr,
    media: Option<WorkerIndex>,
    relayed: bool,
}

impl PermittedPeer {
    /// Where datagrams to it go.
    pub(super) fn address(self) -> SocketAddr {
        self.address
    }

    /// It is a media address of our own, and this worker's.
    pub(super) fn media(self) -> Option<WorkerIndex> {
        self.media
    }

    /// It has an address and port that this server relays from, on this worker or another.
    pub(super) fn is_relayed(self) -> bool {
        self.relayed
    }
}

/// The rules.
#[derive(Debug)]
pub(super) struct Peers {
    /// Our own media addresses, and whose they are.
    media: HashMap<SocketAddr, WorkerIndex, RandomState>,
    listeners: HashSet<SocketAddr, RandomState>,
    host: HashSet<IpAddr, RandomState>,
    open: bool,
    relayed: bool,
    allow: Vec<IpRange>,
    deny: Vec<IpRange>,
    /// Announced and bound address of each family that relays.
    relays: ArrayVec<(IpAddr, IpAddr), 2>,
    ports: std::ops::RangeInclusive<u16>,
}

impl Peers {
    pub(super) fn new(policy: &PeerPolicy, relay: &RelaySpec) -> Self {
        let mut relays = ArrayVec::new();
        for address in &relay.addresses {
            let family_is_new = |relays: &ArrayVec<(IpAddr, IpAddr), 2>| {
                relays.iter().all(|(announce, _)| announce.is_ipv4() != address.announce.is_ipv4())
            };
            if family_is_new(&relays) {
                let _ = relays.try_push((address.announce, address.bind));
            }
        }
        Self {
            media: policy.own_media.iter().map(|media| (canonical(media.address), media.worker)).collect(),
            listeners: policy.listeners.iter().copied().map(canonical).collect(),
            host: policy.host.iter().map(IpAddr::to_canonical).collect(),
            open: policy.open,
            relayed: policy.relayed,
            allow: policy.allow.clone(),
            deny: policy.deny.clone(),
            relays,
            ports: relay.port_min..=relay.port_max,
        }
    }

    /// There is media of our own to reach, so that clients may never need a relay socket.
    pub(super) fn has_own(&self) -> bool {
        !self.media.is_empty()
    }

    /// The only way to a peer.
    pub(super) fn permit(&self, named: SocketAddr) -> Result<PermittedPeer, DropReason> {
        let address = canonical(named);
        if let Some(&worker) = self.media.get(&address) {
            return Ok(PermittedPeer { address, media: Some(worker), relayed: false });
        }
        let ip = address.ip();
        let is_relayed = self.ports.contains(&address.port()) && self.is_relay(ip);
        let allowed = address.port() != 0
            && !self.listeners.contains(&address)
            && if is_relayed { self.relayed && !self.is_denied(ip) } else { self.allows(ip) };
        match allowed {
            true => Ok(PermittedPeer { address: self.inner(address), media: None, relayed: is_relayed }),
            false => Err(DropReason::TurnPeerForbidden),
        }
    }

    /// The only way to a peer over TCP, and from one. Our media is reached by UDP: what is on its ports by TCP is something else.
    pub(super) fn permit_tcp(&self, named: SocketAddr) -> Result<PermittedPeer, DropReason> {
        let peer = self.permit(named)?;
        if peer.media.is_some() { Err(DropReason::TurnPeerForbidden) } else { Ok(peer) }
    }

    /// Whether any port of this address may be a peer, as permissions are by address (RFC 8656 §9).
    pub(super) fn permit_ip(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let media = || self.media.keys().any(|media| media.ip() == ip);
        self.allows(ip) || (self.relayed && self.is_relay(ip) && !self.is_denied(ip)) || media()
    }

    /// Whether something of ours listens or relays there.
    pub(super) fn is_ours(&self, named: SocketAddr) -> bool {
        let address = canonical(named);
        let is_relayed = self.ports.contains(&address.port()) && self.is_relay(address.ip());
        is_relayed || self.media.contains_key(&address) || self.listeners.contains(&address)
    }

    /// The address as we see its datagrams come: what we announce is bound elsewhere behind a 1:1 NAT.
    pub(super) fn inner(&self, address: SocketAddr) -> SocketAddr {
        let bound = self.relays.iter().find(|(announce, bind)| *announce == address.ip() && !bind.is_unspecified());
        bound.map_or(address, |&(_, bind)| SocketAddr::new(bind, address.port()))
    }

    /// And as clients name it.
    pub(super) fn outer(&self, address: SocketAddr) -> SocketAddr {
        let announced = self.relays.iter().find(|(_, bind)| *bind == address.ip());
        announced.map_or(address, |&(announce, _)| SocketAddr::new(announce, address.port()))
    }

    /// What each family is announced as, and bound to.
    pub(super) fn relays(&self) -> &[(IpAddr, IpAddr)] {
        &self.relays
    }

    /// Behind a relay's address, announced or bound, are our own host's services. To them, as to those behind its other addresses,
    /// `open` does not lead, only the operator's word for the address as it is named and as datagrams are sent to it.
    fn allows_relay(&self, ip: IpAddr) -> bool {
        let bound = self.inner(SocketAddr::new(ip, 0)).ip();
        [ip, bound].into_iter().all(|ip| self.is_named(ip) && !self.is_denied(ip))
    }

    fn is_named(&self, ip: IpAddr) -> bool {
        self.allow.iter().any(|range| range.contains(ip))
    }

    /// Whether `open` leads there.
    fn is_open(&self, ip: IpAddr) -> bool {
        self.open && !is_special(ip) && !self.is_relay(ip) && !self.host.contains(&ip)
    }

    fn is_relay(&self, ip: IpAddr) -> bool {
        self.relays.iter().any(|&(announce, bind)| ip == announce || ip == bind)
    }

    fn is_denied(&self, ip: IpAddr) -> bool {
        meanings(ip).iter().any(|&meaning| self.deny.iter().any(|range| range.contains(meaning)))
    }

    fn allows(&self, ip: IpAddr) -> bool {
        if self.is_relay(ip) {
            return self.allows_relay(ip);
        }
        let is_allowed = |meaning: IpAddr| self.is_named(meaning) || self.is_open(meaning);
        !self.is_denied(ip) && meanings(ip).iter().all(|&meaning| is_allowed(meaning))
    }
}

/// An IPv4 address has one form: its own.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The address, and every IPv4 address that a translator or tunnel on the way may read in it.
fn meanings(ip: IpAddr) -> ArrayVec<IpAddr, 4> {
    let mut meanings = ArrayVec::new();
    meanings.push(ip.to_canonical());
    let IpAddr::V6(v6) = ip.to_canonical() else { return meanings };
    let bits = v6.to_bits();
    let low = bits as u32;
    let words = v6.segments();
    let mut embedded = |bits: u32| {
        let _ = meanings.try_push(IpAddr::V4(Ipv4Addr::from_bits(bits)));
    };
    // RFC 4291 §2.5.5.1 (compatible), RFC 2765 §2.1 (translated), RFC 6052 §2.1 (NAT64).
    if bits >> 32 == 0 || bits >> 32 == 0xffff_0000 || words[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        embedded(low);
    }
    // RFC 3056 §2 (6to4).
    if words[0] == 0x2002 {
        embedded((bits >> 80) as u32);
    }
    // RFC 5214 §6.1 (ISATAP), under any prefix.
    if words[4] & !0x0200 == 0 && words[5] == 0x5efe {
        embedded(low);
    }
    meanings
}

/// Whether an address is in a range that is no place of a host on the internet: private, shared, reserved, for documentation.
pub fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => SPECIAL_V4
            .iter()
            .any(|&(network, prefix)| ip.to_bits() >> (32 - prefix) == u32::from_be_bytes(network) >> (32 - prefix)),
        // Translated addresses are judged by the IPv4 address in them.
        IpAddr::V6(ip) if ip.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => false,
        IpAddr::V6(ip) => {
            let in_network = |&(network, prefix): &(Ipv6Addr, u32)| {
                ip.to_bits() >> (128 - prefix) == network.to_bits() >> (128 - prefix)
            };
            // RFC 4291 §2.4: global unicast is allocated from 2000::/3.
            ip.segments()[0] >> 13 != 1 || SPECIAL_V6.iter().any(in_network)
        }
    }
}

/// The IANA IPv4 special-purpose registry as a whole, multicast, and what serves clouds' metadata outside of them.
const SPECIAL_V4: &[([u8; 4], u32)] = &[
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([168, 63, 129, 16], 32), // Azure's host services
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 31, 196, 0], 24),
    ([192, 52, 193, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([192, 175, 48, 0], 24),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// What of 2000::/3 is in the IANA IPv6 special-purpose registry; 6to4 is judged by what it holds.
const SPECIAL_V6: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo among them
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

#[cfg(test)]
mod tests;
