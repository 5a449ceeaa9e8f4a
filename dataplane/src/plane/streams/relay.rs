//! TCP to the peers of relays (RFC 6062): connections that a worker asks for or that come to a relayed address, and their joining with
//! a client's. Until they are joined, nothing is read from a peer; from then on as much as there is credit for. The end of one is the
//! end of both (§5.5), once what it sent is written.
//!
//! Whom somebody may reach is the worker's to say: what it asks for is allowed, and it has us close what arrived and is not.

use std::collections::hash_map::Entry;
use std::io;
use std::net::SocketAddr;

use mio::Registry;
use mio::net::{TcpListener, TcpStream};
use ringmain_shared::Now;
use socket2::{Domain, Socket as Socket2, Type};

use super::meter::Meter;
use super::stream::{Role, Socket, Stream};
use super::{Content, Listens, PAIR_ROOM, READ_SIZE, Streams};
use crate::plane::stream_loop::Workers;
use crate::stream::connection::{Connection, End};
use crate::stream::queue::QUEUE_SIZE_MAX;
use crate::stream::{FromStream, PeerNews, PeerOrder, StreamId};

impl Streams {
    pub(super) fn handle_peer_order(
        &mut self,
        worker: usize,
        order: PeerOrder,
        registry: &Registry,
        now: Now,
        workers: &mut Workers,
    ) {
        match order {
            PeerOrder::Connect { request, local, peer, relayed } => {
                let refused = relayed && !self.is_listening(peer);
                if refused || self.connect(worker, request, local, peer, registry, now).is_err() {
                    workers.give(worker, FromStream::Peer(PeerNews::Connected { request, peer: None }));
                }
            }
            PeerOrder::StopConnecting { request } => {
                if let Some(slot) = self.connecting.remove(&(worker, request)) {
                    self.remove(slot, registry);
                }
            }
            PeerOrder::Listen { request, address } => {
                let address = self.listen_for_peers(worker, request, address, registry).ok();
                workers.give(worker, FromStream::Peer(PeerNews::Listening { request, address }));
            }
            PeerOrder::StopListening { request } => {
                if let Some((slot, _)) = self.relays.remove(&(worker, request)) {
                    self.remove(slot, registry);
                }
            }
            PeerOrder::Admit { peer } => {
                let at = self.find(peer).and_then(|slot| self.stream_mut(slot)?.unjudged.take());
                self.judged(at);
            }
            PeerOrder::Join { client, peer, answer } => self.join(client, peer, &answer, registry, now, workers),
            PeerOrder::Grant { peer, bytes } => self.grant(peer, bytes),
            PeerOrder::Cut { peer } => self.cut(peer, registry, now, workers),
        }
    }

    pub(super) fn accept_peer(
        &mut self,
        socket: TcpStream,
        remote: SocketAddr,
        worker: usize,
        request: u64,
        registry: &Registry,
        now: Now,
    ) -> Option<StreamId> {
        let at = (worker, request);
        // Anybody can come here. Places are for those whom a worker permits, but for a few while it looks at them.
        if self.unjudged.get(&at).is_some_and(|&count| count >= UNJUDGED_MAX) {
            self.stats.refused += 1;
            return None;
        }
        let local = socket.local_addr().ok()?;
        let slot = self.insert_peer(socket, worker, Role::Waiting, local, remote, registry, now).ok()?;
        *self.unjudged.entry(at).or_default() += 1;
        if let Some(stream) = self.stream_mut(slot) {
            stream.unjudged = Some(at);
        }
        Some(self.id(slot))
    }

