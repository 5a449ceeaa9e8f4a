//! The way of an RTP header through forwarding: read, numbered anew, written for a subscriber, and read there.

use std::collections::HashMap;

use ringmain_dataplane::forward::header::{HEADER_SIZE_MAX, HeaderTemplate, HeaderValues};
use ringmain_dataplane::forward::packet::{InboundSeq, MediaPacket, Vp8Numbers};
use ringmain_dataplane::forward::rewrite::Rewrite;
use ringmain_dataplane::forward::vp8::{PictureNumbers, write_numbers};
use ringmain_dataplane::packet::codec::Vp8;
use ringmain_dataplane::packet::rtp::RtpHeader;
use ringmain_shared::Now;
use ringmain_shared::media::{Extension, ExtensionIds, Mid, PayloadType, Ssrc};

use crate::input::Input;

/// Half of the inputs are one packet on its way; the others a stream with losses, pauses and switches.
pub fn rtp_rewrite(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 2 {
        0 => one_packet(&mut input),
        _ => stream(&mut input),
    }
}

/// What the subscriber reads is what was meant for it, whatever the publisher's packet looked like.
fn one_packet(input: &mut Input<'_>) {
    let mut ids = ExtensionIds::default();
    let used = input.u16();
    for (index, extension) in Extension::ALL.into_iter().enumerate() {
        if used >> index & 1 == 1 {
            ids.set(extension, index as u8 + 1);
        }
    }
    let descriptor = input.take(usize::from(used >> 9 & 0x3f));
    let room = usize::from(input.u16());
    let bytes = input.rest();
    let Ok(header) = RtpHeader::parse(bytes) else { return };
    let Ok(payload) = header.payload(bytes) else { return };
    let mut packet = MediaPacket { timestamp: header.timestamp, marker: header.marker, ..MediaPacket::default() };
    for (id, value) in header.extensions(bytes) {
        match ids.extension(id) {
            Some(Extension::AudioLevel) => packet.audio_level = value.first().copied(),
            Some(Extension::VideoOrientation) => packet.orientation = value.first().copied(),
            Some(Extension::PlayoutDelay) => packet.playout_delay = value.first_chunk().copied(),
            _ => {}
        }
    }
    let mut payload = bytes[payload].to_vec();
    packet.vp8 = Vp8::parse(&payload).as_ref().and_then(Vp8Numbers::of);

    let mid = Mid::from("mid").expect("three bytes");
    let values = HeaderValues {
        marker: header.marker,
        payload_type: PayloadType(96),
        sequence: header.sequence.wrapping_add(1),
        timestamp: header.timestamp.wrapping_sub(1),
        ssrc: Ssrc(!header.ssrc.0),
        transport_sequence: header.sequence,
        abs_send_time: [1, 2, 3],
        descriptor,
    };
    let template = HeaderTemplate::new(ids, mid);
    let mut out = [0xa5; HEADER_SIZE_MAX];
    let _ = template.write(&mut out[..room.min(HEADER_SIZE_MAX)], &values, &packet);
    let len = template.write(&mut out, &values, &packet).expect("the longest header fits");
    let read = RtpHeader::parse(&out[..len]).expect("what we write can be read");
    assert_eq!(read.header_len, len);
    assert_eq!((read.marker, read.payload_type, read.ssrc), (values.marker, values.payload_type, values.ssrc));
    assert_eq!((read.sequence, read.timestamp, read.csrc_count), (values.sequence, values.timestamp, 0));
    let mut found: HashMap<Extension, Vec<u8>> = HashMap::new();
    for (id, value) in read.extensions(&out[..len]) {
        let extension = ids.extension(id).expect("only what was negotiated");
        assert!(found.insert(extension, value.to_vec()).is_none(), "{extension:?} twice");
    }
    let mut expect = |extension: Extension, value: Option<&[u8]>| {
        let value = value.filter(|_| ids.id(extension).is_some()).map(<[u8]>::to_vec);
        assert_eq!(found.remove(&extension), value, "{extension:?}");
    };
    let by_time = ids.id(Extension::TransportCc).is_none();
    expect(Extension::TransportCc, Some(&values.transport_sequence.to_be_bytes()));
    expect(Extension::AbsSendTime, by_time.then_some(&values.abs_send_time));
    expect(Extension::Mid, Some(b"mid"));
    expect(Extension::AudioLevel, packet.audio_level.as_ref().map(std::slice::from_ref));
    expect(Extension::VideoOrientation, packet.orientation.as_ref().map(std::slice::from_ref));
    expect(Extension::PlayoutDelay, packet.playout_delay.as_ref().map(|delay| &delay[..]));
    expect(Extension::DependencyDescriptor, Some(descriptor).filter(|value| !value.is_empty()));
    assert!(found.is_empty(), "{found:?}");

    rewrite_payload(&mut payload, &packet);
}

