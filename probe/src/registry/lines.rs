//! One line per operating-system thread: what it is polling now. Only that thread writes it. Brackets nest on one thread
//! (`block_in_place` on a current-thread runtime), so a nested one saves the outer and restores it.
//!
//! A reader must not join the start of one poll with the id of another. The writer empties the start before it changes
//! anything else and fills it last; the reader reads it before and after the rest, and so the count of saved and restored
//! brackets, since a restored one has the start that it had before. (Two polls that start in the same tick of a coarse
//! clock may be joined: then both starts are right.)

use taskscope_proto::ids::{Sid, TaskId};

use super::histograms::Tally;
use super::labels::LabelIndex;
use super::slots::SlotIndex;
use super::sync::{AcqRel, Acquire, AtomicU32, AtomicU64, Relaxed, Release, SeqCst, fence, zeroed};
use crate::clock::Ticks;

/// Brackets kept below the innermost one.
#[cfg(not(taskscope_loom))]
const DEPTH: usize = 3;
#[cfg(taskscope_loom)]
const DEPTH: usize = 1;
/// How often a reader tries before it leaves a line for the next time.
const ATTEMPTS: usize = if cfg!(taskscope_loom) { 1 } else { 2 };
/// Marks in the word that says for which runtime a thread works: its polls are not seen; it is to look the runtime up
/// anew.
const WITHOUT_HOOKS: u32 = 1 << 31;
const ANEW: u32 = 1 << 30;
pub(crate) const BYTES_PER_LINE: usize = size_of::<Line>();

/// One bracket: a poll, or a labelled stretch outside every poll.
#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
struct Bracket {
    /// 0: no bracket.
    start: AtomicU64,
    id: AtomicU64,
    /// See [`Place`].
    place: AtomicU64,
}

/// What labels note about a bracket.
#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
struct Stretches {
    /// Of the current label.
    start: AtomicU64,
    /// Guards that are open.
    open: AtomicU32,
    /// The longest finished one: its label plus one, and its length.
    longest_plus1: AtomicU32,
    longest_ns: AtomicU64,
}

/// Slot, label and marks of a bracket in one word.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(u64);

impl Place {
    /// A slot's position is kept as its offset in the arena, which the hook has at hand.
    const SLOT_SHIFT: u32 = size_of::<super::slots::Slot>().ilog2();
    /// A bracket lies below this one.
    const NESTED: u64 = 1 << 48;
    /// A label was set in it.
    const LABELLED: u64 = 1 << 49;
    /// Its task has ended: closing the bracket frees the slot.
    const ENDED: u64 = 1 << 50;
    /// It was opened by a label, outside every poll.
    const OWN: u64 = 1 << 51;

    #[inline]
    fn of(slot: Option<SlotIndex>) -> Self {
        Self(slot.map_or(0, |slot| u64::from(slot.0) << Self::SLOT_SHIFT))
    }

    fn has(self, mark: u64) -> bool {
        self.0 & mark != 0
    }

    #[inline]
    fn slot(self) -> Option<SlotIndex> {
        Some(SlotIndex(self.0 as u32 >> Self::SLOT_SHIFT)).filter(|slot| slot.0 != 0)
    }

    fn label(self) -> Option<LabelIndex> {
        ((self.0 >> 32) as u16).checked_sub(1).map(|label| LabelIndex(label.into()))
    }

    fn with_label(self, label: Option<LabelIndex>) -> Self {
        Self(
            self.0 & !(0xFFFF << 32) | label.map_or(0, |label| u64::from(label.0 + 1) << 32) | Self::LABELLED,
        )
    }
}

