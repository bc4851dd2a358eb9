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
use taskscope_proto::v1::{Outcome, TaskClass, TaskKind};
use tokio::runtime::Builder;

use super::mine;
use super::task_id;
use crate::clock::{Any, Counter, Source};
use crate::registry::Registry;
use crate::registry::slots::{Flags, Tenancy};
use crate::runtimes::{RuntimeEntry, worker_index};

thread_local! {
    /// Left by the wrapper for the spawn hook that runs inside its call of `tokio::spawn`.
    static WRAPPING: Cell<Option<Wrapped>> = const { Cell::new(None) };
}

/// A task that is being spawned through the wrapper.
#[derive(Clone, Copy)]
pub(super) struct Wrapped {
    pub(super) name: Sid,
    pub(super) class: TaskClass,
    pub(super) fields: Sid,
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

/// Puts the four hooks on `builder`.
pub(crate) fn install(registry: &'static Registry, runtime: &Arc<RuntimeEntry>, builder: &mut Builder) {
    let entry = Arc::clone(runtime);
    builder.on_task_spawn(move |meta| {
        spawned(registry, &entry, task_id(meta.id()), WRAPPING.take(), meta.spawned_at());
    });
    if registry.clock.is_counter() {
        install_polls::<Counter>(registry, runtime, builder);
    } else {
        install_polls::<Any>(registry, runtime, builder);
    }
    let entry = Arc::clone(runtime);
    builder.on_task_terminate(move |meta| {
        terminated(registry, &entry, task_id(meta.id()), meta.spawned_at());
    });
}

fn install_polls<S: Source + 'static>(
    registry: &'static Registry,
    runtime: &Arc<RuntimeEntry>,
    builder: &mut Builder,
) {
    let watched = Watched { registry, id: runtime.id, entry: Arc::clone(runtime) };
    builder.on_before_task_poll(move |meta| before_poll::<S>(&watched, task_id(meta.id())));
    builder.on_after_task_poll(move |_| after_poll::<S>(registry));
}

/// `spawned_at` is of a line of the wrapper where `wrapped` tells another.
pub(super) fn spawned(
    registry: &Registry,
    runtime: &RuntimeEntry,
    id: TaskId,
    wrapped: Option<Wrapped>,
    spawned_at: &'static Location<'static>,
) {
    let group = match wrapped {
        Some(wrapped) => registry.count_spawn(wrapped.name, wrapped.spawned_at),
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
        Some(wrapped) => {
            (Flags::new(TaskKind::Wrapped, runtime.id).with_wakes().with_class(wrapped.class), wrapped.fields)
        }
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
        registry.totals.followed.fetch_add(1, Relaxed);
        runtime.followed.fetch_add(1, Relaxed);
    } else {
        registry.losses.add(Reason::EvictedTasks, 1);
        if registry.slots.retire(index, id) {
            registry.slots.release(index);
        }
    }
}

/// What the hooks of one runtime have at hand.
pub(super) struct Watched {
    pub(super) registry: &'static Registry,
    /// That of `entry`.
    pub(super) id: u32,
    pub(super) entry: Arc<RuntimeEntry>,
}

/// Every branch but the likeliest leaves for [`before_any_poll`], which does the whole of it: so this needs no stack.
#[inline]
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

#[cold]
#[inline(never)]
fn before_any_poll(Watched { registry, entry: runtime, .. }: &Watched, id: TaskId) {
    let Some(line) = registry.my_line() else {
        registry.losses.add(Reason::UnlinedThreads, 1);
        return;
    };
    if line.runtime() != runtime.id {
        line.set_runtime(runtime.id, worker_index());
        line.mark_polls();
        runtime.offer_metrics();
    }
    registry.begin_poll(line, id, registry.index.find(id));
}

/// As [`before_poll`]: what is not a short poll of a task that lives on is for [`after_any_poll`].
#[inline]
pub(super) fn after_poll<S: Source>(registry: &'static Registry) {
    let line = mine::line();
    let Some(slot) = mine::slot_of(line.task()) else { return after_any_poll(registry) };
    let now = S::now(&registry.clock);
    // A large number where no bracket is open, and where the counters of two cores disagree.
    let ticks = now.wrapping_sub(line.start());
    if ticks >= registry.slow_poll_ticks {
        return after_any_poll(registry);
    }
    line.leave_first();
    registry.count_poll(line, slot, now, registry.clock.short_ns(ticks));
}

#[cold]
#[inline(never)]
fn after_any_poll(registry: &'static Registry) {
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
            if line.panic().is_some() && slot.flags().outcome() == Outcome::Unspecified {
                slot.set_flags(slot.flags().with_outcome(Outcome::Panicked));
            }
            runtime.followed.fetch_sub(1, Relaxed);
        }
        // Past the budget. The wrapper counts the ends of its own, whose site here is a line of the wrapper.
        (Some(line), None) => {
            if !super::wrapper::is_its_own(spawned_at) {
                let group = registry.group_of_counted(Sid(0), spawned_at);
                registry.count_end(group, line.panic().is_some());
            }
        }
        (None, Some((index, slot))) => {
            let outside = line.is_some_and(|line| !line.is_in_bracket());
            if outside && matches!(slot.flags().outcome(), Outcome::Unspecified | Outcome::Cancelled) {
                slot.set_flags(slot.flags().with_outcome(Outcome::Shutdown));
            }
            registry.free(index, id, registry.clock.now(), Sid(0));
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
