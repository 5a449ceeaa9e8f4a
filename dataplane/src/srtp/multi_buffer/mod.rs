//! Many packets at once, on intel-ipsec-mb: HMAC-SHA1 of sixteen packets side by side in AVX-512 registers, and AES-GCM that is quick
//! on small packets. Only for packets that we send: their lengths are ours and their payload came from an authenticated peer, so
//! nothing that a stranger made reaches C.
//!
//! Contents: [`library`] is what the library is asked for, and the only `unsafe` of this room; [`Sealer`] gathers packets in the
//! transmit batch and seals them together.
//! In a build without the cargo feature `multi-buffer`, `absent.rs` has the same names and nothing behind them.
//!
//! Where the CPU lacks AVX-512 with VAES, the default backend stays: what this one does there was never measured.

mod library;
mod sealer;
#[cfg(test)]
mod tests;

pub(crate) use library::{CmKey, GcmKey, version};
pub(crate) use sealer::Sealer;
