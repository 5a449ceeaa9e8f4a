//! The io_uring link: one `io_uring_enter` per turn submits the sends of the last turn, waits for datagrams, a call or the timer, and
//! brings all of them.
//!
//! [`ledger`] knows who holds what and judges completions; [`token`] is what their 64 bits mean; [`buffers`] is the ring that the kernel
//! takes receive buffers from; [`enter`] is the system call; [`set_up()`] makes the ring. This file joins them to it.
//!
//! The sockets that a link is opened with are registered files. Those that it takes in later are named by their descriptors: before Linux
//! 6.13 a file that is unregistered stays open until every operation begun before has ended, and a receive of ours never ends, so
//! the ports would never come free. A descriptor is closed only when no operation can name it any more.
//!
//! The ring is made disabled and restricted to a few operations, so it can be made before the thread that uses it. That thread
//! enables it in its first `receive`, becomes its single issuer, and should be the one to drop it.

mod buffers;
mod enter;
mod ledger;
mod set_up;
#[cfg(test)]
mod tests;
mod token;

use std::collections::VecDeque;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::thread::ThreadId;
use std::time::Duration;

use arrayvec::ArrayVec;
use io_uring::types::{CancelBuilder, Fd, Fixed, RecvMsgOut, Timespec};
use io_uring::{IoUring, opcode, squeue};

use super::address::{self, NAME_SIZE};
use super::open::Unavailable;
use super::send::{Refusals, SendHeader, count_sent, handle_refusal, send_singly};
use super::table::SocketTable;
use super::{
    Diverted, FIXED_SOCKETS_MAX, Link, LinkCounters, Path, Received, SocketIndex, SocketRefused, Transmit, WakeHandle,
};
use crate::buf::{RX_BATCH_MAX, RxBatch, TRAINS_PER_BATCH_MAX, TX_ARENA_SIZE, TxBatch};
use buffers::{BUFFER_SIZE, BUFFER_STRIDE, BufferRing, HEADER_SIZE};
use enter::Gate;
use ledger::{Completion, Effect, Ledger};
use set_up::set_up;
use token::Token;

/// Receive buffers of one link: what the kernel may fill ahead, and a batch that a turn holds. What finds none waits in its socket.
///
/// The kernel takes buffers in turn, so each receive touches the one not used for longest: the ring should stay in the core's cache.
/// A thousand buffers receive 10 % faster than four thousand.
pub const RX_BUFFERS: usize = RECEIVE_AHEAD + RX_BATCH_MAX;
const RECEIVE_AHEAD: usize = 768;
const _: () = assert!(RX_BUFFERS.is_power_of_two(), "the kernel masks indices");
const _: () = assert!(RX_BUFFERS <= 1 << 15, "the kernel's bound for a ring of buffers");

/// A link on io_uring.
pub struct UringLink {
    rx: RxBatch,
    engine: Engine,
}

/// How large a link is made. Tests make small ones.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    buffers: u16,
    submissions: u32,
    completions: u32,
}

struct Engine {
    ring: IoUring,
    gate: Gate,
    user: Option<ThreadId>,
    ledger: Ledger,
    buffers: BufferRing,
    /// Says how much room the kernel leaves for names.
    receive_header: Box<libc::msghdr>,
    /// Datagrams that have come and are not in a batch yet. Each holds a buffer, so there are no more than those.
    backlog: VecDeque<(u16, u16, u32)>,
    /// Buffers that go back to the kernel at the next `receive`: those of the batch, and those that held nothing of use.
    returns: Vec<u16>,
    batch: TxBatch,
    /// What each of its sends is described by.
    headers: Box<[SendHeader]>,
    /// The round is not complete yet: an answer to all that was asked does not end it.
    is_sending: bool,
    refusals: Refusals,
    /// Whom the unanswered calls are for.
    calls: [Option<WakeHandle>; CALLS_MAX],
    wake: WakeHandle,
    woken: bool,
    broken: Option<i32>,
    counters: LinkCounters,
    diverted: Diverted,
    sockets: SocketTable,
    /// Those that wait for the kernel's last answers.
    closing: Vec<SocketIndex>,
}

/// A socket in an operation.
enum Named {
    Registered(Fixed),
    Open(Fd),
}

// SAFETY: the header's pointers are null; all other members are Send.
unsafe impl Send for Engine {}

impl UringLink {
    /// A link over these sockets, at most `FIXED_SOCKETS_MAX`. Gives them back with the reason when the kernel will not have it.
    pub fn open(sockets: Vec<UdpSocket>) -> Result<Self, (Unavailable, Vec<UdpSocket>)> {
        Self::open_sized(sockets, Sizes::default())
    }

