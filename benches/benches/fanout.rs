//! One packet to many subscribers, without a kernel: what our own code costs for each, beside the cipher alone, and what it allocates.
//!
//! Each turn takes in one datagram and forwards it to all; in a room where all publish, one of each publisher. The cipher is AES-128-GCM
//! over as many bytes under one key that stays in the cache; ours are as many keys as subscribers.

#![allow(missing_docs)]

use std::time::Duration;

use ringmain_benches::counting::{Counting, allocations};
use ringmain_benches::floor::seal;
use ringmain_benches::measure::{Args, cpu_of, take_turns};
use ringmain_benches::report::{Report, Row};
use ringmain_benches::room::{AUDIO, Media, Room, VIDEO};
use ringmain_dataplane::io::Link;

/// What is sent, and how much it may cost beyond the cipher.
const CASES: [(&str, Media, f64); 2] =
    [("1200 B video", Media { sizes: &[1200], ..VIDEO }, 90.0), ("100 B audio", AUDIO, 120.0)];
/// Publishers, and how many hear each.
const ROOMS: [(u64, u64); 6] = [(1, 1), (1, 10), (1, 100), (1, 1000), (1, 5000), (20, 19)];
/// Packets of one round, roughly.
const PACKETS: u64 = 5_000;

enum Contender {
    Seal { bytes: Vec<u8> },
    Room { room: Box<Room>, forwarded: u64, allocated: u64 },
}

fn main() {
    let args = Args::read();
    let mut report = Report::new("fanout", &args);
    for (name, media, limit) in CASES {
        if args.wants(name) {
            measure(&args, &mut report, name, media, limit);
        }
    }
    report.finish();
}

fn measure(args: &Args, report: &mut Report, name: &str, media: Media, limit: f64) {
    let key = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_128_GCM, &[7; 16]).expect("16 bytes");
    let key = aws_lc_rs::aead::LessSafeKey::new(key);
    let mut contenders = vec![Contender::Seal { bytes: vec![0; media.sizes[0]] }];
    let rooms = if args.is_smoke() { &ROOMS[..3] } else { &ROOMS };
    for &(publishers, subscribers) in rooms {
        let mut room = Box::new(Room::new(publishers, subscribers + 1, media));
        drop(room.last_sent());
        // Tables get their size.
        (0..20).for_each(|_| room.frames());
        contenders.push(Contender::Room { room, forwarded: publishers * subscribers, allocated: 0 });
    }
    let results = take_turns(&mut contenders, args.pick(1, 20, 100), |contender| match contender {
        Contender::Seal { bytes } => {
            let seal = || (0..PACKETS).for_each(|number| seal(&key, number, std::hint::black_box(bytes)));
            cpu_of(seal).as_nanos() as f64 / PACKETS as f64
        }
        Contender::Room { room, forwarded, allocated } => {
            let turns = PACKETS.div_ceil(*forwarded).min(500);
            let (mut spent, before) = (Duration::ZERO, room.link.counters().sent);
            for _ in 0..turns {
                room.push();
                let so_far = allocations();
                spent += cpu_of(|| room.turn());
                *allocated += allocations() - so_far;
            }
            let sent = room.link.counters().sent - before;
            assert!(sent >= turns * *forwarded, "everybody got every packet");
            spent.as_nanos() as f64 / (turns * *forwarded) as f64
        }
    });
    let (cipher, results) = (&results[0], &results[1..]);
    for ((publishers, subscribers), result) in rooms.iter().zip(results) {
        let row = Row::new(format!("{name}, {publishers} to {subscribers}"), result.median(), "ns");
        let row = row.beside("seal", cipher.median());
        report.row(if *subscribers == 100 { row.above_at_most(limit) } else { row });
    }
    if let [_, ten, _, thousand, ..] = results {
        let row = Row::new(format!("{name}, flat: 1 to 1000"), thousand.median(), "ns");
        report.row(row.beside_by("1 to 10", ten.median(), thousand.ratio(ten)).ratio_at_most(1.15));
    }
    let allocated = contenders.iter().map(|contender| match contender {
        Contender::Room { allocated, .. } => *allocated,
        Contender::Seal { .. } => 0,
    });
    report.row(Row::new(format!("{name}, allocations"), allocated.sum::<u64>() as f64, "in all").at_most(0.0));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
