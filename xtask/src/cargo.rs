//! Starts cargo with the flags of one of the project's builds, whatever RUSTFLAGS the caller has.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

/// How the target programs are compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flags {
    /// With `--cfg tokio_unstable`: Tokio's hooks exist.
    Hooks,
    /// As if a RUSTFLAGS of the user had replaced the project's: no hooks, and warnings are errors.
    Stable,
    /// The probe's registry with loom's atomics, and nothing else of the probe.
    Loom,
}

/// Optimised or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Profile {
    Dev,
    Release,
    /// As services are built whose panics abort.
    Abort,
}

impl Profile {
    /// What selects it on cargo's command line.
    pub(crate) fn args(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
            Self::Abort => &["--profile", "abort"],
        }
    }

    /// Its folder inside the target folder.
    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
            Self::Abort => "abort",
        }
    }
}

/// `cargo`, in the workspace's root. CARGO_ENCODED_RUSTFLAGS wins over RUSTFLAGS and over every config file, so the
/// result does not depend on the caller; for [`Flags::Hooks`] it is what .cargo/config.toml says, so nothing that a
/// plain `cargo build` made is built again.
pub(crate) fn cargo(root: &Path, flags: Flags) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).env_remove("RUSTFLAGS");
    match flags {
        Flags::Hooks => command
            .env("CARGO_ENCODED_RUSTFLAGS", "--cfg\u{1f}tokio_unstable")
            .env("RUSTDOCFLAGS", "--cfg tokio_unstable"),
        Flags::Stable => command.env("CARGO_ENCODED_RUSTFLAGS", "-Dwarnings").env_remove("RUSTDOCFLAGS"),
        Flags::Loom => command
            .env("CARGO_ENCODED_RUSTFLAGS", "--cfg\u{1f}taskscope_loom\u{1f}-Dwarnings")
            .env_remove("RUSTDOCFLAGS"),
    };
    command
}

/// The folder for builds: `target`, or the caller's CARGO_TARGET_DIR; other builds lie in folders inside it.
pub(crate) fn target_folder(root: &Path, flags: Flags) -> anyhow::Result<PathBuf> {
    let metadata = metadata(root)?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target folder")?;
    Ok(match flags {
        Flags::Hooks => PathBuf::from(target),
        Flags::Stable => Path::new(target).join("stable"),
        Flags::Loom => Path::new(target).join("loom"),
    })
}

/// Where a build with these flags puts its binaries.
pub(crate) fn binaries(root: &Path, flags: Flags, profile: Profile) -> anyhow::Result<PathBuf> {
    Ok(target_folder(root, flags)?.join(profile.folder()))
}

/// `cargo metadata` without dependencies.
pub(crate) fn metadata(root: &Path) -> anyhow::Result<Value> {
    let out = cargo(root, Flags::Hooks)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .stderr(Stdio::inherit())
        .output()
        .context("cargo metadata does not start")?;
    ensure!(out.status.success(), "cargo metadata failed: {}", out.status);
    serde_json::from_slice(&out.stdout).context("cargo metadata printed no JSON")
}

/// The packages that `package` needs at run time without any feature, itself included, as `name`.
pub(crate) fn dependency_tree(root: &Path, package: &str) -> anyhow::Result<Vec<String>> {
    let out = cargo(root, Flags::Hooks)
        .args(["tree", "--package", package, "--no-default-features", "--edges", "normal"])
        .args(["--target", "all", "--prefix", "none", "--format", "{p}"])
        .stderr(Stdio::inherit())
        .output()
        .context("cargo tree does not start")?;
    ensure!(out.status.success(), "cargo tree failed: {}", out.status);
    let text = String::from_utf8(out.stdout).context("cargo tree printed no UTF-8")?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}
