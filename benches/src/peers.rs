//! Peers of a worker: what control and the handshake thread say of them, and what they send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringmain_dataplane::handshake::{FromHandshake, SrtpKeys};
use ringmain_dataplane::io::{Path, SocketIndex, Transmit};
use ringmain_dataplane::packet::rtcp::CompoundWriter;
use ringmain_dataplane::packet::rtp::HeaderFields;
use ringmain_dataplane::packet::stun::{
    BindingRequest, Class, IntegrityKey, Message, Role, TransactionId, write_binding_request, write_binding_success,
};
use ringmain_dataplane::srtp::{Outbound, Profile, split_keying_material};
use ringmain_dataplane::transport::PublisherSettings;
use ringmain_dataplane::turn::Ledger;
use ringmain_dataplane::worker::{FixedSockets, Worker, WorkerCommand, WorkerSettings};
use ringmain_shared::Now;
use ringmain_shared::command::{Command, ReceiveSpec, SubscriptionSpec, TrackSpec};
use ringmain_shared::id::{PeerId, RoomId, SubscriptionId, TrackId, TransportId, WorkerIndex};
use ringmain_shared::media::{
    Codec, Extension, ExtensionIds, Kind, Mid, PayloadType, ReceiveCodec, SendCodec, Ssrc, SsrcLayer,
};
use ringmain_shared::transport::{
    DtlsRole, Fingerprint, FingerprintHash, IceCredentials, RemotePeer, Side, TransportSpec,
};

/// A worker with nobody in it.
pub fn worker() -> Worker {
    worker_of(0)
}

/// The same with this index.
pub fn worker_of(index: u16) -> Worker {
    let settings = WorkerSettings {
        index: WorkerIndex(index),
        seed: [7; 32],
        unix_nanos_at_start: 1_700_000_000_000_000_000,
        publishers: PublisherSettings { rate_bps_max: 0, remb_start_bps: 1_000_000, audio_threshold: 40 },
        audio_interval: Duration::from_secs(1),
        sockets: FixedSockets { media: 1, turn: 1, turn_on_media: false },
    };
    Worker::new(settings, Arc::new(Ledger::new([7; 32])))
}

/// Opens a transport for the peer of that number.
pub fn open(worker: &mut Worker, peer: u64, side: Side, now: Now) {
    let unknown = Fingerprint { hash: FingerprintHash::Sha256, value: vec![0; 32] };
    open_as(worker, transport(peer, side, unknown), now);
}

/// Opens a transport.
pub fn open_as(worker: &mut Worker, spec: TransportSpec, now: Now) {
    command(worker, Command::OpenTransport { worker: WorkerIndex(0), spec: Box::new(spec) }, now);
}

/// The transport of the peer of that number, who has answered and has a certificate with this fingerprint.
pub fn transport(peer: u64, side: Side, fingerprint: Fingerprint) -> TransportSpec {
    TransportSpec {
        id: TransportId(peer),
        peer: PeerId(peer),
        room: RoomId(1),
        side,
        local: credentials("server", peer),
        remote: Some(RemotePeer {
            ice: credentials("client", peer),
            fingerprints: vec![fingerprint],
            role: DtlsRole::Server,
        }),
        channels: None,
    }
}

/// The Binding request with which a peer begins.
pub fn check(peer: u64) -> Vec<u8> {
    let (server, client) = (credentials("server", peer), credentials("client", peer));
    let request = BindingRequest {
        transaction_id: TransactionId([peer as u8; 12]),
        remote_ufrag: &server.ufrag,
        local_ufrag: &client.ufrag,
        priority: 1,
        role: Role::Controlling(1, true),
    };
    let mut bytes = vec![0; 300];
    let len = write_binding_request(&mut bytes, &request, &IntegrityKey::new(server.pwd.as_bytes())).expect("room");
    bytes.truncate(len);
    bytes
}

