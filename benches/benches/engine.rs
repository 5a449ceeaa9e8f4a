//! The whole worker between real sockets, beside the floor of the same packets in the same run; see [`ringmain_benches::engine`] and
//! [`ringmain_benches::floor`].
//!
//! One publisher and many subscribers on one core. Frames come at their rate, so that caches are as cold between them as they would be.
//! Links of ours, the same worker on tokio-uring, and the floor of each take turns, a few frames each. What counts is CPU time of
//! the worker's thread per forwarded packet, receiving included.

#![allow(missing_docs)]

use std::time::{Duration, Instant};

use ringmain_benches::engine::Engine;
use ringmain_benches::floor::{Carrier, Floor};
use ringmain_benches::measure::{Args, Rounds, pin, take_turns};
use ringmain_benches::on_tokio;
use ringmain_benches::report::{Report, Row};
use ringmain_benches::room::{AUDIO, Media, SPACED, VIDEO};
use ringmain_benches::wire::{Wire, in_own_network, socket};

/// What is sent, to how many, and what it may cost.
struct Case {
    name: &'static str,
    media: Media,
    subscribers: usize,
    /// Datagrams of a train on the floor: all that a turn has for one subscriber.
    train: usize,
    /// Times the floor.
    limit: f64,
    /// The comparison with other ways to do it is in the picture.
    drawn: bool,
}

const CASES: [Case; 5] = [
    video("burst, 30 fps", 33_333, true),
    video("burst, 90 fps", 11_111, false),
    video("burst, 300 fps", 3_333, false),
    Case { name: "spaced 1.5 ms", media: SPACED, subscribers: 100, train: 1, limit: 1.2, drawn: false },
    Case { name: "audio", media: AUDIO, subscribers: 500, train: 1, limit: 1.35, drawn: true },
];

const fn video(name: &'static str, micros: u64, drawn: bool) -> Case {
    let media = Media { period: Duration::from_micros(micros), ..VIDEO };
    Case { name, media, subscribers: 100, train: VIDEO.sizes.len(), limit: 1.15, drawn }
}

fn main() {
    let args = Args::read();
    let mut report = Report::new("engine", &args);
    pin(0);
    all(&args, &mut report, Wire::loopback());
    let veth = in_own_network(|| Wire::cable(0).map(|wire| all(&args, &mut report, wire)));
    if let Err(reason) = veth.and_then(|result| result) {
        report.skip(format!("veth into XDP: {reason}"));
    }
    report.finish();
}

fn all(args: &Args, report: &mut Report, mut wire: Wire) {
    for case in CASES.iter().filter(|case| args.wants(case.name)) {
        measure(args, report, &mut wire, case);
    }
    if args.wants("flat") {
        flat(args, report, &mut wire);
    }
}

enum Contender {
    Engine { name: String, engine: Box<Engine>, floor: Carrier },
    Floor { carrier: Carrier, floor: Box<Floor> },
}

impl Contender {
    /// Datagrams for each send of an engine, once it is sure that it forwarded everything.
    fn finish(&mut self) -> Option<f64> {
        match self {
            Contender::Engine { engine, .. } => Some(engine.finish()),
            Contender::Floor { .. } => None,
        }
    }
}

