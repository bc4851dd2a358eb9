use std::collections::BTreeMap;

use proptest::prelude::*;
use taskscope_proto::v1::event::Kind;

use super::*;
use crate::config::Config;
use crate::config::rules::untouched;
use crate::rules::fixture::{MS, S, poll};

mod identity;
mod replicas;
mod restarts;

/// A target as tests let it live: frames of it, restarts, and what the watcher tells.
pub(super) struct Played {
    pub(super) watcher: Watcher,
    pub(super) model: Model,
    run: u64,
    /// Of the machine that it runs on.
    host: &'static str,
    at_ns: u64,
    pub(super) unix_ns: u64,
    seq: u64,
    events: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// How long both polls of the runtime have run; none: its workers are parked.
    pub(super) stuck_ns: Option<u64>,
    /// A poll of this length has ended.
    pub(super) slow_ns: Option<u64>,
    pub(super) panics: u64,
    /// How many tasks there are; none: it does not say.
    pub(super) level: Option<u64>,
}

impl Played {
    pub(super) fn new(watched: Vec<Watched>) -> Self {
        let watcher = Watcher::new(watched, "shop", &Labels::default().with("cluster", "eu-1"));
        let mut played = Self {
            watcher,
            model: Model::new(v1::Description::default()),
            run: 0,
            host: "web-1",
            at_ns: 0,
            unix_ns: 1_000_000 * S,
            seq: 0,
            events: 0,
        };
        played.restart();
        played
    }

    fn restart(&mut self) {
        self.run += 1;
        (self.at_ns, self.seq, self.events) = (0, 0, 0);
        let instance = format!("run-{}", self.run);
        let (name, host) = ("shop".to_owned(), Some(self.host.to_owned()));
        self.model = Model::new(v1::Description { name, instance, host, ..Default::default() });
    }

    pub(super) fn pass(&mut self, ns: u64) {
        self.at_ns += ns;
        self.unix_ns += ns;
    }

    fn event(&mut self, kind: Kind, of: v1::LivePoll) -> v1::Event {
        self.events += 1;
        v1::Event {
            seq: self.events,
            at_ns: self.at_ns,
            kind: kind.into(),
            poll: Some(of),
            ..Default::default()
        }
    }

    pub(super) fn frame(&mut self, shown: &Shown) -> Vec<Notice> {
        let worker =
            || v1::Worker { poll: shown.stuck_ns.map(poll), busy_ratio: Some(1.0), ..Default::default() };
        let runtimes = vec![v1::Runtime { id: 1, workers: vec![worker(), worker()], ..Default::default() }];
        let mut events = Vec::new();
        if let Some(ns) = shown.slow_ns {
            events.push(self.event(Kind::PollSlow, v1::LivePoll { task_id: 900 + self.events, ..poll(ns) }));
        }
        for _ in 0..shown.panics {
            events.push(self.event(Kind::TaskPanic, v1::LivePoll { name_sid: 3, ..Default::default() }));
        }
        self.seq += 1;
        let strings = [(1, "POST /resize"), (2, "src/serve.rs:9:1"), (3, "mailer")];
        let strings = strings.map(|(sid, text)| v1::InternedString { sid, text: text.into() }).to_vec();
        self.model.apply(v1::Frame {
            seq: self.seq,
            resync: self.seq == 1,
            at_ns: self.at_ns,
            unix_ns: self.unix_ns,
            strings,
            runtimes,
            events,
            totals: shown.level.map(|followed| v1::Totals { followed, ..Default::default() }),
            ..Default::default()
        });
        self.watcher.frame(&self.model)
    }

    /// So many frames, a quarter of a second apart; what was told, in short.
    pub(super) fn frames(&mut self, count: u64, mut shown: impl FnMut(u64) -> Shown) -> Vec<String> {
        let mut told = Vec::new();
        for number in 0..count {
            self.pass(250 * MS);
            told.extend(self.frame(&shown(number)).iter().map(short));
        }
        told
    }
}

pub(super) fn short(notice: &Notice) -> String {
    let severity = notice.alert.labels.get("severity").unwrap_or_default();
    format!("{} {} {severity}", notice.transition.name(), notice.alert.name())
}

fn defaults() -> Vec<Watched> {
    let config = Config::read("", "", &|_| None, &untouched()).expect("nothing is right");
    config.watched()
}

pub(super) fn of_rules(names: &[&str]) -> Vec<Watched> {
    defaults().into_iter().filter(|it| names.contains(&it.rule.name)).collect()
}

