//! The `ion-sfu` data channel: wishes about layers from subscribers, layers that publishers enable, and what becomes of both.
//! The words are in the table of [`crate::rpc`].

use ringmain_shared::id::{PeerId, SubscriptionId, TrackId, TransportId};
use ringmain_shared::media::{Kind, SpatialLayer};
use ringmain_shared::transport::Side;
use ringmain_shared::{Command, Now};
use serde_json::{Map, Value, json};

use super::Rooms;
use super::peer::Wish;
use crate::rpc;

impl Rooms {
    /// A peer's API channel is open: it is told what others were told before.
    pub(super) fn handle_api_open(&mut self, transport: TransportId) {
        let Some(&(peer_id, Side::Subscriber)) = self.transports.get(&transport) else { return };
        let Ok(subscriber) = self.subscriber_mut(peer_id) else { return };
        if std::mem::replace(&mut subscriber.api_open, true) {
            return;
        }
        let subscriptions: Vec<SubscriptionId> = subscriber.subscriptions.keys().copied().collect();
        self.tell_present_speakers(peer_id);
        for subscription in subscriptions {
            self.tell_active_layer(subscription, false);
        }
    }

    /// A peer said something on its API channel. What is not understood is passed over, as ion does.
    pub(super) fn handle_api_message(&mut self, transport: TransportId, text: &str, now: Now) {
        let Some(&(peer_id, Side::Subscriber)) = self.transports.get(&transport) else { return };
        self.handle_api_open(transport);
        let Ok(subscriber) = self.subscriber_mut(peer_id) else { return };
        if !subscriber.api_rate.take(now) {
            tracing::debug!(peer = %peer_id, "too many messages on the API channel");
            return;
        }
        if text == "ping" {
            return self.command(Command::SendApi { transport, text: "pong".to_owned() });
        }
        let Ok(Value::Object(message)) = rpc::parse_json(text) else { return };
        let Some(stream_id) = message.get("streamId").and_then(Value::as_str) else { return };
        match message.get("layers") {
            Some(Value::Array(layers)) if !layers.is_empty() => self.announce_layers(peer_id, stream_id, layers),
            _ => self.wish(peer_id, stream_id, &message),
        }
    }

    /// A worker saw layers of a track come or go.
    pub(super) fn handle_layers_active(&mut self, track_id: TrackId, bits: u8) {
        let Some(track) = self.tracks.get_mut(&track_id) else { return };
        track.layers.set_alive(bits);
        if track.layers.are_of_interest() {
            self.tell_active_layers(track_id, false);
        }
    }

    /// A subscriber gets another layer.
    pub(super) fn handle_layer_forwarded(&mut self, subscription: SubscriptionId, spatial: SpatialLayer) {
        let Some(&peer_id) = self.subscriptions.get(&subscription) else { return };
        let Ok(subscriber) = self.subscriber_mut(peer_id) else { return };
        let Some(sub) = subscriber.subscriptions.get_mut(&subscription) else { return };
        sub.forwarded = Some(spatial);
        self.tell_active_layer(subscription, false);
    }

    /// A publisher says which layers it enables: every subscriber of the stream is held to those, and told.
    fn announce_layers(&mut self, publisher: PeerId, own_stream_id: &str, layers: &[Value]) {
        let layers = layers.iter().filter_map(Value::as_str).filter_map(layer_of);
        let bits: u8 = layers.fold(0, |bits, layer| bits | 1 << layer);
        if bits == 0 {
            return;
        }
        let own_tracks = self.peers.get(&publisher).and_then(|peer| peer.publisher.as_ref());
        let own_tracks: Vec<TrackId> = own_tracks.into_iter().flat_map(|own| own.tracks.values().copied()).collect();
        for track_id in own_tracks {
            let Some(track) = self.tracks.get_mut(&track_id) else { continue };
            if track.kind == Kind::Video && track.own.stream == own_stream_id {
                track.layers.announce(bits);
                self.tell_active_layers(track_id, true);
            }
        }
    }

    /// A subscriber says what it wants of a stream.
    fn wish(&mut self, peer_id: PeerId, stream_id: &str, message: &Map<String, Value>) {
        let Some(subscriber) = self.peers.get_mut(&peer_id).and_then(|peer| peer.subscriber.as_mut()) else { return };
        let mut changed = Vec::new();
        for (&id, sub) in &mut subscriber.subscriptions {
            let Some(track) = self.tracks.get(&sub.track).filter(|track| track.shown.stream == stream_id) else {
                continue;
            };
            sub.wish.take(track.kind, message);
            changed.push(id);
        }
        for subscription in changed {
            self.adjust(subscription);
        }
    }

