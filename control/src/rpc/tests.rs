//! The dialect: what real clients send is read, and what hostile ones send is refused under the right code.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use ringmain_shared::Now;
use ringmain_shared::limits::SIGNAL_MESSAGE_SIZE_MAX as SIZE_MAX;
use serde_json::{Value, json};

use super::*;

/// Whom the error of a refused message goes to, and its code.
fn refused(text: &str) -> (Option<Value>, i32) {
    let refusal = Request::parse(text).err().unwrap_or_else(|| panic!("accepted: {:.100}", text));
    let id = match refusal.recipient {
        Recipient::Request(id) => Some(id.to_value()),
        Recipient::Unknown => Some(Value::Null),
        Recipient::Nobody => None,
    };
    (id, refusal.error.code.number())
}

fn call(text: &str) -> Call {
    Request::parse(text).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}")).call
}

#[test]
fn messages_of_the_sdk_are_read() {
    let join =
        r#"{"method":"join","params":{"sid":"room1","uid":"alice","offer":{"type":"offer","sdp":"v=0"}},"id":"3f0c"}"#;
    let request = Request::parse(join).expect("a join");
    assert_eq!(request.id, Some(RequestId::Text("3f0c".to_owned())));
    let Call::Join(join) = request.call else { panic!("{:?}", request.call) };
    assert_eq!((join.sid.as_str(), join.uid.as_deref(), join.offer.as_deref()), ("room1", Some("alice"), Some("v=0")));
    assert!(join.subscribe && join.auto_subscribe && join.info.is_none());

    let offer = r#"{"method":"offer","params":{"desc":{"type":"offer","sdp":"x"}},"id":0,"jsonrpc":"2.0"}"#;
    let request = Request::parse(offer).expect("an offer");
    assert!(matches!((request.id, request.call), (Some(RequestId::Number(0)), Call::Offer(sdp)) if sdp == "x"));

    let answer = r#"{"method":"answer","params":{"desc":{"type":"answer","sdp":"y","extra":[1,{}]}},"extra":null}"#;
    let request = Request::parse(answer).expect("an answer");
    assert!(matches!((request.id, request.call), (None, Call::Answer(sdp)) if sdp == "y"));

    let candidate =
        |candidate: Value| json!({"method": "trickle", "params": {"target": 1, "candidate": candidate}}).to_string();
    let line = "candidate:842163049 1 udp 1677729535 192.0.2.9 46154 typ srflx raddr 0.0.0.0 rport 0";
    let table = [
        (json!({"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": "EEtu"}), false),
        (json!({"candidate": "", "sdpMid": "0", "sdpMLineIndex": 0}), true),
        (json!({"candidate": null, "sdpMid": null, "usernameFragment": null}), true),
        (json!({}), true),
        (Value::Null, true),
    ];
    for (value, end) in table {
        assert!(matches!(call(&candidate(value)), Call::Trickle(trickle) if trickle == Trickle { target: 1, end }));
    }
}

