//! The server over loopback with real clients, kind ones and others.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use ringmain_shared::drop_reason::DropReason;
use ringmain_shared::event::{Event, HandshakeStats, WorkerStats};
use ringmain_shared::limits::SIGNAL_MESSAGE_SIZE_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::*;
use crate::app::actor::Actor;
use crate::app::connection::{OUTGOING_SIZE_MAX, door};
use crate::app::fakes::{EchoRooms, FakePlane, Feeder, Told};
use gate::Gate;
use listen::Listener;
use socket::Liveness;

/// A whole server but for the planes.
struct Server {
    address: SocketAddr,
    told: mpsc::Receiver<Told>,
    feeder: Feeder,
    stop: watch::Sender<bool>,
    actor: tokio::task::JoinHandle<std::io::Result<()>>,
}

struct Setup {
    allow_origin: Vec<String>,
    liveness: Liveness,
    per_ip: usize,
    websockets_per_ip: usize,
    tls: Option<tls::Certificate>,
    age: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        let liveness = Liveness { ping_interval: Duration::from_secs(15), dead_after: Duration::from_secs(40) };
        Self {
            allow_origin: Vec::new(),
            liveness,
            per_ip: 1000,
            websockets_per_ip: 1000,
            tls: None,
            age: Duration::ZERO,
        }
    }
}

impl Setup {
    async fn start(self) -> Server {
        let (tell, told) = mpsc::channel();
        let (plane, feeder) = FakePlane::new(tell.clone());
        let (door, inbox) = door();
        let (stop, stopped) = watch::channel(false);
        let start = Instant::now().checked_sub(self.age).expect("this machine has been up longer");
        let actor = Actor::new(EchoRooms::new(tell), plane, 1, start);
        let actor = tokio::spawn(actor.run(inbox, stopped.clone()));
        let routes = Routes {
            door,
            allow_origin: self.allow_origin.into(),
            liveness: self.liveness,
            metrics: true,
            connections: Gate::new(1000, self.per_ip),
            websockets: Gate::new(1000, self.websockets_per_ip),
        };
        let socket = listen::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = socket.local_addr().expect("bound");
        let listener = Listener {
            gate: routes.connections.clone(),
            router: routes.router(),
            tls: self.tls.map(|certificate| certificate.server_config().expect("sound")),
            handshakes: Arc::new(Semaphore::new(4)),
        };
        tokio::spawn(listener.serve(socket, stopped));
        Server { address, told, feeder, stop, actor }
    }
}

impl Server {
    async fn websocket(&self) -> WebSocketStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.expect("connects");
        let url = format!("ws://{}/ws", self.address);
        tokio_tungstenite::client_async(url, stream).await.expect("upgrades").0
    }

    /// The whole answer to a request without a body.
    async fn ask(&self, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("sends");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("answers");
        String::from_utf8(answer).expect("text")
    }

    /// Waits until the rooms have been told something that `is` wanted.
    async fn wait_told(&self, is: impl Fn(&Told) -> bool) -> Told {
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            match self.told.try_recv() {
                Ok(told) if is(&told) => return told,
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        panic!("the rooms were not told");
    }
}

/// Reads on to the close frame.
async fn close_frame(client: &mut WebSocketStream<TcpStream>) -> Option<CloseFrame> {
    let reading = async {
        while let Some(Ok(message)) = client.next().await {
            if let Message::Close(frame) = message {
                return frame;
            }
        }
        None
    };
    timeout(Duration::from_secs(10), reading).await.expect("the connection ends")
}

fn is_closed(told: &Told) -> bool {
    matches!(told, Told::Closed(_))
}

#[tokio::test]
async fn the_page_is_served_with_its_policy() {
    let server = Setup::default().start().await;
    let answer = server.ask("/", "").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for words in ["content-type: text/html; charset=utf-8", "default-src 'none'", "nosniff", "<!doctype html>"] {
        assert!(answer.contains(words), "{words} is missing: {answer}");
    }
    assert!(server.ask("/../Cargo.toml", "").await.starts_with("HTTP/1.1 404"));
    assert!(server.ask("/ws", "").await.starts_with("HTTP/1.1 4"), "not an upgrade");
}

