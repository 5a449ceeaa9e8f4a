//! The publisher connection: the peer offers, we answer, and what it sends becomes tracks of the room.

use std::collections::{BTreeMap, BTreeSet};

use ringmain_shared::command::{ReceiveSpec, TrackSpec};
use ringmain_shared::id::{PeerId, TrackId, TransportId, WorkerIndex};
use ringmain_shared::media::Ssrc;
use ringmain_shared::transport::Side;
use ringmain_shared::{Command, Now};
use serde_json::{Value, json};

use super::Rooms;
use super::join::sdp_refused;
use super::peer::{Publisher, ShownStream};
use super::room::{Layers, MediaIds, Room, Track};
use crate::rpc::{ErrorCode, RpcError};
use crate::sdp::{Answer, Answerer, Local, Offer, PublishedTrack, SessionName};

/// Bytes of a stream's or a track's id (RFC 8830 §2).
const MEDIA_ID_SIZE_MAX: usize = 64;

/// A publisher connection that is agreed but not yet open.
pub(super) struct Prepared {
    worker: WorkerIndex,
    session: SessionName,
    answerer: Answerer,
    local: Local,
    answer: Answer,
}

impl Rooms {
    /// The peer's next offer of its publisher connection; the result is our answer.
    pub(super) fn handle_offer(&mut self, peer_id: PeerId, sdp: &str, now: Now) -> Result<Value, RpcError> {
        let offer = Offer::parse(sdp).map_err(|error| sdp_refused(&error))?;
        let peer = self.peers.get(&peer_id).ok_or_else(gone)?;
        if !peer.may_publish {
            return Err(RpcError::new(
                ErrorCode::WrongState,
                "this peer joined with NoPublish; join again without it to publish",
            ));
        }
        if peer.publisher.is_some() {
            return self.renegotiate(peer_id, &offer, now);
        }
        if peer.ended.as_ref().is_some_and(|ended| ended.is_same(&offer.session)) {
            // Its DTLS has ended as well, or believes that it goes on: no answer brings that back (RFC 8842 §5.5).
            return Err(RpcError::new(
                ErrorCode::WrongState,
                "this publisher connection has ended; join again, or offer from a new RTCPeerConnection",
            ));
        }
        let home = self.rooms.get(&peer.room).ok_or_else(gone)?.home;
        let prepared = self.prepare_publisher(&offer, home)?;
        Ok(self.open_publisher(peer_id, prepared, now))
    }

    /// Answers a first offer. Changes nothing, so that it may be dropped.
    pub(super) fn prepare_publisher(&mut self, offer: &Offer, home: WorkerIndex) -> Result<Prepared, RpcError> {
        let worker = self.workers.place(home);
        let local = self.local(worker);
        let mut answerer = Answerer::new(self.chance.session_id());
        let answer = answerer.answer(offer, &local).map_err(|error| sdp_refused(&error))?;
        self.check_track_count(&answer)?;
        Ok(Prepared { worker, session: offer.session.clone(), answerer, local, answer })
    }

    /// Opens a publisher connection; the result is our answer.
    pub(super) fn open_publisher(&mut self, peer_id: PeerId, prepared: Prepared, now: Now) -> Value {
        let Prepared { worker, session, answerer, local, answer } = prepared;
        let Some(transport) = self.open_transport(peer_id, Side::Publisher, worker, local.ice.clone()) else {
            return Value::Null;
        };
        self.command(Command::SetRemote { transport, remote: answer.remote.clone() });
        if let Some(peer) = self.peers.get_mut(&peer_id) {
            peer.publisher = Some(Box::new(Publisher {
                transport,
                worker,
                answerer,
                local,
                remote: answer.remote.clone(),
                session,
                receive: ReceiveSpec::default(),
                tracks: BTreeMap::new(),
            }));
        }
        self.take_tracks(peer_id, transport, &answer, now);
        description(&answer)
    }

