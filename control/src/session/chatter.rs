//! Lines of the log that strangers can cause: some a second, then only how many more there were.

use std::time::Duration;

use ringmain_shared::Now;

use crate::rpc::TokenBucket;

/// How much the log has heard of who comes and goes.
pub(super) struct Chatter {
    budget: TokenBucket,
    unsaid: u64,
    /// When it last heard how much was left out.
    told: Now,
}

impl Chatter {
    pub(super) fn new(now: Now) -> Self {
        Self { budget: TokenBucket::new(LINES_PER_SECOND, LINES_BURST, now), unsaid: 0, told: now }
    }

    /// There is place for a line. How many were left out before is said now and then.
    pub(super) fn may_speak(&mut self, now: Now) -> bool {
        let may = self.budget.take(now);
        if !may {
            self.unsaid += 1;
        } else if self.unsaid > 0 && now.since(self.told) >= TELL_INTERVAL {
            self.told = now;
            let unsaid = std::mem::take(&mut self.unsaid);
            tracing::info!("{unsaid} lines about peers that came or went are left out (at debug they are all there)");
        }
        may
    }
}

/// A line at INFO while there is place for it, else at DEBUG.
macro_rules! chat {
    ($chatter:expr, $now:expr, $($line:tt)+) => {
        if $chatter.may_speak($now) { tracing::info!($($line)+) } else { tracing::debug!($($line)+) }
    };
}
pub(super) use chat;

const LINES_PER_SECOND: u32 = 20;
const LINES_BURST: u32 = 200;
/// Time between two lines about what was left out.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_gets_some_lines_and_then_one_for_all_the_others() {
        let mut chatter = Chatter::new(Now(0));
        let said = (0..10_000).filter(|_| chatter.may_speak(Now(0))).count();
        assert_eq!((said, chatter.unsaid), (LINES_BURST as usize, 10_000 - u64::from(LINES_BURST)));
        assert!(chatter.may_speak(Now::from_millis(1_000)) && chatter.unsaid > 0, "not at every line");
        assert!(chatter.may_speak(Now::from_millis(11_000)));
        assert_eq!(chatter.unsaid, 0);
    }
}
