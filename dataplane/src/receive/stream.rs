//! One stream that a publisher sends: which packets came, and the report that is owed for them (RFC 3550 §6.4, §A.3).
//! Owns sequence, clock, counters and the last sender report. Never sees payloads, keys or RTCP bytes.

use std::time::Duration;

use ringmain_shared::Now;
use ringmain_shared::media::Ssrc;

use super::media_clock::MediaClock;
use super::rtt::NtpTime;
use super::sequence::{Arrival, ArrivalKind, InboundSeq, Sequence};

/// The receiving end of one SSRC.
#[derive(Clone, Debug)]
pub struct InboundStream {
    ssrc: Ssrc,
    clock_rate: u32,
    /// `None` until the first packet.
    sequence: Option<Sequence>,
    clock: MediaClock,
    counters: StreamCounters,
    /// Packets expected in series that a restart has ended.
    expected_before: u64,
    series: Series,
    sender_report: Option<SenderReport>,
}

/// Counters of one stream since it began, restarts included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StreamCounters {
    /// Packets that came for the first time on the stream's own SSRC.
    pub received: u64,
    /// Packets that should have come (RFC 3550 §A.3).
    pub expected: u64,
    /// Of `received`, those that filled a gap.
    pub late: u64,
    /// Packets that came for the first time as a retransmission (RFC 4588).
    pub repaired: u64,
    /// Packets that had come before, in either way.
    pub duplicates: u64,
    /// Packets too far off to be placed.
    pub too_old: u64,
    /// Times that the publisher began anew.
    pub restarts: u64,
}

/// One report block of a receiver report (RFC 3550 §6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReportBlock {
    /// The stream reported on.
    pub ssrc: Ssrc,
    /// Loss since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the series began; 24 bits on the wire, and negative when duplicates outnumber losses.
    pub cumulative_lost: i32,
    /// Cycles and highest sequence number.
    pub highest_seq: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report, 0 when there was none.
    pub lsr: u32,
    /// Time since that report in 1/65536 s.
    pub dlsr: u32,
}

/// The last sender report of a stream: which media time was which wall-clock time (RFC 3550 §6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenderReport {
    /// The publisher's wall clock.
    pub ntp: NtpTime,
    /// Its media clock at that time.
    pub rtp: u32,
    /// When the report came.
    pub arrived: Now,
}

/// What reports count: one series of sequence numbers, begun anew by a restart.
#[derive(Clone, Copy, Debug, Default)]
struct Series {
    /// Packets that came on the SSRC itself. RFC 3550 §6.4.1: duplicates count, retransmissions elsewhere do not, or the
    /// publisher would not hear of the loss that its congestion control must react to.
    received: u64,
    expected_prior: u64,
    received_prior: u64,
}

impl InboundStream {
    /// A stream from which nothing has come yet. Timestamps count `clock_rate` per second.
    pub fn new(ssrc: Ssrc, clock_rate: u32) -> Self {
        Self {
            ssrc,
            clock_rate,
            sequence: None,
            clock: MediaClock::new(clock_rate),
            counters: StreamCounters::default(),
            expected_before: 0,
            series: Series::default(),
            sender_report: None,
        }
    }

    /// A packet on the stream's own SSRC. The caller drops what is `Duplicate` or `TooOld`.
    pub fn handle_packet(&mut self, seq: u16, timestamp: u32, now: Now) -> Arrival {
        let expected = self.sequence.as_ref().map_or(0, Sequence::expected);
        let arrival = match &mut self.sequence {
            Some(sequence) => sequence.handle(seq),
            empty => {
                let extended = empty.insert(Sequence::begin(seq)).highest();
                Arrival { extended, kind: ArrivalKind::New }
            }
        };
        match arrival.kind {
            ArrivalKind::New => self.clock.handle(timestamp, now),
            ArrivalKind::Late => self.counters.late += 1,
            ArrivalKind::Duplicate => {
                self.series.received += 1;
                self.counters.duplicates += 1;
                return arrival;
            }
            ArrivalKind::TooOld => {
                self.counters.too_old += 1;
                return arrival;
            }
            ArrivalKind::Restarted => {
                self.counters.restarts += 1;
                self.expected_before += expected;
                self.series = Series::default();
                self.clock = MediaClock::new(self.clock_rate);
                self.clock.handle(timestamp, now);
                // The old report maps a media clock that is no more.
                self.sender_report = None;
            }
        }
        self.series.received += 1;
        self.counters.received += 1;
        arrival
    }

    /// A packet of this stream that came as a retransmission on another SSRC (RFC 4588), by its original sequence number.
    /// Before the stream's first own packet there is nothing to repair: `TooOld`.
    pub fn handle_repair(&mut self, seq: u16) -> Arrival {
        let arrival = match &mut self.sequence {
            Some(sequence) => sequence.handle_repair(seq),
            None => Arrival { extended: InboundSeq(u64::from(seq)), kind: ArrivalKind::TooOld },
        };
        match arrival.kind {
            ArrivalKind::Duplicate => self.counters.duplicates += 1,
            ArrivalKind::TooOld => self.counters.too_old += 1,
            _ => self.counters.repaired += 1,
        }
        arrival
    }

