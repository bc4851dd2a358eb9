//! Any order of what hooks, labels and wakers are told, on three threads, with room for nearly nothing: after each step the
//! registry says what a model of plain maps says. Nothing is lost that is not counted.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;
use std::sync::{Arc, mpsc};

use proptest::prelude::*;
use proptest::sample::Index as Pick;
use taskscope_proto::ids::{GroupId, Sid, TaskId};
use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::{Outcome, TaskClass};

use super::hooks::{self, Watched};
use super::label::{self, Stretch};
use super::wrapper::Said;
use crate::clock::{Any, Clock};
use crate::registry::Registry;
use crate::registry::figures::Polls;
use crate::registry::labels::LabelIndex;
use crate::registry::slots::SlotView;
use crate::runtimes::RuntimeEntry;

const THREADS: usize = 3;
/// Ticks are nanoseconds here.
const SLOW_NS: u64 = 1000;
/// Brackets that a line keeps.
const KEPT: usize = 4;
const GROUPS: u32 = 256;
const LABELS: u32 = 201;
const REASON: Sid = Sid(77);

/// What happens, to one of the threads or tasks that there are.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    /// Named: through the wrapper, which sees wakes, too.
    Spawn {
        on: usize,
        name: Option<u8>,
    },
    /// On a runtime that is closed the end comes first.
    SpawnClosed {
        on: usize,
    },
    BeginPoll {
        on: usize,
        task: Pick,
    },
    EndPoll {
        on: usize,
    },
    /// In a poll of the task.
    Panic {
        on: usize,
    },
    EndTask {
        on: usize,
    },
    /// Wherever it is, by whatever thread.
    Shutdown {
        on: usize,
        task: Pick,
    },
    Wake {
        on: usize,
        task: Pick,
    },
    OpenLabel {
        on: usize,
        label: u8,
    },
    CloseLabel {
        on: usize,
        guard: Pick,
    },
    Fold {
        group: u8,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let on = || 0..THREADS;
    let task = any::<Pick>;
    let step = prop_oneof![
        3 => (1..3 * SLOW_NS).prop_map(Step::Wait),
        4 => (on(), proptest::option::of(0..4u8)).prop_map(|(on, name)| Step::Spawn { on, name }),
        1 => on().prop_map(|on| Step::SpawnClosed { on }),
        8 => (on(), task()).prop_map(|(on, task)| Step::BeginPoll { on, task }),
        8 => on().prop_map(|on| Step::EndPoll { on }),
        1 => on().prop_map(|on| Step::Panic { on }),
        3 => on().prop_map(|on| Step::EndTask { on }),
        1 => (on(), task()).prop_map(|(on, task)| Step::Shutdown { on, task }),
        2 => (on(), task()).prop_map(|(on, task)| Step::Wake { on, task }),
        3 => (on(), 0..4u8).prop_map(|(on, label)| Step::OpenLabel { on, label }),
        3 => (on(), task()).prop_map(|(on, guard)| Step::CloseLabel { on, guard }),
        1 => (1..4u8).prop_map(|group| Step::Fold { group }),
    ];
    proptest::collection::vec(step, 1..if cfg!(miri) { 20 } else { 120 })
}

/// How much there is room for.
#[derive(Clone, Debug)]
struct Room {
    tasks: usize,
    lines: usize,
    groups: u32,
    labels: u32,
    /// Bytes of each kind of histograms.
    polls: usize,
    /// Between one task's id and the next one's.
    stride: u64,
}

fn room() -> impl Strategy<Value = Room> {
    let stride = prop_oneof![Just(1u64), Just(8), Just(64), 1..1u64 << 40];
    (1..6usize, 1..=THREADS, 0..4u32, 0..4u32, 0..40_000usize, stride).prop_map(
        |(tasks, lines, groups, labels, polls, stride)| Room { tasks, lines, groups, labels, polls, stride },
    )
}

#[derive(Debug, Default)]
struct Task {
    group: u32,
    followed: bool,
    wrapped: bool,
    /// Terminated, in a bracket that is still open.
    ended: bool,
    outcome: Outcome,
    polls: u64,
    busy_ns: u64,
    longest_ns: u64,
    label: Option<u32>,
    wakes: u64,
    woken: Option<u64>,
    scheduled_ns: u64,
}

