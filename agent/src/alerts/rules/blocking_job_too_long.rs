//! A job has been on a thread of a blocking pool for the threshold. Only jobs that were spawned through the probe are known.

use taskscope_proto::v1;
use taskscope_proto::words;

use super::{MINUTE, POLLS, about, from, seconds};
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};
use crate::rules::{doing, what};

pub(crate) static RULE: Rule = Rule {
    name: "BlockingJobTooLong",
    about: "a job of a blocking pool has run for the threshold and still does",
    unit: Unit::Seconds,
    defaults: &[from(Severity::Warning, 5.0 * MINUTE)],
    remembers_ns: 0,
    matches: &POLLS,
    opt_in: false,
    clock: Clock::Target,
    standing: None,
    read,
};

fn read(scene: &Scene<'_>, _: &Setting) -> Seen {
    let model = scene.model;
    let polls = model.frame.threads.iter().filter_map(|thread| thread.poll.as_ref());
    let jobs = polls.filter(|poll| poll.kind() == v1::TaskKind::Blocking);
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
        let reading = Reading::new(about(model, poll), seconds(poll.since_ns), summary);
        match line {
            Some(line) => reading.with("line", line),
            None => reading,
        }
    });
    Seen::Readings(readings.collect())
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
}
