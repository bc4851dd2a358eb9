//! In the last seconds at least [`MIN_SLOW`] polls of a label (or of a group that no label explains) took as long as the
//! probe's threshold, and they are not a rare exception: one in [`ONE_IN`] or more.

use taskscope_proto::v1::{LivePoll, PollStats, StackShare, event::Kind};
use taskscope_proto::words;

use super::{Finding, RAISE_QUOTA, Severity};
use crate::model::Model;

const MIN_SLOW: u64 = 3;
const ONE_IN: u64 = 1000;
/// Slow polls of this time say whether it is the quota.
const LATEST_NS: u64 = 10_000_000_000;

pub(crate) fn check(model: &Model) -> Vec<Finding> {
    let mut found: Vec<(u64, String)> = Vec::new();
    let mut explained = 0;
    for label in model.labels() {
        let Some(polls) = label.polls.as_ref().filter(|polls| is_slow(polls)) else { continue };
        explained += polls.slow_window;
        let who = model.some_text(label.label_sid).unwrap_or("other labels").to_owned();
        let is_one = |poll: &LivePoll| poll.label_sid == label.label_sid;
        let (quota, line) = (quota_share(model, is_one), line(model, is_one));
        found.push((polls.slow_window, sentence(&format!("{who} polls"), polls, quota, line.as_deref())));
    }
    for group in model.groups() {
        // Jobs of the blocking pool may take their time: their runs are no polls of a worker.
        let polls = group.polls.as_ref().filter(|polls| group.queue_wait.is_none() && is_slow(polls));
        let Some(polls) = polls else { continue };
        if polls.slow_window <= explained {
            continue;
        }
        let site = model.some_text(group.spawned_at_sid);
        let who = match (model.some_text(group.name_sid), site) {
            (Some(name), _) => format!("polls of task {name}"),
            (None, Some(site)) => format!("polls of tasks spawned at {site} (no label)"),
            (None, None) => "polls of ungrouped tasks".to_owned(),
        };
        let is_one = |poll: &LivePoll| poll.group_id == group.id;
        let (quota, line) = (quota_share(model, is_one), line(model, is_one));
        found.push((polls.slow_window, sentence(&who, polls, quota, line.as_deref())));
    }
    found.sort_by_key(|(slow, _)| std::cmp::Reverse(*slow));
    found.into_iter().map(|(_, sentence)| Finding { severity: Severity::Warning, sentence }).collect()
}

fn is_slow(polls: &PollStats) -> bool {
    polls.slow_window >= MIN_SLOW && polls.slow_window * ONE_IN >= polls.polls_window
}

/// The latest slow polls of one kind.
fn latest(model: &Model, is_one: impl Fn(&LivePoll) -> bool) -> impl Iterator<Item = &LivePoll> {
    let latest = model.events.iter().rev().filter(|event| event.kind() == Kind::PollSlow);
    let since_ns = model.frame.at_ns.saturating_sub(LATEST_NS);
    latest
        .take_while(move |event| event.at_ns > since_ns)
        .filter_map(|event| event.poll.as_ref())
        .filter(move |poll| is_one(poll))
}

/// The part of the latest slow polls in which the CPU quota was used up, 0 to 1; `None` where that is not known.
fn quota_share(model: &Model, is_one: impl Fn(&LivePoll) -> bool) -> Option<f64> {
    let looked = latest(model, is_one).filter_map(|poll| poll.activity);
    let told = looked.filter_map(|activity| Some((activity.throttled_ns?, activity.observed_ns)));
    let (throttled_ns, observed_ns) = told.fold((0, 0), |(t, o), (ns, of)| (t + ns, o + of));
    (observed_ns > 0).then(|| throttled_ns as f64 / observed_ns as f64)
}

