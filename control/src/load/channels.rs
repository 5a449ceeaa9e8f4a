//! The data channels of one connection (RFC 8831): SCTP by `sctp-proto`, channels opened in band (RFC 8832). Packets and time in,
//! packets and messages out; who says what to whom is [`messages`](super::messages)' business.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringmain_shared::Now;
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, EndpointEvent, Event,
    Payload, PayloadProtocolIdentifier as Ppid, ServerConfig, StreamEvent, TransportConfig,
};

/// One association.
pub(super) struct Channels {
    endpoint: Endpoint,
    transport: Arc<TransportConfig>,
    association: Option<(AssociationHandle, Association)>,
    /// It was our attempt that led to it.
    has_begun: bool,
    is_up: bool,
    heard: VecDeque<Heard>,
    next_stream: u16,
    /// The clock of the run began here.
    base: Instant,
    deadline: Option<Now>,
}

/// What an association has to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// Channels can be opened.
    Up,
    /// The server has opened a channel.
    Opened {
        stream: u16,
        label: String,
    },
    Message {
        stream: u16,
        bytes: Bytes,
    },
    Lost,
}

impl Channels {
    pub(super) fn new(is_dtls_client: bool, base: Instant) -> Self {
        // libwebrtc's times: a first packet that is lost is not missed for three seconds.
        let transport = TransportConfig::default()
            .with_max_send_message_size(MESSAGE_SIZE_MAX)
            .with_max_receive_message_size(MESSAGE_SIZE_MAX)
            .with_rto_initial_ms(500)
            .with_rto_min_ms(400);
        let transport = Arc::new(transport);
        let mut server = ServerConfig::new();
        server.transport = transport.clone();
        let mut endpoint = EndpointConfig::new();
        endpoint.max_payload_size(PAYLOAD_SIZE_MAX);
        Self {
            endpoint: Endpoint::new(Arc::new(endpoint), Some(Arc::new(server))),
            transport,
            association: None,
            has_begun: false,
            is_up: false,
            heard: VecDeque::new(),
            // RFC 8832 §6: the DTLS client opens even streams, the server odd ones.
            next_stream: u16::from(!is_dtls_client),
            base,
            deadline: None,
        }
    }

    /// DTLS is up. We begin, as browsers do whatever their role.
    pub(super) fn begin(&mut self, now: Now) -> Result<(), String> {
        if self.association.is_none() {
            let mut config = ClientConfig::new();
            config.transport = self.transport.clone();
            let connected = self.endpoint.connect(config, PEER);
            self.association = Some(connected.map_err(|error| format!("SCTP: {error}"))?);
            self.has_begun = true;
            self.look(now);
        }
        Ok(())
    }

    pub(super) fn handle_packet(&mut self, packet: Bytes, now: Now) {
        // When both begin, our attempt goes on: if both gave way, none would be left. A server that waits for its clients gives way.
        // And a late copy of the server's would be a protocol error to the engine.
        if (self.has_begun || self.is_up) && packet.get(COMMON_HEADER_SIZE) == Some(&INIT) {
            return;
        }
        match self.endpoint.handle(self.instant(now), PEER, None, None, packet) {
            // The server has begun first.
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                if let Some((previous, _)) = self.association.replace((handle, association)) {
                    self.endpoint.handle_event(previous, EndpointEvent::drained());
                }
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((current, association)) = &mut self.association
                    && *current == handle
                {
                    association.handle_event(event);
                }
            }
            None => {}
        }
        self.look(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        let instant = self.instant(now);
        if let Some((_, association)) = &mut self.association
            && association.poll_timeout().is_some_and(|at| at <= instant)
        {
            association.handle_timeout(instant);
        }
        self.look(now);
    }

    pub(super) fn next_deadline(&self) -> Option<Now> {
        self.deadline
    }

    /// What was heard, one after the other.
    pub(super) fn poll(&mut self) -> Option<Heard> {
        self.heard.pop_front()
    }

