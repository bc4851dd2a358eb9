//! A task wakes itself, inside its own polls, as many times a second as the threshold, and hardly anybody else wakes it: it spins.
//! Known of wrapped tasks.

use taskscope_proto::words;

use super::{S, TASKS, about_row, from, noted, who};
use crate::alerts::memory::SHORT_NS;
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};

/// Of its polls, that follow a wake by itself.
const MOST: f64 = 0.9;

pub(crate) static RULE: Rule = Rule {
    name: "SelfWakingLoop",
    about: "through the window a task has woken itself as many times a second as the threshold, before 9 of 10 of its polls",
    unit: Unit::Count,
    defaults: &[from(Severity::Warning, 5_000.0).over(10 * S)],
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
        let before = work.before(at_ns.saturating_sub(setting.window_ns))?;
        let wakes = row.wakes?.by_itself.saturating_sub(before.self_wakes?);
        let polls = row.polls.saturating_sub(before.polls);
        if (wakes as f64) < polls as f64 * MOST {
            return None;
        }
        let rate = wakes as f64 / (setting.window_ns as f64 / 1e9);
        if rate < scene.matters_from {
            return None;
        }
        let summary = format!(
            "SPINS: {} wakes itself {} times a second, for {} or longer, and keeps a worker from parking. Do: let it wait for \
             what it polls for, through a waker that is kept.",
            who(row),
            words::short_count(rate),
            words::duration(setting.window_ns)
        );
        let labels = about_row(row, scene.runtime(row.runtime.0));
        Some(noted(Reading::new(labels, rate, summary), row))
    });
    Seen::Readings(readings.collect())
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::*;
    use crate::alerts::rules::fixture::{readings_after, task_frames};

    #[test]
    fn a_task_that_wakes_itself_all_the_time_spins_and_one_that_others_wake_does_not() {
        // Task 7 wakes itself before each poll, 8 is woken by others.
        let frames = task_frames(|second| v1::TaskRows {
            polls: vec![second * 20_000; 2],
            wakes_plus1: vec![second * 20_000 + 1; 2],
            self_wakes_plus1: vec![second * 20_000 + 1, second * 100 + 1],
            wakers_plus1: vec![2; 2],
            ..Default::default()
        });
        let found = readings_after(&RULE, frames);
        assert_eq!(found.len(), 1);
        assert!((found[0].value - 20_000.0).abs() < 1_000.0, "{}", found[0].value);
        assert_eq!(
            found[0].summary,
            "SPINS: task mailer wakes itself 20 k times a second, for 10 s or longer, and keeps a worker from parking. Do: let \
             it wait for what it polls for, through a waker that is kept."
        );
    }
}
