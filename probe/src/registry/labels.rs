//! What polls are doing for whom: one entry a label, up to [`CAP`]; later ones count in `other`.

use taskscope_proto::ids::Sid;

use super::sync::{AcqRel, Acquire, AtomicU32, AtomicU64, Relaxed, zeroed};
use super::unsorted::Unsorted;

/// Entry 0 is `other`.
const CAP: usize = 201;
const TABLE: usize = 512;
const PROBES: usize = 32;
pub(crate) const BYTES: usize = CAP * size_of::<Label>() + TABLE * 8;

/// Position of a label in the table; 0 is `other`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LabelIndex(pub(crate) u32);

#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
pub(crate) struct Label {
    sid: AtomicU32,
    /// Requests that the layer saw begin, plus one from its first on; 0: no layer ever used it.
    requests_plus1: AtomicU64,
    pub(crate) unsorted: Unsorted,
}

pub(crate) struct Labels {
    entries: &'static [Label],
    used: AtomicU32,
    /// Text id and position plus one; zero is free.
    table: &'static [AtomicU64],
}

impl Labels {
    pub(crate) fn new() -> Self {
        Self { entries: zeroed(CAP), used: AtomicU32::new(1), table: zeroed(TABLE) }
    }

    /// The entry of the text `sid`; `None` (count it) where the labels are full.
    pub(crate) fn find(&self, sid: Sid) -> Option<LabelIndex> {
        for step in 0..PROBES {
            let cell = &self.table[(sid.0 as usize).wrapping_mul(0x9e37_79b1).wrapping_add(step) % TABLE];
            let word = cell.load(Acquire);
            if word >> 32 == u64::from(sid.0) && word != 0 {
                return Some(LabelIndex(word as u32 - 1));
            }
            if word == 0 {
                let room = |used: u32| ((used as usize) < CAP).then_some(used + 1);
                let position = self.used.fetch_update(Relaxed, Relaxed, room).ok()?;
                self.entries[position as usize].sid.store(sid.0, Relaxed);
                let fresh = u64::from(sid.0) << 32 | u64::from(position + 1);
                match cell.compare_exchange(0, fresh, AcqRel, Acquire) {
                    Ok(_) => return Some(LabelIndex(position)),
                    // Another thread was first. Its entry may be ours; the position taken here stays unused.
                    Err(other) if other >> 32 == u64::from(sid.0) => {
                        self.entries[position as usize].sid.store(0, Relaxed);
                        return Some(LabelIndex(other as u32 - 1));
                    }
                    Err(_) => self.entries[position as usize].sid.store(0, Relaxed),
                }
            }
        }
        None
    }

    /// Whether no other label gets an entry: the text of a new one need not be stored.
    pub(crate) fn is_full(&self) -> bool {
        self.used.load(Relaxed) as usize >= CAP
    }

    #[inline]
    pub(crate) fn entry(&self, index: LabelIndex) -> &Label {
        &self.entries[(index.0 as usize).min(CAP - 1)]
    }

    /// All entries in use, `other` first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LabelIndex, &Label)> {
        let used = self.used.load(Acquire) as usize;
        self.entries[..used.min(CAP)].iter().enumerate().map(|(at, label)| (LabelIndex(at as u32), label))
    }
}

impl Label {
    pub(crate) fn sid(&self) -> Sid {
        Sid(self.sid.load(Relaxed))
    }

    #[cfg_attr(not(feature = "axum"), allow(dead_code, reason = "only layers count requests"))]
    pub(crate) fn add_request(&self) {
        if self.requests_plus1.load(Relaxed) == 0 {
            let _ = self.requests_plus1.compare_exchange(0, 1, Relaxed, Relaxed);
        }
        self.requests_plus1.fetch_add(1, Relaxed);
    }

    pub(crate) fn requests(&self) -> Option<u64> {
        self.requests_plus1.load(Relaxed).checked_sub(1)
    }
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_one_entry_and_the_last_ones_have_none() {
        let labels = Labels::new();
        let first = labels.find(Sid(9)).expect("there is room");
        assert_eq!((labels.find(Sid(9)), labels.entry(first).sid()), (Some(first), Sid(9)));
        let full = (100..400).filter(|&n| labels.find(Sid(n)).is_none()).count();
        assert_eq!(full, 300 - (CAP - 2));
        assert_eq!(labels.iter().count(), CAP);
    }

    #[test]
    fn requests_are_absent_until_a_layer_counts_one() {
        let labels = Labels::new();
        let label = labels.entry(labels.find(Sid(1)).expect("there is room"));
        assert_eq!(label.requests(), None);
        label.add_request();
        label.add_request();
        assert_eq!(label.requests(), Some(2));
    }
}
