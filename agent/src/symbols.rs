//! Names for addresses: which function, file and line an address of a module is, looked up in files on this machine.
//!
//! Files are read on a thread of its own, so that whoever draws never waits for one: [`Symbols::frames`] answers what is
//! known and asks for the rest. Memory is bounded: so many answers, so many files open at a time. Nothing here decides what
//! is worth showing; that is `stack`'s.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use tokio::sync::watch;

mod elf;
mod file;
mod search;

use file::{CodeFile, Named, NotRead};
use search::hex;
pub(crate) use search::{Places, debug_dirs};

/// Files that are open at a time; the one that was not used for longest is closed.
const FILES_OPEN: usize = 64;
/// Answers that are kept, and addresses that may wait for theirs. Ten thousand stacks of distinct frames have fewer.
const ANSWERS: usize = 1 << 16;

/// A file of code in a target's memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Module {
    /// As the target sees it.
    pub(crate) path: String,
    /// Empty: it has none.
    pub(crate) build_id: Vec<u8>,
}

impl Module {
    /// `api` of `/usr/bin/api`.
    pub(crate) fn name(&self) -> &str {
        let path = self.path.strip_suffix(" (deleted)").unwrap_or(&self.path);
        path.rsplit('/').next().unwrap_or(path)
    }

    pub(crate) fn build_id(&self) -> Option<String> {
        (!self.build_id.is_empty()).then(|| hex(&self.build_id))
    }

    /// Whether it comes with the system: nobody looks for their own code in there.
    pub(crate) fn is_of_system(&self) -> bool {
        let folders = ["/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/", "["];
        folders.iter().any(|folder| self.path.starts_with(folder))
    }
}

/// One function of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// `None` where no file told.
    pub(crate) function: Option<String>,
    /// As the compiler was given it.
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    /// `None`: in no file.
    pub(crate) module: Option<Arc<Module>>,
    pub(crate) address: u64,
    /// It was inlined into the frame after it.
    pub(crate) inlined: bool,
}

impl Frame {
    /// A frame of which nothing but the address is known.
    pub(crate) fn unnamed(module: Option<Arc<Module>>, address: u64) -> Self {
        Self { module, address, ..Self::default() }
    }
}

/// What is known of a module's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// Functions, files and lines.
    Lines,
    /// Why there are no lines, in words, without a full stop.
    Missing(String),
}

/// Looks up names for one target.
#[derive(Debug)]
pub(crate) struct Symbols {
    shared: Arc<Shared>,
    wanted: mpsc::Sender<Wanted>,
    /// Until the first address is asked for there is no thread.
    begin: Mutex<Option<(mpsc::Receiver<Wanted>, Places)>>,
    answered: watch::Receiver<u64>,
}

type Wanted = (Arc<Module>, u64);

#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    answered: watch::Sender<u64>,
    gone: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    frames: HashMap<Wanted, Arc<[Frame]>>,
    asked: HashSet<Wanted>,
    names: HashMap<Arc<Module>, Names>,
}

impl Shared {
    /// Whoever panicked holding it did not leave it half changed: every change is one call.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Symbols {
    pub(crate) fn of(places: Places) -> Self {
        let (wanted, asked) = mpsc::channel();
        let (answered, receiver) = watch::channel(0);
        let shared = Shared { known: Mutex::default(), answered, gone: AtomicBool::new(false) };
        Self {
            shared: Arc::new(shared),
            wanted,
            begin: Mutex::new(Some((asked, places))),
            answered: receiver,
        }
    }

    /// The functions at an address of `module`, the innermost first, at least one; `None`: they are being looked up, and
    /// [`Symbols::answers`] changes when they are there. Never waits for a file.
    pub(crate) fn frames(&self, module: &Arc<Module>, address: u64) -> Option<Arc<[Frame]>> {
        let wanted = (module.clone(), address);
        let mut known = self.shared.known();
        if let Some(frames) = known.frames.get(&wanted) {
            return Some(frames.clone());
        }
        if known.asked.len() < ANSWERS && known.asked.insert(wanted.clone()) {
            drop(known);
            self.begin();
            // Without the thread the address stays unknown.
            let _ = self.wanted.send(wanted);
        }
        None
    }

    /// What is known of a module's names; `None`: it has not been looked for.
    pub(crate) fn names(&self, module: &Module) -> Option<Names> {
        self.shared.known().names.get(module).cloned()
    }

