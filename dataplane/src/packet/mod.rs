//! What is on the wire, as views and writers: no copy, no allocation, no state beyond one packet, no panic on any input.
//! Bytes come from strangers here, so every offset is checked once, on the way in; what cannot be read is a `DropReason`.
//!
//! [`demux`] names the protocol by the first bytes, then [`stun`], [`rtp`] with its header extensions in [`ext`], [`rtcp`],
//! and, inside of an RTP payload, [`codec`].

pub mod codec;
pub mod demux;
pub mod ext;
pub mod rtcp;
pub mod rtp;
pub mod stun;

pub(crate) mod bytes;
#[cfg(test)]
mod hammer;
