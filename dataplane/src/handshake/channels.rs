//! Data channels: which there are on a transport, and which message goes to whom.
//!
//! A channel that a peer opens belongs to its label in the room. Every other peer gets a channel of that label, and a message on
//! the label goes to all other peers: on a peer's own channel of that label if it opened one, else on the one that we opened.
//! Beside those there is the API channel, whose messages go to control and come from there.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringmain_shared::Now;
use ringmain_shared::event::Event;
use ringmain_shared::id::{PeerId, TransportId};
use ringmain_shared::limits::{
    CHANNEL_API_WAITING_MAX, CHANNEL_BUFFER_SIZE_MAX, CHANNEL_MESSAGE_SIZE_MAX, CHANNELS_PER_TRANSPORT_MAX,
};
use ringmain_shared::transport::{DtlsRole, Side};
use sctp_proto::PayloadProtocolIdentifier as Ppid;

use super::FromHandshake;
use super::dcep::{self, Limit, Message, Reliability};
use super::handshaker::{Handshaker, Transport};
use super::sctp::{Heard, STREAMS_MAX};

/// The peers and labels of one room.
#[derive(Default)]
pub(super) struct Room {
    peers: BTreeMap<PeerId, Vec<TransportId>>,
    labels: BTreeMap<LabelId, Label>,
    next_label: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct LabelId(u64);

/// One label, as long as somebody has a channel of it.
struct Label {
    text: String,
    reliability: Reliability,
    channels: usize,
}

/// One channel of one transport.
pub(super) struct Channel {
    stream: u16,
    purpose: Purpose,
    reliability: Reliability,
    /// The peer knows of it too.
    confirmed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    /// Opened by us; control's.
    Api,
    /// Opened by the peer, under the API's label on the wrong side: kept open, not listened to.
    Ignored,
    /// Opened by the peer.
    Own(LabelId),
    /// Opened by us.
    Opened(LabelId),
}

impl Purpose {
    fn label(self) -> Option<LabelId> {
        match self {
            Self::Own(label) | Self::Opened(label) => Some(label),
            Self::Api | Self::Ignored => None,
        }
    }
}

impl Room {
    pub(super) fn join(&mut self, peer: PeerId, transport: TransportId) {
        self.peers.entry(peer).or_default().push(transport);
    }

    /// The label called `text`, made when there is room for another.
    fn label(&mut self, text: &str, reliability: Reliability) -> Option<LabelId> {
        if let Some((&id, _)) = self.labels.iter().find(|(_, label)| label.text == text) {
            return Some(id);
        }
        if self.labels.len() >= LABELS_MAX {
            return None;
        }
        let id = LabelId(self.next_label);
        self.next_label += 1;
        self.labels.insert(id, Label { text: text.to_owned(), reliability, channels: 0 });
        Some(id)
    }

    fn release(&mut self, id: LabelId) {
        if let Some(label) = self.labels.get_mut(&id) {
            label.channels = label.channels.saturating_sub(1);
            if label.channels == 0 {
                self.labels.remove(&id);
            }
        }
    }
}

impl Transport {
    fn has(&self, purpose: Purpose) -> bool {
        self.channels.iter().any(|channel| channel.purpose == purpose)
    }

    fn is_fanned_out(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.fan_out) && self.sctp.as_ref().is_some_and(|sctp| sctp.is_up())
    }

