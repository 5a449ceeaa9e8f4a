//! CreatePermission and ChannelBind (RFC 8656 §10, §12): which peers may send to a client, and by what number it calls them.

use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;
use ringmain_shared::Now;
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::turn::RelayProtocol;

use super::Turn;
use super::allocation::{AllocationKey, BindError, Pending, Route};
use super::ledger::User;
use super::link::LinkIndex;
use super::relay::{Relay, RelayKey};
use super::reply::Refusal;
use super::request::Known;
use crate::buf::{Bandwidth, LinkBudgets, Prefix};
use crate::io::{SocketIndex, Transmit};
use crate::packet::stun::{Class, TransactionId, attribute, error};

/// Peers in one CreatePermission.
const PEERS_MAX: usize = 64;
/// Peers of an allocation on shared ports.
const CLAIMS_MAX: usize = 256;

impl Turn {
    pub(super) fn handle_create_permission(
        &mut self,
        known: &Known<'_>,
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), Refusal> {
        let (key, _) = self.owned(known)?;
        let mut ips = ArrayVec::<IpAddr, PEERS_MAX>::new();
        let mut relays = ArrayVec::<RelayKey, 2>::new();
        for named in known.message.xor_addresses(attribute::XOR_PEER_ADDRESS) {
            let named = named.ok_or(error::BAD_REQUEST)?;
            let permitted = self.peers.permit(named);
            if permitted.is_err() && !self.peers.permit_ip(named.ip()) {
                return Err(error::FORBIDDEN.into());
            }
            // The port does not count for the permission (RFC 8656 §9); whether there will be need of a socket it tells.
            let own = permitted.is_ok_and(|peer| peer.media().is_some());
            let address = permitted.map_or_else(|_| self.peers.inner(named), |peer| peer.address());
            let ip = address.ip().to_canonical();
            let relay = self.relay_of(key, ip.is_ipv4()).ok_or(error::PEER_ADDRESS_FAMILY_MISMATCH)?;
            ips.try_push(ip).map_err(|_| error::INSUFFICIENT_CAPACITY)?;
            if !own && !relays.contains(&relay) {
                let _ = relays.try_push(relay);
            }
        }
        if ips.is_empty() {
            return Err(error::BAD_REQUEST.into());
        }
        let until = now + self.spec.lifetimes.permission;
        let allocation = self.allocations.get_mut(key).ok_or(error::ALLOCATION_MISMATCH)?;
        if !allocation.has_room_for(&ips, self.spec.quotas.permissions, now) {
            return Err(error::INSUFFICIENT_CAPACITY.into());
        }
        ips.iter().for_each(|&ip| allocation.permit(ip, until));
        ips.iter().for_each(|&ip| self.share_permission(key, ip));
        self.set_links(key, now);
        self.finish_when_open(key, known, &relays, out)
    }

    pub(super) fn handle_channel_bind(
        &mut self,
        known: &Known<'_>,
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), Refusal> {
        let (key, allocation) = self.owned(known)?;
        // Channels carry datagrams.
        if allocation.protocol == RelayProtocol::Tcp {
            return Err(error::BAD_REQUEST.into());
        }
        let number = match known.message.attribute(attribute::CHANNEL_NUMBER) {
            Some(&[high, low, _, _]) => u16::from_be_bytes([high, low]),
            _ => return Err(error::BAD_REQUEST.into()),
        };
        let named = known.message.xor_address(attribute::XOR_PEER_ADDRESS).ok_or(error::BAD_REQUEST)?;
        if !CHANNELS.contains(&number) {
            return Err(error::BAD_REQUEST.into());
        }
        let peer = self.peers.permit(named).map_err(|_| error::FORBIDDEN)?;
        let address = peer.address();
        let relay = self.relay_of(key, address.is_ipv4()).ok_or(error::PEER_ADDRESS_FAMILY_MISMATCH)?;
        allocation.check_bind(number, address, self.spec.quotas.channels, now).map_err(|error| match error {
            BindError::Conflict => error::BAD_REQUEST,
            BindError::TooMany => error::INSUFFICIENT_CAPACITY,
        })?;
        if !allocation.has_room_for(&[address.ip()], self.spec.quotas.permissions, now) {
            return Err(error::INSUFFICIENT_CAPACITY.into());
        }
        let route = match peer.media() {
            Some(media) => Route::Link(self.link_to(key, address, media, now).ok_or(error::INSUFFICIENT_CAPACITY)?),
            None if self.claim(key, relay, address, now) => Route::Relay(relay),
            None => return Err(error::INSUFFICIENT_CAPACITY.into()),
        };
        let (until, permitted_until) = (now + self.spec.lifetimes.channel, now + self.spec.lifetimes.permission);
        if let Some(allocation) = self.allocations.get_mut(key) {
            allocation.bind(number, peer, route, until, permitted_until);
        }
        self.share_permission(key, address.ip());
        match route {
            Route::Link(_) => self.set_links(key, now),
            Route::Relay(_) => {}
        }
        let relays: &[RelayKey] = if peer.media().is_some() { &[] } else { &[relay] };
        self.finish_when_open(key, known, relays, out)
    }

