//! The runtimes that the probe knows.
//!
//! A kept `RuntimeMetrics` keeps a runtime's drivers, and our own hook closures, alive. So the probe's thread asks for it
//! when it sees a runtime at work, a bracket of the runtime leaves it, and it is let go when no task is left and nothing
//! happens any more; the next bracket after that leaves it again. Only a runtime whose life the probe knows (the
//! attribute's) keeps it until the end.

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Handle, RuntimeMetrics};

#[derive(Debug)]
pub(crate) struct RuntimeEntry {
    /// Never 0.
    pub(crate) id: u32,
    /// Whether the task hooks are on it.
    pub(crate) has_hooks: bool,
    /// Limit of its blocking pool, where it is known: told, or learnt when the pool was first seen full; 0: not known.
    pub(crate) blocking_capacity: AtomicU32,
    /// Whether that limit was told; it is then not learnt.
    pub(crate) capacity_is_told: bool,
    /// Tokio's own id of it, once a thread of it was seen; 0: not yet.
    tokio_id: AtomicU64,
    /// Whether the next bracket should leave the metrics here.
    wants_metrics: AtomicBool,
    /// No hook holds the entry, so that its end cannot be told: it stays.
    pub(crate) stays: AtomicBool,
    /// The metrics stay while this is set.
    pinned: AtomicBool,
    facts: Mutex<Option<Facts>>,
    /// Tasks with a row.
    pub(crate) followed: AtomicU64,
    /// Ends of tasks that were never spawned here: closures of the blocking pool, and workers.
    pub(crate) foreign_ended: AtomicU64,
}

/// What is known of a running runtime.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) metrics: RuntimeMetrics,
    pub(crate) name: Option<String>,
    pub(crate) multi_thread: bool,
}

impl RuntimeEntry {
    pub(crate) fn new(id: u32, has_hooks: bool, blocking_capacity: u32) -> Self {
        Self {
            id,
            has_hooks,
            blocking_capacity: AtomicU32::new(blocking_capacity),
            capacity_is_told: blocking_capacity != 0,
            tokio_id: AtomicU64::new(0),
            wants_metrics: AtomicBool::new(false),
            stays: AtomicBool::new(false),
            pinned: AtomicBool::new(false),
            facts: Mutex::new(None),
            followed: AtomicU64::new(0),
            foreign_ended: AtomicU64::new(0),
        }
    }

    /// Called on a thread of the runtime, in a bracket. One relaxed load unless the metrics are wanted; never waits.
    #[inline]
    pub(crate) fn offer_metrics(&self) {
        if self.wants_metrics.load(Relaxed) {
            self.leave_metrics();
        }
    }

    #[cold]
    fn leave_metrics(&self) {
        let Ok(handle) = Handle::try_current() else { return };
        // Where the lock is taken, the next bracket tries again.
        let Ok(mut facts) = self.facts.try_lock() else { return };
        self.wants_metrics.store(false, Release);
        if self.is_mine(&handle) {
            *facts = Some(Facts::of(&handle));
        }
    }

    /// Whether `handle` is of this runtime. The first handle that is asked about decides where nothing is known yet.
    pub(crate) fn is_mine(&self, handle: &Handle) -> bool {
        let id = number_of(handle);
        match self.tokio_id.compare_exchange(0, id, Relaxed, Relaxed) {
            Ok(_) => true,
            Err(known) => known == id,
        }
    }

    /// For the probe's thread.
    pub(crate) fn facts(&self) -> Option<Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the runtime end. For the probe's thread.
    pub(crate) fn release_metrics(&self) {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Dropped outside the lock: it may be the last thing that keeps a runtime's drivers.
        drop(facts);
        self.wants_metrics.store(false, Release);
    }

    /// Whether its threads are to look it up anew, so that one of them leaves the metrics.
    pub(crate) fn wants_metrics(&self) -> bool {
        self.wants_metrics.load(Relaxed)
    }

    /// Asks the next bracket for the metrics. For the probe's thread.
    pub(crate) fn want_metrics(&self) {
        self.wants_metrics.store(true, Release);
    }

    /// Keeps the metrics of a runtime whose end the caller will tell with [`RuntimeEntry::unpin`].
    pub(crate) fn pin(&self, handle: &Handle) {
        self.tokio_id.store(number_of(handle), Relaxed);
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = Some(Facts::of(handle));
        self.pinned.store(true, Release);
    }

    pub(crate) fn unpin(&self) {
        self.pinned.store(false, Release);
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.pinned.load(Acquire)
    }
}

impl Facts {
    fn of(handle: &Handle) -> Self {
        let multi_thread = handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread;
        Self { metrics: handle.metrics(), name: name_of(handle), multi_thread }
    }
}

/// Tokio's number of a runtime; its `Id` shows it only to a hasher.
fn number_of(handle: &Handle) -> u64 {
    crate::capture::hashed(&handle.id())
}

/// The name given to the builder. `Handle::name` is newer than our floor: where it exists, the inherent method shadows
/// the one of this trait.
fn name_of(handle: &Handle) -> Option<String> {
    #[allow(dead_code, reason = "used where tokio has no `Handle::name`")]
    trait NameFallback {
        fn name(&self) -> Option<&str> {
            None
        }
    }
    impl NameFallback for Handle {}
    handle.name().map(str::to_owned)
}

/// The worker that runs on this thread, where tokio can tell (since 1.54).
pub(crate) fn worker_index() -> Option<usize> {
    index::current()
}

mod index {
    #[allow(dead_code, reason = "used where tokio has no `worker_index`")]
    fn worker_index() -> Option<usize> {
        None
    }

    /// A glob of the inner scope shadows the item of the outer one, where the glob has it.
    pub(super) fn current() -> Option<usize> {
        #[allow(unused_imports, reason = "empty of `worker_index` below tokio 1.54")]
        use tokio::runtime::*;
        worker_index()
    }
}

#[cfg(tokio_unstable)]
pub(crate) mod unstable {
    //! What only `tokio_unstable` tells about a runtime.

    use tokio::runtime::RuntimeMetrics;

    pub(crate) const HOOKS: bool = true;

    pub(crate) struct BlockingPool {
        pub(crate) threads: u64,
        pub(crate) idle: u64,
        pub(crate) queued: u64,
    }

    pub(crate) fn blocking_pool(metrics: &RuntimeMetrics) -> Option<BlockingPool> {
        Some(BlockingPool {
            threads: metrics.num_blocking_threads() as u64,
            idle: metrics.num_idle_blocking_threads() as u64,
            queued: metrics.blocking_queue_depth() as u64,
        })
    }

    pub(crate) fn local_queue(metrics: &RuntimeMetrics, worker: usize) -> Option<u64> {
        Some(metrics.worker_local_queue_depth(worker) as u64)
    }
}

#[cfg(not(tokio_unstable))]
pub(crate) mod unstable {
    //! What stands in for it on stable Tokio: nothing is known.

    use tokio::runtime::RuntimeMetrics;

    pub(crate) const HOOKS: bool = false;

    pub(crate) struct BlockingPool {
        pub(crate) threads: u64,
        pub(crate) idle: u64,
        pub(crate) queued: u64,
    }

    pub(crate) fn blocking_pool(_: &RuntimeMetrics) -> Option<BlockingPool> {
        None
    }

    pub(crate) fn local_queue(_: &RuntimeMetrics, _: usize) -> Option<u64> {
        None
    }
}
