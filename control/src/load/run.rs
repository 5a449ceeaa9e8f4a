//! A run from beginning to end: everybody joins, the clock is left to settle, a window is measured, everybody leaves. The CPU
//! of the server is that of the window alone; what is lost is counted until everything has come that will.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use ringmain_dataplane::io::give_way;
use ringmain_shared::Now;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, sleep};

use super::client::World;
use super::crowd::{Crowd, Joins, Role};
use super::engine::{self, Order, Setup};
use super::options::{Options, Ramp};
use super::publisher::AUDIO_PACKETS_PER_SECOND;
use super::report::{JoinsFound, Load, Messages, Outcome, Received, Sent, Server, Step, Times, Window, round};
use super::secure::Identity;
use super::server::{self, Usage};
use super::tally::Tally;
use super::target::Target;
use super::wire::Tls;

/// Does what `options` ask for and prints what it found. Whether it found nothing wrong; fails when it cannot be done.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    options.check()?;
    let target = Target::find(&options.url, options.yes_really)?;
    raise_file_limit(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(Run::start(options, target)?.outcome())?;
    let text = if options.json { serde_json::to_string_pretty(&outcome)? + "\n" } else { outcome.to_string() };
    // A closed pipe is no failure of the run.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(outcome.passed)
}

struct Run<'o> {
    options: &'o Options,
    crowd: Crowd,
    /// Engines of those who stay; the one after them is for those who come and go.
    engines: usize,
    /// The numbers of those who stay, in the order in which they joined.
    subscribers: Vec<u32>,
    /// The server before anybody had joined.
    before: Option<Usage>,
    progress: Progress,
    outcome: Outcome,
}

/// A moment between which and another one things are measured.
struct Reading {
    at: Instant,
    tally: Tally,
    /// Of those who come and go.
    visitors: Tally,
    server: Option<Usage>,
    own: Usage,
    overflows: u64,
}

impl<'o> Run<'o> {
    fn start(options: &'o Options, target: Target) -> anyhow::Result<Self> {
        let identity = Identity::new(options.dtls, std::time::Instant::now())?;
        let before = options.server_pid.map(Usage::of).transpose();
        let before = before.map_err(|error| anyhow::anyhow!("--server-pid: cannot read the process: {error}"))?;
        let (happened, events) = unbounded_channel();
        let setup = Setup {
            identity: identity.clone(),
            seed: options.seed,
            verify: options.verify,
            drop: options.drop,
            gro: !options.no_gro,
            happened,
        };
        let tls = target.tls_name.as_deref().map(|name| Tls::new(name, options.insecure)).transpose()?;
        let engines = usize::from(options.threads);
        let mut handles = (0..engines).map(|_| engine::start(setup.clone())).collect::<Result<Vec<_>, _>>()?;
        if options.churn.is_some() {
            // Those who stay are measured: what it costs here that others join must not show there. A thread begins as lowered
            // as the one that starts it.
            give_way();
            handles.push(engine::start(setup)?);
        }
        let outcome = Outcome { server_url: target.url.clone(), load: Load::of(options), ..Outcome::default() };
        let world = World { target, tls, identity, seed: options.seed, bare: options.bare, chatter: options.chatter() };
        let crowd = Crowd::new(world, handles, events);
        Ok(Self { options, crowd, engines, subscribers: Vec::new(), before, progress: Progress::new(), outcome })
    }

    async fn outcome(mut self) -> anyhow::Result<Outcome> {
        self.join().await?;
        if !self.options.joins_only && self.outcome.problems.is_empty() {
            match self.options.ramp {
                Some(ramp) => self.ramp(ramp).await?,
                None => self.measure().await?,
            }
        }
        self.progress.clear();
        self.crowd.disperse().await;
        self.outcome.passed = self.outcome.problems.is_empty();
        Ok(self.outcome)
    }

