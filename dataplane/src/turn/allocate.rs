//! Allocate and Refresh (RFC 8656 §7, §8; RFC 8016 where allocations may move): from a request to a relayed address, for how long.

use std::net::SocketAddr;
use std::time::Duration;

use arrayvec::ArrayVec;
use ringmain_shared::Now;
use ringmain_shared::id::TurnAllocationId;
use ringmain_shared::turn::{RelayMode, RelayProtocol, TurnEnd, TurnEvent};

use super::allocation::{Allocation, AllocationKey, Client, Owner, Renewal};
use super::between::leave;
use super::connect::is_stream;
use super::credential::Claim;
use super::ledger::{Hold, User};
use super::pending::Pending;
use super::ports::Wish;
use super::relay::{Holder, RelayKey};
use super::reply::{Refusal, ReplyTo};
use super::request::Known;
use super::token::Tokens;
use super::{Reservation, Turn};
use crate::io::Transmit;
use crate::packet::stun::{Class, FAMILY_IPV4, FAMILY_IPV6, Message, MessageWriter, attribute, error};

/// What an Allocate asks for.
struct Wishes {
    protocol: RelayProtocol,
    /// IPv4, IPv6.
    families: [bool; 2],
    /// The one of two families that there is not.
    missing: Option<u8>,
    port: Wish,
    token: Option<[u8; 8]>,
    lifetime: Duration,
    mobility: bool,
    dont_fragment: bool,
}

impl Turn {
    pub(super) fn handle_allocate(
        &mut self,
        known: &Known<'_>,
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), Refusal> {
        let client = known.reply.client;
        if let Some(&key) = self.clients.get(&client.path) {
            return self.repeat_allocate(key, known, now, out);
        }
        let wishes = self.read_wishes(known, now)?;
        if known.claim.expires.is_some_and(|expires| self.is_over(expires, now)) {
            return Err(error::UNAUTHENTICATED.into());
        }
        let quotas = self.spec.quotas;
        let user = self.ledger.user(&known.claim.user);
        let reserved = match wishes.token {
            Some(token) => Some(self.ports.reserved(token, &known.claim.user).ok_or(error::INSUFFICIENT_CAPACITY)?),
            None => None,
        };
        let hold = || self.ledger.hold(user, quotas.allocations_per_user).ok_or(error::ALLOCATION_QUOTA_REACHED);
        // A reserved port has been counted since it was reserved.
        let own = if reserved.is_none() { Some(hold()?) } else { None };
        let next = if wishes.port == Wish::Pair { Some(hold()?) } else { None };
        if !self.ledger.allow_allocate(user, quotas.allocates_per_user_second, now) {
            self.stats.hasty += 1;
            return Err(error::ALLOCATION_QUOTA_REACHED.into());
        }
        let of_all = self.ledger.hold_place(quotas.allocations).filter(|_| !self.draining);
        let of_all = of_all.ok_or(error::INSUFFICIENT_CAPACITY)?;
        let place = match reserved {
            Some(reserved) => self.ports.end_reservation(reserved).then_some(Place::Port(reserved.port)),
            None => self.find_place(wishes.protocol, wishes.port),
        };
        let place = place.ok_or(error::INSUFFICIENT_CAPACITY)?;
        let own = own.unwrap_or_else(|| self.ledger.take_over(user));
        let Claim { user: name, shown, .. } = &known.claim;
        let account = self.accounts.hold(name, shown, || self.ledger.bandwidth_of(user, quotas.user_bps));
        let owner = Owner {
            username: known.claim.username.clone(),
            keys: known.keys.clone(),
            account,
            bound: known.claim.bound,
            token: known.claim.token,
        };
        self.last_id += 1;
        let id = TurnAllocationId(u64::from(self.index.0) << 48 | self.last_id);
        let made_by = known.message.transaction_id();
        let mut allocation = Allocation::new(id, client, owner, made_by, now + wishes.lifetime);
        allocation.protocol = wishes.protocol;
        allocation.dont_fragment = wishes.dont_fragment;
        allocation.missing = wishes.missing;
        allocation.holds.extend([own, of_all]);
        let key = self.allocations.insert(allocation);
        self.clients.insert(client.path, key);
        self.give_relays(key, place, wishes.families);
        if let Some(next) = next {
            self.reserve_next(key, user, next, now);
        }
        if wishes.mobility {
            self.give_ticket(key);
        }
        self.stats.allocated += 1;
        if !client.is_proved() {
            self.replies.redeem(client.path.remote, now);
        }
        self.schedule(key);
        // Where every peer is foreign a socket will be needed: better to know now whether its port is free. Peers that connect come
        // from the start (RFC 6062 §5.1).
        let soon = wishes.protocol == RelayProtocol::Tcp || !self.peers.has_own();
        if soon && self.want_sockets(key, wishes.dont_fragment) {
            if let Some(allocation) = self.allocations.get_mut(key) {
                allocation.pending = Some(Pending { reply: known.reply.clone(), tries: 1, failed: false });
            }
            return Ok(());
        }
        self.finish_allocate(key, &known.reply, now, out);
        Ok(())
    }

