//! A task ended by panic within the last [`RECENT_NS`].

use taskscope_proto::v1::{self, event::Kind};
use taskscope_proto::words;

use super::{Finding, Severity};
use crate::model::Model;

const RECENT_NS: u64 = 60_000_000_000;

pub(crate) fn check(model: &Model) -> Vec<Finding> {
    let died: Vec<&v1::Event> = model
        .events
        .iter()
        .filter(|event| event.kind() == Kind::TaskPanic && event.at_ns + RECENT_NS > model.frame.at_ns)
        .collect();
    let Some(last) = died.last() else { return vec![] };
    let ago = words::duration(model.frame.at_ns.saturating_sub(last.at_ns));
    let poll = last.poll.unwrap_or_default();
    let site =
        model.some_text(poll.spawned_at_sid).map_or(String::new(), |site| format!(", spawned at {site},"));
    let who = match model.some_text(poll.name_sid) {
        Some(name) => format!("task {name}"),
        None => format!("task {}", poll.task_id),
    };
    let others = match died.len() {
        1 => String::new(),
        n => format!(" {} more in the last minute.", n - 1),
    };
    vec![Finding {
        severity: Severity::Warning,
        sentence: format!("DIED {ago} ago: {who}{site} panicked.{others}"),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{S, model, sentences};
    use super::*;

    #[test]
    fn a_panic_is_told_for_a_minute() {
        let died = |seq, at_ns| v1::Event {
            seq,
            at_ns,
            kind: Kind::TaskPanic.into(),
            poll: Some(v1::LivePoll { name_sid: 3, spawned_at_sid: 4, ..Default::default() }),
            ..Default::default()
        };
        let model = model(v1::Frame {
            events: vec![died(1, S), died(2, 70 * S), died(3, 88 * S)],
            ..Default::default()
        });
        assert_eq!(
            sentences(&check(&model)),
            ["DIED 12 s ago: task mailer, spawned at src/mail.rs:7:5, panicked. 1 more in the last minute."]
        );
    }
}
