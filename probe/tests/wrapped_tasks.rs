//! What the probe tells of wrapped tasks is what happened to them, with hooks and without.

use std::future::{Future, pending, poll_fn};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Poll, Waker};

use asking::{Asker, eventually};
use taskscope_probe::{Class, InstrumentTask, Probe, task};
use taskscope_proto::row::TaskRow;
use taskscope_proto::v1::event::Kind;
use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::{Outcome, TaskClass, TaskKind, TaskState};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, oneshot};

#[path = "asking/probe.rs"]
mod asking;

/// The runtime of all tests here: one process has one probe.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        Probe::builder().name(name()).install(&mut builder);
        builder.worker_threads(2).enable_all().build().expect("a runtime can be built")
    })
}

fn name() -> String {
    format!("wrapped-{}", std::process::id())
}

/// The test's thread is in the runtime's context, and not in a task.
fn begin() -> (tokio::runtime::EnterGuard<'static>, Asker) {
    let entered = runtime().enter();
    (entered, Asker::of(&name()))
}

fn ended(row: &TaskRow) -> bool {
    row.state == TaskState::Ended
}

/// A future that is pending for ever and keeps its waker where the test finds it.
fn parked() -> (Arc<Mutex<Option<Waker>>>, impl Future<Output = ()> + Send + 'static) {
    let kept: Arc<Mutex<Option<Waker>>> = Arc::default();
    let keeps = Arc::clone(&kept);
    let future = poll_fn(move |cx| {
        *keeps.lock().expect("no holder panics") = Some(cx.waker().clone());
        Poll::Pending
    });
    (kept, future)
}

fn held(kept: &Mutex<Option<Waker>>) -> Waker {
    eventually(|| kept.lock().expect("no holder panics").clone().ok_or_else(|| "not polled".to_owned()))
}

#[test]
fn each_end_is_told_as_what_it_was() {
    let (_entered, mut probe) = begin();
    runtime().block_on(async {
        taskscope_probe::spawn("completes", async {}).await.expect("it does not panic");
        let panics = taskscope_probe::spawn("panics", async { panic!("out of paper") }).await;
        assert!(panics.is_err_and(|error| error.is_panic()));
        let fails = taskscope_probe::spawn_try("fails", async { Err::<(), _>("connection refused") });
        assert_eq!(fails.await.expect("it does not panic"), Err("connection refused"));
        let aborted = taskscope_probe::spawn("aborted by its handle", pending::<()>());
        aborted.abort();
        assert!(aborted.await.is_err_and(|error| error.is_cancelled()));
        taskscope_probe::spawn_detached("aborted from afar", pending::<()>()).abort();
        // A handle of Tokio's own says nothing to the probe.
        let cancelled = taskscope_probe::spawn("cancelled", pending::<()>()).into_inner();
        cancelled.abort();
        assert!(cancelled.await.is_err_and(|error| error.is_cancelled()));
    });
    for (name, outcome) in [
        ("completes", Outcome::Completed),
        ("panics", Outcome::Panicked),
        ("fails", Outcome::Failed),
        ("aborted by its handle", Outcome::Aborted),
        ("aborted from afar", Outcome::Aborted),
        ("cancelled", Outcome::Cancelled),
    ] {
        let row = probe.row(name, ended);
        assert_eq!(row.outcome, outcome, "{row:#?}");
        let reason = row.reason.as_str();
        match name {
            "panics" => assert!(
                reason.starts_with("out of paper, at ") && reason.contains("tests/wrapped_tasks.rs:"),
                "{reason}"
            ),
            "fails" => assert_eq!(reason, "connection refused"),
            _ => assert_eq!(reason, ""),
        }
    }
}

#[test]
fn an_error_is_an_event_only_where_nobody_can_await_it() {
    let (_entered, mut probe) = begin();
    let fail = || async { Err::<(), _>("disk full") };
    for _ in 0..200 {
        let failed = runtime().block_on(taskscope_probe::spawn_try("awaited failure", fail()));
        assert!(failed.expect("it does not panic").is_err());
    }
    let (go, gone) = oneshot::channel::<()>();
    drop(taskscope_probe::spawn_try("forgotten failure", async {
        let _ = gone.await;
        Err::<(), _>("disk full")
    }));
    go.send(()).expect("it waits");
    let answer = probe.until(|answer| {
        (answer.events(Kind::TaskFailed, "forgotten failure") == 1).then(|| {
            assert_eq!(answer.events(Kind::TaskFailed, "awaited failure"), 0);
            answer.frame.events.clone()
        })
    });
    assert!(answer.iter().any(|event| event.kind() == Kind::TaskFailed && event.detached));
}

