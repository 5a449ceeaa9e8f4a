//! A handshaker and its peers on a simulated network: virtual time, seeded loss, delay and reordering.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dimpl::{Config, Dtls, DtlsCertificate, Output};
use ringmain_shared::event::{CloseReason, Event};
use ringmain_shared::id::{PeerId, RoomId, TransportId, WorkerIndex};
use ringmain_shared::now::Now;
use ringmain_shared::transport::{
    ChannelSpec, DtlsRole, Fingerprint, FingerprintHash, IceCredentials, RemotePeer, Side, TransportSpec,
};
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Payload,
    PayloadProtocolIdentifier as Ppid, ReliabilityType, ServerConfig, StreamEvent,
};

use crate::handshake::dtls::{Datagram, Engine, Engines, Produced};
use crate::handshake::{
    FromHandshake, HandshakeConfig, Handshaker, Identity, Limit, Message, Reliability, SrtpKeys, ToHandshake, dcep_ack,
    dcep_open, dcep_parse,
};

/// When it arrives, a number that breaks ties, whether it is for us, whose it is, and the datagram.
type Carried = (Now, u64, bool, TransportId, Vec<u8>);

/// How a simulated peer speaks DTLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// dimpl, both versions offered or accepted.
    DimplAuto,
    /// dimpl, DTLS 1.2 only.
    Dimpl12,
    /// dimpl, DTLS 1.3 only.
    Dimpl13,
    /// OpenSSL, DTLS 1.2.
    Openssl,
}

pub(super) enum PeerDtls {
    Dimpl(Box<Dtls>),
    Engine(Box<Engine>),
}

pub(super) struct Peer {
    pub(super) dtls: PeerDtls,
    pub(super) connected: bool,
    pub(super) closed: bool,
    pub(super) failed: bool,
    pub(super) profile: Option<String>,
    pub(super) material: Vec<u8>,
    pub(super) association: Option<Association>,
    pub(super) up: bool,
    pub(super) inbox: Vec<(String, Ppid, Vec<u8>)>,
    pub(super) channels: BTreeMap<u16, (String, Reliability)>,
    pub(super) resets: Vec<u16>,
    endpoint: Option<(Endpoint, AssociationHandle)>,
    with_sctp: bool,
    deadline: Option<Instant>,
}

pub(super) struct World {
    pub(super) handshaker: Handshaker,
    pub(super) peers: BTreeMap<TransportId, Peer>,
    pub(super) now: Now,
    pub(super) loss_percent: u64,
    pub(super) deaf: BTreeSet<TransportId>,
    pub(super) keys: BTreeMap<TransportId, SrtpKeys>,
    pub(super) closed: BTreeMap<TransportId, CloseReason>,
    pub(super) events: Vec<Event>,
    pub(super) largest: usize,
    /// What the next peer speaks, when it is none of the dialects.
    pub(super) next_dtls: Option<PeerDtls>,
    /// Wait for the wall clock too: OpenSSL numbers a retransmission anew only by that.
    pub(super) real_time: bool,
    /// Plaintext alerts that we sent.
    pub(super) alerts: usize,
    wire: BinaryHeap<Reverse<Carried>>,
    base: Instant,
    sent: u64,
    random: u64,
}

pub(super) fn sha(hash: FingerprintHash, certificate: &[u8]) -> Fingerprint {
    use aws_lc_rs::digest;
    let algorithm = match hash {
        FingerprintHash::Sha256 => &digest::SHA256,
        FingerprintHash::Sha384 => &digest::SHA384,
        FingerprintHash::Sha512 => &digest::SHA512,
    };
    Fingerprint { hash, value: digest::digest(algorithm, certificate).as_ref().to_vec() }
}

fn ice() -> IceCredentials {
    IceCredentials { ufrag: "ufrag".into(), pwd: "a password of some length".into() }
}

pub(super) fn spec(id: u64, peer: u64, side: Side, with_channels: bool) -> TransportSpec {
    TransportSpec {
        id: TransportId(id),
        peer: PeerId(peer),
        room: RoomId(1),
        side,
        local: ice(),
        remote: None,
        channels: with_channels
            .then(|| ChannelSpec { api_label: Some("ion-sfu".into()), fan_out: side == Side::Subscriber }),
    }
}

