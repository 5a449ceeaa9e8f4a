//! The cost of SRTP per packet: ours, the `webrtc-srtp` crate, and the bare ciphers that are the floor of both.
//! `trains` goes through the transmit batch, as the worker does: there, the multi-buffer backend seals packets together
//! (`cargo bench --features multi-buffer`). Its times are of all packets of a row; the throughput is of each.
//! Unprotecting always opens a packet that was not seen before, so it pays for the replay window too.

use std::hint::black_box;

use aes::cipher::{InnerIvInit, KeyInit, StreamCipherCore};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hmac::{Hmac, Mac};
use ringmain_dataplane::buf::TxBatch;
use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::io::{Link, Path, SocketIndex};
use ringmain_dataplane::srtp::{Inbound, InboundKeys, MasterKey, Outbound, OutboundKeys, Profile};
use sha1::Sha1;
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

fn protect(criterion: &mut Criterion) {
    for (profile, named) in PROFILES {
        for size in SIZES {
            let mut group = criterion.benchmark_group(format!("srtp/protect/{profile:?}/{size}"));
            group.throughput(Throughput::Elements(1));

            let outbound = Outbound::new(OutboundKeys::new(master(profile)));
            let mut buffer = packet(1, size);
            buffer.resize(size + Profile::RTP_OVERHEAD_MAX, 0);
            group.bench_function("ringmain", |bencher| {
                bencher.iter(|| outbound.protect_rtp(1, black_box(&mut buffer), HEADER_LEN, size))
            });
            let payload = packet(1, size).split_off(HEADER_LEN);
            group.bench_function("ringmain, payload from elsewhere", |bencher| {
                bencher.iter(|| outbound.protect_rtp_from(1, black_box(&payload), &mut buffer, HEADER_LEN))
            });

            let mut theirs = context(profile, named);
            let clear = packet(1, size);
            group.bench_function("webrtc-srtp", |bencher| bencher.iter(|| theirs.encrypt_rtp(black_box(&clear))));
        }
    }
}

fn trains(criterion: &mut Criterion) {
    for (profile, named) in PROFILES {
        for size in SIZES {
            for (subscribers, packets) in SHAPES {
                let name = format!("srtp/trains/{profile:?}/{size}/{packets} to each of {subscribers}");
                let mut group = criterion.benchmark_group(name);
                group.throughput(Throughput::Elements((subscribers * packets) as u64));

                let outbounds: Vec<_> =
                    (0..subscribers).map(|_| Outbound::new(OutboundKeys::new(master(profile)))).collect();
                let mut link = MemoryLink::counting();
                let clear = packet(1, size);
                group.bench_function("ringmain", |bencher| {
                    let (_, out) = link.parts();
                    bencher.iter(|| {
                        for (port, outbound) in outbounds.iter().enumerate() {
                            for _ in 0..packets {
                                send(outbound, port as u16, black_box(&clear), out.batch());
                            }
                        }
                        out.flush();
                    })
                });

                let mut theirs: Vec<_> = (0..subscribers).map(|_| context(profile, named)).collect();
                group.bench_function("webrtc-srtp", |bencher| {
                    bencher.iter(|| {
                        for theirs in &mut theirs {
                            for _ in 0..packets {
                                black_box(theirs.encrypt_rtp(black_box(&clear)).expect("it is sealed"));
                            }
                        }
                    })
                });
            }
        }
    }
}

fn send(outbound: &Outbound, port: u16, clear: &[u8], batch: &mut TxBatch) {
    let path = Path { socket: SocketIndex::default(), remote: ([192, 0, 2, 1], port).into() };
    let mut slot = batch.reserve(path, clear.len() + Profile::RTP_OVERHEAD_MAX).expect("room");
    let (header, payload) = clear.split_at(HEADER_LEN);
    slot.bytes_mut()[..HEADER_LEN].copy_from_slice(header);
    let size = outbound.protect_rtp_slot_from(1, payload, &mut slot, HEADER_LEN).expect("room");
    slot.commit(size);
}

