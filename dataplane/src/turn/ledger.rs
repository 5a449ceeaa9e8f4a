//! What the workers of a server count together: what each user holds and has used up of its bandwidth, how many allocations there are,
//! which relay ports are taken or reserved, what strangers were answered. Atomics in memory of a fixed size: nobody waits for anybody.
//! It is looked at when something is allocated; packets touch it in coarse steps of bandwidth only, and only where there is a bound.
//!
//! Users are not listed. Each is counted in one cell of each of eight rows, beside whoever else a keyed hash of the name puts there. Each
//! of the eight is the user's own count or more, so the least of them bounds it from above: nobody gets more than the quota, a
//! million names take no byte more than one, and none has to be forgotten. Too early a refusal takes others in all eight cells: of
//! 4,000 users with two allocations each, that meets one in thirty million who ask for a third of four.

use std::fmt;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};

use arrayvec::ArrayVec;
use aws_lc_rs::hmac;
use ringmain_shared::Now;

use super::budget::{Second, Strangers};
use super::ports::PortMap;
use crate::buf::{Bandwidth, Reserve};

/// The counts of one server, whichever of its workers looks.
pub struct Ledger {
    seed: [u8; 32],
    /// Made when the first worker becomes a server: five megabytes.
    books: OnceLock<Books>,
}

struct Books {
    key: hmac::Key,
    allocations: AtomicU32,
    /// Allocations and reserved ports, by row and cell.
    held: Box<[AtomicU32]>,
    /// Connections to peers, in the same cells.
    connections: Box<[AtomicU32]>,
    /// When the bandwidth that was used is paid for, in the same cells; that of all is the last.
    paid_at: Box<[AtomicU64]>,
    /// Allocates of a second, in fewer cells.
    allocates: Box<[AtomicU64]>,
    ports: PortMap,
    strangers: Strangers,
}

/// The cells that a user is counted in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct User([u32; ROWS]);

/// What is owed for bandwidth by one user, or by all.
#[derive(Debug)]
struct Debt {
    ledger: Arc<Ledger>,
    cells: ArrayVec<u32, ROWS>,
}

