//! The spawn wrapper: on stable Tokio the only way to see a task, and beside the hooks what adds its name, its wakes and
//! its exact outcome. One allocation a task, at its first poll: the waker that records wakes outlives the poll.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use pin_project_lite::pin_project;
use taskscope_proto::ids::{GroupId, Sid, TaskId};
use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::{Outcome, TaskKind};

use super::task_id;
use crate::engine;
use crate::registry::Registry;
use crate::registry::lines::Line;
use crate::registry::slots::{Flags, SlotIndex, has_tag};

/// Ids for what Tokio gives none.
static NEXT_OWN: AtomicU64 = AtomicU64::new(1);

fn own_id() -> TaskId {
    TaskId(TaskId::OWN | NEXT_OWN.fetch_add(1, Relaxed))
}

pin_project! {
    /// A future whose polls, wakes and outcome are recorded.
    pub(crate) struct Instrumented<F> {
        #[pin]
        future: F,
        seen: Seen,
    }
}

/// How a wrapped future is followed.
enum Seen {
    /// Not at all: no probe runs, or its budget is full.
    Not,
    /// By the hooks' slot, from the first poll on.
    ByHooks { task: Option<Tenant>, waker: CachedWaker },
    /// By a slot of its own.
    Alone { task: Tenant, waker: CachedWaker },
}

#[derive(Clone, Copy)]
struct Tenant {
    registry: &'static Registry,
    index: SlotIndex,
    id: TaskId,
}

/// Spawns on the current runtime, as `tokio::spawn` does, and follows the task under `name`.
#[track_caller]
pub(crate) fn spawn<F>(name: &str, future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let Some(registry) = engine::registry() else { return tokio::spawn(future) };
    let name = intern_name(registry, name);
    let spawned_at = std::panic::Location::caller();
    #[cfg(tokio_unstable)]
    if engine::hooks_are_installed() {
        let by_hooks = Seen::ByHooks { task: None, waker: CachedWaker::default() };
        let wrapped = super::hooks::Wrapped { name, spawned_at };
        return super::hooks::wrapping(wrapped, || tokio::spawn(Instrumented { future, seen: by_hooks }));
    }
    let seen = alone(registry, name, TaskKind::Wrapped, spawned_at);
    tokio::spawn(Instrumented { future, seen })
}

/// Follows a future that no runtime hook sees, such as the body of `main`.
#[track_caller]
pub(crate) fn instrument<F: Future>(name: &str, kind: TaskKind, future: F) -> Instrumented<F> {
    let at = std::panic::Location::caller();
    let seen = engine::registry()
        .map_or(Seen::Not, |registry| alone(registry, intern_name(registry, name), kind, at));
    Instrumented { future, seen }
}

/// As `tokio::task::spawn_blocking`; the job has a row from its submission to its end.
#[track_caller]
pub(crate) fn spawn_blocking<F, T>(name: &str, job: F) -> tokio::task::JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let at = std::panic::Location::caller();
    let tenant = engine::registry()
        .and_then(|registry| claim(registry, own_id(), intern_name(registry, name), TaskKind::Blocking, at));
    let owned = tenant.map(Owned);
    let counted = engine::registry().map(CountedJob::submit);
    tokio::task::spawn_blocking(move || {
        let _counted = counted.map(CountedJob::start);
        let Some(owned) = owned else { return job() };
        let running = owned.0.registry.lines.mine().map(|line| Running::begin(owned.0, line));
        let result = job();
        drop(running);
        owned.0.set_outcome(Outcome::Completed);
        result
    })
}

/// Counts a blocking job, whichever way it goes.
struct CountedJob {
    registry: &'static Registry,
    started: bool,
}

impl CountedJob {
    fn submit(registry: &'static Registry) -> Self {
        registry.totals.jobs_submitted.fetch_add(1, Relaxed);
        Self { registry, started: false }
    }

    fn start(mut self) -> Self {
        self.started = true;
        self.registry.totals.jobs_started.fetch_add(1, Relaxed);
        self
    }
}

impl Drop for CountedJob {
    fn drop(&mut self) {
        let totals = &self.registry.totals;
        if !self.started {
            totals.jobs_started.fetch_add(1, Relaxed);
        }
        totals.jobs_finished.fetch_add(1, Relaxed);
    }
}

fn intern_name(registry: &Registry, name: &str) -> Sid {
    registry.texts.intern(name).unwrap_or_else(|| {
        registry.losses.add(Reason::LostStrings, 1);
        Sid(0)
    })
}

fn alone(
    registry: &'static Registry,
    name: Sid,
    kind: TaskKind,
    at: &'static std::panic::Location<'static>,
) -> Seen {
    match claim(registry, own_id(), name, kind, at) {
        Some(task) => Seen::Alone { task, waker: CachedWaker::default() },
        None => Seen::Not,
    }
}

