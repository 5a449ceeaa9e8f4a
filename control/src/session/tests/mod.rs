//! Rooms as their clients and the data plane see them, under a virtual clock and a seeded source of chance.

mod api;
mod client;
mod joining;
mod negotiation;
mod plane;
mod publishing;
mod relay;
mod storm;

use std::collections::BTreeMap;
use std::time::Duration;

use ringmain_shared::event::{CloseReason, Hello, IceState, WorkerInfo};
use ringmain_shared::id::{PeerId, TransportId};
use ringmain_shared::transport::{Fingerprint, FingerprintHash, Side};
use ringmain_shared::{Command, Event, Now};
use serde_json::{Value, json};

use super::{ConnectionId, Output, RngSource, Rooms, RoomsStats, Settings};
use client::Media;
use plane::Plane;

const ALICE: ConnectionId = ConnectionId(1);
const BOB: ConnectionId = ConnectionId(2);
const CAROL: ConnectionId = ConnectionId(3);

/// Rooms, their clients and a data plane that checks every command.
struct World {
    rooms: Rooms,
    plane: Plane,
    now: Now,
    clients: BTreeMap<ConnectionId, Client>,
    commands: Vec<Command>,
    /// From this one on, nobody looks at what connections hear: a crowd of extras.
    extras: ConnectionId,
}

/// What a client heard.
#[derive(Default)]
struct Client {
    heard: Vec<Value>,
    closed: Option<u16>,
    /// Offers that it answered so far.
    answered: usize,
    requests: u64,
}

impl World {
    fn new(settings: Settings) -> Self {
        Self::seeded(settings, 1)
    }

    fn seeded(settings: Settings, seed: u64) -> Self {
        let mut chance = Chance(seed);
        Self::with_random(settings, Box::new(move |bytes| bytes.fill_with(|| chance.next() as u8)))
    }

    fn with_random(settings: Settings, random: RngSource) -> Self {
        let workers = 2;
        let info = WorkerInfo { addresses: Vec::new(), turn: Vec::new(), link: "memory".to_owned() };
        let hello = Hello {
            fingerprint: Fingerprint { hash: FingerprintHash::Sha256, value: vec![7; 32] },
            workers: vec![info; workers],
        };
        let candidates = (0..workers).map(|index| vec![([192, 0, 2, 1], 5000 + index as u16).into()]).collect();
        Self {
            rooms: Rooms::new(settings, hello, candidates, 1, random),
            plane: Plane::default(),
            now: Now::from_millis(1000),
            clients: BTreeMap::new(),
            commands: Vec::new(),
            extras: ConnectionId(u64::MAX),
        }
    }

    /// Carries out what the rooms want done.
    fn drain(&mut self) {
        while let Some(output) = self.rooms.poll_output() {
            match output {
                Output::Command(command) => {
                    self.plane.apply(&command);
                    self.commands.push(command);
                }
                Output::Send { connection, .. } if connection >= self.extras => {}
                Output::Send { connection, text } => {
                    let client = self.clients.entry(connection).or_default();
                    assert_eq!(client.closed, None, "said after the close: {text}");
                    client.heard.push(serde_json::from_str(&text).expect("what is sent is JSON"));
                }
                Output::Close { connection, code, reason } => {
                    assert!(reason.len() <= 123);
                    assert_eq!(self.clients.entry(connection).or_default().closed.replace(code), None);
                }
            }
        }
        self.plane.check_nothing_dangles();
    }

    fn say(&mut self, connection: ConnectionId, text: &str) {
        self.rooms.handle_message(connection, text, self.now);
        self.drain();
    }

    /// Makes a request and gives its reply.
    fn request(&mut self, connection: ConnectionId, method: &str, params: Value) -> Value {
        let client = self.clients.entry(connection).or_default();
        client.requests += 1;
        let id = format!("3f0c-{}", client.requests);
        self.say(connection, &json!({"method": method, "params": params, "id": id}).to_string());
        let heard = &self.clients[&connection].heard;
        heard.iter().find(|message| message["id"] == id.as_str()).cloned().unwrap_or(Value::Null)
    }

    /// The code of the error that a request gets.
    fn error(&mut self, connection: ConnectionId, method: &str, params: Value) -> i64 {
        self.request(connection, method, params)["error"]["code"].as_i64().expect("an error")
    }

    fn notify(&mut self, connection: ConnectionId, method: &str, params: Value) {
        self.say(connection, &json!({"method": method, "params": params}).to_string());
    }

