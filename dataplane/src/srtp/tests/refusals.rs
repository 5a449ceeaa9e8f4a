//! What is refused, and that refusing changes nothing.

use ringmain_shared::drop_reason::DropReason;
use ringmain_shared::limits::{DATAGRAM_SIZE_MAX, SSRCS_PER_TRANSPORT_MAX};
use ringmain_shared::media::Ssrc;

use super::super::cipher::Cipher;
use super::super::index::{INDEX_MAX, RTCP_INDEX_MAX};
use super::*;

#[test]
fn one_wrong_bit_and_nothing_opens() {
    for profile in Profile::ALL {
        let (mut outbound, mut inbound) = pair(profile);
        let media = sealed_rtp(&outbound, 5, 1_000, &[0x55; 40]);
        let report = sealed_rtcp(&mut outbound, 5, 6);
        for bit in 0..media.len() * 8 {
            let mut forged = media.clone();
            forged[bit / 8] ^= 0x80 >> (bit % 8);
            assert!(inbound.unprotect_rtp(&mut forged).is_err(), "{profile:?} bit {bit}");
        }
        for bit in 0..report.len() * 8 {
            let mut forged = report.clone();
            forged[bit / 8] ^= 0x80 >> (bit % 8);
            assert!(inbound.unprotect_rtcp(&mut forged).is_err(), "{profile:?} bit {bit}");
        }
        assert_eq!(inbound.stream_counts(), (0, 0), "{profile:?}: a forgery left a trace");
        assert!(inbound.unprotect_rtp(&mut media.clone()).is_ok());
        assert!(inbound.unprotect_rtcp(&mut report.clone()).is_ok());
    }
}

#[test]
fn no_length_is_a_danger() {
    for profile in Profile::ALL {
        let (mut outbound, mut inbound) = pair(profile);
        let media = sealed_rtp(&outbound, 5, 1_000, &[0x55; 60]);
        let report = sealed_rtcp(&mut outbound, 5, 16);
        for len in 0..=64 {
            for first in [0x80, 0x8F, 0x90, 0x9F, 0xB0] {
                let mut short = media[..len].to_vec();
                short.iter_mut().take(1).for_each(|byte| *byte = first);
                let expected = if len < 12 + profile.rtp_overhead() { Some(DropReason::SrtpLength) } else { None };
                let reason = inbound.unprotect_rtp(&mut short).map(|clear| clear.describe()).unwrap_err();
                assert!(expected.is_none_or(|expected| expected == reason), "{profile:?} {len} {reason:?}");
                let mut zeroes = vec![first; len];
                assert!(inbound.unprotect_rtp(&mut zeroes).is_err());
            }
            let expected = if len < 8 + profile.rtcp_overhead() { Some(DropReason::SrtpLength) } else { None };
            let reason = inbound.unprotect_rtcp(&mut report[..len].to_vec()).map(|clear| clear.describe()).unwrap_err();
            assert!(expected.is_none_or(|expected| expected == reason), "{profile:?} {len} {reason:?}");
            assert!(inbound.unprotect_rtcp(&mut vec![0xFF; len]).is_err());
        }
        let too_long = Err(DropReason::SrtpLength);
        let mut long = vec![0x80; DATAGRAM_SIZE_MAX + 1];
        assert_eq!(inbound.unprotect_rtp(&mut long).map(|clear| clear.describe()), too_long);
        assert_eq!(inbound.stream_counts(), (0, 0));
    }
}

#[test]
fn a_packet_of_a_header_only_opens() {
    for profile in Profile::ALL {
        let (mut outbound, mut inbound) = pair(profile);
        assert_eq!(inbound.unprotect_rtp(&mut sealed_rtp(&outbound, 1, 1, &[])).unwrap().payload(), b"");
        assert_eq!(inbound.unprotect_rtcp(&mut sealed_rtcp(&mut outbound, 1, 0)).unwrap().bytes().len(), 8);
    }
}

#[test]
fn a_header_that_points_past_its_packet_is_malformed() {
    for profile in Profile::ALL {
        let (outbound, mut inbound) = pair(profile);
        let mut packet = sealed_rtp(&outbound, 1, 1, &[0; 20]);
        packet[0] = 0x8F;
        let refused = inbound.unprotect_rtp(&mut packet).map(|clear| clear.describe());
        assert_eq!(refused, Err(DropReason::RtpMalformed), "fifteen CSRCs");
        packet[0] = 0x90;
        packet[14] = 0xFF;
        let refused = inbound.unprotect_rtp(&mut packet).map(|clear| clear.describe());
        assert_eq!(refused, Err(DropReason::RtpMalformed), "a long extension");
        packet[0] = 0x40;
        let refused = inbound.unprotect_rtp(&mut packet).map(|clear| clear.describe());
        assert_eq!(refused, Err(DropReason::RtpMalformed), "RTP of version 1");
    }
}

