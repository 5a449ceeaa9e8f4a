//! What an operator may set about rooms.

use std::time::Duration;

/// Bounds and habits of the session core. The defaults suit one host of a few cores.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Rooms at a time.
    pub rooms_max: usize,
    /// Peers of one room.
    pub peers_per_room_max: usize,
    /// Tracks that one peer may publish.
    pub tracks_per_peer_max: usize,
    /// Tracks that one peer may be subscribed to; further ones wait until one of these ends. An answer to more would not
    /// fit a signalling message.
    pub subscriptions_per_peer_max: usize,
    /// Joins per second, those in a burst of two seconds included.
    pub joins_per_second: u32,
    /// The same from one address.
    pub joins_per_second_per_ip: u32,
    /// Transports on a room's worker after which further ones of the room go to the next worker.
    pub spread_after: usize,
    /// Messages that one connection may send per second.
    pub requests_per_second: u32,
    /// Messages that one connection may send at once.
    pub requests_burst: u32,
    /// Offers that one connection may make per second. Each may change what every other peer of the room gets.
    pub offers_per_second: u32,
    /// Offers that one connection may make at once.
    pub offers_burst: u32,
    /// How often workers report loudness (ion's `audiolevelinterval`).
    pub audio_interval: Duration,
    /// Where SDP says that peers may come by TCP; empty is nowhere.
    pub tcp_candidates: Vec<std::net::SocketAddr>,
    /// What peers are lent for TURN; `None` is nothing.
    pub turn: Option<crate::turn::Offer>,
    /// Share of an interval that a speaker must be heard in, in percent (ion's `audiolevelfilter`).
    pub audio_filter_percent: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rooms_max: 10_000,
            peers_per_room_max: 1_000,
            tracks_per_peer_max: 32,
            subscriptions_per_peer_max: 64,
            joins_per_second: 1000,
            joins_per_second_per_ip: 500,
            spread_after: 500,
            requests_per_second: 50,
            requests_burst: 100,
            offers_per_second: 5,
            offers_burst: 20,
            audio_interval: Duration::from_millis(1000),
            tcp_candidates: Vec::new(),
            turn: None,
            audio_filter_percent: 20,
        }
    }
}

impl Settings {
    /// Loud packets that make a stream a speaker's: of 50 packets a second, the given share (ion's formula).
    pub(super) fn speaker_count_min(&self) -> u64 {
        self.audio_interval.as_millis() as u64 * u64::from(self.audio_filter_percent) / 2000
    }
}
