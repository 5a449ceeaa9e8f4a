//! Payloads that look like a camera's and a microphone's: VP8 frames of several packets (RFC 7741) and Opus packets
//! (RFC 7587), filled with noise, each ending in a [`Mark`]. The same seed gives the same bytes, but for the time in the mark.

use ringmain_shared::Now;

use super::chance::Chance;
use super::mark::{MARK_SIZE, Mark};

/// The shape of a video.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct VideoShape {
    /// Frames per second.
    pub(super) fps: u32,
    /// Packets of a frame.
    pub(super) packets: usize,
    /// Bytes of an RTP payload.
    pub(super) size: usize,
    /// Sizes within a frame differ by one byte, as libwebrtc's do: it splits a frame evenly and the remainder goes to the
    /// last packets.
    pub(super) uneven: bool,
}

/// What a sender of one track keeps.
#[derive(Debug)]
pub(super) struct Maker {
    source: u32,
    number: u64,
    chance: Chance,
    noise: Box<[u8]>,
    picture: u16,
}

/// A frame whose packets are being made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    keyframe: bool,
    picture: u16,
    size: usize,
    count: usize,
    /// Packets at the end that have a byte more.
    longer: usize,
}

impl Maker {
    /// The maker of track `source`.
    pub(super) fn new(seed: u64, source: u32) -> Self {
        let mut chance = Chance::new(seed, u64::from(source));
        let noise = (0..NOISE_SIZE / 8).flat_map(|_| chance.next().to_be_bytes()).collect();
        let picture = chance.next() as u16 & PICTURE_MAX;
        Self { source, number: 0, chance, noise, picture }
    }

    /// Packets made so far.
    pub(super) fn made(&self) -> u64 {
        self.number
    }

    /// The next frame.
    pub(super) fn frame(&mut self, shape: &VideoShape, keyframe: bool) -> Frame {
        self.picture = (self.picture + 1) & PICTURE_MAX;
        let short = if shape.uneven { self.chance.below(shape.packets as u64) as usize } else { 0 };
        let (size, longer) = if short > 0 { (shape.size - 1, shape.packets - short) } else { (shape.size, 0) };
        Frame { keyframe, picture: self.picture, size, count: shape.packets, longer }
    }

    /// The payload of packet `index` of `frame`.
    pub(super) fn video(&mut self, frame: &Frame, index: usize, now: Now, payload: &mut Vec<u8>) {
        payload.clear();
        let first = index == 0;
        let [high, low] = frame.picture.to_be_bytes();
        // RFC 7741 §4.2: X, and S on the first packet of the frame's only partition; I; a picture ID of 15 bits.
        payload.extend([0x80 | if first { 0x10 } else { 0 }, 0x80, 0x80 | high, low]);
        if first && frame.keyframe {
            // RFC 6386 §9.1: frame tag of a shown key frame, start code, 640x360.
            payload.extend([0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01]);
        } else if first {
            payload.extend([0x11, 0x02, 0x00]);
        }
        let size = frame.size + usize::from(index + frame.longer >= frame.count);
        self.fill(payload, DESCRIPTOR_SIZE, size, now);
    }

    /// The payload of an audio packet of `size` bytes.
    pub(super) fn audio(&mut self, size: usize, now: Now, payload: &mut Vec<u8>) {
        payload.clear();
        // RFC 6716 §3.1: CELT, fullband, 20 ms, mono, one frame.
        payload.push(0xf8);
        self.fill(payload, 0, size, now);
    }

    fn fill(&mut self, payload: &mut Vec<u8>, body: usize, size: usize, now: Now) {
        let missing = size.saturating_sub(payload.len());
        let from = self.chance.below((self.noise.len() - PAYLOAD_SIZE_MAX) as u64) as usize;
        payload.extend_from_slice(&self.noise[from..from + missing.min(PAYLOAD_SIZE_MAX)]);
        Mark { source: self.source, number: self.number, sent: now }.write(&mut payload[body..]);
        self.number += 1;
    }
}

