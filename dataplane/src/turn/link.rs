//! Links: ways from an allocation to our own media that take no socket. To the media side a link is a path like any other, with a
//! socket number that no socket has; what is sent to it gets TURN's header in the transmit buffer and goes to the client.
//!
//! Client and media may be different workers' ([`between`](super::between)). Then each has a number for the link, and the media's worker
//! has its client as a guest.
//!
//! Owns which numbers are in use, and what is told of each to whom it leads to. A number that was used rests as long as possible before
//! it is used again.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use foldhash::fast::RandomState;
use ringmain_shared::Now;
use ringmain_shared::id::WorkerIndex;

use super::Turn;
use super::allocation::AllocationKey;
use super::between::{FarLink, TurnItem};
use super::ledger::User;
use crate::buf::{Bandwidth, LinkBudgets, Prefix};
use crate::io::{Path, SocketIndex};
use crate::packet::stun::TransactionId;

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
    pub(super) ends: Ends,
    /// As the media side sees the client.
    pub(super) path: Path,
}

/// Between whom a link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ends {
    /// Our client and our media.
    Own(AllocationKey),
    /// Our client and the media of another worker's.
    Far { allocation: AllocationKey, media: WorkerIndex, link: FarLink, user: User },
    /// The client of another worker's, who is this user, and our media.
    Guest(FarLink, User),
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
#[derive(Debug)]
pub(super) struct Links {
    worker: WorkerIndex,
    links: Vec<Option<TurnLink>>,
    free: VecDeque<u16>,
    /// Links of other workers' clients, by their worker's number.
    guests: HashMap<(WorkerIndex, LinkIndex), (u32, LinkIndex), RandomState>,
    generation: u32,
    pub(super) changes: Vec<LinkChange>,
    pub(super) items: Vec<(WorkerIndex, TurnItem)>,
}

impl Links {
    /// None yet, on this worker.
    pub(super) fn new(worker: WorkerIndex) -> Self {
        Self {
            worker,
            links: Vec::new(),
            free: VecDeque::new(),
            guests: HashMap::default(),
            generation: 0,
            changes: Vec::new(),
            items: Vec::new(),
        }
    }

    /// A new one, from a relayed address to our media.
    pub(super) fn open(
        &mut self,
        allocation: AllocationKey,
        relayed: SocketAddr,
        budgets: LinkBudgets,
    ) -> Option<LinkIndex> {
        let index = self.take_number()?;
        self.place(index, Ends::Own(allocation), relayed)?;
        self.limit(index, budgets);
        Some(index)
    }

    /// A new one, from a relayed address of this user's to the media of another worker.
    pub(super) fn open_far(
        &mut self,
        allocation: AllocationKey,
        relayed: SocketAddr,
        media: WorkerIndex,
        user: User,
    ) -> Option<LinkIndex> {
        let index = self.take_number()?;
        self.generation = self.generation.wrapping_add(1);
        let link = FarLink { home: self.worker, index, generation: self.generation };
        self.place(index, Ends::Far { allocation, media, link, user }, relayed)?;
        Some(index)
    }

    /// What our media may send through it from now on.
    pub(super) fn limit(&mut self, link: LinkIndex, budgets: LinkBudgets) {
        if let Some(&TurnLink { ends: Ends::Own(_) | Ends::Guest(..), path }) = self.get(link) {
            self.changes.push(LinkChange::Limit(path.socket, budgets));
        }
    }

    /// Numbers are all used once before the first is used again.
    fn take_number(&mut self) -> Option<LinkIndex> {
        match u16::try_from(self.links.len()).ok().filter(|&len| len < LINKS_MAX) {
            Some(len) => {
                self.links.push(None);
                Some(LinkIndex(len))
            }
            None => self.free.pop_front().map(LinkIndex),
        }
    }

    fn place(&mut self, index: LinkIndex, ends: Ends, relayed: SocketAddr) -> Option<Path> {
        let path = Path { socket: SocketIndex(SocketIndex::LINK_FIRST + index.0), remote: relayed };
        *self.links.get_mut(usize::from(index.0))? = Some(TurnLink { ends, path });
        Some(path)
    }

    #[inline]
    pub(super) fn get(&self, link: LinkIndex) -> Option<&TurnLink> {
        self.links.get(usize::from(link.0))?.as_ref()
    }

    /// How datagrams to the client look from now on.
    pub(super) fn set(&mut self, link: LinkIndex, prefix: Option<Prefix>) {
        let Some(&TurnLink { ends, path }) = self.get(link) else { return };
        match ends {
            Ends::Far { media, link, user, .. } => {
                self.items.push((media, TurnItem::SetLink { link, relayed: path.remote, user, prefix }));
            }
            Ends::Own(_) | Ends::Guest(..) => self.changes.push(LinkChange::Set(path, prefix)),
        }
    }

