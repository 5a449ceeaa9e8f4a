//! Links: ways from an allocation to our own media that take no socket. To the media side a link is a path like any other, with a
//! socket number that no socket has; what is sent to it gets TURN's header in the transmit buffer and goes to the client.
//!
//! Owns which numbers are in use. A number that was used rests as long as possible before it is used again.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::allocation::AllocationKey;
use crate::buf::{LinkBudgets, Prefix};
use crate::io::{Path, SocketIndex};

/// A link's place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct LinkIndex(u16);

impl LinkIndex {
    /// The link that a socket number names.
    pub(super) fn of(socket: SocketIndex) -> Option<Self> {
        u16::try_from(socket.link_number()?).ok().map(Self)
    }
}

/// One link.
#[derive(Clone, Copy, Debug)]
pub(super) struct TurnLink {
    pub(super) allocation: AllocationKey,
    /// As the media side sees the client.
    pub(super) path: Path,
}

/// What the worker is to know of links.
#[derive(Clone, Debug)]
pub enum LinkChange {
    /// What is sent through this link is within these budgets from now on. Comes first.
    Limit(SocketIndex, LinkBudgets),
    /// What is sent to this path goes so to the client from now on; `None`: nowhere, while there is no permission.
    Set(Path, Option<Prefix>),
    /// The path leads nowhere any more.
    Closed(Path),
}

/// The links of a worker.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: Vec<Option<TurnLink>>,
    free: VecDeque<u16>,
    pub(super) changes: Vec<LinkChange>,
}

impl Links {
    /// A new one, from a relayed address.
    pub(super) fn open(
        &mut self,
        allocation: AllocationKey,
        relayed: SocketAddr,
        budgets: LinkBudgets,
    ) -> Option<LinkIndex> {
        // Numbers are all used once before the first is used again.
        let index = match u16::try_from(self.links.len()).ok().filter(|&len| len < LINKS_MAX) {
            Some(len) => {
                self.links.push(None);
                len
            }
            None => self.free.pop_front()?,
        };
        let path = Path { socket: socket_of(index), remote: relayed };
        *self.links.get_mut(usize::from(index))? = Some(TurnLink { allocation, path });
        self.limit(LinkIndex(index), budgets);
        Some(LinkIndex(index))
    }

    /// What may be sent through it from now on.
    pub(super) fn limit(&mut self, link: LinkIndex, budgets: LinkBudgets) {
        self.changes.push(LinkChange::Limit(socket_of(link.0), budgets));
    }

    #[inline]
    pub(super) fn get(&self, link: LinkIndex) -> Option<&TurnLink> {
        self.links.get(usize::from(link.0))?.as_ref()
    }

    /// How datagrams to the client look from now on.
    pub(super) fn set(&mut self, link: LinkIndex, prefix: Option<Prefix>) {
        if let Some(path) = self.get(link).map(|link| link.path) {
            self.changes.push(LinkChange::Set(path, prefix));
        }
    }

    /// An end to one.
    pub(super) fn close(&mut self, link: LinkIndex) {
        let Some(place) = self.links.get_mut(usize::from(link.0)) else { return };
        if let Some(link_was) = place.take() {
            self.free.push_back(link.0);
            self.changes.push(LinkChange::Closed(link_was.path));
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.links.iter().flatten().count()
    }
}

fn socket_of(index: u16) -> SocketIndex {
    SocketIndex(SocketIndex::LINK_FIRST + index)
}

/// Links of one worker.
pub(super) const LINKS_MAX: u16 = u16::MAX - SocketIndex::LINK_FIRST;