impl World {
    pub(super) fn new(seed: u64, loss_percent: u64) -> Self {
        let config = HandshakeConfig { identity: Identity::generate().unwrap() };
        Self {
            handshaker: Handshaker::new(config, seed).unwrap(),
            peers: BTreeMap::new(),
            now: Now(0),
            loss_percent,
            deaf: BTreeSet::new(),
            keys: BTreeMap::new(),
            closed: BTreeMap::new(),
            events: Vec::new(),
            largest: 0,
            alerts: 0,
            next_dtls: None,
            real_time: false,
            wire: BinaryHeap::new(),
            base: Instant::now(),
            sent: 0,
            random: seed,
        }
    }

    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn instant(&self) -> Instant {
        self.base + Duration::from_nanos(self.now.0)
    }

    pub(super) fn input(&mut self, input: ToHandshake) {
        let mut out = Vec::new();
        self.handshaker.handle(input, self.now, &mut out);
        self.take(out);
    }

    /// Opens a transport and a peer for it that brings `identity` and is known by `fingerprints`. `role` is ours.
    pub(super) fn join(
        &mut self,
        spec: TransportSpec,
        dialect: Dialect,
        role: DtlsRole,
        identity: &Identity,
        fingerprints: Vec<Fingerprint>,
    ) {
        let id = spec.id;
        self.open_unknown(spec.clone());
        self.set_remote(id, fingerprints, role);
        self.input(ToHandshake::Validated { transport: id });
        self.add_peer(spec, dialect, role, identity);
    }

    /// Opens a transport about whose peer nothing is known.
    pub(super) fn open_unknown(&mut self, spec: TransportSpec) {
        self.input(ToHandshake::Open { worker: WorkerIndex(3), spec: Box::new(spec) });
    }

    /// Tells who the peer of a transport is. `role` is ours.
    pub(super) fn set_remote(&mut self, transport: TransportId, fingerprints: Vec<Fingerprint>, role: DtlsRole) {
        self.input(ToHandshake::SetRemote { transport, remote: RemotePeer { ice: ice(), fingerprints, role } });
    }

    /// The peer of a transport begins. `role` is ours.
    pub(super) fn add_peer(&mut self, spec: TransportSpec, dialect: Dialect, role: DtlsRole, identity: &Identity) {
        let id = spec.id;
        let with_sctp = spec.channels.is_some();
        let dtls = self.next_dtls.take().unwrap_or_else(|| self.peer_dtls(dialect, role, identity));
        self.peers.insert(
            id,
            Peer {
                dtls,
                connected: false,
                closed: false,
                failed: false,
                profile: None,
                material: Vec::new(),
                association: None,
                up: false,
                inbox: Vec::new(),
                channels: BTreeMap::new(),
                resets: Vec::new(),
                endpoint: None,
                with_sctp,
                deadline: None,
            },
        );
        let instant = self.instant();
        self.peer_step(id, |peer, out| match &mut peer.dtls {
            PeerDtls::Dimpl(dtls) => drop(dtls.handle_timeout(instant)),
            PeerDtls::Engine(engine) => engine.begin(instant, out).unwrap(),
        });
    }

    /// Opens a transport with an ordinary peer.
    pub(super) fn join_plainly(&mut self, spec: TransportSpec, dialect: Dialect, role: DtlsRole) {
        let identity = Identity::generate().unwrap();
        let fingerprint = identity.fingerprint();
        self.join(spec, dialect, role, &identity, vec![fingerprint]);
    }

