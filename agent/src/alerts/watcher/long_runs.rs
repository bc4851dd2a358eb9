//! Minutes and hours of a service, frame by frame, with the rules as they are by default.

use taskscope_proto::v1::{capability, event, pool};

use super::*;
use crate::config::Config;
use crate::config::rules::untouched;
use crate::rules::fixture::{MS, S, poll};

/// What a group has had by a second, counted since its beginning.
#[derive(Clone, Copy, Default)]
struct Count {
    spawned: u64,
    ended: u64,
}

impl Count {
    fn live(self) -> u64 {
        self.spawned - self.ended
    }
}

/// Nobody looked at the target from its very beginning.
const BEFORE_NS: u64 = 7 * S;

struct Service {
    watcher: Watcher,
    model: Model,
    seq: u64,
    second: u64,
    /// `35 s: firing TaskLeak warning`
    told: Vec<String>,
}

impl Service {
    fn new() -> Self {
        let config = Config::read("", "", &|_| None, &untouched()).expect("nothing is right");
        let description =
            v1::Description { name: "shop".into(), instance: "run".into(), ..Default::default() };
        Self {
            watcher: Watcher::new(config.watched(), "shop", &Labels::default()),
            model: Model::new(description),
            seq: 0,
            second: 0,
            told: Vec::new(),
        }
    }

    /// A frame of this second.
    fn frame(&mut self, second: u64, frame: v1::Frame) {
        self.second = second;
        self.seq += 1;
        let texts = ["ticker", "session-watch", "src/session.rs:71:9", "report", "src/report.rs:8:1"];
        let strings = (1..).zip(texts).map(|(sid, text)| v1::InternedString { sid, text: text.into() });
        self.model.apply(v1::Frame {
            seq: self.seq,
            resync: self.seq == 1,
            at_ns: BEFORE_NS + second * S,
            unix_ns: (1_000_000 + second) * S,
            strings: if self.seq == 1 { strings.collect() } else { vec![] },
            ..frame
        });
        let told = self.watcher.frame(&self.model);
        let said = |notice: &Notice| {
            let severity = notice.alert.labels.get("severity").unwrap_or_default();
            format!("{second} s: {} {} {severity}", notice.transition.name(), notice.alert.name())
        };
        self.told.extend(told.iter().map(said));
    }
}

/// As the probe tells it: since the group was last at its lowest, within the last minute.
fn trend(second: u64, count: impl Fn(u64) -> Count) -> v1::Trend {
    let seconds = second.saturating_sub(60)..=second;
    let lowest = seconds.rev().min_by_key(|&at| count(at).live()).unwrap_or(second);
    let (before, now) = (count(lowest), count(second));
    let grew = (lowest..second).filter(|&at| count(at + 1).live() > count(at).live()).count();
    v1::Trend {
        window_ns: (second - lowest) * S,
        live_before: before.live(),
        spawned: now.spawned - before.spawned,
        ended: now.ended - before.ended,
        growing_seconds: u32::try_from(grew).expect("it is a minute"),
    }
}

fn group(id: u32, second: u64, count: impl Fn(u64) -> Count) -> v1::Group {
    let now = count(second);
    v1::Group {
        id,
        name_sid: if id == 1 { 2 } else { 4 },
        spawned_at_sid: if id == 1 { 3 } else { 5 },
        live: now.live(),
        spawned_total: now.spawned,
        ended_total: now.ended,
        trend: Some(trend(second, count)),
        ..Default::default()
    }
}

fn groups(groups: Vec<v1::Group>) -> Option<v1::GroupWindow> {
    Some(v1::GroupWindow { total: groups.len() as u64, groups, labels: vec![] })
}

