//! Bytes for tests that must not panic: from a seed, so that a failure can be run again.

/// How many inputs each parser is given.
const ROUNDS: u64 = 100_000;

/// Calls `body` with random datagrams, half of them a mutation of one of `samples`.
pub(crate) fn hammer(samples: &[&[u8]], mut body: impl FnMut(&[u8])) {
    let mut random = XorShift(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(256);
    for round in 0..ROUNDS {
        bytes.clear();
        match samples.get(round as usize % (2 * samples.len().max(1))) {
            Some(sample) => {
                bytes.extend_from_slice(sample);
                for _ in 0..=random.below(4) {
                    if !bytes.is_empty() {
                        let at = random.below(bytes.len());
                        bytes[at] = random.next() as u8;
                    }
                }
                if random.below(4) == 0 {
                    bytes.truncate(random.below(sample.len() + 1));
                }
            }
            None => bytes.extend((0..random.below(200)).map(|_| random.next() as u8)),
        }
        body(&bytes);
    }
}

/// Marsaglia's xorshift64.
pub(crate) struct XorShift(pub(crate) u64);

impl XorShift {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }
}
