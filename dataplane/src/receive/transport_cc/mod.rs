//! Arrival times for transport-wide congestion control (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! Owns a ring of the last arrivals of one publisher's transport and says what the next feedback must carry: every number
//! since the last one, come or not, as many as one RTCP packet holds. A packet that comes after it was reported lost is
//! reported again. Never writes RTCP.

use std::time::Duration;

use arrayvec::ArrayVec;
use ringmain_shared::Now;

/// Numbers that are remembered; a longer step, either way, is a sender that began anew.
pub const RING: u64 = 1 << 12;

/// Longest time from an arrival to its feedback.
pub const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);

/// Arrivals after which feedback does not wait for the interval.
pub const FEEDBACK_ARRIVALS: u32 = 256;

/// Bytes of one feedback packet, so that it fits every path with SRTCP around it.
pub const FEEDBACK_SIZE_MAX: usize = 1200;

/// Most statuses that a feedback of [`FEEDBACK_SIZE_MAX`] bytes can be asked to carry: all lost, and the last one come.
pub const STATUSES_MAX: usize = RING as usize;

/// The arrivals on one transport.
#[derive(Clone, Debug)]
pub struct TransportCcRecorder {
    /// `None` until the first packet.
    range: Option<Range>,
    /// Slot `seq % RING`; allocated once, valid only where the number matches, so nothing is ever swept.
    slots: Box<[Slot]>,
    /// Arrivals not yet reported.
    pending: u32,
    deadline: Option<Now>,
    feedback_count: u8,
}

/// Unwrapped numbers.
#[derive(Clone, Copy, Debug)]
struct Range {
    /// First number of the next feedback.
    next: u64,
    highest: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    seq: u64,
    at: Now,
}

/// What one feedback packet says beside the list of arrivals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feedback {
    /// Number of the first status.
    pub base_seq: u16,
    /// Multiples of 64 ms, 24 bits: not after the first arrival of the list, by less than one multiple.
    pub reference_time: u32,
    /// `reference_time` before it was cut to 24 bits: the first arrival's delta counts from here.
    pub reference: Now,
    /// Number of this feedback.
    pub feedback_count: u8,
}

impl TransportCcRecorder {
    /// Nothing came yet.
    pub fn new() -> Self {
        Self {
            range: None,
            slots: vec![Slot::default(); RING as usize].into_boxed_slice(),
            pending: 0,
            deadline: None,
            feedback_count: 0,
        }
    }

    /// A packet with this transport-wide number came. Constant time, whatever the number is.
    pub fn record(&mut self, wide_seq: u16, now: Now) {
        let Some(Range { next, highest }) = self.range else {
            return self.begin(CYCLE | u64::from(wide_seq), now);
        };
        let step = i64::from(wide_seq.wrapping_sub(highest as u16) as i16);
        if step.unsigned_abs() >= RING {
            // Two cycles on, so that no number in the ring is mistaken for one of the new series.
            return self.begin((highest & !(CYCLE - 1)) + 2 * CYCLE + u64::from(wide_seq), now);
        }
        let seq = highest.wrapping_add_signed(step);
        if seq + REPORTED_AGAIN_MAX < next || self.arrival(seq).is_some() {
            return;
        }
        self.store(seq, now);
        let highest = highest.max(seq);
        // What was never reported and is no longer in the ring cannot be reported.
        let next = next.min(seq).max(highest.saturating_sub(RING - 1));
        self.range = Some(Range { next, highest });
    }

