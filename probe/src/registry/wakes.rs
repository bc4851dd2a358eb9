//! What wakers note about a task, beside its slot: written by any thread, and only of tasks whose wakes are seen, so that
//! the memory of the others is never touched.
//!
//! A waker may outlive its task. It checks that the task still lives in the slot; where the slot changes hands between that
//! check and the store, one wake is counted for the next tenant, and its instant, which carries the former id, is not taken
//! for the other's.

use taskscope_proto::ids::TaskId;

use super::stamp;
use super::sync::{AtomicU32, AtomicU64, Relaxed};
use crate::clock::Ticks;

#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
pub(crate) struct Wakes {
    /// First wake since the last poll, with the low bits of the id; 0: none.
    woken: AtomicU64,
    scheduled_ns: AtomicU64,
    total: AtomicU64,
    /// The task whose poll woke it last; 0: none did.
    by: AtomicU64,
    /// Inside its own polls.
    by_itself: AtomicU32,
    /// Wakers that are held somewhere.
    wakers: AtomicU32,
}

/// A copy for a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WakesView {
    pub(crate) woken: u64,
    pub(crate) scheduled_ns: u64,
    pub(crate) total: u64,
    pub(crate) by: u64,
    pub(crate) by_itself: u32,
    pub(crate) wakers: u32,
}

impl Wakes {
    /// For a new tenant.
    pub(super) fn reset(&self) {
        self.woken.store(0, Relaxed);
        self.scheduled_ns.store(0, Relaxed);
        self.total.store(0, Relaxed);
        self.by.store(0, Relaxed);
        self.by_itself.store(0, Relaxed);
        self.wakers.store(0, Relaxed);
    }

    pub(super) fn view(&self) -> WakesView {
        WakesView {
            woken: self.woken.load(Relaxed),
            scheduled_ns: self.scheduled_ns.load(Relaxed),
            total: self.total.load(Relaxed),
            by: self.by.load(Relaxed),
            by_itself: self.by_itself.load(Relaxed),
            wakers: self.wakers.load(Relaxed),
        }
    }

    /// From now on `id` waits for a worker: it was woken, or has just been spawned.
    pub(crate) fn ready(&self, now: Ticks, id: TaskId) {
        if self.woken.load(Relaxed) == 0 {
            self.woken.store(stamp::stamp(now, id), Relaxed);
        }
    }

    /// Counts a wake of `id` out of a poll of `by` (0: out of none).
    pub(crate) fn wake(&self, now: Ticks, id: TaskId, by: TaskId) {
        self.ready(now, id);
        self.total.fetch_add(1, Relaxed);
        self.by.store(by.0, Relaxed);
        if by == id {
            self.by_itself.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Ends the waiting of `id`, which is polled now. Ticks that it waited; `None`: it did not.
    pub(crate) fn answer(&self, now: Ticks, id: TaskId) -> Option<Ticks> {
        let woken = self.woken.load(Relaxed);
        if woken == 0 {
            return None;
        }
        self.woken.store(0, Relaxed);
        stamp::is_of(woken, id).then(|| stamp::elapsed(woken, now))
    }

    /// Only the thread that polls the task adds.
    pub(crate) fn add_scheduled(&self, ns: u64) {
        self.scheduled_ns.store(self.scheduled_ns.load(Relaxed) + ns, Relaxed);
    }

    pub(crate) fn add_waker(&self) {
        self.wakers.fetch_add(1, Relaxed);
    }

    pub(crate) fn remove_waker(&self) {
        // Never below zero: it may be of a tenant before.
        let _ = self.wakers.fetch_update(Relaxed, Relaxed, |wakers| wakers.checked_sub(1));
    }
}
