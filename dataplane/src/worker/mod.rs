//! One worker: everything that happens on one core, between the clock being read and the ring being entered again.
//!
//! A turn, in order: what other threads sent ([`commands`], [`relay`]), what came from the network ([`ingress`]), what goes to
//! subscribers ([`forwarding`]), what publishers are owed ([`feedback`]), what subscribers asked for again ([`repair`]), deadlines
//! ([`timers`]), counters ([`stats`]). Clients of TURN are served in between ([`turn`]). Bytes, values and `now` come in; bytes go out
//! through [`Transmit`], everything else through the [`Outbox`]. Nothing here waits, locks, logs or reads a clock. Threads and rings are in
//! [`crate::plane`].

mod commands;
mod feedback;
mod forwarding;
mod ingress;
pub mod names;
pub mod outbox;
pub mod relay;
mod repair;
mod stats;
mod streams;
mod timers;
mod turn;
mod turn_peers;
mod turn_streams;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use ringmain_shared::event::WorkerStats;
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::{DropReason, Now};
use slotmap::SlotMap;

use crate::buf::{RX_BATCH_MAX, RxBatch};
use crate::forward::ready::Ready;
use crate::forward::subscription::{Subscription, SubscriptionKey};
use crate::forward::track::{BATCH_MAX, Track, TrackKey};
use crate::io::{LinkCounters, Transmit};
use crate::random::Random;
use crate::receive::NtpClock;
use crate::transport::{PublisherSettings, Transport, TransportKey};
use crate::turn::{Ledger, Turn};

pub use commands::WorkerCommand;
use ingress::EXPECTED;
use names::Names;
pub use outbox::Outbox;
use timers::Timers;
use turn_streams::TurnStreams;

/// Arrivals in one feedback packet.
const ARRIVALS_MAX: usize = 1024;

/// Time without media, handshakes or orders after which a worker naps. Longer than the pauses of a microphone that sends nothing
/// while nobody speaks.
const LIVELY: Duration = Duration::from_secs(2);
/// Long enough for a score of checks where there are ten thousand peers, and nothing beside the seconds between them.
const NAP: Duration = Duration::from_millis(5);

/// What a worker is told once.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// Which one it is.
    pub index: WorkerIndex,
    /// Where its chance begins; from the operating system, or fixed in a test.
    pub seed: [u8; 32],
    /// Nanoseconds since 1970 at `Now(0)`.
    pub unix_nanos_at_start: u64,
    /// The same for every publisher.
    pub publishers: PublisherSettings,
    /// How often audio activity is told.
    pub audio_interval: Duration,
    /// What its link was opened with.
    pub sockets: FixedSockets,
}

/// The sockets that a worker's link was opened with, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FixedSockets {
    /// For media.
    pub media: u16,
    /// Behind them, for TURN's clients.
    pub turn: u16,
    /// TURN's clients come by those for media as well.
    pub turn_on_media: bool,
}

/// The core of a worker.
#[derive(Debug)]
pub struct Worker {
    settings: WorkerSettings,
    transports: SlotMap<TransportKey, Transport>,
    tracks: SlotMap<TrackKey, Track>,
    subscriptions: SlotMap<SubscriptionKey, Subscription>,
    names: Names,
    /// Tracks with packets that wait to be forwarded.
    touched: Vec<TrackKey>,
    /// The packets of the track whose turn it is.
    ready: Vec<Ready>,
    /// Publishers that something came from in this turn.
    fed: Vec<TransportKey>,
    /// Subscribers whose requests wait, the next one to be served first.
    repairing: VecDeque<TransportKey>,
    /// Subscriptions that need another look at their layer.
    unsettled: Vec<SubscriptionKey>,
    /// Transports that need another look at their timer.
    unscheduled: Vec<TransportKey>,
    timers: Timers,
    random: Random,
    clock: NtpClock,
    stats: WorkerStats,
    drops: [u64; DropReason::COUNT],
    stats_at: Now,
    audio_at: Now,
    /// Datagrams that peers send who do nothing, since the start.
    idle: u64,
    /// When anything else last came, from the network or from another thread.
    lively: Now,
    /// The last batch was full: there may be more behind it, and a flood from peers that do nothing is not to wait.
    more_waits: bool,
    /// The last audio interval had somebody in it.
    was_loud: bool,
    /// Arrivals on their way into a feedback packet; too large for the stack.
    arrivals: Box<ArrayVec<(u16, Option<Now>), ARRIVALS_MAX>>,
    times: Box<ArrayVec<Option<Now>, ARRIVALS_MAX>>,
    outbox: Outbox,
    turn: Option<Box<Turn>>,
    /// What a server of TURN counts by.
    ledger: Arc<Ledger>,
    /// Datagrams of other workers' clients and of TCP since what waits was last forwarded.
    brought: usize,
    turn_streams: TurnStreams,
}

