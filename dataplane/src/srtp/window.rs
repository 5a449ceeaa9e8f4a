//! Replay window of one inbound stream (RFC 3711 §3.3.2), as a ring of words that is never shifted (RFC 6479).
//! Owns the highest index and a bitmap. Never sees keys, clocks or sockets, and moves only for an [`Authenticated`] packet.

use ringmain_shared::drop_reason::DropReason;

use super::cipher::Authenticated;

/// Remembers the last `(WORDS - 1) * 64` indices, at least.
pub(super) struct ReplayWindow<const WORDS: usize> {
    highest: u64,
    words: [u64; WORDS],
}

impl<const WORDS: usize> ReplayWindow<WORDS> {
    /// How far behind the highest index a packet may be.
    pub(super) const SIZE: u64 = (WORDS as u64 - 1) * 64;

    /// The window of a stream whose first packet has `index`.
    pub(super) fn starting_at(index: u64, authenticated: Authenticated) -> Self {
        let mut window = Self { highest: index, words: [0; WORDS] };
        window.commit(index, authenticated);
        window
    }

    /// The highest index seen.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether `index` would be new: [`DropReason::Replayed`] when it was seen, [`DropReason::TooOld`] when nobody knows.
    pub(super) fn peek(&self, index: u64) -> Result<(), DropReason> {
        if index > self.highest {
            return Ok(());
        }
        if self.highest - index >= Self::SIZE {
            return Err(DropReason::TooOld);
        }
        if self.words[Self::word(index)] & Self::bit(index) != 0 {
            return Err(DropReason::Replayed);
        }
        Ok(())
    }

    /// Takes note of `index`.
    pub(super) fn commit(&mut self, index: u64, _: Authenticated) {
        if index > self.highest {
            // The words between hold bits of indices that have left the window.
            let skipped = (index / 64 - self.highest / 64).min(WORDS as u64);
            for step in 1..=skipped {
                self.words[Self::word(self.highest.saturating_add(step * 64))] = 0;
            }
            self.highest = index;
        }
        self.words[Self::word(index)] |= Self::bit(index);
    }

    fn word(index: u64) -> usize {
        (index / 64 % WORDS as u64) as usize
    }

    fn bit(index: u64) -> u64 {
        1 << (index % 64)
    }
}
