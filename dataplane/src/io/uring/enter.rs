//! `io_uring_enter` with everything that a turn wants of it in one call, by the ring's registered descriptor.
//! The `io-uring` crate keeps a registered descriptor only as long as it borrows the ring, so these two calls are made here.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// How a ring is entered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    fd: i32,
    flags: libc::c_uint,
}

impl Gate {
    /// By the ring's own descriptor.
    pub(super) fn plain(ring: RawFd) -> Self {
        Self { fd: ring, flags: 0 }
    }

    /// By a descriptor registered for this thread, which spares the kernel a look-up per call; by the ring's own where that fails.
    pub(super) fn registered(ring: RawFd) -> Self {
        let mut update = ResourceUpdate { offset: u32::MAX, reserved: 0, data: ring as u64 };
        // SAFETY: one update, which lives through the call.
        let done = unsafe {
            libc::syscall(libc::SYS_io_uring_register, ring, REGISTER_RING_FDS, &raw mut update, 1 as libc::c_uint)
        };
        if done == 1 { Self { fd: update.offset as i32, flags: ENTER_REGISTERED_RING } } else { Self::plain(ring) }
    }

    /// Takes the registration back.
    pub(super) fn close(&mut self, ring: RawFd) {
        if self.flags & ENTER_REGISTERED_RING != 0 {
            let mut update = ResourceUpdate { offset: self.fd as u32, reserved: 0, data: 0 };
            // SAFETY: one update, which lives through the call.
            unsafe {
                libc::syscall(
                    libc::SYS_io_uring_register,
                    ring,
                    UNREGISTER_RING_FDS,
                    &raw mut update,
                    1 as libc::c_uint,
                )
            };
            *self = Self::plain(ring);
        }
    }

    /// Submits `submit` entries, runs what the kernel deferred, and waits for `want` completions or the timeout.
    pub(super) fn enter(&self, submit: usize, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        let time = timeout.map(|timeout| Timespec {
            seconds: timeout.as_secs().min(i32::MAX as u64) as i64,
            nanoseconds: i64::from(timeout.subsec_nanos()),
        });
        let argument = EventsArgument {
            mask: 0,
            mask_size: 0,
            min_wait_us: 0,
            time: time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
        };
        // SAFETY: the argument and the time it points to live through the call. Whoever pushed the entries answers for them.
        let done = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd,
                submit as libc::c_uint,
                want as libc::c_uint,
                ENTER_GETEVENTS | ENTER_EXT_ARG | self.flags,
                &raw const argument,
                size_of::<EventsArgument>(),
            )
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct EventsArgument {
    mask: u64,
    mask_size: u32,
    min_wait_us: u32,
    time: *const Timespec,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

const ENTER_GETEVENTS: libc::c_uint = 1 << 0;
const ENTER_EXT_ARG: libc::c_uint = 1 << 3;
const ENTER_REGISTERED_RING: libc::c_uint = 1 << 4;
pub(super) const REGISTER_RING_FDS: libc::c_uint = 20;
pub(super) const UNREGISTER_RING_FDS: libc::c_uint = 21;
const _: () = assert!(size_of::<*const Timespec>() == 8, "io_uring's argument has a 64-bit pointer");
