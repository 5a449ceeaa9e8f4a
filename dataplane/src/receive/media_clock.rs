//! A publisher's media clock against our arrival clock: interarrival jitter (RFC 3550 §6.4.1, §A.8) and drift.
//! Owns the last packet's two times and two sums. Sees packets in the order of their sequence numbers only: what was sent
//! again comes late by nature and says nothing about the network's jitter.

use ringmain_shared::Now;

/// Jitter and drift of one stream.
#[derive(Clone, Debug)]
pub struct MediaClock {
    clock_rate: u32,
    /// Arrival less timestamp of the last packet, in timestamp units, modulo 2³².
    transit: Option<u32>,
    /// Sixteen times the jitter, in timestamp units, so that the running mean needs no fractions.
    jitter_x16: u64,
    /// Arrival time less media time since the first packet, in timestamp units.
    drift: i64,
}

impl MediaClock {
    /// For a stream whose timestamps count `clock_rate` per second.
    pub fn new(clock_rate: u32) -> Self {
        Self { clock_rate: clock_rate.clamp(1, CLOCK_RATE_MAX), transit: None, jitter_x16: 0, drift: 0 }
    }

    /// A packet, in order.
    pub fn handle(&mut self, timestamp: u32, now: Now) {
        let transit = self.units(now).wrapping_sub(timestamp);
        let Some(last) = self.transit.replace(transit) else { return };
        // RFC 3550 §5.1: timestamps start anywhere and wrap, so only the signed difference means something.
        let change = transit.wrapping_sub(last) as i32;
        let size = u64::from(change.unsigned_abs());
        if size > u64::from(self.clock_rate) * JUMP_SECONDS {
            return;
        }
        self.jitter_x16 = self.jitter_x16 + size - ((self.jitter_x16 + 8) >> 4);
        self.drift = self.drift.saturating_add(i64::from(change));
    }

    /// Interarrival jitter in timestamp units, as reports carry it.
    pub fn jitter(&self) -> u32 {
        (self.jitter_x16 >> 4) as u32
    }

    /// Interarrival jitter in microseconds.
    pub fn jitter_us(&self) -> u64 {
        u64::from(self.jitter()) * 1_000_000 / u64::from(self.clock_rate)
    }

    /// How much more time passed here than in the media since the first packet, in milliseconds.
    pub fn drift_ms(&self) -> i64 {
        self.drift.saturating_mul(1000) / i64::from(self.clock_rate)
    }

    /// `now` in timestamp units. Seconds and nanoseconds apart, since their product would overflow within days.
    fn units(&self, now: Now) -> u32 {
        let rate = u64::from(self.clock_rate);
        let (seconds, nanos) = (now.0 / NANOS, now.0 % NANOS);
        seconds.wrapping_mul(rate).wrapping_add(nanos * rate / NANOS) as u32
    }
}

const NANOS: u64 = 1_000_000_000;

/// Above every registered clock rate; keeps the sums far from overflow.
const CLOCK_RATE_MAX: u32 = 1_000_000;

/// A greater change of transit time from one packet to the next is a clock that was set, not a network that was slow.
const JUMP_SECONDS: u64 = 5;

#[cfg(test)]
mod tests {
    use super::super::chance::Chance;
    use super::*;

    #[test]
    fn jitter_follows_the_formula_of_rfc_3550() {
        let mut chance = Chance::new(3);
        let mut clock = MediaClock::new(90_000);
        let (mut jitter, mut last, mut sum_us) = (0.0_f64, None, 0);
        for packet in 0..5_000_u64 {
            let arrival_us = 20_000 * packet + chance.below(8_000);
            clock.handle(u32::MAX.wrapping_add(1800 * packet as u32), Now(arrival_us * 1000));
            let transit = arrival_us as f64 * 0.09 - 1800.0 * packet as f64;
            if let Some(last) = last {
                let change: f64 = transit - last;
                jitter += (change.abs() - jitter) / 16.0;
            }
            last = Some(transit);
            assert!((f64::from(clock.jitter()) - jitter).abs() < 4.0, "packet {packet}: {} {jitter}", clock.jitter());
            sum_us += clock.jitter_us();
        }
        // The mean distance of two evenly spread delays of up to 8 ms is a third of that.
        let mean_us = sum_us / 5_000;
        assert!((2_580..2_750).contains(&mean_us), "{mean_us}");
    }

    #[test]
    fn a_steady_stream_has_neither_jitter_nor_drift_even_after_a_year() {
        let mut clock = MediaClock::new(48_000);
        let year = 365 * 86_400_000;
        for packet in 0..1_000 {
            clock.handle((packet * 960) as u32, Now::from_millis(year + packet * 20));
        }
        assert_eq!((clock.jitter(), clock.drift_ms()), (0, 0));
    }

    #[test]
    fn a_clock_that_runs_slow_shows_as_drift() {
        let mut clock = MediaClock::new(48_000);
        for packet in 0..=5_000_u64 {
            clock.handle((packet * 960) as u32, Now(packet * 20_020_000));
        }
        assert_eq!(clock.drift_ms(), 100);
    }

    #[test]
    fn jumps_of_the_media_clock_are_neither_jitter_nor_drift() {
        let mut clock = MediaClock::new(90_000);
        for packet in 0..100_000_u64 {
            clock.handle((packet as u32 % 2) << 31, Now::from_millis(packet));
        }
        assert!(clock.jitter_us() < 2_000 && clock.drift_ms() == 0, "{} {}", clock.jitter_us(), clock.drift_ms());
        let mut absurd = MediaClock::new(0);
        absurd.handle(0, Now(0));
        absurd.handle(7, Now(u64::MAX));
    }
}
