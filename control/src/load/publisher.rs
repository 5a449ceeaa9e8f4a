//! The sending side of a connection: a camera and a microphone that keep time, answer keyframe requests and send again what
//! is asked for, with plain retransmissions on the stream's own SSRC as clients of `ion-sdk-js` do.

use std::time::Duration;

use bytes::Bytes;
use ringmain_shared::Now;
use rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtcp::sender_report::SenderReport;
use rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use webrtc_util::marshal::Marshal;

use super::chance::Chance;
use super::frames::{Frame, Maker, VideoShape};
use super::secure::Srtp;
use super::tally::Tally;

/// What one track sends, and under which numbers its description announced it.
#[derive(Clone, Debug)]
pub(super) struct TrackSpec {
    /// Which track, unique in this run.
    pub(super) source: u32,
    pub(super) ssrc: u32,
    pub(super) payload_type: u8,
    /// Header extension of transport-wide sequence numbers, if agreed.
    pub(super) transport_cc: Option<u8>,
    pub(super) content: Content,
}

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// Frames; their packets leave together, or `spacing` apart.
    Video { shape: VideoShape, spacing: Duration },
    /// A packet each 20 ms, with a payload of this many bytes at least and at most.
    Audio { size_min: usize, size_max: usize },
}

impl TrackSpec {
    /// Changes the frame rate of a video.
    pub(super) fn set_fps(&mut self, fps: u32) {
        if let Content::Video { shape, .. } = &mut self.content {
            shape.fps = fps.max(1);
        }
    }
}

/// Everything that one connection sends.
pub(super) struct Publisher {
    tracks: Vec<Track>,
    loss: Loss,
    transport_seq: u16,
    next_report: Now,
    payload: Vec<u8>,
}

/// A bad network: so many percent of the packets are not sent, but can be asked for.
struct Loss {
    percent: f64,
    chance: Chance,
}

struct Track {
    spec: TrackSpec,
    maker: Maker,
    chance: Chance,
    seq: u16,
    timestamp: u32,
    /// When the next packet is due; `None` once the track has ended.
    next: Option<Now>,
    /// When the frame of that packet was due.
    frame_due: Now,
    frame: Option<(Frame, usize)>,
    wants_keyframe: bool,
    packets: u32,
    octets: u32,
    history: Vec<(u16, Bytes)>,
}

impl Publisher {
    /// Begins at `now`, each track at a moment of its own within its first interval, as strangers do. `drop` percent of the
    /// packets are not sent at first.
    pub(super) fn new(specs: Vec<TrackSpec>, seed: u64, drop: f64, now: Now) -> Self {
        let loss =
            Loss { percent: drop, chance: Chance::new(!seed, specs.first().map_or(0, |spec| !u64::from(spec.source))) };
        let tracks = specs.into_iter().map(|spec| Track::new(spec, seed, now)).collect();
        Self { tracks, loss, transport_seq: 0, next_report: now + REPORT_INTERVAL, payload: Vec::with_capacity(1500) }
    }

    pub(super) fn next_deadline(&self) -> Now {
        let media = self.tracks.iter().filter_map(|track| track.next).min();
        media.map_or(self.next_report, |at| at.min(self.next_report))
    }

    /// Sends what is due. `clock` is read for each packet, because a burst takes its time.
    pub(super) fn handle_timeout(
        &mut self,
        now: Now,
        clock: &dyn Fn() -> Now,
        srtp: &mut Srtp,
        tally: &mut Tally,
        send: &mut dyn FnMut(&[u8]),
    ) {
        for track in &mut self.tracks {
            // A host that stood still does not make up for it with a flood.
            if track.next.is_some_and(|at| now.since(at) > BACKLOG_MAX) {
                (track.next, track.frame_due) = (Some(now), now);
            }
            while track.next.is_some_and(|at| at <= now) {
                let packet = track.packet(clock(), &mut self.transport_seq, &mut self.payload, tally);
                track.send(&packet, &mut self.loss, srtp, tally, send);
            }
        }
        if self.next_report <= now {
            self.next_report = now + REPORT_INTERVAL;
            for packet in self.tracks.iter().filter_map(|track| track.report(now).marshal().ok()) {
                if let Some(packet) = srtp.protect_rtcp(&packet) {
                    send(&packet);
                }
            }
        }
    }

