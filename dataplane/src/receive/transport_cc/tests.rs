use std::collections::BTreeMap;

use super::super::chance::Chance;
use super::*;

type List = ArrayVec<(u16, Option<Now>), STATUSES_MAX>;

fn take(recorder: &mut TransportCcRecorder, millis: u64) -> Option<(Feedback, List)> {
    let mut out = List::new();
    recorder.take(Now::from_millis(millis), &mut out).map(|feedback| (feedback, out))
}

/// The bytes of a feedback whose statuses all need two bits and whose deltas all need two bytes.
fn size_at_most(list: &List) -> usize {
    let come = list.iter().filter(|(_, at)| at.is_some()).count();
    20 + 2 * list.len().div_ceil(7) + 2 * come + 3
}

#[test]
fn nothing_is_due_before_a_packet_came() {
    let mut recorder = TransportCcRecorder::new();
    assert!(!recorder.due(Now(u64::MAX)));
    assert_eq!(recorder.next_deadline(), None);
    assert!(take(&mut recorder, 0).is_none());
}

#[test]
fn feedback_lists_every_number_since_the_last_one_with_the_lost_between() {
    let mut recorder = TransportCcRecorder::new();
    for (seq, millis) in [(65_534, 1_000), (65_535, 1_001), (2, 1_004)] {
        recorder.record(seq, Now::from_millis(millis));
    }
    assert!(!recorder.due(Now::from_millis(1_049)));
    assert!(recorder.due(Now::from_millis(1_050)));
    let (feedback, list) = take(&mut recorder, 1_050).expect("due");
    let at = |millis| Some(Now::from_millis(millis));
    assert_eq!(list.as_slice(), [(65_534, at(1_000)), (65_535, at(1_001)), (0, None), (1, None), (2, at(1_004))]);
    assert_eq!((feedback.base_seq, feedback.reference_time, feedback.feedback_count), (65_534, 15, 0));
    assert_eq!(feedback.reference, Now::from_millis(960));
    assert!(!recorder.due(Now(u64::MAX)));

    recorder.record(4, Now::from_millis(1_100));
    let (feedback, list) = take(&mut recorder, 1_150).expect("due");
    assert_eq!(list.as_slice(), [(3, None), (4, at(1_100))]);
    assert_eq!((feedback.base_seq, feedback.feedback_count), (3, 1));
}

#[test]
fn many_packets_do_not_wait_for_the_interval() {
    let mut recorder = TransportCcRecorder::new();
    for seq in 0..FEEDBACK_ARRIVALS as u16 {
        assert!(!recorder.due(Now(0)));
        recorder.record(seq, Now(0));
    }
    assert!(recorder.due(Now(0)));
}

#[test]
fn the_first_arrival_of_a_number_counts() {
    let mut recorder = TransportCcRecorder::new();
    recorder.record(5, Now::from_millis(1));
    recorder.record(5, Now::from_millis(9));
    let (_, list) = take(&mut recorder, 60).expect("due");
    assert_eq!(list.as_slice(), [(5, Some(Now::from_millis(1)))]);
    recorder.record(5, Now::from_millis(70));
    assert!(take(&mut recorder, 200).is_none());
}

#[test]
fn a_packet_that_comes_after_it_was_reported_lost_is_reported_again() {
    let mut recorder = TransportCcRecorder::new();
    recorder.record(10, Now::from_millis(0));
    recorder.record(12, Now::from_millis(2));
    take(&mut recorder, 50).expect("due");
    recorder.record(11, Now::from_millis(60));
    let (feedback, list) = take(&mut recorder, 110).expect("due");
    assert_eq!(feedback.base_seq, 11);
    assert_eq!(list.as_slice(), [(11, Some(Now::from_millis(60))), (12, Some(Now::from_millis(2)))]);
}

#[test]
fn a_feedback_never_outgrows_its_packet_and_the_next_goes_on() {
    for seed in 0..20 {
        let mut chance = Chance::new(seed);
        let mut recorder = TransportCcRecorder::new();
        let first = chance.next() as u16;
        let mut expected = Vec::new();
        for index in 0..4_000_u64 {
            let now = Now(index * 100_000);
            let seq = first.wrapping_add(index as u16);
            let come = index == 0 || index == 3_999 || chance.percent(seed * 5);
            if come {
                recorder.record(seq, now);
            }
            expected.push((seq, come.then_some(now)));
        }
        let mut got = Vec::new();
        while recorder.due(Now::from_millis(450)) {
            let (feedback, list) = take(&mut recorder, 450).expect("due");
            assert!(size_at_most(&list) <= FEEDBACK_SIZE_MAX, "seed {seed}");
            assert_eq!(feedback.base_seq, list[0].0);
            assert!(list.last().is_some_and(|(_, at)| at.is_some()));
            got.extend(list);
        }
        assert_eq!(got, expected, "seed {seed}");
    }
}