    /// The same request once more gets the same answer; another one does not get a second allocation (RFC 8656 §7.2).
    fn repeat_allocate(
        &mut self,
        key: AllocationKey,
        known: &Known<'_>,
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), Refusal> {
        let allocation = self.allocations.get(key).ok_or(error::ALLOCATION_MISMATCH)?;
        let is_same = allocation.made_by == known.message.transaction_id() && allocation.owner.is(&known.claim);
        if !is_same {
            return Err(error::ALLOCATION_MISMATCH.into());
        }
        if !allocation.is_coming() {
            self.answer_allocate(key, &known.reply, now, out);
        }
        Ok(())
    }

    /// RFC 8656 §7.2, in its order.
    fn read_wishes(&self, known: &Known<'_>, now: Now) -> Result<Wishes, Refusal> {
        let message = &known.message;
        let protocol = match message.attribute(attribute::REQUESTED_TRANSPORT) {
            Some(&[UDP, _, _, _]) => RelayProtocol::Udp,
            Some(&[TCP, _, _, _]) if self.spec.features.tcp_relay => RelayProtocol::Tcp,
            Some(&[_, _, _, _]) => return Err(error::UNSUPPORTED_TRANSPORT.into()),
            _ => return Err(error::BAD_REQUEST.into()),
        };
        if protocol == RelayProtocol::Tcp {
            refuse_beside_tcp(known.reply.client, message)?;
        }
        let token = message.attribute(attribute::RESERVATION_TOKEN).map(<[u8; 8]>::try_from).transpose();
        let token = token.map_err(|_| error::BAD_REQUEST)?;
        let even = message.attribute(attribute::EVEN_PORT).map(|value| value.first().ok_or(error::BAD_REQUEST));
        let port = match even.transpose()? {
            None => Wish::Any,
            Some(flags) if flags & 0x80 == 0 => Wish::Even,
            Some(_) => Wish::Pair,
        };
        let family = |value: &[u8]| value.first().copied().ok_or(error::BAD_REQUEST);
        let requested = message.attribute(attribute::REQUESTED_ADDRESS_FAMILY).map(family).transpose()?;
        let additional = message.attribute(attribute::ADDITIONAL_ADDRESS_FAMILY).map(family).transpose()?;
        let contradicts = (requested.is_some() && additional.is_some())
            || (token.is_some() && (port != Wish::Any || requested.is_some() || additional.is_some()))
            || (additional.is_some() && port == Wish::Pair)
            || additional.is_some_and(|family| family != FAMILY_IPV6);
        if contradicts {
            return Err(error::BAD_REQUEST.into());
        }
        let has = |v4: bool| self.peers.relays().iter().any(|(announce, _)| announce.is_ipv4() == v4);
        let families = match (requested, additional) {
            (Some(FAMILY_IPV4) | None, None) => [true, false],
            (Some(FAMILY_IPV6), None) => [false, true],
            (None, Some(_)) => [has(true), has(false)],
            _ => return Err(error::ADDRESS_FAMILY_NOT_SUPPORTED.into()),
        };
        let [v4, v6] = families;
        // Of two, one is enough (RFC 8656 §7.2, step 9).
        if (v4 && !has(true)) || (v6 && !has(false)) || !(v4 || v6) {
            return Err(error::ADDRESS_FAMILY_NOT_SUPPORTED.into());
        }
        let shared = matches!(self.spec.relay.mode, RelayMode::Shared(_)) && protocol == RelayProtocol::Udp;
        if shared && (port != Wish::Any || token.is_some()) {
            return Err(error::INSUFFICIENT_CAPACITY.into());
        }
        Ok(Wishes {
            protocol,
            families,
            missing: match families {
                [true, false] if additional.is_some() => Some(FAMILY_IPV6),
                [false, true] if additional.is_some() => Some(FAMILY_IPV4),
                _ => None,
            },
            port,
            token,
            lifetime: self.read_lifetime(known, now)?,
            mobility: self.read_mobility(message)?,
            dont_fragment: message.attribute(attribute::DONT_FRAGMENT).is_some(),
        })
    }