    /// Tells every subscriber of a track about its layers, and holds it to them.
    fn tell_active_layers(&mut self, track_id: TrackId, always: bool) {
        let Some(track) = self.tracks.get(&track_id) else { return };
        let subscriptions: Vec<SubscriptionId> = track
            .subscribers
            .iter()
            .filter_map(|peer| self.peers.get(peer)?.subscriber.as_ref()?.by_track.get(&track_id).copied())
            .collect();
        for subscription in subscriptions {
            self.adjust(subscription);
            self.tell_active_layer(subscription, always);
        }
    }

    /// Brings the data plane in line with what is wished and announced.
    fn adjust(&mut self, subscription: SubscriptionId) {
        let Some(&peer_id) = self.subscriptions.get(&subscription) else { return };
        let Some(subscriber) = self.peers.get_mut(&peer_id).and_then(|peer| peer.subscriber.as_mut()) else { return };
        let Some(sub) = subscriber.subscriptions.get_mut(&subscription) else { return };
        let Some(track) = self.tracks.get(&sub.track) else { return };
        let Some(live) = &mut sub.live else { return };
        let Wish { muted, spatial_max, temporal_max } = sub.wish;
        let spatial_max = track.layers.clamp(spatial_max);
        if (live.muted, live.spatial_max, live.temporal_max) == (muted, spatial_max, temporal_max) {
            return;
        }
        (live.muted, live.spatial_max, live.temporal_max) = (muted, spatial_max, temporal_max);
        self.command(Command::Adjust { subscription, muted, spatial_max, temporal_max });
    }

    /// Tells a subscriber which layer of a track it gets and which there are, if that is news or must be said.
    fn tell_active_layer(&mut self, subscription: SubscriptionId, always: bool) {
        let Some(&peer_id) = self.subscriptions.get(&subscription) else { return };
        let Some(subscriber) = self.peers.get_mut(&peer_id).and_then(|peer| peer.subscriber.as_mut()) else { return };
        let Some(sub) = subscriber.subscriptions.get_mut(&subscription) else { return };
        let Some(track) = self.tracks.get(&sub.track) else { return };
        let layers = track.layers;
        if !subscriber.api_open || track.kind != Kind::Video || !layers.are_of_interest() {
            return;
        }
        let available = layers.available();
        let arrives = sub.forwarded.filter(|layer| available & 1_u8.checked_shl(u32::from(*layer)).unwrap_or(0) != 0);
        let active = arrives.unwrap_or_else(|| layers.expected(sub.wish.spatial_max));
        if sub.told.replace((active, available)) == Some((active, available)) && !always {
            return;
        }
        let names: Vec<&str> =
            LAYERS.iter().filter(|(_, layer)| available & 1 << layer != 0).map(|(name, _)| *name).collect();
        let params = json!({
            "streamId": track.shown.stream,
            "activeLayer": name_of(active),
            "availableLayers": names,
        });
        let text = json!({"method": "activeLayer", "params": params}).to_string();
        let transport = subscriber.transport;
        self.command(Command::SendApi { transport, text });
    }
}

impl Wish {
    /// What `message` says of tracks of this kind. Temporal layers go by the same names as spatial ones.
    fn take(&mut self, kind: Kind, message: &Map<String, Value>) {
        let text = |member: &str| message.get(member).and_then(Value::as_str);
        match kind {
            Kind::Audio => {
                if let Some(wanted) = message.get("audio").and_then(Value::as_bool) {
                    self.muted = !wanted;
                }
            }
            Kind::Video => {
                match text("video") {
                    Some("none") => self.muted = true,
                    Some(name) => {
                        if let Some(layer) = layer_of(name) {
                            self.muted = false;
                            self.spatial_max = layer;
                        }
                    }
                    None => {}
                }
                if let Some(layer) = text("framerate").and_then(layer_of) {
                    self.temporal_max = layer;
                }
            }
        }
    }
}

/// Names of layers on the wire, best first.
const LAYERS: [(&str, SpatialLayer); 3] = [("high", 2), ("medium", 1), ("low", 0)];

fn layer_of(name: &str) -> Option<SpatialLayer> {
    LAYERS.iter().find(|(layer, _)| *layer == name).map(|(_, layer)| *layer)
}

fn name_of(layer: SpatialLayer) -> &'static str {
    LAYERS.iter().find(|(_, number)| *number == layer).map_or("high", |(name, _)| name)
}
