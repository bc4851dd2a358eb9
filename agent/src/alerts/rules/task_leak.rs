//! Tasks of a group are spawned and do not end. Steep: since its lowest within the last minute, for [`STEEP_NS`] or longer and in
//! most of those seconds, the group has grown by the threshold and to twice what it was, hardly any of the new ones has ended,
//! and it is not steady since [`STEADY_NS`]: a service that spawns at its start what it keeps is no leak. Slow: the same growth through the whole window, in both of its halves, while tasks live longer and longer.
//!
//! Traffic that rises has more tasks that live as long as before, and is no leak; connections that stay open each have a file
//! descriptor, and what grows no faster than those is no leak of tasks (see ResourceNearLimit). Tasks that wait for a worker do not
//! end either, and whether they would is not known until one takes them (see ReadyQueueGrowing).

use taskscope_proto::v1;

use super::{GROUPS, S, from, group};
use crate::alerts::memory::{LONG_NS, Population};
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};
use crate::model::Model;
use crate::rules::growing_group::sentence;

const STEEP_NS: u64 = 30 * S;
/// What has not grown for so long has done growing; of groups, not more is remembered than a sample in ten seconds.
const STEADY_NS: u64 = 10 * S;
/// Of the seconds of a steep leak, in which it must have grown.
const MOST: f64 = 0.6;
/// Ended ones among the new of a steep leak, at most.
const HARDLY: f64 = 0.1;
/// Of new tasks, that have a file descriptor each if they are connections.
const CONNECTIONS: f64 = 0.5;
/// Tasks in the run queues among the new.
const QUEUED: f64 = 0.5;
/// Rows of groups are as old as this at most: the queue is shorter already than when they were made.
const QUEUED_NS: u64 = 20 * S;

pub(crate) static RULE: Rule = Rule {
    name: "TaskLeak",
    about: "a group has grown by the threshold and to twice its size, for 30 s with hardly an end, or through the window while its \
            tasks live longer and longer; more than file descriptors have",
    unit: Unit::Count,
    // The samples of a window of nine minutes are complete, and the leak told, within ten.
    defaults: &[keeps(from(Severity::Warning, 100.0).over(540 * S))],
    remembers_ns: LONG_NS,
    matches: &GROUPS,
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
    // Most do not change, and come seldom: they are not looked at each time.
    let doubled =
        scene.memory.groups.doubled().iter().filter_map(|&position| scene.model.groups().get(position));
    let groups = doubled.filter(|group| group.queue_wait.is_none());
    // A group cannot have grown by more than it is.
    let least = setting.threshold * setting.timing.clear_ratio;
    let (mut readings, mut unknown) = (Vec::new(), Vec::new());
    for group in groups.filter(|group| group.live as f64 >= least) {
        let grows = steep(scene, setting, group).or_else(|| slow(scene, setting, group));
        let Some((grown, summary)) = grows else { continue };
        let labels = labels(scene.model, group);
        if is_queue(scene, grown) {
            unknown.push(labels);
        } else {
            readings.push(Reading::new(labels, grown as f64, summary).with("live", group.live));
        }
    }
    Seen::of(readings, unknown, "its tasks wait for a worker: whether they end is not known")
}

fn labels(model: &Model, of: &v1::Group) -> crate::alerts::labels::Labels {
    group(model.some_text(of.name_sid), model.some_text(of.spawned_at_sid))
}

fn steep(scene: &Scene<'_>, setting: &Setting, group: &v1::Group) -> Option<(u64, String)> {
    let trend = group.trend.as_ref()?;
    let grown = group.live.saturating_sub(trend.live_before);
    let grows = trend.window_ns >= STEEP_NS.min(setting.window_ns)
        && group.live >= trend.live_before.saturating_mul(2)
        && f64::from(trend.growing_seconds) >= trend.window_ns as f64 / 1e9 * MOST
        && trend.ended as f64 <= trend.spawned as f64 * HARDLY;
    (grows && !is_steady(scene, group) && !is_connections(scene, trend.window_ns, grown))
        .then(|| (grown, format!("{} Do: {REMEDY}.", sentence(scene.model, group, trend))))
}

