//! What a rule is: a name, a condition in prose, settings that are useful untouched, and a function from what is known of a
//! target to readings. Each rule is one file in `rules/`; adding one touches that file and the list in `rules.rs`.

use std::collections::BTreeMap;

use super::labels::Labels;
use super::life::Timing;
use super::memory::Memory;
use super::vitals::Vitals;
use crate::model::Model;

pub(crate) struct Rule {
    /// The label `alertname`.
    pub(crate) name: &'static str,
    /// Its condition, in prose.
    pub(crate) about: &'static str,
    pub(crate) unit: Unit,
    /// The settings that hold where a configuration says nothing.
    pub(crate) defaults: &'static [Setting],
    /// How far back it can look: of what was before that nothing is remembered. 0: it looks at the present.
    pub(crate) remembers_ns: u64,
    /// What its readings can be told apart by, in a configuration.
    pub(crate) matches: &'static [&'static str],
    /// Only where a configuration asks for it.
    pub(crate) opt_in: bool,
    pub(crate) clock: Clock,
    /// Of a rule about single tasks: the filter of the standing query that finds them.
    pub(crate) standing: Option<fn(&Setting) -> String>,
    pub(crate) read: fn(&Scene<'_>, &Setting) -> Seen,
}

/// Whose time counts for a rule, and when it is evaluated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Clock {
    /// At each of its frames.
    Target,
    /// About the link to the target, which may say nothing.
    Agent,
    /// About the agent itself, and no target.
    Own,
}

/// What is known of one target.
pub(crate) struct Scene<'a> {
    pub(crate) model: &'a Model,
    pub(crate) memory: &'a Memory,
    /// What the setting's standing query has found; `None`: the target has not looked.
    pub(crate) found: Option<&'a [u64]>,
    /// The target was asked for it, and can look.
    pub(crate) asked: bool,
    /// What the other settings say from when on a running poll is told, in seconds; `None`: it is not.
    pub(crate) stuck_from: Option<f64>,
    pub(crate) silence: Option<&'a Silence>,
    /// Readings below this change nothing, and need not be worded: there is no alert of the setting that they would end, and none
    /// that they might cause. 0 where they may.
    pub(crate) matters_from: f64,
    /// Of the agent itself; `None`: this is about a target.
    pub(crate) vitals: Option<&'a Vitals>,
}

impl<'a> Scene<'a> {
    /// In which nobody has looked for anything.
    #[cfg(test)]
    pub(crate) fn of(model: &'a Model, memory: &'a Memory) -> Self {
        Self {
            model,
            memory,
            found: None,
            asked: false,
            stuck_from: None,
            silence: None,
            matters_from: 0.0,
            vitals: None,
        }
    }

    /// What alerts call a runtime; empty where there is none of that id.
    pub(crate) fn runtime(&self, id: u32) -> &'a str {
        self.memory.runtimes.label(id).unwrap_or_default()
    }
}

/// The target has said nothing for a while, by the agent's clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Silence {
    pub(crate) for_ns: u64,
    /// Of the link, without a full stop.
    pub(crate) reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// In what the value and the threshold of a rule are. A duration is a number of seconds, as Prometheus has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    Seconds,
    /// 0 to 1.
    Ratio,
    Count,
}

/// One setting of a rule: from when on it speaks, how loudly, and about what. A rule may have several; the first of a severity
/// that matches what a reading is about decides for that severity.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Setting {
    pub(crate) severity: Severity,
    /// In the rule's unit. The alert is about values at or past it.
    pub(crate) threshold: f64,
    /// How far back the rule looks; 0 where it looks at the present only.
    pub(crate) window_ns: u64,
    /// Of a rule that counts events: how many it takes within the window. `None`: the rule counts none.
    pub(crate) min_count: Option<u64>,
    pub(crate) timing: Timing,
}

impl Setting {
    /// Whether so many events within the window are enough to speak of.
    pub(crate) fn is_enough(&self, events: u64) -> bool {
        self.min_count.is_none_or(|least| events >= least)
    }
}

/// What a rule read about one thing.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Reading {
    /// Beside those that every alert of the target has: `runtime`, `task_group`, `label`, `pool`, `worker`.
    pub(crate) labels: Labels,
    pub(crate) value: f64,
    /// One sentence that names the task and the line.
    pub(crate) summary: String,
    /// More for whoever looks: `spawned_at`, `line`, `worst_poll_ms`, … Here, and never in labels, are task ids and durations.
    pub(crate) annotations: BTreeMap<&'static str, String>,
}

/// What a rule makes of a target.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Seen {
    /// Of everything that is not among them the value is zero.
    Readings(Vec<Reading>),
    /// As above, but of what these labels are about nothing can be said, for this reason: what fires of it goes on firing.
    Partly { readings: Vec<Reading>, unknown: Vec<Labels>, why: String },
    /// Nothing can be said, for this reason: what fires goes on firing.
    Missing(String),
}

impl Seen {
    /// `why` is only told where something is not known.
    pub(crate) fn of(readings: Vec<Reading>, unknown: Vec<Labels>, why: &str) -> Self {
        if unknown.is_empty() {
            return Self::Readings(readings);
        }
        Self::Partly { readings, unknown, why: why.to_owned() }
    }
}
