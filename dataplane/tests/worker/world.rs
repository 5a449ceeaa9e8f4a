//! Workers on memory links, in virtual time, with peers around them that are made of other libraries where there are any:
//! `webrtc-srtp` opens what the workers send, `rtp` and `rtcp` read it.
//!
//! What must hold in every test is checked here with each datagram: no SRTP or SRTCP index goes out twice with other bytes, nothing
//! but a little goes where nobody answered, and no turn leaves a deadline behind that is already over.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmain_dataplane::handshake::{FromHandshake, SrtpKeys};
use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::io::{Link, Path, SocketIndex};
use ringmain_dataplane::packet::demux::{Protocol, classify};
use ringmain_dataplane::packet::stun::{
    BindingRequest, Class, IntegrityKey, Message, Role, TransactionId, write_binding_request, write_binding_success,
};
use ringmain_dataplane::srtp::Profile;
use ringmain_dataplane::stream::{FromStream, StreamId, ToStream};
use ringmain_dataplane::transport::PublisherSettings;
use ringmain_dataplane::turn::Ledger;
use ringmain_dataplane::worker::{FixedSockets, Worker, WorkerCommand, WorkerSettings};
use ringmain_shared::command::{Command, ReceiveSpec};
use ringmain_shared::event::Event;
use ringmain_shared::id::{PeerId, RoomId, TransportId, WorkerIndex};
use ringmain_shared::transport::{
    DtlsRole, Fingerprint, FingerprintHash, IceCredentials, RemotePeer, Side, TransportSpec,
};
use ringmain_shared::{DropReason, Now};
use rtp::packet::Packet;
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;
use webrtc_util::marshal::Unmarshal;

/// What `Now(0)` is on the workers' wall clock, nanoseconds since 1970.
pub const UNIX_NANOS_AT_START: u64 = 1_700_000_000_000_000_000;

/// Workers, their links, and everybody who talks to them.
pub struct World {
    pub workers: Vec<Worker>,
    links: Vec<MemoryLink>,
    pub now: Now,
    pub peers: Vec<Peer>,
    /// Who is at which address.
    owners: HashMap<SocketAddr, usize>,
    pub events: Vec<Event>,
    /// Everything that left the workers, in order: where it went and its bytes; events in words.
    pub log: Vec<(String, Vec<u8>)>,
    traffic: HashMap<SocketAddr, Traffic>,
    /// By peer, SSRC and index: the bytes that used it.
    ledger: HashMap<(usize, u32, u64), Vec<u8>>,
    highest: HashMap<(usize, u32), u64>,
    random: u64,
    /// The last transport-wide number of the publisher; tests that look at it have one publisher.
    pub wide_sequence: u16,
    /// Clients of TURN, by the relayed address that the workers' media side knows them by, and the worker that they come to.
    pub turned: HashMap<SocketAddr, (usize, SocketAddr)>,
    /// Messages that came to clients of TURN, other than data.
    pub turn_replies: Vec<Vec<u8>>,
    /// Where clients of TURN send to.
    turn_socket: SocketIndex,
    /// Addresses that come by ICE-TCP.
    pub over_tcp: HashSet<SocketAddr>,
}

/// What went to and came from one address.
#[derive(Default, Clone, Copy)]
pub struct Traffic {
    pub to_workers: usize,
    pub from_workers: usize,
    answered: bool,
}

/// One peer connection's far end.
pub struct Peer {
    pub worker: usize,
    pub transport: TransportId,
    /// Where it sends media from.
    pub address: SocketAddr,
    /// It answers checks; otherwise it is dead.
    pub answers: bool,
    /// It lives at these addresses but does not answer there.
    pub mute_addresses: Vec<SocketAddr>,
    pub server: IceCredentials,
    pub own: IceCredentials,
    encrypt: Context,
    decrypt: Context,
    /// Media that came, as another library reads it.
    pub rtp: Vec<Heard>,
    /// RTCP that came.
    pub rtcp: Vec<(Now, Box<dyn rtcp::packet::Packet + Send + Sync>)>,
    /// Success responses that came.
    pub responses: usize,
    /// Its last answer to a check.
    pub answer: Vec<u8>,
    /// Every datagram that came: when and to which of its addresses.
    pub datagrams: Vec<(Now, SocketAddr)>,
    /// Of those, the media.
    pub media: Vec<(Now, SocketAddr)>,
}

