//! Tasks died by panic, so many of one group within the window.

use taskscope_proto::v1::event::Kind;

use super::{S, TASKS, deaths, from};
use crate::alerts::memory::EVENTS_NS;
use crate::alerts::rule::{Clock, Rule, Scene, Seen, Setting, Severity, Unit};

pub(crate) static RULE: Rule = Rule {
    name: "TaskPanicked",
    about: "as many tasks of a group as the threshold, and min_count of them, have died by panic within the window",
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
    deaths(scene.model, Kind::TaskPanic, setting)
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::*;
    use crate::alerts::rules::fixture::{readings, readings_of, scene_of};
    use crate::model::Model;

    /// Of one group three have died, one of them long ago, of another one.
    fn four_deaths() -> Model {
        let died = |seq, at_ns, name_sid| v1::Event {
            seq,
            at_ns,
            kind: Kind::TaskPanic.into(),
            detached: true,
            poll: Some(v1::LivePoll { task_id: seq, name_sid, spawned_at_sid: 4, ..Default::default() }),
            ..Default::default()
        };
        let events = vec![died(1, 10 * S, 3), died(2, 70 * S, 3), died(3, 80 * S, 3), died(4, 90 * S, 5)];
        scene_of(v1::Frame { events, ..Default::default() })
    }

    #[test]
    fn as_many_are_told_as_are_asked_for() {
        let groups = |min_count| {
            let setting = Setting { min_count: Some(min_count), ..RULE.defaults[0].clone() };
            let found = readings_of(&RULE, &setting, &four_deaths());
            found.iter().map(|it| it.labels.get("task_group").map(str::to_owned)).collect::<Vec<_>>()
        };
        assert_eq!(groups(2), [Some("mailer".to_owned())]);
        assert_eq!(groups(3), [], "the third is older than the window");
    }

    #[test]
    fn deaths_of_one_group_are_one_reading() {
        let found = readings(&RULE, &four_deaths());
        let told: Vec<(Option<&str>, f64, &str)> =
            found.iter().map(|it| (it.labels.get("task_group"), it.value, it.summary.as_str())).collect();
        assert_eq!(
            told,
            [
                (
                    Some("mailer"),
                    2.0,
                    "DIED SILENTLY: mailer (spawned at src/mail.rs:7:5) panicked; nobody awaited it. 2 died in the last 1m00s."
                ),
                (
                    Some("session-watch"),
                    1.0,
                    "DIED SILENTLY: session-watch (spawned at src/mail.rs:7:5) panicked; nobody awaited it."
                ),
            ]
        );
    }
}
