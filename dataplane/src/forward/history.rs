//! What went out to one subscriber lately, by outbound sequence number: enough to send it again on the RTX stream (RFC 4588),
//! with a budget, so that a subscriber that asks for everything costs no more than one that loses something.

use std::time::Duration;

use ringmain_shared::Now;
use ringmain_shared::media::SpatialLayer;

use super::packet::{InboundSeq, OutboundSeq};
use super::vp8::OutboundNumbers;
use crate::buf::prefetch_element;

/// The last packets of one video subscription. Has no memory before [`begin`](Self::begin): ten thousand subscriptions of which
/// nothing is sent cost next to nothing.
#[derive(Debug, Default)]
pub struct SentHistory {
    entries: Box<[Sent]>,
}

/// One packet as it went out. 16 bytes; the payload is in the layer's cache.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Under which number the layer's cache has it, the low half.
    pub inbound: u32,
    /// Timestamp at the subscriber.
    pub timestamp: u32,
    sequence: u16,
    picture_id: u16,
    tl0: u8,
    /// Which layer's cache, above how often it was sent again.
    layer_and_resends: u8,
    resent_ms: u16,
}

const _: () = assert!(size_of::<Sent>() == 16, "four to a cache line, none across two");

/// Packets remembered: two seconds of 4 Mb/s.
const PACKETS: usize = 1024;
/// How often one packet is sent again.
const RESENDS_MAX: u8 = 3;
/// Holds nothing, and may not be sent again.
const EMPTY: Sent =
    Sent { inbound: 0, timestamp: 0, sequence: 0, picture_id: 0, tl0: 0, layer_and_resends: RESENDS_MAX, resent_ms: 0 };
/// The bits of `layer_and_resends` that count.
const RESENDS: u8 = 0xf;

impl Sent {
    /// VP8 numbers at the subscriber.
    pub fn vp8(&self) -> OutboundNumbers {
        OutboundNumbers { picture_id: self.picture_id, tl0: self.tl0 }
    }

    /// Which layer's cache.
    pub fn layer(&self) -> SpatialLayer {
        self.layer_and_resends >> 4
    }

    fn resends(&self) -> u8 {
        self.layer_and_resends & RESENDS
    }
}

impl SentHistory {
    /// Packets are about to go out: takes the memory for them, once.
    pub fn begin(&mut self) {
        if self.entries.is_empty() {
            self.entries = vec![EMPTY; PACKETS].into_boxed_slice();
        }
    }

    /// Remembers a packet that goes out now.
    #[inline]
    pub fn record(
        &mut self,
        outbound: OutboundSeq,
        inbound: InboundSeq,
        timestamp: u32,
        vp8: OutboundNumbers,
        layer: SpatialLayer,
    ) {
        if let Some(entry) = self.entries.get_mut(outbound.0 as usize % PACKETS) {
            *entry = Sent {
                inbound: inbound.0 as u32,
                timestamp,
                sequence: outbound.header(),
                picture_id: vp8.picture_id,
                tl0: vp8.tl0,
                layer_and_resends: layer << 4,
                resent_ms: 0,
            };
        }
    }

    /// The packet of this number goes out soon.
    #[inline]
    pub fn expect(&self, outbound: OutboundSeq) {
        prefetch_element(&self.entries, outbound.0 as usize % PACKETS);
    }

    /// The packet that the subscriber calls `sequence`, if it may be sent again now: at most three times, and not again
    /// within a round trip.
    pub fn may_resend(&self, sequence: u16, round_trip: Duration, now: Now) -> Option<Sent> {
        let entry = self.entries.get(usize::from(sequence) % PACKETS)?;
        if entry.sequence != sequence || entry.resends() >= RESENDS_MAX {
            return None;
        }
        let now_ms = now.as_millis() as u16;
        let cooldown = round_trip.max(COOLDOWN_MIN).as_millis().min(1000) as u16;
        if entry.resends() > 0 && now_ms.wrapping_sub(entry.resent_ms) < cooldown {
            return None;
        }
        Some(*entry)
    }

    /// It was sent again.
    pub fn note_resent(&mut self, sequence: u16, now: Now) {
        if let Some(entry) = self.entries.get_mut(usize::from(sequence) % PACKETS) {
            entry.layer_and_resends += 1;
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
        history.begin();
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
        assert_eq!(resend(&mut history, sequence, trip, Now::from_millis(0)).map(|sent| sent.inbound), Some(70_007));
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
