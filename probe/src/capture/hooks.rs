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
use crate::registry::Registry;
use crate::registry::slots::{Flags, SlotIndex};
use crate::runtimes::{RuntimeEntry, worker_index};

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
    WRAPPING.set(Some(wrapped));
    let spawned = spawn();
    WRAPPING.set(None);
    spawned
}

/// Puts the four hooks on `builder`.
pub(crate) fn install(registry: &'static Registry, runtime: &Arc<RuntimeEntry>, builder: &mut Builder) {
    let entry = Arc::clone(runtime);
    builder.on_task_spawn(move |meta| spawned(registry, &entry, meta));
    let entry = Arc::clone(runtime);
    builder.on_before_task_poll(move |meta| before_poll(registry, &entry, meta));
    builder.on_after_task_poll(move |_| after_poll(registry));
    let entry = Arc::clone(runtime);
    builder.on_task_terminate(move |meta| terminated(registry, &entry, meta));
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
    registry.totals.spawned.fetch_add(1, Relaxed);
    let spawned_at = wrapped.map_or_else(|| meta.spawned_at(), |wrapped| wrapped.spawned_at);
    let site = registry.groups.site(spawned_at, &registry.texts).unwrap_or_else(|| {
        registry.losses.add(Reason::LostStrings, 1);
        Sid(0)
    });
    let group =
        registry.groups.find(wrapped.map_or(Sid(0), |wrapped| wrapped.name), site).unwrap_or_else(|| {
            registry.losses.add(Reason::FoldedGroups, 1);
            Default::default()
        });
    registry.groups.entry(group).add_spawned();
    if registry.lines.mine().is_some_and(|line| line.ended_early(id)) {
        registry.groups.entry(group).add_ended(false);
        registry.totals.ended.fetch_add(1, Relaxed);
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
        runtime.followed.fetch_add(1, Relaxed);
    } else {
        registry.slots.release(index);
        registry.losses.add(Reason::EvictedTasks, 1);
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
    let in_bracket = line.and_then(|line| line.open()).filter(|open| open.id == id);
    match (in_bracket, slot_of(registry, id)) {
        (Some(_), Some(index)) => {
            let slot = registry.slots.slot(index);
            let panicked = line.is_some_and(|line| line.take_panic(id));
            let flags = slot.flags().with_ended();
            slot.set_flags(if panicked { flags.with_outcome(Outcome::Panicked) } else { flags });
            runtime.followed.fetch_sub(1, Relaxed);
        }
        // Past the budget: known only by its spawn site.
        (Some(_), None) => {
            registry.totals.ended.fetch_add(1, Relaxed);
            let site = registry.groups.site(meta.spawned_at(), &registry.texts).unwrap_or_default();
            let group = registry.groups.find(Sid(0), site).unwrap_or_default();
            registry.groups.entry(group).add_ended(line.is_some_and(|line| line.take_panic(id)));
        }
        (None, Some(index)) => {
            let slot = registry.slots.slot(index);
            slot.set_flags(slot.flags().with_outcome(Outcome::Shutdown));
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