/// What is told of one group, a frame a second.
fn told(seconds: u64, count: impl Fn(u64) -> Count + Copy, files: impl Fn(u64) -> u64) -> Vec<String> {
    let mut service = Service::new();
    for second in 0..seconds {
        let files = v1::Pool {
            kind: pool::Kind::FileDescriptors.into(),
            busy: Some(20 + files(second)),
            capacity: Some(100_000),
            ..Default::default()
        };
        let groups = groups(vec![group(1, second, count)]);
        service.frame(second, v1::Frame { groups, pools: vec![files], ..Default::default() });
    }
    service.told
}

fn fired_at(told: &[String]) -> u64 {
    let seconds = told.first().and_then(|it| it.strip_suffix(" s: firing TaskLeak warning"));
    seconds.and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("no leak: {told:?}"))
}

#[test]
fn a_steep_leak_is_told_once_within_40_s_and_is_over_when_it_has_stopped_growing() {
    let leak = |second: u64| Count { spawned: 40 + (second.clamp(100, 300) - 100) * 39, ended: 0 };
    let told = told(900, leak, |_| 0);
    let fired = fired_at(&told);
    assert!((100..=140).contains(&fired), "{told:?}");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].ends_with("resolved TaskLeak warning"), "{told:?}");
}

#[test]
fn a_slow_leak_among_many_that_end_is_told_within_ten_minutes() {
    // 25 begin each second and live for a second; one in ten never ends.
    let leak = |second: u64| Count { spawned: second * 25, ended: second.saturating_sub(1) * 45 / 2 };
    let fired = fired_at(&told(620, leak, |_| 0));
    assert!(fired <= 600, "after {fired} s");
    // It begins after an hour in which all was well: what went before does not hide it.
    let late = |second: u64| {
        let leaked = second.saturating_sub(3600) * 5 / 2;
        Count { spawned: second * 25 + 25, ended: second * 25 - leaked }
    };
    let fired = fired_at(&told(4300, late, |_| 0));
    assert!((3600..=4200).contains(&fired), "after {fired} s");
}

#[test]
fn what_grows_and_is_then_steady_is_no_leak() {
    let none = Vec::<String>::new();
    let rate = |over: u64| move |second: u64| 5 + 95 * second.min(over) / over;
    // Twentyfold traffic within a minute and within ten, of tasks that live for half a minute.
    for over in [60, 600] {
        let begun = move |second: u64| (0..second).map(rate(over)).sum::<u64>();
        let begun: Vec<u64> = (0..1800).map(begun).collect();
        let traffic = |second: u64| {
            let before = second.checked_sub(30).map_or(0, |at| begun[at as usize]);
            Count {
                spawned: 150 + begun[second as usize],
                ended: if second < 30 { second * 5 } else { 150 + before },
            }
        };
        assert_eq!(told(1800, traffic, |_| 0), none, "a ramp of {over} s");
    }
    // A service that begins with 400 tasks which stay: it spawns them within 20 s, and within one.
    for spawns in [20, 400] {
        let begins = |second: u64| Count { spawned: (second * spawns).min(400), ended: 0 };
        assert_eq!(told(1800, begins, |_| 0), none, "{spawns} a second");
    }
    // Clients that connect and stay, each with its file descriptor.
    let clients = |second: u64| Count { spawned: second.min(50) * 100, ended: 0 };
    assert_eq!(told(1800, clients, |second| second.min(50) * 100), none);
    // A cron burst every five minutes: a thousand tasks of two minutes.
    let cron = |second: u64| {
        let bursts = |second: u64| second / 300 * 1000;
        Count { spawned: bursts(second), ended: second.checked_sub(120).map_or(0, bursts) }
    };
    assert_eq!(told(1800, cron, |_| 0), none);
}

const HOUR: u64 = 3600;
/// Of a night, between two frames: no more than counts as seen.
const EVERY: u64 = 2;

