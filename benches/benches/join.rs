//! A peer joins: ICE, DTLS and the first SRTP keys, without a kernel. How many a core can take, by the server's CPU time; the client is
//! dimpl and is not counted. An application of the ion dialect opens two connections for each peer, so a join is two handshakes.
//!
//! The floor is what both versions cannot do without: a key agreement, a signature, and the check of the client's.

#![allow(missing_docs)]

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use dimpl::{Config, Dtls, DtlsCertificate, Output};
use ringmain_benches::counting::heap_in_use;
use ringmain_benches::measure::{Args, cpu_of, take_turns};
use ringmain_benches::report::{Report, Row};
use ringmain_benches::{address, answer, check, open_as, transport, worker};
use ringmain_dataplane::handshake::{FromHandshake, HandshakeConfig, Handshaker, Identity, ToHandshake, dcep_ack};
use ringmain_dataplane::io::Link;
use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::worker::Worker;
use ringmain_shared::Now;
use ringmain_shared::id::WorkerIndex;
use ringmain_shared::transport::{ChannelSpec, Fingerprint, FingerprintHash, Side};
use sctp_proto::{
    ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload, PayloadProtocolIdentifier as Ppid,
    ServerConfig, StreamEvent,
};

/// Handshakes of one join.
const CONNECTIONS: f64 = 2.0;
const VERSIONS: [(&str, bool); 2] = [("DTLS 1.3", true), ("DTLS 1.2", false)];

fn main() {
    let args = Args::read();
    let mut report = Report::new("join", &args);
    let client = Client::new();
    let count = args.pick(1, 10, 20);
    let mut contenders = vec![Contender::Floor(Box::new(floor()))];
    contenders.extend(VERSIONS.map(|(_, dtls13)| Contender::Server { server: Box::new(Server::new()), dtls13 }));
    let results = take_turns(&mut contenders, args.pick(1, 5, 30), |contender| {
        let spent: Duration = (0..count)
            .map(|_| match contender {
                Contender::Floor(work) => cpu_of(work),
                Contender::Server { server, dtls13 } => server.join(&client, *dtls13, false),
            })
            .sum();
        spent.as_nanos() as f64 / f64::from(count)
    });
    for ((name, _), result) in VERSIONS.iter().zip(&results[1..]) {
        let micros = result.median() / 1000.0;
        let row = Row::new(format!("handshake, ICE + {name} + SRTP"), micros, "µs");
        report.row(row.beside_by("its public-key operations", results[0].median() / 1000.0, result.ratio(&results[0])));
        let joins = 1e6 / micros / CONNECTIONS;
        report.row(Row::new(format!("joins of two connections, {name}"), joins, "/s").at_least(400.0));
    }
    for (name, dtls13) in VERSIONS {
        for (what, channels, most) in [("", false, 24.0), (" with a data channel", true, 64.0)] {
            let (mut server, count) = (Server::new(), args.pick(2, 50, 200));
            // Tables grow in steps; the first ones are not of the transports.
            for _ in 0..count {
                server.join(&client, dtls13, channels);
            }
            server.rest();
            let before = heap_in_use();
            for _ in 0..count {
                server.join(&client, dtls13, channels);
            }
            server.rest();
            let size = (heap_in_use() - before) as f64 / f64::from(count) / 1024.0;
            report
                .row(Row::new(format!("memory of one connection{what}, worker and {name}"), size, "KiB").at_most(most));
        }
    }
    report.finish();
}

enum Contender {
    Floor(Box<dyn Fn()>),
    Server { server: Box<Server>, dtls13: bool },
}

/// The server's public-key operations of one handshake.
fn floor() -> impl Fn() {
    let random = SystemRandom::new();
    let theirs = EphemeralPrivateKey::generate(&X25519, &random).expect("keys");
    let theirs = theirs.compute_public_key().expect("a public key");
    let signer = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("keys");
    let public = signer.public_key().as_ref().to_vec();
    let signature = signer.sign(&random, b"what was said").expect("signs").as_ref().to_vec();
    move || {
        let ours = EphemeralPrivateKey::generate(&X25519, &random).expect("keys");
        let peer = UnparsedPublicKey::new(&X25519, theirs.as_ref());
        agree_ephemeral(ours, peer, (), |_| Ok(())).expect("agrees");
        signer.sign(&random, b"what was said").expect("signs");
        let public = aws_lc_rs::signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &public);
        public.verify(b"what was said", &signature).expect("is right");
    }
}

/// What all clients bring: a certificate. Each makes its own, but that is not the server's time.
struct Client {
    config: Arc<Config>,
    certificate: DtlsCertificate,
    fingerprint: Fingerprint,
}

impl Client {
    fn new() -> Self {
        let certificate = dimpl::certificate::generate_self_signed_certificate().expect("a certificate");
        let fingerprint = Fingerprint { hash: FingerprintHash::Sha256, value: certificate.fingerprint() };
        Self { config: Arc::new(Config::builder().build().expect("sound")), certificate, fingerprint }
    }
}

/// A worker and a handshake thread's core, joined as their threads would be.
struct Server {
    worker: Worker,
    handshaker: Handshaker,
    link: MemoryLink,
    now: Now,
    start: Instant,
    joined: u64,
    secured: bool,
}

impl Server {
    fn new() -> Self {
        let config = HandshakeConfig { identity: Identity::generate().expect("a certificate") };
        let (handshaker, start) = (Handshaker::new(config, 7).expect("DTLS"), Instant::now());
        let (worker, link, now) = (worker(), MemoryLink::new(), Now::from_millis(1_000));
        Self { worker, handshaker, link, now, start, joined: 0, secured: false }
    }

