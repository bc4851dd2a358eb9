//! Pools of the application: anything with a capacity that work queues for.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Ticks};

/// The state of a pool, as its closure sees it: what is left out is not known, and is not shown as zero. Fields are added
/// to it over time, so end it with `..Default::default()`.
///
/// A closure is called about once a second, and somewhat more often while somebody watches, on a thread that is there for
/// that. It should read counters and return; what it costs, it costs as often. See [`Probe::pool`](crate::Probe::pool) for
/// what happens to one that blocks or panics.
///
/// Tokio's semaphore (a limit of any kind):
///
/// ```
/// use std::sync::Arc;
/// use taskscope_probe::{PoolSample, Probe};
///
/// fn watch_uploads(probe: Probe, permits: usize) -> Arc<tokio::sync::Semaphore> {
///     let uploads = Arc::new(tokio::sync::Semaphore::new(permits));
///     let pool = Arc::clone(&uploads);
///     probe.pool("uploads", move || {
///         let idle = pool.available_permits() as u64;
///         PoolSample {
///             capacity: Some(permits as u64),
///             busy: Some(permits as u64 - idle),
///             idle: Some(idle),
///             // A semaphore does not tell who waits for it.
///             ..Default::default()
///         }
///     });
///     uploads
/// }
/// # let probe = Probe::builder().name("doc").start();
/// # assert_eq!(watch_uploads(probe, 4).available_permits(), 4);
/// ```
///
/// A bounded channel, full when its consumer does not keep up. A weak sender does not keep the channel open:
///
/// ```
/// use taskscope_probe::{PoolSample, Probe};
/// use tokio::sync::mpsc;
///
/// fn watch_jobs<T: Send + 'static>(probe: Probe, jobs: &mpsc::Sender<T>) {
///     let jobs = jobs.downgrade();
///     probe.pool("jobs", move || {
///         let Some(jobs) = jobs.upgrade() else { return PoolSample::default() };
///         PoolSample {
///             capacity: Some(jobs.max_capacity() as u64),
///             busy: Some((jobs.max_capacity() - jobs.capacity()) as u64),
///             idle: Some(jobs.capacity() as u64),
///             ..Default::default()
///         }
///     });
/// }
/// # let probe = Probe::builder().name("doc").start();
/// # let (jobs, _consumer) = mpsc::channel::<u32>(8);
/// # watch_jobs(probe, &jobs);
/// ```
///
/// `probe/examples/` in the repository has pools of sqlx and deadpool.
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
    /// Waits that were given up, in all since the pool began.
    pub acquire_timeouts: Option<u64>,
}

pub(crate) struct UserPool {
    pub(crate) name: String,
    sample: Box<dyn Fn() -> PoolSample + Send + Sync>,
    /// Held for copying only, by the probe's own threads.
    state: Mutex<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    asked: Option<Asked>,
    said: Option<(Ticks, PoolSample)>,
    panicked: bool,
}

/// The closure is being called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) since: Ticks,
    /// Number of the thread that calls it.
    pub(crate) by: u64,
}

/// What is known of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// `None`: it is not being asked now.
    pub(crate) asked: Option<Asked>,
    /// Its last answer, and when it came.
    pub(crate) said: Option<(Ticks, PoolSample)>,
    /// It is not asked any more.
    pub(crate) panicked: bool,
}

thread_local! {
    /// The pool whose closure this thread is calling.
    static ASKING: RefCell<Option<Arc<UserPool>>> = const { RefCell::new(None) };
}

impl UserPool {
    pub(crate) fn new(name: String, sample: impl Fn() -> PoolSample + Send + Sync + 'static) -> Self {
        Self { name, sample: Box::new(sample), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn known(&self) -> Known {
        let State { asked, said, panicked } = *self.state();
        Known { asked, said, panicked }
    }

    /// Calls the closure, unless another thread is doing that or it has panicked. Returns when the closure does.
    pub(crate) fn ask(self: &Arc<Self>, by: u64, clock: &Clock) {
        {
            let mut state = self.state();
            if state.panicked || state.asked.is_some() {
                return;
            }
            state.asked = Some(Asked { since: clock.now(), by });
        }
        ASKING.set(Some(Arc::clone(self)));
        let sample = crate::capture::panics::run_application_code(&self.sample);
        ASKING.set(None);
        let mut state = self.state();
        state.asked = None;
        match sample {
            Some(sample) => state.said = Some((clock.now(), sample)),
            None => state.panicked = true,
        }
    }
}

/// Notes that the closure which this thread is calling panics. Returns whether it is calling one.
pub(crate) fn note_panic() -> bool {
    ASKING.with_borrow(|asking| {
        if let Some(pool) = asking {
            pool.state().panicked = true;
        }
        asking.is_some()
    })
}

impl PoolSample {
    /// Whether this cannot be.
    pub(crate) fn is_nonsense(&self) -> bool {
        matches!((self.capacity, self.busy), (Some(capacity), Some(busy)) if busy > capacity)
    }
}
