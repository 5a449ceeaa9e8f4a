//! A bound on how often a peer may make us work. Owns one number; never sees what it is for.

use std::time::Duration;

use ringmain_shared::Now;

/// So many a second, so many at once.
#[derive(Debug)]
pub struct TokenBucket {
    per_second: u32,
    burst: u32,
    /// Nanoseconds' worth of tokens taken beyond `since`.
    empty_until: Now,
}

impl TokenBucket {
    /// Full.
    pub fn new(per_second: u32, burst: u32, now: Now) -> Self {
        Self { per_second, burst, empty_until: now }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Now) -> bool {
        let cost = Duration::from_secs(1) / self.per_second;
        let full_at = self.empty_until.max(now);
        if full_at.since(now) > cost * (self.burst - 1) {
            return false;
        }
        self.empty_until = full_at + cost;
        true
    }

    /// When there is a token again.
    pub fn next(&self) -> Now {
        self.empty_until - Duration::from_secs(1) / self.per_second * (self.burst - 1)
    }
}
