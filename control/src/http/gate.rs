//! How many TCP connections there may be: in total, and from one source, so that one host cannot take them all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringmain_shared::Source;

/// Counts connections.
#[derive(Debug)]
pub struct Gate {
    total_max: usize,
    per_source_max: usize,
    open: Mutex<Open>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    /// An entry lives as long as a connection from there.
    by_source: HashMap<Source, usize>,
}

/// One connection's place, given back when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Permit(Arc<Place>);

impl Permit {
    /// Whence the connection came.
    pub fn from(&self) -> Source {
        self.0.source
    }
}

#[derive(Debug)]
struct Place {
    gate: Arc<Gate>,
    source: Source,
}

impl Gate {
    /// At most `total_max` connections, `per_source_max` of them from one source.
    pub fn new(total_max: usize, per_source_max: usize) -> Arc<Self> {
        Arc::new(Self { total_max, per_source_max, open: Mutex::default(), refused: AtomicU64::new(0) })
    }

    /// A place for a connection from there, if there is one.
    pub fn admit(self: &Arc<Self>, source: impl Into<Source>) -> Option<Permit> {
        let permit = self.take_place(source.into());
        if permit.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        permit
    }

    /// How many connections had to be refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn take_place(self: &Arc<Self>, source: Source) -> Option<Permit> {
        let mut open = self.open();
        if open.total >= self.total_max {
            return None;
        }
        let count = open.by_source.entry(source).or_default();
        if *count >= self.per_source_max {
            return None;
        }
        *count += 1;
        open.total += 1;
        Some(Permit(Arc::new(Place { gate: self.clone(), source })))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing in the critical sections panics half-way.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.gate.open();
        open.total = open.total.saturating_sub(1);
        if let Some(count) = open.by_source.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_place_is_free_again_when_its_last_clone_is_dropped() {
        let gate = Gate::new(10, 1);
        let permit = gate.admit(ip("192.0.2.1")).expect("the first");
        let clone = permit.clone();
        drop(permit);
        assert!(gate.admit(ip("192.0.2.1")).is_none());
        assert!(gate.admit(ip("192.0.2.2")).is_some(), "another address is not affected");
        drop(clone);
        assert!(gate.admit(ip("192.0.2.1")).is_some());
        assert!(gate.open().by_source.is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn the_total_holds_over_all_addresses() {
        let gate = Gate::new(2, 2);
        let _held = [gate.admit(ip("192.0.2.1")), gate.admit(ip("192.0.2.2"))];
        assert!(gate.admit(ip("192.0.2.3")).is_none());
        assert_eq!(gate.refused(), 1);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_a_mapped_address_as_ipv4() {
        let gate = Gate::new(10, 1);
        let _held = [gate.admit(ip("2001:db8:0:1::1")), gate.admit(ip("::ffff:192.0.2.1"))];
        assert!(gate.admit(ip("2001:db8:0:1:ffff::2")).is_none());
        assert!(gate.admit(ip("192.0.2.1")).is_none());
        assert!(gate.admit(ip("2001:db8:0:2::1")).is_some());
    }
}
