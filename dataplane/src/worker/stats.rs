//! Counters of this worker, and who speaks: told to control at their intervals, never looked up by anybody.

use ringmain_shared::DropReason;
use ringmain_shared::event::{AudioActivity, Event, WorkerStats};
use ringmain_shared::media::Kind;

use super::Worker;
use crate::io::LinkCounters;
use crate::transport::publisher::StreamRole;

impl Worker {
    /// The counters now, with those of the link.
    pub(super) fn gather(&self, link: &LinkCounters) -> WorkerStats {
        let kinds = |kind| self.tracks.values().filter(|track| track.spec.kind == kind).count() as u64;
        let mut stats = WorkerStats {
            received: link.received,
            received_bytes: link.received_bytes,
            sent: link.sent,
            sent_bytes: link.sent_bytes,
            trains: link.trains,
            transports: self.transports.len() as u64,
            audio_tracks: kinds(Kind::Audio),
            video_tracks: kinds(Kind::Video),
            subscriptions: self.subscriptions.len() as u64,
            drops: self.drops.to_vec(),
            turn: self.turn.as_ref().map(|turn| turn.stats()).unwrap_or_default(),
            ..self.stats.clone()
        };
        for (reason, count) in link.drops() {
            if let Some(counter) = stats.drops.get_mut(reason as usize) {
                *counter += count;
            }
        }
        let (mut streams, mut jitter, mut drift) = (0u64, 0u64, 0i64);
        for publisher in self.transports.values().filter_map(|transport| transport.publisher.as_deref()) {
            stats.rtp_expected += publisher.expected();
            for stream in &publisher.streams {
                let StreamRole::Media(media) = &stream.role else { continue };
                streams += 1;
                jitter += media.inbound.jitter_us();
                drift += media.inbound.drift_ms();
            }
        }
        stats.jitter_us = jitter.checked_div(streams).unwrap_or(0);
        stats.drift_ms = drift.checked_div(streams as i64).unwrap_or(0);
        stats
    }

    /// One event with every track that was heard in the interval.
    pub(super) fn tell_audio_activity(&mut self) {
        let mut levels = Vec::new();
        for publisher in self.transports.values_mut().filter_map(|transport| transport.publisher.as_deref_mut()) {
            for track in &mut publisher.tracks {
                let heard = track.audio.as_mut().and_then(|audio| audio.take());
                let known = self.tracks.get(track.key);
                if let (Some((count, level_sum)), Some(known)) = (heard, known) {
                    levels.push(AudioActivity { track: known.id(), count, level_sum });
                }
            }
        }
        if !levels.is_empty() || self.was_loud {
            self.was_loud = !levels.is_empty();
            self.outbox.events.push(Event::AudioActivity { worker: self.settings.index, levels });
        }
    }

    /// How many packets ended for `reason`, in this worker; without those of the link.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or(0)
    }
}
