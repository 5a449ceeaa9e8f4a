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

/// Asks the caches for `size` bytes behind the pointer that is word `at` of a value of somebody else's, who shows nobody what it points
/// at. If that is no pointer, asks for nothing, or for something that nobody reads.
#[inline]
pub fn prefetch_behind<T>(value: &T, at: usize, size: usize) {
    let start = word_of(value, at);
    // Nothing is ever mapped in the first page; asking for it would only look for it in vain.
    if start >= PAGE {
        (0..size).step_by(LINE).for_each(|offset| line((start as *const u8).wrapping_add(offset)));
    }
}

/// Word `at` of a value, as it lies there; zero behind its end.
#[inline]
pub(crate) fn word_of<T>(value: &T, at: usize) -> usize {
    let words = std::ptr::from_ref(value).cast::<usize>();
    if at < size_of::<T>() / size_of::<usize>() { word(words.wrapping_add(at)) } else { 0 }
}

const LINE: usize = 64;
const PAGE: usize = 4096;

/// A word of some value, be it padding.
#[cfg(target_arch = "x86_64")]
#[inline]
fn word(address: *const usize) -> usize {
    let word;
    // SAFETY: the caller's value spans the word at the address, which is read only. What the CPU finds there is a number, whether or not the
    // language calls it initialised; it is used for nothing but hints.
    unsafe {
        std::arch::asm!("mov {word}, [{address}]", address = in(reg) address, word = out(reg) word,
            options(readonly, nostack, preserves_flags));
    }
    word
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn word(_address: *const usize) -> usize {
    0
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn line(address: *const u8) {
    // SAFETY: a prefetch is a hint: it reads nothing that the program sees, and no address makes it fault.
    unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn line(_address: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_value_holds_may_be_asked_for() {
        #[derive(Clone, Copy)]
        #[repr(C)]
        struct Mixed {
            small: u8,
            pointer: *const u8,
            nowhere: usize,
        }
        let bytes = [7; 640];
        for nowhere in [0, 1, usize::MAX, usize::MAX / 2, 1 << 47, PAGE] {
            let mixed = Mixed { small: 1, pointer: bytes.as_ptr(), nowhere };
            (0..4).for_each(|at| prefetch_behind(&mixed, at, 640));
            assert_eq!((mixed.small, mixed.nowhere, bytes), (1, nowhere, [7; 640]));
        }
        prefetch_behind(&3u8, 0, 640);
    }
}
