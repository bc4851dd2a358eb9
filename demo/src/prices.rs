//! What a print costs. The list is read by every order, on its worker, behind a mutex of the standard library: that is
//! quick while whoever writes it works first and locks then. On the day of `contention` the import locks first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::work;

/// What it takes to read a supplier's list.
const READ: Duration = Duration::from_millis(2);
/// The same for the list of all suppliers.
const READ_ALL: Duration = Duration::from_millis(1500);
/// Between two of those, orders come through.
const BREAK: Duration = Duration::from_millis(50);
const SIZES: usize = 12;

pub(crate) struct Prices {
    cents: Mutex<Vec<u64>>,
    lock_first: AtomicBool,
}

impl Default for Prices {
    fn default() -> Self {
        Self { cents: Mutex::new(list(0)), lock_first: AtomicBool::default() }
    }
}

impl Prices {
    /// Of one copy, in cents.
    pub(crate) fn of(&self, photo: u64) -> u64 {
        let cents = self.lock();
        cents[photo as usize % SIZES]
    }

    /// Reads the list anew; for the blocking pool. On the bad day again and again, until that is over.
    pub(crate) fn import(&self) {
        for edition in 1.. {
            if !self.lock_first.load(Ordering::Relaxed) {
                work::spend(READ);
                *self.lock() = list(edition);
                return;
            }
            let mut cents = self.lock();
            work::spend(READ_ALL);
            *cents = list(edition);
            drop(cents);
            thread::sleep(BREAK);
        }
    }

    pub(crate) fn lock_first(&self, lock_first: bool) {
        self.lock_first.store(lock_first, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.cents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn list(edition: u64) -> Vec<u64> {
    (0..SIZES as u64).map(|size| 29 + 10 * size + edition % 2).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock;
    use crate::testing::eventually;

    #[test]
    fn orders_wait_for_an_import_that_locks_first_and_for_no_other() {
        let prices = Arc::new(Prices::default());
        assert_eq!(prices.of(13), 39);
        prices.import();
        assert_eq!(prices.of(13), 40);

        prices.lock_first(true);
        let importing = prices.clone();
        let import = thread::spawn(move || importing.import());
        eventually("the import has the lock", || prices.cents.try_lock().is_err());
        let start = clock::now();
        prices.of(13);
        assert!(start.elapsed() > READ_ALL / 3);
        prices.lock_first(false);
        import.join().unwrap();
    }
}
