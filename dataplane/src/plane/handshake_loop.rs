//! A handshake thread: DTLS and SCTP of its rooms, beside the workers' packets and never in their way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ringmain_shared::event::{Event, HandshakeStats};
use ringmain_shared::limits::HANDSHAKE_RING;
use rtrb::{Consumer, Producer, PushError};

use super::now;
use super::watchdog::Pulse;
use crate::handshake::{FromHandshake, Handshaker, ToHandshake};
use crate::io::{WakeHandle, give_way};

/// A handshake thread's ends of the rings.
pub(crate) struct Ports {
    /// Which thread this is.
    pub(crate) index: u16,
    pub(crate) pulse: Pulse,
    pub(crate) commands: Consumer<ToHandshake>,
    pub(crate) events: Producer<Event>,
    /// Control's.
    pub(crate) bell: WakeHandle,
    /// By worker.
    pub(crate) from_workers: Vec<Consumer<ToHandshake>>,
    pub(crate) to_workers: Vec<Producer<FromHandshake>>,
    pub(crate) workers: Vec<WakeHandle>,
}

/// The longest sleep: bounds how long the end of control goes unnoticed, and keeps the pulse going.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Items taken from one ring before what they made is carried out.
const ITEMS_PER_TURN: usize = 64;
/// How soon a full ring is tried again.
const RETRY: Duration = Duration::from_millis(1);
/// Datagrams kept for one worker while its ring is full; beyond, they are lost, and DTLS or SCTP sends them again.
const DATAGRAMS_KEPT_MAX: usize = HANDSHAKE_RING;
/// How often the counters are told.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until control lets go of its end.
pub(crate) fn run(mut core: Handshaker, mut ports: Ports, start: Instant) {
    // Media of those who are in comes before those who join.
    give_way();
    let mut out = Vec::new();
    let mut unsent = Unsent::new(ports.to_workers.len());
    let mut stats_at = now(start) + STATS_INTERVAL;
    loop {
        let moment = now(start);
        ports.pulse.turned(moment);
        // Control's orders first: a datagram of a transport is never ahead of the order that opened it.
        let mut taken = 0;
        for item in std::iter::from_fn(|| ports.commands.pop().ok()).take(ITEMS_PER_TURN) {
            core.handle(item, moment, &mut out);
            taken += 1;
        }
        if taken < ITEMS_PER_TURN {
            for ring in &mut ports.from_workers {
                for item in std::iter::from_fn(|| ring.pop().ok()).take(ITEMS_PER_TURN) {
                    core.handle(item, moment, &mut out);
                    taken += 1;
                }
            }
        }
        if core.next_deadline().is_some_and(|deadline| deadline <= moment) {
            core.handle_timeout(moment, &mut out);
        }
        if stats_at <= moment {
            stats_at = moment + STATS_INTERVAL;
            let stats =
                HandshakeStats { api_lost: unsent.api_lost, datagrams_lost: unsent.datagrams_lost, ..core.stats() };
            out.push(FromHandshake::Event(Event::HandshakeStats { thread: ports.index, stats }));
        }
        ports.carry_out(&mut out, &mut unsent);
        if ports.commands.is_abandoned() && ports.commands.is_empty() {
            return;
        }
        if taken == 0 {
            let left = core.next_deadline().map_or(SLEEP_MAX, |deadline| deadline.since(now(start)));
            let left = if unsent.is_empty() { left.min(SLEEP_MAX) } else { left.min(RETRY) };
            std::thread::park_timeout(left);
        }
    }
}

/// What found a full ring and must not be lost for it. A worker that stands still holds up what is its own, and nobody else's.
struct Unsent {
    /// `ApiOpen`: at most one for each transport.
    events: VecDeque<Event>,
    /// By worker, in order: keys and closings, at most two for each transport, and a ring's worth of datagrams.
    items: Vec<Kept>,
    api_lost: u64,
    datagrams_lost: u64,
}

#[derive(Default)]
struct Kept {
    items: VecDeque<FromHandshake>,
    datagrams: usize,
}

impl Unsent {
    fn new(workers: usize) -> Self {
        let items = (0..workers).map(|_| Kept::default()).collect();
        Self { events: VecDeque::new(), items, api_lost: 0, datagrams_lost: 0 }
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.items.iter().all(|kept| kept.items.is_empty())
    }

    /// Keeps an event that control would otherwise never hear of. Counters come again.
    fn keep_event(&mut self, event: Event) {
        match event {
            Event::ApiMessage { .. } => self.api_lost += 1,
            Event::HandshakeStats { .. } => {}
            event => self.events.push_back(event),
        }
    }
}

impl Ports {
    fn carry_out(&mut self, out: &mut Vec<FromHandshake>, unsent: &mut Unsent) {
        let mut told = false;
        while let Some(event) = unsent.events.pop_front() {
            if let Err(PushError::Full(event)) = self.events.push(event) {
                unsent.events.push_front(event);
                break;
            }
            told = true;
        }
        for (kept, (ring, waker)) in unsent.items.iter_mut().zip(self.to_workers.iter_mut().zip(&self.workers)) {
            kept.retry(ring, waker);
        }
        for item in out.drain(..) {
            let worker = match item {
                FromHandshake::Event(event) => {
                    match self.events.push(event) {
                        Ok(()) => told = true,
                        Err(PushError::Full(event)) => unsent.keep_event(event),
                    }
                    continue;
                }
                FromHandshake::Datagram { worker, .. }
                | FromHandshake::Keys { worker, .. }
                | FromHandshake::Closed { worker, .. } => usize::from(worker.0),
            };
            let (Some(ring), Some(waker)) = (self.to_workers.get_mut(worker), self.workers.get(worker)) else {
                continue;
            };
            if let Some(kept) = unsent.items.get_mut(worker)
                && !kept.push(item, ring, waker)
            {
                unsent.datagrams_lost += 1;
            }
        }
        if told {
            self.bell.wake();
        }
    }
}