#[test]
fn a_stuck_poll_is_told_once_at_each_severity_and_is_over_half_a_minute_after_it() {
    let mut played = Played::new(of_rules(&["TaskStuckInPoll"]));
    let told = played.frames(60, |n| Shown { stuck_ns: Some(n * 250 * MS), ..Shown::default() });
    assert_eq!(told, ["firing TaskStuckInPoll warning", "firing TaskStuckInPoll critical"]);
    assert_eq!(played.frames(119, |_| Shown::default()), Vec::<String>::new());
    let told = played.frames(4, |_| Shown::default());
    assert_eq!(told, ["resolved TaskStuckInPoll critical", "resolved TaskStuckInPoll warning"]);
}

#[test]
fn the_row_of_a_task_that_takes_up_a_worker_is_asked_for_whatever_others_have_used() {
    let mut played = Played::new(of_rules(&["TaskNeverYields"]));
    let kept = |played: &Played| played.watcher.request(&played.model).keep_task_ids;
    // Short polls, one after another.
    let busy = |_| Shown { stuck_ns: Some(10 * MS), ..Shown::default() };
    played.frames(2, busy);
    assert_eq!(kept(&played), [0; 0]);
    played.frames(1, busy);
    assert_eq!(kept(&played), [poll(MS).task_id]);
    played.restart();
    played.frames(1, busy);
    assert_eq!(kept(&played), [0; 0], "ids of another run");
}

#[test]
fn frames_are_asked_for_seldom_until_a_poll_runs_long() {
    let mut played = Played::new(of_rules(&["TaskStuckInPoll"]));
    played.frames(4, |_| Shown::default());
    let asked = |played: &Played| played.watcher.request(&played.model).interval_ns;
    assert_eq!(asked(&played), S);
    played.frames(1, |_| Shown { stuck_ns: Some(150 * MS), ..Shown::default() });
    assert_eq!(asked(&played), 250 * MS);
    played.frames(39, |_| Shown::default());
    assert_eq!(asked(&played), 250 * MS);
    played.frames(1, |_| Shown::default());
    assert_eq!(asked(&played), S);
    let wanted = |played: &Played| played.watcher.wants(&played.model);
    let before = wanted(&played);
    assert_eq!(before, wanted(&played));
    let groups = v1::GroupWindow { groups: vec![v1::Group::default(); 101], ..Default::default() };
    played.model.apply(v1::Frame { groups: Some(groups), ..Default::default() });
    assert_eq!(asked(&played), 1_500 * MS, "one of many groups has more to say");
    assert_ne!(before, wanted(&played));
}

#[test]
fn an_alert_has_the_labels_of_its_target_and_none_that_is_a_number() {
    let mut played = Played::new(of_rules(&["TaskStuckInPoll"]));
    played.pass(S);
    let told = played.frame(&Shown { stuck_ns: Some(2 * S), ..Shown::default() });
    let alert = &told[0].alert;
    let labels: Vec<(&str, &str)> = alert.labels.iter().collect();
    assert_eq!(
        labels,
        [
            ("alertname", "TaskStuckInPoll"),
            ("cluster", "eu-1"),
            ("host", "web-1"),
            ("label", "POST /resize"),
            ("runtime", "tokio"),
            ("service", "shop"),
            ("severity", "warning"),
            ("task_group", "src/serve.rs:9:1"),
        ]
    );
    assert_eq!(alert.fingerprint, alert.labels.fingerprint());
    assert!(
        alert.summary().starts_with("STUCK 2.0 s: 2 of 2 workers, both in POST /resize"),
        "{}",
        alert.summary()
    );
    assert_eq!((alert.starts_at_unix_ns, alert.ends_at_unix_ns), (1_000_001 * S, None));
}

#[test]
fn targets_of_one_service_have_alerts_of_their_own() {
    let fingerprint = |called: &str| {
        let mut played = Played::new(of_rules(&["TaskStuckInPoll"]));
        played.watcher = Watcher::new(of_rules(&["TaskStuckInPoll"]), called, &Labels::default());
        played.pass(S);
        let told = played.frame(&Shown { stuck_ns: Some(2 * S), ..Shown::default() });
        let labels = &told[0].alert.labels;
        assert_eq!(labels.get("service"), Some("shop"));
        assert_eq!(labels.get("target"), Some(called).filter(|called| *called != "shop"));
        told[0].alert.fingerprint
    };
    assert_ne!(fingerprint("10.0.0.7:6670"), fingerprint("10.0.0.8:6670"));
    assert_ne!(fingerprint("10.0.0.7:6670"), fingerprint("shop"));
}

