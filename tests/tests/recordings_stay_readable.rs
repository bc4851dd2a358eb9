//! A stream recorded by an earlier version stays readable: `tests/data/` holds one of each revision of the wire, and none
//! is ever made anew.

use taskscope_tests::agent::Agent;
use taskscope_tests::json::{list, text};
use taskscope_tests::root;
use taskscope_tests::target::Target;

fn recording() -> String {
    root().join("tests/data/revision-1-stuck-poll.tskscop").display().to_string()
}

#[test]
fn a_recording_of_revision_1_says_what_was_wrong() {
    let answer = Agent::with(["why", &recording()]).run();
    assert_eq!(answer.code, Some(1), "{answer:?}");
    let said = "STUCK 3.0 s: 2 of 2 workers, both in POST /resize, asleep in clock_nanosleep. 46 tasks ready behind them";
    assert!(answer.stdout.starts_with(said), "{}", answer.stdout);
}

#[test]
fn a_recording_of_revision_1_still_has_its_rows() {
    let rows = Agent::with(["tasks", &recording(), "--json"]).run().expect_code(0).json_lines();
    assert_eq!(rows.len(), 617);
    let watch = rows.iter().filter(|row| text(row, "name") == "session-watch");
    assert!(watch.clone().all(|row| text(row, "spawned_at").contains("src/session.rs:")), "{rows:?}");
    assert_eq!(watch.count(), 40);
    let ended = rows.iter().filter(|row| text(row, "state") == "ended");
    assert!(ended.clone().count() > 100 && ended.clone().all(|row| text(row, "outcome") == "completed"));
}

#[test]
fn a_recording_of_revision_1_has_its_workers_and_pools() {
    let status = Agent::with(["status", &recording(), "--json"]).run().expect_code(0).json_lines().remove(0);
    let runtime = &list(&status, "runtimes")[0];
    for worker in list(runtime, "workers") {
        let poll = &worker["poll"];
        assert_eq!((text(worker, "state"), text(poll, "label")), ("in_poll", "POST /resize"), "{worker}");
        assert_eq!(
            (text(poll, "thread_state"), text(poll, "syscall")),
            ("asleep", "clock_nanosleep"),
            "{worker}"
        );
    }
    let names: Vec<&str> = list(&status, "pools").iter().map(|pool| text(pool, "name")).collect();
    assert_eq!(names, ["blocking", "db"]);
}

/// Most of its frames hold only what changed; read to the end it has every row, as old as it was then.
#[test]
fn a_recording_made_now_has_every_row_as_of_its_end() {
    let target = Target::program("target-plain").args(["--idle", "40"]).start();
    target.said("{\"second\":1,");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("now.tskscop").display().to_string();
    Agent::with(["save", &target.address, &file, "--for", "3s"]).run().expect_code(0);
    let rows = Agent::with(["tasks", &file, "--json"]).run().expect_code(0).json_lines();
    let idle: Vec<_> = rows.iter().filter(|row| text(row, "name") == "idle-plain").collect();
    assert_eq!(idle.len(), 40, "{rows:?}");
    // They were saved once, at the beginning, some 2.5 s before the last frame.
    let ages: Vec<f64> = idle.iter().filter_map(|row| row["age_ns"].as_f64()).collect();
    assert!(ages.len() == 40 && ages.iter().all(|&age| age > 3e9), "{idle:?}");
    let polls = rows.iter().find(|row| text(row, "name") == "work").and_then(|row| row["polls"].as_u64());
    assert!(polls > Some(1_000), "{rows:?}");
}
