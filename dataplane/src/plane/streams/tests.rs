//! A stream thread over loopback, with a worker at the other end of its rings that sends every message back.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringmain_shared::event::{Event, StreamStats};
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::turn::TurnTransport;
use rtrb::{Consumer, Producer, RingBuffer};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Socket as Socket2, Type};

use super::*;
use crate::io::WakeHandle;
use crate::packet::stun::{BindingRequest, IntegrityKey, Role as IceRole, TransactionId, write_binding_request};
use crate::plane::CertificateFiles;
use crate::plane::stream_loop::{self, Ports};
use crate::plane::watchdog::Pulse;
use crate::stream::frame::Framing;

struct World {
    address: SocketAddr,
    orders: Option<Producer<StreamOrder>>,
    told: Consumer<Event>,
    wake: WakeHandle,
    /// What workers heard, but for messages, which they send back.
    heard: mpsc::Receiver<FromStream>,
    say: mpsc::Sender<ToStream>,
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

fn listener(tls: bool) -> StreamListener {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    StreamListener { address, turn: true, ice: true, http: true, tls, tls_only: false }
}

impl World {
    fn new() -> Self {
        Self::with(StreamSettings { listeners: vec![listener(false)], ..StreamSettings::default() })
    }

    fn with(settings: StreamSettings) -> Self {
        let wake = WakeHandle::detached().expect("an eventfd");
        let (core, addresses) = stream_loop::open(&settings, &wake).expect("starts");
        let (orders, commands) = RingBuffer::new(16);
        let (events, told) = RingBuffer::new(1024);
        // Room for what a thousand clients say at once.
        let (to_worker, mut at_worker) = RingBuffer::new(4096);
        let (mut from_worker, at_streams) = RingBuffer::new(4096);
        let bell = WakeHandle::detached().expect("an eventfd");
        let ports = Ports {
            pulse: Pulse::default(),
            orders: commands,
            events,
            bell: bell.clone(),
            wake: wake.clone(),
            to_workers: Workers::new(vec![to_worker], vec![bell]),
            from_workers: vec![at_streams],
        };
        let (hears, heard) = mpsc::channel();
        let (say, said) = mpsc::channel();
        let done = Arc::new(AtomicBool::new(false));
        let stream_thread = std::thread::spawn(move || stream_loop::run(core, ports, Instant::now()));
        let worker = std::thread::spawn({
            let (wake, done) = (wake.clone(), done.clone());
            move || {
                while !done.load(Ordering::Relaxed) {
                    let mut busy = false;
                    while let Ok(item) = at_worker.pop() {
                        busy = true;
                        let answer = match item {
                            FromStream::Message { id, bytes } => {
                                Some(ToStream::Message { id, bytes, held_until: Now(0) })
                            }
                            FromStream::Datagram { path, bytes } => Some(ToStream::Datagram { path, bytes }),
                            other => {
                                let _ = hears.send(other);
                                None
                            }
                        };
                        if let Some(answer) = answer {
                            from_worker.push(answer).expect("room");
                        }
                    }
                    for item in said.try_iter() {
                        busy = true;
                        from_worker.push(item).expect("room");
                    }
                    match busy {
                        true => wake.wake(),
                        false => std::thread::sleep(Duration::from_micros(200)),
                    }
                }
            }
        });
        let threads = vec![stream_thread, worker];
        Self { address: addresses[0], orders: Some(orders), told, wake, heard, say, done, threads }
    }

    fn order(&mut self, order: StreamOrder) {
        self.orders.as_mut().expect("until dropped").push(order).expect("room");
        self.wake.wake();
    }

    fn client(&self) -> TcpStream {
        self.client_from([127, 0, 0, 1].into())
    }

    fn client_from(&self, from: Ipv4Addr) -> TcpStream {
        let socket = Socket2::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("loopback");
        socket.connect(&self.address.into()).expect("listens");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream
    }

    fn hear(&self) -> FromStream {
        self.heard.recv_timeout(Duration::from_secs(5)).expect("the worker hears of it")
    }

