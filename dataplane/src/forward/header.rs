//! The RTP header that a subscriber gets (RFC 3550 §5.1, RFC 8285): written anew for each packet from what is fixed per
//! subscription and the few values that change.

use ringmain_shared::media::{Extension, ExtensionIds, Mid, PayloadType, Ssrc};

use super::packet::MediaPacket;

/// What changes from packet to packet.
#[derive(Clone, Copy, Debug)]
pub struct HeaderValues<'a> {
    /// RTP marker bit.
    pub marker: bool,
    /// Payload type at the subscriber.
    pub payload_type: PayloadType,
    /// Low half of the outbound sequence number.
    pub sequence: u16,
    /// Timestamp at the subscriber.
    pub timestamp: u32,
    /// SSRC at the subscriber.
    pub ssrc: Ssrc,
    /// Transport-wide sequence number.
    pub transport_sequence: u16,
    /// 6.18 fixed-point seconds, 24 bits.
    pub abs_send_time: [u8; 3],
    /// Dependency descriptor, as the publisher sent it; empty when there is none.
    pub descriptor: &'a [u8],
}

/// The header of one subscription's packets, with what they all have written already: almost every packet takes one copy and a few
/// stores.
#[derive(Clone, Debug)]
pub struct HeaderTemplate {
    ids: ExtensionIds,
    mid: Mid,
    /// Fixed header, extension header and the extensions of every packet, in one-byte form, zeros behind them.
    start: [u8; START_SIZE],
    /// How much of `start` is extensions: where those that only some packets have follow.
    fixed_extensions: u8,
    /// What is written between the extension header and the MID.
    clock: Clock,
}

/// The extension from which a subscriber estimates its bandwidth, always the first one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Clock {
    TransportSequence,
    AbsSendTime,
    None,
}

/// The longest header: fixed part, extension header, and every extension in two-byte form.
pub const HEADER_SIZE_MAX: usize = 12 + 4 + (2 + 16) + (2 + 2) + (2 + 3) + 3 * (2 + 3) + (2 + 255) + 3;

const FIXED: usize = 12;
/// Where extensions begin.
const BODY: usize = FIXED + 4;
/// The longest start: an absolute send time and a MID, padded.
const START_SIZE: usize = (BODY + (1 + 3) + (1 + 16)).next_multiple_of(4);
const ONE_BYTE: u16 = 0xbede;
const TWO_BYTE: u16 = 0x1000;

impl HeaderTemplate {
    /// `ids` as negotiated with the subscriber; `mid` of the m-section.
    pub fn new(ids: ExtensionIds, mid: Mid) -> Self {
        let mut start = [0; START_SIZE];
        start[0] = 0x80;
        let (head, body) = start.split_at_mut(BODY);
        let mut writer = Writer { body, at: 0, two_byte: false };
        // Absolute send time only where there is no transport-wide number: either is enough to estimate bandwidth from.
        let (clock, clock_id, clock_size) = match (ids.id(Extension::TransportCc), ids.id(Extension::AbsSendTime)) {
            (Some(id), _) => (Clock::TransportSequence, id, 2),
            (None, Some(id)) => (Clock::AbsSendTime, id, 3),
            (None, None) => (Clock::None, 0, 0),
        };
        let written = (clock == Clock::None || writer.put(clock_id, &[0; 3][..clock_size]).is_some())
            && ids
                .id(Extension::Mid)
                .filter(|_| !mid.is_empty())
                .is_none_or(|id| writer.put(id, mid.as_bytes()).is_some());
        debug_assert!(written, "the start has room for its extensions");
        let fixed_extensions = writer.at as u8;
        seal_extensions(head, writer.at, ONE_BYTE);
        Self { ids, mid, start, fixed_extensions, clock }
    }

    /// Whether packets carry a transport-wide sequence number, and so use one up.
    #[inline]
    pub fn has_transport_sequence(&self) -> bool {
        self.clock == Clock::TransportSequence
    }

    /// Writes the header; `None` when `out` is too small. Returns its length, a multiple of four.
    #[inline]
    pub fn write(&self, out: &mut [u8], values: &HeaderValues<'_>, packet: &MediaPacket) -> Option<usize> {
        let start = out.first_chunk_mut::<START_SIZE>()?;
        *start = self.start;
        start[1] = u8::from(values.marker) << 7 | values.payload_type.0;
        start[2..4].copy_from_slice(&values.sequence.to_be_bytes());
        start[4..8].copy_from_slice(&values.timestamp.to_be_bytes());
        start[8..12].copy_from_slice(&values.ssrc.0.to_be_bytes());
        match self.clock {
            Clock::TransportSequence => {
                start[BODY + 1..BODY + 3].copy_from_slice(&values.transport_sequence.to_be_bytes());
            }
            Clock::AbsSendTime => start[BODY + 1..BODY + 4].copy_from_slice(&values.abs_send_time),
            Clock::None => {}
        }
        if values.descriptor.is_empty() && !packet.has_extensions() {
            return Some(header_size(usize::from(self.fixed_extensions)));
        }
        self.write_more(out, values, packet)
    }

