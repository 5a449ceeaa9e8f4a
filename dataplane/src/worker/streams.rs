//! What came by TCP or TLS, as the stream thread hands it over.

use ringmain_shared::Now;

use super::Worker;
use crate::io::{Path, Transmit};
use crate::stream::{FromStream, ToStream};

impl Worker {
    /// Something the stream thread has for this worker.
    pub fn handle_stream(&mut self, item: FromStream, now: Now, out: &mut dyn Transmit) {
        self.lively = now;
        self.begin_links(now, out);
        match item {
            FromStream::Datagram { path, mut bytes } => {
                if let Err(reason) = self.journey(path, &mut bytes, now, out) {
                    self.count(reason);
                }
                self.bring(now, out);
            }
            FromStream::PathClosed { path } => self.path_closed(path, now),
            FromStream::Opened { id, client } => {
                if !self.turn_stream_opened(id, client.remote, client.transport) {
                    self.outbox.streams.push(ToStream::Close { id });
                }
            }
            FromStream::Message { id, mut bytes } => self.turn_stream_message(id, &mut bytes, now, out),
            FromStream::Closed { id } => {
                self.turn_stream_closed(id, now);
                self.turn_peer_closed(id);
            }
            FromStream::Peer(news) => self.handle_turn_peer_news(news, now, out),
        }
    }

    /// A connection of ICE-TCP has ended: media goes by another path of its transport, or waits for one.
    fn path_closed(&mut self, path: Path, now: Now) {
        let Some(key) = self.names.paths.remove(&path) else { return };
        if let Some(transport) = self.transports.get_mut(key) {
            transport.ice.forget(path, now);
        }
        self.schedule(key);
    }
}
