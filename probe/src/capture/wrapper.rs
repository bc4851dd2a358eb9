//! The spawn wrapper: on stable Tokio the only way to see a task, and beside the hooks what adds its name, its wakes and
//! its exact outcome. One allocation a task, at its first poll: the waker that records wakes outlives the poll.

use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use taskscope_proto::ids::{GroupId, Sid, TaskId};
use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::{Outcome, TaskClass, TaskKind};

use super::failure::Failure;
use super::handle::{JoinHandle, Whereabouts};
use super::waker::Recording;
use super::{reason, task_id};
use crate::engine;
use crate::registry::Registry;
use crate::registry::groups::NO_GROUPS_NAME;
use crate::registry::lines::Line;
use crate::registry::slots::{Flags, SlotIndex, SlotView, Tenancy};

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
    /// Nobody will ever hold a handle to await it by.
    pub(crate) detached: bool,
    pub(crate) at: &'static Location<'static>,
}

impl Said {
    #[track_caller]
    pub(crate) fn new(name: &str) -> Self {
        let name = engine::registry().map_or(Sid(0), |registry| intern_name(registry, name));
        Self { name, class: TaskClass::Unspecified, fields: Sid(0), detached: false, at: Location::caller() }
    }

    /// Of a task whose wakes are seen.
    pub(super) fn flags(&self, kind: TaskKind, runtime: u32) -> Flags {
        let flags = Flags::new(kind, runtime).with_wakes().with_class(self.class);
        if self.detached { flags.with_detached() } else { flags }
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
    Counted(Counted),
    /// Not polled yet on a build with hooks: the first poll shows whether its runtime has them.
    Undecided(Undecided),
    Followed(Followed),
}

#[derive(Debug)]
struct Counted {
    group: GroupId,
    panicked: AtomicBool,
}

impl Counted {
    fn in_group(group: GroupId) -> Seen {
        Seen::Counted(Self { group, panicked: AtomicBool::new(false) })
    }
}

/// What was said, packed: with it a task has to fit into the block of memory that it would have had without us.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(4))]
struct Undecided {
    at: &'static Location<'static>,
    name: Sid,
    fields: Sid,
    class: u8,
    detached: bool,
    /// It was spawned by us and is the whole of its task; else it may be polled anywhere, or never.
    is_task: bool,
}

impl Undecided {
    fn new(said: Said, is_task: bool) -> Self {
        let Said { name, class, fields, detached, at } = said;
        Self { at, name, fields, class: class as u8, detached, is_task }
    }

    fn said(self) -> Said {
        let class = TaskClass::try_from(i32::from(self.class)).unwrap_or_default();
        Said { name: self.name, class, fields: self.fields, detached: self.detached, at: self.at }
    }
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

/// A task on its way to the runtime. Two steps around Tokio's own spawn, and no closure around it: that is then called by
/// a function that is `#[track_caller]`, so that whoever asks Tokio for the spawn site (callbacks of the application,
/// tokio-console) is told the line of our caller.
#[must_use = "without `spawned` nobody learns where the task is"]
pub(super) struct Spawning {
    whereabouts: Whereabouts,
    /// The hook that runs inside the spawn takes the task for this one.
    #[cfg(tokio_unstable)]
    wrapping: Option<super::hooks::Wrapping>,
}

impl Spawning {
    /// `future`, to be spawned next on this thread, and followed as `said`.
    #[inline]
    pub(super) fn begin<F: Future>(said: Said, future: F) -> (Instrumented<F>, Self) {
        let at = |whereabouts| Self {
            whereabouts,
            #[cfg(tokio_unstable)]
            wrapping: None,
        };
        let (seen, spawning) = match engine::registry() {
            None => (Seen::Not, at(Whereabouts::Nowhere)),
            #[cfg(tokio_unstable)]
            Some(_) if engine::has_hooks() => {
                let wrapping = Some(super::hooks::Wrapping::begin(said));
                let seen = Seen::Undecided(Undecided::new(said, true));
                (seen, Self { whereabouts: Whereabouts::Nowhere, wrapping })
            }
            Some(registry) => {
                let seen = alone(registry, said, TaskKind::Wrapped, None, Found::Ready);
                let whereabouts = seen.whereabouts();
                (seen, at(whereabouts))
            }
        };
        (Instrumented { future, seen }, spawning)
    }