/// A frame of an idle night: timers that tick, sessions that wait, a report each hour, a backup that takes two minutes.
/// `forever`: the backup does not end.
fn night(second: u64, forever: bool) -> v1::Frame {
    let workers = vec![v1::Worker { busy_ratio: Some(0.002), ..Default::default() }; 2];
    let runtime = v1::Runtime { id: 1, workers, ready_tasks: Some(0), ..Default::default() };
    let of = |kind: pool::Kind, name: &str, busy: u64, capacity: u64| v1::Pool {
        name: name.into(),
        kind: kind.into(),
        busy: Some(busy),
        capacity: Some(capacity),
        queued: Some(0),
        runtime_id: 1,
        ..Default::default()
    };
    let backup_began = 3 * HOUR;
    let in_backup = second >= backup_began && (forever || second < backup_began + 120);
    let pools = vec![
        of(pool::Kind::Blocking, "blocking", u64::from(in_backup), 512),
        of(pool::Kind::User, "database", second % 3, 10),
        of(pool::Kind::FileDescriptors, "files", 70 + second / HOUR % 3, 1024),
        // Caches fill and are trimmed.
        of(pool::Kind::Memory, "memory", (400 + second % HOUR / 60) << 20, 1 << 30),
    ];
    let reports = |second: u64| {
        let (hours, past) = (second / HOUR, second % HOUR);
        let (spawned, ended) = (past.min(1) * 60, past.saturating_sub(20).min(1) * 60);
        Count { spawned: hours * 60 + spawned, ended: hours * 60 + ended }
    };
    let sessions = |_| Count { spawned: 40, ended: 0 };
    let job = v1::LivePoll {
        kind: v1::TaskKind::Blocking.into(),
        name_sid: 4,
        ..poll((second - backup_began.min(second)) * S)
    };
    let threads = vec![v1::Thread { poll: in_backup.then_some(job), ..Default::default() }];
    let rows = v1::TaskRows {
        id: vec![7, 8],
        name_sid: vec![1, 2],
        state: vec![v1::TaskState::Idle.into(); 2],
        since_ns: vec![S, second * S],
        polls: vec![second, 1],
        busy_ns: vec![second * 40_000, 50_000],
        wakes_plus1: vec![second + 1, 1],
        self_wakes_plus1: vec![1, 1],
        wakers_plus1: vec![2, 2],
        ..Default::default()
    };
    // A log is rotated in the poll of whoever writes to it: slow, once an hour.
    let rotated = v1::Event {
        seq: second / HOUR + 1,
        at_ns: BEFORE_NS + second * S,
        kind: event::Kind::PollSlow.into(),
        poll: Some(poll(130 * MS)),
        ..Default::default()
    };
    v1::Frame {
        totals: Some(v1::Totals { followed: 42, alive: Some(42), window_ns: 10 * S, ..Default::default() }),
        runtimes: vec![runtime],
        threads,
        pools,
        groups: groups(vec![group(1, second, sessions), group(2, second, reports)]),
        tasks: Some(v1::TaskWindow {
            order: vec![7, 8],
            rows: Some(rows),
            matching: 42,
            ..Default::default()
        }),
        events: if second % HOUR == 1800 { vec![rotated] } else { vec![] },
        // From before the evening, and what keeps no rule from seeing anything.
        losses: vec![
            v1::Loss { reason: v1::loss::Reason::DroppedEvents.into(), count: 3 },
            v1::Loss { reason: v1::loss::Reason::LostHistory.into(), count: second / 60 },
        ],
        capabilities: vec![v1::Capability {
            kind: capability::Kind::Tasks.into(),
            coverage: capability::Coverage::Full.into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[test]
fn ten_hours_of_an_idle_night_fire_nothing_and_a_backup_that_does_not_end_is_told_once() {
    let played = |forever: bool| {
        let mut service = Service::new();
        for second in (0..10 * HOUR).step_by(EVERY as usize) {
            service.frame(second, night(second, forever));
        }
        assert!(
            service.watcher.explain("LostWaker")[0].1.iter().all(|it| it.missing.is_none()),
            "it was looked at"
        );
        service.told
    };
    assert_eq!(played(false), Vec::<String>::new());
    let due = 3 * HOUR + 300;
    assert_eq!(played(true), [format!("{due} s: firing BlockingJobTooLong warning")]);
}
