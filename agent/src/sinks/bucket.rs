//! How many notifications a receiver is sent at most, as a machine that is told the time: a storm of alerts is no storm of messages.
//! What has to wait is sent together later.

/// At once, after a time of quiet.
const MOST: u64 = 30;
/// From one to the next where it goes on: 30 a minute.
const EVERY_NS: u64 = 2_000_000_000;

/// A bucket of tokens, kept as the time at which it would be full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Bucket {
    full_ns: u64,
}

impl Bucket {
    /// Takes one out; the error says for how long there is none.
    pub(super) fn take(&mut self, now_ns: u64) -> Result<(), u64> {
        let full_ns = self.full_ns.max(now_ns) + EVERY_NS;
        match full_ns.saturating_sub(now_ns + MOST * EVERY_NS) {
            0 => {
                self.full_ns = full_ns;
                Ok(())
            }
            wait_ns => Err(wait_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn thirty_go_at_once_and_then_one_in_two_seconds() {
        let mut bucket = Bucket::default();
        for _ in 0..30 {
            assert_eq!(bucket.take(7), Ok(()));
        }
        assert_eq!(bucket.take(7), Err(EVERY_NS));
        assert_eq!(bucket.take(7 + EVERY_NS / 2), Err(EVERY_NS / 2));
        assert_eq!(bucket.take(7 + EVERY_NS), Ok(()));
        assert_eq!(bucket.take(7 + EVERY_NS), Err(EVERY_NS));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn in_no_minute_are_more_than_it_holds_and_gains(waits in proptest::collection::vec(0..5 * EVERY_NS, 0..400)) {
            let (mut bucket, mut now_ns, mut taken) = (Bucket::default(), 0, Vec::new());
            for wait_ns in waits {
                now_ns += wait_ns / 16;
                match bucket.take(now_ns) {
                    Ok(()) => taken.push(now_ns),
                    // What it says is enough, and no less would be.
                    Err(wait_ns) => {
                        prop_assert!(bucket.clone().take(now_ns + wait_ns - 1).is_err());
                        prop_assert!(bucket.clone().take(now_ns + wait_ns).is_ok());
                    }
                }
            }
            for (at, first) in taken.iter().enumerate() {
                let within = taken[at..].iter().take_while(|it| **it < first + 60_000_000_000).count();
                prop_assert!(within as u64 <= MOST + 60_000_000_000 / EVERY_NS);
            }
        }
    }
}
