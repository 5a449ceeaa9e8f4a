//! Which tracks a peer gets: all of the room, or those it names.

use std::collections::{BTreeMap, BTreeSet};

use ringmain_shared::event::IceState;
use ringmain_shared::id::{PeerId, RoomId, SubscriptionId, TrackId};
use ringmain_shared::media::{Kind, Ssrc};
use ringmain_shared::transport::Side;
use ringmain_shared::{Command, Now};
use serde_json::{Value, json};

use super::Rooms;
use super::chatter::chat;
use super::peer::{Subscriber, Subscription, Wish};
use super::room::Track;
use crate::rpc::{ErrorCode, RpcError, TokenBucket, TrackName};
use crate::sdp::{OfferedTrack, Offerer, extensions_of};

impl Rooms {
    /// Opens a subscriber connection; the caller sends its first offer.
    pub(super) fn open_subscriber(&mut self, peer_id: PeerId, auto: bool, now: Now) {
        let Some(room_id) = self.peers.get(&peer_id).map(|peer| peer.room) else { return };
        let Some(home) = self.rooms.get(&room_id).map(|room| room.home) else { return };
        let worker = self.workers.place(home);
        let local = self.local(worker);
        let Some(transport) = self.open_transport(peer_id, Side::Subscriber, worker, local.ice.clone()) else { return };
        let subscriber = Subscriber {
            transport,
            worker,
            offerer: Offerer::new(self.chance.session_id(), true),
            local,
            remote: None,
            auto,
            unwanted: BTreeSet::new(),
            full_told: false,
            subscriptions: BTreeMap::new(),
            by_track: BTreeMap::new(),
            offer_owed: true,
            unanswered: 0,
            restart_owed: false,
            restarting: false,
            late_answers: 0,
            restarts: 0,
            restarted_at: None,
            ice: IceState::New,
            api_open: false,
            api_rate: TokenBucket::new(self.settings.requests_per_second, self.settings.requests_burst, now),
        };
        if let Some(peer) = self.peers.get_mut(&peer_id) {
            peer.subscriber = Some(subscriber);
        }
        if auto {
            self.subscribe_all(peer_id, now);
        }
    }

    /// A track began: whoever takes all gets it.
    pub(super) fn subscribe_auto(&mut self, peer_id: PeerId, track: TrackId, now: Now) {
        let subscriber = self.peers.get(&peer_id).and_then(|peer| peer.subscriber.as_ref());
        if subscriber.is_some_and(|subscriber| subscriber.auto && !subscriber.unwanted.contains(&track)) {
            self.subscribe(peer_id, track, now);
        }
    }

    /// A track ended for a peer: if it had as many as it may, another may take the place.
    pub(super) fn subscribe_waiting(&mut self, peer_id: PeerId, now: Now) {
        let subscriber = self.peers.get(&peer_id).and_then(|peer| peer.subscriber.as_ref());
        let was_full =
            |subscriber: &Subscriber| subscriber.subscriptions.len() + 1 == self.settings.subscriptions_per_peer_max;
        if subscriber.is_some_and(|subscriber| subscriber.auto && was_full(subscriber)) {
            self.subscribe_all(peer_id, now);
        }
    }

    /// `subscribe`: all the tracks named, or none and an error.
    pub(super) fn subscribe_named(
        &mut self,
        peer_id: PeerId,
        names: &[TrackName],
        now: Now,
    ) -> Result<Value, RpcError> {
        let mut wanted = BTreeSet::new();
        for name in names {
            let found = self.find(peer_id, name);
            if found.is_empty() {
                return Err(RpcError::new(ErrorCode::UnknownTrack, describe_unknown(name)));
            }
            wanted.extend(found);
        }
        let count_max = self.settings.subscriptions_per_peer_max;
        let subscriber = self.subscriber_mut(peer_id)?;
        let total = subscriber.by_track.keys().filter(|track| !wanted.contains(track)).count() + wanted.len();
        if total > count_max {
            let message = format!("a peer is subscribed to at most {count_max} tracks; unsubscribe some first");
            return Err(RpcError::new(ErrorCode::TooManyTracks, message));
        }
        subscriber.unwanted.retain(|track| !wanted.contains(track));
        for &track in &wanted {
            self.subscribe(peer_id, track, now);
        }
        Ok(self.named(&wanted))
    }

