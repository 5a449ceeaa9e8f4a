//! Every behaviour of a link, on every kernel link, over IPv4 and IPv6.

mod sockets;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ringmain_shared::limits::RECEIVED_SIZE_MAX;

use super::mmsg::MmsgLink;
use super::uring::UringLink;
use super::*;
use crate::buf::RX_BATCH_MAX;

type Make = fn(Vec<UdpSocket>) -> Box<dyn Link>;

const LINKS: [Make; 2] = [
    |sockets| Box::new(UringLink::open(sockets).map_err(|(why, _)| why).expect("io_uring")),
    |sockets| Box::new(MmsgLink::open(sockets).expect("recvmmsg")),
];
const HOSTS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];
const SECOND: Option<Duration> = Some(Duration::from_secs(1));

fn each(test: impl Fn(Make, SocketAddr)) {
    for make in LINKS {
        for host in HOSTS {
            test(make, host.parse().expect("an address"));
        }
    }
}

/// A link on one socket, its address, and a peer's socket.
fn with_peer(make: Make, host: SocketAddr) -> (Box<dyn Link>, SocketAddr, UdpSocket, SocketAddr) {
    let ours = socket::bind(host).expect("a socket");
    let theirs = socket::bind(host).expect("a socket");
    theirs.set_nonblocking(false).expect("a socket");
    theirs.set_read_timeout(SECOND).expect("a socket");
    let (our_address, their_address) = (ours.local_addr().expect("bound"), theirs.local_addr().expect("bound"));
    (make(vec![ours]), our_address, theirs, their_address)
}

