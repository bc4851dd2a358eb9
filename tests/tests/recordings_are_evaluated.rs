//! A recording is evaluated as the target was while it was saved: the same alerts, at the recording's own time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use taskscope_tests::agent::{Agent, Answer};
use taskscope_tests::eventually;
use taskscope_tests::json::{self, text};
use taskscope_tests::target::{Target, runtime_folder};

fn evaluated(file: &Path) -> Answer {
    let (_guard, folder) = runtime_folder();
    let file = file.display().to_string();
    Agent::with(["alerts", &file, "--json"]).in_runtime_folder(&folder).run()
}

fn of_events<'a>(notices: &'a [Value], event: &str) -> Vec<&'a Value> {
    notices.iter().filter(|notice| text(notice, "event") == event).collect()
}

/// Seconds since midnight of `2026-11-21T14:03:12.123Z`.
fn seconds(time: &str) -> f64 {
    let (_, time) = time.trim_end_matches('Z').split_once('T').expect("it has a date");
    time.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().expect("it is a number"))
}

#[test]
fn a_stuck_poll_in_a_recording_fires_as_it_did_live() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut target = Target::program("target-faults").start();
    target.said("ready");
    let address = target.address.clone();
    let (_guard, runtime) = runtime_folder();
    let live = Agent::with(["alerts", &address, "--json"]).in_runtime_folder(&runtime).start();
    live.stderr
        .wait_for(Duration::from_secs(20), 0, |line| line.contains("settings of rules watch").then_some(()));
    let file = folder.path().join("now.tskscop");
    let mut save = Agent::with(["save", &address, &file.display().to_string(), "--for", "8s"]).start();
    // Its first frames are there.
    eventually(Duration::from_secs(7), || match file.metadata().map(|it| it.len()) {
        Ok(len) if len > 0 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    target.process.say("stuck");
    assert!(save.wait(Duration::from_secs(30)).success(), "{}", save.outputs());
    target.process.say("end");

    let answer = evaluated(&file).expect_code(1);
    let notices = answer.json_lines();
    let firing = of_events(&notices, "firing");
    let lived = json::lines(&live.stdout.text());
    let lived = of_events(&lived, "firing");
    let is_stuck = |notice: &&&Value| text(notice, "alertname") == "TaskStuckInPoll";
    let told: Vec<_> = firing.iter().filter(is_stuck).collect();
    let before: Vec<_> = lived.iter().filter(is_stuck).collect();
    assert_eq!((told.len(), before.len()), (1, 1), "{answer}\nlive:\n{}", live.stdout.text());
    for key in ["labels", "fingerprint", "threshold"] {
        assert_eq!(told[0][key], before[0][key], "another {key}");
    }
    assert!(text(&told[0]["annotations"], "summary").starts_with("STUCK "), "{}", told[0]);
    // Both looked at it anew within half a second; the file was read seconds later.
    let apart = (seconds(text(told[0], "starts_at")) - seconds(text(before[0], "starts_at"))).abs();
    assert!(!(1.0..=86_399.0).contains(&apart), "{} and {}", told[0], before[0]);

    // Cut, it says what it has seen and that this was not all.
    let whole = std::fs::read(&file).expect("it was just written");
    std::fs::write(&file, &whole[..whole.len() - 3]).expect("it can be written");
    let answer = evaluated(&file).expect_code(1);
    assert!(answer.stderr.contains("is cut off after "), "{answer}");
}

#[test]
fn a_healthy_recording_fires_nothing_and_a_cut_one_is_no_proof_of_health() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let target = Target::program("target-faults").start();
    target.said("ready");
    let file = folder.path().join("now.tskscop").display().to_string();
    Agent::with(["save", &target.address, &file, "--for", "3s"]).run().expect_code(0);
    let file = PathBuf::from(file);
    let answer = evaluated(&file).expect_code(0);
    assert!(answer.stdout.is_empty() && answer.stderr.contains("nothing fired; "), "{answer}");

    let whole = std::fs::read(&file).expect("it was just written");
    for (bytes, says) in [
        (whole.len() - 3, " frames: what came later is not known"),
        (20, "is damaged after 0 frames: it ends before its target is described"),
        (5, "is no recording of taskscope"),
        (0, "is no recording of taskscope"),
    ] {
        std::fs::write(&file, &whole[..bytes]).expect("it can be written");
        let answer = evaluated(&file).expect_code(2);
        assert!(answer.stderr.contains(says) && answer.stderr.contains("\nhint: "), "{answer}");
        assert!(answer.stdout.is_empty(), "{answer}");
    }
}
