//! One line per operating-system thread: what it is polling now. Only that thread writes it. Brackets nest on one thread
//! (`block_in_place` on a current-thread runtime), so a nested one saves the outer and restores it.
//!
//! A reader must not join the start of one poll with the id of another: the start word carries low bits of the id and is
//! read before and after the rest.

use std::cell::Cell;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    fence,
};

use bytemuck::allocation::zeroed_slice_box;
use taskscope_proto::ids::{Sid, TaskId};

use super::labels::LabelIndex;
use super::slots::{SlotIndex, has_tag, tagged};
use crate::clock::Ticks;

const CAP: usize = 1024;
/// Brackets kept below the innermost one.
const DEPTH: usize = 3;
pub(crate) const BYTES: usize = CAP * size_of::<Line>();

/// One bracket: a poll, or a labelled stretch outside every poll.
#[derive(bytemuck::Zeroable)]
struct Bracket {
    /// Start with the low bits of the id; 0: no bracket.
    start: AtomicU64,
    /// The start to the tick.
    exact_start: AtomicU64,
    id: AtomicU64,
    slot_plus1: AtomicU32,
    label_plus1: AtomicU32,
    label_start: AtomicU64,
    /// Guards that are open in it.
    labels: AtomicU32,
    /// Its task has ended: closing the bracket frees the slot.
    ended: AtomicU32,
    /// It was opened by a label, outside every poll.
    own: AtomicU32,
    /// The longest finished labelled stretch of this bracket: its label plus one, and its length.
    longest_label_plus1: AtomicU32,
    longest_label_ns: AtomicU64,
}

#[derive(bytemuck::Zeroable)]
#[repr(align(128))]
pub(crate) struct Line {
    /// Operating-system thread id; 0: free.
    tid: AtomicU32,
    /// Runtime that this thread works for, 0: none seen yet.
    runtime: AtomicU32,
    /// Worker index plus one; 0: not known.
    worker_plus1: AtomicU32,
    depth: AtomicU32,
    current: Bracket,
    outer: [Bracket; DEPTH],
    /// End of its last bracket.
    active: AtomicU64,
    /// Start word of the bracket in which a panic was seen.
    panicked: AtomicU64,
    /// The task of that bracket, and what the panic said.
    panicked_id: AtomicU64,
    panic_reason: AtomicU32,
    /// Start word of a bracket that blocks nobody (`block_in_place`), as the probe's thread found out.
    excused: AtomicU64,
    /// Id of a task that ended before it was spawned (on a closed runtime).
    ended_early: AtomicU64,
    /// Whether it has polled tasks.
    has_polled: AtomicU32,
    /// Finished polls of followed tasks; goes on counting when the line gets another thread.
    polls: AtomicU64,
}

/// A bracket as its own thread has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Open {
    pub(crate) word: u64,
    pub(crate) start: Ticks,
    pub(crate) id: TaskId,
    pub(crate) slot: Option<SlotIndex>,
    /// Its task has ended in it.
    pub(crate) ended: bool,
    /// It was opened by a label, outside every poll.
    pub(crate) own: bool,
}

/// The longest labelled stretch of a bracket that was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

/// A live bracket as a reader saw it, untorn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LineView {
    pub(crate) tid: u32,
    pub(crate) runtime: u32,
    pub(crate) worker: Option<u32>,
    /// `None`: outside every bracket.
    pub(crate) bracket: Option<BracketView>,
    pub(crate) active: Ticks,
    /// Whether it has polled tasks, and so is a worker or runs `block_on`.
    pub(crate) polls: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BracketView {
    /// Identifies the bracket on its line.
    pub(crate) word: u64,
    pub(crate) start: Ticks,
    pub(crate) id: TaskId,
    pub(crate) slot: Option<SlotIndex>,
    pub(crate) label: Option<LabelIndex>,
    pub(crate) label_start: Ticks,
    /// It was opened by a label, outside every poll.
    pub(crate) own: bool,
}

pub(crate) struct Lines {
    lines: Box<[Line]>,
    used: AtomicU32,
}

