//! The sockets of a stream thread: listeners, clients, and the peers and servers that their bytes go to. What a connection's bytes mean
//! is [`Connection`]'s; which worker hears of it is decided here.
//!
//! A client of TURN goes to the worker that its address chooses, so that its data connections (RFC 6062) meet its allocation. A client
//! of ICE goes to the worker that its first check names. HTTP is carried on through a pair of sockets, TLS taken off.

mod accept;
mod dtls;
mod ending;
mod meter;
mod relay;
mod settings;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::net::{TcpListener, UnixStream};
use mio::{Interest, Registry, Token};
use ringmain_shared::event::StreamStats;
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::turn::TurnTransport;
use ringmain_shared::{Now, Source};

use super::DtlsCertificateFiles;
use super::stream_loop::{StreamOrder, Workers};
use crate::io::{Path, SocketIndex};
use crate::packet::stun::Message;
use crate::stream::admission::Admission;
pub use crate::stream::admission::StreamLimits;
use crate::stream::classify::{Protocol, TLS_HANDSHAKE};
use crate::stream::connection::{Arrived, Connection, End, Offer};
use crate::stream::queue::QUEUE_SIZE_MAX;
use crate::stream::{FromStream, StreamClient, StreamId, ToStream};
use dtls::{DtlsClient, DtlsListener};
use ending::LINGER;
pub use settings::{DtlsSettings, HttpSink, HttpStream, StreamListener, StreamSettings};
use stream::{Role, Socket, Stream};

/// All sockets of a stream thread.
pub(crate) struct Streams {
    slots: Vec<Slot>,
    free: Vec<usize>,
    admission: Admission,
    /// Slots with more to read than their turn allowed, or that may read again.
    ready: VecDeque<usize>,
    /// Slots with bytes to write.
    unwritten: Vec<usize>,
    /// Connections whose TLS handshake waits for a later second.
    held_back: Vec<StreamId>,
    /// Listeners that found no descriptor for a connection.
    halted: Vec<usize>,
    /// Workers by the user fragments of their transports.
    names: HashMap<String, usize>,
    /// Clients of ICE.
    paths: HashMap<Path, usize>,
    /// Relays' listeners, by worker and request, and where they listen.
    relays: HashMap<(usize, u64), (usize, SocketAddr)>,
    /// Connections to peers on their way, by worker and request.
    connecting: HashMap<(usize, u64), usize>,
    /// How many have come to a listener of a relay and are not judged yet.
    unjudged: HashMap<(usize, u64), usize>,
    /// Connections of peers.
    peers: usize,
    peers_max: usize,
    http: Option<HttpSink>,
    /// What handshakes of DTLS are made with.
    dtls: Option<Arc<DtlsCertificateFiles>>,
    /// Clients of DTLS on their way.
    handshaking: Vec<usize>,
    stats: StreamStats,
    buffer: Vec<u8>,
    /// What one read turned out to be.
    news: Vec<News>,
}

struct Slot {
    generation: u32,
    content: Option<Content>,
}

enum Content {
    Listener(TcpListener, Listens),
    Stream(Box<Stream>),
    DtlsListener(Box<DtlsListener>),
    DtlsClient(Box<DtlsClient>),
}

#[derive(Clone)]
enum Listens {
    /// For clients.
    Clients(Arc<Offer>),
    /// For peers of a relay.
    Relay { worker: usize, request: u64 },
}

enum News {
    Speaks(Protocol),
    Message(Vec<u8>),
    Bytes(Vec<u8>),
}

