//! Requests that are answered when the sockets that they take are open, or cannot be had. An Allocate tries other ports meanwhile.

use ringmain_shared::Now;

use super::Turn;
use super::allocation::AllocationKey;
use super::relay::RelayKey;
use super::reply::{Refusal, ReplyTo};
use super::request::Known;
use crate::io::{SocketIndex, Transmit};
use crate::packet::stun::{Class, error};

/// A request whose answer depends on whether a relay socket opens.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) reply: ReplyTo,
    /// Ports tried for an Allocate; zero for other requests.
    pub(super) tries: u8,
    pub(super) failed: bool,
}

impl Turn {
    /// Says that it is done, at once or when the sockets that it takes are open.
    pub(super) fn answer_when_open(
        &mut self,
        key: AllocationKey,
        known: &Known<'_>,
        relays: &[RelayKey],
        out: &mut dyn Transmit,
    ) -> Result<(), Refusal> {
        self.schedule(key);
        let Some(allocation) = self.allocations.get_mut(key) else { return Ok(()) };
        let wants = |relay: &RelayKey| self.relays.want(*relay, Some(key), allocation.dont_fragment);
        let waits = relays.iter().map(wants).fold(false, |any, this| any | this);
        if waits {
            // At most one answer waits: of two requests at once, the earlier one is sent again by its client.
            allocation.pending = Some(Pending { reply: known.reply.clone(), tries: 0, failed: false });
        } else {
            let _ = known.reply.send(Class::Success, |_| {}, out);
        }
        Ok(())
    }

    /// What became of a socket that was asked for: `None` when it could not be bound.
    pub fn handle_socket(&mut self, relay: RelayKey, socket: Option<SocketIndex>, now: Now, out: &mut dyn Transmit) {
        let waiting = self.relays.opened(relay, socket);
        if let Some(relay) = self.relays.get(relay).filter(|relay| relay.open_socket().is_some()) {
            self.ports.open(relay.inner.port());
        }
        self.answer_waiting(&waiting, socket.is_some(), now, out);
    }

    /// What became of a [`PeerRequest::Listen`](super::PeerRequest::Listen).
    pub fn handle_listening(&mut self, relay: RelayKey, listens: bool, now: Now, out: &mut dyn Transmit) {
        let waiting = self.relays.listening(relay, listens);
        self.answer_waiting(&waiting, listens, now, out);
    }

    /// Those whose requests waited for a socket: as far as they wait for no other, they are answered, or try another port.
    fn answer_waiting(&mut self, waiting: &[AllocationKey], opened: bool, now: Now, out: &mut dyn Transmit) {
        for &key in waiting {
            let Some(allocation) = self.allocations.get_mut(key) else { continue };
            let waits = |relay: &RelayKey| self.relays.get(*relay).is_some_and(|relay| relay.waiting.contains(&key));
            let waits_on = allocation.relays.iter().any(waits);
            if let Some(pending) = &mut allocation.pending {
                pending.failed |= !opened;
            }
            if let Some(pending) = allocation.pending.take_if(|_| !waits_on) {
                self.answer(key, pending, now, out);
            }
        }
    }

    /// A request waits for no socket any more.
    fn answer(&mut self, key: AllocationKey, pending: Pending, now: Now, out: &mut dyn Transmit) {
        let Pending { reply, tries, failed } = pending;
        match (failed, tries) {
            (false, 0) => {
                let _ = reply.send(Class::Success, |_| {}, out);
            }
            (false, _) => self.finish_allocate(key, &reply, now, out),
            (true, 1..PORT_TRIES) if self.try_other_port(key, now) => {
                if let Some(allocation) = self.allocations.get_mut(key) {
                    allocation.pending = Some(Pending { reply, tries: tries + 1, failed: false });
                }
            }
            (true, _) => {
                let _ = reply.refuse(&error::INSUFFICIENT_CAPACITY.into(), out);
                if tries > 0 {
                    self.forget(key);
                }
            }
        }
    }
}

/// Ports tried for one Allocate.
const PORT_TRIES: u8 = 8;
