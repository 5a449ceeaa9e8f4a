//! One block of memory that never moves, page-aligned, shared piecewise with the kernel.
//! Hands out slices by range; who may touch which range when is the business of its owner.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// A zeroed, page-aligned block of bytes at an address that stays.
pub struct Slab {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the slab owns its memory, as a `Box<[u8]>` does; nothing about it is bound to a thread.
unsafe impl Send for Slab {}

impl Slab {
    /// A block of `size` bytes, at least one.
    pub fn new(size: usize) -> Self {
        let layout =
            Layout::from_size_align(size.max(1), PAGE_SIZE).expect("sizes are sums of constants, far below isize");
        // SAFETY: the layout's size is at least one.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        Self { base, layout }
    }

    /// How many bytes there are.
    pub fn size(&self) -> usize {
        self.layout.size()
    }

    /// The address of the first byte.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The bytes of a range.
    ///
    /// # Panics
    /// When the range leaves the slab.
    ///
    /// # Safety
    /// Nobody, the kernel included, writes to the range while the slice lives.
    #[inline]
    pub unsafe fn slice(&self, offset: usize, size: usize) -> &[u8] {
        assert!(offset <= self.size() && size <= self.size() - offset, "a range lies in its slab");
        // SAFETY: the offset is in the allocation (asserted above).
        let start = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: the range is in the allocation, initialised since `new`, and not written to meanwhile (this function's condition).
        unsafe { std::slice::from_raw_parts(start, size) }
    }

    /// The bytes of a range, to be written.
    ///
    /// # Panics
    /// When the range leaves the slab.
    ///
    /// # Safety
    /// Nobody else, the kernel included, touches the range while the slice lives.
    #[inline]
    pub unsafe fn slice_mut(&mut self, offset: usize, size: usize) -> &mut [u8] {
        assert!(offset <= self.size() && size <= self.size() - offset, "a range lies in its slab");
        // SAFETY: the offset is in the allocation (asserted above).
        let start = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: the range is in the allocation, initialised since `new`, and ours alone (this function's condition).
        unsafe { std::slice::from_raw_parts_mut(start, size) }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, freed only here.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

impl std::fmt::Debug for Slab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slab({} bytes)", self.size())
    }
}

/// What io_uring wants its shared memory aligned to, on every page size that Linux has.
const PAGE_SIZE: usize = 65_536;
