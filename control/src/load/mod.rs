//! `ringmain load`: publishers and subscribers against any server that speaks ion-sfu's dialect, over real UDP with real ICE,
//! DTLS and SRTP. It tells what arrived, how late, and what it cost the server.
//!
//! It is a witness, so it shares no code with the data plane: DTLS is `dimpl`'s, SCTP that of `sctp-proto`, SRTP, RTP and RTCP are
//! those of `webrtc-rs`, ICE and SDP are written here for a client's needs.
//!
//! Room by room: [`options`] → [`target`] (whom it is allowed to load) → [`run`] (a run from beginning to end) → [`crowd`] (who
//! joins when) → [`client`] (signalling over a [`wire`]) with [`sdp`] → [`engine`] (the thread with the sockets) → [`transport`] (made of
//! [`ice`], [`stun`], [`secure`] and [`channels`]) → [`publisher`] with [`frames`], or [`subscriber`] with [`sequence`] and [`arrivals`];
//! [`messages`] on data channels. Every packet ends in a [`mark`]; what is counted goes to a [`tally`]; [`server`] reads the server's CPU;
//! [`report`] prints.
//!
//! A subscriber counts every packet by its header and opens one in so many, so that the load stays light beside the server
//! that it measures. What it cannot see is its own share: over loopback the server pays for the kernel work of receiving too,
//! and delays include the time until this process has read a packet.

mod arrivals;
mod chance;
mod channels;
mod client;
mod crowd;
mod engine;
mod frames;
mod histogram;
mod ice;
mod inbox;
mod mark;
mod messages;
mod options;
mod publisher;
mod report;
mod run;
mod sdp;
mod secure;
mod sequence;
mod server;
mod stun;
mod subscriber;
mod tally;
mod target;
mod transport;
mod wire;

#[cfg(test)]
mod tests;

pub use options::Options;
pub use run::run;
