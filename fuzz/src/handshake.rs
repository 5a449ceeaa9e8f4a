//! What comes before there are keys, and data channels after: DCEP, ClientHellos, and whole DTLS conversations.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate, Output};
use ringmain_dataplane::handshake::{
    Assembler, Datagram, Early, FromHandshake, HandshakeConfig, Handshaker, Identity, Limit, Message, ToHandshake,
    dcep_open, dcep_parse,
};
use ringmain_shared::Now;
use ringmain_shared::event::Event;
use ringmain_shared::id::{PeerId, RoomId, TransportId, WorkerIndex};
use ringmain_shared::limits::{
    CHANNEL_LABEL_SIZE_MAX, CHANNEL_MESSAGE_SIZE_MAX, CLIENT_HELLO_SIZE_MAX, DATAGRAM_SIZE_MAX,
};
use ringmain_shared::transport::{
    ChannelSpec, DtlsRole, Fingerprint, FingerprintHash, RemotePeer, Side, TransportSpec,
};

use crate::conversation::credentials;
use crate::input::Input;

/// A message on a data channel's stream that says to be of the establishment protocol.
pub fn dcep(data: &[u8]) {
    let Some(message) = dcep_parse(data) else { return };
    let Message::Open(open) = message else { return };
    assert!(open.label.len() <= CHANNEL_LABEL_SIZE_MAX && open.label.len() <= data.len());
    let written = dcep_open(&open.label, open.reliability);
    assert_eq!(dcep_parse(&written), Some(Message::Open(open.clone())), "{open:?}");
    assert!(!matches!(open.reliability.limit, Limit::Reliable) || data[1] & 0x7f == 0);
}

/// Datagrams of a client that has not finished its handshake; what they hold of a ClientHello is put together.
pub fn dtls_client_hello(data: &[u8]) {
    // As one datagram, from its first byte.
    let alone = Assembler::default().handle(data);
    assert_eq!(alone, Assembler::default().handle(data));
    // As a list of datagrams.
    let mut input = Input::new(data);
    let mut assembler = Assembler::default();
    let mut kept = 0;
    while !input.is_empty() {
        let datagram = input.chunk();
        let datagram = &datagram[..datagram.len().min(DATAGRAM_SIZE_MAX)];
        match assembler.handle(datagram) {
            Early::Hello(hello) => {
                assert!(hello.dtls12 || hello.dtls13);
                assert!(hello.srtp_profiles.len() <= CLIENT_HELLO_SIZE_MAX);
                let parts = assembler.take_parts();
                assert!(parts.len() <= kept && parts.iter().all(|part| part.len() <= DATAGRAM_SIZE_MAX));
                kept = 0;
            }
            Early::Part => kept += 1,
            Early::Other { .. } | Early::Junk => {}
        }
    }
    assert!(assembler.take_parts().len() <= FRAGMENTS_MAX, "a hello that never ends takes bounded memory");
}

/// Datagrams that may be kept of one ClientHello.
const FRAGMENTS_MAX: usize = 16;

/// Steps of one input.
const STEPS_MAX: usize = 96;

/// A handshaker with transports of one room. Each step is an order, a stranger's datagram, time, or something of real DTLS
/// clients: their flights whole, bent, late or lost, and data of any kind when they have keys.
pub fn dtls_flight(data: &[u8]) {
    play(data);
}

/// How many handshakes were done.
fn play(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let mut scene = Scene::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        scene.step(&mut input);
        scene.settle();
    }
    scene.finish();
    scene.handshaker.stats().secured
}

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Identity::generate().expect("the host has cryptography"));
static CLIENTS: LazyLock<Identity> = LazyLock::new(|| Identity::generate().expect("the host has cryptography"));
static CERTIFICATE: LazyLock<DtlsCertificate> =
    LazyLock::new(|| dimpl::certificate::generate_self_signed_certificate().expect("the host has cryptography"));
static CONFIG: LazyLock<Arc<Config>> =
    LazyLock::new(|| Arc::new(Config::builder().build().expect("the defaults are valid")));

const TRANSPORTS: u8 = 4;

struct Scene {
    handshaker: Handshaker,
    now: Now,
    base: Instant,
    out: Vec<FromHandshake>,
    clients: HashMap<u64, Client>,
    opened: HashSet<u64>,
    promised: HashMap<u64, bool>,
    keys: HashSet<u64>,
}

/// A real DTLS peer, and what the two ends have on the way to each other.
struct Client {
    dtls: Dtls,
    to_us: Vec<Vec<u8>>,
    to_them: Vec<Vec<u8>>,
    failed: bool,
}

