//! A worker with a publisher and two subscribers, over a link without a kernel: datagrams of anybody from anywhere, orders of
//! control, news from handshake threads and other workers, and time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ringmain_dataplane::forward::clock::{ClockOffset, SenderClock};
use ringmain_dataplane::forward::packet::{InboundSeq, MediaPacket};
use ringmain_dataplane::handshake::{Datagram, FromHandshake, SrtpKeys};
use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::io::{Link, Path, SocketIndex};
use ringmain_dataplane::packet::demux::{Protocol, classify};
use ringmain_dataplane::packet::rtcp::{Compound, CompoundWriter, FirEntry};
use ringmain_dataplane::packet::rtp::{HeaderFields, RtpHeader};
use ringmain_dataplane::packet::stun::Message;
use ringmain_dataplane::srtp::{Inbound, Outbound, Profile, split_keying_material};
use ringmain_dataplane::stream::FromStream;
use ringmain_dataplane::transport::PublisherSettings;
use ringmain_dataplane::turn::Ledger as TurnLedger;
use ringmain_dataplane::worker::relay::{RelayItem, RelayedPacket};
use ringmain_dataplane::worker::{FixedSockets, Worker, WorkerCommand, WorkerSettings};
use ringmain_shared::command::{Command, ReceiveSpec, SubscriptionSpec, TrackSpec};
use ringmain_shared::event::{CloseReason, Event};
use ringmain_shared::id::{PeerId, RoomId, SubscriptionId, TrackId, TransportId, WorkerIndex};
use ringmain_shared::limits::{DATAGRAM_SIZE_MAX, RECEIVED_SIZE_MAX};
use ringmain_shared::media::{
    Codec, Extension, ExtensionIds, Kind, Mid, PayloadType, ReceiveCodec, Rid, RidLayer, SendCodec, Ssrc, SsrcLayer,
};
use ringmain_shared::transport::{
    DtlsRole, Fingerprint, FingerprintHash, IceCredentials, RemotePeer, Side, TransportSpec,
};
use ringmain_shared::turn::{TurnCommand, TurnFeatures};
use ringmain_shared::{DropReason, Now};
use zeroize::Zeroizing;

use crate::conversation::{Ledger, check, credentials, path, response};
use crate::input::Input;
use crate::srtp::material;

/// Steps of one input.
const STEPS_MAX: usize = 512;
/// Packets that peers remember.
const RECENT_MAX: usize = 64;
/// Closed peers that are remembered.
const GONE_MAX: usize = 8;
/// Turns in which everything that waits to be sent again has been looked for: a full request of each of sixteen transports, a
/// packet sent in each look.
const REPAIR_TURNS_MAX: usize = 16 * 17 * 64 / 16;
/// Transports by number: even ones publish, odd ones subscribe.
const TRANSPORTS: u8 = 4;

/// The first byte says how far everybody has come when the steps begin.
pub fn worker(data: &[u8]) {
    play(data);
}

fn play(data: &[u8]) -> Scene {
    let mut input = Input::new(data);
    let mut scene = Scene::new(&mut input);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let op = input.u8();
        scene.step(op, &mut input);
        // The highest bit leaves what came for a batch with what comes next.
        if op & 0x80 == 0 {
            scene.turn();
        }
    }
    scene.wait(Duration::from_secs(90));
    scene
}

struct Scene {
    worker: Worker,
    link: MemoryLink,
    now: Now,
    profile: Profile,
    ledger: Ledger,
    peers: Vec<Peer>,
    /// Of peers that were closed lately: they still hear that their streams have ended.
    gone: Vec<Inbound>,
    /// The latest check of ours to each address.
    checks: HashMap<Path, Vec<u8>>,
    checks_sent: u64,
    next_subscription: u64,
    next_ssrc: u32,
    /// What went out lately: to which peer, under which SSRC and sequence number.
    recent: Vec<(u8, Ssrc, u16)>,
    /// Connections that have ended, and were not made anew.
    closed: HashSet<Path>,
}

