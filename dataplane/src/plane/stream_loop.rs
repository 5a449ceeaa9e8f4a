//! A stream thread: the listeners for TCP and TLS, their connections, and the way between those and the workers.
//!
//! [`Streams`] has the sockets; this file waits, reads the clock, and carries values from ring to ring.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use ringmain_shared::event::{Event, StreamStats};
use ringmain_shared::id::WorkerIndex;
use rtrb::{Consumer, Producer, PushError};
use socket2::{Domain, Socket, Type};

use super::now;
use super::streams::{BELL, StreamListener, StreamSettings, Streams, is_bell};
use super::watchdog::Pulse;
use crate::io::{WakeHandle, socket};
use crate::stream::connection::{Offer, tls_config};
use crate::stream::{FromStream, ToStream};

/// From control, by way of the router.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum StreamOrder {
    /// Checks for this user fragment go to this worker.
    Name { ufrag: String, worker: WorkerIndex },
    /// Nobody has it any more.
    Forget { ufrag: String },
}

/// A stream thread's ends of the rings.
pub(crate) struct Ports {
    pub(crate) pulse: Pulse,
    pub(crate) orders: Consumer<StreamOrder>,
    pub(crate) events: Producer<Event>,
    /// Control's.
    pub(crate) bell: WakeHandle,
    /// Its own.
    pub(crate) wake: WakeHandle,
    pub(crate) to_workers: Workers,
    /// By worker.
    pub(crate) from_workers: Vec<Consumer<ToStream>>,
}

/// The way to the workers.
pub(crate) struct Workers {
    /// By worker.
    pub(crate) rings: Vec<Producer<FromStream>>,
    pub(crate) wakes: Vec<WakeHandle>,
    /// By worker: what must arrive and found a full ring.
    kept: Vec<VecDeque<FromStream>>,
    /// Messages that found a full ring.
    lost: u64,
}

impl Workers {
    pub(crate) fn new(rings: Vec<Producer<FromStream>>, wakes: Vec<WakeHandle>) -> Self {
        let kept = rings.iter().map(|_| VecDeque::new()).collect();
        Self { rings, wakes, kept, lost: 0 }
    }

    pub(super) fn count(&self) -> usize {
        self.rings.len()
    }

    /// Hands a value over. A message that finds no room is lost, as a datagram would be; anything else waits.
    pub(super) fn give(&mut self, worker: usize, item: FromStream) {
        let (Some(ring), Some(kept)) = (self.rings.get_mut(worker), self.kept.get_mut(worker)) else { return };
        // What waits for the same worker goes first.
        let back = match kept.is_empty() {
            true => ring.push(item).err().map(|PushError::Full(item)| item),
            false => Some(item),
        };
        match back {
            None => {}
            Some(FromStream::Message { .. } | FromStream::Datagram { .. }) => self.lost += 1,
            Some(item) => kept.push_back(item),
        }
        self.wakes.get(worker).into_iter().for_each(WakeHandle::wake);
    }

    /// Whether a worker takes what it is given. To one that does not, nobody new is sent: what is kept for it is of those who are there.
    pub(super) fn is_taking(&self, worker: usize) -> bool {
        self.kept.get(worker).is_none_or(|kept| kept.len() < KEPT_MAX)
    }

    fn keeps(&self) -> bool {
        self.kept.iter().any(|kept| !kept.is_empty())
    }

    fn give_kept(&mut self) {
        for ((ring, kept), wake) in self.rings.iter_mut().zip(&mut self.kept).zip(&self.wakes) {
            if kept.is_empty() {
                continue;
            }
            let room = ring.slots().min(kept.len());
            for item in kept.drain(..room) {
                let _ = ring.push(item);
            }
            wake.wake();
        }
    }
}

/// Runs until control lets go of its end.
pub(crate) fn run(core: Core, mut ports: Ports, start: Instant) {
    let Core { mut streams, mut poll } = core;
    let mut events = Events::with_capacity(EVENTS_MAX);
    let mut swept = now(start);
    let mut told = StreamStats::default();
    loop {
        let busy =
            streams.is_busy() || !ports.orders.is_empty() || ports.from_workers.iter().any(|ring| !ring.is_empty());
        let timeout = match busy {
            true => Duration::ZERO,
            false if ports.to_workers.keeps() => RETRY,
            false if streams.is_handshaking() => HANDSHAKE_TICK,
            false => SWEEP,
        };
        match poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                tracing::error!("a stream thread cannot wait for its sockets: {error}");
                std::process::abort();
            }
            _ => {}
        }
        let moment = now(start);
        ports.pulse.turned(moment);
        ports.wake.silence();
        ports.to_workers.give_kept();
        for order in std::iter::from_fn(|| ports.orders.pop().ok()).take(ITEMS_PER_TURN) {
            streams.handle_order(order);
        }
        for (worker, ring) in ports.from_workers.iter_mut().enumerate() {
            for item in std::iter::from_fn(|| ring.pop().ok()).take(ITEMS_PER_TURN) {
                streams.handle_item(worker, item, poll.registry(), moment, &mut ports.to_workers);
            }
        }
        for event in events.iter().filter(|event| !is_bell(event.token())) {
            streams.handle_readiness(event, poll.registry(), moment, &mut ports.to_workers);
        }
        streams.go_on(poll.registry(), moment, &mut ports.to_workers);
        streams.time_dtls(poll.registry(), moment, &mut ports.to_workers);
        if moment.since(swept) >= SWEEP {
            swept = moment;
            streams.sweep(poll.registry(), moment, &mut ports.to_workers);
            let stats = StreamStats { lost: ports.to_workers.lost, ..streams.stats() };
            if stats != told && ports.events.push(Event::Streams(stats)).is_ok() {
                told = stats;
                ports.bell.wake();
            }
        }
        if ports.orders.is_abandoned() && ports.orders.is_empty() {
            return;
        }
    }
}

