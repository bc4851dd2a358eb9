//! Tokio's task hooks.
//!
//! On completion the order is before-poll → terminate → after-poll, so terminate inside an open bracket marks and the
//! after-hook frees; terminate outside a bracket (shutdown) frees; terminate of an id without a slot is ignored: it fires
//! for closures of the blocking pool and for workers, and before the spawn hook on a closed runtime.

use std::cell::Cell;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use taskscope_proto::ids::{Sid, TaskId};
use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::{Outcome, TaskKind};
use tokio::runtime::{Builder, TaskMeta};

use super::task_id;
use super::wrapper::Said;
use super::{latency, mine};
use crate::callbacks::{Callbacks, TaskCallback};
use crate::clock::{Any, Counter, Source};
use crate::registry::Registry;
use crate::registry::slots::{Flags, Tenancy};
use crate::runtimes::{Held, Hook, RuntimeEntry, worker_index};

thread_local! {
    /// Left by the wrapper for the spawn hook that runs inside its call of `tokio::spawn`: its caller's place is among it,
    /// where the hook would be told a line of the wrapper.
    static WRAPPING: Cell<Option<Said>> = const { Cell::new(None) };
}

/// While it lives, the spawn hook takes the next task of this thread for this one. A spawn that panics (outside of a
/// runtime) does not leave its name to the next one: it ends with the scope of its spawn.
pub(super) struct Wrapping(());

impl Wrapping {
    pub(super) fn begin(wrapped: Said) -> Self {
        WRAPPING.set(Some(wrapped));
        Self(())
    }
}

impl Drop for Wrapping {
    fn drop(&mut self) {
        WRAPPING.set(None);
    }
}

/// Puts the four hooks on `builder`, with the application's own: its closure is another one where it has none, so that
/// a poll does not ask. Ours comes first at a spawn and before a poll, and last after a poll and at an end: what the
/// application's does is part of the poll, and a panic in it, which goes its way as without us, leaves no bracket open.
pub(crate) fn install(
    registry: &'static Registry,
    runtime: &Arc<RuntimeEntry>,
    builder: &mut Builder,
    callbacks: Callbacks,
) {
    let hook = Held::new(runtime, Hook::Spawn);
    let spawn = move |meta: &TaskMeta<'_>| match hook.is_whole() {
        true => spawned(registry, &hook.runtime, task_id(meta.id()), WRAPPING.take(), meta.spawned_at()),
        false => hook.runtime.notice_lost_hooks(),
    };
    match callbacks.spawn {
        None => builder.on_task_spawn(spawn),
        Some(callback) => builder.on_task_spawn(move |meta| {
            spawn(meta);
            callback(meta);
        }),
    };

    let (before, after) = (callbacks.before_poll, callbacks.after_poll);
    if registry.clock.is_counter() {
        install_polls::<Counter>(registry, runtime, builder, before, after);
    } else {
        install_polls::<Any>(registry, runtime, builder, before, after);
    }

    let hook = Held::new(runtime, Hook::Terminate);
    let terminate = move |meta: &TaskMeta<'_>| match hook.is_whole() {
        true => terminated(registry, &hook.runtime, task_id(meta.id()), meta.spawned_at()),
        // It also fires for jobs of the blocking pool, which may outlive their runtime and with it the other hooks.
        false if worker_index().is_some() => hook.runtime.notice_lost_hooks(),
        false => {}
    };
    match callbacks.terminate {
        None => builder.on_task_terminate(terminate),
        Some(callback) => builder.on_task_terminate(move |meta| {
            let _last = OnDrop(|| terminate(meta));
            callback(meta);
        }),
    };
    if let Some(callback) = callbacks.park {
        builder.on_thread_park(move || callback());
    }
}

fn install_polls<S: Source + 'static>(
    registry: &'static Registry,
    runtime: &Arc<RuntimeEntry>,
    builder: &mut Builder,
    before: Option<TaskCallback>,
    after: Option<TaskCallback>,
) {
    let watched = |hook| Watched {
        registry,
        id: runtime.id,
        hook: Held::new(runtime, hook),
        runtime: Arc::clone(runtime),
    };
    let ours = watched(Hook::BeforePoll);
    match before {
        None => builder.on_before_task_poll(move |meta| {
            before_poll::<S>(&ours, task_id(meta.id()));
            latency::note(registry, meta);
        }),
        Some(callback) => builder.on_before_task_poll(move |meta| {
            before_poll::<S>(&ours, task_id(meta.id()));
            latency::note(registry, meta);
            // No after-hook follows a poll that never began.
            let close = OnDrop(|| after_any_poll(&ours));
            callback(meta);
            std::mem::forget(close);
        }),
    };
    let ours = watched(Hook::AfterPoll);
    match after {
        None => builder.on_after_task_poll(move |_| after_poll::<S>(&ours)),
        Some(callback) => builder.on_after_task_poll(move |meta| {
            let _last = OnDrop(|| after_poll::<S>(&ours));
            callback(meta);
        }),
    };
}

/// What is left to do around a poll where one of the hooks was replaced: as on stable Tokio, the thread is known to be the
/// runtime's, and the runtime's own counts are read.
#[cold]
fn mind_lost_hooks(registry: &Registry, runtime: &RuntimeEntry) {
    runtime.notice_lost_hooks();
    if let Some(line) = registry.my_line() {
        if line.runtime() != runtime.id {
            line.set_runtime_without_hooks(runtime.id, worker_index());
            line.mark_polls();
        }
        runtime.offer_metrics();
    }
}

