//! TURN's peers over TCP (RFC 6062) over real sockets: a whole data plane on loopback, with a client written by hand.

#![allow(missing_docs, reason = "a test has no readers but itself")]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ringmain_dataplane::packet::stun::{
    Class, IntegrityKey, Message, MessageWriter, TransactionId, attribute, error, method,
};
use ringmain_dataplane::plane::{Plane, Protocols, Settings, StreamListener, StreamSettings};
use ringmain_dataplane::turn::derive_keys;
use ringmain_shared::Command;
use ringmain_shared::turn::{
    IpRange, PasswordAlgorithms, PeerPolicy, RelayAddress, RelayMode, RelaySpec, TurnCommand, TurnCredential,
    TurnFeatures, TurnLifetimes, TurnQuotas, TurnSpec,
};
use socket2::{Domain, Socket, Type};

/// A server with two workers, and where it listens.
fn start(port_min: u16, quotas: TurnQuotas) -> (Plane, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let clear = Protocols { turn: true, ..Protocols::NONE };
    let listener = StreamListener { address, clear, tls: Protocols::NONE };
    let streams = StreamSettings { listeners: vec![listener], ..StreamSettings::default() };
    let settings = Settings { workers: 2, pin: false, base_port: 0, streams, ..Settings::default() };
    let (mut plane, _) = Plane::start(settings).expect("starts");
    let server = plane.stream_addresses()[0];
    let here: IpAddr = [127, 0, 0, 1].into();
    let spec = TurnSpec {
        realm: "r".into(),
        users: vec![TurnCredential {
            username: "guest".into(),
            keys: derive_keys("guest", "r", "pass"),
            user: "guest".into(),
            bound: None,
            expires: None,
        }],
        secrets: Vec::new(),
        third_party: None,
        binding: true,
        discovery: Vec::new(),
        password_algorithms: PasswordAlgorithms::Never,
        peers: PeerPolicy {
            allow: vec![IpRange::network(here, 8).expect("a range")],
            listeners: vec![server],
            ..PeerPolicy::default()
        },
        relay: RelaySpec {
            addresses: vec![RelayAddress { bind: here, announce: here }],
            port_min,
            port_max: port_min + 99,
            workers: 2,
            mode: RelayMode::PerAllocation,
        },
        quotas,
        lifetimes: TurnLifetimes::default(),
        features: TurnFeatures { tcp_relay: true, ..TurnFeatures::default() },
    };
    assert!(plane.send(Command::Turn(TurnCommand::Configure(Box::new(spec)))).is_ok());
    (plane, server)
}

/// One connection of a client's.
struct Client {
    stream: TcpStream,
    nonce: Vec<u8>,
    transactions: u8,
}

impl Client {
    fn new(server: SocketAddr, from: [u8; 4]) -> Self {
        Self { stream: connect(from, server).expect("listens"), nonce: Vec::new(), transactions: 0 }
    }

    fn ask(&mut self, method: u16, rest: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
        let mut bytes = [0; 500];
        self.transactions += 1;
        let id = TransactionId([self.transactions; 12]);
        let mut message = MessageWriter::new(&mut bytes, Class::Request, method, id);
        rest(&mut message);
        if !self.nonce.is_empty() {
            message.attribute(attribute::USERNAME, b"guest");
            message.attribute(attribute::REALM, b"r");
            message.attribute(attribute::NONCE, &self.nonce);
            message.integrity(&IntegrityKey::new(&derive_keys("guest", "r", "pass").md5));
        }
        let len = message.finish_bare().expect("room");
        self.stream.write_all(&bytes[..len]).expect("open");
        let answer = self.hear();
        assert_eq!(Message::parse(&answer).expect("sound").transaction_id(), id);
        answer
    }

    /// One message, and not a byte more.
    fn hear(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        self.stream.read_exact(&mut bytes).expect("a message");
        bytes.resize(20 + usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 0);
        self.stream.read_exact(&mut bytes[20..]).expect("all of it");
        bytes
    }

