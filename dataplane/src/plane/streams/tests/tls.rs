//! TLS on the same ports, and the HTTP server behind them.

use super::*;

fn tls_world(dir: &tempdir::Dir, http: Option<HttpSink>) -> World {
    let files = CertificateFiles::open(&dir.path("cert.pem"), &dir.path("key.pem"), Duration::ZERO).expect("a pair");
    let listeners = vec![listener(true)];
    World::with(StreamSettings { listeners, certificates: Some(Arc::new(files)), http, ..Default::default() })
}

fn tls_client(
    world: &World,
    trusted: &rustls::pki_types::CertificateDer<'static>,
    alpn: &[&str],
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a client"), world.client())
}

#[test]
fn turn_inside_tls_is_turn() {
    let (dir, der) = certificate("turn-inside");
    let world = tls_world(&dir, None);
    for alpn in [&["stun.turn"][..], &[]] {
        let mut client = tls_client(&world, &der, alpn);
        let mut wire = stun(8);
        Framing::Turn.write(&channel_data(1201, 4), &mut wire);
        for _ in 0..50 {
            client.write_all(&wire).expect("open");
            assert_eq!(read_exactly(&mut client, wire.len()), wire);
        }
        assert_eq!(client.conn.alpn_protocol(), alpn.first().map(|name| name.as_bytes()));
        let FromStream::Opened { client: told, id } = world.hear() else { panic!("it opens first") };
        assert_eq!(told.transport, TurnTransport::Tls);
        client.conn.send_close_notify();
        client.flush().expect("open");
        assert_closed(&mut client);
        assert_eq!(world.hear(), FromStream::Closed { id });
    }
    // The same port without TLS.
    let mut plain = world.client();
    plain.write_all(&stun(4)).expect("open");
    assert_eq!(read_exactly(&mut plain, 24), stun(4));
}

#[test]
fn a_new_certificate_is_used_as_soon_as_it_is_there_and_a_bad_one_never() {
    let (dir, first) = certificate("renewed");
    let world = tls_world(&dir, None);
    let mut old = tls_client(&world, &first, &[]);
    old.write_all(&stun(0)).expect("the handshake succeeds");
    read_exactly(&mut old, 20);
    std::fs::write(dir.path("key.pem"), "this is no key").expect("a file");
    let mut still = tls_client(&world, &first, &[]);
    still.write_all(&stun(0)).expect("the old pair stays");
    read_exactly(&mut still, 20);
    let second = write_certificate(&dir);
    let mut new = tls_client(&world, &second, &[]);
    new.write_all(&stun(0)).expect("the new pair is used");
    read_exactly(&mut new, 20);
    let refused = tls_client(&world, &first, &[]).write_all(&stun(0));
    assert!(refused.is_err(), "the old one no longer is");
    old.write_all(&stun(0)).expect("who is connected stays");
    assert_eq!(read_exactly(&mut old, 20), stun(0));
}

#[test]
fn what_was_agreed_on_is_what_is_spoken() {
    let (dir, der) = certificate("agreed");
    let mut world = tls_world(&dir, None);
    for (alpn, words) in [("http/1.1", &stun(0)[..]), ("stun.turn", b"GET / HTTP/1.1\r\n\r\n")] {
        let mut client = tls_client(&world, &der, &[alpn]);
        client.write_all(words).expect("the handshake succeeds");
        assert_closed(&mut client);
    }
    world.wait_for("both are refused", |stats| stats.unknown_protocol == 2);
}

