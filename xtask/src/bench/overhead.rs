//! `cargo xtask bench overhead`: the same work, bare and watched, in turns.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use super::figures::{Figure, Figures};
use super::modes::{Mode, Programs};
use super::page::{Page, tables};
use super::{callgrind, modes, process};
use crate::evidence::{Machine, said};
use crate::peers;

#[derive(Args)]
pub(crate) struct Overhead {
    /// Print one JSON object per mode, one a line
    #[arg(long)]
    json: bool,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only these modes; docs/benchmarks.md is then not written
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODE")]
    only: Vec<Mode>,
    /// Only these workloads; docs/benchmarks.md is then not written
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WORKLOAD")]
    work: Vec<Work>,
}

/// What one run of a program (or a pair, for instructions) measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Work {
    Yield,
    Pingpong,
    Spawn,
    Echo,
    Idle,
    IdleTimer,
    StackSample,
    YieldInstructions,
    PingpongInstructions,
    SpawnInstructions,
    EchoInstructions,
}

/// Instructions repeat to one in a thousand: more rounds would tell nothing.
const COUNTED_ROUNDS: u32 = 2;

impl Work {
    fn figures(self) -> &'static [Figure] {
        match self {
            Self::Yield => &[Figure::YieldNs, Figure::YieldCpuNs],
            Self::Pingpong => &[Figure::PingpongNs, Figure::PingpongCpuNs],
            Self::Spawn => &[Figure::SpawnNs, Figure::SpawnCpuNs],
            Self::Echo => &[Figure::EchoNs, Figure::EchoP999Ns],
            Self::Idle => &[Figure::IdleTaskBytes, Figure::StartBytes],
            Self::IdleTimer => &[Figure::IdleTimerTaskBytes],
            Self::StackSample => &[Figure::StackSampleNs, Figure::StackSampleP99Ns],
            Self::YieldInstructions => &[Figure::YieldInstructions],
            Self::PingpongInstructions => &[Figure::PingpongInstructions],
            Self::SpawnInstructions => &[Figure::SpawnInstructions],
            Self::EchoInstructions => &[Figure::EchoInstructions],
        }
    }

    fn is_counted(self) -> bool {
        matches!(
            self,
            Self::YieldInstructions
                | Self::PingpongInstructions
                | Self::SpawnInstructions
                | Self::EchoInstructions
        )
    }

    /// Whether there is anything to measure in this mode: others take no stacks.
    fn is_of(self, mode: Mode) -> bool {
        self != Self::StackSample || mode == Mode::TaskscopeStacks
    }

    /// Does it once; what it printed has the names of [`Self::figures`].
    fn measured(self, programs: &Programs, mode: Mode) -> anyhow::Result<process::Printed> {
        let program = programs.of(mode);
        // Callgrind slows down by a factor of fifty, and console-subscriber's tasks cost a hundred times as much.
        let slow = mode == Mode::ConsoleSubscriber;
        let counted = |work, units, more: &[&Path]| {
            let instructions = callgrind::per_unit(&program, work, units, more)?;
            Ok(process::Printed::from([(self.figures()[0].name().to_owned(), instructions)]))
        };
        let timed = |arguments: &[&str]| {
            let folder = process::folder()?;
            process::printed(Command::new(&program).args(arguments), folder.path())
        };
        // A timer for each of 100 000 tasks would take console-subscriber 5 GB.
        let idle_tasks = if slow { "20000" } else { "100000" };
        let client = programs.of(Mode::Bare);
        match self {
            Self::Yield => timed(&["yield"]),
            Self::Pingpong => timed(&["pingpong"]),
            Self::Spawn => timed(&["spawn"]),
            Self::Echo => timed(&["echo", client.to_str().context("the target folder's name is no UTF-8")?]),
            Self::Idle => timed(&["idle", idle_tasks]),
            Self::IdleTimer => timed(&["idle-timer", idle_tasks]),
            Self::StackSample => timed(&["stuck"]),
            Self::YieldInstructions => counted("yield", if slow { 16_000 } else { 64_000 }, &[]),
            Self::PingpongInstructions => counted("pingpong", if slow { 16_000 } else { 64_000 }, &[]),
            Self::SpawnInstructions => counted("spawn", if slow { 2000 } else { 16_000 }, &[]),
            Self::EchoInstructions => counted("echo", 2000, &[&client]),
        }
    }
}

