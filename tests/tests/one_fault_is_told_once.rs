//! With every rule on, one thing that goes wrong is one notification: the rule that says why. What else is true because of it is
//! named in the annotation `also`, and what was told is over once.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::eventually::always;
use taskscope_tests::json::{self, text};
use taskscope_tests::process::Process;
use taskscope_tests::target::Target;
use taskscope_tests::{Size, eventually, evidence, size};

/// Windows of seconds. No rule is off, and the one that has to be asked for is on.
const RULES: &str = "
[rules.TaskStuckInPoll]
threshold = '1s'
keep_firing_for = '3s'
[rules.TaskSlowPoll]
threshold = '100ms'
min_count = 3
window = '4s'
[rules.TaskIgnoresCancel]
threshold = '1s'
keep_firing_for = '3s'
[rules.TaskPanicked]
window = '3s'
[rules.TaskFailed]
window = '3s'
[rules.TaskLeak]
threshold = 100
window = '5s'
keep_firing_for = '3s'
[rules.TaskPendingTooLong]
enabled = true
threshold = '1s'
match = { task_group = 'waits|lost' }
keep_firing_for = '3s'
[rules.TaskNeverYields]
threshold = 0.5
window = '3s'
[rules.SelfWakingLoop]
threshold = 1000
window = '3s'
[rules.LostWaker]
threshold = '1s'
keep_firing_for = '3s'
[rules.PoolSaturated]
threshold = '1s'
keep_firing_for = '3s'
[rules.PoolNearlyFull]
for = '1s'
keep_firing_for = '3s'
[rules.BlockingJobTooLong]
threshold = '1s'
keep_firing_for = '3s'
[rules.ResourceNearLimit]
threshold = 0.6
for = '1s'
keep_firing_for = '3s'
[rules.ReadyQueueGrowing]
threshold = 50
window = '4s'
keep_firing_for = '3s'
[rules.RuntimeBusy]
for = '2s'
keep_firing_for = '3s'
[rules.LoopLag]
for = '2s'
keep_firing_for = '3s'
";

/// What is done wrong, what is told of it, and what else is true of it.
type Fault = (&'static str, &'static str, &'static [&'static str]);

const FAULTS: [Fault; 13] = [
    ("stuck", "TaskStuckInPoll", &["RuntimeBusy"]),
    ("queue", "TaskStuckInPoll", &["LoopLag", "ReadyQueueGrowing", "RuntimeBusy"]),
    ("jobs", "PoolSaturated", &["BlockingJobTooLong", "PoolNearlyFull"]),
    ("ignored request", "TaskStuckInPoll", &["TaskIgnoresCancel"]),
    ("lost waker", "LostWaker", &["TaskPendingTooLong"]),
    ("slow", "TaskSlowPoll", &[]),
    ("panic", "TaskPanicked", &[]),
    ("leak", "TaskLeak", &[]),
    ("error", "TaskFailed", &[]),
    ("pending", "TaskPendingTooLong", &[]),
    ("files", "ResourceNearLimit", &[]),
    ("never yields", "TaskNeverYields", &[]),
    ("hot loop", "SelfWakingLoop", &[]),
];

/// Of the demo, each with the rules that it prints.
const DEMO: [Fault; 6] = [
    ("stuck-poll", "TaskStuckInPoll", &[]),
    ("pool-full", "PoolSaturated", &[]),
    ("slow-poll", "TaskSlowPoll", &[]),
    ("panic", "TaskPanicked", &[]),
    ("ignores-cancel", "TaskIgnoresCancel", &[]),
    ("leak", "TaskLeak", &[]),
];

/// A fault lasts for so long: less than it takes until one of them is critical, which is told again.
const LASTS: Duration = Duration::from_secs(7);
/// What is over is told by then.
const OVER: Duration = Duration::from_secs(40);
/// And nothing comes after it for so long.
const QUIET: Duration = Duration::from_secs(4);
const AT_ONCE: usize = 4;
/// Where a machine is short of CPU, a pool of the demo is truly full.
const DEMOS_AT_ONCE: usize = 1;

fn told(agent: &Process, event: &str) -> Vec<Value> {
    let mut all = json::lines(&agent.stdout.text());
    all.retain(|notice| text(notice, "event") == event);
    all
}

