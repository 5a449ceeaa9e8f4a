//! A worker's thread: wait, read the clock, let the core take its turn, carry out what it has for others.

use std::time::{Duration, Instant};

use ringmain_shared::event::Event;
use ringmain_shared::turn::TurnEvent;
use ringmain_shared::{DropReason, Now};
use rtrb::{Consumer, Producer, PushError};

use super::pace::Pace;
use super::watchdog::Pulse;
use super::{Waker, now};
use crate::handshake::{FromHandshake, ToHandshake};
use crate::io::{Link, SocketRefused, Transmit, WakeHandle, socket};
use crate::stream::{FromStream, ToStream};
use crate::turn::SocketRequest;
use crate::worker::relay::RelayItem;
use crate::worker::{Worker, WorkerCommand};

/// A worker's ends of the rings.
pub(crate) struct Ports {
    pub(crate) pulse: Pulse,
    pub(crate) commands: Consumer<WorkerCommand>,
    pub(crate) events: Producer<Event>,
    /// Control's.
    pub(crate) bell: WakeHandle,
    /// By handshake thread.
    pub(crate) to_handshake: Vec<Producer<ToHandshake>>,
    pub(crate) from_handshake: Vec<Consumer<FromHandshake>>,
    pub(crate) handshakers: Vec<Waker>,
    /// By worker.
    pub(crate) to_peers: Vec<Producer<RelayItem>>,
    pub(crate) from_peers: Vec<Consumer<RelayItem>>,
    pub(crate) peers: Vec<WakeHandle>,
    /// Those that something was put into the ring of in this turn.
    pub(crate) called: Vec<bool>,
    /// To the stream thread, if there is one.
    pub(crate) to_streams: Option<(Producer<ToStream>, WakeHandle)>,
    pub(crate) from_streams: Option<Consumer<FromStream>>,
}

/// Events kept for control while its ring is full; beyond, the newest are dropped and counted.
const EVENTS_KEPT_MAX: usize = 16 * 1024;
/// As many of them may be of allocations that come and go, as a single user can make them: rooms' must not be lost to that.
const TURN_EVENTS_KEPT_MAX: usize = 4 * 1024;
/// Facts for other workers kept while their rings are full.
const KEPT_MAX: usize = 4096;
/// How soon a full ring is tried again.
const RETRY: Duration = Duration::from_millis(1);
/// The longest sleep, lest the pulse seem to have stopped. The counters are due as often.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Items of one ring taken in one turn, so that none starves the network.
const ITEMS_PER_TURN: usize = 256;

/// Runs until control lets go of its end.
pub(crate) fn run(mut worker: Worker, mut link: Box<dyn Link>, mut ports: Ports, start: Instant) {
    let mut deeds = Vec::new();
    let (mut pace, mut gather) = (Pace::default(), Duration::ZERO);
    loop {
        let mut before = now(start);
        let nap = worker.nap(before).unwrap_or(gather);
        if !nap.is_zero() && worker.outbox().is_empty() && !ports.more_waits() {
            // Answers and calls of the last turn may only be queued; nobody is to wait for them until we wake.
            link.parts().1.flush();
            std::thread::sleep(nap);
            before = now(start);
        }
        let left = worker.next_deadline().since(before).min(SLEEP_MAX);
        let timeout = match worker.outbox().is_empty() {
            _ if ports.more_waits() => Duration::ZERO,
            true => left,
            false => left.min(RETRY),
        };
        if let Err(error) = link.receive(Some(timeout)) {
            tracing::error!("the link of a worker failed: {error}");
            std::process::abort();
        }
        let moment = now(start);
        ports.pulse.turned(moment);
        let (rx, tx) = link.parts();
        ports.take_in(&mut worker, moment, tx);
        gather = pace.handle_turn(moment, rx.len());
        worker.turn(moment, rx, tx);
        carry_out_sockets(&mut worker, &mut *link, moment);
        let (_, tx) = link.parts();
        tx.end_turn();
        if !tx.diverted().is_empty() {
            // What was said goes before what is to be done: a client hears its answer before its connection is joined or closed.
            std::mem::swap(&mut worker.outbox().streams, &mut deeds);
            tx.diverted().drain(|path, bytes| worker.carry(path, bytes));
            worker.outbox().streams.append(&mut deeds);
        }
        ports.carry_out(&mut worker, tx);
        if std::mem::take(&mut worker.outbox().stats_due) {
            let stats = worker.stats(&link.counters());
            worker.outbox().events.push(Event::Stats(Box::new(stats)));
            ports.tell(&mut worker);
        }
        if ports.commands.is_abandoned() && ports.commands.is_empty() {
            return;
        }
    }
}

