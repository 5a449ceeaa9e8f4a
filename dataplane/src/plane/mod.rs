//! The data plane as a whole: its threads, and the rings between them. Here, and nowhere below, clocks are read and threads sleep.
//!
//! | thread | loop | sleeps in |
//! | --- | --- | --- |
//! | worker, one per core | [`worker_loop`] | its link |
//! | handshake, one or a few | [`handshake_loop`] | `park`, until unparked or a deadline |
//! | streams, if there are TCP listeners | [`stream_loop`] | epoll, by `mio` |
//!
//! Every pair that talks has a ring of its own each way (single producer, single consumer); the values in them are plain. The
//! [`router`] knows which worker has what, so that control names things by id only. What finds a thread's ring full waits in
//! [`orders`] of its own. The [`watchdog`] tells when a thread no longer turns.

mod certificates;
mod handshake_loop;
mod orders;
mod pace;
mod router;
mod stream_loop;
mod streams;
mod watchdog;
mod worker_loop;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fmt, io};

use ringmain_shared::event::{Event, Hello, WorkerInfo};
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::limits::{COMMAND_RING, EVENT_RING, HANDSHAKE_RING, RELAY_RING, STREAM_RING};
use ringmain_shared::{Command, Now};
use rtrb::{Consumer, Producer, RingBuffer};

use crate::handshake::{HandshakeConfig, Handshaker, Identity, ToHandshake};
use crate::io::{Link, LinkChoice, WakeHandle, open, socket};
use crate::srtp;
pub use crate::stream::classify::Protocols;
use crate::stream::{FromStream, ToStream};
use crate::transport::PublisherSettings;
use crate::turn::Ledger;
use crate::worker::relay::RelayItem;
use crate::worker::{FixedSockets, Worker, WorkerSettings};
pub use certificates::CertificateFiles;
use orders::{Port, Threads};
use router::Router;
use stream_loop::Workers;
pub use streams::{DtlsSettings, HttpSink, HttpStream, StreamLimits, StreamListener, StreamSettings};
use watchdog::Watchdog;

/// How the data plane is to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many workers; 0 is one per core.
    pub workers: u16,
    /// Each worker stays on a core of its own.
    pub pin: bool,
    /// The cores to use, by number; empty is all that the process may use.
    pub cpus: Vec<usize>,
    /// Local addresses; each worker has one socket on each.
    pub bind: Vec<IpAddr>,
    /// UDP port of the first worker; each further one has the next. 0 lets the system choose, for tests.
    pub base_port: u16,
    /// Where every worker listens for TURN over UDP; the kernel spreads clients over the workers. Port 0 is for tests.
    pub turn: Vec<SocketAddr>,
    /// TURN is served on the media ports too, as far as first bytes and methods tell it from ICE (RFC 7983).
    pub turn_on_media: bool,
    /// What moves the packets.
    pub link: LinkChoice,
    /// Threads for DTLS and SCTP; at least one.
    pub handshake_threads: u16,
    /// The same for every publisher.
    pub publishers: PublisherSettings,
    /// How often audio activity is told.
    pub audio_interval: Duration,
    /// What is listened for on TCP.
    pub streams: StreamSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: 0,
            pin: true,
            cpus: Vec::new(),
            bind: vec![IpAddr::from([127, 0, 0, 1])],
            base_port: 5000,
            turn: Vec::new(),
            turn_on_media: false,
            link: LinkChoice::Auto,
            handshake_threads: 1,
            publishers: PublisherSettings { rate_bps_max: 0, remb_start_bps: 1_500_000, audio_threshold: 40 },
            audio_interval: Duration::from_secs(1),
            streams: StreamSettings::default(),
        }
    }
}

/// A running data plane, as control holds it.
pub struct Plane {
    threads: Threads,
    router: Router,
    bell: WakeHandle,
    start: Instant,
    handles: Vec<JoinHandle<()>>,
    listening: Vec<SocketAddr>,
}

