//! Ringmain's data plane: pinned workers that receive, decrypt, forward, encrypt and send media.
//!
//! The path of a packet, room by room: [`io`] → [`packet`] → [`transport`] → [`srtp`] → [`receive`] → [`forward`] → [`srtp`] → [`io`],
//! driven by [`worker`]. DTLS and SCTP are slow and live apart, in [`handshake`], as do clients on TCP and TLS, in [`stream`].
//! [`turn`] relays for those who reach nobody directly. [`plane`] starts the threads and joins the rings.

pub mod buf;
pub mod forward;
pub mod handshake;
pub mod io;
pub mod packet;
pub mod plane;
pub mod random;
pub mod receive;
pub mod srtp;
pub mod stream;
pub mod transport;
pub mod turn;
pub mod worker;
