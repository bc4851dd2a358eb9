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
use crate::registry::slots::SlotIndex;

#[cfg(tokio_unstable)]
pub(crate) mod hooks;
pub(crate) mod label;
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
        // `None`: nested too deep to be kept.
        let Some((open, label)) = line.leave(now) else { return };
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
        self.count_end(view.group, view.flags.outcome() == Outcome::Panicked);
        self.totals.followed.fetch_sub(1, Relaxed);
        if !id.is_tokio() && view.flags.kind() == TaskKind::Wrapped {
            self.totals.wrapped_alone.fetch_sub(1, Relaxed);
        }
        self.ended.push(view.to_ended(now));
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