thread_local! {
    /// Position of this thread's line plus one, 0: none yet, `u32::MAX`: there is none to be had.
    static MINE: Cell<u32> = const { Cell::new(0) };
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self { lines: zeroed_slice_box(CAP), used: AtomicU32::new(0) }
    }

    /// This thread's line; `None` where all are taken. The first call on a thread makes one system call.
    #[inline]
    pub(crate) fn mine(&self) -> Option<&Line> {
        match MINE.get() {
            0 => self.claim(),
            position => self.lines.get(position as usize - 1),
        }
    }

    #[cold]
    fn claim(&self) -> Option<&Line> {
        let tid = line_id();
        let used = self.used.load(Acquire) as usize;
        // A line with our id is left from a thread that has ended: the system gave its id out again.
        let left = self.lines[..used].iter().position(|line| line.tid.load(Acquire) == tid);
        let free = || {
            self.lines[..used]
                .iter()
                .position(|line| line.tid.compare_exchange(0, tid, AcqRel, Relaxed).is_ok())
        };
        let fresh = || {
            let room = |used: u32| ((used as usize) < CAP).then_some(used + 1);
            // Between the two steps another thread may take the new line for a free one.
            std::iter::from_fn(|| self.used.fetch_update(AcqRel, Relaxed, room).ok())
                .map(|position| position as usize)
                .find(|&position| self.lines[position].tid.compare_exchange(0, tid, AcqRel, Relaxed).is_ok())
        };
        let Some(position) = left.or_else(free).or_else(fresh) else {
            MINE.set(u32::MAX);
            return None;
        };
        let line = &self.lines[position];
        line.reset();
        MINE.set(position as u32 + 1);
        Some(line)
    }

    /// Every line in use, with its position.
    pub(crate) fn views(&self) -> impl Iterator<Item = (usize, LineView)> {
        let used = self.used.load(Acquire) as usize;
        self.lines[..used].iter().enumerate().filter_map(|(position, line)| Some((position, line.view()?)))
    }

    /// Says that the bracket `word` of a line blocks nobody; its thread's worker index is looked up anew with its next
    /// poll.
    pub(crate) fn excuse(&self, position: usize, word: u64) {
        if let Some(line) = self.lines.get(position) {
            line.excuse(word);
            line.runtime.store(0, Relaxed);
        }
    }

    /// Polls finished on all threads since the probe began.
    pub(crate) fn polls(&self) -> u64 {
        let used = self.used.load(Acquire) as usize;
        self.lines[..used].iter().map(|line| line.polls.load(Relaxed)).sum()
    }

    /// Frees the lines of threads that are not in `alive`. For the probe's thread.
    pub(crate) fn retain(&self, mut alive: impl FnMut(u32) -> bool) {
        let used = self.used.load(Acquire) as usize;
        for line in &self.lines[..used] {
            let tid = line.tid.load(Acquire);
            if tid != 0 && !alive(tid) {
                // Fails where a new thread with the same id has just taken it over.
                let _ = line.tid.compare_exchange(tid, 0, AcqRel, Relaxed);
            }
        }
    }
}

impl Line {
    fn reset(&self) {
        self.depth.store(0, Relaxed);
        self.current.start.store(0, Relaxed);
        self.current.label_plus1.store(0, Relaxed);
        self.runtime.store(0, Relaxed);
        self.worker_plus1.store(0, Relaxed);
        self.panicked.store(0, Relaxed);
        self.excused.store(0, Relaxed);
        self.has_polled.store(0, Relaxed);
        self.ended_early.store(0, Relaxed);
    }

    /// Opens a bracket; false where it is nested too deep to be kept (its `leave` is then a no-op, too).
    #[inline]
    pub(crate) fn enter(&self, id: TaskId, slot: Option<SlotIndex>, now: Ticks) -> bool {
        let depth = self.depth.load(Relaxed);
        self.depth.store(depth + 1, Relaxed);
        let kept = depth == 0 || self.save(depth);
        if kept {
            self.current.id.store(id.0, Relaxed);
            self.current.exact_start.store(now, Relaxed);
            self.current.slot_plus1.store(slot.map_or(0, |slot| slot.0 + 1), Relaxed);
            self.current.label_plus1.store(0, Relaxed);
            self.current.labels.store(0, Relaxed);
            self.current.ended.store(0, Relaxed);
            self.current.own.store(0, Relaxed);
            self.current.longest_label_ns.store(0, Relaxed);
            self.current.start.store(tagged(now, id), Release);
        }
        kept
    }

