//! Ending a link's sleep from another thread: an eventfd, and between io_uring links a message from ring to ring.
//!
//! Calls that come before the sleeper looks are one call. Whoever calls first puts its news where the sleeper will find it; the sleeper
//! clears the flag before it looks. So no news is slept through.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends the sleep of one link, from any thread.
#[derive(Clone, Debug)]
pub struct WakeHandle(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    /// Rung and not yet heard.
    rung: AtomicBool,
    event: OwnedFd,
    /// The sleeper's ring, if it has one: a descriptor of our own, so that its number cannot come to mean another file.
    ring: Option<OwnedFd>,
}

impl WakeHandle {
    /// Ends the link's sleep, or keeps it from falling asleep. Never waits.
    pub fn wake(&self) {
        if self.claim() {
            self.write_event();
        }
    }

    /// One that belongs to no link, for a sleeper that polls [`as_fd`](Self::as_fd).
    pub fn detached() -> io::Result<Self> {
        Self::new(None)
    }

    /// Readable after a wake-up, until [`silence`](Self::silence).
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }

    /// The sleeper is awake and about to look.
    pub fn silence(&self) {
        // The event first: a call between the two finds the flag set and leaves its news, which the sleeper is about to see. The
        // other way around its event would be drained and its flag left standing, and no further call would ring.
        if self.0.rung.load(Ordering::Acquire) {
            self.drain_event();
            self.take();
        }
    }

    pub(super) fn new(ring: Option<OwnedFd>) -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and owned by nobody else.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(Arc::new(Bell { rung: AtomicBool::new(false), event, ring })))
    }

    /// Whether it is up to the caller to ring: nobody did since the sleeper last looked.
    pub(super) fn claim(&self) -> bool {
        // Acquire and release: whoever sees the flag set knows that the one who set it rings, and the sleeper that clears it sees
        // what was written before either call.
        !self.0.rung.swap(true, Ordering::AcqRel)
    }

    /// The sleeper looks: whether anyone called.
    pub(super) fn take(&self) -> bool {
        self.0.rung.swap(false, Ordering::AcqRel)
    }

    /// Rings by eventfd. Nobody reads its count, whose only use is that a write makes it ready anew.
    pub(super) fn write_event(&self) {
        // SAFETY: no pointers; the descriptor is open as long as `self`. It fails only at a count of 2^64 - 1, when it is ready anyway.
        unsafe { libc::eventfd_write(self.0.event.as_raw_fd(), 1) };
    }

    /// Makes the eventfd not ready, for a sleeper that goes by its level.
    pub(super) fn drain_event(&self) {
        let mut count = 0;
        // SAFETY: `count` is an eventfd_t to be written. Not ready is fine.
        unsafe { libc::eventfd_read(self.0.event.as_raw_fd(), &mut count) };
    }

    pub(super) fn event_fd(&self) -> RawFd {
        self.0.event.as_raw_fd()
    }

    pub(super) fn ring_fd(&self) -> Option<RawFd> {
        self.0.ring.as_ref().map(AsRawFd::as_raw_fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_before_the_sleeper_looks_are_one() {
        let handle = WakeHandle::new(None).expect("an eventfd");
        assert!(handle.claim());
        assert!(!handle.clone().claim());
        assert!(handle.take());
        assert!(!handle.take());
        assert!(handle.claim());
    }
}
