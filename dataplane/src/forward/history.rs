//! What went out to one subscriber lately, by outbound sequence number: enough to send it again on the RTX stream (RFC 4588),
//! with a budget, so that a subscriber that asks for everything costs no more than one that loses something.
//!
//! Nothing is written for a packet. A subscriber's numbers run along with the publisher's until something is left out or another layer
//! goes out: a run of packets has its shifts in common, and the layer's cache has the rest. One entry for each packet instead, 16 bytes
//! each, had every subscriber write to two or three cache lines a frame that no core had seen for a second: 15 ns a packet.

use std::time::Duration;

use ringmain_shared::Now;
use ringmain_shared::media::SpatialLayer;

use super::packet::{InboundSeq, MediaPacket, OutboundSeq};
use super::vp8::OutboundNumbers;

/// The last packets of one video subscription. Has no memory before [`begin`](Self::begin): ten thousand subscriptions of which
/// nothing is sent cost next to nothing.
#[derive(Debug, Default)]
pub struct SentHistory {
    newest: Run,
    /// Those before the newest, the oldest overwritten first.
    former: Box<[Run]>,
    /// Where the next one of those goes.
    next: usize,
    /// What was sent again; packet n of the outbound numbers is in `resent[n % PACKETS]`.
    resent: Box<[Resent]>,
}

/// Packets remembered: two seconds of 4 Mb/s.
const PACKETS: usize = 1024;
/// Runs remembered besides the newest: as many seconds of a stream from which every other frame is left out.
const RUNS: usize = 64;
/// How often one packet is sent again.
const RESENDS_MAX: u32 = 3;

/// Packets from the first to the last of which every number that went out is shifted alike.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u64,
    /// One above the last.
    end: u64,
    shifts: Shifts,
}

/// How far the publisher's numbers are from the subscriber's, all of them wrapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Shifts {
    /// Inbound minus outbound.
    sequence: u64,
    /// Outbound minus inbound, and so are the others.
    timestamp: u32,
    /// In as many bits as the publisher's have.
    picture_id: u16,
    tl0: u8,
    /// Which layer's cache.
    layer: SpatialLayer,
}

/// How often the last packet of this place was sent again, in two bits, with which packet it was above them; and when that was last.
#[derive(Clone, Copy, Debug, Default)]
struct Resent {
    packet_and_count: u32,
    at_ms: u16,
}

const COUNT_BITS: u32 = 2;
const _: () = assert!(RESENDS_MAX < 1 << COUNT_BITS);

/// A packet that may be sent again.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Under which number the layer's cache has it.
    pub inbound: InboundSeq,
    /// Under which it went out, if it did: a run may have gaps.
    pub outbound: OutboundSeq,
    shifts: Shifts,
}

impl Sent {
    /// Which layer's cache.
    pub fn layer(&self) -> SpatialLayer {
        self.shifts.layer
    }

    /// Timestamp at the subscriber.
    pub fn timestamp(&self, packet: &MediaPacket) -> u32 {
        packet.timestamp.wrapping_add(self.shifts.timestamp)
    }

    /// VP8 numbers at the subscriber.
    pub fn vp8(&self, packet: &MediaPacket) -> OutboundNumbers {
        let Some(numbers) = packet.vp8 else { return OutboundNumbers::default() };
        OutboundNumbers {
            picture_id: numbers.picture_id.wrapping_add(self.shifts.picture_id),
            tl0: numbers.tl0.map_or(0, |(tl0, _)| tl0.wrapping_add(self.shifts.tl0)),
        }
    }
}

impl Shifts {
    #[inline]
    fn of(
        packet: &MediaPacket,
        outbound: OutboundSeq,
        timestamp: u32,
        vp8: OutboundNumbers,
        layer: SpatialLayer,
    ) -> Self {
        let (picture_id, tl0) = packet.vp8.map_or((0, 0), |numbers| {
            let mask = if numbers.picture_id_long { 0x7fff } else { 0x7f };
            let tl0 = numbers.tl0.map_or(0, |(tl0, _)| vp8.tl0.wrapping_sub(tl0));
            (vp8.picture_id.wrapping_sub(numbers.picture_id) & mask, tl0)
        });
        let sequence = packet.sequence.0.wrapping_sub(outbound.0);
        Self { sequence, timestamp: timestamp.wrapping_sub(packet.timestamp), picture_id, tl0, layer }
    }
}

impl Run {
    fn of(outbound: OutboundSeq, shifts: Shifts) -> Self {
        Self { first: outbound.0, end: outbound.0 + 1, shifts }
    }

    #[inline]
    fn stretch(&mut self, outbound: OutboundSeq) {
        self.first = self.first.min(outbound.0);
        self.end = self.end.max(outbound.0 + 1);
    }

    fn has(&self, outbound: u64) -> bool {
        (self.first..self.end).contains(&outbound)
    }
}

impl Default for Run {
    /// No packet, wherever the first one will be.
    fn default() -> Self {
        Self { first: u64::MAX, end: 0, shifts: Shifts::default() }
    }
}

