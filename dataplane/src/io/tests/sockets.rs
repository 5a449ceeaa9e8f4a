//! Sockets that come and go while a link runs, on every kernel link.

use super::*;

fn bind() -> UdpSocket {
    bind_at(1)
}

/// On an address of the test's own, where no other test takes a port that came free.
fn bind_at(host: u8) -> UdpSocket {
    socket::bind_relay(([127, 0, 7, host], 0).into(), false).expect("a socket")
}

fn peer() -> (UdpSocket, SocketAddr) {
    let peer = UdpSocket::bind(HOSTS[0]).expect("a socket");
    peer.set_read_timeout(SECOND).expect("a socket");
    let address = peer.local_addr().expect("bound");
    (peer, address)
}

/// The soft limit is 1024 on most hosts.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit lives through the call, which writes nothing else.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the limit lives through the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// A link on one socket; the socket's address.
fn link(make: Make) -> (Box<dyn Link>, SocketAddr) {
    let (link, ours, ..) = with_peer(make, HOSTS[0].parse().expect("an address"));
    (link, ours)
}

#[test]
fn a_socket_taken_in_receives_and_sends_and_its_port_is_free_when_it_is_gone() {
    for make in LINKS {
        for begun in [false, true] {
            let (mut link, _) = link(make);
            if begun {
                link.receive(Some(Duration::ZERO)).expect("works");
            }
            let added = bind_at(3);
            let address = added.local_addr().expect("bound");
            let index = link.open(added).expect("room");
            let (peer, remote) = peer();
            peer.send_to(b"ping", address).expect("sent");
            let path = Path { socket: index, remote };
            assert_eq!(collect(&mut *link, 1), [(path, b"ping".to_vec())]);
            send(&mut *link, path, b"flushed before the socket goes");
            assert!(link.close(index) && !link.close(index));
            (0..2).for_each(|_| _ = link.receive(Some(Duration::ZERO)).expect("works"));
            assert_eq!(hear(&peer, &mut [0; 99]).expect("answered"), (30, address));
            socket::bind(address).expect("the port is free");
            assert!(!link.close(SocketIndex(0)), "the link needs it");
        }
    }
}

#[test]
fn nothing_of_a_closed_socket_comes_any_more() {
    for make in LINKS {
        let (mut link, ours) = link(make);
        let added = bind();
        let address = added.local_addr().expect("bound");
        let index = link.open(added).expect("room");
        let (peer, remote) = peer();
        link.receive(Some(Duration::ZERO)).expect("works");
        // More than a batch, so that some are behind it when the socket goes.
        (0..400).for_each(|_| _ = peer.send_to(b"old", address).expect("sent"));
        link.receive(SECOND).expect("works");
        assert!(!link.parts().0.is_empty());
        link.close(index);
        peer.send_to(b"new", ours).expect("sent");
        let came = collect(&mut *link, 1);
        assert_eq!(came, [(Path { socket: SocketIndex(0), remote }, b"new".to_vec())], "{}", link.name());
        let path = Path { socket: index, remote };
        send(&mut *link, path, b"to nowhere");
        submit(&mut *link);
        assert_eq!((link.counters().send_failed, link.counters().stale), (1, 0));
        assert!(link.parts().1.diverted().is_empty());
    }
}

#[test]
fn two_thousand_sockets_echo() {
    const COUNT: usize = 2000;
    raise_descriptor_limit();
    for make in LINKS {
        let (mut link, _) = link(make);
        let (peer, _) = peer();
        let mut places = Vec::new();
        for _ in 0..COUNT {
            let added = bind_at(2);
            let address = added.local_addr().expect("bound");
            places.push((link.open(added).expect("room"), address));
        }
        for round in 0..3u8 {
            for &(_, address) in &places {
                peer.send_to(&[round; 40], address).expect("sent");
            }
            let came = collect(&mut *link, COUNT);
            let mut indices: Vec<SocketIndex> = came.iter().map(|(path, _)| path.socket).collect();
            indices.sort();
            assert!(indices.iter().eq(places.iter().map(|(index, _)| index)), "{}: one of each", link.name());
            for (path, bytes) in came.iter().take(100) {
                send(&mut *link, *path, bytes);
            }
            submit(&mut *link);
            for (path, _) in came.iter().take(100) {
                let address = places.iter().find(|(index, _)| *index == path.socket).expect("one of ours").1;
                assert_eq!(hear(&peer, &mut [0; 99]).expect("answered"), (40, address));
            }
        }
        for (number, &(index, _)) in places.iter().enumerate() {
            assert!(link.close(index));
            if number % 100 == 0 {
                link.receive(Some(Duration::ZERO)).expect("works");
            }
        }
        (0..2).for_each(|_| _ = link.receive(Some(Duration::ZERO)).expect("works"));
        places.iter().for_each(|&(_, address)| drop(socket::bind(address).expect("the port is free")));
        assert_eq!(link.counters().receive_errors, 0);
    }
}