fn measure(args: &Args, report: &mut Report, wire: &mut Wire, case: &Case) {
    let remotes = wire.remotes(case.subscribers);
    let size = case.media.sizes.iter().sum::<usize>() / case.media.sizes.len();
    let mut contenders = Vec::new();
    for carrier in Carrier::ALL {
        match Engine::new(carrier, &remotes, case.media) {
            Ok(engine) => {
                contenders.push(Contender::Engine {
                    name: carrier.name().into(),
                    engine: Box::new(engine),
                    floor: carrier,
                });
            }
            Err(reason) => report.skip(reason),
        }
        if let Ok(floor) = Floor::new(carrier, socket(), &remotes, case.train, size, true) {
            contenders.push(Contender::Floor { carrier, floor: Box::new(floor) });
        }
    }
    for (name, trains) in [("tokio-uring, trains", true), ("tokio-uring, one by one", false)] {
        // Where packets come alone, both are the same.
        if trains && case.train == 1 {
            continue;
        }
        match on_tokio::engine(trains, &remotes, case.media) {
            Ok(engine) => {
                let (name, engine) = (name.to_owned(), Box::new(engine));
                contenders.push(Contender::Engine { name, engine, floor: Carrier::IoUring });
            }
            Err(reason) => report.skip(reason),
        }
    }
    let frames = args.pick(1, slice(case.media).min(20), slice(case.media));
    // The first frames size tables.
    for contender in &mut contenders {
        work(contender, 3, Duration::ZERO);
    }
    let results = take_turns(&mut contenders, args.pick(1, 5, 20), |contender| {
        work(contender, frames, if args.is_smoke() { Duration::ZERO } else { case.media.period })
    });
    let trains: Vec<Option<f64>> = contenders.iter_mut().map(Contender::finish).collect();
    let floor_of = |wanted: Carrier| -> Option<&Rounds> {
        let is = |contender: &Contender| matches!(contender, Contender::Floor { carrier, .. } if *carrier == wanted);
        contenders.iter().position(is).map(|index| &results[index])
    };
    for ((contender, result), train) in contenders.iter().zip(&results).zip(trains) {
        let Contender::Engine { name, floor, .. } = contender else { continue };
        let (Some(baseline), Some(train)) = (floor_of(*floor), train) else { continue };
        let what = format!("{}, 1 to {}, {name}, {}", case.name, case.subscribers, wire.name());
        let row = Row::new(what, result.median(), "ns").beside_by("floor", baseline.median(), result.ratio(baseline));
        let ours = !name.starts_with("tokio");
        report.row(if ours { row.ratio_at_most(case.limit) } else { row });
        if case.train > 1 {
            println!("         … in trains of {train:.1}");
        }
    }
    compare(report, wire, case, &contenders, &results);
}

/// Our links beside one another and beside tokio-uring, from the same rounds.
fn compare(report: &mut Report, wire: &Wire, case: &Case, contenders: &[Contender], results: &[Rounds]) {
    let named = |wanted: &str| {
        let is = |contender: &Contender| matches!(contender, Contender::Engine { name, .. } if name == wanted);
        contenders.iter().position(is).map(|index| &results[index])
    };
    let Some(ours) = named("io_uring") else { return };
    for other in ["mmsg", "tokio-uring, trains", "tokio-uring, one by one"] {
        if let Some(theirs) = named(other) {
            let what = format!("{}: io_uring, {}", case.name, wire.name());
            let row = Row::new(what, ours.median(), "ns").beside_by(other, theirs.median(), ours.ratio(theirs));
            report.row(if case.drawn { row.drawn() } else { row });
        }
    }
}

/// Nanoseconds per packet over so many frames, one each `period`.
fn work(contender: &mut Contender, frames: u32, period: Duration) -> f64 {
    let (mut spent, began) = (Duration::ZERO, Instant::now());
    for frame in 0..frames {
        std::thread::sleep((period * frame).saturating_sub(began.elapsed()));
        spent += match contender {
            Contender::Engine { engine, .. } => engine.frame(),
            Contender::Floor { floor, .. } => floor.send(),
        };
    }
    let datagrams = match contender {
        Contender::Engine { engine, .. } => engine.datagrams(),
        Contender::Floor { floor, .. } => floor.datagrams(),
    };
    spent.as_nanos() as f64 / (datagrams as u32 * frames) as f64
}

/// A room of 1000 beside a room of 10, frame by frame as fast as it goes.
fn flat(args: &Args, report: &mut Report, wire: &mut Wire) {
    for carrier in Carrier::ALL {
        let engine = |wire: &mut Wire, subscribers| Engine::new(carrier, &wire.remotes(subscribers), VIDEO);
        let (Ok(many), Ok(few)) = (engine(wire, 1_000), engine(wire, 10)) else { continue };
        let mut engines = [(many, 1), (few, 100)];
        for (engine, frames) in &mut engines {
            for _ in 0..*frames {
                engine.frame();
            }
        }
        let results = take_turns(&mut engines, args.pick(1, 20, 100), |(engine, frames)| {
            let spent: Duration = (0..*frames).map(|_| engine.frame()).sum();
            spent.as_nanos() as f64 / (engine.datagrams() * *frames) as f64
        });
        let what = format!("flat: 1000 subscribers, {}, {}", carrier.name(), wire.name());
        let row = Row::new(what, results[0].median(), "ns");
        let row = row.beside_by("10 subscribers", results[1].median(), results[0].ratio(&results[1]));
        report.row(row.ratio_at_most(1.15));
        for (engine, _) in &mut engines {
            engine.finish();
        }
    }
}

/// Frames that come in a fifth of a second.
fn slice(media: Media) -> u32 {
    Duration::from_millis(200).div_duration_f64(media.period).ceil() as u32
}
