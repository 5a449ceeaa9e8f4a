//! TURN credentials of peers: each connection gets at most one, which ends with it. Asking again makes it last longer.

use ringmain_shared::Now;
use ringmain_shared::turn::{TurnBinding, TurnCommand};
use serde_json::{Value, json};

use super::{Command, ConnectionId, Rooms};
use crate::turn::{Handed, Offer};

impl Rooms {
    /// What `iceServers` answers. It may be asked before `join`, because the offer in there wants its candidates.
    pub(super) fn ice_servers(&mut self, connection: ConnectionId, now: Now) -> Value {
        let Some(offer) = self.settings.turn.clone() else { return json!({"iceServers": []}) };
        let fresh = Handed::new(&self.chance.name(NAME_SIZE), self.chance.name(PASSWORD_SIZE));
        let Some(entry) = self.connections.get_mut(&connection) else { return json!({"iceServers": []}) };
        let joined = entry.peer.is_some();
        let handed = entry.turn.get_or_insert(fresh).clone();
        self.allow_turn(&offer, connection, &handed, now);
        handed.to_value(&offer, joined)
    }

    /// A connection that holds a credential has joined: from now on it is its peer's.
    pub(super) fn bind_turn(&mut self, connection: ConnectionId, now: Now) {
        let handed = self.connections.get(&connection).and_then(|entry| entry.turn.clone());
        if let (Some(offer), Some(handed)) = (self.settings.turn.clone(), handed) {
            self.allow_turn(&offer, connection, &handed, now);
        }
    }

    /// A credential has had its time: whatever was allocated with it ends.
    pub(super) fn revoke_turn(&mut self, handed: Option<Handed>) {
        if let Some(handed) = handed {
            self.command(Command::Turn(TurnCommand::Revoke { username: handed.username().to_owned() }));
        }
    }

    fn allow_turn(&mut self, offer: &Offer, connection: ConnectionId, handed: &Handed, now: Now) {
        let peer = self.connections.get(&connection).and_then(|entry| entry.peer);
        let room = peer.and_then(|peer| self.peers.get(&peer)).map(|peer| peer.room);
        let bound = room.zip(peer).map(|(room, peer)| TurnBinding { room, peer });
        self.command(Command::Turn(TurnCommand::Add(handed.in_shared(offer, bound, now))));
    }
}

/// Letters of a username behind its prefix, 5 bits each.
const NAME_SIZE: usize = 16;
/// Letters of a password.
const PASSWORD_SIZE: usize = 32;
