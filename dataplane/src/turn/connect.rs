//! Connect, ConnectionBind and what arrives at a relayed address (RFC 6062 §5): which connections there may be, and how many bytes each
//! may relay. Peers are judged by [`peer`](super::peer), whoever connects to whom.
//!
//! Bytes do not pass here. The stream thread relays them out of a credit, and tells. What was relayed is taken from the same bandwidth
//! as datagrams are, before there is as much credit again, or when the connection ends: credit that nobody used costs nobody anything.

use std::net::SocketAddr;
use std::time::Duration;

use ringmain_shared::turn::{RelayProtocol, TurnQuotas, TurnTransport};
use ringmain_shared::{DropReason, Now};

use super::Turn;
use super::allocation::{Allocation, AllocationKey, Client};
use super::connection::{Connection, ConnectionKey, PeerRequest, Stage};
use super::ledger::User;
use super::relay::{Holder, RelayKey};
use super::reply::{REPLY_SIZE_MAX, Refusal, transmit};
use super::request::Known;
use crate::io::Transmit;
use crate::packet::stun::{Class, Message, MessageWriter, TransactionId, attribute, error, method};
use crate::stream::StreamId;

impl Turn {
    /// RFC 6062 §5.2. The answer waits for the peer's.
    pub(super) fn handle_connect(&mut self, known: &Known<'_>, now: Now, _: &mut dyn Transmit) -> Result<(), Refusal> {
        let (key, allocation) = self.owned(known)?;
        if allocation.protocol != RelayProtocol::Tcp {
            return Err(error::BAD_REQUEST.into());
        }
        let named = known.message.xor_address(attribute::XOR_PEER_ADDRESS).ok_or(error::BAD_REQUEST)?;
        let peer = self.peers.permit_tcp(named).map_err(|_| error::FORBIDDEN)?;
        let address = peer.address();
        let relay = self.relay_of(key, address.is_ipv4()).ok_or(error::PEER_ADDRESS_FAMILY_MISMATCH)?;
        let local = self.relays.get(relay).ok_or(error::ALLOCATION_MISMATCH)?.inner;
        // A socket that connects to itself is its own peer, and nobody's.
        if local == address {
            return Err(error::FORBIDDEN.into());
        }
        if self.has_connection(allocation, address) {
            return Err(error::CONNECTION_ALREADY_EXISTS.into());
        }
        if allocation.connects.is_full(self.spec.quotas.connects_per_second, now) {
            return Err(error::INSUFFICIENT_CAPACITY.into());
        }
        let stage = Stage::Connecting(Box::new(known.reply.clone()));
        let (connection, _) = self.add_connection(key, address, stage).ok_or(error::INSUFFICIENT_CAPACITY)?;
        if let Some(allocation) = self.allocations.get_mut(key) {
            allocation.connects.add(now);
        }
        let relayed = peer.is_relayed();
        self.relays.peer_requests.push(PeerRequest::Connect { connection, local, peer: address, relayed });
        Ok(())
    }

    /// What became of a [`PeerRequest::Connect`]: `None` when the peer could not be reached.
    pub fn handle_connected(&mut self, key: ConnectionKey, stream: Option<StreamId>, now: Now, out: &mut dyn Transmit) {
        let waiting = self.connections.get(key).and_then(|connection| match &connection.stage {
            Stage::Connecting(reply) => Some((connection.id, reply.clone())),
            _ => None,
        });
        let Some((id, reply)) = waiting else {
            // Its allocation has ended meanwhile.
            self.relays.peer_requests.extend(stream.map(|peer| PeerRequest::Cut { peer }));
            return;
        };
        let Some(stream) = stream else {
            self.forget_connection(key);
            let _ = reply.refuse(&error::CONNECTION_FAILED.into(), out);
            return;
        };
        self.connections.set_unbound(key, stream, now);
        self.stats.connected += 1;
        let named = |message: &mut MessageWriter<'_>| message.attribute(attribute::CONNECTION_ID, &id.to_be_bytes());
        let _ = reply.send(Class::Success, named, out);
    }

    /// A peer has connected to a relayed address (RFC 6062 §5.3). Without a permission it is closed again.
    pub fn handle_arrived(
        &mut self,
        relay: RelayKey,
        stream: StreamId,
        from: SocketAddr,
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        let told = self.admit(relay, stream, from, now, out);
        if told.is_err() {
            match self.connections.at(stream) {
                Some(key) => _ = self.end_connection(key),
                None => self.relays.peer_requests.push(PeerRequest::Cut { peer: stream }),
            }
        }
        told
    }