    fn peer_dtls(&self, dialect: Dialect, role: DtlsRole, identity: &Identity) -> PeerDtls {
        let peer_is_client = role == DtlsRole::Server;
        if dialect == Dialect::Openssl {
            let engines = Engines::new(identity).unwrap();
            let engine = if peer_is_client { engines.client() } else { engines.dtls12_server() };
            return PeerDtls::Engine(Box::new(engine.unwrap()));
        }
        let config = Config::builder()
            .use_server_cookie(false)
            .flight_start_rto(Duration::from_millis(100))
            .flight_retries(20)
            .build()
            .map(Arc::new)
            .unwrap();
        let certificate = DtlsCertificate {
            certificate: identity.certificate().to_vec(),
            private_key: identity.private_key().to_vec(),
        };
        let mut dtls = match dialect {
            Dialect::Dimpl12 => Dtls::new_12(config, certificate, self.instant()),
            Dialect::Dimpl13 => Dtls::new_13(config, certificate, self.instant()),
            _ => Dtls::new_auto(config, certificate, self.instant()),
        };
        dtls.set_active(peer_is_client);
        PeerDtls::Dimpl(Box::new(dtls))
    }

    /// Puts a datagram on the wire; it arrives 5–25 ms later, if it does.
    pub(super) fn carry(&mut self, to_us: bool, id: TransportId, bytes: Vec<u8>) {
        if self.deaf.contains(&id) || self.random() % 100 < self.loss_percent {
            return;
        }
        let at = self.now + Duration::from_micros(5_000 + self.random() % 20_000);
        self.sent += 1;
        self.wire.push(Reverse((at, self.sent, to_us, id, bytes)));
    }

    fn take(&mut self, out: Vec<FromHandshake>) {
        for item in out {
            match item {
                FromHandshake::Datagram { worker, transport, bytes } => {
                    assert_eq!(worker, WorkerIndex(3));
                    self.largest = self.largest.max(bytes.len());
                    self.alerts += usize::from(bytes[0] == 21 && bytes[3..5] == [0, 0]);
                    self.carry(false, transport, bytes.to_vec());
                }
                FromHandshake::Keys { transport, keys, .. } => {
                    assert!(self.keys.insert(transport, keys).is_none(), "keys twice");
                }
                FromHandshake::Closed { transport, reason, .. } => {
                    assert!(self.closed.insert(transport, reason).is_none(), "closed twice");
                }
                FromHandshake::Event(event) => self.events.push(event),
            }
        }
    }

    /// Runs until `done` or for `millis`; says whether it was done.
    pub(super) fn run(&mut self, millis: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + Duration::from_millis(millis);
        while !done(self) {
            let base = self.base;
            let peers = self
                .peers
                .values()
                .filter_map(Peer::deadline)
                .map(|at| Now(at.saturating_duration_since(base).as_nanos().try_into().unwrap_or(u64::MAX)));
            let wire = self.wire.peek().map(|Reverse(carried)| carried.0);
            let next = peers.chain(wire).chain(self.handshaker.next_deadline()).min().unwrap_or(end);
            if next >= end {
                self.now = end;
                return done(self);
            }
            // A peer whose timer stays due shall not stop time.
            self.now = next.max(self.now + Duration::from_micros(100));
            if self.real_time {
                std::thread::sleep(self.instant().saturating_duration_since(Instant::now()));
            }
            self.step();
        }
        true
    }

