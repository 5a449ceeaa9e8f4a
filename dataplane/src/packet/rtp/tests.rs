use super::*;
use crate::packet::hammer::{XorShift, hammer};

/// Two CSRCs, one-byte extensions 1 (length 1), padding byte, 3 (length 3), payload of 4, padding of 3.
const FULL: &[u8] = b"\xb2\xe0\x12\x34\x00\x00\x03\xe8\xde\xad\xbe\xef\x00\x00\x00\x01\x00\x00\x00\x02\
    \xbe\xde\x00\x02\x10\x85\x00\x32\x0a\x0b\x0c\x00body\x00\x00\x03";
const TWO_BYTE: &[u8] = b"\x90\x60\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03\
    \x10\x05\x00\x02\x20\x00\x00\x21\x03\x01\x02\x03x";

#[test]
fn full_header_is_read() {
    let header = RtpHeader::parse(FULL).unwrap();
    assert!(header.marker && header.has_padding);
    assert_eq!(header.payload_type, PayloadType(96));
    assert_eq!((header.sequence, header.timestamp, header.ssrc), (0x1234, 1000, Ssrc(0xdead_beef)));
    assert!(header.csrcs(FULL).eq([Ssrc(1), Ssrc(2)]));
    assert!(header.extensions(FULL).eq([(1, &[0x85][..]), (3, &[10, 11, 12][..])]));
    assert_eq!(&FULL[header.payload(FULL).unwrap()], b"body");
}

#[test]
fn two_byte_extensions_may_be_empty_and_carry_application_bits() {
    let header = RtpHeader::parse(TWO_BYTE).unwrap();
    assert!(header.extensions(TWO_BYTE).eq([(0x20, &[][..]), (0x21, &[1, 2, 3][..])]));
    assert_eq!(&TWO_BYTE[header.payload(TWO_BYTE).unwrap()], b"x");
}

#[test]
fn extension_of_another_profile_is_skipped() {
    let mut packet = TWO_BYTE.to_vec();
    packet[12] = 0x77;
    let header = RtpHeader::parse(&packet).unwrap();
    assert_eq!(header.extensions(&packet).count(), 0);
    assert_eq!(&packet[header.payload(&packet).unwrap()], b"x");
}

#[test]
fn one_byte_ids_zero_with_length_and_fifteen_end_the_processing() {
    for stop in [0x02, 0xf0] {
        let mut packet = FULL.to_vec();
        packet[26] = stop;
        let header = RtpHeader::parse(&packet).unwrap();
        assert!(header.extensions(&packet).eq([(1, &[0x85][..])]), "element {stop:#x}");
    }
}

#[test]
fn element_longer_than_the_block_is_left_out() {
    let mut packet = FULL.to_vec();
    packet[27] = 0x3f;
    let header = RtpHeader::parse(&packet).unwrap();
    assert!(header.extensions(&packet).eq([(1, &[0x85][..])]));
}

#[test]
fn padding_is_validated() {
    let header = RtpHeader::parse(FULL).unwrap();
    let mut packet = FULL.to_vec();
    for count in 0..=255u8 {
        *packet.last_mut().unwrap() = count;
        let payload = header.payload(&packet);
        match count {
            0 | 8.. => assert_eq!(payload, Err(DropReason::RtpMalformed), "count {count}"),
            7 => assert!(payload.unwrap().is_empty()),
            _ => assert_eq!(payload.unwrap().len(), 7 - usize::from(count)),
        }
    }
    let mut whole = [0; 20];
    whole[0] = 0x80;
    pad(&mut whole, 8).unwrap();
    assert!(RtpHeader::parse(&whole).unwrap().payload(&whole).unwrap().is_empty());
    assert_eq!(pad(&mut whole, 9), None);
    assert_eq!(pad(&mut whole, 0), None);
}

#[test]
fn header_cut_anywhere_is_refused() {
    let header_len = RtpHeader::parse(FULL).unwrap().header_len;
    for len in 0..header_len {
        assert_eq!(RtpHeader::parse(&FULL[..len]), Err(DropReason::RtpMalformed), "cut to {len}");
    }
    assert!(RtpHeader::parse(&FULL[..header_len]).is_ok());
    let mut version = FULL.to_vec();
    version[0] ^= 0x40;
    assert!(RtpHeader::parse(&version).is_err());
}

