//! The arena of task slots: one small slot a live task, a free list, memory that is never given back, so that a late
//! store is harmless.
//!
//! A slot is written by the thread that polls its task, and by wakers, which touch only `woken`. Tokio's after-poll hook
//! runs when the task can already be in its next poll on another thread, so what that hook counts is added atomically,
//! and what belongs to one poll (its start) is kept on the thread's line and not here.
//! A reader accepts a slot only if its id is the same before and after it read the rest; ids are never used twice.

use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    fence,
};

use bytemuck::allocation::zeroed_slice_box;
use taskscope_proto::ids::{GroupId, TaskId};
use taskscope_proto::v1::{Outcome, TaskKind};

use super::labels::LabelIndex;
use crate::clock::Ticks;

pub(crate) const SLOT_BYTES: usize = size_of::<Slot>();
/// Slots that the index can name.
const MAX_SLOTS: usize = (1 << 22) - 2;
/// Words of an ended task, see [`SlotView::to_ended`].
pub(crate) const ENDED_WORDS: usize = 10;

/// Position of a slot in the arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlotIndex(pub(crate) u32);

#[derive(bytemuck::Zeroable)]
pub(crate) struct Slot {
    /// 0: free, or being filled.
    id: AtomicU64,
    spawned: AtomicU64,
    /// End of the last poll; 0: never polled.
    poll_end: AtomicU64,
    /// When it was woken, the low bits replaced by those of the id; 0: not woken since its last poll.
    woken: AtomicU64,
    polls: AtomicU64,
    busy_ns: AtomicU64,
    scheduled_ns: AtomicU64,
    longest_ns: AtomicU64,
    group: AtomicU32,
    label: AtomicU32,
    /// Kind, outcome, runtime and marks, see [`Flags`].
    flags: AtomicU32,
    next_free: AtomicU32,
}

/// Low bits of an id inside a tick word: 4 096 ticks are one to two microseconds.
const TAG: u64 = 0xFFF;

/// `ticks` with the low bits of `id` in place of its own. Never 0.
#[inline]
pub(crate) fn tagged(ticks: Ticks, id: TaskId) -> u64 {
    (ticks & !TAG | id.0 & TAG).max(1)
}

/// Whether `word` was made by [`tagged`] with `id`.
pub(crate) fn has_tag(word: u64, id: TaskId) -> bool {
    word != 0 && word & TAG == id.0 & TAG
}

/// The word behind `flags`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Flags(u32);

impl Flags {
    const WAKES: u32 = 1 << 8;

    pub(crate) fn new(kind: TaskKind, runtime: u32) -> Self {
        Self(kind as u32 & 0xF | (runtime & 0xFFF) << 16)
    }
    pub(crate) fn kind(self) -> TaskKind {
        TaskKind::try_from((self.0 & 0xF) as i32).unwrap_or_default()
    }
    pub(crate) fn outcome(self) -> Outcome {
        Outcome::try_from((self.0 >> 4 & 0xF) as i32).unwrap_or_default()
    }
    pub(crate) fn with_outcome(self, outcome: Outcome) -> Self {
        Self(self.0 & !0xF0 | (outcome as u32 & 0xF) << 4)
    }
    /// Whether wakes of this task are seen.
    pub(crate) fn sees_wakes(self) -> bool {
        self.0 & Self::WAKES != 0
    }
    pub(crate) fn with_wakes(self) -> Self {
        Self(self.0 | Self::WAKES)
    }
    pub(crate) fn runtime(self) -> u32 {
        self.0 >> 16
    }
}

/// A consistent copy of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotView {
    pub(crate) id: TaskId,
    pub(crate) spawned: Ticks,
    pub(crate) poll_end: Ticks,
    pub(crate) woken: u64,
    pub(crate) polls: u64,
    pub(crate) busy_ns: u64,
    pub(crate) scheduled_ns: u64,
    pub(crate) longest_ns: u64,
    pub(crate) group: GroupId,
    /// The last label, 0 where it never had one.
    pub(crate) label_plus1: u32,
    pub(crate) flags: Flags,
}

impl SlotView {
    pub(crate) fn to_ended(self, ended: Ticks) -> [u64; ENDED_WORDS] {
        [
            self.id.0,
            self.spawned,
            ended,
            self.polls,
            self.busy_ns,
            self.scheduled_ns,
            self.longest_ns,
            u64::from(self.group.0),
            u64::from(self.label_plus1),
            u64::from(self.flags.0),
        ]
    }