/// Runs a closure at the end of a scope, also where that is left by a panic.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// `spawned_at` is what Tokio says, for what the wrapper has not spawned.
pub(super) fn spawned(
    registry: &Registry,
    runtime: &RuntimeEntry,
    id: TaskId,
    wrapped: Option<Said>,
    spawned_at: &'static Location<'static>,
) {
    let group = match wrapped {
        Some(wrapped) => registry.count_spawn(wrapped.name, wrapped.at),
        None => registry.count_spawn(Sid(0), spawned_at),
    };
    let Some(line) = registry.my_line() else {
        // Whether it has ended already (on a closed runtime) cannot be known here: a row could stay for ever.
        registry.losses.add(Reason::UnlinedThreads, 1);
        return;
    };
    if line.ended_early(id) {
        registry.count_end(group, false);
        return;
    }
    let (flags, fields) = match wrapped {
        Some(wrapped) => (wrapped.flags(TaskKind::Wrapped, runtime.id), wrapped.fields),
        None => (Flags::new(TaskKind::Task, runtime.id), Sid(0)),
    };
    let spawned = registry.clock.now();
    let Some(index) = registry.slots.claim(Tenancy { id, spawned, group, flags, fields }) else {
        registry.losses.add(Reason::EvictedTasks, 1);
        return;
    };
    if wrapped.is_some()
        && let Some(wakes) = registry.slots.wakes(index, id)
    {
        wakes.ready(spawned, id);
    }
    if registry.index.insert(id, index) {
        registry.totals.followed.add(Some(line));
        runtime.followed.add(Some(line));
    } else {
        registry.losses.add(Reason::EvictedTasks, 1);
        if registry.slots.retire(index, id) {
            registry.slots.release(index);
        }
    }
}

/// What the hooks around a poll have at hand.
pub(super) struct Watched {
    pub(super) registry: &'static Registry,
    /// That of `runtime`.
    pub(super) id: u32,
    pub(super) hook: Held,
    pub(super) runtime: Arc<RuntimeEntry>,
}

/// Every branch but the likeliest leaves for [`before_any_poll`], which does the whole of it: so this needs no stack.
#[inline(always)]
pub(super) fn before_poll<S: Source>(watched: &Watched, id: TaskId) {
    let line = mine::line();
    if !line.is_idle_on(watched.id) {
        return before_any_poll(watched, id);
    }
    let registry = watched.registry;
    let Some((index, slot)) = registry.index.find_first(id) else {
        return before_any_poll(watched, id);
    };
    slot.begin_poll();
    mine::open(slot);
    line.enter_first(id, index, S::now(&registry.clock));
}

/// Where a hook was replaced every poll comes here: no line is ever said to work for such a runtime.
#[cold]
#[inline(never)]
fn before_any_poll(Watched { registry, hook, runtime, .. }: &Watched, id: TaskId) {
    if !hook.is_whole() {
        return mind_lost_hooks(registry, runtime);
    }
    let Some(line) = registry.my_line() else {
        registry.losses.add(Reason::UnlinedThreads, 1);
        return;
    };
    if !line.knows(runtime.id) {
        line.set_runtime(runtime.id, worker_index());
        line.mark_polls();
        runtime.offer_metrics();
    }
    registry.begin_poll(line, id, registry.index.find(id));
}

/// As [`before_poll`]: what is not a short poll of a task that lives on is for [`after_any_poll`].
#[inline(always)]
pub(super) fn after_poll<S: Source>(watched: &Watched) {
    let line = mine::line();
    let Some(slot) = mine::slot_of(line.task()) else { return after_any_poll(watched) };
    let registry = watched.registry;
    let now = S::now(&registry.clock);
    // A large number where no bracket is open, and where the counters of two cores disagree.
    let ticks = now.wrapping_sub(line.start());
    if ticks >= registry.slow_poll_ticks {
        return after_any_poll(watched);
    }
    line.leave_first();
    registry.count_poll(line, slot, now, registry.clock.short_ns(ticks));
}

#[cold]
#[inline(never)]
fn after_any_poll(Watched { registry, hook, runtime, .. }: &Watched) {
    if !hook.is_whole() {
        return mind_lost_hooks(registry, runtime);
    }
    if let Some(line) = registry.my_line() {
        registry.end_poll(line);
    }
}

pub(super) fn terminated(
    registry: &Registry,
    runtime: &RuntimeEntry,
    id: TaskId,
    spawned_at: &'static Location<'static>,
) {
    let line = registry.my_line();
    let in_bracket = line.filter(|line| line.open().is_some_and(|open| open.id == id));
    match (in_bracket, registry.index.find(id)) {
        (Some(line), Some((_, slot))) => {
            line.mark_ended();
            mine::close();
            // The wrapper knows better: a panic in this bracket may have been caught.
            if line.has_panicked() && slot.flags().outcome() == Outcome::Unspecified {
                slot.set_outcome(Outcome::Panicked);
            }
            runtime.followed.subtract(Some(line));
        }
        // Past the budget. The wrapper has counted the end of one of its own as its future was dropped.
        (Some(line), None) => {
            if !line.has_counted_end(id) {
                let group = registry.groups.again(Sid(0), spawned_at, &registry.texts);
                registry.count_end(group, line.has_panicked());
            }
        }
        (None, Some((index, slot))) => {
            let outside = line.is_some_and(|line| !line.is_in_bracket());
            if outside && matches!(slot.flags().outcome(), Outcome::Unspecified | Outcome::Cancelled) {
                slot.set_outcome(Outcome::Shutdown);
            }
            registry.free(index, id, registry.clock.now());
            runtime.followed.subtract(line);
        }
        (None, None) => {
            runtime.foreign_ended.fetch_add(1, Relaxed);
            if let Some(line) = line {
                line.note_ended_early(id);
            }
        }
    }
}