    fn allocate(&mut self) -> SocketAddr {
        let tcp = |message: &mut MessageWriter<'_>| message.attribute(attribute::REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
        let challenge = self.ask(method::ALLOCATE, tcp);
        self.nonce = Message::parse(&challenge).expect("sound").attribute(attribute::NONCE).expect("a nonce").to_vec();
        let answer = self.ask(method::ALLOCATE, tcp);
        Message::parse(&answer).expect("sound").xor_address(attribute::XOR_RELAYED_ADDRESS).expect("an address")
    }

    /// CONNECTION-ID, or why not.
    fn connect(&mut self, peer: SocketAddr) -> Result<Vec<u8>, u16> {
        let answer = self.ask(method::CONNECT, |message| message.xor_address(attribute::XOR_PEER_ADDRESS, peer));
        let message = Message::parse(&answer).expect("sound");
        let id = message.attribute(attribute::CONNECTION_ID).map(<[u8]>::to_vec);
        id.ok_or_else(|| message.error_code().expect("why"))
    }

    fn permit(&mut self, peer: [u8; 4]) {
        let peer = SocketAddr::from((peer, 0));
        let permit = |message: &mut MessageWriter<'_>| message.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        assert_eq!(code(&self.ask(method::CREATE_PERMISSION, permit)), 0);
    }

    /// A connection of the same client's for the bytes of this one.
    fn bind(&self, id: &[u8]) -> TcpStream {
        let from = self.stream.local_addr().expect("bound").ip();
        let IpAddr::V4(from) = from else { panic!("IPv4") };
        let mut data = Self::new(self.stream.peer_addr().expect("connected"), from.octets());
        data.nonce = self.nonce.clone();
        let bound = data.ask(method::CONNECTION_BIND, |message| message.attribute(attribute::CONNECTION_ID, id));
        assert_eq!(code(&bound), 0);
        data.stream
    }
}

fn code(answer: &[u8]) -> u16 {
    Message::parse(answer).expect("sound").error_code().unwrap_or(0)
}

fn connect(from: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("loopback");
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("any socket has one");
    Ok(stream)
}

fn assert_closed(stream: &mut TcpStream) {
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

/// Sends back what it hears, to all who connect.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut from, mut to) = (&stream, &stream);
                let _ = std::io::copy(&mut from, &mut to);
            });
        }
    });
    address
}

/// Bytes that do not repeat soon.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

