//! From the network: what each datagram is, whose it is, and what it brings. One that is no good ends its own story only.

use arrayvec::ArrayVec;
use ringmain_shared::limits::DATAGRAM_SIZE_MAX;
use ringmain_shared::media::{Codec, Extension, Kind, SpatialLayer};
use ringmain_shared::{DropReason, Now};

use super::Worker;
use super::relay::{RelayItem, RelayedPacket};
use super::turn::Role;
use crate::buf::RxBatch;
use crate::forward::packet::{MediaPacket, Vp8Numbers};
use crate::forward::track::{Pending, PendingKind, TrackKey};
use crate::handshake::{Datagram, ToHandshake};
use crate::io::{Path, Transmit};
use crate::packet::codec::{Vp8, describe};
use crate::packet::demux::{Protocol, classify};
use crate::packet::ext;
use crate::packet::rtp::RtpHeader;
use crate::packet::stun::{Class, Message};
use crate::receive::{Arrival, ArrivalKind};
use crate::srtp::RtpClear;
use crate::transport::ice::transport_number;
use crate::transport::publisher::{MediaStream, REPORT_INTERVAL, StreamRole};
use crate::transport::{Claim, Keys, Publisher, Transport, TransportKey};

/// A media packet at its place, ready for the cache.
struct Received {
    track: TrackKey,
    spatial: SpatialLayer,
    packet: MediaPacket,
    /// Where the dependency descriptor is in the clear packet.
    descriptor: std::ops::Range<usize>,
    /// Where the payload is in the clear packet.
    payload: std::ops::Range<usize>,
    kind: PendingKind,
    /// The set of live layers changed to this.
    alive: Option<u8>,
    /// It came on the retransmission stream.
    is_repair: bool,
}

impl Worker {
    /// One datagram, to its end.
    #[inline]
    pub(super) fn journey(
        &mut self,
        path: Path,
        datagram: &mut [u8],
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        // Links take in longer ones for the sake of those who discover what their NAT does with fragments.
        if datagram.len() > DATAGRAM_SIZE_MAX && !self.is_discovery(path.socket, datagram) {
            return Err(DropReason::RxTruncated);
        }
        match self.role(path.socket) {
            Role::Media => self.handle_media(path, datagram, now, out),
            Role::TurnClients => self.handle_turn_client(path, datagram, now, out),
            Role::TurnPeers => self.handle_turn_peer(path, datagram, now, out),
        }
    }

    pub(super) fn handle_media(
        &mut self,
        path: Path,
        datagram: &mut [u8],
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        match classify(datagram) {
            Some(Protocol::Rtp) => self.handle_rtp(path, datagram, now),
            Some(Protocol::Rtcp) => self.handle_rtcp(path, datagram, now),
            Some(Protocol::Stun) if self.is_for_turn(path.socket, datagram) => {
                self.handle_turn_client(path, datagram, now, out)
            }
            Some(Protocol::Stun) => self.handle_stun(path, datagram, now, out),
            Some(Protocol::Dtls) => self.handle_dtls(path, datagram, now),
            Some(Protocol::TurnChannelData) | None if self.takes_turn(path.socket) => {
                self.handle_turn_client(path, datagram, now, out)
            }
            Some(Protocol::TurnChannelData) | None => Err(DropReason::UnknownProtocol),
        }
    }

    /// A message of ICE. One that is of use, or of somebody whose address is proved, is no reason to stay awake: an answer that comes
    /// after a check was repeated is as idle as the one before.
    fn handle_stun(&mut self, path: Path, datagram: &[u8], now: Now, out: &mut dyn Transmit) -> Result<(), DropReason> {
        let handled = self.handle_ice(path, datagram, now, out);
        self.idle += u64::from(handled.is_ok() || self.is_proved(path));
        handled
    }

    fn is_proved(&self, path: Path) -> bool {
        let transport = self.names.paths.get(&path).and_then(|&key| self.transports.get(key));
        transport.is_some_and(|transport| transport.ice.is_proved(path))
    }

