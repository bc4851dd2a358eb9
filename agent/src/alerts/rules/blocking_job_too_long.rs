//! A job has been on a thread of a blocking pool for the threshold. Only jobs that were spawned through the probe are known.

use taskscope_proto::v1;
use taskscope_proto::words;

use super::{MINUTE, TASKS, about, from, seconds};
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};
use crate::rules::{doing, what};

pub(crate) static RULE: Rule = Rule {
    name: "BlockingJobTooLong",
    about: "a job of a blocking pool has run for the threshold and still does",
    unit: Unit::Seconds,
    defaults: &[from(Severity::Warning, 5.0 * MINUTE)],
    remembers_ns: 0,
    matches: &TASKS,
    opt_in: false,
    clock: Clock::Target,
    standing: None,
    read,
};

fn read(scene: &Scene<'_>, _: &Setting) -> Seen {
    let model = scene.model;
    let runtime = only_runtime(scene);
    let polls = model.frame.threads.iter().filter_map(|thread| thread.poll.as_ref());
    let jobs = polls.filter(|poll| poll.kind() == v1::TaskKind::Blocking);
    let jobs = jobs.filter(|poll| seconds(poll.since_ns) >= scene.matters_from);
    let readings = jobs.map(|poll| {
        let doing = doing(model, poll).map_or(String::new(), |doing| format!(", {doing}"));
        let line = model.line(poll);
        let told = line.as_ref().map_or(String::new(), |line| format!(", {line}"));
        let summary = format!(
            "LONG JOB {}: {} keeps a thread of the blocking pool{doing}{told}. Do: give what it waits for a timeout, or a \
             thread of its own if it is meant to go on.",
            words::duration(poll.since_ns),
            what(model, poll)
        );
        let mut reading = Reading::new(about(model, poll), seconds(poll.since_ns), summary);
        if let Some(runtime) = runtime {
            reading = reading.with("runtime", runtime);
        }
        reading = reading.of_class(poll.task_class());
        match line {
            Some(line) => reading.with("line", line),
            None => reading,
        }
    });
    Seen::Readings(readings.collect())
}

/// A target does not tell on which pool a job runs. `None`: it may be one of several.
fn only_runtime<'a>(scene: &Scene<'a>) -> Option<&'a str> {
    let pools = scene.model.frame.pools.iter().filter(|pool| pool.kind() == v1::pool::Kind::Blocking);
    let mut at_work = pools.filter(|pool| pool.busy != Some(0));
    let pool = at_work.next().filter(|_| at_work.next().is_none())?;
    Some(scene.runtime(pool.runtime_id)).filter(|runtime| !runtime.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::rules::fixture::{S, readings, scene_of};
    use crate::rules::fixture::poll;

    #[test]
    fn a_job_is_told_and_the_body_of_main_is_not() {
        let thread = |kind: v1::TaskKind, name_sid| v1::Thread {
            poll: Some(v1::LivePoll { kind: kind.into(), name_sid, label_sid: 0, ..poll(400 * S) }),
            ..Default::default()
        };
        let threads = vec![thread(v1::TaskKind::Blocking, 3), thread(v1::TaskKind::Main, 0)];
        let found = readings(&RULE, &scene_of(v1::Frame { threads, ..Default::default() }));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].summary.starts_with(
                "LONG JOB 6m40s: task mailer (spawned at axum/src/serve/mod.rs:399:17) keeps a thread of the blocking pool, \
                 asleep in clock_nanosleep."
            ),
            "{}",
            found[0].summary
        );
    }
    #[test]
    fn whose_pool_it_is_on_is_told_where_only_one_is_at_work() {
        let told = |busy: [u64; 2]| {
            let poll = Some(v1::LivePoll { kind: v1::TaskKind::Blocking.into(), ..poll(400 * S) });
            let threads = vec![v1::Thread { poll, ..Default::default() }];
            let runtimes = [1, 2].map(|id| v1::Runtime { id, ..Default::default() }).to_vec();
            let pool = |(runtime_id, busy)| v1::Pool {
                kind: v1::pool::Kind::Blocking.into(),
                runtime_id,
                busy: Some(busy),
                ..Default::default()
            };
            let pools = (1..).zip(busy).map(pool).collect();
            let found =
                readings(&RULE, &scene_of(v1::Frame { threads, runtimes, pools, ..Default::default() }));
            found[0].annotations.get("runtime").cloned()
        };
        assert_eq!(told([0, 1]).as_deref(), Some("tokio-2"));
        assert_eq!(told([3, 1]), None);
    }
}