/// The other end of one transport.
struct Peer {
    id: TransportId,
    ours: IceCredentials,
    theirs: IceCredentials,
    generation: u8,
    keys: Option<(Outbound, Inbound)>,
    sequence: u64,
    timestamp: u32,
}

impl Scene {
    fn new(input: &mut Input<'_>) -> Self {
        let begin = input.u8();
        let settings = WorkerSettings {
            index: WorkerIndex(0),
            seed: [3; 32],
            unix_nanos_at_start: 1_700_000_000_000_000_000,
            publishers: PublisherSettings { rate_bps_max: 20_000_000, remb_start_bps: 500_000, audio_threshold: 40 },
            audio_interval: Duration::from_secs(1),
            sockets: FixedSockets { media: 2, turn: 1, turn_on_media: begin & 8 != 0 },
        };
        let mut scene = Self {
            worker: Worker::new(settings, Arc::new(TurnLedger::new([3; 32]))),
            link: MemoryLink::new(),
            now: Now::from_millis(10),
            profile: Profile::ALL[usize::from(begin >> 4) % Profile::ALL.len()],
            ledger: Ledger::default(),
            peers: (0..TRANSPORTS).map(|number| Peer::new(number, 0)).collect(),
            gone: Vec::new(),
            checks: HashMap::new(),
            checks_sent: 0,
            next_subscription: 1,
            next_ssrc: 0x1000_0000,
            recent: Vec::new(),
            closed: HashSet::new(),
        };
        if begin & 8 != 0 {
            let spec = crate::turn::spec(TurnFeatures::default());
            scene.control(Command::Turn(TurnCommand::Configure(Box::new(spec))));
        }
        for number in 0..3 {
            scene.open(number);
        }
        scene.receive(0, 0xff);
        if begin & 1 == 0 {
            for number in 0..3 {
                scene.connect(number, path(number));
            }
        }
        if begin & 2 == 0 {
            for number in 0..3 {
                scene.secure(number);
            }
        }
        if begin & 4 == 0 {
            for (peer, track) in [(1, 0), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2)] {
                scene.subscribe(peer, track, 0x20);
            }
        }
        scene.turn();
        scene
    }

    fn step(&mut self, op: u8, input: &mut Input<'_>) {
        let place = place(input.u8());
        let number = op >> 5 & (TRANSPORTS - 1);
        match op & 0x1f {
            0 => self.push(place, input.chunk()),
            1 | 2 => self.peer_checks(number, place, op & 1 == 1),
            3 | 4 => self.peer_answers(number, place, place),
            5 => self.peer_answers(number, self::place(input.u8()), place),
            6 => self.connect(number, place),
            7 => self.secure(number),
            8..=11 => self.peer_sends(number, place, input),
            12 => {
                let clear = input.chunk();
                self.peer_sends_rtp(number, place, u64::from(op >> 7), clear);
            }
            13 => {
                let clear = input.chunk();
                self.peer_sends_rtcp(number, place, clear);
            }
            14 => self.open(number),
            15 => self.control(Command::CloseTransport { transport: self.peers[usize::from(number)].id }),
            16 => self.receive(number, input.u8()),
            17 => self.subscribe(number, input.u8(), input.u8()),
            18 => self.adjust(input.u8(), input.u8()),
            19 => {
                let subscription = SubscriptionId(u64::from(input.u8()));
                self.control(Command::Unsubscribe { subscription });
            }
            20 => self.restart_ice(number, input.u8()),
            21 => self.set_remote(number),
            22 if place.socket.is_ice_stream() => self.close_path(place),
            22 => self.control(Command::Snapshot { request: 7 }),
            23..=25 => self.wait(Duration::from_millis(u64::from(input.u8()) * 4)),
            26 => self.wait(Duration::from_millis(u64::from(input.u16()))),
            27 => self.handshake(number, input),
            28 | 29 => self.relay(input),
            30 => self.mirror(input.u8()),
            _ => self.peer_complains(place, input.u8(), input.u8()),
        }
    }

    // What peers and strangers send.

    fn push(&mut self, from: Path, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(RECEIVED_SIZE_MAX)];
        self.ledger.received(from, bytes.len());
        if from.socket.is_ice_stream() {
            self.closed.remove(&from);
            self.stream(FromStream::Datagram { path: from, bytes: bytes.to_vec() });
        } else {
            self.link.push(from, bytes);
        }
    }

    fn close_path(&mut self, path: Path) {
        // What was said before is no matter of what comes.
        self.take_diverted();
        self.closed.insert(path);
        self.stream(FromStream::PathClosed { path });
    }

    fn stream(&mut self, item: FromStream) {
        let (_, out) = self.link.parts();
        self.worker.handle_stream(item, self.now, out);
        self.take_diverted();
    }

    fn take_diverted(&mut self) {
        let mut sent = Vec::new();
        let (_, out) = self.link.parts();
        out.flush();
        out.diverted().drain(|to, bytes| sent.push((to, bytes.to_vec())));
        for (to, bytes) in sent {
            self.check_sent(to, &bytes);
        }
    }

    fn peer_checks(&mut self, number: u8, from: Path, nominate: bool) {
        self.checks_sent += 1;
        let peer = &self.peers[usize::from(number)];
        let bytes = check(&peer.ours, &peer.theirs, self.checks_sent, nominate);
        self.push(from, &bytes);
    }

    fn peer_answers(&mut self, number: u8, asked: Path, from: Path) {
        let theirs = &self.peers[usize::from(number)].theirs;
        let Some(bytes) = self.checks.get(&asked).and_then(|check| response(check, from, theirs)) else { return };
        // Whoever has the passwords may answer from where it got the check.
        if asked == from {
            self.ledger.prove(from);
        }
        self.push(from, &bytes);
    }

    fn connect(&mut self, number: u8, from: Path) {
        self.peer_checks(number, from, true);
        self.turn();
        self.peer_answers(number, from, from);
        self.turn();
    }

    /// A packet of one of the tracks, as a publisher makes them.
    fn peer_sends(&mut self, number: u8, from: Path, input: &mut Input<'_>) {
        let (shape, step) = (input.u8(), input.u8());
        let payload = input.take(usize::from(input.clone().u8()) + 1);
        let peer = &mut self.peers[usize::from(number)];
        peer.sequence = peer.sequence.wrapping_add_signed(i64::from(step as i8)) & 0xffff_ffff;
        peer.timestamp = peer.timestamp.wrapping_add(u32::from(step) * 100);
        let (ssrc, payload_type, mid, rid) = STREAMS[usize::from(shape) % STREAMS.len()];
        let fields = HeaderFields {
            marker: shape & 0x80 != 0,
            payload_type: PayloadType(payload_type),
            sequence: peer.sequence as u16,
            timestamp: peer.timestamp,
            ssrc: Ssrc(ssrc),
        };
        let wide = (peer.sequence as u16).to_be_bytes();
        let mut extensions: Vec<(u8, &[u8])> = vec![(id(Extension::TransportCc), &wide), (id(Extension::Mid), mid)];
        if !rid.is_empty() {
            let which = if payload_type == 97 { Extension::RepairedRid } else { Extension::Rid };
            extensions.push((id(which), rid));
        }
        extensions.push((id(Extension::AudioLevel), &payload[..payload.len().min(1)]));
        extensions.push((id(Extension::DependencyDescriptor), &payload[..payload.len().min(usize::from(shape >> 4))]));
        extensions.retain(|(_, value)| !value.is_empty());
        let mut clear = vec![0; DATAGRAM_SIZE_MAX];
        let len = fields.write(&extensions, &mut clear).expect("a datagram has room for a header");
        clear.truncate(len);
        clear.extend(payload);
        let rollover = peer.sequence >> 16 & 0xff;
        self.peer_sends_rtp(number, from, rollover, &clear);
    }

    fn peer_sends_rtp(&mut self, number: u8, from: Path, rollover: u64, clear: &[u8]) {
        let clear = &clear[..clear.len().min(DATAGRAM_SIZE_MAX - Profile::RTP_OVERHEAD_MAX)];
        let Ok(header) = RtpHeader::parse(clear) else { return };
        let Some((outbound, _)) = &self.peers[usize::from(number)].keys else { return };
        let mut packet = clear.to_vec();
        packet.resize(clear.len() + Profile::RTP_OVERHEAD_MAX, 0);
        let index = rollover << 16 | u64::from(header.sequence);
        let len = outbound.protect_rtp(index, &mut packet, header.header_len, clear.len()).expect("there is room");
        self.push(from, &packet[..len]);
    }

    fn peer_sends_rtcp(&mut self, number: u8, from: Path, clear: &[u8]) {
        let clear = &clear[..clear.len().min(DATAGRAM_SIZE_MAX - Profile::RTCP_OVERHEAD_MAX)];
        let Some((outbound, _)) = &mut self.peers[usize::from(number)].keys else { return };
        let mut packet = clear.to_vec();
        packet.resize(clear.len() + Profile::RTCP_OVERHEAD_MAX, 0);
        let Ok(len) = outbound.protect_rtcp(&mut packet, clear.len()) else { return };
        self.push(from, &packet[..len]);
    }

    /// A subscriber wants what it got lately once more, or something newer instead.
    fn peer_complains(&mut self, from: Path, which: u8, what: u8) {
        let Some(&(number, ssrc, sequence)) = self.recent.get(usize::from(which) % self.recent.len().max(1)) else {
            return;
        };
        let mut out = [0; 200];
        let mut writer = CompoundWriter::new(&mut out);
        let own = Ssrc(1);
        let written = match what % 4 {
            0 | 1 => writer.nack(own, ssrc, &[sequence, sequence.wrapping_add(u16::from(what >> 2))]).map(drop),
            2 => writer.pli(own, ssrc),
            _ => writer.fir(own, &[FirEntry { ssrc, sequence: what }]),
        };
        written.expect("there is room");
        let len = writer.len();
        self.peer_sends_rtcp(number, from, &out[..len]);
    }

    // What control orders.

    fn control(&mut self, command: Command) {
        self.worker.handle_command(WorkerCommand::Control(command), self.now);
    }

    /// A transport that was there before is closed for it: no id is used twice.
    fn open(&mut self, number: u8) {
        let slot = usize::from(number);
        self.control(Command::CloseTransport { transport: self.peers[slot].id });
        let peer = Peer::new(number, self.peers[slot].generation + 1);
        let spec = TransportSpec {
            id: peer.id,
            peer: PeerId(u64::from(number)),
            room: RoomId(1),
            side: if number.is_multiple_of(2) { Side::Publisher } else { Side::Subscriber },
            local: peer.ours.clone(),
            remote: Some(peer.remote()),
            channels: None,
        };
        if let Some((_, inbound)) = std::mem::replace(&mut self.peers[slot], peer).keys {
            self.gone.truncate(GONE_MAX - 1);
            self.gone.insert(0, inbound);
        }
        self.control(Command::OpenTransport { worker: WorkerIndex(0), spec: Box::new(spec) });
    }

    fn set_remote(&mut self, number: u8) {
        let peer = &self.peers[usize::from(number)];
        let (transport, remote) = (peer.id, peer.remote());
        self.control(Command::SetRemote { transport, remote });
    }

    fn restart_ice(&mut self, number: u8, which: u8) {
        let peer = &mut self.peers[usize::from(number)];
        // Names are one worker's: each is used by one transport only.
        let name = |side: &str| credentials(&format!("{side}{number}r{which}g{}x", peer.generation), 0);
        (peer.ours, peer.theirs) = (name("ours"), name("peer"));
        let (transport, local, remote) = (peer.id, peer.ours.clone(), peer.remote());
        self.control(Command::RestartIce { transport, local, remote: (!which.is_multiple_of(4)).then_some(remote) });
        if which % 8 == 4 {
            self.set_remote(number);
        }
    }

    fn receive(&mut self, number: u8, which: u8) {
        let spec = ReceiveSpec {
            extensions: extensions(),
            transport_cc: which & 0x40 != 0,
            remb: which & 0x20 != 0,
            tracks: (0..4).filter(|track| which >> track & 1 == 1).map(|track| track_spec(number, track)).collect(),
        };
        self.control(Command::Receive { transport: self.peers[usize::from(number)].id, spec });
    }

    fn subscribe(&mut self, number: u8, track: u8, layers: u8) {
        let spec = track_spec(track >> 4 & 2, track % 4);
        let id = SubscriptionId(self.next_subscription);
        self.next_subscription += 1;
        let ssrc = Ssrc(self.next_ssrc);
        self.next_ssrc += 2;
        let send = |codec: &ReceiveCodec| SendCodec {
            from: codec.payload_type,
            to: codec.payload_type,
            rtx: codec.rtx,
            codec: codec.codec,
            clock_rate: codec.clock_rate,
        };
        let subscription = SubscriptionSpec {
            id,
            transport: self.peers[usize::from(number)].id,
            track: spec.id,
            kind: spec.kind,
            mid: spec.mid,
            ssrc,
            rtx_ssrc: (spec.kind == Kind::Video).then_some(Ssrc(ssrc.0 + 1)),
            cname: "peer".into(),
            codecs: spec.codecs.iter().map(send).collect(),
            extensions: extensions(),
            muted: layers & 0x80 != 0,
            spatial_max: layers >> 4 & 3,
            temporal_max: layers & 3,
        };
        self.control(Command::Subscribe(Box::new(subscription.clone())));
        if layers & 0x0c == 0x0c {
            self.control(Command::Subscribe(Box::new(subscription)));
        }
    }

    fn adjust(&mut self, subscription: u8, layers: u8) {
        self.control(Command::Adjust {
            subscription: SubscriptionId(u64::from(subscription)),
            muted: layers & 0x80 != 0,
            spatial_max: layers >> 4 & 7,
            temporal_max: layers & 0x0f,
        });
    }

    // What other threads have.

    /// Keys come once in a transport's life.
    fn secure(&mut self, number: u8) {
        let peer = &mut self.peers[usize::from(number)];
        if peer.keys.is_some() {
            return;
        }
        let mut material = material(self.profile);
        material.iter_mut().for_each(|byte| *byte ^= (peer.id.0 as u8) << 4 ^ peer.generation);
        let transport = peer.id;
        let (inbound, outbound) =
            split_keying_material(self.profile, &material, DtlsRole::Client).expect("right length");
        peer.keys = Some((Outbound::new(outbound), Inbound::new(inbound)));
        let profile = self.profile;
        let keys = SrtpKeys { profile, material: Zeroizing::new(material), role: DtlsRole::Server };
        self.handle_handshake(FromHandshake::Keys { worker: WorkerIndex(0), transport, keys });
    }

    fn handshake(&mut self, number: u8, input: &mut Input<'_>) {
        let transport = self.peers[usize::from(number)].id;
        let which = input.u8();
        if which == 0xff {
            let reason = CloseReason::PeerClosed;
            return self.handle_handshake(FromHandshake::Closed { worker: WorkerIndex(0), transport, reason });
        }
        // A flight of ours: a DTLS record of any size.
        let mut bytes = Datagram::new();
        bytes.extend(std::iter::repeat_n(22, 13 + usize::from(which) * 5));
        self.handle_handshake(FromHandshake::Datagram { worker: WorkerIndex(0), transport, bytes });
    }

    fn handle_handshake(&mut self, item: FromHandshake) {
        let (_, out) = self.link.parts();
        self.worker.handle_handshake(item, self.now, out);
    }

    fn mirror(&mut self, which: u8) {
        let (track, other) = (track_spec(2, which >> 4 & 3), WorkerIndex(1));
        let local = track_spec(0, which >> 4 & 3).id;
        let command = match which % 4 {
            0 => WorkerCommand::Mirror { track, from: other },
            1 => WorkerCommand::Unmirror { track: track.id },
            2 => WorkerCommand::MirrorTo { track: local, to: other },
            _ => WorkerCommand::UnmirrorTo { track: local, to: other },
        };
        self.worker.handle_command(command, self.now);
    }

    /// Another worker's packets are as a worker makes them: it has read them before.
    fn relay(&mut self, input: &mut Input<'_>) {
        let (which, step) = (input.u8(), input.u8());
        let spec = track_spec(2, which >> 4 & 3);
        let (track, spatial) = (spec.id, which >> 2 & 3);
        let peer = &mut self.peers[3];
        peer.sequence = peer.sequence.wrapping_add_signed(i64::from(step as i8)) & 0xffff_ffff;
        let payload = input.take(usize::from(input.clone().u8()) + 1);
        let mut packet = MediaPacket {
            sequence: InboundSeq(1 << 32 | peer.sequence),
            timestamp: u32::from(step) * 3000,
            payload_type: spec.codecs[0].payload_type,
            payload_len: payload.len() as u16,
            keyframe: step & 1 == 0,
            frame_start: step & 2 == 0,
            temporal: (step & 4 == 0).then_some(step >> 3 & 3),
            ..MediaPacket::default()
        };
        let item = match which % 4 {
            0 => RelayItem::Alive { track, layers: step & 7 },
            1 if step == 9 => RelayItem::Clock {
                track,
                spatial,
                clock: SenderClock { ntp: input.u64(), rtp: input.u32(), clock_rate: 90_000 },
                offset: ClockOffset::default(),
            },
            1 => RelayItem::KeyframeWanted { track: track_spec(0, which >> 4 & 3).id, spatial },
            2 => {
                packet.payload_len = 0;
                RelayItem::Padding { track, spatial, packet }
            }
            _ => {
                let mut bytes = [0; DATAGRAM_SIZE_MAX];
                bytes[..payload.len()].copy_from_slice(payload);
                RelayItem::Media(RelayedPacket { track, spatial, restarted: step == 0x7f, packet, bytes })
            }
        };
        let (_, out) = self.link.parts();
        self.worker.handle_relay(item, self.now, out);
    }

    // Time, and what must hold.

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..10_000 {
            let deadline = self.worker.next_deadline();
            if deadline > until {
                self.now = until;
                return self.turn();
            }
            self.now = self.now.max(deadline);
            self.turn();
        }
        panic!("more deadlines than {time:?} can have");
    }

    fn turn(&mut self) {
        self.turn_once();
        // What was asked for again goes out over several turns.
        for _ in 0..REPAIR_TURNS_MAX {
            if self.worker.next_deadline() > self.now {
                return;
            }
            self.turn_once();
        }
        panic!("what was due is not done");
    }

    fn turn_once(&mut self) {
        self.link.receive(None).expect("memory does not fail");
        let (rx, out) = self.link.parts();
        self.worker.turn(self.now, rx, out);
        out.flush();
        let outbox = self.worker.outbox();
        outbox.handshakes.clear();
        outbox.relays.clear();
        outbox.streams.clear();
        let told_stats = std::mem::take(&mut outbox.stats_due);
        let events = std::mem::take(&mut outbox.events);
        for event in events {
            self.hear(event);
        }
        if told_stats {
            let stats = self.worker.stats(&self.link.counters());
            assert_eq!(stats.drops.len(), DropReason::COUNT);
            assert!(stats.transports <= 16 && stats.rtp_received <= stats.received);
        }
        for (to, bytes) in self.link.take() {
            self.check_sent(to, &bytes);
        }
        self.take_diverted();
    }

    fn hear(&mut self, event: Event) {
        let Event::Closed { transport, .. } = event else { return };
        // It said so once, and knows nothing of it any more.
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == transport) {
            peer.keys = None;
        }
    }

    fn check_sent(&mut self, to: Path, bytes: &[u8]) {
        assert!(bytes.len() <= DATAGRAM_SIZE_MAX, "a datagram of {} bytes", bytes.len());
        self.ledger.sent(to, bytes.len());
        match classify(bytes) {
            Some(Protocol::Stun) => {
                Message::parse(bytes).expect("what we send can be read");
                if bytes[0] == 0 {
                    self.checks.insert(to, bytes.to_vec());
                }
            }
            Some(Protocol::Dtls) => {}
            Some(Protocol::Rtp | Protocol::Rtcp) => {
                assert!(self.ledger.is_proved(to), "media to {to:?}, where nobody has proved to be");
                assert!(!self.closed.contains(&to), "media to {to:?}, a connection that has ended");
                self.check_media(bytes);
            }
            other => panic!("sent {other:?}"),
        }
    }

    /// Media is sealed for one of the peers, which opens it once: no index is used again.
    fn check_media(&mut self, bytes: &[u8]) {
        let is_rtcp = classify(bytes) == Some(Protocol::Rtcp);
        let mut refusals = Vec::new();
        for (number, peer) in (0..).zip(&mut self.peers) {
            let Some((_, inbound)) = &mut peer.keys else { continue };
            let mut copy = bytes.to_vec();
            if is_rtcp {
                match inbound.unprotect_rtcp(&mut copy) {
                    Ok(clear) => {
                        let packets = Compound::parse(clear.bytes()).expect("what we send can be read");
                        return assert!(packets.into_iter().all(|packet| packet.is_ok()), "what we send can be read");
                    }
                    Err(reason) => refusals.push(reason),
                }
            } else {
                match inbound.unprotect_rtp(&mut copy) {
                    Ok(clear) => {
                        let header = RtpHeader::parse(clear.bytes()).expect("what we send can be read");
                        header.payload(clear.bytes()).expect("what we send can be read");
                        self.recent.truncate(RECENT_MAX - 1);
                        self.recent.insert(0, (number, header.ssrc, header.sequence));
                        return;
                    }
                    Err(reason) => refusals.push(reason),
                }
            }
        }
        if is_rtcp && self.gone.iter_mut().any(|inbound| inbound.unprotect_rtcp(&mut bytes.to_vec()).is_ok()) {
            return;
        }
        // A peer may have sent packets so long ago, or under so many names, that it cannot tell.
        let excused = [DropReason::TooOld, DropReason::TooManySsrcs];
        assert!(
            refusals.iter().any(|reason| excused.contains(reason)),
            "nobody can open it (RTCP: {is_rtcp}): {refusals:?}"
        );
    }
}

