//! Whether a worker lets datagrams gather before it looks at them. To be woken costs more than to relay a packet: where many come, but
//! each alone, a short wait for several is worth it. What comes in bursts is taken as it comes, and so is everything on a worker with
//! little to do.

use std::time::Duration;

use ringmain_shared::Now;

/// Counts what comes, and in how many turns.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Now,
    datagrams: u64,
    turns: u64,
    /// Windows in which datagrams are still to gather.
    left: u32,
}

impl Pace {
    /// A turn took in so many datagrams. How long the next ones are to gather.
    pub(super) fn handle_turn(&mut self, now: Now, datagrams: usize) -> Duration {
        self.datagrams += datagrams as u64;
        self.turns += u64::from(datagrams > 0);
        let elapsed = now.since(self.since);
        if elapsed >= WINDOW {
            let are_many = u128::from(self.datagrams) * GATHER.as_nanos() >= elapsed.as_nanos();
            let are_alone = self.datagrams < self.turns * BURST;
            self.left = match self.left {
                _ if !are_many => 0,
                0 if are_alone => WINDOWS,
                left => left.saturating_sub(1),
            };
            (self.since, self.datagrams, self.turns) = (now, 0, 0);
        }
        if self.left > 0 { GATHER } else { Duration::ZERO }
    }
}

/// What a packet may wait. It pays from one datagram in this time on: 10,000 a second.
const GATHER: Duration = Duration::from_micros(100);
/// Datagrams of a turn from which on they come in bursts. Waiting would then add a wake-up to each burst instead of saving some.
const BURST: u64 = 4;
/// The load is judged anew after this.
const WINDOW: Duration = Duration::from_millis(10);
/// How datagrams come by themselves shows only in a window in which they do not gather: there is one after so many in which they do.
const WINDOWS: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of so many turns a second, with so many datagrams each, in the next so many windows: in how many they are to gather.
    fn gathering(pace: &mut Pace, now: &mut Now, turns: u32, datagrams: usize, windows: u32) -> u32 {
        let mut gathering = 0;
        for _ in 0..windows {
            for _ in 0..turns / 100 {
                *now = *now + WINDOW / (turns / 100);
                pace.handle_turn(*now, datagrams);
            }
            gathering += u32::from(pace.handle_turn(*now, 0) == GATHER);
        }
        gathering
    }

    #[test]
    fn datagrams_gather_where_many_come_alone() {
        let (mut pace, mut now) = (Pace::default(), Now(0));
        assert_eq!(gathering(&mut pace, &mut now, 8_000, 1, 10), 0, "few");
        assert_eq!(gathering(&mut pace, &mut now, 8_000, 8, 10), 0, "bursts");
        assert_eq!(gathering(&mut pace, &mut now, 12_500, 1, 10), 10);
        assert_eq!(gathering(&mut pace, &mut now, 8_000, 8, 10), 10, "gathered, or bursts by now: it will show");
        assert_eq!(gathering(&mut pace, &mut now, 1_000, 1, 10), 0);
    }

    #[test]
    fn how_they_come_is_looked_at_again_from_time_to_time() {
        let (mut pace, mut now) = (Pace::default(), Now(0));
        assert_eq!(gathering(&mut pace, &mut now, 12_500, 1, 10 * (WINDOWS + 1)), 10 * WINDOWS);
        assert!(gathering(&mut pace, &mut now, 8_000, 8, 2 * WINDOWS) <= WINDOWS);
        assert_eq!(gathering(&mut pace, &mut now, 8_000, 8, WINDOWS), 0, "bursts");
    }

    #[test]
    fn a_pause_ends_it() {
        let (mut pace, mut now) = (Pace::default(), Now(0));
        assert_eq!(gathering(&mut pace, &mut now, 12_500, 1, 2), 2);
        assert_eq!(pace.handle_turn(now + Duration::from_secs(1), 1), Duration::ZERO);
    }
}