/// Opens and closes the sockets of TURN's relays. One that cannot be opened may lead to another request.
fn carry_out_sockets(worker: &mut Worker, link: &mut dyn Link, moment: Now) {
    while !worker.outbox().sockets.is_empty() {
        for request in std::mem::take(&mut worker.outbox().sockets) {
            match request {
                SocketRequest::Open { relay, address, dont_fragment } => {
                    let socket = socket::bind_relay(address, dont_fragment).map_err(SocketRefused::Kernel);
                    let socket = socket.and_then(|socket| link.open(socket));
                    if let Err(error) = &socket {
                        tracing::debug!("no relay socket on {address}: {error}");
                    }
                    let (_, tx) = link.parts();
                    worker.handle_relay_socket(relay, socket.ok(), moment, tx);
                }
                SocketRequest::Close(socket) => {
                    link.close(socket);
                }
            }
        }
    }
}

impl Ports {
    /// A ring still holds what a turn left in it.
    fn more_waits(&self) -> bool {
        !self.commands.is_empty()
            || self.from_handshake.iter().any(|ring| !ring.is_empty())
            || self.from_peers.iter().any(|ring| !ring.is_empty())
            || self.from_streams.iter().any(|ring| !ring.is_empty())
    }

    fn take_in(&mut self, worker: &mut Worker, moment: Now, tx: &mut dyn Transmit) {
        for command in std::iter::from_fn(|| self.commands.pop().ok()).take(ITEMS_PER_TURN) {
            worker.handle_command(command, moment);
        }
        for ring in &mut self.from_handshake {
            for item in std::iter::from_fn(|| ring.pop().ok()).take(ITEMS_PER_TURN) {
                worker.handle_handshake(item, moment, tx);
            }
        }
        for ring in &mut self.from_peers {
            for item in std::iter::from_fn(|| ring.pop().ok()).take(ITEMS_PER_TURN) {
                worker.handle_relay(item, moment, tx);
            }
        }
        if let Some(ring) = &mut self.from_streams {
            for item in std::iter::from_fn(|| ring.pop().ok()).take(ITEMS_PER_TURN) {
                worker.handle_stream(item, moment, tx);
            }
        }
    }

    /// What finds a full ring is lost if its sender repeats it, as DTLS and media are; orders and facts wait for the next turn.
    fn carry_out(&mut self, worker: &mut Worker, tx: &mut dyn Transmit) {
        let outbox = worker.outbox();
        let (mut handshakes_lost, mut relays_lost) = (0, 0);
        let (mut handshakes_kept, mut relays_kept) = (Vec::new(), Vec::new());
        let count = self.to_handshake.len();
        for (room, item) in outbox.handshakes.drain(..) {
            let index = super::router::handshaker_of(room, count);
            let (Some(ring), Some(waker)) = (self.to_handshake.get_mut(index), self.handshakers.get(index)) else {
                continue;
            };
            match ring.push(item) {
                Ok(()) => {}
                Err(PushError::Full(ToHandshake::Datagram { .. })) => handshakes_lost += 1,
                Err(PushError::Full(item)) => handshakes_kept.push((room, item)),
            }
            waker.wake();
        }
        for (to, item) in outbox.relays.drain(..) {
            let Some(ring) = self.to_peers.get_mut(usize::from(to.0)) else { continue };
            // Behind what waits for the same worker: a fact must not overtake the one that it takes back.
            let waits = relays_kept.iter().any(|(other, _)| *other == to);
            let back = if waits { Some(item) } else { offer(ring, item) };
            match back {
                None => {}
                Some(item) if item.may_be_lost() => relays_lost += 1,
                Some(item) => relays_kept.push((to, item)),
            }
            if let Some(called) = self.called.get_mut(usize::from(to.0)) {
                *called = true;
            }
        }
        // One call for all that a turn has for another worker: to one that is busy it is a swap of a byte, to one that sleeps a bell.
        for (called, peer) in self.called.iter_mut().zip(&self.peers) {
            if std::mem::take(called) {
                tx.wake(peer);
            }
        }
        let mut streams_lost = 0;
        let mut streams_kept = Vec::new();
        if let Some((ring, wake)) = self.to_streams.as_mut().filter(|_| !outbox.streams.is_empty()) {
            for item in outbox.streams.drain(..) {
                // Behind what waits, or two parts of a conversation would change places.
                let back = match streams_kept.is_empty() {
                    true => ring.push(item).err().map(|PushError::Full(item)| item),
                    false => Some(item),
                };
                match back {
                    None => {}
                    Some(ToStream::Message { .. } | ToStream::Datagram { .. }) => streams_lost += 1,
                    Some(item) => streams_kept.push(item),
                }
            }
            // What is kept has no bound of its own: it is of connections, which have one, and none of it may be lost. A grant or an end
            // that never came would leave a connection as it is for ever.
            wake.wake();
        }
        outbox.streams.clear();
        outbox.streams.append(&mut streams_kept);
        relays_lost += relays_kept.len().saturating_sub(KEPT_MAX) as u64;
        relays_kept.truncate(KEPT_MAX);
        outbox.handshakes.append(&mut handshakes_kept);
        outbox.relays.append(&mut relays_kept);
        worker.count_many(DropReason::HandshakeFull, handshakes_lost);
        worker.count_many(DropReason::RelayFull, relays_lost);
        worker.count_many(DropReason::StreamFull, streams_lost);
        self.tell(worker);
    }

