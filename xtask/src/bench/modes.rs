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
    TaskscopeWrapper,
}

impl Mode {
    pub(crate) const ALL: [Self; 4] =
        [Self::Bare, Self::ClockOnly, Self::TaskscopeHooks, Self::TaskscopeWrapper];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::ClockOnly => "clock-only",
            Self::TaskscopeHooks => "taskscope-hooks",
            Self::TaskscopeWrapper => "taskscope-wrapper",
        }
    }

    /// Its folder under `bench/`.
    pub(crate) fn package(self) -> &'static str {
        self.name()
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
            ensure!(ends_well(&mut build)?, "bench/{package} does not build");
        }
        Ok(Self { folder: target.join("release") })
    }

    pub(crate) fn of(&self, mode: Mode) -> PathBuf {
        self.folder.join(format!("bench-{}", mode.name()))
    }
}

/// That bare is bare: its tokio has none of the features that peers switch on.
pub(crate) fn check_bare(root: &Path) -> anyhow::Result<()> {
    let out = cargo(root, Flags::Hooks)
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p} {f}"])
        .arg("--manifest-path")
        .arg(root.join("bench/bare/Cargo.toml"))
        .output()
        .context("cargo tree does not start")?;
    ensure!(out.status.success(), "cargo tree failed: {}", String::from_utf8_lossy(&out.stderr).trim());
    let text = String::from_utf8(out.stdout).context("cargo tree printed no UTF-8")?;
    let tokio =
        text.lines().find(|line| line.starts_with("tokio v")).context("bench/bare does not use tokio")?;
    for feature in ["tracing", "schedule-latency", "taskdump"] {
        ensure!(
            !tokio.split([' ', ',']).any(|has| has == feature),
            "bench/bare is not bare: tokio's feature `{feature}` is on in it"
        );
    }
    Ok(())
}
