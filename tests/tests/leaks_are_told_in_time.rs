//! A leak is told in time with the rules as they are by default: a steep one within 40 s, a slow one among many tasks that end
//! within 10 minutes. (At the small size the slow one is played to the agent's rules in its own tests.)

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::json::{self, text};
use taskscope_tests::stopwatch::Stopwatch;
use taskscope_tests::target::{Target, runtime_folder};
use taskscope_tests::{Size, evidence, size};

fn told_within(fault: &str, limit: Duration) {
    let mut target = Target::program("target-faults").start();
    target.said("ready");
    let (_guard, folder) = runtime_folder();
    let mut agent = Agent::with(["alerts", &target.address, "--json"]).in_runtime_folder(&folder).start();
    agent
        .stderr
        .wait_for(Duration::from_secs(20), 0, |line| line.contains("settings of rules watch").then_some(()));
    target.process.say(fault);
    let began = Stopwatch::start();
    // A little longer, so that what comes too late is told with its time.
    let firing = agent.stdout.wait_for(limit + Duration::from_secs(20), 0, |line| {
        let notice: Value = serde_json::from_str(line).ok()?;
        (text(&notice, "event") == "firing").then_some(notice)
    });
    let took = began.elapsed();
    let summary = text(&firing["annotations"], "summary");
    assert_eq!(text(&firing, "alertname"), "TaskLeak", "{firing}");
    assert!(summary.starts_with("GROWING: leaked (tests/src/bin/target-faults.rs:"), "{summary}");
    assert!(took <= limit, "the {fault} was told after {took:?}");
    agent.signal(Signal::INT);
    agent.wait(Duration::from_secs(10));
    let told = json::lines(&agent.stdout.text());
    let firings = told.iter().filter(|notice| text(notice, "event") == "firing").count();
    assert_eq!(firings, 1, "{}", agent.outputs());
    println!("{summary}");
    evidence(&format!("a {fault} is told"), format!("{} s after its beginning", took.as_secs()));
}

#[test]
fn a_steep_leak_is_told_within_40_s() {
    told_within("leak", Duration::from_secs(40));
}

#[test]
fn a_slow_leak_is_told_within_10_minutes() {
    if size() == Size::Full {
        told_within("slow leak", Duration::from_secs(600));
    }
}
