//! Which worker and which handshake thread a command is for, and which workers mirror which tracks.
//! Control names things by id; where they live is known here.

use std::collections::{BTreeSet, HashMap, HashSet};

use ringmain_shared::Command;
use ringmain_shared::command::{ReceiveSpec, SubscriptionSpec, TrackSpec};
use ringmain_shared::event::Event;
use ringmain_shared::id::{RoomId, SubscriptionId, TrackId, TransportId, WorkerIndex};

use super::stream_loop::StreamOrder;
use crate::handshake::ToHandshake;
use crate::worker::WorkerCommand;

/// An order and who it is for.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a few at a time, on their way to a ring that holds them in place")]
pub(super) enum Routed {
    Worker(WorkerIndex, WorkerCommand),
    Handshaker(usize, ToHandshake),
    Streams(StreamOrder),
}

/// Where everything is.
#[derive(Debug)]
pub(super) struct Router {
    workers: u16,
    handshakers: usize,
    workers_seen: HashSet<WorkerIndex>,
    transports: HashMap<TransportId, Home>,
    tracks: HashMap<TrackId, TrackHome>,
    subscriptions: HashMap<SubscriptionId, SubscriptionHome>,
}

#[derive(Debug)]
struct Home {
    worker: WorkerIndex,
    handshaker: usize,
    /// What it publishes.
    tracks: Vec<TrackId>,
    /// What it is sent.
    subscriptions: BTreeSet<SubscriptionId>,
    /// Its user fragments, of this generation and the one before.
    ufrags: Vec<String>,
}

#[derive(Debug)]
struct TrackHome {
    worker: WorkerIndex,
    spec: TrackSpec,
    subscriptions: BTreeSet<SubscriptionId>,
    /// Workers that mirror it, and for how many subscriptions.
    mirrors: HashMap<WorkerIndex, usize>,
}

#[derive(Debug)]
struct SubscriptionHome {
    transport: TransportId,
    track: TrackId,
    worker: WorkerIndex,
}

/// Credentials of a transport that hold at a time: the present ones, and until a check comes with those, the ones before.
const GENERATIONS_MAX: usize = 2;

/// The handshake thread of a room: one for all its transports, since data channels fan out there.
pub(super) fn handshaker_of(room: RoomId, count: usize) -> usize {
    (room.0 % count.max(1) as u64) as usize
}

impl Router {
    pub(super) fn new(workers: u16, handshakers: usize) -> Self {
        Self {
            workers,
            handshakers,
            workers_seen: HashSet::new(),
            transports: HashMap::new(),
            tracks: HashMap::new(),
            subscriptions: HashMap::new(),
        }
    }

    /// Gives `out` the orders that a command becomes, in the order in which they must arrive.
    pub(super) fn route(&mut self, command: Command, out: &mut dyn FnMut(Routed)) {
        match command {
            Command::OpenTransport { worker, spec } => {
                let handshaker = handshaker_of(spec.room, self.handshakers);
                self.workers_seen.insert(worker);
                let ufrag = spec.local.ufrag.clone();
                let home = Home {
                    worker,
                    handshaker,
                    tracks: Vec::new(),
                    subscriptions: BTreeSet::new(),
                    ufrags: vec![ufrag.clone()],
                };
                self.transports.insert(spec.id, home);
                out(Routed::Streams(StreamOrder::Name { ufrag, worker }));
                // The handshake thread first: the worker may have a datagram for it at once.
                out(Routed::Handshaker(handshaker, ToHandshake::Open { worker, spec: spec.clone() }));
                out(Routed::Worker(worker, WorkerCommand::Control(Command::OpenTransport { worker, spec })));
            }
            Command::SetRemote { transport, remote } => {
                let Some(home) = self.transports.get(&transport) else { return };
                out(Routed::Handshaker(home.handshaker, ToHandshake::SetRemote { transport, remote: remote.clone() }));
                out(Routed::Worker(home.worker, WorkerCommand::Control(Command::SetRemote { transport, remote })));
            }
            Command::RestartIce { transport, ref local, .. } => {
                if let Some(home) = self.transports.get_mut(&transport) {
                    let (ufrag, worker) = (local.ufrag.clone(), home.worker);
                    home.ufrags.push(ufrag.clone());
                    out(Routed::Streams(StreamOrder::Name { ufrag, worker }));
                    if home.ufrags.len() > GENERATIONS_MAX {
                        out(Routed::Streams(StreamOrder::Forget { ufrag: home.ufrags.remove(0) }));
                    }
                    out(Routed::Worker(home.worker, WorkerCommand::Control(command)));
                }
            }
            Command::CloseTransport { transport } => {
                let Some(home) = self.transports.get(&transport) else { return };
                out(Routed::Handshaker(home.handshaker, ToHandshake::Close { transport }));
                out(Routed::Worker(home.worker, WorkerCommand::Control(command)));
                self.forget_transport(transport, out);
            }
            Command::Receive { transport, spec } => self.receive(transport, spec, out),
            Command::Subscribe(spec) => self.subscribe(spec, out),
            Command::Adjust { subscription, .. } => {
                if let Some(home) = self.subscriptions.get(&subscription) {
                    out(Routed::Worker(home.worker, WorkerCommand::Control(command)));
                }
            }
            Command::Unsubscribe { subscription } => {
                if let Some(home) = self.subscriptions.get(&subscription) {
                    out(Routed::Worker(home.worker, WorkerCommand::Control(command)));
                    self.forget_subscription(subscription, out);
                }
            }
            Command::SendApi { transport, text } => {
                if let Some(home) = self.transports.get(&transport) {
                    out(Routed::Handshaker(home.handshaker, ToHandshake::SendApi { transport, text }));
                }
            }
            Command::Snapshot { .. } => {
                for &worker in &self.workers_seen {
                    out(Routed::Worker(worker, WorkerCommand::Control(command.clone())));
                }
            }
            // Any worker may hold an allocation: the kernel spreads clients over them.
            Command::Turn(_) => {
                for worker in 0..self.workers {
                    out(Routed::Worker(WorkerIndex(worker), WorkerCommand::Control(command.clone())));
                }
            }
        }
    }

