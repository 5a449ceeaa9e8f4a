//! What conversations share: addresses, a ledger of what went where, and a peer that speaks ICE.

use std::collections::HashMap;

use ringmain_dataplane::io::{Path, SocketIndex};
use ringmain_dataplane::packet::stun::{
    BindingRequest, Class, IntegrityKey, Message, Role, TransactionId, write_binding_request, write_binding_success,
};
use ringmain_shared::transport::IceCredentials;

/// Addresses that a conversation uses: more than one transport may prove.
pub(crate) const PATHS: u8 = 12;

/// One of [`PATHS`] addresses, some of them IPv6, on two sockets.
pub(crate) fn path(number: u8) -> Path {
    let number = number % PATHS;
    let remote = match number % 4 {
        3 => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)], 5000).into(),
        _ => ([198, 51, 100, number], 5000).into(),
    };
    Path { socket: SocketIndex(u16::from(number % 2)), remote }
}

/// Credentials by number and side.
pub(crate) fn credentials(name: &str, number: u8) -> IceCredentials {
    IceCredentials { ufrag: format!("{name}{number:02}"), pwd: format!("password-of-{name}-{number:02}-and-more") }
}

/// Bytes by address, and who has proved to be there.
#[derive(Default)]
pub(crate) struct Ledger {
    entries: HashMap<Path, Entry>,
}

#[derive(Default)]
struct Entry {
    received: usize,
    sent: usize,
    proved: bool,
}

impl Ledger {
    /// Came from there.
    pub(crate) fn received(&mut self, path: Path, size: usize) {
        self.entries.entry(path).or_default().received += size;
    }

    /// The owner of the address has answered a check that went there.
    pub(crate) fn prove(&mut self, path: Path) {
        self.entries.entry(path).or_default().proved = true;
    }

    pub(crate) fn is_proved(&self, path: Path) -> bool {
        self.entries.get(&path).is_some_and(|entry| entry.proved)
    }

    /// Goes there: to an address that nobody has proved, three times as much as came from there at most.
    pub(crate) fn sent(&mut self, path: Path, size: usize) {
        let entry = self.entries.entry(path).or_default();
        entry.sent += size;
        let allowed = entry.proved || entry.sent <= 3 * entry.received;
        assert!(allowed, "{} bytes to {path:?}, unproved, for {} bytes", entry.sent, entry.received);
    }
}

/// A peer's check to us.
pub(crate) fn check(ours: &IceCredentials, theirs: &IceCredentials, id: u64, nominate: bool) -> Vec<u8> {
    let mut transaction_id = TransactionId::default();
    transaction_id.0[4..].copy_from_slice(&id.to_be_bytes());
    let request = BindingRequest {
        transaction_id,
        remote_ufrag: &ours.ufrag,
        local_ufrag: &theirs.ufrag,
        priority: 1,
        role: Role::Controlling(7, nominate),
    };
    let mut out = vec![0; 700];
    let key = IntegrityKey::new(ours.pwd.as_bytes());
    let len = write_binding_request(&mut out, &request, &key).expect("a check is short");
    out.truncate(len);
    out
}

/// What the owner of an address says to a check of ours; `None` when it is none.
pub(crate) fn response(check: &[u8], at: Path, theirs: &IceCredentials) -> Option<Vec<u8>> {
    let message = Message::parse(check).expect("what we send can be read");
    if message.class() != Class::Request {
        return None;
    }
    let mut out = vec![0; 200];
    let key = IntegrityKey::new(theirs.pwd.as_bytes());
    let len = write_binding_success(&mut out, message.transaction_id(), at.remote, &key).expect("short");
    out.truncate(len);
    Some(out)
}