    /// Where the task is; Tokio knows it as `id`.
    #[cfg_attr(
        not(tokio_unstable),
        allow(unused_variables, reason = "without hooks nobody else knows the task by its id")
    )]
    #[inline]
    pub(super) fn spawned(self, id: tokio::task::Id) -> Whereabouts {
        #[cfg(tokio_unstable)]
        if self.wrapping.is_some() {
            return Whereabouts::indexed(id);
        }
        self.whereabouts
    }

    /// The handle of it.
    #[inline]
    pub(super) fn handle<T>(self, handle: tokio::task::JoinHandle<T>) -> JoinHandle<T> {
        let whereabouts = self.spawned(handle.id());
        JoinHandle::new(handle, whereabouts)
    }
}

/// Follows a future wherever it is spawned, or polled.
pub(super) fn instrument<F: Future>(said: Said, future: F) -> Instrumented<F> {
    #[cfg(tokio_unstable)]
    if engine::has_hooks() {
        return Instrumented { future, seen: Seen::Undecided(Undecided::new(said, false)) };
    }
    instrument_alone(said, TaskKind::Wrapped, future)
}

/// Follows a future that no runtime hook sees, such as the body of `main`.
pub(crate) fn instrument_alone<F: Future>(said: Said, kind: TaskKind, future: F) -> Instrumented<F> {
    let seen =
        engine::registry().map_or(Seen::Not, |registry| alone(registry, said, kind, None, Found::Ready));
    Instrumented { future, seen }
}

/// `job`, to be submitted to the blocking pool; it has a row from now to its end.
pub(super) fn job<F>(said: Said, job: F) -> (Job<F>, Whereabouts) {
    let Some(registry) = engine::registry() else {
        return (Job { job, followed: None }, Whereabouts::Nowhere);
    };
    let seen = alone(registry, said, TaskKind::Blocking, None, Found::Ready);
    let whereabouts = seen.whereabouts();
    let followed = Some((registry, CountedJob::submit(registry), seen));
    (Job { job, followed }, whereabouts)
}

/// A closure for the blocking pool.
pub(super) struct Job<F> {
    job: F,
    followed: Option<(&'static Registry, CountedJob, Seen)>,
}

impl<F> Job<F> {
    pub(super) fn run<T>(self) -> T
    where
        F: FnOnce() -> T,
    {
        let Self { job, followed } = self;
        let Some((registry, counted, seen)) = followed else { return job() };
        let _counted = counted.start();
        let _running = match &seen {
            Seen::Followed(task) => {
                task.note_wait(registry);
                line_of_poll(registry).map(|line| Running::begin(registry, task, line))
            }
            _ => None,
        };
        let unwound = Unwound { registry, seen: &seen };
        let result = job();
        std::mem::forget(unwound);
        seen.complete(registry);
        result
    }
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

/// When a future gets its row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It is ready to run from now on.
    Ready,
    /// In its first poll, which nobody knows how long it has waited for.
    Polled,
}

/// A slot for a task that is ready to run from now on, or runs already.
/// `known_as` is the id by which its handle will look for it.
fn alone(
    registry: &'static Registry,
    said: Said,
    kind: TaskKind,
    known_as: Option<TaskId>,
    at: Found,
) -> Seen {
    let group = registry.count_spawn(said.name, said.at);
    let id = known_as.unwrap_or_else(own_id);
    let spawned = registry.clock.now();
    let flags = said.flags(kind, engine::current_runtime_id()).with_alone();
    let Some(slot) = registry.slots.claim(Tenancy { id, spawned, group, flags, fields: said.fields }) else {
        registry.losses.add(Reason::EvictedTasks, 1);
        return Counted::in_group(group);
    };
    if known_as.is_some() && !registry.index.insert(id, slot) {
        registry.losses.add(Reason::EvictedTasks, 1);
        if registry.slots.retire(slot, id) {
            registry.slots.release(slot);
        }
        return Counted::in_group(group);
    }
    registry.totals.followed.add(registry.my_line());
    if kind == TaskKind::Wrapped {
        registry.totals.wrapped_alone.fetch_add(1, Relaxed);
    }
    if at == Found::Ready
        && let Some(wakes) = registry.slots.wakes(slot, id)
    {
        wakes.ready(spawned, id);
    }
    Seen::Followed(Followed { id, slot, alone: true, recording: None })
}

impl Followed {
    /// The future goes, whether or not it has been told to be complete.
    fn set_dropped(&self, registry: &'static Registry) {
        let Some(slot) = registry.slots.tenant(self.slot, self.id) else { return };
        let aborted = slot.flags().is_aborted();
        self.set_outcome(registry, if aborted { Outcome::Aborted } else { Outcome::Cancelled });
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
        registry.answer_wake(self.slot, self.id)
    }

