//! More tasks than the threshold wait in the run queues of a runtime, and through the window there were more and more: its
//! second half began where its first had not come down to.

use taskscope_proto::words;

use super::{S, SERVICES, about_runtime, from};
use crate::alerts::memory::SHORT_NS;
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};

pub(crate) static RULE: Rule = Rule {
    name: "ReadyQueueGrowing",
    about: "as many tasks as the threshold wait for a worker, and the fewest at a time have grown by half through the window",
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
    let at_ns = scene.model.frame.at_ns;
    let (began_ns, middle_ns) =
        (at_ns.saturating_sub(setting.window_ns), at_ns.saturating_sub(setting.window_ns / 2));
    let readings = scene.model.frame.runtimes.iter().filter_map(|runtime| {
        let queue = scene.memory.queues.get(&runtime.id)?;
        queue.first().filter(|(first, _)| *first <= began_ns)?;
        let fewest_late = queue.since(middle_ns).min()?;
        let late = queue.since(middle_ns).count();
        let all: Vec<u64> = queue.since(began_ns).collect();
        let fewest_early = all[..all.len() - late].iter().min().copied()?;
        let ready = runtime.ready_tasks.or(runtime.global_queue)?;
        if fewest_late * 2 < fewest_early * 3 || fewest_late == 0 {
            return None;
        }
        let oldest = runtime.oldest_ready_ns.map_or(String::new(), |ns| format!(", oldest {}", words::duration(ns)));
        let summary = format!(
            "QUEUE GROWS: {} tasks are ready and wait for a worker{oldest}; {} was the fewest {} ago. Do: find what keeps \
             its {} workers busy, or let less work in.",
            words::count(ready),
            words::count(fewest_early),
            words::duration(setting.window_ns),
            runtime.workers.len()
        );
        Some(Reading::new(about_runtime(runtime), ready as f64, summary))
    });
    Seen::Readings(readings.collect())
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::*;
    use crate::alerts::rules::fixture::readings_after;

    fn said(ready: impl Fn(u64) -> u64) -> Vec<Reading> {
        let frames = (0..30).map(|second| v1::Frame {
            at_ns: second * S,
            runtimes: vec![v1::Runtime { id: 1, ready_tasks: Some(ready(second)), ..Default::default() }],
            ..Default::default()
        });
        readings_after(&RULE, frames)
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
    }
}