    /// A transport that ended by itself is forgotten here too, and by its handshake thread: that was told of it even when the
    /// worker had no room, and word from the worker may have found a full ring.
    pub(super) fn note(&mut self, event: &Event, out: &mut dyn FnMut(Routed)) {
        let Event::Closed { transport, .. } = *event else { return };
        if let Some(home) = self.transports.get(&transport) {
            out(Routed::Handshaker(home.handshaker, ToHandshake::Close { transport }));
        }
        self.forget_transport(transport, out);
    }

    fn receive(&mut self, transport: TransportId, spec: ReceiveSpec, out: &mut dyn FnMut(Routed)) {
        let Some(home) = self.transports.get_mut(&transport) else { return };
        let worker = home.worker;
        let now: Vec<TrackId> = spec.tracks.iter().map(|track| track.id).collect();
        let before = std::mem::replace(&mut home.tracks, now.clone());
        for track in &spec.tracks {
            let home = self.tracks.entry(track.id);
            let home = home.or_insert_with(|| TrackHome {
                worker,
                spec: track.clone(),
                subscriptions: BTreeSet::new(),
                mirrors: HashMap::new(),
            });
            if home.spec != *track {
                home.spec = track.clone();
                for &mirror in home.mirrors.keys() {
                    out(Routed::Worker(mirror, WorkerCommand::Mirror { track: track.clone(), from: worker }));
                }
            }
        }
        out(Routed::Worker(worker, WorkerCommand::Control(Command::Receive { transport, spec })));
        for ended in before.into_iter().filter(|track| !now.contains(track)) {
            self.forget_track(ended, out);
        }
    }

    fn subscribe(&mut self, spec: Box<SubscriptionSpec>, out: &mut dyn FnMut(Routed)) {
        let moved = |home: &SubscriptionHome| (home.transport, home.track) != (spec.transport, spec.track);
        if self.subscriptions.get(&spec.id).is_some_and(moved) {
            self.forget_subscription(spec.id, out);
        }
        let (Some(home), Some(track)) = (self.transports.get_mut(&spec.transport), self.tracks.get_mut(&spec.track))
        else {
            return;
        };
        let worker = home.worker;
        home.subscriptions.insert(spec.id);
        track.subscriptions.insert(spec.id);
        let known = self.subscriptions.contains_key(&spec.id);
        if worker != track.worker && !known {
            let subscribers = track.mirrors.entry(worker).or_default();
            *subscribers += 1;
            if *subscribers == 1 {
                let (id, from) = (spec.track, track.worker);
                out(Routed::Worker(worker, WorkerCommand::Mirror { track: track.spec.clone(), from }));
                out(Routed::Worker(from, WorkerCommand::MirrorTo { track: id, to: worker }));
            }
        }
        let home = SubscriptionHome { transport: spec.transport, track: spec.track, worker };
        self.subscriptions.insert(spec.id, home);
        out(Routed::Worker(worker, WorkerCommand::Control(Command::Subscribe(spec))));
    }

    fn forget_transport(&mut self, transport: TransportId, out: &mut dyn FnMut(Routed)) {
        let Some(home) = self.transports.remove(&transport) else { return };
        for ufrag in home.ufrags {
            out(Routed::Streams(StreamOrder::Forget { ufrag }));
        }
        for track in home.tracks {
            self.forget_track(track, out);
        }
        for subscription in home.subscriptions {
            self.forget_subscription(subscription, out);
        }
    }

