//! Each rule of `taskscope rules list` has a fault that fires it: within two seconds of its condition, once, and it is resolved
//! after the fault. Each is evaluated alone, so that none is held back by another one, and with windows of seconds.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use taskscope_tests::agent::{self, Agent};
use taskscope_tests::eventually::always;
use taskscope_tests::json::{self, text};
use taskscope_tests::process::Process;
use taskscope_tests::receiver::Receiver;
use taskscope_tests::stopwatch::Stopwatch;
use taskscope_tests::target::Target;
use taskscope_tests::{Size, eventually, evidence, size};

/// A rule, its settings, what is done wrong, how long that takes to be wrong enough, and what the sentence names.
struct Case {
    rule: &'static str,
    settings: &'static str,
    fault: &'static str,
    condition: f64,
    says: &'static str,
}

const fn case(
    rule: &'static str,
    settings: &'static str,
    fault: &'static str,
    condition: f64,
    says: &'static str,
) -> Case {
    Case { rule, settings, fault, condition, says }
}

/// No fault of the target's: it is stopped.
const STOPPED: &str = "stopped";

const CASES: [Case; 19] = [
    case("TaskStuckInPoll", "threshold = '1s'", "stuck", 1.0, "STUCK"),
    case("TaskSlowPoll", "threshold = '100ms'\nmin_count = 3\nwindow = '4s'", "slow", 0.5, "task slow"),
    case("TaskIgnoresCancel", "threshold = '1s'", "ignored request", 1.0, "task deaf"),
    case("TaskPanicked", "window = '3s'", "panic", 0.0, "panics panicked at tests/src/bin/target-faults.rs:"),
    case("TaskFailed", "window = '3s'", "error", 0.0, "fails failed: connection refused"),
    case("TaskLeak", "threshold = 100\nwindow = '5s'", "leak", 5.0, "leaked"),
    case(
        "TaskPendingTooLong",
        "enabled = true\nthreshold = '1s'\nmatch = { task_group = 'waits' }",
        "pending",
        1.0,
        "task waits",
    ),
    case("TaskNeverYields", "threshold = 0.5\nwindow = '3s'", "never yields", 3.0, "task greedy"),
    case("SelfWakingLoop", "threshold = 1000\nwindow = '3s'", "hot loop", 3.0, "task spins"),
    case("LostWaker", "threshold = '1s'", "lost waker", 1.0, "task lost"),
    case("PoolSaturated", "threshold = '1s'", "jobs", 1.0, "blocking pool 5 of 5"),
    case("PoolNearlyFull", "threshold = 0.8\nfor = '1s'", "jobs", 1.0, "5 of 5"),
    case("BlockingJobTooLong", "threshold = '1s'", "jobs", 1.0, "task job"),
    case("ResourceNearLimit", "threshold = 0.6\nfor = '1s'", "files", 1.0, "FILE DESCRIPTORS"),
    case("ReadyQueueGrowing", "threshold = 50\nwindow = '4s'", "queue", 4.0, "QUEUE GROWS"),
    case("RuntimeBusy", "threshold = 0.9\nfor = '1s'", "stuck", 2.0, "the 2 workers of runtime tokio"),
    case("LoopLag", "threshold = '300ms'\nfor = '1s'", "queue", 1.3, "LAG"),
    case("TargetLost", "threshold = '3s'", STOPPED, 3.0, "nothing comes from the target"),
    case("ProbeDropping", "window = '4s'", "tasks", 0.0, "past the memory budget"),
];

/// Those about the agent itself have no target, and a fault of the agent's own.
const OF_THE_AGENT: [&str; 2] = ["SinkFailing", "AgentDegraded"];

/// After its condition is met.
fn fires_within() -> Duration {
    match size() {
        Size::Full => Duration::from_secs(2),
        // Four of them share the machine with whatever else runs there.
        Size::Small => Duration::from_secs(6),
    }
}

/// That a rule fired so soon after its condition was met.
fn in_time(rule: &str, after: Duration) {
    assert!(after <= fires_within(), "{rule} fired {after:?} after its condition");
    evidence(&format!("{rule} fires"), format!("{} ms after its condition", after.as_millis()));
}

/// Only this rule, at its lowest severity, which may end at once.
fn configuration(rules: &[Value], case: &Case) -> String {
    let mut all = String::new();
    for rule in rules {
        let name = text(rule, "name");
        let severities: Vec<&str> =
            json::list(rule, "settings").iter().map(|it| text(it, "severity")).collect();
        if name != case.rule {
            all.push_str(&format!("[rules.{name}]\nenabled = false\n"));
            continue;
        }
        let loudest = severities.iter().skip(1);
        let off: String = loudest.map(|it| format!("[rules.{name}.{it}]\nenabled = false\n")).collect();
        all.push_str(&format!("[rules.{name}]\nkeep_firing_for = '0s'\n{}\n{off}", case.settings));
    }
    all
}

