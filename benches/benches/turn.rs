//! What a relayed packet and an allocation cost, beside coturn: servers as their operators run them, processes of one core each, under the
//! same load in turns. Beside them the same links with nothing but a loop that receives and sends. `scripts/compare-turn` gets and builds
//! what this needs.
//!
//!     --server=FILE      `ringmain`; without it there is nothing to compare
//!     --rate=NUMBER      datagrams a second, both ways together
//!
//! CPU is all that the server's core did for it: the process, and the kernel's thread for what interrupts left over. Over loopback that
//! includes the delivery to the receiver.

#![allow(missing_docs)]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringmain_benches::bare::Bare;
use ringmain_benches::measure::{Args, Rounds, pin, take_turns};
use ringmain_benches::pairs::{PASSWORD, Pairs, REALM, Speech, USER};
use ringmain_benches::process::{Cpu, Server};
use ringmain_benches::report::{Report, Row, number};
use ringmain_dataplane::io::LinkChoice;

/// Clients of each server.
const CLIENTS: usize = 64;
/// Allocations for the measure of memory, beyond the first.
const MANY: usize = 1_000;
const SERVERS_CORE: usize = 0;
const LOADS_CORE: usize = 1;
const COTURN: &str = "/usr/bin/turnserver";

fn main() {
    if let Some(link) = option("--bare") {
        return bare(&link);
    }
    let args = Args::read();
    let mut report = Report::new("turn", &args);
    match option("--server").map(PathBuf::from) {
        None => report.skip("no --server=FILE: scripts/compare-turn builds one"),
        Some(_) if ringmain_benches::measure::cores() < 2 => report.skip("server and load want a core each"),
        Some(program) => {
            pin(LOADS_CORE);
            let mut table = Table::default();
            if let Err(reason) = compare(&args, &program, &mut report, &mut table) {
                report.skip(reason);
            }
            table.print();
        }
    }
    report.finish();
}

fn compare(args: &Args, program: &Path, report: &mut Report, table: &mut Table) -> Result<(), String> {
    let dir = Directory::new()?;
    let kinds = [Kind::Coturn, Kind::Ringmain("io_uring"), Kind::Ringmain("mmsg")];
    let bare = [Kind::Bare("io_uring"), Kind::Bare("mmsg")];
    let mut servers = Vec::new();
    for kind in kinds.into_iter().chain(bare) {
        match Running::start(kind, program, &dir) {
            Ok(server) => servers.push(server),
            Err(reason) => report.skip(format!("{}: {reason}", kind.name())),
        }
    }
    for load in LOADS {
        let what = load.name();
        if args.wants(&what) {
            relay(args, &what, load, &mut servers, report, table)?;
        }
    }
    for to_clients in [true, false] {
        for (size, send) in [(100, false), (1_100, false), (100, true), (1_100, true)] {
            let load = ClientLoad { to_clients, size, send };
            let what = load.name();
            if args.wants(&what) {
                uclient(args, &what, load, &mut servers, report, table)?;
            }
        }
    }
    drop(servers);
    if args.wants("memory") {
        memory(&kinds, program, &dir, report, table)?;
    }
    Ok(())
}

/// What is relayed.
#[derive(Clone, Copy)]
struct Load {
    speech: Speech,
    size: usize,
    /// Datagrams that a client, or a peer, sends at once.
    run: usize,
}

const LOADS: [Load; 5] = [
    Load { speech: Speech::Channel, size: 100, run: 1 },
    Load { speech: Speech::Channel, size: 1_100, run: 1 },
    Load { speech: Speech::Channel, size: 1_100, run: 8 },
    Load { speech: Speech::Send, size: 100, run: 1 },
    Load { speech: Speech::Send, size: 1_100, run: 1 },
];

impl Load {
    fn name(self) -> String {
        let how = if self.speech == Speech::Send { "Send" } else { "channel" };
        let run = if self.run > 1 { format!("frames of {} × ", self.run) } else { String::new() };
        format!("steady load, {run}{} bytes, {how}", self.size)
    }
}