/// The line that took the most of the latest slow polls: `most of it in bcrypt::hash, src/login.rs:40`.
fn line(model: &Model, is_one: impl Fn(&LivePoll) -> bool) -> Option<String> {
    let shares: Vec<StackShare> =
        latest(model, is_one).flat_map(|poll| poll.stacks.iter().copied()).collect();
    let spent = model.stacks.by_line(&shares);
    let all_ns: u64 = spent.iter().map(|spent| spent.covered_ns).fold(0, u64::saturating_add);
    let most = spent.first()?;
    let share = most.covered_ns as f64 / all_ns.max(1) as f64;
    Some(match share {
        0.9.. => format!("in {}", most.on),
        0.5.. => format!("most of it in {}", most.on),
        _ => format!("{:.0} % of it in {}", share * 100.0, most.on),
    })
}

/// `SLOW: POST /login polls take 212 ms (p99), all of it on CPU, in bcrypt::hash, src/login.rs:40; move it to spawn_blocking.`
fn sentence(who: &str, polls: &PollStats, quota: Option<f64>, line: Option<&str>) -> String {
    let one_in = (polls.polls_window / polls.slow_window.max(1)).max(1);
    // The 99th percentile tells a poll that is always slow; of a rarer one it shows nothing.
    let takes = match (polls.p99_window_ns, polls.max_window_ns) {
        (Some(p99), _) if one_in <= 100 => format!("take {} (p99)", words::duration(p99)),
        (_, Some(max)) => format!("take up to {} (one in {})", words::duration(max), words::count(one_in)),
        _ => "are slow".to_owned(),
    };
    let (on_cpu, remedy) = match polls.slow_on_cpu_ratio {
        // The code is not to blame for what the quota took.
        _ if quota >= Some(0.5) => {
            let percent = quota.unwrap_or_default() * 100.0;
            (format!(", throttled {percent:.0} % of it by the CPU quota"), RAISE_QUOTA)
        }
        Some(ratio) if ratio >= 0.9 => (", all of it on CPU".to_owned(), "move it to spawn_blocking"),
        Some(ratio) if ratio <= 0.1 => (
            ", asleep and not on CPU".to_owned(),
            "await the asynchronous call instead, or move it to spawn_blocking",
        ),
        Some(ratio) => (format!(", {:.0} % of it on CPU", ratio * 100.0), "move it to spawn_blocking"),
        None => (String::new(), "move what blocks to spawn_blocking"),
    };
    let line = line.map_or(String::new(), |line| format!(", {line}"));
    format!("SLOW: {who} {takes}{on_cpu}{line}; {remedy}.")
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{MS, S, model, sentences};
    use super::*;
    use crate::interned::fixture::{hashing, share, sleeping};
    use taskscope_proto::v1;

    fn slow(slow_window: u64, polls_window: u64) -> PollStats {
        PollStats {
            slow_window,
            polls_window,
            p99_window_ns: Some(212 * MS),
            max_window_ns: Some(230 * MS),
            slow_on_cpu_ratio: Some(0.98),
            ..Default::default()
        }
    }

    fn said(labels: Vec<v1::Label>, groups: Vec<v1::Group>) -> Vec<String> {
        let groups = v1::GroupWindow { labels, groups, ..Default::default() };
        let model = model(v1::Frame { groups: Some(groups), ..Default::default() });
        sentences(&check(&model)).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_slow_route_is_named_and_its_connections_are_not_named_again() {
        let label = v1::Label { label_sid: 1, polls: Some(slow(30, 40)), ..Default::default() };
        let connections = v1::Group { spawned_at_sid: 2, polls: Some(slow(30, 9000)), ..Default::default() };
        assert_eq!(
            said(vec![label], vec![connections]),
            ["SLOW: POST /resize polls take 212 ms (p99), all of it on CPU; move it to spawn_blocking."]
        );
    }

    #[test]
    fn jobs_of_the_blocking_pool_may_take_their_time() {
        let jobs = v1::Group {
            name_sid: 3,
            polls: Some(slow(30, 40)),
            queue_wait: Some(v1::QueueWait { started_total: 40, ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(said(vec![], vec![jobs.clone()]), Vec::<String>::new());
        assert_eq!(said(vec![], vec![v1::Group { queue_wait: None, ..jobs }]).len(), 1);
    }

    #[test]
    fn without_labels_the_group_is_named_by_name_or_spawn_site() {
        let mailer =
            v1::Group { name_sid: 3, spawned_at_sid: 4, polls: Some(slow(3, 10)), ..Default::default() };
        let nameless = v1::Group { spawned_at_sid: 2, polls: Some(slow(5, 2000)), ..Default::default() };
        assert_eq!(
            said(vec![], vec![mailer, nameless]),
            [
                "SLOW: polls of tasks spawned at axum/src/serve/mod.rs:399:17 (no label) take up to 230 ms (one in 400), \
                 all of it on CPU; move it to spawn_blocking.",
                "SLOW: polls of task mailer take 212 ms (p99), all of it on CPU; move it to spawn_blocking.",
            ]
        );
    }

    #[test]
    fn what_the_quota_took_is_not_blamed_on_the_code() {
        let label = v1::Label { label_sid: 1, polls: Some(slow(30, 40)), ..Default::default() };
        let event = |seq, label_sid, throttled_ns| v1::Event {
            seq,
            at_ns: 95 * S,
            kind: Kind::PollSlow.into(),
            poll: Some(v1::LivePoll {
                label_sid,
                activity: Some(v1::ThreadActivity {
                    observed_ns: 200 * MS,
                    throttled_ns: Some(throttled_ns),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let said = |throttled_ns| {
            let groups = v1::GroupWindow { labels: vec![label.clone()], ..Default::default() };
            // The one without that label says nothing about it.
            let events = vec![event(1, 1, throttled_ns), event(2, 3, 200 * MS)];
            let model = model(v1::Frame { groups: Some(groups), events, ..Default::default() });
            sentences(&check(&model)).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            said(160 * MS),
            [
                "SLOW: POST /resize polls take 212 ms (p99), throttled 80 % of it by the CPU quota; raise the CPU quota \
                 of its cgroup, or let it use less CPU."
            ]
        );
        assert_eq!(
            said(20 * MS),
            ["SLOW: POST /resize polls take 212 ms (p99), all of it on CPU; move it to spawn_blocking."]
        );
    }

    #[test]
    fn the_line_that_took_the_most_of_the_slow_polls_is_told() {
        let label = v1::Label { label_sid: 1, polls: Some(slow(30, 40)), ..Default::default() };
        let event = |seq, stack_sid, covered_ns| v1::Event {
            seq,
            at_ns: 95 * S,
            kind: Kind::PollSlow.into(),
            poll: Some(v1::LivePoll {
                label_sid: 1,
                stacks: vec![share(stack_sid, 2, covered_ns)],
                ..Default::default()
            }),
            ..Default::default()
        };
        let said = |events: Vec<v1::Event>| {
            let groups = v1::GroupWindow { labels: vec![label.clone()], ..Default::default() };
            let mut model = model(v1::Frame { groups: Some(groups), events, ..Default::default() });
            model.stacks.insert(1, hashing());
            model.stacks.insert(2, sleeping(7));
            sentences(&check(&model)).join("\n")
        };
        assert_eq!(
            said(vec![event(1, 1, 200 * MS), event(2, 1, 210 * MS)]),
            "SLOW: POST /resize polls take 212 ms (p99), all of it on CPU, in bcrypt::hash, src/login.rs:40; move it to \
             spawn_blocking."
        );
        assert_eq!(
            said(vec![event(1, 1, 200 * MS), event(2, 2, 90 * MS)]),
            "SLOW: POST /resize polls take 212 ms (p99), all of it on CPU, most of it in bcrypt::hash, src/login.rs:40; \
             move it to spawn_blocking."
        );
        // Those of long ago tell nothing of now.
        let old = v1::Event { at_ns: 80 * S, ..event(1, 1, 200 * MS) };
        assert_eq!(
            said(vec![old]),
            "SLOW: POST /resize polls take 212 ms (p99), all of it on CPU; move it to spawn_blocking."
        );
    }

    #[test]
    fn two_slow_polls_or_a_rare_exception_are_no_finding() {
        let label = |polls| v1::Label { label_sid: 1, polls: Some(polls), ..Default::default() };
        assert_eq!(said(vec![label(slow(2, 2)), label(slow(3, 3001))], vec![]), Vec::<String>::new());
    }
}
