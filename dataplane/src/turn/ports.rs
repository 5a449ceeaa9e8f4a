//! Relay ports: which are taken, and which of the taken ones are reserved (RFC 8656 §7.2). One map for all workers, so that each may
//! take any port, and a reservation is good at whichever worker its token is shown. Never opens a socket.
//!
//! A port is a bit: whoever sets it has the port, and gives it back once. Beside it stands which worker has a relay socket there, for
//! what clients of other workers send to it. A reservation is a secret at its pair's place: whoever takes
//! the secret away has the port, be it the client with the token or the worker whose time is up.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU16, AtomicU64};

use aws_lc_rs::constant_time;
use ringmain_shared::id::WorkerIndex;

use super::ledger::Ledger;
use crate::random::Random;

/// The ports that one worker may take, which are those of all.
#[derive(Debug)]
pub(super) struct Ports {
    ledger: Arc<Ledger>,
    worker: WorkerIndex,
    range: RangeInclusive<u16>,
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

/// A port that is kept for a second allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reserved {
    pub(super) port: u16,
    secret: u64,
}

/// RESERVATION-TOKEN (RFC 8656 §18.7).
pub(super) type Token = [u8; 8];

impl Ports {
    /// Every port from `min` to `max`, for this worker.
    pub(super) fn new(ledger: Arc<Ledger>, worker: WorkerIndex, min: u16, max: u16) -> Self {
        Self { ledger, worker, range: min.max(1)..=max }
    }

    /// Takes one that is free. Which one is chance (RFC 8656 §7.2: hard to guess).
    pub(super) fn take(&self, wish: Wish, random: &mut Random) -> Option<u16> {
        self.ledger.ports().take(&self.range, wish, random.next_u64())
    }

    /// A relay socket is open on this port, and it is this worker's.
    pub(super) fn open(&self, port: u16) {
        self.ledger.ports().set_worker(port, Some(self.worker));
    }

    /// None is any more.
    pub(super) fn close(&self, port: u16) {
        self.ledger.ports().set_worker(port, None);
    }

    /// The worker that has a relay socket on this port.
    pub(super) fn worker_of(&self, port: u16) -> Option<WorkerIndex> {
        self.ledger.ports().worker_of(port)
    }

    /// Gives one back.
    pub(super) fn release(&self, port: u16) {
        self.close(port);
        self.ledger.ports().release(port);
    }

    /// Keeps a port that was taken for the user that shows the token.
    pub(super) fn reserve(&self, port: u16, user: &str, random: &mut Random) -> (Reserved, Token) {
        let secret = std::iter::repeat_with(|| random.next_u64()).find(|&secret| secret != 0).unwrap_or(1);
        let reserved = Reserved { port, secret };
        self.ledger.ports().reserve(reserved);
        (reserved, self.token(reserved, user))
    }

    /// The port that was reserved for this user with this token, at whichever worker.
    pub(super) fn reserved(&self, token: Token, user: &str) -> Option<Reserved> {
        let [high, low, ..] = token;
        let reserved = self.ledger.ports().reserved(u16::from_be_bytes([high, low]))?;
        constant_time::verify_slices_are_equal(&self.token(reserved, user), &token).ok()?;
        Some(reserved)
    }

    /// An end to a reservation: the port is the caller's from now on. False when somebody else was faster.
    pub(super) fn end_reservation(&self, reserved: Reserved) -> bool {
        self.ledger.ports().end_reservation(reserved)
    }

    /// The port, and a proof that it is the user's: 48 bits that cannot be guessed within half a minute.
    fn token(&self, Reserved { port, secret }: Reserved, user: &str) -> Token {
        let [high, low] = port.to_be_bytes();
        let tag = self.ledger.tag(&[b"port", &[high, low], &secret.to_be_bytes(), user.as_bytes()]);
        let [a, b, c, d, e, f, ..] = tag;
        [high, low, a, b, c, d, e, f]
    }

    /// How many are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.range.clone().filter(|&port| !self.ledger.ports().is_taken(port)).count()
    }
}

/// All ports that there are.
#[derive(Debug)]
pub(super) struct PortMap {
    /// Taken ones, 64 in a word.
    taken: Box<[AtomicU64]>,
    /// Secrets of reserved ones, by pair.
    reserved: Box<[AtomicU64]>,
    /// By port, one more than the number of the worker that has a relay socket there: zero is nobody.
    workers: Box<[AtomicU16]>,
}

impl Default for PortMap {
    fn default() -> Self {
        let words = |count| std::iter::repeat_with(AtomicU64::default).take(count).collect();
        let workers = std::iter::repeat_with(AtomicU16::default).take(1 << 16).collect();
        Self { taken: words(1 << 10), reserved: words(1 << 15), workers }
    }
}

