//! What went out to one subscriber lately, by outbound sequence number: enough to send it again on the RTX stream (RFC 4588),
//! with a budget, so that a subscriber that asks for everything costs no more than one that loses something.

use std::time::Duration;

use ringmain_shared::Now;
use ringmain_shared::media::SpatialLayer;

use super::packet::{InboundSeq, OutboundSeq};
use super::vp8::OutboundNumbers;

/// The last packets of one video subscription.
#[derive(Debug)]
pub struct SentHistory {
    entries: Box<[Sent]>,
}

/// One packet as it went out. 24 bytes; the payload is in the layer's cache.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    outbound: u32,
    /// Under which number the layer's cache has it.
    pub inbound: InboundSeq,
    /// Timestamp at the subscriber.
    pub timestamp: u32,
    /// VP8 numbers at the subscriber.
    pub vp8: OutboundNumbers,
    /// Which layer's cache.
    pub layer: SpatialLayer,
    resends: u8,
    resent_ms: u16,
}

/// Packets remembered: two seconds of 4 Mb/s.
const PACKETS: usize = 1024;
/// How often one packet is sent again.
const RESENDS_MAX: u8 = 3;
/// Marks an entry that holds nothing: no outbound number has this low half at this index.
const EMPTY: u32 = u32::MAX;

impl Default for SentHistory {
    fn default() -> Self {
        let empty = Sent {
            outbound: EMPTY,
            inbound: InboundSeq(0),
            timestamp: 0,
            vp8: OutboundNumbers::default(),
            layer: 0,
            resends: 0,
            resent_ms: 0,
        };
        Self { entries: vec![empty; PACKETS].into_boxed_slice() }
    }
}

impl SentHistory {
    /// Remembers a packet that goes out now.
    pub fn record(
        &mut self,
        outbound: OutboundSeq,
        inbound: InboundSeq,
        timestamp: u32,
        vp8: OutboundNumbers,
        layer: SpatialLayer,
    ) {
        if let Some(entry) = self.entries.get_mut(outbound.0 as usize % PACKETS) {
            let outbound = outbound.0 as u32 & !(1 << 31);
            *entry = Sent { outbound, inbound, timestamp, vp8, layer, resends: 0, resent_ms: 0 };
        }
    }

    /// The packet that the subscriber calls `sequence`, if it may be sent again now: at most three times, and not again
    /// within a round trip.
    pub fn may_resend(&self, sequence: u16, round_trip: Duration, now: Now) -> Option<Sent> {
        let entry = self.entries.get(usize::from(sequence) % PACKETS)?;
        if entry.outbound == EMPTY || entry.outbound as u16 != sequence || entry.resends >= RESENDS_MAX {
            return None;
        }
        let now_ms = now.as_millis() as u16;
        let cooldown = round_trip.max(COOLDOWN_MIN).as_millis().min(1000) as u16;
        if entry.resends > 0 && now_ms.wrapping_sub(entry.resent_ms) < cooldown {
            return None;
        }
        Some(*entry)
    }

    /// It was sent again.
    pub fn note_resent(&mut self, sequence: u16, now: Now) {
        if let Some(entry) = self.entries.get_mut(usize::from(sequence) % PACKETS) {
            entry.resends += 1;
            entry.resent_ms = now.as_millis() as u16;
        }
    }
}

const COOLDOWN_MIN: Duration = Duration::from_millis(20);

/// What resending may take of a subscriber's rate: a quarter of what it was sent, and at least 64 kb/s.
#[derive(Debug, Default)]
pub struct ResendBudget {
    bytes: u64,
    filled: Now,
}

/// The budget's floor, bytes per second.
const FLOOR_PER_SECOND: u64 = 64_000 / 8;
/// What may be saved up: half a second of a 4 Mb/s stream.
const SAVED_MAX: u64 = 256 * 1024;
/// One byte of resending is earned by this many bytes of media.
const SHARE: u64 = 4;

impl ResendBudget {
    /// Media of this many bytes was sent.
    pub fn earn(&mut self, bytes: usize) {
        self.bytes = (self.bytes + bytes as u64 / SHARE).min(SAVED_MAX);
    }

    /// May this many bytes be sent again?
    pub fn spend(&mut self, bytes: usize, now: Now) -> bool {
        let floor = now.since(self.filled).as_millis() as u64 * FLOOR_PER_SECOND / 1000;
        if floor > 0 {
            self.bytes = (self.bytes + floor).min(SAVED_MAX);
            self.filled = now;
        }
        let enough = self.bytes >= bytes as u64;
        if enough {
            self.bytes -= bytes as u64;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(history: &mut SentHistory, outbound: u64) {
        history.record(OutboundSeq(outbound), InboundSeq(outbound + 7), 0, OutboundNumbers::default(), 0);
    }

    fn resend(history: &mut SentHistory, sequence: u16, round_trip: Duration, now: Now) -> Option<Sent> {
        let sent = history.may_resend(sequence, round_trip, now)?;
        history.note_resent(sequence, now);
        Some(sent)
    }

    #[test]
    fn a_packet_is_sent_again_three_times_and_not_within_a_round_trip() {
        let mut history = SentHistory::default();
        record(&mut history, 70_000);
        let (sequence, trip) = (70_000u64 as u16, Duration::from_millis(50));
        assert_eq!(
            resend(&mut history, sequence, trip, Now::from_millis(0)).map(|sent| sent.inbound),
            Some(InboundSeq(70_007))
        );
        assert!(resend(&mut history, sequence, trip, Now::from_millis(49)).is_none());
        assert!(resend(&mut history, sequence, trip, Now::from_millis(50)).is_some());
        assert!(resend(&mut history, sequence, trip, Now::from_millis(100)).is_some());
        assert!(resend(&mut history, sequence, trip, Now::from_millis(500)).is_none());
    }

    #[test]
    fn what_never_went_out_or_long_ago_is_not_sent_again() {
        let mut history = SentHistory::default();
        assert!(resend(&mut history, 0xffff, Duration::ZERO, Now(0)).is_none());
        record(&mut history, 10);
        record(&mut history, 10 + PACKETS as u64);
        assert!(resend(&mut history, 10, Duration::ZERO, Now(0)).is_none());
    }

    #[test]
    fn resending_stays_within_a_quarter_of_the_media_and_the_floor() {
        let mut budget = ResendBudget::default();
        let (mut media, mut resent) = (0u64, 0u64);
        for ms in 0..60_000 {
            budget.earn(500);
            media += 500;
            while budget.spend(1200, Now::from_millis(ms)) {
                resent += 1200;
            }
        }
        assert!(resent <= media / 4 + 60 * FLOOR_PER_SECOND + 1200, "{resent} of {media}");
        assert!(resent >= media / 5, "{resent} of {media}");
    }
}
