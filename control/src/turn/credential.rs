//! Credentials: time-limited ones and tokens for `ringmain turn-credentials`, and those that signalling hands to the peers of rooms.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use ringmain_dataplane::turn::{derive_keys, timed_password};
use ringmain_shared::Now;
use ringmain_shared::turn::{TurnBinding, TurnCredential, TurnSecret};
use serde_json::{Value, json};

use super::spec;
use super::tokens::{self, Token};
use crate::app::host;
use crate::config::Config;
use crate::http::tls::Certificate;

/// What `ringmain turn-credentials` was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CredentialOptions {
    /// Whose, or the name of the key that makes a token; may be empty.
    pub user: String,
    /// From now, seconds.
    pub lifetime_s: u64,
    /// As an entry of `iceServers`.
    pub json: bool,
    /// A token (RFC 7635) instead of a password.
    pub oauth: bool,
}

/// A day, as most who hand out such credentials do.
pub const CREDENTIAL_LIFETIME_S: u64 = 86_400;

/// Prints a time-limited credential, or a token.
pub fn print_credential(config: &Config, options: &CredentialOptions) -> anyhow::Result<()> {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let (entry, text) = if options.oauth {
        let third_party = tokens::third_party(&config.turn)?;
        let third_party = third_party.context("tokens are made with a key of turn.oauth_keys, and there is none")?;
        let lifetime = Duration::from_secs(options.lifetime_s);
        let Token { kid, access_token, mac_key } = tokens::make(&third_party, &options.user, unix, lifetime)?;
        let text = format!(
            "username: {kid}\naccess token: {access_token}\nMAC key: {mac_key}\nserver name: {}",
            third_party.server_name
        );
        let credential = json!({"accessToken": access_token, "macKey": mac_key});
        (json!({"username": kid, "credential": credential, "credentialType": "oauth"}), text)
    } else {
        let Some(secret) = config.turn.shared_secrets.first() else {
            anyhow::bail!("time-limited credentials are made with turn.shared_secret, and there is none");
        };
        let (username, password) = timed(&secret.0, unix.as_secs() + options.lifetime_s, &options.user);
        let text = format!("username: {username}\npassword: {password}");
        (json!({"username": username, "credential": password}), text)
    };
    let mut out = std::io::stdout();
    if options.json {
        let mut entry = entry;
        entry["urls"] = urls(config, unix.as_secs()).into();
        entry["ttl"] = options.lifetime_s.into();
        writeln!(out, "{entry}")?;
    } else {
        writeln!(out, "{text}")?;
    }
    Ok(())
}

/// Where a server of this configuration is reached.
fn urls(config: &Config, unix: u64) -> Vec<String> {
    let host = host::addresses().unwrap_or_default();
    let config = Config { turn: crate::config::Turn { enabled: true, ..config.turn.clone() }, ..config.clone() };
    // Whoever makes credentials need not be allowed to read keys.
    let page = Certificate::of_page(&config, &host).unwrap_or_default();
    let certificate = spec::certificate(&config, page.as_ref()).unwrap_or_default();
    spec::listeners(&config, certificate.as_ref(), &config.media_binds(&host), &host)
        .ok()
        .and_then(|listeners| spec::offer(&config, &listeners, &host, unix))
        .map_or_else(Vec::new, |offer| offer.urls)
}

fn timed(secret: &str, expiry: u64, user: &str) -> (String, String) {
    let username = if user.is_empty() { expiry.to_string() } else { format!("{expiry}:{user}") };
    let password = timed_password(&username, &TurnSecret(secret.as_bytes().to_vec()));
    (username, password)
}

/// What signalling hands out with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Realm of the keys.
    pub realm: String,
    /// As in `RTCIceServer.urls`.
    pub urls: Vec<String>,
    /// How long a credential allows new allocations.
    pub lifetime: Duration,
    /// Seconds since 1970 at `Now(0)`.
    pub unix_seconds: u64,
}

/// A credential that a peer holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Handed {
    username: String,
    password: String,
}

impl Handed {
    /// A new one, of random texts.
    pub fn new(name: &str, password: String) -> Self {
        Self { username: format!("{PEER_PREFIX}{name}"), password }
    }

    /// USERNAME.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// For the data plane: good for new allocations for a lifetime from `now`. Who has not joined yet gets little time.
    pub fn in_shared(&self, offer: &Offer, bound: Option<TurnBinding>, now: Now) -> TurnCredential {
        let unix = offer.unix_seconds + now.0 / 1_000_000_000;
        TurnCredential {
            username: self.username.clone(),
            keys: derive_keys(&self.username, &offer.realm, &self.password),
            user: self.username.clone(),
            bound,
            expires: Some(unix + lifetime(offer, bound.is_some()).as_secs()),
        }
    }

    /// For the peer: the result of `iceServers`.
    pub fn to_value(&self, offer: &Offer, joined: bool) -> Value {
        let server = json!({"urls": offer.urls, "username": self.username, "credential": self.password});
        json!({"iceServers": [server], "ttl": lifetime(offer, joined).as_secs()})
    }
}

fn lifetime(offer: &Offer, joined: bool) -> Duration {
    if joined { offer.lifetime } else { offer.lifetime.min(LIFETIME_BEFORE_JOIN) }
}

/// What the usernames of peers begin with.
pub(super) const PEER_PREFIX: &str = "p-";
/// A join needs a local description, and that its candidates.
const LIFETIME_BEFORE_JOIN: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timed_password_is_that_of_coturn() {
        // printf '1700000000:alice' | openssl dgst -sha1 -hmac north -binary | base64
        let (username, password) = timed("north", 1_700_000_000, "alice");
        assert_eq!(username, "1700000000:alice");
        assert_eq!(password, "Cd/49soE35ICqcJF/bCTn8Z4OyE=");
        assert_eq!(timed("north", 7, "").0, "7");
    }

    #[test]
    fn a_peer_s_credential_lasts_longer_once_it_has_joined() {
        let offer = Offer {
            realm: "r".into(),
            urls: vec!["turn:192.0.2.1:3478?transport=udp".into()],
            lifetime: Duration::from_secs(600),
            unix_seconds: 1000,
        };
        let handed = Handed::new("name", "word".into());
        assert_eq!(handed.in_shared(&offer, None, Now(0)).expires, Some(1120));
        let bound = TurnBinding { room: ringmain_shared::id::RoomId(1), peer: ringmain_shared::id::PeerId(2) };
        assert_eq!(handed.in_shared(&offer, Some(bound), Now(5_000_000_000)).expires, Some(1605));
        let told = handed.to_value(&offer, true);
        assert_eq!(told["iceServers"][0]["username"], handed.username());
        assert_eq!(told["ttl"], 600);
    }
}