    /// One of those who came to this listener is permitted, or gone.
    pub(super) fn judged(&mut self, at: Option<(usize, u64)>) {
        let Some(at) = at else { return };
        if let Entry::Occupied(mut count) = self.unjudged.entry(at) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn connect(
        &mut self,
        worker: usize,
        request: u64,
        local: SocketAddr,
        remote: SocketAddr,
        registry: &Registry,
        now: Now,
    ) -> io::Result<()> {
        let socket = relay_socket(local)?;
        match socket.connect(&remote.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let socket = TcpStream::from_std(socket.into());
        let role = Role::Connecting { worker, request };
        let slot = self.insert_peer(socket, worker, role, local, remote, registry, now)?;
        self.connecting.insert((worker, request), slot);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "what a stream is made of")]
    fn insert_peer(
        &mut self,
        socket: TcpStream,
        worker: usize,
        role: Role,
        local: SocketAddr,
        remote: SocketAddr,
        registry: &Registry,
        now: Now,
    ) -> io::Result<usize> {
        if self.peers >= self.peers_max {
            self.stats.refused += 1;
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        // What relays wait for is not held back to fill a segment.
        let _ = socket.set_nodelay(true);
        let mut stream = Stream::new(Socket::Tcp(socket), Connection::bytes_only(now), local, remote, now);
        (stream.owner, stream.role, stream.meter) = (Some(worker), role, Some(Meter::default()));
        let slot = self.insert(Content::Stream(Box::new(stream)), registry)?;
        self.peers += 1;
        Ok(slot)
    }

    /// Whether a relay of ours listens at this address.
    fn is_listening(&self, at: SocketAddr) -> bool {
        let is_there = |address: &SocketAddr| {
            address.port() == at.port() && (address.ip() == at.ip() || address.ip().is_unspecified())
        };
        self.relays.values().any(|(_, address)| is_there(address))
    }

    fn listen_for_peers(
        &mut self,
        worker: usize,
        request: u64,
        address: SocketAddr,
        registry: &Registry,
    ) -> io::Result<SocketAddr> {
        let socket = relay_socket(address)?;
        socket.listen(RELAY_BACKLOG)?;
        let listener = TcpListener::from_std(socket.into());
        let address = listener.local_addr()?;
        let slot = self.insert(Content::Listener(listener, Listens::Relay { worker, request }), registry)?;
        if let Some((before, _)) = self.relays.insert((worker, request), (slot, address)) {
            self.remove(before, registry);
        }
        Ok(address)
    }

    fn join(
        &mut self,
        client: StreamId,
        peer: StreamId,
        answer: &[u8],
        registry: &Registry,
        now: Now,
        workers: &mut Workers,
    ) {
        let peer = self.find(peer).filter(|&slot| self.stream(slot).is_some_and(|it| it.role == Role::Waiting));
        let Some(client) = self.find(client) else {
            // Gone meanwhile, and the peer's with it.
            peer.into_iter().for_each(|slot| self.end(slot, End::Closed, registry, now, workers));
            return;
        };
        let Some(stream) = self.stream_mut(client) else { return };
        let Role::Turn { worker } = stream.role else { return };
        stream.owner = Some(worker);
        self.prove(client);
        self.send(Some(client), answer, now);
        if let Some(stream) = self.stream_mut(client) {
            stream.connection.become_bytes();
        }
        match peer {
            Some(peer) => self.pair(client, peer),
            None => self.finish(client, now),
        }
    }

    /// So many bytes more between a peer and its client.
    fn grant(&mut self, peer: StreamId, bytes: u32) {
        let Some(slot) = self.find(peer) else { return };
        let Some(stream) = self.stream_mut(slot) else { return };
        if let Some(meter) = &mut stream.meter {
            meter.grant(bytes);
        }
        if let Role::Joined { to } = stream.role {
            self.ready.extend([slot, to]);
        }
    }

    /// An end to a peer's connection and its client's, whatever waits to be written.
    fn cut(&mut self, peer: StreamId, registry: &Registry, now: Now, workers: &mut Workers) {
        let Some(slot) = self.find(peer) else { return };
        let joined = self.stream(slot).and_then(|stream| match stream.role {
            Role::Joined { to } => Some(to),
            _ => None,
        });
        self.end(slot, End::Closed, registry, now, workers);
        joined.into_iter().for_each(|client| self.end(client, End::Closed, registry, now, workers));
    }

    /// Bytes that may be read from one of a pair for the other.
    pub(super) fn room_between(&self, slot: usize, to: usize) -> usize {
        let Some(other) = self.stream(to) else { return READ_SIZE };
        let meter = self.meter_between(slot, to);
        let needed = if meter.is_some() { QUEUE_SIZE_MAX - RELAY_PENDING_MAX } else { PAIR_ROOM };
        match meter {
            _ if !other.connection.has_room(needed) => 0,
            Some(meter) => meter.room().min(READ_SIZE),
            None => READ_SIZE,
        }
    }

    /// The credit of a pair, if one of them is a peer.
    pub(super) fn meter_between(&self, slot: usize, to: usize) -> Option<&Meter> {
        [slot, to].into_iter().find_map(|slot| self.stream(slot)?.meter.as_ref())
    }

    /// So many bytes were given by one of a pair to the other.
    pub(super) fn count_relayed(&mut self, from: usize, to: usize, size: usize, workers: &mut Workers) {
        for (slot, to_client) in [(from, true), (to, false)] {
            let meter = self.stream_mut(slot).and_then(|stream| stream.meter.as_mut());
            if meter.is_some_and(|meter| meter.count(size, to_client)) {
                self.tell_relayed(slot, workers);
            }
        }
    }

    /// Tells what passed since it was last told.
    pub(super) fn tell_relayed(&mut self, slot: usize, workers: &mut Workers) {
        let peer = self.id(slot);
        let Some(stream) = self.stream_mut(slot) else { return };
        let (Some(worker), Some(meter)) = (stream.owner, stream.meter.as_mut()) else { return };
        if let Some((to_peer, to_client)) = meter.take() {
            workers.give(worker, FromStream::Peer(PeerNews::Relayed { peer, to_peer, to_client }));
        }
    }

    /// A connection to a peer was made, or not.
    pub(super) fn connected(
        &mut self,
        slot: usize,
        worker: usize,
        request: u64,
        registry: &Registry,
        now: Now,
        workers: &mut Workers,
    ) {
        let id = self.id(slot);
        let Some(stream) = self.stream_mut(slot) else { return };
        let Socket::Tcp(socket) = &stream.socket else { return };
        match (socket.take_error(), socket.peer_addr()) {
            (Ok(None), Ok(_)) => {
                self.connecting.remove(&(worker, request));
                let Some(stream) = self.stream_mut(slot) else { return };
                (stream.role, stream.since) = (Role::Waiting, now);
                workers.give(worker, FromStream::Peer(PeerNews::Connected { request, peer: Some(id) }));
            }
            (Ok(None), Err(error)) if error.kind() == io::ErrorKind::NotConnected => {}
            _ => self.end(slot, End::Closed, registry, now, workers),
        }
    }
}

/// A socket at a relayed address, where a listener and connections share the port (RFC 6062 §5.2).
fn relay_socket(address: SocketAddr) -> io::Result<Socket2> {
    let socket = Socket2::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Bytes that may wait for one of a relay's pair while more is read from the other.
const RELAY_PENDING_MAX: usize = 64 * 1024;
const _: () = assert!(QUEUE_SIZE_MAX - RELAY_PENDING_MAX >= PAIR_ROOM, "what is read at once finds room");
/// Connections to one listener that its worker has not judged yet.
pub(super) const UNJUDGED_MAX: usize = 16;
/// Peers that wait for a relay to be accepted.
const RELAY_BACKLOG: i32 = 64;
