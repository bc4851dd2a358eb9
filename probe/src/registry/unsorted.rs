//! Polls of a group, or stretches of a label, that no histogram counts, because it had no memory at that moment; and the
//! longest of all.

use super::sync::{AtomicU64, Relaxed};

#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
pub(crate) struct Unsorted {
    polls: AtomicU64,
    busy_ns: AtomicU64,
    longest_ns: AtomicU64,
}

impl Unsorted {
    #[cold]
    pub(crate) fn add(&self, ns: u64) {
        self.polls.fetch_add(1, Relaxed);
        self.busy_ns.fetch_add(ns, Relaxed);
    }

    /// Number and time.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.polls.load(Relaxed), self.busy_ns.load(Relaxed))
    }

    /// Raises the longest to `ns`, sorted or not.
    pub(crate) fn note_length(&self, ns: u64) {
        if ns > self.longest_ns.load(Relaxed) {
            self.longest_ns.fetch_max(ns, Relaxed);
        }
    }

    pub(crate) fn longest_ns(&self) -> u64 {
        self.longest_ns.load(Relaxed)
    }
}
