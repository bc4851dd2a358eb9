//! The rules, one file each: its condition in prose, its defaults, what it reads, its sentence, its test. Adding one touches
//! that file and [`RULES`].

use std::collections::BTreeMap;

use taskscope_proto::{filter, v1, words};

use super::labels::Labels;
use super::life::Timing;
use super::rule::{Reading, Rule, Seen, Setting, Severity};
use super::watcher::Watched;
use crate::config::pattern::Match;
use crate::model::Model;
use crate::rules::task_panic;

mod task_panicked;
mod task_slow_poll;
mod task_stuck_in_poll;

/// In the order in which they are listed.
pub(crate) const RULES: [&Rule; 3] = [&task_stuck_in_poll::RULE, &task_slow_poll::RULE, &task_panicked::RULE];

/// The settings that hold where nothing is configured.
pub(crate) fn defaults() -> Vec<Watched> {
    let of = |rule: &'static Rule| {
        rule.defaults.iter().map(move |setting| Watched {
            rule,
            setting: setting.clone(),
            about: Match::default(),
        })
    };
    RULES.into_iter().filter(|rule| !rule.opt_in).flat_map(of).collect()
}

/// Every setting of a rule, and those of the rules that may hold it back.
pub(crate) fn all_of(rule: &'static Rule) -> Vec<Watched> {
    let own = rule.defaults.iter().map(|setting| Watched {
        rule,
        setting: setting.clone(),
        about: Match::default(),
    });
    let others = defaults().into_iter().filter(|it| it.rule.name != rule.name);
    own.chain(others).collect()
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no rule is called `{name}`\nhint: {hint}")]
pub(crate) struct UnknownRule {
    name: String,
    hint: String,
}

/// The rule of that name.
pub(crate) fn named(name: &str) -> Result<&'static Rule, UnknownRule> {
    let known = || RULES.iter().map(|rule| rule.name);
    RULES.into_iter().find(|rule| rule.name.eq_ignore_ascii_case(name)).ok_or_else(|| UnknownRule {
        name: words::printable(name),
        hint: match filter::nearest(name, known()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`taskscope rules list` lists them".to_owned(),
        },
    })
}

const S: u64 = 1_000_000_000;

/// A setting as most defaults are: it looks at the present, clears below four fifths, and stays for half a minute so that
/// what comes and goes is one alert.
const fn from(severity: Severity, threshold: f64) -> Setting {
    Setting {
        severity,
        threshold,
        window_ns: 0,
        min_count: 1,
        timing: Timing { for_ns: 0, keep_firing_ns: 30 * S, clear_ratio: 0.8 },
    }
}

impl Setting {
    /// It must hold for this long.
    const fn holding(mut self, for_ns: u64) -> Self {
        self.timing.for_ns = for_ns;
        self
    }

    /// It counts what happened within a window; when that is over, so is the alert.
    const fn within(mut self, window_ns: u64, min_count: u64) -> Self {
        self.window_ns = window_ns;
        self.min_count = min_count;
        self.timing.keep_firing_ns = 0;
        self
    }
}

impl Reading {
    fn new(labels: Labels, value: f64, summary: String) -> Self {
        Self { labels, value, summary, annotations: BTreeMap::new() }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.annotations.insert(name, value.to_string());
        self
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// What a task is one of: its name, or where it was spawned.
fn group(name: Option<&str>, site: Option<&str>) -> Labels {
    Labels::default().with("task_group", name.or(site).unwrap_or_default())
}

/// What a poll is about.
fn about(model: &Model, poll: &v1::LivePoll) -> Labels {
    let labels = match poll.kind() {
        v1::TaskKind::Main => Labels::default().with("task_group", "main"),
        _ => group(model.some_text(poll.name_sid), model.some_text(poll.spawned_at_sid)),
    };
    labels.with("label", model.text(poll.label_sid))
}

/// The label `runtime`: runtimes without a name share one, for there may be a new one each second.
fn runtime_name(runtime: &v1::Runtime) -> &str {
    runtime.name.as_deref().filter(|name| !name.is_empty()).unwrap_or("tokio")
}

/// Deaths of one kind, by group.
fn deaths(model: &Model, kind: v1::event::Kind, setting: &Setting) -> Seen {
    let mut died: BTreeMap<Labels, Vec<&v1::Event>> = BTreeMap::new();
    for event in model.events.iter().filter(|event| event.kind() == kind) {
        if event.at_ns + setting.window_ns > model.frame.at_ns {
            let poll = event.poll.clone().unwrap_or_default();
            died.entry(about(model, &poll)).or_default().push(event);
        }
    }
    let reading = |(labels, events): (Labels, Vec<&v1::Event>)| {
        let last = *events.last()?;
        let many = match events.len() {
            1 => String::new(),
            n => format!(" {n} died in the last {}.", words::duration(setting.window_ns)),
        };
        let summary = format!("{}.{many}", task_panic::death(model, last, ""));
        let mut reading = Reading::new(labels, events.len() as f64, summary);
        if let Some(reason) = model.some_text(last.reason_sid) {
            reading = reading.with("reason", reason);
        }
        Some(reading)
    };
    Seen::Readings(died.into_iter().filter_map(reading).collect())
}

#[cfg(test)]
mod fixture {
    //! What a rule reads of a frame, as tests write it.

    use super::*;
    use crate::alerts::memory::Memory;
    use crate::alerts::rule::Scene;

    pub(super) fn scene_of(frame: v1::Frame) -> Model {
        crate::rules::fixture::model(frame)
    }

    pub(super) fn readings(rule: &Rule, model: &Model) -> Vec<Reading> {
        readings_of(rule, &rule.defaults[0], model)
    }

    pub(super) fn readings_of(rule: &Rule, setting: &Setting, model: &Model) -> Vec<Reading> {
        let memory = Memory::default();
        readings_in(
            rule,
            setting,
            &Scene { model, memory: &memory, found: None, stuck_from: None, silence: None },
        )
    }

    pub(super) fn readings_in(rule: &Rule, setting: &Setting, scene: &Scene<'_>) -> Vec<Reading> {
        match (rule.read)(scene, setting) {
            Seen::Readings(readings) => readings,
            Seen::Missing(why) => panic!("{why}"),
        }
    }
}
