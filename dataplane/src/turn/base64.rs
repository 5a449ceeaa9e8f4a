//! Base64 (RFC 4648 §4) of what TURN has as text: nonces, the passwords of time-limited credentials, tokens and their keys.

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
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0u64, |bits, (at, &byte)| bits | u64::from(byte) << (16 - 8 * at));
        for at in 0..4 {
            text.push(if at <= chunk.len() { digit(bits >> (18 - 6 * at)).into() } else { '=' });
        }
    }
    text
}

/// The bytes of a text, padded or not. `None` for what is no base64.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let padding = text.len() - digits.len();
    if padding > 2 || padding > 0 && !text.len().is_multiple_of(4) || digits.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for chunk in digits.chunks(4) {
        let bits = chunk.iter().try_fold(0, |bits, &digit| Some(bits << 6 | value(digit)?))?;
        let bits = bits << (6 * (4 - chunk.len()));
        bytes.extend(bits.to_be_bytes().into_iter().skip(1).take(chunk.len() * 3 / 4));
    }
    Some(bytes)
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
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
            assert_eq!(decode(text.trim_end_matches('=')).as_deref(), Some(bytes.as_bytes()));
        }
        for wrong in ["Z", "Zg=", "Zm8=Zg==", "Zm 8", "Zm8-", "====", "Zg===", "Zm9vYg=", "ü"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
        for bits in 0..64 {
            assert_eq!(value(digit(bits)), Some(bits as u32));
        }
        assert_eq!(value(b'='), None);
    }
}
