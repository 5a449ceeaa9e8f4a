//! What a publisher may send that understands no transport-wide feedback (draft-alvestrand-rmcat-remb).
//!
//! [`ReceiveRate`] owns a second of byte counts; [`RembEstimator`] owns an estimate that loss moves and the received rate
//! bounds. It is the loss half of Google congestion control and no more: without send times there is no delay to follow.

use std::time::Duration;

use ringmain_shared::Now;

/// Bits received within the last second.
#[derive(Clone, Debug, Default)]
pub struct ReceiveRate {
    buckets: [u64; BUCKETS],
    sum: u64,
    /// Number of the bucket that fills, counted from the start of the data plane.
    current: u64,
}

impl ReceiveRate {
    /// Nothing received.
    pub fn new() -> Self {
        Self::default()
    }

    /// `size` bytes came.
    pub fn handle(&mut self, size: usize, now: Now) {
        self.advance(now);
        self.buckets[self.current as usize % BUCKETS] += size as u64;
        self.sum += size as u64;
    }

    /// Bits per second over the last second. Too low within the first one.
    pub fn rate_bps(&mut self, now: Now) -> u64 {
        self.advance(now);
        self.sum * 8
    }

    fn advance(&mut self, now: Now) {
        let current = now.0 / BUCKET_NANOS;
        // However long the silence, each bucket is emptied once.
        for step in 1..=current.saturating_sub(self.current).min(BUCKETS as u64) {
            let bucket = &mut self.buckets[(self.current + step) as usize % BUCKETS];
            self.sum -= *bucket;
            *bucket = 0;
        }
        self.current = self.current.max(current);
    }
}

/// The rate that a publisher is told.
#[derive(Clone, Debug)]
pub struct RembEstimator {
    start_bps: u64,
    max_bps: u64,
    estimate_bps: u64,
    evaluated: Now,
    expected: u64,
    lost: u64,
    /// What was told last, and when.
    told: Option<(u64, Now)>,
}

impl RembEstimator {
    /// Begins at `start_bps` and never exceeds `max_bps`; the floor of 50 kb/s outranks both.
    pub fn new(start_bps: u64, max_bps: u64, now: Now) -> Self {
        let max_bps = max_bps.max(ESTIMATE_MIN_BPS);
        let start_bps = start_bps.clamp(ESTIMATE_MIN_BPS, max_bps);
        Self { start_bps, max_bps, estimate_bps: start_bps, evaluated: now, expected: 0, lost: 0, told: None }
    }

    /// What came since the last call: the rate now, and of how many packets expected how many were lost.
    /// Call it as often as suits; the estimate moves twice a second.
    pub fn update(&mut self, received_bps: u64, expected: u64, lost: u64, now: Now) {
        self.expected = self.expected.saturating_add(expected);
        self.lost = self.lost.saturating_add(lost.min(expected));
        let elapsed = now.since(self.evaluated);
        if elapsed < EVALUATION_INTERVAL {
            return;
        }
        let estimate = self.moved_by_loss(elapsed.min(ELAPSED_MAX));
        let ceiling = self.max_bps.min(self.start_bps.max(received_bps.saturating_mul(3) / 2));
        self.estimate_bps = estimate.min(ceiling).max(ESTIMATE_MIN_BPS);
        self.evaluated = now;
        (self.expected, self.lost) = (0, 0);
    }

    /// The estimate, in bits per second.
    pub fn estimate_bps(&self) -> u64 {
        self.estimate_bps
    }

    /// The publisher should be told: each second, and as soon as the estimate fell by more than 3 %.
    pub fn due(&self, now: Now) -> bool {
        self.told.is_none_or(|(bps, at)| {
            now >= at + TELL_INTERVAL || u128::from(self.estimate_bps) * 100 < u128::from(bps) * 97
        })
    }

    /// When to ask [`Self::due`] next; `None` means at once.
    pub fn next_deadline(&self) -> Option<Now> {
        self.told.map(|(_, at)| at + TELL_INTERVAL)
    }

    /// What to tell the publisher now, in bits per second, if anything is due.
    pub fn poll(&mut self, now: Now) -> Option<u64> {
        if !self.due(now) {
            return None;
        }
        self.told = Some((self.estimate_bps, now));
        Some(self.estimate_bps)
    }

    fn moved_by_loss(&self, elapsed: Duration) -> u64 {
        // Wide enough for any rate times any count.
        let (estimate, expected, lost) =
            (u128::from(self.estimate_bps), u128::from(self.expected), u128::from(self.lost));
        let moved = if expected == 0 {
            estimate
        } else if lost * 100 < expected * 2 {
            estimate + estimate * GROWTH_PERCENT * elapsed.as_millis() / 100_000
        } else if lost * 100 <= expected * 10 {
            estimate
        } else {
            estimate - estimate * lost / (2 * expected)
        };
        u64::try_from(moved).unwrap_or(u64::MAX)
    }
}

const BUCKETS: usize = 20;
const BUCKET_NANOS: u64 = 1_000_000_000 / BUCKETS as u64;

const ESTIMATE_MIN_BPS: u64 = 50_000;