    /// Says that it is done, at once or when the sockets that it takes are open.
    fn finish_when_open(
        &mut self,
        key: AllocationKey,
        known: &Known<'_>,
        relays: &[RelayKey],
        out: &mut dyn Transmit,
    ) -> Result<(), Refusal> {
        self.schedule(key);
        let Some(allocation) = self.allocations.get_mut(key) else { return Ok(()) };
        let wants = |relay: &RelayKey| self.relays.want(*relay, Some(key), allocation.dont_fragment);
        let waits = relays.iter().map(wants).fold(false, |any, this| any | this);
        if waits {
            // At most one answer waits: of two requests at once, the earlier one is sent again by its client.
            allocation.pending = Some(Pending { reply: known.reply.clone(), tries: 0, failed: false });
        } else {
            let _ = known.reply.send(Class::Success, |_| {}, out);
        }
        Ok(())
    }

    /// What became of a socket that was asked for: `None` when it could not be bound.
    pub fn handle_socket(&mut self, relay: RelayKey, socket: Option<SocketIndex>, now: Now, out: &mut dyn Transmit) {
        let waiting = self.relays.opened(relay, socket);
        self.answer_waiting(&waiting, socket.is_some(), now, out);
    }

    /// What became of a [`PeerRequest::Listen`](super::PeerRequest::Listen).
    pub fn handle_listening(&mut self, relay: RelayKey, listens: bool, now: Now, out: &mut dyn Transmit) {
        let waiting = self.relays.listening(relay, listens);
        self.answer_waiting(&waiting, listens, now, out);
    }

    /// Those whose requests waited for a socket: as far as they wait for no other, they are answered, or try another port.
    fn answer_waiting(&mut self, waiting: &[AllocationKey], opened: bool, now: Now, out: &mut dyn Transmit) {
        for &key in waiting {
            let Some(allocation) = self.allocations.get_mut(key) else { continue };
            let Some(pending) = &mut allocation.pending else { continue };
            pending.failed |= !opened;
            let waits = |relays: &super::Relays, relay: &RelayKey| {
                relays.get(*relay).is_some_and(|relay| relay.waiting.contains(&key))
            };
            if allocation.relays.iter().any(|relay| waits(&self.relays, relay)) {
                continue;
            }
            let (tries, failed) = (pending.tries, pending.failed);
            if failed && (1..PORT_TRIES).contains(&tries) && self.try_other_port(key, now) {
                if let Some(pending) = self.allocations.get_mut(key).and_then(|allocation| allocation.pending.as_mut())
                {
                    (pending.tries, pending.failed) = (tries + 1, false);
                }
                continue;
            }
            let Some(pending) = self.allocations.get_mut(key).and_then(|allocation| allocation.pending.take()) else {
                continue;
            };
            match (failed, tries) {
                (false, 0) => {
                    let _ = pending.reply.send(Class::Success, |_| {}, out);
                }
                (false, _) => self.finish_allocate(key, &pending.reply, now, out),
                (true, _) => {
                    let _ = pending.reply.refuse(&error::INSUFFICIENT_CAPACITY.into(), out);
                    if tries > 0 {
                        self.forget(key);
                    }
                }
            }
        }
    }

