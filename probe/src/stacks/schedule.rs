//! When stacks are taken. A pure machine; times are ns on the probe's clock.
//!
//! A poll is looked at when it passes its threshold and then every 250 ms, a job of the blocking pool and a body of `main` from
//! half a second on once a second; never more than eight in a second over all, and those that waited longest first.

use std::collections::{HashMap, VecDeque};

use crate::clock::Ticks;

/// Stacks taken within any second.
const A_SECOND: usize = 8;
/// Of these, so many are kept for polls that were not looked at yet.
const KEPT_FOR_FIRST: usize = 2;
const SECOND_NS: u64 = 1_000_000_000;
const POLLS_EVERY_NS: u64 = 250_000_000;
const OTHERS_EVERY_NS: u64 = SECOND_NS;
/// From this age on, what may block is looked at.
pub(crate) const OLD_NS: u64 = 500_000_000;
/// Of these, so many: the oldest.
const JOBS: usize = 16;
/// Threads that show nothing but their stack.
pub(crate) const THREADS: usize = 4;

/// Whose stack: the bracket that is open on a line, or just a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) tid: u32,
    /// Position of the line, and the start of the bracket on it.
    pub(crate) bracket: Option<(usize, Ticks)>,
}

/// In the order in which they come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// It has passed its threshold, and holds up a worker.
    Poll,
    /// It may block: a job of the pool, the body of `main`, a labelled stretch on a thread of the application's.
    Job,
    /// A thread that may run a job which is not followed.
    Thread,
}

/// What could be looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) target: Target,
    pub(crate) kind: Kind,
    pub(crate) since_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    at_ns: Option<u64>,
    /// How many were asked before it.
    turn: Option<u64>,
    under_way: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Schedule {
    asked: HashMap<Target, Asked>,
    /// The last ones that were taken.
    recent: VecDeque<u64>,
    turns: u64,
}

impl Schedule {
    /// Which are to be looked at now.
    pub(crate) fn due(&mut self, now_ns: u64, candidates: &[Candidate]) -> Vec<Target> {
        self.asked.retain(|target, asked| {
            asked.under_way || candidates.iter().any(|candidate| candidate.target == *target)
        });
        let mut wanted: Vec<Candidate> = candidates.to_vec();
        wanted.sort_by_key(|candidate| {
            (candidate.kind, std::cmp::Reverse(candidate.since_ns), candidate.target)
        });
        let (mut jobs, mut threads) = (0, 0);
        wanted.retain(|candidate| match candidate.kind {
            Kind::Poll => true,
            Kind::Job => {
                jobs += 1;
                jobs <= JOBS && candidate.since_ns >= OLD_NS
            }
            Kind::Thread => {
                threads += 1;
                threads <= THREADS
            }
        });
        wanted.retain(|candidate| {
            let asked = self.asked.get(&candidate.target).copied().unwrap_or_default();
            let every_ns = if candidate.kind == Kind::Poll { POLLS_EVERY_NS } else { OTHERS_EVERY_NS };
            !asked.under_way && asked.at_ns.is_none_or(|at_ns| now_ns >= at_ns.saturating_add(every_ns))
        });
        // Never looked at comes first, then what waited longest; of equals, as above.
        wanted.sort_by_key(|candidate| self.asked.get(&candidate.target).and_then(|asked| asked.turn));
        while self.recent.front().is_some_and(|&at_ns| now_ns >= at_ns.saturating_add(SECOND_NS)) {
            self.recent.pop_front();
        }
        wanted.retain(|candidate| {
            let is_first = candidate.kind == Kind::Poll && !self.asked.contains_key(&candidate.target);
            let room = if is_first { A_SECOND } else { A_SECOND - KEPT_FOR_FIRST };
            let goes = self.recent.len() < room;
            if goes {
                self.recent.push_back(now_ns);
                self.turns += 1;
                let asked = Asked { at_ns: Some(now_ns), turn: Some(self.turns), under_way: true };
                self.asked.insert(candidate.target, asked);
            }
            goes
        });
        wanted.into_iter().map(|candidate| candidate.target).collect()
    }

    /// Whether its stack is being taken.
    pub(crate) fn is_under_way(&self, target: Target) -> bool {
        self.asked.get(&target).is_some_and(|asked| asked.under_way)
    }