#[tokio::test]
async fn health_follows_the_workers() {
    let young = Setup::default().start().await;
    let answer = young.ask("/healthz", "").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ok\n"), "{answer}");

    let mut old = Setup { age: Duration::from_secs(60), ..Setup::default() }.start().await;
    let answer = old.ask("/healthz", "Accept: application/json\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("\"silent_workers\":[0]") && answer.contains(env!("CARGO_PKG_VERSION")), "{answer}");
    old.feeder.give(Event::Stats(Box::default()));
    old.wait_told(|told| matches!(told, Told::Event(_))).await;
    assert!(old.ask("/healthz", "").await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn health_names_the_thread_that_stands_still_until_it_turns_again() {
    let mut server = Setup::default().start().await;
    let thread = || "handshake-0".to_owned();
    server.feeder.give(Event::Stalled { thread: thread(), silent_ms: 2100 });
    server.wait_told(|told| matches!(told, Told::Event(Event::Stalled { .. }))).await;
    let answer = server.ask("/healthz", "").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("\nhandshake-0 stands still\n"), "{answer}");
    let answer = server.ask("/healthz", "Accept: application/json\r\n").await;
    assert!(answer.contains("\"stalled_threads\":[\"handshake-0\"]"), "{answer}");
    assert!(server.ask("/metrics", "").await.contains("\nringmain_stalled_threads 1\n"));
    server.feeder.give(Event::Recovered { thread: thread() });
    server.wait_told(|told| matches!(told, Told::Event(Event::Recovered { .. }))).await;
    let answer = server.ask("/healthz", "").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ok\n"), "{answer}");
}

#[tokio::test]
async fn metrics_carry_the_counters_of_the_workers() {
    let mut server = Setup::default().start().await;
    let mut drops = vec![0; DropReason::COUNT];
    drops[DropReason::Replayed as usize] = 7;
    let stats = WorkerStats {
        rtp_expected: 200,
        rtp_received: 150,
        jitter_us: 2500,
        video_tracks: 3,
        drops,
        ..WorkerStats::default()
    };
    let handshakes = HandshakeStats { api_flooded: 9, ..HandshakeStats::default() };
    server.feeder.give(Event::HandshakeStats { thread: 0, stats: handshakes });
    server.feeder.give(Event::Stats(Box::new(stats)));
    server.wait_told(|told| matches!(told, Told::Event(Event::Stats(_)))).await;
    let answer = server.ask("/metrics", "").await;
    for line in [
        "sfu_sessions 1",
        "sfu_video_tracks 3",
        "rtp_expected 200",
        "rtp_expected_minus_received 50",
        "rtp_lost_rate 0.25",
        "rtp_jitter 2.5",
        "rtp_drift_millis 0",
        "ringmain_dropped_total{worker=\"0\",reason=\"replayed\"} 7",
        "# TYPE ringmain_dropped_total counter",
        "ringmain_handshake_total{thread=\"0\",outcome=\"api_flooded\"} 9",
    ] {
        assert!(answer.lines().any(|found| found == line), "{line} is missing: {answer}");
    }
    for reason in DropReason::ALL {
        assert!(answer.contains(&format!("reason=\"{}\"", reason.metric())), "{reason:?}");
    }
    let names: Vec<&str> = answer.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let unique: std::collections::BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(names.len(), unique.len(), "a metric is declared twice");
}