    /// RFC 8656 §7.2: no shorter than the default, no longer than the most; and no longer than a token. Where an operator has the most
    /// below the default, it is what everybody gets, as from coturn.
    fn read_lifetime(&self, known: &Known<'_>, now: Now) -> Result<Duration, Refusal> {
        let lifetimes = self.spec.lifetimes;
        let asked = match known.message.attribute(attribute::LIFETIME) {
            Some(value) => {
                let seconds = <[u8; 4]>::try_from(value).map_err(|_| error::BAD_REQUEST)?;
                Duration::from_secs(u32::from_be_bytes(seconds).into()).max(lifetimes.allocation)
            }
            None => lifetimes.allocation,
        };
        Ok(known.claim.limit(asked.min(lifetimes.allocation_max), now))
    }

    /// Whether the key still holds that a token was sealed with; a Refresh need not bring the token again.
    fn is_vouched_for(&self, claim: &Claim, now: Now) -> bool {
        let holds = |tokens: &Tokens| tokens.key_remaining(&claim.username, self.unix_time(now)).is_some();
        claim.token.is_none() || self.tokens.as_ref().is_some_and(holds)
    }

    /// RFC 8016 §3.1: an empty ticket asks for one.
    fn read_mobility(&self, message: &Message<'_>) -> Result<bool, Refusal> {
        match message.attribute(attribute::MOBILITY_TICKET) {
            None => Ok(false),
            Some([]) if self.spec.features.mobility => Ok(true),
            Some([]) => Err(error::MOBILITY_FORBIDDEN.into()),
            Some(_) => Err(error::BAD_REQUEST.into()),
        }
    }

    fn find_place(&mut self, protocol: RelayProtocol, wish: Wish) -> Option<Place> {
        match (self.spec.relay.mode, protocol) {
            // A listener is one allocation's: nothing tells whom somebody wants who connects to it.
            (RelayMode::PerAllocation, _) | (_, RelayProtocol::Tcp) => {
                self.ports.take(wish, &mut self.random).map(Place::Port)
            }
            (RelayMode::Shared(_), RelayProtocol::Udp) => {
                // The least used one: the fewest meet at one peer.
                let used = |keys: &[Option<RelayKey>; 2]| {
                    let key = keys.iter().flatten().next().copied()?;
                    match &self.relays.get(key)?.holder {
                        Holder::Many(sharing) => Some(sharing.allocations),
                        Holder::One(_) => None,
                    }
                };
                self.shared.iter().min_by_key(|keys| used(keys)).copied().map(Place::Shared)
            }
        }
    }

