//! A task is idle, and nobody holds a waker of it: nothing can wake it any more. Known of wrapped tasks.

use taskscope_proto::v1::capability::Kind;
use taskscope_proto::words;

use super::{TASKS, by_labels, filter_of, from, not_looked, noted, seconds, who};
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};

pub(crate) static RULE: Rule = Rule {
    name: "LostWaker",
    about: "a task has been idle for the threshold and nobody holds a waker of it",
    unit: Unit::Seconds,
    defaults: &[from(Severity::Warning, 10.0)],
    remembers_ns: 0,
    matches: &TASKS,
    opt_in: false,
    clock: Clock::Target,
    standing: Some(|setting| filter_of("state=idle wakers=0 since", setting)),
    read,
};

fn read(scene: &Scene<'_>, _: &Setting) -> Seen {
    let Some(found) = scene.found else { return not_looked(scene, Kind::Wakes) };
    let rows = found.iter().filter_map(|&id| scene.model.row(id)).filter(|row| row.is_lost());
    let readings = by_labels(scene, rows.map(|row| (row, row.since_ns)));
    let readings = readings.into_iter().map(|(labels, rows)| {
        let (row, since_ns) = rows[0];
        let many = match rows.len() {
            1 => String::new(),
            n => format!(" The same of {} more.", n - 1),
        };
        let summary = format!(
            "LOST WAKER {}: {} waits, and nobody holds a waker of it: nothing can wake it any more.{many} Do: find the \
             future that returns Pending without keeping the waker that it was given.",
            words::duration(since_ns),
            who(row)
        );
        noted(Reading::new(labels, seconds(since_ns), summary), row)
    });
    Seen::Readings(readings.collect())
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::*;
    use crate::alerts::rules::fixture::{S, found_in, rows};

    #[test]
    fn only_a_task_without_any_waker_is_lost() {
        let columns = v1::TaskRows {
            id: vec![7, 8, 9],
            state: vec![v1::TaskState::Idle.into(); 3],
            name_sid: vec![3, 5, 5],
            since_ns: vec![12 * S; 3],
            wakes_plus1: vec![1; 3],
            // None is held, one is held, not seen.
            wakers_plus1: vec![1, 2, 0],
            ..Default::default()
        };
        let found = found_in(&RULE, &rows(columns), &[7, 8]);
        assert_eq!(found.len(), 1);
        assert!(
            found[0]
                .summary
                .starts_with("LOST WAKER 12 s: task mailer waits, and nobody holds a waker of it"),
            "{}",
            found[0].summary
        );
    }
}
