//! The configuration through its public door: what is taken, what is refused, and with which words.

use std::time::Duration;

use super::*;

/// A configuration file alone, on a host of four cores.
fn file(text: &str) -> Result<Loaded, ConfigError> {
    load(&Sources { file: Some(("ringmain.toml".into(), text.into())), cpu_count: 4, ..Sources::default() })
}

fn flag(flag: &str, text: &str) -> Result<Loaded, ConfigError> {
    load(&Sources { flags: vec![(flag.into(), text.into())], cpu_count: 4, ..Sources::default() })
}

fn variable(name: &str, text: &str) -> Result<Loaded, ConfigError> {
    load(&Sources { environment: vec![(name.into(), text.into())], cpu_count: 4, ..Sources::default() })
}

fn taken(text: &str) -> Loaded {
    file(text).unwrap_or_else(|error| panic!("{text:?} is refused: {error}"))
}

#[test]
fn bad_files_are_refused_with_key_and_line() {
    // Text, key, line, and what the message says.
    let table: &[(&str, &str, usize, &str)] = &[
        ("listen = 7000", "listen", 1, "write it as"),
        ("listen = \":0\"", "listen", 1, "not a port"),
        ("listen = \":65536\"", "listen", 1, "not a port (1 to 65535)"),
        ("listen = \":-1\"", "listen", 1, "write it as"),
        ("listen = \"\"", "listen", 1, "write it as"),
        ("listen = \":\"", "listen", 1, "write it as"),
        ("listen = \"localhost:7000\"", "listen", 1, "write it as"),
        ("listen = \"192.0.2.1\"", "listen", 1, "has no port"),
        ("listen = \"192.0.2.1:0\"", "listen", 1, "port 0"),
        ("listen = \"192.0.2.256:7000\"", "listen", 1, "write it as"),
        ("listen = \"::1:7000\"", "listen", 1, "has no port"),
        ("listen = \"[::1]\"", "listen", 1, "write it as"),
        ("listen = [\":7000\"]", "listen", 1, "a list is not an endpoint"),
        ("listen = true", "listen", 1, "true is not an endpoint"),
        ("listen = \"off\"", "listen", 1, "write it as"),
        ("metrics = \"on\"", "metrics", 1, "write it as"),
        ("metrics = false", "metrics", 1, "write it as"),
        ("metrics = \":7000\"", "metrics", 1, "is where `listen` is"),
        ("\nlisten = \":8100\"", "metrics", 0, "is where `listen` is"),
        ("metrics_on_listen = \"yes\"", "metrics_on_listen", 1, "neither true nor false"),
        ("metrics_on_listen = 1", "metrics_on_listen", 1, "neither true nor false"),
        ("bind = [\"eth0\"]", "bind", 1, "\"eth0\" is not an IP address"),
        ("bind = \"192.0.2.1:5000\"", "bind", 1, "has a port"),
        ("bind = [\"192.0.2.0/24\"]", "bind", 1, "not an IP address"),
        ("bind = [1]", "bind", 1, "1 is not text"),
        ("bind = [\"fe80::1\"]", "bind", 1, "link-local"),
        ("bind = [\"224.0.0.1\"]", "bind", 1, "multicast"),
        ("bind = [\"192.0.2.1\", \"192.0.2.1\"]", "bind", 1, "named twice"),
        ("bind = [\"0.0.0.0\", \"192.0.2.1\"]", "bind", 1, "stands for all"),
        ("announce = [\"0.0.0.0\"]", "announce", 1, "no address that a client could send to"),
        ("announce = [\"255.255.255.255\"]", "announce", 1, "broadcast"),
        ("announce = [\"ff02::1\"]", "announce", 1, "multicast"),
        ("announce = [\"fe80::1\"]", "announce", 1, "link-local"),
        ("announce = [\"example.org\"]", "announce", 1, "not an IP address"),
        ("announce = [\"203.0.113.07\"]", "announce", 1, "not an IP address"),
        ("allow_origin = [\"example.org\"]", "allow_origin", 1, "not an origin"),
        ("allow_origin = [\"https://example.org/page\"]", "allow_origin", 1, "not an origin"),
        ("allow_origin = [\"https://\"]", "allow_origin", 1, "not an origin"),
        ("allow_origin = [\"*\"]", "allow_origin", 1, "not an origin"),
        ("[tls]\ncert = \"a.pem\"", "tls.cert", 2, "needs `tls.key`"),
        ("[tls]\nkey = \"a.pem\"", "tls.key", 2, "needs `tls.cert`"),
        ("[tls]\ncert = 1", "tls.cert", 2, "not text"),
        ("[tls]\ncert = \"a\"\nkey = \"b\"\nself_signed = true", "tls.self_signed", 4, "keep one"),
        ("[media]\nbase_port = 0", "media.base_port", 2, "not a port"),
        ("[media]\nbase_port = 65536", "media.base_port", 2, "65536 is not a port (1 to 65535)"),
        ("[media]\nbase_port = -5000", "media.base_port", 2, "not a port"),
        ("[media]\nbase_port = 5000.5", "media.base_port", 2, "5000.5 is not a port"),
        ("[media]\nbase_port = \"5000\"", "media.base_port", 2, "\"5000\" is not a port"),
        ("[media]\nbase_port = 99999999999999999999", "media.base_port", 2, "not a port"),
        ("[media]\nbase_port = 65533", "media.base_port", 2, "4 workers need as many ports, and 65533 leaves 3"),
        ("[media]\nbase_port = 65000\nworkers = 1000", "media.base_port", 2, "1000 workers need"),
        ("[media]\nworkers = 1025", "media.workers", 2, "from 0 to 1024"),
        ("[media]\nworkers = -1", "media.workers", 2, "from 0 to 1024"),
        ("[media]\nworkers = \"all\"", "media.workers", 2, "not a whole number"),
        ("[media]\npin = \"true\"", "media.pin", 2, "neither true nor false"),
        ("[media]\ncpus = [0, 0]", "media.cpus", 2, "twice"),
        ("[media]\ncpus = [-1]", "media.cpus", 2, "not a whole number"),
        ("[media]\ncpus = [0]\nworkers = 2", "media.cpus", 2, "1 cores for 2 workers"),
        ("[media]\ncpus = [0]\npin = false", "media.cpus", 2, "needs `media.pin"),
        ("[media]\nlink = \"uring\"", "media.link", 2, "none of auto, io_uring, mmsg"),
        ("[media]\nlink = \"\"", "media.link", 2, "none of"),
        ("[media]\nhandshake_threads = 0", "media.handshake_threads", 2, "from 1 to 256"),
        ("[media]\npublisher_rate_bps_max = 50", "media.publisher_rate_bps_max", 2, "too little"),
        ("[media]\npublisher_rate_bps_max = \"50M\"", "media.publisher_rate_bps_max", 2, "not a whole number"),
        ("[audio]\nthreshold = 128", "audio.threshold", 2, "from 0 to 127"),
        ("[audio]\ninterval = 1000", "audio.interval", 2, "1000 is not a duration"),
        ("[audio]\ninterval = \"1\"", "audio.interval", 2, "not a duration"),
        ("[audio]\ninterval = \"s\"", "audio.interval", 2, "not a duration"),
        ("[audio]\ninterval = \"-1s\"", "audio.interval", 2, "not a duration"),
        ("[audio]\ninterval = \"1h\"", "audio.interval", 2, "not a duration"),
        ("[audio]\ninterval = \"1.5s\"", "audio.interval", 2, "not a duration"),
        ("[audio]\ninterval = \"99999999999999999999s\"", "audio.interval", 2, "not a duration"),
        ("[audio]\ninterval = \"999999999999999999m\"", "audio.interval", 2, "not a duration"),
        ("[audio]\ninterval = \"50ms\"", "audio.interval", 2, "out of range (100ms to 1m)"),
        ("[audio]\nfilter = 101", "audio.filter", 2, "from 0 to 100"),
        ("[limits]\nconnections = 0", "limits.connections", 2, "from 1 to"),
        (
            "[limits]\nconnections = 10\nconnections_per_ip = 11",
            "limits.connections_per_ip",
            3,
            "more than `limits.connections`",
        ),
        ("[limits]\njoins_per_second_per_ip = 0", "limits.joins_per_second_per_ip", 2, "from 1 to"),
        ("[limits]\ntracks_per_peer = 65", "limits.tracks_per_peer", 2, "from 1 to 64"),
        ("[websocket]\nping_interval = \"40s\"", "websocket.dead_after", 0, "longer than `websocket.ping_interval`"),
        ("[websocket]\ndead_after = \"1s\"", "websocket.dead_after", 2, "out of range"),
        ("[log]\nfilter = \"inof\"", "log.filter", 2, "`inof` has no level"),
        ("[log]\nfilter = \"\"", "log.filter", 2, "has no level"),
        ("[log]\nfilter = \"a=b=c\"", "log.filter", 2, "has no level"),
        ("[log]\nformat = \"xml\"", "log.format", 2, "none of text, json"),
        // What there is not.
        ("lisen = \":7000\"", "lisen", 1, "no such key; did you mean `listen`?"),
        ("port = 7000", "port", 1, "no such key"),
        ("[media]\n\nbaseport = 5000", "media.baseport", 3, "did you mean `media.base_port`?"),
        ("[media]\nlisten = \":7000\"", "media.listen", 2, "did you mean `listen`?"),
        ("base_port = 5000", "base_port", 1, "did you mean `media.base_port`?"),
        ("log-format = \"json\"", "log-format", 1, "did you mean `log.format`?"),
        ("[limit]\nrooms = 5", "limit.rooms", 2, "did you mean `limits.rooms`?"),
        ("[wbsocket]", "wbsocket", 1, "no such section; did you mean `websocket`?"),
        ("media = 5", "media", 1, "this is a section; write it as [media]"),
        ("[listen]\nport = 1", "listen.port", 2, "no such key"),
        ("[[media]]\nworkres = 1", "media.workres", 2, "did you mean `media.workers`?"),
        ("[audio]\nthreshold = 2026-01-01", "audio.threshold", 2, "2026-01-01 is not a whole number"),
        // What is no TOML.
        ("listen", "", 1, ""),
        ("listen = ", "", 1, ""),
        ("\n\nlisten = :7000", "", 3, ""),
        ("listen = \":1\"\nlisten = \":2\"", "", 2, "duplicate"),
        ("[media", "", 1, ""),
        // ion-sfu's own.
        ("[router]\naudiolevelthreshold = 200", "router.audiolevelthreshold", 2, "from 0 to 127"),
        ("[router]\naudiolevelinterval = \"1s\"", "router.audiolevelinterval", 2, "set `audio.interval`"),
        ("[router]\naudiolevelinterval = -1", "router.audiolevelinterval", 2, "not a duration"),
        ("[router]\naudiolevelthreshold = 30\n[audio]\nthreshold = 30", "audio.threshold", 4, "already in line 2"),
        ("[router]\nmaxbandwith = 1500", "router.maxbandwith", 2, "no such key"),
        ("[router.simulcast]\nbestqualityfirst = 1", "router.simulcast.bestqualityfirst", 2, "neither true nor false"),
        ("[webrtc]\nsingleport = 70000", "webrtc.singleport", 2, "set `media.base_port`"),
        ("[webrtc]\nportrange = [5200, 5000]", "webrtc.portrange", 2, "[first port, last port]"),
        ("[webrtc]\nportrange = [5000]", "webrtc.portrange", 2, "[first port, last port]"),
        ("[webrtc]\nportrange = [5000, 5001]\n[media]\nworkers = 3", "media.workers", 4, "leaves 2"),
        ("[webrtc]\nsingleport = 5000\nportrange = [5000, 5200]", "webrtc.portrange", 3, "already in line 2"),
        ("[webrtc]\nsdpsemantics = \"plan-b\"", "webrtc.sdpsemantics", 2, "only \"unified-plan\""),
        ("[[webrtc.iceserver]]\nurls = [\"stun:example.org\"]", "webrtc.iceserver.urls", 2, "set `announce`"),
        ("[webrtc.candidates]\nnat1to1 = [\"203.0.113.7/10.0.0.1\"]", "webrtc.candidates.nat1to1", 2, "set `announce`"),
        ("[turn]\nenabled = 1", "turn.enabled", 2, "neither true nor false"),
        ("[log]\nv = -1", "log.v", 2, "set `log.filter`"),
        ("[log]\nlevel = \"debug\"", "log.level", 2, "no such key"),
    ];
    for (text, key, line, words) in table {
        let error = file(text).err().unwrap_or_else(|| panic!("{text:?} is taken"));
        let origin =
            if *line == 0 { Origin::Default } else { Origin::File { name: "ringmain.toml".into(), line: *line } };
        let found = error.0.iter().find(|problem| problem.key == *key && problem.origin == origin);
        let found = found.unwrap_or_else(|| panic!("{text:?} is refused, but not {key:?} in line {line}: {error}"));
        assert!(found.message.contains(words), "{text:?}: {:?} does not say {words:?}", found.message);
    }
    assert!(table.len() >= 100);
}

