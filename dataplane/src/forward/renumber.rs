//! Gapless renumbering of a counter of which some values are left out: sequence numbers, picture ids.
//! Values that were merely lost keep their place, so that they can still come; values left out on purpose do not.

/// Maps a publisher's numbers to a subscriber's. Almost every number is of the newest segment; the others are out of the way.
#[derive(Clone, Debug)]
pub struct Renumber {
    /// Meaningless while `count` is zero.
    newest: Segment,
    highest_in: u64,
    next_out: u64,
    /// Segments begun since the last restart.
    count: usize,
    /// Those before the newest; segment n of the count is `former[n % SEGMENTS]`.
    former: Box<[Segment; SEGMENTS]>,
}

/// From this number in, `out = in + shift` (wrapping).
#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    from: u64,
    shift: u64,
}

/// How many changes back a late number still finds its place.
const SEGMENTS: usize = 16;

impl Renumber {
    /// The first number that goes out will be `first_out`.
    pub fn new(first_out: u64) -> Self {
        let none = Segment::default();
        Self { newest: none, highest_in: 0, next_out: first_out, count: 0, former: Box::new([none; SEGMENTS]) }
    }

    /// From here on numbers come from another source, or after a pause: `from` follows the last one that went out,
    /// and nothing before it is mapped any more.
    pub fn restart(&mut self, from: u64) {
        self.count = 0;
        self.push(Segment { from, shift: self.next_out.wrapping_sub(from) });
        self.highest_in = from.wrapping_sub(1);
    }

    /// The number that goes out for `number`; `None` before the restart or too many changes ago.
    #[inline]
    pub fn map(&mut self, number: u64) -> Option<u64> {
        if self.count == 0 || number < self.newest.from {
            return self.map_late(number);
        }
        let out = number.wrapping_add(self.newest.shift);
        if self.is_ahead(number) {
            self.highest_in = number;
            self.next_out = out + 1;
        }
        Some(out)
    }

    #[cold]
    fn map_late(&self, number: u64) -> Option<u64> {
        let used = self.count.min(SEGMENTS);
        (2..=used)
            .map(|back| self.former[(self.count - back) % SEGMENTS])
            .find(|segment| number >= segment.from)
            .map(|segment| number.wrapping_add(segment.shift))
    }

    /// `number` is left out on purpose. One that comes late has its gap already, and keeps it.
    pub fn skip(&mut self, number: u64) {
        if self.count == 0 || !self.is_ahead(number) {
            return;
        }
        // Numbers missing before this one keep their places, so whatever is next goes out one earlier than it came.
        let shift = self.newest.shift.wrapping_sub(1);
        self.highest_in = number;
        self.next_out = (number + 1).wrapping_add(shift);
        self.push(Segment { from: number + 1, shift });
    }

    fn is_ahead(&self, number: u64) -> bool {
        number.wrapping_sub(self.highest_in).wrapping_sub(1) < u64::MAX / 2
    }

    fn push(&mut self, segment: Segment) {
        let newest = self.newest;
        // A run of skips only moves the newest segment on: nothing was mapped through it.
        let is_unused = newest.from == segment.from.wrapping_sub(1) && newest.from == self.highest_in;
        if self.count > 0 && !is_unused {
            self.former[(self.count - 1) % SEGMENTS] = newest;
        }
        self.count += usize::from(self.count == 0 || !is_unused);
        self.newest = segment;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_left_out_leave_no_gap_and_lost_ones_keep_theirs() {
        let mut numbers = Renumber::new(100);
        numbers.restart(7);
        assert_eq!(numbers.map(7), Some(100));
        assert_eq!(numbers.map(8), Some(101));
        numbers.skip(9);
        assert_eq!(numbers.map(10), Some(102));
        assert_eq!(numbers.map(13), Some(105), "11 and 12 were lost on the way and may still come");
        assert_eq!(numbers.map(11), Some(103));
        numbers.skip(15);
        assert_eq!(numbers.map(16), Some(107));
        assert_eq!(numbers.map(14), Some(106), "late, from before the one left out");
        assert_eq!(numbers.map(6), None, "from before the start");
    }

    #[test]
    fn a_restart_continues_where_the_former_source_ended() {
        let mut numbers = Renumber::new(5);
        numbers.restart(1_000);
        assert_eq!(numbers.map(1_000), Some(5));
        assert_eq!(numbers.map(1_002), Some(7));
        numbers.restart(40);
        assert_eq!(numbers.map(40), Some(8));
        assert_eq!(numbers.map(39), None);
    }

    #[test]
    fn a_run_of_skips_uses_one_segment() {
        let mut numbers = Renumber::new(0);
        numbers.restart(0);
        assert_eq!(numbers.map(0), Some(0));
        for number in 1..1000 {
            numbers.skip(number);
        }
        assert_eq!(numbers.count, 2);
        assert_eq!(numbers.map(1000), Some(1));
    }

    #[test]
    fn no_number_goes_out_twice_whatever_is_skipped_lost_or_late() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for round in 0..200 {
            let mut numbers = Renumber::new(next(1 << 15));
            numbers.restart(1_000);
            let mut seen = std::collections::HashSet::new();
            let mut came = std::collections::HashSet::new();
            let mut head = 1_000;
            for _ in 0..2_000 {
                head += next(3);
                let number = head.saturating_sub(next(20) * next(2)).max(990);
                if !came.insert(number) {
                    continue;
                }
                if next(4) == 0 {
                    numbers.skip(number);
                } else if let Some(out) = numbers.map(number) {
                    assert!(seen.insert(out), "round {round}: {number} became {out}, which was used");
                }
            }
        }
    }
}
