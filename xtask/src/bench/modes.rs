//! The modes: packages under `bench/`, each a build of its own, because a peer's features of tokio would otherwise be in
//! all of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::ValueEnum;

use crate::cargo::{Flags, Profile, cargo, target_folder};
use crate::test::ends_well;

/// One way to watch a runtime, or none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Mode {
    Bare,
    ClockOnly,
    TaskscopeHooks,
    TaskscopeStacks,
    TaskscopeWrapper,
    TokioMetrics,
    Dial9,
    Dial9Spawn,
    ConsoleSubscriber,
}

impl Mode {
    pub(crate) const ALL: [Self; 9] = [
        Self::Bare,
        Self::ClockOnly,
        Self::TaskscopeHooks,
        Self::TaskscopeStacks,
        Self::TaskscopeWrapper,
        Self::TokioMetrics,
        Self::Dial9,
        Self::Dial9Spawn,
        Self::ConsoleSubscriber,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::ClockOnly => "clock-only",
            Self::TaskscopeHooks => "taskscope-hooks",
            Self::TaskscopeStacks => "taskscope-stacks",
            Self::TaskscopeWrapper => "taskscope-wrapper",
            Self::TokioMetrics => "tokio-metrics",
            Self::Dial9 => "dial9",
            Self::Dial9Spawn => "dial9-spawn",
            Self::ConsoleSubscriber => "console-subscriber",
        }
    }

    /// Its folder under `bench/`.
    fn package(self) -> &'static str {
        match self {
            Self::Dial9Spawn => Self::Dial9.name(),
            Self::TaskscopeStacks => Self::TaskscopeHooks.name(),
            other => other.name(),
        }
    }
}

/// The programs of all modes, built.
#[derive(Debug)]
pub(crate) struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Builds what `modes` need into one folder, `bench` inside the target folder.
    pub(crate) fn build(root: &Path, modes: &[Mode]) -> anyhow::Result<Self> {
        let target = target_folder(root, Flags::Hooks)?.join("bench");
        let mut packages: Vec<&str> = modes.iter().map(|mode| mode.package()).collect();
        packages.sort_unstable();
        packages.dedup();
        for package in packages {
            eprintln!("== build bench/{package}");
            let mut build = cargo(root, Flags::Hooks);
            build
                .args(["build", "--locked", "--bins"])
                .args(Profile::Release.args())
                .arg("--manifest-path")
                .arg(root.join("bench").join(package).join("Cargo.toml"))
                .arg("--target-dir")
                .arg(&target)
                // The caller's own would be another build.
                .env_remove("CARGO_TARGET_DIR");
            ensure!(
                ends_well(&mut build)?,
                "bench/{package} does not build\nhint: where its lock file is stale, run `cargo metadata \
                 --manifest-path bench/{package}/Cargo.toml >/dev/null` and commit what changed"
            );
        }
        Ok(Self { folder: target.join("release") })
    }

    pub(crate) fn of(&self, mode: Mode) -> PathBuf {
        self.folder.join(format!("bench-{}", mode.name()))
    }
}

/// That bare is bare: its tokio has none of the features that peers switch on. The version of that tokio.
pub(crate) fn check_bare(root: &Path) -> anyhow::Result<String> {
    let out = cargo(root, Flags::Hooks)
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p} {f}"])
        .arg("--manifest-path")
        .arg(root.join("bench/bare/Cargo.toml"))
        .output()
        .context("cargo tree does not start")?;
    ensure!(out.status.success(), "cargo tree failed: {}", String::from_utf8_lossy(&out.stderr).trim());
    let text = String::from_utf8(out.stdout).context("cargo tree printed no UTF-8")?;
    let tokio = text.lines().find_map(|line| line.strip_prefix("tokio v"));
    let tokio = tokio.context("bench/bare does not use tokio")?;
    for feature in ["tracing", "schedule-latency", "taskdump"] {
        ensure!(
            !tokio.split([' ', ',']).any(|has| has == feature),
            "bench/bare is not bare: tokio's feature `{feature}` is on in it"
        );
    }
    Ok(tokio.split(' ').next().unwrap_or(tokio).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_is_a_build_of_its_own_on_the_same_tokio() {
        let bench = crate::root().join("bench");
        let tokio = |package: &str| {
            let read =
                |file| std::fs::read_to_string(bench.join(package).join(file)).expect("it is committed");
            assert!(
                read("Cargo.toml").lines().any(|line| line == "[workspace]"),
                "{package} is in a workspace"
            );
            let lock = read("Cargo.lock");
            let tokio = lock.split("[[package]]").find(|entry| entry.contains("\nname = \"tokio\"\n"));
            tokio.expect("it uses tokio").to_owned()
        };
        let bare = tokio("bare");
        for mode in Mode::ALL {
            let version =
                |entry: &str| entry.lines().find(|line| line.starts_with("version")).map(str::to_owned);
            assert_eq!(version(&tokio(mode.package())), version(&bare), "{}", mode.name());
        }
    }

    #[test]
    fn the_command_line_calls_modes_what_they_are_called_everywhere() {
        for mode in Mode::ALL {
            assert_eq!(Mode::from_str(mode.name(), false), Ok(mode));
        }
    }
}
