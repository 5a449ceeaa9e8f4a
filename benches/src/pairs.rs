//! Clients of a relay, each with one peer, and the load that they are: single datagrams both ways, every one counted, looked at, and
//! compared with what was sent. They never sleep, so that no server pays for waking them.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ringmain_dataplane::packet::stun::{Class, IntegrityKey, Message, MessageWriter, TransactionId, attribute, method};
use ringmain_dataplane::turn::derive_keys;

/// The long-term credential of all clients.
pub const USER: &str = "test";
pub const PASSWORD: &str = "test123";
pub const REALM: &str = "a";
/// The channel of every client.
pub const CHANNEL: u16 = 0x4000;

/// How a client says where its datagrams go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speech {
    /// The client's number in the first two bytes, for a server that only receives and sends; see [`crate::bare`].
    Bare,
    /// ChannelData.
    Channel,
    /// Send and Data indications.
    Send,
}

/// Clients with their peers.
pub struct Pairs {
    pairs: Vec<Pair>,
    speech: Speech,
    pub sent: u64,
    pub received: u64,
}

struct Pair {
    client: UdpSocket,
    peer: UdpSocket,
    /// What the client sends, as it sends it, and where in it what its peer gets begins.
    to_peer: Vec<u8>,
    front: usize,
    /// What the peer sends.
    to_client: Vec<u8>,
    client_waits: u32,
    peer_waits: u32,
}

impl Pairs {
    /// So many clients of the server at this address, ready to send `size` bytes. `tend` lets a server of this thread do its work.
    pub fn new(
        server: SocketAddr,
        count: usize,
        speech: Speech,
        size: usize,
        tend: &mut dyn FnMut(),
    ) -> Result<Self, String> {
        let mut pairs = Vec::with_capacity(count);
        for number in 0..count {
            pairs.push(
                Pair::new(server, number as u16, speech, size, tend)
                    .map_err(|why| format!("client {number}: {why}"))?,
            );
        }
        Ok(Self { pairs, speech, sent: 0, received: 0 })
    }

    /// Every client and every peer sends a datagram. How many went out.
    pub fn send(&mut self) -> u64 {
        let sent = self.pairs.iter_mut().map(|pair| pair.send(1)).sum();
        self.sent += sent;
        sent
    }

    /// Takes in what has come of what was sent. How much it was.
    ///
    /// # Panics
    /// When something came that nobody sent.
    pub fn receive(&mut self) -> u64 {
        let before = self.received;
        let mut bytes = [0; 2_048];
        for pair in &mut self.pairs {
            while pair.peer_waits > 0
                && let Some(size) = take(&pair.peer, &mut bytes)
            {
                pair.peer_waits -= 1;
                self.received += 1;
                assert_eq!(bytes[..size], pair.to_peer[pair.front..][..size], "a peer gets what its client sent");
            }
            while pair.client_waits > 0
                && let Some(size) = take(&pair.client, &mut bytes)
            {
                pair.client_waits -= 1;
                self.received += 1;
                let data = unwrapped(self.speech, &bytes[..size]);
                assert_eq!(data, Some(&pair.to_client[..]), "a client gets what its peer sent");
            }
        }
        self.received - before
    }

    /// Sends so many datagrams a second, both ways together, for so long, and waits for what is on its way. Every client has a time of
    /// its own, at which it and its peer send `run` datagrams each: 1, or the packets of a video frame. Both counts of this time.
    pub fn drive(&mut self, rate: f64, run: usize, time: Duration) -> (u64, u64) {
        let (sent, received) = (self.sent, self.received);
        let step = Duration::from_secs_f64(2.0 * run as f64 / rate);
        let (began, mut next, mut index) = (Instant::now(), Duration::ZERO, 0);
        while next < time {
            if began.elapsed() >= next {
                self.sent += self.pairs[index].send(run);
                index = (index + 1) % self.pairs.len();
                next += step;
            }
            self.receive();
        }
        let (mut last, mut quiet) = (self.received, Instant::now());
        while self.received - received < self.sent - sent && quiet.elapsed() < PATIENCE {
            self.receive();
            if self.received > last {
                (last, quiet) = (self.received, Instant::now());
            }
        }
        // What is lost is not waited for again.
        self.pairs.iter_mut().for_each(|pair| (pair.client_waits, pair.peer_waits) = (0, 0));
        (self.sent - sent, self.received - received)
    }
}

impl Pair {
    fn new(
        server: SocketAddr,
        number: u16,
        speech: Speech,
        size: usize,
        tend: &mut dyn FnMut(),
    ) -> Result<Self, String> {
        // Addresses of their own: servers bound what one address may ask.
        let [high, low] = number.to_be_bytes();
        let client = bind(Ipv4Addr::new(127, 66, high, low))?;
        let peer = bind(Ipv4Addr::LOCALHOST)?;
        client.connect(server).map_err(|error| error.to_string())?;
        let address = peer.local_addr().map_err(|error| error.to_string())?;
        let relayed = match speech {
            Speech::Bare => exchange(&client, &crate::bare::hello(number, address), tend, crate::bare::welcome)?,
            Speech::Channel | Speech::Send => allocate(&client, address, speech, tend)?,
        };
        peer.connect(relayed).map_err(|error| error.to_string())?;
        let to_client: Vec<u8> = (0..size).map(|at| (at * 7) as u8 ^ low).collect();
        let mut data: Vec<u8> = (0..size).map(|at| (at * 3) as u8 ^ low).collect();
        let (to_peer, front) = match speech {
            Speech::Bare => {
                data[..2].copy_from_slice(&number.to_be_bytes());
                (data, 0)
            }
            Speech::Channel => ([&CHANNEL.to_be_bytes(), &(size as u16).to_be_bytes(), &data[..]].concat(), 4),
            Speech::Send => send_indication(address, &data),
        };
        Ok(Self { client, peer, to_peer, front, to_client, client_waits: 0, peer_waits: 0 })
    }

