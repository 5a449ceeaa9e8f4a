//! One packet, read by everything that reads such packets, and written again.

use ringmain_dataplane::packet::codec::{Av1, DependencyDescriptor, H264, H265, Structure, Vp8, Vp9, describe};
use ringmain_dataplane::packet::demux::{Protocol, classify};
use ringmain_dataplane::packet::ext::{self, AudioLevel, PlayoutDelay, VideoOrientation};
use ringmain_dataplane::packet::rtcp::{Compound, CompoundWriter, FeedbackFields, FirEntry, Packet};
use ringmain_dataplane::packet::rtp::{FIXED_LEN, HeaderFields, RtpHeader, pad};
use ringmain_dataplane::packet::stun::{
    BindingRequest, Class, HEADER_LEN, IntegrityKey, Message, MessageWriter, Role, attribute, error,
    write_binding_error, write_binding_request, write_binding_success,
};
use ringmain_shared::Now;
use ringmain_shared::limits::{
    DATAGRAM_SIZE_MAX, RTCP_BLOCKS_MAX, RTCP_NACK_ENTRIES_MAX, RTCP_PACKETS_MAX, RTCP_TWCC_STATUSES_MAX,
};
use ringmain_shared::media::Codec;

use crate::input::Input;

/// A STUN message: every accessor, integrity, the responses that it would get, and its attributes written again.
pub fn stun(data: &[u8]) {
    let right = IntegrityKey::new(b"VOkJxbRl1RmTxUk/WvJxBt");
    let wrong = IntegrityKey::new(b"");
    if let Ok(message) = Message::parse(data) {
        read_stun(&message, data);
        // Who can sign for two keys at once has broken HMAC.
        assert!(message.verify_integrity(&right).is_err() || message.verify_integrity(&wrong).is_err());
        answer_stun(&message, &right);
        rewrite_stun(&message, &right);
    }
    write_stun(data, &right);
}

fn read_stun(message: &Message<'_>, data: &[u8]) {
    let bytes: usize = message.attributes().map(|(_, value)| 4 + value.len().next_multiple_of(4)).sum();
    assert!(bytes + HEADER_LEN <= data.len(), "attributes of {bytes} bytes in a message of {}", data.len());
    if let Some((to, from)) = message.username() {
        assert!(to.len() + from.len() < data.len() && !to.contains(':'));
    }
    assert!(message.error_code().is_none_or(|code| (300..=699).contains(&code)));
    let _ = (message.priority(), message.use_candidate(), message.ice_controlling(), message.ice_controlled());
    let _ = (message.xor_mapped_address(), message.has_fingerprint(), message.has_integrity());
    assert!(message.unknown_required(attribute::KNOWN_IN_BINDING).all(|unknown| unknown < 0x8000));
}

fn answer_stun(message: &Message<'_>, key: &IntegrityKey) {
    let mut out = [0; DATAGRAM_SIZE_MAX];
    let mapped = message.xor_mapped_address().unwrap_or(([203, 0, 113, 9], 4711).into());
    let len = write_binding_success(&mut out, message.transaction_id(), mapped, key).expect("a response is short");
    let response = Message::parse(&out[..len]).expect("what we write can be read");
    assert_eq!(response.class(), Class::Success);
    assert_eq!(response.transaction_id(), message.transaction_id());
    assert_eq!(response.xor_mapped_address().map(|read| read.ip().to_canonical()), Some(mapped.ip().to_canonical()));
    assert!(response.verify_integrity(key).is_ok() && response.has_fingerprint());

    let unknown: Vec<u16> = message.unknown_required(attribute::KNOWN_IN_BINDING).take(16).collect();
    let id = message.transaction_id();
    let len = write_binding_error(&mut out, id, error::UNKNOWN_ATTRIBUTE, &unknown, Some(key)).expect("short");
    let response = Message::parse(&out[..len]).expect("what we write can be read");
    assert_eq!(response.error_code(), Some(error::UNKNOWN_ATTRIBUTE));
    let told = response.attribute(attribute::UNKNOWN_ATTRIBUTES).expect("it was written");
    assert!(told.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]])).eq(unknown.iter().copied()));
}

