//! What a completion answers: the 64 bits of `user_data`, typed. The generation tells this asking from an earlier one of the same place.

/// Names one outstanding operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token {
    /// The multishot receive of a socket.
    Receive { socket: u16, generation: u32 },
    /// The cancelling of that receive.
    Cancel { socket: u16, generation: u32 },
    /// The send of a train.
    Send { train: u16, generation: u32 },
    /// The multishot poll of our eventfd.
    Poll { generation: u32 },
    /// Another ring calls us. Also what we put into another ring.
    Call,
    /// Our call to another ring.
    Message { slot: u16, generation: u32 },
}

impl Token {
    pub(super) fn to_user_data(self) -> u64 {
        let (kind, part, generation) = match self {
            Token::Receive { socket, generation } => (RECEIVE, socket, generation),
            Token::Cancel { socket, generation } => (CANCEL, socket, generation),
            Token::Send { train, generation } => (SEND, train, generation),
            Token::Poll { generation } => (POLL, 0, generation),
            Token::Call => (CALL, 0, 0),
            Token::Message { slot, generation } => (MESSAGE, slot, generation),
        };
        u64::from(kind) << 56 | u64::from(part) << 32 | u64::from(generation)
    }

    pub(super) fn from_user_data(data: u64) -> Option<Self> {
        let (part, generation) = ((data >> 32) as u16, data as u32);
        match (data >> 56) as u8 {
            RECEIVE => Some(Token::Receive { socket: part, generation }),
            CANCEL => Some(Token::Cancel { socket: part, generation }),
            SEND => Some(Token::Send { train: part, generation }),
            POLL => Some(Token::Poll { generation }),
            CALL => Some(Token::Call),
            MESSAGE => Some(Token::Message { slot: part, generation }),
            _ => None,
        }
    }
}

// Zero is no kind: a completion of something that was never named is not mistaken for one that was.
const RECEIVE: u8 = 1;
const SEND: u8 = 2;
const POLL: u8 = 3;
const CALL: u8 = 4;
const MESSAGE: u8 = 5;
const CANCEL: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_user_data() {
        for token in [
            Token::Receive { socket: u16::MAX, generation: u32::MAX },
            Token::Cancel { socket: 300, generation: 5 },
            Token::Receive { socket: 0, generation: 1 },
            Token::Send { train: 65_535, generation: 7 },
            Token::Poll { generation: 9 },
            Token::Call,
            Token::Message { slot: 12, generation: 1 << 31 },
        ] {
            assert_eq!(Token::from_user_data(token.to_user_data()), Some(token));
        }
    }

    #[test]
    fn nonsense_is_no_token() {
        for data in [0, 1, 7 << 56, u64::MAX] {
            assert_eq!(Token::from_user_data(data), None);
        }
    }
}
