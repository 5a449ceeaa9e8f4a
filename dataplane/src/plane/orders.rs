//! What waits for one thread's ring, in order. Each thread has a queue of its own, so that one that stands still holds up
//! its own orders and nobody else's.

use std::collections::VecDeque;

use ringmain_shared::limits::COMMAND_RING;
use ringmain_shared::{Event, Now};
use rtrb::{Consumer, Producer, PushError};

use super::Waker;
use super::router::Routed;
use super::stream_loop::StreamOrder;
use super::watchdog::Watchdog;
use crate::handshake::ToHandshake;
use crate::worker::WorkerCommand;

/// Every thread of the data plane, as control sees it.
pub(super) struct Threads {
    workers: Vec<Port<WorkerCommand>>,
    handshakers: Vec<Port<ToHandshake>>,
    streams: Option<Port<StreamOrder>>,
    /// Numbers the workers first, then the handshake threads.
    watchdog: Watchdog,
    /// What the watchdog said: one for each thread, at most.
    alarms: VecDeque<Event>,
    next_port: usize,
}

impl Threads {
    /// Threads that `watchdog` watches in this order.
    pub(super) fn new(
        workers: Vec<Port<WorkerCommand>>,
        handshakers: Vec<Port<ToHandshake>>,
        streams: Option<Port<StreamOrder>>,
        watchdog: Watchdog,
    ) -> Self {
        Self { workers, handshakers, streams, watchdog, alarms: VecDeque::new(), next_port: 0 }
    }

    /// Gives an order to whom it is for, behind those that wait for the same thread.
    pub(super) fn give(&mut self, routed: Routed) {
        // Control names the workers that it was told of; there are no others.
        match routed {
            Routed::Worker(to, order) => {
                let place = usize::from(to.0);
                if let Some(port) = self.workers.get_mut(place) {
                    port.give(order, self.watchdog.is_stalled(place));
                }
            }
            Routed::Handshaker(to, order) => {
                let place = self.workers.len() + to;
                if let Some(port) = self.handshakers.get_mut(to) {
                    port.give(order, self.watchdog.is_stalled(place));
                }
            }
            Routed::Streams(order) => {
                let place = self.workers.len() + self.handshakers.len();
                if let Some(port) = &mut self.streams {
                    port.give(order, self.watchdog.is_stalled(place));
                }
            }
        }
    }

    /// Moves what waits into the rings, as far as there is room.
    pub(super) fn push(&mut self) {
        self.workers.iter_mut().for_each(Port::push);
        self.handshakers.iter_mut().for_each(Port::push);
        self.streams.iter_mut().for_each(Port::push);
    }

    /// A thread that turns has as much to do as may wait for it.
    pub(super) fn is_behind(&self) -> bool {
        let full = self.workers.iter().map(Port::is_full).chain(self.handshakers.iter().map(Port::is_full));
        let full = full.chain(self.streams.iter().map(Port::is_full));
        full.enumerate().any(|(place, full)| full && !self.watchdog.is_stalled(place))
    }

    /// Orders that wait, and those that were lost.
    pub(super) fn waiting_and_lost(&self) -> (usize, u64) {
        let workers = self.workers.iter().map(|port| (port.waiting.len(), port.lost));
        let handshakers = self.handshakers.iter().map(|port| (port.waiting.len(), port.lost));
        let streams = self.streams.iter().map(|port| (port.waiting.len(), port.lost));
        workers.chain(handshakers).chain(streams).fold((0, 0), |sum, port| (sum.0 + port.0, sum.1 + port.1))
    }

    /// The next thing that the watchdog has to say.
    pub(super) fn alarm(&mut self, now: Now) -> Option<Event> {
        let alarms = &mut self.alarms;
        self.watchdog.look(now, &mut |event| alarms.push_back(event));
        alarms.pop_front()
    }

    /// The next event, from each thread in turn.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        let count = self.workers.len() + self.handshakers.len() + self.streams.iter().len();
        (0..count).find_map(|_| {
            let place = self.next_port;
            self.next_port = (place + 1) % count;
            let events = match place.checked_sub(self.workers.len()) {
                None => self.workers.get_mut(place).map(|port| &mut port.events),
                Some(place) if place == self.handshakers.len() => self.streams.as_mut().map(|port| &mut port.events),
                Some(place) => self.handshakers.get_mut(place).map(|port| &mut port.events),
            };
            events?.pop().ok()
        })
    }

    /// Lets go of the threads; what wakes them is left.
    pub(super) fn into_wakers(self) -> Vec<Waker> {
        let workers = self.workers.into_iter().map(|port| port.waker);
        let streams = self.streams.into_iter().map(|port| port.waker);
        workers.chain(self.handshakers.into_iter().map(|port| port.waker)).chain(streams).collect()
    }
}

/// One thread.
pub(super) struct Port<T> {
    events: Consumer<Event>,
    waker: Waker,
    orders: Producer<T>,
    waiting: VecDeque<T>,
    lost: u64,
}

