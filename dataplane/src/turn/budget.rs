//! What is given to those who have proved nothing, and how often the proven may ask for more. Owns numbers only.
//!
//! Strangers are counted by their address without the port, or by the /64 of IPv6, in a table of fixed size: a million of them cost
//! no byte more than one. Two who share a place in it share its replies.

use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};

use foldhash::fast::RandomState;
use ringmain_shared::Now;

/// Replies to strangers.
#[derive(Debug)]
pub(super) struct ReplyBudget {
    sources: Box<[Second]>,
    all: Second,
    per_source: u32,
    per_second: u32,
    hasher: RandomState,
}

/// How many there were in one second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Second {
    second: u32,
    count: u32,
}

impl ReplyBudget {
    /// So many replies a second to one address, and to all; zero is no bound.
    pub(super) fn new(per_source: u32, per_second: u32) -> Self {
        let sources = vec![Second::default(); SOURCES].into_boxed_slice();
        Self { sources, all: Second::default(), per_source, per_second, hasher: RandomState::default() }
    }

    /// Whether to answer a stranger at `address`. `known` ones do not compete with all the others.
    pub(super) fn take(&mut self, address: SocketAddr, known: bool, now: Now) -> bool {
        let place = self.hasher.hash_one(source(address)) as usize % SOURCES;
        let Some(source) = self.sources.get_mut(place) else { return false };
        let mut all = Second::default();
        let all = if known { &mut all } else { &mut self.all };
        if source.is_full(self.per_source, now) || all.is_full(self.per_second, now) {
            return false;
        }
        source.add(now);
        all.add(now);
        true
    }
}

impl Second {
    /// Whether there have been `max` in this second; zero is no bound.
    pub(super) fn is_full(&self, max: u32, now: Now) -> bool {
        max > 0 && self.second == second_of(now) && self.count >= max
    }

    /// One more.
    pub(super) fn add(&mut self, now: Now) {
        let second = second_of(now);
        self.count = if self.second == second { self.count + 1 } else { 1 };
        self.second = second;
    }

    /// When it is over, if there was any in it.
    pub(super) fn end(&self) -> Option<Now> {
        (self.count > 0).then(|| Now::from_millis((u64::from(self.second) + 1) * 1000))
    }
}

fn second_of(now: Now) -> u32 {
    (now.as_millis() / 1000) as u32
}

/// Who is counted as one: an IPv4 address, or the network of an IPv6 address, which whoever has one has all of.
fn source(address: SocketAddr) -> u64 {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64 | 1 << 63,
    }
}

/// Places in the table of sources: half a megabyte, so that 10,000 strangers a second hardly ever share one.
const SOURCES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(budget: &mut ReplyBudget, second: u64, address: impl Fn(u32) -> SocketAddr) -> usize {
        let at = |n: u32| Now(second * 1_000_000_000 + u64::from(n) * 10_000);
        (0..100_000).filter(|&n| budget.take(address(n), false, at(n))).count()
    }

    #[test]
    fn an_address_gets_its_replies_whatever_port_it_asks_from() {
        let mut budget = ReplyBudget::new(10, 10_000);
        for second in 1..4 {
            assert_eq!(answered(&mut budget, second, |n| ([192, 0, 2, 1], n as u16).into()), 10);
            let network = |n: u32| (IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, n as u16]), 9).into();
            assert_eq!(answered(&mut budget, second, network), 10);
        }
        let mut unbounded = ReplyBudget::new(0, 0);
        assert_eq!(answered(&mut unbounded, 1, |_| ([192, 0, 2, 1], 9).into()), 100_000);
    }

    #[test]
    fn all_together_get_no_more_than_their_budget_and_the_known_do_not_wait_for_it() {
        let mut budget = ReplyBudget::new(10, 1000);
        let stranger = |n: u32| SocketAddr::from((IpAddr::V4((0x0a00_0000 + n).into()), 9));
        assert_eq!(answered(&mut budget, 1, stranger), 1000);
        assert!(budget.take(([198, 51, 100, 1], 1).into(), true, Now(1_999_999_999)));
        assert!(!budget.take(([198, 51, 100, 2], 1).into(), false, Now(1_999_999_999)));
    }
}
