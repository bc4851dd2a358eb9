//! A task that is ready has waited for a worker for the threshold: the longest-waiting of the run queues while no worker takes
//! from them, and every wrapped task.

use std::collections::BTreeMap;

use taskscope_proto::row::TaskRow;
use taskscope_proto::v1;
use taskscope_proto::words;

use super::{S, SERVICES, about_runtime, filter_of, from, rests, seconds};
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
    standing: Some(|setting| filter_of("state=scheduled kind!=blocking since", setting)),
    read,
};

fn read(scene: &Scene<'_>, setting: &Setting) -> Seen {
    let model = scene.model;
    // A task that was polled meanwhile is not found any more, whatever its last row says.
    let mut waits: BTreeMap<u32, u64> = BTreeMap::new();
    let found = scene.found.unwrap_or_default().iter().filter_map(|&id| model.row(id));
    // A job of the blocking pool waits for a thread of that: see PoolSaturated.
    let is_ready =
        |row: &&TaskRow| row.state == v1::TaskState::Scheduled && row.kind != v1::TaskKind::Blocking;
    for row in found.filter(is_ready) {
        let longest = waits.entry(row.runtime.0).or_default();
        *longest = (*longest).max(row.since_ns);
    }
    let (mut readings, mut unknown) = (Vec::new(), Vec::new());
    for runtime in &model.frame.runtimes {
        let waited_ns = runtime.oldest_ready_ns.max(waits.get(&runtime.id).copied());
        let is_long = waited_ns.is_some_and(|ns| seconds(ns) >= setting.threshold);
        if !is_long && !is_told(scene, runtime) {
            unknown.push(about_runtime(scene, runtime));
            continue;
        }
        let Some(waited_ns) = waited_ns.filter(|&ns| seconds(ns) >= scene.matters_from) else { continue };
        let ready = ready(runtime);
        let behind = ready
            .filter(|&ready| ready > 1)
            .map_or(String::new(), |ready| format!("; {} tasks are ready", words::count(ready)));
        let summary = format!(
            "LAG {}: for so long a task of runtime {} has been ready and waits for a worker{behind}. Do: see what its workers \
             are in (`taskscope status`).",
            words::duration(waited_ns),
            scene.runtime(runtime.id)
        );
        readings.push(Reading::new(about_runtime(scene, runtime), seconds(waited_ns), summary));
    }
    Seen::of(readings, unknown, "the target does not tell what waits for a worker")
}

/// Whether something that waits would be known of. A source that has never told anything is not waited for, if there is another.
fn is_told(scene: &Scene<'_>, runtime: &v1::Runtime) -> bool {
    let queue = ready(runtime).is_some() || runtime.oldest_ready_ns.is_some();
    let has_told = scene.memory.queues.contains_key(&runtime.id);
    let tasks = scene.found.is_some();
    rests(runtime) || (queue || !has_told) && (tasks || !scene.asked) && (queue || tasks)
}

fn ready(runtime: &v1::Runtime) -> Option<u64> {
    runtime.ready_tasks.or(runtime.global_queue)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::rules::fixture::{found_in, memory_of, readings, scene_of, unknown_to};

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

    #[test]
    fn a_task_that_waits_for_a_worker_is_read_and_a_job_that_waits_for_its_thread_is_not() {
        let of = |kind: v1::TaskKind| {
            let tasks = v1::TaskRows {
                id: vec![7],
                state: vec![v1::TaskState::Scheduled.into()],
                kind: vec![kind.into()],
                runtime_id: vec![1],
                since_ns: vec![3 * S],
                ..Default::default()
            };
            let model = scene_of(v1::Frame {
                runtimes: vec![v1::Runtime { id: 1, ready_tasks: Some(0), ..Default::default() }],
                tasks: Some(v1::TaskWindow { order: vec![7], rows: Some(tasks), ..Default::default() }),
                ..Default::default()
            });
            found_in(&RULE, &model, &[7]).iter().map(|it| it.value).collect::<Vec<_>>()
        };
        assert_eq!((of(v1::TaskKind::Wrapped), of(v1::TaskKind::Blocking)), (vec![3.0], vec![]));
    }

    /// Whether nothing can be said of a runtime that tells this now, and has told so many ready tasks before.
    fn is_unknown(before: Option<u64>, now: Option<u64>, found: Option<&[u64]>, asked: bool) -> bool {
        let frame = |ready_tasks| v1::Frame {
            runtimes: vec![v1::Runtime { id: 1, ready_tasks, ..Default::default() }],
            ..Default::default()
        };
        let mut model = scene_of(frame(before));
        let memory = memory_of(&model);
        model.apply(frame(now));
        let scene = Scene { found, asked, ..Scene::of(&model, &memory) };
        match read(&scene, &RULE.defaults[0]) {
            Seen::Readings(readings) => {
                assert_eq!(readings, []);
                false
            }
            _ => {
                assert_eq!(unknown_to(&RULE, &scene)[0].get("runtime"), Some("tokio"));
                true
            }
        }
    }

    #[test]
    fn a_target_that_has_stopped_telling_what_waits_is_not_taken_for_one_in_which_nothing_does() {
        assert!(!is_unknown(Some(3), Some(3), Some(&[]), true));
        assert!(is_unknown(Some(3), None, Some(&[]), true), "its queues");
        assert!(is_unknown(Some(3), Some(3), None, true), "its tasks");
        assert!(is_unknown(None, None, None, false), "anything");
        // A recording, and a probe that knows of wrapped tasks alone.
        assert!(!is_unknown(Some(3), Some(3), None, false));
        assert!(!is_unknown(None, None, Some(&[]), true));
    }
}