    /// The publisher's sender report about this stream: its wall clock (NTP, 32.32) and its media clock at one moment.
    pub fn handle_sender_report(&mut self, ntp: u64, rtp: u32, now: Now) {
        self.sender_report = Some(SenderReport { ntp: NtpTime(ntp), rtp, arrived: now });
    }

    /// The report block that is due. Each one ends an interval of `fraction_lost`.
    /// RFC 3550 §6.4: only sources that sent since the last report are reported on; for others, `None`.
    pub fn report_block(&mut self, now: Now) -> Option<ReportBlock> {
        let sequence = self.sequence.as_ref()?;
        let expected = sequence.expected();
        let fraction_lost = self.series.end_interval(expected)?;
        let lost = expected as i64 - self.series.received as i64;
        let (lsr, dlsr) = self.sender_report.map_or((0, 0), |report| {
            let delay = now.since(report.arrived);
            (report.ntp.compact(), units_of_65536(delay))
        });
        Some(ReportBlock {
            ssrc: self.ssrc,
            fraction_lost,
            cumulative_lost: lost.clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_seq: sequence.highest_reported(),
            jitter: self.clock.jitter(),
            lsr,
            dlsr,
        })
    }

    /// Another SSRC takes the place of this one: what comes next begins anew, and above every number so far.
    pub fn begin_anew(&mut self, ssrc: Ssrc) {
        self.ssrc = ssrc;
        if let Some(sequence) = &mut self.sequence {
            sequence.end();
        }
    }

    /// Whose stream this is.
    pub fn ssrc(&self) -> Ssrc {
        self.ssrc
    }

    /// The highest sequence number so far.
    pub fn highest(&self) -> Option<InboundSeq> {
        self.sequence.as_ref().map(Sequence::highest)
    }

    /// The last sender report, if any since the stream began or began anew.
    pub fn sender_report(&self) -> Option<SenderReport> {
        self.sender_report
    }

    /// Counters since the stream began.
    pub fn counters(&self) -> StreamCounters {
        let expected = self.expected_before + self.sequence.as_ref().map_or(0, Sequence::expected);
        StreamCounters { expected, ..self.counters }
    }

    /// Interarrival jitter in microseconds.
    pub fn jitter_us(&self) -> u64 {
        self.clock.jitter_us()
    }

    /// How much more time passed here than in the media since the stream began, in milliseconds.
    pub fn drift_ms(&self) -> i64 {
        self.clock.drift_ms()
    }
}

impl Series {
    /// Loss since the last interval's end in 1/256 (RFC 3550 §A.3), if anything came in it; otherwise it goes on.
    fn end_interval(&mut self, expected: u64) -> Option<u8> {
        let expected_interval = expected - self.expected_prior;
        let received_interval = self.received - self.received_prior;
        if received_interval == 0 {
            return None;
        }
        self.expected_prior = expected;
        self.received_prior = self.received;
        match expected_interval.saturating_sub(received_interval) {
            0 => Some(0),
            // Below 256, since less was lost than expected.
            lost => Some(((lost << 8) / expected_interval) as u8),
        }
    }
}

