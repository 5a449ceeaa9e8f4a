//! The receiving side of a connection: every packet is counted by the header that it shows in the clear, one in so many is
//! opened and checked, and the server is told what a receiver tells: reports, arrival times, losses, keyframe requests.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use ringmain_shared::Now;
use rtcp::packet::Packet;
use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtcp::receiver_report::ReceiverReport;
use rtcp::reception_report::ReceptionReport;
use rtcp::sender_report::SenderReport;
use rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use rtp::codecs::vp8::Vp8Packet;
use rtp::packetizer::Depacketizer;
use webrtc_util::marshal::Unmarshal;

use super::arrivals::Arrivals;
use super::chance::Chance;
use super::frames::starts_keyframe;
use super::mark::Mark;
use super::secure::Srtp;
use super::sequence::{Arrival, Sequence};
use super::tally::Tally;

/// What a payload type means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Payload {
    Vp8,
    Opus,
    /// RFC 4588.
    Rtx,
    /// Counted, never opened.
    Other,
}

/// What the server's descriptions say of its media.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct MediaMap {
    pub(super) payloads: HashMap<u8, Payload>,
    /// SSRC of retransmissions → SSRC of what they repeat.
    pub(super) repairs: HashMap<u32, u32>,
    /// Header extension of transport-wide sequence numbers.
    pub(super) transport_cc: Option<u8>,
}

/// Everything that one connection receives.
pub(super) struct Subscriber {
    map: MediaMap,
    /// One packet in so many is opened.
    verify: u64,
    streams: Vec<Stream>,
    /// Packets come in runs of one stream.
    last: usize,
    arrivals: Arrivals,
    ssrc: u32,
    /// Percent of media that is thrown away unseen, as a bad network would.
    drop: f64,
    chance: Chance,
    next_tick: Option<Now>,
    ticks: u64,
}

struct Stream {
    ssrc: u32,
    payload: Payload,
    sequence: Sequence,
    packets: u64,
    keyframe: Keyframe,
    jitter: Jitter,
    /// Middle of the NTP time of the last sender report, and when it came.
    sender_report: Option<(u32, Now)>,
    reported: (u64, u64),
    newest: Option<(u32, u64)>,
}

/// A late joiner cannot show anything before a keyframe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Keyframe {
    NotNeeded,
    /// Asked for at this time, or not yet.
    Awaited(Option<Now>),
}

/// RFC 3550 §6.4.1, in clock ticks.
#[derive(Default)]
struct Jitter {
    transit: Option<i64>,
    value: f64,
}

impl Subscriber {
    pub(super) fn new(map: MediaMap, verify: u64, drop: f64, mut chance: Chance) -> Self {
        Self {
            map,
            verify: verify.max(1),
            streams: Vec::new(),
            last: 0,
            arrivals: Arrivals::default(),
            ssrc: chance.ssrc(),
            drop,
            chance,
            next_tick: None,
            ticks: 0,
        }
    }

    /// The server has offered again.
    pub(super) fn set_map(&mut self, map: MediaMap) {
        self.map = map;
    }

    /// From now on every packet is opened, and none thrown away.
    pub(super) fn verify_all(&mut self) {
        (self.verify, self.drop) = (1, 0.0);
    }

    pub(super) fn next_deadline(&self) -> Option<Now> {
        self.next_tick
    }

    /// The newest packet of each stream that was opened: its source, and its number there.
    pub(super) fn newest(&self) -> impl Iterator<Item = (u32, u64)> {
        self.streams.iter().filter_map(|stream| stream.newest)
    }

    /// Adds what the streams count to `tally`.
    pub(super) fn count(&self, tally: &mut Tally) {
        for stream in &self.streams {
            tally.received += stream.sequence.received();
            tally.expected += stream.sequence.expected();
            tally.streams += 1;
        }
    }

    /// An SRTP packet.
    pub(super) fn handle_rtp(&mut self, packet: &[u8], now: Now, srtp: &mut Srtp, tally: &mut Tally) {
        tally.datagrams += 1;
        tally.datagram_bytes += packet.len() as u64;
        if self.chance.falls(self.drop) {
            tally.dropped += 1;
            return;
        }
        let Some(header) = Header::read(packet, self.map.transport_cc) else {
            tally.spoilt += 1;
            return;
        };
        self.next_tick.get_or_insert(now + TICK);
        if let Some(seq) = header.transport_seq {
            self.arrivals.handle(seq, now);
        }
        let payload = self.map.payloads.get(&header.payload_type).copied().unwrap_or(Payload::Other);
        if payload == Payload::Rtx {
            return self.handle_rtx(&header, packet, now, srtp, tally);
        }
        let verify = self.verify;
        let Some(stream) = self.stream(header.ssrc, payload) else { return };
        stream.jitter.handle(&header, now, payload);
        match stream.sequence.handle(header.seq, now) {
            Arrival::InOrder => {}
            Arrival::Late => tally.late += 1,
            Arrival::Duplicate => {
                tally.duplicates += 1;
                return;
            }
        }
        // Until the first keyframe every packet is opened, or it might be missed.
        let is_due = stream.packets.is_multiple_of(verify) || stream.keyframe != Keyframe::NotNeeded;
        stream.packets += 1;
        if is_due && payload != Payload::Other {
            match srtp.unprotect_rtp(packet) {
                Some(clear) => stream.check(clear, now, tally),
                None => tally.spoilt += 1,
            }
        }
    }

