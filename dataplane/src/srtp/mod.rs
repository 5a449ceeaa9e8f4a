//! SRTP and SRTCP in place (RFC 3711, RFC 7714): the only door by which media bytes become clear, and the last before they leave.
//!
//! Contents: [`Profile`] says how long things are; [`MasterKey`] and [`split_keying_material`] turn what DTLS exported into keys
//! that carry their direction; [`Inbound`] makes [`RtpClear`] and [`RtcpClear`], which nothing else can make; [`Outbound`] seals.
//! A packet that fails changes no state: rollover counters, replay windows and the list of SSRCs move only after its tag was right.
//! [`multi_buffer`] seals many packets at once, in builds that have it. [`backend`] says which ciphers are in use.
//! No clocks, no sockets, no randomness, and no allocation for a packet of a known SSRC.

mod cipher;
mod clear;
mod cm;
mod gcm;
mod header;
mod inbound;
mod index;
mod keys;
#[cfg_attr(not(feature = "multi-buffer"), path = "multi_buffer/absent.rs")]
pub(crate) mod multi_buffer;
mod outbound;
mod profile;
mod streams;
mod window;

#[cfg(test)]
mod tests;

pub(crate) use cipher::{Nonce, Waiting};
pub use clear::{ClearRtcp, ClearRtp, RtcpClear, RtpClear};
pub use inbound::Inbound;
pub use keys::{InboundKeys, MasterKey, OutboundKeys, split_keying_material};
pub use outbound::Outbound;
pub use profile::Profile;

/// What seals packets in this process, for the operator.
pub fn backend() -> std::borrow::Cow<'static, str> {
    match multi_buffer::version() {
        Some(version) => format!("intel-ipsec-mb {version}, in bursts").into(),
        None => "aws-lc".into(),
    }
}