    fn open_sized(sockets: Vec<UdpSocket>, sizes: Sizes) -> Result<Self, (Unavailable, Vec<UdpSocket>)> {
        match set_up(&sockets, sizes) {
            Ok((rx, ring, buffers, wake)) => {
                let gate = Gate::plain(ring.as_raw_fd());
                let sockets = SocketTable::new(sockets);
                let engine = Engine::new(ring, gate, buffers, wake, sockets);
                Ok(Self { rx, engine })
            }
            Err(unavailable) => Err((unavailable, sockets)),
        }
    }
}

impl Link for UringLink {
    fn receive(&mut self, timeout: Option<Duration>) -> io::Result<Received> {
        self.rx.clear();
        let engine = &mut self.engine;
        engine.return_buffers();
        engine.arm();
        engine.take_in(timeout)?;
        engine.release_closed();
        engine.fill(&mut self.rx);
        if let Some(errno) = engine.broken {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let called = engine.wake.take();
        Ok(Received { woken: std::mem::take(&mut engine.woken) | called })
    }

    fn parts(&mut self) -> (&mut RxBatch, &mut dyn Transmit) {
        (&mut self.rx, &mut self.engine)
    }

    fn wake_handle(&self) -> WakeHandle {
        self.engine.wake.clone()
    }

    fn open(&mut self, socket: UdpSocket) -> Result<SocketIndex, SocketRefused> {
        let index = self.engine.sockets.insert(socket).ok_or(SocketRefused::TooMany)?;
        self.engine.ledger.add_receive(index.0);
        Ok(index)
    }

    fn close(&mut self, index: SocketIndex) -> bool {
        self.engine.flush();
        if !self.engine.sockets.close(index) {
            return false;
        }
        self.engine.forget(index);
        true
    }

    fn counters(&mut self) -> LinkCounters {
        LinkCounters { rx_full: self.engine.sockets.dropped(), ..self.engine.counters }
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }
}

impl Drop for UringLink {
    fn drop(&mut self) {
        if !self.engine.close() {
            // The kernel might still touch this memory, so it stays allocated. Only happens on a foreign thread, or to a broken ring.
            std::mem::forget(std::mem::replace(&mut self.rx, RxBatch::new(1)));
            let base = self.rx.slab().base();
            std::mem::forget(std::mem::replace(&mut self.engine.buffers, BufferRing::new(1, base)));
            std::mem::forget(std::mem::replace(&mut self.engine.batch, TxBatch::new(1, 1)));
            std::mem::forget(std::mem::take(&mut self.engine.headers));
        }
    }
}

impl Transmit for Engine {
    fn batch(&mut self) -> &mut TxBatch {
        &mut self.batch
    }

    fn flush(&mut self) {
        self.end_turn();
        // Sends do not wait, so submitting them answers them; a few attempts are for completions that come in pieces.
        for _ in 0..ATTEMPTS {
            if self.ledger.unanswered() == 0 && self.ring.submission().is_empty() {
                return;
            }
            let _ = self.enter(0, None);
            self.reap();
        }
    }

    fn end_turn(&mut self) {
        if self.ledger.unanswered() > 0 {
            return;
        }
        self.batch.seal();
        let count = self.batch.trains().len();
        if count == 0 {
            return;
        }
        self.ledger.begin_round();
        self.batch.lend();
        self.is_sending = true;
        for number in 0..count {
            self.send(number);
        }
        self.is_sending = false;
        self.clear_answered();
    }

    fn diverted(&mut self) -> &mut Diverted {
        &mut self.diverted
    }

    fn wake(&mut self, peer: &WakeHandle) {
        if !peer.claim() {
            return;
        }
        let Some(ring) = peer.ring_fd() else { return peer.write_event() };
        let Some((slot, token)) = self.ledger.call() else { return peer.write_event() };
        self.calls[usize::from(slot)] = Some(peer.clone());
        let entry = opcode::MsgRingData::new(Fd(ring), 0, Token::Call.to_user_data(), None).build();
        self.push(entry, token);
    }
}

impl Engine {
    fn new(ring: IoUring, gate: Gate, buffers: BufferRing, wake: WakeHandle, sockets: SocketTable) -> Self {
        let count = usize::from(buffers.count());
        let mut ledger = Ledger::new(count, TRAINS_PER_BATCH_MAX, CALLS_MAX);
        (0..sockets.fixed() as u16).for_each(|socket| ledger.add_receive(socket));
        Self {
            ring,
            gate,
            user: None,
            ledger,
            receive_header: receive_header(),
            backlog: VecDeque::with_capacity(count),
            returns: (0..buffers.count()).collect(),
            buffers,
            batch: TxBatch::new(TX_ARENA_SIZE, TRAINS_PER_BATCH_MAX),
            headers: (0..TRAINS_PER_BATCH_MAX).map(|_| SendHeader::new()).collect(),
            is_sending: false,
            refusals: Refusals::default(),
            calls: [const { None }; CALLS_MAX],
            wake,
            woken: false,
            broken: None,
            counters: LinkCounters::default(),
            diverted: Diverted::default(),
            sockets,
            closing: Vec::new(),
        }
    }