    fn admit(
        &mut self,
        relay: RelayKey,
        stream: StreamId,
        from: SocketAddr,
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        let Holder::One(key) = self.relays.get(relay).ok_or(DropReason::TurnNoRelay)?.holder else {
            return Err(DropReason::TurnNoRelay);
        };
        let allocation = self.allocations.get(key).ok_or(DropReason::TurnNoAllocation)?;
        let client = allocation.client;
        if !allocation.is_permitted(from.ip(), now) {
            return Err(DropReason::TurnNoPermission);
        }
        // A permission is for all ports; not all of them are allowed.
        let named = self.peers.outer(from);
        self.peers.permit_tcp(named)?;
        if allocation.connects.is_full(self.spec.quotas.connects_per_second, now) {
            return Err(DropReason::TurnConnections);
        }
        let stage = Stage::Unbound { stream, until: now };
        let (connection, id) = self.add_connection(key, from, stage).ok_or(DropReason::TurnConnections)?;
        if let Some(allocation) = self.allocations.get_mut(key) {
            allocation.connects.add(now);
        }
        self.connections.set_unbound(connection, stream, now);
        self.stats.connected += 1;
        let mut bytes = [0; INDICATION_SIZE_MAX];
        let transaction = TransactionId(self.random.bytes());
        let mut message = MessageWriter::new(&mut bytes, Class::Indication, method::CONNECTION_ATTEMPT, transaction);
        message.xor_address(attribute::XOR_PEER_ADDRESS, named);
        message.attribute(attribute::CONNECTION_ID, &id.to_be_bytes());
        let size = message.finish_bare().ok_or(DropReason::TxFull)?;
        transmit(client.path, bytes.get(..size).unwrap_or_default(), out)
    }

    /// RFC 6062 §5.4, on a connection that is to be nothing but this one's bytes.
    pub(super) fn handle_connection_bind(
        &mut self,
        known: &Known<'_>,
        now: Now,
        _: &mut dyn Transmit,
    ) -> Result<(), Refusal> {
        let client = known.reply.client;
        if !is_stream(client) || self.clients.contains_key(&client.path) {
            return Err(error::BAD_REQUEST.into());
        }
        let (key, connection) = self.named_connection(&known.message).ok_or(error::BAD_REQUEST)?;
        let is_pending = matches!(connection.stage, Stage::Unbound { until, .. } if until > now);
        let allocation = self.allocations.get(connection.allocation).filter(|_| is_pending);
        if !allocation.ok_or(error::BAD_REQUEST)?.owner.is(&known.claim) {
            return Err(error::WRONG_CREDENTIALS.into());
        }
        let answer =
            known.reply.compose::<REPLY_SIZE_MAX>(Class::Success, |_| {}).ok_or(error::INSUFFICIENT_CAPACITY)?.to_vec();
        let peer = self.connections.set_bound(key, client.path).ok_or(error::BAD_REQUEST)?;
        self.relays.peer_requests.push(PeerRequest::Join { client: client.path, peer, answer });
        self.grant(key, credit(&self.spec.quotas), now);
        Ok(())
    }

    /// So many bytes of a connection's credit have been relayed. It gets as much again, when its user may have it.
    pub fn handle_relayed(&mut self, peer: StreamId, to_peer: u32, to_client: u32, now: Now) {
        let bytes = to_peer.saturating_add(to_client);
        let Some(key) = self.connections.at(peer) else {
            if let Some(&user) = self.connections.cut.get(&peer) {
                self.charge(user, bytes, now);
            }
            return;
        };
        let Some(connection) = self.connections.get_mut(key) else { return };
        (connection.unpaid, connection.relayed_at) = (connection.unpaid.saturating_add(bytes), now);
        let Some(allocation) = self.allocations.get_mut(connection.allocation) else { return };
        for traffic in [&mut allocation.traffic, &mut self.stats.traffic] {
            traffic.to_peers_bytes += u64::from(to_peer);
            traffic.to_clients_bytes += u64::from(to_client);
        }
        self.grant(key, bytes, now);
    }

    /// A peer's connection is no more.
    pub fn handle_peer_closed(&mut self, peer: StreamId) {
        self.connections.cut.remove(&peer);
        if let Some(key) = self.connections.at(peer) {
            self.forget_connection(key);
        }
    }

    /// Ends what was not bound in time, and gives credit to those who wait for it.
    pub(super) fn time_connections(&mut self, now: Now) {
        while let Some(key) = self.connections.pop_overdue(now) {
            self.end_connection(key);
        }
        if self.connections.grant_at <= now {
            for (key, bytes) in std::mem::take(&mut self.connections.waiting) {
                self.grant(key, bytes, now);
            }
        }
    }

