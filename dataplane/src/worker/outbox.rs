//! What a turn leaves for other threads. The run loop carries it to their rings.

use ringmain_shared::Event;
use ringmain_shared::id::{RoomId, WorkerIndex};

use super::relay::RelayItem;
use crate::handshake::ToHandshake;
use crate::turn::SocketRequest;

/// Values for other threads, in the order in which they came up. Emptied each turn; the room is kept.
#[derive(Debug, Default)]
pub struct Outbox {
    /// For control.
    pub events: Vec<Event>,
    /// For the handshake thread of a room.
    pub handshakes: Vec<(RoomId, ToHandshake)>,
    /// Counters should be told.
    pub stats_due: bool,
    /// For other workers.
    pub relays: Vec<(WorkerIndex, RelayItem)>,
    /// Sockets of TURN's relays, for the run loop itself.
    pub sockets: Vec<SocketRequest>,
}

impl Outbox {
    /// Nothing waits for another thread.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.handshakes.is_empty() && self.relays.is_empty() && self.sockets.is_empty()
    }
}
