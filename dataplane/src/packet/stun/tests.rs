use super::*;
use crate::packet::hammer::hammer;

/// RFC 5769 §2.1.
const REQUEST: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\
    \x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\x00\x06\x00\x09evtj:h6vY   \
    \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
    \x80\x28\x00\x04\xe5\x7a\x3b\xcf";
/// RFC 5769 §2.2.
const RESPONSE_IPV4: &[u8] = b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x0btest vector \x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\
    \x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
    \x80\x28\x00\x04\xc0\x7d\x4c\x96";
/// RFC 5769 §2.3.
const RESPONSE_IPV6: &[u8] = b"\x01\x01\x00\x48\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x0btest vector \x00\x20\x00\x14\x00\x02\xa1\x47\
    \x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9\
    \x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c\x82\x92\xc2\x75\xbf\xe3\xed\x41\
    \x80\x28\x00\x04\xc8\xfb\x0b\x4c";
const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
const TRANSACTION: TransactionId =
    TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);

#[test]
fn sample_request_of_rfc_5769_is_read() {
    let message = Message::parse(REQUEST).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, method::BINDING));
    assert_eq!(message.transaction_id(), TRANSACTION);
    assert_eq!(message.username(), Some(("evtj", "h6vY")));
    assert_eq!(message.priority(), Some(0x6e00_01ff));
    assert_eq!(message.ice_controlled(), Some(0x932f_f9b1_5126_3b36));
    assert_eq!(message.ice_controlling(), None);
    assert!(!message.use_candidate() && message.has_fingerprint() && message.has_integrity());
    assert_eq!(message.attribute(attribute::SOFTWARE), Some(&b"STUN test client"[..]));
    assert_eq!(message.unknown_required(attribute::KNOWN_IN_BINDING).count(), 0);
    assert_eq!(message.verify_integrity(&IntegrityKey::new(PASSWORD)), Ok(()));
    assert_eq!(message.verify_integrity(&IntegrityKey::new(b"wrong")), Err(DropReason::StunIntegrity));
}