/// What ends a thread's sleep.
#[derive(Clone)]
pub(crate) enum Waker {
    /// A worker's.
    Link(WakeHandle),
    /// A handshake thread's.
    Thread(std::thread::Thread),
}

impl Waker {
    pub(crate) fn wake(&self) {
        match self {
            Waker::Link(handle) => handle.wake(),
            Waker::Thread(thread) => thread.unpark(),
        }
    }
}

/// The data plane cannot start; the text says what to change.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

impl Plane {
    /// Binds the sockets, then starts the threads.
    pub fn start(settings: Settings) -> Result<(Self, Hello), StartError> {
        let mut cores = core_affinity::get_core_ids().unwrap_or_default();
        cores.retain(|core| settings.cpus.is_empty() || settings.cpus.contains(&core.id));
        if cores.is_empty() && !settings.cpus.is_empty() {
            return Err(StartError(format!("none of the cores {:?} may be used by this process", settings.cpus)));
        }
        let worker_count = if settings.workers == 0 { cores.len().max(1) } else { usize::from(settings.workers) };
        let handshaker_count = usize::from(settings.handshake_threads.max(1));
        let identity = Identity::generate().map_err(|error| StartError(format!("no DTLS certificate: {error}")))?;
        let bell = WakeHandle::detached().map_err(|error| StartError(format!("no eventfd: {error}")))?;

        tracing::info!("SRTP is sealed by {}", srtp::backend());
        let mut links: Vec<Box<dyn Link>> = Vec::new();
        let mut infos = Vec::new();
        for index in 0..worker_count {
            let (link, info) = open_link(&settings, index)?;
            links.push(link);
            infos.push(info);
        }
        let start = Instant::now();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wakes: Vec<WakeHandle> = links.iter().map(|link| link.wake_handle()).collect();
        let mut to_handshake = Mesh::new(worker_count, handshaker_count, HANDSHAKE_RING);
        let mut from_handshake = Mesh::new(handshaker_count, worker_count, HANDSHAKE_RING);
        let mut relays: Mesh<RelayItem> = Mesh::new(worker_count, worker_count, RELAY_RING);
        let mut watchdog = Watchdog::default();
        let worker_pulses: Vec<_> = (0..worker_count).map(|index| watchdog.watch(format!("worker-{index}"))).collect();
        let mut handles = Vec::new();
        let stream_wake = match settings.streams.is_empty() {
            true => None,
            false => Some(WakeHandle::detached().map_err(|error| StartError(format!("no eventfd: {error}")))?),
        };
        let mut to_streams: Mesh<ToStream> = Mesh::new(worker_count, stream_wake.iter().len(), STREAM_RING);
        let mut from_streams: Mesh<FromStream> = Mesh::new(stream_wake.iter().len(), worker_count, STREAM_RING);

        let mut handshakers: Vec<Port<ToHandshake>> = Vec::new();
        for index in 0..handshaker_count {
            let (orders, commands) = RingBuffer::new(COMMAND_RING);
            let (events, told) = RingBuffer::new(EVENT_RING);
            let seed = seed().map_err(|error| StartError(format!("no random numbers: {error}")))?;
            let core = Handshaker::new(
                HandshakeConfig { identity: identity.clone() },
                u64::from_le_bytes(seed[..8].try_into().unwrap_or_default()),
            )
            .map_err(|error| StartError(format!("no DTLS: {error}")))?;
            let name = format!("handshake-{index}");
            let ports = handshake_loop::Ports {
                index: index as u16,
                pulse: watchdog.watch(name.clone()),
                commands,
                events,
                bell: bell.clone(),
                from_workers: to_handshake.consumers(index),
                to_workers: from_handshake.producers(index),
                workers: wakes.clone(),
            };
            let thread = spawn(name, None, move || handshake_loop::run(core, ports, start))?;
            handshakers.push(Port::new(orders, told, Waker::Thread(thread.thread().clone())));
            handles.push(thread);
        }

        let ledger = seed().map_err(|error| StartError(format!("no random numbers: {error}")))?;
        let ledger = Arc::new(Ledger::new(ledger));
        let mut workers = Vec::new();
        for ((index, link), pulse) in links.into_iter().enumerate().zip(worker_pulses) {
            let (orders, commands) = RingBuffer::new(COMMAND_RING);
            let (events, told) = RingBuffer::new(EVENT_RING);
            let mut core = Worker::new(WorkerSettings {
                index: WorkerIndex(index as u16),
                seed: seed().map_err(|error| StartError(format!("no random numbers: {error}")))?,
                unix_nanos_at_start: unix.as_nanos() as u64,
                publishers: settings.publishers,
                audio_interval: settings.audio_interval,
                sockets: FixedSockets {
                    media: settings.bind.len() as u16,
                    turn: settings.turn.len() as u16,
                    turn_on_media: settings.turn_on_media,
                },
            });
            core.share_ledger(Arc::clone(&ledger));
            let ports = worker_loop::Ports {
                pulse,
                commands,
                events,
                bell: bell.clone(),
                to_handshake: to_handshake.producers(index),
                from_handshake: from_handshake.consumers(index),
                handshakers: handshakers.iter().map(Port::waker).collect(),
                to_peers: relays.producers(index),
                from_peers: relays.consumers(index),
                peers: wakes.clone(),
                called: vec![false; worker_count],
                to_streams: to_streams.producers(index).pop().zip(stream_wake.clone()),
                from_streams: from_streams.consumers(index).pop(),
            };
            let core_id = cores.get(index % cores.len().max(1)).copied().filter(|_| settings.pin);
            let thread = spawn(format!("worker-{index}"), core_id, move || worker_loop::run(core, link, ports, start))?;
            workers.push(Port::new(orders, told, Waker::Link(wakes[index].clone())));
            handles.push(thread);
        }
        let router = Router::new(workers.len() as u16, handshaker_count);
        let hello = Hello { fingerprint: identity.fingerprint(), workers: infos };
        let mut streams = None;
        let mut listening = Vec::new();
        if let Some(wake) = stream_wake {
            let (orders, commands) = RingBuffer::new(COMMAND_RING);
            let (events, told) = RingBuffer::new(EVENT_RING);
            let (core, addresses) = stream_loop::open(&settings.streams, &wake).map_err(StartError)?;
            let ports = stream_loop::Ports {
                pulse: watchdog.watch("streams".into()),
                orders: commands,
                events,
                bell: bell.clone(),
                wake: wake.clone(),
                to_workers: Workers::new(from_streams.producers(0), wakes.clone()),
                from_workers: to_streams.consumers(0),
            };
            handles.push(spawn("streams".into(), None, move || stream_loop::run(core, ports, start))?);
            streams = Some(Port::new(orders, told, Waker::Link(wake)));
            listening = addresses;
        }
        let threads = Threads::new(workers, handshakers, streams, watchdog);
        Ok((Self { threads, router, bell, start, handles, listening }, hello))
    }

