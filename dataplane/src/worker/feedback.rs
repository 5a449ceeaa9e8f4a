//! RTCP, both ways. Publishers are owed reports, requests for what is missing, and arrival times (RFC 3550, RFC 4585, RFC 5104);
//! subscribers get sender reports and ask for things again, which [`repair`](super::repair) sends. Feedback acts only on streams that its
//! transport really has.

use std::time::Duration;

use arrayvec::ArrayVec;
use ringmain_shared::limits::{RTCP_BLOCKS_MAX, RTCP_NACK_ENTRIES_MAX};
use ringmain_shared::media::{SpatialLayer, Ssrc};
use ringmain_shared::{DropReason, Now};

use super::Worker;
use super::relay::RelayItem;
use crate::forward::clock::SenderClock;
use crate::forward::subscription::SubscriptionKey;
use crate::forward::track::{Origin, TrackKey};
use crate::io::{Path, Transmit};
use crate::packet::rtcp::{
    Compound, CompoundWriter, FeedbackFields, FirEntry, Nack, Packet, ReportBlock, SenderInfo, SenderReport,
};
use crate::receive::{self, rtt::round_trip};
use crate::srtp::Profile;
use crate::transport::publisher::{REPORT_INTERVAL, StreamRole};
use crate::transport::{IceAgent, Keys, Publisher, Transport, TransportKey, subscriber};

/// Clear RTCP of one datagram of ours: what fits any path.
const RTCP_SIZE_MAX: usize = 1200;
/// Streams whose reports share one datagram.
const REPORTS_PER_DATAGRAM: usize = 6;
/// A publisher paces what it sends again: about a frame of patience beyond the round trip before it is asked once more.
const PACING: Duration = Duration::from_millis(30);
/// Sequence numbers asked for in one go.
const NACKS_MAX: usize = RTCP_NACK_ENTRIES_MAX;
/// What the requests to one stream take at most: a NACK with an entry for each number, and a FIR.
const STREAM_FEEDBACK_SIZE_MAX: usize = 12 + 4 * NACKS_MAX + 20;
/// The source description of our own reports (RFC 3550 §6.5.1).
const OWN_CNAME: &str = "ringmain";

impl Worker {
    /// One RTCP datagram.
    pub(super) fn handle_rtcp(&mut self, path: Path, datagram: &mut [u8], now: Now) -> Result<(), DropReason> {
        let key = *self.names.paths.get(&path).ok_or(DropReason::UnknownRemote)?;
        let transport = self.transports.get_mut(key).ok_or(DropReason::UnknownRemote)?;
        let keys = transport.keys.as_mut().ok_or(DropReason::MediaEarly)?;
        if !transport.ice.admits_media(path) {
            return Err(DropReason::MediaFromUnselected);
        }
        let publisher = transport.publisher.as_deref();
        let clear = match keys.inbound.unprotect_rtcp(datagram) {
            Err(DropReason::TooManySsrcs) => {
                let bound = |ssrc| {
                    publisher.is_some_and(|publisher| publisher.streams.iter().any(|stream| stream.ssrc == ssrc))
                };
                keys.inbound.make_room(bound);
                return Err(DropReason::TooManySsrcs);
            }
            clear => clear?,
        };
        transport.ice.heard(now);
        for packet in Compound::parse(clear.bytes())? {
            if let Err(reason) = packet.and_then(|packet| self.handle_report(key, &packet, now)) {
                self.count(reason);
            }
        }
        Ok(())
    }

    fn handle_report(&mut self, key: TransportKey, packet: &Packet<'_>, now: Now) -> Result<(), DropReason> {
        match packet {
            Packet::SenderReport(report) => {
                self.handle_sender_report(key, report, now)?;
                self.handle_blocks(key, report.blocks(), now);
            }
            Packet::ReceiverReport(report) => self.handle_blocks(key, report.blocks(), now),
            Packet::Nack(nack) => self.handle_nack(key, nack, now)?,
            Packet::Pli(pli) => self.handle_keyframe_request(key, pli.media_ssrc, now)?,
            Packet::Fir(fir) => {
                for entry in fir.entries() {
                    self.handle_keyframe_request(key, entry.ssrc, now)?;
                }
            }
            Packet::Bye(bye) => self.handle_bye(key, bye.ssrcs(), now),
            // Bandwidth estimation towards subscribers attaches here; until then the feedback is read and let go.
            Packet::TransportFeedback(_) | Packet::Remb(_) => {}
            Packet::Description(_) | Packet::Unknown { .. } => {}
        }
        Ok(())
    }

