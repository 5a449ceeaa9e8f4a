//! Coming into a room and leaving it.

use std::collections::BTreeMap;

use ringmain_shared::id::{PeerId, RoomId, TransportId, WorkerIndex};
use ringmain_shared::transport::{ChannelSpec, IceCredentials, Side, TransportSpec};
use ringmain_shared::{Command, Now};
use serde_json::json;

use super::chatter::chat;
use super::news::Untold;
use super::peer::Peer;
use super::room::Room;
use super::timers::Timer;
use super::{CLOSE_REPLACED, ConnectionId, Rooms};
use crate::rpc::{ErrorCode, Join, RequestId, RpcError};
use crate::sdp::{Local, Offer, SdpError};

/// The label of the data channel that `ion-sdk-js` waits for.
const API_LABEL: &str = "ion-sfu";
/// Letters of a uid that we make up: 100 random bits.
const UID_SIZE: usize = 20;
/// Letters of a CNAME: 100 random bits (RFC 7022 §4.2 asks for 96).
const CNAME_SIZE: usize = 20;

impl Rooms {
    /// Lets a peer in. Whatever can be refused is refused before anything changes, for this peer or another.
    pub(super) fn join(
        &mut self,
        connection: ConnectionId,
        id: Option<RequestId>,
        join: Join,
        now: Now,
    ) -> Result<(), RpcError> {
        let from = self.connections.get(&connection).and_then(|entry| entry.from);
        self.admission.admit(from, &self.settings, now).inspect_err(|_| self.joins_refused += 1)?;
        let offer = join.offer.as_deref().map(Offer::parse).transpose().map_err(|error| sdp_refused(&error))?;
        let room = self.names.get(&join.sid).copied().and_then(|room| self.rooms.get(&room));
        let replaced = room.and_then(|room| room.uids.get(join.uid.as_deref()?).copied());
        self.admit(room, replaced)?;
        let home = room.map_or_else(|| self.workers.least_loaded(), |room| room.home);
        let publisher = match &offer {
            Some(offer) => Some(self.prepare_publisher(offer, home)?),
            None => None,
        };
        if let Some(replaced) = replaced.and_then(|peer| self.peers.get(&peer)) {
            self.dismiss(replaced.connection, CLOSE_REPLACED, "joined again from elsewhere under the same uid", now);
        }
        let peer = self.enter(connection, &join, home, now);
        let mut result = match publisher {
            Some(publisher) => self.open_publisher(peer, publisher, now),
            None => json!({}),
        };
        if join.subscribe {
            self.open_subscriber(peer, join.auto_subscribe, now);
        }
        // Clients hand an answer on as they get it, some to a constructor that takes `type` and `sdp` only: so the uid is
        // told to whoever did not name one, or gets no answer.
        if let (Some(result), Some(peer)) = (result.as_object_mut(), self.peers.get(&peer))
            && (join.uid.is_none() || result.is_empty())
        {
            result.insert("uid".to_owned(), peer.uid.clone().into());
        }
        self.reply(connection, id, result);
        self.negotiate(peer, now);
        self.tell_present(peer, now);
        Ok(())
    }

    /// There is place for one more peer, in the room that is there or in a new one.
    fn admit(&self, room: Option<&Room>, replaced: Option<PeerId>) -> Result<(), RpcError> {
        let full = |message: &str| Err(RpcError::new(ErrorCode::ServerFull, message));
        if !self.workers.has_room_for(2) {
            return full("the server has as many connections as it can serve; try again later");
        }
        match room {
            None if self.rooms.len() >= self.settings.rooms_max => {
                full("the server has as many rooms as it may have; join one of them or try again later")
            }
            Some(room) if replaced.is_none() && room.peers.len() >= self.settings.peers_per_room_max => {
                Err(RpcError::new(ErrorCode::RoomFull, "the room is full; try again later or join another"))
            }
            _ => Ok(()),
        }
    }