fn unprotect(criterion: &mut Criterion) {
    for (profile, named) in PROFILES {
        for size in SIZES {
            let mut group = criterion.benchmark_group(format!("srtp/unprotect/{profile:?}/{size}"));
            group.throughput(Throughput::Elements(1));

            let outbound = Outbound::new(OutboundKeys::new(master(profile)));
            let mut inbound = Inbound::new(InboundKeys::new(master(profile)));
            let mut sent = 0;
            let mut next = || {
                sent += 1;
                sealed(&outbound, sent, size)
            };
            group.bench_function("ringmain", |bencher| {
                bencher.iter_batched_ref(
                    &mut next,
                    |packet| inbound.unprotect_rtp(packet).expect("a new packet opens").describe(),
                    BatchSize::SmallInput,
                )
            });

            let mut theirs = context(profile, named);
            let packet = sealed(&outbound, 1, size);
            group.bench_function("webrtc-srtp, without replay protection", |bencher| {
                bencher.iter(|| theirs.decrypt_rtp(black_box(&packet)).expect("it opens"))
            });
        }
    }
}

fn ciphers(criterion: &mut Criterion) {
    for size in SIZES {
        let mut group = criterion.benchmark_group(format!("srtp/cipher/{size}"));
        group.throughput(Throughput::Elements(1));
        let mut payload = vec![7; size];

        let gcm = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[1; 16]).expect("16 bytes"));
        group.bench_function("AES-128-GCM, aws-lc-rs", |bencher| {
            bencher.iter(|| {
                let nonce = Nonce::assume_unique_for_key([0; 12]);
                gcm.seal_in_place_separate_tag(nonce, Aad::from([0; 12]), black_box(&mut payload))
            })
        });

        let key = UnboundCipherKey::new(&AES_128, &[3; 16]).expect("16 bytes");
        let counter = EncryptingKey::ctr(key).expect("AES-128 has a counter mode");
        group.bench_function("AES-128-CTR, aws-lc-rs", |bencher| {
            bencher
                .iter(|| counter.less_safe_encrypt(black_box(&mut payload), EncryptionContext::Iv128([5; 16].into())))
        });

        // Why we do not use it: it is slower at both sizes.
        let aes = aes::Aes128::new(&[3; 16].into());
        group.bench_function("AES-128-CTR, aes + ctr", |bencher| {
            bencher.iter(|| {
                ctr::CtrCore::<_, ctr::flavors::Ctr64BE>::inner_iv_init(&aes, &[5; 16].into())
                    .apply_keystream_partial(black_box(payload.as_mut_slice()).into());
            })
        });

        let keyed = Hmac::<Sha1>::new_from_slice(&[1; 20]).expect("any length");
        group.bench_function("HMAC-SHA1, hmac + sha1", |bencher| {
            bencher.iter(|| {
                let mut hmac = keyed.clone();
                hmac.update(black_box(&payload));
                hmac.finalize().into_bytes()
            })
        });

        // Why we do not use it: it is slower at both sizes.
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &[1; 20]);
        group.bench_function("HMAC-SHA1, aws-lc-rs", |bencher| {
            bencher.iter(|| {
                let mut hmac = aws_lc_rs::hmac::Context::with_key(&key);
                hmac.update(black_box(&payload));
                hmac.sign()
            })
        });
    }
}

/// A clear packet of `size` bytes in all.
fn packet(index: u64, size: usize) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend((index as u16).to_be_bytes());
    packet.extend([0; 8]);
    packet.resize(size, 7);
    packet
}

fn sealed(outbound: &Outbound, index: u64, size: usize) -> Vec<u8> {
    let mut packet = packet(index, size);
    packet.resize(size + outbound.profile().rtp_overhead(), 0);
    outbound.protect_rtp(index, &mut packet, HEADER_LEN, size).expect("there is room");
    packet
}

fn master(profile: Profile) -> MasterKey {
    MasterKey::new(profile, &[1; 16], &vec![2; profile.salt_len()]).expect("lengths of the profile")
}

fn context(profile: Profile, named: ProtectionProfile) -> Context {
    Context::new(&[1; 16], &vec![2; profile.salt_len()], named, None, None).expect("lengths of the profile")
}

const PROFILES: [(Profile, ProtectionProfile); 2] = [
    (Profile::AeadAes128Gcm, ProtectionProfile::AeadAes128Gcm),
    (Profile::Aes128CmHmacSha1_80, ProtectionProfile::Aes128CmHmacSha1_80),
];
/// An audio packet and a video packet.
const SIZES: [usize; 2] = [100, 1200];
/// A lone packet, a frame to one subscriber, a frame to a room.
const SHAPES: [(usize, usize); 3] = [(1, 1), (1, 8), (16, 8)];
const HEADER_LEN: usize = 12;

criterion_group!(benches, protect, trains, unprotect, ciphers);
criterion_main!(benches);
