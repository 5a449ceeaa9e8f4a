//! intel-ipsec-mb through a few lines of C. Owns the memory that the library works in, and wipes it.
//!
//! The library keeps no allocation of its own: a manager lies in memory that we give it. One manager, never written to after it was
//! made, serves everything that only needs its table of functions; each [`Burst`] has another, in which it works.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Mutex, OnceLock, PoisonError};

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::srtp::keys::SessionKey;
use crate::srtp::profile::Profile;

/// Packets of one burst, at most.
pub(super) const PACKETS_MAX: usize = 128;

/// The version of the library, when it is to be used: this CPU has AVX-512 and VAES, and the library passed its own test here.
pub(crate) fn version() -> Option<&'static str> {
    library()?;
    // SAFETY: the library gives a constant string.
    let version = unsafe { CStr::from_ptr(ringmain_mb_version()) };
    version.to_str().ok()
}

/// The expanded keys of AES-CM and HMAC-SHA1.
#[repr(C, align(64))]
#[derive(Zeroize, ZeroizeOnDrop)]
struct ExpandedCmKey {
    round_keys: [u8; 11 * 16],
    inner: [u8; 20],
    outer: [u8; 20],
}

/// What a burst seals a packet with. Behind a pointer, so that moving it leaves no copy.
pub(crate) struct CmKey(Box<ExpandedCmKey>);

impl CmKey {
    /// `None` when the library is not to be used, or the profile is another.
    pub(in crate::srtp) fn new(session: &SessionKey) -> Option<Self> {
        if session.profile != Profile::Aes128CmHmacSha1_80 {
            return None;
        }
        let library = library()?;
        let key: &[u8; 16] = session.key().try_into().ok()?;
        let mut expanded = Box::new(ExpandedCmKey { round_keys: [0; 176], inner: [0; 20], outer: [0; 20] });
        // SAFETY: an initialised manager, of which C only calls functions; keys of the lengths that C reads; room for what it writes.
        unsafe { ringmain_mb_cm_key(library.address(), key.as_ptr(), session.auth().as_ptr(), &raw mut *expanded) };
        Some(Self(expanded))
    }
}

/// A packet of a [`Burst`]: where it lies in the arena, and its header and clear length in bytes.
pub(super) struct Packet<'a> {
    pub(super) key: &'a CmKey,
    pub(super) iv: [u8; 16],
    pub(super) offset: usize,
    pub(super) header_len: usize,
    pub(super) clear_len: usize,
}

/// Seals up to [`PACKETS_MAX`] packets in one call.
pub(super) struct Burst {
    memory: Memory,
    requests: Vec<Request>,
}

/// As `struct request` in shim.c.
#[repr(C)]
struct Request {
    packet: *mut u8,
    key: *const ExpandedCmKey,
    header_len: u32,
    clear_len: u32,
    iv: [u8; 16],
}

// SAFETY: `requests` is empty between calls, so no pointer crosses threads; the memory is a plain block of bytes.
unsafe impl Send for Burst {}

impl Burst {
    /// `None` when the library is not to be used.
    pub(super) fn new() -> Option<Self> {
        library()?;
        Some(Self { memory: Memory::init()?, requests: Vec::with_capacity(PACKETS_MAX) })
    }

    /// Encrypts each payload and writes the tag over HMAC's last four bytes, which lie behind it (the rollover counter). At most
    /// `PACKETS_MAX` packets are looked at. False when one of them could not be sealed; its bytes are then nothing to send.
    pub(super) fn seal<'a>(&mut self, arena: &mut [u8], packets: impl Iterator<Item = Packet<'a>>) -> bool {
        let (base, size) = (arena.as_mut_ptr(), arena.len());
        for packet in packets.take(PACKETS_MAX) {
            let Packet { key, iv, offset, header_len, clear_len } = packet;
            let end = offset.checked_add(clear_len).and_then(|end| end.checked_add(TAG_LEN));
            if end.is_none_or(|end| end > size) || header_len >= clear_len {
                self.requests.clear();
                return false;
            }
            // SAFETY: the packet ends inside the arena (checked above), so it also begins there.
            let packet = unsafe { base.add(offset) };
            let (header_len, clear_len) = (header_len as u32, clear_len as u32);
            self.requests.push(Request { packet, key: &raw const *key.0, header_len, clear_len, iv });
        }
        let (requests, count) = (self.requests.as_ptr(), self.requests.len() as u32);
        // SAFETY: our own initialised manager; `count` requests, no more than C has jobs for; each packet lies in the arena with room
        // for its tag, has a payload, and is borrowed as the arena is; keys and IVs live until the call returns, and so does the
        // library's interest in them: it has completed every job, or was given none that it does not complete.
        let sealed = unsafe { ringmain_mb_cm_seal(self.memory.address_mut(), requests, count) };
        self.requests.clear();
        sealed != 0
    }
}

/// An AES-GCM key with the powers of its hash key, for one packet at a time.
pub(crate) struct GcmKey {
    lines: Box<[Line]>,
    is_256: bool,
    library: &'static Memory,
}