    fn return_buffers(&mut self) {
        for buffer in self.returns.drain(..) {
            if self.ledger.lend(buffer) {
                self.buffers.give(buffer);
            }
        }
        self.buffers.publish();
    }

    /// Begins what has ended: receives that ran out of buffers or failed, and the poll.
    fn arm(&mut self) {
        if let Some(token) = self.ledger.arm_poll() {
            let place = Fixed(self.sockets.fixed() as u32);
            self.push(opcode::PollAdd::new(place, libc::POLLIN as u32).multi(true).build(), token);
        }
        // Without a buffer a receive would end at once, and we would spin. One comes back when the backlog has been worked off.
        if self.ledger.lent() == 0 {
            return;
        }
        // All of them: we may be about to sleep, and a socket without a receive would sleep on.
        for _ in 0..self.ledger.ended() {
            let Some(socket) = self.ledger.next_ended() else { return };
            if self.sockets.is_worth_receiving(SocketIndex(socket))
                && let Some(token) = self.ledger.arm_receive(socket)
            {
                let header = &raw const *self.receive_header;
                let entry = match self.name(SocketIndex(socket)) {
                    Some(Named::Registered(place)) => opcode::RecvMsgMulti::new(place, header, BUFFER_GROUP).build(),
                    Some(Named::Open(fd)) => opcode::RecvMsgMulti::new(fd, header, BUFFER_GROUP).build(),
                    None => continue,
                };
                self.push(entry, token);
            }
        }
    }

    /// How the kernel is told which socket is meant.
    #[inline]
    fn name(&self, index: SocketIndex) -> Option<Named> {
        if usize::from(index.0) < self.sockets.fixed() {
            return Some(Named::Registered(Fixed(u32::from(index.0))));
        }
        self.sockets.get(index).map(|socket| Named::Open(Fd(socket.as_raw_fd())))
    }

    /// A socket is being closed: nothing of it is to come any more.
    fn forget(&mut self, index: SocketIndex) {
        let returns = &mut self.returns;
        self.backlog.retain(|&(socket, buffer, _)| {
            if socket == index.0 {
                returns.push(buffer);
            }
            socket != index.0
        });
        self.refusals.forget(index);
        self.closing.push(index);
        self.cancel(index);
    }

    fn cancel(&mut self, index: SocketIndex) {
        if let Some((token, receive)) = self.ledger.cancel_receive(index.0) {
            self.push(opcode::AsyncCancel::new(receive.to_user_data()).build(), token);
        }
    }

    /// Closes what nobody can name any more: neither an operation that waits to be submitted, nor one that the kernel has.
    fn release_closed(&mut self) {
        if self.closing.is_empty() || !self.ring.submission().is_empty() {
            return;
        }
        let sending = self.ledger.unanswered() > 0;
        for index in std::mem::take(&mut self.closing) {
            if sending || self.ledger.is_receiving(index.0) {
                self.closing.push(index);
                self.cancel(index); // Again, if the kernel could not find it: then it was between two of its tasks.
            } else {
                self.sockets.release(index);
            }
        }
    }

    /// Waits if there is no news, and takes in completions until there is a batch or no more.
    fn take_in(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.reap();
        // A timer of no time at all would still be set and fire, which costs more than a send.
        let has_news = !self.backlog.is_empty() || self.woken;
        if timeout != Some(Duration::ZERO) && !has_news && self.wake.may_sleep() {
            // Sends and calls are answered as they are submitted. Wait for one completion more than those.
            self.enter(1 + self.ledger.answers_due() as u32, timeout)?;
        } else {
            self.enter(0, None)?;
        }
        self.reap();
        // The kernel gives up a socket after some 32 datagrams to be fair to others, and goes on when asked.
        for _ in 0..RX_BATCH_MAX / 32 {
            if self.backlog.len() >= RX_BATCH_MAX || !self.ring.submission().taskrun() {
                break;
            }
            self.enter(0, None)?;
            self.reap();
        }
        Ok(())
    }

