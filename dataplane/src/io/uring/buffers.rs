//! The ring of buffers that the kernel picks from to receive into (`IORING_REGISTER_PBUF_RING`).
//! It holds addresses; the bytes are the receive batch's, and the ledger knows whose each is.

use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use ringmain_shared::limits::RECEIVED_SIZE_MAX;

use crate::buf::Slab;
use crate::io::address::NAME_SIZE;

/// What the kernel writes before a datagram: `io_uring_recvmsg_out`, then the name.
pub(super) const HEADER_SIZE: usize = 16 + NAME_SIZE;
/// Bytes of one buffer that the kernel may write. A longer datagram is marked as truncated.
pub(super) const BUFFER_SIZE: usize = HEADER_SIZE + RECEIVED_SIZE_MAX;
/// From one buffer to the next: whole cache lines.
pub(super) const BUFFER_STRIDE: usize = BUFFER_SIZE.next_multiple_of(64);

#[derive(Debug)]
pub(super) struct BufferRing {
    entries: Slab,
    count: u16,
    tail: u16,
    /// Address of buffer zero.
    base: u64,
}

impl BufferRing {
    /// A ring of `count` buffers (a power of two), which lie one behind the other from `base`.
    pub(super) fn new(count: u16, base: *const u8) -> Self {
        assert!(count.is_power_of_two(), "the kernel masks indices");
        let entries = Slab::new(usize::from(count) * size_of::<BufRingEntry>());
        Self { entries, count, tail: 0, base: base as u64 }
    }

    pub(super) fn address(&self) -> u64 {
        self.entries.base() as u64
    }

    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Writes a buffer's entry. The kernel sees it after `publish`.
    pub(super) fn give(&mut self, buffer: u16) {
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: `place` is below the count, for which the slab has room; an entry's alignment divides the slab's.
        let entry = unsafe { self.entries.base().cast::<BufRingEntry>().add(place) };
        // SAFETY: in the slab and initialised by zeroes, which is a valid entry. The kernel does not write to the ring, and of this
        // place it reads nothing before `publish`, but for the tail in entry 0, which the calls below leave alone.
        let entry = unsafe { &mut *entry };
        entry.set_addr(self.base + (usize::from(buffer) * BUFFER_STRIDE) as u64);
        entry.set_len(BUFFER_SIZE as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given.
    pub(super) fn publish(&mut self) {
        // SAFETY: the ring's address is that of its first entry, which is initialised.
        let tail = unsafe { BufRingEntry::tail(self.entries.base().cast::<BufRingEntry>()) };
        // SAFETY: in the slab, aligned as a u16, and accessed by both sides as an atomic only.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the entries are written before the kernel, which loads the tail with acquire, can see it.
        tail.store(self.tail, Ordering::Release);
    }
}
