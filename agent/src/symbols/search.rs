//! Where the file of a module is on this machine: in the target's own file system, at its path, or in a folder of debug
//! information. A file counts only where its build-id is that of the module, so that no name is of another build.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Module;
use super::elf::{Elf, NotUsable};

/// Files of a folder of debug information that are looked at, and how deep its folders go.
const MAX_FILES: usize = 4096;
const MAX_DEPTH: usize = 4;
/// What a path ends with where the file has been replaced since.
const DELETED: &str = " (deleted)";

/// Where to look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// Folders of debug information, in their order.
    pub(crate) debug_dirs: Vec<PathBuf>,
    /// The target's process, as this machine numbers it: the other end of its socket.
    pub(crate) process: Option<u32>,
    /// The number that the target has for itself. In a container, or on another machine, it may be another process here.
    pub(crate) own_pid: Option<u32>,
}

/// The best file for a module.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) has_lines: bool,
    pub(super) has_names: bool,
    /// Addresses that hold code.
    pub(super) code: Vec<Range<u64>>,
}

/// What was looked at in vain, in words.
pub(super) type Refused = Vec<String>;

impl Places {
    /// The first file with lines; else one that has at least names; else any of this build.
    pub(super) fn find(&self, module: &Module) -> (Option<Found>, Refused) {
        let mut refused = Refused::new();
        let mut best: Option<Found> = None;
        for path in self.candidates(module) {
            let elf = match read(&path) {
                Ok(elf) => elf,
                // Most places have nothing.
                Err(NotUsable::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => continue,
                // The file system of another user's process.
                Err(NotUsable::Io(_)) if path.starts_with("/proc") => continue,
                Err(error) => {
                    refused.push(format!("{} is not used: {error}", path.display()));
                    continue;
                }
            };
            if !self.is_of(module, &elf, &path) {
                refused.push(other_build(&path, &elf, module));
                continue;
            }
            keep_better(&mut best, path, elf);
            if best.as_ref().is_some_and(|best| best.has_lines) {
                return (best, refused);
            }
        }
        self.by_build_id(&module.build_id, &mut best);
        (best, refused)
    }

    /// Paths at which the file would be, the surest first.
    fn candidates(&self, module: &Module) -> Vec<PathBuf> {
        let path = module.path.strip_suffix(DELETED).unwrap_or(&module.path);
        let mut all = Vec::new();
        if path.starts_with('/') {
            for pid in self.process.into_iter().chain(self.own_pid) {
                all.push(PathBuf::from(format!("/proc/{pid}/root{path}")));
                // The program itself can be read here also where it was replaced or cannot be reached by its path.
                if self.process == Some(pid) && exe_is(pid, &module.path) {
                    all.push(PathBuf::from(format!("/proc/{pid}/exe")));
                }
            }
            all.push(PathBuf::from(path));
        }
        if let Some((first, rest)) = module.build_id.split_at_checked(1).filter(|(_, rest)| !rest.is_empty())
        {
            let file = format!(".build-id/{}/{}.debug", hex(first), hex(rest));
            for dir in &self.debug_dirs {
                all.push(dir.join(&file));
            }
        }
        all
    }

    /// Whether the file is of the module's build. Without a build-id only what the process itself runs can be.
    fn is_of(&self, module: &Module, elf: &Elf, path: &Path) -> bool {
        if !module.build_id.is_empty() {
            return elf.build_id == *module.build_id;
        }
        let Some(pid) = self.process else { return false };
        elf.build_id.is_empty()
            && !module.path.ends_with(DELETED)
            && exe_is(pid, &module.path)
            && path.starts_with(format!("/proc/{pid}"))
    }

    /// Any file in the folders of debug information that is of this build: a copy of the unstripped program.
    fn by_build_id(&self, build_id: &[u8], best: &mut Option<Found>) {
        if build_id.is_empty() {
            return;
        }
        let mut looked = 0;
        // The system's own folder is sorted by build-id, and large.
        let dirs = self.debug_dirs.iter().filter(|dir| *dir != Path::new(SYSTEM_DEBUG_DIR));
        let mut folders: Vec<(PathBuf, usize)> = dirs.map(|dir| (dir.clone(), 0)).collect();
        folders.reverse();
        while let Some((folder, depth)) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            let mut paths: Vec<PathBuf> =
                entries.flatten().take(MAX_FILES).map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                let Ok(kind) = std::fs::symlink_metadata(&path) else { continue };
                if kind.is_dir() {
                    if depth < MAX_DEPTH {
                        folders.push((path, depth + 1));
                    }
                    continue;
                }
                looked += 1;
                if looked > MAX_FILES {
                    return;
                }
                let Ok(elf) = read(&path) else { continue };
                if elf.build_id == build_id {
                    keep_better(best, path, elf);
                }
                if best.as_ref().is_some_and(|best| best.has_lines) {
                    return;
                }
            }
        }
    }
}

fn read(path: &Path) -> Result<Elf, NotUsable> {
    // To open a pipe would wait for its other end: only files are opened.
    if !std::fs::metadata(path)?.is_file() {
        return Err(NotUsable::Foreign);
    }
    Elf::read(&File::open(path)?)
}

fn keep_better(best: &mut Option<Found>, path: PathBuf, elf: Elf) {
    let rank = |found: &Found| (found.has_lines, found.has_names);
    let found = Found { path, has_lines: elf.has_lines, has_names: elf.has_names, code: elf.code };
    if best.as_ref().is_none_or(|best| rank(&found) > rank(best)) {
        *best = Some(found);
    }
}

/// Where distributions put debug information.
pub(crate) const SYSTEM_DEBUG_DIR: &str = "/usr/lib/debug";

/// Folders of debug information: those that were named, those of `TASKSCOPE_DEBUG_DIR`, and the system's.
pub(crate) fn debug_dirs(named: &[PathBuf]) -> Vec<PathBuf> {
    let mut dirs = named.to_vec();
    let variable = std::env::var_os("TASKSCOPE_DEBUG_DIR").filter(|dirs| !dirs.is_empty());
    dirs.extend(variable.iter().flat_map(std::env::split_paths).filter(|dir| !dir.as_os_str().is_empty()));
    dirs.push(SYSTEM_DEBUG_DIR.into());
    dirs
}

/// Whether process `pid` runs the program at `path`.
fn exe_is(pid: u32, path: &str) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(path))
}

fn other_build(path: &Path, elf: &Elf, module: &Module) -> String {
    let path = path.display();
    match (module.build_id.is_empty(), elf.build_id.is_empty()) {
        (true, _) => format!("{path} is not used: the module has no build-id, so it may be of another build"),
        (false, true) => format!("{path} is of another build: it has no build-id"),
        (false, false) => format!("{path} is of another build: its build-id is {}", hex(&elf.build_id)),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
