//! Workers over time: their state, how busy they were, what is queued behind them, and the ones that are busy without a
//! break although no poll is seen.

use std::collections::HashMap;
use std::sync::Arc;

use taskscope_proto::v1::pool::Kind;
use taskscope_proto::v1::{self, thread_activity, worker};

use super::Live;
use super::SeenLine;
use super::pools::since;
use crate::engine::activity::{self, Look};
use crate::runtimes::{Facts, RuntimeEntry, unstable};

/// Tokio's counters that stand still this long mean one long poll (or up to 61 shorter ones).
const UNSEEN_AFTER_NS: u64 = 1_000_000_000;
/// A runtime without tasks on which nothing has happened this long may have ended: its metrics are let go.
const QUIET_NS: u64 = 200_000_000;

#[derive(Default)]
pub(crate) struct Workers {
    runtimes: Vec<Observed>,
}

struct Observed {
    id: u32,
    facts: Option<Facts>,
    workers: HashMap<u32, WorkerState>,
    /// Since when tasks are queued and no worker has taken one, and the polls that they run.
    ready_since_ns: Option<u64>,
    running: Vec<u64>,
    ready: Option<u64>,
    /// Queues of the runtime; `None` while it cannot be asked.
    global: Option<QueueState>,
    local: Option<QueueState>,
    quiet_since_ns: Option<u64>,
    /// It had no task when it was let go, and nothing has happened on it since.
    rests: bool,
    active: u64,
}

#[derive(Default)]
struct WorkerState {
    parks: u64,
    busy_ns: u64,
    /// Since when both of these stand still.
    still_since_ns: u64,
    /// When they were last looked at, and when they were last looked at before they changed.
    looked_ns: u64,
    changed_after_ns: u64,
    second: (u64, u64),
    busy_ratio: Option<f64>,
    unseen: Option<Unseen>,
}

/// Tasks in a queue, and since when some were there at every look.
#[derive(Clone, Copy, Default)]
struct QueueState {
    queued: u64,
    waiting_since_ns: Option<u64>,
}

impl QueueState {
    fn tick(state: &mut Option<Self>, now_ns: u64, queued: Option<u64>) {
        let Some(queued) = queued else {
            *state = None;
            return;
        };
        let state = state.get_or_insert_default();
        state.queued = queued;
        since(&mut state.waiting_since_ns, queued > 0, now_ns);
    }

    fn describe(self, now_ns: u64, runtime_id: u32, kind: Kind, name: &str) -> v1::Pool {
        v1::Pool {
            name: name.to_owned(),
            kind: kind.into(),
            queued: Some(self.queued),
            waiting_ns: self.waiting_since_ns.map(|began| now_ns.saturating_sub(began)),
            runtime_id,
            ..v1::Pool::default()
        }
    }
}

/// A worker that is busy although no poll of it is seen.
struct Unseen {
    tid: u32,
    first_ns: u64,
    first: Look,
    last_ns: u64,
    last: Look,
}

impl Workers {
    pub(crate) fn tick(
        &mut self,
        now_ns: u64,
        runtimes: &[Arc<RuntimeEntry>],
        lines: &[SeenLine],
        live: &[Live],
    ) {
        self.runtimes.retain(|seen| runtimes.iter().any(|runtime| runtime.id == seen.id));
        for runtime in runtimes {
            let position = self.runtimes.iter().position(|seen| seen.id == runtime.id).unwrap_or_else(|| {
                self.runtimes.push(Observed::new(runtime.id));
                self.runtimes.len() - 1
            });
            self.runtimes[position].tick(now_ns, runtime, lines, live);
        }
    }

    pub(crate) fn every_second(&mut self, now_ns: u64, lines: &[SeenLine], live: &[Live]) {
        for seen in &mut self.runtimes {
            seen.every_second(now_ns, lines, live);
        }
    }

    /// Whether the worker that a line had at `began_ns` has done other things since: its thread has handed it on
    /// (`block_in_place`), and a poll that is still open there blocks nobody.
    pub(crate) fn has_moved_on(&self, line: &SeenLine, began_ns: u64) -> bool {
        self.state_of(line).is_some_and(|state| state.changed_after_ns > began_ns)
    }

    pub(crate) fn is_parked(&self, line: &SeenLine) -> bool {
        self.state_of(line).is_some_and(|state| state.parks % 2 == 1)
    }

    fn state_of(&self, line: &SeenLine) -> Option<&WorkerState> {
        let seen = self.runtimes.iter().find(|seen| seen.id == line.runtime)?;
        // Without its own index a thread is not known to be a worker.
        seen.workers.get(&line.worker?)
    }

