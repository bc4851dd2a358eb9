//! What can be wrong with a target, one rule a file: its condition in prose, its thresholds, `check`, its sentence for
//! one and for many, its test. Adding a rule touches that file and [`RULES`].

use taskscope_proto::row::TaskRow;
use taskscope_proto::{activity, v1};

use crate::model::Model;

pub(crate) mod growing_group;
pub(crate) mod ignored_cancel;
mod past_stall;
mod process_pause;
pub(crate) mod saturated_pool;
mod slow_polls;
pub(crate) mod stuck_worker;
pub(crate) mod task_panic;

/// How bad a finding is; worse is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Severity {
    /// Worth knowing; nothing is wrong now.
    Note,
    Warning,
    Critical,
}

/// Something that a rule found, in words.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) sentence: String,
}

pub(crate) type Rule = fn(&Model) -> Vec<Finding>;

/// In the order in which findings of one severity are told.
pub(crate) const RULES: [Rule; 8] = [
    stuck_worker::check,
    saturated_pool::check,
    task_panic::check,
    slow_polls::check,
    growing_group::check,
    ignored_cancel::check,
    past_stall::check,
    process_pause::check,
];

/// Everything that the rules find, worst first.
pub(crate) fn check(model: &Model) -> Vec<Finding> {
    let mut found: Vec<Finding> = RULES.iter().flat_map(|rule| rule(model)).collect();
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

/// What runs in a live poll, as it may be said: its label; else the task's name; else only where the task was spawned,
/// which is not where it runs.
pub(crate) fn what(model: &Model, poll: &v1::LivePoll) -> String {
    let site = model.some_text(poll.spawned_at_sid);
    if let Some(label) = model.some_text(poll.label_sid) {
        return label.to_owned();
    }
    if poll.kind() == v1::TaskKind::Main {
        return "the body of main".to_owned();
    }
    match (model.some_text(poll.name_sid), site) {
        (Some(name), Some(site)) => format!("task {name} (spawned at {site})"),
        (Some(name), None) => format!("task {name}"),
        (None, Some(site)) => format!("a task spawned at {site}; no label"),
        (None, None) => "a task that is not instrumented".to_owned(),
    }
}

/// A task as it may be said: by its name, and where it was spawned.
pub(crate) fn who(row: &TaskRow) -> String {
    match (row.name.as_str(), row.spawned_at.as_str()) {
        ("", "") => format!("task {}", row.id.0),
        ("", site) => format!("a task spawned at {site}"),
        (name, "") => format!("task {name}"),
        (name, site) => format!("task {name} (spawned at {site})"),
    }
}

/// What the thread of a poll is doing: `on CPU`, `asleep in clock_nanosleep`, `throttled 80 % of it, on CPU 20 %`. `None`
/// where it was not looked at.
pub(crate) fn doing(model: &Model, poll: &v1::LivePoll) -> Option<String> {
    let activity = poll.activity.as_ref()?;
    let number = activity.syscall.map(|number| format!("system call {number}"));
    let words = activity::words(activity, model.syscall(activity).or(number.as_deref()));
    (!words.is_empty()).then_some(words)
}

/// Whether something is wrong that a line would explain.
pub(crate) fn wants_line(model: &Model) -> bool {
    [stuck_worker::check, slow_polls::check].iter().any(|rule| !rule(model).is_empty())
}

/// What to do about polls that are long because the process may not use the CPU.
const RAISE_QUOTA: &str = "raise the CPU quota of its cgroup, or let it use less CPU";

/// What to do about a poll that blocks its worker.
pub(crate) fn remedy(poll: &v1::LivePoll) -> &'static str {
    use v1::thread_activity::State;
    if poll.activity.as_ref().is_some_and(activity::is_throttled) {
        return RAISE_QUOTA;
    }
    match poll.activity.as_ref().map(v1::ThreadActivity::state) {
        Some(State::Asleep | State::DiskSleep) => {
            "await the asynchronous call instead, or move it to spawn_blocking"
        }
        Some(State::OnCpu) => "move it to spawn_blocking",
        _ => "move what blocks to spawn_blocking",
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    //! Frames as tests write them.

    use super::*;

    pub(crate) const MS: u64 = 1_000_000;
    pub(crate) const S: u64 = 1_000_000_000;

    pub(crate) fn model(frame: v1::Frame) -> Model {
        let mut model =
            Model::new(v1::Description { arch: "x86_64".into(), revision: 1, ..Default::default() });
        let texts = [
            (1, "POST /resize"),
            (2, "axum/src/serve/mod.rs:399:17"),
            (3, "mailer"),
            (4, "src/mail.rs:7:5"),
            (5, "session-watch"),
            (6, "src/session.rs:71:9"),
        ];
        let strings = texts.map(|(sid, text)| v1::InternedString { sid, text: text.into() }).to_vec();
        model.apply(v1::Frame { strings, at_ns: 100 * S, ..frame });
        model
    }

    pub(crate) fn sentences(found: &[Finding]) -> Vec<&str> {
        found.iter().map(|finding| finding.sentence.as_str()).collect()
    }

    /// A labelled poll of a connection, asleep.
    pub(crate) fn poll(since_ns: u64) -> v1::LivePoll {
        v1::LivePoll {
            task_id: 17,
            kind: v1::TaskKind::Task.into(),
            label_sid: 1,
            spawned_at_sid: 2,
            since_ns,
            activity: Some(v1::ThreadActivity {
                state: v1::thread_activity::State::Asleep.into(),
                syscall: Some(230),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}
