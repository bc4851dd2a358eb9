//! Who is logged in. A customer has one session, and each session is watched by a task of its own, which ends with the
//! session: when the customer is logged out, or when the identity provider no longer accepts it. `leak` lives here.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use taskscope_probe::Probe;
use tokio::sync::oneshot;

use crate::revocation::OldestValid;

/// Customers that are logged in from the start, as `customer-0` and on.
pub(crate) const REGULARS: u64 = 40;
/// A login beyond it logs out whoever has been there longest.
const AT_ONCE: usize = 64;

pub(crate) struct Sessions {
    probe: Probe,
    oldest_valid: OldestValid,
    live: Mutex<Live>,
    forget: AtomicBool,
}

#[derive(Default)]
struct Live {
    last: u64,
    /// Oldest first.
    sessions: Vec<Session>,
}

struct Session {
    user: String,
    number: u64,
    /// Dropping it tells the session's task to end.
    _logged_in: oneshot::Sender<()>,
}

impl Sessions {
    pub(crate) fn open(probe: Probe, oldest_valid: OldestValid) -> Self {
        let sessions = Self { probe, oldest_valid, live: Mutex::default(), forget: AtomicBool::new(false) };
        for regular in 0..REGULARS {
            sessions.log_in(&format!("customer-{regular}"));
        }
        sessions
    }

    /// The number of the customer's session, which is a new one only if there is none.
    pub(crate) fn log_in(&self, user: &str) -> u64 {
        let forget = self.forget.load(Ordering::Relaxed);
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if !forget && let Some(session) = live.sessions.iter().find(|session| session.user == user) {
            return session.number;
        }
        live.last += 1;
        let number = live.last;
        let (logged_in, logged_out) = oneshot::channel();
        live.sessions.push(Session { user: user.to_owned(), number, _logged_in: logged_in });
        self.probe.spawn("session-watch", watch(number, logged_out, self.oldest_valid.clone()));
        if !forget && live.sessions.len() > AT_ONCE {
            live.sessions.remove(0);
        }
        number
    }

    /// While sessions are forgotten, every login makes a new one; afterwards each customer is left with the first.
    pub(crate) fn forget(&self, forget: bool) {
        self.forget.store(forget, Ordering::Relaxed);
        if !forget {
            let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            let mut seen = HashSet::new();
            live.sessions.retain(|session| seen.insert(session.user.clone()));
        }
    }
}

async fn watch(number: u64, mut logged_out: oneshot::Receiver<()>, mut oldest_valid: OldestValid) {
    loop {
        tokio::select! {
            _ = &mut logged_out => return,
            changed = oldest_valid.changed() => {
                if changed.is_err() || number < *oldest_valid.borrow_and_update() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::Revocations;
    use crate::testing::{eventually, runtime};

    #[test]
    fn a_customer_has_one_session_until_sessions_are_forgotten() {
        let (runtime, probe) = runtime();
        let _entered = runtime.enter();
        let (_revocations, oldest_valid) = Revocations::start().unwrap();
        let sessions = Sessions::open(probe, oldest_valid);
        let regulars = REGULARS as usize;
        let alive = || runtime.metrics().num_alive_tasks();
        let first = sessions.log_in("customer-3");
        assert_eq!((first, alive()), (4, regulars));

        sessions.forget(true);
        for _ in 0..100 {
            sessions.log_in("customer-3");
        }
        assert_eq!(alive(), regulars + 100);
        sessions.forget(false);
        eventually("the leaked sessions have ended", || alive() == regulars);
        assert_eq!(sessions.log_in("customer-3"), first);
    }

    #[test]
    fn a_login_beyond_the_limit_logs_out_the_oldest() {
        let (runtime, probe) = runtime();
        let _entered = runtime.enter();
        let (_revocations, oldest_valid) = Revocations::start().unwrap();
        let sessions = Sessions::open(probe, oldest_valid);
        for stranger in 0..100 {
            sessions.log_in(&format!("stranger-{stranger}"));
        }
        eventually("the oldest have ended", || runtime.metrics().num_alive_tasks() == AT_ONCE);
    }

    #[test]
    fn every_session_ends_when_the_identity_provider_is_gone() {
        let (runtime, probe) = runtime();
        let _entered = runtime.enter();
        let (revocations, oldest_valid) = Revocations::start().unwrap();
        let _sessions = Sessions::open(probe, oldest_valid);
        drop(revocations);
        eventually("no session is left", || runtime.metrics().num_alive_tasks() == 0);
    }
}
