//! The spawn wrapper: on stable Tokio the only way to see a task, and beside the hooks what adds its name, its wakes and
//! its exact outcome. One allocation a task, at its first poll: the waker that records wakes outlives the poll.

use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use taskscope_proto::ids::{GroupId, Sid, TaskId};
use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::{Outcome, TaskClass, TaskKind};

use super::handle::{JoinHandle, Whereabouts};
use super::waker::Recording;
use super::{reason, task_id};
use crate::engine;
use crate::registry::Registry;
use crate::registry::groups::NO_GROUPS_NAME;
use crate::registry::lines::Line;
use crate::registry::slots::{Flags, SlotIndex, Tenancy};

/// Ids for what Tokio gives none.
static NEXT_OWN: AtomicU64 = AtomicU64::new(1);

fn own_id() -> TaskId {
    TaskId(TaskId::OWN | NEXT_OWN.fetch_add(1, Relaxed))
}

/// What the spawner said of a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) name: Sid,
    pub(crate) class: TaskClass,
    pub(crate) fields: Sid,
    pub(crate) at: &'static Location<'static>,
}

impl Said {
    #[track_caller]
    pub(crate) fn new(name: &str) -> Self {
        let name = engine::registry().map_or(Sid(0), |registry| intern_name(registry, name));
        Self { name, class: TaskClass::Unspecified, fields: Sid(0), at: Location::caller() }
    }
}

pin_project! {
    /// A future whose polls, wakes and outcome are recorded; made by [`crate::InstrumentTask`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Instrumented<F> {
        #[pin]
        future: F,
        seen: Seen,
    }
}

/// How a wrapped future is followed.
#[derive(Debug)]
enum Seen {
    /// Not at all: no probe runs, or the task has its row by another future.
    Not,
    /// Counted in its group without a slot: the budget is full.
    Counted(GroupId),
    /// Not polled yet on a build with hooks: the first poll shows whether its runtime has them.
    Undecided(Said),
    Followed(Followed),
}

#[derive(Debug)]
struct Followed {
    id: TaskId,
    slot: SlotIndex,
    /// No hook sees it: its brackets and its end are told here.
    alone: bool,
    /// Made at the first poll, and again where the waker of the runtime is another one.
    recording: Option<Arc<Recording>>,
}

/// Spawns what `spawn` is given, and follows it as `said`.
pub(super) fn spawn<F: Future>(
    said: Said,
    future: F,
    spawn: impl FnOnce(Instrumented<F>) -> tokio::task::JoinHandle<F::Output>,
) -> JoinHandle<F::Output> {
    let Some(registry) = engine::registry() else {
        return JoinHandle::new(spawn(Instrumented { future, seen: Seen::Not }), Whereabouts::Nowhere);
    };
    #[cfg(tokio_unstable)]
    if engine::has_hooks() {
        let instrumented = Instrumented { future, seen: Seen::Undecided(said) };
        let handle = super::hooks::wrapping(said, || spawn(instrumented));
        let whereabouts = Whereabouts::indexed(handle.id());
        return JoinHandle::new(handle, whereabouts);
    }
    let seen = alone(registry, said, TaskKind::Wrapped);
    let whereabouts = seen.whereabouts();
    JoinHandle::new(spawn(Instrumented { future, seen }), whereabouts)
}

/// Follows a future wherever it is spawned, or polled.
pub(super) fn instrument<F: Future>(said: Said, future: F) -> Instrumented<F> {
    #[cfg(tokio_unstable)]
    if engine::has_hooks() {
        return Instrumented { future, seen: Seen::Undecided(said) };
    }
    instrument_alone(said, TaskKind::Wrapped, future)
}

/// Follows a future that no runtime hook sees, such as the body of `main`.
pub(crate) fn instrument_alone<F: Future>(said: Said, kind: TaskKind, future: F) -> Instrumented<F> {
    let seen = engine::registry().map_or(Seen::Not, |registry| alone(registry, said, kind));
    Instrumented { future, seen }
}

