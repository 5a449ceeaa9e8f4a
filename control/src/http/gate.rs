//! How many TCP connections there may be: in total, and from one address, so that one host cannot take them all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections.
#[derive(Debug)]
pub struct Gate {
    total_max: usize,
    per_ip_max: usize,
    open: Mutex<Open>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    /// An entry lives as long as a connection from there.
    by_ip: HashMap<IpAddr, usize>,
}

/// One connection's place, given back when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Permit(Arc<Place>);

impl Permit {
    /// Whence the connection came: an IPv4 address, or the first of an IPv6 /64.
    pub fn from(&self) -> IpAddr {
        self.0.ip
    }
}

#[derive(Debug)]
struct Place {
    gate: Arc<Gate>,
    ip: IpAddr,
}

impl Gate {
    /// At most `total_max` connections, `per_ip_max` of them from one address.
    pub fn new(total_max: usize, per_ip_max: usize) -> Arc<Self> {
        Arc::new(Self { total_max, per_ip_max, open: Mutex::default(), refused: AtomicU64::new(0) })
    }

    /// A place for a connection from `ip`, if there is one.
    pub fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Permit> {
        let permit = self.take_place(neighbourhood(ip));
        if permit.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        permit
    }

    /// How many connections had to be refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn take_place(self: &Arc<Self>, ip: IpAddr) -> Option<Permit> {
        let mut open = self.open();
        if open.total >= self.total_max {
            return None;
        }
        let count = open.by_ip.entry(ip).or_default();
        if *count >= self.per_ip_max {
            return None;
        }
        *count += 1;
        open.total += 1;
        Some(Permit(Arc::new(Place { gate: self.clone(), ip })))
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
        if let Some(count) = open.by_ip.get_mut(&self.ip) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.by_ip.remove(&self.ip);
            }
        }
    }
}

/// What one customer of a network has: an IPv4 address, or an IPv6 /64.
fn neighbourhood(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
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
        assert!(gate.open().by_ip.is_empty(), "nothing is kept of who is gone");
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
