//! A group has grown for at least [`WINDOW_NS`], in most of its seconds, to at least twice what it was and by at least
//! [`GROWTH`] tasks, and hardly any of the new ones has ended. A burst grows in one or two seconds and is no leak.

use taskscope_proto::v1;
use taskscope_proto::words;

use super::{Finding, Severity};
use crate::model::Model;

/// With the second that it takes to ask again, a leak is told within ten.
const WINDOW_NS: u64 = 8_000_000_000;
const GROWTH: u64 = 100;
/// Of the seconds of the window, in which it must have grown.
const MOST: f64 = 0.6;
/// Ended ones among the new, at most.
const HARDLY: f64 = 0.1;

pub(crate) fn check(model: &Model) -> Vec<Finding> {
    let mut growing: Vec<(&v1::Group, &v1::Trend)> = model
        .groups()
        .iter()
        .filter_map(|group| Some((group, group.trend.as_ref().filter(|t| grows(group, t))?)))
        .collect();
    growing.sort_by_key(|(_, trend)| std::cmp::Reverse(trend.spawned - trend.ended));
    growing.into_iter().map(|(group, trend)| finding(model, group, trend)).collect()
}

fn grows(group: &v1::Group, trend: &v1::Trend) -> bool {
    let seconds = trend.window_ns as f64 / 1e9;
    trend.window_ns >= WINDOW_NS
        && group.live >= trend.live_before.saturating_mul(2)
        && group.live.saturating_sub(trend.live_before) >= GROWTH
        && f64::from(trend.growing_seconds) >= seconds * MOST
        && trend.ended as f64 <= trend.spawned as f64 * HARDLY
        && trend.spawned >= trend.ended
}

fn finding(model: &Model, group: &v1::Group, trend: &v1::Trend) -> Finding {
    Finding { severity: Severity::Warning, sentence: sentence(model, group, trend) }
}

pub(crate) fn sentence(model: &Model, group: &v1::Group, trend: &v1::Trend) -> String {
    let site = model.some_text(group.spawned_at_sid);
    let who = match (model.some_text(group.name_sid), site) {
        (Some(name), Some(site)) => format!("{name} ({site})"),
        (Some(name), None) => name.to_owned(),
        (None, Some(site)) => format!("tasks spawned at {site}"),
        (None, None) => "ungrouped tasks".to_owned(),
    };
    let spawned = words::count(trend.spawned);
    let ended = match trend.ended {
        0 => format!("none of the last {spawned} has ended"),
        ended => format!("{} of the last {spawned} have ended", words::count(ended)),
    };
    format!(
        "GROWING: {who} {} → {} in {}; {ended}.",
        words::count(trend.live_before),
        words::count(group.live),
        words::duration(trend.window_ns)
    )
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{S, model, sentences};
    use super::*;

    fn said(live: u64, trend: v1::Trend) -> Vec<String> {
        let group =
            v1::Group { name_sid: 5, spawned_at_sid: 6, live, trend: Some(trend), ..Default::default() };
        let groups = v1::GroupWindow { groups: vec![group], ..Default::default() };
        let model = model(v1::Frame { groups: Some(groups), ..Default::default() });
        sentences(&check(&model)).into_iter().map(str::to_owned).collect()
    }

    const LEAK: v1::Trend =
        v1::Trend { window_ns: 33 * S, live_before: 40, spawned: 1272, ended: 0, growing_seconds: 32 };

    #[test]
    fn a_leak_is_told_by_growth_and_by_what_does_not_end() {
        assert_eq!(
            said(1312, LEAK),
            [
                "GROWING: session-watch (src/session.rs:71:9) 40 → 1 312 in 33 s; none of the last 1 272 has ended."
            ]
        );
    }

    #[test]
    fn a_burst_churn_and_a_short_rise_are_no_leak() {
        let none = Vec::<String>::new();
        assert_eq!(said(1312, v1::Trend { growing_seconds: 2, ..LEAK }), none);
        assert_eq!(said(1312, v1::Trend { spawned: 9000, ended: 7728, ..LEAK }), none);
        assert_eq!(said(1312, v1::Trend { window_ns: 7 * S, growing_seconds: 7, ..LEAK }), none);
        assert_eq!(said(79, LEAK), none);
    }
}