    #[expect(clippy::result_large_err, reason = "a failed push gives the value back")]
    /// Gives an order. With too many waiting already it comes back; what waits for a thread that stands still does not count,
    /// so that the others go on.
    pub fn send(&mut self, command: Command) -> Result<(), Command> {
        self.threads.push();
        if self.threads.is_behind() {
            return Err(command);
        }
        let Self { router, threads, .. } = self;
        router.route(command, &mut |routed| threads.give(routed));
        Ok(())
    }

    /// The next event, from each thread in turn. Call until `None` after [`event_fd`](Self::event_fd) became readable.
    pub fn try_recv(&mut self) -> Option<Event> {
        self.bell.silence();
        let Self { router, threads, .. } = self;
        threads.push();
        let event = threads.alarm(now(self.start)).or_else(|| threads.next_event())?;
        router.note(&event, &mut |routed| threads.give(routed));
        Some(event)
    }

    /// Orders that wait for a thread, and those that were lost because it stood still.
    pub fn waiting_and_lost(&self) -> (usize, u64) {
        self.threads.waiting_and_lost()
    }

    /// Where TCP is listened on, in the order of the settings, and then DTLS.
    pub fn stream_addresses(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Readable when events wait.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Ends the threads and waits for them.
    pub fn shutdown(self) {
        let Self { threads, handles, .. } = self;
        // A thread ends when the ring of its orders is abandoned.
        let wakers = threads.into_wakers();
        wakers.iter().for_each(Waker::wake);
        for thread in handles {
            let _ = thread.join();
        }
    }
}

/// A ring from each of one kind of thread to each of another.
struct Mesh<T> {
    /// By sender, then receiver.
    producers: Vec<Vec<Option<Producer<T>>>>,
    /// By receiver, then sender.
    consumers: Vec<Vec<Option<Consumer<T>>>>,
}

impl<T> Mesh<T> {
    fn new(senders: usize, receivers: usize, capacity: usize) -> Self {
        let mut producers: Vec<Vec<_>> = (0..senders).map(|_| Vec::new()).collect();
        let mut consumers: Vec<Vec<_>> = (0..receivers).map(|_| Vec::new()).collect();
        for from in &mut producers {
            for to in &mut consumers {
                let (producer, consumer) = RingBuffer::new(capacity);
                from.push(Some(producer));
                to.push(Some(consumer));
            }
        }
        Self { producers, consumers }
    }

