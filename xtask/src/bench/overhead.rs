//! `cargo xtask bench overhead`: the same work, bare and watched, in turns.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::modes::{Mode, Programs, check_bare};
use super::sample::Sample;
use super::{callgrind, process};
use crate::peers;

#[derive(Args)]
pub(crate) struct Overhead {
    /// Print one JSON object per mode, one a line
    #[arg(long)]
    json: bool,
    /// How often everything is measured
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only these modes; docs/benchmarks.md is then not written
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODE")]
    only: Vec<Mode>,
    /// Only these workloads; docs/benchmarks.md is then not written
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WORKLOAD")]
    work: Vec<Work>,
}

/// What is done, and under what it is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Work {
    Yield,
    Pingpong,
    Spawn,
    YieldInstructions,
    PingpongInstructions,
    SpawnInstructions,
}

impl Work {
    const ALL: [Self; 6] = [
        Self::Yield,
        Self::Pingpong,
        Self::Spawn,
        Self::YieldInstructions,
        Self::PingpongInstructions,
        Self::SpawnInstructions,
    ];

    /// For work whose instructions are counted: its name, how many units the smaller run does, and the figure.
    fn counted(self) -> Option<(&'static str, u64, &'static str)> {
        match self {
            Self::YieldInstructions => Some(("yield", 64_000, "yield_instructions")),
            Self::PingpongInstructions => Some(("pingpong", 64_000, "pingpong_instructions")),
            Self::SpawnInstructions => Some(("spawn", 32_000, "spawn_instructions")),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Yield => "yield",
            Self::Pingpong => "pingpong",
            Self::Spawn => "spawn",
            Self::YieldInstructions => "yield-instructions",
            Self::PingpongInstructions => "pingpong-instructions",
            Self::SpawnInstructions => "spawn-instructions",
        }
    }
}

/// Every figure of every mode.
type Figures = BTreeMap<(Mode, String), Sample>;

pub(crate) fn run(root: &Path, asked: &Overhead) -> anyhow::Result<bool> {
    let modes = if asked.only.is_empty() { Mode::ALL.to_vec() } else { asked.only.clone() };
    let works = if asked.work.is_empty() { Work::ALL.to_vec() } else { asked.work.clone() };
    let programs = Programs::build(root, &modes)?;
    check_bare(root)?;
    let mut figures = Figures::new();
    for round in 0..asked.rounds {
        for &work in &works {
            for &mode in &modes {
                let printed = measured(&programs, mode, work)
                    .with_context(|| format!("{} in mode {}", work.name(), mode.name()))?;
                for (name, value) in printed {
                    eprintln!("round {}: {} {name} {value:.1}", round + 1, mode.name());
                    figures.entry((mode, name)).or_default().push(Some(value));
                }
            }
        }
    }
    let _ = peers::prepare;
    for ((mode, name), sample) in &figures {
        let spread = sample.spread();
        let added = figures.get(&(Mode::Bare, name.clone())).and_then(|bare| sample.added_to(bare));
        eprintln!("{} {name} {spread:?} {added:?}", mode.name());
    }
    Ok(true)
}

fn measured(programs: &Programs, mode: Mode, work: Work) -> anyhow::Result<process::Printed> {
    let program = programs.of(mode);
    match work.counted() {
        Some((name, units, figure)) => {
            let instructions = callgrind::per_unit(&program, name, units, &[])?;
            Ok(process::Printed::from([(figure.to_owned(), instructions)]))
        }
        None => {
            let folder = process::folder()?;
            process::printed(Command::new(&program).arg(work.name()), folder.path())
        }
    }
}
