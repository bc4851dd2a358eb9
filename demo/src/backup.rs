//! The backup: a job of the blocking pool that copies the photos to a share elsewhere. `long-job` lives here: a share that
//! is gone is waited for, however long that takes.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::runtime::Handle;

pub(crate) struct Backup {
    runtime: Handle,
    share: Arc<Share>,
}

#[derive(Default)]
struct Share {
    is_gone: Mutex<bool>,
    is_back: Condvar,
}

impl Backup {
    /// Inside a runtime.
    pub(crate) fn open() -> Self {
        Self { runtime: Handle::current(), share: Arc::default() }
    }

    pub(crate) fn begin_without_share(&self) {
        self.share.is_there(false);
        let share = self.share.clone();
        let _entered = self.runtime.enter();
        drop(taskscope_probe::spawn_blocking("backup", move || share.copy()));
    }

    pub(crate) fn share_is_back(&self) {
        self.share.is_there(true);
    }
}

impl Share {
    fn is_there(&self, there: bool) {
        *self.is_gone.lock().unwrap_or_else(PoisonError::into_inner) = !there;
        self.is_back.notify_all();
    }

    /// Without a limit: that is the bug.
    fn copy(&self) {
        let gone = self.is_gone.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.is_back.wait_while(gone, |gone| *gone).unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{eventually, runtime};

    #[test]
    fn the_backup_waits_for_its_share() {
        let (runtime, _probe) = runtime();
        let entered = runtime.enter();
        let backup = Backup::open();
        drop(entered);
        // The job's own, beside the shop's.
        let jobs = || Arc::strong_count(&backup.share) - 1;
        backup.begin_without_share();
        assert_eq!(jobs(), 1);
        backup.share_is_back();
        eventually("the job has ended", || jobs() == 0);
    }
}
