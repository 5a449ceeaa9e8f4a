//! Servers that are processes of their own: started on one core, asked what they took, and ended. No other process is ever touched.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server that was started here. It ends with this value.
pub struct Server {
    child: Child,
    /// The kernel's thread that does what the core's interrupts leave over: a server's datagrams among it.
    softirqs: Option<u32>,
}

/// Time of one core.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cpu {
    /// With that of the kernel's thread for interrupts on this core.
    pub whole: Duration,
    /// The clock's ticks that found it in user space, and in the kernel.
    pub ticks: (u64, u64),
}

impl Server {
    /// Starts a program on one core. What it prints goes to `log`.
    pub fn start(core: usize, program: &Path, arguments: &[&str], log: &Path) -> Result<Self, String> {
        let log =
            fs::File::create(log).and_then(|log| Ok((log.try_clone()?, log))).map_err(|error| error.to_string())?;
        // However this program ends, the server does so with it.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "taskset", "-c", &core.to_string()])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.0)
            .stderr(log.1)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        Ok(Self { child, softirqs: softirqs(core) })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has taken since it began.
    pub fn cpu(&self) -> Cpu {
        let id = self.id();
        let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
        let own: Duration = tasks.map(|task| on_core(&task.path())).sum();
        let softirqs = self.softirqs.map_or(Duration::ZERO, |id| on_core(Path::new(&format!("/proc/{id}"))));
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // Behind the name, which may have spaces: the state is field 3, user time field 14, system time field 15 (proc(5)).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse().ok()).unwrap_or(0);
        Cpu { whole: own + softirqs, ticks: (ticks(14), ticks(15)) }
    }

    /// Memory that it has, in bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cpu {
    pub fn since(self, before: Cpu) -> Cpu {
        let ticks = (self.ticks.0 - before.ticks.0, self.ticks.1 - before.ticks.1);
        Cpu { whole: self.whole.saturating_sub(before.whole), ticks }
    }
}

impl std::ops::AddAssign for Cpu {
    fn add_assign(&mut self, more: Cpu) {
        self.whole += more.whole;
        self.ticks = (self.ticks.0 + more.ticks.0, self.ticks.1 + more.ticks.1);
    }
}

/// What a task of the kernel's has run (Documentation/scheduler/sched-stats.rst).
fn on_core(task: &Path) -> Duration {
    let told = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    Duration::from_nanos(told.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

fn softirqs(core: usize) -> Option<u32> {
    let name = format!("ksoftirqd/{core}");
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|id: &u32| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim() == name))
}
