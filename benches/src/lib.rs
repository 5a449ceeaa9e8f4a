//! What the benches share.
//!
//! * [`peers`]: who is there, and what they send; [`room`]: all of them on one worker, without a kernel.
//! * [`wire`]: what datagrams go out to: loopback, or a virtual cable whose far end counts and drops.
//! * [`floor`]: the kernel and the cipher alone; [`engine`]: a worker on real sockets; [`on_tokio`]: the same on tokio-uring.
//! * [`pairs`]: clients of a relay with their peers; [`relay_server`] and [`bare`]: a worker that relays, and a loop that only receives
//!   and sends; [`process`]: servers that are processes of their own.
//! * [`measure`]: CPU time, rounds that take turns; [`report`]: one number beside its baseline and its goal; [`machine`]: where it
//!   was measured; [`chart`], [`table`]: all of it as a picture and as a page.
//! * [`upload`]: a publisher on its way through TURN, over one worker or two; [`counting`]: what was allocated.

#![allow(missing_docs, reason = "benches have no readers but themselves")]

pub mod bare;
pub mod chart;
pub mod counting;
pub mod engine;
pub mod floor;
pub mod machine;
pub mod measure;
pub mod on_tokio;
pub mod pairs;
pub mod peers;
pub mod process;
pub mod relay_server;
pub mod report;
pub mod room;
pub mod table;
pub mod upload;
pub mod wire;

pub use peers::*;
