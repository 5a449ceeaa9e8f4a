//! Memory that datagrams lie in: received ones, and those on their way out.
//!
//! [`RxBatch`] is what a link took in this turn, [`TxBatch`] what the turn gives it to send. Both are views of a [`Slab`], which is
//! allocated once and never moves, so that the kernel may keep addresses into it.

mod bandwidth;
mod links;
mod prefetch;
mod prefix;
mod rx;
mod slab;
#[cfg(test)]
mod tests;
mod tx;

pub use bandwidth::{Bandwidth, Reserve};
pub use links::{LinkBudgets, LinkTable};
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) use prefetch::word_of;
pub use prefetch::{prefetch, prefetch_behind, prefetch_element, prefetch_whole};
pub use prefix::{PREFIX_SIZE_MAX, Prefix};
pub use rx::{RX_BATCH_MAX, RxBatch};
pub use slab::Slab;
pub use tx::{TRAIN_SEGMENTS_MAX, TRAIN_SIZE_MAX, TRAINS_PER_BATCH_MAX, TX_ARENA_SIZE, Train, TxBatch, TxSlot};
