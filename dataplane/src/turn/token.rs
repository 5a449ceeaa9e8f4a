//! Access tokens (RFC 7635): an authorization server that shares a key with us vouches for a client that we have never heard of. A token
//! carries the key that the client's messages are proved with, and for how long; it names nobody, so the name of our key stands for all
//! who come by it.
//!
//! Owns these keys. Opening a token is one decryption of at most a hundred bytes on the stack, and leaves nothing behind.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use arrayvec::ArrayVec;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use foldhash::fast::RandomState;
use ringmain_shared::turn::{ThirdParty, TokenSecret, TurnTokenKey};
use zeroize::Zeroize;

use crate::packet::bytes::{u16_at, u32_at, u64_at};

/// What a token holds (RFC 7635 §6.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessToken {
    /// What the client's messages are proved with.
    pub mac_key: MacKey,
    /// When it was made, since 1970.
    pub timestamp: Duration,
    /// For how long.
    pub lifetime: Duration,
}

impl AccessToken {
    /// How much longer it holds at `unix`, since 1970; at least a second, `None` when it is over.
    pub(super) fn remaining(&self, unix: Duration) -> Option<Duration> {
        // RFC 7635 §7: it holds while lifetime + Delta > |RDnew - TS|; §9: what is left of that bounds the allocation, which does not get
        // more than the lifetime of the token.
        let lifetime = self.lifetime.min(LIFETIME_MAX);
        let rest = (lifetime + DELTA).saturating_sub(unix.abs_diff(self.timestamp));
        Some(rest.min(lifetime)).filter(|rest| *rest >= LEAST)
    }
}

/// The session key in a token, as the client has it.
#[derive(Clone)]
pub struct MacKey(ArrayVec<u8, MAC_KEY_LEN_MAX>);

impl MacKey {
    /// `None` for one that is too short to be secret, or longer than any HMAC of STUN's takes.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let fits = (MAC_KEY_LEN_MIN..=MAC_KEY_LEN_MAX).contains(&bytes.len());
        fits.then(|| Self(bytes.iter().copied().collect()))
    }

    /// As HMAC takes it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// coturn, clients and server alike, keys HMAC-SHA1 with 16 of the 20 bytes, as if it were an MD5 key.
    pub(super) fn as_coturn_has_it(&self) -> Option<Self> {
        (self.0.len() == SHA1_LEN).then(|| Self(self.0.iter().copied().take(16).collect()))
    }
}

impl PartialEq for MacKey {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for MacKey {}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(…)")
    }
}

impl Drop for MacKey {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

/// What seals tokens for one server, and opens them there.
pub struct TokenCipher(LessSafeKey);

impl TokenCipher {
    /// From the key that is shared with the authorization server.
    pub fn new(secret: &TokenSecret) -> Self {
        let key = match secret {
            TokenSecret::Aes128Gcm(key) => UnboundKey::new(&AES_128_GCM, key),
            TokenSecret::Aes256Gcm(key) => UnboundKey::new(&AES_256_GCM, key),
        };
        Self(LessSafeKey::new(key.expect("a secret is as long as its algorithm says")))
    }

    /// What is in the value of an ACCESS-TOKEN. `None` for what was not sealed with this key, or for another server.
    pub fn open(&self, server_name: &str, token: &[u8]) -> Option<AccessToken> {
        // RFC 7635 §6.2: the length of the nonce, the nonce, what is sealed; RFC 5116 §5.1: of 12 bytes, for AES-GCM.
        let sealed = token.get(2 + NONCE_LEN..).filter(|_| u16_at(token, 0).map(usize::from) == Some(NONCE_LEN))?;
        let nonce = *token.get(2..)?.first_chunk()?;
        let mut room = ArrayVec::<u8, SEALED_LEN_MAX>::new();
        room.try_extend_from_slice(sealed).ok()?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let clear = self.0.open_in_place(nonce, Aad::from(server_name.as_bytes()), &mut room);
        let token = clear.ok().and_then(|clear| read(clear));
        room.as_mut_slice().zeroize();
        token
    }