    /// `unsubscribe`: those of the tracks named that the peer gets.
    pub(super) fn unsubscribe_named(
        &mut self,
        peer_id: PeerId,
        names: &[TrackName],
        now: Now,
    ) -> Result<Value, RpcError> {
        let unwanted: BTreeSet<TrackId> = names.iter().flat_map(|name| self.find(peer_id, name)).collect();
        let tracks = &self.tracks;
        let subscriber =
            self.peers.get_mut(&peer_id).and_then(|peer| peer.subscriber.as_mut()).ok_or_else(no_subscriber)?;
        subscriber.unwanted.retain(|track| tracks.contains_key(track));
        subscriber.unwanted.extend(&unwanted);
        for &track in &unwanted {
            self.unsubscribe(peer_id, track, now);
            self.subscribe_waiting(peer_id, now);
        }
        Ok(self.named(&unwanted))
    }

    /// `tracks`: everything in the room.
    pub(super) fn list_tracks(&self, peer_id: PeerId) -> Value {
        let Some(peer) = self.peers.get(&peer_id) else { return json!({"tracks": []}) };
        let tracks = self.rooms.get(&peer.room).map(|room| &room.tracks).into_iter().flatten();
        let rows: Vec<Value> = tracks
            .filter_map(|track| {
                let subscribed = peer.subscriber.as_ref().is_some_and(|sub| sub.by_track.contains_key(track));
                let mut row = self.track_row(*track)?;
                row.as_object_mut()?.insert("subscribed".to_owned(), subscribed.into());
                Some(row)
            })
            .collect();
        json!({"tracks": rows})
    }

    /// Takes a track from a peer, at once in the data plane and with the next offer at the peer.
    pub(super) fn unsubscribe(&mut self, peer_id: PeerId, track: TrackId, now: Now) {
        let Ok(subscriber) = self.subscriber_mut(peer_id) else { return };
        let Some(id) = subscriber.by_track.remove(&track) else { return };
        subscriber.offerer.remove(id);
        let was_live = subscriber.subscriptions.remove(&id).is_some_and(|sub| sub.live.is_some());
        self.subscriptions.remove(&id);
        if let Some(track) = self.tracks.get_mut(&track) {
            track.subscribers.remove(&peer_id);
        }
        if was_live {
            self.command(Command::Unsubscribe { subscription: id });
        }
        self.offer_soon(peer_id, now);
    }

    /// The subscriber connection of a peer, or why it has none.
    pub(super) fn subscriber_mut(&mut self, peer_id: PeerId) -> Result<&mut Subscriber, RpcError> {
        self.peers.get_mut(&peer_id).and_then(|peer| peer.subscriber.as_mut()).ok_or_else(no_subscriber)
    }

    /// How many tracks of the room a peer would get, had it not as many as it may.
    pub(super) fn waiting_tracks(&self, peer_id: PeerId) -> usize {
        let Some(peer) = self.peers.get(&peer_id) else { return 0 };
        let subscriber = peer.subscriber.as_ref().filter(|subscriber| {
            subscriber.auto && subscriber.subscriptions.len() >= self.settings.subscriptions_per_peer_max
        });
        let (Some(subscriber), Some(room)) = (subscriber, self.rooms.get(&peer.room)) else { return 0 };
        let own = peer.publisher.as_ref().map_or(0, |publisher| publisher.tracks.len());
        let turned_down = subscriber.unwanted.iter().filter(|track| room.tracks.contains(track)).count();
        room.tracks.len().saturating_sub(own + turned_down + subscriber.subscriptions.len())
    }

    /// Everything in the room that others publish and that the peer has not turned down, as far as there is place.
    fn subscribe_all(&mut self, peer_id: PeerId, now: Now) {
        let Some(peer) = self.peers.get(&peer_id) else { return };
        let Some(room) = self.rooms.get(&peer.room) else { return };
        let Some(subscriber) = peer.subscriber.as_ref() else { return };
        let places = self.settings.subscriptions_per_peer_max.saturating_sub(subscriber.subscriptions.len());
        let is_wanted = |id: &TrackId| {
            let is_others = self.tracks.get(id).is_some_and(|track| track.peer != peer_id);
            is_others && !subscriber.by_track.contains_key(id) && !subscriber.unwanted.contains(id)
        };
        // One more than there is place for, so that it shows in the log.
        let wanted: Vec<TrackId> = room.tracks.iter().copied().filter(is_wanted).take(places + 1).collect();
        for track in wanted {
            self.subscribe(peer_id, track, now);
        }
    }