#[test]
fn bad_flags_and_variables_are_refused_by_their_names() {
    for (name, text, words) in [
        ("base-port", "65536", "`media.base_port` (flag --base-port): `65536` is not a port"),
        ("base-port", "0x10", "is not a port"),
        ("bind", "192.0.2.1,", "is not an IP address"),
        ("announce", "here", "`announce` (flag --announce): `here` is not an IP address"),
        ("tls-self-signed", "maybe", "neither true nor false"),
        ("workers", "two", "not a whole number"),
    ] {
        let error = flag(name, text).expect_err(name).to_string();
        assert!(error.contains(words), "--{name} {text}: {error}");
    }
    for (name, text, words) in [
        ("RINGMAIN_BASE_PORT", "65536", "`media.base_port` (environment RINGMAIN_BASE_PORT)"),
        ("RINGMAIN_LISTN", ":7000", "RINGMAIN_LISTN: there is no such variable; did you mean RINGMAIN_LISTEN?"),
        ("RINGMAIN_LOG", "loud", "`loud` has no level"),
    ] {
        let error = variable(name, text).expect_err(name).to_string();
        assert!(error.contains(words), "{name}={text}: {error}");
    }
}

#[test]
fn every_problem_is_told_at_once() {
    let error = file("lisen = 1\n[media]\nbase_port = 0\nworkers = -1").expect_err("three problems");
    assert_eq!(error.0.len(), 3, "{error}");
    assert!(error.to_string().contains("`media.base_port` (ringmain.toml, line 3): 0 is not a port (1 to 65535)"));
}

