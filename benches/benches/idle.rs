//! Ten thousand subscribers to whom nothing is sent: what they cost a worker by being there.
//!
//! Virtual time, no kernel: a turn whenever a deadline is due or a datagram comes, each alone, as it would be. Every transport's consent
//! is renewed as RFC 7675 has it and, in the second story, every client checks as often as Chromium does. What the kernel takes
//! for a datagram is in `floor`; how many there are is told.

#![allow(missing_docs)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use ringmain_benches::counting::heap_in_use;
use ringmain_benches::measure::{Args, cpu_of};
use ringmain_benches::report::{Report, Row};
use ringmain_benches::room::{Room, VIDEO};
use ringmain_benches::{address, answer, check};
use ringmain_dataplane::io::Path;
use ringmain_shared::Now;

/// Chromium's interval between two checks of a connection that works.
const CHECK_INTERVAL: Duration = Duration::from_millis(2_500);

fn main() {
    let args = Args::read();
    let mut report = Report::new("idle", &args);
    let peers = args.pick(200, 10_000, 10_000);
    let paths: Vec<Path> = (0..=peers).map(address).collect();
    for (what, subscribes) in [("connected", false), ("subscribed to a track", true)] {
        let before = heap_in_use();
        let room = Room::at(&paths, |peer| peer == 0, |_, _| subscribes, VIDEO);
        let size = (heap_in_use() - before) as f64 / peers as f64 / 1024.0;
        let row = Row::new(format!("memory of one transport, {what}"), size, "KiB");
        report.row(if subscribes { row.at_most(24.0) } else { row });
        drop(room);
    }
    for (what, clients_check) in [("our consent checks", false), ("and the clients' checks", true)] {
        let mut room = Room::at(&paths, |peer| peer == 0, |_, _| true, VIDEO);
        // Everybody joined at once; after a while their timers have drifted apart.
        run(&mut room, peers, Duration::from_secs(12), clients_check);
        let time = Duration::from_secs(args.pick(1, 5, 20));
        let (spent, datagrams) = run(&mut room, peers, time, clients_check);
        let share = spent.div_duration_f64(time) * 100.0;
        report.row(Row::new(format!("{peers} idle transports: {what}"), share, "% core").at_most(1.0));
        let rate = datagrams as f64 / time.as_secs_f64();
        report.row(Row::new(format!("{peers} idle transports: {what}, datagrams"), rate, "/s"));
    }
    report.finish();
}

/// Lets time pass. CPU time of the worker, and datagrams both ways.
fn run(room: &mut Room, peers: u64, time: Duration, clients_check: bool) -> (Duration, u64) {
    let end = room.now + time;
    let mut checks = BinaryHeap::new();
    if clients_check {
        let spread = CHECK_INTERVAL / peers as u32;
        checks.extend((1..=peers).map(|peer| Reverse((room.now + spread * peer as u32, peer))));
    }
    let requests: Vec<Vec<u8>> = (0..=peers).map(check).collect();
    let (mut spent, mut datagrams) = (Duration::ZERO, 0);
    let mut answers: Vec<(u64, Vec<u8>)> = Vec::new();
    loop {
        let next_check = checks.peek().map(|&Reverse((at, _))| at);
        let next =
            if answers.is_empty() { room.worker.next_deadline().min(next_check.unwrap_or(end)) } else { room.now };
        if next >= end {
            return (spent, datagrams);
        }
        room.now = Now(next.0.max(room.now.0));
        if let Some((peer, answer)) = answers.pop() {
            room.link.push(address(peer), &answer);
            datagrams += 1;
        } else if let Some(Reverse((at, peer))) = checks.peek().copied()
            && at <= room.now
        {
            checks.pop();
            checks.push(Reverse((at + CHECK_INTERVAL, peer)));
            room.link.push(address(peer), &requests[peer as usize]);
            datagrams += 1;
        }
        spent += cpu_of(|| room.turn());
        for (path, bytes) in room.link.take() {
            datagrams += 1;
            if let Some(peer) = peer_at(path)
                && let Some(answer) = answer(peer, &bytes)
            {
                answers.push((peer, answer));
            }
        }
    }
}

/// The other way round than `address`.
fn peer_at(path: Path) -> Option<u64> {
    match path.remote.ip() {
        std::net::IpAddr::V4(ip) => Some(u64::from(u32::from(ip) & 0xffff)),
        std::net::IpAddr::V6(_) => None,
    }
}