/// The attributes of one message in another one are read as they were.
fn rewrite_stun(message: &Message<'_>, key: &IntegrityKey) {
    let mut out = vec![0; 70_000];
    let mut writer = MessageWriter::new(&mut out, message.class(), message.method(), message.transaction_id());
    message.attributes().for_each(|(kind, value)| writer.attribute(kind, value));
    writer.integrity(key);
    let Some(len) = writer.finish() else { return };
    let again = Message::parse(&out[..len]).expect("what we write can be read");
    assert!(again.verify_integrity(key).is_ok());
    assert_eq!((again.class(), again.method()), (message.class(), message.method()));
    assert!(again.attributes().eq(message.attributes()));
}

/// A check of ours with any content, into any room.
fn write_stun(data: &[u8], key: &IntegrityKey) {
    let mut input = Input::new(data);
    let (transaction_id, tie_breaker) = (ringmain_dataplane::packet::stun::TransactionId(input.array()), input.u64());
    let (priority, room) = (input.u32(), usize::from(input.u16()) % DATAGRAM_SIZE_MAX);
    // At most 510 bytes with the replacements for what is no text: USERNAME holds 513 (RFC 8489 §14.3).
    let text = String::from_utf8_lossy(input.take(170)).replace(':', "");
    let (remote_ufrag, local_ufrag) = text.split_at(text.floor_char_boundary(text.len() / 2));
    let role = Role::Controlling(tie_breaker, priority % 2 == 0);
    let request = BindingRequest { transaction_id, remote_ufrag, local_ufrag, priority, role };
    let mut out = [0; DATAGRAM_SIZE_MAX];
    let _ = write_binding_request(&mut out[..room], &request, key);
    let len = write_binding_request(&mut out, &request, key).expect("a check is short");
    let check = Message::parse(&out[..len]).expect("what we write can be read");
    check.verify_integrity(key).expect("signed with this key");
    let read = (check.username(), check.priority(), check.ice_controlling(), check.use_candidate());
    assert_eq!(read, (Some((remote_ufrag, local_ufrag)), Some(priority), Some(tie_breaker), priority % 2 == 0));
}

/// A datagram, as a worker would look at it when it came from anywhere.
pub fn demux(data: &[u8]) {
    match classify(data) {
        Some(Protocol::Stun) => stun(data),
        Some(Protocol::Dtls) => crate::dtls_client_hello(data),
        Some(Protocol::Rtp) => {
            assert_eq!(data[0] >> 6, 2);
            rtp(data);
        }
        Some(Protocol::Rtcp) => rtcp(data),
        Some(Protocol::TurnChannelData) => {}
        None => assert!(data.len() < 2 || !matches!(data[0], 0..=3 | 20..=79 | 128..=191)),
    }
}

/// An RTP packet: its header, every extension that we know, and the header written again.
pub fn rtp(data: &[u8]) {
    let Ok(header) = RtpHeader::parse(data) else { return };
    assert!(header.header_len >= FIXED_LEN + 4 * usize::from(header.csrc_count) && header.header_len <= data.len());
    assert_eq!(header.csrcs(data).count(), usize::from(header.csrc_count));
    if let Ok(payload) = header.payload(data) {
        assert!(payload.start == header.header_len && payload.end <= data.len() && payload.start <= payload.end);
    }
    let extensions: Vec<(u8, &[u8])> = header.extensions(data).collect();
    for &(id, value) in &extensions {
        assert!(id != 0 && value.len() <= 255);
        read_extension(value);
    }
    // An outdated header is of no harm to another packet.
    let _ = (header.payload(&data[..data.len() / 2]), header.extensions(&data[..data.len() / 2]).count());
    write_rtp(&header, &extensions);
}

fn read_extension(value: &[u8]) {
    if let Some(level) = AudioLevel::parse(value) {
        assert_eq!(level.to_bytes()[0], value[0]);
    }
    if let Some(orientation) = VideoOrientation::parse(value) {
        assert_eq!(orientation.to_bytes()[0], value[0] & 0x0f);
    }
    if let Some(delay) = PlayoutDelay::parse(value) {
        assert_eq!(delay.to_bytes()[..], value[..3]);
    }
    if let Some(time) = ext::parse_abs_send_time(value) {
        assert!(time.as_secs() < 64);
        let again = ext::parse_abs_send_time(&ext::abs_send_time(Now(time.as_nanos() as u64))).expect("three bytes");
        assert!(time.abs_diff(again).as_micros() < 4, "{time:?} became {again:?}");
    }
    let _ = (ext::transport_sequence(value), ext::mid(value), ext::rid(value));
}