#[tokio::test]
async fn a_websocket_beyond_the_limit_is_told_so_and_closed() {
    let server = Setup { websockets_per_ip: 2, ..Setup::default() }.start().await;
    let (first, mut second) = (server.websocket().await, server.websocket().await);
    let mut third = server.websocket().await;
    let text = third.next().await.expect("open").expect("a message").into_text().expect("text");
    let told: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&told["id"], &told["error"]["code"]), (&serde_json::Value::Null, &(-32007).into()));
    assert_eq!(told["error"]["data"], serde_json::json!({"limit": "limits.websockets_per_ip", "retry_after": 5.0}));
    match third.next().await {
        Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), 1013),
        other => panic!("{other:?}"),
    }
    second.send("echo served".into()).await.expect("sends");
    assert_eq!(second.next().await.expect("open").expect("a message").into_text().expect("text").as_str(), "served");
    assert!(server.ask("/metrics", "").await.contains("\nringmain_refused_total{limit=\"websockets_per_ip\"} 1\n"));
    drop(first);
    server.wait_told(is_closed).await;
    let mut fourth = server.websocket().await;
    let _ = fourth.send("echo room again".into()).await;
    let answer = fourth.next().await.expect("open").expect("a message");
    assert_eq!(answer.into_text().expect("text").as_str(), "room again");
}

#[tokio::test]
async fn texts_reach_the_rooms_and_answers_come_back_in_order() {
    let server = Setup::default().start().await;
    let mut client = server.websocket().await;
    for index in 0..50 {
        client.send(format!("echo {index}").into()).await.expect("sends");
    }
    for index in 0..50 {
        let message = client.next().await.expect("open").expect("a message");
        assert_eq!(message.into_text().expect("text").as_str(), index.to_string());
    }
    client.close(None).await.expect("closes");
    assert!(matches!(client.next().await, Some(Ok(Message::Close(_))) | None), "the close is answered");
    server.wait_told(is_closed).await;
}

#[tokio::test]
async fn the_rooms_close_a_client_after_what_they_said() {
    let server = Setup::default().start().await;
    let mut client = server.websocket().await;
    client.send("close".into()).await.expect("sends");
    let first = client.next().await.expect("open").expect("a message");
    assert_eq!(first.into_text().expect("text").as_str(), "goodbye");
    let frame = close_frame(&mut client).await.expect("a close frame");
    assert_eq!(u16::from(frame.code), 4001);
    assert_eq!(frame.reason.len(), 123, "a reason that is too long is cut");
    server.wait_told(is_closed).await;
}

#[tokio::test]
async fn each_misuse_has_its_close_code() {
    let misuses: [(&str, Vec<Message>, u16); 4] = [
        ("a long message", vec![Message::Text("x".repeat(SIGNAL_MESSAGE_SIZE_MAX + 1).into())], 1009),
        ("a longer message", vec![Message::Text("x".repeat(1024 * 1024).into())], 1009),
        ("a binary message", vec![Message::Binary(vec![1, 2, 3].into())], 1003),
        ("a flood of pings", vec![Message::Ping(vec![0; 8].into()); 200], 1008),
    ];
    let server = Setup::default().start().await;
    for (name, messages, code) in misuses {
        let mut client = server.websocket().await;
        for message in messages {
            // The server may have closed before it took them all.
            if client.send(message).await.is_err() {
                break;
            }
        }
        let frame = close_frame(&mut client).await.unwrap_or_else(|| panic!("{name}: no close frame"));
        assert_eq!(u16::from(frame.code), code, "{name}: {}", frame.reason);
        server.wait_told(is_closed).await;
    }
    // The longest message that is allowed.
    let mut client = server.websocket().await;
    let longest = format!("echo {}", "x".repeat(SIGNAL_MESSAGE_SIZE_MAX - 5));
    client.send(longest.into()).await.expect("sends");
    assert_eq!(client.next().await.expect("open").expect("a message").len(), SIGNAL_MESSAGE_SIZE_MAX - 5);
}

