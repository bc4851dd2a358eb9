//! The configuration of `taskscope agent` is changed while it runs: what goes on goes on untold, what ends is told, and a file with
//! anything wrong changes nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use taskscope_tests::agent::Agent;
use taskscope_tests::eventually;
use taskscope_tests::eventually::always;
use taskscope_tests::headless::only;
use taskscope_tests::process::Process;
use taskscope_tests::receiver::Receiver;
use taskscope_tests::target::Target;

const SOON: Duration = Duration::from_secs(20);

struct Running {
    process: Process,
    /// Of its viewers.
    address: String,
    /// `HOST:PORT` of its metrics.
    metrics: String,
}

impl Running {
    fn start(folder: &Path, config: &Path) -> Self {
        Self::with(folder, config, &[])
    }

    fn with(folder: &Path, config: &Path, variables: &[(&str, &str)]) -> Self {
        let config = config.to_string_lossy();
        let args = ["agent", "--metrics", "127.0.0.1:0", "--config", &config];
        let agent = Agent::with(args).in_runtime_folder(folder);
        let process = variables.iter().fold(agent, |agent, (name, value)| agent.env(name, value)).start();
        let said = |start: &str| {
            process.stderr.wait_for(SOON, 0, |line| line.strip_prefix(start).map(str::to_owned))
        };
        let address = said("taskscope: listening on ");
        let metrics = said("taskscope: metrics at http://").trim_end_matches("/metrics").to_owned();
        Self { process, address, metrics }
    }

    /// Waits until it has said this `count` times on standard error, and asserts that it was not more.
    #[track_caller]
    fn said(&self, what: &str, count: usize) {
        eventually(SOON, || {
            let times = self.process.stderr.lines().iter().filter(|line| line.contains(what)).count();
            assert!(times <= count, "said too often: {what}\n{}", self.process.outputs());
            if times == count { Ok(()) } else { Err(format!("not said: {what}\n{}", self.process.outputs())) }
        });
    }

    #[track_caller]
    fn metric(&self, name: &str) -> f64 {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&self.metrics).expect("it listens");
        write!(stream, "GET /metrics HTTP/1.0\r\nhost: x\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let line = answer.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{answer}"))
    }

    /// The addresses of its targets.
    fn targets(&self) -> Vec<String> {
        let rows = Agent::with(["ls", &self.address, "--json"]).run().expect_code(0).json_lines();
        // What `ls` shows is how a viewer reaches them: AGENT#TARGET.
        let own = |row: &serde_json::Value| row["address"].as_str()?.rsplit('#').next().map(str::to_owned);
        rows.iter().filter_map(own).collect()
    }
}

fn target(name: &str) -> Target {
    let target = Target::program("target-faults").env("TASKSCOPE_NAME", name).start();
    target.said("ready");
    target
}

/// What is common to all of a test's files.
fn head(targets: &[&Target]) -> String {
    let addresses: Vec<String> = targets.iter().map(|target| format!("\"{}\"", target.address)).collect();
    format!("[targets]\nfixed = [{}]\n", addresses.join(", "))
}

fn webhook(name: &str, receiver: &Receiver) -> String {
    format!("[[sinks]]\ntype = \"webhook\"\nname = \"{name}\"\nurl = \"{}\"\n", receiver.url)
}

const STUCK: &str = "[rules.TaskStuckInPoll.warning]\nthreshold = \"1s\"\n[rules.TaskStuckInPoll.critical]\nenabled = false\n";

