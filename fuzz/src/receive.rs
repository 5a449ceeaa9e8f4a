//! A publisher's packets as they arrive, in any order and at any time: what is counted, asked for again and reported.

use std::collections::HashSet;
use std::time::Duration;

use arrayvec::ArrayVec;
use ringmain_dataplane::packet::rtcp::{Compound, CompoundWriter, FeedbackFields, Packet};
use ringmain_dataplane::receive::transport_cc::{FEEDBACK_SIZE_MAX, RING};
use ringmain_dataplane::receive::{
    ArrivalKind, InboundStream, KeyframeArbiter, LayerActivity, NackGenerator, Policer, ReceiveRate, RembEstimator,
    TransportCcRecorder,
};
use ringmain_shared::Now;
use ringmain_shared::limits::KEYFRAME_INTERVAL;
use ringmain_shared::media::Ssrc;

use crate::input::Input;

/// Steps of one input.
const STEPS_MAX: usize = 4096;
/// Arrivals that a worker tells in one feedback.
const ARRIVALS_MAX: usize = 1024;

/// Each step is a packet, a repaired packet, time, or a report.
pub fn receive(data: &[u8]) {
    let mut input = Input::new(data);
    let mut receiver = Receiver::new(&mut input);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        receiver.step(&mut input);
    }
    receiver.finish();
}

struct Receiver {
    now: Now,
    sequence: u16,
    wide: u16,
    timestamp: u32,
    stream: InboundStream,
    nack: NackGenerator,
    transport_cc: TransportCcRecorder,
    rate: ReceiveRate,
    remb: RembEstimator,
    policer: Policer,
    layers: LayerActivity,
    keyframes: KeyframeArbiter,
    keyframe_asked: Option<Now>,
    seen: HashSet<u64>,
    received: u64,
    feedback_count: Option<u8>,
    admitted: u64,
    began: Now,
    rate_max: u64,
}

