//! A TURN server (RFC 8656) on one worker, and STUN's Binding (RFC 8489) beside it.
//!
//! Messages of clients come in by [`Turn::handle_client`], datagrams of peers by [`Turn::handle_peer`]; what is to be sent goes into
//! the transmit batch. What else is to be done leaves as values: sockets to open and close, links to set, events. There is no clock
//! and no socket here.
//!
//! In the order of a client's life: [`request`] finds out who asks ([`nonce`], [`credential`], [`token`]), strangers within their
//! [`budget`]; [`allocate`] gives a relayed address ([`ports`], [`relay`]); [`permission`] lets peers in that [`peer`] allows; what
//! takes a socket is [`pending`] until that is open; [`relaying`] moves the packets; [`upkeep`] ends what is over. A peer that is
//! our own media gets a [`link`] instead of a socket, and to one that is a client here as well it is a [`hairpin`]. Peers over TCP (RFC 6062) are [`connection`]s, which [`connect`] lets in and
//! out; their bytes pass by the stream thread.
//! What a NAT does on the way to us can be found out by [`discovery`], without an allocation.
//!
//! What is left out, and why: ICMP errors are not passed on, since sockets do not queue them here; TTL, ECN and DSCP of relayed
//! datagrams are the host's own; a datagram without payload is not relayed.
//!
//! Each worker is a server of its own, with its clients and their allocations. What they count together is in the [`ledger`]: quotas,
//! relay ports, reservations. What they tell each other is in [`between`].

mod allocate;
mod allocation;
mod base64;
mod between;
mod budget;
mod connect;
mod connection;
mod credential;
mod discovery;
mod hairpin;
mod ledger;
mod link;
mod nonce;
mod peer;
mod pending;
mod permission;
mod ports;
mod relay;
mod relaying;
mod reply;
mod request;
#[cfg(test)]
mod tests;
mod token;
mod upkeep;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use ringmain_shared::Now;
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::turn::{RelayMode, TurnEvent, TurnSpec, TurnStats};
use slotmap::SlotMap;

use crate::buf::Bandwidth;
use crate::io::Path;
use crate::random::Random;
use allocation::Allocation;
use between::Whose;
use budget::ReplyBudget;
use connection::Connections;
use credential::{Accounts, Credentials, Expiry};
use link::Links;
use nonce::Nonces;
use peer::Peers;
use ports::{Ports, Reserved, Wish};
use relay::{Holder, Relays, Sharing};
use token::Tokens;

pub use allocation::{AllocationKey, Client};
pub use base64::{decode as decode_base64, encode as encode_base64};
pub use between::{Elsewhere, FarLink, TurnItem};
pub use connection::{ConnectionKey, PeerRequest};
pub use credential::{derive_keys, timed_password};
pub use ledger::{Ledger, User};
pub use link::LinkChange;
pub use peer::is_special;
pub use relay::{RelayKey, SocketRequest};
pub use token::{AccessToken, MacKey, TokenCipher};

/// A TURN server.
#[derive(Debug)]
pub struct Turn {
    index: WorkerIndex,
    spec: TurnSpec,
    /// Nanoseconds since 1970 at `Now(0)`, as it was thought then. Control counts from there too.
    unix_nanos_at_start: u64,
    /// The same as it is known now, for what others say of time.
    wall_nanos_at_start: u64,
    ledger: Arc<Ledger>,
    peers: Peers,
    credentials: Credentials,
    /// `None` without third-party authorization.
    tokens: Option<Tokens>,
    accounts: Accounts,
    nonces: Nonces,
    replies: ReplyBudget,
    bandwidth: Bandwidth,
    ports: Ports,
    /// Ports that many share; empty where each allocation has its own.
    shared: Vec<[Option<RelayKey>; 2]>,
    /// Such ports of before, which are given back with the last allocation on them.
    retired: Vec<(u16, [Option<RelayKey>; 2])>,
    /// Ports that could not be bound, and when to try them again.
    quarantine: VecDeque<(Now, u16)>,
    /// Those made here, in the order in which they end.
    reservations: VecDeque<Reservation>,
    allocations: SlotMap<AllocationKey, Allocation>,
    clients: HashMap<Path, AllocationKey, RandomState>,
    tickets: HashMap<[u8; 16], AllocationKey, RandomState>,
    relays: Relays,
    links: Links,
    /// Where clients are whose allocations are other workers'.
    moved: HashMap<Path, Whose, RandomState>,
    /// Those of them that no worker has told of yet, the oldest first.
    expected: VecDeque<Path>,
    /// Sockets that every worker has at the same address.
    shared_sockets: Range<u16>,
    connections: Connections,
    timers: BinaryHeap<Reverse<(Now, AllocationKey)>>,
    random: Random,
    stats: TurnStats,
    last_id: u64,
    draining: bool,
    events: Vec<TurnEvent>,
    /// Paths of clients whose connections are to end.
    disconnects: Vec<Path>,
}