#[test]
fn a_poll_that_was_told_while_it_ran_is_not_told_again_as_slow() {
    let mut played = Played::new(of_rules(&["TaskStuckInPoll", "TaskSlowPoll"]));
    let mut told = played.frames(14, |n| Shown { stuck_ns: Some(n * 250 * MS), ..Shown::default() });
    played.pass(100 * MS);
    // The same poll has ended.
    let ended = v1::LivePoll { since_ns: 3_350 * MS, ..poll(0) };
    let event = played.event(Kind::PollSlow, ended);
    played.model.apply(v1::Frame {
        at_ns: played.at_ns,
        unix_ns: played.unix_ns,
        events: vec![event],
        ..Default::default()
    });
    told.extend(played.watcher.frame(&played.model).iter().map(short));
    assert_eq!(told, ["firing TaskStuckInPoll warning"]);
    // Another one that nobody saw running is.
    let told = played.frames(1, |_| Shown { slow_ns: Some(2 * S), ..Shown::default() });
    assert_eq!(told, ["firing TaskSlowPoll critical"]);
}

#[test]
fn what_fired_before_the_agent_was_restarted_is_resolved_and_not_told_twice() {
    let mut played = Played::new(of_rules(&["TaskPanicked"]));
    played.pass(S);
    let before = played.frame(&Shown { panics: 1, ..Shown::default() });
    assert_eq!(before.iter().map(short).collect::<Vec<_>>(), ["firing TaskPanicked warning"]);
    let mut again = Played::new(of_rules(&["TaskPanicked"]));
    again.unix_ns = played.unix_ns;
    let gone = Alert { labels: Labels::default().with("alertname", "NoRule"), ..before[0].alert.clone() };
    let unknown = again.watcher.restore(vec![before[0].alert.clone(), gone], 0);
    assert_eq!(unknown.iter().map(Alert::name).collect::<Vec<_>>(), ["NoRule"]);
    again.pass(S);
    assert_eq!(again.frame(&Shown { panics: 1, ..Shown::default() }), []);
    again.pass(61 * S);
    let over = again.frame(&Shown::default());
    assert_eq!(over.iter().map(short).collect::<Vec<_>>(), ["resolved TaskPanicked warning"]);
    let (first, last) = (&before[0].alert, &over[0].alert);
    assert_eq!((first.fingerprint, first.starts_at_unix_ns), (last.fingerprint, last.starts_at_unix_ns));
}

#[test]
fn what_an_agent_cannot_compare_yet_after_its_restart_is_not_over() {
    // What the rule remembers went with the agent: 10 s have to pass until it can tell.
    let rule = of_rules(&["TaskNeverYields"]);
    let window_ns = rule[0].setting.window_ns;
    let labels = Labels::default().with("alertname", "TaskNeverYields").with("severity", "warning");
    let labels = labels.with("service", "shop").with("host", "web-1").with("task_group", "greedy");
    let alert = Alert {
        fingerprint: labels.fingerprint(),
        labels,
        annotations: BTreeMap::new(),
        value: 1.0,
        threshold: 0.9,
        starts_at_unix_ns: 5,
        ends_at_unix_ns: None,
        state: Transition::Firing,
        resource: None,
    };
    let mut played = Played::new(rule);
    assert!(played.watcher.restore(vec![alert], 0).is_empty());
    let quarters = window_ns / (250 * MS) - 1;
    assert_eq!(played.frames(quarters, |_| Shown::default()), Vec::<String>::new());
    assert_eq!(played.frames(8, |_| Shown::default()), ["resolved TaskNeverYields warning"]);
}