/// A media packet at a peer.
#[derive(Clone, Debug)]
pub struct Heard {
    pub at: Now,
    pub packet: Packet,
}

impl World {
    pub fn new(workers: usize) -> Self {
        Self::with_seed(workers, 1)
    }

    pub fn with_seed(workers: usize, seed: u8) -> Self {
        Self::with_sockets(workers, seed, FixedSockets { media: 1, turn: 1, turn_on_media: false })
    }

    /// Workers with one socket each, for media and TURN.
    pub fn with_turn_on_media(workers: usize) -> Self {
        let world = Self::with_sockets(workers, 1, FixedSockets { media: 1, turn: 0, turn_on_media: true });
        Self { turn_socket: SocketIndex(0), ..world }
    }

    fn with_sockets(workers: usize, seed: u8, sockets: FixedSockets) -> Self {
        let settings = |index| WorkerSettings {
            index: WorkerIndex(index),
            seed: [seed.wrapping_add(index as u8); 32],
            unix_nanos_at_start: UNIX_NANOS_AT_START,
            publishers: PublisherSettings { rate_bps_max: 0, remb_start_bps: 1_000_000, audio_threshold: 40 },
            audio_interval: Duration::from_secs(1),
            sockets,
        };
        let ledger = Arc::new(Ledger::new([seed; 32]));
        let worker = |index| Worker::new(settings(index), Arc::clone(&ledger));
        Self {
            workers: (0..workers as u16).map(worker).collect(),
            links: (0..workers).map(|_| MemoryLink::new()).collect(),
            now: Now::from_millis(1_000),
            peers: Vec::new(),
            owners: HashMap::new(),
            events: Vec::new(),
            log: Vec::new(),
            traffic: HashMap::new(),
            ledger: HashMap::new(),
            highest: HashMap::new(),
            random: u64::from(seed),
            wide_sequence: 0,
            turned: HashMap::new(),
            turn_replies: Vec::new(),
            turn_socket: SocketIndex(1),
            over_tcp: HashSet::new(),
        }
    }

    /// A peer that is connected and secured on the first worker.
    pub fn join(&mut self, side: Side) -> usize {
        self.join_on(0, side)
    }

    pub fn join_on(&mut self, worker: usize, side: Side) -> usize {
        let peer = self.open(worker, side);
        self.connect(peer);
        self.secure(peer);
        peer
    }

    /// A transport of which nothing has come yet.
    pub fn open(&mut self, worker: usize, side: Side) -> usize {
        let index = self.peers.len();
        let peer = Peer::new(index, worker);
        let spec = TransportSpec {
            id: peer.transport,
            peer: PeerId(index as u64),
            room: RoomId(1),
            side,
            local: peer.server.clone(),
            remote: Some(remote_peer(&peer.own)),
            channels: None,
        };
        self.owners.insert(peer.address, index);
        self.peers.push(peer);
        self.command(worker, Command::OpenTransport { worker: WorkerIndex(worker as u16), spec: Box::new(spec) });
        index
    }

    /// ICE, both ways.
    pub fn connect(&mut self, peer: usize) {
        self.check(peer, self.peers[peer].address, true);
        self.settle();
    }

    /// A message on a connection of TURN's. The connection that the answer goes to, the answer, and until when the connection is held.
    pub fn say_on_stream(&mut self, id: StreamId, message: &[u8]) -> (StreamId, Vec<u8>, Now) {
        self.stream(FromStream::Message { id, bytes: message.to_vec() });
        let (_, out) = self.links[0].parts();
        out.flush();
        let mut answers = Vec::new();
        out.diverted().drain(|path, bytes| answers.push(self.workers[0].to_stream(path, bytes)));
        match answers.pop() {
            Some(ToStream::Message { id, bytes, held_until }) => (id, bytes, held_until),
            other => panic!("{other:?} is no answer"),
        }
    }

