//! Which packet a sequence number means, and which packets are new.

use std::collections::HashSet;

use ringmain_shared::drop_reason::DropReason;

use super::super::index::{INDEX_MAX, guess};
use super::*;

const SSRC: u32 = 0x1234_5678;

/// Streams that begin anywhere, whose first packets are lost or late, over three rollovers: every packet that arrives opens,
/// with the index that the sender gave it.
#[test]
fn every_start_survives_loss_and_reordering_over_three_rollovers() {
    for profile in Profile::ALL {
        for start in [0, 1, 32_767, 32_768, 65_530, 65_531, 65_532, 65_533, 65_534, 65_535] {
            for lost in 0..=10 {
                for seed in 0..3 {
                    let (outbound, mut inbound) = pair(profile);
                    for (index, late) in arrivals(start, lost, seed) {
                        let mut packet = sealed_rtp(&outbound, SSRC, index, &[7; 20]);
                        let opened = inbound.unprotect_rtp(&mut packet);
                        let opened = opened.map(|clear| clear.describe().index());
                        assert_eq!(opened, Ok(index), "{profile:?} start {start} lost {lost} seed {seed} late {late}");
                    }
                }
            }
        }
    }
}

/// Indices in order of arrival: dense around the start and the rollovers, in strides between; seed 0 does not reorder.
fn arrivals(start: u64, lost: u64, seed: u64) -> Vec<(u64, bool)> {
    let mut random = Random(seed);
    let mut sent = Vec::new();
    let mut index = start;
    while index < start + (3 << 16) + 100 {
        if index >= start + lost {
            sent.push(index);
        }
        let from_rollover = (index as u16 as i16).unsigned_abs();
        index += if from_rollover < 30 || index < start + 30 {
            1
        } else {
            25 + random.below(20_000).min(u64::from(from_rollover))
        };
    }
    let order = sent.clone();
    if seed > 0 {
        // Late by up to ten places.
        for at in (0..sent.len()).step_by(10) {
            let end = (at + 10).min(sent.len());
            // Packets that a stride separates are no longer near enough to be told apart when they change places.
            if sent[end - 1] - sent[at] < 100 {
                random.shuffle(&mut sent[at..end]);
            }
        }
    }
    sent.iter().zip(&order).map(|(&index, &in_order)| (index, index < in_order)).collect()
}

/// The formula of RFC 3711 §3.3.1 says the same as searching for the nearest index.
#[test]
fn the_guess_is_the_nearest_index() {
    let mut random = Random(5);
    for _ in 0..200_000 {
        let highest = (1 << 16) + random.below(1 << 20);
        let distance = random.below(65_535) as i64 - 32_767;
        let index = (highest as i64 + distance) as u64;
        assert_eq!(guess(highest, index as u16), Some(index), "from {highest} by {distance}");
    }
    assert_eq!(guess(5, 65_000), Some(65_000), "there is nothing before the first rollover");
    assert_eq!(guess(INDEX_MAX - 1, u16::MAX), Some(INDEX_MAX));
    assert_eq!(guess(INDEX_MAX, 0), None, "a key ends after 2^48 packets");
}

#[test]
fn a_packet_opens_once() {
    for profile in Profile::ALL {
        for first in [100, 65_000, 66_000] {
            let (outbound, mut inbound) = pair(profile);
            let packets: Vec<_> =
                (first..first + 2_100).map(|index| sealed_rtp(&outbound, SSRC, index, &[1; 10])).collect();
            for (at, packet) in packets.iter().enumerate() {
                assert!(inbound.unprotect_rtp(&mut packet.clone()).is_ok(), "{profile:?} packet {at} from {first}");
                for delay in [0, 1, 63, 64, 65, 1_022, 1_023, 1_024, 2_000] {
                    let Some(old) = at.checked_sub(delay).map(|old| &packets[old]) else { continue };
                    let again = inbound.unprotect_rtp(&mut old.clone()).map(|clear| clear.describe());
                    let reason = if delay < 1_024 { DropReason::Replayed } else { DropReason::TooOld };
                    assert_eq!(again, Err(reason), "{profile:?} packet {at} from {first}, again after {delay}");
                }
            }
        }
    }
}

#[test]
fn a_packet_may_come_late_by_the_window_and_no_more() {
    for profile in Profile::ALL {
        let (mut outbound, mut inbound) = pair(profile);
        let late: Vec<_> = (0..3).map(|index| sealed_rtp(&outbound, SSRC, index, &[1; 10])).collect();
        let mut newest = sealed_rtp(&outbound, SSRC, 1_025, &[1; 10]);
        assert!(inbound.unprotect_rtp(&mut newest).is_ok());
        for (packet, expected) in late.iter().zip([Err(DropReason::TooOld), Err(DropReason::TooOld), Ok(2)]) {
            let opened = inbound.unprotect_rtp(&mut packet.clone()).map(|clear| clear.describe().index());
            assert_eq!(opened, expected, "{profile:?}");
        }

        let reports: Vec<_> = (0..130).map(|_| sealed_rtcp(&mut outbound, SSRC, 5)).collect();
        assert!(inbound.unprotect_rtcp(&mut reports[129].clone()).is_ok());
        for (index, report) in reports.iter().enumerate() {
            let opened = inbound.unprotect_rtcp(&mut report.clone()).map(|clear| clear.describe().index());
            let expected = match index {
                0..=1 => Err(DropReason::TooOld),
                129 => Err(DropReason::Replayed),
                _ => Ok(index as u32),
            };
            assert_eq!(opened, expected, "{profile:?} report {index}");
        }
    }
}

/// Any order, any gap: nothing opens twice, and what is inside the window and new always opens.
#[test]
fn the_window_agrees_with_a_set() {
    let (outbound, mut inbound) = pair(Profile::AeadAes128Gcm);
    let mut random = Random(6);
    let mut seen = HashSet::new();
    let mut highest = 70_000u64;
    for round in 0..60_000 {
        let index = match random.below(20) {
            0 => highest + random.below(3_000),
            1..=6 => highest + 1,
            _ => highest - random.below(1_300),
        };
        let mut packet = sealed_rtp(&outbound, SSRC, index, &[1; 4]);
        let opened = inbound.unprotect_rtp(&mut packet).map(|clear| clear.describe().index());
        let expected = if round > 0 && index + 1_024 <= highest {
            Err(DropReason::TooOld)
        } else if seen.contains(&index) {
            Err(DropReason::Replayed)
        } else {
            Ok(index)
        };
        assert_eq!(opened, expected, "round {round}: {index} when the highest was {highest}");
        seen.insert(index);
        highest = if round == 0 { index } else { highest.max(index) };
    }
}

/// SRTCP says its index itself: nonces come from the packet, not from what was heard before.
#[test]
fn reordered_rtcp_opens() {
    for profile in Profile::ALL {
        let (mut outbound, mut inbound) = pair(profile);
        let mut reports: Vec<_> = (0..120).map(|_| sealed_rtcp(&mut outbound, 1, 3)).collect();
        Random(8).shuffle(&mut reports);
        for report in &mut reports {
            assert_eq!(inbound.unprotect_rtcp(report).unwrap().bytes(), rtcp(1, 3));
        }
    }
}