    /// A later offer: tracks come and go, and ICE restarts when the peer's credentials are new.
    fn renegotiate(&mut self, peer_id: PeerId, offer: &Offer, now: Now) -> Result<Value, RpcError> {
        let fresh = self.chance.ice();
        let publisher = self.peers.get_mut(&peer_id).and_then(|peer| peer.publisher.as_mut()).ok_or_else(gone)?;
        let restarts = publisher.answerer.is_ice_restart(offer);
        let mut local = publisher.local.clone();
        if restarts {
            local.ice = fresh;
        }
        let mut answerer = publisher.answerer.clone();
        let answer = answerer.answer(offer, &local).map_err(|error| sdp_refused(&error))?;
        self.check_track_count(&answer)?;
        let publisher = self.peers.get_mut(&peer_id).and_then(|peer| peer.publisher.as_mut()).ok_or_else(gone)?;
        let transport = publisher.transport;
        let remote_changed = publisher.remote != answer.remote;
        publisher.answerer = answerer;
        publisher.local = local.clone();
        publisher.remote = answer.remote.clone();
        publisher.session = offer.session.clone();
        if restarts {
            tracing::debug!(%transport, "publisher restarts ICE");
            let (local, remote) = (local.ice.clone(), Some(answer.remote.clone()));
            self.command(Command::RestartIce { transport, local, remote });
        } else if remote_changed {
            self.command(Command::SetRemote { transport, remote: answer.remote.clone() });
        }
        self.take_tracks(peer_id, transport, &answer, now);
        Ok(description(&answer))
    }

    fn check_track_count(&self, answer: &Answer) -> Result<(), RpcError> {
        let count_max = self.settings.tracks_per_peer_max;
        if answer.tracks.len() <= count_max {
            return Ok(());
        }
        let message = format!("a peer publishes at most {count_max} tracks; stop some before adding others");
        Err(RpcError::new(ErrorCode::TooManyTracks, message))
    }

    /// Makes the peer's tracks those of `answer`. What stays keeps its id; what changed ends and begins anew.
    fn take_tracks(&mut self, peer_id: PeerId, transport: TransportId, answer: &Answer, now: Now) {
        let Some(publisher) = self.peers.get(&peer_id).and_then(|peer| peer.publisher.as_ref()) else { return };
        let mut ended = publisher.tracks.clone();
        let stays = |published: &PublishedTrack| {
            let id = publisher.tracks.get(&published.mid)?;
            self.tracks.get(id).filter(|track| track.continues_as(published)).map(|_| *id)
        };
        let kept: Vec<Option<TrackId>> = answer.tracks.iter().map(stays).collect();
        for published in answer.tracks.iter().zip(&kept).filter(|(_, kept)| kept.is_some()) {
            ended.remove(&published.0.mid);
        }
        // Ended before begun, so that an id in the peer's SDP can pass from one to the other.
        for track in ended.into_values() {
            self.end_track(track, now);
        }
        let mut receive = ReceiveSpec {
            extensions: answer.extensions,
            transport_cc: answer.transport_cc,
            remb: answer.remb,
            tracks: Vec::with_capacity(answer.tracks.len()),
        };
        let mut tracks = BTreeMap::new();
        for (published, kept) in answer.tracks.iter().zip(kept) {
            let id = kept.unwrap_or_else(|| TrackId(self.ids.next()));
            tracks.insert(published.mid, id);
            receive.tracks.push(TrackSpec {
                id,
                mid: published.mid,
                kind: published.kind,
                codecs: published.codecs.clone(),
                ssrcs: published.ssrcs.clone(),
                rids: published.rids.clone(),
            });
        }
        let Some(publisher) = self.peers.get_mut(&peer_id).and_then(|peer| peer.publisher.as_mut()) else { return };
        publisher.tracks = tracks.clone();
        if publisher.receive != receive {
            publisher.receive = receive.clone();
            self.command(Command::Receive { transport, spec: receive });
        }
        for published in &answer.tracks {
            let Some(&id) = tracks.get(&published.mid) else { continue };
            match self.tracks.get_mut(&id) {
                Some(track) => track.layers.renegotiate(published),
                None => self.begin_track(id, peer_id, published, now),
            }
        }
    }

