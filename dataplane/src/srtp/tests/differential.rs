//! Random packets between ours and the `webrtc-srtp` crate, both ways: keys derived, headers with CSRCs and extensions.

use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

use super::*;

#[test]
fn their_rtp_opens_here_and_ours_there() {
    for profile in Profile::ALL {
        let (outbound, mut inbound, mut theirs_out, mut theirs_in) = ends(profile);
        let mut random = Random(1);
        // Two streams that cross several rollovers in strides, with a late packet now and then.
        let mut indices = [40_000, 3];
        for round in 0..8_000 {
            let stream = random.below(2) as usize;
            indices[stream] += 1 + random.below(100);
            let index = indices[stream];
            let (clear, header_len) = any_rtp(&mut random, stream as u32 + 100, index);

            let mut packet = theirs_out.encrypt_rtp(&clear).unwrap().to_vec();
            let opened = inbound.unprotect_rtp(&mut packet).unwrap_or_else(|why| panic!("{profile:?} {round} {why:?}"));
            assert_eq!(opened.bytes(), clear, "{profile:?} round {round}");
            assert_eq!((opened.describe().index(), opened.describe().header_len()), (index, header_len));

            let mut packet = clear.clone();
            packet.resize(clear.len() + profile.rtp_overhead(), 0);
            let total = outbound.protect_rtp(index, &mut packet, header_len, clear.len()).unwrap();
            assert_eq!(total, packet.len());
            assert_eq!(theirs_in.decrypt_rtp(&packet).unwrap(), clear, "{profile:?} round {round}");

            let mut from = clear[..header_len].to_vec();
            from.resize(total, 0);
            assert_eq!(outbound.protect_rtp_from(index, &clear[header_len..], &mut from, header_len), Ok(total));
            assert_eq!(from, packet, "{profile:?} round {round}");
        }
    }
}

#[test]
fn late_packets_of_theirs_open_here() {
    for profile in Profile::ALL {
        let (_, mut inbound, mut theirs_out, _) = ends(profile);
        let mut random = Random(2);
        let mut index = 65_000;
        for round in 0..100 {
            let mut burst = Vec::new();
            for _ in 0..30 {
                index += 1 + random.below(30);
                let (clear, _) = any_rtp(&mut random, 9, index);
                burst.push((index, theirs_out.encrypt_rtp(&clear).unwrap().to_vec(), clear));
            }
            random.shuffle(&mut burst);
            for (index, mut packet, clear) in burst {
                let opened = inbound.unprotect_rtp(&mut packet).unwrap_or_else(|why| panic!("round {round}: {why:?}"));
                assert_eq!((opened.describe().index(), opened.bytes()), (index, &clear[..]), "{profile:?} {round}");
            }
        }
    }
}

#[test]
fn their_rtcp_opens_here_and_ours_there() {
    for profile in Profile::ALL {
        let (mut outbound, mut inbound, mut theirs_out, mut theirs_in) = ends(profile);
        let mut random = Random(3);
        for round in 0..3_000 {
            let mut clear = rtcp(random.below(3) as u32, random.below(100) as u16);
            let body = random.bytes(clear.len() as u64 - 8);
            clear[8..].copy_from_slice(&body);

            let mut packet = theirs_out.encrypt_rtcp(&clear).unwrap().to_vec();
            let opened =
                inbound.unprotect_rtcp(&mut packet).unwrap_or_else(|why| panic!("{profile:?} {round} {why:?}"));
            assert_eq!(opened.bytes(), clear, "{profile:?} round {round}");

            let mut packet = clear.clone();
            packet.resize(clear.len() + profile.rtcp_overhead(), 0);
            assert_eq!(outbound.protect_rtcp(&mut packet, clear.len()), Ok(packet.len()));
            assert_eq!(theirs_in.decrypt_rtcp(&packet).unwrap(), clear, "{profile:?} round {round}");
        }
    }
}

/// We are the DTLS server; they are the client.
fn ends(profile: Profile) -> (Outbound, Inbound, Context, Context) {
    let material = Random(4).bytes(profile.keying_material_len() as u64);
    let (inbound, outbound) = split_keying_material(profile, &material, DtlsRole::Server).unwrap();
    let (key_len, salt_len) = (profile.key_len(), profile.salt_len());
    let (keys, salts) = material.split_at(2 * key_len);
    let theirs = |at: usize| {
        let named = match profile {
            Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
            Profile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
            Profile::Aes128CmHmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        };
        let (key, salt) = (&keys[at * key_len..][..key_len], &salts[at * salt_len..][..salt_len]);
        Context::new(key, salt, named, None, None).unwrap()
    };
    (Outbound::new(outbound), Inbound::new(inbound), theirs(0), theirs(1))
}

/// A clear packet with random CSRCs, extension and payload; and the length of its header.
fn any_rtp(random: &mut Random, ssrc: u32, index: u64) -> (Vec<u8>, usize) {
    let mut packet = rtp(ssrc, index, &[]);
    let csrcs = random.below(4) * random.below(5);
    packet[0] |= csrcs as u8;
    packet[1] = random.next() as u8;
    packet.extend(random.bytes(4 * csrcs));
    if random.below(2) == 0 {
        packet[0] |= 0x10;
        let elements = random.below(5) as u8;
        packet.extend([0xBE, 0xDE, 0, elements]);
        for id in 1..=elements {
            packet.push(id << 4 | 2);
            packet.extend(random.bytes(3));
        }
    }
    let header_len = packet.len();
    let payload_len = random.below(1200);
    packet.extend(random.bytes(payload_len));
    (packet, header_len)
}