/// What a peer takes in. The kernel's work for a ring that this thread has closed interrupts a wait without any signal.
fn hear(peer: &UdpSocket, bytes: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    loop {
        match peer.recv_from(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn send(link: &mut dyn Link, path: Path, bytes: &[u8]) {
    let (_, out) = link.parts();
    if !out.batch().has_room(bytes.len()) {
        out.flush();
    }
    let mut slot = out.batch().reserve(path, bytes.len()).expect("room after a flush");
    slot.bytes_mut().copy_from_slice(bytes);
    slot.commit(bytes.len());
}

fn submit(link: &mut dyn Link) {
    link.parts().1.flush();
    link.receive(Some(Duration::ZERO)).expect("works");
}

/// Receives until `count` datagrams have come or nothing does any more.
fn collect(link: &mut dyn Link, count: usize) -> Vec<(Path, Vec<u8>)> {
    let (mut all, mut quiet) = (Vec::new(), 0);
    while all.len() < count && quiet < 3 {
        link.receive(Some(Duration::from_millis(300))).expect("works");
        let (rx, _) = link.parts();
        assert!(rx.len() <= RX_BATCH_MAX);
        quiet = if rx.is_empty() { quiet + 1 } else { 0 };
        all.extend((0..rx.len()).map(|index| (rx.path(index), rx.bytes(index).to_vec())));
    }
    all
}

#[test]
fn what_comes_in_can_be_answered() {
    each(|make, host| {
        let (mut link, ours, peer, theirs) = with_peer(make, host);
        peer.send_to(b"ping", ours).expect("sent");
        assert_eq!(link.receive(SECOND).expect("works"), Received { woken: false });
        let (rx, out) = link.parts();
        assert_eq!((rx.len(), rx.path(0).remote, rx.bytes(0)), (1, theirs, &b"ping"[..]));
        rx.bytes_mut(0)[1] = b'o';
        let mut slot = out.batch().reserve(rx.path(0), 100).expect("room");
        slot.bytes_mut()[..4].copy_from_slice(rx.bytes(0));
        slot.commit(4);
        submit(&mut *link);
        let mut answer = [0; 100];
        assert_eq!(hear(&peer, &mut answer).expect("answered"), (4, ours));
        assert_eq!(&answer[..4], b"pong");
        let counters = link.counters();
        assert_eq!((counters.received, counters.received_bytes), (1, 4));
        assert_eq!((counters.sent, counters.sent_bytes, counters.trains, counters.send_failed), (1, 4, 1, 0));
    });
}

#[test]
fn a_datagram_says_which_socket_it_came_by_and_goes_by_the_one_asked_for() {
    for make in LINKS {
        let sockets: Vec<UdpSocket> =
            HOSTS.iter().map(|host| socket::bind(host.parse().expect("an address")).expect("a socket")).collect();
        let ours: Vec<SocketAddr> = sockets.iter().map(|socket| socket.local_addr().expect("bound")).collect();
        let mut link = make(sockets);
        for (index, (&address, host)) in ours.iter().zip(HOSTS).enumerate() {
            let peer = UdpSocket::bind(host).expect("a socket");
            peer.set_read_timeout(SECOND).expect("a socket");
            peer.send_to(&[7; 33], address).expect("sent");
            let came = collect(&mut *link, 1);
            let path = Path { socket: SocketIndex(index as u16), remote: peer.local_addr().expect("bound") };
            assert_eq!(came, [(path, vec![7; 33])]);
            send(&mut *link, path, b"back");
            submit(&mut *link);
            assert_eq!(hear(&peer, &mut [0; 10]).expect("answered"), (4, address));
        }
    }
}

#[test]
fn a_train_arrives_as_the_datagrams_it_was_made_of() {
    each(|make, host| {
        let (mut link, _, peer, theirs) = with_peer(make, host);
        let path = Path { socket: SocketIndex(0), remote: theirs };
        let sizes = [1100, 1100, 1100, 1101, 1101, 400, 1200, 1, 1, 1500, 1500, 1499];
        for (index, &size) in sizes.iter().enumerate() {
            send(&mut *link, path, &vec![index as u8; size]);
        }
        submit(&mut *link);
        for (index, &size) in sizes.iter().enumerate() {
            let mut bytes = [0xff; 2000];
            assert_eq!(hear(&peer, &mut bytes).expect("sent").0, size);
            assert!(bytes[..size].iter().all(|&byte| byte == index as u8), "datagram {index}");
        }
        let counters = link.counters();
        assert_eq!((counters.sent, counters.trains), (12, 5));
    });
}

#[test]
fn bursts_larger_than_an_arena_and_a_batch_arrive_whole() {
    const COUNT: u32 = 3000;
    each(|make, host| {
        let (mut one, _, _, _) = with_peer(make, host);
        let (mut two, address, _, _) = with_peer(make, host);
        let path = Path { socket: SocketIndex(0), remote: address };
        for round in 0..3 {
            for number in 0..COUNT {
                let mut bytes = vec![number as u8; 900 + (number as usize / 7) % 3];
                bytes[..4].copy_from_slice(&number.to_be_bytes());
                send(&mut *one, path, &bytes);
            }
            submit(&mut *one);
            let came = collect(&mut *two, COUNT as usize);
            assert_eq!(came.len(), COUNT as usize, "round {round} on {}", two.name());
            for (number, (_, bytes)) in came.iter().enumerate() {
                assert_eq!(bytes[..4], (number as u32).to_be_bytes());
                assert!(bytes[4..].iter().all(|&byte| byte == number as u8));
            }
        }
        assert_eq!((one.counters().sent, two.counters().received), (9000, 9000));
        assert_eq!((two.counters().rx_full, two.counters().stale), (0, 0));
        assert!(one.counters().trains < 9000 / 2);
    });
}

#[test]
fn two_links_echo_without_loss() {
    each(|make, host| {
        let (mut echo, address, _, _) = with_peer(make, host);
        let (mut load, _, _, _) = with_peer(make, host);
        let bell = echo.wake_handle();
        let thread = std::thread::spawn(move || {
            while !echo.receive(None).expect("works").woken {
                let (rx, out) = echo.parts();
                for index in 0..rx.len() {
                    let bytes = rx.bytes(index);
                    if !out.batch().has_room(bytes.len()) {
                        out.flush();
                    }
                    let mut slot = out.batch().reserve(rx.path(index), bytes.len()).expect("room after a flush");
                    slot.bytes_mut().copy_from_slice(bytes);
                    slot.commit(bytes.len());
                }
                out.flush();
            }
            echo.counters()
        });
        let path = Path { socket: SocketIndex(0), remote: address };
        for _ in 0..100 {
            (0..100).for_each(|_| send(&mut *load, path, &[1; 300]));
            load.parts().1.flush();
            assert_eq!(collect(&mut *load, 100).len(), 100, "{}", load.name());
        }
        bell.wake();
        let counters = thread.join().expect("no panic");
        assert_eq!((counters.received, counters.sent, counters.stale, counters.receive_errors), (10_000, 10_000, 0, 0));
    });
}

#[test]
fn the_timer_ends_the_sleep() {
    for make in LINKS {
        let (mut link, ..) = with_peer(make, HOSTS[0].parse().expect("an address"));
        for wait in [Duration::from_millis(30), Duration::from_micros(300), Duration::ZERO] {
            let start = Instant::now();
            assert_eq!(link.receive(Some(wait)).expect("works"), Received { woken: false });
            assert!(
                start.elapsed() >= wait && start.elapsed() < wait + Duration::from_millis(500),
                "{:?}",
                start.elapsed()
            );
        }
    }
}

#[test]
fn the_timer_holds_with_sends_under_way() {
    for make in LINKS {
        let (mut link, _, _, theirs) = with_peer(make, HOSTS[0].parse().expect("an address"));
        for number in 0..100 {
            send(&mut *link, Path { socket: SocketIndex(0), remote: theirs }, &vec![0; 10 + number]);
        }
        link.parts().1.flush();
        let start = Instant::now();
        link.receive(Some(Duration::from_millis(30))).expect("works");
        assert!(start.elapsed() >= Duration::from_millis(30), "{}: no turn is spent on completions alone", link.name());
    }
}

#[test]
fn a_call_from_another_thread_ends_the_sleep() {
    for make in LINKS {
        let (mut link, ..) = with_peer(make, HOSTS[0].parse().expect("an address"));
        for round in 0..20 {
            let bell = link.wake_handle();
            let caller = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(round % 3));
                bell.wake();
                bell.wake();
            });
            assert!(link.receive(None).expect("works").woken);
            caller.join().expect("no panic");
            // At most one call was made after we looked.
            link.receive(Some(Duration::ZERO)).expect("works");
            link.receive(Some(Duration::ZERO)).expect("works");
            assert!(!link.receive(Some(Duration::from_millis(1))).expect("works").woken, "{}", link.name());
        }
    }
}

