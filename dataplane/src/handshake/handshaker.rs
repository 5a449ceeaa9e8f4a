//! Every transport's way through DTLS, from the first datagram to the last, and the deadlines of all of them.
//!
//! Until a certificate has matched its fingerprint nothing that arrives is believed. Junk costs an attacker at most an engine
//! now and then: a failed engine is replaced when the next ClientHello comes, and the session goes on until its deadline.
//!
//! There is no engine before ICE has proved an address and the fingerprint is known. A client's first flight comes sooner as a
//! rule: right behind its own successful check, with the answer to ours and the SDP still under way. Its latest ClientHello waits.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use ringmain_shared::event::{CloseReason, HandshakeStats};
use ringmain_shared::id::{PeerId, RoomId, TransportId, WorkerIndex};
use ringmain_shared::limits::{
    API_BURST, API_BYTES_BURST, API_BYTES_PER_SECOND, API_PER_SECOND, HANDSHAKE, HANDSHAKES_MAX,
};
use ringmain_shared::now::Now;
use ringmain_shared::transport::{ChannelSpec, DtlsRole, RemotePeer, Side, TransportSpec};

use super::channels::{Channel, Room};
use super::client_hello::{Assembler, ClientHello, Early};
use super::dtls::{Datagram, Engine, Engines, Fatal, Produced, Proof};
use super::identity::{self, Identity, SetupError};
use super::sctp::{self, Heard, Sctp};
use super::{FromHandshake, ToHandshake};
use crate::transport::TokenBucket;

/// What a [`Handshaker`] is made with.
#[derive(Clone, Debug)]
pub struct HandshakeConfig {
    /// The certificate of every association.
    pub identity: Identity,
}

/// DTLS and SCTP of many transports. See the [module](super).
pub struct Handshaker {
    /// Each in a place of its own: a table is half empty at times, and holds its entries twice while it grows.
    pub(super) transports: HashMap<TransportId, Box<Transport>, FixedState>,
    pub(super) rooms: HashMap<RoomId, Room, FixedState>,
    pub(super) stats: HandshakeStats,
    /// ClientHellos that wait.
    pub(super) held: usize,
    engines: Engines,
    sctp: sctp::Setup,
    /// `Now(0)` for the engines, which count in `Instant`s.
    base: Instant,
    deadlines: BTreeSet<(Now, TransportId)>,
    handshakes: usize,
    /// Transports that may have something to send, or another deadline.
    touched: Vec<TransportId>,
    /// Transports proved before they were opened: control's orders and a worker's come by different rings.
    validated_early: VecDeque<TransportId>,
}

/// One transport.
pub(super) struct Transport {
    pub(super) worker: WorkerIndex,
    pub(super) peer: PeerId,
    pub(super) room: RoomId,
    pub(super) side: Side,
    pub(super) spec: Option<ChannelSpec>,
    pub(super) role: DtlsRole,
    pub(super) sctp: Option<Box<Sctp>>,
    pub(super) channels: Vec<Channel>,
    /// Messages that wait for the API channel to open.
    pub(super) api_waiting: VecDeque<String>,
    pub(super) api_budget: ApiBudget,
    remote: Option<RemotePeer>,
    validated: bool,
    stage: Stage,
    assembler: Assembler,
    held: Option<Box<Held>>,
    /// When the handshake must be done.
    give_up: Option<Now>,
    attempts: Attempts,
    failed: bool,
    touched: bool,
    scheduled: Option<Now>,
}

/// A ClientHello that came before it could be answered.
struct Held {
    hello: ClientHello,
    /// What came before its last datagram.
    parts: Vec<Datagram>,
    last: Datagram,
}

/// Where DTLS stands. There are keys only in `Secured`.
enum Stage {
    Idle,
    Handshaking { engine: Engine, random: Option<[u8; 32]>, received: usize },
    Secured { engine: Engine },
}

