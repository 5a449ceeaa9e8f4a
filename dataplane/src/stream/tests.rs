//! Framing and connections, with bytes cut anywhere.

use std::sync::Arc;
use std::time::Duration;

use ringmain_shared::Now;
use ringmain_shared::limits::DATAGRAM_SIZE_MAX;

use super::classify::{Protocol, Protocols};
use super::connection::{Arrived, Connection, End, FIRST_MESSAGE, IDLE_MAX, Offer};
use super::frame::{Deframer, Desynchronised, Framing, TURN_MESSAGE_SIZE_MAX};
use super::queue::{QUEUE_SIZE_MAX, STUCK, SendQueue};

fn stun(content: usize) -> Vec<u8> {
    let mut bytes = vec![0, 1];
    bytes.extend((content as u16).to_be_bytes());
    bytes.extend([0x21, 0x12, 0xa4, 0x42]);
    bytes.resize(20 + content, 7);
    bytes
}

fn channel_data(content: usize) -> Vec<u8> {
    let mut bytes = vec![0x40, 1];
    bytes.extend((content as u16).to_be_bytes());
    bytes.resize(4 + content, 9);
    bytes
}

fn collect(framing: Framing, parts: &[&[u8]]) -> Result<Vec<Vec<u8>>, Desynchronised> {
    let (mut deframer, mut messages) = (Deframer::new(framing), Vec::new());
    for part in parts {
        deframer.handle(part, |message| messages.push(message.to_vec()))?;
    }
    Ok(messages)
}

#[test]
fn messages_come_out_as_they_went_in_wherever_the_stream_is_cut() {
    let messages = [stun(0), channel_data(1), channel_data(4), stun(8), channel_data(0), channel_data(7), stun(1200)];
    for framing in [Framing::Turn, Framing::Length] {
        let mut stream = Vec::new();
        messages.iter().for_each(|message| assert!(framing.write(message, &mut stream)));
        for first in 0..60 {
            for step in [1, 2, 3, 5, 8, 100, 5000] {
                let (head, tail) = stream.split_at(first);
                let parts: Vec<&[u8]> = [head].into_iter().chain(tail.chunks(step)).collect();
                assert_eq!(collect(framing, &parts).expect("in step"), messages, "cut at {first}, then every {step}");
            }
        }
    }
}

#[test]
fn channel_data_is_padded_to_four_bytes_and_stun_is_not() {
    let mut out = Vec::new();
    for (size, expected) in [(0, 4), (1, 8), (2, 8), (3, 8), (4, 8), (5, 12)] {
        out.clear();
        Framing::Turn.write(&channel_data(size), &mut out);
        assert_eq!(out.len(), expected);
    }
    out.clear();
    Framing::Turn.write(&stun(12), &mut out);
    assert_eq!(out, stun(12));
    assert!(!Framing::Length.write(&vec![0; 65_536], &mut out), "no length for it");
}

#[test]
fn a_message_that_is_too_long_is_passed_over_and_counted() {
    for (framing, long) in [
        (Framing::Turn, channel_data(TURN_MESSAGE_SIZE_MAX)),
        (Framing::Turn, channel_data(60_001)),
        (Framing::Turn, stun(TURN_MESSAGE_SIZE_MAX)),
        (Framing::Length, vec![1; DATAGRAM_SIZE_MAX + 1]),
    ] {
        let mut stream = Vec::new();
        for message in [&stun(4), &long, &stun(8)] {
            framing.write(message, &mut stream);
        }
        for step in [1, 7, 1000, 100_000] {
            let (mut deframer, mut messages) = (Deframer::new(framing), Vec::new());
            for part in stream.chunks(step) {
                deframer.handle(part, |message| messages.push(message.to_vec())).expect("in step");
            }
            assert_eq!((messages, deframer.too_long()), (vec![stun(4), stun(8)], 1));
            assert!(deframer.is_between_messages());
        }
    }
}

