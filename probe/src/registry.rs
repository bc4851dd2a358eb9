//! What capture writes and the probe's thread reads: task slots, thread lines, groups, labels, texts, slow polls and
//! ended tasks, in memory taken once at the start. Writers are application threads: nothing here locks, allocates or
//! waits. Past a capacity things are counted in [`Losses`] and not followed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use taskscope_proto::v1::loss::Reason;

use crate::clock::Clock;
use crate::engine::history;

pub(crate) mod groups;
pub(crate) mod index;
pub(crate) mod labels;
pub(crate) mod lines;
pub(crate) mod ring;
pub(crate) mod slots;
pub(crate) mod stats;
pub(crate) mod text;

use groups::Groups;
use index::Index;
use labels::Labels;
use lines::Lines;
use ring::Ring;
use slots::Slots;
use text::Texts;

/// Bytes of the registry that do not depend on the number of tasks; see [`Registry::with_budget`].
const FIXED_BYTES: usize = lines::BYTES + groups::BYTES + labels::BYTES + text::BYTES + RINGS_BYTES;
const SLOW_POLLS: usize = 1024;
const ENDED_TASKS: usize = 1024;
const RINGS_BYTES: usize = SLOW_POLLS * ring::entry_bytes::<SLOW_WORDS>()
    + ENDED_TASKS * ring::entry_bytes::<{ slots::ENDED_WORDS }>();

/// Words of a finished slow poll: task id, start word, duration in ns, group and label, slot kind and thread.
pub(crate) const SLOW_WORDS: usize = 5;

pub(crate) struct Registry {
    pub(crate) clock: Clock,
    /// A finished poll at least this long goes to [`Registry::slow_polls`].
    pub(crate) slow_poll_threshold_ns: u64,
    pub(crate) slots: Slots,
    pub(crate) index: Index,
    pub(crate) lines: Lines,
    pub(crate) groups: Groups,
    pub(crate) labels: Labels,
    pub(crate) texts: Texts,
    pub(crate) slow_polls: Ring<SLOW_WORDS>,
    pub(crate) ended: Ring<{ slots::ENDED_WORDS }>,
    pub(crate) losses: Losses,
    pub(crate) totals: Totals,
    /// The part of the budget that is the sampler's, for its history.
    pub(crate) history_bytes: usize,
    bytes: usize,
}

/// Process-wide counts since the probe began.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) spawned: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) panicked: AtomicU64,
    /// Tasks that have a slot now.
    pub(crate) followed: AtomicU64,
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

/// The smallest budget that holds anything: the fixed part, a thousand tasks, and the share of history.
pub(crate) const MIN_BUDGET: usize =
    (FIXED_BYTES + 1000 * (slots::SLOT_BYTES + index::BYTES_PER_SLOT)).div_ceil(7) * 8;

impl Registry {
    /// Takes all memory at once, as zero pages that cost nothing until they are written. `budget` below [`MIN_BUDGET`]
    /// is raised to it.
    pub(crate) fn with_budget(budget: usize, clock: Clock, slow_poll_threshold_ns: u64) -> Self {
        let budget = budget.max(MIN_BUDGET);
        let history_bytes = history::share_of(budget);
        let for_tasks = budget - history_bytes - FIXED_BYTES;
        let capacity = for_tasks / (slots::SLOT_BYTES + index::BYTES_PER_SLOT);
        let slots = Slots::with_capacity(capacity);
        let index = Index::for_slots(slots.capacity());
        let bytes = FIXED_BYTES + history_bytes + slots.capacity() * slots::SLOT_BYTES + index.bytes();
        Self {
            clock,
            slow_poll_threshold_ns,
            slots,
            index,
            lines: Lines::new(),
            groups: Groups::new(),
            labels: Labels::new(),
            texts: Texts::new(),
            slow_polls: Ring::with_capacity(SLOW_POLLS),
            ended: Ring::with_capacity(ENDED_TASKS),
            losses: Losses::default(),
            totals: Totals::default(),
            history_bytes,
            bytes,
        }
    }

    /// Bytes reserved for data.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
