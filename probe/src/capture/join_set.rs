//! Tokio's `JoinSet` over followed tasks.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use tokio::task::{Id, JoinError};

use super::handle::{AbortHandle, Whereabouts};
use super::wrapper::{self, Said, Spawning};

/// Followed tasks that are awaited together, as `tokio::task::JoinSet`: each has a name, and what [`crate::spawn`] says of
/// tasks holds for it. Dropping the set aborts its tasks; that and [`JoinSet::abort_all`] are noted as requests to stop.
///
/// Cost: beside that of [`crate::spawn`], an entry of a hash map a task, until it is joined.
///
/// ```no_run
/// # #[taskscope_probe::main]
/// # async fn main() {
/// let mut resizes = taskscope_probe::JoinSet::new();
/// for width in [320, 640] {
///     resizes.spawn("resize", async move { width * 2 });
/// }
/// while let Some(resized) = resizes.join_next().await {
///     assert!(resized.unwrap() >= 640);
/// }
/// # }
/// ```
pub struct JoinSet<T> {
    inner: tokio::task::JoinSet<T>,
    /// Of all followed members: where they are found when they are asked to stop, or let go.
    members: HashMap<Id, Whereabouts>,
}

impl<T> JoinSet<T> {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self { inner: tokio::task::JoinSet::new(), members: HashMap::new() }
    }

    /// Tasks in it, ended ones that were not joined included.
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether no task is in it.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// Asks every member to stop, in the books.
    fn note_aborts(&self) {
        self.members.values().for_each(|task| task.note_cancel(true));
    }

    fn hold(&mut self, inner: tokio::task::AbortHandle, whereabouts: Whereabouts) -> AbortHandle {
        if whereabouts != Whereabouts::Nowhere {
            self.members.insert(inner.id(), whereabouts);
        }
        AbortHandle::new(inner, whereabouts)
    }

    /// A result of `inner`, whose task is no member any more.
    fn let_go(&mut self, joined: &Result<(Id, T), JoinError>) {
        let id = joined.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        self.members.remove(&id);
    }
}

impl<T: 'static> JoinSet<T> {
    /// Spawns a task under `name`, as `tokio::task::JoinSet::spawn`.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[track_caller]
    pub fn spawn<F>(&mut self, name: &str, future: F) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
        T: Send,
    {
        let (future, spawning) = Spawning::begin(Said::new(name), future);
        let handle = self.inner.spawn(future);
        let task = spawning.spawned(handle.id());
        self.hold(handle, task)
    }

    /// As `tokio::task::JoinSet::spawn_local`, under `name`; see [`crate::spawn_local`].
    ///
    /// # Panics
    /// Outside of a `LocalSet` and of a `LocalRuntime`.
    #[track_caller]
    pub fn spawn_local<F>(&mut self, name: &str, future: F) -> AbortHandle
    where
        F: Future<Output = T> + 'static,
    {
        let (future, spawning) = Spawning::begin(Said::new(name), future);
        let handle = self.inner.spawn_local(future);
        let task = spawning.spawned(handle.id());
        self.hold(handle, task)
    }

    /// As `tokio::task::JoinSet::spawn_blocking`, under `name`; see [`crate::spawn_blocking`].
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[track_caller]
    pub fn spawn_blocking<F>(&mut self, name: &str, job: F) -> AbortHandle
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send,
    {
        let (job, task) = wrapper::job(Said::new(name), job);
        let handle = self.inner.spawn_blocking(move || job.run());
        self.hold(handle, task)
    }

    /// Waits for one of the tasks to end; `None`: none is in the set. Cancel safe.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        poll_fn(|cx| self.poll_join_next(cx)).await
    }

    /// As [`JoinSet::join_next`], with the task's id.
    pub async fn join_next_with_id(&mut self) -> Option<Result<(Id, T), JoinError>> {
        poll_fn(|cx| self.poll_join_next_with_id(cx)).await
    }

    /// The result of a task that has ended; `None`: none has, or none is in the set.
    pub fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        Some(self.try_join_next_with_id()?.map(|(_, value)| value))
    }

    /// As [`JoinSet::try_join_next`], with the task's id.
    pub fn try_join_next_with_id(&mut self) -> Option<Result<(Id, T), JoinError>> {
        let joined = self.inner.try_join_next_with_id()?;
        self.let_go(&joined);
        Some(joined)
    }

    /// As `tokio::task::JoinSet::poll_join_next`.
    pub fn poll_join_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, JoinError>>> {
        let joined = self.poll_join_next_with_id(cx);
        joined.map(|joined| joined.map(|joined| joined.map(|(_, value)| value)))
    }

    /// As `tokio::task::JoinSet::poll_join_next_with_id`.
    pub fn poll_join_next_with_id(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(Id, T), JoinError>>> {
        let joined = self.inner.poll_join_next_with_id(cx);
        if let Poll::Ready(Some(joined)) = &joined {
            self.let_go(joined);
        }
        joined
    }

    /// Aborts all tasks, which stay in the set until they are joined. Each request is noted with its time.
    pub fn abort_all(&mut self) {
        self.note_aborts();
        self.inner.abort_all();
    }

    /// Aborts all tasks and waits until they have ended.
    pub async fn shutdown(&mut self) {
        self.abort_all();
        while self.join_next().await.is_some() {}
    }

    /// Lets all tasks go on without the set: nobody awaits them any more.
    pub fn detach_all(&mut self) {
        self.members.drain().for_each(|(_, task)| task.note_detached());
        self.inner.detach_all();
    }

    /// Waits for all tasks; their results in the order in which they ended.
    ///
    /// # Panics
    /// If one of them panicked (with its payload) or was aborted; the others are aborted then.
    pub async fn join_all(mut self) -> Vec<T> {
        let mut results = Vec::with_capacity(self.len());
        while let Some(joined) = self.join_next().await {
            match joined {
                Ok(result) => results.push(result),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(error) => panic!("{error}"),
            }
        }
        results
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.note_aborts();
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSet").field("len", &self.len()).finish()
    }
}
