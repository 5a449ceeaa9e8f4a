//! What a worker adds to a packet's way, at half of the load that it can carry.
//!
//! Rooms of one publisher and twenty subscribers, 30 frames a second of 8 packets, each publisher at a time of its own, so that frames
//! meet. How many rooms are half of a core is measured first. The worker runs by the clock on one core, the publishers on another. In some
//! rooms the first and the last subscriber are real sockets: a packet's way is from the publisher's clock before `sendto` to the kernel's
//! timestamp of its arrival. The same from socket to socket, without a worker, is taken off.
//!
//! The machine may be busy with other things: what counts is what was sent in quiet moments, in which neither thread had to wait for its
//! core for so long that it could make the goals fail by itself. Without enough of them, the goals are not judged.

#![allow(missing_docs)]

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringmain_benches::engine::{here, now, path};
use ringmain_benches::floor::Carrier;
use ringmain_benches::measure::{Args, Over, cores, cpu_of, cpu_time, pin, quantile, waited};
use ringmain_benches::report::{Report, Row};
use ringmain_benches::room::{Room, Tap, VIDEO, forget};
use ringmain_benches::wire::{Wire, socket};
use ringmain_benches::{Camera, answer};
use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::io::{Link, LinkChoice, Path, Transmit, open};

const SUBSCRIBERS: usize = 20;
/// Rooms with probes in them.
const PROBED: usize = 16;
/// There are never more rooms than this, even on a core that could take them.
const ROOMS: usize = 400;

fn main() {
    let args = Args::read();
    let mut report = Report::new("latency", &args);
    if cores() < 2 {
        report.skip("latency: publishers need a core of their own");
    } else {
        for carrier in Carrier::ALL {
            measure(&args, &mut report, carrier);
        }
    }
    report.finish();
}

fn measure(args: &Args, report: &mut Report, carrier: Carrier) {
    pin(0);
    let rooms = args.pick(PROBED, ROOMS, ROOMS);
    let mut stage = match Stage::new(carrier, rooms) {
        Ok(stage) => stage,
        Err(reason) => return report.skip(reason),
    };
    let cost = stage.cost_of_a_frame();
    let half = 0.5 / (cost.as_secs_f64() / VIDEO.period.as_secs_f64());
    let active = (half as usize).clamp(PROBED, rooms);
    let time = Duration::from_millis(args.pick(100, 3_000, 20_000));
    let (done, begun) = (AtomicBool::new(false), Instant::now());
    let mut crowd = stage.leave_crowd(active);
    let (performance, direct, served) = std::thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            let _over = Over(&done);
            pin(1);
            let direct = direct();
            (crowd.perform(time), direct)
        });
        let served = stage.serve(&done);
        let (performance, direct) = crowd.join().expect("the publishers published");
        (performance, direct, served)
    });
    let (spent, worker) = served;
    let Performance { ways, publishers } = performance;
    let load = spent.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    let name = carrier.name();
    let all = ways.len();
    let quiet: Vec<&Way> = ways.iter().filter(|way| worker.is_quiet(way) && publishers.is_quiet(way)).collect();
    let is_judged = quiet.len() >= JUDGED_FROM;
    if !is_judged {
        let share = quiet.len() as f64 / all.max(1) as f64 * 100.0;
        report.skip(format!("{name}: only {share:.0} % of {all} packets went in quiet moments"));
    }
    let counted: Vec<&Way> = if is_judged { quiet } else { ways.iter().collect() };
    report.row(Row::new(format!("{name}: {active} rooms of 1 to {SUBSCRIBERS}, load"), load, "% core"));
    let direct = quantile(direct, 0.5);
    report.row(Row::new(format!("{name}: from socket to socket, median"), direct, "µs"));
    let added: Vec<f64> = counted.iter().map(|way| way.took - direct).collect();
    for (share, what, limit) in [(0.5, "p50", None), (0.99, "p99", Some(1_000.0)), (0.999, "p99.9", Some(3_000.0))] {
        let row = Row::new(format!("{name}: added by the worker, {what}"), quantile(added.clone(), share), "µs");
        report.row(match limit {
            Some(limit) if is_judged => row.at_most(limit),
            _ => row,
        });
    }
    let what = format!("{name}: added by the worker, most of {} of {all}", added.len());
    report.row(Row::new(what, quantile(added, 1.0), "µs"));
}