    fn handle_ice(&mut self, path: Path, datagram: &[u8], now: Now, out: &mut dyn Transmit) -> Result<(), DropReason> {
        let message = Message::parse(datagram)?;
        let holder = self.names.paths.get(&path).copied();
        let key = self.addressee(&message, holder)?;
        let transport = self.transports.get_mut(key).ok_or(DropReason::StunUnknownUfrag)?;
        let mut reply = [0; REPLY_SIZE_MAX];
        let size = datagram.len();
        let reaction = transport.ice.handle_stun(&message, path, size, &mut reply, &mut self.random, now)?;
        let len = reaction.reply;
        // What a transport holds it need not claim.
        self.follow(key, reaction, (holder != Some(key)).then_some(path), now);
        if let Some(reply) = len.and_then(|len| reply.get(..len)) {
            self.send(path, reply, out);
        }
        self.send_checks(key, now, out);
        self.schedule(key);
        Ok(())
    }

    /// Whose message it is. Requests name their transport; responses repeat the id in which we named it. As a rule it is the one that
    /// holds the path, which spares us to look for the name.
    fn addressee(&self, message: &Message<'_>, holder: Option<TransportKey>) -> Result<TransportKey, DropReason> {
        let known = holder.and_then(|key| self.transports.get(key));
        let key = match message.class() {
            Class::Request => {
                let (ufrag, _) = message.username().ok_or(DropReason::StunIntegrity)?;
                match known {
                    Some(transport) if transport.ice.ufrags().any(|ours| ours == ufrag) => holder,
                    _ => self.names.ufrags.get(ufrag).copied(),
                }
            }
            Class::Success | Class::Error => {
                let number = transport_number(message.transaction_id());
                match known {
                    Some(transport) if transport.number == number => holder,
                    _ => self.names.numbers.get(&number).copied(),
                }
            }
            Class::Indication => holder,
        };
        key.ok_or(DropReason::StunUnknownUfrag)
    }

    /// Brings the state of those who sent the next few datagrams into the caches at once, rather than one by one. Worth it where each is
    /// somebody else, who was last heard seconds ago.
    pub(super) fn expect_peers(&self, rx: &RxBatch, first: usize) {
        let paths = (first..rx.len().min(first + EXPECTED)).map(|index| rx.path(index));
        let holders: ArrayVec<TransportKey, EXPECTED> =
            paths.filter_map(|path| self.names.paths.get(&path).copied()).collect();
        self.expect_ice(&holders);
    }

    /// The same for transports. Each step asks for what the next one reads.
    pub(super) fn expect_ice(&self, transports: &[TransportKey]) {
        let transports = || transports.iter().filter_map(|&key| self.transports.get(key));
        transports().for_each(Transport::expect_ice);
        transports().for_each(|transport| transport.ice.expect_parts());
    }

    /// A path leads to a transport from now on, unless it surely leads to another one.
    pub(super) fn claim(&mut self, key: TransportKey, path: Path, claim: Claim, now: Now) {
        let holder = self.names.paths.get(&path).copied().filter(|&holder| holder != key);
        let held =
            holder.and_then(|holder| self.transports.get(holder)).is_some_and(|other| other.ice.admits_media(path));
        if claim == Claim::Proved || !held {
            self.names.paths.insert(path, key);
            // When a link or a connection ends, whoever holds its path is told, and nobody else.
            if path.socket.is_virtual()
                && let Some(other) = holder.and_then(|holder| self.transports.get_mut(holder))
            {
                other.ice.forget(path, now);
            }
        }
    }

    fn handle_dtls(&mut self, path: Path, datagram: &[u8], now: Now) -> Result<(), DropReason> {
        let key = *self.names.paths.get(&path).ok_or(DropReason::UnknownRemote)?;
        let transport = self.transports.get_mut(key).ok_or(DropReason::UnknownRemote)?;
        if !transport.dtls_budget.take(now) {
            return Err(DropReason::DtlsBudget);
        }
        transport.ice.credit(path, datagram.len());
        let bytes = Datagram::try_from(datagram).map_err(|_| DropReason::RxTruncated)?;
        self.outbox.handshakes.push((transport.room, ToHandshake::Datagram { transport: transport.id, bytes }));
        Ok(())
    }

