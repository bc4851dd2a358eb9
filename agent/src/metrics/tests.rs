use super::*;
use crate::alerts::labels::Labels;
use crate::alerts::life::Transition;
use taskscope_proto::histogram::{Packed, Sparse, index};

fn counted(each: &[(u64, u64)]) -> Packed {
    let counted = Sparse::from_counts(each.iter().map(|&(ns, count)| (index(ns), count)));
    let sum_ns = Some(each.iter().map(|(ns, count)| ns * count).sum());
    Packed::from(&counted).with_sum_ns(sum_ns)
}

fn polls(each: &[(u64, u64)]) -> Option<v1::PollStats> {
    Some(v1::PollStats { histogram_total: Some(counted(each)), ..Default::default() })
}

fn model(groups: Vec<v1::Group>, strings: &[(u32, &str)]) -> Model {
    let mut model = Model::new(v1::Description::default());
    let workers = vec![
        v1::Worker { index: 0, busy_ns_total: Some(1_500_000_000), ..Default::default() },
        v1::Worker { index: 1, ..Default::default() },
    ];
    let (followed, running) = (Some(5), Some(2));
    let runtime =
        v1::Runtime { id: 1, alive_tasks: Some(7), followed, running, workers, ..Default::default() };
    let blocking =
        v1::Pool { kind: PoolKind::Blocking.into(), busy: Some(2), runtime_id: 1, ..Default::default() };
    let dropped = v1::Loss { reason: Reason::DroppedEvents.into(), count: 3 };
    model.apply(v1::Frame {
        seq: 1,
        strings: strings.iter().map(|&(sid, text)| v1::InternedString { sid, text: text.into() }).collect(),
        totals: Some(v1::Totals { followed: 6, running: 2, ..Default::default() }),
        runtimes: vec![runtime],
        pools: vec![blocking],
        groups: Some(v1::GroupWindow { total: groups.len() as u64, groups, labels: vec![] }),
        losses: vec![dropped],
        probe: Some(v1::ProbeHealth { memory_bytes: 100, memory_limit_bytes: 200, ..Default::default() }),
        ..Default::default()
    });
    model
}

fn exposition(form: Form, name: &str, model: &Model) -> String {
    let mut shown = Shown::default();
    shown.take(model);
    let live = Seen { name, description: None, model: Some(model), shown: Some(&shown), watcher: None };
    let gone = Seen { name: "gone", description: None, model: None, shown: None, watcher: None };
    let sink = Health {
        sink: "chat".into(),
        instance: "am-0:9093".into(),
        delivered: 3,
        dropped: 1,
        refused: 0,
        failing: Some("it is down".into()),
    };
    let own = Watcher::new(vec![], "taskscope-agent", &Labels::default());
    let reload = LastReload { is_good: false, good_unix_ns: 1_795_225_779_500_000_000 };
    let itself = Itself { watcher: &own, reload, missed: &[] };
    form.write(families([live, gone].into_iter(), 0, &[sink], &itself)).collect()
}

pub(super) fn shop() -> Model {
    let conn = |id, live| v1::Group {
        id,
        name_sid: 1,
        live,
        spawned_total: 9,
        polls: polls(&[(1_000_000, 3), (200_000_000, 1)]),
        // One of the two is spawned where no wrapper sees its wakes.
        scheduled_total: (id == 1).then(|| counted(&[(20_000, 5), (40_000_000, 2)])),
        ..Default::default()
    };
    let unnamed = v1::Group {
        id: 3,
        spawned_at_sid: 2,
        live: 1,
        polls: Some(v1::PollStats::default()),
        ..Default::default()
    };
    model(vec![conn(1, 4), conn(2, 1), unnamed], &[(1, "con\"n\n"), (2, "src/a.rs:7:3")])
}

#[test]
fn both_forms_say_what_is_known_and_nothing_else() {
    insta::assert_snapshot!("text", exposition(Form::Text, "shop", &shop()));
    insta::assert_snapshot!("openmetrics", exposition(Form::OpenMetrics, "shop", &shop()));
}

#[test]
fn who_reads_openmetrics_gets_it() {
    let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(Form::wanted(Some(prometheus)), Form::OpenMetrics);
    assert_eq!((Form::wanted(Some("*/*")), Form::wanted(None)), (Form::Text, Form::Text));
}

