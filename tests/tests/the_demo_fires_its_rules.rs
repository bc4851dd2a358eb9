//! With the rules that `taskscope demo --rules` prints, each fault of the demo is an alert while one looks, and over soon after it;
//! without a fault nothing fires.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::json::{self, text};
use taskscope_tests::process::Process;
use taskscope_tests::{Size, eventually, evidence, size};

/// A fault, what it fires, and what that names.
const FAULTS: [(&str, &str, &str); 7] = [
    ("slow-poll", "TaskSlowPoll", "POST /login"),
    ("pool-full", "PoolSaturated", "blocking pool 8 of 8"),
    ("panic", "TaskPanicked", "audit-writer"),
    ("stuck-poll", "TaskStuckInPoll", "2 of 2 workers"),
    ("contention", "TaskStuckInPoll", "STUCK"),
    ("ignores-cancel", "TaskIgnoresCancel", "task newsletter"),
    ("leak", "TaskLeak", "session-watch"),
];

/// It begins after 5 s, and takes 40 s at most.
const WITHIN: Duration = Duration::from_secs(90);

fn demo(fault: &str) -> (Process, String) {
    let service = Agent::with(["demo", "--serve", "--faults", fault]).start();
    let address = eventually(Duration::from_secs(20), || {
        let first =
            service.stdout.lines().first().and_then(|line| line.split_whitespace().next().map(str::to_owned));
        first.ok_or_else(|| service.outputs())
    });
    (service, address)
}

fn fires(rules: &Path, fault: &str, rule: &str, names: &str) {
    let (_service, address) = demo(fault);
    let agent = Agent::with(["alerts", &address, "--json", "--config", &rules.to_string_lossy()]).start();
    let event = |name: &str, is_it: &dyn Fn(&Value) -> bool| {
        agent.stdout.wait_for(WITHIN, 0, |line| {
            let notice: Value = serde_json::from_str(line).ok()?;
            (text(&notice, "event") == name && text(&notice, "alertname") == rule && is_it(&notice))
                .then_some(notice)
        })
    };
    let firing = event("firing", &|notice| text(&notice["annotations"], "summary").contains(names));
    event("resolved", &|notice| notice["fingerprint"] == firing["fingerprint"]);
    agent.signal(Signal::INT);
    let summary = text(&firing["annotations"], "summary");
    println!("{fault}: {summary}");
    evidence(&format!("the demo's {fault} fires {rule}"), summary.to_owned());
}

fn nothing_fires(rules: &Path) {
    let (_service, address) = demo("none");
    let args = ["alerts", &address, "--json", "--for", "12s", "--config", &rules.to_string_lossy()];
    let answer = Agent::with(args).within(Duration::from_secs(60)).run();
    // What is pending for a moment and comes to nothing is no alert.
    let fired = json::lines(&answer.stdout).iter().filter(|notice| text(notice, "event") == "firing").count();
    assert_eq!(fired, 0, "{answer}");
    answer.expect_code(0);
}

#[test]
fn each_fault_of_the_demo_is_an_alert() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let rules = folder.path().join("demo.toml");
    let printed = Agent::with(["demo", "--rules"]).run().expect_code(0).stdout;
    std::fs::write(&rules, printed).expect("it can be written");
    Agent::with(["rules", "check", &rules.to_string_lossy()]).run().expect_code(0);
    let faults = match size() {
        Size::Full => &FAULTS[..],
        Size::Small => &FAULTS[..3],
    };
    // Alone, and where nothing else runs: on a machine that is short of CPU, a pool of the demo is truly full.
    if size() == Size::Full {
        nothing_fires(&rules);
    }
    for part in faults.chunks(3) {
        std::thread::scope(|scope| {
            let rules = &rules;
            let all: Vec<_> = part
                .iter()
                .map(|&(fault, rule, names)| (fault, scope.spawn(move || fires(rules, fault, rule, names))))
                .collect();
            for (fault, thread) in all {
                assert!(thread.join().is_ok(), "{fault} did not fire as it should, or was not over");
            }
        });
    }
}
