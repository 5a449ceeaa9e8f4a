//! SRTP through its public door, and against the RFCs' vectors and another implementation.

use ringmain_shared::transport::DtlsRole;

use super::*;

mod batch;
mod differential;
mod refusals;
mod rollover;
mod vectors;

/// A sender's end and the receiver's end of the same keys.
fn pair(profile: Profile) -> (Outbound, Inbound) {
    let material: Vec<u8> = (0..profile.keying_material_len() as u8).map(|byte| byte ^ 0x5A).collect();
    let (_, outbound) = split_keying_material(profile, &material, DtlsRole::Client).unwrap();
    let (inbound, _) = split_keying_material(profile, &material, DtlsRole::Server).unwrap();
    (Outbound::new(outbound), Inbound::new(inbound))
}

/// A clear RTP packet without extensions.
fn rtp(ssrc: u32, index: u64, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend((index as u16).to_be_bytes());
    packet.extend((index as u32).wrapping_mul(3000).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

/// A clear receiver report of `words` 32-bit words behind its SSRC.
fn rtcp(ssrc: u32, words: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 201];
    packet.extend((words + 1).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend((0..words * 4).map(|byte| byte as u8));
    packet
}

/// Protects what [`rtp`] makes.
fn sealed_rtp(outbound: &Outbound, ssrc: u32, index: u64, payload: &[u8]) -> Vec<u8> {
    let mut packet = rtp(ssrc, index, payload);
    let clear_len = packet.len();
    packet.resize(clear_len + Profile::RTP_OVERHEAD_MAX, 0);
    let total = outbound.protect_rtp(index, &mut packet, 12, clear_len).unwrap();
    packet.truncate(total);
    packet
}

/// Protects what [`rtcp`] makes.
fn sealed_rtcp(outbound: &mut Outbound, ssrc: u32, words: u16) -> Vec<u8> {
    let mut packet = rtcp(ssrc, words);
    let clear_len = packet.len();
    packet.resize(clear_len + Profile::RTCP_OVERHEAD_MAX, 0);
    let total = outbound.protect_rtcp(&mut packet, clear_len).unwrap();
    packet.truncate(total);
    packet
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|char| char.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// SplitMix64: random numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[test]
fn keys_cross_threads_and_states_follow_them() {
    fn crosses<T: Send + 'static>() {}
    crosses::<InboundKeys>();
    crosses::<OutboundKeys>();
    crosses::<Inbound>();
    crosses::<Outbound>();
}

#[test]
fn each_role_sends_with_its_own_key_and_hears_the_other() {
    for profile in Profile::ALL {
        let material = Random(7).bytes(profile.keying_material_len() as u64);
        let (client_in, client_out) = split_keying_material(profile, &material, DtlsRole::Client).unwrap();
        let (server_in, server_out) = split_keying_material(profile, &material, DtlsRole::Server).unwrap();
        let (mut client_in, client_out) = (Inbound::new(client_in), Outbound::new(client_out));
        let (mut server_in, server_out) = (Inbound::new(server_in), Outbound::new(server_out));
        let up = sealed_rtp(&client_out, 1, 5, b"up");
        let down = sealed_rtp(&server_out, 1, 5, b"down");
        assert_ne!(up[12..14], down[12..14]);
        assert!(client_in.unprotect_rtp(&mut up.clone()).is_err(), "{profile:?}: our own packet came back");
        assert_eq!(server_in.unprotect_rtp(&mut up.clone()).unwrap().payload(), b"up");
        assert_eq!(client_in.unprotect_rtp(&mut down.clone()).unwrap().payload(), b"down");

        for wrong in [0, 1, material.len() - 1] {
            assert!(split_keying_material(profile, &material[..wrong], DtlsRole::Client).is_none());
        }
        assert!(MasterKey::new(profile, &material[..profile.key_len()], &[0; 13]).is_none());
    }
}

#[test]
fn a_profile_is_found_by_its_number_on_the_wire() {
    for profile in Profile::ALL {
        assert_eq!(Profile::from_id(profile.id()), Some(profile));
        assert!(profile.rtp_overhead() <= Profile::RTP_OVERHEAD_MAX);
        assert!(profile.rtcp_overhead() <= Profile::RTCP_OVERHEAD_MAX);
    }
    assert_eq!(Profile::from_id(0x0002), None, "a tag of 32 bits is not accepted");
}

#[test]
fn a_packet_is_described_for_later() {
    let (outbound, mut inbound) = pair(Profile::AeadAes128Gcm);
    let mut packet = sealed_rtp(&outbound, 0xCAFE, 70_000, b"payload");
    let described = inbound.unprotect_rtp(&mut packet).map(|clear| clear.describe()).unwrap();
    assert_eq!((described.ssrc().0, described.index(), described.seq()), (0xCAFE, 70_000, 70_000u32 as u16));
    assert_eq!((described.header_len(), described.len()), (12, 19));
    assert_eq!(described.view(&mut packet).unwrap().payload(), b"payload");
    assert!(described.view(&mut packet[..18]).is_none());
}
