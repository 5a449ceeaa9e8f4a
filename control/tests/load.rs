//! `ringmain load` against `ringmain`, as a user runs both.

mod common;

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::free_port;
use serde_json::Value;

struct Server {
    process: Child,
    url: String,
}

impl Server {
    /// A server on free ports; it has them once it answers.
    fn start() -> Self {
        Self::start_with("ws", &[])
    }

    fn start_with(scheme: &str, arguments: &[&str]) -> Self {
        let (listen, metrics, media) = (free_port(), free_port(), free_port());
        let process = Command::new(env!("CARGO_BIN_EXE_ringmain"))
            .args(["--bind", "127.0.0.1", "--workers", "1"])
            .args(["--listen", &format!("127.0.0.1:{listen}"), "--metrics", &format!("127.0.0.1:{metrics}")])
            .args(["--base-port", &media.to_string(), "--log", "warn"])
            .args(arguments)
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the server starts");
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", listen)).is_err() {
            assert!(Instant::now() < end, "the server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, url: format!("{scheme}://127.0.0.1:{listen}/ws") }
    }

    fn load(&self, arguments: &[&str]) -> (bool, Value) {
        let pid = self.process.id().to_string();
        let output = load(&[&[self.url.as_str(), "--json", "--server-pid", &pid], arguments].concat());
        let text = String::from_utf8(output.stdout).expect("text");
        let errors = String::from_utf8_lossy(&output.stderr);
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"));
        (output.status.success(), json)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn load(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmain")).arg("load").args(arguments).output().expect("it runs")
}

fn number(json: &Value, path: &str) -> f64 {
    json.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} is no number in {json:#}"))
}

/// As much as was asked for. On a busy host the load itself comes too late to some of it.
fn assert_rate(sent: f64, per_second: f64, seconds: f64) {
    let expected = per_second * seconds;
    assert!((0.5 * expected..1.2 * expected).contains(&sent), "{sent} instead of {expected}");
}

#[test]
fn a_small_load_arrives_whole_at_every_subscriber() {
    let server = Server::start();
    let (passed, json) =
        server.load(&["-p", "2", "-s", "10", "-d", "3", "--warmup", "1", "--audio", "--uneven", "--verify", "1"]);
    assert!(passed && json["passed"] == true, "{json:#}");
    assert_eq!(json["problems"], serde_json::json!([]));
    assert_eq!((number(&json, "/joins/count"), number(&json, "/joins/failed")), (12.0, 0.0));
    assert_eq!(number(&json, "/joins/first_media/count"), 10.0);
    let found = |name: &str| number(&json, &format!("/window/received/{name}"));
    assert_eq!((found("streams"), found("streams_expected")), (40.0, 40.0));
    for name in ["lost", "duplicates", "spoilt"] {
        assert_eq!(found(name), 0.0, "{name} in {json:#}");
    }
    // Two videos of 240 packets per second and two sounds of 50, for three seconds, at ten subscribers.
    let (seconds, sent) = (number(&json, "/window/seconds"), number(&json, "/window/sent/packets"));
    assert!(seconds >= 3.0, "{json:#}");
    assert_rate(sent, 2.0 * 240.0 + 2.0 * 50.0, seconds);
    assert!((found("packets") - 10.0 * sent).abs() < 0.2 * 10.0 * sent, "{json:#}");
    assert!(found("verified") >= found("packets"), "every packet is opened");
    assert_eq!(number(&json, "/window/delay/count"), found("verified"));
    assert!(number(&json, "/window/delay/p50_us") > 0.0 && number(&json, "/window/delay/p50_us") < 3e6, "{json:#}");
    assert!(found("rtcp_sent") > 0.0 && found("rtcp_received") > 0.0);
    assert!(number(&json, "/window/server/rss_bytes") > 1e6);
    assert!(number(&json, "/window/server/cpu_ns_per_packet") >= 0.0);
}

#[test]
fn losses_at_both_ends_are_asked_for_and_repaired() {
    let server = Server::start();
    let (passed, json) =
        server.load(&["-p", "1", "-s", "4", "-d", "3", "--warmup", "1", "--drop", "2", "--loss-max", "0.5"]);
    assert!(passed, "{json:#}");
    let found = |name: &str| number(&json, &format!("/window/received/{name}"));
    // A fiftieth of 240 packets per second, at one publisher and four subscribers.
    assert!(found("dropped") > 30.0, "{json:#}");
    assert!(found("repaired") > 30.0 && found("packets_asked_again") >= found("repaired"), "{json:#}");
    assert!(number(&json, "/window/sent/packets_sent_again") > 3.0, "{json:#}");
    assert_eq!(found("spoilt"), 0.0);
}

#[test]
fn messages_on_data_channels_reach_every_subscriber_in_order() {
    let server = Server::start();
    let (passed, json) = server.load(&[
        "-p",
        "2",
        "-s",
        "5",
        "-d",
        "2",
        "--warmup",
        "1",
        "--fps",
        "10",
        "--data-channel",
        "20",
        "--message-size",
        "3000",
    ]);
    assert!(passed, "{json:#}");
    let found = |name: &str| number(&json, &format!("/window/messages/{name}"));
    assert_eq!((found("channels"), found("conversations")), (7.0, 12.0));
    assert_eq!((found("lost"), found("spoilt")), (0.0, 0.0));
    // Two publishers, twenty a second, two seconds; each to five subscribers and the other publisher, some after the window's end.
    assert_rate(found("sent"), 2.0 * 20.0, number(&json, "/window/seconds"));
    assert!(found("received") > 0.0 && found("delay/p50_us") > 0.0, "{json:#}");
    assert!(found("delay/count") >= 6.0 * found("sent"), "{json:#}");
    assert_eq!(number(&json, "/window/received/streams"), 10.0);
}

#[test]
fn data_channels_alone_need_no_media_and_no_messages() {
    let server = Server::start();
    let (passed, json) =
        server.load(&["-p", "1", "-s", "3", "-d", "1", "--warmup", "1", "--fps", "0", "--data-channel", "0"]);
    assert!(passed, "{json:#}");
    let found = |name: &str| number(&json, &format!("/window/messages/{name}"));
    assert_eq!((found("channels"), found("conversations_expected"), found("sent")), (4.0, 0.0, 0.0));
    assert!(number(&json, "/window/server/rss_bytes_per_subscriber") >= 0.0);
}

#[test]
fn a_server_behind_tls_is_loaded_when_its_certificate_is_accepted() {
    let server = Server::start_with("wss", &["--tls-self-signed"]);
    let refused = load(&[server.url.as_str(), "-s", "1", "-d", "1", "--warmup", "0"]);
    assert_eq!(refused.status.code(), Some(1));
    let text = [refused.stdout, refused.stderr].concat();
    assert!(String::from_utf8_lossy(&text).contains("--insecure"), "{}", String::from_utf8_lossy(&text));
    let (passed, json) = server.load(&["-s", "3", "-d", "1", "--warmup", "1", "--insecure"]);
    assert!(passed, "{json:#}");
    assert_eq!(number(&json, "/window/received/streams"), 3.0);
}

#[test]
fn a_ramp_climbs_until_a_step_fails_and_tells_the_highest_that_held() {
    let server = Server::start();
    let (passed, json) =
        server.load(&["-s", "10", "-d", "0.5", "--warmup", "0.5", "--ramp", "fps", "--fps", "20", "--size", "200"]);
    assert!(passed, "{json:#}");
    let steps = json["steps"].as_array().expect("steps");
    let found = |step: &Value| (step["value"].as_u64().expect("a value"), step["held"] == true);
    let found: Vec<(u64, bool)> = steps.iter().map(found).collect();
    assert_eq!(found.first().map(|&(value, _)| value), Some(20));
    let highest = found.iter().filter(|(_, held)| *held).map(|(value, _)| *value).max().expect("one held");
    assert_eq!(number(&json, "/highest"), highest as f64);
    // Each step is half as much again until one fails; then between the last that held and the first that did not.
    let climb = found.iter().take_while(|(_, held)| *held).count();
    assert!(found[..climb].windows(2).all(|pair| pair[1].0 == pair[0].0 + pair[0].0 / 2), "{found:?}");
    let failed = found.iter().filter(|(_, held)| !held).map(|(value, _)| *value).min();
    assert!(failed.is_none_or(|failed| failed > highest && failed - highest <= (highest / 20).max(1)), "{found:?}");
    let received = |step: &Value| number(step, "/window/received/packets_per_second");
    // On a host too busy for the first step the ramp goes down.
    assert!(climb < 2 || received(&steps[1]) > 1.2 * received(&steps[0]), "{json:#}");
    // A step that was not what it says cannot hold.
    for step in steps {
        let rate = number(step, "/window/sent/frames") / number(step, "/window/seconds");
        let kept_up = rate >= 0.9 * number(step, "/value");
        assert_eq!(step["starved"] == true, !kept_up, "{step:#}");
        assert!(kept_up || step["held"] == false, "{step:#}");
    }
}

#[test]
fn joins_alone_are_counted_and_timed() {
    let server = Server::start();
    let (passed, json) =
        server.load(&["-p", "0", "-s", "20", "--joins-only", "--join-rate", "0", "--bare", "--dtls", "1.3"]);
    assert!(passed, "{json:#}");
    assert_eq!((number(&json, "/joins/count"), number(&json, "/joins/took/count")), (20.0, 20.0));
    assert!(number(&json, "/joins/per_second") > 1.0);
    assert!(json.get("window").is_none(), "{json:#}");
}

#[test]
fn others_hosts_are_not_loaded() {
    let began = Instant::now();
    let output = load(&["ws://192.0.2.1:7000/ws", "-d", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("192.0.2.1 is not an address of this host") && text.contains("--yes-really"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(10), "refused before anything is sent");
}

#[test]
fn a_server_that_is_not_there_is_a_failure_that_says_so() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
    let output = load(&[&format!("ws://127.0.0.1:{port}/ws"), "-s", "1", "-d", "1", "--warmup", "0"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("nobody got in") && text.contains("cannot connect"), "{text}");
}