#[derive(Debug)]
struct Bracket {
    start: u64,
    /// `None`: opened by a label.
    task: Option<u64>,
    followed: bool,
    kept: bool,
    ended: bool,
    guards: usize,
}

#[derive(Debug)]
struct Guard {
    label: u32,
    start: u64,
    bracket: u64,
}

#[derive(Debug, Default)]
struct Thread {
    /// `None`: not known yet.
    has_line: Option<bool>,
    brackets: Vec<Bracket>,
    guards: Vec<Guard>,
    /// Start of the bracket of the last panic.
    panicked: Option<u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Figures {
    polls: u64,
    busy_ns: u64,
    /// Of these, such as no histogram counts.
    unsorted: u64,
    longest_ns: u64,
}

impl Figures {
    fn add(&mut self, ns: u64, sorted: bool) {
        self.polls += 1;
        self.busy_ns += ns;
        self.unsorted += u64::from(!sorted);
    }
}

#[derive(Debug, Default)]
struct Group {
    spawned: u64,
    ended: u64,
    panicked: u64,
    peak: u64,
}

/// The real one, the threads that it is used on, and the model of it.
struct Books {
    registry: &'static Registry,
    runtime: Arc<RuntimeEntry>,
    watched: Arc<Watched>,
    hand: Arc<quanta::Mock>,
    workers: Vec<Worker>,

    room: Room,
    lines: usize,
    last_id: u64,
    tasks: BTreeMap<u64, Task>,
    threads: Vec<Thread>,
    groups: BTreeMap<u32, Group>,
    /// By the key of a group: `None` is the site alone.
    group_of: BTreeMap<Option<u8>, u32>,
    label_of: BTreeMap<u8, u32>,
    polls: BTreeMap<u32, Figures>,
    stretches: BTreeMap<u32, Figures>,
    waits: BTreeMap<u32, Figures>,
    folded: BTreeSet<u32>,
    losses: BTreeMap<Reason, u64>,
    ended: Vec<(u64, Outcome, u64, u64, Sid)>,
    slow: Vec<(u64, u64, u32)>,
    foreign: u64,
    ended_read: u64,
    slow_read: u64,
}

/// A thread that does what it is told, so that hooks run where they would.
struct Worker(mpsc::Sender<Box<dyn FnOnce() + Send>>);

thread_local! {
    static GUARDS: RefCell<Vec<Stretch>> = const { RefCell::new(Vec::new()) };
}

impl Worker {
    fn start() -> Self {
        let (jobs, given) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        std::thread::spawn(move || given.into_iter().for_each(|job| job()));
        Self(jobs)
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job = Box::new(move || drop(done.send(job())));
        self.0.send(job).expect("it has not panicked");
        result.recv().expect("the hook does not panic")
    }
}

impl Books {
    fn new(room: Room) -> Self {
        let (clock, hand) = Clock::driven();
        let registry = Registry::tiny(room.tasks, room.lines, room.polls, clock, SLOW_NS);
        let registry: &'static Registry = Box::leak(Box::new(registry));
        for n in 1..GROUPS - room.groups {
            assert_eq!(registry.groups.find(Sid(4000), Sid(n)), Some(GroupId(n)));
        }
        for n in 1..LABELS - room.labels {
            assert_eq!(registry.labels.find(Sid(5000 + n)), Some(LabelIndex(n)));
        }
        let runtime = Arc::new(RuntimeEntry::new(1, true, 0));
        let hook = crate::runtimes::Held::new(&runtime, crate::runtimes::Hook::BeforePoll);
        let watched = Arc::new(Watched { registry, id: runtime.id, hook, runtime: Arc::clone(&runtime) });
        Self {
            registry,
            runtime,
            watched,
            hand,
            workers: (0..THREADS).map(|_| Worker::start()).collect(),
            room,
            lines: 0,
            last_id: 0,
            tasks: BTreeMap::new(),
            threads: (0..THREADS).map(|_| Thread::default()).collect(),
            groups: BTreeMap::new(),
            group_of: BTreeMap::new(),
            label_of: BTreeMap::new(),
            polls: BTreeMap::new(),
            stretches: BTreeMap::new(),
            waits: BTreeMap::new(),
            folded: BTreeSet::new(),
            losses: BTreeMap::new(),
            ended: Vec::new(),
            slow: Vec::new(),
            foreign: 0,
            ended_read: 0,
            slow_read: 0,
        }
    }

