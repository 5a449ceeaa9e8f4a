//! Which packets of a stream are missing and must be asked for again (RFC 4585 §6.2.1).
//!
//! Owns a bounded list of gaps with their times. A gap gets a moment to fill by reordering, is then asked for once per round
//! trip, and is given up after [`TRIES_MAX`] requests or [`AGE_MAX`]. What cannot be repaired, only a keyframe can: so it says.

use std::collections::VecDeque;
use std::time::Duration;

use arrayvec::ArrayVec;
use ringmain_shared::Now;

use super::sequence::{Arrival, ArrivalKind, InboundSeq};

/// Missing packets kept of one stream; beyond that, all are given up.
pub const MISSING_MAX: usize = 512;

/// Requests for one packet.
pub const TRIES_MAX: u8 = 10;

/// Time after which a missing packet is of no use.
pub const AGE_MAX: Duration = Duration::from_secs(1);

/// Least time between two requests for one packet.
pub const REPEAT_MIN: Duration = Duration::from_millis(20);

/// Packets were lost for good: decoders of a video stream need a keyframe. Means nothing for audio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct NeedKeyframe;

/// The gaps of one stream.
#[derive(Clone, Debug)]
pub struct NackGenerator {
    highest: Option<InboundSeq>,
    /// In the order of their numbers; allocated once.
    missing: VecDeque<Missing>,
    /// Not after the first entry's deadline. May be early after a gap was filled: then a poll finds nothing.
    deadline: Option<Now>,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    seq: InboundSeq,
    expires: Now,
    due: Now,
    tries: u8,
}

impl NackGenerator {
    /// A stream without gaps.
    pub fn new() -> Self {
        Self { highest: None, missing: VecDeque::with_capacity(MISSING_MAX), deadline: None }
    }

    /// A packet came: gaps open behind it or close. Work is bounded by [`MISSING_MAX`], whatever the number is.
    pub fn handle(&mut self, arrival: Arrival, now: Now) -> Option<NeedKeyframe> {
        match arrival.kind {
            ArrivalKind::New => self.go_on_to(arrival.extended, now),
            ArrivalKind::Late => {
                if let Ok(index) = self.missing.binary_search_by_key(&arrival.extended, |missing| missing.seq) {
                    self.missing.remove(index);
                }
                None
            }
            ArrivalKind::Duplicate | ArrivalKind::TooOld => None,
            ArrivalKind::Restarted => {
                self.clear();
                self.highest = Some(arrival.extended);
                Some(NeedKeyframe)
            }
        }
    }

    /// Appends to `out`, in order, the sequence numbers to ask for now; what finds no room stays due.
    /// `rtt` is the round trip to the publisher, [`REPEAT_MIN`] or more is kept between requests.
    pub fn poll<const N: usize>(
        &mut self,
        now: Now,
        rtt: Duration,
        out: &mut ArrayVec<u16, N>,
    ) -> Option<NeedKeyframe> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return None;
        }
        let again = on_grid(now + rtt.clamp(REPEAT_MIN, AGE_MAX));
        let before = self.missing.len();
        let mut deadline: Option<Now> = None;
        self.missing.retain_mut(|missing| {
            let due = missing.due <= now;
            if missing.expires <= now || (due && missing.tries == TRIES_MAX) {
                return false;
            }
            if due && out.try_push(missing.seq.seq()).is_ok() {
                missing.tries += 1;
                missing.due = again;
            }
            let next = missing.due.min(missing.expires);
            deadline = Some(deadline.map_or(next, |deadline| deadline.min(next)));
            true
        });
        self.deadline = deadline;
        (self.missing.len() < before).then_some(NeedKeyframe)
    }

    /// When to poll next.
    pub fn next_deadline(&self) -> Option<Now> {
        self.deadline.filter(|_| !self.missing.is_empty())
    }

    /// A keyframe begins at `keyframe`: what is missing before it is not needed any more.
    pub fn forget_before(&mut self, keyframe: InboundSeq) {
        let count = self.missing.partition_point(|missing| missing.seq < keyframe);
        self.missing.drain(..count);
    }

    /// How many packets are missing.
    pub fn missing_count(&self) -> usize {
        self.missing.len()
    }

    fn go_on_to(&mut self, newest: InboundSeq, now: Now) -> Option<NeedKeyframe> {
        let highest = self.highest.replace(newest)?;
        let gap = newest.0.saturating_sub(highest.0 + 1);
        if gap == 0 {
            return None;
        }
        if gap > (MISSING_MAX - self.missing.len()) as u64 {
            self.clear();
            return Some(NeedKeyframe);
        }
        let due = on_grid(now + REORDER_TOLERANCE);
        let expires = now + AGE_MAX;
        let gap = highest.0 + 1..newest.0;
        self.missing.extend(gap.map(|seq| Missing { seq: InboundSeq(seq), expires, due, tries: 0 }));
        self.deadline = Some(self.deadline.map_or(due, |deadline| deadline.min(due)));
        None
    }

    fn clear(&mut self) {
        self.missing.clear();
        self.deadline = None;
    }
}

impl Default for NackGenerator {
    fn default() -> Self {
        Self::new()
    }
}

/// Later by less than [`GRID`], so that neighbouring gaps come due together and share an RTCP packet.
fn on_grid(time: Now) -> Now {
    let grid = GRID.as_nanos() as u64;
    Now(time.0.div_ceil(grid).saturating_mul(grid))
}

/// Least time that a gap may fill by reordering before it is asked for; with [`GRID`], 5 to 10 ms.
const REORDER_TOLERANCE: Duration = Duration::from_millis(5);

const GRID: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests;
