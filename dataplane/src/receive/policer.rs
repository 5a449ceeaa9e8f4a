//! A bound on what one publisher's transport may make us decrypt: a token bucket over datagram sizes.
//! Owns the bucket. Asked before decryption, so a flood costs a subtraction, not a cipher.

use std::time::Duration;

use ringmain_shared::limits::DATAGRAM_SIZE_MAX;
use ringmain_shared::{DropReason, Now};

/// The bucket of one transport: holds one second of its rate, and at least one datagram.
#[derive(Clone, Debug)]
pub struct Policer {
    /// Bytes per second.
    rate: u64,
    /// Byte-nanoseconds-per-second: a byte is `NANOS` of them, so that no refill, however small, is rounded away.
    tokens: u64,
    refilled: Now,
}

impl Policer {
    /// A full bucket that lets `rate_bps_max` bits per second through.
    pub fn new(rate_bps_max: u64, now: Now) -> Self {
        let rate = (rate_bps_max / 8).min(RATE_MAX);
        Self { rate, tokens: capacity(rate), refilled: now }
    }

    /// Takes a datagram of `size` bytes out of the bucket, or refuses it and takes nothing.
    pub fn admit(&mut self, size: usize, now: Now) -> Result<(), DropReason> {
        self.refill(now);
        let cost = (size as u64).saturating_mul(NANOS);
        self.tokens = self.tokens.checked_sub(cost).ok_or(DropReason::Policed)?;
        Ok(())
    }

    fn refill(&mut self, now: Now) {
        let elapsed = now.since(self.refilled).min(BURST).as_nanos() as u64;
        self.refilled = self.refilled.max(now);
        self.tokens = (self.tokens + elapsed * self.rate).min(capacity(self.rate));
    }
}

fn capacity(rate: u64) -> u64 {
    rate.max(DATAGRAM_SIZE_MAX as u64) * NANOS
}

const NANOS: u64 = 1_000_000_000;

/// As long as the full rate may come at once after silence.
const BURST: Duration = Duration::from_secs(1);

/// Bytes per second; a full bucket and its refill together stay below 2⁶⁴.
const RATE_MAX: u64 = 5_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(policer: &mut Policer, size: usize, from_millis: u64, to_millis: u64, per_milli: u64) -> u64 {
        let mut bytes = 0;
        for millis in from_millis..to_millis {
            for _ in 0..per_milli {
                bytes += policer.admit(size, Now::from_millis(millis)).map_or(0, |()| size as u64);
            }
        }
        bytes
    }

    #[test]
    fn a_flood_is_clipped_to_the_rate_and_one_burst() {
        let mut policer = Policer::new(8_000_000, Now(0));
        let bytes = admitted(&mut policer, 1_000, 0, 10_000, 20);
        assert!((10_990_000..=11_000_000).contains(&bytes), "{bytes}");
        assert_eq!(policer.admit(1_000, Now::from_millis(9_999)), Err(DropReason::Policed));
    }

    #[test]
    fn a_publisher_within_its_rate_loses_nothing() {
        let mut policer = Policer::new(8_000_000, Now(0));
        assert_eq!(admitted(&mut policer, 1_000, 0, 60_000, 1), 60_000_000);
    }

    #[test]
    fn small_steps_of_time_refill_as_much_as_great_ones() {
        let mut policer = Policer::new(8_000, Now(0));
        assert_eq!(policer.admit(1_500, Now(0)), Ok(()));
        (0..=100_000).for_each(|step| {
            let _ = policer.admit(1_500, Now(step * 10_000));
        });
        assert_eq!(policer.admit(1_000, Now::from_millis(1_000)), Ok(()));
        assert_eq!(policer.admit(1, Now::from_millis(1_000)), Err(DropReason::Policed));
    }

    #[test]
    fn no_rate_and_no_clock_overflows_or_refills_backwards() {
        for rate in [0, 1, 7, u64::MAX] {
            let mut policer = Policer::new(rate, Now(u64::MAX));
            assert_eq!(policer.admit(DATAGRAM_SIZE_MAX, Now(u64::MAX)), Ok(()));
            assert_eq!(policer.admit(usize::MAX, Now(0)), Err(DropReason::Policed));
        }
        let mut policer = Policer::new(8_000, Now::from_millis(5_000));
        assert_eq!(policer.admit(1_500, Now::from_millis(5_000)), Ok(()));
        assert_eq!(policer.admit(1, Now::from_millis(1_000)), Err(DropReason::Policed));
        assert_eq!(policer.admit(1, Now::from_millis(5_000)), Err(DropReason::Policed));
    }
}
