//! The probe thread's view of the process: it looks at the thread lines every tick, notices polls that run too long while
//! they run, keeps events, windows and history, and knows when it has to look again. It is told the time and does no I/O
//! but reading /proc.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError};

use taskscope_proto::ids::{GroupId, TaskId};
use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::{self, Outcome, TaskKind, event};

use super::Engine;
use super::activity::{self, Look, OwnCpu};
use super::askers::{Answer, Answers};
use super::defects::Defects;
use super::history::{GroupTotals, History, STEP_NS, Second};
use super::pauses::{Pauses, Tick};
use super::tick::{self, Seen, TICK_NS};
use super::windows::{SNAPSHOT_EVERY_NS, Size, Window};
use crate::cgroup::Throttling;
use crate::clock::Ticks;
use crate::registry::lines::LineView;
use crate::registry::slots::SlotView;

mod excused;
mod folding;
mod others;
mod pools;
mod process;
mod stacks;
mod workers;

use excused::Excused;
pub(crate) use pools::Pools;
use process::Process;
use stacks::{Sampling, Shares};
pub(crate) use workers::Workers;

/// A live poll is looked at in /proc from this age on.
const LOOK_AFTER_NS: u64 = 20_000_000;
/// After its threshold, a poll that is still running is an event again at these ages.
const AGAIN_NS: [u64; 3] = [1_000_000_000, 10_000_000_000, 60_000_000_000];
const SECOND_NS: u64 = STEP_NS;
const EVENTS_KEPT: usize = 512;
const ENDED_KEPT: usize = 1024;
/// A quota changes seldom.
const QUOTAS_EVERY_NS: u64 = 5 * SECOND_NS;

pub(crate) struct Sampler {
    pub(crate) engine: &'static Engine,
    /// By position of the line.
    watched: HashMap<usize, Watched>,
    pub(crate) live: Vec<Live>,
    /// Every line of the last tick: threads at work and at rest.
    pub(crate) lines: Vec<SeenLine>,
    /// By position of the line: what it had done, and when it was last seen to have done more.
    moved: Vec<(Done, Ticks)>,
    pub(crate) events: VecDeque<v1::Event>,
    events_total: u64,
    slow_polls_read: u64,
    stretches_read: u64,
    ended_read: u64,
    died_read: u64,
    unkept_told: u64,
    /// With the instant of their end, ns.
    pub(crate) ended: VecDeque<(SlotView, u64)>,
    pub(crate) groups: Vec<GroupWindows>,
    pub(crate) labels: Vec<Window>,
    group_fold: folding::Fold,
    label_fold: folding::Fold,
    wait_fold: folding::Fold,
    pub(crate) workers: Workers,
    pub(crate) pools: Pools,
    pub(crate) history: History,
    pub(crate) stacks: Sampling,
    defects: Defects,
    second: LastSecond,
    tempo: tick::Ticks,
    pub(crate) watched_by: u32,
    snapshot_at_ns: u64,
    pub(crate) cpu_ratio: Option<f64>,
    /// Threads with a line that were not to be found a second ago.
    missing: HashSet<u32>,
    sampled_at_ns: u64,
    own_cpu: OwnCpu,
    pauses: Pauses,
    excused: Excused,
    throttling: Throttling,
    /// Its total at the last look; `None` where there is no quota.
    throttled_ns: Option<u64>,
    quotas_looked_at_ns: u64,
    answers: Answers,
    process: Process,
    /// When somebody last wanted a frame.
    asked_at_ns: u64,
    /// Where the probe itself listens on TCP; `None` until that is known.
    own_address: Option<Option<std::net::SocketAddr>>,
}

#[derive(Default)]
pub(crate) struct GroupWindows {
    pub(crate) polls: Window,
    pub(crate) size: Size,
}

/// A line, and when it was last seen to have begun or finished something, to a tick of the sampler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeenLine {
    view: LineView,
    pub(crate) active: Ticks,
}

