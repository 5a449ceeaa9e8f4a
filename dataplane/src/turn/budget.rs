//! What is given to those who have proved nothing, and what the proven may relay. The counts are all workers' ([`ledger`](super::ledger)).
//!
//! Strangers are counted by their address without the port, or by the /64 of IPv6, in a table of fixed size: a million of them cost
//! no byte more than one. Two who share a place in it share its replies.

use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use foldhash::fast::RandomState;
use ringmain_shared::Now;

use super::ledger::{Debtor, Ledger};

/// Replies to strangers, as one worker gives them.
#[derive(Debug)]
pub(super) struct ReplyBudget {
    ledger: Arc<Ledger>,
    per_source: u32,
    per_second: u32,
}

impl ReplyBudget {
    /// So many replies a second to one address, and to all, by all workers; zero is no bound.
    pub(super) fn new(ledger: Arc<Ledger>, per_source: u32, per_second: u32) -> Self {
        Self { ledger, per_source, per_second }
    }

    /// Whether to answer a stranger at `address`. `known` ones do not compete with all the others.
    pub(super) fn take(&self, address: SocketAddr, known: bool, now: Now) -> bool {
        let strangers = self.ledger.strangers();
        let second = (now.as_millis() / 1000) as u32;
        let place = strangers.hasher.hash_one(source(address)) as usize % SOURCES;
        let Some(source) = strangers.sources.get(place) else { return false };
        // Looked at before anything is written: in a flood workers would do nothing but write to what they share.
        if is_full(&strangers.all, second, self.per_second) && !known {
            return false;
        }
        add(source, second, self.per_source) && (known || add(&strangers.all, second, self.per_second))
    }
}

/// How often strangers were answered, in a table of fixed size.
#[derive(Debug)]
pub(super) struct Strangers {
    /// A second, and how many replies there were in it.
    sources: Box<[AtomicU64]>,
    all: AtomicU64,
    hasher: RandomState,
}

impl Default for Strangers {
    fn default() -> Self {
        let sources = std::iter::repeat_with(AtomicU64::default).take(SOURCES).collect();
        Self { sources, all: AtomicU64::new(0), hasher: RandomState::default() }
    }
}

fn is_full(cell: &AtomicU64, second: u32, max: u32) -> bool {
    let (in_second, count) = parts(cell.load(Relaxed));
    max > 0 && in_second == second && count >= max
}

/// One more, unless there were `max` in this second already.
fn add(cell: &AtomicU64, second: u32, max: u32) -> bool {
    let more = |value: u64| {
        let (in_second, count) = parts(value);
        let count = if in_second == second { count } else { 0 };
        (max == 0 || count < max).then(|| u64::from(second) << 32 | u64::from(count.saturating_add(1)))
    };
    cell.fetch_update(Relaxed, Relaxed, more).is_ok()
}

fn parts(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

/// Who is counted as one: an IPv4 address, or the network of an IPv6 address, which whoever has one has all of.
fn source(address: SocketAddr) -> u64 {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64 | 1 << 63,
    }
}

/// So many bits a second, a fifth of a second's worth at once, whichever workers relay them. A worker draws them in steps and lives on
/// each for as long as it lasts, so that few packets touch what workers share: about forty a second of a bound that is used up.
#[derive(Clone, Debug)]
pub(super) struct Bandwidth {
    ledger: Arc<Ledger>,
    debtor: Debtor,
    bits_per_second: u64,
    /// Bytes of the last step.
    left: u64,
    /// There is no further step before.
    refused_until: Now,
}

impl Bandwidth {
    /// Zero is no bound.
    pub(super) fn new(ledger: Arc<Ledger>, debtor: Debtor, bits_per_second: u64) -> Self {
        Self { ledger, debtor, bits_per_second, left: 0, refused_until: Now(0) }
    }

    /// Another bound from now on.
    pub(super) fn set(&mut self, bits_per_second: u64) {
        self.bits_per_second = bits_per_second;
        (self.left, self.refused_until) = (0, Now(0));
    }

    /// When what has passed is paid for.
    pub(super) fn empty_until(&self) -> Now {
        if self.bits_per_second == 0 { Now(0) } else { self.ledger.paid_at(&self.debtor) }
    }

    /// So many bytes have passed already. What they owe is bounded by the burst: those who ask before they send are held up by a
    /// fifth of a second, not by all that was sent without asking.
    pub(super) fn charge(&mut self, bytes: u64, now: Now) {
        if self.bits_per_second == 0 {
            return;
        }
        if let Some(left) = self.left.checked_sub(bytes) {
            self.left = left;
            return;
        }
        let step = self.step();
        self.ledger.charge(&self.debtor, self.time_of(bytes - self.left + step), BURST, now);
        self.left = step;
    }