fn write_rtp(header: &RtpHeader, extensions: &[(u8, &[u8])]) {
    let fields = HeaderFields {
        marker: header.marker,
        payload_type: header.payload_type,
        sequence: header.sequence,
        timestamp: header.timestamp,
        ssrc: header.ssrc,
    };
    let mut out = vec![0xa5; 300_000];
    // More than 65,535 words of extensions, which only a longer length than the read one could hold.
    let Some(len) = fields.write(extensions, &mut out) else { return };
    out.truncate(len + 40);
    pad(&mut out, 7).expect("there are forty bytes behind the header");
    let again = RtpHeader::parse(&out).expect("what we write can be read");
    assert_eq!(
        (again.marker, again.payload_type, again.sequence),
        (fields.marker, fields.payload_type, fields.sequence)
    );
    assert_eq!((again.timestamp, again.ssrc, again.header_len), (fields.timestamp, fields.ssrc, len));
    assert_eq!(again.payload(&out), Ok(len..len + 33));
    assert!(again.extensions(&out).eq(extensions.iter().copied()), "{extensions:?}");
    let _ = fields.write(extensions, &mut [0; 40]);
}

/// Compound RTCP: every view within its bounds, and everything that we also write, written again and read.
pub fn rtcp(data: &[u8]) {
    if let Ok(compound) = Compound::parse(data) {
        let mut statuses = 0;
        let mut packets = 0;
        for packet in compound {
            packets += 1;
            if let Ok(packet) = packet {
                statuses += read_rtcp(&packet);
                rewrite_rtcp(&packet);
            }
        }
        assert!(packets <= RTCP_PACKETS_MAX && statuses <= RTCP_TWCC_STATUSES_MAX);
    }
    write_feedback(data);
}

/// How many packet statuses it tells.
fn read_rtcp(packet: &Packet<'_>) -> usize {
    match packet {
        Packet::SenderReport(report) => assert!(report.blocks().count() <= RTCP_BLOCKS_MAX),
        Packet::ReceiverReport(report) => assert!(report.blocks().count() <= RTCP_BLOCKS_MAX),
        Packet::Description(description) => assert!(description.chunks().count() <= RTCP_BLOCKS_MAX),
        Packet::Bye(bye) => assert!(bye.ssrcs().count() <= RTCP_BLOCKS_MAX),
        Packet::Nack(nack) => assert!(nack.entries().count() <= RTCP_NACK_ENTRIES_MAX),
        Packet::Fir(fir) => assert!(fir.entries().count() <= RTCP_BLOCKS_MAX),
        Packet::Remb(remb) => assert!(remb.ssrcs().count() <= 255),
        Packet::TransportFeedback(feedback) => {
            let told: Vec<_> = feedback.statuses().collect();
            assert_eq!(told.len(), usize::from(feedback.status_count), "statuses were there when it was read");
            for (index, status) in told.iter().enumerate() {
                assert_eq!(status.sequence, feedback.base_sequence.wrapping_add(index as u16));
                assert!(status.arrival_us.is_none_or(|at| at % 250 == 0));
            }
            return told.len();
        }
        Packet::Pli(_) | Packet::Unknown { .. } => {}
    }
    0
}

