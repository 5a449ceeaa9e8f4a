//! TCP to the peers of relays (RFC 6062): connections that a worker asks for or that come to a relayed address, and their joining with
//! a client's. Until they are joined, nothing is read from a peer.
//!
//! Nothing of this is reached from outside yet: RFC 6062 is not served, no worker sends [`ToStream`](crate::stream::ToStream)'s `Connect`,
//! `Listen`, `StopListening` or `Join`, and only tests do. Permissions are not looked at here: whoever serves it must refuse, in the
//! worker, to connect to a peer that is not permitted, and close one that arrived and is not.

use std::io;
use std::net::SocketAddr;

use mio::Registry;
use mio::net::{TcpListener, TcpStream};
use ringmain_shared::Now;
use socket2::{Domain, Socket as Socket2, Type};

use super::stream::{Role, Socket, Stream};
use super::{Content, Listens, Streams};
use crate::plane::stream_loop::Workers;
use crate::stream::connection::{Connection, End};
use crate::stream::{FromStream, StreamId};

impl Streams {
    pub(super) fn accept_peer(
        &mut self,
        socket: TcpStream,
        remote: SocketAddr,
        worker: usize,
        registry: &Registry,
        now: Now,
    ) -> Option<StreamId> {
        let local = socket.local_addr().ok()?;
        let mut stream = Stream::new(Socket::Tcp(socket), Connection::bytes_only(now), local, remote, now);
        (stream.owner, stream.role) = (Some(worker), Role::Waiting);
        let slot = self.insert(Content::Stream(Box::new(stream)), registry).ok()?;
        Some(self.id(slot))
    }

    pub(super) fn connect(
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
        let mut stream = Stream::new(Socket::Tcp(socket), Connection::bytes_only(now), local, remote, now);
        (stream.owner, stream.role) = (Some(worker), Role::Connecting { worker, request });
        self.insert(Content::Stream(Box::new(stream)), registry).map(|_| ())
    }

    pub(super) fn listen_for_peers(
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
        if let Some(before) = self.relays.insert((worker, request), slot) {
            self.remove(before, registry);
        }
        Ok(address)
    }

    pub(super) fn join(&mut self, client: StreamId, peer: StreamId) {
        let (Some(client), Some(peer)) = (self.find(client), self.find(peer)) else { return };
        let is_waiting = self.stream(peer).is_some_and(|stream| stream.role == Role::Waiting);
        let Some(stream) = self.stream_mut(client).filter(|_| is_waiting) else { return };
        let Role::Turn { worker } = stream.role else { return };
        stream.owner = Some(worker);
        stream.connection.become_bytes();
        self.pair(client, peer);
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
                (stream.role, stream.since) = (Role::Waiting, now);
                workers.give(worker, FromStream::Connected { request, peer: Some(id) });
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

/// Peers that wait for a relay to be accepted.
const RELAY_BACKLOG: i32 = 64;