#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
#[repr(align(128))]
pub(crate) struct Line {
    current: Bracket,
    /// Runtime that this thread works for, and marks; 0: none seen yet.
    runtime: AtomicU32,
    /// Changes when a bracket is saved or restored.
    nesting: AtomicU32,
    /// Operating-system thread id, 0: free; in the upper half a count of the threads that had it, which tells a thread from
    /// a former one whose id the system gave out again.
    owner: AtomicU64,
    /// Worker index plus one; 0: not known.
    worker_plus1: AtomicU32,
    /// Brackets that are saved, and those inside that were not.
    depth: AtomicU32,
    unkept: AtomicU32,
    stretches: Stretches,
    outer: [(Bracket, Stretches); DEPTH],
    /// Start of the bracket in which a panic was seen.
    panicked: AtomicU64,
    /// The last task on this thread that died of something, and of what.
    died: AtomicU64,
    reason: AtomicU32,
    /// The last task on this thread whose end the wrapper has counted.
    counted_end: AtomicU64,
    /// Whether it has polled tasks.
    has_polled: AtomicU32,
    /// Start of a bracket that blocks nobody (`block_in_place`), as the probe's thread found out.
    excused: AtomicU64,
    /// Id of a task that ended before it was spawned (on a closed runtime).
    ended_early: AtomicU64,
    /// Where the thread's stack begins and ends, as it has said itself; zeros: it has not.
    stack: [AtomicU64; 2],
    /// Polls by group, and labelled stretches by label; they go on counting when the line gets another thread.
    pub(crate) groups: Tally,
    pub(crate) labels: Tally,
    /// Waits for a worker by group, of tasks that were polled here.
    pub(crate) waits: Tally,
}

/// A bracket as its own thread has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Open {
    /// Identifies the bracket on its line, too.
    pub(crate) start: Ticks,
    pub(crate) id: TaskId,
    pub(crate) slot: Option<SlotIndex>,
    /// Its task has ended in it.
    pub(crate) ended: bool,
    /// It was opened by a label, outside every poll.
    pub(crate) own: bool,
}

/// The longest labelled stretch of a bracket that was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LongestLabel {
    ns: u64,
    label_plus1: u32,
}

impl LongestLabel {
    /// The label, if it took at least half of a bracket of `ns`.
    pub(crate) fn of(self, ns: u64) -> Option<LabelIndex> {
        (self.ns >= (ns / 2).max(1)).then(|| self.label_plus1.checked_sub(1).map(LabelIndex)).flatten()
    }
}

/// A line as a reader saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LineView {
    pub(crate) tid: u32,
    pub(crate) runtime: u32,
    pub(crate) worker: Option<u32>,
    /// Untorn; `None`: outside every bracket.
    pub(crate) bracket: Option<BracketView>,
    /// The task of its last bracket, open or not.
    pub(crate) last: TaskId,
    /// Whether it has polled tasks, and so is a worker or runs `block_on`.
    pub(crate) polls: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BracketView {
    /// Identifies the bracket on its line, too.
    pub(crate) start: Ticks,
    pub(crate) id: TaskId,
    pub(crate) slot: Option<SlotIndex>,
    pub(crate) label: Option<LabelIndex>,
    pub(crate) label_start: Ticks,
    /// It was opened by a label, outside every poll.
    pub(crate) own: bool,
}

pub(crate) struct Lines {
    lines: &'static [Line],
    used: AtomicU32,
}

