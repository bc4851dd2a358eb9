//! One run of one program: in an environment and a folder of its own, ended if it takes too long, its figures read.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

/// A run lasts a second or two, and under callgrind some ten; beyond this something hangs.
const LIMIT: Duration = Duration::from_secs(180);

/// What a program printed: `name value` lines.
pub(crate) type Printed = BTreeMap<String, f64>;

/// A folder that ends with the run: sockets, traces and profiles go there.
pub(crate) fn folder() -> anyhow::Result<TempDir> {
    tempfile::Builder::new().prefix("taskscope-bench-").tempdir().context("no temporary folder can be made")
}

/// Runs `command` with nothing of the caller's environment but PATH: neither settings of the probe's nor of its peers'
/// reach it, and its stack begins at the same place whoever calls. What it says is shown only if it fails.
pub(crate) fn printed(command: &mut Command, folder: &Path) -> anyhow::Result<Printed> {
    let said = folder.join("said");
    let told = folder.join("told");
    let file = |path: &Path| File::create(path).with_context(|| format!("cannot make {}", path.display()));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TMPDIR", folder)
        .env("TASKSCOPE_LISTEN", format!("unix:{}", folder.join("probe.sock").display()))
        .stdin(Stdio::null())
        .stdout(file(&told)?)
        .stderr(file(&said)?);
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let began = now();
    let ended = loop {
        if let Some(status) = child.try_wait().context("cannot wait for a run")? {
            break status.to_string();
        }
        if began.elapsed() > LIMIT {
            child.kill().context("cannot end a run")?;
            child.wait().context("cannot wait for a run")?;
            break format!("no end after {LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let told = std::fs::read_to_string(&told).context("cannot read what a run printed")?;
    let figures = figures(&told);
    if ended != "exit status: 0" || figures.is_empty() {
        let said = std::fs::read_to_string(&said).unwrap_or_default();
        bail!("{command:?}: {ended}\n{told}{said}");
    }
    Ok(figures)
}

fn figures(text: &str) -> Printed {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

#[allow(clippy::disallowed_methods, reason = "the chores are a driver")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_what_has_a_name_and_a_number() {
        let read = figures("yield_ns 38.25\nunits 64000\nsome words\n\nalone\n");
        assert_eq!(read, Printed::from([("yield_ns".to_owned(), 38.25), ("units".to_owned(), 64000.0)]));
    }

    #[test]
    fn a_run_that_fails_says_what_it_said() {
        let folder = folder().expect("a folder can be made");
        let mut command = Command::new("sh");
        command.args(["-c", "echo a 1; echo broken >&2; exit 3"]);
        let error = printed(&mut command, folder.path()).expect_err("it failed").to_string();
        assert!(error.contains("exit status: 3") && error.contains("broken"), "{error}");
    }
}
