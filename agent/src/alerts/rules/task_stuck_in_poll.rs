//! A poll that is still running has run for longer than the threshold. Its worker runs nothing else meanwhile.

use std::collections::BTreeMap;

use taskscope_proto::v1;

use super::{TASKS, about, from, seconds};
use crate::alerts::labels::Labels;
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};
use crate::rules::stuck_worker::{main_sentence, sentence};

pub(crate) static RULE: Rule = Rule {
    name: "TaskStuckInPoll",
    about: "a poll is still running and has been for the threshold",
    unit: Unit::Seconds,
    defaults: &[from(Severity::Warning, 1.0), from(Severity::Critical, 10.0)],
    remembers_ns: 0,
    matches: &TASKS,
    opt_in: false,
    clock: Clock::Target,
    standing: None,
    read,
};

fn read(scene: &Scene<'_>, _: &Setting) -> Seen {
    let model = scene.model;
    let mut readings = Vec::new();
    for runtime in &model.frame.runtimes {
        let mut polls: BTreeMap<Labels, Vec<(&v1::Worker, &v1::LivePoll)>> = BTreeMap::new();
        for worker in &runtime.workers {
            if let Some(poll) = &worker.poll {
                let labels = about(model, poll).with("runtime", scene.runtime(runtime.id));
                polls.entry(labels).or_default().push((worker, poll));
            }
        }
        for (labels, polls) in polls {
            let longest = polls.iter().map(|(_, poll)| *poll).max_by_key(|poll| poll.since_ns);
            let longest = longest.filter(|poll| seconds(poll.since_ns) >= scene.matters_from);
            let (Some(longest), Some(summary)) =
                (longest, longest.and_then(|_| sentence(model, runtime, &polls)))
            else {
                continue;
            };
            readings.push(noted(scene, longest, Reading::new(labels, seconds(longest.since_ns), summary)));
        }
    }
    for poll in model.frame.threads.iter().filter_map(|thread| thread.poll.as_ref()) {
        if poll.kind() == v1::TaskKind::Main {
            let reading =
                Reading::new(about(model, poll), seconds(poll.since_ns), main_sentence(model, poll));
            readings.push(noted(scene, poll, reading));
        }
    }
    Seen::Readings(readings)
}

/// What cannot be in labels.
fn noted(scene: &Scene<'_>, poll: &v1::LivePoll, mut reading: Reading) -> Reading {
    if poll.task_id != 0 {
        reading = reading.with("task_id", poll.task_id);
    }
    if let Some(site) = scene.model.some_text(poll.spawned_at_sid) {
        reading = reading.with("spawned_at", site);
    }
    reading = reading.of_class(poll.task_class());
    match scene.model.line(poll) {
        Some(line) => reading.with("line", line),
        None => reading,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::rules::fixture::{readings, scene_of};
    use crate::rules::fixture::{MS, poll};

    #[test]
    fn polls_of_one_kind_are_one_reading_and_the_longest_is_its_value() {
        let worker = |since_ns, label_sid| v1::Worker {
            state: v1::worker::State::InPoll.into(),
            poll: Some(v1::LivePoll { label_sid, task_class: v1::TaskClass::Work.into(), ..poll(since_ns) }),
            ..Default::default()
        };
        let workers = vec![worker(1_200 * MS, 1), worker(3_200 * MS, 1), worker(40 * MS, 0)];
        let runtimes = vec![v1::Runtime { id: 1, workers, ..Default::default() }];
        let model = scene_of(v1::Frame { runtimes, ..Default::default() });
        let found = readings(&RULE, &model);
        assert_eq!(found.len(), 2);
        let labelled = found.iter().find(|it| it.labels.get("label").is_some()).expect("it has a label");
        assert_eq!(
            labelled.labels.iter().collect::<Vec<_>>(),
            [("label", "POST /resize"), ("runtime", "tokio"), ("task_group", "axum/src/serve/mod.rs:399:17")]
        );
        assert!((labelled.value - 3.2).abs() < 1e-9);
        assert!(
            labelled
                .summary
                .starts_with("STUCK 3.2 s: 2 of 3 workers, both in POST /resize, asleep in clock_nanosleep."),
            "{}",
            labelled.summary
        );
        assert_eq!(labelled.annotations["task_id"], "17");
        assert_eq!(labelled.annotations["class"], "work");
    }
}
