//! Deadlines of transports. Each has at most one live entry, so that ten thousand idle transports cost a list and little work.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::time::Duration;

use arrayvec::ArrayVec;
use ringmain_shared::Now;
use ringmain_shared::event::{CloseReason, Event, IceState};
use ringmain_shared::limits::TRANSPORT_ABANDONED;

use super::Worker;
use super::ingress::EXPECTED;
use crate::handshake::ToHandshake;
use crate::io::Transmit;
use crate::transport::{Reaction, TransportKey};

/// When to look at which transport. An entry that is not its transport's current one is passed over.
///
/// Most are seconds away, and a heap of ten thousand is cold wherever it is touched: only the next ones are in order, the others wait
/// their turn in a list that is looked through now and then.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Those before `sorted`.
    near: BinaryHeap<Reverse<(Now, TransportKey)>>,
    /// All others, as they came.
    far: Vec<(Now, TransportKey)>,
    /// The first of these.
    far_first: Option<Now>,
    sorted: Now,
}

impl Timers {
    /// The first deadline.
    pub(super) fn next(&self) -> Option<Now> {
        self.near.peek().map(|Reverse((at, _))| *at).or(self.far_first)
    }

    /// Takes the memory for the deadlines of so many transports, which is not to be asked for between packets. A deadline that gave way to
    /// an earlier one stays until its time.
    pub(super) fn make_room(&mut self, transports: usize) {
        let entries = 2 * transports;
        self.near.reserve(entries.saturating_sub(self.near.len()));
        self.far.reserve(entries.saturating_sub(self.far.len()));
    }

    fn set(&mut self, at: Now, key: TransportKey) {
        if at < self.sorted {
            self.near.push(Reverse((at, key)));
        } else {
            self.far.push((at, key));
            self.far_first = Some(self.far_first.map_or(at, |first| first.min(at)));
        }
    }

    /// A few of those that are due by now, the first ones first.
    fn take(&mut self, now: Now) -> ArrayVec<(Now, TransportKey), EXPECTED> {
        if self.sorted <= now {
            self.sort(now + SORTED_AHEAD);
        }
        let due = || self.near.peek_mut().filter(|first| first.0.0 <= now).map(|first| PeekMut::pop(first).0);
        std::iter::from_fn(due).take(EXPECTED).collect()
    }

    /// Puts those before this in order.
    fn sort(&mut self, before: Now) {
        let Self { near, far, far_first, sorted } = self;
        (*far_first, *sorted) = (None, before);
        far.retain(|&(at, key)| {
            if at < before {
                near.push(Reverse((at, key)));
            } else {
                *far_first = Some(far_first.map_or(at, |first| first.min(at)));
            }
            at >= before
        });
    }
}

/// Ten thousand idle peers have a thousand deadlines in this time, which the first caches have room for; to look through all of them
/// takes microseconds.
const SORTED_AHEAD: Duration = Duration::from_millis(250);
/// A STUN message of ours is never longer.
const STUN_SIZE_MAX: usize = 700;

