//! What a publisher's transport sends us: which SSRC is which layer of which track, and the feedback that each stream is owed.
//! Owns the streams. Never sees subscribers; the worker hands packets on.

use std::time::Duration;

use ringmain_shared::Now;
use ringmain_shared::command::{ReceiveSpec, TrackSpec};
use ringmain_shared::drop_reason::DropReason;
use ringmain_shared::limits::SSRCS_PER_TRANSPORT_MAX;
use ringmain_shared::media::{Extension, Kind, PayloadType, SpatialLayer, Ssrc};

use crate::forward::clock::ClockOffset;
use crate::forward::track::TrackKey;
use crate::packet::rtp::RtpHeader;
use crate::receive::{
    AudioObserver, InboundStream, KeyframeArbiter, LayerActivity, NackGenerator, Policer, ReceiveRate, RembEstimator,
    TransportCcRecorder,
};

/// The receiving half of a transport.
#[derive(Debug)]
pub struct Publisher {
    /// As negotiated; `tracks` has one entry for each of its tracks, in order.
    pub spec: ReceiveSpec,
    /// The worker's keys and our notes of each track.
    pub tracks: Vec<PublishedTrack>,
    /// Every SSRC that is bound to a track.
    pub streams: Vec<Stream>,
    /// Arrivals by transport-wide number.
    pub transport_cc: TransportCcRecorder,
    /// Bit rate received.
    pub rate: ReceiveRate,
    /// What we tell publishers that know nothing better.
    pub remb: RembEstimator,
    /// How much may come at all.
    pub policer: Policer,
    /// The publisher's wall clock against ours.
    pub clock: ClockOffset,
    /// Round trip to the publisher.
    pub round_trip: Duration,
    /// When the next receiver report is due; none while nothing came since the last.
    pub report_at: Option<Now>,
    /// Something came from it in this turn: it is on the worker's list of those who are answered.
    pub fed: bool,
    /// Packets expected on streams that are gone.
    expected_before: u64,
    /// SSRC that we report from.
    pub own_ssrc: Ssrc,
    /// Extensions by their negotiated id, to be looked up per packet.
    extensions: [Option<Extension>; 16],
}

/// Our notes of one published track.
#[derive(Debug)]
pub struct PublishedTrack {
    /// Where the worker keeps it.
    pub key: TrackKey,
    /// Which layers are alive.
    pub activity: LayerActivity,
    /// How loud it is.
    pub audio: Option<AudioObserver>,
}

/// One SSRC of a publisher.
#[derive(Debug)]
pub struct Stream {
    /// On the wire.
    pub ssrc: Ssrc,
    /// Index in `Publisher::tracks`.
    pub track: usize,
    /// Which layer.
    pub spatial: SpatialLayer,
    /// When its last packet came.
    pub heard: Now,
    /// When the publisher last said BYE for it.
    pub ended: Option<Now>,
    /// Media or repair.
    pub role: StreamRole,
}

/// What a stream carries.
#[derive(Debug)]
pub enum StreamRole {
    /// The layer itself.
    Media(Box<MediaStream>),
    /// Retransmissions of the layer (RFC 4588).
    Repair,
}

/// The state of a media stream.
#[derive(Debug)]
pub struct MediaStream {
    /// Sequence, jitter, reports.
    pub inbound: InboundStream,
    /// What is missing; none when NACK was not negotiated.
    pub nack: Option<NackGenerator>,
    /// When to ask for a keyframe.
    pub keyframes: KeyframeArbiter,
    /// What was lost will not come any more: only a keyframe mends it.
    pub wants_keyframe: bool,
    /// The publisher understands PLI; otherwise FIR.
    pub pli: bool,
    /// FIR command sequence number (RFC 5104 §4.3.1.1).
    pub fir_sequence: u8,
    /// It began anew, and no packet has carried that to the subscribers yet.
    pub began_anew: bool,
}

/// Settings that are the same for every publisher.
#[derive(Clone, Copy, Debug)]
pub struct PublisherSettings {
    /// Datagrams beyond this rate are dropped before decryption, bits per second; zero is no limit.
    pub rate_bps_max: u64,
    /// Where a publisher's own estimate begins when it knows only REMB, bits per second.
    pub remb_start_bps: u64,
    /// RFC 6464 level at or below which a packet counts as sound; 0 is the loudest.
    pub audio_threshold: u8,
}

/// A stream that was silent this long may be replaced by another SSRC in its place.
const REBIND_AFTER: Duration = Duration::from_secs(1);
/// Time between receiver reports.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);

