//! How many bytes a client and a peer may pass to each other before their worker allows more. Who has used up theirs is not read
//! from: the kernel tells the sender to wait, and nothing is lost.

/// The credit of one joined pair, both ways together.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Below zero when what was decrypted at once was more than there was credit for.
    credit: i64,
    /// Not told yet.
    to_peer: u32,
    to_client: u32,
}

impl Meter {
    /// Bytes that may be read.
    pub(super) fn room(&self) -> usize {
        usize::try_from(self.credit).unwrap_or(0)
    }

    pub(super) fn grant(&mut self, bytes: u32) {
        self.credit += i64::from(bytes);
    }

    /// So many bytes have passed. Whether the worker should hear of it.
    pub(super) fn count(&mut self, size: usize, to_client: bool) -> bool {
        let way = if to_client { &mut self.to_client } else { &mut self.to_peer };
        *way = way.saturating_add(size as u32);
        self.credit -= size as i64;
        i64::from(self.to_peer) + i64::from(self.to_client) >= self.credit
    }

    /// What was not told yet: to the peer, to the client.
    pub(super) fn take(&mut self) -> Option<(u32, u32)> {
        let untold = (std::mem::take(&mut self.to_peer), std::mem::take(&mut self.to_client));
        (untold != (0, 0)).then_some(untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_asks_when_half_is_used_and_owes_what_was_too_much() {
        let mut meter = Meter::default();
        assert_eq!((meter.room(), meter.take()), (0, None));
        meter.grant(1000);
        assert!(!meter.count(300, true) && meter.count(200, false));
        assert_eq!((meter.take(), meter.take(), meter.room()), (Some((200, 300)), None, 500));
        assert!(meter.count(600, true));
        assert_eq!(meter.room(), 0);
        meter.grant(500);
        assert_eq!(meter.room(), 400);
    }
}
