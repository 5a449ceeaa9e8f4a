//! The packets of one batch and track, looked up once for all subscribers, and evened out.
//!
//! Senders split a frame into packets that differ by a byte, the longer ones last. A train has segments of one size of which only
//! the last may be shorter (`UDP_SEGMENT`), so that each step up would cost a train more, for each subscriber. RTP padding
//! (RFC 3550 §5.1) of a byte or two makes one train of them. It goes behind the payload in the cache, is the same for everybody,
//! never makes a packet longer than its neighbour, is not counted in sender reports (RFC 3550 §6.4.1), and is left out when a packet
//! is sent again (RFC 4588 §4).

use std::ops::Range;

use ringmain_shared::media::SpatialLayer;

use super::packet::MediaPacket;

/// A packet that is about to be forwarded.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Which layer's cache has it.
    pub spatial: SpatialLayer,
    /// The publisher began again with it.
    pub restarted: bool,
    /// What it is; for one that carries nothing, only its number.
    pub packet: MediaPacket,
    /// Where in the cache its bytes are, without padding; `None` when it carries nothing.
    pub place: Option<Range<usize>>,
    /// Bytes of padding behind them.
    pub padding: u8,
}

/// Padding of one packet, and bytes that the cache keeps free behind each for it.
pub const PADDING_MAX: usize = 4;

impl Ready {
    /// Its bytes and its padding.
    pub fn padded_place(&self) -> Option<Range<usize>> {
        let place = self.place.clone()?;
        Some(place.start..place.end + usize::from(self.padding))
    }

    /// Whether its header is as long as another's, for every subscriber that gets both.
    fn is_like(&self, other: &Self) -> bool {
        let shape = |ready: &Self| {
            let MediaPacket { descriptor_len, audio_level, orientation, playout_delay, .. } = ready.packet;
            let extensions = (audio_level.is_some(), orientation.is_some(), playout_delay.is_some());
            (ready.spatial, ready.place.is_some(), descriptor_len, extensions)
        };
        shape(self) == shape(other)
    }

    fn len(&self) -> u16 {
        self.packet.payload_len
    }
}

/// Says how much padding each packet gets.
pub fn even_out(mut ready: &mut [Ready]) {
    while let Some((longest, run)) = longest_run(ready) {
        let (even, rest) = std::mem::take(&mut ready).split_at_mut(run);
        // The last of a train may be shorter.
        for packet in even.iter_mut().rev().skip(1).filter(|packet| packet.place.is_some()) {
            packet.padding = (longest - packet.len()) as u8;
        }
        ready = rest;
    }
}

/// How many packets at the beginning can be made as long as the longest of them, and how long that is.
fn longest_run(ready: &[Ready]) -> Option<(u16, usize)> {
    let first = ready.first()?;
    let (mut shortest, mut longest) = (first.len(), first.len());
    for (at, packet) in ready.iter().enumerate() {
        let (low, high) = (shortest.min(packet.len()), longest.max(packet.len()));
        if !packet.is_like(first) || usize::from(high - low) > PADDING_MAX {
            return Some((longest, at));
        }
        (shortest, longest) = (low, high);
    }
    Some((longest, ready.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sizes: &[u16]) -> Vec<Ready> {
        let ready = |&payload_len: &u16| Ready {
            spatial: 0,
            restarted: false,
            packet: MediaPacket { payload_len, ..MediaPacket::default() },
            place: (payload_len > 0).then_some(0..usize::from(payload_len)),
            padding: 0,
        };
        sizes.iter().map(ready).collect()
    }

    fn evened(sizes: &[u16]) -> Vec<u16> {
        let mut ready = frame(sizes);
        even_out(&mut ready);
        ready.iter().map(|packet| packet.padded_place().map_or(0, |place| place.len() as u16)).collect()
    }

    #[test]
    fn packets_that_differ_by_a_byte_become_one_train() {
        assert_eq!(evened(&[1099, 1099, 1099, 1100, 1100]), [1100; 5]);
        assert_eq!(evened(&[1100, 1099, 1100, 1098]), [1100, 1100, 1100, 1098], "the last may be shorter");
    }

    #[test]
    fn packets_of_other_sizes_stay_as_they_are() {
        assert_eq!(evened(&[]), []);
        assert_eq!(evened(&[80]), [80]);
        assert_eq!(evened(&[1100, 1100, 300, 1100, 1101]), [1100, 1100, 300, 1101, 1101]);
        assert_eq!(evened(&[100, 110, 120]), [100, 110, 120]);
    }

    #[test]
    fn what_has_another_header_or_carries_nothing_is_not_padded_to() {
        assert_eq!(evened(&[1, 0, 2, 3]), [1, 0, 3, 3]);
        let mut ready = frame(&[1099, 1099, 1100]);
        ready[2].packet.orientation = Some(1);
        even_out(&mut ready);
        assert!(ready.iter().all(|packet| packet.padding == 0));
        ready[2] = Ready { spatial: 1, ..frame(&[1100]).remove(0) };
        even_out(&mut ready);
        assert!(ready.iter().all(|packet| packet.padding == 0));
    }
}
