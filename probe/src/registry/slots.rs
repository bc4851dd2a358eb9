//! The arena of task slots: one cache line a live task, a free list, memory that is never given back, so that a late
//! store is harmless.
//!
//! A slot is written by the thread that polls its task. Two polls of one task never overlap, but the after-poll hook of one
//! runs when the next can already have begun on another thread. So polls are counted as they begin, which is exclusive, the
//! start of a poll is kept on the thread's line, and what the after-hook adds is added atomically.
//! A reader accepts a slot only if its id is the same before and after it read the rest; ids are never used twice.

use taskscope_proto::ids::{GroupId, Sid, TaskId};
use taskscope_proto::v1::{Outcome, TaskClass, TaskKind};

use super::arena::Arena;
use super::free_list::FreeList;
use super::labels::LabelIndex;
use super::sync::{
    AcqRel, Acquire, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Relaxed, Release, fence, zeroed,
};
use super::wakes::{Wakes, WakesView};
use crate::clock::Ticks;

/// A slot and what wakers note beside it.
pub(crate) const BYTES_PER_SLOT: usize = size_of::<Slot>() + size_of::<Wakes>();
/// More than a million tasks for each of them.
const MAX_SLOTS: usize = 1 << 24;
/// Words of an ended task, see [`SlotView::to_ended`].
pub(crate) const ENDED_WORDS: usize = 9;

/// Position of a slot in the arena. No task lives at 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlotIndex(pub(crate) u32);

#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
#[repr(align(64))]
pub(crate) struct Slot {
    /// 0: free, or being filled.
    id: AtomicU64,
    spawned: AtomicU64,
    /// End of the last poll; 0: never polled.
    poll_end: AtomicU64,
    /// Begun.
    polls: AtomicU64,
    busy_ns: AtomicU64,
    longest_ns: AtomicU64,
    /// See [`Flags`].
    flags: AtomicU32,
    /// Id of the text of its fields; 0: none.
    fields: AtomicU16,
    group: AtomicU8,
    /// The last label plus one; 0: it never had one.
    label_plus1: AtomicU8,
    /// Of a free slot: position plus one of the next in the free list.
    next_free: AtomicU32,
}

/// Kind, outcome, class, runtime and marks of a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Flags(u32);

impl Flags {
    const WAKES: u32 = 1 << 8;
    const CLASS: u32 = 9;
    const DETACHED: u32 = 1 << 12;
    const ASKED: u32 = 1 << 13;
    const ABORTED: u32 = 1 << 14;
    const ATTACHED: u32 = 1 << 15;
    const LATENCY: u32 = 1 << 31;
    const RUNTIMES: u32 = 1 << 15;
    /// The bit above the kind's.
    const ALONE: u32 = 1 << 3;

