//! Big-endian reads that answer `None` past the end, and a writer that stops at the end of its buffer.

/// The byte at `at`.
#[inline]
pub(crate) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// The big-endian 16 bits at `at`.
#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The big-endian 32 bits at `at`.
#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The big-endian 64 bits at `at`.
#[inline]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Writes from the start of a buffer. What has no room is left out, and from then on `finish` says `None`.
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
    full: bool,
}

impl<'a> Writer<'a> {
    /// Begins at the start of `out`.
    pub(crate) fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0, full: false }
    }

    /// Appends `bytes`.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        match self.out.get_mut(self.len..).and_then(|rest| rest.get_mut(..bytes.len())) {
            Some(slot) => {
                slot.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.full = true,
        }
    }

    /// Appends one byte.
    #[inline]
    pub(crate) fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    /// Appends 16 bits.
    #[inline]
    pub(crate) fn put_u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    /// Appends 24 bits, the lower ones of `value`.
    #[inline]
    pub(crate) fn put_u24(&mut self, value: u32) {
        let [_, high, middle, low] = value.to_be_bytes();
        self.put(&[high, middle, low]);
    }

    /// Appends 32 bits.
    #[inline]
    pub(crate) fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// Appends zeros up to a multiple of four.
    pub(crate) fn align(&mut self) {
        self.put(&[0; 3][..self.len.wrapping_neg() % 4]);
    }

    /// Overwrites 16 bits that were written before.
    pub(crate) fn set_u16(&mut self, at: usize, value: u16) {
        if let Some(slot) = self.out.get_mut(..self.len).and_then(|all| all.get_mut(at..)?.first_chunk_mut()) {
            *slot = value.to_be_bytes();
        }
    }

    /// What is written so far.
    pub(crate) fn written(&self) -> &[u8] {
        self.out.get(..self.len).unwrap_or_default()
    }

    /// Bytes written so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes written, if there was room for all.
    pub(crate) fn finish(self) -> Option<usize> {
        (!self.full).then_some(self.len)
    }
}