    fn producers(&mut self, sender: usize) -> Vec<Producer<T>> {
        self.producers.get_mut(sender).into_iter().flatten().filter_map(Option::take).collect()
    }

    fn consumers(&mut self, receiver: usize) -> Vec<Consumer<T>> {
        self.consumers.get_mut(receiver).into_iter().flatten().filter_map(Option::take).collect()
    }
}

fn open_link(settings: &Settings, index: usize) -> Result<(Box<dyn Link>, WorkerInfo), StartError> {
    let port = match settings.base_port {
        0 => 0,
        base => u16::try_from(usize::from(base) + index).map_err(|_| {
            StartError(format!(
                "worker {index} has no UDP port above {base}: lower the base port or the number of workers"
            ))
        })?,
    };
    let mut sockets = Vec::new();
    for &address in &settings.bind {
        let address = SocketAddr::new(address, port);
        let socket = socket::bind(address).map_err(|error| {
            StartError(format!("cannot listen for media on {address} (UDP): {error}. Is another server running? Choose another base port or bind address"))
        })?;
        sockets.push(socket);
    }
    for &address in &settings.turn {
        let socket = socket::bind_shared(address).map_err(|error| {
            StartError(format!("cannot listen for TURN on {address} (UDP): {error}. Is another TURN server running?"))
        })?;
        sockets.push(socket);
    }
    let bound: Vec<SocketAddr> = sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect();
    let (media, turn) = bound.split_at(settings.bind.len().min(bound.len()));
    let (addresses, turn) = (media.to_vec(), turn.to_vec());
    let opened = open(settings.link, sockets).map_err(|error| StartError(error.to_string()))?;
    if let Some(reason) = opened.fallback.filter(|_| index == 0) {
        tracing::warn!("io_uring is not used, media goes by recvmmsg/sendmmsg: {reason}");
    }
    let info = WorkerInfo { addresses, turn, link: opened.link.name().to_owned() };
    Ok((opened.link, info))
}

/// A thread whose death ends the process: a worker that is gone without a word would strand its calls.
fn spawn(
    name: String,
    core: Option<core_affinity::CoreId>,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let story = name.clone();
    std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            if let Some(core) = core
                && !core_affinity::set_for_current(core)
            {
                tracing::warn!("{story} could not be pinned to core {}", core.id);
            }
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err() {
                tracing::error!(
                    "{story} failed, which is a bug in Ringmain; the process ends so that it can be started anew"
                );
                std::process::abort();
            }
        })
        .map_err(|error| StartError(format!("cannot start a thread: {error}")))
}

fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| io::Error::other("the system's generator failed"))?;
    Ok(seed)
}

/// Time since the start.
pub(crate) fn now(start: Instant) -> Now {
    Now(start.elapsed().as_nanos() as u64)
}
