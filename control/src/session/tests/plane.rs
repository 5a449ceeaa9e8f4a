//! A data plane that moves no packet but holds every command against what a real one needs.

use std::collections::{BTreeMap, BTreeSet};

use ringmain_shared::Command;
use ringmain_shared::command::{ReceiveSpec, SubscriptionSpec, TrackSpec};
use ringmain_shared::id::{PeerId, RoomId, SubscriptionId, TrackId, TransportId, WorkerIndex};
use ringmain_shared::transport::{IceCredentials, Side, TransportSpec};

#[derive(Default)]
pub(super) struct Plane {
    pub(super) transports: BTreeMap<TransportId, Transport>,
    pub(super) subscriptions: BTreeMap<SubscriptionId, SubscriptionSpec>,
    /// Everything said on API channels.
    pub(super) api: Vec<(TransportId, String)>,
    ids: BTreeSet<u64>,
    ufrags: BTreeSet<String>,
}

pub(super) struct Transport {
    pub(super) worker: WorkerIndex,
    pub(super) spec: TransportSpec,
    pub(super) local: IceCredentials,
    pub(super) remote_ufrag: Option<String>,
    pub(super) receive: ReceiveSpec,
    pub(super) restarts: u32,
}

impl Plane {
    pub(super) fn apply(&mut self, command: &Command) {
        match command {
            Command::OpenTransport { worker, spec } => self.open(*worker, spec),
            Command::SetRemote { transport, remote } => {
                self.transport(*transport).remote_ufrag = Some(remote.ice.ufrag.clone());
            }
            Command::RestartIce { transport, local, remote } => {
                assert!(self.ufrags.insert(local.ufrag.clone()), "a restart has new credentials");
                let transport = self.transport(*transport);
                assert!(transport.remote_ufrag.is_some(), "nothing to restart");
                assert_eq!(remote.is_some(), transport.spec.side == Side::Publisher, "who offers knows no remote yet");
                transport.local = local.clone();
                transport.restarts += 1;
                if let Some(remote) = remote {
                    transport.remote_ufrag = Some(remote.ice.ufrag.clone());
                }
            }
            Command::CloseTransport { transport } => {
                self.transport(*transport);
                self.kill(*transport);
            }
            Command::Receive { transport, spec } => self.receive(*transport, spec),
            Command::Subscribe(spec) => self.subscribe(spec),
            Command::Adjust { subscription, muted, spatial_max, temporal_max } => {
                let sub = self.subscriptions.get_mut(subscription).expect("adjusts what there is");
                (sub.muted, sub.spatial_max, sub.temporal_max) = (*muted, *spatial_max, *temporal_max);
            }
            Command::Unsubscribe { subscription } => {
                assert!(self.subscriptions.remove(subscription).is_some(), "unsubscribes what there is");
            }
            Command::SendApi { transport, text } => {
                assert_eq!(self.transport(*transport).spec.side, Side::Subscriber);
                self.api.push((*transport, text.clone()));
            }
            // Looked at by the tests that lend credentials.
            Command::Turn(_) => {}
            Command::Snapshot { .. } => panic!("nobody asked for one"),
        }
    }

    /// A transport ends, with its subscriptions.
    pub(super) fn kill(&mut self, transport: TransportId) {
        self.transports.remove(&transport);
        self.subscriptions.retain(|_, sub| sub.transport != transport);
    }

    /// No subscription is to a track that has ended. To be held when a control that was told everything has said its all.
    pub(super) fn check_nothing_dangles(&self) {
        for sub in self.subscriptions.values() {
            assert!(self.find(sub.track).is_some(), "{} is still subscribed to {}", sub.transport, sub.track);
        }
    }

    pub(super) fn of(&self, peer: PeerId, side: Side) -> Option<TransportId> {
        self.transports.values().find(|t| t.spec.peer == peer && t.spec.side == side).map(|t| t.spec.id)
    }

    pub(super) fn subscriptions_of(&self, transport: TransportId) -> Vec<&SubscriptionSpec> {
        self.subscriptions.values().filter(|sub| sub.transport == transport).collect()
    }

