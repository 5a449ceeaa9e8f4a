//! Everything at one port: the page, signalling and TURN over TCP and TLS on TCP, media and TURN on UDP, as `openssl` and coturn's clients
//! find them.
//!
//! Without these clients (the packages `openssl` and `coturn`, which scripts/test installs) the tests that want them say so and end.

#![allow(missing_docs, reason = "a test has no readers but itself")]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{free_port, text, tool};

use socket2::{Domain, Socket, Type};

struct Server {
    process: Child,
    port: u16,
    dir: PathBuf,
}

impl Server {
    /// With a certificate in files.
    fn with_files(name: &str, relay_port: u16) -> Self {
        let dir = folder(name);
        write_certificate(&dir);
        let file = |name: &str| dir.join(name).display().to_string();
        Self::start(dir.clone(), relay_port, &["--tls-cert", &file("cert.pem"), "--tls-key", &file("key.pem")])
    }

    /// Relay ports are below those that the kernel gives to anybody.
    fn start(dir: PathBuf, relay_port: u16, more: &[&str]) -> Self {
        let port = free_port();
        let log = File::create(dir.join("log")).expect("a file");
        let ports = ["--one-port", &port.to_string(), "--listen", &format!("127.0.0.1:{port}"), "--metrics", "off"];
        let turn = ["--turn", "--turn-users", "test:test123", "--turn-binding", "--turn-peers", "open"];
        let process = Command::new(env!("CARGO_BIN_EXE_ringmain"))
            .args(ports)
            .args(["--bind", "127.0.0.1", "--workers", "1", "--pin=false"])
            .args(turn)
            .args(["--turn-allow-peers", "127.0.0.1", "--turn-even-port", "--turn-user-allocations", "0"])
            .args(["--turn-min-port", &relay_port.to_string(), "--turn-max-port", &(relay_port + 499).to_string()])
            .args(more)
            .stderr(log.try_clone().expect("a descriptor"))
            .stdout(log)
            .spawn()
            .expect("the binary under test");
        let mut server = Self { process, port, dir };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.process.try_wait().expect("a child");
            assert!(ended.is_none() && Instant::now() < end, "it did not start: {}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// What `openssl s_client` tells of a connection on which it says something.
    fn tls(&self, arguments: &[&str], say: &str) -> Option<String> {
        let mut client = tool("openssl")?;
        let mut client = client
            .args(["s_client", "-ign_eof", "-connect", &format!("127.0.0.1:{}", self.port)])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl");
        client.stdin.take().expect("piped").write_all(say.as_bytes()).expect("it listens");
        Some(text(&client.wait_with_output().expect("openssl")))
    }

    fn page(&self, arguments: &[&str]) -> Option<String> {
        self.tls(arguments, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    }

    fn client(&self, arguments: &[&str]) -> Option<Command> {
        let mut client = tool("turnutils_uclient")?;
        let port = self.port.to_string();
        client.args(["-y", "-u", "test", "-w", "test123", "-p", &port]).args(arguments).arg("127.0.0.1");
        Some(client)
    }

    /// Lets a client of coturn's talk through the server, and fails unless everything comes back.
    fn echo(&self, arguments: &[&str]) {
        let Some(mut client) = self.client(arguments) else { return };
        self.check_echo(arguments, &client.output().expect("coturn's client"));
    }

    fn check_echo(&self, arguments: &[&str], done: &Output) {
        let told = text(done);
        let received =
            told.lines().rev().find_map(|line| line.split("tot_recv_msgs=").nth(1)?.split([',', ' ']).next());
        let all_came = told.contains("Total lost packets 0 (0.000000%)") && received.is_some_and(|count| count != "0");
        assert!(done.status.success() && all_came, "{arguments:?}: {told}\n{}", self.log());
    }

    /// A connection from one of the addresses of loopback.
    fn connect_from(&self, from: Ipv4Addr) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("loopback");
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], self.port)).into()).expect("it listens");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        stream
    }

    /// The same, as a WebSocket that nothing was said on.
    fn websocket_from(&self, from: Ipv4Addr) -> TcpStream {
        let mut stream = self.connect_from(from);
        let request = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("open");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 101", "{from}");
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn folder(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("ringmain-one-port-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    dir
}

/// The certificate as PEM has it, without its line ends.
fn write_certificate(dir: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).expect("a file");
    squeezed(&made.cert.pem())
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

const WAYS: [&[&str]; 3] = [&["-t", "-S"], &["-t"], &[]];

#[test]
fn the_page_and_turn_are_at_the_same_port_by_every_way() {
    let server = Server::with_files("ways", 30_000);
    let names: [&[&str]; 4] = [
        &["-alpn", "http/1.1"],
        &["-alpn", "h2,http/1.1", "-servername", "localhost"],
        &["-servername", "another.example"],
        &["-noservername", "-tls1_2"],
    ];
    for name in names {
        let Some(told) = server.page(name) else { break };
        assert!(told.contains("HTTP/1.1 200 OK") && told.contains("<title>"), "{name:?}: {told}");
    }
    // All ways at once: most of its time this client sleeps.
    std::thread::scope(|scope| {
        for way in WAYS {
            for shape in [&["-l", "100", "-s"], &["-l", "1200", "-c"]] {
                let arguments = [way, shape, &["-n", "10", "-m", "2", "-z", "5"]].concat();
                let server = &server;
                scope.spawn(move || server.echo(&arguments));
            }
        }
    });
    if let Some(mut client) = tool("turnutils_stunclient") {
        let told = text(&client.args(["-p", &server.port.to_string(), "127.0.0.1"]).output().expect("a client"));
        assert!(told.contains("UDP reflexive addr: 127.0.0.1:"), "{told}");
    }
}

#[test]
fn the_page_is_served_inside_tls_only_and_to_those_who_came_for_it() {
    let server = Server::with_files("inside", 30_500);
    let mut bare = server.connect_from([127, 0, 0, 1].into());
    bare.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("open");
    let mut told = Vec::new();
    let _ = bare.read_to_end(&mut told);
    assert!(told.is_empty(), "{}", String::from_utf8_lossy(&told));
    let Some(told) = server.page(&["-alpn", "stun.turn"]) else { return };
    assert!(told.contains("ALPN protocol: stun.turn") && !told.contains("HTTP/1.1"), "{told}");
    let Some(told) = server.page(&["-alpn", "h2"]) else { return };
    assert!(!told.contains("HTTP/1.1") && told.contains("alert"), "{told}");
}

#[test]
fn a_made_certificate_serves_turn_as_well() {
    let server = Server::start(folder("made"), 31_500, &["--tls-self-signed"]);
    if let Some(told) = server.page(&[]) {
        assert!(told.contains("HTTP/1.1 200 OK"), "{told}");
    }
    server.echo(&["-t", "-S", "-n", "5"]);
}

#[test]
fn a_new_certificate_is_used_by_all_a_bad_one_by_nobody_and_whoever_is_connected_stays() {
    let mut server = Server::with_files("renewed", 31_000);
    let arguments = ["-t", "-S", "-c", "-n", "400", "-z", "20", "-l", "200"];
    let Some(mut client) = server.client(&arguments) else { return };
    let client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("coturn's client");
    let served = |server: &Server, alpn: &str| server.tls(&["-alpn", alpn], "Q\r\n").map(|told| squeezed(&told));
    let becomes = |server: &Server, wanted: &str| {
        for alpn in ["http/1.1", "stun.turn"] {
            let end = Instant::now() + Duration::from_secs(20);
            while served(server, alpn).is_some_and(|told| !told.contains(wanted)) {
                assert!(Instant::now() < end, "{alpn}: the new certificate is not served\n{}", server.log());
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    };
    std::thread::sleep(Duration::from_secs(1));
    let second = write_certificate(&server.dir);
    becomes(&server, &second);
    std::fs::write(server.dir.join("cert.pem"), "this is no certificate").expect("a file");
    std::thread::sleep(Duration::from_secs(3));
    becomes(&server, &second);
    let log = server.log();
    assert!(log.contains("WARN the old TLS certificate stays in use: there is no certificate in"), "{log}");
    let third = write_certificate(&server.dir);
    let hangup = Command::new("kill").args(["-HUP", &server.process.id().to_string()]).status().expect("kill");
    assert!(hangup.success());
    becomes(&server, &third);
    assert!(server.process.try_wait().expect("a child").is_none());
    server.check_echo(&arguments, &client.wait_with_output().expect("coturn's client"));
}

#[test]
fn a_server_that_ends_tells_its_clients() {
    let mut server = Server::start(folder("ends"), 32_500, &[]);
    let mut client = server.websocket_from([127, 0, 0, 1].into());
    let term = Command::new("kill").arg(server.process.id().to_string()).status().expect("kill");
    assert!(term.success());
    let mut told = Vec::new();
    let _ = client.read_to_end(&mut told);
    assert!(told.windows(4).any(|part| part[0] == 0x88 && part[2..] == 1001u16.to_be_bytes()), "{told:?}");
    assert!(server.process.wait().expect("a child").success(), "{}", server.log());
}

#[test]
fn limits_of_signalling_go_by_the_client_s_address() {
    let server = Server::start(folder("addresses"), 32_000, &["--websockets-per-ip", "1"]);
    let upgrade = |from: Ipv4Addr| {
        let mut stream = server.websocket_from(from);
        stream.set_read_timeout(Some(Duration::from_millis(1500))).expect("a socket");
        let mut told = Vec::new();
        let _ = stream.read_to_end(&mut told);
        (stream, String::from_utf8_lossy(&told).contains("limits.websockets_per_ip"))
    };
    let first = upgrade([127, 0, 0, 2].into());
    let second = upgrade([127, 0, 0, 2].into());
    let other = upgrade([127, 0, 0, 3].into());
    assert_eq!([first.1, second.1, other.1], [false, true, false]);
}
