//! How often a worker lets itself be woken. To be woken costs more than to relay a packet: where datagrams would wake it more often than
//! every [`GATHER`], it leaves the network alone for as long after each turn, and the next turn takes in all that came meanwhile.
//! Network cards do the same with interrupts. What comes to a worker with less to do is served at once.

use std::time::Duration;

use ringmain_shared::Now;

/// Counts turns, and says when there are too many of them.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Now,
    turns: u32,
    /// Windows in which datagrams are still to gather.
    left: u32,
}

impl Pace {
    /// A turn took in so many datagrams. How long to leave the next ones alone.
    pub(super) fn handle_turn(&mut self, now: Now, datagrams: usize) -> Duration {
        self.turns += u32::from(datagrams > 0);
        let elapsed = now.since(self.since);
        if elapsed >= WINDOW {
            let would_gather = 2 * GATHER * self.turns >= 3 * elapsed;
            self.left = if would_gather { WINDOWS } else { self.left.saturating_sub(1) };
            (self.since, self.turns) = (now, 0);
        }
        if self.left > 0 && datagrams < ENOUGH { GATHER } else { Duration::ZERO }
    }
}

/// What a packet may wait, beside the 50 µs that the kernel may let any sleep last longer. Turns must be half as many again as there are
/// of these, or there is nothing to be saved.
const GATHER: Duration = Duration::from_micros(200);
/// A turn of so many datagrams pays for having been woken.
const ENOUGH: usize = 64;
/// The load is judged anew after this.
const WINDOW: Duration = Duration::from_millis(10);
/// How often datagrams would wake us shows only in a window in which they do not gather: there is one after so many in which they do.
const WINDOWS: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    /// So many turns a second, with so many datagrams each, for so many windows: after how many turns datagrams were to gather.
    fn gathering(pace: &mut Pace, now: &mut Now, turns: u32, datagrams: usize, windows: u32) -> u32 {
        let each = Duration::from_secs(1) / turns;
        let count = (windows * WINDOW).as_nanos() / each.as_nanos();
        let mut gathering = 0;
        for _ in 0..count {
            *now = *now + each;
            gathering += u32::from(pace.handle_turn(*now, datagrams) == GATHER);
        }
        gathering
    }

    #[test]
    fn who_wakes_us_too_often_gathers() {
        let (mut pace, mut now) = (Pace::default(), Now(0));
        assert_eq!(gathering(&mut pace, &mut now, 7_000, 1, 10), 0);
        assert!(gathering(&mut pace, &mut now, 8_000, 1, 10) > 700);
        assert_eq!(gathering(&mut pace, &mut now, 8_000, ENOUGH, 1), 0, "these are enough");
    }

    #[test]
    fn turns_without_datagrams_do_not_count() {
        let (mut pace, mut now) = (Pace::default(), Now(0));
        assert_eq!(gathering(&mut pace, &mut now, 50_000, 0, 10), 0);
    }

    #[test]
    fn whether_they_still_would_is_looked_at_from_time_to_time() {
        let (mut pace, mut now) = (Pace::default(), Now(0));
        gathering(&mut pace, &mut now, 10_000, 1, 2);
        // As many as come when each turn is followed by a wait.
        let slow = gathering(&mut pace, &mut now, 4_000, 3, WINDOWS + 2);
        assert!((WINDOWS - 2) * 40 < slow && slow <= WINDOWS * 40, "{slow}");
        assert_eq!(gathering(&mut pace, &mut now, 4_000, 3, 10), 0, "it would not");
        assert!(gathering(&mut pace, &mut now, 10_000, 1, 10) > 800, "it would");
    }

    #[test]
    fn a_pause_counts_as_one() {
        let (mut pace, mut now) = (Pace::default(), Now(0));
        gathering(&mut pace, &mut now, 10_000, 1, WINDOWS);
        for _ in 0..=WINDOWS {
            now = now + Duration::from_secs(1);
            pace.handle_turn(now, 1);
        }
        assert_eq!(pace.handle_turn(now, 1), Duration::ZERO);
    }
}
