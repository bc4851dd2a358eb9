//! Tasks that are begun and ended from outside of the shop's runtime: what the shop does only now and then.

use std::sync::{Mutex, PoisonError};

use taskscope_probe::AbortHandle;
use tokio::runtime::Handle;

pub(crate) struct Errand {
    runtime: Handle,
    /// Since it was begun.
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Errand {
    /// Inside a runtime; nothing is begun yet.
    pub(crate) fn none() -> Self {
        Self { runtime: Handle::current(), tasks: Mutex::default() }
    }

    /// `spawn` is called inside the runtime.
    pub(crate) fn begin(&self, spawn: impl FnOnce() -> AbortHandle) {
        let _entered = self.runtime.enter();
        let task = spawn();
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// Those of its tasks that still live end at their next await.
    pub(crate) fn end(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(AbortHandle::abort);
    }
}
