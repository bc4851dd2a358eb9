//! In the last seconds at least [`MIN_SLOW`] polls of a label (or of a group that no label explains) took as long as the
//! probe's threshold, and they are not a rare exception: one in [`ONE_IN`] or more.

use taskscope_proto::v1::PollStats;
use taskscope_proto::words;

use super::{Finding, Severity};
use crate::model::Model;

const MIN_SLOW: u64 = 3;
const ONE_IN: u64 = 1000;

pub(crate) fn check(model: &Model) -> Vec<Finding> {
    let mut found: Vec<(u64, String)> = Vec::new();
    let mut explained = 0;
    for label in model.labels() {
        let Some(polls) = label.polls.as_ref().filter(|polls| is_slow(polls)) else { continue };
        explained += polls.slow_window;
        let who = model.some_text(label.label_sid).unwrap_or("other labels").to_owned();
        found.push((polls.slow_window, sentence(&format!("{who} polls"), polls)));
    }
    for group in model.groups() {
        let Some(polls) = group.polls.as_ref().filter(|polls| is_slow(polls)) else { continue };
        if polls.slow_window <= explained {
            continue;
        }
        let site = model.some_text(group.spawned_at_sid);
        let who = match (model.some_text(group.name_sid), site) {
            (Some(name), _) => format!("polls of task {name}"),
            (None, Some(site)) => format!("polls of tasks spawned at {site} (no label)"),
            (None, None) => "polls of ungrouped tasks".to_owned(),
        };
        found.push((polls.slow_window, sentence(&who, polls)));
    }
    found.sort_by_key(|(slow, _)| std::cmp::Reverse(*slow));
    found.into_iter().map(|(_, sentence)| Finding { severity: Severity::Warning, sentence }).collect()
}

fn is_slow(polls: &PollStats) -> bool {
    polls.slow_window >= MIN_SLOW && polls.slow_window * ONE_IN >= polls.polls_window
}

/// `SLOW: POST /login polls take 212 ms (p99), all of it on CPU; move it to spawn_blocking.`
fn sentence(who: &str, polls: &PollStats) -> String {
    let one_in = (polls.polls_window / polls.slow_window.max(1)).max(1);
    // The 99th percentile tells a poll that is always slow; of a rarer one it shows nothing.
    let takes = match (polls.p99_window_ns, polls.max_window_ns) {
        (Some(p99), _) if one_in <= 100 => format!("take {} (p99)", words::duration(p99)),
        (_, Some(max)) => format!("take up to {} (one in {})", words::duration(max), words::count(one_in)),
        _ => "are slow".to_owned(),
    };
    let (on_cpu, remedy) = match polls.slow_on_cpu_ratio {
        Some(ratio) if ratio >= 0.9 => (", all of it on CPU".to_owned(), "move it to spawn_blocking"),
        Some(ratio) if ratio <= 0.1 => (
            ", asleep and not on CPU".to_owned(),
            "await the asynchronous call instead, or move it to spawn_blocking",
        ),
        Some(ratio) => (format!(", {:.0} % of it on CPU", ratio * 100.0), "move it to spawn_blocking"),
        None => (String::new(), "move what blocks to spawn_blocking"),
    };
    format!("SLOW: {who} {takes}{on_cpu}; {remedy}.")
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{MS, model, sentences};
    use super::*;
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
    fn two_slow_polls_or_a_rare_exception_are_no_finding() {
        let label = |polls| v1::Label { label_sid: 1, polls: Some(polls), ..Default::default() };
        assert_eq!(said(vec![label(slow(2, 2)), label(slow(3, 3001))], vec![]), Vec::<String>::new());
    }
}
