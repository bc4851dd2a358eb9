//! Whatever a service does with runtimes (several, nested, left behind, forked, ten thousand of them), what is told is so,
//! and nothing of those that are gone stays.

use std::time::Duration;

use serde_json::Value;
use taskscope_tests::agent::{status, tasks, why};
use taskscope_tests::eventually::always;
use taskscope_tests::json::{list, text};
use taskscope_tests::target::Target;
use taskscope_tests::{Size, eventually, evidence, proc, size};

const SOON: Duration = Duration::from_secs(10);

fn target(scenario: &str) -> Target {
    Target::program("target-runtimes").arg(scenario).start()
}

/// Rows of tasks that were spawned at the line that the target has printed for `what`.
fn spawned_for(target: &Target, what: &str, filter: &str) -> Vec<Value> {
    let line = target.said(&format!("line {what} "));
    let place = format!("target-runtimes.rs:{line}:");
    let mut rows = tasks(&target.address, filter);
    rows.retain(|row| text(row, "spawned_at").contains(&place));
    rows
}

/// Waits until so many rows are there.
#[track_caller]
fn eventually_rows(target: &Target, what: &str, filter: &str, count: usize) -> Vec<Value> {
    eventually(SOON, || {
        let rows = spawned_for(target, what, filter);
        if rows.len() == count { Ok(rows) } else { Err(format!("{} rows: {rows:#?}", rows.len())) }
    })
}

#[test]
fn runtimes_of_three_kinds_are_told_apart() {
    let target = target("several");
    for kind in ["multi_thread", "current_thread", "local"] {
        eventually_rows(&target, kind, "polls>3", 5);
    }
    eventually(SOON, || {
        let state = status(&target.address);
        let mut kinds: Vec<&str> =
            list(&state, "runtimes").iter().map(|runtime| text(runtime, "flavor")).collect();
        kinds.sort_unstable();
        let known = kinds == ["current_thread", "current_thread", "multi_thread"];
        if known && state["tasks"]["live"] == 15 { Ok(()) } else { Err(state.to_string()) }
    });
}

#[test]
fn a_runtime_dropped_inside_another_takes_its_rows_along() {
    let mut target = target("nested-drop");
    target.said("both");
    let count = |wanted: usize| {
        eventually(SOON, || {
            let (rows, state) = (tasks(&target.address, ""), status(&target.address));
            let runtimes = list(&state, "runtimes").len();
            if rows.len() == wanted { Ok(runtimes) } else { Err(format!("{rows:#?}")) }
        })
    };
    assert_eq!(count(6), 2);
    target.process.say("go");
    target.said("dropped");
    eventually(SOON, || {
        let (rows, state) = (tasks(&target.address, ""), status(&target.address));
        let runtimes = list(&state, "runtimes").len();
        if rows.len() == 1 && runtimes == 1 { Ok(()) } else { Err(format!("{runtimes} runtimes, {rows:#?}")) }
    });
    let shut_down = tasks(&target.address, "state=ended");
    let by_shutdown = shut_down.iter().filter(|row| text(row, "outcome") == "shutdown").count();
    assert_eq!(by_shutdown, 5, "{shut_down:#?}");
}

#[test]
fn a_task_that_outlives_its_runtime_is_told_until_it_ends() {
    let mut target = target("outlive");
    target.said("busy");
    target.process.say("leave");
    target.said("left");
    // The idle ones end with the runtime, the one in a poll does not.
    let busy = eventually(SOON, || {
        let rows = tasks(&target.address, "");
        match rows.as_slice() {
            [row] if text(row, "state") == "running" => Ok(row["id"].clone()),
            _ => Err(format!("{rows:#?}")),
        }
    });
    eventually(SOON, || {
        let (lines, _) = why(&target.address);
        if lines.iter().any(|line| line.starts_with("STUCK")) { Ok(()) } else { Err(lines.join("\n")) }
    });
    target.process.say("end");
    target.said("ended");
    eventually(SOON, || {
        let rows = tasks(&target.address, "");
        let state = status(&target.address);
        let runtimes = list(&state, "runtimes").len();
        if rows.is_empty() && runtimes == 0 { Ok(()) } else { Err(format!("{runtimes} runtimes, {rows:#?}")) }
    });
    let ended = tasks(&target.address, "state=ended");
    assert!(ended.iter().any(|row| row["id"] == busy), "{ended:#?}");
}

#[test]
fn tasks_on_a_closed_runtime_leave_no_row() {
    let target = target("closed");
    target.said("ready");
    let state = eventually(SOON, || {
        let state = status(&target.address);
        if state["tasks"]["total"] == 101 { Ok(state) } else { Err(state.to_string()) }
    });
    assert_eq!(state["tasks"]["live"], 1, "{state}");
    assert_eq!(spawned_for(&target, "closed", "").len(), 0);
}

