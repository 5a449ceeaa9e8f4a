//! The one task that owns the rooms. Clients' texts, the data plane's events and the passing of time reach the rooms here,
//! one after the other, and what the rooms want done leaves from here. So rooms need no lock.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use ringmain_shared::command::Command;
use ringmain_shared::event::{Event, HandshakeStats, StreamStats, WorkerStats};
use ringmain_shared::now::Now;
use ringmain_shared::turn::TurnCommand;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::turn::Users;

use super::connection::{Coming, Inbox, Outbox};
use super::operations::Operations;
use super::parts::{ConnectionId, Counts, DataPlane, Output, Rooms};
use super::wall_clock::WallClock;

/// Rooms, data plane and clients, joined.
#[derive(Debug)]
pub struct Actor<R, P> {
    rooms: R,
    plane: P,
    clients: HashMap<ConnectionId, Outbox>,
    /// Commands that found their ring full, in order.
    backlog: VecDeque<Command>,
    commands_lost: u64,
    /// When the log last said that commands wait.
    behind_told: Option<Now>,
    overflows: u64,
    workers: BTreeMap<u16, (WorkerStats, Now)>,
    handshakes: BTreeMap<u16, HandshakeStats>,
    /// Threads of the data plane that stand still.
    stalled: BTreeSet<String>,
    turn: Operations,
    streams: Option<StreamStats>,
    worker_count: usize,
    clock: WallClock,
    start: Instant,
}

/// How things stand, for `/metrics` and `/healthz`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Report {
    /// Of the rooms.
    pub counts: Counts,
    /// Open signalling connections.
    pub connections: usize,
    /// Connections cut because they did not read.
    pub overflows: u64,
    /// Commands that wait for a full ring.
    pub backlog: usize,
    /// Commands given up because the data plane, or the thread that they were for, took none for too long.
    pub commands_lost: u64,
    /// Workers of the data plane.
    pub worker_count: usize,
    /// The last counters of each worker, with their age.
    pub workers: Vec<(WorkerStats, Duration)>,
    /// The last counters of each handshake thread.
    pub handshakes: Vec<(u16, HandshakeStats)>,
    /// Threads of the data plane that stand still, by name.
    pub stalled: Vec<String>,
    /// What users of TURN have relayed.
    pub users: Users,
    /// The last counters of connections for TURN, if it listens for such.
    pub streams: Option<StreamStats>,
    /// Since the start.
    pub uptime: Duration,
}

impl Report {
    /// The workers that have not been heard of for too long.
    pub fn silent_workers(&self) -> Vec<u16> {
        let heard = |index: u16| self.workers.iter().any(|(stats, age)| stats.worker == index && *age < WORKER_SILENT);
        // The first counters come a second after the start.
        if self.uptime < WORKER_SILENT {
            return Vec::new();
        }
        (0..self.worker_count as u16).filter(|&index| !heard(index)).collect()
    }

    /// What is wrong, in words; empty when all is well.
    pub fn ailments(&self) -> Vec<String> {
        let stalled = self.stalled.iter().map(|thread| format!("{thread} stands still"));
        let is_other = |index: &u16| !self.stalled.contains(&format!("worker-{index}"));
        let silent = self.silent_workers().into_iter().filter(is_other);
        stalled.chain(silent.map(|index| format!("worker-{index} does not report"))).collect()
    }
}

impl<R: Rooms, P: DataPlane> Actor<R, P> {
    /// Joins `rooms` with a data plane of `worker_count` workers. `start` is the moment that `Now` counts from.
    pub fn new(rooms: R, plane: P, worker_count: usize, start: Instant) -> Self {
        Self {
            rooms,
            plane,
            clients: HashMap::new(),
            backlog: VecDeque::new(),
            commands_lost: 0,
            behind_told: None,
            overflows: 0,
            workers: BTreeMap::new(),
            handshakes: BTreeMap::new(),
            stalled: BTreeSet::new(),
            turn: Operations::default(),
            streams: None,
            worker_count,
            clock: WallClock::default(),
            start,
        }
    }

