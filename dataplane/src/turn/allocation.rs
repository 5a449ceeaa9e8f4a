//! One allocation: a client's relayed addresses, the peers that it may talk to, the numbers that it gave them.
//! Owns the lifetimes of all these; never sees messages, sockets or rules.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;
use foldhash::fast::RandomState;
use ringmain_shared::Now;
use ringmain_shared::id::{TurnAllocationId, WorkerIndex};
use ringmain_shared::turn::{RelayProtocol, TurnBinding, TurnTraffic, TurnTransport};

use super::budget::Second;
use super::connection::ConnectionKey;
use super::credential::{AccountKey, Claim, HeldToken, Keys};
use super::ledger::Hold;
use super::link::LinkIndex;
use super::peer::PermittedPeer;
use super::pending::Pending;
use super::relay::RelayKey;
use super::request::Known;
use crate::io::Path;
use crate::packet::stun::TransactionId;

slotmap::new_key_type! {
    /// An allocation's slot. One that is reused is never mistaken for the old one.
    pub struct AllocationKey;
}

/// Who is at the other end, and how it reaches us.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Client {
    /// Where its datagrams come from, and go to; a path of its stream, if it has one.
    pub path: Path,
    /// UDP, TCP, TLS or DTLS.
    pub transport: TurnTransport,
}

impl Client {
    /// Its address is proved by the connection.
    pub(super) fn is_proved(&self) -> bool {
        self.transport != TurnTransport::Udp
    }
}

/// Whose an allocation is.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) username: String,
    pub(super) keys: Keys,
    pub(super) account: AccountKey,
    pub(super) bound: Option<TurnBinding>,
    pub(super) token: Option<HeldToken>,
}

impl Owner {
    /// Whether the same user asks (RFC 8656 §5). Tokens follow one another (RFC 7635 §9), and the keys that they are sealed with as well;
    /// nothing in a token says whose it is. So whoever has one, and sends and hears at the address of another bearer's client, may end
    /// what that one allocated, as with coturn: by being there it could end the conversation anyway.
    pub(super) fn is(&self, claim: &Claim) -> bool {
        match (self.token, claim.token) {
            (None, None) => self.username == claim.username,
            (Some(_), Some(_)) => true,
            _ => false,
        }
    }

    /// RFC 7635 §9: refreshed by a new token, it is that one's from now on. It counts for the token that it was made by.
    pub(super) fn renew(&mut self, known: &Known<'_>) -> Renewal {
        let (Some(held), Some(brought)) = (self.token, known.claim.token) else { return Renewal::Present };
        // Of two of one moment the later one to come counts: coturn's clients make tokens that count whole seconds.
        if brought.made < held.made {
            return Renewal::Past;
        }
        (self.username, self.keys) = (known.claim.username.clone(), known.keys.clone());
        self.token = Some(brought);
        Renewal::Present
    }
}

/// What a Refresh is proved by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Renewal {
    /// By what its owner has, or has now.
    Present,
    /// By a token that was made before the owner's.
    Past,
}

/// An allocation (RFC 8656 §3.2).
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) id: TurnAllocationId,
    pub(super) client: Client,
    pub(super) owner: Owner,
    /// The request that made it: the same one again gets the same answer (RFC 8656 §7.2).
    pub(super) made_by: TransactionId,
    pub(super) protocol: RelayProtocol,
    pub(super) relays: ArrayVec<RelayKey, 2>,
    /// Its port of the pool, where ports are not shared.
    pub(super) port: Option<u16>,
    /// What it counts against.
    pub(super) holds: ArrayVec<Hold, 2>,
    pub(super) expires: Now,
    /// Peers' addresses, and until when they may send.
    permissions: HashMap<IpAddr, Now, RandomState>,
    /// In the order of their numbers.
    channels: Vec<Channel>,
    by_peer: HashMap<SocketAddr, u16, RandomState>,
    /// Ways to our own media.
    pub(super) links: Vec<(SocketAddr, LinkIndex)>,
    /// Of peers, over TCP.
    pub(super) connections: Vec<ConnectionKey>,
    /// Connects of this second.
    pub(super) connects: Second,
    /// Peers that are taken on shared ports.
    pub(super) claims: Vec<(RelayKey, SocketAddr)>,
    pub(super) reservation: Option<[u8; 8]>,
    pub(super) ticket: Option<[u8; 16]>,
    /// The worker that the client's datagrams come to, if it is another one.
    pub(super) via: Option<WorkerIndex>,
    pub(super) dont_fragment: bool,
    /// The family of which an address was wanted too, and is not to be had.
    pub(super) missing: Option<u8>,
    /// A request that waits for a socket.
    pub(super) pending: Option<Pending>,
    pub(super) traffic: TurnTraffic,
    pub(super) timer: Option<Now>,
}

/// A number for a peer (RFC 8656 §12).
#[derive(Clone, Copy, Debug)]
pub(super) struct Channel {
    pub(super) number: u16,
    pub(super) peer: PermittedPeer,
    pub(super) until: Now,
    /// As the permission of the peer's address says.
    pub(super) permitted_until: Now,
    pub(super) route: Route,
}

/// How datagrams get to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Route {
    /// Through the socket of a relayed address.
    Relay(RelayKey),
    /// It is our own media: to the worker as from this path.
    Link(LinkIndex),
}

/// Why a channel is not bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BindError {
    /// The number has another peer, or the peer another number.
    Conflict,
    /// There are as many as there may be.
    TooMany,
}