impl Peer {
    fn new(number: u8, generation: u8) -> Self {
        Self {
            id: TransportId(u64::from(generation) << 8 | u64::from(number)),
            ours: credentials(&format!("ours{number}g"), generation),
            theirs: credentials(&format!("peer{number}g"), generation),
            generation,
            keys: None,
            sequence: 100,
            timestamp: 0,
        }
    }

    fn remote(&self) -> RemotePeer {
        let fingerprint = Fingerprint { hash: FingerprintHash::Sha256, value: vec![1; 32] };
        RemotePeer { ice: self.theirs.clone(), fingerprints: vec![fingerprint], role: DtlsRole::Server }
    }
}

/// SSRC, payload type, mid and rid of what publishers send.
const STREAMS: [(u32, u8, &[u8], &[u8]); 12] = [
    (1000, 111, b"0", b""),
    (2000, 96, b"1", b""),
    (2001, 97, b"1", b""),
    (3000, 96, b"2", b"q"),
    (3001, 96, b"2", b"h"),
    (3002, 96, b"2", b"f"),
    (3003, 97, b"2", b"q"),
    (4000, 98, b"3", b""),
    (4001, 99, b"3", b""),
    (4002, 100, b"3", b""),
    (5000, 96, b"9", b""),
    (1000, 96, b"1", b""),
];