#[test]
fn a_flag_goes_before_a_variable_before_the_file_before_the_default() {
    let text = "[media]\nbase_port = 6000\nworkers = 3\nhandshake_threads = 2";
    let mut sources = Sources { file: Some(("f".into(), text.into())), cpu_count: 4, ..Sources::default() };
    sources.environment = vec![("RINGMAIN_BASE_PORT".into(), "6001".into()), ("RINGMAIN_WORKERS".into(), "2".into())];
    sources.flags = vec![("base-port".into(), "6002".into())];
    let loaded = load(&sources).expect("good");
    let media = &loaded.config.media;
    assert_eq!((media.base_port, media.workers, media.handshake_threads), (6002, 2, 2));
    assert_eq!(loaded.origin("media.base_port"), &Origin::Flag("--base-port".into()));
    assert_eq!(loaded.origin("media.workers"), &Origin::Environment("RINGMAIN_WORKERS".into()));
    assert_eq!(loaded.origin("media.handshake_threads"), &Origin::File { name: "f".into(), line: 4 });
    assert_eq!(loaded.origin("media.link"), &Origin::Default);
}

#[test]
fn what_is_shown_reads_back_as_the_same() {
    let text = "listen = \"[::1]:7443\"\nbind = [\"192.0.2.1\", \"2001:db8::1\"]\nmetrics = \"off\"\n\
        allow_origin = [\"https://Example.org\"]\n[tls]\ncert = 'a \"b\".pem'\nkey = \"k\"\n[media]\ncpus = [3, 1]\n\
        workers = 2\nlink = \"mmsg\"\n[audio]\ninterval = \"1500ms\"\n[websocket]\ndead_after = \"2m\"\n\
        [log]\nfilter = \"info,ringmain_control::session=debug\"\nformat = \"json\"";
    let loaded = taken(text);
    let again = taken(&loaded.to_toml());
    assert_eq!(again.config, loaded.config);
    assert!(loaded.to_toml().contains("# from: ringmain.toml, line 2\nbind = [\"192.0.2.1\", \"2001:db8::1\"]\n"));
    assert!(loaded.to_toml().contains("# from: default\nbase_port = 5000\n"));
    let defaults = taken("");
    assert_eq!(taken(&defaults.to_toml()).config, Config::default());
}

