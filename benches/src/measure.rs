//! How long something took, on a machine that does other things as well: CPU time of the thread instead of time that passed, and many
//! short rounds in which all that is compared takes turns, so that what disturbs one disturbs its neighbour.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What the command line asks for.
pub struct Args {
    effort: Effort,
    filters: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    Smoke,
    Quick,
    Full,
}

impl Args {
    /// `--test` runs everything once and measures nothing, `--quick` measures roughly; a word keeps what has it in its name.
    pub fn read() -> Self {
        let (mut effort, mut filters) = (Effort::Full, Vec::new());
        for argument in std::env::args().skip(1) {
            match argument.as_str() {
                "--test" => effort = Effort::Smoke,
                "--quick" if effort == Effort::Full => effort = Effort::Quick,
                option if option.starts_with('-') => {}
                word => filters.push(word.to_owned()),
            }
        }
        Self { effort, filters }
    }

    pub fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }

    /// The one of three that the effort calls for.
    pub fn pick<T>(&self, smoke: T, quick: T, full: T) -> T {
        match self.effort {
            Effort::Smoke => smoke,
            Effort::Quick => quick,
            Effort::Full => full,
        }
    }

    pub fn is_smoke(&self) -> bool {
        self.effort == Effort::Smoke
    }

    /// Everything was asked for, and with care, so the results stand for the bench.
    pub fn is_whole(&self) -> bool {
        self.filters.is_empty() && self.effort == Effort::Full
    }
}

/// One contender's nanoseconds per packet, round by round.
#[derive(Default)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    pub fn push(&mut self, nanos: f64) {
        self.0.push(nanos);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn median(&self) -> f64 {
        quantile(self.0.clone(), 0.5)
    }

    /// The median of the ratios of one round each.
    pub fn ratio(&self, baseline: &Rounds) -> f64 {
        quantile(self.0.iter().zip(&baseline.0).map(|(ours, theirs)| ours / theirs).collect(), 0.5)
    }
}

/// The value below which this share of them lies.
pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Lets each of `contenders` do its `work` in turn, `rounds` times, a different one first each time. `work` gives nanoseconds per packet.
pub fn take_turns<C>(contenders: &mut [C], rounds: usize, mut work: impl FnMut(&mut C) -> f64) -> Vec<Rounds> {
    let mut results: Vec<Rounds> = contenders.iter().map(|_| Rounds::default()).collect();
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            results[index].push(work(&mut contenders[index]));
        }
    }
    results
}

/// CPU time of this thread.
pub fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call, which writes nothing else.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "this clock exists");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// CPU time of `work`, without what it takes to read the clock.
pub fn cpu_of(work: impl FnOnce()) -> Duration {
    let began = cpu_time();
    work();
    (cpu_time() - began).saturating_sub(*CLOCK_COST)
}

/// What reading the clock twice adds.
static CLOCK_COST: LazyLock<Duration> = LazyLock::new(|| {
    let mut costs: Vec<Duration> = (0..1_000)
        .map(|_| {
            let began = cpu_time();
            cpu_time() - began
        })
        .collect();
    costs.sort();
    costs[costs.len() / 2]
});

/// How long this thread was ready to run while others had the core. Where the kernel does not tell, it did not wait.
pub fn waited() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = told.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// CPU time that everything on this machine has taken, and what its host kept to itself, in steps of 10 ms.
pub fn machine_time() -> Duration {
    let told = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = told.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    // The fourth and the fifth are idle time (proc_stat(5)).
    let busy = ticks.enumerate().filter(|(place, _)| !(3..=4).contains(place));
    busy.filter_map(|(_, ticks)| ticks.parse().ok()).map(|ticks: u64| Duration::from_millis(10 * ticks)).sum()
}

/// Others had the core for more of the time than this: what passes by the clock says nothing of us.
pub const WAITED_MAX: f64 = 0.02;

/// Sets a flag when it goes, be it by a panic: whoever waits for it does not wait for ever.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Stays on one core, where there are several.
pub fn pin(core: usize) {
    // SAFETY: all zeros is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the core is one of this machine's, so inside the set.
    unsafe { libc::CPU_SET(core % cores(), &mut set) };
    // SAFETY: the set outlives the call; zero is this thread.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
}
