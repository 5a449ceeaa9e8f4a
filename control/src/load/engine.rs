//! The thread that moves packets: it owns the sockets of many connections, waits for them and for the next deadline with
//! epoll, and takes orders from the signalling side through a queue. Each connection has a socket of its own, because a
//! server tells clients apart by their addresses.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use ringmain_shared::Now;
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use super::chance::Chance;
use super::ice::Credentials;
use super::inbox::{self, Inbox};
use super::messages::{Messages, Talk};
use super::publisher::{Publisher, TrackSpec};
use super::secure::Identity;
use super::subscriber::{MediaMap, Subscriber, is_rtcp};
use super::tally::Tally;
use super::transport::{Arrived, Transport, TransportSpec};

/// Which of a client's two peer connections, numbered as the dialect's `trickle` numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Side {
    Publisher = 0,
    Subscriber = 1,
}

/// A connection by its client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    pub(super) client: u32,
    pub(super) side: Side,
}

/// A connection to be opened.
pub(super) struct Opening {
    pub(super) key: Key,
    /// Bound, and known to the server by its description.
    pub(super) socket: UdpSocket,
    pub(super) transport: TransportSpec,
    pub(super) media: MediaSpec,
    pub(super) talk: Talk,
}

/// What a connection is for.
pub(super) enum MediaSpec {
    /// Only to be there.
    Nothing,
    Send(Vec<TrackSpec>),
    Receive(MediaMap),
}

/// What the engine is told.
pub(super) enum Order {
    Open(Box<Opening>),
    /// Another address of the server.
    Candidate(Key, SocketAddr),
    /// The server has described the subscriber connection again.
    Described(Key, Credentials, MediaMap),
    Close(Key),
    SetFps(u32),
    /// Open every packet from now on.
    VerifyAll,
    /// Publishers end their tracks.
    Finish,
    Report(oneshot::Sender<Report>),
    Stop,
}

/// What the engine tells.
#[derive(Debug)]
pub(super) enum Happened {
    /// Keys are there, media may flow; by this SRTP profile.
    Up(Key, Now, &'static str),
    /// The first media packet.
    Media(Key, Now),
    /// The connection is gone.
    Failed(Key, String),
    /// The engine is.
    EngineEnded(String),
}

/// The state of one engine.
#[derive(Default)]
pub(super) struct Report {
    pub(super) tally: Tally,
    /// What each publishing connection's tracks have sent, by source.
    pub(super) made: Vec<(u32, u64)>,
    /// The newest verified packet of each stream that is received: its source, and its number there.
    pub(super) newest: Vec<(u32, u64)>,
    /// The same of messages on data channels.
    pub(super) messages_made: Vec<(u32, u64)>,
    pub(super) messages_newest: Vec<(u32, u64)>,
}

impl Report {
    pub(super) fn add(&mut self, other: Report) {
        self.tally.add(&other.tally);
        self.made.extend(other.made);
        self.newest.extend(other.newest);
        self.messages_made.extend(other.messages_made);
        self.messages_newest.extend(other.messages_newest);
    }
}

/// What every connection of an engine shares.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) identity: Arc<Identity>,
    pub(super) seed: u64,
    /// One packet in so many is opened.
    pub(super) verify: u64,
    /// Percent of media that both ends throw away, as a bad network would.
    pub(super) drop: f64,
    /// Have trains delivered whole.
    pub(super) gro: bool,
    pub(super) happened: UnboundedSender<Happened>,
}

/// The signalling side's end of an engine.
#[derive(Clone)]
pub(super) struct Handle {
    orders: mpsc::Sender<Order>,
    wake: Arc<EventFd>,
}

impl Handle {
    pub(super) fn order(&self, order: Order) {
        // An engine that has ended has nothing to do.
        if self.orders.send(order).is_ok() {
            let _ = self.wake.write(1);
        }
    }

