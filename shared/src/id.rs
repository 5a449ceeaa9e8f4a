//! Names of things that both planes talk about.
//! Control hands them out; none is ever used twice, so a late message about a closed thing cannot reach its successor.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }
    )+};
}

ids! {
    /// A room: peers that hear and see each other (ion-sfu's *session*).
    RoomId,
    /// One participant of a room; has up to one transport per [`Side`](crate::transport::Side).
    PeerId,
    /// One peer connection: one ICE session, one DTLS association, one set of SRTP keys.
    TransportId,
    /// One published media track: every simulcast layer of it.
    TrackId,
    /// One track on its way to one subscriber.
    SubscriptionId,
    /// One TURN allocation; named by the data plane, whose worker is in the upper 16 bits.
    TurnAllocationId,
}

/// A worker of the data plane; its UDP port is the base port plus this index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WorkerIndex(pub u16);

impl fmt::Display for WorkerIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Hands out ids: `epoch` in the upper 24 bits, a counter in the lower 40.
///
/// A new epoch at each start (the caller takes it from the clock) keeps a restarted control plane from
/// naming a new thing as an old one that a data plane still holds.
#[derive(Debug)]
pub struct IdSource {
    next: u64,
}

impl IdSource {
    /// A source whose ids differ from those of every other `epoch` (modulo 2²⁴).
    pub fn new(epoch: u32) -> Self {
        Self { next: (u64::from(epoch) & 0xff_ffff) << 40 | 1 }
    }

    /// The next unused number; wrap it in the id type it is for.
    #[expect(clippy::should_implement_trait, reason = "it never ends and is never iterated over")]
    pub fn next(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_epochs_never_share_an_id() {
        let (mut a, mut b) = (IdSource::new(1), IdSource::new(2));
        let first: Vec<u64> = (0..1000).map(|_| a.next()).collect();
        assert!((0..1000).all(|_| !first.contains(&b.next())));
    }
}
