//! Nonces that nobody has to remember (RFC 8489 §9.2): the time, and a tag over it and the client's address.
//!
//! Knows the secrets of this hour, of the one before and of the next, which all workers derive from one: a client may be answered by one
//! and heard by another. A nonce proves that its bearer has received what we sent to
//! that address; it proves nothing about who it is. It never keeps anything about a client.
//!
//! With algorithms on offer: `obMatJos2`, four characters of features, then as without: four of seconds, seven of the tag.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use aws_lc_rs::{constant_time, hmac};
use ringmain_shared::Now;

use super::base64;
use super::ledger::Ledger;

/// Bytes of the longest nonce.
pub(super) const NONCE_LEN_MAX: usize = 24;
/// Bytes of one without the cookie.
pub(super) const NONCE_LEN_MIN: usize = 11;

/// A nonce as it stands in a message.
pub(super) type Nonce = ArrayVec<u8, NONCE_LEN_MAX>;

/// Makes nonces, and knows its own.
#[derive(Debug)]
pub(super) struct Nonces {
    lifetime: Duration,
    ledger: Arc<Ledger>,
    /// That of a period is at `period % 3`.
    secrets: [Secret; 3],
    period: u64,
}

#[derive(Debug)]
struct Secret(hmac::Key);

/// What a right nonce says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Features {
    /// Our PASSWORD-ALGORITHMS were sent along (RFC 8489 §9.2, bit 0), and USERHASH may be used (bit 1).
    pub(super) algorithms: bool,
}

/// Why a nonce is not accepted; either way the client gets a new one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stale;

impl Nonces {
    pub(super) fn new(lifetime: Duration, ledger: Arc<Ledger>) -> Self {
        let secrets = secrets(&ledger, 0);
        Self { lifetime, ledger, secrets, period: 0 }
    }

    /// From now on they last so long.
    pub(super) fn set_lifetime(&mut self, lifetime: Duration) {
        self.lifetime = lifetime;
    }

    /// Replaces the oldest secret when its time has come. Whether it had.
    pub(super) fn rotate(&mut self, now: Now) -> bool {
        let period = now.0 / PERIOD.as_nanos() as u64;
        let is_new = period > self.period;
        if is_new {
            self.period = period;
            self.secrets = secrets(&self.ledger, period);
        }
        is_new
    }

    /// When `rotate` has something to do.
    pub(super) fn next_rotation(&self) -> Now {
        Now(0) + PERIOD * (self.period as u32).saturating_add(1)
    }

    /// One for a client at `address`.
    pub(super) fn make(&self, address: SocketAddr, features: Features, now: Now) -> Nonce {
        self.write(address, features, seconds(now), self.period)
    }

    /// Whether `nonce` was made for `address`, not too long ago.
    pub(super) fn check(&self, nonce: &[u8], address: SocketAddr, now: Now) -> Result<Features, Stale> {
        let features = Features { algorithms: nonce.starts_with(COOKIE) };
        let at = if features.algorithms { COOKIE.len() + FEATURES_LEN } else { 0 };
        let digits = nonce.get(at..at + TIME_LEN).ok_or(Stale)?;
        let made = digits.iter().try_fold(0, |bits, &digit| Some(bits << 6 | base64::value(digit)?)).ok_or(Stale)?;
        let age = seconds(now).wrapping_sub(made) & TIME_MASK;
        if u64::from(age) > self.lifetime.as_secs() {
            return Err(Stale);
        }
        let made_in = now.0.saturating_sub(u64::from(age) * 1_000_000_000) / PERIOD.as_nanos() as u64;
        // A second is a coarse measure, and its maker may not have looked at the clock for a moment: at the turn of a period it may be
        // off by one.
        let is_known = |&period: &u64| (self.period.saturating_sub(1)..=self.period + 1).contains(&period);
        let right = (made_in.saturating_sub(1)..=made_in + 1).filter(is_known).any(|period| {
            let expected = self.write(address, features, made, period);
            constant_time::verify_slices_are_equal(&expected, nonce).is_ok()
        });
        if right { Ok(features) } else { Err(Stale) }
    }

