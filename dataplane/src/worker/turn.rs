//! TURN in a worker: which sockets it has, and how its packets and the media's meet.
//!
//! A client's datagram for our own media goes on as if it had come by a path of its own, a link; what the media side sends to that
//! path, the transmit batch wraps and sends to the client. So nothing on the media side knows of TURN.

use std::sync::Arc;

use ringmain_shared::event::Event;
use ringmain_shared::turn::{TurnCommand, TurnEvent, TurnTransport};
use ringmain_shared::{DropReason, Now};

use super::relay::RelayItem;
use super::{FixedSockets, Worker};
use crate::handshake::Datagram;
use crate::io::{Path, SocketIndex, Transmit};
use crate::packet::stun::{Class, Message, attribute, method};
use crate::stream::ToStream;
use crate::turn::{Client, Elsewhere, LinkChange, RelayKey, Turn, TurnItem};

/// What came by a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Media, or a connection that carries media.
    Media,
    /// Messages of TURN's clients.
    TurnClients,
    /// Datagrams of TURN's peers.
    TurnPeers,
}

impl Worker {
    /// What comes by this socket: the fixed ones are media's, then TURN's; those that were opened since are relays.
    #[inline]
    pub(super) fn role(&self, socket: SocketIndex) -> Role {
        let sockets = self.settings.sockets;
        if socket.0 < sockets.media || socket.is_virtual() {
            Role::Media
        } else if socket.0 < sockets.media + sockets.turn {
            Role::TurnClients
        } else {
            Role::TurnPeers
        }
    }

    /// Whether clients of TURN come by this socket, which is media's.
    pub(super) fn takes_turn(&self, socket: SocketIndex) -> bool {
        self.settings.sockets.turn_on_media && socket.0 < self.settings.sockets.media
    }

    /// Whether a STUN message that came by a media socket is TURN's: any method but Binding is, and so is a Binding request that names
    /// no user, as no ICE check does (RFC 8445 §7.2.2). Responses and indications of Binding belong to ICE.
    pub(super) fn is_for_turn(&self, socket: SocketIndex, datagram: &[u8]) -> bool {
        self.takes_turn(socket)
            && Message::parse(datagram).is_ok_and(|message| {
                message.method() != method::BINDING
                    || message.class() == Class::Request && message.attribute(attribute::USERNAME).is_none()
            })
    }

    /// Whether a long datagram may be a Binding request with PADDING (RFC 5780 §7.6): nothing else comes in fragments.
    #[cold]
    pub(super) fn is_discovery(&self, socket: SocketIndex, datagram: &[u8]) -> bool {
        self.role(socket) == Role::TurnClients && datagram.starts_with(&BINDING_REQUEST)
    }

    /// A datagram of a TURN client's.
    pub(super) fn handle_turn_client(
        &mut self,
        path: Path,
        datagram: &mut [u8],
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        let turn = self.turn.as_deref_mut().ok_or(DropReason::UnknownProtocol)?;
        let client = Client { path, transport: TurnTransport::Udp };
        if let Some(Elsewhere { owner, expected }) = turn.elsewhere(client, datagram, now)? {
            let bytes = Datagram::try_from(&*datagram).map_err(|_| DropReason::RxTruncated)?;
            let item = TurnItem::Client { by: self.settings.index, expected, path, bytes };
            self.outbox.relays.push((owner, RelayItem::Turn(item)));
            return Ok(());
        }
        self.handle_turn_message(client, datagram, now, out)
    }

    pub(super) fn handle_turn_message(
        &mut self,
        client: Client,
        datagram: &mut [u8],
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        let turn = self.turn.as_deref_mut().ok_or(DropReason::UnknownProtocol)?;
        let result = turn.handle_client(client, datagram, now, out);
        self.follow_links(now, out);
        match result? {
            None => Ok(()),
            Some(media) => {
                let payload = datagram.get_mut(media.payload).ok_or(DropReason::TurnMalformed)?;
                let Some((worker, link)) = media.far else { return self.handle_media(media.path, payload, now, out) };
                let bytes = Datagram::try_from(&*payload).map_err(|_| DropReason::RxTruncated)?;
                self.outbox.relays.push((worker, RelayItem::Turn(TurnItem::ToMedia { link, bytes })));
                Ok(())
            }
        }
    }

    /// What the TURN server of another worker has for ours.
    pub(super) fn handle_turn_item(
        &mut self,
        item: TurnItem,
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        let turn = self.turn.as_deref_mut().ok_or(DropReason::UnknownProtocol)?;
        match item {
            TurnItem::ToMedia { link, mut bytes } => {
                let path = turn.guest_path(link)?;
                self.handle_media(path, &mut bytes, now, out)?;
                self.bring(now, out);
            }
            TurnItem::NeedLink(link) => {
                turn.handle_need_link(link, now);
                self.follow_links(now, out);
            }
            TurnItem::ToClient { link, bytes } => turn.handle_to_client(link, &bytes, out)?,
            TurnItem::ToRelayed { to, from, bytes } => turn.handle_hairpin(to, from, &bytes, now, out)?,
            TurnItem::Client { by, expected, path, mut bytes } => {
                let client = Client { path, transport: TurnTransport::Udp };
                let result = self.handle_turn_message(client, &mut bytes, now, out);
                if let Some(turn) = &mut self.turn {
                    turn.came_by(by, expected, client);
                }
                return result;
            }
            TurnItem::Sent { link, datagrams, bytes } => turn.handle_sent(link, datagrams, bytes),
            TurnItem::Moved { owner, path, here } => turn.handle_moved(owner, path, here),
            TurnItem::SetLink { link, relayed, user, prefix } => {
                turn.handle_set_link(link, relayed, user, prefix);
                self.follow_links(now, out);
            }
            TurnItem::CloseLink(link) => {
                turn.handle_close_link(link);
                self.follow_links(now, out);
            }
        }
        Ok(())
    }

