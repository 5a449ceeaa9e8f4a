//! What control orders, and what the handshake threads report.

use std::time::Duration;

use ringmain_shared::command::{Command, ReceiveSpec, SubscriptionSpec, TrackSpec};
use ringmain_shared::event::{CloseReason, Event, Flow, IceState};
use ringmain_shared::id::{SubscriptionId, TrackId, TransportId, WorkerIndex};
use ringmain_shared::limits::{
    DTLS_BURST, DTLS_PER_SECOND, RTCP_BURST, RTCP_PER_SECOND, TRANSPORT_ABANDONED, TRANSPORTS_PER_WORKER_MAX,
};
use ringmain_shared::media::{SpatialLayer, Ssrc};
use ringmain_shared::transport::{IceCredentials, RemotePeer, TransportSpec};
use ringmain_shared::{DropReason, Now};

use super::Worker;
use super::relay::RelayItem;
use crate::forward::subscription::{Subscription, SubscriptionKey};
use crate::forward::track::{Origin, Track, TrackKey};
use crate::handshake::{FromHandshake, SrtpKeys, ToHandshake};
use crate::io::Transmit;
use crate::srtp::{Inbound, Outbound, split_keying_material};
use crate::stream::ToStream;
use crate::transport::{IceAgent, Keys, Publisher, Subscriber, TokenBucket, Transport, TransportKey};

/// What a worker is asked to do: control's commands about what is on it, and how tracks are mirrored between workers.
#[derive(Clone, Debug)]
pub enum WorkerCommand {
    /// As control gave it.
    Control(Command),
    /// A track of another worker has subscribers here: its packets will come over a ring.
    Mirror {
        /// What it is.
        track: TrackSpec,
        /// Who has it.
        from: WorkerIndex,
    },
    /// The last subscriber here is gone, or the track is.
    Unmirror {
        /// Which.
        track: TrackId,
    },
    /// A track of this worker has subscribers there.
    MirrorTo {
        /// Which.
        track: TrackId,
        /// Where.
        to: WorkerIndex,
    },
    /// It no longer has.
    UnmirrorTo {
        /// Which.
        track: TrackId,
        /// Where.
        to: WorkerIndex,
    },
}

/// How long a closed transport's path is kept for its last DTLS datagram.
const CLOSING: Duration = Duration::from_millis(500);

impl Worker {
    /// Carries out one order.
    pub fn handle_command(&mut self, command: WorkerCommand, now: Now) {
        self.lively = now;
        match command {
            WorkerCommand::Control(command) => self.handle_control(command, now),
            WorkerCommand::Mirror { track, from } => {
                self.open_track(track, Origin::Relay(from));
            }
            WorkerCommand::Unmirror { track } => {
                if let Some(&key) = self.names.tracks.get(&track) {
                    self.close_track(key);
                }
            }
            WorkerCommand::MirrorTo { track, to } => self.mirror_to(track, to, now),
            WorkerCommand::UnmirrorTo { track, to } => {
                let key = self.names.tracks.get(&track).copied();
                if let Some(track) = key.and_then(|key| self.tracks.get_mut(key)) {
                    track.mirrors.retain(|&mirror| mirror != to);
                }
            }
        }
    }

    /// Something a handshake thread has for this worker.
    pub fn handle_handshake(&mut self, item: FromHandshake, now: Now, out: &mut dyn Transmit) {
        self.lively = now;
        self.begin_links(now, out);
        match item {
            FromHandshake::Datagram { transport, bytes, .. } => {
                let key = self.names.transports.get(&transport).copied();
                if let Some(transport) = key.and_then(|key| self.transports.get_mut(key))
                    && let Some(path) = transport.ice.egress(bytes.as_slice().len())
                {
                    self.send(path, bytes.as_slice(), out);
                }
            }
            FromHandshake::Keys { transport, keys, .. } => self.secure(transport, &keys, now),
            FromHandshake::Closed { transport, reason, .. } => {
                if let Some(&key) = self.names.transports.get(&transport) {
                    self.remove_transport(key);
                    self.outbox.events.push(Event::Closed { transport, reason });
                }
            }
            FromHandshake::Event(event) => self.outbox.events.push(event),
        }
    }