    /// Moves datagrams from the backlog to the batch.
    fn fill(&mut self, rx: &mut RxBatch) {
        while !rx.is_full()
            && let Some((socket, buffer, size)) = self.backlog.pop_front()
        {
            self.returns.push(buffer);
            let offset = usize::from(buffer) * BUFFER_STRIDE;
            let size = (size as usize).min(BUFFER_SIZE);
            // SAFETY: the ledger took the buffer back from the kernel, and it is not given again before the batch is cleared.
            let bytes = unsafe { rx.slab().slice(offset, size) };
            let Ok(received) = RecvMsgOut::parse(bytes, &self.receive_header) else { continue };
            if received.is_payload_truncated() {
                self.counters.rx_truncated += 1;
                continue;
            }
            let size = received.payload_data().len();
            if let Some(remote) = address::read(received.name_data()) {
                rx.push(offset + HEADER_SIZE, size, Path { socket: SocketIndex(socket), remote });
                self.counters.received += 1;
                self.counters.received_bytes += size as u64;
            }
        }
    }

    fn send(&mut self, number: usize) {
        let train = self.batch.trains()[number];
        let name = self.name(train.path.socket);
        let Self { batch, headers, .. } = self;
        if self.refusals.cover(&train) && name.is_some() {
            return send_singly(&self.sockets, &train, batch, &mut self.counters);
        }
        let header = &mut headers[number];
        let message = header.fill(&train, batch);
        let bytes = batch.bytes(&train);
        let (start, size) = (bytes.as_ptr(), bytes.len() as u32);
        // All that describes a lone datagram fits in the entry, which spares the kernel copies: 3 % of it.
        let lone = |send: opcode::Send| {
            let (name, name_size) = header.name();
            send.flags(FLAGS).dest_addr(name).dest_addr_len(name_size).build()
        };
        let is_lone = train.segments == 1;
        let entry = match name {
            None => return self.diverted.take(&train, batch, &mut self.counters),
            Some(Named::Registered(place)) if is_lone => lone(opcode::Send::new(place, start, size)),
            Some(Named::Registered(place)) => opcode::SendMsg::new(place, message).flags(FLAGS as u32).build(),
            Some(Named::Open(fd)) if is_lone => lone(opcode::Send::new(fd, start, size)),
            Some(Named::Open(fd)) => opcode::SendMsg::new(fd, message).flags(FLAGS as u32).build(),
        };
        let token = self.ledger.send(number as u16);
        self.push(entry, token);
    }

    /// Puts an operation into the submission queue, making room if there is none. If that fails, it is answered as refused.
    fn push(&mut self, entry: squeue::Entry, token: Token) {
        let entry = entry.user_data(token.to_user_data());
        for _ in 0..ATTEMPTS {
            // SAFETY: what the entry points to (headers, arena, receive header) is boxed and lives until the ledger knows the answer,
            // or else is leaked by `drop`; descriptors are registered, or held by `calls`.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            let _ = self.enter(0, None);
            self.reap();
        }
        self.handle_completion(Completion { user_data: token.to_user_data(), result: -libc::EAGAIN, flags: 0 });
    }

