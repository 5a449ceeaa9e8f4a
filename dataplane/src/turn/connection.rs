//! Connections of peers (RFC 6062), from a Connect or an arrival until they are over: whose each is, and what it waits for.
//! Owns their names, their lifetimes and their number; the sockets and the bytes are the stream thread's.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use foldhash::fast::RandomState;
use ringmain_shared::Now;
use slotmap::SlotMap;

use super::allocation::AllocationKey;
use super::ledger::{Hold, User};
use super::relay::RelayKey;
use super::reply::ReplyTo;
use crate::io::Path;
use crate::random::Random;
use crate::stream::StreamId;

slotmap::new_key_type! {
    /// A peer's connection. Comes back with what became of it.
    pub struct ConnectionKey;
}

/// What the stream thread is asked to do for relayed addresses of TCP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerRequest {
    /// Accept connections of peers, and say whether that is so by [`Turn::handle_listening`](super::Turn::handle_listening).
    Listen {
        /// Comes back, and with each connection.
        relay: RelayKey,
        /// Where.
        address: SocketAddr,
    },
    /// Accept no more. Asked also where it could not be done.
    StopListening {
        /// As in `Listen`.
        relay: RelayKey,
    },
    /// Connect to a peer, and say what became of it by [`Turn::handle_connected`](super::Turn::handle_connected).
    Connect {
        /// Comes back.
        connection: ConnectionKey,
        /// From this relayed address.
        local: SocketAddr,
        /// The peer, which is allowed.
        peer: SocketAddr,
        /// The peer is one of our own relayed addresses: to be reached only if we listen there, for else it is somebody else's.
        relayed: bool,
    },
    /// Nobody waits for it any more.
    StopConnecting {
        /// As in `Connect`.
        connection: ConnectionKey,
    },
    /// What comes by the one goes by the other from here on, as far as there is credit.
    Join {
        /// The client's connection.
        client: Path,
        /// The peer's.
        peer: StreamId,
        /// The last message to the client, before the bytes.
        answer: Vec<u8>,
    },
    /// So many bytes more may be relayed, both ways together.
    Grant {
        /// The peer's connection.
        peer: StreamId,
        /// How many.
        bytes: u32,
    },
    /// End a peer's connection at once, and that of the client which is joined to it.
    Cut {
        /// The peer's.
        peer: StreamId,
    },
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) allocation: AllocationKey,
    pub(super) user: User,
    /// What it counts against.
    _hold: Hold,
    /// The peer, as it is sent to.
    pub(super) peer: SocketAddr,
    /// CONNECTION-ID (RFC 6062 §6.2.1).
    pub(super) id: u32,
    pub(super) stage: Stage,
    /// Bytes that were relayed and took nothing of the bandwidth yet.
    pub(super) unpaid: u32,
    /// When the last bytes were.
    pub(super) relayed_at: Now,
}

/// How far a connection is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Asked for. The client waits for the answer.
    Connecting(Box<ReplyTo>),
    /// There, and its client may bind it until then.
    Unbound { stream: StreamId, until: Now },
    /// Joined to a client's.
    Bound { stream: StreamId },
}

impl Connection {
    /// Its socket, once there is one.
    pub(super) fn stream(&self) -> Option<StreamId> {
        match self.stage {
            Stage::Connecting(_) => None,
            Stage::Unbound { stream, .. } | Stage::Bound { stream } => Some(stream),
        }
    }
}

/// The connections of a worker.
#[derive(Debug, Default)]
pub(super) struct Connections {
    connections: SlotMap<ConnectionKey, Connection>,
    by_id: HashMap<u32, ConnectionKey, RandomState>,
    by_stream: HashMap<StreamId, ConnectionKey, RandomState>,
    /// Clients' connections that carry no messages any more.
    pub(super) joined: HashSet<Path, RandomState>,
    /// In the order in which they are to be bound.
    unbound: VecDeque<(Now, ConnectionKey)>,
    /// Those that wait for so many bytes of credit, in the order in which they get it.
    pub(super) waiting: VecDeque<(ConnectionKey, u32)>,
    /// When these are looked at again.
    pub(super) grant_at: Now,
    /// Whose those are that were cut: what they relayed until then is still to be told.
    pub(super) cut: HashMap<StreamId, User, RandomState>,
}