    fn handle_control(&mut self, command: Command, now: Now) {
        match command {
            Command::OpenTransport { spec, .. } => self.open_transport(*spec, now),
            Command::SetRemote { transport, remote } => self.set_remote(transport, &remote, now),
            Command::RestartIce { transport, local, remote } => self.restart_ice(transport, &local, remote, now),
            Command::CloseTransport { transport } => {
                if let Some(&key) = self.names.transports.get(&transport) {
                    self.close_transport(key, now);
                }
            }
            Command::Receive { transport, spec } => self.receive(transport, spec, now),
            Command::Subscribe(spec) => self.subscribe(*spec, now),
            Command::Adjust { subscription, muted, spatial_max, temporal_max } => {
                if let Some(&key) = self.names.subscriptions.get(&subscription) {
                    self.adjust(key, muted, spatial_max, temporal_max, now);
                }
            }
            Command::Unsubscribe { subscription } => self.unsubscribe(subscription),
            // The API channel lives with the handshake threads.
            Command::SendApi { .. } => {}
            Command::Snapshot { request } => {
                let live = self.transports.values().filter(|transport| !transport.closing);
                let flows = live.map(|transport| self.flow(transport)).collect();
                self.outbox.events.push(Event::Snapshot { request, worker: self.settings.index, flows });
            }
            Command::Turn(command) => self.handle_turn_command(command, now),
        }
    }

    fn open_transport(&mut self, spec: TransportSpec, now: Now) {
        if self.names.transports.contains_key(&spec.id) {
            return;
        }
        if self.transports.len() >= TRANSPORTS_PER_WORKER_MAX {
            self.outbox.handshakes.push((spec.room, ToHandshake::Close { transport: spec.id }));
            self.outbox.events.push(Event::Closed { transport: spec.id, reason: CloseReason::Full });
            return;
        }
        self.names.last_number = self.names.last_number.wrapping_add(1);
        let number = self.names.last_number;
        let remote = spec.remote.as_ref().map(|remote| &remote.ice);
        let ice = IceAgent::new(&spec.local, remote, number, &mut self.random, now);
        let key = self.transports.insert(Transport {
            id: spec.id,
            peer: spec.peer,
            room: spec.room,
            side: spec.side,
            ice,
            ice_told: IceState::New,
            number,
            closing: false,
            rtcp_budget: TokenBucket::new(RTCP_PER_SECOND, RTCP_BURST, now),
            dtls_budget: TokenBucket::new(DTLS_PER_SECOND, DTLS_BURST, now),
            keys: None,
            former_ufrag: None,
            validated: false,
            publisher: None,
            subscriber: Subscriber::default(),
            timer: None,
            abandoned_at: Some(now + TRANSPORT_ABANDONED),
        });
        self.names.transports.insert(spec.id, key);
        self.names.numbers.insert(number, key);
        self.names.ufrags.insert(spec.local.ufrag.clone(), key);
        self.timers.make_room(self.transports.len());
        self.schedule(key);
    }

    fn set_remote(&mut self, id: TransportId, remote: &RemotePeer, now: Now) {
        let key = self.names.transports.get(&id).copied();
        let Some((key, transport)) = key.and_then(|key| Some((key, self.transports.get_mut(key)?))) else { return };
        transport.ice.set_remote(&remote.ice, now);
        self.schedule(key);
    }

