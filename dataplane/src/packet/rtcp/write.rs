//! Writes the packets of a compound datagram one behind the other.

use ringmain_shared::Now;
use ringmain_shared::limits::{RTCP_BLOCKS_MAX, RTCP_NACK_ENTRIES_MAX};
use ringmain_shared::media::Ssrc;

use super::description::write_chunk;
use super::feedback::{FirEntry, write_nack_entries, write_remb};
use super::report::{ReportBlock, SenderInfo};
use super::transport_cc::{FeedbackFields, Plan};
use super::{
    BYE, DESCRIPTION, FORMAT_APPLICATION, FORMAT_FIR, FORMAT_NACK, FORMAT_PLI, FORMAT_TRANSPORT_CC, PAYLOAD_FEEDBACK,
    RECEIVER_REPORT, SENDER_REPORT, TRANSPORT_FEEDBACK, VERSION,
};
use crate::packet::bytes::Writer;

/// A datagram in the making. A packet that has no room is left out whole, and `None` is said.
pub struct CompoundWriter<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> CompoundWriter<'a> {
    /// Begins at the start of `out`; leave room behind it for what SRTCP adds.
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    /// Bytes written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing is written yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a sender report with at most 31 blocks.
    pub fn sender_report(&mut self, info: &SenderInfo, blocks: &[ReportBlock]) -> Option<()> {
        self.packet(count(blocks)?, SENDER_REPORT, |out| {
            info.write(out);
            blocks.iter().for_each(|block| block.write(out));
        })
    }

    /// Appends a receiver report with at most 31 blocks.
    pub fn receiver_report(&mut self, ssrc: Ssrc, blocks: &[ReportBlock]) -> Option<()> {
        self.packet(count(blocks)?, RECEIVER_REPORT, |out| {
            out.put_u32(ssrc.0);
            blocks.iter().for_each(|block| block.write(out));
        })
    }

    /// Appends a source description of at most 31 sources with their CNAMEs.
    pub fn description(&mut self, sources: &[(Ssrc, &str)]) -> Option<()> {
        self.packet(count(sources)?, DESCRIPTION, |out| {
            sources.iter().for_each(|(ssrc, cname)| write_chunk(out, *ssrc, cname));
        })
    }

    /// Appends a BYE for at most 31 sources.
    pub fn bye(&mut self, ssrcs: &[Ssrc]) -> Option<()> {
        self.packet(count(ssrcs)?, BYE, |out| ssrcs.iter().for_each(|ssrc| out.put_u32(ssrc.0)))
    }

    /// Appends a generic NACK for `sequences`, which ascend (modulo 2¹⁶). How many of them it covers: what 64 entries and the
    /// room take.
    pub fn nack(&mut self, sender_ssrc: Ssrc, media_ssrc: Ssrc, sequences: &[u16]) -> Option<usize> {
        let entries_max = (self.room().checked_sub(12)? / 4).min(RTCP_NACK_ENTRIES_MAX);
        if entries_max == 0 || sequences.is_empty() {
            return None;
        }
        let mut covered = 0;
        self.feedback(FORMAT_NACK, TRANSPORT_FEEDBACK, sender_ssrc, media_ssrc, |out| {
            covered = write_nack_entries(out, sequences, entries_max);
        })?;
        Some(covered)
    }

    /// Appends a transport-wide feedback about consecutive packets from `fields.base_sequence` on; the first of `arrivals` should
    /// be one that arrived. How many of them it tells: what the room takes, up to 2048, or up to a step of 8 s. `None` when
    /// none arrived or fits.
    pub fn transport_feedback(&mut self, fields: &FeedbackFields, arrivals: &[Option<Now>]) -> Option<usize> {
        let room = (self.room() & !3).checked_sub(4)?;
        let plan = Plan::new(arrivals, room)?;
        self.packet(FORMAT_TRANSPORT_CC, TRANSPORT_FEEDBACK, |out| plan.write(fields, out))?;
        Some(plan.count())
    }

    /// Appends a Picture Loss Indication.
    pub fn pli(&mut self, sender_ssrc: Ssrc, media_ssrc: Ssrc) -> Option<()> {
        self.feedback(FORMAT_PLI, PAYLOAD_FEEDBACK, sender_ssrc, media_ssrc, |_| {})
    }

    /// Appends a Full Intra Request for at most 31 streams.
    pub fn fir(&mut self, sender_ssrc: Ssrc, entries: &[FirEntry]) -> Option<()> {
        count(entries).filter(|&count| count > 0)?;
        // RFC 5104 §4.3.1.2: the media SSRC is zero.
        self.feedback(FORMAT_FIR, PAYLOAD_FEEDBACK, sender_ssrc, Ssrc(0), |out| {
            for entry in entries {
                out.put_u32(entry.ssrc.0);
                out.put(&[entry.sequence, 0, 0, 0]);
            }
        })
    }

    /// Appends a REMB about at most 255 streams.
    pub fn remb(&mut self, sender_ssrc: Ssrc, rate_bps: u64, ssrcs: &[Ssrc]) -> Option<()> {
        self.feedback(FORMAT_APPLICATION, PAYLOAD_FEEDBACK, sender_ssrc, Ssrc(0), |out| {
            write_remb(out, rate_bps, ssrcs);
        })
    }

    fn feedback(
        &mut self,
        format: u8,
        packet_type: u8,
        sender_ssrc: Ssrc,
        media_ssrc: Ssrc,
        body: impl FnOnce(&mut Writer<'_>),
    ) -> Option<()> {
        self.packet(format, packet_type, |out| {
            out.put_u32(sender_ssrc.0);
            out.put_u32(media_ssrc.0);
            body(out);
        })
    }

    fn packet(&mut self, count: u8, packet_type: u8, body: impl FnOnce(&mut Writer<'_>)) -> Option<()> {
        let mut out = Writer::new(self.out.get_mut(self.len..)?);
        out.put(&[VERSION << 6 | count, packet_type, 0, 0]);
        body(&mut out);
        out.align();
        let words = (out.len() / 4).checked_sub(1)?;
        out.set_u16(2, u16::try_from(words).ok()?);
        self.len += out.finish()?;
        Some(())
    }

    fn room(&self) -> usize {
        self.out.len() - self.len
    }
}

fn count<T>(list: &[T]) -> Option<u8> {
    (list.len() <= RTCP_BLOCKS_MAX).then_some(list.len() as u8)
}
