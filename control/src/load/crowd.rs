//! The clients of a run: who joins when, who is in, who failed, how long it took. Owns their tasks and what the engines tell.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ringmain_shared::Now;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::{Client, World};
use super::engine::{Handle, Happened, Key, Order, Report};
use super::histogram::Histogram;
use super::publisher::Content;

/// Who joins.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub(super) room: String,
    /// What it publishes; subscribers publish nothing.
    pub(super) contents: Vec<Content>,
    pub(super) is_publisher: bool,
    /// Which engine moves its packets.
    pub(super) engine: usize,
}

/// Everybody.
pub(super) struct Crowd {
    world: Arc<World>,
    engines: Vec<Handle>,
    happened: UnboundedReceiver<Happened>,
    ended: (UnboundedSender<Ended>, UnboundedReceiver<Ended>),
    members: HashMap<u32, Member>,
    next_number: u32,
    pub(super) joins: Joins,
}

/// How joining went. Counters only grow, as those of a tally.
#[derive(Clone, Debug, Default)]
pub(super) struct Joins {
    /// Every connection of so many clients came up.
    pub(super) count: u64,
    /// From opening the WebSocket to keys for media.
    pub(super) took: Histogram,
    /// From opening the WebSocket to the first media packet, of subscribers.
    pub(super) first_media: Histogram,
    pub(super) failed: u64,
    /// What the first failures were.
    pub(super) reasons: Vec<String>,
    /// When the last one got in.
    pub(super) last: Now,
    /// The SRTP profile of the last connection; a server treats all alike.
    pub(super) profile: &'static str,
}

struct Member {
    stop: watch::Sender<bool>,
    began: Now,
    /// Connections that are not up yet.
    missing: usize,
}

type Ended = (u32, Result<(), String>);

impl Crowd {
    pub(super) fn new(world: World, engines: Vec<Handle>, happened: UnboundedReceiver<Happened>) -> Self {
        Self {
            world: Arc::new(world),
            engines,
            happened,
            ended: unbounded_channel(),
            members: HashMap::new(),
            next_number: 0,
            joins: Joins::default(),
        }
    }

    pub(super) fn now(&self) -> Now {
        self.world.identity.now()
    }

    /// Begins to join; the number that the client has from now on.
    pub(super) fn join(&mut self, role: &Role) -> u32 {
        let number = self.next_number;
        self.next_number += 1;
        let engine = self.engines[role.engine % self.engines.len()].clone();
        let (room, contents) = (role.room.clone(), role.contents.clone());
        let client = Client { number, room, contents, is_publisher: role.is_publisher, engine };
        let (stop, stopped) = watch::channel(false);
        let missing = client.sides(&self.world).len();
        self.members.insert(number, Member { stop, began: self.now(), missing });
        let (world, ended) = (self.world.clone(), self.ended.0.clone());
        tokio::spawn(async move {
            let result = client.run(world, stopped).await;
            let _ = ended.send((number, result));
        });
        number
    }

    /// Makes a client leave.
    pub(super) fn leave(&mut self, number: u32) {
        if let Some(member) = self.members.get(&number) {
            member.stop.send_replace(true);
        }
    }

    /// Has all of `roles` join, `rate` per second or, when that is zero, as fast as they get in; gives their numbers once each
    /// is in or has failed.
    pub(super) async fn join_all(&mut self, roles: &[Role], rate: f64, mut tell: impl FnMut(&Crowd)) -> Vec<u32> {
        let mut roles: VecDeque<&Role> = roles.iter().collect();
        let mut numbers = Vec::with_capacity(roles.len());
        let interval = if rate > 0.0 { Duration::from_secs_f64(1.0 / rate) } else { Duration::ZERO };
        let mut next = Instant::now();
        let mut patience = next + PATIENCE;
        loop {
            let may_join = if rate > 0.0 { Instant::now() >= next } else { self.joining() < AT_A_TIME };
            if may_join && let Some(role) = roles.pop_front() {
                numbers.push(self.join(role));
                next += interval;
                patience = Instant::now() + PATIENCE;
                continue;
            }
            if roles.is_empty() && self.joining() == 0 {
                return numbers;
            }
            if Instant::now() > patience {
                self.give_up();
                return numbers;
            }
            let pause = if rate > 0.0 && !roles.is_empty() { next } else { Instant::now() + GLANCE };
            self.watch_until(pause.min(Instant::now() + GLANCE), true).await;
            tell(self);
        }
    }

