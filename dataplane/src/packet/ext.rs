//! The values of the header extensions that are read or made here; what is only passed on has no type.

use std::time::Duration;

use ringmain_shared::Now;
use ringmain_shared::media::{Mid, Rid};

/// How loud a packet is (RFC 6464 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AudioLevel {
    /// The encoder believes that there is speech.
    pub voice: bool,
    /// −dBov: 0 is the loudest, 127 silence.
    pub level: u8,
}

impl AudioLevel {
    /// Reads the value; `None` when it is empty.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let first = *value.first()?;
        Some(Self { voice: first & 0x80 != 0, level: first & 0x7f })
    }

    /// The value.
    pub fn to_bytes(self) -> [u8; 1] {
        [u8::from(self.voice) << 7 | self.level.min(127)]
    }
}

/// The transport-wide sequence number; version 2 of the extension, with a feedback request behind it, is read as well.
pub fn transport_sequence(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// The absolute send time of a packet that is sent now: seconds modulo 64 as 6.18 fixed point.
pub fn abs_send_time(now: Now) -> [u8; 3] {
    // Within 64 s, so that the shift does not overflow.
    let within = now.0 % 64_000_000_000;
    let fixed = (within << 18) / 1_000_000_000;
    let [.., high, middle, low] = fixed.to_be_bytes();
    [high, middle, low]
}

/// The time since the last wrap, below 64 s, that an absolute send time tells.
pub fn parse_abs_send_time(value: &[u8]) -> Option<Duration> {
    let [high, middle, low] = *value.first_chunk()?;
    let fixed = u64::from(u32::from_be_bytes([0, high, middle, low]));
    Some(Duration::from_nanos((fixed * 1_000_000_000) >> 18))
}

/// How a camera was held (3GPP TS 26.114 §7.4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VideoOrientation {
    /// The camera at the back of the device.
    pub back_camera: bool,
    /// Mirrored.
    pub flip: bool,
    /// Degrees to turn clockwise before display: 0, 90, 180, 270.
    pub rotation: u16,
}

impl VideoOrientation {
    /// Reads the value; `None` when it is empty.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let first = *value.first()?;
        Some(Self { back_camera: first & 8 != 0, flip: first & 4 != 0, rotation: u16::from(first & 3) * 90 })
    }

    /// The value.
    pub fn to_bytes(self) -> [u8; 1] {
        [u8::from(self.back_camera) << 3 | u8::from(self.flip) << 2 | (self.rotation / 90 % 4) as u8]
    }
}

/// Limits for the receiver's jitter buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlayoutDelay {
    /// At least, in units of 10 ms, below 4096.
    pub min_10ms: u16,
    /// At most, in units of 10 ms, below 4096.
    pub max_10ms: u16,
}

impl PlayoutDelay {
    /// Reads the value; `None` when it is too short, or its limits are the wrong way round.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let [first, middle, last] = value.first_chunk()?.map(u16::from);
        let delay = Self { min_10ms: first << 4 | middle >> 4, max_10ms: (middle & 0x0f) << 8 | last };
        (delay.min_10ms <= delay.max_10ms).then_some(delay)
    }

    /// The value.
    pub fn to_bytes(self) -> [u8; 3] {
        let (min, max) = (self.min_10ms.min(0xfff), self.max_10ms.min(0xfff));
        [(min >> 4) as u8, ((min << 4) | (max >> 8)) as u8, max as u8]
    }
}

/// An m-section's identification tag (RFC 8843 §15.1).
pub fn mid(value: &[u8]) -> Option<Mid> {
    token(value)
}

/// A layer's id (RFC 8852 §3); also of the repaired stream.
pub fn rid(value: &[u8]) -> Option<Rid> {
    token(value).filter(|rid| rid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'))
}

fn token(value: &[u8]) -> Option<Mid> {
    let text = std::str::from_utf8(value).ok().filter(|text| !text.is_empty())?;
    text.bytes().all(|byte| byte.is_ascii_graphic()).then(|| Mid::from(text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_level_has_its_flag_on_top() {
        assert_eq!(AudioLevel::parse(&[0x85, 0]), Some(AudioLevel { voice: true, level: 5 }));
        assert_eq!(AudioLevel::parse(&[0x7f]), Some(AudioLevel { voice: false, level: 127 }));
        assert_eq!(AudioLevel { voice: true, level: 5 }.to_bytes(), [0x85]);
        assert_eq!(AudioLevel { voice: false, level: 200 }.to_bytes(), [0x7f]);
        assert_eq!(AudioLevel::parse(&[]), None);
    }

    #[test]
    fn send_time_wraps_after_64_seconds_and_rounds_down() {
        assert_eq!(abs_send_time(Now::from_millis(1_000)), [0x04, 0, 0]);
        assert_eq!(abs_send_time(Now::from_millis(65_500)), [0x06, 0, 0]);
        assert_eq!(abs_send_time(Now(63_999_999_999)), [0xff, 0xff, 0xff]);
        assert_eq!(abs_send_time(Now(u64::MAX)).len(), 3);
        assert_eq!(parse_abs_send_time(&[0x06, 0, 0]), Some(Duration::from_millis(1_500)));
        assert_eq!(parse_abs_send_time(&[0x06, 0]), None);
    }

    #[test]
    fn small_values_survive_a_round_trip() {
        for byte in 0..16u8 {
            assert_eq!(VideoOrientation::parse(&[byte]).map(VideoOrientation::to_bytes), Some([byte]));
        }
        let delay = PlayoutDelay { min_10ms: 0xabc, max_10ms: 0xdef };
        assert_eq!(delay.to_bytes(), [0xab, 0xcd, 0xef]);
        assert_eq!(PlayoutDelay::parse(&delay.to_bytes()), Some(delay));
        assert_eq!(PlayoutDelay::parse(&[0xff, 0xf0, 0]), None);
        assert_eq!(transport_sequence(&[0x12, 0x34]), Some(0x1234));
        assert_eq!(transport_sequence(&[0x12]), None);
    }

    #[test]
    fn names_are_tokens_of_at_most_sixteen_bytes() {
        assert_eq!(mid(b"0").as_deref(), Some("0"));
        assert_eq!(rid(b"f").as_deref(), Some("f"));
        assert_eq!(mid(&[b'm'; 16]).map(|mid| mid.len()), Some(16));
        for wrong in [&b""[..], &[b'm'; 17], b"a b", b"a\0", b"\xff"] {
            assert_eq!(mid(wrong), None);
            assert_eq!(rid(wrong), None);
        }
        assert_eq!(rid(b"a/b"), None);
    }
}
