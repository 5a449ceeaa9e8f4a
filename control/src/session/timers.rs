//! What is due when. Each timer is set at most once; setting it again moves it.

use std::collections::{BTreeMap, BTreeSet};

use ringmain_shared::Now;
use ringmain_shared::id::{PeerId, RoomId, WorkerIndex};

/// A thing to do later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Timer {
    /// Offer what has changed for this subscriber.
    Offer(PeerId),
    /// This subscriber has not answered.
    Answer(PeerId),
    /// Restart ICE of this subscriber's connection.
    Restart(PeerId),
    /// Tell a newcomer more of who and what is there.
    Present(PeerId),
    /// Tell a room who came and went.
    News(RoomId),
    /// This worker has not reported loudness for a while.
    Silence(WorkerIndex),
}

/// Every timer that is set.
#[derive(Default)]
pub(super) struct Timers {
    due: BTreeSet<(Now, Timer)>,
    at: BTreeMap<Timer, Now>,
}

impl Timers {
    /// Sets or moves a timer.
    pub(super) fn set(&mut self, timer: Timer, at: Now) {
        if let Some(before) = self.at.insert(timer, at) {
            self.due.remove(&(before, timer));
        }
        self.due.insert((at, timer));
    }

    /// Sets a timer unless it is set.
    pub(super) fn set_if_idle(&mut self, timer: Timer, at: Now) {
        if !self.at.contains_key(&timer) {
            self.set(timer, at);
        }
    }

    pub(super) fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.at.remove(&timer) {
            self.due.remove(&(at, timer));
        }
    }

    /// When the next timer is due.
    pub(super) fn next(&self) -> Option<Now> {
        self.due.first().map(|&(at, _)| at)
    }

    /// Takes out a timer that is due.
    pub(super) fn pop(&mut self, now: Now) -> Option<Timer> {
        let &(at, timer) = self.due.first().filter(|&&(at, _)| at <= now)?;
        self.due.remove(&(at, timer));
        self.at.remove(&timer);
        Some(timer)
    }
}
