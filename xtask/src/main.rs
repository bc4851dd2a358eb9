//! `cargo xtask …`: the project's own chores.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

mod generate;

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
}

/// The workspace's root folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

fn main() -> anyhow::Result<()> {
    let root = root();
    match Cli::parse().command {
        Command::Generate => generate::generate(&root, &root.join("proto/src/generated")),
    }
}
