//! Positions of an arena that can be given out: those that were never used, and those that came back. Lock-free; a count
//! in the head tells a list from the same list after its first element went and came back.

use super::sync::{AcqRel, Acquire, AtomicU32, AtomicU64, Relaxed, Release};

pub(crate) struct FreeList {
    /// A count against reuse in the upper half, position plus one of the first free element in the lower.
    head: AtomicU64,
    /// Positions below were given out before.
    used: AtomicU32,
    capacity: u32,
}

impl FreeList {
    /// Gives out the positions from `first` up to `capacity`.
    pub(crate) fn new(first: u32, capacity: usize) -> Self {
        let capacity = u32::try_from(capacity).unwrap_or(u32::MAX - 1);
        Self { head: AtomicU64::new(0), used: AtomicU32::new(first), capacity }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Positions from here on were never given out.
    pub(crate) fn used(&self) -> u32 {
        self.used.load(Acquire).min(self.capacity)
    }

    /// A position of the caller's own; `None` where all are taken. `next` reads what `put_back` wrote beside a position.
    pub(crate) fn take(&self, next: impl Fn(u32) -> u32) -> Option<u32> {
        let mut head = self.head.load(Acquire);
        while let Some(position) = (head as u32).checked_sub(1) {
            let after = counted(head, next(position));
            match self.head.compare_exchange_weak(head, after, AcqRel, Acquire) {
                Ok(_) => return Some(position),
                Err(other) => head = other,
            }
        }
        let room = |used: u32| (used < self.capacity).then_some(used + 1);
        self.used.fetch_update(AcqRel, Relaxed, room).ok()
    }

    /// Gives `position` back. `set_next` stores a word beside it that `take` reads again.
    pub(crate) fn put_back(&self, position: u32, set_next: impl Fn(u32)) {
        let mut head = self.head.load(Relaxed);
        loop {
            set_next(head as u32);
            match self.head.compare_exchange_weak(head, counted(head, position + 1), Release, Relaxed) {
                Ok(_) => return,
                Err(other) => head = other,
            }
        }
    }
}

/// `first` as the new head after `head`.
fn counted(head: u64, first: u32) -> u64 {
    (head >> 32).wrapping_add(1) << 32 | u64::from(first)
}