/// One packet from a publisher to a probe.
struct Way {
    /// When it was sent, µs.
    sent: f64,
    /// µs.
    took: f64,
}

/// What the publishers and probes saw, and how their core was.
struct Performance {
    ways: Vec<Way>,
    publishers: Watch,
}

/// When a thread had its core, and when others kept it away.
struct Watch {
    began: f64,
    waited: Duration,
    /// Times in which it waited too long, µs.
    noisy: Vec<(f64, f64)>,
}

impl Watch {
    fn begin() -> Self {
        Self { began: wall(), waited: waited(), noisy: Vec::new() }
    }

    /// Looks again, if it is time.
    fn look(&mut self) {
        let now = wall();
        if now - self.began < MOMENT {
            return;
        }
        let waited = waited();
        if micros(waited - self.waited) > WAITED_MAX {
            self.noisy.push((self.began, now));
        }
        (self.began, self.waited) = (now, waited);
    }

    /// Whether a packet met no wait, nor what one left behind.
    fn is_quiet(&self, way: &Way) -> bool {
        let later = self.noisy.partition_point(|&(_, end)| end + MOMENT < way.sent);
        self.noisy.get(later).is_none_or(|&(begin, _)| way.sent + way.took < begin)
    }
}

/// The worker with all rooms.
struct Stage {
    room: Room,
    link: Box<dyn Link>,
    server: SocketAddr,
    peers: HashMap<Path, u64>,
    publishers: Vec<UdpSocket>,
    probes: Vec<Vec<UdpSocket>>,
    start: Instant,
    /// What nobody reads is kept open.
    _sinks: Wire,
}

/// The publishers and probes, on their own thread.
struct Crowd {
    cameras: Vec<(Path, Camera)>,
    server: SocketAddr,
    publishers: Vec<UdpSocket>,
    probes: Vec<Vec<UdpSocket>>,
}

impl Stage {
    fn new(carrier: Carrier, rooms: usize) -> Result<Self, String> {
        let mut sinks = Wire::loopback();
        let far = sinks.remotes(rooms * SUBSCRIBERS);
        let publishers: Vec<UdpSocket> = (0..rooms).map(|_| loopback()).collect();
        let probes: Vec<Vec<UdpSocket>> = (0..PROBED).map(|_| vec![loopback(), loopback()]).collect();
        let mut paths = Vec::new();
        for (room, publisher) in publishers.iter().enumerate() {
            paths.push(path(publisher.local_addr().expect("bound")));
            for subscriber in 0..SUBSCRIBERS {
                let probe = match subscriber {
                    0 => probes.get(room).map(|probes| &probes[0]),
                    _ if subscriber + 1 == SUBSCRIBERS => probes.get(room).map(|probes| &probes[1]),
                    _ => None,
                };
                let sink = far[room * SUBSCRIBERS + subscriber];
                paths.push(path(probe.map_or(sink, |probe| probe.local_addr().expect("bound"))));
            }
        }
        let size = SUBSCRIBERS as u64 + 1;
        let mut room =
            Room::at(&paths, |peer| peer % size == 0, |peer, publisher| peer / size == publisher / size, VIDEO);
        room.link = MemoryLink::counting();
        let socket = socket();
        let server = here(&socket);
        let choice = if carrier == Carrier::IoUring { LinkChoice::IoUring } else { LinkChoice::Mmsg };
        let link = open(choice, vec![socket]).map_err(|error| error.to_string())?.link;
        let peers = paths.into_iter().zip(0..).collect();
        Ok(Self { room, link, server, peers, publishers, probes, start: Instant::now(), _sinks: sinks })
    }

