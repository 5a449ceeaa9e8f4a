//! The datagrams that a link took in this turn. They lie where the kernel put them and are decrypted in place.
//! An entry names a range of the slab that the kernel has given up until the link takes the batch back.

use crate::buf::Slab;
use crate::io::Path;

/// Datagrams taken in at once. Enough that waking up is paid for, few enough that timers are not late.
pub const RX_BATCH_MAX: usize = 256;

/// Received datagrams of one turn.
#[derive(Debug)]
pub struct RxBatch {
    slab: Slab,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: u32,
    size: u32,
    path: Path,
}

impl RxBatch {
    /// How many datagrams there are, at most [`RX_BATCH_MAX`].
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where datagram `index` came in, and from whom.
    #[inline]
    pub fn path(&self, index: usize) -> Path {
        self.entries[index].path
    }

    /// The UDP payload of datagram `index`.
    #[inline]
    pub fn bytes(&self, index: usize) -> &[u8] {
        let entry = self.entries[index];
        // SAFETY: an entry's range belongs to the batch until the link clears it, for which it needs `&mut self`.
        unsafe { self.slab.slice(entry.offset as usize, entry.size as usize) }
    }

    /// The UDP payload of datagram `index`, to be changed in place.
    #[inline]
    pub fn bytes_mut(&mut self, index: usize) -> &mut [u8] {
        let entry = self.entries[index];
        // SAFETY: as in `bytes`, and `&mut self` keeps other slices of the slab away.
        unsafe { self.slab.slice_mut(entry.offset as usize, entry.size as usize) }
    }

    /// A batch over `size` bytes of its own.
    pub(crate) fn new(size: usize) -> Self {
        Self { slab: Slab::new(size), entries: Vec::with_capacity(RX_BATCH_MAX) }
    }

    /// The memory, for the link that fills it.
    pub(crate) fn slab(&self) -> &Slab {
        &self.slab
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= RX_BATCH_MAX
    }

    /// Lists a datagram. From here until `clear`, its range is the batch's: the kernel must not write to it.
    pub(crate) fn push(&mut self, offset: usize, size: usize, path: Path) {
        assert!(offset + size <= self.slab.size(), "a datagram lies in the slab");
        self.entries.push(Entry { offset: offset as u32, size: size as u32, path });
    }

    /// Forgets the datagrams, after which their ranges may go back to the kernel.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}