/// What our writer makes of a packet is read as the same packet.
fn rewrite_rtcp(packet: &Packet<'_>) {
    let mut out = [0; 8192];
    let mut writer = CompoundWriter::new(&mut out);
    match packet {
        Packet::SenderReport(report) => {
            let blocks: Vec<_> = report.blocks().collect();
            writer.sender_report(&report.info, &blocks).expect("it fitted before");
        }
        Packet::ReceiverReport(report) => {
            let blocks: Vec<_> = report.blocks().collect();
            writer.receiver_report(report.ssrc, &blocks).expect("it fitted before");
        }
        Packet::Description(description) => {
            let chunks: Vec<_> = description.chunks().map(|(ssrc, name)| (ssrc, name.unwrap_or_default())).collect();
            writer.description(&chunks).expect("31 names of 255 bytes fit");
        }
        Packet::Bye(bye) => writer.bye(&bye.ssrcs().collect::<Vec<_>>()).expect("it fitted before"),
        Packet::Pli(pli) => writer.pli(pli.sender_ssrc, pli.media_ssrc).expect("it fitted before"),
        Packet::Fir(fir) => {
            let entries: Vec<FirEntry> = fir.entries().collect();
            writer.fir(fir.sender_ssrc, &entries).expect("it fitted before");
        }
        Packet::Remb(remb) => {
            let ssrcs: Vec<_> = remb.ssrcs().collect();
            writer.remb(remb.sender_ssrc, remb.rate_bps, &ssrcs).expect("it fitted before");
        }
        Packet::Nack(_) | Packet::TransportFeedback(_) | Packet::Unknown { .. } => return,
    }
    let len = writer.len();
    let mut compound = Compound::parse(&out[..len]).expect("what we write can be read");
    let again = compound.next().expect("one packet").expect("what we write can be read");
    assert!(compound.next().is_none());
    match (packet, &again) {
        (Packet::SenderReport(before), Packet::SenderReport(after)) => {
            assert_eq!(before.info, after.info);
            assert!(before.blocks().eq(after.blocks()));
        }
        (Packet::ReceiverReport(before), Packet::ReceiverReport(after)) => {
            assert_eq!(before.ssrc, after.ssrc);
            assert!(before.blocks().eq(after.blocks()));
        }
        (Packet::Description(before), Packet::Description(after)) => {
            let named = |(ssrc, name): (_, Option<&str>)| (ssrc, name.unwrap_or_default().to_owned());
            assert!(before.chunks().map(named).eq(after.chunks().map(named)));
        }
        (Packet::Bye(before), Packet::Bye(after)) => assert!(before.ssrcs().eq(after.ssrcs())),
        (Packet::Pli(before), Packet::Pli(after)) => assert_eq!(before, after),
        (Packet::Fir(before), Packet::Fir(after)) => assert!(before.entries().eq(after.entries())),
        (Packet::Remb(before), Packet::Remb(after)) => {
            // A peer may write a rate with fewer significant bits than it could; ours rounds down to eighteen.
            assert!(after.rate_bps <= before.rate_bps && before.rate_bps - after.rate_bps <= before.rate_bps >> 17);
            assert!(before.ssrcs().eq(after.ssrcs()));
        }
        _ => panic!("{packet:?} became {again:?}"),
    }
}

/// NACKs and arrival times of any pattern, into any room: what the writer says that it told is what is read.
fn write_feedback(data: &[u8]) {
    let mut input = Input::new(data);
    let room = 40 + usize::from(input.u16()) % 1400;
    let base = input.u16();
    let mut next = base;
    let mut at = Now::from_millis(u64::from(input.u32()));
    let (mut sequences, mut arrivals) = (Vec::new(), Vec::new());
    while !input.is_empty() && arrivals.len() < 3000 {
        let step = input.u8();
        sequences.push(next);
        next = next.wrapping_add(1 + u16::from(step % 23));
        match step >> 6 {
            0 => arrivals.extend(std::iter::repeat_n(None, usize::from(step))),
            1 => at = Now(at.0 + 50_000 * u64::from(step)),
            2 => at = Now(at.0.saturating_sub(900_000 * u64::from(step))),
            _ => at = Now(at.0 + 40_000_000 * u64::from(step)),
        }
        arrivals.push((!step.is_multiple_of(5)).then_some(at));
    }
    // The numbers ascend, and no more than half of all of them are asked for.
    sequences.retain(|sequence| sequence.wrapping_sub(base) < 0x8000);

    let (sender, media) = (ringmain_shared::media::Ssrc(1), ringmain_shared::media::Ssrc(2));
    let mut out = [0; 1500];
    let mut writer = CompoundWriter::new(&mut out[..room]);
    let asked = writer.nack(sender, media, &sequences).unwrap_or(0);
    let fields = FeedbackFields { sender_ssrc: sender, media_ssrc: media, base_sequence: base, feedback_count: 3 };
    let told = writer.transport_feedback(&fields, &arrivals).unwrap_or(0);
    let len = writer.len();
    if len == 0 {
        assert!(asked == 0 && told == 0);
        return;
    }
    for packet in Compound::parse(&out[..len]).expect("what we write can be read") {
        match packet.expect("what we write can be read") {
            Packet::Nack(nack) => {
                let mut read: Vec<u16> = nack.entries().flat_map(named).collect();
                read.dedup();
                let mut wanted = sequences[..asked].to_vec();
                wanted.dedup();
                assert_eq!(read, wanted);
            }
            Packet::TransportFeedback(feedback) => {
                let read: Vec<_> = feedback.statuses().map(|status| status.arrival_us).collect();
                assert_eq!(read.len(), told);
                assert!(read.iter().zip(&arrivals).all(|(read, wrote)| read.is_some() == wrote.is_some()));
                let times = |all: &mut dyn Iterator<Item = i64>| {
                    all.collect::<Vec<i64>>().windows(2).map(|w| w[1] - w[0]).collect::<Vec<_>>()
                };
                let wrote = times(&mut arrivals[..told].iter().flatten().map(|at| (at.0 / 250_000 * 250) as i64));
                assert_eq!(times(&mut read.iter().flatten().copied()), wrote);
            }
            other => panic!("nobody wrote {other:?}"),
        }
    }
}

