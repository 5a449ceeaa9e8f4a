//! TURN over DTLS, with clients by OpenSSL, as old clients of TURN are.

use super::*;

/// A client of DTLS by OpenSSL, as old clients of TURN are.
struct DtlsPeer(openssl::ssl::SslStream<Datagrams>);

#[derive(Debug)]
struct Datagrams(UdpSocket);

impl Read for Datagrams {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.recv(buffer)
    }
}

impl Write for Datagrams {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn udp(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    socket.connect(to).expect("loopback");
    socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a socket");
    socket
}

impl DtlsPeer {
    fn over(socket: UdpSocket) -> Result<Self, openssl::ssl::HandshakeError<Datagrams>> {
        use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
        let mut connector = SslConnector::builder(SslMethod::dtls()).expect("OpenSSL");
        connector.set_verify(SslVerifyMode::NONE);
        connector.build().connect("localhost", Datagrams(socket)).map(Self)
    }

    fn ask(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.ssl_write(message).expect("sent");
        let mut buffer = [0; 2000];
        let size = self.0.ssl_read(&mut buffer).expect("it comes back");
        buffer[..size].to_vec()
    }

    fn certificate(&self) -> Vec<u8> {
        self.0.ssl().peer_certificate().expect("one").to_der().expect("DER")
    }
}

fn dtls_world(dir: &tempdir::Dir) -> World {
    let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    let dtls = DtlsSettings { addresses, certificate: dir.path("cert.pem"), key: dir.path("key.pem") };
    World::with(StreamSettings { dtls: Some(dtls), ..StreamSettings::default() })
}

#[test]
fn turn_over_dtls_is_turn() {
    for rsa in [false, true] {
        let (dir, der) = certificate(if rsa { "over-dtls-rsa" } else { "over-dtls" });
        let mut der = der.to_vec();
        if rsa {
            der = write_rsa_certificate(&dir);
        }
        let world = dtls_world(&dir);
        let mut peer = DtlsPeer::over(udp(world.address)).expect("a handshake");
        assert_eq!(peer.certificate(), der);
        for size in [0, 4, 1001, 1400] {
            assert_eq!(peer.ask(&channel_data(size, 3)), channel_data(size, 3), "as it is, without padding");
        }
        let FromStream::Opened { id, client } = world.hear() else { panic!("it opens first") };
        assert_eq!((client.transport, client.local), (TurnTransport::Dtls, world.address));
        peer.0.shutdown().expect("sent");
        assert_eq!(world.hear(), FromStream::Closed { id });
        let mut second = DtlsPeer::over(udp(world.address)).expect("a handshake");
        second.ask(&stun(0));
        let FromStream::Opened { id: next, .. } = world.hear() else { panic!("it opens") };
        assert_ne!(id, next);
        world.say.send(ToStream::Close { id: next }).expect("runs");
        assert_eq!(world.hear(), FromStream::Closed { id: next });
        assert_eq!(second.0.ssl_read(&mut [0; 100]).expect_err("over").code(), openssl::ssl::ErrorCode::ZERO_RETURN);
    }
}

/// RSA, as many operators have it.
fn write_rsa_certificate(dir: &tempdir::Dir) -> Vec<u8> {
    use openssl::{asn1::Asn1Time, hash::MessageDigest, pkey::PKey, rsa::Rsa, x509::X509};
    let key = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    let mut made = X509::builder().expect("OpenSSL");
    made.set_pubkey(&key).expect("OpenSSL");
    made.set_not_before(&Asn1Time::days_from_now(0).expect("a time")).expect("OpenSSL");
    made.set_not_after(&Asn1Time::days_from_now(9).expect("a time")).expect("OpenSSL");
    made.sign(&key, MessageDigest::sha256()).expect("OpenSSL");
    let made = made.build();
    std::fs::write(dir.path("cert.pem"), made.to_pem().expect("PEM")).expect("a file");
    std::fs::write(dir.path("key.pem"), key.private_key_to_pem_pkcs8().expect("PEM")).expect("a file");
    made.to_der().expect("DER")
}

#[test]
fn strangers_of_dtls_cost_nothing_and_many_clients_are_served() {
    let (dir, _) = certificate("dtls-strangers");
    let mut world = dtls_world(&dir);
    // A real ClientHello without a cookie, again and again and from many places.
    let tap = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let victim = udp(tap.local_addr().expect("bound"));
    victim.set_read_timeout(Some(Duration::from_millis(10))).expect("a socket");
    let _ = DtlsPeer::over(victim);
    let mut hello = [0; 2000];
    let size = tap.recv(&mut hello).expect("a ClientHello");
    for number in 0..200u8 {
        let stranger = UdpSocket::bind((Ipv4Addr::new(127, 0, 8, number), 0)).expect("loopback");
        stranger.set_read_timeout(Some(Duration::from_secs(3))).expect("a socket");
        stranger.send_to(&hello[..size], world.address).expect("sent");
        let mut answer = [0; 2000];
        let answered = stranger.recv(&mut answer).expect("a challenge");
        assert!(answered < size && answer[13] == 3, "HelloVerifyRequest");
        stranger.send_to(&[23; 400], world.address).expect("sent");
    }
    let mut peers: Vec<DtlsPeer> = (0..40).map(|_| DtlsPeer::over(udp(world.address)).expect("a handshake")).collect();
    for round in 0..3 {
        for (number, peer) in peers.iter_mut().enumerate() {
            assert_eq!(peer.ask(&channel_data(number, round)), channel_data(number, round));
        }
    }
    let stats = world.wait_for("forty sessions", |stats| stats.connections == 40);
    assert_eq!((stats.accepted, stats.ignored), (40, 200));
}

#[test]
fn a_client_of_dtls_that_begins_anew_from_its_port_replaces_its_session() {
    let (dir, _) = certificate("dtls-anew");
    let mut world = dtls_world(&dir);
    let socket = udp(world.address);
    let mut before = DtlsPeer::over(socket.try_clone().expect("a descriptor")).expect("a handshake");
    before.ask(&stun(0));
    let FromStream::Opened { id, .. } = world.hear() else { panic!("it opens first") };
    // It forgets, without a word.
    std::mem::forget(before);
    let mut after = DtlsPeer::over(socket).expect("a handshake");
    after.ask(&stun(4));
    assert_eq!(world.hear(), FromStream::Closed { id });
    assert!(matches!(world.hear(), FromStream::Opened { .. }));
    assert_eq!(after.ask(&channel_data(9, 9)), channel_data(9, 9));
    world.wait_for("one session", |stats| stats.connections == 1 && stats.accepted == 2);
}

#[test]
fn a_lost_flight_of_dtls_is_sent_again() {
    let (dir, _) = certificate("dtls-lost");
    let world = dtls_world(&dir);
    // A relay between the two that loses the server's first flight, whole.
    let (near, far) = (UdpSocket::bind("127.0.0.1:0").expect("loopback"), udp(world.address));
    let address = near.local_addr().expect("bound");
    let done = Arc::new(AtomicBool::new(false));
    let relay = std::thread::spawn({
        let done = done.clone();
        move || {
            let (mut client, mut lost) = (None, 0);
            near.set_nonblocking(true).expect("a socket");
            far.set_nonblocking(true).expect("a socket");
            let mut bytes = [0; 3000];
            while !done.load(Ordering::Relaxed) {
                while let Ok((size, from)) = near.recv_from(&mut bytes) {
                    client = Some(from);
                    far.send(&bytes[..size]).expect("sent");
                }
                while let Ok(size) = far.recv(&mut bytes) {
                    // ServerHello is message 2; the challenge before it is 3.
                    if lost == 0 && bytes[13] == 2 {
                        lost += 1;
                    } else if let Some(client) = client {
                        near.send_to(&bytes[..size], client).expect("sent");
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            lost
        }
    });
    let mut peer = DtlsPeer::over(udp(address)).expect("a handshake in spite of the loss");
    assert_eq!(peer.ask(&stun(8)), stun(8));
    done.store(true, Ordering::Relaxed);
    assert_eq!(relay.join().expect("no panic"), 1);
}

#[test]
fn a_renewed_certificate_is_used_for_dtls_and_a_bad_one_never() {
    let (dir, first) = certificate("dtls-renewed");
    let world = dtls_world(&dir);
    assert_eq!(DtlsPeer::over(udp(world.address)).expect("a handshake").certificate(), first.to_vec());
    std::fs::write(dir.path("key.pem"), "this is no key").expect("a file");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(DtlsPeer::over(udp(world.address)).expect("a handshake").certificate(), first.to_vec());
    let second = write_certificate(&dir);
    let start = Instant::now();
    while DtlsPeer::over(udp(world.address)).expect("a handshake").certificate() != second.to_vec() {
        assert!(start.elapsed() < PATIENCE, "the new one is not used");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A DTLS listener without a thread: the test is its run loop and its clock.
struct DtlsBench {
    streams: Streams,
    poll: mio::Poll,
    workers: Workers,
    address: SocketAddr,
}

impl DtlsBench {
    fn new(dir: &tempdir::Dir, handshakes_per_address: usize) -> Self {
        let poll = mio::Poll::new().expect("epoll");
        let mut streams = Streams::new(StreamLimits { handshakes_per_address, ..StreamLimits::default() }, None);
        let file = |name| std::fs::read(dir.path(name)).expect("a file");
        streams.set_dtls(Context::from_pem(&file("cert.pem"), &file("key.pem")).expect("a certificate"));
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        socket.set_nonblocking(true).expect("a socket");
        let address = socket.local_addr().expect("bound");
        streams.listen_dtls(socket, &[1; 32], poll.registry()).expect("listens");
        Self { streams, poll, workers: Workers::new(Vec::new(), Vec::new()), address }
    }

    fn turn(&mut self, now: Now) {
        self.streams.read_dtls(0, self.poll.registry(), now, &mut self.workers);
        self.streams.time_dtls(self.poll.registry(), now, &mut self.workers);
    }

    fn overdue(&self, now: Now) -> Option<End> {
        (0..self.streams.slots.len()).find_map(|slot| self.streams.overdue_dtls(slot, now))
    }
}

#[test]
fn a_client_of_dtls_that_begins_again_and_again_has_one_timer_and_not_all_our_time() {
    let (dir, _) = certificate("dtls-again");
    let mut bench = DtlsBench::new(&dir, 8);
    let tap = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let victim = udp(tap.local_addr().expect("bound"));
    victim.set_read_timeout(Some(Duration::from_millis(10))).expect("a socket");
    let _ = DtlsPeer::over(victim);
    let mut hello = [0; 2000];
    let size = tap.recv(&mut hello).expect("a ClientHello");
    let mut hello = hello[..size].to_vec();
    let client = udp(bench.address);
    for round in 0..20u8 {
        let now = Now::from_millis(u64::from(round));
        // Record header, message header, version: then the random, by which handshakes are told apart.
        hello[13 + 12 + 2] = round;
        client.send(&hello).expect("sent");
        bench.turn(now);
        let mut answer = [0; 2000];
        let cookie = loop {
            let size = client.recv(&mut answer).expect("a challenge");
            if answer[13] == 3 {
                break &answer[28..size];
            }
        };
        let mut again = hello.clone();
        // No session id, so that its length is byte 59 and the cookie's length byte 60.
        assert_eq!(again[59..61], [0, 0]);
        again[60] = cookie.len() as u8;
        again.splice(61..61, cookie.iter().copied());
        for at in [11, 15, 23] {
            let length = u16::from_be_bytes([again[at], again[at + 1]]) + cookie.len() as u16;
            again[at..at + 2].copy_from_slice(&length.to_be_bytes());
        }
        (again[10], again[18]) = (1, 1);
        client.send(&again).expect("sent");
        bench.turn(now);
        assert!(bench.streams.handshaking.len() <= 1, "{:?}", bench.streams.handshaking);
    }
    let stats = bench.streams.stats();
    assert_eq!((stats.accepted, stats.handshakes_put_off, stats.refused), (8, 12, 0));
}

#[test]
fn only_a_client_of_dtls_itself_keeps_its_session() {
    let (dir, _) = certificate("dtls-silent");
    let mut bench = DtlsBench::new(&dir, 8);
    let socket = udp(bench.address);
    let forger = socket.try_clone().expect("a descriptor");
    let client = std::thread::spawn(move || DtlsPeer::over(socket).expect("a handshake"));
    while !client.is_finished() {
        bench.turn(Now(0));
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut client = client.join().expect("no panic");
    let second = Now::from_millis;
    assert_eq!((bench.overdue(second(60_000)), bench.overdue(second(60_001))), (None, Some(End::Silent)));
    // A record in its name that is not its own.
    let mut forged = vec![23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 40];
    forged.extend([7; 40]);
    forger.send(&forged).expect("sent");
    bench.turn(second(50_000));
    assert_eq!(bench.overdue(second(60_001)), Some(End::Silent));
    client.0.ssl_write(&stun(0)).expect("sent");
    bench.turn(second(55_000));
    assert_eq!((bench.overdue(second(60_001)), bench.overdue(second(115_001))), (None, Some(End::Silent)));
    let slot = (0..bench.streams.slots.len())
        .find(|&slot| matches!(bench.streams.slots[slot].content, Some(Content::DtlsClient(_))));
    assert!(bench.streams.send_dtls(slot.expect("a session"), &stun(0), second(600_000), Now(0)), "with an allocation");
    assert_eq!((bench.overdue(second(599_999)), bench.overdue(second(600_000))), (None, Some(End::Silent)));
}
