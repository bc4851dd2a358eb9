//! Pools over time: since when they are full, how long their oldest job has waited, and what their capacity is.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use taskscope_proto::v1;

use crate::pool::PoolSample;
use crate::registry::Registry;
use crate::runtimes::{RuntimeEntry, unstable};

/// A queue seen this long with no idle thread and no new one means that Tokio will not start another: the pool is full.
const LEARN_AFTER_NS: u64 = 250_000_000;
const PUSHES_KEPT: usize = 4096;
/// Numbers that are older say so.
const STALE_NS: u64 = 2_000_000_000;

#[derive(Default)]
pub(crate) struct Pools {
    blocking: HashMap<u32, Blocking>,
    user: Vec<User>,
}

#[derive(Default)]
struct Blocking {
    queue: Queue,
    queued_since_ns: Option<u64>,
    /// Busy threads when that began.
    began: u64,
    saturated_since_ns: Option<u64>,
    pool: Option<v1::Pool>,
}

struct User {
    name: String,
    saturated_since_ns: Option<u64>,
    pool: v1::Pool,
}

/// When jobs came, from counts alone: jobs start in the order in which they came.
#[derive(Default)]
struct Queue {
    /// Instant at which the number of submitted jobs was first seen, ascending in both.
    submitted: VecDeque<(u64, u64)>,
}

impl Queue {
    /// `started` of `submitted` jobs have started. Returns how long the next one to start has waited at least.
    fn tick(&mut self, now_ns: u64, submitted: u64, started: u64) -> Option<u64> {
        if self.submitted.back().is_none_or(|&(_, seen)| submitted > seen) {
            if self.submitted.len() == PUSHES_KEPT {
                // Merging the two oldest keeps what is said a lower bound.
                self.submitted.pop_front();
            }
            self.submitted.push_back((now_ns, submitted));
        }
        while self.submitted.front().is_some_and(|&(_, seen)| seen <= started) {
            self.submitted.pop_front();
        }
        if submitted <= started {
            return None;
        }
        self.submitted.front().map(|&(at, _)| now_ns.saturating_sub(at))
    }
}

/// Counts of Tokio's pool, however they were come by.
#[derive(Clone, Copy)]
struct Counts {
    busy: u64,
    idle: Option<u64>,
    queued: u64,
    submitted: u64,
}

fn count(runtime: &RuntimeEntry, registry: &Registry) -> Option<Counts> {
    let from_tokio = runtime.facts().and_then(|facts| unstable::blocking_pool(&facts.metrics));
    if let Some(pool) = from_tokio {
        let busy = pool.threads.saturating_sub(pool.idle);
        let submitted = runtime.foreign_ended.load(Relaxed) + busy + pool.queued;
        return Some(Counts { busy, idle: Some(pool.idle), queued: pool.queued, submitted });
    }
    // On stable Tokio only the wrapper's jobs are known.
    let totals = &registry.totals;
    let finished = totals.jobs_finished.load(Relaxed);
    let started = totals.jobs_started.load(Relaxed);
    let submitted = totals.jobs_submitted.load(Relaxed);
    (!unstable::HOOKS && submitted > 0).then(|| Counts {
        busy: started.saturating_sub(finished),
        idle: None,
        queued: submitted.saturating_sub(started),
        submitted,
    })
}

impl Pools {
    pub(crate) fn tick(&mut self, now_ns: u64, runtimes: &[Arc<RuntimeEntry>], registry: &Registry) {
        self.blocking.retain(|id, _| runtimes.iter().any(|runtime| runtime.id == *id));
        for runtime in runtimes {
            let state = self.blocking.entry(runtime.id).or_default();
            state.pool = count(runtime, registry).map(|counts| state.tick(now_ns, runtime, &counts));
        }
    }

    /// What a pool of the application's has said, `age_ns` ago.
    pub(crate) fn user(&mut self, now_ns: u64, name: &str, sample: PoolSample, age_ns: u64) {
        let position = self.user.iter().position(|user| user.name == name).unwrap_or_else(|| {
            let pool =
                v1::Pool { name: name.to_owned(), kind: v1::pool::Kind::User.into(), ..v1::Pool::default() };
            self.user.push(User { name: name.to_owned(), saturated_since_ns: None, pool });
            self.user.len() - 1
        });
        let user = &mut self.user[position];
        let full = matches!((sample.capacity, sample.busy), (Some(capacity), Some(busy)) if busy >= capacity);
        let saturated = full && sample.queued.is_some_and(|queued| queued > 0);
        user.pool.capacity = sample.capacity;
        user.pool.busy = sample.busy;
        user.pool.idle = sample.idle;
        user.pool.queued = sample.queued;
        user.pool.oldest_wait_ns = sample.oldest_wait.map(|wait| wait.as_nanos() as u64);
        user.pool.acquire_timeouts_total = sample.acquire_timeouts;
        user.pool.age_ns = Some(age_ns).filter(|&age| age >= STALE_NS);
        user.pool.saturated_ns = since(&mut user.saturated_since_ns, saturated, now_ns);
    }

    /// Forgets the pools of the application that are not to be kept.
    pub(crate) fn keep_users(&mut self, keep: impl Fn(&str) -> bool) {
        self.user.retain(|user| keep(&user.name));
    }

    /// Whether jobs wait for a thread of a blocking pool, for so long that it matters what its threads do.
    pub(crate) fn has_blocked_jobs(&self, long_ns: u64) -> bool {
        self.blocking.values().filter_map(|state| state.pool.as_ref()).any(|pool| {
            pool.saturated_ns.is_some() || pool.oldest_wait_ns.is_some_and(|waited_ns| waited_ns >= long_ns)
        })
    }