#[test]
fn a_listener_may_speak_one_thing_bare_and_another_inside_tls() {
    let (dir, der) = certificate("apart");
    let files = CertificateFiles::open(&dir.path("cert.pem"), &dir.path("key.pem"), Duration::ZERO).expect("a pair");
    let clear = Protocols { ice: true, ..Protocols::NONE };
    let tls = Protocols { turn: true, http: true, ..Protocols::NONE };
    let listeners = vec![StreamListener { clear, tls, ..listener(true) }];
    let mut world =
        World::with(StreamSettings { listeners, certificates: Some(Arc::new(files)), ..Default::default() });
    for bare in [&stun(0)[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut client = world.client();
        client.write_all(bare).expect("open");
        assert_closed(&mut client);
    }
    let mut ice = tls_client(&world, &der, &[]);
    ice.write_all(&[&[0, 20][..], &stun(0)].concat()).expect("the handshake succeeds");
    assert_closed(&mut ice);
    world.wait_for("three are refused", |stats| stats.unknown_protocol == 3);
    let mut turn = tls_client(&world, &der, &["stun.turn"]);
    turn.write_all(&stun(0)).expect("open");
    assert_eq!(read_exactly(&mut turn, 20), stun(0));
}

#[test]
fn broken_tls_ends_its_connection_only() {
    let (dir, der) = certificate("broken");
    let mut world = tls_world(&dir, None);
    let mut good = tls_client(&world, &der, &[]);
    good.write_all(&stun(0)).expect("open");
    read_exactly(&mut good, 20);
    for junk in [&[0x16, 3, 1, 0, 4, 1, 0, 0, 0][..], &[0x16, 0xff, 0xff, 0xff, 0xff, 0], &[0x16; 3000]] {
        let mut bad = world.client();
        bad.write_all(junk).expect("open");
        assert_closed(&mut bad);
    }
    world.wait_for("three failed", |stats| stats.tls_failed == 3);
    good.write_all(&stun(0)).expect("open");
    assert_eq!(read_exactly(&mut good, 20), stun(0));
}

#[test]
fn http_is_carried_to_its_server_with_and_without_tls() {
    let (dir, der) = certificate("carried");
    let served = Arc::new(Mutex::new(Vec::new()));
    let sink: HttpSink = Arc::new({
        let served = served.clone();
        move |http: HttpStream| {
            served.lock().expect("no panic").push((http.remote, http.tls));
            std::thread::spawn(move || {
                http.stream.set_nonblocking(false).expect("a socket");
                let mut stream = http.stream;
                let mut bytes = [0; 5000];
                while let Ok(size @ 1..) = stream.read(&mut bytes) {
                    stream.write_all(&bytes[..size]).expect("open");
                }
            });
        }
    });
    let world = tls_world(&dir, Some(sink));
    let body: Vec<u8> = (0..2_000_000u32).map(|number| number as u8).collect();
    let mut plain = world.client();
    let mut reader = plain.try_clone().expect("a descriptor");
    let whole = [b"POST / HTTP/1.1\r\n\r\n".to_vec(), body].concat();
    let sent = whole.clone();
    let writer = std::thread::spawn(move || {
        plain.write_all(&sent).expect("open");
        plain
    });
    assert!(read_exactly(&mut reader, whole.len()) == whole, "two megabytes came back as they went");
    writer.join().expect("no panic");
    let mut secure = tls_client(&world, &der, &["http/1.1"]);
    let remote = secure.sock.local_addr().expect("bound");
    secure.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("open");
    assert_eq!(read_exactly(&mut secure, 18), b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(served.lock().expect("no panic")[1], (remote, true));
    secure.conn.send_close_notify();
    secure.flush().expect("open");
    assert_closed(&mut secure);
}

#[test]
fn more_handshakes_than_a_second_has_wait_for_the_next_and_nobody_is_turned_away() {
    let (dir, der) = certificate("crowd");
    for (limits, from_one) in [
        (StreamLimits { handshakes_per_address: 5, ..StreamLimits::default() }, true),
        (StreamLimits { handshakes_per_second: 5, ..StreamLimits::default() }, false),
    ] {
        let files = CertificateFiles::open(&dir.path("cert.pem"), &dir.path("key.pem"), Duration::ZERO);
        let listeners = vec![listener(true)];
        let certificates = Some(Arc::new(files.expect("a pair")) as _);
        let mut world = World::with(StreamSettings { listeners, certificates, limits, ..Default::default() });
        let start = Instant::now();
        let handshakes: Vec<_> = (0..12u8)
            .map(|number| {
                let from = if from_one { 1 } else { 1 + number };
                let mut client = tls_client(&world, &der, &[]);
                client.sock = world.client_from([127, 0, 0, from].into());
                std::thread::spawn(move || {
                    client.write_all(&stun(4)).expect("open");
                    assert_eq!(read_exactly(&mut client, 24), stun(4));
                    client
                })
            })
            .collect();
        // What is not TLS, and another address if that one has had its share, need not wait.
        std::thread::sleep(Duration::from_millis(100));
        let asked = Instant::now();
        let mut plain = world.client();
        plain.write_all(&stun(4)).expect("open");
        assert_eq!(read_exactly(&mut plain, 24), stun(4));
        if from_one {
            let mut other = tls_client(&world, &der, &[]);
            other.sock = world.client_from([127, 0, 0, 99].into());
            other.write_all(&stun(4)).expect("open");
            assert_eq!(read_exactly(&mut other, 24), stun(4));
        }
        assert!(asked.elapsed() < Duration::from_millis(800), "{:?}", asked.elapsed());
        let clients: Vec<_> = handshakes.into_iter().map(|thread| thread.join().expect("served")).collect();
        // Five in each second of the clock: the last two come in the third that there is something in.
        assert!((1000..20_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        let stats = world.wait_for("two wait at least", |stats| stats.handshakes_put_off >= 2);
        assert_eq!((stats.refused, stats.tls_failed), (0, 0));
        drop(clients);
    }
}