    /// A publisher's sender report: kept for lip sync, and for the round trip of our own reports.
    fn handle_sender_report(
        &mut self,
        key: TransportKey,
        report: &SenderReport<'_>,
        now: Now,
    ) -> Result<(), DropReason> {
        let ours = self.clock.at(now).0;
        let transport = self.transports.get_mut(key).ok_or(DropReason::UnknownRemote)?;
        let publisher = transport.publisher.as_deref_mut().ok_or(DropReason::ForeignFeedback)?;
        let info = report.info;
        let found = publisher.streams.iter_mut().find(|stream| stream.ssrc == info.ssrc);
        let stream = found.ok_or(DropReason::ForeignFeedback)?;
        let StreamRole::Media(media) = &mut stream.role else { return Ok(()) };
        media.inbound.handle_sender_report(info.ntp, info.rtp_timestamp, now);
        publisher.clock.learn(info.ntp, ours);
        let offset = publisher.clock;
        let (spatial, track) = (stream.spatial, publisher.tracks.get(stream.track).map(|track| track.key));
        let Some(track) = track.and_then(|key| self.tracks.get_mut(key)) else { return Ok(()) };
        let clock = SenderClock { ntp: info.ntp, rtp: info.rtp_timestamp, clock_rate: track.clock_rate() };
        if let Some(layer) = track.layer_mut(spatial) {
            layer.clock = Some(clock);
        }
        // One offset for all tracks of the publisher, at once: or they would be apart until each has had its own report.
        for key in publisher.tracks.iter().map(|track| track.key) {
            let Some(track) = self.tracks.get_mut(key) else { continue };
            track.offset = offset;
            let id = track.id();
            for (spatial, layer) in (0..).zip(&track.layers) {
                let Some(clock) = layer.as_ref().and_then(|layer| layer.clock) else { continue };
                let item = RelayItem::Clock { track: id, spatial, clock, offset };
                self.outbox.relays.extend(track.mirrors.iter().map(|&to| (to, item.clone())));
            }
        }
        Ok(())
    }

    /// What the other end says of our streams: the round trip.
    fn handle_blocks(&mut self, key: TransportKey, blocks: impl Iterator<Item = ReportBlock>, now: Now) {
        let ntp = self.clock.at(now);
        for block in blocks {
            let Some(transport) = self.transports.get(key) else { return };
            let subscription = transport.subscriber.subscription_of(block.ssrc);
            let subscription = subscription.and_then(|key| self.subscriptions.get_mut(key));
            let Some(subscription) = subscription else { continue };
            if let Some(trip) = round_trip(block.last_sr, block.delay_since_last_sr, ntp) {
                subscription.round_trip = (subscription.round_trip * 7 + trip.min(Duration::from_secs(2))) / 8;
            }
        }
    }

    /// A subscriber asks for packets again: that waits until it is this subscriber's turn, and no longer than it helps.
    fn handle_nack(&mut self, key: TransportKey, nack: &Nack<'_>, now: Now) -> Result<(), DropReason> {
        let transport = self.transports.get_mut(key).ok_or(DropReason::UnknownRemote)?;
        let subscription = transport.subscriber.subscription_of(nack.media_ssrc).ok_or(DropReason::ForeignFeedback)?;
        let repairs = &mut transport.subscriber.repairs;
        if repairs.is_empty() {
            self.repairing.push_back(key);
        }
        for (first, following) in nack.entries() {
            if !repairs.push(subscription, first, following, now) {
                self.drops[DropReason::RtxBudget as usize] += 1 + u64::from(following.count_ones());
            }
        }
        Ok(())
    }

    fn handle_keyframe_request(&mut self, key: TransportKey, ssrc: Ssrc, now: Now) -> Result<(), DropReason> {
        let transport = self.transports.get(key).ok_or(DropReason::UnknownRemote)?;
        let subscription = transport.subscriber.subscription_of(ssrc).ok_or(DropReason::ForeignFeedback)?;
        let subscription = self.subscriptions.get(subscription).ok_or(DropReason::ForeignFeedback)?;
        // While a switch is under way its keyframe is asked for already.
        if let Some(spatial) = subscription.needs_keyframe_of().or(subscription.layer()) {
            self.want_keyframe(subscription.track, spatial, now);
        }
        Ok(())
    }

