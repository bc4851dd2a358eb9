//! The life of one alert, as a machine: it is told readings and when, and answers with what changed.
//!
//! What nobody saw counts for nothing: neither towards `for`, nor towards the end of an alert.

/// Of a time between two readings, more than this was not seen: the agent slept, or the target said nothing.
const MOST_SEEN_NS: u64 = 3_000_000_000;

/// How long and how far a value must be beyond its threshold.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Timing {
    /// A value must have been at or past its threshold for this long before the alert fires.
    pub(crate) for_ns: u64,
    /// It must have been below for this long before the alert is resolved.
    pub(crate) keep_firing_ns: u64,
    /// A firing alert's value is below if it is below this share of the threshold, 0 to 1.
    pub(crate) clear_ratio: f64,
}

/// ```text
/// Inactive --holds--> Pending --`for` is over--> Firing --below--> Recovering --`keep_firing_for` is over--> Inactive
///     ^                  |                         ^                   |
///     +------below-------+                         +----not below------+
/// ```
/// A missing value moves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Phase {
    #[default]
    Inactive,
    Pending {
        /// Seen at or past the threshold for this long.
        held_ns: u64,
    },
    Firing,
    Recovering {
        /// Seen below for this long.
        below_ns: u64,
    },
}

/// What was read, at or past its threshold being what the alert is about.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Input {
    Value {
        value: f64,
        threshold: f64,
    },
    /// It could not be read.
    Missing,
}

/// What a reading changed, for whoever is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transition {
    Pending,
    Firing,
    Resolved,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Life {
    phase: Phase,
    /// When it was last told something.
    last_ns: u64,
}

impl Life {
    /// An alert that fired before the agent was restarted, and of whose end nobody has been told.
    pub(crate) fn fired_before(now_ns: u64) -> Self {
        Self { phase: Phase::Firing, last_ns: now_ns }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// It fires, or did and is not resolved yet.
    pub(crate) fn is_firing(&self) -> bool {
        matches!(self.phase, Phase::Firing | Phase::Recovering { .. })
    }

    /// Nothing has to be kept of it.
    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Inactive
    }

    /// `now_ns` is of any clock that does not jump ahead; if it goes back, no time has passed.
    pub(crate) fn apply(&mut self, input: Input, timing: &Timing, now_ns: u64) -> Option<Transition> {
        let seen_ns = now_ns.saturating_sub(self.last_ns).min(MOST_SEEN_NS);
        self.last_ns = now_ns;
        // A value that is no number is none.
        let Input::Value { value, threshold } = input else { return None };
        if value.is_nan() || threshold.is_nan() {
            return None;
        }
        let holds = value >= threshold;
        let below = !holds && value < threshold * timing.clear_ratio;
        match self.phase {
            Phase::Inactive if holds => self.hold(0, timing, true),
            Phase::Pending { held_ns } if holds => self.hold(held_ns + seen_ns, timing, false),
            Phase::Pending { .. } => {
                self.phase = Phase::Inactive;
                None
            }
            Phase::Firing if below => self.clear(0, timing),
            Phase::Recovering { below_ns } if below => self.clear(below_ns + seen_ns, timing),
            Phase::Recovering { .. } => {
                self.phase = Phase::Firing;
                None
            }
            Phase::Inactive | Phase::Firing => None,
        }
    }

    /// How much longer the value has to stay as it is until something changes; `None`: nothing will.
    pub(crate) fn remaining_ns(&self, timing: &Timing) -> Option<u64> {
        match self.phase {
            Phase::Pending { held_ns } => Some(timing.for_ns.saturating_sub(held_ns)),
            Phase::Recovering { below_ns } => Some(timing.keep_firing_ns.saturating_sub(below_ns)),
            Phase::Inactive | Phase::Firing => None,
        }
    }

    fn hold(&mut self, held_ns: u64, timing: &Timing, is_new: bool) -> Option<Transition> {
        if held_ns >= timing.for_ns {
            self.phase = Phase::Firing;
            return Some(Transition::Firing);
        }
        self.phase = Phase::Pending { held_ns };
        is_new.then_some(Transition::Pending)
    }

