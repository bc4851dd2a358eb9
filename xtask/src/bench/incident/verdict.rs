//! Holds what a tool points at against the truth. Told the time; reads nothing.

use std::time::Duration;

use super::fault::Guilty;
use super::place::{Place, distinct};

/// What came of one run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It pointed at the guilty line.
    Right {
        after: Duration,
        keystrokes: usize,
        /// Other lines that it pointed at in the same answer: what a person still has to choose from.
        beside: usize,
    },
    /// It pointed at these, and never at the guilty one.
    Wrong { places: Vec<Place> },
    /// It pointed at no line of the service's own code.
    Never,
}

/// Of one run.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    guilty: &'a Guilty,
    seen: Vec<Place>,
    /// When the guilty line was there first, and after how many keystrokes.
    first: Option<(Duration, usize)>,
    /// With the lines of the answer as far as it was seen.
    right: Option<Verdict>,
}

impl<'a> Judge<'a> {
    pub(crate) fn of(guilty: &'a Guilty) -> Self {
        Self { guilty, seen: Vec::new(), first: None, right: None }
    }

    /// Takes what the tool points at now, after so many keystrokes. `whole`: it has said all of its answer. A verdict once
    /// it is right; the time is that of the first look with the guilty line, the other lines are those of the whole answer.
    pub(crate) fn look(
        &mut self,
        pointed_at: Vec<Place>,
        after: Duration,
        keystrokes: usize,
        whole: bool,
    ) -> Option<Verdict> {
        let pointed_at = distinct(pointed_at);
        let beside = pointed_at.iter().filter(|place| !self.guilty.is_at(place)).count();
        if beside < pointed_at.len() {
            let (after, keystrokes) = *self.first.get_or_insert((after, keystrokes));
            self.right = Some(Verdict::Right { after, keystrokes, beside });
            return self.right.clone().filter(|_| whole);
        }
        self.seen = distinct(self.seen.drain(..).chain(pointed_at));
        None
    }

    /// Whether the guilty line was there; nothing more is pressed then.
    pub(crate) fn is_right(&self) -> bool {
        self.right.is_some()
    }

    /// When the time is up.
    pub(crate) fn end(self) -> Verdict {
        match self.right {
            Some(right) => right,
            None if self.seen.is_empty() => Verdict::Never,
            None => Verdict::Wrong { places: self.seen },
        }
    }
}

/// All runs of one tool at one fault.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Runs(Vec<Verdict>);

/// The middle one of the runs that were right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Middle {
    pub(crate) after: Duration,
    pub(crate) slowest: Duration,
    pub(crate) keystrokes: usize,
    pub(crate) beside: usize,
}

impl Runs {
    pub(crate) fn push(&mut self, verdict: Verdict) {
        self.0.push(verdict);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn right(&self) -> usize {
        self.0.iter().filter(|verdict| matches!(verdict, Verdict::Right { .. })).count()
    }

    /// By time; of an even number the slower one. `None` unless every run was right.
    pub(crate) fn middle(&self) -> Option<Middle> {
        let mut right: Vec<(Duration, usize, usize)> = self
            .0
            .iter()
            .map(|verdict| match verdict {
                Verdict::Right { after, keystrokes, beside } => Some((*after, *keystrokes, *beside)),
                Verdict::Wrong { .. } | Verdict::Never => None,
            })
            .collect::<Option<_>>()?;
        right.sort_unstable();
        let &(slowest, ..) = right.last()?;
        let (after, keystrokes, beside) = right[right.len() / 2];
        Some(Middle { after, slowest, keystrokes, beside })
    }

    /// Of the runs that were not right: what they pointed at instead, nothing if they pointed at nothing.
    pub(crate) fn instead(&self) -> Vec<Place> {
        distinct(self.0.iter().flat_map(|verdict| match verdict {
            Verdict::Wrong { places } => places.clone(),
            Verdict::Right { .. } | Verdict::Never => Vec::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::incident::fault::Fault;
    use crate::bench::incident::place::places;

    const SECOND: Duration = Duration::from_secs(1);

    fn guilty() -> (Guilty, String) {
        let guilty = Guilty::of(Fault::StuckPoll, &crate::root()).expect("it is in the source");
        let words = guilty.words();
        (guilty, words)
    }

    #[test]
    fn it_is_right_with_the_first_look_that_has_the_guilty_line() {
        let (guilty, line) = guilty();
        let mut judge = Judge::of(&guilty);
        assert_eq!(judge.look(Vec::new(), SECOND, 19, true), None);
        assert_eq!(judge.look(places("demo/src/work.rs:14"), 2 * SECOND, 21, true), None);
        assert!(!judge.is_right());
        let text = format!("{line} demo/src/api.rs:87 {line}");
        assert_eq!(judge.look(places(&text), 3 * SECOND, 23, false), None);
        assert!(judge.is_right());
        let text = format!("{text} demo/src/load.rs:84");
        let right = Verdict::Right { after: 3 * SECOND, keystrokes: 23, beside: 2 };
        assert_eq!(judge.look(places(&text), 9 * SECOND, 23, true), Some(right.clone()));
        assert_eq!(judge.end(), right);
    }

    #[test]
    fn another_line_is_wrong_and_no_line_is_never() {
        let (guilty, _) = guilty();
        assert_eq!(Judge::of(&guilty).end(), Verdict::Never);
        let mut judge = Judge::of(&guilty);
        for _ in 0..2 {
            assert_eq!(judge.look(places("demo/src/work.rs:14"), SECOND, 19, true), None);
        }
        assert_eq!(judge.end(), Verdict::Wrong { places: places("demo/src/work.rs:14") });
    }

    #[test]
    fn the_middle_is_of_runs_that_were_all_right() {
        let right = |seconds, keystrokes| Verdict::Right { after: seconds * SECOND, keystrokes, beside: 0 };
        let mut runs = Runs::default();
        assert_eq!(runs.middle(), None);
        for verdict in [right(9, 40), right(1, 19), right(2, 21)] {
            runs.push(verdict);
        }
        let middle = Middle { after: 2 * SECOND, slowest: 9 * SECOND, keystrokes: 21, beside: 0 };
        assert_eq!(runs.middle(), Some(middle));
        runs.push(Verdict::Wrong { places: places("demo/src/work.rs:14") });
        assert_eq!((runs.middle(), runs.right(), runs.len()), (None, 3, 4));
        assert_eq!(runs.instead(), places("demo/src/work.rs:14"));
    }
}
