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
use crate::stream::classify::Protocols;
use crate::stream::frame::Framing;

mod dtls;
mod relay;
mod tcp;
mod tls;

const ORDERS: usize = 4096;
/// What must come is waited for, however busy the host is.
const PATIENCE: Duration = Duration::from_secs(20);

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
    let all = Protocols { turn: true, ice: true, http: true };
    StreamListener { address, clear: all, tls: if tls { all } else { Protocols::NONE } }
}

impl World {
    fn new() -> Self {
        Self::with(StreamSettings { listeners: vec![listener(false)], ..StreamSettings::default() })
    }

    fn with(settings: StreamSettings) -> Self {
        let wake = WakeHandle::detached().expect("an eventfd");
        let (core, addresses) = stream_loop::open(&settings, &wake).expect("starts");
        let (orders, commands) = RingBuffer::new(ORDERS);
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
        self.heard.recv_timeout(PATIENCE).expect("the worker hears of it")
    }

    /// The counters, once they are like this.
    fn wait_for(&mut self, what: &str, right: impl Fn(&StreamStats) -> bool) -> StreamStats {
        let start = Instant::now();
        let mut last = StreamStats::default();
        while start.elapsed() < PATIENCE {
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