    /// The counters, once they are like this.
    fn wait_for(&mut self, what: &str, right: impl Fn(&StreamStats) -> bool) -> StreamStats {
        let start = Instant::now();
        let mut last = StreamStats::default();
        while start.elapsed() < Duration::from_secs(5) {
            while let Ok(event) = self.told.pop() {
                let Event::Streams(stats) = event else { panic!("{event:?}") };
                last = stats;
                if right(&stats) {
                    return stats;
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{what}: {last:?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        self.orders = None;
        self.wake.wake();
        for thread in self.threads.drain(..) {
            let joined = thread.join();
            assert!(joined.is_ok() || std::thread::panicking(), "no thread panicked");
        }
    }
}

fn stun(content: usize) -> Vec<u8> {
    let mut bytes = vec![0, 1];
    bytes.extend((content as u16).to_be_bytes());
    bytes.extend([0x21, 0x12, 0xa4, 0x42]);
    bytes.resize(20 + content, 7);
    bytes
}

fn channel_data(content: usize, value: u8) -> Vec<u8> {
    let mut bytes = vec![0x40, 1];
    bytes.extend((content as u16).to_be_bytes());
    bytes.resize(4 + content, value);
    bytes
}

fn read_exactly(stream: &mut impl Read, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    stream.read_exact(&mut bytes).expect("it comes");
    bytes
}

/// The other side has closed.
fn assert_closed(stream: &mut impl Read) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert!(
            matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof),
            "closed rather than {error:?}"
        ),
    }
}

#[test]
fn messages_come_back_whole_and_padded_wherever_they_were_cut() {
    let world = World::new();
    let mut client = world.client();
    let messages = [stun(8), channel_data(5, 1), channel_data(1200, 2), stun(0), channel_data(3, 3)];
    let mut wire = Vec::new();
    messages.iter().for_each(|message| _ = Framing::Turn.write(message, &mut wire));
    for step in [1, 3, 50, 5000] {
        client.set_nodelay(true).expect("a socket");
        for part in wire.chunks(step) {
            client.write_all(part).expect("open");
        }
        assert_eq!(read_exactly(&mut client, wire.len()), wire);
    }
    let FromStream::Opened { id, client: told } = world.hear() else { panic!("it opens first") };
    let expected = StreamClient {
        remote: client.local_addr().expect("bound"),
        local: world.address,
        transport: TurnTransport::Tcp,
    };
    assert_eq!(told, expected);
    drop(client);
    assert_eq!(world.hear(), FromStream::Closed { id });
}

#[test]
fn a_worker_can_end_a_connection_after_its_last_word() {
    let world = World::new();
    let mut client = world.client();
    client.write_all(&stun(0)).expect("open");
    read_exactly(&mut client, 20);
    let FromStream::Opened { id, .. } = world.hear() else { panic!("it opens first") };
    world.say.send(ToStream::Message { id, bytes: channel_data(4, 9), held_until: Now(0) }).expect("runs");
    world.say.send(ToStream::Close { id }).expect("runs");
    assert_eq!(read_exactly(&mut client, 8), channel_data(4, 9));
    assert_closed(&mut client);
    world.say.send(ToStream::Message { id, bytes: channel_data(4, 9), held_until: Now(0) }).expect("runs");
    let mut next = world.client();
    next.write_all(&stun(0)).expect("open");
    assert_eq!(read_exactly(&mut next, 20), stun(0), "and not what was for the one before");
}

#[test]
fn ice_goes_to_the_worker_that_the_first_check_names_and_to_nobody_else() {
    let mut world = World::new();
    let check = |ufrag| {
        let request = BindingRequest {
            transaction_id: TransactionId([3; 12]),
            remote_ufrag: ufrag,
            local_ufrag: "them",
            priority: 1,
            role: IceRole::Controlling(1, true),
        };
        let mut bytes = vec![0; 300];
        let size = write_binding_request(&mut bytes, &request, &IntegrityKey::new(b"password")).expect("room");
        bytes.truncate(size);
        let mut wire = Vec::new();
        assert!(Framing::Length.write(&bytes, &mut wire));
        wire
    };
    world.order(StreamOrder::Name { ufrag: "ours".into(), worker: WorkerIndex(0) });
    let mut known = world.client();
    known.write_all(&check("ours")).expect("open");
    assert_eq!(read_exactly(&mut known, check("ours").len()), check("ours"));
    let mut media = vec![0, 3, 0x80, 1, 2];
    known.write_all(&media).expect("open");
    assert_eq!(read_exactly(&mut known, 5), media);
    media.truncate(4);
    known.write_all(&media).expect("open");
    let mut unknown = world.client();
    unknown.write_all(&check("nobody")).expect("open");
    assert_closed(&mut unknown);
    world.order(StreamOrder::Forget { ufrag: "ours".into() });
    let mut late = world.client();
    std::thread::sleep(Duration::from_millis(50));
    late.write_all(&check("ours")).expect("open");
    assert_closed(&mut late);
    world.wait_for("two strangers", |stats| stats.unknown_protocol == 2);
}

#[test]
fn one_address_has_its_share_and_others_are_served() {
    let limits = StreamLimits { per_address_max: 8, ..StreamLimits::default() };
    let mut world = World::with(StreamSettings { listeners: vec![listener(false)], limits, ..Default::default() });
    let hogs: Vec<TcpStream> = (0..8).map(|_| world.client()).collect();
    world.wait_for("all are in", |stats| stats.accepted == 8);
    assert_closed(&mut world.client());
    let mut other = world.client_from([127, 0, 0, 2].into());
    other.write_all(&stun(4)).expect("open");
    assert_eq!(read_exactly(&mut other, 24), stun(4));
    drop(hogs);
    world.wait_for("room again", |stats| stats.connections == 1 && stats.refused == 1);
    let mut again = world.client();
    again.write_all(&stun(4)).expect("open");
    assert_eq!(read_exactly(&mut again, 24), stun(4));
}

#[test]
fn slow_senders_are_closed_in_time_while_others_are_served() {
    let mut world = World::new();
    let start = Instant::now();
    let mut slow: Vec<TcpStream> = (0..60).map(|_| world.client()).collect();
    let message = stun(400);
    let mut quick = world.client_from([127, 0, 0, 2].into());
    quick.set_nodelay(true).expect("a socket");
    let mut longest = Duration::ZERO;
    for byte in message.iter().take(9) {
        slow.iter_mut().for_each(|stream| stream.write_all(&[*byte]).expect("open so far"));
        let asked = Instant::now();
        quick.write_all(&stun(0)).expect("open");
        read_exactly(&mut quick, 20);
        longest = longest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(900));
    }
    slow.iter_mut().for_each(assert_closed);
    assert!((8..16).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(longest < Duration::from_secs(1), "{longest:?} for an answer beside them");
    world.wait_for("all were silent", |stats| stats.silent == 60);
    quick.write_all(&stun(0)).expect("open");
    assert_eq!(read_exactly(&mut quick, 20), stun(0));
}

#[test]
fn a_thousand_connections_are_served_at_once() {
    let mut world = World::new();
    let mut clients: Vec<TcpStream> =
        (0..1000u32).map(|number| world.client_from([127, 0, 9, (number / 50) as u8 + 1].into())).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            let mut wire = stun(8);
            Framing::Turn.write(&channel_data(number % 1000 + 1, round), &mut wire);
            client.write_all(&wire).expect("open");
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let mut wire = stun(8);
            Framing::Turn.write(&channel_data(number % 1000 + 1, round), &mut wire);
            assert_eq!(read_exactly(client, wire.len()), wire);
        }
    }
    let ids: HashSet<StreamId> = std::iter::from_fn(|| world.heard.try_recv().ok())
        .map(|item| match item {
            FromStream::Opened { id, .. } => id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids.len(), 1000);
    drop(clients);
    let stats = world.wait_for("all gone", |stats| stats.connections == 0);
    assert_eq!((stats.accepted, stats.lost, stats.queue_full, stats.refused), (1000, 0, 0, 0));
}

#[test]
fn who_does_not_read_loses_messages_and_holds_up_nobody() {
    let mut world = World::new();
    let mut deaf = world.client();
    let mut other = world.client_from([127, 0, 0, 2].into());
    let mut wire = Vec::new();
    (0..64).for_each(|_| _ = Framing::Turn.write(&channel_data(1000, 1), &mut wire));
    deaf.write_all(&stun(0)).expect("open");
    let (stop, stopped) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let flood = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(Ordering::Relaxed) {
                deaf.write_all(&wire).expect("it is read");
                std::thread::sleep(Duration::from_millis(2));
            }
            deaf
        }
    });
    world.wait_for("its queue is full", |stats| stats.queue_full > 100);
    for _ in 0..20 {
        other.write_all(&stun(4)).expect("open");
        assert_eq!(read_exactly(&mut other, 24), stun(4));
    }
    assert!(stopped.elapsed() < Duration::from_secs(10));
    stop.store(true, Ordering::Relaxed);
    flood.join().expect("no panic");
}

