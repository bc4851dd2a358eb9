//! Polls that were counted longer than they were, because the process stood still in them.

use std::collections::{HashMap, VecDeque};

const EXCUSED_KEPT: usize = 1024;

/// Tasks whose polls were counted with time in which the process stood still: the last [`EXCUSED_KEPT`] of them.
#[derive(Default)]
pub(super) struct Excused {
    tasks: HashMap<u64, ExcusedTask>,
    order: VecDeque<u64>,
}

#[derive(Default)]
struct ExcusedTask {
    paused_ns: u64,
    /// The longest such poll as it was counted, and without the pause.
    counted_ns: u64,
    awake_ns: u64,
}

impl Excused {
    pub(super) fn add(&mut self, task: u64, counted_ns: u64, awake_ns: u64) {
        if !self.tasks.contains_key(&task) {
            if self.order.len() == EXCUSED_KEPT
                && let Some(oldest) = self.order.pop_front()
            {
                self.tasks.remove(&oldest);
            }
            self.order.push_back(task);
        }
        let excused = self.tasks.entry(task).or_default();
        excused.paused_ns += counted_ns - awake_ns;
        if counted_ns > excused.counted_ns {
            (excused.counted_ns, excused.awake_ns) = (counted_ns, awake_ns);
        }
    }

    pub(super) fn has(&self, task: u64) -> bool {
        self.tasks.contains_key(&task)
    }

    /// Busy time and longest poll of a task as its slot counts them, without the time in which the process stood still.
    pub(super) fn without(&self, task: u64, busy_ns: u64, longest_ns: u64) -> (u64, u64) {
        let Some(excused) = self.tasks.get(&task) else { return (busy_ns, longest_ns) };
        let longest_ns = if longest_ns == excused.counted_ns { excused.awake_ns } else { longest_ns };
        (busy_ns.saturating_sub(excused.paused_ns), longest_ns)
    }
}