#[test]
fn the_file_of_ion_sfu_starts_with_its_meaning() {
    let text = include_str!("testdata/ion.toml");
    let loaded = taken(text);
    let config = &loaded.config;
    assert_eq!((config.audio.threshold, config.audio.filter, config.audio.interval), (40, 20, Duration::from_secs(1)));
    assert_eq!((config.media.base_port, config.media.workers), (5000, 0));
    assert_eq!(config.log.filter, "info");
    let without_effect: Vec<&str> = loaded.warnings.iter().map(|warning| warning.key.as_str()).collect();
    for key in ["sfu.ballast", "sfu.withstats", "router.maxbandwidth", "webrtc.mdns", "webrtc.timeouts.failed"] {
        assert!(without_effect.contains(&key), "{key} is not told of: {without_effect:?}");
    }
    assert!(
        loaded.warnings.iter().all(|warning| !warning.to_string().contains("sfu.s3cret")),
        "secrets are not repeated"
    );
}

#[test]
fn each_key_of_ion_sfu_has_its_verdict() {
    let one = taken("[webrtc]\nsingleport = 9000");
    assert_eq!((one.config.media.base_port, one.config.media.workers), (9000, 1));
    assert!(one.warnings.iter().any(|warning| warning.message.contains("open UDP 9000 to 9003")));
    let range = taken("[webrtc]\nportrange = [9000, 9001]");
    assert_eq!((range.config.media.base_port, range.config.media.workers), (9000, 2));
    let wide = taken("[webrtc]\nportrange = [9000, 9200]");
    assert_eq!((wide.config.media.base_port, wide.config.media.workers), (9000, 0));
    assert!(wide.warnings.is_empty());
    let nat = taken("[webrtc.candidates]\nnat1to1 = [\"203.0.113.7\"]\nicelite = false");
    assert_eq!(nat.config.announce, ["203.0.113.7".parse::<IpAddr>().expect("an address")]);
    assert_eq!(nat.warnings.len(), 1);
    assert_eq!(taken("[router]\naudiolevelinterval = 0").config.audio.interval, Duration::from_secs(1));
    assert_eq!(taken("[log]\nv = 2").config.log.filter, "trace");
    assert!(taken("[turn]\nenabled = false\n[turn.auth]\n").warnings.is_empty());
    assert_eq!(taken("[webrtc]\nsdpsemantics = \"unified-plan-with-fallback\"").warnings.len(), 1);
    assert!(taken("[router.simulcast]\nbestqualityfirst = true\nenabletemporallayer = true").warnings.is_empty());
}

