//! The wall clock beside the clock that only goes forward: which moment `Now(0)` was. It was read at the start, maybe before the host
//! knew the time; the tokens and usernames of others say seconds since 1970. Reads no clock itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringmain_shared::Now;

/// What the data plane was told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WallClock {
    /// Nanoseconds since 1970 at `Now(0)`; none before the first look, when it is what the data plane has read itself.
    told: Option<u64>,
    next_look: Now,
}

impl WallClock {
    /// Once a second, compares the clocks. The nanoseconds since 1970 at `Now(0)` if they are others than they were.
    pub(super) fn look(&mut self, now: Now, wall: SystemTime) -> Option<u64> {
        if now < self.next_look {
            return None;
        }
        self.next_look = now + INTERVAL;
        let since_1970 = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_start = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX).saturating_sub(now.0);
        let told = *self.told.get_or_insert(at_start);
        // A drift adds up, and is told when it is as much as a step.
        if told.abs_diff(at_start) <= STEP.as_nanos() as u64 {
            return None;
        }
        self.told = Some(at_start);
        Some(at_start)
    }
}

const INTERVAL: Duration = Duration::from_secs(1);
/// Less is within what tokens are granted for clocks that differ (RFC 7635 §7).
const STEP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_once_and_a_drift_when_it_is_one() {
        let mut clock = WallClock::default();
        let mut look = |seconds: u64, off_ms: i64| {
            let wall = 1_800_000_000_000u64 + seconds * 1000;
            let wall = UNIX_EPOCH + Duration::from_millis(wall.checked_add_signed(off_ms).expect("after 1970"));
            let at_start = clock.look(Now::from_millis(seconds * 1000), wall)?;
            Some(i64::try_from(at_start / 1_000_000).expect("milliseconds") - 1_800_000_000_000)
        };
        let told = [
            ((1, 0), None),
            ((2, 900), None),
            ((3, -1000), None),
            ((4, 3_600_000), Some(3_600_000)),
            ((5, 3_600_000), None),
            // Not yet a second later.
            ((5, 0), None),
            ((6, 0), Some(0)),
            ((7, 600), None),
            ((8, 1001), Some(1001)),
            ((9, -1_800_000_000), Some(-1_800_000_000)),
        ];
        for ((seconds, off), expected) in told {
            assert_eq!(look(seconds, off), expected, "{seconds} s, off by {off} ms");
        }
    }

    #[test]
    fn a_clock_before_1970_is_none() {
        let mut clock = WallClock::default();
        assert_eq!(clock.look(Now::from_millis(1000), UNIX_EPOCH - Duration::from_secs(5)), None);
        assert_eq!(clock.look(Now::from_millis(3000), UNIX_EPOCH + Duration::from_secs(10)), Some(7_000_000_000));
    }
}
