//! An instant and low bits of a task's id in one word, so that a reader can tell whether the two belong together.

use taskscope_proto::ids::TaskId;

use crate::clock::Ticks;

const TAG_BITS: u32 = 12;
const TAG: u64 = (1 << TAG_BITS) - 1;

/// `ticks` modulo 2⁵² (17 days of a 3 GHz counter) and the low bits of `id`. Never 0.
#[inline]
pub(crate) fn stamp(ticks: Ticks, id: TaskId) -> u64 {
    (ticks << TAG_BITS | id.0 & TAG).max(1)
}

/// Whether `word` was made with `id`.
pub(crate) fn is_of(word: u64, id: TaskId) -> bool {
    word != 0 && (word ^ id.0) & TAG == 0
}

/// Ticks from the instant in `word` to `now`; 0 where the counters of two cores disagree.
#[inline]
pub(crate) fn elapsed(word: u64, now: Ticks) -> Ticks {
    let shifted = (now << TAG_BITS).wrapping_sub(word & !TAG);
    if shifted > u64::MAX / 2 { 0 } else { shifted >> TAG_BITS }
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_instant_comes_back_to_the_tick(start: u64, id: u64, length in 0u64..1 << 50) {
            let start = start >> 2;
            let word = stamp(start, TaskId(id));
            prop_assume!(word != 1);
            prop_assert!(is_of(word, TaskId(id)));
            prop_assert_eq!(elapsed(word, start + length), length);
        }
    }

    #[test]
    fn another_id_and_an_earlier_now_are_told() {
        let word = stamp(1000, TaskId(7));
        assert!(!is_of(word, TaskId(8)) && !is_of(0, TaskId(0)));
        assert_eq!(elapsed(word, 990), 0);
    }
}
