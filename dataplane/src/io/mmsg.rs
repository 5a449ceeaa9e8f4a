//! The link for hosts where io_uring is missing or forbidden: `ppoll`, then `recvmmsg` and `sendmmsg`, with the same trains.
//!
//! `ppoll` for the sockets that stay: they are a handful, and it takes nanoseconds on every kernel. Those that come and go are in an
//! epoll, which is one more descriptor in the `ppoll`, once there are any.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use ringmain_shared::limits::RECEIVED_SIZE_MAX;

use super::address::{self, NAME_SIZE, Name};
use super::send::{Refusals, SendHeader, count_sent, handle_refusal, send_singly};
use super::table::{SocketTable, check_fixed};
use super::{
    Diverted, Link, LinkCounters, Path, RECEIVE_FAILURES_MAX, Received, SocketIndex, SocketRefused, Transmit,
    WakeHandle,
};
use crate::buf::{RX_BATCH_MAX, RxBatch, TRAINS_PER_BATCH_MAX, TX_ARENA_SIZE, TxBatch};

/// A link on `recvmmsg` and `sendmmsg`.
pub struct MmsgLink {
    rx: RxBatch,
    inbox: Inbox,
    /// The fixed sockets, the bell, and the added sockets' epoll, if there is one.
    polls: Vec<libc::pollfd>,
    added: Option<Epoll>,
    /// Whose turn it is to be read first, so that a flooded socket cannot starve the others.
    first: usize,
    out: MmsgOut,
}

struct MmsgOut {
    sockets: SocketTable,
    batch: TxBatch,
    diverted: Diverted,
    headers: Box<[SendHeader]>,
    messages: Vec<libc::mmsghdr>,
    refusals: Refusals,
    counters: LinkCounters,
    wake: WakeHandle,
}