    /// A runtime past the 32 767th is not known, rather than taken for another.
    pub(crate) fn new(kind: TaskKind, runtime: u32) -> Self {
        let runtime = if runtime < Self::RUNTIMES { runtime } else { 0 };
        Self(kind as u32 & 7 | runtime << 16)
    }
    pub(crate) fn kind(self) -> TaskKind {
        TaskKind::try_from((self.0 & 7) as i32).unwrap_or_default()
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
    pub(crate) fn with_detached(self) -> Self {
        Self(self.0 | Self::DETACHED)
    }
    /// Whether only the wrapper sees it, and no hook.
    pub(crate) fn is_alone(self) -> bool {
        self.0 & Self::ALONE != 0
    }
    pub(crate) fn with_alone(self) -> Self {
        Self(self.0 | Self::ALONE)
    }
    /// Whether nobody holds its handle: nobody can await it.
    pub(crate) fn is_detached(self) -> bool {
        self.0 & Self::DETACHED != 0
    }
    /// Whether it was asked to stop.
    pub(crate) fn is_asked(self) -> bool {
        self.0 & Self::ASKED != 0
    }
    /// Whether it was aborted by its handle.
    pub(crate) fn is_aborted(self) -> bool {
        self.0 & Self::ABORTED != 0
    }
    pub(crate) fn class(self) -> TaskClass {
        TaskClass::try_from((self.0 >> Self::CLASS & 7) as i32).unwrap_or_default()
    }
    pub(crate) fn with_class(self, class: TaskClass) -> Self {
        Self(self.0 | (class as u32 & 7) << Self::CLASS)
    }
    pub(crate) fn runtime(self) -> u32 {
        self.0 >> 16 & (Self::RUNTIMES - 1)
    }
    /// Whether Tokio tells how long it waited for a worker.
    pub(crate) fn sees_latency(self) -> bool {
        self.0 & Self::LATENCY != 0
    }
}

/// A consistent copy of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotView {
    pub(crate) id: TaskId,
    pub(crate) spawned: Ticks,
    pub(crate) poll_end: Ticks,
    /// Begun, the running one included.
    pub(crate) polls: u64,
    pub(crate) busy_ns: u64,
    pub(crate) longest_ns: u64,
    pub(crate) group: GroupId,
    pub(crate) label: Option<LabelIndex>,
    pub(crate) fields: Sid,
    pub(crate) flags: Flags,
    /// `None`: its wakes are not seen. Of an ended task only the time it was scheduled is kept.
    pub(crate) wakes: Option<WakesView>,
    /// Time that it was scheduled as Tokio tells it, where its wakes are not seen.
    pub(crate) latency_ns: Option<u64>,
    /// Why it ended, where that is known.
    pub(crate) reason: Sid,
}

impl SlotView {
    /// Time of the waits for a worker that have ended.
    pub(crate) fn scheduled_ns(&self) -> Option<u64> {
        self.wakes.map(|wakes| wakes.scheduled_ns).or(self.latency_ns)
    }

    pub(crate) fn to_ended(self, ended: Ticks) -> [u64; ENDED_WORDS] {
        let label_plus1 = self.label.map_or(0, |label| u64::from(label.0) + 1);
        [
            self.id.0,
            self.spawned,
            ended,
            self.polls,
            self.busy_ns,
            self.scheduled_ns().unwrap_or(0),
            self.longest_ns,
            u64::from(self.fields.0) << 32 | u64::from(self.group.0) << 16 | label_plus1,
            u64::from(self.reason.0) << 32 | u64::from(self.flags.0),
        ]
    }

    /// The view and the end that [`SlotView::to_ended`] wrote.
    pub(crate) fn from_ended(words: [u64; ENDED_WORDS]) -> (Self, Ticks) {
        let [id, spawned, ended, polls, busy_ns, scheduled_ns, longest_ns, place, flags] = words;
        let reason = Sid((flags >> 32) as u32);
        let flags = Flags(flags as u32);
        let view = Self {
            id: TaskId(id),
            spawned,
            poll_end: ended,
            polls,
            busy_ns,
            longest_ns,
            group: GroupId((place >> 16) as u32 & 0xFFFF),
            label: (place as u32 & 0xFFFF).checked_sub(1).map(LabelIndex),
            fields: Sid((place >> 32) as u32),
            flags,
            wakes: flags.sees_wakes().then(|| WakesView { scheduled_ns, ..WakesView::default() }),
            latency_ns: (flags.sees_latency() && !flags.sees_wakes()).then_some(scheduled_ns),
            reason,
        };
        (view, ended)
    }
}

pub(crate) struct Slots {
    slots: Arena<Slot>,
    wakes: &'static [Wakes],
    free: FreeList,
}

/// What a new task is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tenancy {
    pub(crate) id: TaskId,
    pub(crate) spawned: Ticks,
    pub(crate) group: GroupId,
    pub(crate) flags: Flags,
    pub(crate) fields: Sid,
}

