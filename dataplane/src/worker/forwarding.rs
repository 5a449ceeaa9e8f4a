//! To subscribers, transposed: not packet by packet to everybody, but subscriber by subscriber everything that came, so that each
//! gets one contiguous train, with its keys and numbers at hand once.

use ringmain_shared::Now;
use ringmain_shared::event::Event;

use super::Worker;
use crate::forward::subscription::{Egress, Outcome};
use crate::forward::track::PendingKind;
use crate::io::Transmit;
use crate::packet::ext;
use crate::transport::subscriber::REPORT_INTERVAL;

impl Worker {
    /// Forwards what this batch brought.
    pub(super) fn forward_pending(&mut self, now: Now, out: &mut dyn Transmit) {
        let abs_send_time = ext::abs_send_time(now);
        while let Some(key) = self.touched.pop() {
            let Some(track) = self.tracks.get_mut(key) else { continue };
            let pending = std::mem::take(&mut track.pending);
            let Some(track) = self.tracks.get(key) else { continue };
            for &subscriber in &track.subscribers {
                let Some(subscription) = self.subscriptions.get_mut(subscriber) else { continue };
                let Some(transport) = self.transports.get_mut(subscription.transport) else { continue };
                let (Some(path), Some(keys)) = (transport.ice.selected(), transport.keys.as_mut()) else { continue };
                let sending = &mut transport.subscriber;
                let mut egress = Egress {
                    path,
                    srtp: &mut keys.outbound,
                    transport_sequence: &mut sending.transport_sequence,
                    abs_send_time,
                    budget: &mut sending.budget,
                };
                let mut sent = 0;
                for packet in &pending {
                    let restarted = match packet.kind {
                        PendingKind::Media { restarted } => restarted,
                        PendingKind::Padding => {
                            subscription.skip(packet.sequence, packet.spatial);
                            continue;
                        }
                    };
                    if restarted && subscription.begin_again(packet.spatial) {
                        self.unsettled.push(subscriber);
                    }
                    let layer = track.layers.get(usize::from(packet.spatial)).and_then(Option::as_ref);
                    let Some((media, bytes)) = layer.and_then(|layer| layer.cache.get(packet.sequence)) else {
                        continue;
                    };
                    match subscription.forward(media, packet.spatial, bytes, track, &mut egress, now, out) {
                        Outcome::Sent => sent += 1,
                        Outcome::Switched => {
                            sent += 1;
                            self.outbox.events.push(Event::LayerForwarded {
                                subscription: subscription.id(),
                                spatial: packet.spatial,
                                temporal: subscription.temporal(),
                            });
                        }
                        Outcome::NotForUs => {
                            if subscription.should_ask_again(now) {
                                self.unsettled.push(subscriber);
                            }
                        }
                        Outcome::Dropped(reason) => self.drops[reason as usize] += 1,
                    }
                }
                self.stats.rtp_forwarded += sent;
                if sent > 0 && sending.report_at.is_none() {
                    sending.report_at = Some(now + REPORT_INTERVAL);
                    self.unscheduled.push(subscription.transport);
                }
            }
            let Some(track) = self.tracks.get_mut(key) else { continue };
            track.pending = pending;
            track.pending.clear();
        }
        self.settle(now);
        while let Some(key) = self.unscheduled.pop() {
            self.schedule(key);
        }
    }
}