#[test]
fn what_can_be_no_frame_ends_the_stream() {
    let mut no_cookie = stun(4);
    no_cookie[5] ^= 1;
    for bytes in [&[0x80, 0, 0, 0][..], &[0x80], &[0xff; 9], &[0, 1, 0, 3, 0x21, 0x12, 0xa4, 0x42], &no_cookie] {
        let mut stream = channel_data(4);
        stream.extend(bytes);
        for step in [1, 3, 100] {
            let parts: Vec<&[u8]> = stream.chunks(step).collect();
            assert_eq!(collect(Framing::Turn, &parts), Err(Desynchronised), "{bytes:x?}");
        }
    }
}

#[test]
fn empty_frames_are_nothing() {
    assert_eq!(collect(Framing::Length, &[&[0, 0, 0, 0, 0, 1, 5, 0, 0]]), Ok(vec![vec![5]]));
}

fn offer() -> Arc<Offer> {
    Arc::new(Offer { clear: Protocols { turn: true, ice: true, http: true }, tls: None })
}

#[derive(PartialEq, Eq, Debug)]
enum Came {
    Speaks(Protocol),
    Message(Vec<u8>),
    Bytes(Vec<u8>),
}

fn feed(connection: &mut Connection, bytes: &[u8], now: Now) -> Result<Vec<Came>, End> {
    let mut came = Vec::new();
    connection.handle(bytes, now, &mut |arrived| {
        came.push(match arrived {
            Arrived::Speaks(protocol) => Came::Speaks(protocol),
            Arrived::Message(bytes) => Came::Message(bytes.to_vec()),
            Arrived::Bytes(bytes) => Came::Bytes(bytes.to_vec()),
        });
    })?;
    Ok(came)
}

#[test]
fn a_connection_is_what_its_first_bytes_say() {
    let now = Now(1);
    let mut turn = Connection::new(offer(), now);
    let mut came = Vec::new();
    for byte in stun(4) {
        came.extend(feed(&mut turn, &[byte], now).expect("goes on"));
    }
    assert_eq!(came, [Came::Speaks(Protocol::Turn), Came::Message(stun(4))]);
    assert!(turn.send(&channel_data(5), now));
    assert_eq!(turn.pending().len(), 12);

    let mut ice = Connection::new(offer(), now);
    let mut framed = Vec::new();
    [stun(4), vec![22; 30]].iter().for_each(|message| _ = Framing::Length.write(message, &mut framed));
    let came = feed(&mut ice, &framed, now).expect("goes on");
    assert_eq!(came, [Came::Speaks(Protocol::Ice), Came::Message(stun(4)), Came::Message(vec![22; 30])]);
    assert!(ice.send(&[1, 2, 3], now));
    assert_eq!(ice.pending(), [0, 3, 1, 2, 3]);

    let mut http = Connection::new(offer(), now);
    let came = feed(&mut http, b"GET / HTTP/1.1\r\n\r\n", now).expect("goes on");
    assert_eq!(came[0], Came::Speaks(Protocol::Http));
    let bytes: Vec<u8> =
        came[1..].iter().flat_map(|came| if let Came::Bytes(b) = came { b.clone() } else { vec![] }).collect();
    assert_eq!(bytes, b"GET / HTTP/1.1\r\n\r\n");
    assert!(!http.send(b"no frames here", now) && http.send_bytes(b"HTTP/1.1 200", now));
}

#[test]
fn what_a_listener_does_not_offer_ends_the_connection() {
    let now = Now(1);
    let turn_only = Arc::new(Offer { clear: Protocols { turn: true, ..Protocols::NONE }, tls: None });
    for bytes in [&b"GET / HTTP/1.1"[..], b"\x16\x03\x01\x00\x05", &[&[0, 20][..], &stun(0)].concat(), b"\xff"] {
        assert_eq!(feed(&mut Connection::new(turn_only.clone(), now), bytes, now), Err(End::Unknown));
    }
    let nothing = Arc::new(Offer::default());
    assert_eq!(feed(&mut Connection::new(nothing, now), &stun(0), now), Err(End::Unknown));
    assert_eq!(feed(&mut Connection::new(turn_only, now), &[], now), Err(End::Closed));
}