impl PortMap {
    /// Takes the first that suits from a place of the range on, round to that place again.
    fn take(&self, range: &RangeInclusive<u16>, wish: Wish, start: u64) -> Option<u16> {
        let (min, max) = (u32::from(*range.start()), u32::from(*range.end()));
        let count = (max + 1).checked_sub(min).filter(|&count| count > 0)?;
        let first = min + (start % u64::from(count)) as u32;
        let (min_word, words) = (min / 64, max / 64 - min / 64 + 1);
        (0..=words).find_map(|step| {
            let word = min_word + (first / 64 - min_word + step) % words;
            // The word of the beginning comes twice: its upper part first, its lower part last.
            let from = if step == 0 { first } else { min };
            let to = if step == words { first } else { max + 1 };
            let within = bits_from(from, word) & !bits_from(to, word);
            let bit = take_in(self.taken.get(word as usize)?, within, wish)?;
            u16::try_from(word * 64 + bit).ok()
        })
    }

    fn release(&self, port: u16) {
        if let Some(word) = self.taken.get(usize::from(port / 64)) {
            word.fetch_and(!(1 << (port % 64)), AcqRel);
        }
    }

    fn set_worker(&self, port: u16, worker: Option<WorkerIndex>) {
        if let Some(place) = self.workers.get(usize::from(port)) {
            place.store(worker.map_or(0, |worker| worker.0.saturating_add(1)), Relaxed);
        }
    }

    /// Whose it is, or was a moment ago: what is sent to a worker that has it no longer is lost, as on any way.
    fn worker_of(&self, port: u16) -> Option<WorkerIndex> {
        let number = self.workers.get(usize::from(port))?.load(Relaxed);
        number.checked_sub(1).map(WorkerIndex)
    }

    fn reserve(&self, Reserved { port, secret }: Reserved) {
        if let Some(place) = self.reserved.get(usize::from(port / 2)) {
            place.store(secret, Release);
        }
    }

    fn reserved(&self, port: u16) -> Option<Reserved> {
        let secret = self.reserved.get(usize::from(port / 2))?.load(Acquire);
        (secret != 0).then_some(Reserved { port, secret })
    }

    fn end_reservation(&self, Reserved { port, secret }: Reserved) -> bool {
        let place = self.reserved.get(usize::from(port / 2));
        place.is_some_and(|place| place.compare_exchange(secret, 0, AcqRel, Acquire).is_ok())
    }

    #[cfg(test)]
    fn is_taken(&self, port: u16) -> bool {
        self.taken[usize::from(port / 64)].load(Acquire) & 1 << (port % 64) != 0
    }
}

/// Takes the lowest bit that suits, of those `within`; of a pair both.
fn take_in(word: &AtomicU64, within: u64, wish: Wish) -> Option<u32> {
    let mut taken = word.load(Acquire);
    loop {
        let free = within & !taken;
        let suits = match wish {
            Wish::Any => free,
            Wish::Even => free & EVEN,
            Wish::Pair => free & EVEN & free >> 1,
        };
        if suits == 0 {
            return None;
        }
        let bit = suits.trailing_zeros();
        let wanted = if wish == Wish::Pair { 3 << bit } else { 1 << bit };
        match word.compare_exchange(taken, taken | wanted, AcqRel, Acquire) {
            Ok(_) => return Some(bit),
            Err(other) => taken = other,
        }
    }
}

/// Of a word of 64 ports, those from `port` on.
fn bits_from(port: u32, word: u32) -> u64 {
    match port.saturating_sub(word * 64) {
        passed @ 0..64 => u64::MAX << passed,
        _ => 0,
    }
}