    /// Ends every track: what is begun is completed, one more frame or packet follows, then silence. Whoever has received
    /// that has had the chance to receive everything.
    pub(super) fn finish(
        &mut self,
        clock: &dyn Fn() -> Now,
        srtp: &mut Srtp,
        tally: &mut Tally,
        send: &mut dyn FnMut(&[u8]),
    ) {
        self.loss.percent = 0.0;
        for track in &mut self.tracks {
            if track.next.is_none() {
                continue;
            }
            let rest = track.frame.map_or(0, |(frame, index)| frame.count() - index);
            let last = match track.spec.content {
                Content::Video { shape, .. } => shape.packets,
                Content::Audio { .. } => 1,
            };
            for _ in 0..rest + last {
                let packet = track.packet(clock(), &mut self.transport_seq, &mut self.payload, tally);
                track.send(&packet, &mut self.loss, srtp, tally, send);
            }
            track.next = None;
        }
    }

    /// SRTCP from the server.
    pub(super) fn handle_rtcp(
        &mut self,
        packet: &[u8],
        srtp: &mut Srtp,
        tally: &mut Tally,
        send: &mut dyn FnMut(&[u8]),
    ) {
        let Some(mut clear) = srtp.unprotect_rtcp(packet) else {
            tally.spoilt += 1;
            return;
        };
        for packet in rtcp::packet::unmarshal(&mut clear).unwrap_or_default() {
            let packet = packet.as_any();
            if let Some(pli) = packet.downcast_ref::<PictureLossIndication>() {
                self.request_keyframe(pli.media_ssrc, tally);
            } else if let Some(fir) = packet.downcast_ref::<FullIntraRequest>() {
                fir.fir.iter().for_each(|entry| self.request_keyframe(entry.ssrc, tally));
            } else if let Some(nack) = packet.downcast_ref::<TransportLayerNack>() {
                let Some(track) = self.track(nack.media_ssrc) else { continue };
                for seq in nack.nacks.iter().flat_map(|pair| pair.packet_list()) {
                    tally.nacks += 1;
                    if let Some((_, packet)) =
                        track.history.get(usize::from(seq) % HISTORY).filter(|kept| kept.0 == seq)
                    {
                        tally.resent += 1;
                        send(packet);
                    }
                }
            }
        }
    }

    /// Changes the frame rate of every video, from the next frame on.
    pub(super) fn set_fps(&mut self, fps: u32) {
        self.tracks.iter_mut().for_each(|track| track.spec.set_fps(fps));
    }

    /// How many packets each track has sent, by source.
    pub(super) fn made(&self) -> impl Iterator<Item = (u32, u64)> {
        self.tracks.iter().map(|track| (track.spec.source, track.maker.made()))
    }

    fn request_keyframe(&mut self, ssrc: u32, tally: &mut Tally) {
        tally.keyframe_requests += 1;
        if let Some(track) = self.track(ssrc) {
            track.wants_keyframe = true;
        }
    }

    fn track(&mut self, ssrc: u32) -> Option<&mut Track> {
        self.tracks.iter_mut().find(|track| track.spec.ssrc == ssrc)
    }
}

impl Track {
    fn new(spec: TrackSpec, seed: u64, now: Now) -> Self {
        let mut chance = Chance::new(!seed, u64::from(spec.source));
        let maker = Maker::new(seed, spec.source);
        let (seq, timestamp) = (chance.next() as u16, chance.next() as u32);
        let mut track = Self {
            spec,
            maker,
            seq,
            timestamp,
            next: None,
            frame_due: now,
            frame: None,
            wants_keyframe: true,
            packets: 0,
            octets: 0,
            history: vec![(0, Bytes::new()); HISTORY],
            chance,
        };
        track.frame_due = now + Duration::from_nanos(track.chance.below(track.interval().as_nanos() as u64));
        track.next = Some(track.frame_due);
        track
    }

    fn interval(&self) -> Duration {
        match self.spec.content {
            Content::Video { shape, .. } => Duration::from_secs(1) / shape.fps.max(1),
            Content::Audio { .. } => AUDIO_INTERVAL,
        }
    }

