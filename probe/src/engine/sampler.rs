//! The probe thread's view of the process: it looks at the thread lines every tick, notices polls that run too long while
//! they run, keeps events, windows and history, and knows when it has to look again. It is told the time and does no I/O
//! but reading /proc.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use taskscope_proto::ids::GroupId;
use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::{self, Outcome, TaskKind, event};

use super::Engine;
use super::activity::{self, Look};
use super::history::{GroupTotals, History, STEP_NS, Second};
use super::tick::{self, Seen, TICK_NS};
use super::windows::{SNAPSHOT_EVERY_NS, Size, Window};
use crate::clock::Ticks;
use crate::pool::Said;
use crate::registry::lines::LineView;
use crate::registry::slots::SlotView;
use crate::say::say;

mod pools;
mod workers;

pub(crate) use pools::Pools;
pub(crate) use workers::Workers;

/// A live poll is looked at in /proc from this age on.
const LOOK_AFTER_NS: u64 = 20_000_000;
/// After its threshold, a poll that is still running is an event again at these ages.
const AGAIN_NS: [u64; 3] = [1_000_000_000, 10_000_000_000, 60_000_000_000];
const SECOND_NS: u64 = STEP_NS;
const EVENTS_KEPT: usize = 512;
const ENDED_KEPT: usize = 1024;

pub(crate) struct Sampler {
    pub(crate) engine: &'static Engine,
    /// By position of the line.
    watched: HashMap<usize, Watched>,
    pub(crate) live: Vec<Live>,
    /// Every line of the last tick: threads at work and at rest.
    pub(crate) lines: Vec<LineView>,
    pub(crate) events: VecDeque<v1::Event>,
    events_total: u64,
    slow_polls_read: u64,
    ended_read: u64,
    /// With the instant of their end, ns.
    pub(crate) ended: VecDeque<(SlotView, u64)>,
    pub(crate) groups: Vec<GroupWindows>,
    pub(crate) labels: Vec<Window>,
    pub(crate) workers: Workers,
    pub(crate) pools: Pools,
    pub(crate) history: History,
    second: LastSecond,
    tempo: tick::Ticks,
    pub(crate) watched_by: u32,
    snapshot_at_ns: u64,
    pub(crate) cpu_ratio: Option<f64>,
    /// Threads with a line that were not to be found a second ago.
    missing: HashSet<u32>,
    sampled_at_ns: u64,
}

#[derive(Default)]
pub(crate) struct GroupWindows {
    pub(crate) polls: Window,
    pub(crate) size: Size,
}

/// A live poll that has been looked at, or is about to be.
struct Watched {
    tid: u32,
    word: u64,
    seen_at_ns: u64,
    /// First and last look, with their instants.
    looks: Option<((u64, Look), (u64, Look))>,
    /// Events sent for it.
    events: usize,
}

/// One poll, job or labelled stretch that runs now.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) tid: u32,
    pub(crate) worker: Option<u32>,
    pub(crate) word: u64,
    pub(crate) poll: v1::LivePoll,
    /// Its thread has handed its worker on (`block_in_place`), or its worker is parked: nothing is blocked by it.
    pub(crate) blocks_nobody: bool,
}

impl Live {
    /// Jobs of the blocking pool may block; labelled stretches count as polls only on a worker.
    pub(crate) fn is_poll(&self) -> bool {
        match self.poll.kind() {
            _ if self.blocks_nobody => false,
            TaskKind::Blocking => false,
            TaskKind::Unspecified => self.worker.is_some(),
            _ => true,
        }
    }
}

/// Totals at the last full second, and the rates since.
#[derive(Default)]
pub(crate) struct LastSecond {
    at_ns: u64,
    polls: u64,
    requests: u64,
    own_cpu_ns: u64,
}

impl Sampler {
    pub(crate) fn new(engine: &'static Engine) -> Self {
        Self {
            engine,
            watched: HashMap::new(),
            live: Vec::new(),
            lines: Vec::new(),
            events: VecDeque::new(),
            events_total: 0,
            slow_polls_read: 0,
            ended_read: 0,
            ended: VecDeque::new(),
            groups: Vec::new(),
            labels: Vec::new(),
            workers: Workers::default(),
            pools: Pools::default(),
            history: History::with_bytes(engine.registry.history_bytes),
            second: LastSecond::default(),
            tempo: tick::Ticks::default(),
            watched_by: 0,
            snapshot_at_ns: 0,
            cpu_ratio: None,
            missing: HashSet::new(),
            sampled_at_ns: 0,
        }
    }

    /// Now, in ns since the probe began.
    pub(crate) fn now_ns(&self) -> u64 {
        self.at(self.engine.registry.clock.now())
    }

