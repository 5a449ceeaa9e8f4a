//! The embedded default: both planes in this process. What the configuration says becomes what each plane is told.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use ringmain_dataplane::io::LinkChoice;
use ringmain_dataplane::plane::{self, Plane};
use ringmain_dataplane::transport::PublisherSettings;
use ringmain_shared::command::Command;
use ringmain_shared::event::{Event, Hello};
use ringmain_shared::now::Now;
use ringmain_shared::source::Source;

use super::parts::{ConnectionId, Counts, DataPlane, Output, Rooms};
use super::run::{Candidates, Start};
use crate::config::{Config, Link};
use crate::{session, turn};

/// Starts both planes in this process.
#[derive(Debug)]
pub struct Embedded;

impl Start for Embedded {
    type Plane = Plane;
    type Rooms = session::Rooms;

    fn plane(&self, config: &Config, bind: Vec<IpAddr>, listeners: turn::Listeners) -> anyhow::Result<(Plane, Hello)> {
        let media = &config.media;
        Ok(Plane::start(plane::Settings {
            workers: media.workers,
            pin: media.pin,
            cpus: media.cpus.clone(),
            bind,
            base_port: media.base_port,
            link: match media.link {
                Link::Auto => LinkChoice::Auto,
                Link::IoUring => LinkChoice::IoUring,
                Link::Mmsg => LinkChoice::Mmsg,
            },
            handshake_threads: media.handshake_threads,
            publishers: PublisherSettings {
                rate_bps_max: media.publisher_rate_bps_max,
                audio_threshold: config.audio.threshold,
                ..plane::Settings::default().publishers
            },
            audio_interval: config.audio.interval,
            turn: listeners.udp,
            turn_on_media: listeners.on_media,
            streams: listeners.streams,
        })?)
    }

    fn rooms(
        &self,
        config: &Config,
        hello: Hello,
        candidates: Candidates,
        turn: Option<turn::Offer>,
        epoch: u32,
    ) -> session::Rooms {
        let settings = session::Settings {
            rooms_max: config.limits.rooms,
            peers_per_room_max: config.limits.peers_per_room,
            tracks_per_peer_max: config.limits.tracks_per_peer,
            subscriptions_per_peer_max: config.limits.subscriptions_per_peer,
            joins_per_second: config.limits.joins_per_second,
            joins_per_second_per_ip: config.limits.joins_per_second_per_ip,
            spread_after: config.limits.spread_after,
            audio_interval: config.audio.interval,
            audio_filter_percent: u32::from(config.audio.filter),
            tcp_candidates: candidates.tcp,
            turn,
            ..session::Settings::default()
        };
        let random = Box::new(|bytes: &mut [u8]| {
            aws_lc_rs::rand::fill(bytes).expect("the system's generator was there when the data plane started");
        });
        session::Rooms::new(settings, hello, candidates.udp, epoch, random)
    }
}

impl DataPlane for Plane {
    fn send(&mut self, command: Command) -> Result<(), Command> {
        Plane::send(self, command)
    }

    fn try_recv(&mut self) -> Option<Event> {
        Plane::try_recv(self)
    }

    fn waiting_and_lost(&self) -> (usize, u64) {
        Plane::waiting_and_lost(self)
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        Plane::event_fd(self)
    }

    fn shutdown(self) {
        Plane::shutdown(self);
    }
}

impl Rooms for session::Rooms {
    fn handle_opened(&mut self, connection: ConnectionId, from: Source, now: Now) {
        session::Rooms::handle_opened(self, connection, from, now);
    }

    fn handle_message(&mut self, connection: ConnectionId, text: &str, now: Now) {
        session::Rooms::handle_message(self, connection, text, now);
    }

    fn handle_closed(&mut self, connection: ConnectionId, now: Now) {
        session::Rooms::handle_closed(self, connection, now);
    }

    fn handle_event(&mut self, event: Event, now: Now) {
        session::Rooms::handle_event(self, event, now);
    }

    fn handle_timeout(&mut self, now: Now) {
        session::Rooms::handle_timeout(self, now);
    }

    fn poll_timeout(&self) -> Option<Now> {
        session::Rooms::poll_timeout(self)
    }

    fn poll_output(&mut self) -> Option<Output> {
        session::Rooms::poll_output(self)
    }

    fn counts(&self) -> Counts {
        let stats = self.stats();
        Counts {
            rooms: stats.rooms,
            peers: stats.peers,
            joins_refused: stats.joins_refused,
            subscriptions_waiting: stats.subscriptions_waiting,
        }
    }
}