/// A peer's answer, when the datagram is a check of the worker's.
pub fn answer(peer: u64, datagram: &[u8]) -> Option<Vec<u8>> {
    let message = Message::parse(datagram).ok().filter(|message| message.class() == Class::Request)?;
    let key = IntegrityKey::new(credentials("client", peer).pwd.as_bytes());
    let mut bytes = vec![0; 128];
    let mapped = SocketAddr::from(([192, 0, 2, 1], 9));
    let len = write_binding_success(&mut bytes, message.transaction_id(), mapped, &key)?;
    bytes.truncate(len);
    Some(bytes)
}

/// Gives the transport its keys, as if DTLS were done.
pub fn secure(worker: &mut Worker, peer: u64, now: Now, out: &mut dyn Transmit) {
    let keys = SrtpKeys { profile: Profile::AeadAes128Gcm, material: material(peer).into(), role: DtlsRole::Server };
    let item = FromHandshake::Keys { worker: WorkerIndex(0), transport: TransportId(peer), keys };
    worker.handle_handshake(item, now, out);
}

/// Tells the worker that the peer publishes one track: VP8 or Opus.
pub fn publish(worker: &mut Worker, peer: u64, kind: Kind, now: Now) {
    let video = kind == Kind::Video;
    let codec = ReceiveCodec {
        payload_type: PayloadType(96),
        codec: codec(kind),
        clock_rate: clock_rate(kind),
        rtx: video.then_some(PayloadType(97)),
        nack: video,
        pli: video,
        fir: false,
    };
    let track = TrackSpec {
        id: TrackId(peer),
        mid: Mid::from("0").expect("short"),
        kind,
        codecs: vec![codec],
        ssrcs: vec![SsrcLayer { ssrc: Ssrc(ssrc(peer)), rtx: None, spatial: 0 }],
        rids: Vec::new(),
    };
    let spec = ReceiveSpec { extensions: extensions(), transport_cc: true, remb: false, tracks: vec![track] };
    command(worker, Command::Receive { transport: TransportId(peer), spec }, now);
}

/// Subscribes one peer to the track of another.
pub fn subscribe(worker: &mut Worker, peer: u64, publisher: u64, kind: Kind, now: Now) {
    let video = kind == Kind::Video;
    let codec = SendCodec {
        from: PayloadType(96),
        to: PayloadType(96),
        rtx: video.then_some(PayloadType(97)),
        codec: codec(kind),
        clock_rate: clock_rate(kind),
    };
    let spec = SubscriptionSpec {
        id: SubscriptionId(peer << 20 | publisher),
        transport: TransportId(peer),
        track: TrackId(publisher),
        kind,
        mid: Mid::from("7").expect("short"),
        ssrc: sent_ssrc(publisher),
        rtx_ssrc: video.then_some(Ssrc(0x1000_0001 + 2 * publisher as u32)),
        cname: "publisher".into(),
        codecs: vec![codec],
        extensions: extensions(),
        muted: false,
        spatial_max: 2,
        temporal_max: 3,
    };
    command(worker, Command::Subscribe(Box::new(spec)), now);
}

/// A publisher's stream: frames of so many packets, each a protected datagram of so many bytes.
#[derive(Debug)]
pub struct Camera {
    ssrc: u32,
    kind: Kind,
    srtp: Outbound,
    index: u64,
    frame: u32,
    wide: u16,
}

impl Camera {
    pub fn new(peer: u64, kind: Kind) -> Self {
        Self { ssrc: ssrc(peer), kind, srtp: of_client(peer), index: 100, frame: 0, wide: 0 }
    }