/// A certificate and its key, in files of a directory of their own.
fn certificate(name: &str) -> (tempdir::Dir, rustls::pki_types::CertificateDer<'static>) {
    let dir = tempdir::Dir::new(name);
    let der = write_certificate(&dir);
    (dir, der)
}

fn write_certificate(dir: &tempdir::Dir) -> rustls::pki_types::CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    std::fs::write(dir.path("cert.pem"), made.cert.pem()).expect("a file");
    std::fs::write(dir.path("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    made.cert.der().clone()
}

mod tempdir {
    use std::path::PathBuf;

    pub(super) struct Dir(PathBuf);

    impl Dir {
        pub(super) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ringmain-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }

        pub(super) fn path(&self, file: &str) -> PathBuf {
            self.0.join(file)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

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

/// A client of TURN as its worker knows it.
fn turn_client(world: &World) -> (TcpStream, StreamId) {
    let mut client = world.client();
    client.write_all(&stun(0)).expect("open");
    read_exactly(&mut client, 20);
    let FromStream::Opened { id, .. } = world.hear() else { panic!("it opens first") };
    (client, id)
}

#[test]
fn a_client_is_joined_to_a_peer_that_we_connect_to() {
    let world = World::new();
    let peer = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let relayed = SocketAddr::from(([127, 0, 0, 1], 0));
    let (mut client, client_id) = turn_client(&world);
    let address = peer.local_addr().expect("bound");
    world.say.send(ToStream::Connect { request: 7, local: relayed, peer: address }).expect("runs");
    let (mut far, _) = peer.accept().expect("we connect");
    far.write_all(b"before they were joined").expect("open");
    let FromStream::Connected { request: 7, peer: Some(peer_id) } = world.hear() else { panic!("connected") };
    world.say.send(ToStream::Message { id: client_id, bytes: stun(4), held_until: Now(0) }).expect("runs");
    world.say.send(ToStream::Join { client: client_id, peer: peer_id }).expect("runs");
    assert_eq!(read_exactly(&mut client, 24), stun(4));
    assert_eq!(read_exactly(&mut client, 23), b"before they were joined");
    let body: Vec<u8> = (0..3_000_000u32).map(|number| (number / 3) as u8).collect();
    let mut writing = client.try_clone().expect("a descriptor");
    let sent = body.clone();
    let writer = std::thread::spawn(move || writing.write_all(&sent).expect("open"));
    assert!(read_exactly(&mut far, body.len()) == body);
    writer.join().expect("no panic");
    far.write_all(b"last words").expect("open");
    drop(far);
    assert_eq!(read_exactly(&mut client, 10), b"last words");
    assert_closed(&mut client);
    let mut gone = [world.hear(), world.hear()].map(|item| match item {
        FromStream::Closed { id } => id,
        other => panic!("{other:?}"),
    });
    gone.sort();
    let mut both = [client_id, peer_id];
    both.sort();
    assert_eq!(gone, both);
}

#[test]
fn a_peer_that_cannot_be_reached_is_told_of() {
    let world = World::new();
    let closed = TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound");
    let relayed = SocketAddr::from(([127, 0, 0, 1], 0));
    world.say.send(ToStream::Connect { request: 3, local: relayed, peer: closed }).expect("runs");
    assert_eq!(world.hear(), FromStream::Connected { request: 3, peer: None });
    let foreign = SocketAddr::from(([192, 0, 2, 1], 9));
    world.say.send(ToStream::Connect { request: 4, local: foreign, peer: closed }).expect("runs");
    assert_eq!(world.hear(), FromStream::Connected { request: 4, peer: None });
}

#[test]
fn a_peer_can_connect_to_a_relayed_address_until_it_is_closed() {
    let world = World::new();
    let (mut client, client_id) = turn_client(&world);
    world.say.send(ToStream::Listen { request: 5, address: ([127, 0, 0, 1], 0).into() }).expect("runs");
    let FromStream::Listening { request: 5, address: Some(relayed) } = world.hear() else { panic!("listens") };
    let mut far = TcpStream::connect(relayed).expect("listens");
    let FromStream::Arrived { request: 5, id, peer } = world.hear() else { panic!("arrives") };
    assert_eq!(peer, far.local_addr().expect("bound"));
    world.say.send(ToStream::Join { client: client_id, peer: id }).expect("runs");
    far.write_all(b"hello").expect("open");
    assert_eq!(read_exactly(&mut client, 5), b"hello");
    client.write_all(b"\x00\x01 these are no frames").expect("open");
    assert_eq!(read_exactly(&mut far, 22), b"\x00\x01 these are no frames");
    world.say.send(ToStream::StopListening { request: 5 }).expect("runs");
    let start = Instant::now();
    while TcpStream::connect(relayed).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5), "it still listens");
        std::thread::sleep(Duration::from_millis(10));
    }
    world.say.send(ToStream::Close { id: client_id }).expect("runs");
    assert_closed(&mut client);
    assert_closed(&mut far);
}

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
        assert!(start.elapsed() < Duration::from_secs(5), "the new one is not used");
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
    fn new(dir: &tempdir::Dir, per_address_max: usize) -> Self {
        let poll = mio::Poll::new().expect("epoll");
        let mut streams = Streams::new(StreamLimits { per_address_max, ..StreamLimits::default() }, None);
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
    assert_eq!((stats.accepted, stats.refused), (8, 12));
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
    assert!(bench.streams.send_dtls(slot.expect("a session"), &stun(0), second(600_000)), "with an allocation");
    assert_eq!((bench.overdue(second(599_999)), bench.overdue(second(600_000))), (None, Some(End::Silent)));
}