    /// A handle of no engine: orders arrive at the receiver.
    #[cfg(test)]
    pub(super) fn of_nobody() -> (Self, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel();
        (Self { orders, wake: Arc::new(EventFd::new().expect("an eventfd")) }, receiver)
    }

    pub(super) async fn report(&self) -> Report {
        let (sender, receiver) = oneshot::channel();
        self.order(Order::Report(sender));
        receiver.await.unwrap_or_default()
    }
}

/// Starts an engine.
pub(super) fn start(setup: Setup) -> io::Result<Handle> {
    let (sender, orders) = mpsc::channel();
    let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
    let handle = Handle { orders: sender, wake: wake.clone() };
    let mut engine = Engine::new(setup, orders, wake)?;
    std::thread::Builder::new().name("load-engine".into()).spawn(move || {
        if let Err(error) = engine.run() {
            engine.tell(Happened::EngineEnded(error.to_string()));
        }
    })?;
    Ok(handle)
}

struct Engine {
    setup: Setup,
    orders: mpsc::Receiver<Order>,
    wake: Arc<EventFd>,
    epoll: Epoll,
    timer: TimerFd,
    /// What the timer is set to.
    set: Option<Now>,
    connections: Vec<Option<Connection>>,
    slots: HashMap<Key, usize>,
    free: Vec<usize>,
    timers: BinaryHeap<Reverse<(Now, usize)>>,
    inbox: Inbox,
    /// What is counted at once; what streams count by themselves is added in a report.
    tally: Tally,
    verify_all: bool,
}

struct Connection {
    socket: UdpSocket,
    connected_to: Option<SocketAddr>,
    /// The earliest entry among the timers.
    armed: Option<Now>,
    peer: Peer,
}

/// A connection but for its socket.
struct Peer {
    key: Key,
    transport: Transport,
    media: Media,
    has_media: bool,
    messages: Messages,
}

enum Media {
    Nothing,
    /// Not before the connection is up.
    WillSend(Vec<TrackSpec>),
    Sends(Publisher),
    Receives(Subscriber),
}

