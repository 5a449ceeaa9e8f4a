//! Which of the last [`WINDOW`] sequence numbers of a stream have arrived.
//! Owns a ring of bits. Where the window stands is known by [`super::sequence`], which moves it.

/// How far behind the highest sequence number a packet may come and still be told from a duplicate.
pub const WINDOW: u64 = 1024;

const WORDS: usize = WINDOW as usize / 64;

/// One bit for each of the last [`WINDOW`] numbers.
#[derive(Clone, Debug, Default)]
pub struct SeenWindow {
    words: [u64; WORDS],
}

impl SeenWindow {
    /// Makes room for the numbers after `from` up to and including `to`: none of them has been seen.
    /// At most `WORDS + 1` steps, however far the way.
    pub fn advance(&mut self, from: u64, to: u64) {
        let mut remaining = to.saturating_sub(from);
        if remaining >= WINDOW {
            self.words = [0; WORDS];
            return;
        }
        let mut number = from + 1;
        while remaining > 0 {
            let bit = number % 64;
            let run = remaining.min(64 - bit);
            self.words[word(number)] &= !((u64::MAX >> (64 - run)) << bit);
            number += run;
            remaining -= run;
        }
    }

    /// Notes `number`, which must lie in the window; true if it was not there before.
    pub fn insert(&mut self, number: u64) -> bool {
        let bit = 1 << (number % 64);
        let fresh = self.words[word(number)] & bit == 0;
        self.words[word(number)] |= bit;
        fresh
    }
}

fn word(number: u64) -> usize {
    (number / 64) as usize % WORDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_advance_forgets_exactly_what_it_passes_over() {
        for start in [WINDOW, WINDOW + 1, WINDOW + 63, 2 * WINDOW - 1] {
            for step in [1, 2, 63, 64, 65, 127, 500, WINDOW - 1, WINDOW, WINDOW + 1, 1 << 40] {
                let mut seen = SeenWindow::default();
                for number in start + 1 - WINDOW..=start {
                    assert!(seen.insert(number));
                }
                seen.advance(start, start + step);
                for number in start + step + 1 - WINDOW..=start + step {
                    assert_eq!(seen.insert(number), number > start, "start {start} step {step} number {number}");
                }
            }
        }
    }
}
