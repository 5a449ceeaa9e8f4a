//! The AV1 aggregation header and the OBU headers behind it (AV1 RTP payload format §4.4, AV1 specification §5.3).

use super::Description;

/// What one payload holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Av1 {
    /// Z: goes on with an OBU of the packet before.
    pub continues: bool,
    /// Y: its last OBU goes on in the next packet.
    pub continued: bool,
    /// N: begins a coded video sequence.
    pub new_sequence: bool,
    /// Holds a sequence header, or the start of one.
    pub sequence_header: bool,
    /// Holds the start of a frame header.
    pub start_of_frame: bool,
    /// Of the first OBU that says.
    pub temporal: Option<u8>,
    /// Of the first OBU that says.
    pub spatial: Option<u8>,
}

impl Av1 {
    /// Reads the headers; `None` when they are cut or contradict each other.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (&head, mut rest) = payload.split_first()?;
        let mut av1 = Self {
            continues: head & 0x80 != 0,
            continued: head & 0x40 != 0,
            new_sequence: head & 0x08 != 0,
            sequence_header: false,
            start_of_frame: false,
            temporal: None,
            spatial: None,
        };
        // §4.4: a new sequence does not begin with the rest of an old OBU.
        if rest.is_empty() || (av1.continues && av1.new_sequence) {
            return None;
        }
        let count = usize::from(head >> 4 & 3);
        let mut index = 0;
        while !rest.is_empty() {
            index += 1;
            // W counts the elements, and the last of a counted list has no length.
            let element = if index == count {
                std::mem::take(&mut rest)
            } else {
                let (length, after) = leb128(rest)?;
                let (element, after) = after.split_at_checked(length)?;
                rest = after;
                element
            };
            if !(index == 1 && av1.continues) {
                av1.obu(element);
            }
        }
        (count == 0 || index == count).then_some(av1)
    }

    /// Begins a coded video sequence.
    pub fn keyframe(&self) -> bool {
        self.new_sequence || self.sequence_header
    }

    /// In the terms of all codecs.
    pub fn describe(&self) -> Description {
        Description {
            keyframe: self.keyframe(),
            start_of_frame: self.start_of_frame,
            temporal: self.temporal,
            spatial: self.spatial,
            switching_point: false,
        }
    }

    fn obu(&mut self, obu: &[u8]) {
        let Some(&header) = obu.first() else { return };
        match header >> 3 & 0x0f {
            OBU_SEQUENCE_HEADER => self.sequence_header = true,
            OBU_FRAME_HEADER | OBU_FRAME => self.start_of_frame = true,
            _ => {}
        }
        let extension = obu.get(1).filter(|_| header & 0x04 != 0);
        if let (Some(extension), None) = (extension, self.temporal) {
            self.temporal = Some(extension >> 5);
            self.spatial = Some(extension >> 3 & 3);
        }
    }
}

/// A length and what follows it (AV1 specification §4.10.5: at most eight bytes).
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(8).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

const OBU_SEQUENCE_HEADER: u8 = 1;
const OBU_FRAME_HEADER: u8 = 3;
const OBU_FRAME: u8 = 6;
