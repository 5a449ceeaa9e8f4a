//! Whether a worker lets datagrams gather before it looks at them. To be woken costs more than to relay a packet, so under load a short
//! wait, in which several come, is worth it: fewer turns, and longer trains. A worker with little to do answers at once.

use std::time::Duration;

use ringmain_shared::Now;

/// Counts what comes.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Now,
    datagrams: u64,
    gather: Duration,
}

impl Pace {
    /// A turn took in so many datagrams. How long the next ones are to gather.
    pub(super) fn handle_turn(&mut self, now: Now, datagrams: usize) -> Duration {
        self.datagrams += datagrams as u64;
        let elapsed = now.since(self.since);
        if elapsed >= WINDOW {
            let pays = u128::from(self.datagrams) * GATHER.as_nanos() >= elapsed.as_nanos();
            self.gather = if pays { GATHER } else { Duration::ZERO };
            (self.since, self.datagrams) = (now, 0);
        }
        self.gather
    }
}

/// What a packet may wait. It pays from one more datagram in this time on: 10,000 a second.
const GATHER: Duration = Duration::from_micros(100);
/// The load is judged anew after this.
const WINDOW: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of so many datagrams a second, one a turn, for a tenth of a second.
    fn after(pace: &mut Pace, start: Now, per_second: u32) -> (Now, Duration) {
        let (mut now, mut gather) = (start, Duration::MAX);
        for _ in 0..per_second / 10 {
            now = now + Duration::from_secs(1) / per_second;
            gather = pace.handle_turn(now, 1);
        }
        (now, gather)
    }

    #[test]
    fn datagrams_gather_under_load_and_only_then() {
        let mut pace = Pace::default();
        let (now, gather) = after(&mut pace, Now(0), 9_000);
        assert_eq!(gather, Duration::ZERO);
        let (now, gather) = after(&mut pace, now, 11_000);
        assert_eq!(gather, GATHER);
        let (now, gather) = after(&mut pace, now, 1_000);
        assert_eq!(gather, Duration::ZERO);
        let (now, _) = after(&mut pace, now, 11_000);
        assert_eq!(pace.handle_turn(now + Duration::from_secs(1), 1), Duration::ZERO, "a pause ends it");
    }

    #[test]
    fn one_full_batch_is_no_load() {
        let mut pace = Pace::default();
        assert_eq!(pace.handle_turn(Now::from_millis(5), 256), Duration::ZERO);
        assert_eq!(pace.handle_turn(Now::from_millis(1_000), 0), Duration::ZERO);
    }
}
