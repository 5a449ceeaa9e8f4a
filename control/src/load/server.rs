//! What the server uses of this host, read from `/proc`: CPU, memory, context switches, its children's included.

use std::fs;
use std::io;
use std::time::Duration;

/// A reading of a process and its descendants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Usage {
    pub(super) user: Duration,
    pub(super) system: Duration,
    /// Bytes of resident memory.
    pub(super) rss: u64,
    pub(super) voluntary_switches: u64,
    pub(super) involuntary_switches: u64,
}

impl Usage {
    /// Of the process `pid` and all below it.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let mut usage = Self::default();
        usage.add(pid)?;
        for child in descendants(pid) {
            // A child may end while it is read.
            let _ = usage.add(child);
        }
        Ok(usage)
    }

    /// CPU time.
    pub(super) fn cpu(&self) -> Duration {
        self.user + self.system
    }

    /// What was used since `earlier`; memory is as it is now.
    pub(super) fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            rss: self.rss,
            voluntary_switches: self.voluntary_switches.saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self.involuntary_switches.saturating_sub(earlier.involuntary_switches),
        }
    }

    fn add(&mut self, pid: u32) -> io::Result<()> {
        let stat = Stat::read(pid)?;
        self.user += stat.user;
        self.system += stat.system;
        for (name, value) in status(&format!("/proc/{pid}/status"))? {
            if name == "VmRSS" {
                self.rss += value * 1024;
            }
        }
        for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            // A thread may end while it is read.
            for (name, value) in status(&format!("{}/status", task.path().display())).unwrap_or_default() {
                match name.as_str() {
                    "voluntary_ctxt_switches" => self.voluntary_switches += value,
                    "nonvoluntary_ctxt_switches" => self.involuntary_switches += value,
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Datagrams that this network namespace has dropped because a socket's buffer was full.
pub(super) fn buffer_overflows() -> u64 {
    let of = |file: &str, field: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut rows = text.lines().filter(|line| line.starts_with("Udp: "));
        let (names, values) = (rows.next().unwrap_or_default(), rows.next().unwrap_or_default());
        let index = names.split_ascii_whitespace().position(|name| name == field);
        index.and_then(|index| values.split_ascii_whitespace().nth(index)?.parse::<u64>().ok()).unwrap_or(0)
    };
    let v6 = fs::read_to_string("/proc/net/snmp6").unwrap_or_default();
    let v6 = v6.lines().find_map(|line| line.strip_prefix("Udp6RcvbufErrors")?.trim().parse::<u64>().ok());
    of("/proc/net/snmp", "RcvbufErrors") + v6.unwrap_or(0)
}

struct Stat {
    parent: u32,
    user: Duration,
    system: Duration,
}

impl Stat {
    fn read(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is unlike any known")))
    }

    /// The name, in parentheses, may hold anything; after the last one come the state, the parent, and so on.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok().map(|ticks| TICK * ticks as u32);
        Some(Self { parent: fields.get(1)?.parse().ok()?, user: ticks(11)?, system: ticks(12)? })
    }
}

fn descendants(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| Some((pid, Stat::read(pid).ok()?.parent)))
        .collect();
    let mut found = vec![pid];
    let mut index = 0;
    while let Some(&parent) = found.get(index) {
        found.extend(
            parents
                .iter()
                .filter(|(pid, of)| *of == parent && !found.contains(pid))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        index += 1;
    }
    found.split_off(1)
}

/// The numbers of a file of `Name: value` lines.
fn status(file: &str) -> io::Result<Vec<(String, u64)>> {
    let text = fs::read_to_string(file)?;
    let number = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.split_ascii_whitespace().next()?.parse().ok()?))
    };
    Ok(text.lines().filter_map(number).collect())
}

/// `USER_HZ` is 100 on every architecture that we run on.
const TICK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_confuse() {
        let text = "42 (a) b (c)) S 7 1 1 0 -1 4194304 100 0 0 0 250 75 0 0 20 0 3 0 100 1000 50 0";
        let stat = Stat::parse(text).expect("parses");
        assert_eq!((stat.parent, stat.user, stat.system), (7, Duration::from_millis(2500), Duration::from_millis(750)));
    }

    #[test]
    fn this_process_is_read_and_work_shows_in_its_cpu() {
        let pid = std::process::id();
        let before = Usage::of(pid).expect("reads itself");
        assert!(before.rss > 1 << 20);
        let began = std::time::Instant::now();
        let mut used = Usage::default();
        // On a busy machine it takes a while to get 20 ms of a core.
        while used.cpu() < Duration::from_millis(20) && began.elapsed() < Duration::from_secs(30) {
            std::hint::black_box((0..100_000_u64).fold(0, |sum, number| std::hint::black_box(sum ^ number)));
            used = Usage::of(pid).expect("reads itself").since(&before);
        }
        assert!(used.cpu() >= Duration::from_millis(20), "{used:?}");
    }

    #[test]
    fn children_count() {
        let mut child = std::process::Command::new("sleep").arg("5").spawn().expect("sleep is there");
        assert!(descendants(std::process::id()).contains(&child.id()));
        child.kill().expect("it sleeps");
        child.wait().expect("it ends");
        assert!(Usage::of(child.id()).is_err());
    }
}
