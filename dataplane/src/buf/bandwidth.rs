//! So many bits a second, a fifth of a second's worth at once, shared by all who hold a clone: a user's allocations, and the links by
//! which our own media goes to them.
//!
//! Holders are in one thread, the table of links in the way out and the server of TURN in the worker. What they share is atomic only
//! because the halves are made on another thread: loads and stores, of which none is ever contended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ringmain_shared::Now;

/// What may pass, and what is owed for what has passed.
#[derive(Clone, Debug)]
pub struct Bandwidth(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Time that a byte takes, in nanoseconds by 2^24; zero is no bound.
    byte_cost: u64,
    /// When what has passed is paid for, in nanoseconds.
    empty_until: AtomicU64,
}

impl Bandwidth {
    /// Zero is no bound.
    pub fn new(bits_per_second: u64) -> Self {
        let byte_cost = (8_000_000_000u128 << FRACTION).checked_div(bits_per_second.into()).unwrap_or(0);
        // A bound beyond what a byte's cost can express is none.
        Self(Arc::new(Shared { byte_cost: byte_cost as u64, empty_until: AtomicU64::new(0) }))
    }

    /// Whether there is a bound at all.
    pub fn is_bounded(&self) -> bool {
        self.0.byte_cost > 0
    }

    /// When what has passed is paid for.
    pub fn empty_until(&self) -> Now {
        Now(self.0.empty_until.load(Relaxed))
    }

    /// Whether anything may pass: then the next datagram may, however long it is.
    #[inline]
    pub fn is_open(&self, now: Now) -> bool {
        self.empty_until() <= now + BURST
    }

    /// So many bytes pass.
    #[inline]
    pub fn charge(&self, bytes: usize, now: Now) {
        if !self.is_bounded() {
            return;
        }
        let cost = (u128::from(self.0.byte_cost) * bytes as u128) >> FRACTION;
        let until = self.empty_until().max(now).0.saturating_add(u64::try_from(cost).unwrap_or(u64::MAX));
        self.0.empty_until.store(until, Relaxed);
    }
}

const FRACTION: u32 = 24;
const BURST: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidth_is_what_it_says_whoever_uses_it() {
        for bits_per_second in [8_000, 8_000_000, 8_000_000_000] {
            let holders = [Bandwidth::new(bits_per_second); 1].map(|first| [first.clone(), first]).concat();
            let (mut passed, step) = (0u64, 1_000_000_000_000 / (bits_per_second / 8) / 4);
            // As many as would be four times too much, for forty times what one of a thousand bytes takes.
            for n in 0..160 * 1000 {
                let (holder, now) = (&holders[n as usize % 2], Now(n * step));
                if holder.is_open(now) {
                    holder.charge(1000, now);
                    passed += 1;
                }
            }
            let burst = bits_per_second / 8 / 5 / 1000;
            assert!((40_000..=40_002 + burst).contains(&passed), "{bits_per_second}: {passed}, burst {burst}");
        }
    }

    #[test]
    fn no_bound_is_none_and_the_smallest_is_one() {
        let none = Bandwidth::new(0);
        assert!(!none.is_bounded());
        (0..1000).for_each(|_| none.charge(1500, Now(5)));
        assert!(none.is_open(Now(5)) && none.empty_until() == Now(0));
        let least = Bandwidth::new(1);
        assert!(least.is_bounded() && least.is_open(Now(0)));
        least.charge(65_535, Now(0));
        assert_eq!(least.empty_until(), Now(65_535 * 8_000_000_000));
        least.charge(usize::MAX, Now(0));
        assert!(!least.is_open(Now(u64::MAX / 2)), "what cannot be paid is owed for ever");
    }
}
