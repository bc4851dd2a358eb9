//! A receiver that dies, that has too much to do or that says nothing delays no other, and is told all of it when it is well again:
//! nothing is lost, nothing twice, and each alert with its own beginning and end.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::eventually;
use taskscope_tests::eventually::always;
use taskscope_tests::headless::only;
use taskscope_tests::process::Process;
use taskscope_tests::receiver::Receiver;
use taskscope_tests::target::Target;

const SOON: Duration = Duration::from_secs(20);
const RULE: &str = "TaskStuckInPoll";

fn service(name: &str) -> Target {
    let target = Target::program("target-faults").env("TASKSCOPE_NAME", name).start();
    target.said("ready");
    target
}

/// Has no other rule than the one about stuck polls, which is pending for no time and over at once.
fn agent(folder: &Path, services: &[&Target], sinks: &str) -> Process {
    let addresses: Vec<String> = services.iter().map(|it| format!("\"{}\"", it.address)).collect();
    let rule = only(RULE, "threshold = '500ms'\nkeep_firing_for = '0s'\ncritical = { enabled = false }");
    let text = format!("[targets]\nfixed = [{}]\n{rule}{sinks}", addresses.join(", "));
    let file = folder.join("agent.toml");
    std::fs::write(&file, text).expect("it is written");
    let args = ["agent", "--metrics", "off", "--config", &file.display().to_string()];
    let agent = Agent::with(args).in_runtime_folder(folder).start();
    agent.stderr.wait_for(SOON, 0, |line| line.contains("listening on").then_some(()));
    agent
}

/// What a receiver took about the service, in order.
fn about(receiver: &Receiver, service: &str) -> Vec<Value> {
    receiver.alerts(RULE).into_iter().filter(|alert| alert["labels"]["service"] == service).collect()
}

fn told(receiver: &Receiver, service: &str) -> Vec<String> {
    let status = |alert: &Value| alert["status"].as_str().unwrap_or_default().to_owned();
    about(receiver, service).iter().map(status).collect()
}

/// Waits until a webhook has been told exactly this about the service.
#[track_caller]
fn is_told(receiver: &Receiver, service: &str, wanted: &[&str], agent: &Process) {
    eventually(SOON, || match told(receiver, service) {
        told if told == wanted => Ok(()),
        told => Err(format!("{service}: {told:?}\n{}", agent.outputs())),
    });
}

#[test]
fn a_webhook_that_dies_over_a_message_is_told_the_rest_when_it_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut mortal, well) = (Receiver::open(), Receiver::open());
    let (mut one, mut two) = (service("one"), service("two"));
    let sink = |name: &str, receiver: &Receiver| {
        format!("[[sinks]]\ntype = 'webhook'\nname = '{name}'\nurl = '{}'\n", receiver.url)
    };
    let sinks = [sink("mortal", &mortal), sink("well", &well)].concat();
    let agent = agent(folder.path(), &[&one, &two], &sinks);
    one.process.say("stuck");
    is_told(&well, "one", &["firing"], &agent);
    is_told(&mortal, "one", &["firing"], &agent);

    // It dies over the next one, and while it is dead one ends; the other receiver notices nothing of it.
    mortal.hangs_up();
    let asked = mortal.asked();
    two.process.say("stuck");
    eventually(SOON, || match mortal.asked() {
        now if now > asked => Ok(()),
        now => Err(format!("asked {now} times\n{}", agent.outputs())),
    });
    mortal.dies();
    is_told(&well, "two", &["firing"], &agent);
    one.process.say("end");
    is_told(&well, "one", &["firing", "resolved"], &agent);
    assert_eq!((told(&mortal, "one"), told(&mortal, "two").len()), (vec!["firing".to_owned()], 0));

    mortal.comes_back();
    is_told(&mortal, "two", &["firing"], &agent);
    is_told(&mortal, "one", &["firing", "resolved"], &agent);
    two.process.say("end");
    for receiver in [&mortal, &well] {
        is_told(receiver, "two", &["firing", "resolved"], &agent);
    }
    always(Duration::from_secs(1), || {
        let all = [&mortal, &well].map(|it| [told(it, "one"), told(it, "two")]);
        let once = |told: &Vec<String>| told[..] == ["firing", "resolved"];
        if all.iter().flatten().all(once) { Ok(()) } else { Err(format!("{all:?}")) }
    });
    for service in ["one", "two"] {
        let (mortal, well) = (about(&mortal, service), about(&well, service));
        for key in ["fingerprint", "labels", "startsAt"] {
            for alert in mortal.iter().chain(&well) {
                assert_eq!(alert[key], well[0][key], "another {key}: {alert}");
            }
        }
        assert_eq!(mortal[1]["endsAt"], well[1]["endsAt"]);
    }
}

#[test]
fn an_alertmanager_that_is_busy_or_silent_is_told_the_same_when_it_is_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let (busy, silent, well, hook) = (Receiver::open(), Receiver::open(), Receiver::open(), Receiver::open());
    busy.asks_to_wait(1);
    silent.says_nothing();
    let mut one = service("one");
    let urls = [&busy, &silent, &well].map(|it| format!("'{}'", it.url)).join(", ");
    let sinks = format!(
        "[[sinks]]\ntype = 'alertmanager'\nurls = [{urls}]\nresend = '1s'\ntimeout = '2s'\n\
         [[sinks]]\ntype = 'webhook'\nurl = '{}'\n",
        hook.url
    );
    let agent = agent(folder.path(), &[&one], &sinks);
    one.process.say("stuck");
    is_told(&hook, "one", &["firing"], &agent);
    let firing = about(&hook, "one").remove(0);
    // All are asked, and the one that is well is told over and over, as if it were alone.
    eventually(SOON, || match (busy.asked(), silent.asked(), about(&well, "one").len()) {
        (2.., 2.., 4..) => Ok(()),
        asked => Err(format!("{asked:?}\n{}", agent.outputs())),
    });
    assert_eq!((busy.messages().len(), silent.messages().len()), (0, 0));

    busy.answers(200);
    silent.answers(200);
    for receiver in [&busy, &silent] {
        eventually(SOON, || match about(receiver, "one").len() {
            0 => Err(agent.outputs()),
            _ => Ok(()),
        });
    }
    one.process.say("end");
    is_told(&hook, "one", &["firing", "resolved"], &agent);
    let resolved = about(&hook, "one").remove(1);
    for receiver in [&busy, &silent, &well] {
        let all = eventually(SOON, || {
            let all = about(receiver, "one");
            let is_over = all.last().is_some_and(|last| last["endsAt"] == resolved["endsAt"]);
            if is_over { Ok(all) } else { Err(format!("{all:?}")) }
        });
        let is_end = |alert: &Value| alert["endsAt"] == resolved["endsAt"];
        let (end, before): (Vec<&Value>, Vec<&Value>) = all.iter().partition(|alert| is_end(alert));
        assert!(!end.is_empty() && !before.is_empty(), "{all:?}");
        for alert in &all {
            assert_eq!((&alert["labels"], &alert["startsAt"]), (&firing["labels"], &firing["startsAt"]));
        }
        // While it fires, its end is ahead of that of every message before: it never lapses.
        let ends: Vec<&str> = before.iter().filter_map(|alert| alert["endsAt"].as_str()).collect();
        assert!(ends.is_sorted() && ends[0] > firing["startsAt"].as_str().unwrap_or_default(), "{ends:?}");
    }
}
