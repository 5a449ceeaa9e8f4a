//! So many bits a second, a fifth of a second's worth at once, shared by all who hold a clone: a user's allocations, and the links by
//! which our own media goes to them. Workers share a [`Reserve`], from which each draws the time that its datagrams take in steps, and
//! lives on a step for as long as it lasts: few datagrams touch what others write to, about forty a second where all is used up.
//!
//! Holders of a clone are in one thread, the table of links in the way out and the server of TURN in the worker. What they share is
//! atomic only because the halves are made on another thread: loads and stores, of which none is ever contended.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ringmain_shared::Now;

/// What may pass, and what is owed for what has passed.
#[derive(Clone, Debug)]
pub struct Bandwidth(Arc<Shared>);

/// What all workers have drawn.
pub trait Reserve: Debug + Send + Sync {
    /// When it is paid for.
    fn paid_at(&self) -> Now;

    /// So many nanoseconds more are to be paid for, from `now` on at the earliest.
    fn owe(&self, nanos: u64, now: Now);
}

#[derive(Debug)]
struct Shared {
    /// Time that a byte takes, in nanoseconds by 2^24; zero is no bound.
    byte_cost: u64,
    /// Nanoseconds left of what was drawn.
    left: AtomicU64,
    /// In nanoseconds: nothing can be drawn before.
    refused_until: AtomicU64,
    reserve: Arc<dyn Reserve>,
}

impl Bandwidth {
    /// Zero is no bound.
    pub fn new(bits_per_second: u64, reserve: Arc<dyn Reserve>) -> Self {
        // A bound beyond what a byte's cost can express is none.
        let byte_cost = (8_000_000_000u128 << FRACTION).checked_div(bits_per_second.into()).unwrap_or(0) as u64;
        let (left, refused_until) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Shared { byte_cost, left, refused_until, reserve }))
    }

    /// Whether there is a bound at all.
    pub fn is_bounded(&self) -> bool {
        self.0.byte_cost > 0
    }

    /// Whether anything may pass: then the next datagram may, however long it is.
    #[inline]
    pub fn is_open(&self, now: Now) -> bool {
        !self.is_bounded() || self.0.left.load(Relaxed) > 0 || self.draw(now)
    }

    /// So many bytes pass.
    #[inline]
    pub fn charge(&self, bytes: usize, now: Now) {
        if !self.is_bounded() {
            return;
        }
        let cost = (u128::from(self.0.byte_cost) * bytes as u128) >> FRACTION;
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let left = self.0.left.load(Relaxed);
        self.0.left.store(left.saturating_sub(cost), Relaxed);
        if cost > left {
            self.0.reserve.owe(cost - left, now);
        }
    }

    #[cold]
    fn draw(&self, now: Now) -> bool {
        if now.0 < self.0.refused_until.load(Relaxed) {
            return false;
        }
        let Now(paid_at) = self.0.reserve.paid_at();
        if paid_at > now.0.saturating_add(BURST) {
            self.0.refused_until.store(paid_at - BURST, Relaxed);
            return false;
        }
        // Two workers at once may both get a step where there was one left: it is owed, and missing from what comes next.
        self.0.reserve.owe(STEP, now);
        self.0.left.store(STEP, Relaxed);
        true
    }
}

const FRACTION: u32 = 24;
/// Nanoseconds that may be owed.
const BURST: u64 = Duration::from_millis(200).as_nanos() as u64;
/// Nanoseconds that are drawn at once.
const STEP: u64 = BURST / 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Alone(AtomicU64);

    impl Reserve for Alone {
        fn paid_at(&self) -> Now {
            Now(self.0.load(Relaxed))
        }

        fn owe(&self, nanos: u64, now: Now) {
            self.0.store(self.paid_at().max(now).0.saturating_add(nanos), Relaxed);
        }
    }

    #[test]
    fn bandwidth_is_what_it_says_whoever_uses_it() {
        for bits_per_second in [8_000, 8_000_000, 8_000_000_000] {
            for workers in [1, 2, 8] {
                let reserve: Arc<dyn Reserve> = Arc::new(Alone::default());
                let of_worker = |_| Bandwidth::new(bits_per_second, Arc::clone(&reserve));
                let holders: Vec<Bandwidth> =
                    (0..workers).map(of_worker).flat_map(|first| [first.clone(), first]).collect();
                let (mut passed, step) = (0u64, 1_000_000_000_000 / (bits_per_second / 8) / 4);
                // As many as would be four times too much, for forty thousand times what one of a thousand bytes takes.
                for n in 0..160 * 1000 {
                    let (holder, now) = (&holders[n as usize % holders.len()], Now(n * step));
                    if holder.is_open(now) {
                        holder.charge(1000, now);
                        passed += 1;
                    }
                }
                // A burst, and a step and a datagram for each worker.
                let burst = bits_per_second / 8 / 5 / 1000;
                let most = 40_002 + burst + workers * (burst / 8 + 1);
                assert!((40_000..=most).contains(&passed), "{bits_per_second} by {workers}: {passed}, {most}");
            }
        }
    }

    #[test]
    fn no_bound_is_none_and_the_smallest_is_one() {
        let none = Bandwidth::new(0, Arc::new(Alone::default()));
        assert!(!none.is_bounded());
        (0..1000).for_each(|_| none.charge(1500, Now(5)));
        assert!(none.is_open(Now(5)) && none.0.reserve.paid_at() == Now(0));
        let least = Bandwidth::new(1, Arc::new(Alone::default()));
        assert!(least.is_bounded() && least.is_open(Now(0)));
        least.charge(65_535, Now(0));
        assert_eq!(least.0.reserve.paid_at(), Now(65_535 * 8_000_000_000));
        least.charge(usize::MAX, Now(0));
        assert!(!least.is_open(Now(u64::MAX / 2)), "what cannot be paid is owed for ever");
    }

    #[test]
    fn few_datagrams_touch_what_workers_share() {
        #[derive(Debug, Default)]
        struct Counted(Alone, AtomicU64);
        impl Reserve for Counted {
            fn paid_at(&self) -> Now {
                self.1.fetch_add(1, Relaxed);
                self.0.paid_at()
            }
            fn owe(&self, nanos: u64, now: Now) {
                self.1.fetch_add(1, Relaxed);
                self.0.owe(nanos, now);
            }
        }
        let reserve = Arc::new(Counted::default());
        let bandwidth = Bandwidth::new(8_000_000, Arc::clone(&reserve) as Arc<dyn Reserve>);
        // Ten seconds of four times as much as may pass.
        for n in 0..40_000 {
            let now = Now(n * 250_000);
            if bandwidth.is_open(now) {
                bandwidth.charge(1000, now);
            }
        }
        let touched = reserve.1.load(Relaxed);
        assert!(touched <= 4 * 10 * 41, "{touched} of 40,000");
    }
}
