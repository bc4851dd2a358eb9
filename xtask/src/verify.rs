//! `cargo xtask verify`: the promises at their stated sizes, in release builds, with what was measured written down.

use std::path::Path;

use anyhow::Context;

use crate::cargo::{Flags, Profile, target_folder};
use crate::evidence::{Evidence, Machine};
use crate::test::{Size, tested};

/// True: every promise holds, and docs/evidence.md says with which figures.
pub(crate) fn run(root: &Path) -> anyhow::Result<bool> {
    let machine = Machine::here(root)?;
    let summary = tested(root, Profile::Release, Size::Full, &[])?;
    print!("{}", summary.table());
    let report = target_folder(root, Flags::Hooks)?.join("test-report.txt");
    let report = std::fs::read_to_string(report).context("the tests' report is gone")?;
    let page = Evidence { machine: &machine, summary: &summary, report: &report }.page();
    let file = root.join("docs/evidence.md");
    std::fs::create_dir_all(root.join("docs")).context("cannot make docs")?;
    std::fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))?;
    println!("written: {}", file.display());
    Ok(summary.good(true))
}
