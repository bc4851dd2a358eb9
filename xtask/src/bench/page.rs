//! The tables of a run, and the page docs/benchmarks.md around them.

use std::fmt::Write as _;

use super::figures::{Figure, Figures};
use super::modes::Mode;
use super::table::{Table, number, signed};
use super::targets;
use crate::evidence::Machine;

/// What each mode is.
fn about(mode: Mode) -> &'static str {
    match mode {
        Mode::Bare => "tokio with `tokio_unstable`, without its features `tracing` and `schedule-latency`",
        Mode::ClockOnly => {
            "all four task hooks set; those around a poll read the time-stamp counter and store it, no more"
        }
        Mode::TaskscopeHooks => "the probe on the runtime's hooks, tasks by `tokio::spawn`",
        Mode::TaskscopeStacks => {
            "the same, and stacks of slow polls allowed; no poll is slow but in the last two tables"
        }
        Mode::TaskscopeWrapper => {
            "the probe on a runtime without its hooks, tasks by `taskscope_probe::spawn`"
        }
        Mode::TokioMetrics => "tokio-metrics 0.5.2, each task in `TaskMonitor::instrument`",
        Mode::Dial9 => {
            "dial9 0.5.7 with task tracking, its trace on disk (256 MiB at most), tasks by `tokio::spawn`"
        }
        Mode::Dial9Spawn => "the same, tasks by `dial9::spawn`, which records wakes, too",
        Mode::ConsoleSubscriber => {
            "console-subscriber 0.5.0 as its `init` sets it up, nobody attached; tokio has its feature `tracing`"
        }
    }
}

/// All tables of what was measured.
pub(crate) fn tables(figures: &Figures) -> String {
    let mut out = String::new();
    let targets = targets::table(figures);
    if !targets.is_empty() {
        let _ = write!(
            out,
            "## Targets\n\nOf what is added to bare (with a sign), or of what there is (without). Instructions gate; times swing with the machine and are \
             published.\n\n{}\n",
            targets.markdown()
        );
    }
    let shares = targets::shares(figures);
    if !shares.is_empty() {
        let _ = write!(out, "## Against the peers\n\nWhat one adds, as a part of what the other adds.\n\n");
        let _ = writeln!(out, "{}", shares.markdown());
    }
    for figure in Figure::ALL {
        let mut table = Table::new(1, &["mode", "median", "quartiles", "added to bare", "quartiles of it"]);
        for mode in Mode::ALL {
            let Some(all) = figures.spread(mode, figure) else { continue };
            let added = figures.added(mode, figure).filter(|_| mode != Mode::Bare);
            let between = |(first, third): (f64, f64), text: fn(f64) -> String| {
                format!("{} … {}", text(first), text(third))
            };
            table.row([
                mode.name().to_owned(),
                number(all.median),
                between(all.quartiles, number),
                added.map_or_else(String::new, |added| signed(added.median)),
                added.map_or_else(String::new, |added| between(added.quartiles, signed)),
            ]);
        }
        if !table.is_empty() {
            let title = format!("{}{}", figure.title()[..1].to_uppercase(), &figure.title()[1..]);
            let _ = writeln!(out, "## {title}\n\n{}\n\n{}", figure.about(), table.markdown());
        }
    }
    out
}

/// Where, when and how it was measured.
pub(crate) struct Page<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) rustc: &'a str,
    pub(crate) tokio: &'a str,
    pub(crate) rounds: u32,
    /// Before and after, as the system tells it: whether others used the machine.
    pub(crate) load: (String, String),
    pub(crate) figures: &'a Figures,
    /// Sentences: what was not measured, and why.
    pub(crate) missing: &'a [String],
}

impl Page<'_> {
    /// As Markdown.
    pub(crate) fn text(&self) -> String {
        let Machine { commit, processor, cores, kernel, date } = self.machine;
        let Self { rustc, tokio, rounds, load: (before, after), .. } = self;
        let mut page = format!(
            "# Benchmarks\n\nWritten by `cargo xtask bench overhead --rounds {rounds}`; edit nothing here by hand. What watching \
             costs at a million tasks is in [benchmarks-scale.md](benchmarks-scale.md), how soon each tool finds the guilty \
             line of a fault in [benchmarks-incident.md](benchmarks-incident.md).\n\n\
             - Commit: {commit}\n- Machine: {processor}, {cores} cores, {kernel}\n- {rustc}, tokio {tokio}, release \
             builds with `--cfg tokio_unstable`\n- Date: {date} UTC\n- Load average (1, 5, 15 minutes): {before} before, \
             {after} after\n- Rounds: {rounds}, all modes in turns in each; instructions in two at most, because they \
             repeat\n\nAll modes run the same code (`bench/workloads`), each in a build of its own. What a mode adds to \
             bare is taken within a round and then the median of the rounds: a shared machine swings by a factor of two \
             within minutes. Each timed run finds a size that lasts about half a second, after a warm-up.\n\n"
        );
        for sentence in self.missing {
            let _ = writeln!(page, "Not measured: {sentence}.\n");
        }
        page.push_str("## Modes\n\n");
        for mode in Mode::ALL {
            let _ = writeln!(page, "- `{}`: {}", mode.name(), about(mode));
        }
        page.push('\n');
        page.push_str(&tables(self.figures));
        page.truncate(page.trim_end().len());
        page.push('\n');
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_where_how_and_what_with_a_table_a_figure() {
        let mut figures = Figures::default();
        for (bare, hooks) in [(621.0, 700.0), (622.0, 702.0)] {
            figures.push(Mode::Bare, Figure::YieldInstructions, Some(bare));
            figures.push(Mode::TaskscopeHooks, Figure::YieldInstructions, Some(hooks));
        }
        let machine = Machine {
            commit: "abc".into(),
            processor: "a CPU".into(),
            cores: 2,
            kernel: "Linux 6".into(),
            date: "2026-01-31 12:00".into(),
        };
        let page = Page {
            machine: &machine,
            rustc: "rustc 1.95.0",
            tokio: "1.54.1",
            rounds: 7,
            load: ("0.10 0.20 0.30".into(), "1.90 1.00 0.50".into()),
            figures: &figures,
            missing: &["instructions: there is no valgrind".to_owned()],
        }
        .text();
        for line in [
            "Written by `cargo xtask bench overhead --rounds 7`; edit nothing here by hand. What watching costs at a million \
             tasks is in [benchmarks-scale.md](benchmarks-scale.md), how soon each tool finds the guilty line of a fault in \
             [benchmarks-incident.md](benchmarks-incident.md).",
            "- Machine: a CPU, 2 cores, Linux 6",
            "- rustc 1.95.0, tokio 1.54.1, release builds with `--cfg tokio_unstable`",
            "Not measured: instructions: there is no valgrind.",
            "## A yield-poll, instructions",
            "| mode            | median | quartiles | added to bare | quartiles of it |",
            "| taskscope-hooks |    701 | 700 … 702 |         +79.5 |   +79.2 … +79.8 |",
        ] {
            assert!(page.lines().any(|have| have == line), "no line `{line}` in\n{page}");
        }
        assert!(!page.contains("an idle task") && page.ends_with("|\n"), "{page}");
    }
}
