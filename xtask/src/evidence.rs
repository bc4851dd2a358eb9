//! The page docs/evidence.md: when, where and at which commit the promises were proved, and what was measured.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::summary::Summary;

/// Where and when it ran.
pub(crate) struct Machine {
    /// Hash, with a note if the tree had changes.
    pub(crate) commit: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// UTC, `2026-01-31 12:00`.
    pub(crate) date: String,
}

impl Machine {
    /// Asks git and the system.
    pub(crate) fn here(root: &Path) -> anyhow::Result<Self> {
        let mut commit = said(Command::new("git").current_dir(root).args(["rev-parse", "HEAD"]))?;
        if !said(Command::new("git").current_dir(root).args([
            "status",
            "--porcelain",
            "--untracked-files=no",
        ]))?
        .is_empty()
        {
            commit.push_str(" and changes that are not committed");
        }
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.trim().to_owned());
        Ok(Self {
            commit,
            processor,
            cores: std::thread::available_parallelism().context("the number of cores is not known")?.get(),
            kernel: said(Command::new("uname").arg("-sr"))?,
            date: said(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"]))?,
        })
    }
}

/// What a command prints.
pub(crate) fn said(command: &mut Command) -> anyhow::Result<String> {
    let out = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(out.status.success(), "{command:?} ended with {}", out.status);
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// All that goes onto the page.
pub(crate) struct Evidence<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) summary: &'a Summary,
    /// Lines that tests wrote: `evidence: <promise>: <figure>` and `not run: …`.
    pub(crate) report: &'a str,
}

impl Evidence<'_> {
    /// The page as Markdown.
    pub(crate) fn page(&self) -> String {
        let Machine { commit, processor, cores, kernel, date } = self.machine;
        let mut page = format!(
            "# Evidence\n\nWritten by `cargo xtask verify`; edit nothing here by hand.\n\n- Commit: {commit}\n- Machine: \
             {processor}, {cores} cores, {kernel}\n- Date: {date} UTC\n- Result: {} passed, {} failed\n",
            self.summary.passed(),
            self.summary.failed()
        );
        page.push_str("\n## Measured\n\n| promise | figure |\n|---|---|\n");
        for line in self.report.lines().filter_map(|line| line.strip_prefix("evidence: ")) {
            let (promise, figure) = line.split_once(": ").unwrap_or((line, ""));
            let _ = writeln!(page, "| {} | {} |", cell(promise), cell(figure));
        }
        page.push_str("\n## Promises\n\n| file | promise | result |\n|---|---|---|\n");
        for suite in &self.summary.suites {
            for (name, passed) in &suite.tests {
                let file = suite.name.strip_prefix("tests/").unwrap_or(&suite.name);
                let result = if *passed { "holds" } else { "**failed**" };
                let _ = writeln!(page, "| {} | {} | {result} |", cell(file), cell(&name.replace('_', " ")));
            }
        }
        for sentence in &self.summary.not_run {
            let _ = writeln!(page, "\nNot run: {sentence}.");
        }
        page
    }
}

/// Text that cannot end a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::Reader;

    #[test]
    fn the_page_has_each_figure_and_each_promise() {
        let mut reader = Reader::default();
        for line in [
            "Running tests/harm.rs (target/release/deps/harm-01)",
            "test a_killed_agent_changes_nothing ... ok",
            "test five_stopped_watchers_change_nothing ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; finished in 9.00s",
        ] {
            reader.line(line);
        }
        let summary = Summary { suites: reader.finish(), ..Summary::default() };
        let machine = Machine {
            commit: "abc".into(),
            processor: "a CPU".into(),
            cores: 2,
            kernel: "Linux 6".into(),
            date: "2026-01-31 12:00".into(),
        };
        let report = "evidence: a killed agent: throughput 0.4 % | p99 0.1 %\nnot run: x\n";
        let page = Evidence { machine: &machine, summary: &summary, report }.page();
        for line in [
            "- Machine: a CPU, 2 cores, Linux 6",
            "- Result: 1 passed, 1 failed",
            "| a killed agent | throughput 0.4 % \\| p99 0.1 % |",
            "| harm.rs | a killed agent changes nothing | holds |",
            "| harm.rs | five stopped watchers change nothing | **failed** |",
        ] {
            assert!(page.lines().any(|have| have == line), "no line `{line}` in\n{page}");
        }
    }
}
