//! The subscriber connection's offers: one at a time, changes gathered, answers awaited but not for ever.

use std::time::Duration;

use ringmain_shared::command::SubscriptionSpec;
use ringmain_shared::id::PeerId;
use ringmain_shared::{Command, Now};
use serde_json::json;

use super::Rooms;
use super::join::sdp_refused;
use super::timers::Timer;
use crate::rpc::{self, ErrorCode, RpcError};
use crate::sdp::AcceptedTrack;

/// How long changes are gathered into one offer.
pub(super) const OFFER_DELAY: Duration = Duration::from_millis(30);
/// How long an answer is awaited before the offer is made again.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Times in a row that an offer is made without an answer. The last one stays open: should an answer come yet, it holds.
pub(super) const OFFERS_UNANSWERED_MAX: u32 = 4;

impl Rooms {
    /// Something changed for a subscriber: an offer will follow, after this one's answer if one is open.
    pub(super) fn offer_soon(&mut self, peer_id: PeerId, now: Now) {
        let Ok(subscriber) = self.subscriber_mut(peer_id) else { return };
        if !subscriber.offerer.is_outstanding() {
            self.timers.set_if_idle(Timer::Offer(peer_id), now + OFFER_DELAY);
        }
    }

    /// Offers what there is to offer, unless an offer is open.
    pub(super) fn negotiate(&mut self, peer_id: PeerId, now: Now) {
        self.timers.clear(Timer::Offer(peer_id));
        let fresh = self.chance.ice();
        let Ok(subscriber) = self.subscriber_mut(peer_id) else { return };
        let is_due = subscriber.offer_owed || subscriber.offerer.needs_offer();
        if subscriber.offerer.is_outstanding() || !is_due {
            return;
        }
        let transport = subscriber.transport;
        let restart = std::mem::take(&mut subscriber.restart_owed);
        if restart {
            subscriber.local.ice = fresh.clone();
            subscriber.restarting = true;
            subscriber.late_answers = subscriber.unanswered;
        }
        subscriber.offer_owed = false;
        let sdp = subscriber.offerer.offer(&subscriber.local);
        if restart {
            self.command(Command::RestartIce { transport, local: fresh, remote: None });
        }
        self.send(peer_id, rpc::notification("offer", json!({"type": "offer", "sdp": sdp})));
        self.timers.set(Timer::Answer(peer_id), now + ANSWER_TIMEOUT);
    }

    /// The peer's answer to the open offer.
    pub(super) fn handle_answer(&mut self, peer_id: PeerId, sdp: &str, now: Now) -> Result<(), RpcError> {
        let subscriber = self.subscriber_mut(peer_id)?;
        if !subscriber.offerer.is_outstanding() {
            return Err(RpcError::new(ErrorCode::WrongState, "no offer of ours awaits an answer"));
        }
        let offerer = &mut subscriber.offerer;
        let answered = match subscriber.restarting && subscriber.late_answers > 0 {
            true => offerer.answer_to_restart(sdp),
            false => offerer.answer(sdp),
        };
        let answered = answered.map_err(|error| {
            subscriber.late_answers = subscriber.late_answers.saturating_sub(1);
            sdp_refused(&error)
        })?;
        (subscriber.unanswered, subscriber.late_answers) = (0, 0);
        let transport = subscriber.transport;
        let restarted = std::mem::take(&mut subscriber.restarting);
        if restarted || subscriber.remote.as_ref() != Some(&answered.remote) {
            subscriber.remote = Some(answered.remote.clone());
            self.command(Command::SetRemote { transport, remote: answered.remote });
        }
        self.timers.clear(Timer::Answer(peer_id));
        self.take_accepted(peer_id, answered.tracks);
        let subscriber = self.subscriber_mut(peer_id)?;
        if subscriber.offer_owed || subscriber.offerer.needs_offer() {
            self.offer_soon(peer_id, now);
        }
        Ok(())
    }

    /// No answer came: the offer is made again, with what has changed since.
    pub(super) fn handle_answer_overdue(&mut self, peer_id: PeerId, now: Now) {
        let Ok(subscriber) = self.subscriber_mut(peer_id) else { return };
        subscriber.unanswered += 1;
        tracing::debug!(peer = %peer_id, times = subscriber.unanswered, "the peer does not answer our offer");
        if subscriber.unanswered < OFFERS_UNANSWERED_MAX {
            subscriber.offerer.abandon();
            subscriber.offer_owed = true;
            self.negotiate(peer_id, now);
        }
    }

    /// Has the data plane forward what the peer accepted, and nothing else.
    fn take_accepted(&mut self, peer_id: PeerId, accepted: Vec<AcceptedTrack>) {
        let Ok(subscriber) = self.subscriber_mut(peer_id) else { return };
        let is_accepted = |id| accepted.iter().any(|track| track.id == id);
        let refused: Vec<_> = subscriber
            .subscriptions
            .iter_mut()
            .filter_map(|(&id, sub)| (!is_accepted(id) && sub.live.take().is_some()).then_some(id))
            .collect();
        for subscription in refused {
            self.command(Command::Unsubscribe { subscription });
        }
        for track in accepted {
            let Some(spec) = self.subscription_spec(peer_id, track) else { continue };
            let Ok(subscriber) = self.subscriber_mut(peer_id) else { return };
            let Some(sub) = subscriber.subscriptions.get_mut(&spec.id) else { continue };
            if sub.live.as_ref() != Some(&spec) {
                sub.live = Some(spec.clone());
                self.command(Command::Subscribe(Box::new(spec)));
            }
        }
    }

    /// An accepted track with all that is known of it; `None` when it ended while it was on offer.
    fn subscription_spec(&self, peer_id: PeerId, accepted: AcceptedTrack) -> Option<SubscriptionSpec> {
        let subscriber = self.peers.get(&peer_id)?.subscriber.as_ref()?;
        let sub = subscriber.subscriptions.get(&accepted.id)?;
        let track = self.tracks.get(&sub.track)?;
        Some(SubscriptionSpec {
            id: accepted.id,
            transport: subscriber.transport,
            track: sub.track,
            kind: track.kind,
            mid: accepted.mid,
            ssrc: sub.ssrc,
            rtx_ssrc: sub.rtx_ssrc,
            cname: self.cname(track),
            codecs: accepted.codecs,
            extensions: accepted.extensions,
            muted: sub.wish.muted,
            spatial_max: track.layers.clamp(sub.wish.spatial_max),
            temporal_max: sub.wish.temporal_max,
        })
    }
}
