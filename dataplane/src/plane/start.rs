//! How the data plane starts: sockets of media are bound first; then threads begin, each with its ends of the rings.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use core_affinity::CoreId;
use ringmain_shared::event::{Hello, WorkerInfo};
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::limits::{COMMAND_RING, EVENT_RING, HANDSHAKE_RING, RELAY_RING, STREAM_RING};
use rtrb::RingBuffer;

use super::mesh::Mesh;
use super::orders::{Port, Threads};
use super::router::Router;
use super::stream_loop::{self, StreamOrder, Workers};
use super::watchdog::Watchdog;
use super::{Plane, Settings, StartError, Waker, handshake_loop, worker_loop};
use crate::handshake::{FromHandshake, HandshakeConfig, Handshaker, Identity, ToHandshake};
use crate::io::{Link, WakeHandle, open, socket};
use crate::srtp;
use crate::stream::{FromStream, ToStream};
use crate::turn::Ledger;
use crate::worker::relay::RelayItem;
use crate::worker::{FixedSockets, Worker, WorkerCommand, WorkerSettings};

impl Plane {
    /// Binds the sockets, then starts the threads.
    pub fn start(settings: Settings) -> Result<(Self, Hello), StartError> {
        let cores = cores(&settings)?;
        let worker_count = if settings.workers == 0 { cores.len().max(1) } else { usize::from(settings.workers) };
        let identity = Identity::generate().map_err(|error| StartError(format!("no DTLS certificate: {error}")))?;
        tracing::info!("SRTP is sealed by {}", srtp::backend());
        let opened = (0..worker_count).map(|index| open_link(&settings, index));
        let (links, infos) = opened.collect::<Result<(Vec<_>, Vec<_>), _>>()?;

        let mut beginning = Beginning::new(settings, &links)?;
        let handshakers = beginning.start_handshakers(&identity)?;
        let workers = beginning.start_workers(links, &cores, &handshakers)?;
        let streams = beginning.start_streams()?;
        let router = Router::new(workers.len() as u16, handshakers.len());
        let hello = Hello { fingerprint: identity.fingerprint(), workers: infos };
        let Beginning { start, bell, watchdog, handles, listening, .. } = beginning;
        let threads = Threads::new(workers, handshakers, streams, watchdog);
        Ok((Self { threads, router, bell, start, handles, listening }, hello))
    }
}

/// What threads begin with.
struct Beginning {
    settings: Settings,
    start: Instant,
    /// Time since 1970 at the start.
    unix: Duration,
    /// Control's.
    bell: WakeHandle,
    /// By worker.
    wakes: Vec<WakeHandle>,
    /// The stream thread's, if there is to be one.
    stream_wake: Option<WakeHandle>,
    to_handshake: Mesh<ToHandshake>,
    from_handshake: Mesh<FromHandshake>,
    relays: Mesh<RelayItem>,
    to_streams: Mesh<ToStream>,
    from_streams: Mesh<FromStream>,
    watchdog: Watchdog,
    handles: Vec<JoinHandle<()>>,
    /// Where the stream thread listens.
    listening: Vec<SocketAddr>,
}

impl Beginning {
    fn new(settings: Settings, links: &[Box<dyn Link>]) -> Result<Self, StartError> {
        let stream_wake = if settings.streams.is_empty() { None } else { Some(detached_wake()?) };
        let (workers, handshakers, streams) =
            (links.len(), usize::from(settings.handshake_threads.max(1)), stream_wake.iter().len());
        Ok(Self {
            settings,
            start: Instant::now(),
            unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            bell: detached_wake()?,
            wakes: links.iter().map(|link| link.wake_handle()).collect(),
            stream_wake,
            to_handshake: Mesh::new(workers, handshakers, HANDSHAKE_RING),
            from_handshake: Mesh::new(handshakers, workers, HANDSHAKE_RING),
            relays: Mesh::new(workers, workers, RELAY_RING),
            to_streams: Mesh::new(workers, streams, STREAM_RING),
            from_streams: Mesh::new(streams, workers, STREAM_RING),
            watchdog: Watchdog::default(),
            handles: Vec::new(),
            listening: Vec::new(),
        })
    }

    fn start_handshakers(&mut self, identity: &Identity) -> Result<Vec<Port<ToHandshake>>, StartError> {
        let start = self.start;
        let mut handshakers = Vec::new();
        for index in 0..usize::from(self.settings.handshake_threads.max(1)) {
            let (orders, commands) = RingBuffer::new(COMMAND_RING);
            let (events, told) = RingBuffer::new(EVENT_RING);
            let config = HandshakeConfig { identity: identity.clone() };
            let core = Handshaker::new(config, u64::from_le_bytes(seed()?))
                .map_err(|error| StartError(format!("no DTLS: {error}")))?;
            let name = format!("handshake-{index}");
            let ports = handshake_loop::Ports {
                index: index as u16,
                pulse: self.watchdog.watch(name.clone()),
                commands,
                events,
                bell: self.bell.clone(),
                from_workers: self.to_handshake.consumers(index),
                to_workers: self.from_handshake.producers(index),
                workers: self.wakes.clone(),
            };
            let thread = spawn(name, None, move || handshake_loop::run(core, ports, start))?;
            handshakers.push(Port::new(orders, told, Waker::Thread(thread.thread().clone())));
            self.handles.push(thread);
        }
        Ok(handshakers)
    }