/// A slot for a task that is ready to run from now on.
fn claim(
    registry: &'static Registry,
    id: TaskId,
    name: Sid,
    kind: TaskKind,
    at: &'static std::panic::Location<'static>,
) -> Option<Tenant> {
    registry.totals.spawned.fetch_add(1, Relaxed);
    let site = registry.groups.site(at, &registry.texts).unwrap_or_default();
    let group = registry.groups.find(name, site).unwrap_or_else(|| {
        registry.losses.add(Reason::FoldedGroups, 1);
        GroupId(0)
    });
    registry.groups.entry(group).add_spawned();
    let now = registry.clock.now();
    let flags = Flags::new(kind, engine::current_runtime_id()).with_wakes();
    let Some(index) = registry.slots.claim(id, now, group, flags) else {
        registry.losses.add(Reason::EvictedTasks, 1);
        return None;
    };
    registry.slots.slot(index).wake(now, id);
    Some(Tenant { registry, index, id })
}

impl Tenant {
    fn set_outcome(&self, outcome: Outcome) {
        if let Some(slot) = self.registry.slots.tenant(self.index, self.id) {
            slot.set_flags(slot.flags().with_outcome(outcome));
        }
    }

    /// Adds the time between the wake that this poll answers and now.
    fn answer_wake(&self) {
        if let Some(slot) = self.registry.slots.tenant(self.index, self.id) {
            let woken = slot.take_wake();
            if has_tag(woken, self.id) {
                slot.add_scheduled(self.registry.clock.between(woken, self.registry.clock.now()));
            }
        }
    }
}

/// Frees its slot when it goes, whichever way.
struct Owned(Tenant);

impl Drop for Owned {
    fn drop(&mut self) {
        let Tenant { registry, index, id } = self.0;
        if let Some(slot) = registry.slots.tenant(index, id)
            && slot.flags().outcome() == Outcome::Unspecified
        {
            self.0.set_outcome(if std::thread::panicking() { Outcome::Panicked } else { Outcome::Cancelled });
        }
        registry.free(index, id, registry.clock.now());
    }
}

/// The bracket of one poll of a task that the hooks do not see. Closed on unwinding, too.
struct Running {
    registry: &'static Registry,
    line: &'static Line,
}

impl Running {
    fn begin(task: Tenant, line: &'static Line) -> Self {
        task.answer_wake();
        engine::adopt_current_runtime(line);
        task.registry.begin_poll(line, task.id, Some(task.index));
        Self { registry: task.registry, line }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.registry.end_poll(self.line);
    }
}

impl<F: Future> Future for Instrumented<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        match this.seen {
            Seen::Not => this.future.poll(cx),
            Seen::ByHooks { task, waker } => {
                if task.is_none() {
                    *task = polled_now();
                }
                let Some(task) = *task else { return this.future.poll(cx) };
                task.answer_wake();
                let polled =
                    this.future.as_mut().poll(&mut Context::from_waker(waker.wrapping(task, cx.waker())));
                if polled.is_ready() {
                    task.set_outcome(Outcome::Completed);
                }
                polled
            }
            Seen::Alone { task, waker } => {
                let task = *task;
                let Some(line) = task.registry.lines.mine() else { return this.future.poll(cx) };
                let _running = Running::begin(task, line);
                let polled =
                    this.future.as_mut().poll(&mut Context::from_waker(waker.wrapping(task, cx.waker())));
                if polled.is_ready() {
                    task.set_outcome(Outcome::Completed);
                }
                polled
            }
        }
    }
}

/// The followed task that the hooks say is being polled on this thread, if it is the one that Tokio names.
fn polled_now() -> Option<Tenant> {
    let registry = engine::registry()?;
    let open = registry.lines.mine()?.open()?;
    let id = task_id(tokio::task::try_id()?);
    (open.id == id).then_some(Tenant { registry, index: open.slot?, id })
}

impl Drop for Seen {
    fn drop(&mut self) {
        match self {
            Self::Not | Self::ByHooks { task: None, .. } => {}
            // The hooks free the slot; only they do not know how it ended.
            Self::ByHooks { task: Some(task), .. } => {
                let outcome =
                    task.registry.slots.tenant(task.index, task.id).map(|slot| slot.flags().outcome());
                if outcome == Some(Outcome::Unspecified) {
                    let panicking = std::thread::panicking();
                    task.set_outcome(if panicking { Outcome::Panicked } else { Outcome::Cancelled });
                }
            }
            Self::Alone { task, .. } => drop(Owned(*task)),
        }
    }
}

/// The recording waker of a task, made again only when the inner one differs, so that `will_wake` stays true.
#[derive(Default)]
struct CachedWaker(Option<(Arc<Recording>, Waker)>);

impl CachedWaker {
    fn wrapping(&mut self, task: Tenant, inner: &Waker) -> &Waker {
        let fits = self.0.as_ref().is_some_and(|(recording, _)| recording.inner.will_wake(inner));
        if !fits {
            self.0 = None;
        }
        &self
            .0
            .get_or_insert_with(|| {
                let recording = Arc::new(Recording { inner: inner.clone(), task });
                (Arc::clone(&recording), Waker::from(recording))
            })
            .1
    }
}

struct Recording {
    inner: Waker,
    task: Tenant,
}

impl Wake for Recording {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let Tenant { registry, index, id } = self.task;
        // A waker may outlive its task: the slot is then another's, and the wake carries our id's tag, which no reader
        // of the other takes for its own.
        if let Some(slot) = registry.slots.tenant(index, id) {
            slot.wake(registry.clock.now(), id);
        }
        self.inner.wake_by_ref();
    }
}
