//! Chance, from a seed: transaction ids, first sequence numbers, jitter of timers.
//! A seed from the operating system makes it unguessable; a fixed one makes a test repeatable.

use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A stream of random numbers that nobody can continue who has only seen some of it.
#[derive(Debug)]
pub struct Random(ChaCha12Rng);

impl Random {
    /// The stream of a seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// So many random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// `mean` ± 20 %.
    pub fn around(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(0.8 + 0.4 * (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64)
    }
}
