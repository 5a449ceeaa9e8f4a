//! Links: what moves datagrams between a worker and its sockets.
//!
//! | link | how | when |
//! | --- | --- | --- |
//! | [`uring`] | io_uring: one system call per turn for sends, receives, the timer and wake-ups | where the kernel lets us |
//! | [`mmsg`] | `ppoll`, `recvmmsg`, `sendmmsg` | where io_uring is missing or forbidden |
//! | [`memory`] | two queues | tests and benches |
//!
//! Both kernel links send trains with `UDP_SEGMENT`. [`open()`] picks one and says why. A link is opened with the sockets that it keeps
//! (media, TURN) and takes in others while it runs (relays); [`table`] knows which is which.

mod address;
mod diverted;
pub mod memory;
pub mod mmsg;
pub mod open;
mod priority;
mod send;
pub mod socket;
mod table;
#[cfg(test)]
mod tests;
pub mod uring;
mod wake;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use std::{fmt, io};

use ringmain_shared::drop_reason::DropReason;

use crate::buf::{RxBatch, TxBatch, TxSlot};
pub use diverted::Diverted;
pub use open::{LinkChoice, OpenError, Opened, open};
pub use priority::give_way;
pub use wake::WakeHandle;

/// A socket of a link. The sockets that a link was opened with come first, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct SocketIndex(pub u16);

impl SocketIndex {
    /// From here on, an index names no socket of the kernel's. What is sent there is picked up from [`Transmit::diverted`].
    pub const VIRTUAL_FIRST: u16 = 1 << 15;
    /// From here up to those of TURN's clients, those that stand for connections of ICE-TCP (RFC 6544).
    pub const STREAM_FIRST: u16 = Self::VIRTUAL_FIRST;
    /// From here up to the links, those that stand for connections of TURN's clients.
    pub const TURN_STREAM_FIRST: u16 = 5 << 13;
    /// From here on, those that stand for links of TURN to our own media: what is sent there goes to a client, with a header of TURN.
    pub const LINK_FIRST: u16 = 3 << 14;

    /// Whether it names a connection of ICE-TCP.
    #[inline]
    pub fn is_ice_stream(self) -> bool {
        (Self::STREAM_FIRST..Self::TURN_STREAM_FIRST).contains(&self.0)
    }

    /// Whether it names a link of TURN.
    #[inline]
    pub fn is_link(self) -> bool {
        self.0 >= Self::LINK_FIRST
    }

    /// Which link it names, if any.
    #[inline]
    pub fn link_number(self) -> Option<usize> {
        self.0.checked_sub(Self::LINK_FIRST).map(usize::from)
    }

    /// Whether it names no socket of the kernel's.
    #[inline]
    pub fn is_virtual(self) -> bool {
        self.0 >= Self::VIRTUAL_FIRST
    }
}

/// Which local socket, and who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Path {
    /// Ours.
    pub socket: SocketIndex,
    /// Theirs.
    pub remote: SocketAddr,
}

/// Sockets that a link is opened with: local addresses of a host, IPv4 and IPv6, for media and for TURN.
pub const FIXED_SOCKETS_MAX: usize = 16;
/// Sockets that a link may take in while it runs: the relay ports of one worker.
pub const ADDED_SOCKETS_MAX: usize = 16 * 1024;
/// Sockets of one link.
pub const SOCKETS_MAX: usize = FIXED_SOCKETS_MAX + ADDED_SOCKETS_MAX;
const _: () = assert!(SOCKETS_MAX <= SocketIndex::VIRTUAL_FIRST as usize, "real and virtual sockets are told apart");

/// Receives of one socket that may fail in a row before the link gives up: itself, if it was opened with that socket, else only the
/// socket. An error that a socket reports once is gone by then.
const RECEIVE_FAILURES_MAX: u32 = 64;

/// Moves datagrams. Used by one thread; it may be made on another.
pub trait Link: Send {
    /// Sleeps until a datagram, a wake-up or `timeout` (`None`: for ever), then takes in everything that is there, up to a batch.
    /// A signal also ends the sleep. An error means that the link no longer works.
    fn receive(&mut self, timeout: Option<Duration>) -> io::Result<Received>;

    /// The datagrams of this turn beside the way out, so that both can be used at once. The former go back to the kernel at the
    /// next `receive`.
    fn parts(&mut self) -> (&mut RxBatch, &mut dyn Transmit);