#[test]
fn sockets_come_and_go_under_traffic() {
    for make in LINKS {
        let (mut link, _) = link(make);
        let (sender, _) = peer();
        let mut random = 0x2545_f491_4f6c_dd1du64;
        let mut next = |bound: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % bound as u64) as usize
        };
        let mut open: Vec<(SocketIndex, SocketAddr)> = Vec::new();
        for turn in 0..2000 {
            if open.len() < 20 && next(2) == 0 {
                let added = bind();
                let address = added.local_addr().expect("bound");
                open.push((link.open(added).expect("room"), address));
            }
            for _ in 0..next(20) {
                if !open.is_empty() {
                    let (index, address) = open[next(open.len())];
                    sender.send_to(&index.0.to_be_bytes(), address).expect("sent");
                }
            }
            link.receive(Some(Duration::ZERO)).expect("works");
            let (rx, out) = link.parts();
            for at in 0..rx.len() {
                let socket = rx.path(at).socket;
                assert_eq!(
                    rx.bytes(at),
                    socket.0.to_be_bytes(),
                    "turn {turn}: a datagram names the socket it was sent to"
                );
                assert!(open.iter().any(|(index, _)| *index == socket), "turn {turn}: of an open socket");
                let mut slot = out.batch().reserve(rx.path(at), 2).expect("room");
                slot.bytes_mut().copy_from_slice(rx.bytes(at));
                slot.commit(2);
            }
            if next(3) == 0 && !open.is_empty() {
                let (index, _) = open.swap_remove(next(open.len()));
                assert!(link.close(index));
            }
            link.parts().1.flush();
            while sender.set_nonblocking(true).is_ok() && sender.recv(&mut [0; 9]).is_ok() {}
        }
        let counters = link.counters();
        assert_eq!((counters.send_failed, counters.receive_errors, counters.stale), (0, 0, 0), "{}", link.name());
        assert!(counters.received > 10_000, "{counters:?}");
    }
}

#[test]
fn a_flooded_socket_leaves_room_for_the_others() {
    for make in LINKS {
        let (mut link, ours) = link(make);
        let (peer, remote) = peer();
        let added: Vec<UdpSocket> = (0..20).map(|_| bind()).collect();
        let flooded = added[0].local_addr().expect("bound");
        let quiet = added[19].local_addr().expect("bound");
        let indices: Vec<SocketIndex> = added.into_iter().map(|socket| link.open(socket).expect("room")).collect();
        link.receive(Some(Duration::ZERO)).expect("works");
        (0..300).for_each(|_| _ = peer.send_to(&[0; 100], flooded).expect("sent"));
        peer.send_to(b"quiet", quiet).expect("sent");
        peer.send_to(b"media", ours).expect("sent");
        let mut waiting = vec![Path { socket: indices[19], remote }, Path { socket: SocketIndex(0), remote }];
        for _ in 0..3 {
            link.receive(SECOND).expect("works");
            let (rx, _) = link.parts();
            waiting.retain(|path| !(0..rx.len()).any(|at| rx.path(at) == *path));
            peer.send_to(&[0; 100], flooded).expect("sent");
        }
        assert!(waiting.is_empty(), "{}: {waiting:?} waited behind a flood", link.name());
    }
}

#[test]
fn what_is_sent_to_a_virtual_socket_is_picked_up_beside_the_rest() {
    for make in LINKS {
        let (mut link, _) = link(make);
        let (peer, remote) = peer();
        let far = Path { socket: SocketIndex(SocketIndex::VIRTUAL_FIRST + 3), remote };
        for number in 0..10u8 {
            let path = if number % 3 == 0 { far } else { Path { socket: SocketIndex(0), remote } };
            send(&mut *link, path, &[number; 20]);
        }
        link.parts().1.flush();
        let mut picked = Vec::new();
        link.parts().1.diverted().drain(|path, bytes| picked.push((path, bytes[0])));
        assert_eq!(picked, [0, 3, 6, 9].map(|number| (far, number)));
        link.receive(Some(Duration::ZERO)).expect("works");
        for number in [1, 2, 4, 5, 7, 8] {
            let mut bytes = [0; 99];
            assert_eq!((hear(&peer, &mut bytes).expect("sent").0, bytes[0]), (20, number));
        }
        assert_eq!((link.counters().sent, link.counters().send_failed), (6, 0));
        send(&mut *link, far, b"alone");
        link.parts().1.flush();
        assert!(link.parts().1.batch().is_empty() && link.parts().1.batch().has_room(100));
    }
}
