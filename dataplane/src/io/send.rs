//! What both kernel links say to the kernel to send a train, and what they do when it refuses.
//!
//! A route may refuse trains though it takes datagrams: the segment is larger than its path MTU (EINVAL, EMSGSIZE), or the device cannot
//! fill in checksums (EIO). Then the train's datagrams go one by one, and trains to that destination, or through that socket, are
//! no longer tried. A datagram that is too long for its path by itself goes in fragments; see [`SocketTable::new`].

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use super::address::Name;
use super::table::SocketTable;
use super::{LinkCounters, SocketIndex, socket};
use crate::buf::{Train, TxBatch};

/// A `msghdr` with everything that it points to. Must stay where it is between `fill` and the end of the send.
#[repr(C)]
pub(super) struct SendHeader {
    message: libc::msghdr,
    bytes: libc::iovec,
    name: Name,
    control: SegmentSize,
}

/// The control message `UDP_SEGMENT`, as `CMSG_DATA` and `CMSG_SPACE` lay it out.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct SegmentSize {
    header: libc::cmsghdr,
    size: u16,
    padding: [u8; 6],
}

// SAFETY: its pointers are to itself, or to an arena that its link owns as well; both move between threads together.
unsafe impl Send for SendHeader {}

impl SendHeader {
    pub(super) fn new() -> Self {
        // SAFETY: a msghdr of null pointers and zero lengths is valid.
        let message: libc::msghdr = unsafe { std::mem::zeroed() };
        // SAFETY: a cmsghdr is three integers.
        let header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        Self {
            message,
            bytes: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
            name: Name::EMPTY,
            control: SegmentSize { header, size: 0, padding: [0; 6] },
        }
    }

    /// Describes the send of a train. The pointer is good until the header is filled again or moves.
    #[inline]
    pub(super) fn fill(&mut self, train: &Train, batch: &TxBatch) -> *const libc::msghdr {
        self.bytes.iov_base = batch.bytes(train).as_ptr().cast_mut().cast::<libc::c_void>();
        self.bytes.iov_len = train.size;
        self.message.msg_namelen = self.name.write(train.path.remote);
        self.message.msg_name = (&raw mut self.name).cast::<libc::c_void>();
        self.message.msg_iov = &raw mut self.bytes;
        self.message.msg_iovlen = 1;
        if train.segments > 1 {
            self.control.header.cmsg_len = CONTROL_LEN as _;
            self.control.header.cmsg_level = libc::SOL_UDP;
            self.control.header.cmsg_type = libc::UDP_SEGMENT;
            self.control.size = train.segment_size as u16;
            self.message.msg_control = (&raw mut self.control).cast::<libc::c_void>();
            self.message.msg_controllen = size_of::<SegmentSize>() as _;
        } else {
            self.message.msg_control = std::ptr::null_mut();
            self.message.msg_controllen = 0;
        }
        &raw const self.message
    }

    /// Where the train that `fill` described goes.
    #[inline]
    pub(super) fn name(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        ((&raw const self.name).cast::<libc::sockaddr>(), self.message.msg_namelen)
    }

    /// What `fill` described, for `sendmmsg`.
    pub(super) fn message(&self) -> libc::msghdr {
        self.message
    }
}

/// Where trains were refused.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    sockets: HashSet<SocketIndex>,
    remotes: HashSet<SocketAddr>,
}

impl Refusals {
    /// Whether this train must go as single datagrams.
    #[inline]
    pub(super) fn cover(&self, train: &Train) -> bool {
        train.segments > 1
            && ((!self.sockets.is_empty() && self.sockets.contains(&train.path.socket))
                || (!self.remotes.is_empty() && self.remotes.contains(&train.path.remote)))
    }

    /// A socket is gone: what is remembered of it does not hold for the next one of its index.
    pub(super) fn forget(&mut self, socket: SocketIndex) {
        self.sockets.remove(&socket);
    }

