//! The packets: ChannelData and Send from a client to its peers (RFC 8656 §11, §12), and what peers send to it. Every way from a client
//! ends at a [`PermittedPeer`], every way to a client passes its permissions. Nothing is allocated here.

use std::net::SocketAddr;
use std::ops::Range;

use ringmain_shared::turn::RelayProtocol;
use ringmain_shared::{DropReason, Now};

use super::allocation::{AllocationKey, Client, Route};
use super::between::TurnItem;
use super::link::{Ends, LinkIndex, TurnLink};
use super::peer::PermittedPeer;
use super::relay::Relay;
use super::reply::write;
use super::{ForMedia, Turn};
use crate::buf::Prefix;
use crate::io::{Path, SocketIndex, Transmit};
use crate::packet::bytes::u16_at;
use crate::packet::stun::{Message, TransactionId, attribute};

impl Turn {
    /// RFC 8656 §12.6.
    #[inline]
    pub(super) fn handle_channel_data(
        &mut self,
        client: Client,
        bytes: &[u8],
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<Option<ForMedia>, DropReason> {
        let key = *self.clients.get(&client.path).ok_or(DropReason::TurnNoAllocation)?;
        let allocation = self.allocations.get(key).ok_or(DropReason::TurnNoAllocation)?;
        let number = u16_at(bytes, 0).ok_or(DropReason::TurnMalformed)?;
        let size = usize::from(u16_at(bytes, 2).ok_or(DropReason::TurnMalformed)?);
        // RFC 8656 §12.5: over UDP padding may be there.
        let payload = bytes.get(4..4 + size).filter(|data| !data.is_empty()).ok_or(DropReason::TurnMalformed)?;
        let channel = *allocation.channel(number, now).ok_or(DropReason::TurnNoChannel)?;
        self.spend(key, size, now)?;
        match channel.route {
            Route::Relay(_) => self.send_to_peer(key, channel.route, channel.peer, payload, now, out).map(|()| None),
            Route::Link(link) => self.for_media(key, link, 4..4 + size).map(Some),
        }
    }

    /// RFC 8656 §11.4.
    pub(super) fn handle_send(
        &mut self,
        client: Client,
        bytes: &[u8],
        message: &Message<'_>,
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<Option<ForMedia>, DropReason> {
        let key = *self.clients.get(&client.path).ok_or(DropReason::TurnNoAllocation)?;
        let known = [attribute::XOR_PEER_ADDRESS, attribute::DATA, attribute::DONT_FRAGMENT];
        if message.unknown_required(&known).next().is_some() {
            return Err(DropReason::TurnMalformed);
        }
        let named = message.xor_address(attribute::XOR_PEER_ADDRESS).ok_or(DropReason::TurnMalformed)?;
        let range = message.attribute_range(attribute::DATA).filter(|range| !range.is_empty());
        let range = range.ok_or(DropReason::TurnMalformed)?;
        let payload = bytes.get(range.clone()).ok_or(DropReason::TurnMalformed)?;
        // Sockets set DF on what fits the path; larger ones they would fragment, which this client does not want.
        let whole = if named.is_ipv4() { UNFRAGMENTED_IPV4 } else { UNFRAGMENTED_IPV6 };
        if message.attribute(attribute::DONT_FRAGMENT).is_some() && payload.len() > whole {
            return Err(DropReason::TurnMalformed);
        }
        let peer = self.peers.permit(named)?;
        let address = peer.address();
        let allocation = self.allocations.get(key).ok_or(DropReason::TurnNoAllocation)?;
        if allocation.protocol == RelayProtocol::Tcp {
            return Err(DropReason::TurnNoRelay);
        }
        if !allocation.is_permitted(address.ip(), now) {
            return Err(DropReason::TurnNoPermission);
        }
        let dont_fragment = allocation.dont_fragment;
        self.spend(key, payload.len(), now)?;
        if let Some(media) = peer.media() {
            let link = self.link_to(key, address, media, now).ok_or(DropReason::TurnNoRelay)?;
            return self.for_media(key, link, range).map(Some);
        }
        let relay = self.relay_of(key, address.is_ipv4()).ok_or(DropReason::TurnNoRelay)?;
        if !self.claim(key, relay, address, now) {
            return Err(DropReason::TurnNoPermission);
        }
        if self.relays.want(relay, None, dont_fragment) {
            return Err(DropReason::TurnNoRelay);
        }
        self.send_to_peer(key, Route::Relay(relay), peer, payload, now, out).map(|()| None)
    }

    /// The one place from which anything goes to a peer.
    #[inline]
    fn send_to_peer(
        &mut self,
        key: AllocationKey,
        route: Route,
        peer: PermittedPeer,
        payload: &[u8],
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        let Route::Relay(relay) = route else { return Err(DropReason::TurnNoRelay) };
        let socket = self.relays.get(relay).and_then(Relay::open_socket).ok_or(DropReason::TurnNoRelay)?;
        if peer.is_relayed()
            && let Some(handed) = self.hairpin(key, relay, peer.address(), payload, now, out)
        {
            return handed;
        }
        let path = Path { socket, remote: peer.address() };
        write(path, payload.len(), |room| room.copy_from_slice(payload), out)?;
        self.count_to_peer(key, payload.len(), false);
        Ok(())
    }

    fn for_media(
        &mut self,
        key: AllocationKey,
        link: LinkIndex,
        payload: Range<usize>,
    ) -> Result<ForMedia, DropReason> {
        let &TurnLink { ends, path } = self.links.get(link).ok_or(DropReason::TurnNoRelay)?;
        let far = match ends {
            Ends::Own(holder) if holder == key => None,
            Ends::Far { allocation, media, link, .. } if allocation == key => Some((media, link)),
            _ => return Err(DropReason::TurnNoRelay),
        };
        self.count_to_peer(key, payload.len(), true);
        Ok(ForMedia { path, payload, far })
    }

    /// A datagram came to a relay socket. RFC 8656 §11.5, §12.7.
    #[inline]
    pub fn handle_peer(
        &mut self,
        socket: SocketIndex,
        from: SocketAddr,
        bytes: &[u8],
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        let key = self.relays.at(socket).ok_or(DropReason::TurnNoRelay)?.receiver(from)?;
        self.send_to_client(key, from, bytes, now, out)?;
        self.count_to_client(key, 1, bytes.len() as u64, false);
        Ok(())
    }

    /// The one place from which what a peer sent goes to a client.
    #[inline]
    pub(super) fn send_to_client(
        &mut self,
        key: AllocationKey,
        from: SocketAddr,
        bytes: &[u8],
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        let allocation = self.allocations.get(key).ok_or(DropReason::TurnNoAllocation)?;
        let client = allocation.client;
        if bytes.is_empty() {
            return Err(DropReason::TurnMalformed);
        }
        if let Some(channel) = allocation.channel_of(from, now).copied() {
            if channel.permitted_until <= now {
                return Err(DropReason::TurnNoPermission);
            }
            self.spend(key, bytes.len(), now)?;
            wrap(&Prefix::channel(client.path, channel.number), bytes, out)
        } else {
            if !allocation.is_permitted(from.ip(), now) {
                return Err(DropReason::TurnNoPermission);
            }
            // A permission is for all ports; not all of them are allowed.
            let named = self.peers.outer(from);
            self.peers.permit(named)?;
            self.spend(key, bytes.len(), now)?;
            let id = TransactionId(self.random.bytes());
            wrap(&Prefix::indication(client.path, named, id), bytes, out)
        }
    }

    /// What our own media sent through a link since this was last told. Its budgets were asked and charged as it was sent.
    pub fn count_link(&mut self, socket: SocketIndex, datagrams: u64, bytes: u64) {
        match LinkIndex::of(socket).and_then(|index| self.links.get(index)).map(|link| link.ends) {
            Some(Ends::Own(key)) => self.count_to_client(key, datagrams, bytes, true),
            Some(Ends::Guest(link, _)) => self.links.items.push((link.home, TurnItem::Sent { link, datagrams, bytes })),
            Some(Ends::Far { .. }) | None => {}
        }
    }

    /// What was sent to a client, by a relay socket or without one.
    #[inline]
    pub(super) fn count_to_client(&mut self, key: AllocationKey, datagrams: u64, bytes: u64, shortcut: bool) {
        let Some(allocation) = self.allocations.get_mut(key) else { return };
        for traffic in [&mut allocation.traffic, &mut self.stats.traffic] {
            traffic.to_clients += datagrams;
            traffic.to_clients_bytes += bytes;
            traffic.shortcut += if shortcut { datagrams } else { 0 };
        }
    }

    #[inline]
    pub(super) fn count_to_peer(&mut self, key: AllocationKey, size: usize, shortcut: bool) {
        let Some(allocation) = self.allocations.get_mut(key) else { return };
        for traffic in [&mut allocation.traffic, &mut self.stats.traffic] {
            traffic.to_peers += 1;
            traffic.to_peers_bytes += size as u64;
            traffic.shortcut += u64::from(shortcut);
        }
    }

    /// Takes bytes out of what the user and all users may relay.
    #[inline]
    pub(super) fn spend(&self, key: AllocationKey, size: usize, now: Now) -> Result<(), DropReason> {
        let quotas = &self.spec.quotas;
        if quotas.user_bps == 0 && quotas.total_bps == 0 {
            return Ok(());
        }
        let account = self.allocations.get(key).map(|allocation| allocation.owner.account);
        let account = account.and_then(|account| self.accounts.get(account));
        let budgets = [account.map(|account| &account.bandwidth), Some(&self.bandwidth)];
        if budgets.iter().flatten().any(|budget| !budget.is_open(now)) {
            return Err(DropReason::TurnBandwidth);
        }
        budgets.iter().flatten().for_each(|budget| budget.charge(size, now));
        Ok(())
    }
}

/// Sends data to a client with its header.
#[inline]
fn wrap(prefix: &Prefix, data: &[u8], out: &mut dyn Transmit) -> Result<(), DropReason> {
    let start = prefix.size();
    let fill = |room: &mut [u8]| {
        if let Some(place) = room.get_mut(start..start + data.len()) {
            place.copy_from_slice(data);
        }
        prefix.write(room, data.len());
    };
    write(prefix.path(), prefix.wrapped(data.len()), fill, out)
}

/// Payload that an Ethernet carries in one piece.
const UNFRAGMENTED_IPV4: usize = 1500 - 28;
const UNFRAGMENTED_IPV6: usize = 1500 - 48;
