//! The 16-bit sequence numbers of one inbound stream, made one line of 64-bit numbers (RFC 3550 §A.1).
//!
//! Owns the highest number and the window of those seen; says of each packet whether it is new, late, seen before, too far off,
//! or the start of a new series. There is no probation (`MIN_SEQUENTIAL`): what comes here has been authenticated.
//! Each call takes a bounded number of steps whatever the number is; nothing ever walks over a gap.

use super::seen::{SeenWindow, WINDOW};

/// A publisher's sequence number with its cycles: the low 16 bits are as on the wire. Never decreases along a stream,
/// restarts included, so one number names one packet for the whole life of the stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InboundSeq(pub u64);

impl InboundSeq {
    /// As it was on the wire.
    pub const fn seq(self) -> u16 {
        self.0 as u16
    }
}

/// What one packet is to its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// Its place in the stream.
    pub extended: InboundSeq,
    /// How it came.
    pub kind: ArrivalKind,
}

/// How a packet came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArrivalKind {
    /// Beyond everything so far; perhaps after a gap.
    New,
    /// It fills a gap.
    Late,
    /// Seen before. To be dropped.
    Duplicate,
    /// Too far from the stream to be placed; its `extended` means nothing. To be dropped.
    TooOld,
    /// The second packet in a row of a series elsewhere: the publisher began anew, or was cut off for long.
    /// Everything known of the old series is void.
    Restarted,
}

/// Where a stream stands.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// First of the present series.
    base: InboundSeq,
    highest: InboundSeq,
    /// RFC 3550 §A.1 `bad_seq`: the packet that would prove a restart.
    restart_at: Option<u16>,
    /// Whatever comes next begins a new series.
    ended: bool,
    seen: SeenWindow,
}

impl Sequence {
    /// A stream that begins with the packet `seq`, which is thereby seen.
    pub fn begin(seq: u16) -> Self {
        // One cycle ahead of zero, so that packets from before the first have a place.
        Self::begin_at(InboundSeq(CYCLE | u64::from(seq)))
    }

    fn begin_at(first: InboundSeq) -> Self {
        let mut seen = SeenWindow::default();
        seen.insert(first.0);
        Self { base: first, highest: first, restart_at: None, ended: false, seen }
    }

    /// Places a packet that came on the stream's own SSRC.
    pub fn handle(&mut self, seq: u16) -> Arrival {
        if self.ended {
            return self.restart(seq);
        }
        match self.place(seq) {
            Place::Ahead(extended) => {
                self.restart_at = None;
                self.go_on_to(extended)
            }
            Place::Behind(extended) => self.fill(extended),
            Place::Elsewhere(_) if self.restart_at == Some(seq) => self.restart(seq),
            Place::Elsewhere(extended) => {
                self.restart_at = Some(seq.wrapping_add(1));
                Arrival { extended, kind: ArrivalKind::TooOld }
            }
        }
    }

    /// Places a packet that was sent again on another SSRC (RFC 4588); such packets prove no restart.
    pub fn handle_repair(&mut self, seq: u16) -> Arrival {
        match self.place(seq) {
            Place::Ahead(extended) | Place::Behind(extended) | Place::Elsewhere(extended) if self.ended => {
                Arrival { extended, kind: ArrivalKind::TooOld }
            }
            Place::Ahead(extended) => self.go_on_to(extended),
            Place::Behind(extended) => self.fill(extended),
            Place::Elsewhere(extended) => Arrival { extended, kind: ArrivalKind::TooOld },
        }
    }

    /// The series is over: the next packet is of another one, however near its number is.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The highest so far.
    pub fn highest(&self) -> InboundSeq {
        self.highest
    }

    /// Packets that the present series should have had by now (RFC 3550 §A.3).
    pub fn expected(&self) -> u64 {
        self.highest.0 - self.base.0 + 1
    }

    /// The extended highest sequence number for a report (RFC 3550 §6.4.1): cycles count from the start of the series.
    pub fn highest_reported(&self) -> u32 {
        (self.highest.0 - (self.base.0 & !(CYCLE - 1))) as u32
    }

    fn restart(&mut self, seq: u16) -> Arrival {
        // Two cycles on, so that no number of the old series comes again.
        let first = InboundSeq((self.highest.0 & !(CYCLE - 1)) + 2 * CYCLE + u64::from(seq));
        *self = Self::begin_at(first);
        Arrival { extended: first, kind: ArrivalKind::Restarted }
    }

    fn place(&self, seq: u16) -> Place {
        let ahead = u64::from(seq.wrapping_sub(self.highest.seq()));
        let behind = CYCLE - ahead;
        if ahead == 0 {
            Place::Behind(self.highest)
        } else if ahead < MAX_DROPOUT {
            Place::Ahead(InboundSeq(self.highest.0 + ahead))
        } else if behind < WINDOW {
            Place::Behind(InboundSeq(self.highest.0 - behind))
        } else {
            Place::Elsewhere(InboundSeq(self.highest.0 - behind))
        }
    }

    fn go_on_to(&mut self, extended: InboundSeq) -> Arrival {
        self.seen.advance(self.highest.0, extended.0);
        self.seen.insert(extended.0);
        self.highest = extended;
        Arrival { extended, kind: ArrivalKind::New }
    }

    fn fill(&mut self, extended: InboundSeq) -> Arrival {
        let kind = if self.seen.insert(extended.0) { ArrivalKind::Late } else { ArrivalKind::Duplicate };
        Arrival { extended, kind }
    }
}

