//! What arrived of one SSRC: every packet is counted by its sequence number (RFC 3550 §A.1), none twice. Knows gaps, and
//! which of them to ask for again.

use std::time::Duration;

use ringmain_shared::Now;

/// The numbers of one stream.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// Extended numbers, from `CYCLE` up, so that what comes before the first is above zero.
    first: u64,
    highest: u64,
    /// Packets that arrived, each once.
    received: u64,
    /// Which of the last `WINDOW` arrived.
    window: [u64; WINDOW as usize / 64],
    missing: Vec<Missing>,
}

/// A packet that has not come.
#[derive(Clone, Copy, Debug)]
struct Missing {
    number: u64,
    asked: u32,
    next: Now,
}

/// How a packet arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// After all others.
    InOrder,
    /// For the first time, after one that was sent later.
    Late,
    /// Again; or so late that nobody can tell.
    Duplicate,
}

impl Sequence {
    /// Takes note of packet `seq`.
    pub(super) fn handle(&mut self, seq: u16, now: Now) -> Arrival {
        if self.highest == 0 {
            self.first = CYCLE + u64::from(seq);
            self.highest = self.first;
            self.received = 1;
            self.mark(self.first);
            return Arrival::InOrder;
        }
        let number = self.extend(seq);
        if number > self.highest {
            self.advance(number, now);
            self.mark(number);
            self.received += 1;
            return Arrival::InOrder;
        }
        // What left before the first that arrived is not expected, so it is not counted either.
        if number < self.first || self.highest - number >= WINDOW || self.is_marked(number) {
            return Arrival::Duplicate;
        }
        self.mark(number);
        self.received += 1;
        self.missing.retain(|missing| missing.number != number);
        Arrival::Late
    }

    /// Packets that should have come.
    pub(super) fn expected(&self) -> u64 {
        if self.highest == 0 { 0 } else { self.highest - self.first + 1 }
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// For receiver reports: cycles and the highest number (RFC 3550 §6.4.1).
    pub(super) fn extended_highest(&self) -> u32 {
        self.highest.saturating_sub(CYCLE) as u32
    }

    /// Packets to ask for now. Each is asked for up to three times.
    pub(super) fn poll_nack(&mut self, now: Now, out: &mut Vec<u16>) {
        self.missing.retain_mut(|missing| {
            if missing.next <= now {
                out.push(missing.number as u16);
                missing.asked += 1;
                missing.next = now + NACK_INTERVAL;
            }
            missing.asked < NACKS_MAX
        });
    }

    /// RFC 3550 §A.1: the number nearest to the highest so far.
    fn extend(&self, seq: u16) -> u64 {
        let step = seq.wrapping_sub(self.highest as u16) as i16;
        self.highest.saturating_add_signed(i64::from(step))
    }

    fn advance(&mut self, number: u64, now: Now) {
        let gap = self.highest + 1..number;
        // A restart of the numbers, not a loss that anyone repairs.
        if number - self.highest < WINDOW {
            let wanted = gap.clone().take(MISSING_MAX.saturating_sub(self.missing.len()));
            self.missing.extend(wanted.map(|number| Missing { number, asked: 0, next: now + REORDERING }));
        }
        if number - self.highest >= WINDOW {
            self.window = Default::default();
        } else {
            gap.for_each(|skipped| self.window[word(skipped)] &= !(1 << (skipped % 64)));
        }
        self.highest = number;
    }

    fn mark(&mut self, number: u64) {
        self.window[word(number)] |= 1 << (number % 64);
    }

    fn is_marked(&self, number: u64) -> bool {
        self.window[word(number)] & 1 << (number % 64) != 0
    }
}

const fn word(number: u64) -> usize {
    (number / 64 % (WINDOW / 64)) as usize
}

const CYCLE: u64 = 1 << 16;
/// Packets within which a late one is told from a duplicate.
const WINDOW: u64 = 1024;
/// Patience with a gap that may only be reordering.
const REORDERING: Duration = Duration::from_millis(20);
const NACK_INTERVAL: Duration = Duration::from_millis(100);
const NACKS_MAX: u32 = 3;
const MISSING_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seqs: impl IntoIterator<Item = u16>) -> (Sequence, Vec<Arrival>) {
        let mut sequence = Sequence::default();
        let arrivals = seqs.into_iter().map(|seq| sequence.handle(seq, Now(0))).collect();
        (sequence, arrivals)
    }

    #[test]
    fn numbers_wrap_without_a_loss() {
        let (sequence, arrivals) = after((0..200_000_u32).map(|number| (number + 65_000) as u16));
        assert!(arrivals.iter().all(|&arrival| arrival == Arrival::InOrder));
        assert_eq!((sequence.expected(), sequence.received()), (200_000, 200_000));
    }

    #[test]
    fn losses_duplicates_and_lateness_are_told_apart() {
        let (sequence, arrivals) = after([65_534, 65_535, 1, 0, 0, 4, 65_533, 4]);
        use Arrival::{Duplicate, InOrder, Late};
        assert_eq!(arrivals, [InOrder, InOrder, InOrder, Late, Duplicate, InOrder, Duplicate, Duplicate]);
        assert_eq!((sequence.expected(), sequence.received()), (7, 5), "2 and 3 are lost");
        assert_eq!(sequence.extended_highest(), (1 << 16) + 4);
    }

    #[test]
    fn a_number_of_a_window_ago_is_not_taken_for_a_new_one() {
        let (mut sequence, _) = after(0..5000_u16);
        assert_eq!(sequence.handle(5000 - 1024, Now(0)), Arrival::Duplicate);
        assert_eq!(sequence.handle(5000 + 1023, Now(0)), Arrival::InOrder);
        // All but the newest of the window are missing now, and can still come.
        assert_eq!(sequence.handle(5000 + 5, Now(0)), Arrival::Late);
        assert_eq!(sequence.handle(5000 + 5, Now(0)), Arrival::Duplicate);
        assert_eq!((sequence.expected(), sequence.received()), (6024, 5002));
    }

    #[test]
    fn what_is_missing_is_asked_for_three_times_unless_it_comes() {
        let (mut sequence, _) = after([10, 13]);
        let poll = |sequence: &mut Sequence, millis| {
            let mut out = Vec::new();
            sequence.poll_nack(Now::from_millis(millis), &mut out);
            out
        };
        assert_eq!(poll(&mut sequence, 10), [0_u16; 0], "it may be reordering");
        assert_eq!(poll(&mut sequence, 20), [11, 12]);
        sequence.handle(11, Now::from_millis(30));
        assert_eq!(poll(&mut sequence, 60), [0_u16; 0]);
        assert_eq!(poll(&mut sequence, 120), [12]);
        assert_eq!(poll(&mut sequence, 220), [12]);
        assert_eq!(poll(&mut sequence, 1000), [0_u16; 0]);
    }
}
