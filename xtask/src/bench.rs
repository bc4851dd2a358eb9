//! `cargo xtask bench …`: what watching costs, measured. Each subcommand is a file in `bench/`.
//!
//! Words go to standard error; data, if asked for with `--json`, to standard output.

use std::path::Path;

use clap::Subcommand;

mod scale;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// A hundred thousand and a million live tasks with a watcher; ten million short ones
    Scale(scale::Scale),
}

/// True: everything was measured, and no limit is exceeded.
pub(crate) fn run(root: &Path, bench: &Bench) -> anyhow::Result<bool> {
    match bench {
        Bench::Scale(scale) => scale::run(root, scale),
    }
}