    /// The allocation whose nonce and credential a request may use: ConnectionBind comes by a connection that has none of its own.
    pub(super) fn home(&self, client: Client, message: &Message<'_>) -> Option<&Allocation> {
        let key = match message.method() {
            method::CONNECTION_BIND => self.named_connection(message)?.1.allocation,
            _ => *self.clients.get(&client.path)?,
        };
        self.allocations.get(key)
    }

    /// An end to a connection, socket and all.
    pub(super) fn end_connection(&mut self, key: ConnectionKey) -> Option<Connection> {
        let ended = self.forget_connection(key)?;
        if let Stage::Bound { stream } = ended.stage {
            self.connections.cut.insert(stream, ended.user);
        }
        self.relays.peer_requests.push(match ended.stream() {
            Some(peer) => PeerRequest::Cut { peer },
            None => PeerRequest::StopConnecting { connection: key },
        });
        Some(ended)
    }

    fn forget_connection(&mut self, key: ConnectionKey) -> Option<Connection> {
        let connection = self.connections.remove(key)?;
        if let Some(allocation) = self.allocations.get_mut(connection.allocation) {
            allocation.connections.retain(|&other| other != key);
        }
        self.charge(connection.user, connection.unpaid, connection.relayed_at);
        Some(connection)
    }

    /// One more, if the allocation and its user may have it.
    fn add_connection(&mut self, key: AllocationKey, peer: SocketAddr, stage: Stage) -> Option<(ConnectionKey, u32)> {
        let TurnQuotas { connections, connections_per_user, .. } = self.spec.quotas;
        let allocation = self.allocations.get_mut(key)?;
        if connections > 0 && allocation.connections.len() >= connections as usize {
            return None;
        }
        let user = self.ledger.user(&self.accounts.get(allocation.owner.account)?.user);
        let hold = self.ledger.hold_connection(user, connections_per_user)?;
        let (connection, id) = self.connections.insert(key, (user, hold), peer, stage, &mut self.random);
        allocation.connections.push(connection);
        Some((connection, id))
    }

    fn has_connection(&self, allocation: &Allocation, peer: SocketAddr) -> bool {
        let mut connections = allocation.connections.iter().filter_map(|&key| self.connections.get(key));
        connections.any(|connection| connection.peer == peer)
    }

    fn named_connection(&self, message: &Message<'_>) -> Option<(ConnectionKey, &Connection)> {
        let id = <[u8; 4]>::try_from(message.attribute(attribute::CONNECTION_ID)?).ok()?;
        self.connections.named(u32::from_be_bytes(id))
    }

    /// So many bytes were relayed by a connection that gets no more.
    fn charge(&self, user: User, bytes: u32, now: Now) {
        let quotas = &self.spec.quotas;
        if bytes > 0 && quotas.user_bps > 0 {
            self.ledger.bandwidth_of(user, quotas.user_bps).charge(bytes as usize, now);
        }
        self.bandwidth.charge(bytes as usize, now);
    }

    /// So many bytes more for a connection that pays for what it relayed, now or when there is bandwidth again.
    fn grant(&mut self, key: ConnectionKey, bytes: u32, now: Now) {
        let Some(connection) = self.connections.get(key) else { return };
        let Some(peer) = connection.stream() else { return };
        if bytes == 0 {
            return;
        }
        match self.spend(connection.allocation, connection.unpaid as usize, now) {
            Ok(()) => {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.unpaid = 0;
                }
                self.relays.peer_requests.push(PeerRequest::Grant { peer, bytes });
            }
            Err(_) => {
                // Whoever comes later does not keep those waiting who came before.
                if self.connections.waiting.is_empty() {
                    self.connections.grant_at = now + GRANT_INTERVAL;
                }
                self.connections.waiting.push_back((key, bytes));
            }
        }
    }
}

/// Whether a client comes by TCP, with or without TLS: only then are there bytes to relay (RFC 6062 §5.1, §5.4).
pub(super) fn is_stream(client: Client) -> bool {
    matches!(client.transport, TurnTransport::Tcp | TurnTransport::Tls)
}

/// Bytes that a connection may relay before it asks again: a twentieth of a second of what its user may.
fn credit(quotas: &TurnQuotas) -> u32 {
    let bounds = [quotas.user_bps, quotas.total_bps].into_iter().filter(|&bps| bps > 0);
    let share = bounds.min().map_or(u64::MAX, |bps| bps / 8 / 20);
    share.clamp(CREDIT_MIN, CREDIT_MAX) as u32
}

/// The least that is worth a turn of both threads.
const CREDIT_MIN: u64 = 1500;
/// As much as is relayed while a worker takes a few turns.
const CREDIT_MAX: u64 = 256 * 1024;
/// How soon those who wait for bandwidth try again.
const GRANT_INTERVAL: Duration = Duration::from_millis(20);
/// A header, an address of IPv6 and a number.
const INDICATION_SIZE_MAX: usize = 64;
