//! How many connections there may be, in all and from one address, so that one host cannot take the place of the others, and how many
//! handshakes a second, so that it cannot take their time.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use ringmain_shared::Now;

/// Counts connections. A /64 of IPv6 is one address: its holder has all of it.
#[derive(Debug)]
pub struct Admission {
    connections: HashMap<IpAddr, usize>,
    count: usize,
    count_max: usize,
    per_address_max: usize,
    /// Handshakes of the present second.
    begun: HashMap<IpAddr, usize>,
    second: u64,
}

impl Admission {
    /// At most so many in all, and from one address.
    pub fn new(count_max: usize, per_address_max: usize) -> Self {
        Self { connections: HashMap::new(), count: 0, count_max, per_address_max, begun: HashMap::new(), second: 0 }
    }

    /// Whether a handshake may begin: in a second, one address may begin as many as it may have connections, and as many
    /// addresses may begin some as there may be connections.
    pub fn begin(&mut self, address: IpAddr, now: Now) -> bool {
        let second = now.as_millis() / 1000;
        if self.second != second {
            self.second = second;
            self.begun.clear();
        }
        if self.begun.len() >= self.count_max {
            return false;
        }
        let from_there = self.begun.entry(network(address)).or_default();
        *from_there += 1;
        *from_there <= self.per_address_max
    }

    /// Whether one more may come; then it is counted until it leaves.
    pub fn enter(&mut self, address: IpAddr) -> bool {
        if self.count >= self.count_max {
            return false;
        }
        let from_there = self.connections.entry(network(address)).or_default();
        if *from_there >= self.per_address_max {
            return false;
        }
        *from_there += 1;
        self.count += 1;
        true
    }

    /// One that was counted is gone.
    pub fn leave(&mut self, address: IpAddr) {
        let network = network(address);
        let Some(from_there) = self.connections.get_mut(&network) else { return };
        *from_there -= 1;
        self.count -= 1;
        if *from_there == 0 {
            self.connections.remove(&network);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// What is counted as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
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
    fn one_address_has_its_share_and_no_more() {
        let mut admission = Admission::new(100, 3);
        assert_eq!([(); 4].map(|()| admission.enter(ip("192.0.2.1"))), [true, true, true, false]);
        assert!(admission.enter(ip("192.0.2.2")));
        assert!(!admission.enter(ip("::ffff:192.0.2.1")), "the same host by another name");
        admission.leave(ip("192.0.2.1"));
        assert!(admission.enter(ip("192.0.2.1")) && !admission.enter(ip("192.0.2.1")));
        assert_eq!([(); 4].map(|()| admission.enter(ip("2001:db8::1"))), [true, true, true, false]);
        assert!(!admission.enter(ip("2001:db8::2:3:4:5")) && admission.enter(ip("2001:db8:0:1::1")));
    }

    #[test]
    fn handshakes_are_counted_by_the_second_and_not_by_what_is_left_of_them() {
        let mut admission = Admission::new(3, 2);
        for second in [1, 2, 9] {
            let mut begin = |address| admission.begin(ip(address), Now::from_millis(second * 1000 + 500));
            assert_eq!([(); 3].map(|()| begin("192.0.2.1")), [true, true, false]);
            assert_eq!([(); 2].map(|()| begin("2001:db8::1")), [true, true]);
            assert!(!begin("2001:db8::2:3:4:5"), "the same network");
            assert!(begin("192.0.2.2") && !begin("192.0.2.3"), "a fourth network is one too many to remember");
        }
    }

    #[test]
    fn all_together_have_a_bound_and_nothing_is_kept_of_who_left() {
        let mut admission = Admission::new(50, 64);
        assert_eq!((0..100u8).filter(|&host| admission.enter([10, 0, 0, host].into())).count(), 50);
        (0..100u8).for_each(|host| admission.leave([10, 0, 0, host].into()));
        assert_eq!((admission.count(), admission.connections.len()), (0, 0));
    }
}
