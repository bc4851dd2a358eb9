//! From task id to slot: bounded and set-associative. Ids that follow one another share a set and each has a place of its
//! own in it, so that the first look usually hits and live tasks of one age lie close together; a full set spills into
//! two others, chosen by a hash. When those are full, too, the task is not followed. Nothing here is wrong where ids are
//! not sequential, only slower.

use taskscope_proto::ids::TaskId;

use super::sync::{AcqRel, Acquire, AtomicU64, Relaxed, Release, zeroed};

const WAYS: usize = 8;
const SLOT_BITS: u32 = 22;
const ID_MASK: u64 = (1 << (64 - SLOT_BITS)) - 1;
/// Reserved at most for each slot: entries are 1.25 times the slots, rounded up to a power of two.
pub(crate) const BYTES_PER_SLOT: usize = 20;

/// One cache line of entries: 42 bits of id, 22 of slot plus one. Zero is free.
#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

pub(crate) struct Index {
    sets: &'static [Set],
}

impl Index {
    pub(crate) fn for_slots(slots: usize) -> Self {
        let entries = (slots + slots / 4).next_power_of_two();
        Self { sets: zeroed((entries / WAYS).max(1)) }
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.sets)
    }

    fn entry(id: TaskId, slot: u32) -> u64 {
        (id.0 & ID_MASK) << SLOT_BITS | u64::from(slot + 1)
    }

    /// The set where `id` is looked for first.
    #[inline]
    fn home(&self, id: TaskId) -> &'static [AtomicU64; WAYS] {
        &self.sets[(id.0 as usize / WAYS) & (self.sets.len() - 1)].0
    }

    /// The sets that take what the home set has no room for. Ids whose homes are one scatter over many.
    fn spill(&self, id: TaskId) -> [&'static [AtomicU64; WAYS]; 2] {
        let hash = (id.0 / WAYS as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = (hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        [hash >> 40, hash >> 16].map(|part| &self.sets[part as usize & (self.sets.len() - 1)].0)
    }

    /// The places where `id` may be, the likeliest first.
    fn places(&self, id: TaskId) -> impl Iterator<Item = &'static AtomicU64> + use<> {
        let from = id.0 as usize;
        let [first, second] = self.spill(id);
        [self.home(id), first, second]
            .into_iter()
            .flat_map(move |set| (0..WAYS).map(move |way| &set[(from + way) % WAYS]))
    }

    /// Whether there was room.
    pub(crate) fn insert(&self, id: TaskId, slot: u32) -> bool {
        let fresh = Self::entry(id, slot);
        self.places(id).any(|place| {
            place.load(Relaxed) == 0 && place.compare_exchange(0, fresh, AcqRel, Relaxed).is_ok()
        })
    }

    /// The slot of `id`. Its caller checks the id in the slot, since 42 bits are not the whole of it.
    #[inline]
    pub(crate) fn find(&self, id: TaskId) -> Option<u32> {
        let likeliest = self.home(id)[id.0 as usize % WAYS].load(Acquire);
        if Self::is_of(likeliest, id) { Some(Self::slot(likeliest)) } else { self.search(id) }
    }

    #[cold]
    fn search(&self, id: TaskId) -> Option<u32> {
        let entry = self.places(id).map(|place| place.load(Acquire)).find(|&entry| Self::is_of(entry, id))?;
        Some(Self::slot(entry))
    }

    #[inline]
    fn is_of(entry: u64, id: TaskId) -> bool {
        // The lower bits of an entry are never zero, so that a free one is of no id, not even of 0.
        entry != 0 && entry >> SLOT_BITS == id.0 & ID_MASK
    }

    #[inline]
    fn slot(entry: u64) -> u32 {
        (entry as u32 & ((1 << SLOT_BITS) - 1)) - 1
    }

    pub(crate) fn remove(&self, id: TaskId, slot: u32) {
        let old = Self::entry(id, slot);
        if let Some(place) = self.places(id).find(|place| place.load(Relaxed) == old) {
            place.store(0, Release);
        }
    }
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_until_it_is_removed() {
        let index = Index::for_slots(1000);
        assert!(index.insert(TaskId(7), 3));
        assert_eq!((index.find(TaskId(7)), index.find(TaskId(8))), (Some(3), None));
        index.remove(TaskId(7), 3);
        assert_eq!(index.find(TaskId(7)), None);
    }

    #[test]
    fn a_full_set_refuses_instead_of_evicting() {
        let index = Index::for_slots(8);
        let taken = (0..100).filter(|&n| index.insert(TaskId(n + 1), n as u32)).count();
        assert_eq!(taken, 16);
        let found = (0..100).filter(|&n| index.find(TaskId(n + 1)) == Some(n as u32)).count();
        assert_eq!(found, 16);
    }

    #[test]
    fn ids_that_follow_one_another_lie_in_as_many_places_as_they_are() {
        let index = Index::for_slots(1 << 16);
        let first = 123_456_789;
        assert!((0..1 << 16).all(|n| index.insert(TaskId(first + n), n as u32)));
        let used = index.sets.iter().filter(|set| set.0.iter().any(|way| way.load(Relaxed) != 0)).count();
        assert!(used <= (1 << 16) / WAYS + 1, "{used}");
    }

    #[test]
    fn survivors_scattered_among_millions_find_room_whatever_their_stride() {
        for stride in [1000, 1024, 4096, 1 << 16, (1 << 16) + 1, 999_983] {
            let index = Index::for_slots(20_000);
            let kept = (0..10_000u64).filter(|n| index.insert(TaskId(1 + n * stride), *n as u32)).count();
            assert_eq!(kept, 10_000, "stride {stride}");
            assert!((0..10_000u64).all(|n| index.find(TaskId(1 + n * stride)) == Some(n as u32)));
        }
    }
}
