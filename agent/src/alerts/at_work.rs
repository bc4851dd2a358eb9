//! Tasks that take up a worker. One that has just begun to is not among those that have used the most since they began; its row is
//! asked for because it is always there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use taskscope_proto::v1;

/// Frames that are looked back on, and at how many of them a task is on a worker that takes it up.
const LOOKS: usize = 4;
const AGAIN: usize = 3;
/// It is asked for until it has not been seen for so long: a request that changes all the time is never answered.
const GONE_NS: u64 = 60_000_000_000;
/// Tasks asked for, and looked at in one frame.
const MOST: usize = 16;
const MOST_SEEN: usize = 64;

/// Which tasks were on a worker at the last frames, of one run of a target.
#[derive(Clone, Debug, Default)]
pub(super) struct AtWork {
    looks: VecDeque<BTreeSet<u64>>,
    /// Those that take up a worker, and when they were last seen on one.
    kept: BTreeMap<u64, u64>,
}

impl AtWork {
    pub(super) fn look(&mut self, frame: &v1::Frame) {
        let workers = frame.runtimes.iter().flat_map(|runtime| &runtime.workers);
        let polls = workers.filter_map(|worker| worker.poll.as_ref());
        // 0 is no task that has a row.
        let tasks = polls.map(|poll| poll.task_id).filter(|&id| id != 0);
        let now: BTreeSet<u64> = tasks.take(MOST_SEEN).collect();
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.kept.retain(|_, seen_ns| frame.at_ns < seen_ns.saturating_add(GONE_NS));
        for &id in &now {
            let times = 1 + self.looks.iter().filter(|look| look.contains(&id)).count();
            if let Some(seen_ns) = self.kept.get_mut(&id) {
                *seen_ns = frame.at_ns;
            } else if times >= AGAIN && self.kept.len() < MOST {
                self.kept.insert(id, frame.at_ns);
            }
        }
        self.looks.push_back(now);
    }

    /// Their ids.
    pub(super) fn tasks(&self) -> impl Iterator<Item = u64> + '_ {
        self.kept.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixture::{S, poll};

    fn look(at_work: &mut AtWork, second: u64, tasks: &[u64]) -> Vec<u64> {
        let worker = |&task_id: &u64| v1::Worker {
            poll: Some(v1::LivePoll { task_id, ..poll(1) }),
            ..Default::default()
        };
        let workers = tasks.iter().map(worker).chain([v1::Worker::default()]).collect();
        let runtimes = vec![v1::Runtime { workers, ..Default::default() }];
        at_work.look(&v1::Frame { at_ns: second * S, runtimes, ..Default::default() });
        at_work.tasks().collect()
    }

    #[test]
    fn a_task_that_is_always_there_is_asked_for_until_it_has_been_gone_for_a_while() {
        let mut at_work = AtWork::default();
        let mut seen = |second, tasks: &[u64]| look(&mut at_work, second, tasks);
        assert_eq!(seen(1, &[0, 3, 7]), [0; 0]);
        assert_eq!(seen(2, &[0, 7]), [0; 0]);
        assert_eq!(seen(3, &[0]), [0; 0], "0 is no task");
        assert_eq!(seen(4, &[3, 7]), [7], "at three of four looks, the other at two");
        assert_eq!(seen(5, &[4, 5]), [7]);
        assert_eq!(seen(63, &[]), [7]);
        assert_eq!(seen(64, &[]), [0; 0]);
    }

    #[test]
    fn there_are_never_many() {
        let mut at_work = AtWork::default();
        let many: Vec<u64> = (1..=1_000).collect();
        for second in 1..50 {
            look(&mut at_work, second, &many);
        }
        assert_eq!((at_work.kept.len(), at_work.looks.len()), (MOST, LOOKS));
        assert!(at_work.looks.iter().all(|look| look.len() <= MOST_SEEN));
    }
}