impl Streams {
    pub(crate) fn new(limits: StreamLimits, http: Option<HttpSink>) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            admission: Admission::new(limits),
            ready: VecDeque::new(),
            unwritten: Vec::new(),
            held_back: Vec::new(),
            halted: Vec::new(),
            names: HashMap::new(),
            paths: HashMap::new(),
            relays: HashMap::new(),
            connecting: HashMap::new(),
            unjudged: HashMap::new(),
            peers: 0,
            peers_max: limits.peers_max,
            http,
            dtls: None,
            handshaking: Vec::new(),
            stats: StreamStats::default(),
            buffer: vec![0; READ_SIZE],
            news: Vec::new(),
        }
    }

    /// Something can be done without waiting.
    pub(in crate::plane) fn is_busy(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(in crate::plane) fn stats(&self) -> StreamStats {
        StreamStats { connections: self.admission.count() as u64, ice: self.paths.len() as u64, ..self.stats }
    }

    pub(in crate::plane) fn handle_order(&mut self, order: StreamOrder) {
        match order {
            StreamOrder::Name { ufrag, worker: WorkerIndex(worker) } => {
                self.names.insert(ufrag, usize::from(worker));
            }
            StreamOrder::Forget { ufrag } => {
                self.names.remove(&ufrag);
            }
        }
    }

    pub(in crate::plane) fn handle_readiness(
        &mut self,
        event: &Event,
        registry: &Registry,
        now: Now,
        workers: &mut Workers,
    ) {
        let slot = event.token().0;
        match self.slots.get_mut(slot).and_then(|slot| slot.content.as_mut()) {
            Some(Content::Listener(..)) => self.accept(slot, registry, now, workers),
            Some(Content::Stream(stream)) => {
                stream.may_read |= event.is_readable() || event.is_read_closed() || event.is_error();
                stream.may_write |= event.is_writable();
                if stream.may_write {
                    self.unwritten.push(slot);
                }
                self.ready.push_back(slot);
            }
            Some(Content::DtlsListener(_)) => self.ready.push_back(slot),
            Some(Content::DtlsClient(_)) | None => {}
        }
    }

    /// Reads and writes what can be, a bounded amount of each.
    pub(in crate::plane) fn go_on(&mut self, registry: &Registry, now: Now, workers: &mut Workers) {
        for _ in 0..self.ready.len() {
            let Some(slot) = self.ready.pop_front() else { break };
            match self.slots.get(slot).and_then(|slot| slot.content.as_ref()) {
                Some(Content::Listener(..)) => self.accept(slot, registry, now, workers),
                Some(Content::DtlsListener(_)) => self.read_dtls(slot, registry, now, workers),
                _ => self.read(slot, registry, now, workers),
            }
        }
        for slot in std::mem::take(&mut self.unwritten) {
            self.write(slot, registry, now, workers);
        }
    }

    /// Ends what is overdue, and accepts again where there were no descriptors.
    pub(in crate::plane) fn sweep(&mut self, registry: &Registry, now: Now, workers: &mut Workers) {
        for slot in 0..self.slots.len() {
            if let Some(end) = self.overdue_dtls(slot, now) {
                self.end_dtls(slot, end, registry, workers);
            }
            let Some(stream) = self.stream(slot) else { continue };
            let end = match stream.role {
                Role::Connecting { .. } | Role::Waiting | Role::Ending => {
                    (now.since(stream.since) > PATIENCE).then_some(End::Silent)
                }
                Role::Lingering => (now.since(stream.since) > LINGER).then_some(End::Closed),
                // Who is joined may be silent for as long as they like, but must read what a server says. What a peer sends waits at the
                // peer, until the kernel finds that nobody is there any more.
                Role::Joined { to } => {
                    let is_stuck = |end: &End| *end == End::Stuck && self.meter_between(slot, to).is_none();
                    stream.connection.overdue(now).filter(is_stuck)
                }
                _ => stream.connection.overdue(now),
            };
            if let Some(end) = end {
                self.end(slot, end, registry, now, workers);
            }
            self.tell_relayed(slot, workers);
        }
        self.release_held_back();
        for listener in std::mem::take(&mut self.halted) {
            self.accept(listener, registry, now, workers);
        }
    }

    pub(in crate::plane) fn handle_item(
        &mut self,
        worker: usize,
        item: ToStream,
        registry: &Registry,
        now: Now,
        workers: &mut Workers,
    ) {
        match item {
            ToStream::Message { id, bytes, held_until } => match self.find_dtls(id) {
                Some(client) => self.stats.queue_full += u64::from(!self.send_dtls(client, &bytes, held_until, now)),
                None => {
                    let slot = self.find(id);
                    if let Some(stream) = slot.and_then(|slot| self.stream_mut(slot)) {
                        stream.connection.hold(held_until);
                    }
                    if let Some(slot) = slot.filter(|_| held_until > now) {
                        self.prove(slot);
                    }
                    self.send(slot, &bytes, now);
                }
            },
            ToStream::Datagram { path, bytes } => self.send(self.paths.get(&path).copied(), &bytes, now),
            ToStream::ClosePath { path } => {
                if let Some(slot) = self.paths.remove(&path) {
                    self.finish(slot, now);
                }
            }
            ToStream::Close { id } => {
                if let Some(client) = self.find_dtls(id) {
                    self.end_dtls(client, End::Closed, registry, workers);
                } else if let Some(slot) = self.find(id) {
                    self.finish(slot, now);
                }
            }
            ToStream::Peer(order) => self.handle_peer_order(worker, order, registry, now, workers),
        }
    }

    /// A client is one that not anybody could be.
    fn prove(&mut self, slot: usize) {
        let Some(stream) = self.stream_mut(slot) else { return };
        if !std::mem::replace(&mut stream.proved, true)
            && let Some(address) = stream.counted
        {
            self.admission.prove(address);
        }
    }

    fn pair(&mut self, one: usize, other: usize) {
        for (slot, to) in [(one, other), (other, one)] {
            if let Some(stream) = self.stream_mut(slot) {
                stream.role = Role::Joined { to };
            }
            self.ready.push_back(slot);
        }
    }

    fn read(&mut self, slot: usize, registry: &Registry, now: Now, workers: &mut Workers) {
        if let Some(stream) = self.stream(slot)
            && let Role::Connecting { worker, request } = stream.role
        {
            return self.connected(slot, worker, request, registry, now, workers);
        }
        if self.stream(slot).is_some_and(|stream| stream.role == Role::Lingering) {
            return self.read_to_the_end(slot, registry, now, workers);
        }
        if !self.may_begin(slot, now) {
            return;
        }
        for _ in 0..READS_MAX {
            let room = match self.stream(slot) {
                Some(Stream { may_read: false, .. } | Stream { role: Role::Waiting | Role::Connecting { .. }, .. }) => {
                    return;
                }
                // As much as the other side can take in; it calls us when it has written.
                Some(Stream { role: Role::Joined { to }, .. }) => self.room_between(slot, *to),
                Some(_) => READ_SIZE,
                None => return,
            };
            if room == 0 {
                return;
            }
            let (buffer, news) = (self.buffer.get_mut(..room).unwrap_or_default(), &mut self.news);
            let Some(Content::Stream(stream)) = self.slots.get_mut(slot).and_then(|slot| slot.content.as_mut()) else {
                return;
            };
            let size = match stream.socket.read(buffer) {
                Ok(size) => size,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    stream.may_read = false;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            let bytes = buffer.get(..size).unwrap_or_default();
            let result = stream.connection.handle(bytes, now, &mut |arrived| {
                news.push(match arrived {
                    Arrived::Speaks(protocol) => News::Speaks(protocol),
                    Arrived::Message(bytes) => News::Message(bytes.to_vec()),
                    Arrived::Bytes(bytes) => News::Bytes(bytes.to_vec()),
                });
            });
            let mut news = std::mem::take(&mut self.news);
            let mut result = result;
            for item in news.drain(..) {
                result = self.handle_news(slot, item, registry, now, workers).and(result);
            }
            self.news = news;
            self.unwritten.push(slot);
            if let Err(end) = result {
                return self.end(slot, end, registry, now, workers);
            }
        }
        self.ready.push_back(slot);
    }

    fn handle_news(
        &mut self,
        slot: usize,
        news: News,
        registry: &Registry,
        now: Now,
        workers: &mut Workers,
    ) -> Result<(), End> {
        let id = self.id(slot);
        let count = workers.count().max(1);
        let Some(stream) = self.stream_mut(slot) else { return Ok(()) };
        match (news, stream.role) {
            (News::Speaks(Protocol::Turn), _) => {
                let worker = worker_of(stream.remote.ip(), count);
                if !workers.is_taking(worker) {
                    self.stats.refused += 1;
                    return Err(End::Closed);
                }
                stream.role = Role::Turn { worker };
                let transport = if stream.connection.is_tls() { TurnTransport::Tls } else { TurnTransport::Tcp };
                let client = StreamClient { remote: stream.remote, local: stream.local, transport };
                workers.give(worker, FromStream::Opened { id, client });
            }
            (News::Speaks(Protocol::Ice), Role::New) => {
                let path = Path { socket: ice_socket(slot), remote: stream.remote };
                stream.role = Role::Ice { path, worker: None };
                stream.socket.keep_little_unsent(ICE_UNSENT_MAX);
                self.paths.insert(path, slot);
            }
            (News::Speaks(Protocol::Http), _) => self.carry_http(slot, registry, now).map_err(|_| End::Unknown)?,
            (News::Speaks(_), _) => return Err(End::Unknown),
            (News::Message(bytes), Role::Turn { worker }) => workers.give(worker, FromStream::Message { id, bytes }),
            (News::Message(bytes), Role::Ice { path, worker }) => {
                let worker = match worker {
                    Some(worker) => worker,
                    None => {
                        let check = Message::parse(&bytes).map_err(|_| End::Unknown)?;
                        let (ufrag, _) = check.username().ok_or(End::Unknown)?;
                        let worker = *self.names.get(ufrag).ok_or(End::Unknown)?;
                        if !workers.is_taking(worker) {
                            self.stats.refused += 1;
                            return Err(End::Closed);
                        }
                        if let Some(stream) = self.stream_mut(slot) {
                            stream.role = Role::Ice { path, worker: Some(worker) };
                        }
                        self.prove(slot);
                        worker
                    }
                };
                workers.give(worker, FromStream::Datagram { path, bytes });
            }
            (News::Bytes(bytes), Role::Joined { to }) => {
                if let Some(other) = self.stream_mut(to) {
                    if !other.connection.send_bytes(&bytes, now) {
                        return Err(End::Stuck);
                    }
                    self.unwritten.push(to);
                    self.count_relayed(slot, to, bytes.len(), workers);
                }
            }
            // Behind the last request before two were joined, or after the end was decided.
            _ => self.stats.ignored += 1,
        }
        Ok(())
    }

    fn carry_http(&mut self, slot: usize, registry: &Registry, now: Now) -> io::Result<()> {
        let Some(sink) = self.http.clone() else { return Err(io::ErrorKind::Unsupported.into()) };
        let Some(stream) = self.stream(slot) else { return Ok(()) };
        let (local, remote, tls) = (stream.local, stream.remote, stream.connection.is_tls());
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let socket = Socket::Unix(UnixStream::from_std(ours));
        let server = Stream::new(socket, Connection::bytes_only(now), local, remote, now);
        let server = self.insert(Content::Stream(Box::new(server)), registry)?;
        self.pair(slot, server);
        self.prove(slot);
        sink(HttpStream { stream: theirs, remote, tls });
        Ok(())
    }

    fn send(&mut self, slot: Option<usize>, bytes: &[u8], now: Now) {
        let is_over = |&slot: &usize| self.stream(slot).is_some_and(|stream| stream.role == Role::Lingering);
        let Some(slot) = slot.filter(|slot| !is_over(slot)) else { return self.stats.ignored += 1 };
        let sent = self.stream_mut(slot).is_some_and(|stream| stream.connection.send(bytes, now));
        match sent {
            true => self.unwritten.push(slot),
            false => self.stats.queue_full += 1,
        }
    }

    fn write(&mut self, slot: usize, registry: &Registry, now: Now, workers: &mut Workers) {
        let Some(stream) = self.stream_mut(slot) else { return };
        let mut wrote = false;
        let failed = loop {
            if stream.connection.pending().is_empty() || !stream.may_write {
                break false;
            }
            match stream.socket.write(stream.connection.pending()) {
                Ok(size) => {
                    stream.connection.consume(size, now);
                    wrote = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    stream.may_write = false;
                    break error.kind() != io::ErrorKind::WouldBlock;
                }
            }
        };
        let is_done = stream.role == Role::Ending && stream.connection.pending().is_empty();
        if let Role::Joined { to } = stream.role
            && wrote
        {
            self.ready.push_back(to);
        }
        match (failed, is_done) {
            (true, _) => self.end(slot, End::Closed, registry, now, workers),
            (false, true) => self.linger(slot, registry, now, workers),
            (false, false) => {}
        }
    }

    fn insert(&mut self, mut content: Content, registry: &Registry) -> io::Result<usize> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, content: None });
            self.slots.len() - 1
        });
        let registered = match &mut content {
            Content::Listener(listener, _) => registry.register(listener, Token(slot), Interest::READABLE),
            Content::Stream(stream) => {
                registry.register(stream.socket.source(), Token(slot), Interest::READABLE | Interest::WRITABLE)
            }
            Content::DtlsListener(dtls) => registry.register(dtls.source(), Token(slot), Interest::READABLE),
            // It has no socket of its own.
            Content::DtlsClient(_) => Ok(()),
        };
        if let Err(error) = registered {
            self.free.push(slot);
            return Err(error);
        }
        if let Some(place) = self.slots.get_mut(slot) {
            place.generation = place.generation.wrapping_add(1);
            place.content = Some(content);
        }
        Ok(slot)
    }

    fn remove(&mut self, slot: usize, registry: &Registry) {
        let Some(content) = self.slots.get_mut(slot).and_then(|slot| slot.content.take()) else { return };
        match content {
            Content::DtlsListener(mut dtls) => _ = registry.deregister(dtls.source()),
            Content::DtlsClient(_) => {}
            Content::Listener(mut listener, _) => _ = registry.deregister(&mut listener),
            Content::Stream(mut stream) => {
                let _ = registry.deregister(stream.socket.source());
                if let Some(address) = stream.counted {
                    self.admission.leave(address, stream.proved);
                }
                self.peers -= usize::from(stream.meter.is_some());
                self.judged(stream.unjudged);
            }
        }
        self.free.push(slot);
    }

    fn content_mut(&mut self, slot: usize) -> Option<&mut Content> {
        self.slots.get_mut(slot)?.content.as_mut()
    }

    fn id(&self, slot: usize) -> StreamId {
        let generation = self.slots.get(slot).map_or(0, |slot| slot.generation);
        StreamId(u64::from(generation) << 32 | slot as u64)
    }

    fn find(&self, id: StreamId) -> Option<usize> {
        let slot = (id.0 & u64::from(u32::MAX)) as usize;
        (self.id(slot) == id && self.stream(slot).is_some()).then_some(slot)
    }

    fn stream(&self, slot: usize) -> Option<&Stream> {
        match self.slots.get(slot)?.content.as_ref()? {
            Content::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    fn stream_mut(&mut self, slot: usize) -> Option<&mut Stream> {
        match self.slots.get_mut(slot)?.content.as_mut()? {
            Content::Stream(stream) => Some(stream),
            _ => None,
        }
    }
}

/// What the connection in a slot is called as a socket. With the client's address it makes a path, and two connections of one address
/// have the same number only if there are thousands between them.
fn ice_socket(slot: usize) -> SocketIndex {
    let numbers = usize::from(SocketIndex::TURN_STREAM_FIRST - SocketIndex::STREAM_FIRST);
    SocketIndex(SocketIndex::STREAM_FIRST + (slot % numbers) as u16)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The worker of a client of TURN.
fn worker_of(address: IpAddr, count: usize) -> usize {
    // Neighbours go to different workers.
    (Source::from(address).number() % count as u64) as usize
}

/// Whether an event is the thread's bell.
pub(in crate::plane) fn is_bell(token: Token) -> bool {
    token.0 == BELL
}

/// The token of the thread's bell.
pub(in crate::plane) const BELL: usize = usize::MAX;
/// Bytes read at once.
const READ_SIZE: usize = 16 * 1024;
/// Reads of one connection before the others have their turn.
const READS_MAX: usize = 4;
/// What the other side of a pair must have room for: what is read at once, a TLS record that began before, and what TLS puts around it.
const PAIR_ROOM: usize = 2 * READ_SIZE + 1024;
/// Bytes of media that the kernel holds back for a client of ICE-TCP before it takes more. What waits beyond waits in our own queue,
/// which has a bound; the kernel's would grow to seconds of video.
const ICE_UNSENT_MAX: u32 = 32 * 1024;
/// Time to connect to a peer, for a peer to be joined (RFC 6062 §5.2: 30 s), or to write what is left.
const PATIENCE: Duration = Duration::from_secs(30);
const _: () = assert!(PAIR_ROOM <= QUEUE_SIZE_MAX / 2, "an empty queue takes what is read at once");
