//! More tasks than the threshold wait in the run queues of a runtime, and through the window there were more and more: in its
//! second half there were never as few as in its first, and many all the time.

use taskscope_proto::words;

use super::{S, SERVICES, about_runtime, from, rests};
use crate::alerts::memory::{SHORT_NS, Series};
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};

/// The part of the threshold that waits all the time in the second half of the window.
const LONG: f64 = 0.25;

pub(crate) static RULE: Rule = Rule {
    name: "ReadyQueueGrowing",
    about: "as many tasks as the threshold wait for a worker, and the fewest at a time have grown by half through the window, to \
            a quarter of the threshold or more",
    unit: Unit::Count,
    defaults: &[keeps(from(Severity::Warning, 200.0).over(20 * S))],
    remembers_ns: SHORT_NS,
    matches: &SERVICES,
    opt_in: false,
    clock: Clock::Target,
    standing: None,
    read,
};

const fn keeps(mut setting: Setting) -> Setting {
    setting.timing.keep_firing_ns = 30 * S;
    setting
}

fn read(scene: &Scene<'_>, setting: &Setting) -> Seen {
    let (mut readings, mut unknown) = (Vec::new(), Vec::new());
    for runtime in scene.model.frame.runtimes.iter().filter(|runtime| !rests(runtime)) {
        let ready = runtime.ready_tasks.or(runtime.global_queue);
        let queue = scene.memory.queues.get(&runtime.id);
        let fewest = queue.and_then(|queue| fewest(queue, scene.model.frame.at_ns, setting.window_ns));
        let (ready, fewest_early, fewest_late) = match (ready, fewest) {
            (Some(ready), Some((early, late))) => (ready, early, late),
            // However it has changed, it is short.
            (Some(ready), None) if (ready as f64) < setting.threshold => continue,
            _ => {
                unknown.push(about_runtime(scene, runtime));
                continue;
            }
        };
        let has_grown = fewest_late * 2 >= fewest_early * 3;
        // A burst on a queue that is never quite empty is no growth.
        let is_long = fewest_late as f64 >= setting.threshold * LONG;
        if !has_grown || !is_long || (ready as f64) < scene.matters_from {
            continue;
        }
        let oldest =
            runtime.oldest_ready_ns.map_or(String::new(), |ns| format!(", oldest {}", words::duration(ns)));
        let summary = format!(
            "QUEUE GROWS: {} tasks are ready and wait for a worker{oldest}; {} was the fewest {} ago. Do: find what keeps \
             its {} workers busy, or let less work in.",
            words::count(ready),
            words::count(fewest_early),
            words::duration(setting.window_ns),
            runtime.workers.len()
        );
        readings.push(Reading::new(about_runtime(scene, runtime), ready as f64, summary));
    }
    Seen::of(
        readings,
        unknown,
        "the target has not told all through the window how many tasks wait for a worker",
    )
}

/// The fewest that waited at a time, in the first half of the window and in its second; `None`: one of them was not seen.
fn fewest(queue: &Series<u64>, at_ns: u64, window_ns: u64) -> Option<(u64, u64)> {
    let (began_ns, middle_ns) = (at_ns.saturating_sub(window_ns), at_ns.saturating_sub(window_ns / 2));
    queue.first().filter(|(first, _)| *first <= began_ns)?;
    let late = queue.since(middle_ns).count();
    let all: Vec<u64> = queue.since(began_ns).collect();
    let (early, late) = all.split_at(all.len() - late);
    Some((early.iter().min().copied()?, late.iter().min().copied()?))
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::*;
    use crate::alerts::memory::Memory;
    use crate::alerts::rules::fixture::{readings_after, scene_of, unknown_to};

    fn frame(second: u64, ready_tasks: Option<u64>) -> v1::Frame {
        let runtimes = vec![v1::Runtime { id: 1, ready_tasks, ..Default::default() }];
        v1::Frame { at_ns: second * S, runtimes, ..Default::default() }
    }

    fn said(ready: impl Fn(u64) -> u64) -> Vec<Reading> {
        readings_after(&RULE, (0..30).map(|second| frame(second, Some(ready(second)))))
    }

    #[test]
    fn a_queue_of_which_nothing_is_told_any_more_is_not_taken_for_an_empty_one() {
        let (mut model, mut memory) = (scene_of(v1::Frame::default()), Memory::default());
        let mut is_unknown = |second: u64, ready: Option<u64>| {
            model.apply(frame(second, ready));
            memory.take(&model);
            let scene = Scene::of(&model, &memory);
            let is_unknown = matches!(read(&scene, &RULE.defaults[0]), Seen::Partly { .. });
            if is_unknown {
                assert_eq!(unknown_to(&RULE, &scene)[0].get("runtime"), Some("tokio"));
            }
            is_unknown
        };
        for second in 0..30 {
            let is_long = second * 40 >= 200;
            assert_eq!(is_unknown(100 + second, Some(second * 40)), is_long && second < 20, "{second}");
        }
        assert!((130..160).all(|second| is_unknown(second, None)));
        // It is told again, and what it was meanwhile is not known; but a short queue is one.
        assert!(is_unknown(161, Some(900)));
        assert!(!is_unknown(162, Some(20)));
    }

    #[test]
    fn a_queue_that_grows_is_told_and_one_that_is_long_or_bursts_is_not() {
        let grows = said(|second| second * 40);
        assert_eq!(
            grows.iter().map(|it| (it.value, it.summary.as_str())).collect::<Vec<_>>(),
            [(
                1160.0,
                "QUEUE GROWS: 1 160 tasks are ready and wait for a worker; 360 was the fewest 20 s ago. Do: find what keeps \
                 its 0 workers busy, or let less work in."
            )]
        );
        assert_eq!(said(|_| 900), []);
        assert_eq!(said(|second| if second % 5 == 0 { 0 } else { second * 40 }), []);
        let last_burst = |second| if second == 29 { 900 } else { 1 + second / 15 };
        assert_eq!(
            said(last_burst),
            [],
            "there are never fewer than two in the second half, and one in the first"
        );
    }
}
