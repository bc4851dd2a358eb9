//! How often a target may be asked for evidence. Told the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::fleet::MemberId;

const WITHIN: Duration = Duration::from_secs(60);
/// Of one target, within that time.
const OF_ONE: usize = 6;
/// Of all.
const OF_ALL: usize = 30;

#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Oldest first.
    taken: VecDeque<(Instant, MemberId)>,
}

impl Turns {
    /// Whether this target may be asked once more; then it counts as asked.
    pub(super) fn take(&mut self, member: MemberId, now: Instant) -> bool {
        while self.taken.front().is_some_and(|(at, _)| now >= *at + WITHIN) {
            self.taken.pop_front();
        }
        let of_one = self.taken.iter().filter(|(_, it)| *it == member).count();
        let may = of_one < OF_ONE && self.taken.len() < OF_ALL;
        if may {
            self.taken.push_back((now, member));
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::fixture::member;

    #[test]
    fn a_storm_at_one_target_leaves_turns_to_others_and_passes() {
        let mut turns = Turns::default();
        let start = tokio::time::Instant::now().into_std();
        let after = |seconds| start + Duration::from_secs(seconds);
        let taken = |turns: &mut Turns, id, at| (0..100).filter(|_| turns.take(member(id), at)).count();
        assert_eq!(taken(&mut turns, 1, after(0)), OF_ONE);
        assert_eq!(taken(&mut turns, 2, after(10)), OF_ONE);
        let others: usize = (3..100).map(|id| taken(&mut turns, id, after(20))).sum();
        assert_eq!(others, OF_ALL - 2 * OF_ONE);
        assert_eq!(taken(&mut turns, 1, after(59)), 0);
        assert_eq!(taken(&mut turns, 1, after(60)), OF_ONE, "the first ones are a minute ago");
    }
}