impl Worker {
    /// Sets the timer of a transport to what it needs, if that is earlier than what is set.
    pub(super) fn schedule(&mut self, key: TransportKey) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let publisher = transport.publisher.as_deref();
        let deadline = [
            transport.ice.next_deadline(),
            transport.abandoned_at,
            transport.subscriber.report_at,
            publisher.and_then(|publisher| publisher.next_deadline()),
        ];
        let Some(at) = deadline.into_iter().flatten().min() else { return };
        if transport.timer.is_none_or(|timer| at < timer) {
            transport.timer = Some(at);
            self.timers.set(at, key);
        }
    }

    /// Everything that is due by now.
    pub(super) fn run_timers(&mut self, now: Now, out: &mut dyn Transmit) {
        loop {
            let due = self.timers.take(now);
            if due.is_empty() {
                break;
            }
            let keys: ArrayVec<TransportKey, EXPECTED> = due.iter().map(|&(_, key)| key).collect();
            self.expect_ice(&keys);
            for (at, key) in due {
                let Some(transport) = self.transports.get_mut(key).filter(|transport| transport.timer == Some(at))
                else {
                    continue;
                };
                transport.timer = None;
                if self.look_after(key, now, out) {
                    self.schedule(key);
                }
            }
        }
        if self.audio_at <= now {
            self.audio_at = now + self.settings.audio_interval;
            self.tell_audio_activity();
        }
        if self.stats_at <= now {
            self.stats_at = now + STATS_INTERVAL;
            self.outbox.stats_due = true;
        }
    }

    /// What is due on one transport. False when it is gone.
    fn look_after(&mut self, key: TransportKey, now: Now, out: &mut dyn Transmit) -> bool {
        let Some(transport) = self.transports.get_mut(key) else { return false };
        if transport.abandoned_at.is_some_and(|at| at <= now) {
            let (room, transport, closing) = (transport.room, transport.id, transport.closing);
            self.remove_transport(key);
            if !closing {
                self.outbox.handshakes.push((room, ToHandshake::Close { transport }));
                self.outbox.events.push(Event::Closed { transport, reason: CloseReason::Abandoned });
            }
            return false;
        }
        let reaction = transport.ice.handle_timeout(now);
        self.follow(key, reaction, None, now);
        self.send_checks(key, now, out);
        self.answer_publisher(key, now, out);
        self.send_sender_reports(key, now, out);
        true
    }

    /// Sends the checks of ours that are due.
    pub(super) fn send_checks(&mut self, key: TransportKey, now: Now, out: &mut dyn Transmit) {
        let mut buffer = [0; STUN_SIZE_MAX];
        if let Some(transport) = self.transports.get_mut(key).filter(|transport| !transport.sends_media()) {
            transport.ice.rest(now);
        }
        loop {
            let Some(transport) = self.transports.get_mut(key) else { return };
            let Some((path, len)) = transport.ice.poll_check(&mut buffer, &mut self.random, now) else { return };
            self.send(path, buffer.get(..len).unwrap_or_default(), out);
        }
    }

    /// Does what ICE's reaction asks: paths that are claimed and released, a state that control should know.
    pub(super) fn follow(&mut self, key: TransportKey, reaction: Reaction, from: Option<crate::io::Path>, now: Now) {
        for path in &reaction.released {
            if self.names.paths.get(path) == Some(&key) {
                self.names.paths.remove(path);
            }
        }
        if let (Some(claim), Some(path)) = (reaction.claims, from) {
            self.claim(key, path, claim, now);
        }
        let Some(transport) = self.transports.get_mut(key) else { return };
        let state = transport.ice.state();
        if state == transport.ice_told {
            return;
        }
        transport.ice_told = state;
        transport.abandoned_at = match state {
            _ if transport.closing => transport.abandoned_at,
            IceState::Connected | IceState::Disconnected => None,
            _ => Some(now + TRANSPORT_ABANDONED),
        };
        let (room, id) = (transport.room, transport.id);
        self.outbox.events.push(Event::IceState { transport: id, state });
        if state == IceState::Connected && !transport.validated {
            transport.validated = true;
            self.outbox.handshakes.push((room, ToHandshake::Validated { transport: id }));
        }
        if state == IceState::Connected {
            self.begin_sending(key, now);
        }
    }
}

const STATS_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use slotmap::KeyData;

    use super::*;
    use crate::random::Random;

    #[test]
    fn timers_come_in_their_order_and_none_is_late() {
        for seed in 0..20 {
            let (mut random, mut timers) = (Random::from_seed([seed; 32]), Timers::default());
            let (mut now, mut set) = (Now(0), BTreeSet::new());
            for number in 0..5_000 {
                // Within a millisecond, a second or a minute, now and then in the past.
                let reach = [1_000_000, 1_000_000_000, 60_000_000_000][number % 3];
                let at = Now((now.0 + random.next_u64() % reach).saturating_sub(100_000));
                let key = TransportKey::from(KeyData::from_ffi((1 << 32) + number as u64));
                timers.set(at, key);
                set.insert((at, key));
                assert_eq!(timers.next(), set.first().map(|&(at, _)| at), "seed {seed}");
                now = match random.next_u64() % 20 {
                    0 => now + Duration::from_nanos(random.next_u64() % 2_000_000_000),
                    1..10 => timers.next().unwrap_or(now).max(now),
                    _ => continue,
                };
                let due: Vec<_> = set.iter().copied().take_while(|&(at, _)| at <= now).collect();
                let batches = std::iter::from_fn(|| Some(timers.take(now)).filter(|batch| !batch.is_empty()));
                assert_eq!(batches.flatten().collect::<Vec<_>>(), due, "seed {seed}");
                set.retain(|&(at, _)| at > now);
            }
        }
    }

    #[test]
    fn memory_is_asked_for_with_transports_and_not_with_deadlines() {
        let (mut random, mut timers) = (Random::from_seed([7; 32]), Timers::default());
        timers.make_room(1_000);
        let room = |timers: &Timers| (timers.near.capacity(), timers.far.capacity());
        let (before, mut now) = (room(&timers), Now(0));
        for _ in 0..100 {
            for key in (0..1_000).map(|number| TransportKey::from(KeyData::from_ffi((1 << 32) + number))) {
                for within in [5_000_000_000, 1_000_000] {
                    timers.set(Now(now.0 + random.next_u64() % within), key);
                }
            }
            now = now + Duration::from_secs(5);
            while !timers.take(now).is_empty() {}
        }
        assert_eq!(room(&timers), before);
    }
}
