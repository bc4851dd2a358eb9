//! The audit log: who logged in and who ordered. One task gathers the lines and appends them in batches; nobody waits for
//! it, and one fault lives here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use taskscope_probe::AbortHandle;
use taskscope_probe::Probe;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval};

use crate::storage::Storage;

const BATCH_EVERY: Duration = Duration::from_secs(1);
/// A disk that hangs costs audit lines before it costs memory.
const WAITING_LINES: usize = 8192;
/// The word of a line that it is filed under: who it is about.
const COLUMN: usize = 0;
/// Where the next version of the log will have it.
const NEXT_COLUMN: usize = 7;

pub(crate) struct Audit {
    lines: mpsc::Sender<String>,
    log: Arc<Log>,
    runtime: Handle,
    /// The last one that was spawned.
    writer: Mutex<AbortHandle>,
}

struct Log {
    probe: Probe,
    storage: Arc<Storage>,
    /// Of one writer at a time; what waits when a writer dies is the next one's.
    waiting: tokio::sync::Mutex<mpsc::Receiver<String>>,
    expects_next_version: AtomicBool,
    flush: Notify,
}

impl Audit {
    /// Inside a runtime.
    pub(crate) fn open(probe: Probe, storage: Arc<Storage>) -> Self {
        let (lines, waiting) = mpsc::channel(WAITING_LINES);
        let log = Arc::new(Log {
            probe,
            storage,
            waiting: waiting.into(),
            expects_next_version: AtomicBool::new(false),
            flush: Notify::new(),
        });
        let writer = Mutex::new(spawn_writer(&log));
        Self { lines, log, runtime: Handle::current(), writer }
    }

    pub(crate) fn record(&self, line: String) {
        let _ = self.lines.try_send(line);
    }

    /// The writer looks for a column that no line has: that is the bug. At the end of the fault a new one is spawned.
    pub(crate) fn expect_next_version(&self, expected: bool) {
        self.log.expects_next_version.store(expected, Ordering::Relaxed);
        if expected {
            self.record("the-shop expects the next version".to_owned());
            self.log.flush.notify_one();
            return;
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.is_finished() {
            let _entered = self.runtime.enter();
            *writer = spawn_writer(&self.log);
        }
    }

    #[cfg(test)]
    pub(crate) fn is_written(&self) -> bool {
        !self.writer.lock().unwrap_or_else(PoisonError::into_inner).is_finished()
    }
}

fn spawn_writer(log: &Arc<Log>) -> AbortHandle {
    log.probe.spawn_detached("audit-writer", write_batches(log.clone()))
}

async fn write_batches(log: Arc<Log>) {
    let mut waiting = log.waiting.lock().await;
    let mut batches = interval(BATCH_EVERY);
    batches.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = batches.tick() => {}
            () = log.flush.notified() => {}
        }
        let mut batch = Vec::new();
        if waiting.recv_many(&mut batch, WAITING_LINES).await == 0 {
            return;
        }
        let column = if log.expects_next_version.load(Ordering::Relaxed) { NEXT_COLUMN } else { COLUMN };
        batch.sort_by_cached_key(|line| filed_under(line, column));
        let storage = log.storage.clone();
        let written = log.probe.spawn_blocking("audit-append", move || storage.append(&batch));
        if written.await.is_err() {
            return;
        }
    }
}

fn filed_under(line: &str, column: usize) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    words[column].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{eventually, runtime};

    #[test]
    fn the_writer_dies_of_the_fault_and_another_one_goes_on_after_it() {
        let (runtime, probe) = runtime();
        let entered = runtime.enter();
        let audit = Audit::open(probe, Arc::default());
        drop(entered);
        audit.record("ada logged in".to_owned());
        assert!(audit.is_written());
        audit.expect_next_version(true);
        eventually("the writer is dead", || !audit.is_written());
        audit.record("bob logged in".to_owned());
        audit.expect_next_version(false);
        assert!(audit.is_written());
        eventually("what waited is taken", || audit.lines.capacity() == WAITING_LINES);
        assert!(audit.is_written());
    }

    #[test]
    fn a_line_is_filed_under_who_it_is_about() {
        assert_eq!(filed_under("ada logged in as 7", COLUMN), "ada");
    }
}
