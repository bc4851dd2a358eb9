//! With the rules that `taskscope demo --rules` prints, each fault of the demo is an alert while one looks, and over soon after it;
//! each rule of `taskscope rules list` has such a fault, or a test of its own. Without a fault nothing fires.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::json::{self, text};
use taskscope_tests::process::Process;
use taskscope_tests::stopwatch::Stopwatch;
use taskscope_tests::{Size, eventually, evidence, root, size};

/// A fault of the demo, a rule that it fires, after how many seconds it has been wrong enough for it, and what the alert names: the
/// task or the label, and of a rule about tasks the demo's own line.
struct Case {
    fault: &'static str,
    rule: &'static str,
    condition: f64,
    names: &'static [&'static str],
}

const fn case(
    fault: &'static str,
    rule: &'static str,
    condition: f64,
    names: &'static [&'static str],
) -> Case {
    Case { fault, rule, condition, names }
}

/// Those that take longest first.
const CASES: [Case; 18] = [
    case("leak", "TaskLeak", 10.0, &["session-watch", "demo/src/session.rs:"]),
    case("pool-full", "PoolSaturated", 5.0, &["blocking pool 8 of 8"]),
    case("pool-full", "PoolNearlyFull", 6.0, &["8 of 8 of pool blocking"]),
    case("queue", "LoopLag", 2.5, &["LAG"]),
    case("queue", "ReadyQueueGrowing", 4.0, &["QUEUE GROWS"]),
    case("busy", "RuntimeBusy", 3.0, &["the 2 workers of runtime tokio"]),
    case("never-yields", "TaskNeverYields", 3.0, &["task sales-report", "demo/src/report.rs:"]),
    case("hot-loop", "SelfWakingLoop", 3.0, &["task print-watch", "demo/src/printer.rs:"]),
    case("long-job", "BlockingJobTooLong", 3.0, &["task backup", "demo/src/backup.rs:"]),
    case("pending", "TaskPendingTooLong", 2.0, &["task payment-confirmation", "demo/src/payment.rs:"]),
    case("lost-waker", "LostWaker", 2.0, &["task parcel-watch", "demo/src/courier.rs:"]),
    case("ignores-cancel", "TaskIgnoresCancel", 2.0, &["task newsletter", "demo/src/newsletter.rs:"]),
    case("stuck-poll", "TaskStuckInPoll", 1.0, &["2 of 2 workers", "POST /resize", "demo/src/listener.rs:"]),
    case("slow-poll", "TaskSlowPoll", 1.0, &["POST /login", "demo/src/listener.rs:"]),
    case("files", "ResourceNearLimit", 1.0, &["FILE DESCRIPTORS"]),
    case("panic", "TaskPanicked", 0.0, &["audit-writer", "demo/src/audit.rs:"]),
    case("error", "TaskFailed", 0.0, &["stock-sync", "line 1 of the stock list", "demo/src/stock.rs:"]),
    case("contention", "TaskStuckInPoll", 1.5, &["demo/src/listener.rs:"]),
];

/// Only at its full size: what is seen of it is what is seen of stuck-poll.
const SEEN_ALREADY: &str = "contention";

/// Rules about no fault of a service, and where theirs are: a file of tests, and what it must have.
const ELSEWHERE: [(&str, &str, &str); 4] = [
    ("TargetLost", "every_rule_fires.rs", "case(\"TargetLost\", "),
    ("ProbeDropping", "every_rule_fires.rs", "case(\"ProbeDropping\", "),
    ("SinkFailing", "every_rule_fires.rs", "fn the_sinks_that_work_tell_of_one_that_does_not()"),
    (
        "AgentDegraded",
        "every_rule_fires.rs",
        "fn an_agent_that_does_not_come_to_its_work_says_so_afterwards()",
    ),
];

/// A fault begins after 5 s, and takes 40 s at most.
const WITHIN: Duration = Duration::from_secs(90);

/// After its condition is met, by demos of which so many run at a time.
fn fires_within() -> (Duration, usize) {
    match size() {
        Size::Full => (Duration::from_secs(2), 2),
        Size::Small => (Duration::from_secs(6), 3),
    }
}

fn demo(fault: &str) -> (Process, String) {
    let service = Agent::with(["demo", "--serve", "--faults", fault]).start();
    let address = eventually(Duration::from_secs(20), || {
        let first =
            service.stdout.lines().first().and_then(|line| line.split_whitespace().next().map(str::to_owned));
        first.ok_or_else(|| service.outputs())
    });
    (service, address)
}

/// Whether what an alert says has `wanted` in it, and a line's number where that ends with a colon.
fn says(notice: &Value, wanted: &str) -> bool {
    let mut texts: Vec<&Value> = Vec::new();
    for part in ["annotations", "labels"] {
        texts.extend(notice[part].as_object().into_iter().flat_map(|it| it.values()));
    }
    texts.into_iter().filter_map(Value::as_str).any(|said| {
        said.match_indices(wanted).any(|(at, _)| {
            !wanted.ends_with(':') || said[at + wanted.len()..].starts_with(|c: char| c.is_ascii_digit())
        })
    })
}

