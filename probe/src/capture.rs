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
use crate::registry::lines::Line;
use crate::registry::slots::{SlotIndex, SlotView};

pub(crate) mod detached;
#[cfg(tokio_unstable)]
pub(crate) mod hooks;
pub(crate) mod label;
pub(crate) mod panics;
pub(crate) mod reason;
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
    /// Opens the bracket of a poll.
    #[inline]
    pub(crate) fn begin_poll(&self, line: &Line, id: TaskId, slot: Option<SlotIndex>) {
        if !line.enter(id, slot, self.clock.now()) {
            self.losses.add(Reason::DeepBrackets, 1);
        }
    }

    /// Closes the innermost bracket, counts its poll, and frees the slot of a task that ended in it.
    #[inline]
    pub(crate) fn end_poll(&self, line: &Line) {
        let now = self.clock.now();
        // `None`: nested too deep to be kept, or nothing was open.
        let Some((open, label)) = line.leave(now) else {
            if !line.is_in_bracket() {
                self.losses.add(Reason::UnpairedHooks, 1);
            }
            return;
        };
        let ns = self.clock.between(open.start, now);
        let slow = ns >= self.slow_poll_threshold_ns;
        let Some((index, slot)) =
            open.slot.and_then(|index| Some((index, self.slots.tenant(index, open.id)?)))
        else {
            // A labelled stretch outside every followed task is a poll only on a worker.
            if slow && line.is_worker() && open.slot.is_none() && !line.is_excused(open.word) {
                self.push_slow(open.id, open.word, ns, GroupId(0), label.of(ns), TaskKind::Unspecified, line);
            }
            return;
        };
        // From here on the task may already be in its next poll on another thread, or (if that one ended it) gone: then
        // this poll counts for the slot's next tenant, which is off by one poll and nothing worse.
        slot.end_poll(now, ns);
        line.count_poll();
        let flags = slot.flags();
        if flags.kind() != TaskKind::Blocking && !(slow && line.is_excused(open.word)) {
            let group = slot.group();
            self.groups.entry(group).polls.add(ns);
            if slow {
                self.push_slow(open.id, open.word, ns, group, label.of(ns), flags.kind(), line);
            }
        }
        if open.ended {
            self.free(index, open.id, now);
        }
    }

    #[cold]
    #[allow(clippy::too_many_arguments, reason = "they are the words of one ring entry")]
    fn push_slow(
        &self,
        id: TaskId,
        word: u64,
        ns: u64,
        group: GroupId,
        label: Option<crate::registry::labels::LabelIndex>,
        kind: TaskKind,
        line: &Line,
    ) {
        let label = label.map_or(0, |label| label.0 + 1);
        let place = u64::from(group.0) << 32 | u64::from(label);
        self.slow_polls.push([id.0, word, ns, place, (kind as u64) << 32 | u64::from(line.tid())]);
    }

    /// Remembers an ended task and gives its slot back. Of several callers one does it.
    pub(crate) fn free(&self, index: SlotIndex, id: TaskId, now: Ticks) {
        let Some(view) = self.slots.view(index).filter(|view| view.id == id) else { return };
        if !self.slots.retire(index, id) {
            return;
        }
        let panicked = view.flags.outcome() == Outcome::Panicked;
        self.count_end(view.group, panicked);
        self.totals.followed.fetch_sub(1, Relaxed);
        // Its panic was noted on the thread that ends it.
        let line = if panicked { self.lines.mine() } else { None };
        let reason = line.map_or(Sid(0), |line| line.panic_of(id));
        self.ended.push(SlotView { reason, ..view }.to_ended(now));
        self.index.remove(id, index.0);
        self.slots.release(index);
    }

    /// Counts the end of a task, followed or not.
    pub(crate) fn count_end(&self, group: GroupId, panicked: bool) {
        self.groups.entry(group).add_ended(panicked);
        self.totals.ended.fetch_add(1, Relaxed);
        if panicked {
            self.totals.panicked.fetch_add(1, Relaxed);
        }
    }

    /// The group of a new task, which is counted in it.
    pub(crate) fn count_spawn(&self, name: Sid, at: &'static std::panic::Location<'static>) -> GroupId {
        self.totals.spawned.fetch_add(1, Relaxed);
        let site = self.groups.site(at, &self.texts).unwrap_or_else(|| {
            self.losses.add(Reason::LostStrings, 1);
            Sid(0)
        });
        let group = self.groups.find(name, site).unwrap_or_else(|| {
            self.losses.add(Reason::FoldedGroups, 1);
            GroupId(0)
        });
        self.groups.entry(group).add_spawned();
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    /// On a thread of its own: a line belongs to a thread, and the test's may have one of another registry.
    fn on_a_new_thread(test: impl FnOnce(&Registry, &Line) + Send) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let registry = Registry::with_budget(0, Clock::start(), u64::MAX);
                test(&registry, registry.lines.mine().expect("there is room"));
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
                let flags =
                    crate::registry::slots::Flags::new(TaskKind::Task, 1).with_outcome(Outcome::Panicked);
                let index = registry.slots.claim(TaskId(id), 1, GroupId(0), flags).expect("there is room");
                registry.begin_poll(line, TaskId(id), Some(index));
                if dies {
                    line.note_panic(reason);
                }
                line.mark_ended();
                registry.end_poll(line);
            }
            let ended = registry.ended.take(&mut 0).items;
            let reasons: Vec<Sid> =
                ended.into_iter().map(|words| SlotView::from_ended(words).0.reason).collect();
            assert_eq!(reasons, [reason, Sid(0)]);
        });
    }
}