    /// The view and the end that [`SlotView::to_ended`] wrote.
    pub(crate) fn from_ended(words: [u64; ENDED_WORDS]) -> (Self, Ticks) {
        let [id, spawned, ended, polls, busy_ns, scheduled_ns, longest_ns, group, label, flags] = words;
        let view = Self {
            id: TaskId(id),
            spawned,
            poll_end: ended,
            woken: 0,
            polls,
            busy_ns,
            scheduled_ns,
            longest_ns,
            group: GroupId(group as u32),
            label_plus1: label as u32,
            flags: Flags(flags as u32),
        };
        (view, ended)
    }
}

pub(crate) struct Slots {
    slots: Box<[Slot]>,
    /// Slots ever given out.
    high_water: AtomicU32,
    /// Head of the free list: a count against reuse in the upper half, position plus one in the lower.
    free: AtomicU64,
}

impl Slots {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            slots: zeroed_slice_box(capacity.min(MAX_SLOTS)),
            high_water: AtomicU32::new(0),
            free: AtomicU64::new(0),
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Slots that a walk has to look at.
    pub(crate) fn high_water(&self) -> usize {
        (self.high_water.load(Acquire) as usize).min(self.slots.len())
    }

    #[inline]
    pub(crate) fn slot(&self, index: SlotIndex) -> &Slot {
        &self.slots[index.0 as usize]
    }

    /// The slot of `index`, if the task `id` still lives in it.
    #[inline]
    pub(crate) fn tenant(&self, index: SlotIndex, id: TaskId) -> Option<&Slot> {
        let slot = self.slots.get(index.0 as usize)?;
        (slot.id.load(Relaxed) == id.0).then_some(slot)
    }

    /// A slot for a new task; `None` where all are taken.
    pub(crate) fn claim(
        &self,
        id: TaskId,
        spawned: Ticks,
        group: GroupId,
        flags: Flags,
    ) -> Option<SlotIndex> {
        let index = self.pop_free().or_else(|| {
            let room = |used: u32| ((used as usize) < self.slots.len()).then_some(used + 1);
            self.high_water.fetch_update(AcqRel, Relaxed, room).ok().map(SlotIndex)
        })?;
        let slot = self.slot(index);
        // A reader that sees one of these stores sees the id of before (0) or of after, never the former tenant's.
        fence(Release);
        slot.spawned.store(spawned, Relaxed);
        slot.poll_end.store(0, Relaxed);
        slot.woken.store(0, Relaxed);
        slot.polls.store(0, Relaxed);
        slot.busy_ns.store(0, Relaxed);
        slot.scheduled_ns.store(0, Relaxed);
        slot.longest_ns.store(0, Relaxed);
        slot.group.store(group.0, Relaxed);
        slot.label.store(0, Relaxed);
        slot.flags.store(flags.0, Relaxed);
        slot.id.store(id.0, Release);
        Some(index)
    }

    /// Ends the tenancy of `id`. True for one caller only, which then gives the slot back with [`Slots::release`].
    pub(crate) fn retire(&self, index: SlotIndex, id: TaskId) -> bool {
        self.slot(index).id.compare_exchange(id.0, 0, AcqRel, Relaxed).is_ok()
    }

    /// Gives a retired slot back.
    pub(crate) fn release(&self, index: SlotIndex) {
        let slot = self.slot(index);
        let mut head = self.free.load(Relaxed);
        loop {
            slot.next_free.store(head as u32, Relaxed);
            let next = (head >> 32).wrapping_add(1) << 32 | u64::from(index.0 + 1);
            match self.free.compare_exchange_weak(head, next, Release, Relaxed) {
                Ok(_) => return,
                Err(other) => head = other,
            }
        }
    }

    fn pop_free(&self) -> Option<SlotIndex> {
        let mut head = self.free.load(Acquire);
        loop {
            let position = (head as u32).checked_sub(1)?;
            let after = self.slots[position as usize].next_free.load(Relaxed);
            let next = (head >> 32).wrapping_add(1) << 32 | u64::from(after);
            match self.free.compare_exchange_weak(head, next, AcqRel, Acquire) {
                Ok(_) => return Some(SlotIndex(position)),
                Err(other) => head = other,
            }
        }
    }

    /// A consistent copy, or `None` where the slot is free or changed hands meanwhile.
    pub(crate) fn view(&self, index: SlotIndex) -> Option<SlotView> {
        let slot = self.slots.get(index.0 as usize)?;
        let id = slot.id.load(Acquire);
        if id == 0 {
            return None;
        }
        let view = SlotView {
            id: TaskId(id),
            spawned: slot.spawned.load(Relaxed),
            poll_end: slot.poll_end.load(Relaxed),
            woken: slot.woken.load(Relaxed),
            polls: slot.polls.load(Relaxed),
            busy_ns: slot.busy_ns.load(Relaxed),
            scheduled_ns: slot.scheduled_ns.load(Relaxed),
            longest_ns: slot.longest_ns.load(Relaxed),
            group: GroupId(slot.group.load(Relaxed)),
            label_plus1: slot.label.load(Relaxed),
            flags: Flags(slot.flags.load(Relaxed)),
        };
        fence(Acquire);
        (slot.id.load(Relaxed) == id).then_some(view)
    }