    /// One client connects. The server's CPU time.
    fn join(&mut self, client: &Client, dtls13: bool, channels: bool) -> Duration {
        self.joined += 1;
        self.secured = false;
        let peer = self.joined;
        self.now = self.now + Duration::from_micros(10);
        let side = if channels { Side::Subscriber } else { Side::Publisher };
        let mut spec = transport(peer, side, client.fingerprint.clone());
        let api = ChannelSpec { api_label: Some("ion-sfu".into()), fan_out: false };
        spec.channels = channels.then_some(api);
        let mut spent = cpu_of(|| {
            open_as(&mut self.worker, spec.clone(), self.now);
            self.tell(ToHandshake::Open { worker: WorkerIndex(0), spec: Box::new(spec) });
        });
        let instant = self.start + Duration::from_nanos(self.now.0);
        let (config, certificate) = (client.config.clone(), client.certificate.clone());
        let mut dtls = if dtls13 {
            Dtls::new_13(config, certificate, instant)
        } else {
            Dtls::new_12(config, certificate, instant)
        };
        dtls.set_active(true);
        self.link.push(address(peer), &check(peer));
        let (mut begun, mut connected) = (false, false);
        let mut association = channels.then(Association::new);
        for _ in 0..ROUNDS_MAX {
            spent += cpu_of(|| self.step());
            for (path, bytes) in self.link.take() {
                match answer(peer, &bytes) {
                    Some(answer) => self.link.push(path, &answer),
                    None if bytes.first().is_some_and(|&first| first >= 20) => {
                        dtls.handle_packet(&bytes).expect("sound")
                    }
                    None => {}
                }
            }
            if !std::mem::replace(&mut begun, true) {
                dtls.handle_timeout(instant).expect("begins");
            }
            let mut buffer = [0; 2048];
            loop {
                match dtls.poll_output(&mut buffer) {
                    Output::Packet(bytes) => self.link.push(address(peer), bytes),
                    Output::Connected => connected = true,
                    Output::ApplicationData(bytes) => {
                        association.as_mut().expect("it was asked for").receive(bytes, instant);
                    }
                    Output::Timeout(_) => {
                        let association = association.as_mut().filter(|_| connected);
                        if !association.is_some_and(|association| association.flush(&mut dtls, instant)) {
                            break;
                        }
                    }
                    _ => {}
                }
            }
            if connected && self.secured && association.as_ref().is_none_or(|association| association.has_channel) {
                return spent;
            }
        }
        panic!("the handshake did not come to its end");
    }

    /// A minute goes by, in which what is kept for repetitions is let go.
    fn rest(&mut self) {
        self.now = self.now + Duration::from_secs(60);
        let mut answers = Vec::new();
        self.handshaker.handle_timeout(self.now, &mut answers);
    }

    /// A turn of the worker, and what its handshake thread makes of it.
    fn step(&mut self) {
        self.link.receive(None).expect("works");
        let (rx, out) = self.link.parts();
        self.worker.turn(self.now, rx, out);
        out.flush();
        self.worker.outbox().events.clear();
        let items: Vec<_> = self.worker.outbox().handshakes.drain(..).collect();
        items.into_iter().for_each(|(_, item)| self.tell(item));
    }

    fn tell(&mut self, item: ToHandshake) {
        let mut answers = Vec::new();
        self.handshaker.handle(item, self.now, &mut answers);
        let (_, out) = self.link.parts();
        for item in answers {
            self.secured |= matches!(item, FromHandshake::Keys { .. });
            self.worker.handle_handshake(item, self.now, out);
        }
        out.flush();
    }
}

/// The client's end of the data channels.
struct Association {
    endpoint: Endpoint,
    association: sctp_proto::Association,
    has_channel: bool,
}

impl Association {
    fn new() -> Self {
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::new()), Some(Arc::new(ServerConfig::new())));
        let (_, association) = endpoint.connect(ClientConfig::new(), SERVER).expect("an association");
        Self { endpoint, association, has_channel: false }
    }

    fn receive(&mut self, packet: &[u8], now: Instant) {
        let packet = bytes::Bytes::copy_from_slice(packet);
        if let Some((_, DatagramEvent::AssociationEvent(event))) = self.endpoint.handle(now, SERVER, None, None, packet)
        {
            self.association.handle_event(event);
        }
    }

    /// Hands everything to DTLS that is to be sent; whether there was anything. The channel that the server opens is confirmed.
    fn flush(&mut self, dtls: &mut Dtls, now: Instant) -> bool {
        while let Some(event) = self.association.poll() {
            let Event::Stream(StreamEvent::Readable { id }) = event else { continue };
            let mut stream = self.association.stream(id).expect("it says so");
            while let Ok(Some(_)) = stream.read() {}
            stream.write_sctp(&dcep_ack().to_vec().into(), Ppid::Dcep).expect("open");
            self.has_channel = true;
        }
        let mut sent = false;
        while let Some(transmit) = self.association.poll_transmit(now) {
            let Payload::RawEncode(packets) = transmit.payload else { continue };
            for packet in packets {
                dtls.send_application_data(&packet).expect("connected");
                sent = true;
            }
        }
        sent
    }
}

const SERVER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000));

/// Turns that a handshake may take.
const ROUNDS_MAX: usize = 50;