    /// Somebody waits for a keyframe of a layer. How often the publisher hears of it is the layer's arbiter's business.
    pub(super) fn want_keyframe(&mut self, key: TrackKey, spatial: SpatialLayer, now: Now) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        match track.origin {
            Origin::Relay(from) => {
                let id = track.id();
                let Some(asked) = track.keyframes_asked.get_mut(usize::from(spatial)) else { return };
                if asked.is_none_or(|at| now.since(at) >= RELAYED_REQUEST_INTERVAL) {
                    *asked = Some(now);
                    self.outbox.relays.push((from, RelayItem::KeyframeWanted { track: id, spatial }));
                }
            }
            Origin::Local(transport_key) => {
                let Some(transport) = self.transports.get_mut(transport_key) else { return };
                let Some(publisher) = transport.publisher.as_deref_mut() else { return };
                let Some(index) = publisher.tracks.iter().position(|track| track.key == key) else { return };
                let Some((_, media)) = publisher.media_mut(index, spatial) else { return };
                media.wants_keyframe = true;
                if !std::mem::replace(&mut publisher.fed, true) {
                    self.fed.push(transport_key);
                }
            }
        }
    }

    fn handle_bye(&mut self, key: TransportKey, ssrcs: impl Iterator<Item = Ssrc>, now: Now) {
        for ssrc in ssrcs {
            let Some(transport) = self.transports.get_mut(key) else { return };
            let Some(publisher) = transport.publisher.as_deref_mut() else { return };
            let Some(stream) = publisher.streams.iter_mut().find(|stream| stream.ssrc == ssrc) else { continue };
            // Each end is work for every subscriber, so a stream that goes on and off has to take its time.
            if stream.ended.is_some_and(|at| now.since(at) < BYE_INTERVAL) {
                continue;
            }
            stream.ended = Some(now);
            let Some(track) = publisher.tracks.get_mut(stream.track) else { continue };
            let changed =
                matches!(stream.role, StreamRole::Media(_)).then(|| track.activity.end(stream.spatial)).flatten();
            let key = track.key;
            if let Some(layers) = changed {
                self.layers_changed(key, layers);
            }
        }
    }

    /// Answers every publisher that something came from in this turn.
    pub(super) fn answer_publishers(&mut self, now: Now, out: &mut dyn Transmit) {
        while let Some(key) = self.fed.pop() {
            let transport = self.transports.get_mut(key);
            if let Some(publisher) = transport.and_then(|transport| transport.publisher.as_deref_mut()) {
                publisher.fed = false;
            }
            self.answer_publisher(key, now, out);
            self.schedule(key);
        }
    }

    /// The feedback that is due to one publisher.
    pub(super) fn answer_publisher(&mut self, key: TransportKey, now: Now, out: &mut dyn Transmit) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(publisher) = transport.publisher.as_deref_mut() else { return };
        let mut buffer = [0; RTCP_SIZE_MAX];
        let mut writer = CompoundWriter::new(&mut buffer);

        // Seldom any, and then as many as there are tracks.
        let mut changes: Vec<(TrackKey, u8)> = Vec::new();
        for track in &mut publisher.tracks {
            if let Some(layers) = track.activity.poll(now) {
                changes.push((track.key, layers));
            }
        }
        let watched = |index: usize| {
            let track = publisher.tracks.get(index).and_then(|track| self.tracks.get(track.key));
            track.is_some_and(|track| !track.subscribers.is_empty() || !track.mirrors.is_empty())
        };
        let own = publisher.own_ssrc;
        if let Some(measured) = transport.ice.round_trip() {
            publisher.round_trip = measured + PACING;
        }
        for stream in &mut publisher.streams {
            let StreamRole::Media(media) = &mut stream.role else { continue };
            if writer.len() > RTCP_SIZE_MAX - STREAM_FEEDBACK_SIZE_MAX {
                let len = writer.len();
                send_rtcp(
                    &transport.ice,
                    &mut transport.keys,
                    buffer.get(..len).unwrap_or_default(),
                    &mut self.drops,
                    out,
                );
                writer = CompoundWriter::new(&mut buffer);
            }
            let mut missing: ArrayVec<u16, NACKS_MAX> = ArrayVec::new();
            if let Some(nack) = &mut media.nack
                && nack.poll(now, publisher.round_trip, &mut missing).is_some()
            {
                media.wants_keyframe = true;
            }
            if !missing.is_empty() {
                self.stats.nacks_sent += missing.len() as u64;
                let _ = writer.nack(own, stream.ssrc, &missing);
            }
            if !watched(stream.track) {
                media.keyframes.cancel();
                media.wants_keyframe = false;
                continue;
            }
            let wanted = std::mem::take(&mut media.wants_keyframe);
            if if wanted { media.keyframes.request(now) } else { media.keyframes.poll(now) } {
                self.stats.keyframe_requests += 1;
                if media.pli {
                    let _ = writer.pli(own, stream.ssrc);
                } else {
                    media.fir_sequence = media.fir_sequence.wrapping_add(1);
                    let _ = writer.fir(own, &[FirEntry { ssrc: stream.ssrc, sequence: media.fir_sequence }]);
                }
            }
        }
        let len = writer.len();
        if let Some(clear) = buffer.get(..len).filter(|clear| !clear.is_empty()) {
            send_rtcp(&transport.ice, &mut transport.keys, clear, &mut self.drops, out);
        }
        self.send_arrivals(key, now, out);
        self.send_receiver_reports(key, now, out);
        for (track, layers) in changes {
            self.layers_changed(track, layers);
        }
    }

    /// Transport-wide feedback: when each packet came.
    fn send_arrivals(&mut self, key: TransportKey, now: Now, out: &mut dyn Transmit) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let mut buffer = [0; RTCP_SIZE_MAX];
        for _ in 0..FEEDBACKS_PER_TURN_MAX {
            let Some(publisher) = transport.publisher.as_deref_mut() else { return };
            if !publisher.spec.transport_cc || !publisher.transport_cc.due(now) {
                return;
            }
            let media_ssrc = publisher.streams.first().map_or(Ssrc(0), |stream| stream.ssrc);
            let arrivals = &mut *self.arrivals;
            let Some(feedback) = publisher.transport_cc.take(now, arrivals) else { return };
            let mut writer = CompoundWriter::new(&mut buffer);
            let fields = FeedbackFields {
                sender_ssrc: publisher.own_ssrc,
                media_ssrc,
                base_sequence: feedback.base_seq,
                feedback_count: feedback.feedback_count,
            };
            self.times.clear();
            self.times.extend(arrivals.iter().map(|&(_, at)| at));
            let _ = writer.transport_feedback(&fields, &self.times);
            let len = writer.len();
            send_rtcp(&transport.ice, &mut transport.keys, buffer.get(..len).unwrap_or_default(), &mut self.drops, out);
        }
    }

    /// Receiver reports, with REMB for those who know nothing better (RFC 3550 §6.4.2).
    fn send_receiver_reports(&mut self, key: TransportKey, now: Now, out: &mut dyn Transmit) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(publisher) = transport.publisher.as_deref_mut() else { return };
        if publisher.report_at.is_none_or(|at| at > now) {
            return;
        }
        let mut buffer = [0; RTCP_SIZE_MAX];
        let mut writer = CompoundWriter::new(&mut buffer);
        let (own, mut active) = (publisher.own_ssrc, false);
        let mut blocks: ArrayVec<ReportBlock, RTCP_BLOCKS_MAX> = ArrayVec::new();
        for stream in &mut publisher.streams {
            let StreamRole::Media(media) = &mut stream.role else { continue };
            active |= now.since(stream.heard) < 2 * REPORT_INTERVAL;
            if let Some(block) = media.inbound.report_block(now) {
                let _ = blocks.try_push(block_of(stream.ssrc, &block));
            }
        }
        publisher.report_at = active.then_some(now + REPORT_INTERVAL);
        let _ = writer.receiver_report(own, &blocks);
        let _ = writer.description(&[(own, OWN_CNAME)]);
        if let Some(rate_bps) = publisher.remb_due(&blocks, now) {
            let ssrcs: ArrayVec<Ssrc, RTCP_BLOCKS_MAX> = blocks.iter().map(|block| block.ssrc).collect();
            let _ = writer.remb(own, rate_bps, &ssrcs);
        }
        let len = writer.len();
        send_rtcp(&transport.ice, &mut transport.keys, buffer.get(..len).unwrap_or_default(), &mut self.drops, out);
    }

    /// Sender reports of what a subscriber gets, on the publisher's clock as we know it: what was in sync stays so.
    pub(super) fn send_sender_reports(&mut self, key: TransportKey, now: Now, out: &mut dyn Transmit) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        if transport.subscriber.report_at.is_none_or(|at| at > now) {
            return;
        }
        say_goodbye(transport, &mut self.drops, out);
        let ntp = self.clock.at(now).0;
        let mut active = false;
        let streams: ArrayVec<SubscriptionKey, STREAMS_MAX> =
            transport.subscriber.streams.iter().map(|stream| stream.subscription).take(STREAMS_MAX).collect();
        for group in streams.chunks(REPORTS_PER_DATAGRAM) {
            let mut buffer = [0; RTCP_SIZE_MAX];
            let mut writer = CompoundWriter::new(&mut buffer);
            for &subscription in group {
                let Some(subscription) = self.subscriptions.get_mut(subscription) else { continue };
                if !std::mem::take(&mut subscription.active) {
                    continue;
                }
                active = true;
                let Some(track) = self.tracks.get(subscription.track) else { continue };
                let timestamp = track.offset.theirs(ntp).and_then(|theirs| subscription.timestamp_at(theirs, track));
                let Some(rtp_timestamp) = timestamp else { continue };
                let info = SenderInfo {
                    ssrc: subscription.spec.ssrc,
                    ntp,
                    rtp_timestamp,
                    packet_count: subscription.packets,
                    octet_count: subscription.octets,
                };
                let _ = writer.sender_report(&info, &[]);
                let _ = writer.description(&[(subscription.spec.ssrc, &subscription.spec.cname)]);
            }
            let len = writer.len();
            if let Some(clear) = buffer.get(..len).filter(|clear| !clear.is_empty()) {
                send_rtcp(&transport.ice, &mut transport.keys, clear, &mut self.drops, out);
            }
        }
        transport.subscriber.report_at = active.then_some(now + subscriber::REPORT_INTERVAL);
    }
}