impl Frame {
    /// Packets of the frame.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

/// Whether the body of a VP8 packet that starts a frame starts a key frame (RFC 6386 §9.1).
pub(super) fn starts_keyframe(body: &[u8]) -> bool {
    matches!(body, [tag, _, _, 0x9d, 0x01, 0x2a, ..] if tag & 1 == 0)
}

/// Bytes of the VP8 descriptor that is written here.
const DESCRIPTOR_SIZE: usize = 4;
/// The least that a video payload can be: descriptor, key frame's header, mark.
pub(super) const VIDEO_SIZE_MIN: usize = DESCRIPTOR_SIZE + 10 + MARK_SIZE + 1;
/// The least that an audio payload can be.
pub(super) const AUDIO_SIZE_MIN: usize = 1 + MARK_SIZE;
/// The most that a payload can be and fit a datagram with header, extensions and tag.
pub(super) const PAYLOAD_SIZE_MAX: usize = 1400;
const NOISE_SIZE: usize = 4 * PAYLOAD_SIZE_MAX;
const PICTURE_MAX: u16 = 0x7fff;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rtp::codecs::vp8::Vp8Packet;
    use rtp::packetizer::Depacketizer;

    use super::*;

    fn frames(seed: u64, shape: VideoShape, count: usize) -> Vec<Vec<Vec<u8>>> {
        let mut maker = Maker::new(seed, 3);
        let mut payload = Vec::new();
        let mut packet = |maker: &mut Maker, frame: &Frame, index| {
            maker.video(frame, index, Now(77), &mut payload);
            payload.clone()
        };
        (0..count)
            .map(|n| {
                let frame = maker.frame(&shape, n == 0);
                (0..frame.count()).map(|index| packet(&mut maker, &frame, index)).collect()
            })
            .collect()
    }

    const SHAPE: VideoShape = VideoShape { fps: 30, packets: 8, size: 1100, uneven: true };

    #[test]
    fn the_same_seed_gives_the_same_frames() {
        assert_eq!(frames(5, SHAPE, 20), frames(5, SHAPE, 20));
        assert_ne!(frames(5, SHAPE, 20), frames(6, SHAPE, 20));
    }

    #[test]
    fn an_independent_depacketizer_finds_frames_in_order_and_marks_whole() {
        let mut number = 0;
        for (n, frame) in frames(1, SHAPE, 40).iter().enumerate() {
            for (index, payload) in frame.iter().enumerate() {
                let mut vp8 = Vp8Packet::default();
                let body = vp8.depacketize(&Bytes::copy_from_slice(payload)).expect("VP8");
                assert_eq!((vp8.s, vp8.pid), (u8::from(index == 0), 0));
                assert_eq!(starts_keyframe(&body), n == 0 && index == 0);
                assert_eq!(Mark::read(&body), Ok(Mark { source: 3, number, sent: Now(77) }));
                number += 1;
            }
        }
    }

    #[test]
    fn sizes_of_a_frame_differ_by_one_byte_and_the_last_are_the_longer_ones() {
        let frames = frames(9, SHAPE, 64);
        let mut kinds = std::collections::BTreeSet::new();
        for frame in &frames {
            let sizes: Vec<usize> = frame.iter().map(Vec::len).collect();
            assert!(sizes.is_sorted() && sizes[0] >= 1099 && sizes[7] == 1100, "{sizes:?}");
            kinds.insert(sizes);
        }
        assert_eq!(kinds.len(), 8, "every remainder occurs");
        let even = self::frames(9, VideoShape { uneven: false, ..SHAPE }, 8);
        assert!(even.iter().flatten().all(|payload| payload.len() == 1100));
    }

    #[test]
    fn the_smallest_payloads_carry_their_marks() {
        let shape = VideoShape { fps: 1, packets: 1, size: VIDEO_SIZE_MIN, uneven: true };
        assert_eq!(frames(1, shape, 1)[0][0].len(), VIDEO_SIZE_MIN);
        let mut payload = Vec::new();
        Maker::new(1, 2).audio(AUDIO_SIZE_MIN, Now(5), &mut payload);
        assert_eq!((payload.len(), Mark::read(&payload).map(|mark| mark.sent)), (AUDIO_SIZE_MIN, Ok(Now(5))));
    }
}