    /// Something that the stream thread has for the first worker.
    pub fn stream(&mut self, item: FromStream) {
        let (_, out) = self.links[0].parts();
        self.workers[0].handle_stream(item, self.now, out);
    }

    /// The peer is at another address from now on.
    pub fn move_to(&mut self, peer: usize, address: SocketAddr) {
        self.peers[peer].address = address;
        self.owners.insert(address, peer);
    }

    /// Datagrams that a worker has sent, and in how many sends.
    pub fn sends(&mut self, worker: usize) -> (u64, u64) {
        let counters = self.links[worker].counters();
        (counters.sent, counters.trains)
    }

    /// DTLS is done.
    pub fn secure(&mut self, peer: usize) {
        let (worker, transport) = (self.peers[peer].worker, self.peers[peer].transport);
        let keys =
            SrtpKeys { profile: Profile::AeadAes128Gcm, material: material(peer).into(), role: DtlsRole::Server };
        let item = FromHandshake::Keys { worker: WorkerIndex(worker as u16), transport, keys };
        let (_, out) = self.links[worker].parts();
        self.workers[worker].handle_handshake(item, self.now, out);
        self.settle();
    }

    pub fn command(&mut self, worker: usize, command: Command) {
        self.order(worker, WorkerCommand::Control(command));
    }

    pub fn order(&mut self, worker: usize, command: WorkerCommand) {
        self.workers[worker].handle_command(command, self.now);
    }

    pub fn receive(&mut self, peer: usize, spec: ReceiveSpec) {
        let (worker, transport) = (self.peers[peer].worker, self.peers[peer].transport);
        self.command(worker, Command::Receive { transport, spec });
    }

    /// A Binding request of the peer from one of its addresses.
    pub fn check(&mut self, peer: usize, from: SocketAddr, nominate: bool) {
        let request = self.request(peer, nominate);
        self.owners.insert(from, peer);
        self.push(self.peers[peer].worker, from, &request);
    }

    /// The bytes of a valid Binding request of the peer.
    pub fn request(&mut self, peer: usize, nominate: bool) -> Vec<u8> {
        let mut id = [0; 12];
        id.iter_mut().for_each(|byte| *byte = self.chance() as u8);
        let Peer { server, own, .. } = &self.peers[peer];
        let request = BindingRequest {
            transaction_id: TransactionId(id),
            remote_ufrag: &server.ufrag,
            local_ufrag: &own.ufrag,
            priority: 1,
            role: Role::Controlling(7, nominate),
        };
        let mut bytes = vec![0; 300];
        let len = write_binding_request(&mut bytes, &request, &IntegrityKey::new(server.pwd.as_bytes())).expect("room");
        bytes.truncate(len);
        bytes
    }

    /// A datagram arrives at a worker.
    pub fn push(&mut self, worker: usize, from: SocketAddr, bytes: &[u8]) {
        self.traffic.entry(from).or_default().to_workers += bytes.len();
        match self.turned.get(&from) {
            None if self.over_tcp.contains(&from) => {
                self.stream(FromStream::Datagram { path: tcp_path(from), bytes: bytes.to_vec() });
            }
            None => self.links[worker].push(path(from), bytes),
            Some(&(at, client)) => self.push_turn(at, client, &crate::turn::wrap(bytes)),
        }
    }

    /// A message of a client of TURN arrives at a worker.
    pub fn push_turn(&mut self, worker: usize, client: SocketAddr, bytes: &[u8]) {
        self.links[worker].push(Path { socket: self.turn_socket, remote: client }, bytes);
    }

