//! What publishers send and subscribers are promised: specs, VP8 frames and Opus packets, each with a serial number in its payload
//! by which it is recognised at the other end.

use bytes::Bytes;
use ringmain_shared::command::{Command, ReceiveSpec, SubscriptionSpec, TrackSpec};
use ringmain_shared::id::{SubscriptionId, TrackId};
use ringmain_shared::media::{
    Codec, Extension, ExtensionIds, Kind, Mid, PayloadType, ReceiveCodec, Rid, RidLayer, SendCodec, Ssrc, SsrcLayer,
};
use rtp::header::{Extension as HeaderExtension, Header};
use rtp::packet::Packet;
use webrtc_util::marshal::Marshal;

use crate::world::{Heard, World};

pub const AUDIO: u64 = 1;
pub const VIDEO: u64 = 2;

/// Header extension ids at publishers.
const IN_MID: u8 = 4;
const IN_RID: u8 = 10;
const IN_REPAIRED: u8 = 11;
const IN_TRANSPORT_CC: u8 = 3;
const IN_LEVEL: u8 = 1;

/// Header extension ids at subscribers: others on purpose.
pub const OUT_MID: u8 = 9;
pub const OUT_TRANSPORT_CC: u8 = 5;
pub const OUT_LEVEL: u8 = 2;

/// Payload types at publishers and at subscribers.
pub const IN_OPUS: u8 = 111;
pub const IN_VP8: u8 = 96;
pub const IN_RTX: u8 = 97;
pub const OUT_OPUS: u8 = 100;
pub const OUT_VP8: u8 = 120;
pub const OUT_RTX: u8 = 121;

fn extension_ids(ids: &[(Extension, u8)]) -> ExtensionIds {
    let mut all = ExtensionIds::default();
    ids.iter().for_each(|&(extension, id)| all.set(extension, id));
    all
}

/// One audio and one video track; the video's layers by SSRC where there is one, by rid where there are more.
pub fn receive_spec(base: u64, layers: &[&str]) -> ReceiveSpec {
    let codec = |payload_type, codec, clock_rate, rtx: Option<u8>| ReceiveCodec {
        payload_type: PayloadType(payload_type),
        codec,
        clock_rate,
        rtx: rtx.map(PayloadType),
        nack: rtx.is_some(),
        pli: rtx.is_some(),
        fir: false,
    };
    let rids = layers.iter().zip(0..).map(|(rid, spatial)| RidLayer { rid: Rid::from(rid).expect("short"), spatial });
    let announced =
        SsrcLayer { ssrc: Ssrc(camera_ssrc(base, 0)), rtx: Some(Ssrc(camera_ssrc(base, 0) + 1)), spatial: 0 };
    ReceiveSpec {
        extensions: extension_ids(&[
            (Extension::Mid, IN_MID),
            (Extension::Rid, IN_RID),
            (Extension::RepairedRid, IN_REPAIRED),
            (Extension::TransportCc, IN_TRANSPORT_CC),
            (Extension::AudioLevel, IN_LEVEL),
        ]),
        transport_cc: true,
        remb: false,
        tracks: vec![
            TrackSpec {
                id: TrackId(base + AUDIO),
                mid: Mid::from("0").expect("short"),
                kind: Kind::Audio,
                codecs: vec![codec(IN_OPUS, Codec::Opus, 48_000, None)],
                ssrcs: vec![SsrcLayer { ssrc: Ssrc(base as u32 + 500), rtx: None, spatial: 0 }],
                rids: Vec::new(),
            },
            TrackSpec {
                id: TrackId(base + VIDEO),
                mid: Mid::from("1").expect("short"),
                kind: Kind::Video,
                codecs: vec![codec(IN_VP8, Codec::Vp8, 90_000, Some(IN_RTX))],
                ssrcs: if layers.is_empty() { vec![announced] } else { Vec::new() },
                rids: rids.collect(),
            },
        ],
    }
}

/// The SSRC of a layer's camera; one more is its retransmissions'.
pub fn camera_ssrc(base: u64, layer: usize) -> u32 {
    base as u32 + 1_000 + 10 * layer as u32
}

