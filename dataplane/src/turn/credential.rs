//! Who may allocate: users that control named, and time-limited ones that prove themselves by a shared secret. Those who bring a token
//! are found by [`token`](super::token).
//!
//! Owns keys and never a password, and the users with allocations here: a user may have many credentials. Looking up somebody unknown
//! leaves nothing behind.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use foldhash::fast::RandomState;
use md5::{Digest, Md5};
use ringmain_shared::Now;
use ringmain_shared::turn::{TurnBinding, TurnCredential, TurnKeys, TurnSecret};
use slotmap::SlotMap;
use zeroize::Zeroize;

use super::base64;
use super::token::MacKey;
use crate::buf::Bandwidth;

slotmap::new_key_type! {
    /// A user's account.
    pub(super) struct AccountKey;
}

/// The keys of `password` for `username` in `realm` (RFC 8489 §18.5.1). All three as the OpaqueString profile leaves them, which is
/// as they are for ASCII.
pub fn derive_keys(username: &str, realm: &str, password: &str) -> TurnKeys {
    let parts = [username, ":", realm, ":", password];
    let mut md5 = Md5::new();
    let mut sha256 = digest::Context::new(&digest::SHA256);
    for part in parts {
        md5.update(part.as_bytes());
        sha256.update(part.as_bytes());
    }
    let sha256 = sha256.finish().as_ref().first_chunk().copied().unwrap_or_default();
    TurnKeys { md5: md5.finalize().into(), sha256 }
}

/// The password of a time-limited username: base64 of HMAC-SHA1, as coturn's `use-auth-secret` has it.
pub fn timed_password(username: &str, secret: &TurnSecret) -> String {
    password_of(username, &hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret.0))
}

fn password_of(username: &str, secret: &hmac::Key) -> String {
    base64::encode(hmac::sign(secret, username.as_bytes()).as_ref())
}

/// The moment up to which a time-limited username holds, seconds since 1970, and whose it is: `expiry:user`, `user:expiry`, `expiry`.
fn read_timed(username: &str) -> Option<(u64, &str)> {
    let (first, second) = username.split_once(':').unwrap_or((username, ""));
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    match (number(first), number(second)) {
        (Some(expiry), _) => Some((expiry, second)),
        (None, Some(expiry)) => Some((expiry, first)),
        (None, None) => None,
    }
}

/// Somebody who may be who the username says; the keys will tell.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) username: String,
    /// Whose quotas are used up: nobody else has this name.
    pub(super) user: String,
    /// What events call that user.
    pub(super) shown: String,
    pub(super) bound: Option<TurnBinding>,
    pub(super) expires: Option<Expiry>,
    /// For those who come by a token.
    pub(super) token: Option<HeldToken>,
    /// One for each secret that it may have been made with.
    pub(super) keys: Vec<Keys>,
}

impl Claim {
    /// RFC 7635 §9: no longer than the token.
    pub(super) fn limit(&self, lifetime: Duration, now: Now) -> Duration {
        self.token.map_or(lifetime, |token| lifetime.min(token.ends.since(now)))
    }
}

/// When something is over, seconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expiry {
    /// By the clock of the start, as control has it.
    OfControl(u64),
    /// By the wall clock, which may be set right meanwhile.
    OfOthers(u64),
}

/// What is remembered of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HeldToken {
    /// When it was made, since 1970.
    pub(super) made: Duration,
    /// It ends, and with it what is allocated by it.
    pub(super) ends: Now,
}

/// What proves a claim.
#[derive(Clone, Debug)]
pub(super) enum Keys {
    Password(TurnKeys),
    Token(MacKey),
}

impl Keys {
    /// Whether they are those of one and the same token.
    pub(super) fn are_of_one_token(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Token(one), Self::Token(other)) if one == other)
    }
}

/// Credentials.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    realm: String,
    named: HashMap<String, TurnCredential, RandomState>,
    /// Which of them are the configuration's.
    configured: Vec<String>,
    /// Usernames by USERHASH (RFC 8489 §14.4).
    hashes: HashMap<[u8; 32], String, RandomState>,
    secrets: Vec<hmac::Key>,
}

