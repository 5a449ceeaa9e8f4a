use std::collections::{BTreeMap, HashSet};

use super::super::chance::Chance;
use super::super::sequence::Sequence;
use super::*;

const RTT: Duration = Duration::from_millis(50);

fn new(number: u64) -> Arrival {
    Arrival { extended: InboundSeq(number), kind: ArrivalKind::New }
}

fn late(number: u64) -> Arrival {
    Arrival { extended: InboundSeq(number), kind: ArrivalKind::Late }
}

fn poll(nack: &mut NackGenerator, millis: u64) -> (Vec<u16>, Option<NeedKeyframe>) {
    let mut out = ArrayVec::<u16, 600>::new();
    let need = nack.poll(Now::from_millis(millis), RTT, &mut out);
    (out.to_vec(), need)
}

fn with_gap(last: u64, newest: u64) -> NackGenerator {
    let mut nack = NackGenerator::new();
    assert_eq!(nack.handle(new(last), Now(0)), None);
    assert_eq!(nack.handle(new(newest), Now(0)), None);
    nack
}

#[test]
fn the_first_packet_of_a_stream_opens_no_gap() {
    let mut nack = NackGenerator::new();
    assert_eq!(nack.handle(new(70_000), Now(0)), None);
    assert_eq!((nack.missing_count(), nack.next_deadline()), (0, None));
}

#[test]
fn a_gap_is_asked_for_after_the_reorder_tolerance_and_once_per_round_trip() {
    let mut nack = with_gap(65_533, 65_538);
    assert_eq!(nack.next_deadline(), Some(Now::from_millis(5)));
    assert_eq!(poll(&mut nack, 4), (vec![], None));
    assert_eq!(poll(&mut nack, 5), (vec![65_534, 65_535, 0, 1], None));
    assert_eq!(nack.next_deadline(), Some(Now::from_millis(55)));
    assert_eq!(poll(&mut nack, 54), (vec![], None));
    assert_eq!(poll(&mut nack, 55), (vec![65_534, 65_535, 0, 1], None));
}

#[test]
fn a_reordered_packet_is_never_asked_for() {
    let mut nack = with_gap(65_600, 65_602);
    assert_eq!(nack.handle(late(65_601), Now::from_millis(3)), None);
    assert_eq!(nack.next_deadline(), None);
    assert_eq!(poll(&mut nack, 10), (vec![], None));
}

#[test]
fn a_very_short_round_trip_does_not_make_a_storm() {
    let mut nack = with_gap(65_600, 65_602);
    let mut asked = Vec::new();
    for millis in 0..1_000 {
        let mut out = ArrayVec::<u16, 8>::new();
        let _ = nack.poll(Now::from_millis(millis), Duration::ZERO, &mut out);
        asked.extend(out.iter().map(|_| millis));
    }
    assert_eq!(asked.len(), usize::from(TRIES_MAX));
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 20), "{asked:?}");
}

#[test]
fn what_stays_missing_is_given_up_by_tries_or_by_age_and_says_so_once() {
    let mut nack = with_gap(65_600, 65_602);
    let (mut asked, mut needs) = (0, Vec::new());
    for millis in 0..2_000 {
        let (seqs, need) = poll(&mut nack, millis);
        asked += seqs.len();
        needs.extend(need.map(|_| millis));
    }
    assert_eq!((asked, needs), (10, vec![505]));

    let mut nack = with_gap(65_600, 65_602);
    let mut out = ArrayVec::<u16, 8>::new();
    assert_eq!(nack.poll(Now::from_millis(5), Duration::from_secs(9), &mut out), None);
    assert_eq!(nack.next_deadline(), Some(Now::from_millis(1_000)));
    assert_eq!(poll(&mut nack, 1_000), (vec![], Some(NeedKeyframe)));
}

#[test]
fn after_a_stall_the_old_gaps_are_given_up_without_a_storm() {
    let mut nack = with_gap(65_600, 65_900);
    assert_eq!(poll(&mut nack, 10_000), (vec![], Some(NeedKeyframe)));
    assert_eq!(nack.next_deadline(), None);
}

#[test]
fn a_gap_that_does_not_fit_clears_the_list_and_needs_a_keyframe() {
    let mut nack = with_gap(65_600, 65_600 + 513);
    assert_eq!(nack.missing_count(), 512);
    assert_eq!(nack.handle(new(65_600 + 515), Now(0)), Some(NeedKeyframe));
    assert_eq!((nack.missing_count(), nack.next_deadline()), (0, None));
    assert_eq!(nack.handle(new(65_600 + 515 + 2_999), Now(0)), Some(NeedKeyframe));
    assert_eq!(nack.handle(new(65_600 + 515 + 3_000), Now(0)), None);
    assert_eq!(nack.missing_count(), 0);
}

