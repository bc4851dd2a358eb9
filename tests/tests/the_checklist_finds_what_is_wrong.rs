//! `taskscope check`: each of its checks has a target that fails it, and none fails a service that is deployed well.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::json::text;
use taskscope_tests::target::{Target, TargetBuilder};
use taskscope_tests::{Build, eventually};
use tempfile::TempDir;

/// The checks of a target, and the exit code.
#[track_caller]
fn checked(address: &str) -> (Vec<Value>, Option<i32>) {
    let answer = Agent::with(["check", address, "--json"]).run();
    (answer.json_lines(), answer.code)
}

/// Waits until this check says this, as it does as soon as the target has been at work; gives what it said.
#[track_caller]
fn says(address: &str, check: &str, result: &str) -> Value {
    eventually(Duration::from_secs(10), || {
        let (all, code) = checked(address);
        let found = all.iter().find(|it| text(it, "check") == check).cloned().ok_or("it is not there")?;
        let fails = all.iter().any(|it| text(it, "result") == "fail");
        assert_eq!(code, Some(i32::from(fails)), "{all:#?}");
        if text(&found, "result") == result { Ok(found) } else { Err(found.to_string()) }
    })
}

#[track_caller]
fn fails(address: &str, check: &str, evidence: &str) {
    let said = says(address, check, "fail");
    assert!(text(&said, "evidence").contains(evidence), "{said}");
    assert!(!text(&said, "hint").is_empty(), "{said}");
}

/// Simulated files of a cgroup.
fn cgroup(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (file, content) in files {
        std::fs::write(folder.path().join(file), content).expect("it can be written");
    }
    folder
}

fn plain(cgroup: &Path) -> TargetBuilder {
    Target::program("target-plain").env("TASKSCOPE_CGROUP_DIR", cgroup)
}

#[test]
fn a_service_that_is_deployed_well_fails_nothing() {
    let files = cgroup(&[
        ("cpu.max", "200000 100000\n"),
        ("cpu.stat", "throttled_usec 0\n"),
        ("memory.max", "2147483648\n"),
        ("memory.current", "100000000\n"),
        ("memory.stat", "inactive_file 0\n"),
    ]);
    let demo = Agent::with(["demo", "--serve", "--faults", "none", "--for", "60s"])
        .env("TASKSCOPE_CGROUP_DIR", files.path());
    let service = demo.start();
    let address: String = service
        .stdout
        .wait_for(Duration::from_secs(20), 0, |line| Some(line.split_whitespace().next()?.to_owned()));
    for check in ["workers", "tokio-unstable", "hooks", "probe-budget", "sigterm"] {
        says(&address, check, "pass");
    }
    // What the machine and the build of this test decide.
    let build = if cfg!(debug_assertions) { "fail" } else { "pass" };
    says(&address, "release-build", build);
    let (all, _) = checked(&address);
    let failed = all.iter().filter(|it| text(it, "result") == "fail").map(|it| text(it, "check"));
    // The machine decides how many files may be open.
    let unforeseen: Vec<&str> = failed.filter(|it| !["release-build", "open-files"].contains(it)).collect();
    assert!(unforeseen.is_empty(), "{all:#?}");
}

#[test]
fn too_many_workers_and_too_much_memory_for_their_cgroup() {
    let files = cgroup(&[
        ("cpu.max", "50000 100000\n"),
        ("cpu.stat", "throttled_usec 0\n"),
        ("memory.max", "268435456\n"),
        ("memory.current", "100000000\n"),
        ("memory.stat", "inactive_file 0\n"),
    ]);
    let target = Target::program("target-busy").args(["--workers", "2"]).env("TASKSCOPE_MEMORY", "32MiB");
    let target = target.env("TASKSCOPE_CGROUP_DIR", files.path()).start();
    fails(&target.address, "workers", "2 workers, and a CPU quota of 0.5 cores");
    fails(&target.address, "probe-budget", "32.0 MiB of the memory limit of 256.0 MiB");
}

#[test]
fn a_debug_build() {
    // It is one, however the others are built.
    let target = TargetBuilder::of(Build::Abort, "aborting").start();
    fails(&target.address, "release-build", "compiled with debug assertions");
}

#[test]
fn a_build_without_the_flag() {
    let target = TargetBuilder::of(Build::Stable, "target-plain").start();
    fails(&target.address, "tokio-unstable", "`--cfg tokio_unstable`");
    says(&target.address, "hooks", "unknown");
}

#[test]
fn hooks_that_another_call_replaced() {
    let target = Target::program("target-hooks").args(["--replace", "before"]).start();
    target.said("ready");
    fails(&target.address, "hooks", "another call replaced the probe's on_before_task_poll");
}

#[test]
fn a_blocking_pool_that_is_full() {
    let demo = Agent::with(["demo", "--serve", "--faults", "pool-full", "--for", "60s"]);
    let service = demo.start();
    let address: String = service
        .stdout
        .wait_for(Duration::from_secs(20), 0, |line| Some(line.split_whitespace().next()?.to_owned()));
    fails(&address, "blocking-pool", "all of its 8 threads are busy");
}

#[test]
fn few_open_files() {
    let target = plain(Path::new("/nonexistent")).in_shell("ulimit -n 200; exec \"$0\" \"$@\"").start();
    fails(&target.address, "open-files", "of 200 open: each connection takes one");
}

#[test]
fn what_sigterm_does() {
    let none = Path::new("/nonexistent");
    let target = plain(none).start();
    fails(&target.address, "sigterm", "nothing handles SIGTERM");
    let target = plain(none).in_shell("trap '' TERM; exec \"$0\" \"$@\"").start();
    fails(&target.address, "sigterm", "SIGTERM is ignored");
}
