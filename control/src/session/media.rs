//! What becomes of a peer's connections: told to the peer, mended where we are the offerer, buried when they end.

use std::time::Duration;

use ringmain_shared::Now;
use ringmain_shared::event::{CloseReason, IceState};
use ringmain_shared::id::{PeerId, TransportId};
use ringmain_shared::transport::Side;
use serde_json::json;

use super::chatter::chat;
use super::timers::Timer;
use super::{CLOSE_MEDIA_ENDED, Rooms};
use crate::rpc::{self, Target};

/// How long a disconnected peer may come back by itself before ICE is restarted.
pub(super) const RESTART_DELAY: Duration = Duration::from_secs(1);
/// Least time between two restarts of one connection.
pub(super) const RESTART_INTERVAL: Duration = Duration::from_secs(10);
/// Restarts in a row that did not connect. After those the data plane gives the connection up.
pub(super) const RESTARTS_MAX: u32 = 5;

impl Rooms {
    /// The peer is told, and a subscriber connection that is lost is restarted: we offer, so nobody else can (RFC 8445 §9).
    pub(super) fn handle_ice_state(&mut self, transport: TransportId, state: IceState, now: Now) {
        let Some(&(peer_id, side)) = self.transports.get(&transport) else { return };
        self.tell_ice_state(peer_id, side, name(state));
        if side == Side::Publisher {
            return;
        }
        let Ok(subscriber) = self.subscriber_mut(peer_id) else { return };
        subscriber.ice = state;
        let earliest = subscriber.restarted_at.map_or(now, |at| at + RESTART_INTERVAL);
        let may_restart = subscriber.remote.is_some() && subscriber.restarts < RESTARTS_MAX;
        match state {
            IceState::Connected => {
                subscriber.restarts = 0;
                self.timers.clear(Timer::Restart(peer_id));
            }
            IceState::Disconnected if may_restart => {
                self.timers.set(Timer::Restart(peer_id), earliest.max(now + RESTART_DELAY));
            }
            IceState::Failed if may_restart => self.timers.set(Timer::Restart(peer_id), earliest.max(now)),
            _ => {}
        }
    }

    /// The subscriber connection did not come back: new credentials, and an offer that carries them.
    pub(super) fn restart_subscriber(&mut self, peer_id: PeerId, now: Now) {
        let Ok(subscriber) = self.subscriber_mut(peer_id) else { return };
        if subscriber.ice == IceState::Connected || subscriber.restarts >= RESTARTS_MAX {
            return;
        }
        tracing::debug!(peer = %peer_id, transport = %subscriber.transport, "subscriber connection lost: ICE restarts");
        subscriber.restarts += 1;
        subscriber.restarted_at = Some(now);
        self.timers.set(Timer::Restart(peer_id), now + RESTART_INTERVAL);
        let Ok(subscriber) = self.subscriber_mut(peer_id) else { return };
        // An offer that restarts is made again until it is answered; with other credentials each time, nobody could tell
        // which of them an answer is to.
        if subscriber.restarting {
            return;
        }
        subscriber.restart_owed = true;
        subscriber.offer_owed = true;
        self.negotiate(peer_id, now);
    }

    /// A connection ended by itself. A peer that has none left is sent away, so that its page can join anew.
    pub(super) fn handle_transport_closed(&mut self, transport: TransportId, reason: CloseReason, now: Now) {
        let Some((peer_id, side)) = self.transports.remove(&transport) else { return };
        chat!(self.chatter, now, peer = %peer_id, %transport, ?side, ?reason, "media connection ended");
        self.tell_ice_state(peer_id, side, "closed");
        match side {
            Side::Publisher => {
                if let Some(peer) = self.peers.get_mut(&peer_id) {
                    peer.ended = peer.publisher.as_ref().map(|publisher| publisher.session.clone());
                }
                self.close_publisher(peer_id, now);
            }
            Side::Subscriber => self.close_subscriber(peer_id),
        }
        let Some(peer) = self.peers.get(&peer_id) else { return };
        if peer.publisher.is_none() && peer.subscriber.is_none() {
            self.dismiss(peer.connection, CLOSE_MEDIA_ENDED, "every media connection has ended; join again", now);
        }
    }

    /// Ends a subscriber connection and its subscriptions.
    pub(super) fn close_subscriber(&mut self, peer_id: PeerId) {
        let Some(subscriber) = self.peers.get_mut(&peer_id).and_then(|peer| peer.subscriber.take()) else { return };
        for timer in [Timer::Offer(peer_id), Timer::Answer(peer_id), Timer::Restart(peer_id)] {
            self.timers.clear(timer);
        }
        for (id, sub) in subscriber.subscriptions {
            self.subscriptions.remove(&id);
            if let Some(track) = self.tracks.get_mut(&sub.track) {
                track.subscribers.remove(&peer_id);
            }
        }
        self.close_transport(subscriber.transport, subscriber.worker);
    }

    fn tell_ice_state(&mut self, peer_id: PeerId, side: Side, state: &str) {
        let params = json!({"target": Target(side).number(), "state": state});
        self.send(peer_id, rpc::notification("iceconnectionstate", params));
    }
}

/// As `RTCPeerConnection.iceConnectionState` says it.
fn name(state: IceState) -> &'static str {
    match state {
        IceState::New => "new",
        IceState::Checking => "checking",
        IceState::Connected => "connected",
        IceState::Disconnected => "disconnected",
        IceState::Failed => "failed",
    }
}
