//! The link for hosts where io_uring is missing or forbidden: `ppoll`, then `recvmmsg` and `sendmmsg`, with the same trains.
//!
//! `ppoll` rather than epoll: the descriptors are a handful and never change, and it takes nanoseconds on every kernel.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use ringmain_shared::limits::DATAGRAM_SIZE_MAX;

use super::address::{self, NAME_SIZE, Name};
use super::send::{Refusals, SendHeader, count_sent, handle_refusal, send_singly};
use super::{
    Link, LinkCounters, Path, RECEIVE_FAILURES_MAX, Received, SOCKETS_MAX, SocketIndex, Transmit, WakeHandle, socket,
};
use crate::buf::{RX_BATCH_MAX, RxBatch, TRAINS_PER_BATCH_MAX, TX_ARENA_SIZE, TxBatch};

/// A link on `recvmmsg` and `sendmmsg`.
pub struct MmsgLink {
    rx: RxBatch,
    inbox: Inbox,
    polls: Vec<libc::pollfd>,
    /// Whose turn it is to be read first, so that a flooded socket cannot starve the others.
    first: usize,
    out: MmsgOut,
}

struct MmsgOut {
    sockets: Vec<UdpSocket>,
    batch: TxBatch,
    headers: Box<[SendHeader]>,
    messages: Vec<libc::mmsghdr>,
    refusals: Refusals,
    counters: LinkCounters,
    wake: WakeHandle,
}

/// Headers of `recvmmsg`, one for each place in the batch.
struct Inbox {
    names: Box<[Name]>,
    /// Points into the batch's slab. Never read by us; the headers point to it.
    _vectors: Box<[libc::iovec]>,
    messages: Box<[libc::mmsghdr]>,
    /// Slots that hold datagrams of this batch, or ones that were dropped.
    used: usize,
    failures: u32,
}

// SAFETY: the pointers in its headers are to memory that it owns, none of which is bound to a thread.
unsafe impl Send for MmsgLink {}

impl MmsgLink {
    /// A link over these sockets, at most `SOCKETS_MAX`.
    pub fn open(sockets: Vec<UdpSocket>) -> io::Result<Self> {
        if sockets.is_empty() || sockets.len() > SOCKETS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a link has 1 to {SOCKETS_MAX} sockets")));
        }
        let wake = WakeHandle::new(None)?;
        let mut polls = Vec::with_capacity(sockets.len() + 1);
        for socket in &sockets {
            socket.set_nonblocking(true)?;
            polls.push(libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 });
        }
        polls.push(libc::pollfd { fd: wake.event_fd(), events: libc::POLLIN, revents: 0 });
        let rx = RxBatch::new(RX_BATCH_MAX * SLOT_SIZE);
        Ok(Self {
            inbox: Inbox::new(&rx),
            rx,
            polls,
            first: 0,
            out: MmsgOut {
                sockets,
                batch: TxBatch::new(TX_ARENA_SIZE, TRAINS_PER_BATCH_MAX),
                headers: (0..TRAINS_PER_BATCH_MAX).map(|_| SendHeader::new()).collect(),
                messages: Vec::with_capacity(TRAINS_PER_BATCH_MAX),
                refusals: Refusals::default(),
                counters: LinkCounters::default(),
                wake,
            },
        })
    }
}

impl Link for MmsgLink {
    fn receive(&mut self, timeout: Option<Duration>) -> io::Result<Received> {
        self.rx.clear();
        self.inbox.used = 0;
        if wait(&mut self.polls, timeout)? {
            let count = self.out.sockets.len();
            if self.polls[count].revents != 0 {
                self.out.wake.drain_event();
            }
            for step in 0..count {
                let index = (self.first + step) % count;
                if self.polls[index].revents != 0 {
                    self.inbox.take_in(&self.out.sockets[index], index, &mut self.rx, &mut self.out.counters)?;
                }
            }
            self.first = (self.first + 1) % count;
        }
        Ok(Received { woken: self.out.wake.take() })
    }

    fn parts(&mut self) -> (&mut RxBatch, &mut dyn Transmit) {
        (&mut self.rx, &mut self.out)
    }

    fn wake_handle(&self) -> WakeHandle {
        self.out.wake.clone()
    }

    fn counters(&self) -> LinkCounters {
        let rx_full = self.out.sockets.iter().map(|socket| socket::dropped(socket.as_raw_fd())).sum();
        LinkCounters { rx_full, ..self.out.counters }
    }

    fn name(&self) -> &'static str {
        "mmsg"
    }
}

