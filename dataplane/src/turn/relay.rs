//! Relayed addresses, and the sockets behind them. A socket is asked for when a peer needs it and not before: a client that talks to
//! our own media only has an address and no socket.
//!
//! A port may be shared by many allocations. Then a peer's address and port belong to the one that talked to it first; a datagram of
//! a peer that belongs to nobody goes to the only allocation that permits its address, if there is only one.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use foldhash::fast::RandomState;
use ringmain_shared::DropReason;
use ringmain_shared::turn::RelayProtocol;
use slotmap::SlotMap;

use super::allocation::AllocationKey;
use super::connection::PeerRequest;
use crate::io::SocketIndex;

slotmap::new_key_type! {
    /// A relayed address. Comes back with the socket that was asked for.
    pub struct RelayKey;
}

/// What the run loop is asked to do with sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketRequest {
    /// Bind one, and say what became of it by [`Turn::handle_socket`](super::Turn::handle_socket).
    Open {
        /// Comes back.
        relay: RelayKey,
        /// Where to bind it.
        address: SocketAddr,
        /// What does not fit the path is to be refused, not fragmented (RFC 8656 §15).
        dont_fragment: bool,
    },
    /// Close one.
    Close(SocketIndex),
}

/// One relayed address.
#[derive(Debug)]
pub(super) struct Relay {
    /// As clients and peers see it.
    pub(super) outer: SocketAddr,
    /// As it is bound.
    pub(super) inner: SocketAddr,
    protocol: RelayProtocol,
    pub(super) socket: Socket,
    pub(super) holder: Holder,
    /// Allocations with a request that waits for the socket.
    pub(super) waiting: Vec<AllocationKey>,
}

impl Relay {
    /// Its socket, if it is open.
    #[inline]
    pub(super) fn open_socket(&self) -> Option<SocketIndex> {
        match self.socket {
            Socket::Open(socket) => Some(socket),
            _ => None,
        }
    }

    /// Whose is what this peer sends.
    #[inline]
    pub(super) fn receiver(&self, peer: SocketAddr) -> Result<AllocationKey, DropReason> {
        match &self.holder {
            Holder::One(key) => Ok(*key),
            Holder::Many(sharing) => {
                sharing.claimed(peer).or_else(|| sharing.only(peer.ip())).ok_or(DropReason::TurnNoPermission)
            }
        }
    }
}

/// Whether there is a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Socket {
    Unopened,
    Opening,
    Open(SocketIndex),
    /// The stream thread listens there.
    Listening,
    /// It could not be bound. A request may try again; what merely sends does not.
    Failed,
}

/// Whose a relayed address is.
#[derive(Debug)]
pub(super) enum Holder {
    One(AllocationKey),
    Many(Box<Sharing>),
}

/// Who may get a peer's datagrams on a shared port.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    pub(super) allocations: usize,
    claims: HashMap<SocketAddr, AllocationKey, RandomState>,
    permitted: HashMap<IpAddr, Vec<AllocationKey>, RandomState>,
}

impl Sharing {
    /// The allocation that talks to this peer.
    pub(super) fn claimed(&self, peer: SocketAddr) -> Option<AllocationKey> {
        self.claims.get(&peer).copied()
    }

    /// The peer's datagrams are this allocation's from now on.
    pub(super) fn claim(&mut self, peer: SocketAddr, by: AllocationKey) {
        self.claims.insert(peer, by);
    }

    /// No longer, if they were.
    pub(super) fn unclaim(&mut self, peer: SocketAddr, by: AllocationKey) {
        if self.claims.get(&peer) == Some(&by) {
            self.claims.remove(&peer);
        }
    }

    /// The allocation permits this address.
    pub(super) fn permit(&mut self, ip: IpAddr, by: AllocationKey) {
        let permitted = self.permitted.entry(ip).or_default();
        if !permitted.contains(&by) {
            permitted.push(by);
        }
    }

    /// No longer.
    pub(super) fn forbid(&mut self, ip: IpAddr, by: AllocationKey) {
        if let Some(permitted) = self.permitted.get_mut(&ip) {
            permitted.retain(|&key| key != by);
            if permitted.is_empty() {
                self.permitted.remove(&ip);
            }
        }
    }

    /// The allocation permits nothing any more.
    pub(super) fn forget(&mut self, by: AllocationKey) {
        self.permitted.retain(|_, permitted| {
            permitted.retain(|&key| key != by);
            !permitted.is_empty()
        });
    }

    /// The only allocation that permits this address.
    pub(super) fn only(&self, ip: IpAddr) -> Option<AllocationKey> {
        match self.permitted.get(&ip).map(Vec::as_slice) {
            Some(&[only]) => Some(only),
            _ => None,
        }
    }
}

/// All relayed addresses of a worker.
#[derive(Debug, Default)]
pub(super) struct Relays {
    relays: SlotMap<RelayKey, Relay>,
    /// By socket, which are few and dense.
    by_socket: Vec<Option<RelayKey>>,
    /// Those with a socket, by the address that it is bound to.
    by_address: HashMap<SocketAddr, RelayKey, RandomState>,
    open: usize,
    pub(super) requests: Vec<SocketRequest>,
    pub(super) peer_requests: Vec<PeerRequest>,
}