fn units_of_65536(duration: Duration) -> u32 {
    let units = (duration.as_nanos() << 16) / 1_000_000_000;
    u32::try_from(units).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::chance::Chance;
    use super::*;

    fn stream() -> InboundStream {
        InboundStream::new(Ssrc(7), 90_000)
    }

    #[test]
    fn a_stream_from_which_nothing_came_has_no_report() {
        assert_eq!(stream().report_block(Now(0)), None);
        assert_eq!(stream().handle_repair(3).kind, ArrivalKind::TooOld);
    }

    #[test]
    fn reports_count_what_a_slow_reference_counts() {
        for seed in 0..30 {
            let mut chance = Chance::new(seed);
            let first = 65_536 + chance.below(65_536);
            let (loss, duplicates, reorder) = (chance.below(60), chance.below(10), chance.below(100));
            let arrivals = chance.network(first..first + 20_000, loss, duplicates, reorder);
            let mut stream = stream();
            let (mut expected_prior, mut received_prior) = (0, 0);
            for (index, &number) in arrivals.iter().enumerate() {
                stream.handle_packet(number as u16, 0, Now(0));
                if chance.percent(1) {
                    let seen = &arrivals[..=index];
                    let highest = seen.iter().max().expect("at least one came");
                    let expected = highest - seen[0] + 1;
                    let received = seen.len() as u64;
                    let (expected_interval, received_interval) = (expected - expected_prior, received - received_prior);
                    (expected_prior, received_prior) = (expected, received);
                    let fraction = match expected_interval.checked_sub(received_interval) {
                        None | Some(0) => 0,
                        Some(lost) => lost * 256 / expected_interval,
                    };
                    let report = stream.report_block(Now(0)).expect("a packet came just now");
                    assert_eq!(u64::from(report.fraction_lost), fraction, "seed {seed}");
                    assert_eq!(i64::from(report.cumulative_lost), expected as i64 - received as i64, "seed {seed}");
                    let cycles = highest / 65_536 - seen[0] / 65_536;
                    assert_eq!(u64::from(report.highest_seq), cycles * 65_536 + highest % 65_536, "seed {seed}");
                }
            }
            let counters = stream.counters();
            assert_eq!(counters.received + counters.duplicates, arrivals.len() as u64, "seed {seed}");
        }
    }

    #[test]
    fn loss_stays_reported_although_a_retransmission_repaired_it() {
        let mut stream = stream();
        stream.handle_packet(1, 0, Now(0));
        stream.handle_packet(4, 0, Now(0));
        assert_eq!(stream.handle_repair(2).kind, ArrivalKind::Late);
        assert_eq!(stream.handle_repair(3).kind, ArrivalKind::Late);
        let report = stream.report_block(Now(0)).expect("something came");
        assert_eq!((report.fraction_lost, report.cumulative_lost), (128, 2));
        let counters = stream.counters();
        assert_eq!((counters.received, counters.expected, counters.repaired), (2, 4, 2));
    }

    #[test]
    fn duplicates_beyond_the_losses_make_the_loss_negative() {
        let mut stream = stream();
        for seq in [1, 2, 2, 2, 3] {
            stream.handle_packet(seq, 0, Now(0));
        }
        let report = stream.report_block(Now(0)).expect("something came");
        assert_eq!((report.fraction_lost, report.cumulative_lost), (0, -2));
    }

    #[test]
    fn an_interval_without_packets_is_not_reported_and_goes_on() {
        let mut stream = stream();
        stream.handle_packet(1, 0, Now(0));
        stream.handle_packet(3, 0, Now(0));
        assert_eq!(stream.report_block(Now(0)).map(|report| report.fraction_lost), Some(85));
        assert_eq!(stream.report_block(Now(0)), None);
        stream.handle_packet(7, 0, Now(0));
        assert_eq!(stream.report_block(Now(0)).map(|report| report.fraction_lost), Some(192));
    }

    #[test]
    fn the_last_sender_report_is_echoed_with_its_age() {
        let mut stream = stream();
        stream.handle_packet(1, 0, Now(0));
        stream.handle_sender_report(0x1122_3344_5566_7788, 9, Now::from_millis(1_000));
        let report = stream.report_block(Now::from_millis(1_500)).expect("something came");
        assert_eq!((report.lsr, report.dlsr), (0x3344_5566, 0x8000));
        stream.handle_packet(2, 0, Now(0));
        let report = stream.report_block(Now(u64::MAX)).expect("something came");
        assert_eq!(report.dlsr, u32::MAX);
    }

    #[test]
    fn another_ssrc_begins_anew_however_near_its_numbers_are() {
        let mut stream = stream();
        let last = (1_000..1_010).map(|seq| stream.handle_packet(seq, 0, Now(0)).extended).max().expect("packets came");
        stream.begin_anew(Ssrc(8));
        assert_eq!(stream.handle_repair(1_011).kind, ArrivalKind::TooOld, "a repair of the old series");
        let first = stream.handle_packet(1_005, 7_777, Now(0));
        assert_eq!(first.kind, ArrivalKind::Restarted);
        assert!(first.extended > last, "one number names one packet for the whole life of the stream");
        assert_eq!(stream.handle_packet(1_006, 7_777, Now(0)).kind, ArrivalKind::New);
        assert_eq!(stream.report_block(Now(0)).map(|report| report.ssrc), Some(Ssrc(8)));
    }

    #[test]
    fn a_restart_begins_the_report_anew_and_keeps_the_counters() {
        let mut stream = stream();
        for seq in [10, 20, 40_000, 40_001, 40_003] {
            stream.handle_packet(seq, 0, Now(0));
        }
        let report = stream.report_block(Now(0)).expect("something came");
        assert_eq!((report.cumulative_lost, report.highest_seq), (1, 40_003));
        let counters = stream.counters();
        assert_eq!((counters.received, counters.expected, counters.restarts, counters.too_old), (4, 14, 1, 1));
    }

    #[test]
    fn jumps_with_every_packet_are_counted_and_do_no_harm() {
        let mut stream = stream();
        let mut chance = Chance::new(11);
        let mut seq = 0_u16;
        for round in 0..300_000_u64 {
            seq = match round % 3 {
                0 => seq.wrapping_add(32_767),
                1 => seq.wrapping_sub(32_767),
                _ => seq.wrapping_add(2_999),
            };
            stream.handle_packet(seq, chance.next() as u32, Now(round));
            if round % 1_000 == 0 {
                assert!(stream.report_block(Now(round)).is_some());
            }
        }
        let counters = stream.counters();
        assert_eq!(counters.received + counters.duplicates + counters.too_old, 300_000);
    }
}
