//! What happens to allocations without their doing: time, orders of control, connections that end. And how they look from outside.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use foldhash::fast::RandomState;
use ringmain_shared::Now;
use ringmain_shared::turn::{ThirdParty, TurnAllocation, TurnCommand, TurnEnd, TurnEvent, TurnTokenKey};

use super::allocation::{Allocation, AllocationKey, Client};
use super::between::leave;
use super::connection::Stage;
use super::relay::{RelayKey, Socket};
use super::{Turn, seconds_since_1970};
use crate::io::{Path, Transmit};
use crate::packet::stun::error;

impl Turn {
    /// Carries out one order.
    pub fn handle_command(&mut self, command: TurnCommand, now: Now) {
        match command {
            TurnCommand::Configure(spec) => self.configure(*spec, now),
            TurnCommand::Add(credential) => self.credentials.add(credential),
            TurnCommand::Revoke { username } => {
                self.credentials.remove(&username);
                self.end_all(
                    |turn, key| turn.allocations.get(key).is_some_and(|a| a.owner.username == username),
                    TurnEnd::Revoked,
                    now,
                );
            }
            TurnCommand::Kill { allocation } => {
                self.end_all(
                    |turn, key| turn.allocations.get(key).is_some_and(|a| a.id == allocation),
                    TurnEnd::Killed,
                    now,
                );
            }
            TurnCommand::Clock { unix_nanos_at_start } => self.wall_nanos_at_start = unix_nanos_at_start,
            TurnCommand::Drain(draining) => self.draining = draining,
            TurnCommand::Snapshot { request } => {
                let allocations = self.allocations.keys().filter_map(|key| self.row(key, now)).collect();
                self.events.push(TurnEvent::Snapshot { request, worker: self.index, allocations });
            }
        }
    }

    /// Ends what `users` have, and whoever came by a key of `before` that is gone, over or another one of the same name. A key that ends
    /// earlier than it was to ends what hangs on it earlier.
    pub(super) fn end_disowned(&mut self, users: &HashSet<String, RandomState>, before: Option<&ThirdParty>, now: Now) {
        let unix = self.unix_time(now);
        let mut key_ends: HashMap<&str, Now, RandomState> = HashMap::default();
        let present = self.spec.third_party.iter().flat_map(|it| &it.keys);
        let present: HashMap<&str, &TurnTokenKey, RandomState> = present.map(|key| (key.kid.as_str(), key)).collect();
        for old in before.iter().flat_map(|it| &it.keys) {
            let is_same = present.get(old.kid.as_str()).is_some_and(|key| key.secret == old.secret);
            let rest = self.tokens.as_ref().and_then(|tokens| tokens.key_remaining(&old.kid, unix));
            key_ends.extend(rest.filter(|_| is_same).map(|rest| (old.kid.as_str(), now + rest)));
        }
        let mut over = Vec::new();
        let mut shortened = Vec::new();
        for (key, allocation) in &mut self.allocations {
            let owner = &mut allocation.owner;
            match (&mut owner.token, key_ends.get(owner.username.as_str())) {
                (None, _) if users.contains(&owner.username) => over.push(key),
                (None, _) => {}
                (Some(_), None) => over.push(key),
                (Some(token), Some(&ends)) if ends < token.ends => {
                    token.ends = ends;
                    allocation.expires = allocation.expires.min(ends);
                    shortened.push(key);
                }
                (Some(_), Some(_)) => {}
            }
        }
        over.into_iter().for_each(|key| self.end(key, TurnEnd::Revoked, now));
        shortened.into_iter().for_each(|key| self.schedule(key));
    }

    /// A client's TCP, TLS or DTLS connection is no more, and its allocation with it (RFC 8656 §5).
    pub fn handle_disconnected(&mut self, path: Path, now: Now) {
        self.connections.joined.remove(&path);
        if let Some(&key) = self.clients.get(&path) {
            self.end(key, TurnEnd::Disconnected, now);
        }
    }

    /// When the allocation of a client ends, unless it is refreshed. `None` without one.
    pub fn held_until(&self, path: Path) -> Option<Now> {
        let allocation = self.allocations.get(*self.clients.get(&path)?)?;
        (!allocation.is_coming()).then_some(allocation.expires)
    }