/// A port kept for a second allocation (RFC 8656 §7.2), which may be on another worker.
#[derive(Debug)]
struct Reservation {
    port: Reserved,
    user: User,
    until: Now,
}

/// A datagram for our own media: the bytes of the client's message at `payload`, as from `path`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForMedia {
    /// A path that answers may take.
    pub path: Path,
    /// Where the datagram is in the message.
    pub payload: Range<usize>,
    /// The worker whose media it is, and by which link, if it is another one.
    pub far: Option<(WorkerIndex, FarLink)>,
}

impl Turn {
    /// A server on the worker `index`; those who are given the same ledger are one server. `seed` makes it unguessable, or repeatable in
    /// a test.
    pub fn new(
        ledger: Arc<Ledger>,
        index: WorkerIndex,
        spec: TurnSpec,
        unix_nanos_at_start: u64,
        seed: [u8; 32],
    ) -> Self {
        let mut turn = Self {
            index,
            unix_nanos_at_start,
            wall_nanos_at_start: unix_nanos_at_start,
            peers: Peers::new(&spec.peers, &spec.relay),
            credentials: Credentials::default(),
            tokens: None,
            accounts: Accounts::default(),
            nonces: Nonces::new(spec.lifetimes.nonce, Arc::clone(&ledger)),
            replies: ReplyBudget::new(Arc::clone(&ledger), spec.quotas.replies_per_source, spec.quotas.replies),
            bandwidth: ledger.bandwidth_of_all(spec.quotas.total_bps),
            ports: Ports::new(Arc::clone(&ledger), index, spec.relay.port_min, spec.relay.port_max),
            ledger,
            shared: Vec::new(),
            retired: Vec::new(),
            quarantine: VecDeque::new(),
            reservations: VecDeque::new(),
            allocations: SlotMap::with_key(),
            clients: HashMap::default(),
            tickets: HashMap::default(),
            relays: Relays::default(),
            links: Links::new(index),
            moved: HashMap::default(),
            expected: VecDeque::new(),
            shared_sockets: 0..0,
            connections: Connections::default(),
            timers: BinaryHeap::new(),
            random: Random::from_seed(seed),
            stats: TurnStats::default(),
            last_id: 0,
            draining: false,
            events: Vec::new(),
            disconnects: Vec::new(),
            spec,
        };
        turn.read_spec();
        turn.lay_out_ports();
        turn
    }

    /// Is another server from now on. Allocations go on as they are, with their ports and keys; their new peers, and what they do
    /// next, are under the new rules. Those of users and keys that are no more, or are others of the same name, end.
    pub fn configure(&mut self, spec: TurnSpec, now: Now) {
        let moved = self.spec.relay != spec.relay;
        let before = std::mem::replace(&mut self.spec, spec);
        self.peers = Peers::new(&self.spec.peers, &self.spec.relay);
        let quotas = self.spec.quotas;
        self.replies = ReplyBudget::new(Arc::clone(&self.ledger), quotas.replies_per_source, quotas.replies);
        self.bandwidth = self.ledger.bandwidth_of_all(quotas.total_bps);
        let ledger = &self.ledger;
        self.accounts.set_bandwidth(|user| ledger.bandwidth_of(ledger.user(user), quotas.user_bps));
        let mut budgets: Vec<_> = self.links.guests().map(|(link, user)| (link, self.guest_budgets(user))).collect();
        for (key, allocation) in &self.allocations {
            budgets.extend(allocation.links.iter().map(|&(_, link)| (link, self.link_budgets(key))));
        }
        budgets.into_iter().for_each(|(link, budgets)| self.links.limit(link, budgets));
        self.nonces.set_lifetime(self.spec.lifetimes.nonce);
        let users = self.read_spec();
        self.end_disowned(&users, before.third_party.as_ref(), now);
        if moved {
            self.lay_out_ports();
        }
    }

