//! One room: who is in it, what is published in it, and the names its subscribers see.

use std::collections::{BTreeMap, BTreeSet};

use ringmain_shared::event::AudioActivity;
use ringmain_shared::id::{PeerId, TrackId, WorkerIndex};
use ringmain_shared::media::{Kind, Mid, SpatialLayer, Ssrc};

use super::news::News;
use crate::sdp::{CodecFormat, PublishedTrack};

/// Peers that hear and see each other.
pub(super) struct Room {
    /// The name that clients gave it.
    pub(super) sid: String,
    /// The worker that its first transports go to.
    pub(super) home: WorkerIndex,
    pub(super) peers: BTreeSet<PeerId>,
    pub(super) uids: BTreeMap<String, PeerId>,
    pub(super) tracks: BTreeSet<TrackId>,
    /// Ids of streams as subscribers see them, with the tracks in each.
    pub(super) stream_ids: BTreeMap<String, BTreeSet<TrackId>>,
    /// Ids of tracks as subscribers see them.
    pub(super) track_ids: BTreeSet<String>,
    /// SSRCs that publishers announced, each with its track.
    pub(super) ssrcs: BTreeSet<(Ssrc, TrackId)>,
    /// What the peers have not been told yet.
    pub(super) news: News,
    /// The last report of each worker.
    pub(super) heard: BTreeMap<WorkerIndex, Vec<AudioActivity>>,
    /// The streams that the peers were last told are speaking, loudest first.
    pub(super) speakers: Vec<Speaker>,
}

/// A stream that is heard.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Speaker {
    pub(super) stream_id: String,
    pub(super) own_stream_id: String,
    pub(super) peer: PeerId,
}

impl Room {
    pub(super) fn new(sid: String, home: WorkerIndex) -> Self {
        Self {
            sid,
            home,
            peers: BTreeSet::new(),
            uids: BTreeMap::new(),
            tracks: BTreeSet::new(),
            stream_ids: BTreeMap::new(),
            track_ids: BTreeSet::new(),
            ssrcs: BTreeSet::new(),
            news: News::default(),
            heard: BTreeMap::new(),
            speakers: Vec::new(),
        }
    }

    /// A publisher of this room announced the SSRC.
    pub(super) fn publishes(&self, ssrc: Ssrc) -> bool {
        self.ssrcs.range((ssrc, TrackId(0))..=(ssrc, TrackId(u64::MAX))).next().is_some()
    }
}

/// One published track.
pub(super) struct Track {
    pub(super) peer: PeerId,
    pub(super) kind: Kind,
    pub(super) mid: Mid,
    /// The ids in the publisher's SDP.
    pub(super) own: MediaIds,
    /// The ids that subscribers see: unique in the room.
    pub(super) shown: MediaIds,
    pub(super) formats: Vec<CodecFormat>,
    pub(super) ssrcs: Vec<Ssrc>,
    pub(super) layers: Layers,
    /// Peers that have a subscription to it.
    pub(super) subscribers: BTreeSet<PeerId>,
}

/// The two ids of `a=msid` (RFC 8830).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct MediaIds {
    pub(super) stream: String,
    pub(super) track: String,
}

impl Track {
    /// `published` is what this track was before, so that its subscribers need not hear of a renegotiation. Formats may
    /// have gone, but new ones would have to be offered to subscribers.
    pub(super) fn continues_as(&self, published: &PublishedTrack) -> bool {
        self.mid == published.mid
            && self.kind == published.kind
            && self.own.stream == published.stream_id
            && self.own.track == published.track_id
            && published.formats.iter().all(|format| self.formats.contains(format))
    }
}

/// Which simulcast layers of a track there are, by three witnesses. Bit n is layer n.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layers {
    negotiated: u8,
    alive: Option<u8>,
    announced: Option<u8>,
}

impl Layers {
    /// The layers of the publisher's SDP.
    pub(super) fn negotiated(published: &PublishedTrack) -> Self {
        Self { negotiated: Self::bits(published), alive: None, announced: None }
    }

    /// The publisher's SDP says something else; what was seen and announced still holds.
    pub(super) fn renegotiate(&mut self, published: &PublishedTrack) {
        self.negotiated = Self::bits(published);
    }

    /// A track that names no layers has one.
    fn bits(published: &PublishedTrack) -> u8 {
        let rids = published.rids.iter().map(|layer| layer.spatial);
        let ssrcs = published.ssrcs.iter().map(|layer| layer.spatial);
        rids.chain(ssrcs).filter(|&layer| layer < 8).fold(0, |bits, layer| bits | 1 << layer).max(1)
    }

    /// A worker saw which layers carry media.
    pub(super) fn set_alive(&mut self, bits: u8) {
        self.alive = Some(bits);
    }

    /// The publisher said which layers it enables. Those count as alive until a worker knows better.
    pub(super) fn announce(&mut self, bits: u8) {
        self.announced = Some(bits);
        self.alive = self.alive.map(|alive| alive | bits);
    }

    /// There is, or the publisher says there is, more than one.
    pub(super) fn are_of_interest(self) -> bool {
        self.negotiated.count_ones() > 1 || self.announced.is_some()
    }

    /// What a subscriber may hope for.
    pub(super) fn available(self) -> u8 {
        let alive = self.alive.unwrap_or(self.negotiated);
        match self.announced {
            Some(announced) if alive & announced == 0 => announced,
            Some(announced) => alive & announced,
            None => alive,
        }
    }

    /// The best layer up to `wish` that the publisher announced, or the least above it.
    pub(super) fn clamp(self, wish: SpatialLayer) -> SpatialLayer {
        self.announced.map_or(wish, |announced| best(announced, wish))
    }

    /// The layer that a subscriber who wishes for `wish` will get.
    pub(super) fn expected(self, wish: SpatialLayer) -> SpatialLayer {
        best(self.available(), wish)
    }
}

/// The highest layer of `bits` that is not above `wish`, else the lowest.
fn best(bits: u8, wish: SpatialLayer) -> SpatialLayer {
    let not_above = bits & ((2_u16 << wish.min(7)) - 1) as u8;
    match not_above.checked_ilog2() {
        Some(layer) => layer as SpatialLayer,
        None if bits == 0 => 0,
        None => bits.trailing_zeros() as SpatialLayer,
    }
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn the_best_layer_is_the_highest_not_above_the_wish_else_the_lowest() {
        for (bits, wish, layer) in
            [(0b111, 2, 2), (0b111, 1, 1), (0b101, 1, 0), (0b110, 0, 1), (0b100, 0, 2), (0, 2, 0), (0xff, 255, 7)]
        {
            assert_eq!(best(bits, wish), layer, "{bits:b} {wish}");
        }
    }
}
