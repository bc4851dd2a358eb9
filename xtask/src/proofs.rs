//! Proofs about the probe: the registry's scenarios under loom, unsafe code under Miri, and very many signals under load. And those
//! of the agent's own tests that hold promises.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::absences::UNSAFE;
use crate::cargo::{Flags, cargo, target_folder};
use crate::test::{Size, ends_well};

/// How often a thread is stopped in the middle at most, beside where it ends.
fn preemptions(size: Size) -> &'static str {
    match size {
        Size::Small => "2",
        Size::Full => "3",
    }
}

/// The scenarios of probe/src/registry/model.rs, each in every order and with every stale value.
pub(crate) fn loom(root: &Path, size: Size) -> anyhow::Result<Command> {
    let mut command = cargo(root, Flags::Loom);
    command
        .args(["test", "--package", "taskscope-probe", "--test", "model", "--release", "--locked"])
        .arg("--target-dir")
        .arg(target_folder(root, Flags::Loom)?)
        .env("LOOM_MAX_PREEMPTIONS", preemptions(size));
    Ok(command)
}

/// The stacks taken under load, at full size.
const STACKS: &str = "100000";

/// The tests of the signal that takes stacks, with [`STACKS`] of them.
pub(crate) fn stacks(root: &Path) -> Command {
    let mut command = cargo(root, Flags::Hooks);
    command
        .args(["test", "--package", "taskscope-probe", "--lib", "--release", "--locked"])
        .args(["--", "stacks::taker"])
        .env("TASKSCOPE_STACK_SAMPLES", STACKS);
    command
}

/// Where the agent's own tests hold what is promised of its alerts: their life in any order of what can happen, an idle night,
/// receivers that misbehave, a disk that is full.
pub(crate) const AGENT: [&str; 4] = ["alerts::life::", "alerts::watcher::", "sinks::", "store::"];

/// Those tests, of the builds that the other tests were made with.
pub(crate) fn agent(root: &Path) -> Command {
    let mut command = cargo(root, Flags::Hooks);
    // With --workspace for the same features.
    command.args(["test", "--workspace", "--bin", "taskscope", "--release", "--locked"]);
    command.arg("--").args(AGENT);
    command
}

/// A nightly toolchain with Miri.
pub(crate) struct Miri {
    /// Where rustup looks for it, if not at the user's.
    home: Option<PathBuf>,
}

/// What else runs under Miri: tests that use the unsafe code from many threads, and in any order.
const ALSO: [&str; 2] = ["registry::stress", "capture::books"];

impl Miri {
    /// The user's own, or one in a folder beside the builds, which is installed if it is not there yet. What keeps it from
    /// being had is an answer, not an error.
    pub(crate) fn prepare(root: &Path) -> anyhow::Result<Result<Self, String>> {
        let own = Self { home: None };
        if own.works() {
            return Ok(Ok(own));
        }
        let miri = Self { home: Some(target_folder(root, Flags::Hooks)?.join("rustup")) };
        if miri.works() {
            return Ok(Ok(miri));
        }
        let mut install = miri.rustup();
        install.args(["toolchain", "install", "nightly", "--profile", "minimal", "--no-self-update"]);
        install.args(["--component", "miri", "--component", "rust-src"]);
        // Its progress is words, not data.
        install.stdout(std::io::stderr());
        match ends_well(&mut install) {
            Ok(true) if miri.works() => Ok(Ok(miri)),
            Ok(_) => Ok(Err("rustup cannot install a nightly toolchain with it".to_owned())),
            Err(error) => Ok(Err(format!("{error:#}"))),
        }
    }

    fn rustup(&self) -> Command {
        let mut command = Command::new("rustup");
        if let Some(home) = &self.home {
            command.env("RUSTUP_HOME", home);
        }
        // What runs this names its own cargo there.
        for of_the_caller in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"] {
            command.env_remove(of_the_caller);
        }
        command
    }

    fn works(&self) -> bool {
        let mut ask = self.rustup();
        ask.args(["run", "nightly", "cargo", "miri", "--version"]);
        ask.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        ask.status().is_ok_and(|status| status.success())
    }

    /// The unit tests of the probe's files with unsafe code, and [`ALSO`].
    pub(crate) fn tests(&self, root: &Path) -> anyhow::Result<Command> {
        let mut command = self.rustup();
        command
            .current_dir(root)
            .args([
                "run",
                "nightly",
                "cargo",
                "miri",
                "test",
                "--package",
                "taskscope-probe",
                "--lib",
                "--locked",
            ])
            .arg("--target-dir")
            .arg(target_folder(root, Flags::Hooks)?.join("miri"))
            .arg("--")
            .args(UNSAFE.iter().filter_map(|file| module(file)))
            .args(ALSO)
            .env("CARGO_ENCODED_RUSTFLAGS", "--cfg\u{1f}tokio_unstable")
            // The registry's memory is never given back, so that a late store is harmless.
            .env("MIRIFLAGS", "-Zmiri-ignore-leaks");
        if let Some(home) = &self.home {
            // Miri builds its own standard library, unless it is told where one is; beside the toolchain that it is of.
            command.env("XDG_CACHE_HOME", home);
        }
        Ok(command)
    }
}

/// `registry::index` of `probe/src/registry/index.rs`.
fn module(file: &str) -> Option<String> {
    let inside = file.strip_prefix("probe/src/")?.strip_suffix(".rs")?;
    Some(inside.replace('/', "::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_probe_is_a_module_to_test() {
        assert_eq!(module("probe/src/registry/index.rs").as_deref(), Some("registry::index"));
        assert_eq!(module("tests/src/process.rs"), None);
    }

    #[test]
    fn each_part_of_the_agent_that_is_named_has_tests() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/src");
        for part in AGENT {
            let path = part.strip_suffix("::").expect("a module").replace("::", "/");
            let in_file =
                |file: &Path| std::fs::read_to_string(file).is_ok_and(|text| text.contains("#[test]"));
            let files = std::fs::read_dir(sources.join(&path)).into_iter().flatten().flatten();
            let mut files = files.map(|file| file.path()).chain([sources.join(format!("{path}.rs"))]);
            assert!(files.any(|file| in_file(&file)), "{part}");
        }
    }

    #[test]
    fn a_toolchain_that_is_not_there_does_not_work() {
        let nowhere = tempfile::tempdir().expect("a folder");
        assert!(!Miri { home: Some(nowhere.path().to_path_buf()) }.works());
    }
}
