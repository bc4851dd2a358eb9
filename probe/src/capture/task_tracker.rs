//! tokio-util's `TaskTracker` over followed tasks.

use tokio_util::task::task_tracker::{TaskTrackerWaitFuture, TrackedFuture};

use super::handle::JoinHandle;
use super::wrapper::{self, Said, Spawning};

/// Followed tasks that are waited for together, as `tokio_util::task::TaskTracker`: each has a name, and what
/// [`crate::spawn`] says of tasks holds for it. Needs the feature `tokio-util`.
///
/// ```no_run
/// # #[taskscope_probe::main]
/// # async fn main() {
/// let sessions = taskscope_probe::TaskTracker::new();
/// for client in 0..3 {
///     sessions.spawn("session", async move { client });
/// }
/// sessions.close();
/// sessions.wait().await;
/// assert!(sessions.is_empty());
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct TaskTracker {
    inner: tokio_util::task::TaskTracker,
}

impl TaskTracker {
    /// An open tracker without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns a task under `name`, as `tokio_util::task::TaskTracker::spawn`.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[track_caller]
    pub fn spawn<F>(&self, name: &str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (future, spawning) = Spawning::begin(Said::new(name), self.track_future(future));
        spawning.handle(tokio::spawn(future))
    }

    /// As `tokio_util::task::TaskTracker::spawn_local`, under `name`; see [`crate::spawn_local`].
    ///
    /// # Panics
    /// Outside of a `LocalSet` and of a `LocalRuntime`.
    #[track_caller]
    pub fn spawn_local<F>(&self, name: &str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let (future, spawning) = Spawning::begin(Said::new(name), self.track_future(future));
        spawning.handle(tokio::task::spawn_local(future))
    }

    /// As `tokio_util::task::TaskTracker::spawn_blocking`, under `name`; see [`crate::spawn_blocking`].
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[track_caller]
    pub fn spawn_blocking<F, T>(&self, name: &str, job: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // It counts until the job has been dropped, as tokio-util's does.
        let (job, whereabouts) = wrapper::job(Said::new(name), job);
        JoinHandle::new(self.inner.spawn_blocking(move || job.run()), whereabouts)
    }

    /// As `tokio_util::task::TaskTracker::track_future`. Spawns nothing, and does not follow the future: for that see
    /// [`crate::InstrumentTask`].
    pub fn track_future<F: Future>(&self, future: F) -> TrackedFuture<F> {
        self.inner.track_future(future)
    }

    /// As `tokio_util::task::TaskTracker::close`: from now on [`TaskTracker::wait`] ends when no task is left. True: it
    /// was open.
    pub fn close(&self) -> bool {
        self.inner.close()
    }

    /// As `tokio_util::task::TaskTracker::reopen`. True: it was closed.
    pub fn reopen(&self) -> bool {
        self.inner.reopen()
    }

    /// Whether it is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Waits until it is closed and has no task.
    pub fn wait(&self) -> TaskTrackerWaitFuture<'_> {
        self.inner.wait()
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether there is no such task.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }
}
