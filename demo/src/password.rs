//! Passwords are compared by their hash, on the worker: too slow for that on the day of `slow-poll`, when one account
//! in ten is stored with a cost that was meant for another machine.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::work;

const HASH: Duration = Duration::from_micros(300);
const COSTLY_HASH: Duration = Duration::from_millis(212);
/// Often enough to be the 99th percentile, rare enough to leave the workers time for everything else.
const COSTLY_ONE_IN: u64 = 10;

#[derive(Default)]
pub(crate) struct Passwords {
    costly: AtomicBool,
    verified: AtomicU64,
}

impl Passwords {
    pub(crate) fn verify(&self, password: &str) -> bool {
        let verified = self.verified.fetch_add(1, Ordering::Relaxed);
        let costly = self.costly.load(Ordering::Relaxed) && verified.is_multiple_of(COSTLY_ONE_IN);
        work::spend(if costly { COSTLY_HASH } else { HASH });
        !password.is_empty()
    }

    pub(crate) fn make_costly(&self, costly: bool) {
        self.costly.store(costly, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn one_login_in_ten_is_slow_while_hashes_are_costly() {
        let passwords = Passwords::default();
        let slow = |logins: usize| {
            (0..logins)
                .filter(|_| {
                    let start = clock::now();
                    assert!(passwords.verify("secret"));
                    start.elapsed() >= COSTLY_HASH
                })
                .count()
        };
        passwords.make_costly(true);
        assert!(slow(20) >= 2);
        passwords.make_costly(false);
        let start = clock::now();
        passwords.verify("secret");
        assert!(!passwords.verify(""));
        assert!(start.elapsed() >= 2 * HASH);
    }
}