/// Binds the listeners. What comes back: the core, what it waits with, and where it listens; or what to change.
pub(crate) fn open(settings: &StreamSettings, bell: &WakeHandle) -> Result<(Core, Vec<SocketAddr>), String> {
    let poll = poll_with(bell).map_err(|error| format!("no epoll for TCP connections: {error}"))?;
    let mut streams = Streams::new(settings.limits, settings.http.clone());
    let mut addresses = Vec::new();
    for listener in &settings.listeners {
        let StreamListener { address, clear, tls: inside } = *listener;
        let tls = match &settings.certificates {
            _ if inside.is_empty() => None,
            Some(certificates) => {
                let config = tls_config(certificates.clone(), inside);
                Some((inside, config.map_err(|error| format!("TLS cannot be configured: {error}"))?))
            }
            None => return Err(format!("{address} (TCP) is to speak TLS, for which there is no certificate")),
        };
        let socket = bind(address).map_err(|error| {
            format!(
                "cannot listen on {address} (TCP): {error}. Is another server running? Choose another port or address"
            )
        })?;
        let bound = socket.local_addr().and_then(|bound| {
            streams.listen(socket, Offer { clear, tls }, poll.registry())?;
            Ok(bound)
        });
        addresses.push(bound.map_err(|error| format!("cannot listen on {address} (TCP): {error}"))?);
    }
    if let Some(dtls) = &settings.dtls {
        streams.set_dtls(dtls.certificate.clone());
        for &address in &dtls.addresses {
            let seed = super::start::seed().map_err(|error| error.to_string())?;
            let bound = socket::bind(address).and_then(|socket| {
                let bound = socket.local_addr()?;
                streams.listen_dtls(socket, &seed, poll.registry()).map(|()| bound)
            });
            addresses.push(bound.map_err(|error| format!("cannot listen on {address} (UDP, for DTLS): {error}"))?);
        }
    }
    Ok((Core { streams, poll }, addresses))
}

/// What a stream thread begins with.
pub(crate) struct Core {
    streams: Streams,
    poll: Poll,
}

/// A host without IPv6 has no `[::]`; there, every address is every IPv4 address.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match bind_to(address) {
        Err(error) if is_without_ipv6(&error) && address == (Ipv6Addr::UNSPECIFIED, address.port()).into() => {
            bind_to((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        other => other,
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn bind_to(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait for the connections of its predecessor to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A poll that hears this bell.
fn poll_with(bell: &WakeHandle) -> io::Result<Poll> {
    let poll = Poll::new()?;
    let fd = bell.as_fd().as_raw_fd();
    poll.registry().register(&mut SourceFd(&fd), Token(BELL), Interest::READABLE)?;
    Ok(poll)
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Events taken at once.
const EVENTS_MAX: usize = 1024;
/// How often deadlines are looked at, and counters told.
const SWEEP: Duration = Duration::from_secs(1);
/// How often handshakes of DTLS look at their timers.
const HANDSHAKE_TICK: Duration = Duration::from_millis(50);
/// How soon a full ring is tried again.
const RETRY: Duration = Duration::from_millis(1);
/// Values that wait for one worker before it gets no new connections.
const KEPT_MAX: usize = 4096;
/// Items taken from one ring before sockets have their turn.
const ITEMS_PER_TURN: usize = 256;

#[cfg(test)]
mod tests {
    use rtrb::RingBuffer;

    use super::*;
    use crate::stream::StreamId;

    #[test]
    fn what_a_slow_worker_has_no_room_for_comes_later_in_order_and_others_do_not_wait() {
        let closed = |id| FromStream::Closed { id: StreamId(id) };
        let message = || FromStream::Message { id: StreamId(0), bytes: Vec::new() };
        let (slow, mut at_slow) = RingBuffer::new(2);
        let (quick, mut at_quick) = RingBuffer::new(2);
        let wakes = (0..2).map(|_| WakeHandle::detached().expect("an eventfd")).collect();
        let mut workers = Workers::new(vec![slow, quick], wakes);
        for id in 0..6 {
            workers.give(0, closed(id));
            workers.give(0, message());
        }
        assert_eq!(at_slow.pop(), Ok(closed(0)));
        assert_eq!(at_slow.pop(), Ok(message()), "it found room");
        assert_eq!((workers.lost, workers.keeps()), (5, true), "the others may be lost");
        workers.give(1, closed(9));
        assert_eq!(at_quick.pop(), Ok(closed(9)));
        for id in 1..6 {
            workers.give_kept();
            assert_eq!(at_slow.pop(), Ok(closed(id)));
        }
        assert!(!workers.keeps() && at_slow.pop().is_err());
        let mut given = 0;
        while workers.is_taking(0) && given < 10_000 {
            workers.give(0, closed(given));
            given += 1;
        }
        assert_eq!(given, 2 + KEPT_MAX as u64);
        assert!(workers.is_taking(1));
    }
}