#[test]
fn a_call_before_the_sleep_is_not_slept_through() {
    for make in LINKS {
        let (mut link, ..) = with_peer(make, HOSTS[0].parse().expect("an address"));
        link.wake_handle().wake();
        assert!(link.receive(None).expect("works").woken);
        link.wake_handle().wake();
        assert!(link.receive(None).expect("works").woken);
    }
}

#[test]
fn links_of_any_kind_call_each_other() {
    for caller in LINKS {
        for sleeper in LINKS {
            let host = HOSTS[0].parse().expect("an address");
            let (mut caller, ..) = with_peer(caller, host);
            let (mut sleeper, ..) = with_peer(sleeper, host);
            let bell = sleeper.wake_handle();
            let back = caller.wake_handle();
            let start = Instant::now();
            let thread = std::thread::spawn(move || {
                for _ in 0..100 {
                    assert!(sleeper.receive(SECOND).expect("works").woken, "the call was heard");
                    sleeper.parts().1.wake(&back);
                }
                sleeper.receive(Some(Duration::ZERO)).expect("works");
            });
            for _ in 0..100 {
                caller.parts().1.wake(&bell);
                let mut heard = false;
                for _ in 0..10 {
                    heard = caller.receive(Some(Duration::from_millis(100))).expect("works").woken;
                    if heard {
                        break;
                    }
                }
                assert!(heard, "the answer was heard");
            }
            thread.join().expect("no panic");
            assert!(start.elapsed() < Duration::from_secs(2), "calls end the sleep, not the timer");
        }
    }
}

#[test]
fn a_call_to_a_link_that_has_not_begun_is_heard_when_it_does() {
    for caller in LINKS {
        for sleeper in LINKS {
            let host = HOSTS[0].parse().expect("an address");
            let (mut caller, ..) = with_peer(caller, host);
            let (mut sleeper, ..) = with_peer(sleeper, host);
            caller.parts().1.wake(&sleeper.wake_handle());
            caller.receive(Some(Duration::ZERO)).expect("works");
            assert!(sleeper.receive(None).expect("works").woken);
        }
    }
}

#[test]
fn what_nobody_takes_does_no_harm() {
    each(|make, host| {
        let (mut link, ours, peer, theirs) = with_peer(make, host);
        let closed = UdpSocket::bind(host).expect("a socket").local_addr().expect("bound");
        let nowhere = if host.is_ipv4() { "255.255.255.255:9" } else { "[ff0e::1]:9" }.parse().expect("an address");
        for _ in 0..10 {
            for remote in [closed, nowhere, theirs] {
                send(&mut *link, Path { socket: SocketIndex(0), remote }, b"hello");
                send(&mut *link, Path { socket: SocketIndex(0), remote }, b"hello");
            }
            submit(&mut *link);
        }
        (0..10).for_each(|_| assert_eq!(peer.send_to(b"hello", ours).expect("sent"), 5));
        assert_eq!(collect(&mut *link, 10).len(), 10);
        for _ in 0..20 {
            assert_eq!(hear(&peer, &mut [0; 9]).expect("sent").0, 5);
        }
        // A broadcast is refused (EACCES); what a multicast does is up to the routes.
        if host.is_ipv4() {
            assert_eq!(link.counters().send_failed, 20);
        }
    });
}