impl Handshaker {
    /// A handshaker without transports. `seed` is for its tables; keys do not depend on it.
    pub fn new(config: HandshakeConfig, seed: u64) -> Result<Self, SetupError> {
        Ok(Self {
            transports: HashMap::with_hasher(FixedState::with_seed(seed)),
            rooms: HashMap::with_hasher(FixedState::with_seed(seed)),
            stats: HandshakeStats::default(),
            engines: Engines::new(&config.identity)?,
            sctp: sctp::Setup::new(),
            base: Instant::now(),
            deadlines: BTreeSet::new(),
            handshakes: 0,
            held: 0,
            touched: Vec::new(),
            validated_early: VecDeque::new(),
        })
    }

    /// Takes one input; what follows from it is appended to `out`.
    pub fn handle(&mut self, input: ToHandshake, now: Now, out: &mut Vec<FromHandshake>) {
        match input {
            ToHandshake::Open { worker, spec } => self.open(worker, *spec, now, out),
            ToHandshake::SetRemote { transport, remote } => self.set_remote(transport, remote, now, out),
            ToHandshake::Close { transport } => self.end(transport, None, out),
            ToHandshake::Datagram { transport, bytes } => self.receive(transport, &bytes, now, out),
            ToHandshake::Validated { transport } => self.validated(transport, now, out),
            ToHandshake::SendApi { transport, text } => self.send_api(transport, text),
        }
        self.settle(now, out);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Vec<FromHandshake>) {
        let mut due = Vec::new();
        while let Some(&(at, id)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            if let Some(transport) = self.transports.get_mut(&id) {
                transport.scheduled = None;
                due.push(id);
            }
        }
        for id in due {
            self.expire(id, now, out);
        }
        self.settle(now, out);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn next_deadline(&self) -> Option<Now> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// Counters since the start.
    pub fn stats(&self) -> HandshakeStats {
        self.stats
    }

    fn open(&mut self, worker: WorkerIndex, spec: TransportSpec, now: Now, out: &mut Vec<FromHandshake>) {
        if self.transports.contains_key(&spec.id) {
            return;
        }
        self.rooms.entry(spec.room).or_default().join(spec.peer, spec.id);
        let transport = Transport {
            worker,
            peer: spec.peer,
            room: spec.room,
            side: spec.side,
            spec: spec.channels,
            role: DtlsRole::Server,
            sctp: None,
            channels: Vec::new(),
            api_waiting: VecDeque::new(),
            api_budget: ApiBudget::new(now),
            remote: None,
            validated: self.take_early(spec.id),
            stage: Stage::Idle,
            assembler: Assembler::default(),
            held: None,
            give_up: None,
            attempts: Attempts::default(),
            failed: false,
            touched: false,
            scheduled: None,
        };
        self.transports.insert(spec.id, Box::new(transport));
        if let Some(remote) = spec.remote {
            self.set_remote(spec.id, remote, now, out);
        }
    }

    fn set_remote(&mut self, id: TransportId, remote: RemotePeer, now: Now, out: &mut Vec<FromHandshake>) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        match transport.stage {
            Stage::Idle => transport.role = remote.role,
            Stage::Handshaking { .. } => {}
            // What has been proved stays; a new certificate needs a new transport (RFC 8842 §5.5).
            Stage::Secured { .. } => return,
        }
        transport.remote = Some(remote);
        self.begin(id, now, out);
    }

    fn validated(&mut self, id: TransportId, now: Now, out: &mut Vec<FromHandshake>) {
        let Some(transport) = self.transports.get_mut(&id) else {
            self.validated_early.push_back(id);
            if self.validated_early.len() > VALIDATED_EARLY_MAX {
                self.validated_early.pop_front();
            }
            return;
        };
        transport.validated = true;
        self.begin(id, now, out);
    }

    /// Whether a transport was proved before it was opened.
    fn take_early(&mut self, id: TransportId) -> bool {
        let place = self.validated_early.iter().position(|&early| early == id);
        place.and_then(|place| self.validated_early.remove(place)).is_some()
    }