/// A subscription of `kind` (`AUDIO`, `VIDEO`) to a publisher with that base.
pub fn subscription(world: &World, peer: usize, base: u64, kind: u64) -> SubscriptionSpec {
    let ssrc = 0x1000_0000 + base as u32 * 16 + kind as u32 * 2;
    let (media, codec) = if kind == AUDIO {
        (Kind::Audio, send_codec(IN_OPUS, OUT_OPUS, None, Codec::Opus, 48_000))
    } else {
        (Kind::Video, send_codec(IN_VP8, OUT_VP8, Some(OUT_RTX), Codec::Vp8, 90_000))
    };
    SubscriptionSpec {
        id: SubscriptionId(peer as u64 * 1_000_000 + base + kind),
        transport: world.peers[peer].transport,
        track: TrackId(base + kind),
        kind: media,
        mid: Mid::from(if kind == AUDIO { "a7" } else { "v7" }).expect("short"),
        ssrc: Ssrc(ssrc),
        rtx_ssrc: (kind == VIDEO).then_some(Ssrc(ssrc + 1)),
        cname: format!("publisher{base}"),
        codecs: vec![codec],
        extensions: extension_ids(&[
            (Extension::Mid, OUT_MID),
            (Extension::TransportCc, OUT_TRANSPORT_CC),
            (Extension::AudioLevel, OUT_LEVEL),
        ]),
        muted: false,
        spatial_max: 2,
        temporal_max: 3,
    }
}

fn send_codec(from: u8, to: u8, rtx: Option<u8>, codec: Codec, clock_rate: u32) -> SendCodec {
    SendCodec { from: PayloadType(from), to: PayloadType(to), rtx: rtx.map(PayloadType), codec, clock_rate }
}

/// Subscribes and gives the SSRC under which it goes out.
pub fn subscribe(world: &mut World, peer: usize, base: u64, kind: u64) -> u32 {
    let spec = subscription(world, peer, base, kind);
    let (ssrc, worker) = (spec.ssrc.0, world.peers[peer].worker);
    world.command(worker, Command::Subscribe(Box::new(spec)));
    ssrc
}

/// An adjustment of the subscription that [`subscribe`] made.
pub fn adjust(world: &mut World, peer: usize, base: u64, kind: u64, muted: bool, spatial_max: u8, temporal_max: u8) {
    let subscription = SubscriptionId(peer as u64 * 1_000_000 + base + kind);
    let command = Command::Adjust { subscription, muted, spatial_max, temporal_max };
    world.command(world.peers[peer].worker, command);
}

/// A source of VP8 packets: one simulcast layer.
#[derive(Clone)]
pub struct Camera {
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    pub rid: Option<&'static str>,
    pub serial: u64,
    pub picture: u16,
    pub tl0: u8,
    pub rtx_sequence: u16,
}

impl Camera {
    pub fn new(base: u64, layer: usize) -> Self {
        let number = layer as u16 + 1;
        Self {
            ssrc: camera_ssrc(base, layer),
            sequence: 20_000u16.wrapping_mul(number),
            timestamp: 0x7000_0000u32.wrapping_mul(u32::from(number)),
            rid: None,
            serial: base * 1_000_000_000 + layer as u64 * 100_000_000,
            picture: 100 * number,
            tl0: 10 * number as u8,
            rtx_sequence: 7,
        }
    }

    pub fn with_rid(base: u64, layer: usize, rid: &'static str) -> Self {
        Self { rid: Some(rid), ..Self::new(base, layer) }
    }

    /// The packets of the next frame, 33 ms after the one before, each `size` bytes of payload. Temporal layer 0.
    pub fn frame(&mut self, world: &mut World, keyframe: bool, packets: usize) -> Vec<Vec<u8>> {
        self.layered_frame(world, keyframe, packets, 0)
    }

    pub fn layered_frame(&mut self, world: &mut World, keyframe: bool, packets: usize, temporal: u8) -> Vec<Vec<u8>> {
        self.timestamp = self.timestamp.wrapping_add(3_000);
        self.picture = (self.picture + 1) & 0x7fff;
        if temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        (0..packets)
            .map(|at| {
                let [high, low] = (self.picture | 0x8000).to_be_bytes();
                let start = if at == 0 { 0x90 } else { 0x80 };
                let sync = if temporal > 0 { 0x20 } else { 0 };
                let tag = if at == 0 && keyframe { 0 } else { 1 };
                let mut payload = vec![start, 0xe0, high, low, self.tl0, temporal << 6 | sync, tag];
                self.serial += 1;
                payload.extend(self.serial.to_be_bytes());
                payload.resize(200, self.serial as u8);
                self.packet(world, payload, at + 1 == packets)
            })
            .collect()
    }

    /// A packet of padding only.
    pub fn padding(&mut self, world: &mut World) -> Vec<u8> {
        let mut bytes = self.packet(world, vec![0; 32], false);
        bytes[0] |= 0x20;
        *bytes.last_mut().expect("32") = 32;
        bytes
    }

