//! A task has waited for one thing for longer than the threshold. Most tasks may: only groups that a configuration names are
//! looked at.

use taskscope_proto::v1::capability::Kind;
use taskscope_proto::words;

use super::{MINUTE, TASKS, by_labels, filter_of, from, not_looked, noted, seconds, who};
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};

pub(crate) static RULE: Rule = Rule {
    name: "TaskPendingTooLong",
    about: "a task has been idle without a break for the threshold",
    unit: Unit::Seconds,
    defaults: &[from(Severity::Warning, 5.0 * MINUTE)],
    remembers_ns: 0,
    matches: &TASKS,
    opt_in: true,
    clock: Clock::Target,
    standing: Some(|setting| filter_of("state=idle since", setting)),
    read,
};

fn read(scene: &Scene<'_>, _: &Setting) -> Seen {
    let Some(found) = scene.found else { return not_looked(scene, Kind::Tasks) };
    let idle = found.iter().filter_map(|&id| scene.model.row(id)).map(|row| (row, row.since_ns));
    let readings = by_labels(scene, idle).into_iter().map(|(labels, rows)| {
        let (row, since_ns) = rows[0];
        let many = match rows.len() {
            1 => String::new(),
            n => format!(", the longest of {n}"),
        };
        let summary = format!(
            "PENDING {}: {} has waited without a break{many}. Do: see what it awaits, or give that a timeout.",
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
    fn the_longest_of_a_group_is_told() {
        let columns = v1::TaskRows {
            id: vec![7, 8],
            state: vec![v1::TaskState::Idle.into(); 2],
            name_sid: vec![3; 2],
            since_ns: vec![400 * S, 900 * S],
            ..Default::default()
        };
        let found = found_in(&RULE, &rows(columns), &[7, 8]);
        assert_eq!(
            found.iter().map(|it| it.summary.as_str()).collect::<Vec<_>>(),
            [
                "PENDING 15m00s: task mailer has waited without a break, the longest of 2. Do: see what it awaits, or give \
                 that a timeout."
            ]
        );
        assert_eq!(found[0].annotations["task_id"], "8");
    }
}
