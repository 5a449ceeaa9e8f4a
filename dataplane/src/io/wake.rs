//! Ending a link's sleep from another thread: an eventfd, and between io_uring links a message from ring to ring.
//!
//! Calls that come before the sleeper looks are one call. Whoever calls puts its news first where the sleeper will find it, and rings only
//! if the sleeper sleeps; the sleeper looks for calls before it falls asleep, and again when it wakes. So no news is slept through, and
//! a call to somebody who is busy is a swap of one byte.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Ends the sleep of one link, from any thread.
#[derive(Clone, Debug)]
pub struct WakeHandle(Arc<Bell>);

/// The sleeper is awake, and will look before it sleeps.
const AWAKE: u8 = 0;
/// Somebody called.
const CALLED: u8 = 1;
/// Nobody called, and nobody will look unless the bell rings.
const ASLEEP: u8 = 2;

#[derive(Debug)]
struct Bell {
    /// One of the three below.
    state: AtomicU8,
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

    /// One that belongs to no link, for a sleeper that polls [`as_fd`](Self::as_fd) and is taken to be asleep until it was called.
    pub fn detached() -> io::Result<Self> {
        let handle = Self::new(None)?;
        handle.0.state.store(ASLEEP, Ordering::Release);
        Ok(handle)
    }

    /// Readable after a wake-up, until [`silence`](Self::silence).
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }

    /// The sleeper is awake and about to look.
    pub fn silence(&self) {
        // The event first: a call between the two finds the flag set and leaves its news, which the sleeper is about to see. The
        // other way around its event would be drained and its flag left standing, and no further call would ring.
        if self.0.state.load(Ordering::Acquire) == CALLED {
            self.drain_event();
            self.0.state.swap(ASLEEP, Ordering::AcqRel);
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
        Ok(Self(Arc::new(Bell { state: AtomicU8::new(AWAKE), event, ring })))
    }

    /// Whether it is up to the caller to ring: the sleeper sleeps, and nobody did since.
    pub(super) fn claim(&self) -> bool {
        // Acquire and release: the sleeper whose exchange follows in the order of the state sees what was written before the call, and
        // one whose exchange came first is seen to be asleep.
        self.0.state.swap(CALLED, Ordering::AcqRel) == ASLEEP
    }

    /// The sleeper is about to sleep: whether it may, since nobody called.
    pub(super) fn may_sleep(&self) -> bool {
        self.0.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The sleeper looks: whether anyone called.
    pub(super) fn take(&self) -> bool {
        self.0.state.swap(AWAKE, Ordering::AcqRel) == CALLED
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
        assert!(handle.may_sleep() && handle.claim(), "it sleeps: the bell is to ring");
        assert!(!handle.clone().claim());
        assert!(handle.take());
        assert!(!handle.take());
        assert!(handle.may_sleep() && handle.claim());
    }

    #[test]
    fn a_call_to_one_who_is_busy_rings_no_bell_and_is_heard_before_it_sleeps() {
        let handle = WakeHandle::new(None).expect("an eventfd");
        assert!(!handle.claim() && !handle.claim());
        assert!(!handle.may_sleep());
        assert!(handle.take() && handle.may_sleep());
    }

    #[test]
    fn one_of_no_link_is_rung_each_time_that_it_was_silenced() {
        let handle = WakeHandle::detached().expect("an eventfd");
        for _ in 0..3 {
            assert!(handle.claim() && !handle.claim());
            handle.silence();
            handle.silence();
        }
    }
}