#[test]
fn an_error_is_told_when_its_handle_goes_unawaited_after_the_end() {
    let (_entered, mut probe) = begin();
    let fails = |name: &str| {
        let failed = taskscope_probe::spawn_try(name, async { Err::<(), _>("out of ink") });
        eventually(|| failed.is_finished().then_some(()).ok_or_else(|| "it runs".to_owned()));
        failed
    };
    let (dropped, awaited) = (fails("dropped failure"), fails("awaited late"));
    // Tokio's own: what is done with it is not seen.
    let unseen = fails("unseen failure").into_inner();
    assert_eq!(probe.row("dropped failure", ended).outcome, Outcome::Failed);
    let events =
        |probe: &mut Asker, name: &str| probe.until(|answer| Some(answer.events(Kind::TaskFailed, name)));
    assert_eq!(events(&mut probe, "dropped failure"), 0, "somebody holds its handle");
    drop(dropped);
    assert!(runtime().block_on(awaited).expect("it does not panic").is_err());
    drop(unseen);
    probe.until(|answer| {
        let all = [1, 0, 0];
        let names = ["dropped failure", "awaited late", "unseen failure"];
        let told = names.map(|name| answer.events(Kind::TaskFailed, name));
        assert!(told <= all, "{told:?} of {names:?}");
        (told == all).then_some(())
    });
}

#[test]
fn each_error_is_told_once_whichever_comes_first_its_end_or_the_going_of_its_handle() {
    let (_entered, mut probe) = begin();
    const COUNT: usize = 100;
    for _ in 0..COUNT {
        drop(taskscope_probe::spawn_try("in a race", async { Err::<(), _>("out of toner") }));
    }
    probe.until(|answer| {
        let told = answer.events(Kind::TaskFailed, "in a race");
        assert!(told <= COUNT, "{told}");
        (told == COUNT).then_some(())
    });
}

#[test]
fn a_task_that_is_dropped_while_another_unwinds_did_not_panic() {
    let (_entered, mut probe) = begin();
    let unwound = std::panic::catch_unwind(|| {
        let local = tokio::task::LocalSet::new();
        let current = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be built");
        local.block_on(&current, async {
            drop(taskscope_probe::spawn_local("bystander", pending::<()>()));
            tokio::task::yield_now().await;
            panic!("expected by the test");
        });
    });
    assert!(unwound.is_err());
    let row = probe.row("bystander", ended);
    assert_eq!(row.outcome, Outcome::Cancelled, "{row:#?}");
}

#[test]
fn wakes_are_counted_with_who_made_them() {
    let (_entered, mut probe) = begin();
    let bell = Arc::new(Notify::new());
    let rings = Arc::clone(&bell);
    let (kept, parked) = parked();
    let sleeper = taskscope_probe::spawn("sleeper", parked);
    // The test's thread is in no poll.
    held(&kept).wake();
    let row = probe.row("sleeper", |row| row.polls == 2 && row.state == TaskState::Idle);
    let wakes = row.wakes.expect("its wakes are seen");
    assert_eq!((wakes.total, wakes.by_itself, wakes.by), (1, 0, None), "{row:#?}");
    let waker = held(&kept);
    let ringer = taskscope_probe::spawn("ringer", async move {
        waker.wake();
        rings.notified().await;
    });
    let by = probe.row("ringer", |row| row.state == TaskState::Idle).id;
    let row = probe.row("sleeper", |row| row.polls == 3 && row.state == TaskState::Idle);
    let wakes = row.wakes.expect("its wakes are seen");
    assert_eq!((wakes.total, wakes.by_itself, wakes.by), (2, 0, Some(by)), "{row:#?}");
    assert!(row.scheduled_ns.is_some() && row.idle_ns.is_some());
    sleeper.abort();
    bell.notify_one();
    drop(ringer);
}