#[test]
fn rtcp_that_does_not_claim_to_be_encrypted_is_plain() {
    for profile in Profile::ALL {
        let (mut outbound, mut inbound) = pair(profile);
        let report = sealed_rtcp(&mut outbound, 1, 4);
        let word = match profile {
            Profile::Aes128CmHmacSha1_80 => report.len() - 14,
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => report.len() - 4,
        };
        let mut plain = report.clone();
        plain[word] &= 0x7F;
        let refused = inbound.unprotect_rtcp(&mut plain).map(|clear| clear.describe());
        assert_eq!(refused, Err(DropReason::SrtcpPlain), "{profile:?}");
        assert!(inbound.unprotect_rtcp(&mut report.clone()).is_ok());
    }
}

/// A stranger who knows SSRC and addresses cannot move the window, nor the rollover counter.
#[test]
fn forgeries_between_the_packets_cost_none_of_them() {
    for profile in Profile::ALL {
        let (outbound, mut inbound) = pair(profile);
        let mut random = Random(9);
        for index in 65_000..67_000u64 {
            let mut forged = rtp(1, index.wrapping_add(random.below(65_536)), &random.bytes(40));
            let refused = inbound.unprotect_rtp(&mut forged).map(|clear| clear.describe());
            assert_eq!(refused, Err(DropReason::SrtpAuth), "{profile:?} {index}");
            let mut packet = sealed_rtp(&outbound, 1, index, &[3; 30]);
            assert!(inbound.unprotect_rtp(&mut packet).is_ok(), "{profile:?} {index}");
        }
    }
}

/// Only the peer's own repetitions are counted as such.
#[test]
fn a_forged_repetition_is_a_forgery() {
    for profile in Profile::ALL {
        let (mut outbound, mut inbound) = pair(profile);
        let media = sealed_rtp(&outbound, 1, 1, &[3; 30]);
        let report = sealed_rtcp(&mut outbound, 1, 4);
        assert!(inbound.unprotect_rtp(&mut media.clone()).is_ok());
        assert!(inbound.unprotect_rtcp(&mut report.clone()).is_ok());
        let (mut media, mut report) = (media, report);
        media[20] ^= 1;
        report[10] ^= 1;
        let refused = inbound.unprotect_rtp(&mut media).map(|clear| clear.describe());
        assert_eq!(refused, Err(DropReason::SrtpAuth), "{profile:?}");
        let refused = inbound.unprotect_rtcp(&mut report).map(|clear| clear.describe());
        assert_eq!(refused, Err(DropReason::SrtpAuth), "{profile:?}");
    }
}

#[test]
fn no_more_ssrcs_than_the_limit() {
    for profile in Profile::ALL {
        let (mut outbound, mut inbound) = pair(profile);
        for ssrc in 0..10_000 {
            let mut forged = rtp(ssrc, 1, &[0; 30]);
            assert!(inbound.unprotect_rtp(&mut forged).is_err());
        }
        assert_eq!(inbound.stream_counts(), (0, 0));

        let limit = SSRCS_PER_TRANSPORT_MAX as u32;
        for ssrc in 0..limit + 3 {
            let expected = if ssrc < limit { Ok(Ssrc(ssrc)) } else { Err(DropReason::TooManySsrcs) };
            let opened =
                inbound.unprotect_rtp(&mut sealed_rtp(&outbound, ssrc, 1, &[1; 5])).map(|c| c.describe().ssrc());
            assert_eq!(opened, expected, "{profile:?}");
            let opened = inbound.unprotect_rtcp(&mut sealed_rtcp(&mut outbound, ssrc, 2)).map(|c| c.describe().ssrc());
            assert_eq!(opened, expected, "{profile:?}");
        }
        assert_eq!(inbound.stream_counts(), (SSRCS_PER_TRANSPORT_MAX, SSRCS_PER_TRANSPORT_MAX));
        for ssrc in 0..limit {
            let mut next = sealed_rtp(&outbound, ssrc, 2, &[1; 5]);
            assert!(inbound.unprotect_rtp(&mut next).is_ok(), "{profile:?}: a known stream is not crowded out");
        }

        inbound.forget(Ssrc(3));
        assert!(inbound.unprotect_rtp(&mut sealed_rtp(&outbound, limit, 1, &[1; 5])).is_ok());
        assert!(inbound.unprotect_rtcp(&mut sealed_rtcp(&mut outbound, limit, 2)).is_ok());
        let again = inbound.unprotect_rtp(&mut sealed_rtp(&outbound, 63, 2, &[1; 5])).map(|clear| clear.describe());
        assert_eq!(again, Err(DropReason::Replayed), "{profile:?}: other streams keep their windows");
    }
}