impl Receiver {
    fn new(input: &mut Input<'_>) -> Self {
        let now = Now::from_millis(u64::from(input.u16()));
        let rate_max = u64::from(input.u32());
        Self {
            now,
            sequence: input.u16(),
            wide: input.u16(),
            timestamp: input.u32(),
            stream: InboundStream::new(Ssrc(7), input.u32()),
            nack: NackGenerator::new(),
            transport_cc: TransportCcRecorder::new(),
            rate: ReceiveRate::new(),
            remb: RembEstimator::new(300_000, rate_max, now),
            policer: Policer::new(rate_max, now),
            layers: LayerActivity::new(),
            keyframes: KeyframeArbiter::new(),
            keyframe_asked: None,
            seen: HashSet::new(),
            received: 0,
            feedback_count: None,
            admitted: 0,
            began: now,
            rate_max,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.u8();
        let small = u16::from(op & 0x0f);
        match op >> 4 {
            0..=3 => self.packet(1 + small / 8, 1),
            4 => self.packet(small.wrapping_sub(8), small),
            5 => self.packet(input.u16(), input.u16()),
            6 => self.repair(input.u16()),
            7 => self.now = self.now + Duration::from_millis(u64::from(small) * 3),
            8 => self.now = self.now + Duration::from_millis(u64::from(input.u16())),
            9 => self.ask(u64::from(small) * 10),
            10 => self.report(input),
            11 => self.tell_arrivals(),
            12 => self.stream.handle_sender_report(input.u64(), input.u32(), self.now),
            13 => self.want_keyframe(op & 1 == 0),
            14 => self.timestamp = input.u32(),
            _ => self.police(usize::from(input.u16())),
        }
    }

    fn packet(&mut self, step: u16, wide_step: u16) {
        self.sequence = self.sequence.wrapping_add(step);
        self.wide = self.wide.wrapping_add(wide_step);
        self.timestamp = self.timestamp.wrapping_add(3000);
        self.transport_cc.record(self.wide, self.now);
        self.rate.handle(usize::from(step), self.now);
        let _ = self.layers.handle_packet((step % 4) as u8, self.now);
        let arrival = self.stream.handle_packet(self.sequence, self.timestamp, self.now);
        self.arrived(arrival, self.sequence);
    }

    fn repair(&mut self, sequence: u16) {
        let arrival = self.stream.handle_repair(sequence);
        assert_ne!(arrival.kind, ArrivalKind::Restarted, "a retransmission proves no restart");
        self.arrived(arrival, sequence);
    }

    fn arrived(&mut self, arrival: ringmain_dataplane::receive::Arrival, sequence: u16) {
        let _ = self.nack.handle(arrival, self.now);
        match arrival.kind {
            ArrivalKind::New | ArrivalKind::Late | ArrivalKind::Restarted => {
                assert_eq!(arrival.extended.seq(), sequence);
                assert!(self.seen.insert(arrival.extended.0), "{arrival:?} named another packet before");
                self.received += 1;
            }
            ArrivalKind::Duplicate => assert!(self.seen.contains(&arrival.extended.0), "{arrival:?} is new"),
            ArrivalKind::TooOld => {}
        }
        let counters = self.stream.counters();
        assert_eq!(counters.received + counters.repaired, self.received);
        assert!(counters.received <= self.received && counters.late <= counters.received);
        if matches!(arrival.kind, ArrivalKind::New | ArrivalKind::Restarted) {
            assert_eq!(self.stream.highest(), Some(arrival.extended));
        }
    }

    fn ask(&mut self, round_trip_ms: u64) {
        let mut asked: ArrayVec<u16, 64> = ArrayVec::new();
        let _ = self.nack.poll(self.now, Duration::from_millis(round_trip_ms), &mut asked);
        let Some(highest) = self.stream.highest() else {
            assert!(asked.is_empty());
            return;
        };
        assert!(asked.len() <= self.nack.missing_count().max(asked.len()));
        for sequence in asked {
            // Within the last cycle, the number that is meant.
            let extended = highest.0 - u64::from(highest.seq().wrapping_sub(sequence));
            assert!(!self.seen.contains(&extended), "{sequence} had come");
        }
        if self.nack.missing_count() == 0 {
            assert_eq!(self.nack.next_deadline(), None);
        }
    }

    fn report(&mut self, input: &mut Input<'_>) {
        let rate = self.rate.rate_bps(self.now);
        let counters = self.stream.counters();
        let lost = counters.expected.saturating_sub(counters.received);
        self.remb.update(rate, counters.expected, lost.min(u64::from(input.u8())), self.now);
        assert!((50_000..=self.rate_max.max(50_000)).contains(&self.remb.estimate_bps()));
        let due = self.remb.due(self.now);
        assert_eq!(self.remb.poll(self.now).is_some(), due);
        let _ = (self.stream.jitter_us(), self.stream.drift_ms());
        let Some(block) = self.stream.report_block(self.now) else { return };
        assert_eq!(block.highest_seq as u16, self.stream.highest().expect("something came").seq());
        assert!((-0x80_0000..=0x7f_ffff).contains(&block.cumulative_lost));
        assert_eq!(self.stream.report_block(self.now), None, "nothing came since");
    }

    /// Every feedback that is due, until there is none; each as it would go on the wire.
    fn tell_arrivals(&mut self) {
        let mut told: ArrayVec<(u16, Option<Now>), ARRIVALS_MAX> = ArrayVec::new();
        // Each takes at least one number out of the ring: no more than one, where arrivals lie too far apart for a delta.
        for _ in 0..=RING {
            if !self.transport_cc.due(self.now) {
                return;
            }
            let Some(feedback) = self.transport_cc.take(self.now, &mut told) else { continue };
            let next = self.feedback_count.map_or(feedback.feedback_count, |count| count.wrapping_add(1));
            assert_eq!(feedback.feedback_count, next);
            self.feedback_count = Some(next);
            assert!(told.last().is_some_and(|(_, at)| at.is_some()), "the last one came");
            assert!(told.iter().zip(0u16..).all(|((seq, _), n)| *seq == feedback.base_seq.wrapping_add(n)));
            let arrivals: Vec<Option<Now>> = told.iter().map(|&(_, at)| at).collect();
            let fields = FeedbackFields {
                sender_ssrc: Ssrc(1),
                media_ssrc: Ssrc(7),
                base_sequence: feedback.base_seq,
                feedback_count: feedback.feedback_count,
            };
            let mut out = [0; FEEDBACK_SIZE_MAX];
            let mut writer = CompoundWriter::new(&mut out);
            let written = writer.transport_feedback(&fields, &arrivals).expect("something came");
            assert_eq!(written, arrivals.len(), "what the recorder gives out at once is told at once");
            let len = writer.len();
            let read = Compound::parse(&out[..len]).expect("what we write can be read").next();
            assert!(matches!(read, Some(Ok(Packet::TransportFeedback(_)))));
        }
        panic!("feedback is due without end");
    }

    fn want_keyframe(&mut self, come: bool) {
        if come {
            self.keyframes.keyframe_arrived();
            return;
        }
        if self.keyframes.request(self.now) || self.keyframes.poll(self.now) {
            let long_ago = self.keyframe_asked.is_none_or(|at| self.now.since(at) >= KEYFRAME_INTERVAL);
            assert!(long_ago, "two requests within {KEYFRAME_INTERVAL:?}");
            self.keyframe_asked = Some(self.now);
        }
    }

    fn police(&mut self, size: usize) {
        if self.policer.admit(size, self.now).is_ok() {
            self.admitted += size as u64;
        }
        let rate = u128::from(self.rate_max / 8);
        let allowed = rate.max(1500) + self.now.since(self.began).as_nanos() * rate / 1_000_000_000;
        assert!(u128::from(self.admitted) <= allowed, "{} of {allowed} bytes", self.admitted);
    }

    fn finish(&mut self) {
        let _ = self.layers.poll(self.now);
        self.now = self.now + Duration::from_secs(3);
        let _ = self.layers.poll(self.now);
        assert_eq!(self.layers.mask(), 0, "silent layers die");
        self.tell_arrivals();
        // Whatever is missing is given up in the end.
        let mut asked: ArrayVec<u16, 4> = ArrayVec::new();
        let _ = self.nack.poll(self.now, Duration::ZERO, &mut asked);
        assert!(asked.is_empty() && self.nack.missing_count() == 0, "{} still missing", self.nack.missing_count());
    }
}
