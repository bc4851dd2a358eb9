//! The workers of a runtime are busy for the threshold's share of the time, taken together.

use super::{S, SERVICES, about_runtime, from};
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
    let readings = scene.model.frame.runtimes.iter().filter_map(|runtime| {
        let busy: Vec<f64> = runtime.workers.iter().filter_map(|worker| worker.busy_ratio).collect();
        if busy.is_empty() {
            return None;
        }
        let mean = busy.iter().sum::<f64>() / busy.len() as f64;
        let summary = format!(
            "BUSY: the {} worker{} of runtime {} are busy for {:.0} % of their time, for {} or longer. Do: see which tasks \
             use them (`taskscope tasks --sort busy`), or give it more workers.",
            busy.len(),
            if busy.len() == 1 { "" } else { "s" },
            super::runtime_name(runtime),
            mean * 100.0,
            taskscope_proto::words::duration(setting.timing.for_ns)
        );
        Some(Reading::new(about_runtime(runtime), mean, summary))
    });
    let readings: Vec<Reading> = readings.collect();
    if readings.is_empty() && !scene.model.frame.runtimes.is_empty() {
        return Seen::Missing("the target does not tell how busy its workers are".to_owned());
    }
    Seen::Readings(readings)
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::*;
    use crate::alerts::rules::fixture::{readings, scene_of};

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
}
