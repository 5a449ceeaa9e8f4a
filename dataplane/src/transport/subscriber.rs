//! What we send on a transport: its subscriptions, the transport-wide numbering, the budget of retransmissions.

use std::collections::HashSet;
use std::time::Duration;

use foldhash::fast::RandomState;
use ringmain_shared::Now;
use ringmain_shared::media::Ssrc;

use crate::forward::history::ResendBudget;
use crate::forward::subscription::SubscriptionKey;
use crate::transport::repairs::Repairs;

/// Time between sender reports while media goes out.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The sending half of a transport.
#[derive(Debug, Default)]
pub struct Subscriber {
    /// What is forwarded, by SSRC at the subscriber.
    pub streams: Vec<SentStream>,
    /// SSRCs that went out and ended, to be told by BYE.
    pub ended: Vec<Ssrc>,
    /// Every SSRC ever sent under with these keys: one that begins anew would use its SRTP indices twice.
    pub used: HashSet<Ssrc, RandomState>,
    /// The next transport-wide sequence number.
    pub transport_sequence: u16,
    /// What may be sent again.
    pub budget: ResendBudget,
    /// What it has asked for again.
    pub repairs: Repairs,
    /// When the next sender reports are due.
    pub report_at: Option<Now>,
}

/// One SSRC that we send under.
#[derive(Clone, Copy, Debug)]
pub struct SentStream {
    /// At the subscriber.
    pub ssrc: Ssrc,
    /// Its retransmissions.
    pub rtx: Option<Ssrc>,
    /// Whose it is.
    pub subscription: SubscriptionKey,
}

impl Subscriber {
    /// A subscription begins to go out.
    pub fn add(&mut self, ssrc: Ssrc, rtx: Option<Ssrc>, subscription: SubscriptionKey) {
        self.used.insert(ssrc);
        self.used.extend(rtx);
        self.streams.push(SentStream { ssrc, rtx, subscription });
    }

    /// The subscription that feedback about `ssrc` is for.
    pub fn subscription_of(&self, ssrc: Ssrc) -> Option<SubscriptionKey> {
        let is = |stream: &&SentStream| stream.ssrc == ssrc || stream.rtx == Some(ssrc);
        self.streams.iter().find(is).map(|stream| stream.subscription)
    }
}
