//! Packets sealed in the transmit batch are, byte for byte, what the default backend makes of each alone.

use ringmain_shared::transport::DtlsRole;
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

use super::super::cipher::Cipher;
use super::*;
use crate::buf::{TRAINS_PER_BATCH_MAX, TX_ARENA_SIZE, TxBatch};
use crate::io::{Path, SocketIndex};

/// One subscriber: what is tested, what it is held against, and another implementation that opens both.
struct Peer {
    outbound: Outbound,
    alone: Outbound,
    theirs: Context,
    path: Path,
    index: u64,
}

#[test]
fn every_size_is_sealed_as_it_is_alone() {
    let mut random = Random(11);
    let mut peers: Vec<_> = Profile::ALL.into_iter().map(|profile| peer(profile, 1)).collect();
    let mut batch = TxBatch::new(TX_ARENA_SIZE, TRAINS_PER_BATCH_MAX);
    for size in 12..=1500 {
        let mut expected = Vec::new();
        for peer in &mut peers {
            push(peer, &mut random, 12, size - 12, &mut batch, &mut expected);
        }
        check(&mut batch, &expected, &mut peers, size);
    }
}

#[test]
fn any_mix_of_subscribers_and_sizes_is_sealed_as_it_is_alone() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut peers: Vec<_> = (0..20).map(|number| peer(Profile::ALL[random.below(3) as usize], number)).collect();
        let mut batch = TxBatch::new(TX_ARENA_SIZE, TRAINS_PER_BATCH_MAX);
        for _ in 0..4 {
            let mut expected = Vec::new();
            let runs = 1 + random.below(25 * (seed % 3) + 1);
            for _ in 0..runs {
                let number = random.below(20) as usize;
                for _ in 0..=random.below(9) {
                    let header_len = 12 + 4 * random.below(16) as usize;
                    let payload_len = random.below(1300) as usize;
                    push(&mut peers[number], &mut random, header_len, payload_len, &mut batch, &mut expected);
                }
            }
            check(&mut batch, &expected, &mut peers, seed as usize);
        }
    }
}

#[test]
fn what_is_clear_has_no_trains() {
    let mut random = Random(12);
    let mut peer = peer(Profile::Aes128CmHmacSha1_80, 1);
    let mut batch = TxBatch::new(TX_ARENA_SIZE, TRAINS_PER_BATCH_MAX);
    for count in 1..300 {
        let mut expected = Vec::new();
        for _ in 0..count {
            push(&mut peer, &mut random, 12, 100, &mut batch, &mut expected);
            for train in batch.trains() {
                let sealed = batch.bytes(train).chunks(122).all(|bytes| expected.iter().any(|(_, each)| each == bytes));
                assert!(sealed, "a packet could leave clear");
            }
        }
        assert!(!batch.is_empty());
        batch.clear();
        assert!(batch.is_empty() && batch.trains().is_empty());
    }
}

#[test]
fn a_payload_is_sealed_from_elsewhere_too() {
    let mut random = Random(13);
    let mut batch = TxBatch::new(TX_ARENA_SIZE, TRAINS_PER_BATCH_MAX);
    for profile in Profile::ALL {
        let mut peers = [peer(profile, 1)];
        for count in [1, 4, 5, 130] {
            let mut expected = Vec::new();
            for _ in 0..count {
                let payload_len = random.below(1300);
                let payload = random.bytes(payload_len);
                let peer = &mut peers[0];
                peer.index += 1;
                let clear = rtp(1, peer.index, &payload);
                let mut slot = batch.reserve(peer.path, clear.len() + Profile::RTP_OVERHEAD_MAX).unwrap();
                slot.bytes_mut()[..12].copy_from_slice(&clear[..12]);
                let size = peer.outbound.protect_rtp_slot_from(peer.index, &payload, &mut slot, 12).unwrap();
                slot.commit(size);
                expected.push((peer.path, alone(peer, &clear, 12)));
            }
            check(&mut batch, &expected, &mut peers, count);
        }
    }
}

