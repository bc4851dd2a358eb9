//! From task id to slot: bounded and set-associative. A full set means that the task is not followed. Nothing here rests
//! on ids being sequential; that they usually are only spreads them well.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use bytemuck::allocation::zeroed_slice_box;
use taskscope_proto::ids::TaskId;

const WAYS: usize = 8;
const SLOT_BITS: u32 = 22;
const ID_MASK: u64 = (1 << (64 - SLOT_BITS)) - 1;
/// The index is kept at most half full.
pub(crate) const BYTES_PER_SLOT: usize = 32;

/// One cache line of entries: 42 bits of id, 22 of slot plus one. Zero is free.
#[derive(bytemuck::Zeroable)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

pub(crate) struct Index {
    sets: Box<[Set]>,
    shift: u32,
}

impl Index {
    pub(crate) fn for_slots(slots: usize) -> Self {
        let sets = (slots * 2 / WAYS).next_power_of_two().max(2);
        Self { sets: zeroed_slice_box(sets), shift: 64 - sets.trailing_zeros() }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.sets.len() * size_of::<Set>()
    }

    #[inline]
    fn set(&self, id: TaskId) -> &[AtomicU64; WAYS] {
        &self.sets[(id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize].0
    }

    fn entry(id: TaskId, slot: u32) -> u64 {
        (id.0 & ID_MASK) << SLOT_BITS | u64::from(slot + 1)
    }

    /// Whether there was room.
    pub(crate) fn insert(&self, id: TaskId, slot: u32) -> bool {
        let fresh = Self::entry(id, slot);
        self.set(id)
            .iter()
            .any(|way| way.load(Relaxed) == 0 && way.compare_exchange(0, fresh, AcqRel, Relaxed).is_ok())
    }

    /// The slot of `id`. Its caller checks the id in the slot, since 42 bits are not the whole of it.
    #[inline]
    pub(crate) fn find(&self, id: TaskId) -> Option<u32> {
        self.set(id).iter().find_map(|way| {
            let entry = way.load(Acquire);
            (entry != 0 && entry >> SLOT_BITS == id.0 & ID_MASK)
                .then(|| (entry as u32 & ((1 << SLOT_BITS) - 1)) - 1)
        })
    }

    pub(crate) fn remove(&self, id: TaskId, slot: u32) {
        let old = Self::entry(id, slot);
        if let Some(way) = self.set(id).iter().find(|way| way.load(Relaxed) == old) {
            way.store(0, Release);
        }
    }
}

#[cfg(test)]
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
}