    /// The value of an ACCESS-TOKEN for this server. The nonce must be another one each time.
    pub fn seal(&self, server_name: &str, token: &AccessToken, nonce: [u8; NONCE_LEN]) -> Vec<u8> {
        let mac_key = token.mac_key.bytes();
        let ticks = u64::from(token.timestamp.subsec_nanos()) / NANOS_PER_TICK;
        let mut clear = Vec::with_capacity(SEALED_LEN_MAX);
        clear.extend((mac_key.len() as u16).to_be_bytes());
        clear.extend(mac_key);
        clear.extend((token.timestamp.as_secs() << 16 | ticks).to_be_bytes());
        clear.extend((token.lifetime.as_secs().min(u32::MAX.into()) as u32).to_be_bytes());
        let aad = Aad::from(server_name.as_bytes());
        let tag = self.0.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut clear);
        let tag = tag.expect("AES-GCM takes more than a hundred bytes");
        let sealed = [&(NONCE_LEN as u16).to_be_bytes()[..], &nonce, &clear, tag.as_ref()].concat();
        clear.zeroize();
        sealed
    }
}

impl fmt::Debug for TokenCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenCipher(…)")
    }
}

/// RFC 7635 §6.2: key_length, mac_key, timestamp, lifetime; nothing else.
fn read(clear: &[u8]) -> Option<AccessToken> {
    let mac_key_len = usize::from(u16_at(clear, 0)?);
    let mac_key = MacKey::new(clear.get(2..2 + mac_key_len)?)?;
    let rest = clear.get(2 + mac_key_len..).filter(|rest| rest.len() == TIMES_LEN)?;
    let (timestamp, lifetime) = (u64_at(rest, 0)?, u32_at(rest, 8)?);
    // 48 bits of seconds, 16 bits of 64,000ths.
    let fraction = Duration::from_nanos((timestamp & 0xffff) * NANOS_PER_TICK);
    let timestamp = Duration::from_secs(timestamp >> 16) + fraction;
    Some(AccessToken { mac_key, timestamp, lifetime: Duration::from_secs(lifetime.into()) })
}

/// Opens tokens by whichever of our keys they were sealed with.
#[derive(Debug)]
pub(super) struct Tokens {
    server_name: String,
    keys: HashMap<String, Key, RandomState>,
}

/// What is wrong with a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TokenFault {
    /// Its key is none of ours, or is over.
    UnknownKey,
    /// It was not sealed with that key for this server.
    NotOurs,
    /// It is over, or of the future.
    Over,
}

#[derive(Debug)]
struct Key {
    cipher: TokenCipher,
    expires: Option<u64>,
}

impl Key {
    /// At most what a token holds.
    fn remaining(&self, unix: Duration) -> Option<Duration> {
        let rest = |expires: u64| Duration::from_secs(expires).checked_sub(unix);
        let rest = self.expires.map_or(Some(LIFETIME_MAX), rest)?.min(LIFETIME_MAX);
        (rest >= LEAST).then_some(rest)
    }
}

impl Tokens {
    pub(super) fn new(spec: &ThirdParty) -> Self {
        let key =
            |key: &TurnTokenKey| (key.kid.clone(), Key { cipher: TokenCipher::new(&key.secret), expires: key.expires });
        Self { server_name: spec.server_name.clone(), keys: spec.keys.iter().map(key).collect() }
    }

    /// THIRD-PARTY-AUTHORIZATION (RFC 7635 §6.1).
    pub(super) fn server_name(&self) -> &str {
        &self.server_name
    }

    /// What is in a token, and how much longer it holds at `unix`, since 1970: no longer than the key that it was sealed with.
    pub(super) fn open(&self, kid: &str, token: &[u8], unix: Duration) -> Result<(AccessToken, Duration), TokenFault> {
        let key = self.keys.get(kid).ok_or(TokenFault::UnknownKey)?;
        let key_rest = key.remaining(unix).ok_or(TokenFault::UnknownKey)?;
        let token = key.cipher.open(&self.server_name, token).ok_or(TokenFault::NotOurs)?;
        let rest = token.remaining(unix).ok_or(TokenFault::Over)?;
        Ok((token, rest.min(key_rest)))
    }

