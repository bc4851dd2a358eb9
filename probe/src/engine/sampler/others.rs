//! The application's threads that Tokio does not know: which of them a watcher who asks is shown, the busiest first. Nobody
//! looks at them unasked: a signal ends system calls of theirs that never restart.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::thread::NoStack;
use taskscope_proto::v1::thread_activity::State;

use super::Sampler;
use super::stacks::SeenThread;
use crate::engine::activity;
use crate::own_threads;
use crate::stacks::schedule::Target;

/// Shown of one round.
const AT_ONCE: usize = 64;
/// Threads whose CPU time is read in one round, some microseconds of the probe's thread each.
const READ: usize = 2048;

/// What is remembered of them from one round to the next.
#[derive(Default)]
pub(super) struct Others {
    /// CPU time, ns.
    cpu_ns: HashMap<u32, u64>,
}

impl Others {
    /// The ones that used the most CPU since they were last looked at (one that never was: since it began), at most
    /// [`AT_ONCE`]. What is known of threads that are not among `now` is forgotten.
    fn busiest(&mut self, now: &[(u32, Option<u64>)]) -> Vec<u32> {
        let used_ns = |tid: u32, cpu_ns: Option<u64>| {
            let cpu_ns = cpu_ns?;
            // A smaller one is of a thread that ended: its number was given out again.
            Some(self.cpu_ns.get(&tid).and_then(|&before| cpu_ns.checked_sub(before)).unwrap_or(cpu_ns))
        };
        let mut sorted: Vec<(u32, Option<u64>)> =
            now.iter().map(|&(tid, cpu_ns)| (tid, used_ns(tid, cpu_ns))).collect();
        sorted.sort_unstable_by_key(|&(tid, used_ns)| (Reverse(used_ns), tid));
        sorted.truncate(AT_ONCE);
        self.cpu_ns = now.iter().filter_map(|&(tid, cpu_ns)| Some((tid, cpu_ns?))).collect();
        sorted.into_iter().map(|(tid, _)| tid).collect()
    }
}

impl Sampler {
    /// Looks at what they do, and gives those whose stack can be taken. `jobs` may run jobs of the pool, and are none of them.
    pub(super) fn others(&mut self, round: u64, jobs: &[(u32, String)]) -> Vec<Target> {
        let runs = self.lines.iter().filter(|it| it.bracket.is_some() || it.worker.is_some() || it.polls);
        let known: HashSet<u32> = runs
            .map(|line| line.tid)
            .chain(jobs.iter().map(|&(tid, _)| tid))
            .chain(own_threads::all())
            .collect();
        let mut tids = activity::threads();
        tids.retain(|tid| !known.contains(tid));
        tids.sort_unstable();
        let all = tids.len();
        tids.truncate(READ);
        let now: Vec<(u32, Option<u64>)> =
            tids.into_iter().map(|tid| (tid, activity::cpu_time(tid).map(|cpu| cpu.on_cpu_ns))).collect();
        let busiest = self.stacks.others.busiest(&now);
        self.engine.registry.losses.add(Reason::LostStacks, (all - busiest.len()) as u64);
        let mut targets = Vec::new();
        for tid in busiest {
            // It has ended.
            let Some(look) = activity::look(tid) else { continue };
            let awake_ns = self.pauses.awake(self.now_ns());
            let name = activity::name(tid).unwrap_or_default();
            let thread = self.stacks.threads.entry(tid).or_insert_with(|| SeenThread::new(&name, awake_ns));
            // Nothing can interrupt it there: a signal would be taken much later, and waited for in vain.
            let can_answer = !matches!(look.state, State::DiskSleep | State::Stopped);
            thread.begin_round(round, &name, (awake_ns, look), (!can_answer).then_some(NoStack::NoAnswer));
            if can_answer {
                targets.push(Target { tid, bracket: None });
            }
        }
        targets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_since_the_last_look_come_first_and_no_more_than_there_is_room_for() {
        let mut others = Others::default();
        // Never looked at: what they used since they began. Of one nothing is known.
        assert_eq!(others.busiest(&[(1, Some(900)), (2, Some(50)), (3, None)]), [1, 2, 3]);
        // Since then.
        assert_eq!(others.busiest(&[(1, Some(910)), (2, Some(90)), (4, Some(20))]), [2, 4, 1]);
        // Another thread of the same number.
        assert_eq!(others.busiest(&[(1, Some(911)), (2, Some(5))]), [2, 1]);
        assert_eq!(others.cpu_ns.len(), 2);
        let many: Vec<_> = (1..=500).map(|tid| (tid, Some(u64::from(tid)))).collect();
        let busiest = Others::default().busiest(&many);
        assert_eq!((busiest.len(), busiest[0], busiest[AT_ONCE - 1]), (AT_ONCE, 500, 437));
    }
}
