//! Forwarding, feedback and retransmission allocate nothing once the tables have their size.

#![allow(missing_docs)]

use ringmain_benches::counting::{Counting, allocations};
use ringmain_benches::room::{Room, VIDEO};
use ringmain_benches::{Feedback, address, sent_ssrc};
use ringmain_dataplane::io::Link;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_turn_allocates_nothing_after_warm_up() {
    const PEERS: u64 = 50;
    const PACKETS: usize = VIDEO.sizes.len();
    let mut room = Room::new(2, PEERS, VIDEO);
    let sent = room.last_sent();
    // The header of what goes out is clear: the sequence number of each peer's last packet.
    let last = |peer: u64| {
        let mut its =
            sent.iter().filter(|(path, bytes)| *path == address(peer) && bytes[8..12] == sent_ssrc(0).0.to_be_bytes());
        let (_, bytes) = its.next_back().expect("the first frame is a keyframe");
        u16::from_be_bytes([bytes[2], bytes[3]])
    };
    let mut peers: Vec<(u64, u16, Feedback)> = (2..PEERS).map(|peer| (peer, last(peer), Feedback::new(peer))).collect();
    let mut story = |frames: u16| {
        let (mut allocated, before) = (0, room.worker.stats(&room.link.counters()));
        for frame in 0..frames {
            room.push();
            for (peer, sequence, feedback) in &mut peers {
                if frame % 10 == 9 {
                    room.link.push(address(*peer), &feedback.ask(0, &[*sequence, sequence.wrapping_sub(3)]));
                }
                *sequence = sequence.wrapping_add(PACKETS as u16);
            }
            let began = allocations();
            room.turn();
            // What was asked for again goes out over several turns.
            while room.worker.next_deadline() <= room.now {
                room.turn();
            }
            allocated += allocations() - began;
        }
        let after = room.worker.stats(&room.link.counters());
        (allocated, after.rtp_forwarded - before.rtp_forwarded, after.rtx_sent - before.rtx_sent)
    };
    story(200);
    let (allocated, forwarded, resent) = story(300);
    let expected = 300 * 2 * (PEERS - 1) * PACKETS as u64;
    assert_eq!((forwarded, resent), (expected, 30 * (PEERS - 2) * 2), "the story is as it should be");
    assert_eq!(allocated, 0);
}