    /// Does everything that is due by now.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.nonces.rotate(now) {
            // Once an hour, what nobody may allocate with any more.
            self.credentials.forget_expired(seconds_since_1970(self.unix_nanos_at_start, now));
        }
        while let Some(&(until, port)) = self.quarantine.front()
            && until <= now
        {
            self.quarantine.pop_front();
            self.ports.release(port);
        }
        while let Some(over) = self.reservations.pop_front_if(|reservation| reservation.until <= now) {
            // Unless a client came with the token, to any worker.
            if self.ports.end_reservation(over.port) {
                self.ports.release(over.port.port);
                drop(self.ledger.take_over(over.user));
            }
        }
        self.time_connections(now);
        while let Some(&Reverse((at, key))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            let Some(allocation) = self.allocations.get_mut(key).filter(|allocation| allocation.timer == Some(at))
            else {
                continue;
            };
            allocation.timer = None;
            if allocation.expires <= now {
                self.end(key, TurnEnd::Expired, now);
            } else {
                self.purge(key, now);
                self.schedule(key);
            }
        }
    }

    /// Sees to it that the allocation is looked at when something of it ends.
    pub(super) fn schedule(&mut self, key: AllocationKey) {
        let Some(allocation) = self.allocations.get_mut(key) else { return };
        let at = allocation.next_end();
        if allocation.timer.is_none_or(|timer| at < timer) {
            allocation.timer = Some(at);
            self.timers.push(Reverse((at, key)));
        }
        // Timers of what has ended stay until they are due, an hour maybe; a client that comes and goes leaves one each time.
        if self.timers.len() > 2 * self.allocations.len() + TIMERS_SPARE {
            let live = |(key, allocation): (AllocationKey, &Allocation)| Some(Reverse((allocation.timer?, key)));
            self.timers = self.allocations.iter().filter_map(live).collect();
        }
    }

    /// Forgets permissions and channels that are over, and what hangs on them.
    fn purge(&mut self, key: AllocationKey, now: Now) {
        let Some(allocation) = self.allocations.get_mut(key) else { return };
        let mut ended: Vec<IpAddr> = Vec::new();
        allocation.purge(now, &mut ended);
        let relays = allocation.relays.clone();
        for relay in relays {
            if let Some(sharing) = self.relays.sharing(relay) {
                ended.iter().for_each(|&ip| sharing.forbid(ip, key));
            }
        }
        let Some(allocation) = self.allocations.get_mut(key) else { return };
        allocation.claims.retain(|&(relay, peer)| {
            let over = ended.contains(&peer.ip());
            if over && let Some(sharing) = self.relays.sharing(relay) {
                sharing.unclaim(peer, key);
            }
            !over
        });
        // A link lives as long as the permission, or a channel on it.
        let mut links = std::mem::take(&mut allocation.links);
        links.retain(|&(media, link)| {
            let live = allocation.is_permitted(media.ip(), now) || allocation.channel_of(media, now).is_some();
            if !live {
                self.links.close(link);
            }
            live
        });
        allocation.links = links;
        self.set_links(key, now);
    }

    fn end_all(&mut self, chosen: impl Fn(&Self, AllocationKey) -> bool, reason: TurnEnd, now: Now) {
        let keys: Vec<AllocationKey> = self.allocations.keys().filter(|&key| chosen(self, key)).collect();
        keys.into_iter().for_each(|key| self.end(key, reason, now));
    }

    /// An end to an allocation, and to everything of it.
    pub(super) fn end(&mut self, key: AllocationKey, reason: TurnEnd, now: Now) {
        let row = self.row(key, now);
        let told = self.allocations.get(key).is_some_and(|allocation| !allocation.is_coming());
        self.events.extend(row.filter(|_| told).map(|allocation| TurnEvent::Ended { allocation, reason }));
        // Whom control has put out keeps no connection either: it would be held open for an allocation that there is no more.
        if matches!(reason, TurnEnd::Revoked | TurnEnd::Killed) {
            let client = self.allocations.get(key).map(|allocation| allocation.client);
            self.disconnects.extend(client.filter(Client::is_proved).map(|client| client.path));
        }
        self.forget(key);
    }

    /// The same, without a word.
    pub(super) fn forget(&mut self, key: AllocationKey) {
        let Some(mut allocation) = self.allocations.remove(key) else { return };
        std::mem::take(&mut allocation.connections).into_iter().for_each(|it| _ = self.end_connection(it));
        self.clients.remove(&allocation.client.path);
        leave(&allocation, self.index, &mut self.links);
        if let Some(ticket) = allocation.ticket {
            self.tickets.remove(&ticket);
        }
        allocation.links.iter().for_each(|&(_, link)| self.links.close(link));
        for (relay, peer) in &allocation.claims {
            if let Some(sharing) = self.relays.sharing(*relay) {
                sharing.unclaim(*peer, key);
            }
        }
        let permitted: Vec<IpAddr> = allocation.permissions(Now(0)).collect();
        for &relay in &allocation.relays {
            if let Some(sharing) = self.relays.sharing(relay) {
                permitted.iter().for_each(|&ip| sharing.forbid(ip, key));
            }
            self.let_go(relay);
        }
        if let Some(port) = allocation.port {
            self.ports.release(port);
        }
        self.accounts.release(allocation.owner.account);
    }

    /// One allocation less on a relayed address. A shared one goes with its last, unless it is still given out.
    fn let_go(&mut self, relay: RelayKey) {
        match self.relays.sharing(relay) {
            Some(sharing) => {
                sharing.allocations = sharing.allocations.saturating_sub(1);
                self.release_retired();
            }
            None => self.relays.remove(relay),
        }
    }

    /// Takes the relayed address of one family away (RFC 8656 §8.2). A request that waited for its socket is refused.
    pub(super) fn drop_family(&mut self, key: AllocationKey, v4: bool, out: &mut dyn Transmit) {
        let Some(gone) = self.relay_of(key, v4) else { return };
        let connections = self.allocations.get(key).map(|allocation| allocation.connections.clone());
        for connection in connections.into_iter().flatten() {
            if self.connections.get(connection).is_some_and(|it| it.peer.is_ipv4() == v4)
                && let Some(Stage::Connecting(reply)) = self.end_connection(connection).map(|ended| ended.stage)
            {
                let _ = reply.refuse(&error::PEER_ADDRESS_FAMILY_MISMATCH.into(), out);
            }
        }
        let Some(allocation) = self.allocations.get_mut(key) else { return };
        allocation.relays.retain(|relay| *relay != gone);
        allocation.drop_family(v4);
        allocation.links.retain(|&(media, link)| {
            let over = media.is_ipv4() == v4;
            if over {
                self.links.close(link);
            }
            !over
        });
        allocation.claims.retain(|&(relay, peer)| {
            if relay == gone
                && let Some(sharing) = self.relays.sharing(relay)
            {
                sharing.unclaim(peer, key);
            }
            relay != gone
        });
        if self.relays.stop_waiting(gone, key)
            && let Some(pending) = allocation.pending.take()
        {
            let _ = pending.reply.refuse(&error::PEER_ADDRESS_FAMILY_MISMATCH.into(), out);
        }
        if let Some(sharing) = self.relays.sharing(gone) {
            sharing.forget(key);
        }
        self.let_go(gone);
    }

    /// The allocation as it stands.
    pub(super) fn row(&self, key: AllocationKey, now: Now) -> Option<TurnAllocation> {
        let allocation = self.allocations.get(key)?;
        let relays = allocation.relays.iter().filter_map(|&relay| self.relays.get(relay));
        let is_open = |relay: &&super::relay::Relay| matches!(relay.socket, Socket::Open(_) | Socket::Listening);
        Some(TurnAllocation {
            id: allocation.id,
            user: self.accounts.get(allocation.owner.account)?.shown.clone(),
            bound: allocation.owner.bound,
            client: allocation.client.path.remote,
            transport: allocation.client.transport,
            protocol: allocation.protocol,
            relayed: relays.clone().map(|relay| relay.outer).collect(),
            lifetime_s: allocation.expires.since(now).as_secs() as u32,
            permissions: allocation.permissions(now).count() as u32,
            channels: allocation.channels(now).count() as u32,
            sockets: relays.filter(is_open).count() as u32,
            connections: allocation.connections.len() as u32,
            traffic: allocation.traffic,
        })
    }
}

/// Timers of nobody that are not worth clearing away.
pub(super) const TIMERS_SPARE: usize = 1024;
