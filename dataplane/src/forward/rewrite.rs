//! A subscriber's own numbering of a track: sequence numbers and timestamps that run on through layer switches, pauses and
//! publishers that start again (RFC 3550 §5.1, RFC 7667 §3.7). The only place where an inbound number becomes an outbound one.

use ringmain_shared::Now;

use super::packet::{InboundSeq, MediaPacket, OutboundSeq};
use super::renumber::Renumber;

/// Sequence and timestamp mapping of one subscription.
#[derive(Debug)]
pub struct Rewrite {
    sequence: Renumber,
    sent: SentWindow,
    clock_rate: u32,
    /// `out = in + timestamp_shift`, wrapping.
    timestamp_shift: u32,
    last: Option<Last>,
}

/// The newest packet that went out.
#[derive(Clone, Copy, Debug)]
struct Last {
    timestamp: u32,
    at: Now,
}

impl Rewrite {
    /// `random` decides where the numbers begin (RFC 3550 §5.1); the first sequence number is below 2¹⁵, so that a receiver
    /// that misses the first packets still guesses the rollover counter right (RFC 3711 §3.3.1).
    pub fn new(clock_rate: u32, random: u64) -> Self {
        Self {
            sequence: Renumber::new(random & 0x7fff),
            sent: SentWindow::default(),
            clock_rate,
            timestamp_shift: (random >> 32) as u32,
            last: None,
        }
    }

    /// `packet` is the first one of another layer, or after a pause. `aligned` is its timestamp at the subscriber as the sender
    /// reports of both layers have it, when they are known.
    pub fn restart(&mut self, packet: &MediaPacket, aligned: Option<u32>, now: Now) {
        self.sequence.restart(packet.sequence.0);
        let Some(last) = self.last else { return };
        let by_clock = last.timestamp.wrapping_add(self.ticks_since(last.at, now));
        let believable = |timestamp: u32| {
            let off = timestamp.wrapping_sub(by_clock) as i32;
            off.unsigned_abs() < self.clock_rate && (timestamp.wrapping_sub(last.timestamp) as i32) > 0
        };
        let timestamp = aligned.filter(|&t| believable(t)).unwrap_or(if by_clock == last.timestamp {
            last.timestamp.wrapping_add(1)
        } else {
            by_clock
        });
        self.timestamp_shift = timestamp.wrapping_sub(packet.timestamp);
    }

    /// After a pause of the same layer: the sequence goes on without a gap, the timestamp as the publisher's clock says.
    pub fn resume(&mut self, packet: &MediaPacket) {
        self.sequence.restart(packet.sequence.0);
    }

    /// The numbers under which `packet` goes out; `None` when it belongs before the last switch, or went out before: an SRTP
    /// index is never used twice.
    #[inline]
    pub fn map(&mut self, packet: &MediaPacket, now: Now) -> Option<(OutboundSeq, u32)> {
        let sequence = OutboundSeq(self.sequence.map(packet.sequence.0)?);
        if !self.sent.mark(sequence) {
            return None;
        }
        let timestamp = self.timestamp(packet.timestamp);
        if self.last.is_none_or(|last| (timestamp.wrapping_sub(last.timestamp) as i32) > 0) {
            self.last = Some(Last { timestamp, at: now });
        }
        Some((sequence, timestamp))
    }

    /// Whether a packet went out under this number, one of the last [`WINDOW`].
    pub fn has_sent(&self, sequence: OutboundSeq) -> bool {
        self.sent.has(sequence)
    }

    /// `sequence` is left out on purpose: no gap remains.
    pub fn skip(&mut self, sequence: InboundSeq) {
        self.sequence.skip(sequence.0);
    }

    /// A publisher's timestamp as the subscriber has it.
    pub fn timestamp(&self, inbound: u32) -> u32 {
        inbound.wrapping_add(self.timestamp_shift)
    }

    /// Nothing has gone out yet.
    pub fn is_fresh(&self) -> bool {
        self.last.is_none()
    }

    fn ticks_since(&self, then: Now, now: Now) -> u32 {
        (now.since(then).as_nanos() * u128::from(self.clock_rate) / 1_000_000_000) as u32
    }
}

/// Which of the last [`WINDOW`] outbound numbers are used.
#[derive(Debug)]
struct SentWindow {
    bits: [u64; WINDOW_WORDS],
    /// One above the highest number used.
    end: u64,
}

const WINDOW_WORDS: usize = 16;
/// How far back is known: a word is forgotten as a whole, when the newest number takes it over.
const WINDOW: u64 = (WINDOW_WORDS as u64 - 1) * 64;

impl Default for SentWindow {
    fn default() -> Self {
        Self { bits: [0; WINDOW_WORDS], end: 0 }
    }
}

