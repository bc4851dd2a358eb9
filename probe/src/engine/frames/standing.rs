//! Standing queries: which tasks match one now, since when without a break, and what of it is news.

use std::collections::HashMap;

use taskscope_proto::v1;

use super::ask::Standing;

/// Tasks whose match of one query is timed; more are only counted.
const MAX_TIMED: usize = 1_000;
const MAX_NAMED: usize = 100;
const DEFAULT_NAMED: usize = 10;

/// Tasks that match one query.
#[derive(Default)]
pub(super) struct Matches {
    /// Since when, ns.
    since_ns: HashMap<u64, u64>,
    /// Past [`MAX_TIMED`].
    untimed: u64,
}

impl Matches {
    /// A task matches at `now_ns`; `before` is what matched at the last walk.
    pub(super) fn add(&mut self, task: u64, now_ns: u64, before: Option<&Self>) {
        if self.since_ns.len() < MAX_TIMED {
            let since_ns = before.and_then(|before| before.since_ns.get(&task)).copied().unwrap_or(now_ns);
            self.since_ns.insert(task, since_ns);
        } else {
            self.untimed += 1;
        }
    }

    /// The tasks that have matched long enough; the ids that matched longest are named.
    pub(super) fn finding(&self, query: &v1::StandingQuery, now_ns: u64) -> v1::StandingFinding {
        let mut due: Vec<(u64, u64)> = self
            .since_ns
            .iter()
            .filter(|&(_, &since_ns)| now_ns.saturating_sub(since_ns) >= query.for_ns)
            .map(|(&task, &since_ns)| (since_ns, task))
            .collect();
        due.sort_unstable();
        // Of those that are only counted it is not known since when they match.
        let untimed = if query.for_ns == 0 { self.untimed } else { 0 };
        let named = if query.limit == 0 { DEFAULT_NAMED } else { (query.limit as usize).min(MAX_NAMED) };
        v1::StandingFinding {
            query_id: query.query_id,
            matching: due.len() as u64 + untimed,
            task_ids: due.iter().take(named).map(|&(_, task)| task).collect(),
        }
    }
}

/// What one watcher's queries have found so far.
#[derive(Default)]
pub(super) struct Found {
    /// By query.
    matching: HashMap<u64, Matches>,
    /// By query: the ids that the watcher has been told.
    told: HashMap<u64, Vec<u64>>,
    waiting: Vec<v1::StandingFinding>,
}

impl Found {
    pub(super) fn matches(&self, query_id: u64) -> Option<&Matches> {
        self.matching.get(&query_id)
    }

    /// What has matched goes on matching only under the same words.
    pub(super) fn replace(&mut self, before: &[Standing], after: &[Standing]) {
        let words = |all: &[Standing], id: u64| {
            all.iter().find(|standing| standing.query.query_id == id).map(|it| it.query.filter.clone())
        };
        let stands = |id: u64| words(before, id) == words(after, id);
        self.matching.retain(|&id, _| stands(id));
        self.waiting.retain(|finding| stands(finding.query_id));
    }

    /// The other end has forgotten what it was told.
    pub(super) fn resync(&mut self) {
        self.told.clear();
    }

    /// Takes in what a walk found, in the order of the queries.
    pub(super) fn take(&mut self, standing: &[Standing], matches: Vec<Matches>, now_ns: u64) {
        self.waiting =
            standing.iter().zip(&matches).map(|(it, found)| found.finding(&it.query, now_ns)).collect();
        self.matching = standing.iter().map(|it| it.query.query_id).zip(matches).collect();
    }

    /// The findings whose named ids the watcher does not know.
    pub(super) fn news(&mut self) -> Vec<v1::StandingFinding> {
        let mut fresh = Vec::new();
        for finding in &self.waiting {
            let before = self.told.get(&finding.query_id);
            let same = before.is_some_and(|ids| *ids == finding.task_ids);
            if same || before.is_none() && finding.task_ids.is_empty() {
                continue;
            }
            self.told.insert(finding.query_id, finding.task_ids.clone());
            fresh.push(finding.clone());
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn query(for_ns: u64) -> v1::StandingQuery {
        v1::StandingQuery { query_id: 1, for_ns, limit: 2, ..v1::StandingQuery::default() }
    }

    #[test]
    fn only_a_match_without_a_break_counts_and_the_longest_are_named() {
        let mut first = Matches::default();
        [7, 8].into_iter().for_each(|task| first.add(task, S, None));
        let mut second = Matches::default();
        [9, 8].into_iter().for_each(|task| second.add(task, 5 * S, Some(&first)));
        let mut third = Matches::default();
        [7, 8, 9].into_iter().for_each(|task| third.add(task, 6 * S, Some(&second)));
        let finding = third.finding(&query(S), 6 * S);
        assert_eq!((finding.matching, finding.task_ids), (2, vec![8, 9]));
        assert_eq!(third.finding(&query(u64::MAX), 6 * S).matching, 0);
    }

    #[test]
    fn memory_is_bounded_however_many_match() {
        let mut matches = Matches::default();
        (0..50_000).for_each(|task| matches.add(task, 0, None));
        assert_eq!((matches.since_ns.len(), matches.finding(&query(0), 0).matching), (MAX_TIMED, 50_000));
    }

    #[test]
    fn what_was_found_under_other_words_is_not_told_of_the_query_that_has_its_id_now() {
        let standing = |id, words: &str| Standing {
            query: v1::StandingQuery { query_id: id, filter: words.into(), ..query(0) },
            filter: taskscope_proto::filter::Parts::default(),
        };
        let before = [standing(1, "state=idle"), standing(2, "state=running")];
        let after = [standing(1, "wakers=0"), standing(2, "state=running")];
        let mut found = Found::default();
        let matches = [4, 5].map(|task| {
            let mut matches = Matches::default();
            matches.add(task, 0, None);
            matches
        });
        found.take(&before, matches.into(), 0);
        found.replace(&before, &after);
        found.resync();
        let told: Vec<(u64, Vec<u64>)> =
            found.news().into_iter().map(|finding| (finding.query_id, finding.task_ids)).collect();
        assert_eq!(told, [(2, vec![5])]);
        // And what is found in the new words is told, though it is the same task.
        let mut matches = Matches::default();
        matches.add(4, 0, found.matches(1));
        found.take(&after[..1], vec![matches], 0);
        assert_eq!(found.news().first().map(|finding| finding.task_ids.clone()), Some(vec![4]));
    }

    #[test]
    fn a_finding_is_told_once_and_its_end_too() {
        let filter = taskscope_proto::filter::Parts::default();
        let standing = [Standing { query: query(0), filter }];
        let walk = |found: &mut Found, tasks: &[u64]| {
            let mut matches = Matches::default();
            tasks.iter().for_each(|&task| matches.add(task, 0, None));
            found.take(&standing, vec![matches], 0);
            found.news().into_iter().map(|finding| finding.task_ids).collect::<Vec<_>>()
        };
        let mut found = Found::default();
        assert!(walk(&mut found, &[]).is_empty(), "it never matched anything");
        assert_eq!(walk(&mut found, &[4]), [vec![4]]);
        assert!(walk(&mut found, &[4]).is_empty());
        assert_eq!(walk(&mut found, &[]), [Vec::<u64>::new()]);
        found.resync();
        assert_eq!(walk(&mut found, &[4]), [vec![4]]);
    }
}