    /// What ends this link's sleep, from any thread.
    fn wake_handle(&self) -> WakeHandle;

    /// Takes in a bound socket: its datagrams come from the next `receive` on. A refusal closes the socket and nothing else.
    fn open(&mut self, socket: UdpSocket) -> Result<SocketIndex, SocketRefused>;

    /// Sends what is in the batch, then lets go of a socket that `open` took in. Nothing of it comes in any `receive` from here on,
    /// and its port is free after the next one or two. False when there is no such socket, or the link was opened with it.
    fn close(&mut self, socket: SocketIndex) -> bool;

    /// What it did since it was opened. Asks the kernel, so once a second rather than once a turn.
    fn counters(&mut self) -> LinkCounters;

    /// `io_uring`, `mmsg` or `memory`.
    fn name(&self) -> &'static str;
}

/// The way out of a link.
pub trait Transmit {
    /// Where to put datagrams.
    fn batch(&mut self) -> &mut TxBatch;

    /// Room for a datagram of up to `size_max` bytes; a batch that is full, or full enough, is flushed for it.
    fn reserve(&mut self, path: &Path, size_max: usize) -> Result<TxSlot<'_>, DropReason> {
        let batch = self.batch();
        if batch.is_ripe(path) || !batch.has_room(size_max) {
            self.flush();
        }
        self.batch().reserve_at(path, size_max)
    }

    /// Hands every train to the kernel and empties the batch.
    fn flush(&mut self);

    /// Nothing more is sent in this turn: as `flush`, at the latest in the next `receive`. Until then nothing can be reserved.
    fn end_turn(&mut self) {
        self.flush();
    }

    /// What was flushed to virtual sockets and waits to be carried on.
    fn diverted(&mut self) -> &mut Diverted;

    /// Ends another link's sleep, at the latest in the next `receive`. Cheaper than [`WakeHandle::wake`] between io_uring links.
    fn wake(&mut self, peer: &WakeHandle);
}

/// Why a link did not take in a socket.
#[derive(Debug)]
pub enum SocketRefused {
    /// It has `SOCKETS_MAX`.
    TooMany,
    /// The kernel said no.
    Kernel(io::Error),
}

impl fmt::Display for SocketRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketRefused::TooMany => write!(f, "a worker has at most {SOCKETS_MAX} sockets"),
            SocketRefused::Kernel(error) => write!(f, "the kernel took no further socket: {error}"),
        }
    }
}

impl std::error::Error for SocketRefused {}

/// What a `receive` found, besides datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Received {
    /// Someone called for us.
    pub woken: bool,
}

/// What a link did since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkCounters {
    /// Datagrams taken in.
    pub received: u64,
    /// Bytes of their UDP payload.
    pub received_bytes: u64,
    /// Datagrams that the kernel took.
    pub sent: u64,
    /// Bytes of their UDP payload.
    pub sent_bytes: u64,
    /// Sends that they took.
    pub trains: u64,
    /// Datagrams dropped because the socket's receive buffer was full (`DropReason::RxFull`).
    pub rx_full: u64,
    /// Datagrams longer than `limits::RECEIVED_SIZE_MAX` (`DropReason::RxTruncated`).
    pub rx_truncated: u64,
    /// Datagrams that the kernel refused to send (`DropReason::SendFailed`).
    pub send_failed: u64,
    /// Of those, the ones refused because the socket's send buffer was full.
    pub send_blocked: u64,
    /// Trains refused as a whole and sent again one by one; see [`uring`].
    pub gso_fallbacks: u64,
    /// Times that a receive stopped for want of a buffer. What came meanwhile waited in the socket's receive buffer.
    pub starved: u64,
    /// Times that a receive ended with an error and was begun anew.
    pub receive_errors: u64,
    /// Times that the completion queue was found overflown. The kernel keeps what did not fit.
    pub cq_overflows: u64,
    /// Completions that answered nothing outstanding, and were ignored.
    pub stale: u64,
}

impl LinkCounters {
    /// The drops among them, by reason.
    pub fn drops(&self) -> [(DropReason, u64); 3] {
        [
            (DropReason::RxFull, self.rx_full),
            (DropReason::RxTruncated, self.rx_truncated),
            (DropReason::SendFailed, self.send_failed),
        ]
    }
}