    /// Joins with an offer of `media` and gives the reply.
    fn join(&mut self, connection: ConnectionId, sid: &str, uid: &str, media: &[Media]) -> Value {
        let sdp = client::offer("abcd", media, &[]);
        self.request(connection, "join", json!({"sid": sid, "uid": uid, "offer": {"type": "offer", "sdp": sdp}}))
    }

    /// The usual: someone with a camera, in room `room`, all offers answered.
    fn joined(&mut self, connection: ConnectionId, uid: &str) -> PeerId {
        let reply = self.join(connection, "room", uid, &client::camera(&format!("{uid}-stream")));
        assert_eq!(reply["result"]["type"], "answer", "{reply}");
        self.settle();
        self.peer(connection)
    }

    /// Answers offers and lets time pass until all is quiet.
    fn settle(&mut self) {
        for _ in 0..10 {
            self.answer_all();
            self.pass(Duration::from_millis(200));
        }
    }

    fn answer_all(&mut self) {
        for connection in self.clients.keys().copied().collect::<Vec<_>>() {
            while self.clients[&connection].closed.is_none() && self.answer_next(connection, &[]) {}
        }
    }

    /// Answers the newest of the offers that a client did not answer yet.
    fn answer_next(&mut self, connection: ConnectionId, refused: &[&str]) -> bool {
        let offers = self.offers(connection);
        let client = self.clients.get_mut(&connection).expect("a client that was heard");
        if offers.len() <= client.answered {
            return false;
        }
        client.answered = offers.len();
        let sdp = client::answer(offers.last().expect("one at least"), "efgh", refused);
        self.notify(connection, "answer", json!({"desc": {"type": "answer", "sdp": sdp}}));
        true
    }

    /// Lets time pass, timers and all.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.rooms.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.rooms.handle_timeout(self.now);
            self.drain();
            assert!(self.rooms.poll_timeout().is_none_or(|next| next > due), "a timer that is due stays");
        }
        self.now = end;
    }

    fn leave(&mut self, connection: ConnectionId) {
        self.rooms.handle_closed(connection, self.now);
        self.clients.remove(&connection);
        self.drain();
    }

    fn event(&mut self, event: Event) {
        if let Event::Closed { transport, .. } = event {
            self.plane.kill(transport);
        }
        self.rooms.handle_event(event, self.now);
        self.drain();
    }

    fn ice(&mut self, transport: TransportId, state: IceState) {
        self.event(Event::IceState { transport, state });
    }

    fn close(&mut self, transport: TransportId) {
        self.event(Event::Closed { transport, reason: CloseReason::Abandoned });
    }

    fn peer(&self, connection: ConnectionId) -> PeerId {
        self.rooms.connections[&connection].peer.expect("one that has joined")
    }

    fn transport(&self, connection: ConnectionId, side: Side) -> TransportId {
        self.plane.of(self.peer(connection), side).expect("an open connection")
    }

    /// What a client gets: stream and track ids as the offers have them, in the order of its subscriptions.
    fn gets(&self, connection: ConnectionId) -> Vec<String> {
        let transport = self.transport(connection, Side::Subscriber);
        let shown = |track| {
            let shown = &self.rooms.tracks[track].shown;
            format!("{} {}", shown.stream, shown.track)
        };
        self.plane.subscriptions_of(transport).iter().map(|sub| shown(&sub.track)).collect()
    }

    fn heard(&self, connection: ConnectionId, method: &str) -> Vec<Value> {
        let heard = self.clients.get(&connection).map(|client| client.heard.as_slice()).unwrap_or_default();
        heard.iter().filter(|message| message["method"] == method).map(|message| message["params"].clone()).collect()
    }

    fn offers(&self, connection: ConnectionId) -> Vec<String> {
        let offers = self.heard(connection, "offer");
        offers.iter().map(|offer| offer["sdp"].as_str().expect("an offer is text").to_owned()).collect()
    }

    /// Texts on a client's API channel.
    fn api(&self, connection: ConnectionId) -> Vec<Value> {
        let transport = self.transport(connection, Side::Subscriber);
        let own = self.plane.api.iter().filter(|(to, _)| *to == transport);
        own.map(|(_, text)| serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into())).collect()
    }

    /// Everyone is gone, and nothing stays behind in either plane.
    fn check_empty(&self) {
        assert_eq!(self.rooms.stats(), RoomsStats::default());
        assert!(self.plane.transports.is_empty() && self.plane.subscriptions.is_empty());
        assert!(self.rooms.rooms.is_empty() && self.rooms.names.is_empty());
        assert_eq!(self.rooms.workers.transports(), 0);
    }
}

/// xorshift64*: enough chance for a test, the same every time.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn below(&mut self, count: usize) -> usize {
        self.next() as usize % count
    }
}