    /// Starts the clock once the handshake can happen, and the handshake where that is ours to do or a ClientHello waits.
    fn begin(&mut self, id: TransportId, now: Now, out: &mut Vec<FromHandshake>) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        if !transport.is_ready() || !matches!(transport.stage, Stage::Idle) {
            return;
        }
        let held = transport.held.take();
        self.held -= usize::from(held.is_some());
        transport.give_up.get_or_insert(now + HANDSHAKE);
        self.touch(id);
        let Some(transport) = self.transports.get_mut(&id) else { return };
        if transport.role == DtlsRole::Client
            && self.handshakes < HANDSHAKES_MAX
            && transport.attempts.take(now)
            && let Some(mut engine) = self.engines.client()
        {
            let mut produced = Vec::new();
            let result = engine.begin(self.base + Duration::from_nanos(now.0), &mut produced);
            transport.stage = Stage::Handshaking { engine, random: None, received: 0 };
            self.handshakes += 1;
            self.digest(id, produced, result, now, out);
        } else if let Some(held) = held {
            self.hello(id, held.hello, &held.parts, &held.last, now, out);
        }
    }

    fn receive(&mut self, id: TransportId, bytes: &[u8], now: Now, out: &mut Vec<FromHandshake>) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        if !transport.is_ready() {
            return self.hold(id, bytes);
        }
        let instant = self.base + Duration::from_nanos(now.0);
        let mut produced = Vec::new();
        let result = match &mut transport.stage {
            Stage::Secured { engine } => engine.handle_datagram(bytes, instant, &mut produced),
            Stage::Idle | Stage::Handshaking { .. } => match transport.assembler.handle(bytes) {
                Early::Hello(hello) => {
                    let parts = transport.assembler.take_parts();
                    return self.hello(id, hello, &parts, bytes, now, out);
                }
                Early::Part => return,
                Early::Junk => {
                    self.stats.junk += 1;
                    return;
                }
                Early::Other { plain } => match &mut transport.stage {
                    // After its ClientHello, a DTLS 1.3 client has nothing to say in plaintext (RFC 9147 §6).
                    Stage::Handshaking { engine: Engine::Dtls13(_), .. }
                        if plain && transport.role == DtlsRole::Server =>
                    {
                        self.stats.junk += 1;
                        return;
                    }
                    Stage::Handshaking { engine, received, .. } => {
                        *received += bytes.len();
                        if *received > HANDSHAKE_SIZE_MAX {
                            Err(Fatal)
                        } else {
                            engine.handle_datagram(bytes, instant, &mut produced)
                        }
                    }
                    _ => {
                        self.stats.early += 1;
                        return;
                    }
                },
            },
        };
        self.digest(id, produced, result, now, out);
    }

    /// Something came before the handshake can happen. The latest whole ClientHello is kept for then.
    fn hold(&mut self, id: TransportId, bytes: &[u8]) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        let (hello, last) = match (transport.assembler.handle(bytes), Datagram::try_from(bytes)) {
            (Early::Hello(hello), Ok(last)) => (hello, last),
            (Early::Part, _) => return,
            _ => {
                self.stats.early += 1;
                return;
            }
        };
        let held = Held { hello, parts: transport.assembler.take_parts(), last };
        if let Some(former) = &mut transport.held {
            **former = held;
            self.stats.early += 1;
        } else if self.held < HANDSHAKES_MAX {
            transport.held = Some(Box::new(held));
            self.held += 1;
        } else {
            self.stats.early += 1;
        }
    }

    /// A whole ClientHello is there: `parts`, then `bytes`.
    fn hello(
        &mut self,
        id: TransportId,
        hello: ClientHello,
        parts: &[Datagram],
        bytes: &[u8],
        now: Now,
        out: &mut Vec<FromHandshake>,
    ) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        if transport.role == DtlsRole::Client {
            self.stats.junk += 1;
            return;
        }
        let instant = self.base + Duration::from_nanos(now.0);
        let mut produced = Vec::new();
        if let Stage::Handshaking { engine, random: Some(random), .. } = &mut transport.stage
            && *random == hello.random
        {
            let result = engine.handle_datagram(bytes, instant, &mut produced);
            return self.digest(id, produced, result, now, out);
        }
        // Another client than before: one of the two is forged, and only a finished handshake will tell which.
        let fresh = matches!(transport.stage, Stage::Idle);
        if fresh && self.handshakes >= HANDSHAKES_MAX || !transport.attempts.take(now) {
            self.stats.refused += 1;
            return;
        }
        transport.give_up.get_or_insert(now + HANDSHAKE);
        let Some(mut engine) = self.engines.server(&hello, instant) else {
            transport.failed = true;
            self.stats.failed += 1;
            return self.touch(id);
        };
        let mut result = Ok(());
        for datagram in parts.iter().map(|part| part.as_slice()).chain([bytes]) {
            result = result.and_then(|()| engine.handle_datagram(datagram, instant, &mut produced));
        }
        if result.is_err() {
            // Whoever was in the handshake before stays in it.
            transport.failed = true;
            self.stats.failed += 1;
            return self.touch(id);
        }
        transport.stage = Stage::Handshaking { engine, random: Some(hello.random), received: 0 };
        self.handshakes += usize::from(fresh);
        self.digest(id, produced, result, now, out);
    }

    fn expire(&mut self, id: TransportId, now: Now, out: &mut Vec<FromHandshake>) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        if transport.give_up.is_some_and(|at| at <= now) {
            let reason = if transport.failed { CloseReason::HandshakeFailed } else { CloseReason::HandshakeTimeout };
            return self.end(id, Some(reason), out);
        }
        let instant = self.base + Duration::from_nanos(now.0);
        if let Some(sctp) = &mut transport.sctp {
            sctp.handle_timeout(instant);
        }
        let mut produced = Vec::new();
        let is_unheard = transport.is_unheard(now);
        let result = match &mut transport.stage {
            Stage::Idle => return self.begin(id, now, out),
            Stage::Handshaking { engine, .. } if is_unheard => {
                *engine = self.engines.client_of_both(instant);
                engine.begin(instant, &mut produced)
            }
            Stage::Handshaking { engine, .. } | Stage::Secured { engine } => {
                engine.handle_timeout(instant, &mut produced)
            }
        };
        self.digest(id, produced, result, now, out);
    }

    /// Acts on what an engine said.
    fn digest(
        &mut self,
        id: TransportId,
        produced: Vec<Produced>,
        result: Result<(), Fatal>,
        now: Now,
        out: &mut Vec<FromHandshake>,
    ) {
        self.touch(id);
        for item in produced {
            let Some(transport) = self.transports.get_mut(&id) else { return };
            match item {
                Produced::Datagram(bytes) => {
                    out.push(FromHandshake::Datagram { worker: transport.worker, transport: id, bytes });
                }
                Produced::Connected(proof) => self.connected(id, *proof, now, out),
                Produced::Data(bytes) => {
                    if let Some(sctp) = &mut transport.sctp {
                        sctp.handle_packet(bytes, self.base + Duration::from_nanos(now.0));
                    }
                }
                Produced::CloseNotify => return self.end(id, Some(CloseReason::PeerClosed), out),
            }
        }
        if result.is_err() {
            self.engine_failed(id, now, out);
        }
    }

    fn connected(&mut self, id: TransportId, proof: Proof, now: Now, out: &mut Vec<FromHandshake>) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        let promised = transport.remote.as_ref().map_or(&[][..], |remote| &remote.fingerprints);
        if !identity::matches(&proof.certificate, promised) {
            self.stats.mismatched += 1;
            return self.end(id, Some(CloseReason::FingerprintMismatch), out);
        }
        // RFC 8827 §6.5: media without DTLS-SRTP is not spoken here.
        let Some(keys) = proof.keys else { return self.end(id, Some(CloseReason::HandshakeFailed), out) };
        match std::mem::replace(&mut transport.stage, Stage::Idle) {
            Stage::Handshaking { engine, .. } => {
                transport.stage = Stage::Secured { engine };
                self.handshakes -= 1;
            }
            other => transport.stage = other,
        }
        transport.give_up = None;
        transport.assembler = Assembler::default();
        if transport.spec.is_some() {
            let instant = self.base + Duration::from_nanos(now.0);
            transport.sctp = Some(Box::new(Sctp::new(&self.sctp, transport.role, instant)));
        }
        self.stats.secured += 1;
        out.push(FromHandshake::Keys { worker: transport.worker, transport: id, keys });
    }

    fn engine_failed(&mut self, id: TransportId, now: Now, out: &mut Vec<FromHandshake>) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        match transport.stage {
            Stage::Idle => {}
            Stage::Handshaking { .. } => {
                transport.stage = Stage::Idle;
                transport.failed = true;
                self.handshakes -= 1;
                self.stats.failed += 1;
                self.begin(id, now, out);
            }
            // What ends a secured association is authenticated: the peer gave up.
            Stage::Secured { .. } => self.end(id, Some(CloseReason::PeerClosed), out),
        }
    }

    /// Forgets a transport, with a last word to its peer.
    fn end(&mut self, id: TransportId, reason: Option<CloseReason>, out: &mut Vec<FromHandshake>) {
        self.leave(id);
        let Some(mut transport) = self.transports.remove(&id) else { return };
        if let Some(at) = transport.scheduled {
            self.deadlines.remove(&(at, id));
        }
        self.held -= usize::from(transport.held.is_some());
        let worker = transport.worker;
        if let Stage::Handshaking { engine, .. } | Stage::Secured { engine } = &mut transport.stage {
            let mut produced = Vec::new();
            engine.close(&mut produced);
            out.extend(produced.into_iter().filter_map(|item| match item {
                Produced::Datagram(bytes) => Some(FromHandshake::Datagram { worker, transport: id, bytes }),
                _ => None,
            }));
        }
        self.handshakes -= usize::from(matches!(transport.stage, Stage::Handshaking { .. }));
        if let Some(reason) = reason {
            out.push(FromHandshake::Closed { worker, transport: id, reason });
        }
    }

    /// Marks a transport for [`settle`](Self::settle).
    pub(super) fn touch(&mut self, id: TransportId) {
        if let Some(transport) = self.transports.get_mut(&id)
            && !transport.touched
        {
            transport.touched = true;
            self.touched.push(id);
        }
    }

    /// Lets SCTP speak where something happened, until nothing happens any more.
    fn settle(&mut self, now: Now, out: &mut Vec<FromHandshake>) {
        while let Some(id) = self.touched.pop() {
            if let Some(transport) = self.transports.get_mut(&id) {
                transport.touched = false;
                self.pump(id, now, out);
                self.schedule(id, now);
            }
        }
    }

    fn pump(&mut self, id: TransportId, now: Now, out: &mut Vec<FromHandshake>) {
        let instant = self.base + Duration::from_nanos(now.0);
        let mut heard: Vec<Heard> = Vec::new();
        if let Some(sctp) = self.transports.get_mut(&id).and_then(|transport| transport.sctp.as_mut()) {
            sctp.poll(&mut heard);
        }
        for item in heard {
            self.hear(id, item, now, out);
        }
        let Some(transport) = self.transports.get_mut(&id) else { return };
        let (Some(sctp), Stage::Secured { engine }) = (&mut transport.sctp, &mut transport.stage) else { return };
        let (mut packets, mut produced, mut result) = (Vec::new(), Vec::new(), Ok(()));
        sctp.poll_transmit(instant, &mut packets);
        if sctp.is_lost() {
            // As where the peer wants no data channels, and answers nothing.
            transport.sctp = None;
        }
        for packet in packets {
            result = result.and_then(|()| engine.send(&packet, instant, &mut produced));
        }
        if !produced.is_empty() || result.is_err() {
            self.digest(id, produced, result, now, out);
        }
    }

    fn schedule(&mut self, id: TransportId, now: Now) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        let engine = match &transport.stage {
            Stage::Idle => None,
            Stage::Handshaking { engine, .. } | Stage::Secured { engine } => engine.deadline(),
        };
        let sctp = transport.sctp.as_deref().and_then(Sctp::deadline);
        let timer = [engine, sctp].into_iter().flatten().min().map(|at| {
            // Never now: a timer that stays due would keep the thread from everything else.
            let at = at.saturating_duration_since(self.base).as_nanos().try_into().unwrap_or(u64::MAX);
            Now(at).max(now + TIMER_GRAIN)
        });
        let again = matches!(transport.stage, Stage::Idle) && transport.role == DtlsRole::Client && transport.validated;
        let retry = again.then_some(now + ATTEMPT_INTERVAL);
        let next = [timer, transport.give_up, retry].into_iter().flatten().min();
        if transport.scheduled == next {
            return;
        }
        if let Some(at) = transport.scheduled.take() {
            self.deadlines.remove(&(at, id));
        }
        transport.scheduled = next;
        self.deadlines.extend(next.map(|at| (at, id)));
    }
}

