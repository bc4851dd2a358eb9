//! The disk with the photos. Everything here blocks the calling thread, as `std::fs` does; two faults live here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::{clock, work};

/// What a write takes on a healthy disk.
const WRITE: Duration = Duration::from_millis(2);
const RENDER: Duration = Duration::from_micros(300);

#[derive(Default)]
pub(crate) struct Storage {
    /// Until then, a look-up sleeps.
    lookups_hang_until: Mutex<Option<Instant>>,
    writes_hang: Mutex<bool>,
    writes_resume: Condvar,
    hanging: Hanging,
}

/// Threads that hang right now.
#[derive(Default)]
struct Hanging {
    lookups: AtomicUsize,
    writes: AtomicUsize,
}

impl Storage {
    /// Whether a photo is there. Meant to be quick enough for a worker, and on the day of `stuck-poll` it is not: that
    /// is the bug.
    pub(crate) fn has(&self, photo: u64) -> bool {
        let until = *lock(&self.lookups_hang_until);
        if let Some(left) = until.and_then(|until| until.checked_duration_since(clock::now())) {
            self.hanging.lookups.fetch_add(1, Ordering::Relaxed);
            thread::sleep(left);
            self.hanging.lookups.fetch_sub(1, Ordering::Relaxed);
        }
        photo != 0
    }

    /// Renders a photo small and writes it; for the blocking pool.
    pub(crate) fn write_thumbnail(&self, _photo: u64) {
        work::spend(RENDER);
        self.write();
    }

    /// Appends lines to the audit log; for the blocking pool.
    pub(crate) fn append(&self, _lines: &[String]) {
        self.write();
    }

    fn write(&self) {
        self.hanging.writes.fetch_add(1, Ordering::Relaxed);
        let hang = lock(&self.writes_hang);
        drop(self.writes_resume.wait_while(hang, |hang| *hang).unwrap_or_else(PoisonError::into_inner));
        self.hanging.writes.fetch_sub(1, Ordering::Relaxed);
        thread::sleep(WRITE);
    }

    pub(crate) fn hang_lookups(&self, until: Option<Instant>) {
        *lock(&self.lookups_hang_until) = until;
    }

    pub(crate) fn hang_writes(&self, hang: bool) {
        *lock(&self.writes_hang) = hang;
        self.writes_resume.notify_all();
    }

    #[cfg(test)]
    pub(crate) fn hanging_lookups(&self) -> usize {
        self.hanging.lookups.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn hanging_writes(&self) -> usize {
        self.hanging.writes.load(Ordering::Relaxed)
    }
}

/// A panic elsewhere leaves nothing half-changed behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hanging_lookup_sleeps_until_the_stated_moment() {
        let storage = Storage::default();
        let until = clock::now() + Duration::from_millis(30);
        storage.hang_lookups(Some(until));
        assert!(storage.has(1));
        assert!(clock::now() >= until);
        assert!(!storage.has(0));
    }
}
