//! Every bound in one place: how much of anything there may be, and for how long. Each adds up its holders by name.

use std::time::Duration;

/// Bytes of a UDP datagram that are used; longer ones are dropped. An Ethernet MTU, which is what peers send.
pub const DATAGRAM_SIZE_MAX: usize = 1500;

/// Bytes of a UDP datagram that a link takes in: a Binding request that is padded with an Ethernet MTU, lest it fit one (RFC 5780 §7.6).
pub const RECEIVED_SIZE_MAX: usize = 1536;

/// Published SSRCs of one transport (media and retransmission).
pub const SSRCS_PER_TRANSPORT_MAX: usize = 64;

/// Remote addresses that one transport may prove at a time.
pub const REMOTES_PER_TRANSPORT_MAX: usize = 8;

/// Simulcast layers of a track.
pub const LAYERS_MAX: usize = 3;

/// STUN requests that a transport may have verified per second, and at once.
pub const STUN_PER_SECOND: u32 = 100;
/// STUN requests that a transport may have verified at once.
pub const STUN_BURST: u32 = 50;

/// RTCP datagrams that a transport may have read per second: feedback at every frame, and requests between.
pub const RTCP_PER_SECOND: u32 = 1000;
/// RTCP datagrams that a transport may have read at once.
pub const RTCP_BURST: u32 = 500;
/// DTLS datagrams that a transport may hand to the handshake thread per second: 20 Mb/s of data channels.
pub const DTLS_PER_SECOND: u32 = 2000;
/// DTLS datagrams that a transport may hand over at once; half of the ring, so that one peer does not fill it alone.
pub const DTLS_BURST: u32 = HANDSHAKE_RING as u32 / 2;

/// Time without a valid check from the peer before ICE is called disconnected.
pub const ICE_DISCONNECTED: Duration = Duration::from_secs(7);
/// Time without consent after which nothing is sent (RFC 7675 §5.1).
pub const ICE_CONSENT: Duration = Duration::from_secs(30);
/// Mean time between our consent checks (RFC 7675 §5.1), randomised by ±20 %.
pub const ICE_CONSENT_INTERVAL: Duration = Duration::from_secs(5);
/// The age that consent may reach while nothing is sent; with what is left of `ICE_CONSENT` for checks that are lost.
pub const ICE_CONSENT_IDLE: Duration = Duration::from_secs(24);
/// Time in which an opened transport must connect, or a failed one restart, before it is closed.
pub const TRANSPORT_ABANDONED: Duration = Duration::from_secs(60);
/// Time for a DTLS handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(15);
/// DTLS handshakes under way at a time. About 100 KiB each until they are done; beyond, a new ClientHello is dropped and its client tries
/// again. As many ClientHellos may wait for their handshakes to become possible.
pub const HANDSHAKES_MAX: usize = 1024;
/// Bytes of a ClientHello, in as many fragments as it takes; post-quantum key shares make them 2 KiB.
pub const CLIENT_HELLO_SIZE_MAX: usize = 4 * 1024;
/// Bytes of a peer's DTLS certificate in DER.
pub const CERTIFICATE_SIZE_MAX: usize = 16 * 1024;

/// Bytes in one data channel message, either way.
pub const CHANNEL_MESSAGE_SIZE_MAX: usize = 64 * 1024;
/// Bytes waiting to be sent to one slow reader; then messages to it are dropped (unreliable) or it is closed (reliable).
pub const CHANNEL_BUFFER_SIZE_MAX: usize = 1024 * 1024;
/// Data channels of one transport.
pub const CHANNELS_PER_TRANSPORT_MAX: usize = 64;
/// Messages that wait for a transport's API channel to open.
pub const CHANNEL_API_WAITING_MAX: usize = 64;
/// API messages that a transport may send per second. A page asks for layers a few times a second, and for those of all its
/// tiles at once.
pub const API_PER_SECOND: u32 = 100;
/// API messages that a transport may send at once.
pub const API_BURST: u32 = 200;
/// Bytes of API messages that a transport may send per second.
pub const API_BYTES_PER_SECOND: u32 = 64 * 1024;
/// Bytes of API messages that a transport may send at once: the longest passes.
pub const API_BYTES_BURST: u32 = 2 * CHANNEL_MESSAGE_SIZE_MAX as u32;
/// Bytes of a data channel's label.
pub const CHANNEL_LABEL_SIZE_MAX: usize = 256;

/// Sub-packets of one compound RTCP datagram.
pub const RTCP_PACKETS_MAX: usize = 16;
/// Report blocks of one RTCP packet.
pub const RTCP_BLOCKS_MAX: usize = 31;
/// FCI entries of one generic NACK.
pub const RTCP_NACK_ENTRIES_MAX: usize = 64;
/// Packet statuses of one transport-wide feedback.
pub const RTCP_TWCC_STATUSES_MAX: usize = 8192;

/// Least time between two keyframe requests to one layer.
pub const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);

/// Packets that a layer's retransmission cache keeps. 1024 is 2 s of a 4 Mb/s layer.
pub const CACHE_PACKETS: usize = 1024;

/// Commands waiting for a worker.
pub const COMMAND_RING: usize = 4096;
/// Events waiting for control.
pub const EVENT_RING: usize = 8192;
/// Datagrams waiting for the handshake thread from one worker, and back.
pub const HANDSHAKE_RING: usize = 1024;
/// Messages waiting for the stream thread from one worker, and back.
pub const STREAM_RING: usize = 1024;
/// Packets waiting for another worker, of rooms and of clients of TURN, and what else the two have to tell each other.
pub const RELAY_RING: usize = 1024;

/// Transports of one worker.
pub const TRANSPORTS_PER_WORKER_MAX: usize = 16 * 1024;

/// Bytes of one signalling message. Offers are held to 64 KiB by their parser; an answer to fifty tracks takes 50–170 KiB.
pub const SIGNAL_MESSAGE_SIZE_MAX: usize = 256 * 1024;
