//! Who may send, and where media goes: what is not authenticated, or not from a proved address, does nothing.

use std::net::SocketAddr;
use std::time::Duration;

use ringmain_dataplane::stream::{FromStream, ToStream};
use ringmain_shared::command::Command;
use ringmain_shared::event::{Event, IceState};
use ringmain_shared::transport::Side;
use ringmain_shared::{DropReason, Now};

use crate::media::*;
use crate::world::{World, credentials, remote_peer, tcp_path};

struct Call {
    world: World,
    publisher: usize,
    peer: usize,
    ssrc: u32,
    camera: Camera,
}

impl Call {
    fn new() -> Self {
        let mut world = World::new(1);
        let publisher = world.join(Side::Publisher);
        world.receive(publisher, receive_spec(10_000, &[]));
        let peer = world.join(Side::Subscriber);
        let ssrc = subscribe(&mut world, peer, 10_000, VIDEO);
        let mut call = Self { world, publisher, peer, ssrc, camera: Camera::new(10_000, 0) };
        call.frames(1, true);
        call
    }

    fn frames(&mut self, count: usize, keyframe: bool) {
        for frame in 0..count {
            self.camera.send(&mut self.world, self.publisher, keyframe && frame == 0, 4);
        }
    }

    fn heard(&self) -> usize {
        self.world.peers[self.peer].rtp_of(self.ssrc).len()
    }

    fn media_at(&self, address: SocketAddr, since: Now) -> usize {
        let to = self.world.peers[self.peer].media.iter();
        to.filter(|&&(at, to)| at >= since && to == address).count()
    }

    fn last_state(&self, peer: usize) -> IceState {
        let transport = self.world.peers[peer].transport;
        let states = self.world.events.iter().rev().filter_map(|event| match event {
            Event::IceState { transport: this, state } if *this == transport => Some(*state),
            _ => None,
        });
        states.take(1).next().expect("a state")
    }
}

fn elsewhere(port: u16) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 9], port))
}

#[test]
fn a_call_moves_to_a_connection_of_tcp_and_back_and_survives_the_end_of_either() {
    let mut call = Call::new();
    let (peer, udp, tcp) = (call.peer, call.world.peers[call.peer].address, elsewhere(7));
    call.world.over_tcp.insert(tcp);
    call.world.check(peer, tcp, true);
    call.world.run_ms(50);
    let moved = call.world.now;
    call.frames(2, false);
    call.world.run_ms(10);
    assert_eq!((call.media_at(tcp, moved), call.media_at(udp, moved)), (8, 0), "nominated, and proved over TCP");
    // The connection ends: the address that was proved before takes over with the next packet.
    call.world.stream(FromStream::PathClosed { path: tcp_path(tcp) });
    let closed = call.world.now;
    call.frames(2, false);
    call.world.run_ms(10);
    assert_eq!((call.media_at(tcp, closed), call.media_at(udp, closed)), (0, 8));
    assert_eq!(call.world.drops(), []);
    // Told of a connection that it has no more use for, a worker does nothing.
    call.world.stream(FromStream::PathClosed { path: tcp_path(tcp) });
    // One comes again, and ends with its transport.
    call.world.check(peer, tcp, true);
    call.world.run_ms(50);
    assert_eq!(call.last_state(peer), IceState::Connected);
    let transport = call.world.peers[peer].transport;
    call.world.command(0, Command::CloseTransport { transport });
    call.world.run(Duration::from_secs(10));
    let ended = std::mem::take(&mut call.world.workers[0].outbox().streams);
    assert_eq!(ended, [ToStream::ClosePath { path: tcp_path(tcp) }]);
}