impl SentHistory {
    /// Packets are about to go out: takes the memory for them, once.
    pub fn begin(&mut self) {
        if self.former.is_empty() {
            self.former = vec![Run::default(); RUNS].into_boxed_slice();
            self.resent = vec![Resent::default(); PACKETS].into_boxed_slice();
        }
    }

    /// Remembers a packet that goes out now, under these numbers.
    #[inline]
    pub fn record(
        &mut self,
        packet: &MediaPacket,
        outbound: OutboundSeq,
        timestamp: u32,
        vp8: OutboundNumbers,
        layer: SpatialLayer,
    ) {
        let shifts = Shifts::of(packet, outbound, timestamp, vp8, layer);
        if self.newest.shifts == shifts {
            self.newest.stretch(outbound);
        } else {
            self.record_other(outbound, shifts);
        }
    }

    /// A run begins, or a packet comes late that belongs to one before.
    fn record_other(&mut self, outbound: OutboundSeq, shifts: Shifts) {
        if outbound.0 >= self.newest.end {
            let former = std::mem::replace(&mut self.newest, Run::of(outbound, shifts));
            self.keep(former);
        } else if let Some(run) = self.former.iter_mut().find(|run| run.shifts == shifts) {
            run.stretch(outbound);
        } else {
            self.keep(Run::of(outbound, shifts));
        }
    }

    fn keep(&mut self, run: Run) {
        if let Some(place) = self.former.get_mut(self.next) {
            *place = run;
            self.next = (self.next + 1) % RUNS;
        }
    }

    /// The packet that the subscriber calls `sequence`, if it may be sent again now: at most three times, and not again
    /// within a round trip. Whether it went out at all, [`Rewrite`](super::rewrite::Rewrite) knows.
    pub fn may_resend(&self, sequence: u16, round_trip: Duration, now: Now) -> Option<Sent> {
        let last = self.newest.end.checked_sub(1)?;
        let back = (last as u16).wrapping_sub(sequence);
        let outbound = last.checked_sub(u64::from(back)).filter(|_| usize::from(back) < PACKETS)?;
        let resent = self.resent.get(outbound as usize % PACKETS)?;
        let now_ms = now.as_millis() as u16;
        let cooldown = round_trip.max(COOLDOWN_MIN).as_millis().min(1000) as u16;
        let count = resent.count(outbound);
        if count >= RESENDS_MAX || (count > 0 && now_ms.wrapping_sub(resent.at_ms) < cooldown) {
            return None;
        }
        let run = std::iter::once(&self.newest).chain(&self.former).find(|run| run.has(outbound))?;
        let inbound = InboundSeq(outbound.wrapping_add(run.shifts.sequence));
        Some(Sent { inbound, outbound: OutboundSeq(outbound), shifts: run.shifts })
    }

    /// It was sent again.
    pub fn note_resent(&mut self, sent: &Sent, now: Now) {
        let outbound = sent.outbound.0;
        if let Some(resent) = self.resent.get_mut(outbound as usize % PACKETS) {
            let count = resent.count(outbound) + 1;
            *resent = Resent { packet_and_count: Resent::packet(outbound) | count, at_ms: now.as_millis() as u16 };
        }
    }
}

impl Resent {
    /// How often this packet was sent again.
    fn count(&self, outbound: u64) -> u32 {
        let is_it = self.packet_and_count & !(RESENDS_COUNT) == Self::packet(outbound);
        if is_it { self.packet_and_count & RESENDS_COUNT } else { 0 }
    }

    fn packet(outbound: u64) -> u32 {
        (outbound as u32) << COUNT_BITS
    }
}

