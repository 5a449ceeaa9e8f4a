//! The vectors of RFC 3711 appendix B and of RFC 7714 §16 and §17.

use super::super::cipher::{Cipher, Nonce};
use super::super::cm::Cm;
use super::super::keys::SessionKey;
use super::*;

#[test]
fn rfc_3711_b2_keystream() {
    let session = SessionKey::from_parts(
        Profile::Aes128CmHmacSha1_80,
        &hex("2B7E151628AED2A6ABF7158809CF4F3C"),
        &[],
        &hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD"),
    );
    // To the last block that the RFC lists, of the 2^16 that a packet could have.
    let mut keystream = vec![0; 0xFF02 * 16];
    Cm::new(&session).apply_keystream(Nonce { ssrc: 0, index: 0 }, &mut keystream).unwrap();
    assert_eq!(
        keystream[..48],
        hex("E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0")
    );
    assert_eq!(
        keystream[0xFEFF * 16..],
        hex("EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44")
    );
}

#[test]
fn rfc_3711_b3_key_derivation() {
    let session = rfc_3711_master().rtp_session();
    assert_eq!(session.key(), hex("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(session.salt().to_be_bytes()[2..], hex("30CBBC08863D8C85D49DB34A9AE1"));
    assert_eq!(session.auth()[..], hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
}

/// The packets that libsrtp checks itself with, under the master key of RFC 3711 B.3.
#[test]
fn aes_cm_hmac_sha1_80_packet() {
    let clear = hex("800f1234 decafbad cafebabe abababab abababab abababab abababab");
    let protected = hex("800f1234 decafbad cafebabe 4e55dc4c e79978d8 8ca4d215 949d2402 b78d6acc 99ea179b 8dbb");
    let outbound = Outbound::new(OutboundKeys::new(rfc_3711_master()));
    let mut packet = room_behind(&clear);
    let total = outbound.protect_rtp(0x1234, &mut packet, 12, clear.len()).unwrap();
    assert_eq!(packet[..total], protected);
    let mut inbound = Inbound::new(InboundKeys::new(rfc_3711_master()));
    assert_eq!(inbound.unprotect_rtp(&mut packet[..total]).unwrap().bytes(), clear);
}

#[test]
fn rfc_7714_16_rtp() {
    let clear =
        hex("8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070 61727465
         73207472 6573");
    for (profile, protected) in [
        (
            Profile::AeadAes128Gcm,
            "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf
             8833899d 7f27beb1 6a9152cf 765ee439 0cce",
        ),
        (
            Profile::AeadAes256Gcm,
            "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799
             b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
        ),
    ] {
        let outbound = Outbound::from_ciphers(rfc_7714_cipher(profile), rfc_7714_cipher(profile), 0);
        let mut packet = room_behind(&clear);
        let total = outbound.protect_rtp(0xf17b, &mut packet, 12, clear.len()).unwrap();
        assert_eq!(packet[..total], hex(protected), "{profile:?}");
        let mut inbound = Inbound::from_ciphers(rfc_7714_cipher(profile), rfc_7714_cipher(profile));
        assert_eq!(inbound.unprotect_rtp(&mut packet[..total]).unwrap().bytes(), clear, "{profile:?}");
    }
}

#[test]
fn rfc_7714_17_rtcp() {
    let clear =
        hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef deadbeef
         deadbeef deadbeef");
    for (profile, protected) in [
        (
            Profile::AeadAes128Gcm,
            "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda 4ce09b46 86303ded
             0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
        ),
        (
            Profile::AeadAes256Gcm,
            "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1 110555be 8415f658 c61de047
             6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
        ),
    ] {
        let mut outbound = Outbound::from_ciphers(rfc_7714_cipher(profile), rfc_7714_cipher(profile), 0x5d4);
        let mut packet = room_behind(&clear);
        let total = outbound.protect_rtcp(&mut packet, clear.len()).unwrap();
        assert_eq!(packet[..total], hex(protected), "{profile:?}");
        let mut inbound = Inbound::from_ciphers(rfc_7714_cipher(profile), rfc_7714_cipher(profile));
        let opened = inbound.unprotect_rtcp(&mut packet[..total]).unwrap();
        assert_eq!((opened.bytes(), opened.describe().index()), (&clear[..], 0x5d4), "{profile:?}");
    }
}

fn rfc_3711_master() -> MasterKey {
    MasterKey::new(
        Profile::Aes128CmHmacSha1_80,
        &hex("E1F97A0D3E018BE0D64FA32C06DE4139"),
        &hex("0EC675AD498AFEEBB6960B3AABE6"),
    )
    .unwrap()
}

/// The session keys of RFC 7714: not derived, and the same for SRTP and SRTCP.
fn rfc_7714_cipher(profile: Profile) -> Cipher {
    let key: Vec<u8> = (0..profile.key_len() as u8).collect();
    Cipher::new(&SessionKey::from_parts(profile, &key, &[], b"Quid pro quo"))
}

fn room_behind(clear: &[u8]) -> Vec<u8> {
    let mut packet = clear.to_vec();
    packet.resize(clear.len() + Profile::RTCP_OVERHEAD_MAX, 0);
    packet
}
