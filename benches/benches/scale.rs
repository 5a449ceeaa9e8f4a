//! Two workers on two cores beside one: each has a room of its own and a cable of its own into an XDP program, so that what they share is the
//! machine and the kernel, and nothing of ours. Each feeds itself, since there is no third core that must be there.
//!
//! Time that passes: on a machine that is busy with other things the goal is not judged. CPU time is told as well, which shows contention
//! even there.

#![allow(missing_docs)]

use std::sync::Barrier;
use std::time::{Duration, Instant};

use ringmain_benches::engine::Engine;
use ringmain_benches::floor::Carrier;
use ringmain_benches::measure::{Args, Rounds, WAITED_MAX, cores, cpu_time, pin, quantile, take_turns, waited};
use ringmain_benches::report::{Report, Row};
use ringmain_benches::room::VIDEO;
use ringmain_benches::wire::{Wire, in_own_network};

const SUBSCRIBERS: usize = 100;

fn main() {
    let args = Args::read();
    let mut report = Report::new("scale", &args);
    if cores() < 2 {
        report.skip("two workers: there is one core");
    } else if let Err(reason) = in_own_network(|| all(&args, &mut report)).and_then(|result| result) {
        report.skip(format!("two workers on veth: {reason}"));
    }
    report.finish();
}

fn all(args: &Args, report: &mut Report) -> Result<(), String> {
    let mut wires = [Wire::cable(0)?, Wire::cable(1)?];
    for carrier in Carrier::ALL {
        if let Err(reason) = Engine::new(carrier, &wires[0].remotes(1), VIDEO) {
            report.skip(reason);
            continue;
        }
        let mut by_cpu = [Rounds::default(), Rounds::default()];
        let mut waited = Vec::new();
        let time = Duration::from_millis(args.pick(20, 300, 500));
        let rates = take_turns(&mut [1, 2], args.pick(1, 5, 20), |workers| {
            let results = run(carrier, &mut wires[..*workers], time);
            by_cpu[*workers - 1].push(results.iter().map(|result| result.by_cpu).sum());
            waited.extend(results.iter().map(|result| result.waited));
            results.iter().map(|result| result.by_clock).sum()
        });
        let name = carrier.name();
        let row = Row::new(format!("two workers, {name}, packets a second"), rates[1].median(), "/s");
        let row = row.beside_by("one", rates[0].median(), rates[1].ratio(&rates[0]));
        let waited = quantile(waited, 0.5);
        if waited > WAITED_MAX {
            report.skip(format!("{name}: other programs had the cores {:.0} % of the time", waited * 100.0));
            report.row(row);
        } else {
            report.row(row.ratio_at_least(1.9));
        }
        let row = Row::new(format!("two workers, {name}, packets a second of CPU"), by_cpu[1].median(), "/s");
        report.row(row.beside_by("one", by_cpu[0].median(), by_cpu[1].ratio(&by_cpu[0])));
    }
    Ok(())
}

/// What one worker did.
struct Done {
    /// Packets a second.
    by_clock: f64,
    /// Packets a second of CPU time.
    by_cpu: f64,
    /// Part of the time in which it was ready and had no core.
    waited: f64,
}

/// A worker on each wire at once.
fn run(carrier: Carrier, wires: &mut [Wire], time: Duration) -> Vec<Done> {
    let barrier = Barrier::new(wires.len());
    let barrier = &barrier;
    std::thread::scope(|scope| {
        let threads: Vec<_> = wires
            .iter_mut()
            .enumerate()
            .map(|(core, wire)| {
                scope.spawn(move || {
                    pin(core);
                    let mut engine = Engine::new(carrier, &wire.remotes(SUBSCRIBERS), VIDEO).expect("it worked before");
                    for _ in 0..5 {
                        engine.frame();
                    }
                    barrier.wait();
                    let (began, cpu, idle, mut frames) = (Instant::now(), cpu_time(), waited(), 0);
                    while began.elapsed() < time {
                        engine.frame();
                        frames += 1;
                    }
                    engine.settle();
                    let packets = (frames * engine.datagrams()) as f64;
                    let passed = began.elapsed();
                    let done = Done {
                        by_clock: packets / passed.as_secs_f64(),
                        by_cpu: packets / (cpu_time() - cpu).as_secs_f64(),
                        waited: (waited() - idle).div_duration_f64(passed),
                    };
                    engine.finish();
                    done
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("the worker ran")).collect()
    })
}
