//! CreatePermission and ChannelBind (RFC 8656 §10, §12): which peers may send to a client, and by what number it calls them.

use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;
use ringmain_shared::Now;
use ringmain_shared::turn::RelayProtocol;

use super::Turn;
use super::allocation::{AllocationKey, BindError, Route};
use super::relay::RelayKey;
use super::reply::Refusal;
use super::request::Known;
use crate::io::Transmit;
use crate::packet::stun::{attribute, error};

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
        self.answer_when_open(key, known, &relays, out)
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
        self.answer_when_open(key, known, relays, out)
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

/// What a channel's number may be. RFC 8656 §12 keeps 0x5000 and above for later, and clients of RFC 5766, coturn's own among them, use
/// them; on a port of TURN's alone nothing else begins like them.
const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x7fff;
