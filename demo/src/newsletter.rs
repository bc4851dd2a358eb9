//! The newsletter: one task sends it, a few letters at a time, until it is told to stop. One fault lives here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::work;

const EVERY: Duration = Duration::from_millis(200);
const LETTERS: Duration = Duration::from_micros(200);

pub(crate) struct Newsletter {
    runtime: Handle,
    /// The sender looks at its token only while this is not set: that is the bug.
    deaf: Arc<AtomicBool>,
    /// Of the last sender that was spawned.
    stop: Mutex<CancellationToken>,
}

impl Newsletter {
    /// Inside a runtime.
    pub(crate) fn open() -> Self {
        let deaf = Arc::default();
        let stop = Mutex::new(spawn(&deaf));
        Self { runtime: Handle::current(), deaf, stop }
    }

    /// Tells the sender to stop.
    pub(crate) fn stop(&self, deaf: bool) {
        self.deaf.store(deaf, Ordering::Relaxed);
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    /// The sender that was told to stop does so at its next letter, and another one begins.
    pub(crate) fn start(&self) {
        self.deaf.store(false, Ordering::Relaxed);
        let _entered = self.runtime.enter();
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        stop.cancel();
        *stop = spawn(&self.deaf);
    }
}

fn spawn(deaf: &Arc<AtomicBool>) -> CancellationToken {
    let stop = CancellationToken::new();
    let (deaf, told) = (Arc::clone(deaf), stop.clone());
    let sender = async move {
        let mut letters = interval(EVERY);
        loop {
            letters.tick().await;
            if told.is_cancelled() && !deaf.load(Ordering::Relaxed) {
                return;
            }
            work::spend(LETTERS);
        }
    };
    drop(taskscope_probe::task("newsletter").cancelled_by(&stop).spawn(sender));
    stop
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{eventually, runtime};

    #[test]
    fn the_sender_goes_on_while_it_is_deaf_and_there_is_one_again_afterwards() {
        let (runtime, _probe) = runtime();
        let entered = runtime.enter();
        let newsletter = Newsletter::open();
        drop(entered);
        let alive = || runtime.metrics().num_alive_tasks();
        newsletter.stop(true);
        let polls = || runtime.metrics().worker_poll_count(0) + runtime.metrics().worker_poll_count(1);
        let before = polls();
        eventually("it goes on sending", || polls() > before + 5);
        assert_eq!(alive(), 1);
        newsletter.start();
        newsletter.stop(false);
        eventually("both have ended", || alive() == 0);
    }
}
