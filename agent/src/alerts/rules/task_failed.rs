//! Tasks that nobody awaits ended with an error, so many of one group within the window.

use taskscope_proto::v1::event::Kind;

use super::{S, TASKS, deaths, from};
use crate::alerts::memory::EVENTS_NS;
use crate::alerts::rule::{Clock, Rule, Scene, Seen, Setting, Severity, Unit};

pub(crate) static RULE: Rule = Rule {
    name: "TaskFailed",
    about: "as many detached tasks of a group as the threshold, and min_count of them, have ended with an error within the window",
    unit: Unit::Count,
    defaults: &[from(Severity::Warning, 1.0).within(60 * S, 1)],
    remembers_ns: EVENTS_NS,
    matches: &TASKS,
    opt_in: false,
    clock: Clock::Target,
    standing: None,
    read,
};

fn read(scene: &Scene<'_>, setting: &Setting) -> Seen {
    deaths(scene.model, Kind::TaskFailed, setting)
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::*;
    use crate::alerts::rules::fixture::{readings, scene_of};

    #[test]
    fn an_error_that_nobody_awaited_is_told_and_a_panic_is_another_rules() {
        let died = |seq, kind: Kind| v1::Event {
            seq,
            at_ns: 90 * S,
            kind: kind.into(),
            poll: Some(v1::LivePoll { task_id: seq, name_sid: 3, ..Default::default() }),
            ..Default::default()
        };
        let events = vec![died(1, Kind::TaskFailed), died(2, Kind::TaskPanic)];
        let found = readings(&RULE, &scene_of(v1::Frame { events, ..Default::default() }));
        assert_eq!(
            found.iter().map(|it| (it.value, it.summary.as_str())).collect::<Vec<_>>(),
            [(1.0, "DIED SILENTLY: mailer failed; nobody awaited it.")]
        );
    }
}
