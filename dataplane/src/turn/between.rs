//! What the TURN servers of two workers say to each other: a client is one worker's, and the media or the other client that it wants
//! another's; or its datagrams come to one worker, and its allocation is another's.
//!
//! **Links.** The client's worker takes the datagram out of the message and hands it to the media's worker, where it goes on as from a
//! path of its own. The way back is shorter: where every worker has a socket at the address that the client knows, the media's worker
//! wraps and sends for itself, and tells how much. Only what goes to a connection, or to a socket of one worker alone, takes the ring.
//!
//! **Clients that moved** (RFC 8016). A ticket names its worker. Who gets a Refresh with a ticket of another worker's hands it over as it
//! is, and then all that comes from there, until that worker says that the client is not its own.
//!
//! Datagrams may be lost on the way, as on any, and counts of them; the rest is kept until there is room for it, in its order.

use std::net::SocketAddr;
use std::ops::Range;

use ringmain_shared::id::WorkerIndex;
use ringmain_shared::{DropReason, Now};

use super::Turn;
use super::allocation::{Allocation, Client};
use super::ledger::User;
use super::link::{Ends, LinkIndex, Links};
use super::reply::transmit;
use crate::buf::Prefix;
use crate::handshake::Datagram;
use crate::io::{Path, Transmit};
use crate::packet::stun::{Message, attribute};

/// What a worker tells another one.
#[derive(Clone, Debug)]
pub enum TurnItem {
    /// To the media's worker: what is sent through this link goes so to the client from now on; `None`: nowhere.
    SetLink {
        /// Which.
        link: FarLink,
        /// The client as the media knows it: its relayed address.
        relayed: SocketAddr,
        /// Whose bandwidth it takes.
        user: User,
        /// What goes around datagrams, and by which path they go.
        prefix: Option<Prefix>,
    },
    /// To the media's worker: the link is no more.
    CloseLink(FarLink),
    /// To the media's worker: a client's datagram for its media.
    ToMedia {
        /// By which link.
        link: FarLink,
        /// What the client said.
        bytes: Datagram,
    },
    /// To the client's worker: no such link is known here.
    NeedLink(FarLink),
    /// To the client's worker: a datagram for the client, wrapped already.
    ToClient {
        /// By which link.
        link: FarLink,
        /// What the client is to get.
        bytes: Datagram,
    },
    /// To the client's worker: what was sent to the client.
    Sent {
        /// By which link.
        link: FarLink,
        /// How many datagrams.
        datagrams: u64,
        /// Their bytes, without what is around them.
        bytes: u64,
    },
    /// To a client's worker: what another client sent to its relayed address.
    ToRelayed {
        /// The relayed address.
        to: SocketAddr,
        /// That of the other client.
        from: SocketAddr,
        /// What it sent.
        bytes: Datagram,
    },
    /// To a client's worker: what came from the client elsewhere.
    Client {
        /// Where it came.
        by: WorkerIndex,
        /// It is thought there that the client is yours.
        expected: bool,
        /// By which path; the socket is one that every worker has.
        path: Path,
        /// The message.
        bytes: Datagram,
    },
    /// To the worker that a client's datagrams come to: they are this one's, or no longer.
    Moved {
        /// Whose the client is, or was.
        owner: WorkerIndex,
        /// Where the client is, or was.
        path: Path,
        /// It is there.
        here: bool,
    },
}

impl TurnItem {
    /// A datagram, what comes with the next one again, and what is only counted: these may be lost on the way, lest the rest be.
    pub fn may_be_lost(&self) -> bool {
        match self {
            TurnItem::ToMedia { .. } | TurnItem::ToClient { .. } => true,
            TurnItem::ToRelayed { .. } | TurnItem::Client { .. } => true,
            TurnItem::NeedLink(_) | TurnItem::Sent { .. } => true,
            TurnItem::SetLink { .. } | TurnItem::CloseLink(_) | TurnItem::Moved { .. } => false,
        }
    }
}