    fn forget_track(&mut self, track: TrackId, out: &mut dyn FnMut(Routed)) {
        let Some(home) = self.tracks.remove(&track) else { return };
        for &mirror in home.mirrors.keys() {
            out(Routed::Worker(mirror, WorkerCommand::Unmirror { track }));
        }
        for subscription in home.subscriptions {
            self.forget_subscription(subscription, out);
        }
    }

    fn forget_subscription(&mut self, id: SubscriptionId, out: &mut dyn FnMut(Routed)) {
        let Some(SubscriptionHome { transport, track: track_id, worker }) = self.subscriptions.remove(&id) else {
            return;
        };
        if let Some(transport) = self.transports.get_mut(&transport) {
            transport.subscriptions.remove(&id);
        }
        let Some(track) = self.tracks.get_mut(&track_id) else { return };
        track.subscriptions.remove(&id);
        let Some(subscribers) = track.mirrors.get_mut(&worker) else { return };
        *subscribers -= 1;
        if *subscribers == 0 {
            track.mirrors.remove(&worker);
            out(Routed::Worker(track.worker, WorkerCommand::UnmirrorTo { track: track_id, to: worker }));
            out(Routed::Worker(worker, WorkerCommand::Unmirror { track: track_id }));
        }
    }
}

#[cfg(test)]
mod tests {
    use ringmain_shared::id::PeerId;
    use ringmain_shared::media::{ExtensionIds, Kind, Mid, Ssrc};
    use ringmain_shared::transport::{IceCredentials, Side, TransportSpec};
    use ringmain_shared::turn::TurnCommand;

    use super::*;

    fn open(router: &mut Router, id: u64, worker: u16) -> Vec<Routed> {
        let spec = Box::new(TransportSpec {
            id: TransportId(id),
            peer: PeerId(id),
            room: RoomId(7),
            side: Side::Publisher,
            local: IceCredentials { ufrag: format!("u{id}"), pwd: "p".repeat(22) },
            remote: None,
            channels: None,
        });
        route(router, Command::OpenTransport { worker: WorkerIndex(worker), spec })
    }

    fn route(router: &mut Router, command: Command) -> Vec<Routed> {
        let mut routed = Vec::new();
        router.route(command, &mut |order| routed.push(order));
        routed
    }

    fn track(id: u64) -> TrackSpec {
        TrackSpec { id: TrackId(id), mid: Mid::new(), kind: Kind::Audio, codecs: vec![], ssrcs: vec![], rids: vec![] }
    }

    fn receive(router: &mut Router, transport: u64, tracks: &[u64]) -> Vec<Routed> {
        let tracks = tracks.iter().copied().map(track).collect();
        route(
            router,
            Command::Receive { transport: TransportId(transport), spec: ReceiveSpec { tracks, ..Default::default() } },
        )
    }

    fn subscribe(router: &mut Router, id: u64, transport: u64, track: u64) -> Vec<Routed> {
        route(
            router,
            Command::Subscribe(Box::new(SubscriptionSpec {
                id: SubscriptionId(id),
                transport: TransportId(transport),
                track: TrackId(track),
                kind: Kind::Audio,
                mid: Mid::new(),
                ssrc: Ssrc(id as u32),
                rtx_ssrc: None,
                cname: String::new(),
                codecs: vec![],
                extensions: ExtensionIds::default(),
                muted: false,
                spatial_max: 2,
                temporal_max: 2,
            })),
        )
    }

    /// What goes to which worker, in short.
    fn orders(routed: &[Routed]) -> Vec<(u16, &'static str)> {
        let name = |command: &WorkerCommand| match command {
            WorkerCommand::Control(_) => "control",
            WorkerCommand::Mirror { .. } => "mirror",
            WorkerCommand::Unmirror { .. } => "unmirror",
            WorkerCommand::MirrorTo { .. } => "mirror to",
            WorkerCommand::UnmirrorTo { .. } => "unmirror to",
        };
        let order = |routed: &Routed| match routed {
            Routed::Worker(to, command) => Some((to.0, name(command))),
            Routed::Handshaker(..) | Routed::Streams(_) => None,
        };
        routed.iter().filter_map(order).collect()
    }

    #[test]
    fn the_handshake_thread_hears_of_a_transport_before_its_worker() {
        let routed = open(&mut Router::new(2, 2), 1, 0);
        assert!(matches!(
            routed[..],
            [Routed::Streams(_), Routed::Handshaker(1, _), Routed::Worker(WorkerIndex(0), _)]
        ));
    }

