//! What a TCP connection speaks, by its first bytes. TLS, HTTP, STUN as TURN frames it and STUN as ICE frames it are never alike there:
//! STUN has its magic cookie in the fifth to eighth byte, or behind two more when a length goes before it.

/// What a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// A TLS handshake record.
    Tls,
    /// STUN or TURN, framed by its own length (RFC 8489 §6.2.2).
    Turn,
    /// ICE checks and media, each behind its length (RFC 4571, RFC 6544 §10.1).
    Ice,
    /// A request line.
    Http,
}

/// Some of these, but for TLS itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Protocols {
    /// STUN and TURN.
    pub turn: bool,
    /// ICE-TCP (RFC 6544, passive).
    pub ice: bool,
    /// HTTP and WebSocket.
    pub http: bool,
}

impl Protocols {
    /// None of them.
    pub const NONE: Self = Self { turn: false, ice: false, http: false };

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Whether this is one of them.
    pub fn has(self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Turn => self.turn,
            Protocol::Ice => self.ice,
            Protocol::Http => self.http,
            Protocol::Tls => false,
        }
    }

    /// These and others.
    pub fn and(self, other: Self) -> Self {
        Self { turn: self.turn || other.turn, ice: self.ice || other.ice, http: self.http || other.http }
    }
}

/// What the first bytes tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Too few of them.
    More,
    /// It is this.
    Is(Protocol),
    /// It is nothing that we know.
    Unknown,
}

/// Looks at the first bytes, of which it needs [`FIRST_BYTES_MAX`] at most.
pub fn classify(bytes: &[u8]) -> Verdict {
    match *bytes {
        [] => Verdict::More,
        [TLS_HANDSHAKE, ..] => Verdict::Is(Protocol::Tls),
        // A method: GET, POST, OPTIONS, or the preface of HTTP/2.
        [b'A'..=b'Z', ..] => Verdict::Is(Protocol::Http),
        // The upper bits of a STUN method, or the upper byte of a length.
        [0..=LENGTH_HIGH_MAX, ..] => match (bytes.get(4..8), bytes.get(6..10)) {
            (Some(cookie), _) if cookie == MAGIC_COOKIE => Verdict::Is(Protocol::Turn),
            (_, Some(cookie)) if cookie == MAGIC_COOKIE => Verdict::Is(Protocol::Ice),
            (_, Some(_)) => Verdict::Unknown,
            _ => Verdict::More,
        },
        _ => Verdict::Unknown,
    }
}

/// Bytes after which every connection is known for what it is.
pub const FIRST_BYTES_MAX: usize = 10;

/// The first byte of a TLS record of the handshake (RFC 8446 §5.1).
pub const TLS_HANDSHAKE: u8 = 22;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Of the longest datagram, 1500 bytes.
const LENGTH_HIGH_MAX: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const BINDING: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    /// What each number of first bytes tells.
    fn verdicts(bytes: &[u8]) -> Vec<Verdict> {
        (0..=bytes.len()).map(|size| classify(&bytes[..size])).collect()
    }

    #[test]
    fn each_protocol_is_known_within_ten_bytes_and_stays_known() {
        let framed: Vec<u8> = [0, 20].into_iter().chain(BINDING).collect();
        let cases: [(&[u8], usize, Protocol); 5] = [
            (b"\x16\x03\x01\x02\x00\x01", 1, Protocol::Tls),
            (b"GET / HTTP/1.1\r\n", 1, Protocol::Http),
            (&BINDING, 8, Protocol::Turn),
            (b"\x00\x03\x00\x08\x21\x12\xa4\x42\x00\x19\x00\x04", 8, Protocol::Turn),
            (&framed, 10, Protocol::Ice),
        ];
        for (bytes, needed, protocol) in cases {
            for (size, verdict) in verdicts(bytes).into_iter().enumerate() {
                let expected = if size < needed { Verdict::More } else { Verdict::Is(protocol) };
                assert_eq!(verdict, expected, "{protocol:?} after {size} bytes");
            }
        }
    }

    #[test]
    fn what_nobody_speaks_is_refused_early() {
        for bytes in [&b"\x80\x01\x02"[..], b"SSH-2.0"] {
            assert_eq!(
                classify(&bytes[..1]),
                if bytes[0] == b'S' { Verdict::Is(Protocol::Http) } else { Verdict::Unknown }
            );
        }
        assert_eq!(classify(&[0; FIRST_BYTES_MAX]), Verdict::Unknown);
        assert_eq!(classify(&[0x40, 0, 0, 4]), Verdict::Unknown, "ChannelData comes after an allocation");
        assert_eq!(classify(&[20, 254, 253]), Verdict::Unknown, "DTLS comes after a check");
    }
}