#[test]
fn a_flag_moves_the_ports_away_from_those_of_ion_sfu() {
    let text = "[webrtc]\nsingleport = 9000".to_string();
    let flags = vec![("base-port".into(), "6000".into())];
    let sources = Sources { file: Some(("f".into(), text)), flags, cpu_count: 4, ..Sources::default() };
    let loaded = load(&sources).expect("good");
    assert_eq!((loaded.config.media.base_port, loaded.config.media.workers), (6000, 0));
}

#[test]
fn variables_of_others_and_empty_ones_are_passed_over() {
    assert!(variable("PATH", "/bin").expect("not ours").warnings.is_empty());
    assert!(variable("RINGMAIN_CONFIG", "x.toml").expect("read before").warnings.is_empty());
    assert_eq!(variable("RINGMAIN_BASE_PORT", "").expect("empty").config.media.base_port, 5000);
    for name in ["RINGMAIN_SERVICE_HOST", "RINGMAIN_PORT", "RINGMAIN_PORT_7000_TCP"] {
        assert_eq!(variable(name, "tcp://10.0.0.1:7000").expect("of Kubernetes").warnings.len(), 1, "{name}");
    }
}

#[test]
fn the_command_line_is_read() {
    let read_all = |line: &str| read(line.split_whitespace().map(Into::into), []);
    command().debug_assert();
    let Ok(Invocation::Run(sources)) = read_all("ringmain -a :7001 -cert c.pem -key=k.pem --bind 192.0.2.1,::1 -m off")
    else {
        panic!("runs")
    };
    let config = load(&sources).expect("good").config;
    assert_eq!((config.listen.port, config.metrics), (7001, None));
    assert_eq!(config.tls.mode(), TlsMode::Files { cert: &"c.pem".into(), key: &"k.pem".into() });
    assert_eq!(config.bind.len(), 2);
    for line in ["ringmain --tls-self-signed config", "ringmain config --tls-self-signed=true"] {
        let Ok(Invocation::ShowConfig(sources)) = read_all(line) else { panic!("{line} shows") };
        assert_eq!(load(&sources).expect("good").config.tls.mode(), TlsMode::SelfSigned, "{line}");
    }
    assert!(read_all("ringmain --no-such-flag").is_err());
    assert!(read_all("ringmain extra").is_err());
    let error = read_all("ringmain -c /nowhere/ringmain.toml").expect_err("no file").to_string();
    assert!(error.contains("/nowhere/ringmain.toml"), "{error}");
}

