//! A disk that takes nothing more is told once, costs nothing else, and is written to again when there is room.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use taskscope_tests::agent::Agent;
use taskscope_tests::eventually;
use taskscope_tests::eventually::always;
use taskscope_tests::process::Process;

const SOON: Duration = Duration::from_secs(30);

/// How large its files may be, in bytes: as a disk that is full, and has room again. Nothing of the machine is needed for it.
fn room(agent: &Process, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(agent.pid()).expect("it is one"));
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).expect("it is a child of ours");
}

fn kept(folder: &Path) -> Option<String> {
    std::fs::read_to_string(folder.join("state/alerts.json")).ok()
}

#[test]
fn what_fires_is_kept_as_soon_as_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.toml");
    let state = folder.path().join("state");
    // It always holds more than a hundredth of what it may: an alert without a target.
    let rules = "[rules.AgentDegraded]\nthreshold = 0.01\nwindow = '1s'\n";
    std::fs::write(&file, format!("[agent]\nmetrics = 'off'\nstate = '{}'\n{rules}", state.display()))
        .expect("it is written");
    // A program that ignores the signal gets an error instead: as it does where a disk is full.
    let agent = Agent::in_shell(
        "trap '' XFSZ; ulimit -S -f 0; exec \"$0\" \"$@\"",
        ["agent", "--config", &file.to_string_lossy()],
    );
    std::fs::write(folder.path().join("memory.max"), "67108864\n").expect("it is written");
    let agent = agent.env("TASKSCOPE_CGROUP_DIR", folder.path()).in_runtime_folder(folder.path()).start();
    let said = |what: &str| agent.stderr.lines().iter().filter(|line| line.contains(what)).count();
    let becomes = |what: &str| {
        eventually(SOON, || match said(what) {
            1 => Ok(()),
            _ => Err(agent.outputs()),
        });
    };
    becomes("alerts.json: File too large");
    eventually(SOON, || match agent.stdout.text().contains("\"AgentDegraded\"") {
        true => Ok(()),
        false => Err(agent.outputs()),
    });
    // It is tried again meanwhile, and not told again.
    always(Duration::from_secs(12), || match (said("File too large"), kept(folder.path())) {
        (1, None) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    room(&agent, None);
    becomes("can be written again");
    let kept = kept(folder.path()).expect("it was written");
    assert!(kept.contains("AgentDegraded"), "{kept}");
    agent.signal(Signal::TERM);
}
