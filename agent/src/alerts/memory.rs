//! What is remembered of one run of a target, so that rules can say how it has changed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use taskscope_proto::v1::{self, loss::Reason, pool::Kind};

use super::runtimes::RuntimeLabels;
use crate::model::Model;

mod populations;

pub(crate) use populations::{Population, Populations};

const S: u64 = 1_000_000_000;
/// How far back values of a target are remembered, and those that are many or change fast.
pub(crate) const LONG_NS: u64 = 600 * S;
pub(crate) const SHORT_NS: u64 = 60 * S;
/// Events are remembered by number: further back than this some of the window may be gone.
pub(crate) const EVENTS_NS: u64 = 3_600 * S;
/// Polls that are remembered as told while they ran.
const POLLS: usize = 1_000;

/// Values and when they were read, some time apart.
#[derive(Clone, Debug)]
pub(crate) struct Series<T> {
    samples: VecDeque<(u64, T)>,
    every_ns: u64,
    keep_ns: u64,
}

impl<T: Copy> Series<T> {
    pub(super) fn new(every_ns: u64, keep_ns: u64) -> Self {
        Self { samples: VecDeque::new(), every_ns, keep_ns }
    }

    pub(super) fn take(&mut self, at_ns: u64, value: T) {
        if self.samples.back().is_some_and(|(last, _)| at_ns < last + self.every_ns) {
            return;
        }
        self.samples.push_back((at_ns, value));
        // The first one is as old as what is asked for, or older.
        while self.samples.get(1).is_some_and(|(second, _)| second + self.keep_ns <= at_ns) {
            self.samples.pop_front();
        }
    }

    /// The last value that is at least that old; `None`: it was not looked at then.
    pub(crate) fn before(&self, at_ns: u64) -> Option<T> {
        let since_first = at_ns.checked_sub(self.samples.front()?.0)?;
        // They are that far apart, or further: it is there or before that, and most often there.
        let most = usize::try_from(since_first / self.every_ns.max(1)).unwrap_or(usize::MAX);
        let first = self.samples.range(..=most.min(self.samples.len() - 1));
        first.rev().find(|(sampled, _)| *sampled <= at_ns).map(|(_, value)| *value)
    }

    pub(crate) fn first(&self) -> Option<(u64, T)> {
        self.samples.front().copied()
    }

    pub(crate) fn last(&self) -> Option<T> {
        self.samples.back().map(|(_, value)| *value)
    }

    /// Since then, oldest first.
    pub(crate) fn since(&self, at_ns: u64) -> impl Iterator<Item = T> {
        let before = self.samples.partition_point(|(sampled, _)| *sampled < at_ns);
        self.samples.range(before..).map(|(_, value)| *value)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Work {
    pub(crate) polls: u64,
    pub(crate) busy_ns: u64,
    pub(crate) self_wakes: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Memory {
    /// What the probe has dropped, of what rules need.
    pub(crate) dropped: Series<u64>,
    /// Tasks that are alive.
    live: Series<u64>,
    /// Open file descriptors.
    pub(crate) files: Series<u64>,
    /// What alerts call the runtimes.
    pub(crate) runtimes: RuntimeLabels,
    /// Tasks that wait in the run queues, by id of the runtime.
    pub(crate) queues: BTreeMap<u32, Series<u64>>,
    pub(crate) groups: Populations,
    /// Of the rows that come with each frame, by id of the task.
    pub(crate) tasks: BTreeMap<u64, Series<Work>>,
    /// Polls that ran at a frame: task, when they began, and for how long they were last seen to run.
    polls: VecDeque<(u64, u64, u64)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            dropped: Series::new(S, LONG_NS),
            live: Series::new(5 * S, SHORT_NS),
            files: Series::new(S, LONG_NS),
            runtimes: RuntimeLabels::default(),
            queues: BTreeMap::new(),
            groups: Populations::default(),
            tasks: BTreeMap::new(),
            polls: VecDeque::new(),
        }
    }
}

impl Memory {
    pub(crate) fn take(&mut self, model: &Model) {
        let at_ns = model.frame.at_ns;
        self.dropped.take(at_ns, dropped(model));
        if let Some(totals) = &model.frame.totals {
            self.live.take(at_ns, totals.alive.unwrap_or(totals.followed));
        }
        let files = model.frame.pools.iter().find(|pool| pool.kind() == Kind::FileDescriptors);
        if let Some(open) = files.and_then(|pool| pool.busy) {
            self.files.take(at_ns, open);
        }
        let runtimes = &model.frame.runtimes;
        self.runtimes.take(runtimes);
        self.queues.retain(|id, _| runtimes.iter().any(|runtime| runtime.id == *id));
        for runtime in runtimes {
            if let Some(ready) = runtime.ready_tasks.or(runtime.global_queue) {
                let queue = self.queues.entry(runtime.id).or_insert_with(|| Series::new(S / 4, SHORT_NS));
                queue.take(at_ns, ready);
            }
        }
        if model.groups_are_new {
            self.groups.take(at_ns, model.groups());
        }
        let rows = model.rows().unwrap_or_default();
        for row in &rows {
            let now = Work {
                polls: row.polls,
                busy_ns: row.busy_ns,
                self_wakes: row.wakes.map(|wakes| wakes.by_itself),
            };
            self.tasks.entry(row.id.0).or_insert_with(|| Series::new(S, SHORT_NS)).take(at_ns, now);
        }
        if self.tasks.len() > rows.len() {
            let known: BTreeSet<u64> = rows.iter().map(|row| row.id.0).collect();
            self.tasks.retain(|id, _| known.contains(id));
        }
        self.see_polls(model, at_ns);
    }