    /// Publishers join first, as somebody must be there to be seen.
    async fn join(&mut self) -> anyhow::Result<()> {
        let options = self.options;
        let (began, server) = (self.crowd.now(), self.usage()?);
        let (publishers, subscribers) = (self.roles(options.publishers, true), self.roles(options.subscribers, false));
        let progress = &mut self.progress;
        let total = options.rooms * (options.publishers + options.subscribers);
        let mut tell = |crowd: &Crowd| progress.tell(|| format!("{} of {total} clients are in", crowd.present()));
        self.crowd.join_all(&publishers, options.join_rate, &mut tell).await;
        self.subscribers = self.crowd.join_all(&subscribers, options.join_rate, &mut tell).await;
        // With media, most of what the server did meanwhile was not joining.
        let used = self.usage()?.zip(server).filter(|_| options.joins_only).map(|(now, before)| now.since(&before));
        // First packets may still be under way.
        let comes_later = options.publishers > 0 || options.data_channel.is_some();
        if !options.joins_only && comes_later && options.subscribers > 0 {
            self.settle(Duration::from_secs_f64(options.warmup)).await;
        }
        let over = self.crowd.joins.last.since(began);
        self.outcome.joins = JoinsFound::of(&self.crowd.joins, over, used.as_ref());
        self.take_failures(0);
        if self.outcome.joins.count == 0 {
            self.problem("nobody got in".to_owned());
        }
        Ok(())
    }

    async fn measure(&mut self) -> anyhow::Result<()> {
        let duration = Duration::from_secs_f64(self.options.duration);
        if let Some(rate) = self.options.churn {
            let begin = self.read().await?;
            self.watch(duration).await?;
            let end = self.read().await?;
            self.outcome.without_churn = Some(self.window(&begin, &end, &end.tally, &Tail::default()));

            let (before, failed) = (self.crowd.joins.clone(), self.crowd.joins.failed);
            let begin = self.read().await?;
            self.churn(rate, duration).await;
            let end = self.read().await?;
            let joins = Joins {
                count: self.crowd.joins.count - before.count,
                took: self.crowd.joins.took.since(&before.took),
                first_media: self.crowd.joins.first_media.since(&before.first_media),
                failed: self.crowd.joins.failed - before.failed,
                reasons: Vec::new(),
                last: Now::default(),
                profile: before.profile,
            };
            self.outcome.churn = Some(JoinsFound::of(&joins, end.at - begin.at, None));
            self.take_failures(failed);
            return self.conclude(begin, end).await;
        }
        let failed = self.crowd.joins.failed;
        let begin = self.read().await?;
        self.watch(duration).await?;
        let end = self.read().await?;
        self.take_failures(failed);
        self.conclude(begin, end).await
    }

    /// Ends the media, waits for the last of it, and writes down the window between two readings.
    async fn conclude(&mut self, begin: Reading, end: Reading) -> anyhow::Result<()> {
        self.crowd.order_all(|| Order::VerifyAll);
        sleep(DRAIN / 3).await;
        self.crowd.order_all(|| Order::Finish);
        self.settle(DRAIN).await;
        let last = self.crowd.report(0..self.engines).await;
        let tail = Tail {
            packets: never_came(&last.made, &last.newest),
            messages: never_came(&last.messages_made, &last.messages_newest),
        };
        let window = self.window(&begin, &end, &last.tally, &tail);
        self.judge(&window);
        self.outcome.window = Some(window);
        Ok(())
    }

    fn judge(&mut self, window: &Window) {
        let Window { received, .. } = window;
        let missing = received.streams_expected.saturating_sub(received.streams);
        if received.streams_expected > 0 && received.packets == 0 {
            self.problem("nothing arrived".to_owned());
        } else if missing > 0 {
            self.problem(format!("of {missing} streams nothing arrived"));
        }
        if received.loss_percent > self.options.loss_max {
            self.problem(format!("{} % is lost, more than {} %", received.loss_percent, self.options.loss_max));
        }
        if received.spoilt > 0 {
            self.problem(format!("{} packets arrived other than they were sent", received.spoilt));
        }
        if let Some(messages) = &window.messages {
            let Messages { channels, channels_expected, conversations, conversations_expected, lost, spoilt, .. } =
                messages;
            let silent = channels_expected.saturating_sub(*channels);
            if silent > 0 {
                self.problem(format!("to {silent} clients the server has opened no channel"));
            }
            let unheard = conversations_expected.saturating_sub(*conversations);
            if unheard > 0 {
                self.problem(format!("between {unheard} pairs no message arrived"));
            }
            if *lost > 0 || *spoilt > 0 {
                self.problem(format!("{lost} messages did not arrive, {spoilt} arrived other than they were sent"));
            }
        }
        if received.packets > 0 && received.verified == 0 {
            self.problem("no packet could be checked".to_owned());
        }
    }