    fn now(&self) -> u64 {
        self.hand.value()
    }

    fn lose(&mut self, reason: Reason) {
        *self.losses.entry(reason).or_default() += 1;
    }

    /// Whether a poll or stretch that was just counted found room in a histogram: only the real one knows.
    fn was_sorted(&mut self) -> bool {
        let lost = self.registry.losses.count(Reason::UnsortedPolls);
        let before = self.losses.get(&Reason::UnsortedPolls).copied().unwrap_or_default();
        assert!(lost <= before + 1);
        if lost > before {
            self.lose(Reason::UnsortedPolls);
        }
        lost == before
    }

    /// Whether the thread has a line, which it asks for when it first needs one.
    fn has_line(&mut self, on: usize) -> bool {
        *self.threads[on].has_line.get_or_insert_with(|| {
            let room = self.lines < self.room.lines;
            self.lines += usize::from(room);
            room
        })
    }

    /// The innermost bracket that the line keeps.
    fn open(&mut self, on: usize) -> Option<&mut Bracket> {
        self.threads[on].brackets.iter_mut().rev().find(|bracket| bracket.kept)
    }

    fn push(&mut self, on: usize, task: Option<u64>, followed: bool) {
        let start = self.now();
        let brackets = &mut self.threads[on].brackets;
        let kept = brackets.len() < KEPT;
        brackets.push(Bracket { start, task, followed, kept, ended: false, guards: 0 });
        if !kept {
            self.lose(Reason::DeepBrackets);
        }
    }

    /// A live task to do something with, if there is one.
    fn pick(&self, task: &Pick) -> Option<u64> {
        let live: Vec<u64> = self.tasks.iter().filter(|(_, task)| !task.ended).map(|(&id, _)| id).collect();
        (!live.is_empty()).then(|| *task.get(&live))
    }

    fn index(&self, id: u64) -> crate::registry::slots::SlotIndex {
        self.registry.index.find(TaskId(id)).expect("it is followed").0
    }

    fn apply(&mut self, step: Step) {
        // Each step has an instant of its own, as with a clock that is fine enough.
        self.hand.increment(1u64);
        match step {
            Step::Wait(ns) => self.hand.increment(ns),
            Step::Spawn { on, name } => self.spawn(on, name),
            Step::SpawnClosed { on } => self.spawn_closed(on),
            Step::BeginPoll { on, task } => {
                if let Some(id) = self.pick(&task) {
                    self.begin_poll(on, id);
                }
            }
            Step::EndPoll { on } => {
                let watched = Arc::clone(&self.watched);
                self.workers[on].run(move || hooks::after_poll::<Any>(&watched));
                self.end_poll(on);
            }
            Step::Panic { on } => self.panic(on),
            Step::EndTask { on } => {
                let open = self.open(on).and_then(|open| open.task);
                if let Some(id) = open.filter(|id| self.tasks.get(id).is_some_and(|task| !task.ended)) {
                    self.terminate(on, id);
                }
            }
            Step::Shutdown { on, task } => {
                // The end of a task without a row, out of its polls, looks as that of a job of the blocking pool does.
                let id = self.pick(&task).filter(|id| {
                    let polled_here = self.open(on).is_some_and(|open| open.task == Some(*id));
                    self.tasks[id].followed || polled_here && self.has_line(on)
                });
                if let Some(id) = id {
                    self.terminate(on, id);
                }
            }
            Step::Wake { on, task } => {
                if let Some(id) = self.pick(&task) {
                    self.wake(on, id);
                }
            }
            Step::OpenLabel { on, label } => self.open_label(on, label),
            Step::CloseLabel { on, guard } => self.close_label(on, &guard),
            Step::Fold { group } => self.fold(GROUPS - 1 - u32::from(group) % GROUPS),
        }
        self.compare();
    }