/// Where the lengths are wrong, the slot is refused and the batch stays as it was.
#[test]
fn a_slot_without_room_is_refused() {
    let mut batch = TxBatch::new(TX_ARENA_SIZE, TRAINS_PER_BATCH_MAX);
    for profile in Profile::ALL {
        let peer = peer(profile, 1);
        for (size, header_len, clear_len) in [(40, 12, 31), (40, 12, 41), (40, 11, 20), (100, 30, 20), (11, 12, 12)] {
            let mut slot = batch.reserve(peer.path, size).unwrap();
            let clear = rtp(1, 1, &[0; 100]);
            slot.bytes_mut().copy_from_slice(&clear[..size]);
            let refused = peer.outbound.protect_rtp_slot(1, &mut slot, header_len, clear_len);
            assert!(refused.is_err(), "{profile:?} {size} {header_len} {clear_len}");
        }
        assert!(batch.is_empty());
    }
}

/// Writes a random packet into the batch, and into `expected` what it must become. Now and then a slot before it is dropped.
fn push(
    peer: &mut Peer,
    random: &mut Random,
    header_len: usize,
    payload_len: usize,
    batch: &mut TxBatch,
    expected: &mut Vec<(Path, Vec<u8>)>,
) {
    if !batch.has_room(header_len + payload_len + Profile::RTP_OVERHEAD_MAX) {
        return;
    }
    peer.index += 1 + random.below(2) * random.below(10_000);
    let mut clear = rtp(7, peer.index, &[]);
    clear[0] |= ((header_len - 12) / 4) as u8;
    let rest = random.bytes((header_len - 12 + payload_len) as u64);
    clear.extend(rest);
    let attempts = if random.below(8) == 0 { 2 } else { 1 };
    for attempt in 1..=attempts {
        let mut slot = batch.reserve(peer.path, clear.len() + Profile::RTP_OVERHEAD_MAX).unwrap();
        slot.bytes_mut()[..clear.len()].copy_from_slice(&clear);
        let size = peer.outbound.protect_rtp_slot(peer.index, &mut slot, header_len, clear.len()).unwrap();
        if attempt == attempts {
            slot.commit(size);
        }
    }
    expected.push((peer.path, alone(peer, &clear, header_len)));
}

/// The packet by the default backend; another implementation agrees.
fn alone(peer: &mut Peer, clear: &[u8], header_len: usize) -> Vec<u8> {
    let mut packet = clear.to_vec();
    packet.resize(clear.len() + peer.alone.profile().rtp_overhead(), 0);
    peer.alone.protect_rtp(peer.index, &mut packet, header_len, clear.len()).unwrap();
    assert_eq!(peer.theirs.decrypt_rtp(&packet).unwrap(), clear);
    packet
}

fn check(batch: &mut TxBatch, expected: &[(Path, Vec<u8>)], peers: &mut [Peer], story: usize) {
    batch.seal();
    let sent: Vec<(Path, Vec<u8>)> = batch
        .trains()
        .iter()
        .flat_map(|train| train.segment_ranges().map(|range| (train.path, batch.bytes(train)[range].to_vec())))
        .collect();
    assert_eq!(sent.len(), expected.len(), "{story}");
    for (at, (sent, expected)) in sent.iter().zip(expected).enumerate() {
        assert!(sent == expected, "{story}: packet {at} of {}, {} bytes", peers.len(), expected.1.len());
    }
    batch.clear();
}

fn peer(profile: Profile, number: u16) -> Peer {
    let material = Random(u64::from(number)).bytes(profile.keying_material_len() as u64);
    let keys = || split_keying_material(profile, &material, DtlsRole::Client).unwrap().1;
    let named = match profile {
        Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Profile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        Profile::Aes128CmHmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    let (key, salt) = (&material[..profile.key_len()], &material[2 * profile.key_len()..][..profile.salt_len()]);
    let default = keys().0;
    Peer {
        outbound: Outbound::new(keys()),
        alone: Outbound::from_ciphers(Cipher::new(&default.rtp_session()), Cipher::new(&default.rtcp_session()), 0),
        theirs: Context::new(key, salt, named, None, None).unwrap(),
        path: Path { socket: SocketIndex::default(), remote: ([192, 0, 2, 1], 1000 + number).into() },
        index: 40_000,
    }
}