impl Engine {
    fn new(setup: Setup, orders: mpsc::Receiver<Order>, wake: Arc<EventFd>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        Ok(Self {
            setup,
            orders,
            wake,
            epoll,
            timer,
            set: None,
            connections: Vec::new(),
            slots: HashMap::new(),
            free: Vec::new(),
            timers: BinaryHeap::new(),
            inbox: Inbox::new(),
            tally: Tally::default(),
            verify_all: false,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        loop {
            self.set_timer()?;
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..count] {
                match event.data() {
                    WAKE => {
                        let _ = self.wake.read();
                        if !self.take_orders() {
                            return Ok(());
                        }
                    }
                    TIMER => {
                        // What is due is looked up below, whoever woke us.
                        self.set = None;
                        let _ = self.timer.wait();
                    }
                    slot => self.receive(slot as usize),
                }
            }
            self.fire();
        }
    }

    /// Says whether to go on.
    fn take_orders(&mut self) -> bool {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Open(opening) => {
                    let key = opening.key;
                    if let Err(error) = self.open(*opening) {
                        self.tell(Happened::Failed(key, error.to_string()));
                    }
                }
                Order::Candidate(key, candidate) => self.with(key, |connection, _| {
                    connection.peer.transport.ice.add_candidate(candidate);
                }),
                Order::Described(key, remote, map) => {
                    let now = self.setup.identity.now();
                    self.with(key, |connection, _| {
                        connection.peer.transport.ice.restart(remote, now);
                        if let Media::Receives(subscriber) = &mut connection.peer.media {
                            subscriber.set_map(map);
                        }
                    });
                }
                Order::Close(key) => {
                    let now = self.setup.identity.now();
                    self.with(key, |connection, tally| {
                        let Connection { socket, peer, .. } = connection;
                        peer.transport.close(now, &mut |bytes| send(socket, bytes, &mut tally.send_errors));
                    });
                    self.close(key);
                }
                Order::SetFps(fps) => self.each(|connection, _, _| {
                    match &mut connection.peer.media {
                        Media::Sends(publisher) => publisher.set_fps(fps),
                        Media::WillSend(specs) => specs.iter_mut().for_each(|spec| spec.set_fps(fps)),
                        Media::Nothing | Media::Receives(_) => {}
                    };
                }),
                Order::VerifyAll => {
                    self.verify_all = true;
                    self.each(|connection, _, _| {
                        if let Media::Receives(subscriber) = &mut connection.peer.media {
                            subscriber.verify_all();
                        }
                    });
                }
                Order::Finish => {
                    self.each(|connection, tally, clock| connection.peer.finish(&connection.socket, tally, clock))
                }
                Order::Report(sender) => drop(sender.send(self.report())),
                Order::Stop => return false,
            }
        }
        true
    }

    fn open(&mut self, opening: Opening) -> io::Result<()> {
        let Opening { key, socket, transport, media, talk } = opening;
        socket.set_nonblocking(true)?;
        if self.setup.gro {
            inbox::enable_gro(&socket);
        }
        let lane = u64::from(key.client) << 1 | key.side as u64;
        let chance = Chance::new(self.setup.seed, OPENING_LANE + lane);
        let media = match media {
            MediaSpec::Nothing => Media::Nothing,
            MediaSpec::Send(specs) => Media::WillSend(specs),
            MediaSpec::Receive(map) => {
                let mut subscriber = Subscriber::new(map, self.setup.verify, self.setup.drop, chance.clone());
                if self.verify_all {
                    subscriber.verify_all();
                }
                Media::Receives(subscriber)
            }
        };
        let now = self.setup.identity.now();
        let transport = Transport::new(transport, self.setup.identity.clone(), chance, now);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, slot as u64))?;
        let peer = Peer { key, transport, media, has_media: false, messages: Messages::new(talk) };
        self.connections[slot] = Some(Connection { socket, connected_to: None, armed: None, peer });
        self.slots.insert(key, slot);
        self.arm(slot);
        Ok(())
    }

    fn receive(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        let outcome = connection.receive(&mut self.inbox, &mut self.tally, &self.setup);
        self.end_if_failed(slot, outcome);
        self.arm(slot);
    }

    /// Does everything that is due.
    fn fire(&mut self) {
        let now = self.setup.identity.now();
        while let Some(&Reverse((at, slot))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { continue };
            // The entry is of an earlier deadline, or of a connection that had this place before.
            if connection.armed != Some(at) {
                continue;
            }
            connection.armed = None;
            let outcome = connection.handle_timeout(now, &mut self.tally, &self.setup);
            self.end_if_failed(slot, outcome);
            self.arm(slot);
        }
    }

    fn arm(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        let at = connection.peer.next_deadline();
        if connection.armed.is_none_or(|armed| at < armed) {
            connection.armed = Some(at);
            self.timers.push(Reverse((at, slot)));
        }
    }

    fn set_timer(&mut self) -> io::Result<()> {
        let next = self.timers.peek().map(|&Reverse((at, _))| at);
        if next == self.set {
            return Ok(());
        }
        self.set = next;
        match next {
            // Zero would disarm it.
            Some(at) => {
                let pause = at.since(self.setup.identity.now()).max(Duration::from_nanos(1));
                let expiration = Expiration::OneShot(TimeSpec::from_duration(pause));
                self.timer.set(expiration, TimerSetTimeFlags::empty())?;
            }
            None => self.timer.unset()?,
        }
        Ok(())
    }

    fn report(&self) -> Report {
        let mut report = Report { tally: self.tally.clone(), ..Report::default() };
        for connection in self.connections.iter().flatten() {
            let messages = &connection.peer.messages;
            messages.count(&mut report.tally);
            report.messages_made.extend(messages.made());
            report.messages_newest.extend(messages.newest());
            match &connection.peer.media {
                Media::Sends(publisher) => report.made.extend(publisher.made()),
                Media::Receives(subscriber) => {
                    subscriber.count(&mut report.tally);
                    report.newest.extend(subscriber.newest());
                }
                Media::Nothing | Media::WillSend(_) => {}
            }
        }
        report
    }

    fn with(&mut self, key: Key, act: impl FnOnce(&mut Connection, &mut Tally)) {
        let Some(&slot) = self.slots.get(&key) else { return };
        if let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) {
            act(connection, &mut self.tally);
        }
        self.arm(slot);
    }

    fn each(&mut self, act: impl Fn(&mut Connection, &mut Tally, &dyn Fn() -> Now)) {
        let identity = self.setup.identity.clone();
        for connection in self.connections.iter_mut().flatten() {
            act(connection, &mut self.tally, &|| identity.now());
        }
    }

    fn end_if_failed(&mut self, slot: usize, outcome: Result<(), String>) {
        let Err(why) = outcome else { return };
        let key = self.connections.get(slot).and_then(Option::as_ref).map(|connection| connection.peer.key);
        if let Some(key) = key {
            self.close(key);
            self.tell(Happened::Failed(key, why));
        }
    }

    fn close(&mut self, key: Key) {
        let Some(slot) = self.slots.remove(&key) else { return };
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::take) else { return };
        if let Media::Receives(subscriber) = &connection.peer.media {
            // Its packets have been; its streams are no more.
            let streams = self.tally.streams;
            subscriber.count(&mut self.tally);
            self.tally.streams = streams;
        }
        let _ = self.epoll.delete(connection.socket.as_fd());
        self.free.push(slot);
    }

    fn tell(&self, happened: Happened) {
        let _ = self.setup.happened.send(happened);
    }
}

