//! Peers of TURN that come by TCP (RFC 6062): between what TURN asks for and what the stream thread does, names are numbers.

use ringmain_shared::Now;
use slotmap::{Key, KeyData};

use super::Worker;
use crate::io::Transmit;
use crate::stream::{PeerNews, PeerOrder, StreamId, ToStream};
use crate::turn::{ConnectionKey, PeerRequest, RelayKey};

impl Worker {
    /// Something about peers, from the stream thread.
    pub(super) fn handle_turn_peer_news(&mut self, news: PeerNews, now: Now, out: &mut dyn Transmit) {
        let Some(turn) = self.turn.as_deref_mut() else { return };
        match news {
            PeerNews::Listening { request, address } => {
                turn.handle_listening(relay(request), address.is_some(), now, out);
            }
            PeerNews::Connected { request, peer } => {
                turn.handle_connected(ConnectionKey::from(KeyData::from_ffi(request)), peer, now, out);
            }
            PeerNews::Arrived { request, id, peer } => match turn.handle_arrived(relay(request), id, peer, now, out) {
                Ok(()) => self.outbox.streams.push(ToStream::Peer(PeerOrder::Admit { peer: id })),
                Err(reason) => self.count(reason),
            },
            PeerNews::Relayed { peer, to_peer, to_client } => turn.handle_relayed(peer, to_peer, to_client, now),
        }
        self.take_from_turn();
    }

    /// A connection has ended that may have been a peer's.
    pub(super) fn turn_peer_closed(&mut self, stream: StreamId) {
        if let Some(turn) = self.turn.as_deref_mut() {
            turn.handle_peer_closed(stream);
            self.take_from_turn();
        }
    }

    /// What TURN wants of the stream thread.
    pub(super) fn take_peer_requests(&mut self) {
        let Some(turn) = self.turn.as_deref_mut() else { return };
        let streams = &self.turn_streams;
        let orders = turn.peer_requests().drain(..).map(|request| {
            match request {
                PeerRequest::Listen { relay, address } => PeerOrder::Listen { request: number(relay), address },
                PeerRequest::StopListening { relay } => PeerOrder::StopListening { request: number(relay) },
                PeerRequest::Connect { connection, local, peer, relayed } => {
                    PeerOrder::Connect { request: number(connection), local, peer, relayed }
                }
                PeerRequest::StopConnecting { connection } => PeerOrder::StopConnecting { request: number(connection) },
                PeerRequest::Join { client, peer, answer } => match streams.stream_at(client) {
                    Some(client) => PeerOrder::Join { client, peer, answer },
                    // It has gone meanwhile.
                    None => PeerOrder::Cut { peer },
                },
                PeerRequest::Grant { peer, bytes } => PeerOrder::Grant { peer, bytes },
                PeerRequest::Cut { peer } => PeerOrder::Cut { peer },
            }
        });
        self.outbox.streams.extend(orders.map(ToStream::Peer));
    }
}

fn number(key: impl Key) -> u64 {
    key.data().as_ffi()
}

fn relay(request: u64) -> RelayKey {
    RelayKey::from(KeyData::from_ffi(request))
}