impl Kept {
    /// Gives an item to the worker, or keeps it behind what is kept already; `false` when it is lost.
    fn push(&mut self, item: FromHandshake, ring: &mut Producer<FromHandshake>, waker: &WakeHandle) -> bool {
        let item = match self.items.is_empty() {
            true => match ring.push(item) {
                Ok(()) => {
                    waker.wake();
                    return true;
                }
                Err(PushError::Full(item)) => item,
            },
            false => item,
        };
        let is_datagram = matches!(item, FromHandshake::Datagram { .. });
        if is_datagram && self.datagrams >= DATAGRAMS_KEPT_MAX {
            return false;
        }
        self.datagrams += usize::from(is_datagram);
        self.items.push_back(item);
        true
    }

    fn retry(&mut self, ring: &mut Producer<FromHandshake>, waker: &WakeHandle) {
        while let Some(item) = self.items.pop_front() {
            let is_datagram = matches!(item, FromHandshake::Datagram { .. });
            if let Err(PushError::Full(item)) = ring.push(item) {
                self.items.push_front(item);
                break;
            }
            self.datagrams -= usize::from(is_datagram);
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use ringmain_shared::event::CloseReason;
    use ringmain_shared::id::{TransportId, WorkerIndex};
    use rtrb::{Consumer, RingBuffer};

    use super::super::watchdog::Pulse;
    use super::*;

    /// Rings of two places to two workers and to control, and their far ends.
    fn ports() -> (Ports, Vec<Consumer<FromHandshake>>, Consumer<Event>) {
        let (to_workers, far): (Vec<_>, Vec<_>) = (0..2).map(|_| RingBuffer::new(2)).unzip();
        let (events, told) = RingBuffer::new(2);
        let handle = || WakeHandle::detached().expect("an eventfd");
        let (_, commands) = RingBuffer::new(1);
        let (bell, workers, pulse) = (handle(), vec![handle(), handle()], Pulse::default());
        (Ports { index: 0, pulse, commands, events, bell, from_workers: vec![], to_workers, workers }, far, told)
    }

    fn datagram(worker: u16, number: u8) -> FromHandshake {
        let bytes = [number].as_slice().try_into().expect("it fits");
        FromHandshake::Datagram { worker: WorkerIndex(worker), transport: TransportId(1), bytes }
    }

    fn closed(worker: u16) -> FromHandshake {
        let reason = CloseReason::HandshakeTimeout;
        FromHandshake::Closed { worker: WorkerIndex(worker), transport: TransportId(1), reason }
    }

    #[test]
    fn a_worker_that_stands_still_holds_up_nobody_else_and_misses_no_closing() {
        let (mut ports, mut far, _told) = ports();
        let mut unsent = Unsent::new(2);
        let mut out: Vec<_> = (0..2 + DATAGRAMS_KEPT_MAX + 5).map(|_| datagram(0, 7)).collect();
        out.extend([closed(0), datagram(1, 8)]);
        ports.carry_out(&mut out, &mut unsent);
        assert!(matches!(far[1].pop(), Ok(FromHandshake::Datagram { .. })), "the other worker has its own");
        assert_eq!(unsent.datagrams_lost, 5);
        let mut last = None;
        let mut count = 0;
        while !unsent.is_empty() || !far[0].is_empty() {
            while let Ok(item) = far[0].pop() {
                (last, count) = (Some(item), count + 1);
            }
            ports.carry_out(&mut Vec::new(), &mut unsent);
        }
        assert_eq!(count, 2 + DATAGRAMS_KEPT_MAX + 1);
        assert!(matches!(last, Some(FromHandshake::Closed { .. })), "in order, and not lost: {last:?}");
        assert_eq!(unsent.items[0].datagrams, 0);
    }

    #[test]
    fn an_api_channel_that_opens_is_told_however_many_messages_are_in_the_way() {
        let (mut ports, _far, mut told) = ports();
        let mut unsent = Unsent::new(2);
        let transport = TransportId(1);
        let message = || FromHandshake::Event(Event::ApiMessage { transport, text: "x".into() });
        let mut out: Vec<_> = (0..10).map(|_| message()).collect();
        out.extend([FromHandshake::Event(Event::ApiOpen { transport }), message()]);
        ports.carry_out(&mut out, &mut unsent);
        assert_eq!(unsent.api_lost, 9);
        assert!(std::iter::from_fn(|| told.pop().ok()).all(|event| matches!(event, Event::ApiMessage { .. })));
        ports.carry_out(&mut Vec::new(), &mut unsent);
        assert_eq!(told.pop(), Ok(Event::ApiOpen { transport }));
        assert!(unsent.is_empty());
    }
}