    /// Changes whenever something was answered.
    pub(crate) fn answers(&self) -> watch::Receiver<u64> {
        self.answered.clone()
    }

    fn begin(&self) {
        let begin = self.begin.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((asked, places)) = begin else { return };
        let shared = self.shared.clone();
        let name = "taskscope-symbols".to_owned();
        let thread = std::thread::Builder::new().name(name);
        if let Err(error) = thread.spawn(move || Reader { places, shared, open: Vec::new() }.run(&asked)) {
            tracing::error!(%error, "no names: their thread cannot be started");
        }
    }
}

impl Drop for Symbols {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::Relaxed);
    }
}

/// The thread that reads files.
struct Reader {
    places: Places,
    shared: Arc<Shared>,
    /// The one used last is last.
    open: Vec<(Arc<Module>, Option<CodeFile>)>,
}

impl Reader {
    fn run(mut self, asked: &mpsc::Receiver<Wanted>) {
        while let Ok(first) = asked.recv() {
            let mut next = Some(first);
            while let Some((module, address)) = next {
                if self.shared.gone.load(Ordering::Relaxed) {
                    return;
                }
                let frames = self.frames(&module, address);
                let mut known = self.shared.known();
                // What is asked for now matters more than what was: whatever is still needed is asked again.
                if known.frames.len() >= ANSWERS {
                    known.frames.clear();
                }
                let wanted = (module, address);
                known.asked.remove(&wanted);
                known.frames.insert(wanted, frames.into());
                drop(known);
                next = asked.try_recv().ok();
            }
            self.shared.answered.send_modify(|answers| *answers += 1);
        }
    }

    fn frames(&mut self, module: &Arc<Module>, address: u64) -> Vec<Frame> {
        let mut named = self.named(module, address);
        if named.is_empty() {
            named.push(Named::default());
        }
        let last = named.len() - 1;
        let frame = |(at, named): (usize, Named)| Frame {
            function: named.function,
            file: named.file,
            line: named.line,
            module: Some(module.clone()),
            address,
            inlined: at < last,
        };
        named.into_iter().enumerate().map(frame).collect()
    }

    fn named(&mut self, module: &Arc<Module>, address: u64) -> Vec<Named> {
        match self.open.iter().position(|(open, _)| open == module) {
            Some(at) => {
                let used = self.open.remove(at);
                self.open.push(used);
            }
            None => {
                if self.open.len() >= FILES_OPEN {
                    self.open.remove(0);
                }
                let (file, names) = open(&self.places, module);
                tracing::debug!(module = %module.path, ?names, "names");
                self.shared.known().names.insert(module.clone(), names);
                self.open.push((module.clone(), file));
            }
        }
        // A file that was changed is looked for once more: the build may still be there.
        for _ in 0..2 {
            let Some((_, Some(file))) = self.open.last() else { break };
            match file.names(address) {
                Ok(names) => return names,
                Err(reason) => {
                    self.open.pop();
                    let (file, names) = match reason {
                        NotRead::Changed => open(&self.places, module),
                        NotRead::Damaged => {
                            (None, Names::Missing(format!("{} is not used: {reason}", module.path)))
                        }
                    };
                    self.shared.known().names.insert(module.clone(), names);
                    self.open.push((module.clone(), file));
                }
            }
        }
        Vec::new()
    }
}

/// Finds and opens the file of a module.
fn open(places: &Places, module: &Module) -> (Option<CodeFile>, Names) {
    // The kernel's own, and memory without a file.
    if module.path.starts_with('[') || module.path.is_empty() {
        return (None, Names::Missing(format!("{} is no file", module.path)));
    }
    let (found, refused) = places.find(module);
    let build = module.build_id().map_or(String::new(), |id| format!(" (build-id {id})"));
    let Some(found) = found else {
        let why =
            if refused.is_empty() { "it is not on this machine".to_owned() } else { refused.join("; ") };
        return (None, Names::Missing(format!("no file for {}{build}: {why}", module.path)));
    };
    match CodeFile::open(&module.build_id, &found) {
        Ok(file) if found.has_lines => (Some(file), Names::Lines),
        Ok(file) => {
            let what = if found.has_names { "has no debug information" } else { "is stripped" };
            (Some(file), Names::Missing(format!("{}{build} {what}", module.path)))
        }
        Err(error) => (None, Names::Missing(format!("{} is not used: {error}", found.path.display()))),
    }
}

#[cfg(test)]
mod tests;
