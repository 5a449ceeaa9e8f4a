//! A track with subscribers on another worker: its packets go there once, as values, and its subscribers' wishes come back.
//! On the receiving worker the track is a *mirror*: the same track, with another origin. What is TURN's comes the same way.

use ringmain_shared::id::{TrackId, WorkerIndex};
use ringmain_shared::limits::DATAGRAM_SIZE_MAX;
use ringmain_shared::media::SpatialLayer;
use ringmain_shared::{DropReason, Now};

use super::Worker;
use crate::forward::clock::{ClockOffset, SenderClock};
use crate::forward::packet::MediaPacket;
use crate::forward::track::{BATCH_MAX, Origin, Pending, PendingKind};
use crate::io::Transmit;
use crate::turn::TurnItem;

/// What one worker tells another.
#[derive(Clone, Debug)]
pub enum RelayItem {
    /// A packet of the track.
    Media(RelayedPacket),
    /// A number of the track that carries nothing.
    Padding {
        /// Which track.
        track: TrackId,
        /// Which layer, and the packet as far as it goes.
        spatial: SpatialLayer,
        /// Its number and timestamp.
        packet: MediaPacket,
    },
    /// A sender report.
    Clock {
        /// Which track.
        track: TrackId,
        /// Which layer.
        spatial: SpatialLayer,
        /// What it said.
        clock: SenderClock,
        /// The publisher's wall clock against ours.
        offset: ClockOffset,
    },
    /// Which layers are alive.
    Alive {
        /// Which track.
        track: TrackId,
        /// Bit n: layer n.
        layers: u8,
    },
    /// Back to the origin: somebody waits for a keyframe.
    KeyframeWanted {
        /// Which track.
        track: TrackId,
        /// Which layer.
        spatial: SpatialLayer,
    },
    /// Of a client of TURN, and no track at all.
    Turn(TurnItem),
}

impl RelayItem {
    /// Whoever waits for it bears its loss; all else is kept until there is room.
    pub(crate) fn may_be_lost(&self) -> bool {
        match self {
            RelayItem::Media(_) | RelayItem::Padding { .. } => true,
            RelayItem::Clock { .. } | RelayItem::Alive { .. } | RelayItem::KeyframeWanted { .. } => false,
            RelayItem::Turn(item) => item.may_be_lost(),
        }
    }

    /// It is lost before the ring is full: what clients of TURN send each other must not cost rooms their media.
    pub(crate) fn leaves_room(&self) -> bool {
        matches!(self, RelayItem::Turn(TurnItem::ToRelayed { .. }))
    }
}

/// A packet of a track with its bytes, in one piece, as it lies in the ring.
#[derive(Clone)]
pub struct RelayedPacket {
    /// Which track.
    pub track: TrackId,
    /// Which layer.
    pub spatial: SpatialLayer,
    /// The publisher began again with it.
    pub restarted: bool,
    /// What it is.
    pub packet: MediaPacket,
    /// Its bytes: `packet.payload_len` of them count.
    pub bytes: [u8; DATAGRAM_SIZE_MAX],
}

impl std::fmt::Debug for RelayedPacket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RelayedPacket({} {:?})", self.track, self.packet)
    }
}

impl Worker {
    /// Something another worker says about a track.
    pub fn handle_relay(&mut self, item: RelayItem, now: Now, out: &mut dyn Transmit) {
        self.lively = now;
        self.begin_links(now, out);
        match item {
            RelayItem::Media(relayed) => {
                let len = usize::from(relayed.packet.payload_len);
                let kind = PendingKind::Media { restarted: relayed.restarted };
                let full = relayed.bytes.get(..len).is_some_and(|bytes| {
                    self.take_mirrored(relayed.track, relayed.spatial, relayed.packet, bytes, kind)
                });
                // A batch of relayed packets must not overwrite one another in the cache before they are forwarded.
                if full {
                    self.forward_pending(now, out);
                }
            }
            RelayItem::Padding { track, spatial, packet } => {
                if self.take_mirrored(track, spatial, packet, &[], PendingKind::Padding) {
                    self.forward_pending(now, out);
                }
            }
            RelayItem::Clock { track, spatial, clock, offset } => {
                let key = self.names.tracks.get(&track).copied();
                if let Some(track) = key.and_then(|key| self.tracks.get_mut(key)) {
                    track.offset = offset;
                    if let Some(layer) = track.layer_mut(spatial) {
                        layer.clock = Some(clock);
                    }
                }
            }
            RelayItem::Alive { track, layers } => {
                if let Some(&key) = self.names.tracks.get(&track) {
                    self.layers_changed(key, layers);
                }
            }
            RelayItem::KeyframeWanted { track, spatial } => {
                if let Some(&key) = self.names.tracks.get(&track) {
                    self.want_keyframe(key, spatial, now);
                }
            }
            RelayItem::Turn(item) => {
                if let Err(reason) = self.handle_turn_item(item, now, out) {
                    self.count(reason);
                }
            }
        }
    }

    /// Keeps what came of a track. True when no more of it may wait.
    fn take_mirrored(
        &mut self,
        track: TrackId,
        spatial: SpatialLayer,
        packet: MediaPacket,
        bytes: &[u8],
        kind: PendingKind,
    ) -> bool {
        let key = self.names.tracks.get(&track).copied();
        let Some((key, track)) = key.and_then(|key| Some((key, self.tracks.get_mut(key)?))) else { return false };
        if !matches!(track.origin, Origin::Relay(_)) {
            return false;
        }
        let Some(layer) = track.layer_mut(spatial) else { return false };
        layer.clock = layer.clock.filter(|_| kind != PendingKind::Media { restarted: true });
        if matches!(kind, PendingKind::Media { .. }) && !layer.cache.insert(packet, (&[], bytes)) {
            self.count(DropReason::Duplicate);
            return false;
        }
        if track.pending.is_empty() {
            self.touched.push(key);
        }
        track.pending.push(Pending { spatial, sequence: packet.sequence, kind });
        let is_full = track.pending.len() >= BATCH_MAX;
        // What the origin said of its layers may have come before the order to mirror the track: the packet says it too.
        let alive = track.alive | 1 << spatial;
        self.layers_changed(key, alive);
        is_full
    }

    /// Copies of a local track's packets for the workers that mirror it.
    pub(super) fn relay_to(&mut self, to: WorkerIndex, item: RelayItem) {
        self.outbox.relays.push((to, item));
    }
}
