//! An alert arrives where people already look, and so does its end: a real Alertmanager shows it as ours, and loses, doubles or
//! ends nothing while it is restarted.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::alertmanager::Alertmanager;
use taskscope_tests::eventually::always;
use taskscope_tests::http::get;
use taskscope_tests::receiver::Receiver;
use taskscope_tests::target::Target;
use taskscope_tests::{eventually, peer};

const WITHIN: Duration = Duration::from_secs(30);
const SLOW_POLL: &str = "TaskSlowPoll";

#[test]
fn alertmanager_shows_groups_silences_and_resolves_our_alert() {
    if !peer("prometheus-alertmanager") || !peer("amtool") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let inbox = Receiver::open();
    let mut manager = Alertmanager::new(inbox.port, "10ms");
    manager.start();
    let config_file = folder.path().join("taskscope.toml");
    let our_config = format!(
        "[rules.TaskSlowPoll.critical]\nenabled = false\n\
         [rules.TaskSlowPoll.warning]\nthreshold = \"100ms\"\nmin_count = 1\nwindow = \"5s\"\n\
         [[sinks]]\ntype = \"alertmanager\"\nurls = [\"{}\"]\nresend = \"1s\"\n",
        manager.url()
    );
    std::fs::write(&config_file, our_config).expect("it is written");
    let target = Target::program("target-axum").args(["--label-layer", "on"]).start();
    let service: u16 = target.said("port ").parse().expect("a port");
    let slow = || get(service, "/slow?ms=250").map(|_| ());
    let config = config_file.display().to_string();
    let agent = Agent::with(["alerts", &target.address, "--json", "--config", &config]).start();
    let event = |what: &str| {
        let find = |line: &str| {
            let json: Value = serde_json::from_str(line).ok()?;
            (json["event"] == what && json["alertname"] == "TaskSlowPoll").then_some(json)
        };
        agent.stdout.lines().iter().find_map(|line| find(line))
    };

    // It fires, and is shown as ours.
    let fired = eventually(WITHIN, || {
        slow()?;
        event("firing").ok_or_else(|| agent.outputs())
    });
    let fingerprint = fired["fingerprint"].as_str().expect("it has one").to_owned();
    let first = eventually(WITHIN, || manager.alert(SLOW_POLL));
    assert_eq!(first["fingerprint"], *fingerprint);
    assert_eq!(first["startsAt"], fired["starts_at"]);
    assert_eq!(first["annotations"]["summary"], fired["annotations"]["summary"]);
    let told = |count: usize| {
        let said = inbox.said(&fingerprint);
        if said.len() >= count { Ok(said) } else { Err(format!("the webhook was told {said:?}")) }
    };
    assert_eq!(eventually(WITHIN, || told(1)), ["firing"]);

    // While it is restarted, and while it is killed and started anew, nothing is lost, doubled or ended.
    for signal in [Signal::TERM, Signal::KILL] {
        manager.has_written_down_what_it_told();
        manager.process().signal(signal);
        manager.process().wait(WITHIN);
        slow().expect("the service answers");
        manager.start();
        let again = eventually(WITHIN, || {
            slow()?;
            manager.alert(SLOW_POLL)
        });
        assert_eq!((&again["fingerprint"], &again["startsAt"]), (&first["fingerprint"], &first["startsAt"]));
        always(Duration::from_secs(2), || {
            slow()?;
            match (inbox.said(&fingerprint), event("resolved")) {
                (said, None) if said == ["firing"] => Ok(()),
                other => Err(format!("after {signal:?}: {other:?}")),
            }
        });
    }

    // A silence is Alertmanager's own affair: we go on telling it.
    let silence =
        manager.amtool(&["silence", "add", "-d", "1h", "-a", "us", "-c", "known", "alertname=TaskSlowPoll"]);
    eventually(WITHIN, || {
        slow()?;
        let alert = manager.alert(SLOW_POLL)?;
        if alert["status"]["state"] == "suppressed" { Ok(()) } else { Err(alert.to_string()) }
    });
    manager.amtool(&["silence", "expire", &silence]);

    // It ends once, with the beginning that it had.
    let resolved = eventually(WITHIN, || event("resolved").ok_or_else(|| agent.outputs()));
    assert_eq!(resolved["starts_at"], fired["starts_at"]);
    let said = eventually(WITHIN, || told(2));
    assert_eq!(said, ["firing", "resolved"], "{}", manager.process().outputs());
    eventually(WITHIN, || match manager.alert(SLOW_POLL) {
        Ok(alert) => Err(alert.to_string()),
        Err(_) => Ok(()),
    });
}

#[test]
fn what_is_wrong_with_a_configuration_is_all_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.toml");
    std::fs::write(&file, "[rules.TaskSlowPol]\n[rules.TaskSlowPoll]\nwindow = 60\n").expect("it is written");
    let path = file.display().to_string();
    let answer = Agent::with(["rules", "check", &path]).run().expect_code(1);
    let said = format!(
        "{path}:1:8: no rule is called `TaskSlowPol`\nhint: did you mean `TaskSlowPoll`?\n\
         {path}:3:10: `rules.TaskSlowPoll.window`: 60 has no unit\n"
    );
    assert!(answer.stderr.starts_with(&said), "{answer}");
    std::fs::write(&file, "[rules.TaskSlowPoll]\nwindow = \"30s\"\n").expect("it is written");
    Agent::with(["rules", "check", &path]).run().expect_code(0);
    let answer = Agent::with(["config", "print"]).env("TASKSCOPE_CONFIG", &path).run().expect_code(0);
    let is_said = |line: &str| line.starts_with("window = \"30s\"") && line.ends_with(&format!("# {path}:2"));
    assert!(answer.stdout.lines().any(is_said), "{answer}");
    Agent::with(["rules", "check", "/nowhere/a.toml"]).run().expect_code(2);
}
