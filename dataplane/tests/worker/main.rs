//! A worker through its public door: datagrams, commands and virtual time in, datagrams and events out.

#![allow(missing_docs, unreachable_pub, reason = "a test has no readers but itself")]

mod between;
mod forwarding;
mod layers;
mod media;
mod naps;
mod paths;
mod repair;
mod reports;
mod spread;
mod turn;
mod world;
