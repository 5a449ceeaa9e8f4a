//! Rooms and their peers: who hears and sees whom. Messages of clients and events of the data plane come in, with the time;
//! messages, commands and closes go out. No socket, no clock, no thread: the same inputs give the same outputs.
//!
//! Along the way of a peer: `join` lets it in and out, `publish` takes its offers, `subscribe` decides what
//! it gets and `negotiate` offers that to it, `media` follows its connections, `api` hears its wishes about layers,
//! `speakers` and `news` tell it of the others, `ice_servers` lends it a credential for TURN. `room` and `peer` are the records,
//! `placement` picks workers.
//!
//! Two rules keep the planes in step. A command that makes something goes out before the message that tells a peer of it,
//! so a check or a packet never arrives before the data plane knows what it is for. And a subscription exists in the
//! data plane only between the peer's answer that accepted it and the end of the track.

mod admission;
mod api;
mod chance;
mod chatter;
mod ice_servers;
mod join;
mod media;
mod negotiate;
mod news;
mod peer;
mod placement;
mod publish;
mod room;
mod settings;
mod speakers;
mod subscribe;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use ringmain_shared::event::Hello;
use ringmain_shared::id::{IdSource, PeerId, RoomId, SubscriptionId, TrackId, TransportId};
use ringmain_shared::media::Kind;
use ringmain_shared::transport::Side;
use ringmain_shared::{Command, Event, Now, Source};
use serde_json::Value;

use crate::rpc::{self, Call, ErrorCode, Recipient, Refusal, Request, RequestId, RpcError, TokenBucket};
use crate::turn::Handed;

use admission::Admission;
use chance::Chance;
use chatter::Chatter;
use peer::Peer;
use placement::Workers;
use room::{Room, Track};
use timers::{Timer, Timers};

pub use chance::RngSource;
pub use settings::Settings;

/// WebSocket close code (RFC 6455 §7.4.2): another connection joined the room under the same uid.
pub const CLOSE_REPLACED: u16 = 4001;
/// WebSocket close code: every media connection of the peer has ended.
pub const CLOSE_MEDIA_ENDED: u16 = 4002;
/// WebSocket close code (RFC 6455 §7.4.1): far more requests than allowed.
pub const CLOSE_POLICY: u16 = 1008;

/// Messages in a row that may be over the rate before the connection is closed.
const REFUSED_IN_ROW_MAX: u32 = 1000;

/// A signalling connection; the caller names it and never uses a name twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// What is to be done outside.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// Send a text frame.
    Send {
        /// To whom.
        connection: ConnectionId,
        /// One message.
        text: String,
    },
    /// Close a connection. Nothing more is said to it and nothing more is heard from it; `handle_closed` is still called.
    Close {
        /// Which.
        connection: ConnectionId,
        /// WebSocket close code.
        code: u16,
        /// For people, at most 123 bytes.
        reason: String,
    },
    /// Tell the data plane.
    Command(Command),
}

/// How much there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RoomsStats {
    /// Signalling connections.
    pub connections: usize,
    /// Rooms with someone in them.
    pub rooms: usize,
    /// Peers of all rooms.
    pub peers: usize,
    /// Transports of all peers.
    pub transports: usize,
    /// Published audio tracks.
    pub audio_tracks: usize,
    /// Published video tracks.
    pub video_tracks: usize,
    /// Tracks that peers get or are being offered.
    pub subscriptions: usize,
    /// Tracks that peers would get, had they not as many as they may.
    pub subscriptions_waiting: usize,
    /// Joins that were refused for there being too many, since the start.
    pub joins_refused: u64,
}

/// Every room of this server.
pub struct Rooms {
    settings: Settings,
    hello: Hello,
    workers: Workers,
    ids: IdSource,
    chance: Chance,
    connections: BTreeMap<ConnectionId, Connection>,
    rooms: BTreeMap<RoomId, Room>,
    names: BTreeMap<String, RoomId>,
    /// Each in a place of its own: a node of the tree has places for eleven, about half of them empty.
    peers: BTreeMap<PeerId, Box<Peer>>,
    tracks: BTreeMap<TrackId, Track>,
    transports: BTreeMap<TransportId, (PeerId, Side)>,
    subscriptions: BTreeMap<SubscriptionId, PeerId>,
    admission: Admission,
    joins_refused: u64,
    chatter: Chatter,
    timers: Timers,
    outputs: VecDeque<Output>,
}

/// A signalling connection that was opened, or said something.
struct Connection {
    /// Whence, as far as limits are concerned.
    from: Option<Source>,
    rate: TokenBucket,
    offers: TokenBucket,
    refused_in_row: u32,
    peer: Option<PeerId>,
    /// Its credential for TURN, if it asked for one.
    turn: Option<Handed>,
    closing: bool,
}