    /// Submits, lets the kernel do what it deferred, and waits for `want` completions or the timeout.
    fn enter(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        if self.user.is_none() {
            self.ring.submitter().register_enable_rings()?;
            self.gate = Gate::registered(self.ring.as_raw_fd());
            self.user = Some(std::thread::current().id());
        }
        let submission = self.ring.submission();
        let (submit, idle) = (submission.len(), !submission.taskrun() && !submission.cq_overflow());
        drop(submission);
        if submit == 0 && want == 0 && idle {
            return Ok(());
        }
        match self.gate.enter(submit, want, timeout) {
            Err(error) => match error.raw_os_error() {
                // The timer; a signal; no memory for the moment, or completions to be taken first.
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
            Ok(()) => Ok(()),
        }
    }

    /// Handles every completion that is there.
    fn reap(&mut self) {
        if self.ring.submission().cq_overflow() {
            self.counters.cq_overflows += 1;
        }
        loop {
            let chunk: ArrayVec<Completion, 64> = (self.ring.completion().take(64))
                .map(|entry| Completion { user_data: entry.user_data(), result: entry.result(), flags: entry.flags() })
                .collect();
            if chunk.is_empty() {
                return;
            }
            chunk.into_iter().for_each(|completion| self.handle_completion(completion));
        }
    }

    fn handle_completion(&mut self, completion: Completion) {
        match self.ledger.handle_completion(completion) {
            Effect::Datagram { socket, buffer, size } => {
                if self.sockets.heard(SocketIndex(socket)) {
                    self.backlog.push_back((socket, buffer, size));
                } else {
                    self.returns.push(buffer);
                }
            }
            Effect::Return { buffer } => self.returns.push(buffer),
            Effect::Starved => self.counters.starved += 1,
            Effect::ReceiveFailed { socket, errno } => self.handle_receive_failure(SocketIndex(socket), errno),
            Effect::Sent { train, bytes } => self.handle_sent(usize::from(train), Ok(bytes as usize)),
            Effect::SendFailed { train, errno } => self.handle_sent(usize::from(train), Err(errno)),
            Effect::Woken => self.woken = true,
            Effect::Called { slot, heard } => {
                if let Some(peer) = self.calls[usize::from(slot)].take()
                    && !heard
                {
                    peer.write_event();
                }
            }
            Effect::Ended => {}
            Effect::Stale => self.counters.stale += 1,
        }
    }

    fn handle_receive_failure(&mut self, socket: SocketIndex, errno: i32) {
        self.counters.receive_errors += 1;
        if self.sockets.failed(socket) && usize::from(socket.0) < self.sockets.fixed() {
            self.broken = Some(errno);
        }
    }

    fn handle_sent(&mut self, number: usize, result: Result<usize, i32>) {
        let train = self.batch.trains()[number];
        match result {
            Ok(bytes) if bytes == train.size => count_sent(&train, &mut self.counters),
            Ok(_) => self.counters.send_failed += train.segments as u64,
            Err(errno) => {
                // Its socket's index is not another's before every send of it is answered.
                let Self { sockets, batch, refusals, counters, .. } = self;
                handle_refusal(sockets, &train, batch, errno, refusals, counters);
            }
        }
        self.clear_answered();
    }

    /// Empties the batch once the kernel has answered all of it.
    fn clear_answered(&mut self) {
        if self.ledger.unanswered() == 0 && !self.is_sending {
            self.batch.clear();
        }
    }

    /// Sends what is queued, ends everything outstanding, and lets go of the sockets. Says whether nothing is in the kernel's hands.
    fn close(&mut self) -> bool {
        if self.user.is_none_or(|user| user == std::thread::current().id()) {
            let _ = self.enter(0, None);
            self.reap();
            let patience = Timespec::new().sec(1);
            let _ = self.ring.submitter().register_sync_cancel(Some(patience), CancelBuilder::any());
            for _ in 0..ATTEMPTS {
                if self.ledger.is_idle() {
                    break;
                }
                let _ = self.enter(1, Some(Duration::from_millis(10)));
                self.reap();
            }
            self.gate.close(self.ring.as_raw_fd());
        }
        // Handles out there keep the ring alive, but it must not keep the ports bound.
        let _ = self.ring.submitter().unregister_buf_ring(BUFFER_GROUP);
        let _ = self.ring.submitter().unregister_files();
        self.ledger.is_idle()
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self { buffers: RX_BUFFERS as u16, submissions: SUBMISSIONS as u32, completions: COMPLETIONS as u32 }
    }
}

fn receive_header() -> Box<libc::msghdr> {
    // SAFETY: a msghdr of null pointers and zero lengths is valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_namelen = NAME_SIZE as libc::socklen_t;
    Box::new(header)
}

/// A send is answered at once, be it by a refusal.
const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
/// The only group of buffers.
const BUFFER_GROUP: u16 = 0;
/// Calls to other workers between two turns. Beyond that they go by eventfd.
const CALLS_MAX: usize = 64;
/// Times that something is tried which works at once unless the kernel is out of memory.
const ATTEMPTS: usize = 8;

/// What can be waiting to be submitted: a batch of trains, calls, receives, the poll. More makes an extra system call.
const SUBMISSIONS: usize = (TRAINS_PER_BATCH_MAX + CALLS_MAX + FIXED_SOCKETS_MAX + 1).next_power_of_two();
/// What can be answered between two looks: a datagram in each buffer, the trains of a batch, our calls, and the end of each receive.
/// Calls of others come on top, one at a time, and so do the ends of receives of added sockets. What finds no room the kernel keeps.
const COMPLETIONS: usize = (RX_BUFFERS + TRAINS_PER_BATCH_MAX + CALLS_MAX + FIXED_SOCKETS_MAX + 2).next_power_of_two();