    /// Has a track offered to a peer, unless it has it or has as many as it may.
    fn subscribe(&mut self, peer_id: PeerId, track_id: TrackId, now: Now) {
        let count_max = self.settings.subscriptions_per_peer_max;
        let Ok(subscriber) = self.subscriber_mut(peer_id) else { return };
        if subscriber.by_track.contains_key(&track_id) {
            return;
        }
        if subscriber.subscriptions.len() >= count_max {
            if !std::mem::replace(&mut subscriber.full_told, true) {
                chat!(
                    self.chatter,
                    now,
                    peer = %peer_id,
                    "gets {count_max} tracks, as many as it may (limits.subscriptions_per_peer); others wait for their end"
                );
            }
            return;
        }
        let Some(room) = self.peers.get(&peer_id).map(|peer| peer.room) else { return };
        let ssrc = self.unused_ssrc(peer_id, room, None);
        let Some(track) = self.tracks.get_mut(&track_id) else { return };
        track.subscribers.insert(peer_id);
        let is_video = track.kind == Kind::Video;
        let rtx_ssrc = is_video.then(|| self.unused_ssrc(peer_id, room, Some(ssrc)));
        let id = SubscriptionId(self.ids.next());
        let Some(track) = self.tracks.get(&track_id) else { return };
        let offered = OfferedTrack {
            id,
            kind: track.kind,
            stream_id: track.shown.stream.clone(),
            track_id: track.shown.track.clone(),
            formats: track.formats.clone(),
            ssrc,
            rtx_ssrc,
            cname: self.cname(track),
            extensions: extensions_of(track.kind).to_vec(),
        };
        let Ok(subscriber) = self.subscriber_mut(peer_id) else { return };
        subscriber.offerer.add(offered);
        subscriber.by_track.insert(track_id, id);
        let subscription = Subscription {
            track: track_id,
            ssrc,
            rtx_ssrc,
            wish: Wish::default(),
            live: None,
            forwarded: None,
            told: None,
        };
        subscriber.subscriptions.insert(id, subscription);
        self.subscriptions.insert(id, peer_id);
        self.offer_soon(peer_id, now);
    }

    /// The CNAME of a track's publisher.
    pub(super) fn cname(&self, track: &Track) -> String {
        self.peers.get(&track.peer).map(|peer| peer.cname.clone()).unwrap_or_default()
    }

    /// An SSRC that neither this connection nor a publisher of the room uses, nor is `other` (RFC 3550 §8.1).
    fn unused_ssrc(&mut self, peer_id: PeerId, room: RoomId, other: Option<Ssrc>) -> Ssrc {
        loop {
            let ssrc = self.chance.ssrc();
            let subscriber = self.peers.get(&peer_id).and_then(|peer| peer.subscriber.as_ref());
            let is_used = other == Some(ssrc)
                || subscriber.is_some_and(|subscriber| subscriber.uses(ssrc))
                || self.rooms.get(&room).is_some_and(|room| room.publishes(ssrc));
            if !is_used {
                return ssrc;
            }
        }
    }

    /// The tracks of other peers that a name stands for.
    fn find(&self, peer_id: PeerId, name: &TrackName) -> Vec<TrackId> {
        let room = self.peers.get(&peer_id).and_then(|peer| self.rooms.get(&peer.room));
        let is_meant =
            |track: &Track| track.peer != peer_id && name.track_id.as_ref().is_none_or(|id| track.shown.track == *id);
        let tracks = room.and_then(|room| room.stream_ids.get(&name.stream_id)).into_iter().flatten();
        tracks.copied().filter(|id| self.tracks.get(id).is_some_and(is_meant)).collect()
    }

    /// Tracks by the names that clients use.
    fn named(&self, tracks: &BTreeSet<TrackId>) -> Value {
        let tracks = tracks.iter().filter_map(|track| self.tracks.get(track));
        let rows: Vec<Value> =
            tracks.map(|track| json!({"streamId": track.shown.stream, "trackId": track.shown.track})).collect();
        json!({"tracks": rows})
    }
}

fn describe_unknown(name: &TrackName) -> String {
    let stream = &name.stream_id;
    match &name.track_id {
        Some(track) => format!("nobody else in the room publishes track {track:?} of stream {stream:?}"),
        None => format!("nobody else in the room publishes stream {stream:?}"),
    }
}

fn no_subscriber() -> RpcError {
    RpcError::new(
        ErrorCode::WrongState,
        "this peer has no subscriber connection: it joined with NoSubscribe, or the connection has ended; join again",
    )
}