    /// The peer protects and sends a clear RTP packet.
    pub fn send_rtp(&mut self, peer: usize, clear: &[u8]) {
        let bytes = self.protect_rtp(peer, clear);
        self.push(self.peers[peer].worker, self.peers[peer].address, &bytes);
    }

    pub fn protect_rtp(&mut self, peer: usize, clear: &[u8]) -> Vec<u8> {
        self.peers[peer].encrypt.encrypt_rtp(clear).expect("a sound packet").to_vec()
    }

    /// The peer protects and sends RTCP.
    pub fn send_rtcp(&mut self, peer: usize, packet: &dyn rtcp::packet::Packet) {
        self.send_compound(peer, &[packet]);
    }

    /// The peer protects and sends RTCP packets in one datagram.
    pub fn send_compound(&mut self, peer: usize, packets: &[&dyn rtcp::packet::Packet]) {
        let clear = packets.iter().map(|&packet| packet_bytes(packet)).collect::<Vec<_>>().concat();
        let bytes = self.peers[peer].encrypt.encrypt_rtcp(&clear).expect("a sound packet");
        self.push(self.peers[peer].worker, self.peers[peer].address, &bytes);
    }

    /// Turns until nobody has anything to say at this moment.
    pub fn settle(&mut self) {
        for _ in 0..100 {
            let mut busy = false;
            for worker in 0..self.workers.len() {
                busy |= self.turn(worker);
            }
            if !busy {
                return;
            }
        }
        panic!("the world does not come to rest at {:?}", self.now);
    }

