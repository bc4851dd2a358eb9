//! What runs around a spawn, a poll, a label and an end, on the application's threads.
//!
//! Nothing here allocates, locks, waits, logs or reads a wall clock (the wrapper allocates once a task, at spawn). On
//! every doubtful branch it returns to the program.

use std::sync::atomic::Ordering::Relaxed;

use taskscope_proto::ids::{GroupId, Sid, TaskId};
use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::{Outcome, TaskKind};

use crate::clock::Ticks;
#[cfg(tokio_unstable)]
use crate::registry::Losses;
use crate::registry::Registry;
use crate::registry::labels::LabelIndex;
use crate::registry::lines::{Left, Line, LongestLabel, Open};
use crate::registry::slots::{Slot, SlotIndex, SlotView};

#[cfg(all(test, tokio_unstable))]
mod books;
#[cfg(tokio_unstable)]
pub(crate) mod hooks;
pub(crate) mod label;
pub(crate) mod mine;
pub(crate) mod panics;
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
        let panic = line.panic();
        mine::close();
        match line.leave() {
            Left::Bracket(open, label) => {
                self.count_bracket(line, &open, label, now);
                if open.ended
                    && let Some(index) = open.slot
                {
                    self.free(index, open.id, now, panic.unwrap_or_default());
                }
            }
            Left::Unkept => {}
            Left::Nothing => self.losses.add(Reason::UnpairedHooks, 1),
        }
    }

    /// Counts the poll of a closed bracket, whatever it was and however long it took.
    fn count_bracket(&self, line: &Line, open: &Open, label: LongestLabel, now: Ticks) {
        let ns = self.clock.between(open.start, now);
        let slow = ns >= self.slow_poll_threshold_ns;
        let Some(slot) = open.slot.and_then(|index| self.slots.tenant(index, open.id)) else {
            let has_ended = open.slot.is_some();
            if has_ended {
                // Another thread was faster to poll it to its end: its row is gone, its group not known any more.
                self.losses.add(Reason::UnsortedPolls, 1);
                self.groups.entry(GroupId(0)).unsorted.add(ns);
            }
            // A labelled stretch outside every followed task is a poll only on a worker.
            if slow && (has_ended || line.is_worker()) && !line.is_excused(open.start) {
                self.push_slow(open, ns, GroupId(0), label.of(ns), TaskKind::Unspecified, line);
            }
            return;
        };
        if slow && line.is_excused(open.start) {
            slot.end_poll(now, ns);
            return;
        }
        self.count_poll(line, slot, now, ns);
        let kind = slot.flags().kind();
        if slow && kind != TaskKind::Blocking {
            self.push_slow(open, ns, GroupId(slot.group().into()), label.of(ns), kind, line);
        }
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

    fn push_slow(
        &self,
        open: &Open,
        ns: u64,
        group: GroupId,
        label: Option<LabelIndex>,
        kind: TaskKind,
        line: &Line,
    ) {
        let label = label.map_or(0, |label| label.0 + 1);
        let place = u64::from(group.0) << 32 | u64::from(label);
        self.slow_polls.push([open.id.0, open.start, ns, place, (kind as u64) << 32 | u64::from(line.tid())]);
    }

    /// Remembers an ended task and gives its slot back. Of several callers one does it.
    pub(crate) fn free(&self, index: SlotIndex, id: TaskId, now: Ticks, reason: Sid) {
        let Some(view) = self.slots.view(index).filter(|view| view.id == id) else { return };
        if !self.slots.retire(index, id) {
            return;
        }
        let view = SlotView { reason, ..view };
        let outcome = view.flags.outcome();
        self.count_end(view.group, outcome == Outcome::Panicked);
        self.totals.followed.fetch_sub(1, Relaxed);
        let words = view.to_ended(now);
        self.ended.push(words);
        if matches!(outcome, Outcome::Panicked | Outcome::Failed) {
            self.died.push(words);
        }
        self.index.remove(id, index);
        self.slots.release(index);
    }

    /// Counts the end of a task, followed or not.
    pub(crate) fn count_end(&self, group: GroupId, panicked: bool) {
        self.groups.entry(group).add_ended(panicked);
    }

    /// The group of a task that was counted in it before: what was lost then is not lost again.
    #[cfg(tokio_unstable)]
    pub(crate) fn group_of_counted(&self, name: Sid, at: &'static std::panic::Location<'static>) -> GroupId {
        self.groups.of(name, at, &self.texts, &Losses::default())
    }

    /// The group of a new task, which is counted in it.
    pub(crate) fn count_spawn(&self, name: Sid, at: &'static std::panic::Location<'static>) -> GroupId {
        let group = self.groups.of(name, at, &self.texts, &self.losses);
        self.groups.entry(group).add_spawned();
        group
    }
}
