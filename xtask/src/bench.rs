//! `cargo xtask bench …`: what watching costs and what it brings, measured. Each subcommand is a file in `bench/` and a variant of [`Bench`];
//! what they share is beside them: the modes and their builds, one run of a program, callgrind, samples, tables.
//!
//! Words go to standard error; data, if asked for with `--json`, to standard output.

use std::path::Path;

use clap::Subcommand;

mod callgrind;
mod figures;
mod incident;
mod modes;
mod overhead;
mod page;
mod process;
mod sample;
mod scale;
mod table;
mod targets;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Polls, messages, spawns, requests and idle tasks: bare, with the probe, and with its peers
    Overhead(overhead::Overhead),
    /// A hundred thousand and a million live tasks with a watcher; ten million short ones
    Scale(scale::Scale),
    /// Seconds and keystrokes from each fault of the demo to its guilty line, with Taskscope and its peers
    Incident(incident::Incident),
}

/// True: everything was measured, and no limit is exceeded.
pub(crate) fn run(root: &Path, bench: &Bench) -> anyhow::Result<bool> {
    match bench {
        Bench::Overhead(overhead) => overhead::run(root, overhead),
        Bench::Scale(scale) => scale::run(root, scale),
        Bench::Incident(incident) => incident::run(root, incident),
    }
}