    /// The next packet, in the clear; the time of the one after it is set.
    fn packet(
        &mut self,
        now: Now,
        transport_seq: &mut u16,
        payload: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> rtp::packet::Packet {
        let marker = match self.spec.content {
            Content::Video { shape, spacing } => {
                let (frame, index) = self.frame.take().unwrap_or_else(|| {
                    let keyframe = std::mem::take(&mut self.wants_keyframe);
                    tally.frames += 1;
                    tally.keyframes += u64::from(keyframe);
                    (self.maker.frame(&shape, keyframe), 0)
                });
                self.maker.video(&frame, index, now, payload);
                let is_last = index + 1 == frame.count();
                if is_last {
                    self.next_frame();
                } else {
                    self.frame = Some((frame, index + 1));
                    self.next = Some(self.frame_due + spacing * (index as u32 + 1));
                }
                is_last
            }
            Content::Audio { size_min, size_max } => {
                let size = size_min + self.chance.below((size_max - size_min + 1) as u64) as usize;
                self.maker.audio(size, now, payload);
                self.next_frame();
                false
            }
        };
        let mut header = rtp::header::Header {
            version: 2,
            marker,
            payload_type: self.spec.payload_type,
            sequence_number: self.seq,
            timestamp: self.timestamp,
            ssrc: self.spec.ssrc,
            ..Default::default()
        };
        if let Some(id) = self.spec.transport_cc {
            let number = Bytes::copy_from_slice(&transport_seq.to_be_bytes());
            // Fails only for an id that no description can agree on.
            let _ = header.set_extension(id, number);
            *transport_seq = transport_seq.wrapping_add(1);
        }
        self.seq = self.seq.wrapping_add(1);
        // Packets of a frame share its timestamp.
        if self.frame.is_none() {
            self.timestamp = self.timestamp.wrapping_add(self.ticks());
        }
        rtp::packet::Packet { header, payload: Bytes::copy_from_slice(payload) }
    }

    fn next_frame(&mut self) {
        self.frame_due = self.frame_due + self.interval();
        self.next = Some(self.frame_due);
    }

    /// Clock ticks of a frame or packet.
    fn ticks(&self) -> u32 {
        match self.spec.content {
            Content::Video { shape, .. } => VIDEO_CLOCK / shape.fps.max(1),
            Content::Audio { .. } => AUDIO_CLOCK / AUDIO_PACKETS_PER_SECOND,
        }
    }

    fn send(
        &mut self,
        packet: &rtp::packet::Packet,
        loss: &mut Loss,
        srtp: &mut Srtp,
        tally: &mut Tally,
        send: &mut dyn FnMut(&[u8]),
    ) {
        let Some(protected) = packet.marshal().ok().and_then(|bytes| srtp.protect_rtp(&bytes)) else { return };
        if loss.chance.falls(loss.percent) {
            tally.dropped += 1;
        } else {
            send(&protected);
        }
        tally.sent += 1;
        tally.sent_bytes += protected.len() as u64;
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(packet.payload.len() as u32);
        let seq = packet.header.sequence_number;
        self.history[usize::from(seq) % HISTORY] = (seq, protected);
    }

    /// RFC 3550 §4 allows a clock that counts from anywhere.
    fn report(&self, now: Now) -> SenderReport {
        let fraction = (u128::from(now.0 % 1_000_000_000) << 32) / 1_000_000_000;
        SenderReport {
            ssrc: self.spec.ssrc,
            ntp_time: (now.0 / 1_000_000_000) << 32 | fraction as u64,
            rtp_time: self.timestamp,
            packet_count: self.packets,
            octet_count: self.octets,
            ..Default::default()
        }
    }
}

const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
/// Of each publisher that has audio.
pub(super) const AUDIO_PACKETS_PER_SECOND: u32 = 50;
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
const BACKLOG_MAX: Duration = Duration::from_millis(500);
const VIDEO_CLOCK: u32 = 90_000;
const AUDIO_CLOCK: u32 = 48_000;
/// Packets that can be sent again; a power of two, as sequence numbers wrap.
const HISTORY: usize = 1024;