    /// CPU time of one publisher's frame, of every publisher's first few.
    fn cost_of_a_frame(&mut self) -> Duration {
        let (mut spent, mut frames) = (Duration::ZERO, 0);
        for room in (0..self.publishers.len()).cycle().take(FRAMES_TO_CALIBRATE * self.publishers.len()) {
            send(&mut self.room.cameras[room].1, &self.publishers[room], self.server);
            let mut came = 0;
            while came < VIDEO.sizes.len() {
                spent += cpu_of(|| came += self.turn(Duration::from_millis(1)));
            }
            frames += 1;
        }
        // io_uring sends what is left with its next receive.
        self.turn(Duration::ZERO);
        spent / frames
    }

    fn leave_crowd(&mut self, active: usize) -> Crowd {
        let mut cameras = std::mem::take(&mut self.room.cameras);
        cameras.truncate(active);
        let (publishers, probes) = (std::mem::take(&mut self.publishers), std::mem::take(&mut self.probes));
        let mut buffer = [0; 2048];
        // What was sent to calibrate.
        for probe in probes.iter().flatten() {
            while probe.recv(&mut buffer).is_ok() {}
        }
        Crowd { cameras, server: self.server, publishers, probes }
    }

    /// The run loop of a worker, until it is over. Its CPU time, and how its core was.
    fn serve(&mut self, done: &AtomicBool) -> (Duration, Watch) {
        let (began, mut watch) = (cpu_time(), Watch::begin());
        while !done.load(Ordering::Relaxed) {
            let left = self.room.worker.next_deadline().since(now(self.start));
            self.turn(left.min(Duration::from_millis(10)));
            watch.look();
        }
        (cpu_time() - began, watch)
    }

    /// A turn of the run loop. How many datagrams came.
    fn turn(&mut self, timeout: Duration) -> usize {
        self.link.receive(Some(timeout)).expect("works");
        self.room.now = now(self.start);
        let mut checks = Vec::new();
        let (rx, out) = self.link.parts();
        let came = rx.len();
        let mut out = Tap { out, checks: &mut checks };
        self.room.worker.turn(self.room.now, rx, &mut out);
        out.end_turn();
        forget(&mut self.room.worker);
        if !checks.is_empty() {
            for (path, check) in checks {
                if let Some(answer) = self.peers.get(&path).and_then(|&peer| answer(peer, &check)) {
                    self.room.link.push(path, &answer);
                }
            }
            self.room.turn();
        }
        came
    }
}

impl Crowd {
    /// Everybody publishes for so long.
    fn perform(&mut self, time: Duration) -> Performance {
        let count = self.cameras.len() as u32;
        let mut readers: Vec<Vec<Reader>> =
            self.probes.iter().map(|probes| probes.iter().map(|_| Reader::default()).collect()).collect();
        let mut sent: Vec<Vec<f64>> = vec![Vec::new(); self.probes.len()];
        let (began, mut publishers) = (Instant::now(), Watch::begin());
        let mut ways = Vec::new();
        // Every publisher has its moment within a period: a spread that is the same in every run.
        let mut moments: Vec<(Duration, usize)> = (0..count)
            .map(|room| {
                (VIDEO.period.mul_f64(f64::from(room.wrapping_mul(2_654_435_761)) / 2f64.powi(32)), room as usize)
            })
            .collect();
        moments.sort();
        for period in 0.. {
            if VIDEO.period * period >= time {
                break;
            }
            for &(moment, room) in &moments {
                let at = VIDEO.period * period + moment;
                while began.elapsed() < at {
                    std::thread::sleep(at.saturating_sub(began.elapsed()));
                }
                let moments = send(&mut self.cameras[room].1, &self.publishers[room], self.server);
                if let Some(sent) = sent.get_mut(room) {
                    sent.extend(moments);
                }
                publishers.look();
            }
            for ((probes, readers), sent) in self.probes.iter().zip(&mut readers).zip(&sent) {
                for (probe, reader) in probes.iter().zip(readers) {
                    reader.read(probe, sent, &mut ways);
                }
            }
        }
        Performance { ways, publishers }
    }
}

