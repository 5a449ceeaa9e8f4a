//! How connections end: at once, or when everything is written and the other side has heard it. Whoever has to do with one is told.

use std::io;
use std::time::Duration;

use mio::Registry;
use ringmain_shared::Now;

use super::stream::Role;
use super::{Content, READS_MAX, Streams};
use crate::plane::stream_loop::Workers;
use crate::stream::connection::End;
use crate::stream::{FromStream, PeerNews};

impl Streams {
    /// Everything is written. Who closes while there is something to read has the kernel say so with a reset, which overtakes what the
    /// other side has not read yet: so we read on for a moment, until it closes too.
    pub(super) fn linger(&mut self, slot: usize, registry: &Registry, now: Now, workers: &mut Workers) {
        self.tell_relayed(slot, workers);
        let id = self.id(slot);
        let Some(stream) = self.stream_mut(slot) else { return };
        if stream.socket.end_writing().is_err() {
            return self.end(slot, End::Closed, registry, now, workers);
        }
        (stream.role, stream.since, stream.may_read) = (Role::Lingering, now, true);
        if let Some(worker) = stream.owner.take() {
            workers.give(worker, FromStream::Closed { id });
        }
        self.ready.push_back(slot);
    }

    /// Throws away what somebody says to whom we have said everything.
    pub(super) fn read_to_the_end(&mut self, slot: usize, registry: &Registry, now: Now, workers: &mut Workers) {
        for _ in 0..READS_MAX {
            let Some(Content::Stream(stream)) = self.slots.get_mut(slot).and_then(|slot| slot.content.as_mut()) else {
                return;
            };
            match stream.socket.read(&mut self.buffer) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return self.end(slot, End::Closed, registry, now, workers),
            }
        }
        self.ready.push_back(slot);
    }

    /// Ends a connection once everything for it is written.
    pub(super) fn finish(&mut self, slot: usize, now: Now) {
        let Some(stream) = self.stream_mut(slot).filter(|stream| stream.role != Role::Lingering) else { return };
        stream.connection.close(now);
        let role = std::mem::replace(&mut stream.role, Role::Ending);
        (stream.since, stream.may_read) = (now, false);
        self.unwritten.push(slot);
        if let Role::Joined { to } = role
            && self.stream(to).is_some_and(|other| other.role == Role::Joined { to: slot })
        {
            self.finish(to, now);
        }
    }

    /// Ends a connection now, and tells those who have to do with it.
    pub(super) fn end(&mut self, slot: usize, end: End, registry: &Registry, now: Now, workers: &mut Workers) {
        self.tell_relayed(slot, workers);
        let id = self.id(slot);
        let Some(stream) = self.stream_mut(slot) else { return };
        let (role, owner) = (stream.role, stream.owner);
        // From here on nobody joined to it finds it.
        stream.role = Role::Ending;
        match role {
            Role::Turn { worker } => workers.give(worker, FromStream::Closed { id }),
            Role::Connecting { worker, request } => {
                self.connecting.remove(&(worker, request));
                workers.give(worker, FromStream::Peer(PeerNews::Connected { request, peer: None }));
            }
            Role::Ice { path, worker } => {
                // The path may have come to be another's: the same client, connected anew.
                if self.paths.get(&path) == Some(&slot) {
                    self.paths.remove(&path);
                    if let Some(worker) = worker {
                        workers.give(worker, FromStream::PathClosed { path });
                    }
                }
            }
            // What was said to the end is still for the other.
            Role::Joined { to } => self.finish(to, now),
            Role::New | Role::Waiting | Role::Ending | Role::Lingering => {}
        }
        if let Some(worker) = owner.filter(|_| !matches!(role, Role::Connecting { .. })) {
            workers.give(worker, FromStream::Closed { id });
        }
        self.count(end);
        // What TLS has to say about the failure, if the kernel takes it at once.
        if let Some(stream) = self.stream_mut(slot)
            && !stream.connection.pending().is_empty()
        {
            let _ = stream.socket.write(stream.connection.pending());
        }
        self.remove(slot, registry);
    }

    pub(super) fn count(&mut self, end: End) {
        match end {
            End::Closed => {}
            End::Unknown => self.stats.unknown_protocol += 1,
            End::Tls => self.stats.tls_failed += 1,
            End::Desynchronised => self.stats.desynchronised += 1,
            End::Silent => self.stats.silent += 1,
            End::Stuck => self.stats.stuck += 1,
        }
    }
}

/// Time for the other side to close, once it was told everything.
pub(super) const LINGER: Duration = Duration::from_secs(2);
