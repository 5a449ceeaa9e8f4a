//! What datagrams go out to, lighter than real receivers, so that the sender is what is measured.
//!
//! * *Loopback*: bound sockets that nobody reads. Their buffers are full, so the sender pays for the route and the delivery, up to
//!   where a datagram finds no room.
//! * *Cable*: a virtual Ethernet pair, in a network namespace without a name, with an [`xdp`] program at the far end that counts and
//!   drops. The sender pays for the whole way through the stack and the driver. The namespace belongs to a thread: however the
//!   process ends, the kernel takes it away with everything in it, and the host's network is never touched.

pub mod xdp;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};

use ringmain_dataplane::io::socket;
use socket2::{Domain, Socket, Type};

/// A way out.
pub struct Wire {
    end: End,
}

enum End {
    Loopback(Vec<UdpSocket>),
    Cable { number: u8, counter: xdp::Counter },
}

impl Wire {
    pub fn loopback() -> Self {
        Self { end: End::Loopback(Vec::new()) }
    }

    /// A cable of this thread's namespace; see [`in_own_network`].
    pub fn cable(number: u8) -> Result<Self, String> {
        assert!(usize::from(number) < CABLES_MAX, "each has its part of the addresses");
        let (near, far) = (format!("near{number}"), format!("far{number}"));
        let (host, peer) = (format!("10.99.{number}.1/30"), format!("10.99.{number}.2"));
        ip(&["link", "add", &near, "type", "veth", "peer", "name", &far])?;
        ip(&["address", "add", &host, "dev", &near])?;
        ip(&["link", "set", &near, "up"])?;
        ip(&["link", "set", &far, "up"])?;
        ip(&["neighbour", "replace", &peer, "lladdr", "02:00:00:00:00:01", "dev", &near, "nud", "permanent"])?;
        ip(&["route", "add", &format!("{}/20", network(number)), "via", &peer, "dev", &near])?;
        Ok(Self { end: End::Cable { number, counter: xdp::Counter::attach(&far)? } })
    }

    pub fn name(&self) -> &'static str {
        match self.end {
            End::Loopback(_) => "loopback",
            End::Cable { .. } => "veth",
        }
    }

    /// So many different places to send to.
    pub fn remotes(&mut self, count: usize) -> Vec<SocketAddr> {
        match &mut self.end {
            End::Loopback(sinks) => {
                sinks.resize_with(SINKS, sink);
                let ports: Vec<u16> = sinks.iter().map(|sink| sink.local_addr().expect("bound").port()).collect();
                let host = |index: usize| Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + (index / SINKS) as u32);
                (0..count).map(|index| (host(index), ports[index % SINKS]).into()).collect()
            }
            End::Cable { number, .. } => {
                let first = u32::from(network(*number));
                let place = |index: u32| (Ipv4Addr::from(first + 1 + index % HOSTS), 4_000 + (index / HOSTS) as u16);
                (0..count as u32).map(|index| place(index).into()).collect()
            }
        }
    }

    /// Datagrams that came to the other end, where that is known.
    pub fn arrived(&self) -> Option<u64> {
        match &self.end {
            End::Loopback(_) => None,
            End::Cable { counter, .. } => Some(counter.read()),
        }
    }
}

/// A socket to send from, with a worker's buffers. A link of ours tells its sockets not to fragment, which spares the kernel some work;
/// whoever uses it otherwise has what any program has.
pub fn socket() -> UdpSocket {
    socket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).expect("any port")
}

/// Runs `work` on a thread with a network namespace of its own, which has a loopback and nothing else. Needs root.
pub fn in_own_network<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    let body = || {
        xdp::leave_network().map_err(|error| format!("a network namespace of its own needs root ({error})"))?;
        ip(&["link", "set", "lo", "up"])?;
        // Neighbour discovery would be counted.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        Ok(work())
    };
    std::thread::scope(|scope| match scope.spawn(body).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// A socket that nobody reads, with the least room that the kernel gives, filled up. At all of 127.0.0.0/8, so that it is many places.
fn sink() -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    socket.set_recv_buffer_size(1).expect("any socket may have less");
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).expect("any port");
    let socket = UdpSocket::from(socket);
    let sender = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let to = (Ipv4Addr::LOCALHOST, socket.local_addr().expect("bound").port());
    (0..8).for_each(|_| assert!(sender.send_to(&[0; 1000], to).is_ok(), "loopback takes it"));
    socket
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run ip: {error}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {}", arguments.join(" "), told.trim())) }
}

/// RFC 2544's range, 198.18.0.0/15, in pieces of 4096 addresses.
fn network(cable: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (u32::from(cable) << 12))
}

/// Sockets of a loopback; each is on many addresses.
const SINKS: usize = 64;
const HOSTS: u32 = 4_000;
const CABLES_MAX: usize = 32;