#[test]
fn who_has_nothing_but_a_connection_of_tcp_may_make_another() {
    let mut call = Call::new();
    let peer = call.peer;
    for port in 1..4 {
        let tcp = elsewhere(port);
        call.world.over_tcp.insert(tcp);
        call.world.check(peer, tcp, true);
        call.world.run_ms(1_500);
        let since = call.world.now;
        call.frames(1, false);
        call.world.run_ms(10);
        assert_eq!(call.media_at(tcp, since), 4);
        let udp = call.world.peers[peer].address;
        if port == 1 {
            call.world.peers[peer].mute_addresses.push(udp);
            call.world.run(Duration::from_secs(20));
        }
        call.world.stream(FromStream::PathClosed { path: tcp_path(tcp) });
        let since = call.world.now;
        call.frames(1, false);
        call.world.run_ms(10);
        assert_eq!(call.media_at(tcp, since), 0, "nothing is sent where nobody is");
    }
}

#[test]
fn flipped_bits_are_counted_and_forward_nothing() {
    let mut call = Call::new();
    let before = call.heard();
    let packet = call.camera.frame(&mut call.world, false, 1).remove(0);
    let sealed = call.world.protect_rtp(call.publisher, &packet);
    let from = call.world.peers[call.publisher].address;
    let flipped = sealed.len() * 8;
    for bit in 0..flipped {
        let mut wrong = sealed.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        call.world.push(0, from, &wrong);
    }
    call.world.settle();
    assert_eq!(call.heard(), before);
    call.world.push(0, from, &sealed);
    call.world.settle();
    assert_eq!(call.heard(), before + 1, "the true packet is none the worse for its forged brothers");
    let counted: u64 = call.world.drops().iter().map(|(_, count)| count).sum();
    assert_eq!(counted, flipped as u64, "{:?}", call.world.drops());
    assert!(call.world.dropped(DropReason::SrtpAuth) > counted * 9 / 10);
}

#[test]
fn replayed_media_and_rtcp_are_counted_and_forward_nothing() {
    let mut call = Call::new();
    let packets = call.camera.frame(&mut call.world, false, 4);
    let sealed: Vec<Vec<u8>> = packets.iter().map(|packet| call.world.protect_rtp(call.publisher, packet)).collect();
    let from = call.world.peers[call.publisher].address;
    for _ in 0..3 {
        for packet in &sealed {
            call.world.push(0, from, packet);
        }
        call.world.settle();
    }
    assert_eq!(call.heard(), 8);
    assert_eq!(call.world.drops(), [(DropReason::Replayed, 8)]);
}

#[test]
fn media_from_an_address_that_is_not_proved_is_dropped() {
    let mut call = Call::new();
    let (before, from) = (call.heard(), elsewhere(1));
    for (drop, checked) in [(DropReason::UnknownRemote, false), (DropReason::MediaFromUnselected, true)] {
        if checked {
            // A valid check makes the address known, and no more than that.
            call.world.peers[call.publisher].mute_addresses.push(from);
            call.world.check(call.publisher, from, true);
            call.world.settle();
        }
        for packet in call.camera.frame(&mut call.world, false, 4) {
            let sealed = call.world.protect_rtp(call.publisher, &packet);
            call.world.push(0, from, &sealed);
        }
        call.world.settle();
        assert_eq!((call.heard(), call.world.dropped(drop)), (before, 4));
    }
}

#[test]
fn a_valid_check_from_an_address_that_never_answers_moves_nothing() {
    let mut call = Call::new();
    let (home, victim) = (call.world.peers[call.peer].address, elsewhere(2));
    call.world.peers[call.peer].mute_addresses.push(victim);
    let before = call.heard();
    call.world.check(call.peer, victim, true);
    call.frames(150, false);
    // That the victim gets no more than three times what came from it is checked with every datagram.
    assert!(call.world.peers[call.peer].datagrams.iter().any(|&(_, to)| to == victim), "it was asked");
    assert_eq!(call.heard(), before + 600, "and the stream was not interrupted");
    let since = call.world.now;
    call.frames(30, false);
    assert_eq!(call.media_at(victim, since), 0, "it is forgotten");
    assert_eq!(call.media_at(home, since), 120);
}

