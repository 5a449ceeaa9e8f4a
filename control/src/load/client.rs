//! One client's signalling: joins over a WebSocket, offers what it publishes, answers what it is offered, and hands sockets and
//! keys of both peer connections to an engine. Speaks the dialect of ion-sfu as `ion-sdk-js` does, quirks of servers included.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::chance::Chance;
use super::engine::{Handle, Key, MediaSpec, Opening, Order, Side};
use super::ice::Credentials;
use super::messages::{API_LABEL, LABEL, Saying, Talk};
use super::publisher::{Content, TrackSpec};
use super::sdp::{self, Kind, Local, OfferedTrack, Remote};
use super::secure::Identity;
use super::target::Target;
use super::transport::TransportSpec;
use super::wire::{Tls, Wire};

/// What all clients of a run share.
pub(super) struct World {
    pub(super) target: Target,
    /// Around the signalling, if the target asks for it.
    pub(super) tls: Option<Tls>,
    pub(super) identity: Arc<Identity>,
    pub(super) seed: u64,
    /// Subscribers have no publisher connection and no data channel.
    pub(super) bare: bool,
    /// Data channels are used; what each publisher says on its own.
    pub(super) chatter: Option<Chatter>,
}

/// Messages of one publisher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Chatter {
    pub(super) per_second: u32,
    pub(super) size: usize,
}

/// A client to be.
#[derive(Clone)]
pub(super) struct Client {
    /// Unique in this run.
    pub(super) number: u32,
    pub(super) room: String,
    /// What it publishes. Whoever publishes does not subscribe.
    pub(super) contents: Vec<Content>,
    pub(super) is_publisher: bool,
    pub(super) engine: Handle,
}

impl Client {
    /// The connections that must be up before it has joined.
    pub(super) fn sides(&self, world: &World) -> Vec<Side> {
        match (self.is_publisher, world.bare, world.chatter) {
            (true, _, None) => vec![Side::Publisher],
            (false, true, _) => vec![Side::Subscriber],
            (true, _, Some(_)) | (false, false, _) => vec![Side::Publisher, Side::Subscriber],
        }
    }

    /// Lives until `stop` changes, which is no failure.
    pub(super) async fn run(self, world: Arc<World>, mut stop: watch::Receiver<bool>) -> Result<(), String> {
        let (engine, number) = (self.engine.clone(), self.number);
        let mut session = Session::open(self, world).await?;
        let result = session.run(&mut stop).await;
        for side in [Side::Publisher, Side::Subscriber] {
            engine.order(Order::Close(Key { client: number, side }));
        }
        let _ = session.socket.close(None).await;
        result
    }
}

struct Session {
    client: Client,
    world: Arc<World>,
    socket: WebSocketStream<Box<dyn Wire>>,
    /// The address that the server's signalling sees; media leaves from there too.
    local: SocketAddr,
    chance: Chance,
    /// Until it is answered: its local side, what it offers, and the socket that its candidate names.
    publisher: Option<Pending>,
    subscriber: Option<Local>,
    /// Candidates that came before their description.
    early: HashMap<usize, Vec<SocketAddr>>,
}

struct Pending {
    local: Local,
    socket: UdpSocket,
    tracks: Vec<OfferedTrack>,
}

impl Session {
    async fn open(client: Client, world: Arc<World>) -> Result<Self, String> {
        let target = &world.target;
        let plain = |what: &str, error: &dyn std::fmt::Display| format!("{what} {}: {error}", target.url);
        let socket = if target.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(|error| plain("cannot open a socket to", &error))?;
        if let Some(source) = target.source(client.number) {
            socket.bind(SocketAddr::new(source, 0)).map_err(|error| plain("cannot bind to reach", &error))?;
        }
        let stream = socket.connect(target.address).await.map_err(|error| plain("cannot connect to", &error))?;
        let _ = stream.set_nodelay(true);
        let local = stream.local_addr().map_err(|error| plain("no address towards", &error))?;
        let stream: Box<dyn Wire> = match &world.tls {
            Some(tls) => tls.wrap(stream).await.map_err(|error| plain("no TLS with", &error))?,
            None => Box::new(stream),
        };
        let upgraded = tokio_tungstenite::client_async(target.url.as_str(), stream).await;
        let (socket, _) = upgraded.map_err(|error| plain("no WebSocket at", &error))?;
        let chance = Chance::new(world.seed, SIGNALLING_LANE + u64::from(client.number));
        Ok(Self { client, world, socket, local, chance, publisher: None, subscriber: None, early: HashMap::new() })
    }

