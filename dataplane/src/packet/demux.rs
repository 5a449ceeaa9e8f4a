//! Which protocol a datagram speaks, by its first two bytes (RFC 7983 §7, RFC 5761 §4). Says nothing about its validity.

/// What shares a media port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// A STUN message (RFC 8489), also TURN's (RFC 8656).
    Stun,
    /// A DTLS record (RFC 6347, RFC 9147).
    Dtls,
    /// TURN ChannelData (RFC 8656 §12.4).
    TurnChannelData,
    /// RTP, or SRTP.
    Rtp,
    /// RTCP, or SRTCP.
    Rtcp,
}

/// The protocol of `datagram`; `None` for ZRTP, QUIC, and what nobody defined.
#[inline]
pub fn classify(datagram: &[u8]) -> Option<Protocol> {
    match *datagram.first()? {
        0..=3 => Some(Protocol::Stun),
        20..=63 => Some(Protocol::Dtls),
        64..=79 => Some(Protocol::TurnChannelData),
        128..=191 => match *datagram.get(1)? {
            // RFC 5761 §4: RTCP's packet types are read as a marker and payload types 64–95, which RTP leaves alone.
            192..=223 => Some(Protocol::Rtcp),
            _ => Some(Protocol::Rtp),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_has_the_protocol_of_rfc_7983() {
        for first in 0..=255u8 {
            let expected = match first {
                0..=3 => Some(Protocol::Stun),
                20..=63 => Some(Protocol::Dtls),
                64..=79 => Some(Protocol::TurnChannelData),
                128..=191 => Some(Protocol::Rtp),
                _ => None,
            };
            assert_eq!(classify(&[first, 111]), expected, "first byte {first}");
        }
    }

    #[test]
    fn rtcp_is_told_from_rtp_by_the_packet_type() {
        for second in 0..=255u8 {
            let expected = if (192..=223).contains(&second) { Protocol::Rtcp } else { Protocol::Rtp };
            assert_eq!(classify(&[0x80, second]), Some(expected), "second byte {second}");
        }
    }

    #[test]
    fn nothing_is_made_of_too_few_bytes() {
        assert_eq!(classify(&[]), None);
        assert_eq!(classify(&[0x80]), None);
    }
}
