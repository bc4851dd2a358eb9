//! Which stacks the sampler wants, and what it makes of them: how much of a poll's time was seen in which. They are taken on
//! another thread, which is never waited for.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, Sender};

use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::{self, event};

use super::others::Others;
use super::{Live, Sampler};
use crate::engine::Engine;
use crate::engine::activity::{self, Look};
use crate::stacks::schedule::{Candidate, Kind, OLD_NS, Schedule, THREADS, Target};
use crate::stacks::table::StackId;
use crate::stacks::{Answer, NoStack, Order, Stacks};

/// An event of a poll that has just passed its threshold waits this long for its stack.
const PATIENCE_NS: u64 = 20_000_000;
/// Stacks told of a poll, and remembered of it.
const TOLD: usize = 8;
const REMEMBERED: usize = 64;
/// Threads without a bracket are looked for this often.
const THREADS_EVERY_NS: u64 = 1_000_000_000;
/// Of these, at most so many at a watcher's request.
const THREADS_AT_ONCE: usize = 64;
/// And so many open brackets.
const BRACKETS_AT_ONCE: usize = 64;
/// A thread that was not looked at for this long is no longer told of.
const FORGET_NS: u64 = 3_000_000_000;
/// Between two rounds of all stacks.
const ROUNDS_EVERY_NS: u64 = 250_000_000;
/// A round's last stack is begun to be taken this long after its beginning.
const ROUND_NS: u64 = 900_000_000;
/// An order that the schedule gives is of no use later.
const STALE_NS: u64 = 1_000_000_000;
/// Orders without an answer; as many as there are lines, and threads beside them.
const UNDER_WAY: usize = 2048;
/// Rounds remembered: more than there can be watchers.
const ROUNDS: u64 = 64;
/// What Tokio calls its threads, unless it is told otherwise.
const TOKIO_THREAD: &str = "tokio-rt-worker";

/// How much of a time was seen in which stack.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares {
    /// With how often it was seen, and the time that stands for.
    list: Vec<(StackId, u32, u64)>,
    /// Instant of the last one, on the clock that stands still in pauses.
    last_ns: Option<u64>,
}

impl Shares {
    /// A stack was seen at `at_ns`; what it is a share of began at `began_ns`.
    fn add(&mut self, stack: StackId, at_ns: u64, began_ns: u64) {
        let covered_ns = at_ns.saturating_sub(self.last_ns.unwrap_or(began_ns));
        self.last_ns = Some(self.last_ns.unwrap_or(0).max(at_ns));
        if let Some(known) = self.list.iter_mut().find(|(known, ..)| *known == stack) {
            known.1 = known.1.saturating_add(1);
            known.2 += covered_ns;
            return;
        }
        if self.list.len() == REMEMBERED
            && let Some(least) = (0..REMEMBERED).min_by_key(|&at| self.list[at].2)
        {
            self.list.swap_remove(least);
        }
        self.list.push((stack, 1, covered_ns));
    }

    /// Whether it was seen in this stack and in no other.
    fn is_all_in(&self, stack: StackId) -> bool {
        self.list.iter().all(|&(known, ..)| known == stack)
    }

    /// The largest, as they go out.
    pub(super) fn list(&self) -> Vec<v1::StackShare> {
        let mut sorted = self.list.clone();
        sorted.sort_by_key(|&(stack, samples, covered_ns)| {
            (std::cmp::Reverse((covered_ns, samples)), std::cmp::Reverse(stack))
        });
        sorted.truncate(TOLD);
        let share = |(stack, samples, covered_ns): (StackId, u32, u64)| v1::StackShare {
            stack_sid: stack.0,
            samples,
            covered_ns,
        };
        sorted.into_iter().map(share).collect()
    }
}

/// A thread without a bracket whose stack was taken.
pub(super) struct SeenThread {
    name: String,
    shares: Shares,
    /// First and last look, with their instants.
    looks: Option<((u64, Look), (u64, Look))>,
    /// When it began what it does, where that is known.
    began_ns: Option<u64>,
    seen_at_ns: u64,
    /// Of a thread that Tokio does not know: the last round in which it was looked at.
    other: Option<u64>,
    /// Of such a one: why its stack is missing.
    no_stack: Option<v1::thread::NoStack>,
}

/// An event that waits for its stack.
pub(super) struct Held {
    live: Live,
    until_ns: u64,
}

impl std::ops::Deref for Held {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.live
    }
}