fn extensions() -> ExtensionIds {
    let mut ids = ExtensionIds::default();
    Extension::ALL.into_iter().for_each(|extension| ids.set(extension, id(extension)));
    ids
}

fn id(extension: Extension) -> u8 {
    extension as u8 + 1
}

/// Audio; VP8 with announced SSRCs; VP8 simulcast by rid; AV1, VP9 and H.264.
fn track_spec(publisher: u8, track: u8) -> TrackSpec {
    let codec = |payload_type: u8, codec, clock_rate, rtx: Option<u8>| ReceiveCodec {
        payload_type: PayloadType(payload_type),
        codec,
        clock_rate,
        rtx: rtx.map(PayloadType),
        nack: true,
        pli: track != 3,
        fir: true,
    };
    let rid = |name: &str, spatial| RidLayer { rid: Rid::from(name).expect("short"), spatial };
    let (kind, codecs, ssrcs, rids) = match track {
        0 => (Kind::Audio, vec![codec(111, Codec::Opus, 48_000, None)], vec![], vec![]),
        1 => {
            let ssrcs = vec![SsrcLayer { ssrc: Ssrc(2000), rtx: Some(Ssrc(2001)), spatial: 0 }];
            (Kind::Video, vec![codec(96, Codec::Vp8, 90_000, Some(97))], ssrcs, vec![])
        }
        2 => {
            let rids = vec![rid("q", 0), rid("h", 1), rid("f", 2)];
            (Kind::Video, vec![codec(96, Codec::Vp8, 90_000, Some(97))], vec![], rids)
        }
        _ => {
            let codecs = [(98, Codec::Av1), (99, Codec::Vp9), (100, Codec::H264)];
            let codecs = codecs.into_iter().map(|(number, name)| codec(number, name, 90_000, None)).collect();
            (Kind::Video, codecs, vec![], vec![])
        }
    };
    TrackSpec {
        id: TrackId(u64::from(publisher) << 8 | u64::from(track)),
        mid: Mid::from(&track.to_string()).expect("short"),
        kind,
        codecs,
        ssrcs,
        rids,
    }
}

/// Where peers are: from the upper half of the numbers on, at the other end of a connection.
fn place(number: u8) -> Path {
    let path = path(number);
    match number {
        128.. => Path { socket: SocketIndex(SocketIndex::STREAM_FIRST), ..path },
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scene in which nothing happens would keep every promise.
    #[test]
    fn media_flows_in_the_scenes_that_the_corpus_begins_with() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/worker");
        let mut total = ringmain_shared::event::WorkerStats::default();
        for seed in std::fs::read_dir(directory).expect("there is a corpus") {
            let path = seed.expect("a directory can be read").path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed_")) {
                let mut scene = play(&std::fs::read(path).expect("a file of the corpus can be read"));
                let stats = scene.worker.stats(&scene.link.counters());
                total.rtp_forwarded += stats.rtp_forwarded;
                total.keyframe_requests += stats.keyframe_requests;
                total.nacks_sent += stats.nacks_sent;
            }
        }
        let happened = [total.rtp_forwarded, total.keyframe_requests, total.nacks_sent];
        assert!(
            happened.iter().all(|&count| count > 0),
            "forwarded, keyframes requested, packets asked for: {happened:?}"
        );
    }
}
