//! The audit log: who logged in and who ordered. One task gathers the lines and appends them in batches.

use std::sync::Arc;
use std::time::Duration;

use taskscope_probe::Probe;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::storage::Storage;

const BATCH_EVERY: Duration = Duration::from_secs(1);
/// A disk that hangs costs audit lines before it costs memory.
const WAITING_LINES: usize = 8192;

pub(crate) struct Audit {
    lines: mpsc::Sender<String>,
}

impl Audit {
    pub(crate) fn open(probe: Probe, storage: Arc<Storage>) -> Self {
        let (lines, waiting) = mpsc::channel(WAITING_LINES);
        probe.spawn("audit-writer", write_batches(probe, waiting, storage));
        Self { lines }
    }

    pub(crate) fn record(&self, line: String) {
        let _ = self.lines.try_send(line);
    }
}

async fn write_batches(probe: Probe, mut waiting: mpsc::Receiver<String>, storage: Arc<Storage>) {
    let mut batches = interval(BATCH_EVERY);
    batches.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        batches.tick().await;
        let mut batch = Vec::new();
        if waiting.recv_many(&mut batch, WAITING_LINES).await == 0 {
            return;
        }
        let storage = storage.clone();
        let written = probe.spawn_blocking("audit-append", move || storage.append(&batch));
        if written.await.is_err() {
            return;
        }
    }
}
