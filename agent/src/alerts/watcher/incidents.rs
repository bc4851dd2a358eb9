//! What one fault leads to when every rule looks at it: one notification, and the others named in it.

use taskscope_proto::v1::{pool, worker};

use super::tests::{of_rules, short};
use super::*;
use crate::alerts::rules;
use crate::rules::fixture::{MS, S, poll};

/// One target, shown to the watcher as a test says.
struct Incident {
    watcher: Watcher,
    model: Model,
    at_ns: u64,
    seq: u64,
    notices: Vec<Notice>,
}

impl Incident {
    fn new(watched: Vec<Watched>) -> Self {
        let description =
            v1::Description { name: "shop".into(), instance: "run".into(), ..Default::default() };
        Self {
            watcher: Watcher::new(watched, "shop", &Labels::default()),
            model: Model::new(description),
            at_ns: 100 * S,
            seq: 0,
            notices: Vec::new(),
        }
    }

    /// A frame every quarter of a second; `shown` is told how long it has been so. What was told, in short.
    fn pass(&mut self, seconds: u64, shown: impl Fn(u64) -> v1::Frame) -> Vec<String> {
        let mut told = Vec::new();
        for quarter in 1..=seconds * 4 {
            self.at_ns += 250 * MS;
            self.seq += 1;
            let texts = [(1, "POST /resize"), (2, "src/serve.rs:9:1"), (3, "report"), (4, "POST /orders")];
            let strings = texts.map(|(sid, text)| v1::InternedString { sid, text: text.into() }).to_vec();
            self.model.apply(v1::Frame {
                seq: self.seq,
                resync: self.seq == 1,
                at_ns: self.at_ns,
                unix_ns: 1_000_000 * S + self.at_ns,
                strings: if self.seq == 1 { strings } else { vec![] },
                ..shown(quarter * 250 * MS)
            });
            let mut notices = self.watcher.frame(&self.model);
            // Nobody is notified of what is pending.
            notices.retain(|notice| notice.transition != Transition::Pending);
            told.extend(notices.iter().map(short));
            self.notices.extend(notices);
        }
        told
    }

    /// What the loudest of that alert has held back, as it is said at its end.
    fn also(&self, name: &str) -> &str {
        let is_its = |it: &&Notice| it.transition == Transition::Resolved && it.alert.name() == name;
        let over = self.notices.iter().find(is_its).expect("it is over");
        over.alert.annotations.get("also").map_or("", String::as_str)
    }
}

fn all() -> Vec<Watched> {
    of_rules(&rules::RULES.map(|rule| rule.name))
}

fn opt_in(name: &str, threshold: f64) -> Watched {
    let rule = rules::named(name).expect("there is one");
    let setting = Setting { threshold, ..rule.defaults[0].clone() };
    Watched { rule, setting, about: Match::default() }
}

fn stuck_worker(ns: u64, label_sid: u32) -> v1::Worker {
    let poll = v1::LivePoll { label_sid, ..poll(ns) };
    v1::Worker {
        state: worker::State::InPoll.into(),
        poll: Some(poll),
        busy_ratio: Some(1.0),
        ..Default::default()
    }
}

fn runtime(id: u32, workers: Vec<v1::Worker>) -> v1::Runtime {
    v1::Runtime { id, workers, alive_tasks: Some(9), ready_tasks: Some(0), ..Default::default() }
}

fn healthy(id: u32) -> v1::Runtime {
    runtime(id, vec![v1::Worker { busy_ratio: Some(0.1), ..Default::default() }; 2])
}

/// All is well, and the target has looked for single tasks.
fn well() -> v1::Frame {
    let tasks = Some(v1::TaskWindow::default());
    v1::Frame { runtimes: vec![healthy(1)], tasks, ..Default::default() }
}