#[test]
fn a_datagram_that_is_too_long_is_dropped_alone() {
    each(|make, host| {
        let (mut link, ours, peer, _) = with_peer(make, host);
        for size in [RECEIVED_SIZE_MAX, RECEIVED_SIZE_MAX + 1, 9000, 0, 1] {
            peer.send_to(&vec![5; size], ours).expect("sent");
        }
        let sizes: Vec<usize> = collect(&mut *link, 3).iter().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(sizes, [RECEIVED_SIZE_MAX, 0, 1]);
        assert_eq!(link.counters().rx_truncated, 2);
        peer.send_to(b"x", ours).expect("sent");
        assert_eq!(collect(&mut *link, 1).len(), 1);
    });
}

#[test]
fn two_flooded_sockets_fill_a_batch_without_overwriting_each_other() {
    for make in LINKS {
        let sockets: Vec<UdpSocket> =
            HOSTS.iter().map(|host| socket::bind(host.parse().expect("an address")).expect("a socket")).collect();
        for (index, socket) in sockets.iter().enumerate() {
            let peer = UdpSocket::bind(HOSTS[index]).expect("a socket");
            for number in 0..300u32 {
                let size = if number % 3 == 0 { 2000 } else { 100 };
                peer.send_to(&vec![index as u8; size], socket.local_addr().expect("bound")).expect("sent");
            }
        }
        let mut link = make(sockets);
        let came = collect(&mut *link, 400);
        assert_eq!(came.len(), 400);
        assert!(
            came.iter()
                .all(|(path, bytes)| bytes.len() == 100 && bytes.iter().all(|&byte| u16::from(byte) == path.socket.0))
        );
        assert_eq!(link.counters().rx_truncated, 200);
    }
}

#[test]
fn what_the_kernel_had_no_room_for_is_counted() {
    for make in LINKS {
        let (mut link, ours, peer, _) = with_peer(make, HOSTS[0].parse().expect("an address"));
        for _ in 0..20_000 {
            peer.send_to(&[0; 1200], ours).expect("sent");
        }
        let came = collect(&mut *link, 20_000).len() as u64;
        assert!(came < 20_000 && came + link.counters().rx_full == 20_000, "{came} came, {:?}", link.counters());
    }
}

#[test]
fn a_link_that_is_dropped_has_sent_what_was_flushed_and_frees_its_port() {
    each(|make, host| {
        let (mut link, ours, peer, theirs) = with_peer(make, host);
        link.receive(Some(Duration::ZERO)).expect("works");
        let bell = link.wake_handle();
        send(&mut *link, Path { socket: SocketIndex(0), remote: theirs }, b"bye");
        link.parts().1.flush();
        drop(link);
        assert_eq!(hear(&peer, &mut [0; 9]).expect("sent").0, 3);
        socket::bind(ours).expect("the port is free");
        bell.wake();
    });
}

#[test]
fn trains_over_the_path_mtu_are_sent_again_one_by_one() {
    let small_mtu = std::thread::spawn(|| {
        if !enter_network_with_mtu(1280) {
            return eprintln!("not run: making a network namespace takes root");
        }
        for make in LINKS {
            let (mut link, _, peer, theirs) = with_peer(make, HOSTS[0].parse().expect("an address"));
            let path = Path { socket: SocketIndex(0), remote: theirs };
            for _ in 0..3 {
                (0..4).for_each(|_| send(&mut *link, path, &[3; 1400]));
                submit(&mut *link);
                (0..4).for_each(|_| assert_eq!(hear(&peer, &mut [0; 2000]).expect("sent").0, 1400));
            }
            let counters = link.counters();
            assert_eq!((counters.gso_fallbacks, counters.sent, counters.send_failed), (1, 12, 0), "{}", link.name());
        }
    });
    small_mtu.join().expect("no panic");
}

/// Gives the calling thread a network of its own, with nothing but a loopback device of this MTU. False without the right to.
fn enter_network_with_mtu(mtu: i32) -> bool {
    // SAFETY: no pointers; only this thread moves.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return false;
    }
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // SAFETY: an ifreq of zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_mtu = mtu;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: the request lives through the call and has the member that it is about.
    assert_eq!(unsafe { libc::ioctl(fd, libc::SIOCSIFMTU, &raw const request) }, 0);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: as above.
    assert_eq!(unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request) }, 0);
    true
}