impl Ledger {
    /// Empty. `seed` makes reservations, nonces and the places of users unguessable.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, books: OnceLock::new() }
    }

    fn books(&self) -> &Books {
        self.books.get_or_init(|| Books {
            key: hmac::Key::new(hmac::HMAC_SHA256, &self.seed),
            allocations: AtomicU32::new(0),
            held: std::iter::repeat_with(AtomicU32::default).take(ROWS * CELLS).collect(),
            connections: std::iter::repeat_with(AtomicU32::default).take(ROWS * CELLS).collect(),
            paid_at: std::iter::repeat_with(AtomicU64::default).take(ALL as usize + 1).collect(),
            allocates: std::iter::repeat_with(AtomicU64::default).take(ROWS * SECOND_CELLS).collect(),
            ports: PortMap::default(),
            strangers: Strangers::default(),
        })
    }

    /// A tag over these parts that nobody else can make.
    pub(super) fn tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.books().key);
        parts.iter().for_each(|part| context.update(part));
        context.sign().as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// Relay ports.
    pub(super) fn ports(&self) -> &PortMap {
        &self.books().ports
    }

    /// Replies to those who have proved nothing.
    pub(super) fn strangers(&self) -> &Strangers {
        &self.books().strangers
    }

    /// Where a user is counted.
    pub fn user(&self, name: &str) -> User {
        let tag = self.tag(&[b"user", name.as_bytes()]);
        let mut cells = [0; ROWS];
        for ((row, cell), bytes) in cells.iter_mut().enumerate().zip(tag.chunks_exact(4)) {
            let number = bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            *cell = (row * CELLS) as u32 + number % CELLS as u32;
        }
        User(cells)
    }

    /// One more allocation or reserved port of a user, if the user has fewer than `max` then; zero is no bound.
    pub(super) fn hold(self: &Arc<Self>, user: User, max: u32) -> Option<Hold> {
        self.add(Held::ByUser(user), max)
    }

    /// One more of a user's connections to peers, if there are fewer than `max`; zero is no bound.
    pub(super) fn hold_connection(self: &Arc<Self>, user: User, max: u32) -> Option<Hold> {
        self.add(Held::ConnectionOf(user), max)
    }

    fn add(self: &Arc<Self>, what: Held, max: u32) -> Option<Hold> {
        let cells = self.books().cells(what);
        for cell in &cells {
            cell.fetch_add(1, SeqCst);
        }
        // All eight are counted before any is read: of two workers at once, the later one at least sees both. It may be that both do,
        // and neither gets the last one.
        let hold = Hold { ledger: Arc::clone(self), what };
        let held = cells.iter().map(|cell| cell.load(SeqCst)).min().unwrap_or(0);
        (max == 0 || held <= max).then_some(hold)
    }

    /// What is counted already, and is given back with this from now on.
    pub(super) fn take_over(self: &Arc<Self>, user: User) -> Hold {
        Hold { ledger: Arc::clone(self), what: Held::ByUser(user) }
    }

    /// One more allocation of all, if there are fewer than `max`; zero is no bound.
    pub(super) fn hold_place(self: &Arc<Self>, max: u32) -> Option<Hold> {
        let more = |count: u32| (max == 0 || count < max).then(|| count.saturating_add(1));
        self.books().allocations.fetch_update(SeqCst, SeqCst, more).ok()?;
        Some(Hold { ledger: Arc::clone(self), what: Held::ByAll })
    }

    /// Whether a user may allocate in this second, having done so fewer than `max` times; zero is no bound.
    pub(super) fn allow_allocate(&self, user: User, max: u32, now: Now) -> bool {
        if max == 0 {
            return true;
        }
        let cells = || self.books().allocates_of(user);
        let made = || cells().map(|cell| Second::in_cell(cell).count(now)).min().unwrap_or(0);
        if made() >= max {
            return false;
        }
        for cell in cells() {
            Second::add_in_cell(cell, 0, now);
        }
        made() <= max
    }

    /// What a user may relay.
    pub fn bandwidth_of(self: &Arc<Self>, User(cells): User, bits_per_second: u64) -> Bandwidth {
        Bandwidth::new(bits_per_second, Arc::new(Debt { ledger: Arc::clone(self), cells: cells.into() }))
    }

    /// What all may relay.
    pub fn bandwidth_of_all(self: &Arc<Self>, bits_per_second: u64) -> Bandwidth {
        let cells = [ALL].into_iter().collect();
        Bandwidth::new(bits_per_second, Arc::new(Debt { ledger: Arc::clone(self), cells }))
    }

    /// How much a user of this name holds.
    #[cfg(test)]
    pub(super) fn held(&self, name: &str) -> u32 {
        let cells = self.books().cells(Held::ByUser(self.user(name)));
        cells.iter().map(|cell| cell.load(SeqCst)).min().unwrap_or(0)
    }
}

impl Debt {
    fn cells(&self) -> impl Iterator<Item = &AtomicU64> {
        let paid_at = &self.ledger.books().paid_at;
        self.cells.iter().filter_map(|&cell| paid_at.get(cell as usize))
    }
}

impl Reserve for Debt {
    fn paid_at(&self) -> Now {
        Now(self.cells().map(|cell| cell.load(Relaxed)).min().unwrap_or(0))
    }

    fn owe(&self, nanos: u64, now: Now) {
        for cell in self.cells() {
            let more = |paid_at: u64| Some(paid_at.max(now.0).saturating_add(nanos));
            let _ = cell.fetch_update(Relaxed, Relaxed, more);
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ledger(…)")
    }
}

impl Books {
    fn cells(&self, what: Held) -> ArrayVec<&AtomicU32, ROWS> {
        let (table, User(cells)) = match what {
            Held::ByUser(user) => (&self.held, user),
            Held::ConnectionOf(user) => (&self.connections, user),
            Held::ByAll => return [&self.allocations].into_iter().collect(),
            Held::Nothing => return ArrayVec::new(),
        };
        cells.into_iter().filter_map(|cell| table.get(cell as usize)).collect()
    }

    fn allocates_of(&self, User(cells): User) -> impl Iterator<Item = &AtomicU64> {
        let places = (0..).zip(cells).map(|(row, cell)| row * SECOND_CELLS + cell as usize % SECOND_CELLS);
        places.filter_map(|place| self.allocates.get(place))
    }
}

/// Something that counts against a quota until this is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    ledger: Arc<Ledger>,
    what: Held,
}

