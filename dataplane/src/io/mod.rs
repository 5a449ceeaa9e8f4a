//! Links: what moves datagrams between a worker and its sockets.
//!
//! | link | how | when |
//! | --- | --- | --- |
//! | [`uring`] | io_uring: one system call per turn for sends, receives, the timer and wake-ups | where the kernel lets us |
//! | [`mmsg`] | `ppoll`, `recvmmsg`, `sendmmsg` | where io_uring is missing or forbidden |
//! | [`memory`] | two queues | tests and benches |
//!
//! Both kernel links send trains with `UDP_SEGMENT`. [`open()`] picks one and says why.

mod address;
pub mod memory;
pub mod mmsg;
pub mod open;
mod send;
pub mod socket;
#[cfg(test)]
mod tests;
pub mod uring;
mod wake;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ringmain_shared::drop_reason::DropReason;

use crate::buf::{RxBatch, TxBatch, TxSlot};
pub use open::{LinkChoice, OpenError, Opened, open};
pub use wake::WakeHandle;

/// A socket of a link, by its place in the list that the link was opened with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct SocketIndex(pub u8);

/// Which local socket, and who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Path {
    /// Ours.
    pub socket: SocketIndex,
    /// Theirs.
    pub remote: SocketAddr,
}

/// Sockets of one link: local addresses of a host, IPv4 and IPv6.
pub const SOCKETS_MAX: usize = 16;

/// Receives of one socket that may fail in a row before the link gives up. An error that a socket reports once is gone by then.
const RECEIVE_FAILURES_MAX: u32 = 64;
const _: () = assert!(SOCKETS_MAX <= u8::MAX as usize, "a SocketIndex is a u8");

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

    /// What it did since it was opened. Asks the kernel, so once a second rather than once a turn.
    fn counters(&self) -> LinkCounters;

    /// `io_uring`, `mmsg` or `memory`.
    fn name(&self) -> &'static str;
}

/// The way out of a link.
pub trait Transmit {
    /// Where to put datagrams.
    fn batch(&mut self) -> &mut TxBatch;

    /// Room for a datagram of up to `size_max` bytes; a full batch is flushed for it.
    fn reserve(&mut self, path: Path, size_max: usize) -> Option<TxSlot<'_>> {
        if !self.batch().has_room(size_max) {
            self.flush();
        }
        self.batch().reserve(path, size_max)
    }

    /// Hands every train to the kernel and empties the batch. The io_uring link sends at the latest in the next `receive`.
    fn flush(&mut self);

    /// Ends another link's sleep, at the latest in the next `receive`. Cheaper than [`WakeHandle::wake`] between io_uring links.
    fn wake(&mut self, peer: &WakeHandle);
}

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
    /// Datagrams longer than `limits::DATAGRAM_SIZE_MAX` (`DropReason::RxTruncated`).
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