impl Allocation {
    pub(super) fn new(
        id: TurnAllocationId,
        client: Client,
        owner: Owner,
        made_by: TransactionId,
        expires: Now,
    ) -> Self {
        Self {
            id,
            client,
            owner,
            made_by,
            protocol: RelayProtocol::Udp,
            relays: ArrayVec::new(),
            port: None,
            holds: ArrayVec::new(),
            expires,
            permissions: HashMap::default(),
            channels: Vec::new(),
            by_peer: HashMap::default(),
            links: Vec::new(),
            connections: Vec::new(),
            connects: Second::default(),
            claims: Vec::new(),
            reservation: None,
            ticket: None,
            via: None,
            dont_fragment: false,
            missing: None,
            pending: None,
            traffic: TurnTraffic::default(),
            timer: None,
        }
    }

    /// Its Allocate has not been answered yet.
    pub(super) fn is_coming(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.tries > 0)
    }

    /// The channel of this number, if it is bound.
    #[inline]
    pub(super) fn channel(&self, number: u16, now: Now) -> Option<&Channel> {
        let at = self.channels.binary_search_by_key(&number, |channel| channel.number).ok()?;
        self.channels.get(at).filter(|channel| channel.until > now)
    }

    /// The channel of a peer, if it is bound.
    #[inline]
    pub(super) fn channel_of(&self, peer: SocketAddr, now: Now) -> Option<&Channel> {
        self.channel(*self.by_peer.get(&peer)?, now)
    }

    /// Whether datagrams may come from, and go to, this address.
    pub(super) fn is_permitted(&self, ip: IpAddr, now: Now) -> bool {
        self.permissions.get(&ip).is_some_and(|&until| until > now)
    }

    /// Whether so many permissions may be there, with those of `ips`.
    pub(super) fn has_room_for(&self, ips: &[IpAddr], max: u32, now: Now) -> bool {
        let live = self.permissions.iter().filter(|(_, until)| **until > now).count();
        let new = ips.iter().enumerate().filter(|&(at, ip)| {
            let is_first = ips.get(..at).is_some_and(|before| !before.contains(ip));
            is_first && !self.is_permitted(*ip, now)
        });
        max == 0 || live + new.count() <= max as usize
    }

    /// Datagrams may come and go until then.
    pub(super) fn permit(&mut self, ip: IpAddr, until: Now) {
        self.permissions.insert(ip, until);
        for channel in self.channels.iter_mut().filter(|channel| channel.peer.address().ip() == ip) {
            channel.permitted_until = until;
        }
    }

    /// Whether the number and the peer may be bound to each other (RFC 8656 §12.2); `max` zero is no bound.
    pub(super) fn check_bind(&self, number: u16, peer: SocketAddr, max: u32, now: Now) -> Result<(), BindError> {
        let same_number = self.channel(number, now).map(|channel| channel.peer.address());
        let same_peer = self.channel_of(peer, now).map(|channel| channel.number);
        match (same_number, same_peer) {
            (Some(bound), _) if bound != peer => Err(BindError::Conflict),
            (_, Some(bound)) if bound != number => Err(BindError::Conflict),
            (Some(_), _) => Ok(()),
            (None, _) => {
                let live = self.channels.iter().filter(|channel| channel.until > now).count();
                if max > 0 && live >= max as usize { Err(BindError::TooMany) } else { Ok(()) }
            }
        }
    }

    /// Binds what `check_bind` found good. Says also that the peer may send.
    pub(super) fn bind(&mut self, number: u16, peer: PermittedPeer, route: Route, until: Now, permitted_until: Now) {
        self.unbind(number);
        if let Some(stale) = self.by_peer.get(&peer.address()).copied() {
            self.unbind(stale);
        }
        let at = self.channels.partition_point(|channel| channel.number < number);
        self.channels.insert(at, Channel { number, peer, until, permitted_until, route });
        self.by_peer.insert(peer.address(), number);
        self.permit(peer.address().ip(), permitted_until);
    }

    fn unbind(&mut self, number: u16) {
        if let Ok(at) = self.channels.binary_search_by_key(&number, |channel| channel.number) {
            let channel = self.channels.remove(at);
            self.by_peer.remove(&channel.peer.address());
        }
    }

    /// Forgets what is over. Addresses whose permission ended go to `ended`.
    pub(super) fn purge(&mut self, now: Now, ended: &mut Vec<IpAddr>) {
        self.permissions.retain(|&ip, until| {
            let live = *until > now;
            if !live {
                ended.push(ip);
            }
            live
        });
        while let Some(over) = self.channels.iter().find(|channel| channel.until <= now).map(|channel| channel.number) {
            self.unbind(over);
        }
    }

    /// Forgets peers of one family.
    pub(super) fn drop_family(&mut self, v4: bool) {
        self.permissions.retain(|ip, _| ip.is_ipv4() != v4);
        self.channels.retain(|channel| channel.peer.address().is_ipv4() != v4);
        self.by_peer.retain(|peer, _| peer.is_ipv4() != v4);
    }

    /// When the first thing ends, itself included.
    pub(super) fn next_end(&self) -> Now {
        let permissions = self.permissions.values().copied();
        permissions.chain(self.channels.iter().map(|channel| channel.until)).fold(self.expires, Now::min)
    }

    /// The permissions that hold.
    pub(super) fn permissions(&self, now: Now) -> impl Iterator<Item = IpAddr> {
        self.permissions.iter().filter(move |(_, until)| **until > now).map(|(&ip, _)| ip)
    }

    /// The channels that are bound.
    pub(super) fn channels(&self, now: Now) -> impl Iterator<Item = &Channel> {
        self.channels.iter().filter(move |channel| channel.until > now)
    }

    /// Where a link to our own media begins.
    pub(super) fn link(&self, media: SocketAddr) -> Option<LinkIndex> {
        self.links.iter().find(|(address, _)| *address == media).map(|&(_, link)| link)
    }
}