/// All five threads are in a job, and four jobs wait.
fn full_pool(ns: u64) -> v1::Frame {
    let pool = v1::Pool {
        name: "blocking".into(),
        kind: pool::Kind::Blocking.into(),
        capacity: Some(5),
        busy: Some(5),
        queued: Some(4),
        // Learnt a little later than the jobs began.
        saturated_ns: ns.checked_sub(250 * MS),
        runtime_id: 1,
        ..Default::default()
    };
    let job = v1::LivePoll {
        kind: v1::TaskKind::Blocking.into(),
        name_sid: 3,
        label_sid: 0,
        spawned_at_sid: 2,
        ..poll(ns)
    };
    let threads = vec![v1::Thread { poll: Some(job), ..Default::default() }; 5];
    v1::Frame { pools: vec![pool], threads, ..well() }
}

#[test]
fn a_full_pool_is_one_incident_and_what_it_holds_up_is_named() {
    let mut incident = Incident::new(all());
    incident.pass(5, |_| well());
    let told = incident.pass(400, full_pool);
    assert_eq!(told, ["firing PoolSaturated warning", "firing PoolSaturated critical"]);
    let told = incident.pass(60, |_| well());
    assert_eq!(told, ["resolved PoolSaturated critical", "resolved PoolSaturated warning"]);
    assert_eq!(incident.also("PoolSaturated"), "BlockingJobTooLong, PoolNearlyFull");
}

#[test]
fn a_full_pool_is_told_first_even_where_what_follows_is_sooner_at_its_threshold() {
    let mut watched = of_rules(&["PoolSaturated", "PoolNearlyFull", "BlockingJobTooLong"]);
    watched.retain(|it| it.setting.severity == Severity::Warning);
    for it in &mut watched {
        it.setting.timing.for_ns = it.setting.timing.for_ns.min(S);
        it.setting.threshold = match it.rule.name {
            "PoolSaturated" => 4.0,
            "BlockingJobTooLong" => 1.0,
            _ => it.setting.threshold,
        };
    }
    let mut incident = Incident::new(watched);
    incident.pass(2, |_| well());
    assert_eq!(incident.pass(20, full_pool), ["firing PoolSaturated warning"]);
    assert_eq!(incident.pass(60, |_| well()), ["resolved PoolSaturated warning"]);
    assert_eq!(incident.also("PoolSaturated"), "BlockingJobTooLong, PoolNearlyFull");
}

#[test]
fn a_long_job_and_a_pool_that_is_only_nearly_full_are_told() {
    let mut incident = Incident::new(all());
    incident.pass(5, |_| well());
    let nearly = |ns| {
        let mut frame = full_pool(ns);
        let pool = &mut frame.pools[0];
        (pool.busy, pool.queued, pool.saturated_ns) = (Some(4), Some(0), None);
        frame
    };
    let mut told = incident.pass(310, nearly);
    told.sort();
    assert_eq!(told, ["firing BlockingJobTooLong warning", "firing PoolNearlyFull warning"]);
    // Then it is full: that is worse.
    assert_eq!(incident.pass(15, full_pool), ["firing PoolSaturated warning"]);
}

#[test]
fn a_queue_that_grows_behind_a_stuck_poll_is_named_in_it_and_that_of_another_runtime_is_told() {
    // Neither runtime has a name.
    let shown = |ns: u64| {
        let growing = Some(ns / (5 * MS));
        let behind = v1::Runtime {
            ready_tasks: growing,
            oldest_ready_ns: Some(ns),
            ..runtime(1, vec![stuck_worker(ns, 1); 2])
        };
        let besides = v1::Runtime { ready_tasks: growing, ..healthy(2) };
        v1::Frame { runtimes: vec![behind, besides], ..well() }
    };
    let mut watched = all();
    watched.retain(|it| it.setting.severity == Severity::Warning);
    let mut incident = Incident::new(watched);
    incident.pass(2, |_| v1::Frame { runtimes: vec![healthy(1), healthy(2)], ..well() });
    // While it grows by half in a window.
    let told = incident.pass(36, shown);
    assert_eq!(told, ["firing TaskStuckInPoll warning", "firing ReadyQueueGrowing warning"]);
    let of = |number: usize| incident.notices[number].alert.labels.get("runtime");
    assert_eq!((of(0), of(1)), (Some("tokio"), Some("tokio-2")));
    let (_, evaluations) = &incident.watcher.explain("ReadyQueueGrowing")[0];
    let read = &evaluations.last().expect("it was evaluated").readings;
    let held = read.iter().find(|it| it.labels.get("runtime") == Some("tokio")).expect("it grows");
    assert_eq!((held.phase, held.held_back.as_deref()), ("firing", Some("inhibited by TaskStuckInPoll")));
    incident.pass(60, |_| v1::Frame { runtimes: vec![healthy(1), healthy(2)], ..well() });
    assert_eq!(incident.also("TaskStuckInPoll"), "LoopLag, ReadyQueueGrowing, RuntimeBusy");
    let over = incident.notices.iter().filter(|it| it.transition == Transition::Resolved).count();
    assert_eq!((incident.notices.len(), over), (4, 2));
}

