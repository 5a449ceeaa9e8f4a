//! Clients that come by TCP, TLS or DTLS instead of plain UDP, up to the point where they are messages like any other.
//!
//! | room | what |
//! | --- | --- |
//! | [`classify`] | which protocol a connection speaks, by its first bytes: one port may carry them all |
//! | [`frame`] | messages out of a byte stream and into one (RFC 8656 §12.5 and RFC 8489 §6.2.2; RFC 4571) |
//! | [`queue`] | bytes that wait for a slow reader, bounded |
//! | [`admission`] | how many connections an address may have |
//! | [`connection`] | all of it for one connection, TLS included: bytes and time in, messages and bytes out |
//! | [`cookie`] | who may cause state by DTLS: those who prove their address first |
//! | [`dtls`] | one client over DTLS |
//! | [`message`] | what stream threads and workers tell each other |
//!
//! No sockets and no clock here; [`crate::plane`]'s stream loop has them. These threads work beside the workers: TLS and the kernel's
//! TCP are slow, and a client on TCP has given up on latency anyway.

pub mod admission;
pub mod classify;
pub mod connection;
pub mod cookie;
pub mod dtls;
pub mod frame;
pub mod message;
pub mod queue;
#[cfg(test)]
mod tests;

pub use message::{FromStream, PeerNews, PeerOrder, StreamClient, StreamId, ToStream};
