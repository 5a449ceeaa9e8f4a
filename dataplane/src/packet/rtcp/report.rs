//! Sender and receiver reports (RFC 3550 §6.4).

use ringmain_shared::Now;
use ringmain_shared::media::Ssrc;

use crate::packet::bytes::{Writer, u8_at, u32_at, u64_at};

/// What a stream's sender says of it, and of what it hears itself.
#[derive(Clone, Debug)]
pub struct SenderReport<'a> {
    /// Of the sender's stream.
    pub info: SenderInfo,
    blocks: &'a [u8],
}

impl<'a> SenderReport<'a> {
    pub(super) fn read(body: &'a [u8], count: u8) -> Option<Self> {
        let info = SenderInfo {
            ssrc: Ssrc(u32_at(body, 0)?),
            ntp: u64_at(body, 4)?,
            rtp_timestamp: u32_at(body, 12)?,
            packet_count: u32_at(body, 16)?,
            octet_count: u32_at(body, 20)?,
        };
        Some(Self { info, blocks: body.get(24..24 + BLOCK_LEN * usize::from(count))? })
    }

    /// At most 31.
    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        blocks(self.blocks)
    }
}

/// A receiver's view of what it hears.
#[derive(Clone, Debug)]
pub struct ReceiverReport<'a> {
    /// Who reports.
    pub ssrc: Ssrc,
    blocks: &'a [u8],
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn read(body: &'a [u8], count: u8) -> Option<Self> {
        Some(Self { ssrc: Ssrc(u32_at(body, 0)?), blocks: body.get(4..4 + BLOCK_LEN * usize::from(count))? })
    }

    /// At most 31.
    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        blocks(self.blocks)
    }
}

/// The fixed part of a sender report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenderInfo {
    /// The stream.
    pub ssrc: Ssrc,
    /// When, in NTP's 32.32 fixed-point seconds.
    pub ntp: u64,
    /// The same moment in the stream's RTP clock.
    pub rtp_timestamp: u32,
    /// RTP packets sent so far.
    pub packet_count: u32,
    /// Payload bytes sent so far.
    pub octet_count: u32,
}

impl SenderInfo {
    pub(super) fn write(&self, out: &mut Writer<'_>) {
        out.put_u32(self.ssrc.0);
        out.put(&self.ntp.to_be_bytes());
        out.put_u32(self.rtp_timestamp);
        out.put_u32(self.packet_count);
        out.put_u32(self.octet_count);
    }
}

/// How one stream is received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReportBlock {
    /// The stream.
    pub ssrc: Ssrc,
    /// Lost since the last report, of 256.
    pub fraction_lost: u8,
    /// Lost since the beginning; 24 bits, negative when there were duplicates.
    pub cumulative_lost: i32,
    /// Highest sequence number, extended by the count of wraps.
    pub highest_sequence: u32,
    /// Interarrival jitter in units of the RTP clock.
    pub jitter: u32,
    /// The middle 32 bits of the last sender report's NTP time, zero if there was none.
    pub last_sr: u32,
    /// Time since then, 1/65536 s.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    fn read(block: &[u8]) -> Option<Self> {
        let lost = u32_at(block, 4)?;
        Some(Self {
            ssrc: Ssrc(u32_at(block, 0)?),
            fraction_lost: u8_at(block, 4)?,
            cumulative_lost: (lost << 8).cast_signed() >> 8,
            highest_sequence: u32_at(block, 8)?,
            jitter: u32_at(block, 12)?,
            last_sr: u32_at(block, 16)?,
            delay_since_last_sr: u32_at(block, 20)?,
        })
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) {
        out.put_u32(self.ssrc.0);
        out.put_u8(self.fraction_lost);
        // RFC 3550 §A.3: clamped, not wrapped.
        out.put_u24(self.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff).cast_unsigned());
        out.put_u32(self.highest_sequence);
        out.put_u32(self.jitter);
        out.put_u32(self.last_sr);
        out.put_u32(self.delay_since_last_sr);
    }
}

/// A moment as 32.32 fixed-point seconds. Counted from our start, not from 1900: RFC 3550 §4 asks for no more than one clock
/// for all streams of a host.
pub fn ntp(now: Now) -> u64 {
    let (seconds, nanos) = (now.0 / 1_000_000_000, now.0 % 1_000_000_000);
    (seconds << 32) | ((nanos << 32) / 1_000_000_000)
}

fn blocks(bytes: &[u8]) -> impl Iterator<Item = ReportBlock> + use<'_> {
    bytes.chunks_exact(BLOCK_LEN).filter_map(ReportBlock::read)
}

const BLOCK_LEN: usize = 24;
