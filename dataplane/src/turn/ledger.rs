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
use std::time::Duration;

use arrayvec::ArrayVec;
use aws_lc_rs::hmac;
use ringmain_shared::Now;

use super::budget::Strangers;
use super::ports::PortMap;

/// The counts of one server, whichever of its workers looks.
pub struct Ledger {
    seed: [u8; 32],
    /// Made when the first worker becomes a server: four megabytes.
    books: OnceLock<Books>,
}

struct Books {
    key: hmac::Key,
    allocations: AtomicU32,
    /// Allocations and reserved ports, by row and cell.
    held: Box<[AtomicU32]>,
    /// When the bandwidth that was used is paid for, in the same cells; that of all is the last.
    paid_at: Box<[AtomicU64]>,
    ports: PortMap,
    strangers: Strangers,
}

/// The cells that a user is counted in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct User([u32; ROWS]);

/// Whose bandwidth it is.
#[derive(Clone, Debug)]
pub(super) struct Debtor(ArrayVec<u32, ROWS>);

impl From<User> for Debtor {
    fn from(User(cells): User) -> Self {
        Self(cells.into())
    }
}

impl Debtor {
    /// All users together.
    pub(super) fn all() -> Self {
        Self([ALL].into_iter().collect())
    }
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
            paid_at: std::iter::repeat_with(AtomicU64::default).take(ALL as usize + 1).collect(),
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
    pub(super) fn user(&self, name: &str) -> User {
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
        let books = self.books();
        books.held_by(user).for_each(|cell| {
            cell.fetch_add(1, SeqCst);
        });
        // All eight are counted before any is read: of two workers at once, the later one at least sees both. It may be that both do,
        // and neither gets the last one.
        let hold = self.take_over(user);
        (max == 0 || books.held(user) <= max).then_some(hold)
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

    /// When the bandwidth that was used is paid for.
    pub(super) fn paid_at(&self, debtor: &Debtor) -> Now {
        let all = self.books().paid_at(debtor).map(|cell| cell.load(Relaxed));
        Now(all.min().unwrap_or(0))
    }

    /// Bandwidth that takes `time` to pay for, where no more than `burst` is owed. Otherwise, when no more will be.
    pub(super) fn draw(&self, debtor: &Debtor, time: Duration, burst: Duration, now: Now) -> Result<(), Now> {
        let paid_at = self.paid_at(debtor);
        if paid_at > now + burst {
            return Err(Now(paid_at.0 - burst.as_nanos() as u64));
        }
        // Two workers at once may both get a step where there was one left: it is owed, and missing from what comes next.
        self.owe(debtor, now, |from| from + time);
        Ok(())
    }

    /// Bandwidth that was used without asking. What is owed for it is bounded by `burst`.
    pub(super) fn charge(&self, debtor: &Debtor, time: Duration, burst: Duration, now: Now) {
        self.owe(debtor, now, |from| (from + time).min(from.max(now + burst)));
    }

    fn owe(&self, debtor: &Debtor, now: Now, more: impl Fn(Now) -> Now) {
        for cell in self.books().paid_at(debtor) {
            let _ = cell.fetch_update(Relaxed, Relaxed, |paid_at| Some(more(Now(paid_at).max(now)).0));
        }
    }

    /// How much a user of this name holds.
    #[cfg(test)]
    pub(super) fn held(&self, name: &str) -> u32 {
        self.books().held(self.user(name))
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ledger(…)")
    }
}

impl Books {
    fn held_by(&self, User(cells): User) -> impl Iterator<Item = &AtomicU32> {
        cells.into_iter().filter_map(|cell| self.held.get(cell as usize))
    }

    fn held(&self, user: User) -> u32 {
        self.held_by(user).map(|cell| cell.load(SeqCst)).min().unwrap_or(0)
    }

    fn paid_at<'a>(&'a self, Debtor(cells): &'a Debtor) -> impl Iterator<Item = &'a AtomicU64> {
        cells.iter().filter_map(|&cell| self.paid_at.get(cell as usize))
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
        let books = self.ledger.books();
        match self.what {
            Held::ByUser(user) => books.held_by(user).for_each(|cell| {
                cell.fetch_sub(1, SeqCst);
            }),
            Held::ByAll => {
                books.allocations.fetch_sub(1, SeqCst);
            }
            Held::Nothing => {}
        }
    }
}

const ROWS: usize = 8;
/// Of each row.
const CELLS: usize = 32 * 1024;
/// Where the bandwidth of all is: on a cache line of its own.
const ALL: u32 = (ROWS * CELLS) as u32 + 8;

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: Duration = Duration::from_millis(200);

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
    fn bandwidth_is_shared_and_debts_are_remembered() {
        let ledger = Ledger::new([3; 32]);
        let (alice, bob) = (ledger.user("alice").into(), ledger.user("bob").into());
        let (step, now) = (Duration::from_millis(50), Now::from_millis(1000));
        let drawn = (0..10).filter(|_| ledger.draw(&alice, step, BURST, now).is_ok()).count();
        assert_eq!((drawn, ledger.paid_at(&alice)), (5, Now::from_millis(1250)));
        assert_eq!(ledger.draw(&alice, step, BURST, now), Err(Now::from_millis(1050)));
        assert_eq!(ledger.draw(&alice, step, BURST, Now::from_millis(1050)), Ok(()));
        assert_eq!(ledger.draw(&bob, step, BURST, now), Ok(()), "another user has her own");
        ledger.charge(&bob, Duration::from_secs(60), BURST, now);
        assert_eq!(ledger.paid_at(&bob), now + BURST, "what was sent without asking holds up no longer than a burst");
        assert_eq!(ledger.paid_at(&Debtor::all()), Now(0));
    }
}