/// VP8's numbers are changed in place, and nothing else is.
fn rewrite_payload(payload: &mut [u8], packet: &MediaPacket) {
    let Some(numbers) = packet.vp8 else { return };
    let before = Vp8::parse(payload).expect("it was read before");
    let mut pictures = PictureNumbers::new(0x1234_5678);
    let Some(outbound) = pictures.map(numbers) else { return };
    write_numbers(payload, packet, outbound);
    let after = Vp8::parse(payload).expect("only numbers changed");
    assert_eq!(after.header_len, before.header_len);
    assert_eq!(
        (after.keyframe, after.temporal, after.layer_sync),
        (before.keyframe, before.temporal, before.layer_sync)
    );
    let id = after.picture_id.expect("it is still there");
    let mask = if id.wide { 0x7fff } else { 0x7f };
    assert_eq!(id.value, outbound.picture_id & mask);
    assert_eq!(after.tl0_pic_idx.map(|index| index.value), before.tl0_pic_idx.map(|_| outbound.tl0));
}

/// Numbers towards a subscriber: no index twice, none for what was left out, and none before the last switch.
fn stream(input: &mut Input<'_>) {
    let mut rewrite = Rewrite::new(90_000, input.u64());
    let mut now = Now::from_millis(1_000);
    let mut sequence = 1u64 << 32;
    let mut packet = MediaPacket { sequence: InboundSeq(sequence), timestamp: input.u32(), ..MediaPacket::default() };
    rewrite.restart(&packet, None, now);
    let mut used: HashMap<u64, u64> = HashMap::new();
    let mut begin = sequence;
    let mut skipped = Vec::new();
    for _ in 0..4096 {
        if input.is_empty() {
            return;
        }
        let step = input.u8();
        let size = u64::from(step & 0x0f);
        match step >> 4 {
            0..=5 => sequence += 1 + size / 8,
            6 => sequence += size * size * 16,
            7 => now = now + std::time::Duration::from_millis(size * 100),
            8 => {
                rewrite.skip(InboundSeq(sequence + 1));
                sequence += 1;
                skipped.push(sequence);
                continue;
            }
            9 => {
                // Another layer, whose numbers have nothing to do with those before.
                sequence = (2 + size) << 32;
                packet = MediaPacket { sequence: InboundSeq(sequence), timestamp: input.u32(), ..packet };
                rewrite.restart(&packet, (size % 2 == 0).then(|| input.u32()), now);
                begin = sequence;
            }
            10 => {
                sequence += size + 1;
                packet.sequence = InboundSeq(sequence);
                rewrite.resume(&packet);
                begin = sequence;
            }
            _ => {}
        }
        // Late packets come too.
        let late = if step >> 4 >= 11 { size * 3 } else { 0 };
        let number = sequence.saturating_sub(late);
        packet.sequence = InboundSeq(number);
        packet.timestamp = packet.timestamp.wrapping_add(u32::from(step));
        let Some((out, timestamp)) = rewrite.map(&packet, now) else { continue };
        assert!(number >= begin, "{number} is from before {begin}");
        assert_eq!(timestamp, rewrite.timestamp(packet.timestamp));
        assert_eq!(used.insert(out.0, number), None, "index {} went out twice", out.0);
    }
}