    /// SRTCP from the server.
    pub(super) fn handle_rtcp(&mut self, packet: &[u8], now: Now, srtp: &mut Srtp, tally: &mut Tally) {
        tally.rtcp_received += 1;
        let Some(mut clear) = srtp.unprotect_rtcp(packet) else {
            tally.spoilt += 1;
            return;
        };
        for packet in rtcp::packet::unmarshal(&mut clear).unwrap_or_default() {
            if let Some(report) = packet.as_any().downcast_ref::<SenderReport>()
                && let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == report.ssrc)
            {
                stream.sender_report = Some(((report.ntp_time >> 16) as u32, now));
            }
        }
    }

    /// Tells the server what is due.
    pub(super) fn handle_timeout(&mut self, now: Now, srtp: &mut Srtp, tally: &mut Tally, send: &mut dyn FnMut(&[u8])) {
        if self.next_tick.is_none_or(|at| at > now) {
            return;
        }
        self.next_tick = Some(now + TICK);
        self.ticks += 1;
        let mut packets: Vec<Box<dyn Packet + Send + Sync>> = Vec::new();
        // RFC 3550 §6.1 wants a report first; RFC 5506, which was agreed on, does without. Feedback goes in packets of its own.
        if self.ticks.is_multiple_of(TICKS_PER_REPORT) {
            for streams in self.streams.chunks_mut(REPORT_BLOCKS_MAX) {
                let reports = streams.iter_mut().map(|stream| stream.report(now)).collect();
                packets.push(Box::new(ReceiverReport { ssrc: self.ssrc, reports, ..Default::default() }));
            }
        }
        if self.ticks.is_multiple_of(TICKS_PER_FEEDBACK) {
            let media_ssrc = self.streams.first().map_or(0, |stream| stream.ssrc);
            while let Some(feedback) = self.arrivals.poll(self.ssrc, media_ssrc) {
                packets.push(Box::new(feedback));
            }
        }
        for stream in &mut self.streams {
            let mut missing = Vec::new();
            stream.sequence.poll_nack(now, &mut missing);
            if !missing.is_empty() {
                tally.packets_asked += missing.len() as u64;
                let nacks = nack_pairs_from_sequence_numbers(&missing);
                packets.push(Box::new(TransportLayerNack { sender_ssrc: self.ssrc, media_ssrc: stream.ssrc, nacks }));
            }
            if stream.wants_keyframe(now) {
                packets.push(Box::new(PictureLossIndication { sender_ssrc: self.ssrc, media_ssrc: stream.ssrc }));
            }
        }
        for packet in packets.iter().filter_map(|packet| packet.marshal().ok()) {
            if let Some(packet) = srtp.protect_rtcp(&packet) {
                tally.rtcp_sent += 1;
                send(&packet);
            }
        }
    }

    /// RFC 4588 §4: the payload begins with the number of the packet that it repeats.
    fn handle_rtx(&mut self, header: &Header, packet: &[u8], now: Now, srtp: &mut Srtp, tally: &mut Tally) {
        let Some(mut clear) = srtp.unprotect_rtp(packet) else {
            tally.spoilt += 1;
            return;
        };
        let payload = rtp::packet::Packet::unmarshal(&mut clear).map(|packet| packet.payload).unwrap_or_default();
        let Some(&[high, low]) = payload.first_chunk() else {
            // Probes for bandwidth are nothing but padding.
            tally.padding += 1;
            return;
        };
        let Some(&repaired) = self.map.repairs.get(&header.ssrc) else { return };
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == repaired) {
            match stream.sequence.handle(u16::from_be_bytes([high, low]), now) {
                Arrival::InOrder | Arrival::Late => tally.repaired += 1,
                Arrival::Duplicate => tally.duplicates += 1,
            }
        }
    }

    fn stream(&mut self, ssrc: u32, payload: Payload) -> Option<&mut Stream> {
        if self.streams.get(self.last).is_none_or(|stream| stream.ssrc != ssrc) {
            self.last = match self.streams.iter().position(|stream| stream.ssrc == ssrc) {
                Some(index) => index,
                None if self.streams.len() < STREAMS_MAX => {
                    self.streams.push(Stream::new(ssrc, payload));
                    self.streams.len() - 1
                }
                None => return None,
            };
        }
        self.streams.get_mut(self.last)
    }
}

impl Stream {
    fn new(ssrc: u32, payload: Payload) -> Self {
        let keyframe = if payload == Payload::Vp8 { Keyframe::Awaited(None) } else { Keyframe::NotNeeded };
        Self {
            ssrc,
            payload,
            sequence: Sequence::default(),
            packets: 0,
            keyframe,
            jitter: Jitter::default(),
            sender_report: None,
            reported: (0, 0),
            newest: None,
        }
    }