    pub(crate) fn at(&self, ticks: Ticks) -> u64 {
        self.engine.registry.clock.at(ticks)
    }

    /// Events since the probe began.
    pub(crate) fn events_total(&self) -> u64 {
        self.events_total
    }

    /// Looks at everything that is looked at every tick. Returns when to look again.
    pub(crate) fn sample(&mut self, now_ns: u64) -> u64 {
        self.sampled_at_ns = now_ns;
        let second_is_over = now_ns / SECOND_NS > self.second.at_ns / SECOND_NS;
        if second_is_over {
            // Before anything here holds an entry: an ended runtime is one that nobody holds.
            self.engine.forget_ended_runtimes();
        }
        self.take_slow_polls(now_ns);
        let mut next_ns = u64::MAX;
        self.look_at_lines(now_ns, &mut next_ns);
        next_ns = next_ns.min(now_ns + self.tempo(now_ns));
        self.take_ended(now_ns);
        let runtimes = self.engine.runtimes();
        self.workers.tick(now_ns, &runtimes, &self.lines, &self.live);
        self.pools.tick(now_ns, &runtimes, &self.engine.registry);
        if second_is_over {
            self.every_second(now_ns, &runtimes);
        }
        next_ns
    }

    /// Time until the next tick, as the lines show it; a second's end is not slept through.
    fn tempo(&mut self, now_ns: u64) -> u64 {
        let tick_ns = self.tempo.next_ns(Seen {
            watched: self.watched_by > 0,
            open: self.lines.iter().any(|line| line.bracket.is_some()),
            long: self.live.iter().any(|live| live.is_poll() && live.poll.since_ns >= LOOK_AFTER_NS),
            ends: self.lines.iter().fold(0u64, |sum, line| sum.wrapping_add(line.active)),
            threshold_ns: self.engine.registry.slow_poll_threshold_ns,
        });
        tick_ns.min(SECOND_NS - now_ns % SECOND_NS).max(1)
    }

    /// Samples again unless it was done within the last milliseconds, so that an answer is fresh.
    pub(crate) fn refresh(&mut self, now_ns: u64) {
        if now_ns >= self.sampled_at_ns + TICK_NS / 10 {
            self.sample(now_ns);
        }
        self.ask_pools(now_ns);
    }

    fn ask_pools(&mut self, now_ns: u64) {
        for pool in self.engine.pools() {
            match pool.ask() {
                Said::Sample(sample) => {
                    if sample.is_nonsense() {
                        self.engine.registry.losses.add(Reason::PoolNonsense, 1);
                    }
                    self.pools.user(now_ns, &pool.name, sample);
                }
                Said::Panicked => {
                    say(format_args!("the closure of pool `{}` panicked; it is not asked again", pool.name));
                    self.engine.registry.losses.add(Reason::PoolPanics, 1);
                    self.pools.forget(&pool.name);
                }
                Said::Silent => {}
            }
        }
    }

    fn look_at_lines(&mut self, now_ns: u64, next_ns: &mut u64) {
        let registry = &self.engine.registry;
        let threshold_ns = registry.slow_poll_threshold_ns;
        self.live.clear();
        self.lines.clear();
        let mut stuck = Vec::new();
        for (position, line) in registry.lines.views() {
            self.lines.push(line);
            let Some(bracket) = line.bracket else { continue };
            let slot =
                bracket.slot.and_then(|slot| registry.slots.view(slot)).filter(|view| view.id == bracket.id);
            let since_ns = now_ns.saturating_sub(registry.clock.at(bracket.start));
            let watched =
                self.watched.entry(position).or_insert_with(|| Watched::new(line.tid, bracket.word));
            if watched.word != bracket.word || watched.tid != line.tid {
                *watched = Watched::new(line.tid, bracket.word);
            }
            watched.seen_at_ns = now_ns;
            let live_poll = since_ns >= LOOK_AFTER_NS;
            if live_poll && let Some(look) = activity::look(line.tid) {
                let first = watched.looks.map_or((now_ns, look), |(first, _)| first);
                watched.looks = Some((first, (now_ns, look)));
            }
            let mut poll = v1::LivePoll { label_sid: 0, ..self.engine.describe_slot(slot.as_ref()) };
            poll.task_id = bracket.id.0;
            poll.since_ns = since_ns;
            poll.activity = watched.activity();
            if let Some(label) = bracket.label {
                poll.label_sid = registry.labels.entry(label).sid().0;
                poll.label_since_ns = Some(now_ns.saturating_sub(registry.clock.at(bracket.label_start)));
            }
            let began_ns = registry.clock.at(bracket.start);
            let moved_on = self.workers.has_moved_on(&line, began_ns);
            if moved_on {
                registry.lines.excuse(position, bracket.word);
            }
            let live = Live {
                tid: line.tid,
                worker: line.worker,
                word: bracket.word,
                blocks_nobody: moved_on || bracket.own && self.workers.is_parked(&line),
                poll,
            };
            if live.is_poll() {
                let ages = || {
                    std::iter::once(threshold_ns)
                        .chain(AGAIN_NS.into_iter().filter(|&age| age > threshold_ns))
                };
                let passed = ages().filter(|&age| since_ns >= age).count();
                if passed > watched.events {
                    watched.events = passed;
                    stuck.push(live.clone());
                }
                if let Some(age) = ages().nth(passed) {
                    *next_ns = (*next_ns).min(now_ns + (age - since_ns));
                }
            }
            self.live.push(live);
        }
        // Kept for two ticks more: the end of the poll may be read after its bracket is gone.
        self.watched.retain(|_, watched| now_ns < watched.seen_at_ns + 3 * TICK_NS);
        for live in stuck {
            self.push_event(now_ns, event::Kind::PollStuck, Some(live.tid), live.poll);
        }
    }

