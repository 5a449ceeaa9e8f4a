//! One track on its way to one subscriber: which layer goes out, under which numbers, and what can be sent again.
//! Reads packets from the layer's cache, writes them protected into the transmit batch. Never sees the publisher's keys.

use std::time::Duration;

use ringmain_shared::command::SubscriptionSpec;
use ringmain_shared::id::{SubscriptionId, TrackId};
use ringmain_shared::limits::KEYFRAME_INTERVAL;
use ringmain_shared::media::{Kind, PayloadType, SpatialLayer, Ssrc, TemporalLayer};
use ringmain_shared::{DropReason, Now};

use super::clock::SenderClock;
use super::header::{HEADER_SIZE_MAX, HeaderTemplate, HeaderValues};
use super::history::{ResendBudget, SentHistory};
use super::packet::{InboundSeq, MediaPacket, OutboundSeq};
use super::ready::Ready;
use super::rewrite::Rewrite;
use super::track::{Layer, LayerClocks, Track, TrackKey};
use super::vp8::{OutboundNumbers, PictureNumbers, write_numbers};
use crate::buf::TxSlot;
use crate::io::{Path, Transmit};
use crate::srtp::{Outbound, Profile};
use crate::transport::TransportKey;

slotmap::new_key_type! {
    /// A subscription of this worker, with its generation.
    pub struct SubscriptionKey;
}

/// What of the subscriber's transport a packet needs on its way out.
#[derive(Debug)]
pub struct Egress<'a> {
    /// Where ICE says that the subscriber is.
    pub path: &'a Path,
    /// The subscriber's keys.
    pub srtp: &'a Outbound,
    /// The next transport-wide sequence number.
    pub transport_sequence: &'a mut u16,
    /// This turn's absolute send time.
    pub abs_send_time: [u8; 3],
    /// What this transport may resend.
    pub budget: &'a mut ResendBudget,
}

/// One subscription.
#[derive(Debug)]
pub struct Subscription {
    /// As control ordered it, with the latest wishes. No packet needs it.
    pub spec: Box<SubscriptionSpec>,
    /// The subscriber.
    pub transport: TransportKey,
    /// The track, while it exists on this worker.
    pub track: TrackKey,
    template: HeaderTemplate,
    ssrc: Ssrc,
    /// The payload type that came last, and what it is at the subscriber.
    mapped: Option<(PayloadType, PayloadType)>,
    rewrite: Rewrite,
    pictures: PictureNumbers,
    history: Option<SentHistory>,
    /// The layer that goes out; none before the first keyframe and while muted.
    layer: Option<SpatialLayer>,
    /// The layer that went out last.
    layer_before: Option<SpatialLayer>,
    /// The layer that should go out.
    wanted: Option<SpatialLayer>,
    /// When a keyframe was last asked for again.
    asked: Option<Now>,
    temporal: TemporalLayer,
    /// What control was last told.
    told: Option<(SpatialLayer, TemporalLayer)>,
    retransmission: OutboundSeq,
    /// Packets sent, for sender reports.
    pub packets: u32,
    /// Payload bytes sent, for sender reports.
    pub octets: u32,
    /// Something was sent since the last sender report.
    pub active: bool,
    /// Round trip to the subscriber, from its receiver reports.
    pub round_trip: Duration,
}

/// Payload types of one track that a subscriber accepted.
const CODECS_MAX: usize = 16;

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is in the transmit batch.
    Sent,
    /// It is in the transmit batch, and it is the first of another layer.
    Switched,
    /// It is not meant for this subscriber: another layer, muted, before the keyframe.
    NotForUs,
    /// It was meant for this subscriber and could not go.
    Dropped(DropReason),
}

impl Subscription {
    /// A subscription that waits for its first packet. `random` decides where its numbers begin.
    pub fn new(mut spec: SubscriptionSpec, transport: TransportKey, track: TrackKey, random: [u64; 2]) -> Self {
        spec.codecs.truncate(CODECS_MAX);
        let clock_rate = spec.codecs.first().map_or(90_000, |codec| codec.clock_rate);
        let has_rtx = spec.rtx_ssrc.is_some() && spec.codecs.iter().any(|codec| codec.rtx.is_some());
        Self {
            template: HeaderTemplate::new(spec.extensions, spec.mid),
            ssrc: spec.ssrc,
            mapped: None,
            rewrite: Rewrite::new(clock_rate, random[0]),
            pictures: PictureNumbers::new(random[1]),
            history: has_rtx.then(SentHistory::default),
            layer: None,
            layer_before: None,
            wanted: None,
            asked: None,
            temporal: spec.temporal_max,
            told: None,
            retransmission: OutboundSeq(random[1] >> 32 & 0x7fff),
            packets: 0,
            octets: 0,
            active: false,
            round_trip: Duration::from_millis(50),
            spec: Box::new(spec),
            transport,
            track,
        }
    }

