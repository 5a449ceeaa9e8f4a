//! Nonces that nobody has to remember (RFC 8489 §9.2): the time, and a tag over it and the client's address.
//!
//! Owns two secrets, of which the older one is replaced every so often. A nonce proves that its bearer has received what we sent to
//! that address; it proves nothing about who it is. It never keeps anything about a client.
//!
//! With algorithms on offer: `obMatJos2`, four characters of features, then as without: four of seconds, seven of the tag.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use arrayvec::ArrayVec;
use aws_lc_rs::{constant_time, hmac};
use ringmain_shared::Now;

use super::base64;
use crate::random::Random;

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
    secrets: [Secret; 2],
    /// The secret of this moment is `secrets[period % 2]`.
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
    pub(super) fn new(lifetime: Duration, random: &mut Random) -> Self {
        Self { lifetime, secrets: [Secret::new(random), Secret::new(random)], period: 0 }
    }

    /// From now on they last so long.
    pub(super) fn set_lifetime(&mut self, lifetime: Duration) {
        self.lifetime = lifetime;
    }

    /// Replaces the older secret when its time has come. Whether it had.
    pub(super) fn rotate(&mut self, now: Now, random: &mut Random) -> bool {
        let period = now.0 / PERIOD.as_nanos() as u64;
        for passed in self.period.max(period.saturating_sub(2))..period {
            let [even, odd] = &mut self.secrets;
            *(if passed % 2 == 1 { even } else { odd }) = Secret::new(random);
        }
        let is_new = period > self.period;
        self.period = self.period.max(period);
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
        // A second is a coarse measure: at the turn of a period it may be off by one.
        let right = [made_in, made_in + 1].into_iter().filter(|&period| period + 1 >= self.period).any(|period| {
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
        let [even, odd] = &self.secrets;
        let mut context = hmac::Context::with_key(&(if period.is_multiple_of(2) { even } else { odd }).0);
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

impl Secret {
    fn new(random: &mut Random) -> Self {
        let mut bytes = [0; 32];
        bytes.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.next_u64().to_be_bytes()));
        Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
    }
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
            let mut random = Random::from_seed([3; 32]);
            let mut nonces = Nonces::new(LIFETIME, &mut random);
            nonces.rotate(at(start), &mut random);
            for algorithms in [false, true] {
                let features = Features { algorithms };
                let nonce = nonces.make(client(), features, at(start));
                assert_eq!(nonce.len(), if algorithms { NONCE_LEN_MAX } else { NONCE_LEN_MIN });
                for (later, right) in [(0, true), (60, true), (600, true), (601, false), (10_000, false)] {
                    let mut nonces = Nonces { secrets: nonces.secrets.clone(), ..nonces };
                    nonces.rotate(at(start + later), &mut random);
                    let expected = if right { Ok(features) } else { Err(Stale) };
                    assert_eq!(nonces.check(&nonce, client(), at(start + later)), expected, "{start} + {later}");
                }
            }
        }
    }

    impl Clone for Secret {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    #[test]
    fn a_nonce_is_good_at_its_address_only_and_as_it_was_written() {
        let mut random = Random::from_seed([3; 32]);
        let nonces = Nonces::new(LIFETIME, &mut random);
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
        let others = Nonces::new(LIFETIME, &mut random);
        assert_eq!(others.check(&nonce, client(), at(9)), Err(Stale));
    }
}
