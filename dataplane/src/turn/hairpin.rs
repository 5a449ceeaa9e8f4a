//! Peers that are clients of this server as well: two who cannot reach each other, each with a relay socket here. What one sends to the
//! other's relayed address is handed over instead of being sent by the one socket and taken in by the other. On one worker that is half
//! of the work; between two, the ring takes the kernel's place. NATs call this hairpinning (RFC 4787 §6).
//!
//! All else is as if the kernel had carried it: both sockets must be open, both clients' permissions are asked, both users pay with their
//! bandwidth, and both count it. A datagram that the receiver refuses was relayed by the sender, and is dropped for the receiver's reason.

use std::net::SocketAddr;

use ringmain_shared::limits::DATAGRAM_SIZE_MAX;
use ringmain_shared::{DropReason, Now};

use super::Turn;
use super::allocation::AllocationKey;
use super::between::TurnItem;
use super::relay::RelayKey;
use crate::handshake::Datagram;
use crate::io::Transmit;

impl Turn {
    /// Hands over what goes from this relayed address to a peer's, if there is a socket of ours at both; `None` if not. What is longer
    /// than anything that sockets take in is the kernel's too.
    pub(super) fn hairpin(
        &mut self,
        key: AllocationKey,
        relay: RelayKey,
        peer: SocketAddr,
        payload: &[u8],
        now: Now,
        out: &mut dyn Transmit,
    ) -> Option<Result<(), DropReason>> {
        let worker = self.ports.worker_of(peer.port()).filter(|_| payload.len() <= DATAGRAM_SIZE_MAX)?;
        let from = self.relays.get(relay)?.inner;
        if worker == self.index {
            self.relays.bound_to(peer)?;
            self.count_to_peer(key, payload.len(), true);
            return Some(self.handle_hairpin(peer, from, payload, now, out));
        }
        let bytes = Datagram::try_from(payload).ok()?;
        self.count_to_peer(key, payload.len(), true);
        self.links.items.push((worker, TurnItem::ToRelayed { to: peer, from, bytes }));
        Some(Ok(()))
    }

    /// What another client sent, by its relayed address `from`, to a relayed address of this worker's.
    pub fn handle_hairpin(
        &mut self,
        to: SocketAddr,
        from: SocketAddr,
        bytes: &[u8],
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        let key = self.relays.bound_to(to).ok_or(DropReason::TurnNoRelay)?.receiver(from)?;
        self.send_to_client(key, from, bytes, now, out)?;
        self.count_to_client(key, 1, bytes.len() as u64, true);
        Ok(())
    }
}