impl Rooms {
    /// No rooms yet. `candidates` are, for each worker of the data plane, the addresses that SDP announces; `epoch` differs
    /// from that of every earlier start; `random` is cryptographically secure.
    pub fn new(
        settings: Settings,
        hello: Hello,
        candidates: Vec<Vec<SocketAddr>>,
        epoch: u32,
        random: RngSource,
    ) -> Self {
        Self {
            workers: Workers::new(candidates, settings.spread_after),
            admission: Admission::new(&settings, Now(0)),
            joins_refused: 0,
            chatter: Chatter::new(Now(0)),
            settings,
            hello,
            ids: IdSource::new(epoch),
            chance: Chance::new(random),
            connections: BTreeMap::new(),
            rooms: BTreeMap::new(),
            names: BTreeMap::new(),
            peers: BTreeMap::new(),
            tracks: BTreeMap::new(),
            transports: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// A client connected, from there. Until it is said whence, only the limits that hold for all count.
    pub fn handle_opened(&mut self, connection: ConnectionId, from: Source, now: Now) {
        self.connection(connection, now).from = Some(from);
    }

    /// A text frame came from a client.
    pub fn handle_message(&mut self, connection: ConnectionId, text: &str, now: Now) {
        let entry = self.connection(connection, now);
        if entry.closing {
            return;
        }
        let allowed = entry.rate.take(now);
        entry.refused_in_row = if allowed { 0 } else { entry.refused_in_row + 1 };
        if entry.refused_in_row > REFUSED_IN_ROW_MAX {
            return self.dismiss(connection, CLOSE_POLICY, "too many requests", now);
        }
        let done = match Request::parse(text) {
            Ok(Request { id, .. }) if !allowed => self.refuse_rate(id.map_or(Recipient::Nobody, Recipient::Request)),
            Err(Refusal { recipient, .. }) if !allowed => self.refuse_rate(recipient),
            Ok(Request { id, call }) => {
                let recipient = id.clone().map_or(Recipient::Nobody, Recipient::Request);
                self.serve(connection, id, call, now).map_err(|error| Refusal { recipient, error })
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = done {
            self.tell_refusal(connection, refusal);
        }
    }

    fn connection(&mut self, connection: ConnectionId, now: Now) -> &mut Connection {
        let settings = &self.settings;
        self.connections.entry(connection).or_insert_with(|| Connection {
            from: None,
            rate: TokenBucket::new(settings.requests_per_second, settings.requests_burst, now),
            offers: TokenBucket::new(settings.offers_per_second, settings.offers_burst, now),
            refused_in_row: 0,
            peer: None,
            turn: None,
            closing: false,
        })
    }

    /// A client's connection is gone, whoever closed it.
    pub fn handle_closed(&mut self, connection: ConnectionId, now: Now) {
        let Some(Connection { peer, turn, .. }) = self.connections.remove(&connection) else { return };
        self.revoke_turn(turn);
        if let Some(peer) = peer {
            self.leave(peer, now);
        }
    }

    /// The data plane told something.
    pub fn handle_event(&mut self, event: Event, now: Now) {
        match event {
            Event::IceState { transport, state } => self.handle_ice_state(transport, state, now),
            Event::Secured { transport } => tracing::debug!(%transport, "DTLS is done"),
            Event::Closed { transport, reason } => self.handle_transport_closed(transport, reason, now),
            Event::LayersActive { track, layers } => self.handle_layers_active(track, layers),
            Event::LayerForwarded { subscription, spatial, .. } => self.handle_layer_forwarded(subscription, spatial),
            Event::AudioActivity { worker, levels } => self.handle_audio_activity(worker, levels, now),
            Event::ApiMessage { transport, text } => self.handle_api_message(transport, &text, now),
            Event::ApiOpen { transport } => self.handle_api_open(transport),
            // Of the data plane itself, and no room's business.
            Event::Stats(_)
            | Event::HandshakeStats { .. }
            | Event::Stalled { .. }
            | Event::Recovered { .. }
            | Event::Snapshot { .. }
            | Event::Streams(_)
            | Event::Turn(_) => {}
        }
    }

    /// Time has come to the moment that `poll_timeout` named.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Offer(peer) => self.negotiate(peer, now),
                Timer::Answer(peer) => self.handle_answer_overdue(peer, now),
                Timer::Restart(peer) => self.restart_subscriber(peer, now),
                Timer::Present(newcomer) => self.tell_untold(newcomer, now),
                Timer::News(room) => self.tell_news(room),
                Timer::Silence(worker) => self.handle_silence(worker),
            }
        }
    }

    /// When `handle_timeout` is next wanted.
    pub fn poll_timeout(&self) -> Option<Now> {
        self.timers.next()
    }

    /// What is next to be done outside; to be asked until there is nothing, after each input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How much there is.
    pub fn stats(&self) -> RoomsStats {
        let video_tracks = self.tracks.values().filter(|track| track.kind == Kind::Video).count();
        RoomsStats {
            connections: self.connections.len(),
            rooms: self.rooms.len(),
            peers: self.peers.len(),
            transports: self.transports.len(),
            audio_tracks: self.tracks.len() - video_tracks,
            video_tracks,
            subscriptions: self.subscriptions.len(),
            subscriptions_waiting: self.peers.keys().map(|&peer| self.waiting_tracks(peer)).sum(),
            joins_refused: self.joins_refused,
        }
    }

    /// Does what a request asks. An error is told to whoever asked; a success has been told when this returns.
    fn serve(&mut self, connection: ConnectionId, id: Option<RequestId>, call: Call, now: Now) -> Result<(), RpcError> {
        let joined = self.connections.get(&connection).and_then(|entry| entry.peer);
        let result = match (call, joined) {
            (Call::Join(_), Some(_)) => {
                return Err(RpcError::new(
                    ErrorCode::AlreadyJoined,
                    "this connection has joined already; another peer needs another WebSocket",
                ));
            }
            (Call::Join(join), None) => {
                self.join(connection, id, *join, now)?;
                self.bind_turn(connection, now);
                return Ok(());
            }
            (Call::IceServers, _) => self.ice_servers(connection, now),
            (_, None) => return Err(RpcError::new(ErrorCode::NotJoined, "join a room first")),
            (Call::Offer(sdp), Some(peer)) => {
                self.allow_offer(connection, now)?;
                self.handle_offer(peer, &sdp, now)?
            }
            (Call::Answer(sdp), Some(peer)) => self.handle_answer(peer, &sdp, now).map(|()| Value::Null)?,
            // RFC 8445 §2.5: a lite agent sends no checks, so it has no use for the peer's candidates.
            (Call::Trickle(_), Some(_)) => Value::Null,
            (Call::Tracks, Some(peer)) => self.list_tracks(peer),
            (Call::Subscribe(names), Some(peer)) => self.subscribe_named(peer, &names, now)?,
            (Call::Unsubscribe(names), Some(peer)) => self.unsubscribe_named(peer, &names, now)?,
        };
        self.reply(connection, id, result);
        Ok(())
    }

    fn reply(&mut self, connection: ConnectionId, id: Option<RequestId>, result: Value) {
        if let Some(id) = id {
            self.outputs.push_back(Output::Send { connection, text: rpc::reply(&id, result) });
        }
    }

    fn allow_offer(&mut self, connection: ConnectionId, now: Now) -> Result<(), RpcError> {
        if self.connections.get_mut(&connection).is_some_and(|entry| entry.offers.take(now)) {
            return Ok(());
        }
        let (rate, burst) = (self.settings.offers_per_second, self.settings.offers_burst);
        let message =
            format!("too many offers: {rate} per second and {burst} at once are answered; offer changes together");
        Err(RpcError::new(ErrorCode::RateLimited, message))
    }

    fn refuse_rate(&self, recipient: Recipient) -> Result<(), Refusal> {
        let (rate, burst) = (self.settings.requests_per_second, self.settings.requests_burst);
        let message = format!("too many requests: {rate} per second and {burst} at once are served; send fewer");
        Err(Refusal { recipient, error: RpcError::new(ErrorCode::RateLimited, message) })
    }

    fn tell_refusal(&mut self, connection: ConnectionId, refusal: Refusal) {
        tracing::debug!(connection = connection.0, error = %refusal.error, "request refused");
        let text = match &refusal.recipient {
            Recipient::Request(id) => rpc::failure(Some(id), &refusal.error),
            Recipient::Unknown => rpc::failure(None, &refusal.error),
            Recipient::Nobody => return,
        };
        self.outputs.push_back(Output::Send { connection, text });
    }

    /// Closes a connection for a reason of ours and takes its peer out.
    fn dismiss(&mut self, connection: ConnectionId, code: u16, reason: &str, now: Now) {
        let Some(entry) = self.connections.get_mut(&connection) else { return };
        entry.closing = true;
        let (peer, turn) = (entry.peer.take(), entry.turn.take());
        self.revoke_turn(turn);
        self.outputs.push_back(Output::Close { connection, code, reason: reason.to_owned() });
        if let Some(peer) = peer {
            self.leave(peer, now);
        }
    }

    /// Sends a text frame to a peer.
    fn send(&mut self, peer: PeerId, text: String) {
        if let Some(peer) = self.peers.get(&peer) {
            self.outputs.push_back(Output::Send { connection: peer.connection, text });
        }
    }

    fn command(&mut self, command: Command) {
        self.outputs.push_back(Output::Command(command));
    }
}
