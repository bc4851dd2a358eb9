//! A count that many threads change and the probe's thread reads: each thread changes a part that is mostly its own, so that
//! they do not take a cache line from one another.

use super::lines::Line;
use super::sync::{AtomicU64, Relaxed};

const PARTS: usize = 16;

#[repr(align(64))]
#[derive(Debug, Default)]
struct Part(AtomicU64);

#[derive(Debug, Default)]
pub(crate) struct Sharded([Part; PARTS]);

impl Sharded {
    fn part(&self, line: Option<&Line>) -> &AtomicU64 {
        let at = line.map_or(0, |line| std::ptr::from_ref(line).addr() / align_of::<Line>());
        &self.0[at % PARTS].0
    }

    /// `line` is the calling thread's.
    pub(crate) fn add(&self, line: Option<&Line>) {
        self.part(line).fetch_add(1, Relaxed);
    }

    /// Takes back what any thread added.
    pub(crate) fn subtract(&self, line: Option<&Line>) {
        self.part(line).fetch_sub(1, Relaxed);
    }

    /// Never below zero, though its parts are read one after the other.
    pub(crate) fn sum(&self) -> u64 {
        let sum = self.0.iter().fold(0u64, |sum, part| sum.wrapping_add(part.0.load(Relaxed)));
        if sum > u64::MAX / 2 { 0 } else { sum }
    }
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use super::*;
    use crate::registry::lines::Lines;

    #[test]
    fn what_one_thread_adds_another_may_take_back() {
        let lines = Lines::with_capacity(2);
        let (first, second) = (lines.claim(1), lines.claim(2));
        let count = Sharded::default();
        (0..5).for_each(|_| count.add(first));
        (0..3).for_each(|_| count.subtract(second));
        count.add(None);
        assert_eq!(count.sum(), 3);
        (0..9).for_each(|_| count.subtract(None));
        assert_eq!(count.sum(), 0);
    }
}