#[test]
fn a_task_that_wakes_itself_is_told() {
    let (_entered, mut probe) = begin();
    let mut left = 10;
    let busy = taskscope_probe::spawn(
        "restless",
        poll_fn(move |cx| {
            left -= 1;
            if left > 0 {
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        }),
    );
    let row = probe.row("restless", |row| row.polls == 10 && row.state == TaskState::Idle);
    let wakes = row.wakes.expect("its wakes are seen");
    assert_eq!((wakes.total, wakes.by_itself, wakes.by), (9, 9, Some(row.id)), "{row:#?}");
    busy.abort();
}

#[test]
fn a_task_whose_wakers_are_gone_is_lost() {
    let (_entered, mut probe) = begin();
    let never = taskscope_probe::spawn("keeps no waker", pending::<()>());
    assert!(probe.row("keeps no waker", |row| row.state == TaskState::Idle).is_lost());
    let (kept, parked) = parked();
    let later = taskscope_probe::spawn("loses its waker", parked);
    let second = held(&kept);
    let row = probe.row("loses its waker", |row| row.state == TaskState::Idle);
    assert!(row.wakes.is_some_and(|wakes| wakes.wakers == 2) && !row.is_lost(), "{row:#?}");
    drop(second);
    kept.lock().expect("no holder panics").take();
    assert!(probe.row("loses its waker", |row| row.state == TaskState::Idle && row.is_lost()).polls == 1);
    never.abort();
    later.abort();
}

#[test]
fn a_task_that_ignores_an_abort_is_told_with_what_it_did_since() {
    let (_entered, mut probe) = begin();
    let (go, gone) = mpsc::channel::<()>();
    let blocked = taskscope_probe::spawn("blocks its worker", async move {
        let _ = gone.recv();
    });
    probe.row("blocks its worker", |row| row.state == TaskState::Running);
    assert_eq!(probe.row("blocks its worker", |_| true).cancel, None);
    blocked.abort();
    let asked = probe.row("blocks its worker", |row| row.cancel.is_some()).cancel.expect("it was asked");
    let later =
        probe.row("blocks its worker", |row| row.cancel.is_some_and(|it| it.since_ns > asked.since_ns));
    let cancel = later.cancel.expect("it lives on");
    assert_eq!((later.state, cancel.polls, cancel.wakes), (TaskState::Running, 0, 0), "{later:#?}");
    go.send(()).expect("it waits");
    // Tokio takes the result of a poll that was running.
    assert_eq!(probe.row("blocks its worker", ended).outcome, Outcome::Completed);

    let (go, gone) = mpsc::channel::<()>();
    let job = taskscope_probe::spawn_blocking("cannot be aborted", move || {
        let _ = gone.recv();
    });
    probe.row("cannot be aborted", |row| row.state == TaskState::Running);
    job.abort();
    let row = probe.row("cannot be aborted", |row| row.cancel.is_some());
    assert_eq!((row.kind, row.state), (TaskKind::Blocking, TaskState::Running));
    go.send(()).expect("it waits");
    assert_eq!(probe.row("cannot be aborted", ended).outcome, Outcome::Completed);
}

#[test]
fn a_token_that_a_task_ignores_is_told_with_what_it_did_since() {
    let (_entered, mut probe) = begin();
    let token = tokio_util::sync::CancellationToken::new();
    let (kept, parked) = parked();
    let deaf = task("deaf").cancelled_by(&token).spawn(parked);
    held(&kept);
    assert_eq!(probe.row("deaf", |row| row.state == TaskState::Idle).cancel, None);
    token.cancel();
    let row = probe.row("deaf", |row| row.cancel.is_some());
    assert!(row.cancel.is_some_and(|cancel| (cancel.polls, cancel.wakes) == (0, 0)), "{row:#?}");
    held(&kept).wake();
    let row = probe.row("deaf", |row| row.polls == 2);
    assert!(row.cancel.is_some_and(|cancel| (cancel.polls, cancel.wakes) == (1, 1)), "{row:#?}");
    // One that is cancelled before the first poll is told, too.
    let late = task("late").cancelled_by(&token).spawn(pending::<()>());
    probe.row("late", |row| row.cancel.is_some());
    late.abort();
    deaf.abort();
    assert_eq!(probe.row("deaf", ended).outcome, Outcome::Aborted);
}

#[test]
fn an_instrumented_future_that_is_spawned_is_one_row() {
    let (_entered, mut probe) = begin();
    let (kept, parked) = parked();
    let handle = tokio::spawn(parked.instrument_task("named later"));
    held(&kept).wake();
    let row = probe.row("named later", |row| row.polls == 2 && row.state == TaskState::Idle);
    assert_eq!(row.wakes.map(|wakes| wakes.total), Some(1), "{row:#?}");
    assert!(row.spawned_at.contains("tests/wrapped_tasks.rs:"), "{row:#?}");
    let answer = probe.ask();
    let group = answer.group("named later").expect("it has a group");
    assert_eq!((group.spawned_total, group.ended_total, group.live), (1, 0, 1));
    handle.abort();
    let row = probe.row("named later", ended);
    assert_eq!(row.outcome, Outcome::Cancelled);
    let answer = probe.ask();
    let group = answer.group("named later").expect("it has a group");
    assert_eq!((group.spawned_total, group.ended_total, group.live), (1, 1, 0));
}

#[test]
fn of_futures_inside_a_task_only_the_first_names_it() {
    let (_entered, mut probe) = begin();
    let task = taskscope_probe::spawn("outer", async {
        async {}.instrument_task("inner").await;
        // Dropped without a poll: it says nothing about the task that drops it.
        drop(async {}.instrument_task("never polled"));
        panic!("expected by the test");
    });
    assert!(runtime().block_on(task).is_err());
    let row = probe.row("outer", ended);
    assert_eq!(row.outcome, Outcome::Panicked, "{row:#?}");
    let answer = probe.ask();
    let of = |name: &str| answer.group(name).map(|group| (group.spawned_total, group.panicked_total));
    assert_eq!(of("outer"), Some((1, 1)));
    if cfg!(tokio_unstable) {
        assert_eq!(answer.named("inner").count(), 0);
    } else {
        assert_eq!(of("inner"), Some((1, 0)));
    }
}

#[test]
fn a_local_task_has_a_row_of_its_own_and_its_handle_is_heard() {
    let (_entered, mut probe) = begin();
    let (told, tell) = mpsc::channel::<()>();
    let (asked, ask) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let current = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be built");
        tokio::task::LocalSet::new().block_on(&current, async {
            let local = taskscope_probe::spawn_local("local", pending::<()>());
            tokio::task::yield_now().await;
            told.send(()).expect("the test waits");
            ask.recv().expect("the test asks");
            local.abort();
            assert!(local.await.is_err_and(|error| error.is_cancelled()));
        });
    });
    tell.recv().expect("it says so");
    let row = probe.row("local", |row| row.polls == 1 && row.state == TaskState::Idle);
    assert_eq!(row.kind, TaskKind::Wrapped);
    asked.send(()).expect("it waits");
    thread.join().expect("it does not panic");
    assert_eq!(probe.row("local", ended).outcome, Outcome::Aborted);
}

