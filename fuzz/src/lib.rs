//! What strangers can send, thrown at every room that reads it. Each function here is the body of one fuzz target: it takes
//! any bytes and panics when a promise is broken. The targets in `fuzz_targets/` hand them libFuzzer's inputs; the test
//! `tests/corpus.rs` hands them everything in `corpus/`, in plain `cargo test`.
//!
//! Single packets: [`stun`], [`demux`], [`rtp`], [`rtcp`], [`codec`], [`dcep`], [`dtls_client_hello`]; byte streams: [`stream`]; text:
//! [`sdp`], [`json_rpc`]; there and back again: [`rtp_rewrite`], [`srtp`], [`dtls_records`], [`turn_token`]; whole conversations, where
//! the input is a list of steps under virtual time: [`receive`], [`ice`], [`dtls_flight`], [`dtls_established`], [`turn`],
//! [`turn_model`], [`turn_tcp_model`], [`worker`].
//!
//! `scripts/fuzz [seconds [target]]` runs them with AddressSanitizer. By hand, on a stable toolchain:
//!
//! ```text
//! cargo install --locked cargo-fuzz
//! RUSTC_BOOTSTRAP=1 cargo fuzz run stun --fuzz-dir fuzz --features libfuzzer -- -max_total_time=60
//! ```
//!
//! A crash is written to `fuzz/artifacts/<target>/`; put it into `fuzz/corpus/<target>/` with the fix, where it stays.
//! `cargo run -p ringmain-fuzz --example seeds` writes the hand-made beginnings of the corpus again.

mod conversation;
mod established;
mod handshake;
mod ice;
mod input;
mod packet;
mod receive;
mod records;
mod records13;
mod rewrite;
mod signalling;
mod srtp;
mod stream;
mod turn;
mod turn_tcp;
mod turn_token;
mod worker;

pub use established::dtls_established;
pub use handshake::{dcep, dtls_client_hello, dtls_flight};
pub use ice::ice;
pub use input::{Input, Output};
pub use packet::{codec, demux, rtcp, rtp, stun};
pub use receive::receive;
pub use records::dtls_records;
pub use rewrite::rtp_rewrite;
pub use signalling::{json_rpc, sdp};
pub use srtp::srtp;
pub use stream::stream;
pub use turn::{turn, turn_model};
pub use turn_tcp::turn_tcp_model;
pub use turn_token::turn_token;
pub use worker::worker;

/// The body of a fuzz target.
pub type Body = fn(&[u8]);

/// Every target by its name, which is also that of its corpus.
pub const TARGETS: [(&str, Body); 22] = [
    ("stun", stun),
    ("demux", demux),
    ("rtp", rtp),
    ("rtp_rewrite", rtp_rewrite),
    ("srtp", srtp),
    ("rtcp", rtcp),
    ("codec", codec),
    ("sdp", sdp),
    ("json_rpc", json_rpc),
    ("dcep", dcep),
    ("dtls_client_hello", dtls_client_hello),
    ("dtls_records", dtls_records),
    ("dtls_flight", dtls_flight),
    ("dtls_established", dtls_established),
    ("stream", stream),
    ("receive", receive),
    ("ice", ice),
    ("turn", turn),
    ("turn_model", turn_model),
    ("turn_tcp_model", turn_tcp_model),
    ("turn_token", turn_token),
    ("worker", worker),
];