#[test]
fn the_sender_hears_of_exactly_what_came() {
    for seed in 0..20 {
        let mut chance = Chance::new(seed);
        let first = 65_536 + chance.below(65_536);
        let (loss, duplicates, reorder) = (chance.below(40), chance.below(10), chance.below(60));
        let arrivals = chance.network(first..first + 30_000, loss, duplicates, reorder);
        let mut recorder = TransportCcRecorder::new();
        let mut came: BTreeMap<u64, Now> = BTreeMap::new();
        let mut told: BTreeMap<u64, Now> = BTreeMap::new();
        let mut highest = arrivals[0];
        for (index, &number) in arrivals.iter().enumerate() {
            let now = Now(index as u64 * 1_500_000);
            recorder.record(number as u16, now);
            came.entry(number).or_insert(now);
            highest = highest.max(number);
            if recorder.due(now) || index == arrivals.len() - 1 {
                let mut out = List::new();
                while recorder.take(now, &mut out).is_some() {
                    for &(seq, at) in &out {
                        let number = highest - u64::from((highest as u16).wrapping_sub(seq));
                        assert_eq!(at, came.get(&number).copied(), "seed {seed} number {number}");
                        told.extend(at.map(|at| (number, at)));
                    }
                }
            }
        }
        assert_eq!(told, came, "seed {seed}");
    }
}

#[test]
fn arrivals_too_far_apart_for_a_delta_go_in_two_feedbacks() {
    let mut recorder = TransportCcRecorder::new();
    recorder.record(1, Now::from_millis(0));
    recorder.record(2, Now::from_millis(8_100));
    recorder.record(3, Now::from_millis(16_400));
    let (_, list) = take(&mut recorder, 16_400).expect("due");
    assert_eq!(list.len(), 2);
    assert!(recorder.due(Now::from_millis(16_400)));
    let (feedback, list) = take(&mut recorder, 16_400).expect("the rest");
    assert_eq!((feedback.base_seq, list.len()), (3, 1));
}

#[test]
fn a_sender_that_begins_anew_is_followed_at_once() {
    let mut recorder = TransportCcRecorder::new();
    recorder.record(1_000, Now::from_millis(0));
    recorder.record(40_000, Now::from_millis(1));
    recorder.record(40_002, Now::from_millis(2));
    let (feedback, list) = take(&mut recorder, 60).expect("due");
    assert_eq!((feedback.base_seq, list.len()), (40_000, 3));
}

#[test]
fn losses_that_fill_the_list_by_themselves_are_passed_over() {
    let mut recorder = TransportCcRecorder::new();
    recorder.record(0, Now(0));
    let mut out = ArrayVec::<(u16, Option<Now>), 100>::new();
    assert!(recorder.take(Now(0), &mut out).is_some());
    recorder.record(250, Now::from_millis(1));
    let mut feedbacks = Vec::new();
    for _ in 0..3 {
        assert!(recorder.due(Now::from_millis(51)));
        feedbacks.push(recorder.take(Now::from_millis(51), &mut out).map(|feedback| feedback.base_seq));
    }
    assert_eq!(feedbacks, [None, None, Some(201)]);
    assert!(!recorder.due(Now(u64::MAX)));
}

#[test]
fn jumps_with_every_packet_neither_panic_nor_make_feedback_without_end() {
    let mut chance = Chance::new(9);
    let mut recorder = TransportCcRecorder::new();
    let mut seq = 0_u16;
    let mut out = List::new();
    for round in 0..200_000_u64 {
        seq = match round % 5 {
            0 => seq.wrapping_add(32_767),
            1 => seq.wrapping_sub(32_767),
            2 => seq.wrapping_add(RING as u16 - 1),
            3 => seq.wrapping_sub(511),
            _ => chance.next() as u16,
        };
        let now = Now(round * 1_000_000);
        recorder.record(seq, now);
        if recorder.due(now) {
            let mut packets = 0;
            while recorder.due(now) {
                let _ = recorder.take(now, &mut out);
                assert!(size_at_most(&out) <= FEEDBACK_SIZE_MAX);
                packets += 1;
            }
            assert!(packets <= 16, "{packets}");
        }
    }
}
