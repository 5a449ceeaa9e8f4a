//! Faults: completions as no healthy kernel gives them, and rings so small that they run out.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::*;
use crate::buf::{Prefix, RX_BATCH_MAX};
use crate::io::{RECEIVE_FAILURES_MAX, socket};

const MORE: u32 = 1 << 1;

fn picked(buffer: u16) -> u32 {
    1 | u32::from(buffer) << 16
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(4, 8, 2);
    (0..4).for_each(|buffer| assert!(ledger.lend(buffer)));
    (0..4).for_each(|socket| ledger.add_receive(socket));
    ledger
}

fn answer(ledger: &mut Ledger, token: Token, result: i32, flags: u32) -> Effect {
    ledger.handle_completion(Completion { user_data: token.to_user_data(), result, flags })
}

#[test]
fn a_receive_goes_on_until_more_is_gone() {
    let mut ledger = ledger();
    let token = ledger.arm_receive(3).expect("not armed");
    assert_eq!(ledger.arm_receive(3), None);
    let datagram = |buffer| Effect::Datagram { socket: 3, buffer, size: 100 };
    assert_eq!(answer(&mut ledger, token, 100, picked(2) | MORE), datagram(2));
    assert_eq!(ledger.arm_receive(3), None);
    assert_eq!(answer(&mut ledger, token, 100, picked(1)), datagram(1), "the last one counts as well");
    assert_ne!(ledger.arm_receive(3).expect("ended"), token);
    assert_eq!(ledger.lent(), 2);
}

#[test]
fn a_receive_without_a_buffer_is_starved_and_can_begin_anew() {
    let mut ledger = ledger();
    let token = ledger.arm_receive(0).expect("not armed");
    assert_eq!(answer(&mut ledger, token, -libc::ENOBUFS, 0), Effect::Starved);
    assert!(ledger.arm_receive(0).is_some());
}

#[test]
fn a_receive_that_fails_keeps_no_buffer() {
    let mut ledger = ledger();
    for errno in [libc::EFAULT, libc::EINVAL, libc::ENOMEM] {
        let token = ledger.arm_receive(0).expect("not armed");
        assert_eq!(answer(&mut ledger, token, -errno, 0), Effect::ReceiveFailed { socket: 0, errno });
        let token = ledger.arm_receive(0).expect("not armed");
        assert_eq!(answer(&mut ledger, token, -errno, picked(1)), Effect::Return { buffer: 1 });
        assert!(ledger.lend(1));
    }
    let token = ledger.arm_receive(0).expect("not armed");
    assert_eq!(answer(&mut ledger, token, -libc::ECANCELED, 0), Effect::Ended);
    assert_eq!(ledger.lent(), 4);
    assert!(ledger.is_idle());
}

#[test]
fn a_late_answer_to_an_earlier_receive_returns_its_buffer_and_nothing_else() {
    let mut ledger = ledger();
    let old = ledger.arm_receive(0).expect("not armed");
    answer(&mut ledger, old, -libc::ENOBUFS, 0);
    let new = ledger.arm_receive(0).expect("ended");
    assert_eq!(answer(&mut ledger, old, 100, picked(0)), Effect::Return { buffer: 0 });
    assert_eq!(answer(&mut ledger, old, -libc::ENOBUFS, 0), Effect::Stale);
    assert_eq!(ledger.arm_receive(0), None, "the new one is still armed");
    assert_eq!(answer(&mut ledger, new, 100, picked(1) | MORE), Effect::Datagram { socket: 0, buffer: 1, size: 100 });
}

#[test]
fn a_buffer_is_not_handed_out_twice() {
    let mut ledger = ledger();
    let token = ledger.arm_receive(0).expect("not armed");
    assert_eq!(answer(&mut ledger, token, 9, picked(1) | MORE), Effect::Datagram { socket: 0, buffer: 1, size: 9 });
    assert_eq!(answer(&mut ledger, token, 9, picked(1) | MORE), Effect::Stale, "a duplicate has no buffer");
    assert_eq!(
        answer(&mut ledger, token, 9, picked(999) | MORE),
        Effect::Stale,
        "nor has one with a number of nobody's"
    );
    assert!(ledger.lend(1));
    assert!(!ledger.lend(1), "given once");
}

