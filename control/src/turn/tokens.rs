//! Third-party authorization (RFC 7635): the keys of authorization servers, from their file, and tokens made with them for whoever tries
//! it out. coturn has such keys in a table of its database; here each is a line:
//!
//! ```text
//! KID:ALGORITHM:KEY[:SINCE:LIFETIME]
//! ```
//!
//! with tabs instead of the colons where a line has any, since the name of a key may have colons.
//! `ALGORITHM` is `A128GCM` or `A256GCM`, which nothing means as well. `KEY` is base64; of longer ones the first 16 or 32 bytes are
//! used, as coturn does. `SINCE`, seconds since 1970, and `LIFETIME`, seconds, say when the key ends; a lifetime of 0 that it does not.

use std::time::Duration;

use anyhow::Context;
use aws_lc_rs::rand;
use ringmain_dataplane::turn::{AccessToken, MacKey, TokenCipher, decode_base64, encode_base64};
use ringmain_shared::turn::{ThirdParty, TokenSecret, TurnTokenKey};
use zeroize::Zeroizing;

use crate::config::Turn;

/// Whose tokens are taken, and for which name. `None` without a file of keys.
pub(super) fn third_party(turn: &Turn) -> anyhow::Result<Option<ThirdParty>> {
    let Some(file) = &turn.oauth_keys else { return Ok(None) };
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.with_context(|| format!("turn.oauth_keys: cannot read {}", file.display()))?;
    let mut keys: Vec<TurnTokenKey> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim().starts_with('#') {
            continue;
        }
        let key = read(line).and_then(|key| match keys.iter().any(|other| other.kid == key.kid) {
            true => Err("there is a key of this name already"),
            false => Ok(key),
        });
        // The line itself is in no message.
        let wrong = |why| anyhow::anyhow!("turn.oauth_keys: {}, line {}: {why}", file.display(), index + 1);
        keys.push(key.map_err(wrong)?);
    }
    if keys.is_empty() {
        anyhow::bail!("turn.oauth_keys: {} has no key in it", file.display());
    }
    let server_name = turn.server_name.clone().unwrap_or_else(|| turn.realm.clone());
    Ok(Some(ThirdParty { server_name, keys }))
}

fn read(line: &str) -> Result<TurnTokenKey, &'static str> {
    let separator = if line.contains('\t') { '\t' } else { ':' };
    let fields: Vec<&str> = line.split(separator).map(str::trim).collect();
    let (kid, algorithm, key, expires) = match fields[..] {
        [kid, algorithm, key] => (kid, algorithm, key, None),
        [kid, algorithm, key, since, lifetime] => {
            let seconds = |text: &str| text.parse::<u64>().map_err(|_| "SINCE and LIFETIME are seconds");
            let (since, lifetime) = (seconds(since)?, seconds(lifetime)?);
            (kid, algorithm, key, (lifetime > 0).then(|| since.saturating_add(lifetime)))
        }
        _ => {
            return Err(
                "a key is written as KID:ALGORITHM:KEY or KID:ALGORITHM:KEY:SINCE:LIFETIME, or with tabs for the colons",
            );
        }
    };
    // RFC 8489 §14.3: it is a USERNAME.
    if !(1..=508).contains(&kid.len()) {
        return Err("the name of a key has 1 to 508 bytes");
    }
    let key = decode_base64(key).map(Zeroizing::new).ok_or("the key is no base64")?;
    let secret = match algorithm {
        "A128GCM" => key.first_chunk().copied().map(TokenSecret::Aes128Gcm).ok_or("a key of A128GCM has 16 bytes"),
        "A256GCM" | "" => key.first_chunk().copied().map(TokenSecret::Aes256Gcm).ok_or("a key of A256GCM has 32 bytes"),
        _ => Err("algorithms are A128GCM and A256GCM"),
    }?;
    Ok(TurnTokenKey { kid: kid.into(), secret, expires })
}

/// A token as its bearer gets it.
pub(super) struct Token {
    /// USERNAME.
    pub(super) kid: String,
    /// The token itself, in base64.
    pub(super) access_token: String,
    /// What messages are proved with, in base64.
    pub(super) mac_key: String,
}

/// A new token, made at `unix` since 1970; by the first key unless another one is named.
pub(super) fn make(third_party: &ThirdParty, kid: &str, unix: Duration, lifetime: Duration) -> anyhow::Result<Token> {
    let key = third_party.keys.iter().find(|key| kid.is_empty() || key.kid == kid);
    let key = key.with_context(|| format!("there is no key {kid:?} in the file"))?;
    let (mut mac_key, mut nonce) = ([0; MAC_KEY_SIZE], [0; 12]);
    rand::fill(&mut mac_key)?;
    rand::fill(&mut nonce)?;
    let mac_key = MacKey::new(&mac_key).context("a key of this size")?;
    let text = encode_base64(mac_key.bytes());
    let token = AccessToken { mac_key, timestamp: unix, lifetime };
    let token = TokenCipher::new(&key.secret).seal(&third_party.server_name, &token, nonce);
    Ok(Token { kid: key.kid.clone(), access_token: encode_base64(&token), mac_key: text })
}