    /// What a peer publishes.
    pub(super) fn tracks_of(&self, peer: PeerId) -> Vec<&TrackSpec> {
        let publisher = self.of(peer, Side::Publisher).and_then(|id| self.transports.get(&id));
        publisher.map(|transport| transport.receive.tracks.iter().collect()).unwrap_or_default()
    }

    fn open(&mut self, worker: WorkerIndex, spec: &TransportSpec) {
        assert!(self.ids.insert(spec.id.0), "an id is used once");
        assert!(self.ufrags.insert(spec.local.ufrag.clone()), "credentials are used once");
        assert!(spec.local.ufrag.len() >= 8 && spec.local.pwd.len() >= 22);
        assert!(spec.remote.is_none() && spec.channels.is_some());
        let (local, spec) = (spec.local.clone(), spec.clone());
        let receive = ReceiveSpec::default();
        self.transports.insert(spec.id, Transport { worker, spec, local, remote_ufrag: None, receive, restarts: 0 });
    }

    fn receive(&mut self, id: TransportId, spec: &ReceiveSpec) {
        let transport = self.transport(id);
        assert_eq!(transport.spec.side, Side::Publisher);
        assert!(transport.remote_ufrag.is_some(), "Receive before SetRemote");
        let before: BTreeSet<TrackId> = transport.receive.tracks.iter().map(|track| track.id).collect();
        let after: BTreeSet<TrackId> = spec.tracks.iter().map(|track| track.id).collect();
        assert_eq!(after.len(), spec.tracks.len(), "a track is listed once");
        transport.receive = spec.clone();
        for track in after.difference(&before) {
            assert!(self.ids.insert(track.0), "an id is used once");
        }
        for sub in self.subscriptions.values() {
            assert!(!before.contains(&sub.track) || after.contains(&sub.track), "unsubscribe before the track ends");
        }
    }

    fn subscribe(&mut self, spec: &SubscriptionSpec) {
        let (publisher, room, ssrcs) = self.find(spec.track).expect("Subscribe to a track that is received");
        let subscriber = self.transport(spec.transport);
        assert_eq!(subscriber.spec.side, Side::Subscriber);
        assert!(subscriber.remote_ufrag.is_some(), "Subscribe before SetRemote");
        assert_eq!(subscriber.spec.room, room, "another room's track");
        assert_ne!(subscriber.spec.peer, publisher, "a peer's own track");
        assert!(!spec.codecs.is_empty() && !spec.mid.is_empty() && !spec.cname.is_empty());
        assert!(!ssrcs.contains(&spec.ssrc.0), "a publisher's SSRC");
        for other in self.subscriptions.values().filter(|sub| sub.transport == spec.transport && sub.id != spec.id) {
            let own = [Some(spec.ssrc), spec.rtx_ssrc];
            let others = [Some(other.ssrc), other.rtx_ssrc];
            assert!(own.iter().flatten().all(|ssrc| !others.contains(&Some(*ssrc))), "an SSRC twice on one transport");
            assert_ne!(other.mid, spec.mid, "an m-section twice");
            assert_ne!(other.track, spec.track, "a track twice");
        }
        match self.subscriptions.insert(spec.id, spec.clone()) {
            Some(before) => assert_eq!((before.track, before.ssrc), (spec.track, spec.ssrc)),
            None => assert!(self.ids.insert(spec.id.0), "an id is used once"),
        }
    }

    fn find(&self, track: TrackId) -> Option<(PeerId, RoomId, Vec<u32>)> {
        self.transports.values().find_map(|transport| {
            let found = transport.receive.tracks.iter().find(|spec| spec.id == track)?;
            Some((transport.spec.peer, transport.spec.room, found.ssrcs.iter().map(|layer| layer.ssrc.0).collect()))
        })
    }

    fn transport(&mut self, id: TransportId) -> &mut Transport {
        self.transports.get_mut(&id).unwrap_or_else(|| panic!("a command about {id}, which is not open"))
    }
}
