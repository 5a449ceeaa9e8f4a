//! The wall clock of a layer as its sender reports tell it (RFC 3550 §6.4.1), and what it is worth towards subscribers:
//! timestamps that line up across layers, and sender reports of our own under which audio and video stay in sync.

/// One sender report: at this NTP time the stream's RTP clock showed this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenderClock {
    /// 32.32 fixed-point seconds since 1900, the publisher's clock.
    pub ntp: u64,
    /// RTP timestamp at that time.
    pub rtp: u32,
    /// RTP clock rate, Hz.
    pub clock_rate: u32,
}

impl SenderClock {
    /// RTP timestamp of this stream at an NTP time of the publisher.
    pub fn rtp_at(&self, ntp: u64) -> u32 {
        let elapsed = i128::from(ntp.wrapping_sub(self.ntp) as i64);
        let ticks = (elapsed * i128::from(self.clock_rate)) >> 32;
        self.rtp.wrapping_add(ticks as u32)
    }

    /// NTP time of the publisher at an RTP timestamp within 2³¹ ticks of the report's.
    pub fn ntp_at(&self, rtp: u32) -> u64 {
        let ticks = i128::from(rtp.wrapping_sub(self.rtp) as i32);
        let elapsed = (ticks << 32) / i128::from(self.clock_rate.max(1));
        self.ntp.wrapping_add(elapsed as u64)
    }
}

/// How far a publisher's wall clock is from ours: one value for all of its streams, so that what was in sync stays so.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockOffset {
    /// Ours minus theirs, 32.32 seconds, wrapping. Includes the way from them to us.
    offset: Option<u64>,
}

impl ClockOffset {
    /// A sender report with this NTP time arrived when our clock showed `ours`.
    pub fn learn(&mut self, theirs: u64, ours: u64) {
        let seen = ours.wrapping_sub(theirs);
        self.offset = Some(match self.offset {
            None => seen,
            Some(offset) => {
                let change = seen.wrapping_sub(offset) as i64;
                // A report that came sooner shows the way at its shortest; a later one was held up, or the clocks drift.
                let step = if change < 0 || change.unsigned_abs() > JUMP { change } else { change >> 6 };
                offset.wrapping_add(step as u64)
            }
        });
    }

    /// Their NTP time when ours is `ours`; `None` before the first report.
    pub fn theirs(&self, ours: u64) -> Option<u64> {
        self.offset.map(|offset| ours.wrapping_sub(offset))
    }
}

/// A change of a second is a clock that was set, not a way that got longer.
const JUMP: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1 << 32;

    #[test]
    fn timestamps_and_times_convert_both_ways() {
        let clock = SenderClock { ntp: 10 * SECOND, rtp: 0xffff_fff0, clock_rate: 90_000 };
        assert_eq!(clock.rtp_at(11 * SECOND), 0xffff_fff0u32.wrapping_add(90_000));
        assert_eq!(clock.rtp_at(9 * SECOND), 0xffff_fff0u32.wrapping_sub(90_000));
        assert_eq!(clock.ntp_at(0xffff_fff0u32.wrapping_add(45_000)), 10 * SECOND + SECOND / 2);
    }

    #[test]
    fn the_offset_follows_the_shortest_way_at_once_and_drift_slowly() {
        let mut offset = ClockOffset::default();
        assert_eq!(offset.theirs(5), None);
        offset.learn(100 * SECOND, 107 * SECOND + SECOND / 5);
        offset.learn(101 * SECOND, 108 * SECOND + SECOND / 10);
        assert_eq!(offset.theirs(109 * SECOND + SECOND / 10), Some(102 * SECOND));
        offset.learn(102 * SECOND, 109 * SECOND + SECOND / 2);
        let theirs = offset.theirs(109 * SECOND + SECOND / 10).unwrap();
        assert!((102 * SECOND).wrapping_sub(theirs) < SECOND / 100, "one late report hardly counts");
    }
}
