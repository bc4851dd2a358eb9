//! What a spawner says of a task, and the ways to spawn it.

use std::fmt::Display;

use taskscope_proto::ids::Sid;
use taskscope_proto::v1::TaskClass;

use super::handle::{AbortHandle, JoinHandle};
use super::reason;
use super::wrapper::{self, Instrumented, Said, Spawning};
use crate::engine;

/// What a task is for. It says how a slow poll of it is to be judged, and in which order a service is to be stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Takes work in: listeners, acceptors, consumers.
    Ingress,
    /// Does the work of one request or job.
    Work,
    /// Runs as long as the process.
    Daemon,
    /// Must not be cut short.
    Critical,
}

impl From<Class> for TaskClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Ingress => Self::Ingress,
            Class::Work => Self::Work,
            Class::Daemon => Self::Daemon,
            Class::Critical => Self::Critical,
        }
    }
}

/// A task that is about to be spawned; made by [`crate::task`].
///
/// ```no_run
/// # #[taskscope_probe::main]
/// # async fn main() {
/// use taskscope_probe::{Class, task};
/// let sync = task("ledger-sync").class(Class::Critical).field("tenant", 42).spawn(async { 7 });
/// assert_eq!(sync.await.unwrap(), 7);
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is spawned before one of its methods is called"]
pub struct Task {
    said: Said,
    fields: String,
    #[cfg(feature = "tokio-util")]
    token: Option<tokio_util::sync::CancellationToken>,
}

impl Task {
    #[track_caller]
    pub(crate) fn new(name: &str) -> Self {
        Self {
            said: Said::new(name),
            fields: String::new(),
            #[cfg(feature = "tokio-util")]
            token: None,
        }
    }

    /// What it is for.
    pub fn class(mut self, class: Class) -> Self {
        self.said.class = class.into();
        self
    }

    /// Adds a `key=value` pair to its row. Texts are kept for as long as the process runs: use values that repeat, no
    /// request ids. All pairs of a task together are cut at 255 bytes.
    pub fn field(mut self, key: &str, value: impl Display) -> Self {
        if engine::registry().is_some() {
            let gap = if self.fields.is_empty() { "" } else { " " };
            self.fields.push_str(&format!("{gap}{key}={value}"));
        }
        self
    }

    fn said(&self) -> Said {
        match engine::registry() {
            Some(registry) if !self.fields.is_empty() => {
                let fields = reason::intern_clean(registry, &[&self.fields]).unwrap_or(Sid(0));
                Said { fields, ..self.said }
            }
            _ => self.said,
        }
    }

    /// `future`, which tells when the token of the task is cancelled.
    #[cfg(feature = "tokio-util")]
    fn watching<F: Future>(self, future: F) -> super::token::Told<F> {
        super::token::Told::new(future, self.token)
    }

    #[cfg(not(feature = "tokio-util"))]
    fn watching<F: Future>(self, future: F) -> F {
        future
    }

    /// As [`crate::spawn`].
    #[track_caller]
    pub fn spawn<F>(self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let said = self.said();
        let (future, spawning) = Spawning::begin(said, self.watching(future));
        spawning.handle(tokio::spawn(future))
    }

    /// As [`crate::spawn_try`].
    #[track_caller]
    pub fn spawn_try<F, T, E>(self, future: F) -> JoinHandle<Result<T, E>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Display + Send + 'static,
    {
        let said = self.said();
        let (future, failure) = wrapper::tried(future);
        let (future, spawning) = Spawning::begin(said, self.watching(future));
        spawning.handle(tokio::spawn(future)).of_failing(failure)
    }

    /// As `tokio::spawn` on the runtime of `handle`.
    #[track_caller]
    pub fn spawn_on<F>(self, future: F, handle: &tokio::runtime::Handle) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let said = self.said();
        let (future, spawning) = Spawning::begin(said, self.watching(future));
        spawning.handle(handle.spawn(future))
    }

    /// As [`crate::spawn_local`].
    #[track_caller]
    pub fn spawn_local<F>(self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let said = self.said();
        let (future, spawning) = Spawning::begin(said, self.watching(future));
        spawning.handle(tokio::task::spawn_local(future))
    }

    /// As [`crate::spawn_blocking`].
    #[track_caller]
    pub fn spawn_blocking<F, T>(self, job: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (job, whereabouts) = wrapper::job(self.said(), job);
        JoinHandle::new(tokio::task::spawn_blocking(move || job.run()), whereabouts)
    }

    /// As [`crate::spawn_detached`].
    #[track_caller]
    pub fn spawn_detached<F>(mut self, future: F) -> AbortHandle
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.said.detached = true;
        self.spawn(future).abort_handle()
    }

    /// As [`InstrumentTask::instrument_task`].
    pub fn instrument<F: Future>(self, future: F) -> Instrumented<F> {
        wrapper::instrument(self.said(), future)
    }

    /// Tells when `token` is cancelled, so that a task that was told to stop and lives on is known, with what it did since.
    /// It is for the future to act on the token; this only watches it.
    ///
    /// Cost: one registration with the token at the first poll.
    #[cfg(feature = "tokio-util")]
    pub fn cancelled_by(mut self, token: &tokio_util::sync::CancellationToken) -> Self {
        self.token = Some(token.clone());
        self
    }
}

/// Follows futures that are spawned by other means: on a `LocalSet`, by actix-web, by a library that spawns for you.
pub trait InstrumentTask: Future + Sized {
    /// Follows the future under `name`, as [`crate::spawn`] does, wherever it is spawned.
    ///
    /// It should be the whole of the task: its end is taken for the task's. On a runtime with the probe's hooks the first
    /// such future that is polled inside a task names that task, and others in it are not told apart; elsewhere each has
    /// a row of its own.
    ///
    /// ```no_run
    /// # #[taskscope_probe::main]
    /// # async fn main() {
    /// use taskscope_probe::InstrumentTask;
    /// tokio::spawn(async { 42 }.instrument_task("answer"));
    /// # }
    /// ```
    #[track_caller]
    fn instrument_task(self, name: &str) -> Instrumented<Self> {
        Task::new(name).instrument(self)
    }
}

impl<F: Future> InstrumentTask for F {}
