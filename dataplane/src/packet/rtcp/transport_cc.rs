//! Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1): which packets of a transport arrived, and when.

use arrayvec::ArrayVec;
use ringmain_shared::Now;
use ringmain_shared::limits::RTCP_TWCC_STATUSES_MAX;
use ringmain_shared::media::Ssrc;

use crate::packet::bytes::{Writer, u8_at, u16_at, u32_at};

/// Statuses of consecutive transport-wide sequence numbers; all of them were found to be there.
#[derive(Clone, Debug)]
pub struct TransportFeedback<'a> {
    /// Who received.
    pub sender_ssrc: Ssrc,
    /// One of the streams received.
    pub media_ssrc: Ssrc,
    /// The first packet told of.
    pub base_sequence: u16,
    /// How many packets are told of, at most 8192.
    pub status_count: u16,
    /// Counts the feedback packets.
    pub feedback_count: u8,
    /// Signed 24 bits, units of 64 ms, from an epoch of the receiver's.
    pub reference_time: i32,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TransportFeedback<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let status_count = u16_at(body, 10)?;
        if status_count == 0 || usize::from(status_count) > RTCP_TWCC_STATUSES_MAX {
            return None;
        }
        let mut statuses_left = status_count;
        let mut chunks_end = CHUNKS_AT;
        let mut deltas_len = 0;
        while statuses_left > 0 {
            let chunk = Chunk(u16_at(body, chunks_end)?);
            let count = chunk.count().min(statuses_left);
            deltas_len += chunk.deltas_len(count)?;
            statuses_left -= count;
            chunks_end += 2;
        }
        Some(Self {
            sender_ssrc: Ssrc(u32_at(body, 0)?),
            media_ssrc: Ssrc(u32_at(body, 4)?),
            base_sequence: u16_at(body, 8)?,
            status_count,
            feedback_count: u8_at(body, 15)?,
            reference_time: u32_at(body, 12)?.cast_signed() >> 8,
            chunks: body.get(CHUNKS_AT..chunks_end)?,
            deltas: body.get(chunks_end..chunks_end + deltas_len)?,
        })
    }

    /// Each packet in the order of sequence numbers.
    pub fn statuses(&self) -> Statuses<'a> {
        Statuses {
            chunks: self.chunks,
            deltas: self.deltas,
            chunk: Chunk(0),
            index: 0,
            count: 0,
            sequence: self.base_sequence,
            left: self.status_count,
            ticks: i64::from(self.reference_time) * TICKS_PER_REFERENCE,
        }
    }
}

/// What became of one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketStatus {
    /// Its transport-wide sequence number.
    pub sequence: u16,
    /// When it arrived, microseconds in the clock of `reference_time`, a multiple of 250; `None` if it did not.
    pub arrival_us: Option<i64>,
}

/// Iterates over the packets of a feedback.
#[derive(Clone, Debug)]
pub struct Statuses<'a> {
    chunks: &'a [u8],
    deltas: &'a [u8],
    chunk: Chunk,
    /// The next symbol of `chunk`, which has `count`.
    index: u16,
    count: u16,
    sequence: u16,
    left: u16,
    ticks: i64,
}

impl Iterator for Statuses<'_> {
    type Item = PacketStatus;

    fn next(&mut self) -> Option<PacketStatus> {
        self.left = self.left.checked_sub(1)?;
        if self.index == self.count {
            self.chunk = Chunk(u16_at(self.chunks, 0)?);
            self.chunks = self.chunks.get(2..)?;
            self.count = self.chunk.count();
            self.index = 0;
        }
        let symbol = self.chunk.symbol(self.index);
        self.index += 1;
        let delta = match symbol {
            Symbol::Lost => None,
            Symbol::Small => Some(i64::from(u8_at(self.deltas, 0)?)),
            Symbol::Large => Some(i64::from(u16_at(self.deltas, 0)?.cast_signed())),
            Symbol::Reserved => return None,
        };
        self.deltas = self.deltas.get(symbol.delta_len()..)?;
        self.ticks += delta.unwrap_or(0);
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        Some(PacketStatus { sequence, arrival_us: delta.map(|_| self.ticks * TICK_US) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(usize::from(self.left)))
    }
}

/// Sixteen bits that tell of several packets.
#[derive(Clone, Copy, Debug)]
struct Chunk(u16);

impl Chunk {
    /// How many packets it has room for.
    fn count(self) -> u16 {
        match self.0 >> 14 {
            0b10 => 14,
            0b11 => 7,
            _ => self.0 & 0x1fff,
        }
    }

    fn symbol(self, index: u16) -> Symbol {
        Symbol::of(match self.0 >> 14 {
            0b10 => self.0 >> 13u16.saturating_sub(index) & 1,
            0b11 => self.0 >> 12u16.saturating_sub(2 * index) & 3,
            _ => self.0 >> 13 & 3,
        })
    }