    /// Over all workers whose ratio is known.
    pub(crate) fn mean_busy_ratio(&self) -> Option<f64> {
        let ratios: Vec<f64> = self
            .runtimes
            .iter()
            .flat_map(|seen| seen.workers.values())
            .filter_map(|w| w.busy_ratio)
            .collect();
        (!ratios.is_empty()).then(|| ratios.iter().sum::<f64>() / ratios.len() as f64)
    }

    /// Runtime, index and busy share of every worker.
    pub(crate) fn busy_ratios(&self) -> Vec<(u32, u32, Option<f64>)> {
        let of = |seen: &Observed| {
            let id = seen.id;
            let mut workers: Vec<_> =
                seen.workers.iter().map(|(&index, state)| (id, index, state.busy_ratio)).collect();
            workers.sort_unstable_by_key(|&(_, index, _)| index);
            workers
        };
        self.runtimes.iter().flat_map(of).collect()
    }

    /// Tasks in run queues, over all runtimes that tell.
    pub(crate) fn ready_tasks(&self) -> Option<u64> {
        self.runtimes.iter().filter_map(|seen| seen.ready).reduce(|all, ready| all + ready)
    }

    /// The run queues of each runtime, as pools.
    pub(crate) fn queues(&self, now_ns: u64) -> Vec<v1::Pool> {
        let queues = |seen: &Observed| {
            let global =
                seen.global.map(|it| it.describe(now_ns, seen.id, Kind::GlobalQueue, "global queue"));
            let local = seen.local.map(|it| it.describe(now_ns, seen.id, Kind::LocalQueues, "local queues"));
            global.into_iter().chain(local)
        };
        self.runtimes.iter().flat_map(queues).collect()
    }

    /// Threads of the workers that are busy although no poll of them is seen, and for how long.
    pub(crate) fn unseen(&self, now_ns: u64) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.runtimes.iter().flat_map(move |seen| {
            let parks_are_told = seen.facts.as_ref().is_some_and(|facts| facts.multi_thread);
            seen.workers.values().filter_map(move |state| {
                let unseen = state.unseen.as_ref().filter(|unseen| unseen.agrees(parks_are_told))?;
                Some((unseen.tid, now_ns.saturating_sub(state.still_since_ns)))
            })
        })
    }

    /// As they go out.
    pub(crate) fn describe(&self, now_ns: u64, lines: &[SeenLine], live: &[Live]) -> Vec<v1::Runtime> {
        self.runtimes.iter().map(|seen| seen.describe(now_ns, lines, live)).collect()
    }
}

/// When something last began or ended on a line: of two threads that had one worker index, the later one has it.
fn latest(line: &SeenLine) -> crate::clock::Ticks {
    line.bracket.map_or(line.active, |bracket| bracket.start)
}

/// The worker that a line is, among `count`: by its own index, or 0 on a current-thread runtime.
fn worker_of(line: &SeenLine, facts: Option<&Facts>) -> Option<u32> {
    let single = facts.is_some_and(|facts| !facts.multi_thread);
    // Jobs of the blocking pool and labels on other threads do not make a worker: only polls do.
    line.worker.or_else(|| (single && line.polls).then_some(0))
}

impl Observed {
    fn new(id: u32) -> Self {
        Self {
            id,
            facts: None,
            workers: HashMap::new(),
            ready_since_ns: None,
            running: Vec::new(),
            ready: None,
            global: None,
            local: None,
            quiet_since_ns: None,
            rests: false,
            active: 0,
        }
    }

