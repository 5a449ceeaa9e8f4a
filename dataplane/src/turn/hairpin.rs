//! Peers that are clients of this server as well: two who cannot reach each other, each with a relayed address here. What one sends to
//! the other's relayed address is handed over, to another worker if need be, and takes neither relay socket nor kernel: half of the
//! work. NATs call this hairpinning (RFC 4787 §6).
//!
//! All is as if the datagram had left by the one socket and come in by the other: both clients' permissions are asked, both users pay with
//! their bandwidth, and both count it.

use std::net::SocketAddr;

use ringmain_shared::{DropReason, Now};

use super::Turn;
use super::allocation::AllocationKey;
use super::between::TurnItem;
use super::relay::RelayKey;
use crate::handshake::Datagram;
use crate::io::Transmit;

impl Turn {
    /// Hands over what goes from this relayed address to a peer that has one too. `None` if nobody has it now: then it is the kernel's.
    pub(super) fn hairpin(
        &mut self,
        key: AllocationKey,
        relay: RelayKey,
        peer: SocketAddr,
        payload: &[u8],
        now: Now,
        out: &mut dyn Transmit,
    ) -> Option<Result<(), DropReason>> {
        let worker = self.ports.worker_of(peer.port())?;
        let from = self.peers.inner(self.relays.get(relay)?.outer);
        if worker == self.index {
            self.relays.named(peer)?;
            self.count_to_peer(key, payload.len(), true);
            return Some(self.handle_hairpin(peer, from, payload, now, out));
        }
        let bytes = Datagram::try_from(payload).ok()?;
        self.count_to_peer(key, payload.len(), true);
        self.links.items.push((worker, TurnItem::ToRelayed { to: peer, from, bytes }));
        Some(Ok(()))
    }

    /// What another client, by its relayed address `from`, sent to a relayed address of this worker's.
    pub fn handle_hairpin(
        &mut self,
        to: SocketAddr,
        from: SocketAddr,
        bytes: &[u8],
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        let key = self.relays.named(to).ok_or(DropReason::TurnNoRelay)?.receiver(from)?;
        self.send_to_client(key, from, bytes, now, out)?;
        self.count_to_client(key, 1, bytes.len() as u64, true);
        Ok(())
    }
}