    /// Up in steps of a half until one fails, then between the last two.
    async fn ramp(&mut self, ramp: Ramp) -> anyhow::Result<()> {
        let mut value = match ramp {
            Ramp::Subscribers => self.options.subscribers,
            Ramp::Fps => self.options.fps,
        };
        let (mut highest, mut lowest_failed) = (None::<u32>, None::<u32>);
        if !self.options.json {
            let what = if ramp == Ramp::Fps { "fps" } else { "viewers" };
            self.progress.line(&format!("{what:>7}"));
        }
        for _ in 0..RAMP_STEPS_MAX {
            let failed = self.crowd.joins.failed;
            match ramp {
                Ramp::Subscribers => self.set_subscribers(value).await,
                Ramp::Fps => self.crowd.order_all(|| Order::SetFps(value)),
            }
            self.settle(Duration::from_secs_f64(self.options.warmup)).await;
            let begin = self.read().await?;
            self.watch(Duration::from_secs_f64(self.options.duration)).await?;
            let end = self.read().await?;
            let window = self.window(&begin, &end, &end.tally, &Tail::default());
            let starved = self.sent_too_little(ramp, value, &window);
            let held = !starved
                && window.received.streams >= window.received.streams_expected
                && window.received.packets > 0
                && window.received.loss_percent < RAMP_LOSS_MAX_PERCENT
                && window.delay.p99_us < RAMP_P99_MAX_US
                && self.crowd.joins.failed == failed;
            let step = Step { value, held, starved, window };
            if !self.options.json {
                self.progress.line(&step.to_string());
            }
            self.outcome.steps.push(step);
            if held {
                highest = highest.max(Some(value));
            } else {
                lowest_failed = Some(lowest_failed.map_or(value, |failed| failed.min(value)));
            }
            value = match (highest, lowest_failed) {
                (Some(held), None) => held.saturating_add((held / 2).max(1)),
                // Good enough to five percent.
                (Some(held), Some(failed)) if failed - held > (held / 20).max(1) => held + (failed - held) / 2,
                (None, Some(failed)) if failed > 1 => failed / 2,
                _ => break,
            };
            if self.too_many(ramp, value) {
                break;
            }
        }
        self.outcome.highest = highest;
        match highest {
            Some(value) if !self.options.json => self.progress.line(&format!("highest that held: {value}")),
            Some(_) => {}
            None => self.problem("no step held".to_owned()),
        }
        Ok(())
    }

    /// Whether this load had too little of its machine to send what the step is about: that says nothing of the server.
    fn sent_too_little(&self, ramp: Ramp, value: u32, window: &Window) -> bool {
        let publishers = f64::from(self.options.publishers) * f64::from(self.options.rooms);
        let fps = if ramp == Ramp::Fps { value } else { self.options.fps };
        let (sent, rate) = match fps {
            0 => (window.sent.packets, f64::from(AUDIO_PACKETS_PER_SECOND)),
            _ => (window.sent.frames, f64::from(fps)),
        };
        (sent as f64) < RAMP_SENT_MIN * publishers * rate * window.seconds
    }

    /// More than the numbers of clients, or a frame rate that no clock keeps.
    fn too_many(&self, ramp: Ramp, value: u32) -> bool {
        match ramp {
            Ramp::Subscribers => u64::from(value) * u64::from(self.options.rooms) > 100_000,
            Ramp::Fps => value > 10_000,
        }
    }

    /// Has subscribers join or leave until each room has `count`.
    async fn set_subscribers(&mut self, count: u32) {
        let wanted = (count * self.options.rooms) as usize;
        for number in self.subscribers.split_off(wanted.min(self.subscribers.len())) {
            self.crowd.leave(number);
        }
        // Roles go round the rooms, so that the first so many are the same number in each.
        let roles = self.roles(count, false);
        let more = roles.get(self.subscribers.len()..).unwrap_or_default();
        let progress = &mut self.progress;
        let tell = |crowd: &Crowd| progress.tell(|| format!("{} clients are in", crowd.present()));
        let joined = self.crowd.join_all(more, self.options.join_rate, tell).await;
        self.subscribers.extend(joined);
    }