impl Slots {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let capacity = capacity.min(MAX_SLOTS);
        // No task lives in the first one: its position stands for none.
        Self { slots: Arena::of(capacity), wakes: zeroed(capacity), free: FreeList::new(1, capacity) }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// All of the arena, free or not.
    pub(super) fn all(&self) -> Arena<Slot> {
        self.slots
    }

    /// Slots that a walk has to look at.
    pub(crate) fn high_water(&self) -> usize {
        self.free.used() as usize
    }

    /// The slot of `index`, if the task `id` still lives in it.
    #[inline]
    pub(crate) fn tenant(&self, index: SlotIndex, id: TaskId) -> Option<&'static Slot> {
        let slot = self.slots.get(index.0)?;
        (slot.id.load(Relaxed) == id.0).then_some(slot)
    }

    /// What wakers noted about `id`, if it still lives in `index`.
    #[inline]
    pub(crate) fn wakes(&self, index: SlotIndex, id: TaskId) -> Option<&'static Wakes> {
        Some(self.tenant_and_wakes(index, id)?.1)
    }

    /// [`Slots::tenant`] and [`Slots::wakes`] at one look.
    #[inline]
    pub(crate) fn tenant_and_wakes(
        &self,
        index: SlotIndex,
        id: TaskId,
    ) -> Option<(&'static Slot, &'static Wakes)> {
        self.tenant(index, id).zip(self.wakes.get(index.0 as usize))
    }

    /// As [`Slots::wakes`], for the task of whose id `tenant` is the lower half; and that id.
    pub(crate) fn wakes_of(&self, index: SlotIndex, tenant: u32) -> Option<(TaskId, &'static Wakes)> {
        let id = self.slots.get(index.0)?.id.load(Relaxed);
        if id == 0 || id as u32 != tenant {
            return None;
        }
        Some((TaskId(id), self.wakes.get(index.0 as usize)?))
    }

    /// A slot for a new task; `None` where all are taken.
    pub(crate) fn claim(&self, new: Tenancy) -> Option<SlotIndex> {
        let next = |free| self.slots.get(free).map_or(0, |slot| slot.next_free.load(Relaxed));
        let index = SlotIndex(self.free.take(next)?);
        let slot = self.slots.get(index.0)?;
        // A reader that sees one of these stores sees the id of before (0) or of after, never the former tenant's.
        fence(Release);
        slot.spawned.store(new.spawned, Relaxed);
        slot.poll_end.store(0, Relaxed);
        slot.polls.store(0, Relaxed);
        slot.busy_ns.store(0, Relaxed);
        slot.longest_ns.store(0, Relaxed);
        slot.flags.store(new.flags.0, Relaxed);
        slot.fields.store(new.fields.0 as u16, Relaxed);
        slot.group.store(new.group.0 as u8, Relaxed);
        slot.label_plus1.store(0, Relaxed);
        if new.flags.sees_wakes() {
            self.wakes[index.0 as usize].reset();
        }
        slot.id.store(new.id.0, Release);
        Some(index)
    }

    /// From now on the wakes of the task in `index`, which is in its first poll, are seen.
    pub(crate) fn see_wakes(&self, index: SlotIndex, class: TaskClass, fields: Sid) {
        let Some(slot) = self.slots.get(index.0) else { return };
        let wakes = &self.wakes[index.0 as usize];
        wakes.reset();
        slot.fields.store(fields.0 as u16, Relaxed);
        slot.flags.fetch_or(Flags::default().with_wakes().with_class(class).0, Release);
    }

    /// Tokio says how long the task in `index`, which is in a poll, has waited for it. Where its wakes are seen that is known
    /// already, and nothing is added. The position of its group, else.
    pub(crate) fn add_latency(&self, index: SlotIndex, ns: u64) -> Option<u8> {
        let slot = self.slots.get(index.0)?;
        let (flags, wakes) = (slot.flags(), &self.wakes[index.0 as usize]);
        if flags.sees_wakes() {
            return None;
        }
        if !flags.sees_latency() {
            wakes.reset();
            slot.flags.fetch_or(Flags::LATENCY, Release);
        }
        wakes.add_scheduled(ns);
        Some(slot.group())
    }

    /// Ends the tenancy of `id`. True for one caller only, which then gives the slot back with [`Slots::release`].
    pub(crate) fn retire(&self, index: SlotIndex, id: TaskId) -> bool {
        let slot = self.slots.get(index.0);
        slot.is_some_and(|slot| slot.id.compare_exchange(id.0, 0, AcqRel, Relaxed).is_ok())
    }

    /// Gives a retired slot back.
    pub(crate) fn release(&self, index: SlotIndex) {
        if let Some(slot) = self.slots.get(index.0) {
            self.free.put_back(index.0, |next| slot.next_free.store(next, Relaxed));
        }
    }

    /// A consistent copy, or `None` where the slot is free or changed hands meanwhile.
    #[inline]
    pub(crate) fn view(&self, index: SlotIndex) -> Option<SlotView> {
        let slot = self.slots.get(index.0)?;
        let id = slot.id.load(Acquire);
        // Free, or being filled.
        if id == 0 {
            return None;
        }
        let flags = slot.flags();
        let wakes = || self.wakes[index.0 as usize].view();
        let view = SlotView {
            id: TaskId(id),
            spawned: slot.spawned.load(Relaxed),
            poll_end: slot.poll_end.load(Relaxed),
            polls: slot.polls.load(Relaxed),
            busy_ns: slot.busy_ns.load(Relaxed),
            longest_ns: slot.longest_ns.load(Relaxed),
            group: GroupId(u32::from(slot.group())),
            label: slot.label_plus1.load(Relaxed).checked_sub(1).map(|label| LabelIndex(label.into())),
            fields: Sid(slot.fields.load(Relaxed).into()),
            flags,
            wakes: flags.sees_wakes().then(wakes),
            latency_ns: (flags.sees_latency() && !flags.sees_wakes()).then(|| wakes().scheduled_ns),
            reason: Sid(0),
        };
        fence(Acquire);
        (slot.id.load(Relaxed) == id).then_some(view)
    }

    /// Consistent copies of all live tasks.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = SlotView> {
        (1..self.high_water() as u32).filter_map(|at| self.view(SlotIndex(at)))
    }
}