    fn group_of(&mut self, name: Option<u8>) -> u32 {
        let first = GROUPS - self.room.groups;
        let next = first + self.group_of.values().filter(|group| **group != 0).count() as u32;
        let group = *self.group_of.entry(name).or_insert(if next < GROUPS { next } else { 0 });
        if group == 0 {
            self.lose(Reason::FoldedGroups);
        }
        group
    }

    fn count_spawn(&mut self, name: Option<u8>) -> u32 {
        let id = self.group_of(name);
        let group = self.groups.entry(id).or_default();
        group.spawned += 1;
        group.peak = group.peak.max(group.spawned - group.ended);
        id
    }

    fn spawn(&mut self, on: usize, name: Option<u8>) {
        let (registry, runtime) = (self.registry, Arc::clone(&self.runtime));
        self.last_id += self.room.stride;
        let id = self.last_id;
        self.workers[on].run(move || {
            let at = SITE;
            let wrapped = name.map(|name| {
                let name = registry.texts.intern_parts(&["task ", ["a", "b", "c", "d"][usize::from(name)]]);
                let name = name.expect("there is room for four");
                Said { name, class: TaskClass::Work, fields: Sid(9), at, detached: false }
            });
            hooks::spawned(registry, &runtime, TaskId(id), wrapped, at);
        });
        let group = self.count_spawn(name);
        let rows = self.tasks.values().filter(|task| task.followed).count();
        let followed = self.has_line(on) && rows < self.room.tasks;
        if !self.has_line(on) {
            self.lose(Reason::UnlinedThreads);
        } else if !followed {
            self.lose(Reason::EvictedTasks);
        }
        let woken = name.map(|_| self.now());
        let task = Task { group, followed, wrapped: name.is_some(), woken, ..Task::default() };
        self.tasks.insert(id, task);
    }

    fn spawn_closed(&mut self, on: usize) {
        let (registry, runtime) = (self.registry, Arc::clone(&self.runtime));
        self.last_id += self.room.stride;
        let id = TaskId(self.last_id);
        let has_line = self.has_line(on);
        if !has_line {
            return;
        }
        self.workers[on].run(move || {
            let at = SITE;
            hooks::terminated(registry, &runtime, id, at);
            hooks::spawned(registry, &runtime, id, None, at);
        });
        let group = self.count_spawn(None);
        self.groups.entry(group).or_default().ended += 1;
        self.foreign += 1;
    }

    fn begin_poll(&mut self, on: usize, id: u64) {
        let (registry, watched) = (self.registry, Arc::clone(&self.watched));
        let now = self.now();
        let task = self.tasks.get_mut(&id).expect("it was picked");
        let wrapped = task.wrapped && task.followed;
        let waited = task.woken.take_if(|_| wrapped).map(|woken| now - woken);
        task.scheduled_ns += waited.unwrap_or(0);
        let group = task.group;
        let index = wrapped.then(|| self.index(id));
        self.workers[on].run(move || {
            hooks::before_poll::<Any>(&watched, TaskId(id));
            // As the wrapper does.
            if let Some(index) = index {
                registry.answer_wake(index, TaskId(id));
            }
        });
        if !self.has_line(on) {
            return self.lose(Reason::UnlinedThreads);
        }
        if let Some(waited) = waited {
            let sorted = self.was_sorted();
            self.waits.entry(self.shown(group)).or_default().add(waited, sorted);
        }
        let task = self.tasks.get_mut(&id).expect("it was picked");
        let followed = task.followed;
        task.polls += u64::from(followed);
        self.push(on, Some(id), followed);
    }