    /// Subscribers join at `rate`, stay a moment and leave.
    async fn churn(&mut self, rate: f64, duration: Duration) {
        let options = self.options;
        let roles: Vec<Role> =
            self.roles(1, false).into_iter().map(|role| Role { engine: self.engines, ..role }).collect();
        let interval = Duration::from_secs_f64(1.0 / rate.max(0.001));
        let stay = Duration::from_secs_f64(options.churn_stay);
        let (begin, mut next) = (Instant::now(), Instant::now());
        // Numbers, and when each was first seen to be in.
        let mut visitors: Vec<(u32, Option<Instant>)> = Vec::new();
        let mut count = 0_usize;
        while begin.elapsed() < duration {
            while Instant::now() >= next {
                let mut role = roles[count % roles.len()].clone();
                if options.churn_apart {
                    role.room = format!("load-{}-visitor-{count}", options.seed);
                }
                visitors.push((self.crowd.join(&role), None));
                next += interval;
                count += 1;
            }
            self.crowd.watch_until(next.min(Instant::now() + CHURN_GLANCE), false).await;
            visitors.retain_mut(|(number, since)| {
                if self.crowd.is_in(*number) {
                    let is_over = since.get_or_insert_with(Instant::now).elapsed() >= stay;
                    if is_over {
                        self.crowd.leave(*number);
                    }
                    return !is_over;
                }
                // One that failed is gone; one that is still joining has not been in.
                since.is_none()
            });
            let joins = &self.crowd.joins;
            self.progress.tell(|| format!("{} joined, {} failed", joins.count, joins.failed));
        }
        visitors.iter().for_each(|(number, _)| self.crowd.leave(*number));
    }

    /// Lets things happen for a while.
    async fn settle(&mut self, duration: Duration) {
        self.crowd.watch_until(Instant::now() + duration, false).await;
    }

    /// The same, and shows what happens.
    async fn watch(&mut self, duration: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + duration;
        if !self.progress.is_shown {
            self.settle(duration).await;
            return Ok(());
        }
        let mut last = self.read().await?;
        while Instant::now() < end {
            self.crowd.watch_until(end.min(Instant::now() + Duration::from_secs(1)), false).await;
            let now = self.read().await?;
            let window = self.window(&last, &now, &now.tally, &Tail::default());
            let left = end.saturating_duration_since(Instant::now()).as_secs();
            self.progress.tell(|| {
                let Received { packets_per_second, lost, .. } = window.received;
                let server =
                    window.server.map_or_else(String::new, |server| format!(", server {} %", server.cpu_percent));
                let p99 = window.delay.p99_us / 1000.0;
                format!("{packets_per_second:.0} packets/s, {lost} lost, p99 {p99:.2} ms{server}, {left} s to go")
            });
            last = now;
        }
        Ok(())
    }

    async fn read(&self) -> anyhow::Result<Reading> {
        let tally = self.crowd.report(0..self.engines).await.tally;
        let visitors =
            self.crowd.report(self.engines..self.engines + usize::from(self.options.churn.is_some())).await.tally;
        let own = Usage::of(std::process::id())?;
        Ok(Reading {
            at: Instant::now(),
            tally,
            visitors,
            server: self.usage()?,
            own,
            overflows: server::buffer_overflows(),
        })
    }

    fn usage(&self) -> anyhow::Result<Option<Usage>> {
        let usage = self.options.server_pid.map(Usage::of).transpose();
        usage.map_err(|error| anyhow::anyhow!("the server has ended: {error}"))
    }

    /// What happened between two readings; `whole` and `tail` are for what takes longer to show.
    fn window(&self, begin: &Reading, end: &Reading, whole: &Tally, tail: &Tail) -> Window {
        let seconds = (end.at - begin.at).as_secs_f64().max(1e-9);
        let tally = end.tally.since(&begin.tally);
        let (streams, channels, conversations) = (whole.streams, whole.channels, whole.conversations);
        let whole = whole.since(&begin.tally);
        let (publishers, rooms) = (u64::from(self.options.publishers), u64::from(self.options.rooms));
        let subscribers = self.subscribers.len() as u64;
        let streams_expected = publishers * subscribers * self.options.contents().len() as u64;
        // Publishers hear each other, on the channels that they opened themselves.
        let conversations_expected = publishers * (subscribers + rooms * publishers.saturating_sub(1));
        let visitors = end.visitors.datagrams - begin.visitors.datagrams;
        let forwarded = tally.datagrams + visitors;
        let server = end.server.zip(begin.server).zip(self.before);
        Window {
            seconds: round(seconds, 3),
            sent: Sent::of(&tally),
            received: Received { streams, streams_expected, ..Received::of(&tally, &whole, tail.packets, seconds) },
            delay: Times::of(&whole.delay),
            messages: self.options.data_channel.map(|per_second| Messages {
                channels,
                channels_expected: subscribers + rooms * publishers,
                conversations,
                conversations_expected: conversations_expected * u64::from(per_second > 0),
                ..Messages::of(&tally, &whole, tail.messages)
            }),
            server: server.map(|((now, then), before)| {
                Server::of(&now.since(&then), &before, seconds, forwarded, self.subscribers.len())
            }),
            load_cpu_percent: round(end.own.since(&begin.own).cpu().as_secs_f64() * 100.0 / seconds, 1),
            buffer_overflows: end.overflows - begin.overflows,
        }
    }