    /// All of them, Tokio's first.
    pub(crate) fn all(&self) -> Vec<v1::Pool> {
        let mut blocking: Vec<_> = self.blocking.values().filter_map(|state| state.pool.clone()).collect();
        blocking.sort_by_key(|pool| pool.runtime_id);
        blocking.extend(self.user.iter().map(|user| user.pool.clone()));
        blocking
    }
}

impl Blocking {
    fn tick(&mut self, now_ns: u64, runtime: &RuntimeEntry, counts: &Counts) -> v1::Pool {
        let oldest_wait_ns = self.queue.tick(now_ns, counts.submitted, counts.submitted - counts.queued);
        let stands = counts.queued > 0 && counts.idle.unwrap_or(0) == 0 && counts.busy > 0;
        // A new thread may still be waiting for a CPU: begin anew.
        if self.queued_since_ns.is_none() || counts.busy != self.began {
            self.queued_since_ns = None;
            self.began = counts.busy;
        }
        let queued_ns = since(&mut self.queued_since_ns, stands, now_ns);
        let stayed = queued_ns.is_some_and(|ns| ns >= LEARN_AFTER_NS);
        if stayed && !runtime.capacity_is_told {
            // What is full is as large as it is.
            runtime.blocking_capacity.store(counts.busy as u32, Relaxed);
        }
        let capacity = match runtime.blocking_capacity.load(Relaxed) {
            0 => None,
            capacity => Some(u64::from(capacity).max(counts.busy)),
        };
        let saturated = stands && capacity.is_some_and(|capacity| counts.busy >= capacity);
        v1::Pool {
            name: "blocking".to_owned(),
            kind: v1::pool::Kind::Blocking.into(),
            capacity,
            busy: Some(counts.busy),
            idle: counts.idle,
            queued: Some(counts.queued),
            oldest_wait_ns,
            saturated_ns: since(&mut self.saturated_since_ns, saturated, now_ns),
            runtime_id: runtime.id,
            ..v1::Pool::default()
        }
    }
}

/// How long `holds` has held without a break.
pub(super) fn since(began_ns: &mut Option<u64>, holds: bool, now_ns: u64) -> Option<u64> {
    if !holds {
        *began_ns = None;
        return None;
    }
    Some(now_ns.saturating_sub(*began_ns.get_or_insert(now_ns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_oldest_wait_is_told_from_counts_alone() {
        let mut queue = Queue::default();
        assert_eq!(queue.tick(0, 8, 8), None);
        assert_eq!(queue.tick(50 * MS, 30, 8), Some(0));
        assert_eq!(queue.tick(100 * MS, 69, 8), Some(50 * MS));
        // Twenty-two more start: the next to start came with the second batch.
        assert_eq!(queue.tick(900 * MS, 69, 30), Some(800 * MS));
        assert_eq!(queue.tick(950 * MS, 69, 69), None);
    }

    #[test]
    fn a_capacity_is_learnt_when_the_pool_is_first_seen_full() {
        let runtime = RuntimeEntry::new(1, true, 0);
        let mut state = Blocking::default();
        let counts = Counts { busy: 8, idle: Some(0), queued: 61, submitted: 69 };
        assert_eq!(state.tick(0, &runtime, &counts).capacity, None);
        let growing = Counts { busy: 7, ..counts };
        assert_eq!(state.tick(300 * MS, &runtime, &growing).capacity, None);
        assert_eq!(state.tick(350 * MS, &runtime, &counts).capacity, None);
        let pool = state.tick(650 * MS, &runtime, &counts);
        let seen = (pool.capacity, pool.saturated_ns, pool.oldest_wait_ns);
        assert_eq!(seen, (Some(8), Some(0), Some(650 * MS)));
        let calm = Counts { busy: 3, idle: Some(5), queued: 0, submitted: 69 };
        let pool = state.tick(900 * MS, &runtime, &calm);
        assert_eq!((pool.capacity, pool.saturated_ns, pool.oldest_wait_ns), (Some(8), None, None));
    }

    #[test]
    fn a_capacity_that_was_told_is_not_learnt() {
        let runtime = RuntimeEntry::new(1, true, 512);
        let mut state = Blocking::default();
        let counts = Counts { busy: 136, idle: Some(0), queued: 61, submitted: 300 };
        for tick in 0..20 {
            assert_eq!(state.tick(tick * 50 * MS, &runtime, &counts).capacity, Some(512));
        }
    }

    #[test]
    fn a_user_pool_is_saturated_only_with_work_waiting() {
        let mut pools = Pools::default();
        let sample = |queued| PoolSample {
            capacity: Some(4),
            busy: Some(4),
            queued: Some(queued),
            ..PoolSample::default()
        };
        pools.user(0, "db", sample(0), 0);
        assert_eq!(pools.all()[0].saturated_ns, None);
        pools.user(MS, "db", sample(3), 0);
        pools.user(5 * MS, "db", PoolSample { acquire_timeouts: Some(9), ..sample(3) }, 3_000 * MS);
        let pool = &pools.all()[0];
        assert_eq!(pool.saturated_ns, Some(4 * MS));
        assert_eq!((pool.acquire_timeouts_total, pool.age_ns), (Some(9), Some(3_000 * MS)));
        pools.keep_users(|name| name != "db");
        assert_eq!(pools.all(), []);
    }
}