impl Relays {
    pub(super) fn insert(&mut self, outer: SocketAddr, inner: SocketAddr, holder: Holder) -> RelayKey {
        self.insert_for(RelayProtocol::Udp, outer, inner, holder)
    }

    /// One of TCP, which is nobody else's.
    pub(super) fn insert_tcp(&mut self, outer: SocketAddr, inner: SocketAddr, holder: AllocationKey) -> RelayKey {
        self.insert_for(RelayProtocol::Tcp, outer, inner, Holder::One(holder))
    }

    fn insert_for(
        &mut self,
        protocol: RelayProtocol,
        outer: SocketAddr,
        inner: SocketAddr,
        holder: Holder,
    ) -> RelayKey {
        let (socket, waiting) = (Socket::Unopened, Vec::new());
        self.relays.insert(Relay { outer, inner, protocol, socket, holder, waiting })
    }

    #[inline]
    pub(super) fn get(&self, key: RelayKey) -> Option<&Relay> {
        self.relays.get(key)
    }

    /// The shared state of a port, if it is a shared one.
    pub(super) fn sharing(&mut self, key: RelayKey) -> Option<&mut Sharing> {
        match &mut self.relays.get_mut(key)?.holder {
            Holder::Many(sharing) => Some(sharing),
            Holder::One(_) => None,
        }
    }

    /// The one whose socket is bound to this address.
    #[inline]
    pub(super) fn bound_to(&self, address: SocketAddr) -> Option<&Relay> {
        self.relays.get(*self.by_address.get(&address)?)
    }

    /// The relayed address that a socket is bound to.
    #[inline]
    pub(super) fn at(&self, socket: SocketIndex) -> Option<&Relay> {
        let key = *self.by_socket.get(usize::from(socket.0))?;
        self.relays.get(key?)
    }

    /// Sockets that are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Asks for the socket of a relayed address. Whether it is still to come.
    pub(super) fn want(&mut self, key: RelayKey, waiter: Option<AllocationKey>, dont_fragment: bool) -> bool {
        let Some(relay) = self.relays.get_mut(key) else { return false };
        if matches!(relay.socket, Socket::Open(_) | Socket::Listening) {
            return false;
        }
        if relay.socket == Socket::Unopened || (relay.socket == Socket::Failed && waiter.is_some()) {
            relay.socket = Socket::Opening;
            let address = relay.inner;
            match relay.protocol {
                RelayProtocol::Udp => {
                    self.requests.push(SocketRequest::Open { relay: key, address, dont_fragment });
                }
                RelayProtocol::Tcp => self.peer_requests.push(PeerRequest::Listen { relay: key, address }),
            }
        }
        relay.waiting.extend(waiter.filter(|waiter| !relay.waiting.contains(waiter)));
        true
    }

    /// An allocation waits for the socket no longer. Whether it did.
    pub(super) fn stop_waiting(&mut self, key: RelayKey, waiter: AllocationKey) -> bool {
        let Some(relay) = self.relays.get_mut(key) else { return false };
        let before = relay.waiting.len();
        relay.waiting.retain(|&waiting| waiting != waiter);
        relay.waiting.len() < before
    }

    /// What became of a request. Those who waited for it.
    pub(super) fn opened(&mut self, key: RelayKey, socket: Option<SocketIndex>) -> Vec<AllocationKey> {
        let Some(relay) = self.relays.get_mut(key) else {
            // Gone meanwhile.
            self.requests.extend(socket.map(SocketRequest::Close));
            return Vec::new();
        };
        relay.socket = socket.map_or(Socket::Failed, Socket::Open);
        let waiting = std::mem::take(&mut relay.waiting);
        if let Some(socket) = socket {
            let at = usize::from(socket.0);
            if self.by_socket.len() <= at {
                self.by_socket.resize(at + 1, None);
            }
            if let Some(place) = self.by_socket.get_mut(at) {
                *place = Some(key);
            }
            self.by_address.insert(relay.inner, key);
            self.open += 1;
        }
        waiting
    }

    /// What became of a listener. Those who waited for it.
    pub(super) fn listening(&mut self, key: RelayKey, listens: bool) -> Vec<AllocationKey> {
        let Some(relay) = self.relays.get_mut(key).filter(|relay| relay.socket == Socket::Opening) else {
            return Vec::new();
        };
        relay.socket = if listens { Socket::Listening } else { Socket::Failed };
        self.open += usize::from(listens);
        std::mem::take(&mut relay.waiting)
    }

    /// An end to a relayed address and its socket.
    pub(super) fn remove(&mut self, key: RelayKey) {
        let Some(relay) = self.relays.remove(key) else { return };
        if let Socket::Open(socket) = relay.socket {
            self.by_address.remove(&relay.inner);
            if let Some(place) = self.by_socket.get_mut(usize::from(socket.0)) {
                *place = None;
            }
            self.open -= 1;
            self.requests.push(SocketRequest::Close(socket));
        }
        if relay.protocol == RelayProtocol::Tcp && relay.socket != Socket::Unopened {
            self.open -= usize::from(relay.socket == Socket::Listening);
            self.peer_requests.push(PeerRequest::StopListening { relay: key });
        }
    }
}
