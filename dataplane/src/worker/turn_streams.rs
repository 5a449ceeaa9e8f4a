//! Clients of TURN that come by a connection: TCP, TLS or DTLS. Each has a path of its own, on a socket number that no socket has, so
//! that what is sent to it goes the way of all datagrams and is picked up behind it.

use std::collections::HashMap;
use std::net::SocketAddr;

use foldhash::fast::RandomState;
use ringmain_shared::turn::TurnTransport;
use ringmain_shared::{DropReason, Now};

use super::Worker;
use crate::io::{Path, SocketIndex, Transmit};
use crate::turn::Client;

/// Connections by name, and by path.
#[derive(Debug, Default)]
pub(super) struct TurnStreams {
    clients: HashMap<u64, Client, RandomState>,
    streams: HashMap<Path, u64, RandomState>,
    next: u16,
}

/// How many socket numbers there are; with the client's address they make a path.
const NUMBERS: u16 = SocketIndex::LINK_FIRST - SocketIndex::TURN_STREAM_FIRST;

impl Worker {
    /// A client of TURN has connected. False when there is no server for it: the connection should be closed.
    pub fn turn_stream_opened(&mut self, stream: u64, remote: SocketAddr, transport: TurnTransport) -> bool {
        if self.turn.is_none() {
            return false;
        }
        let streams = &mut self.turn_streams;
        // An address twice on one number would take as many connections of it at a time as there are numbers.
        for _ in 0..NUMBERS {
            streams.next = (streams.next + 1) % NUMBERS;
            let path = Path { socket: SocketIndex(SocketIndex::TURN_STREAM_FIRST + streams.next), remote };
            if !streams.streams.contains_key(&path) {
                streams.streams.insert(path, stream);
                streams.clients.insert(stream, Client { path, transport });
                return true;
            }
        }
        false
    }

    /// One message of a connection, without padding.
    pub fn turn_stream_message(&mut self, stream: u64, message: &mut [u8], now: Now, out: &mut dyn Transmit) {
        let result = match self.turn_streams.clients.get(&stream) {
            Some(&client) => self.handle_turn_message(client, message, now, out),
            None => Err(DropReason::TurnNoAllocation),
        };
        if let Err(reason) = result {
            self.count(reason);
        }
    }

    /// A connection has ended.
    pub fn turn_stream_closed(&mut self, stream: u64, now: Now) {
        let Some(client) = self.turn_streams.clients.remove(&stream) else { return };
        self.turn_streams.streams.remove(&client.path);
        if let Some(turn) = &mut self.turn {
            turn.handle_disconnected(client.path, now);
        }
    }

    /// The connection that a path stands for, if it stands for one.
    pub fn turn_stream_at(&self, path: Path) -> Option<u64> {
        self.turn_streams.streams.get(&path).copied()
    }
}