enum Place {
    Ahead(InboundSeq),
    Behind(InboundSeq),
    Elsewhere(InboundSeq),
}

const CYCLE: u64 = 1 << 16;

/// RFC 3550 §A.1: a greater step ahead is not taken for loss until a second packet confirms it.
const MAX_DROPOUT: u64 = 3000;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::chance::Chance;
    use super::*;

    #[test]
    fn a_random_network_is_told_apart_as_by_a_set_of_everything_seen() {
        for seed in 0..60 {
            let mut chance = Chance::new(seed);
            let first = 70_000 + chance.below(65_536);
            let (loss, duplicates, reorder) = (chance.below(40), chance.below(20), chance.below(400));
            let arrivals = chance.network(first..first + 150_000 / (1 + seed), loss, duplicates, reorder);
            let mut sequence = Sequence::begin(arrivals[0] as u16);
            let offset = arrivals[0] - sequence.highest().0;
            let mut model = HashSet::from([arrivals[0]]);
            let mut highest = arrivals[0];
            for &number in &arrivals[1..] {
                let kind = match model.insert(number) {
                    false => ArrivalKind::Duplicate,
                    true if number > highest => ArrivalKind::New,
                    true => ArrivalKind::Late,
                };
                highest = highest.max(number);
                let arrival = sequence.handle(number as u16);
                assert_eq!(
                    arrival,
                    Arrival { extended: InboundSeq(number - offset), kind },
                    "seed {seed} number {number}"
                );
                assert_eq!(sequence.expected(), highest - arrivals[0] + 1, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_packet_sent_again_is_a_duplicate_for_as_long_as_the_window_is() {
        for behind in [1, 2, 63, 64, 500, WINDOW - 1] {
            let mut sequence = Sequence::begin(65_000);
            (65_001..=65_000 + behind).for_each(|n| assert_eq!(sequence.handle(n as u16).kind, ArrivalKind::New));
            assert_eq!(sequence.handle(65_000).kind, ArrivalKind::Duplicate, "{behind} behind");
        }
        let mut sequence = Sequence::begin(65_000);
        (65_001..=65_000 + WINDOW).for_each(|n| assert_eq!(sequence.handle(n as u16).kind, ArrivalKind::New));
        assert_eq!(sequence.handle(65_000).kind, ArrivalKind::TooOld);
    }

    #[test]
    fn a_packet_from_before_the_first_is_late_even_at_sequence_number_zero() {
        let mut sequence = Sequence::begin(0);
        assert_eq!(sequence.handle(65_535).kind, ArrivalKind::Late);
        assert_eq!(sequence.handle(65_535).kind, ArrivalKind::Duplicate);
        assert_eq!(sequence.handle(1).kind, ArrivalKind::New);
        assert_eq!(sequence.highest_reported(), 1);
    }

    #[test]
    fn a_jump_is_a_restart_only_when_a_second_packet_follows_it() {
        let mut sequence = Sequence::begin(100);
        let before = sequence.handle(101).extended;
        assert_eq!(sequence.handle(30_000).kind, ArrivalKind::TooOld);
        assert_eq!(sequence.handle(102).kind, ArrivalKind::New);
        assert_eq!(sequence.handle(30_001).kind, ArrivalKind::TooOld, "the stream went on in between");
        let restart = sequence.handle(30_002);
        assert_eq!(restart.kind, ArrivalKind::Restarted);
        assert_eq!(restart.extended.seq(), 30_002);
        assert!(restart.extended > before);
        assert_eq!(sequence.expected(), 1);
        assert_eq!(sequence.highest_reported(), 30_002);
        assert_eq!(sequence.handle(30_003).kind, ArrivalKind::New);
        assert_eq!(sequence.handle(103).kind, ArrivalKind::TooOld);
    }

    #[test]
    fn a_gap_below_the_dropout_limit_is_loss_and_beyond_it_is_not() {
        let mut sequence = Sequence::begin(0);
        assert_eq!(sequence.handle(2999).kind, ArrivalKind::New);
        assert_eq!(sequence.expected(), 3000);
        assert_eq!(sequence.handle(2999 + 3000).kind, ArrivalKind::TooOld);
    }

    #[test]
    fn repairs_fill_gaps_and_never_restart_a_stream() {
        let mut sequence = Sequence::begin(10);
        sequence.handle(13);
        assert_eq!(sequence.handle_repair(11).kind, ArrivalKind::Late);
        assert_eq!(sequence.handle_repair(11).kind, ArrivalKind::Duplicate);
        assert_eq!(sequence.handle(11).kind, ArrivalKind::Duplicate);
        for seq in 40_000..40_010 {
            assert_eq!(sequence.handle_repair(seq).kind, ArrivalKind::TooOld);
        }
        assert_eq!(sequence.handle(14).kind, ArrivalKind::New);
    }

    #[test]
    fn numbers_never_decrease_however_the_publisher_jumps() {
        let mut chance = Chance::new(7);
        let mut sequence = Sequence::begin(5);
        let mut seq = 5_u16;
        let mut highest = sequence.highest();
        let mut restarts = 0;
        for round in 0..200_000_u32 {
            seq = match round % 4 {
                0 => seq.wrapping_add(32_767),
                1 => seq.wrapping_sub(32_767),
                2 => seq.wrapping_add(1),
                _ => chance.next() as u16,
            };
            restarts += u32::from(sequence.handle(seq).kind == ArrivalKind::Restarted);
            assert!(sequence.highest() >= highest);
            highest = sequence.highest();
        }
        assert!(restarts > 1000, "{restarts}");
    }
}
