//! `cargo xtask check`: what needs no running program.

use std::path::Path;

use crate::absences;
use crate::cargo::{Flags, cargo};
use crate::test::ends_well;

/// True: all is well. Every step runs, whatever the ones before it found.
pub(crate) fn run(root: &Path) -> anyhow::Result<bool> {
    let format = ends_well(cargo(root, Flags::Hooks).args(["fmt", "--all", "--check"]))?;
    let clippy = ends_well(
        cargo(root, Flags::Hooks)
            .args(["clippy", "--workspace", "--all-targets"])
            .args(["--locked", "--", "-D", "warnings"]),
    )?;
    let docs =
        ends_well(cargo(root, Flags::Hooks).env("RUSTDOCFLAGS", "-D warnings --cfg tokio_unstable").args([
            "doc",
            "--workspace",
            "--no-deps",
            "--locked",
        ]))?;
    let present = absences::violations(root)?;
    for sentence in &present {
        eprintln!("error: {sentence}");
    }
    for (what, good) in
        [("format", format), ("clippy", clippy), ("docs", docs), ("absences", present.is_empty())]
    {
        println!("{what}: {}", if good { "good" } else { "FAILED" });
    }
    Ok(format && clippy && docs && present.is_empty())
}