/// The sampler's end of the thread that takes stacks.
pub(crate) struct Sampling {
    link: Option<Link>,
    schedule: Schedule,
    held: Vec<Held>,
    pub(super) threads: HashMap<u32, SeenThread>,
    pub(super) others: Others,
    /// Threads that may run a job which is not followed, with their names, and when they were looked for.
    known: Vec<(u32, String)>,
    known_at_ns: Option<u64>,
    /// How many times they were looked for.
    known_turn: usize,
    /// Orders of a watcher's round that are not answered.
    rounds: HashMap<u64, usize>,
    last_round: u64,
    last_round_at_ns: Option<u64>,
    /// The last one in which threads were looked at that Tokio does not know.
    last_other_round: u64,
    /// Orders that are not answered.
    under_way: usize,
}

struct Link {
    stacks: &'static Stacks,
    orders: Sender<Order>,
    answers: Receiver<Answer>,
}

impl Sampling {
    /// Starts the thread where stacks are wanted.
    pub(super) fn begin(engine: &'static Engine) -> Self {
        let link = engine.stacks.as_ref().map(|stacks| {
            let (orders, answers) = stacks.begin(engine);
            Link { stacks, orders, answers }
        });
        Self {
            link,
            schedule: Schedule::default(),
            held: Vec::new(),
            threads: HashMap::new(),
            others: Others::default(),
            known: Vec::new(),
            known_at_ns: None,
            known_turn: 0,
            rounds: HashMap::new(),
            last_round: 0,
            last_round_at_ns: None,
            last_other_round: 0,
            under_way: 0,
        }
    }

    fn is_on(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.stacks.is_on())
    }

    /// False where the thread that takes stacks is gone, or has stood still for long.
    fn order(&mut self, order: Order) -> bool {
        let link = self.link.as_ref().filter(|_| self.under_way < UNDER_WAY);
        let sent = link.is_some_and(|link| link.orders.send(order).is_ok());
        self.under_way += usize::from(sent);
        sent
    }
}

impl Live {
    fn target(&self) -> Target {
        Target { tid: self.tid, bracket: Some((self.line, self.word)) }
    }
}

impl Sampler {
    /// Takes in the stacks that were taken since.
    pub(super) fn take_stacks(&mut self) {
        let Some(link) = &self.stacks.link else { return };
        let answers: Vec<Answer> = link.answers.try_iter().collect();
        self.stacks.under_way = self.stacks.under_way.saturating_sub(answers.len());
        for answer in answers {
            let Order { target, round, .. } = answer.order;
            match round {
                None => self.stacks.schedule.answered(target),
                Some(round) => {
                    if let Some(left) = self.stacks.rounds.get_mut(&round) {
                        *left = left.saturating_sub(1);
                    }
                }
            }
            let is_other = answer.order.is_other;
            match answer.stack {
                Ok(stack) => self.seen_in(stack, target, answer.at),
                // Said of the thread itself.
                Err(NoStack::Blocks | NoStack::Sandboxed) if is_other => {}
                Err(NoStack::Lost | NoStack::Blocks | NoStack::Sandboxed | NoStack::Unreadable) => {
                    self.engine.registry.losses.add(Reason::LostStacks, 1);
                }
                Err(NoStack::Over | NoStack::Off) => {}
            }
            if let (true, Err(why)) = (is_other, answer.stack) {
                self.missed(target.tid, why);
            }
        }
        self.make_room_for_stacks();
    }

    /// There is no stack of a thread that Tokio does not know: what was seen of it before is not what it does now.
    fn missed(&mut self, tid: u32, why: NoStack) {
        if why == NoStack::Over {
            self.stacks.threads.remove(&tid);
        } else if let Some(thread) = self.stacks.threads.get_mut(&tid) {
            thread.shares = Shares::default();
            thread.no_stack = match why {
                NoStack::Blocks => Some(v1::thread::NoStack::BlocksSignal),
                NoStack::Lost => Some(v1::thread::NoStack::NoAnswer),
                NoStack::Sandboxed => Some(v1::thread::NoStack::Sandboxed),
                NoStack::Unreadable => Some(v1::thread::NoStack::Unreadable),
                NoStack::Over | NoStack::Off => None,
            };
        }
    }