const FIELDS: HeaderFields = HeaderFields {
    marker: true,
    payload_type: PayloadType(111),
    sequence: 65_535,
    timestamp: 0xffff_fffe,
    ssrc: Ssrc(7),
};

#[test]
fn written_header_is_read_back_and_never_overruns() {
    let mut random = XorShift(7);
    for round in 0..2_000 {
        let long = round % 3 == 0;
        let mut id = 0;
        let values: Vec<(u8, Vec<u8>)> = (0..random.below(6))
            .map(|_| {
                id += 1 + random.below(2) as u8 + u8::from(long) * 3;
                (id, vec![id; if long { random.below(40) } else { 1 + random.below(16) }])
            })
            .collect();
        let extensions: Vec<(u8, &[u8])> = values.iter().map(|(id, value)| (*id, &value[..])).collect();
        let mut out = [0xff; 300];
        let len = FIELDS.write(&extensions, &mut out).unwrap();
        assert_eq!(len % 4, 0);
        assert_eq!(out[len], 0xff);
        let header = RtpHeader::parse(&out[..len]).unwrap();
        assert_eq!(header.header_len, len);
        assert_eq!((header.sequence, header.timestamp, header.ssrc), (FIELDS.sequence, FIELDS.timestamp, FIELDS.ssrc));
        assert!(header.marker && header.payload_type == FIELDS.payload_type);
        assert!(header.extensions(&out).eq(extensions.iter().copied()), "round {round}: {extensions:?}");
        for room in 0..len {
            assert_eq!(FIELDS.write(&extensions, &mut out[..room]), None, "round {round}, room {room} of {len}");
        }
    }
}

#[test]
fn form_follows_from_ids_and_lengths() {
    let form = |extensions: &[(u8, &[u8])]| {
        let mut out = [0; 300];
        FIELDS.write(extensions, &mut out).map(|_| [out[12], out[13]])
    };
    assert_eq!(form(&[(14, &[0; 16])]), Some([0xbe, 0xde]));
    assert_eq!(form(&[(15, &[0; 1])]), Some([0x10, 0x00]));
    assert_eq!(form(&[(1, &[0; 17])]), Some([0x10, 0x00]));
    assert_eq!(form(&[(1, &[])]), Some([0x10, 0x00]));
    assert_eq!(form(&[(0, &[1])]), None);
    assert_eq!(form(&[(1, &[0; 256])]), None);
}

#[test]
fn reads_as_the_rtp_crate_writes() {
    use webrtc_util::marshal::Marshal;
    let mut header = rtp::header::Header {
        version: 2,
        marker: true,
        payload_type: 96,
        sequence_number: 513,
        timestamp: 77,
        ssrc: 99,
        csrc: vec![1, 2, 3],
        ..Default::default()
    };
    header.set_extension(2, bytes::Bytes::from_static(&[9, 8])).unwrap();
    header.set_extension(5, bytes::Bytes::from_static(&[1, 2, 3])).unwrap();
    let packet = rtp::packet::Packet { header, payload: bytes::Bytes::from_static(b"payload") }.marshal().unwrap();
    let ours = RtpHeader::parse(&packet).unwrap();
    assert_eq!((ours.sequence, ours.timestamp, ours.ssrc, ours.csrc_count), (513, 77, Ssrc(99), 3));
    assert!(ours.extensions(&packet).eq([(2, &[9, 8][..]), (5, &[1, 2, 3][..])]));
    assert_eq!(&packet[ours.payload(&packet).unwrap()], b"payload");
}

#[test]
fn random_bytes_do_no_harm() {
    hammer(&[FULL, TWO_BYTE], |bytes| {
        let Ok(header) = RtpHeader::parse(bytes) else { return };
        assert!(header.header_len <= bytes.len());
        let inside: usize = header.extensions(bytes).map(|(_, value)| value.len()).sum();
        assert!(inside <= bytes.len());
        let _ = header.csrcs(bytes).count();
        if let Ok(payload) = header.payload(bytes) {
            assert!(payload.start <= payload.end && payload.end <= bytes.len());
        }
    });
}
