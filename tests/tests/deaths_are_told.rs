//! A task that died is told with what it said and where, whoever spawned it; the application's own panic hooks run as if
//! nobody watched; a panic that was caught is nobody's death.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use taskscope_tests::agent::{status, tasks, why};
use taskscope_tests::json::text;
use taskscope_tests::target::{Target, TargetBuilder};
use taskscope_tests::{Build, eventually};

/// Of every task that panicked: its name (empty: none) and its reason.
fn died(target: &Target) -> BTreeMap<String, String> {
    let ended = tasks(&target.address, "state=ended");
    let died: Vec<&Value> = ended.iter().filter(|row| text(row, "outcome") == "panicked").collect();
    let of: BTreeMap<String, String> =
        died.iter().map(|row| (text(row, "name").to_owned(), text(row, "reason").to_owned())).collect();
    assert_eq!(of.len(), died.len(), "each name died once: {died:#?}");
    of
}

/// The names of [`died`] once there are so many.
fn eventually_died(target: &Target, count: usize) -> BTreeMap<String, String> {
    eventually(Duration::from_secs(10), || {
        let died = died(target);
        if died.len() >= count { Ok(died) } else { Err(format!("{died:#?}")) }
    })
}

fn place_is_told(reason: &str) {
    let (_, place) = reason.rsplit_once("at ").unwrap_or_else(|| panic!("no place: {reason}"));
    let line = place.strip_prefix("tests/src/bin/target-panics.rs:").and_then(|rest| rest.split_once(':'));
    assert!(line.is_some_and(|(line, _)| line.parse::<u32>().is_ok()), "no place: {reason}");
}

/// What is known of wrapped tasks in both builds.
fn wrapped_ones_are_told(died: &BTreeMap<String, String>) {
    let index = &died["wrapped"];
    assert!(index.starts_with("index out of bounds: the len is 3 but the index is 7, at "), "{index}");
    // A line's end is a space, another control character is replaced.
    let detached = &died["detached"];
    assert!(detached.starts_with("nobody hears \u{fffd}[2J this, at "), "{detached}");
    assert!(died["odd"].starts_with("at "), "a payload that is no text has only a place: {}", died["odd"]);
    assert!(died["long"].len() <= 255 && died["long"].starts_with("ééé"), "{}", died["long"]);
    assert!(died["job"].starts_with("a job of the pool, at "), "{}", died["job"]);
    assert_eq!(died["again"], "", "a resumed panic tells no hook");
    died.iter().filter(|(name, _)| *name != "again").for_each(|(_, reason)| place_is_told(reason));
}

/// Lines that the application's hook printed.
fn hook_said(target: &Target, hook: u32) -> Vec<String> {
    let start = format!("hook {hook}: ");
    let lines = target.process.stdout.lines();
    lines.iter().filter_map(|line| line.strip_prefix(&start).map(str::to_owned)).collect()
}

#[test]
fn with_hooks_every_death_is_told_and_no_other() {
    let target = Target::program("target-panics").start();
    target.said("ready");
    let died = eventually_died(&target, 7);
    wrapped_ones_are_told(&died);
    assert!(died[""].starts_with("forgotten for good, at "), "{died:#?}");
    assert_eq!(died.len(), 7, "nobody else died: {died:#?}");
    // 9 panics were told to hooks: `again` was resumed.
    let (first, second) = (hook_said(&target, 1), hook_said(&target, 2));
    assert_eq!(first.len(), 9, "{first:#?}");
    assert_eq!(first, second, "the hook before the probe's and the hook after it are told the same");
    let state = status(&target.address);
    assert_eq!(state["losses"]["cut_strings"], 2, "one was cut, one was cleaned: {}", state["losses"]);
}

#[test]
fn on_stable_tokio_every_wrapped_task_is_told_all_the_same() {
    let target = TargetBuilder::of(Build::Stable, "target-panics").start();
    target.said("ready");
    let died = eventually_died(&target, 6);
    wrapped_ones_are_told(&died);
    assert_eq!(died.len(), 6, "nobody else died: {died:#?}");
    assert_eq!(hook_said(&target, 1).len(), 9);
}

#[test]
fn behind_a_hook_that_calls_no_other_wrapped_deaths_are_known_without_their_words() {
    let target = Target::program("target-panics").arg("--replace-hook").start();
    target.said("ready");
    let died = eventually_died(&target, 6);
    assert!(died.values().all(|reason| reason.is_empty()), "{died:#?}");
    let names: Vec<&str> = died.keys().map(String::as_str).collect();
    assert_eq!(names, ["again", "detached", "job", "long", "odd", "wrapped"]);
    assert!(hook_said(&target, 1).is_empty() && hook_said(&target, 2).len() == 9);
}

#[test]
fn the_last_death_is_said_in_words() {
    let target = Target::program("target-panics").start();
    target.said("ready");
    // The job was the last one; it had a handle.
    let said = eventually(Duration::from_secs(10), || {
        let (lines, code) = why(&target.address);
        let said = lines.iter().find(|line| line.starts_with("DIED ") && code == 1);
        said.cloned().ok_or_else(|| lines.join("\n"))
    });
    assert!(said.contains("ago: job panicked at tests/src/bin/target-panics.rs:"), "{said}");
    assert!(said.ends_with("It said: a job of the pool. 6 more died in the last minute."), "{said}");
    assert!(!said.contains("nobody awaited"), "whether somebody awaits a handle is not known: {said}");
}