#[test]
fn a_send_is_answered_once_and_in_its_round() {
    let mut ledger = ledger();
    ledger.begin_round();
    let (first, second) = (ledger.send(0), ledger.send(7));
    assert_eq!(ledger.unanswered(), 2);
    assert_eq!(answer(&mut ledger, first, 55, 0), Effect::Sent { train: 0, bytes: 55 });
    assert_eq!(answer(&mut ledger, first, 55, 0), Effect::Stale);
    assert_eq!(answer(&mut ledger, second, -libc::EPERM, 0), Effect::SendFailed { train: 7, errno: libc::EPERM });
    assert_eq!(ledger.unanswered(), 0);
    ledger.begin_round();
    let again = ledger.send(0);
    assert_eq!(answer(&mut ledger, first, 55, 0), Effect::Stale, "of the round before");
    assert_eq!(answer(&mut ledger, again, 55, 0), Effect::Sent { train: 0, bytes: 55 });
    let Token::Send { generation, .. } = again else { panic!("a send's token") };
    assert_eq!(answer(&mut ledger, Token::Send { train: 60_000, generation }, 0, 0), Effect::Stale);
}

#[test]
fn calls_have_slots_that_come_back() {
    let mut ledger = ledger();
    let (slot, token) = ledger.call().expect("a slot");
    assert!(ledger.call().is_some() && ledger.call().is_none());
    assert_eq!(answer(&mut ledger, token, -libc::EBADFD, 0), Effect::Called { slot, heard: false });
    assert_eq!(answer(&mut ledger, token, 0, 0), Effect::Stale);
    assert!(ledger.call().is_some());
    assert_eq!(ledger.answers_due(), 2);
}

#[test]
fn no_series_of_answers_leaks_or_doubles_anything() {
    for seed in 1..200u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        let mut ledger = Ledger::new(8, 4, 2);
        (0..3).for_each(|socket| ledger.add_receive(socket));
        let mut ours: HashSet<u16> = (0..8).collect();
        let mut tokens = vec![Token::Call, Token::Receive { socket: 99, generation: 1 }];
        for _ in 0..2000 {
            match next(8) {
                0 => tokens.extend(ledger.arm_receive(next(3) as u16)),
                1 => tokens.extend(ledger.arm_poll()),
                2 => tokens.extend(ledger.call().map(|(_, token)| token)),
                3 => {
                    if let Some(&buffer) = ours.iter().min() {
                        assert!(ledger.lend(buffer), "seed {seed}");
                        ours.remove(&buffer);
                    }
                }
                4 => {
                    if ledger.unanswered() == 0 {
                        ledger.begin_round();
                        tokens.extend((0..4).map(|train| ledger.send(train)));
                    }
                }
                _ => {
                    let token = tokens[next(tokens.len() as u64) as usize];
                    let result = [100, 0, -libc::ENOBUFS, -libc::ECANCELED, -libc::EFAULT][next(5) as usize];
                    let flags = [0, MORE, picked(next(10) as u16), picked(next(10) as u16) | MORE][next(4) as usize];
                    match answer(&mut ledger, token, result, flags) {
                        Effect::Datagram { buffer, .. } | Effect::Return { buffer } => {
                            assert!(ours.insert(buffer), "seed {seed}: buffer {buffer} was ours already");
                        }
                        _ => {}
                    }
                }
            }
            assert_eq!(ledger.lent() + ours.len(), 8, "seed {seed}");
        }
        // Whatever happened, ending everything that was asked ends it.
        for token in tokens {
            answer(&mut ledger, token, -libc::ECANCELED, 0);
        }
        assert!(ledger.is_idle(), "seed {seed}");
    }
}