    /// Its name.
    pub fn id(&self) -> SubscriptionId {
        self.spec.id
    }

    /// The layer that goes out now.
    pub fn layer(&self) -> Option<SpatialLayer> {
        self.layer
    }

    /// The temporal layers that go out now.
    pub fn temporal(&self) -> TemporalLayer {
        self.temporal
    }

    /// Changes what is wanted. Sequence numbers run on.
    pub fn adjust(&mut self, muted: bool, spatial_max: SpatialLayer, temporal_max: TemporalLayer) {
        if muted && !self.spec.muted {
            self.pause();
        }
        self.spec.muted = muted;
        self.spec.spatial_max = spatial_max;
        self.spec.temporal_max = temporal_max;
        self.temporal = self.temporal.min(temporal_max);
    }

    /// Takes payload types, extensions and m-section of a new negotiation. Numbers and SSRCs run on.
    pub fn renegotiate(&mut self, spec: SubscriptionSpec) {
        self.template = HeaderTemplate::new(spec.extensions, spec.mid);
        self.ssrc = spec.ssrc;
        self.mapped = None;
        // Another SSRC would begin its indices anew.
        *self.spec = SubscriptionSpec { muted: self.spec.muted, rtx_ssrc: self.spec.rtx_ssrc, ..spec };
        self.spec.codecs.truncate(CODECS_MAX);
    }

    /// Chooses the layer to send: the best that is alive and wished for, else the least that is alive.
    /// Returns the layer whose keyframe is needed for it.
    pub fn choose(&mut self, alive: u8) -> Option<SpatialLayer> {
        let allowed = alive & (2u8 << self.spec.spatial_max.min(6)).wrapping_sub(1);
        self.wanted = if allowed != 0 {
            Some(7 - allowed.leading_zeros() as u8)
        } else if alive != 0 {
            Some(alive.trailing_zeros() as u8)
        } else {
            self.wanted
        };
        self.needs_keyframe_of()
    }

    /// The layer whose keyframe this subscription waits for.
    pub fn needs_keyframe_of(&self) -> Option<SpatialLayer> {
        let waits = self.spec.kind == Kind::Video && !self.spec.muted && self.layer != self.wanted;
        self.wanted.filter(|_| waits)
    }

    /// A keyframe was asked for and did not come in time: true, at most once an interval.
    pub fn should_ask_again(&mut self, now: Now) -> bool {
        if self.needs_keyframe_of().is_none() || self.asked.is_some_and(|at| now.since(at) < KEYFRAME_INTERVAL) {
            return false;
        }
        self.asked = Some(now);
        true
    }

    /// The publisher began a layer anew: if this is the one that goes out, or that a muted subscription would go on with, nothing
    /// of before fits what comes now. Whether it is.
    pub fn begin_again(&mut self, spatial: SpatialLayer) -> bool {
        let concerned = self.layer_before == Some(spatial);
        if concerned {
            self.layer = None;
            self.layer_before = None;
        }
        concerned
    }

    /// Forwards one packet of the track, if it is for this subscriber. `bytes` are the cache's; the subscriber's own numbers are
    /// written over the last one's.
    #[inline]
    pub fn forward(
        &mut self,
        ready: &Ready,
        bytes: &mut [u8],
        clocks: &LayerClocks,
        egress: &mut Egress<'_>,
        now: Now,
        out: &mut dyn Transmit,
    ) -> Outcome {
        let (packet, spatial) = (&ready.packet, ready.spatial);
        let mut outcome = Outcome::Sent;
        if self.layer != Some(spatial) {
            if !self.may_switch(packet, spatial) {
                return Outcome::NotForUs;
            }
            self.switch(packet, spatial, clocks, now);
            // A publisher that begins anew time and again does not flood control with what it knows.
            if self.told.replace((spatial, self.temporal)) != Some((spatial, self.temporal)) {
                outcome = Outcome::Switched;
            }
        }
        if !self.temporal_admits(packet) {
            self.rewrite.skip(packet.sequence);
            if let Some(numbers) = packet.vp8 {
                self.pictures.skip(numbers);
            }
            return Outcome::NotForUs;
        }
        let Some(payload_type) = self.payload_type(packet.payload_type) else {
            self.rewrite.skip(packet.sequence);
            return Outcome::Dropped(DropReason::UnknownPayloadType);
        };
        let Some((sequence, timestamp)) = self.rewrite.map(packet, now) else {
            return Outcome::Dropped(DropReason::TooOld);
        };
        let vp8 = match packet.vp8 {
            None => OutboundNumbers::default(),
            Some(numbers) => match self.pictures.map(numbers) {
                Some(vp8) => vp8,
                None => return Outcome::Dropped(DropReason::TooOld),
            },
        };
        let numbers = Numbers { payload_type, ssrc: self.ssrc, sequence, timestamp };
        let size = match self.send(ready, bytes, numbers, vp8, egress, out) {
            Ok(size) => size,
            Err(reason) => return Outcome::Dropped(reason),
        };
        if let Some(history) = &mut self.history {
            history.record(packet, sequence, timestamp, vp8, spatial);
        }
        egress.budget.earn(size);
        self.packets = self.packets.wrapping_add(1);
        self.octets =
            self.octets.wrapping_add(u32::from(packet.payload_len.saturating_sub(u16::from(packet.descriptor_len))));
        self.active = true;
        outcome
    }

