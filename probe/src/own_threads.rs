//! The threads of the probe's own, so that none of them is taken for one of the application's.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use crate::registry::lines::current_tid;

/// A handful; locked where one begins or ends and where a watcher asks for stacks, never in a hook.
static TIDS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

thread_local! {
    static MINE: RefCell<Option<Mine>> = const { RefCell::new(None) };
}

/// Among them for as long as its thread lives: the system gives its number to another one afterwards.
struct Mine(u32);

impl Drop for Mine {
    fn drop(&mut self) {
        TIDS.lock().unwrap_or_else(PoisonError::into_inner).retain(|&tid| tid != self.0);
    }
}

/// The calling thread is one of them.
pub(crate) fn add_this_one() {
    MINE.with_borrow_mut(|mine| {
        if mine.is_none()
            && let Some(tid) = current_tid()
        {
            TIDS.lock().unwrap_or_else(PoisonError::into_inner).push(tid);
            *mine = Some(Mine(tid));
        }
    });
}

/// Numbers of all of them.
pub(crate) fn all() -> Vec<u32> {
    TIDS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_among_them_until_it_ends() {
        let thread = std::thread::spawn(|| {
            add_this_one();
            add_this_one();
            let tid = current_tid().expect("Linux tells it");
            (tid, all().iter().filter(|&&known| known == tid).count())
        });
        let (tid, times) = thread.join().expect("no panic");
        assert_eq!((times, all().contains(&tid)), (1, false));
    }
}