/// That of HMAC-SHA1 (RFC 7635 §6.2).
const MAC_KEY_SIZE: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// "0123…" and "1234…", as the keys of coturn's own client, each with a line feed at its end.
    const LINES: &str = "# keys\n\nnorth:A256GCM:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK\n\
                         union:A128GCM:MTIzNDU2Nzg5MDEyMzQ1Ngo=:0:0\n\
                         old::MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK:1000:60\n";

    fn load(name: &str, text: &str) -> anyhow::Result<ThirdParty> {
        let file = std::env::temp_dir().join(format!("ringmain-tokens-{name}-{}", std::process::id()));
        std::fs::write(&file, text).expect("a file");
        let turn = Turn { oauth_keys: Some(file.clone()), realm: "r".into(), ..Turn::default() };
        let loaded = third_party(&turn);
        std::fs::remove_file(file).expect("ours");
        loaded.map(|loaded| loaded.expect("there is a file"))
    }

    #[test]
    fn a_file_of_keys_is_read_as_coturn_has_them() {
        let loaded = load("read", LINES).expect("sound");
        assert_eq!(loaded.server_name, "r");
        let kids: Vec<_> = loaded.keys.iter().map(|key| (key.kid.as_str(), key.expires)).collect();
        assert_eq!(kids, [("north", None), ("union", None), ("old", Some(1060))]);
        let [north, union, old] = [0, 1, 2].map(|at| loaded.keys[at].secret.clone());
        assert!(north == TokenSecret::Aes256Gcm(*b"01234567890123456789012345678901"));
        assert!(union == TokenSecret::Aes128Gcm(*b"1234567890123456"));
        assert!(old == TokenSecret::Aes256Gcm(*b"12345678901234567890123456789012"));
        assert!(third_party(&Turn::default()).is_ok_and(|none| none.is_none()));
    }

    #[test]
    fn with_tabs_the_name_of_a_key_may_have_colons() {
        let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK";
        // As `sqlite3 -tabs` prints rows, one without an algorithm.
        let text = format!("urn:north:1\tA256GCM\t{key}\t1000\t60\nunion\t\t{key}\t0\t0\nwest:A256GCM:{key}\n");
        let loaded = load("tabs", &text).expect("sound");
        let kids: Vec<_> = loaded.keys.iter().map(|key| (key.kid.as_str(), key.expires)).collect();
        assert_eq!(kids, [("urn:north:1", Some(1060)), ("union", None), ("west", None)]);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line_and_the_key_is_not() {
        let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK";
        for (line, why) in [
            ("north".into(), "written as"),
            (format!("north:{key}"), "written as"),
            (format!("north:A256GCM:{key}:1"), "written as"),
            (format!("urn:north:A256GCM:{key}"), "tabs"),
            (format!("\tA256GCM\t{key}"), "508"),
            (format!("north:A256GCM:{key}:1:x"), "seconds"),
            (format!(":A256GCM:{key}"), "508"),
            (format!("{}:A256GCM:{key}", "n".repeat(509)), "508"),
            ("north:A256GCM:MTIzNDU2Nzg5MDEyMzQ1Ngo=".into(), "32 bytes"),
            ("north:A128GCM:MTIz".into(), "16 bytes"),
            (format!("north:A192GCM:{key}"), "algorithms"),
            (format!("north:A256GCM:{key}!"), "base64"),
            (format!("south:A256GCM:{key}"), "already"),
        ] {
            let told = load("wrong", &format!("south:A256GCM:{key}\n#\n{line}\n")).expect_err(&line).to_string();
            assert!(told.contains("line 3: ") && told.contains(why) && !told.contains(key), "{line}: {told}");
        }
        assert!(load("empty", "# nothing\n").expect_err("no key").to_string().contains("no key"));
    }

    #[test]
    fn a_token_is_for_who_asks_for_it() {
        let loaded = load("make", LINES).expect("sound");
        let unix = Duration::from_secs(1_800_000_000);
        for (kid, made_by) in [("", 0), ("north", 0), ("union", 1)] {
            let token = make(&loaded, kid, unix, Duration::from_secs(60)).expect("made");
            let key = &loaded.keys[made_by];
            assert_eq!(token.kid, key.kid);
            let opened = TokenCipher::new(&key.secret).open("r", &decode_base64(&token.access_token).expect("base64"));
            let opened = opened.expect("ours");
            assert_eq!(encode_base64(opened.mac_key.bytes()), token.mac_key);
            assert_eq!((opened.timestamp, opened.lifetime), (unix, Duration::from_secs(60)));
        }
        assert!(make(&loaded, "west", unix, Duration::from_secs(60)).is_err());
    }
}
