//! Two workers on two cores beside one: each has a room of its own and a cable of its own into an XDP program, so that what they share is
//! the machine and the kernel, and nothing of ours. Each feeds itself, since there is no third core that must be there.
//!
//! Time that passes counts, in windows in which the machine did nothing else; without enough of those the goal is not judged. CPU time is
//! told of all windows, and shows contention even on a busy machine. The floor's two threads are what machine and kernel allow.

#![allow(missing_docs)]

use std::sync::Barrier;
use std::time::{Duration, Instant};

use ringmain_benches::engine::Engine;
use ringmain_benches::floor::{Carrier, Floor};
use ringmain_benches::measure::{Args, WAITED_MAX, cores, cpu_time, machine_time, pin, quantile, waited};
use ringmain_benches::report::{Report, Row};
use ringmain_benches::room::VIDEO;
use ringmain_benches::wire::{Wire, in_own_network, socket};

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
        let mut scales = [Scale::default(), Scale::default()];
        for round in 0..args.pick(1, 20, 60) {
            for (load, scale) in [Load::Engine, Load::Floor].into_iter().zip(&mut scales) {
                for workers in [1 + round % 2, 2 - round % 2] {
                    scale.by_workers[workers - 1].extend(run(carrier, load, &mut wires[..workers], window(args)));
                }
            }
            if round >= args.pick(1, 5, 20) && scales.iter().all(Scale::is_enough) {
                break;
            }
        }
        let [engine, floor] = &scales;
        let name = carrier.name();
        let row = engine.row(format!("two workers, {name}, packets a second"), Window::by_clock);
        let allowed = floor.row(format!("two threads of the floor, {name}, packets a second"), Window::by_clock);
        let is_allowed = floor.ratio(Window::by_clock) >= 1.9;
        if !scales.iter().all(Scale::is_enough) {
            let quiet = (0..2).map(|index| engine.quiet(index).len()).min().unwrap_or_default();
            report.skip(format!("{name}: the machine was busy with other things, but for {quiet} windows"));
            report.row(row);
        } else if !is_allowed {
            report.skip(format!("{name}: two cores of this machine do not do twice the work of one, see the floor"));
            report.row(row);
        } else {
            report.row(row.ratio_at_least(1.9));
        }
        report.row(allowed);
        report.row(engine.row(format!("two workers, {name}, packets a second of CPU"), Window::by_cpu));
    }
    Ok(())
}

/// What runs on each core.
#[derive(Clone, Copy)]
enum Load {
    Engine,
    Floor,
}

/// What all workers together did in one window.
struct Window {
    workers: u32,
    packets: f64,
    passed: Duration,
    /// CPU time of the workers.
    spent: Duration,
    /// CPU time of everything else, as far as the clock's steps show it.
    others: Duration,
    /// The longest that a worker was ready and had no core.
    waited: Duration,
}

impl Window {
    fn by_clock(&self) -> f64 {
        self.packets / self.passed.as_secs_f64()
    }

    fn by_cpu(&self) -> f64 {
        self.packets / (self.spent / self.workers).as_secs_f64()
    }

    fn is_quiet(&self) -> bool {
        self.waited.div_duration_f64(self.passed) <= WAITED_MAX && self.others <= STEPS * 2
    }
}

/// The windows of one worker and of two.
#[derive(Default)]
struct Scale {
    by_workers: [Vec<Window>; 2],
}

impl Scale {
    fn quiet(&self, index: usize) -> Vec<&Window> {
        self.by_workers[index].iter().filter(|window| window.is_quiet()).collect()
    }

    fn is_enough(&self) -> bool {
        (0..2).all(|index| self.quiet(index).len() >= WINDOWS_MIN)
    }

    /// The median of one number: in quiet windows if there are enough.
    fn median(&self, index: usize, number: fn(&Window) -> f64) -> f64 {
        let windows = if self.is_enough() { self.quiet(index) } else { self.by_workers[index].iter().collect() };
        quantile(windows.into_iter().map(number).collect(), 0.5)
    }

    fn ratio(&self, number: fn(&Window) -> f64) -> f64 {
        self.median(1, number) / self.median(0, number)
    }

    fn row(&self, what: String, number: fn(&Window) -> f64) -> Row {
        Row::new(what, self.median(1, number), "/s").beside("one", self.median(0, number))
    }
}

/// A worker on each wire at once, for some windows.
fn run(carrier: Carrier, load: Load, wires: &mut [Wire], time: Duration) -> Vec<Window> {
    let barrier = Barrier::new(wires.len());
    let barrier = &barrier;
    let by_worker: Vec<Vec<Window>> = std::thread::scope(|scope| {
        let threads: Vec<_> = wires
            .iter_mut()
            .enumerate()
            .map(|(core, wire)| {
                scope.spawn(move || {
                    pin(core);
                    let remotes = wire.remotes(SUBSCRIBERS);
                    match load {
                        Load::Engine => {
                            let mut engine = Engine::new(carrier, &remotes, VIDEO).expect("it worked before");
                            let windows = watch(barrier, time, engine.datagrams(), || _ = engine.frame());
                            engine.finish();
                            windows
                        }
                        Load::Floor => {
                            let train = VIDEO.sizes.len();
                            let floor = Floor::new(carrier, socket(), &remotes, train, VIDEO.sizes[0], true);
                            let mut floor = floor.expect("it worked before");
                            watch(barrier, time, floor.datagrams(), || _ = floor.send())
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("the worker ran")).collect()
    });
    let mut by_worker = by_worker.into_iter();
    let first = by_worker.next().expect("there is a worker");
    by_worker
        .fold(first, |all, worker| all.into_iter().zip(worker).map(|(all, window)| together(all, &window)).collect())
}

/// What one worker does in some windows: `work` sends so many packets each time.
fn watch(barrier: &Barrier, time: Duration, packets: usize, mut work: impl FnMut()) -> Vec<Window> {
    (0..5).for_each(|_| work());
    let window = |_| {
        barrier.wait();
        let (began, machine, cpu, idle) = (Instant::now(), machine_time(), cpu_time(), waited());
        let mut times = 0;
        while began.elapsed() < time {
            work();
            times += 1;
        }
        let (passed, spent) = (began.elapsed(), cpu_time() - cpu);
        let others = (machine_time() - machine).saturating_sub(spent);
        Window { workers: 1, packets: (times * packets) as f64, passed, spent, others, waited: waited() - idle }
    };
    (0..WINDOWS).map(window).collect()
}

/// Two workers' windows at the same time: what one did is not other things to the other.
fn together(all: Window, other: &Window) -> Window {
    Window {
        workers: all.workers + 1,
        packets: all.packets + other.packets,
        passed: all.passed.max(other.passed),
        spent: all.spent + other.spent,
        others: all.others.saturating_sub(other.spent),
        waited: all.waited.max(other.waited),
    }
}

fn window(args: &Args) -> Duration {
    Duration::from_millis(args.pick(5, 100, 100))
}

/// Windows of one run.
const WINDOWS: usize = 4;
/// Quiet windows that are enough to judge.
const WINDOWS_MIN: usize = 20;
/// Of the machine's clock.
const STEPS: Duration = Duration::from_millis(10);
