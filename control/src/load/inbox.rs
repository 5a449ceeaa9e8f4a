//! `recvmmsg` with UDP GRO: many datagrams by one system call, and trains that the server sent as one, as one.
//!
//! The only unsafe code of the load generator. It owns the buffers and the headers that point to them.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Buffers for one call.
pub(super) struct Inbox {
    buffers: Box<[[u8; BUFFER_SIZE]]>,
    controls: Box<[Control]>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

/// Room for one control message, aligned as the kernel wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

// SAFETY: the pointers in the headers are to the boxes beside them, which move with it and are bound to no thread.
unsafe impl Send for Inbox {}

impl Inbox {
    pub(super) fn new() -> Self {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let header = libc::mmsghdr {
            msg_hdr: libc::msghdr {
                msg_name: std::ptr::null_mut(),
                msg_namelen: 0,
                msg_iov: std::ptr::null_mut(),
                msg_iovlen: 0,
                msg_control: std::ptr::null_mut(),
                msg_controllen: 0,
                msg_flags: 0,
            },
            msg_len: 0,
        };
        Self {
            buffers: vec![[0; BUFFER_SIZE]; BATCH].into_boxed_slice(),
            controls: vec![Control([0; 64]); BATCH].into_boxed_slice(),
            vectors: vec![empty; BATCH].into_boxed_slice(),
            headers: vec![header; BATCH].into_boxed_slice(),
        }
    }

    /// Takes what waits in `socket`, at most `BATCH` messages; each datagram goes to `take`. Says whether more may wait.
    pub(super) fn receive(&mut self, socket: &UdpSocket, mut take: impl FnMut(&[u8])) -> io::Result<bool> {
        let parts = self.headers.iter_mut().zip(&mut self.vectors).zip(&mut self.buffers).zip(&mut self.controls);
        for (((header, vector), buffer), control) in parts {
            *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: BUFFER_SIZE };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = control.0.len();
        }
        // SAFETY: there are `BATCH` headers, each with one vector and one control buffer of the lengths just written, all of
        // them in boxes of ours that nobody else touches until the call returns.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(false) } else { Err(error) };
        };
        for ((header, buffer), control) in self.headers.iter().zip(&self.buffers).zip(&self.controls).take(count) {
            let bytes = &buffer[..(header.msg_len as usize).min(BUFFER_SIZE)];
            let used = control.0.get(..header.msg_hdr.msg_controllen).unwrap_or_default();
            let segment = segment_size(used).unwrap_or(bytes.len()).max(1);
            bytes.chunks(segment).for_each(&mut take);
        }
        Ok(count == BATCH)
    }
}

/// Asks for trains to be delivered whole; kernels without UDP GRO deliver them singly.
pub(super) fn enable_gro(socket: &UdpSocket) -> bool {
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::UdpGroSegment, &true).is_ok()
}

/// The size of a train's datagrams, from its control message: a `cmsghdr`, then an `int`.
fn segment_size(control: &[u8]) -> Option<usize> {
    let (length, rest) = control.split_first_chunk::<{ size_of::<usize>() }>()?;
    let (level, rest) = rest.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first_chunk::<4>()?;
    let value = rest.first_chunk::<4>()?;
    let is_ours = i32::from_ne_bytes(*level) == libc::SOL_UDP && i32::from_ne_bytes(*kind) == libc::UDP_GRO;
    let is_whole = usize::from_ne_bytes(*length) >= size_of::<libc::cmsghdr>() + 4;
    (is_ours && is_whole).then(|| usize::try_from(i32::from_ne_bytes(*value)).ok())?
}

/// Messages of one call.
const BATCH: usize = 16;
/// The largest train.
const BUFFER_SIZE: usize = 65_536;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let bind = || UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let (from, to) = (bind(), bind());
        from.connect(to.local_addr().expect("bound")).expect("connects");
        (from, to)
    }

    fn receive(inbox: &mut Inbox, socket: &UdpSocket) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while inbox.receive(socket, |datagram| all.push(datagram.to_vec())).expect("receives") {}
        all
    }

    #[test]
    fn more_datagrams_than_a_batch_arrive_in_order_and_an_empty_socket_gives_none() {
        let (from, to) = pair();
        let mut inbox = Inbox::new();
        assert!(receive(&mut inbox, &to).is_empty());
        for index in 0..40_u8 {
            from.send(&vec![index; usize::from(index) + 1]).expect("sends");
        }
        let all = receive(&mut inbox, &to);
        assert_eq!(all.len(), 40);
        assert!(all.iter().zip(0_u8..).all(|(datagram, index)| *datagram == vec![index; usize::from(index) + 1]));
    }

    #[test]
    fn a_train_is_cut_into_its_datagrams() {
        let (from, to) = pair();
        assert!(enable_gro(&to), "every supported kernel has it");
        nix::sys::socket::setsockopt(&from, nix::sys::socket::sockopt::UdpGsoSegment, &100).expect("UDP GSO");
        let sent: Vec<u8> = (0..750).map(|index| (index / 100) as u8).collect();
        from.send(&sent).expect("sends");
        let all = receive(&mut Inbox::new(), &to);
        let expected: Vec<Vec<u8>> = sent.chunks(100).map(<[u8]>::to_vec).collect();
        assert_eq!(all, expected);
    }
}