    /// Writes the next frame's datagrams, one behind the other, as long as `sizes` says. The first frame is a keyframe.
    pub fn frame(&mut self, sizes: &[usize], out: &mut Vec<u8>) {
        self.frame += 1;
        out.clear();
        out.resize(sizes.iter().sum(), 0x5a);
        let mut rest = out.as_mut_slice();
        for (at, &size) in sizes.iter().enumerate() {
            let (packet, after) = rest.split_at_mut(size);
            rest = after;
            self.index += 1;
            self.wide = self.wide.wrapping_add(1);
            let fields = HeaderFields {
                marker: at + 1 == sizes.len(),
                payload_type: PayloadType(96),
                sequence: self.index as u16,
                timestamp: self.frame * 3_000,
                ssrc: Ssrc(self.ssrc),
            };
            let header = fields.write(&[(3, &self.wide.to_be_bytes()), (4, b"0")], packet).expect("room");
            if self.kind == Kind::Video {
                let [high, low] = (self.frame as u16 | 0x8000).to_be_bytes();
                let (start, tag) = (if at == 0 { 0x90 } else { 0x80 }, u8::from(self.frame > 1 || at > 0));
                packet[header..header + 7].copy_from_slice(&[start, 0xe0, high, low, self.frame as u8, 0, tag]);
            }
            let clear = size - Profile::RTP_OVERHEAD_MAX;
            self.srtp.protect_rtp(self.index, packet, header, clear).expect("room");
        }
    }
}

/// What a subscriber sends back.
pub struct Feedback {
    srtp: Outbound,
}

impl Feedback {
    pub fn new(peer: u64) -> Self {
        Self { srtp: of_client(peer) }
    }

    /// An RTCP datagram, from its clear text.
    pub fn protect(&mut self, clear: &[u8]) -> Vec<u8> {
        let mut bytes = clear.to_vec();
        bytes.resize(clear.len() + Profile::RTCP_OVERHEAD_MAX, 0);
        let size = self.srtp.protect_rtcp(&mut bytes, clear.len()).expect("room");
        bytes.truncate(size);
        bytes
    }

    /// Asks for packets of a publisher again, and for a keyframe.
    pub fn ask(&mut self, publisher: u64, sequences: &[u16]) -> Vec<u8> {
        let mut bytes = vec![0; 400];
        let mut writer = CompoundWriter::new(&mut bytes);
        let media = sent_ssrc(publisher);
        writer.nack(Ssrc(1), media, sequences).expect("room");
        writer.pli(Ssrc(1), media).expect("room");
        let len = writer.len();
        self.protect(&bytes[..len])
    }
}

/// Under which SSRC a publisher goes out.
pub fn sent_ssrc(publisher: u64) -> Ssrc {
    Ssrc(0x1000_0000 + 2 * publisher as u32)
}

/// Where the peer of that number is, when there is no network.
pub fn address(peer: u64) -> Path {
    Path { socket: SocketIndex(0), remote: SocketAddr::from(([10, 0, (peer >> 8) as u8, peer as u8], 4_000)) }
}

fn command(worker: &mut Worker, command: Command, now: Now) {
    worker.handle_command(WorkerCommand::Control(command), now);
}

fn ssrc(peer: u64) -> u32 {
    1_000 + peer as u32
}

fn extensions() -> ExtensionIds {
    let mut ids = ExtensionIds::default();
    ids.set(Extension::TransportCc, 3);
    ids.set(Extension::Mid, 4);
    ids
}

fn credentials(who: &str, peer: u64) -> IceCredentials {
    IceCredentials { ufrag: format!("{who}{peer}"), pwd: format!("password of {who} {peer}") }
}

fn codec(kind: Kind) -> Codec {
    if kind == Kind::Video { Codec::Vp8 } else { Codec::Opus }
}

fn clock_rate(kind: Kind) -> u32 {
    if kind == Kind::Video { 90_000 } else { 48_000 }
}

/// The client's half of a peer's keys.
fn of_client(peer: u64) -> Outbound {
    let keys = split_keying_material(Profile::AeadAes128Gcm, &material(peer), DtlsRole::Client).expect("its length");
    Outbound::new(keys.1)
}

/// Client key, server key, client salt, server salt.
fn material(peer: u64) -> Vec<u8> {
    (0..56).map(|at| (at * 7 + peer * 13) as u8).collect()
}