/// The sockets that come and go, by level: one that was not read to its end is told of again.
struct Epoll(OwnedFd);

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
    /// A link over these sockets, at most `FIXED_SOCKETS_MAX`.
    pub fn open(sockets: Vec<UdpSocket>) -> io::Result<Self> {
        check_fixed(&sockets)?;
        let wake = WakeHandle::new(None)?;
        let mut polls = Vec::with_capacity(sockets.len() + 2);
        for socket in &sockets {
            socket.set_nonblocking(true)?;
            polls.push(poll_in(socket.as_raw_fd()));
        }
        polls.push(poll_in(wake.event_fd()));
        let rx = RxBatch::new(RX_BATCH_MAX * SLOT_SIZE);
        Ok(Self {
            inbox: Inbox::new(&rx),
            rx,
            polls,
            added: None,
            first: 0,
            out: MmsgOut {
                sockets: SocketTable::new(sockets),
                diverted: Diverted::default(),
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
        self.inbox.clear();
        let sleeps = timeout != Some(Duration::ZERO) && self.out.wake.may_sleep();
        if wait(&mut self.polls, if sleeps { timeout } else { Some(Duration::ZERO) })? {
            let bell = self.out.sockets.fixed();
            if self.polls[bell].revents != 0 {
                self.out.wake.drain_event();
            }
            let count = self.polls.len();
            for step in 0..count {
                let place = (self.first + step) % count;
                if place == bell || self.polls[place].revents == 0 {
                    continue;
                }
                match &self.added {
                    Some(epoll) if place > bell => self.inbox.take_in_added(epoll, &mut self.rx, &mut self.out),
                    _ => self.inbox.take_in_fixed(SocketIndex(place as u16), &mut self.rx, &mut self.out)?,
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

    fn open(&mut self, socket: UdpSocket) -> Result<SocketIndex, SocketRefused> {
        socket.set_nonblocking(true).map_err(SocketRefused::Kernel)?;
        let epoll = match &self.added {
            Some(epoll) => epoll,
            None => {
                let epoll = Epoll::new().map_err(SocketRefused::Kernel)?;
                self.polls.push(poll_in(epoll.0.as_raw_fd()));
                self.added.insert(epoll)
            }
        };
        let fd = socket.as_raw_fd();
        let index = self.out.sockets.insert(socket).ok_or(SocketRefused::TooMany)?;
        epoll.add(fd, index).map_err(|error| {
            self.out.sockets.close(index);
            self.out.sockets.release(index);
            SocketRefused::Kernel(error)
        })?;
        Ok(index)
    }

    fn close(&mut self, index: SocketIndex) -> bool {
        self.out.flush();
        let Some(fd) = self.out.sockets.get(index).map(AsRawFd::as_raw_fd) else { return false };
        if !self.out.sockets.close(index) {
            return false;
        }
        // By hand: someone may hold a copy of the descriptor, and then closing ours would not do it.
        if let Some(epoll) = &self.added {
            epoll.remove(fd);
        }
        self.out.refusals.forget(index);
        self.out.sockets.release(index);
        true
    }

    fn counters(&mut self) -> LinkCounters {
        LinkCounters { rx_full: self.out.sockets.dropped(), ..self.out.counters }
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
        self.batch.seal();
        let trains = self.batch.trains();
        let mut start = 0;
        while let Some(first) = trains.get(start) {
            let Some(socket) = self.sockets.get(first.path.socket) else {
                self.diverted.take(first, &self.batch, &mut self.counters);
                start += 1;
                continue;
            };
            if self.refusals.cover(first) {
                send_singly(&self.sockets, first, &self.batch, &mut self.counters);
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
                    handle_refusal(&self.sockets, first, &self.batch, errno, &mut self.refusals, &mut self.counters);
                    start += 1;
                }
            }
        }
        self.batch.clear();
    }

    fn diverted(&mut self) -> &mut Diverted {
        &mut self.diverted
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
                iov_len: RECEIVED_SIZE_MAX,
            })
            .collect();
        let messages = names
            .iter_mut()
            .zip(&mut vectors)
            .map(|(name, vector)| {
                // SAFETY: an mmsghdr of null pointers and zero lengths is valid.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_name = (&raw mut *name).cast::<libc::c_void>();
                message.msg_hdr.msg_namelen = NAME_SIZE as libc::socklen_t;
                message.msg_hdr.msg_iov = &raw mut *vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        Self { names, _vectors: vectors, messages, used: 0, failures: 0 }
    }

    /// Forgets what was taken in.
    fn clear(&mut self) {
        for message in &mut self.messages[..self.used] {
            message.msg_hdr.msg_namelen = NAME_SIZE as libc::socklen_t;
        }
        self.used = 0;
    }

    /// Reads a fixed socket until it is empty or the batch is full.
    fn take_in_fixed(&mut self, index: SocketIndex, rx: &mut RxBatch, out: &mut MmsgOut) -> io::Result<()> {
        let Some(socket) = out.sockets.get(index) else { return Ok(()) };
        match self.take_in(socket, index, RX_BATCH_MAX, rx, &mut out.counters) {
            Ok(()) => self.failures = 0,
            Err(error) => {
                out.counters.receive_errors += 1;
                self.failures += 1;
                if self.failures >= RECEIVE_FAILURES_MAX {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Reads what is ready of the others, a little of each, until nothing is or the batch is full.
    fn take_in_added(&mut self, epoll: &Epoll, rx: &mut RxBatch, out: &mut MmsgOut) {
        for _ in 0..RX_BATCH_MAX / READY_AT_ONCE {
            // No more than can be read: the kernel puts the ones it tells of last, and those that it told of in vain would starve.
            let room = (self.messages.len() - self.used) / SHARE;
            let mut events = [libc::epoll_event { events: 0, u64: 0 }; READY_AT_ONCE];
            let ready = epoll.ready(&mut events[..room.min(READY_AT_ONCE)]);
            for event in ready {
                let index = SocketIndex(event.u64 as u16);
                let Some(socket) = out.sockets.get(index) else { continue };
                match self.take_in(socket, index, SHARE, rx, &mut out.counters) {
                    Ok(()) => _ = out.sockets.heard(index),
                    Err(_) => {
                        out.counters.receive_errors += 1;
                        if out.sockets.failed(index)
                            && let Some(socket) = out.sockets.get(index)
                        {
                            epoll.remove(socket.as_raw_fd());
                        }
                    }
                }
            }
            if ready.len() < READY_AT_ONCE {
                return;
            }
        }
    }

    /// Reads a socket until it is empty, `share` datagrams have come or the batch is full.
    fn take_in(
        &mut self,
        socket: &UdpSocket,
        index: SocketIndex,
        share: usize,
        rx: &mut RxBatch,
        counters: &mut LinkCounters,
    ) -> io::Result<()> {
        let start = self.used;
        let free = &mut self.messages[start..];
        if free.is_empty() {
            return Ok(());
        }
        // SAFETY: as many headers as said. Each points to a name and to a slot of the slab, past those that the batch lists.
        let taken = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                free.as_mut_ptr(),
                free.len().min(share) as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if taken < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
                _ => Err(error),
            };
        }
        self.used = start + taken as usize;
        for slot in start..self.used {
            let message = &self.messages[slot];
            if message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                counters.rx_truncated += 1;
            } else if let Some(remote) = address::read(&self.names[slot].0) {
                let size = message.msg_len as usize;
                rx.push(slot * SLOT_SIZE, size, Path { socket: index, remote });
                counters.received += 1;
                counters.received_bytes += size as u64;
            }
        }
        Ok(())
    }
}

impl Epoll {
    fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn add(&self, fd: libc::c_int, index: SocketIndex) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: u64::from(index.0) };
        // SAFETY: the event lives through the call.
        let done = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn remove(&self, fd: libc::c_int) {
        // SAFETY: removing takes no event. It fails only when the descriptor was removed before.
        unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
    }

    /// Which are ready now.
    fn ready<'a>(&self, events: &'a mut [libc::epoll_event]) -> &'a [libc::epoll_event] {
        if events.is_empty() {
            return events;
        }
        // SAFETY: as many events as said, which live through the call.
        let count =
            unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), events.len() as libc::c_int, 0) };
        &events[..count.max(0) as usize]
    }
}

fn poll_in(fd: libc::c_int) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
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
const SLOT_SIZE: usize = RECEIVED_SIZE_MAX.next_multiple_of(64);
/// Datagrams taken from an added socket before the next one has its turn, as the kernel does it for io_uring.
const SHARE: usize = 32;
/// Added sockets told of at once.
const READY_AT_ONCE: usize = RX_BATCH_MAX / SHARE;