#[test]
fn a_task_that_waits_for_a_stuck_runtime_is_named_in_it_and_one_of_another_runtime_is_told() {
    let mut incident =
        Incident::new([of_rules(&["TaskStuckInPoll"]), vec![opt_in("TaskPendingTooLong", 3.0)]].concat());
    let asked = incident.watcher.request(&incident.model).standing;
    let query_id = asked[0].query_id;
    let shown = |ns: u64| {
        let rows = v1::TaskRows {
            id: vec![7, 8],
            name_sid: vec![3; 2],
            state: vec![v1::TaskState::Idle.into(); 2],
            since_ns: vec![ns; 2],
            runtime_id: vec![1, 2],
            ..Default::default()
        };
        let found = v1::StandingFinding { query_id, task_ids: vec![7, 8], ..Default::default() };
        v1::Frame {
            runtimes: vec![runtime(1, vec![stuck_worker(ns, 1); 2]), healthy(2)],
            tasks: Some(v1::TaskWindow {
                order: vec![7, 8],
                rows: Some(rows),
                matching: 2,
                ..Default::default()
            }),
            findings: vec![found],
            ..Default::default()
        }
    };
    let told = incident.pass(9, shown);
    assert_eq!(told, ["firing TaskStuckInPoll warning", "firing TaskPendingTooLong warning"]);
    assert_eq!(incident.notices[1].alert.labels.get("runtime"), Some("tokio-2"));
    let after = |_| {
        let rows = v1::TaskRows { id: vec![7, 8], runtime_id: vec![1, 2], ..Default::default() };
        let found = v1::StandingFinding { query_id, task_ids: vec![], ..Default::default() };
        v1::Frame {
            runtimes: vec![healthy(1), healthy(2)],
            tasks: Some(v1::TaskWindow {
                order: vec![7, 8],
                rows: Some(rows),
                matching: 2,
                ..Default::default()
            }),
            findings: vec![found],
            ..Default::default()
        }
    };
    let mut told = incident.pass(40, after);
    told.sort();
    assert_eq!(told, ["resolved TaskPendingTooLong warning", "resolved TaskStuckInPoll warning"]);
    assert_eq!(incident.also("TaskStuckInPoll"), "TaskPendingTooLong");
}

#[test]
fn a_runtime_with_too_much_to_do_is_told_once_and_again_when_it_is_worse() {
    let busy = |began: u64, lag: u64| {
        move |ns: u64| {
            let workers = vec![v1::Worker { busy_ratio: Some(1.0), ..Default::default() }; 2];
            let runtime = v1::Runtime {
                ready_tasks: Some((began + ns) / MS),
                oldest_ready_ns: Some(lag),
                ..runtime(1, workers)
            };
            v1::Frame { runtimes: vec![runtime], ..well() }
        }
    };
    let mut incident = Incident::new(all());
    incident.pass(2, |_| well());
    assert_eq!(incident.pass(35, busy(0, 300 * MS)), ["firing ReadyQueueGrowing warning"]);
    assert_eq!(incident.pass(15, busy(35 * S, 3 * S)), ["firing LoopLag critical"]);
    let mut told = incident.pass(60, |_| well());
    told.sort();
    assert_eq!(told, ["resolved LoopLag critical", "resolved ReadyQueueGrowing warning"]);
    assert_eq!(incident.also("ReadyQueueGrowing"), "LoopLag, RuntimeBusy");
}