#[test]
fn media_moves_to_a_new_address_as_soon_as_it_answers() {
    let mut call = Call::new();
    let (home, next) = (call.world.peers[call.peer].address, elsewhere(3));
    let before = call.heard();
    call.frames(30, false);
    call.world.check(call.peer, next, true);
    call.world.run_ms(1);
    let since = call.world.now;
    call.frames(30, false);
    assert_eq!(call.heard(), before + 240, "nothing was lost");
    assert_eq!(call.media_at(home, since), 0);
    assert_eq!(call.media_at(next, since), 120);
}

#[test]
fn without_use_candidate_media_stays_where_it_is() {
    let mut call = Call::new();
    let (home, next) = (call.world.peers[call.peer].address, elsewhere(4));
    call.world.check(call.peer, next, false);
    call.world.run_ms(100);
    let since = call.world.now;
    call.frames(10, false);
    assert_eq!(call.media_at(home, since), 40);
    assert_eq!(call.media_at(next, since), 0);
}

#[test]
fn a_wandering_peer_moves_once_a_second_at_most() {
    let mut call = Call::new();
    let mut moves = 0;
    let mut last = None;
    for round in 0..300u16 {
        call.world.check(call.peer, elsewhere(10 + round % 5), true);
        call.frames(1, false);
        let at = call.world.peers[call.peer].media.last().map(|&(_, to)| to);
        moves += usize::from(at != last);
        last = at;
    }
    assert!((10..=10 + 8).contains(&moves), "{moves} moves in 10 s");
}

#[test]
fn a_peer_that_is_gone_gets_nothing_after_thirty_seconds() {
    let mut call = Call::new();
    call.world.run_ms(2_000);
    call.world.peers[call.peer].answers = false;
    let gone = call.world.now;
    for _ in 0..40 {
        call.frames(30, true);
    }
    assert_eq!(call.last_state(call.peer), IceState::Failed);
    let last = call.world.peers[call.peer].datagrams.iter().map(|&(at, _)| at).max().expect("some");
    assert!(last.since(gone) <= Duration::from_secs(31), "{:?}", last.since(gone));
    assert!(last.since(gone) >= Duration::from_secs(20), "but not at once: {:?}", last.since(gone));
    call.world.run(Duration::from_secs(70));
    let transport = call.world.peers[call.peer].transport;
    assert!(
        call.world
            .events
            .iter()
            .any(|event| matches!(event, Event::Closed { transport: this, .. } if *this == transport))
    );
}

#[test]
fn a_peer_that_comes_back_in_time_has_lost_nothing_but_what_was_lost_on_the_way() {
    let mut call = Call::new();
    call.world.peers[call.peer].answers = false;
    for _ in 0..22 {
        call.frames(30, true);
    }
    assert_eq!(call.last_state(call.peer), IceState::Disconnected);
    call.world.peers[call.peer].answers = true;
    call.frames(60, true);
    assert_eq!(call.last_state(call.peer), IceState::Connected);
    assert_eq!(call.heard(), 4 + 22 * 30 * 4 + 240);
}

#[test]
fn an_ice_restart_proves_addresses_anew_while_media_goes_on() {
    let mut call = Call::new();
    let (peer, transport) = (call.peer, call.world.peers[call.peer].transport);
    let old = call.world.request(peer, true);
    let (local, own) = (credentials("server", peer, 1), credentials("client", peer, 1));
    call.world.command(0, Command::RestartIce { transport, local: local.clone(), remote: Some(remote_peer(&own)) });
    let before = call.heard();
    call.world.peers[peer].own = own;
    call.frames(30, false);
    assert_eq!(call.heard(), before + 120, "media goes on before the first check");
    call.world.peers[peer].server = local;
    let next = elsewhere(6);
    call.world.check(peer, next, true);
    call.world.settle();
    let since = call.world.now;
    call.frames(30, false);
    assert_eq!(call.heard(), before + 240);
    assert_eq!(call.media_at(next, since), 120);
    assert_eq!(call.last_state(peer), IceState::Connected);
    // The old credentials are over.
    let unknown = call.world.dropped(DropReason::StunUnknownUfrag);
    let responses = call.world.peers[peer].responses;
    call.world.push(0, call.world.peers[peer].address, &old);
    call.world.settle();
    assert_eq!(call.world.dropped(DropReason::StunUnknownUfrag), unknown + 1);
    assert_eq!(call.world.peers[peer].responses, responses);
}