impl Worker {
    /// A worker without transports. If it is a server of TURN, it counts together with others who are given the same ledger.
    pub fn new(settings: WorkerSettings, ledger: Arc<Ledger>) -> Self {
        Self {
            transports: SlotMap::with_key(),
            tracks: SlotMap::with_key(),
            subscriptions: SlotMap::with_key(),
            names: Names::default(),
            touched: Vec::with_capacity(BATCH_MAX),
            ready: Vec::with_capacity(BATCH_MAX),
            fed: Vec::with_capacity(BATCH_MAX),
            repairing: VecDeque::with_capacity(BATCH_MAX),
            unsettled: Vec::new(),
            unscheduled: Vec::new(),
            timers: Timers::default(),
            random: Random::from_seed(settings.seed),
            clock: NtpClock::new(settings.unix_nanos_at_start),
            stats: WorkerStats { worker: settings.index.0, ..WorkerStats::default() },
            drops: [0; DropReason::COUNT],
            stats_at: Now(0),
            audio_at: Now(0),
            idle: 0,
            lively: Now(0),
            more_waits: false,
            was_loud: false,
            arrivals: Box::default(),
            times: Box::default(),
            outbox: Outbox::default(),
            turn: None,
            ledger,
            brought: 0,
            turn_streams: TurnStreams::default(),
            settings,
        }
    }

    /// One turn: takes in the batch, forwards, answers, does what is due. What is for other threads is in the outbox afterwards.
    pub fn turn(&mut self, now: Now, rx: &mut RxBatch, out: &mut dyn Transmit) {
        self.stats.turns += 1;
        let (idle, datagrams, is_idle) = (self.idle, rx.len(), self.nap(now).is_some());
        self.begin_links(now, out);
        // What other workers sent before this turn does not wait for a datagram to come.
        self.forward_pending(now, out);
        let mut at = 0;
        while at < rx.len() {
            let end = rx.len().min(at + BATCH_MAX);
            for index in at..end {
                if is_idle && index % EXPECTED == 0 {
                    self.expect_peers(rx, index);
                }
                let path = rx.path(index);
                if let Err(reason) = self.journey(path, rx.bytes_mut(index), now, out) {
                    self.count(reason);
                }
            }
            self.forward_pending(now, out);
            at = end;
        }
        if self.idle - idle < datagrams as u64 {
            self.lively = now;
        }
        self.more_waits = datagrams >= RX_BATCH_MAX;
        self.answer_publishers(now, out);
        self.repair(now, out);
        self.run_timers(now, out);
        // A layer may have died by the clock: those who had it want another one.
        if !self.unsettled.is_empty() {
            self.settle(now);
            self.answer_publishers(now, out);
        }
        self.run_turn(now, out);
    }

    /// When the next turn is due even if nothing comes; long ago, when something was left for it.
    pub fn next_deadline(&self) -> Now {
        if !self.repairing.is_empty() {
            return Now(0);
        }
        let told = self.stats_at.min(self.audio_at);
        let turn = self.turn.as_ref().map(|turn| turn.next_deadline());
        [self.timers.next(), turn].into_iter().flatten().fold(told, Now::min)
    }

    /// How long the thread had better sleep before it waits for the network again. While thousands of peers do nothing but check
    /// whether we are there, waking up for each check, and for each peer's timer, would cost several times what is to be done.
    /// Whoever joins, and media that begins, may wait as long, once: then there is no napping for a while.
    pub fn nap(&self, now: Now) -> Option<Duration> {
        (now.since(self.lively) > LIVELY && !self.more_waits).then_some(NAP)
    }

    /// What this turn has for other threads.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Counts a packet that was not used.
    pub fn count(&mut self, reason: DropReason) {
        if let Some(counter) = self.drops.get_mut(reason as usize) {
            *counter += 1;
        }
    }

    /// Counts several.
    pub fn count_many(&mut self, reason: DropReason, packets: u64) {
        if let Some(counter) = self.drops.get_mut(reason as usize) {
            *counter += packets;
        }
    }

    /// The counters, with those of the link.
    pub fn stats(&self, link: &LinkCounters) -> WorkerStats {
        self.gather(link)
    }
}