    async fn run(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), String> {
        self.join().await?;
        loop {
            tokio::select! {
                _ = stop.changed() => return Ok(()),
                message = self.socket.next() => match message {
                    Some(Ok(Message::Text(text))) => self.handle(text.as_str()).await?,
                    Some(Ok(Message::Close(frame))) => {
                        let why = frame.map_or_else(|| "without a reason".into(), |frame| frame.to_string());
                        return Err(format!("the server has closed the signalling: {why}"));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(format!("signalling has ended: {error}")),
                    None => return Err("signalling has ended".into()),
                },
            }
        }
    }

    async fn join(&mut self) -> Result<(), String> {
        let name = format!("load-{}-{}", self.world.seed, self.client.number);
        let mut params = json!({ "sid": self.client.room, "uid": name });
        if self.client.is_publisher {
            // ion-sfu crashes when a peer that has no subscriber connection opens a data channel.
            let without = if self.world.chatter.is_some() { "NoAutoSubscribe" } else { "NoSubscribe" };
            params["config"] = json!({ without: true });
        }
        if self.client.is_publisher || !self.world.bare {
            let (local, socket) = self.local_side()?;
            let track = |content: &Content| {
                let kind = if matches!(content, Content::Video { .. }) { Kind::Video } else { Kind::Audio };
                OfferedTrack { kind, ssrc: self.chance.ssrc() }
            };
            let tracks: Vec<OfferedTrack> = self.client.contents.iter().map(track).collect();
            params["offer"] =
                json!({ "type": "offer", "sdp": sdp::offer(&local, &name, &tracks, self.world.chatter.is_some()) });
            self.publisher = Some(Pending { local, socket, tracks });
        } else {
            params["config"] = json!({ "NoPublish": true });
        }
        self.send(json!({ "method": "join", "params": params, "id": name })).await
    }

    async fn handle(&mut self, text: &str) -> Result<(), String> {
        let message: Value = serde_json::from_str(text).map_err(|error| format!("the server sent no JSON: {error}"))?;
        if let Some(error) = message.get("error") {
            return Err(format!("the server refuses: {error}"));
        }
        match message.get("method").and_then(Value::as_str) {
            Some("offer") => match message["params"]["sdp"].as_str() {
                Some(offer) => self.answer(offer).await,
                None => Err("the server's offer has no sdp".into()),
            },
            Some("trickle") => {
                self.trickled(&message["params"]);
                Ok(())
            }
            Some(_) => Ok(()),
            None => match message["result"]["sdp"].as_str() {
                Some(answer) => self.answered(answer),
                None => Ok(()),
            },
        }
    }

    /// The server has answered the offer of the publisher connection.
    fn answered(&mut self, answer: &str) -> Result<(), String> {
        let Some(Pending { local, socket, tracks }) = self.publisher.take() else { return Ok(()) };
        let agreed = sdp::agreed(answer, &tracks)?;
        let specs = tracks.iter().zip(agreed).zip(&self.client.contents).enumerate();
        let specs: Vec<TrackSpec> = specs
            .map(|(index, ((track, agreed), content))| TrackSpec {
                source: self.client.number << 1 | index as u32,
                ssrc: track.ssrc,
                payload_type: agreed.payload_type,
                transport_cc: agreed.transport_cc,
                content: *content,
            })
            .collect();
        let remote = sdp::remote(answer)?;
        let media = if specs.is_empty() { MediaSpec::Nothing } else { MediaSpec::Send(specs) };
        self.hand_over(Side::Publisher, local, remote, socket, media)
    }

    /// The server offers the subscriber connection, for the first time or again.
    async fn answer(&mut self, offer: &str) -> Result<(), String> {
        let remote = sdp::remote(offer)?;
        let map = sdp::media_map(offer);
        let (local, opening) = match self.subscriber.clone() {
            Some(local) => (local, None),
            None => {
                let (local, socket) = self.local_side()?;
                (local, Some(socket))
            }
        };
        let answer = sdp::answer(offer, &local, self.world.bare);
        let description = json!({ "desc": { "type": "answer", "sdp": answer } });
        self.send(json!({ "method": "answer", "params": description })).await?;
        match opening {
            Some(socket) => {
                self.subscriber = Some(local.clone());
                self.hand_over(Side::Subscriber, local, remote, socket, MediaSpec::Receive(map))
            }
            None => {
                for candidate in self.world.target.candidates(&remote.candidates)? {
                    self.order(Side::Subscriber, |key| Order::Candidate(key, candidate));
                }
                self.order(Side::Subscriber, |key| Order::Described(key, remote.ice, map));
                Ok(())
            }
        }
    }

    fn trickled(&mut self, params: &Value) {
        let side = if params["target"].as_u64() == Some(1) { Side::Subscriber } else { Side::Publisher };
        let line = params["candidate"]["candidate"].as_str().unwrap_or_default();
        let candidates = sdp::candidate(line).map(|candidate| self.world.target.candidates(&[candidate]));
        // A foreign candidate is passed over; without another one ICE will fail, and say so.
        for candidate in candidates.and_then(Result::ok).unwrap_or_default() {
            let is_open = match side {
                Side::Publisher => self.publisher.is_none(),
                Side::Subscriber => self.subscriber.is_some(),
            };
            if is_open {
                self.order(side, |key| Order::Candidate(key, candidate));
                continue;
            }
            let early = self.early.entry(side as usize).or_default();
            if early.len() < EARLY_MAX {
                early.push(candidate);
            }
        }
    }

    /// A socket, and what a description says of it.
    fn local_side(&mut self) -> Result<(Local, UdpSocket), String> {
        let bound = UdpSocket::bind(SocketAddr::new(self.local.ip(), 0));
        let socket = bound.map_err(|error| format!("cannot open a UDP socket: {error}"))?;
        let address = socket.local_addr().map_err(|error| error.to_string())?;
        // Best effort: a burst to many subscribers must not overflow the receiver that is to measure it.
        let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &RECEIVE_BUFFER);
        let ice = Credentials { ufrag: self.chance.text(8), pwd: self.chance.text(32) };
        let fingerprint = self.world.identity.fingerprint.clone();
        Ok((Local { ice, fingerprint, address }, socket))
    }

