//! Tokio keeps one callback a hook. The application's own run beside the probe's where the probe is given them; where they
//! replace the probe's instead, it says so, once, with what to do, and tells nothing that is not so.

use std::time::Duration;

use serde_json::Value;
use taskscope_tests::agent::{status, tasks, why};
use taskscope_tests::eventually;
use taskscope_tests::eventually::always;
use taskscope_tests::json::{list, text};
use taskscope_tests::process::Process;
use taskscope_tests::target::Target;

/// How often each of the four callbacks has been called, as the target said last.
fn calls(process: &Process) -> Option<[u64; 4]> {
    let lines = process.stdout.lines();
    let said = lines.iter().rev().find_map(|line| line.strip_prefix("calls "))?;
    let numbers: Vec<u64> = said.split(' ').filter_map(|number| number.parse().ok()).collect();
    numbers.try_into().ok()
}

fn capability(state: &Value, kind: &str) -> Value {
    let found = list(state, "capabilities").iter().find(|capability| text(capability, "kind") == kind);
    found.unwrap_or_else(|| panic!("no capability {kind}: {state}")).clone()
}

#[test]
fn callbacks_given_to_the_probe_run_and_so_do_its_own() {
    let target = Target::program("target-hooks").arg("--give").start();
    target.said("ready");
    eventually(Duration::from_secs(10), || match calls(&target.process) {
        Some([spawn, before, after, terminate])
            // The counts of one moment are read one after the other.
            if terminate >= 100 && spawn >= terminate && before.abs_diff(after) <= 30 && after >= spawn - 22 =>
        {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    });
    let state = status(&target.address);
    assert_eq!(text(&capability(&state, "tasks"), "coverage"), "full", "{state}");
    let ticking = tasks(&target.address, "polls>10");
    assert!(ticking.len() >= 21, "each task that ticks has a row: {ticking:#?}");
    assert!(tasks(&target.address, "state=ended").len() > 50);
    let log = target.process.stderr.text();
    assert!(!log.contains("hint:"), "{log}");
}

#[test]
fn without_a_probe_they_run_alone() {
    let disabled = Target::program("target-hooks").arg("--give").env("TASKSCOPE_DISABLED", "1");
    let (process, _folder) = disabled.start_unheard();
    eventually(Duration::from_secs(10), || match calls(&process) {
        Some(calls) if calls.into_iter().all(|calls| calls >= 100) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// `hook` as the target's flag has it, and the builder's method.
fn replaced(hook: &str, method: &str) {
    let target = Target::program("target-hooks").args(["--replace", hook]).start();
    target.said("ready");
    let lost = eventually(Duration::from_secs(10), || {
        let tasks = capability(&status(&target.address), "tasks");
        if text(&tasks, "coverage") == "partial" { Ok(tasks) } else { Err(tasks.to_string()) }
    });
    assert!(text(&lost, "reason").contains(&format!("replaced the probe's {method}:")), "{lost}");
    assert!(text(&lost, "hint").contains(&format!("Probe::builder().{method}(")), "{lost}");
    let said = eventually(Duration::from_secs(10), || {
        let log = target.process.stderr.lines();
        log.into_iter().find(|line| line.contains("hint: ")).ok_or_else(|| "nothing was said".to_owned())
    });
    assert!(
        said.starts_with("taskscope: on runtime 1 another call replaced") && said.contains(method),
        "{said}"
    );

    // Ten times the slow-poll threshold, with answers all the time: nothing is stuck, no row stays for ever.
    always(Duration::from_secs(1), || {
        let (lines, _) = why(&target.address);
        let blames =
            |line: &&String| ["STUCK", "SLOW", "earlier", "GROWING"].iter().any(|it| line.starts_with(it));
        match lines.iter().find(blames) {
            Some(line) => Err(line.clone()),
            None => Ok(()),
        }
    });
    // The wrapper sees what it sees on stable Tokio.
    let rows = tasks(&target.address, "");
    let [row] = rows.as_slice() else { panic!("only the wrapped task has a row: {rows:#?}") };
    assert_eq!(text(row, "name"), "wrapped");
    let state = status(&target.address);
    assert!(state["tasks"]["live"].as_u64() >= Some(22), "Tokio's own count is read: {state}");
    assert!(state["losses"]["uninstrumented_tasks"].as_u64() >= Some(21), "{state}");
    for loss in ["deep_brackets", "unpaired_hooks"] {
        assert!(state["losses"][loss].is_null(), "{loss}: {state}");
    }
    eventually(Duration::from_secs(5), || {
        let polls = tasks(&target.address, "name=wrapped")[0]["polls"].as_u64();
        if polls > Some(10) { Ok(()) } else { Err(format!("{polls:?} polls")) }
    });
    // The application's own is called, and what was said was said once.
    let at = ["spawn", "before", "after", "terminate"].iter().position(|known| *known == hook);
    let called = calls(&target.process).zip(at).map(|(calls, at)| calls[at]);
    assert!(called > Some(10), "{hook} was called {called:?} times");
    let log = target.process.stderr.lines();
    assert_eq!(log.iter().filter(|line| line.contains("another call replaced")).count(), 1, "{log:#?}");
}

#[test]
fn a_replaced_spawn_hook_is_named_and_nothing_false_is_told() {
    replaced("spawn", "on_task_spawn");
}

#[test]
fn a_replaced_before_hook_is_named_and_nothing_false_is_told() {
    replaced("before", "on_before_task_poll");
}

#[test]
fn a_replaced_after_hook_is_named_and_nothing_false_is_told() {
    replaced("after", "on_after_task_poll");
}

#[test]
fn a_replaced_terminate_hook_is_named_and_nothing_false_is_told() {
    replaced("terminate", "on_task_terminate");
}

#[test]
fn three_replaced_hooks_are_named_in_one_line() {
    let flags = ["--replace", "spawn", "--replace", "before", "--replace", "after"];
    let target = Target::program("target-hooks").args(flags).start();
    let said = eventually(Duration::from_secs(10), || {
        let log = target.process.stderr.lines();
        log.into_iter().find(|line| line.contains("hint: ")).ok_or_else(|| "nothing was said".to_owned())
    });
    assert!(said.contains("on_task_spawn and on_before_task_poll and on_after_task_poll"), "{said}");
}
