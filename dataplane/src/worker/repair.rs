//! What subscribers asked for again, on its way to them: a bounded share of each turn, taken in turns by those who wait.
//! What is left begins the next turn, which then waits for nothing.
//!
//! One datagram can ask for a thousand packets and be granted two hundred. Served at once, these would hold up everybody else's
//! media; served so, they go out at the same rate with new packets in between.

use ringmain_shared::{DropReason, Now};

use super::Worker;
use crate::forward::subscription::Egress;
use crate::io::Transmit;
use crate::packet::ext;
use crate::transport::TransportKey;

/// Packets sent again in one turn: five microseconds of AES-GCM, fifteen of AES-CM with HMAC-SHA1.
const RESENDS_PER_TURN: usize = 16;
/// Packets looked for in one turn, found or not.
const LOOKS_PER_TURN: usize = 256;
/// Packets of one subscriber that are looked for before the next one has its turn.
const LOOKS_AT_ONCE: usize = 32;

/// What this turn may still do.
struct Share {
    resends: usize,
    looks: usize,
}

impl Worker {
    /// Serves those who wait, one after the other and round again, until this turn's share is used up.
    pub(super) fn repair(&mut self, now: Now, out: &mut dyn Transmit) {
        let mut share = Share { resends: RESENDS_PER_TURN, looks: LOOKS_PER_TURN };
        while share.resends > 0 && share.looks > 0 {
            let Some(key) = self.repairing.pop_front() else { return };
            if self.repair_some(key, &mut share, now, out) {
                self.repairing.push_back(key);
            }
        }
    }

    /// Serves one subscriber; says whether something is left to do.
    fn repair_some(&mut self, key: TransportKey, share: &mut Share, now: Now, out: &mut dyn Transmit) -> bool {
        let Some(transport) = self.transports.get_mut(key) else { return false };
        let sending = &mut transport.subscriber;
        let (Some(path), Some(keys)) = (transport.ice.destination(), &transport.keys) else {
            sending.repairs.clear();
            return false;
        };
        let mut egress = Egress {
            path,
            srtp: &keys.outbound,
            transport_sequence: &mut sending.transport_sequence,
            abs_send_time: ext::abs_send_time(now),
            budget: &mut sending.budget,
        };
        for _ in 0..LOOKS_AT_ONCE.min(share.looks) {
            let Some((subscription, sequence, matters)) = sending.repairs.pop(now) else { return false };
            share.looks -= 1;
            let subscription = self.subscriptions.get_mut(subscription).filter(|_| matters);
            let found =
                subscription.and_then(|subscription| Some((self.tracks.get(subscription.track)?, subscription)));
            let result = match found {
                Some((track, subscription)) => subscription.resend(sequence, &track.layers, &mut egress, now, out),
                None => Err(DropReason::RtxMissed),
            };
            match result {
                Ok(()) => {
                    self.stats.rtx_sent += 1;
                    share.resends -= 1;
                    if share.resends == 0 {
                        break;
                    }
                }
                // Media earns the budget, and waiting does not: whatever else is asked for is refused too.
                Err(DropReason::RtxBudget) => {
                    self.drops[DropReason::RtxBudget as usize] += 1 + sending.repairs.clear() as u64;
                }
                Err(reason) => self.drops[reason as usize] += 1,
            }
        }
        !sending.repairs.is_empty()
    }
}
