//! Links on the way out: what TURN puts around datagrams of our media, by link, and how much went where.
//!
//! A way out has one table. Where it fills its batches in turn, the table goes with the batch that is being filled, so that a change
//! holds for every datagram reserved after it.

use super::prefix::{OVERHEAD_MAX, Prefix};
use crate::io::{Path, SocketIndex};

/// What goes around datagrams that are sent to links.
#[derive(Debug, Default)]
pub struct LinkTable {
    links: Vec<LinkOut>,
    /// Those that were sent to since they were last asked for.
    used: Vec<SocketIndex>,
    /// What links may add to a datagram; nothing while there is none.
    overhead: usize,
}

/// A link's way out.
#[derive(Clone, Copy, Debug, Default)]
struct LinkOut {
    /// The path that our media knows it by, and what goes around datagrams there.
    open: Option<(Path, Prefix)>,
    datagrams: u64,
    bytes: u64,
}

impl LinkTable {
    /// What is sent to a link goes on with this around it; `None` closes the link. Numbers are used again, so the whole path counts.
    pub fn set(&mut self, path: Path, prefix: Option<Prefix>) {
        let Some(number) = path.socket.link_number() else { return };
        if self.links.len() <= number {
            self.links.resize(number + 1, LinkOut::default());
            self.used.reserve(number + 1 - self.used.len());
        }
        if let Some(out) = self.links.get_mut(number) {
            out.open = prefix.map(|prefix| (path, prefix));
            self.overhead = OVERHEAD_MAX;
        }
    }

    /// Datagrams and bytes sent through each link since this was last called.
    pub fn drain_traffic(&mut self, mut each: impl FnMut(SocketIndex, u64, u64)) {
        for link in self.used.drain(..) {
            if let Some(out) = link.link_number().and_then(|number| self.links.get_mut(number)) {
                each(link, std::mem::take(&mut out.datagrams), std::mem::take(&mut out.bytes));
            }
        }
    }

    /// Bytes that a link may add to a datagram.
    #[inline]
    pub(super) fn overhead(&self) -> usize {
        self.overhead
    }

    /// What goes around datagrams to a link, if it is open.
    pub(super) fn prefix(&self, path: Path) -> Option<&Prefix> {
        let (open, prefix) = self.links.get(path.socket.link_number()?)?.open.as_ref()?;
        (*open == path).then_some(prefix)
    }

    /// A datagram of so many bytes goes to a link, with this around it.
    pub(super) fn count(&mut self, link: SocketIndex, size: usize) -> Option<Prefix> {
        let out = self.links.get_mut(link.link_number()?)?;
        let (_, prefix) = out.open?;
        if out.datagrams == 0 {
            self.used.push(link);
        }
        out.datagrams += 1;
        out.bytes += size as u64;
        Some(prefix)
    }
}
