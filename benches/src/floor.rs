//! The floor under a forwarded packet: what the cipher and the kernel cost by themselves. No server, and none of its code: messages that
//! were described once, sealed in place with AES-128-GCM under a key for each destination, and given to the kernel again and again,
//! by `sendmmsg` or by io_uring.

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use io_uring::{IoUring, opcode, types::Fixed};

use crate::measure::cpu_of;

/// What carries the messages to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    IoUring,
    Mmsg,
}

impl Carrier {
    pub const ALL: [Carrier; 2] = [Carrier::IoUring, Carrier::Mmsg];

    pub fn name(self) -> &'static str {
        if self == Carrier::IoUring { "io_uring" } else { "mmsg" }
    }
}

/// Trains to many destinations, again and again.
pub struct Floor {
    socket: UdpSocket,
    ring: Option<IoUring>,
    arena: Box<[u8]>,
    keys: Vec<LessSafeKey>,
    calls: Vec<Call>,
    number: u64,
    datagrams: usize,
    sealed: bool,
}

/// What is given to the kernel at once. Its messages point into the boxes beside them and into the arena.
struct Call {
    messages: Box<[libc::mmsghdr]>,
    _parts: Box<[Parts]>,
    /// Where each datagram lies, and whose key it takes.
    datagrams: Vec<(usize, usize, usize)>,
}

struct Parts {
    name: libc::sockaddr_in,
    bytes: libc::iovec,
    segments: Control,
}

/// The control message `UDP_SEGMENT`.
#[repr(C, align(8))]
struct Control {
    header: libc::cmsghdr,
    size: u16,
}

/// RTP header and extensions, which are authenticated only.
const HEADER: usize = 24;
const TAG: usize = 16;
/// Messages of one system call, at most: io_uring's queue, and what stays in the cache.
const MESSAGES_MAX: usize = 64;
const ARENA_SIZE: usize = 256 * 1024;

impl Floor {
    /// To each remote a train of so many datagrams of `size` bytes; `sealed` or sent as they are. The error says why not.
    pub fn new(
        carrier: Carrier,
        socket: UdpSocket,
        remotes: &[SocketAddr],
        train: usize,
        size: usize,
        sealed: bool,
    ) -> Result<Self, String> {
        let ring = if carrier == Carrier::IoUring { Some(ring(&socket)?) } else { None };
        let mut arena = vec![0x5a; ARENA_SIZE].into_boxed_slice();
        let per_call = MESSAGES_MAX.min(ARENA_SIZE / (train * size));
        let key = |index: usize| {
            let mut bytes = [7; 16];
            bytes[..8].copy_from_slice(&index.to_le_bytes());
            LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &bytes).expect("16 bytes"))
        };
        let calls = remotes
            .chunks(per_call)
            .enumerate()
            .map(|(number, remotes)| Call::new(remotes, number * per_call, &mut arena, train, size));
        Ok(Self {
            calls: calls.collect(),
            socket,
            ring,
            arena,
            keys: (0..remotes.len()).map(key).collect(),
            number: 0,
            datagrams: remotes.len() * train,
            sealed,
        })
    }

    /// Seals and sends everything once. The CPU time that it took.
    pub fn send(&mut self) -> Duration {
        cpu_of(|| {
            for call in &mut self.calls {
                if self.sealed {
                    for &(offset, size, key) in &call.datagrams {
                        self.number += 1;
                        seal(&self.keys[key], self.number, &mut self.arena[offset..offset + size]);
                    }
                }
                match &mut self.ring {
                    Some(ring) => send_by_ring(ring, call),
                    None => send_by_mmsg(&self.socket, call),
                }
            }
        })
    }

    /// How many one `send` sends.
    pub fn datagrams(&self) -> usize {
        self.datagrams
    }
}

/// As SRTP does it (RFC 7714): the header is authenticated, the rest encrypted in place, the tag behind it.
pub fn seal(key: &LessSafeKey, number: u64, datagram: &mut [u8]) {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    let (header, rest) = datagram.split_at_mut(HEADER);
    let (payload, tag) = rest.split_at_mut(rest.len() - TAG);
    let sealed = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&*header), payload)
        .expect("far below the cipher's bound");
    tag.copy_from_slice(sealed.as_ref());
}

impl Call {
    fn new(remotes: &[SocketAddr], first_key: usize, arena: &mut [u8], train: usize, size: usize) -> Self {
        let mut parts: Box<[Parts]> = remotes
            .iter()
            .zip(arena.chunks_exact_mut(train * size))
            .map(|(&remote, bytes)| Parts {
                name: name(remote),
                bytes: libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() },
                segments: Control {
                    header: libc::cmsghdr {
                        cmsg_len: (size_of::<libc::cmsghdr>() + size_of::<u16>()) as _,
                        cmsg_level: libc::SOL_UDP,
                        cmsg_type: libc::UDP_SEGMENT,
                    },
                    size: size as u16,
                },
            })
            .collect();
        let message = |parts: &mut Parts| {
            // SAFETY: a msghdr of null pointers and zero lengths is valid.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_name = (&raw mut parts.name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as _;
            header.msg_iov = &raw mut parts.bytes;
            header.msg_iovlen = 1;
            if train > 1 {
                header.msg_control = (&raw mut parts.segments).cast();
                header.msg_controllen = size_of::<Control>() as _;
            }
            libc::mmsghdr { msg_hdr: header, msg_len: 0 }
        };
        let messages = parts.iter_mut().map(message).collect();
        let datagrams =
            (0..remotes.len() * train).map(|number| (number * size, size, first_key + number / train)).collect();
        Self { messages, _parts: parts, datagrams }
    }
}

fn send_by_mmsg(socket: &UdpSocket, call: &mut Call) {
    let mut done = 0;
    while done < call.messages.len() {
        let rest = &mut call.messages[done..];
        // SAFETY: the messages point into boxes of the call and into the arena, all of which live through it.
        let sent =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, libc::MSG_DONTWAIT) };
        assert!(sent > 0, "the kernel takes every train: {}", std::io::Error::last_os_error());
        done += sent as usize;
    }
}

fn send_by_ring(ring: &mut IoUring, call: &mut Call) {
    for message in &call.messages {
        let entry = opcode::SendMsg::new(Fixed(0), &raw const message.msg_hdr).flags(libc::MSG_DONTWAIT as u32).build();
        // SAFETY: the message points into boxes of the call and into the arena; its completion is awaited below.
        unsafe { ring.submission().push(&entry).expect("as many places as messages") };
    }
    let mut missing = call.messages.len();
    while missing > 0 {
        ring.submit_and_wait(missing).expect("a sound ring");
        for completion in ring.completion() {
            assert!(completion.result() > 0, "the kernel takes every train: {}", completion.result());
            missing -= 1;
        }
    }
}

fn ring(socket: &UdpSocket) -> Result<IoUring, String> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(MESSAGES_MAX as u32)
        .map_err(|error| format!("no io_uring: {error}"))?;
    ring.submitter().register_files(&[socket.as_raw_fd()]).map_err(|error| format!("no io_uring: {error}"))?;
    Ok(ring)
}

fn name(remote: SocketAddr) -> libc::sockaddr_in {
    let remote = match remote {
        SocketAddr::V4(remote) => remote,
        SocketAddr::V6(_) => SocketAddrV4::new([0, 0, 0, 0].into(), 0),
    };
    libc::sockaddr_in {
        sin_family: libc::AF_INET as _,
        sin_port: remote.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*remote.ip()).to_be() },
        sin_zero: [0; 8],
    }
}