    /// Consistent copies of all live tasks.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = SlotView> {
        (0..self.high_water() as u32).filter_map(|at| self.view(SlotIndex(at)))
    }
}

impl Slot {
    pub(crate) fn group(&self) -> GroupId {
        GroupId(self.group.load(Relaxed))
    }

    pub(crate) fn set_label(&self, label: LabelIndex) {
        self.label.store(label.0 + 1, Relaxed);
    }

    pub(crate) fn flags(&self) -> Flags {
        Flags(self.flags.load(Relaxed))
    }

    pub(crate) fn polls(&self) -> u64 {
        self.polls.load(Relaxed)
    }

    /// Only the thread that polls (or drops) the task writes flags.
    pub(crate) fn set_flags(&self, flags: Flags) {
        self.flags.store(flags.0, Relaxed);
    }

    /// Counts a finished poll. The task may be in its next one already.
    #[inline]
    pub(crate) fn end_poll(&self, now: Ticks, duration_ns: u64) {
        self.polls.fetch_add(1, Relaxed);
        self.busy_ns.fetch_add(duration_ns, Relaxed);
        if duration_ns > self.longest_ns.load(Relaxed) {
            self.longest_ns.fetch_max(duration_ns, Relaxed);
        }
        self.poll_end.store(now, Relaxed);
    }

    /// Notes the first wake since the last poll.
    pub(crate) fn wake(&self, now: Ticks, id: TaskId) {
        if self.woken.load(Relaxed) == 0 {
            self.woken.store(tagged(now, id), Relaxed);
        }
    }

    /// The wake that the poll now starting answers; 0: none was noted.
    pub(crate) fn take_wake(&self) -> u64 {
        let woken = self.woken.load(Relaxed);
        if woken != 0 {
            self.woken.store(0, Relaxed);
        }
        woken
    }

    pub(crate) fn add_scheduled(&self, ns: u64) {
        self.scheduled_ns.store(self.scheduled_ns.load(Relaxed) + ns, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(slots: &Slots, id: u64) -> Option<SlotIndex> {
        slots.claim(TaskId(id), id, GroupId(1), Flags::new(TaskKind::Task, 3))
    }

    #[test]
    fn a_slot_fits_its_budget() {
        assert_eq!(SLOT_BYTES, 80);
    }

    #[test]
    fn flags_keep_what_was_put_in() {
        let flags = Flags::new(TaskKind::Main, 9).with_wakes().with_outcome(Outcome::Panicked);
        assert_eq!((flags.kind(), flags.runtime(), flags.outcome()), (TaskKind::Main, 9, Outcome::Panicked));
        assert!(flags.sees_wakes());
    }

    #[test]
    fn released_slots_are_used_again_and_a_full_arena_refuses() {
        let slots = Slots::with_capacity(2);
        let (first, second) = (claim(&slots, 1), claim(&slots, 2));
        assert!(first.is_some() && second.is_some());
        assert_eq!(claim(&slots, 3), None);
        let index = first.expect("claimed");
        assert!(slots.retire(index, TaskId(1)) && !slots.retire(index, TaskId(1)));
        slots.release(index);
        assert_eq!(claim(&slots, 4), first);
        assert_eq!(slots.iter().map(|view| view.id.0).collect::<Vec<_>>(), [4, 2]);
    }

    #[test]
    fn a_reader_never_sees_a_mix_of_two_tenants() {
        let slots = Slots::with_capacity(4);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..2u64 {
                let (slots, stop) = (&slots, &stop);
                scope.spawn(move || {
                    let mut id = thread + 1;
                    while !stop.load(Relaxed) {
                        if let Some(index) = claim(slots, id) {
                            slots.slot(index).end_poll(id, id);
                            assert!(slots.retire(index, TaskId(id)));
                            slots.release(index);
                        }
                        id += 2;
                    }
                });
            }
            for _ in 0..200_000 {
                for view in slots.iter() {
                    assert_eq!(view.spawned, view.id.0);
                    assert!(view.busy_ns == 0 || view.busy_ns == view.id.0, "{view:?}");
                }
            }
            stop.store(true, Relaxed);
        });
    }

    #[test]
    fn an_ended_task_survives_the_ring() {
        let slots = Slots::with_capacity(1);
        let index = claim(&slots, 5).expect("there is room");
        slots.slot(index).end_poll(30, 20);
        let view = slots.view(index).expect("it is live");
        let (back, ended) = SlotView::from_ended(view.to_ended(40));
        assert_eq!((back.id, back.polls, back.busy_ns, back.flags, ended), (view.id, 1, 20, view.flags, 40));
    }
}
