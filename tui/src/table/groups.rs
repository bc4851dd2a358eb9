//! The columns of groups.

use taskscope_proto::v1::{PollStats, QueueWait, Trend};
use taskscope_proto::words;

use super::{Align, Cell, Column, Context, Sort, Tone, Width};
use crate::model::group::Group;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupSort {
    Live,
    Peak,
    Spawned,
    Ended,
    Panicked,
    Polls,
    Busy,
    P99,
    Max,
}

type GroupColumn = Column<Group, GroupSort>;

const fn number(
    title: &'static str,
    width: u16,
    leaves: u8,
    sort: GroupSort,
    cell: fn(&Group, &Context<'_>) -> Cell,
) -> GroupColumn {
    Column { title, width: Width::Fixed(width), align: Align::Right, leaves, cell, sort: Some(sort) }
}

pub(crate) const GROUPS: &[GroupColumn] = &[
    Column {
        title: "name or spawn site",
        width: Width::Share { min: 18, weight: 3 },
        align: Align::Left,
        leaves: 0,
        cell: |group, _| name(group),
        sort: None,
    },
    number("live", 6, 0, GroupSort::Live, |group, _| Cell::count(group.live).tone(Tone::Strong)),
    number("peak", 6, 9, GroupSort::Peak, |group, _| Cell::count(group.peak_live)),
    number("spawned", 8, 7, GroupSort::Spawned, |group, _| Cell::count(group.spawned_total)),
    number("ended", 7, 8, GroupSort::Ended, |group, _| Cell::count(group.ended_total)),
    number("panics", 7, 6, GroupSort::Panicked, |group, _| {
        Cell::count(group.panicked_total).tone_if(group.panicked_total > 0, Tone::Critical)
    }),
    number("polls/s", 8, 4, GroupSort::Polls, |group, _| rate(&group.polls)),
    number("busy", 6, 0, GroupSort::Busy, |group, cx| busy(group.busy_cores, cx)),
    number("p99", 6, 2, GroupSort::P99, |group, cx| slow(group.polls.p99_window_ns, cx)),
    number("max", 6, 5, GroupSort::Max, |group, cx| slow(group.polls.max_window_ns, cx)),
    Column {
        title: "trend",
        width: Width::Share { min: 16, weight: 1 },
        align: Align::Left,
        leaves: 3,
        cell: |group, _| trend(group.live, group.trend.as_ref()),
        sort: None,
    },
];

/// The groups in the order of `sort`; what is not known comes last, either way.
pub(crate) fn sorted(groups: &[Group], sort: Sort<GroupSort>) -> Vec<&Group> {
    let value = |group: &Group| -> Option<u64> {
        Some(match sort.key {
            GroupSort::Live => group.live,
            GroupSort::Peak => group.peak_live,
            GroupSort::Spawned => group.spawned_total,
            GroupSort::Ended => group.ended_total,
            GroupSort::Panicked => group.panicked_total,
            GroupSort::Polls => (per_second(&group.polls)? * 1e3) as u64,
            GroupSort::Busy => (group.busy_cores? * 1e6) as u64,
            GroupSort::P99 => group.polls.p99_window_ns?,
            GroupSort::Max => group.polls.max_window_ns?,
        })
    };
    let mut sorted: Vec<&Group> = groups.iter().collect();
    sorted.sort_by(|a, b| {
        let by_value = match (value(a), value(b)) {
            (Some(a), Some(b)) if sort.ascending => a.cmp(&b),
            (Some(a), Some(b)) => b.cmp(&a),
            (a, b) => b.is_some().cmp(&a.is_some()),
        };
        by_value.then_with(|| b.live.cmp(&a.live)).then_with(|| a.id.cmp(&b.id))
    });
    sorted
}

fn name(group: &Group) -> Cell {
    if group.id.0 == 0 {
        Cell::new("other").tone(Tone::Quiet)
    } else if group.name.is_empty() && group.spawned_at.is_empty() {
        Cell::unknown()
    } else if group.name.is_empty() {
        Cell::at(&group.spawned_at)
    } else {
        Cell::new(group.name.as_str()).tone(Tone::Strong)
    }
}

/// `40→1 312 in 33 s` while it grows; nothing while it is at its lowest.
fn trend(live: u64, trend: Option<&Trend>) -> Cell {
    let Some(trend) = trend else { return Cell::unknown() };
    if trend.window_ns == 0 || live <= trend.live_before {
        return Cell::new("steady").tone(Tone::Quiet);
    }
    let text = format!(
        "{}→{} in {}",
        words::count(trend.live_before),
        words::count(live),
        words::duration(trend.window_ns)
    );
    // It more than doubled, and not in one burst.
    let doubled = live >= trend.live_before.saturating_mul(2).saturating_add(20);
    let leaks = doubled && u64::from(trend.growing_seconds) * 2_000_000_000 >= trend.window_ns;
    let tone = if leaks { Tone::Warning } else { Tone::Plain };
    Cell::new(text).tone(tone)
}

fn per_second(polls: &PollStats) -> Option<f64> {
    (polls.window_ns > 0).then(|| polls.polls_window as f64 / (polls.window_ns as f64 / 1e9))
}

pub(crate) fn rate(polls: &PollStats) -> Cell {
    per_second(polls).map_or_else(Cell::unknown, |rate| Cell::new(words::short_count(rate)))
}

/// The share of all workers' time; of one core where the workers are not known.
pub(crate) fn busy(cores: Option<f64>, cx: &Context<'_>) -> Cell {
    let Some(cores) = cores else { return Cell::unknown() };
    let share = cores / cx.workers.unwrap_or(1).max(1) as f64 * 100.0;
    let text = match share {
        share if share <= 0.0 => "0 %".to_owned(),
        share if share < 1.0 => "<1 %".to_owned(),
        share => format!("{share:.0} %"),
    };
    Cell::new(text).tone_if(share >= 50.0, Tone::Warning).tone_if(share <= 0.0, Tone::Quiet)
}

pub(crate) fn slow(ns: Option<u64>, cx: &Context<'_>) -> Cell {
    Cell::duration(ns).tone_if(ns.is_some_and(|ns| cx.is_slow(ns)), Tone::Critical)
}

/// Every field of a group, for the pane of details.
pub(crate) fn fields(group: &Group, cx: &Context<'_>) -> Vec<(&'static str, Cell)> {
    let mut fields = vec![
        ("name", Cell::text(&group.name)),
        ("spawned at", Cell::place(&group.spawned_at)),
        (
            "live",
            Cell::new(format!("{}, at most {}", words::count(group.live), words::count(group.peak_live))),
        ),
        ("trend", trend(group.live, group.trend.as_ref())),
        ("spawned", Cell::new(words::count(group.spawned_total))),
        ("ended", Cell::new(words::count(group.ended_total))),
        (
            "panicked",
            Cell::new(words::count(group.panicked_total)).tone_if(group.panicked_total > 0, Tone::Critical),
        ),
    ];
    if let Some(wait) = &group.queue_wait {
        fields.push(("waits for a thread", queue_wait(wait)));
    }
    fields.extend(poll_fields(&group.polls, group.busy_cores, cx));
    fields
}

/// `1.2 ms on average, 40 ms at most`.
fn queue_wait(wait: &QueueWait) -> Cell {
    if wait.started_total == 0 {
        return Cell::new("no job has started").tone(Tone::Quiet);
    }
    let mean = wait.wait_ns_total / wait.started_total;
    Cell::new(format!("{} on average, {} at most", words::duration(mean), words::duration(wait.longest_ns)))
}

fn poll_fields(polls: &PollStats, busy_cores: Option<f64>, cx: &Context<'_>) -> Vec<(&'static str, Cell)> {
    let window = match polls.window_ns {
        0 => "no window yet".to_owned(),
        ns => format!("in the last {}", words::duration(ns)),
    };
    let on_cpu = polls.slow_on_cpu_ratio.filter(|ratio| ratio.is_finite());
    vec![
        (
            "polls",
            Cell::new(format!(
                "{}, {} {window}",
                words::count(polls.polls_total),
                words::count(polls.polls_window)
            )),
        ),
        ("busy", Cell::new(format!("{} in all", words::duration(polls.busy_ns_total)))),
        ("busy share", busy(busy_cores, cx)),
        ("p99 poll", slow(polls.p99_window_ns, cx)),
        ("max poll", slow(polls.max_window_ns, cx)),
        ("longest ever", slow(Some(polls.longest_ns), cx)),
        (
            "slow polls",
            Cell::new(format!("{} {window}", words::count(polls.slow_window)))
                .tone_if(polls.slow_window > 0, Tone::Warning),
        ),
        (
            "slow polls on CPU",
            on_cpu.map_or_else(Cell::unknown, |ratio| {
                Cell::new(format!("{:.0} % of their time", ratio * 100.0))
            }),
        ),
    ]
}