    fn handle_rtp(&mut self, path: Path, datagram: &mut [u8], now: Now) -> Result<(), DropReason> {
        let key = *self.names.paths.get(&path).ok_or(DropReason::UnknownRemote)?;
        let transport = self.transports.get_mut(key).ok_or(DropReason::UnknownRemote)?;
        let keys = transport.keys.as_mut().ok_or(DropReason::MediaEarly)?;
        if !transport.ice.admits_media(path) {
            return Err(DropReason::MediaFromUnselected);
        }
        let publisher = transport.publisher.as_deref_mut().ok_or(DropReason::UnknownStream)?;
        publisher.policer.admit(datagram.len(), now)?;
        let size = datagram.len();
        let Keys { inbound, .. } = keys;
        let clear = match inbound.unprotect_rtp(datagram) {
            Err(DropReason::TooManySsrcs) => {
                inbound.make_room(|ssrc| publisher.streams.iter().any(|stream| stream.ssrc == ssrc));
                return Err(DropReason::TooManySsrcs);
            }
            clear => clear?,
        };
        transport.ice.heard(now);
        publisher.rate.handle(size, now);
        if publisher.report_at.is_none() {
            publisher.report_at = Some(now + REPORT_INTERVAL);
        }
        if !std::mem::replace(&mut publisher.fed, true) {
            self.fed.push(key);
        }
        let received = publisher.receive(&clear, now)?;
        self.take(received, &clear)
    }

    /// Keeps a packet and puts it on the list of what is to be forwarded.
    fn take(&mut self, received: Received, clear: &RtpClear<'_>) -> Result<(), DropReason> {
        let Received { track: key, spatial, mut packet, descriptor, payload, kind, alive, is_repair } = received;
        self.stats.rtp_received += u64::from(!is_repair);
        if let Some(layers) = alive {
            self.layers_changed(key, layers);
        }
        let track = self.tracks.get_mut(key).ok_or(DropReason::UnknownStream)?;
        if let PendingKind::Media { restarted } = kind {
            let layer = track.layer_mut(spatial).ok_or(DropReason::UnknownStream)?;
            layer.clock = layer.clock.filter(|_| !restarted);
            let bytes = clear.bytes();
            let parts = (bytes.get(descriptor).unwrap_or_default(), bytes.get(payload).unwrap_or_default());
            packet.descriptor_len = parts.0.len() as u8;
            packet.payload_len = (parts.0.len() + parts.1.len()) as u16;
            if !layer.cache.insert(packet, parts) {
                return Err(DropReason::Duplicate);
            }
        }
        if track.pending.is_empty() {
            self.touched.push(key);
        }
        track.pending.push(Pending { spatial, sequence: packet.sequence, kind });
        if !track.mirrors.is_empty() {
            self.relay(key, spatial, packet, kind);
        }
        if kind == PendingKind::Padding { Err(DropReason::PaddingOnly) } else { Ok(()) }
    }

    fn relay(&mut self, key: TrackKey, spatial: SpatialLayer, packet: MediaPacket, kind: PendingKind) {
        let Some(track) = self.tracks.get(key) else { return };
        let id = track.id();
        let item = match kind {
            PendingKind::Padding => RelayItem::Padding { track: id, spatial, packet },
            PendingKind::Media { restarted } => {
                let layer = track.layers.get(usize::from(spatial)).and_then(Option::as_ref);
                let Some((_, kept)) = layer.and_then(|layer| layer.cache.get(packet.sequence)) else { return };
                let mut bytes = [0; DATAGRAM_SIZE_MAX];
                let Some(room) = bytes.get_mut(..kept.len()) else { return };
                room.copy_from_slice(kept);
                RelayItem::Media(RelayedPacket { track: id, spatial, restarted, packet, bytes })
            }
        };
        for &to in &track.mirrors {
            self.outbox.relays.push((to, item.clone()));
        }
    }

    /// Puts one datagram into the transmit batch.
    pub(super) fn send(&mut self, path: Path, bytes: &[u8], out: &mut dyn Transmit) {
        match out.reserve(&path, bytes.len()) {
            Ok(mut slot) => {
                slot.bytes_mut().copy_from_slice(bytes);
                slot.commit(bytes.len());
            }
            Err(reason) => self.count(reason),
        }
    }
}

/// Peers whose state is asked for at once: as many misses as a core has under way.
pub(super) const EXPECTED: usize = 8;
/// A response to a check: header, mapped address, integrity, fingerprint.
const REPLY_SIZE_MAX: usize = 128;