    /// The line of each worker: the one that was active last, should two threads have had the index.
    fn lines_by_worker<'a>(&self, lines: &'a [SeenLine]) -> HashMap<u32, &'a SeenLine> {
        let mut found: HashMap<u32, &SeenLine> = HashMap::new();
        for line in lines.iter().filter(|line| line.runtime == self.id) {
            let Some(worker) = worker_of(line, self.facts.as_ref()) else { continue };
            let better = |old: &&SeenLine| latest(line) > latest(old);
            if found.get(&worker).is_none_or(better) {
                found.insert(worker, line);
            }
        }
        found
    }

    fn tick(&mut self, now_ns: u64, runtime: &RuntimeEntry, lines: &[SeenLine], live: &[Live]) {
        self.facts = runtime.facts();
        self.let_go_when_quiet(now_ns, runtime, lines);
        let Some(facts) = self.facts.clone() else {
            (self.ready, self.global, self.local) = (None, None, None);
            return;
        };
        let metrics = &facts.metrics;
        let workers = metrics.num_workers();
        let local: Option<Vec<u64>> = (0..workers).map(|w| unstable::local_queue(metrics, w)).collect();
        let global = metrics.global_queue_depth() as u64;
        let local = local.map(|local| local.iter().sum::<u64>());
        self.ready = local.map(|local| global + local);
        QueueState::tick(&mut self.global, now_ns, Some(global));
        QueueState::tick(&mut self.local, now_ns, local);

        let by_worker = self.lines_by_worker(lines);
        let mut running: Vec<u64> = live
            .iter()
            .filter(|live| live.is_poll() && by_worker.values().any(|line| line.tid == live.tid))
            .filter(|live| live.poll.since_ns >= super::LOOK_AFTER_NS)
            .map(|live| live.word)
            .collect();
        running.sort_unstable();
        // As long as every worker is in the same poll as before, what is queued stays queued.
        let none_takes = running.len() >= workers && running == self.running;
        let waits = none_takes && self.ready.unwrap_or(global) > 0;
        since(&mut self.ready_since_ns, waits, now_ns);
        self.running = running;

        for index in 0..workers as u32 {
            let state = self.workers.entry(index).or_default();
            let parks = metrics.worker_park_unpark_count(index as usize);
            let busy_ns = metrics.worker_total_busy_duration(index as usize).as_nanos() as u64;
            if (parks, busy_ns) != (state.parks, state.busy_ns) || state.still_since_ns == 0 {
                (state.parks, state.busy_ns) = (parks, busy_ns);
                state.still_since_ns = now_ns;
                state.changed_after_ns = state.looked_ns;
            }
            state.looked_ns = now_ns;
        }
        self.look_at_unseen(now_ns, lines);
    }

    /// A worker whose counters stand still while it is not parked, and whose thread itself says that it works or sleeps.
    fn look_at_unseen(&mut self, now_ns: u64, lines: &[SeenLine]) {
        let tids: HashMap<u32, Option<u32>> = self
            .lines_by_worker(lines)
            .into_iter()
            .map(|(worker, line)| (worker, line.bracket.is_none().then_some(line.tid)))
            .collect();
        for (index, state) in &mut self.workers {
            let still =
                state.parks % 2 == 0 && now_ns.saturating_sub(state.still_since_ns) >= UNSEEN_AFTER_NS;
            let tid = tids.get(index).copied().flatten().filter(|_| still);
            let Some((tid, look)) = tid.and_then(|tid| Some((tid, activity::look(tid)?))) else {
                state.unseen = None;
                continue;
            };
            match &mut state.unseen {
                Some(unseen) if unseen.tid == tid => (unseen.last_ns, unseen.last) = (now_ns, look),
                _ => {
                    state.unseen =
                        Some(Unseen { tid, first_ns: now_ns, first: look, last_ns: now_ns, last: look });
                }
            }
        }
    }

    fn let_go_when_quiet(&mut self, now_ns: u64, runtime: &RuntimeEntry, lines: &[SeenLine]) {
        let mine = || lines.iter().filter(|line| line.runtime == self.id);
        let in_bracket = mine().any(|line| line.bracket.is_some());
        let active = mine().map(|line| line.active).max().unwrap_or(0);
        let moved = in_bracket || active != self.active;
        self.active = active;
        let Some(facts) = &self.facts else {
            if moved || runtime.followed.sum() > 0 || !runtime.lost_hooks().is_empty() {
                self.rests = false;
                runtime.want_metrics();
            }
            return;
        };
        self.rests = false;
        let metrics = &facts.metrics;
        // Jobs of others than the wrapper are known by the pool's own figures only.
        let has_jobs =
            unstable::blocking_pool(metrics).is_some_and(|pool| pool.threads > pool.idle || pool.queued > 0);
        let quiet = !moved && !has_jobs && !runtime.is_pinned() && metrics.num_alive_tasks() == 0;
        if since(&mut self.quiet_since_ns, quiet, now_ns).is_some_and(|ns| ns >= QUIET_NS) {
            runtime.release_metrics();
            self.facts = None;
            // Without hooks, tasks may come and go unseen.
            self.rests = runtime.has_hooks();
            self.quiet_since_ns = None;
            self.workers.clear();
        }
    }

    fn every_second(&mut self, now_ns: u64, lines: &[SeenLine], live: &[Live]) {
        let tids: HashMap<u32, u32> =
            self.lines_by_worker(lines).into_iter().map(|(worker, line)| (worker, line.tid)).collect();
        for (index, state) in &mut self.workers {
            let (last_ns, last_busy_ns) = std::mem::replace(&mut state.second, (now_ns, state.busy_ns));
            let elapsed_ns = now_ns.saturating_sub(last_ns);
            if last_ns == 0 || elapsed_ns == 0 {
                continue;
            }
            // Tokio publishes at the end of a batch: the poll that runs now is not in its count yet.
            let running_ns = tids
                .get(index)
                .and_then(|tid| live.iter().find(|live| live.tid == *tid && live.is_poll()))
                .map_or(0, |live| live.poll.since_ns.min(elapsed_ns));
            let unseen_ns = if state.unseen.is_some() { elapsed_ns } else { 0 };
            let counted_ns = state.busy_ns.saturating_sub(last_busy_ns);
            let busy_ns = counted_ns.max(running_ns).max(unseen_ns);
            state.busy_ratio = Some((busy_ns as f64 / elapsed_ns as f64).min(1.0));
        }
    }

    fn describe(&self, now_ns: u64, lines: &[SeenLine], live: &[Live]) -> v1::Runtime {
        let by_worker = self.lines_by_worker(lines);
        let count = match &self.facts {
            Some(facts) => facts.metrics.num_workers() as u32,
            None => by_worker.keys().max().map_or(0, |highest| highest + 1),
        };
        let metrics = self.facts.as_ref().map(|facts| &facts.metrics);
        let none = self.rests.then_some(0);
        let workers = (0..count)
            .map(|index| self.worker(now_ns, index, by_worker.get(&index).copied(), live))
            .collect();
        v1::Runtime {
            id: self.id,
            name: self.facts.as_ref().and_then(|facts| facts.name.clone()),
            flavor: match &self.facts {
                Some(facts) if facts.multi_thread => v1::runtime::Flavor::MultiThread,
                Some(_) => v1::runtime::Flavor::CurrentThread,
                None => v1::runtime::Flavor::Unspecified,
            }
            .into(),
            workers,
            global_queue: metrics.map(|metrics| metrics.global_queue_depth() as u64).or(none),
            alive_tasks: metrics.map(|metrics| metrics.num_alive_tasks() as u64).or(none),
            ready_tasks: self.ready,
            oldest_ready_ns: self.ready_since_ns.map(|began| now_ns.saturating_sub(began)),
            // Its tasks are counted for the frame.
            ..v1::Runtime::default()
        }
    }

    fn worker(&self, now_ns: u64, index: u32, line: Option<&SeenLine>, live: &[Live]) -> v1::Worker {
        let state = self.workers.get(&index);
        let mine = |live: &&Live| line.is_some_and(|line| line.tid == live.tid) && !live.blocks_nobody;
        let poll = live.iter().find(mine).map(|live| live.poll.clone());
        let mut out = v1::Worker {
            index,
            tid: line.map(|line| line.tid),
            busy_ratio: state.and_then(|state| state.busy_ratio),
            local_queue: self
                .facts
                .as_ref()
                .and_then(|facts| unstable::local_queue(&facts.metrics, index as usize)),
            busy_ns_total: state.map(|state| state.busy_ns),
            ..v1::Worker::default()
        };
        if let Some(poll) = poll {
            out.set_state(worker::State::InPoll);
            out.since_ns = Some(poll.since_ns);
            out.poll = Some(poll);
        } else if let Some((state, unseen)) = state.and_then(|state| Some((state, state.unseen.as_ref()?)))
            && unseen.agrees(self.facts.as_ref().is_some_and(|facts| facts.multi_thread))
        {
            let since_ns = now_ns.saturating_sub(state.still_since_ns);
            let activity = unseen.last.since(&unseen.first, unseen.last_ns.saturating_sub(unseen.first_ns));
            out.set_state(worker::State::BusyUnseen);
            out.since_ns = Some(since_ns);
            out.poll = Some(v1::LivePoll { since_ns, activity: Some(activity), ..v1::LivePoll::default() });
        } else if let Some(state) = state {
            out.set_state(if state.parks % 2 == 1 { worker::State::Parked } else { worker::State::Active });
            if state.parks % 2 == 1 {
                out.since_ns = Some(now_ns.saturating_sub(state.still_since_ns));
            }
        }
        out
    }
}

impl Unseen {
    /// Whether the thread's own state says that it is busy: it spends CPU time, or it sleeps in a system call although it
    /// has not parked. (Tokio's counters also stand still on a current-thread runtime that nobody runs, whose thread
    /// sleeps where it likes.)
    fn agrees(&self, parks_are_told: bool) -> bool {
        match self.last.state {
            thread_activity::State::OnCpu => {
                let observed_ns = self.last_ns.saturating_sub(self.first_ns);
                let on_cpu_ns = self.last.since(&self.first, observed_ns).on_cpu_ns;
                observed_ns > 0 && on_cpu_ns.is_some_and(|ns| ns > observed_ns / 4)
            }
            thread_activity::State::Asleep | thread_activity::State::DiskSleep => {
                parks_are_told && self.last.syscall.is_some()
            }
            _ => false,
        }
    }
}