    /// How much longer a key holds at `unix`, since 1970, a day at most. `None` when it is over, or was never there.
    pub(super) fn key_remaining(&self, kid: &str, unix: Duration) -> Option<Duration> {
        self.keys.get(kid)?.remaining(unix)
    }
}

/// RFC 7635 §7: how far the clock of the authorization server may be off.
const DELTA: Duration = Duration::from_secs(5);
/// A token that says more holds for this: whoever has got hold of a key cannot make one that holds for a century.
const LIFETIME_MAX: Duration = Duration::from_secs(86_400);
/// What is left of less is over: LIFETIME counts seconds.
const LEAST: Duration = Duration::from_secs(1);
const NANOS_PER_TICK: u64 = 1_000_000_000 / 64_000;
/// RFC 7635 §6.2: "The key length of 160 bits MUST be supported".
const SHA1_LEN: usize = 20;
const MAC_KEY_LEN_MIN: usize = 16;
/// A block of HMAC-SHA1 and HMAC-SHA256; of longer keys they take the hash.
const MAC_KEY_LEN_MAX: usize = 64;
/// Bytes of timestamp and lifetime.
const TIMES_LEN: usize = 8 + 4;
const TAG_LEN: usize = 16;
const SEALED_LEN_MAX: usize = 2 + MAC_KEY_LEN_MAX + TIMES_LEN + TAG_LEN;

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "blackdow.carleon.gov";
    const SECRET: &[u8; 32] = b"HGkj32KJGiuy098sdfaqbNjOiaz71923";
    const NONCE: &[u8; 12] = b"h4j3k2l2n4b5";

    /// RFC 7635 appendix A; `turnutils_oauth` of coturn 4.6 makes the same.
    const SAMPLES: [&[u8; 64]; 2] = [
        b"\x00\x0ch4j3k2l2n4b5\x61\x7e\xf1\x34\xa3\xd5\xe4\x4e\x9a\x19\xcc\x7d\xc1\x04\xb0\xc0\x3d\x03\
        \xb2\xa5\x51\xd8\xfd\xf5\xcd\x3b\x6d\xca\x6f\x10\xcf\xb7\x7e\x5b\x2d\xde\xc8\x4d\x29\x3a\x5c\x50\x49\x93\x59\xf0\xc2\xe2\x6f\x76",
        b"\x00\x0ch4j3k2l2n4b5\x7f\xb9\xe9\x9f\x08\x27\xbe\x3d\xf1\xe1\xbd\x65\x14\x93\xd3\x03\x1d\x36\
        \xdf\x57\x07\x97\x84\xae\xe5\xea\xcb\x65\xfa\xd4\xf2\x7f\xab\x1a\x3f\x97\x97\x4b\x69\xf8\x51\xb2\x4b\xf5\xaf\x09\xed\xa3\x57\xe0",
    ];

    fn ciphers() -> [TokenCipher; 2] {
        let short = SECRET.first_chunk().copied().expect("16 of 32");
        [TokenSecret::Aes256Gcm(*SECRET), TokenSecret::Aes128Gcm(short)].map(|secret| TokenCipher::new(&secret))
    }

    fn token(lifetime: u64) -> AccessToken {
        let mac_key = MacKey::new(b"ZksjpweoixXmvn67534m").expect("20 bytes");
        let timestamp = Duration::from_secs(92_470_300_704_768 >> 16);
        AccessToken { mac_key, timestamp, lifetime: Duration::from_secs(lifetime) }
    }

    #[test]
    fn the_samples_of_the_rfc_are_opened_and_made() {
        for (cipher, sample) in ciphers().iter().zip(SAMPLES) {
            assert_eq!(cipher.open(SERVER, sample), Some(token(3600)));
            assert_eq!(cipher.seal(SERVER, &token(3600), *NONCE), sample);
        }
    }

    #[test]
    fn what_is_not_whole_or_not_for_us_is_not_opened() {
        let [long, short] = ciphers();
        let sample = SAMPLES[0];
        assert_eq!(short.open(SERVER, sample), None, "another key");
        assert_eq!(long.open("blackdow.carleon.go", sample), None, "another server");
        for bit in 0..sample.len() * 8 {
            let mut changed = *sample;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(long.open(SERVER, &changed), None, "bit {bit}");
        }
        for cut in 0..sample.len() {
            assert_eq!(long.open(SERVER, &sample[..cut]), None, "{cut} bytes");
        }
        for more in [1, 30, 65_000] {
            assert_eq!(long.open(SERVER, &[&sample[..], &vec![0; more]].concat()), None);
        }
    }

    #[test]
    fn what_is_sealed_rightly_must_make_sense_too() {
        let [cipher, _] = ciphers();
        let open = |clear: &[u8]| {
            let mut sealed = clear.to_vec();
            let nonce = Nonce::assume_unique_for_key(*NONCE);
            let tag = cipher.0.seal_in_place_separate_tag(nonce, Aad::from(SERVER.as_bytes()), &mut sealed).unwrap();
            cipher.open(SERVER, &[&[0, 12][..], NONCE, &sealed, tag.as_ref()].concat())
        };
        let clear = |key_length: u16, key: usize, rest: usize| {
            [&key_length.to_be_bytes()[..], &vec![7; key], &vec![0; rest]].concat()
        };
        for length in [16, 20, 32, 64] {
            assert!(open(&clear(length, length.into(), 12)).is_some(), "{length}");
        }
        for (key_length, key, rest) in
            [(15, 15, 12), (65, 65, 12), (20, 20, 11), (20, 20, 13), (21, 20, 12), (0, 0, 12), (u16::MAX, 20, 12)]
        {
            assert_eq!(open(&clear(key_length, key, rest)), None, "{key_length} {key} {rest}");
        }
        assert_eq!(open(&[]), None);
        // The last moment that there is.
        let latest = [&clear(20, 20, 0)[..], &[0xff; 12]].concat();
        assert!(open(&latest).is_some_and(|token| token.remaining(Duration::from_secs(1_800_000_000)).is_none()));
    }

    #[test]
    fn a_token_holds_for_its_lifetime_and_a_little_for_clocks_that_differ() {
        let made = token(600);
        let rest = |offset: i64| {
            made.remaining(Duration::from_secs(made.timestamp.as_secs().checked_add_signed(offset).unwrap()))
        };
        for (offset, expected) in [
            (-605, None),
            (-603, Some(2)),
            (-5, Some(600)),
            (0, Some(600)),
            (5, Some(600)),
            (6, Some(599)),
            (604, Some(1)),
            (605, None),
            (1_000_000, None),
        ] {
            assert_eq!(rest(offset), expected.map(Duration::from_secs), "{offset} s");
        }
        assert_eq!(token(0).remaining(made.timestamp), None);
        // 136 years are a day.
        let long = token(u32::MAX.into());
        let after = |seconds: u64| long.remaining(long.timestamp + Duration::from_secs(seconds));
        assert_eq!([0, 86_404, 86_405].map(after), [Some(LIFETIME_MAX), Some(LEAST), None]);
    }

    #[test]
    fn a_key_that_is_over_opens_nothing() {
        let key = TurnTokenKey {
            kid: "north".into(),
            secret: TokenSecret::Aes256Gcm(*SECRET),
            expires: Some(token(0).timestamp.as_secs() + 100),
        };
        let tokens = Tokens::new(&ThirdParty { server_name: SERVER.into(), keys: vec![key] });
        let open = |kid: &str, after: u64| {
            let opened = tokens.open(kid, SAMPLES[0], token(0).timestamp + Duration::from_secs(after));
            opened.map(|(_, rest)| rest.as_secs())
        };
        assert_eq!([open("north", 0), open("north", 99)], [Ok(100), Ok(1)], "no longer than the key");
        assert_eq!([open("north", 100), open("south", 0)], [Err(TokenFault::UnknownKey); 2]);
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?} {:?}", token(1).mac_key, ciphers()[0]), "MacKey(…) TokenCipher(…)");
    }
}