impl Transport {
    /// Whether there can be a handshake: with an address that ICE has proved, and a certificate that we would know.
    fn is_ready(&self) -> bool {
        self.validated && self.remote.is_some()
    }

    /// Whether nobody has answered our DTLS 1.2 for so long that the peer may speak DTLS 1.3 alone. Asked once: after
    /// another engine has failed, DTLS 1.2 has the rest of the time.
    fn is_unheard(&self, now: Now) -> bool {
        let unanswered = matches!(self.stage, Stage::Handshaking { engine: Engine::Dtls12(_), received: 0, .. });
        let is_late = self.give_up.is_some_and(|at| at <= now + (HANDSHAKE - UNHEARD));
        self.role == DtlsRole::Client && unanswered && is_late && !self.failed
    }
}

#[cfg(test)]
impl Handshaker {
    /// Bytes that wait for the peer of a transport.
    pub(super) fn buffered(&mut self, id: TransportId) -> usize {
        let Some(transport) = self.transports.get_mut(&id) else { return 0 };
        transport.sctp.as_mut().map_or(0, |sctp| sctp.buffered_in_all())
    }
}

/// How often a transport may have a new engine: a few at once, then one at a time.
#[derive(Default)]
struct Attempts {
    taken: u32,
    since: Now,
}