impl Publisher {
    /// What an authenticated packet is. Sequence, arrival and loudness are noted here; its bytes are not touched.
    fn receive(&mut self, clear: &RtpClear<'_>, now: Now) -> Result<Received, DropReason> {
        let bytes = clear.bytes();
        let header = RtpHeader::parse(bytes)?;
        let mut payload = header.payload(bytes)?;
        let mut packet = MediaPacket {
            timestamp: header.timestamp,
            payload_type: header.payload_type,
            marker: header.marker,
            ..MediaPacket::default()
        };
        let mut descriptor = 0..0;
        for (id, value) in header.extensions(bytes) {
            match self.extension(id) {
                Some(Extension::TransportCc) => {
                    if let Some(sequence) = ext::transport_sequence(value) {
                        self.transport_cc.record(sequence, now);
                    }
                }
                Some(Extension::AudioLevel) => packet.audio_level = value.first().copied(),
                Some(Extension::VideoOrientation) => packet.orientation = value.first().copied(),
                Some(Extension::PlayoutDelay) => packet.playout_delay = value.first_chunk().copied(),
                Some(Extension::DependencyDescriptor) => {
                    let at = value.as_ptr() as usize - bytes.as_ptr() as usize;
                    descriptor = at..at + value.len();
                }
                _ => {}
            }
        }
        let index = self.stream_of(&header, bytes, now)?;
        let stream = self.streams.get_mut(index).ok_or(DropReason::UnknownStream)?;
        stream.heard = now;
        let (track_index, spatial, is_repair) =
            (stream.track, stream.spatial, matches!(stream.role, StreamRole::Repair));
        let mut sequence = header.sequence;
        if is_repair {
            // RFC 4588 §4: the first two bytes are the original sequence number.
            let original = bytes.get(payload.clone()).and_then(|bytes| bytes.first_chunk::<2>());
            sequence = u16::from_be_bytes(*original.ok_or(DropReason::PaddingOnly)?);
            payload.start += 2;
            packet.payload_type =
                self.repaired_payload_type(track_index, header.payload_type).ok_or(DropReason::UnknownPayloadType)?;
        }
        let spec = self.spec.tracks.get(track_index).ok_or(DropReason::UnknownStream)?;
        let codec = spec.codecs.iter().find(|codec| codec.payload_type == packet.payload_type);
        let codec = codec.ok_or(DropReason::UnknownPayloadType)?.codec;
        let is_video = spec.kind == Kind::Video;
        let (_, media) = self.media_mut(track_index, spatial).ok_or(DropReason::UnknownStream)?;
        let arrival = if is_repair {
            media.inbound.handle_repair(sequence)
        } else {
            media.inbound.handle_packet(sequence, header.timestamp, now)
        };
        media.note(arrival, is_video, now)?;
        packet.sequence = arrival.extended;
        media.began_anew |= arrival.kind == ArrivalKind::Restarted;
        let kind = match payload.is_empty() {
            // Padding tells subscribers nothing: the next packet of media says that the stream began anew.
            true => PendingKind::Padding,
            false => PendingKind::Media { restarted: std::mem::take(&mut media.began_anew) },
        };
        if let Some(content) = bytes.get(payload.clone()).filter(|content| !content.is_empty()) {
            let description = describe(codec, content);
            packet.keyframe = description.keyframe;
            packet.frame_start = description.start_of_frame;
            packet.temporal = description.temporal;
            packet.switching_up = description.switching_point;
            if codec == Codec::Vp8 {
                packet.vp8 = Vp8::parse(content).and_then(|vp8| Vp8Numbers::of(&vp8));
            }
            if description.keyframe && is_video {
                media.keyframe_came(arrival);
            }
        }
        let track = self.tracks.get_mut(track_index).ok_or(DropReason::UnknownStream)?;
        if let (Some(audio), Some(level)) = (&mut track.audio, packet.audio_level) {
            audio.handle(level & 0x7f);
        }
        let is_fresh_media = !is_repair && kind != PendingKind::Padding;
        let alive = if is_fresh_media { track.activity.handle_packet(spatial, now) } else { None };
        Ok(Received { track: track.key, spatial, packet, descriptor, payload, kind, alive, is_repair })
    }
}

impl MediaStream {
    /// Takes an arrival into account; one that is not to be forwarded ends here.
    fn note(&mut self, arrival: Arrival, is_video: bool, now: Now) -> Result<(), DropReason> {
        if let Some(nack) = &mut self.nack
            && nack.handle(arrival, now).is_some()
            && is_video
        {
            self.wants_keyframe = true;
        }
        match arrival.kind {
            ArrivalKind::New | ArrivalKind::Late | ArrivalKind::Restarted => Ok(()),
            ArrivalKind::Duplicate => Err(DropReason::Duplicate),
            ArrivalKind::TooOld => Err(DropReason::TooOld),
        }
    }

    fn keyframe_came(&mut self, arrival: Arrival) {
        self.keyframes.keyframe_arrived();
        self.wants_keyframe = false;
        if let Some(nack) = &mut self.nack {
            nack.forget_before(arrival.extended);
        }
    }
}