    /// A clear packet of ours, as the RTX stream repeats it (RFC 4588).
    pub fn repair(&mut self, clear: &[u8]) -> Vec<u8> {
        use webrtc_util::marshal::Unmarshal;
        let mut packet = Packet::unmarshal(&mut &clear[..]).expect("our own");
        let mut payload = packet.header.sequence_number.to_be_bytes().to_vec();
        payload.extend(&packet.payload);
        packet.payload = payload.into();
        packet.header.ssrc = self.ssrc + 1;
        packet.header.payload_type = IN_RTX;
        self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
        packet.header.sequence_number = self.rtx_sequence;
        if let Some(rid) = self.rid {
            packet.header.extensions.retain(|extension| extension.id != IN_RID);
            let repaired = Bytes::copy_from_slice(rid.as_bytes());
            packet.header.extensions.push(HeaderExtension { id: IN_REPAIRED, payload: repaired });
        }
        packet.marshal().expect("sound").to_vec()
    }

    fn packet(&mut self, world: &mut World, payload: Vec<u8>, marker: bool) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut extensions = vec![(IN_TRANSPORT_CC, wide_sequence(world).to_vec()), (IN_MID, b"1".to_vec())];
        extensions.extend(self.rid.map(|rid| (IN_RID, rid.as_bytes().to_vec())));
        clear_packet(IN_VP8, self.sequence, self.timestamp, self.ssrc, marker, &extensions, payload)
    }

    /// Sends whole frames.
    pub fn send(&mut self, world: &mut World, peer: usize, keyframe: bool, packets: usize) {
        for packet in self.frame(world, keyframe, packets) {
            world.send_rtp(peer, &packet);
        }
        world.run_ms(33);
    }
}

/// A source of Opus packets.
pub struct Microphone {
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    pub serial: u64,
}

impl Microphone {
    pub fn new(base: u64) -> Self {
        Self { ssrc: base as u32 + 500, sequence: 65_530, timestamp: 5, serial: base * 1_000_000_000 + 900_000_000 }
    }

    /// The next packet, 20 ms after the one before.
    pub fn packet(&mut self, world: &mut World) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(960);
        self.serial += 1;
        let mut payload = vec![0xfc; 7];
        payload.extend(self.serial.to_be_bytes());
        let extensions =
            [(IN_TRANSPORT_CC, wide_sequence(world).to_vec()), (IN_MID, b"0".to_vec()), (IN_LEVEL, vec![0x80 | 20])];
        clear_packet(IN_OPUS, self.sequence, self.timestamp, self.ssrc, false, &extensions, payload)
    }
}

/// The serial number that a payload carries.
pub fn serial(heard: &Heard) -> u64 {
    let at = if heard.packet.header.payload_type == OUT_RTX { 9 } else { 7 };
    u64::from_be_bytes(*heard.packet.payload[at..].first_chunk().expect("a serial"))
}

/// Sequence numbers of what was heard, with their cycles.
pub fn extended(heard: &[&Heard]) -> Vec<i64> {
    let mut all: Vec<i64> = Vec::new();
    for heard in heard {
        let sequence = heard.packet.header.sequence_number;
        let last = all.last().copied().unwrap_or(i64::from(sequence));
        all.push(last + i64::from(sequence.wrapping_sub(last as u16) as i16));
    }
    all
}

/// Sequence numbers follow each other without a gap.
#[track_caller]
pub fn assert_gapless(heard: &[&Heard]) {
    let all = extended(heard);
    assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1), "{all:?}");
}

pub fn header_extension(heard: &Heard, id: u8) -> Option<Vec<u8>> {
    heard.packet.header.get_extension(id).map(|value| value.to_vec())
}

fn wide_sequence(world: &mut World) -> [u8; 2] {
    world.wide_sequence = world.wide_sequence.wrapping_add(1);
    world.wide_sequence.to_be_bytes()
}

fn clear_packet(
    payload_type: u8,
    sequence_number: u16,
    timestamp: u32,
    ssrc: u32,
    marker: bool,
    extensions: &[(u8, Vec<u8>)],
    payload: Vec<u8>,
) -> Vec<u8> {
    let mut header = Header { version: 2, marker, payload_type, sequence_number, timestamp, ssrc, ..Header::default() };
    for (id, value) in extensions {
        header.set_extension(*id, Bytes::copy_from_slice(value)).expect("a short extension");
    }
    Packet { header, payload: payload.into() }.marshal().expect("sound").to_vec()
}