#[test]
fn help_names_every_flag_with_its_variable_and_shows_examples() {
    let help = command().render_long_help().to_string();
    for words in ["--base-port", "RINGMAIN_BASE_PORT", "--announce", "[default: :7000]", "Examples:", "ringmain config"]
    {
        assert!(help.contains(words), "{words} is missing:\n{help}");
    }
}

#[test]
fn listening_addresses_follow_bind() {
    let endpoints = |text: &str| -> Vec<String> {
        let config = taken(text).config;
        config.endpoints(config.listen).iter().map(ToString::to_string).collect()
    };
    assert_eq!(endpoints(""), ["[::]:7000"]);
    assert_eq!(endpoints("bind = [\"192.0.2.1\", \"::1\"]"), ["192.0.2.1:7000", "[::1]:7000"]);
    assert_eq!(endpoints("bind = [\"192.0.2.1\"]\nlisten = \"127.0.0.1:80\""), ["127.0.0.1:80"]);
}

#[test]
fn with_one_port_all_ports_follow_it() {
    let config = taken("one_port = 443").config;
    assert_eq!((config.listen.to_string().as_str(), config.media.base_port), (":443", 443));
    assert_eq!((config.turn.port, config.turn.tls_port, config.media.tcp_port), (443, 443, TcpPort::At(443)));
    assert!(taken("one_port = 443\n[turn]\nenabled = true").config.turn.enabled, "TURN has one port then");
    let config =
        taken("one_port = 443\nlisten = \"192.0.2.1:443\"\n[media]\nbase_port = 5000\ntcp_port = \"off\"").config;
    assert_eq!(config.tcp_endpoints(443), config.endpoints(config.listen));
    assert_eq!((config.media.base_port, config.media.tcp_port), (5000, TcpPort::Off), "UDP 443 may be HTTP/3's");
    assert_eq!(taken("one_port = \"off\"").config, Config::default());
    // What is printed, read again, says the same.
    let printed = taken("one_port = 443\n[turn]\nenabled = true").to_toml();
    assert_eq!(taken(&printed).config, taken("one_port = 443\n[turn]\nenabled = true").config, "{printed}");
    for (text, key) in [
        ("one_port = 443\nlisten = \":7000\"", "listen"),
        ("one_port = 443\nmetrics = \":443\"", "metrics"),
        ("one_port = 443\n[media]\ntcp_port = 5000", "media.tcp_port"),
        ("one_port = 443\n[turn]\nport = 3478", "turn.port"),
        ("one_port = 443\n[turn]\ntls_port = 5349", "turn.tls_port"),
        ("one_port = 443\n[turn]\nlisten = \"192.0.2.1\"", "turn.listen"),
        ("one_port = 443\n[turn]\ntls_cert = \"a\"\ntls_key = \"b\"", "turn.tls_cert"),
        ("one_port = 65535\n[media]\nworkers = 2", "media.base_port"),
        ("media.tcp_port = 7000", "media.tcp_port"),
        ("media.tcp_port = 8100", "media.tcp_port"),
        ("media.tcp_port = 0", "media.tcp_port"),
    ] {
        let ConfigError(problems) = file(text).expect_err(text);
        assert_eq!(problems.iter().map(|problem| problem.key.as_str()).collect::<Vec<_>>(), [key], "{text}");
    }
    let turn_only =
        Sources { turn_only: true, cpu_count: 1, flags: vec![("one-port".into(), "443".into())], ..Sources::default() };
    assert!(load(&turn_only).is_err(), "coturn's place has no page");
}

