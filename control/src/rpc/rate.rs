//! A token bucket: how often something may be done, on average and at once.

use ringmain_shared::Now;

/// Tokens that come at a steady rate and are kept up to a burst. Counted in nanoseconds of waiting, so nothing is lost to
/// rounding.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    interval_ns: u64,
    burst_ns: u64,
    saved_ns: u64,
    last: Now,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens that gets `per_second` of them. Zeros count as ones.
    pub fn new(per_second: u32, burst: u32, now: Now) -> Self {
        let interval_ns = 1_000_000_000 / u64::from(per_second.max(1));
        let burst_ns = interval_ns.saturating_mul(u64::from(burst.max(1)));
        Self { interval_ns, burst_ns, saved_ns: burst_ns, last: now }
    }

    /// There is a token.
    pub fn has(&mut self, now: Now) -> bool {
        self.fill(now);
        self.saved_ns >= self.interval_ns
    }

    /// Every token is there, as if none had ever been taken.
    pub fn is_full(&mut self, now: Now) -> bool {
        self.fill(now);
        self.saved_ns == self.burst_ns
    }

    /// Takes one token, if there is one.
    pub fn take(&mut self, now: Now) -> bool {
        self.fill(now);
        match self.saved_ns.checked_sub(self.interval_ns) {
            Some(left) => {
                self.saved_ns = left;
                true
            }
            None => false,
        }
    }

    fn fill(&mut self, now: Now) {
        let waited_ns = now.0.saturating_sub(self.last.0);
        self.last = self.last.max(now);
        self.saved_ns = self.saved_ns.saturating_add(waited_ns).min(self.burst_ns);
    }
}