impl Lines {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { lines: zeroed(capacity), used: AtomicU32::new(0) }
    }

    /// A line for the thread `tid`; `None` where all are taken.
    pub(crate) fn claim(&self, tid: u32) -> Option<&'static Line> {
        let used = self.used.load(Acquire) as usize;
        let take = |from: u32| self.lines[..used].iter().position(|line| line.change_owner(from, tid));
        let fresh = || {
            let room = |used: u32| ((used as usize) < self.lines.len()).then_some(used + 1);
            // Between the two steps another thread may take the new line for a free one.
            std::iter::from_fn(|| self.used.fetch_update(AcqRel, Relaxed, room).ok())
                .map(|position| position as usize)
                .find(|&position| self.lines[position].change_owner(0, tid))
        };
        // A line with our id is left from a thread that has ended: the system gave its id out again.
        let line = &self.lines[take(tid).or_else(|| take(0)).or_else(fresh)?];
        // Whoever looked at all lines before this one was there has its say heard: see `Histograms::fold`.
        fence(SeqCst);
        line.reset();
        Some(line)
    }

    fn in_use(&self) -> &'static [Line] {
        &self.lines[..self.used.load(Acquire) as usize]
    }

    /// Every line in use, with its position.
    pub(crate) fn views(&self) -> impl Iterator<Item = (usize, LineView)> {
        self.in_use().iter().enumerate().filter_map(|(position, line)| Some((position, line.view()?)))
    }

    pub(crate) fn get(&self, position: usize) -> Option<&'static Line> {
        self.in_use().get(position)
    }

    /// The polls by group of every thread that ever had a line.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &'static Tally> {
        self.all().map(|line| &line.groups)
    }

    /// The stretches by label of every thread that ever had a line.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &'static Tally> {
        self.all().map(|line| &line.labels)
    }

    /// The waits by group that ended on every thread that ever had a line.
    pub(crate) fn waits(&self) -> impl Iterator<Item = &'static Tally> {
        self.all().map(|line| &line.waits)
    }

    /// All lines that are in use when the first is asked for.
    fn all(&self) -> impl Iterator<Item = &'static Line> {
        std::iter::once_with(|| self.in_use()).flatten()
    }

    /// Says that the bracket begun at `start` of a line blocks nobody; its thread's worker index is looked up anew with its next
    /// poll.
    pub(crate) fn excuse(&self, position: usize, start: Ticks) {
        if let Some(line) = self.lines.get(position) {
            line.excused.store(start, Relaxed);
            line.ask_anew();
        }
    }

    /// Makes the threads of a runtime look it up anew with their next poll.
    pub(crate) fn ask_anew(&self, runtime: u32) {
        self.in_use().iter().filter(|line| line.runtime() == runtime).for_each(Line::ask_anew);
    }

    /// Frees the lines of threads that are not in `alive`. For the probe's thread.
    pub(crate) fn retain(&self, mut alive: impl FnMut(u32) -> bool) {
        for line in self.in_use() {
            let owner = line.owner.load(Acquire);
            let tid = owner as u32;
            if tid != 0 && !alive(tid) {
                // Fails where a new thread with the same id has just taken it over.
                let _ = line.owner.compare_exchange(owner, owner & !u64::from(u32::MAX), AcqRel, Relaxed);
            }
        }
    }
}

impl Line {
    /// The line of nobody.
    #[cfg(not(taskscope_loom))]
    pub(crate) const fn nowhere() -> Self {
        Self {
            current: Bracket::none(),
            runtime: AtomicU32::new(0),
            nesting: AtomicU32::new(0),
            owner: AtomicU64::new(0),
            worker_plus1: AtomicU32::new(0),
            depth: AtomicU32::new(0),
            unkept: AtomicU32::new(0),
            stretches: Stretches::none(),
            outer: [const { (Bracket::none(), Stretches::none()) }; DEPTH],
            panicked: AtomicU64::new(0),
            died: AtomicU64::new(0),
            counted_end: AtomicU64::new(0),
            reason: AtomicU32::new(0),
            has_polled: AtomicU32::new(0),
            excused: AtomicU64::new(0),
            ended_early: AtomicU64::new(0),
            stack: [AtomicU64::new(0), AtomicU64::new(0)],
            groups: Tally::empty(),
            labels: Tally::empty(),
            waits: Tally::empty(),
        }
    }

    /// Gives the line to `tid` if it is `from`'s (0: nobody's).
    fn change_owner(&self, from: u32, tid: u32) -> bool {
        let owner = self.owner.load(Acquire);
        let count = (owner >> 32).wrapping_add(1);
        owner as u32 == from
            && self.owner.compare_exchange(owner, count << 32 | u64::from(tid), AcqRel, Relaxed).is_ok()
    }

    fn reset(&self) {
        self.current.place.store(0, Relaxed);
        self.current.start.store(0, Relaxed);
        self.depth.store(0, Relaxed);
        self.unkept.store(0, Relaxed);
        self.runtime.store(0, Relaxed);
        self.worker_plus1.store(0, Relaxed);
        self.panicked.store(0, Relaxed);
        self.died.store(0, Relaxed);
        self.counted_end.store(0, Relaxed);
        self.excused.store(0, Relaxed);
        self.has_polled.store(0, Relaxed);
        self.ended_early.store(0, Relaxed);
        self.set_stack(None);
    }

    /// Where the thread's stack begins, and where it ends. Said before its first bracket is opened.
    pub(crate) fn set_stack(&self, stack: Option<(u64, u64)>) {
        let (low, high) = stack.unwrap_or((0, 0));
        self.stack[0].store(low, Relaxed);
        self.stack[1].store(high, Relaxed);
    }

    /// As it was said; of the thread whose bracket was just seen to be open.
    pub(crate) fn stack(&self) -> Option<(u64, u64)> {
        let [low, high] = [&self.stack[0], &self.stack[1]].map(|word| word.load(Relaxed));
        (low < high).then_some((low, high))
    }