#[tokio::test]
async fn bytes_against_the_protocol_close_with_1002_and_bad_utf8_with_1007() {
    let server = Setup::default().start().await;
    // An unmasked text frame; a masked text frame of one byte that is no UTF-8.
    for (bytes, code) in [(&[0x81_u8, 1, b'x'][..], 1002_u16), (&[0x81, 0x81, 0, 0, 0, 0, 0xff][..], 1007)] {
        let mut stream = raw_websocket(&server).await;
        stream.write_all(bytes).await.expect("sends");
        let mut answer = Vec::new();
        let read = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        read.expect("the connection ends").expect("without a reset");
        assert_eq!(answer.get(..1), Some(&[0x88][..]), "a close frame: {answer:?}");
        assert_eq!(answer.get(2..4), Some(&code.to_be_bytes()[..]));
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_others_are_not() {
    let server = Setup::default().start().await;
    let mut deaf = server.websocket().await;
    let mut other = server.websocket().await;
    let kilobytes = OUTGOING_SIZE_MAX / 1024 + 1;
    deaf.send(format!("flood {kilobytes}").into()).await.expect("sends");
    server.wait_told(is_closed).await;
    let frame = close_frame(&mut deaf).await.expect("a close frame");
    assert_eq!(u16::from(frame.code), 1013);
    other.send("echo alive".into()).await.expect("sends");
    assert_eq!(other.next().await.expect("open").expect("a message").into_text().expect("text").as_str(), "alive");
    assert!(server.ask("/metrics", "").await.contains("\nringmain_connections_overflown_total 1\n"));
}

#[tokio::test]
async fn a_client_that_stops_reading_for_good_is_gone_in_time() {
    let server = Setup::default().start().await;
    let mut deaf = server.websocket().await;
    let began = Instant::now();
    // Below the bound at each moment, until the kernel's buffers are full.
    for _ in 0..200 {
        if deaf.send("flood 64".into()).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    server.wait_told(is_closed).await;
    assert!(began.elapsed() < Duration::from_secs(30), "before it counts as silent");
}

#[tokio::test]
async fn a_silent_client_is_dead_and_a_reading_one_is_not() {
    let liveness = Liveness { ping_interval: Duration::from_millis(100), dead_after: Duration::from_millis(500) };
    let server = Setup { liveness, ..Setup::default() }.start().await;
    let mut reader = server.websocket().await;
    let reader = tokio::spawn(async move {
        let _ = timeout(Duration::from_millis(1500), async { while let Some(Ok(_)) = reader.next().await {} }).await;
        reader.send("echo alive".into()).await.expect("still open");
        reader
    });
    let silent = raw_websocket(&server).await;
    server.wait_told(is_closed).await;
    drop(silent);
    server.wait_told(|told| matches!(told, Told::Message(_, text) if text == "echo alive")).await;
    drop(reader.await);
}

#[tokio::test]
async fn a_slow_or_long_head_ends_the_connection() {
    let server = Setup::default().start().await;
    let began = Instant::now();
    let mut slow = TcpStream::connect(server.address).await.expect("connects");
    let mut idle = TcpStream::connect(server.address).await.expect("connects");
    slow.write_all(b"GET / HTTP/1.1\r\nX-").await.expect("sends");

    let mut long = TcpStream::connect(server.address).await.expect("connects");
    // The server may close while we write.
    let _ = long.write_all(format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20 * 1024)).as_bytes()).await;
    let mut answer = [0; 12];
    if long.read_exact(&mut answer).await.is_ok() {
        assert_eq!(&answer, b"HTTP/1.1 431");
    }
    assert!(began.elapsed() < Duration::from_secs(4), "at once");

    let mut rest = Vec::new();
    for stream in [&mut slow, &mut idle] {
        let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "still open after {:?}", began.elapsed());
    }
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_no_more() {
    let server = Setup { per_ip: 2, ..Setup::default() }.start().await;
    let mut client = server.websocket().await;
    let _second = server.websocket().await;
    let mut third = TcpStream::connect(server.address).await.expect("the kernel connects");
    let read = third.read(&mut [0; 1]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "closed at once");
    // An upgraded connection keeps its place until it ends.
    client.close(None).await.expect("closes");
    server.wait_told(is_closed).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let _fourth = server.websocket().await;
}

#[tokio::test]
async fn foreign_pages_are_refused_when_origins_are_listed() {
    let server = Setup { allow_origin: vec!["https://example.org".into()], ..Setup::default() }.start().await;
    let upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (origin, status) in [
        ("Origin: https://evil.example\r\n", "403"),
        ("Origin: http://example.org\r\n", "403"),
        ("Origin: https://example.org.evil.example\r\n", "403"),
        ("Origin: null\r\n", "403"),
        ("Origin: https://example.org\r\nOrigin: https://evil.example\r\n", "403"),
        ("Origin: https://EXAMPLE.org\r\n", "101"),
        ("", "101"),
    ] {
        let mut stream = TcpStream::connect(server.address).await.expect("connects");
        let request = format!("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n{upgrade}{origin}\r\n");
        stream.write_all(request.as_bytes()).await.expect("sends");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("answers");
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"), "{origin:?}");
    }
}

#[tokio::test]
async fn a_self_signed_certificate_serves_page_and_websocket_under_the_printed_fingerprint() {
    let certificate = tls::Certificate::self_signed(&["127.0.0.1".parse().expect("an address")]).expect("made");
    let fingerprint = certificate.fingerprint();
    assert_eq!(fingerprint.len(), 32 * 3 - 1);
    let server = Setup { tls: Some(certificate), ..Setup::default() }.start().await;
    // Someone who never begins the handshake holds no one up.
    let _mute = TcpStream::connect(server.address).await.expect("connects");
    let stream = TcpStream::connect(server.address).await.expect("connects");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
    let stream = connector.connect(name, stream).await.expect("a handshake");
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).expect("a certificate");
    let seen: Vec<String> = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    assert_eq!(seen.join(":"), fingerprint);
    let (mut client, _) = tokio_tungstenite::client_async("ws://localhost/ws", stream).await.expect("upgrades");
    client.send("echo secret".into()).await.expect("sends");
    assert_eq!(client.next().await.expect("open").expect("a message").into_text().expect("text").as_str(), "secret");
}