    fn restart_ice(&mut self, id: TransportId, local: &IceCredentials, remote: Option<RemotePeer>, now: Now) {
        let key = self.names.transports.get(&id).copied();
        let Some((key, transport)) = key.and_then(|key| Some((key, self.transports.get_mut(key)?))) else { return };
        let is_current = transport.ice.ufrags().next() == Some(local.ufrag.as_str());
        if is_current {
            if let Some(remote) = remote {
                transport.ice.set_remote(&remote.ice, now);
            }
        } else {
            // The agent knows two generations, and so do the names.
            let former = transport.ice.ufrags().next().map(str::to_owned);
            if let Some(forgotten) = std::mem::replace(&mut transport.former_ufrag, former) {
                self.names.ufrags.remove(&forgotten);
            }
            transport.ice.restart(local, remote.as_ref().map(|remote| &remote.ice), now);
            self.names.ufrags.insert(local.ufrag.clone(), key);
        }
        self.schedule(key);
    }

    fn secure(&mut self, id: TransportId, keys: &SrtpKeys, now: Now) {
        let key = self.names.transports.get(&id).copied();
        let Some((key, transport)) = key.and_then(|key| Some((key, self.transports.get_mut(key)?))) else { return };
        let split = split_keying_material(keys.profile, &keys.material, keys.role);
        let Some((inbound, outbound)) = split else { return };
        // The same keys again would begin their indices anew.
        if transport.keys.is_some() {
            return;
        }
        transport.keys = Some(Keys { inbound: Inbound::new(inbound), outbound: Outbound::new(outbound) });
        self.outbox.events.push(Event::Secured { transport: id });
        self.schedule(key);
        self.begin_sending(key, now);
    }

    /// A transport may be able to send from now on: it begins with keyframes.
    pub(super) fn begin_sending(&mut self, key: TransportKey, now: Now) {
        let Some(transport) = self.transports.get(key).filter(|transport| transport.can_send()) else { return };
        let subscriptions: Vec<SubscriptionKey> =
            transport.subscriber.streams.iter().map(|stream| stream.subscription).collect();
        subscriptions.into_iter().for_each(|key| self.choose_layer(key, now));
    }

    /// Control ends a transport: its media ends now, its path stays a moment for DTLS to say close_notify.
    fn close_transport(&mut self, key: TransportKey, now: Now) {
        self.end_media(key);
        if let Some(transport) = self.transports.get_mut(key) {
            transport.closing = true;
            transport.abandoned_at = Some(now + CLOSING);
            self.schedule(key);
        }
    }

    /// Forgets a transport with all that is on it. Says nothing to anybody.
    pub(super) fn remove_transport(&mut self, key: TransportKey) {
        self.end_media(key);
        let Some(transport) = self.transports.remove(key) else { return };
        self.names.transports.remove(&transport.id);
        self.names.numbers.remove(&transport.number);
        // Only its own names are looked at: many transports may end in one turn.
        for ufrag in transport.ice.ufrags().chain(transport.former_ufrag.as_deref()) {
            self.names.ufrags.remove(ufrag);
        }
        for path in transport.ice.paths() {
            if self.names.paths.get(&path) == Some(&key) {
                self.names.paths.remove(&path);
                if path.socket.is_ice_stream() {
                    self.outbox.streams.push(ToStream::ClosePath { path });
                }
            }
        }
    }

