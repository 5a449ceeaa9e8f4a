//! One SCTP association over DTLS (RFC 8261), by `sctp-proto`: packets and time in, packets and messages out.
//! Knows streams and messages; what a stream is for is [`channels`](super::channels)' business.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringmain_shared::limits::{CHANNEL_BUFFER_SIZE_MAX, CHANNEL_MESSAGE_SIZE_MAX, CHANNELS_PER_TRANSPORT_MAX};
use ringmain_shared::transport::DtlsRole;
use sctp_proto::Payload;
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, EndpointEvent, Event,
    PayloadProtocolIdentifier as Ppid, ReliabilityType, ServerConfig, StreamEvent, TransportConfig,
};

use super::dcep::{Limit, Reliability};

/// Configuration that all associations share.
pub(super) struct Setup {
    endpoint: Arc<EndpointConfig>,
    server: Arc<ServerConfig>,
    transport: Arc<TransportConfig>,
}

impl Setup {
    pub(super) fn new() -> Self {
        let transport = Arc::new(
            TransportConfig::default()
                .with_max_receive_buffer_size(CHANNEL_BUFFER_SIZE_MAX as u32)
                .with_max_send_message_size(CHANNEL_MESSAGE_SIZE_MAX as u32)
                .with_max_receive_message_size(CHANNEL_MESSAGE_SIZE_MAX as u32)
                .with_max_num_inbound_streams(STREAMS_MAX)
                .with_max_num_outbound_streams(STREAMS_MAX)
                .with_rto_initial_ms(500)
                .with_rto_min_ms(400)
                .with_rto_max_ms(10_000),
        );
        let mut server = ServerConfig::new();
        server.transport = transport.clone();
        let mut endpoint = EndpointConfig::new();
        endpoint.max_payload_size(PAYLOAD_SIZE_MAX);
        Self { endpoint: Arc::new(endpoint), server: Arc::new(server), transport }
    }
}

/// One association, from before its first packet on.
pub(super) struct Sctp {
    endpoint: Endpoint,
    transport: Arc<TransportConfig>,
    association: Option<(AssociationHandle, Association)>,
    established: bool,
    lost: bool,
    /// When we begin, if the peer has not until then.
    connect_at: Option<Instant>,
    /// Streams that were reset while data waited in them: it still counts.
    closing: Vec<u16>,
}

/// What an association has to say.
#[derive(Debug)]
pub(super) enum Heard {
    /// Channels can be opened.
    Up,
    /// A whole message.
    Message { stream: u16, ppid: Ppid, bytes: Bytes },
    /// The peer has closed a stream.
    Reset { stream: u16 },
    /// The association is over.
    Lost,
}