    fn clear(&mut self, below_ns: u64, timing: &Timing) -> Option<Transition> {
        if below_ns >= timing.keep_firing_ns {
            self.phase = Phase::Inactive;
            return Some(Transition::Resolved);
        }
        self.phase = Phase::Recovering { below_ns };
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;
    const TIMING: Timing = Timing { for_ns: 10 * S, keep_firing_ns: 5 * S, clear_ratio: 0.8 };

    fn value(value: f64) -> Input {
        Input::Value { value, threshold: 1.0 }
    }

    /// What a value each second leads to, with the second in which it did.
    fn told(values: &[f64]) -> Vec<(usize, Transition)> {
        let mut life = Life::default();
        let apply = |(at, &it): (usize, &f64)| Some((at, life.apply(value(it), &TIMING, at as u64 * S)?));
        values.iter().enumerate().filter_map(apply).collect()
    }

    #[test]
    fn it_fires_after_for_and_is_resolved_after_keep_firing_for() {
        let values = [vec![0.0; 2], vec![1.0; 20], vec![0.5; 20]].concat();
        assert_eq!(
            told(&values),
            [(2, Transition::Pending), (12, Transition::Firing), (27, Transition::Resolved)]
        );
    }

    #[test]
    fn a_value_just_below_its_threshold_neither_fires_nor_resolves() {
        let values = [vec![0.9; 20], vec![1.0; 20], vec![0.9; 30]].concat();
        assert_eq!(told(&values), [(20, Transition::Pending), (30, Transition::Firing)]);
    }

    #[test]
    fn without_for_it_fires_at_once() {
        let timing = Timing { for_ns: 0, keep_firing_ns: 0, ..TIMING };
        let mut life = Life::default();
        assert_eq!(life.apply(value(2.0), &timing, 7), Some(Transition::Firing));
        assert_eq!(life.apply(value(0.0), &timing, 7), Some(Transition::Resolved));
        assert!(life.is_over());
    }

    #[test]
    fn what_was_not_seen_counts_for_nothing() {
        let mut life = Life::default();
        life.apply(value(1.0), &TIMING, 0);
        // An hour later, of which it saw three seconds at most.
        assert_eq!(life.apply(value(1.0), &TIMING, 3600 * S), None);
        assert_eq!(life.remaining_ns(&TIMING), Some(7 * S));
        let mut life = Life::fired_before(0);
        for second in 0..600 {
            assert_eq!(life.apply(Input::Missing, &TIMING, second * S), None);
        }
        assert_eq!(life.phase(), Phase::Firing);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Value(f64),
        Missing,
        /// The agent is restarted: what fires is known again, what was pending is not.
        Restart,
        Forward(u64),
        Back(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => prop_oneof![Just(0.0), Just(0.85), Just(1.0), Just(7.0), Just(f64::NAN)].prop_map(Step::Value),
            2 => Just(Step::Missing),
            1 => Just(Step::Restart),
            4 => (0..4 * S).prop_map(Step::Forward),
            1 => (0..7200 * S).prop_map(Step::Forward),
            1 => (0..7200 * S).prop_map(Step::Back),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_never_fires_without_for_and_no_end_is_lost(
            steps in proptest::collection::vec(step(), 0..200), for_s in 0..6u64, keep_s in 0..6u64
        ) {
            let timing = Timing { for_ns: for_s * S, keep_firing_ns: keep_s * S, clear_ratio: 0.8 };
            let mut life = Life::default();
            let mut now_ns = 1000 * S;
            let mut told_firing = false;
            // How long at most the value was seen to hold, or to be below, without a break.
            let (mut held_ns, mut below_ns, mut unseen_ns) = (None, None, 0u64);
            for step in steps {
                match step {
                    Step::Forward(ns) => { now_ns += ns; unseen_ns += ns; continue },
                    Step::Back(ns) => { now_ns = now_ns.saturating_sub(ns); continue },
                    Step::Restart => {
                        life = if life.is_firing() { Life::fired_before(now_ns) } else { Life::default() };
                        (held_ns, below_ns) = (None, None);
                        unseen_ns = 0;
                        continue;
                    }
                    Step::Missing => { unseen_ns = 0; prop_assert_eq!(life.apply(Input::Missing, &timing, now_ns), None); }
                    Step::Value(it) => {
                        let seen = |ns: Option<u64>| Some(ns.map_or(0, |ns: u64| ns + unseen_ns));
                        if it >= 1.0 { (held_ns, below_ns) = (seen(held_ns), None) }
                        else if it < 0.8 { (held_ns, below_ns) = (None, seen(below_ns)) }
                        else if !it.is_nan() { (held_ns, below_ns) = (None, None) }
                        unseen_ns = 0;
                        match life.apply(value(it), &timing, now_ns) {
                            Some(Transition::Firing) => {
                                prop_assert!(!told_firing);
                                prop_assert!(held_ns.is_some_and(|ns| ns >= timing.for_ns));
                                told_firing = true;
                            }
                            Some(Transition::Resolved) => {
                                prop_assert!(told_firing);
                                prop_assert!(below_ns.is_some_and(|ns| ns >= timing.keep_firing_ns));
                                told_firing = false;
                            }
                            Some(Transition::Pending) => prop_assert!(!told_firing && timing.for_ns > 0),
                            None => {}
                        }
                    }
                }
                prop_assert_eq!(life.is_firing(), told_firing);
            }
            // Whatever came before, what stays well is resolved.
            let mut resolved = !told_firing;
            for _ in 0..20 {
                now_ns += S;
                resolved |= life.apply(value(0.0), &timing, now_ns) == Some(Transition::Resolved);
            }
            prop_assert!(resolved && life.is_over());
        }
    }
}