#[test]
fn what_fires_goes_on_and_what_is_switched_off_is_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.toml");
    let (old, new) = (Receiver::open(), Receiver::open());
    let (mut one, two) = (target("one"), target("two"));
    let before = [head(&[&one]), STUCK.to_owned(), webhook("old", &old)].concat();
    fs::write(&file, &before).expect("it is written");
    let agent = Running::start(folder.path(), &file);
    one.process.say("stuck");
    eventually(SOON, || match old.told("TaskStuckInPoll") {
        told if told == ["firing"] => Ok(()),
        told => Err(format!("{told:?}\n{}", agent.process.outputs())),
    });
    let good_at = agent.metric("taskscope_config_last_reload_success_timestamp_seconds ");
    assert!(good_at > 1.7e9, "{good_at}");

    // Wrong: told once, with its place, and nothing changes.
    fs::write(&file, format!("{before}\n[rules.TaskLeek]\n")).expect("it is written");
    let place = before.lines().count() + 2;
    agent.said(&format!("{}:{place}:8: no rule is called `TaskLeek`", file.display()), 1);
    eventually(SOON, || match agent.metric("taskscope_config_last_reload_successful ") {
        0.0 => Ok(()),
        other => Err(format!("{other}")),
    });
    assert_eq!(agent.metric("taskscope_config_last_reload_success_timestamp_seconds "), good_at);
    always(Duration::from_secs(3), || match old.told("TaskStuckInPoll") {
        told if told == ["firing"] => Ok(()),
        told => Err(format!("{told:?}")),
    });
    agent.said("no rule is called `TaskLeek`", 1);

    // Right: other thresholds, a label's worth of what cannot change, one more target, one more sink.
    let more =
        "[rules.TaskSlowPoll]\nmin_count = 7\n[agent]\nmetrics = \"127.0.0.1:1\"\nstate = \"/nowhere\"\n";
    let after = [&head(&[&one, &two]), STUCK, more, &webhook("new", &new), &webhook("old", &old)].concat();
    fs::write(&file, after.replace("\"1s\"", "\"1500ms\"")).expect("it is written");
    agent.said("TaskSlowPoll, TaskStuckInPoll, targets, sink new changed", 1);
    agent.said("`agent.state` has changed", 1);
    // The flag is before the file: what the file says of it changes nothing.
    agent.said("`agent.metrics` has changed", 0);
    eventually(SOON, || match new.told("TaskStuckInPoll") {
        told if told == ["firing"] => Ok(()),
        told => Err(format!("{told:?}\n{}", agent.process.outputs())),
    });
    let mut addresses = [one.address.clone(), two.address.clone()];
    addresses.sort();
    let watches = |wanted: &[String]| {
        eventually(SOON, || {
            let mut seen = agent.targets();
            seen.sort();
            if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    };
    watches(&addresses);
    assert!((agent.metric("taskscope_config_last_reload_successful ") - 1.0).abs() < f64::EPSILON);
    assert!(agent.metric("taskscope_config_last_reload_success_timestamp_seconds ") > good_at);
    assert_eq!(old.told("TaskStuckInPoll"), ["firing"], "it was told, and is not told again");

    // Asked for, and nothing is different.
    agent.process.signal(Signal::HUP);
    agent.said("nothing in it that can change has", 1);

    // The rule goes: it is over, as it began.
    fs::write(&file, after.replace("warning]\nthreshold = \"1s\"", "warning]\nenabled = false"))
        .expect("it is written");
    for receiver in [&old, &new] {
        eventually(SOON, || match receiver.told("TaskStuckInPoll") {
            told if told == ["firing", "resolved"] => Ok(()),
            told => Err(format!("{told:?}\n{}", agent.process.outputs())),
        });
        let alerts = receiver.alerts("TaskStuckInPoll");
        for key in ["fingerprint", "startsAt", "labels"] {
            assert_eq!(alerts[0][key], alerts[1][key], "another {key}");
        }
    }
    one.process.say("end");

    // A target that is not named any more is forgotten, and nobody is told that it is lost.
    fs::write(&file, [head(&[&two]), webhook("old", &old)].concat()).expect("it is written");
    watches(std::slice::from_ref(&two.address));
    assert_eq!(old.told("TargetLost"), Vec::<String>::new());
    agent.process.signal(Signal::TERM);
}

#[test]
fn a_hangup_reads_the_file_at_once_and_what_is_wrong_is_said_each_time() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("agent.toml");
    let receiver = Receiver::open();
    let (mut one, mut two) = (target("one"), target("two"));
    let of = |settings: &str| {
        [head(&[&one, &two]), only("TaskStuckInPoll", settings), webhook("hook", &receiver)].concat()
    };
    let before = of(
        "keep_firing_for = '0s'\ncritical = { enabled = false }\nwarning = { threshold = '500ms' }\nmatch = { service = 'one' }",
    );
    let after =
        of("keep_firing_for = '0s'\ncritical = { enabled = false }\nwarning = { threshold = '700ms' }");
    fs::write(&file, &before).expect("it is written");
    let agent = Running::start(folder.path(), &file);
    let about = |service: &str| -> Vec<serde_json::Value> {
        let all = receiver.alerts("TaskStuckInPoll");
        all.into_iter().filter(|alert| alert["labels"]["service"] == service).collect()
    };
    let told = |service: &str, wanted: &[&str]| match about(service) {
        all if all.iter().map(|alert| &alert["status"]).eq(wanted) => Ok(()),
        all => Err(format!("{all:?}\n{}", agent.process.outputs())),
    };
    one.process.say("stuck");
    two.process.say("stuck");
    eventually(SOON, || told("one", &["firing"]));

    // Wrong: whoever asks is told, as often as they ask, and nothing changes.
    fs::write(&file, after.replace("'700ms'", "700")).expect("it is written");
    let line = after.lines().position(|line| line.contains("700ms")).expect("it is there") + 1;
    let place = format!("{}:{line}:25: ", file.display());
    for asked in 1..=3 {
        agent.process.signal(Signal::HUP);
        agent.said(&place, asked);
    }
    agent.said("what was configured before goes on, for this is wrong:", 3);
    always(Duration::from_secs(2), || told("one", &["firing"]).and_then(|()| told("two", &[])));

    // Right: the rule is about the other service, too, and the alert that fires is the same one.
    fs::write(&file, &after).expect("it is written");
    agent.process.signal(Signal::HUP);
    agent.said("TaskStuckInPoll changed", 1);
    eventually(SOON, || told("two", &["firing"]));
    one.process.say("end");
    two.process.say("end");
    for service in ["one", "two"] {
        eventually(SOON, || told(service, &["firing", "resolved"]));
        let all = about(service);
        for key in ["fingerprint", "labels", "startsAt"] {
            assert_eq!(all[0][key], all[1][key], "another {key}");
        }
    }
}