impl Attempts {
    fn take(&mut self, now: Now) -> bool {
        let regained = now.since(self.since).as_nanos() / ATTEMPT_INTERVAL.as_nanos();
        if regained > 0 {
            self.taken = self.taken.saturating_sub(regained.try_into().unwrap_or(u32::MAX));
            self.since = now;
        }
        let allowed = self.taken < ATTEMPTS_MAX;
        self.taken += u32::from(allowed);
        allowed
    }
}

/// How much a transport may say to control on its API channel.
pub(super) struct ApiBudget {
    messages: TokenBucket,
    bytes: TokenBucket,
}

impl ApiBudget {
    fn new(now: Now) -> Self {
        Self {
            messages: TokenBucket::new(API_PER_SECOND, API_BURST, now),
            bytes: TokenBucket::new(API_BYTES_PER_SECOND, API_BYTES_BURST, now),
        }
    }

    /// Takes a message of `size` bytes, if there is place for it.
    pub(super) fn take(&mut self, size: usize, now: Now) -> bool {
        self.messages.take(now) && u32::try_from(size).is_ok_and(|size| self.bytes.take_many(size, now))
    }
}

/// Engines that one transport may use up at once.
const ATTEMPTS_MAX: u32 = 8;
/// Time to regain one. Clients retransmit over the whole of `limits::HANDSHAKE`, so junk delays a join and does not end it.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(100);
/// Transports proved before they were opened that are kept in mind.
const VALIDATED_EARLY_MAX: usize = 256;
/// How long a server may leave our DTLS 1.2 unanswered: four flights of it. Sooner, mere loss would have us change to a
/// ClientHello that a server which saw the first one does not take.
const UNHEARD: Duration = Duration::from_secs(3);
/// Bytes that a handshake may take, retransmissions and all.
const HANDSHAKE_SIZE_MAX: usize = 64 * 1024;
/// The least time between two timers of one transport.
const TIMER_GRAIN: Duration = Duration::from_millis(1);