    /// Opens a bracket where none is open.
    #[inline]
    pub(crate) fn enter_first(&self, id: TaskId, slot: SlotIndex, now: Ticks) {
        self.current.set(id, Place::of(Some(slot)), now);
    }

    /// Opens a bracket; false where it is nested too deep to be kept (closing it then closes nothing).
    pub(crate) fn enter(&self, id: TaskId, slot: Option<SlotIndex>, now: Ticks) -> bool {
        if !self.is_in_bracket() {
            self.current.set(id, Place::of(slot), now);
            return true;
        }
        let depth = self.depth.load(Relaxed);
        let Some((bracket, stretches)) = self.outer.get(depth as usize) else {
            self.unkept.store(self.unkept.load(Relaxed) + 1, Relaxed);
            return false;
        };
        bracket.copy_from(&self.current);
        stretches.copy_from(&self.stretches);
        self.hide();
        self.depth.store(depth + 1, Relaxed);
        self.stretches.clear();
        self.current.set(id, Place(Place::of(slot).0 | Place::NESTED), now);
        true
    }

    /// The task of the bracket that is open, or of the last one.
    #[inline]
    pub(crate) fn task(&self) -> TaskId {
        TaskId(self.current.id.load(Relaxed))
    }

    /// When the bracket that is open began; 0: none is.
    #[inline]
    pub(crate) fn start(&self) -> Ticks {
        self.current.start.load(Relaxed)
    }

    /// Closes a bracket that [`Line::enter_first`] opened and that nothing was noted about.
    #[inline]
    pub(crate) fn leave_first(&self) {
        self.current.start.store(0, Relaxed);
        // The next bracket's stores must not be seen under this one's start.
        fence(Release);
    }

    /// Closes the innermost bracket and gives it back.
    pub(crate) fn leave(&self) -> Left {
        let unkept = self.unkept.load(Relaxed);
        if unkept > 0 {
            self.unkept.store(unkept - 1, Relaxed);
            return Left::Unkept;
        }
        let Some(open) = self.open() else { return Left::Nothing };
        let place = Place(self.current.place.load(Relaxed));
        let mut longest = LongestLabel::default();
        if place.has(Place::LABELLED) {
            longest = self.stretches.longest();
            self.stretches.clear();
        }
        if place.has(Place::NESTED) {
            self.restore();
        } else {
            self.leave_first();
        }
        Left::Bracket(open, longest)
    }

    fn restore(&self) {
        let depth = self.depth.load(Relaxed).saturating_sub(1);
        self.depth.store(depth, Relaxed);
        self.hide();
        if let Some((bracket, stretches)) = self.outer.get(depth as usize) {
            self.stretches.copy_from(stretches);
            self.current.copy_from(bracket);
        }
    }

    /// Before another bracket takes the place of the current one.
    fn hide(&self) {
        self.nesting.store(self.nesting.load(Relaxed).wrapping_add(1), Relaxed);
        self.leave_first();
    }

    /// The innermost bracket, as its own thread sees it.
    pub(crate) fn open(&self) -> Option<Open> {
        let place = Place(self.current.place.load(Relaxed));
        self.is_in_bracket().then(|| Open {
            start: self.start(),
            id: TaskId(self.current.id.load(Relaxed)),
            slot: place.slot(),
            ended: place.has(Place::ENDED),
            own: place.has(Place::OWN),
        })
    }

    /// Whether this thread is in a bracket, kept or not.
    #[inline]
    pub(crate) fn is_in_bracket(&self) -> bool {
        self.start() != 0
    }

    fn mark(&self, mark: u64) {
        self.current.place.store(self.current.place.load(Relaxed) | mark, Relaxed);
    }

    /// The task of the innermost bracket has ended.
    pub(crate) fn mark_ended(&self) {
        self.mark(Place::ENDED);
    }

    /// The innermost bracket was opened by a label, outside every poll.
    pub(crate) fn mark_own(&self) {
        self.mark(Place::OWN);
    }

    /// A label guard was opened in the innermost bracket.
    pub(crate) fn add_label(&self) {
        self.stretches.open.store(self.stretches.open.load(Relaxed) + 1, Relaxed);
    }

