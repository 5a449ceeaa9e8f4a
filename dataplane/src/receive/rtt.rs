//! Wall-clock time as RTCP carries it, and the round trip that reports tell by it (RFC 3550 §4, §6.4.1).
//! Pure arithmetic. [`NtpClock`] gets the wall clock once, at the start; a wall clock that is set later moves nothing here.

use std::time::Duration;

use ringmain_shared::Now;

/// Seconds since 1900 in 32.32 fixed point; the seconds wrap in 2036, as receivers expect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// The middle 32 bits: seconds in 16.16 fixed point, as `LSR` carries them.
    pub const fn compact(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// Turns `Now` into wall-clock time.
#[derive(Clone, Copy, Debug)]
pub struct NtpClock {
    unix_origin_ns: u64,
}

impl NtpClock {
    /// `Now(0)` is `unix_origin_ns` nanoseconds after 1970 began.
    pub const fn new(unix_origin_ns: u64) -> Self {
        Self { unix_origin_ns }
    }

    /// The wall-clock time of `now`.
    pub const fn at(&self, now: Now) -> NtpTime {
        let unix = self.unix_origin_ns.saturating_add(now.0);
        let seconds = (unix / NANOS + NTP_UNIX_OFFSET) & 0xffff_ffff;
        let fraction = ((unix % NANOS) << 32) / NANOS;
        NtpTime(seconds << 32 | fraction)
    }
}

/// The round trip that a report block tells, received at `now`: `now − DLSR − LSR`. `None` when the peer had no sender report
/// of ours, or when the result is longer than any call could bear and so was never true. Clocks of two precisions may make
/// it a little negative: then it is zero.
pub fn round_trip(lsr: u32, dlsr: u32, now: NtpTime) -> Option<Duration> {
    if lsr == 0 {
        return None;
    }
    let units = now.compact().wrapping_sub(dlsr).wrapping_sub(lsr) as i32;
    match u64::try_from(units) {
        Ok(units) => Some(Duration::from_nanos((units * NANOS) >> 16)).filter(|&rtt| rtt <= ROUND_TRIP_MAX),
        Err(_) if units > -NEGATIVE_MAX => Some(Duration::ZERO),
        Err(_) => None,
    }
}

const NANOS: u64 = 1_000_000_000;

/// Seconds from 1900 to 1970.
const NTP_UNIX_OFFSET: u64 = 2_208_988_800;

const ROUND_TRIP_MAX: Duration = Duration::from_secs(30);

/// One second in 16.16 fixed point: more is no rounding but a wrong report.
const NEGATIVE_MAX: i32 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_3550_section_6_4_1_holds() {
        let now = NtpTime(0xb44d_b705_2000_0000);
        assert_eq!(now.compact(), 0xb705_2000);
        assert_eq!(
            round_trip(0xb705_2000 - 0x0005_4000 - 0x0006_2000, 0x0005_4000, now),
            Some(Duration::from_millis(6_125))
        );
    }

    #[test]
    fn unix_time_becomes_ntp_time_and_wraps_in_2036() {
        assert_eq!(NtpClock::new(0).at(Now(0)), NtpTime(2_208_988_800 << 32));
        let clock = NtpClock::new(1_500_000_000);
        assert_eq!(clock.at(Now(250_000_000)), NtpTime((2_208_988_801 << 32) + (3 << 30)));
        // 2036-02-07 06:28:16 UTC.
        assert_eq!(NtpClock::new(2_085_978_496 * NANOS).at(Now(0)), NtpTime(0));
        let _ = NtpClock::new(u64::MAX).at(Now(u64::MAX));
    }

    #[test]
    fn a_round_trip_survives_the_wrap_of_the_compact_time() {
        let clock = NtpClock::new((65_536 * 30_000 - 2_208_988_800 % 65_536) * NANOS - 50_000_000);
        let sent = clock.at(Now(0)).compact();
        let back = clock.at(Now::from_millis(100));
        assert!(back.compact() < sent);
        let rtt = round_trip(sent, (20 << 16) / 1000, back).expect("a round trip");
        assert!(rtt.abs_diff(Duration::from_millis(80)) < Duration::from_micros(50), "{rtt:?}");
    }

    #[test]
    fn lies_and_roundings_give_no_negative_and_no_endless_round_trip() {
        let now = NtpTime(0x0000_1000_0000_0000);
        assert_eq!(round_trip(0, 0, now), None);
        assert_eq!(round_trip(now.compact(), 3, now), Some(Duration::ZERO));
        assert_eq!(round_trip(now.compact(), u32::MAX >> 1, now), None);
        assert_eq!(round_trip(now.compact().wrapping_sub(31 << 16), 0, now), None);
        assert_eq!(round_trip(now.compact().wrapping_add(2 << 16), 0, now), None);
        let _ = round_trip(1, u32::MAX, NtpTime(u64::MAX));
    }
}