/// Whose a client is that came to another worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elsewhere {
    /// That worker's.
    pub owner: WorkerIndex,
    /// It said so, or the client proved who it is.
    pub expected: bool,
}

/// Whose all is that comes from a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whose {
    owner: WorkerIndex,
    /// That worker told; until it does, the client has only proved who it is.
    told: bool,
}

/// A link as both its workers call it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FarLink {
    /// The client's worker.
    pub(super) home: WorkerIndex,
    /// Its number there.
    pub(super) index: LinkIndex,
    /// Numbers are used again.
    pub(super) generation: u32,
}

impl FarLink {
    /// The worker whose client it belongs to.
    pub fn home(self) -> WorkerIndex {
        self.home
    }
}

impl Turn {
    /// What other workers have to know, in this order. Emptied by the caller.
    pub fn items(&mut self) -> &mut Vec<(WorkerIndex, TurnItem)> {
        &mut self.links.items
    }

    /// These sockets every worker has, each bound to the same address: what one sends by them, clients take for any other's.
    pub fn share_sockets(&mut self, sockets: Range<u16>) {
        self.shared_sockets = sockets;
    }

    /// How datagrams go to a client of another worker's from here on.
    pub fn handle_set_link(&mut self, link: FarLink, relayed: SocketAddr, user: User, prefix: Option<Prefix>) {
        let index = self.links.guest(link).or_else(|| {
            let index = self.links.open_guest(link, relayed, user)?;
            self.links.limit(index, self.guest_budgets(user));
            Some(index)
        });
        // Without a number it leads nowhere, and what comes by it is dropped.
        let Some(index) = index else { return };
        let Some(path) = self.links.get(index).map(|link| link.path) else { return };
        let is_shared = |prefix: &Prefix| self.shared_sockets.contains(&prefix.path().socket.0);
        // What is sent by the link itself is diverted, and handed to the client's worker.
        let prefix = prefix.map(|prefix| if is_shared(&prefix) { prefix } else { prefix.by(path) });
        self.links.set(index, prefix);
    }

    /// A link of another worker's client is no more.
    pub fn handle_close_link(&mut self, link: FarLink) {
        self.links.close_guest(link);
    }

    /// The path by which our media knows a client of another worker's. One that was opened before this server was is asked for.
    #[inline]
    pub fn guest_path(&mut self, link: FarLink) -> Result<Path, DropReason> {
        match self.links.guest(link).and_then(|index| self.links.get(index)) {
            Some(known) => Ok(known.path),
            None => {
                self.links.items.push((link.home, TurnItem::NeedLink(link)));
                Err(DropReason::TurnNoRelay)
            }
        }
    }

    /// Another worker does not know a link of ours.
    pub fn handle_need_link(&mut self, link: FarLink, now: Now) {
        if let Some(key) = self.links.own(link) {
            self.set_links(key, now);
        }
    }

    /// Whose a datagram is that was sent by a path of our media's and that no socket sends: a link of another worker's client.
    pub fn guest_of(&self, path: Path) -> Option<FarLink> {
        match self.links.get(LinkIndex::of(path.socket)?)?.ends {
            Ends::Guest(link, _) => Some(link),
            _ => None,
        }
    }

    /// A datagram of another worker's media for a client of ours.
    pub fn handle_to_client(&mut self, link: FarLink, bytes: &[u8], out: &mut dyn Transmit) -> Result<(), DropReason> {
        let key = self.links.own(link).ok_or(DropReason::TurnNoRelay)?;
        let allocation = self.allocations.get(key).ok_or(DropReason::TurnNoAllocation)?;
        transmit(allocation.client.path, bytes, out)
    }

    /// What another worker's media sent to a client of ours.
    pub fn handle_sent(&mut self, link: FarLink, datagrams: u64, bytes: u64) {
        if let Some(key) = self.links.own(link) {
            self.count_to_client(key, datagrams, bytes, true);
        }
    }

