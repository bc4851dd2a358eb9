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
use crate::callbacks::Callbacks;
use crate::registry::Registry;
use crate::registry::slots::{Flags, SlotIndex};
use crate::runtimes::{Held, Hook, RuntimeEntry, worker_index};

thread_local! {
    /// Left by the wrapper for the spawn hook that runs inside its call of `tokio::spawn`.
    static WRAPPING: Cell<Option<Wrapped>> = const { Cell::new(None) };
}

/// A task that is being spawned through the wrapper.
#[derive(Clone, Copy)]
pub(super) struct Wrapped {
    pub(super) name: Sid,
    /// The wrapper's caller; the hook would be told a line of the wrapper.
    pub(super) spawned_at: &'static Location<'static>,
}

/// Runs `spawn` so that the spawn hook inside it takes the task for this one.
pub(super) fn wrapping<T>(wrapped: Wrapped, spawn: impl FnOnce() -> T) -> T {
    /// A spawn that panics (outside of a runtime) must not leave its name to the next one.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            WRAPPING.set(None);
        }
    }
    WRAPPING.set(Some(wrapped));
    let _reset = Reset;
    spawn()
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
        true => spawned(registry, &hook.runtime, meta),
        false => hook.runtime.notice_lost_hooks(),
    };
    match callbacks.spawn {
        None => builder.on_task_spawn(spawn),
        Some(callback) => builder.on_task_spawn(move |meta| {
            spawn(meta);
            callback(meta);
        }),
    };

    let hook = Held::new(runtime, Hook::BeforePoll);
    let before = move |meta: &TaskMeta<'_>| match hook.is_whole() {
        true => before_poll(registry, &hook.runtime, meta),
        false => mind_lost_hooks(registry, &hook.runtime),
    };
    let hook = Held::new(runtime, Hook::AfterPoll);
    let after = move |_: &TaskMeta<'_>| match hook.is_whole() {
        true => after_poll(registry),
        false => mind_lost_hooks(registry, &hook.runtime),
    };
    match callbacks.before_poll {
        None => builder.on_before_task_poll(before),
        Some(callback) => {
            let runtime = Arc::clone(runtime);
            builder.on_before_task_poll(move |meta| {
                before(meta);
                // No after-hook follows a poll that never began.
                let close = OnDrop(|| {
                    if runtime.is_whole() {
                        after_poll(registry);
                    }
                });
                callback(meta);
                std::mem::forget(close);
            })
        }
    };
    match callbacks.after_poll {
        None => builder.on_after_task_poll(after),
        Some(callback) => builder.on_after_task_poll(move |meta| {
            let _last = OnDrop(|| after(meta));
            callback(meta);
        }),
    };

    let hook = Held::new(runtime, Hook::Terminate);
    let terminate = move |meta: &TaskMeta<'_>| match hook.is_whole() {
        true => terminated(registry, &hook.runtime, meta),
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

/// What is left to do around a poll where one of the hooks was replaced: as on stable Tokio, the thread is known to be the
/// runtime's, and the runtime's own counts are read.
#[cold]
fn mind_lost_hooks(registry: &Registry, runtime: &RuntimeEntry) {
    runtime.notice_lost_hooks();
    if let Some(line) = registry.lines.mine() {
        if line.runtime() != runtime.id {
            line.set_runtime(runtime.id, worker_index());
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

/// The slot in which `id` lives.
#[inline]
fn slot_of(registry: &Registry, id: TaskId) -> Option<SlotIndex> {
    let index = SlotIndex(registry.index.find(id)?);
    registry.slots.tenant(index, id).map(|_| index)
}

fn spawned(registry: &Registry, runtime: &RuntimeEntry, meta: &TaskMeta<'_>) {
    let id = task_id(meta.id());
    let wrapped = WRAPPING.take();
    let (name, at) =
        wrapped.map_or((Sid(0), meta.spawned_at()), |wrapped| (wrapped.name, wrapped.spawned_at));
    let group = registry.count_spawn(name, at);
    let Some(line) = registry.lines.mine() else {
        // Whether it has ended already (on a closed runtime) cannot be known here: a row could stay for ever.
        registry.losses.add(Reason::UnlinedThreads, 1);
        return;
    };
    if line.ended_early(id) {
        registry.count_end(group, false);
        return;
    }
    let flags = match wrapped {
        Some(_) => Flags::new(TaskKind::Wrapped, runtime.id).with_wakes(),
        None => Flags::new(TaskKind::Task, runtime.id),
    };
    let now = registry.clock.now();
    let Some(index) = registry.slots.claim(id, now, group, flags) else {
        registry.losses.add(Reason::EvictedTasks, 1);
        return;
    };
    if wrapped.is_some() {
        registry.slots.slot(index).wake(now, id);
    }
    if registry.index.insert(id, index.0) {
        registry.totals.followed.fetch_add(1, Relaxed);
        runtime.followed.fetch_add(1, Relaxed);
    } else {
        registry.losses.add(Reason::EvictedTasks, 1);
        if registry.slots.retire(index, id) {
            registry.slots.release(index);
        }
    }
}

#[inline]
fn before_poll(registry: &Registry, runtime: &RuntimeEntry, meta: &TaskMeta<'_>) {
    let Some(line) = registry.lines.mine() else {
        registry.losses.add(Reason::UnlinedThreads, 1);
        return;
    };
    if line.runtime() != runtime.id {
        line.set_runtime(runtime.id, worker_index());
        line.mark_polls();
    }
    runtime.offer_metrics();
    let id = task_id(meta.id());
    registry.begin_poll(line, id, slot_of(registry, id));
}

#[inline]
fn after_poll(registry: &Registry) {
    if let Some(line) = registry.lines.mine() {
        registry.end_poll(line);
    }
}

fn terminated(registry: &Registry, runtime: &RuntimeEntry, meta: &TaskMeta<'_>) {
    let id = task_id(meta.id());
    let line = registry.lines.mine();
    let in_bracket = line.filter(|line| line.open().is_some_and(|open| open.id == id));
    match (in_bracket, slot_of(registry, id)) {
        (Some(line), Some(index)) => {
            line.mark_ended();
            let slot = registry.slots.slot(index);
            // The wrapper knows better: a panic in this bracket may have been caught.
            if line.has_panicked() && slot.flags().outcome() == Outcome::Unspecified {
                slot.set_flags(slot.flags().with_outcome(Outcome::Panicked));
            }
            runtime.followed.fetch_sub(1, Relaxed);
        }
        // Past the budget. The wrapper counts the ends of its own, whose site here is a line of the wrapper.
        (Some(line), None) => {
            if !super::wrapper::is_its_own(meta.spawned_at()) {
                let site = registry.groups.site(meta.spawned_at(), &registry.texts).unwrap_or_default();
                let group = registry.groups.find(Sid(0), site).unwrap_or_default();
                registry.count_end(group, line.has_panicked());
            }
        }
        (None, Some(index)) => {
            let slot = registry.slots.slot(index);
            let outside = line.is_some_and(|line| !line.is_in_bracket());
            if outside && matches!(slot.flags().outcome(), Outcome::Unspecified | Outcome::Cancelled) {
                slot.set_flags(slot.flags().with_outcome(Outcome::Shutdown));
            }
            registry.free(index, id, registry.clock.now());
            runtime.followed.fetch_sub(1, Relaxed);
        }
        (None, None) => {
            runtime.foreign_ended.fetch_add(1, Relaxed);
            if let Some(line) = line {
                line.note_ended_early(id);
            }
        }
    }
}
