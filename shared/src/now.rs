//! The moment a turn is about. Read once per turn by the run loop; below it nothing reads a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds since the data plane started, monotonic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Now(pub u64);

impl Now {
    /// A moment `millis` milliseconds after the start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// Whole milliseconds since the start.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole microseconds since the start.
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Time from `earlier` to here, zero when `earlier` is later.
    pub const fn since(self, earlier: Now) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Now {
    type Output = Now;
    fn add(self, duration: Duration) -> Now {
        Now(self.0.saturating_add(duration.as_nanos() as u64))
    }
}

impl Sub<Duration> for Now {
    type Output = Now;
    fn sub(self, duration: Duration) -> Now {
        Now(self.0.saturating_sub(duration.as_nanos() as u64))
    }
}
