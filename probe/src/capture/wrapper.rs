//! The spawn wrapper: on stable Tokio the only way to see a task, and beside the hooks what adds its name, its wakes and
//! its exact outcome. One allocation a task, at its first poll: the waker that records wakes outlives the poll.

use std::panic::Location;
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
    /// Not at all: no probe runs.
    Not,
    /// Counted in its group without a slot: the budget is full.
    Counted { registry: &'static Registry, group: GroupId },
    /// Not polled yet on a build with hooks: the first poll shows whether its runtime has them.
    Undecided { registry: &'static Registry, name: Sid, at: &'static Location<'static> },
    /// By the hooks' slot.
    ByHooks { task: Tenant, waker: CachedWaker },
    /// By a slot of its own.
    Alone { task: Tenant, waker: CachedWaker },
}

#[derive(Clone, Copy)]
struct Tenant {
    registry: &'static Registry,
    index: SlotIndex,
    id: TaskId,
}

/// Whether `at` is the line below on which wrapped tasks are spawned.
#[cfg(tokio_unstable)]
pub(super) fn is_its_own(at: &Location<'_>) -> bool {
    at.file() == file!()
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
    let at = Location::caller();
    #[cfg(tokio_unstable)]
    if engine::has_hooks() {
        let wrapped = super::hooks::Wrapped { name, spawned_at: at };
        let seen = Seen::Undecided { registry, name, at };
        return super::hooks::wrapping(wrapped, || tokio::spawn(Instrumented { future, seen }));
    }
    let seen = alone(registry, name, TaskKind::Wrapped, at);
    tokio::spawn(Instrumented { future, seen })
}

/// Follows a future that no runtime hook sees, such as the body of `main`.
#[track_caller]
pub(crate) fn instrument<F: Future>(name: &str, kind: TaskKind, future: F) -> Instrumented<F> {
    let at = Location::caller();
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
    let at = Location::caller();
    let Some(registry) = engine::registry() else { return tokio::task::spawn_blocking(job) };
    let seen = alone(registry, intern_name(registry, name), TaskKind::Blocking, at);
    let counted = CountedJob::submit(registry);
    tokio::task::spawn_blocking(move || {
        let _counted = counted.start();
        let running = match (&seen, registry.lines.mine()) {
            (Seen::Alone { task, .. }, Some(line)) => Some(Running::begin(*task, line)),
            _ => None,
        };
        let result = job();
        drop(running);
        if let Seen::Alone { task, .. } = &seen {
            task.set_outcome(Outcome::Completed);
        }
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

/// Past the limit of groups a new name leads nowhere, and is not stored.
fn intern_name(registry: &Registry, name: &str) -> Sid {
    let parts = [name];
    let found = if registry.groups.is_full() {
        registry.texts.find_parts(&parts)
    } else {
        registry.texts.intern_parts(&parts)
    };
    found.unwrap_or_else(|| {
        registry.losses.add(Reason::LostStrings, 1);
        Sid(0)
    })
}

/// A slot for a task that is ready to run from now on.
fn alone(registry: &'static Registry, name: Sid, kind: TaskKind, at: &'static Location<'static>) -> Seen {
    let group = registry.count_spawn(name, at);
    let id = own_id();
    let now = registry.clock.now();
    let flags = Flags::new(kind, engine::current_runtime_id()).with_wakes();
    let Some(index) = registry.slots.claim(id, now, group, flags) else {
        registry.losses.add(Reason::EvictedTasks, 1);
        return Seen::Counted { registry, group };
    };
    registry.totals.followed.fetch_add(1, Relaxed);
    if kind == TaskKind::Wrapped {
        registry.totals.wrapped_alone.fetch_add(1, Relaxed);
    }
    registry.slots.slot(index).wake(now, id);
    Seen::Alone { task: Tenant { registry, index, id }, waker: CachedWaker::default() }
}

impl Tenant {
    /// The future goes without having been told to be complete: it panicked, or it was dropped.
    fn set_dropped(&self) {
        let Some(slot) = self.registry.slots.tenant(self.index, self.id) else { return };
        if slot.flags().outcome() == Outcome::Unspecified {
            // A task that was never polled did not panic, whatever unwinds around it.
            let panicked = std::thread::panicking() && (slot.polls() > 0 || self.is_polled_here());
            slot.set_flags(slot.flags().with_outcome(if panicked {
                Outcome::Panicked
            } else {
                Outcome::Cancelled
            }));
        }
    }

    fn is_polled_here(&self) -> bool {
        self.registry.lines.mine().and_then(Line::open).is_some_and(|open| open.id == self.id)
    }

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

/// The bracket of one poll of a task that the hooks do not see. Closed on unwinding, too.
struct Running {
    registry: &'static Registry,
    line: &'static Line,
}

impl Running {
    fn begin(task: Tenant, line: &'static Line) -> Self {
        task.answer_wake();
        engine::adopt_current_runtime(line);
        if task.registry.slots.slot(task.index).flags().kind() != TaskKind::Blocking {
            line.mark_polls();
        }
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
        if let Seen::Undecided { .. } = this.seen {
            this.seen.decide();
        }
        let (task, waker, _running) = match this.seen {
            Seen::Not | Seen::Counted { .. } | Seen::Undecided { .. } => return this.future.poll(cx),
            Seen::ByHooks { task, waker } => {
                task.answer_wake();
                (*task, waker, None)
            }
            Seen::Alone { task, waker } => {
                (*task, waker, task.registry.lines.mine().map(|line| Running::begin(*task, line)))
            }
        };
        let polled = this.future.as_mut().poll(&mut Context::from_waker(waker.wrapping(task, cx.waker())));
        if polled.is_ready() {
            task.set_outcome(Outcome::Completed);
        }
        polled
    }
}

impl Seen {
    /// At the first poll: by the hooks, if their bracket is open around it; else alone.
    fn decide(&mut self) {
        let Self::Undecided { registry, name, at } = *self else { return };
        let decided = match bracket_of_this_task(registry) {
            Some((Some(index), id)) => {
                Self::ByHooks { task: Tenant { registry, index, id }, waker: CachedWaker::default() }
            }
            // The hooks have counted its spawn, and leave its end to us.
            Some((None, _)) => {
                let site = registry.groups.site(at, &registry.texts).unwrap_or_default();
                Self::Counted { registry, group: registry.groups.find(name, site).unwrap_or_default() }
            }
            None => alone(registry, name, TaskKind::Wrapped, at),
        };
        // Not dropped: that would say that the task goes before its first poll.
        std::mem::forget(std::mem::replace(self, decided));
    }
}

/// The hooks' bracket, if it is open around the task that Tokio says is running here.
fn bracket_of_this_task(registry: &Registry) -> Option<(Option<SlotIndex>, TaskId)> {
    let id = tokio::task::try_id().map(task_id)?;
    let open = registry.lines.mine()?.open().filter(|open| open.id == id)?;
    Some((open.slot, id))
}

impl Drop for Seen {
    fn drop(&mut self) {
        match self {
            Self::Not => {}
            // Dropped before its first poll: in the bracket of an abort the hooks' slot can be told so.
            Self::Undecided { registry, .. } => {
                if let Some((Some(index), id)) = bracket_of_this_task(registry) {
                    Tenant { registry, index, id }.set_dropped();
                }
            }
            Self::Counted { registry, group } => registry.count_end(*group, std::thread::panicking()),
            // The hooks free the slot; only they do not know how it ended.
            Self::ByHooks { task, .. } => task.set_dropped(),
            Self::Alone { task, .. } => {
                task.set_dropped();
                task.registry.free(task.index, task.id, task.registry.clock.now());
            }
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
