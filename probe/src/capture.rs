//! What runs around a spawn, a poll, a label and an end, on the application's threads.
//!
//! Nothing here allocates, locks, waits, logs or reads a wall clock (the wrapper allocates once a task, at spawn). On
//! every doubtful branch it returns to the program.

use std::sync::atomic::Ordering::Relaxed;

use taskscope_proto::ids::{GroupId, Sid, TaskId};
use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::{Outcome, TaskKind};

use crate::clock::Ticks;
use crate::registry::Registry;
use crate::registry::cancellations::Asked;
use crate::registry::labels::LabelIndex;
use crate::registry::lines::{Left, Line, LongestLabel, Open};
use crate::registry::slots::{Flags, Slot, SlotIndex, SlotView};

#[cfg(all(test, tokio_unstable))]
mod books;
mod failure;
pub(crate) mod handle;
#[cfg(tokio_unstable)]
pub(crate) mod hooks;
pub(crate) mod join_set;
pub(crate) mod label;
#[cfg(tokio_unstable)]
pub(crate) mod latency;
pub(crate) mod mine;
pub(crate) mod panics;
pub(crate) mod reason;
pub(crate) mod task;
#[cfg(feature = "tokio-util")]
pub(crate) mod task_tracker;
#[cfg(feature = "tokio-util")]
pub(crate) mod token;
pub(crate) mod waker;
pub(crate) mod wrapper;

/// Tokio's number behind a task's id.
#[inline]
pub(crate) fn task_id(id: tokio::task::Id) -> TaskId {
    TaskId(hashed(&id))
}

/// The number that an opaque id of Tokio's shows only to a hasher.
#[inline]
pub(crate) fn hashed(id: &impl std::hash::Hash) -> u64 {
    use std::hash::Hasher;

    struct Capture(u64);
    impl Hasher for Capture {
        fn write(&mut self, bytes: &[u8]) {
            // An id that hashes as bytes would be a change in tokio; fold rather than lose it.
            self.0 = bytes.iter().fold(self.0, |all, &byte| all << 8 | u64::from(byte));
        }
        #[inline]
        fn write_u64(&mut self, n: u64) {
            self.0 = n;
        }
        fn finish(&self) -> u64 {
            self.0
        }
    }

    let mut capture = Capture(0);
    id.hash(&mut capture);
    capture.finish()
}

impl Registry {
    /// Opens the bracket of a poll whose end is told to [`Registry::end_poll`].
    pub(crate) fn begin_poll(&self, line: &Line, id: TaskId, slot: Option<(SlotIndex, &Slot)>) {
        if let Some((_, slot)) = slot {
            slot.begin_poll();
        }
        mine::close();
        if !line.enter(id, slot.map(|(index, _)| index), self.clock.now()) {
            self.losses.add(Reason::DeepBrackets, 1);
        }
    }

    /// Closes the innermost bracket, counts its poll, and frees the slot of a task that ended in it.
    pub(crate) fn end_poll(&self, line: &Line) {
        let now = self.clock.now();
        mine::close();
        match line.leave() {
            Left::Bracket(open, label) => {
                self.count_bracket(line, &open, label, now);
                if open.ended
                    && let Some(index) = open.slot
                {
                    self.free(index, open.id, now);
                }
            }
            Left::Unkept => {}
            Left::Nothing => self.losses.add(Reason::UnpairedHooks, 1),
        }
    }

    /// Counts the poll of a closed bracket, whatever it was and however long it took.
    fn count_bracket(&self, line: &Line, open: &Open, label: LongestLabel, now: Ticks) {
        let ns = self.clock.between(open.start, now);
        let Some(slot) = open.slot.and_then(|index| self.slots.tenant(index, open.id)) else {
            let has_ended = open.slot.is_some();
            if has_ended {
                // Another thread was faster to poll it to its end: its row is gone, its group not known any more.
                self.losses.add(Reason::UnsortedPolls, 1);
                self.groups.entry(GroupId(0)).unsorted.add(ns);
            }
            // A labelled stretch outside every followed task is a poll only on a worker.
            let slow = ns >= self.thresholds.all_ns && !line.is_excused(open.start);
            if slow && (has_ended || line.is_worker()) {
                self.push_slow(open, ns, GroupId(0), label.of(ns), Flags::default(), line);
            }
            return;
        };
        let (group, flags) = (GroupId(slot.group().into()), slot.flags());
        let slow = ns >= self.threshold_ns(group, flags);
        if slow && line.is_excused(open.start) {
            slot.end_poll(now, ns);
            return;
        }
        // Before it is counted: whoever reads the figures and then the slow polls knows of each that is in the figures.
        if slow && flags.kind() != TaskKind::Blocking {
            self.push_slow(open, ns, group, label.of(ns), flags, line);
        }
        self.count_poll(line, slot, now, ns);
    }