/// The packets that an entry of a NACK asks for: one, and of the sixteen behind it those whose bits are set.
fn named((first, following): (u16, u16)) -> impl Iterator<Item = u16> {
    let behind = (0..16).filter(move |bit| following >> bit & 1 != 0).map(move |bit| first.wrapping_add(bit + 1));
    std::iter::once(first).chain(behind)
}

/// An RTP payload, or a dependency descriptor, as each codec's reader sees it.
pub fn codec(data: &[u8]) {
    let Some((&which, payload)) = data.split_first() else { return };
    for codec in [
        Codec::Vp8,
        Codec::Vp9,
        Codec::H264,
        Codec::H265,
        Codec::Av1,
        Codec::Opus,
        Codec::Pcmu,
        Codec::Pcma,
        Codec::G722,
    ] {
        let _ = describe(codec, payload);
    }
    match which % 6 {
        0 => rewrite_vp8(payload),
        1 => {
            if let Some(vp9) = Vp9::parse(payload) {
                assert!(vp9.header_len < payload.len());
                let mut copy = payload.to_vec();
                if let Some(id) = vp9.picture_id {
                    id.rewrite(&mut copy, id.value).expect("it was read there");
                }
                assert_eq!(copy, payload);
            }
        }
        2 => assert!(H264::parse(payload).is_none() || !payload.is_empty()),
        3 => assert!(H265::parse(payload).is_none_or(|h265| h265.temporal < 7)),
        4 => assert!(Av1::parse(payload).is_none() || payload.len() > 1),
        _ => dependency_descriptor(payload),
    }
}

fn rewrite_vp8(payload: &[u8]) {
    let Some(vp8) = Vp8::parse(payload) else { return };
    assert!(vp8.header_len < payload.len() && vp8.temporal.is_none_or(|temporal| temporal < 4));
    let mut copy = payload.to_vec();
    if let Some(id) = vp8.picture_id {
        id.rewrite(&mut copy, id.value.wrapping_add(1)).expect("it was read there");
        let again = Vp8::parse(&copy).expect("only the number changed").picture_id.expect("it is still there");
        let mask = if id.wide { 0x7fff } else { 0x7f };
        assert_eq!((again.value, again.wide, again.at), (id.value.wrapping_add(1) & mask, id.wide, id.at));
        assert!(id.rewrite(&mut copy[..id.at], 0).is_none());
    }
    if let Some(index) = vp8.tl0_pic_idx {
        index.rewrite(&mut copy, 77).expect("it was read there");
        assert_eq!(Vp8::parse(&copy).and_then(|vp8| vp8.tl0_pic_idx).map(|index| index.value), Some(77));
    }
}

/// The first chunk is a keyframe's descriptor, the rest one that may point into it.
fn dependency_descriptor(data: &[u8]) {
    let mut input = Input::new(data);
    let (first, second) = (input.chunk(), input.rest());
    let structure = Structure::parse(first);
    for value in [first, second] {
        let Some(descriptor) = DependencyDescriptor::parse(value) else { continue };
        assert!(!descriptor.keyframe() || descriptor.start_of_frame);
        let Some(structure) = &structure else { continue };
        let _ = descriptor.active_targets(value, structure);
        if let Some(template) = structure.template(&descriptor) {
            assert!(template.spatial < 4 && template.temporal < 8);
            assert!((32..=40).all(|target| !template.is_for_target(target)));
        }
    }
}