impl Publisher {
    /// A publisher without tracks.
    pub fn new(settings: &PublisherSettings, own_ssrc: Ssrc, now: Now) -> Self {
        let rate_max = if settings.rate_bps_max == 0 { u64::MAX } else { settings.rate_bps_max };
        Self {
            spec: ReceiveSpec::default(),
            tracks: Vec::new(),
            streams: Vec::new(),
            transport_cc: TransportCcRecorder::new(),
            rate: ReceiveRate::new(),
            remb: RembEstimator::new(settings.remb_start_bps, rate_max, now),
            policer: Policer::new(rate_max, now),
            clock: ClockOffset::default(),
            round_trip: Duration::from_millis(50),
            report_at: None,
            fed: false,
            expected_before: 0,
            own_ssrc,
            extensions: [None; 16],
        }
    }

    /// Takes a new negotiation; `keys` are the worker's keys of its tracks, in order. Streams of tracks that stay are kept.
    pub fn negotiate(&mut self, spec: ReceiveSpec, keys: &[TrackKey], settings: &PublisherSettings) {
        let mut former = std::mem::take(&mut self.tracks);
        let moved: Vec<Option<usize>> =
            former.iter().map(|track| keys.iter().position(|&key| key == track.key)).collect();
        let before = self.expected();
        self.streams.retain_mut(|stream| match moved.get(stream.track).copied().flatten() {
            Some(index) => {
                stream.track = index;
                true
            }
            None => false,
        });
        self.expected_before += before - self.expected();
        self.tracks = std::iter::zip(keys, &spec.tracks)
            .map(|(&key, track)| match former.iter().position(|old| old.key == key) {
                Some(index) => former.swap_remove(index),
                None => PublishedTrack::new(key, track, settings),
            })
            .collect();
        for (id, slot) in self.extensions.iter_mut().enumerate() {
            *slot = spec.extensions.extension(id as u8);
        }
        self.spec = spec;
    }

    /// The extension that goes by `id` on this transport.
    pub fn extension(&self, id: u8) -> Option<Extension> {
        self.extensions.get(usize::from(id)).copied().flatten()
    }

    /// When feedback is due.
    pub fn next_deadline(&self) -> Option<Now> {
        let streams = self.streams.iter().filter_map(|stream| match &stream.role {
            StreamRole::Media(media) => {
                let nack = media.nack.as_ref().and_then(NackGenerator::next_deadline);
                [nack, media.keyframes.next_deadline()].into_iter().flatten().min()
            }
            StreamRole::Repair => None,
        });
        let transport_cc = self.transport_cc.next_deadline().filter(|_| self.spec.transport_cc);
        let activity = self.tracks.iter().filter_map(|track| track.activity.next_deadline());
        streams.chain(transport_cc).chain(self.report_at).chain(activity).min()
    }

    /// Packets that should have come so far, on all of its streams.
    pub fn expected(&self) -> u64 {
        let expected = |stream: &Stream| match &stream.role {
            StreamRole::Media(media) => media.inbound.counters().expected,
            StreamRole::Repair => 0,
        };
        self.expected_before + self.streams.iter().map(expected).sum::<u64>()
    }

    /// The stream of an authenticated packet; a new SSRC is bound to its place if it has one.
    pub fn stream_of(&mut self, header: &RtpHeader, packet: &[u8], now: Now) -> Result<usize, DropReason> {
        if let Some(index) = self.streams.iter().position(|stream| stream.ssrc == header.ssrc) {
            return Ok(index);
        }
        let place = self.place_of(header, packet).ok_or(DropReason::UnknownStream)?;
        self.bind(header.ssrc, place, now)
    }

    /// The media stream of a layer.
    pub fn media_mut(&mut self, track: usize, spatial: SpatialLayer) -> Option<(Ssrc, &mut MediaStream)> {
        self.streams.iter_mut().find_map(|stream| match &mut stream.role {
            StreamRole::Media(media) if stream.track == track && stream.spatial == spatial => {
                Some((stream.ssrc, &mut **media))
            }
            _ => None,
        })
    }

    /// The SSRC that repairs a layer's media also goes by another payload type: which media it stands for.
    pub fn repaired_payload_type(&self, track: usize, rtx: PayloadType) -> Option<PayloadType> {
        let codecs = &self.spec.tracks.get(track)?.codecs;
        codecs.iter().find(|codec| codec.rtx == Some(rtx)).map(|codec| codec.payload_type)
    }

