//! The failure of a task whose handle is held when it ends. Whoever awaits the handle is told the error; where it goes
//! unawaited nobody is, and then the failure is told as one that nobody awaited.

use std::sync::atomic::{AtomicU8, Ordering::AcqRel, Ordering::Acquire};
use std::sync::{Arc, OnceLock};

use crate::registry::slots::ENDED_WORDS;

const FAILED: u8 = 1;
const LET_GO: u8 = 2;

/// Shared by a task that may fail and its handle: the second of the two to be done tells. Neither waits for the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Failure(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: AtomicU8,
    /// Of the ended task; written by the task alone, before it says that it has failed.
    words: OnceLock<Box<[u64; ENDED_WORDS]>>,
}

impl Failure {
    /// Whether the handle has gone.
    pub(super) fn is_let_go(&self) -> bool {
        self.0.state.load(Acquire) == LET_GO
    }

    /// The task ends with an error, as `words` say. False: nobody holds its handle, which is for the task to tell.
    pub(super) fn leave(&self, words: [u64; ENDED_WORDS]) -> bool {
        let first = self.0.words.set(Box::new(words)).is_ok();
        first && self.0.state.swap(FAILED, AcqRel) != LET_GO
    }

    /// The handle goes, unawaited. The words of the task, if it has failed before.
    pub(super) fn let_go(&self) -> Option<[u64; ENDED_WORDS]> {
        let failed = self.0.state.swap(LET_GO, AcqRel) == FAILED;
        self.0.words.get().filter(|_| failed).map(|words| **words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [u64; ENDED_WORDS] = [7; ENDED_WORDS];

    #[test]
    fn it_takes_as_much_memory_as_is_said() {
        // Beside what is shared, the two counts of an `Arc`.
        let counts = 2 * size_of::<usize>();
        assert_eq!((size_of::<Shared>() + counts, size_of::<[u64; ENDED_WORDS]>()), (40, 72));
    }

    #[test]
    fn the_second_of_the_two_tells() {
        let failure = Failure::default();
        assert!(failure.leave(WORDS) && !failure.is_let_go());
        assert_eq!(failure.let_go(), Some(WORDS));
        let failure = Failure::default();
        assert_eq!(failure.let_go(), None);
        assert!(failure.is_let_go() && !failure.leave(WORDS));
    }

    #[test]
    fn of_two_at_once_one_tells() {
        for _ in 0..if cfg!(miri) { 5 } else { 200 } {
            let failure = Failure::default();
            let [task, handle] = std::thread::scope(|scope| {
                let task = scope.spawn(|| !failure.leave(WORDS));
                let handle = scope.spawn(|| failure.let_go().is_some());
                [task.join().expect("it does not panic"), handle.join().expect("it does not panic")]
            });
            assert!(task != handle);
        }
    }
}
