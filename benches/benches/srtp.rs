//! The cost of SRTP per packet: ours, the `webrtc-srtp` crate, and the bare ciphers that are the floor of both, in turns.
//! `trains` goes through the transmit batch, as the worker does: there, the multi-buffer backend seals packets together
//! (`cargo bench --features multi-buffer`). Unprotecting always opens a packet that was not seen before, so it pays for the replay
//! window too. A ratio above one is how many times as fast ours is; beside the bare ciphers it stays below.

#![allow(missing_docs)]

use std::hint::black_box;

use aes::cipher::{InnerIvInit, KeyInit, StreamCipherCore};
use aws_lc_rs::aead::{self, AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use hmac::{Hmac, Mac};
use ringmain_benches::measure::{Args, Rounds, cpu_of, take_turns};
use ringmain_benches::report::{Report, Row};
use ringmain_dataplane::buf::TxBatch;
use ringmain_dataplane::io::memory::MemoryLink;
use ringmain_dataplane::io::{Link, Path, SocketIndex};
use ringmain_dataplane::srtp::{Inbound, InboundKeys, MasterKey, Outbound, OutboundKeys, Profile};
use sha1::Sha1;
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

/// A fixed effort of one contender; it says how many nanoseconds each packet took.
type Effort = Box<dyn FnMut() -> f64>;

fn main() {
    let args = Args::read();
    let mut report = Report::new(REPORT, &args);
    for cipher in CIPHERS {
        for size in SIZES {
            protect(cipher, size, &args, &mut report);
        }
    }
    for cipher in CIPHERS {
        for size in [100, 1200] {
            SHAPES.iter().for_each(|&shape| trains(cipher, size, shape, &args, &mut report));
            unprotect(cipher, size, &args, &mut report);
        }
    }
    [100, 1200].into_iter().for_each(|size| ciphers(size, &args, &mut report));
    report.finish();
}

/// One packet, in place.
fn protect(cipher: &Cipher, size: usize, args: &Args, report: &mut Report) {
    let name = format!("{}, protect {size} B", cipher.name);
    if !args.wants(&name) {
        return;
    }
    let efforts = [protecting(cipher, size), theirs(cipher, size, 1, 1), bare(cipher, size), hmac(size)];
    let [ours, theirs, bare, hmac] = measure(args, efforts);
    let row = beside(&name, &ours, "webrtc-srtp", &theirs);
    report.row(match (size, cipher.least) {
        // By itself, AES-CM is sealed by the default in either build.
        (1200, Some(least)) if !MULTI_BUFFER || cipher.profile != Profile::Aes128CmHmacSha1_80 => {
            row.ratio_at_least(least)
        }
        _ => row,
    });
    report.row(beside(&name, &ours, cipher.bare, &bare));
    if size == 1200 {
        // What can be reached with these ciphers at all.
        let name = |what: &str| format!("{}, {what}, {size} B", cipher.name);
        report.row(beside(&name(cipher.bare), &bare, "webrtc-srtp", &theirs));
        if cipher.profile == Profile::Aes128CmHmacSha1_80 {
            report.row(beside(&name("HMAC-SHA1 alone"), &hmac, "webrtc-srtp", &theirs));
        }
    }
}

/// Some packets to each of some subscribers, through the transmit batch.
fn trains(cipher: &Cipher, size: usize, (subscribers, packets): (usize, usize), args: &Args, report: &mut Report) {
    let name = format!("{}, trains, {size} B, {packets} to each of {subscribers}", cipher.name);
    if !args.wants(&name) {
        return;
    }
    let efforts = [sending(cipher, size, subscribers, packets), theirs(cipher, size, subscribers, packets)];
    let [ours, theirs] = measure(args, efforts);
    let row = beside(&name, &ours, "webrtc-srtp", &theirs);
    report.row(match (size, cipher.least_in_trains) {
        (_, Some((of, least))) if MULTI_BUFFER && of == size && subscribers > 1 => row.ratio_at_least(least),
        _ => row,
    });
}

fn unprotect(cipher: &Cipher, size: usize, args: &Args, report: &mut Report) {
    let name = format!("{}, unprotect {size} B", cipher.name);
    if !args.wants(&name) {
        return;
    }
    let [ours, theirs] = measure(args, [opening(cipher, size), their_opening(cipher, size)]);
    report.row(beside(&name, &ours, "webrtc-srtp without replay window", &theirs));
}

/// The ciphers that there were to choose from.
fn ciphers(size: usize, args: &Args, report: &mut Report) {
    let name = |what: &str| format!("{what}, {size} B");
    if !args.wants(&name("ciphers")) {
        return;
    }
    let [counter, aes, hmac, aws_hmac] =
        measure(args, [counter(size), counter_of_aes(size), hmac(size), hmac_of_aws(size)]);
    report.row(beside(&name("AES-CTR of aws-lc-rs"), &counter, "of aes and ctr", &aes));
    report.row(beside(&name("HMAC-SHA1 of hmac and sha1"), &hmac, "of aws-lc-rs", &aws_hmac));
}

fn beside(name: &str, ours: &Rounds, other: &str, theirs: &Rounds) -> Row {
    Row::new(name, ours.median(), "ns").beside_by(other, theirs.median(), theirs.ratio(ours))
}

/// Nanoseconds per packet of each, in turns.
fn measure<const N: usize>(args: &Args, mut efforts: [Effort; N]) -> [Rounds; N] {
    // The first round warms up.
    for effort in &mut efforts {
        effort();
    }
    let results = take_turns(&mut efforts, args.pick(1, 20, 120), |effort| effort());
    results.try_into().unwrap_or_else(|_| unreachable!("one result for each effort"))
}

/// The same for each of `PACKETS` packets.
fn each(mut work: impl FnMut() + 'static) -> Effort {
    Box::new(move || per_packet(PACKETS, || (0..PACKETS).for_each(|_| work())))
}

fn per_packet(packets: usize, work: impl FnOnce()) -> f64 {
    cpu_of(work).as_nanos() as f64 / packets as f64
}

fn protecting(cipher: &Cipher, size: usize) -> Effort {
    let outbound = Outbound::new(OutboundKeys::new(cipher.master()));
    let mut buffer = packet(1, size);
    buffer.resize(size + Profile::RTP_OVERHEAD_MAX, 0);
    each(move || {
        outbound.protect_rtp(1, black_box(&mut buffer), HEADER_LEN, size).expect("there is room");
    })
}

fn sending(cipher: &Cipher, size: usize, subscribers: usize, packets: usize) -> Effort {
    // As the worker has them: paths that are known, not put together for each packet.
    let path = |port: usize| Path { socket: SocketIndex::default(), remote: ([192, 0, 2, 1], port as u16).into() };
    let outbound = || Outbound::new(OutboundKeys::new(cipher.master()));
    let outbounds: Vec<_> = (0..subscribers).map(|port| (path(port), outbound())).collect();
    let mut link = MemoryLink::counting();
    let clear = packet(1, size);
    let rounds = PACKETS.div_ceil(subscribers * packets);
    Box::new(move || {
        let (_, out) = link.parts();
        per_packet(rounds * subscribers * packets, || {
            for _ in 0..rounds {
                for (path, outbound) in &outbounds {
                    (0..packets).for_each(|_| send(outbound, *path, black_box(&clear), out.batch()));
                }
                out.flush();
            }
        })
    })
}

fn send(outbound: &Outbound, path: Path, clear: &[u8], batch: &mut TxBatch) {
    let mut slot = batch.reserve(path, clear.len() + Profile::RTP_OVERHEAD_MAX).expect("room");
    let (header, payload) = clear.split_at(HEADER_LEN);
    slot.bytes_mut()[..HEADER_LEN].copy_from_slice(header);
    let size = outbound.protect_rtp_slot_from(1, payload, &mut slot, HEADER_LEN).expect("room");
    slot.commit(size);
}

fn theirs(cipher: &Cipher, size: usize, subscribers: usize, packets: usize) -> Effort {
    let mut contexts: Vec<_> = (0..subscribers).map(|_| cipher.context()).collect();
    let clear = packet(1, size);
    let rounds = PACKETS.div_ceil(subscribers * packets);
    Box::new(move || {
        per_packet(rounds * subscribers * packets, || {
            for _ in 0..rounds {
                for context in &mut contexts {
                    for _ in 0..packets {
                        black_box(context.encrypt_rtp(black_box(&clear)).expect("it is sealed"));
                    }
                }
            }
        })
    })
}

fn opening(cipher: &Cipher, size: usize) -> Effort {
    let outbound = Outbound::new(OutboundKeys::new(cipher.master()));
    let mut inbound = Inbound::new(InboundKeys::new(cipher.master()));
    let mut index = 0;
    Box::new(move || {
        let mut packets: Vec<Vec<u8>> = (0..PACKETS as u64).map(|at| sealed(&outbound, index + at, size)).collect();
        index += PACKETS as u64;
        per_packet(PACKETS, || {
            for packet in &mut packets {
                black_box(inbound.unprotect_rtp(packet).expect("a new packet opens").describe());
            }
        })
    })
}

fn their_opening(cipher: &Cipher, size: usize) -> Effort {
    let packet = sealed(&Outbound::new(OutboundKeys::new(cipher.master())), 1, size);
    let mut context = cipher.context();
    each(move || {
        black_box(context.decrypt_rtp(black_box(&packet)).expect("it opens"));
    })
}

/// What the profile asks for, on the payload alone, with keys that are expanded once.
fn bare(cipher: &Cipher, size: usize) -> Effort {
    let algorithm = match cipher.profile {
        Profile::AeadAes128Gcm => &AES_128_GCM,
        Profile::AeadAes256Gcm => &AES_256_GCM,
        Profile::Aes128CmHmacSha1_80 => return counter_and_hmac(size),
    };
    gcm(algorithm, cipher.profile.key_len(), size)
}

fn gcm(algorithm: &'static aead::Algorithm, key_len: usize, size: usize) -> Effort {
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &vec![1; key_len]).expect("a key of its length"));
    let mut payload = vec![7; size - HEADER_LEN];
    each(move || {
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from([0; HEADER_LEN]), black_box(&mut payload));
        black_box(tag.expect("it is sealed").as_ref());
    })
}

