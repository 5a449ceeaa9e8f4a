//! Relay ports of one worker: which are free. Ports are chosen by chance (RFC 8656 §7.2: hard to guess), and go by pairs, so that an
//! even port and the one after it belong to the same worker. Never opens a socket.

use crate::random::Random;

/// The ports of a range that one worker may use, and which of them it does.
#[derive(Debug)]
pub(super) struct Ports {
    /// Ports in order, the ones of a pair side by side.
    ports: Vec<u16>,
    taken: Vec<bool>,
    free: usize,
}

/// What a client wants of its port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// Any.
    Any,
    /// An even one (RFC 8656 §18.6).
    Even,
    /// An even one whose successor is free too, and is taken with it.
    Pair,
}

impl Ports {
    /// Every port from `min` to `max` whose pair is the `worker`'s, of so many workers.
    pub(super) fn new(min: u16, max: u16, worker: u16, workers: u16) -> Self {
        let first_pair = min / 2;
        let is_ours = |port: &u16| (port / 2 - first_pair) % workers.max(1) == worker % workers.max(1);
        let ports: Vec<u16> = (min.max(1)..=max).filter(is_ours).collect();
        Self { taken: vec![false; ports.len()], free: ports.len(), ports }
    }

    /// How many are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.free
    }

    /// Takes one that is free.
    pub(super) fn take(&mut self, wish: Wish, random: &mut Random) -> Option<u16> {
        if self.free == 0 {
            return None;
        }
        let start = random.next_u64() as usize % self.ports.len();
        let at = (start..self.ports.len()).chain(0..start).find(|&at| self.suits(at, wish))?;
        let port = *self.ports.get(at)?;
        self.mark(at);
        if wish == Wish::Pair {
            self.mark(at + 1);
        }
        Some(port)
    }

    fn suits(&self, at: usize, wish: Wish) -> bool {
        let is_free = |at: usize| self.taken.get(at) == Some(&false);
        let Some(&port) = self.ports.get(at) else { return false };
        match wish {
            Wish::Any => is_free(at),
            Wish::Even => is_free(at) && port.is_multiple_of(2),
            Wish::Pair => {
                is_free(at) && port.is_multiple_of(2) && is_free(at + 1) && self.ports.get(at + 1) == Some(&(port + 1))
            }
        }
    }

    /// Takes this one, if it is ours and free.
    pub(super) fn claim(&mut self, port: u16) -> bool {
        let at = self.ports.binary_search(&port).ok().filter(|&at| self.taken.get(at) == Some(&false));
        at.inspect(|&at| self.mark(at)).is_some()
    }

    fn mark(&mut self, at: usize) {
        if let Some(taken) = self.taken.get_mut(at) {
            *taken = true;
            self.free -= 1;
        }
    }

    /// Gives one back.
    pub(super) fn release(&mut self, port: u16) {
        let Ok(at) = self.ports.binary_search(&port) else { return };
        if let Some(taken) = self.taken.get_mut(at).filter(|taken| **taken) {
            *taken = false;
            self.free += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_belongs_to_one_worker_and_pairs_stay_together() {
        let shares: Vec<Ports> = (0..3).map(|worker| Ports::new(10_001, 20_000, worker, 3)).collect();
        let mut all: Vec<u16> = shares.iter().flat_map(|share| share.ports.clone()).collect();
        all.sort_unstable();
        assert!(all.iter().copied().eq(10_001..=20_000));
        for share in &shares {
            assert!(
                share.ports.iter().all(|port| port % 2 == 1 || *port == 20_000 || share.ports.contains(&(port + 1)))
            );
        }
    }

    #[test]
    fn what_is_taken_is_given_to_nobody_else_until_it_comes_back() {
        let mut random = Random::from_seed([5; 32]);
        let mut ports = Ports::new(10_000, 10_099, 0, 1);
        let mut taken = Vec::new();
        while let Some(port) = ports.take(Wish::Any, &mut random) {
            assert!(!taken.contains(&port));
            taken.push(port);
        }
        assert_eq!((taken.len(), ports.free()), (100, 0));
        assert_eq!(ports.take(Wish::Even, &mut random), None);
        ports.release(10_007);
        ports.release(10_007);
        ports.release(9);
        assert_eq!(ports.take(Wish::Even, &mut random), None, "an odd one is free");
        ports.release(10_042);
        assert_eq!(ports.take(Wish::Pair, &mut random), None, "its successor is not");
        ports.release(10_043);
        assert_eq!(ports.take(Wish::Pair, &mut random), Some(10_042));
        assert_eq!(ports.free(), 1);
        assert!(ports.claim(10_007) && !ports.claim(10_007) && !ports.claim(5));
    }

    #[test]
    fn a_million_rounds_leave_as_many_ports_as_before() {
        let mut random = Random::from_seed([5; 32]);
        let mut ports = Ports::new(10_000, 10_999, 1, 2);
        for round in 0..1_000_000u32 {
            let wish = [Wish::Any, Wish::Even, Wish::Pair][round as usize % 3];
            let port = ports.take(wish, &mut random).expect("all are free");
            ports.release(port);
            if wish == Wish::Pair {
                ports.release(port + 1);
            }
        }
        assert_eq!(ports.free(), 500);
    }
}
