//! Jobs that a request leaves for later: thumbnails, made by a few worker tasks in the blocking pool.

use std::sync::Arc;

use taskscope_probe::Probe;
use tokio::sync::{Mutex, mpsc};

use crate::storage::Storage;

const WORKERS: usize = 8;
const WAITING_JOBS: usize = 1024;

pub(crate) struct Queue {
    jobs: mpsc::Sender<u64>,
}

/// The queue holds as much as it may.
pub(crate) struct Full;

impl Queue {
    pub(crate) fn open(probe: Probe, storage: &Arc<Storage>) -> Self {
        let (jobs, waiting) = mpsc::channel(WAITING_JOBS);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..WORKERS {
            probe.spawn("thumbnail-worker", work_off(probe, waiting.clone(), storage.clone()));
        }
        Self { jobs }
    }

    pub(crate) fn push(&self, photo: u64) -> Result<(), Full> {
        self.jobs.try_send(photo).map_err(|_| Full)
    }
}

async fn work_off(probe: Probe, jobs: Arc<Mutex<mpsc::Receiver<u64>>>, storage: Arc<Storage>) {
    loop {
        let Some(photo) = jobs.lock().await.recv().await else { return };
        let storage = storage.clone();
        if probe.spawn_blocking("thumbnail", move || storage.write_thumbnail(photo)).await.is_err() {
            return;
        }
    }
}
