//! Records of DTLS 1.2 after its handshake, from either end to the other over a network that bends, repeats, delays and joins them.

use std::collections::HashSet;

use ringmain_dataplane::handshake::Datagram;
use ringmain_dataplane::handshake::records::{Numbers, Records, Suite, numbers, split};
use ringmain_shared::limits::DATAGRAM_SIZE_MAX;
use ringmain_shared::transport::DtlsRole;

use crate::input::Input;

/// Steps of one input.
const STEPS_MAX: usize = 96;

/// What one end seals the other opens, whole and as new once; nothing else is opened.
pub fn dtls_records(data: &[u8]) {
    play(data);
}

/// How many records were new.
fn play(data: &[u8]) -> usize {
    let mut input = Input::new(data);
    let mut wire = Wire::new(&mut input);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        wire.step(&mut input);
    }
    wire.ends.iter().map(|end| end.taken.len()).sum()
}

/// Two ends, and all that was sealed.
struct Wire {
    ends: [End; 2],
    /// Bytes that a suite adds to what it seals.
    overhead: usize,
}

struct End {
    records: Records,
    /// What its next record is to be numbered.
    next: Numbers,
    sent: Vec<Sent>,
    /// Numbers of the other end's records that were new here.
    taken: HashSet<u64>,
}

struct Sent {
    record: Datagram,
    content: u8,
    data: Vec<u8>,
    sequence: u64,
}

impl Wire {
    fn new(input: &mut Input<'_>) -> Self {
        let (id, overhead) = [([0xc0, 0x2b], 24), ([0xc0, 0x30], 24), ([0xcc, 0xa9], 16)][usize::from(input.u8() % 3)];
        let suite = Suite::of(id).expect("it is offered");
        let ends = [DtlsRole::Client, DtlsRole::Server].map(|role| {
            // Now and then close to the last.
            let sequence = if input.u8() & 1 == 0 { input.u8().into() } else { LAST - u64::from(input.u8()) };
            let next = Numbers { sequence, explicit: input.u64() };
            let records = Records::new(suite, role, &[7; 48], (&[1; 32], &[2; 32]), next).expect("keys");
            End { records, next, sent: Vec::new(), taken: HashSet::new() }
        });
        Self { ends, overhead }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.u8();
        let from = usize::from(op >> 7);
        match op & 7 {
            0..=2 => self.seal(from, input.u8(), input.chunk()),
            3 => self.deliver(from, &[input.u8()]),
            // Several in one datagram.
            4 => self.deliver(from, &input.array::<3>()),
            5 => self.deliver_bent(from, input.u8(), input.u16(), input.u8()),
            // Its own, come back.
            6 => {
                let Some(sent) = self.pick(from, input.u8()) else { return };
                let mut record = sent.record.clone();
                let end = record.len();
                assert!(self.ends[from].records.open(&mut record, 0..end).is_none(), "the other direction's");
            }
            _ => self.strangers(from, input.chunk()),
        }
    }

    fn pick(&self, from: usize, number: u8) -> Option<&Sent> {
        let sent = &self.ends[from].sent;
        sent.get(usize::from(number) % sent.len().max(1))
    }

    fn seal(&mut self, from: usize, content: u8, data: &[u8]) {
        let End { records, next, sent, .. } = &mut self.ends[from];
        let fits = HEADER_SIZE + self.overhead + data.len() <= DATAGRAM_SIZE_MAX && next.sequence <= LAST;
        let record = records.seal(content, data);
        assert_eq!(record.is_some(), fits, "{} bytes as {next:?}", data.len());
        let Some(record) = record else { return };
        assert_eq!(record.len(), HEADER_SIZE + self.overhead + data.len());
        assert!(split(&record).eq(std::iter::once(0..record.len())));
        let (epoch, numbered) = numbers(&record).expect("it has a header");
        assert_eq!((epoch, numbered.sequence), (1, next.sequence));
        if self.overhead > 16 {
            assert_eq!(numbered.explicit, next.explicit, "a nonce twice, or none");
        }
        sent.push(Sent { record, content, data: data.to_vec(), sequence: next.sequence });
        *next = Numbers { sequence: next.sequence + 1, explicit: next.explicit.wrapping_add(1) };
    }

