//! Which packet a 16-bit sequence number means (RFC 3711 §3.3.1, appendix A).

/// The index nearest to `highest` whose low 16 bits are `seq`; `None` when the rollover counter would leave its 32 bits.
pub(super) fn guess(highest: u64, seq: u16) -> Option<u64> {
    let roc = highest >> 16;
    let highest_seq = (highest & 0xFFFF) as i32;
    let seq = i32::from(seq);
    let roc = if highest_seq < HALF {
        // Before the first rollover there is nothing to go back to: then it can only be a jump ahead.
        if seq - highest_seq > HALF { roc.saturating_sub(1) } else { roc }
    } else if highest_seq - HALF > seq {
        roc + 1
    } else {
        roc
    };
    let index = roc << 16 | seq as u64;
    (index <= INDEX_MAX).then_some(index)
}

/// The indices that the first packet of a stream may have. Senders count rollovers from 0, but the packets before the first
/// rollover may have been lost or be late, when the stream began near the end of the 16 bits.
pub(super) fn first(seq: u16) -> (u64, Option<u64>) {
    let index = u64::from(seq);
    (index, (i32::from(seq) < HALF).then_some(index | 1 << 16))
}

/// The last index of a key (RFC 3711 §9.2).
pub(super) const INDEX_MAX: u64 = (1 << 48) - 1;
/// The last index of a key in SRTCP (RFC 3711 §9.2).
pub(super) const RTCP_INDEX_MAX: u32 = (1 << 31) - 1;

const HALF: i32 = 1 << 15;
