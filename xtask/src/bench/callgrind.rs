//! Instructions per unit of work: two runs of different size under callgrind, what one thread did in them, and the
//! difference. What starts and ends a run cancels out; a probe's own thread does not count.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::process;

/// A function that only the counted thread calls; `bench/workloads/src/counted.rs` has it.
const MARK: &str = "counted_thread";

/// Instructions per unit of `work` on the thread that does it; `units` in the smaller run, twice as many in the larger.
pub(crate) fn per_unit(program: &Path, work: &str, units: u64, more: &[&Path]) -> anyhow::Result<f64> {
    let (did, instructions) = counted(program, work, units, more)?;
    let (did_more, more_instructions) = counted(program, work, units * 2, more)?;
    ensure!(did_more > did, "the larger run of {work} did no more than the smaller");
    Ok((more_instructions - instructions) / (did_more - did))
}

fn counted(program: &Path, work: &str, units: u64, more: &[&Path]) -> anyhow::Result<(f64, f64)> {
    let folder = process::folder()?;
    let mut command = Command::new("valgrind");
    command
        .args(["-q", "--tool=callgrind", "--separate-threads=yes"])
        .arg(format!("--callgrind-out-file={}", folder.path().join("profile").display()))
        .arg(program)
        .args(["count", work, &units.to_string()])
        .args(more);
    let printed = process::printed(&mut command, folder.path())?;
    let did = *printed.get("units").context("a counted run prints its units")?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder.path()).context("cannot read a run's folder")? {
        let entry = entry.context("cannot read a run's folder")?;
        if entry.file_name().to_string_lossy().starts_with("profile") {
            let profile = std::fs::read(entry.path()).context("cannot read a profile")?;
            found.extend(of_marked_thread(&String::from_utf8_lossy(&profile)));
        }
    }
    match found[..] {
        [instructions] => Ok((did, instructions)),
        _ => bail!("{} of the profiled threads call `{MARK}`; one should", found.len()),
    }
}

/// All that a thread executed, if it is the marked one.
fn of_marked_thread(profile: &str) -> Option<f64> {
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: "))?;
    profile.contains(MARK).then(|| total.trim().parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marked_threads_total_is_read() {
        let marked = "version: 1\nthread: 3\n\nfn=(12) bench_workloads::counted::counted_thread\n7 4\n\ntotals: 39909695\n";
        assert_eq!(of_marked_thread(marked), Some(39_909_695.0));
        assert_eq!(of_marked_thread("fn=(1) main\n7 4\n\ntotals: 12\n"), None);
    }
}