impl Connections {
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// A new one, with a name that nobody can guess.
    pub(super) fn insert(
        &mut self,
        allocation: AllocationKey,
        (user, hold): (User, Hold),
        peer: SocketAddr,
        stage: Stage,
        random: &mut Random,
    ) -> (ConnectionKey, u32) {
        loop {
            let id = (random.next_u64() >> 32) as u32;
            let Entry::Vacant(vacant) = self.by_id.entry(id) else { continue };
            let (unpaid, relayed_at) = (0, Now(0));
            let new = Connection { allocation, user, _hold: hold, peer, id, stage, unpaid, relayed_at };
            let key = self.connections.insert(new);
            vacant.insert(key);
            return (key, id);
        }
    }

    pub(super) fn get(&self, key: ConnectionKey) -> Option<&Connection> {
        self.connections.get(key)
    }

    pub(super) fn get_mut(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        self.connections.get_mut(key)
    }

    /// The one that a socket belongs to.
    pub(super) fn at(&self, stream: StreamId) -> Option<ConnectionKey> {
        self.by_stream.get(&stream).copied()
    }

    /// The one of a CONNECTION-ID.
    pub(super) fn named(&self, id: u32) -> Option<(ConnectionKey, &Connection)> {
        let key = *self.by_id.get(&id)?;
        Some((key, self.connections.get(key)?))
    }

    /// There is a socket now. Its client has until `until` to bind it.
    pub(super) fn set_unbound(&mut self, key: ConnectionKey, stream: StreamId, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let until = now + BIND_WITHIN;
        connection.stage = Stage::Unbound { stream, until };
        self.by_stream.insert(stream, key);
        // What was bound or ended in time leaves its place in the queue.
        if self.unbound.len() > 2 * self.connections.len() + UNBOUND_SPARE {
            let connections = &self.connections;
            let waits = |key| matches!(connections.get(key), Some(Connection { stage: Stage::Unbound { .. }, .. }));
            self.unbound.retain(|&(_, key)| waits(key));
        }
        self.unbound.push_back((until, key));
    }

    /// It is joined to a client's.
    pub(super) fn set_bound(&mut self, key: ConnectionKey, client: Path) -> Option<StreamId> {
        let connection = self.connections.get_mut(key)?;
        let Stage::Unbound { stream, .. } = connection.stage else { return None };
        connection.stage = Stage::Bound { stream };
        self.joined.insert(client);
        Some(stream)
    }

    /// The next one that was not bound in time.
    pub(super) fn pop_overdue(&mut self, now: Now) -> Option<ConnectionKey> {
        while let Some((_, key)) = self.unbound.pop_front_if(|(until, _)| *until <= now) {
            if let Some(Connection { stage: Stage::Unbound { .. }, .. }) = self.connections.get(key) {
                return Some(key);
            }
        }
        None
    }

    /// When something of this is due.
    pub(super) fn next_deadline(&self) -> Option<Now> {
        let unbound = self.unbound.front().map(|&(until, _)| until);
        let grant = (!self.waiting.is_empty()).then_some(self.grant_at);
        unbound.into_iter().chain(grant).min()
    }

    /// An end to one.
    pub(super) fn remove(&mut self, key: ConnectionKey) -> Option<Connection> {
        let connection = self.connections.remove(key)?;
        self.by_id.remove(&connection.id);
        if let Some(stream) = connection.stream() {
            self.by_stream.remove(&stream);
        }
        Some(connection)
    }
}

/// RFC 6062 §5.2, §5.3: a connection that is not bound by then is closed.
pub(super) const BIND_WITHIN: Duration = Duration::from_secs(30);
/// Places of what waits no longer that are not worth clearing away.
const UNBOUND_SPARE: usize = 256;