/// The demo's rules with only this one switched on: one is not told where another says why.
fn only(rules: &str, rule: &str) -> String {
    let (mut all, mut is_other) = (String::new(), false);
    for line in rules.lines() {
        if let Some(name) = line.strip_prefix("[rules.").and_then(|line| line.strip_suffix(']')) {
            is_other = name.split('.').next() != Some(rule);
            all.push_str(line);
            all.push_str(if is_other { "\nenabled = false\n" } else { "\n" });
        } else if !(is_other && line.starts_with("enabled")) {
            all.push_str(line);
            all.push('\n');
        }
    }
    all
}

fn fires(rules: &str, cases: &[&Case]) {
    let fault = cases[0].fault;
    let (service, address) = demo(fault);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let watch = |case: &&Case| {
        let file = folder.path().join(format!("{}.toml", case.rule));
        std::fs::write(&file, only(rules, case.rule)).expect("it can be written");
        Agent::with(["alerts", &address, "--json", "--config", &file.to_string_lossy()]).start()
    };
    let agents: Vec<Process> = cases.iter().map(watch).collect();
    let starts = format!("{fault} starts: ");
    service.stdout.wait_for(WITHIN, 0, |line| line.contains(&starts).then_some(()));
    let begun = Stopwatch::start();
    let event = |agent: &Process, name: &str, is_it: &dyn Fn(&Value) -> bool| {
        agent.stdout.wait_for(WITHIN, 0, |line| {
            let notice: Value = serde_json::from_str(line).ok()?;
            (text(&notice, "event") == name && is_it(&notice)).then_some(notice)
        })
    };
    let mut fired = Vec::new();
    for (case, agent) in cases.iter().zip(&agents) {
        let rule = case.rule;
        // A machine that is short of CPU may have others of this rule, too.
        let is_its = |notice: &Value| case.names.iter().all(|wanted| says(notice, wanted));
        let firing = event(agent, "firing", &|notice| text(notice, "alertname") == rule && is_its(notice));
        let after = begun.elapsed().saturating_sub(Duration::from_secs_f64(case.condition));
        let summary = text(&firing["annotations"], "summary");
        assert!(after <= fires_within().0, "{fault}: {rule} fired {after:?} after its condition");
        println!("{fault}, {} ms after {} s: {rule}: {summary}", after.as_millis(), case.condition);
        evidence(&format!("the demo's {fault} fires {rule}"), summary.to_owned());
        fired.push((agent, firing));
    }
    for (agent, firing) in fired {
        if size() == Size::Full {
            event(agent, "resolved", &|notice| notice["fingerprint"] == firing["fingerprint"]);
        }
        agent.signal(Signal::INT);
    }
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

/// Each rule that there is: by a fault of the demo, or elsewhere.
fn every_rule_has_its_fault() {
    let rules = Agent::with(["rules", "list", "--json"]).run().expect_code(0).json_lines();
    for rule in &rules {
        let name = text(rule, "name");
        let of_the_demo = CASES.iter().any(|case| case.rule == name && case.fault != SEEN_ALREADY);
        let elsewhere = ELSEWHERE.iter().find(|(rule, ..)| *rule == name);
        assert!(of_the_demo != elsewhere.is_some(), "{name}: by a fault of the demo, or elsewhere");
        if let Some((_, file, has)) = elsewhere {
            let source = std::fs::read_to_string(root().join("tests/tests").join(file));
            let source = source.unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(source.contains(has), "{name}: {file} has no `{has}`");
        }
    }
    let known = |rule: &str| rules.iter().any(|it| text(it, "name") == rule);
    for name in CASES.iter().map(|case| case.rule).chain(ELSEWHERE.map(|(rule, ..)| rule)) {
        assert!(known(name), "no rule is called {name}");
    }
}

#[test]
fn each_fault_of_the_demo_is_an_alert_and_each_rule_has_one() {
    every_rule_has_its_fault();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let rules = folder.path().join("demo.toml");
    let printed = Agent::with(["demo", "--rules"]).run().expect_code(0).stdout;
    std::fs::write(&rules, &printed).expect("it can be written");
    Agent::with(["rules", "check", &rules.to_string_lossy()]).run().expect_code(0);
    // Alone, and where nothing else runs: on a machine that is short of CPU, a pool of the demo is truly full.
    if size() == Size::Full {
        nothing_fires(&rules);
    }

    let mut faults: Vec<Vec<&Case>> = Vec::new();
    for case in CASES.iter().filter(|case| size() == Size::Full || case.fault != SEEN_ALREADY) {
        match faults.iter_mut().find(|cases| cases[0].fault == case.fault) {
            Some(cases) => cases.push(case),
            None => faults.push(vec![case]),
        }
    }
    faults.reverse();
    let (rules, faults) = (&printed, Mutex::new(faults));
    let next = || faults.lock().ok().and_then(|mut faults| faults.pop());
    let failed: Mutex<BTreeMap<&str, String>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..fires_within().1 {
            scope.spawn(|| {
                while let Some(cases) = next() {
                    let one = std::thread::scope(|scope| scope.spawn(|| fires(rules, &cases)).join());
                    if let Err(panic) = one {
                        let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                        failed.lock().expect("nobody panics with it").insert(cases[0].fault, said);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics with it");
    assert!(failed.is_empty(), "did not fire as they should, or were not over: {failed:#?}");
}