    /// The extensions that only some packets have.
    fn write_more(&self, out: &mut [u8], values: &HeaderValues<'_>, packet: &MediaPacket) -> Option<usize> {
        let (head, body) = out.split_at_mut_checked(BODY)?;
        let descriptor = self.ids.id(Extension::DependencyDescriptor).filter(|_| !values.descriptor.is_empty());
        // In one-byte form an element has up to 16 bytes (RFC 8285 §4.2); a packet has one form throughout.
        let two_byte = values.descriptor.len() > 16 && descriptor.is_some();
        let at = if two_byte { 0 } else { usize::from(self.fixed_extensions) };
        let mut writer = Writer { body, at, two_byte };
        if two_byte {
            match self.clock {
                Clock::TransportSequence => {
                    writer.put(self.ids.id(Extension::TransportCc)?, &values.transport_sequence.to_be_bytes())?;
                }
                Clock::AbsSendTime => writer.put(self.ids.id(Extension::AbsSendTime)?, &values.abs_send_time)?,
                Clock::None => {}
            }
            if let Some(id) = self.ids.id(Extension::Mid) {
                writer.put(id, self.mid.as_bytes())?;
            }
        }
        if let (Some(level), Some(id)) = (packet.audio_level, self.ids.id(Extension::AudioLevel)) {
            writer.put(id, &[level])?;
        }
        if let (Some(orientation), Some(id)) = (packet.orientation, self.ids.id(Extension::VideoOrientation)) {
            writer.put(id, &[orientation])?;
        }
        if let (Some(delay), Some(id)) = (packet.playout_delay, self.ids.id(Extension::PlayoutDelay)) {
            writer.put(id, &delay)?;
        }
        if let Some(id) = descriptor {
            writer.put(id, values.descriptor)?;
        }
        let Writer { body, at, two_byte } = writer;
        body.get_mut(at..at.next_multiple_of(4))?.fill(0);
        seal_extensions(head, at, if two_byte { TWO_BYTE } else { ONE_BYTE });
        Some(header_size(at))
    }
}

/// Bytes of a header with `extensions` bytes of extensions.
fn header_size(extensions: usize) -> usize {
    if extensions == 0 { FIXED } else { BODY + extensions.next_multiple_of(4) }
}

/// Says in a header what kind of extensions follow, and how many words of them, if any.
fn seal_extensions(head: &mut [u8], extensions: usize, profile: u16) {
    if let ([first, .., a, b, c, d], true) = (head, extensions > 0) {
        *first |= 0x10;
        [*a, *b] = profile.to_be_bytes();
        [*c, *d] = (extensions.div_ceil(4) as u16).to_be_bytes();
    }
}

struct Writer<'a> {
    body: &'a mut [u8],
    at: usize,
    two_byte: bool,
}

impl Writer<'_> {
    /// Adds an element; in one-byte form its length is 1–16 (RFC 8285 §4.2). An id above 14 is never negotiated by us.
    fn put(&mut self, id: u8, value: &[u8]) -> Option<()> {
        let head = if self.two_byte { 2 } else { 1 };
        let room = self.body.get_mut(self.at..self.at + head + value.len())?;
        let (start, body) = room.split_at_mut(head);
        match start {
            [one] => *one = id << 4 | (value.len() as u8).wrapping_sub(1) & 0xf,
            [first, second] => (*first, *second) = (id, value.len() as u8),
            _ => return None,
        }
        body.copy_from_slice(value);
        self.at += head + value.len();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(of: &[(Extension, u8)]) -> ExtensionIds {
        let mut ids = ExtensionIds::default();
        of.iter().for_each(|&(extension, id)| ids.set(extension, id));
        ids
    }

    fn values(descriptor: &[u8]) -> HeaderValues<'_> {
        HeaderValues {
            marker: true,
            payload_type: PayloadType(96),
            sequence: 0x1234,
            timestamp: 0x55667788,
            ssrc: Ssrc(0x99aabbcc),
            transport_sequence: 0x0102,
            abs_send_time: [3, 4, 5],
            descriptor,
        }
    }

    #[test]
    fn a_header_without_extensions_is_twelve_bytes() {
        let template = HeaderTemplate::new(ExtensionIds::default(), Mid::new());
        let mut out = [0xa5; HEADER_SIZE_MAX];
        assert_eq!(template.write(&mut out, &values(&[]), &MediaPacket::default()), Some(12));
        assert_eq!(out[..12], [0x80, 0xe0, 0x12, 0x34, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc]);
    }

    #[test]
    fn extensions_are_in_one_byte_form_and_padded_with_zeros() {
        let template = HeaderTemplate::new(
            ids(&[(Extension::Mid, 4), (Extension::TransportCc, 3), (Extension::AudioLevel, 1)]),
            Mid::from("1").unwrap(),
        );
        let mut out = [0xa5; HEADER_SIZE_MAX];
        let packet = MediaPacket { audio_level: Some(0x85), ..MediaPacket::default() };
        assert_eq!(template.write(&mut out, &values(&[]), &packet), Some(24));
        assert_eq!(out[12..24], [0xbe, 0xde, 0, 2, 0x31, 1, 2, 0x40, b'1', 0x10, 0x85, 0]);
    }

    #[test]
    fn a_long_descriptor_asks_for_two_byte_form() {
        let template = HeaderTemplate::new(ids(&[(Extension::DependencyDescriptor, 7)]), Mid::new());
        let mut out = [0xa5; HEADER_SIZE_MAX];
        assert_eq!(template.write(&mut out, &values(&[9; 40]), &MediaPacket::default()), Some(12 + 4 + 44));
        assert_eq!(out[12..18], [0x10, 0, 0, 11, 7, 40]);
    }

    #[test]
    fn no_room_is_not_a_panic() {
        let template = HeaderTemplate::new(ids(&[(Extension::DependencyDescriptor, 7)]), Mid::new());
        let mut out = [0; HEADER_SIZE_MAX];
        for size in 0..60 {
            assert_eq!(template.write(&mut out[..size], &values(&[9; 40]), &MediaPacket::default()), None);
        }
        assert!(template.write(&mut out, &values(&[9; 255]), &MediaPacket::default()).is_some());
    }
}