    /// Relayed addresses of these families, at this place.
    fn give_relays(&mut self, key: AllocationKey, place: Place, families: [bool; 2]) {
        let protocol = self.allocations.get(key).map(|allocation| allocation.protocol);
        let wanted = |address: SocketAddr| families[usize::from(address.is_ipv6())];
        let mut relays = ArrayVec::<RelayKey, 2>::new();
        match place {
            Place::Port(port) => {
                for &(announce, bind) in self.peers.relays() {
                    let (outer, inner) = (SocketAddr::new(announce, port), SocketAddr::new(bind, port));
                    if wanted(outer) {
                        relays.push(match protocol {
                            Some(RelayProtocol::Tcp) => self.relays.insert_tcp(outer, inner, key),
                            _ => self.relays.insert(outer, inner, Holder::One(key)),
                        });
                    }
                }
            }
            Place::Shared(keys) => {
                for relay in keys.into_iter().flatten() {
                    if self.relays.get(relay).is_some_and(|relay| wanted(relay.outer)) {
                        relays.push(relay);
                    }
                }
                for &relay in &relays {
                    if let Some(sharing) = self.relays.sharing(relay) {
                        sharing.allocations += 1;
                    }
                }
            }
        }
        if let Some(allocation) = self.allocations.get_mut(key) {
            allocation.relays = relays;
            allocation.port = match place {
                Place::Port(port) => Some(port),
                Place::Shared(_) => None,
            };
        }
    }

    /// Keeps the port after the allocation's, which was taken with it.
    fn reserve_next(&mut self, key: AllocationKey, user: User, hold: Hold, now: Now) {
        let Some(allocation) = self.allocations.get_mut(key) else { return };
        let Some(name) = self.accounts.get(allocation.owner.account).map(|account| &account.user) else { return };
        let Some(port) = allocation.port else { return };
        let (port, token) = self.ports.reserve(port + 1, name, &mut self.random);
        allocation.reservation = Some(token);
        // It is counted until somebody shows the token, or its time is over.
        hold.leave();
        self.reservations.push_back(Reservation { port, user, until: now + self.spec.lifetimes.reservation });
    }

    fn give_ticket(&mut self, key: AllocationKey) {
        let mut ticket = self.random.bytes::<16>();
        // Whose it is, for other workers to know; 112 bits are left to guess.
        ticket[..2].copy_from_slice(&self.index.0.to_be_bytes());
        let Some(allocation) = self.allocations.get_mut(key) else { return };
        if let Some(old) = allocation.ticket.replace(ticket) {
            self.tickets.remove(&old);
        }
        self.tickets.insert(ticket, key);
    }

    /// Asks for the sockets of all relayed addresses. Whether one is still to come.
    fn want_sockets(&mut self, key: AllocationKey, dont_fragment: bool) -> bool {
        let Some(allocation) = self.allocations.get(key) else { return false };
        let wanted = allocation.relays.clone();
        let still = wanted.into_iter().map(|relay| self.relays.want(relay, Some(key), dont_fragment));
        still.fold(false, |any, this| any | this)
    }

    /// The socket of an Allocate did not open: another port, a few times.
    pub(super) fn try_other_port(&mut self, key: AllocationKey, now: Now) -> bool {
        let Some(allocation) = self.allocations.get(key) else { return false };
        let (Some(failed), None) = (allocation.port, allocation.reservation) else { return false };
        let dont_fragment = allocation.dont_fragment;
        let old = allocation.relays.clone();
        let families = [true, false]
            .map(|v4| old.iter().any(|&relay| self.relays.get(relay).is_some_and(|relay| relay.outer.is_ipv4() == v4)));
        let wish = if failed.is_multiple_of(2) { Wish::Even } else { Wish::Any };
        let Some(port) = self.ports.take(wish, &mut self.random) else { return false };
        old.into_iter().for_each(|relay| self.relays.remove(relay));
        // Somebody else has the failed one; it is not tried again at once.
        self.ports.close(failed);
        self.quarantine.push_back((now + QUARANTINE, failed));
        self.give_relays(key, Place::Port(port), families);
        self.want_sockets(key, dont_fragment)
    }