fn small(buffers: u16, submissions: u32, completions: u32) -> (UringLink, SocketAddr, UdpSocket) {
    let ours = socket::bind("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let address = ours.local_addr().expect("bound");
    let peer = socket::bind("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let sizes = Sizes { buffers, submissions, completions };
    (UringLink::open_sized(vec![ours], sizes).map_err(|(why, _)| why).expect("io_uring"), address, peer)
}

fn count(link: &mut UringLink, expected: usize) -> usize {
    let (mut came, mut quiet) = (0, 0);
    while came < expected && quiet < 3 {
        link.receive(Some(Duration::from_millis(100))).expect("works");
        quiet = if link.rx.is_empty() { quiet + 1 } else { 0 };
        for index in 0..link.rx.len() {
            assert_eq!(link.rx.bytes(index), ((came + index) as u64).to_be_bytes(), "in order, and whole");
        }
        came += link.rx.len();
    }
    came
}

#[test]
fn with_two_buffers_nothing_is_lost_and_the_starving_is_counted() {
    let (mut link, address, peer) = small(2, 8, 8);
    link.receive(Some(Duration::ZERO)).expect("works");
    for number in 0..1000u64 {
        peer.send_to(&number.to_be_bytes(), address).expect("sent");
    }
    assert_eq!(count(&mut link, 1000), 1000);
    assert!(link.counters().starved > 0);
    link.receive(Some(Duration::ZERO)).expect("works");
    assert_eq!(link.engine.ledger.lent(), 2, "both buffers are back with the kernel");
}

#[test]
fn a_starved_link_sleeps_rather_than_spins() {
    let (mut link, address, peer) = small(2, 8, 8);
    for number in 0..2u64 {
        peer.send_to(&number.to_be_bytes(), address).expect("sent");
    }
    assert_eq!(count(&mut link, 2), 2);
    let start = std::time::Instant::now();
    let mut turns = 0;
    while start.elapsed() < Duration::from_millis(100) {
        link.receive(Some(Duration::from_millis(50))).expect("works");
        turns += 1;
    }
    assert!(turns <= 4, "{turns} turns in 100 ms of silence");
}

#[test]
fn a_completion_queue_that_overflows_loses_nothing() {
    let (mut link, address, peer) = small(64, 8, 8);
    link.receive(Some(Duration::ZERO)).expect("works");
    for number in 0..500u64 {
        peer.send_to(&number.to_be_bytes(), address).expect("sent");
    }
    assert_eq!(count(&mut link, 500), 500);
    assert!(link.counters().cq_overflows > 0, "{:?}", link.counters());
}

#[test]
fn more_sends_than_the_queues_hold_are_all_sent() {
    let (mut link, _, peer) = small(64, 8, 8);
    let path = Path { socket: SocketIndex(0), remote: peer.local_addr().expect("bound") };
    for round in 1..=20 {
        for size in 1..=100 {
            link.engine.batch().reserve(path, 200).expect("room").commit(size);
        }
        link.engine.flush();
        link.receive(Some(Duration::ZERO)).expect("works");
        assert_eq!((link.counters().sent, link.counters().send_failed), (round * 100, 0));
    }
    assert_eq!(link.engine.ledger.answers_due(), 0);
}

#[test]
fn links_of_turn_hold_from_batch_to_batch() {
    let (mut link, _, peer) = small(64, 16, 32);
    link.receive(Some(Duration::ZERO)).expect("works");
    let client = Path { socket: SocketIndex(0), remote: peer.local_addr().expect("bound") };
    let through = Path { socket: SocketIndex(SocketIndex::LINK_FIRST + 2), remote: ([192, 0, 2, 1], 9).into() };
    let mut bytes = [0; 100];
    for number in [0x4000u16, 0x4001] {
        let earlier = Path { remote: ([192, 0, 2, 1], 8).into(), ..through };
        link.engine.batch().links().set(through, Some(Prefix::channel(client, number)));
        for _ in 0..5 {
            assert!(link.engine.batch().reserve(earlier, 10).is_err(), "another one had the number before");
            link.engine.batch().reserve(through, 10).expect("open").commit(10);
            link.engine.flush();
            assert_eq!(peer.recv(&mut bytes).expect("sent"), 14);
            assert_eq!(bytes[..2], number.to_be_bytes());
        }
    }
    let mut traffic = Vec::new();
    link.engine.batch().links().drain_traffic(|link, datagrams, bytes| traffic.push((link, datagrams, bytes)));
    assert_eq!(traffic, [(through.socket, 10, 100)]);
    link.engine.batch().links().set(through, None);
    for _ in 0..4 {
        assert!(link.engine.batch().reserve(through, 10).is_err());
        link.engine.batch().reserve(client, 1).expect("room").commit(1);
        link.engine.flush();
    }
}

#[test]
fn what_is_flushed_has_left_and_what_a_turn_ends_with_leaves_with_the_next_receive() {
    let (mut link, _, peer) = small(64, 16, 32);
    peer.set_nonblocking(true).expect("a socket");
    let path = Path { socket: SocketIndex(0), remote: peer.local_addr().expect("bound") };
    let send = |link: &mut UringLink| {
        link.engine.batch().reserve(path, 10).expect("room").commit(10);
    };
    send(&mut link);
    link.engine.flush();
    assert_eq!(peer.recv(&mut [0; 10]).expect("sent"), 10);
    send(&mut link);
    link.engine.end_turn();
    assert_eq!(peer.recv(&mut [0; 10]).expect_err("not yet").kind(), io::ErrorKind::WouldBlock);
    assert!(link.engine.batch().reserve(path, 10).is_err(), "the kernel is about to read it");
    link.receive(Some(Duration::ZERO)).expect("works");
    assert_eq!(peer.recv(&mut [0; 10]).expect("sent"), 10);
    // Who goes on after the end has it sent first.
    send(&mut link);
    link.engine.end_turn();
    assert!(link.engine.reserve(&path, 10).is_ok());
    assert_eq!(peer.recv(&mut [0; 10]).expect("sent"), 10);
    assert_eq!(link.counters().sent, 3);
}

#[test]
fn faults_fed_to_a_living_link_leave_it_alive() {
    let (mut link, address, peer) = small(16, 16, 32);
    let mut sent = 0;
    for _ in 0..50 {
        link.receive(Some(Duration::ZERO)).expect("works");
        let engine = &mut link.engine;
        for user_data in [0, u64::MAX, Token::Receive { socket: 0, generation: 0 }.to_user_data()] {
            engine.handle_completion(Completion { user_data, result: -libc::EFAULT, flags: 0 });
        }
        engine.handle_completion(Completion {
            user_data: Token::Send { train: 3, generation: 9 }.to_user_data(),
            result: 7,
            flags: 0,
        });
        peer.send_to(b"still here", address).expect("sent");
        sent += 1;
        link.receive(Some(Duration::from_secs(1))).expect("works");
        assert_eq!(link.rx.len(), 1, "datagram {sent}");
    }
    assert_eq!(link.counters().stale, 200);
    assert!(link.rx.len() <= RX_BATCH_MAX);
}

#[test]
fn a_refused_send_is_counted_and_its_batch_comes_back() {
    let (mut link, _, peer) = small(16, 16, 32);
    let path = Path { socket: SocketIndex(0), remote: peer.local_addr().expect("bound") };
    for errno in [libc::EPERM, libc::ENETUNREACH, libc::ECONNREFUSED, libc::EAGAIN, libc::ENOBUFS] {
        let before = link.counters();
        let engine = &mut link.engine;
        engine.batch().reserve(path, 10).expect("room").commit(10);
        engine.ledger.begin_round();
        engine.batch.lend();
        assert!(engine.batch().reserve(path, 10).is_err(), "the kernel reads it");
        let token = engine.ledger.send(0);
        engine.handle_completion(Completion { user_data: token.to_user_data(), result: -errno, flags: 0 });
        assert!(engine.batch().is_empty() && engine.batch().has_room(10));
        assert_eq!(link.counters().send_failed, before.send_failed + 1);
    }
    assert_eq!(link.counters().send_blocked, 2);
}

#[test]
fn a_receive_that_only_fails_breaks_the_link_in_the_end() {
    let (mut link, ..) = small(16, 16, 32);
    for _ in 0..RECEIVE_FAILURES_MAX {
        link.engine.handle_receive_failure(SocketIndex(0), libc::EBADF);
    }
    assert_eq!(link.receive(Some(Duration::ZERO)).expect_err("broken").raw_os_error(), Some(libc::EBADF));
}

#[test]
fn a_link_used_by_another_thread_than_its_own_says_so_and_can_be_dropped() {
    let (mut link, ..) = small(16, 16, 32);
    link.receive(Some(Duration::ZERO)).expect("works");
    let thread =
        std::thread::spawn(move || link.receive(Some(Duration::from_millis(1))).expect_err("a ring has one issuer"));
    thread.join().expect("no panic");
}

#[test]
fn a_late_answer_of_a_closed_socket_is_not_the_next_ones() {
    let mut ledger = ledger();
    let old = ledger.arm_receive(3).expect("not armed");
    let (cancel, receive) = ledger.cancel_receive(3).expect("armed");
    assert_eq!(receive, old);
    assert_eq!(ledger.cancel_receive(3), None, "under way");
    assert!(ledger.is_receiving(3));
    assert_eq!(answer(&mut ledger, cancel, -libc::ENOENT, 0), Effect::Ended);
    assert!(ledger.is_receiving(3), "it was not found, so it may still answer");
    let (again, _) = ledger.cancel_receive(3).expect("answered");
    assert_eq!(answer(&mut ledger, old, -libc::ECANCELED, 0), Effect::Ended);
    assert_eq!(answer(&mut ledger, cancel, 0, 0), Effect::Stale);
    assert!(ledger.is_receiving(3), "the second cancelling is not answered");
    assert_eq!(answer(&mut ledger, again, 0, 0), Effect::Ended);
    assert!(!ledger.is_receiving(3));
    ledger.add_receive(3);
    let new = ledger.arm_receive(3).expect("a new socket");
    assert_eq!(answer(&mut ledger, old, 100, picked(2) | MORE), Effect::Return { buffer: 2 });
    assert_eq!(answer(&mut ledger, new, 100, picked(1) | MORE), Effect::Datagram { socket: 3, buffer: 1, size: 100 });
}

#[test]
fn receives_that_ended_are_begun_anew_in_turn_and_each_once() {
    let mut ledger = ledger();
    let all: Vec<u16> = std::iter::from_fn(|| ledger.next_ended()).collect();
    assert_eq!(all, [0, 1, 2, 3], "added and not begun");
    let tokens: Vec<Token> = all.iter().filter_map(|&socket| ledger.arm_receive(socket)).collect();
    assert_eq!(answer(&mut ledger, tokens[2], -libc::ENOBUFS, 0), Effect::Starved);
    assert_eq!(answer(&mut ledger, tokens[0], 9, picked(0)), Effect::Datagram { socket: 0, buffer: 0, size: 9 });
    assert_eq!(answer(&mut ledger, tokens[1], 9, picked(1) | MORE), Effect::Datagram { socket: 1, buffer: 1, size: 9 });
    ledger.add_receive(2);
    assert_eq!(ledger.ended(), 2);
    assert_eq!([(); 3].map(|()| ledger.next_ended()), [Some(2), Some(0), None]);
}

#[test]
fn a_closed_socket_keeps_its_index_and_descriptor_until_the_kernel_has_answered() {
    let (mut link, ..) = small(16, 16, 32);
    let added = socket::bind("127.0.7.4:0".parse().expect("an address")).expect("a socket");
    let address = added.local_addr().expect("bound");
    let index = link.open(added).expect("room");
    link.receive(Some(Duration::ZERO)).expect("works");
    assert!(link.close(index));
    assert!(link.engine.sockets.get(index).is_none() && link.engine.sockets.get_late(index).is_some());
    socket::bind(address).expect_err("still open");
    link.receive(Some(Duration::ZERO)).expect("works");
    link.receive(Some(Duration::ZERO)).expect("works");
    assert!(link.engine.sockets.get_late(index).is_none() && link.engine.closing.is_empty());
    socket::bind(address).expect("free");
    assert!(link.engine.ledger.ended() == 0 && link.counters().stale == 0);
}

#[test]
fn an_added_socket_that_only_fails_is_given_up_alone() {
    let (mut link, address, peer) = small(16, 16, 32);
    let added = socket::bind("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let index = link.open(added).expect("room");
    link.receive(Some(Duration::ZERO)).expect("works");
    for _ in 0..2 * RECEIVE_FAILURES_MAX {
        link.engine.handle_receive_failure(index, libc::ENOMEM);
    }
    assert!(!link.engine.sockets.is_worth_receiving(index));
    peer.send_to(&0u64.to_be_bytes(), address).expect("sent");
    assert_eq!(count(&mut link, 1), 1);
    assert!(link.close(index));
}

#[test]
fn many_sockets_on_few_buffers_lose_nothing() {
    let (mut link, _, peer) = small(4, 8, 8);
    let addresses: Vec<SocketAddr> = (0..200)
        .map(|_| {
            let added = socket::bind("127.0.0.1:0".parse().expect("an address")).expect("a socket");
            let address = added.local_addr().expect("bound");
            link.open(added).expect("room");
            address
        })
        .collect();
    for _ in 0..3 {
        for address in &addresses {
            peer.send_to(b"x", address).expect("sent");
        }
        let (mut came, mut quiet) = (0, 0);
        while came < addresses.len() && quiet < 3 {
            link.receive(Some(Duration::from_millis(100))).expect("works");
            quiet = if link.rx.is_empty() { quiet + 1 } else { 0 };
            came += link.rx.len();
        }
        assert_eq!(came, addresses.len());
    }
    assert!(link.counters().starved > 0);
    let before = std::time::Instant::now();
    let mut turns = 0;
    while before.elapsed() < Duration::from_millis(100) {
        link.receive(Some(Duration::from_millis(50))).expect("works");
        turns += 1;
    }
    assert!(turns <= 6, "{turns} turns in 100 ms of silence");
}