    /// A label guard was dropped in the innermost bracket. True: it was the last one.
    pub(crate) fn remove_label(&self) -> bool {
        let open = self.stretches.open.load(Relaxed).saturating_sub(1);
        self.stretches.open.store(open, Relaxed);
        open == 0
    }

    /// Sets the label of the current stretch and gives back the one before.
    #[inline]
    pub(crate) fn set_label(&self, label: Option<LabelIndex>, start: Ticks) -> (Option<LabelIndex>, Ticks) {
        let place = Place(self.current.place.load(Relaxed));
        let before = (place.label(), self.stretches.start.load(Relaxed));
        // Emptied first and filled last, as a bracket is: a label must not be seen with another's start.
        self.current.place.store(place.with_label(None).0, Relaxed);
        fence(Release);
        self.stretches.start.store(start, Relaxed);
        self.current.place.store(place.with_label(label).0, Release);
        before
    }

    pub(crate) fn label(&self) -> Option<LabelIndex> {
        Place(self.current.place.load(Relaxed)).label()
    }

    /// Notes a finished labelled stretch, so that a poll can be told by the label that took most of it.
    pub(crate) fn note_stretch(&self, label: LabelIndex, ns: u64) {
        if ns > self.stretches.longest_ns.load(Relaxed) {
            self.stretches.longest_ns.store(ns, Relaxed);
            self.stretches.longest_plus1.store(label.0 + 1, Relaxed);
        }
    }

    pub(crate) fn tid(&self) -> u32 {
        self.owner.load(Relaxed) as u32
    }

    pub(crate) fn set_runtime(&self, runtime: u32, worker: Option<usize>) {
        self.worker_plus1.store(worker.map_or(0, |worker| worker as u32 + 1), Relaxed);
        self.runtime.store(runtime, Relaxed);
    }

    /// The thread polls tasks: it is a worker, or runs `block_on`.
    pub(crate) fn mark_polls(&self) {
        self.has_polled.store(1, Relaxed);
    }

    /// Whether this thread is known to be a worker.
    pub(crate) fn is_worker(&self) -> bool {
        self.worker_plus1.load(Relaxed) != 0
    }

    /// Whether this thread works for `runtime` and is in no bracket.
    #[inline]
    pub(crate) fn is_idle_on(&self, runtime: u32) -> bool {
        // Both at once: it is asked before each poll.
        u64::from(self.runtime.load(Relaxed) ^ runtime) | self.start() == 0
    }

    pub(crate) fn runtime(&self) -> u32 {
        self.runtime.load(Relaxed) & !(WITHOUT_HOOKS | ANEW)
    }

    /// Whether it is known that this thread works for `runtime`, and nobody asked since.
    pub(crate) fn knows(&self, runtime: u32) -> bool {
        self.runtime.load(Relaxed) == runtime
    }

    fn ask_anew(&self) {
        let known = self.runtime.load(Relaxed);
        // Fails where the thread is just looking it up.
        let _ = self.runtime.compare_exchange(known, known | ANEW, Relaxed, Relaxed);
    }

    /// As [`Line::set_runtime`], for a runtime whose polls are not seen: the thread is never idle on it.
    pub(crate) fn set_runtime_without_hooks(&self, runtime: u32, worker: Option<usize>) {
        self.set_runtime(runtime | WITHOUT_HOOKS, worker);
    }

    /// A panic was seen in the innermost bracket; `reason` is what it said.
    pub(crate) fn note_panic(&self, reason: Sid) {
        self.panicked.store(self.start(), Relaxed);
        self.note_reason(self.task(), reason);
    }

    /// Whether a panic was seen in the innermost bracket.
    pub(crate) fn has_panicked(&self) -> bool {
        self.is_in_bracket() && self.panicked.load(Relaxed) == self.start()
    }

    /// What `task`, which is polled on this thread, is about to die of.
    pub(crate) fn note_reason(&self, task: TaskId, reason: Sid) {
        self.died.store(task.0, Relaxed);
        self.reason.store(reason.0, Relaxed);
    }

    /// The end of `task`, in whose bracket this thread is, has been counted and is not to be counted again.
    pub(crate) fn note_counted_end(&self, task: TaskId) {
        self.counted_end.store(task.0, Relaxed);
    }

    pub(crate) fn has_counted_end(&self, task: TaskId) -> bool {
        self.counted_end.load(Relaxed) == task.0
    }