    /// Works until `stop` turns true; then lets every client and the data plane go.
    pub async fn run(mut self, mut inbox: Inbox, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
        let event_fd: OwnedFd = self.plane.event_fd().try_clone_to_owned()?;
        #[allow(deprecated, reason = "its successor is unsafe for descriptors that lie, and an OwnedFd does not")]
        let event_fd = AsyncFd::with_interest(event_fd, Interest::READABLE)?;
        loop {
            let more_events = self.take_events();
            self.take_timeout();
            self.watch_clock();
            self.take_outputs();
            self.send_backlog();
            let deadline = self.deadline();
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                Some(coming) = inbox.comings.recv() => self.handle_coming(coming),
                Some((question, answer)) = inbox.orders.recv() => {
                    if let Some(command) = self.turn.ask(question, answer, self.worker_count) {
                        self.send(Command::Turn(command));
                    }
                }
                Some(answer) = inbox.questions.recv() => drop(answer.send(self.report())),
                // The eventfd is watched by edges: each write to it is one, read or not.
                ready = event_fd.readable() => ready?.clear_ready(),
                () = tokio::time::sleep_until(deadline) => {}
                () = tokio::task::yield_now(), if more_events => {}
                Some((id, text)) = inbox.texts.recv(), if self.backlog.len() < BACKLOG_PAUSE => {
                    // Its `Opened` was sent before it.
                    while let Ok(coming) = inbox.comings.try_recv() {
                        self.handle_coming(coming);
                    }
                    self.handle_text(id, &text);
                }
            }
        }
        self.let_go(inbox).await;
        Ok(())
    }

    fn handle_coming(&mut self, coming: Coming) {
        match coming {
            Coming::Opened(id, from, outbox) => {
                self.clients.insert(id, outbox);
                self.rooms.handle_opened(id, from, self.now());
            }
            Coming::Closed(id) => self.forget(id),
        }
    }

    fn handle_text(&mut self, id: ConnectionId, text: &str) {
        // A cut line may have left texts behind.
        if self.clients.contains_key(&id) {
            self.rooms.handle_message(id, text, self.now());
            self.take_outputs();
        }
    }

    fn forget(&mut self, id: ConnectionId) {
        if self.clients.remove(&id).is_some() {
            self.rooms.handle_closed(id, self.now());
        }
    }

    /// Takes what the data plane has to say; `true` when there may be more than fits in one turn.
    fn take_events(&mut self) -> bool {
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = self.plane.try_recv() else { return false };
            let now = self.now();
            self.note(&event, now);
            self.rooms.handle_event(event, now);
        }
        true
    }

    /// What an event says of the data plane itself.
    fn note(&mut self, event: &Event, now: Now) {
        match event {
            Event::Stats(stats) => {
                self.workers.insert(stats.worker, ((**stats).clone(), now));
            }
            Event::HandshakeStats { thread, stats } => {
                self.handshakes.insert(*thread, *stats);
            }
            Event::Stalled { thread, silent_ms } => {
                tracing::error!(
                    "{thread} of the data plane has stood still for {silent_ms} ms, and everything on it with it; \
                     if it does not recover, restart the server and report what it was doing"
                );
                self.stalled.insert(thread.clone());
            }
            Event::Recovered { thread } => {
                tracing::warn!("{thread} of the data plane turns again");
                self.stalled.remove(thread);
            }
            Event::Turn(event) => self.turn.handle(event),
            Event::Streams(stats) => self.streams = Some(*stats),
            _ => {}
        }
    }

    fn take_timeout(&mut self) {
        let now = self.now();
        if self.rooms.poll_timeout().is_some_and(|due| due <= now) {
            self.rooms.handle_timeout(now);
        }
    }

    /// Tells the data plane when the wall clock has been set.
    fn watch_clock(&mut self) {
        let now = self.now();
        if let Some(unix_nanos_at_start) = self.clock.look(now, SystemTime::now()) {
            tracing::info!("the wall clock has been set; TURN goes by it from now on");
            self.send(Command::Turn(TurnCommand::Clock { unix_nanos_at_start }));
        }
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.rooms.poll_output() {
            match output {
                Output::Send { connection, text } => {
                    let sent = self.clients.get_mut(&connection).map(|outbox| outbox.send(text));
                    if let Some(Err(_)) = sent {
                        self.overflows += 1;
                        tracing::debug!(connection = connection.0, "cut: it does not read what it is sent");
                        self.forget(connection);
                    }
                }
                Output::Close { connection, code, reason } => {
                    if let Some(mut outbox) = self.clients.remove(&connection) {
                        outbox.close(code, reason);
                        self.rooms.handle_closed(connection, self.now());
                    }
                }
                Output::Command(command) => self.send(command),
            }
        }
    }

    fn send(&mut self, command: Command) {
        if !self.backlog.is_empty() {
            self.postpone(command);
        } else if let Err(command) = self.plane.send(command) {
            let now = self.now();
            if self.behind_told.is_none_or(|told| now.since(told) >= BEHIND_TOLD_AGAIN) {
                self.behind_told = Some(now);
                tracing::warn!("the data plane is behind: commands wait");
            }
            self.postpone(command);
        }
    }

    fn postpone(&mut self, command: Command) {
        if self.backlog.len() < BACKLOG_MAX {
            self.backlog.push_back(command);
        } else {
            if self.commands_lost == 0 {
                tracing::error!("the data plane takes no commands: they are lost from here on");
            }
            self.commands_lost += 1;
        }
    }

    /// Offers what waits again, in order.
    fn send_backlog(&mut self) {
        while let Some(command) = self.backlog.pop_front() {
            if let Err(command) = self.plane.send(command) {
                self.backlog.push_front(command);
                break;
            }
        }
    }

    fn deadline(&self) -> tokio::time::Instant {
        let idle = self.now() + IDLE;
        let retry = if self.backlog.is_empty() { idle } else { self.now() + BACKLOG_RETRY };
        let due = self.rooms.poll_timeout().unwrap_or(idle).min(retry).min(idle);
        tokio::time::Instant::from_std(self.start + Duration::from_nanos(due.0))
    }

    fn report(&self) -> Report {
        let now = self.now();
        let (waiting, lost) = self.plane.waiting_and_lost();
        Report {
            counts: self.rooms.counts(),
            connections: self.clients.len(),
            overflows: self.overflows,
            backlog: self.backlog.len() + waiting,
            commands_lost: self.commands_lost + lost,
            worker_count: self.worker_count,
            workers: self.workers.values().map(|(stats, heard)| (stats.clone(), now.since(*heard))).collect(),
            handshakes: self.handshakes.iter().map(|(thread, stats)| (*thread, *stats)).collect(),
            stalled: self.stalled.iter().cloned().collect(),
            users: self.turn.users().clone(),
            streams: self.streams,
            uptime: now.since(Now(0)),
        }
    }

    /// Says goodbye: clients are closed with 1001, their transports with close_notify, then the workers end.
    async fn let_go(mut self, mut inbox: Inbox) {
        while let Ok(coming) = inbox.comings.try_recv() {
            self.handle_coming(coming);
        }
        let mut leaving = self.clients.len();
        for (id, mut outbox) in std::mem::take(&mut self.clients) {
            outbox.close(CLOSE_GOING_AWAY, "the server is shutting down".into());
            self.rooms.handle_closed(id, self.now());
        }
        self.take_outputs();
        let least = tokio::time::Instant::now() + if leaving > 0 { FAREWELL_LEAST } else { Duration::ZERO };
        let end = tokio::time::Instant::now() + FAREWELL;
        while (leaving > 0 || !self.backlog.is_empty()) && tokio::time::Instant::now() < end {
            self.send_backlog();
            match tokio::time::timeout(BACKLOG_RETRY, inbox.comings.recv()).await {
                Ok(Some(Coming::Closed(_))) => leaving = leaving.saturating_sub(1),
                Ok(None) => break,
                Ok(Some(Coming::Opened(..))) | Err(_) => {}
            }
        }
        // The close frames and close_notify are still on their way when the last line is dropped.
        tokio::time::sleep_until(least).await;
        let plane = self.plane;
        if tokio::task::spawn_blocking(move || plane.shutdown()).await.is_err() {
            tracing::error!("the data plane did not end cleanly");
        }
    }

    fn now(&self) -> Now {
        Now(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Events taken before clients get a turn.
const EVENTS_PER_TURN: usize = 256;
/// Waiting commands at which no more texts are taken.
const BACKLOG_PAUSE: usize = 4096;
/// Waiting commands at which further ones are lost: what the texts taken before the pause, and one storm of leaving peers, ask.
const BACKLOG_MAX: usize = 1 << 17;
/// Time between attempts at a full ring.
const BACKLOG_RETRY: Duration = Duration::from_millis(2);
/// The longest sleep: bounds what a lost wake-up could cost.
const IDLE: Duration = Duration::from_millis(500);
/// Workers report every second.
const WORKER_SILENT: Duration = Duration::from_secs(5);
/// Time to say goodbye.
const FAREWELL: Duration = Duration::from_secs(3);
/// The least of it, for what was said to reach the clients.
const FAREWELL_LEAST: Duration = Duration::from_millis(300);
/// Time before the log says again that commands wait.
const BEHIND_TOLD_AGAIN: Duration = Duration::from_secs(10);
/// RFC 6455 §7.4.1.
const CLOSE_GOING_AWAY: u16 = 1001;