    fn start_workers(
        &mut self,
        links: Vec<Box<dyn Link>>,
        cores: &[CoreId],
        handshakers: &[Port<ToHandshake>],
    ) -> Result<Vec<Port<WorkerCommand>>, StartError> {
        let start = self.start;
        let ledger = Arc::new(Ledger::new(seed()?));
        let mut workers = Vec::new();
        for (index, (link, wake)) in links.into_iter().zip(self.wakes.clone()).enumerate() {
            let (orders, commands) = RingBuffer::new(COMMAND_RING);
            let (events, told) = RingBuffer::new(EVENT_RING);
            let core = Worker::new(worker_settings(&self.settings, index, self.unix)?, Arc::clone(&ledger));
            let name = format!("worker-{index}");
            let ports = worker_loop::Ports {
                pulse: self.watchdog.watch(name.clone()),
                commands,
                events,
                bell: self.bell.clone(),
                to_handshake: self.to_handshake.producers(index),
                from_handshake: self.from_handshake.consumers(index),
                handshakers: handshakers.iter().map(Port::waker).collect(),
                to_peers: self.relays.producers(index),
                from_peers: self.relays.consumers(index),
                peers: self.wakes.clone(),
                called: vec![false; self.wakes.len()],
                to_streams: self.to_streams.producers(index).pop().zip(self.stream_wake.clone()),
                from_streams: self.from_streams.consumers(index).pop(),
            };
            let core_id = cores.get(index % cores.len().max(1)).copied().filter(|_| self.settings.pin);
            let thread = spawn(name, core_id, move || worker_loop::run(core, link, ports, start))?;
            workers.push(Port::new(orders, told, Waker::Link(wake)));
            self.handles.push(thread);
        }
        Ok(workers)
    }

    /// None where there is nothing to listen for.
    fn start_streams(&mut self) -> Result<Option<Port<StreamOrder>>, StartError> {
        let Some(wake) = self.stream_wake.clone() else { return Ok(None) };
        let start = self.start;
        let (orders, commands) = RingBuffer::new(COMMAND_RING);
        let (events, told) = RingBuffer::new(EVENT_RING);
        let (core, listening) = stream_loop::open(&self.settings.streams, &wake).map_err(StartError)?;
        self.listening = listening;
        let ports = stream_loop::Ports {
            pulse: self.watchdog.watch("streams".into()),
            orders: commands,
            events,
            bell: self.bell.clone(),
            wake: wake.clone(),
            to_workers: Workers::new(self.from_streams.producers(0), self.wakes.clone()),
            from_workers: self.to_streams.consumers(0),
        };
        self.handles.push(spawn("streams".into(), None, move || stream_loop::run(core, ports, start))?);
        Ok(Some(Port::new(orders, told, Waker::Link(wake))))
    }
}

/// The cores that workers may have.
fn cores(settings: &Settings) -> Result<Vec<CoreId>, StartError> {
    let mut cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.retain(|core| settings.cpus.is_empty() || settings.cpus.contains(&core.id));
    if cores.is_empty() && !settings.cpus.is_empty() {
        return Err(StartError(format!("none of the cores {:?} may be used by this process", settings.cpus)));
    }
    Ok(cores)
}

fn detached_wake() -> Result<WakeHandle, StartError> {
    WakeHandle::detached().map_err(|error| StartError(format!("no eventfd: {error}")))
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
    for (number, &address) in settings.turn.iter().enumerate() {
        let is_alternate = settings.turn[..number].iter().any(|first| first.ip() == address.ip());
        sockets.push(socket::bind_shared(address).map_err(|error| turn_refused(address, is_alternate, &error))?);
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

/// Why there is no socket for TURN. One at a second port of an address is for NAT behaviour discovery.
fn turn_refused(address: SocketAddr, is_alternate: bool, error: &io::Error) -> StartError {
    let hint = match is_alternate {
        false => "Is another TURN server running?",
        true => {
            "This port is for NAT behaviour discovery (RFC 5780): choose another by --turn-alt-port, or alt-listening-port in a file of \
             coturn's; or do without, by --turn-nat-discovery=false or no-rfc5780"
        }
    };
    StartError(format!("cannot listen for TURN on {address} (UDP): {error}. {hint}"))
}

/// A thread whose death ends the process: a worker that is gone without a word would strand its calls.
fn spawn(
    name: String,
    core: Option<CoreId>,
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

/// What the settings say of one worker.
fn worker_settings(settings: &Settings, index: usize, unix: Duration) -> Result<WorkerSettings, StartError> {
    Ok(WorkerSettings {
        index: WorkerIndex(index as u16),
        seed: seed()?,
        unix_nanos_at_start: unix.as_nanos() as u64,
        publishers: settings.publishers,
        audio_interval: settings.audio_interval,
        sockets: FixedSockets {
            media: settings.bind.len() as u16,
            turn: settings.turn.len() as u16,
            turn_on_media: settings.turn_on_media,
        },
    })
}

/// What nobody can guess, from the operating system.
pub(super) fn seed<const N: usize>() -> Result<[u8; N], StartError> {
    let mut seed = [0; N];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| StartError("no random numbers from the system".into()))?;
    Ok(seed)
}
