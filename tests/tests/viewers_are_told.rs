//! What an agent's alerts are, everybody who asks it is told: what stands, what changes, why a rule does or does not fire, and what
//! is silenced until when.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use taskscope_proto::v1::alerts_client::AlertsClient;
use taskscope_proto::v1::{LabelMatcher, SilenceRequest, WatchAlertsRequest};
use taskscope_tests::agent::{Agent, Answer};
use taskscope_tests::eventually;
use taskscope_tests::json::{self, list, text};
use taskscope_tests::process::Process;
use taskscope_tests::target::{Target, runtime_folder};
use tonic::Code;
use tonic::transport::Endpoint;

const SOON: Duration = Duration::from_secs(20);
const RULE: &str = "TaskStuckInPoll";

/// A service that can be stuck, and an agent that has only the rule for it: pending for two seconds, over at once.
struct Watched {
    target: Target,
    agent: Process,
    address: String,
}

impl Watched {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let target = Target::program("target-faults").in_runtime_folder(folder).start();
        target.said("ready");
        let rules = Agent::with(["rules", "list", "--json"]).run().expect_code(0).json_lines();
        let others = rules.iter().map(|rule| text(rule, "name")).filter(|name| *name != RULE);
        let mut config: String = others.map(|name| format!("[rules.{name}]\nenabled = false\n")).collect();
        config.push_str(&format!(
            "[rules.{RULE}]\nthreshold = '500ms'\nfor = '2s'\nkeep_firing_for = '0s'\n[rules.{RULE}.critical]\nenabled = false\n"
        ));
        let file = folder.join("rules.toml");
        std::fs::write(&file, config).expect("it can be written");
        let file = file.display().to_string();
        let all = [&["agent", "--metrics", "off", "--config", &file], args].concat();
        let agent = Agent::with(all).in_runtime_folder(folder).start();
        let address = agent
            .stderr
            .wait_for(SOON, 0, |line| line.strip_prefix("taskscope: listening on ").map(str::to_owned));
        let watched = Self { target, agent, address };
        eventually(SOON, || {
            let targets = Agent::with(["ls", &watched.address, "--json"]).run().json_lines();
            match targets.first().map(|target| text(target, "link").to_owned()) {
                Some(link) if link == "live" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        watched
    }

    fn ask(&self, args: &[&str]) -> Answer {
        let args = args.iter().map(|arg| if *arg == "AGENT" { self.address.as_str() } else { arg });
        Agent::with(args).env("USER", "ops").run()
    }

    /// A viewer that has been shown what stands.
    fn viewer(&self) -> Process {
        let viewer = Agent::with(["alerts", self.address.as_str(), "--json"]).start();
        viewer.stderr.wait_for(SOON, 0, |line| line.contains("the agent watches 1 target").then_some(()));
        viewer
    }
}

/// The first such event of our rule that a process prints.
#[track_caller]
fn event(of: &Process, name: &str) -> Value {
    of.stdout.wait_for(SOON, 0, |line| {
        let notice: Value = serde_json::from_str(line).ok()?;
        (text(&notice, "event") == name && text(&notice, "alertname") == RULE).then_some(notice)
    })
}

fn events(of: &Process) -> Vec<String> {
    json::lines(&of.stdout.text()).iter().map(|notice| text(notice, "event").to_owned()).collect()
}

#[test]
fn a_viewer_sees_an_alert_pending_firing_and_resolved_and_why() {
    let (_guard, folder) = runtime_folder();
    let mut watched = Watched::start(&folder, &["--folder"]);
    let mut viewer = watched.viewer();
    // One that does not read holds up nobody.
    let still = watched.viewer();
    still.signal(Signal::STOP);

    watched.target.process.say("stuck");
    let pending = event(&viewer, "pending");
    let firing = event(&viewer, "firing");
    assert_eq!(pending["fingerprint"], firing["fingerprint"]);
    assert_eq!(
        event(&watched.agent, "firing")["fingerprint"],
        firing["fingerprint"],
        "sinks are told the same"
    );
    assert!(text(&firing["annotations"], "summary").contains("task stuck"), "{firing}");

    // Whoever comes later is shown that it stands.
    let late = watched.ask(&["alerts", "AGENT", "--for", "500ms", "--json"]).expect_code(1);
    let told = late.json_lines();
    assert_eq!(told.len(), 1, "{late}");
    assert_eq!((text(&told[0], "event"), &told[0]["starts_at"]), ("firing", &firing["starts_at"]));
    assert!(late.stderr.contains(&format!("1 alert fired ({RULE}), 0 are over")), "{late}");
    let words = watched.ask(&["alerts", "AGENT", "--for", "500ms"]).expect_code(1);
    assert!(words.stdout.contains(" FIRING   warning  TaskStuckInPoll: STUCK "), "{words}");
    assert!(words.stdout.trim_end().ends_with(".tskscop"), "it names its evidence: {words}");

    // It counted down.
    let evaluations = watched.ask(&["rules", "explain", RULE, "AGENT", "--json"]).expect_code(0).json_lines();
    let readings: Vec<&Value> = evaluations.iter().flat_map(|it| list(it, "readings")).collect();
    let counted: Vec<u64> = readings.iter().filter_map(|it| it["remaining_ns"].as_u64()).collect();
    assert!(
        !counted.is_empty() && counted.is_sorted_by(|a, b| a > b) && counted[0] <= 2_000_000_000,
        "{counted:?}"
    );
    let last = readings.last().expect("it fires");
    assert_eq!(text(last, "phase"), "firing", "{evaluations:?}");
    assert!(
        evaluations.iter().all(|it| text(it, "target") == "faults" && it["threshold"] == 0.5),
        "{evaluations:?}"
    );
    let words =
        watched.ask(&["rules", "explain", RULE, &format!("{}#faults", watched.address)]).expect_code(0);
    assert!(words.stdout.contains("faults, warning: from 500 ms on\n"), "{words}");
    assert!(words.stdout.contains("  pending ") && words.stdout.contains("fires in "), "{words}");

    watched.target.process.say("end");
    let resolved = event(&viewer, "resolved");
    assert_eq!(
        (&resolved["fingerprint"], &resolved["starts_at"]),
        (&firing["fingerprint"], &firing["starts_at"])
    );
    viewer.signal(Signal::INT);
    assert_eq!(viewer.wait(SOON).code(), Some(1), "{}", viewer.outputs());
    assert_eq!(events(&viewer), ["pending", "firing", "resolved"]);
    let quiet = watched.ask(&["alerts", "AGENT", "--for", "200ms"]).expect_code(0);
    assert!(quiet.stdout.is_empty() && quiet.stderr.contains("nothing fired"), "{quiet}");
    still.signal(Signal::CONT);
    event(&still, "resolved");
}

#[test]
fn a_silence_holds_an_alert_back_until_it_ends() {
    let (_guard, folder) = runtime_folder();
    let mut watched = Watched::start(&folder, &["--folder"]);
    let made = watched.ask(&[
        "silence",
        "AGENT",
        "alertname=TaskStuckInPoll",
        "service=~\"fau.*\"",
        "--for",
        "2h",
        "--comment",
        "deploy",
    ]);
    let made = made.expect_code(0);
    let id = made.stdout.trim().to_owned();
    watched.target.process.say("stuck");
    let viewer = watched.viewer();
    let firing = event(&viewer, "firing");
    assert_eq!(text(&firing["annotations"], "silenced"), "true", "{firing}");
    let words = watched.ask(&["alerts", "AGENT", "--for", "500ms"]).expect_code(1);
    assert!(words.stdout.contains("TaskStuckInPoll (silenced): STUCK "), "{words}");
    let held = eventually(SOON, || {
        let all = watched.ask(&["silence", "AGENT", "--json"]).expect_code(0).json_lines();
        if all.len() == 1 && all[0]["holds"] == 1 { Ok(all[0].clone()) } else { Err(format!("{all:?}")) }
    });
    assert_eq!(
        (text(&held, "id"), text(&held, "comment"), text(&held, "created_by")),
        (id.as_str(), "deploy", "ops")
    );
    let table = watched.ask(&["silence", "AGENT"]).expect_code(0);
    assert!(table.stdout.contains("alertname=\"TaskStuckInPoll\" service=~\"fau.*\"  deploy"), "{table}");
    assert!(table.stdout.contains("1h59m") && table.stdout.contains("  ops  "), "{table}");
    let explained = watched.ask(&["rules", "explain", RULE, "AGENT"]).expect_code(0);
    assert!(explained.stdout.contains("  silenced  "), "{explained}");
    // It has fired by now, and the sinks were told nothing of it.
    assert!(!events(&watched.agent).contains(&"firing".to_owned()), "{}", watched.agent.outputs());

    watched.ask(&["silence", "AGENT", "--end", &id]).expect_code(0);
    assert_eq!(event(&watched.agent, "firing")["fingerprint"], firing["fingerprint"]);
    assert!(watched.ask(&["silence", "AGENT", "--json"]).expect_code(0).json_lines().is_empty());
    let again = watched.ask(&["silence", "AGENT", "--end", &id]).expect_code(2);
    assert!(again.stderr.contains("no such silence\nhint: "), "{again}");
}

#[test]
fn what_cannot_be_asked_is_answered_with_what_to_do() {
    let (_guard, folder) = runtime_folder();
    let watched = Watched::start(&folder, &["--folder"]);
    for (args, code, says) in [
        (&["silence", "AGENT", "alertname=A"][..], 64, "--for"),
        (
            &["silence", "AGENT", "alertname", "--for", "1h"],
            64,
            "hint: write it as in alertname=TaskSlowPoll",
        ),
        (&["silence", "AGENT", "alertname=A", "--for", "2"], 64, "hint: write a number and a unit"),
        (&["silence", "AGENT", "alertname=~(", "--for", "2h"], 2, "hint: "),
        (&["silence", "AGENT", "alertname=~.*", "--for", "2h"], 2, "would hold back every alert\nhint: "),
        (&["rules", "explain", "TaskStuckInPol", "AGENT"], 64, "hint: did you mean `TaskStuckInPoll`?"),
        (&["alerts", "AGENT", "--config", "/dev/null"], 2, "has its own configuration\nhint: "),
    ] {
        let answer = watched.ask(args).expect_code(code);
        assert!(answer.stderr.contains(says), "{args:?}: {answer}");
    }
    let near =
        watched.ask(&["rules", "explain", RULE, &format!("{}#faulst", watched.address)]).expect_code(2);
    assert!(near.stderr.contains("no target `faulst`\nhint: did you mean `faults`?"), "{near}");
    // A probe has no silences.
    let probe = watched.target.address.clone();
    let answer = watched.ask(&["silence", &probe]).expect_code(2);
    assert!(answer.stderr.contains("is no agent\nhint: "), "{answer}");
}

#[test]
fn the_service_of_an_agent_answers_others_than_our_own_program() {
    let (_guard, folder) = runtime_folder();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let listen = format!("http://127.0.0.1:{port}");
    let mut watched = Watched::start(&folder, &["--folder", "--listen", &listen]);
    watched.target.process.say("stuck");
    event(&watched.agent, "firing");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(listen).expect("the address is one");
        let mut client = AlertsClient::new(endpoint.connect().await.expect("it listens"));
        let once = |target: &str| WatchAlertsRequest { target: target.to_owned(), once: true };
        for target in ["", "faults"] {
            let mut stream = client.watch_alerts(once(target)).await.expect("it is served").into_inner();
            let first = stream.message().await.expect("it is sent").and_then(|it| it.alert);
            assert_eq!(first.map(|alert| alert.labels["alertname"].clone()).as_deref(), Some(RULE));
            assert!(stream.message().await.expect("it ends in order").is_none());
        }
        let unknown = client.watch_alerts(once("fault")).await.expect_err("there is none");
        assert_eq!(unknown.code(), Code::NotFound);
        assert!(unknown.message().contains("hint: did you mean `faults`?"), "{unknown}");
        // A silence ends.
        let matchers =
            vec![LabelMatcher { name: "alertname".into(), value: "A".into(), ..Default::default() }];
        let refused = client.silence(SilenceRequest { matchers, ..Default::default() }).await;
        let refused = refused.expect_err("it has no end");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("a silence ends"), "{refused}");
    });
}
