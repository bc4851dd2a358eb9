//! What the agent sees of itself: whether its sinks deliver, whether its loop comes in time, what it uses. It is told the time and
//! does no I/O.

use std::collections::BTreeMap;

use super::memory::Series;

const S: u64 = 1_000_000_000;
/// How far back it is remembered.
pub(crate) const KEPT_NS: u64 = 600 * S;
/// After this long, what a sink has dropped is past.
const DROPPED_FOR_NS: u64 = 60 * S;

/// What a sink says of itself; counts are since its start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    pub(crate) sink: String,
    /// Empty, but for an instance of an Alertmanager.
    pub(crate) instance: String,
    pub(crate) delivered: u64,
    pub(crate) dropped: u64,
    /// Why nothing arrives now; `None`: it does.
    pub(crate) failing: Option<String>,
}

/// What is known of one sink.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    pub(crate) told: Told,
    failing_since_ns: Option<u64>,
    dropped: Series<u64>,
}

/// Sums since the agent's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sample {
    at_ns: u64,
    late_ns: u64,
    /// `None`: it cannot be measured here.
    cpu_ns: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Vitals {
    now_ns: u64,
    sinks: BTreeMap<(String, String), Sink>,
    samples: Series<Sample>,
    late_ns: u64,
    memory: Option<Memory>,
}

/// In bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Memory {
    pub(crate) held: u64,
    pub(crate) limit: u64,
}

impl Default for Vitals {
    fn default() -> Self {
        Self { now_ns: 0, sinks: BTreeMap::new(), samples: Series::new(S, KEPT_NS), late_ns: 0, memory: None }
    }
}

impl Vitals {
    /// One turn of the loop, which came that much later than it should have.
    pub(crate) fn turn(&mut self, late_ns: u64, now_ns: u64) {
        self.late_ns = self.late_ns.saturating_add(late_ns);
        self.now_ns = self.now_ns.max(now_ns);
    }

    /// What the process has used of a CPU in all, and what it holds. Once a second is enough.
    pub(crate) fn uses(&mut self, cpu_ns: Option<u64>, memory: Option<Memory>) {
        self.memory = memory;
        let sample = Sample { at_ns: self.now_ns, late_ns: self.late_ns, cpu_ns };
        self.samples.take(self.now_ns, sample);
    }

    /// All of its sinks; what was known of others is forgotten.
    pub(crate) fn sinks(&mut self, told: impl IntoIterator<Item = Told>) {
        let mut before = std::mem::take(&mut self.sinks);
        for told in told {
            let key = (told.sink.clone(), told.instance.clone());
            let known = before.remove(&key);
            let was_failing = known.as_ref().filter(|it| it.told.delivered == told.delivered);
            let since_ns = was_failing.and_then(|it| it.failing_since_ns).unwrap_or(self.now_ns);
            let failing_since_ns = told.failing.is_some().then_some(since_ns);
            let mut dropped = known.map_or_else(|| Series::new(0, DROPPED_FOR_NS), |it| it.dropped);
            dropped.take(self.now_ns, told.dropped);
            self.sinks.insert(key, Sink { told, failing_since_ns, dropped });
        }
    }

    /// Each sink, for how long it has delivered nothing and failed, and what it has dropped within the last minute.
    pub(crate) fn ways(&self) -> impl Iterator<Item = (&Sink, u64, u64)> {
        self.sinks.values().map(|sink| {
            let failing_ns = sink.failing_since_ns.map_or(0, |since| self.now_ns.saturating_sub(since));
            // Where it was not there a minute ago, all of it is new.
            let before = sink.dropped.before(self.now_ns.saturating_sub(DROPPED_FOR_NS)).unwrap_or(0);
            (sink, failing_ns, sink.told.dropped.saturating_sub(before))
        })
    }

    /// For which share of the window the loop was late; `None`: it has not run for that long.
    pub(crate) fn late_share(&self, window_ns: u64) -> Option<f64> {
        let (first, last) = self.window(window_ns)?;
        Some(((last.late_ns - first.late_ns) as f64 / (last.at_ns - first.at_ns) as f64).min(1.0))
    }

    /// Of a core, over the window.
    pub(crate) fn cpu_share(&self, window_ns: u64) -> Option<f64> {
        let (first, last) = self.window(window_ns)?;
        Some(last.cpu_ns?.saturating_sub(first.cpu_ns?) as f64 / (last.at_ns - first.at_ns) as f64)
    }

    pub(crate) fn memory(&self) -> Option<Memory> {
        self.memory
    }

    fn window(&self, window_ns: u64) -> Option<(Sample, Sample)> {
        let last = self.samples.last()?;
        let first = self.samples.before(last.at_ns.checked_sub(window_ns)?)?;
        (first.at_ns < last.at_ns).then_some((first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(delivered: u64, dropped: u64, failing: bool) -> Told {
        let failing = failing.then(|| "it is down".to_owned());
        Told { sink: "chat".into(), instance: String::new(), delivered, dropped, failing }
    }

    /// What is seen of a sink that says this, a second each.
    fn seen(said: impl IntoIterator<Item = Told>) -> Vec<(u64, u64)> {
        let mut vitals = Vitals::default();
        let mut seen = Vec::new();
        for (second, told) in said.into_iter().enumerate() {
            vitals.turn(0, second as u64 * S);
            vitals.sinks([told]);
            seen.extend(vitals.ways().map(|(_, failing_ns, dropped)| (failing_ns / S, dropped)));
        }
        seen
    }

    #[test]
    fn a_sink_fails_for_as_long_as_it_has_delivered_nothing() {
        let seen = seen([
            told(3, 0, false),
            told(3, 0, true),
            told(3, 0, true),
            told(3, 0, true),
            // It worked for a moment.
            told(4, 0, true),
            told(4, 0, true),
            told(4, 0, false),
        ]);
        assert_eq!(seen.iter().map(|it| it.0).collect::<Vec<_>>(), [0, 0, 1, 2, 0, 1, 0]);
    }

    #[test]
    fn what_was_dropped_is_past_after_a_minute() {
        let seen = seen((0..70).map(|second| told(0, if second < 3 { 0 } else { 5 }, false)));
        assert_eq!((seen[2].1, seen[3].1, seen[62].1, seen[63].1), (0, 5, 5, 0));
    }

    #[test]
    fn a_loop_that_comes_five_times_as_seldom_is_late_for_four_fifths() {
        let mut vitals = Vitals::default();
        assert_eq!(vitals.late_share(10 * S), None);
        for turn in 0..60_u64 {
            vitals.turn(S, turn * 5 * S / 4);
            vitals.uses(Some(turn * S / 8), Some(Memory { held: 1, limit: 2 }));
        }
        let late = vitals.late_share(30 * S).expect("it has run for long enough");
        let cpu = vitals.cpu_share(30 * S).expect("it was measured");
        assert!((late - 0.8).abs() < 1e-9 && (cpu - 0.1).abs() < 1e-9, "{late} {cpu}");
        assert_eq!(vitals.late_share(3600 * S), None);
    }
}