impl Slot {
    /// A slot in which no task lives.
    #[cfg(not(taskscope_loom))]
    pub(crate) const fn nothing() -> Self {
        Self {
            id: AtomicU64::new(u64::MAX),
            spawned: AtomicU64::new(0),
            poll_end: AtomicU64::new(0),
            polls: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            longest_ns: AtomicU64::new(0),
            flags: AtomicU32::new(0),
            fields: AtomicU16::new(0),
            group: AtomicU8::new(0),
            label_plus1: AtomicU8::new(0),
            next_free: AtomicU32::new(0),
        }
    }

    /// Whether the task `id` lives in it.
    #[inline]
    pub(crate) fn is_of(&self, id: TaskId) -> bool {
        self.id.load(Relaxed) == id.0
    }

    /// Position of its group, below 256.
    #[inline]
    pub(crate) fn group(&self) -> u8 {
        self.group.load(Relaxed)
    }

    pub(crate) fn set_label(&self, label: LabelIndex) {
        self.label_plus1.store(label.0 as u8 + 1, Relaxed);
    }

    pub(crate) fn flags(&self) -> Flags {
        Flags(self.flags.load(Relaxed))
    }

    /// Begun.
    pub(crate) fn polls(&self) -> u64 {
        self.polls.load(Relaxed)
    }

    /// Sets how the task ended. For the thread that polls or drops it.
    pub(crate) fn set_outcome(&self, outcome: Outcome) {
        // Others may mark it at this moment.
        let _ = self.flags.fetch_update(Relaxed, Relaxed, |flags| Some(Flags(flags).with_outcome(outcome).0));
    }