    /// What `task` died of, if that was noted on this thread and nothing since; else 0.
    pub(crate) fn reason_of(&self, task: TaskId) -> Sid {
        Sid(if self.died.load(Relaxed) == task.0 { self.reason.load(Relaxed) } else { 0 })
    }

    pub(crate) fn is_excused(&self, start: Ticks) -> bool {
        self.excused.load(Relaxed) == start
    }

    pub(crate) fn note_ended_early(&self, id: TaskId) {
        self.ended_early.store(id.0, Relaxed);
    }

    pub(crate) fn ended_early(&self, id: TaskId) -> bool {
        self.ended_early.load(Relaxed) == id.0
    }

    pub(crate) fn view(&self) -> Option<LineView> {
        let tid = self.owner.load(Acquire) as u32;
        if tid == 0 {
            return None;
        }
        Some(LineView {
            tid,
            runtime: self.runtime(),
            worker: self.worker_plus1.load(Relaxed).checked_sub(1),
            bracket: self.bracket(),
            last: self.task(),
            polls: self.has_polled.load(Relaxed) != 0,
        })
    }

    /// An untorn copy; a writer that is faster than two attempts is read the next time. A label that is just being changed is
    /// absent.
    pub(crate) fn bracket(&self) -> Option<BracketView> {
        (0..ATTEMPTS).find_map(|_| {
            let nesting = self.nesting.load(Acquire);
            let start = self.current.start.load(Acquire);
            let place = Place(self.current.place.load(Acquire));
            let label_start = self.stretches.start.load(Relaxed);
            let mut view = BracketView {
                start,
                id: TaskId(self.current.id.load(Relaxed)),
                slot: place.slot(),
                label: place.label(),
                label_start,
                own: place.has(Place::OWN),
            };
            fence(Acquire);
            let label = Place(self.current.place.load(Acquire)).label();
            // Both: a label may have gone and come back.
            if label != view.label || self.stretches.start.load(Relaxed) != label_start {
                view.label = None;
            }
            // A restored bracket has its start from before, and the nesting that is seen after it is that of now.
            let same = self.current.start.load(Acquire) == start && self.nesting.load(Relaxed) == nesting;
            (same && start != 0).then_some(view)
        })
    }
}

/// How closing a bracket went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    Bracket(Open, LongestLabel),
    /// It was nested too deep to be kept.
    Unkept,
    /// None was open.
    Nothing,
}

impl Bracket {
    #[cfg(not(taskscope_loom))]
    const fn none() -> Self {
        Self { start: AtomicU64::new(0), id: AtomicU64::new(0), place: AtomicU64::new(0) }
    }

    #[inline]
    fn set(&self, id: TaskId, place: Place, now: Ticks) {
        self.id.store(id.0, Relaxed);
        self.place.store(place.0, Relaxed);
        self.start.store(now, Release);
    }

    fn copy_from(&self, other: &Self) {
        self.id.store(other.id.load(Relaxed), Relaxed);
        self.place.store(other.place.load(Relaxed), Relaxed);
        self.start.store(other.start.load(Relaxed), Release);
    }
}

impl Stretches {
    #[cfg(not(taskscope_loom))]
    const fn none() -> Self {
        Self {
            start: AtomicU64::new(0),
            open: AtomicU32::new(0),
            longest_plus1: AtomicU32::new(0),
            longest_ns: AtomicU64::new(0),
        }
    }

    fn clear(&self) {
        self.open.store(0, Relaxed);
        self.longest_ns.store(0, Relaxed);
        self.longest_plus1.store(0, Relaxed);
    }

    fn copy_from(&self, other: &Self) {
        self.start.store(other.start.load(Relaxed), Relaxed);
        self.open.store(other.open.load(Relaxed), Relaxed);
        self.longest_plus1.store(other.longest_plus1.load(Relaxed), Relaxed);
        self.longest_ns.store(other.longest_ns.load(Relaxed), Relaxed);
    }

    fn longest(&self) -> LongestLabel {
        LongestLabel { ns: self.longest_ns.load(Relaxed), label_plus1: self.longest_plus1.load(Relaxed) }
    }
}

/// The system's id of the calling thread; `None` where only Linux would tell.
pub(crate) fn current_tid() -> Option<u32> {
    #[cfg(target_os = "linux")]
    return Some(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs());
    #[cfg(not(target_os = "linux"))]
    return None;
}