fn fires(rules: &[Value], case: &Case) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("rules.toml");
    std::fs::write(&file, configuration(rules, case)).expect("it can be written");
    let target = Target::program("target-faults");
    let target = if case.rule == "ProbeDropping" { target.env("TASKSCOPE_MEMORY", "1MiB") } else { target };
    let mut target = target.in_shell("ulimit -n 256 && exec \"$0\" \"$@\"").start();
    target.said("ready");
    let config = file.to_string_lossy();
    let args = ["alerts", target.address.as_str(), "--json", "--config", &config];
    let mut agent = Agent::with(args).start();
    agent
        .stderr
        .wait_for(Duration::from_secs(20), 0, |line| line.contains("settings of rules watch").then_some(()));

    let begun = Stopwatch::start();
    if case.fault == STOPPED {
        target.process.signal(Signal::STOP);
    } else {
        target.process.say(case.fault);
    }
    let event = |name: &str| {
        let wanted = name.to_owned();
        let within = Duration::from_secs_f64(case.condition) + Duration::from_secs(30);
        let is_it = move |line: &str| {
            let notice: Value = serde_json::from_str(line).ok()?;
            (text(&notice, "event") == wanted).then_some(notice)
        };
        agent.stdout.wait_for(within, 0, is_it)
    };
    let firing = event("firing");
    let after = begun.elapsed().saturating_sub(Duration::from_secs_f64(case.condition));
    assert_eq!(text(&firing, "alertname"), case.rule);
    let summary = text(&firing["annotations"], "summary");
    assert!(summary.contains(case.says), "{}: {summary}", case.rule);
    in_time(case.rule, after);
    if case.rule == "TaskStuckInPoll" {
        // How long the poll had run by its own clock; both workers are blocked.
        let ran = firing["value"].as_f64().expect("a duration");
        let late = if size() == Size::Full { 0.25 } else { 2.0 };
        assert!(ran <= case.condition + late, "told when it had run for {ran} s");
        evidence(
            "a stuck poll with all workers blocked is told",
            format!("when it has run for {ran:.3} s, past 1 s"),
        );
    }
    if case.fault == STOPPED {
        target.process.signal(Signal::CONT);
    } else {
        target.process.say("end");
    }
    let resolved = event("resolved");
    for key in ["fingerprint", "starts_at", "labels"] {
        assert_eq!(resolved[key], firing[key], "{}: another {key}", case.rule);
    }
    agent.signal(Signal::INT);
    let status = agent.wait(Duration::from_secs(10));
    assert_eq!(status.code(), Some(1), "something fired:\n{}", agent.outputs());
    let all = json::lines(&agent.stdout.text());
    let count = all.iter().filter(|notice| text(notice, "event") == "firing").count();
    assert_eq!(count, 1, "{} was told more than once:\n{}", case.rule, agent.outputs());
    assert!(
        agent.stderr.text().contains(&format!("1 alert fired ({}), 1 is over", case.rule)),
        "{}",
        agent.outputs()
    );
    println!("{summary}");
}

#[test]
fn each_rule_fires_once_and_is_resolved() {
    let rules = Agent::with(["rules", "list", "--json"]).run().expect_code(0).json_lines();
    let listed: Vec<&str> = rules.iter().map(|rule| text(rule, "name")).collect();
    let cases: Vec<&str> = CASES.iter().map(|case| case.rule).chain(OF_THE_AGENT).collect();
    assert_eq!(listed, cases, "each rule has its fault");
    for some in CASES.chunks(4) {
        std::thread::scope(|scope| {
            let all: Vec<_> = some.iter().map(|case| (case, scope.spawn(|| fires(&rules, case)))).collect();
            for (case, thread) in all {
                assert!(thread.join().is_ok(), "{} did not fire as it should", case.rule);
            }
        });
    }
}

/// `taskscope agent` without targets, with these rules and sinks beside standard output.
fn watches_itself(folder: &std::path::Path, configuration: &str) -> Process {
    let file = folder.join("agent.toml");
    // Targets of other tests are none of its own.
    let all = format!(
        "[[sinks]]\ntype = 'stdout'\n[agent]\nmetrics = 'off'\n[targets]\nfolder = '{}'\n{configuration}",
        folder.display()
    );
    std::fs::write(&file, all).expect("it can be written");
    std::fs::write(folder.join("memory.max"), "67108864\n").expect("it can be written");
    let agent = Agent::with(["agent", "--config", &file.to_string_lossy()]).in_runtime_folder(folder);
    let agent = agent.env("TASKSCOPE_CGROUP_DIR", folder).start();
    agent.stderr.wait_for(SOON, 0, |line| line.contains("listening on").then_some(()));
    agent
}

const SOON: Duration = Duration::from_secs(30);

/// What its standard output said of a rule.
fn notices(agent: &Process, rule: &str) -> Vec<Value> {
    let all = json::lines(&agent.stdout.text());
    all.into_iter().filter(|notice| text(notice, "alertname") == rule).collect()
}

fn becomes(agent: &Process, rule: &str, events: &[&str]) -> Vec<Value> {
    eventually(SOON, || {
        let told = notices(agent, rule);
        let seen: Vec<&str> = told.iter().map(|notice| text(notice, "event")).collect();
        if seen == events { Ok(told) } else { Err(format!("{seen:?}\n{}", agent.outputs())) }
    })
}