#[test]
fn tcp_candidates_are_the_addresses_that_are_listened_on() {
    let socket = |text: &str| text.parse::<SocketAddr>().expect("a socket address");
    let udp = [socket("192.0.2.1:5001"), socket("[2001:db8::1]:5001")];
    let told = |text: &str, port| taken(text).config.tcp_candidates(&udp, port);
    assert_eq!(told("", 5000), [socket("192.0.2.1:5000"), socket("[2001:db8::1]:5000")]);
    assert_eq!(told("one_port = 443\nlisten = \"192.0.2.1:443\"", 443), [socket("192.0.2.1:443")]);
    let behind_nat = "one_port = 443\nlisten = \"10.0.0.1:443\"\nannounce = \"192.0.2.1\"";
    assert_eq!(told(behind_nat, 443).len(), 2, "the NAT leads there, whatever the address is called");
}

#[test]
fn nat_discovery_has_a_port_of_its_own() {
    let turn = |text: &str| taken(&format!("[turn]\nenabled = true\nnat_discovery = true\n{text}")).config.turn;
    assert_eq!((turn("").alt_port(), turn("alt_port = 4000").alt_port()), (3479, 4000));
    assert!(!taken("[turn]\nenabled = true").config.turn.nat_discovery, "unless wanted");
    for (text, key) in [
        ("[turn]\nenabled = true\nnat_discovery = true\nalt_port = 3478", "turn.alt_port"),
        (
            "[tls]\ncert = \"c\"\nkey = \"k\"\n[turn]\nenabled = true\nnat_discovery = true\nalt_port = 5349",
            "turn.alt_port",
        ),
        ("one_port = 443\n[turn]\nenabled = true\nnat_discovery = true", "turn.nat_discovery"),
    ] {
        let ConfigError(problems) = file(text).expect_err(text);
        assert_eq!(problems.iter().map(|problem| problem.key.as_str()).collect::<Vec<_>>(), [key], "{text}");
    }
}

