//! Atomics and zeroed memory; under `--cfg taskscope_loom` those of loom, so that the model tests run the real code.

pub(crate) use std::sync::atomic::Ordering;
pub(crate) use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

#[cfg(not(taskscope_loom))]
pub(crate) use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, fence};

#[cfg(taskscope_loom)]
pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, fence};

#[cfg(not(taskscope_loom))]
pub(crate) use bytemuck::Zeroable as Zeroed;
#[cfg(taskscope_loom)]
pub(crate) use std::default::Default as Zeroed;

/// `count` elements of zero bytes, for as long as the process lives.
#[cfg(not(taskscope_loom))]
pub(crate) fn zeroed<T: Zeroed>(count: usize) -> &'static [T] {
    #[cfg(all(target_os = "linux", not(miri)))]
    if let Some(mapped) = super::arena::map(count) {
        return mapped;
    }
    Box::leak(bytemuck::allocation::zeroed_slice_box(count))
}

#[cfg(taskscope_loom)]
pub(crate) fn zeroed<T: Zeroed>(count: usize) -> &'static [T] {
    Box::leak((0..count).map(|_| T::default()).collect())
}