    /// Both sides are described: the engine goes on. We offered the publisher connection, the server the subscriber connection.
    fn hand_over(
        &mut self,
        side: Side,
        local: Local,
        remote: Remote,
        socket: UdpSocket,
        media: MediaSpec,
    ) -> Result<(), String> {
        let talk = self.talk(side);
        let mut candidates = self.world.target.candidates(&remote.candidates)?;
        candidates.extend(self.early.remove(&(side as usize)).unwrap_or_default());
        let transport = TransportSpec {
            local: local.ice,
            remote: remote.ice,
            candidates,
            fingerprints: remote.fingerprints,
            // RFC 8445 §6.1.1: who offers controls, unless the other one is lite.
            is_controlling: side == Side::Publisher || remote.is_lite,
            // RFC 8842 §5.3: who answers chooses. We are active; a server is, unless it says that it waits.
            is_dtls_client: side == Side::Subscriber || remote.setup == "passive",
            has_channels: remote.has_channel && self.world.chatter.is_some(),
        };
        self.order(side, |key| Order::Open(Box::new(Opening { key, socket, transport, media, talk })));
        Ok(())
    }

    /// What the client does with data channels on one side. As `ion-sdk-js` does, a subscriber opens a channel under the API's
    /// label where nobody answers, so that its publisher connection has something to negotiate. A publisher hears the others on
    /// the channel that it opened itself.
    fn talk(&self, side: Side) -> Talk {
        let Client { is_publisher, number: source, .. } = self.client;
        match (side, is_publisher, self.world.chatter) {
            (Side::Publisher, true, Some(Chatter { per_second, size })) => {
                let says = (per_second > 0).then_some(Saying { source, per_second, size });
                Talk { opens: Some(LABEL), says, listens: true }
            }
            (Side::Publisher, false, Some(_)) => Talk { opens: Some(API_LABEL), says: None, listens: true },
            _ => Talk { opens: None, says: None, listens: !is_publisher },
        }
    }

    fn order(&self, side: Side, order: impl FnOnce(Key) -> Order) {
        self.client.engine.order(order(Key { client: self.client.number, side }));
    }

    async fn send(&mut self, message: Value) -> Result<(), String> {
        let sent = self.socket.send(Message::text(message.to_string())).await;
        sent.map_err(|error| format!("signalling has ended: {error}"))
    }
}

/// Bytes that a socket may hold unread.
const RECEIVE_BUFFER: usize = 2 << 20;
const EARLY_MAX: usize = 16;
/// Keeps the numbers of signalling apart from those of media.
const SIGNALLING_LANE: u64 = 1 << 48;
