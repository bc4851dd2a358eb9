//! Every worker is stuck, and the target and the agent have to share one core: the agent still answers, with names.

use std::time::Duration;

use serde_json::Value;
use taskscope_tests::agent::{Agent, why};
use taskscope_tests::json::{duration, list, text};
use taskscope_tests::process::OnOneCore;
use taskscope_tests::target::Target;
use taskscope_tests::{eventually, evidence};

/// From the start of the agent's process to its end.
const ANSWERS_WITHIN: Duration = Duration::from_millis(200);
/// Times asked; the whole machine may be busy with something else once or twice.
const ASKED: usize = 9;

fn stuck(flavor: &str, how: &str, workers: usize) {
    // Inherited by every process that this thread starts.
    let _one_core = OnOneCore::pin();
    let mut target = Target::program("target-stuck")
        .args([
            "--flavor",
            flavor,
            "--how",
            how,
            "--workers",
            &workers.to_string(),
            "--label",
            "POST /resize",
        ])
        .start();
    target.said("ready");
    target.process.say("go");
    target.said("stuck");

    let ask = || Agent::with(["status", &target.address, "--json"]).run().expect_code(0);
    let since = eventually(Duration::from_secs(10), || {
        let state = ask().json();
        all_named(&state, how, workers).map_err(|what| format!("{what}\n{state}"))
    });
    // Durations go on while it is stuck.
    eventually(Duration::from_secs(10), || match all_named(&ask().json(), how, workers)? {
        later if later > since + Duration::from_millis(300) => Ok(()),
        later => Err(format!("stuck since {since:?}, then since {later:?}")),
    });
    let mut took: Vec<Duration> = (0..ASKED).map(|_| ask().took).collect();
    took.sort_unstable();
    let median = took[ASKED / 2];
    assert!(median <= ANSWERS_WITHIN, "status --json took {took:?}");
    evidence(
        &format!("status --json, {workers} of {workers} workers stuck ({flavor}, {how}), all on one core"),
        format!("median {} ms, longest {} ms", median.as_millis(), took[ASKED - 1].as_millis()),
    );

    let (lines, code) = why(&target.address);
    let told = lines.join("\n");
    assert!(code == 1 && lines[0].starts_with("STUCK"), "it is said first:\n{told}");
    assert!(lines[0].contains("POST /resize"), "{told}");
    // On one core that others use too, a spinning thread waits for the CPU for most of the time, and that is said.
    let doing = if how == "spin" { "CPU" } else { "asleep in clock_nanosleep" };
    assert!(lines[0].contains(doing), "{told}");
}

/// How long the poll that began last is stuck, if every worker's poll is described whole.
fn all_named(state: &Value, how: &str, workers: usize) -> Result<Duration, String> {
    let runtimes = list(state, "runtimes");
    let [runtime] = runtimes else { return Err(format!("{} runtimes", runtimes.len())) };
    let polls: Vec<&Value> = list(runtime, "workers").iter().map(|worker| &worker["poll"]).collect();
    if polls.len() != workers {
        return Err(format!("{} workers", polls.len()));
    }
    let mut shortest = Duration::MAX;
    for poll in polls {
        let expect = |good: bool, what: &str| if good { Ok(()) } else { Err(format!("{what}: {poll}")) };
        expect(poll["task"].is_u64(), "no task")?;
        expect(text(poll, "name") == "resizer", "another name")?;
        expect(text(poll, "label") == "POST /resize", "another label")?;
        expect(text(poll, "spawned_at").contains("target-stuck.rs:"), "another spawn site")?;
        let since = duration(poll, "since_ns").ok_or_else(|| format!("no duration: {poll}"))?;
        expect(since >= Duration::from_millis(200), "too short")?;
        shortest = shortest.min(since);
        let thread = text(poll, "thread_state");
        if how == "spin" {
            expect(thread.replace('_', " ").eq_ignore_ascii_case("on cpu"), "another thread state")?;
            expect(poll["on_cpu_ns"].as_u64() > Some(0), "no CPU time")?;
        } else {
            expect(thread == "asleep", "another thread state")?;
            expect(text(poll, "syscall") == "clock_nanosleep", "another system call")?;
        }
    }
    Ok(shortest)
}

#[test]
fn all_workers_of_a_multi_thread_runtime_that_spin_are_named() {
    stuck("multi", "spin", 2);
}

#[test]
fn all_workers_of_a_multi_thread_runtime_that_sleep_are_named() {
    stuck("multi", "sleep", 2);
}

#[test]
fn the_thread_of_a_current_thread_runtime_that_spins_is_named() {
    stuck("current", "spin", 1);
}

#[test]
fn the_thread_of_a_current_thread_runtime_that_sleeps_is_named() {
    stuck("current", "sleep", 1);
}