/// Ports with an even number.
const EVEN: u64 = 0x5555_5555_5555_5555;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ports(min: u16, max: u16) -> Ports {
        Ports::new(Arc::new(Ledger::new([5; 32])), WorkerIndex(0), min, max)
    }

    #[test]
    fn what_is_taken_is_given_to_nobody_else_until_it_comes_back() {
        let mut random = Random::from_seed([5; 32]);
        for (min, max) in [(10_000, 10_099), (10_001, 10_100), (10_048, 10_048 + 63), (0, 9), (65_500, 65_535)] {
            let ports = ports(min, max);
            let mut taken = HashSet::new();
            while let Some(port) = ports.take(Wish::Any, &mut random) {
                assert!((min.max(1)..=max).contains(&port) && taken.insert(port), "{port} of {min} to {max}");
            }
            assert_eq!((taken.len(), ports.free()), (usize::from(max - min.max(1)) + 1, 0));
        }
        let ports = ports(10_000, 10_099);
        while ports.take(Wish::Any, &mut random).is_some() {}
        assert_eq!(ports.take(Wish::Even, &mut random), None);
        ports.release(10_007);
        assert_eq!(ports.take(Wish::Even, &mut random), None, "an odd one is free");
        ports.release(10_042);
        assert_eq!(ports.take(Wish::Pair, &mut random), None, "its successor is not");
        ports.release(10_043);
        assert_eq!(ports.take(Wish::Pair, &mut random), Some(10_042));
        assert_eq!((ports.free(), ports.take(Wish::Any, &mut random)), (1, Some(10_007)));
        assert_eq!(super::tests::ports(9, 8).take(Wish::Any, &mut random), None, "none at all");
    }

    #[test]
    fn a_pair_does_not_begin_before_the_range_or_end_behind_it() {
        let mut random = Random::from_seed([6; 32]);
        let ports = ports(10_001, 10_004);
        assert_eq!(ports.take(Wish::Pair, &mut random), Some(10_002));
        assert_eq!(ports.take(Wish::Pair, &mut random), None);
        assert_eq!(ports.take(Wish::Even, &mut random), Some(10_004));
    }

    #[test]
    fn every_port_is_as_likely_as_another() {
        let mut random = Random::from_seed([6; 32]);
        let ports = ports(10_001, 10_200);
        let mut came = [0u32; 200];
        for _ in 0..200_000 {
            let port = ports.take(Wish::Any, &mut random).expect("all are free");
            came[usize::from(port - 10_001)] += 1;
            ports.release(port);
        }
        assert!(came.iter().all(|count| (800..1200).contains(count)), "{came:?}");
    }

    #[test]
    fn workers_at_once_never_get_the_same_and_leave_as_many_as_before() {
        let ledger = Arc::new(Ledger::new([5; 32]));
        let holders: Vec<AtomicU64> = std::iter::repeat_with(AtomicU64::default).take(200).collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (ledger, holders) = (&ledger, &holders);
                scope.spawn(move || {
                    let ports = Ports::new(Arc::clone(ledger), WorkerIndex(thread.into()), 10_000, 10_199);
                    let mut random = Random::from_seed([thread; 32]);
                    for round in 0..100_000 {
                        let wish = [Wish::Any, Wish::Even, Wish::Pair][round % 3];
                        let Some(port) = ports.take(wish, &mut random) else { continue };
                        let all = port..=port + u16::from(wish == Wish::Pair);
                        for port in all.clone() {
                            assert_eq!(holders[usize::from(port - 10_000)].fetch_add(1, AcqRel), 0, "{port} twice");
                        }
                        for port in all {
                            holders[usize::from(port - 10_000)].fetch_sub(1, AcqRel);
                            ports.release(port);
                        }
                    }
                });
            }
        });
        assert_eq!(Ports::new(ledger, WorkerIndex(0), 10_000, 10_199).free(), 200);
    }

    #[test]
    fn a_reservation_is_had_once_by_whoever_comes_first_with_its_token_and_name() {
        let ledger = Arc::new(Ledger::new([5; 32]));
        let [here, there] = [0, 1].map(|worker| Ports::new(Arc::clone(&ledger), WorkerIndex(worker), 10_000, 10_009));
        let mut random = Random::from_seed([7; 32]);
        let port = here.take(Wish::Pair, &mut random).expect("all are free") + 1;
        let (reserved, token) = here.reserve(port, "alice", &mut random);
        assert_eq!(there.reserved(token, "alice"), Some(reserved));
        assert_eq!(there.reserved(token, "bob"), None);
        for bit in 0..64 {
            let mut other = token;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(there.reserved(other, "alice"), None);
        }
        let winners = std::thread::scope(|scope| {
            let threads = [&here, &there].map(|ports| scope.spawn(move || ports.end_reservation(reserved)));
            threads.map(|thread| thread.join().expect("no panic"))
        });
        assert_eq!((winners[0] ^ winners[1], there.reserved(token, "alice")), (true, None));
        // The port's next reservation is another one.
        let (_, next) = there.reserve(port, "alice", &mut random);
        assert!(next != token && !here.end_reservation(reserved) && here.reserved(token, "alice").is_none());
    }

    #[test]
    fn every_worker_knows_whose_socket_is_on_a_port() {
        let ledger = Arc::new(Ledger::new([5; 32]));
        let [here, there] = [0, 1].map(|worker| Ports::new(Arc::clone(&ledger), WorkerIndex(worker), 10_000, 10_009));
        let port = there.take(Wish::Any, &mut Random::from_seed([7; 32])).expect("all are free");
        assert_eq!(here.worker_of(port), None, "taken, and no socket yet");
        there.open(port);
        assert_eq!([&here, &there].map(|ports| ports.worker_of(port)), [Some(WorkerIndex(1)); 2]);
        there.close(port);
        assert_eq!(here.worker_of(port), None);
        there.open(port);
        there.release(port);
        assert_eq!(here.worker_of(port), None);
    }
}