    /// The worker that a datagram of a client belongs to, if it is another one.
    #[inline]
    pub fn elsewhere(&mut self, client: Client, bytes: &[u8], now: Now) -> Result<Option<Elsewhere>, DropReason> {
        if !self.moved.is_empty()
            && let Some(&Whose { owner, .. }) = self.moved.get(&client.path)
        {
            return Ok(Some(Elsewhere { owner, expected: true }));
        }
        let may_move = bytes.starts_with(&REFRESH)
            && self.spec.features.mobility
            && self.shared_sockets.contains(&client.path.socket.0);
        if may_move { self.ticket_owner(client, bytes, now) } else { Ok(None) }
    }

    /// The worker that made the ticket that somebody shows. Who proves nothing takes as much of the other worker's time as of ours:
    /// what an answer would.
    fn ticket_owner(&mut self, client: Client, bytes: &[u8], now: Now) -> Result<Option<Elsewhere>, DropReason> {
        if self.clients.contains_key(&client.path) {
            return Ok(None);
        }
        let message = Message::parse(bytes)?;
        let ticket = message.attribute(attribute::MOBILITY_TICKET).and_then(<[u8]>::first_chunk::<2>);
        let Some(owner) = ticket.map(|named| WorkerIndex(u16::from_be_bytes(*named))) else { return Ok(None) };
        if owner == self.index || owner.0 >= self.spec.relay.workers {
            return Ok(None);
        }
        let expected = self.authenticate(client, message, now).is_ok();
        if expected {
            // What the client sends on its answer may be here before that worker's word is.
            self.expect(client.path, owner);
        } else if !self.replies.take(client.path.remote, false, now) {
            return Err(DropReason::TurnReplyBudget);
        }
        Ok(Some(Elsewhere { owner, expected }))
    }

    /// A client is likely another worker's. That may never be told, as what is sent there may be lost: so the latest only are kept.
    pub(super) fn expect(&mut self, path: Path, owner: WorkerIndex) {
        if self.expected.len() >= EXPECTED_MAX
            && let Some(oldest) = self.expected.pop_front()
            && self.moved.get(&oldest).is_some_and(|whose| !whose.told)
        {
            self.moved.remove(&oldest);
        }
        self.expected.push_back(path);
        self.moved.insert(path, Whose { owner, told: false });
    }

    /// A client's datagram that came to another worker has been dealt with. `expected` as it came.
    pub fn came_by(&mut self, by: WorkerIndex, expected: bool, client: Client) {
        let key = self.clients.get(&client.path).copied();
        let here = match key.and_then(|key| self.allocations.get_mut(key)) {
            Some(allocation) => allocation.via.replace(by) != Some(by),
            None => false,
        };
        if here || (expected && key.is_none()) {
            self.links.items.push((by, TurnItem::Moved { owner: self.index, path: client.path, here }));
        }
    }

    /// What comes from a client here is another worker's, or no longer.
    pub fn handle_moved(&mut self, owner: WorkerIndex, path: Path, here: bool) {
        if here {
            self.moved.insert(path, Whose { owner, told: true });
        } else if self.moved.get(&path).is_some_and(|whose| whose.owner == owner) {
            self.moved.remove(&path);
        }
    }
}

/// The client is not any more where it was.
pub(super) fn leave(allocation: &Allocation, owner: WorkerIndex, links: &mut Links) {
    if let Some(by) = allocation.via {
        links.items.push((by, TurnItem::Moved { owner, path: allocation.client.path, here: false }));
    }
}

/// How a Refresh request begins (RFC 8656 §18.1).
const REFRESH: [u8; 2] = [0, 4];
/// More clients than move in the time that a datagram takes to another worker and back.
pub(super) const EXPECTED_MAX: usize = 1024;