impl<T> Port<T> {
    pub(super) fn new(orders: Producer<T>, events: Consumer<Event>, waker: Waker) -> Self {
        Self { events, waker, orders, waiting: VecDeque::new(), lost: 0 }
    }

    /// What ends the thread's sleep.
    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Gives an order, behind those that wait. What a stalled thread may yet carry out is bounded; the rest is lost.
    fn give(&mut self, order: T, stalled: bool) {
        if stalled && self.is_full() {
            self.lost += 1;
            return;
        }
        self.waiting.push_back(order);
        self.push();
    }

    /// Moves what waits into the ring, as far as there is room.
    fn push(&mut self) {
        let mut given = false;
        while let Some(order) = self.waiting.pop_front() {
            if let Err(PushError::Full(order)) = self.orders.push(order) {
                self.waiting.push_front(order);
                break;
            }
            given = true;
        }
        // A thread with a full ring is awake, unless it stands still.
        if given {
            self.waker.wake();
        }
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }
}

/// Orders that wait for one thread beside those in its ring. One command may add a few more.
const WAITING_MAX: usize = COMMAND_RING;

#[cfg(test)]
mod tests {
    use ringmain_shared::Command;
    use ringmain_shared::id::{SubscriptionId, WorkerIndex};
    use rtrb::RingBuffer;

    use super::super::watchdog::Pulse;
    use super::*;
    use crate::io::WakeHandle;

    /// Two workers and a handshake thread, their pulses, and where the workers' orders arrive.
    fn threads() -> (Threads, Vec<Pulse>, Vec<Consumer<WorkerCommand>>) {
        let mut watchdog = Watchdog::default();
        let pulses = ["worker-0", "worker-1", "handshake-0"].map(|name| watchdog.watch(name.into()));
        let waker = || Waker::Link(WakeHandle::detached().expect("an eventfd"));
        let (ports, far) = (0..2)
            .map(|_| {
                let (orders, far) = RingBuffer::new(4);
                (Port::new(orders, RingBuffer::new(1).1, waker()), far)
            })
            .unzip();
        let handshaker = Port::new(RingBuffer::new(4).0, RingBuffer::new(1).1, waker());
        (Threads::new(ports, vec![handshaker], None, watchdog), pulses.to_vec(), far)
    }

    fn order(worker: u16, number: u64) -> Routed {
        let command = Command::Unsubscribe { subscription: SubscriptionId(number) };
        Routed::Worker(WorkerIndex(worker), WorkerCommand::Control(command))
    }

    fn taken(far: &mut Consumer<WorkerCommand>) -> Vec<u64> {
        std::iter::from_fn(|| far.pop().ok())
            .map(|order| match order {
                WorkerCommand::Control(Command::Unsubscribe { subscription }) => subscription.0,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    /// All but worker 0 turn until `millis`; what was told of it.
    fn pass(threads: &mut Threads, pulses: &[Pulse], millis: std::ops::Range<u64>) -> Vec<Event> {
        millis
            .step_by(100)
            .filter_map(|millis| {
                let now = Now::from_millis(millis);
                pulses[1..].iter().for_each(|pulse| pulse.turned(now));
                threads.alarm(now)
            })
            .collect()
    }

    #[test]
    fn a_worker_that_stands_still_holds_up_its_own_orders_only_and_gets_them_in_order() {
        let (mut threads, _, mut far) = threads();
        (0..20).for_each(|number| threads.give(order(0, number)));
        (100..103).for_each(|number| threads.give(order(1, number)));
        assert_eq!(taken(&mut far[1]), [100, 101, 102]);
        assert_eq!(threads.waiting_and_lost(), (16, 0));
        let mut late = Vec::new();
        while threads.waiting_and_lost().0 > 0 || !far[0].is_empty() {
            late.extend(taken(&mut far[0]));
            threads.push();
        }
        assert_eq!(late, (0..20).collect::<Vec<u64>>());
    }

    #[test]
    fn a_busy_worker_slows_everybody_down_and_one_that_stands_still_nobody() {
        let (mut threads, pulses, mut far) = threads();
        assert!(pass(&mut threads, &pulses, 0..1_000).is_empty());
        (0..WAITING_MAX as u64 + 4).for_each(|number| threads.give(order(0, number)));
        assert!(threads.is_behind(), "as long as it may only be busy");
        let told = pass(&mut threads, &pulses, 1_000..4_000);
        assert!(matches!(&told[..], [Event::Stalled { thread, .. }] if thread == "worker-0"), "{told:?}");
        assert!(!threads.is_behind());
        threads.give(order(0, 99));
        threads.give(order(1, 100));
        assert_eq!(threads.waiting_and_lost(), (WAITING_MAX, 1), "its own are lost beyond the bound");
        assert_eq!(taken(&mut far[1]), [100]);
        pulses[0].turned(Now::from_millis(4_000));
        let told = pass(&mut threads, &pulses, 4_000..4_600);
        assert!(matches!(&told[..], [Event::Recovered { thread }] if thread == "worker-0"), "{told:?}");
        assert!(threads.is_behind());
        taken(&mut far[0]);
        threads.push();
        assert!(!threads.is_behind());
    }
}
