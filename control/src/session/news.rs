//! Who came and went, and what: `peerevent` and `trackevent`. A room's news of a tenth of a second go out together, so that
//! a crowd that joins costs each member ten messages a second and not one for every join.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ringmain_shared::Now;
use ringmain_shared::id::{PeerId, RoomId, TrackId};
use ringmain_shared::media::Kind;
use serde_json::{Value, json};

use super::Rooms;
use super::room::Track;
use super::timers::Timer;
use crate::rpc;

/// How long news are gathered.
pub(super) const NEWS_DELAY: Duration = Duration::from_millis(100);
/// Bytes of a newcomer's first news that are told at once, and then after each delay, so that a client of a few Mb/s reads
/// them as they come: what a thousand peers are and publish is more than may wait for one client.
const PRESENT_SIZE: usize = 32 * 1024;
/// Peers or tracks in one message, so that no message grows with the room.
const ROWS_PER_MESSAGE: usize = 32;

/// Changes of a room that its peers have not heard of.
#[derive(Default)]
pub(super) struct News {
    joined: BTreeSet<PeerId>,
    left: BTreeMap<PeerId, Value>,
    added: BTreeSet<TrackId>,
    removed: BTreeMap<TrackId, Value>,
}

impl News {
    pub(super) fn joined(&mut self, peer: PeerId) {
        self.joined.insert(peer);
    }

    /// Someone of whom nobody has heard need not be said to have left.
    pub(super) fn left(&mut self, peer: PeerId, row: Value) {
        if !self.joined.remove(&peer) {
            self.left.insert(peer, row);
        }
    }

    pub(super) fn added(&mut self, track: TrackId) {
        self.added.insert(track);
    }

    pub(super) fn removed(&mut self, track: TrackId, row: Value) {
        if !self.added.remove(&track) {
            self.removed.insert(track, row);
        }
    }
}

/// What was in a room before a peer came, as far as the peer has not been told.
#[derive(Default)]
pub(super) struct Untold {
    peers: VecDeque<PeerId>,
    tracks: VecDeque<TrackId>,
}

impl Untold {
    fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.tracks.is_empty()
    }

    fn next_peers(&mut self) -> Vec<PeerId> {
        self.peers.drain(..self.peers.len().min(ROWS_PER_MESSAGE)).collect()
    }

    fn next_tracks(&mut self) -> Vec<TrackId> {
        self.tracks.drain(..self.tracks.len().min(ROWS_PER_MESSAGE)).collect()
    }
}

impl Rooms {
    /// Has the room told soon.
    pub(super) fn news_due(&mut self, room: RoomId, now: Now) {
        self.timers.set_if_idle(Timer::News(room), now + NEWS_DELAY);
    }

    /// Tells everyone in a room what changed.
    pub(super) fn tell_news(&mut self, room_id: RoomId) {
        let Some(room) = self.rooms.get_mut(&room_id) else { return };
        let news = std::mem::take(&mut room.news);
        let joined = news.joined.iter().filter_map(|peer| self.peer_row(*peer)).collect();
        let added = news.added.iter().filter_map(|track| self.track_row(*track)).collect();
        let texts = [
            messages("trackevent", "remove", "tracks", news.removed.into_values().collect()),
            messages("peerevent", "leave", "peers", news.left.into_values().collect()),
            messages("peerevent", "join", "peers", joined),
            messages("trackevent", "add", "tracks", added),
        ]
        .concat();
        let Some(room) = self.rooms.get(&room_id) else { return };
        for peer in room.peers.clone() {
            for text in &texts {
                self.send(peer, text.clone());
            }
        }
    }

    /// Tells a newcomer what the others know already, a page at a time; the rest will be news to all.
    pub(super) fn tell_present(&mut self, newcomer: PeerId, now: Now) {
        let Some(room) = self.peers.get(&newcomer).and_then(|peer| self.rooms.get(&peer.room)) else { return };
        let untold = Untold {
            peers: room.peers.difference(&room.news.joined).copied().collect(),
            tracks: room.tracks.difference(&room.news.added).copied().collect(),
        };
        if let Some(peer) = self.peers.get_mut(&newcomer) {
            peer.untold = untold;
        }
        self.tell_untold(newcomer, now);
    }

    /// The next page for a newcomer. What has gone in the meantime is passed over.
    pub(super) fn tell_untold(&mut self, newcomer: PeerId, now: Now) {
        let Some(peer) = self.peers.get_mut(&newcomer) else { return };
        let mut untold = std::mem::take(&mut peer.untold);
        let mut size = 0;
        while size < PRESENT_SIZE && !untold.is_empty() {
            let texts = match untold.next_peers() {
                peers if !peers.is_empty() => {
                    let rows = peers.into_iter().filter_map(|peer| self.peer_row(peer)).collect();
                    messages("peerevent", "join", "peers", rows)
                }
                _ => {
                    let rows = untold.next_tracks().into_iter().filter_map(|track| self.track_row(track)).collect();
                    messages("trackevent", "add", "tracks", rows)
                }
            };
            for text in texts {
                size += text.len();
                self.send(newcomer, text);
            }
        }
        if untold.is_empty() {
            return;
        }
        self.timers.set(Timer::Present(newcomer), now + NEWS_DELAY);
        if let Some(peer) = self.peers.get_mut(&newcomer) {
            peer.untold = untold;
        }
    }

    /// A peer as clients read of it.
    pub(super) fn peer_row(&self, peer: PeerId) -> Option<Value> {
        let peer = self.peers.get(&peer)?;
        Some(json!({"uid": peer.uid, "info": peer.info}))
    }

    /// A track as clients read of it.
    pub(super) fn track_row(&self, track: TrackId) -> Option<Value> {
        let track = self.tracks.get(&track)?;
        let uid = self.peers.get(&track.peer).map(|peer| peer.uid.as_str()).unwrap_or_default();
        Some(track.row(uid))
    }
}

impl Track {
    /// The track as clients read of it, published by `uid`.
    pub(super) fn row(&self, uid: &str) -> Value {
        let kind = match self.kind {
            Kind::Audio => "audio",
            Kind::Video => "video",
        };
        json!({"uid": uid, "streamId": self.shown.stream, "trackId": self.shown.track, "kind": kind})
    }
}

fn messages(method: &str, state: &str, what: &str, rows: Vec<Value>) -> Vec<String> {
    rows.chunks(ROWS_PER_MESSAGE).map(|rows| rpc::notification(method, json!({"state": state, what: rows}))).collect()
}