#[test]
fn class_and_fields_are_in_the_row() {
    let (_entered, mut probe) = begin();
    let (_kept, parked) = parked();
    let sync = task("ledger").class(Class::Critical).field("tenant", 42).field("shard", "eu-1").spawn(parked);
    let row = probe.row("ledger", |row| row.state == TaskState::Idle);
    assert_eq!((row.class, row.fields.as_str()), (TaskClass::Critical, "tenant=42 shard=eu-1"));
    sync.abort();
    let row = probe.row("ledger", ended);
    assert_eq!((row.class, row.fields.as_str()), (TaskClass::Critical, "tenant=42 shard=eu-1"));
}

#[test]
fn what_happens_to_a_task_is_told_with_its_class() {
    let (_entered, mut probe) = begin();
    let slow = || std::thread::sleep(std::time::Duration::from_millis(150));
    let doomed = task("doomed ledger").class(Class::Critical).spawn(async move {
        slow();
        tokio::task::yield_now().await;
        panic!("on purpose");
    });
    let plain = taskscope_probe::spawn("plain ledger", async move { slow() });
    assert!(runtime().block_on(doomed).is_err_and(|error| error.is_panic()));
    runtime().block_on(plain).expect("it does not panic");
    let classes = probe.until(|answer| {
        let told = [
            (Kind::PollSlow, "doomed ledger"),
            (Kind::TaskPanic, "doomed ledger"),
            (Kind::PollSlow, "plain ledger"),
        ];
        let class = |(kind, name): (Kind, &str)| {
            let of_kind = answer.frame.events.iter().filter(|event| event.kind() == kind);
            let mut polls = of_kind.filter_map(|event| event.poll.as_ref());
            polls.find(|poll| answer.text(poll.name_sid) == name).map(|poll| poll.task_class())
        };
        told.into_iter().map(class).collect::<Option<Vec<TaskClass>>>()
    });
    assert_eq!(classes, [TaskClass::Critical, TaskClass::Critical, TaskClass::Unspecified]);
}