    /// Whether `bytes` may pass; if so, they have.
    #[inline]
    pub(super) fn take(&mut self, bytes: usize, now: Now) -> bool {
        let bytes = bytes as u64;
        if self.bits_per_second == 0 {
            return true;
        }
        if self.left < bytes && !self.draw(bytes, now) {
            return false;
        }
        self.left -= bytes;
        true
    }

    #[cold]
    fn draw(&mut self, bytes: u64, now: Now) -> bool {
        if now < self.refused_until {
            return false;
        }
        let step = self.step().max(bytes - self.left);
        match self.ledger.draw(&self.debtor, self.time_of(step), BURST, now) {
            Ok(()) => self.left += step,
            Err(until) => self.refused_until = until,
        }
        self.left >= bytes
    }

    fn step(&self) -> u64 {
        (u128::from(self.bits_per_second / 8) * (BURST / STEPS).as_nanos() / 1_000_000_000) as u64
    }

    fn time_of(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(self.bits_per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Places in the table of sources: half a megabyte, so that 10,000 strangers a second hardly ever share one.
const SOURCES: usize = 64 * 1024;
const BURST: Duration = Duration::from_millis(200);
/// Of a burst.
const STEPS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(budget: &ReplyBudget, second: u64, address: impl Fn(u32) -> SocketAddr) -> usize {
        let at = |n: u32| Now(second * 1_000_000_000 + u64::from(n) * 10_000);
        (0..100_000).filter(|&n| budget.take(address(n), false, at(n))).count()
    }

    #[test]
    fn an_address_gets_its_replies_whatever_port_it_asks_from() {
        let budget = ReplyBudget::new(ledger(), 10, 10_000);
        for second in 1..4 {
            assert_eq!(answered(&budget, second, |n| ([192, 0, 2, 1], n as u16).into()), 10);
            let network = |n: u32| (IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, n as u16]), 9).into();
            assert_eq!(answered(&budget, second, network), 10);
        }
        let unbounded = ReplyBudget::new(ledger(), 0, 0);
        assert_eq!(answered(&unbounded, 1, |_| ([192, 0, 2, 1], 9).into()), 100_000);
    }

    #[test]
    fn all_together_get_no_more_than_their_budget_and_the_known_do_not_wait_for_it() {
        let budget = ReplyBudget::new(ledger(), 10, 1000);
        let stranger = |n: u32| SocketAddr::from((IpAddr::V4((0x0a00_0000 + n).into()), 9));
        assert_eq!(answered(&budget, 1, stranger), 1000);
        assert!(budget.take(([198, 51, 100, 1], 1).into(), true, Now(1_999_999_999)));
        assert!(!budget.take(([198, 51, 100, 2], 1).into(), false, Now(1_999_999_999)));
    }

    #[test]
    fn bandwidth_is_what_it_says_for_however_many_workers() {
        for workers in [1u64, 2, 8] {
            let ledger = ledger();
            let all = || Bandwidth::new(Arc::clone(&ledger), Debtor::all(), 8_000_000);
            let mut workers: Vec<Bandwidth> = (0..workers).map(|_| all()).collect();
            let count = workers.len() as u64;
            let passed = (0..40_000u64).filter(|n| workers[(n % count) as usize].take(1000, Now(n * 250_000))).count();
            // Ten seconds of a megabyte each, the burst, and what each worker has left of a step.
            assert!((10_000..=10_226).contains(&passed), "{passed} by {count}");
        }
    }

    #[test]
    fn what_was_sent_without_asking_holds_up_others_no_longer_than_a_burst() {
        let mut bandwidth = Bandwidth::new(ledger(), Debtor::all(), 8_000_000);
        let now = Now(20_000_000_000);
        bandwidth.charge(60_000_000, now);
        bandwidth.charge(60_000_000, now);
        let passed = |bandwidth: &mut Bandwidth, now: Now| (0..1000).filter(|_| bandwidth.take(1000, now)).count();
        assert!(passed(&mut bandwidth, now) <= 50, "what was left of two steps");
        assert!(passed(&mut bandwidth, now + BURST) >= 175);
        let mut unbounded = Bandwidth::new(ledger(), Debtor::all(), 0);
        assert!((0..1000).all(|_| unbounded.take(1500, Now(0))));
    }

    fn ledger() -> Arc<Ledger> {
        Arc::new(Ledger::new([3; 32]))
    }
}
