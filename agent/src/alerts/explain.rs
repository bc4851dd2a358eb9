//! Why a rule does, or does not, fire: its last evaluations with what they read.

use std::collections::VecDeque;
use std::sync::Arc;

use super::labels::Labels;
use super::life::{Life, Phase, Timing};

/// Evaluations kept of each setting, one a second at most.
const KEPT: usize = 60;
const EVERY_NS: u64 = 1_000_000_000;
/// Readings of one evaluation, the greatest values first.
const READINGS: usize = 10;

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Evaluation {
    pub(crate) at_unix_ns: u64,
    pub(crate) readings: Vec<Evaluated>,
    /// Why nothing could be read; `None`: something was, and be it that nothing is wrong.
    pub(crate) missing: Option<String>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Evaluated {
    pub(crate) labels: Arc<Labels>,
    pub(crate) value: f64,
    pub(crate) phase: &'static str,
    /// Until it fires or is resolved if the value stays as it is; `None`: it would not change.
    pub(crate) remaining_ns: Option<u64>,
    /// Why it is not told.
    pub(crate) held_back: Option<String>,
}

impl Evaluated {
    pub(crate) fn of(labels: Arc<Labels>, value: f64, life: &Life, timing: &Timing) -> Self {
        let phase = match life.phase() {
            Phase::Inactive => "inactive",
            Phase::Pending { .. } => "pending",
            Phase::Firing => "firing",
            Phase::Recovering { .. } => "recovering",
        };
        Self { labels, value, phase, remaining_ns: life.remaining_ns(timing), held_back: None }
    }
}

/// The last evaluations of one setting, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Explained {
    evaluations: VecDeque<Evaluation>,
    /// When the last one began to stand for its second.
    began_ns: u64,
}

impl Explained {
    /// Within a second the last one replaces those before it.
    pub(crate) fn take(&mut self, mut evaluation: Evaluation, now_ns: u64) {
        evaluation.readings.sort_by(|a, b| b.value.total_cmp(&a.value));
        evaluation.readings.truncate(READINGS);
        if now_ns.saturating_sub(self.began_ns) < EVERY_NS
            && let Some(last) = self.evaluations.back_mut()
        {
            *last = evaluation;
            return;
        }
        self.began_ns = now_ns;
        if self.evaluations.len() == KEPT {
            self.evaluations.pop_front();
        }
        self.evaluations.push_back(evaluation);
    }

    pub(crate) fn evaluations(&self) -> impl Iterator<Item = &Evaluation> {
        self.evaluations.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_kept_one_a_second() {
        let mut explained = Explained::default();
        for quarter in 0..400_u64 {
            let at_ns = 7 * EVERY_NS + quarter * EVERY_NS / 4;
            explained.take(Evaluation { at_unix_ns: quarter, readings: vec![], missing: None }, at_ns);
        }
        let kept: Vec<u64> = explained.evaluations().map(|it| it.at_unix_ns).collect();
        assert_eq!((kept.len(), kept.first(), kept.last()), (60, Some(&163), Some(&399)));
    }

    #[test]
    fn the_greatest_values_are_kept() {
        let life = Life::default();
        let timing = Timing { for_ns: 0, keep_firing_ns: 0, clear_ratio: 0.8 };
        let reading = |value: u32| Evaluated::of(Arc::default(), value.into(), &life, &timing);
        let mut explained = Explained::default();
        let readings = (0..30).map(reading).collect();
        explained.take(Evaluation { at_unix_ns: 1, readings, missing: None }, 1);
        let values: Vec<f64> =
            explained.evaluations().flat_map(|it| &it.readings).map(|it| it.value).collect();
        assert_eq!((values.len(), values[0], values[9]), (10, 29.0, 20.0));
    }
}
