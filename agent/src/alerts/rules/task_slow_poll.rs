//! Polls that have ended took the threshold or longer, so many of them within the window. A poll shorter than what the probe
//! reports (`Builder::slow_poll_threshold`, 100 ms) is not seen; one that was told while it ran (TaskStuckInPoll) is not told
//! again.

use std::collections::BTreeMap;

use taskscope_proto::v1::{self, event::Kind};
use taskscope_proto::words;

use super::{S, TASKS, about, from, seconds};
use crate::alerts::labels::Labels;
use crate::alerts::memory::EVENTS_NS;
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};
use crate::rules::{doing, remedy, what};

pub(crate) static RULE: Rule = Rule {
    name: "TaskSlowPoll",
    about: "min_count polls within the window have taken the threshold, and have ended",
    unit: Unit::Seconds,
    defaults: &[
        from(Severity::Warning, 0.1).within(60 * S, 3),
        from(Severity::Critical, 1.0).within(60 * S, 1),
    ],
    remembers_ns: EVENTS_NS,
    matches: &TASKS,
    opt_in: false,
    clock: Clock::Target,
    standing: None,
    read,
};

fn read(scene: &Scene<'_>, setting: &Setting) -> Seen {
    let model = scene.model;
    let mut polls: BTreeMap<Labels, Vec<&v1::LivePoll>> = BTreeMap::new();
    for event in model.events.iter().filter(|event| event.kind() == Kind::PollSlow) {
        let is_recent = event.at_ns + setting.window_ns > model.frame.at_ns;
        // A job of the blocking pool may take its time.
        let poll = event.poll.as_ref().filter(|poll| poll.kind() != v1::TaskKind::Blocking);
        let was_told = |poll: &&v1::LivePoll| {
            let seen_ns = scene.memory.seen_running(event, poll);
            seen_ns.zip(scene.stuck_from).is_some_and(|(seen_ns, from)| seconds(seen_ns) >= from)
        };
        if let Some(poll) = poll.filter(|poll| is_recent && !was_told(poll)) {
            polls.entry(about(model, poll)).or_default().push(poll);
        }
    }
    let reading = |(labels, polls)| reading(scene, setting, labels, polls);
    Seen::Readings(polls.into_iter().filter_map(reading).collect())
}

fn reading(
    scene: &Scene<'_>,
    setting: &Setting,
    labels: Labels,
    mut polls: Vec<&v1::LivePoll>,
) -> Option<Reading> {
    polls.sort_by_key(|poll| std::cmp::Reverse(poll.since_ns));
    let longest = *polls.first()?;
    let wanted = usize::try_from(setting.min_count.unwrap_or(1).max(1)).ok()?;
    let count = polls.iter().filter(|poll| seconds(poll.since_ns) >= setting.threshold).count();
    // Where it is not enough of them, what is missing is the next longest.
    let value = if count >= wanted { longest.since_ns } else { polls.get(wanted - 1)?.since_ns };
    let took = match count {
        0 | 1 => format!("took {}", words::duration(longest.since_ns)),
        n => format!(
            "took up to {} ({n} polls of {} or more in the last {})",
            words::duration(longest.since_ns),
            words::duration((setting.threshold * 1e9) as u64),
            words::duration(setting.window_ns)
        ),
    };
    let model = scene.model;
    let doing = doing(model, longest).map_or(String::new(), |doing| format!(", {doing}"));
    let line = model.line(longest);
    let told = line.as_ref().map_or(String::new(), |line| format!(", {line}"));
    let summary =
        format!("SLOW: a poll in {} {took}{doing}{told}. Do: {}.", what(model, longest), remedy(longest));
    let mut reading = Reading::new(labels, seconds(value), summary)
        .with("worst_poll_ms", longest.since_ns / 1_000_000)
        .with("polls", count);
    if let Some(site) = model.some_text(longest.spawned_at_sid) {
        reading = reading.with("spawned_at", site);
    }
    reading = reading.of_class(longest.task_class());
    Some(match line {
        Some(line) => reading.with("line", line),
        None => reading,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::rules::fixture::{readings_of, scene_of};
    use crate::rules::fixture::{MS, poll};

    fn slow(seq: u64, at_ns: u64, since_ns: u64) -> v1::Event {
        v1::Event {
            seq,
            at_ns,
            kind: Kind::PollSlow.into(),
            poll: Some(poll(since_ns)),
            ..Default::default()
        }
    }

    fn read_of(events: Vec<v1::Event>, setting: &Setting) -> Vec<Reading> {
        readings_of(&RULE, setting, &scene_of(v1::Frame { events, ..Default::default() }))
    }

    #[test]
    fn it_takes_so_many_within_the_window() {
        let warning = &RULE.defaults[0];
        let two = vec![slow(1, 90 * S, 120 * MS), slow(2, 95 * S, 412 * MS)];
        assert!(read_of(two.clone(), warning).is_empty());
        let old = slow(3, 30 * S, 200 * MS);
        assert!(read_of([vec![old], two.clone()].concat(), warning).is_empty());
        let three = read_of([two, vec![slow(4, 99 * S, 130 * MS)]].concat(), warning);
        assert_eq!(three.len(), 1);
        assert!((three[0].value - 0.412).abs() < 1e-9);
        assert_eq!(
            three[0].summary,
            "SLOW: a poll in POST /resize took up to 412 ms (3 polls of 100 ms or more in the last 1m00s), asleep in \
             clock_nanosleep. Do: await the asynchronous call instead, or move it to spawn_blocking."
        );
    }

    #[test]
    fn one_is_enough_where_one_is_asked_for_and_jobs_may_take_their_time() {
        let critical = &RULE.defaults[1];
        let one = read_of(vec![slow(1, 90 * S, 2 * S)], critical);
        assert!(one[0].value >= critical.threshold);
        assert_eq!(one[0].annotations.get("class"), None);
        let mut of_class = slow(1, 90 * S, 2 * S);
        if let Some(poll) = &mut of_class.poll {
            poll.task_class = v1::TaskClass::Critical.into();
        }
        let found = read_of(vec![of_class], critical);
        assert_eq!(found[0].annotations.get("class").map(String::as_str), Some("critical"));
        let mut job = slow(1, 90 * S, 2 * S);
        if let Some(poll) = &mut job.poll {
            poll.kind = v1::TaskKind::Blocking.into();
        }
        assert!(read_of(vec![job], critical).is_empty());
    }
}
