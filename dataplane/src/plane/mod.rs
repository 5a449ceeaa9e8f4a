//! The data plane as a whole: its threads, and the rings between them. Here, and nowhere below, clocks are read and threads sleep.
//!
//! | thread | loop | sleeps in |
//! | --- | --- | --- |
//! | worker, one per core | [`worker_loop`] | its link |
//! | handshake, one or a few | [`handshake_loop`] | `park`, until unparked or a deadline |
//! | streams, if there are TCP listeners | [`stream_loop`] | epoll, by `mio` |
//!
//! Every pair that talks has a ring of its own each way (single producer, single consumer); the values in them are plain. [`start`]
//! makes them all. The [`router`] knows which worker has what, so that control names things by id only. What finds a thread's ring full
//! waits in [`orders`] of its own. The [`watchdog`] tells when a thread no longer turns.

mod certificates;
mod handshake_loop;
mod mesh;
mod orders;
mod pace;
mod router;
mod start;
mod stream_loop;
mod streams;
mod watchdog;
mod worker_loop;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringmain_shared::event::Event;
use ringmain_shared::{Command, Now};

use crate::io::{LinkChoice, WakeHandle};
pub use crate::stream::classify::Protocols;
use crate::transport::PublisherSettings;
pub use certificates::{CertificateFiles, DtlsCertificateFiles};
use orders::Threads;
use router::Router;
pub use streams::{DtlsSettings, HttpSink, HttpStream, StreamLimits, StreamListener, StreamSettings};

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
    /// Gives an order. With too many waiting already it comes back; what waits for a thread that stands still does not count,
    /// so that the others go on.
    #[expect(clippy::result_large_err, reason = "a failed push gives the value back")]
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

/// Time since the start.
pub(crate) fn now(start: Instant) -> Now {
    Now(start.elapsed().as_nanos() as u64)
}