#[test]
fn what_the_probe_is_too_old_for_is_not_known_and_the_other_rules_watch_on() {
    let mut played = Played::new(of_rules(&["LostWaker", "TaskStuckInPoll"]));
    let asked = played.watcher.request(&played.model).standing;
    let [query] = &asked[..] else { panic!("one rule has a standing query: {asked:?}") };
    let lost = |played: &Played| {
        let (_, evaluations) = &played.watcher.explain("LostWaker")[0];
        evaluations.last().and_then(|it| it.missing.clone())
    };
    let mut told = Vec::new();
    let mut frame = |played: &mut Played, stuck_ns: u64| {
        played.pass(S);
        let worker = v1::Worker { poll: Some(poll(stuck_ns)), ..Default::default() };
        let runtimes = vec![v1::Runtime { id: 1, workers: vec![worker], ..Default::default() }];
        let (at_ns, unix_ns, tasks) = (played.at_ns, played.unix_ns, Some(v1::TaskWindow::default()));
        played.model.apply(v1::Frame { at_ns, unix_ns, runtimes, tasks, ..Default::default() });
        told.extend(played.watcher.frame(&played.model).iter().map(short));
    };
    let said = "no field is called `wakers`".to_owned();
    played.watcher.refused(BTreeMap::from([(query.filter.clone(), said)]));
    frame(&mut played, 100 * MS);
    assert_eq!(
        lost(&played).as_deref(),
        Some("the target's probe is too old for what this rule asks it: no field is called `wakers`")
    );
    // It was restarted with a newer one.
    played.watcher.refused(BTreeMap::new());
    frame(&mut played, 2 * S);
    assert_eq!(lost(&played), None);
    assert_eq!(told, ["firing TaskStuckInPoll warning"]);
}

/// Reads as many tasks as the frame has alive.
static CROWDED: Rule = Rule {
    name: "RuntimeBusy",
    about: "for tests",
    unit: crate::alerts::rule::Unit::Count,
    defaults: &[],
    remembers_ns: 0,
    matches: &["service"],
    opt_in: false,
    clock: Clock::Target,
    standing: None,
    read: |scene, _| {
        let alive = scene.model.totals().followed;
        let reading = |number: u64| Reading {
            labels: Labels::default().with("runtime", "tokio").with("task_group", &number.to_string()),
            value: 1.0,
            summary: "crowded".into(),
            annotations: BTreeMap::new(),
        };
        Seen::Readings((0..alive).map(reading).collect())
    },
};

fn crowded(timing: Timing) -> Watched {
    let setting =
        Setting { severity: Severity::Warning, threshold: 1.0, window_ns: 0, min_count: None, timing };
    Watched { rule: &CROWDED, setting, about: Match::default() }
}

#[test]
fn past_the_cap_of_a_rule_one_alert_says_so() {
    let timing = Timing { for_ns: 0, keep_firing_ns: 0, clear_ratio: 0.8 };
    let mut played = Played::new(vec![crowded(timing)]);
    let mut frame = |followed: u64| {
        played.pass(30 * S);
        let totals = Some(v1::Totals { followed, ..Default::default() });
        played.model.apply(v1::Frame {
            at_ns: played.at_ns,
            unix_ns: played.unix_ns,
            totals,
            ..Default::default()
        });
        played.watcher.frame(&played.model)
    };
    let told = frame(1_000);
    assert_eq!(told.len(), 101);
    let overflow = told.iter().find(|it| it.alert.name() == OVERFLOW).expect("it is told");
    assert!((overflow.alert.value - 900.0).abs() < 1e-9);
    assert_eq!(overflow.alert.labels.get("rule"), Some("RuntimeBusy"));
    assert_eq!(frame(1_000), []);
    let told = frame(0);
    assert_eq!(told.iter().filter(|it| it.transition == Transition::Resolved).count(), 100);
    let later: Vec<String> = (0..15).flat_map(|_| frame(0)).map(|it| short(&it)).collect();
    assert_eq!(later, ["resolved AlertOverflow warning"]);
}

#[test]
fn what_follows_from_a_stuck_poll_is_named_in_it_and_told_only_if_it_stays() {
    let timing = Timing { for_ns: 2 * S, keep_firing_ns: 0, clear_ratio: 0.8 };
    let mut played = Played::new([of_rules(&["TaskStuckInPoll"]), vec![crowded(timing)]].concat());
    let mut notices = Vec::new();
    let mut frame = |stuck_ns: Option<u64>, followed: u64| {
        played.pass(250 * MS);
        let worker = v1::Worker { poll: stuck_ns.map(poll), ..Default::default() };
        let runtimes = vec![v1::Runtime { id: 1, workers: vec![worker], ..Default::default() }];
        let totals = Some(v1::Totals { followed, ..Default::default() });
        let (at_ns, unix_ns) = (played.at_ns, played.unix_ns);
        played.model.apply(v1::Frame { at_ns, unix_ns, totals, runtimes, ..Default::default() });
        let told = played.watcher.frame(&played.model);
        notices.extend(told.clone());
        told.iter().map(short).collect::<Vec<_>>()
    };
    let told: Vec<String> = (1..20).flat_map(|n| frame(Some(n * 250 * MS), 1)).collect();
    assert_eq!(told, ["firing TaskStuckInPoll warning"]);
    // It is over, and the runtime is as busy as before: half a minute later that is an alert of its own.
    let told: Vec<String> = (0..122).flat_map(|_| frame(None, 1)).collect();
    assert_eq!(told, ["resolved TaskStuckInPoll warning", "firing RuntimeBusy warning"]);
    assert_eq!(notices[1].alert.annotations["also"], "RuntimeBusy");
    let (_, evaluations) = &played.watcher.explain("RuntimeBusy")[0];
    assert_eq!(evaluations[2].readings[0].held_back.as_deref(), Some("inhibited by TaskStuckInPoll"));
}

