//! Tasks that are spawned and end at once.

use crate::Mode;

const BATCH: u64 = 1000;

/// A unit is a task.
pub(crate) async fn run<M: Mode>(units: u64) -> u64 {
    let batches = units.div_ceil(BATCH);
    let mut batch = Vec::with_capacity(BATCH as usize);
    for _ in 0..batches {
        batch.extend((0..BATCH).map(|_| M::spawn(async {})));
        for task in batch.drain(..) {
            task.await.expect("an empty task does not panic");
        }
    }
    batches * BATCH
}