    /// Counts a poll of the task in `slot`. The task may already be in its next one on another thread, or (if that one
    /// ended it) gone: then this poll's time counts for the slot's next tenant, which is off by one poll and nothing worse.
    #[inline]
    fn count_poll(&self, line: &Line, slot: &Slot, now: Ticks, ns: u64) {
        if slot.end_poll(now, ns) {
            return self.count_longest(line, slot, ns);
        }
        self.sort_poll(line, slot.group(), ns);
    }

    /// A poll that was its task's longest may be its group's longest; no other can.
    #[cold]
    #[inline(never)]
    fn count_longest(&self, line: &Line, slot: &Slot, ns: u64) {
        let group = slot.group();
        slot.raise_longest(ns);
        self.groups.entry(GroupId(group.into())).unsorted.note_length(ns);
        self.sort_poll(line, group, ns);
    }

    #[inline]
    fn sort_poll(&self, line: &Line, group: u8, ns: u64) {
        if !self.group_polls.add(&line.groups, group, ns) {
            self.sort_first(line, group, ns);
        }
    }

    /// A poll of a length that this thread has not seen yet in this group.
    #[cold]
    #[inline(never)]
    fn sort_first(&self, line: &Line, group: u8, ns: u64) {
        if !self.group_polls.add_first(&line.groups, group, ns) {
            self.losses.add(Reason::UnsortedPolls, 1);
            self.groups.entry(GroupId(group.into())).unsorted.add(ns);
        }
    }

    /// Ends the waiting of the task `id`, which is polled now. Nanoseconds that it waited; 0: it did not.
    fn answer_wake(&self, index: SlotIndex, id: TaskId) -> u64 {
        let Some((slot, wakes)) = self.slots.tenant_and_wakes(index, id) else { return 0 };
        let Some(waited) = wakes.answer(self.clock.now(), id) else { return 0 };
        let waited_ns = self.clock.between(0, waited);
        wakes.add_scheduled(waited_ns);
        // A thread without a line counts neither its polls nor their waits.
        if let Some(line) = self.my_line() {
            self.count_wait(line, slot.group(), waited_ns);
        }
        waited_ns
    }

    /// Counts a wait for a worker, of a task of `group` that is polled by this thread.
    #[inline]
    fn count_wait(&self, line: &Line, group: u8, ns: u64) {
        if !self.group_waits.add(&line.waits, group, ns) {
            self.sort_first_wait(line, group, ns);
        }
    }

    #[cold]
    #[inline(never)]
    fn sort_first_wait(&self, line: &Line, group: u8, ns: u64) {
        if !self.group_waits.add_first(&line.waits, group, ns) {
            self.losses.add(Reason::UnsortedPolls, 1);
            self.groups.entry(GroupId(group.into())).unsorted_waits.add(ns);
        }
    }

    fn push_slow(
        &self,
        open: &Open,
        ns: u64,
        group: GroupId,
        label: Option<LabelIndex>,
        flags: Flags,
        line: &Line,
    ) {
        let label = label.map_or(0, |label| label.0 + 1);
        let place = u64::from(group.0) << 32 | u64::from(label);
        let what = (flags.class() as u64) << 48 | (flags.kind() as u64) << 32;
        self.slow_polls.push([open.id.0, open.start, ns, place, what | u64::from(line.tid())]);
    }

