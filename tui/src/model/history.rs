//! One-second totals: the ones from before we came and the ones seen since, joined by the target's clock.

use std::collections::BTreeMap;

use taskscope_proto::v1::HistoryChunk;

/// Seconds kept.
pub(crate) const SECONDS: u64 = 900;
/// A live sample stands for the time since the one before it, but not for a longer gap than this.
const GAP_SECONDS: u64 = 5;
const S: u64 = 1_000_000_000;
/// Seconds that one cell of a graph may stand for.
const STEPS: [u64; 7] = [1, 2, 5, 10, 15, 30, 60];

#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    by_second: BTreeMap<u64, Sample>,
    base: Option<Base>,
}

/// One second. Rates are per second; `None` is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) alive: u64,
    pub(crate) polls: f64,
    pub(crate) requests: Option<f64>,
    pub(crate) busy_permille: Option<u32>,
    pub(crate) stuck: u32,
}

/// What a frame tells about its moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    pub(crate) alive: u64,
    pub(crate) polls_total: u64,
    pub(crate) requests_total: Option<u64>,
    pub(crate) busy_permille: Option<u32>,
    pub(crate) stuck: u32,
}

#[derive(Clone, Copy, Debug)]
struct Base {
    at_ns: u64,
    polls_total: u64,
    requests_total: Option<u64>,
}

/// One number of a sample.
pub(crate) type Metric = fn(&Sample) -> Option<f64>;

/// What one graph shows: cells from oldest to newest, and the seconds that each stands for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) cells: Vec<Option<f64>>,
    pub(crate) step_seconds: u64,
}

impl History {
    pub(crate) fn take_chunk(&mut self, chunk: &HistoryChunk) {
        let step_ns = chunk.step_ns.max(1);
        let per_second = S as f64 / step_ns as f64;
        for (at, &alive) in chunk.alive.iter().enumerate().take(SECONDS as usize * 4) {
            let at_ns = chunk.first_at_ns.saturating_add(step_ns.saturating_mul(at as u64));
            let sample = Sample {
                alive,
                polls: chunk.polls.get(at).map_or(0.0, |&polls| polls as f64 * per_second),
                requests: chunk.requests.get(at).map(|&requests| requests as f64 * per_second),
                busy_permille: chunk.busy_permille_plus1.get(at).and_then(|value| value.checked_sub(1)),
                stuck: chunk.stuck_workers.get(at).copied().unwrap_or_default(),
            };
            self.by_second.insert(at_ns / S, sample);
        }
        self.prune();
    }

    pub(crate) fn take_live(&mut self, at_ns: u64, live: Live) {
        let base = Base { at_ns, polls_total: live.polls_total, requests_total: live.requests_total };
        let Some(before) = self.base.filter(|before| before.at_ns <= at_ns) else {
            self.base = Some(base);
            return;
        };
        let passed_ns = at_ns - before.at_ns;
        if passed_ns < S {
            return;
        }
        let per_second = S as f64 / passed_ns as f64;
        let requests =
            live.requests_total.zip(before.requests_total).map(|(now, then)| now.saturating_sub(then));
        let sample = Sample {
            alive: live.alive,
            polls: live.polls_total.saturating_sub(before.polls_total) as f64 * per_second,
            requests: requests.map(|requests| requests as f64 * per_second),
            busy_permille: live.busy_permille,
            stuck: live.stuck,
        };
        let second = at_ns / S;
        let from = (before.at_ns / S + 1).max(second.saturating_sub(GAP_SECONDS - 1));
        for second in from..=second {
            self.by_second.insert(second, sample);
        }
        self.base = Some(base);
        self.prune();
    }

    /// At most `width` cells ending now. A cell of several seconds shows the largest of them, so that a spike stays.
    pub(crate) fn series(&self, metric: Metric, width: usize) -> Series {
        let (Some((&first, _)), Some((&last, _))) =
            (self.by_second.first_key_value(), self.by_second.last_key_value())
        else {
            return Series { cells: Vec::new(), step_seconds: 1 };
        };
        let span = last - first + 1;
        let fits = |step: &u64| span.div_ceil(*step) < width as u64 || span <= width as u64;
        let step = STEPS.into_iter().find(fits).unwrap_or(STEPS[STEPS.len() - 1]);
        let end = last / step;
        let start = (first / step).max((end + 1).saturating_sub(width as u64));
        let mut cells = vec![None; if width == 0 { 0 } else { (end + 1 - start) as usize }];
        for (second, sample) in self.by_second.range(start * step..) {
            let (Some(cell), Some(value)) = (cells.get_mut((second / step - start) as usize), metric(sample))
            else {
                continue;
            };
            *cell = Some(cell.map_or(value, |largest: f64| largest.max(value)));
        }
        Series { cells, step_seconds: step }
    }

    fn prune(&mut self) {
        if let Some((&last, _)) = self.by_second.last_key_value() {
            self.by_second = self.by_second.split_off(&(last + 1).saturating_sub(SECONDS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(polls_total: u64) -> Live {
        Live { alive: 3, polls_total, requests_total: None, busy_permille: None, stuck: 0 }
    }

    #[test]
    fn the_past_and_the_present_join_without_a_gap() {
        let mut history = History::default();
        history.take_chunk(&HistoryChunk {
            first_at_ns: 0,
            step_ns: S,
            alive: vec![1; 10],
            polls: vec![50; 10],
            ..HistoryChunk::default()
        });
        // Frames come every 250 ms, a little late each, so a sample is made every 1.2 s.
        for at in 0..20 {
            history.take_live(9 * S + at * S * 3 / 10, live(at * 30));
        }
        let series = history.series(|sample| Some(sample.polls), 80);
        assert_eq!((series.cells.len(), series.step_seconds), (14, 1));
        assert!(series.cells.iter().all(Option::is_some), "{series:?}");
        assert_eq!((series.cells[0], series.cells[13]), (Some(50.0), Some(100.0)));
    }

    #[test]
    fn a_long_silence_stays_a_gap() {
        let mut history = History::default();
        history.take_live(0, live(0));
        history.take_live(S, live(10));
        history.take_live(60 * S, live(20));
        let cells = history.series(|sample| Some(sample.polls), 80).cells;
        assert_eq!(cells.len(), 60);
        assert_eq!(cells.iter().filter(|cell| cell.is_some()).count(), 1 + GAP_SECONDS as usize);
    }

    #[test]
    fn a_narrow_graph_keeps_the_spike() {
        let mut history = History::default();
        let mut alive = vec![5; 300];
        alive[120] = 900;
        history.take_chunk(&HistoryChunk { step_ns: S, alive, ..HistoryChunk::default() });
        let series = history.series(|sample| Some(sample.alive as f64), 20);
        assert_eq!(series.step_seconds, 30);
        assert!(series.cells.len() <= 20);
        assert_eq!(series.cells.iter().flatten().copied().fold(0.0, f64::max), 900.0);
        assert_eq!(history.series(|_| None, 0).cells.len(), 0);
    }

    #[test]
    fn nonsense_from_a_target_does_not_overflow() {
        let mut history = History::default();
        history.take_chunk(&HistoryChunk {
            first_at_ns: u64::MAX - 5,
            step_ns: u64::MAX,
            alive: vec![1, 2],
            ..HistoryChunk::default()
        });
        history.take_live(u64::MAX, live(u64::MAX));
        history.take_live(3, live(0));
        history.take_live(u64::MAX, live(7));
        assert!(!history.series(|sample| Some(sample.alive as f64), 10).cells.is_empty());
    }
}
