//! The workers of a runtime are busy for the threshold's share of the time, taken together.

use super::{S, SERVICES, about_runtime, from, rests};
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};

pub(crate) static RULE: Rule = Rule {
    name: "RuntimeBusy",
    about: "the workers of a runtime are busy for the threshold's share of their time",
    unit: Unit::Ratio,
    defaults: &[from(Severity::Warning, 0.95).holding(30 * S)],
    remembers_ns: 0,
    matches: &SERVICES,
    opt_in: false,
    clock: Clock::Target,
    standing: None,
    read,
};

fn read(scene: &Scene<'_>, setting: &Setting) -> Seen {
    let (mut readings, mut unknown) = (Vec::new(), Vec::new());
    for runtime in &scene.model.frame.runtimes {
        let busy: Vec<f64> = runtime.workers.iter().filter_map(|worker| worker.busy_ratio).collect();
        if busy.is_empty() {
            if !rests(runtime) {
                unknown.push(about_runtime(scene, runtime));
            }
            continue;
        }
        let mean = busy.iter().sum::<f64>() / busy.len() as f64;
        if mean < scene.matters_from {
            continue;
        }
        let summary = format!(
            "BUSY: the {} worker{} of runtime {} are busy for {:.0} % of their time, for {} or longer. Do: see which tasks \
             use them (`taskscope tasks --sort busy`), or give it more workers.",
            busy.len(),
            if busy.len() == 1 { "" } else { "s" },
            scene.runtime(runtime.id),
            mean * 100.0,
            taskscope_proto::words::duration(setting.timing.for_ns)
        );
        readings.push(
            Reading::new(about_runtime(scene, runtime), mean, summary).with("workers", runtime.workers.len()),
        );
    }
    Seen::of(readings, unknown, "the target does not tell how busy its workers are")
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::*;
    use crate::alerts::rules::fixture::{memory_of, readings, scene_of, unknown_to};

    #[test]
    fn workers_are_taken_together_and_one_that_is_not_known_is_left_out() {
        let worker = |busy_ratio| v1::Worker { busy_ratio, ..Default::default() };
        let workers = vec![worker(Some(1.0)), worker(Some(0.9)), worker(None)];
        let known = v1::Runtime { id: 1, workers, ..Default::default() };
        let unknown = v1::Runtime { id: 2, workers: vec![worker(None)], ..Default::default() };
        let found =
            readings(&RULE, &scene_of(v1::Frame { runtimes: vec![known, unknown], ..Default::default() }));
        assert_eq!(found.len(), 1);
        assert!((found[0].value - 0.95).abs() < 1e-9);
        assert!(
            found[0]
                .summary
                .starts_with("BUSY: the 2 workers of runtime tokio are busy for 95 % of their time")
        );
    }
    #[test]
    fn of_workers_that_are_not_told_nothing_is_said_unless_they_have_nothing_to_do() {
        let runtime = |id, alive_tasks, busy_ratio| v1::Runtime {
            id,
            alive_tasks,
            workers: vec![v1::Worker { busy_ratio, ..Default::default() }],
            ..Default::default()
        };
        let runtimes =
            vec![runtime(1, Some(3), Some(0.5)), runtime(2, Some(9), None), runtime(3, Some(0), None)];
        let model = scene_of(v1::Frame { runtimes, ..Default::default() });
        let memory = memory_of(&model);
        let unknown = unknown_to(&RULE, &Scene::of(&model, &memory));
        assert_eq!(unknown.iter().map(|it| it.get("runtime")).collect::<Vec<_>>(), [Some("tokio-2")]);
    }
}