    fn take_slow_polls(&mut self, now_ns: u64) {
        let registry = &self.engine.registry;
        let taken = registry.slow_polls.take(&mut self.slow_polls_read);
        registry.losses.add(Reason::DroppedEvents, taken.lost);
        for [id, word, ns, place, thread] in taken.items {
            let (group, label_plus1) = ((place >> 32) as u32, place as u32);
            let (kind, tid) = ((thread >> 32) as i32, thread as u32);
            let watched = self.watched.values().find(|watched| watched.word == word && watched.tid == tid);
            let entry = registry.groups.entry(GroupId(group));
            let label = label_plus1.checked_sub(1).map(crate::registry::labels::LabelIndex);
            let poll = v1::LivePoll {
                task_id: id,
                kind,
                name_sid: entry.name().0,
                label_sid: label.map_or(0, |label| registry.labels.entry(label).sid().0),
                group_id: group,
                spawned_at_sid: entry.site().0,
                since_ns: ns,
                activity: watched.and_then(Watched::activity),
                label_since_ns: None,
            };
            if let Some(v1::ThreadActivity { on_cpu_ns: Some(on_cpu), observed_ns, .. }) = poll.activity
                && observed_ns > 0
            {
                at(&mut self.groups, group as usize).polls.observed(on_cpu, observed_ns);
                if let Some(label) = label {
                    at(&mut self.labels, label.0 as usize).observed(on_cpu, observed_ns);
                }
            }
            self.push_event(now_ns, event::Kind::PollSlow, Some(tid), poll);
        }
    }

    fn take_ended(&mut self, now_ns: u64) {
        let taken = self.engine.registry.ended.take(&mut self.ended_read);
        self.engine.registry.losses.add(Reason::DroppedEvents, taken.lost);
        for words in taken.items {
            let (view, ended) = SlotView::from_ended(words);
            if view.flags.outcome() == Outcome::Panicked {
                let poll = v1::LivePoll { task_id: view.id.0, ..self.engine.describe_slot(Some(&view)) };
                self.push_event(now_ns, event::Kind::TaskPanic, None, poll);
            }
            if self.ended.len() == ENDED_KEPT {
                self.ended.pop_front();
            }
            self.ended.push_back((view, self.at(ended)));
        }
    }

    fn push_event(&mut self, at_ns: u64, kind: event::Kind, tid: Option<u32>, poll: v1::LivePoll) {
        self.events_total += 1;
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        let event = v1::Event {
            seq: self.events_total,
            at_ns,
            kind: kind.into(),
            tid,
            poll: Some(poll),
            paused_ns: None,
            reason_sid: 0,
        };
        self.history.push_event(&event);
        self.events.push_back(event);
    }