#[test]
fn wrong_checks_are_never_answered_and_change_nothing() {
    let mut call = Call::new();
    let (from, peer) = (elsewhere(7), call.peer);
    let events = call.world.events.len();
    let good = call.world.request(peer, true);
    // The fingerprint behind the integrity may be gone; nothing before it may be otherwise.
    for byte in 0..good.len() - 8 {
        let mut wrong = good.clone();
        wrong[byte] ^= 0x10;
        call.world.push(0, from, &wrong);
        call.world.run_ms(20);
    }
    // A forged check for a user that nobody is.
    let own = call.world.peers[peer].server.clone();
    call.world.peers[peer].server.ufrag = "nobody".into();
    let unknown = call.world.request(peer, true);
    call.world.push(0, from, &unknown);
    call.world.settle();
    call.world.peers[peer].server = own;
    assert_eq!(call.world.traffic(from).from_workers, 0);
    assert_eq!(call.world.events.len(), events);
    assert!(call.world.dropped(DropReason::StunUnknownUfrag) > 0);
}

#[test]
fn a_flood_with_a_known_name_costs_neither_side_its_consent() {
    let mut call = Call::new();
    let (from, peer) = (elsewhere(8), call.peer);
    let before = call.heard();
    let mut forged = call.world.request(peer, true);
    let at = forged.len() - 10;
    forged[at] ^= 1;
    // Without a fingerprint, so that only the integrity is wrong.
    forged.truncate(forged.len() - 8);
    let length = (forged.len() - 20) as u16;
    forged[2..4].copy_from_slice(&length.to_be_bytes());
    for frame in 0..1_200 {
        for _ in 0..50 {
            call.world.push(0, from, &forged);
        }
        if frame % 75 == 0 {
            let responses = call.world.peers[peer].responses;
            call.world.check(peer, call.world.peers[peer].address, true);
            call.world.settle();
            assert_eq!(call.world.peers[peer].responses, responses + 1, "its own checks are answered");
        }
        call.frames(1, false);
    }
    assert_eq!(call.heard(), before + 4_800);
    assert_eq!(call.last_state(peer), IceState::Connected);
    let (spent, refused) = (call.world.dropped(DropReason::StunIntegrity), call.world.dropped(DropReason::StunBudget));
    assert!(spent <= 100 * 41 + 50 && spent + refused == 60_000, "{spent} were verified, {refused} were not");
}

#[test]
fn a_closed_transport_ends_with_all_that_is_on_it() {
    let mut call = Call::new();
    let (subscriber, publisher) = (call.world.peers[call.peer].transport, call.world.peers[call.publisher].transport);
    call.world.command(0, Command::CloseTransport { transport: subscriber });
    let before = call.heard();
    call.frames(30, true);
    assert_eq!(call.heard(), before);
    // Its path is kept for the last DTLS datagrams, but nothing flows on it any more.
    call.world.command(0, Command::CloseTransport { transport: publisher });
    call.world.command(0, Command::Snapshot { request: 1 });
    call.world.settle();
    assert!(call.world.events.iter().any(|event| matches!(event, Event::Snapshot { flows, .. } if flows.is_empty())));
    call.world.run_ms(1_000);
    call.frames(1, true);
    assert!(call.world.dropped(DropReason::UnknownRemote) >= 4);
}