fn counter_and_hmac(size: usize) -> Effort {
    let (counter, keyed) = (counter_key(), hmac_key());
    // The header before the payload, and the rollover counter behind it.
    let mut packet = vec![7; size + 4];
    each(move || {
        let payload = &mut black_box(&mut packet)[HEADER_LEN..size];
        counter.less_safe_encrypt(payload, EncryptionContext::Iv128([5; 16].into())).expect("it is encrypted");
        let mut hmac = keyed.clone();
        hmac.update(&packet);
        black_box(hmac.finalize().into_bytes());
    })
}

fn counter(size: usize) -> Effort {
    let (counter, mut payload) = (counter_key(), vec![7; size]);
    each(move || {
        let context = EncryptionContext::Iv128([5; 16].into());
        counter.less_safe_encrypt(black_box(&mut payload), context).expect("it is encrypted");
    })
}

fn counter_of_aes(size: usize) -> Effort {
    let (aes, mut payload) = (aes::Aes128::new(&[3; 16].into()), vec![7; size]);
    each(move || {
        ctr::CtrCore::<_, ctr::flavors::Ctr64BE>::inner_iv_init(&aes, &[5; 16].into())
            .apply_keystream_partial(black_box(payload.as_mut_slice()).into());
    })
}

fn hmac(size: usize) -> Effort {
    let (keyed, payload) = (hmac_key(), vec![7; size]);
    each(move || {
        let mut hmac = keyed.clone();
        hmac.update(black_box(&payload));
        black_box(hmac.finalize().into_bytes());
    })
}