    fn step(&mut self) {
        while self.wire.peek().is_some_and(|Reverse(carried)| carried.0 <= self.now) {
            let Some(Reverse((_, _, to_us, id, bytes))) = self.wire.pop() else { break };
            if to_us {
                let bytes = Datagram::try_from(bytes.as_slice()).unwrap();
                self.input(ToHandshake::Datagram { transport: id, bytes });
            } else {
                let instant = self.instant();
                self.peer_step(id, |peer, out| peer.receive(&bytes, instant, out));
            }
        }
        if self.handshaker.next_deadline().is_some_and(|at| at <= self.now) {
            let mut out = Vec::new();
            self.handshaker.handle_timeout(self.now, &mut out);
            self.take(out);
            assert!(self.handshaker.next_deadline().is_none_or(|at| at > self.now), "a deadline that stays due");
        }
        let instant = self.instant();
        let due: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.deadline().is_some_and(|at| at <= instant))
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            self.peer_step(id, |peer, out| peer.expire(instant, out));
        }
    }

    /// Does something to a peer and carries what it sends.
    pub(super) fn peer_step(&mut self, id: TransportId, act: impl FnOnce(&mut Peer, &mut Vec<Produced>)) {
        let instant = self.instant();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut out = Vec::new();
        act(peer, &mut out);
        peer.drain(out, instant).into_iter().for_each(|bytes| self.carry(true, id, bytes));
    }

    /// A channel opened by a peer.
    pub(super) fn open(&mut self, id: u64, stream: u16, label: &str, reliability: Reliability) {
        self.peer_step(TransportId(id), |peer, _| {
            peer.channels.insert(stream, (label.to_owned(), reliability));
            let association = peer.association.as_mut().unwrap();
            let mut handle = association.open_stream(stream, Ppid::Binary).unwrap();
            handle.write_sctp(&dcep_open(label, reliability).into(), Ppid::Dcep).unwrap();
        });
    }

    /// A message of a peer on its channel with that label.
    pub(super) fn say(&mut self, id: u64, label: &str, ppid: Ppid, message: &[u8]) {
        self.peer_step(TransportId(id), |peer, _| {
            let stream = *peer.channels.iter().find(|(_, (known, _))| known == label).expect("an open channel").0;
            let mut stream = peer.association.as_mut().unwrap().stream(stream).unwrap();
            stream.write_sctp(&Bytes::copy_from_slice(message), ppid).unwrap();
        });
    }

    pub(super) fn peer(&self, id: u64) -> &Peer {
        &self.peers[&TransportId(id)]
    }
}

impl Peer {
    pub(super) fn has(&self, label: &str) -> bool {
        self.channels.values().any(|(known, _)| known == label)
    }

    fn deadline(&self) -> Option<Instant> {
        let dtls = match &self.dtls {
            PeerDtls::Dimpl(_) => self.deadline,
            PeerDtls::Engine(engine) => engine.deadline(),
        };
        let sctp = self.association.as_ref().and_then(|association| association.poll_timeout());
        [dtls, sctp].into_iter().flatten().min().filter(|_| !self.failed && !self.closed)
    }

    fn receive(&mut self, bytes: &[u8], now: Instant, out: &mut Vec<Produced>) {
        let result = match &mut self.dtls {
            PeerDtls::Dimpl(dtls) => dtls.handle_timeout(now).and_then(|()| dtls.handle_packet(bytes)).map_err(|_| ()),
            PeerDtls::Engine(engine) => engine.handle_datagram(bytes, now, out).map_err(|_| ()),
        };
        self.failed |= result.is_err();
    }

    fn expire(&mut self, now: Instant, out: &mut Vec<Produced>) {
        let result = match &mut self.dtls {
            PeerDtls::Dimpl(dtls) => dtls.handle_timeout(now).map_err(|_| ()),
            PeerDtls::Engine(engine) => engine.handle_timeout(now, out).map_err(|_| ()),
        };
        self.failed |= result.is_err();
        if let Some(association) = &mut self.association {
            association.handle_timeout(now);
        }
    }

    /// Raw application data, as one record.
    pub(super) fn send_raw(&mut self, data: &[u8], out: &mut Vec<Produced>) {
        match &mut self.dtls {
            PeerDtls::Dimpl(dtls) => drop(dtls.send_application_data(data)),
            PeerDtls::Engine(engine) => engine.send(data, Instant::now(), out).unwrap(),
        }
    }

    fn drain(&mut self, mut produced: Vec<Produced>, now: Instant) -> Vec<Vec<u8>> {
        let (mut datagrams, mut data) = (Vec::new(), Vec::new());
        for round in 0.. {
            self.drain_dtls(&mut produced, &mut datagrams, &mut data);
            for packet in data.drain(..) {
                self.handle_sctp(packet, now);
            }
            if self.connected && self.with_sctp && self.association.is_none() && !self.closed {
                self.start_sctp();
            }
            let mut quiet = true;
            self.poll_sctp();
            while let Some(transmit) = self.association.as_mut().and_then(|association| association.poll_transmit(now))
            {
                if let Payload::RawEncode(packets) = transmit.payload {
                    packets.iter().for_each(|packet| self.send_raw(packet, &mut produced));
                    quiet = false;
                }
            }
            if quiet && round > 0 {
                break;
            }
        }
        datagrams
    }