#[test]
fn polls_that_are_stuck_together_are_told_once_and_what_stays_stuck_then() {
    // One holds a lock that the other waits for.
    let both = |ns: u64| {
        let workers = vec![stuck_worker(ns, 1), stuck_worker(ns.saturating_sub(250 * MS), 4)];
        v1::Frame { runtimes: vec![runtime(1, workers)], ..well() }
    };
    let mut incident = Incident::new(of_rules(&["TaskStuckInPoll"]));
    assert_eq!(incident.pass(5, both), ["firing TaskStuckInPoll warning"]);
    assert_eq!(incident.notices[0].alert.labels.get("label"), Some("POST /resize"));
    // The first has ended.
    let one = |_: u64| v1::Frame { runtimes: vec![runtime(1, vec![stuck_worker(5 * S, 4)])], ..well() };
    assert_eq!(incident.pass(5, one), Vec::<String>::new());
    assert_eq!(incident.pass(2, one), ["firing TaskStuckInPoll warning"]);
    assert_eq!(incident.notices[1].alert.labels.get("label"), Some("POST /orders"));
    incident.pass(60, |_| well());
    let also: Vec<_> = incident.notices.iter().map(|it| it.alert.annotations.get("also").cloned()).collect();
    assert_eq!(also[2].as_deref(), Some("TaskStuckInPoll (POST /orders)"), "{also:?}");
    assert_eq!(incident.notices.len(), 4);
}

#[test]
fn what_a_target_has_stopped_telling_is_not_over() {
    let mut watched = of_rules(&["LoopLag", "ReadyQueueGrowing"]);
    watched.retain(|it| it.setting.severity == Severity::Warning);
    let grows = |ns: u64| {
        let runtime = v1::Runtime { ready_tasks: Some(ns / MS), oldest_ready_ns: Some(ns), ..healthy(1) };
        v1::Frame { runtimes: vec![runtime], ..well() }
    };
    for rule in ["LoopLag", "ReadyQueueGrowing"] {
        let only = watched.iter().filter(|it| it.rule.name == rule).cloned().collect();
        let mut incident = Incident::new(only);
        assert_eq!(incident.pass(40, grows), [format!("firing {rule} warning")]);
        let untold = |_| {
            let runtime = v1::Runtime { ready_tasks: None, ..healthy(1) };
            v1::Frame { runtimes: vec![runtime], ..well() }
        };
        assert_eq!(incident.pass(600, untold), Vec::<String>::new(), "{rule}");
        let (_, evaluations) = &incident.watcher.explain(rule)[0];
        let said = evaluations.last().and_then(|it| it.missing.clone()).expect("it is missing");
        assert!(said.starts_with("the target "), "{said}");
        assert_eq!(incident.pass(40, |_| well()), [format!("resolved {rule} warning")]);
    }
}

#[test]
fn a_runtime_without_any_task_has_nothing_that_waits() {
    let mut incident = Incident::new(of_rules(&["LoopLag", "RuntimeBusy", "ReadyQueueGrowing"]));
    let busy = |ns: u64| {
        let workers = vec![v1::Worker { busy_ratio: Some(1.0), ..Default::default() }; 2];
        let runtime = v1::Runtime { oldest_ready_ns: Some(ns / 100), ..runtime(1, workers) };
        v1::Frame { runtimes: vec![runtime], ..well() }
    };
    assert_eq!(incident.pass(40, busy), ["firing RuntimeBusy warning"]);
    // It was let go, and tells nothing but that.
    let rests = v1::Runtime { id: 1, alive_tasks: Some(0), global_queue: Some(0), ..Default::default() };
    let told = incident.pass(40, |_| v1::Frame { runtimes: vec![rests.clone()], ..well() });
    assert_eq!(told, ["resolved RuntimeBusy warning"]);
}