/// True: all that was asked for was measured.
pub(crate) fn run(root: &Path, asked: &Overhead) -> anyhow::Result<bool> {
    let whole = asked.only.is_empty() && asked.work.is_empty();
    let modes = if asked.only.is_empty() { Mode::ALL.to_vec() } else { asked.only.clone() };
    let mut works = if asked.work.is_empty() { Work::value_variants().to_vec() } else { asked.work.clone() };
    let mut missing = Vec::new();
    if works.iter().any(|work| work.is_counted()) && !peers::prepare_valgrind() {
        works.retain(|work| !work.is_counted());
        missing.push("instructions: there is no valgrind here".to_owned());
    }
    let machine = Machine::here(root)?;
    let rustc = said(Command::new("rustc").arg("--version"))?;
    let mut built = modes.clone();
    if works.iter().any(|work| matches!(work, Work::Echo | Work::EchoInstructions)) {
        // Its client.
        built.push(Mode::Bare);
    }
    let programs = Programs::build(root, &built)?;
    let tokio = modes::check_bare(root)?;

    let before = load();
    let figures = measured(&programs, &modes, &works, asked.rounds, &mut missing);
    let after = load();

    let tables = tables(&figures);
    if asked.json {
        eprint!("\n{tables}");
        print!("{}", figures.json(&modes));
    } else {
        print!("\n{tables}");
    }
    for sentence in &missing {
        eprintln!("not measured: {sentence}");
    }
    if whole {
        let page = Page {
            machine: &machine,
            rustc: &rustc,
            tokio: &tokio,
            rounds: asked.rounds,
            load: (before, after),
            figures: &figures,
            missing: &missing,
        };
        let file = root.join("docs/benchmarks.md");
        std::fs::write(&file, page.text()).with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("written: {}", file.display());
    }
    Ok(missing.is_empty())
}

/// All rounds. A run that fails is a gap in its figure's sample and a sentence.
fn measured(
    programs: &Programs,
    modes: &[Mode],
    works: &[Work],
    rounds: u32,
    missing: &mut Vec<String>,
) -> Figures {
    let mut figures = Figures::default();
    for round in 0..rounds {
        for &work in works {
            if work.is_counted() && round >= COUNTED_ROUNDS {
                continue;
            }
            // Each round begins with another mode, so that none always follows the same.
            let mut turn = modes.to_vec();
            turn.rotate_left(round as usize % modes.len());
            for mode in turn.into_iter().filter(|&mode| work.is_of(mode)) {
                let printed = work.measured(programs, mode).and_then(|printed| {
                    let all = work.figures().iter().all(|figure| printed.contains_key(figure.name()));
                    ensure!(all, "it printed {printed:?}");
                    Ok(printed)
                });
                if let Err(error) = &printed {
                    let figure = work.figures()[0].name();
                    missing.push(format!("{figure} of {} in round {}", mode.name(), round + 1));
                    eprintln!("round {}: {} {figure} failed: {error:#}", round + 1, mode.name());
                }
                for &figure in work.figures() {
                    let value = printed.as_ref().ok().and_then(|printed| printed.get(figure.name()).copied());
                    if let Some(value) = value {
                        eprintln!("round {}: {} {} {value:.1}", round + 1, mode.name(), figure.name());
                    }
                    figures.push(mode, figure, value);
                }
            }
        }
    }
    figures
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let parts: Vec<&str> = text.split_whitespace().take(3).collect();
    if parts.is_empty() { "not known".to_owned() } else { parts.join(" ") }
}
