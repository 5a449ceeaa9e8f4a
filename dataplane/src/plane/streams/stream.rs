//! One connection with its socket, and what it is for.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use ringmain_shared::Now;
use socket2::SockRef;

use super::meter::Meter;
use crate::io::Path;
use crate::stream::connection::Connection;

pub(super) struct Stream {
    pub(super) socket: Socket,
    pub(super) connection: Connection,
    pub(super) role: Role,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// It counts as a connection of its address.
    pub(super) counted: Option<IpAddr>,
    /// It is not one that anybody could have: it has, or had, an allocation, a transport, or speaks HTTP.
    pub(super) proved: bool,
    /// It is a peer's, which a worker allows so many bytes.
    pub(super) meter: Option<Meter>,
    /// Who wants to hear that it is gone, besides its role.
    pub(super) owner: Option<usize>,
    /// It came to this listener of a worker's, which has not judged it yet.
    pub(super) unjudged: Option<(usize, u64)>,
    /// Its TLS handshake waits for a later second.
    pub(super) held_back: bool,
    /// The kernel may have more to read.
    pub(super) may_read: bool,
    pub(super) may_write: bool,
    pub(super) since: Now,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Nobody knows yet what it speaks.
    New,
    Turn {
        worker: usize,
    },
    /// The worker is known with the first check.
    Ice {
        path: Path,
        worker: Option<usize>,
    },
    /// To a peer, on its way.
    Connecting {
        worker: usize,
        request: u64,
    },
    /// A peer's, not joined yet: nothing is read.
    Waiting,
    /// Its bytes go to another slot.
    Joined {
        to: usize,
    },
    /// It ends when everything is written.
    Ending,
    /// Everything is written and the other side was told; what it still sends is thrown away.
    Lingering,
}

pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) fn new(socket: Socket, connection: Connection, local: SocketAddr, remote: SocketAddr, now: Now) -> Self {
        Self {
            socket,
            connection,
            role: Role::Ending,
            local,
            remote,
            counted: None,
            proved: false,
            meter: None,
            owner: None,
            unjudged: None,
            held_back: false,
            may_read: false,
            may_write: true,
            since: now,
        }
    }
}

impl Socket {
    pub(super) fn source(&mut self) -> &mut dyn Source {
        match self {
            Socket::Tcp(socket) => socket,
            Socket::Unix(socket) => socket,
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.read(buffer),
            Socket::Unix(socket) => socket.read(buffer),
        }
    }

    /// Has the kernel take no more while so many bytes wait there to be sent. Where it cannot, what waits only grows older.
    pub(super) fn keep_little_unsent(&self, size_max: u32) {
        if let Socket::Tcp(socket) = self {
            let _ = SockRef::from(socket).set_tcp_notsent_lowat(size_max);
        }
    }

    /// The first bytes that a read would give, which stay where they are.
    pub(super) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.peek(buffer),
            Socket::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Tells the other side that nothing more comes.
    pub(super) fn end_writing(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Socket::Unix(socket) => socket.shutdown(Shutdown::Write),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.write(bytes),
            Socket::Unix(socket) => socket.write(bytes),
        }
    }
}
