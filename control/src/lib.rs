//! Ringmain's control plane: it decides who hears and sees whom, and never touches a media byte.
//!
//! The path of a request, room by room: [`http`] → [`app`] → [`rpc`] → [`session`] → [`sdp`] → commands to the data plane, and back.
//! [`turn`] is the control side of the TURN server: what it is told at start, credentials, and the operator's socket.
//! [`load`] is none of it: it is a client, to measure this server or another.

pub mod app;
pub mod config;
pub mod http;
pub mod load;
pub mod rpc;
pub mod sdp;
pub mod session;
pub mod turn;
