//! Who speaks in a room, by what the workers heard (RFC 6464), told on the API channels as ion's audio observer does: the
//! streams that were loud for long enough, those heard most first, told to all when the list changes.

use std::collections::{BTreeMap, BTreeSet};

use ringmain_shared::event::AudioActivity;
use ringmain_shared::id::{PeerId, RoomId, WorkerIndex};
use ringmain_shared::{Command, Now};
use serde_json::json;

use super::Rooms;
use super::room::{Room, Speaker};
use super::timers::Timer;

/// Intervals after which a worker that reports nothing has heard nothing.
const SILENCE_INTERVALS: u32 = 3;

impl Rooms {
    /// One worker's report. It replaces that worker's last one in every room.
    pub(super) fn handle_audio_activity(&mut self, worker: WorkerIndex, levels: Vec<AudioActivity>, now: Now) {
        let mut by_room: BTreeMap<RoomId, Vec<AudioActivity>> = BTreeMap::new();
        for level in levels {
            let track = self.tracks.get(&level.track);
            if let Some(peer) = track.and_then(|track| self.peers.get(&track.peer)) {
                by_room.entry(peer.room).or_default().push(level);
            }
        }
        if !by_room.is_empty() {
            self.timers.set(Timer::Silence(worker), now + self.settings.audio_interval * SILENCE_INTERVALS);
        }
        self.replace_report(worker, by_room);
    }

    /// A worker has reported nothing for a while.
    pub(super) fn handle_silence(&mut self, worker: WorkerIndex) {
        self.replace_report(worker, BTreeMap::new());
    }

    fn replace_report(&mut self, worker: WorkerIndex, mut by_room: BTreeMap<RoomId, Vec<AudioActivity>>) {
        let fell_silent = |(id, room): (&RoomId, &Room)| room.heard.contains_key(&worker).then_some(*id);
        let touched: BTreeSet<RoomId> =
            self.rooms.iter().filter_map(fell_silent).chain(by_room.keys().copied()).collect();
        for room_id in touched {
            let Some(room) = self.rooms.get_mut(&room_id) else { continue };
            match by_room.remove(&room_id) {
                Some(levels) => room.heard.insert(worker, levels),
                None => room.heard.remove(&worker),
            };
            self.tell_speakers(room_id);
        }
    }

    /// Works out who speaks, and tells the room when that has changed.
    pub(super) fn tell_speakers(&mut self, room_id: RoomId) {
        let Some(room) = self.rooms.get(&room_id) else { return };
        let speakers = self.speakers(room);
        if speakers == room.speakers {
            return;
        }
        let text = audio_levels(&speakers, None);
        for &peer in &room.peers {
            let Some(transport) = self.api_of(peer) else { continue };
            // A publisher knows its streams by its own ids.
            let text = match speakers.iter().any(|speaker| speaker.peer == peer) {
                true => audio_levels(&speakers, Some(peer)),
                false => text.clone(),
            };
            self.outputs.push_back(super::Output::Command(Command::SendApi { transport, text }));
        }
        if let Some(room) = self.rooms.get_mut(&room_id) {
            room.speakers = speakers;
        }
    }

    /// Tells a late-comer who is speaking.
    pub(super) fn tell_present_speakers(&mut self, peer_id: PeerId) {
        let Some(room) = self.peers.get(&peer_id).and_then(|peer| self.rooms.get(&peer.room)) else { return };
        let (Some(transport), false) = (self.api_of(peer_id), room.speakers.is_empty()) else { return };
        let text = audio_levels(&room.speakers, Some(peer_id));
        self.command(Command::SendApi { transport, text });
    }

    /// The streams that were heard for long enough, most first, then loudest first.
    fn speakers(&self, room: &Room) -> Vec<Speaker> {
        let mut heard: BTreeMap<Speaker, (u64, u64)> = BTreeMap::new();
        for level in room.heard.values().flatten() {
            let Some(track) = self.tracks.get(&level.track) else { continue };
            let (stream_id, own_stream_id) = (track.shown.stream.clone(), track.own.stream.clone());
            let (count, sum) = heard.entry(Speaker { stream_id, own_stream_id, peer: track.peer }).or_default();
            *count += u64::from(level.count);
            *sum += u64::from(level.level_sum);
        }
        let count_min = self.settings.speaker_count_min();
        let mut loud: Vec<_> = heard.into_iter().filter(|(_, (count, _))| *count >= count_min).collect();
        loud.sort_by(|(_, (count_a, sum_a)), (_, (count_b, sum_b))| count_b.cmp(count_a).then(sum_a.cmp(sum_b)));
        loud.into_iter().map(|(speaker, _)| speaker).collect()
    }

    /// The connection whose API channel reaches a peer, when it is open.
    fn api_of(&self, peer: PeerId) -> Option<ringmain_shared::id::TransportId> {
        let subscriber = self.peers.get(&peer)?.subscriber.as_ref()?;
        subscriber.api_open.then_some(subscriber.transport)
    }
}

fn audio_levels(speakers: &[Speaker], to: Option<PeerId>) -> String {
    let id_for = |speaker: &Speaker| match to {
        Some(peer) if peer == speaker.peer && speaker.own_stream_id != "-" => speaker.own_stream_id.clone(),
        _ => speaker.stream_id.clone(),
    };
    let ids: Vec<String> = speakers.iter().map(id_for).collect();
    json!({"method": "audioLevels", "params": ids}).to_string()
}