    fn place_of(&self, header: &RtpHeader, packet: &[u8]) -> Option<Place> {
        if let Some(place) = self.announced(header.ssrc) {
            return Some(place);
        }
        let (mut mid, mut rid, mut repaired) = (None, None, None);
        for (id, value) in header.extensions(packet) {
            match self.extension(id) {
                Some(Extension::Mid) => mid = Some(value),
                Some(Extension::Rid) => rid = Some(value),
                Some(Extension::RepairedRid) => repaired = Some(value),
                _ => {}
            }
        }
        let track = match mid {
            Some(mid) => self.spec.tracks.iter().position(|track| track.mid.as_bytes() == mid)?,
            None => self.only_track_with(header.payload_type)?,
        };
        let spec = self.spec.tracks.get(track)?;
        let is_rtx = spec.codecs.iter().any(|codec| codec.rtx == Some(header.payload_type));
        let spatial = match repaired.or(rid) {
            Some(rid) => spec.rids.iter().find(|layer| layer.rid.as_bytes() == rid)?.spatial,
            // Without a rid a simulcast packet has no place; the sender repeats the rid until it is acknowledged.
            None if !spec.rids.is_empty() => return None,
            None => 0,
        };
        Some(Place { track, spatial, repair: is_rtx || repaired.is_some() })
    }

    fn announced(&self, ssrc: Ssrc) -> Option<Place> {
        self.spec.tracks.iter().enumerate().find_map(|(track, spec)| {
            spec.ssrcs.iter().find_map(|layer| {
                let repair = layer.rtx == Some(ssrc);
                (repair || layer.ssrc == ssrc).then_some(Place { track, spatial: layer.spatial, repair })
            })
        })
    }

    fn only_track_with(&self, payload_type: PayloadType) -> Option<usize> {
        let has = |track: &TrackSpec| {
            track.codecs.iter().any(|codec| codec.payload_type == payload_type || codec.rtx == Some(payload_type))
        };
        let mut tracks = self.spec.tracks.iter().enumerate().filter(|(_, track)| has(track)).map(|(index, _)| index);
        tracks.next().filter(|_| tracks.next().is_none())
    }

    fn bind(&mut self, ssrc: Ssrc, place: Place, now: Now) -> Result<usize, DropReason> {
        let same_place = |stream: &Stream| {
            stream.track == place.track
                && stream.spatial == place.spatial
                && matches!(stream.role, StreamRole::Repair) == place.repair
        };
        if let Some(index) = self.streams.iter().position(same_place) {
            // The place is taken: only a silent stream gives way, so that nobody takes a live one over.
            let stream = self.streams.get_mut(index).ok_or(DropReason::UnknownStream)?;
            if !stream.has_ended() && now.since(stream.heard) < REBIND_AFTER {
                return Err(DropReason::UnknownStream);
            }
            stream.ssrc = ssrc;
            if let StreamRole::Media(media) = &mut stream.role {
                media.inbound.begin_anew(ssrc);
            }
            return Ok(index);
        }
        if self.streams.len() >= SSRCS_PER_TRANSPORT_MAX {
            return Err(DropReason::TooManySsrcs);
        }
        let track = self.spec.tracks.get(place.track).ok_or(DropReason::UnknownStream)?;
        let role =
            if place.repair { StreamRole::Repair } else { StreamRole::Media(Box::new(MediaStream::new(ssrc, track))) };
        self.streams.push(Stream { ssrc, track: place.track, spatial: place.spatial, heard: now, ended: None, role });
        Ok(self.streams.len() - 1)
    }
}

impl Stream {
    /// Nothing came since the publisher said BYE for it. Its place and its numbers stay: senders that switch a layer off say BYE,
    /// and go on under the same SSRC when they switch it on again.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some_and(|at| at >= self.heard)
    }
}

/// Where an SSRC belongs.
#[derive(Clone, Copy)]
struct Place {
    track: usize,
    spatial: SpatialLayer,
    repair: bool,
}

impl PublishedTrack {
    fn new(key: TrackKey, spec: &TrackSpec, settings: &PublisherSettings) -> Self {
        let audio = (spec.kind == Kind::Audio).then(|| AudioObserver::new(settings.audio_threshold));
        Self { key, activity: LayerActivity::new(), audio }
    }
}

impl MediaStream {
    fn new(ssrc: Ssrc, track: &TrackSpec) -> Self {
        let codec = track.codecs.first();
        let nack = codec.is_some_and(|codec| codec.nack) && track.kind == Kind::Video;
        Self {
            inbound: InboundStream::new(ssrc, codec.map_or(90_000, |codec| codec.clock_rate)),
            nack: nack.then(NackGenerator::new),
            keyframes: KeyframeArbiter::new(),
            wants_keyframe: false,
            pli: codec.is_none_or(|codec| codec.pli || !codec.fir),
            fir_sequence: 0,
            began_anew: false,
        }
    }
}
