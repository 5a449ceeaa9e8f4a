//! How often peers may join: in all, and from one address, so that one host cannot take the time of all the others.

use std::collections::BTreeMap;
use std::time::Duration;

use ringmain_shared::{Now, Source};

use super::Settings;
use crate::rpc::{ErrorCode, RpcError, TokenBucket};

/// Joins of the last seconds.
pub(super) struct Admission {
    total: TokenBucket,
    /// By source, as long as its bucket is not full again. Those in all bound how many there can be.
    by_source: BTreeMap<Source, TokenBucket>,
    swept: Now,
}

impl Admission {
    pub(super) fn new(settings: &Settings, now: Now) -> Self {
        let rate = settings.joins_per_second;
        Self { total: TokenBucket::new(rate, burst(rate), now), by_source: BTreeMap::new(), swept: now }
    }

    /// Lets one more in, or says which limit is in the way.
    pub(super) fn admit(&mut self, from: Option<Source>, settings: &Settings, now: Now) -> Result<(), RpcError> {
        if now.since(self.swept) >= SWEEP_INTERVAL {
            self.swept = now;
            self.by_source.retain(|_, bucket| !bucket.is_full(now));
        }
        if !self.total.has(now) {
            return Err(refusal("too many joins", "limits.joins_per_second", settings.joins_per_second));
        }
        if let Some(from) = from {
            let rate = settings.joins_per_second_per_ip;
            let bucket = self.by_source.entry(from).or_insert_with(|| TokenBucket::new(rate, burst(rate), now));
            if !bucket.take(now) {
                return Err(refusal("too many joins from your address", "limits.joins_per_second_per_ip", rate));
            }
        }
        self.total.take(now);
        Ok(())
    }
}

/// At once, as many as in two seconds: a page that everybody opens when the meeting begins.
fn burst(rate: u32) -> u32 {
    rate.saturating_mul(2)
}

fn refusal(what: &str, limit: &'static str, rate: u32) -> RpcError {
    let message = format!("{what}: {rate} a second and {} at once are served ({limit}); try again later", burst(rate));
    RpcError::new(ErrorCode::RateLimited, message).with_limit(limit, RETRY_AFTER)
}

/// Time after which a refused peer should try again. The budget is back sooner, but everybody waits for it.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often addresses that were quiet are forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn address(number: u32) -> Option<Source> {
        Some(IpAddr::from(number.to_be_bytes()).into())
    }

    #[test]
    fn nothing_is_kept_of_an_address_that_is_quiet_and_a_refusal_costs_it_nothing() {
        let settings = Settings { joins_per_second: 100, joins_per_second_per_ip: 1, ..Settings::default() };
        let mut admission = Admission::new(&settings, Now(0));
        for number in 0..200 {
            assert_eq!(admission.admit(address(number), &settings, Now(0)), Ok(()), "{number}");
        }
        assert_eq!(admission.by_source.len(), 200);
        for number in 200..1_000 {
            let error = admission.admit(address(number), &settings, Now(0)).expect_err("the limit in all");
            assert_eq!(error.limit, Some(("limits.joins_per_second", RETRY_AFTER)));
        }
        assert_eq!(admission.by_source.len(), 200, "strangers who were refused take no place");
        let later = Now::from_millis(10_000);
        assert_eq!(
            (0..2).map(|_| admission.admit(address(5), &settings, later).is_ok()).collect::<Vec<_>>(),
            [true; 2]
        );
        assert!(admission.admit(address(5), &settings, later).is_err());
        assert_eq!(admission.by_source.len(), 1);
    }
}