    /// Opens a channel from our side; `false` when there is no room for it.
    fn open(&mut self, purpose: Purpose, text: &str, reliability: Reliability) -> bool {
        // RFC 8832 §6: the DTLS client opens even streams, the server odd ones.
        let parity = match self.role {
            DtlsRole::Client => 0,
            DtlsRole::Server => 1,
        };
        let Some(sctp) = &mut self.sctp else { return false };
        if self.channels.len() >= CHANNELS_PER_TRANSPORT_MAX {
            return false;
        }
        let free = |stream: &u16| self.channels.iter().all(|channel| channel.stream != *stream);
        let Some(stream) = (parity..STREAMS_MAX).step_by(2).filter(free).find(|&stream| sctp.open(stream)) else {
            return false;
        };
        // Until the peer has confirmed the channel, everything on it goes ordered and reliable (RFC 8832 §6).
        sctp.send(stream, Ppid::Dcep, &dcep::open(text, reliability).into());
        self.channels.push(Channel { stream, purpose, reliability, confirmed: false });
        true
    }
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Delivery {
    Queued,
    /// The reader is too slow, and may lose messages.
    Dropped,
    /// The reader is too slow for a channel that promised to lose nothing.
    Broken,
}

impl Transport {
    fn deliver(&mut self, index: usize, ppid: Ppid, bytes: &Bytes) -> Delivery {
        let (Some(sctp), Some(channel)) = (&mut self.sctp, self.channels.get(index)) else { return Delivery::Dropped };
        let buffered = sctp.buffered(self.channels.iter().map(|channel| channel.stream));
        if buffered + bytes.len() <= CHANNEL_BUFFER_SIZE_MAX && sctp.send(channel.stream, ppid, bytes) {
            return Delivery::Queued;
        }
        match channel.reliability.limit {
            Limit::Reliable => Delivery::Broken,
            Limit::Retransmits(_) | Limit::LifetimeMs(_) => Delivery::Dropped,
        }
    }
}

impl Handshaker {
    /// Acts on what SCTP heard.
    pub(super) fn hear(&mut self, id: TransportId, heard: Heard, now: Now, out: &mut Vec<FromHandshake>) {
        match heard {
            Heard::Up => self.channels_up(id),
            Heard::Message { stream, ppid: Ppid::Dcep, bytes } => match dcep::parse(&bytes) {
                Some(Message::Open(open)) => self.peer_opens(id, stream, &open),
                Some(Message::Ack) => self.confirm(id, stream, out),
                None => {}
            },
            Heard::Message { stream, ppid, bytes } => {
                self.confirm(id, stream, out);
                self.message(id, stream, ppid, bytes, now, out);
            }
            Heard::Reset { stream } => self.close_channel(id, stream),
            Heard::Lost => self.close_channels(id),
        }
    }

    /// Forgets what a transport that ends has to do with its room.
    pub(super) fn leave(&mut self, id: TransportId) {
        self.close_channels(id);
        let Some(transport) = self.transports.get(&id) else { return };
        let Some(room) = self.rooms.get_mut(&transport.room) else { return };
        if let Some(transports) = room.peers.get_mut(&transport.peer) {
            transports.retain(|&other| other != id);
            if transports.is_empty() {
                room.peers.remove(&transport.peer);
            }
        }
        if room.peers.is_empty() {
            self.rooms.remove(&transport.room);
        }
    }

    /// Sends on the API channel, or keeps the message until there is one.
    pub(super) fn send_api(&mut self, id: TransportId, text: String) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        let has_api =
            transport.side == Side::Subscriber && transport.spec.as_ref().is_some_and(|spec| spec.api_label.is_some());
        if !has_api || text.len() > CHANNEL_MESSAGE_SIZE_MAX {
            self.stats.messages_dropped += 1;
            return;
        }
        let open = |channel: &Channel| channel.purpose == Purpose::Api && channel.confirmed;
        if let Some(index) = transport.channels.iter().position(open) {
            let (ppid, bytes) = encode_text(text);
            self.deliver(id, index, ppid, &bytes);
        } else if transport.api_waiting.len() < CHANNEL_API_WAITING_MAX {
            transport.api_waiting.push_back(text);
        } else {
            self.stats.messages_dropped += 1;
        }
    }

