//! How many connections there may be, in all and from one source, so that one host cannot take the place of the others, and how many
//! handshakes a second, so that it cannot take their time.

use std::collections::HashMap;
use std::net::IpAddr;

use ringmain_shared::{Now, Source};

/// How many connections there may be, and how many handshakes a second. Zero is no bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamLimits {
    /// Connections in all.
    pub connections_max: usize,
    /// Those from one [`Source`].
    pub per_address_max: usize,
    /// Of those, the ones that anybody could have: without an allocation, a transport, or a word of HTTP.
    pub unproved_per_address_max: usize,
    /// TLS and DTLS handshakes that may begin in a second, in all.
    pub handshakes_per_second: usize,
    /// Those from one [`Source`].
    pub handshakes_per_address: usize,
    /// Connections to and from peers of relays (RFC 6062), besides.
    pub peers_max: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            connections_max: 16 * 1024,
            per_address_max: 64,
            unproved_per_address_max: 64,
            // Half of a core's time with keys of RSA, a tenth with elliptic curves.
            handshakes_per_second: 500,
            handshakes_per_address: 64,
            peers_max: 4096,
        }
    }
}

/// Counts connections.
#[derive(Debug)]
pub struct Admission {
    limits: StreamLimits,
    connections: HashMap<Source, Held>,
    count: usize,
    /// Handshakes of the present second, by source and in all.
    begun: HashMap<Source, usize>,
    begun_count: usize,
    second: u64,
}

/// The connections of one source.
#[derive(Debug, Default)]
struct Held {
    count: usize,
    /// Of those, the ones that anybody could have.
    unproved: usize,
}

impl Admission {
    /// Within these limits.
    pub fn new(limits: StreamLimits) -> Self {
        Self { limits, connections: HashMap::new(), count: 0, begun: HashMap::new(), begun_count: 0, second: 0 }
    }

    /// Whether a handshake may begin; then it has.
    pub fn begin(&mut self, address: IpAddr, now: Now) -> bool {
        let second = now.as_millis() / 1000;
        if self.second != second {
            self.second = second;
            self.begun.clear();
            self.begun_count = 0;
        }
        if is_full(self.begun_count, self.limits.handshakes_per_second) {
            return false;
        }
        let from_there = self.begun.entry(address.into()).or_default();
        if is_full(*from_there, self.limits.handshakes_per_address) {
            return false;
        }
        *from_there += 1;
        self.begun_count += 1;
        true
    }

    /// Whether one more may come; then it is counted until it leaves, and as one that anybody could have until it is proved.
    pub fn enter(&mut self, address: IpAddr) -> bool {
        if is_full(self.count, self.limits.connections_max) {
            return false;
        }
        let held = self.connections.entry(address.into()).or_default();
        if is_full(held.count, self.limits.per_address_max)
            || is_full(held.unproved, self.limits.unproved_per_address_max)
        {
            return false;
        }
        held.count += 1;
        held.unproved += 1;
        self.count += 1;
        true
    }

    /// One that was counted has turned out to be somebody's. To be said once of each.
    pub fn prove(&mut self, address: IpAddr) {
        if let Some(held) = self.connections.get_mut(&address.into()) {
            held.unproved -= 1;
        }
    }

    /// One that was counted is gone, proved or not.
    pub fn leave(&mut self, address: IpAddr, proved: bool) {
        let source = Source::from(address);
        let Some(held) = self.connections.get_mut(&source) else { return };
        held.count -= 1;
        held.unproved -= usize::from(!proved);
        self.count -= 1;
        if held.count == 0 {
            self.connections.remove(&source);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }
}

fn is_full(count: usize, max: usize) -> bool {
    max > 0 && count >= max
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_connections(connections_max: usize, per_address_max: usize) -> Admission {
        Admission::new(StreamLimits { connections_max, per_address_max, ..StreamLimits::default() })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_address_has_its_share_and_no_more() {
        let mut admission = of_connections(100, 3);
        assert_eq!([(); 4].map(|()| admission.enter(ip("192.0.2.1"))), [true, true, true, false]);
        assert!(admission.enter(ip("192.0.2.2")));
        assert!(!admission.enter(ip("::ffff:192.0.2.1")), "the same host by another name");
        admission.leave(ip("192.0.2.1"), false);
        assert!(admission.enter(ip("192.0.2.1")) && !admission.enter(ip("192.0.2.1")));
        assert_eq!([(); 4].map(|()| admission.enter(ip("2001:db8::1"))), [true, true, true, false]);
        assert!(!admission.enter(ip("2001:db8::2:3:4:5")) && admission.enter(ip("2001:db8:0:1::1")));
    }

    #[test]
    fn who_is_proved_takes_no_place_of_those_who_are_not() {
        let limits = StreamLimits { unproved_per_address_max: 2, ..StreamLimits::default() };
        let (mut admission, address) = (Admission::new(limits), ip("192.0.2.1"));
        assert_eq!([(); 3].map(|()| admission.enter(address)), [true, true, false]);
        for _ in 0..50 {
            admission.prove(address);
            assert!(admission.enter(address) && !admission.enter(address));
        }
        admission.leave(address, true);
        assert!(!admission.enter(address), "that was another's place");
        admission.leave(address, false);
        assert!(admission.enter(address));
    }

    #[test]
    fn handshakes_are_counted_by_the_second_and_not_by_what_is_left_of_them() {
        let limits = StreamLimits { handshakes_per_second: 5, handshakes_per_address: 2, ..StreamLimits::default() };
        let mut admission = Admission::new(limits);
        for second in [1, 2, 9] {
            let mut begin = |address| admission.begin(ip(address), Now::from_millis(second * 1000 + 500));
            assert_eq!([(); 3].map(|()| begin("192.0.2.1")), [true, true, false]);
            assert_eq!([(); 2].map(|()| begin("2001:db8::1")), [true, true]);
            assert!(!begin("2001:db8::2:3:4:5"), "the same network");
            assert!(begin("192.0.2.2") && !begin("192.0.2.3"), "a sixth is one too many");
        }
        let none = StreamLimits { handshakes_per_second: 0, handshakes_per_address: 0, ..StreamLimits::default() };
        let mut unbounded = Admission::new(none);
        assert!((0..10_000).all(|_| unbounded.begin(ip("192.0.2.1"), Now(0))));
    }

    #[test]
    fn all_together_have_a_bound_and_nothing_is_kept_of_who_left() {
        let mut admission = of_connections(50, 64);
        assert_eq!((0..100u8).filter(|&host| admission.enter([10, 0, 0, host].into())).count(), 50);
        (0..100u8).for_each(|host| admission.leave([10, 0, 0, host].into(), false));
        assert_eq!((admission.count(), admission.connections.len()), (0, 0));
    }
}
