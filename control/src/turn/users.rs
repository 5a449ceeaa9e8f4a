//! Users: their keys, from the configuration and its file; and how much each has relayed, for `/metrics`.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use ringmain_dataplane::turn::derive_keys;
use ringmain_shared::id::TurnAllocationId;
use ringmain_shared::turn::{TurnAllocation, TurnCredential, TurnEvent, TurnKeys, TurnTraffic};
use zeroize::Zeroizing;

use crate::config::{Config, Turn, User, user_of};

/// Every user that does not expire, and whether one of them is known by an MD5 key only.
pub(super) fn credentials(turn: &Turn) -> anyhow::Result<(Vec<TurnCredential>, bool)> {
    let mut users = turn.users.clone();
    if let Some(file) = &turn.users_file {
        let text = std::fs::read_to_string(file).map(Zeroizing::new);
        let text = text.with_context(|| format!("turn.users_file: cannot read {}", file.display()))?;
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let user = user_of(line).with_context(|| {
                format!("turn.users_file: {}, line {}: a user is written as NAME:PASSWORD", file.display(), index + 1)
            })?;
            users.push(user);
        }
    }
    let mut names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        anyhow::bail!("turn.users: {:?} is named twice", pair[0]);
    }
    let keys_only = users.iter().any(|user| md5_key(&user.password.0).is_some());
    Ok((users.iter().map(|user| credential(user, &turn.realm)).collect(), keys_only))
}

fn credential(user: &User, realm: &str) -> TurnCredential {
    let mut keys = derive_keys(&user.name, realm, &user.password.0);
    if let Some(md5) = md5_key(&user.password.0) {
        keys = TurnKeys { md5, sha256: keys.sha256 };
    }
    TurnCredential { username: user.name.clone(), keys, user: user.name.clone(), bound: None, expires: None }
}

/// `0x` and 32 hexadecimal digits are the MD5 key itself, as `turnadmin -k` prints it.
fn md5_key(password: &str) -> Option<[u8; 16]> {
    let digits = password.strip_prefix("0x").filter(|digits| digits.len() == 32 && digits.is_ascii())?;
    let mut key = [0; 16];
    for (byte, at) in key.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(key)
}

/// Files with secrets that others may read. `file` is that of the configuration.
pub fn warnings(config: &Config, file: Option<&str>) -> Vec<String> {
    let turn = &config.turn;
    let has_secrets = !turn.users.is_empty() || !turn.shared_secrets.is_empty();
    let settings = file.filter(|_| has_secrets).map(Path::new);
    let open_to_others =
        |path: &&Path| path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0);
    let files = settings.into_iter().chain(turn.users_file.as_deref()).chain(turn.oauth_keys.as_deref());
    let files = files.filter(open_to_others);
    files
        .map(|file| format!("{0} holds secrets, and others than its owner may read it: chmod 600 {0}", file.display()))
        .collect()
}

/// What has been relayed, by user. There are as many rows as there may be, and one for all further users.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Users {
    rows: BTreeMap<String, Usage>,
    live: BTreeMap<TurnAllocationId, (String, TurnTraffic)>,
}

/// What one user has, and has had relayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Live allocations.
    pub allocations: u64,
    /// Payload from its clients to peers, bytes; of live allocations, as they were last told.
    pub to_peers_bytes: u64,
    /// And back.
    pub to_clients_bytes: u64,
}

impl Users {
    /// Takes in what happened.
    pub fn handle(&mut self, event: &TurnEvent) {
        match event {
            TurnEvent::Opened(allocation) | TurnEvent::Refreshed(allocation) => self.note(allocation),
            TurnEvent::Ended { allocation, .. } => {
                self.note(allocation);
                if let Some((name, _)) = self.live.remove(&allocation.id) {
                    let row = self.rows.entry(name).or_default();
                    row.allocations = row.allocations.saturating_sub(1);
                }
            }
            TurnEvent::Snapshot { allocations, .. } => allocations.iter().for_each(|allocation| self.note(allocation)),
        }
    }

    fn note(&mut self, allocation: &TurnAllocation) {
        let name = match self.live.get(&allocation.id) {
            Some((name, _)) => name.clone(),
            None => self.row_of(allocation),
        };
        let row = self.rows.entry(name.clone()).or_default();
        let new = allocation.traffic;
        let old = self.live.insert(allocation.id, (name, new)).map(|(_, traffic)| traffic);
        row.allocations += u64::from(old.is_none());
        let old = old.unwrap_or_default();
        row.to_peers_bytes += new.to_peers_bytes.saturating_sub(old.to_peers_bytes);
        row.to_clients_bytes += new.to_clients_bytes.saturating_sub(old.to_clients_bytes);
    }