/// Growth per second.
const GROWTH_PERCENT: u128 = 8;

/// A pause of ours is no reason to grow more than a second's worth.
const ELAPSED_MAX: Duration = Duration::from_secs(1);

/// Long enough for some tens of packets of a small stream, so that one lost packet is not 10 %.
const EVALUATION_INTERVAL: Duration = Duration::from_millis(500);

const TELL_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::super::chance::Chance;
    use super::*;

    const fn at(millis: u64) -> Now {
        Now::from_millis(millis)
    }

    fn estimator() -> RembEstimator {
        RembEstimator::new(1_000_000, 4_000_000, at(0))
    }

    #[test]
    fn the_rate_is_that_of_the_last_second() {
        let mut rate = ReceiveRate::new();
        for millis in 0..3_000 {
            rate.handle(125, at(millis));
        }
        let bps = rate.rate_bps(at(2_999));
        assert!((950_000..=1_000_000).contains(&bps), "{bps}");
        let bps = rate.rate_bps(at(3_500));
        assert!((450_000..=500_000).contains(&bps), "{bps}");
        assert_eq!(rate.rate_bps(at(1_000_000_000)), 0);
    }

    #[test]
    fn a_random_load_is_counted_as_a_list_of_all_packets_counts_it() {
        let mut chance = Chance::new(2);
        let mut rate = ReceiveRate::new();
        let (mut sent, mut now) = (Vec::new(), Now(0));
        for _ in 0..3_000 {
            let pause_us = if chance.percent(1) { 3_000_000 } else { 10_000 };
            now = now + Duration::from_micros(chance.below(pause_us));
            let size = chance.below(1_200);
            rate.handle(size as usize, now);
            sent.push((now.0 / 50_000_000, size));
            let since = (now.0 / 50_000_000 + 1).saturating_sub(20);
            let expected: u64 = sent.iter().filter(|(bucket, _)| *bucket >= since).map(|(_, size)| size * 8).sum();
            assert_eq!(rate.rate_bps(now), expected);
        }
    }

    #[test]
    fn without_loss_it_grows_eight_percent_a_second_up_to_its_bounds() {
        let mut remb = estimator();
        remb.update(10_000_000, 100, 1, at(1_000));
        assert_eq!(remb.estimate_bps(), 1_080_000);
        for second in 2..100 {
            remb.update(10_000_000, 100, 0, at(second * 1_000));
        }
        assert_eq!(remb.estimate_bps(), 4_000_000);
        remb.update(2_000_000, 100, 0, at(100_000));
        assert_eq!(remb.estimate_bps(), 3_000_000);
        remb.update(0, 0, 0, at(101_000));
        assert_eq!(remb.estimate_bps(), 1_000_000, "the start is open to who sends little");
    }

    #[test]
    fn it_holds_between_two_and_ten_percent_and_falls_above() {
        for (lost, expected_bps) in
            [(19, 1_080_000), (20, 1_000_000), (100, 1_000_000), (101, 949_500), (1_000, 500_000)]
        {
            let mut remb = estimator();
            remb.update(1_000_000, 1_000, lost, at(1_000));
            assert_eq!(remb.estimate_bps(), expected_bps, "{lost} lost of 1000");
        }
    }

    #[test]
    fn one_evaluation_punishes_a_loss_once_however_often_it_is_called() {
        let mut remb = estimator();
        for millis in 1..=500 {
            remb.update(1_000_000, 1, u64::from(millis % 5 == 0), at(millis));
        }
        assert_eq!(remb.estimate_bps(), 900_000);
    }

    #[test]
    fn it_never_falls_below_the_floor_nor_overflows() {
        let mut remb = estimator();
        for second in 1..100 {
            remb.update(0, 100, u64::MAX, at(second * 1_000));
        }
        assert_eq!(remb.estimate_bps(), 50_000);
        let mut remb = RembEstimator::new(u64::MAX, u64::MAX, at(0));
        remb.update(u64::MAX, u64::MAX, 0, at(1_000));
        remb.update(u64::MAX, u64::MAX, u64::MAX, at(2_000));
        assert_eq!(remb.estimate_bps(), u64::MAX / 2 + 1);
        assert_eq!(RembEstimator::new(0, 0, at(0)).estimate_bps(), 50_000);
    }

    #[test]
    fn a_long_pause_grows_it_by_one_second_only() {
        let mut remb = estimator();
        remb.update(10_000_000, 100, 0, at(60_000));
        assert_eq!(remb.estimate_bps(), 1_080_000);
    }

    #[test]
    fn it_is_told_each_second_and_at_once_when_it_fell() {
        let mut remb = estimator();
        assert_eq!(remb.poll(at(0)), Some(1_000_000));
        remb.update(1_000_000, 100, 0, at(500));
        assert_eq!(remb.poll(at(999)), None);
        assert_eq!(remb.next_deadline(), Some(at(1_000)));
        assert_eq!(remb.poll(at(1_000)), Some(1_040_000));
        remb.update(1_000_000, 100, 20, at(1_100));
        remb.update(1_000_000, 0, 0, at(1_200));
        assert_eq!(remb.poll(at(1_200)), Some(936_000));
    }
}
