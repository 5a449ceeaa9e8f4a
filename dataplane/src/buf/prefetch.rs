//! Asking for memory before it is needed. Forwarding walks from subscriber to subscriber, whose state lies where it happened to be
//! allocated: while one packet is sealed, the caches can fetch what the next one needs.

/// Asks the caches for the cache line that a value begins in. Changes nothing but the time of what follows.
#[inline]
pub fn prefetch<T>(value: &T) {
    line(std::ptr::from_ref(value).cast());
}

/// Asks the caches for all cache lines of a value of moderate size.
#[inline]
pub fn prefetch_whole<T>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<u8>();
    for offset in (0..size_of::<T>()).step_by(LINE) {
        line(start.wrapping_add(offset));
    }
}

/// The element at `index`, if there is one.
#[inline]
pub fn prefetch_element<T>(values: &[T], index: usize) {
    if let Some(value) = values.get(index) {
        prefetch(value);
    }
}

const LINE: usize = 64;

#[cfg(target_arch = "x86_64")]
#[inline]
fn line(address: *const u8) {
    // SAFETY: a prefetch is a hint: it reads nothing that the program sees, and no address makes it fault.
    unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn line(_address: *const u8) {}