    /// The way to our own media, which is a worker's, opened at its first use.
    pub(super) fn link_to(
        &mut self,
        key: AllocationKey,
        media: SocketAddr,
        worker: WorkerIndex,
        now: Now,
    ) -> Option<LinkIndex> {
        if let Some(link) = self.allocations.get(key)?.link(media) {
            return Some(link);
        }
        let relay = self.relay_of(key, media.is_ipv4())?;
        let outer = self.relays.get(relay)?.outer;
        let link = if worker == self.index {
            self.links.open(key, outer, self.link_budgets(key))?
        } else {
            let owner = self.allocations.get(key)?.owner.account;
            let user = self.ledger.user(&self.accounts.get(owner)?.user);
            self.links.open_far(key, outer, worker, user)?
        };
        self.allocations.get_mut(key)?.links.push((media, link));
        self.set_links(key, now);
        Some(link)
    }

    /// What our own media may send to the client of an allocation: out of the same as what its peers send. What has no bound costs nothing.
    pub(super) fn link_budgets(&self, key: AllocationKey) -> LinkBudgets {
        let account = self.allocations.get(key).and_then(|allocation| self.accounts.get(allocation.owner.account));
        let budgets = [account.map(|account| &account.bandwidth), Some(&self.bandwidth)];
        budgets.map(|budget| budget.filter(|budget| budget.is_bounded()).cloned())
    }

    /// The same for the client of another worker's.
    pub(super) fn guest_budgets(&self, user: User) -> LinkBudgets {
        let budgets = [self.ledger.bandwidth_of(user, self.spec.quotas.user_bps), self.bandwidth.clone()];
        budgets.map(|budget| Some(budget).filter(Bandwidth::is_bounded))
    }

    /// Says how datagrams of our media look on their way to the client: ChannelData where there is a channel. Without a permission
    /// there is no way, whether there is a channel or not (RFC 8656 §12).
    pub(super) fn set_links(&mut self, key: AllocationKey, now: Now) {
        let Some(allocation) = self.allocations.get(key) else { return };
        let client = allocation.client;
        for &(media, link) in &allocation.links {
            let channel = allocation.channel_of(media, now).map(|channel| channel.number);
            let prefix = || match channel {
                Some(number) => Prefix::channel(client.path, number),
                None => Prefix::indication(client.path, media, random_id(&mut self.random)),
            };
            let is_permitted = allocation.is_permitted(media.ip(), now);
            self.links.set(link, is_permitted.then(prefix));
        }
    }

    /// On a shared port, makes the peer's datagrams this client's. False when they are another one's.
    pub(super) fn claim(&mut self, key: AllocationKey, relay: RelayKey, peer: SocketAddr, now: Now) -> bool {
        let Some(sharing) = self.relays.sharing(relay) else { return true };
        match sharing.claimed(peer) {
            Some(holder) if holder == key => return true,
            Some(holder) => {
                let other = self.allocations.get(holder);
                if other.is_some_and(|other| other.is_permitted(peer.ip(), now)) {
                    return false;
                }
            }
            None => {}
        }
        let Some(allocation) = self.allocations.get_mut(key) else { return false };
        if allocation.claims.len() >= CLAIMS_MAX {
            return false;
        }
        allocation.claims.push((relay, peer));
        sharing.claim(peer, key);
        true
    }

    /// On shared ports, this client permits the address.
    fn share_permission(&mut self, key: AllocationKey, ip: IpAddr) {
        let Some(allocation) = self.allocations.get(key) else { return };
        for &relay in &allocation.relays {
            if let Some(sharing) = self.relays.sharing(relay) {
                sharing.permit(ip, key);
            }
        }
    }
}

/// Where the socket of a relayed address is, if it is open.
#[inline]
pub(super) fn open_socket(relay: &Relay) -> Option<SocketIndex> {
    match relay.socket {
        super::relay::Socket::Open(socket) => Some(socket),
        _ => None,
    }
}

pub(super) fn random_id(random: &mut crate::random::Random) -> TransactionId {
    let mut id = [0; 12];
    id.chunks_mut(8).for_each(|chunk| {
        let bytes = random.next_u64().to_be_bytes();
        chunk.copy_from_slice(bytes.get(..chunk.len()).unwrap_or_default());
    });
    TransactionId(id)
}

/// What a channel's number may be. RFC 8656 §12 keeps 0x5000 and above for later, and clients of RFC 5766, coturn's own among them, use
/// them; on a port of TURN's alone nothing else begins like them.
const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x7fff;
/// Ports tried for one Allocate.
const PORT_TRIES: u8 = 8;
