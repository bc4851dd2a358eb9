//! `cargo xtask …`: the project's own chores.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod aarch64;
mod absences;
mod bench;
mod cargo;
mod check;
mod evidence;
mod generate;
mod peers;
mod proofs;
mod summary;
mod test;
mod verify;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own chores")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Generate proto/src/generated from the .proto files
    Generate,
    /// Format, lints, docs, and what must be absent
    Check,
    /// Every test at its small size: builds the binaries, installs what is missing, runs all
    Test {
        /// Only the end-to-end test files of this name (may be given more than once)
        #[arg(long = "only", value_name = "FILE")]
        only: Vec<String>,
    },
    /// The end-to-end promises at their stated sizes, in release builds; writes docs/evidence.md
    Verify,
    /// The tests of stacks in an emulated machine with an aarch64 processor
    VerifyAarch64,
    /// What watching costs, measured
    #[command(subcommand)]
    Bench(bench::Bench),
}

/// The workspace's root folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

fn main() -> ExitCode {
    let root = root();
    let done = match Cli::parse().command {
        Command::Generate => generate::generate(&root, &root.join("proto/src/generated")).map(|()| true),
        Command::Check => check::run(&root),
        Command::Test { only } => test::run(&root, &only),
        Command::Verify => verify::run(&root),
        Command::VerifyAarch64 => aarch64::run(&root),
        Command::Bench(bench) => bench::run(&root, &bench),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