    #[test]
    fn a_track_is_mirrored_once_per_worker_and_until_its_last_subscriber_there_is_gone() {
        let mut router = Router::new(2, 1);
        open(&mut router, 1, 0);
        open(&mut router, 2, 1);
        open(&mut router, 3, 1);
        receive(&mut router, 1, &[10]);
        assert_eq!(orders(&subscribe(&mut router, 100, 2, 10)), [(1, "mirror"), (0, "mirror to"), (1, "control")]);
        assert_eq!(orders(&subscribe(&mut router, 101, 3, 10)), [(1, "control")]);
        assert_eq!(orders(&subscribe(&mut router, 101, 3, 10)), [(1, "control")], "said again, counted once");
        let close = |id| Command::CloseTransport { transport: TransportId(id) };
        assert_eq!(orders(&route(&mut router, close(2))), [(1, "control")]);
        let unsubscribe = Command::Unsubscribe { subscription: SubscriptionId(101) };
        assert_eq!(orders(&route(&mut router, unsubscribe)), [(1, "control"), (0, "unmirror to"), (1, "unmirror")]);
    }

    #[test]
    fn a_track_that_ends_takes_its_mirrors_along() {
        let mut router = Router::new(2, 1);
        open(&mut router, 1, 0);
        open(&mut router, 2, 1);
        receive(&mut router, 1, &[10, 11]);
        subscribe(&mut router, 100, 2, 10);
        assert_eq!(orders(&receive(&mut router, 1, &[11])), [(0, "control"), (1, "unmirror")]);
        assert!(router.subscriptions.is_empty());
        let mut routed = Vec::new();
        let closed =
            Event::Closed { transport: TransportId(1), reason: ringmain_shared::event::CloseReason::PeerClosed };
        router.note(&closed, &mut |order| routed.push(order));
        assert!(router.tracks.is_empty());
        let told = matches!(
            &routed[..],
            [Routed::Handshaker(_, ToHandshake::Close { .. }), Routed::Streams(StreamOrder::Forget { ufrag })] if ufrag == "u1"
        );
        assert!(told, "the handshake thread and the stream thread may not know: {routed:?}");
    }

    #[test]
    fn the_stream_thread_knows_the_fragments_that_hold_and_no_others() {
        let mut router = Router::new(2, 1);
        let mut known = std::collections::BTreeSet::new();
        let mut follow = |routed: Vec<Routed>| {
            for routed in routed {
                match routed {
                    Routed::Streams(StreamOrder::Name { ufrag, worker: WorkerIndex(1) }) => _ = known.insert(ufrag),
                    Routed::Streams(StreamOrder::Forget { ufrag }) => _ = known.remove(&ufrag),
                    _ => {}
                }
            }
            known.iter().cloned().collect::<Vec<String>>().join(" ")
        };
        assert_eq!(follow(open(&mut router, 1, 1)), "u1");
        let mut restart = |ufrag: &str| {
            let local = IceCredentials { ufrag: ufrag.into(), pwd: "p".repeat(22) };
            route(&mut router, Command::RestartIce { transport: TransportId(1), local, remote: None })
        };
        assert_eq!(follow(restart("u2")), "u1 u2");
        assert_eq!(follow(restart("u3")), "u2 u3");
        assert_eq!(follow(route(&mut router, Command::CloseTransport { transport: TransportId(1) })), "");
    }

    #[test]
    fn what_has_ended_leaves_no_trace_whichever_end_goes_first() {
        for first in [1, 2] {
            let mut router = Router::new(2, 1);
            open(&mut router, 1, 0);
            open(&mut router, 2, 1);
            receive(&mut router, 1, &[10, 11]);
            subscribe(&mut router, 100, 2, 10);
            subscribe(&mut router, 101, 2, 11);
            for id in [first, 3 - first] {
                route(&mut router, Command::CloseTransport { transport: TransportId(id) });
                assert!(router.subscriptions.is_empty(), "closing {first} first");
                assert!(router.transports.values().all(|home| home.subscriptions.is_empty()));
                assert!(router.tracks.values().all(|home| home.subscriptions.is_empty() && home.mirrors.is_empty()));
            }
            assert!(router.transports.is_empty() && router.tracks.is_empty());
        }
    }

    #[test]
    fn what_is_about_turn_goes_to_every_worker() {
        let mut seen = Vec::new();
        Router::new(3, 1).route(Command::Turn(TurnCommand::Drain(true)), &mut |routed| match routed {
            Routed::Worker(worker, _) => seen.push(worker.0),
            Routed::Handshaker(..) | Routed::Streams(_) => panic!("only workers have allocations"),
        });
        assert_eq!(seen, [0, 1, 2]);
    }
}
