//! Numbers that look random and are the same for the same seed (SplitMix64). Nothing here is secret: the keys of a session
//! come from DTLS.

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    /// The numbers of `seed`; each `lane` has its own.
    pub(super) fn new(seed: u64, lane: u64) -> Self {
        let mut chance = Self(seed ^ lane.wrapping_mul(0xd1b5_4a32_d192_ed03));
        chance.next();
        chance
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when there is none.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// True in `percent` of a hundred times.
    pub(super) fn falls(&mut self, percent: f64) -> bool {
        percent > 0.0 && (self.next() >> 11) as f64 / (1_u64 << 53) as f64 * 100.0 < percent
    }

    /// An SSRC that is not zero.
    pub(super) fn ssrc(&mut self) -> u32 {
        (self.next() as u32).max(1)
    }

    /// Letters that are good in every SDP attribute and identifier.
    pub(super) fn text(&mut self, size: usize) -> String {
        const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        (0..size).map(|_| char::from(LETTERS[(self.next() >> 59) as usize])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_lane_give_the_same_numbers_and_others_do_not() {
        let draw = |seed, lane| Chance::new(seed, lane).text(16);
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn what_falls_in_a_percentage_of_times_does() {
        let mut chance = Chance::new(1, 1);
        let mut count = |percent| (0..100_000).filter(|_| chance.falls(percent)).count();
        assert_eq!((count(0.0), count(100.0)), (0, 100_000));
        assert!((1800..2200).contains(&count(2.0)));
    }
}