    /// Bytes of deltas that its first `count` symbols want. `None` when it makes no sense.
    fn deltas_len(self, count: u16) -> Option<usize> {
        if count == 0 {
            return None;
        }
        if self.0 >> 15 == 0 {
            let symbol = self.symbol(0);
            return (symbol != Symbol::Reserved).then(|| symbol.delta_len() * usize::from(count));
        }
        let mut len = 0;
        for index in 0..count {
            let symbol = self.symbol(index);
            if symbol == Symbol::Reserved {
                return None;
            }
            len += symbol.delta_len();
        }
        Some(len)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Symbol {
    Lost,
    Small,
    Large,
    Reserved,
}

impl Symbol {
    fn of(bits: u16) -> Self {
        match bits {
            0 => Self::Lost,
            1 => Self::Small,
            2 => Self::Large,
            _ => Self::Reserved,
        }
    }

    fn delta_len(self) -> usize {
        match self {
            Self::Small => 1,
            Self::Large => 2,
            Self::Lost | Self::Reserved => 0,
        }
    }
}

/// The fixed part of a feedback that we write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FeedbackFields {
    /// Ours.
    pub sender_ssrc: Ssrc,
    /// One of the streams received.
    pub media_ssrc: Ssrc,
    /// The transport-wide sequence number of the first arrival.
    pub base_sequence: u16,
    /// One more than in the feedback before.
    pub feedback_count: u8,
}

/// The longest beginning of some arrivals that fits into one packet.
pub(super) struct Plan<'a> {
    arrivals: &'a [Option<Now>],
    symbols: ArrayVec<Symbol, STATUSES_MAX>,
    reference: u64,
}

impl<'a> Plan<'a> {
    /// Plans for `room` bytes after the RTCP header. `None` when not one arrival fits.
    pub(super) fn new(arrivals: &'a [Option<Now>], room: usize) -> Option<Self> {
        let first = arrivals.iter().take(STATUSES_MAX).find_map(|arrival| *arrival)?;
        let reference = ticks(first) / TICKS_PER_REFERENCE.cast_unsigned();
        let mut symbols = ArrayVec::new();
        let mut last = reference * TICKS_PER_REFERENCE.cast_unsigned();
        let mut deltas_len = 0;
        for &arrival in arrivals.iter().take(STATUSES_MAX) {
            let symbol = match arrival {
                None => Symbol::Lost,
                Some(arrival) => match ticks(arrival).cast_signed() - last.cast_signed() {
                    0..=255 => Symbol::Small,
                    -32_768..=32_767 => Symbol::Large,
                    // A step of more than 8 s cannot be told; the next packet begins with it.
                    _ => break,
                },
            };
            last = arrival.map_or(last, ticks);
            deltas_len += symbol.delta_len();
            // Every chunk tells of seven packets or more, except the last.
            if CHUNKS_AT + 2 * (symbols.len() + 1).div_ceil(7) + deltas_len > room {
                break;
            }
            symbols.push(symbol);
        }
        let some = symbols.iter().any(|&symbol| symbol != Symbol::Lost);
        some.then_some(Self { arrivals, symbols, reference })
    }

    /// How many of the arrivals it tells.
    pub(super) fn count(&self) -> usize {
        self.symbols.len()
    }

    /// Appends all after the RTCP header.
    pub(super) fn write(&self, fields: &FeedbackFields, out: &mut Writer<'_>) {
        out.put_u32(fields.sender_ssrc.0);
        out.put_u32(fields.media_ssrc.0);
        out.put_u16(fields.base_sequence);
        out.put_u16(self.symbols.len() as u16);
        out.put_u24(self.reference as u32);
        out.put_u8(fields.feedback_count);
        let mut rest = &self.symbols[..];
        while let Some((chunk, after)) = next_chunk(rest) {
            out.put_u16(chunk);
            rest = after;
        }
        let mut last = self.reference * TICKS_PER_REFERENCE.cast_unsigned();
        for (arrival, symbol) in self.arrivals.iter().zip(&self.symbols) {
            let Some(now) = arrival.map(ticks) else { continue };
            // Within 16 bits, signed: `new` saw to it.
            let delta = now.wrapping_sub(last) as u16;
            match symbol {
                Symbol::Small => out.put_u8(delta as u8),
                _ => out.put_u16(delta),
            }
            last = now;
        }
    }
}

/// The chunk for the first symbols, and the symbols after it.
fn next_chunk(symbols: &[Symbol]) -> Option<(u16, &[Symbol])> {
    let first = *symbols.first()?;
    let run = symbols.iter().take(RUN_MAX).take_while(|&&symbol| symbol == first).count();
    let narrow = symbols.iter().take(14).all(|&symbol| symbol != Symbol::Large);
    if run == symbols.len() || run >= if narrow { 14 } else { 7 } {
        return Some(((first as u16) << 13 | run as u16, symbols.get(run..)?));
    }
    let (mut chunk, width, per_chunk) = if narrow { (0b10 << 14, 1, 14) } else { (0b11 << 14, 2, 7) };
    for (index, &symbol) in symbols.iter().take(per_chunk).enumerate() {
        chunk |= (symbol as u16) << (14 - width * (index + 1));
    }
    Some((chunk, symbols.get(per_chunk..).unwrap_or_default()))
}

fn ticks(now: Now) -> u64 {
    now.0 / 250_000
}

/// Of one packet that we write: what fits into a datagram when one in two arrives.
const STATUSES_MAX: usize = 2048;
const RUN_MAX: usize = 0x1fff;
const CHUNKS_AT: usize = 16;
const TICK_US: i64 = 250;
const TICKS_PER_REFERENCE: i64 = 256;