    fn tell(&mut self, worker: &mut Worker) {
        let events = &mut worker.outbox().events;
        if events.is_empty() {
            return;
        }
        let room = self.events.slots().min(events.len());
        for event in events.drain(..room) {
            let _ = self.events.push(event);
        }
        let lost = bound_kept(events);
        worker.count_many(DropReason::EventFull, lost as u64);
        self.bell.wake();
    }
}

/// Gives it to another worker. Back it comes if the ring is full, or half full and it is to leave room.
fn offer(ring: &mut Producer<RelayItem>, item: RelayItem) -> Option<RelayItem> {
    if item.leaves_room() && ring.slots() <= ring.buffer().capacity() / 2 {
        return Some(item);
    }
    ring.push(item).err().map(|PushError::Full(item)| item)
}

/// Drops the newest of what is kept, as far as it is too much. How many.
fn bound_kept(events: &mut Vec<Event>) -> usize {
    let count = events.len();
    if count > TURN_EVENTS_KEPT_MAX {
        let mut turn = 0;
        events.retain(|event| {
            // A snapshot was asked for, and is waited for.
            let is_users = matches!(event, Event::Turn(event) if !matches!(**event, TurnEvent::Snapshot { .. }));
            turn += usize::from(is_users);
            !is_users || turn <= TURN_EVENTS_KEPT_MAX
        });
    }
    events.truncate(EVENTS_KEPT_MAX);
    count - events.len()
}

#[cfg(test)]
mod tests {
    use ringmain_shared::event::CloseReason;
    use ringmain_shared::id::{TrackId, TransportId, TurnAllocationId, WorkerIndex};
    use ringmain_shared::turn::{RelayProtocol, TurnAllocation, TurnTraffic, TurnTransport};

    use super::*;
    use crate::handshake::Datagram;
    use crate::turn::TurnItem;

    #[test]
    fn what_clients_send_each_other_leaves_room_for_rooms() {
        let (mut ring, _other) = rtrb::RingBuffer::new(16);
        let address = std::net::SocketAddr::from(([192, 0, 2, 1], 9));
        let between_clients =
            || RelayItem::Turn(TurnItem::ToRelayed { to: address, from: address, bytes: Datagram::new() });
        let for_a_room = || RelayItem::Alive { track: TrackId(1), layers: 1 };
        assert_eq!((0..20).filter(|_| offer(&mut ring, between_clients()).is_none()).count(), 8);
        assert_eq!((0..20).filter(|_| offer(&mut ring, for_a_room()).is_none()).count(), 8);
    }

    #[test]
    fn allocations_that_come_and_go_do_not_push_out_what_rooms_have_to_say() {
        let allocation = TurnAllocation {
            id: TurnAllocationId(1),
            user: "alice".into(),
            bound: None,
            client: ([192, 0, 2, 1], 5).into(),
            transport: TurnTransport::Udp,
            protocol: RelayProtocol::Udp,
            relayed: Vec::new(),
            lifetime_s: 600,
            permissions: 0,
            channels: 0,
            sockets: 0,
            connections: 0,
            traffic: TurnTraffic::default(),
        };
        let opened = || Event::Turn(Box::new(TurnEvent::Opened(allocation.clone())));
        let snapshot = TurnEvent::Snapshot { request: 7, worker: WorkerIndex(0), allocations: Vec::new() };
        let closed = |id| Event::Closed { transport: TransportId(id), reason: CloseReason::PeerClosed };
        let mut events: Vec<Event> = std::iter::repeat_with(opened).take(EVENTS_KEPT_MAX).collect();
        events.push(Event::Turn(Box::new(snapshot)));
        events.extend((0..100).map(closed));
        assert_eq!(bound_kept(&mut events), EVENTS_KEPT_MAX - TURN_EVENTS_KEPT_MAX);
        assert_eq!(events.len(), TURN_EVENTS_KEPT_MAX + 101);
        assert_eq!(events.last(), Some(&closed(99)));
        // The whole has its bound too.
        events.extend((0..EVENTS_KEPT_MAX as u64).map(closed));
        assert_eq!(bound_kept(&mut events), TURN_EVENTS_KEPT_MAX + 101);
        assert_eq!((events.len(), bound_kept(&mut events)), (EVENTS_KEPT_MAX, 0));
    }
}