    /// Both send so many. How many went out.
    fn send(&mut self, run: usize) -> u64 {
        let mut sent = 0;
        for _ in 0..run {
            if self.client.send(&self.to_peer).is_ok() {
                self.peer_waits += 1;
                sent += 1;
            }
        }
        for _ in 0..run {
            if self.peer.send(&self.to_client).is_ok() {
                self.client_waits += 1;
                sent += 1;
            }
        }
        sent
    }
}

/// A relayed address, with a way to the peer.
fn allocate(
    client: &UdpSocket,
    peer: SocketAddr,
    speech: Speech,
    tend: &mut dyn FnMut(),
) -> Result<SocketAddr, String> {
    let key = IntegrityKey::new(&derive_keys(USER, REALM, PASSWORD).md5);
    let mut nonce: Option<Vec<u8>> = None;
    let mut relayed = None;
    for (at, method) in [method::ALLOCATE, method::ALLOCATE, way_to_a_peer(speech)].into_iter().enumerate() {
        let mut bytes = [0; 700];
        let mut request = MessageWriter::new(&mut bytes, Class::Request, method, TransactionId([at as u8; 12]));
        match method {
            method::ALLOCATE => request.attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
            method::CHANNEL_BIND => {
                request.attribute(attribute::CHANNEL_NUMBER, &(u32::from(CHANNEL) << 16).to_be_bytes());
                request.xor_address(attribute::XOR_PEER_ADDRESS, peer);
            }
            _ => request.xor_address(attribute::XOR_PEER_ADDRESS, peer),
        }
        if let Some(nonce) = &nonce {
            request.attribute(attribute::USERNAME, USER.as_bytes());
            request.attribute(attribute::REALM, REALM.as_bytes());
            request.attribute(attribute::NONCE, nonce);
            request.integrity(&key);
        }
        let size = request.finish().ok_or("a request that does not fit")?;
        let (class, address, fresh) = exchange(client, &bytes[..size], tend, |answer| {
            let message = Message::parse(answer).ok().filter(|message| message.method() == method)?;
            let address = message.xor_address(attribute::XOR_RELAYED_ADDRESS);
            let code = message.error_code();
            Some((code, address, message.attribute(attribute::NONCE).map(<[u8]>::to_vec)))
        })?;
        match (at, class) {
            (0, Some(401)) | (_, None) => {}
            (_, Some(code)) => return Err(format!("request {at} was refused with {code}")),
        }
        nonce = fresh.or(nonce);
        relayed = address.or(relayed);
    }
    relayed.ok_or_else(|| "no relayed address".into())
}

fn way_to_a_peer(speech: Speech) -> u16 {
    if speech == Speech::Send { method::CREATE_PERMISSION } else { method::CHANNEL_BIND }
}

/// A Send indication, and where its data is.
fn send_indication(peer: SocketAddr, data: &[u8]) -> (Vec<u8>, usize) {
    let mut bytes = vec![0; data.len() + 64];
    let mut message = MessageWriter::new(&mut bytes, Class::Indication, method::SEND, TransactionId([9; 12]));
    message.xor_address(attribute::XOR_PEER_ADDRESS, peer);
    message.attribute(attribute::DATA, data);
    let size = message.finish_bare().expect("room");
    bytes.truncate(size);
    let front = Message::parse(&bytes).ok().and_then(|message| message.attribute_range(attribute::DATA));
    (bytes, front.expect("just written").start)
}

/// What a client's datagram carries.
fn unwrapped(speech: Speech, bytes: &[u8]) -> Option<&[u8]> {
    match (speech, bytes) {
        (Speech::Bare, data) => Some(data),
        (Speech::Channel, [high, low, front, back, data @ ..]) => {
            let is_ours = u16::from_be_bytes([*high, *low]) == CHANNEL;
            data.get(..usize::from(u16::from_be_bytes([*front, *back]))).filter(|_| is_ours)
        }
        (Speech::Send, bytes) => Message::parse(bytes).ok()?.attribute(attribute::DATA),
        _ => None,
    }
}

/// Asks, more than once if need be, until an answer can be read.
fn exchange<T>(
    client: &UdpSocket,
    request: &[u8],
    tend: &mut dyn FnMut(),
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, String> {
    let mut bytes = [0; 2_048];
    for _ in 0..20 {
        // A server that is only just starting refuses; that is no answer.
        let _ = client.send(request);
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_millis(250) {
            tend();
            if let Some(answer) = take(client, &mut bytes).and_then(|size| read(&bytes[..size])) {
                return Ok(answer);
            }
        }
    }
    Err("no answer".into())
}

fn take(socket: &UdpSocket, bytes: &mut [u8]) -> Option<usize> {
    match socket.recv(bytes) {
        Ok(size) => Some(size),
        Err(error) => {
            debug_assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused), "{error}");
            None
        }
    }
}

fn bind(address: Ipv4Addr) -> Result<UdpSocket, String> {
    let socket = UdpSocket::bind((address, 0)).map_err(|error| error.to_string())?;
    socket.set_nonblocking(true).map_err(|error| error.to_string())?;
    Ok(socket)
}

/// What has not come by then is lost.
const PATIENCE: Duration = Duration::from_millis(200);
