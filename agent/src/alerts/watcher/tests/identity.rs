//! What alerts are told apart by: the same fault of another task, in another process, of another length, is the same alert.

use taskscope_proto::v1::{TaskKind, TaskState, loss, pool};

use super::*;
use crate::alerts::rules::RULES;
use crate::alerts::vitals::{Memory, Told, Vitals};
use crate::metrics::ALERT_LABELS;

/// What no label may hold, in every place where a target can say it.
#[derive(Clone, Copy)]
struct Numbers {
    /// Of the first task; of the process, its threads and its runtime, too.
    id: u32,
    /// Of everything that takes time.
    ns: u64,
}

const ONE: Numbers = Numbers { id: 918_273_645, ns: 918_273_645_000_000 };
const OTHER: Numbers = Numbers { id: 564_738_291, ns: 564_738_291_000_000 };
/// Of a rule's window, so that it is over soon.
const WINDOW_NS: u64 = 10 * S;
const SECONDS: u64 = 20;

/// Every setting of every rule, opted in or not, with a threshold that everything passes.
fn eager() -> Vec<Watched> {
    let watched = |rule: &'static Rule, setting: &Setting| {
        let timing = Timing { for_ns: 0, ..setting.timing };
        let window_ns = setting.window_ns.min(WINDOW_NS);
        let setting = Setting {
            threshold: 1e-9,
            window_ns,
            min_count: setting.min_count.map(|_| 1),
            timing,
            ..setting.clone()
        };
        Watched { rule, setting, about: Match::default() }
    };
    RULES.into_iter().flat_map(|rule| rule.defaults.iter().map(move |it| watched(rule, it))).collect()
}

/// All faults at once, in their nth second.
fn frame(numbers: Numbers, second: u64, standing: &[v1::StandingQuery]) -> v1::Frame {
    let Numbers { id, ns } = numbers;
    let (task, at_ns) = (u64::from(id), (1_000 + second) * S);
    let poll = |kind: TaskKind, of: u64| v1::LivePoll {
        task_id: task + of,
        kind: kind.into(),
        label_sid: 1,
        spawned_at_sid: 2,
        since_ns: ns + second * S,
        ..Default::default()
    };
    let worker = v1::Worker {
        index: 0,
        tid: Some(id + 1),
        busy_ratio: Some(1.0),
        poll: Some(poll(TaskKind::Task, 0)),
        ..Default::default()
    };
    let runtime = v1::Runtime {
        id,
        workers: vec![worker],
        ready_tasks: Some(task * (1 + second / 14)),
        oldest_ready_ns: Some(ns),
        ..Default::default()
    };
    let thread = v1::Thread { tid: id + 2, poll: Some(poll(TaskKind::Blocking, 9)), ..Default::default() };
    let pool = |kind: pool::Kind, name: &str| v1::Pool {
        kind: kind.into(),
        name: name.into(),
        busy: Some(task),
        capacity: Some(task),
        queued: Some(task),
        oldest_wait_ns: Some(ns),
        saturated_ns: Some(ns),
        runtime_id: id,
        ..Default::default()
    };
    let event = |seq: u64, kind: Kind| v1::Event {
        seq: second * 10 + seq,
        at_ns,
        kind: kind.into(),
        tid: Some(id + 3),
        poll: Some(poll(TaskKind::Task, 10 + second)),
        ..Default::default()
    };
    let state = |state: TaskState| i32::from(state);
    let rows = v1::TaskRows {
        id: (0..4).map(|of| task + of).collect(),
        // In one long poll after another; waking itself; waiting, and asked to stop; ready.
        state: [TaskState::Running, TaskState::Running, TaskState::Idle, TaskState::Scheduled]
            .map(state)
            .to_vec(),
        name_sid: vec![3, 3, 3, 0],
        label_sid: vec![0, 0, 0, 1],
        spawned_at_sid: vec![2; 4],
        runtime_id: vec![id; 4],
        polls: vec![second, second * 20_000, 1, 1],
        busy_ns: vec![second * S, second * S / 2, 1, 1],
        age_ns: vec![ns; 4],
        since_ns: vec![ns; 4],
        wakes_plus1: vec![1, second * 20_000 + 1, 1, 1],
        self_wakes_plus1: vec![1, second * 20_000 + 1, 1, 1],
        wakers_plus1: vec![2, 2, 1, 2],
        cancel_ns_plus1: vec![0, 0, ns, 0],
        ..Default::default()
    };
    let group = v1::Group {
        id,
        name_sid: 3,
        spawned_at_sid: 2,
        // More than wait in the run queues.
        live: task * 4,
        spawned_total: task * 4,
        trend: Some(v1::Trend {
            window_ns: 31 * S,
            live_before: 1,
            spawned: task * 4,
            ended: 0,
            growing_seconds: 31,
        }),
        ..Default::default()
    };
    let texts = [(1, "POST /resize"), (2, "src/serve.rs:9:1"), (3, "mailer")];
    let task_ids: Vec<u64> = rows.id.clone();
    let found = |query: &v1::StandingQuery| v1::StandingFinding {
        query_id: query.query_id,
        matching: 4,
        task_ids: task_ids.clone(),
    };
    v1::Frame {
        seq: second + 1,
        resync: second == 0,
        at_ns,
        unix_ns: 1_000_000 * S + at_ns,
        strings: texts.map(|(sid, text)| v1::InternedString { sid, text: text.into() }).to_vec(),
        runtimes: vec![runtime],
        threads: vec![thread],
        pools: vec![
            pool(pool::Kind::Blocking, "blocking"),
            pool(pool::Kind::User, "db"),
            pool(pool::Kind::FileDescriptors, "file descriptors"),
            pool(pool::Kind::Memory, "memory"),
        ],
        tasks: Some(v1::TaskWindow { order: task_ids.clone(), rows: Some(rows), ..Default::default() }),
        groups: Some(v1::GroupWindow { total: 1, groups: vec![group], labels: vec![] }),
        events: [(1, Kind::PollSlow), (2, Kind::TaskPanic), (3, Kind::TaskFailed)]
            .map(|(seq, kind)| event(seq, kind))
            .to_vec(),
        findings: standing.iter().map(found).collect(),
        losses: vec![v1::Loss { reason: loss::Reason::DroppedEvents.into(), count: task + second }],
        ..Default::default()
    }
}

