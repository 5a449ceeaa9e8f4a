//! Seeded chance for the tests of this folder: the same seed gives the same packets.

/// SplitMix64.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in `percent` of a hundred cases.
    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// The numbers of `range` as a network delivers them: some lost, some twice, some up to `reorder` places late.
    pub(super) fn network(
        &mut self,
        range: std::ops::Range<u64>,
        loss: u64,
        duplicates: u64,
        reorder: u64,
    ) -> Vec<u64> {
        let mut arrivals = Vec::new();
        for number in range {
            if self.percent(loss) {
                continue;
            }
            arrivals.push((number + self.below(reorder + 1), number));
            if self.percent(duplicates) {
                arrivals.push((number + self.below(reorder + 1), number));
            }
        }
        arrivals.sort_by_key(|&(place, _)| place);
        arrivals.into_iter().map(|(_, number)| number).collect()
    }
}
