//! The server in coturn's place: a `turnserver.conf` of coturn's, and coturn's own clients as Debian packages them.
//!
//! Without these clients (the package `coturn`, which scripts/test installs) the tests that want them say so and end.

#![allow(missing_docs, reason = "a test has no readers but itself")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringmain_dataplane::packet::stun::{Class, IntegrityKey, Message, MessageWriter, TransactionId, attribute, method};
use ringmain_dataplane::turn::{AccessToken, MacKey, TokenCipher, decode_base64, encode_base64};
use ringmain_shared::turn::TokenSecret;

use common::{free_port, text, tool};

/// The file of a host that has coturn beside its SFU, on ports of the test's own.
fn coturn_file(port: u16, tls_port: u16, ports: (u16, u16), dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "realm=a\nserver-name=b\nfingerprint\nlistening-ip=127.0.0.1\nlistening-port={port}\n\
         min-port={}\nmax-port={}\nlog-file={dir}/turnserver.log\nverbose\nuser=test:test123\nlt-cred-mech\n\
         cert={dir}/cert.pem\npkey={dir}/key.pem\ntls-listening-port={tls_port}\nallow-loopback-peers\n",
        ports.0, ports.1
    )
}

struct Server {
    process: Child,
    port: u16,
    tls_port: u16,
    dir: PathBuf,
}

impl Server {
    fn start(name: &str, workers: u16, ports: (u16, u16), more: &str) -> Self {
        Self::start_with(name, workers, ports, more, None)
    }

