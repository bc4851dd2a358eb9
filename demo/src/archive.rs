//! The originals that customers download, read from files. `files` lives here: a file that was opened once is kept, and
//! nothing ever closes one.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::errand::Errand;

/// Stands for every photo on the disk.
const ORIGINAL: &str = "/dev/null";
/// In the album that is downloaded.
const ORIGINALS: usize = 240;
/// File descriptors that are left beside those, for whoever connects.
const SPARE: usize = 20;
/// What each process has open, one file a line.
const OPEN: &str = "/dev/fd";

pub(crate) struct Archive {
    download: Errand,
    open: Arc<Mutex<Vec<File>>>,
    /// The process's own limit, while it has a lower one.
    limit: Mutex<Option<Rlimit>>,
}

impl Archive {
    /// Inside a runtime.
    pub(crate) fn open() -> Self {
        Self { download: Errand::none(), open: Arc::default(), limit: Mutex::default() }
    }

    /// The process may have little more than an album open from now on: the limit of most machines would take too long to
    /// reach.
    pub(crate) fn lower_limit(&self) {
        let mut limit = lock(&self.limit);
        if limit.is_none() {
            *limit = lower_limit();
        }
    }

    pub(crate) fn download_album(&self) {
        let (open, originals) = (self.open.clone(), room().min(ORIGINALS));
        self.download.begin(|| taskscope_probe::spawn_detached("album-download", download(open, originals)));
    }

    /// All are closed, and the process may have as many open as before.
    pub(crate) fn close(&self) {
        self.download.end();
        lock(&self.open).clear();
        if let Some(before) = lock(&self.limit).take() {
            // It was allowed before.
            let _ = setrlimit(Resource::Nofile, before);
        }
    }
}

/// Gives the limit of before; `None`: it could not be lowered, or is lower already.
fn lower_limit() -> Option<Rlimit> {
    let wanted = (open_now()? + ORIGINALS + SPARE) as u64;
    let before = getrlimit(Resource::Nofile);
    if before.current.is_some_and(|current| current <= wanted) {
        return None;
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..before }).ok()?;
    Some(before)
}

/// File descriptors that this process has open.
fn open_now() -> Option<usize> {
    Some(std::fs::read_dir(OPEN).ok()?.count())
}

/// How many more may be open without taking the last ones: where the limit was low already, an album has to be smaller.
fn room() -> usize {
    match (getrlimit(Resource::Nofile).current, open_now()) {
        (Some(limit), Some(open)) => {
            usize::try_from(limit).map_or(ORIGINALS, |it| it.saturating_sub(open + SPARE))
        }
        (None, _) | (_, None) => ORIGINALS,
    }
}

async fn download(open: Arc<Mutex<Vec<File>>>, originals: usize) -> io::Result<()> {
    for _ in 0..originals {
        let original = File::open(ORIGINAL)?;
        // A second download would not have to open it: that is the bug.
        lock(&open).push(original);
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// A panic elsewhere leaves nothing half-changed behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{eventually, runtime};

    #[test]
    fn an_album_stays_open_until_it_is_closed() {
        let (runtime, _probe) = runtime();
        let entered = runtime.enter();
        let archive = Archive::open();
        drop(entered);
        let open = || lock(&archive.open).len();
        // The limit is the whole process's, in which other tests run: it is left as it is.
        archive.download_album();
        eventually("all are open", || open() == ORIGINALS);
        archive.close();
        assert_eq!(open(), 0);
    }
}