impl GcmKey {
    /// `None` when the library is not to be used, or the profile is another.
    pub(in crate::srtp) fn new(session: &SessionKey) -> Option<Self> {
        let library = library()?;
        let is_256 = match session.profile {
            Profile::AeadAes128Gcm => false,
            Profile::AeadAes256Gcm => true,
            Profile::Aes128CmHmacSha1_80 => return None,
        };
        let mut lines = lines(ringmain_mb_gcm_key_size());
        let (key, out) = (session.key().as_ptr(), lines.as_mut_ptr().cast());
        // SAFETY: an initialised manager, of which C only calls a function; a key of 16 or 32 bytes as `is_256` says (`key_len` of the
        // profile); aligned room of at least the size that C asked for.
        unsafe { ringmain_mb_gcm_key(library.address(), key, c_int::from(is_256), out) };
        Some(Self { lines, is_256, library })
    }

    /// Encrypts in place and writes the tag. `iv` has 96 bits.
    pub(crate) fn seal(&self, iv: u128, header: &[u8], payload: &mut [u8], tag: &mut [u8; 16]) {
        let payload_at = payload.as_mut_ptr();
        // SAFETY: the payload is its own source, which the library allows; it is borrowed exclusively, and so is the tag.
        unsafe { self.call(iv, header, payload_at, payload_at, payload.len(), tag) };
    }

    /// Encrypts `clear` into `payload`, which is as long, and writes the tag.
    pub(crate) fn seal_from(&self, iv: u128, header: &[u8], clear: &[u8], payload: &mut [u8], tag: &mut [u8; 16]) {
        let len = clear.len().min(payload.len());
        // SAFETY: both are at least `len` long and do not overlap, one of them being borrowed exclusively, as is the tag.
        unsafe { self.call(iv, header, clear.as_ptr(), payload.as_mut_ptr(), len, tag) };
    }

    /// # Safety
    /// `clear` can be read and `payload` written for `len` bytes; they are the same or apart.
    unsafe fn call(&self, iv: u128, header: &[u8], clear: *const u8, payload: *mut u8, len: usize, tag: &mut [u8; 16]) {
        let key = self.lines.as_ptr().cast();
        // As it lies in memory, big-endian from the front, in two halves.
        let iv = (iv << 32).to_be_bytes();
        let (front, back) = (u128::from_le_bytes(iv) as u64, (u128::from_le_bytes(iv) >> 64) as u64);
        let tag = tag.as_mut_ptr();
        // SAFETY: an initialised manager, of which C only calls a function; a key made for `is_256`; sixteen bytes of tag; the header as
        // long as said; source and destination as this function's caller says.
        unsafe {
            ringmain_mb_gcm_seal(
                self.library.address(),
                key,
                c_int::from(self.is_256),
                front,
                back,
                header.as_ptr(),
                header.len(),
                clear,
                payload,
                len,
                tag,
            );
        };
    }
}

impl Drop for GcmKey {
    fn drop(&mut self) {
        self.lines.iter_mut().for_each(|line| line.0.zeroize());
    }
}

/// The manager that is only asked for its functions.
fn library() -> Option<&'static Memory> {
    static LIBRARY: OnceLock<Option<Memory>> = OnceLock::new();
    LIBRARY.get_or_init(Memory::init).as_ref()
}

/// Jobs and manager, as `struct memory` in shim.c. Wiped when dropped.
struct Memory(Box<[Line]>);

impl Memory {
    /// `None` when the library is not to be used on this CPU.
    fn init() -> Option<Self> {
        // The library looks at the CPU and tests itself through variables of its own.
        static INIT: Mutex<()> = Mutex::new(());
        let _alone = INIT.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = Self(lines(ringmain_mb_memory_size()));
        // SAFETY: zeroed memory of the size that C asked for, aligned to a cache line, that stays where it is; one thread at a time.
        let usable = unsafe { ringmain_mb_init(memory.address_mut()) };
        (usable != 0).then_some(memory)
    }

    fn address(&self) -> *const c_void {
        self.0.as_ptr().cast()
    }

    fn address_mut(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|line| line.0.zeroize());
    }
}

/// The library wants its memory aligned to a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Zeroed lines of `size` bytes or a little more.
fn lines(size: usize) -> Box<[Line]> {
    vec![Line([0; 64]); size.div_ceil(64)].into()
}

/// Of HMAC-SHA1-80.
const TAG_LEN: usize = 10;

unsafe extern "C" {
    safe fn ringmain_mb_memory_size() -> usize;
    fn ringmain_mb_init(memory: *mut c_void) -> c_int;
    safe fn ringmain_mb_version() -> *const c_char;
    fn ringmain_mb_cm_key(memory: *const c_void, key: *const u8, auth: *const u8, out: *mut ExpandedCmKey);
    fn ringmain_mb_cm_seal(memory: *mut c_void, requests: *const Request, count: u32) -> c_int;
    safe fn ringmain_mb_gcm_key_size() -> usize;
    fn ringmain_mb_gcm_key(memory: *const c_void, key: *const u8, is_256: c_int, out: *mut c_void);
    fn ringmain_mb_gcm_seal(
        memory: *const c_void,
        key: *const c_void,
        is_256: c_int,
        iv_front: u64,
        iv_back: u64,
        header: *const u8,
        header_len: usize,
        clear: *const u8,
        payload: *mut u8,
        payload_len: usize,
        tag: *mut u8,
    );
}