    /// Remembers a refusal. Whether it may be one of the train, rather than of any datagram on its way.
    fn learn(&mut self, train: &Train, errno: i32) -> bool {
        if train.segments <= 1 {
            return false;
        }
        match errno {
            libc::EIO => {
                self.sockets.insert(train.path.socket);
            }
            libc::EINVAL | libc::EMSGSIZE => {
                if self.remotes.len() >= REFUSED_REMOTES_MAX {
                    self.remotes.clear(); // Each is learnt again at the price of one more refusal.
                }
                self.remotes.insert(train.path.remote);
            }
            _ => return false,
        }
        true
    }
}

/// Counts a train that the kernel took.
#[inline]
pub(super) fn count_sent(train: &Train, counters: &mut LinkCounters) {
    counters.sent += train.segments as u64;
    counters.sent_bytes += train.size as u64;
    counters.trains += 1;
}

/// A train was refused: sends its datagrams one by one or in fragments if that may help, counts them as failed otherwise.
pub(super) fn handle_refusal(
    sockets: &SocketTable,
    train: &Train,
    batch: &TxBatch,
    errno: i32,
    refusals: &mut Refusals,
    counters: &mut LinkCounters,
) {
    let is_too_long = errno == libc::EMSGSIZE && sockets.may_fragment(train.path);
    if refusals.learn(train, errno) {
        counters.gso_fallbacks += 1;
        send_singly(sockets, train, batch, counters);
    } else if is_too_long {
        send_in_fragments(sockets, train, batch, counters);
    } else {
        count_failed(errno, train.segments as u64, counters);
    }
}

/// Sends a train again that was refused as too long for its path, which anybody's ICMP may say: with as few calls as can be. The socket
/// begins with refusing; see [`SocketTable::new`].
#[cold]
fn send_in_fragments(sockets: &SocketTable, train: &Train, batch: &TxBatch, counters: &mut LinkCounters) {
    let Some(socket) = sockets.get_late(train.path.socket) else { return };
    let _ = socket::allow_fragments(socket, true, true);
    send_singly(sockets, train, batch, counters);
    let _ = socket::allow_fragments(socket, true, false); // Or else the kernel fragments from now on, and takes longer.
}

/// Sends the datagrams of a train one by one, without waiting; those that do not fit the path in fragments.
pub(super) fn send_singly(sockets: &SocketTable, train: &Train, batch: &TxBatch, counters: &mut LinkCounters) {
    let Some(socket) = sockets.get_late(train.path.socket) else { return };
    let bytes = batch.bytes(train);
    let mut name = Name::EMPTY;
    let name_size = name.write(train.path.remote);
    for range in train.segment_ranges() {
        let segment = &bytes[range];
        let sent = match send_to(socket, &name, name_size, segment) {
            Err(libc::EMSGSIZE) if sockets.may_fragment(train.path) => in_fragments(socket, &name, name_size, segment),
            sent => sent,
        };
        match sent {
            Ok(()) => {
                counters.sent += 1;
                counters.sent_bytes += segment.len() as u64;
                counters.trains += 1;
            }
            Err(errno) => count_failed(errno, 1, counters),
        }
    }
}

/// Sends a datagram that was refused as too long, on a socket that begins with refusing; see [`SocketTable::new`].
#[cold]
fn in_fragments(socket: &UdpSocket, name: &Name, name_size: u32, bytes: &[u8]) -> Result<(), i32> {
    socket::allow_fragments(socket, true, true).map_err(|_| libc::EMSGSIZE)?;
    let sent = send_to(socket, name, name_size, bytes);
    let _ = socket::allow_fragments(socket, true, false); // Or else the kernel fragments from now on, and takes longer.
    sent
}

fn send_to(socket: &UdpSocket, name: &Name, name_size: u32, bytes: &[u8]) -> Result<(), i32> {
    // SAFETY: `bytes` and `name` live through the call and are as long as said.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast::<libc::c_void>(),
            bytes.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            std::ptr::from_ref(name).cast::<libc::sockaddr>(),
            name_size,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(()) }
}

