//! The files of evidence: their names, and how many there are.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::alerts::labels::Fingerprint;
use crate::alerts::notice::rfc3339;

/// The newest so many are kept.
const KEPT: usize = 50;
const ENDING: &str = ".tskscop";
/// Of one that is not written yet, or was left by an agent that was killed.
const UNFINISHED: &str = ".part";

/// `20261121T014939.822Z-TaskSlowPoll-656208c45755e7d4.tskscop`: names sort by time.
pub(super) fn name(unix_ns: u64, alert: &str, id: Fingerprint) -> String {
    format!("{}-{alert}-{id}{ENDING}", rfc3339(unix_ns).replace(['-', ':'], ""))
}

/// Whether it is such a name, finished or not: nobody else's file is removed.
fn is_ours(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(ENDING).or_else(|| name.strip_suffix(UNFINISHED)) else {
        return false;
    };
    let parts: Vec<&str> = stem.split('-').collect();
    let [at, alert, id] = parts[..] else { return false };
    at.len() == "20261121T014939.822Z".len()
        && at.ends_with('Z')
        && at.starts_with(|c: char| c.is_ascii_digit())
        && alert.chars().all(|c| c.is_ascii_alphanumeric())
        && id.len() == 16
        && id.chars().all(|c| c.is_ascii_hexdigit())
}

/// A file that its owner alone can read; it is there as a whole or not at all. The oldest ones make room for it, and those that are
/// `named` by alerts which still fire only after all others; such a one is then `gone`, even if the new one cannot be written.
pub(super) fn write(
    path: &Path,
    bytes: &[u8],
    named: &BTreeSet<PathBuf>,
    gone: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // First: where the disk is full, there is room afterwards.
    prune(folder, path, named, gone)?;
    let unfinished = path.with_extension(UNFINISHED.trim_start_matches('.'));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&unfinished, path));
    if written.is_err() {
        // What is left of it is no evidence.
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

/// Leaves room for one more.
fn prune(folder: &Path, coming: &Path, named: &BTreeSet<PathBuf>, gone: &mut Vec<PathBuf>) -> io::Result<()> {
    // Named is the file, also while it is written.
    let whole = |path: &Path| path.with_extension(ENDING.trim_start_matches('.'));
    let mut ours: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path != coming && path.file_name().and_then(|name| name.to_str()).is_some_and(is_ours) {
            ours.push(path);
        }
    }
    ours.sort_by_cached_key(|path| (named.contains(&whole(path)), path.clone()));
    let past = (ours.len() + 1).saturating_sub(KEPT);
    for path in &ours[..past] {
        match std::fs::remove_file(path) {
            // Somebody was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        if named.contains(path) {
            gone.push(path.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const S: u64 = 1_000_000_000;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("it is there");
        let name = |entry: io::Result<std::fs::DirEntry>| {
            entry.expect("it can be read").file_name().to_string_lossy().into_owned()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    /// Gives what is gone of those that are named.
    fn written(path: &Path, named: &[&Path]) -> io::Result<Vec<PathBuf>> {
        let mut gone = Vec::new();
        let named = named.iter().map(|path| path.to_path_buf()).collect();
        write(path, b"x", &named, &mut gone).map(|()| gone)
    }

    #[test]
    fn what_is_over_makes_room_before_what_still_fires() {
        let temporary = tempfile::tempdir().expect("a temporary folder can be made");
        let at = |number: u64| temporary.path().join(name(number * S, "TaskLeak", Fingerprint(number)));
        for number in 1..=50 {
            written(&at(number), &[]).expect("it can be written");
        }
        // The first two fire; the last one is being written.
        let half = at(50).with_extension("part");
        std::fs::rename(at(50), &half).expect("it is there");
        let fires = [at(1), at(2), at(50)];
        let fires = fires.each_ref().map(PathBuf::as_path);
        assert_eq!(written(&at(51), &fires).expect("it can be written"), [] as [PathBuf; 0]);
        let left = [at(1), at(2), at(3), at(4), half].map(|path| path.exists());
        assert_eq!(left, [true, true, false, true, true]);
        // Where all of them fire the oldest goes, and whose it was is told.
        let all: Vec<PathBuf> = (1..=52).map(at).collect();
        let all: Vec<&Path> = all.iter().map(PathBuf::as_path).collect();
        assert_eq!(written(&at(52), &all).expect("it can be written"), [at(1)]);
        assert_eq!(names(temporary.path()).len(), 50);
    }

    #[test]
    fn of_51_files_the_newest_50_are_kept_and_nobody_elses_is_touched() {
        let temporary = tempfile::tempdir().expect("a temporary folder can be made");
        let folder = temporary.path().join("state/evidence");
        let name = |number: u64| name(number * S, "TaskSlowPoll", Fingerprint(number));
        std::fs::create_dir_all(&folder).expect("it can be made");
        std::fs::write(folder.join("00-notes.txt"), "mine").expect("it can be written");
        std::fs::write(folder.join("a-b-c.tskscop"), "mine").expect("it can be written");
        std::fs::write(folder.join(name(0)).with_extension("part"), "half").expect("it can be written");
        for number in 1..=51 {
            written(&folder.join(name(number)), &[]).expect("it can be written");
        }
        let wanted = (2..=51).map(name).chain(["00-notes.txt", "a-b-c.tskscop"].map(str::to_owned));
        let mut wanted: Vec<String> = wanted.collect();
        wanted.sort();
        assert_eq!(names(&folder), wanted);
        let mode = std::fs::metadata(folder.join(name(51))).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // A clock that was set back makes no new file an old one.
        written(&folder.join(name(1)), &[]).expect("it can be written");
        assert!(folder.join(name(1)).exists() && !folder.join(name(2)).exists());
    }

    #[test]
    fn where_nothing_can_be_written_nothing_is_left() {
        let temporary = tempfile::tempdir().expect("a temporary folder can be made");
        let folder = temporary.path().join("evidence");
        std::fs::write(&folder, "a file in its place").expect("it can be written");
        assert!(written(&folder.join(name(S, "A", Fingerprint(1))), &[]).is_err());
        // Somebody's folder has the name of the file.
        let folder = temporary.path().join("other");
        let path = folder.join(name(S, "A", Fingerprint(1)));
        std::fs::create_dir_all(path.join("full")).expect("it can be made");
        assert!(written(&path, &[]).is_err());
        assert_eq!(names(&folder).len(), 1);
    }
}