/// One probe's place in its publisher's stream.
#[derive(Default)]
struct Reader {
    first: Option<u16>,
    last: u64,
}

impl Reader {
    /// Takes in what has come. Numbers run on, so the difference to the first one is the place in the stream.
    fn read(&mut self, probe: &UdpSocket, sent: &[f64], ways: &mut Vec<Way>) {
        let mut buffer = [0; 2048];
        while let Ok(size) = probe.recv(&mut buffer) {
            let arrived = arrival(probe);
            // RFC 5761 §4: reports of the worker's are not of the stream.
            if size < 12 || (64..96).contains(&(buffer[1] & 0x7f)) || buffer[0] >> 6 != 2 {
                continue;
            }
            let sequence = u16::from_be_bytes([buffer[2], buffer[3]]);
            let first = *self.first.get_or_insert(sequence);
            let offset = sequence.wrapping_sub(first).wrapping_sub(self.last as u16);
            self.last += u64::from(offset);
            if let Some(&sent) = sent.get(self.last as usize) {
                ways.push(Way { sent, took: arrived - sent });
            }
        }
    }
}

/// Sends one frame. When each packet went, µs.
fn send(camera: &mut Camera, from: &UdpSocket, to: SocketAddr) -> Vec<f64> {
    let mut frame = Vec::new();
    camera.frame(VIDEO.sizes, &mut frame);
    let mut rest = frame.as_slice();
    VIDEO
        .sizes
        .iter()
        .map(|&size| {
            let (packet, after) = rest.split_at(size);
            rest = after;
            let at = wall();
            from.send_to(packet, to).expect("loopback");
            at
        })
        .collect()
}

/// From socket to socket, with nothing in between, µs.
fn direct() -> Vec<f64> {
    let (from, to) = (loopback(), loopback());
    let remote = to.local_addr().expect("bound");
    let mut buffer = [0; 2048];
    arrival(&to);
    let way = |_| {
        let at = wall();
        from.send_to(&[0x80; 1100], remote).expect("loopback");
        to.recv(&mut buffer).expect("it is there at once");
        arrival(&to) - at
    };
    (0..1_000).map(way).collect()
}

/// A socket of a client, whose datagrams carry the time of their arrival.
fn loopback() -> UdpSocket {
    let socket = ringmain_dataplane::io::socket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("loopback");
    arrival(&socket);
    socket
}

/// When the datagram that was read last arrived, by the kernel's clock, µs. Asked for once, the kernel takes the time of each.
fn arrival(socket: &UdpSocket) -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes a timespec, and `time` outlives the call.
    unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSTAMPNS, &raw mut time) };
    micros(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

fn wall() -> f64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A day's microseconds, so that a fraction of one still counts.
fn micros(time: Duration) -> f64 {
    Duration::new(time.as_secs() % 86_400, time.subsec_nanos()).as_nanos() as f64 / 1000.0
}

const FRAMES_TO_CALIBRATE: usize = 5;
/// How often a thread looks how long it waited, µs.
const MOMENT: f64 = 10_000.0;
/// A thread that waited for longer in a moment, µs, could make the goals fail by that alone. It is woken some twenty times, each of which
/// takes one or two, on a virtual machine ten or twenty.
const WAITED_MAX: f64 = 1_000.0;
/// Packets in quiet moments that are enough to judge: of these a thousandth is ten.
const JUDGED_FROM: usize = 10_000;
/// `linux/sockios.h`, for a 64-bit timespec.
const SIOCGSTAMPNS: libc::Ioctl = 0x8907;