    /// `count` in each room, going round the rooms.
    fn roles(&self, count: u32, is_publisher: bool) -> Vec<Role> {
        let options = self.options;
        let contents = if is_publisher && !options.joins_only { options.contents() } else { Vec::new() };
        let room = |index: u32| format!("load-{}-{index}", options.seed);
        (0..count * options.rooms)
            .map(|index| Role {
                room: room(index % options.rooms),
                contents: contents.clone(),
                is_publisher,
                engine: index as usize % self.engines,
            })
            .collect()
    }

    /// Failures beyond the first `known` are problems.
    fn take_failures(&mut self, known: u64) {
        let failed = self.crowd.joins.failed - known;
        if failed > 0 {
            let reasons = self.crowd.joins.reasons.join("; ");
            self.problem(format!("{failed} clients failed: {reasons}"));
        }
    }

    fn problem(&mut self, problem: String) {
        self.outcome.problems.push(problem);
    }
}

impl Load {
    fn of(options: &Options) -> Self {
        Self {
            rooms: options.rooms,
            publishers_per_room: options.publishers,
            subscribers_per_room: options.subscribers,
            fps: options.fps,
            packets_per_frame: options.packets,
            payload_size: options.size,
            uneven: options.uneven,
            spacing_us: options.spacing,
            audio: options.audio,
            messages_per_second: options.data_channel,
            message_size: options.message_size,
            gro: !options.no_gro,
            drop_percent: options.drop,
            seed: options.seed,
        }
    }
}

/// Packets at the end of each stream that no later packet shows to be lost. Every packet of the end is opened, so the newest
/// is known by its number.
fn never_came(made: &[(u32, u64)], newest: &[(u32, u64)]) -> u64 {
    let made: std::collections::HashMap<u32, u64> = made.iter().copied().collect();
    let missing = |&(source, number): &(u32, u64)| made.get(&source).map_or(0, |made| made.saturating_sub(number + 1));
    newest.iter().map(missing).sum()
}

/// What never came after the last that did.
#[derive(Default)]
struct Tail {
    packets: u64,
    messages: u64,
}

/// A line on the terminal that is written over and over; nothing where there is no terminal.
struct Progress {
    is_shown: bool,
    told: Option<Instant>,
}

impl Progress {
    fn new() -> Self {
        Self { is_shown: std::io::stderr().is_terminal(), told: None }
    }

    fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.is_shown && self.told.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) {
            self.told = Some(Instant::now());
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", text());
        }
    }

    fn clear(&mut self) {
        if self.told.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    /// Prints a line that stays.
    fn line(&mut self, text: &str) {
        self.clear();
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

/// A client has a TCP socket and up to two UDP sockets.
fn raise_file_limit(options: &Options) -> anyhow::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let clients = u64::from(options.rooms) * u64::from(options.publishers + options.subscribers);
    let per_client = if options.bare { 2 } else { 3 };
    let visitors = options.churn.unwrap_or(0.0) * (options.churn_stay + 1.0);
    let needed = (clients + visitors as u64) * per_client + 100;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if needed <= soft || setrlimit(Resource::RLIMIT_NOFILE, needed, needed.max(hard)).is_ok() {
        return Ok(());
    }
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    anyhow::ensure!(
        needed <= hard,
        "{clients} clients need {needed} open files, and {hard} are allowed: raise `ulimit -n`, or load less"
    );
    Ok(())
}

const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// From the last packet sent to the last that can still come, repairs included.
const DRAIN: Duration = Duration::from_millis(450);
const CHURN_GLANCE: Duration = Duration::from_millis(5);
const RAMP_STEPS_MAX: usize = 40;
const RAMP_LOSS_MAX_PERCENT: f64 = 0.1;
const RAMP_P99_MAX_US: f64 = 50_000.0;
const RAMP_SENT_MIN: f64 = 0.9;
