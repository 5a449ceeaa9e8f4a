//! What is given to those who have proved nothing, and how often the proven may ask for more. The counts are all workers'
//! ([`ledger`](super::ledger)).
//!
//! Strangers are counted by their [`Source`], in a table of fixed size: a million of them cost
//! no byte more than one. Two who share a place in it share its replies.

use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use foldhash::fast::RandomState;
use ringmain_shared::{Now, Source};

use super::ledger::Ledger;

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
        let place = strangers.hasher.hash_one(Source::from(address)) as usize % SOURCES;
        let Some(source) = strangers.sources.get(place) else { return false };
        // Looked at before anything is written: in a flood workers would do nothing but write to what they share.
        if !known && Second::in_cell(&strangers.all).is_full(self.per_second, now) {
            return false;
        }
        Second::add_in_cell(source, self.per_source, now)
            && (known || Second::add_in_cell(&strangers.all, self.per_second, now))
    }

    /// Somebody at `address` has proved to be there and to have a credential: one challenge was none to a stranger. So a crowd behind
    /// one address, whose members each allocate, is let in as fast as it answers, and one that only asks is not.
    pub(super) fn redeem(&self, address: SocketAddr, now: Now) {
        let strangers = self.ledger.strangers();
        let place = strangers.hasher.hash_one(Source::from(address)) as usize % SOURCES;
        if let Some(source) = strangers.sources.get(place) {
            Second::take_from_cell(source, now);
            Second::take_from_cell(&strangers.all, now);
        }
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

/// How many there were in one second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Second {
    second: u32,
    count: u32,
}

impl Second {
    /// What is in a cell that workers share.
    pub(super) fn in_cell(cell: &AtomicU64) -> Self {
        Self::unpack(cell.load(SeqCst))
    }

    /// One more in such a cell, unless there were `max` in this second already; zero is no bound.
    pub(super) fn add_in_cell(cell: &AtomicU64, max: u32, now: Now) -> bool {
        let more = |packed: u64| {
            let mut second = Self::unpack(packed);
            (!second.is_full(max, now)).then(|| {
                second.add(now);
                second.pack()
            })
        };
        cell.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// One less of this second, if there was any.
    fn take_from_cell(cell: &AtomicU64, now: Now) {
        let less = |packed: u64| {
            let mut second = Self::unpack(packed);
            second.count = second.count(now).checked_sub(1)?;
            Some(second.pack())
        };
        let _ = cell.fetch_update(SeqCst, SeqCst, less);
    }

    /// Whether there have been `max` in this second; zero is no bound.
    pub(super) fn is_full(&self, max: u32, now: Now) -> bool {
        max > 0 && self.count(now) >= max
    }

    /// How many there have been in this second.
    pub(super) fn count(&self, now: Now) -> u32 {
        if self.second == second_of(now) { self.count } else { 0 }
    }

    /// One more.
    pub(super) fn add(&mut self, now: Now) {
        (self.second, self.count) = (second_of(now), self.count(now).saturating_add(1));
    }

    fn pack(self) -> u64 {
        u64::from(self.second) << 32 | u64::from(self.count)
    }

    fn unpack(packed: u64) -> Self {
        Self { second: (packed >> 32) as u32, count: packed as u32 }
    }
}

fn second_of(now: Now) -> u32 {
    (now.as_millis() / 1000) as u32
}

/// Places in the table of sources: half a megabyte, so that 10,000 strangers a second hardly ever share one.
const SOURCES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

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
    fn who_proves_to_be_there_takes_nothing_from_those_behind_the_same_address() {
        let budget = ReplyBudget::new(ledger(), 10, 1000);
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        for port in 1..=200 {
            assert!(budget.take(address(port), false, Now(1_000_000_000)), "{port}");
            budget.redeem(address(port), Now(1_000_000_000));
        }
        // A proof of the last second's challenge is no credit in this one.
        budget.redeem(address(1), Now(2_000_000_000));
        assert_eq!(answered(&budget, 2, |n| address(n as u16)), 10);
    }

    fn ledger() -> Arc<Ledger> {
        Arc::new(Ledger::new([3; 32]))
    }
}
