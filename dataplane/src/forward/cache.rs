//! What a layer sent lately, in plain text, once for all its subscribers: forwarding reads it in the same turn,
//! retransmission (RFC 4588) later. Owns a byte arena used round and round, and an index by sequence number.
//! Never sees keys, subscribers or clocks.

use std::ops::Range;

use super::packet::{InboundSeq, MediaPacket};
use super::ready::PADDING_MAX;

/// The packets of one layer, the oldest overwritten first.
///
/// Both parts are rings: `slots` holds a fixed number of packets by sequence number, `arena` their payloads.
/// The arena is allocated whole but touched only as packets come, so a layer that never sends costs no memory.
/// Numbers that each subscriber has of his own (VP8's) are what was last written over them: whoever sends a packet writes his first.
#[derive(Debug)]
pub struct PacketCache {
    arena: Box<[u8]>,
    /// Bytes written since the beginning; `written % arena.len()` is where the next payload goes.
    written: u64,
    slots: Box<[Slot]>,
}

#[derive(Clone, Debug)]
struct Slot {
    packet: Option<MediaPacket>,
    /// Where the payload begins, counted as `PacketCache::written` counts.
    at: u64,
}

impl PacketCache {
    /// A cache of `packets` (a power of two) packets and `bytes` of their payloads.
    pub fn new(packets: usize, bytes: usize) -> Self {
        let packets = packets.next_power_of_two();
        Self {
            arena: vec![0; bytes].into_boxed_slice(),
            written: 0,
            slots: vec![Slot { packet: None, at: 0 }; packets].into_boxed_slice(),
        }
    }

    /// Keeps a copy of two pieces, one after the other: the dependency descriptor and the payload. Returns false when this sequence
    /// number is kept already (the packet is a duplicate), or when the payload is larger than the arena.
    pub fn insert(&mut self, packet: MediaPacket, (descriptor, payload): (&[u8], &[u8])) -> bool {
        let len = descriptor.len() + payload.len();
        // With room for padding behind it.
        let size = len + PADDING_MAX;
        if size > self.arena.len() {
            return false;
        }
        let index = self.index(packet.sequence.0);
        let Some(slot) = self.slots.get(index) else { return false };
        if slot.packet.is_some_and(|kept| kept.sequence >= packet.sequence) {
            return false;
        }
        let at = self.place(size);
        let start = (at % self.arena.len() as u64) as usize;
        if let Some((first, second)) =
            self.arena.get_mut(start..start + len).and_then(|room| room.split_at_mut_checked(descriptor.len()))
        {
            first.copy_from_slice(descriptor);
            second.copy_from_slice(payload);
        }
        self.written = at + size as u64;
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Slot { packet: Some(packet), at };
        }
        true
    }

    /// The packet with exactly this extended sequence number, if its payload has not been overwritten.
    pub fn get(&self, sequence: InboundSeq) -> Option<(&MediaPacket, &[u8])> {
        let (packet, place) = self.find(sequence)?;
        Some((packet, self.arena.get(place)?))
    }

    /// As [`PacketCache::get`], with the place of the bytes, which [`PacketCache::bytes_mut`] takes until the next `insert`;
    /// also with up to [`PADDING_MAX`] bytes behind them, in which nothing is kept.
    pub fn find(&self, sequence: InboundSeq) -> Option<(&MediaPacket, Range<usize>)> {
        self.look(self.index(sequence.0), |kept| kept.sequence == sequence)
    }

    /// The bytes at a place that `find` gave.
    #[inline]
    pub fn bytes_mut(&mut self, place: Range<usize>) -> Option<&mut [u8]> {
        self.arena.get_mut(place)
    }

    fn look(&self, index: usize, wanted: impl Fn(&MediaPacket) -> bool) -> Option<(&MediaPacket, Range<usize>)> {
        let slot = self.slots.get(index)?;
        let packet = slot.packet.as_ref().filter(|packet| wanted(packet))?;
        let still_there = self.written - slot.at <= self.arena.len() as u64;
        let start = (slot.at % self.arena.len() as u64) as usize;
        still_there.then(|| (packet, start..start + usize::from(packet.payload_len)))
    }

    /// A payload never wraps around the end: the rest of the arena is skipped instead.
    fn place(&self, len: usize) -> u64 {
        let size = self.arena.len() as u64;
        let left = size - self.written % size;
        if (len as u64) <= left { self.written } else { self.written + left }
    }

    fn index(&self, sequence: u64) -> usize {
        sequence as usize & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u64, len: usize) -> MediaPacket {
        MediaPacket { sequence: InboundSeq(sequence), payload_len: len as u16, ..MediaPacket::default() }
    }

    #[test]
    fn a_kept_packet_comes_back_as_it_was_until_it_is_overwritten() {
        let mut cache = PacketCache::new(64, 10_000);
        let mut alive = 0;
        for sequence in 0..1000u64 {
            let payload = vec![sequence as u8; 100 + sequence as usize % 900];
            assert!(cache.insert(packet(sequence, payload.len()), (&[], &payload)));
            alive = 0;
            for back in 0..=sequence.min(100) {
                let Some((kept, bytes)) = cache.get(InboundSeq(sequence - back)) else { continue };
                assert_eq!(kept.sequence.0, sequence - back);
                assert!(bytes.iter().all(|&byte| byte == (sequence - back) as u8));
                assert_eq!(bytes.len(), 100 + (sequence - back) as usize % 900);
                alive += 1;
            }
        }
        assert!(alive >= 9, "an arena of 10 000 bytes keeps at least nine packets, kept {alive}");
    }

    #[test]
    fn a_second_copy_of_a_packet_is_refused() {
        let mut cache = PacketCache::new(64, 10_000);
        assert!(cache.insert(packet(5, 3), (b"a", b"bc")));
        assert!(!cache.insert(packet(5, 3), (b"", b"xyz")));
        assert_eq!(cache.get(InboundSeq(5)).map(|(_, bytes)| bytes), Some(&b"abc"[..]));
    }

    #[test]
    fn a_packet_older_than_what_took_its_place_is_refused() {
        let mut cache = PacketCache::new(64, 10_000);
        assert!(cache.insert(packet(69, 1), (b"", b"n")));
        assert!(!cache.insert(packet(5, 1), (b"", b"o")));
    }
}