    /// Writes a peer into its room, which is made if need be.
    fn enter(&mut self, connection: ConnectionId, join: &Join, home: WorkerIndex, now: Now) -> PeerId {
        let room_id = match self.names.get(&join.sid) {
            Some(&room) => room,
            None => {
                let room = RoomId(self.ids.next());
                self.names.insert(join.sid.clone(), room);
                self.rooms.insert(room, Room::new(join.sid.clone(), home));
                room
            }
        };
        let peer_id = PeerId(self.ids.next());
        let peer = Peer {
            room: room_id,
            connection,
            uid: join.uid.clone().unwrap_or_else(|| self.chance.name(UID_SIZE)),
            info: join.info.clone(),
            cname: self.chance.name(CNAME_SIZE),
            may_publish: join.offer.is_some(),
            publisher: None,
            ended: None,
            subscriber: None,
            streams: BTreeMap::new(),
            untold: Untold::default(),
        };
        chat!(self.chatter, now, room = ?join.sid, uid = ?peer.uid, peer = %peer_id, "peer joined");
        if let Some(room) = self.rooms.get_mut(&room_id) {
            room.peers.insert(peer_id);
            room.uids.insert(peer.uid.clone(), peer_id);
            room.news.joined(peer_id);
            self.news_due(room_id, now);
        }
        if let Some(entry) = self.connections.get_mut(&connection) {
            entry.peer = Some(peer_id);
        }
        self.peers.insert(peer_id, Box::new(peer));
        peer_id
    }

    /// Takes a peer out of its room, with everything that is its own. The last one out takes the room along.
    pub(super) fn leave(&mut self, peer_id: PeerId, now: Now) {
        self.close_publisher(peer_id, now);
        self.close_subscriber(peer_id);
        self.timers.clear(Timer::Present(peer_id));
        let row = self.peer_row(peer_id);
        let Some(peer) = self.peers.remove(&peer_id) else { return };
        if let Some(entry) = self.connections.get_mut(&peer.connection) {
            entry.peer = None;
        }
        let Some(room) = self.rooms.get_mut(&peer.room) else { return };
        chat!(self.chatter, now, room = ?room.sid, uid = ?peer.uid, peer = %peer_id, "peer left");
        room.peers.remove(&peer_id);
        if room.uids.get(&peer.uid) == Some(&peer_id) {
            room.uids.remove(&peer.uid);
        }
        if room.peers.is_empty() {
            self.names.remove(&room.sid);
            self.rooms.remove(&peer.room);
            self.timers.clear(Timer::News(peer.room));
        } else {
            room.news.left(peer_id, row.unwrap_or_default());
            self.news_due(peer.room, now);
        }
    }

    /// Has the data plane open a connection. The peer's side of it comes by `SetRemote`.
    pub(super) fn open_transport(
        &mut self,
        peer_id: PeerId,
        side: Side,
        worker: WorkerIndex,
        local: IceCredentials,
    ) -> Option<TransportId> {
        let room = self.peers.get(&peer_id)?.room;
        let id = TransportId(self.ids.next());
        // A publisher's later offer may add `m=application`; so SCTP is served from the start.
        // Others' channels appear where the peer receives; those that it opened itself serve both ways.
        let fan_out = side == Side::Subscriber;
        let channels = Some(ChannelSpec { api_label: Some(API_LABEL.to_owned()), fan_out });
        let spec = TransportSpec { id, peer: peer_id, room, side, local, remote: None, channels };
        self.workers.opened(worker);
        self.transports.insert(id, (peer_id, side));
        self.command(Command::OpenTransport { worker, spec: Box::new(spec) });
        Some(id)
    }

    /// Forgets a connection, and has the data plane forget it unless it did already.
    pub(super) fn close_transport(&mut self, transport: TransportId, worker: WorkerIndex) {
        self.workers.closed(worker);
        if self.transports.remove(&transport).is_some() {
            self.command(Command::CloseTransport { transport });
        }
    }

    /// What SDP says of our side of a new connection.
    pub(super) fn local(&mut self, worker: WorkerIndex) -> Local {
        Local {
            ice: self.chance.ice(),
            fingerprint: self.hello.fingerprint.clone(),
            candidates: self.workers.candidates(worker),
            tcp_candidates: self.settings.tcp_candidates.clone(),
        }
    }
}

/// An error for whoever sent the description.
pub(super) fn sdp_refused(error: &SdpError) -> RpcError {
    RpcError::new(ErrorCode::SdpRefused, error.to_string())
}
