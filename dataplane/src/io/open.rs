//! Picks a link for a worker, and says in words that an operator can act on why it is not the one wished for.

use std::net::UdpSocket;
use std::{fmt, fs, io};

use super::Link;
use super::mmsg::MmsgLink;
use super::uring::UringLink;

/// Which link to open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LinkChoice {
    /// io_uring where it is to be had, else `recvmmsg` and `sendmmsg`.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// `recvmmsg` and `sendmmsg`.
    Mmsg,
}

/// A link, and why it is not on io_uring though it might have been.
pub struct Opened {
    /// What was opened.
    pub link: Box<dyn Link>,
    /// For one line in the log.
    pub fallback: Option<String>,
}

/// No link; what to change is in the text.
#[derive(Debug)]
pub struct OpenError(String);

/// The step at which the kernel would not have an io_uring link.
#[derive(Debug)]
pub struct Unavailable {
    /// A system call, or an argument of one.
    pub step: &'static str,
    /// What it said.
    pub error: io::Error,
}

/// Opens a link over bound sockets. A [`SocketIndex`](super::SocketIndex) is a place in this list.
pub fn open(choice: LinkChoice, sockets: Vec<UdpSocket>) -> Result<Opened, OpenError> {
    open_by(choice, sockets, |sockets| UringLink::open(sockets).map(|link| Box::new(link) as Box<dyn Link>))
}

fn open_by(
    choice: LinkChoice,
    sockets: Vec<UdpSocket>,
    uring: impl FnOnce(Vec<UdpSocket>) -> Result<Box<dyn Link>, (Unavailable, Vec<UdpSocket>)>,
) -> Result<Opened, OpenError> {
    if choice == LinkChoice::Mmsg {
        return open_mmsg(sockets, None);
    }
    match uring(sockets) {
        Ok(link) => Ok(Opened { link, fallback: None }),
        Err((unavailable, sockets)) => {
            let reason = explain(&unavailable, sysctl());
            match choice {
                LinkChoice::IoUring => Err(OpenError(format!("io_uring was asked for and is not available: {reason}"))),
                _ => open_mmsg(sockets, Some(reason)),
            }
        }
    }
}

fn open_mmsg(sockets: Vec<UdpSocket>, fallback: Option<String>) -> Result<Opened, OpenError> {
    let link =
        MmsgLink::open(sockets).map_err(|error| OpenError(format!("cannot open a link on recvmmsg: {error}")))?;
    Ok(Opened { link: Box::new(link), fallback })
}

/// The cause, and what to change. `disabled` is `kernel.io_uring_disabled`, where it can be read.
fn explain(unavailable: &Unavailable, disabled: Option<u8>) -> String {
    let Unavailable { step, error } = unavailable;
    let advice = match (error.raw_os_error(), disabled) {
        (Some(libc::EPERM | libc::EACCES), Some(2)) => "kernel.io_uring_disabled is 2: set this sysctl to 0",
        (Some(libc::EPERM | libc::EACCES), Some(1)) => {
            "kernel.io_uring_disabled is 1: set this sysctl to 0, or add this user's group as kernel.io_uring_group"
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "kernel.io_uring_disabled does not forbid it, so a seccomp filter does, such as a container's default profile: \
             allow io_uring_setup, io_uring_enter and io_uring_register"
        }
        (Some(libc::ENOSYS), _) => "the kernel was built without io_uring, or a sandbox hides it",
        (Some(libc::ENOMEM), _) => {
            "no memory: raise the limit of locked memory (ulimit -l, LimitMEMLOCK) or of the cgroup"
        }
        (Some(libc::EMFILE | libc::ENFILE), _) => "too many open files: raise ulimit -n, LimitNOFILE",
        (Some(libc::EINVAL), _) => "the kernel is older than 6.1",
        (None, _) if error.kind() == io::ErrorKind::Unsupported => "the kernel is too old",
        _ => "unexpected",
    };
    format!("{step}: {error}: {advice}")
}

fn sysctl() -> Option<u8> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("link", &self.link.name()).field("fallback", &self.fallback).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::socket;

    fn refusing(errno: i32, choice: LinkChoice) -> Result<Opened, OpenError> {
        let sockets = vec![socket::bind("127.0.0.1:0".parse().expect("an address")).expect("loopback")];
        open_by(choice, sockets, |sockets| {
            let error = io::Error::from_raw_os_error(errno);
            Err((Unavailable { step: "io_uring_setup", error }, sockets))
        })
    }

    #[test]
    fn auto_opens_a_link_that_works_on_any_host() {
        let sockets = vec![socket::bind("127.0.0.1:0".parse().expect("an address")).expect("loopback")];
        let mut opened = open(LinkChoice::Auto, sockets).expect("one of them");
        println!("{opened:?}");
        assert_eq!(opened.fallback.is_some(), opened.link.name() == "mmsg");
        opened.link.receive(Some(std::time::Duration::ZERO)).expect("works");
    }

    #[test]
    fn where_io_uring_is_forbidden_the_other_link_is_opened_on_the_same_sockets() {
        for errno in [libc::EPERM, libc::ENOSYS, libc::ENOMEM, libc::EMFILE, libc::EINVAL] {
            let mut opened = refusing(errno, LinkChoice::Auto).expect("falls back");
            assert_eq!(opened.link.name(), "mmsg");
            assert!(opened.fallback.expect("says why").contains("io_uring_setup"));
            opened.link.receive(Some(std::time::Duration::ZERO)).expect("works");
        }
    }

    #[test]
    fn where_io_uring_is_forbidden_and_asked_for_it_is_an_error_that_says_what_to_change() {
        let error = refusing(libc::EPERM, LinkChoice::IoUring).expect_err("forbidden").to_string();
        assert!(error.contains("io_uring_disabled") && error.contains("asked for"), "{error}");
    }

    #[test]
    fn io_uring_is_not_tried_when_not_wanted() {
        assert_eq!(refusing(libc::EPERM, LinkChoice::Mmsg).expect("opens").fallback, None);
    }

    #[test]
    fn the_cause_is_told_apart() {
        let say =
            |errno, disabled| explain(&Unavailable { step: "s", error: io::Error::from_raw_os_error(errno) }, disabled);
        assert!(say(libc::EPERM, Some(2)).contains("is 2"));
        assert!(say(libc::EPERM, Some(1)).contains("io_uring_group"));
        assert!(say(libc::EPERM, Some(0)).contains("seccomp"));
        assert!(say(libc::ENOSYS, None).contains("built without"));
        assert!(say(libc::ENOMEM, Some(0)).contains("LimitMEMLOCK"));
        assert!(say(libc::EINVAL, Some(0)).contains("6.1"));
    }
}
