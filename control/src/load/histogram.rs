//! Durations counted in buckets that grow with the value, so that a percentile is right to 1.6 % at any scale.
//! Two counts of the same histogram can be subtracted: what remains is what was recorded between them.

use std::time::Duration;

/// Counts of durations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS].into_boxed_slice(), count: 0 }
    }
}

impl Histogram {
    pub(super) fn record(&mut self, value: Duration) {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX).min(VALUE_MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The value that `share` (0 to 1) of all values do not exceed; nothing when nothing was recorded.
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let found = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map(|bucket| Duration::from_nanos(upper(bucket)))
    }

    /// The largest value, rounded up to its bucket.
    pub(super) fn max(&self) -> Option<Duration> {
        self.buckets.iter().rposition(|&count| count > 0).map(|bucket| Duration::from_nanos(upper(bucket)))
    }

    pub(super) fn add(&mut self, other: &Histogram) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(to, from)| *to += from);
        self.count += other.count;
    }

    /// What was recorded since `earlier`, a copy of this histogram.
    pub(super) fn since(&self, earlier: &Histogram) -> Histogram {
        let pairs = self.buckets.iter().zip(&earlier.buckets);
        let buckets: Box<[u64]> = pairs.map(|(now, then)| now.saturating_sub(*then)).collect();
        Histogram { count: buckets.iter().sum(), buckets }
    }
}

/// Values below `STEPS` have a bucket each; above, every doubling has `STEPS` of them.
fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(STEPS_LOG + 1);
    (u64::from(shift) * STEPS + (nanos >> shift)) as usize
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / STEPS).saturating_sub(1);
    let mantissa = bucket - shift * STEPS;
    ((mantissa + 1) << shift) - 1
}

const STEPS_LOG: u32 = 6;
const STEPS: u64 = 1 << STEPS_LOG;
/// Eighteen minutes; longer counts as this.
const VALUE_MAX: u64 = (1 << 40) - 1;
const BUCKETS: usize = ((40 - STEPS_LOG as usize) + 1) * STEPS as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_hold_their_values() {
        let mut last = 0;
        for nanos in (0..100_000).chain((17..40).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 1])) {
            let index = bucket(nanos);
            assert!(index == last || index == last + 1 || nanos > 100_000, "{nanos} follows in {index} after {last}");
            assert!(
                upper(index) >= nanos && upper(index) <= nanos + nanos / 64,
                "{nanos} in a bucket to {}",
                upper(index)
            );
            last = index;
        }
        assert_eq!(bucket(VALUE_MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_right_to_a_bucket_and_differences_count_what_came_between() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.max()), (None, None));
        (1..=1000).for_each(|micros| histogram.record(Duration::from_micros(micros)));
        let close = |found: Option<Duration>, micros: f64| {
            let found = found.expect("values").as_secs_f64() * 1e6;
            assert!((found - micros).abs() <= micros * 0.016, "{found} µs instead of {micros}");
        };
        close(histogram.quantile(0.5), 500.0);
        close(histogram.quantile(0.99), 990.0);
        close(histogram.max(), 1000.0);

        let earlier = histogram.clone();
        (0..10).for_each(|_| histogram.record(Duration::from_secs(1)));
        let between = histogram.since(&earlier);
        assert_eq!(between.count(), 10);
        close(between.quantile(0.01), 1e6);
        let mut sum = earlier;
        sum.add(&between);
        assert_eq!(sum, histogram);
    }
}
