//! What only a build with the library can show; that it seals as the default backend does is in [`crate::srtp`]'s own tests.

use std::sync::Arc;

use super::*;
use crate::srtp::cipher::{Nonce, Waiting};
use crate::srtp::cm::{Cm, TAG_LEN};
use crate::srtp::keys::{MasterKey, SessionKey};
use crate::srtp::profile::Profile;

#[test]
fn the_backend_is_there_where_the_cpu_has_what_it_wants() {
    let capable = std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("vaes")
        && std::arch::is_x86_feature_detected!("vpclmulqdq");
    assert_eq!(version().is_some(), capable);
    assert_eq!(Sealer::detect().is_some(), capable);
    assert_eq!(GcmKey::new(&session(Profile::AeadAes128Gcm)).is_some(), capable);
    assert!(GcmKey::new(&session(Profile::Aes128CmHmacSha1_80)).is_none(), "not a key of AES-GCM");
    assert_eq!(CmKey::new(&session(Profile::Aes128CmHmacSha1_80)).is_some(), capable);
    assert!(CmKey::new(&session(Profile::AeadAes128Gcm)).is_none(), "as long, but not a key of AES-CM");
}

#[test]
fn a_packet_that_does_not_fit_its_arena_is_wiped_and_hurts_nobody() {
    let Some(mut sealer) = Sealer::detect() else { return };
    let cm = Arc::new(Cm::sealing(&session(Profile::Aes128CmHmacSha1_80)));
    let nonce = Nonce { ssrc: 1, index: 1 };
    for count in [1, 4, 5, 20] {
        let mut arena = vec![7; count * 100];
        for index in 0..count {
            sealer.stage(Waiting::Cm(&cm), nonce, 12, 100 - TAG_LEN);
            // The last one lies a byte too far.
            sealer.commit(index * 100 + usize::from(index + 1 == count));
        }
        sealer.run(&mut arena);
        assert!(sealer.is_empty());
        for packet in arena.chunks(100).take(count - 1) {
            assert_eq!((&packet[..12], &packet[12..90]), (&[7; 12][..], &[0; 78][..]));
        }
    }
}

#[test]
fn slots_that_were_dropped_leave_neither_jobs_nor_keys() {
    let Some(mut sealer) = Sealer::detect() else { return };
    let cms: Vec<_> = (0..3).map(|_| Arc::new(Cm::sealing(&session(Profile::Aes128CmHmacSha1_80)))).collect();
    let mut arena = vec![7; 100];
    for round in 0..1000 {
        sealer.stage(Waiting::Cm(&cms[round % 3]), Nonce { ssrc: 1, index: 1 }, 12, 90);
        sealer.unstage();
    }
    assert!(sealer.is_empty());
    assert!(cms.iter().map(Arc::strong_count).sum::<usize>() <= 4, "at most the last slot's key is held");
    sealer.run(&mut arena);
    assert_eq!(arena, [7; 100]);
    assert_eq!(cms.iter().map(Arc::strong_count).sum::<usize>(), 3, "sent is forgotten");
}

fn session(profile: Profile) -> SessionKey {
    let master = MasterKey::new(profile, &vec![3; profile.key_len()], &vec![5; profile.salt_len()]);
    master.expect("lengths of the profile").rtp_session()
}
