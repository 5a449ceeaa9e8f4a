//! What came by TCP or TLS, as the stream thread hands it over.

use ringmain_shared::Now;

use super::Worker;
use crate::io::Transmit;
use crate::stream::{FromStream, ToStream};

impl Worker {
    /// Something the stream thread has for this worker.
    pub fn handle_stream(&mut self, item: FromStream, now: Now, out: &mut dyn Transmit) {
        self.begin_links(now, out);
        match item {
            FromStream::Datagram { path, mut bytes } => {
                if let Err(reason) = self.journey(path, &mut bytes, now, out) {
                    self.count(reason);
                }
            }
            FromStream::Opened { id, client } => {
                if !self.turn_stream_opened(id, client.remote, client.transport) {
                    self.outbox.streams.push(ToStream::Close { id });
                }
            }
            FromStream::Message { id, mut bytes } => self.turn_stream_message(id, &mut bytes, now, out),
            FromStream::Closed { id } => self.turn_stream_closed(id, now),
            // Peers over TCP: nothing here asks for them.
            FromStream::Arrived { id, .. } => self.outbox.streams.push(ToStream::Close { id }),
            FromStream::Connected { .. } | FromStream::Listening { .. } => {}
        }
    }
}