    /// The allocation stands: says so to the client and to control.
    pub(super) fn finish_allocate(&mut self, key: AllocationKey, reply: &ReplyTo, now: Now, out: &mut dyn Transmit) {
        self.answer_allocate(key, reply, now, out);
        self.events.extend(self.row(key, now).map(TurnEvent::Opened));
    }

    fn answer_allocate(&self, key: AllocationKey, reply: &ReplyTo, now: Now, out: &mut dyn Transmit) {
        let Some(allocation) = self.allocations.get(key) else { return };
        let relays: ArrayVec<SocketAddr, 2> =
            allocation.relays.iter().filter_map(|&relay| Some(self.relays.get(relay)?.outer)).collect();
        let lifetime = allocation.expires.since(now).as_secs() as u32;
        let attributes = |message: &mut MessageWriter<'_>| {
            relays.iter().for_each(|&relay| message.xor_address(attribute::XOR_RELAYED_ADDRESS, relay));
            if let Some(missing) = allocation.missing {
                // RFC 8656 §18.13: which of the two there is not, and why: error 440.
                message.attribute(attribute::ADDRESS_ERROR_CODE, &[missing, 0, 4, 40]);
            }
            message.attribute(attribute::LIFETIME, &lifetime.to_be_bytes());
            if let Some(token) = &allocation.reservation {
                message.attribute(attribute::RESERVATION_TOKEN, token);
            }
            message.xor_address(attribute::XOR_MAPPED_ADDRESS, allocation.client.path.remote);
            if let Some(ticket) = &allocation.ticket {
                message.attribute(attribute::MOBILITY_TICKET, ticket);
            }
        };
        // A client that does not hear it asks again.
        let _ = reply.send(Class::Success, attributes, out);
    }

    pub(super) fn handle_refresh(
        &mut self,
        known: &Known<'_>,
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), Refusal> {
        let message = &known.message;
        let moved = match message.attribute(attribute::MOBILITY_TICKET) {
            Some(ticket) if !self.clients.contains_key(&known.reply.client.path) => {
                Some(self.ticket_holder(ticket, known)?)
            }
            _ => None,
        };
        let key = match moved {
            Some(key) => key,
            None => self.owned(known)?.0,
        };
        let family = message.attribute(attribute::REQUESTED_ADDRESS_FAMILY);
        let family = family.map(|value| value.first().copied().ok_or(error::BAD_REQUEST)).transpose()?;
        if let Some(family) = family {
            self.relay_of(key, family == FAMILY_IPV4).ok_or(error::PEER_ADDRESS_FAMILY_MISMATCH)?;
        }
        if message.attribute(attribute::LIFETIME) == Some(&[0; 4]) {
            match family {
                Some(family) if self.allocations.get(key).is_some_and(|allocation| allocation.relays.len() > 1) => {
                    self.drop_family(key, family == FAMILY_IPV4, out);
                }
                _ => self.end(key, TurnEnd::Released, now),
            }
            let over = |message: &mut MessageWriter<'_>| message.attribute(attribute::LIFETIME, &[0; 4]);
            let _ = known.reply.send(Class::Success, over, out);
            return Ok(());
        }
        if !self.is_vouched_for(&known.claim, now) {
            return Err(error::UNAUTHENTICATED.into());
        }
        let lifetime = self.read_lifetime(known, now)?;
        if moved.is_some() {
            self.move_client(key, known, now);
        }
        let Some(allocation) = self.allocations.get_mut(key) else { return Ok(()) };
        allocation.expires = match allocation.owner.renew(known) {
            Renewal::Present => now + lifetime,
            // A Refresh of before that comes late, or once more, takes nothing away from what was done since.
            Renewal::Past => allocation.expires.max(now + lifetime),
        };
        // A client that did not hear the answer shows the ticket that it moved by once more.
        let repeats =
            message.attribute(attribute::MOBILITY_TICKET).is_some() && allocation.made_by == message.transaction_id();
        let ticket = allocation.ticket.filter(|_| moved.is_some() || repeats);
        let attributes = |message: &mut MessageWriter<'_>| {
            message.attribute(attribute::LIFETIME, &(lifetime.as_secs() as u32).to_be_bytes());
            if let Some(ticket) = &ticket {
                message.attribute(attribute::MOBILITY_TICKET, ticket);
            }
        };
        let _ = known.reply.send(Class::Success, attributes, out);
        self.schedule(key);
        self.events.extend(self.row(key, now).map(TurnEvent::Refreshed));
        Ok(())
    }

    /// RFC 8016 §3.2: whose ticket it is. The user must be the same: a ticket alone moves nothing.
    fn ticket_holder(&self, ticket: &[u8], known: &Known<'_>) -> Result<AllocationKey, Refusal> {
        if !self.spec.features.mobility {
            return Err(error::MOBILITY_FORBIDDEN.into());
        }
        let ticket = <[u8; 16]>::try_from(ticket).map_err(|_| error::BAD_REQUEST)?;
        let key = *self.tickets.get(&ticket).ok_or(error::ALLOCATION_MISMATCH)?;
        let allocation = self.allocations.get(key).ok_or(error::ALLOCATION_MISMATCH)?;
        // Many have tokens of one kid: there, only the very token that the allocation has may move it.
        let owner = &allocation.owner;
        if !owner.is(&known.claim) || owner.token.is_some() && !owner.keys.are_of_one_token(&known.keys) {
            return Err(error::WRONG_CREDENTIALS.into());
        }
        Ok(key)
    }

    /// The client is elsewhere from now on, and gets another ticket.
    fn move_client(&mut self, key: AllocationKey, known: &Known<'_>, now: Now) {
        self.give_ticket(key);
        if let Some(allocation) = self.allocations.get(key) {
            leave(allocation, self.index, &mut self.links);
        }
        let Some(allocation) = self.allocations.get_mut(key) else { return };
        allocation.via = None;
        self.clients.remove(&allocation.client.path);
        allocation.client = known.reply.client;
        allocation.made_by = known.message.transaction_id();
        self.clients.insert(allocation.client.path, key);
        self.set_links(key, now);
    }

    /// The relayed address of a family.
    pub(super) fn relay_of(&self, key: AllocationKey, v4: bool) -> Option<RelayKey> {
        let relays = &self.allocations.get(key)?.relays;
        relays.iter().copied().find(|&relay| self.relays.get(relay).is_some_and(|relay| relay.outer.is_ipv4() == v4))
    }
}

/// Where relayed addresses come from.
#[derive(Clone, Copy, Debug)]
enum Place {
    Port(u16),
    Shared([Option<RelayKey>; 2]),
}

/// RFC 6062 §5.1: TCP is relayed for those who come by it, and has no pairs of ports and no fragments. Nor does it move: connections
/// stay where they are.
fn refuse_beside_tcp(client: Client, message: &Message<'_>) -> Result<(), Refusal> {
    let senseless = [attribute::DONT_FRAGMENT, attribute::EVEN_PORT, attribute::RESERVATION_TOKEN];
    if !is_stream(client) || senseless.into_iter().any(|it| message.attribute(it).is_some()) {
        return Err(error::BAD_REQUEST.into());
    }
    match message.attribute(attribute::MOBILITY_TICKET) {
        Some(_) => Err(error::MOBILITY_FORBIDDEN.into()),
        None => Ok(()),
    }
}

/// REQUESTED-TRANSPORT of UDP (RFC 8656 §18.8), and of TCP (RFC 6062 §4.1).
const UDP: u8 = 17;
const TCP: u8 = 6;
/// A port that somebody else has is left alone for so long.
const QUARANTINE: Duration = Duration::from_secs(60);
