//! One published track on this worker: its layers with what they sent lately, and who is subscribed.
//! The same whether its publisher is on this worker or its packets come from another one.

use ringmain_shared::Now;
use ringmain_shared::command::TrackSpec;
use ringmain_shared::id::{TrackId, WorkerIndex};
use ringmain_shared::limits::{CACHE_PACKETS, DATAGRAM_SIZE_MAX, LAYERS_MAX};
use ringmain_shared::media::{Codec, Kind, PayloadType, SpatialLayer};

use super::cache::PacketCache;
use super::clock::{ClockOffset, SenderClock};
use super::packet::{InboundSeq, MediaPacket};
use super::ready::{PADDING_MAX, Ready, even_out};
use super::subscription::SubscriptionKey;
use crate::transport::TransportKey;

slotmap::new_key_type! {
    /// A track of this worker, with its generation.
    pub struct TrackKey;
}

/// Where a track's packets come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A publisher on this worker.
    Local(TransportKey),
    /// Another worker, over a ring.
    Relay(WorkerIndex),
}

/// One track.
#[derive(Debug)]
pub struct Track {
    /// As negotiated.
    pub spec: TrackSpec,
    /// Where its packets come from.
    pub origin: Origin,
    /// By spatial layer; a layer exists from its first packet on.
    pub layers: [Option<Layer>; LAYERS_MAX],
    /// Bit n: layer n is alive.
    pub alive: u8,
    /// Who gets it here.
    pub subscribers: Vec<SubscriptionKey>,
    /// Which workers get a copy.
    pub mirrors: Vec<WorkerIndex>,
    /// The publisher's wall clock against ours.
    pub offset: ClockOffset,
    /// When its origin was last asked for a keyframe of each layer, if that is another worker.
    pub keyframes_asked: [Option<Now>; LAYERS_MAX],
    /// Packets of this batch that are still to be forwarded.
    pub pending: Vec<Pending>,
}

/// One simulcast layer.
#[derive(Debug)]
pub struct Layer {
    /// What it sent lately.
    pub cache: PacketCache,
    /// Its latest sender report.
    pub clock: Option<SenderClock>,
}

/// A packet that came in this batch.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// Which layer's cache has it.
    pub spatial: SpatialLayer,
    /// Under which number.
    pub sequence: InboundSeq,
    /// What it is.
    pub kind: PendingKind,
}

/// What a packet of a batch is to subscribers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PendingKind {
    /// It is in the cache.
    Media {
        /// The publisher began again with it.
        restarted: bool,
    },
    /// Its number carries nothing: subscribers get no gap for it.
    Padding,
}

/// The latest sender report of each layer.
pub type LayerClocks = [Option<SenderClock>; LAYERS_MAX];

/// Datagrams that are taken in before what they brought is forwarded: no cache overwrites a packet that waits.
pub const BATCH_MAX: usize = 64;

/// Bytes kept of a video layer: 1.6 s of 4 Mb/s, and a whole batch in any case.
const VIDEO_BYTES: usize = 800 * 1024;
/// Bytes kept of an audio track: a whole batch.
const AUDIO_BYTES: usize = BATCH_BYTES;
/// Packets kept of an audio track.
const AUDIO_PACKETS: usize = 256;

/// A whole batch, and what is skipped at the end of the cache so that no packet goes around it.
const BATCH_BYTES: usize = (BATCH_MAX + 1) * (DATAGRAM_SIZE_MAX + PADDING_MAX);

const _: () = assert!(VIDEO_BYTES >= BATCH_BYTES && AUDIO_PACKETS >= BATCH_MAX);

impl Track {
    /// A track that has sent nothing yet.
    pub fn new(spec: TrackSpec, origin: Origin) -> Self {
        Self {
            spec,
            origin,
            layers: [const { None }; LAYERS_MAX],
            alive: 0,
            subscribers: Vec::new(),
            mirrors: Vec::new(),
            offset: ClockOffset::default(),
            keyframes_asked: [None; LAYERS_MAX],
            pending: Vec::with_capacity(BATCH_MAX),
        }
    }

    /// Its name.
    pub fn id(&self) -> TrackId {
        self.spec.id
    }

    /// The codec behind a payload type.
    pub fn codec(&self, payload_type: PayloadType) -> Option<Codec> {
        self.spec.codecs.iter().find(|codec| codec.payload_type == payload_type).map(|codec| codec.codec)
    }

    /// RTP clock of its media, Hz.
    pub fn clock_rate(&self) -> u32 {
        self.spec.codecs.first().map_or(90_000, |codec| codec.clock_rate)
    }

    /// A layer, made when its first packet comes.
    pub fn layer_mut(&mut self, spatial: SpatialLayer) -> Option<&mut Layer> {
        let kind = self.spec.kind;
        let layer = self.layers.get_mut(usize::from(spatial))?;
        Some(layer.get_or_insert_with(|| Layer::new(kind)))
    }

    /// Looks up what waits, and leaves nothing waiting.
    pub fn take_pending(&mut self, ready: &mut Vec<Ready>) {
        for &Pending { spatial, sequence, kind } in &self.pending {
            match kind {
                PendingKind::Padding => {
                    let packet = MediaPacket { sequence, ..MediaPacket::default() };
                    ready.push(Ready { spatial, restarted: false, packet, place: None, padding: 0 });
                }
                PendingKind::Media { restarted } => {
                    let layer = self.layers.get(usize::from(spatial)).and_then(Option::as_ref);
                    if let Some((packet, place)) = layer.and_then(|layer| layer.cache.find(sequence)) {
                        let place = Some(place);
                        ready.push(Ready { spatial, restarted, packet: *packet, place, padding: 0 });
                    }
                }
            }
        }
        self.pending.clear();
        even_out(ready);
        for padded in ready.iter().filter(|ready| ready.padding > 0) {
            let (len, padding) = (usize::from(padded.packet.payload_len), padded.padding);
            if let Some([zeros @ .., count]) = self.bytes_mut(padded).and_then(|bytes| bytes.get_mut(len..)) {
                zeros.fill(0);
                *count = padding;
            }
        }
    }

    /// The bytes of a packet that [`take_pending`](Self::take_pending) found, padding included.
    #[inline]
    pub fn bytes_mut(&mut self, ready: &Ready) -> Option<&mut [u8]> {
        self.layers.get_mut(usize::from(ready.spatial))?.as_mut()?.cache.bytes_mut(ready.padded_place()?)
    }

    /// The latest sender reports of all layers.
    pub fn clocks(&self) -> LayerClocks {
        self.layers.each_ref().map(|layer| layer.as_ref()?.clock)
    }

    /// The latest sender report of a layer.
    pub fn clock(&self, spatial: SpatialLayer) -> Option<SenderClock> {
        self.layers.get(usize::from(spatial))?.as_ref()?.clock
    }
}

impl Layer {
    fn new(kind: Kind) -> Self {
        let cache = match kind {
            Kind::Audio => PacketCache::new(AUDIO_PACKETS, AUDIO_BYTES),
            Kind::Video => PacketCache::new(CACHE_PACKETS, VIDEO_BYTES),
        };
        Self { cache, clock: None }
    }
}
