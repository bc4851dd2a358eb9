//! From task id to slot: bounded and set-associative. Ids that follow one another share a set and each has a place of its
//! own in it, so that the first look usually hits and live tasks of one age lie close together; a full set spills into
//! six others, chosen by a hash. (Two were too few: where a burst of tasks fills sets and old tasks live on among them,
//! some tasks in a million found all three full.) When those are full, too, the task is not followed. Nothing here is
//! wrong where ids are not sequential, only slower.
//!
//! An entry is only the position of a slot: whether that is the right one, the id in the slot says.

use taskscope_proto::ids::TaskId;

use super::arena::{Arena, Position, SharedPosition};
use super::slots::{Slot, SlotIndex, Slots};
use super::sync::{Acquire, Relaxed, Release};

#[cfg(not(taskscope_loom))]
const WAYS: usize = 8;
#[cfg(taskscope_loom)]
const WAYS: usize = 2;
/// Sets that take what a home set has no room for.
#[cfg(not(taskscope_loom))]
const OTHERS: u64 = 6;
#[cfg(taskscope_loom)]
const OTHERS: u64 = 2;
/// Reserved at most for each slot: entries are 1.25 times the slots, rounded up to a power of two.
pub(crate) const BYTES_PER_SLOT: usize = 10;

pub(crate) struct Index {
    /// Positions of slots; the first is "none", for no task lives in the first slot. Sets of [`WAYS`] that follow one another.
    entries: Arena<SharedPosition>,
    slots: Arena<Slot>,
}

impl Index {
    pub(crate) fn of(slots: &Slots) -> Self {
        let slots = slots.all();
        let entries = (slots.len() + slots.len() / 4).next_power_of_two().max(WAYS);
        Self { entries: Arena::of(entries), slots }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.entries.bytes()
    }