    #[cold]
    fn save(&self, depth: u32) -> bool {
        let Some(outer) = self.outer.get(depth as usize - 1) else { return false };
        outer.copy_from(&self.current);
        self.current.start.store(0, Relaxed);
        fence(Release);
        true
    }

    /// Closes the innermost bracket and gives it back; `None` where none was kept for it.
    #[inline]
    pub(crate) fn leave(&self, now: Ticks) -> Option<(Open, LongestLabel)> {
        let depth = self.depth.load(Relaxed).checked_sub(1)?;
        self.depth.store(depth, Relaxed);
        if depth as usize > DEPTH {
            return None;
        }
        let open = self.open()?;
        let longest = LongestLabel {
            ns: self.current.longest_label_ns.load(Relaxed),
            label_plus1: self.current.longest_label_plus1.load(Relaxed),
        };
        self.current.start.store(0, Relaxed);
        self.active.store(now, Relaxed);
        if depth > 0 {
            self.restore(depth);
        } else {
            // The next bracket's stores must not be seen under this one's start.
            fence(Release);
        }
        Some((open, longest))
    }

    #[cold]
    fn restore(&self, depth: u32) {
        fence(Release);
        if let Some(outer) = self.outer.get(depth as usize - 1) {
            self.current.copy_from(outer);
        }
    }

    /// The innermost bracket, as its own thread sees it.
    #[inline]
    pub(crate) fn open(&self) -> Option<Open> {
        let word = self.current.start.load(Relaxed);
        (word != 0).then(|| Open {
            word,
            start: self.current.exact_start.load(Relaxed),
            id: TaskId(self.current.id.load(Relaxed)),
            slot: self.current.slot_plus1.load(Relaxed).checked_sub(1).map(SlotIndex),
            ended: self.current.ended.load(Relaxed) != 0,
            own: self.current.own.load(Relaxed) != 0,
        })
    }

    /// Whether this thread is in a bracket, kept or not.
    pub(crate) fn is_in_bracket(&self) -> bool {
        self.depth.load(Relaxed) > 0
    }

    /// The task of the innermost bracket has ended.
    pub(crate) fn mark_ended(&self) {
        self.current.ended.store(1, Relaxed);
    }

    /// The innermost bracket was opened by a label, outside every poll.
    pub(crate) fn mark_own(&self) {
        self.current.own.store(1, Relaxed);
    }

    /// A label guard was opened in the innermost bracket.
    pub(crate) fn add_label(&self) {
        self.current.labels.store(self.current.labels.load(Relaxed) + 1, Relaxed);
    }

    /// A label guard was dropped in the innermost bracket. True: it was the last one.
    pub(crate) fn remove_label(&self) -> bool {
        let open = self.current.labels.load(Relaxed).saturating_sub(1);
        self.current.labels.store(open, Relaxed);
        open == 0
    }

    /// Sets the label of the current stretch and gives back the one before.
    #[inline]
    pub(crate) fn set_label(&self, label: Option<LabelIndex>, start: Ticks) -> (Option<LabelIndex>, Ticks) {
        let before = (self.label(), self.current.label_start.load(Relaxed));
        self.current.label_start.store(start, Relaxed);
        self.current.label_plus1.store(label.map_or(0, |label| label.0 + 1), Relaxed);
        before
    }

    pub(crate) fn label(&self) -> Option<LabelIndex> {
        self.current.label_plus1.load(Relaxed).checked_sub(1).map(LabelIndex)
    }

