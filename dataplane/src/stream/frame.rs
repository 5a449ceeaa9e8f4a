//! Messages out of a byte stream, and into one. TURN's frame themselves: STUN by its length, ChannelData by its length and padded to
//! four bytes (RFC 8656 §12.5). ICE puts a length of two bytes before each datagram (RFC 4571).
//!
//! A [`Deframer`] keeps one message at most, and only when it came in pieces. One that is too long is passed over: the frame after it
//! is found all the same. Bytes that can be no frame end the connection: nobody knows where the next one would begin.

/// How messages are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// STUN and ChannelData.
    Turn,
    /// RFC 4571.
    Length,
}

/// The stream holds no frame where one should begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Desynchronised;

/// Takes messages out of a byte stream.
#[derive(Debug)]
pub struct Deframer {
    framing: Framing,
    /// The beginning of a message.
    kept: Vec<u8>,
    /// Bytes to pass over, of a message that is too long or of padding.
    skip: usize,
    too_long: u64,
}

enum Look {
    /// So many bytes are needed to know more.
    Needs(usize),
    Frame(Frame),
}

#[derive(Clone, Copy)]
struct Frame {
    /// Bytes before the message.
    lead: usize,
    size: usize,
    padding: usize,
}

impl Deframer {
    /// For a connection from which nothing has been read.
    pub fn new(framing: Framing) -> Self {
        Self { framing, kept: Vec::new(), skip: 0, too_long: 0 }
    }

    /// Takes in what was read, any number of bytes, and hands out every message that is complete, without framing and padding.
    pub fn handle(&mut self, mut bytes: &[u8], mut message: impl FnMut(&[u8])) -> Result<(), Desynchronised> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if bytes.is_empty() && self.kept.is_empty() {
                return Ok(());
            }
            let whole = self.kept.is_empty();
            let needed = match self.framing.look(if whole { bytes } else { &self.kept })? {
                Look::Needs(needed) => needed,
                Look::Frame(frame) if frame.size > self.framing.size_max() => {
                    let seen = if whole { 0 } else { self.kept.len() };
                    self.skip = (frame.lead + frame.size + frame.padding).saturating_sub(seen);
                    self.too_long += 1;
                    self.kept.clear();
                    continue;
                }
                Look::Frame(frame) => {
                    let end = frame.lead + frame.size;
                    let source = if whole { bytes } else { &self.kept };
                    if let Some(content) = source.get(frame.lead..end) {
                        // RFC 4571 §2: an empty frame is nothing.
                        if !content.is_empty() {
                            message(content);
                        }
                        if whole {
                            bytes = bytes.get(end..).unwrap_or_default();
                        }
                        self.kept.clear();
                        self.skip = frame.padding;
                        continue;
                    }
                    end
                }
            };
            // Not all of it is there: keep what is, up to what is needed.
            if bytes.is_empty() {
                return Ok(());
            }
            let more = needed.saturating_sub(self.kept.len()).min(bytes.len());
            let (taken, rest) = bytes.split_at(more);
            self.kept.extend_from_slice(taken);
            bytes = rest;
        }
    }

    /// Messages passed over because they were too long.
    pub fn too_long(&self) -> u64 {
        self.too_long
    }

    /// Nothing has come of the next message.
    #[cfg(test)]
    pub(crate) fn is_between_messages(&self) -> bool {
        self.kept.is_empty() && self.skip == 0
    }
}

impl Framing {
    fn look(self, bytes: &[u8]) -> Result<Look, Desynchronised> {
        match self {
            Framing::Length => Ok(match *bytes {
                [high, low, ..] => {
                    Look::Frame(Frame { lead: 2, size: usize::from(u16::from_be_bytes([high, low])), padding: 0 })
                }
                _ => Look::Needs(2),
            }),
            Framing::Turn => look_turn(bytes),
        }
    }

    /// Bytes of the longest message that is used.
    pub fn size_max(self) -> usize {
        match self {
            Framing::Turn => TURN_MESSAGE_SIZE_MAX,
            Framing::Length => ringmain_shared::limits::DATAGRAM_SIZE_MAX,
        }
    }

    /// Writes a message behind `out` as it goes on the wire. False, and nothing written, when it is too long to be framed.
    pub fn write(self, message: &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            Framing::Turn => {
                out.extend_from_slice(message);
                // Only ChannelData is not a multiple of four by itself.
                out.resize(out.len() + message.len().next_multiple_of(4) - message.len(), 0);
            }
            Framing::Length => {
                let Ok(size) = u16::try_from(message.len()) else { return false };
                out.extend_from_slice(&size.to_be_bytes());
                out.extend_from_slice(message);
            }
        }
        true
    }
}

fn look_turn(bytes: &[u8]) -> Result<Look, Desynchronised> {
    let Some(&[kind, _, high, low]) = bytes.first_chunk() else {
        return match bytes.first() {
            Some(0x00..=0x7f) | None => Ok(Look::Needs(4)),
            Some(_) => Err(Desynchronised),
        };
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    match kind {
        // RFC 8489 §5: the length is in whole words, and the cookie follows.
        0x00..=0x3f if length % 4 != 0 => Err(Desynchronised),
        0x00..=0x3f => match bytes.get(4..8) {
            None => Ok(Look::Needs(8)),
            Some(cookie) if cookie == MAGIC_COOKIE => {
                Ok(Look::Frame(Frame { lead: 0, size: STUN_HEADER_SIZE + length, padding: 0 }))
            }
            Some(_) => Err(Desynchronised),
        },
        // RFC 8656 §12: channel numbers are 0x4000 to 0x4fff; those of RFC 5766 end at 0x7fff.
        0x40..=0x7f => {
            let padding = length.next_multiple_of(4) - length;
            Ok(Look::Frame(Frame { lead: 0, size: CHANNEL_HEADER_SIZE + length, padding }))
        }
        _ => Err(Desynchronised),
    }
}

/// Bytes of the longest STUN or ChannelData message that is used: a datagram with its attributes, or a request whose user name, realm
/// and nonce are as long as they may be (RFC 8489 §14).
pub const TURN_MESSAGE_SIZE_MAX: usize = 4096;

const STUN_HEADER_SIZE: usize = 20;
const CHANNEL_HEADER_SIZE: usize = 4;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
