//! What every frame has, whatever was asked for: counts of the process, threads, losses, who the target is.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use taskscope_proto::REVISION;
use taskscope_proto::v1::{self, TaskKind, loss::Reason};

use crate::engine::sampler::{Live, Sampler};
use crate::engine::{Engine, current_runtime_id};
use crate::runtimes::RuntimeEntry;

/// `scheduled` is by runtime.
pub(super) fn totals(sampler: &Sampler, scheduled: Option<&[(u32, u64)]>) -> v1::Totals {
    let counts = sampler.engine.registry.counts();
    let recent = sampler.history.recent();
    let requests_total = sampler.requests_total();
    v1::Totals {
        followed: sampler.followed(),
        alive: sampler.alive(&sampler.engine.runtimes()),
        running: sampler.live.iter().filter(|live| live.poll.kind() != TaskKind::Unspecified).count() as u64,
        scheduled: scheduled.map(|counts| counts.iter().map(|(_, count)| count).sum()),
        spawned_total: counts.spawned,
        ended_total: counts.ended,
        polls_total: counts.polls,
        panicked_total: counts.panicked,
        requests_total,
        window_ns: recent.window_ns,
        polls_window: recent.polls,
        requests_window: requests_total.map(|_| recent.requests),
    }
}

/// Says of each runtime how many of its tasks have a row, and in which state. Reads counts that are kept anyway.
pub(super) fn count_tasks(sampler: &Sampler, runtimes: &mut [v1::Runtime], scheduled: Option<&[(u32, u64)]>) {
    let known = sampler.engine.runtimes();
    for runtime in runtimes {
        let Some(entry) = known.iter().find(|entry| entry.id == runtime.id) else { continue };
        let runs_for =
            |tid: u32| sampler.lines.iter().any(|line| line.tid == tid && line.runtime == entry.id);
        let is_task = |live: &&Live| matches!(live.poll.kind(), TaskKind::Task | TaskKind::Wrapped);
        let running = sampler.live.iter().filter(is_task).filter(|live| runs_for(live.tid)).count();
        runtime.followed = Some(followed_on(sampler.engine, entry));
        runtime.running = Some(running as u64);
        let waits = |counts: &[(u32, u64)]| {
            let of_it = counts.iter().find(|(id, _)| *id == entry.id);
            of_it.map_or(0, |(_, count)| *count)
        };
        runtime.scheduled = scheduled.map(waits);
    }
}

/// Threads that run something and are no worker of `runtimes`, and those that only their stack tells about: of threads that
/// Tokio does not know, where `with_others`.
pub(super) fn threads(sampler: &Sampler, runtimes: &[v1::Runtime], with_others: bool) -> Vec<v1::Thread> {
    let workers: HashSet<u32> =
        runtimes.iter().flat_map(|runtime| &runtime.workers).filter_map(|worker| worker.tid).collect();
    let is_other = |live: &&Live| !workers.contains(&live.tid);
    sampler
        .live
        .iter()
        .filter(is_other)
        .map(|live| v1::Thread { tid: live.tid, poll: Some(live.poll.clone()), ..v1::Thread::default() })
        .chain(sampler.seen_threads(with_others))
        .collect()
}

pub(super) fn losses(sampler: &Sampler) -> Vec<v1::Loss> {
    let counted = &sampler.engine.registry.losses;
    let reasons = (1..=19).filter_map(|n| Reason::try_from(n).ok());
    let mut losses: Vec<v1::Loss> = reasons
        .map(|reason| v1::Loss { reason: reason.into(), count: counted.count(reason) })
        .filter(|loss| loss.count > 0)
        .collect();
    // Where hooks follow a runtime's tasks and some were past the budget, these are what is missing.
    let told_already =
        |runtime: &RuntimeEntry| runtime.has_hooks() && counted.count(Reason::EvictedTasks) > 0;
    let uninstrumented: u64 = sampler
        .engine
        .runtimes()
        .iter()
        .filter(|runtime| !told_already(runtime))
        .filter_map(|runtime| {
            let alive = runtime.facts()?.metrics.num_alive_tasks() as u64;
            Some(alive.saturating_sub(followed_on(sampler.engine, runtime)))
        })
        .sum();
    if uninstrumented > 0 {
        losses.push(v1::Loss { reason: Reason::UninstrumentedTasks.into(), count: uninstrumented });
    }
    losses
}

/// Tasks of a runtime that have a row: counted by the hooks, or, without hooks, those that the wrapper follows alone, which
/// all count to the first runtime.
fn followed_on(engine: &Engine, runtime: &RuntimeEntry) -> u64 {
    if runtime.has_hooks() {
        return runtime.followed.sum();
    }
    if runtime.id == current_runtime_id() { engine.registry.totals.wrapped_alone.load(Relaxed) } else { 0 }
}

impl Engine {
    pub(crate) fn describe(&self) -> v1::Description {
        v1::Description {
            revision: REVISION,
            probe_version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.settings.name.clone(),
            pid: std::process::id(),
            instance: self.instance.clone(),
            started_unix_ns: self.started_unix_ns,
            host: std::fs::read_to_string("/proc/sys/kernel/hostname")
                .ok()
                .map(|host| host.trim().to_owned()),
            arch: std::env::consts::ARCH.to_owned(),
            capabilities: self.capabilities(),
            slow_poll_threshold_ns: self.registry.thresholds.all_ns,
            deployment: Some(crate::deployment::now(&self.settings.cgroup)),
            resource: self.settings.resource.clone(),
        }
    }
}