    pub(crate) fn answered(&mut self, target: Target) {
        if let Some(asked) = self.asked.get_mut(&target) {
            asked.under_way = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn target(tid: u32) -> Target {
        Target { tid, bracket: Some((tid as usize, 7)) }
    }

    fn of(kind: Kind, tid: u32, since_ns: u64) -> Candidate {
        Candidate { target: target(tid), kind, since_ns }
    }

    /// Ticks of 50 ms for `ms`, each answered at once; gives how often each thread was looked at.
    fn run(schedule: &mut Schedule, ms: u64, candidates: &[Candidate]) -> Vec<(u32, usize)> {
        let mut counts: std::collections::BTreeMap<u32, usize> = Default::default();
        for tick in 0..ms / 50 {
            for due in schedule.due(tick * 50 * MS, candidates) {
                *counts.entry(due.tid).or_default() += 1;
                schedule.answered(due);
            }
        }
        counts.into_iter().collect()
    }

    #[test]
    fn a_poll_is_looked_at_at_once_and_then_four_times_a_second() {
        let mut schedule = Schedule::default();
        let poll = [of(Kind::Poll, 1, 100 * MS)];
        assert_eq!(schedule.due(0, &poll), [target(1)]);
        assert!(schedule.is_under_way(target(1)));
        // As long as the answer is not there, it is not asked again.
        assert_eq!(schedule.due(900 * MS, &poll), []);
        schedule.answered(target(1));
        assert_eq!(schedule.due(900 * MS, &poll), [target(1)]);
        schedule.answered(target(1));
        assert_eq!(schedule.due(1_149 * MS, &poll), []);
        assert_eq!(schedule.due(1_150 * MS, &poll), [target(1)]);
    }

    #[test]
    fn many_blocked_workers_share_what_there_is_in_a_second_evenly() {
        let polls: Vec<_> = (1..=6).map(|tid| of(Kind::Poll, tid, u64::from(tid) * 500 * MS)).collect();
        let counts = run(&mut Schedule::default(), 6_000, &polls);
        assert!(counts.len() == 6 && counts.iter().all(|&(_, count)| count == 6), "{counts:?}");
    }

    #[test]
    fn in_no_second_are_more_than_eight() {
        let mut schedule = Schedule::default();
        let mut at: Vec<u64> = Vec::new();
        for tick in 0..200 {
            let now_ns = tick * 13 * MS;
            let fresh: Vec<_> = (0..20).map(|n| of(Kind::Poll, (tick * 20 + n) as u32, 0)).collect();
            for due in schedule.due(now_ns, &fresh) {
                at.push(now_ns);
                schedule.answered(due);
            }
        }
        assert!(at.len() >= 16 && at.windows(9).all(|nine| nine[8] >= nine[0] + SECOND_NS));
    }

    #[test]
    fn jobs_are_looked_at_once_a_second_the_oldest_first_and_young_ones_not_at_all() {
        let mut jobs =
            vec![of(Kind::Job, 1, 900 * MS), of(Kind::Job, 2, 600 * MS), of(Kind::Job, 3, 499 * MS)];
        let mut schedule = Schedule::default();
        assert_eq!(schedule.due(0, &jobs), [target(1), target(2)]);
        let counts = run(&mut Schedule::default(), 5_000, &jobs);
        assert_eq!(counts, [(1, 5), (2, 5)]);
        // Forty of them: the sixteen oldest, each as often as there is room.
        jobs = (1..=40).map(|tid| of(Kind::Job, tid, u64::from(tid) * 1_000 * MS)).collect();
        let counts = run(&mut Schedule::default(), 4_000, &jobs);
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<usize>(), 24);
        assert!(
            counts.len() == 16 && counts.iter().all(|&(tid, count)| tid > 24 && count <= 2),
            "{counts:?}"
        );
    }

    #[test]
    fn a_poll_that_has_just_become_slow_comes_before_jobs_that_were_looked_at() {
        let mut schedule = Schedule::default();
        let mut all: Vec<_> = (1..=7).map(|tid| of(Kind::Job, tid, 5_000 * MS)).collect();
        assert_eq!(schedule.due(0, &all).len(), 6);
        all.iter().for_each(|job| schedule.answered(job.target));
        all.push(of(Kind::Poll, 50, 100 * MS));
        assert_eq!(schedule.due(500 * MS, &all), [target(50)]);
    }

    #[test]
    fn of_threads_without_a_bracket_few_are_looked_at() {
        let threads: Vec<_> = (1..=9)
            .map(|tid| Candidate { target: Target { tid, bracket: None }, kind: Kind::Thread, since_ns: 0 })
            .collect();
        let counts = run(&mut Schedule::default(), 3_000, &threads);
        assert_eq!(counts, [(1, 3), (2, 3), (3, 3), (4, 3)]);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut schedule = Schedule::default();
        schedule.due(0, &[of(Kind::Poll, 1, 0)]);
        schedule.due(1, &[]);
        assert!(schedule.is_under_way(target(1)), "its answer is still to come");
        schedule.answered(target(1));
        schedule.due(2, &[]);
        assert!(schedule.asked.is_empty());
    }
}