impl Scene {
    fn new() -> Self {
        let config = HandshakeConfig { identity: IDENTITY.clone() };
        Self {
            handshaker: Handshaker::new(config, 5).expect("the host has cryptography"),
            now: Now::from_millis(1),
            base: Instant::now(),
            out: Vec::new(),
            clients: HashMap::new(),
            opened: HashSet::new(),
            promised: HashMap::new(),
            keys: HashSet::new(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.u8();
        let id = u64::from(op >> 4 & (TRANSPORTS - 1));
        let transport = TransportId(id);
        match op & 0x0f {
            0 => self.open(id),
            1 => self.promise(id, input.u8()),
            2 => self.handle(ToHandshake::Validated { transport }),
            3 => {
                let bytes = input.chunk();
                let bytes = Datagram::try_from(&bytes[..bytes.len().min(DATAGRAM_SIZE_MAX)]).expect("it fits");
                self.handle(ToHandshake::Datagram { transport, bytes });
            }
            4 => self.client(id, input.u8()),
            5..=7 => self.exchange(id),
            8 => self.exchange_bent(id, input.u16(), input.u8()),
            9 => self.lose(id),
            10 | 11 => self.client_says(id, input),
            12 => self.wait(Duration::from_millis(u64::from(input.u16()))),
            13 => {
                let text = String::from_utf8_lossy(input.chunk()).into_owned();
                self.handle(ToHandshake::SendApi { transport, text });
            }
            14 => {
                self.handle(ToHandshake::Close { transport });
                self.settle();
                self.forget(id);
            }
            // Everything that leads to keys, at once, so that what comes after them is reached.
            _ => {
                self.open(id);
                self.promise(id, 0);
                self.handle(ToHandshake::Validated { transport });
                self.client(id, op >> 7);
                (0..6).for_each(|_| self.exchange(id));
            }
        }
    }

    fn open(&mut self, id: u64) {
        let side = if id.is_multiple_of(2) { Side::Publisher } else { Side::Subscriber };
        let fan_out = side == Side::Subscriber;
        let spec = TransportSpec {
            id: TransportId(id),
            peer: PeerId(id / 2),
            room: RoomId(1),
            side,
            local: credentials("ours", 0),
            remote: None,
            channels: Some(ChannelSpec { api_label: Some("api".into()), fan_out }),
        };
        self.opened.insert(id);
        self.handle(ToHandshake::Open { worker: WorkerIndex(0), spec: Box::new(spec) });
    }

    /// What SDP would say of the peer: the fingerprint of its certificate, or of somebody else's.
    fn promise(&mut self, id: u64, which: u8) {
        let wrong = which % 4 == 3;
        let role = if which & 4 != 0 { DtlsRole::Client } else { DtlsRole::Server };
        let fingerprint = if wrong { CLIENTS.fingerprint() } else { fingerprint_of_clients() };
        let remote = RemotePeer { ice: credentials("peer", 0), fingerprints: vec![fingerprint], role };
        self.promised.insert(id, !wrong);
        self.handle(ToHandshake::SetRemote { transport: TransportId(id), remote });
    }

    fn client(&mut self, id: u64, which: u8) {
        let now = self.instant();
        let (config, certificate) = (CONFIG.clone(), CERTIFICATE.clone());
        let mut dtls = match which % 3 {
            0 => Dtls::new_12(config, certificate, now),
            1 => Dtls::new_13(config, certificate, now),
            _ => Dtls::new_auto(config, certificate, now),
        };
        dtls.set_active(which & 4 == 0);
        let failed = dtls.handle_timeout(now).is_err();
        let mut client = Client { dtls, to_us: Vec::new(), to_them: Vec::new(), failed };
        client.drain();
        self.clients.insert(id, client);
    }

    /// What is on the way arrives, in both directions.
    fn exchange(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.deliver();
        for datagram in std::mem::take(&mut client.to_us) {
            if let Ok(bytes) = Datagram::try_from(&datagram[..]) {
                self.handle(ToHandshake::Datagram { transport: TransportId(id), bytes });
            }
        }
        self.settle();
    }

    fn exchange_bent(&mut self, id: u64, at: u16, by: u8) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        for datagram in &mut client.to_us {
            let at = usize::from(at) % datagram.len().max(1);
            datagram[at] ^= by;
            if by >= 0xf0 {
                datagram.truncate(at);
            }
        }
        if by.is_multiple_of(3) {
            client.to_us.reverse();
        }
        self.exchange(id);
    }

    fn lose(&mut self, id: u64) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.to_us.clear();
            client.to_them.clear();
        }
    }

    /// Application data: taken for SCTP, whose checksum is put right so that what is inside is looked at.
    fn client_says(&mut self, id: u64, input: &mut Input<'_>) {
        let mut data = input.chunk().to_vec();
        data.truncate(1100);
        if let Some(sum) = data.get_mut(8..12) {
            sum.fill(0);
            let sum = crc32c(&data).to_le_bytes();
            data[8..12].copy_from_slice(&sum);
        }
        let now = self.instant();
        let Some(client) = self.clients.get_mut(&id).filter(|client| !client.failed) else { return };
        let _ = client.dtls.handle_timeout(now);
        let _ = client.dtls.send_application_data(&data);
        client.drain();
        self.exchange(id);
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        for round in 0.. {
            let Some(deadline) = self.handshaker.next_deadline().filter(|&deadline| deadline <= until) else { break };
            assert!(round < 4096, "nothing comes of the deadline {deadline:?}");
            self.now = self.now.max(deadline);
            self.handshaker.handle_timeout(self.now, &mut self.out);
            self.settle();
        }
        self.now = until;
        self.handshaker.handle_timeout(self.now, &mut self.out);
        let now = self.instant();
        for client in self.clients.values_mut().filter(|client| !client.failed) {
            client.failed = client.dtls.handle_timeout(now).is_err();
            client.drain();
        }
    }

    fn handle(&mut self, item: ToHandshake) {
        self.handshaker.handle(item, self.now, &mut self.out);
    }

    /// What came out: on its way, and as it may be.
    fn settle(&mut self) {
        for item in std::mem::take(&mut self.out) {
            match item {
                FromHandshake::Datagram { transport, bytes, .. } => {
                    assert!(self.opened.contains(&transport.0) && !bytes.is_empty());
                    if let Some(client) = self.clients.get_mut(&transport.0) {
                        client.to_them.push(bytes.to_vec());
                    }
                }
                FromHandshake::Keys { transport, keys, .. } => {
                    assert_eq!(self.promised.get(&transport.0), Some(&true), "keys with a peer nobody vouched for");
                    assert_eq!(keys.material.len(), keys.profile.keying_material_len());
                    assert!(self.keys.insert(transport.0), "keys twice");
                }
                FromHandshake::Closed { transport, .. } => self.forget(transport.0),
                FromHandshake::Event(event) => match event {
                    Event::ApiOpen { transport } => assert!(self.keys.contains(&transport.0)),
                    Event::ApiMessage { transport, text } => {
                        assert!(self.keys.contains(&transport.0) && text.len() <= CHANNEL_MESSAGE_SIZE_MAX);
                    }
                    other => panic!("not the handshaker's to say: {other:?}"),
                },
            }
        }
    }

    /// It is closed: nothing more goes to it.
    fn forget(&mut self, id: u64) {
        self.opened.remove(&id);
        self.keys.remove(&id);
        self.promised.remove(&id);
    }

    /// Handshakes end by themselves.
    fn finish(&mut self) {
        self.wait(Duration::from_secs(20));
        let stats = self.handshaker.stats();
        for id in 0..u64::from(TRANSPORTS) {
            self.handle(ToHandshake::Close { transport: TransportId(id) });
        }
        self.settle();
        assert!(stats.secured + stats.failed + stats.mismatched + stats.early + stats.junk + stats.refused < 100_000);
        assert_eq!(self.handshaker.next_deadline(), None, "nothing is left of closed transports");
    }

    fn instant(&self) -> Instant {
        self.base + Duration::from_nanos(self.now.0)
    }
}

