//! When a keyframe of one layer is asked for (RFC 4585 §6.3.1, RFC 5104 §4.3.1).
//!
//! Owns one latch: many wishes, few requests. However many subscribers ask, the publisher hears of it at most once per
//! [`KEYFRAME_INTERVAL`], and no wish is lost: one that comes too early waits, one that stays unanswered is repeated. Only a
//! keyframe that arrives after a wish fulfils it, since whoever wished has not got the one before.

use std::time::Duration;

use ringmain_shared::Now;
use ringmain_shared::limits::KEYFRAME_INTERVAL;

/// The wishes for keyframes of one layer.
#[derive(Clone, Debug, Default)]
pub struct KeyframeArbiter {
    requested: Option<Now>,
    wish: Wish,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Wish {
    #[default]
    None,
    /// Made since the last request.
    Waiting,
    /// Requested this many times in a row without an answer.
    Asked(u32),
}

impl KeyframeArbiter {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Somebody needs a keyframe. True: send the request now.
    pub fn request(&mut self, now: Now) -> bool {
        // A new wish ends the back-off, but never the interval.
        self.wish = Wish::Waiting;
        self.poll(now)
    }

    /// True: send a request now, for a wish that waited or stayed unanswered.
    pub fn poll(&mut self, now: Now) -> bool {
        if self.next_deadline().is_none_or(|deadline| now < deadline) {
            return false;
        }
        self.requested = Some(now);
        self.wish = match self.wish {
            Wish::Asked(count) => Wish::Asked(count.saturating_add(1)),
            _ => Wish::Asked(1),
        };
        true
    }

    /// A keyframe began to arrive: every wish so far is fulfilled.
    pub fn keyframe_arrived(&mut self) {
        self.wish = Wish::None;
    }

    /// Nobody needs a keyframe any more, or the layer is gone.
    pub fn cancel(&mut self) {
        self.wish = Wish::None;
    }

    /// When to poll next; the past when a request is due.
    pub fn next_deadline(&self) -> Option<Now> {
        let wait = match self.wish {
            Wish::None => return None,
            Wish::Waiting => KEYFRAME_INTERVAL,
            Wish::Asked(count) => back_off(count),
        };
        Some(self.requested.map_or(Now(0), |requested| requested + wait))
    }
}

/// The interval, then twice and four times as long: a publisher that does not answer is not pressed harder.
fn back_off(unanswered: u32) -> Duration {
    KEYFRAME_INTERVAL * (1 << unanswered.saturating_sub(1).min(BACK_OFF_DOUBLINGS_MAX))
}

const BACK_OFF_DOUBLINGS_MAX: u32 = 2;

#[cfg(test)]
mod tests {
    use super::super::chance::Chance;
    use super::*;

    const fn at(millis: u64) -> Now {
        Now::from_millis(millis)
    }

    #[test]
    fn the_first_wish_is_sent_at_once_even_at_time_zero() {
        let mut arbiter = KeyframeArbiter::new();
        assert_eq!(arbiter.next_deadline(), None);
        assert!(!arbiter.poll(at(0)));
        assert!(arbiter.request(at(0)));
    }

    #[test]
    fn a_wish_too_early_waits_for_the_interval() {
        let mut arbiter = KeyframeArbiter::new();
        assert!(arbiter.request(at(1_000)));
        arbiter.keyframe_arrived();
        assert!(!arbiter.request(at(1_100)));
        assert_eq!(arbiter.next_deadline(), Some(at(1_500)));
        assert!(!arbiter.poll(at(1_499)));
        assert!(arbiter.poll(at(1_500)));
    }

    #[test]
    fn a_keyframe_fulfils_every_wish_before_it_and_none_after() {
        let mut arbiter = KeyframeArbiter::new();
        assert!(arbiter.request(at(1_000)));
        assert!(!arbiter.request(at(1_200)));
        arbiter.keyframe_arrived();
        assert_eq!(arbiter.next_deadline(), None);
        assert!(!arbiter.poll(at(9_000)));
        arbiter.keyframe_arrived();
        assert!(arbiter.request(at(9_000)), "the keyframe before does not help who asks now");
    }

    #[test]
    fn an_unanswered_request_is_repeated_with_back_off() {
        let mut arbiter = KeyframeArbiter::new();
        assert!(arbiter.request(at(0)));
        let sent: Vec<u64> = (0..10_000).filter(|&millis| arbiter.poll(at(millis))).collect();
        assert_eq!(sent, [500, 1_500, 3_500, 5_500, 7_500, 9_500]);
        assert!(!arbiter.request(at(9_900)));
        assert_eq!(arbiter.next_deadline(), Some(at(10_000)), "a new wish does not wait for the back-off");
        arbiter.cancel();
        assert_eq!(arbiter.next_deadline(), None);
    }

    #[test]
    fn five_hundred_subscribers_that_ask_without_pause_cause_two_requests_a_second() {
        let mut chance = Chance::new(1);
        let mut arbiter = KeyframeArbiter::new();
        let mut sent = Vec::new();
        for millis in 0..10_000 {
            for _ in 0..50 {
                sent.extend(arbiter.request(at(millis)).then_some(millis));
            }
            if chance.percent(1) {
                arbiter.keyframe_arrived();
            }
            sent.extend(arbiter.poll(at(millis)).then_some(millis));
        }
        assert!(sent.windows(2).all(|pair| pair[1] - pair[0] >= 500), "{sent:?}");
        assert_eq!(sent.len(), 20);
    }
}