    /// Lets time go by, from deadline to deadline.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.settle();
        while self.now < end {
            let next = self.workers.iter().map(Worker::next_deadline).min().expect("a worker");
            assert!(next > self.now, "a deadline stays behind: {next:?} at {:?}", self.now);
            self.now = next.min(end);
            self.settle();
        }
    }

    pub fn run_ms(&mut self, millis: u64) {
        self.run(Duration::from_millis(millis));
    }

    /// How many packets ended for this reason, on all workers.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.workers.iter().map(|worker| worker.dropped(reason)).sum()
    }

    /// Every drop that was counted, by name.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let all = DropReason::ALL.iter().map(|&reason| (reason, self.dropped(reason)));
        all.filter(|&(_, count)| count > 0).collect()
    }

    /// Trains and datagrams that a worker has sent.
    pub fn trains(&mut self, worker: usize) -> (u64, u64) {
        let counters = self.links[worker].counters();
        (counters.trains, counters.sent)
    }

    /// Bytes to and from an address.
    pub fn traffic(&self, address: SocketAddr) -> Traffic {
        self.traffic.get(&address).copied().unwrap_or_default()
    }

    /// A random number, the same in every run.
    pub fn chance(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 31
    }

    /// One turn of one worker with what follows from it. False when nothing happened.
    pub fn turn(&mut self, worker: usize) -> bool {
        self.links[worker].receive(Some(Duration::ZERO)).expect("works");
        let (rx, out) = self.links[worker].parts();
        let mut busy = !rx.is_empty();
        self.workers[worker].turn(self.now, rx, out);
        out.flush();
        // What goes by ICE-TCP is delivered here; what goes to clients of TURN by connections, or of another worker, is carried on.
        let mut by_tcp = Vec::new();
        out.diverted().drain(|path, bytes| match path.socket.0 >= SocketIndex::TURN_STREAM_FIRST {
            true => self.workers[worker].carry(path, bytes),
            false => by_tcp.push((path, bytes.to_vec())),
        });
        let mut sent = self.links[worker].take();
        sent.extend(by_tcp);
        let outbox = self.workers[worker].outbox();
        let events = std::mem::take(&mut outbox.events);
        let relays = std::mem::take(&mut outbox.relays);
        outbox.handshakes.clear();
        assert!(outbox.sockets.is_empty(), "our own media takes no relay socket");
        outbox.stats_due = false;
        busy |= !sent.is_empty() || !relays.is_empty() || self.workers[worker].next_deadline() <= self.now;
        for event in events {
            self.log.push((format!("{event:?}"), Vec::new()));
            self.events.push(event);
        }
        for (to, item) in relays {
            let to = usize::from(to.0);
            let (_, out) = self.links[to].parts();
            self.workers[to].handle_relay(item, self.now, out);
        }
        for (path, bytes) in sent {
            self.deliver(worker, path, bytes);
        }
        busy
    }

    fn deliver(&mut self, worker: usize, path: Path, bytes: Vec<u8>) {
        if path.socket == self.turn_socket && crate::turn::is_for_client(&bytes) {
            let relayed =
                self.turned.iter().find(|(_, (_, client))| *client == path.remote).map(|(&relayed, _)| relayed);
            match crate::turn::unwrap(&bytes) {
                Some(data) => self.deliver_media(worker, crate::world::path(relayed.expect("allocated")), data),
                None => self.turn_replies.push(bytes),
            }
        } else {
            self.deliver_media(worker, path, bytes);
        }
    }

    fn deliver_media(&mut self, worker: usize, path: Path, bytes: Vec<u8>) {
        self.log.push((format!("{worker} {path:?}"), bytes.clone()));
        let address = path.remote;
        let traffic = self.traffic.entry(address).or_default();
        traffic.from_workers += bytes.len();
        assert!(
            traffic.answered || traffic.from_workers <= 3 * traffic.to_workers,
            "{} bytes to {address}, which sent {} and never answered",
            traffic.from_workers,
            traffic.to_workers
        );
        let index = *self.owners.get(&address).expect("somebody lives there");
        self.peers[index].datagrams.push((self.now, address));
        match classify(&bytes) {
            Some(Protocol::Stun) => self.deliver_stun(worker, index, address, &bytes),
            Some(Protocol::Rtp) => {
                self.peers[index].media.push((self.now, address));
                self.deliver_rtp(index, &bytes);
            }
            Some(Protocol::Rtcp) => self.deliver_rtcp(index, &bytes),
            other => panic!("what is {other:?}?"),
        }
    }

    fn deliver_stun(&mut self, worker: usize, index: usize, address: SocketAddr, bytes: &[u8]) {
        let message = Message::parse(bytes).expect("sound STUN");
        let peer = &mut self.peers[index];
        match message.class() {
            Class::Success => {
                message
                    .verify_integrity(&IntegrityKey::new(peer.server.pwd.as_bytes()))
                    .expect("signed with the server's");
                assert_eq!(message.xor_mapped_address(), Some(address));
                peer.responses += 1;
            }
            Class::Request => {
                let key = IntegrityKey::new(peer.own.pwd.as_bytes());
                message.verify_integrity(&key).expect("signed with the receiver's password");
                assert_eq!(message.username(), Some((&*peer.own.ufrag, &*peer.server.ufrag)));
                if !peer.answers || peer.mute_addresses.contains(&address) {
                    return;
                }
                let mut reply = [0; 128];
                let mapped = "198.51.100.1:5000".parse().expect("an address");
                let len = write_binding_success(&mut reply, message.transaction_id(), mapped, &key).expect("room");
                self.traffic.entry(address).or_default().answered = true;
                peer.answer = reply[..len].to_vec();
                self.push(worker, address, &reply[..len]);
            }
            other => panic!("{other:?} to a client"),
        }
    }

    fn deliver_rtp(&mut self, index: usize, bytes: &[u8]) {
        let clear = self.peers[index].decrypt.decrypt_rtp(bytes).expect("a peer can open what is sent to it");
        let packet = Packet::unmarshal(&mut &clear[..]).expect("sound RTP");
        let (ssrc, sequence) = (packet.header.ssrc, packet.header.sequence_number);
        let highest = self.highest.entry((index, ssrc)).or_insert(u64::from(sequence) | 1 << 16);
        let extended = highest.wrapping_add_signed(i64::from(sequence.wrapping_sub(*highest as u16) as i16));
        *highest = extended.max(*highest);
        if let Some(former) = self.ledger.insert((index, ssrc, extended), bytes.to_vec()) {
            assert_eq!(former, bytes, "index {extended} of SSRC {ssrc:x} went out twice with other bytes");
        }
        self.peers[index].rtp.push(Heard { at: self.now, packet });
    }

    fn deliver_rtcp(&mut self, index: usize, bytes: &[u8]) {
        let clear = self.peers[index].decrypt.decrypt_rtcp(bytes).expect("a peer can open what is sent to it");
        let word = bytes.last_chunk::<4>().expect("an index");
        // RTCP of one key has one index, whatever its SSRC.
        let former = self.ledger.insert((index, u32::MAX, u64::from(u32::from_be_bytes(*word))), bytes.to_vec());
        assert!(former.is_none(), "an SRTCP index went out twice");
        let packets = rtcp::packet::unmarshal(&mut Bytes::copy_from_slice(&clear)).expect("sound RTCP");
        self.peers[index].rtcp.extend(packets.into_iter().map(|packet| (self.now, packet)));
    }
}

