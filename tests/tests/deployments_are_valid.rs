//! What `deploy/` offers is taken by what it is for: Kubernetes' schemas, systemd, Prometheus, and `taskscope` itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use taskscope_tests::agent::Agent;
use taskscope_tests::{Build, peer, root};

fn file(name: &str) -> PathBuf {
    root().join("deploy").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).expect("it can be read")
}

/// A copy with something else in it.
fn changed(folder: &Path, name: &str, from: &str, to: &str) -> PathBuf {
    let before = text(name);
    assert!(before.contains(from), "{name} says `{from}`");
    let copy = folder.join(Path::new(name).file_name().expect("it has a name"));
    std::fs::write(&copy, before.replacen(from, to, 1)).expect("it can be written");
    copy
}

#[track_caller]
fn run(program: &str, args: &[&str], file: &Path) -> Output {
    Command::new(program).args(args).arg(file).output().expect("it can be started")
}

#[test]
fn the_pod_is_one_that_kubernetes_takes() {
    if !peer("kubernetes-validate") {
        return;
    }
    let check = |file: &Path| run("kubernetes-validate", &["--strict"], file);
    let answer = check(&file("pod.yaml"));
    assert!(answer.status.success(), "{answer:?}");
    // It would say so if it were none.
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = check(&changed(folder.path(), "pod.yaml", "restartPolicy:", "restartPolici:"));
    assert!(!wrong.status.success(), "{wrong:?}");
}

#[test]
fn the_agent_takes_the_configuration_of_the_pod() {
    let pod = text("pod.yaml");
    let lines = pod.lines().skip_while(|line| !line.contains("agent.toml: |")).skip(1);
    let config: String = lines
        .take_while(|line| line.is_empty() || line.starts_with("    "))
        .map(|line| format!("{}\n", line.trim_start()))
        .collect();
    assert!(config.contains("[targets]"), "{config}");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, config).expect("it can be written");
    Agent::with(["rules", "check", &file.display().to_string()]).run().expect_code(0);
}

#[test]
fn the_agent_takes_the_configuration_of_the_unit_with_each_line_that_it_offers() {
    let read = text("systemd/agent.toml");
    let unit = text("systemd/taskscope-agent.service");
    assert!(unit.contains("Environment=TASKSCOPE_CONFIG=/etc/taskscope/agent.toml"), "{unit}");
    assert!(
        unit.contains("agent.toml /etc/taskscope/agent.toml"),
        "its instructions put the file there: {unit}"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let offered = read.replace("# [[", "[[").replace("# type", "type").replace("# url", "url");
    assert_ne!(offered, read);
    for (name, config) in [("as-it-is.toml", &read), ("offered.toml", &offered)] {
        let file = folder.path().join(name);
        std::fs::write(&file, config).expect("it can be written");
        Agent::with(["rules", "check", &file.display().to_string()]).run().expect_code(0);
    }
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    if !peer("systemd-analyze") {
        return;
    }
    // It wants the program to be there.
    let program = Build::Hooks.program("taskscope").display().to_string();
    let check = |file: &Path| run("systemd-analyze", &["verify"], file);
    let folder = tempfile::tempdir().expect("a folder");
    let name = "systemd/taskscope-agent.service";
    let unit = changed(folder.path(), name, "/usr/local/bin/taskscope", &program);
    let answer = check(&unit);
    assert!(answer.status.success() && answer.stderr.is_empty(), "{answer:?}");
    // An unknown key is only complained about.
    let before = std::fs::read_to_string(&unit).expect("it can be read");
    std::fs::write(&unit, before.replacen("RestartSec=", "RestartSek=", 1)).expect("it can be written");
    let wrong = check(&unit);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("RestartSek"), "{wrong:?}");
}

#[test]
fn the_rules_are_ones_that_prometheus_takes() {
    if !peer("promtool") {
        return;
    }
    let check = |file: &Path| run("promtool", &["check", "rules"], file);
    let answer = check(&file("prometheus/rules.yaml"));
    assert!(answer.status.success(), "{answer:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = check(&changed(folder.path(), "prometheus/rules.yaml", "rate(", "rat("));
    assert!(!wrong.status.success(), "{wrong:?}");
}