    /// Takes note of what happens until `until`, or until one thing has happened.
    pub(super) async fn watch_until(&mut self, until: Instant, only_one: bool) {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(until) => return,
                Some(happened) = self.happened.recv() => self.handle(happened),
                Some((number, result)) = self.ended.1.recv() => self.end(number, result),
            }
            if only_one {
                return;
            }
        }
    }

    /// Clients that are not in yet.
    pub(super) fn joining(&self) -> usize {
        self.members.values().filter(|member| member.missing > 0).count()
    }

    pub(super) fn is_in(&self, number: u32) -> bool {
        self.members.get(&number).is_some_and(|member| member.missing == 0)
    }

    /// Clients that are in.
    pub(super) fn present(&self) -> usize {
        self.members.values().filter(|member| member.missing == 0).count()
    }

    /// What the engines `from` up to `to` have counted, together.
    pub(super) async fn report(&self, engines: std::ops::Range<usize>) -> Report {
        let mut sum = Report::default();
        for engine in self.engines.get(engines).unwrap_or_default() {
            sum.add(engine.report().await);
        }
        sum
    }

    pub(super) fn order_all(&self, order: impl Fn() -> Order) {
        self.engines.iter().for_each(|engine| engine.order(order()));
    }

    /// Everybody leaves, and the engines end.
    pub(super) async fn disperse(mut self) {
        for member in self.members.values() {
            member.stop.send_replace(true);
        }
        let leaving = async {
            while !self.members.is_empty() {
                match self.ended.1.recv().await {
                    Some((number, _)) => drop(self.members.remove(&number)),
                    None => return,
                }
            }
        };
        // A server that does not answer a close frame is not waited for.
        let _ = timeout(GOODBYE, leaving).await;
        self.engines.iter().for_each(|engine| engine.order(Order::Stop));
    }

    fn handle(&mut self, happened: Happened) {
        match happened {
            Happened::Up(Key { client, .. }, at, profile) => {
                self.joins.profile = profile;
                let Some(member) = self.members.get_mut(&client) else { return };
                member.missing = member.missing.saturating_sub(1);
                if member.missing == 0 {
                    self.joins.count += 1;
                    self.joins.took.record(at.since(member.began));
                    self.joins.last = self.joins.last.max(at);
                }
            }
            Happened::Media(Key { client, .. }, at) => {
                if let Some(member) = self.members.get(&client) {
                    self.joins.first_media.record(at.since(member.began));
                }
            }
            Happened::Failed(Key { client, .. }, why) => self.end(client, Err(why)),
            Happened::EngineEnded(why) => self.fail(format!("an engine has ended: {why}")),
        }
    }

    /// A client is gone; a failure is counted once.
    fn end(&mut self, number: u32, result: Result<(), String>) {
        let Some(member) = self.members.remove(&number) else { return };
        member.stop.send_replace(true);
        if let Err(why) = result {
            self.fail(format!("client {number}: {why}"));
        }
    }

    fn give_up(&mut self) {
        let late: Vec<u32> =
            self.members.iter().filter(|(_, member)| member.missing > 0).map(|(number, _)| *number).collect();
        for number in late {
            self.end(number, Err(format!("did not get in within {} s", PATIENCE.as_secs())));
        }
    }

    fn fail(&mut self, why: String) {
        self.joins.failed += 1;
        if self.joins.reasons.len() < REASONS_MAX {
            self.joins.reasons.push(why);
        }
    }
}

/// Clients that may be joining at a time when there is no rate.
const AT_A_TIME: usize = 32;
/// Since the last one began, for those that are still joining.
const PATIENCE: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(100);
const GOODBYE: Duration = Duration::from_secs(3);
const REASONS_MAX: usize = 5;
