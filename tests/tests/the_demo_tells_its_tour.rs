//! `taskscope demo` without a terminal: the whole tour in words, and then it ends.

use std::time::Duration;

use taskscope_tests::agent::Agent;
use taskscope_tests::process::Process;
use taskscope_tests::{Build, evidence, root};

/// Five healthy seconds, five faults of twelve, the leak of forty, and what a busy machine adds.
const TOUR_WITHIN: Duration = Duration::from_secs(180);

/// Each fault of the tour: how its sentence begins, what the sentence names, and within how many seconds it is said.
const FAULTS: [(&str, &str, &str, f64); 6] = [
    ("stuck-poll", "STUCK", "POST /resize", 2.0),
    ("slow-poll", "SLOW", "POST /login", 2.0),
    ("contention", "STUCK", "POST /orders", 2.0),
    ("pool-full", "FULL", "blocking pool", 2.0),
    ("panic", "DIED SILENTLY", "audit-writer panicked at demo/src/audit.rs:", 2.0),
    ("leak", "GROWING", "session-watch", 40.0),
];

/// The guilty statements: the fault, its file, and what stands on the first and on the last of its lines.
const LINES: [(&str, &str, &str, &str); 4] = [
    ("stuck-poll", "demo/src/storage.rs", "sleep(left);", "sleep(left);"),
    ("slow-poll", "demo/src/work.rs", "for byte in 0..512_u64", "start.elapsed() >= duration"),
    ("contention", "demo/src/prices.rs", "self.cents.lock()", "self.cents.lock()"),
    ("pool-full", "demo/src/storage.rs", "self.writes_resume.wait_while", "self.writes_resume.wait_while"),
];

/// Whether `said` names a line of this file from the one with `first` to the one with `last`.
fn names_line(said: &str, file: &str, first: &str, last: &str) -> bool {
    let text = std::fs::read_to_string(root().join(file)).expect("the demo's source is there");
    let line_of = |what: &str| {
        let before = text.find(what).unwrap_or_else(|| panic!("`{what}` is not in {file}"));
        text[..before].lines().count()
    };
    (line_of(first)..=line_of(last)).any(|line| {
        let place = format!("{file}:{line}");
        said.match_indices(&place)
            .any(|(at, _)| !said[at + place.len()..].starts_with(|c: char| c.is_ascii_digit()))
    })
}

fn tour(build: Build) -> Vec<String> {
    let answer = Agent::of(build, ["demo"]).within(TOUR_WITHIN).run().expect_code(0);
    assert!(!answer.stderr.contains("panicked"), "{answer}");
    let panics = |line: &&str| line.contains("panicked") && !line.contains("audit-writer panicked");
    assert_eq!(answer.stdout.lines().find(panics), None, "nothing panics but what is meant to:\n{answer}");
    assert!(answer.stdout.contains("healthy."), "it begins healthy:\n{answer}");
    for (fault, begins, names, within) in FAULTS {
        let after = answer.stdout.lines().skip_while(|line| !line.contains(&format!("injected: {fault}")));
        let said = after.take_while(|line| !line.contains("ended:")).find(|line| line.contains("named:"));
        let said = said.unwrap_or_else(|| panic!("{fault} was not named:\n{answer}"));
        assert!(said.contains(begins) && said.contains(names), "{fault} is not what this names: {said}");
        let delay = seconds_after(said);
        assert!(delay <= within, "{fault} was named late: {said}");
        evidence(&format!("{fault} is said in words ({build:?})"), format!("after {delay} s"));
    }
    for (fault, file, first, last) in LINES {
        let after = answer.stdout.lines().skip_while(|line| !line.contains(&format!("injected: {fault}")));
        let said = after
            .take_while(|line| !line.contains("ended:"))
            .filter(|line| line.contains("named:") || line.contains("line:"))
            .find(|line| line.contains(file))
            .unwrap_or_else(|| panic!("the line of {fault} was not told:\n{answer}"));
        assert!(names_line(said, file, first, last), "{fault} is not at this line: {said}");
        evidence(
            &format!("the line of {fault} is told ({build:?})"),
            format!("after {} s", seconds_after(said)),
        );
    }
    answer.stdout.lines().map(str::to_owned).collect()
}

/// From `… (after 661 ms)`.
fn seconds_after(line: &str) -> f64 {
    let delay = line.rsplit_once("(after ").and_then(|(_, rest)| rest.trim_end().strip_suffix(')'));
    let (number, unit) =
        delay.and_then(|delay| delay.split_once(' ')).unwrap_or_else(|| panic!("no delay: {line}"));
    let number: f64 = number.parse().unwrap_or_else(|_| panic!("no delay: {line}"));
    match unit {
        "ms" => number / 1000.0,
        "s" => number,
        _ => panic!("no delay in seconds: {line}"),
    }
}

#[test]
fn with_hooks_every_sentence_of_the_tour_is_said() {
    let lines = tour(Build::Hooks);
    assert!(!lines[0].contains("RUSTFLAGS"), "nothing is hidden here: {}", lines[0]);
}

#[test]
fn on_stable_tokio_the_first_line_states_the_cause_and_every_sentence_is_said_all_the_same() {
    let lines = tour(Build::Stable);
    assert!(lines[0].contains("RUSTFLAGS") && lines[0].contains("tokio_unstable"), "{}", lines[0]);
}

#[test]
fn it_ends_when_it_was_told_to_and_takes_its_service_with_it() {
    let answer = Agent::with(["demo", "--faults", "none", "--for", "4s"]).run().expect_code(0);
    assert!(answer.stdout.contains("healthy."), "{answer}");
    assert!(
        !["STUCK", "SLOW", "FULL", "GROWING"].iter().any(|word| answer.stdout.contains(word)),
        "{answer}"
    );
    assert!(answer.took >= Duration::from_secs(4), "{answer}");
}

#[test]
fn the_service_alone_prints_its_address_first() {
    let service: Process = Agent::with(["demo", "--serve", "--faults", "none", "--for", "30s"]).start();
    let address = service.stdout.wait_for(Duration::from_secs(15), 0, |line| {
        Some(line.split_whitespace().next().unwrap_or_default().to_owned())
    });
    assert!(address.starts_with("unix:") || address.starts_with("http://"), "{address}");
    let state = taskscope_tests::agent::status(&address);
    assert!(state["tasks"]["live"].as_u64() > Some(10), "{state}");
}

#[test]
fn a_fault_that_does_not_exist_is_refused_by_name() {
    let answer = Agent::with(["demo", "--faults", "gremlins"]).run().expect_code(64);
    assert!(answer.stderr.contains("gremlins") && answer.stderr.contains("stuck-poll"), "{answer}");
}
