//! RTCP (RFC 3550 §6): what is in a compound datagram, as views, and [`CompoundWriter`] that makes one.
//! Framing is checked for the whole datagram at once, each packet's content when its turn comes: one that is wrong inside does
//! not end the others. How much work a datagram can ask for is bounded by `ringmain_shared::limits`. Reduced-size RTCP
//! (RFC 5506) is taken as well.

use ringmain_shared::DropReason;
use ringmain_shared::limits::{RTCP_PACKETS_MAX, RTCP_TWCC_STATUSES_MAX};

use super::bytes::{u8_at, u16_at};

pub use description::{Bye, Description};
pub use feedback::{Fir, FirEntry, Nack, Pli, Remb};
pub use report::{ReceiverReport, ReportBlock, SenderInfo, SenderReport, ntp};
pub use transport_cc::{FeedbackFields, PacketStatus, Statuses, TransportFeedback};
pub use write::CompoundWriter;

mod description;
mod feedback;
mod report;
#[cfg(test)]
mod tests;
mod transport_cc;
mod write;

/// A clear datagram whose framing is right; iterates over its packets.
#[derive(Clone, Debug)]
pub struct Compound<'a> {
    rest: &'a [u8],
    /// Packet statuses that the rest of the datagram may still tell.
    statuses_left: usize,
}

impl<'a> Compound<'a> {
    /// Checks version, lengths, padding and number of packets.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DropReason> {
        let mut rest = datagram;
        for _ in 0..RTCP_PACKETS_MAX {
            let (_, after) = Frame::split(rest).ok_or(DropReason::RtcpMalformed)?;
            if after.is_empty() {
                return Ok(Self { rest: datagram, statuses_left: RTCP_TWCC_STATUSES_MAX });
            }
            rest = after;
        }
        Err(DropReason::RtcpMalformed)
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<Packet<'a>, DropReason>;

    fn next(&mut self) -> Option<Self::Item> {
        let (frame, after) = Frame::split(self.rest)?;
        self.rest = after;
        let packet = Packet::read(frame).filter(|packet| self.afford(packet));
        Some(packet.ok_or(DropReason::RtcpMalformed))
    }
}

impl Compound<'_> {
    /// Run lengths let 20 bytes tell of 8191 packets, so what one datagram tells is bounded, not only what one packet does.
    fn afford(&mut self, packet: &Packet<'_>) -> bool {
        let Packet::TransportFeedback(feedback) = packet else { return true };
        let left = self.statuses_left.checked_sub(usize::from(feedback.status_count));
        self.statuses_left = left.unwrap_or(self.statuses_left);
        left.is_some()
    }
}

/// One packet of a compound.
#[derive(Clone, Debug)]
pub enum Packet<'a> {
    /// RFC 3550 §6.4.1.
    SenderReport(SenderReport<'a>),
    /// RFC 3550 §6.4.2.
    ReceiverReport(ReceiverReport<'a>),
    /// RFC 3550 §6.5.
    Description(Description<'a>),
    /// RFC 3550 §6.6.
    Bye(Bye<'a>),
    /// RFC 4585 §6.2.1.
    Nack(Nack<'a>),
    /// draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1.
    TransportFeedback(TransportFeedback<'a>),
    /// RFC 4585 §6.3.1.
    Pli(Pli),
    /// RFC 5104 §4.3.1.
    Fir(Fir<'a>),
    /// draft-alvestrand-rmcat-remb-03.
    Remb(Remb<'a>),
    /// Something else.
    Unknown {
        /// The packet type.
        packet_type: u8,
        /// The five bits beside version and padding: a count or a format.
        count: u8,
    },
}

impl<'a> Packet<'a> {
    fn read(frame: Frame<'a>) -> Option<Self> {
        let Frame { count, packet_type, body } = frame;
        Some(match (packet_type, count) {
            (SENDER_REPORT, count) => Self::SenderReport(SenderReport::read(body, count)?),
            (RECEIVER_REPORT, count) => Self::ReceiverReport(ReceiverReport::read(body, count)?),
            (DESCRIPTION, count) => Self::Description(Description::read(body, count)?),
            (BYE, count) => Self::Bye(Bye::read(body, count)?),
            (TRANSPORT_FEEDBACK, FORMAT_NACK) => Self::Nack(Nack::read(body)?),
            (TRANSPORT_FEEDBACK, FORMAT_TRANSPORT_CC) => Self::TransportFeedback(TransportFeedback::read(body)?),
            (PAYLOAD_FEEDBACK, FORMAT_PLI) => Self::Pli(Pli::read(body)?),
            (PAYLOAD_FEEDBACK, FORMAT_FIR) => Self::Fir(Fir::read(body)?),
            (PAYLOAD_FEEDBACK, FORMAT_APPLICATION) if Remb::is(body) => Self::Remb(Remb::read(body)?),
            (packet_type, count) => Self::Unknown { packet_type, count },
        })
    }
}

/// One packet as the header frames it, without padding.
struct Frame<'a> {
    count: u8,
    packet_type: u8,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes the first packet off `bytes`.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let first = u8_at(bytes, 0)?;
        let (packet, after) = bytes.split_at_checked(4 + 4 * usize::from(u16_at(bytes, 2)?))?;
        if first >> 6 != VERSION {
            return None;
        }
        let mut body = packet.get(4..)?;
        if first & 0x20 != 0 {
            // RFC 3550 §6.4.1 wants multiples of four, on the last packet only. libwebrtc pads feedback by one to three bytes,
            // and others pad in the middle, so what can be taken off is taken off.
            let padding = usize::from(*body.last()?);
            if padding == 0 {
                return None;
            }
            body = body.get(..body.len().checked_sub(padding)?)?;
        }
        Some((Self { count: first & 0x1f, packet_type: u8_at(bytes, 1)?, body }, after))
    }
}

const VERSION: u8 = 2;
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
const FORMAT_NACK: u8 = 1;
const FORMAT_TRANSPORT_CC: u8 = 15;
const FORMAT_PLI: u8 = 1;
const FORMAT_FIR: u8 = 4;
const FORMAT_APPLICATION: u8 = 15;