/// The labels of everything that is pending or fires at a target, or about the agent, told or not.
fn told(numbers: Numbers) -> BTreeSet<Labels> {
    let Numbers { id, ns } = numbers;
    let mut seen = BTreeSet::new();
    let mut look = |watcher: &Watcher| seen.extend(watcher.alerts().map(|(alert, _)| alert.labels));
    let description =
        v1::Description { name: "shop".into(), pid: id, instance: id.to_string(), ..Default::default() };
    let mut model = Model::new(description);
    let mut watcher = Watcher::new(eager(), "shop", &Labels::default());
    for second in 0..SECONDS {
        let standing = watcher.request(&model).standing;
        model.apply(frame(numbers, second, &standing));
        watcher.frame(&model);
        look(&watcher);
    }
    let silence = Silence { for_ns: ns, reason: format!("process {id} has ended") };
    watcher.tick(&model, Some(&silence), ns, ns);
    look(&watcher);

    let mut own = Watcher::new(eager(), "taskscope-agent", &Labels::default());
    let mut vitals = Vitals::default();
    for second in 0..SECONDS {
        vitals.turn(S / 2, second * S);
        vitals.uses(Some(second * S), Some(Memory { held: ns, limit: ns }));
        vitals.sinks([Told {
            sink: "chat".into(),
            instance: String::new(),
            delivered: 0,
            dropped: u64::from(id),
            failing: Some(format!("it has not answered for {ns} ns")),
        }]);
        own.own(&vitals, second * S, second * S);
        look(&own);
    }
    seen
}

#[test]
fn no_label_of_any_rule_holds_a_task_a_process_or_a_duration() {
    let labels = told(ONE);
    let names: BTreeSet<&str> = labels.iter().filter_map(|it| it.get("alertname")).collect();
    let rules: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(names, rules, "each has said something");
    for (name, value) in labels.iter().flat_map(Labels::iter) {
        assert!(ALERT_LABELS.contains(&name), "metrics do not know the label {name}");
        assert!(!value.contains("918") && !value.contains("255h"), "{name}={value}");
    }
    // Whatever else is made of them, as a duration in words, would differ.
    assert_eq!(labels, told(OTHER));
}