/// What was told of the fault, and no more than that.
fn is_one(agent: &Process, (fault, rule, _): Fault) -> Result<(), String> {
    let fired = told(agent, "firing");
    match fired.as_slice() {
        [] => Ok(()),
        [one] if text(one, "alertname") == rule => Ok(()),
        _ => Err(format!("{fault}: {}", agent.outputs())),
    }
}

fn watch(address: &str, rules: &Path) -> Process {
    let agent = Agent::with(["alerts", address, "--json", "--config", &rules.to_string_lossy()]).start();
    let watches = |line: &str| line.contains("settings of rules watch").then_some(());
    agent.stderr.wait_for(Duration::from_secs(20), 0, watches);
    agent
}

/// It is over, once, and what it has held back is named.
fn is_over_once(agent: &Process, told_of: Fault, within: Duration) {
    let (fault, rule, also) = told_of;
    let over = eventually(within, || {
        is_one(agent, told_of).and_then(|()| told(agent, "resolved").pop().ok_or_else(|| agent.outputs()))
    });
    always(QUIET, || is_one(agent, told_of));
    let (fired, resolved) = (told(agent, "firing"), told(agent, "resolved"));
    assert_eq!((fired.len(), resolved.len()), (1, 1), "{fault}: {}", agent.outputs());
    assert_eq!(text(&over, "alertname"), rule, "{fault}");
    assert_eq!(
        (&over["fingerprint"], &over["starts_at"]),
        (&fired[0]["fingerprint"], &fired[0]["starts_at"])
    );
    let named = over["annotations"]["also"].as_str().unwrap_or_default();
    for name in also {
        assert!(named.split(", ").any(|it| it == *name), "{fault}: also {named}: {}", agent.outputs());
    }
    agent.signal(Signal::INT);
    let said = text(&fired[0]["annotations"], "summary");
    println!("{fault}: {rule}, also {named}: {said}");
    evidence(&format!("{fault} is told once"), format!("{rule}; also: {named}"));
}

fn of_target(rules: &Path, fault: Fault) {
    let mut target = Target::program("target-faults").in_shell("ulimit -n 256 && exec \"$0\" \"$@\"").start();
    target.said("ready");
    let agent = watch(&target.address, rules);
    target.process.say(fault.0);
    always(LASTS, || is_one(&agent, fault));
    assert_eq!(told(&agent, "firing").len(), 1, "{}: {}", fault.0, agent.outputs());
    target.process.say("end");
    is_over_once(&agent, fault, OVER);
}

fn of_demo(rules: &Path, fault: Fault) {
    let service = Agent::with(["demo", "--serve", "--faults", fault.0]).start();
    let address = eventually(Duration::from_secs(20), || {
        let lines = service.stdout.lines();
        let first = lines.first().and_then(|line| line.split_whitespace().next().map(str::to_owned));
        first.ok_or_else(|| service.outputs())
    });
    let agent = watch(&address, rules);
    // It begins after 5 s and lasts 40 s at most.
    is_over_once(&agent, fault, Duration::from_secs(60) + OVER);
}

fn each(faults: &[Fault], at_once: usize, rules: &Path, run: fn(&Path, Fault)) {
    for some in faults.chunks(at_once) {
        std::thread::scope(|scope| {
            let all: Vec<_> =
                some.iter().map(|&fault| (fault, scope.spawn(move || run(rules, fault)))).collect();
            for ((fault, rule, _), thread) in all {
                assert!(thread.join().is_ok(), "{fault} is not told once, as {rule}");
            }
        });
    }
}

/// One after the other, so that there are never more at once.
#[test]
fn each_fault_is_one_notification_with_all_rules_on() {
    of_targets();
    of_demos();
}

fn of_targets() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let rules = folder.path().join("rules.toml");
    std::fs::write(&rules, RULES).expect("it can be written");
    let faults = match size() {
        Size::Full => &FAULTS[..],
        Size::Small => &FAULTS[..8],
    };
    each(faults, AT_ONCE, &rules, of_target);
}

fn of_demos() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let rules = folder.path().join("demo.toml");
    let printed = Agent::with(["demo", "--rules"]).run().expect_code(0).stdout;
    std::fs::write(&rules, printed).expect("it can be written");
    let faults = match size() {
        Size::Full => &DEMO[..],
        Size::Small => &DEMO[..1],
    };
    each(faults, DEMOS_AT_ONCE, &rules, of_demo);
}