    /// These records arrive in one datagram, as far as they fit one.
    fn deliver(&mut self, from: usize, picked: &[u8]) {
        let (mut datagram, mut expected) = (Datagram::new(), Vec::new());
        for &number in picked {
            let Some(sent) = self.pick(from, number) else { return };
            if datagram.try_extend_from_slice(&sent.record).is_ok() {
                expected.push((sent.content, sent.data.clone(), sent.sequence));
            }
        }
        let to = &mut self.ends[1 - from];
        assert_eq!(split(&datagram).count(), expected.len());
        for (at, (content, data, sequence)) in split(&datagram).zip(expected) {
            let opened = to.records.open(&mut datagram, at).expect("authentic");
            assert_eq!((opened.content, &datagram[opened.plaintext]), (content, &data[..]));
            // RFC 6347 §4.1.2.6: new above all others, and within the window if it was not seen.
            let highest = to.taken.iter().max().copied();
            let fresh = highest.is_none_or(|highest| sequence > highest || highest - sequence < WINDOW);
            assert_eq!(opened.is_new, fresh && to.taken.insert(sequence), "{sequence} after {highest:?}");
        }
    }

    /// A record arrives that is not as it was sealed. It is not opened, and nothing is different afterwards.
    fn deliver_bent(&mut self, from: usize, number: u8, at: u16, by: u8) {
        let Some(sent) = self.pick(from, number) else { return };
        let mut record = sent.record.clone();
        let at = usize::from(at) % record.len();
        match by {
            0 => record.truncate(at),
            by => record[at] ^= by,
        }
        let to = &mut self.ends[1 - from];
        for at in split(&record) {
            assert!(to.records.open(&mut record, at.clone()).is_none(), "{at:?} of a bent record was opened");
        }
    }

    /// What nobody sealed.
    fn strangers(&mut self, to: usize, bytes: &[u8]) {
        let mut datagram = bytes[..bytes.len().min(DATAGRAM_SIZE_MAX)].to_vec();
        let mut next = 0;
        for at in split(&datagram) {
            assert!(at.start == next && at.len() >= HEADER_SIZE && at.end <= datagram.len());
            next = at.end;
            assert!(numbers(&datagram[at.clone()]).is_some_and(|(_, numbers)| numbers.sequence <= LAST));
            assert!(self.ends[to].records.open(&mut datagram, at).is_none());
        }
    }
}

/// Content type, version, epoch, sequence number, length (RFC 6347 §4.1).
const HEADER_SIZE: usize = 13;
/// The highest number of a record.
const LAST: u64 = (1 << 48) - 1;
/// Records that may still come behind the highest.
const WINDOW: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Output;

    /// A wire on which nothing arrives would keep every promise.
    #[test]
    fn records_arrive_from_either_end_in_every_suite() {
        for suite in 0..3 {
            let begun = Output::default().bytes(&[suite, 0, 0]).bytes(&[9; 8]).bytes(&[1, 2]).bytes(&[0xff; 8]);
            let sealed =
                begun.bytes(&[0, 23]).chunk(b"one").bytes(&[0, 23]).chunk(b"two").bytes(&[0x80, 21]).chunk(b"end");
            let arrived = sealed.bytes(&[4, 1, 0, 1]).bytes(&[3, 0]).bytes(&[5, 0, 0, 20, 1]).bytes(&[0x83, 0]);
            assert_eq!(play(&arrived.0), 3);
        }
    }

    #[test]
    fn random_steps_keep_every_promise() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        let mut taken = 0;
        for _ in 0..500 {
            let mut steps = Output::default().bytes(&std::array::from_fn::<_, 21, _>(|_| next()));
            for _ in 0..STEPS_MAX {
                let op = next();
                steps = match op & 7 {
                    0..=2 => steps.bytes(&[op, next()]).chunk(&vec![next(); usize::from(next()) * 6]),
                    3 | 6 => steps.bytes(&[op, next()]),
                    4 => steps.bytes(&[op, next(), next(), next()]),
                    5 => steps.bytes(&[op, next(), next(), next(), next()]),
                    _ => steps.bytes(&[op]).chunk(&[next(); 40]),
                };
            }
            taken += play(&steps.0);
        }
        assert!(taken > 1_000, "{taken}");
    }
}
