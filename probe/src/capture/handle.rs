//! Handles of followed tasks: Tokio's, which also say when a task is asked to stop, and when nobody can await it any more.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use taskscope_proto::ids::TaskId;
use tokio::task::JoinError;

use super::failure::Failure;
use crate::engine;
use crate::registry::slots::{ENDED_WORDS, SlotIndex};

/// Where a task is found in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// No probe runs, or its budget was full.
    Nowhere,
    /// In the slot that the hooks gave it.
    #[cfg_attr(not(tokio_unstable), allow(dead_code, reason = "there are no hooks"))]
    Indexed(TaskId),
    Slot(SlotIndex, TaskId),
}

impl Whereabouts {
    /// Of the task that Tokio's hooks know as `id`.
    #[cfg(tokio_unstable)]
    pub(crate) fn indexed(id: tokio::task::Id) -> Self {
        Self::Indexed(super::task_id(id))
    }

    fn find(self) -> Option<(&'static crate::registry::Registry, SlotIndex, TaskId)> {
        let registry = engine::registry()?;
        match self {
            Self::Nowhere => None,
            Self::Indexed(id) => registry.index.find(id).map(|(index, _)| (registry, index, id)),
            Self::Slot(index, id) => Some((registry, index, id)),
        }
    }

    /// The task is asked to stop.
    pub(crate) fn note_cancel(self, aborted: bool) {
        if let Some((registry, index, id)) = self.find() {
            registry.note_cancel(index, id, aborted);
        }
    }

    pub(super) fn note_detached(self) {
        if let Some((registry, index, id)) = self.find()
            && let Some(slot) = registry.slots.tenant(index, id)
        {
            slot.mark_detached();
        }
    }
}

/// Awaits a followed task, as `tokio::task::JoinHandle` does. Dropping it detaches the task.
///
/// Beside that, an abort is noted with its time, and a detached task that dies is told as one that died silently.
/// [`JoinHandle::into_inner`] gives Tokio's own handle for code that wants that.
pub struct JoinHandle<T> {
    inner: tokio::task::JoinHandle<T>,
    held: Held,
}

/// Notes that the handle went without the task having been awaited.
struct Held {
    whereabouts: Whereabouts,
    /// Of a task that may fail.
    failure: Option<Failure>,
}

impl Held {
    /// It was awaited, or somebody else may do so: what goes now says nothing.
    fn forget(&mut self) {
        self.whereabouts = Whereabouts::Nowhere;
        self.failure = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match &self.failure {
            Some(failure) => match failure.let_go() {
                Some(died) => note_lost(died),
                None => self.whereabouts.note_detached(),
            },
            None => self.whereabouts.note_detached(),
        }
    }
}

/// A task has failed, and now nobody can be told of it any more.
#[cold]
fn note_lost(died: [u64; ENDED_WORDS]) {
    if let Some(registry) = engine::registry() {
        registry.died.push(died);
    }
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(inner: tokio::task::JoinHandle<T>, whereabouts: Whereabouts) -> Self {
        Self { inner, held: Held { whereabouts, failure: None } }
    }

    /// Of a task that tells `failure` when it fails.
    pub(super) fn of_failing(mut self, failure: Option<Failure>) -> Self {
        self.held.failure = failure;
        self
    }

    /// As `tokio::task::JoinHandle::abort`; the request is noted with its time.
    pub fn abort(&self) {
        self.held.whereabouts.note_cancel(true);
        self.inner.abort();
    }

    /// As `tokio::task::JoinHandle::abort_handle`.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle { inner: self.inner.abort_handle(), whereabouts: self.held.whereabouts }
    }

    /// As `tokio::task::JoinHandle::is_finished`.
    pub fn is_finished(&self) -> bool {
        self.inner.is_finished()
    }

    /// As `tokio::task::JoinHandle::id`.
    pub fn id(&self) -> tokio::task::Id {
        self.inner.id()
    }

    /// Tokio's own handle. What is done with it is not seen.
    pub fn into_inner(self) -> tokio::task::JoinHandle<T> {
        let Self { inner, mut held } = self;
        held.forget();
        inner
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.inner).poll(cx);
        if polled.is_ready() {
            self.held.forget();
        }
        polled
    }
}

impl<T> From<JoinHandle<T>> for tokio::task::JoinHandle<T> {
    fn from(handle: JoinHandle<T>) -> Self {
        handle.into_inner()
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("id", &self.id()).finish()
    }
}

/// Aborts a followed task, as `tokio::task::AbortHandle` does; the request is noted with its time.
#[derive(Clone, Debug)]
pub struct AbortHandle {
    inner: tokio::task::AbortHandle,
    whereabouts: Whereabouts,
}

impl AbortHandle {
    pub(super) fn new(inner: tokio::task::AbortHandle, whereabouts: Whereabouts) -> Self {
        Self { inner, whereabouts }
    }

    /// As `tokio::task::AbortHandle::abort`.
    pub fn abort(&self) {
        self.whereabouts.note_cancel(true);
        self.inner.abort();
    }

    /// As `tokio::task::AbortHandle::is_finished`.
    pub fn is_finished(&self) -> bool {
        self.inner.is_finished()
    }

    /// As `tokio::task::AbortHandle::id`.
    pub fn id(&self) -> tokio::task::Id {
        self.inner.id()
    }
}

impl From<AbortHandle> for tokio::task::AbortHandle {
    fn from(handle: AbortHandle) -> Self {
        handle.inner
    }
}