    /// Notes a finished labelled stretch, so that a poll can be told by the label that took most of it.
    pub(crate) fn note_stretch(&self, label: LabelIndex, ns: u64) {
        if ns > self.current.longest_label_ns.load(Relaxed) {
            self.current.longest_label_ns.store(ns, Relaxed);
            self.current.longest_label_plus1.store(label.0 + 1, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn count_poll(&self) {
        self.polls.store(self.polls.load(Relaxed) + 1, Relaxed);
    }

    pub(crate) fn tid(&self) -> u32 {
        self.tid.load(Relaxed)
    }

    pub(crate) fn set_runtime(&self, runtime: u32, worker: Option<usize>) {
        self.runtime.store(runtime, Relaxed);
        self.worker_plus1.store(worker.map_or(0, |worker| worker as u32 + 1), Relaxed);
    }

    /// The thread polls tasks: it is a worker, or runs `block_on`.
    pub(crate) fn mark_polls(&self) {
        self.has_polled.store(1, Relaxed);
    }

    /// Whether this thread is known to be a worker.
    pub(crate) fn is_worker(&self) -> bool {
        self.worker_plus1.load(Relaxed) != 0
    }

    pub(crate) fn runtime(&self) -> u32 {
        self.runtime.load(Relaxed)
    }

    /// Notes a panic in the innermost bracket.
    pub(crate) fn note_panic(&self, reason: Sid) {
        self.panicked.store(self.current.start.load(Relaxed), Relaxed);
        self.panicked_id.store(self.current.id.load(Relaxed), Relaxed);
        self.panic_reason.store(reason.0, Relaxed);
    }

    /// What the last panic on this thread said, if it was the task `id`'s; 0 otherwise.
    pub(crate) fn panic_of(&self, id: TaskId) -> Sid {
        let same = self.panicked.load(Relaxed) != 0 && self.panicked_id.load(Relaxed) == id.0;
        Sid(if same { self.panic_reason.load(Relaxed) } else { 0 })
    }

    /// Whether a panic was seen in the innermost bracket.
    pub(crate) fn has_panicked(&self) -> bool {
        let word = self.current.start.load(Relaxed);
        word != 0 && self.panicked.load(Relaxed) == word
    }

    /// Says that the bracket `word` blocks nobody. For the probe's thread.
    fn excuse(&self, word: u64) {
        self.excused.store(word, Relaxed);
    }

    pub(crate) fn is_excused(&self, word: u64) -> bool {
        self.excused.load(Relaxed) == word
    }

    pub(crate) fn note_ended_early(&self, id: TaskId) {
        self.ended_early.store(id.0, Relaxed);
    }

    pub(crate) fn ended_early(&self, id: TaskId) -> bool {
        self.ended_early.load(Relaxed) == id.0
    }

    fn view(&self) -> Option<LineView> {
        let tid = self.tid.load(Acquire);
        if tid == 0 {
            return None;
        }
        Some(LineView {
            tid,
            runtime: self.runtime.load(Relaxed),
            worker: self.worker_plus1.load(Relaxed).checked_sub(1),
            bracket: self.current.view(),
            active: self.active.load(Relaxed),
            polls: self.has_polled.load(Relaxed) != 0,
        })
    }
}

impl Bracket {
    fn copy_from(&self, other: &Self) {
        self.id.store(other.id.load(Relaxed), Relaxed);
        self.exact_start.store(other.exact_start.load(Relaxed), Relaxed);
        self.slot_plus1.store(other.slot_plus1.load(Relaxed), Relaxed);
        self.label_plus1.store(other.label_plus1.load(Relaxed), Relaxed);
        self.label_start.store(other.label_start.load(Relaxed), Relaxed);
        self.labels.store(other.labels.load(Relaxed), Relaxed);
        self.ended.store(other.ended.load(Relaxed), Relaxed);
        self.own.store(other.own.load(Relaxed), Relaxed);
        self.longest_label_plus1.store(other.longest_label_plus1.load(Relaxed), Relaxed);
        self.longest_label_ns.store(other.longest_label_ns.load(Relaxed), Relaxed);
        self.start.store(other.start.load(Relaxed), Release);
    }

    /// An untorn copy; a writer that is faster than two attempts is read the next time.
    fn view(&self) -> Option<BracketView> {
        (0..2).find_map(|_| {
            let word = self.start.load(Acquire);
            let view = BracketView {
                word,
                start: self.exact_start.load(Relaxed),
                id: TaskId(self.id.load(Relaxed)),
                slot: self.slot_plus1.load(Relaxed).checked_sub(1).map(SlotIndex),
                label: self.label_plus1.load(Relaxed).checked_sub(1).map(LabelIndex),
                label_start: self.label_start.load(Relaxed),
                own: self.own.load(Relaxed) != 0,
            };
            fence(Acquire);
            (has_tag(word, view.id) && self.start.load(Relaxed) == word).then_some(view)
        })
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
fn line_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    current_tid().unwrap_or_else(|| NEXT.fetch_add(1, Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs on a thread of its own: a line belongs to a thread, and the test's may have one of another registry.
    fn on_a_new_thread(test: impl FnOnce(&Lines, &Line) + Send) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let lines = Lines::new();
                test(&lines, lines.mine().expect("there is room"));
            });
        });
    }

    #[test]
    fn a_bracket_is_seen_while_it_is_open() {
        on_a_new_thread(|lines, line| {
            assert_eq!(lines.views().next().and_then(|(_, view)| view.bracket), None);
            line.enter(TaskId(0x5007), Some(SlotIndex(4)), 0x9999_9999);
            let bracket = lines.views().next().and_then(|(_, view)| view.bracket).expect("it is open");
            assert_eq!(
                (bracket.id, bracket.slot, bracket.word),
                (TaskId(0x5007), Some(SlotIndex(4)), 0x9999_9007)
            );
            assert_eq!(line.leave(0x9999_A000).map(|(open, _)| open.id), Some(TaskId(0x5007)));
            assert_eq!(lines.views().next().and_then(|(_, view)| view.bracket), None);
        });
    }

    #[test]
    fn a_nested_bracket_restores_the_outer_one_with_its_label() {
        on_a_new_thread(|_, line| {
            line.enter(TaskId(1), None, 1 << 20);
            line.set_label(Some(LabelIndex(3)), 7);
            line.enter(TaskId(2), None, 2 << 20);
            assert_eq!((line.open().map(|open| open.id), line.label()), (Some(TaskId(2)), None));
            line.leave(3 << 20);
            assert_eq!(
                (line.open().map(|open| open.id), line.label()),
                (Some(TaskId(1)), Some(LabelIndex(3)))
            );
        });
    }

    #[test]
    fn brackets_past_the_depth_are_refused_and_the_kept_ones_come_back() {
        on_a_new_thread(|_, line| {
            let kept: Vec<bool> = (1..=6).map(|n| line.enter(TaskId(n), None, n << 20)).collect();
            assert_eq!(kept, [true, true, true, true, false, false]);
            let closed: Vec<Option<u64>> =
                (0..6).map(|_| line.leave(9 << 20).map(|(open, _)| open.id.0)).collect();
            assert_eq!(closed, [None, None, Some(4), Some(3), Some(2), Some(1)]);
            assert_eq!(line.leave(9 << 20), None);
        });
    }

    #[test]
    fn a_dead_threads_line_is_freed() {
        on_a_new_thread(|lines, _| {
            lines.retain(|_| false);
            assert_eq!(lines.views().count(), 0);
        });
    }

    #[test]
    fn a_reader_never_joins_two_polls() {
        on_a_new_thread(|lines, line| {
            let stop = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for _ in 0..200_000 {
                        for (_, view) in lines.views() {
                            if let Some(bracket) = view.bracket {
                                assert_eq!(bracket.slot, Some(SlotIndex(bracket.id.0 as u32)), "{bracket:?}");
                            }
                        }
                    }
                    stop.store(true, Relaxed);
                });
                let mut id = 0;
                while !stop.load(Relaxed) {
                    id = (id + 1) % 4000 + 1;
                    line.enter(TaskId(id), Some(SlotIndex(id as u32)), id << 12);
                    line.leave((id + 1) << 12);
                }
            });
        });
    }
}
