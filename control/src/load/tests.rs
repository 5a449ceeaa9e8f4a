//! The load generator's client against a server that speaks as ion-sfu does, quirks and all.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::client::{Chatter, Client, World};
use super::engine::{Handle, Key, MediaSpec, Opening, Order, Side};
use super::frames::VideoShape;
use super::messages::LABEL;
use super::publisher::Content;
use super::sdp;
use super::secure::{Identity, Version};
use super::subscriber::Payload;
use super::target::Target;

const ANSWER: &str = include_str!("testdata/ion_sfu_answer.sdp");
const OFFER: &str = include_str!("testdata/ion_sfu_offer.sdp");
/// As pion writes candidates, and as ion-sfu trickles them: without a mid.
const CANDIDATE: &str = "candidate:842163049 1 udp 2130706431 127.0.0.1 5000 typ host";

const VIDEO: Content =
    Content::Video { shape: VideoShape { fps: 30, packets: 8, size: 1100, uneven: false }, spacing: Duration::ZERO };

struct Scene {
    server: WebSocketStream<TcpStream>,
    orders: mpsc::Receiver<Order>,
    client: JoinHandle<Result<(), String>>,
    stop: watch::Sender<bool>,
}

impl Scene {
    async fn begin(is_publisher: bool) -> Self {
        Self::begin_with(is_publisher, None).await
    }

    async fn begin_with(is_publisher: bool, chatter: Option<Chatter>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("ws://{}/ws", listener.local_addr().expect("bound"));
        let world = World {
            target: Target::find(&url, false).expect("loopback"),
            identity: Identity::new(Version::V12, Instant::now()).expect("an identity"),
            tls: None,
            seed: 1,
            bare: false,
            chatter,
        };
        let (engine, orders) = Handle::of_nobody();
        let contents = if is_publisher { vec![VIDEO] } else { Vec::new() };
        let client = Client { number: 0, room: "room".into(), contents, is_publisher, engine };
        let (stop, stopped) = watch::channel(false);
        let client = tokio::spawn(client.run(Arc::new(world), stopped));
        let (stream, _) = listener.accept().await.expect("it connects");
        let server = tokio_tungstenite::accept_async(stream).await.expect("it upgrades");
        Self { server, orders, client, stop }
    }

    async fn hear(&mut self) -> Value {
        let message = tokio::time::timeout(Duration::from_secs(5), self.server.next()).await.expect("in time");
        serde_json::from_str(message.expect("open").expect("a message").to_text().expect("text")).expect("JSON")
    }

    async fn say(&mut self, message: Value) {
        self.server.send(Message::text(message.to_string())).await.expect("sends");
    }