/// A file that says nothing of it has always been taken.
#[test]
fn a_port_for_nat_discovery_that_a_file_of_coturn_s_does_not_leave_free_turns_it_off() {
    let load = |text: &str, flags: &[(&str, &str)]| {
        let text = format!("user=a:b\nno-stun-backward-compatibility\nallowed-peer-ip=10.0.0.1\n{text}");
        let flags = flags.iter().map(|(flag, text)| (flag.to_string(), text.to_string())).collect();
        let coturn = Some(("turnserver.conf".into(), text));
        load(&Sources { coturn, turn_only: true, flags, cpu_count: 1, ..Sources::default() })
    };
    let told = |text: &str| {
        let Loaded { config, warnings, .. } = load(text, &[]).expect("sound");
        (config.turn.nat_discovery, warnings.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    // Nobody has the port of DTLS where that is not served.
    assert_eq!(told("alt-listening-port=5349\nno-tls\nno-dtls"), (true, vec![]));
    assert_eq!(told("alt-listening-port=5349"), (true, vec![]), "no certificate");
    assert_eq!(told("alt-listening-port=3478\nno-udp"), (true, vec![]));
    for text in ["alt-listening-port=5349\ncert=c\npkey=k", "alt-listening-port=3478"] {
        let (is_on, warnings) = told(text);
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(
            !is_on && warning.starts_with("turnserver.conf: ") && warning.contains("`alt-listening-port`"),
            "{warning}"
        );
        let ConfigError(problems) = load(text, &[("turn-nat-discovery", "true")]).expect_err("asked for");
        assert_eq!(problems[0].key, "turn.alt_port");
    }
}

#[test]
fn media_addresses_follow_bind_and_announce() {
    let host: Vec<IpAddr> = ["192.0.2.1", "2001:db8::1", "127.0.0.1"].map(|text| text.parse().expect("ip")).to_vec();
    let all = taken("").config;
    assert_eq!(all.media_binds(&host), host);
    let announced = taken("announce = \"203.0.113.7\"").config;
    assert_eq!(announced.media_binds(&host), host, "answers leave from the address that the NAT sent the question to");
    let at_boot: Vec<String> = announced.media_binds(&host[2..]).iter().map(ToString::to_string).collect();
    assert_eq!(at_boot, ["0.0.0.0"], "the addresses are still to come; no IPv6 socket on a host without IPv6");
    assert_eq!(all.media_binds(&host[2..]), &host[2..]);
    let own = taken("announce = [\"203.0.113.7\", \"192.0.2.1\"]").config;
    assert_eq!(own.media_binds(&host), host, "answers leave from the address that was announced and asked");
    assert_eq!(taken("bind = \"127.0.0.1\"").config.media_binds(&host), &host[2..]);

    let socket = |text: &str| text.parse::<SocketAddr>().expect("a socket address");
    let bound = [socket("0.0.0.0:5001"), socket("[::]:5001")];
    assert_eq!(announced.candidates(&bound, &host), [socket("203.0.113.7:5001")]);
    let told = [socket("192.0.2.1:5001"), socket("127.0.0.1:5001"), socket("[2001:db8::1]:5001")];
    assert_eq!(all.candidates(&bound, &host), told);
    assert_eq!(all.candidates(&[socket("192.0.2.1:5002")], &host), [socket("192.0.2.1:5002")]);
    assert!(all.candidates(&[], &host).is_empty());
}