impl Connection {
    fn receive(&mut self, inbox: &mut Inbox, tally: &mut Tally, setup: &Setup) -> Result<(), String> {
        let Self { socket, peer, .. } = self;
        loop {
            let (mut outcome, mut now) = (Ok(()), None);
            let more = inbox.receive(socket, |datagram| {
                // Read once the call has returned, for all that it brought.
                let now = *now.get_or_insert_with(|| setup.identity.now());
                if outcome.is_ok() {
                    outcome = peer.handle_datagram(socket, datagram, now, tally, setup);
                }
            });
            outcome?;
            // An error is an ICMP message about something sent before; ICE tells when nobody is there for good.
            if !more.unwrap_or(false) {
                return Ok(());
            }
        }
    }

    fn handle_timeout(&mut self, now: Now, tally: &mut Tally, setup: &Setup) -> Result<(), String> {
        // A connected socket is cheaper to send on, and deaf to strangers.
        let remote = self.peer.transport.ice.choose(now);
        if let Some(remote) = remote
            && self.connected_to != Some(remote)
        {
            self.socket.connect(remote).map_err(|error| format!("cannot reach {remote}: {error}"))?;
            self.connected_to = Some(remote);
        }
        self.peer.handle_timeout(&self.socket, now, tally, setup)
    }
}

impl Peer {
    fn next_deadline(&self) -> Now {
        let media = match &self.media {
            Media::Sends(publisher) => Some(publisher.next_deadline()),
            Media::Receives(subscriber) => subscriber.next_deadline(),
            Media::Nothing | Media::WillSend(_) => None,
        };
        [media, self.messages.next_deadline()].into_iter().flatten().fold(self.transport.next_deadline(), Now::min)
    }

    fn handle_datagram(
        &mut self,
        socket: &UdpSocket,
        datagram: &[u8],
        now: Now,
        tally: &mut Tally,
        setup: &Setup,
    ) -> Result<(), String> {
        match self.transport.handle_datagram(datagram, now, &mut |bytes| send(socket, bytes, &mut tally.send_errors))? {
            Arrived::Handled => {}
            Arrived::Up => self.begin(now, setup),
            Arrived::Media => {
                self.handle_media(socket, datagram, now, tally, setup);
                return Ok(());
            }
        }
        self.converse(socket, now, tally)
    }