    /// Remembers an ended task and gives its slot back. Of several callers one does it.
    pub(crate) fn free(&self, index: SlotIndex, id: TaskId, now: Ticks) {
        let Some(view) = self.slots.view(index).filter(|view| view.id == id) else { return };
        if !self.slots.retire(index, id) {
            return;
        }
        let outcome = view.flags.outcome();
        let died = matches!(outcome, Outcome::Panicked | Outcome::Failed);
        // An error is told to whoever awaits the task, and else by its handle, when that goes.
        let is_told = outcome != Outcome::Failed || view.flags.is_detached();
        // What it died of was noted on the thread that ends it.
        let line = self.my_line();
        let reason = line.filter(|_| died).map_or(Sid(0), |line| line.reason_of(id));
        let view = SlotView { reason, ..view };
        self.count_end(view.group, outcome == Outcome::Panicked);
        if view.flags.is_asked() {
            self.cancellations.forget(id);
        }
        self.totals.followed.subtract(line);
        if view.flags.is_alone() && view.flags.kind() == TaskKind::Wrapped {
            self.totals.wrapped_alone.fetch_sub(1, Relaxed);
        }
        let words = view.to_ended(now);
        if !self.ended.push_if_room(words) {
            self.totals.unkept.add(line);
        }
        if died && is_told {
            self.died.push(words);
        }
        self.index.remove(id, index);
        self.slots.release(index);
    }

    /// The task `id` was asked to stop now.
    pub(crate) fn note_cancel(&self, index: SlotIndex, id: TaskId, aborted: bool) {
        let Some(slot) = self.slots.tenant(index, id) else { return };
        if !slot.mark_asked(aborted) {
            return;
        }
        let wakes = self.slots.wakes(index, id).map_or(0, |wakes| wakes.total());
        let asked = Asked { since: self.clock.now(), polls: slot.polls(), wakes };
        if !self.cancellations.ask(id, asked) {
            self.losses.add(Reason::LostCancellations, 1);
        }
        // It may have ended between the two.
        if self.slots.tenant(index, id).is_none() {
            self.cancellations.forget(id);
        }
    }

    /// Counts the end of a task, followed or not.
    pub(crate) fn count_end(&self, group: GroupId, panicked: bool) {
        self.groups.entry(group).add_ended(panicked);
    }

    /// The group of a new task, which is counted in it.
    pub(crate) fn count_spawn(&self, name: Sid, at: &'static std::panic::Location<'static>) -> GroupId {
        let group = self.groups.of(name, at, &self.texts, &self.losses);
        self.groups.entry(group).add_spawned();
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::registry::slots::Tenancy;

    /// On a thread of its own: a line belongs to a thread, and the test's may have one of another registry.
    fn on_a_new_thread(test: impl FnOnce(&Registry, &Line) + Send) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let registry = Box::leak(Box::new(Registry::with_budget(0, Clock::start(), u64::MAX)));
                test(registry, registry.my_line().expect("there is room"));
            });
        });
    }

    #[test]
    fn an_end_without_a_begin_is_counted_and_closes_nothing() {
        on_a_new_thread(|registry, line| {
            registry.end_poll(line);
            assert_eq!(registry.losses.count(Reason::UnpairedHooks), 1);
            registry.begin_poll(line, TaskId(7), None);
            assert_eq!(line.open().map(|open| open.id), Some(TaskId(7)));
            registry.end_poll(line);
            assert!(!line.is_in_bracket());
            assert_eq!(registry.losses.count(Reason::UnpairedHooks), 1);
        });
    }

    #[test]
    fn brackets_too_deep_to_be_kept_are_no_unpaired_ones() {
        on_a_new_thread(|registry, line| {
            (1..=6).for_each(|id| registry.begin_poll(line, TaskId(id), None));
            (1..=6).for_each(|_| registry.end_poll(line));
            let counts =
                (registry.losses.count(Reason::DeepBrackets), registry.losses.count(Reason::UnpairedHooks));
            assert_eq!(counts, (2, 0));
        });
    }

    #[test]
    fn an_ended_task_keeps_its_own_panics_words_and_no_others() {
        on_a_new_thread(|registry, line| {
            let reason = reason::intern(registry, "the words", None);
            for (id, dies) in [(7, true), (8, false)] {
                let flags = Flags::new(TaskKind::Task, 1).with_outcome(Outcome::Panicked);
                let index = registry
                    .slots
                    .claim(Tenancy { id: TaskId(id), spawned: 1, group: GroupId(0), flags, fields: Sid(0) })
                    .expect("there is room");
                let slot = registry.slots.tenant(index, TaskId(id)).expect("it is live");
                registry.begin_poll(line, TaskId(id), Some((index, slot)));
                if dies {
                    line.note_panic(reason);
                }
                line.mark_ended();
                registry.end_poll(line);
            }
            let ended = registry.died.take(&mut 0).items;
            let reasons: Vec<Sid> =
                ended.into_iter().map(|words| SlotView::from_ended(words).0.reason).collect();
            assert_eq!(reasons, [reason, Sid(0)]);
        });
    }
}