/// Counters of packets that ended unused, by reason.
type Drops = [u64; DropReason::COUNT];

/// Streams of one subscriber that reports are sent for.
const STREAMS_MAX: usize = 512;
/// A stream may end once in this time; one that ends sooner again is taken for silent when it is.
const BYE_INTERVAL: Duration = Duration::from_secs(1);
/// Feedback datagrams to one publisher in one turn.
const FEEDBACKS_PER_TURN_MAX: usize = 4;
/// Keyframe requests for a mirrored track, at most this often; the origin coalesces them further.
const RELAYED_REQUEST_INTERVAL: Duration = Duration::from_millis(100);

impl Publisher {
    /// The rate to tell a publisher now, if it goes by REMB.
    fn remb_due(&mut self, blocks: &[ReportBlock], now: Now) -> Option<u64> {
        if !self.spec.remb || self.spec.transport_cc {
            return None;
        }
        let received = self.rate.rate_bps(now);
        // Loss as the reports of this interval have it; 256 packets a stream stand for its share.
        let lost = blocks.iter().map(|block| u64::from(block.fraction_lost)).sum();
        self.remb.update(received, 256 * blocks.len() as u64, lost, now);
        self.remb.poll(now)
    }
}

/// Tells the peer which of our streams have ended (RFC 3550 §6.6): a report without blocks, then BYE.
fn say_goodbye(transport: &mut Transport, drops: &mut Drops, out: &mut dyn Transmit) {
    let ended = std::mem::take(&mut transport.subscriber.ended);
    for group in ended.chunks(RTCP_BLOCKS_MAX) {
        let mut buffer = [0; RTCP_SIZE_MAX];
        let mut writer = CompoundWriter::new(&mut buffer);
        let Some(&first) = group.first() else { continue };
        let _ = writer.receiver_report(first, &[]);
        let _ = writer.bye(group);
        let len = writer.len();
        send_rtcp(&transport.ice, &mut transport.keys, buffer.get(..len).unwrap_or_default(), drops, out);
    }
}

