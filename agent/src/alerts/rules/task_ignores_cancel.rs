//! A task was asked to stop, through its handle, and has not finished within the threshold.

use taskscope_proto::v1::capability::Kind;

use super::{TASKS, by_labels, filter_of, from, not_looked, noted, seconds};
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};
use crate::rules::ignored_cancel::sentence;

pub(crate) static RULE: Rule = Rule {
    name: "TaskIgnoresCancel",
    about: "a task was asked to stop and has not finished for the threshold",
    unit: Unit::Seconds,
    defaults: &[from(Severity::Warning, 5.0)],
    remembers_ns: 0,
    matches: &TASKS,
    opt_in: false,
    clock: Clock::Target,
    standing: Some(|setting| filter_of("state!=ended cancel", setting)),
    read,
};

fn read(scene: &Scene<'_>, _: &Setting) -> Seen {
    let Some(found) = scene.found else { return not_looked(scene, Kind::Cancellations) };
    let rows = found.iter().filter_map(|&id| scene.model.row(id));
    let asked = rows.filter_map(|row| Some((row, row.cancel?.since_ns)));
    let readings = by_labels(scene, asked).into_iter().map(|(labels, rows)| {
        let (row, since_ns) = rows[0];
        let summary = sentence(&rows);
        noted(Reading::new(labels, seconds(since_ns), summary), row).with("tasks", rows.len())
    });
    Seen::Readings(readings.collect())
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1::{self, TaskState};

    use super::*;
    use crate::alerts::memory::Memory;
    use crate::alerts::rules::fixture::{S, found_in, rows};

    fn said(polls: u64, wakes: u64, state: TaskState) -> Vec<Reading> {
        let columns = v1::TaskRows {
            id: vec![7, 8],
            state: vec![state.into(); 2],
            name_sid: vec![3; 2],
            since_ns: vec![9 * S; 2],
            cancel_ns_plus1: vec![6 * S + 1, 8 * S + 1],
            polls_since_cancel: vec![polls; 2],
            wakes_since_cancel: vec![wakes; 2],
            ..Default::default()
        };
        found_in(&RULE, &rows(columns), &[7, 8])
    }

    #[test]
    fn tasks_of_one_group_are_one_reading_with_a_verdict() {
        let found = said(25, 24, TaskState::Idle);
        assert_eq!(found.len(), 1);
        assert!((found[0].value - 8.0).abs() < 1e-6);
        assert_eq!(
            found[0].summary,
            "IGNORES CANCEL 8.0 s: task mailer was asked to stop and goes on: it was woken 24 times and polled 25 times \
             since. 1 more of them do the same. Do: let it await what the request cancels, or end its loop when it is asked \
             to stop."
        );
    }

    #[test]
    fn the_verdict_says_whether_it_could_have_known() {
        let verdict = |polls, wakes, state| {
            let found = said(polls, wakes, state);
            let (_, rest) = found[0].summary.split_once("goes on: ").expect("it says so");
            rest.split('.').next().unwrap_or_default().to_owned()
        };
        assert_eq!(verdict(0, 0, TaskState::Idle), "it was neither woken nor polled since");
        assert_eq!(verdict(0, 1, TaskState::Scheduled), "it was woken once and not polled since");
        assert_eq!(verdict(0, 1, TaskState::Running), "it has been in one poll since before");
    }

    #[test]
    fn where_the_target_has_not_looked_nothing_is_said() {
        let model = rows(v1::TaskRows::default());
        let memory = Memory::default();
        let scene = Scene::of(&model, &memory);
        assert!(matches!(read(&scene, &RULE.defaults[0]), Seen::Missing(_)));
    }
}