    /// An end to one.
    pub(super) fn close(&mut self, link: LinkIndex) {
        let Some(place) = self.links.get_mut(usize::from(link.0)) else { return };
        let Some(TurnLink { ends, path }) = place.take() else { return };
        self.free.push_back(link.0);
        match ends {
            Ends::Far { media, link, .. } => self.items.push((media, TurnItem::CloseLink(link))),
            Ends::Own(_) | Ends::Guest(..) => self.changes.push(LinkChange::Closed(path)),
        }
    }

    /// The link of another worker's client, which is new here.
    pub(super) fn open_guest(&mut self, link: FarLink, relayed: SocketAddr, user: User) -> Option<LinkIndex> {
        if let Some((_, former)) = self.guests.remove(&(link.home, link.index)) {
            self.close(former);
        }
        let index = self.take_number()?;
        self.place(index, Ends::Guest(link, user), relayed)?;
        self.guests.insert((link.home, link.index), (link.generation, index));
        Some(index)
    }

    /// The links of other workers' clients, and whose they are.
    pub(super) fn guests(&self) -> impl Iterator<Item = (LinkIndex, User)> {
        self.guests.values().filter_map(|&(_, index)| match self.get(index)?.ends {
            Ends::Guest(_, user) => Some((index, user)),
            _ => None,
        })
    }

    /// An end to the link of another worker's client.
    pub(super) fn close_guest(&mut self, link: FarLink) {
        if let Some(index) = self.guest(link) {
            self.guests.remove(&(link.home, link.index));
            self.close(index);
        }
    }

    /// The number here of the link of another worker's client.
    #[inline]
    pub(super) fn guest(&self, link: FarLink) -> Option<LinkIndex> {
        let &(generation, index) = self.guests.get(&(link.home, link.index))?;
        (generation == link.generation).then_some(index)
    }

    /// The allocation of a link that another worker names.
    pub(super) fn own(&self, link: FarLink) -> Option<AllocationKey> {
        match self.get(link.index)?.ends {
            Ends::Far { allocation, link: name, .. } if name == link => Some(allocation),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.links.iter().flatten().count()
    }
}

impl Turn {
    /// The way to our own media, which is a worker's, opened at its first use.
    pub(super) fn link_to(
        &mut self,
        key: AllocationKey,
        media: SocketAddr,
        worker: WorkerIndex,
        now: Now,
    ) -> Option<LinkIndex> {
        if let Some(link) = self.allocations.get(key)?.link(media) {
            return Some(link);
        }
        let relay = self.relay_of(key, media.is_ipv4())?;
        let outer = self.relays.get(relay)?.outer;
        let link = if worker == self.index {
            self.links.open(key, outer, self.link_budgets(key))?
        } else {
            let owner = self.allocations.get(key)?.owner.account;
            let user = self.ledger.user(&self.accounts.get(owner)?.user);
            self.links.open_far(key, outer, worker, user)?
        };
        self.allocations.get_mut(key)?.links.push((media, link));
        self.set_links(key, now);
        Some(link)
    }

    /// What our own media may send to the client of an allocation: out of the same as what its peers send. What has no bound costs nothing.
    pub(super) fn link_budgets(&self, key: AllocationKey) -> LinkBudgets {
        let account = self.allocations.get(key).and_then(|allocation| self.accounts.get(allocation.owner.account));
        let budgets = [account.map(|account| &account.bandwidth), Some(&self.bandwidth)];
        budgets.map(|budget| budget.filter(|budget| budget.is_bounded()).cloned())
    }

    /// The same for the client of another worker's.
    pub(super) fn guest_budgets(&self, user: User) -> LinkBudgets {
        let budgets = [self.ledger.bandwidth_of(user, self.spec.quotas.user_bps), self.bandwidth.clone()];
        budgets.map(|budget| Some(budget).filter(Bandwidth::is_bounded))
    }

    /// Says how datagrams of our media look on their way to the client: ChannelData where there is a channel. Without a permission
    /// there is no way, whether there is a channel or not (RFC 8656 §12).
    pub(super) fn set_links(&mut self, key: AllocationKey, now: Now) {
        let Some(allocation) = self.allocations.get(key) else { return };
        let client = allocation.client;
        for &(media, link) in &allocation.links {
            let channel = allocation.channel_of(media, now).map(|channel| channel.number);
            let prefix = || match channel {
                Some(number) => Prefix::channel(client.path, number),
                None => Prefix::indication(client.path, media, TransactionId(self.random.bytes())),
            };
            let is_permitted = allocation.is_permitted(media.ip(), now);
            self.links.set(link, is_permitted.then(prefix));
        }
    }
}

/// Links of one worker.
pub(super) const LINKS_MAX: u16 = u16::MAX - SocketIndex::LINK_FIRST;
