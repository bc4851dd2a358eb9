//! When a delivery that failed is tried again, as a machine that is told the time.

use std::time::Duration;

const FIRST_NS: u64 = 500_000_000;
const MOST_NS: u64 = 60_000_000_000;
/// What a receiver may ask for at most with `Retry-After`.
const MOST_ASKED: Duration = Duration::from_secs(300);

/// ```text
/// Well --failed--> Waiting(failures) --failed--> Waiting(failures + 1)
///   ^                  |
///   +----succeeded-----+
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Retry {
    failures: u32,
    /// Nothing is tried before.
    next_ns: u64,
    most_ns: u64,
    most_asked: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { failures: 0, next_ns: 0, most_ns: MOST_NS, most_asked: MOST_ASKED }
    }
}

impl Retry {
    /// Of a receiver that ends what it has not been sent again for four times `resend`: after one turn that failed it is tried
    /// in time, whatever it asks for.
    pub(super) fn before(resend: Duration) -> Self {
        let most_ns = u64::try_from(resend.as_nanos()).unwrap_or(u64::MAX).min(MOST_NS);
        Self { most_ns, most_asked: (resend * 2).min(MOST_ASKED), ..Self::default() }
    }

    pub(super) fn succeeded(&mut self) {
        (self.failures, self.next_ns) = (0, 0);
    }

    /// `jitter` is at random, 0 to 1: many agents that lost one receiver do not come back at once. `asked` is what the receiver
    /// said it wants to be left alone for.
    pub(super) fn failed(&mut self, now_ns: u64, jitter: f64, asked: Option<Duration>) {
        let doubled = FIRST_NS.saturating_mul(1 << self.failures.min(20)).min(self.most_ns);
        self.failures = self.failures.saturating_add(1);
        // Half of it is certain: a receiver that is down is not asked without end.
        let own_ns = doubled / 2 + (doubled as f64 / 2.0 * jitter.clamp(0.0, 1.0)) as u64;
        let asked_ns = asked.map_or(0, |asked| asked.min(self.most_asked).as_nanos() as u64);
        self.next_ns = now_ns.saturating_add(own_ns.max(asked_ns));
    }

    /// How long nothing is to be tried.
    pub(super) fn wait_ns(&self, now_ns: u64) -> u64 {
        self.next_ns.saturating_sub(now_ns)
    }

    #[cfg(test)]
    fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_waits_longer_each_time_and_no_longer_than_a_minute() {
        let mut retry = Retry::default();
        let waits: Vec<u64> = (0..12)
            .map(|_| {
                retry.failed(0, 1.0, None);
                retry.wait_ns(0) / 1_000_000
            })
            .collect();
        assert_eq!(waits[..4], [500, 1000, 2000, 4000]);
        assert_eq!(waits[11], 60_000);
        retry.succeeded();
        assert_eq!(retry.wait_ns(0), 0);
        assert!(!retry.is_failing());
    }

    #[test]
    fn a_receiver_is_left_alone_as_long_as_it_asks_within_reason() {
        let mut retry = Retry::default();
        retry.failed(7, 0.0, Some(Duration::from_secs(20)));
        assert_eq!(retry.wait_ns(7), 20_000_000_000);
        retry.failed(0, 0.0, Some(Duration::from_secs(u64::MAX)));
        assert_eq!(retry.wait_ns(0), 300_000_000_000);
    }

    #[test]
    fn what_has_to_be_sent_again_in_time_is_whatever_the_receiver_asks_for() {
        const S: u64 = 1_000_000_000;
        for (resend, own, asked) in [(1, 1, 2), (60, 60, 120), (240, 60, 300)] {
            let mut retry = Retry::before(Duration::from_secs(resend));
            retry.failed(0, 1.0, Some(Duration::from_secs(3600)));
            assert_eq!(retry.wait_ns(0), asked * S);
            (0..10).for_each(|_| retry.failed(0, 1.0, None));
            assert_eq!(retry.wait_ns(0), own * S);
            // It is sent a turn after the last, and its end is four turns after that.
            assert!(resend + asked < 4 * resend);
            retry.succeeded();
            retry.failed(0, 1.0, Some(Duration::from_secs(3600)));
            assert_eq!(retry.wait_ns(0), asked * S);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_always_waits_and_always_ends(
            failures in 1..200u32, jitter in proptest::num::f64::ANY, now_ns in 0..u64::MAX / 2, asked in any::<Option<u64>>()
        ) {
            let mut retry = Retry::default();
            for _ in 0..failures {
                retry.failed(now_ns, jitter, asked.map(Duration::from_secs));
            }
            prop_assert!((FIRST_NS / 2..=300_000_000_000).contains(&retry.wait_ns(now_ns)));
            prop_assert_eq!(retry.wait_ns(now_ns + 300_000_000_000), 0);
        }
    }
}