#[test]
fn a_cause_that_has_held_something_back_from_its_first_moment_names_it() {
    let timing = Timing { for_ns: 500 * MS, keep_firing_ns: 0, clear_ratio: 0.8 };
    let mut played = Played::new([of_rules(&["TaskStuckInPoll"]), vec![crowded(timing)]].concat());
    let mut told = Vec::new();
    for n in 1..6 {
        played.pass(250 * MS);
        let worker = v1::Worker { poll: Some(poll(n * 250 * MS)), ..Default::default() };
        let runtimes = vec![v1::Runtime { id: 1, workers: vec![worker], ..Default::default() }];
        let totals = Some(v1::Totals { followed: 1, ..Default::default() });
        let (at_ns, unix_ns) = (played.at_ns, played.unix_ns);
        played.model.apply(v1::Frame { at_ns, unix_ns, totals, runtimes, ..Default::default() });
        told.extend(played.watcher.frame(&played.model));
    }
    assert_eq!(told.iter().map(short).collect::<Vec<_>>(), ["firing TaskStuckInPoll warning"]);
    assert_eq!(told[0].alert.annotations["also"], "RuntimeBusy");
}

#[derive(Clone, Debug)]
enum Step {
    Frame(Shown),
    Pass(u64),
    Restart,
    WallClock(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let shown = (
        proptest::option::of(0..15 * S),
        proptest::option::of(100 * MS..3 * S),
        prop_oneof![4 => Just(0_u64), 1 => 1..3_u64],
    );
    let shown =
        shown.prop_map(|(stuck_ns, slow_ns, panics)| Shown { stuck_ns, slow_ns, panics, level: None });
    prop_oneof![
        8 => shown.prop_map(Step::Frame),
        4 => (0..3 * S).prop_map(Step::Pass),
        1 => (0..7200 * S).prop_map(Step::Pass),
        1 => Just(Step::Restart),
        1 => (900_000 * S..1_100_000 * S).prop_map(Step::WallClock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fires_is_resolved_once_and_fires_again_only_after_that(
        steps in proptest::collection::vec(step(), 0..80)
    ) {
        let mut played = Played::new(defaults());
        let mut notices = Vec::new();
        for step in steps {
            match step {
                Step::Frame(shown) => notices.extend(played.frame(&shown)),
                Step::Pass(ns) => played.pass(ns),
                Step::Restart => played.restart(),
                Step::WallClock(ns) => played.unix_ns = ns,
            }
        }
        // All is well from now on, for longer than any window.
        for _ in 0..150 {
            played.pass(S);
            played.seq += 1;
            let worker = v1::Worker { busy_ratio: Some(0.1), ..Default::default() };
            let runtimes = vec![v1::Runtime { id: 1, workers: vec![worker], ..Default::default() }];
            let (at_ns, unix_ns) = (played.at_ns, played.unix_ns);
            played.model.apply(v1::Frame { at_ns, unix_ns, runtimes, ..Default::default() });
            notices.extend(played.watcher.frame(&played.model));
        }
        let mut fires: BTreeMap<Fingerprint, bool> = BTreeMap::new();
        for notice in &notices {
            let alert = &notice.alert;
            let fires = fires.entry(alert.fingerprint).or_default();
            match notice.transition {
                Transition::Pending => prop_assert!(!*fires, "{notice:?}"),
                Transition::Firing => prop_assert!(!std::mem::replace(fires, true), "{notice:?}"),
                Transition::Resolved => {
                    prop_assert!(std::mem::take(fires), "{notice:?}");
                    prop_assert!(alert.ends_at_unix_ns >= Some(alert.starts_at_unix_ns));
                }
            }
            prop_assert!(!alert.summary().is_empty());
        }
        prop_assert!(fires.values().all(|fires| !fires), "still fire: {fires:?}");
        prop_assert!(played.watcher.lives.is_empty());
    }
}