/// What tells a thread's line from others: the system's id, or a number of our own.
pub(crate) fn line_id() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    current_tid().unwrap_or_else(|| NEXT.fetch_add(1, Relaxed))
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use super::*;

    fn one_line() -> (Lines, &'static Line) {
        let lines = Lines::with_capacity(2);
        let line = lines.claim(7).expect("there is room");
        (lines, line)
    }

    fn bracket(lines: &Lines) -> Option<BracketView> {
        lines.views().next().and_then(|(_, view)| view.bracket)
    }

    fn closed(line: &Line) -> Option<u64> {
        match line.leave() {
            Left::Bracket(open, _) => Some(open.id.0),
            Left::Unkept | Left::Nothing => None,
        }
    }

    #[test]
    fn a_bracket_is_seen_while_it_is_open() {
        let (lines, line) = one_line();
        assert_eq!(bracket(&lines), None);
        assert!(line.enter(TaskId(0x5007), Some(SlotIndex(4)), 0x9999_9999));
        let seen = bracket(&lines).expect("it is open");
        assert_eq!((seen.id, seen.slot, seen.start), (TaskId(0x5007), Some(SlotIndex(4)), 0x9999_9999));
        line.leave_first();
        assert_eq!((bracket(&lines), line.leave()), (None, Left::Nothing));
    }

    #[test]
    fn a_nested_bracket_restores_the_outer_one_with_its_label() {
        let (_, line) = one_line();
        line.enter(TaskId(1), None, 1);
        line.set_label(Some(LabelIndex(3)), 7);
        line.enter(TaskId(2), None, 2);
        assert_eq!((line.open().map(|open| open.id), line.label()), (Some(TaskId(2)), None));
        assert_eq!(closed(line), Some(2));
        assert_eq!((line.open().map(|open| open.id), line.label()), (Some(TaskId(1)), Some(LabelIndex(3))));
    }

    #[test]
    fn brackets_past_the_depth_are_refused_and_the_kept_ones_come_back() {
        let (_, line) = one_line();
        let kept: Vec<bool> = (1..=6).map(|n| line.enter(TaskId(n), None, n)).collect();
        assert_eq!(kept, [true, true, true, true, false, false]);
        assert_eq!(line.leave(), Left::Unkept);
        assert_eq!(line.leave(), Left::Unkept);
        let rest: Vec<Option<u64>> = (0..4).map(|_| closed(line)).collect();
        assert_eq!(rest, [Some(4), Some(3), Some(2), Some(1)]);
        assert_eq!((line.leave(), line.is_in_bracket()), (Left::Nothing, false));
    }

    #[test]
    fn marks_do_not_outlive_their_bracket() {
        let (_, line) = one_line();
        line.enter(TaskId(1), None, 1);
        line.mark_ended();
        line.note_panic(Sid(5));
        assert!(line.has_panicked());
        assert!(matches!(line.leave(), Left::Bracket(Open { ended: true, .. }, _)));
        line.enter(TaskId(1), None, 3);
        assert_eq!((line.open().map(|open| open.ended), line.has_panicked()), (Some(false), false));
        assert_eq!((line.reason_of(TaskId(1)), line.reason_of(TaskId(2))), (Sid(5), Sid(0)));
    }

    #[test]
    fn the_longest_label_of_a_bracket_is_told_and_forgotten() {
        let (_, line) = one_line();
        line.enter(TaskId(1), None, 1);
        line.set_label(Some(LabelIndex(3)), 1);
        line.note_stretch(LabelIndex(3), 60);
        line.set_label(None, 0);
        let Left::Bracket(_, longest) = line.leave() else { panic!("it is open") };
        assert_eq!((longest.of(100), longest.of(200)), (Some(LabelIndex(3)), None));
        line.enter(TaskId(2), None, 3);
        line.set_label(None, 0);
        assert_eq!(
            line.leave(),
            Left::Bracket(
                Open { start: 3, id: TaskId(2), slot: None, ended: false, own: false },
                LongestLabel::default()
            )
        );
    }

    #[test]
    fn a_dead_threads_line_is_freed() {
        let (lines, _) = one_line();
        lines.retain(|_| false);
        assert_eq!(lines.views().count(), 0);
        assert!(lines.claim(8).is_some() && lines.claim(9).is_some() && lines.claim(10).is_none());
    }
}
