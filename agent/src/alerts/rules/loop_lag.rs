//! A task that is ready has waited for a worker for the threshold: the longest-waiting of the run queues while no worker takes
//! from them, and every wrapped task.

use std::collections::BTreeMap;

use taskscope_proto::words;

use super::{S, SERVICES, about_runtime, filter_of, from, seconds};
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};

pub(crate) static RULE: Rule = Rule {
    name: "LoopLag",
    about: "a task that is ready has waited for a worker for the threshold",
    unit: Unit::Seconds,
    defaults: &[from(Severity::Warning, 0.25).holding(30 * S), from(Severity::Critical, 2.0).holding(10 * S)],
    remembers_ns: 0,
    matches: &SERVICES,
    opt_in: false,
    clock: Clock::Target,
    standing: Some(|setting| filter_of("state=scheduled since", setting)),
    read,
};

fn read(scene: &Scene<'_>, _: &Setting) -> Seen {
    let model = scene.model;
    // A task that was polled meanwhile is not found any more, whatever its last row says.
    let mut waits: BTreeMap<u32, u64> = BTreeMap::new();
    let found = scene.found.unwrap_or_default().iter().filter_map(|&id| model.row(id));
    for row in found.filter(|row| row.state == taskscope_proto::v1::TaskState::Scheduled) {
        let longest = waits.entry(row.runtime.0).or_default();
        *longest = (*longest).max(row.since_ns);
    }
    let readings = model.frame.runtimes.iter().filter_map(|runtime| {
        let waited_ns = runtime.oldest_ready_ns.max(waits.get(&runtime.id).copied())?;
        let ready = runtime.ready_tasks.or(runtime.global_queue);
        let behind = ready.filter(|&ready| ready > 1).map_or(String::new(), |ready| {
            format!("; {} tasks are ready", words::count(ready))
        });
        let summary = format!(
            "LAG {}: for so long a task of runtime {} has been ready and waits for a worker{behind}. Do: see what its workers \
             are in (`taskscope status`).",
            words::duration(waited_ns),
            super::runtime_name(runtime)
        );
        Some(Reading::new(about_runtime(runtime), seconds(waited_ns), summary))
    });
    Seen::Readings(readings.collect())
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::*;
    use crate::alerts::rules::fixture::{readings, scene_of};

    #[test]
    fn the_longest_wait_of_a_runtime_is_read() {
        let waits = v1::Runtime {
            id: 1,
            oldest_ready_ns: Some(3_100_000_000),
            ready_tasks: Some(41),
            ..Default::default()
        };
        let idle = v1::Runtime { id: 2, ready_tasks: Some(3), ..Default::default() };
        let found =
            readings(&RULE, &scene_of(v1::Frame { runtimes: vec![waits, idle], ..Default::default() }));
        assert_eq!(
            found.iter().map(|it| it.summary.as_str()).collect::<Vec<_>>(),
            [
                "LAG 3.1 s: for so long a task of runtime tokio has been ready and waits for a worker; 41 tasks are ready. Do: \
                 see what its workers are in (`taskscope status`)."
            ]
        );
    }
}
