//! What waits for a receiver that is down outlives the agent, whoever kills it: when both are back, the receiver is told all of it, in
//! order and once, and what had arrived elsewhere is not told there again.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::eventually;
use taskscope_tests::eventually::always;
use taskscope_tests::headless::only;
use taskscope_tests::process::Process;
use taskscope_tests::receiver::Receiver;
use taskscope_tests::target::{Target, runtime_folder};

const SOON: Duration = Duration::from_secs(30);
const RULE: &str = "TaskStuckInPoll";

fn service(name: &str) -> Target {
    let target = Target::program("target-faults").env("TASKSCOPE_NAME", name).start();
    target.said("ready");
    target
}

fn agent(folder: &Path, config: &Path) -> Process {
    let args = ["agent", "--metrics", "off", "--config", &config.display().to_string()];
    let agent = Agent::with(args).in_runtime_folder(folder).start();
    agent.stderr.wait_for(SOON, 0, |line| line.contains("listening on").then_some(()));
    agent
}

/// What the agent would leave of each sink if it were killed now: the service, and what became of its alert.
fn left(folder: &Path) -> Result<Vec<(String, Vec<String>)>, String> {
    let file = folder.join("taskscope/alerts.json");
    let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
    let state: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let list = |it: &Value| it.as_array().cloned().unwrap_or_default();
    let said = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let notice = |it: &Value| format!("{} {}", said(&it["alert"]["labels"]["service"]), said(&it["event"]));
    let one = |it: &Value| (said(&it["sink"]), list(&it["notices"]).iter().map(notice).collect());
    Ok(list(&state["owing"]).iter().map(one).collect())
}

#[track_caller]
fn is_left(folder: &Path, wanted: &[&str], agent: &Process) {
    eventually(SOON, || match left(folder)? {
        left if left == [("hook".to_owned(), wanted.iter().map(|&it| it.to_owned()).collect())] => Ok(()),
        left => Err(format!("{left:?}\n{}", agent.outputs())),
    });
}

fn about(receiver: &Receiver, service: &str) -> Vec<Value> {
    receiver.alerts(RULE).into_iter().filter(|alert| alert["labels"]["service"] == service).collect()
}

fn told(receiver: &Receiver, service: &str) -> Vec<String> {
    let status = |alert: &Value| alert["status"].as_str().unwrap_or_default().to_owned();
    about(receiver, service).iter().map(status).collect()
}

/// The alerts that it has told on standard output: the service, and what became of its alert.
fn lines(agent: &Process) -> Vec<String> {
    let lines = agent.stdout.lines();
    let notices = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours = notices.filter(|notice| notice["alertname"] == RULE);
    let said = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    ours.map(|it| format!("{} {}", said(&it["labels"]["service"]), said(&it["event"]))).collect()
}

#[test]
fn a_webhook_is_told_once_and_in_order_what_an_agent_could_not_tell_it_before_it_was_killed() {
    let (_guard, folder) = runtime_folder();
    let mut receiver = Receiver::open();
    let (mut one, mut two) = (service("one"), service("two"));
    let rule = only(RULE, "threshold = '500ms'\nkeep_firing_for = '0s'\ncritical = { enabled = false }");
    let config = folder.join("agent.toml");
    let text = format!(
        "[targets]\nfixed = [\"{}\", \"{}\"]\n{rule}[[sinks]]\ntype = 'stdout'\n\
         [[sinks]]\ntype = 'webhook'\nname = 'hook'\nurl = '{}'\n",
        one.address, two.address, receiver.url
    );
    std::fs::write(&config, text).expect("it is written");
    receiver.dies();
    let mut first = agent(&folder, &config);
    one.process.say("stuck");
    is_left(&folder, &["one firing"], &first);
    one.process.say("end");
    is_left(&folder, &["one firing", "one resolved"], &first);
    two.process.say("stuck");
    is_left(&folder, &["one firing", "one resolved", "two firing"], &first);
    assert_eq!(lines(&first), ["one firing", "one resolved", "two firing"]);
    first.signal(Signal::KILL);
    first.wait(SOON);

    // What one tells after the start comes after what the other could not.
    let second = agent(&folder, &config);
    two.process.say("end");
    let all = ["one firing", "one resolved", "two firing", "two resolved"];
    is_left(&folder, &all, &second);
    receiver.comes_back();
    eventually(SOON, || match (told(&receiver, "one"), told(&receiver, "two")) {
        (one, two) if one.len() + two.len() >= 4 => Ok(()),
        told => Err(format!("{told:?}\n{}", second.outputs())),
    });
    always(Duration::from_secs(1), || {
        let once = |told: Vec<String>| told == ["firing", "resolved"];
        let all = [told(&receiver, "one"), told(&receiver, "two")];
        if all.clone().into_iter().all(once) { Ok(()) } else { Err(format!("{all:?}")) }
    });
    assert_eq!(lines(&second), ["two resolved"], "the rest had arrived there before");
    eventually(SOON, || match left(&folder)? {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    for service in ["one", "two"] {
        let about = about(&receiver, service);
        for key in ["fingerprint", "startsAt", "labels"] {
            assert_eq!(about[0][key], about[1][key], "another {key}");
        }
    }
}