#[test]
fn who_sends_no_whole_message_in_ten_seconds_is_closed_however_many_bytes_come() {
    let start = Now::from_millis(5);
    let mut slow = Connection::new(offer(), start);
    let bytes = stun(40);
    for (second, byte) in bytes.iter().take(10).enumerate() {
        let now = start + Duration::from_secs(second as u64);
        assert_eq!(slow.overdue(now), None);
        feed(&mut slow, &[*byte], now).expect("goes on");
    }
    assert_eq!(slow.overdue(start + FIRST_MESSAGE + Duration::from_millis(1)), Some(End::Silent));
    let mut quick = Connection::new(offer(), start);
    feed(&mut quick, &bytes, start).expect("goes on");
    assert_eq!(quick.overdue(start + IDLE_MAX), None);
    assert_eq!(quick.overdue(start + IDLE_MAX + Duration::from_secs(1)), Some(End::Silent));
    let mut ice = Connection::new(offer(), start);
    feed(&mut ice, &[&[0, 60][..], &bytes].concat(), start).expect("goes on");
    assert_eq!(ice.overdue(start + IDLE_MAX + Duration::from_secs(1)), Some(End::Silent));
}

#[test]
fn a_client_may_be_silent_for_as_long_as_it_has_an_allocation_and_no_longer() {
    let (start, second) = (Now::from_millis(5), Duration::from_secs(1));
    let mut client = Connection::new(offer(), start);
    feed(&mut client, &stun(40), start).expect("goes on");
    assert_eq!(client.overdue(start + 61 * second), Some(End::Silent), "whoever that is");
    client.hold(start + 600 * second);
    assert_eq!(client.overdue(start + 599 * second), None);
    assert_eq!(client.overdue(start + 600 * second), Some(End::Silent));
    // Released.
    client.hold(Now(0));
    assert_eq!(client.overdue(start + 60 * second), None);
    assert_eq!(client.overdue(start + 61 * second), Some(End::Silent));
}

#[test]
fn a_reader_that_is_slow_loses_messages_and_then_the_connection() {
    let start = Now::from_millis(5);
    let mut connection = Connection::new(offer(), start);
    feed(&mut connection, &stun(0), start).expect("goes on");
    connection.hold(start + 10 * STUCK);
    let sent = (0..1000).filter(|_| connection.send(&channel_data(1000), start)).count();
    assert!((200..300).contains(&sent), "{sent} messages wait");
    assert!(connection.pending().len() <= QUEUE_SIZE_MAX);
    let later = start + STUCK;
    connection.consume(5000, later);
    assert!(connection.send(&channel_data(1000), later), "there is room again");
    assert_eq!(connection.overdue(later + STUCK), None);
    assert_eq!(connection.overdue(later + STUCK + Duration::from_secs(1)), Some(End::Stuck));
}

#[test]
fn a_queue_gives_back_its_bytes_in_order_and_its_memory() {
    let (mut queue, mut wrote, mut read) = (SendQueue::default(), 0u32, 0u32);
    for round in 0..2000u32 {
        while queue.has_room(4) && wrote < read + 4000 {
            queue.append(Now(1)).extend(wrote.to_be_bytes());
            wrote += 1;
        }
        let take = (round as usize * 37 % 900 + 1) * 4;
        let taken = queue.pending()[..take.min(queue.pending().len())].to_vec();
        for number in taken.chunks_exact(4) {
            assert_eq!(number, read.to_be_bytes());
            read += 1;
        }
        queue.consume(taken.len(), Now(2));
    }
    let rest = queue.pending().len();
    queue.consume(rest, Now(3));
    assert!(queue.is_empty() && !queue.is_stuck(Now(u64::MAX)));
}