    /// The packets that are due.
    pub(super) fn poll_transmit(&mut self, now: Now, out: &mut Vec<Bytes>) {
        let instant = self.instant(now);
        let Some((_, association)) = &mut self.association else { return };
        while let Some(transmit) = association.poll_transmit(instant) {
            if let Payload::RawEncode(packets) = transmit.payload {
                out.extend(packets);
            }
        }
        self.look(now);
    }

    /// Opens a channel that is ordered and reliable; its stream. Messages may follow at once (RFC 8832 §6).
    pub(super) fn open(&mut self, label: &str) -> Option<u16> {
        let stream = self.next_stream;
        let (_, association) = self.association.as_mut().filter(|_| self.is_up)?;
        association.open_stream(stream, Ppid::Binary).ok()?;
        self.next_stream += 2;
        self.write(stream, Ppid::Dcep, &open_message(label)).then_some(stream)
    }

    /// Queues a message; says whether there was room for it.
    pub(super) fn send(&mut self, stream: u16, message: &[u8]) -> bool {
        self.write(stream, Ppid::Binary, message)
    }

    fn write(&mut self, stream: u16, ppid: Ppid, message: &[u8]) -> bool {
        let Some((_, association)) = &mut self.association else { return false };
        let Ok(mut stream) = association.stream(stream) else { return false };
        let has_room = stream.buffered_amount().is_ok_and(|buffered| buffered < BUFFERED_MAX);
        has_room && stream.write_sctp(&Bytes::copy_from_slice(message), ppid).is_ok()
    }

    /// Takes note of what the association has to say, and of when it wants to be called again.
    fn look(&mut self, now: Now) {
        while let Some(event) = self.association.as_mut().and_then(|(_, association)| association.poll()) {
            match event {
                Event::Connected => {
                    self.is_up = true;
                    self.heard.push_back(Heard::Up);
                    let streams = self.association.as_ref().map(|(_, association)| association.stream_ids());
                    streams.unwrap_or_default().into_iter().for_each(|stream| self.read(stream));
                }
                Event::Stream(StreamEvent::Opened { id } | StreamEvent::Readable { id }) => {
                    if let Some((_, association)) = &mut self.association {
                        while association.accept_stream().is_some() {}
                    }
                    // Data may overtake the COOKIE ACK; it waits, since nothing can be answered before that.
                    if self.is_up {
                        self.read(id);
                    }
                }
                Event::HandshakeFailed { .. } | Event::AssociationLost { .. } => self.heard.push_back(Heard::Lost),
                _ => {}
            }
        }
        let at = self.association.as_ref().and_then(|(_, association)| association.poll_timeout());
        let at =
            at.map(|at| Now(u64::try_from(at.saturating_duration_since(self.base).as_nanos()).unwrap_or(u64::MAX)));
        // A timer in the past would be due again at once, for ever.
        self.deadline = at.map(|at| at.max(now + SHORTEST));
    }

    fn read(&mut self, id: u16) {
        let mut opened = false;
        let Some((_, association)) = &mut self.association else { return };
        let Ok(mut stream) = association.stream(id) else { return };
        while let Ok(Some(chunks)) = stream.read() {
            let mut bytes = vec![0; chunks.len()];
            if chunks.read(&mut bytes).is_err() {
                continue;
            }
            match (chunks.ppi, bytes.first()) {
                (Ppid::Dcep, Some(&OPEN)) => {
                    opened = true;
                    self.heard.push_back(Heard::Opened { stream: id, label: label(&bytes) });
                }
                (Ppid::Dcep, _) => {}
                _ => self.heard.push_back(Heard::Message { stream: id, bytes: bytes.into() }),
            }
        }
        if opened {
            self.write(id, Ppid::Dcep, &[ACK]);
        }
    }

    fn instant(&self, now: Now) -> Instant {
        self.base + Duration::from_nanos(now.0)
    }
}