    fn seen_in(&mut self, stack: StackId, target: Target, at: crate::clock::Ticks) {
        let at_ns = self.pauses.awake(self.at(at));
        if let Some((position, word)) = target.bracket {
            let began_ns = self.pauses.awake(self.at(word));
            let watched = self.watched.get_mut(&position);
            if let Some(watched) = watched.filter(|it| it.word == word && it.tid == target.tid) {
                watched.shares.add(stack, at_ns, began_ns);
            }
            return;
        }
        if let Some(thread) = self.stacks.threads.get_mut(&target.tid) {
            thread.seen_at_ns = at_ns;
            // Nothing says where one job ends and the next begins: what was seen in another stack may be of another.
            if thread.began_ns.is_none() && !thread.shares.is_all_in(stack) {
                thread.shares = Shares::default();
            }
            thread.shares.add(stack, at_ns, thread.began_ns.unwrap_or(at_ns));
            // Of others it was looked at before the signal.
            if thread.other.is_none()
                && let Some(look) = activity::look(target.tid)
            {
                thread.look((at_ns, look));
            }
        }
    }

    /// Forgets the stacks that nothing here refers to, where there is no room for another.
    fn make_room_for_stacks(&mut self) {
        let Some(link) = &self.stacks.link else { return };
        if !link.stacks.table().is_full() {
            return;
        }
        let events = self.events.iter().filter_map(|event| event.poll.as_ref());
        let held = self.stacks.held.iter().map(|held| &held.live.poll);
        let told = events.chain(held).flat_map(|poll| &poll.stacks).map(|share| StackId(share.stack_sid));
        let watched = self.watched.values().map(|watched| &watched.shares);
        let shares = watched.chain(self.stacks.threads.values().map(|thread| &thread.shares));
        let remembered = shares.flat_map(|shares| shares.list.iter().map(|&(stack, ..)| stack));
        let in_use: HashSet<StackId> = told.chain(remembered).collect();
        link.stacks.table().make_room(&in_use);
    }

    /// Orders the stacks that are due, and tells of the polls that have become stuck: with their stack if it comes soon.
    pub(super) fn look_at_stacks(&mut self, now_ns: u64, stuck: Vec<Live>, next_ns: &mut u64) {
        if !self.stacks.is_on() {
            self.push_held(now_ns, |_| true);
            for live in stuck {
                self.push_event(now_ns, event::Kind::PollStuck, Some(live.tid), live.poll);
            }
            return;
        }
        let candidates = self.candidates(now_ns);
        let is_stuck = |target: Target| stuck.iter().any(|live| live.target() == target);
        for target in self.stacks.schedule.due(now_ns, &candidates) {
            let until_ns = now_ns.saturating_add(STALE_NS);
            let order = Order { target, round: None, is_other: false, is_urgent: is_stuck(target), until_ns };
            if !self.stacks.order(order) {
                self.stacks.schedule.answered(target);
            }
        }
        for live in stuck {
            let waits = live.poll.stacks.is_empty() && self.stacks.schedule.is_under_way(live.target());
            if waits {
                self.stacks.held.push(Held { live, until_ns: now_ns.saturating_add(PATIENCE_NS) });
            } else {
                self.push_event(now_ns, event::Kind::PollStuck, Some(live.tid), live.poll);
            }
        }
        self.push_ready(now_ns, next_ns);
    }

    /// What could be looked at now.
    fn candidates(&mut self, now_ns: u64) -> Vec<Candidate> {
        let brackets = self.live.iter().filter_map(|live| {
            let since_ns = live.poll.since_ns;
            let kind = match live.is_poll() {
                true if since_ns >= live.threshold_ns => Kind::Poll,
                false if since_ns >= OLD_NS => Kind::Job,
                _ => return None,
            };
            Some(Candidate { target: live.target(), kind, since_ns })
        });
        let mut candidates: Vec<Candidate> = brackets.collect();
        let awake_ns = self.pauses.awake(now_ns);
        for (tid, since_ns) in self.workers.unseen(awake_ns) {
            candidates.push(Candidate { target: Target { tid, bracket: None }, kind: Kind::Poll, since_ns });
            let began_ns = awake_ns.saturating_sub(since_ns);
            let thread = self.stacks.threads.entry(tid).or_insert_with(|| SeenThread::new("", awake_ns));
            // Another poll, should the one before have ended unseen.
            if thread.began_ns.is_none_or(|known_ns| began_ns > known_ns) {
                *thread = SeenThread { began_ns: Some(began_ns), ..SeenThread::new("", awake_ns) };
            }
        }
        if self.pools.has_blocked_jobs(OLD_NS) {
            let due = self.stacks.known_at_ns.is_none_or(|at_ns| now_ns >= at_ns + THREADS_EVERY_NS);
            if due {
                self.stacks.known = self.find_threads();
                self.stacks.known_at_ns = Some(now_ns);
                self.stacks.known_turn = self.stacks.known_turn.wrapping_add(1);
            }
            for (tid, name) in in_turn(&self.stacks.known, self.stacks.known_turn) {
                let target = Target { tid: *tid, bracket: None };
                candidates.push(Candidate { target, kind: Kind::Thread, since_ns: 0 });
                self.stacks.threads.entry(*tid).or_insert_with(|| SeenThread::new(name, awake_ns));
            }
        }
        self.stacks.threads.retain(|_, thread| awake_ns < thread.seen_at_ns.saturating_add(FORGET_NS));
        candidates
    }