    /// Nobody holds its handle any more.
    pub(crate) fn mark_detached(&self) {
        self.flags.fetch_or(Flags::DETACHED, Relaxed);
    }

    /// A future of the wrapper tells of this task from now on. True: the first one.
    pub(crate) fn mark_attached(&self) -> bool {
        self.flags.fetch_or(Flags::ATTACHED, Relaxed) & Flags::ATTACHED == 0
    }

    /// It was asked to stop, by an abort or otherwise. True: for the first time.
    pub(crate) fn mark_asked(&self, aborted: bool) -> bool {
        let marks = Flags::ASKED | if aborted { Flags::ABORTED } else { 0 };
        self.flags.fetch_or(marks, Relaxed) & Flags::ASKED == 0
    }

    /// Puts it into another group.
    pub(crate) fn set_group(&self, group: GroupId) {
        self.group.store(group.0 as u8, Relaxed);
    }

    /// Counts a poll that begins: exclusive, since Tokio begins the next poll of a task only when the last is over.
    #[inline]
    pub(crate) fn begin_poll(&self) {
        self.polls.store(self.polls.load(Relaxed) + 1, Relaxed);
    }

    /// Adds a finished poll. The task may be in its next one already. True: it was the task's longest, and the caller
    /// says so with [`Slot::raise_longest`].
    #[inline]
    pub(crate) fn end_poll(&self, now: Ticks, duration_ns: u64) -> bool {
        self.busy_ns.fetch_add(duration_ns, Relaxed);
        self.poll_end.store(now, Relaxed);
        duration_ns > self.longest_ns.load(Relaxed)
    }

    pub(crate) fn raise_longest(&self, duration_ns: u64) {
        self.longest_ns.fetch_max(duration_ns, Relaxed);
    }
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use super::*;

    fn claim(slots: &Slots, id: u64) -> Option<SlotIndex> {
        let flags = Flags::new(TaskKind::Wrapped, 3).with_wakes();
        slots.claim(Tenancy { id: TaskId(id), spawned: id, group: GroupId(1), flags, fields: Sid(9) })
    }

    #[test]
    fn a_slot_is_a_cache_line() {
        assert_eq!((size_of::<Slot>(), align_of::<Slot>(), size_of::<Wakes>()), (64, 64, 40));
    }

    #[test]
    fn flags_keep_what_was_put_in() {
        let flags = Flags::new(TaskKind::Main, 30_000)
            .with_wakes()
            .with_class(TaskClass::Critical)
            .with_outcome(Outcome::Panicked);
        assert_eq!(
            (flags.kind(), flags.runtime(), flags.outcome()),
            (TaskKind::Main, 30_000, Outcome::Panicked)
        );
        assert!(flags.sees_wakes() && flags.class() == TaskClass::Critical);
        assert_eq!(Flags::new(TaskKind::Task, 65_537).runtime(), 0, "not the first");
    }

    #[test]
    fn released_slots_are_used_again_and_a_full_arena_refuses() {
        let slots = Slots::with_capacity(3);
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
    fn an_ended_task_survives_the_ring() {
        let slots = Slots::with_capacity(2);
        let index = claim(&slots, 5).expect("there is room");
        let slot = slots.tenant(index, TaskId(5)).expect("it is live");
        slot.begin_poll();
        slot.end_poll(30, 20);
        slot.set_label(LabelIndex(200));
        let view = SlotView { reason: Sid(4000), ..slots.view(index).expect("it is live") };
        let (back, ended) = SlotView::from_ended(view.to_ended(40));
        assert_eq!((back.id, back.polls, back.busy_ns, back.flags, ended), (view.id, 1, 20, view.flags, 40));
        assert_eq!((back.label, back.fields, back.reason), (Some(LabelIndex(200)), Sid(9), Sid(4000)));
    }
}