#[test]
fn config_keys_are_read_in_any_case() {
    let join = |config: Value| {
        let offer = json!({"type": "offer", "sdp": "v=0"});
        let text = json!({"method": "join", "id": 1, "params": {"sid": "s", "offer": offer, "config": config}});
        match call(&text.to_string()) {
            Call::Join(join) => (join.offer.is_some(), join.subscribe, join.auto_subscribe),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(join(Value::Null), (true, true, true));
    assert_eq!(join(json!({"NoPublish": false, "NoSubscribe": null, "other": 5})), (true, true, true));
    assert_eq!(join(json!({"nopublish": true})), (false, true, true));
    assert_eq!(join(json!({"NOSUBSCRIBE": true})), (true, false, true));
    assert_eq!(join(json!({"noAutoSubscribe": true})), (true, true, false));
}

#[test]
fn tracks_are_named_by_stream_or_both() {
    let text = r#"{"method":"subscribe","params":{"tracks":[{"streamId":"s"},{"streamId":"s","trackId":"t"}]},"id":1}"#;
    let Call::Subscribe(names) = call(text) else { panic!("not a subscribe") };
    let name = |track: Option<&str>| TrackName { stream_id: "s".to_owned(), track_id: track.map(str::to_owned) };
    assert_eq!(names, [name(None), name(Some("t"))]);
}

#[test]
fn hostile_messages_are_refused_under_the_right_code() {
    let long = "x".repeat(SIZE_MAX);
    let deep = |depth: usize| format!(r#"{{"id":1,"method":"tracks","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let wide = |count: usize| format!(r#"{{"method":"tracks","id":1,"x":[{}]}}"#, vec!["0"; count].join(","));
    let id_of = |size: usize| format!(r#"{{"method":"tracks","id":"{}"}}"#, "i".repeat(size));
    let names = vec![r#"{"streamId":"s"}"#; 65].join(",");
    let null = || Some(Value::Null);
    let one = || Some(json!(1));
    let join = |params: &str| format!(r#"{{"id":1,"method":"join","params":{params}}}"#);
    let offer = r#""offer":{"type":"offer","sdp":"v=0"}"#;
    let notify = |method: &str, params: &str| format!(r#"{{"method":"{method}","params":{params}}}"#);
    let ask = |method: &str, params: &str| format!(r#"{{"id":1,"method":"{method}","params":{params}}}"#);

    let not_json: Vec<String> = [
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "nul",
        "truth",
        "\"",
        "'x'",
        "{'a':1}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "[1,]",
        "{} {}",
        "{}x",
        "\u{feff}{}",
        "\0",
        "{\"a\":\"\0\"}",
        "{\"a\":\"\n\"}",
        r#"{"a":1e400}"#,
        r#"{"a":-1e400}"#,
        r#"{"a":01}"#,
        r#"{"a":+1}"#,
        r#"{"a":.5}"#,
        r#"{"a":NaN}"#,
        r#"{"a":Infinity}"#,
        r#"{"a":0x10}"#,
        r#"{"a":"\ud800"}"#,
        r#"{"a":"\udc00\ud800"}"#,
        r#"{"a":"\u12"}"#,
        r#"{"a":"\x41"}"#,
        r#"{"\ud800":1}"#,
        "/* */{}",
        "{a:1}",
        "GET / HTTP/1.1",
    ]
    .map(str::to_owned)
    .to_vec();
    for text in &not_json {
        assert_eq!(refused(text), (null(), -32700), "{text:?}");
    }

    let table: Vec<(String, Option<Value>, i32)> = vec![
        // Not a request.
        ("[]".into(), null(), -32600),
        (r#"[{"method":"tracks","id":1}]"#.into(), null(), -32600),
        ("null".into(), null(), -32600),
        ("7".into(), null(), -32600),
        ("\"join\"".into(), null(), -32600),
        ("true".into(), null(), -32600),
        ("{}".into(), null(), -32600),
        (r#"{"id":1}"#.into(), one(), -32600),
        (r#"{"id":1,"result":{}}"#.into(), one(), -32600),
        (r#"{"id":1,"method":7}"#.into(), one(), -32600),
        (r#"{"id":1,"method":null}"#.into(), one(), -32600),
        (r#"{"id":1,"method":["join"]}"#.into(), one(), -32600),
        (r#"{"id":1,"method":"tracks","jsonrpc":"1.0"}"#.into(), one(), -32600),
        (r#"{"id":1,"method":"tracks","jsonrpc":2}"#.into(), one(), -32600),
        (r#"{"id":-1,"method":"tracks"}"#.into(), null(), -32600),
        (r#"{"id":1.5,"method":"tracks"}"#.into(), null(), -32600),
        (r#"{"id":1e3,"method":"tracks"}"#.into(), null(), -32600),
        (r#"{"id":18446744073709551616,"method":"tracks"}"#.into(), null(), -32600),
        (r#"{"id":true,"method":"tracks"}"#.into(), null(), -32600),
        (r#"{"id":[1],"method":"tracks"}"#.into(), null(), -32600),
        (r#"{"id":{},"method":"tracks"}"#.into(), null(), -32600),
        (id_of(65), null(), -32600),
        // Beyond the bounds.
        (format!(r#"{{"id":1,"method":"tracks","x":"{long}"}}"#), null(), -32600),
        (" ".repeat(SIZE_MAX + 1), null(), -32600),
        (deep(16), null(), -32600),
        (deep(32_000), null(), -32600),
        (format!(r#"{{"a":{}"#, r#"{"a":"#.repeat(10_000)), null(), -32600),
        (wide(998), null(), -32600),
        (wide(30_000), null(), -32600),
        (r#"{"id":1,"id":2,"method":"tracks"}"#.into(), null(), -32600),
        (r#"{"id":1,"method":"tracks","method":"join"}"#.into(), null(), -32600),
        (r#"{"id":1,"method":"tracks","\u006dethod":"join"}"#.into(), null(), -32600),
        (r#"{"id":1,"method":"tracks","params":{"x":{"a":1,"a":1}}}"#.into(), null(), -32600),
        // No such method.
        (r#"{"id":1,"method":""}"#.into(), one(), -32601),
        (r#"{"id":1,"method":"Join"}"#.into(), one(), -32601),
        (r#"{"id":"x","method":"rpc.discover"}"#.into(), Some(json!("x")), -32601),
        (r#"{"id":1,"method":"join\u0000"}"#.into(), one(), -32601),
        (r#"{"method":"nothing"}"#.into(), None, -32601),
        (r#"{"id":null,"method":"nothing"}"#.into(), None, -32601),
        // Parameters of join.
        (r#"{"id":1,"method":"join"}"#.into(), one(), -32602),
        (join("[]"), one(), -32602),
        (join("\"room\""), one(), -32602),
        (join("{}"), one(), -32602),
        (join(&format!("{{{offer}}}")), one(), -32602),
        (join(&format!(r#"{{"sid":"",{offer}}}"#)), one(), -32602),
        (join(&format!(r#"{{"sid":7,{offer}}}"#)), one(), -32602),
        (join(&format!(r#"{{"sid":null,{offer}}}"#)), one(), -32602),
        (join(&format!(r#"{{"sid":"a\u0000b",{offer}}}"#)), one(), -32602),
        (join(&format!(r#"{{"sid":"a\r\nb",{offer}}}"#)), one(), -32602),
        (join(&format!(r#"{{"sid":"{}",{offer}}}"#, "s".repeat(257))), one(), -32602),
        (join(&format!(r#"{{"sid":"s","uid":5,{offer}}}"#)), one(), -32602),
        (join(&format!(r#"{{"sid":"s","uid":"\u001b[2J",{offer}}}"#)), one(), -32602),
        (join(&format!(r#"{{"sid":"s","uid":"{}",{offer}}}"#, "u".repeat(257))), one(), -32602),
        (join(&format!(r#"{{"sid":"s","info":"{}",{offer}}}"#, "i".repeat(1023))), one(), -32602),
        (join(r#"{"sid":"s"}"#), one(), -32602),
        (join(r#"{"sid":"s","offer":null}"#), one(), -32602),
        (join(r#"{"sid":"s","offer":"v=0"}"#), one(), -32602),
        (join(r#"{"sid":"s","offer":{"type":"answer","sdp":"v=0"}}"#), one(), -32602),
        (join(r#"{"sid":"s","offer":{"sdp":"v=0"}}"#), one(), -32602),
        (join(r#"{"sid":"s","offer":{"type":"offer"}}"#), one(), -32602),
        (join(r#"{"sid":"s","offer":{"type":"offer","sdp":["v=0"]}}"#), one(), -32602),
        (join(&format!(r#"{{"sid":"s","config":[],{offer}}}"#)), one(), -32602),
        (join(&format!(r#"{{"sid":"s","config":{{"NoPublish":"true"}},{offer}}}"#)), one(), -32602),
        // Parameters of the others.
        (ask("offer", r#"{"type":"offer","sdp":"v=0"}"#), one(), -32602),
        (ask("offer", r#"{"desc":{"type":"answer","sdp":"v=0"}}"#), one(), -32602),
        (ask("answer", r#"{"desc":{"type":"pranswer","sdp":"v=0"}}"#), one(), -32602),
        (notify("answer", r#"{"desc":{"type":"offer","sdp":"v=0"}}"#), None, -32602),
        (notify("answer", "{}"), None, -32602),
        (ask("trickle", "{}"), one(), -32602),
        (ask("trickle", r#"{"target":2}"#), one(), -32602),
        (ask("trickle", r#"{"target":-1}"#), one(), -32602),
        (ask("trickle", r#"{"target":"0"}"#), one(), -32602),
        (ask("trickle", r#"{"target":0,"candidate":"candidate:1"}"#), one(), -32602),
        (ask("trickle", r#"{"target":0,"candidate":{"candidate":1}}"#), one(), -32602),
        (
            ask("trickle", &format!(r#"{{"target":0,"candidate":{{"candidate":"{}"}}}}"#, "c".repeat(1025))),
            one(),
            -32602,
        ),
        (notify("trickle", r#"{"target":3}"#), None, -32602),
        (ask("subscribe", "{}"), one(), -32602),
        (ask("subscribe", r#"{"tracks":{}}"#), one(), -32602),
        (ask("subscribe", r#"{"tracks":["s"]}"#), one(), -32602),
        (ask("subscribe", r#"{"tracks":[{"trackId":"t"}]}"#), one(), -32602),
        (ask("subscribe", r#"{"tracks":[{"streamId":"s","trackId":1}]}"#), one(), -32602),
        (ask("subscribe", &format!(r#"{{"tracks":[{names}]}}"#)), one(), -32602),
        (ask("unsubscribe", r#"{"tracks":7}"#), one(), -32602),
    ];
    assert!(table.len() + not_json.len() >= 100);
    for (text, id, code) in table {
        assert_eq!(refused(&text), (id, code), "{:.200}", text);
    }
}

#[test]
fn what_is_just_within_the_bounds_is_read() {
    let deep = format!(r#"{{"method":"tracks","x":{}{}}}"#, "[".repeat(15), "]".repeat(15));
    let wide = format!(r#"{{"method":"tracks","x":[{}]}}"#, vec!["0"; 997].join(","));
    let id = format!(r#"{{"method":"tracks","id":"{}"}}"#, "i".repeat(64));
    let big = format!(r#"{{"method":"tracks","id":{}}}"#, u64::MAX);
    let mut long = r#"{"method":"tracks"}"#.to_owned();
    long += &" ".repeat(SIZE_MAX - long.len());
    for text in [&deep, &wide, &id, &big, &long] {
        assert!(matches!(call(text), Call::Tracks));
    }
}

#[test]
fn no_message_takes_long_to_refuse() {
    let bombs = [
        "[".repeat(SIZE_MAX),
        r#"{"a":"#.repeat(SIZE_MAX / 5),
        format!("[{}0]", "0,".repeat(SIZE_MAX / 2 - 2)),
        format!("\"{}\"", "\\u0041".repeat(SIZE_MAX / 6 - 1)),
        "1".repeat(SIZE_MAX),
        format!("1e{}", "9".repeat(SIZE_MAX - 10)),
    ];
    // Of this thread, so that nothing beside it counts.
    let time = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).expect("Linux has it");
    let start = time();
    for bomb in &bombs {
        assert!(Request::parse(bomb).is_err());
    }
    let took = time() - start;
    assert!(took < Duration::from_secs(1), "{took:?} for six messages");
}

#[test]
fn replies_echo_the_id_in_kind() {
    let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let text = RequestId::Text("a\"b".to_owned());
    assert_eq!(read(&reply(&text, json!({"x": 1}))), json!({"id": "a\"b", "result": {"x": 1}, "jsonrpc": "2.0"}));
    assert_eq!(read(&reply(&RequestId::Number(u64::MAX), Value::Null))["id"], json!(u64::MAX));
    let error = RpcError::new(ErrorCode::RoomFull, "full\r\n");
    let expected = json!({"id": null, "error": {"code": -32006, "message": "full\r\n"}, "jsonrpc": "2.0"});
    assert_eq!(read(&failure(None, &error)), expected);
    let told = notification("offer", json!({"type": "offer", "sdp": "v=0\r\n"}));
    assert_eq!(
        read(&told),
        json!({"jsonrpc": "2.0", "method": "offer", "params": {"type": "offer", "sdp": "v=0\r\n"}})
    );
}

#[test]
fn error_codes_are_distinct_and_in_the_ranges_of_json_rpc() {
    let mut numbers: Vec<i32> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
    assert!(
        numbers
            .iter()
            .all(|number| (-32603..=-32600).contains(number) || *number == -32700 || (-32099..-32000).contains(number))
    );
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), ErrorCode::ALL.len());
}

#[test]
fn a_token_bucket_gives_its_burst_then_its_rate() {
    let mut bucket = TokenBucket::new(50, 100, Now::from_millis(5));
    let taken =
        |bucket: &mut TokenBucket, millis: u64| (0..1000).filter(|_| bucket.take(Now::from_millis(millis))).count();
    assert_eq!(taken(&mut bucket, 5), 100);
    assert_eq!(taken(&mut bucket, 24), 0);
    assert_eq!(taken(&mut bucket, 25), 1);
    assert_eq!(taken(&mut bucket, 1025), 50);
    assert_eq!(taken(&mut bucket, 500), 0, "time does not run back");
    assert_eq!(taken(&mut bucket, 100_000), 100, "no more than the burst is saved");
}