    /// Threads called as those of a runtime that are in no bracket and are no worker: jobs of the blocking pool that nobody
    /// follows run on such ones.
    fn find_threads(&self) -> Vec<(u32, String)> {
        let workers = self.lines.iter().filter(|line| line.worker.is_some() || line.polls);
        let mut names: HashSet<String> = workers.filter_map(|line| activity::name(line.tid)).collect();
        names.insert(TOKIO_THREAD.to_owned());
        let shown: HashSet<u32> = self
            .lines
            .iter()
            .filter(|line| line.bracket.is_some() || line.worker.is_some() || line.polls)
            .map(|line| line.tid)
            .collect();
        let mut found: Vec<(u32, String)> = activity::threads()
            .into_iter()
            .filter(|tid| !shown.contains(tid))
            .filter_map(|tid| Some((tid, activity::name(tid).filter(|name| names.contains(name))?)))
            .collect();
        // The oldest threads of the pool, which have been at work longest.
        found.sort_unstable();
        found
    }

    /// Pushes the events that need not wait any longer.
    fn push_ready(&mut self, now_ns: u64, next_ns: &mut u64) {
        for held in std::mem::take(&mut self.stacks.held) {
            let live = self.live.iter().find(|live| live.target() == held.live.target());
            let target = held.live.target();
            match live.cloned() {
                Some(live) if live.poll.stacks.is_empty() => {
                    if now_ns < held.until_ns && self.stacks.schedule.is_under_way(target) {
                        *next_ns = (*next_ns).min(held.until_ns);
                        self.stacks.held.push(held);
                    } else {
                        self.push_event(now_ns, event::Kind::PollStuck, Some(live.tid), live.poll);
                    }
                }
                Some(live) => self.push_event(now_ns, event::Kind::PollStuck, Some(live.tid), live.poll),
                None => self.push_event(now_ns, event::Kind::PollStuck, Some(held.tid), held.live.poll),
            }
        }
    }

    /// Pushes events that wait although their stack is not there.
    pub(super) fn push_held(&mut self, now_ns: u64, which: impl Fn(&Held) -> bool) {
        if self.stacks.held.is_empty() {
            return;
        }
        let (go, stay) = std::mem::take(&mut self.stacks.held).into_iter().partition(which);
        self.stacks.held = stay;
        let go: Vec<Held> = go;
        for held in go {
            self.push_event(now_ns, event::Kind::PollStuck, Some(held.tid), held.live.poll);
        }
    }