    fn drain_dtls(&mut self, produced: &mut Vec<Produced>, datagrams: &mut Vec<Vec<u8>>, data: &mut Vec<Bytes>) {
        for item in produced.drain(..) {
            match item {
                Produced::Datagram(bytes) => datagrams.push(bytes.to_vec()),
                Produced::Data(bytes) => data.push(bytes),
                Produced::CloseNotify => self.closed = true,
                Produced::Connected(proof) => {
                    self.connected = true;
                    let keys = proof.keys.expect("a profile");
                    self.material = keys.material.to_vec();
                    self.profile = Some(format!("{:?}", keys.profile));
                }
            }
        }
        let PeerDtls::Dimpl(dtls) = &mut self.dtls else { return };
        let mut buffer = vec![0; 4096];
        loop {
            match dtls.poll_output(&mut buffer) {
                Output::Packet(bytes) => datagrams.push(bytes.to_vec()),
                Output::Timeout(at) => {
                    self.deadline = Some(at);
                    break;
                }
                Output::Connected => self.connected = true,
                Output::KeyingMaterial(material, profile) => {
                    self.material = material.to_vec();
                    self.profile = Some(profile.to_string());
                }
                Output::ApplicationData(bytes) => data.push(Bytes::copy_from_slice(bytes)),
                Output::CloseNotify => self.closed = true,
                _ => {}
            }
        }
    }

    fn start_sctp(&mut self) {
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::new()), Some(Arc::new(ServerConfig::new())));
        let (handle, association) = endpoint.connect(ClientConfig::new(), "127.0.0.1:5000".parse().unwrap()).unwrap();
        self.endpoint = Some((endpoint, handle));
        self.association = Some(association);
    }

    fn handle_sctp(&mut self, packet: Bytes, now: Instant) {
        let (Some((endpoint, handle)), Some(association)) = (&mut self.endpoint, &mut self.association) else { return };
        match endpoint.handle(now, "127.0.0.1:5000".parse().unwrap(), None, None, packet) {
            Some((to, DatagramEvent::AssociationEvent(event))) if to == *handle => association.handle_event(event),
            _ => {}
        }
    }

    fn poll_sctp(&mut self) {
        let Some(association) = &mut self.association else { return };
        let mut read = Vec::new();
        while let Some(event) = association.poll() {
            match event {
                sctp_proto::Event::Connected => {
                    self.up = true;
                    read.extend(association.stream_ids());
                }
                sctp_proto::Event::Stream(StreamEvent::Opened { id } | StreamEvent::Readable { id }) => read.push(id),
                sctp_proto::Event::Stream(StreamEvent::Finished { id }) => {
                    self.resets.push(id);
                    self.channels.remove(&id);
                }
                _ => {}
            }
        }
        for id in read {
            if !self.up {
                continue; // read when the association is established
            }
            while let Ok(Some(chunks)) = association.stream(id).and_then(|mut stream| stream.read()) {
                let mut bytes = vec![0; chunks.len()];
                chunks.read(&mut bytes).unwrap();
                if chunks.ppi != Ppid::Dcep {
                    let label = self.channels.get(&id).map_or("?", |(label, _)| label).to_owned();
                    self.inbox.push((label, chunks.ppi, bytes));
                    continue;
                }
                let mut stream = association.stream(id).unwrap();
                let reliability = match dcep_parse(&bytes) {
                    Some(Message::Open(open)) => {
                        stream.write_sctp(&Bytes::copy_from_slice(&dcep_ack()), Ppid::Dcep).unwrap();
                        self.channels.insert(id, (open.label, open.reliability));
                        open.reliability
                    }
                    _ => self.channels[&id].1,
                };
                let (kind, value) = match reliability.limit {
                    Limit::Reliable => (ReliabilityType::Reliable, 0),
                    Limit::Retransmits(count) => (ReliabilityType::Rexmit, count),
                    Limit::LifetimeMs(ms) => (ReliabilityType::Timed, ms),
                };
                stream.set_reliability_params(!reliability.ordered, kind, value).unwrap();
            }
        }
    }
}