#[test]
fn certificate_files_that_do_not_fit_are_refused_by_name() {
    let folder = std::env::temp_dir().join(format!("ringmain-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let made = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_string()]).expect("made");
        let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&cert, made.cert.pem()).expect("written");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        (cert, key)
    };
    let ((cert, key), (_, other_key)) = (made("one"), made("other"));
    let load = |cert: &std::path::Path, key: &std::path::Path| {
        let tls = crate::config::Tls { cert: Some(cert.into()), key: Some(key.into()), self_signed: false };
        tls::Certificate::of_page(&crate::config::Config { tls, ..Default::default() }, &[])
    };
    assert!(load(&cert, &key).is_ok());
    for (cert, key, words) in [
        (&cert, &other_key, "do not belong together"),
        (&key, &key, "no certificate in"),
        (&cert, &cert, "cannot read a private key from"),
        (&folder.join("none.pem"), &key, "cannot read certificates from"),
    ] {
        let error = format!("{:#}", load(cert, key).expect_err(words));
        assert!(error.starts_with("tls.cert and tls.key: ") && error.contains(words), "{error}");
    }
    std::fs::remove_dir_all(folder).expect("removed");
}

#[tokio::test]
async fn stopping_says_1001_and_then_ends_the_data_plane() {
    let server = Setup::default().start().await;
    let mut client = server.websocket().await;
    client.send("echo here".into()).await.expect("sends");
    client.next().await.expect("open").expect("a message");
    server.stop.send(true).expect("someone listens");
    let frame = close_frame(&mut client).await.expect("a close frame");
    assert_eq!(u16::from(frame.code), 1001);
    server.wait_told(is_closed).await;
    server.wait_told(|told| *told == Told::Shutdown).await;
    timeout(Duration::from_secs(5), server.actor).await.expect("ends").expect("no panic").expect("no error");
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

/// A WebSocket whose client side does nothing by itself.
async fn raw_websocket(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    let request = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("answers"));
    }
    assert!(!String::from_utf8_lossy(&head).to_lowercase().contains("sec-websocket-extensions"), "no compression");
    stream
}

/// Takes any certificate: the test compares fingerprints itself.
#[derive(Debug)]
struct AnyCertificate;

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls_pki_types::CertificateDer<'_>,
        _intermediates: &[rustls_pki_types::CertificateDer<'_>],
        _server_name: &rustls_pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &rustls_pki_types::CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &rustls_pki_types::CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