    /// The innermost bracket is closed.
    fn end_poll(&mut self, on: usize) {
        if !self.has_line(on) {
            return;
        }
        let Some(bracket) = self.threads[on].brackets.pop() else { return self.lose(Reason::UnpairedHooks) };
        let Some(id) = bracket.task.filter(|_| bracket.kept && bracket.followed) else { return };
        let ns = self.now() - bracket.start;
        let sorted = self.was_sorted();
        let Some(task) = self.tasks.get_mut(&id) else {
            // Another thread was faster to poll it to its end than this one to count its poll.
            assert!(!sorted);
            self.polls.entry(0).or_default().add(ns, false);
            if ns >= SLOW_NS {
                self.slow.push((id, ns, 0));
            }
            return;
        };
        task.busy_ns += ns;
        task.longest_ns = task.longest_ns.max(ns);
        let group = task.group;
        // The histogram of a folded group is that of `other`; what no histogram counts stays the group's own, which is
        // shown with `other`, too.
        let shown = self.shown(group);
        let polls = self.polls.entry(shown).or_default();
        polls.add(ns, sorted);
        polls.longest_ns = polls.longest_ns.max(ns);
        if ns >= SLOW_NS {
            self.slow.push((id, ns, group));
        }
        if bracket.ended {
            let panicked = self.threads[on].panicked == Some(bracket.start);
            let died = panicked && self.tasks[&id].outcome == Outcome::Panicked;
            self.free(id, if died { REASON } else { Sid(0) });
        }
    }

    /// The group under which polls of `group` are shown.
    fn shown(&self, group: u32) -> u32 {
        if self.folded.contains(&group) { 0 } else { group }
    }

    fn free(&mut self, id: u64, reason: Sid) {
        let task = self.tasks.remove(&id).expect("it has a row");
        let group = self.groups.entry(task.group).or_default();
        group.ended += 1;
        group.panicked += u64::from(task.outcome == Outcome::Panicked);
        self.ended.push((id, task.outcome, task.polls, task.busy_ns, reason));
    }

    fn panic(&mut self, on: usize) {
        let has_line = self.has_line(on);
        let Some(start) = self.open(on).map(|open| open.start) else { return };
        assert!(has_line);
        let registry = self.registry;
        self.workers[on].run(move || registry.my_line().map(|line| line.note_panic(REASON)));
        self.threads[on].panicked = Some(start);
    }

    fn terminate(&mut self, on: usize, id: u64) {
        let (registry, runtime) = (self.registry, Arc::clone(&self.runtime));
        let has_line = self.has_line(on);
        let panicked = self.threads[on].panicked;
        let (mut in_bracket, mut outside, mut panics) = (false, has_line, false);
        if let Some(open) = self.open(on) {
            in_bracket = open.task == Some(id);
            panics = panicked == Some(open.start);
            outside = false;
        }
        let task = self.tasks.get_mut(&id).expect("it was picked");
        if !task.followed && task.wrapped {
            // The wrapper counts it: the hook is told a line of the wrapper.
            let group = task.group;
            registry.count_end(GroupId(group), panics);
        } else {
            self.workers[on].run(move || hooks::terminated(registry, &runtime, TaskId(id), SITE));
        }
        if !task.followed {
            assert!(in_bracket, "the others are not asked for");
            let group = self.groups.entry(task.group).or_default();
            group.ended += 1;
            group.panicked += u64::from(panics);
            self.tasks.remove(&id);
        } else if in_bracket {
            task.ended = true;
            if panics {
                task.outcome = Outcome::Panicked;
            }
            self.open(on).expect("it is in it").ended = true;
        } else {
            if outside {
                task.outcome = Outcome::Shutdown;
            }
            self.free(id, Sid(0));
        }
    }

    fn wake(&mut self, on: usize, id: u64) {
        let now = self.now();
        let task = self.tasks.get_mut(&id).expect("it was picked");
        if !task.wrapped || !task.followed {
            return;
        }
        task.wakes += 1;
        task.woken.get_or_insert(now);
        let (registry, index) = (self.registry, self.index(id));
        self.workers[on].run(move || {
            let wakes = registry.slots.wakes(index, TaskId(id)).expect("it is followed");
            wakes.wake(registry.clock.now(), TaskId(id), TaskId(0));
        });
    }