/// False also where it was not looked at so long ago.
fn is_steady(scene: &Scene<'_>, group: &v1::Group) -> bool {
    let before = scene.memory.groups.before(group.id, scene.model.frame.at_ns.saturating_sub(STEADY_NS));
    before.is_some_and(|before| group.live <= before.live)
}

const REMEDY: &str = "find what is to tell them to end, and does not";

fn slow(scene: &Scene<'_>, setting: &Setting, group: &v1::Group) -> Option<(u64, String)> {
    let at_ns = scene.model.frame.at_ns;
    let half_ns = setting.window_ns / 2;
    let before = |ns: u64| scene.memory.groups.before(group.id, at_ns.saturating_sub(ns));
    let (first, middle) = (before(setting.window_ns)?, before(half_ns)?);
    let now = Population { live: group.live, ended: group.ended_total };
    let grown = now.live.saturating_sub(first.live);
    let quarter = grown / 4;
    let grows = now.live >= first.live.saturating_mul(2)
        && middle.live.saturating_sub(first.live) >= quarter
        && now.live.saturating_sub(middle.live) >= quarter;
    let longer = match (lives(&first, &middle), lives(&middle, &now)) {
        (Some(before), Some(after)) => after >= before * 1.3,
        // None has ended lately.
        (_, None) => true,
        (None, Some(_)) => false,
    };
    (grows && longer && !is_connections(scene, setting.window_ns, grown)).then(|| {
        let ended = now.ended.saturating_sub(first.ended);
        let trend = v1::Trend {
            window_ns: setting.window_ns,
            live_before: first.live,
            // Who is alive was spawned and has not ended.
            spawned: grown.saturating_add(ended),
            ended,
            growing_seconds: 0,
        };
        let words =
            format!("{} They live longer and longer. Do: {REMEDY}.", sentence(scene.model, group, &trend));
        (grown, words)
    })
}

/// How long a task lives, by Little's law: those that are alive over those that end in the time; `None`: none ends.
fn lives(before: &Population, after: &Population) -> Option<f64> {
    let ended = after.ended.saturating_sub(before.ended);
    (ended > 0).then(|| (before.live + after.live) as f64 / 2.0 / ended as f64)
}

/// As many file descriptors were opened as tasks came.
fn is_connections(scene: &Scene<'_>, window_ns: u64, grown: u64) -> bool {
    let files = &scene.memory.files;
    let before =
        files.before(scene.model.frame.at_ns.saturating_sub(window_ns)).or(files.first().map(|it| it.1));
    let (Some(before), Some(now)) = (before, files.last()) else { return false };
    now.saturating_sub(before) as f64 >= grown as f64 * CONNECTIONS
}