#[test]
fn a_task_that_ends_between_two_looks_is_among_the_ended() {
    let target = target("short");
    target.said("ready");
    eventually_rows(&target, "short", "state=ended", 50);
    let wrapped = tasks(&target.address, "state=ended name=short-wrapped");
    assert_eq!(wrapped.len(), 50);
    assert!(
        wrapped.iter().all(|row| text(row, "outcome") == "completed" && row["polls"] == 1),
        "{wrapped:#?}"
    );
}

#[test]
fn an_idle_task_that_is_aborted_ends() {
    let mut target = target("abort");
    target.said("idle");
    eventually_rows(&target, "abort", "state=idle", 1);
    assert_eq!(tasks(&target.address, "name=aborted-wrapped state=idle").len(), 1);
    target.process.say("abort");
    target.said("aborted");
    eventually_rows(&target, "abort", "state=ended", 1);
    let wrapped = tasks(&target.address, "name=aborted-wrapped state=ended");
    let [row] = wrapped.as_slice() else { panic!("{wrapped:#?}") };
    assert!(matches!(text(row, "outcome"), "cancelled" | "aborted"), "{row}");
    assert!(tasks(&target.address, "state!=ended name=aborted-wrapped").is_empty());
}

#[test]
fn threads_that_no_runtime_runs_may_spawn_and_end_a_runtime() {
    let target = target("foreign");
    target.said("ready");
    eventually_rows(&target, "foreign", "polls>3", 20);
    eventually(SOON, || {
        let state = status(&target.address);
        let settled = list(&state, "runtimes").len() == 1 && state["tasks"]["live"] == 20;
        if settled { Ok(()) } else { Err(state.to_string()) }
    });
    let state = status(&target.address);
    assert!(
        state["losses"]["unpaired_hooks"].is_null() && state["losses"]["unlined_threads"].is_null(),
        "{state}"
    );
}

#[test]
fn a_callback_that_panics_leaves_no_poll_behind() {
    let target = target("panicking-callback");
    assert_eq!(target.said("caught "), "2");
    always(Duration::from_millis(700), || {
        let state = status(&target.address);
        let workers = list(&state, "runtimes").iter().flat_map(|runtime| list(runtime, "workers"));
        let polls = workers.chain(list(&state, "threads")).filter(|it| !it["poll"].is_null()).count();
        if polls == 0 { Ok(()) } else { Err(state.to_string()) }
    });
}

#[test]
fn memory_and_files_of_runtimes_that_are_gone_come_back() {
    let count = match size() {
        Size::Small => 500,
        Size::Full => 10_000,
    };
    let mut target = target("churn");
    let mut churned = |count: usize| {
        let from = target.process.stdout.count();
        target.process.say(&count.to_string());
        let done = |line: &str| (line == "done").then_some(());
        target.process.stdout.wait_for(Duration::from_secs(60), from, done);
        let state = eventually(SOON, || {
            let state = status(&target.address);
            let settled = list(&state, "runtimes").len() == 1 && state["tasks"]["live"] == 1;
            if settled { Ok(state) } else { Err(state.to_string()) }
        });
        let (files, threads, memory) =
            (proc::open_files(target.pid()), proc::threads(target.pid()), proc::rss(target.pid()));
        (files, threads, memory.expect("the target runs"), state["probe"]["memory_bytes"].clone())
    };
    // As many: what the allocator sets aside for them once is no loss, and what it does each time is.
    let before = churned(count);
    // What the agent's own connection needs comes and goes with it.
    let after = eventually(SOON, || {
        let after = churned(count);
        if after.0 <= before.0 && after.1 <= before.1 {
            Ok(after)
        } else {
            Err(format!("{after:?}, before {before:?}"))
        }
    });
    let grown = after.2.saturating_sub(before.2);
    assert!(grown <= 2 << 20, "resident memory grew by {grown} bytes");
    assert_eq!(before.3, after.3, "the probe's own budget does not move");
    evidence(
        &format!("{count} runtimes created and dropped"),
        format!("memory +{} KiB, files and threads as before", grown / 1024),
    );
}

#[test]
fn a_forked_child_works_on_without_the_probe() {
    let target = target("fork");
    assert_eq!(target.said("children ended well: "), "20");
    // The parent is seen as before.
    eventually(SOON, || {
        let ticking = tasks(&target.address, "polls>3").len();
        if ticking == 20 { Ok(()) } else { Err(format!("{ticking} tasks tick")) }
    });
    assert!(tasks(&target.address, "name~child").is_empty(), "no task of a child is told as the parent's");
    let log = target.process.stderr.lines();
    let said = log.iter().filter(|line| line.contains("was forked from one with a probe")).count();
    assert_eq!(said, 20, "each child says so once: {log:#?}");
}