    /// A job of the blocking pool has got its thread.
    fn note_wait(&self, registry: &'static Registry) {
        let waited_ns = self.answer_wake(registry);
        if let Some(slot) = registry.slots.tenant(self.slot, self.id) {
            registry.groups.entry(GroupId(slot.group().into())).add_started(waited_ns);
        }
    }

    /// Has a recording for this waker of the runtime, from now on.
    fn record_for(&mut self, waker: &Waker) {
        if !self.recording.as_ref().is_some_and(|recording| recording.is_for(waker)) {
            self.recording = Some(Recording::new(waker.clone(), self.slot, self.id));
        }
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

/// Says of a poll that is left by a panic that it was; forgotten where the poll returned. (That the thread unwinds says less:
/// the panic of one task drops others.)
struct Unwound<'a> {
    registry: &'static Registry,
    seen: &'a Seen,
}

impl Drop for Unwound<'_> {
    fn drop(&mut self) {
        match self.seen {
            Seen::Followed(task) => task.set_outcome(self.registry, Outcome::Panicked),
            Seen::Counted(task) => task.panicked.store(true, Relaxed),
            Seen::Not | Seen::Undecided(_) => {}
        }
    }
}

impl<F: Future> Future for Instrumented<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Some(registry) = engine::registry() else { return this.future.poll(cx) };
        if let Seen::Undecided(undecided) = *this.seen {
            // Not dropped: that would say that the task goes before its first poll.
            std::mem::forget(std::mem::replace(this.seen, decide(registry, undecided)));
        }
        let (future, seen) = (this.future, this.seen);
        if matches!(seen, Seen::Not) {
            return future.poll(cx);
        }
        let mut _running = None;
        if let Seen::Followed(task) = seen {
            task.answer_wake(registry);
            let line = if task.alone { line_of_poll(registry) } else { None };
            _running = line.map(|line| Running::begin(registry, task, line));
            task.record_for(cx.waker());
        }
        let seen: &Seen = seen;
        let unwound = Unwound { registry, seen };
        let polled = match seen {
            Seen::Followed(Followed { recording: Some(recording), .. }) => {
                recording.lend(|waker| future.poll(&mut Context::from_waker(waker)))
            }
            _ => future.poll(cx),
        };
        std::mem::forget(unwound);
        if polled.is_ready() {
            seen.complete(registry);
        }
        polled
    }
}

/// At the first poll: by the hooks, if they have seen its task; else alone.
fn decide(registry: &'static Registry, undecided: Undecided) -> Seen {
    let (said, is_task) = (undecided.said(), undecided.is_task);
    let group = || registry.groups.again(said.name, said.at, &registry.texts);
    let tokio_id = tokio::task::try_id().map(task_id);
    let Some((slot, id)) = hooked(registry, tokio_id) else {
        // Several futures that are no task of their own may be polled in one.
        return alone(registry, said, TaskKind::Wrapped, tokio_id.filter(|_| is_task), Found::Polled);
    };
    let Some(index) = slot else {
        // The hooks have counted its spawn. Of a task that we spawned they leave the end to us.
        return if is_task { Counted::in_group(group()) } else { Seen::Not };
    };
    let Some(slot) = registry.slots.tenant(index, id) else { return Seen::Not };
    // Another such future has named the task already.
    if !slot.mark_attached() {
        return Seen::Not;
    }
    if slot.flags().kind() != TaskKind::Wrapped {
        // Spawned by other means: its row gets what is known now.
        let (from, to) = (GroupId(slot.group().into()), group());
        registry.groups.entry(from).take_back_spawned();
        registry.groups.entry(to).add_spawned();
        slot.set_group(to);
        registry.slots.see_wakes(index, said.class, said.fields);
    }
    Seen::Followed(Followed { id, slot: index, alone: false, recording: None })
}

/// The task `id`, which Tokio says is running here, as the hooks know it. Its slot is missing past the budget.
fn hooked(registry: &Registry, id: Option<TaskId>) -> Option<(Option<SlotIndex>, TaskId)> {
    let id = id?;
    match bracket_of_this_task(registry) {
        Some(found) => Some(found),
        // Its bracket may be nested too deep to be kept.
        None => registry.index.find(id).map(|(index, _)| (Some(index), id)),
    }
}

