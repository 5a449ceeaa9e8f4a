//! The replay windows of one direction, by SSRC. A stream is added only with a packet that was authenticated, and never more
//! than [`SSRCS_PER_TRANSPORT_MAX`] of them: who has the keys can still not make us grow.

use ringmain_shared::drop_reason::DropReason;
use ringmain_shared::limits::SSRCS_PER_TRANSPORT_MAX;

use super::cipher::Authenticated;
use super::window::ReplayWindow;

/// SSRCs apart from their windows: a search reads one or two cache lines.
pub(super) struct Streams<const WORDS: usize> {
    ssrcs: Vec<u32>,
    windows: Vec<ReplayWindow<WORDS>>,
}

impl<const WORDS: usize> Streams<WORDS> {
    pub(super) fn new() -> Self {
        Self { ssrcs: Vec::new(), windows: Vec::new() }
    }

    /// The window of `ssrc`, if it was heard before.
    pub(super) fn window(&mut self, ssrc: u32) -> Option<&mut ReplayWindow<WORDS>> {
        let slot = self.ssrcs.iter().position(|&known| known == ssrc)?;
        self.windows.get_mut(slot)
    }

    /// Begins a stream that was not heard before.
    pub(super) fn insert(&mut self, ssrc: u32, index: u64, authenticated: Authenticated) -> Result<(), DropReason> {
        if self.ssrcs.len() >= SSRCS_PER_TRANSPORT_MAX {
            return Err(DropReason::TooManySsrcs);
        }
        self.ssrcs.push(ssrc);
        self.windows.push(ReplayWindow::starting_at(index, authenticated));
        Ok(())
    }

    /// Makes room, if there is none: the oldest stream that is not to be kept goes.
    pub(super) fn make_room(&mut self, keep: impl Fn(u32) -> bool) {
        if self.ssrcs.len() >= SSRCS_PER_TRANSPORT_MAX
            && let Some(slot) = self.ssrcs.iter().position(|&ssrc| !keep(ssrc))
        {
            self.ssrcs.remove(slot);
            self.windows.remove(slot);
        }
    }

    /// Makes room. The next packet of `ssrc` begins anew, so its old ones could be replayed.
    pub(super) fn remove(&mut self, ssrc: u32) {
        if let Some(slot) = self.ssrcs.iter().position(|&known| known == ssrc) {
            self.ssrcs.swap_remove(slot);
            self.windows.swap_remove(slot);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ssrcs.len()
    }
}
