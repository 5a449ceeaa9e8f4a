//! Ten thousand subscribers to whom nothing is sent: what they cost a worker by being there.
//!
//! *Without a kernel*, in virtual time: a turn whenever a deadline is due or a datagram comes, each alone. Every transport's consent is
//! renewed as RFC 7675 has it and, in the second story, every client checks as often as Chromium does. *On sockets*, by the clock: the
//! same with a socket for each client over loopback, so with what the kernel takes for each datagram and each wake-up.

#![allow(missing_docs)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringmain_benches::counting::heap_in_use;
use ringmain_benches::engine::{here, now, path};
use ringmain_benches::floor::Carrier;
use ringmain_benches::measure::{Args, Over, cores, cpu_of, cpu_time, pin};
use ringmain_benches::report::{Report, Row};
use ringmain_benches::room::{Room, VIDEO, forget};
use ringmain_benches::{address, answer, check, wire};
use ringmain_dataplane::io::{Link, LinkChoice, Path, open, socket};
use ringmain_dataplane::worker::Worker;
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
        report.row(Row::new(format!("{peers} idle transports without a kernel: {what}"), share, "% core"));
        let rate = datagrams as f64 / time.as_secs_f64();
        report.row(Row::new(format!("{peers} idle transports: {what}, datagrams"), rate, "/s"));
    }
    if cores() < 2 {
        report.skip("idle transports on sockets: the clients need a core of their own");
    } else {
        Carrier::ALL.into_iter().for_each(|carrier| on_sockets(&args, &mut report, carrier, peers));
    }
    report.finish();
}

/// The run loop of a worker on one core and a socket for each client on another, by the clock.
fn on_sockets(args: &Args, report: &mut Report, carrier: Carrier, peers: u64) {
    pin(0);
    if let Err(reason) = may_open(peers + 100) {
        return report.skip(format!("{peers} idle transports on sockets: {reason}"));
    }
    let bind = |_| socket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("loopback");
    let clients: Vec<UdpSocket> = (0..=peers).map(bind).collect();
    let paths: Vec<Path> = clients.iter().map(|client| path(client.local_addr().expect("bound"))).collect();
    let server = wire::socket();
    let address = here(&server);
    let choice = if carrier == Carrier::IoUring { LinkChoice::IoUring } else { LinkChoice::Mmsg };
    let mut link = match open(choice, vec![server]) {
        Ok(opened) => opened.link,
        Err(error) => return report.skip(error.to_string()),
    };
    let mut worker = Room::at(&paths, |peer| peer == 0, |_, _| true, VIDEO).worker;
    // In the longest, every peer is asked for its consent once, as it is in every such time.
    let (warm_up, time) = args.pick((0.1, 0.1), (6.0, 3.0), (12.0, 21.0));
    let done = AtomicBool::new(false);
    let (ours, floor) = std::thread::scope(|scope| {
        let _over = Over(&done);
        scope.spawn(|| live(&clients, address, &done));
        let start = Instant::now();
        serve(&mut worker, &mut *link, start, Duration::from_secs_f64(warm_up));
        let time = Duration::from_secs_f64(time);
        (serve(&mut worker, &mut *link, start, time), answer_blindly(&mut *link, time))
    });
    let what = format!("{peers} idle transports on sockets, {}", link.name());
    // Each peer may answer a check of ours as well.
    let checks = time / CHECK_INTERVAL.as_secs_f64() * peers as f64;
    if !args.is_smoke() && (floor.differs_from(checks, 0.0) || ours.differs_from(checks, peers as f64)) {
        return report.skip(format!("{what}: the clients had too little of their core"));
    }
    let [share, floor] = [&ours, &floor].map(|spent| spent.cpu.as_secs_f64() / time * 100.0);
    report.row(Row::new(&what, share, "% core").beside("their checks answered blindly", floor).at_most(1.0));
    // Where the kernel alone takes more than that, there is still what we add, our consent checks and their kernel's work included.
    report.row(Row::new(format!("{what}, more than the kernel's own"), share - floor, "% core").at_most(1.0));
    report.row(Row::new(format!("{what}, turns"), f64::from(ours.turns) / time, "/s"));
    let dropped = worker.stats(&link.counters()).drops.iter().sum::<u64>();
    report.row(Row::new(format!("{what}, datagrams dropped"), dropped as f64, ""));
}