#[test]
fn the_sinks_that_work_tell_of_one_that_does_not() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (down, well) = (Receiver::open(), Receiver::open());
    down.answers(500);
    let sink =
        |name: &str, url: &str| format!("[[sinks]]\ntype = 'webhook'\nname = '{name}'\nurl = '{url}'\n");
    let rules = "[rules.SinkFailing]\nthreshold = '2s'\nkeep_firing_for = '0s'\n[rules.AgentDegraded]\nthreshold = 0.01\nwindow = '1s'\n";
    let configuration = [rules, &sink("down", &down.url), &sink("well", &well.url)].concat();
    // Its memory is past a hundredth of what it may have: something to tell, which does not arrive.
    let agent = watches_itself(folder.path(), &configuration);
    let is_told = |told: &[Value]| told.first().is_some_and(|first| first["event"] == "firing");
    eventually(SOON, || match notices(&agent, "AgentDegraded") {
        told if is_told(&told) => Ok(()),
        told => Err(format!("{told:?}\n{}", agent.outputs())),
    });
    // It has not failed for longer than that.
    let fails = Stopwatch::start();
    let firing = becomes(&agent, "SinkFailing", &["firing"]);
    in_time("SinkFailing", fails.elapsed().saturating_sub(Duration::from_secs(2)));
    let summary = text(&firing[0]["annotations"], "summary");
    assert!(summary.contains("sink down fails: it answers 500"), "{summary}");
    assert_eq!(firing[0]["labels"]["service"], "taskscope-agent");
    eventually(SOON, || match well.told("SinkFailing") {
        told if told == ["firing"] => Ok(()),
        told => Err(format!("{told:?}\n{}", agent.outputs())),
    });
    assert_eq!(down.told("SinkFailing"), Vec::<String>::new());
    println!("{summary}");
    down.answers(200);
    let over = becomes(&agent, "SinkFailing", &["firing", "resolved"]);
    assert_eq!(over[1]["starts_at"], firing[0]["starts_at"]);
    eventually(SOON, || match (well.told("SinkFailing"), down.told("SinkFailing")) {
        (well, down) if well == ["firing", "resolved"] && down == well => Ok(()),
        told => Err(format!("{told:?}")),
    });
    agent.signal(Signal::TERM);
}

#[test]
fn an_agent_that_does_not_come_to_its_work_says_so_afterwards() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let rules = "[rules.AgentDegraded]\nthreshold = 0.5\nwindow = '3s'\nkeep_firing_for = '0s'\n";
    let agent = watches_itself(folder.path(), rules);
    always(Duration::from_secs(4), || match notices(&agent, "AgentDegraded") {
        told if told.is_empty() => Ok(()),
        told => Err(format!("{told:?}")),
    });
    agent.signal(Signal::STOP);
    let begun = Stopwatch::start();
    eventually(SOON, || match begun.elapsed() {
        stopped if stopped >= Duration::from_secs(4) => Ok(()),
        stopped => Err(format!("stopped for {stopped:?}")),
    });
    agent.signal(Signal::CONT);
    let late = Stopwatch::start();
    let firing = becomes(&agent, "AgentDegraded", &["firing"]);
    in_time("AgentDegraded", late.elapsed());
    let summary = text(&firing[0]["annotations"], "summary");
    assert!(summary.starts_with("DEGRADED: the agent's loop was late for "), "{summary}");
    assert_eq!(firing[0]["labels"]["resource"], "loop");
    println!("{summary}");
    becomes(&agent, "AgentDegraded", &["firing", "resolved"]);
    agent.signal(Signal::TERM);
}

#[test]
fn a_task_of_the_demo_that_is_told_to_stop_and_goes_on_is_named() {
    let service = Agent::with(["demo", "--serve", "--faults", "ignores-cancel"]).start();
    let address = eventually(Duration::from_secs(20), || {
        let lines = service.stdout.lines();
        let first = lines.first().and_then(|line| line.split_whitespace().next().map(str::to_owned));
        first.ok_or_else(|| service.outputs())
    });
    let said = "task newsletter (spawned at demo/src/newsletter.rs:";
    let mut alerts = Agent::with(["alerts", &address, "--for", "22s"]).start();
    let told = eventually(Duration::from_secs(22), || {
        let (lines, code) = agent::why(&address);
        let told = lines.iter().find(|line| line.starts_with("IGNORES CANCEL ") && line.contains(said));
        told.filter(|_| code == 1).cloned().ok_or_else(|| format!("{lines:#?}, exit code {code}"))
    });
    assert!(told.contains("was asked to stop and goes on: it was woken"), "{told}");
    let status = alerts.wait(Duration::from_secs(60));
    let lines = alerts.stdout.lines();
    let named = lines.iter().find(|line| line.contains("FIRING") && line.contains(said));
    let named = named.unwrap_or_else(|| panic!("it is not named:\n{}", alerts.outputs()));
    assert!(named.contains("was asked to stop and goes on: it was woken"), "{named}");
    println!("{told}\n{named}");
    assert_eq!(status.code(), Some(1), "{}", alerts.outputs());
}
