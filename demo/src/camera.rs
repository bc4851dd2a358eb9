//! Photos straight from customers' cameras: an ordinary blocking library on a thread of its own brings them, and a task for
//! each looks for faces. `queue` lives here: nothing bounds how many of these tasks wait for a worker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::work;

/// What it takes to look for faces in a photo.
const SEARCH: Duration = Duration::from_millis(10);
/// 400 photos a second, where the workers have time for fewer than 200.
const EVERY: Duration = Duration::from_millis(10);
const AT_ONCE: usize = 4;

pub(crate) struct Cameras {
    runtime: Handle,
    /// Of the stream that was begun last.
    streaming: Mutex<Arc<AtomicBool>>,
}

impl Cameras {
    /// Inside a runtime.
    pub(crate) fn open() -> Self {
        Self { runtime: Handle::current(), streaming: Mutex::default() }
    }

    pub(crate) fn stream(&self) {
        self.stop();
        let streaming = Arc::new(AtomicBool::new(true));
        *self.streaming.lock().unwrap_or_else(PoisonError::into_inner) = streaming.clone();
        let runtime = self.runtime.clone();
        // Without a thread nothing comes, which the fault's announcement would be wrong about; the shop goes on.
        let _ = thread::Builder::new().name("cameras".into()).spawn(move || bring(&runtime, &streaming));
    }

    /// What waits still is skipped.
    pub(crate) fn stop(&self) {
        self.streaming.lock().unwrap_or_else(PoisonError::into_inner).store(false, Ordering::Relaxed);
    }
}

fn bring(runtime: &Handle, streaming: &Arc<AtomicBool>) {
    let _entered = runtime.enter();
    while streaming.load(Ordering::Relaxed) {
        for _ in 0..AT_ONCE {
            // However many wait already: that is the bug.
            drop(taskscope_probe::spawn("face-search", search(streaming.clone())));
        }
        thread::sleep(EVERY);
    }
}

async fn search(streaming: Arc<AtomicBool>) {
    if streaming.load(Ordering::Relaxed) {
        work::spend(SEARCH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{eventually, runtime};

    #[test]
    fn more_and_more_photos_wait_until_the_cameras_stop() {
        let (runtime, _probe) = runtime();
        let entered = runtime.enter();
        let cameras = Cameras::open();
        drop(entered);
        let alive = || runtime.metrics().num_alive_tasks();
        cameras.stream();
        eventually("a hundred wait", || alive() > 100);
        cameras.stop();
        eventually("none waits", || alive() == 0);
    }
}
