//! The same worker on `tokio-uring` 0.5 instead of our links: what the runtime has is used as well as it allows.
//!
//! It has no multishot receive and no ring of buffers, so many receives are under way at once; each send is an operation of its own with
//! what it allocates; all of a flush are submitted together. Trains go as the control message of `sendmsg`, which it passes through.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use ringmain_dataplane::buf::TxBatch;
use ringmain_dataplane::io::{Diverted, Link, Path, Transmit, WakeHandle};
use tokio::sync::Notify;
use tokio_uring::Runtime;
use tokio_uring::buf::IoBuf;
use tokio_uring::net::UdpSocket;

use crate::engine::{Engine, Way, here, path};
use crate::room::{Media, Room, Tap, forget};
use crate::wire::socket;

/// A worker on tokio-uring, sending trains or one datagram at a time.
pub fn engine(trains: bool, remotes: &[SocketAddr], media: Media) -> Result<Engine, String> {
    let socket = socket();
    let server = here(&socket);
    let way = OnTokio::new(socket, trains).map_err(|error| format!("no tokio-uring: {error}"))?;
    Ok(Engine::over(Box::new(way), server, remotes, media))
}

struct OnTokio {
    runtime: Runtime,
    socket: Rc<UdpSocket>,
    inbox: Rc<Inbox>,
    trains: bool,
    /// A control message for each size of segment.
    controls: HashMap<usize, &'static [u8]>,
    sent: (u64, u64),
}

#[derive(Default)]
struct Inbox {
    datagrams: RefCell<VecDeque<(SocketAddr, Vec<u8>)>>,
    news: Notify,
}

impl OnTokio {
    fn new(socket: std::net::UdpSocket, trains: bool) -> std::io::Result<Self> {
        let runtime = Runtime::new(tokio_uring::builder().entries(QUEUE))?;
        let (socket, inbox) = (Rc::new(UdpSocket::from_std(socket)), Rc::new(Inbox::default()));
        runtime.block_on(async {
            for _ in 0..RECEIVES {
                tokio_uring::spawn(receive(socket.clone(), inbox.clone()));
            }
            tokio::task::yield_now().await;
        });
        Ok(Self { runtime, socket, inbox, trains, controls: HashMap::new(), sent: (0, 0) })
    }
}

/// Receives for ever. An error ends it: the bench notices that nothing comes any more.
async fn receive(socket: Rc<UdpSocket>, inbox: Rc<Inbox>) {
    let mut buffer = Vec::with_capacity(2048);
    loop {
        let (result, returned) = socket.recv_from(buffer).await;
        buffer = returned;
        let Ok((size, from)) = result else { return };
        inbox.datagrams.borrow_mut().push_back((from, buffer[..size].to_vec()));
        inbox.news.notify_one();
    }
}

impl Way for OnTokio {
    fn turn(&mut self, room: &mut Room, checks: &mut Vec<(Path, Vec<u8>)>, timeout: Duration) -> usize {
        let inbox = self.inbox.clone();
        self.runtime.block_on(async {
            let news = async {
                while inbox.datagrams.borrow().is_empty() {
                    inbox.news.notified().await;
                }
            };
            let _ = tokio::time::timeout(timeout, news).await;
        });
        for (from, bytes) in inbox.datagrams.borrow_mut().drain(..) {
            room.link.push(path(from), &bytes);
        }
        room.link.receive(None).expect("works");
        let (rx, batch) = room.link.parts();
        let came = rx.len();
        let mut sends = Sends { way: self, batch };
        let mut out = Tap { out: &mut sends, checks };
        room.worker.turn(room.now, rx, &mut out);
        out.end_turn();
        forget(&mut room.worker);
        came
    }

    fn sent(&mut self) -> (u64, u64) {
        self.sent
    }
}

/// Sends by the runtime what the memory link would only count.
struct Sends<'a> {
    way: &'a mut OnTokio,
    batch: &'a mut dyn Transmit,
}

impl Transmit for Sends<'_> {
    fn batch(&mut self) -> &mut TxBatch {
        self.batch.batch()
    }

    fn flush(&mut self) {
        let OnTokio { runtime, socket, trains, controls, sent, .. } = &mut *self.way;
        let batch = self.batch.batch();
        batch.seal();
        let batch = &*batch;
        sent.0 += batch.datagrams() as u64;
        if *trains {
            let sends: Vec<_> = batch
                .trains()
                .iter()
                .map(|train| {
                    let control =
                        (train.segments > 1).then(|| *controls.entry(train.segment_size).or_insert_with_key(control));
                    socket.sendmsg(vec![Lent::new(batch.bytes(train))], Some(train.path.remote), control)
                })
                .collect();
            sent.1 += sends.len() as u64;
            let results = runtime.block_on(join_all(sends));
            assert!(results.iter().all(|(result, ..)| result.is_ok()), "the kernel took everything");
        } else {
            let sends: Vec<_> = batch
                .trains()
                .iter()
                .flat_map(|train| {
                    let bytes = batch.bytes(train);
                    train.segment_ranges().map(|range| socket.send_to(Lent::new(&bytes[range]), train.path.remote))
                })
                .collect();
            sent.1 += sends.len() as u64;
            let results = runtime.block_on(join_all(sends));
            assert!(results.iter().all(|(result, _)| result.is_ok()), "the kernel took everything");
        }
        self.batch.flush();
    }

    fn diverted(&mut self) -> &mut Diverted {
        self.batch.diverted()
    }

    fn wake(&mut self, peer: &WakeHandle) {
        peer.wake();
    }
}

/// Bytes of the transmit arena, lent to the runtime without a copy.
struct Lent {
    bytes: *const u8,
    size: usize,
}

impl Lent {
    fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.as_ptr(), size: bytes.len() }
    }
}

// SAFETY: the arena neither moves nor is written to before `flush` clears it, which waits for every send first.
unsafe impl IoBuf for Lent {
    fn stable_ptr(&self) -> *const u8 {
        self.bytes
    }

    fn bytes_init(&self) -> usize {
        self.size
    }

    fn bytes_total(&self) -> usize {
        self.size
    }
}

/// `UDP_SEGMENT` of this size, as `CMSG_DATA` lays it out. There are few sizes, so what is leaked is bounded.
fn control(&size: &usize) -> &'static [u8] {
    let header = size_of::<libc::cmsghdr>();
    let mut bytes = Vec::new();
    bytes.extend((header + 2).to_ne_bytes());
    bytes.extend(libc::SOL_UDP.to_ne_bytes());
    bytes.extend(libc::UDP_SEGMENT.to_ne_bytes());
    bytes.extend((size as u16).to_ne_bytes());
    bytes.resize(header + 8, 0);
    bytes.leak()
}

/// As many as a flush may submit, so that it is one system call.
const QUEUE: u32 = 1024;
/// Receives under way.
const RECEIVES: usize = 32;