    fn open_label(&mut self, on: usize, name: u8) {
        let first = LABELS - self.room.labels;
        let next = first + self.label_of.values().filter(|label| **label != 0).count() as u32;
        let label = *self.label_of.entry(name).or_insert(if next < LABELS { next } else { 0 });
        if label == 0 {
            self.lose(Reason::FoldedLabels);
        }
        let registry = self.registry;
        let opened = self.workers[on].run(move || {
            let label = label::find(registry, ["GET /a", "GET /b", "GET /c", "GET /d"][usize::from(name)]);
            let stretch = label::open(registry, label.expect("it is not empty"));
            let opened = stretch.is_some();
            GUARDS.with_borrow_mut(|guards| guards.extend(stretch));
            opened
        });
        assert_eq!(opened, self.has_line(on));
        if !opened {
            return;
        }
        let start = self.now();
        if self.open(on).is_none() {
            self.push(on, None, false);
        }
        let open = self.open(on).expect("there is one now");
        open.guards += 1;
        let (bracket, followed) = (open.start, open.task.filter(|_| open.followed));
        if let Some(task) = followed.and_then(|id| self.tasks.get_mut(&id)) {
            task.label = Some(label);
        }
        self.threads[on].guards.push(Guard { label, start, bracket });
    }

    fn close_label(&mut self, on: usize, guard: &Pick) {
        if self.threads[on].guards.is_empty() {
            return;
        }
        let at = guard.index(self.threads[on].guards.len());
        let guard = self.threads[on].guards.remove(at);
        let registry = self.registry;
        self.workers[on].run(move || {
            let stretch = GUARDS.with_borrow_mut(|guards| guards.remove(at));
            label::close(registry, stretch);
        });
        let now = self.now();
        let Some(open) = self.open(on).filter(|open| open.start == guard.bracket) else { return };
        open.guards -= 1;
        let last = open.guards == 0 && open.task.is_none();
        let sorted = self.was_sorted();
        let stretches = self.stretches.entry(guard.label).or_default();
        stretches.add(now - guard.start, sorted);
        stretches.longest_ns = stretches.longest_ns.max(now - guard.start);
        if last {
            self.end_poll(on);
        }
    }

    /// As the sampler does, where nothing runs meanwhile.
    fn fold(&mut self, group: u32) {
        let registry = self.registry;
        let folding = registry.group_polls.fold(registry.lines.groups(), group as u8);
        registry.group_polls.finish(folding);
        let folding = registry.group_waits.fold(registry.lines.waits(), group as u8);
        registry.group_waits.finish(folding);
        self.folded.insert(group);
        for counted in [&mut self.polls, &mut self.waits] {
            if let Some(folded) = counted.remove(&group) {
                let other = counted.entry(0).or_default();
                other.polls += folded.polls;
                other.busy_ns += folded.busy_ns;
                other.unsorted += folded.unsorted;
                other.longest_ns = other.longest_ns.max(folded.longest_ns);
            }
        }
    }