#[test]
fn past_two_hundred_groups_the_rest_is_one_and_stays_it() {
    let names: Vec<String> = (0..250).map(|n| format!("g{n}")).collect();
    let strings: Vec<(u32, &str)> =
        names.iter().enumerate().map(|(n, name)| (n as u32 + 1, name.as_str())).collect();
    let group = |n: u32| v1::Group {
        id: n + 1,
        name_sid: n + 1,
        live: 1,
        polls: polls(&[(1_000, 1)]),
        // Of one told on its own, and of two that are not, wakes are seen.
        scheduled_total: [10, 210, 211].contains(&n).then(|| counted(&[(2_000, 3)])),
        ..Default::default()
    };
    let first = model((0..250).map(group).collect(), &strings);
    let mut shown = Shown::default();
    shown.take(&first);
    // The busiest come first: now those that are told as `other`.
    let second = model((0..250).rev().map(group).collect(), &strings);
    shown.take(&second);
    for model in [&first, &second] {
        let told = shown.groups(model);
        assert_eq!(told.len(), 201);
        let other = told.iter().find(|told| told.name == "other").expect("it is told");
        assert_eq!(other.live, 50);
        let Some(Value::Durations { buckets, .. }) = &other.polls else { panic!("no histogram") };
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), 50);
        let with: Vec<&str> = told.iter().filter(|it| it.waits.is_some()).map(|it| it.name).collect();
        assert_eq!(with, ["g10", "other"]);
        let Some(Value::Durations { buckets, .. }) = &other.waits else { panic!("no histogram") };
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), 6);
        assert!(told.iter().any(|told| told.name == "g0") && !told.iter().any(|told| told.name == "g249"));
    }
}

#[test]
fn another_run_of_the_target_has_room_for_its_own_groups() {
    let of = |run: &str, lines: std::ops::Range<u32>| {
        let names: Vec<String> = lines.clone().map(|n| format!("src/a.rs:{n}:5")).collect();
        let strings: Vec<(u32, &str)> = lines.clone().zip(names.iter().map(String::as_str)).collect();
        let group = |n| v1::Group {
            id: n,
            spawned_at_sid: n,
            live: 1,
            polls: polls(&[(1_000, 1)]),
            ..Default::default()
        };
        let mut model = model(lines.map(group).collect(), &strings);
        model.description.instance = run.to_owned();
        model
    };
    let told = |shown: &Shown, model: &Model| -> Vec<String> {
        shown.groups(model).iter().map(|told| told.name.to_owned()).collect()
    };
    let mut shown = Shown::default();
    // A release has its tasks in other lines, and each is there after a restart.
    for release in 0..5 {
        let model = of(&format!("run-{release}"), release * 100 + 1..release * 100 + 91);
        shown.take(&model);
        assert_eq!(told(&shown, &model).len(), 90, "release {release}");
        assert!(!told(&shown, &model).contains(&"other".to_owned()), "release {release}");
    }
    // The same run has what it had, also where its link was down.
    let model = of("run-4", 1..301);
    shown.take(&model);
    assert_eq!(told(&shown, &model).iter().filter(|name| *name != "other").count(), 110);
    let model = of("run-4", 401..491);
    assert_eq!(told(&shown, &model).len(), 90);
}

#[test]
fn waits_are_told_of_those_whose_wakes_are_seen_and_only_whole() {
    let group = |id: u32, scheduled_total| v1::Group {
        id,
        name_sid: id % 2 + 1,
        polls: polls(&[(1_000, 1)]),
        scheduled_total,
        ..Default::default()
    };
    let waits = |groups: Vec<v1::Group>| {
        let model = model(groups, &[(1, "even"), (2, "odd")]);
        let mut shown = Shown::default();
        shown.take(&model);
        let told = shown.groups(&model);
        assert!(told.iter().all(|told| told.polls.is_some()), "polls are told whatever is of waits");
        let count = |value: &Value| match value {
            Value::Durations { buckets, sum } => (buckets.iter().map(|it| it.1).sum::<u64>(), *sum),
            _ => panic!("no histogram"),
        };
        told.iter().map(|told| (told.name.to_owned(), told.waits.as_ref().map(count))).collect::<Vec<_>>()
    };
    let one = || Some(counted(&[(500_000_000, 2)]));
    let (even, odd) = ("even".to_owned(), "odd".to_owned());
    // Of neither are wakes seen: no series at all, and none of zero.
    assert_eq!(waits(vec![group(1, None), group(2, None)]), [(even.clone(), None), (odd.clone(), None)]);
    let told = waits(vec![group(1, one()), group(3, None), group(5, one())]);
    assert_eq!(told, [(odd.clone(), Some((4, 2.0)))]);
    // The frame had no room for one of them: what is left would be a counter that falls.
    let told = waits(vec![group(1, one()), group(2, one()), group(3, Some(Packed::UNTOLD))]);
    assert_eq!(told, [(even, Some((2, 1.0))), (odd, None)]);
}

#[test]
fn what_fired_before_a_restart_fires_until_its_target_is_seen_again() {
    let own = Watcher::new(vec![], "taskscope-agent", &Labels::default());
    let reload = LastReload { is_good: true, good_unix_ns: 0 };
    let alert = crate::sinks::fixture::notice("TaskLeak", "conn", Transition::Firing).alert;
    let itself = Itself { watcher: &own, reload, missed: &[("shop".to_owned(), alert)] };
    let text: String = Form::Text.write(families(std::iter::empty(), 0, &[], &itself)).collect();
    let series = text.lines().find(|line| line.starts_with("taskscope_alerts{")).unwrap_or_default();
    let wanted = "taskscope_alerts{target=\"shop\",alertstate=\"firing\",alertname=\"TaskLeak\",severity=\"warning\",\
                  service=\"checkout\",task_group=\"conn\"} 1";
    assert_eq!(series, wanted, "{text}");
}