    /// Checks a packet that has been opened.
    fn check(&mut self, mut clear: Bytes, now: Now, tally: &mut Tally) {
        let Ok(packet) = rtp::packet::Packet::unmarshal(&mut clear) else {
            tally.spoilt += 1;
            return;
        };
        if packet.payload.is_empty() {
            tally.padding += 1;
            return;
        }
        let body = match self.payload {
            Payload::Vp8 => {
                let mut vp8 = Vp8Packet::default();
                match vp8.depacketize(&packet.payload) {
                    Ok(body) if vp8.s == 1 && starts_keyframe(&body) => {
                        tally.keyframes_seen += 1;
                        self.keyframe = Keyframe::NotNeeded;
                        body
                    }
                    Ok(body) => body,
                    Err(_) => Bytes::new(),
                }
            }
            _ => packet.payload,
        };
        match Mark::read(&body) {
            Ok(mark) => {
                tally.verified += 1;
                tally.delay.record(now.since(mark.sent));
                self.newest =
                    Some((mark.source, self.newest.map_or(mark.number, |(_, number)| number.max(mark.number))));
            }
            Err(_) => tally.spoilt += 1,
        }
    }

    fn wants_keyframe(&mut self, now: Now) -> bool {
        match self.keyframe {
            Keyframe::Awaited(asked) if asked.is_none_or(|at| now.since(at) >= KEYFRAME_INTERVAL) => {
                self.keyframe = Keyframe::Awaited(Some(now));
                true
            }
            _ => false,
        }
    }

    fn report(&mut self, now: Now) -> ReceptionReport {
        let (expected, received) = (self.sequence.expected(), self.sequence.received());
        let (expected_before, received_before) = std::mem::replace(&mut self.reported, (expected, received));
        let lost = (expected - expected_before).saturating_sub(received - received_before);
        let fraction = (lost * 256).checked_div(expected - expected_before).unwrap_or(0).min(255) as u8;
        let (last, since) = self.sender_report.map_or((0, Duration::ZERO), |(last, at)| (last, now.since(at)));
        ReceptionReport {
            ssrc: self.ssrc,
            fraction_lost: fraction,
            total_lost: expected.saturating_sub(received).min(0x7f_ffff) as u32,
            last_sequence_number: self.sequence.extended_highest(),
            jitter: self.jitter.value as u32,
            last_sender_report: last,
            delay: (since.as_micros() * 65_536 / 1_000_000) as u32,
        }
    }
}

impl Jitter {
    fn handle(&mut self, header: &Header, now: Now, payload: Payload) {
        let clock = if payload == Payload::Opus { 48 } else { 90 };
        let arrival = (now.as_micros() * clock / 1000) as u32;
        let transit = i64::from(arrival.wrapping_sub(header.timestamp) as i32);
        if let Some(before) = self.transit.replace(transit) {
            self.value += ((transit - before).abs() as f64 - self.value) / 16.0;
        }
    }
}

/// What an SRTP packet shows in the clear (RFC 3550 §5.1, RFC 8285 §4.2).
struct Header {
    payload_type: u8,
    seq: u16,
    timestamp: u32,
    ssrc: u32,
    transport_seq: Option<u16>,
}

impl Header {
    fn read(packet: &[u8], transport_cc: Option<u8>) -> Option<Self> {
        let (fixed, rest) = packet.split_first_chunk::<12>()?;
        let rest = rest.get(usize::from(fixed[0] & 0x0f) * 4..)?;
        let mut transport_seq = None;
        if fixed[0] & 0x10 != 0 {
            let (head, rest) = rest.split_first_chunk::<4>()?;
            let extensions = rest.get(..usize::from(u16::from_be_bytes([head[2], head[3]])) * 4)?;
            if let (Some(id), [0xbe, 0xde]) = (transport_cc, [head[0], head[1]]) {
                transport_seq = one_byte_extension(extensions, id);
            }
        }
        let [_, second, s0, s1, t0, t1, t2, t3, ssrc @ ..] = *fixed;
        Some(Self {
            payload_type: second & 0x7f,
            seq: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes(ssrc),
            transport_seq,
        })
    }
}

/// The two bytes of extension `id`.
fn one_byte_extension(mut extensions: &[u8], id: u8) -> Option<u16> {
    while let Some((&head, rest)) = extensions.split_first() {
        // A byte of zero is padding.
        if head == 0 {
            extensions = rest;
            continue;
        }
        let (value, after) = rest.split_at_checked(usize::from(head & 0x0f) + 1)?;
        if head >> 4 == id {
            return value.first_chunk().map(|&bytes| u16::from_be_bytes(bytes));
        }
        extensions = after;
    }
    None
}

/// Whether a datagram of media is SRTCP (RFC 5761 §4).
pub(super) fn is_rtcp(packet: &[u8]) -> bool {
    matches!(packet.get(1), Some(192..=223))
}

const TICK: Duration = Duration::from_millis(50);
const TICKS_PER_FEEDBACK: u64 = 2;
const TICKS_PER_REPORT: u64 = 20;
const REPORT_BLOCKS_MAX: usize = 31;
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);
/// More than any server is asked for; what exceeds it is counted as datagrams only.
const STREAMS_MAX: usize = 512;