    fn compare(&mut self) {
        let registry = self.registry;
        let rows: BTreeMap<u64, SlotView> = registry.slots.iter().map(|view| (view.id.0, view)).collect();
        let followed: BTreeMap<&u64, &Task> = self.tasks.iter().filter(|(_, task)| task.followed).collect();
        assert!(rows.keys().eq(followed.keys().copied()), "rows {:?}, tasks {followed:?}", rows.keys());
        for (id, task) in &followed {
            let row = &rows[id];
            let figures = (row.group.0, row.polls, row.busy_ns, row.longest_ns);
            assert_eq!(figures, (task.group, task.polls, task.busy_ns, task.longest_ns), "{row:?}");
            assert_eq!((row.label.map(|label| label.0), row.flags.outcome()), (task.label, task.outcome));
            assert_eq!(row.flags.runtime(), 1);
            let wakes = row.wakes.map(|wakes| (wakes.total, wakes.scheduled_ns));
            assert_eq!(wakes, task.wrapped.then_some((task.wakes, task.scheduled_ns)));
            if task.wrapped {
                assert_eq!((row.flags.class(), row.fields), (TaskClass::Work, Sid(9)));
            }
        }
        let count = |atomic: &std::sync::atomic::AtomicU64| atomic.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(registry.totals.followed.sum(), rows.len() as u64);
        let unended = followed.values().filter(|task| !task.ended).count() as u64;
        assert_eq!(
            (self.runtime.followed.sum(), count(&self.runtime.foreign_ended)),
            (unended, self.foreign)
        );

        let mut totals = (0, 0, 0);
        for (id, entry) in registry.groups.iter() {
            let none = Group::default();
            let group = self.groups.get(&id.0).unwrap_or(&none);
            assert_eq!(entry.counts(), (group.spawned, group.ended, group.panicked), "{id:?}");
            assert_eq!(entry.peak(), group.peak, "{id:?}");
            totals = (totals.0 + group.spawned, totals.1 + group.ended, totals.2 + group.panicked);
            let live = self.tasks.values().filter(|task| task.group == id.0).count() as u64;
            assert_eq!(group.spawned - group.ended, live, "{id:?}");
        }
        let counts = registry.counts();
        assert_eq!((counts.spawned, counts.ended, counts.panicked), totals);
        assert_eq!(counts.polls, self.polls.values().map(|polls| polls.polls).sum::<u64>());

        for id in (0..GROUPS).filter(|id| *id < 1 || *id >= GROUPS - self.room.groups) {
            let polls = registry.polls_of_group(GroupId(id));
            assert_eq!(polls.is_none(), self.folded.contains(&id));
            assert_eq!(polls.map(figures), (!self.folded.contains(&id)).then(|| of(&self.polls, id)), "{id}");
            let waits = registry.waits_of_group(GroupId(id)).map(figures);
            assert_eq!(waits, (!self.folded.contains(&id)).then(|| of(&self.waits, id)), "{id}");
        }
        for id in (0..LABELS).filter(|id| *id < 1 || *id >= LABELS - self.room.labels) {
            let polls = registry.polls_of_label(LabelIndex(id)).map(figures);
            assert_eq!(polls, Some(of(&self.stretches, id)), "{id}");
        }

        for reason in (0..32).filter_map(|reason| Reason::try_from(reason).ok()) {
            let lost = self.losses.get(&reason).copied().unwrap_or_default();
            assert_eq!(registry.losses.count(reason), lost, "{reason:?}");
        }
        let ended = registry.ended.take(&mut self.ended_read);
        let ended = ended.items.into_iter().map(|words| SlotView::from_ended(words).0);
        let ended: Vec<_> = ended
            .map(|view| (view.id.0, view.flags.outcome(), view.polls, view.busy_ns, view.reason))
            .collect();
        assert_eq!(ended, std::mem::take(&mut self.ended));
        let slow = registry.slow_polls.take(&mut self.slow_read).items;
        let slow: Vec<_> =
            slow.into_iter().map(|[id, _, ns, place, _]| (id, ns, (place >> 32) as u32)).collect();
        assert_eq!(slow, std::mem::take(&mut self.slow));

        let with_lines = |(_, thread): &(usize, &Thread)| thread.has_line == Some(true);
        for (on, thread) in self.threads.iter().enumerate().filter(with_lines) {
            let open = self.workers[on].run(move || registry.my_line().and_then(|line| line.bracket()));
            let expected = thread.brackets.iter().rev().find(|bracket| bracket.kept);
            assert_eq!(
                open.map(|open| (open.start, open.id.0, open.own)),
                expected.map(|open| (open.start, open.task.unwrap_or(0), open.task.is_none()))
            );
        }
    }
}

fn figures(polls: Polls) -> Figures {
    let unsorted = polls.polls - polls.histogram.total();
    Figures { polls: polls.polls, busy_ns: polls.busy_ns, unsorted, longest_ns: polls.longest_ns }
}

fn of(all: &BTreeMap<u32, Figures>, id: u32) -> Figures {
    all.get(&id).copied().unwrap_or_default()
}

/// Where all tasks of this test are spawned.
const SITE: &Location<'static> = Location::caller();

fn config() -> ProptestConfig {
    let all = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if cfg!(miri) { ProptestConfig { cases: 2, ..all } } else { all }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_registry_says_what_happened(room in room(), steps in steps()) {
        let mut books = Books::new(room);
        for step in steps {
            books.apply(step);
        }
    }
}
