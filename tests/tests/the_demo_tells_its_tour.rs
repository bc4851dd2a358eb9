//! `taskscope demo` without a terminal: the whole tour in words, and then it ends.

use std::time::Duration;

use taskscope_tests::agent::Agent;
use taskscope_tests::process::Process;
use taskscope_tests::{Build, evidence};

/// Five healthy seconds, four faults of twelve, and what a busy machine adds.
const TOUR_WITHIN: Duration = Duration::from_secs(180);

/// How each sentence of the tour begins.
const SENTENCES: [&str; 5] = ["healthy.", "STUCK", "SLOW", "FULL", "GROWING"];

fn tour(build: Build) -> Vec<String> {
    let answer = Agent::of(build, ["demo"]).within(TOUR_WITHIN).run().expect_code(0);
    assert!(!answer.stderr.contains("panicked") && !answer.stdout.contains("panicked"), "{answer}");
    for sentence in SENTENCES {
        assert!(answer.stdout.contains(sentence), "`{sentence}` was never said:\n{answer}");
    }
    evidence(
        &format!("the tour of the demo in plain words ({build:?})"),
        format!("{} s", answer.took.as_secs()),
    );
    answer.stdout.lines().map(str::to_owned).collect()
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
    let address = service.stdout.wait_for(Duration::from_secs(15), 0, |line| Some(line.trim().to_owned()));
    assert!(address.starts_with("unix:") || address.starts_with("http://"), "{address}");
    let state = taskscope_tests::agent::status(&address);
    assert!(state["tasks"]["live"].as_u64() > Some(10), "{state}");
}

#[test]
fn a_fault_that_does_not_exist_is_refused_by_name() {
    let answer = Agent::with(["demo", "--faults", "gremlins"]).run().expect_code(64);
    assert!(answer.stderr.contains("gremlins") && answer.stderr.contains("stuck-poll"), "{answer}");
}
