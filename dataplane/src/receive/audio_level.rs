//! How much of an audio track was speech in the current interval, by the levels of RFC 6464.
//! Owns two sums. When an interval ends, and which track then counts as a speaker, is decided elsewhere.

/// The loud packets of one track since the last [`AudioObserver::take`].
#[derive(Clone, Debug)]
pub struct AudioObserver {
    threshold: u8,
    count: u32,
    level_sum: u32,
}

impl AudioObserver {
    /// Counts packets whose level is at most `threshold`, in −dBov: 0 is the loudest, 127 silence.
    pub fn new(threshold: u8) -> Self {
        Self { threshold: threshold.min(LEVEL_MAX), count: 0, level_sum: 0 }
    }

    /// A packet with this level in −dBov, without the voice activity bit; more than 127 is taken for 127.
    pub fn handle(&mut self, level: u8) {
        let level = level.min(LEVEL_MAX);
        if level <= self.threshold {
            self.count = self.count.saturating_add(1);
            self.level_sum = self.level_sum.saturating_add(u32::from(level));
        }
    }

    /// Ends the interval: how many packets were loud and the sum of their levels, if any were.
    pub fn take(&mut self) -> Option<(u32, u32)> {
        let heard = (self.count, self.level_sum);
        (self.count, self.level_sum) = (0, 0);
        (heard.0 > 0).then_some(heard)
    }
}

/// RFC 6464 §3: seven bits.
const LEVEL_MAX: u8 = 127;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_at_the_threshold_or_louder_count() {
        let mut observer = AudioObserver::new(40);
        for level in [0, 40, 41, 127, 255, 30] {
            observer.handle(level);
        }
        assert_eq!(observer.take(), Some((3, 70)));
    }

    #[test]
    fn an_interval_of_silence_gives_nothing_and_digital_silence_is_not_loud() {
        let mut observer = AudioObserver::new(40);
        observer.handle(127);
        assert_eq!(observer.take(), None);
        observer.handle(0);
        assert_eq!(observer.take(), Some((1, 0)));
        assert_eq!(observer.take(), None);
    }

    #[test]
    fn levels_beyond_seven_bits_are_silence() {
        let mut observer = AudioObserver::new(255);
        observer.handle(200);
        assert_eq!(observer.take(), Some((1, 127)));
    }
}
