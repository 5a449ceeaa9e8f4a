//! TLS handshakes that begin too soon after others: they wait in the kernel, unread, for a later second. A crowd that comes back after
//! a restart gets in one after the other, and whoever asks for signatures on end gets them at the rate of the bound.

use ringmain_shared::Now;

use super::stream::Role;
use super::{Streams, TLS_HANDSHAKE};

impl Streams {
    /// Whether a connection may be read: not when its first byte begins a handshake that has to wait.
    pub(super) fn may_begin(&mut self, slot: usize, now: Now) -> bool {
        let id = self.id(slot);
        let Some(stream) = self.stream(slot).filter(|stream| matches!(stream.role, Role::New)) else {
            return true;
        };
        if stream.held_back {
            return false;
        }
        let mut first = [0];
        // What cannot be looked at has ended, or has not begun: reading it will tell.
        let is_tls = stream.connection.may_become_tls() && matches!(stream.socket.peek(&mut first), Ok(1));
        let address = stream.remote.ip();
        if !is_tls || first != [TLS_HANDSHAKE] || self.admission.begin(address, now) {
            return true;
        }
        self.stats.handshakes_put_off += 1;
        self.held_back.push(id);
        if let Some(stream) = self.stream_mut(slot) {
            stream.held_back = true;
        }
        false
    }

    /// Those that had to wait try again, in the order in which they came.
    pub(super) fn release_held_back(&mut self) {
        for id in std::mem::take(&mut self.held_back) {
            let Some(slot) = self.find(id) else { continue };
            if let Some(stream) = self.stream_mut(slot) {
                stream.held_back = false;
            }
            self.ready.push_back(slot);
        }
    }
}