impl Peer {
    fn new(index: usize, worker: usize) -> Self {
        let material = material(index);
        let (client, server) = ((&material[..16], &material[32..44]), (&material[16..32], &material[44..56]));
        let context = |(key, salt): (&[u8], &[u8])| {
            Context::new(key, salt, ProtectionProfile::AeadAes128Gcm, None, None).expect("lengths are right")
        };
        Self {
            worker,
            transport: TransportId(1_000 + index as u64),
            address: SocketAddr::from(([10, 0, (index / 250) as u8, (index % 250) as u8 + 1], 40_000)),
            answers: true,
            mute_addresses: Vec::new(),
            server: credentials("server", index, 0),
            own: credentials("client", index, 0),
            encrypt: context(client),
            decrypt: context(server),
            rtp: Vec::new(),
            rtcp: Vec::new(),
            responses: 0,
            answer: Vec::new(),
            datagrams: Vec::new(),
            media: Vec::new(),
        }
    }

    /// RTCP of one kind, with the time of its arrival.
    pub fn rtcp_of<T: 'static>(&self) -> Vec<(Now, &T)> {
        self.rtcp.iter().filter_map(|(at, packet)| Some((*at, packet.as_any().downcast_ref::<T>()?))).collect()
    }

    /// Media of one SSRC.
    pub fn rtp_of(&self, ssrc: u32) -> Vec<&Heard> {
        self.rtp.iter().filter(|heard| heard.packet.header.ssrc == ssrc).collect()
    }
}

/// Where workers listen for TURN.
/// A connection of ICE-TCP.
pub fn tcp_path(remote: SocketAddr) -> Path {
    Path { socket: SocketIndex(SocketIndex::STREAM_FIRST + 3), remote }
}

pub fn path(remote: SocketAddr) -> Path {
    Path { socket: SocketIndex(0), remote }
}

pub fn credentials(who: &str, index: usize, generation: usize) -> IceCredentials {
    IceCredentials {
        ufrag: format!("{who}{index}x{generation}"),
        pwd: format!("password of {who} {index} {generation}"),
    }
}

pub fn remote_peer(ice: &IceCredentials) -> RemotePeer {
    RemotePeer {
        ice: ice.clone(),
        fingerprints: vec![Fingerprint { hash: FingerprintHash::Sha256, value: vec![0; 32] }],
        role: DtlsRole::Server,
    }
}

fn packet_bytes(packet: &dyn rtcp::packet::Packet) -> Vec<u8> {
    let mut bytes = vec![0; packet.marshal_size()];
    let len = packet.marshal_to(&mut bytes).expect("room");
    bytes.truncate(len);
    bytes
}

/// Client key, server key, client salt, server salt.
fn material(index: usize) -> Vec<u8> {
    (0..56).map(|at| (at * 7 + index * 13 + index / 19) as u8).collect()
}
