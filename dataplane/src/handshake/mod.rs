//! DTLS and SCTP: everything of a transport that is too slow for a worker's turn, on a thread beside the workers.
//!
//! A worker passes DTLS datagrams of authenticated addresses in, and word when one of them is proved; [`Handshaker`] answers with datagrams
//! to send and, when the handshake is done and the certificate is the one that the SDP promised, with the SRTP keys. Afterwards the same
//! DTLS association carries SCTP with the data channels of the room.
//!
//! * [`identity`]: our certificate; whether a peer's matches its fingerprint.
//! * [`client_hello`]: the first look at a peer's DTLS, before any engine exists.
//! * [`dtls`]: the two engines, behind one door.
//! * [`handshaker`]: every transport's way from first datagram to last, and its deadlines.
//! * [`sctp`], [`dcep`]: one association's streams; how channels are opened on them.
//! * [`channels`]: which message goes to whom.
//!
//! Bytes, commands and time come in, values go out; no clock and no socket is touched. Rooms live in one `Handshaker`: where
//! there are several, all transports of a room go to the same one.
//!
//! # What an idle subscriber takes
//!
//! What makes a handshake is let go of when it is done, OpenSSL's 54 KiB and `dimpl`'s 14 KiB: keys, counters and replay windows are what
//! an idle connection needs. Bytes asked of the allocator for each of 2000 subscribers with one connection over DTLS 1.3 and without a data
//! channel, a minute after they joined (`heaptrack`, with the system's allocator in place of mimalloc):
//!
//! | bytes | who |
//! | ---: | --- |
//! | 480 | here: `Established`, the DTLS association |
//! | 560 | here: `Transport`, and its place in its room |
//! | 2,620 | worker: keys of SRTP and SRTCP both ways, as aws-lc expands them (4 × 592, and their boxes) |
//! | 1,370 | worker: the transport itself, in its slot map |
//! | 3,700 | control: buffers of the WebSocket, 2,048 for reading and the longest message so far for writing |
//! | 2,260 | control: the task of the WebSocket, its socket, its line to the actor |
//! | 1,850 | control: the peer, its connection and its SDP |
//!
//! That is 12.5 KiB. What is resident is more: 21.5 KiB for each of 9000 by `ringmain load`, with what rings and allocators keep, of which
//! many have a smaller share than few. Until SCTP has found that a peer has no data channels, a minute, there are 2.7 KiB of it as well.
//! As a client of DTLS 1.3, which we are for peers only that insist on it, `dimpl` stays.

mod channels;
mod client_hello;
mod dcep;
mod dtls;
mod handshaker;
mod identity;
mod sctp;
#[cfg(test)]
mod tests;

use ringmain_shared::event::{CloseReason, Event};
use ringmain_shared::id::{TransportId, WorkerIndex};
use ringmain_shared::transport::{RemotePeer, TransportSpec};

pub use client_hello::{Assembler, ClientHello, Early};
pub use dcep::{Limit, Message, Open, Reliability, ack as dcep_ack, open as dcep_open, parse as dcep_parse};
pub(crate) use dtls::pipe;
pub use dtls::{Datagram, SrtpKeys, records};
pub use handshaker::{HandshakeConfig, Handshaker};
pub use identity::{Identity, SetupError};
pub use ringmain_shared::event::HandshakeStats;

/// What comes to the handshake thread. About an unknown transport it does nothing.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "datagrams are the common case, and lie in place instead of on the heap")]
pub enum ToHandshake {
    /// A new transport.
    Open {
        /// Which worker sends and receives for it.
        worker: WorkerIndex,
        /// The transport.
        spec: Box<TransportSpec>,
    },
    /// The peer has answered: its fingerprints are known. Has no effect on a handshake that is done.
    SetRemote {
        /// Which transport.
        transport: TransportId,
        /// What the peer's SDP said.
        remote: RemotePeer,
    },
    /// End it: close_notify goes to the peer, nothing comes back.
    Close {
        /// Which transport.
        transport: TransportId,
    },
    /// A DTLS datagram from an address that a valid check came from.
    Datagram {
        /// Which transport.
        transport: TransportId,
        /// As received.
        bytes: Datagram,
    },
    /// ICE has proved a path to the peer: where we are the DTLS client, we may begin.
    Validated {
        /// Which transport.
        transport: TransportId,
    },
    /// Send text on the API channel, when it is open.
    SendApi {
        /// A subscriber's transport.
        transport: TransportId,
        /// One message.
        text: String,
    },
}

/// What comes from the handshake thread.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "datagrams are the common case, and lie in place instead of on the heap")]
pub enum FromHandshake {
    /// Send this to the transport's selected address.
    Datagram {
        /// Whose transport it is.
        worker: WorkerIndex,
        /// Which transport.
        transport: TransportId,
        /// One datagram.
        bytes: Datagram,
    },
    /// The handshake is done and the certificate is the promised one.
    Keys {
        /// Whose transport it is.
        worker: WorkerIndex,
        /// Which transport.
        transport: TransportId,
        /// For SRTP, both directions.
        keys: SrtpKeys,
    },
    /// The transport is over, and forgotten here.
    Closed {
        /// Whose transport it is.
        worker: WorkerIndex,
        /// Which transport.
        transport: TransportId,
        /// Why.
        reason: CloseReason,
    },
    /// For control: `ApiOpen` and `ApiMessage`.
    Event(Event),
}