    /// A feedback should be sent.
    pub fn due(&self, now: Now) -> bool {
        self.pending >= FEEDBACK_ARRIVALS || self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// When the next feedback is due at the latest.
    pub fn next_deadline(&self) -> Option<Now> {
        self.deadline
    }

    /// Puts into `out` (emptied first) the statuses of one feedback packet, in order and without holes; the last one came.
    /// The RTCP packet will not exceed [`FEEDBACK_SIZE_MAX`] bytes. While more is left, [`Self::due`] stays true.
    pub fn take<const N: usize>(&mut self, now: Now, out: &mut ArrayVec<(u16, Option<Now>), N>) -> Option<Feedback> {
        out.clear();
        let range = self.range?;
        let mut size = Size::default();
        let mut first: Option<Now> = None;
        let mut last = Now(0);
        let mut come = 0; // statuses up to and including the last arrival
        for seq in range.next..=range.highest {
            let at = self.arrival(seq);
            if !size.grow(at.is_some()) || at.is_some_and(|at| first.is_some() && !is_delta(last, at)) {
                break;
            }
            if out.try_push((seq as u16, at)).is_err() {
                break;
            }
            if let Some(at) = at {
                first.get_or_insert(at);
                last = at;
                come = out.len();
                self.pending = self.pending.saturating_sub(1);
            }
        }
        let Some(first) = first else {
            // Only losses fit, or nothing is left: nothing can be timed, so these numbers go unreported.
            self.settle(range.next + out.len() as u64, range.highest, now);
            out.clear();
            return None;
        };
        out.truncate(come);
        self.settle(range.next + come as u64, range.highest, now);
        let feedback_count = self.feedback_count;
        self.feedback_count = feedback_count.wrapping_add(1);
        let multiple = first.0 / REFERENCE_UNIT;
        Some(Feedback {
            base_seq: range.next as u16,
            reference_time: multiple as u32 & 0xff_ffff,
            reference: Now(multiple * REFERENCE_UNIT),
            feedback_count,
        })
    }

    fn begin(&mut self, seq: u64, now: Now) {
        self.range = Some(Range { next: seq, highest: seq });
        self.pending = 0;
        self.store(seq, now);
    }

    fn store(&mut self, seq: u64, now: Now) {
        self.slots[slot(seq)] = Slot { seq, at: now };
        self.pending += 1;
        self.deadline.get_or_insert(now + FEEDBACK_INTERVAL);
    }

    fn arrival(&self, seq: u64) -> Option<Now> {
        let slot = self.slots[slot(seq)];
        (slot.seq == seq).then_some(slot.at)
    }

    /// What is left after a feedback is due at once.
    fn settle(&mut self, next: u64, highest: u64, now: Now) {
        self.range = Some(Range { next, highest });
        if next > highest {
            self.pending = 0;
            self.deadline = None;
        } else {
            self.deadline = Some(now);
        }
    }
}

impl Default for TransportCcRecorder {
    fn default() -> Self {
        Self::new()
    }
}

/// The greatest size that the feedback may have: two-byte deltas, two-bit statuses without runs.
#[derive(Default)]
struct Size {
    statuses: usize,
    arrivals: usize,
}

impl Size {
    fn grow(&mut self, came: bool) -> bool {
        self.statuses += 1;
        self.arrivals += usize::from(came);
        HEADER_SIZE + 2 * self.statuses.div_ceil(7) + 2 * self.arrivals + PADDING_SIZE_MAX <= FEEDBACK_SIZE_MAX
    }
}

/// The step between two arrivals fits the 16-bit count of 250 µs that a delta is.
fn is_delta(from: Now, to: Now) -> bool {
    let step = (to.0 / DELTA_UNIT) as i64 - (from.0 / DELTA_UNIT) as i64;
    i16::try_from(step).is_ok()
}

fn slot(seq: u64) -> usize {
    (seq % RING) as usize
}

const CYCLE: u64 = 1 << 16;

/// How far behind the next feedback a number may come and be reported again.
const REPORTED_AGAIN_MAX: u64 = 512;

/// Nanoseconds in one count of the reference time, and of a delta.
const REFERENCE_UNIT: u64 = 64_000_000;
const DELTA_UNIT: u64 = 250_000;

/// RTCP header, both SSRCs, base, count, reference time, feedback count.
const HEADER_SIZE: usize = 20;
const PADDING_SIZE_MAX: usize = 3;

#[cfg(test)]
mod tests;
