//! What capture writes and the probe's thread reads: task slots, thread lines, groups, labels, texts, slow polls and
//! ended tasks, in memory taken once at the start. Writers are application threads: nothing here locks, allocates or
//! waits. Past a capacity things are counted in [`Losses`] and not followed.

use std::sync::atomic::AtomicU64;

use taskscope_proto::v1::loss::Reason;

use crate::clock::{Clock, Ticks};
use crate::engine::history;

mod arena;
pub(crate) mod cancellations;
pub(crate) mod figures;
mod free_list;
pub(crate) mod groups;
pub(crate) mod histograms;
pub(crate) mod index;
pub(crate) mod labels;
pub(crate) mod lines;
#[cfg(all(test, taskscope_loom))]
mod model;
pub(crate) mod ring;
pub(crate) mod sharded;
pub(crate) mod slots;
pub(crate) mod stamp;
#[cfg(all(test, not(taskscope_loom)))]
mod stress;
pub(crate) mod sync;
pub(crate) mod text;
pub(crate) mod thresholds;
pub(crate) mod unsorted;
pub(crate) mod wakes;

use cancellations::Cancellations;
use groups::Groups;
use histograms::Histograms;
use index::Index;
use labels::Labels;
use lines::Lines;
use ring::Ring;
use sharded::Sharded;
use slots::Slots;
use sync::Relaxed;
use text::Texts;
use thresholds::Thresholds;

const SLOW_POLLS: usize = 512;
const ENDED_TASKS: usize = 1024;
/// Tasks that panicked or failed, kept apart so that many that went well do not push them out.
const DIED_TASKS: usize = 128;
const LONG_STRETCHES: usize = 256;
const RINGS_BYTES: usize = SLOW_POLLS * ring::entry_bytes::<SLOW_WORDS>()
    + LONG_STRETCHES * ring::entry_bytes::<STRETCH_WORDS>()
    + (ENDED_TASKS + DIED_TASKS) * ring::entry_bytes::<{ slots::ENDED_WORDS }>();
const LINES: usize = 1024;
const MIN_LINES: usize = 128;

/// Words of a finished slow poll: task id, start in ticks, duration in ns, group and label, slot kind and thread.
pub(crate) const SLOW_WORDS: usize = 5;
/// Words of a finished labelled stretch: start in ticks, duration in ns, label.
pub(crate) const STRETCH_WORDS: usize = 3;

pub(crate) struct Registry {
    pub(crate) clock: Clock,
    /// A finished poll past its threshold goes to [`Registry::slow_polls`].
    pub(crate) thresholds: Thresholds,
    /// The least of them in ticks, and short enough for [`Clock::short_ns`].
    pub(crate) slow_poll_ticks: Ticks,
    pub(crate) slots: Slots,
    pub(crate) index: Index,
    pub(crate) lines: Lines,
    pub(crate) groups: Groups,
    pub(crate) group_polls: Histograms,
    /// How long tasks waited for a worker, by group. A store of its own: it folds other groups than that of polls does, and
    /// however many tasks wait, no poll goes unsorted for it.
    pub(crate) group_waits: Histograms,
    pub(crate) labels: Labels,
    pub(crate) label_polls: Histograms,
    pub(crate) texts: Texts,
    pub(crate) slow_polls: Ring<SLOW_WORDS>,
    /// Labelled stretches so long that the process may have stood still in them.
    pub(crate) long_stretches: Ring<STRETCH_WORDS>,
    pub(crate) ended: Ring<{ slots::ENDED_WORDS }>,
    /// By panic, or with an error that nobody is told.
    pub(crate) died: Ring<{ slots::ENDED_WORDS }>,
    pub(crate) cancellations: Cancellations,
    pub(crate) losses: Losses,
    pub(crate) totals: Totals,
    /// The part of the budget that is the sampler's, for its history.
    pub(crate) history_bytes: usize,
    /// Threads say where their stacks are.
    pub(crate) knows_stacks: bool,
    bytes: usize,
}

