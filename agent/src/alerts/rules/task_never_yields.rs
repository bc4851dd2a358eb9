//! A task has had the threshold's share of a worker's time through the window, in polls of [`LONG_NS`] and more: it awaits what
//! is always ready, or computes between awaits, and others wait for it at each turn. One single poll is a stuck one.

use taskscope_proto::words;

use super::{S, TASKS, about_row, from, noted, who};
use crate::alerts::memory::SHORT_NS;
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};

/// On average.
const LONG_NS: u64 = 10_000_000;

pub(crate) static RULE: Rule = Rule {
    name: "TaskNeverYields",
    about: "through the window a task has been in polls for the threshold's share of the time, of 10 ms and more each",
    unit: Unit::Ratio,
    defaults: &[from(Severity::Warning, 0.9).over(10 * S)],
    remembers_ns: SHORT_NS,
    matches: &TASKS,
    opt_in: false,
    clock: Clock::Target,
    standing: None,
    read,
};

fn read(scene: &Scene<'_>, setting: &Setting) -> Seen {
    let model = scene.model;
    let at_ns = model.frame.at_ns;
    let readings = scene.memory.tasks.iter().filter_map(|(&id, work)| {
        let row = model.row(id)?;
        let began_ns = at_ns.saturating_sub(setting.window_ns);
        let before = work.before(began_ns)?;
        let busy_ns = row.busy_ns.saturating_sub(before.busy_ns);
        let polls = row.polls.saturating_sub(before.polls);
        let each_ns = busy_ns.checked_div(polls).filter(|&ns| ns >= LONG_NS)?;
        let ratio = (busy_ns as f64 / setting.window_ns as f64).min(1.0);
        if ratio < scene.matters_from {
            return None;
        }
        let summary = format!(
            "NEVER YIELDS: {} has had {:.0} % of a worker for {}, in polls of {}. Do: move its work to spawn_blocking, or let \
             it yield between parts of it.",
            who(row),
            ratio * 100.0,
            words::duration(setting.window_ns),
            words::duration(each_ns)
        );
        let labels = about_row(row, scene.runtime(row.runtime.0));
        Some(noted(Reading::new(labels, ratio, summary), row))
    });
    Seen::Readings(readings.collect())
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::*;
    use crate::alerts::rules::fixture::{readings_after, task_frames};

    #[test]
    fn long_polls_one_after_another_are_told_and_short_ones_and_a_single_one_are_not() {
        let said = |polls_a_second: u64| {
            readings_after(
                &RULE,
                task_frames(|second| v1::TaskRows {
                    polls: vec![second * polls_a_second, 0],
                    busy_ns: vec![second * S * 98 / 100, second * S],
                    ..Default::default()
                }),
            )
        };
        let found = said(20);
        assert_eq!(
            found.iter().map(|it| it.summary.as_str()).collect::<Vec<_>>(),
            [
                "NEVER YIELDS: task mailer has had 98 % of a worker for 10 s, in polls of 49 ms. Do: move its work to \
                 spawn_blocking, or let it yield between parts of it."
            ]
        );
        assert_eq!(said(2_000), []);
    }
}