    /// A datagram that no socket sends, on its way on: to a client of another worker's, or to the stream thread.
    pub fn carry(&mut self, path: Path, bytes: &[u8]) {
        match self.turn.as_ref().and_then(|turn| turn.guest_of(path)) {
            Some(link) => match Datagram::try_from(bytes) {
                Ok(bytes) => {
                    let item = TurnItem::ToClient { link, bytes };
                    self.outbox.relays.push((link.home(), RelayItem::Turn(item)));
                }
                Err(_) => self.count(DropReason::RelayFull),
            },
            None => {
                let item = self.to_stream(path, bytes);
                self.outbox.streams.push(item);
            }
        }
    }

    /// A datagram of a peer's.
    pub(super) fn handle_turn_peer(
        &mut self,
        path: Path,
        datagram: &[u8],
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        let turn = self.turn.as_deref_mut().ok_or(DropReason::TurnNoRelay)?;
        turn.handle_peer(path.socket, path.remote, datagram, now, out)
    }

    /// What became of a [`SocketRequest::Open`](crate::turn::SocketRequest::Open).
    pub fn handle_relay_socket(
        &mut self,
        relay: RelayKey,
        socket: Option<SocketIndex>,
        now: Now,
        out: &mut dyn Transmit,
    ) {
        if let Some(turn) = &mut self.turn {
            turn.handle_socket(relay, socket, now, out);
        }
        self.take_from_turn();
    }

    pub(super) fn handle_turn_command(&mut self, command: TurnCommand, now: Now) {
        match (&mut self.turn, command) {
            (Some(turn), command) => turn.handle_command(command, now),
            (none, TurnCommand::Configure(spec)) => {
                let (index, start) = (self.settings.index, self.settings.unix_nanos_at_start);
                let mut turn = Turn::new(Arc::clone(&self.ledger), index, *spec, start, self.random.bytes());
                let FixedSockets { media, turn: listeners, .. } = self.settings.sockets;
                turn.share_sockets(media..media + listeners);
                *none = Some(Box::new(turn));
            }
            (None, TurnCommand::Snapshot { request }) => {
                let nothing = TurnEvent::Snapshot { request, worker: self.settings.index, allocations: Vec::new() };
                self.outbox.events.push(Event::Turn(Box::new(nothing)));
            }
            // What is to be added to, or taken from, a server that there is not.
            (None, _) => {}
        }
    }

    /// Time goes on for what is sent through links. At the beginning of each turn, and of what happens before it.
    #[inline]
    pub(super) fn begin_links(&self, now: Now, out: &mut dyn Transmit) {
        if self.turn.is_some() {
            out.batch().links().begin_turn(now);
        }
    }

    /// What TURN has to do by now, and what it has for others. At the end of each turn.
    pub(super) fn run_turn(&mut self, now: Now, out: &mut dyn Transmit) {
        let Some(turn) = self.turn.as_deref_mut() else { return };
        if turn.next_deadline() <= now {
            turn.handle_timeout(now);
        }
        out.batch().links().drain_traffic(|link, datagrams, bytes| turn.count_link(link, datagrams, bytes));
        self.follow_links(now, out);
        self.take_from_turn();
    }

    /// Tells the way out, and the transport that a link led to, what became of it; and other workers, if it is theirs.
    fn follow_links(&mut self, now: Now, out: &mut dyn Transmit) {
        let Some(turn) = self.turn.as_deref_mut() else { return };
        let items = turn.items().drain(..).map(|(to, item)| (to, RelayItem::Turn(item)));
        self.outbox.relays.extend(items);
        for change in turn.link_changes().drain(..) {
            match change {
                LinkChange::Limit(link, budgets) => out.batch().links().limit(link, budgets),
                LinkChange::Set(path, prefix) => out.batch().links().set(path, prefix),
                LinkChange::Closed(path) => {
                    out.batch().links().set(path, None);
                    let holder = self.names.paths.remove(&path);
                    if let Some(transport) = holder.and_then(|key| self.transports.get_mut(key)) {
                        transport.ice.forget(path, now);
                    }
                }
            }
        }
    }

    pub(super) fn take_from_turn(&mut self) {
        let Some(turn) = self.turn.as_deref_mut() else { return };
        self.outbox.sockets.append(turn.socket_requests());
        self.take_peer_requests();
        let Some(turn) = self.turn.as_deref_mut() else { return };
        self.outbox.events.extend(turn.events().drain(..).map(|event| Event::Turn(Box::new(event))));
        let over = turn.disconnects().drain(..).filter_map(|path| self.turn_streams.remove(path));
        self.outbox.streams.extend(over.map(|id| ToStream::Close { id }));
    }
}

/// The first two bytes of a Binding request (RFC 8489 §5).
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