#[derive(Clone, Copy, Debug)]
enum Held {
    ByUser(User),
    ConnectionOf(User),
    ByAll,
    Nothing,
}

impl Hold {
    /// It goes on to count, and somebody else gives it back.
    pub(super) fn leave(mut self) {
        self.what = Held::Nothing;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        for cell in self.ledger.books().cells(self.what) {
            cell.fetch_sub(1, SeqCst);
        }
    }
}

const ROWS: usize = 8;
/// Of each row.
const CELLS: usize = 32 * 1024;
/// Of each row, for those who allocate within one second.
const SECOND_CELLS: usize = 1024;
/// Where the bandwidth of all is: on a cache line of its own.
const ALL: u32 = (ROWS * CELLS) as u32 + 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_never_exceeded_by_workers_that_ask_at_once() {
        let ledger = Arc::new(Ledger::new([3; 32]));
        let most = AtomicU32::new(0);
        let live = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let alice = ledger.user("alice");
                    for _ in 0..20_000 {
                        let Some(hold) = ledger.hold(alice, 3) else { continue };
                        most.fetch_max(live.fetch_add(1, SeqCst) + 1, SeqCst);
                        live.fetch_sub(1, SeqCst);
                        drop(hold);
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.load(SeqCst)), "{most:?}");
        assert_eq!(ledger.held("alice"), 0, "each gave back what it had");
    }

    #[test]
    fn there_is_a_place_for_as_many_as_there_may_be() {
        let ledger = Arc::new(Ledger::new([3; 32]));
        let got: u32 = std::thread::scope(|scope| {
            let all = || (0..1000).filter_map(|_| ledger.hold_place(1500)).collect::<Vec<Hold>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(all)).collect();
            let holds: Vec<Vec<Hold>> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
            holds.iter().map(|holds| holds.len() as u32).sum()
        });
        assert_eq!(got, 1500);
        assert!(ledger.hold_place(1).is_some(), "all were given back");
    }

    #[test]
    fn thousands_of_users_do_not_get_into_each_other_s_way() {
        let ledger = Arc::new(Ledger::new([3; 32]));
        let users: Vec<User> = (0..4000).map(|number| ledger.user(&format!("user {number}"))).collect();
        let holds: Vec<Option<Hold>> = users.iter().chain(&users).map(|&user| ledger.hold(user, 4)).collect();
        assert!(holds.iter().all(Option::is_some));
        let refused = users.iter().filter(|&&user| ledger.hold(user, 4).is_none()).count();
        assert_eq!(refused, 0, "of those who ask for a third");
        drop(holds);
        assert!((0..4000).all(|number| ledger.held(&format!("user {number}")) == 0));
    }

    #[test]
    fn a_user_allocates_so_often_in_a_second_whichever_workers_are_asked() {
        let ledger = Ledger::new([3; 32]);
        let (alice, bob) = (ledger.user("alice"), ledger.user("bob"));
        for second in 0..3 {
            let now = Now::from_millis(second * 1000 + 999);
            assert_eq!((0..20).filter(|_| ledger.allow_allocate(alice, 5, now)).count(), 5);
            assert!(ledger.allow_allocate(bob, 1, now) && !ledger.allow_allocate(bob, 1, now));
            assert!((0..20).all(|_| ledger.allow_allocate(bob, 0, now)));
        }
    }

    #[test]
    fn what_a_user_owes_is_known_to_every_worker_and_remembered_by_none() {
        let ledger = Arc::new(Ledger::new([3; 32]));
        let of = |user: &str| ledger.bandwidth_of(ledger.user(user), 8_000_000);
        let now = Now::from_millis(1000);
        let pass = |bandwidth: Bandwidth| {
            (0..1000).take_while(|_| bandwidth.is_open(now)).map(|_| bandwidth.charge(1000, now)).count()
        };
        assert!((200..=226).contains(&pass(of("alice"))));
        assert_eq!(pass(of("alice")), 0, "somebody else with the same name");
        assert!((200..=226).contains(&pass(of("bob"))));
        assert!((200..=226).contains(&pass(ledger.bandwidth_of_all(8_000_000))));
        assert_eq!(pass(ledger.bandwidth_of_all(8_000_000)), 0);
    }
}
