//! `cargo xtask test`: builds the binaries that tests start, then runs every test of the workspace.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Context;

use crate::cargo::{Flags, Profile, binaries, cargo, target_folder};
use crate::peers;
use crate::proofs::{self, Miri};
use crate::summary::{Reader, Summary};

/// The sizes at which the promises are tested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    Small,
    Full,
}

/// Everything at its small size, or only some files of `tests/tests`. True: all is well.
pub(crate) fn run(root: &Path, only: &[String]) -> anyhow::Result<bool> {
    let summary = tested(root, Profile::Dev, Size::Small, only)?;
    print!("{}", summary.table());
    let all_must_run = std::env::var_os("CI").is_some_and(|ci| !ci.is_empty() && ci != "false");
    Ok(summary.good(all_must_run))
}

/// Builds, runs, and reads what came out. The text of the tests' own report (`not run: …`, `evidence: …`) is beside the
/// builds, in `test-report.txt`.
pub(crate) fn tested(root: &Path, profile: Profile, size: Size, only: &[String]) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    let target = target_folder(root, Flags::Hooks)?;
    let peers = target.join("peers");
    let mut without = Vec::new();
    phase(&mut summary, "peers", || {
        without = peers::prepare(&peers);
        Ok(true)
    })?;
    for program in &without {
        summary.not_run.push(format!("whatever needs {program}"));
    }

    std::fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
    let report = target.join("test-report.txt");
    std::fs::write(&report, "").with_context(|| format!("cannot write {}", report.display()))?;

    let built = phase(&mut summary, "build with hooks", || {
        let mut build = cargo(root, Flags::Hooks);
        build.args(["build", "--workspace", "--bins", "--locked"]).args(profile.args());
        ends_well(&mut build)
    })? && phase(&mut summary, "build on stable Tokio", || {
        let mut build = cargo(root, Flags::Stable);
        build.args(["build", "-p", "taskscope", "-p", "taskscope-tests", "--bins", "--locked"]);
        build.args(profile.args()).arg("--target-dir").arg(target_folder(root, Flags::Stable)?);
        ends_well(&mut build)
    })? && phase(&mut summary, "build where panics abort", || {
        let mut build = cargo(root, Flags::Hooks);
        build.args(["build", "-p", "taskscope-probe", "--example", "aborting", "--locked"]);
        ends_well(build.args(Profile::Abort.args()))
    })?;
    // With --workspace although only some run: another selection of packages would unify features differently and
    // build everything again.
    let tests = || {
        let mut tests = cargo(root, Flags::Hooks);
        tests.args(["test", "--workspace", "--no-fail-fast", "--locked"]).args(profile.args());
        for file in only {
            tests.args(["--test", file]);
        }
        if only.is_empty() && size == Size::Full {
            tests.args(["--test", "*"]);
        }
        tests
    };
    let built = built && phase(&mut summary, "build tests", || ends_well(tests().arg("--no-run")))?;
    if !built {
        return Ok(summary);
    }

    let mut run = tests();
    run.env("TASKSCOPE_TEST_BIN", binaries(root, Flags::Hooks, profile)?)
        .env("TASKSCOPE_TEST_BIN_STABLE", binaries(root, Flags::Stable, profile)?)
        .env("TASKSCOPE_TEST_BIN_ABORT", binaries(root, Flags::Hooks, Profile::Abort)?.join("examples"))
        .env("TASKSCOPE_TEST_REPORT", &report)
        .env("TASKSCOPE_TEST_WITHOUT", without.join(","))
        .env("PATH", peers::path_with(&peers))
        .env(
            "TASKSCOPE_TEST_SIZE",
            match size {
                Size::Small => "small",
                Size::Full => "full",
            },
        );
    let mut suites = Vec::new();
    phase(&mut summary, "run tests", || {
        let (read, worked) = watched(&mut run)?;
        suites = read.finish();
        Ok(worked)
    })?;
    summary.suites = suites;
    if only.is_empty() {
        prove(root, size, &mut summary)?;
    }
    let report = std::fs::read_to_string(&report).context("the tests' report is gone")?;
    summary
        .not_run
        .extend(report.lines().filter_map(|line| line.strip_prefix("not run: ")).map(str::to_owned));
    Ok(summary)
}

/// What no single run of a test shows: every interleaving of the registry's threads, and at full size, its unsafe code
/// under an interpreter that knows what is undefined, and the agent's machines.
fn prove(root: &Path, size: Size, summary: &mut Summary) -> anyhow::Result<()> {
    let mut suites = Vec::new();
    let built = phase(summary, "build for loom", || ends_well(proofs::loom(root, size)?.arg("--no-run")))?;
    if built {
        phase(summary, "run under loom", || {
            let (read, worked) = watched(&mut proofs::loom(root, size)?)?;
            suites.extend(read.finish());
            Ok(worked)
        })?;
    }
    if size == Size::Full {
        phase(summary, "take very many stacks", || {
            let (read, worked) = watched(&mut proofs::stacks(root))?;
            suites.extend(read.finish().into_iter().map(|suite| suite.under("very many stacks")));
            Ok(worked)
        })?;
        phase(summary, "run what the agent promises", || {
            let (read, worked) = watched(&mut proofs::agent(root))?;
            suites.extend(read.finish());
            Ok(worked)
        })?;
        let mut missing = None;
        phase(summary, "run under Miri", || {
            let miri = match Miri::prepare(root)? {
                Ok(miri) => miri,
                Err(why) => {
                    missing = Some(why);
                    return Ok(true);
                }
            };
            let (read, worked) = watched(&mut miri.tests(root)?)?;
            suites.extend(read.finish().into_iter().map(|suite| suite.under("Miri")));
            Ok(worked)
        })?;
        summary.not_run.extend(missing.map(|why| format!("the probe's unsafe code under Miri: {why}")));
    }
    summary.suites.extend(suites);
    Ok(())
}

/// Does one thing, says so before, and notes how long it took.
pub(crate) fn phase(
    summary: &mut Summary,
    name: &str,
    work: impl FnOnce() -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    eprintln!("== {name}");
    #[allow(clippy::disallowed_methods, reason = "the chores are a driver")]
    let began = Instant::now();
    let worked = work().with_context(|| format!("in phase `{name}`"))?;
    summary.phases.push((name.to_owned(), began.elapsed(), worked));
    Ok(worked)
}

pub(crate) fn ends_well(command: &mut Command) -> anyhow::Result<bool> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    Ok(status.success())
}

/// Runs it with both of its outputs passed on, line by line in one order, and read.
pub(crate) fn watched(command: &mut Command) -> anyhow::Result<(Reader, bool)> {
    let (output, input) = std::io::pipe().context("no pipe can be made")?;
    let again = input.try_clone().context("no pipe can be made")?;
    if std::io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child =
        command.stdout(input).stderr(again).spawn().with_context(|| format!("cannot start {command:?}"))?;
    // The command keeps its ends of the pipe open; without them the end of the child is the end of the text.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut reader = Reader::default();
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).context("cannot read what the tests print")? > 0 {
        std::io::stdout().write_all(&line).context("cannot write to standard output")?;
        reader.line(&String::from_utf8_lossy(&line));
        line.clear();
    }
    let status = child.wait().context("cannot wait for the tests")?;
    Ok((reader, status.success()))
}
