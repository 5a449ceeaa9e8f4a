//! Whether the threads of the data plane still turn. A thread that waits for ever would otherwise show only in its calls.
//!
//! Each thread says when it last turned, with one relaxed store, and sleeps a second at most. Control looks now and then, and
//! speaks of a thread once when it has stalled and once when it turns again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringmain_shared::{Event, Now};

/// When a thread last turned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// The thread turns.
    pub(crate) fn turned(&self, now: Now) {
        // Nothing else is read by the strength of it, and a look that comes a little late is a look.
        self.0.store(now.0, Ordering::Relaxed);
    }

    fn last(&self) -> Now {
        Now(self.0.load(Ordering::Relaxed))
    }
}

/// Looks after the threads.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    threads: Vec<(String, Pulse)>,
    stalled: BTreeSet<usize>,
    looked: Now,
}

impl Watchdog {
    /// Watches one more thread; its place is its number.
    pub(super) fn watch(&mut self, name: String) -> Pulse {
        let pulse = Pulse::default();
        self.threads.push((name, pulse.clone()));
        pulse
    }

    /// Says what has changed since the last look, if it is time for another.
    pub(super) fn look(&mut self, now: Now, told: &mut dyn FnMut(Event)) {
        let since = now.since(self.looked);
        if since < LOOK_INTERVAL {
            return;
        }
        self.looked = now;
        // Whoever looks stood still itself, and the whole process perhaps with it: the threads get time to show themselves.
        if since > LOOK_LATE {
            return;
        }
        for (place, (name, pulse)) in self.threads.iter().enumerate() {
            let silent = now.since(pulse.last());
            let thread = || name.clone();
            if silent > SILENT_MAX && self.stalled.insert(place) {
                told(Event::Stalled { thread: thread(), silent_ms: silent.as_millis() as u64 });
            } else if silent <= SILENT_MAX && self.stalled.remove(&place) {
                told(Event::Recovered { thread: thread() });
            }
        }
    }

    /// The thread stood still when last looked at.
    pub(super) fn is_stalled(&self, place: usize) -> bool {
        self.stalled.contains(&place)
    }
}

/// Time between looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A look this long after the last came too late to blame others.
const LOOK_LATE: Duration = Duration::from_millis(1500);
/// Twice the longest sleep of a thread.
const SILENT_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn look(dog: &mut Watchdog, millis: u64) -> Vec<String> {
        let mut told = Vec::new();
        dog.look(Now::from_millis(millis), &mut |event| {
            told.push(match event {
                Event::Stalled { thread, silent_ms } => format!("{thread} stalled {silent_ms}"),
                Event::Recovered { thread } => format!("{thread} recovered"),
                other => panic!("{other:?}"),
            });
        });
        told
    }

    #[test]
    fn a_thread_that_stands_still_is_told_of_once_and_once_more_when_it_turns() {
        let mut dog = Watchdog::default();
        let (busy, stuck) = (dog.watch("worker-0".into()), dog.watch("worker-1".into()));
        let mut told = Vec::new();
        for millis in (0..10_000).step_by(100) {
            busy.turned(Now::from_millis(millis));
            if !(1_000..7_000).contains(&millis) {
                stuck.turned(Now::from_millis(millis));
            }
            told.extend(look(&mut dog, millis));
            assert_eq!(dog.is_stalled(1), (3_000..7_000).contains(&millis), "{millis}");
        }
        assert_eq!(told, ["worker-1 stalled 2100", "worker-1 recovered"]);
        assert!(!dog.is_stalled(0));
    }

    #[test]
    fn a_thread_that_sleeps_a_second_at_a_time_is_not_blamed() {
        let mut dog = Watchdog::default();
        let pulse = dog.watch("handshake-0".into());
        for millis in (0..20_000).step_by(50) {
            if millis % 1_000 == 0 {
                pulse.turned(Now::from_millis(millis));
            }
            assert_eq!(look(&mut dog, millis), [""; 0]);
        }
    }

    #[test]
    fn a_process_that_was_stopped_blames_nobody_when_it_goes_on() {
        let mut dog = Watchdog::default();
        let pulse = dog.watch("worker-0".into());
        pulse.turned(Now::from_millis(500));
        assert_eq!(look(&mut dog, 500), [""; 0]);
        assert_eq!(look(&mut dog, 60_000), [""; 0], "control is awake first");
        pulse.turned(Now::from_millis(60_100));
        assert_eq!(look(&mut dog, 60_500), [""; 0]);
        assert_eq!(look(&mut dog, 61_500).len() + look(&mut dog, 62_500).len(), 1, "but a thread that stays away is");
    }
}
