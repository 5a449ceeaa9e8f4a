//! Who leaves a room has no relay any more: a second later its allocations are gone, and the connections that they came by. With
//! coturn's own client as the peer's relay client, over every way that it has.
//!
//! Without that client (the package `coturn`, which scripts/test installs) the test says so and ends.

#![allow(missing_docs, reason = "a test has no readers but itself")]

mod common;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::free_port;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

struct Server {
    process: Child,
    page: u16,
    ports: [u16; 2],
    dir: PathBuf,
}

impl Server {
    fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("ringmain-revocation-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(dir.join("cert.pem"), made.cert.pem()).expect("a file");
        std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
        let (page, ports, media) = (free_port(), [free_port(), free_port()], free_port());
        let process = Command::new(env!("CARGO_BIN_EXE_ringmain"))
            .args(["--bind", "127.0.0.1", "--workers", "1", "--pin=false", "--base-port", &media.to_string()])
            .args(["--listen", &format!("127.0.0.1:{page}"), "--metrics", "off", "--turn"])
            .args(["--turn-port", &ports[0].to_string(), "--turn-tls-port", &ports[1].to_string()])
            .args(["--turn-peers", "open", "--turn-allow-peers", "127.0.0.0/8"])
            // Over streams this client asks for even ports, whatever it is told.
            .args(["--turn-min-port", "31000", "--turn-max-port", "31999", "--turn-even-port"])
            .arg("--turn-tls-cert")
            .arg(dir.join("cert.pem"))
            .arg("--turn-tls-key")
            .arg(dir.join("key.pem"))
            .arg("--admin-socket")
            .arg(dir.join("admin"))
            .spawn()
            .expect("the binary under test");
        let mut server = Self { process, page, ports, dir };
        until("the server is there", Duration::from_secs(20), || {
            assert_eq!(server.process.try_wait().expect("a child"), None, "it ended at start");
            server.dir.join("admin").exists() && TcpStream::connect(("127.0.0.1", page)).is_ok()
        });
        server
    }

    fn admin(&self, order: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
        let done = command.args(["admin", "--admin-socket"]).arg(self.dir.join("admin")).args(order).output();
        let done = done.expect("the binary under test");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("JSON")
    }

    fn allocations(&self) -> Vec<Value> {
        let answer: Value = serde_json::from_str(&self.admin(&["allocations"])).expect("JSON");
        answer["allocations"].as_array().expect("a list").clone()
    }

    /// Connections of TURN's clients that neither side has closed.
    fn connections(&self) -> usize {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
        let is_ours = |line: &&str| {
            let mut words = line.split_whitespace().skip(1);
            let port = words.next().and_then(|local| u16::from_str_radix(local.split_once(':')?.1, 16).ok());
            let is_established = words.nth(1) == Some("01");
            is_established && port.is_some_and(|port| self.ports.contains(&port))
        };
        table.lines().filter(is_ours).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A peer's signalling.
struct Peer(WebSocket<TcpStream>);

impl Peer {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.page)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        let url = format!("ws://127.0.0.1:{}/ws", server.page);
        Self(tungstenite::client(url, stream).expect("a WebSocket").0)
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": method, "method": method, "params": params});
        self.0.send(Message::text(request.to_string())).expect("open");
        loop {
            let text = self.0.read().expect("an answer").into_text().expect("text");
            let value: Value = serde_json::from_str(&text).expect("JSON");
            if value["id"] == method {
                assert_eq!(value["error"], Value::Null, "{value}");
                return value["result"].clone();
            }
        }
    }

    fn join(&mut self, uid: &str) {
        let offer = json!({"type": "offer", "sdp": OFFER});
        self.call("join", &json!({"sid": "room", "uid": uid, "offer": offer}));
    }
}

/// How a peer's time ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaving {
    /// It says so.
    Closes,
    /// Its connection breaks.
    Breaks,
    /// It joins again from elsewhere.
    IsReplaced,
    /// An operator ends what it has allocated.
    IsKilled,
}

#[test]
fn who_has_left_has_no_relay_a_second_later() {
    let client = Path::new("/usr/bin/turnutils_uclient");
    if !client.exists() {
        eprintln!("turnutils_uclient is not installed (Debian: coturn): not tested");
        return;
    }
    let server = Server::start();
    let mut slowest = Duration::ZERO;
    for way in [&[][..], &["-t"], &["-t", "-S"], &["-S"]] {
        for leaving in [Leaving::Closes, Leaving::Breaks, Leaving::IsReplaced, Leaving::IsKilled] {
            let mut peer = Peer::connect(&server);
            peer.join("one");
            let lent = peer.call("iceServers", &json!({}))["iceServers"][0].clone();
            let [user, password] = ["username", "credential"].map(|key| lent[key].as_str().expect("text").to_owned());
            let port = server.ports[usize::from(way.contains(&"-S"))].to_string();
            let relays = Command::new(client)
                .args(["-u", &user, "-w", &password, "-y", "-c", "-m", "2", "-n", "100000", "-p", &port])
                .args(way)
                .arg("127.0.0.1")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("coturn's client");
            let mut relays = Running(relays);
            let what = format!("{way:?}, {leaving:?}");
            until(&what, Duration::from_secs(20), || {
                let rows = server.allocations();
                // Some go while they relay; this client takes a few seconds before it begins to.
                rows.len() >= 2 && leaving != Leaving::Breaks || rows.iter().any(|row| row["to_peers"] != 0)
            });
            assert!(!way.contains(&"-t") || server.connections() >= 2, "{what}");
            let mut other = None;
            match leaving {
                Leaving::Closes => peer.0.close(None).expect("open"),
                Leaving::Breaks => peer.0.get_ref().shutdown(std::net::Shutdown::Both).expect("open"),
                Leaving::IsReplaced => other.insert(Peer::connect(&server)).join("one"),
                Leaving::IsKilled => {
                    for row in server.allocations() {
                        server.admin(&["kill", row["id"].as_str().expect("an id")]);
                    }
                }
            }
            // Who asks a second later finds nothing; how long the answer takes does not count.
            slowest = slowest.max(until(&what, Duration::from_secs(1), || {
                server.allocations().is_empty() && server.connections() == 0
            }));
            // The credential is worth nothing any more, unless only its allocations were ended.
            if leaving != Leaving::IsKilled {
                std::thread::sleep(Duration::from_millis(100));
                assert!(server.allocations().is_empty(), "{what}");
            }
            relays.0.kill().expect("ours");
        }
    }
    println!("the slowest was gone after {slowest:?}");
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks until it is so. How long after the beginning it was asked for the last time.
fn until(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    loop {
        let asked = began.elapsed();
        if is_so() {
            return asked;
        }
        assert!(asked < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A peer that wants a data channel.
const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:abcd\r\n\
    a=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\na=sctp-port:5000\r\n\
    a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n";
