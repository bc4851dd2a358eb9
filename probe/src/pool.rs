//! Pools of the application: anything with a capacity that work queues for.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// The state of a pool, as its closure sees it. Leave out what is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolSample {
    /// How many can be in use at once.
    pub capacity: Option<u64>,
    /// In use now.
    pub busy: Option<u64>,
    /// Ready for use now.
    pub idle: Option<u64>,
    /// Waiting for one.
    pub queued: Option<u64>,
    /// How long the longest-waiting has waited.
    pub oldest_wait: Option<Duration>,
}

pub(crate) struct UserPool {
    pub(crate) name: String,
    sample: Box<dyn Fn() -> PoolSample + Send + Sync>,
    panicked: AtomicBool,
}

/// What a pool said.
pub(crate) enum Said {
    Sample(PoolSample),
    /// Now for the first time; it is not asked again.
    Panicked,
    /// Earlier.
    Silent,
}

impl UserPool {
    pub(crate) fn new(name: String, sample: impl Fn() -> PoolSample + Send + Sync + 'static) -> Self {
        Self { name, sample: Box::new(sample), panicked: AtomicBool::new(false) }
    }

    /// Asks the closure, on the probe's thread.
    pub(crate) fn ask(&self) -> Said {
        if self.panicked.load(Relaxed) {
            return Said::Silent;
        }
        match crate::capture::panics::run_application_code(&self.sample) {
            Some(sample) => Said::Sample(sample),
            None => {
                self.panicked.store(true, Relaxed);
                Said::Panicked
            }
        }
    }
}

impl PoolSample {
    /// Whether this cannot be.
    pub(crate) fn is_nonsense(&self) -> bool {
        matches!((self.capacity, self.busy), (Some(capacity), Some(busy)) if busy > capacity)
    }
}
