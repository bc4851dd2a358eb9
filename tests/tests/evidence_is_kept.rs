//! A firing alert keeps what the agent saw: a file that every command opens, named in the alert, small, and not too many of them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message;
use serde_json::Value;
use taskscope_proto::v1::{Description, Frame};
use taskscope_tests::agent::Agent;
use taskscope_tests::json::text;
use taskscope_tests::process::Process;
use taskscope_tests::screen::Screen;
use taskscope_tests::target::{Target, runtime_folder};
use taskscope_tests::{Build, eventually, evidence, peer};

const SOON: Duration = Duration::from_secs(20);
const RULE: &str = "TaskStuckInPoll";

/// An agent that watches the sockets of the folder and keeps its state below it.
fn agent(folder: &Path) -> Process {
    let file = folder.join("rules.toml");
    let config = format!(
        "[rules.{RULE}]\nthreshold = '500ms'\nkeep_firing_for = '0s'\n[rules.{RULE}.critical]\nenabled = false\n"
    );
    std::fs::write(&file, config).expect("it can be written");
    let file = file.display().to_string();
    let args = ["agent", "--metrics", "off", "--folder", "--config", file.as_str()];
    Agent::with(args).in_runtime_folder(folder).start()
}

/// The first such event of our rule from a line of standard output on.
#[track_caller]
fn event(agent: &Process, from: usize, name: &str) -> Value {
    agent.stdout.wait_for(SOON, from, |line| {
        let notice: Value = serde_json::from_str(line).ok()?;
        (text(&notice, "event") == name && text(&notice, "alertname") == RULE).then_some(notice)
    })
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("it is there").map_while(Result::ok);
    let mut names: Vec<String> = entries.map(|it| it.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The only frame of a recording.
fn frame(bytes: &[u8]) -> Frame {
    let mut rest = bytes.strip_prefix(b"tskscop1").expect("it is a recording");
    Description::decode_length_delimited(&mut rest).expect("its target is described");
    let frame = Frame::decode_length_delimited(&mut rest).expect("it has a frame");
    assert!(rest.is_empty(), "{} bytes are left", rest.len());
    frame
}

#[test]
fn what_was_seen_when_it_fired_can_be_opened_and_is_named_until_the_end() {
    let (_guard, folder) = runtime_folder();
    let kept = folder.join("taskscope/evidence");
    std::fs::create_dir_all(&kept).expect("it can be made");
    for number in 10..60 {
        let name = format!("202501{number}T000000.000Z-TaskLeak-00000000000000{number}.tskscop");
        std::fs::write(kept.join(name), "older").expect("it can be written");
    }
    let mut target =
        Target::program("target-faults").env("TASKSCOPE_STACKS", "on").in_runtime_folder(&folder).start();
    target.said("ready");
    let mut first = agent(&folder);
    // It has a past, which is kept, too.
    eventually(SOON, || {
        let old = Agent::with(["tasks", &target.address, "name~ticker age>3s", "--json"]).run().json_lines();
        if old.is_empty() { Err("no task is that old".to_owned()) } else { Ok(()) }
    });
    target.process.say("stuck");
    let firing = event(&first, 0, "firing");
    let path = PathBuf::from(text(&firing["annotations"], "evidence"));
    let id = text(&firing, "fingerprint");
    assert!(path.starts_with(&kept), "{firing}");
    assert!(path.to_string_lossy().ends_with(&format!("Z-{RULE}-{id}.tskscop")), "{firing}");
    let bytes = eventually(SOON, || std::fs::read(&path).map_err(|error| error.to_string()));
    assert!(bytes.len() <= 256 << 10, "{} bytes", bytes.len());
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    evidence("the evidence of a stuck poll", format!("{} bytes", bytes.len()));

    let file = path.display().to_string();
    let rows = Agent::with(["tasks", &file, "--json"]).run().expect_code(0).json_lines();
    let of = |name: &str, state: &str| {
        rows.iter().filter(|row| text(row, "name") == name && text(row, "state") == state).count()
    };
    assert_eq!(
        (of("stuck", "running"), rows.iter().filter(|row| text(row, "name") == "ticker").count()),
        (2, 4),
        "{rows:?}"
    );
    let why = Agent::with(["why", &file]).run().expect_code(1);
    assert!(why.stdout.starts_with("STUCK ") && why.stdout.contains("both in"), "{why}");
    let stacks = Agent::with(["stacks", &file]).run().expect_code(0);
    assert!(stacks.stdout.contains("target-faults.rs"), "{stacks}");
    let history = frame(&bytes).history.expect("the seconds before it");
    assert!(history.alive.len() >= 2 && history.alive.len() <= 60, "{history:?}");

    // 50 were there before it.
    let all = names(&kept);
    assert_eq!(all.len(), 50, "{all:?}");
    assert!(!all.iter().any(|name| name.starts_with("20250110")), "the oldest one is still there: {all:?}");

    // An agent that is killed knows it when it is started again, and names it with the end of the alert.
    let state = folder.join("taskscope/alerts.json");
    eventually(SOON, || match std::fs::read_to_string(&state) {
        Ok(text) if text.contains(&file) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    first.kill();
    let second = agent(&folder);
    let address = second
        .stderr
        .wait_for(SOON, 0, |line| line.strip_prefix("taskscope: listening on ").map(str::to_owned));
    eventually(SOON, || {
        let targets = Agent::with(["ls", &address, "--json"]).run().json_lines();
        if targets.iter().any(|it| text(it, "link") == "live") { Ok(()) } else { Err(format!("{targets:?}")) }
    });
    target.process.say("end");
    let resolved = event(&second, 0, "resolved");
    assert_eq!(resolved["fingerprint"], firing["fingerprint"]);
    assert_eq!(text(&resolved["annotations"], "evidence"), file);
    assert_eq!(names(&kept), all, "it was not taken twice");
}

#[test]
fn the_dashboard_opens_it() {
    if !peer("tmux") {
        return;
    }
    let (_guard, folder) = runtime_folder();
    let mut target = Target::program("target-faults").in_runtime_folder(&folder).start();
    target.said("ready");
    let agent = agent(&folder);
    target.process.say("stuck");
    let firing = event(&agent, 0, "firing");
    let path = text(&firing["annotations"], "evidence").to_owned();
    eventually(SOON, || if Path::new(&path).is_file() { Ok(()) } else { Err(agent.outputs()) });
    let screen = Screen::open(120, 30, &[("NO_COLOR", "1")]);
    screen.run(&format!("{} top {path}", Build::Hooks.program("taskscope").display()));
    screen.shows(SOON, |text| text.contains("STUCK "));
    screen.keys(&["t"]);
    screen.shows(SOON, |text| text.contains("stuck") && text.contains("ticker"));
    screen.keys(&["q"]);
}

#[test]
fn where_nothing_can_be_kept_the_alert_is_told_all_the_same_and_the_trouble_once() {
    let (_guard, folder) = runtime_folder();
    std::fs::create_dir_all(folder.join("taskscope")).expect("it can be made");
    std::fs::write(folder.join("taskscope/evidence"), "a file in its place").expect("it can be written");
    let mut target = Target::program("target-faults").in_runtime_folder(&folder).start();
    target.said("ready");
    let agent = agent(&folder);
    let complaints = || {
        let lines = agent.stderr.lines();
        lines.iter().filter(|line| line.contains("the evidence of alerts is not kept")).count()
    };
    let mut from = 0;
    for turn in 1..=2 {
        target.process.say("stuck");
        event(&agent, from, "firing");
        eventually(SOON, || if complaints() == 1 { Ok(()) } else { Err(agent.outputs()) });
        target.process.say("end");
        let resolved = event(&agent, from, "resolved");
        from = agent.stdout.count();
        if turn == 1 {
            assert_eq!(resolved["annotations"].get("evidence"), None, "{resolved}");
        }
    }
    // It failed twice.
    let failed = || agent.outputs().matches("there is no evidence").count();
    eventually(SOON, || if failed() == 2 { Ok(()) } else { Err(agent.outputs()) });
    assert_eq!(complaints(), 1, "{}", agent.outputs());
}