impl Credentials {
    /// Those of a configuration instead of those of the one before. Credentials that were added since remain. Hands out the usernames
    /// that are no more, or have other keys.
    pub(super) fn configure(
        &mut self,
        realm: &str,
        users: &[TurnCredential],
        secrets: &[TurnSecret],
    ) -> HashSet<String, RandomState> {
        let before: Vec<TurnCredential> =
            self.configured.iter().filter_map(|username| self.named.get(username).cloned()).collect();
        let keyed = |secret: &TurnSecret| hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret.0);
        self.secrets = secrets.iter().map(keyed).collect();
        self.realm = realm.into();
        for username in std::mem::take(&mut self.configured) {
            self.remove(&username);
        }
        let added: Vec<TurnCredential> = self.named.values().cloned().collect();
        self.hashes.clear();
        added.into_iter().chain(users.iter().cloned()).for_each(|credential| self.add(credential));
        self.configured = users.iter().map(|user| user.username.clone()).collect();
        let is_gone =
            |old: &TurnCredential| self.named.get(&old.username).is_none_or(|present| present.keys != old.keys);
        before.into_iter().filter(is_gone).map(|old| old.username).collect()
    }

    /// One more, or a new version of one.
    pub(super) fn add(&mut self, credential: TurnCredential) {
        self.hashes.insert(self.hash(&credential.username), credential.username.clone());
        self.named.insert(credential.username.clone(), credential);
    }

    /// One less.
    pub(super) fn remove(&mut self, username: &str) {
        self.hashes.remove(&self.hash(username));
        self.named.remove(username);
    }

    /// Those that may allocate no more.
    pub(super) fn forget_expired(&mut self, unix_seconds: u64) {
        let is_over = |credential: &&TurnCredential| credential.expires.is_some_and(|expires| expires <= unix_seconds);
        let over: Vec<String> =
            self.named.values().filter(is_over).map(|credential| credential.username.clone()).collect();
        over.iter().for_each(|username| self.remove(username));
    }

    fn hash(&self, username: &str) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        [username, ":", &self.realm].into_iter().for_each(|part| context.update(part.as_bytes()));
        context.finish().as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// The username of a USERHASH. One of a time-limited user cannot be known by its hash.
    pub(super) fn unhash(&self, hash: &[u8]) -> Option<&str> {
        self.hashes.get(hash).map(String::as_str)
    }

    /// What a username claims to be.
    pub(super) fn find(&self, username: &str) -> Option<Claim> {
        if let Some(named) = self.named.get(username) {
            return Some(Claim {
                username: username.into(),
                user: named.user.clone(),
                shown: named.user.clone(),
                bound: named.bound,
                expires: named.expires.map(Expiry::OfControl),
                token: None,
                keys: vec![Keys::Password(named.keys.clone())],
            });
        }
        let (expires, user) = read_timed(username).filter(|_| !self.secrets.is_empty())?;
        let keys = self.secrets.iter().map(|secret| {
            let mut password = password_of(username, secret);
            let keys = derive_keys(username, &self.realm, &password);
            password.zeroize();
            Keys::Password(keys)
        });
        let user = if user.is_empty() { username } else { user };
        Some(Claim {
            username: username.into(),
            user: user.into(),
            shown: user.into(),
            bound: None,
            expires: Some(Expiry::OfOthers(expires)),
            token: None,
            keys: keys.collect(),
        })
    }
}

/// Users who have allocations here.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    by_user: HashMap<String, AccountKey, RandomState>,
    accounts: SlotMap<AccountKey, Account>,
}

/// One user's.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) user: String,
    pub(super) shown: String,
    /// Allocations on this worker.
    held: u32,
    pub(super) bandwidth: Bandwidth,
}

impl Accounts {
    /// One more allocation of this user.
    pub(super) fn hold(&mut self, user: &str, shown: &str, bandwidth: impl FnOnce() -> Bandwidth) -> AccountKey {
        let accounts = &mut self.accounts;
        let new =
            || accounts.insert(Account { user: user.into(), shown: shown.into(), held: 0, bandwidth: bandwidth() });
        let key = *self.by_user.entry(user.into()).or_insert_with(new);
        if let Some(account) = accounts.get_mut(key) {
            account.held += 1;
        }
        key
    }

    /// One less; the account goes with the last. What the user has used up is remembered in the ledger.
    pub(super) fn release(&mut self, key: AccountKey) {
        let Some(account) = self.accounts.get_mut(key) else { return };
        account.held = account.held.saturating_sub(1);
        if account.held == 0 {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: AccountKey) {
        if let Some(account) = self.accounts.remove(key) {
            self.by_user.remove(&account.user);
        }
    }

    pub(super) fn get(&self, key: AccountKey) -> Option<&Account> {
        self.accounts.get(key)
    }

    /// New rules for all. Links hold what was there before.
    pub(super) fn set_bandwidth(&mut self, of: impl Fn(&str) -> Bandwidth) {
        self.accounts.values_mut().for_each(|account| account.bandwidth = of(&account.user));
    }

    #[cfg(test)]
    pub(super) fn held(&self, user: &str) -> u32 {
        self.by_user.get(user).and_then(|&key| self.accounts.get(key)).map_or(0, |account| account.held)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.accounts.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::turn::Ledger;

    #[test]
    fn keys_are_those_of_every_client() {
        // RFC 5389 §15.4.
        let keys = derive_keys("user", "realm", "pass");
        assert_eq!(
            keys.md5,
            [0x84, 0x93, 0xfb, 0xc5, 0x3b, 0xa5, 0x82, 0xfb, 0x4c, 0x04, 0x4c, 0x45, 0x6b, 0xdc, 0x40, 0xeb]
        );
    }

    #[test]
    fn time_limited_names_are_read_in_every_order() {
        for (username, expected) in [
            ("1700000000:alice", Some((1_700_000_000, "alice"))),
            ("alice:1700000000", Some((1_700_000_000, "alice"))),
            ("1700000000", Some((1_700_000_000, ""))),
            ("1700000000:", Some((1_700_000_000, ""))),
            ("1700000000:alice:bob", Some((1_700_000_000, "alice:bob"))),
            ("alice", None),
            ("", None),
            (":", None),
            ("99999999999999999999:alice", None),
            ("-1:alice", None),
            ("+1:alice", None),
        ] {
            assert_eq!(read_timed(username), expected, "{username}");
        }
    }

    #[test]
    fn accounts_go_with_their_last_allocation() {
        let mut accounts = Accounts::default();
        let ledger = Arc::new(Ledger::new([3; 32]));
        let unbounded = || ledger.bandwidth_of(ledger.user("alice"), 0);
        let keys: Vec<_> = (0..3).map(|_| accounts.hold("alice", "alice", unbounded)).collect();
        assert_eq!((accounts.held("alice"), accounts.held("bob"), accounts.len()), (3, 0, 1));
        keys.iter().for_each(|&key| accounts.release(key));
        assert_eq!((accounts.held("alice"), accounts.len()), (0, 0));
    }
}