#[test]
fn sample_responses_of_rfc_5769_are_read() {
    for (bytes, address) in
        [(RESPONSE_IPV4, "192.0.2.1:32853"), (RESPONSE_IPV6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")]
    {
        let message = Message::parse(bytes).unwrap();
        assert_eq!(message.class(), Class::Success);
        assert_eq!(message.xor_mapped_address(), Some(address.parse().unwrap()));
        assert_eq!(message.verify_integrity(&IntegrityKey::new(PASSWORD)), Ok(()));
    }
}

#[test]
fn every_changed_bit_is_seen() {
    let key = IntegrityKey::new(PASSWORD);
    for bit in 0..REQUEST.len() * 8 {
        let mut bytes = REQUEST.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let sealed = Message::parse(&bytes).is_ok_and(|message| message.has_fingerprint());
        assert!(!sealed, "FINGERPRINT did not cover bit {bit}");
        if bit / 8 < REQUEST.len() - 8 {
            reseal(&mut bytes);
            let verified = Message::parse(&bytes).and_then(|message| message.verify_integrity(&key));
            assert!(verified.is_err(), "MESSAGE-INTEGRITY did not cover bit {bit}");
        }
    }
}

#[test]
fn what_we_write_is_what_we_read() {
    let key = IntegrityKey::new(PASSWORD);
    let mut out = [0xaa; 512];
    for role in [Role::Controlled(7), Role::Controlling(9, true), Role::Controlling(9, false)] {
        let request = BindingRequest {
            transaction_id: TRANSACTION,
            remote_ufrag: "theirs",
            local_ufrag: "our",
            priority: 0x6e7f_1eff,
            role,
        };
        let len = write_binding_request(&mut out, &request, &key).unwrap();
        let message = Message::parse(&out[..len]).unwrap();
        assert_eq!(message.class(), Class::Request);
        assert_eq!(message.username(), Some(("theirs", "our")));
        assert_eq!(message.priority(), Some(0x6e7f_1eff));
        assert_eq!(message.ice_controlled(), matches!(role, Role::Controlled(_)).then_some(7));
        assert_eq!(message.ice_controlling(), matches!(role, Role::Controlling(..)).then_some(9));
        assert_eq!(message.use_candidate(), role == Role::Controlling(9, true));
        assert!(message.has_fingerprint());
        assert_eq!(message.verify_integrity(&key), Ok(()));
        for room in 0..len {
            assert_eq!(write_binding_request(&mut out[..room], &request, &key), None);
        }
    }
    for address in ["203.0.113.9:1", "[2001:db8::1]:65535"] {
        let len = write_binding_success(&mut out, TRANSACTION, address.parse().unwrap(), &key).unwrap();
        let message = Message::parse(&out[..len]).unwrap();
        assert_eq!(message.class(), Class::Success);
        assert_eq!(message.xor_mapped_address(), Some(address.parse().unwrap()));
        assert_eq!(message.verify_integrity(&key), Ok(()));
    }
    let len = write_binding_error(&mut out, TRANSACTION, error::ROLE_CONFLICT, &[], Some(&key)).unwrap();
    let message = Message::parse(&out[..len]).unwrap();
    assert_eq!((message.class(), message.error_code()), (Class::Error, Some(487)));
    assert_eq!(message.verify_integrity(&key), Ok(()));
    let len = write_binding_error(&mut out, TRANSACTION, error::UNKNOWN_ATTRIBUTE, &[0x0030, 0x0031], None).unwrap();
    let message = Message::parse(&out[..len]).unwrap();
    assert_eq!(message.attribute(attribute::UNKNOWN_ATTRIBUTES), Some(&[0, 0x30, 0, 0x31][..]));
    assert_eq!(message.verify_integrity(&key), Err(DropReason::StunIntegrity));
}

#[test]
fn address_mapped_into_ipv6_is_told_as_ipv4() {
    let mut out = [0; 128];
    let key = IntegrityKey::new(PASSWORD);
    let len = write_binding_success(&mut out, TRANSACTION, "[::ffff:192.0.2.7]:9".parse().unwrap(), &key).unwrap();
    assert_eq!(Message::parse(&out[..len]).unwrap().xor_mapped_address(), Some("192.0.2.7:9".parse().unwrap()));
}

#[test]
fn attributes_after_integrity_have_no_effect() {
    let key = IntegrityKey::new(PASSWORD);
    let mut out = [0; 256];
    let mut writer = MessageWriter::new(&mut out, Class::Request, method::BINDING, TRANSACTION);
    writer.attribute(attribute::USERNAME, b"a:b");
    writer.integrity(&key);
    writer.attribute(attribute::USE_CANDIDATE, &[]);
    writer.attribute(attribute::PRIORITY, &[0, 0, 0, 1]);
    writer.attribute(0x0019, &[17, 0, 0, 0]);
    writer.attribute(attribute::MESSAGE_INTEGRITY, &[0; 20]);
    let len = writer.finish().unwrap();
    let message = Message::parse(&out[..len]).unwrap();
    assert_eq!(message.verify_integrity(&key), Ok(()));
    assert!(!message.use_candidate());
    assert_eq!(message.priority(), None);
    assert_eq!(message.unknown_required(attribute::KNOWN_IN_BINDING).count(), 0);
}

#[test]
fn first_of_two_attributes_wins_and_unknown_ones_are_listed() {
    let mut out = [0; 256];
    let mut writer = MessageWriter::new(&mut out, Class::Request, method::BINDING, TRANSACTION);
    writer.attribute(attribute::USERNAME, b"first:x");
    writer.attribute(attribute::USERNAME, b"second:x");
    writer.attribute(0x7fff, &[1]);
    writer.attribute(0xc057, &[0, 0, 0, 1]);
    let len = writer.finish().unwrap();
    let message = Message::parse(&out[..len]).unwrap();
    assert_eq!(message.username(), Some(("first", "x")));
    assert!(message.unknown_required(attribute::KNOWN_IN_BINDING).eq([0x7fff]));
}

#[test]
fn every_class_method_and_length_is_defined() {
    for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
        for method in 0..16u16 {
            let mut out = [0; 64];
            let len = MessageWriter::new(&mut out, class, method | method << 8, TRANSACTION).finish().unwrap();
            let message = Message::parse(&out[..len]).unwrap();
            assert_eq!((message.class(), message.method()), (class, method | method << 8));
            for length in [0, 1, 3, 4, 7, 9, 12, 65_519, 65_520, 65_532, 65_535u16] {
                let mut odd = out;
                odd[2..4].copy_from_slice(&length.to_be_bytes());
                assert!(Message::parse(&odd[..len]).is_err(), "length {length} of {class:?} {method}");
            }
        }
    }
}

#[test]
fn framing_faults_are_refused() {
    for len in 0..REQUEST.len() {
        assert!(Message::parse(&REQUEST[..len]).is_err(), "cut to {len}");
    }
    let longer = [REQUEST, &[0]].concat();
    assert!(Message::parse(&longer).is_err());
    let mut no_cookie = RESPONSE_IPV4.to_vec();
    no_cookie[4] = 0;
    reseal(&mut no_cookie);
    assert!(Message::parse(&no_cookie).is_err());
    // An attribute that claims to be longer than the message.
    let mut over = RESPONSE_IPV4.to_vec();
    over[22..24].copy_from_slice(&[0xff, 0xff]);
    reseal(&mut over);
    assert!(Message::parse(&over).is_err());
}

#[test]
fn random_bytes_do_no_harm() {
    let key = IntegrityKey::new(PASSWORD);
    hammer(&[REQUEST, RESPONSE_IPV4, RESPONSE_IPV6], |bytes| {
        let mut bytes = bytes.to_vec();
        if bytes.len() > 28 {
            reseal(&mut bytes);
        }
        let Ok(message) = Message::parse(&bytes) else { return };
        let _ = (message.username(), message.priority(), message.use_candidate(), message.ice_controlled());
        let _ = (message.ice_controlling(), message.xor_mapped_address(), message.error_code());
        let _ = (message.unknown_required(&[]).count(), message.verify_integrity(&key));
    });
}

/// Makes the FINGERPRINT at the end right again.
fn reseal(bytes: &mut [u8]) {
    let at = bytes.len() - 8;
    let crc = crc32fast::hash(&bytes[..at]) ^ FINGERPRINT_XOR;
    bytes[at + 4..].copy_from_slice(&crc.to_be_bytes());
}