impl Transmit for MmsgOut {
    fn batch(&mut self) -> &mut TxBatch {
        &mut self.batch
    }

    fn flush(&mut self) {
        let trains = self.batch.trains();
        let mut start = 0;
        while let Some(first) = trains.get(start) {
            let socket = &self.sockets[usize::from(first.path.socket.0)];
            if self.refusals.cover(first) {
                send_singly(socket, first, &self.batch, &mut self.counters);
                start += 1;
                continue;
            }
            // One system call takes a run of trains from one socket.
            self.messages.clear();
            for (train, header) in trains[start..].iter().zip(&mut self.headers) {
                if train.path.socket != first.path.socket || self.refusals.cover(train) {
                    break;
                }
                header.fill(train, &self.batch);
                self.messages.push(libc::mmsghdr { msg_hdr: header.message(), msg_len: 0 });
            }
            // SAFETY: as many messages as said, each filled above from a header that has not moved and an arena that outlives the call.
            let taken = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.messages.as_mut_ptr(),
                    self.messages.len() as libc::c_uint,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            if taken > 0 {
                // An error of a later one shows when it is the first of its call.
                let end = start + taken as usize;
                trains[start..end].iter().for_each(|train| count_sent(train, &mut self.counters));
                start = end;
            } else {
                let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
                if errno != libc::EINTR {
                    handle_refusal(socket, first, &self.batch, errno, &mut self.refusals, &mut self.counters);
                    start += 1;
                }
            }
        }
        self.batch.clear();
    }

    fn wake(&mut self, peer: &WakeHandle) {
        peer.wake();
    }
}

impl Inbox {
    fn new(rx: &RxBatch) -> Self {
        let mut names = vec![Name::EMPTY; RX_BATCH_MAX].into_boxed_slice();
        let mut vectors: Box<[libc::iovec]> = (0..RX_BATCH_MAX)
            .map(|slot| libc::iovec {
                iov_base: rx.slab().base().wrapping_add(slot * SLOT_SIZE).cast::<libc::c_void>(),
                iov_len: DATAGRAM_SIZE_MAX,
            })
            .collect();
        let messages = names
            .iter_mut()
            .zip(&mut vectors)
            .map(|(name, vector)| {
                // SAFETY: an mmsghdr of null pointers and zero lengths is valid.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_name = (&raw mut *name).cast::<libc::c_void>();
                message.msg_hdr.msg_iov = &raw mut *vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        Self { names, _vectors: vectors, messages, used: 0, failures: 0 }
    }

    /// Reads a socket until it is empty or the batch is full.
    fn take_in(
        &mut self,
        socket: &UdpSocket,
        index: usize,
        rx: &mut RxBatch,
        counters: &mut LinkCounters,
    ) -> io::Result<()> {
        let start = self.used;
        let free = &mut self.messages[start..];
        if free.is_empty() {
            return Ok(());
        }
        for message in free.iter_mut() {
            message.msg_hdr.msg_namelen = NAME_SIZE as libc::socklen_t;
        }
        // SAFETY: as many headers as said. Each points to a name and to a slot of the slab, past those that the batch lists.
        let taken = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                free.as_mut_ptr(),
                free.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if taken < 0 {
            return self.handle_failure(io::Error::last_os_error(), counters);
        }
        self.failures = 0;
        self.used = start + taken as usize;
        for slot in start..self.used {
            let message = &self.messages[slot];
            if message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                counters.rx_truncated += 1;
            } else if let Some(remote) = address::read(&self.names[slot].0) {
                let size = message.msg_len as usize;
                rx.push(slot * SLOT_SIZE, size, Path { socket: SocketIndex(index as u8), remote });
                counters.received += 1;
                counters.received_bytes += size as u64;
            }
        }
        Ok(())
    }

    fn handle_failure(&mut self, error: io::Error, counters: &mut LinkCounters) -> io::Result<()> {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
            _ => {
                counters.receive_errors += 1;
                self.failures += 1;
                if self.failures >= RECEIVE_FAILURES_MAX { Err(error) } else { Ok(()) }
            }
        }
    }
}

/// Waits, and says whether any descriptor is ready.
fn wait(polls: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<bool> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as _,
    });
    let pointer = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: as many entries as said; the timeout, if any, lives through the call; no signal mask.
    let ready = unsafe { libc::ppoll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, pointer, std::ptr::null()) };
    if ready >= 0 {
        return Ok(ready > 0);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) }
}

/// A slot begins on a cache line.
const SLOT_SIZE: usize = DATAGRAM_SIZE_MAX.next_multiple_of(64);