    /// The places where `id` may be, the likeliest first: in its home set, then in six that take what that has no room
    /// for. Ids whose homes are one scatter over many there.
    fn places(&self, id: TaskId) -> impl Iterator<Item = &'static SharedPosition> + use<> {
        let entries = self.entries;
        let from = id.0 as usize;
        let home = id.0 / WAYS as u64 + 1;
        // Independent of one another: a burst of tasks fills sets that lie side by side.
        let others = (0..OTHERS).map(move |n| {
            let hash = (home.wrapping_add(n << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            ((hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as usize
        });
        std::iter::once(from).chain(others).flat_map(move |set| {
            (0..WAYS).map(move |way| entries.at_masked((set & !(WAYS - 1)) + (from + way) % WAYS))
        })
    }

    fn none(&self) -> Option<Position> {
        self.slots.position(0)
    }

    /// Whether there was room.
    pub(crate) fn insert(&self, id: TaskId, slot: SlotIndex) -> bool {
        let Some((none, slot)) = self.none().zip(self.slots.position(slot.0)) else { return false };
        self.places(id).any(|place| place.load(Relaxed) == none && place.change(none, slot))
    }

    /// The slot in which `id` lives, if it is where it is looked for first.
    #[inline]
    pub(crate) fn find_first(&self, id: TaskId) -> Option<(SlotIndex, &'static Slot)> {
        let position = self.entries.at_masked(id.0 as usize).load(Acquire);
        let slot = self.slots.at(position);
        slot.is_of(id).then_some((SlotIndex(position.number()), slot))
    }

    /// The slot in which `id` lives.
    pub(crate) fn find(&self, id: TaskId) -> Option<(SlotIndex, &'static Slot)> {
        self.places(id).find_map(|place| {
            let position = place.load(Acquire);
            let slot = self.slots.at(position);
            slot.is_of(id).then_some((SlotIndex(position.number()), slot))
        })
    }

    /// Forgets `id`, which lives in `slot` until the caller gives that back.
    pub(crate) fn remove(&self, id: TaskId, slot: SlotIndex) {
        let Some((none, slot)) = self.none().zip(self.slots.position(slot.0)) else { return };
        if let Some(place) = self.places(id).find(|place| place.load(Relaxed) == slot) {
            place.store(none, Release);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let none = self.none();
        (0..self.entries.len()).all(|at| Some(self.entries.at_masked(at).load(Relaxed)) == none)
    }
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use taskscope_proto::ids::{GroupId, Sid};
    use taskscope_proto::v1::TaskKind;

    use super::*;
    use crate::registry::slots::{Flags, Tenancy};

    fn new(capacity: usize) -> (Index, Slots) {
        let slots = Slots::with_capacity(capacity);
        (Index::of(&slots), slots)
    }

    fn follow(index: &Index, slots: &Slots, id: u64) -> bool {
        let id = TaskId(id);
        let flags = Flags::new(TaskKind::Task, 1);
        let slot = slots.claim(Tenancy { id, spawned: 1, group: GroupId(0), flags, fields: Sid(0) });
        slot.is_some_and(|slot| index.insert(id, slot))
    }

    #[test]
    fn an_id_is_found_until_it_is_removed() {
        let (index, slots) = new(1000);
        assert!(follow(&index, &slots, 7));
        let (slot, _) = index.find(TaskId(7)).expect("it is followed");
        assert!(index.find(TaskId(8)).is_none());
        index.remove(TaskId(7), slot);
        assert!(index.find(TaskId(7)).is_none());
    }

    #[test]
    fn full_sets_refuse_instead_of_evicting() {
        let slots = Slots::with_capacity(101);
        let index = Index::of(&Slots::with_capacity(8));
        let index = Index { slots: slots.all(), ..index };
        let taken = (1..=100).filter(|&id| follow(&index, &slots, id)).count();
        assert_eq!(taken, 16, "all of the one table of 16 entries");
        assert_eq!((1..=100).filter(|&id| index.find(TaskId(id)).is_some()).count(), 16);
    }

    #[test]
    fn ids_that_follow_one_another_lie_in_as_many_places_as_they_are() {
        let (index, slots) = new((1 << 16) + 1);
        let first = 123_456_789;
        assert!((0..1 << 16).all(|n| follow(&index, &slots, first + n)));
        let none = index.none().expect("there are slots");
        let is_used =
            |set: &usize| (0..WAYS).any(|way| index.entries.at_masked(set + way).load(Relaxed) != none);
        let used = (0..index.entries.len()).step_by(WAYS).filter(is_used).count();
        assert!(used <= (1 << 16) / WAYS + 1, "{used}");
        assert!((0..1 << 16).all(|n| index.find_first(TaskId(first + n)).is_some()));
    }

    #[test]
    fn bursts_find_room_among_the_survivors_of_former_ones() {
        const BURST: u64 = 5_000;
        const SURVIVORS: u64 = 5_000;
        let (index, slots) = new(100_000);
        let mut alive = std::collections::VecDeque::new();
        for first in (1..2_000_000).step_by(BURST as usize) {
            assert!((first..first + BURST).all(|id| follow(&index, &slots, id)), "burst {first}");
            alive.extend(first..first + BURST);
            // The burst before this one ends, but for one task of each hundred; of those the oldest end.
            alive.retain(|&id| {
                let stays = id >= first || id % 100 == 0 && id + SURVIVORS * 100 > first;
                if !stays {
                    let (slot, _) = index.find(TaskId(id)).expect("it is followed");
                    index.remove(TaskId(id), slot);
                    assert!(slots.retire(slot, TaskId(id)));
                    slots.release(slot);
                }
                stays
            });
        }
    }

    #[test]
    fn survivors_scattered_among_millions_find_room_whatever_their_stride() {
        for stride in [1000, 1024, 4096, 1 << 16, (1 << 16) + 1, 999_983] {
            let (index, slots) = new(40_000);
            let ids = || (0..10_000u64).map(|n| 1 + n * stride);
            assert_eq!(ids().filter(|&id| follow(&index, &slots, id)).count(), 10_000, "stride {stride}");
            assert!(ids().all(|id| index.find(TaskId(id)).is_some()));
        }
    }
}