/// What some time on a core went for.
#[derive(Default)]
struct Spent {
    cpu: Duration,
    turns: u32,
    received: usize,
}

impl Spent {
    /// Whether notably fewer datagrams came than these, or more than these with so many others.
    fn differs_from(&self, datagrams: f64, others: f64) -> bool {
        let received = self.received as f64;
        received < 0.95 * datagrams || received > 1.05 * datagrams + others
    }
}

/// The run loop of a worker.
fn serve(worker: &mut Worker, link: &mut dyn Link, start: Instant, time: Duration) -> Spent {
    let (end, began, mut spent) = (Instant::now() + time, cpu_time(), Spent::default());
    while Instant::now() < end {
        if let Some(nap) = worker.nap(now(start)) {
            link.parts().1.flush();
            std::thread::sleep(nap);
        }
        let left = worker.next_deadline().since(now(start)).min(Duration::from_millis(100));
        link.receive(Some(left)).expect("works");
        let (rx, out) = link.parts();
        spent.received += rx.len();
        worker.turn(now(start), rx, out);
        out.end_turn();
        forget(worker);
        spent.turns += 1;
    }
    Spent { cpu: cpu_time() - began, ..spent }
}

/// What the kernel takes for the same checks, and for as many answers of the same size: nobody looks at what they say.
fn answer_blindly(link: &mut dyn Link, time: Duration) -> Spent {
    let (end, began, mut spent) = (Instant::now() + time, cpu_time(), Spent::default());
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
        link.receive(Some(Duration::from_millis(100))).expect("works");
        let (rx, out) = link.parts();
        spent.received += rx.len();
        for index in 0..rx.len() {
            let Ok(mut slot) = out.batch().reserve(rx.path(index), ANSWER_SIZE) else { break };
            slot.bytes_mut().fill(0);
            slot.commit(ANSWER_SIZE);
        }
        out.flush();
        spent.turns += 1;
    }
    Spent { cpu: cpu_time() - began, ..spent }
}

/// A binding success with XOR-MAPPED-ADDRESS, MESSAGE-INTEGRITY and FINGERPRINT.
const ANSWER_SIZE: usize = 64;

/// Every client answers what the worker asks, and asks as often as Chromium does, one after the other.
fn live(clients: &[UdpSocket], server: SocketAddr, done: &AtomicBool) {
    pin(1);
    let requests: Vec<Vec<u8>> = (0..clients.len() as u64).map(check).collect();
    let (began, mut buffer, mut round) = (Instant::now(), [0; 2048], 0u64);
    // Each is looked after this often in the time between two of its checks.
    const LOOKS: u64 = 25;
    let pause = CHECK_INTERVAL / (LOOKS * clients.len() as u64) as u32;
    while !done.load(Ordering::Relaxed) {
        let due = began.elapsed().div_duration_f64(pause) as u64;
        for number in round..due {
            let peer = number % clients.len() as u64;
            let client = &clients[peer as usize];
            while let Ok(size) = client.recv(&mut buffer) {
                if let Some(answer) = answer(peer, &buffer[..size]) {
                    client.send_to(&answer, server).expect("loopback");
                }
            }
            // A different look for each, so that they do not all ask in the same one.
            if (number / clients.len() as u64 + peer).is_multiple_of(LOOKS) {
                client.send_to(&requests[peer as usize], server).expect("loopback");
            }
        }
        round = due;
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Whether this process may have so many files open; asks for it if need be.
fn may_open(files: u64) -> Result<(), String> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| error.to_string())?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(|error| error.to_string())?;
    if most >= files { Ok(()) } else { Err(format!("only {most} files may be open")) }
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
