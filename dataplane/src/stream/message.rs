//! What stream threads and workers tell each other, as plain values over rings.

use std::net::SocketAddr;

use ringmain_shared::Now;
use ringmain_shared::turn::TurnTransport;

use crate::io::Path;

/// One connection, for as long as it lasts; never used again for another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct StreamId(pub u64);

/// Who is at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StreamClient {
    /// Theirs.
    pub remote: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
    /// TCP, TLS or DTLS.
    pub transport: TurnTransport,
}

/// From a stream thread to a worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromStream {
    /// A client speaks TURN; all its messages go to this worker.
    Opened {
        /// Its name from here on.
        id: StreamId,
        /// Who it is.
        client: StreamClient,
    },
    /// One STUN or ChannelData message of it, without padding.
    Message {
        /// Whose.
        id: StreamId,
        /// At most `frame::TURN_MESSAGE_SIZE_MAX`.
        bytes: Vec<u8>,
    },
    /// It is gone.
    Closed {
        /// Who.
        id: StreamId,
    },
    /// A datagram of ICE-TCP, as if it had come by this path.
    Datagram {
        /// On a virtual socket.
        path: Path,
        /// At most `limits::DATAGRAM_SIZE_MAX`.
        bytes: Vec<u8>,
    },
    /// The connection of a client of ICE-TCP is gone.
    PathClosed {
        /// As in its datagrams.
        path: Path,
    },
    /// Something about peers of relays.
    Peer(PeerNews),
}

/// From a worker to a stream thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToStream {
    /// A message for a client.
    Message {
        /// Which.
        id: StreamId,
        /// STUN or ChannelData, without padding.
        bytes: Vec<u8>,
        /// When the client's allocation ends, as things stand; it may be silent until then. Past, or zero, without one.
        held_until: Now,
    },
    /// A datagram for a client of ICE-TCP.
    Datagram {
        /// On a virtual socket.
        path: Path,
        /// One datagram.
        bytes: Vec<u8>,
    },
    /// End the connection of a client of ICE-TCP, whose transport is gone, once what was sent to it has left.
    ClosePath {
        /// As in its datagrams.
        path: Path,
    },
    /// End a connection, a client's or a peer's, once what was sent to it has left.
    Close {
        /// Which.
        id: StreamId,
    },
    /// Something to do about peers of relays.
    Peer(PeerOrder),
}

/// About peers of relays that come by TCP (RFC 6062), from a stream thread to a worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerNews {
    /// The answer to [`PeerOrder::Connect`].
    Connected {
        /// As asked.
        request: u64,
        /// The connection to the peer, which waits to be joined; or it could not be made.
        peer: Option<StreamId>,
    },
    /// The answer to [`PeerOrder::Listen`].
    Listening {
        /// As asked.
        request: u64,
        /// Where; or it could not be.
        address: Option<SocketAddr>,
    },
    /// A peer has connected to a relay's listener, and waits to be joined.
    Arrived {
        /// The listener's request.
        request: u64,
        /// The peer's connection.
        id: StreamId,
        /// The peer.
        peer: SocketAddr,
    },
    /// So many bytes passed between a peer and the client that it is joined to. Comes when half of the credit is used, when it is over,
    /// and once a second.
    Relayed {
        /// The peer's connection.
        peer: StreamId,
        /// Bytes since this was last told.
        to_peer: u32,
        /// The same, the other way.
        to_client: u32,
    },
}

/// The same, from a worker to a stream thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerOrder {
    /// RFC 6062 §5.2: open a connection to a peer from a relayed address.
    Connect {
        /// Comes back in [`PeerNews::Connected`].
        request: u64,
        /// The relayed address.
        local: SocketAddr,
        /// The peer, which the relay permits.
        peer: SocketAddr,
        /// The peer is a relayed address itself: only if one of our listeners is there.
        relayed: bool,
    },
    /// Nobody waits for that any more.
    StopConnecting {
        /// As in [`PeerOrder::Connect`].
        request: u64,
    },
    /// RFC 6062 §5.1: accept connections of peers at a relayed address.
    Listen {
        /// Comes back in [`PeerNews::Listening`] and [`PeerNews::Arrived`].
        request: u64,
        /// The relayed address.
        address: SocketAddr,
    },
    /// Accept no more; the connections that were accepted stay.
    StopListening {
        /// As in [`PeerOrder::Listen`].
        request: u64,
    },
    /// A peer that arrived is permitted, and may wait to be joined.
    Admit {
        /// The peer's connection.
        peer: StreamId,
    },
    /// RFC 6062 §5.4: from here on, bytes of the one are bytes of the other, both ways, as far as there is credit.
    Join {
        /// The client's data connection.
        client: StreamId,
        /// The peer's.
        peer: StreamId,
        /// What the client is to be told before the bytes begin.
        answer: Vec<u8>,
    },
    /// So many bytes more, both ways together.
    Grant {
        /// The peer's connection.
        peer: StreamId,
        /// How many.
        bytes: u32,
    },
    /// End a peer's connection and its client's at once, whatever waits to be written.
    Cut {
        /// The peer's.
        peer: StreamId,
    },
}
