//! Everything that is counted. Counters only grow; what happened in a window is the difference of two tallies.

use super::histogram::Histogram;

/// What happened up to some moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Media packets sent by publishers, each once.
    pub(super) sent: u64,
    /// Their bytes of UDP payload.
    pub(super) sent_bytes: u64,
    pub(super) frames: u64,
    pub(super) keyframes: u64,
    /// Packets that publishers sent again.
    pub(super) resent: u64,
    /// Keyframe requests and NACKs (packets asked for) that publishers got.
    pub(super) keyframe_requests: u64,
    pub(super) nacks: u64,
    /// Datagrams of media that subscribers got, retransmissions and all.
    pub(super) datagrams: u64,
    pub(super) datagram_bytes: u64,
    /// Packets of media streams that arrived, each once, and that should have.
    pub(super) received: u64,
    pub(super) expected: u64,
    pub(super) late: u64,
    pub(super) duplicates: u64,
    /// Packets that arrived only as a retransmission. They are among `received` too.
    pub(super) repaired: u64,
    /// Packets opened: as they were sent, or not.
    pub(super) verified: u64,
    pub(super) spoilt: u64,
    /// Packets opened that were nothing but padding.
    pub(super) padding: u64,
    pub(super) keyframes_seen: u64,
    /// RTCP of subscribers.
    pub(super) rtcp_sent: u64,
    pub(super) rtcp_received: u64,
    pub(super) packets_asked: u64,
    /// Packets thrown away on purpose, at either end.
    pub(super) dropped: u64,
    /// Media streams from which something arrived.
    pub(super) streams: u64,
    /// From sending to reading, of verified packets.
    pub(super) delay: Histogram,
    /// Messages on data channels: sent by publishers; arrived at subscribers, left out, or other than they were sent.
    pub(super) messages_sent: u64,
    pub(super) messages_received: u64,
    pub(super) messages_lost: u64,
    pub(super) messages_spoilt: u64,
    /// From sending to reading, of messages.
    pub(super) message_delay: Histogram,
    /// Connections on which the server has opened its channel, and pairs of sender and receiver of messages.
    pub(super) channels: u64,
    pub(super) conversations: u64,
    /// System calls that the socket refused to take a datagram for.
    pub(super) send_errors: u64,
}

impl Tally {
    /// Packets that were expected and have not come.
    pub(super) fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.received)
    }

    pub(super) fn add(&mut self, other: &Tally) {
        self.combine(other, |mine, theirs| mine + theirs);
        self.delay.add(&other.delay);
        self.message_delay.add(&other.message_delay);
    }

    /// What happened since `earlier`.
    pub(super) fn since(&self, earlier: &Tally) -> Tally {
        let mut window = self.clone();
        window.combine(earlier, |now, then| now.saturating_sub(then));
        window.delay = self.delay.since(&earlier.delay);
        window.message_delay = self.message_delay.since(&earlier.message_delay);
        window
    }

    fn combine(&mut self, other: &Tally, with: impl Fn(u64, u64) -> u64) {
        let Tally {
            sent,
            sent_bytes,
            frames,
            keyframes,
            resent,
            keyframe_requests,
            nacks,
            datagrams,
            datagram_bytes,
            received,
            expected,
            late,
            duplicates,
            repaired,
            verified,
            spoilt,
            padding,
            keyframes_seen,
            rtcp_sent,
            rtcp_received,
            packets_asked,
            dropped,
            streams,
            delay: _,
            messages_sent,
            messages_received,
            messages_lost,
            messages_spoilt,
            message_delay: _,
            channels,
            conversations,
            send_errors,
        } = self;
        for (mine, theirs) in [
            (sent, other.sent),
            (sent_bytes, other.sent_bytes),
            (frames, other.frames),
            (keyframes, other.keyframes),
            (resent, other.resent),
            (keyframe_requests, other.keyframe_requests),
            (nacks, other.nacks),
            (datagrams, other.datagrams),
            (datagram_bytes, other.datagram_bytes),
            (received, other.received),
            (expected, other.expected),
            (late, other.late),
            (duplicates, other.duplicates),
            (repaired, other.repaired),
            (verified, other.verified),
            (spoilt, other.spoilt),
            (padding, other.padding),
            (keyframes_seen, other.keyframes_seen),
            (rtcp_sent, other.rtcp_sent),
            (rtcp_received, other.rtcp_received),
            (packets_asked, other.packets_asked),
            (dropped, other.dropped),
            (streams, other.streams),
            (messages_sent, other.messages_sent),
            (messages_received, other.messages_received),
            (messages_lost, other.messages_lost),
            (messages_spoilt, other.messages_spoilt),
            (channels, other.channels),
            (conversations, other.conversations),
            (send_errors, other.send_errors),
        ] {
            *mine = with(*mine, theirs);
        }
    }
}
