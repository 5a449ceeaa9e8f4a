//! Peers of TURN that come by TCP (RFC 6062): between what TURN asks for and what the stream thread does, names are numbers.

use ringmain_shared::{DropReason, Now};
use slotmap::{Key, KeyData};

use super::Worker;
use crate::io::Transmit;
use crate::stream::{FromStream, ToStream};
use crate::turn::{ConnectionKey, PeerRequest, RelayKey};

impl Worker {
    /// Something about peers, from the stream thread.
    pub(super) fn handle_turn_peers(&mut self, item: FromStream, now: Now, out: &mut dyn Transmit) {
        let Some(turn) = self.turn.as_deref_mut() else { return };
        let result = match item {
            FromStream::Listening { request, address } => {
                turn.handle_listening(relay(request), address.is_some(), now, out);
                Ok(())
            }
            FromStream::Connected { request, peer } => {
                turn.handle_connected(ConnectionKey::from(KeyData::from_ffi(request)), peer, now, out);
                Ok(())
            }
            FromStream::Arrived { request, id, peer } => {
                let admitted = turn.handle_arrived(relay(request), id, peer, now, out);
                if admitted.is_ok() {
                    self.outbox.streams.push(ToStream::Admit { peer: id });
                }
                admitted
            }
            FromStream::Relayed { peer, to_peer, to_client } => {
                turn.handle_relayed(peer, to_peer, to_client, now);
                Ok(())
            }
            FromStream::Closed { id } => {
                turn.handle_peer_closed(id);
                Ok(())
            }
            FromStream::Opened { .. }
            | FromStream::Message { .. }
            | FromStream::Datagram { .. }
            | FromStream::PathClosed { .. } => Err(DropReason::TurnMalformed),
        };
        self.take_from_turn();
        if let Err(reason) = result {
            self.count(reason);
        }
    }

    /// What TURN wants of the stream thread.
    pub(super) fn take_peer_requests(&mut self) {
        let Some(turn) = self.turn.as_deref_mut() else { return };
        let streams = &self.turn_streams;
        let items = turn.peer_requests().drain(..).map(|request| {
            match request {
                PeerRequest::Listen { relay, address } => ToStream::Listen { request: number(relay), address },
                PeerRequest::StopListening { relay } => ToStream::StopListening { request: number(relay) },
                PeerRequest::Connect { connection, local, peer, relayed } => {
                    ToStream::Connect { request: number(connection), local, peer, relayed }
                }
                PeerRequest::StopConnecting { connection } => ToStream::StopConnecting { request: number(connection) },
                PeerRequest::Join { client, peer, answer } => match streams.stream_at(client) {
                    Some(client) => ToStream::Join { client, peer, answer },
                    // It has gone meanwhile.
                    None => ToStream::Cut { peer },
                },
                PeerRequest::Grant { peer, bytes } => ToStream::Grant { peer, bytes },
                PeerRequest::Cut { peer } => ToStream::Cut { peer },
            }
        });
        self.outbox.streams.extend(items);
    }
}

fn number(key: impl Key) -> u64 {
    key.data().as_ffi()
}

fn relay(request: u64) -> RelayKey {
    RelayKey::from(KeyData::from_ffi(request))
}