    fn channels_up(&mut self, id: TransportId) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        let api = transport.spec.as_ref().and_then(|spec| spec.api_label.clone());
        if let Some(text) = api
            && transport.side == Side::Subscriber
            && !transport.has(Purpose::Api)
        {
            transport.open(Purpose::Api, &text, Reliability::FULL);
        }
        let (peer, room) = (transport.peer, transport.room);
        let labels: Vec<LabelId> =
            self.rooms.get(&room).into_iter().flat_map(|room| room.labels.keys().copied()).collect();
        for label in labels {
            self.open_towards(peer, label, id);
        }
    }

    /// The peer opens a channel.
    fn peer_opens(&mut self, id: TransportId, stream: u16, open: &dcep::Open) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        let Some(sctp) = &mut transport.sctp else { return };
        if transport.channels.iter().any(|channel| channel.stream == stream) {
            return;
        }
        if transport.channels.len() >= CHANNELS_PER_TRANSPORT_MAX {
            return sctp.reset(stream);
        }
        let Some(room) = self.rooms.get_mut(&transport.room) else { return };
        let is_api = transport.spec.as_ref().is_some_and(|spec| spec.api_label.as_ref() == Some(&open.label));
        let purpose = if is_api {
            Purpose::Ignored
        } else {
            let Some(label) = room.label(&open.label, open.reliability) else { return sctp.reset(stream) };
            Purpose::Own(label)
        };
        // RFC 8832 §5.2: the acknowledgement goes ordered and reliable, which a new stream is.
        sctp.send(stream, Ppid::Dcep, &Bytes::from_static(&const { dcep::ack() }));
        sctp.set_reliability(stream, open.reliability);
        transport.channels.push(Channel { stream, purpose, reliability: open.reliability, confirmed: true });
        let Some(label) = purpose.label() else { return };
        if let Some(entry) = room.labels.get_mut(&label) {
            entry.channels += 1;
        }
        let own = transport.peer;
        let others: Vec<(PeerId, TransportId)> = room
            .peers
            .iter()
            .filter(|&(&peer, _)| peer != own)
            .flat_map(|(&peer, transports)| transports.iter().map(move |&transport| (peer, transport)))
            .collect();
        for (peer, transport) in others {
            self.open_towards(peer, label, transport);
        }
    }

    /// Gives a transport of `peer` a channel of `label`, where the peer is to have one and has none.
    fn open_towards(&mut self, peer: PeerId, label: LabelId, id: TransportId) {
        let Some(transport) = self.transports.get(&id) else { return };
        let Some(room) = self.rooms.get(&transport.room) else { return };
        let has_one = room
            .peers
            .get(&peer)
            .into_iter()
            .flatten()
            .filter_map(|id| self.transports.get(id))
            .any(|transport| transport.has(Purpose::Own(label)) || transport.has(Purpose::Opened(label)));
        if has_one || !transport.is_fanned_out() {
            return;
        }
        let Some(transport) = self.transports.get_mut(&id) else { return };
        let Some(room) = self.rooms.get_mut(&transport.room) else { return };
        let Some(entry) = room.labels.get_mut(&label) else { return };
        if transport.open(Purpose::Opened(label), &entry.text, entry.reliability) {
            entry.channels += 1;
            self.touch(id);
        }
    }

    /// The peer knows of a channel that we opened: from now on it keeps its own promises, not the stricter ones of the start.
    fn confirm(&mut self, id: TransportId, stream: u16, out: &mut Vec<FromHandshake>) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        let Some(index) = transport.channels.iter().position(|channel| channel.stream == stream) else { return };
        let channel = &mut transport.channels[index];
        if std::mem::replace(&mut channel.confirmed, true) {
            return;
        }
        if let Some(sctp) = &mut transport.sctp {
            sctp.set_reliability(stream, channel.reliability);
        }
        if channel.purpose == Purpose::Api {
            out.push(FromHandshake::Event(Event::ApiOpen { transport: id }));
            for text in std::mem::take(&mut transport.api_waiting) {
                self.send_api(id, text);
            }
        }
    }

    fn message(
        &mut self,
        id: TransportId,
        stream: u16,
        ppid: Ppid,
        bytes: Bytes,
        now: Now,
        out: &mut Vec<FromHandshake>,
    ) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        let Some(channel) = transport.channels.iter().find(|channel| channel.stream == stream) else { return };
        // RFC 8831 §6.6: SCTP has no empty messages, so one byte stands for none.
        let bytes = match ppid {
            Ppid::StringEmpty | Ppid::BinaryEmpty => Bytes::from_static(&[0]),
            Ppid::String if std::str::from_utf8(&bytes).is_ok() => bytes,
            Ppid::Binary => bytes,
            _ => return,
        };
        match channel.purpose {
            Purpose::Ignored => {}
            // Control has bounds of its own, and one thread for everybody: a flood ends here.
            Purpose::Api if !transport.api_budget.take(bytes.len(), now) => self.stats.api_flooded += 1,
            Purpose::Api => {
                let text = match ppid {
                    Ppid::String => String::from_utf8(bytes.into()).unwrap_or_default(),
                    Ppid::StringEmpty => String::new(),
                    _ => return,
                };
                out.push(FromHandshake::Event(Event::ApiMessage { transport: id, text }));
            }
            Purpose::Own(label) | Purpose::Opened(label) => self.relay(id, label, ppid, &bytes),
        }
    }

    /// Passes a message to all other peers of the room.
    fn relay(&mut self, from: TransportId, label: LabelId, ppid: Ppid, bytes: &Bytes) {
        let Some(sender) = self.transports.get(&from) else { return };
        let Some(room) = self.rooms.get(&sender.room) else { return };
        let find = |transports: &Vec<TransportId>, purpose: Purpose| {
            transports.iter().find_map(|id| {
                let channels = &self.transports.get(id)?.channels;
                Some((*id, channels.iter().position(|channel| channel.purpose == purpose)?))
            })
        };
        let targets: Vec<(TransportId, usize)> = room
            .peers
            .iter()
            .filter(|&(&peer, _)| peer != sender.peer)
            .filter_map(|(_, transports)| {
                find(transports, Purpose::Own(label)).or_else(|| find(transports, Purpose::Opened(label)))
            })
            .collect();
        for (id, index) in targets {
            self.deliver(id, index, ppid, bytes);
        }
    }

    fn deliver(&mut self, id: TransportId, index: usize, ppid: Ppid, bytes: &Bytes) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        match transport.deliver(index, ppid, bytes) {
            Delivery::Queued => self.stats.messages += 1,
            Delivery::Dropped => self.stats.messages_dropped += 1,
            Delivery::Broken => {
                self.stats.messages_dropped += 1;
                self.stats.channels_dropped += 1;
                if let Some(stream) = transport.channels.get(index).map(|channel| channel.stream) {
                    self.close_channel(id, stream);
                }
            }
        }
        self.touch(id);
    }

    fn close_channel(&mut self, id: TransportId, stream: u16) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        if let Some(sctp) = &mut transport.sctp {
            sctp.reset(stream);
        }
        let Some(index) = transport.channels.iter().position(|channel| channel.stream == stream) else { return };
        let channel = transport.channels.swap_remove(index);
        if let Some(label) = channel.purpose.label()
            && let Some(room) = self.rooms.get_mut(&transport.room)
        {
            room.release(label);
        }
        self.touch(id);
    }

    fn close_channels(&mut self, id: TransportId) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        let channels = std::mem::take(&mut transport.channels);
        let Some(room) = self.rooms.get_mut(&transport.room) else { return };
        for label in channels.iter().filter_map(|channel| channel.purpose.label()) {
            room.release(label);
        }
    }
}

fn encode_text(text: String) -> (Ppid, Bytes) {
    if text.is_empty() { (Ppid::StringEmpty, Bytes::from_static(&[0])) } else { (Ppid::String, text.into()) }
}

/// Labels of one room: a late joiner gets a channel for each, beside the API channel.
const LABELS_MAX: usize = CHANNELS_PER_TRANSPORT_MAX - 1;