#[test]
fn a_key_ends() {
    for profile in Profile::ALL {
        let key = MasterKey::new(profile, &vec![1; profile.key_len()], &vec![2; profile.salt_len()]).unwrap();
        let (rtp_cipher, rtcp_cipher) = (Cipher::new(&key.rtp_session()), Cipher::new(&key.rtcp_session()));
        let mut outbound = Outbound::from_ciphers(rtp_cipher, rtcp_cipher, RTCP_INDEX_MAX);
        let mut last = rtcp(1, 2);
        last.resize(16 + Profile::RTCP_OVERHEAD_MAX, 0);
        let mut next = last.clone();
        assert!(outbound.protect_rtcp(&mut last, 16).is_ok());
        assert_eq!(outbound.protect_rtcp(&mut next, 16), Err(DropReason::KeyExhausted), "{profile:?}");

        let mut media = rtp(1, INDEX_MAX, &[0; 30]);
        assert!(outbound.protect_rtp(INDEX_MAX, &mut media, 12, 20).is_ok());
        assert_eq!(outbound.protect_rtp(INDEX_MAX + 1, &mut media, 12, 20), Err(DropReason::KeyExhausted));
    }
}

#[test]
fn what_does_not_fit_is_not_protected() {
    for profile in Profile::ALL {
        let (mut outbound, _) = pair(profile);
        let clear = rtp(1, 1, &[5; 20]);
        let no_room = Err(DropReason::SrtpLength);
        for room in 0..profile.rtp_overhead() {
            let mut packet = clear.clone();
            packet.resize(clear.len() + room, 0);
            assert_eq!(outbound.protect_rtp(1, &mut packet, 12, clear.len()), no_room, "{profile:?} {room}");
            assert_eq!(outbound.protect_rtp_from(1, &[5; 20], &mut packet, 12), no_room, "{profile:?} {room}");
            assert_eq!(packet[..clear.len()], clear, "{profile:?}: refused, so not encrypted");
        }
        let mut packet = clear.clone();
        packet.resize(100, 0);
        assert_eq!(outbound.protect_rtp(1, &mut packet, 11, 32), no_room, "shorter than a header");
        assert_eq!(outbound.protect_rtp(1, &mut packet, 40, 32), no_room, "a header longer than its packet");

        for (len, clear_len) in [(0, 0), (7, 7), (100, 7), (16, 16), (100, 90)] {
            let mut packet = rtcp(1, 30)[..len].to_vec();
            assert_eq!(outbound.protect_rtcp(&mut packet, clear_len), no_room, "{profile:?} {len} {clear_len}");
        }
        let mut packet = rtcp(1, 30);
        outbound.protect_rtcp(&mut packet, 8).unwrap();
        let word = &packet[8..][..if profile == Profile::Aes128CmHmacSha1_80 { 4 } else { 20 }];
        assert_eq!(word[word.len() - 4..], [0x80, 0, 0, 0], "{profile:?}: refusals use up no index");
    }
}

#[test]
fn a_full_list_of_ssrcs_gives_up_the_oldest_that_is_not_in_use() {
    let (outbound, mut inbound) = pair(Profile::AeadAes128Gcm);
    let limit = SSRCS_PER_TRANSPORT_MAX as u32;
    for ssrc in 0..limit {
        assert!(inbound.unprotect_rtp(&mut sealed_rtp(&outbound, ssrc, 1, &[1; 5])).is_ok());
    }
    inbound.make_room(|ssrc| ssrc == Ssrc(0));
    inbound.make_room(|ssrc| ssrc == Ssrc(0));
    assert_eq!(inbound.stream_counts().0, limit as usize - 1, "no more room than is needed");
    assert!(inbound.unprotect_rtp(&mut sealed_rtp(&outbound, limit, 1, &[1; 5])).is_ok());
    let again = inbound.unprotect_rtp(&mut sealed_rtp(&outbound, 0, 1, &[1; 5])).err();
    assert_eq!(again, Some(DropReason::Replayed), "what is in use keeps its window");
}
