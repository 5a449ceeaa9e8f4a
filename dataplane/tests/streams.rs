//! ICE over TCP (RFC 6544, passive) against a whole data plane: a check goes in framed, the worker's answer comes back framed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ringmain_dataplane::io::LinkChoice;
use ringmain_dataplane::packet::stun::{BindingRequest, Class, IntegrityKey, Message, Role, TransactionId};
use ringmain_dataplane::packet::stun::{write_binding_request, write_binding_success};
use ringmain_dataplane::plane::{Plane, Protocols, Settings, StreamListener, StreamSettings};
use ringmain_shared::Command;
use ringmain_shared::id::{PeerId, RoomId, TransportId, WorkerIndex};
use ringmain_shared::transport::{
    DtlsRole, Fingerprint, FingerprintHash, IceCredentials, RemotePeer, Side, TransportSpec,
};

const PASSWORD: &str = "a password of 22 chars";

fn plane(link: LinkChoice) -> Plane {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let clear = Protocols { turn: true, ice: true, http: false };
    let listener = StreamListener { address, clear, tls: Protocols::NONE };
    let streams = StreamSettings { listeners: vec![listener], ..StreamSettings::default() };
    let settings = Settings { workers: 2, base_port: 0, pin: false, link, streams, ..Settings::default() };
    Plane::start(settings).expect("starts").0
}

fn open(plane: &mut Plane, worker: u16, ufrag: &str) {
    let credentials = |ufrag: &str| IceCredentials { ufrag: ufrag.into(), pwd: PASSWORD.into() };
    let remote = RemotePeer {
        ice: credentials("them"),
        fingerprints: vec![Fingerprint { hash: FingerprintHash::Sha256, value: vec![0; 32] }],
        role: DtlsRole::Server,
    };
    let spec = TransportSpec {
        id: TransportId(u64::from(worker) + 1),
        peer: PeerId(1),
        room: RoomId(1),
        side: Side::Publisher,
        local: credentials(ufrag),
        remote: Some(remote),
        channels: None,
    };
    plane.send(Command::OpenTransport { worker: WorkerIndex(worker), spec: Box::new(spec) }).expect("room");
}

fn connect(plane: &Plane) -> TcpStream {
    let stream = TcpStream::connect(plane.stream_addresses()[0]).expect("listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
    stream
}

fn check(ufrag: &str, password: &str, number: u8) -> Vec<u8> {
    let request = BindingRequest {
        transaction_id: TransactionId([number; 12]),
        remote_ufrag: ufrag,
        local_ufrag: "them",
        priority: 1,
        role: Role::Controlling(1, true),
    };
    let mut bytes = vec![0; 300];
    let size = write_binding_request(&mut bytes, &request, &IntegrityKey::new(password.as_bytes())).expect("room");
    bytes.truncate(size);
    bytes
}

fn write(stream: &mut TcpStream, message: &[u8]) {
    let framed = [&(message.len() as u16).to_be_bytes()[..], message].concat();
    stream.write_all(&framed).expect("open");
}

fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut size = [0; 2];
    stream.read_exact(&mut size).expect("a frame");
    let mut message = vec![0; usize::from(u16::from_be_bytes(size))];
    stream.read_exact(&mut message).expect("the rest of it");
    message
}

#[test]
fn checks_over_tcp_are_answered_by_the_worker_of_their_transport() {
    for link in [LinkChoice::IoUring, LinkChoice::Mmsg] {
        let mut plane = plane(link);
        for (worker, ufrag) in [(0, "first"), (1, "other")] {
            open(&mut plane, worker, ufrag);
        }
        for ufrag in ["first", "other"] {
            let mut stream = connect(&plane);
            // The order to open it and the first check take different ways.
            std::thread::sleep(Duration::from_millis(100));
            write(&mut stream, &check(ufrag, PASSWORD, 1));
            let key = IntegrityKey::new(PASSWORD.as_bytes());
            let mut answered = false;
            for number in 2..20 {
                let bytes = read(&mut stream);
                let message = Message::parse(&bytes).expect("STUN");
                match message.class() {
                    Class::Success => {
                        message.verify_integrity(&key).expect("ours");
                        assert_eq!(message.xor_mapped_address(), Some(stream.local_addr().expect("bound")));
                        answered = true;
                    }
                    // The worker makes sure that we live here, over the same connection.
                    Class::Request => {
                        let mut out = [0; 200];
                        let mapped = stream.peer_addr().expect("connected");
                        let size =
                            write_binding_success(&mut out, message.transaction_id(), mapped, &key).expect("room");
                        write(&mut stream, &out[..size]);
                    }
                    _ => panic!("{message:?}"),
                }
                if answered {
                    answered = false;
                    write(&mut stream, &check(ufrag, PASSWORD, number));
                }
            }
        }
        plane.shutdown();
    }
}

#[test]
fn a_wrong_password_is_never_answered_and_an_unknown_fragment_ends_the_connection() {
    let mut plane = plane(LinkChoice::Auto);
    open(&mut plane, 0, "first");
    std::thread::sleep(Duration::from_millis(100));
    let mut wrong = connect(&plane);
    write(&mut wrong, &check("first", "another password of theirs", 1));
    wrong.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
    wrong.read_exact(&mut [0]).expect_err("nothing comes");
    let mut unknown = connect(&plane);
    write(&mut unknown, &check("nobody", PASSWORD, 1));
    assert!(matches!(unknown.read(&mut [0; 10]), Ok(0) | Err(_)), "closed");
    let mut turn = connect(&plane);
    turn.write_all(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]).expect("open");
    assert!(matches!(turn.read(&mut [0; 10]), Ok(0) | Err(_)), "nobody here speaks TURN");
    plane.shutdown();
}