    /// Begins to take the stacks of the open brackets (of these tasks, or of all), those that run longest, and of the threads
    /// that may run a job nobody follows; of the application's other threads, too, where that was asked for. What is left out
    /// is counted. `None`: it is too soon after the last time.
    pub(crate) fn begin_round(&mut self, now_ns: u64, query: &v1::StackQuery) -> Option<u64> {
        if !self.stacks.is_on() {
            return Some(0);
        }
        if self.stacks.last_round_at_ns.is_some_and(|at_ns| now_ns < at_ns + ROUNDS_EVERY_NS) {
            return None;
        }
        self.sample(now_ns);
        self.stacks.last_round += 1;
        let round = self.stacks.last_round;
        let task_ids = &query.task_ids;
        let is_wanted = |live: &&Live| task_ids.is_empty() || task_ids.contains(&live.poll.task_id);
        let open: Vec<(u64, Target)> =
            self.live.iter().filter(is_wanted).map(|live| (live.poll.since_ns, live.target())).collect();
        let all = open.len();
        let mut targets = longest(open);
        self.engine.registry.losses.add(Reason::LostStacks, (all - targets.len()) as u64);
        let mut others = Vec::new();
        if task_ids.is_empty() {
            let mut threads = self.find_threads();
            if query.other_threads {
                others = self.others(round, &threads);
                self.stacks.last_other_round = round;
            }
            let left = threads.len().saturating_sub(THREADS_AT_ONCE);
            self.engine.registry.losses.add(Reason::LostStacks, left as u64);
            threads.truncate(THREADS_AT_ONCE);
            let awake_ns = self.pauses.awake(self.now_ns());
            for (tid, name) in &threads {
                targets.push(Target { tid: *tid, bracket: None });
                self.stacks.threads.entry(*tid).or_insert_with(|| SeenThread::new(name, awake_ns));
            }
        }
        // To look at very many threads takes its time on a slow machine, and that of the stacks begins after it.
        let now_ns = self.now_ns();
        self.stacks.last_round_at_ns = Some(now_ns);
        let order = |target, is_other| Order {
            target,
            round: Some(round),
            is_other,
            is_urgent: false,
            until_ns: now_ns.saturating_add(ROUND_NS),
        };
        let orders = targets.into_iter().map(|target| order(target, false));
        let orders = orders.chain(others.into_iter().map(|target| order(target, true)));
        let ordered = orders.filter(|&order| self.stacks.order(order)).count();
        // A watcher that went away has not ended its round.
        self.stacks.rounds.retain(|&known, _| known + ROUNDS > round);
        self.stacks.rounds.insert(round, ordered);
        Some(round)
    }

    /// Whether all stacks of a round are there.
    pub(crate) fn is_round_over(&mut self, round: u64) -> bool {
        self.take_stacks();
        self.stacks.rounds.get(&round).is_none_or(|&left| left == 0)
    }

    /// Its watcher waits no longer.
    pub(crate) fn end_round(&mut self, round: u64) {
        self.stacks.rounds.remove(&round);
        // What was found is on the brackets, and they are described anew.
        for live in &mut self.live {
            let watched =
                self.watched.get(&live.line).filter(|it| it.word == live.word && it.tid == live.tid);
            if let Some(watched) = watched {
                live.poll.stacks = watched.shares.list();
            }
        }
    }

    /// What was seen of a worker that is busy although no poll of it is seen.
    pub(crate) fn add_stacks_of_unseen(&self, runtimes: &mut [v1::Runtime]) {
        for worker in runtimes.iter_mut().flat_map(|runtime| &mut runtime.workers) {
            if worker.state() == v1::worker::State::BusyUnseen
                && let Some(poll) = &mut worker.poll
                && let Some(thread) = worker.tid.and_then(|tid| self.stacks.threads.get(&tid))
            {
                poll.stacks = thread.shares.list();
            }
        }
    }

    /// Threads without a bracket whose stacks were taken lately, as they go out; those that Tokio does not know only
    /// `with_others`, and as of the last round.
    pub(crate) fn seen_threads(&self, with_others: bool) -> Vec<v1::Thread> {
        let mut threads: Vec<v1::Thread> = self
            .stacks
            .threads
            .iter()
            .filter(|(tid, thread)| {
                let is_open = self.live.iter().any(|live| live.tid == **tid);
                // What a worker does is told of the worker.
                let is_worker = thread.began_ns.is_some();
                let is_told = match thread.other {
                    Some(round) => with_others && round == self.stacks.last_other_round,
                    None => !thread.shares.list.is_empty(),
                };
                !is_open && !is_worker && is_told
            })
            .map(|(&tid, thread)| v1::Thread {
                tid,
                poll: None,
                name: Some(thread.name.clone()).filter(|name| !name.is_empty()),
                activity: thread.looks.map(|((first_ns, first), (last_ns, last))| {
                    last.since(&first, last_ns.saturating_sub(first_ns))
                }),
                stacks: thread.shares.list(),
                is_other: thread.other.is_some(),
                no_stack: thread.no_stack.unwrap_or_default().into(),
            })
            .collect();
        threads.sort_unstable_by_key(|thread| thread.tid);
        threads
    }
}

impl SeenThread {
    pub(super) fn new(name: &str, now_ns: u64) -> Self {
        Self {
            name: name.to_owned(),
            shares: Shares::default(),
            looks: None,
            began_ns: None,
            seen_at_ns: now_ns,
            other: None,
            no_stack: None,
        }
    }