    /// Hands out the users that are no more, or have other keys.
    fn read_spec(&mut self) -> HashSet<String, RandomState> {
        self.tokens = self.spec.third_party.as_ref().map(Tokens::new);
        self.credentials.configure(&self.spec.realm, &self.spec.users, &self.spec.secrets)
    }

    /// Decides which ports there are. Those of allocations and reservations stay taken.
    fn lay_out_ports(&mut self) {
        let (min, max) = (self.spec.relay.port_min, self.spec.relay.port_max);
        self.ports = Ports::new(Arc::clone(&self.ledger), self.index, min, max);
        // Shared ports of before end with the last allocation on them.
        for keys in std::mem::take(&mut self.shared) {
            let port = keys.iter().flatten().find_map(|&key| Some(self.relays.get(key)?.outer.port()));
            self.retired.extend(port.map(|port| (port, keys)));
        }
        self.release_retired();
        if let RelayMode::Shared(count) = self.spec.relay.mode {
            for _ in 0..count.max(1) {
                let Some(port) = self.ports.take(Wish::Any, &mut self.random) else { break };
                let mut keys = [None; 2];
                for (place, &(announce, bind)) in keys.iter_mut().zip(self.peers.relays()) {
                    let (outer, inner) = ((announce, port).into(), (bind, port).into());
                    *place = Some(self.relays.insert(outer, inner, Holder::Many(Box::<Sharing>::default())));
                }
                self.shared.push(keys);
            }
        }
    }

    /// Gives back shared ports of before that nobody has any more.
    fn release_retired(&mut self) {
        let Self { retired, relays, ports, .. } = self;
        retired.retain(|&(port, keys)| {
            let mut is_held = false;
            for key in keys.into_iter().flatten() {
                match relays.sharing(key).is_some_and(|sharing| sharing.allocations > 0) {
                    true => is_held = true,
                    false => relays.remove(key),
                }
            }
            if !is_held {
                ports.release(port);
            }
            is_held
        });
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn next_deadline(&self) -> Now {
        let allocation = self.timers.peek().map(|Reverse((at, _))| *at);
        let reservation = self.reservations.front().map(|reservation| reservation.until);
        let quarantine = self.quarantine.front().map(|&(until, _)| until);
        let connection = self.connections.next_deadline();
        let others = [allocation, reservation, quarantine, connection].into_iter().flatten();
        others.fold(self.nonces.next_rotation(), Now::min)
    }

    /// Sockets to open and close, in this order. Emptied by the caller.
    pub fn socket_requests(&mut self) -> &mut Vec<SocketRequest> {
        &mut self.relays.requests
    }

    /// What the stream thread is to do for relayed addresses of TCP, in this order. Emptied by the caller.
    pub fn peer_requests(&mut self) -> &mut Vec<PeerRequest> {
        &mut self.relays.peer_requests
    }

    /// What the worker has to know of links, in this order. Emptied by the caller.
    pub fn link_changes(&mut self) -> &mut Vec<LinkChange> {
        &mut self.links.changes
    }

    /// What control has to know. Emptied by the caller.
    pub fn events(&mut self) -> &mut Vec<TurnEvent> {
        &mut self.events
    }

    /// Paths of clients whose TCP, TLS or DTLS connection is to end with their allocation. Emptied by the caller.
    pub fn disconnects(&mut self) -> &mut Vec<Path> {
        &mut self.disconnects
    }

    /// Counters since the start.
    pub fn stats(&self) -> TurnStats {
        TurnStats {
            allocations: self.allocations.len() as u64,
            sockets: self.relays.open() as u64,
            connections: self.connections.len() as u64,
            ..self.stats
        }
    }

    /// Since 1970, by the wall clock.
    fn unix_time(&self, now: Now) -> Duration {
        Duration::from_nanos(self.wall_nanos_at_start.saturating_add(now.0))
    }

    /// Whether a moment is over, by the clock of whoever named it.
    fn is_over(&self, expiry: Expiry, now: Now) -> bool {
        match expiry {
            Expiry::OfControl(seconds) => seconds <= seconds_since_1970(self.unix_nanos_at_start, now),
            Expiry::OfOthers(seconds) => seconds <= self.unix_time(now).as_secs(),
        }
    }
}

fn seconds_since_1970(unix_nanos_at_start: u64, now: Now) -> u64 {
    unix_nanos_at_start.saturating_add(now.0) / 1_000_000_000
}