#[test]
fn a_restart_forgets_the_old_series_and_needs_a_keyframe() {
    let mut nack = with_gap(65_600, 65_610);
    let restart = Arrival { extended: InboundSeq(300_000), kind: ArrivalKind::Restarted };
    assert_eq!(nack.handle(restart, Now(0)), Some(NeedKeyframe));
    assert_eq!(nack.handle(new(300_002), Now(0)), None);
    assert_eq!(poll(&mut nack, 5), (vec![InboundSeq(300_001).seq()], None));
}

#[test]
fn losses_before_a_keyframe_are_forgotten() {
    let mut nack = with_gap(65_600, 65_605);
    nack.forget_before(InboundSeq(65_603));
    assert_eq!(poll(&mut nack, 5), (vec![67, 68], None));
    nack.forget_before(InboundSeq(70_000));
    assert_eq!(nack.next_deadline(), None);
}

#[test]
fn what_finds_no_room_stays_due() {
    let mut nack = with_gap(65_600, 65_605);
    let mut out = ArrayVec::<u16, 3>::new();
    assert_eq!(nack.poll(Now::from_millis(5), RTT, &mut out), None);
    assert_eq!(out.as_slice(), [65, 66, 67]);
    assert_eq!(nack.next_deadline(), Some(Now::from_millis(5)));
    out.clear();
    assert_eq!(nack.poll(Now::from_millis(5), RTT, &mut out), None);
    assert_eq!(out.as_slice(), [68]);
}

/// One packet a millisecond. Every request reaches a publisher that answers after 50 ms, unless lost again.
#[test]
fn exactly_the_lost_packets_are_asked_for_and_all_are_repaired() {
    for seed in 0..20 {
        let mut chance = Chance::new(seed);
        let first = 65_536 + chance.below(65_536);
        let mut nack = NackGenerator::new();
        let mut sequence = Sequence::begin(first as u16);
        assert_eq!(nack.handle(Arrival { extended: sequence.highest(), kind: ArrivalKind::New }, Now(0)), None);
        let mut lost = HashSet::new();
        let mut repairs: BTreeMap<u64, Vec<u16>> = BTreeMap::new();
        let mut asked = HashSet::new();
        for millis in 1..8_000 {
            let now = Now::from_millis(millis);
            let seq = (first + millis) as u16;
            if millis < 7_000 && chance.percent(15) {
                lost.insert(seq);
            } else {
                assert_eq!(nack.handle(sequence.handle(seq), now), None, "seed {seed}");
            }
            for seq in repairs.remove(&millis).unwrap_or_default() {
                if !chance.percent(15) {
                    lost.remove(&seq);
                    assert_eq!(nack.handle(sequence.handle_repair(seq), now), None);
                }
            }
            let (seqs, need) = poll(&mut nack, millis);
            assert_eq!(need, None, "seed {seed}");
            for seq in seqs {
                assert!(lost.contains(&seq), "seed {seed}: {seq} was not lost");
                asked.insert(seq);
                repairs.entry(millis + 50).or_default().push(seq);
            }
        }
        assert!(lost.is_empty(), "seed {seed}: {lost:?}");
        assert!(asked.len() > 900, "seed {seed}");
        assert_eq!((nack.missing_count(), nack.next_deadline()), (0, None));
    }
}

#[test]
fn a_publisher_that_jumps_with_every_packet_costs_bounded_work_and_no_growth() {
    let mut chance = Chance::new(5);
    let mut nack = NackGenerator::new();
    let mut sequence = Sequence::begin(0);
    let capacity = nack.missing.capacity();
    let mut seq = 0_u16;
    for round in 0..100_000_u64 {
        seq = match round % 4 {
            0 => seq.wrapping_add(512),
            1 => seq.wrapping_sub(300),
            2 => seq.wrapping_add(32_767),
            _ => seq.wrapping_sub(chance.below(32_768) as u16),
        };
        let _ = nack.handle(sequence.handle(seq), Now(round * 10_000));
        let mut out = ArrayVec::<u16, 64>::new();
        let _ = nack.poll(Now(round * 10_000), RTT, &mut out);
        assert!(nack.missing_count() <= MISSING_MAX);
    }
    assert_eq!(nack.missing.capacity(), capacity);
}
