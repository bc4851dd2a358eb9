//! Tasks that were asked to stop, since when, and what they had done until then. Few tasks are, so that they have a table
//! of their own; past it a request is counted, not remembered.

use taskscope_proto::ids::TaskId;

use super::sync::{AcqRel, Acquire, AtomicU64, Relaxed, Release, zeroed};
use crate::clock::Ticks;

const CAP: usize = 1024;
/// Entries looked at before a request counts as lost.
const PROBES: usize = 16;
pub(crate) const BYTES: usize = CAP * size_of::<Entry>();

#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
struct Entry {
    /// 0: free.
    task: AtomicU64,
    /// 0: being filled.
    since: AtomicU64,
    polls: AtomicU64,
    wakes: AtomicU64,
}

/// A request as it was when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) since: Ticks,
    pub(crate) polls: u64,
    pub(crate) wakes: u64,
}

pub(crate) struct Cancellations {
    entries: &'static [Entry],
}

impl Cancellations {
    pub(crate) fn new() -> Self {
        Self { entries: zeroed(CAP) }
    }

    fn places(&self, task: TaskId) -> impl Iterator<Item = &'static Entry> + use<> {
        let entries = self.entries;
        let hash = (task.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize;
        (0..PROBES).map(move |step| &entries[hash.wrapping_add(step) % CAP])
    }

    /// Remembers the first request to `task`. False: there is no room.
    pub(crate) fn ask(&self, task: TaskId, asked: Asked) -> bool {
        if self.find(task).is_some() {
            return true;
        }
        let free =
            self.places(task).find(|place| place.task.compare_exchange(0, task.0, AcqRel, Relaxed).is_ok());
        let Some(entry) = free else { return false };
        entry.polls.store(asked.polls, Relaxed);
        entry.wakes.store(asked.wakes, Relaxed);
        entry.since.store(asked.since.max(1), Release);
        true
    }

    pub(crate) fn find(&self, task: TaskId) -> Option<Asked> {
        let entry = self.places(task).find(|place| place.task.load(Acquire) == task.0)?;
        let since = entry.since.load(Acquire);
        let asked = Asked { since, polls: entry.polls.load(Relaxed), wakes: entry.wakes.load(Relaxed) };
        (since != 0 && entry.task.load(Acquire) == task.0).then_some(asked)
    }

    /// The task has ended.
    pub(crate) fn forget(&self, task: TaskId) {
        for entry in self.places(task).filter(|place| place.task.load(Acquire) == task.0) {
            entry.since.store(0, Relaxed);
            entry.task.store(0, Release);
        }
    }
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_is_kept_until_the_task_ends() {
        let table = Cancellations::new();
        let first = Asked { since: 5, polls: 1, wakes: 2 };
        assert!(table.ask(TaskId(9), first) && table.ask(TaskId(9), Asked { since: 8, ..first }));
        assert_eq!((table.find(TaskId(9)), table.find(TaskId(8))), (Some(first), None));
        table.forget(TaskId(9));
        assert_eq!(table.find(TaskId(9)), None);
    }

    #[test]
    fn a_full_table_says_so() {
        let table = Cancellations::new();
        let asked = Asked { since: 5, polls: 0, wakes: 0 };
        let kept = (1..5000).filter(|&task| table.ask(TaskId(task), asked)).count();
        assert!((900..=CAP).contains(&kept), "{kept}");
    }
}