/// As `tokio::task::spawn_blocking`; the job has a row from its submission to its end.
pub(super) fn spawn_blocking<F, T>(said: Said, job: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let Some(registry) = engine::registry() else {
        return JoinHandle::new(tokio::task::spawn_blocking(job), Whereabouts::Nowhere);
    };
    let seen = alone(registry, said, TaskKind::Blocking);
    let whereabouts = seen.whereabouts();
    let counted = CountedJob::submit(registry);
    let handle = tokio::task::spawn_blocking(move || {
        let _counted = counted.start();
        let running = match &seen {
            Seen::Followed(task) => {
                task.note_wait(registry);
                line_of_poll(registry).map(|line| Running::begin(registry, task, line))
            }
            _ => None,
        };
        let result = job();
        drop(running);
        if let Seen::Followed(task) = &seen {
            task.set_outcome(registry, Outcome::Completed);
        }
        result
    });
    JoinHandle::new(handle, whereabouts)
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

/// Past the limit of groups a new name leads nowhere, and is not stored: its tasks are counted as folded.
fn intern_name(registry: &Registry, name: &str) -> Sid {
    if registry.groups.is_full() {
        return reason::find_clean(registry, &[name]).unwrap_or(NO_GROUPS_NAME);
    }
    reason::intern_clean(registry, &[name]).unwrap_or(Sid(0))
}

/// This thread's line, for a poll: without one the poll is counted as not seen.
fn line_of_poll(registry: &Registry) -> Option<&'static Line> {
    let line = registry.my_line();
    if line.is_none() {
        registry.losses.add(Reason::UnlinedThreads, 1);
    }
    line
}

/// A slot for a task that is ready to run from now on.
fn alone(registry: &'static Registry, said: Said, kind: TaskKind) -> Seen {
    let group = registry.count_spawn(said.name, said.at);
    let id = own_id();
    let spawned = registry.clock.now();
    let flags = Flags::new(kind, engine::current_runtime_id()).with_wakes().with_class(said.class);
    let Some(slot) = registry.slots.claim(Tenancy { id, spawned, group, flags, fields: said.fields }) else {
        registry.losses.add(Reason::EvictedTasks, 1);
        return Seen::Counted(group);
    };
    registry.totals.followed.add(registry.my_line());
    if kind == TaskKind::Wrapped {
        registry.totals.wrapped_alone.fetch_add(1, Relaxed);
    }
    if let Some(wakes) = registry.slots.wakes(slot, id) {
        wakes.ready(spawned, id);
    }
    Seen::Followed(Followed { id, slot, alone: true, recording: None })
}

impl Followed {
    /// The future goes without having been told to be complete: it panicked, or it was dropped.
    fn set_dropped(&self, registry: &'static Registry) {
        let Some(slot) = registry.slots.tenant(self.slot, self.id) else { return };
        // A task that was never polled did not panic, whatever unwinds around it.
        let outcome = if std::thread::panicking() && slot.polls() > 0 {
            Outcome::Panicked
        } else if slot.flags().is_aborted() {
            Outcome::Aborted
        } else {
            Outcome::Cancelled
        };
        self.set_outcome(registry, outcome);
    }

    /// Unless it is known already.
    fn set_outcome(&self, registry: &'static Registry, outcome: Outcome) {
        if let Some(slot) = registry.slots.tenant(self.slot, self.id)
            && slot.flags().outcome() == Outcome::Unspecified
        {
            slot.set_outcome(outcome);
        }
    }

    /// Adds the time between the wake that this poll answers and now. Nanoseconds.
    fn answer_wake(&self, registry: &'static Registry) -> u64 {
        let Some(wakes) = registry.slots.wakes(self.slot, self.id) else { return 0 };
        let waited_ns = registry.clock.between(0, wakes.answer(registry.clock.now(), self.id));
        wakes.add_scheduled(waited_ns);
        waited_ns
    }

    /// A job of the blocking pool has got its thread.
    fn note_wait(&self, registry: &'static Registry) {
        let waited_ns = self.answer_wake(registry);
        if let Some(slot) = registry.slots.tenant(self.slot, self.id) {
            registry.groups.entry(GroupId(slot.group().into())).add_started(waited_ns);
        }
    }

    fn recording(&mut self, waker: &Waker) -> &Arc<Recording> {
        if self.recording.as_ref().is_some_and(|recording| !recording.is_for(waker)) {
            self.recording = None;
        }
        let (slot, id) = (self.slot, self.id);
        self.recording.get_or_insert_with(|| Recording::new(waker.clone(), slot, id))
    }
}

/// The bracket of one poll of a task that the hooks do not see. Closed on unwinding, too.
struct Running {
    registry: &'static Registry,
    line: &'static Line,
}