impl SentWindow {
    /// Marks `sequence` used; false when it was, or is too far back to know.
    #[inline]
    fn mark(&mut self, sequence: OutboundSeq) -> bool {
        let number = sequence.0;
        let bit = 1 << (number % 64);
        if number >= self.end {
            self.advance(number);
        } else if self.end - number > WINDOW || *self.word(number) & bit != 0 {
            return false;
        }
        *self.word(number) |= bit;
        true
    }

    fn has(&self, sequence: OutboundSeq) -> bool {
        let number = sequence.0;
        let word = self.bits[(number / 64) as usize % WINDOW_WORDS];
        number < self.end && self.end - number <= WINDOW && word & 1 << (number % 64) != 0
    }

    /// Moves the end behind `number`. A word is cleared when its first number is reached, so it never has bits at or above the end.
    #[inline]
    fn advance(&mut self, number: u64) {
        let (reached, last) = (self.end.div_ceil(64), number / 64);
        let first = reached.max((last + 1).saturating_sub(WINDOW_WORDS as u64));
        for word in first..=last {
            self.bits[word as usize % WINDOW_WORDS] = 0;
        }
        self.end = number + 1;
    }

    #[inline]
    fn word(&mut self, number: u64) -> &mut u64 {
        &mut self.bits[(number / 64) as usize % WINDOW_WORDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u64, timestamp: u32) -> MediaPacket {
        MediaPacket { sequence: InboundSeq(sequence), timestamp, ..MediaPacket::default() }
    }

    #[test]
    fn numbers_run_on_through_a_layer_switch() {
        let mut rewrite = Rewrite::new(90_000, 77);
        rewrite.restart(&packet(500, 1_000), None, Now(0));
        let (first, t0) = rewrite.map(&packet(500, 1_000), Now(0)).unwrap();
        let (second, t1) = rewrite.map(&packet(501, 4_000), Now::from_millis(33)).unwrap();
        assert_eq!((second.0 - first.0, t1 - t0), (1, 3_000));
        // Another layer with numbers of its own; its sender report says that it is 3000 ticks after the last frame.
        rewrite.restart(&packet(9, 0xffff_0000), Some(t1.wrapping_add(3_000)), Now::from_millis(66));
        let (third, t2) = rewrite.map(&packet(9, 0xffff_0000), Now::from_millis(66)).unwrap();
        assert_eq!((third.0 - second.0, t2.wrapping_sub(t1)), (1, 3_000));
        assert_eq!(
            rewrite.map(&packet(502, 7_000), Now::from_millis(67)).map(|(sequence, _)| sequence > third),
            Some(true)
        );
    }

    #[test]
    fn an_absurd_sender_report_does_not_move_the_clock() {
        let mut rewrite = Rewrite::new(90_000, 1);
        rewrite.restart(&packet(1, 0), None, Now(0));
        let (_, t0) = rewrite.map(&packet(1, 0), Now(0)).unwrap();
        rewrite.restart(&packet(70, 5), Some(t0.wrapping_sub(900_000)), Now::from_millis(100));
        let (_, t1) = rewrite.map(&packet(70, 5), Now::from_millis(100)).unwrap();
        assert_eq!(t1.wrapping_sub(t0), 9_000);
    }

    #[test]
    fn an_outbound_number_is_used_once() {
        let mut rewrite = Rewrite::new(90_000, 3);
        rewrite.restart(&packet(1, 0), None, Now(0));
        assert!(rewrite.map(&packet(1, 0), Now(0)).is_some());
        assert!(rewrite.map(&packet(1, 0), Now(0)).is_none());
        assert!(rewrite.map(&packet(3000, 0), Now(0)).is_some());
        assert!(rewrite.map(&packet(2, 0), Now(0)).is_none(), "too far back to know");
    }

    #[test]
    fn the_window_agrees_with_a_set_of_all_numbers_however_they_jump() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for round in 0..50 {
            let (mut window, mut used) = (SentWindow::default(), std::collections::HashSet::new());
            let (mut head, mut end) = (next(1 << 15), 0);
            for _ in 0..5_000 {
                head += [0, 1, 1, 1, 2, 63, 64, 65, WINDOW, 1023, 1024, 1025, 5000][next(13) as usize];
                let back = [1, 3, 70, 1100][next(4) as usize];
                let number = head.saturating_sub(next(1 + back));
                let known = number >= end || end - number <= WINDOW;
                let used_before = number < end && used.contains(&number);
                let fresh = known && used.insert(number);
                assert_eq!(window.has(OutboundSeq(number)), known && used_before, "round {round}: {number}");
                assert_eq!(window.mark(OutboundSeq(number)), fresh, "round {round}: {number} with the end at {end}");
                end = end.max(number + 1);
            }
        }
    }
}