impl Client {
    fn deliver(&mut self) {
        for datagram in std::mem::take(&mut self.to_them) {
            self.failed |= self.dtls.handle_packet(&datagram).is_err();
            self.drain();
        }
    }

    fn drain(&mut self) {
        let mut buffer = vec![0; 64 * 1024];
        for _ in 0..512 {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(bytes) => self.to_us.push(bytes.to_vec()),
                Output::Timeout(_) => return,
                _ => {}
            }
        }
    }
}

fn fingerprint_of_clients() -> Fingerprint {
    static VALUE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &CERTIFICATE.certificate);
        digest.as_ref().to_vec()
    });
    Fingerprint { hash: FingerprintHash::Sha256, value: VALUE.clone() }
}

/// CRC-32C, as SCTP has it (RFC 9260 §6.8).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, &byte: &u8| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    };
    !bytes.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scene in which nothing happens would keep every promise.
    #[test]
    fn handshakes_are_done_with_clients_of_either_version_and_with_servers() {
        let all_at_once = |version: u8| play(&[version << 7 | 0x0f]);
        assert_eq!([all_at_once(0), all_at_once(1)], [1, 1]);
        let we_begin = [0x10, 0x11, 0x04, 0x14, 0x06, 0x12, 0x15, 0x15, 0x15, 0x15, 0x15, 0x15];
        assert_eq!(play(&we_begin), 1);
    }
}
