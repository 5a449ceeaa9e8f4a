//! VP8 picture ids and TL0PICIDX as one subscriber sees them (RFC 7741 §4.2): gapless through layer switches and left-out frames,
//! since decoders take a gap for a loss.

use super::packet::{MediaPacket, Vp8Numbers};
use super::renumber::Renumber;

/// Frame numbering of one VP8 subscription.
#[derive(Debug)]
pub struct PictureNumbers {
    pictures: Renumber,
    /// Picture id of the newest frame seen, extended to 64 bits.
    newest: u64,
    tl0_shift: u8,
    tl0_last: u8,
    /// A switch is due at the next packet.
    restarting: bool,
}

/// What stands in the payload descriptor towards the subscriber.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OutboundNumbers {
    /// PictureID, to be cut to 7 or 15 bits.
    pub picture_id: u16,
    /// TL0PICIDX.
    pub tl0: u8,
}

impl PictureNumbers {
    /// `random` decides where the numbers begin.
    pub fn new(random: u64) -> Self {
        Self {
            pictures: Renumber::new(random & 0x3fff),
            newest: 0,
            tl0_shift: 0,
            tl0_last: (random >> 16) as u8,
            restarting: true,
        }
    }

    /// The next packet comes from another encoder, or after a pause.
    pub fn restart(&mut self) {
        self.restarting = true;
    }

    /// The numbers under which this packet's frame goes out; `None` when the frame is from before the last switch.
    pub fn map(&mut self, numbers: Vp8Numbers) -> Option<OutboundNumbers> {
        if self.restarting {
            self.restarting = false;
            // Far from zero, so that a late frame from before the switch has a number below it.
            self.newest = (1 << 32) + u64::from(numbers.picture_id);
            self.pictures.restart(self.newest);
            let tl0 = numbers.tl0.map_or(0, |(value, _)| value);
            self.tl0_shift = self.tl0_last.wrapping_add(1).wrapping_sub(tl0);
        }
        let picture = self.extend(numbers);
        let picture_id = self.pictures.map(picture)?;
        let tl0 = numbers.tl0.map_or(0, |(value, _)| value.wrapping_add(self.tl0_shift));
        if (tl0.wrapping_sub(self.tl0_last) as i8) > 0 {
            self.tl0_last = tl0;
        }
        Some(OutboundNumbers { picture_id: picture_id as u16, tl0 })
    }

    /// This packet's frame is left out on purpose; said for each of its packets, counted once.
    pub fn skip(&mut self, numbers: Vp8Numbers) {
        if !self.restarting {
            let picture = self.extend(numbers);
            self.pictures.skip(picture);
        }
    }

    fn extend(&mut self, numbers: Vp8Numbers) -> u64 {
        let bits = if numbers.picture_id_long { 15 } else { 7 };
        let modulus = 1u64 << bits;
        let ahead = u64::from(numbers.picture_id).wrapping_sub(self.newest) & (modulus - 1);
        if ahead < modulus / 2 {
            self.newest += ahead;
            self.newest
        } else {
            self.newest - (modulus - ahead)
        }
    }
}

/// Writes `outbound` over the numbers in a VP8 payload.
pub fn write_numbers(payload: &mut [u8], packet: &MediaPacket, outbound: OutboundNumbers) {
    let Some(numbers) = packet.vp8 else { return };
    let at = usize::from(numbers.picture_id_at);
    if numbers.picture_id_long {
        if let Some(room) = payload.get_mut(at..at + 2) {
            room.copy_from_slice(&(outbound.picture_id | 0x8000).to_be_bytes());
        }
    } else if let Some(room) = payload.get_mut(at) {
        *room = outbound.picture_id as u8 & 0x7f;
    }
    if let Some((_, at)) = numbers.tl0
        && let Some(room) = payload.get_mut(usize::from(at))
    {
        *room = outbound.tl0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(picture_id: u16, tl0: u8) -> Vp8Numbers {
        Vp8Numbers { picture_id, picture_id_at: 2, picture_id_long: true, tl0: Some((tl0, 4)) }
    }

    #[test]
    fn picture_ids_run_on_through_a_switch_and_a_wrap() {
        let mut numbers = PictureNumbers::new(9);
        let first = numbers.map(frame(0x7fff, 10)).unwrap();
        let again = numbers.map(frame(0x7fff, 10)).unwrap();
        let second = numbers.map(frame(0, 11)).unwrap();
        assert_eq!(first, again, "packets of one frame share its number");
        assert_eq!(second.picture_id, first.picture_id + 1);
        assert_eq!(second.tl0, first.tl0.wrapping_add(1));
        numbers.restart();
        let third = numbers.map(frame(77, 200)).unwrap();
        assert_eq!(third.picture_id, second.picture_id + 1);
        assert_eq!(third.tl0, second.tl0.wrapping_add(1));
    }

    #[test]
    fn a_frame_left_out_leaves_no_gap_however_many_packets_it_has() {
        let mut numbers = PictureNumbers::new(0);
        let first = numbers.map(frame(5, 1)).unwrap();
        for _ in 0..8 {
            numbers.skip(frame(6, 1));
        }
        let next = numbers.map(frame(7, 1)).unwrap();
        assert_eq!(next.picture_id, first.picture_id + 1);
    }

    #[test]
    fn numbers_are_written_where_they_stood() {
        let packet = MediaPacket { vp8: Some(frame(1, 1)), ..MediaPacket::default() };
        let mut payload = [0xff; 6];
        write_numbers(&mut payload, &packet, OutboundNumbers { picture_id: 0x1234, tl0: 7 });
        assert_eq!(payload, [0xff, 0xff, 0x92, 0x34, 7, 0xff]);
        write_numbers(&mut payload[..2], &packet, OutboundNumbers::default());
    }
}