    fn end_media(&mut self, key: TransportKey) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let tracks: Vec<TrackKey> = match transport.publisher.take() {
            Some(publisher) => {
                self.stats.rtp_expected += publisher.expected();
                publisher.tracks.iter().map(|track| track.key).collect()
            }
            None => Vec::new(),
        };
        let sent = transport.subscriber.streams.iter().map(|stream| stream.subscription);
        let subscriptions: Vec<SubscriptionKey> = sent.collect();
        tracks.into_iter().for_each(|key| self.close_track(key));
        subscriptions.into_iter().for_each(|key| self.remove_subscription(key));
    }

    fn receive(&mut self, id: TransportId, mut spec: ReceiveSpec, now: Now) {
        let Some(&transport_key) = self.names.transports.get(&id) else { return };
        // A track that belongs to another transport is not this one's to send.
        spec.tracks.retain(|track| {
            let known = self.names.tracks.get(&track.id).and_then(|&key| self.tracks.get(key));
            known.is_none_or(|known| known.origin == Origin::Local(transport_key))
        });
        let keys: Vec<TrackKey> =
            spec.tracks.iter().map(|track| self.open_track(track.clone(), Origin::Local(transport_key))).collect();
        let Some(transport) = self.transports.get_mut(transport_key) else { return };
        let own_ssrc = Ssrc(self.random.next_u64() as u32);
        let publisher = transport
            .publisher
            .get_or_insert_with(|| Box::new(Publisher::new(&self.settings.publishers, own_ssrc, now)));
        let ended: Vec<TrackKey> =
            publisher.tracks.iter().map(|track| track.key).filter(|key| !keys.contains(key)).collect();
        publisher.negotiate(spec, &keys, &self.settings.publishers);
        ended.into_iter().for_each(|key| self.close_track(key));
    }

    /// A new track, or new words about one that is known.
    fn open_track(&mut self, spec: TrackSpec, origin: Origin) -> TrackKey {
        let id = spec.id;
        if let Some(&key) = self.names.tracks.get(&id)
            && let Some(track) = self.tracks.get_mut(key)
        {
            track.spec = spec;
            return key;
        }
        let key = self.tracks.insert(Track::new(spec, origin));
        self.names.tracks.insert(id, key);
        key
    }

    fn close_track(&mut self, key: TrackKey) {
        let Some(track) = self.tracks.remove(key) else { return };
        self.names.tracks.remove(&track.id());
        for subscription in track.subscribers {
            self.remove_subscription(subscription);
        }
    }

    fn mirror_to(&mut self, id: TrackId, to: WorkerIndex, now: Now) {
        let key = self.names.tracks.get(&id).copied();
        let Some((key, track)) = key.and_then(|key| Some((key, self.tracks.get_mut(key)?))) else { return };
        if !track.mirrors.contains(&to) {
            track.mirrors.push(to);
        }
        let (alive, offset) = (track.alive, track.offset);
        let clocks: Vec<_> =
            (0..).zip(&track.layers).filter_map(|(n, layer)| Some((n, layer.as_ref()?.clock?))).collect();
        for (spatial, clock) in clocks {
            self.relay_to(to, RelayItem::Clock { track: id, spatial, clock, offset });
        }
        if alive != 0 {
            self.relay_to(to, RelayItem::Alive { track: id, layers: alive });
            self.want_keyframe(key, 7 - alive.leading_zeros() as u8, now);
        }
    }

    fn subscribe(&mut self, spec: SubscriptionSpec, now: Now) {
        let transport_key = self.names.transports.get(&spec.transport).copied();
        let track_key = self.names.tracks.get(&spec.track).copied();
        let (Some(transport_key), Some(track_key)) = (transport_key, track_key) else { return };
        if let Some(&key) = self.names.subscriptions.get(&spec.id)
            && let Some(known) = self.subscriptions.get(key)
        {
            // The same stream with the same numbers must not begin anew: an SRTP index would be used twice.
            if known.spec.ssrc == spec.ssrc && known.transport == transport_key && known.track == track_key {
                let (muted, spatial_max, temporal_max) = (spec.muted, spec.spatial_max, spec.temporal_max);
                if let Some(known) = self.subscriptions.get_mut(key) {
                    known.renegotiate(spec);
                }
                return self.adjust(key, muted, spatial_max, temporal_max, now);
            }
            self.unsubscribe(spec.id);
        }
        let (Some(transport), Some(track)) = (self.transports.get_mut(transport_key), self.tracks.get_mut(track_key))
        else {
            return;
        };
        let taken = |ssrc: Ssrc| transport.subscriber.used.contains(&ssrc);
        if taken(spec.ssrc) || spec.rtx_ssrc.is_some_and(taken) {
            return self.count(DropReason::TooManySsrcs);
        }
        let (id, ssrc, rtx) = (spec.id, spec.ssrc, spec.rtx_ssrc);
        let random = [self.random.next_u64(), self.random.next_u64()];
        let subscription = Subscription::new(spec, transport_key, track_key, random);
        let key = self.subscriptions.insert(subscription);
        self.names.subscriptions.insert(id, key);
        transport.subscriber.add(ssrc, rtx, key);
        track.subscribers.push(key);
        self.choose_layer(key, now);
    }

    fn adjust(&mut self, key: SubscriptionKey, muted: bool, spatial_max: SpatialLayer, temporal_max: u8, now: Now) {
        if let Some(subscription) = self.subscriptions.get_mut(key) {
            subscription.adjust(muted, spatial_max, temporal_max);
            self.choose_layer(key, now);
        }
    }

    fn unsubscribe(&mut self, id: SubscriptionId) {
        if let Some(&key) = self.names.subscriptions.get(&id) {
            self.remove_subscription(key);
        }
    }

    fn remove_subscription(&mut self, key: SubscriptionKey) {
        let Some(subscription) = self.subscriptions.remove(key) else { return };
        self.names.subscriptions.remove(&subscription.id());
        if let Some(track) = self.tracks.get_mut(subscription.track) {
            track.subscribers.retain(|&subscriber| subscriber != key);
        }
        if let Some(transport) = self.transports.get_mut(subscription.transport) {
            transport.subscriber.streams.retain(|stream| stream.subscription != key);
            // RFC 3550 §6.6: the subscriber hears of the end with the next report, which is due at once.
            transport.subscriber.ended.push(subscription.spec.ssrc);
            transport.subscriber.report_at = Some(Now(0));
            self.schedule(subscription.transport);
        }
    }

    /// Asks for the keyframes that subscriptions still need, after what came was forwarded.
    pub(super) fn settle(&mut self, now: Now) {
        while let Some(key) = self.unsettled.pop() {
            self.choose_layer(key, now);
        }
    }

    /// The layer that a subscription should get may be another one now.
    pub(super) fn choose_layer(&mut self, key: SubscriptionKey, now: Now) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        let track_key = subscription.track;
        let Some(track) = self.tracks.get(track_key) else { return };
        let spatial = subscription.choose(track.alive);
        // A keyframe that came before it can be sent would be lost, and hold up the next: `begin_sending` asks.
        let can_send = self.transports.get(subscription.transport).is_some_and(Transport::can_send);
        if let Some(spatial) = spatial.filter(|_| can_send) {
            self.want_keyframe(track_key, spatial, now);
        }
    }

    /// The set of live layers of a track is another one.
    pub(super) fn layers_changed(&mut self, key: TrackKey, layers: u8) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        if track.alive == layers {
            return;
        }
        track.alive = layers;
        let (id, mirrors) = (track.id(), track.mirrors.clone());
        let subscribers = track.subscribers.clone();
        if matches!(track.origin, Origin::Local(_)) {
            self.outbox.events.push(Event::LayersActive { track: id, layers });
            for to in mirrors {
                self.relay_to(to, RelayItem::Alive { track: id, layers });
            }
        }
        for key in subscribers {
            // Whether that takes a keyframe shows when this batch is forwarded: it may have brought one.
            if let Some(subscription) = self.subscriptions.get_mut(key) {
                let _ = subscription.choose(layers);
                self.unsettled.push(key);
            }
        }
    }

    fn flow(&self, transport: &Transport) -> Flow {
        let subscription = |stream: &crate::transport::subscriber::SentStream| {
            self.subscriptions.get(stream.subscription).map(|subscription| (*subscription.spec).clone())
        };
        Flow {
            transport: transport.id,
            room: transport.room,
            side: transport.side,
            ufrag: transport.ice.ufrags().next().unwrap_or_default().to_owned(),
            ice: transport.ice.state(),
            secured: transport.keys.is_some(),
            remote: transport.ice.selected().map(|path| path.remote),
            receive: transport.publisher.as_ref().map(|publisher| publisher.spec.clone()).unwrap_or_default(),
            subscriptions: transport.subscriber.streams.iter().filter_map(subscription).collect(),
        }
    }
}
