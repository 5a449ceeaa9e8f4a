//! Base64 (RFC 4648 §4) of what TURN writes as text: nonces, and the passwords of time-limited credentials.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The character of the lower six bits.
pub(super) fn digit(bits: u64) -> u8 {
    ALPHABET[(bits & 63) as usize]
}

/// The six bits of a character.
pub(super) fn value(character: u8) -> Option<u32> {
    ALPHABET.iter().position(|&this| this == character).map(|at| at as u32)
}

/// Text of `bytes`, padded.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0u64, |bits, (at, &byte)| bits | u64::from(byte) << (16 - 8 * at));
        for at in 0..4 {
            text.push(if at <= chunk.len() { digit(bits >> (18 - 6 * at)).into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(encode(bytes.as_bytes()), text);
        }
        for bits in 0..64 {
            assert_eq!(value(digit(bits)), Some(bits as u32));
        }
        assert_eq!(value(b'='), None);
    }
}