    /// By how many there are more tasks than within the last minute.
    pub(crate) fn grown(&self) -> f64 {
        let least = self.live.since(0).min();
        least.zip(self.live.last()).map_or(0, |(least, now)| now - least) as f64
    }

    fn see_polls(&mut self, model: &Model, at_ns: u64) {
        let workers = model.frame.runtimes.iter().flat_map(|runtime| &runtime.workers);
        let on_workers = workers.filter_map(|worker| worker.poll.as_ref());
        let elsewhere = model.frame.threads.iter().filter_map(|thread| thread.poll.as_ref());
        for poll in on_workers.chain(elsewhere).filter(|poll| poll.since_ns >= S / 4) {
            let began_ns = at_ns.saturating_sub(poll.since_ns);
            match self.polls.iter_mut().find(|known| is_poll(known, poll.task_id, began_ns)) {
                Some((.., seen_ns)) => *seen_ns = poll.since_ns,
                None => self.polls.push_back((poll.task_id, began_ns, poll.since_ns)),
            }
        }
        while self.polls.len() > POLLS {
            self.polls.pop_front();
        }
    }

    /// For how long a poll that has ended was seen while it ran; `None`: it was not.
    pub(crate) fn seen_running(&self, event: &v1::Event, poll: &v1::LivePoll) -> Option<u64> {
        let began_ns = event.at_ns.saturating_sub(poll.since_ns);
        let known = self.polls.iter().find(|known| is_poll(known, poll.task_id, began_ns));
        known.map(|(.., seen_ns)| *seen_ns)
    }
}

/// Polls of one task begin further apart than the looks at one differ.
fn is_poll(known: &(u64, u64, u64), task_id: u64, began_ns: u64) -> bool {
    const APART_NS: u64 = 100_000_000;
    known.0 == task_id && known.1.abs_diff(began_ns) < APART_NS
}

/// Whether a loss may keep a rule from seeing what it is about. What is folded, cut or ended too fast does not.
pub(crate) fn blinds(loss: &v1::Loss) -> bool {
    matches!(
        loss.reason(),
        Reason::DroppedEvents
            | Reason::EvictedTasks
            | Reason::LostStrings
            | Reason::UnlinedThreads
            | Reason::LostCancellations
    )
}

fn dropped(model: &Model) -> u64 {
    model.frame.losses.iter().filter(|loss| blinds(loss)).map(|loss| loss.count).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixture::{model, poll};

    #[test]
    fn a_series_keeps_what_is_as_old_as_asked_for_and_not_more() {
        let mut series = Series::new(S, 10 * S);
        (0..400_u64).for_each(|quarter| series.take(quarter * S / 4, quarter));
        assert_eq!(series.samples.len(), 11);
        assert_eq!(series.first(), Some((89 * S, 356)));
        assert_eq!(series.before(95 * S), Some(380));
        assert_eq!(series.before(20 * S), None);
        assert_eq!(series.since(98 * S).collect::<Vec<_>>(), [392, 396]);
    }

    #[test]
    fn a_poll_that_was_seen_running_is_known_when_it_ends() {
        let mut memory = Memory::default();
        let worker = v1::Worker { poll: Some(poll(2 * S)), ..Default::default() };
        let runtimes = vec![v1::Runtime { id: 1, workers: vec![worker], ..Default::default() }];
        memory.take(&model(v1::Frame { runtimes, ..Default::default() }));
        // It began at 98 s, and ends at 101 s.
        let ended = v1::Event { at_ns: 101 * S, ..Default::default() };
        assert_eq!(memory.seen_running(&ended, &poll(3 * S)), Some(2 * S));
        assert_eq!(memory.seen_running(&ended, &poll(S)), None);
        assert_eq!(memory.seen_running(&ended, &v1::LivePoll { task_id: 9, ..poll(3 * S) }), None);
    }
}
