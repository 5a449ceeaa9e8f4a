//! What a subscriber has asked for again (RFC 4585 §6.2.1) and nobody has looked for yet, in the order in which it was asked for.
//! Owns requests; never sees packets, budgets or keys.
//!
//! One datagram may name a thousand packets. To look for all of them and send some would take many times as long as a whole turn,
//! and everybody else's packets would wait. So requests wait instead, and each turn serves a few of them.

use std::collections::VecDeque;
use std::time::Duration;

use ringmain_shared::Now;
use ringmain_shared::limits::RTCP_NACK_ENTRIES_MAX;

use crate::forward::subscription::SubscriptionKey;

/// The requests of one subscriber. Has no memory before the first one.
#[derive(Debug, Default)]
pub struct Repairs {
    waiting: VecDeque<Request>,
}

/// What is left of one entry of a NACK.
#[derive(Clone, Copy, Debug)]
struct Request {
    subscription: SubscriptionKey,
    first: u16,
    /// The lowest bit stands for `first`, the next one for the number after it.
    missing: u32,
    at: Now,
}

/// Entries that wait: as many as one NACK has at most.
const WAITING_MAX: usize = RTCP_NACK_ENTRIES_MAX;
/// A request that has waited so long is dropped: by now the subscriber has asked again, or has given up.
const WAIT_MAX: Duration = Duration::from_millis(100);

impl Repairs {
    /// An entry of a NACK: a sequence number, and a bit for each of the sixteen behind it. False when too many wait already.
    pub fn push(&mut self, subscription: SubscriptionKey, first: u16, following: u16, now: Now) -> bool {
        if self.waiting.len() >= WAITING_MAX {
            return false;
        }
        if self.waiting.capacity() == 0 {
            // Once, rather than growing in the middle of a burst of losses.
            self.waiting.reserve_exact(WAITING_MAX);
        }
        self.waiting.push_back(Request { subscription, first, missing: u32::from(following) << 1 | 1, at: now });
        true
    }

    /// The packet whose turn it is, and whether it still matters.
    pub fn pop(&mut self, now: Now) -> Option<(SubscriptionKey, u16, bool)> {
        let request = self.waiting.front_mut()?;
        let distance = request.missing.trailing_zeros();
        request.missing &= request.missing.wrapping_sub(1);
        let (subscription, sequence) = (request.subscription, request.first.wrapping_add(distance as u16));
        let matters = now.since(request.at) <= WAIT_MAX;
        if request.missing == 0 {
            self.waiting.pop_front();
        }
        Some((subscription, sequence, matters))
    }

    /// Forgets everything. How many packets that were.
    pub fn clear(&mut self) -> usize {
        self.waiting.drain(..).map(|request| request.missing.count_ones() as usize).sum()
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(repairs: &mut Repairs, now: Now) -> Vec<(u16, bool)> {
        std::iter::from_fn(|| repairs.pop(now)).map(|(_, sequence, matters)| (sequence, matters)).collect()
    }

    #[test]
    fn packets_come_in_the_order_in_which_they_were_asked_for() {
        let mut repairs = Repairs::default();
        let stream = SubscriptionKey::default();
        assert!(repairs.push(stream, 65_534, 0b1000_0000_0000_0101, Now(0)) && repairs.push(stream, 7, 0, Now(0)));
        assert_eq!(all(&mut repairs, Now(0)), [65_534, 65_535, 1, 14, 7].map(|sequence| (sequence, true)));
        assert!(repairs.is_empty());
    }

    #[test]
    fn no_more_wait_than_one_nack_names_and_none_for_long() {
        let mut repairs = Repairs::default();
        let stream = SubscriptionKey::default();
        let taken = (0..1_000).filter(|&first| repairs.push(stream, first, 0xffff, Now(0))).count();
        assert_eq!(taken, WAITING_MAX);
        assert_eq!(repairs.pop(Now(0) + WAIT_MAX).map(|(_, sequence, matters)| (sequence, matters)), Some((0, true)));
        assert_eq!(repairs.clear(), 17 * WAITING_MAX - 1);
        assert!(repairs.is_empty() && repairs.push(stream, 0, 0, Now(0)));
        assert_eq!(all(&mut repairs, Now(1) + WAIT_MAX), [(0, false)]);
    }
}
