//! Reads bits, most significant first.

/// A place in some bytes.
#[derive(Clone, Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl<'a> Bits<'a> {
    /// From a bit on.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// The next `count` bits, at most 32.
    pub(super) fn take(&mut self, count: usize) -> Option<u32> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len() * 8)?;
        let mut value = 0u64;
        for byte in self.bytes.get(self.at / 8..end.div_ceil(8))? {
            value = value << 8 | u64::from(*byte);
        }
        let value = value >> (end.div_ceil(8) * 8 - end);
        self.at = end;
        Some((value & ((1 << count) - 1)) as u32)
    }

    /// The next bit.
    pub(super) fn flag(&mut self) -> Option<bool> {
        self.take(1).map(|bit| bit == 1)
    }

    /// A number below `bound` in as few bits as it takes: `ns(n)` of the AV1 specification §4.10.7.
    pub(super) fn below(&mut self, bound: u32) -> Option<u32> {
        let width = (32 - bound.leading_zeros()) as usize;
        let short = (1u32 << width) - bound;
        let value = self.take(width.checked_sub(1)?)?;
        if value < short {
            return Some(value);
        }
        Some((value << 1) - short + self.take(1)?)
    }
}