    fn write(&self, address: SocketAddr, features: Features, seconds: u32, period: u64) -> Nonce {
        let mut nonce = Nonce::new();
        if features.algorithms {
            nonce.extend(COOKIE.iter().chain(FEATURES).copied());
        }
        nonce.extend((0..TIME_LEN).rev().map(|at| base64::digit(u64::from(seconds) >> (6 * at))));
        let [first, second, third] = &self.secrets;
        let Secret(secret) = match period % 3 {
            0 => first,
            1 => second,
            _ => third,
        };
        let mut context = hmac::Context::with_key(secret);
        context.update(&nonce);
        match address.ip() {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        context.update(&address.port().to_be_bytes());
        let tag = context.sign();
        let bits = tag.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        nonce.extend((0..TAG_LEN).map(|at| base64::digit(bits >> (6 * at))));
        nonce
    }
}

/// Those of a period and its neighbours, in their places.
fn secrets(ledger: &Ledger, period: u64) -> [Secret; 3] {
    let of = |period: u64| {
        let key = ledger.tag(&[b"nonce", &period.to_be_bytes()]);
        Secret(hmac::Key::new(hmac::HMAC_SHA256, &key))
    };
    let first = period.saturating_sub(1);
    [0, 1, 2].map(|place| of((first..first + 3).find(|period| period % 3 == place).unwrap_or(first)))
}

fn seconds(now: Now) -> u32 {
    (now.as_millis() / 1000) as u32 & TIME_MASK
}

/// A secret makes nonces for so long, and is known as long again: nonces last no longer than that.
const PERIOD: Duration = Duration::from_secs(3600);
/// RFC 8489 §9.2: the nonce cookie.
const COOKIE: &[u8; 9] = b"obMatJos2";
/// Password algorithms and username anonymity, the two most significant of 24 bits.
const FEATURES: &[u8; FEATURES_LEN] = b"wAAA";
const FEATURES_LEN: usize = 4;
const TIME_LEN: usize = 4;
const TIME_MASK: u32 = (1 << (6 * TIME_LEN)) - 1;
const TAG_LEN: usize = 7;
const _: () =
    assert!(NONCE_LEN_MIN == TIME_LEN + TAG_LEN && NONCE_LEN_MAX == COOKIE.len() + FEATURES_LEN + NONCE_LEN_MIN);

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> Now {
        Now::from_millis(seconds * 1000)
    }

    fn client() -> SocketAddr {
        ([192, 0, 2, 7], 4000).into()
    }

    #[test]
    fn a_nonce_lasts_its_time_and_no_second_longer_across_changes_of_the_secret() {
        for start in [0, 3000, 3599, 3600, 7000, 100_000, 17_000_000] {
            let mut nonces = nonces(3);
            nonces.rotate(at(start));
            for algorithms in [false, true] {
                let features = Features { algorithms };
                let nonce = nonces.make(client(), features, at(start));
                assert_eq!(nonce.len(), if algorithms { NONCE_LEN_MAX } else { NONCE_LEN_MIN });
                for (later, right) in [(0, true), (60, true), (600, true), (601, false), (10_000, false)] {
                    // Whoever checks it may be another worker, which has not looked at the clock for a moment, or never has yet.
                    let mut nonces = super::tests::nonces(3);
                    nonces.rotate(at((start + later).saturating_sub(1)));
                    let expected = if right { Ok(features) } else { Err(Stale) };
                    assert_eq!(nonces.check(&nonce, client(), at(start + later)), expected, "{start} + {later}");
                }
            }
        }
    }

    fn nonces(seed: u8) -> Nonces {
        Nonces::new(LIFETIME, Arc::new(Ledger::new([seed; 32])))
    }

    #[test]
    fn a_nonce_is_good_at_its_address_only_and_as_it_was_written() {
        let nonces = nonces(3);
        let nonce = nonces.make(client(), Features { algorithms: true }, at(9));
        for other in ["192.0.2.7:4001", "192.0.2.8:4000", "[::ffff:192.0.2.7]:4000"] {
            assert_eq!(nonces.check(&nonce, other.parse().unwrap(), at(9)), Err(Stale), "{other}");
        }
        for at_byte in 0..nonce.len() {
            let mut changed = nonce.clone();
            changed[at_byte] ^= 1;
            assert_eq!(nonces.check(&changed, client(), at(9)), Err(Stale), "byte {at_byte}");
        }
        // Without its cookie it would say that no algorithms were on offer: a downgrade.
        assert_eq!(nonces.check(&nonce[13..], client(), at(9)), Err(Stale));
        for cut in 0..nonce.len() {
            assert_eq!(nonces.check(&nonce[..cut], client(), at(9)), Err(Stale));
        }
        let others = super::tests::nonces(4);
        assert_eq!(others.check(&nonce, client(), at(9)), Err(Stale));
    }
}