    /// What data channels have brought, and what is to be said on them.
    fn converse(&mut self, socket: &UdpSocket, now: Now, tally: &mut Tally) -> Result<(), String> {
        let mut errors = 0;
        let mut send = |bytes: &[u8]| send(socket, bytes, &mut errors);
        self.transport.carry(now, &mut send)?;
        if let Some(channels) = self.transport.channels() {
            self.messages.converse(channels, now, tally)?;
            self.transport.carry(now, &mut send)?;
        }
        tally.send_errors += errors;
        Ok(())
    }

    fn handle_media(&mut self, socket: &UdpSocket, packet: &[u8], now: Now, tally: &mut Tally, setup: &Setup) {
        // Media may overtake the end of the handshake; the server will be asked for what is missing.
        let Some(srtp) = self.transport.srtp() else { return };
        match &mut self.media {
            Media::Receives(subscriber) if is_rtcp(packet) => subscriber.handle_rtcp(packet, now, srtp, tally),
            Media::Receives(subscriber) => {
                subscriber.handle_rtp(packet, now, srtp, tally);
                if !std::mem::replace(&mut self.has_media, true) {
                    let _ = setup.happened.send(Happened::Media(self.key, now));
                }
            }
            Media::Sends(publisher) if is_rtcp(packet) => {
                let mut errors = 0;
                publisher.handle_rtcp(packet, srtp, tally, &mut |bytes| send(socket, bytes, &mut errors));
                tally.send_errors += errors;
            }
            Media::Sends(_) | Media::WillSend(_) | Media::Nothing => {}
        }
    }

    fn handle_timeout(&mut self, socket: &UdpSocket, now: Now, tally: &mut Tally, setup: &Setup) -> Result<(), String> {
        let mut errors = 0;
        let mut send = |bytes: &[u8]| send(socket, bytes, &mut errors);
        if self.transport.handle_timeout(now, &mut send)? {
            self.begin(now, setup);
        }
        if let Some(srtp) = self.transport.srtp() {
            match &mut self.media {
                Media::Sends(publisher) => {
                    publisher.handle_timeout(now, &|| setup.identity.now(), srtp, tally, &mut send);
                }
                Media::Receives(subscriber) => subscriber.handle_timeout(now, srtp, tally, &mut send),
                Media::Nothing | Media::WillSend(_) => {}
            }
        }
        tally.send_errors += errors;
        self.converse(socket, now, tally)
    }

    fn finish(&mut self, socket: &UdpSocket, tally: &mut Tally, clock: &dyn Fn() -> Now) {
        let mut errors = 0;
        self.messages.finish();
        if let (Media::Sends(publisher), Some(srtp)) = (&mut self.media, self.transport.srtp()) {
            publisher.finish(clock, srtp, tally, &mut |bytes| send(socket, bytes, &mut errors));
        }
        tally.send_errors += errors;
    }

    fn begin(&mut self, now: Now, setup: &Setup) {
        if let Media::WillSend(specs) = &mut self.media {
            self.media = Media::Sends(Publisher::new(std::mem::take(specs), setup.seed, setup.drop, now));
        }
        let profile = self.transport.srtp().map_or("none", |srtp| srtp.profile());
        let _ = setup.happened.send(Happened::Up(self.key, now, profile));
    }
}

fn send(socket: &UdpSocket, bytes: &[u8], errors: &mut u64) {
    *errors += u64::from(socket.send(bytes).is_err());
}

const WAKE: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;
/// Sockets read before deadlines are looked at again.
const EVENTS_MAX: usize = 64;
/// Keeps the numbers of connections apart from those of tracks.
const OPENING_LANE: u64 = 1 << 40;
