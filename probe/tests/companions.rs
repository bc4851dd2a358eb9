//! `JoinSet` and `TaskTracker` do what Tokio's do, and their tasks are told like all wrapped ones.

use std::collections::HashSet;
use std::future::pending;
use std::sync::OnceLock;
use std::sync::mpsc;

use asking::Asker;
use taskscope_probe::{JoinSet, Probe, TaskTracker};
use taskscope_proto::v1::event::Kind;
use taskscope_proto::v1::{Outcome, TaskState};
use tokio::runtime::Runtime;

#[path = "asking/probe.rs"]
mod asking;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        Probe::builder().name(name()).install(&mut builder);
        builder.worker_threads(2).enable_all().build().expect("a runtime can be built")
    })
}

fn name() -> String {
    format!("companions-{}", std::process::id())
}

fn begin() -> (tokio::runtime::EnterGuard<'static>, Asker) {
    let entered = runtime().enter();
    (entered, Asker::of(&name()))
}

#[test]
fn a_set_joins_what_it_spawned_once_each() {
    let (_entered, mut probe) = begin();
    let mut set = JoinSet::default();
    assert!(set.is_empty() && set.try_join_next().is_none());
    let mut ids: HashSet<_> = (0..20).map(|n| set.spawn("member", async move { n }).id()).collect();
    ids.insert(set.spawn_blocking("member job", || 20).id());
    assert_eq!((set.len(), format!("{set:?}").as_str()), (21, "JoinSet { len: 21 }"));
    let mut sum = 0;
    runtime().block_on(async {
        while let Some(joined) = set.join_next_with_id().await {
            let (id, value) = joined.expect("none panics");
            assert!(ids.remove(&id));
            sum += value;
        }
    });
    assert_eq!((sum, ids.len(), set.len()), (210, 0, 0));
    probe.until(|answer| {
        let (tasks, jobs) = (answer.group("member")?, answer.group("member job")?);
        assert_eq!((tasks.spawned_total, jobs.spawned_total), (20, 1));
        let site = answer.text(tasks.spawned_at_sid);
        assert!(site.contains("tests/companions.rs:"), "{site}");
        ((tasks.ended_total, tasks.live, jobs.live) == (20, 0, 0)).then_some(())
    });
    let results = runtime().block_on(async {
        let mut set = JoinSet::new();
        set.spawn("summand", async { 3 });
        set.spawn("summand", async { 4 });
        set.join_all().await
    });
    assert_eq!(results.into_iter().sum::<i32>(), 7);
}

#[test]
fn aborting_all_asks_each_task_and_a_dropped_set_aborts() {
    let (_entered, mut probe) = begin();
    let (go, gone) = mpsc::channel::<()>();
    let mut set = JoinSet::new();
    set.spawn_blocking("stubborn", move || {
        let _ = gone.recv();
    });
    set.spawn("obedient", pending::<()>());
    probe.row("stubborn", |row| row.state == TaskState::Running);
    probe.row("obedient", |row| row.state == TaskState::Idle);
    set.abort_all();
    probe.row("stubborn", |row| row.cancel.is_some());
    assert_eq!(probe.row("obedient", |row| row.state == TaskState::Ended).outcome, Outcome::Aborted);
    go.send(()).expect("it waits");
    runtime().block_on(set.shutdown());
    assert!(set.is_empty());
    assert_eq!(probe.row("stubborn", |row| row.state == TaskState::Ended).outcome, Outcome::Completed);

    let mut set = JoinSet::new();
    set.spawn("dropped with its set", pending::<()>());
    probe.row("dropped with its set", |row| row.state == TaskState::Idle);
    drop(set);
    let row = probe.row("dropped with its set", |row| row.state == TaskState::Ended);
    assert_eq!(row.outcome, Outcome::Aborted);
}

#[test]
fn tasks_that_a_set_let_go_die_silently_and_joined_ones_do_not() {
    let (_entered, mut probe) = begin();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let mut set = JoinSet::new();
    set.spawn("let go", async move {
        let _ = gone.await;
        panic!("expected by the test");
    });
    set.detach_all();
    assert!(set.is_empty());
    set.spawn("joined", async { panic!("expected by the test") });
    assert!(runtime().block_on(set.join_next()).expect("one is in it").is_err_and(|error| error.is_panic()));
    go.send(()).expect("it waits");
    let events = probe.until(|answer| {
        let both = [answer.events(Kind::TaskPanic, "let go"), answer.events(Kind::TaskPanic, "joined")];
        (both == [1, 1]).then(|| answer.frame.events.clone())
    });
    assert_eq!(events.iter().filter(|event| event.detached).count(), 1);
}

#[test]
fn a_set_takes_local_tasks() {
    let (_entered, mut probe) = begin();
    let current = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be built");
    let sum = tokio::task::LocalSet::new().block_on(&current, async {
        let mut set = JoinSet::new();
        let value = std::rc::Rc::new(5);
        set.spawn_local("local member", async move { *value });
        set.join_next().await.expect("one is in it").expect("it does not panic")
    });
    assert_eq!(sum, 5);
    let row = probe.row("local member", |row| row.state == TaskState::Ended);
    assert_eq!(row.outcome, Outcome::Completed);
}

#[test]
fn a_tracker_waits_for_its_tasks() {
    let (_entered, mut probe) = begin();
    let tracker = TaskTracker::new();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let task = tracker.spawn("tracked", async move {
        let _ = gone.await;
        7
    });
    let job = tracker.spawn_blocking("tracked job", || 8);
    assert_eq!(runtime().block_on(job).expect("it does not panic"), 8);
    let untracked = tracker.track_future(async {});
    assert!(tracker.close() && tracker.is_closed() && !tracker.close());
    assert!(tracker.reopen() && !tracker.is_closed() && tracker.close());
    probe.row("tracked", |row| row.state == TaskState::Idle);
    assert_eq!((tracker.clone().len(), tracker.is_empty()), (2, false));
    drop(untracked);
    go.send(()).expect("it waits");
    runtime().block_on(tracker.wait());
    assert!(tracker.is_empty());
    assert_eq!(runtime().block_on(task).expect("it does not panic"), 7);
    assert_eq!(probe.row("tracked", |row| row.state == TaskState::Ended).outcome, Outcome::Completed);
    probe.row("tracked job", |row| row.state == TaskState::Ended);
}