/// Process-wide counts since the probe began.
#[derive(Default)]
pub(crate) struct Totals {
    /// Distinct reasons (of panics and errors) that were stored as texts.
    pub(crate) reasons: AtomicU64,
    /// Tasks that have a slot now.
    pub(crate) followed: Sharded,
    /// Ended tasks that the ring had no room for: it keeps the first of each tick.
    pub(crate) unkept: Sharded,
    /// Of these, tasks that the wrapper follows without hooks.
    pub(crate) wrapped_alone: AtomicU64,
    /// Blocking jobs that the wrapper saw submitted, started and finished.
    pub(crate) jobs_submitted: AtomicU64,
    pub(crate) jobs_started: AtomicU64,
    pub(crate) jobs_finished: AtomicU64,
}

/// Counts of what was not followed, by reason.
#[derive(Default)]
pub(crate) struct Losses {
    counts: [AtomicU64; 32],
}

impl Losses {
    pub(crate) fn add(&self, reason: Reason, count: u64) {
        if let Some(counter) = self.counts.get(reason as usize) {
            counter.fetch_add(count, Relaxed);
        }
    }

    pub(crate) fn count(&self, reason: Reason) -> u64 {
        self.counts.get(reason as usize).map_or(0, |counter| counter.load(Relaxed))
    }
}

/// How a budget is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    lines: usize,
    texts: usize,
    group_polls: usize,
    group_waits: usize,
    label_polls: usize,
    /// For the history, which the probe's thread keeps.
    history: usize,
    tasks: usize,
}

impl Shares {
    const fn of(budget: usize) -> Self {
        let lines = clamp(budget >> 15, MIN_LINES, LINES);
        let texts = clamp(budget / 16, 0, 256 << 10);
        // A quarter in both.
        let label_polls = budget / 16;
        let group_polls = budget / 4 - label_polls;
        // Only of tasks whose wakes are seen, and spread over fewer octaves than polls.
        let group_waits = budget / 32;
        let history = history::share_of(budget);
        let fixed = groups::BYTES
            + labels::BYTES
            + text::TABLE_BYTES
            + RINGS_BYTES
            + cancellations::BYTES
            + lines * lines::BYTES_PER_LINE
            + texts
            + label_polls
            + group_polls
            + group_waits
            + history;
        Self {
            lines,
            texts,
            group_polls,
            group_waits,
            label_polls,
            history,
            tasks: budget.saturating_sub(fixed),
        }
    }

    const fn slots(self) -> usize {
        self.tasks / (slots::BYTES_PER_SLOT + index::BYTES_PER_SLOT)
    }
}

const fn clamp(n: usize, least: usize, most: usize) -> usize {
    if n < least {
        least
    } else if n > most {
        most
    } else {
        n
    }
}

/// The smallest budget that holds anything worth it.
pub(crate) const MIN_BUDGET: usize = 2 << 20;
const _: () = assert!(Shares::of(MIN_BUDGET).slots() >= 1000, "the smallest budget holds a thousand tasks");

impl Registry {
    /// Takes all memory at once, as zero pages that cost nothing until they are written. `budget` below [`MIN_BUDGET`]
    /// is raised to it.
    pub(crate) fn with_budget(budget: usize, clock: Clock, slow_poll_threshold_ns: u64) -> Self {
        Self::with_shares(Shares::of(budget.max(MIN_BUDGET)), clock, slow_poll_threshold_ns)
    }

    /// With room for so few that tests run out of everything: tasks, threads, and bytes of each kind of histograms.
    #[cfg(test)]
    pub(crate) fn tiny(tasks: usize, lines: usize, polls: usize, clock: Clock, threshold_ns: u64) -> Self {
        let tasks = (tasks + 1) * (slots::BYTES_PER_SLOT + index::BYTES_PER_SLOT);
        let (group_polls, group_waits, label_polls) = (polls, polls, polls);
        let shares =
            Shares { lines, texts: 16 << 10, group_polls, group_waits, label_polls, history: 0, tasks };
        Self::with_shares(shares, clock, threshold_ns)
    }