    fn every_second(&mut self, now_ns: u64, runtimes: &[Arc<crate::runtimes::RuntimeEntry>]) {
        let elapsed_ns = now_ns - self.second.at_ns;
        let registry = &self.engine.registry;
        self.forget_ended_threads();
        self.workers.every_second(now_ns, &self.lines, &self.live);
        self.ask_pools(now_ns);

        for (id, group) in registry.groups.iter() {
            let (spawned, ended, _) = group.counts();
            at(&mut self.groups, id.0 as usize).size.sample(now_ns, spawned, ended);
        }
        if now_ns >= self.snapshot_at_ns + SNAPSHOT_EVERY_NS {
            self.snapshot_at_ns = now_ns;
            for (id, group) in registry.groups.iter() {
                at(&mut self.groups, id.0 as usize).polls.snapshot(now_ns, group.polls.histogram());
            }
            for (index, label) in registry.labels.iter() {
                at(&mut self.labels, index.0 as usize).snapshot(now_ns, label.stats.histogram());
            }
        }

        let polls = registry.lines.polls();
        let requests = self.requests_total().unwrap_or(0);
        let alive = self.alive(runtimes).unwrap_or_else(|| self.followed());
        let workers = self.workers.busy_ratios();
        let pools = self.pools.all();
        let groups: Vec<GroupTotals> = registry
            .groups
            .iter()
            .map(|(id, group)| {
                let (spawned, ended, _) = group.counts();
                GroupTotals {
                    id: id.0,
                    live: spawned.saturating_sub(ended),
                    polls_total: group.polls.polls(),
                    busy_ns_total: group.polls.busy_ns(),
                }
            })
            .collect();
        self.history.push(&Second {
            at_ns: now_ns,
            alive,
            polls: polls.saturating_sub(self.second.polls),
            requests: requests.saturating_sub(self.second.requests),
            busy_ratio: self.workers.mean_busy_ratio(),
            queued: self.workers.ready_tasks(),
            stuck_workers: self.stuck_workers(),
            workers: &workers,
            pools: &pools,
            groups: &groups,
        });
        registry.losses.add(Reason::LostHistory, self.history.take_lost());
        let own_cpu_ns = activity::own_cpu().map(|cpu| cpu.on_cpu_ns);
        self.cpu_ratio = own_cpu_ns
            .map(|cpu| cpu.saturating_sub(self.second.own_cpu_ns) as f64 / elapsed_ns as f64)
            .filter(|_| self.second.at_ns > 0);
        self.second = LastSecond { at_ns: now_ns, polls, requests, own_cpu_ns: own_cpu_ns.unwrap_or(0) };
    }

    /// Frees the lines of threads that have ended: not to be found, twice in a row. Where /proc does not even show this
    /// thread (it is of another pid namespace), nothing can be said.
    fn forget_ended_threads(&mut self) {
        if !activity::sees_own_threads() {
            return;
        }
        let before = std::mem::take(&mut self.missing);
        let missing = &mut self.missing;
        self.engine.registry.lines.retain(|tid| {
            let gone = !activity::exists(tid);
            if gone {
                missing.insert(tid);
            }
            !(gone && before.contains(&tid))
        });
    }

    fn stuck_workers(&self) -> u32 {
        let threshold_ns = self.engine.registry.slow_poll_threshold_ns;
        let stuck =
            |live: &&Live| live.is_poll() && live.worker.is_some() && live.poll.since_ns >= threshold_ns;
        self.live.iter().filter(stuck).count() as u32
    }

    /// Requests that layers have counted; `None` where none ever did.
    pub(crate) fn requests_total(&self) -> Option<u64> {
        let counted = self.engine.registry.labels.iter().filter_map(|(_, label)| label.requests());
        counted.reduce(|all, requests| all + requests)
    }

    /// Tasks with a row.
    pub(crate) fn followed(&self) -> u64 {
        self.engine.registry.totals.followed.load(Relaxed)
    }

    /// Tasks alive as Tokio counts them; `None` where no runtime could be asked.
    pub(crate) fn alive(&self, runtimes: &[Arc<crate::runtimes::RuntimeEntry>]) -> Option<u64> {
        let asked = runtimes.iter().filter_map(|runtime| runtime.facts());
        asked.map(|facts| facts.metrics.num_alive_tasks() as u64).reduce(|all, alive| all + alive)
    }
}

impl Engine {
    /// Kind, group, name, place and last label of a slot; nothing is known without one.
    fn describe_slot(&self, slot: Option<&SlotView>) -> v1::LivePoll {
        let Some(slot) = slot else { return v1::LivePoll::default() };
        let group = self.registry.groups.entry(slot.group);
        let label = slot.label_plus1.checked_sub(1).map(crate::registry::labels::LabelIndex);
        v1::LivePoll {
            kind: slot.flags.kind().into(),
            name_sid: group.name().0,
            group_id: slot.group.0,
            spawned_at_sid: group.site().0,
            label_sid: label.map_or(0, |label| self.registry.labels.entry(label).sid().0),
            ..v1::LivePoll::default()
        }
    }
}

impl Watched {
    fn new(tid: u32, word: u64) -> Self {
        Self { tid, word, seen_at_ns: 0, looks: None, events: 0 }
    }

    fn activity(&self) -> Option<v1::ThreadActivity> {
        let ((first_ns, first), (last_ns, last)) = self.looks.as_ref()?;
        Some(last.since(first, last_ns.saturating_sub(*first_ns)))
    }
}

/// The element at `position`, made if it is not there yet.
pub(crate) fn at<T: Default>(list: &mut Vec<T>, position: usize) -> &mut T {
    if position >= list.len() {
        list.resize_with(position + 1, T::default);
    }
    &mut list[position]
}