/// The hooks' bracket, if it is open around the task that Tokio says is running here.
fn bracket_of_this_task(registry: &Registry) -> Option<(Option<SlotIndex>, TaskId)> {
    let id = tokio::task::try_id().map(task_id)?;
    let open = registry.my_line()?.open().filter(|open| open.id == id)?;
    Some((open.slot, id))
}

impl Seen {
    /// The future has returned its result.
    fn complete(&self, registry: &'static Registry) {
        if let Self::Followed(task) = self {
            task.set_outcome(registry, Outcome::Completed);
        }
    }

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
            Self::Undecided(undecided) => undecided.set_dropped(registry),
            Self::Counted(task) => count_own_end(registry, task.group, task.panicked.load(Relaxed)),
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

/// Counts the end of a wrapped task that has no slot; the hooks, which end it next, do not count it again.
fn count_own_end(registry: &Registry, group: GroupId, panicked: bool) {
    registry.count_end(group, panicked);
    if let Some((None, id)) = bracket_of_this_task(registry)
        && let Some(line) = registry.my_line()
    {
        line.note_counted_end(id);
    }
}

impl Undecided {
    /// Dropped before its first poll: in the bracket of an abort the hooks' slot can be told so. A future that is no task
    /// of its own may be dropped anywhere, and says nothing about whose bracket that is.
    fn set_dropped(&self, registry: &'static Registry) {
        if !self.is_task {
            return;
        }
        match bracket_of_this_task(registry) {
            Some((Some(slot), id)) => {
                // Where another future is attached the spawn has failed, and this is the spawner's bracket.
                let own = registry
                    .slots
                    .tenant(slot, id)
                    .is_some_and(|task| task.flags().kind() == TaskKind::Wrapped && task.mark_attached());
                if own {
                    Followed { id, slot, alone: false, recording: None }.set_dropped(registry);
                }
            }
            Some((None, _)) => {
                let said = self.said();
                let group = registry.groups.of(said.name, said.at, &registry.texts, &registry.losses);
                count_own_end(registry, group, false);
            }
            None => {}
        }
    }
}

pin_project! {
    /// Notes the error with which a future ends.
    pub(super) struct Tried<F> {
        #[pin]
        future: F,
        failure: Option<Failure>,
    }
}

/// A future whose error is its outcome, and what its handle knows of that. `None`: no probe runs.
pub(super) fn tried<F>(future: F) -> (Tried<F>, Option<Failure>) {
    let failure = engine::registry().map(|_| Failure::default());
    (Tried { future, failure: failure.clone() }, failure)
}

impl<F, T, E> Future for Tried<F>
where
    F: Future<Output = Result<T, E>>,
    E: std::fmt::Display,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, E>> {
        let this = self.project();
        let polled = this.future.poll(cx);
        if let (Poll::Ready(Err(error)), Some(failure)) = (&polled, this.failure) {
            note_failure(failure, error);
        }
        polled
    }
}

/// The task in whose poll this runs fails with `error`.
#[cold]
fn note_failure(failure: &Failure, error: &dyn std::fmt::Display) {
    let Some(registry) = engine::registry() else { return };
    let Some((line, open)) = registry.my_line().and_then(|line| Some((line, line.open()?))) else { return };
    let Some(index) = open.slot else { return };
    let Some(slot) = registry.slots.tenant(index, open.id) else { return };
    let reason = reason::intern(registry, error, None);
    slot.set_outcome(Outcome::Failed);
    line.note_reason(open.id, reason);
    let lost = || {
        let view = registry.slots.view(index).filter(|view| view.id == open.id)?;
        let flags = view.flags.with_detached();
        Some(SlotView { flags, reason, ..view }.to_ended(registry.clock.now()))
    };
    if failure.is_let_go() || !lost().is_some_and(|words| failure.leave(words)) {
        slot.mark_detached();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_with_a_timer_keeps_its_block_of_memory() {
        let timer = async { tokio::time::sleep(std::time::Duration::from_secs(3600)).await };
        // What tokio 1.54 has around a future, and the steps in which its tasks grow.
        const AROUND: usize = 112;
        const STEP: usize = 128;
        let blocks = |bytes: usize| (bytes + AROUND).div_ceil(STEP);
        let bare = size_of_val(&timer);
        let wrapped = size_of_val(&Instrumented { future: timer, seen: Seen::Not });
        assert_eq!((wrapped - bare, blocks(wrapped)), (24, blocks(bare)));
    }
}