/// A report block as it goes on the wire. The SSRC may have changed since the stream began.
fn block_of(ssrc: Ssrc, block: &receive::ReportBlock) -> ReportBlock {
    ReportBlock {
        ssrc,
        fraction_lost: block.fraction_lost,
        cumulative_lost: block.cumulative_lost,
        highest_sequence: block.highest_seq,
        jitter: block.jitter,
        last_sr: block.lsr,
        delay_since_last_sr: block.dlsr,
    }
}

/// Protects and sends one RTCP datagram; nowhere to send it to, nothing is sent.
fn send_rtcp(ice: &IceAgent, keys: &mut Option<Keys>, clear: &[u8], drops: &mut Drops, out: &mut dyn Transmit) {
    let (Some(path), Some(keys)) = (ice.selected(), keys.as_mut()) else { return };
    let sent = out.reserve(&path, clear.len() + Profile::RTCP_OVERHEAD_MAX).and_then(|mut slot| {
        let room = slot.bytes_mut().get_mut(..clear.len()).ok_or(DropReason::TxFull)?;
        room.copy_from_slice(clear);
        let size = keys.outbound.protect_rtcp(slot.bytes_mut(), clear.len())?;
        slot.commit(size);
        Ok(())
    });
    if let Err(reason) = sent {
        drops[reason as usize] += 1;
    }
}