impl std::ops::Deref for SeenLine {
    type Target = LineView;

    fn deref(&self) -> &LineView {
        &self.view
    }
}

/// What shows that a thread has moved on.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Done {
    polls: u64,
    last: TaskId,
    start: Option<Ticks>,
}

/// A live poll that has been looked at, or is about to be.
struct Watched {
    tid: u32,
    word: u64,
    seen_at_ns: u64,
    /// First and last look, with their instants on the clock that stands still in pauses.
    looks: Option<((u64, Look), (u64, Look))>,
    /// Events sent for it.
    events: usize,
    shares: Shares,
}

/// One poll, job or labelled stretch that runs now.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// A poll this long is an event.
    threshold_ns: u64,
    pub(crate) tid: u32,
    pub(crate) worker: Option<u32>,
    pub(crate) word: u64,
    /// Position of its line.
    line: usize,
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
            moved: Vec::new(),
            events: VecDeque::new(),
            events_total: 0,
            slow_polls_read: 0,
            stretches_read: 0,
            ended_read: 0,
            died_read: 0,
            unkept_told: 0,
            ended: VecDeque::new(),
            groups: Vec::new(),
            labels: Vec::new(),
            group_fold: folding::Fold::default(),
            label_fold: folding::Fold::default(),
            wait_fold: folding::Fold::default(),
            workers: Workers::default(),
            pools: Pools::default(),
            history: History::with_bytes(engine.registry.history_bytes),
            stacks: Sampling::begin(engine),
            defects: Defects::default(),
            second: LastSecond::default(),
            tempo: tick::Ticks::default(),
            watched_by: 0,
            snapshot_at_ns: 0,
            cpu_ratio: None,
            missing: HashSet::new(),
            sampled_at_ns: 0,
            own_cpu: OwnCpu::of_this_thread(),
            pauses: Pauses::new(std::thread::available_parallelism().map_or(1, usize::from)),
            excused: Excused::default(),
            throttling: Throttling::default(),
            throttled_ns: None,
            quotas_looked_at_ns: 0,
            answers: Answers::default(),
            process: Process::default(),
            asked_at_ns: 0,
            own_address: None,
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
        // Before anything is judged by its length.
        self.look_for_pause();
        let awake_ns = self.pauses.awake(now_ns);
        let second_is_over = now_ns / SECOND_NS > self.second.at_ns / SECOND_NS;
        if second_is_over {
            // Before anything here holds an entry: an ended runtime is one that nobody holds.
            self.engine.forget_ended_runtimes();
        }
        self.take_stacks();
        self.take_slow_polls(now_ns);
        let mut next_ns = u64::MAX;
        self.look_at_lines(now_ns, &mut next_ns);
        next_ns = next_ns.min(now_ns + self.tempo(now_ns));
        self.take_ended(now_ns);
        let runtimes = self.engine.runtimes();
        self.workers.tick(awake_ns, &runtimes, &self.lines, &self.live);
        for runtime in runtimes.iter().filter(|runtime| runtime.wants_metrics()) {
            self.engine.registry.lines.ask_anew(runtime.id);
        }
        self.pools.tick(awake_ns, &runtimes, &self.engine.registry);
        self.look_at_process(now_ns);
        if second_is_over {
            self.every_second(now_ns, &runtimes);
        }
        self.pauses.expect(next_ns);
        next_ns
    }

    /// Finds out whether the process stood still since it was last looked at.
    fn look_for_pause(&mut self) {
        let at_ns = self.now_ns();
        self.throttled_ns = self.throttling.look(at_ns);
        let tick = Tick {
            at_ns,
            suspended_ns: activity::suspended_ns(),
            process_cpu_ns: activity::process_cpu_ns(),
            own: self.own_cpu.read(),
            throttled_ns: self.throttled_ns,
        };
        if let Some(pause) = self.pauses.tick(tick, at_ns + TICK_NS) {
            self.push(v1::Event {
                at_ns,
                kind: event::Kind::ProcessPaused.into(),
                paused_ns: Some(pause.paused_ns),
                ..v1::Event::default()
            });
        }
    }

    /// Busy time and longest poll of a task as its slot counts them, without the time in which the process stood still.
    pub(crate) fn without_pauses(&self, view: &SlotView, now_ns: u64) -> (u64, u64) {
        let (task, busy_ns, longest_ns) = (view.id.0, view.busy_ns, view.longest_ns);
        let ended_ns = self.at(view.poll_end);
        // A poll that has ended since the last tick is in its slot already, and not yet among the excused.
        if now_ns < ended_ns.saturating_add(2 * TICK_NS) && !self.excused.has(task) {
            let awake_ns =
                self.pauses.awake_between(ended_ns.saturating_sub(longest_ns), ended_ns).min(longest_ns);
            return (busy_ns.saturating_sub(longest_ns - awake_ns), awake_ns);
        }
        self.excused.without(task, busy_ns, longest_ns)
    }

    /// The clock by which waits are measured: it stands still while the process does.
    pub(crate) fn awake_ns(&self, now_ns: u64) -> u64 {
        self.pauses.awake(now_ns)
    }

    /// How long ago `ticks` was by that clock.
    pub(crate) fn awake_since(&self, ticks: Ticks, now_ns: u64) -> u64 {
        self.pauses.awake_between(self.at(ticks), now_ns)
    }

    /// Time until the next tick, as the lines show it; a second's end is not slept through.
    fn tempo(&mut self, now_ns: u64) -> u64 {
        let tick_ns = self.tempo.next_ns(Seen {
            watched: self.watched_by > 0,
            open: self.lines.iter().any(|line| line.bracket.is_some()),
            long: self.live.iter().any(|live| live.is_poll() && live.poll.since_ns >= LOOK_AFTER_NS),
            ends: self.lines.iter().fold(0u64, |sum, line| sum.wrapping_add(line.active)),
            threshold_ns: self.engine.registry.thresholds.least(),
        });
        tick_ns.min(SECOND_NS - now_ns % SECOND_NS).max(1)
    }

    /// Samples again unless it was done within the last milliseconds, so that an answer is fresh.
    pub(crate) fn refresh(&mut self, now_ns: u64) {
        self.asked_at_ns = now_ns;
        if now_ns >= self.sampled_at_ns + TICK_NS / 10 {
            self.sample(now_ns);
        }
        // The next frame has what they say to this.
        self.engine.askers.nudge();
        self.take_answers(now_ns);
    }

    /// Takes in what the application's pools have said; the closures are called elsewhere.
    fn take_answers(&mut self, now_ns: u64) {
        let (pauses, clock) = (&self.pauses, &self.engine.registry.clock);
        let age_ns = |ticks| pauses.awake_between(clock.at(ticks), now_ns);
        let answers = self.answers.take(self.engine, age_ns);
        let awake_ns = self.pauses.awake(now_ns);
        for (name, answer) in &answers {
            if let Answer::Sample(sample, age_ns) = answer {
                self.pools.user(awake_ns, name, *sample, *age_ns);
            }
        }
        let shown =
            |name: &str, answer: &Answer| matches!(answer, Answer::Sample(..)).then_some(name.to_owned());
        let shown: HashSet<String> =
            answers.iter().filter_map(|(name, answer)| shown(name, answer)).collect();
        self.pools.keep_users(|name| shown.contains(name));
    }

    /// What the process itself has only so much of.
    fn look_at_process(&mut self, now_ns: u64) {
        let address = || {
            let address = self.engine.address.get()?.as_ref().ok()?;
            address.strip_prefix("http://")?.parse().ok()
        };
        let own = *self.own_address.get_or_insert_with(address);
        let is_watched = now_ns < self.asked_at_ns.saturating_add(2 * SECOND_NS) && self.asked_at_ns > 0;
        let (cgroup, clock) = (&self.engine.settings.cgroup, &self.engine.registry.clock);
        self.process.tick(self.pauses.awake(now_ns), is_watched, cgroup, clock, own);
        let missing = self.process.missing();
        let mut known = self.engine.missing_pools.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(&missing) {
            *known = Some(missing);
        }
    }

    /// All pools: Tokio's and the application's first, then run queues and what the process has.
    pub(crate) fn all_pools(&self, now_ns: u64) -> Vec<v1::Pool> {
        let awake_ns = self.pauses.awake(now_ns);
        let mut pools = self.pools.all();
        pools.extend(self.workers.queues(awake_ns));
        pools.extend(self.process.all(awake_ns));
        pools
    }

    fn look_at_lines(&mut self, now_ns: u64, next_ns: &mut u64) {
        let registry = &self.engine.registry;
        let awake_ns = self.pauses.awake(now_ns);
        self.live.clear();
        self.lines.clear();
        let mut stuck = Vec::new();
        let now = registry.clock.now();
        for (position, line) in registry.lines.views() {
            let line = self.seen(position, line, now);
            self.lines.push(line);
            let Some(bracket) = line.bracket else { continue };
            let slot =
                bracket.slot.and_then(|slot| registry.slots.view(slot)).filter(|view| view.id == bracket.id);
            let began_ns = self.pauses.awake(registry.clock.at(bracket.start));
            let since_ns = awake_ns.saturating_sub(began_ns);
            let watched =
                self.watched.entry(position).or_insert_with(|| Watched::new(line.tid, bracket.start));
            if watched.word != bracket.start || watched.tid != line.tid {
                *watched = Watched::new(line.tid, bracket.start);
            }
            watched.seen_at_ns = now_ns;
            let live_poll = since_ns >= LOOK_AFTER_NS;
            if live_poll && let Some(look) = activity::look(line.tid) {
                let look = Look { throttled_ns: self.throttled_ns, ..look };
                let first = watched.looks.map_or((awake_ns, look), |(first, _)| first);
                watched.looks = Some((first, (awake_ns, look)));
            }
            let mut poll = v1::LivePoll { label_sid: 0, ..self.engine.describe_slot(slot.as_ref()) };
            poll.task_id = bracket.id.0;
            poll.since_ns = since_ns;
            poll.activity = watched.activity();
            poll.stacks = watched.shares.list();
            if let Some(label) = bracket.label {
                poll.label_sid = registry.labels.entry(label).sid().0;
                let label_began_ns = self.pauses.awake(registry.clock.at(bracket.label_start));
                poll.label_since_ns = Some(awake_ns.saturating_sub(label_began_ns));
            }
            let moved_on = self.workers.has_moved_on(&line, began_ns);
            if moved_on {
                registry.lines.excuse(position, bracket.start);
            }
            let threshold_ns =
                slot.map_or(registry.thresholds.all_ns, |slot| registry.threshold_ns(slot.group, slot.flags));
            let live = Live {
                threshold_ns,
                tid: line.tid,
                worker: line.worker,
                word: bracket.start,
                line: position,
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
        self.look_at_stacks(now_ns, stuck, next_ns);
    }

    /// Adds when the line was last seen to have moved.
    fn seen(&mut self, position: usize, view: LineView, now: Ticks) -> SeenLine {
        let registry = &self.engine.registry;
        let tally = registry.lines.get(position).filter(|_| view.polls).map(|line| &line.groups);
        let done = Done {
            polls: tally.map_or(0, |tally| registry.group_polls.polls_of(tally)),
            last: view.last,
            start: view.bracket.map(|bracket| bracket.start),
        };
        let moved = at(&mut self.moved, position);
        if moved.0 != done {
            *moved = (done, now);
        }
        SeenLine { view, active: moved.1 }
    }

    /// Whoever read figures before this knows of every slow poll and every long stretch in them.
    pub(crate) fn take_slow_polls(&mut self, now_ns: u64) {
        let registry = &self.engine.registry;
        let stretches = registry.long_stretches.take(&mut self.stretches_read).items;
        let taken = registry.slow_polls.take(&mut self.slow_polls_read);
        registry.losses.add(Reason::DroppedEvents, taken.lost);
        // The process may have stood still since this sample began: what ended after that is in `taken` already.
        if self.pauses.is_late(self.now_ns()) {
            self.look_for_pause();
        }
        for [start, ns, label] in stretches {
            let awake_ns = self.awake_of(start, ns);
            if awake_ns < ns {
                at(&mut self.labels, label as usize).excuse(now_ns, ns, ns - awake_ns);
            }
        }
        for [id, word, ns, place, thread] in taken.items {
            let (group, label_plus1) = ((place >> 32) as u32, place as u32);
            let (task_class, kind, tid) =
                ((thread >> 48) as i32, (thread >> 32) as i32 & 0xffff, thread as u32);
            let watched = self.watched.values().find(|watched| watched.word == word && watched.tid == tid);
            let entry = registry.groups.entry(GroupId(group));
            let label = label_plus1.checked_sub(1).map(crate::registry::labels::LabelIndex);
            let began_ns = registry.clock.at(word);
            let awake_ns = self.awake_of(word, ns);
            if awake_ns < ns {
                // What was no poll of a followed task is in no histogram, where another would be taken out for it.
                if kind != v1::TaskKind::Unspecified as i32 {
                    at(&mut self.groups, group as usize).polls.excuse(now_ns, ns, ns - awake_ns);
                }
                self.excused.add(id, ns, awake_ns);
                if awake_ns < registry.thresholds.least() {
                    continue;
                }
            }
            let poll = v1::LivePoll {
                task_id: id,
                kind,
                task_class,
                name_sid: entry.name().0,
                label_sid: label.map_or(0, |label| registry.labels.entry(label).sid().0),
                group_id: group,
                spawned_at_sid: entry.site().0,
                since_ns: awake_ns,
                activity: self.activity_of_ended(watched, began_ns, began_ns + ns),
                label_since_ns: None,
                stacks: watched.map_or_else(Vec::new, |watched| watched.shares.list()),
            };
            if let Some(v1::ThreadActivity { on_cpu_ns: Some(on_cpu), observed_ns, .. }) = poll.activity
                && observed_ns > 0
            {
                at(&mut self.groups, group as usize).polls.observed(on_cpu, observed_ns);
                if let Some(label) = label {
                    at(&mut self.labels, label.0 as usize).observed(on_cpu, observed_ns);
                }
            }
            self.push_held(now_ns, |held| held.word == word && held.tid == tid);
            self.push_event(now_ns, event::Kind::PollSlow, Some(tid), poll);
        }
    }

    /// How much of the `ns` since `start` the process did not stand still.
    fn awake_of(&self, start: Ticks, ns: u64) -> u64 {
        let began_ns = self.at(start);
        self.pauses.awake_between(began_ns, began_ns + ns).min(ns)
    }

    /// What the thread of a poll did that has ended: between the looks at it, or, where there were no two, at least how
    /// long the quota stopped it.
    fn activity_of_ended(
        &self,
        watched: Option<&Watched>,
        from_ns: u64,
        to_ns: u64,
    ) -> Option<v1::ThreadActivity> {
        let looked = watched.and_then(Watched::activity);
        if looked.is_some_and(|activity| activity.observed_ns > 0) {
            return looked;
        }
        let Some(throttled_ns) = self.throttling.between(from_ns, to_ns).filter(|&ns| ns > 0) else {
            return looked;
        };
        let observed_ns = self.pauses.awake_between(from_ns, to_ns);
        Some(v1::ThreadActivity {
            observed_ns,
            throttled_ns: Some(throttled_ns.min(observed_ns)),
            // These were not looked at all that time.
            on_cpu_ns: None,
            waiting_for_cpu_ns: None,
            ..looked.unwrap_or_default()
        })
    }

    fn take_ended(&mut self, now_ns: u64) {
        let died = self.engine.registry.died.take(&mut self.died_read);
        self.engine.registry.losses.add(Reason::DroppedEvents, died.lost);
        for words in died.items {
            let (view, _) = SlotView::from_ended(words);
            let kind = match view.flags.outcome() {
                Outcome::Failed => event::Kind::TaskFailed,
                _ => event::Kind::TaskPanic,
            };
            let poll = v1::LivePoll { task_id: view.id.0, ..self.engine.describe_slot(Some(&view)) };
            self.push(v1::Event {
                at_ns: now_ns,
                kind: kind.into(),
                poll: Some(poll),
                reason_sid: view.reason.0,
                detached: view.flags.is_detached(),
                ..v1::Event::default()
            });
        }
        let ended = self.engine.registry.ended.take(&mut self.ended_read);
        let unkept = self.engine.registry.totals.unkept.sum();
        let fresh = unkept.saturating_sub(std::mem::replace(&mut self.unkept_told, unkept));
        self.engine.registry.losses.add(Reason::LostEndings, ended.lost + fresh);
        for words in ended.items {
            let (view, at) = SlotView::from_ended(words);
            if self.ended.len() == ENDED_KEPT {
                self.ended.pop_front();
            }
            self.ended.push_back((view, self.at(at)));
        }
    }

    fn push_event(&mut self, at_ns: u64, kind: event::Kind, tid: Option<u32>, poll: v1::LivePoll) {
        self.push(v1::Event { at_ns, kind: kind.into(), tid, poll: Some(poll), ..v1::Event::default() });
    }

    fn push(&mut self, event: v1::Event) {
        self.events_total += 1;
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        let event = v1::Event { seq: self.events_total, ..event };
        self.remember(&event);
        self.events.push_back(event);
    }

    /// Stacks are of the streams that see them happen: what is remembered of them would outlive them.
    fn remember(&mut self, event: &v1::Event) {
        match &event.poll {
            Some(poll) if !poll.stacks.is_empty() => {
                let poll = v1::LivePoll { stacks: Vec::new(), ..poll.clone() };
                self.history.push_event(&v1::Event { poll: Some(poll), ..event.clone() });
            }
            _ => self.history.push_event(event),
        }
    }

    fn every_second(&mut self, now_ns: u64, runtimes: &[Arc<crate::runtimes::RuntimeEntry>]) {
        let elapsed_ns = now_ns - self.second.at_ns;
        self.make_room(now_ns);
        let registry = &self.engine.registry;
        self.forget_ended_threads();
        self.defects.name(self.engine);
        if now_ns >= self.quotas_looked_at_ns + QUOTAS_EVERY_NS || self.second.at_ns == 0 {
            self.quotas_looked_at_ns = now_ns;
            self.throttling.look_for_quotas(&self.engine.settings.cgroup);
        }
        self.workers.every_second(self.pauses.awake(now_ns), &self.lines, &self.live);
        self.take_answers(now_ns);

        for (id, group) in registry.groups.iter() {
            let (spawned, ended, _) = group.counts();
            at(&mut self.groups, id.0 as usize).size.sample(now_ns, spawned, ended);
        }
        if now_ns >= self.snapshot_at_ns + SNAPSHOT_EVERY_NS {
            self.snapshot_at_ns = now_ns;
            for (id, _) in registry.groups.iter() {
                if let Some(polls) = registry.polls_of_group(id) {
                    at(&mut self.groups, id.0 as usize).polls.snapshot(now_ns, polls.histogram);
                }
            }
            for (index, _) in registry.labels.iter() {
                if let Some(polls) = registry.polls_of_label(index) {
                    at(&mut self.labels, index.0 as usize).snapshot(now_ns, polls.histogram);
                }
            }
        }

        let polls = registry.counts().polls;
        let requests = self.requests_total().unwrap_or(0);
        let alive = self.alive(runtimes).unwrap_or_else(|| self.followed());
        let workers = self.workers.busy_ratios();
        let pools = self.all_pools(now_ns);
        let groups: Vec<GroupTotals> = registry
            .groups
            .iter()
            .map(|(id, group)| {
                let (spawned, ended, _) = group.counts();
                let polls = registry.totals_of_group(id);
                GroupTotals {
                    id: id.0,
                    live: spawned.saturating_sub(ended),
                    polls_total: polls.0,
                    busy_ns_total: polls.1,
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
        let own_cpu_ns = self.own_cpu.read().map(|cpu| cpu.on_cpu_ns);
        self.cpu_ratio = own_cpu_ns
            .map(|cpu| cpu.saturating_sub(self.second.own_cpu_ns) as f64 / elapsed_ns as f64)
            .filter(|_| self.second.at_ns > 0);
        self.second = LastSecond { at_ns: now_ns, polls, requests, own_cpu_ns: own_cpu_ns.unwrap_or(0) };
    }

    /// Folds the histogram of the coldest group (of polls, of waits), or label, where there was no memory for another.
    fn make_room(&mut self, now_ns: u64) {
        let registry = &self.engine.registry;
        let (groups, labels) = (&self.groups, &self.labels);
        let coldest_group = || {
            let counted = registry.groups.iter().skip(1).filter_map(|(id, _)| {
                let polls = registry.polls_of_group(id).filter(|polls| polls.polls > 0)?;
                let window = groups.get(id.0 as usize).map(|windows| &windows.polls);
                Some((window.map_or(0, |window| window.recent(&polls.histogram).total()), id.0 as u8))
            });
            counted.min().map(|(_, position)| position)
        };
        let coldest_label = || {
            let counted = registry.labels.iter().skip(1).filter_map(|(index, _)| {
                let polls = registry.polls_of_label(index).filter(|polls| polls.polls > 0)?;
                let window = labels.get(index.0 as usize);
                Some((window.map_or(0, |window| window.recent(&polls.histogram).total()), index.0 as u8))
            });
            counted.min().map(|(_, position)| position)
        };
        let take_group = |position: u8| registry.group_polls.fold(registry.lines.groups(), position);
        let take_label = |position: u8| registry.label_polls.fold(registry.lines.labels(), position);
        let take_waits = |position: u8| registry.group_waits.fold(registry.lines.waits(), position);
        self.group_fold.step(now_ns, registry, &registry.group_polls, coldest_group, take_group);
        self.label_fold.step(now_ns, registry, &registry.label_polls, coldest_label, take_label);
        self.wait_fold.step(
            now_ns,
            registry,
            &registry.group_waits,
            || folding::coldest_waits(registry, groups),
            take_waits,
        );
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
        let stuck =
            |live: &&Live| live.is_poll() && live.worker.is_some() && live.poll.since_ns >= live.threshold_ns;
        self.live.iter().filter(stuck).count() as u32
    }

    /// Requests that layers have counted; `None` where none ever did.
    pub(crate) fn requests_total(&self) -> Option<u64> {
        let counted = self.engine.registry.labels.iter().filter_map(|(_, label)| label.requests());
        counted.reduce(|all, requests| all + requests)
    }

    /// Tasks with a row.
    pub(crate) fn followed(&self) -> u64 {
        self.engine.registry.totals.followed.sum()
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
        v1::LivePoll {
            kind: slot.flags.kind().into(),
            task_class: slot.flags.class().into(),
            name_sid: group.name().0,
            group_id: slot.group.0,
            spawned_at_sid: group.site().0,
            label_sid: slot.label.map_or(0, |label| self.registry.labels.entry(label).sid().0),
            ..v1::LivePoll::default()
        }
    }
}

impl Watched {
    fn new(tid: u32, word: u64) -> Self {
        Self { tid, word, seen_at_ns: 0, looks: None, events: 0, shares: Shares::default() }
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