/// The bits that count.
const RESENDS_COUNT: u32 = (1 << COUNT_BITS) - 1;

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
    use crate::forward::packet::Vp8Numbers;
    use crate::forward::rewrite::Rewrite;
    use crate::forward::vp8::{PictureNumbers, write_numbers};

    fn record(history: &mut SentHistory, outbound: u64) {
        history.begin();
        let packet = MediaPacket { sequence: InboundSeq(outbound + 7), ..MediaPacket::default() };
        history.record(&packet, OutboundSeq(outbound), 0, OutboundNumbers::default(), 0);
    }

    fn resend(history: &mut SentHistory, sequence: u16, round_trip: Duration, now: Now) -> Option<Sent> {
        let sent = history.may_resend(sequence, round_trip, now)?;
        history.note_resent(&sent, now);
        Some(sent)
    }

    #[test]
    fn a_packet_is_sent_again_three_times_and_not_within_a_round_trip() {
        let mut history = SentHistory::default();
        record(&mut history, 70_000);
        let (sequence, trip) = (70_000u64 as u16, Duration::from_millis(50));
        let inbound = |sent: Option<Sent>| sent.map(|sent| sent.inbound);
        assert_eq!(inbound(resend(&mut history, sequence, trip, Now::from_millis(0))), Some(InboundSeq(70_007)));
        assert!(resend(&mut history, sequence, trip, Now::from_millis(49)).is_none());
        assert!(resend(&mut history, sequence, trip, Now::from_millis(50)).is_some());
        assert!(resend(&mut history, sequence, trip, Now::from_millis(100)).is_some());
        assert!(resend(&mut history, sequence, trip, Now::from_millis(500)).is_none());
        record(&mut history, 70_000 + PACKETS as u64);
        let sequence = sequence.wrapping_add(PACKETS as u16);
        assert!(resend(&mut history, sequence, trip, Now::from_millis(501)).is_some(), "another of the same place");
    }

    #[test]
    fn what_never_went_out_or_long_ago_is_not_sent_again() {
        let mut history = SentHistory::default();
        assert!(resend(&mut history, 0xffff, Duration::ZERO, Now(0)).is_none());
        record(&mut history, 10);
        assert!(resend(&mut history, 9, Duration::ZERO, Now(0)).is_none());
        assert!(resend(&mut history, 11, Duration::ZERO, Now(0)).is_none());
        record(&mut history, 10 + PACKETS as u64);
        assert!(resend(&mut history, 10, Duration::ZERO, Now(0)).is_none());
    }

    /// As a subscription does it: numbers of its own, frames left out, packets lost and late, layers that change.
    #[test]
    fn whatever_went_out_lately_is_known_as_it_was_and_what_was_left_out_is_not_mistaken_for_it() {
        for round in 0..100 {
            let mut random = 0x9e37_79b9_7f4a_7c15_u64 + round;
            let mut next = move |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let (mut rewrite, mut pictures) =
                (Rewrite::new(90_000, next(u64::MAX)), PictureNumbers::new(next(u64::MAX)));
            let (mut history, mut sent) = (SentHistory::default(), std::collections::BTreeMap::new());
            history.begin();
            let (long, mut layer, mut head) = (round % 2 == 0, 0, 1_000 + next(1 << 20));
            let mut late = Vec::new();
            for step in 0..3_000u64 {
                if step == 0 || next(700) == 0 {
                    (layer, head) = (next(3) as u8, head + next(100_000));
                    late.clear();
                    rewrite.restart(&at(head, long), None, Now::from_millis(step));
                    pictures.restart();
                }
                let packet = if late.is_empty() || next(3) > 0 { at(head, long) } else { late.remove(0) };
                if packet.sequence.0 == head {
                    head += 1;
                    if next(10) == 0 && late.len() < 8 {
                        late.push(packet);
                        continue;
                    }
                }
                // Every fourth frame is one of a temporal layer that this subscriber does not get.
                if packet.sequence.0 / 3 % 4 == 3 {
                    rewrite.skip(packet.sequence);
                    pictures.skip(packet.vp8.expect("set"));
                    continue;
                }
                let Some((outbound, timestamp)) = rewrite.map(&packet, Now::from_millis(step)) else { continue };
                let Some(vp8) = pictures.map(packet.vp8.expect("set")) else { continue };
                history.record(&packet, outbound, timestamp, vp8, layer);
                sent.insert(outbound.0, (packet, timestamp, written(&packet, vp8), layer));
                let end = sent.last_key_value().map_or(0, |(&last, _)| last + 1);
                for back in [1, 2, 3, 1 + next(40), 1 + next(900)] {
                    let Some(number) = end.checked_sub(back) else { continue };
                    let found = history.may_resend(number as u16, Duration::ZERO, Now(0));
                    let found = found.filter(|found| rewrite.has_sent(found.outbound));
                    match (sent.get(&number), found) {
                        (Some(&(packet, timestamp, vp8, layer)), Some(found)) => {
                            let numbers = written(&packet, found.vp8(&packet));
                            let as_found = (found.inbound, found.timestamp(&packet), numbers, found.layer());
                            assert_eq!(as_found, (packet.sequence, timestamp, vp8, layer), "round {round}: {number}");
                        }
                        (None, None) => {}
                        (None, Some(_)) => panic!("round {round}: {number} never went out"),
                        (Some(_), None) => assert!(back > 500, "round {round}: {number} of {end} is forgotten"),
                    }
                }
            }
            assert!(sent.len() > 1_000);
        }
    }

    /// Packets of which three make a frame.
    fn at(sequence: u64, long: bool) -> MediaPacket {
        let (frame, bits) = (sequence / 3, if long { 15 } else { 7 });
        let vp8 = Vp8Numbers {
            picture_id: (frame & ((1 << bits) - 1)) as u16,
            picture_id_at: 0,
            picture_id_long: long,
            tl0: Some(((frame / 4) as u8, 2)),
        };
        let timestamp = (frame * 3_000) as u32;
        MediaPacket { sequence: InboundSeq(sequence), timestamp, vp8: Some(vp8), ..MediaPacket::default() }
    }

    /// Numbers as they stand in the packet.
    fn written(packet: &MediaPacket, numbers: OutboundNumbers) -> [u8; 3] {
        let mut bytes = [0; 3];
        write_numbers(&mut bytes, packet, numbers);
        bytes
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