fn count_failed(errno: i32, datagrams: u64, counters: &mut LinkCounters) {
    counters.send_failed += datagrams;
    if errno == libc::EAGAIN || errno == libc::ENOBUFS {
        counters.send_blocked += datagrams;
    }
}

/// Destinations remembered to refuse trains.
const REFUSED_REMOTES_MAX: usize = 1024;

/// `CMSG_LEN(2)`: the size stands right behind the header.
const CONTROL_LEN: usize = size_of::<libc::cmsghdr>() + size_of::<u16>();
const _: () = assert!(std::mem::offset_of!(SegmentSize, size) == size_of::<libc::cmsghdr>());
// SAFETY: CMSG_SPACE only calculates.
const _: () = assert!(size_of::<SegmentSize>() == unsafe { libc::CMSG_SPACE(2) } as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Path, socket};

    fn train(socket: u16, port: u16, segments: usize) -> Train {
        let path = Path { socket: SocketIndex(socket), remote: ([127, 0, 0, 1], port).into() };
        Train { path, offset: 0, size: segments * 10, segment_size: 10, segments }
    }

    #[test]
    fn a_device_without_checksums_is_remembered_for_its_socket() {
        let mut refusals = Refusals::default();
        assert!(refusals.learn(&train(1, 5, 2), libc::EIO));
        assert!(refusals.cover(&train(1, 6, 2)));
        assert!(!refusals.cover(&train(0, 5, 2)));
        assert!(!refusals.cover(&train(1, 6, 1)), "a single datagram needs no help");
        refusals.forget(SocketIndex(1));
        assert!(!refusals.cover(&train(1, 6, 2)), "another socket may take the index");
    }

    #[test]
    fn a_small_mtu_is_remembered_for_its_destination_and_the_memory_is_bounded() {
        let mut refusals = Refusals::default();
        assert!(refusals.learn(&train(0, 5, 2), libc::EINVAL));
        assert!(refusals.cover(&train(0, 5, 2)));
        assert!(!refusals.cover(&train(0, 6, 2)));
        for port in 0..5000 {
            refusals.learn(&train(0, port, 2), libc::EMSGSIZE);
            assert!(refusals.cover(&train(0, port, 2)) && refusals.remotes.len() <= REFUSED_REMOTES_MAX);
        }
    }

    #[test]
    fn other_errors_are_no_fault_of_the_train() {
        for errno in [libc::EPERM, libc::ENETUNREACH, libc::EHOSTUNREACH, libc::ECONNREFUSED, libc::EAGAIN] {
            assert!(!Refusals::default().learn(&train(0, 5, 2), errno));
        }
        assert!(!Refusals::default().learn(&train(0, 5, 1), libc::EINVAL), "a single datagram cannot be split");
    }

    #[test]
    fn a_refused_train_arrives_in_single_datagrams() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let sender = socket::bind("127.0.0.1:0".parse().expect("an address")).expect("loopback");
        let sockets = SocketTable::new(vec![sender]);
        let mut batch = TxBatch::new(4096, 4);
        let path = Path { socket: SocketIndex(0), remote: receiver.local_addr().expect("bound") };
        for size in [100, 100, 70] {
            batch.reserve(path, 100).expect("room").commit(size);
        }
        let (mut refusals, mut counters) = (Refusals::default(), LinkCounters::default());
        handle_refusal(&sockets, &batch.trains()[0], &batch, libc::EIO, &mut refusals, &mut counters);
        let sizes = [(); 3].map(|()| receiver.recv(&mut [0; 2000]).expect("sent"));
        assert_eq!(sizes, [100, 100, 70]);
        assert_eq!((counters.sent, counters.trains, counters.gso_fallbacks, counters.send_failed), (3, 3, 1, 0));
        handle_refusal(&sockets, &batch.trains()[0], &batch, libc::ENETUNREACH, &mut refusals, &mut counters);
        assert_eq!((counters.sent, counters.send_failed), (3, 3));
    }
}