    fn with_shares(shares: Shares, clock: Clock, slow_poll_threshold_ns: u64) -> Self {
        let slots = Slots::with_capacity(shares.slots());
        let index = Index::of(&slots);
        let group_polls = Histograms::with_budget(shares.group_polls);
        let group_waits = Histograms::with_budget(shares.group_waits);
        let label_polls = Histograms::with_budget(shares.label_polls);
        let bytes = groups::BYTES
            + labels::BYTES
            + text::TABLE_BYTES
            + RINGS_BYTES
            + cancellations::BYTES
            + shares.lines * lines::BYTES_PER_LINE
            + shares.texts
            + group_polls.bytes()
            + group_waits.bytes()
            + label_polls.bytes()
            + shares.history
            + slots.capacity() * slots::BYTES_PER_SLOT
            + index.bytes();
        Self {
            slow_poll_ticks: clock.short_ticks(slow_poll_threshold_ns),
            clock,
            thresholds: Thresholds::of_all(slow_poll_threshold_ns),
            slots,
            index,
            lines: Lines::with_capacity(shares.lines),
            groups: Groups::new(),
            group_polls,
            group_waits,
            labels: Labels::new(),
            label_polls,
            texts: Texts::new(shares.texts),
            slow_polls: Ring::with_capacity(SLOW_POLLS),
            long_stretches: Ring::with_capacity(LONG_STRETCHES),
            ended: Ring::with_capacity(ENDED_TASKS),
            died: Ring::with_capacity(DIED_TASKS),
            cancellations: Cancellations::new(),
            losses: Losses::default(),
            totals: Totals::default(),
            history_bytes: shares.history,
            knows_stacks: false,
            bytes,
        }
    }

    /// With other thresholds for polls of tasks with a name, or of a class.
    pub(crate) fn with_thresholds(
        mut self,
        names: &[(String, u64)],
        classes: &[(taskscope_proto::v1::TaskClass, u64)],
    ) -> Self {
        for (name, ns) in names {
            if let Some(name) = self.texts.intern_parts(&[name]) {
                self.thresholds = self.thresholds.with_name(name, *ns);
            }
        }
        for &(class, ns) in classes {
            self.thresholds = self.thresholds.with_class(class, ns);
        }
        self.slow_poll_ticks = self.clock.short_ticks(self.thresholds.least());
        self
    }

    /// Whether each thread says with its first bracket where its stack is: it allocates for that.
    pub(crate) fn with_stacks(self, known: bool) -> Self {
        Self { knows_stacks: known, ..self }
    }

    /// The threshold of a poll of the task in a slot.
    pub(crate) fn threshold_ns(&self, group: taskscope_proto::ids::GroupId, flags: slots::Flags) -> u64 {
        self.thresholds.of(self.groups.entry(group).name(), flags.class())
    }

    /// Bytes reserved for data, the history's share included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(all(test, not(taskscope_loom)))]
impl Registry {
    /// A slot for a task of a test.
    pub(crate) fn follow(&self, id: u64, group: u32, flags: slots::Flags) -> slots::SlotIndex {
        let (id, group) = (taskscope_proto::ids::TaskId(id), taskscope_proto::ids::GroupId(group));
        let (spawned, fields) = (self.clock.now(), taskscope_proto::ids::Sid(0));
        self.slots.claim(slots::Tenancy { id, spawned, group, flags, fields }).expect("there is room")
    }
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_exceeded_and_nearly_all_of_it_is_used() {
        for budget in [MIN_BUDGET, 4 << 20, 32 << 20, 160 << 20, 1 << 30] {
            let registry = Registry::with_budget(budget, Clock::start(), 100_000_000);
            assert!(registry.bytes() <= budget, "{} of {budget}", registry.bytes());
            assert!(registry.slots.capacity() >= 1000, "{budget}");
        }
        let default = Registry::with_budget(32 << 20, Clock::start(), 100_000_000);
        assert!(default.slots.capacity() > 150_000, "{}", default.slots.capacity());
    }
}
