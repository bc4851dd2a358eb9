//! The names in one file of code: functions, files and lines of an address, functions that were inlined there included.
//!
//! The file is mapped and read where it is touched: a unit of debug information is parsed when an address falls into it. A build is
//! opened once, however many targets run it.

use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use addr2line::Loader;
use taskscope_proto::words;

use super::search::Found;

/// Names of generic functions can grow without limit.
const MAX_NAME: usize = 2048;
/// Functions inlined into one another at one address.
const MAX_INLINED: usize = 64;

/// One function at an address, as its file tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) function: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
}

/// An opened file, perhaps one that others use, too.
#[derive(Clone)]
pub(super) struct CodeFile(Arc<Opened>);

struct Opened {
    path: PathBuf,
    stamp: Stamp,
    code: Vec<Range<u64>>,
    loader: Mutex<Loader>,
}

/// By build-id, and whether the file has lines and names of its own: the program, and what was split off it, are of one build.
type Build = (Vec<u8>, bool, bool);

/// Those that somebody uses.
static OPEN: LazyLock<Mutex<HashMap<Build, Weak<Opened>>>> = LazyLock::new(Mutex::default);

/// Whoever panicked holding it did not leave it half changed: every change is one call.
fn open_files() -> MutexGuard<'static, HashMap<Build, Weak<Opened>>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a file is not read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotRead {
    #[error("it was changed")]
    Changed,
    #[error("its debug information is damaged")]
    Damaged,
}

/// What changes when somebody writes into the file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let of = std::fs::metadata(path).ok()?;
        Some(Self { length: of.len(), modified: of.modified().ok() })
    }
}

impl CodeFile {
    /// The file of this build that is open already, or else this one: it is mapped, and its tables of symbols and units are read. An
    /// empty build-id is nobody else's. The error is in words.
    pub(super) fn open(build_id: &[u8], found: &Found) -> Result<Self, String> {
        let build: Option<Build> =
            (!build_id.is_empty()).then(|| (build_id.to_vec(), found.has_lines, found.has_names));
        let same = || build.as_ref().and_then(|build| open_files().get(build)?.upgrade());
        if let Some(open) = same().filter(|open| open.is_as_it_was()) {
            return Ok(Self(open));
        }
        // Not under the lock: it may take seconds. Of two that are opened at once both are good.
        let opened = Arc::new(Opened::new(found)?);
        if let Some(build) = build {
            let mut files = open_files();
            files.retain(|_, open| open.strong_count() > 0);
            files.insert(build, Arc::downgrade(&opened));
        }
        Ok(Self(opened))
    }

    #[cfg(test)]
    pub(super) fn users(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// The functions at `address`, the innermost first; empty where the file knows none. After an error it is not to be
    /// asked again.
    pub(super) fn names(&self, address: u64) -> Result<Vec<Named>, NotRead> {
        let opened = &self.0;
        if !opened.code.iter().any(|code| code.contains(&address)) {
            return Ok(Vec::new());
        }
        // What is mapped must not be read where it was cut off.
        if !opened.is_as_it_was() {
            return Err(NotRead::Changed);
        }
        // No panic leaves the block below.
        let loader = opened.loader.lock().unwrap_or_else(PoisonError::into_inner);
        catch_unwind(AssertUnwindSafe(|| inlined(&loader, address))).map_err(|_| NotRead::Damaged)
    }
}

impl Opened {
    fn new(found: &Found) -> Result<Self, String> {
        let path = found.path.as_path();
        let stamp = Stamp::of(path).ok_or("it is gone")?;
        // A damaged file may break an assumption of its reader: it costs the names of this file and nothing else.
        match catch_unwind(|| Loader::new(path).map_err(|error| error.to_string())) {
            Ok(Ok(loader)) => Ok(Self {
                path: path.to_owned(),
                stamp,
                code: found.code.clone(),
                loader: Mutex::new(loader),
            }),
            Ok(Err(error)) => {
                Err(format!("its debug information cannot be read: {}", words::printable(&error)))
            }
            Err(_) => Err(NotRead::Damaged.to_string()),
        }
    }

    fn is_as_it_was(&self) -> bool {
        Stamp::of(&self.path) == Some(self.stamp)
    }
}

fn inlined(loader: &Loader, address: u64) -> Vec<Named> {
    let mut found = Vec::new();
    if let Ok(mut frames) = loader.find_frames(address) {
        // An error ends it: what was read until then stands.
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.as_ref().and_then(|name| name.demangle().ok());
            found.push(Named {
                function: name.map(|name| shortened(&name)),
                file: frame.location.as_ref().and_then(|at| at.file).map(shortened),
                line: frame.location.as_ref().and_then(|at| at.line).filter(|&line| line > 0),
            });
            if found.len() == MAX_INLINED {
                break;
            }
        }
    }
    // The outermost is the function that the linker knows, also where the debug information does not name it.
    let symbol = || loader.find_symbol(address).map(demangled);
    match found.last_mut() {
        Some(outermost) if outermost.function.is_none() => outermost.function = symbol(),
        Some(_) => {}
        None => found.extend(symbol().map(|name| Named { function: Some(name), ..Named::default() })),
    }
    found
}

/// `_ZN3api5login17h0123456789abcdefE` → `api::login`, also in Rust's newer scheme and in C++'s; others as they are.
pub(super) fn demangled(name: &str) -> String {
    shortened(&addr2line::demangle_auto(name.into(), None))
}

fn shortened(text: &str) -> String {
    let end = (0..=text.len().min(MAX_NAME)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    words::printable(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_hash() {
        let cases = [
            ("_ZN3api5login17h0123456789abcdefE", "api::login"),
            ("_ZN3api5login28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE", "api::login::{{closure}}"),
            ("_RNvCskwGfYPst2Cb_3foo16example_function", "foo::example_function"),
            ("_RNCNvCskwGfYPst2Cb_3foo3bar0", "foo::bar::{closure#0}"),
            ("_ZN9wikipedia7article6formatEv", "wikipedia::article::format()"),
            ("clock_nanosleep", "clock_nanosleep"),
        ];
        for (name, expected) in cases {
            assert_eq!(demangled(name), expected);
        }
        assert!(demangled(&"é".repeat(9_000)).len() <= MAX_NAME);
    }
}