    /// A number of the layer that carries nothing leaves no gap.
    pub fn skip(&mut self, sequence: InboundSeq, spatial: SpatialLayer) {
        if self.layer == Some(spatial) {
            self.rewrite.skip(sequence);
        }
    }

    /// Sends a packet again on the RTX stream (RFC 4588 §4), as the subscriber asked by its sequence number.
    pub fn resend(
        &mut self,
        sequence: u16,
        layers: &[Option<Layer>],
        egress: &mut Egress<'_>,
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        let rtx_ssrc = self.spec.rtx_ssrc.ok_or(DropReason::RtxMissed)?;
        let history = self.history.as_mut().ok_or(DropReason::RtxMissed)?;
        let sent = history.may_resend(sequence, self.round_trip, now);
        let sent = sent.filter(|sent| self.rewrite.has_sent(sent.outbound)).ok_or(DropReason::RtxMissed)?;
        let layer = layers.get(usize::from(sent.layer())).and_then(Option::as_ref).ok_or(DropReason::RtxMissed)?;
        let (packet, bytes) = layer.cache.get(sent.inbound).ok_or(DropReason::RtxMissed)?;
        let codec = self.spec.codecs.iter().find(|codec| codec.from == packet.payload_type);
        let payload_type = codec.and_then(|codec| codec.rtx).ok_or(DropReason::RtxMissed)?;
        if !egress.budget.spend(bytes.len() + RESEND_OVERHEAD, now) {
            return Err(DropReason::RtxBudget);
        }
        history.note_resent(&sent, now);
        let timestamp = sent.timestamp(packet);
        let numbers = Numbers { payload_type, ssrc: rtx_ssrc, sequence: self.retransmission, timestamp };
        self.retransmission.0 += 1;
        let (descriptor, payload) =
            bytes.split_at_checked(usize::from(packet.descriptor_len)).ok_or(DropReason::RtpMalformed)?;
        let (mut slot, header_len) = self.begin(packet, descriptor, 2 + payload.len(), &numbers, egress, out)?;
        // RFC 4588 §4: the original sequence number, then the payload as it was.
        let clear_len = header_len + 2 + payload.len();
        let room = slot.bytes_mut();
        let body = room.get_mut(header_len..clear_len).and_then(|body| body.split_first_chunk_mut::<2>());
        let (original, body) = body.ok_or(DropReason::TxFull)?;
        *original = sequence.to_be_bytes();
        body.copy_from_slice(payload);
        write_numbers(body, packet, sent.vp8(packet));
        let size = egress.srtp.protect_rtp_slot(numbers.sequence.0, &mut slot, header_len, clear_len)?;
        self.commit(slot, size, egress);
        Ok(())
    }

    /// Where a sender report of this stream stands: its RTP time at the publisher's NTP time `theirs`.
    pub fn timestamp_at(&self, theirs: u64, track: &Track) -> Option<u32> {
        let clock = track.clock(self.layer?)?;
        (!self.rewrite.is_fresh()).then(|| self.rewrite.timestamp(clock.rtp_at(theirs)))
    }

    fn may_switch(&self, packet: &MediaPacket, spatial: SpatialLayer) -> bool {
        if self.spec.muted {
            return false;
        }
        match self.spec.kind {
            Kind::Audio => true,
            // A layer switch completes with a keyframe only.
            Kind::Video => self.wanted == Some(spatial) && packet.keyframe && packet.frame_start,
        }
    }