    /// Participants come and go; together they are one row.
    fn row_of(&self, allocation: &TurnAllocation) -> String {
        if allocation.bound.is_some() || allocation.user.starts_with(super::credential::PEER_PREFIX) {
            PEERS.into()
        } else if self.rows.len() < ROWS_MAX || self.rows.contains_key(&allocation.user) {
            allocation.user.clone()
        } else {
            OTHERS.into()
        }
    }

    /// By name.
    pub fn rows(&self) -> &BTreeMap<String, Usage> {
        &self.rows
    }
}

/// Users that have a row of their own.
const ROWS_MAX: usize = 100;
const PEERS: &str = "(peers of rooms)";
const OTHERS: &str = "(others)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use ringmain_shared::turn::{RelayProtocol, TurnEnd, TurnTransport};

    fn allocation(id: u64, user: &str, bytes: u64) -> TurnAllocation {
        TurnAllocation {
            id: TurnAllocationId(id),
            user: user.into(),
            bound: None,
            client: "192.0.2.1:1000".parse().expect("an address"),
            transport: TurnTransport::Udp,
            protocol: RelayProtocol::Udp,
            relayed: Vec::new(),
            lifetime_s: 600,
            permissions: 0,
            channels: 0,
            sockets: 0,
            connections: 0,
            traffic: TurnTraffic { to_peers_bytes: bytes, ..TurnTraffic::default() },
        }
    }

    #[test]
    fn bytes_count_once_however_often_they_are_told() {
        let mut users = Users::default();
        users.handle(&TurnEvent::Opened(allocation(1, "a", 0)));
        users.handle(&TurnEvent::Refreshed(allocation(1, "a", 100)));
        users.handle(&TurnEvent::Refreshed(allocation(1, "a", 100)));
        let ended = TurnEvent::Ended { allocation: allocation(1, "a", 150), reason: TurnEnd::Released };
        users.handle(&ended);
        let row = users.rows()["a"];
        assert_eq!((row.allocations, row.to_peers_bytes), (0, 150));
    }

    #[test]
    fn a_million_users_are_a_hundred_rows_and_one() {
        let mut users = Users::default();
        for id in 0..1000 {
            users.handle(&TurnEvent::Opened(allocation(id, &format!("user{id}"), 1)));
            let ended =
                TurnEvent::Ended { allocation: allocation(id, &format!("user{id}"), 1), reason: TurnEnd::Expired };
            users.handle(&ended);
        }
        assert_eq!((users.rows().len(), users.live.len()), (ROWS_MAX + 1, 0));
        assert_eq!(users.rows()[OTHERS].to_peers_bytes, 900);
    }

    #[test]
    fn a_key_of_turnadmin_is_taken_as_it_is() {
        let turn = Turn {
            realm: "r".into(),
            users: vec![User { name: "n".into(), password: Secret("0xbc807ee29df3c9ffa736523fb2c4e8ee".into()) }],
            ..Turn::default()
        };
        let (users, keys_only) = credentials(&turn).expect("sound");
        assert!(keys_only);
        assert_eq!(users[0].keys.md5[..4], [0xbc, 0x80, 0x7e, 0xe2]);
        assert_eq!(md5_key("0xbc"), None);
        assert_eq!(md5_key("0xzz807ee29df3c9ffa736523fb2c4e8ee"), None);
    }

    #[test]
    fn a_file_of_users_names_the_line_that_is_wrong() {
        let file = std::env::temp_dir().join(format!("ringmain-users-{}", std::process::id()));
        std::fs::write(&file, "# people\na:1\n\nnobody\n").expect("a file");
        let turn = Turn { users_file: Some(file.clone()), ..Turn::default() };
        let told = format!("{:#}", credentials(&turn).expect_err("a line without a password"));
        assert!(told.contains("line 4"), "{told}");
        std::fs::write(&file, "a:1\nb:2:3\n").expect("a file");
        assert_eq!(credentials(&turn).expect("sound").0.len(), 2);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("ours");
        let config = Config { turn, ..Config::default() };
        assert_eq!(warnings(&config, None).len(), 1);
        let turn = Turn { oauth_keys: Some(file.clone()), ..Turn::default() };
        assert_eq!(warnings(&Config { turn, ..Config::default() }, None).len(), 1, "keys of tokens are no less secret");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("ours");
        assert!(warnings(&config, None).is_empty());
        std::fs::remove_file(&file).expect("ours");
    }
}