#[test]
fn nothing_is_counted_twice() {
    let (_entered, mut probe) = begin();
    let spawn = || taskscope_probe::spawn("counted", tokio::task::yield_now());
    let tasks: Vec<_> = (0..300).map(|_| spawn()).collect();
    for task in tasks {
        runtime().block_on(task).expect("it does not panic");
    }
    probe.until(|answer| {
        let group = answer.group("counted")?;
        assert!(group.spawned_total == 300 && group.ended_total <= 300, "{group:?}");
        let polls = group.polls.as_ref()?.polls_total;
        assert!(polls <= 600, "{group:?}");
        ((group.ended_total, group.live, polls) == (300, 0, 600)).then_some(())
    });
}

#[test]
fn a_task_aborted_before_its_first_poll_leaves_its_group() {
    let (_entered, mut probe) = begin();
    for _ in 0..50 {
        let handle = taskscope_probe::spawn("stillborn", pending::<()>());
        handle.abort();
        assert!(runtime().block_on(handle).is_err_and(|error| error.is_cancelled()));
    }
    probe.until(|answer| {
        let group = answer.group("stillborn")?;
        let rows: Vec<_> = answer.named("stillborn").collect();
        (group.live == 0 && rows.len() == 50 && rows.iter().all(|row| row.outcome == Outcome::Aborted))
            .then_some(())
    });
}

#[test]
fn absurd_names_are_cut_and_counted_and_the_service_runs_on() {
    let (_entered, mut probe) = begin();
    let before = probe.ask().lost(Reason::CutStrings);
    let huge = "é".repeat(1 << 19);
    runtime().block_on(taskscope_probe::spawn(&huge, async {})).expect("it does not panic");
    runtime().block_on(taskscope_probe::spawn("\u{1b}[2Jclear", async {})).expect("it does not panic");
    probe.row("\u{fffd}[2Jclear", ended);
    let answer = probe.ask();
    let cut: Vec<_> = answer.rows.iter().filter(|row| row.name.starts_with('é')).collect();
    assert!(cut.len() == 1 && cut[0].name.len() <= 255, "{cut:#?}");
    assert_eq!(answer.lost(Reason::CutStrings), before + 2);
}

#[test]
fn jobs_tell_how_long_they_waited_for_a_thread() {
    let (_entered, mut probe) = begin();
    for _ in 0..3 {
        runtime().block_on(taskscope_probe::spawn_blocking("job", || {})).expect("it does not panic");
    }
    let group = probe.until(|answer| answer.group("job").filter(|group| group.ended_total == 3).cloned());
    let waits = group.queue_wait.expect("jobs wait");
    assert_eq!((waits.started_total, group.spawned_total, group.live), (3, 3, 0));
    assert!(waits.longest_ns > 0 && waits.longest_ns <= waits.wait_ns_total);
    let panics = taskscope_probe::spawn_blocking("bad job", || panic!("no such file"));
    assert!(runtime().block_on(panics).is_err_and(|error| error.is_panic()));
    let row = probe.row("bad job", ended);
    assert!(row.outcome == Outcome::Panicked && row.reason.starts_with("no such file, at "), "{row:#?}");
}

#[test]
fn will_wake_holds_for_clones_and_from_poll_to_poll() {
    let (_entered, _) = begin();
    let mut first: Option<Waker> = None;
    let twice = poll_fn(move |cx| match &first {
        None => {
            let clone = cx.waker().clone();
            assert!(clone.will_wake(cx.waker()) && cx.waker().will_wake(&clone));
            first = Some(clone);
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        Some(first) => Poll::Ready(first.will_wake(cx.waker())),
    });
    assert!(runtime().block_on(taskscope_probe::spawn("twice", twice)).expect("it does not panic"));
}

#[test]
fn tokios_handle_can_be_taken_out() {
    let (_entered, _) = begin();
    let handle: tokio::task::JoinHandle<i32> = taskscope_probe::spawn("taken out", async { 7 }).into_inner();
    assert_eq!(runtime().block_on(handle).expect("it does not panic"), 7);
}