impl Running {
    fn begin(registry: &'static Registry, task: &Followed, line: &'static Line) -> Self {
        engine::adopt_current_runtime(line);
        let slot = registry.slots.tenant(task.slot, task.id);
        if slot.is_none_or(|slot| slot.flags().kind() != TaskKind::Blocking) {
            line.mark_polls();
        }
        registry.begin_poll(line, task.id, slot.map(|slot| (task.slot, slot)));
        Self { registry, line }
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
        let this = self.project();
        let Some(registry) = engine::registry() else { return this.future.poll(cx) };
        if let Seen::Undecided(said) = *this.seen {
            // Not dropped: that would say that the task goes before its first poll.
            std::mem::forget(std::mem::replace(this.seen, decide(registry, said)));
        }
        let Seen::Followed(task) = this.seen else { return this.future.poll(cx) };
        task.answer_wake(registry);
        let line = if task.alone { line_of_poll(registry) } else { None };
        let _running = line.map(|line| Running::begin(registry, task, line));
        let future = this.future;
        let polled = task.recording(cx.waker()).lend(|waker| future.poll(&mut Context::from_waker(waker)));
        if polled.is_ready() {
            task.set_outcome(registry, Outcome::Completed);
        }
        polled
    }
}

/// At the first poll: by the hooks, if their bracket is open around it; else alone.
fn decide(registry: &'static Registry, said: Said) -> Seen {
    let Some((slot, id)) = bracket_of_this_task(registry) else {
        return alone(registry, said, TaskKind::Wrapped);
    };
    let Some(index) = slot else {
        // The hooks have counted its spawn, and leave its end to us.
        return Seen::Counted(registry.groups.again(said.name, said.at, &registry.texts));
    };
    let followed = Seen::Followed(Followed { id, slot: index, alone: false, recording: None });
    match registry.slots.tenant(index, id) {
        Some(slot) if slot.flags().kind() == TaskKind::Wrapped => {
            // Spawned through the wrapper: this is its future, unless that has been polled already.
            if slot.polls() <= 1 { followed } else { Seen::Not }
        }
        // Spawned by other means: its row gets what is known now.
        Some(slot) => {
            let from = GroupId(slot.group().into());
            let to = match from {
                // Where its spawn had no room it is counted as such.
                GroupId(0) => registry.groups.again(said.name, said.at, &registry.texts),
                _ => registry.groups.of(said.name, said.at, &registry.texts, &registry.losses),
            };
            registry.groups.entry(from).take_back_spawned();
            registry.groups.entry(to).add_spawned();
            slot.set_group(to);
            registry.slots.see_wakes(index, said.class, said.fields);
            followed
        }
        None => Seen::Not,
    }
}

/// The hooks' bracket, if it is open around the task that Tokio says is running here.
fn bracket_of_this_task(registry: &Registry) -> Option<(Option<SlotIndex>, TaskId)> {
    let id = tokio::task::try_id().map(task_id)?;
    let open = registry.my_line()?.open().filter(|open| open.id == id)?;
    Some((open.slot, id))
}

impl Seen {
    fn whereabouts(&self) -> Whereabouts {
        match self {
            Self::Followed(task) => Whereabouts::Slot(task.slot, task.id),
            _ => Whereabouts::Nowhere,
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        let Some(registry) = engine::registry() else { return };
        match self {
            Self::Not => {}
            // Dropped before its first poll: in the bracket of an abort the hooks' slot can be told so.
            Self::Undecided(_) => {
                if let Some((Some(slot), id)) = bracket_of_this_task(registry) {
                    Followed { id, slot, alone: false, recording: None }.set_dropped(registry);
                }
            }
            Self::Counted(group) => registry.count_end(*group, std::thread::panicking()),
            Self::Followed(task) => {
                task.set_dropped(registry);
                // The hooks free their own; only they do not know how it ended.
                if task.alone {
                    registry.free(task.slot, task.id, registry.clock.now());
                }
            }
        }
    }
}

pin_project! {
    /// Notes the error with which a future ends.
    pub(super) struct Tried<F> {
        #[pin]
        future: F,
    }
}

/// A future whose error is its outcome.
pub(super) fn tried<F>(future: F) -> Tried<F> {
    Tried { future }
}

impl<F, T, E> Future for Tried<F>
where
    F: Future<Output = Result<T, E>>,
    E: std::fmt::Display,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, E>> {
        let polled = self.project().future.poll(cx);
        if let Poll::Ready(Err(error)) = &polled {
            note_failure(error);
        }
        polled
    }
}

/// The task in whose poll this runs fails with `error`.
#[cold]
fn note_failure(error: &dyn std::fmt::Display) {
    let Some(registry) = engine::registry() else { return };
    let Some((line, open)) = registry.my_line().and_then(|line| Some((line, line.open()?))) else { return };
    if let Some(slot) = open.slot.and_then(|index| registry.slots.tenant(index, open.id)) {
        slot.set_outcome(Outcome::Failed);
        line.note_reason(open.id, reason::intern(registry, error, None));
    }
}