#[test]
fn a_config_map_that_is_swapped_is_read_and_a_file_that_goes_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for (version, label) in [("..1", "blue"), ("..2", "green")] {
        fs::create_dir(at(version)).expect("it can be made");
        fs::write(at(version).join("agent.toml"), format!("[agent.labels]\ncolour = \"{label}\"\n"))
            .expect("it is written");
    }
    symlink("..1", at("..data")).expect("a link can be made");
    symlink("..data/agent.toml", at("agent.toml")).expect("a link can be made");
    let mut agent = Running::start(folder.path(), &at("agent.toml"));
    symlink("..2", at("..next")).expect("a link can be made");
    fs::rename(at("..next"), at("..data")).expect("it is swapped");
    agent.said("again: labels changed", 1);
    fs::remove_file(at("..data")).expect("it is there");
    agent.said("cannot read the configuration", 1);
    symlink("..1", at("..data")).expect("a link can be made");
    agent.said("again: labels changed", 2);
    agent.process.signal(Signal::TERM);
    assert!(agent.process.wait(SOON).success(), "{}", agent.process.outputs());
}

#[test]
fn a_sink_that_cannot_be_made_changes_nothing_and_going_back_is_no_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.toml");
    let of = |colour: &str, url: &str| {
        let sink = format!("[[sinks]]\ntype = \"webhook\"\nurl = \"{url}\"\n");
        format!("[agent.labels]\ncolour = \"{colour}\"\n{sink}")
    };
    let good = of("blue", "http://127.0.0.1:1/");
    fs::write(&file, &good).expect("it is written");
    // Without certificates there is no way to speak TLS.
    let nowhere = [("SSL_CERT_FILE", "/nowhere/ca.pem"), ("SSL_CERT_DIR", "/nowhere")];
    let mut agent = Running::with(folder.path(), &file, &nowhere);
    fs::write(&file, of("green", "https://127.0.0.1:1/")).expect("it is written");
    agent.said("the sink \"webhook\": no HTTP client can be made", 1);
    let is_good = |wanted: f64| {
        eventually(SOON, || match agent.metric("taskscope_config_last_reload_successful ") {
            is_good if (is_good - wanted).abs() < f64::EPSILON => Ok(()),
            other => Err(format!("{other}")),
        });
    };
    is_good(0.0);
    fs::write(&file, &good).expect("it is written");
    agent.said("nothing in it that can change has", 1);
    is_good(1.0);
    // Mended instead, it is taken as a whole.
    fs::write(&file, of("green", "https://127.0.0.1:1/x")).expect("it is written");
    agent.said("the sink \"webhook\": no HTTP client can be made", 2);
    fs::write(&file, of("green", "http://127.0.0.1:1/x")).expect("it is written");
    agent.said("again: labels, sink webhook changed", 1);
    agent.process.signal(Signal::TERM);
    assert!(agent.process.wait(SOON).success(), "{}", agent.process.outputs());
}

#[test]
fn without_a_file_a_hangup_ends_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let agent = Agent::with(["agent", "--metrics", "off"]).in_runtime_folder(folder.path());
    let mut process = agent.start();
    process.stderr.wait_for(SOON, 0, |line| line.contains("listening on").then_some(()));
    process.signal(Signal::HUP);
    process.stderr.wait_for(SOON, 0, |line| line.contains("no configuration file").then_some(()));
    process.signal(Signal::TERM);
    assert!(process.wait(SOON).success(), "{}", process.outputs());
}
