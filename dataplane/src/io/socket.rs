//! The UDP sockets of a link: one for each local address, so that answers leave from the address that was asked.
//! They do not queue ICMP errors (`IP_RECVERR` stays off): what a stranger's host refuses must not come back through our reads.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

/// Bytes that the kernel may hold for us in each direction while we are in a turn. 4 MiB is 2 ms of 10 Gb/s with its bookkeeping.
pub const SOCKET_BUFFER_SIZE: usize = 4 * 1024 * 1024;

/// The same for a relay socket, of which there are thousands: half a second of 4 Mb/s, or a burst of a hundred large datagrams.
pub const RELAY_BUFFER_SIZE: usize = 256 * 1024;

/// Binds a UDP socket. IPv6 sockets take IPv6 only: IPv4 gets its own, so that no address has two forms.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    bind_sized(address, SOCKET_BUFFER_SIZE)
}

/// Binds the UDP socket of a relay. With `dont_fragment`, what does not fit the path is refused instead of sent in fragments.
pub fn bind_relay(address: SocketAddr, dont_fragment: bool) -> io::Result<UdpSocket> {
    let socket = bind_sized(address, RELAY_BUFFER_SIZE)?;
    if dont_fragment {
        allow_fragments(&socket, address.is_ipv4(), false)?;
    }
    Ok(socket)
}

/// Whether the kernel sends in fragments what does not fit the path, or refuses it with EMSGSIZE. It begins with the former.
pub(super) fn allow_fragments(socket: &UdpSocket, v4: bool, allowed: bool) -> io::Result<()> {
    let (level, option, value) = match (v4, allowed) {
        (true, true) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT),
        (true, false) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        (false, true) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT),
        (false, false) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
    };
    let value: libc::c_int = value;
    // SAFETY: the option's value is an int, which lives through the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast::<libc::c_void>(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Binds a UDP socket that others of this process are bound to as well; the kernel gives each remote address to one of them.
pub fn bind_shared(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = new_socket(address)?;
    socket.set_reuse_port(true)?;
    bound(&socket, address, SOCKET_BUFFER_SIZE)?;
    Ok(socket.into())
}

fn bind_sized(address: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
    let socket = new_socket(address)?;
    bound(&socket, address, buffer)?;
    Ok(socket.into())
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bound(socket: &Socket, address: SocketAddr, buffer: usize) -> io::Result<()> {
    widen(socket, buffer, libc::SO_RCVBUFFORCE, Socket::set_recv_buffer_size);
    widen(socket, buffer, libc::SO_SNDBUFFORCE, Socket::set_send_buffer_size);
    socket.bind(&address.into())
}

/// Datagrams that the kernel dropped at this socket, mostly for want of room; zero when it does not tell.
pub(super) fn dropped(fd: RawFd) -> u64 {
    let mut info = [0u32; MEMINFO_WORDS];
    let mut size = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to `info`, and the size to `size`.
    let done = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, info.as_mut_ptr().cast::<libc::c_void>(), &mut size)
    };
    if done < 0 { 0 } else { u64::from(info[MEMINFO_DROPS]) }
}

/// Without the right to go over the host's limit (`net.core.rmem_max`, `wmem_max`), up to that limit. Smaller is slower, not wrong.
fn widen(socket: &Socket, buffer: usize, force: libc::c_int, plain: fn(&Socket, usize) -> io::Result<()>) {
    let size = buffer as libc::c_int;
    // SAFETY: the option's value is an int, which lives through the call.
    let forced = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            force,
            (&raw const size).cast::<libc::c_void>(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    if forced < 0 {
        let _ = plain(socket, buffer);
    }
}

/// `SK_MEMINFO_VARS` and `SK_MEMINFO_DROPS` of `linux/sock_diag.h`.
const MEMINFO_WORDS: usize = 9;
const MEMINFO_DROPS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_a_full_socket_are_told() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let small = Socket::from(receiver.try_clone().expect("a descriptor"));
        small.set_recv_buffer_size(4096).expect("any socket may have less");
        let sender = bind("127.0.0.1:0".parse().expect("an address")).expect("loopback");
        for _ in 0..64 {
            sender.send_to(&[0; 1000], receiver.local_addr().expect("bound")).expect("loopback takes it");
        }
        assert!(dropped(receiver.as_raw_fd()) > 30);
        assert_eq!(dropped(sender.as_raw_fd()), 0);
    }

    #[test]
    fn both_families_can_have_one_port() {
        // Some other program may have the port on IPv4, but not each of sixteen.
        let both = (0..16).any(|_| {
            let v6 = bind("[::]:0".parse().expect("an address")).expect("IPv6");
            let port = v6.local_addr().expect("bound").port();
            bind(SocketAddr::from(([0, 0, 0, 0], port))).is_ok()
        });
        assert!(both, "IPV6_V6ONLY leaves IPv4 free");
    }
}
