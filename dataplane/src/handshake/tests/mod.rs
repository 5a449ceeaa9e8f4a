//! A handshaker against DTLS and SCTP peers of other makes, under loss, junk and lies, in virtual time.

mod channels;
mod dtls;
mod dtls12;
mod dtls13;
mod world;