/// A kind of server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Coturn,
    Ringmain(&'static str),
    Bare(&'static str),
}

impl Kind {
    fn name(self) -> String {
        match self {
            Kind::Coturn => "coturn".into(),
            Kind::Ringmain(link) => format!("ringmain, {link}"),
            Kind::Bare(link) => format!("bare loop, {link}"),
        }
    }
}

/// One server that runs.
struct Running {
    kind: Kind,
    server: Server,
    address: SocketAddr,
}

impl Running {
    fn start(kind: Kind, program: &Path, dir: &Directory) -> Result<Self, String> {
        let port = free_port()?;
        let number = dir.next();
        let (log, file) = (dir.path(&format!("{number}.log")), dir.path(&format!("{number}.conf")));
        // Each has a range of its own, below those that the kernel gives to clients.
        let first = 10_000 + number * 2_500;
        let text = format!(
            "listening-ip=127.0.0.1\nlistening-port={port}\nrelay-ip=127.0.0.1\nmin-port={first}\nmax-port={}\nrealm={REALM}\n\
             user={USER}:{PASSWORD}\nlt-cred-mech\nfingerprint\nallow-loopback-peers\nno-cli\nno-tls\nno-dtls\n",
            first + 2_499
        );
        std::fs::write(&file, text).map_err(|error| error.to_string())?;
        let file = file.display().to_string();
        let (program, arguments): (PathBuf, Vec<String>) = match kind {
            Kind::Coturn => {
                let own = |name: &str| dir.path(&format!("{number}.{name}")).display().to_string();
                let arguments = ["-c", &file, "--log-file", "stdout", "--userdb", &own("db"), "--pidfile", &own("pid")];
                let mut arguments: Vec<String> = arguments.map(String::from).into();
                arguments.extend(option("--coturn-threads").map(|threads| format!("--relay-threads={threads}")));
                (COTURN.into(), arguments)
            }
            Kind::Ringmain(link) => {
                let arguments = ["turn", "--coturn-config", &file, "--workers", "1", "--pin=false", "--link", link];
                (program.to_owned(), arguments.map(String::from).into())
            }
            Kind::Bare(link) => {
                let own = std::env::current_exe().map_err(|error| error.to_string())?;
                (own, vec![format!("--bare={link}"), format!("--port={port}")])
            }
        };
        if !program.exists() {
            return Err(format!("there is no {}", program.display()));
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let server = Server::start(SERVERS_CORE, &program, &arguments, &log)?;
        let mut running = Self { kind, server, address: (Ipv4Addr::LOCALHOST, port).into() };
        running.await_start().map_err(|error| {
            let told = std::fs::read_to_string(&log).unwrap_or_default();
            format!("{error}; it said: {}", told.lines().last().unwrap_or_default())
        })?;
        Ok(running)
    }

    /// Until somebody has the port.
    fn await_start(&mut self) -> Result<(), String> {
        let began = Instant::now();
        while UdpSocket::bind(self.address).is_ok() {
            if !self.server.is_alive() || began.elapsed() > Duration::from_secs(20) {
                return Err("it did not start".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    }

    fn speech(&self, speech: Speech) -> Speech {
        if matches!(self.kind, Kind::Bare(_)) { Speech::Bare } else { speech }
    }
}

/// What one server took for all its rounds.
#[derive(Default)]
struct Taken {
    cpu: Cpu,
    sent: u64,
    received: u64,
    rounds: Rounds,
}

/// The load of this program's own.
fn relay(
    args: &Args,
    what: &str,
    load: Load,
    servers: &mut [Running],
    report: &mut Report,
    table: &mut Table,
) -> Result<(), String> {
    let rate = option("--rate").and_then(|text| text.parse().ok()).unwrap_or(RATE);
    let time = Duration::from_millis(args.pick(20, 300, 500));
    let mut contenders = Vec::new();
    for running in servers {
        let pairs = Pairs::new(running.address, CLIENTS, running.speech(load.speech), load.size, &mut || {});
        let pairs = pairs.map_err(|error| format!("{}: {error}", running.kind.name()))?;
        contenders.push((running, pairs, Taken::default()));
    }
    // The first datagrams make tables grow.
    contenders.iter_mut().for_each(|(_, pairs, _)| _ = pairs.drive(rate, load.run, time / 5));
    let rounds = take_turns(&mut contenders, args.pick(1, 4, 12), |(running, pairs, taken)| {
        let before = running.server.cpu();
        let (sent, received) = pairs.drive(rate, load.run, time);
        let spent = running.server.cpu().since(before);
        (taken.sent, taken.received) = (taken.sent + sent, taken.received + received);
        taken.cpu += spent;
        spent.whole.as_nanos() as f64 / received.max(1) as f64
    });
    let taken = contenders
        .into_iter()
        .zip(rounds)
        .map(|((running, _, taken), rounds)| (running.kind, Taken { rounds, ..taken }));
    tell(what, &taken.collect::<Vec<_>>(), report, table);
    Ok(())
}

/// What coturn's own client sends.
#[derive(Clone, Copy)]
struct ClientLoad {
    /// Its clients are each other's peers, as in a call of two who both relay; otherwise there is coturn's own peer, which sends back.
    to_clients: bool,
    size: usize,
    /// By Send, not by channels.
    send: bool,
}

impl ClientLoad {
    fn name(self) -> String {
        let how = if self.send { "Send" } else { "channel" };
        let peer = if self.to_clients { "clients with each other" } else { "with a peer" };
        format!("turnutils_uclient, {peer}, {} bytes, {how}", self.size)
    }
}

/// The load of coturn's own client. Either way a message is relayed twice: from a client, and to one.
fn uclient(
    args: &Args,
    what: &str,
    load: ClientLoad,
    servers: &mut [Running],
    report: &mut Report,
    table: &mut Table,
) -> Result<(), String> {
    let peer_port = free_port()?;
    let dir = Directory::new()?;
    let peer = Server::start(
        LOADS_CORE,
        Path::new("/usr/bin/turnutils_peer"),
        &["-p", &peer_port.to_string(), "-L", "127.0.0.1"],
        &dir.path("peer.log"),
    )?;
    let mut contenders: Vec<(&mut Running, Taken)> = servers
        .iter_mut()
        .filter(|running| !matches!(running.kind, Kind::Bare(_)))
        .map(|running| (running, Taken::default()))
        .collect();
    // Enough that what it takes to allocate does not show.
    let messages = args.pick("20", "3000", "3000");
    let mut failed = None;
    let rounds = take_turns(&mut contenders, args.pick(1, 1, 3), |(running, taken)| {
        let before = running.server.cpu();
        let mut client = Command::new("taskset");
        client.args(["-c", &LOADS_CORE.to_string(), "/usr/bin/turnutils_uclient", "-u", USER, "-w", PASSWORD, "-c"]);
        client.args([
            "-m",
            "50",
            "-n",
            messages,
            "-z",
            "1",
            "-l",
            &load.size.to_string(),
            "-p",
            &running.address.port().to_string(),
        ]);
        client.args(load.send.then_some("-s"));
        match load.to_clients {
            true => client.arg("-y"),
            false => client.args(["-e", "127.0.0.1", "-r", &peer_port.to_string()]),
        };
        let done = client.arg("127.0.0.1").stdin(Stdio::null()).output();
        let spent = running.server.cpu().since(before);
        let told = done.map(|done| String::from_utf8_lossy(&done.stdout).into_owned()).unwrap_or_default();
        let count = |name: &str| -> Option<u64> {
            let text = told.rsplit(name).next().filter(|text| text.len() < told.len())?;
            text.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
        };
        let (Some(sent), Some(received)) = (count("tot_send_msgs="), count("tot_recv_msgs=")) else {
            failed = Some(format!("turnutils_uclient said: {}", told.lines().last().unwrap_or_default()));
            return f64::NAN;
        };
        (taken.sent, taken.received) = (taken.sent + 2 * sent, taken.received + sent + received);
        taken.cpu += spent;
        spent.whole.as_nanos() as f64 / (sent + received).max(1) as f64
    });
    drop(peer);
    if let Some(reason) = failed {
        report.skip(reason);
        return Ok(());
    }
    let taken =
        contenders.into_iter().zip(rounds).map(|((running, taken), rounds)| (running.kind, Taken { rounds, ..taken }));
    tell(what, &taken.collect::<Vec<_>>(), report, table);
    Ok(())
}

/// Rows of what was measured in the same rounds.
fn tell(what: &str, taken: &[(Kind, Taken)], report: &mut Report, table: &mut Table) {
    let of = |wanted: Kind| taken.iter().find(|(kind, _)| *kind == wanted).map(|(_, taken)| taken);
    for (kind, taken) in taken {
        let (user, system) = taken.cpu.ticks;
        let row = Row::new(format!("{what}, {}", kind.name()), taken.rounds.median(), "ns");
        let lost = 100.0 * (1.0 - taken.received as f64 / taken.sent.max(1) as f64);
        let user = 100.0 * user as f64 / (user + system).max(1) as f64;
        let mut cells = vec![
            what.to_owned(),
            kind.name(),
            micros(taken.rounds.median()),
            format!("{user:.0} %"),
            format!("{lost:.3} %"),
        ];
        let Kind::Ringmain(link) = *kind else {
            cells.extend([String::new(), String::new()]);
            table.rows.push(cells);
            report.row(row);
            continue;
        };
        let mut rows = Vec::new();
        let mut ratio = |name: &str, limit: f64, other: Option<&Taken>| {
            let Some(other) = other else { return String::new() };
            let ratio = taken.rounds.ratio(&other.rounds);
            rows.push(row.clone().beside_by(name, other.rounds.median(), ratio).ratio_at_most(limit));
            format!("{ratio:.2}{}", if ratio <= limit { "" } else { " (!)" })
        };
        cells.extend([ratio("coturn", 0.5, of(Kind::Coturn)), ratio("bare loop", 1.2, of(Kind::Bare(link)))]);
        table.rows.push(cells);
        rows.into_iter().for_each(|row| report.row(row));
    }
}

/// What an allocation with a channel, that has been used, adds to a server.
fn memory(
    kinds: &[Kind],
    program: &Path,
    dir: &Directory,
    report: &mut Report,
    table: &mut Table,
) -> Result<(), String> {
    let mut coturn = None;
    for &kind in kinds {
        let running = match Running::start(kind, program, dir) {
            Ok(running) => running,
            Err(_) => continue,
        };
        let clients = |count| -> Result<u64, String> {
            let mut pairs = Pairs::new(running.address, count, Speech::Channel, 1_100, &mut || {})?;
            pairs.drive(20_000.0, 1, Duration::from_millis(500));
            Ok(running.server.resident())
        };
        let (one, all) = (clients(1)?, clients(MANY)?);
        let each = all.saturating_sub(one) as f64 / MANY as f64;
        let row = Row::new(format!("memory of an allocation, {}", kind.name()), each, "bytes");
        let text = format!("{:.1} MiB with 1, {:.1} MiB with {}", mebi(one), mebi(all), MANY + 1);
        let mut cells = vec![
            "memory of an allocation".into(),
            kind.name(),
            format!("{:.1} KiB", each / 1024.0),
            String::new(),
            text,
        ];
        match coturn {
            Some(theirs) => {
                let ratio: f64 = each / theirs;
                cells.extend([format!("{ratio:.2}{}", if ratio <= 0.5 { "" } else { " (!)" }), String::new()]);
                report.row(row.beside("coturn", theirs).ratio_at_most(0.5));
            }
            None => {
                cells.extend([String::new(), String::new()]);
                report.row(row);
            }
        }
        if kind == Kind::Coturn {
            coturn = Some(each);
        }
        table.rows.push(cells);
    }
    Ok(())
}

/// This program as a server that only receives and sends, until its parent ends it.
fn bare(link: &str) {
    let choice = if link == "mmsg" { LinkChoice::Mmsg } else { LinkChoice::IoUring };
    let port = option("--port").and_then(|text| text.parse().ok()).unwrap_or(0u16);
    match Bare::open(choice, (Ipv4Addr::LOCALHOST, port).into()) {
        Ok((mut server, _)) => loop {
            server.turn(Duration::from_secs(1));
        },
        Err(reason) => eprintln!("{reason}"),
    }
}

/// What was measured, for people.
#[derive(Default)]
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn print(&self) {
        println!(
            "\n| load | server | CPU µs per packet | of it in user space | lost | of coturn's | of the bare loop's |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- |");
        self.rows.iter().for_each(|row| println!("| {} |", row.join(" | ")));
        println!("\n(!) is above its goal: half of coturn's, 1.2 of the bare loop's.");
    }
}

/// Files of the servers'. Ends with this value.
struct Directory {
    path: PathBuf,
    count: std::cell::Cell<u16>,
}

impl Directory {
    fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(
            format!("ringmain-turn-{}-{:?}", std::process::id(), Instant::now()).replace([' ', '{', '}', ':', ','], ""),
        );
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path, count: std::cell::Cell::new(0) })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn next(&self) -> u16 {
        self.count.replace(self.count.get() + 1)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn free_port() -> Result<u16, String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    socket.map(|address| address.port()).map_err(|error| error.to_string())
}

/// The value of `--name=value`.
fn option(name: &str) -> Option<String> {
    std::env::args().find_map(|argument| Some(argument.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

fn micros(nanos: f64) -> String {
    number(nanos / 1_000.0)
}

fn mebi(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// Datagrams a second, both ways together: what one core of coturn's does with ease.
const RATE: f64 = 60_000.0;