    /// Puts a track into the room, and everyone who takes all gets it.
    fn begin_track(&mut self, id: TrackId, peer_id: PeerId, published: &PublishedTrack, now: Now) {
        let Some(peer) = self.peers.get_mut(&peer_id) else { return };
        let Some(room) = self.rooms.get_mut(&peer.room) else { return };
        let own = MediaIds { stream: published.stream_id.clone(), track: published.track_id.clone() };
        let stream = match peer.streams.get_mut(&own.stream) {
            Some(stream) => {
                stream.tracks += 1;
                stream.shown.clone()
            }
            None => {
                let shown = room.show_stream(&own.stream, peer_id);
                peer.streams.insert(own.stream.clone(), ShownStream { shown: shown.clone(), tracks: 1 });
                shown
            }
        };
        let shown = MediaIds { stream, track: room.show_track(&own.track, id) };
        room.tracks.insert(id);
        room.stream_ids.entry(shown.stream.clone()).or_default().insert(id);
        let ssrcs: Vec<Ssrc> =
            published.ssrcs.iter().flat_map(|layer| [Some(layer.ssrc), layer.rtx]).flatten().collect();
        room.ssrcs.extend(ssrcs.iter().map(|ssrc| (*ssrc, id)));
        room.news.added(id);
        let room_id = peer.room;
        let others: Vec<PeerId> = room.peers.iter().copied().filter(|other| *other != peer_id).collect();
        let track = Track {
            peer: peer_id,
            kind: published.kind,
            mid: published.mid,
            own,
            shown,
            formats: published.formats.clone(),
            ssrcs,
            layers: Layers::negotiated(published),
            subscribers: Default::default(),
        };
        tracing::debug!(peer = %peer_id, track = %id, kind = ?track.kind, "track begins");
        self.tracks.insert(id, track);
        self.news_due(room_id, now);
        for other in others {
            self.subscribe_auto(other, id, now);
        }
    }

    /// Takes a track out of the room and from everyone who gets it.
    pub(super) fn end_track(&mut self, id: TrackId, now: Now) {
        let row = self.track_row(id);
        let Some(track) = self.tracks.remove(&id) else { return };
        tracing::debug!(peer = %track.peer, track = %id, "track ends");
        for &subscriber in &track.subscribers {
            self.unsubscribe(subscriber, id, now);
        }
        let Some(peer) = self.peers.get_mut(&track.peer) else { return };
        let Some(room) = self.rooms.get_mut(&peer.room) else { return };
        room.tracks.remove(&id);
        room.track_ids.remove(&track.shown.track);
        if let Some(tracks) = room.stream_ids.get_mut(&track.shown.stream) {
            tracks.remove(&id);
        }
        for ssrc in &track.ssrcs {
            room.ssrcs.remove(&(*ssrc, id));
        }
        if let Some(stream) = peer.streams.get_mut(&track.own.stream) {
            stream.tracks -= 1;
            if stream.tracks == 0 {
                room.stream_ids.remove(&stream.shown);
                peer.streams.remove(&track.own.stream);
            }
        }
        room.news.removed(id, row.unwrap_or_default());
        let room_id = peer.room;
        self.news_due(room_id, now);
        self.tell_speakers(room_id);
        for subscriber in track.subscribers {
            self.subscribe_waiting(subscriber, now);
        }
    }

    /// Ends a publisher connection and its tracks.
    pub(super) fn close_publisher(&mut self, peer_id: PeerId, now: Now) {
        let Some(publisher) = self.peers.get_mut(&peer_id).and_then(|peer| peer.publisher.take()) else { return };
        for track in publisher.tracks.into_values() {
            self.end_track(track, now);
        }
        self.close_transport(publisher.transport, publisher.worker);
    }
}

impl Room {
    /// A name for a stream that no other peer's stream has here. A peer's tracks without a stream are shown as one, since
    /// `ion-sdk-js` files every track under its stream.
    fn show_stream(&mut self, own: &str, peer: PeerId) -> String {
        let wanted = if own.is_empty() || own == "-" { format!("peer-{peer}") } else { own.to_owned() };
        let shown = unique(&wanted, peer.0, |name| self.stream_ids.contains_key(name));
        self.stream_ids.insert(shown.clone(), BTreeSet::new());
        shown
    }

    /// A name for a track that no other track has here.
    fn show_track(&mut self, own: &str, track: TrackId) -> String {
        let shown = unique(own, track.0, |name| self.track_ids.contains(name));
        self.track_ids.insert(shown.clone());
        shown
    }
}

/// `wanted`, or with a suffix when that is taken; never longer than an id may be.
fn unique(wanted: &str, suffix: u64, taken: impl Fn(&str) -> bool) -> String {
    if !taken(wanted) {
        return wanted.to_owned();
    }
    let suffixed = |suffix: u64| {
        let suffix = format!("-{suffix:x}");
        let kept: String = wanted.chars().take(MEDIA_ID_SIZE_MAX - suffix.len()).collect();
        kept + &suffix
    };
    (0..)
        .map(|step| suffixed(suffix.wrapping_add(step)))
        .find(|name| !taken(name))
        .expect("a room has fewer than 2^64 ids")
}

fn description(answer: &Answer) -> Value {
    json!({"type": "answer", "sdp": answer.sdp})
}

fn gone() -> RpcError {
    RpcError::new(ErrorCode::Internal, "the peer is gone")
}
