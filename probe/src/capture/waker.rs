//! A waker that notes who wakes a task, and when, and how many wakers of it are held, in front of the one that does it.
//!
//! Built by hand rather than through `std::task::Wake`, because the clones that others hold have to be counted apart from
//! ours: a pending task of which nobody holds a waker is never woken again. Every unsafe line below rests on one fact: the
//! data of such a waker is a pointer that `Arc::into_raw` gave, and each waker owns one count of it.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::task::{RawWaker, RawWakerVTable, Waker};

use taskscope_proto::ids::TaskId;

use super::mine;
use crate::engine;
use crate::registry::slots::SlotIndex;

/// What the wakers of one task share. Small, since each followed task has one.
#[derive(Debug)]
pub(super) struct Recording {
    inner: Waker,
    slot: SlotIndex,
    /// Low bits of the task's id: of two tenants of one slot they are the same only 2³² tasks apart.
    tenant: u32,
}

impl Recording {
    pub(super) fn new(inner: Waker, slot: SlotIndex, id: TaskId) -> Arc<Self> {
        Arc::new(Self { inner, slot, tenant: id.0 as u32 })
    }

    /// Whether it stands in front of `waker`, so that `Waker::will_wake` of ours says what that of `waker` would.
    pub(super) fn is_for(&self, waker: &Waker) -> bool {
        self.inner.will_wake(waker)
    }

    /// Runs `code` with a waker that is not counted as held, since it lives as long as the call.
    pub(super) fn lend<T>(self: &Arc<Self>, code: impl FnOnce(&Waker) -> T) -> T {
        let raw = RawWaker::new(Arc::as_ptr(self).cast(), &VTABLE);
        // SAFETY: the functions of `VTABLE` keep the contract of a waker for a pointer to a live `Recording` (see each). This
        // waker owns no count, and `ManuallyDrop` keeps it from giving one back; `self` keeps the pointer alive meanwhile.
        let waker = ManuallyDrop::new(unsafe { Waker::from_raw(raw) });
        code(&waker)
    }

    fn note(&self, what: impl FnOnce(&crate::registry::Registry, &crate::registry::wakes::Wakes, TaskId)) {
        if let Some(registry) = engine::registry()
            && let Some((id, wakes)) = registry.slots.wakes_of(self.slot, self.tenant)
        {
            what(registry, wakes, id);
        }
    }

    fn wake(&self) {
        self.note(|registry, wakes, id| wakes.wake(registry.clock.now(), id, mine::task()));
        self.inner.wake_by_ref();
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop);

// SAFETY: called by `Waker` only, as the three below, with the data of a waker made from `VTABLE`: a pointer from
// `Arc::into_raw` or `Arc::as_ptr` of an `Arc<Recording>` that is alive during the call.
unsafe fn clone(data: *const ()) -> RawWaker {
    let data = data.cast::<Recording>();
    // SAFETY: see above; the new waker owns the count that is added here.
    unsafe { Arc::increment_strong_count(data) };
    // SAFETY: see above.
    unsafe { &*data }.note(|_, wakes, _| wakes.add_waker());
    RawWaker::new(data.cast(), &VTABLE)
}

// SAFETY: as of `clone`.
unsafe fn wake(data: *const ()) {
    // SAFETY: see `clone`; waking by value takes the waker, so that its count is given back.
    unsafe {
        wake_by_ref(data);
        drop(data);
    }
}

// SAFETY: as of `clone`.
unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: see `clone`.
    unsafe { &*data.cast::<Recording>() }.wake();
}

// SAFETY: as of `clone`.
unsafe fn drop(data: *const ()) {
    let data = data.cast::<Recording>();
    // SAFETY: see `clone`.
    unsafe { &*data }.note(|_, wakes, _| wakes.remove_waker());
    // SAFETY: the waker that is dropped owned one count; lent ones are never dropped.
    unsafe { Arc::decrement_strong_count(data) };
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn wakes_arrive_and_every_count_is_given_back() {
        let counter = Arc::new(Counter(AtomicUsize::new(0)));
        let inner = Waker::from(Arc::clone(&counter));
        let recording = Recording::new(inner.clone(), SlotIndex(1), TaskId(7));
        let held = recording.lend(|waker| {
            assert!(waker.will_wake(&waker.clone()));
            waker.wake_by_ref();
            [waker.clone(), waker.clone()]
        });
        // Miri gives the standard library's constant vtable a new address with each waker.
        assert!(recording.is_for(&inner) || cfg!(miri));
        assert!(held[0].will_wake(&held[1]));
        let [first, second] = held;
        first.wake();
        std::mem::drop(recording);
        // The last one keeps what it needs.
        second.wake_by_ref();
        assert_eq!(counter.0.load(Relaxed), 3);
        std::mem::drop((second, inner));
        assert_eq!(Arc::strong_count(&counter), 1);
    }

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<Recording>(), 24, "40 bytes with the counts of its Arc: one block of 48");
    }
}
