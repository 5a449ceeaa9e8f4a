//! The Data Channel Establishment Protocol (RFC 8832): its two messages, between bytes and values.
//! Pure functions. Labels are bounded and UTF-8 before anybody else sees them.

use ringmain_shared::limits::CHANNEL_LABEL_SIZE_MAX;

const OPEN: u8 = 3;
const ACK: u8 = 2;
const UNORDERED: u8 = 0x80;
const HEADER_SIZE: usize = 12;

/// What a channel promises about its messages (RFC 8832 §5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reliability {
    /// Messages arrive in the order they were sent.
    pub ordered: bool,
    /// How hard delivery is tried.
    pub limit: Limit,
}

/// When a message is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// Never.
    Reliable,
    /// After this many retransmissions.
    Retransmits(u32),
    /// After this many milliseconds.
    LifetimeMs(u32),
}

impl Reliability {
    /// Ordered and reliable.
    pub const FULL: Self = Self { ordered: true, limit: Limit::Reliable };
}

/// A DATA_CHANNEL_OPEN message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Open {
    /// What the channel promises.
    pub reliability: Reliability,
    /// Its name, at most `limits::CHANNEL_LABEL_SIZE_MAX` bytes.
    pub label: String,
}

/// One message of the protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Opens the channel of the stream that it came on.
    Open(Open),
    /// The other side has it open too.
    Ack,
}

/// Reads a message; `None` when it is malformed, too long or of an unknown kind.
pub fn parse(bytes: &[u8]) -> Option<Message> {
    match *bytes.first()? {
        ACK => Some(Message::Ack),
        OPEN => parse_open(bytes).map(Message::Open),
        _ => None,
    }
}

fn parse_open(bytes: &[u8]) -> Option<Open> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_SIZE>()?;
    let parameter = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let label_size = usize::from(u16::from_be_bytes([header[8], header[9]]));
    let protocol_size = usize::from(u16::from_be_bytes([header[10], header[11]]));
    if label_size > CHANNEL_LABEL_SIZE_MAX || label_size + protocol_size > rest.len() {
        return None;
    }
    let limit = match header[1] & !UNORDERED {
        0 => Limit::Reliable,
        1 => Limit::Retransmits(parameter),
        2 => Limit::LifetimeMs(parameter),
        _ => return None,
    };
    let label = std::str::from_utf8(rest.get(..label_size)?).ok()?.to_owned();
    Some(Open { reliability: Reliability { ordered: header[1] & UNORDERED == 0, limit }, label })
}

/// Writes a DATA_CHANNEL_OPEN with an empty protocol and normal priority.
pub fn open(label: &str, reliability: Reliability) -> Vec<u8> {
    let (kind, parameter) = match reliability.limit {
        Limit::Reliable => (0, 0),
        Limit::Retransmits(count) => (1, count),
        Limit::LifetimeMs(ms) => (2, ms),
    };
    let kind = if reliability.ordered { kind } else { kind | UNORDERED };
    let label = &label[..label.floor_char_boundary(CHANNEL_LABEL_SIZE_MAX)];
    let mut bytes = Vec::with_capacity(HEADER_SIZE + label.len());
    bytes.extend([OPEN, kind]);
    bytes.extend(256u16.to_be_bytes()); // RFC 8831 §6.4: normal priority
    bytes.extend(parameter.to_be_bytes());
    bytes.extend((label.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(label.as_bytes());
    bytes
}

/// A DATA_CHANNEL_ACK.
pub const fn ack() -> [u8; 1] {
    [ACK]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for ordered in [true, false] {
            for limit in [Limit::Reliable, Limit::Retransmits(0), Limit::Retransmits(9), Limit::LifetimeMs(u32::MAX)] {
                for label in ["", "chat", "ö".repeat(CHANNEL_LABEL_SIZE_MAX / 2).as_str()] {
                    let reliability = Reliability { ordered, limit };
                    let expected = Message::Open(Open { reliability, label: label.to_owned() });
                    assert_eq!(parse(&open(label, reliability)), Some(expected));
                }
            }
        }
        assert_eq!(parse(&ack()), Some(Message::Ack));
    }

    #[test]
    fn lengths_and_encodings_that_lie_are_refused() {
        let good = open("chat", Reliability::FULL);
        for end in 0..good.len() {
            assert_eq!(parse(&good[..end]), None, "{end} bytes");
        }
        let bent = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            parse(&bytes)
        };
        assert_eq!(bent(0, 7), None, "unknown message");
        assert_eq!(bent(1, 5), None, "unknown channel type");
        assert_eq!(bent(8, 0xff), None, "label longer than the message");
        assert_eq!(bent(10, 0xff), None, "protocol longer than the message");
        assert_eq!(bent(12, 0xff), None, "label that is not UTF-8");
        let long = [good[..8].to_vec(), vec![1, 1, 0, 0], vec![b'a'; 257]].concat();
        assert_eq!(parse(&long), None, "label over the limit");
    }

    #[test]
    fn a_label_over_the_limit_is_cut_at_a_character() {
        let label = "ö".repeat(CHANNEL_LABEL_SIZE_MAX);
        let Some(Message::Open(open)) = parse(&open(&label, Reliability::FULL)) else { panic!() };
        assert_eq!(open.label.len(), CHANNEL_LABEL_SIZE_MAX);
    }
}