#[test]
fn clients_and_peers_connect_through_every_worker() {
    let (_plane, server) = start(14_000, TurnQuotas::default());
    let echo = echo();
    for from in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        let mut client = Client::new(server, from);
        let relayed = client.allocate();
        let id = client.connect(echo).expect("it listens");
        let mut data = client.bind(&id);
        let sent = noise(5_000_000);
        let mut writing = data.try_clone().expect("a descriptor");
        let writer = std::thread::spawn({
            let sent = sent.clone();
            move || writing.write_all(&sent).expect("open")
        });
        let mut back = vec![0; sent.len()];
        data.read_exact(&mut back).expect("all of it");
        writer.join().expect("no panic");
        assert!(back == sent, "as it was sent");
        assert_eq!(client.connect(echo), Err(error::CONNECTION_ALREADY_EXISTS));
        let closed = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback");
        assert_eq!(client.connect(closed), Err(error::CONNECTION_FAILED));
        for forbidden in [server, relayed, ([10, 0, 0, 1], 80).into()] {
            assert_eq!(client.connect(forbidden), Err(error::FORBIDDEN), "{forbidden}");
        }
        // A peer without a permission is not let in.
        assert_closed(&mut connect([127, 0, 0, 9], relayed).expect("accepted, to be closed"));
        client.permit([127, 0, 0, 9]);
        let mut far = connect([127, 0, 0, 9], relayed).expect("listens");
        far.write_all(b"hello").expect("open");
        let attempt = client.hear();
        let attempt = Message::parse(&attempt).expect("sound");
        assert_eq!((attempt.class(), attempt.method()), (Class::Indication, method::CONNECTION_ATTEMPT));
        assert_eq!(attempt.xor_address(attribute::XOR_PEER_ADDRESS), far.local_addr().ok());
        let mut second = client.bind(attempt.attribute(attribute::CONNECTION_ID).expect("a name"));
        let mut five = [0; 5];
        second.read_exact(&mut five).expect("what came before it was bound");
        second.write_all(b"world").expect("open");
        far.read_exact(&mut five).expect("relayed");
        assert_eq!(&five, b"world");
        drop(far);
        assert_closed(&mut second);
        // With the allocation everything of it ends.
        client.ask(method::REFRESH, |message| message.attribute(attribute::LIFETIME, &[0; 4]));
        assert_closed(&mut data);
        let start = Instant::now();
        while connect([127, 0, 0, 9], relayed).is_ok() {
            assert!(start.elapsed() < Duration::from_secs(20), "it still listens");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_user_s_connections_are_counted_on_all_workers_together() {
    let (_plane, server) = start(14_300, TurnQuotas { connections_per_user: 1, ..TurnQuotas::default() });
    let echo = echo();
    let [mut one, mut other] = [[127, 0, 0, 1], [127, 0, 0, 2]].map(|from| Client::new(server, from));
    one.allocate();
    other.allocate();
    let id = one.connect(echo).expect("it listens");
    assert_eq!(other.connect(echo), Err(error::INSUFFICIENT_CAPACITY));
    drop(one.bind(&id));
    let start = Instant::now();
    while other.connect(echo).is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "what is over counts no more");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_the_peer_does_not_read_is_not_taken_from_the_client() {
    let (_plane, server) = start(14_100, TurnQuotas::default());
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let mut client = Client::new(server, [127, 0, 0, 1]);
    client.allocate();
    let id = client.connect(listener.local_addr().expect("bound")).expect("it listens");
    let (mut far, _) = listener.accept().expect("connected");
    let mut data = client.bind(&id);
    data.set_write_timeout(Some(Duration::from_millis(500))).expect("any socket has one");
    let chunk = noise(64 * 1024);
    let mut sent = 0;
    let stopped = loop {
        match data.write(&chunk[sent % chunk.len()..]) {
            Ok(size) => sent += size,
            Err(error) => break error,
        }
        assert!(sent < 64 << 20, "it takes in whatever comes");
    };
    assert_eq!(stopped.kind(), ErrorKind::WouldBlock);
    data.shutdown(std::net::Shutdown::Write).expect("open");
    let mut received = Vec::new();
    far.read_to_end(&mut received).expect("to the end");
    assert_eq!(received.len(), sent);
    assert!(received.chunks(chunk.len()).all(|part| part == &chunk[..part.len()]));
}

#[test]
fn a_user_s_bandwidth_holds_over_tcp() {
    let (_plane, server) = start(14_200, TurnQuotas { user_bps: 4_000_000, ..TurnQuotas::default() });
    let echo = echo();
    let mut client = Client::new(server, [127, 0, 0, 1]);
    client.allocate();
    let id = client.connect(echo).expect("it listens");
    let mut data = client.bind(&id);
    // A megabyte each way is four seconds of it.
    let sent = noise(1_000_000);
    let start = Instant::now();
    let mut writing = data.try_clone().expect("a descriptor");
    let writer = std::thread::spawn({
        let sent = sent.clone();
        move || writing.write_all(&sent).expect("open")
    });
    let mut back = vec![0; sent.len()];
    data.read_exact(&mut back).expect("all of it");
    writer.join().expect("no panic");
    assert!(back == sent);
    let took = start.elapsed().as_secs_f64();
    assert!((3.5..8.0).contains(&took), "{took} s");
}
