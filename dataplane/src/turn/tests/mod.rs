//! A TURN server and its clients in virtual time: sockets are pretended, every byte is real.

mod authentication;
mod connections;
mod discovery;
mod lifetimes;
mod limits;
mod relays;
mod third_party;
mod world;