    async fn ordered(&self) -> Order {
        for _ in 0..500 {
            match self.orders.try_recv() {
                Ok(order) => return order,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("nothing was ordered")
    }

    async fn opened(&self) -> Opening {
        match self.ordered().await {
            Order::Open(opening) => *opening,
            _ => panic!("another order"),
        }
    }
}

fn trickle(target: u8) -> Value {
    let candidate = json!({ "candidate": CANDIDATE, "sdpMid": "", "sdpMLineIndex": 0, "usernameFragment": null });
    json!({ "jsonrpc": "2.0", "method": "trickle", "params": { "target": target, "candidate": candidate } })
}

fn address() -> SocketAddr {
    "127.0.0.1:5000".parse().expect("an address")
}

#[tokio::test]
async fn a_publisher_gets_along_with_ion_sfus_answer() {
    let mut scene = Scene::begin(true).await;
    let join = scene.hear().await;
    assert_eq!((&join["method"], &join["params"]["sid"]), (&json!("join"), &json!("room")));
    assert_eq!(join["params"]["config"], json!({ "NoSubscribe": true }));
    let offer = join["params"]["offer"]["sdp"].as_str().expect("an offer");
    assert!(offer.contains("m=video 9 UDP/TLS/RTP/SAVPF 96\r\n") && offer.contains("a=setup:actpass"), "{offer}");
    // Candidates may come before the answer, and after.
    scene.say(trickle(0)).await;
    scene.say(json!({ "id": join["id"], "jsonrpc": "2.0", "result": { "type": "answer", "sdp": ANSWER } })).await;
    let opening = scene.opened().await;
    assert_eq!(opening.key, Key { client: 0, side: Side::Publisher });
    assert_eq!(opening.transport.candidates, [address()]);
    assert_eq!(opening.transport.remote.ufrag, "XkYxQpOaVwRtUzLm");
    assert!(opening.transport.is_controlling && !opening.transport.is_dtls_client, "the server is DTLS's client here");
    assert_eq!(opening.transport.fingerprints.len(), 1, "it is in the session's part");
    let MediaSpec::Send(tracks) = opening.media else { panic!("it publishes") };
    assert_eq!((tracks.len(), tracks[0].payload_type, tracks[0].transport_cc), (1, 96, None));
    assert!(offer.contains(&format!("a=ssrc:{} cname:", tracks[0].ssrc)));
    scene.say(trickle(0)).await;
    assert!(matches!(scene.ordered().await, Order::Candidate(_, candidate) if candidate == address()));
    scene.stop.send_replace(true);
    assert_eq!(scene.client.await.expect("no panic"), Ok(()));
}

/// ion-sfu 1.11.0 ends with a nil dereference when the owner of a new data channel has no subscriber connection.
#[tokio::test]
async fn a_publisher_with_data_channels_has_a_subscriber_connection_and_hears_only_on_its_own_channel() {
    let mut scene = Scene::begin_with(true, Some(Chatter { per_second: 10, size: 200 })).await;
    let join = scene.hear().await;
    assert_eq!(join["params"]["config"], json!({ "NoAutoSubscribe": true }));
    let offer = join["params"]["offer"]["sdp"].as_str().expect("an offer");
    assert!(offer.contains("m=video ") && offer.contains("m=application "), "{offer}");
    let alone = OFFER.split("m=audio").next().expect("a first part");
    scene.say(json!({ "id": join["id"], "jsonrpc": "2.0", "result": { "type": "answer", "sdp": ANSWER } })).await;
    scene.say(json!({ "jsonrpc": "2.0", "method": "offer", "params": { "type": "offer", "sdp": alone } })).await;
    let (publisher, subscriber) = (scene.opened().await, scene.opened().await);
    assert_eq!((publisher.key.side, subscriber.key.side), (Side::Publisher, Side::Subscriber));
    let says = |opening: &Opening| (opening.talk.opens, opening.talk.says.is_some(), opening.talk.listens);
    assert_eq!((says(&publisher), says(&subscriber)), ((Some(LABEL), true, true), (None, false, false)));
}

#[tokio::test]
async fn a_subscriber_answers_ion_sfus_offers() {
    let mut scene = Scene::begin(false).await;
    let join = scene.hear().await;
    let offer = join["params"]["offer"]["sdp"].as_str().expect("ion-sfu fails joins without one");
    assert!(offer.contains("m=application 9 UDP/DTLS/SCTP webrtc-datachannel"), "{offer}");
    scene.say(json!({ "jsonrpc": "2.0", "method": "offer", "params": { "type": "offer", "sdp": OFFER } })).await;
    let answer = scene.hear().await;
    assert_eq!((&answer["method"], &answer["id"]), (&json!("answer"), &Value::Null));
    assert_eq!(answer["params"]["desc"]["type"], "answer");
    let sdp = answer["params"]["desc"]["sdp"].as_str().expect("an answer");
    let m_lines: Vec<&str> = sdp.lines().filter(|line| line.starts_with("m=")).collect();
    let expected =
        ["m=application 9 DTLS/SCTP 5000", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 9 UDP/TLS/RTP/SAVPF 96"];
    assert_eq!(m_lines, expected);
    assert_eq!(sdp.matches("a=setup:active").count(), 3);
    assert_eq!(sdp.matches("a=recvonly").count(), 2);

    let opening = scene.opened().await;
    assert_eq!(opening.key.side, Side::Subscriber);
    assert!(!opening.transport.is_controlling, "the offering side controls when both are full");
    assert!(opening.transport.is_dtls_client && opening.transport.candidates.is_empty());
    let MediaSpec::Receive(map) = opening.media else { panic!("it subscribes") };
    assert_eq!((map.payloads[&111], map.payloads[&96]), (Payload::Opus, Payload::Vp8));
    scene.say(trickle(1)).await;
    assert!(matches!(scene.ordered().await, Order::Candidate(key, _) if key.side == Side::Subscriber));
    // The next offer finds the connection open.
    scene.say(json!({ "jsonrpc": "2.0", "method": "offer", "params": { "type": "offer", "sdp": OFFER } })).await;
    scene.hear().await;
    assert!(matches!(scene.ordered().await, Order::Described(..)));
}

#[tokio::test]
async fn a_refusal_of_the_server_ends_the_client_with_its_words() {
    let mut scene = Scene::begin(true).await;
    let join = scene.hear().await;
    let error = json!({ "code": 500, "message": "error creating answer: no codec" });
    scene.say(json!({ "id": join["id"], "error": error, "jsonrpc": "2.0" })).await;
    let why = scene.client.await.expect("no panic").expect_err("refused");
    assert!(why.contains("no codec"), "{why}");
}

#[tokio::test]
async fn a_server_that_wants_media_sent_to_another_host_is_refused() {
    let mut scene = Scene::begin(true).await;
    scene.hear().await;
    let answer = format!("{ANSWER}a={}\n", CANDIDATE.replace("127.0.0.1", "192.0.2.7"));
    scene.say(json!({ "id": 1, "result": { "type": "answer", "sdp": answer } })).await;
    let why = scene.client.await.expect("no panic").expect_err("refused");
    assert!(why.contains("192.0.2.7 is not an address of this host"), "{why}");
}

#[test]
fn ice_lite_is_seen_however_it_is_written() {
    assert!(sdp::remote(ANSWER).expect("reads").is_lite);
    assert!(sdp::remote(&ANSWER.replace("a=ice-lite:ice-lite", "a=ice-lite")).expect("reads").is_lite);
    assert!(!sdp::remote(OFFER).expect("reads").is_lite);
}

#[test]
fn a_channel_may_be_refused_when_media_is_left() {
    let local = sdp::Local { ice: Default::default(), fingerprint: "sha-256 00".into(), address: address() };
    let answer = sdp::answer(OFFER, &local, true);
    assert!(answer.contains("m=application 0 DTLS/SCTP 5000") && answer.contains("a=group:BUNDLE 1 2\r\n"), "{answer}");
    let alone = OFFER.split("m=audio").next().expect("a first part");
    assert!(sdp::answer(alone, &local, true).contains("m=application 9 "));
}

#[test]
fn candidates_for_tcp_and_names_are_passed_over() {
    assert_eq!(sdp::candidate(CANDIDATE), Some(address()));
    assert_eq!(sdp::candidate(&CANDIDATE.replace("udp", "tcp")), None);
    assert_eq!(sdp::candidate(&CANDIDATE.replace("127.0.0.1", "abc.local")), None);
    assert_eq!(sdp::candidate(""), None);
}
