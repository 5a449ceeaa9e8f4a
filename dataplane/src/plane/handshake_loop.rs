//! A handshake thread: DTLS and SCTP of its rooms, beside the workers' packets and never in their way.

use std::time::{Duration, Instant};

use ringmain_shared::event::Event;
use rtrb::{Consumer, Producer};

use super::now;
use crate::handshake::{FromHandshake, Handshaker, ToHandshake};
use crate::io::WakeHandle;

/// A handshake thread's ends of the rings.
pub(crate) struct Ports {
    pub(crate) commands: Consumer<ToHandshake>,
    pub(crate) events: Producer<Event>,
    /// Control's.
    pub(crate) bell: WakeHandle,
    /// By worker.
    pub(crate) from_workers: Vec<Consumer<ToHandshake>>,
    pub(crate) to_workers: Vec<Producer<FromHandshake>>,
    pub(crate) workers: Vec<WakeHandle>,
}

/// The longest sleep; only the end of control is noticed by it.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Items taken from one ring before what they made is carried out.
const ITEMS_PER_TURN: usize = 64;
/// The handshake threads' share of patience with a full ring: then the datagram is lost, and DTLS or SCTP sends it again.
const PUSH_TRIES: usize = 50;

/// Runs until control lets go of its end.
pub(crate) fn run(mut core: Handshaker, mut ports: Ports, start: Instant) {
    let mut out = Vec::new();
    loop {
        let moment = now(start);
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
        ports.carry_out(&mut out);
        if ports.commands.is_abandoned() && ports.commands.is_empty() {
            return;
        }
        if taken == 0 {
            let left = core.next_deadline().map_or(SLEEP_MAX, |deadline| deadline.since(now(start)));
            std::thread::park_timeout(left.min(SLEEP_MAX));
        }
    }
}

impl Ports {
    fn carry_out(&mut self, out: &mut Vec<FromHandshake>) {
        let mut told = false;
        for item in out.drain(..) {
            let worker = match item {
                FromHandshake::Event(event) => {
                    told |= self.events.push(event).is_ok();
                    continue;
                }
                FromHandshake::Datagram { worker, .. }
                | FromHandshake::Keys { worker, .. }
                | FromHandshake::Closed { worker, .. } => usize::from(worker.0),
            };
            let (Some(ring), Some(waker)) = (self.to_workers.get_mut(worker), self.workers.get(worker)) else {
                continue;
            };
            push_patiently(ring, item, waker);
            waker.wake();
        }
        if told {
            self.bell.wake();
        }
    }
}

/// Keys and closings must arrive, so a full ring is waited for; a datagram only for a moment.
fn push_patiently(ring: &mut Producer<FromHandshake>, item: FromHandshake, waker: &WakeHandle) {
    let may_be_lost = matches!(item, FromHandshake::Datagram { .. });
    let mut item = item;
    for attempt in 0.. {
        match ring.push(item) {
            Ok(()) => return,
            Err(rtrb::PushError::Full(back)) => item = back,
        }
        if ring.is_abandoned() || may_be_lost && attempt >= PUSH_TRIES {
            return;
        }
        waker.wake();
        std::thread::sleep(Duration::from_micros(100));
    }
}