    fn look(&mut self, now: (u64, Look)) {
        self.looks = Some((self.looks.map_or(now, |(first, _)| first), now));
    }

    /// It is one that Tokio does not know, and is looked at in this round; `no_stack` says why its stack is not taken.
    pub(super) fn begin_round(
        &mut self,
        round: u64,
        name: &str,
        now: (u64, Look),
        no_stack: Option<v1::thread::NoStack>,
    ) {
        name.clone_into(&mut self.name);
        (self.other, self.seen_at_ns, self.no_stack) = (Some(round), now.0, no_stack);
        self.look(now);
        if no_stack.is_some() {
            self.shares = Shares::default();
        }
    }
}

/// Of more brackets than a round looks at, those that have been open longest.
fn longest(mut open: Vec<(u64, Target)>) -> Vec<Target> {
    open.sort_unstable_by_key(|&(since_ns, target)| (std::cmp::Reverse(since_ns), target));
    open.truncate(BRACKETS_AT_ONCE);
    open.into_iter().map(|(_, target)| target).collect()
}

/// Of more threads than are looked at, the oldest all the time and the others by turns: some may be idle, as workers of another
/// runtime that have never polled.
fn in_turn<T>(known: &[T], turn: usize) -> impl Iterator<Item = &T> {
    const OLDEST: usize = THREADS / 2;
    const OTHERS: usize = THREADS - OLDEST;
    let (oldest, others) = known.split_at(OLDEST.min(known.len()));
    let skipped = if others.is_empty() { 0 } else { (turn % others.len().div_ceil(OTHERS)) * OTHERS };
    oldest.iter().chain(others.iter().cycle().skip(skipped).take(OTHERS.min(others.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn each_sample_stands_for_the_time_since_the_one_before() {
        let mut shares = Shares::default();
        let (sleep, spin) = (StackId(3), StackId(9));
        shares.add(sleep, 1_100 * MS, 1_000 * MS);
        shares.add(spin, 1_350 * MS, 1_000 * MS);
        shares.add(spin, 1_600 * MS, 1_000 * MS);
        shares.add(sleep, 1_850 * MS, 1_000 * MS);
        let told: Vec<_> =
            shares.list().iter().map(|it| (it.stack_sid, it.samples, it.covered_ns / MS)).collect();
        assert_eq!(told, [(9, 2, 500), (3, 2, 350)]);
    }

    #[test]
    fn a_poll_that_is_everywhere_is_told_where_it_is_most_and_uses_little_memory() {
        let mut shares = Shares::default();
        for sample in 0..10_000u64 {
            let stack = if sample % 2 == 0 { 1 } else { sample as u32 + 10 };
            shares.add(StackId(stack), sample * MS, 0);
        }
        assert!(shares.list.len() == REMEMBERED && shares.list().len() == TOLD);
        assert_eq!((shares.list()[0].stack_sid, shares.list()[0].samples), (1, 5_000));
    }

    #[test]
    fn a_round_looks_at_the_brackets_that_run_longest_and_at_no_more_than_there_is_room_for() {
        let of = |tid: u32| Target { tid, bracket: Some((tid as usize, 7)) };
        let open: Vec<_> = (0..500).map(|tid| (u64::from(tid % 250), of(tid))).collect();
        let looked = longest(open);
        assert_eq!(looked.len(), BRACKETS_AT_ONCE);
        assert_eq!((looked[0], looked[1], looked[BRACKETS_AT_ONCE - 1]), (of(249), of(499), of(468)));
        assert_eq!(longest(vec![(1, of(1)), (2, of(2))]), [of(2), of(1)]);
    }

    #[test]
    fn the_oldest_threads_are_looked_at_all_the_time_and_the_others_by_turns() {
        let of = |count: usize, turn| {
            let known: Vec<usize> = (0..count).collect();
            in_turn(&known, turn).copied().collect::<Vec<_>>()
        };
        assert!(of(0, 5).is_empty());
        assert_eq!(of(1, 5), [0]);
        assert_eq!(of(3, 5), [0, 1, 2]);
        for turn in 0..3 {
            assert_eq!(of(4, turn), [0, 1, 2, 3]);
        }
        assert_eq!(
            [of(7, 0), of(7, 1), of(7, 2), of(7, 3)],
            [[0, 1, 2, 3], [0, 1, 4, 5], [0, 1, 6, 2], [0, 1, 2, 3]]
        );
    }
}
