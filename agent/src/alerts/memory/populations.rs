//! How many tasks each group of a target had at a time. All groups come together, so that the times, and the ids where they are
//! the same as before, are kept once: a thousand groups over ten minutes are half a megabyte.

use std::collections::VecDeque;
use std::sync::Arc;

use taskscope_proto::v1;

use super::{LONG_NS, S};

/// Of groups not more is remembered than this.
const EVERY_NS: u64 = 10 * S;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Population {
    pub(crate) live: u64,
    /// Since the probe began.
    pub(crate) ended: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Populations {
    samples: VecDeque<Sample>,
    /// Positions among the groups that came last.
    doubled: Vec<usize>,
}

/// Columns, by id.
#[derive(Clone, Debug)]
struct Sample {
    at_ns: u64,
    ids: Arc<[u32]>,
    /// As many as fit.
    live: Box<[u32]>,
    ended: Box<[u64]>,
}

impl Populations {
    /// Groups as they came: all of them.
    pub(super) fn take(&mut self, at_ns: u64, groups: &[v1::Group]) {
        let mut positions: Vec<usize> = (0..groups.len()).collect();
        positions.sort_by_key(|&position| groups[position].id);
        positions.dedup_by_key(|position| groups[*position].id);
        let ids = || positions.iter().map(|&position| groups[position].id);
        let known = self.samples.back().filter(|last| ids().eq(last.ids.iter().copied()));
        let ids: Arc<[u32]> = known.map_or_else(|| ids().collect(), |last| Arc::clone(&last.ids));
        let least = self.least(&ids);
        let has_doubled = |&(&position, least): &(&usize, u32)| {
            let group = &groups[position];
            let before = group.trend.as_ref().map_or(u64::MAX, |trend| trend.live_before);
            group.live > 0 && group.live >= before.min(least.into()).saturating_mul(2)
        };
        let doubled = positions.iter().zip(least).filter(has_doubled);
        self.doubled = doubled.map(|(&position, _)| position).collect();
        if self.samples.back().is_some_and(|last| at_ns < last.at_ns.saturating_add(EVERY_NS)) {
            return;
        }
        let live = positions.iter().map(|&it| u32::try_from(groups[it].live).unwrap_or(u32::MAX)).collect();
        let ended = positions.iter().map(|&it| groups[it].ended_total).collect();
        self.samples.push_back(Sample { at_ns, ids, live, ended });
        // The first one is as old as what is asked for, or older.
        while self.samples.get(1).is_some_and(|second| second.at_ns.saturating_add(LONG_NS) <= at_ns) {
            self.samples.pop_front();
        }
    }

    /// The fewest tasks that each of these groups is known to have had; the most there can be where nothing is known.
    fn least(&self, ids: &Arc<[u32]>) -> Vec<u32> {
        let mut least = vec![u32::MAX; ids.len()];
        for sample in &self.samples {
            if Arc::ptr_eq(&sample.ids, ids) {
                least.iter_mut().zip(&sample.live).for_each(|(least, &live)| *least = live.min(*least));
                continue;
            }
            // Both are sorted.
            let mut theirs = sample.ids.iter().zip(&sample.live).peekable();
            for (id, least) in ids.iter().zip(&mut least) {
                while theirs.next_if(|(other, _)| *other < id).is_some() {}
                if let Some((_, &live)) = theirs.next_if(|(other, _)| *other == id) {
                    *least = live.min(*least);
                }
            }
        }
        least
    }

    /// Of the groups that came last, the positions of those that have at least twice as many tasks as at some time that is
    /// remembered here, or in their trend. No other can have grown to twice its size, whenever that is asked.
    pub(crate) fn doubled(&self) -> &[usize] {
        &self.doubled
    }

    /// As it was when groups were last looked at, at least that long ago; `None`: they were not, or it was not among them.
    pub(crate) fn before(&self, id: u32, at_ns: u64) -> Option<Population> {
        let later = self.samples.partition_point(|sample| sample.at_ns <= at_ns);
        let sample = self.samples.get(later.checked_sub(1)?)?;
        let position = sample.ids.binary_search(&id).ok()?;
        Some(Population { live: sample.live[position].into(), ended: sample.ended[position] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: u32, live: u64, ended_total: u64) -> v1::Group {
        v1::Group { id, live, ended_total, ..Default::default() }
    }

    #[test]
    fn a_group_is_known_as_it_was_whichever_others_came_with_it_and_in_which_order() {
        let mut groups = Populations::default();
        groups.take(10 * S, &[group(7, 70, 700), group(3, 30, 300)]);
        groups.take(15 * S, &[group(7, 99, 999), group(3, 99, 999)]);
        groups.take(20 * S, &[group(3, 31, 301), group(7, 71, 701)]);
        groups.take(30 * S, &[group(9, 90, 900), group(3, 32, 302)]);
        let before = |id, seconds: u64| groups.before(id, seconds * S).map(|it| (it.live, it.ended));
        let seven = [9, 10, 19, 20, 30].map(|seconds| before(7, seconds));
        assert_eq!(seven, [None, Some((70, 700)), Some((70, 700)), Some((71, 701)), None]);
        assert_eq!([before(9, 29), before(9, 31)], [None, Some((90, 900))]);
        assert_eq!([before(3, 25), before(3, 40)], [Some((31, 301)), Some((32, 302))]);
        assert!(Arc::ptr_eq(&groups.samples[0].ids, &groups.samples[1].ids), "ids are kept once");
    }

    #[test]
    fn as_much_is_kept_as_is_asked_for_and_not_more() {
        let mut groups = Populations::default();
        (0..2_000).for_each(|second| groups.take(second * S, &[group(1, second, second)]));
        assert_eq!(groups.samples.len() as u64, LONG_NS / EVERY_NS + 1);
        let before = |seconds: u64| groups.before(1, seconds * S).map(|it| it.live);
        assert_eq!([before(1_389), before(1_399), before(1_999)], [None, Some(1_390), Some(1_990)]);
    }

    #[test]
    fn what_is_too_many_is_as_many_as_fit() {
        let mut groups = Populations::default();
        groups.take(0, &[group(1, u64::MAX, u64::MAX)]);
        assert_eq!(groups.before(1, 0), Some(Population { live: u32::MAX.into(), ended: u64::MAX }));
    }

    #[test]
    fn a_group_has_doubled_since_any_time_that_is_remembered_or_in_its_trend() {
        let mut groups = Populations::default();
        groups.take(0, &[group(1, 50, 0), group(2, 60, 0), group(3, 50, 0)]);
        assert_eq!(groups.doubled(), [0; 0], "none is known from before");
        let trend = |live_before| Some(v1::Trend { live_before, ..Default::default() });
        let four = v1::Group { trend: trend(40), ..group(4, 80, 0) };
        let three = v1::Group { trend: trend(99), ..group(3, 99, 0) };
        groups.take(20 * S, &[four, group(2, 100, 0), group(1, 100, 0), three]);
        assert_eq!(groups.doubled(), [2, 0]);
        // Nobody has come or gone.
        groups.take(21 * S, &[group(1, 99, 0), group(2, 120, 0), group(3, 99, 0), group(4, 80, 0)]);
        assert_eq!(groups.doubled(), [1]);
        // It was few for a moment only, and the others have gone.
        groups.take(300 * S, &[group(2, 10, 0)]);
        groups.take(310 * S, &[group(2, 60, 0), group(5, 0, 0)]);
        assert_eq!(groups.doubled(), [0]);
    }
}
