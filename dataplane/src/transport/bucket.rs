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
        self.take_many(1, now)
    }

    /// Takes so many tokens, if they are all there; never more than the burst.
    pub fn take_many(&mut self, count: u32, now: Now) -> bool {
        let cost = Duration::from_secs(1) / self.per_second;
        let full_at = self.empty_until.max(now);
        if count > self.burst || full_at.since(now) > cost * (self.burst - count) {
            return false;
        }
        self.empty_until = full_at + cost * count;
        true
    }

    /// When there is a token again.
    pub fn next(&self) -> Now {
        self.empty_until - Duration::from_secs(1) / self.per_second * (self.burst - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_tokens_are_taken_as_one_by_one() {
        let second = Now::from_millis(1000);
        let (mut single, mut many) = (TokenBucket::new(10, 5, Now(0)), TokenBucket::new(10, 5, Now(0)));
        assert!((0..5).all(|_| single.take(Now(0))) && many.take_many(5, Now(0)));
        assert!(!single.take(Now(0)) && !many.take_many(1, Now(0)), "the burst is over");
        assert!((0..3).all(|_| single.take(second)) && many.take_many(3, second));
        assert!(!single.take_many(3, second) && !many.take_many(3, second), "two are left");
        assert_eq!(single.next(), many.next());
        assert!(!TokenBucket::new(10, 5, Now(0)).take_many(6, Now(0)), "more than it ever holds");
    }
}
