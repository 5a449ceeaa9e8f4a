//! RTCP that asks for as much work as one datagram may: what each kind of packet costs a worker when the datagram is full of it, and
//! which one costs most. From a subscriber who has what is asked for, after media; without a kernel, deciphering included.
//! What counts is how long others wait for it: the longest of the turns that it causes. What it costs in all of them is told too.

#![allow(missing_docs)]

use std::time::Duration;

use ringmain_benches::measure::{Args, Rounds, cpu_of, take_turns};
use ringmain_benches::report::{Report, Row};
use ringmain_benches::room::{Room, VIDEO};
use ringmain_benches::{Feedback, address, sent_ssrc};
use ringmain_dataplane::io::Link;
use ringmain_dataplane::packet::rtcp::{CompoundWriter, FirEntry, ReportBlock};
use ringmain_dataplane::srtp::Profile;
use ringmain_shared::limits::{DATAGRAM_SIZE_MAX, RTCP_BLOCKS_MAX, RTCP_NACK_ENTRIES_MAX, RTCP_PACKETS_MAX};
use ringmain_shared::media::Ssrc;

/// The subscriber who asks.
const PEER: u64 = 3;
const OURS: Ssrc = Ssrc(1);

/// Fills a datagram. The number is the last sequence number that was sent.
type Fill = fn(&mut CompoundWriter<'_>, u16);

const KINDS: [(&str, Fill); 9] = [
    ("one empty receiver report", |out, _| {
        out.receiver_report(OURS, &[]);
    }),
    ("receiver reports, 31 blocks each", |out, _| {
        let block = ReportBlock {
            ssrc: sent_ssrc(0),
            fraction_lost: 1,
            cumulative_lost: 1,
            highest_sequence: 1,
            jitter: 1,
            last_sr: 1,
            delay_since_last_sr: 1,
        };
        // The second one takes what is left.
        for blocks in [[block; RTCP_BLOCKS_MAX].as_slice(), &[block; 29]] {
            out.receiver_report(OURS, blocks);
        }
    }),
    ("source descriptions", |out, _| fill(|| out.description(&[(OURS, "a@b"); RTCP_BLOCKS_MAX]))),
    ("BYEs", |out, _| fill(|| out.bye(&[OURS; RTCP_BLOCKS_MAX]))),
    ("picture loss indications", |out, _| fill(|| out.pli(OURS, sent_ssrc(0)))),
    ("full intra requests", |out, _| {
        fill(|| out.fir(OURS, &[FirEntry { ssrc: sent_ssrc(0), sequence: 1 }; RTCP_BLOCKS_MAX]))
    }),
    ("REMBs", |out, _| fill(|| out.remb(OURS, 1_000_000, &[sent_ssrc(0); 255]))),
    ("NACKs for what was sent", |out, last| nacks(out, last, 0)),
    ("NACKs for what never was", |out, last| nacks(out, last, 30_000)),
];

fn main() {
    let args = Args::read();
    let mut report = Report::new("rtcp", &args);
    let mut asker = Asker::new();
    let mut kinds: Vec<(&str, Fill)> = KINDS.to_vec();
    let mut wholes: Vec<(&str, Rounds, u64)> = Vec::new();
    let results = take_turns(&mut kinds, args.pick(2, 50, 300), |(name, fill)| {
        let Cost { longest, whole, resent } = asker.cost(*fill);
        let index = wholes.iter().position(|(other, ..)| other == name).unwrap_or(wholes.len());
        if index == wholes.len() {
            wholes.push((*name, Rounds::default(), 0));
        }
        wholes[index].1.push(whole);
        wholes[index].2 += resent;
        longest
    });
    let mut worst = 0;
    for (index, ((name, _), result)) in kinds.iter().zip(&results).enumerate() {
        let row = Row::new(format!("a datagram full of {name}"), result.median() / 1000.0, "µs");
        report.row(if index == 0 {
            row
        } else {
            row.beside_by("an empty report", results[0].median() / 1000.0, result.ratio(&results[0]))
        });
        if result.median() > results[worst].median() {
            worst = index;
        }
    }
    for (name, whole, resent) in wholes.iter().filter(|(_, _, resent)| *resent > 0) {
        let packets = *resent as f64 / whole.len() as f64;
        report.row(Row::new(format!("{name}: {packets:.0} packets, in all turns"), whole.median() / 1000.0, "µs"));
    }
    let name = kinds[worst].0;
    report.row(Row::new(format!("the worst: {name}"), results[worst].median() / 1000.0, "µs").at_most(20.0));
    report.finish();
}

/// Nanoseconds.
struct Cost {
    longest: f64,
    whole: f64,
    resent: u64,
}

/// A room with media in it, and somebody who asks for things.
struct Asker {
    room: Room,
    feedback: Feedback,
    last: u16,
}

impl Asker {
    fn new() -> Self {
        let mut room = Room::new(1, 8, VIDEO);
        for _ in 0..200 {
            room.frames();
        }
        let sent = room.last_sent();
        let mut its = sent
            .iter()
            .filter(|(path, bytes)| *path == address(PEER) && bytes.get(8..12) == Some(&sent_ssrc(0).0.to_be_bytes()));
        let (_, bytes) = its.next_back().expect("media was sent");
        let last = u16::from_be_bytes([bytes[2], bytes[3]]);
        Self { room, feedback: Feedback::new(PEER), last }
    }

    /// What one datagram takes. Between two there is media, so that there is something to send again.
    fn cost(&mut self, fill: Fill) -> Cost {
        for _ in 0..20 {
            self.room.frames();
            self.last = self.last.wrapping_add(VIDEO.sizes.len() as u16);
        }
        self.room.now = self.room.now + Duration::from_millis(2);
        let mut clear = [0; DATAGRAM_SIZE_MAX - Profile::RTCP_OVERHEAD_MAX];
        let mut writer = CompoundWriter::new(&mut clear);
        fill(&mut writer, self.last);
        let len = writer.len();
        let datagram = self.feedback.protect(&clear[..len]);
        self.room.link.push(address(PEER), &datagram);
        let (received, resent) = (self.room.link.counters().received, self.resent());
        let (mut longest, mut whole) = (Duration::ZERO, Duration::ZERO);
        loop {
            let spent = cpu_of(|| self.room.turn());
            (longest, whole) = (longest.max(spent), whole + spent);
            if self.room.worker.next_deadline() > self.room.now {
                break;
            }
        }
        assert_eq!(self.room.link.counters().received, received + 1);
        let nanos = |time: Duration| time.as_nanos() as f64;
        Cost { longest: nanos(longest), whole: nanos(whole), resent: self.resent() - resent }
    }

    fn resent(&mut self) -> u64 {
        self.room.worker.stats(&self.room.link.counters()).rtx_sent
    }
}

/// As many packets as a compound may have, or as fit.
fn fill(mut packet: impl FnMut() -> Option<()>) {
    for _ in 0..RTCP_PACKETS_MAX {
        if packet().is_none() {
            return;
        }
    }
}

/// Every entry names seventeen packets, backwards from `last - back`.
fn nacks(out: &mut CompoundWriter<'_>, last: u16, back: u16) {
    let mut end = last.wrapping_sub(back);
    fill(|| {
        let count = 17 * RTCP_NACK_ENTRIES_MAX as u16;
        let sequences: Vec<u16> = (0..count).map(|number| end.wrapping_sub(count - 1 - number)).collect();
        end = end.wrapping_sub(if back == 0 { 0 } else { count });
        out.nack(OURS, sent_ssrc(0), &sequences).map(drop)
    });
}
