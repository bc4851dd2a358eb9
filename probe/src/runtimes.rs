//! The runtimes that the probe knows.
//!
//! A kept `RuntimeMetrics` keeps a runtime's drivers, and our own hook closures, alive. So the probe's thread asks for it
//! when it sees a runtime at work, a bracket of the runtime leaves it, and it is let go when no task is left and nothing
//! happens any more; the next bracket after that leaves it again. Only a runtime whose life the probe knows (the
//! attribute's) keeps it until the end.

use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::{Handle, RuntimeMetrics};

use crate::registry::sharded::Sharded;

#[derive(Debug)]
pub(crate) struct RuntimeEntry {
    /// Never 0.
    pub(crate) id: u32,
    /// Whether the task hooks were put on it.
    hooked: bool,
    /// Limit of its blocking pool, where it is known: told, or learnt when the pool was first seen full; 0: not known.
    pub(crate) blocking_capacity: AtomicU32,
    /// Whether that limit was told; it is then not learnt.
    pub(crate) capacity_is_told: bool,
    /// Tokio's own id of it, once a thread of it was seen; 0: not yet.
    tokio_id: AtomicU64,
    /// What a hook has to mind beside its work, see the bits of [`mind`]. Hooks read it at each poll.
    mind: AtomicU8,
    /// A callback of ours has fired on it.
    pub(crate) seen_at_work: AtomicBool,
    /// No hook holds the entry, so that its end cannot be told: it stays.
    pub(crate) stays: AtomicBool,
    /// The metrics stay while this is set.
    pinned: AtomicBool,
    facts: Mutex<Option<Facts>>,
    /// Tasks with a row.
    pub(crate) followed: Sharded,
    /// Ends of tasks that were never spawned here: closures of the blocking pool, and workers.
    pub(crate) foreign_ended: AtomicU64,
}

mod mind {
    //! Bits of [`super::RuntimeEntry::mind`].

    /// The next bracket should leave the metrics.
    pub(super) const METRICS: u8 = 1;
    /// A hook of ours fired although another one is gone.
    pub(super) const NOTICED: u8 = 1 << 1;
    /// The first of four: this hook of ours is gone. All of them are once the runtime has ended.
    pub(super) const GONE: u8 = 1 << 4;
    pub(super) const ANY_GONE: u8 = 0xF0;
}

/// One of Tokio's task hooks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hook {
    Spawn,
    BeforePoll,
    AfterPoll,
    Terminate,
}

impl Hook {
    const ALL: [Self; 4] = [Self::Spawn, Self::BeforePoll, Self::AfterPoll, Self::Terminate];

    /// The method of Tokio's builder, and of ours.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Spawn => "on_task_spawn",
            Self::BeforePoll => "on_before_task_poll",
            Self::AfterPoll => "on_after_task_poll",
            Self::Terminate => "on_task_terminate",
        }
    }

    fn gone(self) -> u8 {
        mind::GONE << self as u8
    }
}

/// Our end of a hook: it is dropped when another call replaces the hook, and when its runtime has ended.
///
/// A bracket needs all four hooks: an end without a begin, a begin without an end, a row without an end would be told as
/// facts. So where one is gone, the others do nothing, and the runtime is seen as one without hooks.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) runtime: Arc<RuntimeEntry>,
    hook: Hook,
}

impl Held {
    pub(crate) fn new(runtime: &Arc<RuntimeEntry>, hook: Hook) -> Self {
        Self { runtime: Arc::clone(runtime), hook }
    }

    /// As [`RuntimeEntry::is_whole`].
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        self.runtime.is_whole()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.runtime.mind.fetch_or(self.hook.gone(), Relaxed);
    }
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
            hooked: has_hooks,
            blocking_capacity: AtomicU32::new(blocking_capacity),
            capacity_is_told: blocking_capacity != 0,
            tokio_id: AtomicU64::new(0),
            mind: AtomicU8::new(0),
            seen_at_work: AtomicBool::new(false),
            stays: AtomicBool::new(false),
            pinned: AtomicBool::new(false),
            facts: Mutex::new(None),
            followed: Sharded::default(),
            foreign_ended: AtomicU64::new(0),
        }
    }

    /// Whether no hook of ours is gone. One relaxed load.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        self.mind.load(Relaxed) & mind::ANY_GONE == 0
    }

    /// A hook of ours fired although another one is gone: a runtime that ends fires none.
    pub(crate) fn notice_lost_hooks(&self) {
        if self.mind.load(Relaxed) & mind::NOTICED == 0 {
            self.mind.fetch_or(mind::NOTICED, Relaxed);
        }
    }

    /// The hooks that another call replaced after they were put on; empty where all are at work, or none was put on.
    pub(crate) fn lost_hooks(&self) -> Vec<Hook> {
        let mind = self.mind.load(Relaxed);
        if mind & mind::NOTICED == 0 {
            return Vec::new();
        }
        Hook::ALL.into_iter().filter(|hook| mind & hook.gone() != 0).collect()
    }

    /// Whether the task hooks are on it, all of them.
    pub(crate) fn has_hooks(&self) -> bool {
        self.hooked && self.lost_hooks().is_empty()
    }

    /// Called on a thread of the runtime, in a bracket. One relaxed load unless the metrics are wanted; never waits.
    #[inline]
    pub(crate) fn offer_metrics(&self) {
        if self.mind.load(Relaxed) & mind::METRICS != 0 {
            self.leave_metrics();
        }
    }

    #[cold]
    fn leave_metrics(&self) {
        let Ok(handle) = Handle::try_current() else { return };
        // Where the lock is taken, the next bracket tries again.
        let Ok(mut facts) = self.facts.try_lock() else { return };
        self.mind.fetch_and(!mind::METRICS, Release);
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
        self.mind.fetch_and(!mind::METRICS, Release);
    }

    /// Whether its threads are to look it up anew, so that one of them leaves the metrics.
    pub(crate) fn wants_metrics(&self) -> bool {
        self.mind.load(Relaxed) & mind::METRICS != 0
    }

    /// Asks the next bracket for the metrics. For the probe's thread.
    pub(crate) fn want_metrics(&self) {
        self.mind.fetch_or(mind::METRICS, Release);
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
