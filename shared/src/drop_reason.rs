//! Every way a packet can end without being used. Each has a name and a counter; none has a log line.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $metric:literal),+ $(,)?) => {
        /// Why a packet was not used.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        #[repr(usize)]
        pub enum DropReason { $($(#[doc = $doc])+ $name),+ }

        impl DropReason {
            /// Every reason, in the order of their discriminants.
            pub const ALL: &[DropReason] = &[$(DropReason::$name),+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();
            /// The label of its counter in the metrics.
            pub const fn metric(self) -> &'static str {
                match self { $(DropReason::$name => $metric),+ }
            }
            /// What it means, in a sentence.
            pub const fn describe(self) -> &'static str {
                match self { $(DropReason::$name => concat!($($doc),+)),+ }
            }
        }
    };
}

reasons! {
    /// Not STUN, DTLS, RTP or RTCP by its first byte (RFC 7983).
    UnknownProtocol => "unknown_protocol",
    /// No transport has proved to live at this address.
    UnknownRemote => "unknown_remote",
    /// STUN that does not parse (RFC 8489).
    StunMalformed => "stun_malformed",
    /// STUN for a user fragment that no transport has.
    StunUnknownUfrag => "stun_unknown_ufrag",
    /// STUN whose MESSAGE-INTEGRITY is missing or wrong.
    StunIntegrity => "stun_integrity",
    /// More STUN than a transport's budget.
    StunBudget => "stun_budget",
    /// A STUN response that answers none of our requests.
    StunUnexpected => "stun_unexpected",
    /// More remote addresses than a transport may have.
    TooManyRemotes => "too_many_remotes",
    /// DTLS before the peer's fingerprint is known or from an unproved address.
    DtlsEarly => "dtls_early",
    /// The ring to the handshake thread is full.
    HandshakeFull => "handshake_full",
    /// More DTLS than a transport's budget.
    DtlsBudget => "dtls_budget",
    /// More RTCP than a transport's budget.
    RtcpBudget => "rtcp_budget",
    /// RTP or RTCP before the handshake was done.
    MediaEarly => "media_early",
    /// RTP or RTCP from another address than the selected one.
    MediaFromUnselected => "media_from_unselected",
    /// RTP whose header does not parse (RFC 3550 §5.1).
    RtpMalformed => "rtp_malformed",
    /// RTCP whose header does not parse (RFC 3550 §6.1), or beyond our limits.
    RtcpMalformed => "rtcp_malformed",
    /// Shorter than the profile's tag, or longer than a datagram may be.
    SrtpLength => "srtp_length",
    /// The authentication tag is wrong.
    SrtpAuth => "srtp_auth",
    /// Seen before (RFC 3711 §3.3.2).
    Replayed => "replayed",
    /// SRTCP with its E bit clear: not encrypted, so not accepted.
    SrtcpPlain => "srtcp_plain",
    /// More SSRCs than a transport may have.
    TooManySsrcs => "too_many_ssrcs",
    /// RTP that belongs to no track of the transport.
    UnknownStream => "unknown_stream",
    /// RTP with a payload type that its track did not negotiate.
    UnknownPayloadType => "unknown_payload_type",
    /// A packet of padding only, as senders use to probe.
    PaddingOnly => "padding_only",
    /// The same media packet again, in another shape (retransmitted though it had arrived).
    Duplicate => "duplicate",
    /// So late that no subscriber can use it.
    TooOld => "too_old",
    /// A publisher's transport sent media over its policed rate.
    Policed => "policed",
    /// The transmit buffer has no room.
    TxFull => "tx_full",
    /// The kernel refused to send.
    SendFailed => "send_failed",
    /// The link had no buffer to receive into.
    RxFull => "rx_full",
    /// The datagram was longer than any that is used.
    RxTruncated => "rx_truncated",
    /// The ring to another worker is full.
    RelayFull => "relay_full",
    /// The ring to the stream thread is full.
    StreamFull => "stream_full",
    /// A retransmission was asked for that is no longer kept.
    RtxMissed => "rtx_missed",
    /// A retransmission was asked for beyond the subscriber's budget.
    RtxBudget => "rtx_budget",
    /// Feedback about a stream that this transport does not send or receive.
    ForeignFeedback => "foreign_feedback",
    /// The ring of events to control is full.
    EventFull => "event_full",
    /// SRTP key lifetime is over (RFC 3711 §9.2).
    KeyExhausted => "key_exhausted",
    /// TURN that is neither a request, an indication of a client's nor ChannelData (RFC 8656).
    TurnMalformed => "turn_malformed",
    /// ChannelData or an indication from an address that has no allocation.
    TurnNoAllocation => "turn_no_allocation",
    /// ChannelData of a number that is bound to no peer.
    TurnNoChannel => "turn_no_channel",
    /// To or from a peer that the client has no permission for (RFC 8656 §9).
    TurnNoPermission => "turn_no_permission",
    /// To a peer that no client may reach.
    TurnPeerForbidden => "turn_peer_forbidden",
    /// A request of one who has proved nothing, beyond the replies that such get.
    TurnReplyBudget => "turn_reply_budget",
    /// Beyond the bandwidth of a user, or of all.
    TurnBandwidth => "turn_bandwidth",
    /// To a peer before its relay socket was open, or through one that could not be opened.
    TurnNoRelay => "turn_no_relay",
    /// A peer's TCP connection beyond those that its user may have.
    TurnConnections => "turn_connections",
    /// To a TCP, TLS or DTLS client whose way is full.
    TurnStreamFull => "turn_stream_full",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_metric() {
        for (index, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert_eq!(DropReason::ALL.iter().filter(|r| r.metric() == reason.metric()).count(), 1);
        }
    }
}
