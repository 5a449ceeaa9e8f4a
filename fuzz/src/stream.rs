//! A TCP connection: any bytes, cut anywhere, with answers and time between.

use std::sync::Arc;
use std::time::Duration;

use ringmain_dataplane::stream::classify::{Protocol, Protocols};
use ringmain_dataplane::stream::connection::{Arrived, Connection, Offer};
use ringmain_dataplane::stream::frame::{Deframer, Framing, TURN_MESSAGE_SIZE_MAX};
use ringmain_dataplane::stream::queue::QUEUE_SIZE_MAX;
use ringmain_shared::Now;

use crate::input::Input;

/// The same bytes whole and in pieces give the same messages, which written again are the bytes; and one connection, whatever comes.
pub fn stream(data: &[u8]) {
    let mut input = Input::new(data);
    let cut = usize::from(input.u8()) + 1;
    let bytes = input.rest();
    for framing in [Framing::Turn, Framing::Length] {
        let whole = deframe(framing, &[bytes]);
        let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
        assert_eq!(deframe(framing, &pieces), whole, "{framing:?} in pieces of {cut}");
        let mut wire = Vec::new();
        for message in &whole.0 {
            assert!(!message.is_empty() && message.len() <= framing.size_max());
            assert!(framing.write(message, &mut wire));
        }
        assert_eq!(deframe(framing, &[&wire]), (whole.0, true), "{framing:?} written again");
    }
    converse(data);
}

/// The messages, and whether the stream stayed in step.
fn deframe(framing: Framing, pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let (mut deframer, mut messages) = (Deframer::new(framing), Vec::new());
    for piece in pieces {
        if deframer.handle(piece, |message| messages.push(message.to_vec())).is_err() {
            return (messages, false);
        }
    }
    (messages, true)
}

fn converse(data: &[u8]) {
    let mut input = Input::new(data);
    let spoken = !data.last().copied().unwrap_or(0);
    let clear = Protocols { turn: spoken & 1 != 0, ice: spoken & 2 != 0, http: spoken & 4 != 0 };
    let offer = Offer { clear, tls: None };
    let mut now = Now(1);
    let mut connection = Connection::new(Arc::new(offer), now);
    let mut spoken = None;
    while !input.is_empty() {
        match input.u8() % 8 {
            0 => now = now + Duration::from_millis(u64::from(input.u16())),
            1 => _ = connection.send(input.chunk(), now),
            2 => connection.consume(usize::from(input.u16()), now),
            3 => _ = connection.send_bytes(input.chunk(), now),
            _ => {
                let result = connection.handle(input.chunk(), now, &mut |arrived| match arrived {
                    Arrived::Speaks(protocol) => {
                        assert!(clear.has(protocol), "{protocol:?} is not spoken here");
                        assert_eq!(spoken.replace(protocol), None, "said once");
                    }
                    Arrived::Message(message) => {
                        assert!(matches!(spoken, Some(Protocol::Turn | Protocol::Ice)));
                        assert!(!message.is_empty() && message.len() <= TURN_MESSAGE_SIZE_MAX);
                    }
                    Arrived::Bytes(bytes) => {
                        assert!(spoken == Some(Protocol::Http) && !bytes.is_empty());
                    }
                });
                if result.is_err() {
                    return;
                }
            }
        }
        assert!(connection.pending().len() <= QUEUE_SIZE_MAX);
        let _ = connection.overdue(now);
    }
}
