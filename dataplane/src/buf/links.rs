//! Links on the way out: what TURN puts around datagrams of our media, by link, how much went where, and how much more may.
//!
//! A way out has one table. Where it fills its batches in turn, the table goes with the batch that is being filled, so that a change
//! holds for every datagram reserved after it.

use ringmain_shared::{DropReason, Now};

use super::bandwidth::Bandwidth;
use super::prefix::{OVERHEAD_MAX, Prefix};
use crate::io::{Path, SocketIndex};

/// What limits a link, where anything does: what its user may relay, and what all may.
pub type LinkBudgets = [Option<Bandwidth>; 2];

/// What goes around datagrams that are sent to links.
#[derive(Debug, Default)]
pub struct LinkTable {
    links: Vec<LinkOut>,
    /// Those that were sent to since they were last asked for.
    used: Vec<SocketIndex>,
    /// What links may add to a datagram; nothing while there is none.
    overhead: usize,
    /// The moment of this turn, up to which budgets are filled again.
    now: Now,
}

/// A link's way out.
#[derive(Clone, Debug, Default)]
struct LinkOut {
    /// The path that our media knows it by, and what goes around datagrams there.
    open: Option<(Path, Prefix)>,
    budgets: LinkBudgets,
    datagrams: u64,
    bytes: u64,
}

impl LinkTable {
    /// What is sent to a link goes on with this around it; `None` closes the link. Numbers are used again, so the whole path counts.
    pub fn set(&mut self, path: Path, prefix: Option<Prefix>) {
        if let Some(out) = self.place(path.socket) {
            out.open = prefix.map(|prefix| (path, prefix));
            self.overhead = OVERHEAD_MAX;
        }
    }

    /// Whoever has this number sends within these budgets from here on.
    pub fn limit(&mut self, link: SocketIndex, budgets: LinkBudgets) {
        if let Some(out) = self.place(link) {
            out.budgets = budgets;
        }
    }

    /// A turn begins.
    #[inline]
    pub fn begin_turn(&mut self, now: Now) {
        self.now = now;
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

    /// What goes around datagrams to a link, if one may be sent there.
    pub(super) fn prefix(&self, path: Path) -> Result<&Prefix, DropReason> {
        let out = path.socket.link_number().and_then(|number| self.links.get(number));
        let out = out.ok_or(DropReason::TurnNoPermission)?;
        let open = out.open.as_ref().filter(|(open, _)| *open == path);
        let (_, prefix) = open.ok_or(DropReason::TurnNoPermission)?;
        if out.budgets.iter().flatten().any(|budget| !budget.is_open(self.now)) {
            return Err(DropReason::TurnBandwidth);
        }
        Ok(prefix)
    }

    /// A datagram of so many bytes goes to a link, with this around it.
    pub(super) fn count(&mut self, link: SocketIndex, size: usize) -> Option<&Prefix> {
        let out = self.links.get_mut(link.link_number()?)?;
        let (_, prefix) = out.open.as_ref()?;
        if out.datagrams == 0 {
            self.used.push(link);
        }
        out.datagrams += 1;
        out.bytes += size as u64;
        out.budgets.iter().flatten().for_each(|budget| budget.charge(size, self.now));
        Some(prefix)
    }

    fn place(&mut self, link: SocketIndex) -> Option<&mut LinkOut> {
        let number = link.link_number()?;
        if self.links.len() <= number {
            self.links.resize(number + 1, LinkOut::default());
            self.used.reserve(number + 1 - self.used.len());
        }
        self.links.get_mut(number)
    }
}