fn hmac_of_aws(size: usize) -> Effort {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &[1; 20]);
    let payload = vec![7; size];
    each(move || {
        let mut hmac = aws_lc_rs::hmac::Context::with_key(&key);
        hmac.update(black_box(&payload));
        black_box(hmac.sign());
    })
}

fn counter_key() -> EncryptingKey {
    let key = UnboundCipherKey::new(&AES_128, &[3; 16]).expect("16 bytes");
    EncryptingKey::ctr(key).expect("AES-128 has a counter mode")
}

fn hmac_key() -> Hmac<Sha1> {
    Hmac::new_from_slice(&[1; 20]).expect("any length")
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

/// A profile, how others call it, and what is asked of ours: times as fast as `webrtc-srtp`.
struct Cipher {
    name: &'static str,
    profile: Profile,
    theirs: ProtectionProfile,
    bare: &'static str,
    /// Of one packet of 1200 B.
    least: Option<f64>,
    /// In trains to several subscribers, with it: at which size, and how much.
    least_in_trains: Option<(usize, f64)>,
}

impl Cipher {
    fn master(&self) -> MasterKey {
        let (key, salt) = (vec![1; self.profile.key_len()], vec![2; self.profile.salt_len()]);
        MasterKey::new(self.profile, &key, &salt).expect("lengths of the profile")
    }

    fn context(&self) -> Context {
        let (key, salt) = (vec![1; self.profile.key_len()], vec![2; self.profile.salt_len()]);
        Context::new(&key, &salt, self.theirs, None, None).expect("lengths of the profile")
    }
}

const CIPHERS: &[Cipher] = &[
    Cipher {
        name: "AES-128-GCM",
        profile: Profile::AeadAes128Gcm,
        theirs: ProtectionProfile::AeadAes128Gcm,
        bare: "AES-GCM alone",
        least: Some(8.0),
        least_in_trains: Some((100, 8.0)),
    },
    Cipher {
        name: "AES-256-GCM",
        profile: Profile::AeadAes256Gcm,
        theirs: ProtectionProfile::AeadAes256Gcm,
        bare: "AES-GCM alone",
        least: None,
        least_in_trains: None,
    },
    Cipher {
        name: "AES-CM-SHA1",
        profile: Profile::Aes128CmHmacSha1_80,
        theirs: ProtectionProfile::Aes128CmHmacSha1_80,
        bare: "AES-CTR and HMAC-SHA1 alone",
        least: Some(1.5),
        least_in_trains: Some((1200, 3.5)),
    },
];
/// From the least audio to the largest video.
const SIZES: [usize; 7] = [20, 60, 100, 200, 500, 1200, 1400];
/// A lone packet, a frame to one subscriber, a frame to a room.
const SHAPES: [(usize, usize); 3] = [(1, 1), (1, 8), (16, 8)];
/// Packets of one effort.
const PACKETS: usize = 256;
const HEADER_LEN: usize = 12;
const MULTI_BUFFER: bool = cfg!(feature = "multi-buffer");
/// Where the results are kept: the two builds have one each.
const REPORT: &str = if MULTI_BUFFER { "srtp, multi-buffer" } else { "srtp" };
