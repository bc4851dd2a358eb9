//! A probe that is older than the agent does not know every word of its rules: it is watched with those that it does know, and
//! `rules explain` says of the others why they are silent.

use std::time::Duration;

use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::impostor::Older;
use taskscope_tests::json::text;
use taskscope_tests::target::runtime_folder;

#[test]
fn a_rule_that_the_probe_does_not_understand_is_left_out_and_the_others_watch_on() {
    let older = Older::start();
    let (_guard, folder) = runtime_folder();
    let agent = Agent::with(["alerts", &older.address, "--json"]).in_runtime_folder(&folder).start();
    let firing = agent.stdout.wait_for(Duration::from_secs(20), 0, |line| {
        let notice: Value = serde_json::from_str(line).ok()?;
        (text(&notice, "event") == "firing").then_some(notice)
    });
    assert_eq!(text(&firing, "alertname"), "TaskStuckInPoll", "{firing}");

    let explained = |rule: &str| {
        let args = ["rules", "explain", rule, &older.address, "--for", "3s"];
        Agent::with(args).in_runtime_folder(&folder).run().expect_code(0).stdout
    };
    let lost = explained("LostWaker");
    let says = "the target's probe is too old for what this rule asks it: filter does not parse at column 12: no field is called \
                `wakers`";
    assert!(lost.contains(says), "{lost}");
    let deaf = explained("TaskIgnoresCancel");
    assert!(!deaf.contains("too old"), "{deaf}");
}