impl Sctp {
    /// `role`: of ours in DTLS. Its client begins first (RFC 8832 §6 leaves it open; in practice nearly every peer begins
    /// itself, whatever its role), so we leave the peer a moment and avoid the collision.
    pub(super) fn new(setup: &Setup, role: DtlsRole, now: Instant) -> Self {
        let patience = match role {
            DtlsRole::Client => CLIENT_PATIENCE,
            DtlsRole::Server => SERVER_PATIENCE,
        };
        Self {
            endpoint: Endpoint::new(setup.endpoint.clone(), Some(setup.server.clone())),
            transport: setup.transport.clone(),
            association: None,
            established: false,
            lost: false,
            connect_at: Some(now + patience),
            closing: Vec::new(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.established && !self.lost
    }

    /// It is over, and nothing will come of it any more.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    pub(super) fn handle_packet(&mut self, packet: Bytes, now: Instant) {
        // A late duplicate of the peer's INIT would be a protocol error to the engine and end the association; a restart
        // (RFC 9260 §5.2) goes with a new DTLS association in WebRTC.
        let is_init = packet.get(COMMON_HEADER_SIZE) == Some(&CHUNK_INIT);
        if self.lost || (self.established && is_init) {
            return;
        }
        match self.endpoint.handle(now, PEER, None, None, packet) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                // The peer has begun. An attempt of our own gives way: two half-open associations would never meet.
                self.connect_at = None;
                if let Some((previous, _)) = self.association.replace((handle, association)) {
                    self.endpoint.handle_event(previous, EndpointEvent::drained());
                }
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => match &mut self.association {
                Some((current, association)) if *current == handle => association.handle_event(event),
                _ => {}
            },
            None => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.connect_at.is_some_and(|at| at <= now) {
            self.connect_at = None;
            let mut config = ClientConfig::new();
            config.transport = self.transport.clone();
            self.association = self.endpoint.connect(config, PEER).ok();
            self.lost = self.association.is_none();
        }
        if let Some((_, association)) = &mut self.association
            && association.poll_timeout().is_some_and(|at| at <= now)
        {
            association.handle_timeout(now);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let timer =
            self.association.as_ref().filter(|_| !self.lost).and_then(|(_, association)| association.poll_timeout());
        [self.connect_at, timer].into_iter().flatten().min()
    }

    /// Everything that was heard since the last call.
    pub(super) fn poll(&mut self, out: &mut Vec<Heard>) {
        let Some((_, association)) = &mut self.association else { return };
        while let Some(event) = association.poll() {
            match event {
                Event::Connected => {
                    self.established = true;
                    out.push(Heard::Up);
                    for id in association.stream_ids() {
                        read(association, id, out);
                    }
                }
                Event::Stream(StreamEvent::Opened { id } | StreamEvent::Readable { id }) => {
                    while association.accept_stream().is_some() {}
                    // Data may overtake the COOKIE ACK; nothing can be answered before that, so it waits.
                    if self.established {
                        read(association, id, out);
                    }
                }
                Event::Stream(StreamEvent::Finished { id }) => {
                    self.closing.retain(|&stream| stream != id);
                    out.push(Heard::Reset { stream: id });
                }
                Event::HandshakeFailed { .. } | Event::AssociationLost { .. } if !self.lost => {
                    self.lost = true;
                    out.push(Heard::Lost);
                }
                _ => {}
            }
        }
        // RFC 9260 §6.5: streams beyond what was agreed are an error. A peer that spreads over thousands of them only costs
        // memory.
        if !self.lost && association.stream_ids().len() > usize::from(STREAMS_MAX) {
            let _ = association.close(); // cannot fail
            self.lost = true;
            out.push(Heard::Lost);
        }
    }

    /// The packets that are due.
    pub(super) fn poll_transmit(&mut self, now: Instant, out: &mut Vec<Bytes>) {
        let Some((_, association)) = &mut self.association else { return };
        while let Some(transmit) = association.poll_transmit(now) {
            if let Payload::RawEncode(packets) = transmit.payload {
                out.extend(packets);
            }
        }
    }

    /// Opens a stream for sending; `false` when it is in use or the association is not up.
    pub(super) fn open(&mut self, stream: u16) -> bool {
        let up = self.is_up();
        let Some((_, association)) = &mut self.association else { return false };
        up && association.open_stream(stream, Ppid::Binary).is_ok()
    }

    /// Queues a message; `false` when the stream is closed.
    pub(super) fn send(&mut self, stream: u16, ppid: Ppid, message: &Bytes) -> bool {
        let up = self.is_up();
        let Some((_, association)) = &mut self.association else { return false };
        up && association.stream(stream).and_then(|mut stream| stream.write_sctp(message, ppid)).is_ok()
    }

    /// What later messages on `stream` promise.
    pub(super) fn set_reliability(&mut self, stream: u16, reliability: Reliability) {
        let (kind, value) = match reliability.limit {
            Limit::Reliable => (ReliabilityType::Reliable, 0),
            Limit::Retransmits(count) => (ReliabilityType::Rexmit, count),
            Limit::LifetimeMs(ms) => (ReliabilityType::Timed, ms),
        };
        if let Some((_, association)) = &mut self.association
            && let Ok(mut stream) = association.stream(stream)
        {
            let _ = stream.set_reliability_params(!reliability.ordered, kind, value); // the stream exists
        }
    }

    /// Closes a stream in both directions (RFC 8831 §6.7).
    pub(super) fn reset(&mut self, stream: u16) {
        if let Some((_, association)) = &mut self.association
            && let Ok(mut handle) = association.stream(stream)
            && handle.close().is_ok()
            && !self.closing.contains(&stream)
        {
            self.closing.push(stream);
        }
    }

    /// Bytes queued and not yet acknowledged, on `streams` and on those that are closing.
    pub(super) fn buffered(&mut self, streams: impl Iterator<Item = u16>) -> usize {
        let Some((_, association)) = &mut self.association else { return 0 };
        streams
            .chain(self.closing.iter().copied())
            .filter_map(|stream| association.stream(stream).ok()?.buffered_amount().ok())
            .sum()
    }
}

#[cfg(test)]
impl Sctp {
    /// Bytes queued on every stream there is.
    pub(super) fn buffered_in_all(&mut self) -> usize {
        let Some((_, association)) = &mut self.association else { return 0 };
        let streams = association.stream_ids();
        streams.into_iter().filter_map(|stream| association.stream(stream).ok()?.buffered_amount().ok()).sum()
    }
}

fn read(association: &mut Association, id: u16, out: &mut Vec<Heard>) {
    let Ok(mut stream) = association.stream(id) else { return };
    while let Ok(Some(chunks)) = stream.read() {
        let mut bytes = vec![0; chunks.len()];
        if chunks.read(&mut bytes).is_ok() {
            out.push(Heard::Message { stream: id, ppid: chunks.ppi, bytes: bytes.into() });
        }
    }
}

/// The engine wants an address for its peer; DTLS has one peer only.
const PEER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000));
/// Streams either way: even and odd ids for every channel. What browsers use of their 65,535.
pub(super) const STREAMS_MAX: u16 = 4 * CHANNELS_PER_TRANSPORT_MAX as u16;
/// Bytes of user data in one packet: with SCTP's headers 1160, and with the larger of our DTLS record overheads (37) below 1200.
const PAYLOAD_SIZE_MAX: u32 = 1160 - 28;
const COMMON_HEADER_SIZE: usize = 12;
const CHUNK_INIT: u8 = 1;
/// How long a DTLS client leaves its peer to begin.
const CLIENT_PATIENCE: Duration = Duration::from_millis(100);
/// How long a DTLS server leaves its peer to begin.
const SERVER_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Carries packets between two associations until both are silent; says which of them came up.
    fn converse(a: &mut Sctp, b: &mut Sctp, now: Instant) -> (bool, bool) {
        let mut heard = Vec::new();
        loop {
            let (mut from_a, mut from_b) = (Vec::new(), Vec::new());
            a.poll(&mut heard);
            b.poll(&mut heard);
            a.poll_transmit(now, &mut from_a);
            b.poll_transmit(now, &mut from_b);
            if from_a.is_empty() && from_b.is_empty() {
                return (a.is_up(), b.is_up());
            }
            from_a.into_iter().for_each(|packet| b.handle_packet(packet, now));
            from_b.into_iter().for_each(|packet| a.handle_packet(packet, now));
        }
    }

    #[test]
    fn whoever_is_left_waiting_begins() {
        let (setup, start) = (Setup::new(), Instant::now());
        for role in [DtlsRole::Client, DtlsRole::Server] {
            let mut ours = Sctp::new(&setup, role, start);
            let mut theirs = Sctp::new(&setup, DtlsRole::Server, start);
            theirs.connect_at = None;
            assert_eq!(converse(&mut ours, &mut theirs, start), (false, false));
            let later = ours.deadline().unwrap();
            ours.handle_timeout(later);
            assert_eq!(converse(&mut ours, &mut theirs, later), (true, true), "{role:?}");
        }
    }

    #[test]
    fn our_attempt_gives_way_to_the_peers() {
        let (setup, start) = (Setup::new(), Instant::now());
        let mut ours = Sctp::new(&setup, DtlsRole::Client, start);
        let mut theirs = Sctp::new(&setup, DtlsRole::Server, start);
        let later = start + SERVER_PATIENCE;
        ours.handle_timeout(later);
        let mut lost = Vec::new();
        ours.poll_transmit(later, &mut lost);
        assert!(!lost.is_empty(), "our INIT, which the network loses");
        theirs.handle_timeout(later);
        assert_eq!(converse(&mut ours, &mut theirs, later), (true, true));
    }

    #[test]
    fn a_late_init_does_not_end_an_association() {
        let (setup, start) = (Setup::new(), Instant::now());
        let mut ours = Sctp::new(&setup, DtlsRole::Server, start);
        let mut theirs = Sctp::new(&setup, DtlsRole::Client, start);
        let later = start + CLIENT_PATIENCE;
        theirs.handle_timeout(later);
        let mut init = Vec::new();
        theirs.poll_transmit(later, &mut init);
        init.iter().for_each(|packet| ours.handle_packet(packet.clone(), later));
        assert_eq!(converse(&mut ours, &mut theirs, later), (true, true));
        init.into_iter().for_each(|packet| ours.handle_packet(packet, later));
        assert_eq!(converse(&mut ours, &mut theirs, later), (true, true));
    }
}
