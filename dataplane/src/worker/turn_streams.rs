//! Clients of TURN that come by a connection: TCP, TLS or DTLS. Each has a path of its own, on a socket number that no socket has, so
//! that what is sent to it goes the way of all datagrams and is picked up behind it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;

use foldhash::fast::RandomState;
use ringmain_shared::turn::TurnTransport;
use ringmain_shared::{DropReason, Now};

use super::Worker;
use crate::io::{Path, SocketIndex, Transmit};
use crate::stream::{StreamId, ToStream};
use crate::turn::Client;

/// Connections by name, and by path.
#[derive(Debug, Default)]
pub(super) struct TurnStreams {
    clients: HashMap<StreamId, Client, RandomState>,
    streams: HashMap<Path, StreamId, RandomState>,
    next: u16,
}

/// How many socket numbers there are; with the client's address they make a path.
const NUMBERS: u16 = SocketIndex::LINK_FIRST - SocketIndex::TURN_STREAM_FIRST;

impl TurnStreams {
    /// Whatever else comes of the connection with this path is ignored. Its name.
    pub(super) fn remove(&mut self, path: Path) -> Option<StreamId> {
        let stream = self.streams.remove(&path)?;
        self.clients.remove(&stream);
        Some(stream)
    }

    /// The connection that a path stands for.
    pub(super) fn stream_at(&self, path: Path) -> Option<StreamId> {
        self.streams.get(&path).copied()
    }
}

impl Worker {
    /// A client of TURN has connected. False when there is no server for it: the connection should be closed.
    pub(super) fn turn_stream_opened(
        &mut self,
        stream: StreamId,
        remote: SocketAddr,
        transport: TurnTransport,
    ) -> bool {
        if self.turn.is_none() {
            return false;
        }
        let streams = &mut self.turn_streams;
        // An address twice on one number would take as many connections of it at a time as there are numbers.
        for _ in 0..NUMBERS {
            streams.next = (streams.next + 1) % NUMBERS;
            let path = Path { socket: SocketIndex(SocketIndex::TURN_STREAM_FIRST + streams.next), remote };
            if let Entry::Vacant(vacant) = streams.streams.entry(path) {
                vacant.insert(stream);
                streams.clients.insert(stream, Client { path, transport });
                return true;
            }
        }
        false
    }

    /// One message of a connection, without padding.
    pub(super) fn turn_stream_message(
        &mut self,
        stream: StreamId,
        message: &mut [u8],
        now: Now,
        out: &mut dyn Transmit,
    ) {
        let result = match self.turn_streams.clients.get(&stream) {
            Some(&client) => self.handle_turn_message(client, message, now, out),
            None => Err(DropReason::TurnNoAllocation),
        };
        if let Err(reason) = result {
            self.count(reason);
        }
    }

    /// A connection has ended.
    pub(super) fn turn_stream_closed(&mut self, stream: StreamId, now: Now) {
        let Some(client) = self.turn_streams.clients.remove(&stream) else { return };
        self.turn_streams.streams.remove(&client.path);
        if let Some(turn) = &mut self.turn {
            turn.handle_disconnected(client.path, now);
        }
    }

    /// A datagram that no socket sends, for the stream thread: to the client of TURN that its path stands for, or to one of ICE.
    pub fn to_stream(&self, path: Path, bytes: &[u8]) -> ToStream {
        let bytes = bytes.to_vec();
        match self.turn_streams.streams.get(&path) {
            Some(&id) => {
                let held_until = self.turn.as_ref().and_then(|turn| turn.held_until(path)).unwrap_or_default();
                ToStream::Message { id, bytes, held_until }
            }
            None => ToStream::Datagram { path, bytes },
        }
    }
}
