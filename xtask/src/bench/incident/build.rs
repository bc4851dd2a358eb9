//! The programs of a run: the demo in three builds, and the tools, found or installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::tool::{Programs, Tool};
use crate::cargo::{Flags, Profile, binaries, cargo, target_folder};
use crate::evidence::said;
use crate::peers;
use crate::test::ends_well;

const TOKIO_CONSOLE: &str = "0.1.14";
const DEMO_CONSOLE: &str = "demo-console-subscriber";
const DEMO_DIAL9: &str = "demo-dial9";
/// dial9's samples of stacks follow frame pointers, as its documentation says to build for.
const FRAME_POINTERS: &str = "--cfg\u{1f}tokio_unstable\u{1f}-Cforce-frame-pointers=yes";

/// All that `tools` need, and which of them cannot run, with the reason.
pub(crate) fn programs(root: &Path, tools: &[Tool]) -> anyhow::Result<(Programs, Vec<(Tool, String)>)> {
    let without = peers::prepare_for_incidents();
    let lacks = |program: &str| without.iter().any(|peer| peer.program == program);
    ensure!(
        !lacks("tmux"),
        "there is no tmux, and every tool is used in its terminal\nhint: install tmux with your system's package manager"
    );
    let mut missing = Vec::new();
    for (tool, program) in [(Tool::Gdb, "gdb"), (Tool::Dial9, "node")] {
        if tools.contains(&tool) && lacks(program) {
            missing.push((tool, format!("there is no {program} here, and it could not be installed")));
        }
    }
    let runs = |tool: Tool| tools.contains(&tool) && missing.iter().all(|(missing, _)| *missing != tool);

    let target = target_folder(root, Flags::Hooks)?;
    let demos = target.join("bench");
    if runs(Tool::Taskscope) || runs(Tool::Gdb) {
        eprintln!("== build taskscope");
        let mut build = cargo(root, Flags::Hooks);
        build.args(["build", "-p", "taskscope", "--locked"]).args(Profile::Release.args());
        ensure!(ends_well(&mut build)?, "taskscope does not build");
    }
    if runs(Tool::TokioConsole) {
        build(root, DEMO_CONSOLE, &demos, &mut cargo(root, Flags::Hooks))?;
    }
    if runs(Tool::Dial9) {
        let mut build_command = cargo(root, Flags::Hooks);
        build_command.env("CARGO_ENCODED_RUSTFLAGS", FRAME_POINTERS);
        build(root, DEMO_DIAL9, &demos, &mut build_command)?;
    }
    let console = target.join("peers/bin/tokio-console");
    if runs(Tool::TokioConsole)
        && let Err(error) = tokio_console(root, &target.join("peers"), &console)
    {
        missing.push((Tool::TokioConsole, format!("{error:#}")));
    }
    let programs = Programs {
        taskscope: binaries(root, Flags::Hooks, Profile::Release)?.join("taskscope"),
        demo_console: demos.join("release").join(format!("bench-{DEMO_CONSOLE}")),
        tokio_console: console,
        demo_dial9: demos.join("release").join(format!("bench-{DEMO_DIAL9}")),
        dial9_toolkit: dial9_toolkit(root)?,
        own_files: own_files(root)?,
    };
    Ok((programs, missing))
}

fn build(root: &Path, package: &str, demos: &Path, command: &mut Command) -> anyhow::Result<()> {
    eprintln!("== build bench/{package}");
    command
        .args(["build", "--locked"])
        .args(Profile::Release.args())
        .arg("--manifest-path")
        .arg(manifest(root, package))
        .arg("--target-dir")
        .arg(demos)
        .env_remove("CARGO_TARGET_DIR");
    ensure!(
        ends_well(command)?,
        "bench/{package} does not build\nhint: where its lock file is stale, run `cargo metadata --manifest-path \
         bench/{package}/Cargo.toml >/dev/null` and commit what changed"
    );
    Ok(())
}

fn manifest(root: &Path, package: &str) -> PathBuf {
    root.join("bench").join(package).join("Cargo.toml")
}

/// Installs tokio-console into `folder` unless this version is there.
fn tokio_console(root: &Path, folder: &Path, program: &Path) -> anyhow::Result<()> {
    let is_there = program.exists()
        && said(Command::new(program).arg("--version")).is_ok_and(|said| said.ends_with(TOKIO_CONSOLE));
    if is_there {
        return Ok(());
    }
    eprintln!("== install tokio-console {TOKIO_CONSOLE}");
    let mut install = cargo(root, Flags::Hooks);
    install
        .args(["install", "tokio-console", "--version", TOKIO_CONSOLE, "--locked", "--force", "--root"])
        .arg(folder)
        .arg("--target-dir")
        .arg(folder.join("build"))
        .env_remove("CARGO_TARGET_DIR");
    ensure!(ends_well(&mut install)?, "`cargo install tokio-console` failed");
    Ok(())
}

/// The folder of `analyze.js` in the source of the dial9 that the demo is built with.
fn dial9_toolkit(root: &Path) -> anyhow::Result<PathBuf> {
    let out = cargo(root, Flags::Hooks)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(manifest(root, DEMO_DIAL9))
        .output()
        .context("cargo metadata does not start")?;
    ensure!(out.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&out.stderr).trim());
    let metadata: Value = serde_json::from_slice(&out.stdout).context("cargo metadata printed no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let dial9 =
        packages.iter().find(|package| package["name"] == "dial9").context("dial9 is not built in")?;
    let manifest = dial9["manifest_path"].as_str().context("dial9 has no manifest")?;
    let folder = Path::new(manifest).with_file_name("skills").join("dial9-toolkit/scripts");
    ensure!(folder.join("analyze.js").exists(), "{} has no analyze.js", folder.display());
    Ok(folder)
}

/// Names of the files in the demo's source.
fn own_files(root: &Path) -> anyhow::Result<Vec<String>> {
    let source = root.join("demo/src");
    let files = std::fs::read_dir(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let names = files.map(|file| Ok(file?.file_name().to_string_lossy().into_owned()));
    names.filter(|name| name.as_ref().map_or(true, |name: &String| name.ends_with(".rs"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demos_of_other_tools_are_builds_of_their_own_on_the_same_tokio() {
        let version = |lock: &Path| {
            let text = std::fs::read_to_string(lock).expect("it is committed");
            let tokio = text.split("[[package]]").find(|entry| entry.contains("\nname = \"tokio\"\n"));
            let lines = tokio.expect("it uses tokio").lines();
            lines.filter(|line| line.starts_with("version")).map(str::to_owned).next()
        };
        let root = crate::root();
        for package in [DEMO_CONSOLE, DEMO_DIAL9] {
            let manifest = std::fs::read_to_string(manifest(&root, package)).expect("it is committed");
            assert!(manifest.lines().any(|line| line == "[workspace]"), "{package} is in a workspace");
            let lock = root.join("bench").join(package).join("Cargo.lock");
            assert_eq!(version(&lock), version(&root.join("Cargo.lock")), "{package}");
        }
    }

    #[test]
    fn the_demos_own_files_are_those_with_the_guilty_lines() {
        let files = own_files(&crate::root()).expect("the demo is there");
        for file in ["storage.rs", "work.rs", "prices.rs", "audit.rs", "session.rs"] {
            assert!(files.iter().any(|own| own == file), "{file} is not among {files:?}");
        }
    }
}