/// DATA_CHANNEL_OPEN (RFC 8832 §5.1): ordered and reliable, of normal priority, without a protocol.
fn open_message(label: &str) -> Vec<u8> {
    let mut bytes = vec![OPEN, 0, 1, 0, 0, 0, 0, 0];
    bytes.extend((label.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(label.as_bytes());
    bytes
}

/// The label in a DATA_CHANNEL_OPEN, as far as it is one.
fn label(open: &[u8]) -> String {
    let size = open.get(8..10).map_or(0, |size| usize::from(u16::from_be_bytes([size[0], size[1]])));
    let rest = open.get(12..).unwrap_or_default();
    String::from_utf8_lossy(rest.get(..size).unwrap_or(rest)).into_owned()
}

const COMMON_HEADER_SIZE: usize = 12;
/// RFC 9260 §3.2.
const INIT: u8 = 1;
const OPEN: u8 = 3;
const ACK: u8 = 2;
/// The engine wants an address for its peer; DTLS has one peer only.
const PEER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000));
/// Of user data in one packet; with all headers it stays below 1200.
const PAYLOAD_SIZE_MAX: u32 = 1132;
/// As our descriptions say.
const MESSAGE_SIZE_MAX: u32 = 262_144;
/// Bytes of a channel that wait to be acknowledged.
const BUFFERED_MAX: usize = 1 << 20;
const SHORTEST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Carries packets both ways until nobody has any.
    fn converse(a: &mut Channels, b: &mut Channels, now: Now) -> (Vec<Heard>, Vec<Heard>) {
        loop {
            let (mut from_a, mut from_b) = (Vec::new(), Vec::new());
            a.poll_transmit(now, &mut from_a);
            b.poll_transmit(now, &mut from_b);
            if from_a.is_empty() && from_b.is_empty() {
                let all = |channels: &mut Channels| std::iter::from_fn(|| channels.poll()).collect();
                return (all(a), all(b));
            }
            from_a.into_iter().for_each(|packet| b.handle_packet(packet, now));
            from_b.into_iter().for_each(|packet| a.handle_packet(packet, now));
        }
    }

    #[test]
    fn a_channel_is_opened_by_its_label_and_carries_messages_of_any_size() {
        let base = Instant::now();
        let (mut ours, mut theirs) = (Channels::new(true, base), Channels::new(false, base));
        assert_eq!(ours.open("early"), None, "not before the association is up");
        ours.begin(Now(0)).expect("begins");
        assert_eq!(converse(&mut ours, &mut theirs, Now(1)), (vec![Heard::Up], vec![Heard::Up]));
        let stream = ours.open("chät").expect("opens");
        assert_eq!((stream, theirs.open("other")), (0, Some(1)));
        assert!(ours.send(stream, b"first") && ours.send(stream, &[7; 20_000]));
        let (at_ours, at_theirs) = converse(&mut ours, &mut theirs, Now(2));
        let opened = |stream, label: &str| Heard::Opened { stream, label: label.into() };
        let message = |bytes: &[u8]| Heard::Message { stream, bytes: Bytes::copy_from_slice(bytes) };
        assert_eq!(at_ours, [opened(1, "other")]);
        assert_eq!(at_theirs, [opened(0, "chät"), message(b"first"), message(&[7; 20_000])]);
    }

    #[test]
    fn who_begins_first_is_answered_and_who_begins_late_is_ignored() {
        let base = Instant::now();
        let (mut ours, mut theirs) = (Channels::new(true, base), Channels::new(false, base));
        theirs.begin(Now(0)).expect("begins");
        let mut init = Vec::new();
        theirs.poll_transmit(Now(0), &mut init);
        init.iter().for_each(|packet| ours.handle_packet(packet.clone(), Now(1)));
        ours.begin(Now(1)).expect("there is one already");
        assert_eq!(converse(&mut ours, &mut theirs, Now(1)), (vec![Heard::Up], vec![Heard::Up]));
        init.into_iter().for_each(|packet| ours.handle_packet(packet, Now(2)));
        let stream = ours.open("still there").expect("opens");
        let (_, at_theirs) = converse(&mut ours, &mut theirs, Now(2));
        assert_eq!(at_theirs, [Heard::Opened { stream, label: "still there".into() }]);
    }

    #[test]
    fn a_label_that_lies_about_its_length_is_read_as_far_as_it_goes() {
        let mut open = open_message("abc");
        open[9] = 200;
        assert_eq!(label(&open), "abc");
        assert_eq!((label(&open[..9]).as_str(), label(&[OPEN]).as_str()), ("", ""));
    }
}
