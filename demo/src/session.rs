//! Who is logged in. Each session is watched by a task of its own, which ends with the session: when the customer logs
//! out, or when the identity provider no longer accepts it. `leak` lives here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use taskscope_probe::Probe;
use tokio::sync::oneshot;

use crate::revocation::OldestValid;

/// A login beyond it logs out whoever has been there longest.
const AT_ONCE: usize = 40;

pub(crate) struct Sessions {
    probe: Probe,
    oldest_valid: OldestValid,
    live: Mutex<Live>,
    forget_logouts: AtomicBool,
}

#[derive(Default)]
struct Live {
    last: u64,
    /// Oldest first; dropping one tells its task to end.
    sessions: VecDeque<oneshot::Sender<()>>,
}

impl Sessions {
    /// As many customers as the shop usually has are there from the start.
    pub(crate) fn open(probe: Probe, oldest_valid: OldestValid) -> Self {
        let sessions =
            Self { probe, oldest_valid, live: Mutex::default(), forget_logouts: AtomicBool::new(false) };
        for _ in 0..AT_ONCE {
            sessions.log_in();
        }
        sessions
    }

    /// The number of the new session.
    pub(crate) fn log_in(&self) -> u64 {
        let (session, logged_out) = oneshot::channel();
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.last += 1;
        let number = live.last;
        live.sessions.push_back(session);
        // Before the oldest one ends: the shop never has fewer sessions than it may.
        self.probe.spawn("session-watch", watch(number, logged_out, self.oldest_valid.clone()));
        if !self.forget_logouts.load(Ordering::Relaxed) {
            live.log_out_oldest();
        }
        number
    }

    pub(crate) fn forget_logouts(&self, forget: bool) {
        self.forget_logouts.store(forget, Ordering::Relaxed);
        if !forget {
            self.live.lock().unwrap_or_else(PoisonError::into_inner).log_out_oldest();
        }
    }
}

impl Live {
    fn log_out_oldest(&mut self) {
        let too_many = self.sessions.len().saturating_sub(AT_ONCE);
        self.sessions.drain(..too_many);
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
    fn sessions_that_nobody_logs_out_grow_and_end_once_the_logouts_are_remembered() {
        let (runtime, probe) = runtime();
        let _entered = runtime.enter();
        let (_revocations, oldest_valid) = Revocations::start().unwrap();
        let sessions = Sessions::open(probe, oldest_valid);
        let alive = || runtime.metrics().num_alive_tasks();
        assert_eq!(alive(), AT_ONCE);
        sessions.log_in();
        eventually("the oldest session has ended", || alive() == AT_ONCE);

        sessions.forget_logouts(true);
        for _ in 0..25 {
            sessions.log_in();
        }
        assert_eq!(alive(), AT_ONCE + 25);
        sessions.forget_logouts(false);
        eventually("the leaked sessions have ended", || alive() == AT_ONCE);
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