    #[cold]
    fn switch(&mut self, packet: &MediaPacket, spatial: SpatialLayer, clocks: &LayerClocks, now: Now) {
        if let Some(history) = &mut self.history {
            history.begin();
        }
        if self.layer_before == Some(spatial) && self.layer.is_none() && !self.rewrite.is_fresh() {
            self.rewrite.resume(packet);
        } else {
            let aligned = self.layer_before.and_then(|before| {
                let clock = |spatial: SpatialLayer| clocks.get(usize::from(spatial)).copied().flatten();
                let (before, after): (SenderClock, SenderClock) = (clock(before)?, clock(spatial)?);
                Some(self.rewrite.timestamp(before.rtp_at(after.ntp_at(packet.timestamp))))
            });
            self.rewrite.restart(packet, aligned, now);
        }
        self.pictures.restart();
        self.layer = Some(spatial);
        self.layer_before = Some(spatial);
        self.temporal = self.spec.temporal_max;
    }

    fn pause(&mut self) {
        self.layer = None;
    }

    /// Lower at once; higher only where the codec says that it can be joined.
    fn temporal_admits(&mut self, packet: &MediaPacket) -> bool {
        let Some(temporal) = packet.temporal else { return true };
        if packet.keyframe {
            // Whatever follows a keyframe can be joined; not every codec has another sign.
            self.temporal = self.spec.temporal_max;
        }
        if temporal <= self.temporal {
            return true;
        }
        let joinable = packet.frame_start && packet.switching_up && temporal <= self.spec.temporal_max;
        if joinable {
            self.temporal = temporal;
        }
        joinable
    }

    fn payload_type(&mut self, from: PayloadType) -> Option<PayloadType> {
        if let Some((last, to)) = self.mapped
            && last == from
        {
            return Some(to);
        }
        let codec = self.spec.codecs.iter().find(|codec| codec.from == from)?;
        self.mapped = Some((from, codec.to));
        Some(codec.to)
    }

    /// One packet of media into the transmit batch; nothing is copied that the cipher does not write.
    #[inline]
    fn send(
        &self,
        ready: &Ready,
        bytes: &mut [u8],
        numbers: Numbers,
        vp8: OutboundNumbers,
        egress: &mut Egress<'_>,
        out: &mut dyn Transmit,
    ) -> Result<usize, DropReason> {
        let packet = &ready.packet;
        let (descriptor, payload) =
            bytes.split_at_mut_checked(usize::from(packet.descriptor_len)).ok_or(DropReason::RtpMalformed)?;
        write_numbers(payload, packet, vp8);
        let (mut slot, header_len) = self.begin(packet, descriptor, payload.len(), &numbers, egress, out)?;
        if let (Some(first), true) = (slot.bytes_mut().first_mut(), ready.padding > 0) {
            *first |= PADDING_BIT;
        }
        let size = egress.srtp.protect_rtp_slot_from(numbers.sequence.0, payload, &mut slot, header_len)?;
        self.commit(slot, size, egress);
        Ok(size)
    }

    /// Room for a packet with its header written, and that header's length.
    #[inline]
    fn begin<'a>(
        &self,
        packet: &MediaPacket,
        descriptor: &[u8],
        body_len: usize,
        numbers: &Numbers,
        egress: &Egress<'_>,
        out: &'a mut dyn Transmit,
    ) -> Result<(TxSlot<'a>, usize), DropReason> {
        let values = HeaderValues {
            marker: packet.marker,
            payload_type: numbers.payload_type,
            sequence: numbers.sequence.header(),
            timestamp: numbers.timestamp,
            ssrc: numbers.ssrc,
            transport_sequence: *egress.transport_sequence,
            abs_send_time: egress.abs_send_time,
            descriptor,
        };
        let size_max = HEADER_SIZE_MAX.min(64 + descriptor.len()) + body_len + Profile::RTP_OVERHEAD_MAX;
        let mut slot = out.reserve(egress.path, size_max)?;
        let header_len = self.template.write(slot.bytes_mut(), &values, packet).ok_or(DropReason::TxFull)?;
        Ok((slot, header_len))
    }

    #[inline]
    fn commit(&self, slot: TxSlot<'_>, size: usize, egress: &mut Egress<'_>) {
        slot.commit(size);
        if self.template.has_transport_sequence() {
            *egress.transport_sequence = egress.transport_sequence.wrapping_add(1);
        }
    }
}

/// The P bit of an RTP header (RFC 3550 §5.1).
const PADDING_BIT: u8 = 0x20;

/// Under which numbers a packet goes out.
#[derive(Clone, Copy)]
struct Numbers {
    payload_type: PayloadType,
    ssrc: Ssrc,
    sequence: OutboundSeq,
    timestamp: u32,
}

/// Header, original sequence number, tag and UDP/IP of a packet sent again, roughly.
const RESEND_OVERHEAD: usize = 80;

/// What control needs to know to name a subscription.
impl Subscription {
    /// The track.
    pub fn track_id(&self) -> TrackId {
        self.spec.track
    }
}