    /// With a file of keys for tokens.
    fn start_with(name: &str, workers: u16, ports: (u16, u16), more: &str, keys: Option<&str>) -> Self {
        let dir = std::env::temp_dir().join(format!("ringmain-turn-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(dir.join("cert.pem"), made.cert.pem()).expect("a file");
        std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
        let (port, tls_port) = (free_port(), free_port());
        let external = if more.contains("external-ip") { "" } else { "external-ip=127.0.0.1\n" };
        let text = coturn_file(port, tls_port, ports, &dir) + external + more;
        std::fs::write(dir.join("turnserver.conf"), text).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
        if let Some(keys) = keys {
            std::fs::write(dir.join("keys"), keys).expect("a file");
            command.arg("--turn-oauth-keys").arg(dir.join("keys"));
        }
        let process = command
            .args(["turn", "--workers", &workers.to_string(), "--pin=false", "--coturn-config"])
            .arg(dir.join("turnserver.conf"))
            .arg("--admin-socket")
            .arg(dir.join("admin"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary under test");
        let mut server = Self { process, port, tls_port, dir };
        let end = Instant::now() + Duration::from_secs(20);
        while !server.dir.join("admin").exists() || std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.process.try_wait().expect("a child");
            if ended.is_some() || Instant::now() > end {
                let mut told = String::new();
                let _ = server.process.kill();
                server.process.stderr.take().expect("piped").read_to_string(&mut told).expect("text");
                panic!("it did not start: {told}{}", server.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("turnserver.log")).unwrap_or_default()
    }

    fn admin(&self, order: &[&str]) -> String {
        let socket = self.dir.join("admin");
        let done = Command::new(env!("CARGO_BIN_EXE_ringmain"))
            .args(["admin", "--admin-socket"])
            .arg(socket)
            .args(order)
            .output()
            .expect("the binary under test");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("JSON")
    }

    fn allocations(&self) -> Vec<serde_json::Value> {
        let answer: serde_json::Value = serde_json::from_str(&self.admin(&["allocations"])).expect("JSON");
        answer["allocations"].as_array().expect("a list").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Lets a client of coturn's talk through the server, and fails unless everything comes back.
fn echo(server: &Server, arguments: &[&str]) {
    let Some(mut client) = tool("turnutils_uclient") else { return };
    let secure = arguments.contains(&"-S");
    let port = if secure { server.tls_port } else { server.port };
    let done = client
        .args(["-u", "test", "-w", "test123", "-p", &port.to_string()])
        .args(arguments)
        .arg("127.0.0.1")
        .output()
        .expect("coturn's client");
    let told = text(&done);
    assert!(done.status.success(), "{arguments:?}: {told}\n{}", server.log());
    assert!(told.contains("Total lost packets 0 (0.000000%)"), "{arguments:?}: {told}\n{}", server.log());
    let received =
        told.lines().rev().find_map(|line| line.split("tot_recv_msgs=").nth(1)?.split([',', ' ']).next()?.parse().ok());
    assert!(received.is_some_and(|count: u64| count > 0), "{arguments:?}: nothing was received: {told}");
}

#[test]
fn coturn_s_clients_lose_nothing_by_any_way() {
    // These clients reserve a second port for RTCP, and come for it to whichever worker the kernel gives them.
    let server = Server::start("ways", 2, (21_000, 22_999), "");
    let server = &server;
    // All ways at once: most of its time this client sleeps.
    std::thread::scope(|scope| {
        for way in [&[][..], &["-t"], &["-t", "-S"], &["-S"]] {
            scope.spawn(move || {
                for (size, method) in [("100", &[][..]), ("100", &["-s"]), ("1200", &[]), ("1200", &["-s"])] {
                    echo(server, &[way, method, &["-y", "-n", "10", "-m", "2", "-z", "5", "-l", size]].concat());
                }
            });
        }
    });
    // Their clients end without a word; the log has them all the same.
    assert!(server.log().contains("allocated"), "verbose is applied: {}", server.log());
}

#[test]
fn coturn_s_clients_lose_nothing_with_tokens() {
    let server = Server::start_with("tokens", 2, (14_400, 14_999), "oauth\n", Some(COTURN_KEYS));
    for way in [&[][..], &["-t"], &["-t", "-S"], &["-S"]] {
        for method in [&[][..], &["-s"]] {
            // Each request has a token of its own, by one of three keys: a pair of ports would not be one user's.
            echo(&server, &[way, method, &["-J", "-c", "-y", "-n", "10", "-m", "4", "-z", "5", "-l", "1200"]].concat());
        }
    }
    echo(&server, &["-J", "-T", "-n", "20", "-m", "6", "-z", "5"]);
    if Path::new("/usr/bin/turnutils_uclient").exists() {
        let log = server.log();
        assert!(
            ["north", "union", "oldempire"].iter().all(|kid| log.contains(&format!("user=\"oauth:{kid}\""))),
            "{log}"
        );
        assert!(!log.contains("user=\"test\""), "by password: {log}");
    }
}

#[test]
fn tokens_of_coturn_s_tool_are_taken_and_ours_are_read_by_it() {
    let server = Server::start_with("tool", 1, (15_800, 15_849), "oauth\n", Some(COTURN_KEYS));
    let Some(mut tool) = tool("turnutils_oauth") else { return };
    let of_key =
        ["-i", "b", "-j", "union", "-k", "MTIzNDU2Nzg5MDEyMzQ1Ngo=", "-l", "1", "-m", "4000000000", "-n", "A128GCM"];
    let mac_key = b"ZksjpweoixXmvn67534m";
    let made =
        tool.args(of_key).args(["-e", "-p", &encode_base64(mac_key), "-r", "60"]).output().expect("coturn's tool");
    let json = text(&made);
    let json = json.split_once('{').map(|(_, rest)| rest.split('}').next().unwrap_or_default()).expect("JSON");
    let made: serde_json::Value = serde_json::from_str(&format!("{{{json}}}")).expect("JSON");
    let token = decode_base64(made["access_token"].as_str().expect("a token")).expect("base64");
    assert_eq!(allocate(&server, "union", &token, mac_key), 0);
    assert_eq!(allocate(&server, "north", &token, mac_key), 401, "by another key");
    assert_eq!(allocate(&server, "union", &token, b"ZksjpweoixXmvn67534n"), 401, "with another key in it");

    let ours = Command::new(env!("CARGO_BIN_EXE_ringmain"))
        .args(["turn-credentials", "--oauth", "union", "--lifetime", "60", "--json", "--turn-server-name", "b"])
        .arg("--turn-oauth-keys")
        .arg(server.dir.join("keys"))
        .output()
        .expect("the binary under test");
    let ours: serde_json::Value = serde_json::from_slice(&ours.stdout).unwrap_or_else(|_| panic!("{}", text(&ours)));
    assert_eq!(
        (&ours["username"], &ours["credentialType"], &ours["ttl"]),
        (&"union".into(), &"oauth".into(), &60.into())
    );
    let token = ours["credential"]["accessToken"].as_str().expect("a token");
    let mac_key = decode_base64(ours["credential"]["macKey"].as_str().expect("a key")).expect("base64");
    assert_eq!(allocate(&server, "union", &decode_base64(token).expect("base64"), &mac_key), 0);
    let mut tool = Command::new("/usr/bin/turnutils_oauth");
    let told = text(&tool.args(of_key).args(["-v", "-d", "-t", token]).output().expect("coturn's tool"));
    assert!(
        told.contains("Valid token") && told.contains("mac key length: 20") && told.contains("lifetime: 60"),
        "{told}"
    );
}

#[test]
fn keys_are_read_again_at_a_hangup() {
    let server = Server::start_with("keys", 2, (15_850, 15_899), "oauth\n", Some(COTURN_KEYS));
    let by = |key: [u8; 32]| {
        // One address gets ten answers a second until it has proved itself.
        std::thread::sleep(Duration::from_millis(250));
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let mac_key = MacKey::new(&[7; 20]).expect("20 bytes");
        let token = AccessToken { mac_key, timestamp, lifetime: Duration::from_secs(60) };
        let token = TokenCipher::new(&TokenSecret::Aes256Gcm(key)).seal("b", &token, [3; 12]);
        allocate(&server, "north", &token, &[7; 20])
    };
    let (first, next) = (*b"01234567890123456789012345678901", [9; 32]);
    assert_eq!((by(first), by(next)), (0, 401));
    let hang_up = |keys: &str, until: &str| {
        std::fs::write(server.dir.join("keys"), keys).expect("ours");
        let hangup = Command::new("kill").args(["-HUP", &server.process.id().to_string()]).status().expect("kill");
        assert!(hangup.success());
        let end = Instant::now() + Duration::from_secs(10);
        while !server.log().contains(until) {
            assert!(Instant::now() < end, "no {until:?}: {}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    hang_up("north:A256GCM:MTIz\n", "keys, line 1: a key of A256GCM has 32 bytes");
    assert_eq!((by(first), by(next)), (0, 401), "what is wrong changes nothing");
    hang_up(&format!("north:A256GCM:{}\n", encode_base64(&next)), "have been read again");
    assert_eq!((by(first), by(next)), (401, 0), "every worker has heard of it when the log says so");
}

/// Those of coturn's client; of each, the last byte is a line feed that nobody uses.
const COTURN_KEYS: &str = "north:A256GCM:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK:0:0\n\
                           union:A128GCM:MTIzNDU2Nzg5MDEyMzQ1Ngo=\n\
                           oldempire:A256GCM:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK\n";

/// An Allocate by a token, from a socket of its own; what is answered, 0 for success.
fn allocate(server: &Server, kid: &str, token: &[u8], mac_key: &[u8]) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
    let ask = |attributes: &dyn Fn(&mut MessageWriter<'_>)| {
        let mut bytes = [0; 1500];
        let mut message = MessageWriter::new(&mut bytes, Class::Request, method::ALLOCATE, TransactionId([5; 12]));
        message.attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        attributes(&mut message);
        let size = message.finish().expect("room");
        socket.send_to(&bytes[..size], ("127.0.0.1", server.port)).expect("sent");
        let size = socket.recv(&mut bytes).expect("an answer");
        bytes[..size].to_vec()
    };
    let challenge = ask(&|_| {});
    let challenge = Message::parse(&challenge).expect("a challenge");
    assert_eq!(challenge.error_code(), Some(401));
    assert_eq!(challenge.attribute(attribute::THIRD_PARTY_AUTHORIZATION), Some(&b"b"[..]));
    let answer = ask(&|message| {
        message.attribute(attribute::USERNAME, kid.as_bytes());
        for it in [attribute::REALM, attribute::NONCE] {
            message.attribute(it, challenge.attribute(it).expect("it is a challenge"));
        }
        message.attribute(attribute::ACCESS_TOKEN, token);
        message.integrity(&IntegrityKey::new(mac_key));
    });
    let answer = Message::parse(&answer).expect("an answer");
    if answer.class() == Class::Success {
        answer.verify_integrity(&IntegrityKey::new(mac_key)).expect("proved as it was asked");
    }
    answer.error_code().unwrap_or(0)
}

#[test]
fn two_hundred_clients_lose_nothing() {
    let server = Server::start("crowd", 2, (23_000, 26_999), "");
    let server = &server;
    // All at once: most of its time this client sleeps. The last two have pairs of ports, half of which it comes for with a token.
    std::thread::scope(|scope| {
        for way in [&["-l", "100", "-c"][..], &["-l", "1200", "-c", "-s"], &["-l", "1200"], &["-l", "100", "-s"]] {
            let arguments = [way, &["-y", "-n", "5", "-m", "200", "-z", "200"]].concat();
            scope.spawn(move || echo(server, &arguments));
        }
    });
}

#[test]
fn of_two_hundred_clients_as_many_as_the_quota_says_are_served_by_both_workers_together() {
    for (name, quota) in [("user", "user-quota=50\n"), ("total", "total-quota=50\n")] {
        let server = Server::start(name, 2, (30_000, 30_999), quota);
        let Some(mut client) = tool("turnutils_uclient") else { return };
        let arguments =
            ["-u", "test", "-w", "test123", "-y", "-n", "1", "-m", "200", "-c", "-p", &server.port.to_string()];
        // It gives up at the first refusal, and leaves behind what it has.
        let told = text(&client.args(arguments).arg("127.0.0.1").output().expect("coturn's client"));
        let rows = server.allocations();
        assert_eq!(rows.len(), 50, "{quota}: {told}");
        let worker = |row: &serde_json::Value| {
            row["id"].as_str().and_then(|id| u64::from_str_radix(id, 16).ok()).expect("a number") >> 48
        };
        assert!((0..2).all(|index| rows.iter().any(|row| worker(row) == index)), "{quota}: both workers have some");
    }
}

#[test]
fn two_hundred_clients_lose_nothing_over_streams_and_dtls() {
    let server = Server::start("streams", 2, (10_000, 13_999), "");
    let server = &server;
    // All ways at once: this client takes half a minute until two hundred are connected, whoever serves it.
    std::thread::scope(|scope| {
        for (way, size) in [(&["-t"][..], "1200"), (&["-t", "-S"], "1200"), (&["-S"], "100")] {
            let arguments = [way, &["-y", "-n", "5", "-m", "200", "-z", "200", "-l", size, "-c"]].concat();
            scope.spawn(move || echo(server, &arguments));
        }
    });
}

#[test]
fn a_rotated_log_goes_on_in_a_new_file() {
    let server = Server::start("rotation", 1, (19_000, 19_099), "");
    let rotated = server.dir.join("turnserver.log.1");
    std::fs::rename(server.dir.join("turnserver.log"), &rotated).expect("it logs to a file");
    let hangup = Command::new("kill").args(["-HUP", &server.process.id().to_string()]).status().expect("kill");
    assert!(hangup.success());
    let end = Instant::now() + Duration::from_secs(10);
    while !server.log().contains("opened anew") {
        assert!(Instant::now() < end, "no new file: {}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = std::fs::read_to_string(&rotated).expect("a file");
    assert!(before.contains("Ringmain"), "{before}");
    // Whoever is served is served on, and what is logged of it is in the new file only.
    echo(&server, &["-y", "-n", "2", "-m", "1", "-c"]);
    if Path::new("/usr/bin/turnutils_uclient").exists() {
        assert!(server.log().contains("allocated"), "{}", server.log());
    }
    assert_eq!(std::fs::read_to_string(&rotated).expect("a file"), before);
}

#[test]
fn coturn_s_client_reaches_peers_over_tcp() {
    let server = Server::start("tcp", 2, (20_000, 20_499), "");
    std::thread::scope(|scope| {
        for way in [&["-T"][..], &["-T", "-S"]] {
            for size in ["100", "1200"] {
                let arguments = [way, &["-n", "20", "-m", "6", "-z", "5", "-l", size]].concat();
                let server = &server;
                scope.spawn(move || echo(server, &arguments));
            }
        }
    });
    // Peers that connect to it: these do not count what they send themselves as received.
    let Some(mut client) = tool("turnutils_uclient") else { return };
    let client = client.args(["-P", "-m", "2", "-n", "5", "-u", "test", "-w", "test123", "-p"]);
    let told = text(&client.arg(server.port.to_string()).arg("127.0.0.1").output().expect("coturn's client"));
    assert!(told.contains("tot_recv_msgs=5"), "{told}\n{}", server.log());
}

#[test]
fn an_operator_sees_connections_of_peers_and_ends_them() {
    let server = Server::start("tcprows", 1, (20_500, 20_999), "");
    let Some(mut client) = tool("turnutils_uclient") else { return };
    let client = client.args(["-T", "-m", "2", "-n", "10000", "-u", "test", "-w", "test123", "-p"]);
    let client = client.arg(server.port.to_string()).arg("127.0.0.1").stdout(Stdio::null()).stderr(Stdio::null());
    let mut client = client.spawn().expect("a client");
    let wait = |right: &dyn Fn(&[serde_json::Value]) -> bool| {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let rows = server.allocations();
            if right(&rows) {
                break rows;
            }
            assert!(Instant::now() < end, "{rows:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let number = |row: &serde_json::Value, key: &str| row[key].as_u64().unwrap_or(0);
    let is_relaying = |row: &serde_json::Value| {
        row["protocol"] == "tcp" && number(row, "connections") > 0 && number(row, "to_peers_bytes") > 0
    };
    let rows = wait(&|rows| rows.len() == 2 && rows.iter().all(is_relaying));
    for row in &rows {
        server.admin(&["kill", row["id"].as_str().expect("an id")]);
    }
    wait(&|rows| rows.is_empty());
    client.kill().expect("ours");
    client.wait().expect("ours");
}

#[test]
fn what_is_asked_without_credentials_is_answered_as_coturn_does() {
    let server = Server::start("stun", 2, (27_000, 27_099), "");
    for name in ["turnutils_stunclient", "turnutils_natdiscovery"] {
        let Some(mut client) = tool(name) else { return };
        let more: &[&str] = if name.ends_with("stunclient") { &[] } else { &["-m"] };
        let told = text(
            &client.args(["-p", &server.port.to_string()]).args(more).arg("127.0.0.1").output().expect("a client"),
        );
        assert!(told.contains("127.0.0.1:"), "{name}: {told}");
    }
    let Some(mut client) = tool("turnutils_uclient") else { return };
    let wrong = ["-u", "test", "-w", "wrong", "-y", "-n", "2", "-p", &server.port.to_string(), "127.0.0.1"];
    assert!(!text(&client.args(wrong).output().expect("a client")).contains("tot_recv_msgs=2"), "a wrong password");
    assert!(server.allocations().is_empty());
}

/// A file that names two addresses, and with them the server of RFC 5780 that coturn then is.
fn with_two_addresses(name: &str, ports: (u16, u16), more: &str) -> (Server, u16) {
    let alt_port = free_port();
    let more = format!(
        "listening-ip=127.0.0.2\nexternal-ip=127.0.0.1/127.0.0.1\nexternal-ip=127.0.0.2/127.0.0.2\n\
         alt-listening-port={alt_port}\n{more}"
    );
    (Server::start(name, 2, ports, &more), alt_port)
}

/// Binding requests that each worker has answered.
fn bindings(metrics_port: u16) -> Vec<u64> {
    let mut page = String::new();
    let mut connection = std::net::TcpStream::connect(("127.0.0.1", metrics_port)).expect("metrics");
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("it reads");
    connection.read_to_string(&mut page).expect("text");
    let counts = page.lines().filter(|line| line.starts_with("ringmain_turn_bindings_total{"));
    counts.map(|line| line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a count")).collect()
}

#[test]
fn coturn_s_client_finds_out_that_there_is_no_nat() {
    let (server, alt_port) = with_two_addresses("discovery", (27_100, 27_199), "");
    let other = format!("Other addr: : 127.0.0.2:{alt_port}");
    for (arguments, answers, found) in [
        (&["-m"][..], 2, "NAT with Endpoint Independent Mapping!"),
        (&["-f"], 2, "NAT with Endpoint Independent Filtering!"),
        (&["-m", "-f", "-P"], 4, "NAT with Endpoint Independent Filtering!"),
        // The answer to a second socket's request comes to the first (RESPONSE-PORT).
        (&["-t", "-T", "1"], 2, &other),
        (&["-c", "-A", "127.0.0.3"], 2, &other),
    ] {
        let Some(mut client) = tool("turnutils_natdiscovery") else { return };
        let client = client.args(["-L", "127.0.0.1", "-p", &server.port.to_string()]).args(arguments).arg("127.0.0.1");
        let told = text(&client.output().expect("a client"));
        assert!(told.contains(found) && told.contains(&other), "{arguments:?}: {told}");
        assert_eq!(told.matches("RFC 5780 response").count(), answers, "{arguments:?}: {told}");
        assert!(!told.contains("error") && !told.contains("timeout"), "{arguments:?}: {told}");
    }
}

#[test]
fn answers_leave_from_the_address_and_port_that_a_client_wants_whichever_worker_it_came_to() {
    let metrics_port = free_port();
    let metrics = format!("prometheus\nprometheus-port={metrics_port}\n");
    let (server, alt_port) = with_two_addresses("origins", (27_200, 27_299), &metrics);
    let at = |host: u8, port: u16| SocketAddr::from(([127, 0, 0, host], port));
    let mut bytes = [0; 2048];
    for (first, second, port, other_port) in [(1, 2, server.port, alt_port), (2, 1, alt_port, server.port)] {
        let origins =
            [(0, at(first, port)), (4, at(second, port)), (2, at(first, other_port)), (6, at(second, other_port))];
        // The kernel gives every one of them to one of two workers. An address of strangers' gets ten answers a second.
        for host in 0..8 {
            let client = UdpSocket::bind((std::net::Ipv4Addr::new(127, 0, first, 10 + host), 0)).expect("a socket");
            client.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket's");
            for (flags, origin) in origins {
                let mut request = [0; 28];
                request[..8].copy_from_slice(&[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42]);
                request[20..].copy_from_slice(&[0, 3, 0, 4, 0, 0, 0, flags]);
                client.send_to(&request, at(first, port)).expect("sent");
                let (size, from) = client.recv_from(&mut bytes).expect("an answer");
                assert_eq!((from, size, &bytes[..2]), (origin, 56, &[1, 1][..]), "{flags}");
            }
        }
    }
    // Counters are told once a second.
    let end = Instant::now() + Duration::from_secs(10);
    while bindings(metrics_port).iter().sum::<u64>() < 64 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    let asked = bindings(metrics_port);
    assert!(asked.len() == 2 && asked.iter().all(|&count| count > 0) && asked.iter().sum::<u64>() == 64, "{asked:?}");
    // A request that no Ethernet carries in one piece is answered in the same size; what is no Binding request is not.
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket's");
    let mut padded = [0; 1524];
    padded[..8].copy_from_slice(&[0, 1, 5, 0xe0, 0x21, 0x12, 0xa4, 0x42]);
    padded[20..24].copy_from_slice(&[0, 0x26, 5, 0xdc]);
    let mut strange = padded;
    strange[1] = 3;
    for (request, port) in [(strange, server.port), (padded, server.port)] {
        client.send_to(&request, at(1, port)).expect("sent");
    }
    let (size, from) = client.recv_from(&mut bytes).expect("an answer");
    assert_eq!((size, from, &bytes[..2]), (1524, at(1, server.port), &[1, 1][..]));
}

#[test]
fn an_operator_lists_kills_and_drains() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start("admin", 2, (28_000, 28_999), "");
    let rights = std::fs::metadata(server.dir.join("admin")).expect("the socket").permissions().mode();
    assert_eq!(rights & 0o777, 0o600);
    assert!(server.allocations().is_empty());
    let Some(mut client) = tool("turnutils_uclient") else { return };
    let arguments = [
        "-u",
        "test",
        "-w",
        "test123",
        "-y",
        "-m",
        "2",
        "-c",
        "-n",
        "10000",
        "-p",
        &server.port.to_string(),
        "127.0.0.1",
    ];
    let mut client = client.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a client");
    let end = Instant::now() + Duration::from_secs(20);
    let rows = loop {
        let rows = server.allocations();
        if rows.len() >= 2 || Instant::now() > end {
            break rows;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(rows.len() >= 2, "{rows:?}");
    assert_eq!((&rows[0]["user"], &rows[0]["transport"]), (&"test".into(), &"udp".into()));
    let relayed: SocketAddr = rows[0]["relayed"][0].as_str().and_then(|text| text.parse().ok()).expect("an address");
    assert!((28_000..=28_999).contains(&relayed.port()));
    server.admin(&["drain"]);
    for row in &rows {
        server.admin(&["kill", row["id"].as_str().expect("an id")]);
    }
    let left = server.allocations();
    assert!(rows.iter().all(|row| left.iter().all(|other| other["id"] != row["id"])), "{left:?}");
    client.kill().expect("ours");
    client.wait().expect("ours");
}

#[test]
fn a_file_that_cannot_be_served_is_refused_with_every_line_that_is_wrong() {
    let file = std::env::temp_dir().join(format!("ringmain-turn-refused-{}", std::process::id()));
    std::fs::write(&file, "user=a:b\nno-auth\nlisening-port=3478\nuserdb=/var/db/turndb\n").expect("a file");
    let done = Command::new(env!("CARGO_BIN_EXE_ringmain")).args(["turn", "--coturn-config"]).arg(&file).output();
    let done = done.expect("the binary under test");
    let told = text(&done);
    assert!(!done.status.success());
    for (key, line) in [("no-auth", 2), ("lisening-port", 3), ("userdb", 4)] {
        assert!(told.contains(&format!("`{key}`")) && told.contains(&format!("line {line}")), "{told}");
    }
    std::fs::remove_file(file).expect("ours");
}

#[test]
fn a_million_strangers_leave_nothing_behind() {
    let server = Server::start("flood", 2, (29_000, 29_099), "");
    let rss = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id())).expect("alive");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line").to_owned();
        line.trim().trim_end_matches("kB").trim().parse::<i64>().expect("a number")
    };
    // An Allocate without credentials (RFC 8656 §7.1).
    let mut request = [0; 28];
    request[..8].copy_from_slice(&[0, 3, 0, 8, 0x21, 0x12, 0xa4, 0x42]);
    request[20..].copy_from_slice(&[0, 0x19, 0, 4, 17, 0, 0, 0]);
    let flood = |sockets: std::ops::Range<u32>, each: u32| {
        for index in sockets {
            // Every socket is another address; a port of its own for each further request would be counted with its address.
            let address = std::net::Ipv4Addr::from_bits(0x7f01_0000 + index);
            let Ok(socket) = UdpSocket::bind((address, 0)) else { continue };
            for number in 0..each {
                request[8..12].copy_from_slice(&(index ^ number << 24).to_be_bytes());
                let _ = socket.send_to(&request, ("127.0.0.1", server.port));
            }
        }
    };
    let mut flood = flood;
    flood(0..20_000, 1);
    // The allocator's arena is of huge pages: whatever is allocated next may make 2 MiB resident at once (seen in smaps). What strangers
    // leave behind, each million of them leaves.
    let mut growths = (0..3).map(|round| {
        let before = rss();
        flood(round * 1_000_000 + 20_000..(round + 1) * 1_000_000 + 20_000, 1);
        rss() - before
    });
    assert!(growths.any(|growth| growth <= 256), "each million left something behind");
    assert!(server.allocations().is_empty());
}

#[test]
fn a_credential_is_printed_and_the_secret_is_not() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
        let done = command.env("RINGMAIN_TURN_SHARED_SECRET", "north-by-northwest").args(arguments).output();
        let done = done.expect("the binary under test");
        assert!(done.status.success(), "{}", text(&done));
        String::from_utf8(done.stdout).expect("text")
    };
    let told = run(&["turn-credentials", "alice", "--lifetime", "60", "--json"]);
    let entry: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let (expiry, user) = entry["username"].as_str().and_then(|name| name.split_once(':')).expect("expiry:user");
    assert_eq!((user, expiry.len(), &entry["ttl"]), ("alice", 10, &60.into()));
    assert_eq!(entry["credential"].as_str().expect("text").len(), 28, "base64 of HMAC-SHA1");
    assert!(!run(&["config"]).contains("north-by-northwest"));
    assert!(run(&["config"]).contains("shared_secret = [\"set\"]"));
    let mut lines = BufReader::new(run(&["turn-credentials"]).as_bytes().to_vec().leak() as &[u8]).lines();
    assert!(lines.next().and_then(Result::ok).is_some_and(|line| line.starts_with("username: ")));
}
