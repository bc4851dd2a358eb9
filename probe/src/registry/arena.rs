//! Memory that is taken once, is zero, and is never given back: pages that nothing was written to cost nothing, and a late
//! store harms nobody.
//!
//! It is not the allocator's, which fills zeroed memory with zeroes by hand where it has to be aligned to a cache line: that
//! would make all of it resident at the start.
#![allow(unsafe_code)]

use super::sync::{AtomicU32, Ordering, Zeroed};

/// Elements at fixed positions, at least one.
#[derive(Debug)]
pub(crate) struct Arena<T: 'static> {
    elements: &'static [T],
    /// Their number less one, where that number is a power of two; else 0.
    mask: usize,
}

impl<T> Clone for Arena<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Arena<T> {}

/// The position of an element of one arena: only [`Arena::position`] makes one, so that looking it up needs no check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position(u32);

impl Position {
    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

/// A [`Position`] that threads share; the first one where none was stored.
#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
#[repr(transparent)]
pub(crate) struct SharedPosition(AtomicU32);

impl SharedPosition {
    #[inline]
    pub(crate) fn load(&self, order: Ordering) -> Position {
        Position(self.0.load(order))
    }

    pub(crate) fn store(&self, position: Position, order: Ordering) {
        self.0.store(position.0, order);
    }

    /// Whether `from` was stored in it, and `to` is now.
    pub(crate) fn change(&self, from: Position, to: Position) -> bool {
        self.0.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl<T: Zeroed> Arena<T> {
    /// Of `count` elements, or of one.
    pub(crate) fn of(count: usize) -> Self {
        let count = count.clamp(1, u32::MAX as usize);
        let mask = if count.is_power_of_two() { count - 1 } else { 0 };
        Self { elements: super::sync::zeroed(count), mask }
    }
}

impl<T> Arena<T> {
    pub(crate) fn len(&self) -> usize {
        self.elements.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.elements)
    }

    pub(crate) fn get(&self, number: u32) -> Option<&'static T> {
        self.elements.get(number as usize)
    }

    /// The position of element `number`, if there is one.
    pub(crate) fn position(&self, number: u32) -> Option<Position> {
        ((number as usize) < self.elements.len()).then_some(Position(number))
    }

    /// The element at a position of this arena.
    ///
    /// A registry has one arena for each type of element, and positions do not leave it: one of another arena would be
    /// one of another type.
    #[inline]
    pub(crate) fn at(&self, position: Position) -> &'static T {
        debug_assert!((position.0 as usize) < self.elements.len());
        // SAFETY: `Arena::position`, which alone makes positions but for the first, checked that there is such an element; an
        // arena has a first one, and never shrinks.
        unsafe { self.elements.get_unchecked(position.0 as usize) }
    }

    /// The element whose number has the lower bits of `number`.
    #[inline]
    pub(crate) fn at_masked(&self, number: usize) -> &'static T {
        // SAFETY: `mask` is one less than the number of elements, or 0 where that is no power of two; nothing masked with it
        // is past the last element.
        unsafe { self.elements.get_unchecked(number & self.mask) }
    }
}

/// `count` elements of zero bytes at the start of a page; `None` where the system has no memory.
#[cfg(all(target_os = "linux", not(miri), not(taskscope_loom)))]
pub(super) fn map<T: bytemuck::Zeroable>(count: usize) -> Option<&'static [T]> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

    /// Of every system that Linux runs on, at least.
    const PAGE: usize = 4096;
    const { assert!(align_of::<T>() <= PAGE) };
    let bytes = count.checked_mul(size_of::<T>()).filter(|&bytes| bytes > 0)?;
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
    // SAFETY: a new anonymous mapping at an address of the system's choice touches nothing that exists.
    let start = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, protection, flags) }.ok()?;
    // SAFETY: the mapping has room for `count` elements, begins at a page (and so is aligned for `T`), is zero, which is a
    // value of `T` (`Zeroable`), is known to nobody else, and is never unmapped.
    Some(unsafe { std::slice::from_raw_parts(start.cast::<T>(), count) })
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use super::*;
    use crate::registry::sync::{AtomicU64, Relaxed};

    #[derive(bytemuck::Zeroable)]
    #[repr(align(64))]
    struct Line([AtomicU64; 8]);

    #[test]
    fn positions_exist_only_of_what_is_there() {
        let arena: Arena<Line> = Arena::of(8);
        assert_eq!((arena.len(), arena.bytes(), arena.position(8)), (8, 512, None));
        let last = arena.position(7).expect("the eighth");
        arena.at(last).0[0].store(5, Relaxed);
        assert_eq!(arena.at_masked(15).0[0].load(Relaxed), 5);
        assert!(arena.get(7).is_some() && arena.get(8).is_none());
        let odd: Arena<Line> = Arena::of(7);
        odd.at(Position(0)).0[0].store(9, Relaxed);
        assert_eq!(odd.at_masked(5).0[0].load(Relaxed), 9, "no mask fits: the first");
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn memory_that_is_not_written_is_not_resident() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/smaps_rollup").expect("/proc is there");
            let line = status.lines().find(|line| line.starts_with("Rss:")).expect("it tells");
            line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number")
        };
        let before = resident();
        let arena: Arena<Line> = Arena::of(1 << 20);
        // 64 MiB; other tests of this process take some, too.
        assert!(resident() < before + (32 << 10));
        assert_eq!(arena.get(1 << 19).map(|line| line.0[3].load(Relaxed)), Some(0));
    }
}