/// As many tasks were ready and waited for a worker not long ago.
fn is_queue(scene: &Scene<'_>, grown: u64) -> bool {
    let from_ns = scene.model.frame.at_ns.saturating_sub(QUEUED_NS);
    let most = scene.memory.queues.values().filter_map(|queue| queue.since(from_ns).max());
    most.sum::<u64>() as f64 >= grown as f64 * QUEUED
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::rules::fixture::readings_after;

    #[derive(Clone, Copy, Default)]
    struct At {
        live: u64,
        ended: u64,
        files: u64,
        ready: u64,
        trend: v1::Trend,
    }

    /// A second of a group a frame.
    fn said(seconds: u64, at: impl Fn(u64) -> At) -> Vec<String> {
        let frames = (0..seconds).map(|second| {
            let At { live, ended, files, ready, trend } = at(second);
            let group = v1::Group {
                id: 1,
                name_sid: 5,
                spawned_at_sid: 6,
                live,
                spawned_total: live + ended,
                ended_total: ended,
                trend: Some(trend),
                ..Default::default()
            };
            let pool = v1::Pool {
                kind: v1::pool::Kind::FileDescriptors.into(),
                busy: Some(files),
                ..Default::default()
            };
            v1::Frame {
                at_ns: second * S,
                groups: Some(v1::GroupWindow { total: 1, groups: vec![group], labels: vec![] }),
                pools: vec![pool],
                runtimes: vec![v1::Runtime { id: 1, ready_tasks: Some(ready), ..Default::default() }],
                ..Default::default()
            }
        });
        readings_after(&RULE, frames).into_iter().map(|reading| reading.summary).collect()
    }

    /// Of what has grown in each second since its beginning.
    fn rising(second: u64, live: u64, live_before: u64, ended: u64) -> v1::Trend {
        v1::Trend {
            window_ns: second.min(60) * S,
            live_before,
            spawned: live - live_before + ended,
            ended,
            growing_seconds: u32::try_from(second.min(60)).expect("it is a minute"),
        }
    }

    #[test]
    fn a_steep_leak_is_told_within_40_s() {
        let leak = |second: u64| At {
            live: 40 + second * 39,
            trend: rising(second, 40 + second * 39, 40, 0),
            ..At::default()
        };
        assert_eq!(said(30, leak), Vec::<String>::new());
        assert_eq!(
            said(32, leak),
            [
                "GROWING: session-watch (src/session.rs:71:9) 40 → 1 249 in 31 s; none of the last 1 209 has ended. Do: find \
                 what is to tell them to end, and does not."
            ]
        );
    }

    #[test]
    fn tasks_that_no_worker_takes_are_no_leak() {
        let queue = |of_ready: u64| {
            move |second: u64| {
                let live = 40 + second * 39;
                At { live, ready: second * of_ready, trend: rising(second, live, 40, 0), ..At::default() }
            }
        };
        assert_eq!(said(50, queue(38)), Vec::<String>::new());
        assert_eq!(said(50, queue(3)).len(), 1, "what little waits is no reason");
    }

    #[test]
    fn a_slow_leak_among_many_that_end_is_told_within_its_window() {
        // 50 begin each second, and one in 100 never ends.
        let leak = |second: u64| At { live: 50 + second / 2, ended: second * 50, ..At::default() };
        assert_eq!(
            said(610, leak),
            [
                "GROWING: session-watch (src/session.rs:71:9) 80 → 354 in 9m00s; 27 450 of the last 27 724 have ended. They \
                 live longer and longer. Do: find what is to tell them to end, and does not."
            ]
        );
    }

    #[test]
    fn a_ramp_a_burst_and_connections_that_stay_are_no_leak() {
        let none = Vec::<String>::new();
        // Tenfold traffic within a minute, each task living for a second; and within ten.
        let ramp = |over: u64| {
            move |second: u64| {
                let rate = |second: u64| 100 + 900 * second.min(over) / over;
                let live = rate(second);
                let ended: u64 = (0..second).map(rate).sum();
                At { live, ended, trend: rising(second, live, 100, ended), ..At::default() }
            }
        };
        for seconds in [40, 61, 120] {
            assert_eq!(said(seconds, ramp(60)), none, "after {seconds} s");
        }
        assert_eq!(said(650, ramp(600)), none);
        // 5 000 clients connect within 50 s and stay.
        let connect = |second: u64| {
            let live = 100 * second.min(50);
            // A minute later they are as many as at their fewest.
            let trend = if second < 60 { rising(second, live, 0, 0) } else { v1::Trend::default() };
            At { live, files: 20 + live, trend, ..At::default() }
        };
        for seconds in [40, 51, 300] {
            assert_eq!(said(seconds, connect), none, "after {seconds} s");
        }
        // A cron burst: a thousand at once, which work for ten minutes.
        let burst = |second: u64| At {
            live: if second < 5 { 10 } else { 1_010 },
            trend: v1::Trend {
                window_ns: second.min(60) * S,
                live_before: 10,
                spawned: 1_000,
                ended: 0,
                growing_seconds: 1,
            },
            ..At::default()
        };
        assert_eq!(said(50, burst), none);
        assert_eq!(said(620, burst), none);
    }
}
